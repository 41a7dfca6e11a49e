"""The laws: each a function that says nothing where it holds and raises `Broken` where it does not."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from sslbench.conformance.bench import Dims, Subject, TrainedMethod, WatchedStep, is_loss, packed, unpacked
from sslbench.conformance.device import kernels, predictions_without_values, step_without_values
from sslbench.conformance.watch import TOLERANCE, Shown, WatchedTerm
from sslbench.core.errors import SSLBenchError
from sslbench.core.step import Batch
from sslbench.methods.base import EMA, Method, Phase
from sslbench.networks.autocast import CudaAutocast
from sslbench.training.trainer import backward


class Broken(Exception):
    """A law does not hold; the message says where."""


class Irrelevant(Exception):
    """A law has nothing to say about this method; the message says why."""


@dataclass(frozen=True)
class Verdict:
    """The result of a law.

    Attributes:
        law: its name.
        method, loss, dims: what it was tried on.
        status: `holds`, `broken`, `exempt` (the method says that it breaks it, and why) or `irrelevant`.
        reason: why, unless it holds.
        plugin: on the networks; none: bare ones.
    """

    law: str
    method: str
    loss: str
    dims: Dims
    status: Literal["holds", "broken", "exempt", "irrelevant"]
    reason: str = ""
    plugin: str | None = None

    def to_json(self) -> dict[str, str | None]:
        """As plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Law:
    """A law.

    Attributes:
        name: its slug.
        statement: one line.
        try_on: raises `Broken` or `Irrelevant`.
        losses: whether it is about what a loss does too, and so worth trying with every loss.
        exemptible: whether a method may declare that its definition breaks it.
    """

    name: str
    statement: str
    try_on: Callable[[Subject], None]
    losses: bool = False
    exemptible: bool = False

    def judge(self, subject: Subject) -> Verdict:
        """Try it on a subject."""
        status, reason = self._judge(subject)
        return Verdict(self.name, subject.method, subject.loss, subject.dims, status, reason, subject.plugin)

    def _judge(self, subject: Subject) -> tuple[Literal["holds", "broken", "exempt", "irrelevant"], str]:
        exempt = subject.built.method.check_exemptions.get(self.name)
        if exempt and self.exemptible:
            return "exempt", exempt
        try:
            self.try_on(subject)
        except Irrelevant as reason:
            return "irrelevant", str(reason)
        except (Broken, SSLBenchError) as reason:
            return "broken", str(reason).splitlines()[0]
        except Exception as error:  # a method that stops with an error keeps no law
            return "broken", f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
        return "holds", ""


LAWS: dict[str, Law] = {}


def law(
    statement: str, losses: bool = False, exemptible: bool = False
) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    """Add the decorated function to `LAWS` under its own name."""

    def add(try_on: Callable[[Subject], None]) -> Callable[[Subject], None]:
        LAWS[try_on.__name__] = Law(try_on.__name__, statement, try_on, losses, exemptible)
        return try_on

    return add


# ------------------------------------------------------------------------------------------------------- gradients


@law("Unlabelled patches move every predictor: without them its gradient is another.", losses=True)
def learns_from_unlabeled(subject: Subject) -> None:
    for phase in _unlabeled_phases(subject):
        with_them = subject.gradient[phase.name]
        without = _without_unlabeled(subject, subject.sure().train(), phase)
        method = subject.sure().train()
        for key in method.predictors:
            names = subject.reached(method, key, phase)
            if not names:
                raise Broken(f"predict() of '{key}' takes no gradient")
            if all(_same(with_them.get(name), without.get(name)) for name in names):
                raise Broken(f"phase {phase.name}: '{key}' learns nothing from unlabelled patches")


@law("No gradient reaches a teacher, and no optimiser has its parameters.", losses=True)
def teacher_untouched(subject: Subject) -> None:
    averages = _averages(subject)
    method = subject.sure()
    for phase in subject.phases():
        reached = subject.gradient[phase.name]
        optimised = {id(p) for group in method.groups(phase).values() for p in group.parameters}
        for average in averages:
            for name, parameter in method.get_submodule(average.teacher).named_parameters(average.teacher):
                if name in reached:
                    raise Broken(f"phase {phase.name}: a gradient reaches {name}")
                if id(parameter) in optimised:
                    raise Broken(f"phase {phase.name}: an optimiser has {name}")


