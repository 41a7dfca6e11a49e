"""The tables of `run.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 118


def draw(facts: Mapping[str, Any], path: Path) -> None:
    """Draw what was found, on the terminal and into a file.

    Args:
        facts: as gpu.json has them.
        path: of the file.
    """
    with path.open("w", encoding="utf-8") as file:
        for console in (Console(width=WIDTH), Console(file=file, width=WIDTH)):
            _draw(console, facts)


def _draw(console: Console, facts: Mapping[str, Any]) -> None:
    size = "small sizes, a dry run: no figure of a GPU" if facts["small"] or facts["device"] == "cpu" else "whole sizes"
    console.print(f"[bold]{facts['device']}[/bold], {size}; {facts['seconds']:.0f} s")
    for name, part in facts["parts"].items():
        console.print(f"\n[bold]{name}[/bold]: {part['status']} in {part['seconds']:.0f} s")
        if part["status"] != "ok":
            console.print(f"  {part['reason']}", markup=False)
            continue
        _DRAWINGS[name](console, part["found"])


def _facts(console: Console, found: Mapping[str, Any]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 1))
    for key, value in found.items():
        table.add_row(key, str(value))
    console.print(table)


def _rows(console: Console, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 1))
    for number, header in enumerate(headers):
        table.add_column(header, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _cells(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    headers = ("cell", "in", "step", "plain loop", "ratio", "GFLOP/s", "of conv", "counted", "peak GiB")
    _rows(
        console,
        headers,
        [
            [
                row["cell"],
                row["precision"],
                _ms(row["seconds"]),
                _ms(row["reference_seconds"]),
                f"{row['faster']:.2f} x",
                f"{row['flop_per_second'] / 1e9:.0f}",
                f"{100 * row['share']:.0f} %",
                _gib(row["counted"]),
                _gib(row["peak"]),
            ]
            for row in found
        ],
    )


def _repeats(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    told = {True: "told to repeat", False: "as torch is"}
    rows = [
        [
            row["job"],
            told[row["told"]],
            _yes(row["repeats"]),
            _yes(row["resumes"]),
            row["weights"],
            ", ".join(row["refused"]),
        ]
        for row in found
    ]
    _rows(console, ("training", "torch", "repeats", "resumes", "weights", "without a repeatable kernel"), rows)


def _layouts(console: Console, found: Sequence[Mapping[str, Any]]) -> None:
    names = {True: "channels last", False: "contiguous"}
    rows = [
        [
            row["cell"],
            row["precision"],
            names[row["channels_last"]],
            _ms(row["seconds"]),
            f"{row['convolutions'] / 1e9:.0f}",
            _gib(row["peak"]),
        ]
        for row in found
    ]
    _rows(console, ("cell", "in", "memory format", "step", "conv GFLOP/s", "peak GiB"), rows)


def _packing(console: Console, found: Mapping[str, Any]) -> None:
    rows = []
    for name, part in found.items():
        if isinstance(part, Mapping):
            console.print(f"  {name}: skipped, {part['skipped']}", markup=False)
            continue
        for row in part:
            rows.append(
                [
                    row["cell"],
                    name,
                    str(row["processes"]),
                    f"{row['steps_per_second']:.2f}",
                    f"{row['gain']:.2f} x",
                ]
            )
    _rows(console, ("cell", "", "processes", "steps a second", "of one"), rows)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def _gib(count: int | None) -> str:
    return "" if count is None else f"{count / 2**30:.2f}"


def _yes(value: bool) -> str:
    return "yes" if value else "NO"


_DRAWINGS = {
    "versions": _facts,
    "cells": _cells,
    "repeats": _repeats,
    "tests": _facts,
    "layouts": _layouts,
    "packing": _packing,
    "acdc": _facts,
}
