"""The voice of every command: results on stdout; notes, warnings, errors, bars and spinners on stderr."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.style import Style
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress

# A text, or a text with its style.
Piece = str | tuple[str, str | Style]

_PIECE = re.compile(r"~?[^\s,~=/+]*[\s,=/+]*")


class _Results(Console):
    """A console whose reader may leave: what that means is for the command line to say."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def out() -> Console:
    """Make the console of results: stdout, at least 100 columns wide where it is no terminal."""
    return _Results(width=None if sys.stdout.isatty() else max(100, int(os.environ.get("COLUMNS", 0) or 0)))


def err() -> Console:
    """Make the console of all that is no result: stderr."""
    return Console(stderr=True)


def print_json(value: Any) -> None:
    """Print a result for programs."""
    print(json.dumps(value, indent=2, default=str))


def say(console: Console, *parts: Piece) -> None:
    """Print one line, letter by letter. A terminal that it is too long for gets several, broken between words."""
    text = Text.assemble(*parts)
    if console.is_terminal:
        text = wrapped(text, console.width)
    console.print(text, soft_wrap=True)


def wrapped(text: Text, width: int, names: bool = False) -> Text:
    """Break a text into lines: at blanks, and where a word is longer than a line behind `, = / +` or before `~`.

    Args:
        text: its styles stay.
        width: of a line; one without a place to break may be longer.
        names: break there wherever a line is full, as suits a job's name.
    """
    lines: list[Text] = []
    for line in text.split("\n", allow_blank=True):
        words = [line.plain] if names else re.findall(r"\s*\S+\s*", line.plain)
        places, start, end = [], 0, 0
        for word in words:
            pieces = [word] if not names and len(word.rstrip()) <= width else _PIECE.findall(word)
            for piece in filter(None, pieces):
                if end > start and end + len(piece.rstrip()) - start > width:
                    places.append(end)
                    start = end
                end += len(piece)
        lines += line.divide(places)
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


def note(*parts: Piece) -> None:
    """Say a line on stderr."""
    say(err(), *parts)


def warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """Note a warning in one line, without the place in the code that Python adds."""
    note(("warning:", "yellow"), f" {message}")


def error(message: str, hint: str = "") -> None:
    """Note an error, and below it what to do."""
    note(("error:", "bold red"), f" {message}")
    if hint:
        note(f"       {hint}")


def failures(reasons: Mapping[str, str]) -> None:
    """Note what failed, a line each with its reason."""
    for failed, reason in reasons.items():
        note((failed, "red"), f": {reason}")


Unit = Literal["cases", "bytes", "share", "jobs"]


def progress(unit: Unit, quiet: bool = False, console: Console | None = None) -> Progress:
    """Make a progress bar that goes when it is done; none where nobody watches.

    Args:
        unit: it counts `cases`, `bytes`, `jobs` (whose tasks have a field `counts`), or shows a `share` alone.
        quiet: show none.
        console: to draw on; None: stderr.
    """
    from rich import progress as bars

    counts: dict[Unit, tuple[bars.ProgressColumn, ...]] = {
        "cases": (bars.MofNCompleteColumn(), bars.TimeElapsedColumn()),
        "bytes": (bars.DownloadColumn(), bars.TransferSpeedColumn(), bars.TimeRemainingColumn()),
        "share": (bars.TaskProgressColumn(), bars.TimeRemainingColumn()),
        "jobs": (bars.MofNCompleteColumn(), bars.TextColumn("{task.fields[counts]}"), bars.TimeElapsedColumn()),
    }
    console = console or err()
    columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), *counts[unit])
    return bars.Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True)


@contextmanager
def spinner(text: str) -> Iterator[Callable[[str], None]]:
    """Turn a spinner on stderr where that is a terminal; what is yielded changes its text."""
    console = err()
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status(text) as status:
        yield lambda text: status.update(Text(text))
