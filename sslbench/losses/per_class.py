"""Sums of voxel values per class, the piece that Dice, GACE and thresholds share."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 256  # voxels that one running fp32 sum may take in


class PerClass:
    """Adds values up by the class of their voxel, over the batch or per sample, without a one-hot.

    A running fp32 sum stops growing exactly long before a batch's million voxels of background are added: at 2²⁰ it
    rounds 0.95 to 1. So on a CPU each `_BLOCK` voxels are summed apart, and then the blocks, in one pass. A GPU would
    add them with atomics, in an order that varies; there each class is summed under its mask, as a tree of fixed shape.

    Args:
        labels: (B, N) int64 in 0..classes-1.
        classes: how many there are.
    """

    def __init__(self, labels: Tensor, classes: int) -> None:
        self.labels, self.classes = labels, classes
        if labels.device.type == "cpu":
            samples, voxels = labels.shape
            self.blocks = -(-voxels // _BLOCK)
            first = torch.arange(0, samples * self.blocks * classes, classes)
            block = first.view(samples, self.blocks, 1).expand(-1, -1, _BLOCK).reshape(samples, -1)[:, :voxels]
            self.slots = (labels + block).flatten()

    def sum(self, values: Tensor) -> Tensor:
        """(B, classes) of values (B, N); the gradient reaches the values."""
        if values.device.type != "cpu":
            sums: Tensor = MaskedSums.apply(values.reshape(self.labels.shape), self.labels, self.classes)
            return sums
        samples = len(self.labels)
        zeros = values.new_zeros(samples * self.blocks * self.classes)
        total = zeros.index_add(0, self.slots, values.flatten())
        return total.view(samples, self.blocks, self.classes).sum(1)


class MaskedSums(torch.autograd.Function):
    """(B, classes) of values (B, N) and labels (B, N): masked sums of all classes; the gradient is picked by label."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, labels: Tensor, classes: int) -> Tensor:
        ctx.save_for_backward(labels)
        inside = labels.unsqueeze(1) == torch.arange(classes, device=labels.device).unsqueeze(-1)
        return values.unsqueeze(1).where(inside, 0).sum(-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (labels,) = ctx.saved_tensors
        return gradient.gather(1, labels), None, None


def picked(values: Tensor, labels: Tensor) -> Tensor:
    """The value of each voxel's class, (B, *S), of values (B, C, *S) and labels (B, *S); S may have no axis.

    As a loss: the backward pass of `gather` adds, which a GPU does in an order that varies, or slowly.
    """
    if values.ndim > 2:
        values, flat = values.flatten(2), labels.flatten(1)
        return -F.nll_loss(values, flat, reduction="none").view(labels.shape)
    return -F.nll_loss(values, labels, reduction="none")
