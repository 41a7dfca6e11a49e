"""Consistency and pseudo-label terms of the methods, as plain functions of logits (B, C, *S)."""

from __future__ import annotations

from torch import Tensor

from sslbench.losses.cross_entropy import cross_entropy, full_precision


def cps_loss(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """CE(A, argmax B) + CE(B, argmax A) (CPS, CVPR 2021); each network learns from the other's hard labels."""
    return cross_entropy(logits_a, logits_b.detach().argmax(1)) + cross_entropy(logits_b, logits_a.detach().argmax(1))


def mse_consistency(logits: Tensor, target_probs: Tensor) -> Tensor:
    """Mean over B·C·voxels of (softmax(logits) - target)² (Mean Teacher); no gradient reaches the target."""
    return (full_precision(logits).softmax(1) - target_probs.detach()).square().mean()


def softmax_mse(logits: Tensor, target_logits: Tensor) -> Tensor:
    """The map (B, C, *S) of (softmax(logits) - softmax(target))², for terms that weight voxels (UA-MT)."""
    return (full_precision(logits).softmax(1) - full_precision(target_logits).softmax(1)).square()
