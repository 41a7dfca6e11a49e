"""Prototypes: a bank of feature vectors per class, and how far features are from those of their class (SS-Net, MICCAI
2022; after Alonso et al., ICCV 2021).

Rows are features of single voxels, (N, D). How many of them a class has is known on the device alone: whatever the
labels, the same operations run on the same shapes, and no class has a loop of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from sslbench.losses.cross_entropy import full_precision
from sslbench.losses.per_class import PerClass, picked

Selector = Callable[[Tensor, Tensor], Tensor]
Rank = Literal["lowest", "highest"]

_BLOCK = 256  # rows of a block, each of one class


def prototype_loss(
    features: Tensor,
    labels: Tensor,
    memory: Tensor | Sequence[Tensor],
    selectors: Selector | Sequence[nn.Module],
    memory_selectors: Selector | Sequence[nn.Module] | None = None,
) -> Tensor:
    """How far features point away from the stored ones of their class: (1/C) Σ_c of the mean over pairs (feature i,
    stored vector j) of w_i·w_j·(1 - cos(f_i, m_j)) (SS-Net).

    The weights are w_i = M·σ_i / Σσ over the class's M features, σ the sigmoid of the selector's score of the detached
    feature, and w_j likewise over its stored vectors. A class with fewer than two features or stored vectors
    contributes 0. The gradient reaches the features and the selectors, never the memory.

    No pair is formed. The weights of either side add up to its number, so the mean over pairs is Σσ_i·(1 - f̂_i·m̄) / Σσ,
    m̄ the weighted mean of the class's normalised vectors: one product with C vectors in the place of N·K distances.

    Args:
        features: (N, D).
        labels: (N,) int64 in 0..C-1; -1: the row is left out.
        memory: (C, K, D), where a row of zeros is an empty place, or the (n, D) of each class.
        selectors: gives scores (N,) before the sigmoid, of rows (N, D) and their classes (N,); or a module for each
            class, of its rows. A row that takes no part has class -1; its score is not looked at.
        memory_selectors: the same of the stored vectors; None: they all weigh 1, to which SS-Net's released code
            cancels their weights.
    """
    with torch.autocast(features.device.type, enabled=False):
        features = full_precision(features)
        if not isinstance(memory, Tensor):
            memory = pad_sequence(list(memory), batch_first=True)
        memory, C = memory.to(features.dtype), len(memory)
        stored = (memory != 0).any(-1)
        per_class = PerClass(labels.clamp_min(0).unsqueeze(0), C)
        count = per_class.sum((labels >= 0).to(features.dtype).unsqueeze(0)).squeeze(0)
        takes_part = (count >= 2) & (stored.sum(1) >= 2)
        labels = torch.where((labels >= 0) & takes_part[labels.clamp_min(0)], labels, -1)

        weights = stored.to(features.dtype)
        if memory_selectors is not None:
            number = torch.arange(C, device=labels.device)
            classes = torch.where(stored & takes_part.unsqueeze(1), number.unsqueeze(1), -1)
            weights = weights * _scores(memory_selectors, memory.flatten(0, 1), classes.flatten()).sigmoid().view_as(
                weights
            )
        weights = weights / weights.sum(1, keepdim=True).where(stored.any(1, keepdim=True), 1)
        mean = (weights.unsqueeze(-1) * F.normalize(memory, dim=-1)).sum(1)

        cosine = picked(F.normalize(features) @ mean.T, labels.clamp_min(0))
        sigma = _scores(selectors, features.detach(), labels).sigmoid() * (labels >= 0)
        total = per_class.sum((sigma * (1 - cosine)).unsqueeze(0)).squeeze(0)
        weight = per_class.sum(sigma.unsqueeze(0)).squeeze(0)
        return (total / weight.where(takes_part, 1)).where(takes_part, 0).mean()


def _scores(selectors: Selector | Sequence[nn.Module], rows: Tensor, classes: Tensor) -> Tensor:
    """Scores (N,) of rows (N, D) by their classes (N,)."""
    if callable(selectors) and not isinstance(selectors, nn.ModuleList):
        return selectors(rows, classes)
    scores = rows.new_zeros(len(rows))
    for number, selector in enumerate(selectors):
        inside = classes == number
        if inside.any():
            scores = scores.masked_scatter(inside, selector(rows[inside]).flatten().to(scores.dtype))
    return scores


class PrototypeMemory(nn.Module):
    """A bank of at most `size` vectors per class, in `state_dict()`.

    Attributes:
        vectors: (C, size, D) fp32; empty places are zeros.
    """

    vectors: Tensor

    def __init__(self, num_classes: int, width: int, size: int = 32) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(num_classes, size, width))

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor, scores: Tensor, rank: Rank = "lowest") -> None:
        """Overwrite the vectors of every class that has candidates; those of the others stay.

        Up to `size` candidates are all kept. Of more the `size` with the lowest scores are, or the highest: with the
        cosine's mean over the bank their order is no matter.

        Args:
            features: (N, D).
            labels: (N,) int64, the class that a row is a candidate of; -1: of none.
            scores: (N,) of the rows.
            rank: which scores are kept.
        """
        by_score = scores.argsort(descending=rank == "highest", stable=True)
        order, starts, counts = _by_class(labels[by_score], len(self.vectors))
        place = torch.arange(self.vectors.shape[1], device=labels.device)
        rows = by_score[order[(starts.unsqueeze(1) + place).clamp_max(len(labels) - 1)]]
        fresh = features[rows].to(self.vectors.dtype) * (place < counts.unsqueeze(1)).unsqueeze(-1)
        self.vectors.copy_(torch.where((counts > 0).view(-1, 1, 1), fresh, self.vectors))


class ClassSelectors(nn.Module):
    """A small network per class that scores rows: Linear, batch norm over the class's rows, LeakyReLU(0.2), Linear to
    one number (SS-Net).

    All classes go at once: rows are put in blocks of one class each, which a batched product takes with the weights of
    their class; N rows take N/256 + C blocks. Statistics are per class, over at least two rows.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_classes: int, width: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        bound = width**-0.5  # PyTorch's own for a Linear of that many inputs, weights and biases alike
        self.weight = nn.Parameter(torch.empty(num_classes, width, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_classes, width).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.ones(num_classes, width))
        self.shift = nn.Parameter(torch.zeros(num_classes, width))
        self.score_weight = nn.Parameter(torch.empty(num_classes, width).uniform_(-bound, bound))
        self.score_bias = nn.Parameter(torch.empty(num_classes).uniform_(-bound, bound))
        self.register_buffer("running_mean", torch.zeros(num_classes, width))
        self.register_buffer("running_var", torch.ones(num_classes, width))

    def forward(self, rows: Tensor, classes: Tensor) -> Tensor:
        """Scores (N,) of rows (N, D) by the selectors of their classes (N,), before a sigmoid; 0 where that is -1."""
        with torch.autocast(rows.device.type, enabled=False):
            blocks = _Blocks(classes, len(self.weight))
            own = blocks.classes
            hidden = torch.baddbmm(self.bias[own].unsqueeze(1), full_precision(rows)[blocks.rows], self.weight[own])
            mean, variance = self.running_mean, self.running_var
            if self.training:
                mean, variance = self._statistics(hidden, blocks)
            scale = self.scale * (variance + self.eps).rsqrt()
            shift = self.shift - scale * mean
            hidden = F.leaky_relu(torch.addcmul(shift[own].unsqueeze(1), hidden, scale[own].unsqueeze(1)), 0.2)
            scores = (hidden @ self.score_weight[own].unsqueeze(-1)).squeeze(-1) + self.score_bias[own].unsqueeze(1)
            return blocks.back(scores)

    def _statistics(self, hidden: Tensor, blocks: _Blocks) -> tuple[Tensor, Tensor]:
        """Mean and biased variance (C, D) over the rows of each class; the running ones follow them."""
        count = blocks.counts.unsqueeze(1).to(hidden.dtype)
        some = count.clamp_min(1)
        mean = blocks.sum(hidden) / some
        variance = blocks.sum((hidden - mean[blocks.classes].unsqueeze(1)).square()) / some
        with torch.no_grad():
            step = (self.momentum * (count >= 2).to(mean.dtype)).expand_as(mean)
            self.running_mean.lerp_(mean, step)
            self.running_var.lerp_(variance * count / (count - 1).clamp_min(1), step)
        return mean, variance


