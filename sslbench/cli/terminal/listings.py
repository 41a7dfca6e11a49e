"""A listing: what a job can name."""

from __future__ import annotations

from itertools import groupby

from rich.console import Console
from rich.text import Text

from sslbench.cli.terminal.tables import Rows, indented, table_of


def names(console: Console, rows: Rows) -> None:
    """A listing: name, aliases where there are any, what it is; groups under their headings."""
    for number, (group, members) in enumerate(groupby(rows, key=lambda row: row.get("group", ""))):
        if number:
            console.print()
        if group:
            console.print(Text(group, style="bold"))
        _table(console, list(members))


def _table(console: Console, rows: Rows) -> None:
    aliased = any(row["aliases"] for row in rows)
    table = table_of("name", *(["aliases"] if aliased else []), "about")
    names = {row["name"] for row in rows}
    for row in rows:
        name = ("  " if row.get("preset_of") in names else "") + row["name"]  # behind what it configures
        cells = [name, *([", ".join(row["aliases"])] if aliased else []), row["about"]]
        table.add_row(*map(Text, cells))
    indented(console, table)
