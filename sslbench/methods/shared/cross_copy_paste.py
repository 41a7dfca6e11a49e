"""The step of copy-paste methods with two students that teach each other (ABD, β-FFT)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from sslbench.core.step import Batch, Step, View
from sslbench.losses.cross_entropy import classes_of
from sslbench.methods.base import Group, Phase, StepCost, no_strong_view
from sslbench.methods.shared.co_training import Prediction
from sslbench.methods.shared.copy_paste import CopyPaste, CopyPasteOptions, TeacherOutput

if TYPE_CHECKING:
    from sslbench.config.job import ResolvedJob


class CrossCopyPasteOptions(CopyPasteOptions):
    """What every copy-paste method with two students has."""

    cross_weight: float = Field(
        default=1.0, ge=0, description="of the Dice with the other student's labels, without a ramp (ABD, β-FFT)"
    )


class CrossCopyPaste(CopyPaste):
    """Students a and b, on weak and on strong views of the same mixes, that also learn from each other's labels: of the
    mixes, and of images that both views of them are made into.

    Both students, the teacher and both optimisers begin with the one network that was trained before. The teacher
    follows a.
    """

    predictors = ("a", "b")
    view_of: ClassVar[Mapping[str, View]] = {"a": "weak", "b": "strong"}
    views = {"labeled": ("weak", "strong"), "unlabeled": ("weak", "strong")}
    Options: ClassVar[type[BaseModel]] = CrossCopyPasteOptions
    options: CrossCopyPasteOptions
    a: nn.Module
    b: nn.Module

    @classmethod
    def objection(cls, job: ResolvedJob) -> str | None:
        return super().objection(job) or no_strong_view(job)

    def phases(self) -> list[Phase]:
        before, after = super().phases()
        return [replace(before, predictors=("a",)), after]

    def begin(self, phase: Phase) -> None:
        super().begin(phase)
        if phase.name == "self-train":
            self.b.load_state_dict(self.a.state_dict())

    def groups(self, phase: Phase) -> dict[str, Group]:
        a, b = (list(self.get_submodule(key).parameters()) for key in self.predictors)
        return {"a": Group(a)} if phase.name == "pretrain" else {"a": Group(a), "b": Group(b, heir_of="a")}

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        mixes = self.mixes(batch, step)
        if step.phase == "pretrain":
            return {"loss": self.pretrain_loss("a", batch, mixes.mask, step)}
        outputs = {
            key: self.teacher_output(batch.image[view], batch.label[view], mixes) for key, view in self.view_of.items()
        }
        n = len(outputs["a"].logits)
        self.loss.observe(
            step,
            "teacher",
            torch.cat([outputs[key].logits for key in self.predictors]),
            torch.cat([batch.label[view][-n:] for view in self.view_of.values()]),
        )
        mixed = {key: mixes(batch.image[view]) for key, view in self.view_of.items()}
        halves = {key: [self.get_submodule(key)(image) for image in mixed[key]] for key in self.predictors}
        pair = [Prediction(key, torch.cat(halves[key])) for key in self.predictors]
        for key, logits in pair:
            self.loss.observe(step, key, logits, torch.cat(mixes(batch.label[self.view_of[key]])))
        sums = [self.mixed_losses(key, halves[key], outputs[key], mixes) for key in self.predictors]
        labeled, unlabeled = (torch.stack(parts).sum() for parts in zip(*sums, strict=True))
        weak, strong = (torch.cat(mixed[key]) for key in self.predictors)
        altered = self.altered(weak, strong, pair[0].logits, pair[1].logits, step)
        cross = self.cross(pair)
        cross_altered = self.cross([Prediction(key, self.get_submodule(key)(altered)) for key in self.predictors])
        further = self.further(batch, outputs, step)
        loss = labeled + self.options.unlabeled_weight * unlabeled + self.options.cross_weight * (cross + cross_altered)
        terms = {"labeled": labeled, "unlabeled": unlabeled, "cross": cross, "cross_altered": cross_altered}
        return {"loss": sum(further.values(), loss), **terms, **further}

    @abstractmethod
    def altered(self, weak: Tensor, strong: Tensor, weak_logits: Tensor, strong_logits: Tensor, step: Step) -> Tensor:
        """Further images (2L, channels, *S), made of the weak and the strong mixes (L, channels, *S) each; with logits
        (L, C, *S), a's of the weak and b's of the strong ones."""
        raise NotImplementedError

    def further(self, batch: Batch, outputs: Mapping[str, TeacherOutput], step: Step) -> dict[str, Tensor]:
        """What the loss has beside these terms, in its weights."""
        return {}

    def cross(self, pair: Sequence[Prediction]) -> Tensor:
        """The Dice of either student with the labels of the other."""
        terms = [
            self.loss.dice(
                own.logits,
                classes_of(peer.logits.detach()),
                source="pseudo",
                key=own.key,
                reference=self.reference(peer.key, peer.logits),
            )
            for own, peer in (pair, pair[::-1])
        ]
        return torch.stack(terms).sum()

    def step_cost(self, phase: Phase) -> StepCost:
        if phase.name == "pretrain":
            return super().step_cost(phase)
        # Either student sees the L mixes of its view and the 2L altered ones of both.
        known = 2 * float(self.loss.needs_reference)
        return StepCost(labeled=3, unlabeled=3, labeled_forward=known, unlabeled_forward=2)
