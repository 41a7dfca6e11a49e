"""Patches from the training set, which lies on the training device: cut, augmented and resized there by indexing.

What a batch holds is a function of (seed, iteration): there is no loader, no worker and no sampler state to save.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslbench.config import Recipe
from sslbench.data import augment
from sslbench.methods.base import Batch, Stream, View
from sslbench.training.randomness import numpy_generator


@dataclass(frozen=True)
class TrainingSet:
    """All that training may see: images, and the labels of the labelled ones. Nothing here leads to other cases.

    Attributes:
        images: (*S) float32 per case, labelled ones first.
        labels: (*S) uint8, of the labelled cases only.
    """

    images: Sequence[np.ndarray]
    labels: Sequence[np.ndarray]

    @property
    def num_labeled(self) -> int:
        """How many cases are labelled."""
        return len(self.labels)


class Sampler:
    """Two-stream batches of patches (3-D) or resized slices (2-D).

    An item is a case in 3-D and a slice in 2-D. Each stream is an endless chain of permutations of its items; with
    `schedule.epoch: labeled_pass` both chains start anew at every epoch, as the two-stream sampler of SSL4MIS does.
    All methods of a seed meet the same patches: the streams draw apart.

    Args:
        data: the training set.
        recipe: patch size, batch, augmentation, epoch.
        seed: of the job.
        device: where the set is held and patches are cut.
    """

    def __init__(self, data: TrainingSet, recipe: Recipe, seed: int, device: torch.device) -> None:
        self.recipe, self.seed, self.device = recipe, seed, device
        self.size = tuple(recipe.patch_size)
        self._orders: dict[tuple[str, int, int], np.ndarray] = {}
        if len(self.size) == 2:
            self._items: _Slices | _Volumes = _Slices(data, self.size, device)
        else:
            self._items = _Volumes(data, self.size, device)
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
            views: `raw` as cut, `weak` with the recipe's weak augmentation. Both show the same patches.
        """
        items: list[int] = []
        draws: list[np.random.Generator] = []
        for stream in ("labeled", "unlabeled"):
            if stream in streams:
                size = getattr(self.recipe.batch, stream)
                items += self._order(stream, iteration, size)
                draws += [numpy_generator(self.seed, f"patch/{stream}", iteration, n) for n in range(size)]
        num_labeled = self.recipe.batch.labeled if "labeled" in streams else 0
        return self._cut(items, draws, num_labeled, views)

    def sweep(self) -> Iterator[Batch]:
        """Every item once, in order: slices resized as in training, volumes whole; raw, without labels of
        unlabelled items."""
        for item in range(len(self._items)):
            yield self._items.whole(item)

    def _order(self, stream: Stream, iteration: int, size: int) -> list[int]:
        count = self.count[stream]
        start = 0 if stream == "labeled" else self.count["labeled"]
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

    def _cut(
        self, items: list[int], draws: list[np.random.Generator], num_labeled: int, views: Sequence[View]
    ) -> Batch:
        origins = [self._items.origin(item, random) for item, random in zip(items, draws, strict=True)]
        planes = [
            augment.draw(self.recipe.augment.weak, self._items.plane(item), random)
            for item, random in zip(items, draws, strict=True)
        ]
        images: dict[str, Tensor] = {}
        labels: dict[str, Tensor] = {}
        for view in views:
            if view not in ("raw", "weak"):
                raise ValueError(f"the sampler makes raw and weak views, not '{view}'")
            maps = planes if view == "weak" else [augment.identity(self._items.plane(item)) for item in items]
            images[view], labels[view] = self._items.cut(items, origins, maps, num_labeled)
        return Batch(images, labels, num_labeled, torch.tensor(items), torch.tensor(np.array(origins)))


class _Slices:
    """Slices of all cases in one flat buffer: a batch of any sizes is one gather."""

    def __init__(self, data: TrainingSet, size: tuple[int, ...], device: torch.device) -> None:
        self.size, self.device = size, device
        self.shapes: list[tuple[int, int]] = []
        offsets, offset = [], 0
        for number, image in enumerate(data.images):
            depth, H, W = image.shape
            self.shapes += [(H, W)] * depth
            offsets += [offset + z * H * W for z in range(depth)]
            offset += depth * H * W
            if number < data.num_labeled:
                self.num_labeled = len(offsets)
        self.offset = torch.tensor(offsets, device=device)
        self.image = _flat(data.images, torch.float32, device)
        self.label = _flat(data.labels, torch.uint8, device)

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
        flat = self.offset[_send(np.array(items), self.device)].view(-1, 1, 1) + place[0] * limit[:, 1] + place[1]
        flat = torch.where(inside, flat, 0)
        image = torch.where(inside, self.image[flat], 0.0).unsqueeze(1)
        label = torch.full(flat.shape, -1, dtype=torch.int64, device=self.device)
        if num_labeled:
            label[:num_labeled] = torch.where(inside[:num_labeled], self.label[flat[:num_labeled]].long(), 0)
        return image, label

    def whole(self, item: int) -> Batch:
        labeled = int(item < self.num_labeled)
        image, label = self.cut([item], [[0, 0]], [augment.identity(self.shapes[item])], labeled)
        return Batch(
            {"raw": image}, {"raw": label}, labeled, torch.tensor([item]), torch.zeros(1, 2, dtype=torch.int64)
        )


