"""Patches from the training set, which lies on the training device: cut, augmented and resized there by indexing.

What a batch holds is a function of (seed, iteration): there is no loader, no worker and no sampler state to save.
The set lies there in the precision that it was stored in; a batch is in single precision.

A set that would take more than an eighth of what is free of a GPU's memory stays in its files, mapped: the system keeps
them in memory once for all jobs, and of each batch its patches or slices go over. A batch is the same to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sslbench.config.recipe import Distortion, Recipe, ThreeOfSix, TilesSpec
from sslbench.core.errors import UsageError
from sslbench.core.randomness import numpy_generator, torch_generator
from sslbench.core.step import Batch, Stream, View
from sslbench.core.transfer import send
from sslbench.data import augment
from sslbench.data.resampling import nearest_positions
from sslbench.data.store import OnDemand

HeldOn = Literal["device", "host"]  # where a training set lies
_SHARE = 1 / 8  # of the free memory of a GPU that a set may take: with seven more jobs there a third is left


def place_of(bytes: int, device: torch.device) -> HeldOn:
    """Where a training set of a size is to lie."""
    if device.type != "cuda":
        return "device"
    return "device" if bytes <= _SHARE * torch.cuda.mem_get_info(device)[0] else "host"


@dataclass(frozen=True)
class TrainingSet:
    """All that training may see: images, and the labels of the labelled ones. Nothing here leads to other cases.

    Attributes:
        images: (channels, *S) float per case, labelled ones first; one at a time is looked at.
        labels: (*S) uint8, of the labelled cases only.
    """

    images: Sequence[np.ndarray]
    labels: Sequence[np.ndarray]

    @property
    def num_labeled(self) -> int:
        """How many cases are labelled."""
        return len(self.labels)


def window_starts(size: int, patch: int, stride: int) -> list[int]:
    """Starts of the windows along one axis: n = ⌈(S - P) / stride⌉ + 1, start_i = min(i·stride, S - P)."""
    count = max(-(-(size - patch) // stride), 0) + 1
    return [min(number * stride, max(size - patch, 0)) for number in range(count)]


def tile_boxes(image: np.ndarray, size: Sequence[int], spec: TilesSpec) -> list[tuple[slice, slice, slice]]:
    """The tiles (z, rows, columns) that an image (channels, Z, H, W) is cut into, row by row, without the blank ones.

    The last row and column of tiles are shifted inward; an image smaller than a tile is one by itself (CDMA's
    cropping of DigestPath).
    """
    Z, H, W = image.shape[1:]
    boxes = [
        (slice(z, z + 1), slice(top, top + size[0]), slice(left, left + size[1]))
        for z in range(Z)
        for top in window_starts(H, size[0], spec.stride[0])
        for left in window_starts(W, size[1], spec.stride[1])
    ]
    if spec.blank is None:
        return boxes
    low, high = spec.blank
    return [box for box in boxes if not low <= 255 * float(image[:, *box].mean(dtype=np.float64)) <= high]


def cut_tile(image: np.ndarray, box: tuple[slice, slice, slice], spec: TilesSpec) -> np.ndarray:
    """One tile (channels, 1, h, w) of an image."""
    tile = image[:, *box]
    return stretched(tile) if spec.rescale else tile


def stretched(image: np.ndarray) -> np.ndarray:
    """An image between its own extremes, over all channels; one without contrast becomes 0."""
    low, high = float(image.min()), float(image.max())
    shifted = image.astype(np.float32) - np.float32(low)
    return (shifted / np.float32(high - low) if high > low else shifted).astype(image.dtype, copy=False)


def _tiled(data: TrainingSet, size: Sequence[int], spec: TilesSpec) -> TrainingSet:
    """A training set whose cases are the tiles of the cases."""
    places = [(number, box) for number, image in enumerate(data.images) for box in tile_boxes(image, size, spec)]
    labeled = sum(number < data.num_labeled for number, _ in places)
    if not labeled:
        raise UsageError("every tile of the labelled images is blank", "see tiles.blank of the recipe")

    def image(place: int) -> np.ndarray:
        number, box = places[place]
        return cut_tile(data.images[number], box, spec)

    def label(place: int) -> np.ndarray:
        number, box = places[place]
        return data.labels[number][box]

    return TrainingSet(OnDemand(len(places), image), OnDemand(labeled, label))


class Sampler:
    """Two-stream batches of patches (3-D), resized slices or tiles (2-D).

    An item is a case in 3-D and a slice, or a tile of one, in 2-D. Each stream is an endless chain of permutations of
    its items; with `schedule.epoch: labeled_pass` both chains start anew at every epoch, as the two-stream sampler of
    SSL4MIS does. With `batch.order: repeated` an epoch of E iterations is one permutation of its E·b places, of which
    place p holds item p mod n: the loaders of GA and DHC repeat their lists of n scans so, and shuffle the long list.
    All methods of a seed meet the same patches: the streams draw apart.

    Args:
        data: the training set.
        recipe: patch size, batch, augmentation, epoch.
        seed: of the job.
        device: where the set is held and patches are cut.
        place: where the set lies; None: by its size and the memory that is free (`place_of`).

    Attributes:
        place: where it lies.
        bytes: of the set, as it is stored.
    """

    def __init__(
        self, data: TrainingSet, recipe: Recipe, seed: int, device: torch.device, place: HeldOn | None = None
    ) -> None:
        self.recipe, self.seed, self.device = recipe, seed, device
        self.size = tuple(recipe.patch_size)
        self._orders: dict[tuple[str, int, int], np.ndarray] = {}
        if recipe.tiles is not None:
            data = _tiled(data, self.size, recipe.tiles)
        if len(self.size) == 2:
            self._items: _Slices | _Volumes = _Slices(data, self.size, device, place)
        else:
            # DHC and SKCDF flip the two axes of a slice, which are the last ones there; LA's turns take the first ones.
            plane = (1, 2) if recipe.augment.geometry == "flips" else (0, 1)
            self._items = _Volumes(data, self.size, plane, device, place)
        self.place, self.bytes = self._items.place, self._items.bytes
        self.count = {"labeled": self._items.num_labeled, "unlabeled": len(self._items) - self._items.num_labeled}
        self.shapes = tuple(self._items.shapes)
        batch, epoch = recipe.batch, recipe.schedule.epoch
        if isinstance(epoch, int):
            length = epoch
        elif epoch == "labeled_pass":
            length = self.count["labeled"] // batch.labeled
        elif epoch == "unlabeled_pass":
            length = -(-self.count["unlabeled"] // max(batch.unlabeled, 1))
        else:
            length = self.count["unlabeled"]
        self.epoch_length = max(length, 1)

    def batch(
        self, iteration: int, streams: Sequence[Stream] = ("labeled", "unlabeled"), views: Sequence[View] = ("weak",)
    ) -> Batch:
        """The batch of an iteration, counted over all phases.

        Args:
            iteration: from 0.
            streams: which patches it holds; labelled ones come first.
            views: `raw` as cut, `weak` with the recipe's weak augmentation, `strong` with its strong one on top of
                that. All show the same patches.
        """
        items: list[int] = []
        sizes: dict[Stream, int] = {}
        for stream in ("labeled", "unlabeled"):
            if stream in streams:
                sizes[stream] = getattr(self.recipe.batch, stream)
                items += self._order(stream, iteration, sizes[stream])
        return self._cut(items, sizes, iteration, views)

    def sweep(self) -> Iterator[Batch]:
        """Every item once, in order: slices resized as in training, volumes whole; raw, without labels of
        unlabelled items."""
        for item in range(len(self._items)):
            yield self._items.whole(item)

    def _order(self, stream: Stream, iteration: int, size: int) -> list[int]:
        count = self.count[stream]
        start = 0 if stream == "labeled" else self.count["labeled"]
        if self.recipe.batch.order == "repeated":
            epoch, within = divmod(iteration, self.epoch_length)
            dealt = self._permutation(stream, epoch, 0, self.epoch_length * size)[within * size : (within + 1) * size]
            return [start + int(place) % count for place in dealt]
        chain, first = 0, iteration * size
        if self.recipe.schedule.epoch == "labeled_pass":
            chain, within = divmod(iteration, self.epoch_length)
            first = within * size
        picked = []
        for position in range(first, first + size):
            block, place = divmod(position, count)
            picked.append(start + int(self._permutation(stream, chain, block, count)[place]))
        return picked

    def _permutation(self, stream: Stream, chain: int, block: int, count: int) -> np.ndarray:
        key = (stream, chain, block)
        if key not in self._orders:
            # A batch touches two permutations of a stream at most; four entries serve both streams.
            self._orders = dict(list(self._orders.items())[-3:])
            self._orders[key] = numpy_generator(self.seed, f"order/{stream}", chain, block).permutation(count)
        return self._orders[key]

    def _cut(self, items: list[int], sizes: dict[Stream, int], iteration: int, views: Sequence[View]) -> Batch:
        draws, augmentation = self._draws("patch", sizes, iteration), self.recipe.augment
        origins = [self._items.origin(item, random) for item, random in zip(items, draws, strict=True)]
        planes = [
            augment.draw(augmentation.geometry, self._items.plane(item), random)
            for item, random in zip(items, draws, strict=True)
        ]
        num_labeled = sizes.get("labeled", 0)
        found: dict[str, tuple[Tensor, Tensor]] = {}
        if "raw" in views:
            still = [augment.identity(self._items.plane(item)) for item in items]
            found["raw"] = self._items.cut(items, origins, still, num_labeled)
        if "weak" in views or "strong" in views:
            cut = self._items.cut(items, origins, planes, num_labeled)
            found["weak"] = self._distorted("weak", augmentation.distortions, cut, sizes, iteration)
        if "strong" in views:
            found["strong"] = self._distorted("strong", augmentation.strong, found["weak"], sizes, iteration)
        images: dict[str, Tensor] = {view: found[view][0] for view in views}
        labels: dict[str, Tensor] = {view: found[view][1] for view in views}
        return Batch(images, labels, num_labeled, torch.tensor(items), torch.tensor(np.array(origins)))

    def _draws(self, name: str, sizes: dict[Stream, int], iteration: int) -> list[np.random.Generator]:
        """A generator for each patch; those of a stream do not depend on whether the other is drawn."""
        return [
            numpy_generator(self.seed, f"{name}/{stream}", iteration, n)
            for stream, size in sizes.items()
            for n in range(size)
        ]

    def _distorted(
        self,
        view: View,
        distortions: Sequence[Distortion | ThreeOfSix],
        cut: tuple[Tensor, Tensor],
        sizes: dict[Stream, int],
        iteration: int,
    ) -> tuple[Tensor, Tensor]:
        if not distortions:
            return cut
        generators = {
            stream: torch_generator(self.seed, f"{view}/noise/{stream}", iteration, device=self.device)
            for stream in sizes
        }

        def gaussian(like: Tensor) -> Tensor:
            parts = [
                torch.randn((size, *like.shape[1:]), generator=generators[stream], device=like.device)
                for stream, size in sizes.items()
            ]
            return torch.cat(parts)

        return augment.distort(distortions, *cut, self._draws(view, sizes, iteration), gaussian)


class _Slices:
    """Slices of all cases in one flat buffer: a batch of any sizes is one gather. Of a set on the host, the buffer has
    the slices of the batch alone."""

    def __init__(self, data: TrainingSet, size: tuple[int, ...], device: torch.device, place: HeldOn | None) -> None:
        self.data, self.size, self.device = data, size, device
        self.shapes: list[tuple[int, int]] = []
        self.where: list[tuple[int, int]] = []  # case, and slice of it
        offsets, offset, labeled = [], 0, 0
        for number, image in enumerate(data.images):
            depth, H, W = image.shape[1:]
            self.shapes += [(H, W)] * depth
            self.where += [(number, z) for z in range(depth)]
            offsets += [offset + z * H * W for z in range(depth)]
            offset += depth * H * W
            if number < data.num_labeled:
                self.num_labeled, labeled = len(offsets), offset
        first = data.images[0]
        self.channels = len(first)
        self.bytes = offset * self.channels * first.dtype.itemsize + labeled
        self.place = place or place_of(self.bytes, device)
        if self.place == "host":
            return
        self.offset = torch.tensor(offsets, device=device)
        # Slice by slice, the channels of one beside each other.
        beside = OnDemand(len(data.images), lambda place: np.swapaxes(data.images[place], 0, 1))
        self.image = _flat(beside, offset * self.channels, device)
        self.label = _flat(data.labels, labeled, device)

    def _buffers(self, items: list[int], num_labeled: int) -> tuple[Tensor, Tensor, Tensor]:
        """Images and labels in a row, and where in that of labels each item starts."""
        if self.place == "device":
            return self.image, self.label, self.offset[_send(np.array(items), self.device)]
        where = [self.where[item] for item in items]
        sizes = [self.shapes[item][0] * self.shapes[item][1] for item in items]
        image = np.concatenate([self.data.images[case][:, z].ravel() for case, z in where])
        labels = [self.data.labels[case][z].ravel() for case, z in where[:num_labeled]]
        label = np.concatenate([np.zeros(0, np.uint8), *labels])
        starts = np.cumsum([0, *sizes[:-1]])
        return _send(image, self.device), _send(label, self.device), _send(starts, self.device)

    def __len__(self) -> int:
        return len(self.shapes)

    def plane(self, item: int) -> tuple[int, int]:
        return self.shapes[item]

    def origin(self, item: int, random: np.random.Generator) -> list[int]:
        return [0, 0]

    def cut(
        self, items: list[int], origins: list[list[int]], maps: list[augment.PlaneMap], num_labeled: int
    ) -> tuple[Tensor, Tensor]:
        H, W = self.size
        # float64: the rounding of a nearest-neighbour position must not depend on the arithmetic.
        rows = _send(np.stack([nearest_positions(plane.size[0], H) for plane in maps]), self.device)
        cols = _send(np.stack([nearest_positions(plane.size[1], W) for plane in maps]), self.device)
        matrix = _send(np.stack([plane.matrix for plane in maps]), self.device)
        offset = _send(np.stack([plane.offset for plane in maps]), self.device)
        limits = _send(np.array([self.shapes[item] for item in items]), self.device)
        u, v = rows.double().unsqueeze(2), cols.double().unsqueeze(1)
        limit = limits.view(-1, 2, 1, 1)
        place: list[Tensor] = []
        inside = torch.ones((), dtype=torch.bool, device=self.device)
        for axis in range(2):
            a0, a1, a2 = (part.view(-1, 1, 1) for part in (offset[:, axis], matrix[:, axis, 0], matrix[:, axis, 1]))
            position = a0 + a1 * u + a2 * v
            # What lies outside the centres of the border voxels is outside, as scipy has it.
            inside = inside & (position >= 0) & (position <= limit[:, axis] - 1)
            place.append((position + 0.5).floor().long())
        images, labels, starts = self._buffers(items, num_labeled)
        start = starts.view(-1, 1, 1)
        within = torch.where(inside, place[0] * limit[:, 1] + place[1], 0)
        plane = limit[:, 0] * limit[:, 1]
        channels = [images[start * self.channels + plane * channel + within] for channel in range(self.channels)]
        image = torch.where(inside.unsqueeze(1), torch.stack(channels, 1).float(), 0.0)
        label = torch.full(within.shape, -1, dtype=torch.int64, device=self.device)
        if num_labeled:
            truth = labels[(start + within)[:num_labeled]].long()
            label[:num_labeled] = torch.where(inside[:num_labeled], truth, 0)
        return image, label

    def whole(self, item: int) -> Batch:
        labeled = int(item < self.num_labeled)
        image, label = self.cut([item], [[0, 0]], [augment.identity(self.shapes[item])], labeled)
        return Batch(
            {"raw": image}, {"raw": label}, labeled, torch.tensor([item]), torch.zeros(1, 2, dtype=torch.int64)
        )


class _Volumes:
    """Whole volumes, padded where a side does not exceed the patch; a patch is a slice of one."""

    def __init__(
        self,
        data: TrainingSet,
        size: tuple[int, ...],
        axes: tuple[int, int],
        device: torch.device,
        place: HeldOn | None,
    ) -> None:
        self.size, self.axes, self.device, self.num_labeled = size, axes, device, data.num_labeled
        unpadded = [image.shape[1:] for image in data.images]
        self.shapes = [
            tuple(side + 2 * pad for side, pad in zip(shape, self._pads(shape), strict=True)) for shape in unpadded
        ]
        voxels = [math.prod(shape) for shape in self.shapes]
        first = data.images[0]
        self.bytes = sum(voxels) * len(first) * first.dtype.itemsize + sum(voxels[: self.num_labeled])
        self.place = place or place_of(self.bytes, device)
        on_host = self.place == "host"
        self.images: Sequence[np.ndarray | Tensor] = data.images if on_host else [*map(self._load, data.images)]
        self.labels: Sequence[np.ndarray | Tensor] = data.labels if on_host else [*map(self._load, data.labels)]

    def _pads(self, shape: Sequence[int]) -> list[int]:
        """Zeros on either end of each axis: the rule of UA-MT and its descendants; the +3 leaves room to move a patch
        as large as the volume."""
        if all(side > patch for side, patch in zip(shape, self.size, strict=True)):
            return [0] * len(self.size)
        return [max((patch - side) // 2 + 3, 0) for side, patch in zip(shape, self.size, strict=True)]

    def _load(self, volume: np.ndarray) -> Tensor:
        """(..., *S) as it is stored, padded."""
        tensor, pads = torch.from_numpy(np.array(volume)).to(self.device), self._pads(volume.shape[-3:])
        return (
            torch.nn.functional.pad(tensor, [pad for pad in reversed(pads) for _ in range(2)]) if any(pads) else tensor
        )

    def _window(self, volume: np.ndarray | Tensor, origin: Sequence[int], size: Sequence[int]) -> Tensor:
        """A part (..., *size) on the device of a volume with its padding."""
        if isinstance(volume, Tensor):
            x, y, z = (slice(start, start + side) for start, side in zip(origin, size, strict=True))
            return volume[..., x, y, z]
        # What reaches into the padding stays zero.
        starts = [start - pad for start, pad in zip(origin, self._pads(volume.shape[-3:]), strict=True)]
        there = [
            slice(max(start, 0), min(start + side, end))
            for start, side, end in zip(starts, size, volume.shape[-3:], strict=True)
        ]
        here = [slice(part.start - start, part.stop - start) for part, start in zip(there, starts, strict=True)]
        window = np.zeros((*volume.shape[:-3], *size), volume.dtype)
        window[..., here[0], here[1], here[2]] = volume[..., there[0], there[1], there[2]]
        return _send(window, self.device)

    def __len__(self) -> int:
        return len(self.images)

    def plane(self, item: int) -> tuple[int, int]:
        return self.size[self.axes[0]], self.size[self.axes[1]]

    def origin(self, item: int, random: np.random.Generator) -> list[int]:
        # The last position is left out, as in the papers' code.
        return [int(random.integers(side - patch)) for side, patch in zip(self.shapes[item], self.size, strict=True)]

    def cut(
        self, items: list[int], origins: list[list[int]], maps: list[augment.PlaneMap], num_labeled: int
    ) -> tuple[Tensor, Tensor]:
        def patch(volume: np.ndarray | Tensor, origin: list[int], plane: augment.PlaneMap) -> Tensor:
            return _turn(self._window(volume, origin, self.size), plane, self.axes)

        image = torch.stack(
            [patch(self.images[i], origin, plane) for i, origin, plane in zip(items, origins, maps, strict=True)]
        ).float()
        label = torch.full((len(items), *image.shape[2:]), -1, dtype=torch.int64, device=self.device)
        for number, (item, origin, plane) in enumerate(zip(items, origins, maps, strict=True)):
            if number < num_labeled:
                label[number] = patch(self.labels[item], origin, plane).long()
        return image, label

    def whole(self, item: int) -> Batch:
        labeled = int(item < self.num_labeled)
        start, shape = [0, 0, 0], self.shapes[item]
        image = self._window(self.images[item], start, shape)[None].float()
        label = torch.full_like(image[:, 0], -1, dtype=torch.int64)
        if labeled:
            label = self._window(self.labels[item], start, shape)[None].long()
        origin = torch.zeros(1, 3, dtype=torch.int64)
        return Batch({"raw": image}, {"raw": label}, labeled, torch.tensor([item]), origin)


def _turn(patch: Tensor, plane: augment.PlaneMap, axes: tuple[int, int]) -> Tensor:
    """Apply a map of quarter turns and flips to two axes of a patch (..., *S)."""
    if not plane.exact:
        raise ValueError("a volume is turned by quarter turns only")
    u, v = (axis - 3 for axis in axes)
    if plane.matrix[0, 0] == 0:  # an odd number of quarter turns swaps the axes
        patch = patch.transpose(u, v)
        signs = plane.matrix[1, 0], plane.matrix[0, 1]
    else:
        signs = plane.matrix[0, 0], plane.matrix[1, 1]
    return patch.flip([axis for axis, sign in zip((u, v), signs, strict=True) if sign < 0])


def _send(array: np.ndarray, device: torch.device) -> Tensor:
    """A small array on the device, without waiting for it there."""
    return send(torch.from_numpy(array), device)


def _flat(arrays: Sequence[np.ndarray], size: int, device: torch.device) -> Tensor:
    """All `size` values of some arrays in a row, in the type of the first; one array at a time is in memory beside."""
    kind = torch.from_numpy(np.zeros(0, arrays[0].dtype)).dtype
    flat = torch.empty(size, dtype=kind, device=device)
    start = 0
    for array in arrays:
        flat[start : start + array.size] = torch.from_numpy(np.array(array)).flatten().to(device)
        start += array.size
    return flat
