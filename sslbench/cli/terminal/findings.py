"""Findings of `audit` and checks of `doctor`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sslbench.cli.console import say
from sslbench.cli.terminal.tables import Rows, indented, number_table

_STYLES = {
    "ok": "green",
    "note": "cyan",
    "warn": "yellow",
    "warning": "yellow",
    "fail": "bold red",
    "error": "bold red",
}
_SEVERITIES = ("error", "warning", "note", "ok")


def findings(console: Console, rows: Iterable[tuple[str, str, Mapping[str, Any]]]) -> None:
    """Draw a line per thing that was looked at, with the remedy below where there is one.

    Args:
        console: to print on.
        rows: status, name and a mapping with `message` and `remedy` of each; an area of its own (`area`, where the
            mapping has one) is set apart by an empty line.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column()
    table.add_column()
    table.add_column(overflow="fold")
    last = None
    for status, name, row in rows:
        if last is not None and row.get("area") != last:
            table.add_row()
        last = row.get("area")
        text = Text(row["message"])
        if row["remedy"]:
            text.append(f"\n-> {row['remedy']}", style="bold")
        table.add_row(Text(status, style=_STYLES[status]), Text(name), text)
    indented(console, table)


def checks(console: Console, rows: Rows) -> None:
    """Draw the checks of `doctor`."""
    findings(console, ((row["status"], row["name"], row) for row in rows))


def audit(console: Console, facts: Mapping[str, Any]) -> None:
    """Draw the report of `audit`: a line per finding, the lists, the classes."""
    subset = "" if facts["held"] == facts["official"] else f" of {facts['official']}"
    say(console, (f"{facts['dataset']} ({facts['preprocessing']}): {facts['held']}{subset} cases", "bold"))
    say(console, (f" {facts['folder']}", "dim"))
    console.print()
    findings(console, ((row["severity"], row["check"], row) for row in facts["findings"]))
    if facts["lists"]:
        console.print()
        _lists(console, facts["lists"])
    if facts["classes"]:
        console.print()
        _class_shares(console, facts)
    counts = Counter(row["severity"] for row in facts["findings"])
    named = [
        f"{counts[kind]} {kind}{'' if kind == 'ok' or counts[kind] == 1 else 's'}"
        for kind in _SEVERITIES
        if counts[kind]
    ]
    console.print()
    say(console, (f"{facts['status']}: {', '.join(named)}", _STYLES[facts["status"]]))


def _lists(console: Console, rows: Rows) -> None:
    mixed = any(0 < row["mri"] < row["cases"] for row in rows)
    table = number_table("list", "entries", "held", "cases", *(["MRI"] if mixed else []))
    for (name, unit), group in groupby(rows, key=lambda row: (row["splits"], row["unit"])):
        table.add_row(Text(f"splits {name}, {unit}s", style="italic"))
        for row in group:
            held = Text(str(row["held"]), style="" if row["held"] == row["official"] else "yellow")
            more = [str(row["mri"])] if mixed else []
            table.add_row(Text(f" {row['part']}"), str(row["official"]), held, str(row["cases"]), *more)
    indented(console, table)


def _class_shares(console: Console, facts: Mapping[str, Any]) -> None:
    from sslbench.data.audit import percent

    drawn = ["of a patch", "patches with it"] if facts["patches"] else []
    table = number_table("class", "of all voxels", *drawn, "cases with it")
    for row in facts["classes"]:
        patch = [percent(row["patch_share"]), percent(row["patches_with"])] if drawn else []
        name = Text(f"{row['label']} {row['name']}")
        table.add_row(name, percent(row["share"]), *patch, f"{row['cases']}")
    indented(console, table)
    if drawn:
        size = " x ".join(map(str, facts["patch_size"]))
        text = f"{facts['patches']} random patches of {size}, drawn as recipe {facts['recipe']} draws them"
        indented(console, Text(text, style="dim"))
