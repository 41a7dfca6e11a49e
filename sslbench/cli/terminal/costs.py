"""The cost of a launch and of grids."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.text import Text

from sslbench.cli.console import say
from sslbench.cli.terminal.tables import Rows, indented, number_table
from sslbench.config.text import counted, first_few

_HERE = {"cuda": "on this GPU", "cpu": "on this processor"}
_DEVICES = {"cuda": "of one GPU", "cpu": "of this processor"}
_PREFIXES = {
    "operations": (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9)),
    "bytes": (("T", 1e12), ("G", 1e9), ("M", 1e6)),
}


def launch(console: Console, facts: Mapping[str, Any]) -> None:
    """Draw what a launch would cost, in a few lines."""
    whole, left, actions = facts["all"], facts["left"], facts["actions"]
    words = {"run": "to start", "continue": "to continue", "run again": "to run again", "wait": "running"}
    told = [
        f"{facts['finished']} finished",
        *(f"{count} {words[name]}" for name, count in actions.items() if name in words),
    ]
    say(console, f"{counted(facts['configurations'], 'configuration')}; jobs: {', '.join(told)}")
    if facts["shared"]:
        tables = [f"{name} {count}" for name, count in sorted(facts["shared"].items(), key=lambda item: -item[1])]
        say(console, f"{facts['shared_jobs']} of them are in other grids too: {first_few(tables, 8)}")
    rest = f" of {operations(whole['flop'])}" if left["flop"] < whole["flop"] else ""
    place = _DEVICES[whole["device"]]
    say(console, f"Training to do: {operations(left['flop'])}{rest}, about {hours(left['seconds'])} {place}")
    for line in _grounds(left):
        indented(console, Text(line, style="dim"))
    short = left["bytes"] > facts["free"]
    free = f"{size(facts['free'])} are free"
    say(console, f"Checkpoints to write: about {size(left['bytes'])}; ", (free, "bold red" if short else ""))


def resolution(console: Console, facts: Mapping[str, Any]) -> None:
    """Draw which difference a launch will resolve, in a line."""
    (seeds, points), (more, fewer) = facts["points"].items()
    told = f"{seeds} seeds resolve {points:.1f} {facts['unit']}, {more} would {fewer:.1f}"
    least = (
        f", more never below {facts['never_below']:.1f}: too few patients" if facts["never_below"] > fewer / 3 else ""
    )
    say(
        console, f"{told}{least}: found in about 80 of 100, by the spread of {counted(facts['pairs'], 'finished pair')}"
    )


def grids(console: Console, rows: Rows) -> None:
    """Draw grids with their jobs and what these cost."""
    *named, total = rows
    headers = ("grid", "configurations", "jobs", "shared", "operations", "time", "disk")
    table = number_table(*headers)
    for group, members in groupby(named, key=lambda row: row["group"]):
        if group:
            table.add_row(Text(group, style="bold"))
        for row in members:
            table.add_row(*_cells(row))
    table.add_row()
    table.add_row(*_cells({**total, "name": "all, each job once"}))
    indented(console, table)
    console.print()
    say(
        console,
        f"Time {_DEVICES[total['cost']['device']]}, training alone unless measured; shared: jobs of other grids too",
    )
    for line in _grounds(total["cost"]):
        say(console, line)


def _cells(row: Mapping[str, Any]) -> list[str]:
    cost = row["cost"]
    counts = [str(row[name]) for name in ("configurations", "jobs", "shared")]
    return [row["name"], *counts, operations(cost["flop"]), hours(cost["seconds"]), size(cost["bytes"])]


def _grounds(bill: Mapping[str, Any]) -> list[str]:
    """What the time of a bill stands on."""
    told = []
    if bill["measured"]:
        told.append(f"{counted(bill['measured'], 'job')}: measured, by finished runs of this kind on this machine")
    if bill["modelled"]:
        rate = f"{operations(bill['flop_per_second'])}/s"
        source = "an assumption; sslbench bench measures it"
        if bill["rate_measured"]:
            source = "that of finished runs of other kinds on this machine"
        if bill["rate_date"]:
            source = f"measured on {bill['rate_date']} {_HERE[bill['device']]}"
        told.append(f"{counted(bill['modelled'], 'job')}: modelled at {rate}, {source}; training's passes alone")
    if bill["unknown"]:
        told.append(f"{counted(bill['unknown'], 'job')}: not known, as the method does not say what a step costs")
    return told


def operations(number: float) -> str:
    """A number of floating-point operations: `2.94 EFLOP`."""
    return _prefixed(number, "operations", "FLOP")


def size(number: float) -> str:
    """A number of bytes: `35.4 GB`."""
    return _prefixed(number, "bytes", "B")


def hours(seconds: float) -> str:
    """A time for planning: `40 s`, `35 min`, `14.6 h`, `219 h`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 360_000 else f"{seconds / 3600:.0f} h"


def _prefixed(number: float, kind: str, unit: str) -> str:
    prefix, factor = next((pair for pair in _PREFIXES[kind] if number >= pair[1]), _PREFIXES[kind][-1])
    value = number / factor
    return f"{value:.0f} {prefix}{unit}" if value >= 100 else f"{value:.3g} {prefix}{unit}"
