"""Sums of voxel values per class, the piece that Dice, GACE and thresholds share."""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = 256  # voxels that one running fp32 sum may take in


class PerClass:
    """Adds values up by the class of their voxel, over the batch or per sample, in one pass and without a one-hot.

    A running fp32 sum stops growing exactly long before a batch's million voxels of background are added: at 2²⁰ it
    rounds 0.95 to 1. So each `_BLOCK` voxels are summed apart, and then the blocks. That also spreads what a GPU's
    threads add to over many addresses. Under `torch.use_deterministic_algorithms` the order of addition is fixed.

    Args:
        labels: (B, N) int64 in 0..classes-1.
        classes: how many there are.
    """

    def __init__(self, labels: Tensor, classes: int) -> None:
        samples, voxels = labels.shape
        self.blocks, self.classes, self.samples = -(-voxels // _BLOCK), classes, samples
        first = torch.arange(0, samples * self.blocks * classes, classes, device=labels.device)
        block = first.view(samples, self.blocks, 1).expand(-1, -1, _BLOCK).reshape(samples, -1)[:, :voxels]
        self.slots = (labels + block).flatten()

    def sum(self, values: Tensor) -> Tensor:
        """(B, classes) of values (B, N); the gradient reaches the values."""
        zeros = values.new_zeros(self.samples * self.blocks * self.classes)
        total = zeros.index_add(0, self.slots, values.flatten())
        return total.view(self.samples, self.blocks, self.classes).sum(1)
