"""Mean Teacher and UA-MT: the student is drawn to a moving average of itself that sees noisy images."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, Field
from torch import Tensor

from sslbench.core.options import Iterations
from sslbench.core.registry import register
from sslbench.core.step import Batch, Step
from sslbench.losses.consistency import mse_consistency
from sslbench.methods.base import EMA
from sslbench.methods.shared.teacher_student import NoiseOptions, TeacherStudent, clipped_noise


class MeanTeacherOptions(NoiseOptions):
    """Options of `mt`."""

    ema_decay: float = Field(default=0.99, ge=0, le=1, description="of the teacher, with warm-up (SSL4MIS, MagicNet)")
    start: Iterations = Field(
        default=0, ge=0, description="iteration at which consistency begins (SSL4MIS on ACDC: 1000)"
    )


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
    term_kinds = ("label", "consistency")
    options: MeanTeacherOptions

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        image, labels, L = batch.image["weak"], batch.label["weak"], batch.num_labeled
        logits = self.student(image)
        labeled, unlabeled = self.teacher_logits(image + self._noise(image, step), logits, labels, L, step)
        supervised = self.loss.supervised(
            logits[:L], labels[:L], key="student", reference=self.reference("teacher", labeled)
        )
        consistency = self._consistency(logits[L:], unlabeled.float().softmax(1), image[L:], step)
        weight = step.consistency_weight if step.iteration >= self.options.start else 0.0 * step.consistency_weight
        return {"loss": supervised + weight * consistency, "supervised": supervised, "consistency": consistency}

    def _consistency(self, logits: Tensor, target: Tensor, image: Tensor, step: Step) -> Tensor:
        """The student's distance from the teacher's probabilities `target` on the unlabelled patches `image`."""
        return self.loss.consistency(
            logits, lambda: mse_consistency(logits, target), key="student", reference=("teacher", target)
        )

    def _noise(self, image: Tensor, step: Step, stream: str = "teacher-noise") -> Tensor:
        return clipped_noise(image, step, self.options.noise_std, self.options.noise_clip, stream)

    def average(self) -> EMA:
        return EMA("teacher", "student", self.options.ema_decay)
