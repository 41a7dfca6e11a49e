"""The contract of a weighting: class and voxel weights that follow what a predictor does."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from sslbench.data.base import NoOptions

if TYPE_CHECKING:
    from sslbench.methods.base import Step


class Weighting(nn.Module):
    """Class weights, updated every step before the terms, and voxel weights of terms on pseudo-labels.

    There is one per predictor that learns; `losses.compose.Weighted` calls it. All it remembers must be in its
    `state_dict()`; it works in fp32, without gradient.

    Args:
        num_classes: C, background included. A subclass takes its `Options` as further keyword arguments.

    Attributes:
        version: raised when the same options would weight differently.
        needs_reference: whether `voxel_weight` looks at the reference, so that a method should compute one.
        weights: (C,), the class weights now.
    """

    version: ClassVar[int] = 1
    needs_reference: bool = False
    Options: ClassVar[type[BaseModel]] = NoOptions
    weights: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.register_buffer("weights", torch.ones(num_classes))

    def init(self, counts: Tensor) -> Tensor:
        """The weights (C,) to begin with, from the voxels of each class in the labelled cases (C,): ones."""
        return torch.ones_like(counts)

    def observe(self, step: Step, logits: Tensor, labels: Tensor) -> Tensor:
        """What `update` learns from: counts, Dice or confidences per class.

        Args:
            step: counters and generators.
            logits: (B, C, *S) fp32 of the predictor on the patches of this step.
            labels: (B, *S) int64, -1 where there is no truth.
        """
        raise NotImplementedError

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