class _Blocks:
    """Rows sorted by class into blocks of one class each.

    N rows fill at most N/256 + C blocks, however they are spread over classes, so the shapes do not depend on them.

    Args:
        labels: (N,) int64 in 0..num_classes-1; a row of class -1 is in no block.
        num_classes: C.

    Attributes:
        classes: (blocks,) class of each block.
        rows: (blocks, 256) the row at each place.
        filled: (blocks, 256) whether there is one.
        counts: (C,) rows of each class.
        number: N.
    """

    def __init__(self, labels: Tensor, num_classes: int) -> None:
        self.number = len(labels)
        order, starts, self.counts = _by_class(labels, num_classes)
        needed = -(-self.counts // _BLOCK)
        ends = needed.cumsum(0)
        block = torch.arange(self.number // _BLOCK + num_classes, device=labels.device)
        # Spare blocks behind the last end count as further ones of the last class, with nothing in them.
        self.classes = torch.searchsorted(ends, block, right=True).clamp_max(num_classes - 1)
        place = (block - (ends - needed)[self.classes]).unsqueeze(1) * _BLOCK
        place = place + torch.arange(_BLOCK, device=labels.device)
        self.filled = place < self.counts[self.classes].unsqueeze(1)
        self.rows = order[(starts[self.classes].unsqueeze(1) + place).clamp_max(self.number - 1)]

    def sum(self, values: Tensor) -> Tensor:
        """(C, D) of values (blocks, 256, D) over the rows of each class."""
        inside = values.where(self.filled.unsqueeze(-1), 0).sum(1)
        return inside.new_zeros(len(self.counts), inside.shape[1]).index_add(0, self.classes, inside)

    def back(self, values: Tensor) -> Tensor:
        """(N,) of values (blocks, 256), in the order of the rows; 0 for a row in no block."""
        N = self.number
        places = torch.where(self.filled, self.rows, N).flatten()
        return values.new_zeros(N + 1).scatter(0, places, values.flatten())[:N]


def _by_class(labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (N,) in the order of their classes, those of class -1 last, ties as they come; where in it each class begins
    (C,), and how many rows it has (C,)."""
    ranked, order = torch.where(labels < 0, num_classes, labels).sort(stable=True)
    bounds = torch.searchsorted(ranked, torch.arange(num_classes + 1, device=labels.device))
    return order, bounds[:-1], bounds.diff()
