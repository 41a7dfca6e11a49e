"""Methods with one fault each: what the laws are there to find. Every one is a good method but for a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sslbench.core.step import Batch, Step
from sslbench.methods.base import EMA, Group, Method, Phase, StepCost, mean_logits
from sslbench.methods.bcp import BidirectionalCopyPaste
from sslbench.methods.cps import CrossPseudoSupervision
from sslbench.methods.mt import MeanTeacher
from sslbench.methods.shared.co_training import Prediction
from sslbench.methods.shared.copy_paste import Mixes, TeacherOutput
from sslbench.methods.supervised import Supervised
from sslbench.methods.uamt import UncertaintyAwareMeanTeacher


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


class ReadsItsLoss(_SupervisedPlus):
    """A weight that waits for the device in every step."""

    def more(self, logits: Tensor, labels: Tensor) -> Tensor:
        loss = logits.float().square().mean()
        return loss * float(loss.detach() < 1)


class HalvedPrediction(_SupervisedPlus):
    """A term of the resized prediction, by torch's own resizing, whose gradient on a GPU adds in any order."""

    def more(self, logits: Tensor, labels: Tensor) -> Tensor:
        halved = torch.nn.functional.interpolate(logits.float(), scale_factor=0.5, mode="trilinear")
        return halved.square().mean()


class EntropyOfProbabilities(_SupervisedPlus):
    """Binary cross-entropy of probabilities, which a GPU's autocast refuses."""

    def more(self, logits: Tensor, labels: Tensor) -> Tensor:
        p = logits.float().softmax(1)
        return torch.nn.functional.binary_cross_entropy(p, p.detach())


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


class HeldAgainstItself(CrossPseudoSupervision):
    """Every term is held against the learner's own prediction, under the peer's name."""

    def cross(self, learner: Prediction, peer: Prediction, first: int, *rest: Any) -> Tensor:
        return super().cross(learner, Prediction(peer.key, learner.logits), first, *rest)


class HeldAgainstNothing(CrossPseudoSupervision):
    """The supervised terms have no reference."""

    def supervised(self, pair: tuple[Prediction, Prediction], labels: Tensor, num_labeled: int) -> Tensor:
        return torch.stack(
            [self.loss.supervised(own.logits[:num_labeled], labels[:num_labeled], key=own.key) for own in pair]
        )


class HeldAgainstOtherPatches(CrossPseudoSupervision):
    """Patches are held against the peer's predictions of one another."""

    def cross(self, learner: Prediction, peer: Prediction, first: int, *rest: Any) -> Tensor:
        mixed = torch.cat([peer.logits[:first], peer.logits[first:].flip(0)])
        return super().cross(learner, Prediction(peer.key, mixed), first, *rest)


class HeldAgainstLabeledPatches(CrossPseudoSupervision):
    """Unlabelled patches are held against the peer's predictions of labelled ones."""

    def cross(self, learner: Prediction, peer: Prediction, first: int, *rest: Any) -> Tensor:
        mixed = torch.cat([peer.logits[first:], peer.logits[:first]])
        return super().cross(learner, Prediction(peer.key, mixed), first, *rest)


class HeldAgainstTheUnseen(MeanTeacher):
    """Consistency is with a further pass, which the loss is not shown."""

    def _consistency(self, logits: Tensor, target: Tensor, image: Tensor, step: Step) -> Tensor:
        return super()._consistency(logits, self.teacher(image).detach().softmax(1), image, step)


class AloneInVain(CrossPseudoSupervision):
    """Says that a network has no reference, which has one."""

    alone = {"a": "nobody is like it"}


class ShufflesLabels(Supervised):
    """The loss is shown the labels, and learns from those of the patch beside."""

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        labels = batch.label["weak"]
        logits = self.net(batch.image["weak"])
        self.loss.observe(step, "net", logits, labels)
        return {"loss": self.loss.supervised(logits, labels.flip(0), key="net")}


class ShiftsLabels(Supervised):
    """Labels lie a voxel beside the image."""

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        label = {view: content.roll(1, -1) for view, content in batch.label.items()}
        return super().training_step(replace(batch, label=label), step)


class PredictionsAsLabels(Supervised):
    """Calls its own classes true labels."""

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        logits = self.net(batch.image["weak"])
        self.loss.observe(step, "net", logits, batch.label["weak"])
        return {"loss": self.loss.supervised(logits, logits.argmax(1), key="net")}


class TeachesItself(CrossPseudoSupervision):
    """Learns its own labels, held against the peer as it should."""

    def cross(self, learner: Prediction, peer: Prediction, first: int, *rest: Any) -> Tensor:
        reference = self.reference(peer.key, peer.logits[first:])
        own = learner.logits[first:]
        return self.loss.ce(own, own.argmax(1), source="pseudo", key=learner.key, reference=reference)


