"""Terms of methods whose decoders teach each other (MC-Net, DCNet), as plain functions.

Each computes in fp32 also under autocast, and without synchronising with the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sslbench.losses.cross_entropy import full_precision


def sharpen(probabilities: Tensor, temperature: float = 0.1) -> Tensor:
    """p^(1/T) / (p^(1/T) + (1 - p)^(1/T)), entry by entry: a voxel's classes need not sum to 1 (MC-Net eq. 2)."""
    surer = probabilities ** (1 / temperature)
    return surer / (surer + (1 - probabilities) ** (1 / temperature))


def decoupling_threshold(
    threshold: Tensor, confidences: Sequence[Tensor], progress: float, lowest: float = 0.25, highest: float = 0.95
) -> Tensor:
    """DCNet's threshold after this step: the least of (1 - r)·t + r·confidence, kept in [lowest, highest].

    Args:
        threshold: t, 0-d, before the step.
        confidences: mean of the largest probability, 0-d, one per decoder.
        progress: r, the share of the training that this step completes.
        lowest, highest: bounds.
    """
    moved = (1 - progress) * threshold + progress * torch.stack(list(confidences))
    return moved.amin().clamp(lowest, highest)


def decoupled_mse(a: Tensor, b: Tensor, sure: Tensor, temperature: float = 0.5) -> Tensor:
    """DCNet's term where decoders are not sure: entry by entry, the larger probability is the other's target.

    The mean over B·C·voxels of (q_a - q_b)² outside `sure`, q = softmax(logits / T); the gradient reaches the decoder
    whose p = softmax(logits) is smaller there, and neither where they are equal.

    Args:
        a, b: logits (B, C, *S) of the two decoders.
        sure: (B, C, *S) bool, where both probabilities exceed the threshold.
        temperature: T.
    """
    a, b = full_precision(a), full_precision(b)
    p_a, p_b = a.detach().softmax(1), b.detach().softmax(1)
    q_a, q_b = (a / temperature).softmax(1), (b / temperature).softmax(1)
    taught_by_a, taught_by_b = ~sure & (p_a > p_b), ~sure & (p_b > p_a)
    return F.mse_loss(taught_by_a * q_a.detach(), taught_by_a * q_b) + F.mse_loss(
        taught_by_b * q_b.detach(), taught_by_b * q_a
    )


def attention_transfer(maps: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Σ over pairs of maps of the mean squared difference of their attention; no gradient reaches `targets` (DCNet).

    The attention of a map is, voxel by voxel, the mean over channels of its squares, scaled to L2 norm 1 per patch.

    Args:
        maps, targets: (B, c, *S) each, pairs of equal size; channels may differ.
    """
    terms = [F.mse_loss(_attention(x), _attention(y.detach())) for x, y in zip(maps, targets, strict=True)]
    return torch.stack(terms).sum()


def _attention(content: Tensor) -> Tensor:
    return F.normalize(full_precision(content).square().mean(1).flatten(1), dim=1)
