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

# A text, or a plain one with its style.
Piece = str | Text | tuple[str, str | Style]

# What lies between the places where a line may be broken, best places first.
_JOINTS = [re.compile(form) for form in (r"\s*\S*\s*", r"\s*~?[^\s,~]*[\s,]*", r"\s*~?[^\s,~=/+]*[\s,=/+]*")]


def out() -> Console:
    """Make the console of results: stdout, at least 100 columns wide where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else max(100, int(os.environ.get("COLUMNS", 0) or 0)))


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


def wrapped(text: Text, width: int) -> Text:
    """Break a text into lines: at blanks; where a word is longer than a line, behind its commas and before its `~`;
    where a part is still longer, behind `= / +`. Its styles stay.

    Args:
        text: of any number of lines.
        width: of a line; one without a place to break may be longer.
    """
    lines: list[Text] = []
    for line in text.split("\n", allow_blank=True):
        places, start, end = [], 0, 0
        for piece in _pieces(line.plain, width):
            if end > start and end + len(piece.rstrip()) - start > width:
                places.append(end)
                start = end
            end += len(piece)
        lines += line.divide(places)
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


def _pieces(text: str, width: int, level: int = 0) -> Iterator[str]:
    """What may not be broken in lines of a width."""
    for piece in filter(None, _JOINTS[level].findall(text)):
        if len(piece.rstrip()) > width and level + 1 < len(_JOINTS):
            yield from _pieces(piece, width, level + 1)
        else:
            yield piece


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


def confirmed(question: str, yes: bool = False) -> bool:
    """Ask on a terminal; elsewhere nobody is asked, and only `yes` is one."""
    if yes:
        return True
    if not (sys.stdin.isatty() and err().is_terminal):
        note("nothing was changed: --yes does it")
        return False
    import typer

    return typer.confirm(question, err=True)


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
