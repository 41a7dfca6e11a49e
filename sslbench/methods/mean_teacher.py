"""Mean Teacher and UA-MT: the student is drawn to a moving average of itself that sees noisy images."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, Field
from torch import Tensor

from sslbench.losses.consistency import certain_mse, entropy_map, mse_consistency
from sslbench.methods.base import Average, Batch, Passes, Phase, Step
from sslbench.methods.teacher_student import NoiseOptions, TeacherStudent, clipped_noise
from sslbench.methods.uncertainty import UncertaintyOptions, noisy_mean
from sslbench.registry import register


class MeanTeacherOptions(NoiseOptions):
    """Options of `mt`."""

    ema_decay: float = Field(default=0.99, ge=0, le=1, description="of the teacher, with warm-up (SSL4MIS, MagicNet)")
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
        labeled, unlabeled = self.taught(image + self._noise(image, step), logits, labels, L, step)
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
        step.log("certain", certain.float().mean())
        return self.loss.consistency(
            logits,
            lambda: certain_mse(logits, target, entropy, threshold),
            key="student",
            reference=("teacher", target),
            mask=certain,
        )

    def average(self) -> Average:
        return Average("teacher", "student", self.options.ema_decay, self.options.clock)

    def passes(self, phase: Phase) -> Passes:
        return Passes(labeled_forward=float(self.loss.needs_reference), unlabeled_forward=1 + self.options.samples)
