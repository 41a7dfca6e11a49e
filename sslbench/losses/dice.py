"""Dice losses over logits (B, C, *S); the whole batch is one set of voxels unless `batch=False`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sslbench.losses.cross_entropy import full_precision


class DiceSums(NamedTuple):
    """Per class, what every Dice-like loss is made of: (C,) each, or (B, C) without `batch`.

    Attributes:
        intersection: Σ p·y.
        prediction: Σ p² or Σ p.
        reference: Σ y² or Σ y.
    """

    intersection: Tensor
    prediction: Tensor
    reference: Tensor


def dice_sums(
    probabilities: Tensor, target: Tensor, weight: Tensor | None = None, squared: bool = True, batch: bool = True
) -> DiceSums:
    """The sums of a soft Dice over voxels.

    Args:
        probabilities: (B, C, *S).
        target: (B, *S) int64 labels in 0..C-1, or (B, C, *S) probabilities.
        weight: (B, *S) inside all three sums: a mask, or weights; none: all voxels alike.
        squared: sums of squares in the denominators' parts.
        batch: sum over the batch too.
    """
    B, C = probabilities.shape[:2]
    p = probabilities.flatten(2)
    w = None if weight is None else weight.to(p.dtype).flatten(1)
    size = p * p if squared else p
    prediction = (size if w is None else size * w.unsqueeze(1)).sum(-1)
    if target.ndim == probabilities.ndim:
        y = target.to(p.dtype).flatten(2)
        y = y if w is None else y * w.unsqueeze(1)
        intersection = (p * y).sum(-1)
        reference = (y * target.to(p.dtype).flatten(2) if squared else y).sum(-1)
    else:
        # Σ p·y gathers the one probability that a label picks: no one-hot volume of C channels is made.
        labels = target.flatten(1)
        picked = p.gather(1, labels.unsqueeze(1)).squeeze(1)
        ones = torch.ones_like(picked) if w is None else w
        picked = picked if w is None else picked * w
        slots = labels + C * torch.arange(B, device=labels.device).unsqueeze(1)
        zeros = p.new_zeros(B * C)
        intersection = zeros.index_add(0, slots.flatten(), picked.flatten()).view(B, C)
        reference = zeros.index_add(0, slots.flatten(), ones.flatten()).view(B, C)
    sums = DiceSums(intersection, prediction, reference)
    return DiceSums(*(part.sum(0) for part in sums)) if batch else sums


class DiceLoss(nn.Module):
    """1 - (2Σpy + s) / (Σp² + Σy² + s) per class, averaged over classes (`dice_sq`; GA eq. 1).

    Args:
        smooth: s; 1e-5 in the SSL4MIS family, 1e-10 in GA and MagicNet.
        squared: squares in the denominator, else plain sums.
        batch: one set of voxels for the whole batch, else the mean over samples.
        include_background: class 0 takes part in the mean.
    """

    def __init__(
        self, smooth: float = 1e-5, squared: bool = True, batch: bool = True, include_background: bool = True
    ) -> None:
        super().__init__()
        self.smooth, self.squared, self.batch, self.include_background = smooth, squared, batch, include_background

    def forward(
        self, logits: Tensor, target: Tensor, mask: Tensor | None = None, class_weight: Tensor | None = None
    ) -> Tensor:
        """The loss, a 0-d tensor in fp32.

        Args:
            logits: (B, C, *S).
            target: (B, *S) int64 labels, or (B, C, *S) probabilities.
            mask: (B, *S), the voxels that count, or their weights.
            class_weight: (C,) factors of the classes' terms; the divisor stays the number of classes.
        """
        terms = self.terms(logits, target, mask)
        if class_weight is not None:
            terms = class_weight * terms
        return (terms if self.include_background else terms[..., 1:]).mean()

    def terms(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """1 - Dice of every class, background too: (C,), or (B, C) without `batch`; arguments as in `forward`."""
        sums = dice_sums(full_precision(logits).softmax(1), target, mask, self.squared, self.batch)
        return 1 - (2 * sums.intersection + self.smooth) / (sums.prediction + sums.reference + self.smooth)
