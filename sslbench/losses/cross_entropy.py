"""Cross-entropy in the reductions of the field, over logits (B, C, *S) and labels (B, *S) or soft targets (B, C, *S).

All compute in fp32, also under autocast, and return a 0-d tensor. An empty set of voxels gives a zero that keeps the
graph, never a NaN.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sslbench.losses.one_pass import full_type, nll_of


def full_precision(values: Tensor) -> Tensor:
    """The values in the type in which they are summed, `full_type`."""
    return values.to(full_type(values))


def classes_of(scores: Tensor) -> Tensor:
    """The class (B, *S) that scores (B, C, *S) name: what `argmax` gives, in a fraction of its time on a CPU."""
    return scores.max(1).indices


def hard_labels(logits: Tensor, target: Tensor) -> Tensor:
    """Labels (B, *S) of a target that may be probabilities (B, C, *S), for losses that are defined on labels."""
    return classes_of(target) if target.ndim == logits.ndim else target


def nll_map(logits: Tensor, target: Tensor) -> Tensor:
    """Negative log-likelihood of each voxel, (B, *S).

    Args:
        logits: (B, C, *S).
        target: (B, *S) int64 labels in 0..C-1, or (B, C, *S) probabilities.
    """
    if target.ndim == logits.ndim:
        log_p = F.log_softmax(full_precision(logits), dim=1)
        return -(target.to(log_p.dtype) * log_p).sum(dim=1)
    return nll_of(logits, target)


def weighted_mean(
    values: Tensor, mask: Tensor | None = None, voxel_weight: Tensor | None = None, class_weight: Tensor | None = None
) -> Tensor:
    """The mean of a map with the three kinds of weights that methods use; 0 over an empty set.

    Without weights the mean over the voxels of `mask`. With class weights w alone Σ w·x / Σ w, with voxel weights v
    Σ v·w·x / |mask|.

    Args:
        values: x, or w·x where `class_weight` is given, (B, *S).
        mask: (B, *S), the voxels that the term is about, or their weights in numerator and divisor; none: all.
        voxel_weight: v, (B, *S), multiplies each voxel's term; the divisor stays.
        class_weight: w, (B, *S), the weight of each voxel's class, for the divisor.
    """
    inside = None if mask is None else mask.to(values.dtype)
    terms = values if inside is None else values * inside
    if voxel_weight is not None:
        terms = terms * voxel_weight.to(values.dtype)
    elif class_weight is not None:
        inside = class_weight if inside is None else class_weight * inside
    return terms.mean() if inside is None else terms.sum() / inside.sum().clamp_min(1e-8)


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    voxel_weight: Tensor | None = None,
    class_weight: Tensor | None = None,
) -> Tensor:
    """Cross-entropy with the three kinds of weights that methods use; `weighted_mean` says what they mean.

    `class_weight` alone is the reduction of PyTorch (`wce_norm`), its denominator kept above 1e-8 so that a batch
    whose classes all weigh nothing gives 0 where the DHC code gives NaN. With `voxel_weight` it is `wce_mean`.

    Args:
        logits: (B, C, *S).
        target: (B, *S) int64 labels, or (B, C, *S) probabilities y, weighted class by class: w·nll is then
            -Σ_c w_c·y_c·log p_c and w is Σ_c w_c·y_c.
        mask: (B, *S), the voxels that the term is about; none: all.
        voxel_weight: (B, *S), multiplies each voxel's term; the divisor stays.
        class_weight: (C,).
    """
    if class_weight is None or target.ndim < logits.ndim:
        return mean_nll(nll_map(logits, target), target, mask, voxel_weight, class_weight)
    w = class_weight.to(full_precision(logits).dtype)
    weighted = target.to(w.dtype) * w.view(-1, *[1] * (logits.ndim - 2))
    return weighted_mean(nll_map(logits, weighted), mask, voxel_weight, weighted.sum(1))


def mean_nll(
    nll: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    voxel_weight: Tensor | None = None,
    class_weight: Tensor | None = None,
) -> Tensor:
    """`cross_entropy` of the negative log-likelihood (B, *S) that labels (B, *S) have; the rest as there."""
    if class_weight is None:
        return weighted_mean(nll, mask, voxel_weight)
    by_class = class_weight.to(nll.dtype)[labels]
    return weighted_mean(nll * by_class, mask, voxel_weight, by_class)


def weighted_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """`wce_norm`: Σ w_y·nll / Σ w_y, the mean of nll without `weight` (C,)."""
    return cross_entropy(logits, target, class_weight=weight)


def voxel_weighted_cross_entropy(
    logits: Tensor, target: Tensor, voxel_weight: Tensor, class_weight: Tensor | None = None
) -> Tensor:
    """`wce_mean`: (1/N) Σ v·w_y·nll over all N voxels, `voxel_weight` v (B, *S), `class_weight` w (C,) or none."""
    return cross_entropy(logits, target, voxel_weight=voxel_weight, class_weight=class_weight)