@law("With the unlabelled weight at 0 unlabelled images change no gradient (batch statistics aside).", exemptible=True)
def blind_at_zero(subject: Subject) -> None:
    _unweighted(subject)
    for phase in _unlabeled_phases(subject):
        batch, other = subject.batch(phase), subject.batch(phase)
        for image in other.image.values():
            image[other.num_labeled :] = image[other.num_labeled :].flip(0, -1) * 0.5 + 0.1
        # Evaluation mode: batch statistics, which mix the patches, are then the running ones.
        seen, blind = (_without_unlabeled(subject, subject.sure().eval(), phase, patches) for patches in (batch, other))
        for name in seen.keys() | blind.keys():
            if not is_loss(name) and not _same(seen.get(name), blind.get(name)):
                raise Broken(f"phase {phase.name}: other unlabelled images change the gradient of {name}")


@law("With the unlabelled weight at 0 the gradients are those of supervised training.", exemptible=True)
def supervised_at_zero(subject: Subject) -> None:
    if subject.built.method.loss.needs_reference:
        raise Irrelevant("the loss holds labelled patches against a reference that supervised training does not have")
    _unweighted(subject)
    for phase in _unlabeled_phases(subject):
        # Heads as they began: log p of a surer network is too often that of 0.
        found = _without_unlabeled(subject, subject.sure(1).eval(), phase)
        method, batch = subject.sure(1).eval(), subject.batch(phase)
        L, labels = batch.num_labeled, batch.label[subject.view]
        step = subject.step(phase)
        total = torch.zeros(())
        for key in method.predictors:
            logits = method.predict(
                batch.image[subject.view][:L], key
            ).log()  # softmax(log p) is p: as good as the logits
            truth = method.truth(key, labels[:L])
            method.loss.observe(step, key, logits, truth)
            total = total + method.loss.supervised(logits, truth, key=key)
        total.backward()
        expected = {name: parameter.grad for name, parameter in method.named_parameters() if parameter.grad is not None}
        _compare(expected, found, f"phase {phase.name}: not the supervised gradient in")


@law("Labels of unlabelled patches cannot be reached: poisoned, they change nothing.")
def unlabeled_labels_unreachable(subject: Subject) -> None:
    if subject.loss != "default":
        raise Irrelevant("a loss tells labelled patches by their labels: tried with `default`")
    _unweighted(subject)
    for phase in _unlabeled_phases(subject):
        poisoned = subject.batch(phase)
        for label in poisoned.label.values():
            label[poisoned.num_labeled :] = torch.arange(label[0].numel()).view(label[0].shape) % 3
        found = subject.gradients(subject.sure().train(), phase, poisoned)
        expected = subject.gradient[phase.name]
        for name in expected.keys() | found.keys():
            if not _same(expected.get(name), found.get(name)):
                raise Broken(f"phase {phase.name}: labels of unlabelled patches change the gradient of {name}")


# -------------------------------------------------------------------------------------------------------- teachers


@law("A teacher is the closed form of its average; buffers are averaged, or left alone, as declared.")
def ema_closed_form(subject: Subject) -> None:
    for average in _averages(subject):
        for phase in subject.phases():
            moves = average.phase in (None, phase.name)
            _follow(subject, average, phase, moves)


def _follow(subject: Subject, average: EMA, phase: Phase, moves: bool) -> None:
    """Move a student at will and hold its teacher against Σ_n (1 - a_n) Π_{m>n} a_m student_n + Π_n a_n teacher_0."""
    method, steps = subject.fresh(), 5
    teacher, student = method.get_submodule(average.teacher), method.get_submodule(average.student)
    draw = torch.Generator().manual_seed(1)
    start = _copy(teacher)
    history: list[dict[str, Tensor]] = []
    decays: list[float] = []
    for number in range(steps):
        with torch.no_grad():
            for tensor in [*student.parameters(), *student.buffers()]:
                tensor.copy_(torch.rand(tensor.shape, generator=draw) * 10)
        step = subject.step(phase, iteration=number, epoch=3 * number)
        counts = {"iteration": step.iteration, "epoch": step.epoch}
        decays.append(min(1 - 1 / (counts[average.warm_up] + 1), average.decay) if average.warm_up else average.decay)
        history.append(_copy(student))
        method.after_step(step)
    found, buffers = _copy(teacher), dict(teacher.named_buffers())
    for name, value in found.items():
        if not value.dtype.is_floating_point:
            continue  # counters: fp32 and cast back, where they are averaged
        expected = start[name].double()
        if moves and (name not in buffers or average.buffers):
            expected = expected * float(np.prod(decays))
            for n, state in enumerate(history):
                expected = expected + (1 - decays[n]) * float(np.prod(decays[n + 1 :])) * state[name].double()
        if not torch.allclose(value.double(), expected, rtol=1e-5, atol=1e-5):
            what = "is not the average of" if moves else f"moves in phase {phase.name} with"
            raise Broken(f"{average.teacher}.{name} {what} {average.student}.{name}")


