"""Cross-entropy in the reductions of the field, over logits (B, C, *S) and labels (B, *S) or soft targets (B, C, *S).

All compute in fp32, also under autocast, and return a 0-d tensor. An empty set of voxels gives a zero that keeps the
graph, never a NaN.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def full_precision(values: Tensor) -> Tensor:
    """The values in fp32 where they come in less: sums over millions of voxels need it. float64 stays."""
    return values if values.dtype == torch.float64 else values.float()


def nll_map(logits: Tensor, target: Tensor) -> Tensor:
    """Negative log-likelihood of each voxel, (B, *S).

    Args:
        logits: (B, C, *S).
        target: (B, *S) int64 labels in 0..C-1, or (B, C, *S) probabilities.
    """
    log_probabilities = F.log_softmax(full_precision(logits), dim=1)
    if target.ndim == logits.ndim:
        return -(target.to(log_probabilities.dtype) * log_probabilities).sum(dim=1)
    return -log_probabilities.gather(1, target.unsqueeze(1)).squeeze(1)


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    voxel_weight: Tensor | None = None,
    class_weight: Tensor | None = None,
) -> Tensor:
    """Cross-entropy with the three kinds of weights that methods use.

    Without weights the mean of nll over the voxels of `mask`. `class_weight` w alone: Σ w_y·nll / Σ w_y, the reduction
    of PyTorch (`wce_norm`), with the denominator kept above 1e-8 so that a batch whose classes all weigh nothing gives
    0 where the DHC code gives NaN. With `voxel_weight` v: Σ v·w_y·nll / |mask| (`wce_mean`).

    Args:
        logits: (B, C, *S).
        target: (B, *S) int64 labels, or (B, C, *S) probabilities (then without `class_weight`).
        mask: (B, *S), the voxels that the term is about; none: all.
        voxel_weight: (B, *S), multiplies each voxel's term; the divisor stays.
        class_weight: (C,).
    """
    nll = nll_map(logits, target)
    inside = None if mask is None else mask.to(nll.dtype)
    terms = nll if inside is None else nll * inside
    if class_weight is not None:
        weights = class_weight.to(nll.dtype)[target]
        terms = terms * weights
        if voxel_weight is None:
            total = weights.sum() if inside is None else (weights * inside).sum()
            return terms.sum() / total.clamp_min(1e-8)
    if voxel_weight is not None:
        terms = terms * voxel_weight.to(nll.dtype)
    return terms.mean() if inside is None else terms.sum() / inside.sum().clamp_min(1.0)


def weighted_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """`wce_norm`: Σ w_y·nll / Σ w_y, the mean of nll without `weight` (C,)."""
    return cross_entropy(logits, target, class_weight=weight)


def voxel_weighted_cross_entropy(
    logits: Tensor, target: Tensor, voxel_weight: Tensor, class_weight: Tensor | None = None
) -> Tensor:
    """`wce_mean`: (1/N) Σ v·w_y·nll over all N voxels, `voxel_weight` v (B, *S), `class_weight` w (C,) or none."""
    return cross_entropy(logits, target, voxel_weight=voxel_weight, class_weight=class_weight)
