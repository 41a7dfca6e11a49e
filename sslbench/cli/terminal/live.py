"""The display of a launch: live bars on a terminal, one plain line per event elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sslbench.cli.console import progress, say

if TYPE_CHECKING:
    from sslbench.execution.local import PlannedJob


class PlainDisplay:
    """One line per event on stderr."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, plan: Sequence[PlannedJob], running: Sequence[PlannedJob]) -> None:
        """Nothing: only events are worth a line."""

    def event(self, text: str) -> None:
        """Print the line."""
        say(self.console, text)


class LiveDisplay(PlainDisplay):
    """A grid bar, and a line per running job: step, loss, validation DSC, speed, time left."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
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
        counts = f"{len(running)} running" + (f", [red]{failed} failed[/]" if failed else "")
        self.bar.update(self.task, total=len(plan), completed=len(ended), counts=counts)
        self.live.update(Group(self.bar, job_table(running)) if running else self.bar)


def job_table(running: Sequence[PlannedJob]) -> Table:
    """The running jobs, a row each."""
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("job")
    for header in ("step", "loss", "val. DSC", "it/s", "left"):
        table.add_column(header, justify="right", no_wrap=True)
    for planned in running:
        found = planned.run.progress()
        # A column that may wrap gives way before those that may not; its text is cut instead.
        table.add_row(Text(planned.job.title, no_wrap=True, overflow="ellipsis"), *progress_cells(found))
    return table


def progress_cells(progress: dict[str, Any]) -> list[str]:
    """Step, loss, validation DSC, speed and time left of a job, as text; empty where not known."""
    done, total, speed = progress.get("iteration") or 0, progress.get("iterations") or 0, progress.get("it_per_s")
    stage = progress.get("stage", "")
    step = f"{done}/{total}" if stage == "training" and total else stage
    if stage == "testing":
        step = f"testing {progress.get('case', 0) + 1}/{progress.get('cases', 0)}"
    loss = progress.get("loss")
    scores = progress.get("validation") or {}
    seconds = (total - done) / speed if speed and stage == "training" else None
    return [
        step,
        "" if loss is None else f"{loss:.3f}",
        f"{100 * max(scores.values()):.1f} %" if scores else "",
        f"{speed:.1f}" if speed and stage == "training" else "",
        "" if seconds is None else duration(seconds),
    ]


def duration(seconds: float) -> str:
    """Seconds for people: `42 s`, `3:05 min`, `2:10 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return (
        f"{int(minutes)}:{int(seconds % 60):02d} min"
        if minutes < 100
        else f"{int(minutes // 60)}:{int(minutes % 60):02d} h"
    )
