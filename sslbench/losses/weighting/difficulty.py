"""Class weights from how well and how fast each class is learned: DHC's difficulty-aware DiffDW."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from sslbench.core import registry
from sslbench.core.options import Options
from sslbench.core.registry import register
from sslbench.losses.cross_entropy import classes_of
from sslbench.losses.weighting.base import Weighting, voxels_of

if TYPE_CHECKING:
    from sslbench.config.job import ResolvedJob
    from sslbench.core.step import Step

_SMOOTH = 1e-8  # of the Dice, of its first predecessor and of the ratio of speeds (DHC code)


def batch_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Dice (C,) of the predicted classes over all voxels with truth, background included.

    (2·TP + s) / (|prediction| + |truth| + 2s) with s = 1e-8: a class in neither has 0.5, as in the DHC code.

    Args:
        logits: (B, C, *S).
        target: (B, *S) int64, -1 where there is no truth.
    """
    C, predicted, known = logits.shape[1], classes_of(logits), target >= 0
    truth = target.clamp_min(0)
    hits = voxels_of(truth, known & (predicted == truth), C)
    size = voxels_of(predicted, known, C) + voxels_of(truth, known, C)
    return (2 * hits + _SMOOTH) / (size + 2 * _SMOOTH)


class DiffDWOptions(Options):
    """Options of `diffdw`."""

    window: int = Field(default=50, gt=0, description="τ, steps that speeds and Dice are averaged over (DHC)")
    alpha: float = Field(default=0.2, gt=0, description="exponent of the ratio of speeds, 1/5 (DHC)")


@register("weighting", "diffdw")
class DiffDW(Weighting):
    """Classes that are learned badly and forgotten fast weigh more (difficulty-aware debiased weighting of DHC; Wang
    and Li, MICCAI 2023).

    λ is the Dice of each class, background too, of the predicted classes of the labelled patches, δ its change since
    the step before. Speeds of learning max(δ, 0)·ln(λ/λ') and of unlearning min(δ, 0)·ln(λ/λ') are averaged with
    (τ - 1)/τ into L and U, and 1 - λ, from 1 on, into r. The weight is ((U + s)/(L + s))^α·r, scaled so that the
    largest is C; before the first step all weigh C.

    Deviations: as the released code, not the paper, which counts the signs of δ in a window, leaves the weights
    unscaled, and halves the sum of two criteria. A class in neither truth nor prediction has λ = 0.5, half learned.
    """

    Options: ClassVar[type[BaseModel]] = DiffDWOptions
    options: DiffDWOptions
    last: Tensor
    learned: Tensor
    unlearned: Tensor
    unsolved: Tensor

    @classmethod
    def objection(cls, job: ResolvedJob) -> str | None:
        unlabeled = registry.component("method", job.method["name"]).unlabeled_learners
        blind = [key for key, spec in job.weightings.items() if spec["name"] == "diffdw" and key in unlabeled]
        if blind:
            return (
                f"diffdw follows the Dice of labelled patches, and '{blind[0]}' sees none: name it for other learners"
            )
        return super().objection(job)

    def __init__(self, num_classes: int, *values: Any, **options: Any) -> None:
        super().__init__(num_classes, *values, **options)
        self.weights = torch.full((num_classes,), float(num_classes))
        self.register_buffer("last", torch.full((num_classes,), _SMOOTH))
        self.register_buffer("learned", torch.zeros(num_classes))
        self.register_buffer("unlearned", torch.zeros(num_classes))
        self.register_buffer("unsolved", torch.ones(num_classes))

    def init(self, counts: Tensor) -> Tensor:
        """C for every class."""
        return self.weights

    def observe(self, step: Step, logits: Tensor, labels: Tensor) -> Tensor:
        """The Dice (C,) of the labelled patches."""
        return batch_dice(logits, labels)

    def update(self, observation: Tensor) -> Tensor:
        difficulty = self.difficulty(observation)
        self.weights = self.num_classes * difficulty / difficulty.max()
        return self.weights

    def difficulty(self, dice: Tensor) -> Tensor:
        """The weights (C,) after the Dice (C,) of a step, not yet scaled (as GenericSSL takes them)."""
        dice = dice.float()
        # A ratio near 1 has few digits in fp32, and the averages would keep the error.
        change, speed = dice - self.last, (dice.double() / self.last.double()).log().float()
        self.learned = self._averaged(self.learned, change.clamp_min(0) * speed)
        self.unlearned = self._averaged(self.unlearned, change.clamp_max(0) * speed)
        self.unsolved = self._averaged(self.unsolved, 1 - dice)
        self.last = dice
        ratio = (self.unlearned + _SMOOTH) / (self.learned + _SMOOTH)
        return ratio.pow(self.options.alpha) * self.unsolved

    def _averaged(self, old: Tensor, new: Tensor) -> Tensor:
        return old + (new - old) / self.options.window
