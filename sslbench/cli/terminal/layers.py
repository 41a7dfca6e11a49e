"""The values of configurations with the layers that they came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from sslbench.cli.console import say
from sslbench.cli.terminal.tables import Rows, field_table, indented


def layers(console: Console, resolved: Rows) -> None:
    """The values of configurations with the layer that each came from: what all share first, then what differs.

    Args:
        console: to print on.
        resolved: `title`, `values` and `layers` of each.
    """
    first = resolved[0]
    shared = [path for path in first["values"] if all(_same(row, first, path) for row in resolved)]
    if len(resolved) > 1:
        _values(console, "all jobs", first, shared)
    for row in resolved:
        own = [path for path in row["values"] if len(resolved) == 1 or path not in shared]
        _values(console, row["title"], row, own)


def _same(row: Mapping[str, Any], other: Mapping[str, Any], path: str) -> bool:
    return all(row[key].get(path) == other[key].get(path) and path in row[key] for key in ("values", "layers"))


def _values(console: Console, title: str, row: Mapping[str, Any], paths: list[str]) -> None:
    say(console, (title, "bold"))
    if not paths:
        console.print(" nothing of its own")
    else:
        indented(console, field_table([(path, row["values"][path], row["layers"][path]) for path in paths]))
    console.print()
