"""The contract of a weighting: class and voxel weights that follow what a predictor does."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from sslbench.core import registry
from sslbench.core.options import NoOptions
from sslbench.losses.per_class import PerClass

if TYPE_CHECKING:
    from sslbench.config.job import ResolvedJob
    from sslbench.core.step import Statistics, Step


class Weighting(nn.Module):
    """Class weights, updated every step before the terms, and voxel weights of terms on pseudo-labels.

    Two members must be written: `observe` and `update`. `init`, `voxel_weight`, `masked`, `records`, `Options` and
    `changes` may be.

    There is one per predictor that learns; `losses.compose.Weighted` calls it and keeps the weights that `init` and
    `update` return. All it remembers must be in its `state_dict()`; it works in fp32, without gradient, and never waits
    for the device.

    Args:
        num_classes: C, background included.
        values, options: fields of `Options`, in their order or by name.

    Attributes:
        version: raised when the same options would weight differently.
        changes: the terms that it weighs.
        needs_reference: whether `voxel_weight` looks at the reference, so that a method should compute one.
        weights: (C,), the class weights now.
    """

    version: ClassVar[int] = 1
    changes: ClassVar[tuple[Literal["label", "pseudo"], ...]] = ("label", "pseudo")
    needs_reference: bool = False
    Options: ClassVar[type[BaseModel]] = NoOptions
    weights: Tensor

    def __init__(self, num_classes: int, *values: Any, **options: Any) -> None:
        super().__init__()
        named = zip([*type(self).Options.model_fields][: len(values)], values, strict=True)
        self.num_classes, self.options = num_classes, type(self).Options(**dict(named), **options)
        self.register_buffer("weights", torch.ones(num_classes))

    @classmethod
    def of_job(cls, options: Mapping[str, Any], statistics: Statistics) -> Self:
        """That of a job, for those that take more than the number of classes from its data."""
        return cls(statistics.num_classes, **options)

    @classmethod
    def objection(cls, job: ResolvedJob) -> str | None:
        """The one line why it has no meaning in a job; None where it has one."""
        if {*cls.changes} & {*registry.component("method", job.method["name"]).term_kinds}:
            return None
        return f"a weighting of terms on {'- and '.join(cls.changes)}-labels changes nothing: the method has none"

    def init(self, counts: Tensor) -> Tensor:
        """The weights (C,) to begin with, from the voxels of each class in the labelled cases (C,): ones."""
        return torch.ones_like(counts, dtype=torch.float32)

    @abstractmethod
    def observe(self, step: Step, logits: Tensor, labels: Tensor) -> Tensor:
        """What `update` learns from: counts, Dice or confidences per class.

        Args:
            step: counters and generators, whose streams are this weighting's own.
            logits: (B, C, *S) fp32 of the predictor on the patches of this step.
            labels: (B, *S) int64, -1 where there is no truth.
        """
        raise NotImplementedError

    @abstractmethod
    def update(self, observation: Tensor) -> Tensor:
        """The weights (C,) after an observation."""
        raise NotImplementedError

    def voxel_weight(self, logits: Tensor, reference: Tensor) -> Tensor | None:
        """Weights (B, *S) of a term on pseudo-labels; none unless the weighting has such.

        Args:
            logits: (B, C, *S) fp32 of the learner.
            reference: (B, C, *S) probabilities that it is held against; its own where the method names none.
        """
        return None

    def masked(self, logits: Tensor, reference: Tensor) -> Tensor:
        """What a cross-entropy with pseudo-labels is taken of: the learner's logits, unless the weighting masks them.

        It is asked of the weighting of the predictor that the learner is held against, if that has one of the same
        kind.

        Args:
            logits: (B, C, *S) of the learner, with gradient.
            reference: (B, C, *S) probabilities that it is held against.
        """
        return logits

    def records(self) -> Mapping[str, Tensor]:
        """What is kept of it along a training: by name, one number for each class (C,)."""
        return {"weight": self.weights}


def voxels_of(labels: Tensor, inside: Tensor, num_classes: int) -> Tensor:
    """How many voxels of each class (C,) there are among labels (B, *S) where `inside` (B, *S) is true."""
    return PerClass(labels.flatten(1), num_classes).sum(inside.flatten(1).float()).sum(0)
