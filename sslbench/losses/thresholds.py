"""Thresholds of confidence per class, learned from a predictor as it trains: MetaSSL's and those it is compared with.

A rule is a value without state: `start` makes the state of one stream, `advance` moves the states (a row per stream)
with a batch, `thresholds` reads them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sslbench.losses.base import Source
from sslbench.losses.cross_entropy import full_precision
from sslbench.losses.per_class import PerClass

Uncertainty = Literal["confidence", "mad", "variance", "std"]

STREAMS: tuple[Source, ...] = ("label", "pseudo")  # voxels of a batch that have a label, and those that have none


def certainty(probabilities: Tensor, measure: Uncertainty = "confidence") -> Tensor:
    """How sure each voxel of (B, C, *S) is, (B, *S), growing with confidence.

    The confidence max_c p; or how far p is from the uniform 1/C: the mean absolute deviation, the variance or its root.
    """
    if measure == "confidence":
        return probabilities.amax(1)
    away = probabilities - 1 / probabilities.shape[1]
    if measure == "mad":
        return away.abs().mean(1)
    variance = away.square().mean(1)
    return variance if measure == "variance" else variance.sqrt()


class PredictionStatistics:
    """A predictor's probabilities on a batch, as thresholds are learned from them.

    Args:
        probabilities: (B, C, *S).
        measure: of certainty.
        stream: (B, *S) int64, which of the streams each voxel belongs to; none: all to the first.
        streams: S, how many there are.

    Attributes:
        certainty: (B, N).
        counts: (S, C), voxels that the predictor gives to each class.
        total: (S,), voxels.
    """

    def __init__(
        self,
        probabilities: Tensor,
        measure: Uncertainty = "confidence",
        stream: Tensor | None = None,
        streams: int = 1,
    ) -> None:
        confidence, labels = probabilities.max(1)
        self.probabilities = probabilities
        self.certainty = confidence if measure == "confidence" else certainty(probabilities, measure)
        self.stream = torch.zeros_like(labels) if stream is None else stream
        self._shape = (streams, probabilities.shape[1])
        self._slots = PerClass((labels + probabilities.shape[1] * self.stream).flatten(1), math.prod(self._shape))
        self.counts = self.sum(torch.ones_like(self.certainty))
        self.total = self.counts.sum(1)

    def sum(self, values: Tensor) -> Tensor:
        """(S, C) sums of values (B, *S) over the voxels of each stream that the predictor gives to each class."""
        return self._slots.sum(values.flatten(1)).sum(0).view(self._shape)

    def mean_probabilities(self) -> Tensor:
        """(S, C), the mean of the probabilities over the voxels of each stream; 0 where there are none."""
        outside_classes = [0, *range(2, self.probabilities.ndim)]
        mass = [
            (self.probabilities * (self.stream == number).unsqueeze(1)).sum(outside_classes)
            for number in range(self._shape[0])
        ]
        return torch.stack(mass) / self.total.clamp_min(1).unsqueeze(1)


@dataclass(frozen=True)
class Threshold:
    """A rule for thresholds; by itself, thresholds that are the state and never move."""

    def start(self, num_classes: int) -> Tensor:
        """The state of a stream before the first batch, 1-D."""
        raise NotImplementedError

    def advance(self, state: Tensor, statistics: PredictionStatistics) -> Tensor:
        """The states after a batch, a row per stream; that of a stream without voxels stays."""
        return state

    def thresholds(self, state: Tensor) -> Tensor:
        """γ, (S, C), of the states."""
        return state


@dataclass(frozen=True)
class AdaptiveThreshold(Threshold):
    """γ_c ← α·O_c + (1-α)·γ_c, with O_c the mean certainty of the voxels of class c (MetaSSL, equations 9 and 10).

    Attributes:
        alpha: α.
        alpha_on: what α multiplies, `new` (equation 10 as printed) or `old` (a moving average as in Mean Teacher).
        init: γ before the first batch.
        absent: a class without voxels keeps its threshold, or decays towards 0 as in the released code, which takes
            O_c = Σ / (count + 1).
    """

    alpha: float = 0.99
    alpha_on: Literal["new", "old"] = "new"
    init: float = 0.5
    absent: Literal["keep", "decay"] = "keep"

    def start(self, num_classes: int) -> Tensor:
        return torch.full((num_classes,), self.init, dtype=torch.float64)

    def advance(self, state: Tensor, statistics: PredictionStatistics) -> Tensor:
        decays = self.absent == "decay"
        mean = statistics.sum(statistics.certainty) / (
            statistics.counts + 1 if decays else statistics.counts.clamp_min(1)
        )
        share = self.alpha if self.alpha_on == "new" else 1 - self.alpha
        moved = (share * mean + (1 - share) * state).clamp_max(1.0)
        return torch.where(statistics.total.unsqueeze(1) > 0 if decays else statistics.counts > 0, moved, state)


@dataclass(frozen=True)
class FixedThreshold(Threshold):
    """The same threshold for every class, always (MetaSSL Table V)."""

    value: float

    def start(self, num_classes: int) -> Tensor:
        return torch.full((num_classes,), self.value, dtype=torch.float64)


@dataclass(frozen=True)
class FlexMatchThreshold(Threshold):
    """γ_c = τ·b_c / (2 - b_c), b_c = n_c / max(max n, unselected) (FlexMatch, NeurIPS 2021; MetaSSL Table V).

    n_c counts the voxels that are named c with confidence ≥ τ, `unselected` those below τ. The original counts over
    the data set, a sample once; here a batch of voxels is counted.

    Attributes:
        tau: τ.
    """

    tau: float = 0.95

    def start(self, num_classes: int) -> Tensor:
        return torch.zeros(num_classes, dtype=torch.float64)

    def advance(self, state: Tensor, statistics: PredictionStatistics) -> Tensor:
        selected = statistics.sum((statistics.certainty >= self.tau).to(statistics.certainty.dtype))
        most = torch.maximum(selected.amax(1), statistics.total - selected.sum(1)).unsqueeze(1)
        b = selected / most.clamp_min(1)
        return torch.where(statistics.total.unsqueeze(1) > 0, self.tau * b / (2 - b), state)


@dataclass(frozen=True)
class FreeMatchThreshold(Threshold):
    """γ_c = τ·q_c / max q, moving averages of the mean confidence τ and of the mean probabilities q, both from 1/C
    (FreeMatch, ICLR 2023; MetaSSL Table V).

    Attributes:
        momentum: of both.
    """

    momentum: float = 0.999

    def start(self, num_classes: int) -> Tensor:
        return torch.full((1 + num_classes,), 1 / num_classes, dtype=torch.float64)  # τ, then q

    def advance(self, state: Tensor, statistics: PredictionStatistics) -> Tensor:
        confidence = statistics.sum(statistics.certainty).sum(1) / statistics.total.clamp_min(1)
        now = torch.cat([confidence.unsqueeze(1), statistics.mean_probabilities()], dim=1)
        return torch.where(statistics.total.unsqueeze(1) > 0, self.momentum * state + (1 - self.momentum) * now, state)

    def thresholds(self, state: Tensor) -> Tensor:
        q = state[..., 1:]
        return state[..., :1] * q / q.amax(-1, keepdim=True)


class ClassThreshold(nn.Module):
    """One adaptive threshold per class, learned from a predictor's logits (MetaSSL equations 9 and 10).

    Args:
        num_classes: C.
        init: before the first batch.
        momentum: α.
        alpha_on: see `AdaptiveThreshold`: by the equation as printed α is the weight of the new value.
    """

    gamma: Tensor

    def __init__(
        self, num_classes: int, init: float = 0.5, momentum: float = 0.99, alpha_on: Literal["new", "old"] = "new"
    ) -> None:
        super().__init__()
        self.rule = AdaptiveThreshold(momentum, alpha_on, init)
        self.register_buffer("gamma", self.rule.start(num_classes))

    @torch.no_grad()
    def update(self, logits: Tensor) -> Tensor:
        """The thresholds (C,) after a batch of logits (B, C, *S)."""
        statistics = PredictionStatistics(full_precision(logits).softmax(1))
        self.gamma = self.rule.advance(self.gamma.to(statistics.certainty).unsqueeze(0), statistics)[0]
        return self.gamma
