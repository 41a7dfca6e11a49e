"""Uncertainty-aware Mean Teacher (Yu et al., MICCAI 2019)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, Field
from torch import Tensor

from sslbench.core.registry import register
from sslbench.core.step import Step
from sslbench.losses.consistency import certain_mse, entropy_map
from sslbench.methods.base import EMA, Phase, StepCost
from sslbench.methods.mt import MeanTeacher, MeanTeacherOptions
from sslbench.methods.shared.uncertainty import UncertaintyOptions, noisy_mean


class UAMTOptions(UncertaintyOptions, MeanTeacherOptions):
    """Options of `uamt`."""

    clock: Literal["iteration", "epoch"] = Field(
        default="iteration",
        description="what the threshold's ramp and the teacher's warm-up count (released code; the DHC port: epoch)",
    )


@register("method", "uamt", aliases=("ua-mt",))
class UncertaintyAwareMeanTeacher(MeanTeacher):
    """Mean Teacher whose consistency counts only where the teacher is certain (UA-MT; Yu et al., MICCAI 2019).

    T stochastic passes of the teacher over noisy unlabelled patches give a mean probability p̄ and its entropy
    H = -Σ p̄ log(p̄ + 1e-6). Voxels with H < (0.75 + 0.25·exp(-5(1 - t)²))·ln 2, t the share of the training, count:
    Σ m·(p_s - p_t)² / (2Σm + 1e-16), whose target p_t is one more pass. The passes go two at a time, the batch
    doubled, which is what the teacher's batch statistics see. A loss that defines the consistency itself is handed the
    certain voxels as its mask.

    Cost: that of `mt` and T more forward passes over the unlabelled patches.
    """

    title = "UA-MT"
    Options: ClassVar[type[BaseModel]] = UAMTOptions
    options: UAMTOptions

    def _consistency(self, logits: Tensor, target: Tensor, image: Tensor, step: Step) -> Tensor:
        mean = noisy_mean(
            self.teacher, image, self.options.samples, lambda doubled, stream: self._noise(doubled, step, stream)
        )
        entropy = entropy_map(mean)
        by_epoch = self.options.clock == "epoch"
        now, end = (step.epoch, step.epochs - 1) if by_epoch else (step.iteration, step.iterations)
        threshold = self.options.threshold(now, end, logits.shape[1])
        certain = entropy < threshold
        step.log("certain", lambda: certain.float().mean())
        return self.loss.consistency(
            logits,
            lambda: certain_mse(logits, target, entropy, threshold),
            key="student",
            reference=("teacher", target),
            mask=certain,
        )

    def average(self) -> EMA:
        return EMA("teacher", "student", self.options.ema_decay, self.options.clock)

    def step_cost(self, phase: Phase) -> StepCost:
        return StepCost(labeled_forward=float(self.loss.needs_reference), unlabeled_forward=1 + self.options.samples)
