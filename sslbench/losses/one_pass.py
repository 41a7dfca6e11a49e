"""What cross-entropy and Dice on labels are made of, in one pass over the logits and one back.

By torch's own operations each of these losses makes five or six volumes of all classes and keeps three of them for the
gradient. Here the logits are read block by block, a block being small enough for a processor's cache, nothing of the
size of the logits is kept, and their gradient is written once. A GPU takes all voxels as one block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sslbench.losses.per_class import PerClass

_BLOCK = 2**18  # logits of a block on a CPU: 1 MiB in fp32


class SoftmaxScores(NamedTuple):
    """What labels make of logits.

    Attributes:
        nll: negative log-likelihood of each voxel, (B, *S).
        intersection: Σ w·p·y, (B, C).
        prediction: Σ w·p² or Σ w·p, (B, C).
    """

    nll: Tensor
    intersection: Tensor
    prediction: Tensor


def scores(logits: Tensor, labels: Tensor, weight: Tensor | None = None, squared: bool = True) -> SoftmaxScores:
    """The terms of cross-entropy and Dice, in fp32 (float64 stays); all reach the logits' gradient, once.

    Args:
        logits: (B, C, *S).
        labels: (B, *S) int64 in 0..C-1.
        weight: w, (B, *S), inside the sums; no gradient reaches it. None: 1.
        squared: `prediction` is a sum of squares.
    """
    weight = None if weight is None else _flat(weight.detach().to(full_type(logits)), 1)
    nll, intersection, prediction = _Scores.apply(logits, _flat(labels, 1), weight, squared)
    return SoftmaxScores(nll.view(labels.shape), intersection, prediction)


def full_type(values: Tensor) -> torch.dtype:
    """In what values are summed: sums over millions of voxels need fp32 where they come in less; float64 stays."""
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def nll_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of each voxel, (B, *S), in fp32 (float64 stays).

    Args:
        logits: (B, C, *S).
        labels: (B, *S) int64 in 0..C-1.
    """
    nll: Tensor = _NLL.apply(logits, _flat(labels, 1))
    return nll.view(labels.shape)


class _NLL(torch.autograd.Function):
    """(B, N) of logits (B, C, *S) and labels (B, N)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        x = _flat(logits, 2)
        nll, total = (torch.empty(labels.shape, dtype=full_type(x), device=x.device) for _ in range(2))
        for block in _blocks(x):
            _exponentials(x, labels, block, nll, total)
        ctx.save_for_backward(logits, labels, total)
        return nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        logits, labels, total = ctx.saved_tensors
        x = _flat(logits, 2)
        found = torch.empty_like(x)
        for samples, voxels in _blocks(x):
            own = gradient[samples, voxels]
            part = _softmax(x, total, (samples, voxels)).mul_(own.unsqueeze(1))
            found[samples, :, voxels] = _add_at(part, labels[samples, voxels], -own)
        return found.view(logits.shape), None


class _Scores(torch.autograd.Function):
    """(B, N), (B, C) and (B, C) of logits (B, C, *S), labels (B, N) and weights (B, N)."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, weight: Tensor | None, squared: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = _flat(logits, 2)
        nll, total = (torch.empty(labels.shape, dtype=full_type(x), device=x.device) for _ in range(2))
        prediction = nll.new_zeros(x.shape[:2])
        for samples, voxels in _blocks(x):
            size, share = _exponentials(x, labels, (samples, voxels), nll, total)
            if squared:
                size, share = size.square_(), share.square_()
            if weight is not None:
                share.mul_(weight[samples, voxels])
            prediction[samples] += size.mul_(share.unsqueeze(1)).sum(-1)  # no product of matrices: those are rounded
        hit = torch.exp(-nll)
        intersection = PerClass(labels, x.shape[1]).sum(hit if weight is None else hit * weight)
        ctx.save_for_backward(logits, labels, weight, total, hit)
        ctx.squared = squared
        ctx.set_materialize_grads(False)
        return nll, intersection, prediction

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_nll: Tensor | None, of_intersection: Tensor | None, of_prediction: Tensor | None
    ) -> tuple[Tensor, None, None, None]:
        """With a the gradient of Σ w·p² and b that of Σ w·p·y, dL/dp is q = 2a·w·p, and b·w more at the label; the
        softmax makes p·(q - Σ p·q) of that, and cross-entropy's p - y joins in the same pass."""
        logits, labels, weight, total, hit = ctx.saved_tensors
        x = _flat(logits, 2)
        found = torch.empty_like(x)
        nothing = hit.new_zeros(())
        of_nll = nothing.expand_as(hit) if of_nll is None else of_nll
        of_intersection = nothing.expand(x.shape[:2]) if of_intersection is None else of_intersection
        slope = nothing.expand(x.shape[:2]) if of_prediction is None else of_prediction * (2 if ctx.squared else 1)
        pull = hit * of_intersection.gather(1, labels)  # p·dL/dp at the label
        if weight is not None:
            pull = pull * weight
        for samples, voxels in _blocks(x):
            p = _softmax(x, total, (samples, voxels))
            part = p * slope[samples].unsqueeze(-1)
            if ctx.squared:
                part.mul_(p)
            if weight is not None:
                part.mul_(weight[samples, voxels].unsqueeze(1))
            own, at = of_nll[samples, voxels], pull[samples, voxels]
            part.addcmul_(p, (own - part.sum(1) - at).unsqueeze(1))
            found[samples, :, voxels] = _add_at(part, labels[samples, voxels], at - own)
        return found.view(logits.shape), None, None, None