class _Volumes:
    """Whole volumes on the device, padded where a side does not exceed the patch; a patch is a slice of one."""

    def __init__(self, data: TrainingSet, size: tuple[int, ...], device: torch.device) -> None:
        self.size, self.device, self.num_labeled = size, device, data.num_labeled
        self.images = [self._load(image, torch.float32) for image in data.images]
        self.labels = [self._load(label, torch.uint8) for label in data.labels]
        self.shapes = [tuple(image.shape) for image in data.images]

    def _load(self, volume: np.ndarray, dtype: torch.dtype) -> Tensor:
        tensor = torch.from_numpy(np.array(volume)).to(self.device, dtype)
        if any(side <= patch for side, patch in zip(tensor.shape, self.size, strict=True)):
            # The rule of UA-MT and its descendants; the +3 leaves room to move a patch as large as the volume.
            pads = [max((patch - side) // 2 + 3, 0) for side, patch in zip(tensor.shape, self.size, strict=True)]
            tensor = torch.nn.functional.pad(tensor, [pad for pad in reversed(pads) for _ in range(2)])
        return tensor

    def __len__(self) -> int:
        return len(self.images)

    def plane(self, item: int) -> tuple[int, int]:
        return self.size[0], self.size[1]

    def origin(self, item: int, random: np.random.Generator) -> list[int]:
        # The last position is left out, as in the papers' code.
        return [
            int(random.integers(side - patch)) for side, patch in zip(self.images[item].shape, self.size, strict=True)
        ]

    def cut(
        self, items: list[int], origins: list[list[int]], maps: list[augment.PlaneMap], num_labeled: int
    ) -> tuple[Tensor, Tensor]:
        def patch(volume: Tensor, origin: list[int], plane: augment.PlaneMap) -> Tensor:
            where = tuple(slice(start, start + size) for start, size in zip(origin, self.size, strict=True))
            return _turn(volume[where], plane)

        image = torch.stack(
            [patch(self.images[i], origin, plane) for i, origin, plane in zip(items, origins, maps, strict=True)]
        ).unsqueeze(1)
        label = torch.full((len(items), *image.shape[2:]), -1, dtype=torch.int64, device=self.device)
        for number, (item, origin, plane) in enumerate(zip(items, origins, maps, strict=True)):
            if number < num_labeled:
                label[number] = patch(self.labels[item], origin, plane).long()
        return image, label

    def whole(self, item: int) -> Batch:
        labeled = int(item < self.num_labeled)
        image = self.images[item][None, None]
        label = self.labels[item][None].long() if labeled else torch.full_like(image[:, 0], -1, dtype=torch.int64)
        origin = torch.zeros(1, 3, dtype=torch.int64)
        return Batch({"raw": image}, {"raw": label}, labeled, torch.tensor([item]), origin)


def _turn(patch: Tensor, plane: augment.PlaneMap) -> Tensor:
    """Apply a map of quarter turns and flips to the first two axes of a patch."""
    if not plane.exact:
        raise ValueError("a volume is turned by quarter turns only")
    if plane.matrix[0, 0] == 0:  # an odd number of quarter turns swaps the axes
        patch = patch.transpose(0, 1)
        signs = plane.matrix[1, 0], plane.matrix[0, 1]
    else:
        signs = plane.matrix[0, 0], plane.matrix[1, 1]
    return patch.flip([axis for axis in range(2) if signs[axis] < 0])


def nearest_positions(size_in: int, size_out: int) -> np.ndarray:
    """Which of `size_in` positions each of `size_out` takes in `scipy.ndimage.zoom(..., order=0)`: corners aligned,
    floor(i·(in - 1)/(out - 1) + ½)."""
    if size_out == 1:
        return np.zeros(1, dtype=np.int64)
    return np.floor(np.arange(size_out) * ((size_in - 1) / (size_out - 1)) + 0.5).astype(np.int64)


def _send(array: np.ndarray, device: torch.device) -> Tensor:
    """A small array on the device, without waiting for it there."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _flat(arrays: Sequence[np.ndarray], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.cat([torch.from_numpy(np.array(array)).to(dtype).flatten() for array in arrays]).to(device)
