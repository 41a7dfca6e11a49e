"""Dice losses over logits (B, C, *S); the whole batch is one set of voxels unless `batch=False`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sslbench.losses.cross_entropy import cross_entropy, full_precision
from sslbench.losses.one_pass import scores
from sslbench.losses.per_class import PerClass, picked


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
    p = probabilities.flatten(2)
    w = None if weight is None else weight.to(p.dtype).flatten(1)
    size = p * p if squared else p
    prediction = (size if w is None else size * w.unsqueeze(1)).sum(-1)
    if target.ndim == probabilities.ndim:
        y = target.to(p.dtype).flatten(2)
        weighted = y if w is None else y * w.unsqueeze(1)
        intersection = (p * weighted).sum(-1)
        reference = (weighted * y if squared else weighted).sum(-1)
    else:
        # Σ p·y needs the one probability that a label picks: no one-hot volume of C channels is made.
        labels = target.flatten(1)
        hit = picked(p, labels)
        per_class = PerClass(labels, p.shape[1])
        intersection = per_class.sum(hit if w is None else hit * w)
        reference = per_class.sum(torch.ones_like(hit) if w is None else w)
    sums = DiceSums(intersection, prediction, reference)
    return DiceSums(*(part.sum(0) for part in sums)) if batch else sums


class LabelScores(NamedTuple):
    """What cross-entropy and Dice on labels need of logits.

    Attributes:
        nll: negative log-likelihood of each voxel, (B, *S).
        sums: of the softmax.
    """

    nll: Tensor
    sums: DiceSums


def label_scores(
    logits: Tensor, labels: Tensor, weight: Tensor | None = None, squared: bool = True, batch: bool = True
) -> LabelScores:
    """Both at the cost of one; see `losses.one_pass`.

    Args:
        logits: (B, C, *S).
        labels: (B, *S) int64 in 0..C-1.
        weight, squared, batch: as in `dice_sums`; no gradient reaches the weight.
    """
    found = scores(logits, labels, weight, squared)
    counted = torch.ones_like(found.nll) if weight is None else weight.detach().to(found.nll.dtype)
    reference = PerClass(labels.flatten(1), logits.shape[1]).sum(counted.flatten(1))
    sums = DiceSums(found.intersection, found.prediction, reference)
    return LabelScores(found.nll, DiceSums(*(part.sum(0) for part in sums)) if batch else sums)


def softmax_sums(
    logits: Tensor, target: Tensor, weight: Tensor | None = None, squared: bool = True, batch: bool = True
) -> DiceSums:
    """`dice_sums` of the softmax of logits (B, C, *S), in fp32 or float64; the rest as there."""
    if target.ndim == logits.ndim or (weight is not None and weight.requires_grad):
        return dice_sums(full_precision(logits).softmax(1), target, weight, squared, batch)
    return label_scores(logits, target, weight, squared, batch).sums


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
        return self.of(softmax_sums(logits, target, mask, self.squared, self.batch), class_weight)

    def of(self, sums: DiceSums, class_weight: Tensor | None = None) -> Tensor:
        """The loss of sums that are known."""
        terms = self._terms(sums)
        if class_weight is not None:
            terms = class_weight * terms
        return (terms if self.include_background else terms[..., 1:]).mean()

    def terms(self, logits: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """1 - Dice of every class, background too: (C,), or (B, C) without `batch`; arguments as in `forward`."""
        return self._terms(softmax_sums(logits, target, mask, self.squared, self.batch))

    def _terms(self, sums: DiceSums) -> Tensor:
        return 1 - (2 * sums.intersection + self.smooth) / (sums.prediction + sums.reference + self.smooth)


class ForegroundDiceLoss(nn.Module):
    """-(2TP + s) / (2TP + FP + FN + s + 1e-8) averaged over the foreground classes (`dice_nn`: DHC family, nnU-Net).

    Between -1 and 0: a sum with it may be negative. A class absent from target and prediction has its best value, -1,
    and so has an empty `mask`. Counts are soft and over the whole batch: the denominator is Σp + Σy + s + 1e-8.

    Args:
        smooth: s; 1 in training losses, 1e-8 where a method builds it by hand.
    """

    def __init__(self, smooth: float = 1.0) -> None:
        super().__init__()
        self.smooth, self.squared = smooth, False

    def forward(
        self, logits: Tensor, target: Tensor, mask: Tensor | None = None, class_weight: Tensor | None = None
    ) -> Tensor:
        """The loss, a 0-d tensor in fp32; arguments as in `DiceLoss`."""
        return self.of(softmax_sums(logits, target, mask, squared=False), class_weight)

    def of(self, sums: DiceSums, class_weight: Tensor | None = None) -> Tensor:
        """The loss of sums that are known."""
        score = (2 * sums.intersection + self.smooth) / (sums.prediction + sums.reference + self.smooth + 1e-8)
        return -(score if class_weight is None else class_weight * score)[1:].mean()


class DiceCELoss(nn.Module):
    """`dcce`, the supervised loss of the DHC family: `wce_norm` + `dice_nn`, class weights in both.

    Args:
        weight: (C,), or none; in the Dice part factors of the classes' scores, not normalised.
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.dice = ForegroundDiceLoss()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss, a 0-d tensor in fp32, of logits (B, C, *S) and labels (B, *S)."""
        return cross_entropy(logits, target, class_weight=self.weight) + self.dice(
            logits, target, class_weight=self.weight
        )