@law(
    "After a training every parameter has moved, by an optimiser or as an average; no gradient reaches `unused` ones.",
    exemptible=True,
)
def every_parameter_moves(subject: Subject) -> None:
    trained = subject.trained
    names: list[str] = []
    for name, _ in subject.built.method.named_parameters():
        if "unused" not in name.split("."):  # networks.base.unused
            names.append(name)
        elif any(name in reached for reached in subject.gradient.values()):
            raise Broken(f"a gradient reaches {name}")
    still = [name for name in names if torch.equal(trained.before[name], trained.after[name])]
    if still:
        raise Broken(f"{len(still)} of {len(names)} parameters never move, {still[0]} for one")


# ------------------------------------------------------------------------------------------- determinism and resume


@law("The same job gives the same numbers, whatever was drawn before.", losses=True)
def deterministic(subject: Subject) -> None:
    first = subject.trained
    for anew in (torch.seed, np.random.seed, random.seed):
        anew()
    _identical(first, subject.train(), "a second training differs in")


@law("Stopped at any iteration and taken up by a fresh object, a training ends as if never stopped.")
def resumes_exactly(subject: Subject) -> None:
    total = subject.iterations * len(subject.phases())
    _identical(subject.trained, subject.train(range(1, total)), "the resumed training differs in")


@law("State is tensors and plain values, loads into a fresh object, and predicts alike there.")
def state_round_trips(subject: Subject) -> None:
    fresh, trained = subject.fresh().eval(), subject.trained
    fresh.load_state_dict(unpacked(packed({"method": trained.after}))["method"])
    again = fresh.state_dict()
    for name, value in trained.after.items():
        if not _equal(value, again[name]):
            raise Broken(f"{name} is not loaded")
    image = subject.batch(subject.phases()[-1]).image[subject.view]
    with torch.no_grad():
        for key in (None, *fresh.predictors):
            if not torch.equal(trained.method.eval().predict(image, key), fresh.predict(image, key)):
                raise Broken(f"predict(x, {key!r}) differs in a fresh object that has the state")


# ---------------------------------------------------------------------------------------------------------- finiteness


@law("Losses and gradients are finite under bf16.", losses=True)
def finite_in_bf16(subject: Subject) -> None:
    for phase in subject.phases():
        _finite(subject.gradients(subject.sure().train(), phase, bf16=True), phase)


@law("Losses and gradients are finite where labelled patches hold background alone.", losses=True)
def finite_on_background(subject: Subject) -> None:
    _finite_with_labels(subject, lambda label: 0)


@law("Losses and gradients are finite where classes are missing.", losses=True)
def finite_with_missing_classes(subject: Subject) -> None:
    _finite_with_labels(subject, lambda label: label.clamp_max(1))


def _finite_with_labels(subject: Subject, change: Callable[[Tensor], Any]) -> None:
    for phase in subject.phases():
        batch = subject.batch(phase)
        for label in batch.label.values():
            label[: batch.num_labeled] = change(label[: batch.num_labeled])
        _finite(subject.gradients(subject.sure().train(), phase, batch), phase)


# ------------------------------------------------------------------------------------------------------------- a GPU


@law(
    "On a GPU nothing waits: steps and predictions read no value and mix no devices (tried on torch's meta device).",
    losses=True,
)
def reads_no_value(subject: Subject) -> None:
    for phase in subject.phases():
        method = subject.fresh().train()
        method.begin(phase)
        step_without_values(method, phase, subject.batch(phase), subject.step(phase), backward)
    predictions_without_values(subject.fresh(), subject.batch(subject.phases()[-1]).image[subject.view])