class LearnsFromSecond(CrossPseudoSupervision):
    """Learns the peer's second choice."""

    def cross(self, learner: Prediction, peer: Prediction, first: int, *rest: Any) -> Tensor:
        other = peer.logits[first:]
        reference, second = self.reference(peer.key, other), other.topk(2, 1).indices[:, 1]
        return self.loss.ce(learner.logits[first:], second, source="pseudo", key=learner.key, reference=reference)


class TaughtByStudent(MeanTeacher):
    """The loss is shown the student's prediction as that of a second teacher."""

    def _consistency(self, logits: Tensor, target: Tensor, image: Tensor, step: Step) -> Tensor:
        other = self.student(image).detach()
        self.loss.observe(step, "other", other, torch.full_like(other[:, 0], -1, dtype=torch.int64))
        reference = "other", other.softmax(1)
        return self.loss.consistency(
            logits, lambda: (logits.softmax(1) - reference[1]).square().mean(), key="student", reference=reference
        )


class WrongHalf(BidirectionalCopyPaste):
    """The pseudo-labels of either half are pasted with the image of the other."""

    def teacher_output(self, image: Tensor, labels: Tensor, mixes: Mixes) -> TeacherOutput:
        found, (_, _, ua, ub) = super().teacher_output(image, labels, mixes), mixes.halves
        targets = found.targets.clone()
        targets[ua], targets[ub] = found.targets[ub], found.targets[ua]
        return TeacherOutput(found.logits, targets)


class ForgetsMask(UncertaintyAwareMeanTeacher):
    """A loss is not told which voxels are certain."""

    def _consistency(self, *parts: Any) -> Tensor:
        ask = self.loss.consistency
        self.loss.consistency = lambda *given, mask, **rest: ask(*given, **rest)
        try:
            return super()._consistency(*parts)
        finally:
            self.loss.consistency = ask


class InvertsMask(UncertaintyAwareMeanTeacher):
    """A loss is told which voxels are not certain."""

    def _consistency(self, *parts: Any) -> Tensor:
        ask = self.loss.consistency
        self.loss.consistency = lambda *given, mask, **rest: ask(*given, mask=~mask, **rest)
        try:
            return super()._consistency(*parts)
        finally:
            self.loss.consistency = ask


class RestingTeacher(MeanTeacher):
    """The teacher predicts in evaluation mode, which it does not say."""

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        self.teacher.eval()
        return super().training_step(batch, step)


class WakingTeacher(MeanTeacher):
    """Says that the teacher predicts in evaluation mode."""

    evaluated = {"teacher": "it is no student"}


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
    "reads_no_value": [(ReadsItsLoss, "meta")],
    "repeats_on_gpu": [(HalvedPrediction, "upsample_trilinear3d_backward")],
    "finite_in_cuda_autocast": [(EntropyOfProbabilities, "refused under autocast on a GPU")],
    "finite_on_background": [(ForegroundMean, "not finite")],
    "finite_with_missing_classes": [(ClassMeans, "not finite")],
    "predicts_probabilities": [(PredictsLogits, "no probabilities")],
    "observes_before_terms": [
        (NeverObserves, "names net, not observed"),
        (ObservesTwice, "net observed more than once"),
    ],
    "asks_as_declared": [(DeclaresTooMuch, "asks for label, declares label, pseudo")],
    "modes_as_declared": [
        (RestingTeacher, "runs in evaluation mode, which is not declared"),
        (WakingTeacher, "nothing of teacher runs in evaluation mode"),
    ],
    "referenced_as_named": [
        (HeldAgainstItself, "a term of a is held against the learner's own prediction, as b's"),
        (HeldAgainstNothing, "a term of a is held against nothing"),
        (HeldAgainstOtherPatches, "held against b's prediction of another patch (0)"),
        (HeldAgainstLabeledPatches, "held against b's prediction of another patch (0)"),
        (HeldAgainstTheUnseen, "what is no prediction of teacher in this step (patch 0)"),
        (AloneInVain, "a: declared as alone"),
    ],
    "labels_are_true": [
        (ShufflesLabels, "labels that are not those of the patch"),
        (ShiftsLabels, "net is observed with labels that no labelled patch has there"),
        (PredictionsAsLabels, "a term of net has labels that no labelled patch has there"),
    ],
    "taught_as_declared": [
        (TeachesItself, "a term of a has targets that are not the labels of b"),
        (LearnsFromSecond, "a term of a has targets that are not the labels of b"),
        (TaughtByStudent, "student learns from other; declared: teacher"),
        (WrongHalf, "a term of student has targets that are not the labels of teacher"),
    ],
    "masked_where_it_learns": [
        (ForgetsMask, "learns in a part of its mask alone"),
        (InvertsMask, "learns outside of its mask"),
    ],
    "passes_as_documented": [
        (DeclaresTooLittle, "8, 0, 8; documented: 4, 0, 4"),
        (HidesTeacherCost, "4, 2, 4; documented: 4, 0, 4"),
    ],
}
