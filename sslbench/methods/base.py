"""The contract of an SSL method, and what it is handed. A method sees tensors and returns named loss terms: no I/O,
no optimiser step, no device move."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from sslbench.core.options import NoOptions
from sslbench.core.step import Batch, Statistics, Step, Stream, View
from sslbench.losses.cross_entropy import classes_of
from sslbench.methods.ema import ema_decay, update_ema
from sslbench.networks import Network

if TYPE_CHECKING:
    from sslbench.config.job import ResolvedJob
    from sslbench.losses.base import Loss, TermKind
    from sslbench.networks.base import Decoder


M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Phase:
    """A part of the training with its own length, schedule and optimisers.

    Attributes:
        name: for logs and `Step.phase`.
        iterations: None: the recipe's.
        streams: which patches its batches hold.
        hand_on: the state that the next phase starts from: that of the best validation, or the last.
        optimizer: fresh optimisers at its start, or those of the phase before kept.
        predictors: those that validation scores; None: all of the method's.
    """

    name: str
    iterations: int | None = None
    streams: tuple[Stream, ...] = ("labeled", "unlabeled")
    hand_on: Literal["best-val", "last"] = "best-val"
    optimizer: Literal["fresh", "keep"] = "fresh"
    predictors: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Group:
    """Parameters that share an optimiser, and where it and its schedule differ from the recipe's.

    Attributes:
        parameters: of one or more modules.
        optimizer, schedule: fields of the recipe's `optimizer` and `schedule` with other values.
        heir_of: the group of the phase before with whose optimiser state it begins, where that is kept; None: the one
            of its own name. Its parameters have the same shapes in the same order.
    """

    parameters: Sequence[nn.Parameter]
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    schedule: Mapping[str, Any] = field(default_factory=dict)
    heir_of: str | None = None


@dataclass(frozen=True)
class EMA:
    """A teacher: a network that follows another as an exponential moving average (EMA) of its weights.

    Attributes:
        teacher, student: names of submodules.
        decay: a in teacher ← a·teacher + (1 - a)·student, after every step.
        warm_up: what counts in a = min(1 - 1/(n + 1), decay), so that n = 0 copies the student; None: a is constant.
        buffers: average the batch statistics too; else they are those of the teacher's own inputs.
        phase: the phase in which it moves; None: all.
    """

    teacher: str
    student: str
    decay: float
    warm_up: Literal["iteration", "epoch"] | None = "iteration"
    buffers: bool = False
    phase: str | None = None

    def decay_at(self, step: Step) -> float:
        """Return a after this step."""
        return ema_decay(self.decay, self._count(step))

    def update(self, method: nn.Module, step: Step) -> None:
        """Move the teacher."""
        teacher, student = method.get_submodule(self.teacher), method.get_submodule(self.student)
        update_ema(teacher, student, self.decay, self._count(step), self.buffers)

    def _count(self, step: Step) -> int | None:
        return None if self.warm_up is None else step.iteration if self.warm_up == "iteration" else step.epoch


@dataclass(frozen=True)
class StepCost:
    """The cost of a step: patches sent through networks, in multiples of its labelled and of its unlabelled patches.

    Attributes:
        labeled, unlabeled: forward and backward.
        labeled_forward, unlabeled_forward: forward alone.
        decoders: that read what an encoder made of a patch with gradient.
        undecoded: unlabelled ones forward and backward that no decoder reads with gradient.
    """

    labeled: float = 1
    unlabeled: float = 1
    labeled_forward: float = 0
    unlabeled_forward: float = 0
    decoders: int = 1
    undecoded: float = 0

    def patches(self, labeled: int, unlabeled: int) -> tuple[float, float]:
        """Count the patches that go (forward and backward, forward alone) in a step of so many."""
        return (
            self.labeled * labeled + self.unlabeled * unlabeled,
            self.labeled_forward * labeled + self.unlabeled_forward * unlabeled,
        )


class Build(Protocol):
    """Makes networks for a method: the recipe's or a named one, each key with its own initialisation stream."""

    def __call__(self, key: str, name: str | None = None, **options: Any) -> Network:
        """Make the network of predictor `key`, with the job's plugin attached."""
        ...

    def decoder(self, like: Network, key: str, num_classes: int | None = None, **options: Any) -> Decoder:
        """Make a further decoder for the encoder of `like`, with as many outputs or `num_classes`."""
        ...

    def module(self, key: str, make: Callable[[], M]) -> M:
        """Make any other module of a method (heads, critics) by `make()`, from the initialisation stream `key`."""
        ...

    def ema(self, network: nn.Module) -> Any:
        """Make a copy without gradient, for a teacher."""
        ...


