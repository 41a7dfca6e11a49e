"""Methods with one fault each: what the laws are there to find. Every one is a good method but for a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sslbench.core.step import Batch, Step
from sslbench.methods.base import EMA, Group, Method, Phase, StepCost, mean_logits
from sslbench.methods.cps import CrossPseudoSupervision
from sslbench.methods.mt import MeanTeacher
from sslbench.methods.supervised import Supervised


class ForgetsUnlabeled(CrossPseudoSupervision):
    """The cross term is computed, logged, and never added."""

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        terms = super().training_step(batch, step)
        return {**terms, "loss": terms["supervised"]}


class OneLearns(CrossPseudoSupervision):
    """Only network a learns from the other."""

    def cross(self, learner: Any, peer: Any, first: int, voxel_weight: Tensor | None = None) -> Tensor:
        return super().cross(learner, peer, first, voxel_weight) * (learner.key == "a")


class LearningTeacher(MeanTeacher):
    """The teacher's forward keeps its graph."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.teacher.requires_grad_(True)

    def groups(self, phase: Phase) -> dict[str, Group]:
        return {"networks": Group(list(self.student.parameters()))}

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        terms = super().training_step(batch, step)
        return {**terms, "loss": terms["loss"] + 0.1 * self.teacher(batch.image["weak"]).square().mean()}


class OptimisedTeacher(MeanTeacher):
    """The teacher was never frozen: the optimiser has it too."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.teacher.requires_grad_(True)


class NeverSilent(MeanTeacher):
    """Its consistency has a weight that the ramp does not reach."""

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        terms = super().training_step(batch, step)
        return {**terms, "loss": terms["loss"] + terms["consistency"]}


class HalfSupervised(CrossPseudoSupervision):
    """The supervised terms are averaged, not summed."""

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        terms = super().training_step(batch, step)
        return {**terms, "loss": terms["loss"] - 0.5 * terms["supervised"]}


class ReadsLabels(MeanTeacher):
    """Unlabelled patches take part in the supervised loss, whatever stands where their labels are."""

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        terms = super().training_step(batch, step)
        logits = self.student(batch.image["weak"])
        return {**terms, "loss": terms["loss"] + self.loss._plain_dice(logits, batch.label["weak"].clamp_min(0))}


class FrozenTeacher(MeanTeacher):
    """An out-of-place sum: the teacher never receives the student."""

    def after_step(self, step: Step) -> None:
        for mine, theirs in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            mine.data.mul(0.99).add(theirs.data, alpha=0.01)


class WrongDecay(MeanTeacher):
    """The average has no warm-up, but says that it has."""

    def after_step(self, step: Step) -> None:
        EMA("teacher", "student", self.options.ema_decay, warm_up=None).update(self, step)


class AveragesBuffers(MeanTeacher):
    """Batch statistics are averaged, but it says that they are not."""

    def after_step(self, step: Step) -> None:
        EMA("teacher", "student", self.options.ema_decay, buffers=True).update(self, step)


class IdlePart(Supervised):
    """A head that nothing trains."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.idle = nn.Linear(2, 2)


class UsesUnused(Supervised):
    """A layer that calls itself unused learns."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.unused = nn.Linear(2, 2)

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        terms = super().training_step(batch, step)
        return {**terms, "loss": terms["loss"] + self.unused.weight.square().sum()}


class GlobalDraws(MeanTeacher):
    """Noise from numpy's global generator."""

    def _noise(self, image: Tensor, step: Step, stream: str = "") -> Tensor:
        return torch.as_tensor(0.1 * np.random.randn(*image.shape), dtype=image.dtype)


class HiddenCounter(Supervised):
    """A counter in plain Python weighs the loss: a checkpoint does not hold it."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.steps = 0

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        self.steps += 1
        return {"loss": super().training_step(batch, step)["loss"] * self.steps}


class HiddenNetwork(Supervised):
    """The network that predicts is a moving average outside of the state."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.kept = [parts[1].ema(self.net)]

    def after_step(self, step: Step) -> None:
        for mine, theirs in zip(self.kept[0].parameters(), self.net.parameters(), strict=True):
            mine.data.lerp_(theirs.data, 0.5)

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        return mean_logits(self.kept, x)


class UnpicklableState(Supervised):
    """State that is neither tensors nor plain values."""

    def get_extra_state(self) -> Any:
        return {"set": slice(0, 1)}

    def set_extra_state(self, state: Any) -> None:
        pass


class _SupervisedPlus(Supervised):
    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        logits = self.net(batch.image["weak"])
        self.loss.observe(step, "net", logits, batch.label["weak"])
        supervised = self.loss.supervised(logits, batch.label["weak"], key="net")
        return {"loss": supervised + self.more(logits, batch.label["weak"])}

    def more(self, logits: Tensor, labels: Tensor) -> Tensor:
        raise NotImplementedError


