"""Inference over whole volumes: equal-weight sliding windows (3-D), resized slices (2-D)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from sslbench.data.sampling import nearest_positions
from sslbench.methods.base import mean_logits

Predict = Callable[[Tensor], Tensor]  # image (B, channels, *S) -> probabilities (B, C, *S)


def window_starts(size: int, patch: int, stride: int) -> list[int]:
    """Starts of the windows along one axis: n = ⌈(S - P) / stride⌉ + 1, start_i = min(i·stride, S - P)."""
    count = max(-(-(size - patch) // stride), 0) + 1
    return [min(number * stride, max(size - patch, 0)) for number in range(count)]


@torch.no_grad()
def accumulate_windows(
    predict: Predict, volume: Tensor, patch_size: Sequence[int], stride: Sequence[int], num_classes: int, batch: int
) -> Tensor:
    """The mean over windows of their class probabilities, all windows weighing the same.

    A volume smaller than the patch is padded with zeros, ⌊pad/2⌋ before and the rest behind, and cropped back. No
    Gaussian weights, no test-time augmentation, as in the GA, DHC, MagicNet and LA code.

    Args:
        predict: gives probabilities of a batch of windows.
        volume: (*S) or (channels, *S), on the device.
        patch_size, stride: voxels per axis.
        num_classes: C.
        batch: windows in a forward pass.

    Returns:
        (C, *S) fp32 on the volume's device.
    """
    if volume.ndim == len(patch_size):
        volume = volume.unsqueeze(0)
    size = volume.shape[1:]
    pads = [max(patch - side, 0) for side, patch in zip(size, patch_size, strict=True)]
    before = [pad // 2 for pad in pads]
    if any(pads):
        amounts = [(first, pad - first) for first, pad in zip(before, pads, strict=True)]
        volume = nn.functional.pad(volume, [part for amount in reversed(amounts) for part in amount])
    padded = volume.shape[1:]
    starts = [window_starts(*axis) for axis in zip(padded, patch_size, stride, strict=True)]
    windows = [
        tuple(slice(start, start + patch) for start, patch in zip(corner, patch_size, strict=True))
        for corner in itertools.product(*starts)
    ]
    scores = volume.new_zeros((num_classes, *padded), dtype=torch.float32)
    for first in range(0, len(windows), batch):
        chosen = windows[first : first + batch]
        probabilities = predict(torch.stack([volume[(slice(None), *window)] for window in chosen]))
        for window, part in zip(chosen, probabilities, strict=True):
            scores[(slice(None), *window)] += part.float()
    # How many windows cover a voxel is a product over axes.
    for axis, (side, patch) in enumerate(zip(padded, patch_size, strict=True)):
        cover = torch.zeros(side, device=volume.device)
        for start in starts[axis]:
            cover[start : start + patch] += 1
        scores /= cover.view([-1 if dim == axis + 1 else 1 for dim in range(scores.ndim)])
    return scores[(slice(None), *(slice(first, first + side) for first, side in zip(before, size, strict=True)))]


@torch.no_grad()
def resized_slices(predict: Predict, volume: Tensor, size: Sequence[int], batch: int) -> Tensor:
    """Labels of a volume slice by slice: nearest to `size`, argmax, the label map nearest back (SSL4MIS).

    Args:
        predict: gives probabilities of a batch of slices (B, 1, *size).
        volume: (Z, H, W), on the device.
        size: (h, w) that the network sees.
        batch: slices in a forward pass.

    Returns:
        (Z, H, W) int64.
    """
    Z, H, W = volume.shape

    def positions(size_in: int, size_out: int) -> Tensor:
        return torch.from_numpy(nearest_positions(size_in, size_out)).to(volume.device)

    down = volume[:, positions(H, size[0])][:, :, positions(W, size[1])].unsqueeze(1)
    labels = torch.cat([predict(down[first : first + batch]).argmax(1) for first in range(0, Z, batch)])
    return labels[:, positions(size[0], H)][:, :, positions(size[1], W)]


def sliding_window(
    net_or_nets: nn.Module | Sequence[nn.Module],
    volume: Tensor,
    patch_size: Sequence[int],
    stride: Sequence[int],
    num_classes: int,
    batch: int = 16,
) -> Tensor:
    """Class probabilities (C, *S) of a volume (*S) or (channels, *S); several networks average their logits first."""
    networks = [net_or_nets] if isinstance(net_or_nets, nn.Module) else list(net_or_nets)
    return accumulate_windows(
        lambda window: mean_logits(networks, window), volume, patch_size, stride, num_classes, batch
    )


def slice_inference(net: nn.Module, volume: Tensor, size: tuple[int, int] = (256, 256), batch: int = 16) -> Tensor:
    """Labels (Z, H, W) int64 of a volume (Z, H, W), slice by slice at `size`."""
    return resized_slices(lambda slices: mean_logits([net], slices), volume, size, batch)
