"""The display of a launch: live bars on a terminal, elsewhere a line per event and now and then one of what is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sslbench.cli.console import progress, say, wrapped
from sslbench.cli.terminal.durations import about, duration
from sslbench.config.text import split_outside_brackets

if TYPE_CHECKING:
    from sslbench.execution.left import Course, Forecast, Left
    from sslbench.execution.local import PlannedJob
    from sslbench.runs.directory import State


_NAME = 16  # columns that a job's name keeps
_NAMED = 3  # running jobs whose iterations a line tells
TELL_EVERY_S = 600.0  # between two lines about what is left
_LOOK_EVERY_S = 10.0  # between two estimates on a terminal


class PlainDisplay:
    """One line per event on stderr, and every ten minutes one about what is left.

    Args:
        console: to print on.
        forecast: of what is left; None: nothing is said of it.
        clock: seconds that pass.
    """

    every_s = TELL_EVERY_S

    def __init__(
        self, console: Console, forecast: Forecast | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.console = console
        self._forecast, self._clock = None if console.quiet else forecast, clock
        self._next = clock() + self.every_s
        self._ended: dict[int, Course] = {}

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, plan: Sequence[PlannedJob], running: Sequence[PlannedJob]) -> None:
        """Tell what is left, if it is time."""
        if (left := self._left(plan, running)) is not None:
            say(self.console, standing_line(plan, running, left))

    def event(self, text: str) -> None:
        """Print the line."""
        say(self.console, text)

    def _left(self, plan: Sequence[PlannedJob], running: Sequence[PlannedJob]) -> Left | None:
        """Estimate what is left; None where it is not time, or there is more to price first: one job a call, as whoever
        draws also starts and ends jobs."""
        if self._forecast is None or self._clock() < self._next:
            return None
        ours = {*map(id, running)}
        courses = [self._ended.get(id(planned)) or course_of(planned, id(planned) in ours) for planned in plan]
        self._ended = {
            id(planned): course for planned, course in zip(plan, courses, strict=True) if planned.outcome is not None
        }
        if not self._forecast.price(courses, at_most=1):
            return None
        self._next = self._clock() + self.every_s
        return self._forecast.left(courses)


class LiveDisplay(PlainDisplay):
    """A grid bar with what is left, and a line per running job: step, loss, validation DSC, speed, time left."""

    every_s = _LOOK_EVERY_S

    def __init__(
        self, console: Console, forecast: Forecast | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(console, forecast, clock)
        self._told = ""
        self.bar = progress("jobs", console=console)
        self.task = self.bar.add_task("[bold]grid[/]", total=None, counts="")
        self.live = Live(self.bar, console=console, refresh_per_second=4)

    def __enter__(self) -> LiveDisplay:
        self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.stop()

    def update(self, plan: Sequence[PlannedJob], running: Sequence[PlannedJob]) -> None:
        """Draw the bar and the running jobs anew."""
        ended = [planned.outcome for planned in plan if planned.outcome]
        failed = sum(outcome == "failed" for outcome in ended)
        if (left := self._left(plan, running)) is not None:
            self._told = f", {time_left(left)}"
        counts = f"{len(running)} running" + (f", [red]{failed} failed[/]" if failed else "") + self._told
        self.bar.update(self.task, total=len(plan), completed=len(ended), counts=counts)
        if not running:
            self.live.update(self.bar)
            return
        common, names = told_apart([planned.job.title for planned in plan])
        own = dict(zip(map(id, plan), names, strict=True))
        jobs = job_table([(own[id(planned)], planned.run.progress()) for planned in running], self.console.width)
        heading = [wrapped(Text(f" {common}", style="italic"), self.console.width)] if common else []
        self.live.update(Group(self.bar, *heading, jobs))


def course_of(planned: PlannedJob, running: bool) -> Course:
    """The course of a launch's job; what ended in this launch is over, whatever is left to do.

    Args:
        planned: the job.
        running: in this launch; what neither runs here nor will is run by another.
    """
    from sslbench.execution.left import Course

    state: State = "pending"
    if planned.outcome is not None:
        state = "finished" if planned.outcome == "finished" else "failed"
    elif running or not planned.runs:
        state = "running"
    elif planned.run.checkpoints.exists():
        state = "damaged" if planned.state == "damaged" else "interrupted"
    return Course(planned.run, state, planned.run.status(), planned.run.progress(), planned.job)


def standing_line(plan: Sequence[PlannedJob], running: Sequence[PlannedJob], left: Left) -> str:
    """Where a launch stands: `12 of 48 jobs finished, 2 running (iteration 400 of 1000), about 3 h 10 min left`."""
    outcomes = [planned.outcome for planned in plan]
    told = [f"{outcomes.count('finished')} of {len(plan)} jobs finished"]
    told += [f"{count} {end}" for end in ("failed", "interrupted") if (count := outcomes.count(end))]
    steps = [text for planned in running[:_NAMED] if (text := _step(planned.run.progress()))]
    steps += ["…"] if len(running) > _NAMED else []
    told.append(f"{len(running)} running" + (f" ({', '.join(steps)})" if steps else ""))
    return ", ".join([*told, time_left(left)])


def time_left(left: Left) -> str:
    """What is left of jobs, in a sentence."""
    if left.seconds is None:
        return "time left not known"
    return f"{'at least' if left.unknown else 'about'} {about(left.seconds)} left"


def _step(progress: dict[str, Any]) -> str:
    """Where a job stands, in words."""
    cell = progress_cells(progress)[0]
    done, of, total = cell.partition("/")
    return f"iteration {done} of {total}" if of and progress.get("stage") == "training" else cell


def told_apart(titles: Sequence[str]) -> tuple[str, list[str]]:
    """Split the titles of jobs into what all share and what is each one's own; a single job's own is method and seed.

    Args:
        titles: `RECIPE BUDGET NAMES~VARIANT SEED` each, else they are left as they are.
    """
    split = [title.split(" ") for title in titles]
    if not all(len(parts) == 4 for parts in split):
        return "", list(titles)
    jobs = []
    for recipe, labeled, cell, seed in split:
        names, _, variant = cell.partition("~")
        jobs.append([recipe, labeled, names, *(f"~{part}" for part in split_outside_brackets(variant)), seed])
    shared = [part for part in jobs[0] if all(part in parts for parts in jobs)]
    if any(len(parts) == len(shared) for parts in jobs):  # one that has nothing of its own
        shared = [part for part in shared if part not in (jobs[0][2], jobs[0][-1])]
    own = [" ".join(part for part in parts if part not in shared) for parts in jobs]
    return " ".join(shared), own


def job_table(running: Sequence[tuple[str, dict[str, Any]]], width: int) -> Table:
    """Draw the running jobs, a row each.

    Args:
        running: their names and where they stand.
        width: of the terminal; where it is narrow, speed and loss go before a word of a name is broken.
    """
    headers = ["step", "loss", "val. DSC", "it/s", "left"]
    rows = [progress_cells(found) for _, found in running]
    widths = [max(len(text) for text in column) for column in zip(headers, *rows, strict=True)]
    longest = max(len(name) for name, _ in running)
    used = list(range(len(headers)))
    for spare in ("it/s", "loss"):
        if width - 2 - sum(widths[place] + 2 for place in used) < min(longest, _NAME):
            used.remove(headers.index(spare))
    room = max(width - 2 - sum(widths[place] + 2 for place in used), 1)
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("job", overflow="fold")
    for place in used:
        table.add_column(headers[place], justify="right", no_wrap=True, width=widths[place])
    for (name, _), cells in zip(running, rows, strict=True):
        table.add_row(wrapped(Text(name), room), *(cells[place] for place in used))
    return table


def progress_cells(progress: dict[str, Any]) -> list[str]:
    """Step, loss, validation DSC, speed and time left of a job, as text; empty where not known."""
    done, total, speed = progress.get("iteration") or 0, progress.get("iterations") or 0, progress.get("it_per_s")
    stage = progress.get("stage", "")
    step = f"{done}/{total}" if stage == "training" and total else stage
    if stage == "testing":
        step = f"testing {progress.get('case', 0) + 1}/{progress.get('cases', 0)}"
    loss = progress.get("loss")
    scores = [value for value in (progress.get("validation") or {}).values() if isinstance(value, float)]
    pace = progress.get("s_per_it") or (speed and 1 / speed)  # validation included, where that is known
    seconds = (total - done) * pace if pace and stage == "training" else None
    return [
        step,
        "" if loss is None else f"{loss:.3f}",
        f"{100 * max(scores):.1f} %" if scores else "",
        f"{speed:.1f}" if speed and stage == "training" else "",
        "" if seconds is None else duration(seconds),
    ]
