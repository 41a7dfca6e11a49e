"""Losses by methods: where a combination has a meaning, and how training it ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from sslbench.cli.console import say
from sslbench.cli.terminal.tables import Rows, by_method


def matrix(console: Console, rows: Rows) -> None:
    """Losses by methods: where a combination has no meaning, and why."""
    found: dict[str, dict[str, Text]] = {}
    for row in rows:
        found.setdefault(row["loss"], {})[row["method"]] = _hole(row["holes"])
    by_method(console, "loss", found, list(dict.fromkeys(row["method"] for row in rows)))
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for reason in dict.fromkeys(row["holes"].values()):
            reasons.setdefault(reason, []).append(f"{row['method']} + {row['loss']}")
    console.print()
    for reason, where in reasons.items():
        say(console, (" hole", "yellow"), f" {reason}: {', '.join(where)}")
    holes, part = (sum(len(row["holes"]) == count for row in rows) for count in (2, 1))
    in_part = f", {part} with a meaning in 2-D or 3-D alone" if part else ""
    say(console, f" {len(rows)} cells: {len(rows) - holes} with a meaning, {holes} holes{in_part}")


def _hole(holes: Mapping[str, str]) -> Text:
    if not holes:
        return Text("✓", "green")
    return Text("·", "yellow") if len(holes) == 2 else Text("2" if "3d" in holes else "3", "yellow")


_ENDS = {"ran": "green", "failed": "bold red", "hole": "yellow"}


def cell(console: Console, row: Mapping[str, Any]) -> None:
    """Draw the result of training a cell: the last loss, or why there is none."""
    if row["status"] == "ran":
        told = f"loss {row['last']:.4g} after {row['steps']} steps, {row['seconds']:.1f} s"
    else:
        told = row["reason"]
    style = _ENDS[row["status"]]
    name = " + ".join(filter(None, (row["method"], row["loss"], row["plugin"]))) + f" {row['dims']}"
    say(console, (f" {row['status']:6}", style), f" {name}: {told}")


def cells(console: Console, rows: Rows) -> None:
    """The sum of a matrix of cells: losses by methods, 2-D and 3-D together."""
    marks = {"failed": Text("✗", "bold red"), "ran": Text("✓", "green"), "hole": Text("·", "yellow")}
    found: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        found.setdefault(row["loss"], {}).setdefault(row["method"], []).append(row["status"])
    worst = {
        loss: {method: marks[min(ends, key=[*marks].index)] for method, ends in line.items()}
        for loss, line in found.items()
    }
    console.print()
    by_method(console, "loss", worst, list(dict.fromkeys(row["method"] for row in rows)))
    counts = Counter(row["status"] for row in rows)
    say(console, f" {len(rows)} cells: " + ", ".join(f"{counts[name]} {name}" for name in _ENDS if counts[name]))
