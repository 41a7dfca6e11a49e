"""Mean Teacher: the student is drawn to a moving average of itself that sees noisy images."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from sslbench.losses.base import Loss
from sslbench.losses.consistency import mse_consistency
from sslbench.methods.base import Batch, Build, Method, Statistics, Step, mean_logits
from sslbench.registry import register
from sslbench.training.ema import update_ema


class MeanTeacherOptions(BaseModel):
    """Options of `mt`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    ema_decay: float = Field(default=0.99, ge=0, le=1, description="of the teacher, with warm-up (SSL4MIS, MagicNet)")
    noise_std: float = Field(default=0.1, ge=0, description="of the noise on the teacher's input (UA-MT, SSL4MIS)")
    noise_clip: float = Field(default=0.2, ge=0, description="the noise is clipped to ± this (UA-MT, SSL4MIS)")
    start: int = Field(default=0, ge=0, description="iteration at which consistency begins (SSL4MIS on ACDC: 1000)")


@register("method", "mt", aliases=("mean_teacher",))
class MeanTeacher(Method):
    """Supervised loss + λ·mean (p_student(U) - p_teacher(U + noise))² (Tarvainen and Valpola, NeurIPS 2017).

    The teacher stays in training mode, as in SSL4MIS: its dropout is on, its batch statistics are those of its own
    inputs and only its parameters are averaged. The mean is over patches, classes and voxels. Inference: the student.

    Cost: one forward and backward pass over all patches and one forward over the unlabelled ones; with a loss that
    needs a reference, one forward over all.
    """

    title = "MT"
    Options: ClassVar[type[BaseModel]] = MeanTeacherOptions
    keys = ("student",)
    options: MeanTeacherOptions

    def __init__(self, options: MeanTeacherOptions, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__(options, build, loss, statistics)
        self.student = build("student")
        self.teacher = build.ema(self.student)

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        image, labels, L = batch.image["weak"], batch.label["weak"], batch.num_labeled
        logits = self.student(image)
        first = 0 if self.loss.needs_reference else L  # from which patch on the teacher is asked
        with torch.no_grad():
            target_logits = self.teacher(image[first:] + self._noise(image, step)[first:])
        self.loss.observe(step, "student", logits, labels)
        self.loss.observe(step, "teacher", target_logits, labels[first:])
        target = target_logits.float().softmax(1)
        reference = ("teacher", target[:L]) if self.loss.needs_reference else None
        supervised = self.loss.supervised(logits[:L], labels[:L], key="student", reference=reference)
        consistency = self.loss.consistency(
            logits[L:],
            lambda: mse_consistency(logits[L:], target[L - first :]),
            key="student",
            reference=("teacher", target[L - first :]),
        )
        weight = step.ramp if step.iteration >= self.options.start else 0.0 * step.ramp
        return {"loss": supervised + weight * consistency, "supervised": supervised, "consistency": consistency}

    def _noise(self, image: Tensor, step: Step) -> Tensor:
        noise = torch.empty_like(image).normal_(generator=step.generator("teacher-noise", image.device))
        return (self.options.noise_std * noise).clamp_(-self.options.noise_clip, self.options.noise_clip)

    def after_step(self, step: Step) -> None:
        update_ema(self.teacher, self.student, self.options.ema_decay, step.iteration)

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        return mean_logits([self.student], x)
