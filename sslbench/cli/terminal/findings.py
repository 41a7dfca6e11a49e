"""What `doctor` and `audit` found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sslbench.cli.terminal.tables import Rows, indented, number_table, say

_STATUSES = {"ok": "green", "warn": "yellow", "fail": "bold red"}

_SEVERITIES = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "bold red"}


def checks(console: Console, rows: Rows) -> None:
    """What `doctor` found, a line each, with the remedy below where there is one."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    area = ""
    for row in rows:
        if area and row["area"] != area:
            table.add_row()
        area = row["area"]
        text = Text(row["message"])
        if row["remedy"]:
            text.append(f"\n-> {row['remedy']}", style="bold")
        table.add_row(Text(row["status"], style=_STATUSES[row["status"]]), row["name"], text)
    indented(console, table)


def audit(console: Console, facts: Mapping[str, Any]) -> None:
    """What `audit` found: a line per finding, the lists, the classes."""
    subset = "" if facts["held"] == facts["official"] else f" of {facts['official']}"
    say(console, f"{facts['dataset']} ({facts['preprocessing']}): {facts['held']}{subset} cases", "bold")
    say(console, f" {facts['folder']}", "dim")
    console.print()
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in facts["findings"]:
        text = Text(row["message"])
        if row["remedy"]:
            text.append(f"\n-> {row['remedy']}", style="bold")
        table.add_row(Text(row["severity"], style=_SEVERITIES[row["severity"]]), Text(row["check"]), text)
    indented(console, table)
    if facts["lists"]:
        console.print()
        _lists(console, facts["lists"])
    if facts["classes"]:
        console.print()
        _class_shares(console, facts)
    counts = Counter(row["severity"] for row in facts["findings"])
    named = [
        f"{counts[kind]} {kind}{'' if kind == 'ok' or counts[kind] == 1 else 's'}"
        for kind in reversed(_SEVERITIES)
        if counts[kind]
    ]
    console.print()
    say(console, f"{facts['status']}: {', '.join(named)}", _SEVERITIES[facts["status"]])


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
