"""Inference over whole volumes: overlapping windows, and slices resized to the network's size.

The mean over windows is kept only for the rows that a later window still reaches. Windows are visited row by row
along one axis; a row that no further window reaches is divided by its weight and handed out, and its place is used
again. That takes patch/size of the memory that scores of the whole volume take, and every voxel gets the very sum
that it gets there: many classes on a large scan fit where all of its scores would not.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from sslbench.data.resampling import nearest_positions
from sslbench.data.sampling import window_starts
from sslbench.methods.base import mean_logits
from sslbench.networks.base import evaluating

Predict = Callable[[Tensor], Tensor]  # image (B, channels, *S) -> probabilities (B, C, *S)
InferenceProgress = Callable[[int, int], None]  # forward passes: windows or slices done, of how many
BlendMode = Literal["uniform", "gaussian"]

_SIGMA = 1 / 8  # of the patch's side: nnU-Net's and MONAI's importance map


def accumulate_windows(
    predict: Predict,
    volume: Tensor,
    patch_size: Sequence[int],
    stride: Sequence[int],
    num_classes: int,
    batch: int,
    weighting: BlendMode = "uniform",
    progress: InferenceProgress | None = None,
) -> Tensor:
    """The mean over windows of their class probabilities.

    A volume smaller than the patch is padded with zeros, ⌊pad/2⌋ before and the rest behind, and cropped back. Without
    more said all windows weigh the same, as in the GA, DHC, MagicNet and LA code.

    Args:
        predict: gives probabilities of a batch of windows.
        volume: (*S) or (channels, *S), on the device.
        patch_size, stride: voxels per axis; the stride is at most the patch.
        num_classes: C.
        batch: windows in a forward pass; halved where the device's memory does not take so many.
        weighting: `gaussian`: a window's voxels weigh less towards its border, exp(-d²/2σ²) along every axis with
            σ = patch/8 (nnU-Net, MONAI; neither its floor of 0.001 nor nnU-Net's cut at 4σ is taken over).
        progress: told after every forward pass.

    Returns:
        (C, *S) fp32 on the volume's device.

    Raises:
        ValueError: a stride that leaves gaps between windows.
    """
    windows = _Windows(volume, patch_size, stride, num_classes, weighting)
    scores = volume.new_empty((num_classes, *windows.padded), dtype=torch.float32)
    for first, means in windows.finished_rows(predict, batch, progress):
        scores.narrow(windows.axis + 1, first, means.shape[windows.axis + 1]).copy_(means)
    return scores[(slice(None), *windows.inside)]


def label_windows(
    predict: Predict,
    volume: Tensor,
    patch_size: Sequence[int],
    stride: Sequence[int],
    num_classes: int,
    batch: int,
    weighting: BlendMode = "uniform",
    progress: InferenceProgress | None = None,
) -> Tensor:
    """Labels (*S) uint8: the argmax of `accumulate_windows`, without its scores ever being there as a whole.

    Arguments and errors are those of `accumulate_windows`.
    """
    windows = _Windows(volume, patch_size, stride, num_classes, weighting)
    labels = volume.new_empty(windows.padded, dtype=torch.uint8)
    for first, means in windows.finished_rows(predict, batch, progress):
        # The first of several highest classes, as of argmax, which takes three times as long on a CPU.
        highest = means.max(0).indices
        labels.narrow(windows.axis, first, means.shape[windows.axis + 1]).copy_(highest)
    return labels[windows.inside]


class _Windows:
    """The windows over a volume, and the sums of their weighted probabilities for the rows that are still open.

    Rows are those of the axis along which a patch is the smallest part of the volume, so that the fewest are open at a
    time. They lie in a ring, row r at r mod patch, where the volume is or, if the memory there does not take them
    beside the network, on the CPU.

    Args:
        volume, patch_size, stride, num_classes, weighting: as for `accumulate_windows`.

    Attributes:
        padded: (*S) of the volume with its padding.
        inside: the volume in that.
        axis: that of the rows.
    """

    def __init__(
        self,
        volume: Tensor,
        patch_size: Sequence[int],
        stride: Sequence[int],
        num_classes: int,
        weighting: BlendMode,
    ) -> None:
        if any(step > side for step, side in zip(stride, patch_size, strict=True)):
            raise ValueError(f"a stride of {tuple(stride)} leaves gaps between windows of {tuple(patch_size)}")
        if volume.ndim == len(patch_size):
            volume = volume.unsqueeze(0)
        size = volume.shape[1:]
        pads = [max(patch - side, 0) for side, patch in zip(size, patch_size, strict=True)]
        if any(pads):
            amounts = [(pad // 2, pad - pad // 2) for pad in pads]
            volume = nn.functional.pad(volume, [part for amount in reversed(amounts) for part in amount])
        self.volume, self.patch_size = volume, patch_size
        self.padded = tuple(volume.shape[1:])
        self.inside = tuple(slice(pad // 2, pad // 2 + side) for pad, side in zip(pads, size, strict=True))
        self.axis = min(range(len(size)), key=lambda axis: patch_size[axis] / self.padded[axis])
        self.ring = patch_size[self.axis]
        self.starts = [window_starts(*along) for along in zip(self.padded, patch_size, stride, strict=True)]
        profiles = [_profile(side, weighting).to(volume.device) for side in patch_size]
        self.weight = _outer(profiles) if weighting == "gaussian" else None
        # The sum of all windows' weights over a voxel is a product over axes.
        self.cover = [_cover(*along) for along in zip(self.padded, self.starts, profiles, strict=True)]
        shape = (num_classes, *self.padded[: self.axis], self.ring, *self.padded[self.axis + 1 :])
        try:
            self.sums = volume.new_zeros(shape, dtype=torch.float32)
        except torch.OutOfMemoryError:
            self.sums = torch.zeros(shape)

    @torch.no_grad()
    def finished_rows(
        self, predict: Predict, batch: int, progress: InferenceProgress | None
    ) -> Iterator[tuple[int, Tensor]]:
        """Runs of rows as soon as they are final, in order: the first one, and the mean probabilities (C, *run).

        A run lives until the next one is asked for.
        """
        corners = self._corners()
        done, row = 0, 0
        while done < len(corners):
            chosen = corners[done : done + batch]
            try:
                parts = predict(torch.stack([self.volume[(slice(None), *self._window(at))] for at in chosen])).float()
            except torch.OutOfMemoryError:
                # Fewer windows at a time cost little; sums on the CPU a copy of every window.
                if batch > 1:
                    batch = -(-batch // 2)
                elif self.sums.device.type != "cpu":
                    self.sums = self.sums.cpu()
                else:
                    raise
                continue
            if self.weight is not None:
                parts = parts * self.weight
            for corner, part in zip(chosen, parts.to(self.sums.device), strict=True):
                yield from self._finish(row, corner[self.axis])
                row = corner[self.axis]
                self._add(corner, part)
            done += len(chosen)
            if progress is not None:
                progress(done, len(corners))
        yield from self._finish(row, self.padded[self.axis])

    def _corners(self) -> list[tuple[int, ...]]:
        """Where all windows start, row after row."""
        others = list(itertools.product(*self.starts[: self.axis], *self.starts[self.axis + 1 :]))
        return [(*at[: self.axis], row, *at[self.axis :]) for row in self.starts[self.axis] for at in others]

    def _window(self, corner: Sequence[int]) -> list[slice]:
        return [slice(start, start + side) for start, side in zip(corner, self.patch_size, strict=True)]

    def _add(self, corner: Sequence[int], part: Tensor) -> None:
        """Add what a window (C, *patch) predicts, its first row being the first open one."""
        place = self._window(corner)
        row = corner[self.axis]
        for first, at, length in self._runs(row, row + self.ring):
            place[self.axis] = slice(at, at + length)
            self.sums[(slice(None), *place)] += part.narrow(self.axis + 1, first - row, length)

    def _finish(self, row: int, end: int) -> Iterator[tuple[int, Tensor]]:
        """The means of the rows from `row` up to `end`; their places in the ring are free again afterwards."""
        cover = [*self.cover]
        for first, at, length in self._runs(row, end):
            run = self.sums.narrow(self.axis + 1, at, length)
            cover[self.axis] = self.cover[self.axis][first : first + length]
            yield first, run.div_(_outer(cover).to(run.device))
            run.zero_()

    def _runs(self, row: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Rows that lie in one piece of the ring: the first one, its place, and how many."""
        while row < end:
            place = row % self.ring
            length = min(self.ring - place, end - row)
            yield row, place, length
            row += length


def _profile(side: int, weighting: BlendMode) -> Tensor:
    """The weight of a window's voxels along one axis."""
    if weighting == "uniform":
        return torch.ones(side)
    distance = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    return torch.exp(-0.5 * (distance / (side * _SIGMA)) ** 2).float()


def _cover(size: int, starts: Sequence[int], profile: Tensor) -> Tensor:
    """The sum of the windows' profiles along one axis."""
    cover = profile.new_zeros(size)
    for start in starts:
        cover[start : start + len(profile)] += profile
    return cover


def _outer(vectors: Sequence[Tensor]) -> Tensor:
    """The product of one vector per axis."""
    product = vectors[0]
    for vector in vectors[1:]:
        product = product.unsqueeze(-1) * vector
    return product


def flipped(predict: Predict, axes: Sequence[int]) -> Predict:
    """`predict` averaged over all flips of some axes: the mean of the probabilities, turned back (test-time flips).

    Args:
        predict: of one view.
        axes: of *S, each from 0; none: `predict` itself. n axes take 2ⁿ forward passes.
    """
    if not axes:
        return predict
    views = [
        [axis + 2 for axis in chosen]
        for count in range(len(axes) + 1)
        for chosen in itertools.combinations(axes, count)
    ]

    def mean(x: Tensor) -> Tensor:
        total = predict(x).float()
        for dims in views[1:]:
            total = total + predict(x.flip(dims)).float().flip(dims)
        return total / len(views)

    return mean


@torch.no_grad()
def resized_slices(
    predict: Predict, volume: Tensor, size: Sequence[int], batch: int, progress: InferenceProgress | None = None
) -> Tensor:
    """Labels of a volume slice by slice: nearest to `size`, argmax, the label map nearest back (SSL4MIS).

    Args:
        predict: gives probabilities of a batch of slices (B, channels, *size).
        volume: (Z, H, W) or (channels, Z, H, W), on the device.
        size: (h, w) that the network sees.
        batch: slices in a forward pass.
        progress: told after every forward pass.

    Returns:
        (Z, H, W) int64.
    """
    return _resized(lambda slices: predict(slices).argmax(1), volume, size, batch, progress)


@torch.no_grad()
def resized_scores(
    predict: Predict, volume: Tensor, size: Sequence[int], batch: int, progress: InferenceProgress | None = None
) -> Tensor:
    """Class probabilities (C, Z, H, W) fp32 slice by slice, nearest back; arguments are those of `resized_slices`."""
    return _resized(lambda slices: predict(slices).float(), volume, size, batch, progress).transpose(0, 1)


def _resized(
    predict: Predict, volume: Tensor, size: Sequence[int], batch: int, progress: InferenceProgress | None
) -> Tensor:
    """What is predicted of slices (B, channels, *size), of all slices in their own size: (Z, ..., H, W)."""
    Z, H, W = volume.shape[-3:]

    def positions(size_in: int, size_out: int) -> Tensor:
        return torch.from_numpy(nearest_positions(size_in, size_out)).to(volume.device)

    slices = volume.reshape(-1, Z, H, W).transpose(0, 1)
    down = slices[:, :, positions(H, size[0])][:, :, :, positions(W, size[1])]
    found = []
    for first in range(0, Z, batch):
        found.append(predict(down[first : first + batch]))
        if progress is not None:
            progress(min(first + batch, Z), Z)
    return torch.cat(found)[..., positions(size[0], H), :][..., positions(size[1], W)]


def sliding_window(
    net_or_nets: nn.Module | Sequence[nn.Module],
    volume: Tensor,
    patch_size: Sequence[int],
    stride: Sequence[int],
    num_classes: int,
    batch: int = 16,
) -> Tensor:
    """Class probabilities (C, *S) of a volume (*S) or (channels, *S); several networks average their logits first.

    The networks predict in evaluation mode, whichever they are in.
    """
    networks = [net_or_nets] if isinstance(net_or_nets, nn.Module) else list(net_or_nets)
    with evaluating(*networks):
        return accumulate_windows(
            lambda window: mean_logits(networks, window),
            torch.as_tensor(volume),
            patch_size,
            stride,
            num_classes,
            batch,
        )


def slice_inference(net: nn.Module, volume: Tensor, size: tuple[int, int] = (256, 256), batch: int = 16) -> Tensor:
    """Labels (Z, H, W) int64 of a volume (Z, H, W) or (channels, Z, H, W), slice by slice at `size`.

    The network predicts in evaluation mode, whichever it is in.
    """
    with evaluating(net):
        return resized_slices(lambda slices: mean_logits([net], slices), torch.as_tensor(volume), size, batch)