class RoundsAway(_SupervisedPlus):
    """log(1 - p) in half precision, where p is 1."""

    def more(self, logits: Tensor, labels: Tensor) -> Tensor:
        p = logits.float().softmax(1).clamp(1e-5, 1 - 1e-5).to(logits.dtype)
        return -(1 - p).log().mean()


class ForegroundMean(_SupervisedPlus):
    """A mean over foreground voxels, where there may be none."""

    def more(self, logits: Tensor, labels: Tensor) -> Tensor:
        foreground = (labels > 0).float()
        return (logits.float().logsumexp(1) * foreground).sum() / foreground.sum()


class ClassMeans(_SupervisedPlus):
    """A mean over the voxels of each class, where some have none."""

    def more(self, logits: Tensor, labels: Tensor) -> Tensor:
        means = [logits[:, c][labels == c].mean() for c in range(1, logits.shape[1])]
        return torch.stack(means).mean() if (labels > 0).any() else logits.mean()


class PredictsLogits(Supervised):
    """Logits in the place of probabilities."""

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        return self.net(x)


class NeverObserves(Supervised):
    """A term for a predictor that the loss has not seen."""

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        return {"loss": self.loss.supervised(self.net(batch.image["weak"]), batch.label["weak"], key="net")}


class ObservesTwice(Supervised):
    """Statistics are taken twice in a step."""

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        self.loss.observe(step, "net", self.net(batch.image["weak"]).detach(), batch.label["weak"])
        return super().training_step(batch, step)


class DeclaresTooMuch(Supervised):
    """Says that it asks for terms on pseudo-labels too."""

    term_kinds = ("label", "pseudo")


class DeclaresTooLittle(CrossPseudoSupervision):
    """Says that one pass is enough for two networks."""

    def step_cost(self, phase: Phase) -> StepCost:
        return StepCost()


class HidesTeacherCost(MeanTeacher):
    """Does not say that the teacher looks at unlabelled patches."""

    def step_cost(self, phase: Phase) -> StepCost:
        return StepCost(labeled_forward=float(self.loss.needs_reference))


class ExcusesItself(HiddenCounter):
    """Declares itself exempt from a law that has no exceptions."""

    check_exemptions = {"resumes_exactly": "it would be inconvenient"}


class Stops(Supervised):
    """Stops with an error."""

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        raise RuntimeError("no such luck\nat all")


# Law -> the methods that break it, and a part of what is said then.
FAULTS: dict[str, Sequence[tuple[type[Method], str]]] = {
    "learns_from_unlabeled": [(ForgetsUnlabeled, "'a' learns nothing"), (OneLearns, "'b' learns nothing")],
    "teacher_untouched": [(LearningTeacher, "gradient reaches teacher."), (OptimisedTeacher, "optimiser has teacher.")],
    "blind_at_zero": [(NeverSilent, "other unlabelled images change the gradient of student.")],
    "supervised_at_zero": [(HalfSupervised, "not the supervised gradient in")],
    "unlabeled_labels_unreachable": [(ReadsLabels, "change the gradient of")],
    "ema_closed_form": [
        (FrozenTeacher, "is not the average of"),
        (WrongDecay, "is not the average of"),
        (AveragesBuffers, "running_"),
    ],
    "every_parameter_moves": [
        (IdlePart, "2 of"),
        (FrozenTeacher, "teacher."),
        (UsesUnused, "a gradient reaches unused.weight"),
    ],
    "deterministic": [(GlobalDraws, "differs in")],
    "resumes_exactly": [(HiddenCounter, "differs in"), (ExcusesItself, "differs in")],
    "state_round_trips": [(HiddenNetwork, "differs in a fresh object"), (UnpicklableState, "UnpicklingError")],
    "finite_in_bf16": [(RoundsAway, "not finite")],
    "finite_on_background": [(ForegroundMean, "not finite")],
    "finite_with_missing_classes": [(ClassMeans, "not finite")],
    "predicts_probabilities": [(PredictsLogits, "no probabilities")],
    "observes_before_terms": [
        (NeverObserves, "names net, not observed"),
        (ObservesTwice, "net observed more than once"),
    ],
    "asks_as_declared": [(DeclaresTooMuch, "asks for label, declares label, pseudo")],
    "passes_as_documented": [
        (DeclaresTooLittle, "8, 0, 8; documented: 4, 0, 4"),
        (HidesTeacherCost, "4, 2, 4; documented: 4, 0, 4"),
    ],
}
