"""The shared step of methods with a teacher: a copy of the student without gradient that follows it as an average."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from sslbench.core.options import Options
from sslbench.core.step import Statistics, Step
from sslbench.losses.base import Loss
from sslbench.methods.base import EMA, Build, Method, Phase, StepCost, mean_logits


class TeacherStudent(Method):
    """A student, its teacher, and the student's predictions.

    The teacher stays in training mode, as in SSL4MIS: its dropout is on and its batch statistics are those of its own
    inputs. `average` says how it follows.
    """

    predictors = ("student",)

    def __init__(self, options: BaseModel, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__(options, build, loss, statistics)
        self.student = build("student")
        self.teacher = build.ema(self.student)

    def teacher_logits(
        self, image: Tensor, logits: Tensor, labels: Tensor, num_labeled: int, step: Step
    ) -> tuple[Tensor, Tensor]:
        """What the teacher says of labelled patches (none, unless the loss needs a reference) and of unlabelled ones.

        The loss is shown both networks.

        Args:
            image: (B, channels, *S), labelled patches first, as the teacher is to see them.
            logits: (B, C, *S) of the student.
            labels: (B, *S).
            num_labeled: how many patches are labelled.
            step: of the training.

        Returns:
            The teacher's logits of either, without gradient.
        """
        first = 0 if self.loss.needs_reference else num_labeled
        with torch.no_grad():
            teacher_logits = self.teacher(image[first:])
        self.loss.observe(step, "student", logits, labels)
        self.loss.observe(step, "teacher", teacher_logits, labels[first:])
        return teacher_logits[: num_labeled - first], teacher_logits[num_labeled - first :]

    @abstractmethod
    def average(self) -> EMA:
        """How the teacher follows the student."""
        raise NotImplementedError

    def averages(self) -> Sequence[EMA]:
        return (self.average(),)

    def step_cost(self, phase: Phase) -> StepCost:
        return StepCost(labeled_forward=float(self.loss.needs_reference), unlabeled_forward=1)

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        return mean_logits([self.student], x)


class NoiseOptions(Options):
    """Of the noise on an input, `clipped_noise`."""

    noise_std: float = Field(default=0.1, ge=0, description="of the noise on the teacher's input (UA-MT, SSL4MIS)")
    noise_clip: float = Field(default=0.2, ge=0, description="the noise is clipped to ± this (UA-MT, SSL4MIS)")


def clipped_noise(image: Tensor, step: Step, std: float, clip: float, stream: str = "teacher-noise") -> Tensor:
    """Gaussian noise for a teacher's input, clipped to ±`clip`, in the shape of `image`.

    Args:
        image: (B, channels, *S).
        step: whose generator of `stream` draws it.
        std: standard deviation, in the units of the image.
        clip: largest size.
        stream: its name; two draws of one step need two.
    """
    noise = torch.empty_like(image).normal_(generator=step.generator(stream, image.device))
    return (std * noise).clamp_(-clip, clip)
