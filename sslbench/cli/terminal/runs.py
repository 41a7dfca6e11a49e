"""The standing of runs, and the plan of a launch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sslbench.cli.console import say, wrapped
from sslbench.cli.terminal.tables import Rows, indented
from sslbench.config.text import split_outside_brackets

_STATES = {
    "finished": "green",
    "failed": "red",
    "running": "cyan",
    "interrupted": "yellow",
    "damaged": "red",
    "pending": "dim",
}

_NARROWEST = 24  # columns of the terminal that a run's name keeps

_SPARE = ("it/s", "loss")  # what a narrow terminal does without, least missed first
_DEAR = ("left", "step")  # what it does without before it breaks a word

_JOB = ("recipe", "labeled", "cell")  # what names a job, the seed apart


def runs(console: Console, rows: Rows) -> None:
    """Draw where runs stand, under headings of recipe and budget; then the reasons of those that did not end well."""
    from sslbench.cli.terminal.live import progress_cells

    twins = Counter((*(row[part] for part in _JOB), row["seed"]) for row in rows)
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number, row in enumerate(rows):
        # Seeds that never began have nothing to tell each on its own.
        own = () if row["state"] == "pending" else (number,)
        job = tuple(row[part] for part in _JOB)
        line = lines.setdefault((*job, *own), {**row, "seeds": []})
        # The digest tells apart what differs in nothing else: an older version, other case lists.
        line["seeds"].append(f"{row['seed']}" + (f" {row['digest']}" if twins[(*job, row["seed"])] > 1 else ""))
    cells: list[list[Text]] = []
    for line in lines.values():
        step, loss, score, *pace = progress_cells(line["progress"])
        if line["state"] != "running":
            pace = ["", ""]
        step = "" if line["state"] == "finished" else step
        state = Text(line["state"], style=_STATES.get(line["state"], ""))
        cells.append([Text(", ".join(line["seeds"])), state, *map(Text, (step, loss, score, *pace))])
    headers = ["seed", "state", "step", "loss", "val. DSC", "it/s", "left"]
    _grouped(console, list(lines.values()), headers, cells)
    for row in rows:
        if process := row.get("process"):
            console.print()
            say(console, (f"running: {row['run']}", _STATES["running"]))
            indented(console, Text(f"process {process['pid']} on {process['host']}"), 2)
    for row in rows:
        if row["error"]:
            console.print()
            say(console, (f"{row['state']}: {row['run']}", _STATES.get(row["state"], "")))
            indented(console, Text(row["error"]), 2)
    counts = {state: sum(row["state"] == state for row in rows) for state in _STATES}
    console.print()
    total = f"{len(rows)} run{'' if len(rows) == 1 else 's'}: "
    say(console, total + ", ".join(f"{count} {state}" for state, count in counts.items() if count))


def plan(console: Console, rows: Rows) -> None:
    """The jobs of a launch; seeds that share their fate share a line."""
    merged: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(row[part] for part in (*_JOB, "state", "action"))
        merged.setdefault(key, {**row, "seeds": []})["seeds"].append(str(row["seed"]))
    lines = list(merged.values())
    cells = [
        [
            Text(", ".join(line["seeds"])),
            Text(line["state"], style=_STATES.get(line["state"], "")),
            Text("wait for its process" if line["action"] == "wait" else line["action"]),
        ]
        for line in lines
    ]
    _grouped(console, lines, ["seed", "state", "plan"], cells)


def _grouped(console: Console, rows: Rows, headers: list[str], cells: list[list[Text]]) -> None:
    """Rows under a heading per recipe and budget, columns aligned over all of them.

    Columns without content are left out, and so are those of `_SPARE` and `_DEAR` where the terminal is too narrow.
    """
    used = [place for place in range(len(headers)) if any(line[place].plain for line in cells)]
    widths = {place: max(len(headers[place]), *(len(line[place].plain) for line in cells)) for place in used}

    def room() -> int:
        """Return the width left for the names, after an indent of one and two blanks behind each column."""
        return console.width - 3 - sum(widths[place] + 2 for place in used)

    shared = _shared(rows)
    own = [_own(row["cell"], shared) for row in rows]
    word = max(len(word) for name in own for word in wrapped(Text(name), _NARROWEST - 2).plain.splitlines())
    least = max(min(_NARROWEST, max(map(len, own))), word)
    # Where it is tight a list of seeds folds first, then columns go, and last of all the names fold.
    seed = max(len(part) for line in cells for part in ["seed", *line[0].plain.split(", ")])
    if room() < least:
        widths[0] = max(seed, widths[0] + room() - least)
    for header in (*_SPARE, *_DEAR):
        if room() < (least if header in _SPARE else word) and header in headers and headers.index(header) in used:
            used.remove(headers.index(header))
    broken = any(len(name) > room() for name in own)
    named = [wrapped(_cell(name, broken), max(room(), 1)) for name in own]
    longest = max(len(line) for name in named for line in ["run", *name.plain.splitlines()])

    def table(lines: Iterable[int] = ()) -> Table:
        made = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=not lines, header_style="bold")
        made.add_column("run", width=min(longest, max(12, room())), overflow="fold")
        for place in used:
            left = headers[place] in ("seed", "state", "plan")
            folds = headers[place] == "seed"
            made.add_column(headers[place], width=widths[place], no_wrap=not folds, justify="left" if left else "right")
        for line in lines:
            made.add_row(named[line], *(cells[line][place] for place in used))
        return made

    if shared:
        indented(console, wrapped(Text(f"all runs: ~{','.join(shared)}", style="italic"), console.width - 1))
    indented(console, table())
    place: Callable[[int], tuple[str, str]] = lambda line: (rows[line]["recipe"], rows[line]["labeled"])  # noqa: E731
    for (recipe, labeled), lines in groupby(range(len(rows)), key=place):
        say(console, (f"{recipe}/{labeled}", "italic"))
        indented(console, table(list(lines)))


def _shared(rows: Rows) -> list[str]:
    """Return what all of several runs set to the same value."""
    variants = [split_outside_brackets(row["cell"].partition("~")[2]) for row in rows]
    several = len({row["cell"] for row in rows}) > 1
    return [part for part in variants[0] if several and all(part in parts for parts in variants)]


def _own(cell: str, shared: list[str]) -> str:
    """The name of a run without what all share."""
    named, _, variant = cell.partition("~")
    parts = [part for part in split_outside_brackets(variant) if part not in shared]
    return f"{named}~{','.join(parts)}" if parts else named


def _cell(cell: str, broken: bool) -> Text:
    """Method, loss and plugin, and how the job differs from them, which may stand on a line of its own."""
    named, _, variant = cell.partition("~")
    text = Text(named)
    if variant:
        text.append("\n~" if broken else "~", style="dim").append(variant, style="dim")
    return text
