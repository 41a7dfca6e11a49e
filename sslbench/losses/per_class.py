"""Sums of voxel values per class, the piece that Dice, GACE and thresholds share."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class PerClass:
    """Adds values up by the class of their voxel, over the batch or per sample, without a one-hot.

    A running fp32 sum stops growing exactly long before a batch's million voxels of background are added: at 2²⁰ it
    rounds 0.95 to 1. So a CPU adds in double precision. A GPU would add with atomics, in an order that varies; there
    each class is summed under its mask, as a tree of fixed shape.

    Args:
        labels: (B, N) int64 in 0..classes-1.
        classes: how many there are.
    """

    def __init__(self, labels: Tensor, classes: int) -> None:
        self.labels, self.classes = labels, classes
        if labels.device.type == "cpu":
            samples = len(labels)
            self.slots = labels.flatten()
            if samples > 1:
                self.slots = (labels + torch.arange(0, samples * classes, classes).unsqueeze(1)).flatten()

    def sum(self, values: Tensor) -> Tensor:
        """(B, classes) of values (B, N); the gradient reaches the values."""
        if values.device.type != "cpu":
            sums: Tensor = MaskedSums.apply(values.reshape(self.labels.shape), self.labels, self.classes)
            return sums
        zeros = torch.zeros(len(self.labels) * self.classes, dtype=torch.float64)
        total = zeros.index_add(0, self.slots, values.flatten().double())
        return total.view(-1, self.classes).to(values.dtype)


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