@law("Every kernel that a step asks of a GPU repeats to the bit, as far as torch documents it.", losses=True)
def repeats_on_gpu(subject: Subject) -> None:
    for phase in subject.phases():
        method = subject.fresh().train()
        method.begin(phase)
        with kernels() as noted:
            step_without_values(method, phase, subject.batch(phase), subject.step(phase), backward)
        if noted.refused:
            raise Broken(f"phase {phase.name}: {_listed(noted.refused)}: no form that repeats")


@law(
    "Under a GPU's autocast, whose rules differ from a CPU's, losses and gradients are finite and nothing is refused.",
    losses=True,
)
def finite_in_cuda_autocast(subject: Subject) -> None:
    for phase in subject.phases():
        with CudaAutocast():
            _finite(subject.gradients(subject.sure().train(), phase, bf16=True), phase)


# ------------------------------------------------------------------------------------------------------- the contract


@law("Every predictor gives class probabilities (B, C, *S) that sum to 1.")
def predicts_probabilities(subject: Subject) -> None:
    method = subject.fresh().eval()
    image = subject.batch(subject.phases()[-1]).image[subject.view]
    C = subject.built.num_classes
    with torch.no_grad():
        for key in (None, *method.predictors):
            found = method.predict(image, key)
            if found.shape != (len(image), C, *image.shape[2:]):
                raise Broken(f"predict(x, {key!r}) has shape {tuple(found.shape)}")
            if not (found >= 0).all() or not torch.allclose(found.sum(1), torch.ones(()), atol=1e-5):
                raise Broken(f"predict(x, {key!r}) gives no probabilities")


@law("What a term names, learner and reference, was observed in its step before, and once.", losses=True)
def observes_before_terms(subject: Subject) -> None:
    for phase in subject.phases():
        watch = subject.watched[phase.name].watch
        if watch.unobserved:
            raise Broken(f"phase {phase.name}: a term names {_listed(watch.unobserved)}, not observed before")
        if twice := {key for key in watch.observed if watch.observed.count(key) > 1}:
            raise Broken(f"phase {phase.name}: {_listed(twice)} observed more than once")


@law("The kinds of terms that it asks a loss for are those that it declares.")
def asks_as_declared(subject: Subject) -> None:
    asked = {term.kind for step in subject.watched.values() for term in step.watch.terms}
    declared = set(subject.built.method.term_kinds)
    if asked != declared:
        raise Broken(f"asks for {_listed(asked)}, declares {_listed(declared)}")


@law("Patches go through its networks, forward and backward, as often as it documents.", losses=True)
def passes_as_documented(subject: Subject) -> None:
    for phase in subject.phases():
        documented = subject.built.method.step_cost(phase)
        if documented is None:
            raise Irrelevant("it documents none")
        step = subject.watched[phase.name]
        batch, B = step.batch, len(step.batch.index)
        patch = batch.image[subject.view][0, 0].numel()
        found = tuple(step.watch.voxels[name] / patch for name in ("trained", "untrained", "decoded"))
        trained, untrained = documented.patches(batch.num_labeled, B - batch.num_labeled)
        decoded = (trained - documented.undecoded * (B - batch.num_labeled)) * documented.decoders
        expected = (trained, untrained, decoded)
        if found != expected:
            told, said = (", ".join(f"{number:g}" for number in numbers) for numbers in (found, expected))
            raise Broken(
                f"phase {phase.name}: patches encoded with gradient, without, decoded with: {told}; documented: {said}"
            )


@law("Batch norm and dropout run in training mode in a step, but for what is declared as `evaluated`, which does not.")
def modes_as_declared(subject: Subject) -> None:
    declared = subject.built.method.evaluated
    found = {layer for step in subject.watched.values() for layer in step.watch.evaluated}
    for layer in sorted(found):
        if not any(_within(layer, part) for part in declared):
            raise Broken(f"{layer} runs in evaluation mode, which is not declared")
    for part in declared:
        if not any(_within(layer, part) for layer in found):
            raise Broken(f"nothing of {part} runs in evaluation mode, which is declared")


def _within(layer: str, part: str) -> bool:
    return f"{layer}.".startswith(f"{part}.")


# ------------------------------------------------------------------------------------------ what terms are held against


