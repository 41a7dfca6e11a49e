"""The work of `sslbench check`: laws on methods, and every cell of methods, losses and a plugin for some steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sslbench.config.text import parse_component
from sslbench.conformance.bench import DIMS, Dims, Subject, is_loss, tiny_job
from sslbench.conformance.laws import LAWS, Verdict
from sslbench.core import registry
from sslbench.core.errors import TrainingError, UnknownNameError, UsageError

Tell = Callable[[str], None]


def _nobody(text: str) -> None:
    pass


def check_methods(
    methods: Sequence[str] = (),
    losses: Sequence[str] = (),
    dims: Sequence[Dims] = DIMS,
    laws: Sequence[str] = (),
    tell: Tell = _nobody,
    plugin: str | None = None,
) -> list[Verdict]:
    """Run `check_method` on several methods; none named: for every one that is registered, presets left out."""
    every = [entry.name for entry in registry.entries("method") if not entry.preset_of]
    return [
        verdict for method in methods or every for verdict in check_method(method, losses, dims, laws, tell, plugin)
    ]


def check_method(
    method: str,
    losses: Sequence[str] = (),
    dims: Sequence[Dims] = DIMS,
    laws: Sequence[str] = (),
    tell: Tell = _nobody,
    plugin: str | None = None,
) -> list[Verdict]:
    """Hold a method against the laws: all of them with the first loss, with the others those that are about losses.

    Args:
        method: a name or preset, with options in brackets, or `module:Class`.
        losses: to try it with; none: `default`.
        dims: images to try it on; those in which the combination has no meaning are left out.
        laws: names; none: all.
        tell: told what is tried.
        plugin: on the method's networks; none: bare ones. Its terms count in trainings alone.

    Raises:
        UsageError: no such method, loss, plugin or law, or a combination that has no meaning in any of `dims`.
    """
    spelling = find_method(method)
    for name in laws:
        if name not in LAWS:
            raise UnknownNameError("law", name, LAWS)
    losses = losses or ("default",)
    verdicts: list[Verdict] = []
    for loss in losses:
        for subject in _subjects(spelling, loss, dims, plugin):
            for law in LAWS.values():
                if (not laws or law.name in laws) and (law.losses or loss == losses[0]):
                    tell(f"{subject.method} + {subject.loss}, {subject.dims}: {law.name}")
                    verdicts.append(law.judge(subject))
    return verdicts


def _subjects(method: str, loss: str, dims: Sequence[Dims], plugin: str | None) -> list[Subject]:
    found, objections = [], []
    for kind in dims:
        try:
            found.append(Subject(method, loss, kind, plugin=plugin))
        except UsageError as error:
            objections.append(error)
    if not found:
        raise objections[0]
    return found


def find_method(spelling: str) -> str:
    """Find a method by its spelling, and return that.

    Raises:
        UsageError: nothing answers to the name, nothing can be imported under the reference, or it is no method.
    """
    registry.get("method", parse_component(spelling)[0])
    return spelling


# --------------------------------------------------------------------------------------------------------- the matrix


@dataclass(frozen=True)
class Combination:
    """A method with a loss, and a plugin or none.

    Attributes:
        method, loss, plugin: names, or presets; `plugin` None: bare networks.
        holes: by `2d` and `3d`, why the combination has no meaning there; not named: it has one.
    """

    method: str
    loss: str
    holes: dict[str, str]
    plugin: str | None = None


def matrix(methods: Sequence[str] = (), losses: Sequence[str] = (), plugin: str | None = None) -> list[Combination]:
    """Pair every method, or those named, with every loss; presets stand for themselves. Nothing is built.

    With a plugin, every method carries it.

    A hole is what a job of that combination is refused with, before its training.

    Raises:
        UsageError: a name that nothing answers to.
    """
    for kind, asked in (("method", methods), ("loss", losses), ("plugin", [plugin] if plugin else [])):
        for spelling in asked:
            registry.get(kind, parse_component(spelling)[0])
    rows = methods or [entry.name for entry in registry.entries("method")]
    columns = losses or [entry.name for entry in registry.entries("loss")]
    return [Combination(method, loss, _holes(method, loss, plugin), plugin) for method in rows for loss in columns]


def _holes(method: str, loss: str, plugin: str | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for dims in DIMS:
        try:
            tiny_job(method, loss, dims, plugin=plugin).resolved  # noqa: B018
        except UsageError as error:
            # What comes before the colon names the job, which the cell does too.
            found[dims] = error.message.split(": ", 1)[-1]
    return found


@dataclass(frozen=True)
class CombinationRun:
    """The result of training a cell for some steps.

    Attributes:
        method, loss, dims, plugin: the cell.
        status: `ran`, `failed` or `hole`.
        reason: why not, unless it ran.
        steps: iterations that it trained, all phases together.
        last: the loss in the last of them.
        seconds: it took.
    """

    method: str
    loss: str
    dims: str
    status: Literal["ran", "failed", "hole"]
    reason: str = ""
    steps: int = 0
    last: float | None = None
    seconds: float = 0.0
    plugin: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def check_matrix(
    steps: int = 20,
    methods: Sequence[str] = (),
    losses: Sequence[str] = (),
    dims: Sequence[Dims] = DIMS,
    tell: Tell = _nobody,
    plugin: str | None = None,
) -> Iterator[CombinationRun]:
    """Train every cell of the matrix on random images; each is given as it ends.

    Args:
        steps: iterations of every phase.
        methods, losses: names; none: all.
        dims: images to train on.
        tell: told what is trained.
        plugin: on every network of the methods; none: bare ones.
    """
    for cell in matrix([find_method(method) for method in methods], losses, plugin):
        for kind in dims:
            if kind in cell.holes:
                yield CombinationRun(cell.method, cell.loss, kind, "hole", cell.holes[kind], plugin=plugin)
            else:
                tell(f"{cell.method} + {cell.loss}, {kind}")
                yield _run_cell(cell, kind, steps)


def _run_cell(cell: Combination, dims: Dims, steps: int) -> CombinationRun:
    began = time.perf_counter()
    try:
        subject = Subject(cell.method, cell.loss, dims, iterations=steps, plugin=cell.plugin)
        end = subject.trained.records[-1]
        if "skipped" in end:
            raise TrainingError(f"{end['skipped']} of {end['iteration']} steps had no finite loss")
    except Exception as error:  # a cell that stops with an error is what this looks for
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        spent = time.perf_counter() - began
        return CombinationRun(cell.method, cell.loss, dims, "failed", reason, seconds=spent, plugin=cell.plugin)
    return CombinationRun(
        cell.method,
        cell.loss,
        dims,
        "ran",
        steps=end["iteration"],
        last=sum(value for name, value in end.items() if is_loss(name)),
        seconds=time.perf_counter() - began,
        plugin=cell.plugin,
    )
