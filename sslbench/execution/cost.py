"""The cost of trainings before they start: floating-point operations counted on networks without weights, iterations
that finished runs of this machine measured, space for checkpoints."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from sslbench.config.job import Job, ResolvedJob
from sslbench.config.kept_jobs import is_ours
from sslbench.config.scaling import scheduled
from sslbench.config.splits import load_splits
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError
from sslbench.core.kept import kept
from sslbench.core.step import Statistics
from sslbench.execution.measured import MeasuredRate, measured_rate
from sslbench.execution.tally import META, Products, size_of, unfilled
from sslbench.execution.trained import recorded_job
from sslbench.losses.compose import build_loss
from sslbench.methods.base import Method, Phase, StepCost
from sslbench.networks import Network
from sslbench.networks.base import Features
from sslbench.plugins.base import Attached, Plugin
from sslbench.runs.directory import RUNS, Run, runs_below
from sslbench.runs.provenance import device_name
from sslbench.training.checkpoint import Selection
from sslbench.training.experiment import Builder, build_method

# Operations a second that trainings keep up, where no run of this machine says it: of an H100, and of a core with
# AVX-512. Assumptions, not measurements.
SUSTAINED: Mapping[str, float] = {"cuda": 40e12, "cpu": 50e9}

_RUNS_OF_A_KIND = 3  # finished runs that are read for the pace of a kind
_KINDS = 12  # that are read for the rate of the machine
MOMENTS = {"sgd": 1, "adam": 2, "adamw": 2}  # numbers that an optimiser keeps for each parameter
_PACE, _ITERATION = re.compile(r'"it_per_s": ([\d.]+)'), re.compile(r'"iteration": (\d+)')


@dataclass(frozen=True)
class PassCost:
    """Operations (multiplication and addition are two) of one patch through a network and its main decoder.

    Attributes:
        encoder, decoder: forward and backward.
        encoder_forward, decoder_forward: forward alone.
    """

    encoder: float
    decoder: float
    encoder_forward: float
    decoder_forward: float

    @property
    def trained(self) -> float:
        """Forward and backward through both."""
        return self.encoder + self.decoder

    def step(self, cost: StepCost, labeled: int, unlabeled: int) -> float:
        """Count the operations of a step with so many patches."""
        trained, forward = cost.patches(labeled, unlabeled)
        undecoded = cost.undecoded * unlabeled
        return (
            trained * self.encoder
            + (trained - undecoded) * cost.decoders * self.decoder
            + undecoded * self.decoder_forward
            + forward * (self.encoder_forward + self.decoder_forward)
        )

    def encoded(self, trained: float, forward: float) -> float:
        """Count the operations of patches that go through the encoder alone."""
        return trained * self.encoder + forward * self.encoder_forward


@dataclass(frozen=True)
class Estimate:
    """The cost of one job's training.

    Attributes:
        iterations: of all its phases.
        flop: operations of the passes through its networks that it and its plugin document; further heads, critics,
            losses, validation and test come on top. None: it documents none.
        bytes: of the checkpoints that it leaves, about.
    """

    iterations: int
    flop: float | None
    bytes: int


class Estimator:
    """Estimates jobs; methods alike in all that matters are built once."""

    def __init__(self) -> None:
        self._known: dict[str, _Facts] = {}

    def of(self, resolved: ResolvedJob) -> Estimate:
        """Estimate a job; its data need not be there."""
        if not is_ours(resolved):
            return self._counted(resolved)
        found = kept(
            "estimate", [resolved.digest, resolved.recipe.checkpoints], lambda: asdict(self._counted(resolved))
        )
        return Estimate(**(found or {}))

    def _counted(self, resolved: ResolvedJob) -> Estimate:
        recipe, batch = resolved.recipe, resolved.recipe.batch
        facts = self._facts(resolved)
        lengths = [phase.iterations or recipe.schedule.iterations for phase in facts.phases]
        flop: float | None = 0.0
        for phase, length, step in zip(facts.phases, lengths, facts.steps, strict=True):
            if step is None or not facts.networks or flop is None:
                flop = None
                continue
            labeled, unlabeled = (
                getattr(batch, stream) if stream in phase.streams else 0 for stream in ("labeled", "unlabeled")
            )
            # What goes through several networks goes through each alike.
            flop += length * fmean(network.step(step, labeled, unlabeled) for network in facts.networks)
            flop += length * sum(
                network.encoded(*plugin.encoded(labeled, unlabeled)) for network, plugin in facts.plugins
            )
        # Two generations, and the best weights of each candidate where there is a validation.
        best = Selection.of(recipe, facts.predictors).candidates if recipe.schedule.validate_every else ()
        optimizer = MOMENTS[recipe.optimizer.name] * facts.learned
        return Estimate(sum(lengths), flop, 2 * (facts.state + optimizer) + len(best) * facts.state)

    def _facts(self, resolved: ResolvedJob) -> _Facts:
        recipe, statistics = resolved.recipe, statistics_of(resolved)
        loss = build_loss(resolved.loss, recipe.criteria, statistics, {})
        parts = [resolved.method, resolved.plugin, loss.needs_reference, recipe.dataset]
        made = [recipe.network.model_dump(), recipe.patch_size, recipe.batch.model_dump()]
        key = json.dumps([parts, made], sort_keys=True, default=str)
        if key not in self._known:
            try:
                self._known[key] = _built(resolved, statistics)
            except Exception:  # a method may ask its numbers for more than those of no weight and no data can say
                self._known[key] = _UNKNOWN
        return self._known[key]


@dataclass(frozen=True)
class _Facts:
    """A method without weights: its phases with the cost of a step, what a patch costs in each of its networks that
    learn, its plugins with that of theirs, its predictors, and the bytes of its state and of what of it learns."""

    phases: Sequence[Phase]
    steps: Sequence[StepCost | None]
    networks: Sequence[PassCost]
    plugins: Sequence[tuple[PassCost, Plugin]]
    predictors: tuple[str, ...]
    state: int
    learned: int


_UNKNOWN = _Facts([Phase("train")], [None], [], [], (), 0, 0)


def _built(resolved: ResolvedJob, statistics: Statistics) -> _Facts:
    recipe = resolved.recipe
    channels = len(registry.component("dataset", recipe.dataset).channels)
    bare = resolved.model_copy(update={"weightings": {}})  # they look at numbers, and no network sees them
    method = build_method(bare, _Unfilled(bare, channels, statistics), statistics)
    phases = method.phases()
    return _Facts(
        phases,
        [method.step_cost(phase) for phase in phases],
        [count(network, channels, recipe.patch_size) for network in _trained_networks(method)],
        [
            (count(module.base, channels, recipe.patch_size), module.plugin)
            for module in method.modules()
            if isinstance(module, Attached) and _learns(module)
        ],
        method.predictors,
        sum(size_of(value) for value in method.state_dict().values() if isinstance(value, torch.Tensor)),
        sum(size_of(parameter) for parameter in method.parameters() if parameter.requires_grad),
    )


class _Unfilled(Builder):
    """Makes networks of shapes alone; what little a method makes besides holds numbers."""

    def _stream(self, name: str) -> Any:
        return unfilled()


def statistics_of(resolved: ResolvedJob) -> Statistics:
    """Statistics in place of those that only the data tell: all items are one patch."""
    recipe = resolved.recipe
    lists = load_splits(recipe.dataset, recipe.splits)
    labeled = max(len(lists.budget(resolved.job.labeled).labeled), 1)
    classes = len(registry.component("dataset", recipe.dataset).classes) + 1
    patch = tuple(recipe.patch_size)
    return Statistics(
        class_counts=torch.arange(classes, 0, -1).repeat(labeled, 1),
        labeled=labeled,
        unlabeled=len(lists.train) - labeled,
        shapes=(patch,) * len(lists.train),
        num_classes=classes,
        patch_size=patch,
        batch=(recipe.batch.labeled, recipe.batch.unlabeled),
        labeled_items=labeled,
    )


def _trained_networks(method: Method) -> Iterator[Network]:
    for module in method.modules():
        if not isinstance(module, Network) or isinstance(module, Attached):
            continue
        if _learns(module):
            yield module


def _learns(module: torch.nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def count(network: Network, channels: int, patch: Sequence[int]) -> PassCost:
    """Count the operations of a patch through a network on the meta device.

    Args:
        network: in training mode.
        channels: of an image.
        patch: its sides.
    """
    key = (type(network), str(network.options), network.num_classes, channels, *patch)
    if key not in _COUNTED:
        _COUNTED[key] = _count(network, torch.empty((_PATCHES, channels, *patch), device=META))
    return _COUNTED[key]


_PATCHES = 2  # batch norm takes no single value
_COUNTED: dict[tuple[Any, ...], PassCost] = {}


def _count(network: Network, image: torch.Tensor) -> PassCost:
    with Products() as forward:
        maps = network.encode(image).maps
    with Products() as backward:
        _backward(maps)
    leaves = Features(tuple(part.detach().requires_grad_() for part in maps))
    with Products() as decoder_forward:
        logits = network.decoder.logits(leaves)
    with Products() as decoder_backward:
        _backward([logits])
    sums = [counted.flop / _PATCHES for counted in (forward, backward, decoder_forward, decoder_backward)]
    forward_e, backward_e, forward_d, backward_d = sums
    return PassCost(forward_e + backward_e, forward_d + backward_d, forward_e, forward_d)


def _backward(outputs: Iterable[torch.Tensor]) -> None:
    learned = [output for output in outputs if output.requires_grad]
    torch.autograd.backward(learned, [torch.empty_like(output) for output in learned])


# --------------------------------------------------------------------------------------- what this machine measured


def kind_of(job: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Spell what jobs share whose iterations take as long: method, loss, plugin, weighting, data, network, batch.

    Args:
        job: canonical, as `config.yaml` has it.
        values: those that it resolved to.
    """
    about = ("method.", "weighting.", "network.", "batch.", "augment.")
    lengths = {*scheduled(registry.component("method", job["method"]).Options, "method.")}
    same = {path: value for path, value in values.items() if path.startswith(about) and path not in lengths}
    parts = [job["method"], job["loss"], job["plugin"], values.get("dataset"), values.get("patch_size")]
    return json.dumps([parts, same], sort_keys=True, default=str)


