"""`sslbench status`: where jobs stand and what is left of them, once or for as long as somebody watches."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from sslbench.cli.console import note, out, print_json, spinner, warn
from sslbench.cli.options import (
    Choice,
    DataDir,
    GridArgument,
    Json,
    Only,
    References,
    ResultsDir,
    Scale,
    Seeds,
    Sets,
    flag,
    opened,
)
from sslbench.core.errors import SSLBenchError, UsageError

if TYPE_CHECKING:
    from sslbench.cli.terminal.watching import ByLine
    from sslbench.config.job import Job
    from sslbench.config.table import TableSpec
    from sslbench.execution.left import Course, Left

EVERY_S = 3.0  # seconds between two looks
_AT_MOST = 0.2  # of the time goes to looking
_OPEN = ("pending", "running", "interrupted")
_OVER = ("finished", "failed", "damaged")  # what no other process takes up without being asked


def status(
    name: GridArgument = None,
    set: Sets = None,
    seed: Seeds = None,
    only: Only = None,
    scale: Scale = None,
    with_references: References = False,
    watch: Annotated[
        bool, flag("Look again until nothing is left; in a pipe, a line per change.", "--watch/--no-watch", "-w")
    ] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    results_dir: ResultsDir = None,
) -> None:
    """Where jobs stand, what they scored and how long the rest takes: those of a grid, or every run there is."""
    from sslbench.cli.terminal.runs import runs
    from sslbench.config.grid import load_grid
    from sslbench.config.tuning import row_of
    from sslbench.core import settings

    if watch and as_json:
        raise UsageError("--watch and --json do not go together", "--watch in a pipe prints a line per change")
    opened(data_dir)
    choice, results = Choice(set, seed, only, scale, with_references), settings.results_dir(results_dir)
    if name:
        grid = load_grid(name)
        rows = choice.rows(grid)
        trials = [job for trial in grid.trials(rows) for job in trial.jobs]
        grid = choice.settled(grid, results)
        jobs = trials + grid.tuned([job for job in rows if not grid.tune or row_of(job) in grid.chosen])
        standing = Lookout(results, list({job.directory: job for job in jobs}.values()), _first_metric(grid.table))
    else:
        choice.no_grid()
        standing = Lookout(results)
    if watch:
        _watch(standing)
        return
    view = standing.look()
    if as_json:
        print_json({"runs": view.rows, "left": view.left.facts()})
    elif view.rows:
        runs(out(), view.rows, view.left)
    else:
        note("no runs yet: sslbench run --grid [NAME]")


def _first_metric(table: TableSpec) -> str:
    """The metric of a table's first column of scores."""
    from sslbench.config.table import GAIN, ByClass, ColumnSpec

    columns = table.columns.metrics if isinstance(table.columns, ByClass) else table.columns
    return next((metric for metric in (ColumnSpec.read(text).metric for text in columns) if metric != GAIN), "dsc")


class Glance(NamedTuple):
    """What one look gave.

    Attributes:
        rows: of `listing.standings`.
        left: of all of them.
        took: seconds that reading took.
    """

    rows: list[dict[str, Any]]
    left: Left
    took: float = 0.0


class Lookout:
    """Looks at runs, again and again; what is finished is looked at once.

    Args:
        results: the results folder.
        jobs: whose runs, begun or not; None: every run there is.
        metric: that stands for a run's scores where its protocol has it.
    """

    def __init__(self, results: Path, jobs: Sequence[Job] | None = None, metric: str = "dsc") -> None:
        from sslbench.execution.left import Forecast
        from sslbench.execution.slurm import SlurmQueue

        self._results, self._jobs, self._metric = results, jobs, metric
        self._forecast = Forecast(results)
        self._finished: dict[Path, Course] = {}
        self._looked = self._told = False
        self._queue = SlurmQueue()

    def look(self, stopped: Callable[[], bool] = lambda: False) -> Glance:
        """Read where all runs stand; what has to be priced is priced, unless somebody stops it."""
        from sslbench.cli.listing import standings

        begun = time.perf_counter()
        courses = self._courses()
        took = time.perf_counter() - begun  # what every look takes: prices are asked for once
        if not self._forecast.price(courses, 0):
            with nullcontext() if self._looked else spinner("counts what is left"):
                while not stopped() and not self._forecast.price(courses, at_most=1):
                    pass
        self._looked = True
        left = self._forecast.left(courses)
        rows = standings(courses, left, self._metric)
        self._add_slurm(rows, courses)
        return Glance(rows, left, took)

    def _add_slurm(self, rows: list[dict[str, Any]], courses: list[Course]) -> None:
        """Add to the rows of runs that are not over what Slurm has to do with them: a state `queued` of its own."""
        from sslbench.execution.slurm import placed, standing_of

        tasks = [task for course in courses if course.state in _OPEN and (task := placed(course.run))]
        if not tasks:
            return
        try:
            known = self._queue.look(tasks)
        except SSLBenchError as error:  # no Slurm on this machine, or none that answers: the directories tell the rest
            if not self._told:
                warn(f"Slurm's view is missing: {error.message}")
            self._told = True
            return
        for row, course in zip(rows, courses, strict=True):
            found = standing_of(course.run, known)
            if found is None:
                continue
            row["slurm"] = found
            if found.pop("live"):
                row["state"] = "running" if course.state == "running" else "queued"
                row["error"] = ""
            elif course.state != "running":
                row["error"] = "; ".join(filter(None, (row["error"], found["ended"])))

    def _courses(self) -> list[Course]:
        from sslbench.cli.listing import course_of
        from sslbench.runs.directory import RUNS, Run, runs_below

        if self._jobs is None:
            runs: list[tuple[Run, Job | None]] = [(run, None) for run in runs_below(self._results / RUNS)]
        else:
            runs = [(Run.of(job, self._results), job) for job in self._jobs]
        courses = [self._finished.get(run.directory) or course_of(run, job) for run, job in runs]
        self._finished = {course.run.directory: course for course in courses if course.state == "finished"}
        return courses


# ------------------------------------------------------------------------------------------------------- watching


def _watch(standing: Lookout) -> None:
    """Watch until nothing is left to wait for, or a signal ends it."""
    import signal

    from sslbench.cli.terminal.watching import ByLine, InPlace
    from sslbench.execution.local import on_stop

    stopped, console = Event(), out()
    handlers = on_stop(lambda number, frame: stopped.set())
    try:
        screen = (InPlace if console.is_terminal else ByLine)(console)
        follow(lambda: standing.look(stopped.is_set), screen, stopped.wait)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def follow(look: Callable[[], Glance], screen: ByLine, wait: Callable[[float], bool]) -> None:
    """Show look after look, until nothing more happens by itself.

    Args:
        look: where runs stand.
        screen: shows it.
        wait: so many seconds; True: it is to end.
    """
    view = look()  # before the screen: it may have a spinner of its own
    with screen:
        while True:
            screen.show(view.rows, view.left)
            if all(row["state"] in _OVER for row in view.rows) or wait(max(EVERY_S, view.took * (1 / _AT_MOST - 1))):
                return
            view = look()
