"""The bench of the laws: a method with a loss on tiny networks and random volumes; no file is read or written."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from sslbench.config.job import Job
from sslbench.config.text import parse_component
from sslbench.conformance.watch import Watch
from sslbench.core import registry
from sslbench.core.randomness import reseed, torch_generator
from sslbench.core.step import Batch, Step, View
from sslbench.data.sampling import TrainingSet
from sslbench.methods.base import Method, Phase
from sslbench.networks.base import Decoder
from sslbench.training.checkpoint import Checkpoints, Snapshot
from sslbench.training.experiment import Experiment, ValidationCase, build_experiment
from sslbench.training.trainer import Interrupted, Trainer, backward

Dims = Literal["2d", "3d"]
DIMS: tuple[Dims, ...] = ("2d", "3d")
ITERATIONS = 3  # of a phase
CLASSES = 4

_COMMON = {
    "batch.labeled": 2,
    "batch.unlabeled": 2,
    "augment.strong": ["jitter"],
    "schedule.validate_every": 0,
    "checkpoint": "last",
    "precision": "fp32",
}
_RECIPES: dict[Dims, tuple[str, str, dict[str, Any]]] = {
    "2d": ("ssl4mis-acdc", "7 patients", {"patch_size": [32, 32]}),
    "3d": (
        "phantom",
        "20%",
        # Two voxels in the bottleneck: batch norm needs two values where a step sends single patches.
        {"patch_size": [16, 16, 32], "inference.stride": [16, 16, 32], "inference.validation_stride": [16, 16, 32]}
        | {"network.base_filters": 2},
    ),
}


def tiny_job(
    method: str,
    loss: str = "default",
    dims: Dims = "2d",
    set: Mapping[str, Any] | None = None,
    plugin: str | None = None,
) -> Job:
    """Make a job of seconds with the settings of a 2-D or a 3-D recipe; `set` adds to what makes it tiny."""
    recipe, labeled, small = _RECIPES[dims]
    own = registry.component("method", parse_component(method)[0]).check_settings
    chosen = {**_COMMON, **small, **own, **(set or {})}
    return Job(recipe=recipe, method=method, loss=loss, plugin=plugin, labeled=labeled, seed=0, set=chosen)


def random_experiment(
    job: Job,
    labeled: int = 3,
    unlabeled: int = 4,
    seed: int = 0,
    device: str = "cpu",
    channels: int = 1,
    classes: int = CLASSES,
) -> Experiment:
    """Put a job together on random volumes whose labels are bright blobs.

    Args:
        job: its data are not looked at.
        labeled, unlabeled: numbers of training cases; two more are for validation.
        seed: of the volumes.
        device: to train on.
        channels: of the images.
        classes: background included.
    """
    random = np.random.default_rng(seed)
    shape = (4, 30, 36) if len(job.resolved.recipe.patch_size) == 2 else (20, 18, 36)

    def case() -> tuple[np.ndarray, np.ndarray]:
        label = random.integers(0, classes, size=tuple(-(-side // 4) for side in shape))
        label = np.kron(label, np.ones((4, 4, 4), int))[tuple(slice(side) for side in shape)]
        image = label / classes + random.normal(0, 0.1, (channels, *shape))
        return image.astype(np.float32), label.astype(np.uint8)

    cases = [case() for _ in range(labeled + unlabeled + 2)]
    known, validation = cases[: labeled + unlabeled], cases[labeled + unlabeled :]
    data = TrainingSet([image for image, _ in known], [label for _, label in known[:labeled]])
    counts = np.array([np.bincount(label.ravel(), minlength=classes) for label in data.labels])
    held = [ValidationCase(str(number), *pair) for number, pair in enumerate(validation)]
    names = [str(number) for number in range(1, classes)]
    return build_experiment(job.resolved, data, counts, held, names, torch.device(device))


@dataclass(frozen=True)
class TrainedMethod:
    """A method after a training.

    Attributes:
        method: itself.
        before, after: its state.
        records: what was logged, times left out.
    """

    method: Method
    before: dict[str, Tensor]
    after: dict[str, Any]
    records: list[dict[str, Any]]


@dataclass(frozen=True)
class WatchedStep:
    """A method after a step.

    Attributes:
        method: itself.
        batch: of the step.
        watch: what it did.
        gradients: as in `Subject.gradients`.
    """

    method: Method
    batch: Batch
    watch: Watch
    gradients: dict[str, Tensor]


class Subject:
    """A method with a loss, and what laws ask of it.

    Args:
        method, loss: as a job names them.
        dims: 2-D or 3-D images.
        set: further settings of the job.
        iterations: of every phase, in trainings.
        plugin: on the method's networks; none: bare ones.

    Raises:
        UsageError: a combination without meaning.
    """

    def __init__(
        self,
        method: str,
        loss: str = "default",
        dims: Dims = "2d",
        set: Mapping[str, Any] | None = None,
        iterations: int = ITERATIONS,
        plugin: str | None = None,
    ) -> None:
        self.spelling, self.set, self.iterations = (method, loss), dict(set or {}), iterations
        self.job, self.dims = tiny_job(method, loss, dims, self.set, plugin), dims
        self.method, self.loss = self.job.resolved.job.method, self.job.resolved.job.loss
        self.plugin = self.job.resolved.job.plugin
        self._sure: dict[float, Method] = {}

    def experiment(self) -> Experiment:
        """Make a fresh experiment, its phases cut to a few iterations."""
        experiment = random_experiment(self.job)
        phases = [replace(phase, iterations=self.iterations) for phase in experiment.method.phases()]
        experiment.method.phases = lambda: phases  # type: ignore[method-assign]
        return experiment

    # ------------------------------------------------------------------------------------------------ single steps

    @cached_property
    def built(self) -> Experiment:
        """One experiment, not to be trained: for batches and for copies of its method."""
        return self.experiment()

    def fresh(self) -> Method:
        """Build the method as it begins its last phase."""
        method = copy.deepcopy(self.built.method)
        for phase in method.phases():
            method.begin(phase)
        return method

    @cached_property
    def settled(self) -> Method:
        """The method with the batch statistics of a batch, which in evaluation mode a trained network has."""
        method, image = self.fresh().train(), self.batch(self.phases()[-1]).image[self.view]
        norms = [module for module in method.modules() if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d))]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = 1.0
        reseed(0, "forward")
        with torch.no_grad():
            for key in method.predictors:
                method.predict(image, key)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        return method

    def sure(self, factor: float = 20) -> Method:
        """Build the method with networks as sure as trained ones, their heads times `factor`, none of which is a
        copy of another.

        Thresholds of confidence let nothing through an untrained network, one with the batch statistics that it began
        with names one class everywhere in evaluation mode, and a teacher or peer that is a copy agrees with its
        student: terms of either kind would be 0 without saying anything about the method.
        """
        if factor not in self._sure:
            self._sure[factor] = self._made_sure(factor)
        return copy.deepcopy(self._sure[factor])

    def _made_sure(self, factor: float) -> Method:
        method = copy.deepcopy(self.settled)
        random = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.mul_(1 + 0.05 * torch.randn(parameter.shape, generator=random))
            for module in method.modules():
                if isinstance(module, Decoder):
                    for parameter in module.head.parameters():
                        parameter.mul_(factor)
        return method

    def phases(self, unlabeled: bool = False) -> list[Phase]:
        """Return its phases; those alone that draw unlabelled patches."""
        return [phase for phase in self.built.method.phases() if not unlabeled or "unlabeled" in phase.streams]

    @property
    def view(self) -> View:
        """The view in which its labelled patches are looked at here."""
        return self.built.method.views["labeled"][0]

    def batch(self, phase: Phase) -> Batch:
        """Draw a batch of a phase, whose tensors may be written to."""
        views = [view for stream in phase.streams for view in self.built.method.views.get(stream, ())]
        return self.built.sampler.batch(0, phase.streams, tuple(dict.fromkeys(views)))

    def step(self, phase: Phase, consistency_weight: float = 1.0, iteration: int | None = None, epoch: int = 1) -> Step:
        """Make the last step of a long phase, unless said otherwise."""
        length = 100_000
        return Step(
            iteration=length - 1 if iteration is None else iteration,
            iterations=length,
            epoch=epoch,
            epochs=2,
            last_of_epoch=False,
            phase=phase.name,
            consistency_weight=torch.tensor(consistency_weight),
            generators=lambda stream, device: torch_generator(0, stream, device=device),
            logger=None,
            sweeper=self.built.sampler.sweep,
        )

    def terms(
        self,
        method: Method,
        phase: Phase,
        batch: Batch | None = None,
        consistency_weight: float = 1.0,
        bf16: bool = False,
    ) -> dict[str, Tensor]:
        """Compute the terms of a step; the same draws every time."""
        reseed(0, "forward")
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return dict(
                method.training_step(
                    self.batch(phase) if batch is None else batch, self.step(phase, consistency_weight)
                )
            )

    def gradients(
        self,
        method: Method,
        phase: Phase,
        batch: Batch | None = None,
        consistency_weight: float = 1.0,
        bf16: bool = False,
    ) -> dict[str, Tensor]:
        """Compute the gradient of a step in every parameter that it reaches, and the values of its losses."""
        method.zero_grad()
        return _gradients(method, phase, self.terms(method, phase, batch, consistency_weight, bf16))

    def reached(self, method: Method, key: str, phase: Phase) -> set[str]:
        """Return names of the parameters that the predictor `key` is made of."""
        method.zero_grad()
        image = self.batch(phase).image[self.view][:2]
        probabilities = method.predict(image, key)
        if not probabilities.requires_grad:
            return set()
        probabilities.square().sum().backward()
        return {name for name, parameter in method.named_parameters() if parameter.grad is not None}

    @cached_property
    def watched(self) -> dict[str, WatchedStep]:
        """Take, by phase, a step of the sure method with every term on."""
        return {phase.name: self._watched(self.sure().train(), phase) for phase in self.phases()}

    @cached_property
    def referenced(self) -> dict[str, WatchedStep]:
        """Take the same under a loss that needs a reference, as far as the method can tell."""
        if self.built.method.loss.needs_reference:
            return self.watched
        found = {}
        for phase in self.phases():
            method = self.sure().train()
            method.loss.needs_reference = True
            found[phase.name] = self._watched(method, phase)
        return found

    def _watched(self, method: Method, phase: Phase) -> WatchedStep:
        watch, batch = Watch(method), self.batch(phase)
        terms = self.terms(method, phase, batch)
        watch.stop()
        return WatchedStep(method, batch, watch, _gradients(method, phase, terms))

    @cached_property
    def gradient(self) -> dict[str, dict[str, Tensor]]:
        """By phase, the gradients of a step of the sure method with every term on."""
        return {name: step.gradients for name, step in self.watched.items()}

    @cached_property
    def silenced(self) -> Subject | None:
        """The same with nothing to learn from unlabelled patches, where an option says so."""
        weight = self.built.method.unlabeled_weight
        if weight in (None, "consistency_weight"):
            return None
        return Subject(*self.spelling, self.dims, {**self.set, f"method.{weight}": 0}, plugin=self.plugin)

    # ------------------------------------------------------------------------------------------------- trainings

    def train(self, stops: Sequence[int] = ()) -> TrainedMethod:
        """Train all phases, stopped and taken up again by a fresh object before each iteration of `stops`."""
        checkpoints, records = MemoryCheckpoints(), MemoryRecorder()
        before: dict[str, Tensor] | None = None
        for stop in (*stops, None):
            experiment = self.experiment()
            before = before or copy.deepcopy(experiment.method.state_dict())
            trainer = Trainer(experiment, checkpoints, records)
            if stop is not None:
                trainer.should_stop = _Countdown(stop - checkpoints.iterations)
            try:
                trainer.fit()
            except Interrupted:
                continue
        return TrainedMethod(trainer.method, before or {}, copy.deepcopy(trainer.method.state_dict()), records.entries)

    @cached_property
    def trained(self) -> TrainedMethod:
        """One training from start to end."""
        return self.train()


def _gradients(method: Method, phase: Phase, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    backward(terms, method.groups(phase))
    losses = {name: value.detach() for name, value in terms.items() if is_loss(name)}
    return losses | {
        name: parameter.grad.clone() for name, parameter in method.named_parameters() if parameter.grad is not None
    }


def is_loss(term: str) -> bool:
    """Tell whether a term of a step is one of its losses: `loss`, or `loss/<group>`."""
    return term.split("/")[0] == "loss"


class MemoryCheckpoints(Checkpoints):
    """Checkpoints in memory, written and read as those on disk are: nothing but tensors and plain values."""

    def __init__(self) -> None:
        super().__init__(Path())
        self.iterations = 0
        self._latest: bytes | None = None
        self._best: dict[str, bytes] = {}

    def save(
        self,
        state: Mapping[str, Any],
        step: int,
        best: Mapping[str, Snapshot] | None = None,
        needed: Sequence[str] = (),
    ) -> None:
        self._latest, self.iterations = packed(state), step
        self._best |= {name: packed(weights.content()) for name, weights in (best or {}).items()}

    def load(self) -> dict[str, Any] | None:
        return None if self._latest is None else unpacked(self._latest)

    def load_best(self, name: str) -> dict[str, Any]:
        return unpacked(self._best[name])


def packed(state: Mapping[str, Any]) -> bytes:
    """Pack a state as a checkpoint holds it."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def unpacked(content: bytes) -> dict[str, Any]:
    """Unpack what `packed` wrote; whatever is neither a tensor nor a plain value is refused."""
    found: dict[str, Any] = torch.load(io.BytesIO(content), weights_only=True)
    return found


class MemoryRecorder:
    """A recorder that keeps what it is told, times apart."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.messages: list[str] = []

    def record(self, entry: Mapping[str, Any]) -> None:
        self.entries.append({key: value for key, value in entry.items() if key != "it_per_s"})

    def rewind(self, iteration: int) -> None:
        self.entries = [entry for entry in self.entries if entry["iteration"] <= iteration]

    def message(self, text: str) -> None:
        self.messages.append(text)


class _Countdown:
    """Says stop after so many iterations."""

    def __init__(self, iterations: int) -> None:
        self.left = iterations

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0