@dataclass(frozen=True)
class Pace:
    """The pace of a job's kind on this machine: on a processor the time of all its cores together.

    Attributes:
        iteration: seconds of an iteration, validation included where that was recorded.
        test: seconds of the test, 0 where they were not recorded.
    """

    iteration: float
    test: float


class Paces:
    """The pace of finished runs of this machine.

    Args:
        results: the results folder.
        device: whose runs count: those of another processor or card do not.
    """

    def __init__(self, results: Path, device: torch.device) -> None:
        self._results, self._device = results / RUNS, device
        there = device.type == "cpu" or torch.cuda.is_available()
        self._name = device_name(device) if there else None
        self._known: dict[str, Pace | None] = {}

    def pace(self, job: Job) -> Pace | None:
        """The pace of runs of a job's kind, whatever their budget, seed and length; None where there are none."""
        kind = kind_of(job.canonical().model_dump(), job.resolved.values)
        if kind not in self._known:
            recipe, _, cell, _ = job.directory.parts
            named = cell.partition("~")[0]
            alike = (
                pace
                for run, pace in self._paces(self._results.glob(f"{recipe}/*/{named}*/seed-*"))
                if kind_of(run.job, run.values) == kind
            )
            found = list(islice(alike, _RUNS_OF_A_KIND))
            self._known[kind] = (
                Pace(median(pace.iteration for pace in found), median(pace.test for pace in found)) if found else None
            )
        return self._known[kind]

    def rate(self, estimator: Estimator) -> float | None:
        """The operations a second that finished runs kept up, the median over their kinds; None where there are
        none."""
        kinds: dict[str, float] = {}
        for run, pace in self._paces(run.directory for run in runs_below(self._results)):
            kind = kind_of(run.job, run.values)
            if len(kinds) == _KINDS:
                break
            if kind in kinds:
                continue
            try:
                found = estimator.of(recorded_job(run))
            except SSLBenchError:  # of another version, or of parts that are not here
                continue
            if found.flop:
                kinds[kind] = found.flop / found.iterations / pace.iteration
        return median(kinds.values()) if kinds else None

    def _paces(self, places: Iterable[Path]) -> Iterator[tuple[Run, Pace]]:
        for place in places:
            run = Run(place)
            status = run.status()
            if status.get("state") != "finished" or run.device != self._name:
                continue
            try:
                run.check_identity()
                pace = _pace(status, run.metrics.read_text(encoding="utf-8"))
            except (SSLBenchError, OSError):
                continue
            if pace is not None:
                share = min(status.get("threads") or cores(), cores()) / cores() if self._device.type == "cpu" else 1
                yield run, Pace(pace.iteration * share, pace.test * share)