@law(
    "Where a loss needs references every term has one: a prediction, patch by patch, that the key it names was observed"
    " with in this step, and not the learner's own."
)
def referenced_as_named(subject: Subject) -> None:
    alone = subject.built.method.alone
    unused = {*alone}
    for name, step in subject.referenced.items():
        for term in step.watch.terms:
            if term.reference is None:
                if not {term.key, name} & {*alone}:
                    raise Broken(f"phase {name}: a term of {term.key} is held against nothing")
                unused -= {term.key, name}
            else:
                _held(step, term, f"phase {name}: a term of {term.key}")
    if unused:
        raise Broken(f"{_listed(unused)}: declared as alone, and not found so")


def _held(step: WatchedStep, term: WatchedTerm, what: str) -> None:
    assert term.reference is not None
    peer, probabilities = term.reference
    own = term.logits.float().softmax(1)
    if probabilities.shape != own.shape:
        raise Broken(f"{what}: {tuple(own.shape)} is held against {tuple(probabilities.shape)}")
    for number, (mine, reference) in enumerate(zip(own, probabilities, strict=True)):
        if (mine - reference).abs().max() < TOLERANCE:
            raise Broken(f"{what} is held against the learner's own prediction, as {peer}'s")
        if peer in step.method.unobserved:
            continue
        there = step.watch.shown[peer].places(reference)
        if not there:
            raise Broken(f"{what} is held against what is no prediction of {peer} in this step (patch {number})")
        here = step.watch.shown[term.key].places(mine)
        if here and not any(_alike(step, term.key, i, peer, j) for i in here for j in there):
            raise Broken(f"{what} is held against {peer}'s prediction of another patch ({number})")


def _alike(step: WatchedStep, learner: str, i: int, peer: str, j: int) -> bool:
    """Tell whether patch i of what was shown of one key may be patch j of another's: at the same place of the batch
    where both were shown equally many, else of its half, as far as one can tell."""
    sizes = [len(step.watch.shown[key].logits) for key in (learner, peer)]
    return (i - j) % (len(step.batch.index) if sizes[0] == sizes[1] else step.batch.num_labeled) == 0


@law(
    "Targets of terms with true labels, and labels that the loss is shown, are those of the patches that are predicted."
)
def labels_are_true(subject: Subject) -> None:
    for name, step in subject.referenced.items():
        for key, shown in step.watch.shown.items():
            _true(step, key, shown.labels, shown.labels >= 0, f"phase {name}: {key} is observed with labels")
        for term in step.watch.terms:
            if term.kind != "label" or term.key in step.method.made_targets:
                continue
            assert term.target is not None
            inside = torch.ones_like(term.target, dtype=torch.bool) if term.mask is None else term.mask
            what = f"phase {name}: a term of {term.key} has labels"
            _true(step, term.key, term.target, inside, what)
            shown = step.watch.shown[term.key]
            for mine, target, part in zip(term.logits.float().softmax(1), term.target, inside, strict=True):
                theirs = [shown.labels[place] for place in shown.places(mine)]
                if theirs and all((part & (known >= 0) & (known != target)).any() for known in theirs):
                    raise Broken(f"{what} that are not those of the patch")


def _true(step: WatchedStep, key: str, labels: Tensor, inside: Tensor, what: str) -> None:
    """Hold labels (B, *S) against true ones: at every voxel inside they are those of some labelled patch there, so that
    patches pasted into each other are true too."""
    known = torch.cat([step.method.truth(key, label[: step.batch.num_labeled]) for label in step.batch.label.values()])
    found = (labels.unsqueeze(1) == known).any(1)
    if not found[inside].all():
        raise Broken(f"{what} that no labelled patch has there")


@law("Pseudo-labels are the classes of the reference's prediction, and references are of those who are to teach.")
def taught_as_declared(subject: Subject) -> None:
    found: dict[str, set[str]] = {}
    for name, step in subject.referenced.items():
        for term in step.watch.terms:
            if term.kind != "label" and term.reference is not None:
                found.setdefault(term.key, set()).add(term.reference[0])
                if term.target is not None and term.key not in step.method.made_targets:
                    _taught(step, term, f"phase {name}: a term of {term.key}")
    if not found:
        raise Irrelevant("no pseudo-label or soft target passes through its loss")
    declared = subject.built.method.teachers()
    for learner, peers in found.items():
        if peers != {*declared.get(learner, ())}:
            said = _listed(declared.get(learner, ()))
            raise Broken(f"{learner} learns from {_listed(peers)}; declared: {said}")