_Place = tuple[slice, slice]


def _flat(values: Tensor, axes: int) -> Tensor:
    """The values with those behind the first `axes` in one, which a single row of classes (B, C) gets too."""
    return values.reshape(*values.shape[:axes], -1)


def _blocks(x: Tensor) -> Iterator[_Place]:
    """Samples and voxels of (B, C, N), block by block."""
    B, C, N = x.shape
    if x.device.type != "cpu" or x.numel() <= _BLOCK:
        yield slice(0, B), slice(0, N)
        return
    samples, voxels = max(1, _BLOCK // (C * N)), max(1, _BLOCK // C)
    for first in range(0, B, samples):
        for start in range(0, N, voxels):
            yield slice(first, min(first + samples, B)), slice(start, min(start + voxels, N))


def _exponentials(x: Tensor, labels: Tensor, block: _Place, nll: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """exp(x - max) (b, C, n) of a block, and what makes probabilities of it (b, n), the reciprocal of its sum; the
    block's part of `nll` is written, and that of `total`, log Σ exp x."""
    samples, voxels = block
    part = x[samples, :, voxels].to(nll.dtype)
    largest = part.amax(1)
    part = part - largest.unsqueeze(1)
    own = part.gather(1, labels[samples, voxels].unsqueeze(1)).squeeze(1)
    sums = part.exp_().sum(1)
    logarithm = sums.log()
    nll[samples, voxels] = logarithm - own
    total[samples, voxels] = logarithm.add_(largest)
    return part, sums.reciprocal_()


def _softmax(x: Tensor, total: Tensor, block: _Place) -> Tensor:
    """p (b, C, n) of a block."""
    samples, voxels = block
    return (x[samples, :, voxels] - total[samples, voxels].unsqueeze(1)).exp_()


def _add_at(values: Tensor, labels: Tensor, addend: Tensor) -> Tensor:
    """Values (b, C, n) with (b, n) added at each voxel's label, in place."""
    if values.device.type == "cpu":
        return values.scatter_add_(1, labels.unsqueeze(1), addend.unsqueeze(1))
    # No two voxels share a place, but a GPU told to repeat would sort them all.
    classes = torch.arange(values.shape[1], device=values.device).unsqueeze(-1)
    return values.add_(addend.unsqueeze(1).where(labels.unsqueeze(1) == classes, 0))