def cores() -> int:
    """The cores of this machine."""
    return os.cpu_count() or 1


def _pace(status: Mapping[str, Any], records: str) -> Pace | None:
    """The pace of a run of its status and records; older ones recorded that of training alone."""
    test = float(status.get("test_seconds") or 0)
    iterations = max(map(int, _ITERATION.findall(records)), default=0)
    if iterations and (seconds := float(status.get("training_seconds") or 0)):
        return Pace(seconds / iterations, test)
    paces = [float(pace) for pace in _PACE.findall(records)]
    return Pace(fmean(1 / pace for pace in paces if pace > 0), test) if any(paces) else None


# ------------------------------------------------------------------------------------------------------ many jobs


@dataclass
class Bill:
    """The cost of several jobs.

    Attributes:
        flop: operations of training, of those that document them.
        seconds: of one card, or of a whole processor.
        bytes: of their checkpoints.
        measured, modelled, unknown: how many jobs' seconds were measured here, follow from operations, are not known.
    """

    flop: float = 0.0
    seconds: float = 0.0
    bytes: int = 0
    measured: int = 0
    modelled: int = 0
    unknown: int = 0


class Pricer:
    """Prices jobs on a device.

    Args:
        results: the results folder, whose finished runs say how fast this machine is.
        device: where the jobs would run; it need not be there.
    """

    def __init__(self, results: Path, device: torch.device) -> None:
        self._measured, self._estimator, self._device = Paces(results, device), Estimator(), device
        self._known: dict[str, tuple[Estimate, Pace | None]] = {}

    @cached_property
    def rate(self) -> tuple[float, bool]:
        """Operations a second for jobs of kinds that were not measured, and whether they were measured here, by other
        finished runs or by `sslbench bench`; else it is that of `SUSTAINED`."""
        if found := self._measured.rate(self._estimator):
            return found, True
        whole = cores() if self._device.type == "cpu" else 1
        if self.benched is not None:
            return self.benched.flop_per_second * whole / (self.benched.threads or 1), True
        return SUSTAINED[self._device.type] * whole, False

    @cached_property
    def benched(self) -> MeasuredRate | None:
        """What `sslbench bench` measured on the device, where no finished run says how fast it is."""
        return None if self._measured.rate(self._estimator) else measured_rate(self._device)

    def add(self, bill: Bill, job: Job, left: float = 1.0) -> None:
        """Put a job on a bill.

        Args:
            bill: to add to.
            job: canonical.
            left: the share of its training that is not done.
        """
        if job.digest() not in self._known:
            self._known[job.digest()] = self._estimator.of(job.resolved), self._measured.pace(job)
        estimate, pace = self._known[job.digest()]
        bill.bytes += estimate.bytes
        bill.flop += left * (estimate.flop or 0)
        if pace is not None:
            bill.seconds += left * estimate.iterations * pace.iteration + pace.test
            bill.measured += 1
        elif estimate.flop is not None:
            bill.seconds += left * estimate.flop / self.rate[0]
            bill.modelled += 1
        else:
            bill.unknown += 1

    def facts(self, bill: Bill) -> dict[str, Any]:
        """A bill for programs, with the rate that what is modelled in it stands on."""
        rate, measured = self.rate if bill.modelled else (None, None)
        date = self.benched.date if bill.modelled and self.benched else None
        told = {"flop_per_second": rate, "rate_measured": measured, "rate_date": date}
        return {**asdict(bill), "device": self._device.type, **told}