def _taught(step: WatchedStep, term: WatchedTerm, what: str) -> None:
    assert term.reference is not None and term.target is not None
    peer, probabilities = term.reference
    nobody = Shown(probabilities[:0], term.target[:0])
    shown = nobody if peer in step.method.unobserved else step.watch.shown.get(peer, nobody)
    for reference, target in zip(probabilities, term.target, strict=True):
        if target.is_floating_point():
            if (target - reference).abs().max() > TOLERANCE:
                raise Broken(f"{what} has targets that are not the probabilities of {peer}")
            continue
        # Of logits, where they are known: two of them may have one probability.
        places = sorted(shown.places(reference))
        made = [shown.logits[place] for place in places] or [reference]
        if not any(torch.equal(step.method.pseudo_labels(peer, one[None])[0], target) for one in made):
            raise Broken(f"{what} has targets that are not the labels of {peer}")


@law("The mask that a soft consistency is handed is where the method's own term has a gradient.")
def masked_where_it_learns(subject: Subject) -> None:
    found = False
    for name, step in subject.watched.items():
        for term in step.watch.terms:
            if term.drawn is None:
                continue
            found = True
            mask = torch.ones_like(term.drawn) if term.mask is None else term.mask
            if (term.drawn & ~mask).any():
                raise Broken(f"phase {name}: the own term of {term.key} learns outside of its mask")
            certain = term.logits.float().softmax(1).amax(1) > 0.999  # there a softmax has hardly a gradient itself
            if (mask & ~term.drawn & ~certain).any():
                raise Broken(f"phase {name}: the own term of {term.key} learns in a part of its mask alone")
    if not found:
        raise Irrelevant("it asks for no soft consistency of the logits it hands over")


# ------------------------------------------------------------------------------------------------------------- pieces


def _unlabeled_phases(subject: Subject) -> list[Phase]:
    phases = subject.phases(unlabeled=True)
    if not phases:
        raise Irrelevant("it draws no unlabelled patches")
    return phases


def _unweighted(subject: Subject) -> None:
    if subject.job.resolved.weightings:
        raise Irrelevant("a weighting follows unlabelled patches, which it tells by their labels: tried without")


def _averages(subject: Subject) -> list[EMA]:
    averages = list(subject.built.method.averages())
    if not averages:
        raise Irrelevant("it has no teacher")
    return averages


def _without_unlabeled(subject: Subject, method: Method, phase: Phase, batch: Batch | None = None) -> dict[str, Tensor]:
    """Compute the gradients with the unlabelled weight at 0."""
    if method.unlabeled_weight is None:
        raise Irrelevant("nothing switches its unlabelled terms off")
    if subject.silenced is not None:
        method.options = subject.silenced.built.method.options
    return subject.gradients(method, phase, batch, consistency_weight=0.0)


def _finite(gradients: Mapping[str, Tensor], phase: Phase) -> None:
    for name, value in gradients.items():
        if not torch.isfinite(value).all():
            raise Broken(f"phase {phase.name}: {name} is not finite")


def _compare(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], message: str) -> None:
    """Gradients up to rounding, 10⁻⁴ of their largest entry; one that is not there counts as 0."""
    for name in expected.keys() | found.keys():
        if is_loss(name):
            continue
        left, right = (part.get(name) for part in (expected, found))
        zero = torch.zeros_like(left if left is not None else right)  # type: ignore[arg-type]
        left, right = (zero if side is None else side for side in (left, right))
        if not torch.allclose(left, right, rtol=1e-4, atol=1e-6 + 1e-4 * float(left.abs().max())):
            raise Broken(f"{message} {name}")


def _same(left: Tensor | None, right: Tensor | None) -> bool:
    if left is None or right is None:
        present = right if left is None else left
        return present is None or not present.any()
    return torch.equal(left, right)


def _identical(first: TrainedMethod, second: TrainedMethod, message: str) -> None:
    if first.after.keys() != second.after.keys():
        raise Broken(f"{message} the names of its state")
    for name, value in first.after.items():
        if not _equal(value, second.after[name]):
            raise Broken(f"{message} {name}")
    if first.records != second.records:
        raise Broken(f"{message} what was logged")


def _equal(left: Any, right: Any) -> bool:
    """Tell whether two states are the same, bit for bit; an extra state may be any nest of plain values."""
    if isinstance(left, Tensor):
        return isinstance(right, Tensor) and left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, Mapping):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(left == right)


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in [*module.named_parameters(), *module.named_buffers()]}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
