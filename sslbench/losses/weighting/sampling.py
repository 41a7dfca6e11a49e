"""CLD: fixed class weights, and pseudo-labelled voxels sampled by how unsure the predictor is of their class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from sslbench.core.options import Options
from sslbench.core.registry import register
from sslbench.losses.cross_entropy import classes_of
from sslbench.losses.per_class import PerClass
from sslbench.losses.weighting.base import Weighting

if TYPE_CHECKING:
    from sslbench.core.step import Step


def cld_class_weights(counts: Tensor) -> Tensor:
    """(max n / n_c)^(1/3) of voxel counts (C,); a class without voxels counts as one with a single voxel."""
    counts = counts.float()
    return (counts.max() / counts.clamp_min(1)).clamp_min(1).pow(1 / 3)


def cld_sampling_rate(confidence: Tensor, gamma: float = 0.5) -> Tensor:
    """((1 - conf_c) / max (1 - conf))^γ of confidences (C,) in 0..1; 1 for all where no class leaves any doubt."""
    doubt = 1 - confidence
    most = doubt.max()
    return torch.where(most > 0, doubt / most, torch.ones_like(doubt)).pow(gamma)


def sampled(labels: Tensor, rate: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """1 for every voxel (B, *S) that is kept, at the rate (C,) of its class, else 0."""
    chance = rate[labels]
    return (torch.rand(chance.shape, generator=generator, device=chance.device) < chance).float()


class ConfidenceBank(nn.Module):
    """A moving average of the mean probability of the true class, class by class, window by window.

    The first window replaces what was there; a class that is not in a window counts 0 in it, as in the DHC code.

    Args:
        num_classes: C.
        momentum: of the average.
        update_every: steps in a window.
    """

    confidence: Tensor
    sums: Tensor
    counts: Tensor
    steps: Tensor

    def __init__(self, num_classes: int, momentum: float = 0.999, update_every: int = 1) -> None:
        super().__init__()
        self.num_classes, self.momentum, self.update_every = num_classes, momentum, update_every
        for name in ("confidence", "sums", "counts"):
            self.register_buffer(name, torch.zeros(num_classes))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def update(self, logits: Tensor, target: Tensor) -> Tensor:
        """The confidences (C,) after a step; 0 until the first window closes.

        Args:
            logits: (B, C, *S).
            target: (B, *S) int64, -1 where there is no truth.
        """
        sums, counts = self.confidence_sums(logits, target)
        return self.add(sums, counts)

    def confidence_sums(self, logits: Tensor, target: Tensor) -> Tensor:
        """(2, C): the sum of the true class's probability over the voxels of each class, and how many they are."""
        known, truth = (target >= 0).flatten(1).float(), target.clamp_min(0)
        sure = logits.float().softmax(1).gather(1, truth.unsqueeze(1)).flatten(1)
        per_class = PerClass(truth.flatten(1), self.num_classes)
        return torch.stack([per_class.sum(sure * known).sum(0), per_class.sum(known).sum(0)])

    def add(self, sums: Tensor, counts: Tensor) -> Tensor:
        """`update` from the result of `confidence_sums`."""
        self.sums, self.counts, self.steps = self.sums + sums, self.counts + counts, self.steps + 1
        new = self.sums / self.counts.clamp_min(1)
        averaged = self.momentum * self.confidence + (1 - self.momentum) * new
        closes = self.steps % self.update_every == 0
        self.confidence = torch.where(
            closes, torch.where(self.steps == self.update_every, new, averaged), self.confidence
        )
        self.sums, self.counts = self.sums.masked_fill(closes, 0), self.counts.masked_fill(closes, 0)
        return self.confidence


class CLDOptions(Options):
    """Options of `cld`."""

    momentum: float = Field(default=0.999, ge=0, le=1, description="of the confidences (CLD)")
    window: int = Field(default=8, gt=0, description="steps that make one confidence (DHC port; CLD: 2)")
    gamma: float = Field(default=0.5, ge=0, description="exponent of the sampling rate (CLD)")


@register("weighting", "cld")
class CLD(Weighting):
    """Class weights (max n / n_c)^(1/3) of the labelled volumes, and pseudo-labelled voxels kept with a probability
    that falls with the predictor's confidence in their class (CLD; Lin et al., MICCAI 2022).

    The confidence of a class is the mean probability that the predictor gives it on labelled voxels of it, over a
    window of steps, averaged 0.999 : 0.001. A voxel that the learner itself gives class c is kept at the rate
    ((1 - conf_c) / max (1 - conf))^γ, drawn anew for every term; the mean stays one over all voxels.

    Deviations:
    - until the first window closes every voxel is kept; the DHC port draws random confidences.
    - a class without labelled voxels weighs as one with a single voxel; in the code its weight is infinite.
    - CLD's crops (never from the scan's ends) belong to a recipe; the DHC port has none.
    """

    Options: ClassVar[type[BaseModel]] = CLDOptions
    options: CLDOptions

    def __init__(self, num_classes: int, *values: Any, **options: Any) -> None:
        super().__init__(num_classes, *values, **options)
        self.bank = ConfidenceBank(num_classes, self.options.momentum, self.options.window)
        self._draws: torch.Generator | None = None  # of the step

    def init(self, counts: Tensor) -> Tensor:
        self.weights = cld_class_weights(counts)
        return self.weights

    def observe(self, step: Step, logits: Tensor, labels: Tensor) -> Tensor:
        """(2, C) of labelled voxels: sums of the true class's probability, and counts."""
        self._draws = step.generator("voxel-sampling", logits.device)
        return self.bank.confidence_sums(logits, labels)

    def update(self, observation: Tensor) -> Tensor:
        self.bank.add(*observation)
        return self.weights

    def records(self) -> Mapping[str, Tensor]:
        return {**super().records(), "confidence": self.bank.confidence}

    def voxel_weight(self, logits: Tensor, reference: Tensor) -> Tensor:
        """1 for a voxel that is kept, else 0."""
        rate = cld_sampling_rate(self.bank.confidence, self.options.gamma)
        return sampled(classes_of(logits), rate, self._draws)
