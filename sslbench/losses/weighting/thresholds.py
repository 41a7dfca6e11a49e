"""Adsh: a threshold of confidence for every class, such that each lets the same share of its voxels through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from sslbench.core.options import Options
from sslbench.core.registry import register
from sslbench.losses.cross_entropy import classes_of
from sslbench.losses.weighting.base import Weighting, voxels_of

if TYPE_CHECKING:
    from sslbench.core.step import Statistics, Step


def adsh_thresholds(probs: Tensor, tau: float = 0.9) -> Tensor:
    """The threshold of every class (C,), by sorting.

    n_c voxels are predicted as class c. Of the commonest class a share ρ has a probability above τ. The threshold of
    class c is the ⌊ρ·n_c⌋-th largest of all probabilities of c, counted from 0.

    Args:
        probs: (B, C, *S).
        tau: threshold of the commonest class.
    """
    C, predicted = probs.shape[1], classes_of(probs)
    counts = voxels_of(predicted, torch.ones_like(predicted), C).long()
    sure = (probs > tau).transpose(0, 1).flatten(1).sum(1)
    ranked = probs.transpose(0, 1).flatten(1).sort(dim=1, descending=True).values
    return ranked.gather(1, _ranks(counts, sure).unsqueeze(1)).squeeze(1)


def _ranks(counts: Tensor, sure: Tensor) -> Tensor:
    """⌊ρ·n_c⌋ (C,), at most the last of all voxels.

    Args:
        counts: (C,) int64, n.
        sure: (C,) int64, voxels whose probability of the class is above τ.
    """
    most, major = counts.max(0, keepdim=True)
    ranks = torch.div(sure.gather(0, major) * counts, most.clamp_min(1), rounding_mode="floor")
    return torch.minimum(ranks, counts.sum() - 1)


class AdshOptions(Options):
    """Options of `adsh`."""

    tau: float = Field(default=0.9, gt=0, lt=1, description="threshold of the commonest class (DHC port; Adsh: 0.95)")
    capacity: int | None = Field(
        default=None, gt=0, description="patches that make new thresholds; none: a quarter of the unlabelled cases"
    )
    form: Literal["paper", "released"] = Field(
        default="paper",
        description="paper: a voxel under the threshold of its class is left out; released: the learner's logits are "
        "multiplied by the classes that are over theirs (DHC port, which the tables of DHC and GA were made with)",
    )
    bins: int = Field(default=4096, ge=4096, description="of the histogram of each class's probabilities")


@register("weighting", "adsh")
class Adsh(Weighting):
    """Pseudo-labelled voxels count where the reference is as sure of their class as the class's own threshold asks
    (Adsh; Guo and Li, ICML 2022).

    Thresholds are such that of every class the same share of voxels passes as of the commonest one at τ
    (`adsh_thresholds`). They are made of what the learner itself predicts on unlabelled patches, once for every
    `capacity` of them: the step after the last that fits makes them, uses them at once, and begins anew with the next.
    Until then they are 0. Class weights stay 1.

    Deviations:
    - probabilities are kept as a histogram of 4096 bins for each class, not as volumes: a threshold is the lower edge
      of the bin of the exact one, so at most 1/4096 below it. State: C·4096 counts instead of gigabytes.
    - the released code multiplies the learner's logits, in every term on pseudo-labels, by a mask of the classes whose
      probability the reference has over the reference's own thresholds, which masks no voxel: `form=released`. By
      default a voxel under its threshold is left out, as in Adsh, and the mean stays one over all voxels.
    - the last place of a bank of odd capacity is left empty by the code and read as background; so it is with
      `form=released`, else it is not there.
    """

    changes = ("pseudo",)
    needs_reference = True
    Options: ClassVar[type[BaseModel]] = AdshOptions
    options: AdshOptions
    thresholds: Tensor
    histogram: Tensor
    counts: Tensor
    sure: Tensor
    patches: Tensor

    def __init__(self, num_classes: int, *values: Any, **options: Any) -> None:
        super().__init__(num_classes, *values, **options)
        self.register_buffer("thresholds", torch.zeros(num_classes))
        self.register_buffer("histogram", torch.zeros(num_classes, self.options.bins, dtype=torch.int64))
        self.register_buffer("counts", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("sure", torch.zeros(num_classes, dtype=torch.int64))
        self.register_buffer("patches", torch.zeros(()))

    @classmethod
    def of_job(cls, options: Mapping[str, Any], statistics: Statistics) -> Self:
        capacity = options.get("capacity") or max(statistics.unlabeled // 4, 1)
        return cls(statistics.num_classes, **{**options, "capacity": capacity})

    def observe(self, step: Step, logits: Tensor, labels: Tensor) -> Tensor:
        """Probabilities (B, C, *S); -1 where there is truth."""
        return logits.softmax(1).masked_fill((labels >= 0).unsqueeze(1), -1)

    def update(self, observation: Tensor) -> Tensor:
        inside = observation[:, 0] >= 0
        patches = inside.float().mean() * len(observation)
        full = (self.patches > 0) & (self.patches + patches > (self.options.capacity or 1))
        self.thresholds = torch.where(full, self._of_histogram(), self.thresholds)
        predicted = voxels_of(classes_of(observation), inside, self.num_classes).long()
        sure = (observation > self.options.tau).transpose(0, 1).flatten(1).sum(1)
        for name, seen in (
            ("histogram", self._binned(observation)),
            ("counts", predicted),
            ("sure", sure),
            ("patches", patches),
        ):
            setattr(self, name, (getattr(self, name) + seen).masked_fill(full, 0))
        return self.weights

    def masked(self, logits: Tensor, reference: Tensor) -> Tensor:
        """The released form: logits times 1 where the reference has the class over its threshold, else 0."""
        if self.options.form == "paper":
            return logits
        over = reference > self.thresholds.to(reference.dtype).view(-1, *[1] * (reference.ndim - 2))
        return logits * over.to(logits.dtype)

    def voxel_weight(self, logits: Tensor, reference: Tensor) -> Tensor | None:
        """1 where the reference is sure enough of what it predicts, else 0; none in the released form."""
        if self.options.form == "released":
            return None
        confidence, label = reference.max(1)
        return (confidence >= self.thresholds[label]).float()

    def records(self) -> Mapping[str, Tensor]:
        return {"threshold": self.thresholds}

    def _binned(self, probabilities: Tensor) -> Tensor:
        """How many of the probabilities (B, C, *S) of each class fall into each bin (C, bins); bin 0 stays empty."""
        bins = self.options.bins
        place = (probabilities.transpose(0, 1).flatten(1) * bins).int().clamp_(-1, bins - 1)
        first = torch.arange(0, self.num_classes * bins, bins, device=place.device, dtype=torch.int32).unsqueeze(1)
        # Nearly all probabilities are 0: what is not counted goes to many addresses, which a GPU's threads need.
        elsewhere = torch.arange(place.shape[1], device=place.device, dtype=torch.int32) % bins
        slots = torch.where(place > 0, first + place, self.num_classes * bins + elsewhere)
        found = torch.zeros((self.num_classes + 1) * bins, dtype=torch.int64, device=place.device)
        one = torch.ones((), dtype=torch.int64, device=place.device)
        found.index_add_(0, slots.flatten(), one.expand(slots.numel()))
        return found.view(-1, bins)[:-1]

    def _of_histogram(self) -> Tensor:
        """The thresholds (C,) of what is kept."""
        at_least = self.histogram.flip(1).cumsum(1)  # voxels in the bin or above, highest bin first
        above = (at_least <= _ranks(self._counts(), self.sure).unsqueeze(1)).sum(1)
        return (self.options.bins - 1 - above).clamp_min(0) / self.options.bins

    def _counts(self) -> Tensor:
        """The predicted voxels (C,) of what is kept; released, with the places that were left empty as background."""
        if self.options.form == "paper":
            return self.counts
        voxels = self.counts.sum() / self.patches.clamp_min(1)
        counts = self.counts.clone()
        counts[0] += (voxels * ((self.options.capacity or 1) - self.patches).clamp_min(0)).round().long()
        return counts
