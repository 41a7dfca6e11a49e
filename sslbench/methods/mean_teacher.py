"""Mean Teacher and UA-MT: the student is drawn to a moving average of itself that sees noisy images."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from sslbench.losses.consistency import certain_mse, entropy_map, mse_consistency, uamt_threshold
from sslbench.methods.base import Average, Batch, Passes, Phase, Step
from sslbench.methods.teacher_student import TeacherStudent, clipped_noise
from sslbench.registry import register


class MeanTeacherOptions(BaseModel):
    """Options of `mt`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    ema_decay: float = Field(default=0.99, ge=0, le=1, description="of the teacher, with warm-up (SSL4MIS, MagicNet)")
    noise_std: float = Field(default=0.1, ge=0, description="of the noise on the teacher's input (UA-MT, SSL4MIS)")
    noise_clip: float = Field(default=0.2, ge=0, description="the noise is clipped to ± this (UA-MT, SSL4MIS)")
    start: int = Field(default=0, ge=0, description="iteration at which consistency begins (SSL4MIS on ACDC: 1000)")


@register("method", "mt", aliases=("mean_teacher",))
class MeanTeacher(TeacherStudent):
    """Supervised loss + λ·mean (p_student(U) - p_teacher(U + noise))² (Tarvainen and Valpola, NeurIPS 2017).

    The teacher stays in training mode, as in SSL4MIS: its dropout is on, its batch statistics are those of its own
    inputs and only its parameters are averaged. The mean is over patches, classes and voxels. Inference: the student.

    Cost: one forward and backward pass over all patches and one forward over the unlabelled ones; with a loss that
    needs a reference, one forward over all.
    """

    title = "MT"
    Options: ClassVar[type[BaseModel]] = MeanTeacherOptions
    terms = ("label", "consistency")
    options: MeanTeacherOptions

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        image, labels, L = batch.image["weak"], batch.label["weak"], batch.num_labeled
        logits = self.student(image)
        first = 0 if self.loss.needs_reference else L  # from which patch on the teacher is asked
        with torch.no_grad():
            target_logits = self.teacher((image + self._noise(image, step))[first:])
        self.loss.observe(step, "student", logits, labels)
        self.loss.observe(step, "teacher", target_logits, labels[first:])
        labeled, unlabeled = target_logits[: L - first], target_logits[L - first :]
        supervised = self.loss.supervised(
            logits[:L], labels[:L], key="student", reference=self.reference("teacher", labeled)
        )
        consistency = self._consistency(logits[L:], unlabeled.float().softmax(1), image[L:], step)
        weight = step.ramp if step.iteration >= self.options.start else 0.0 * step.ramp
        return {"loss": supervised + weight * consistency, "supervised": supervised, "consistency": consistency}

    def _consistency(self, logits: Tensor, target: Tensor, image: Tensor, step: Step) -> Tensor:
        """The student's distance from the teacher's probabilities `target` on the unlabelled patches `image`."""
        return self.loss.consistency(
            logits, lambda: mse_consistency(logits, target), key="student", reference=("teacher", target)
        )

    def _noise(self, image: Tensor, step: Step, stream: str = "teacher-noise") -> Tensor:
        return clipped_noise(image, step, self.options.noise_std, self.options.noise_clip, stream)

    def average(self) -> Average:
        return Average("teacher", "student", self.options.ema_decay)

    def passes(self, phase: Phase) -> Passes:
        return Passes(labeled_forward=float(self.loss.needs_reference), unlabeled_forward=1)


class UAMTOptions(MeanTeacherOptions):
    """Options of `uamt`."""

    samples: int = Field(default=8, ge=2, multiple_of=2, description="stochastic passes of the teacher, T (UA-MT)")
    entropy_cap: Literal["ln2", "lnC"] = Field(
        default="ln2",
        description="entropy of the certainty threshold: ln 2 for any number of classes (released code), or ln C",
    )
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
        entropy = entropy_map(self._mean_probabilities(image, step))
        cap = math.log(2 if self.options.entropy_cap == "ln2" else logits.shape[1])
        now, end = (step.epoch, step.epochs) if self.options.clock == "epoch" else (step.iteration, step.iterations)
        threshold = uamt_threshold(now, end, cap)
        certain = entropy < threshold
        step.log("certain", certain.float().mean())
        return self.loss.consistency(
            logits,
            lambda: certain_mse(logits, target, entropy, threshold),
            key="student",
            reference=("teacher", target),
            mask=certain,
        )

    @torch.no_grad()
    def _mean_probabilities(self, image: Tensor, step: Step) -> Tensor:
        rounds, total = self.options.samples // 2, torch.zeros((), device=image.device)
        doubled = torch.cat([image, image])
        for number in range(rounds):
            noisy = doubled + self._noise(doubled, step, f"uncertainty-noise/{number}")
            total = total + self.teacher(noisy).float().softmax(1).unflatten(0, (2, -1)).sum(0)
        return total / self.options.samples

    def average(self) -> Average:
        return Average("teacher", "student", self.options.ema_decay, self.options.clock)

    def passes(self, phase: Phase) -> Passes:
        return Passes(labeled_forward=float(self.loss.needs_reference), unlabeled_forward=1 + self.options.samples)
