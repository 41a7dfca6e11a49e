"""Consistency and pseudo-label terms of the methods, as plain functions of logits (B, C, *S)."""

from __future__ import annotations

from torch import Tensor

from sslbench.losses.cross_entropy import cross_entropy


def cps_loss(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """CE(A, argmax B) + CE(B, argmax A) (CPS, CVPR 2021); each network learns from the other's hard labels."""
    return cross_entropy(logits_a, logits_b.detach().argmax(1)) + cross_entropy(logits_b, logits_a.detach().argmax(1))
