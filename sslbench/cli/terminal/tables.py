"""Pieces that several drawings are made of: lines, tables, values."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

Rows = Sequence[Mapping[str, Any]]


def value_text(value: Any) -> str:
    """A value of a configuration as one would type it."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def table_of(*headers: str, style: str = "bold") -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=style, pad_edge=False)
    for number, header in enumerate(headers):
        table.add_column(header, overflow="fold", no_wrap=number == 0)
    return table


def indented(console: Console, content: Any, left: int = 1) -> None:
    console.print(Padding(content, (0, 0, 0, left)))


def number_table(*headers: str) -> Table:
    """A table whose first column is a name, and all others are numbers."""
    table = table_of(*headers)
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = True
    return table


def print_blocks(
    console: Console, headers: Sequence[str], rows: Sequence[Sequence[Text]], left: Collection[str]
) -> None:
    """Print a table whose first column is a name. Columns that do not fit go into further blocks, the name with them.

    Args:
        console: to print on.
        headers: of all columns.
        rows: a cell per column; lines of a cell are its own.
        left: headers of columns that are no numbers.
    """
    widths = [
        max(map(cell_len, [header, *(line for row in rows for line in row[place].plain.splitlines())]))
        for place, header in enumerate(headers)
    ]
    room = console.width - 1 - widths[0] - 2
    blocks: list[list[int]] = [[]]
    for place in range(1, len(headers)):
        if blocks[-1] and sum(widths[other] + 2 for other in [*blocks[-1], place]) - 2 > room:
            blocks.append([])
        blocks[-1].append(place)
    for number, places in enumerate(blocks):
        if number:
            console.print()
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
        for place in [0, *places]:
            aligned: Any = "left" if place == 0 or headers[place] in left else "right"
            table.add_column(headers[place], justify=aligned, no_wrap=True, min_width=widths[place])
        for row in rows:
            table.add_row(*(row[place] for place in [0, *places]))
        indented(console, table)


def field_table(rows: Iterable[tuple[str, Any, str]]) -> Table:
    table = table_of("field", "value", "from", style="dim")
    for path, value, layer in rows:
        table.add_row(path, Text(value_text(value)), Text(layer, style="dim" if layer == "default" else ""))
    return table


def by_method(console: Console, what: str, lines: Mapping[str, Mapping[str, Text]], methods: Sequence[str]) -> None:
    """Print a mark for each name and method. Methods that do not fit side by side stand upright, in as many blocks as
    the width asks for.

    Args:
        console: to print on.
        what: the lines are.
        lines: by name the mark of each method, where it has one.
        methods: in order.
    """
    left = max(map(len, (what, *lines))) + 4
    upright = left + sum(len(method) + 2 for method in methods) > console.width
    room = max((console.width - left) // 3, 1) if upright else len(methods)
    size = -(-len(methods) // -(-len(methods) // room))  # blocks of like size
    for first in range(0, len(methods), size):
        part = methods[first : first + size]
        table = table_of(what, *("\n".join(method) if upright else method for method in part))
        for name, marks in lines.items():
            table.add_row(Text(name), *(marks.get(method, Text("")) for method in part))
        if first:
            console.print()
        indented(console, table)
