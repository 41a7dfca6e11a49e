"""DePL: cross pseudo supervision with pseudo-labels that are freed of what each network prefers anyway."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from sslbench.core.registry import register
from sslbench.core.step import Batch, Statistics, Step
from sslbench.losses.base import Loss
from sslbench.losses.cross_entropy import full_precision
from sslbench.methods.base import Build
from sslbench.methods.shared.co_training import CoTraining, CoTrainingOptions, Prediction


class DePLOptions(CoTrainingOptions):
    """Options of `depl`."""

    form: Literal["released", "paper"] = Field(
        default="released",
        description="what a network prefers: at every place of a patch (DHC port), or over all places, with a margin "
        "on the learner's unlabelled patches (DePL)",
    )
    tau: float = Field(default=1.0, ge=0, description="τ, weight of the preference's logarithm (DHC port)")
    threshold: float = Field(default=0.9, ge=0, lt=1, description="confidence that a pseudo-label needs (DHC port)")
    momentum: float = Field(default=0.99, ge=0, le=1, description="of the preference's moving average (DePL)")


@register("method", "depl")
class DePL(CoTraining):
    """Σ_n supervised(n) + λ [CE(a, t_b) + CE(b, t_a)], t_n = argmax of softmax(x_n - τ ln q_n) where its largest value
    reaches 0.9 (DePL; Wang et al., CVPR 2022; for segmentation by DHC's authors).

    q_n, what network n prefers anyway, is a moving average of its mean probabilities on unlabelled patches, and uniform
    before the first step; pseudo-labels are made before it moves. The cross term is over all patches and a mean over
    all their voxels, confident or not. Cost: two forward and backward passes over all patches.

    Deviations:
    - `released`, the default, keeps q_n for every place of a patch, though patches are cut anywhere. DePL has one for
      all places and adds τ ln q to the learner's logits as a margin, which the port computes and does not use: `paper`.
    - q is not taken below 1e-38: what a network never predicts would have an infinite logit.
    """

    version = 2  # what a network prefers is no longer held above 1e-8
    title = "DePL"
    Options: ClassVar[type[BaseModel]] = DePLOptions
    made_targets = dict.fromkeys(CoTraining.predictors, "what the peer prefers is taken off its logits")
    term_kinds = ("label", "pseudo")
    options: DePLOptions

    def __init__(self, options: DePLOptions, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__(options, build, loss, statistics)
        C, size = statistics.num_classes, statistics.patch_size
        shape = size if options.form == "released" else (1,) * len(size)
        for key in self.predictors:
            self.register_buffer(f"preference_{key}", torch.full((1, C, *shape), 1 / C))

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        labels, L = batch.label["weak"], batch.num_labeled
        pair = a, b = self.pair(batch.image["weak"])
        self.observe(step, pair, labels)
        supervised = self.supervised(pair, labels, L).sum()
        cross = self._cross(a, b, L, step) + self._cross(b, a, L, step)
        for key, logits in pair:
            self._follow(key, logits[L:].detach())
        return {"loss": supervised + step.consistency_weight * cross, "supervised": supervised, "cross": cross}

    def _cross(self, learner: Prediction, peer: Prediction, L: int, step: Step) -> Tensor:
        """The learner's cross-entropy with the peer's debiased labels."""
        other = full_precision(peer.logits.detach())
        confidence, target = (other - self._shift(peer.key)).softmax(1).max(1)
        confident = (confidence >= self.options.threshold).float()
        step.log(f"confident/{peer.key}", confident.mean)
        preferred = self.get_buffer(f"preference_{peer.key}").transpose(0, 1).flatten(1)
        step.log(f"preference/{peer.key}", partial(preferred.mean, 1))
        logits = learner.logits
        if self.options.form == "paper":
            logits = torch.cat([logits[:L], full_precision(logits[L:]) + self._shift(learner.key)])
        reference = self.reference(peer.key, other)
        return self.loss.ce(
            logits, target, source="pseudo", key=learner.key, reference=reference, voxel_weight=confident
        )

    def _shift(self, key: str) -> Tensor:
        """τ ln q of a network."""
        preference: Tensor = self.get_buffer(f"preference_{key}")
        return self.options.tau * preference.clamp_min(torch.finfo(preference.dtype).tiny).log()

    def _follow(self, key: str, logits: Tensor) -> None:
        """Move what a network prefers towards what it predicts on unlabelled patches, by its logits."""
        old = self.get_buffer(f"preference_{key}")
        axes = [axis for axis, side in enumerate(old.shape) if side == 1 and axis != 1]
        old.lerp_(logits.float().softmax(1).mean(axes, keepdim=True), 1 - self.options.momentum)
