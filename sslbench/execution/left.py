"""The time that is left of jobs: by the steps that runs of their configuration made, else priced as `cost` prices.

Nothing heavy is imported until a job has to be priced.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from sslbench.core.errors import SSLBenchError
from sslbench.runs.directory import Run, State

if TYPE_CHECKING:
    from sslbench.config.job import Job
    from sslbench.execution.cost import Pricer

Ground = Literal["measured", "modelled", "unknown"]

_OPEN: tuple[State, ...] = ("running", "interrupted", "damaged", "pending")
_CONFIGURATIONS = 3  # measured ones that say how fast operations are made


@dataclass(frozen=True)
class Course:
    """How far a run is, and how it went.

    Attributes:
        run: its directory.
        state: as it counts for what is left.
        status, progress: as its files have them.
        job: where it is known without its configuration.
    """

    run: Run
    state: State
    status: Mapping[str, Any]
    progress: Mapping[str, Any]
    job: Job | None = None

    @property
    def configuration(self) -> tuple[Path, str]:
        """What seeds share."""
        return self.run.directory.parent, self.run.directory.name[-8:]

    @property
    def share(self) -> float | None:
        """The share of the iterations that is done, 0 to 1; None where that is not known."""
        if self.state == "finished":
            return 1.0
        total = _number(self.progress.get("iterations"))
        return min((_number(self.progress.get("iteration")) or 0.0) / total, 1.0) if total else None

    @property
    def trained(self) -> float | None:
        """Seconds that training took so far, as far as its stage ended or was stopped; None where nobody measured."""
        return _number(self.status.get("training_seconds"))

    @property
    def whole(self) -> float | None:
        """Seconds of the whole training at its pace; None where it made no step yet."""
        total = _number(self.progress.get("iterations"))
        if self.state == "finished" and self.trained:
            return self.trained
        pace, speed = _number(self.progress.get("s_per_it")), _number(self.progress.get("it_per_s"))
        if not total or not (pace or speed):
            return None
        return total * (pace or 1 / (speed or 1))

    @property
    def test(self) -> float | None:
        """Seconds of the test; None where it has not ended."""
        return _number(self.status.get("test_seconds")) if self.state == "finished" else None

    @property
    def untested(self) -> float:
        """The share of the test cases that are not tested."""
        case, cases = self.progress.get("case"), _number(self.progress.get("cases"))
        if self.progress.get("stage") != "testing" or not cases or not isinstance(case, int):
            return 1.0
        return max(1 - case / cases, 0.0)


@dataclass(frozen=True)
class JobLeft:
    """The time that is left of one job.

    Attributes:
        seconds: of a clock on the wall, from when somebody works on it.
        ground: whether steps of its configuration say so, or a count of operations; nothing: the seconds are 0.
    """

    seconds: float
    ground: Ground


@dataclass(frozen=True)
class Left:
    """The time that is left of many jobs.

    Attributes:
        seconds: until the last of those ends of which something is known; None: of none is.
        lanes: how many run at a time.
        measured, modelled, unknown: how many jobs' seconds stand on what.
        assumed: the rate of those that are modelled is an assumption, no measurement of this machine.
        each: of every run that is not over.
    """

    seconds: float | None
    lanes: int
    measured: int
    modelled: int
    unknown: int
    assumed: bool
    each: Mapping[Run, JobLeft]

    @property
    def jobs(self) -> int:
        """How many are not over."""
        return len(self.each)

    def facts(self) -> dict[str, Any]:
        """For programs."""
        names = ("seconds", "lanes", "measured", "modelled", "unknown", "assumed")
        return {"jobs": self.jobs, **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True)
class _Price:
    """Seconds of a whole device, the test included, of a job that finished runs of its kind measured; else the
    operations of its training."""

    seconds: float
    flop: float
    ground: Ground


_UNKNOWN = _Price(0.0, 0.0, "unknown")
_Key = tuple[Path, str]


@dataclass(frozen=True)
class _Pace:
    """Seconds of the training and of the test of a configuration."""

    training: float
    test: float


class Forecast:
    """Tells what is left; what had to be priced is kept.

    Args:
        results: the results folder, whose finished runs know prices.
        lanes: jobs at a time; None: as many as are running.
        device: where they run, as torch spells it; None: the GPU where there is one.
    """

    def __init__(self, results: Path, lanes: int | None = None, device: str | None = None) -> None:
        self._results, self._lanes, self._device = results, lanes, device
        self._prices: dict[_Key, _Price] = {}

    def price(self, courses: Sequence[Course], at_most: int | None = None) -> bool:
        """Price jobs of whose configuration no run made a step; each takes up to seconds.

        Args:
            courses: of all jobs.
            at_most: how many configurations.

        Returns:
            Whether all that is needed is known.
        """
        paces, left = _paces(courses), math.inf if at_most is None else at_most
        for wanted in (_unmeasured, self._references):
            for course in wanted(courses, paces):
                if course.configuration in self._prices:
                    continue
                if not left:
                    return False
                left -= 1
                self._prices[course.configuration] = self._priced(course)
        return True

    def left(self, courses: Sequence[Course]) -> Left:
        """The time that is left, as far as it is measured or priced.

        Args:
            courses: of all jobs, in the order in which they run.
        """
        paces = _paces(courses)
        lanes = self._lanes or max(sum(course.state == "running" for course in courses), 1)
        rate = self._rate(courses, paces)
        each = {course.run: self._of(course, paces, lanes, rate) for course in courses if course.state in _OPEN}
        grounds = [found.ground for found in each.values()]
        running = [each[course.run].seconds for course in courses if course.state == "running"]
        waiting = [each[course.run].seconds for course in courses if course.state in _OPEN[1:]]
        known = len(grounds) - grounds.count("unknown")
        return Left(
            _until_the_last(running, waiting, lanes) if known or not grounds else None,
            lanes,
            grounds.count("measured"),
            grounds.count("modelled"),
            grounds.count("unknown"),
            "modelled" in grounds and rate is None and not self._pricer.rate[1],
            each,
        )

    # -------------------------------------------------------------------------------------------------- one job

    def _of(self, course: Course, paces: Mapping[_Key, _Pace], lanes: int, rate: float | None) -> JobLeft:
        ahead = 1 - (course.share or 0.0)
        pace = paces.get(course.configuration)
        if pace is not None:
            whole = course.whole or pace.training
            ahead = 0.0 if course.state == "damaged" else ahead
            return JobLeft(ahead * whole + course.untested * pace.test, "measured")
        price = self._price_of(course)
        if price.ground == "measured":
            return JobLeft(ahead * price.seconds * self._sharing(lanes), "measured")
        if price.ground == "modelled":
            return JobLeft(ahead * price.flop / (rate or self._pricer.rate[0] / self._sharing(lanes)), "modelled")
        return JobLeft(0.0, "unknown")

    def _priced(self, course: Course) -> _Price:
        from sslbench.execution.cost import Bill

        bill = Bill()
        try:
            self._pricer.add(bill, course.job or course.run.load_job())
        except SSLBenchError:  # of another version, or of parts that are not here
            return _UNKNOWN
        ground: Ground = "measured" if bill.measured else "modelled" if bill.modelled else "unknown"
        return _Price(bill.seconds, bill.flop, ground)

    @cached_property
    def _pricer(self) -> Pricer:
        import torch

        from sslbench.execution.cost import Pricer

        return Pricer(self._results, torch.device(self._device or ("cuda" if torch.cuda.is_available() else "cpu")))

    def _references(self, courses: Sequence[Course], paces: Mapping[_Key, _Pace]) -> list[Course]:
        """Some runs that made steps, where there are others whose operations alone are known."""
        grounds = {self._price_of(course).ground for course in _unmeasured(courses, paces)}
        found = {course.configuration: course for course in courses if course.configuration in paces}
        return list(found.values())[:_CONFIGURATIONS] if "modelled" in grounds else []

    def _rate(self, courses: Sequence[Course], paces: Mapping[_Key, _Pace]) -> float | None:
        """Operations a second of one job among those that run at a time; None where no steps say so."""
        rates = [
            self._price_of(course).flop / paces[course.configuration].training
            for course in self._references(courses, paces)
        ]
        return median(rates) if any(rates) else None

    def _price_of(self, course: Course) -> _Price:
        return self._prices.get(course.configuration, _UNKNOWN)

    def _sharing(self, lanes: int) -> int:
        """How many jobs share a device."""
        import torch

        cuda = torch.cuda.device_count() if (self._device or "cuda").startswith("cuda") else 0
        return -(-lanes // (cuda or 1))


def _paces(courses: Iterable[Course]) -> dict[_Key, _Pace]:
    """The pace of every configuration of which a run made steps: of its finished runs, else of the others."""
    finished: dict[_Key, list[float]] = {}
    begun: dict[_Key, list[float]] = {}
    tests: dict[Path, list[float]] = {}  # of a configuration, and of its recipe for those that have none yet
    for course in courses:
        if course.whole is not None:
            (finished if course.state == "finished" else begun).setdefault(course.configuration, []).append(
                course.whole
            )
        if course.test is not None:
            for place in (course.run.directory.parent, course.run.directory.parents[2]):
                tests.setdefault(place, []).append(course.test)
    return {
        key: _Pace(median(wholes), median(tests.get(key[0]) or tests.get(key[0].parents[1]) or [0.0]))
        for key, wholes in {**begun, **finished}.items()
    }


def _unmeasured(courses: Iterable[Course], paces: Mapping[_Key, _Pace]) -> list[Course]:
    return [course for course in courses if course.state in _OPEN and course.configuration not in paces]


def _until_the_last(running: Sequence[float], waiting: Sequence[float], lanes: int) -> float:
    """Seconds until all end, where whoever is free takes the next."""
    busy = [*running, *[0.0] * (lanes - len(running))]
    heapq.heapify(busy)
    for seconds in waiting:
        heapq.heappush(busy, heapq.heappop(busy) + seconds)
    return max(busy, default=0.0)


def _number(value: Any) -> float | None:
    """A number above 0; None for all else that a file may hold."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) and value > 0 else None