class Method(nn.Module):
    """A training algorithm: what is predicted from which views by which networks, and which supervises which.

    Two members must be written: `training_step` and `predict`. A constructor makes the networks (`build`) after
    `super().__init__(options, build, loss, statistics)`. Everything else may be written where the default does not
    serve: of the attributes mostly `title`, `Options`, `predictors`, `views` and `defaults`, of the methods mostly
    `averages` (teachers), `phases`, `groups` and `objection`.

    `state_dict()` must hold every bit of state (teachers, thresholds, banks) and load into a fresh object.

    Attributes:
        version: raised when the same options would train differently.
        title: its row name in tables, empty: its registered name; `group`: the heading it stands under.
        caution: a sentence that goes with its results wherever they are shown; empty: none.
        Options: typed hyper-parameters, each with its source: a class that derives from `sslbench.Options`.
        defaults: recipe fields (dotted paths) that it changes.
        predictors: by name, for losses and validation; weightings serve its learners (`learners_of`).
        unlabeled_learners: learners that see no labelled patch, so that nothing there follows their Dice.
        views: the views that its batches hold, per stream.
        term_kinds: what it asks a loss for: terms with true labels, with pseudo-labels, soft consistency.
        unlabeled_weight: what scales all that it learns from unlabelled patches: the step's `consistency_weight`, or
            an option of its own; None: nothing can switch that off.
        alone: learners, or phases, whose terms are held against no other prediction whatever the loss, each with why.
        unobserved: keys of which a term's reference is not always a prediction that was observed, each with why.
        made_targets: learners whose targets are made of more than true labels or one prediction, each with why.
        taught_by: who teaches each learner, where that is not what `teachers` says by itself.
        evaluated: parts that run in evaluation mode in some pass of a step, each with why; all else trains.
        check_exemptions: laws of `sslbench check` that its definition breaks, each with the reason.
        check_settings: fields (dotted paths) that it needs where `check` tries it, on patches of 32² and 16 x 16 x 32.
    """

    version: ClassVar[int] = 1
    title: ClassVar[str] = ""
    group: ClassVar[Literal["Reference", "General", "Imbalance"]] = "General"
    caution: ClassVar[str] = ""
    Options: ClassVar[type[BaseModel]] = NoOptions
    defaults: ClassVar[Mapping[str, Any]] = {}
    predictors: tuple[str, ...] = ("net",)
    unlabeled_learners: ClassVar[tuple[str, ...]] = ()
    views: ClassVar[Mapping[Stream, tuple[View, ...]]] = {"labeled": ("weak",), "unlabeled": ("weak",)}
    term_kinds: ClassVar[tuple[TermKind, ...]] = ("label", "pseudo", "consistency")
    unlabeled_weight: ClassVar[str | None] = "consistency_weight"
    alone: ClassVar[Mapping[str, str]] = {}
    unobserved: ClassVar[Mapping[str, str]] = {}
    made_targets: ClassVar[Mapping[str, str]] = {}
    taught_by: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    evaluated: ClassVar[Mapping[str, str]] = {}
    check_exemptions: Mapping[str, str] = {}
    check_settings: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, options: BaseModel, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__()
        self.options, self.loss, self.statistics = options, loss, statistics

    @classmethod
    def objection(cls, job: ResolvedJob) -> str | None:
        """Say in one line why this job has no meaning, before anything is built; None where it has one."""
        return None

    @classmethod
    def predictors_of(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Name its predictors under these complete options, for a job that is not built yet."""
        return cls.predictors

    @classmethod
    def learners_of(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Name the learners of its terms, under these complete options: its predictors, unless others learn too."""
        return cls.predictors_of(options)

    def phases(self) -> list[Phase]:
        """Return the parts of the training, in order; one of the recipe's length unless the method says otherwise."""
        return [Phase("train")]

    def begin(self, phase: Phase) -> None:
        """Begin a phase with the state of the one before loaded: copy it to second students and teachers."""

    def groups(self, phase: Phase) -> dict[str, Group]:
        """Return the parameters to optimise; by default one group of everything with a gradient."""
        return {"networks": Group([parameter for parameter in self.parameters() if parameter.requires_grad])}

    @abstractmethod
    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Compute the terms to minimise: `loss`, or one `loss/<group>` per group, which reaches its parameters alone.

        Further entries are logged. Each is a 0-d tensor.
        """
        raise NotImplementedError

    def averages(self) -> Sequence[EMA]:
        """Name its teachers; none unless the method says otherwise."""
        return ()

    def step_cost(self, phase: Phase) -> StepCost | None:
        """Return the cost of a step of a phase, for this loss and these options; None: not said."""
        return None

    def after_step(self, step: Step) -> None:
        """Do what follows the optimisers' step: the teachers move; queues are for the method to add."""
        for average in self.averages():
            if average.phase in (None, step.phase):
                average.update(self, step)

    @abstractmethod
    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        """Compute class probabilities (B, C, *S) of an image by predictor `key`; None: by the rule of the paper."""
        raise NotImplementedError

    def truth(self, key: str, labels: Tensor) -> Tensor:
        """Return true labels (B, *S) as predictor `key` learns them: all, or those of its classes alone; -1 stays."""
        return labels

    def pseudo_labels(self, key: str, scores: Tensor) -> Tensor:
        """Return the labels (B, *S) that others learn from predictor `key`, of its logits or probabilities."""
        return classes_of(scores)

    def teachers(self) -> Mapping[str, tuple[str, ...]]:
        """Say whose predictions each learner is drawn to on pseudo-labels and soft targets: `taught_by`; of others the
        averages and the other predictors; else itself."""
        averages = tuple(average.teacher for average in self.averages())
        found = {key: averages + tuple(peer for peer in self.predictors if peer != key) for key in self.predictors}
        return {**{key: peers or (key,) for key, peers in found.items()}, **self.taught_by}

    def reference(self, key: str, logits: Tensor) -> tuple[str, Tensor] | None:
        """Return the reference of a term as losses take it: (key, probabilities) without gradient, fp32; None where the
        loss asks for none."""
        return (key, logits.detach().float().softmax(1)) if self.loss.needs_reference else None


def mean_logits(networks: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Compute softmax of the mean of networks' logits (GA and DHC inference), fp32; of several heads the first's."""
    found = [network(x) for network in networks]
    logits = [(made if isinstance(made, Tensor) else made[0]).float() for made in found]
    return torch.stack(logits).mean(0).softmax(1) if len(logits) > 1 else logits[0].softmax(1)


def no_strong_view(job: ResolvedJob) -> str | None:
    """Return the objection of a method that looks at strong views to a recipe that makes none."""
    if job.recipe.augment.strong:
        return None
    return "the recipe makes no strong view of a patch: set augment.strong, for example to [jitter]"
