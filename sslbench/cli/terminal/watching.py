"""A watched status: drawn over itself on a terminal, a line per change elsewhere."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from sslbench.cli.console import say
from sslbench.cli.terminal.durations import duration
from sslbench.cli.terminal.live import time_left
from sslbench.cli.terminal.runs import score_text, standing_lines, summary_lines
from sslbench.cli.terminal.tables import Rows

if TYPE_CHECKING:
    from sslbench.execution.left import Left

_QUIET = ("finished", "queued", "pending")  # what goes first where a screen is too low


class ByLine:
    """Says where runs stand, and from then on a line for each that changes its state."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._before: dict[str, str] | None = None

    def __enter__(self) -> ByLine:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def show(self, rows: Rows, left: Left) -> None:
        """Say what is new."""
        states = {row["run"]: row["state"] for row in rows}
        before, self._before = self._before, states
        if before is None:
            self._say(_standing(rows, left))
            return
        changed = [row for row in rows if row["state"] != before.get(row["run"])]
        for row in changed:
            self._say(_change(row))
        if changed:
            self._say(_standing(rows, left))

    def _say(self, line: str) -> None:
        say(self.console, line)
        sys.stdout.flush()  # who reads the pipe reads it now


class InPlace(ByLine):
    """Draws where runs stand over what it drew before; what it drew last stays."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")
        self._last = Text()

    def __enter__(self) -> InPlace:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.update(self._last)
        self._live.stop()

    def show(self, rows: Rows, left: Left) -> None:
        """Draw it: all of it, or what fits."""
        width, height = self.console.size
        whole = [*standing_lines(rows, width), Text(), *summary_lines(rows, left)] if rows else [Text("no runs yet")]
        self._last = Text("\n").join(whole)
        hint = Text("Ctrl-C ends the watch, nothing else", style="dim")
        self._live.update(Text("\n").join([*fitting(rows, left, width, height - 2), hint]), refresh=True)


def fitting(rows: Rows, left: Left, width: int, height: int) -> list[Text]:
    """Where runs stand, in so many lines at most: runs that are finished or wait go first, then what is said of the
    others; what is left is always there."""
    summary = [Text(), *summary_lines(rows, left)]
    shown, lines = rows, standing_lines(rows, width) if rows else [Text("no runs yet")]
    if len(lines) + len(summary) > height:
        shown = [row for row in rows if row["state"] not in _QUIET]
        hidden = Counter(row["state"] for row in rows if row["state"] in _QUIET)
        lines = standing_lines(shown, width) if shown else []
        told = ", ".join(f"{count} {state}" for state, count in hidden.items())
        lines += [Text(f"not shown: {told}", style="dim")] if told else []
    room = max(height - len(summary), 1)
    if len(lines) > room:
        lines = [*lines[: room - 1], Text("…", style="dim")]
    return [*lines, *summary]


def _standing(rows: Rows, left: Left) -> str:
    counts = Counter(row["state"] for row in rows)
    told = f"{counts['finished']} of {len(rows)} finished"
    told += "".join(f", {count} {state}" for state, count in counts.items() if state != "finished")
    return f"{told}; {time_left(left)}" if left.jobs else told


def _change(row: Mapping[str, Any]) -> str:
    """The new state of a run, with what it scored or why it is so."""
    told = f"{row['run']}: {row['state']}"
    if row["score"]:
        told += f", test {score_text(row['score'], named=True)}"
    if row["state"] == "finished" and row["training_seconds"]:
        told += f", trained in {duration(row['training_seconds'])}"
    return told + (f": {row['error']}" if row["error"] else "")
