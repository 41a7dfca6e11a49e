"""Tables for the terminal, for Markdown (GitHub's), and as tidy CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable

from rich import box
from rich.console import Group as Stack
from rich.console import RenderableType
from rich.table import Table as Grid
from rich.text import Text

from sslbench.config.text import counted
from sslbench.metrics.aggregate import AVERAGE
from sslbench.reporting.model import PARTIAL, Cell, Column, Table, cell_text, manifest

CSV_COLUMNS = (
    "recipe", "labeled", "method", "loss", "plugin", "variant", "class", "metric", "mean", "std", "n",
    "expected", "unit", "protocol", "digest",
)  # fmt: skip

_LABEL = 15  # columns that a row's name keeps when the table is wider than the terminal


def terminal(table: Table, width: int = 100) -> Stack:
    """The table for a rich console. Columns that do not fit go into further blocks: no digit is ever cut off.

    Args:
        width: columns of the terminal.
    """
    widths = [_column_width(table, place) + 1 for place in range(len(table.columns))]
    longest = max(len(row.full_label) for row in table.rows)
    label_width = min(longest, max(_LABEL, width - sum(widths)))  # names fold before columns move
    if label_width + sum(widths) > width:
        label_width = min(longest, max(_LABEL, width // 3))
    parts: list[RenderableType] = [Text(table.heading, style="bold"), Text()]
    for places in filled_blocks(widths, width - label_width):
        parts += [_block(table, places, label_width), Text()]
    parts += [Text(note, style="dim") for note in (table.measured, *table.notes)]
    return Stack(*parts)


def markdown(table: Table) -> str:
    """The table as GitHub shows it, with caption, notes and the runs behind it."""
    header = ["Method", *(escape_markdown(_full_header(column, table)) for column in table.columns)]
    lines = [
        f"**{escape_markdown(table.heading)}**",
        "",
        _line(header),
        _line([":--", *["--:"] * len(table.columns)]),
    ]
    for group in table.groups:
        lines.append(_line([f"*{escape_markdown(group.title)}*", *[""] * len(table.columns)]))
        for row in group.rows:
            cells = [_markdown_cell(cell, column) for cell, column in zip(row.cells, table.columns, strict=True)]
            lines.append(_line([escape_markdown(row.full_label), *cells]))
    lines += ["", *(f"- {escape_markdown(note)}" for note in [table.measured, *_span_notes(table), *table.notes])]
    runs = [f"- `{item['run']}`" for item in manifest([table])]
    if runs:
        lines += ["", f"<details><summary>{counted(len(runs), 'run')}</summary>", "", *runs, "", "</details>"]
    return "\n".join(lines) + "\n"


def tidy_csv(tables: Iterable[Table]) -> str:
    """One line per number, unrounded, columns `CSV_COLUMNS`; mean and std are empty where there is none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    lines = {}
    for table in tables:
        for row in table.rows:
            for cell, column in zip(row.cells, table.columns, strict=True):
                source = row.source(column)
                if source is None:
                    continue
                job = (source.recipe, source.labeled, source.method, source.loss, source.plugin, source.variant)
                key = (*job, column.class_name, column.metric, source.protocol, source.digest)
                numbers = (exact(cell.mean), exact(cell.std), cell.n, cell.expected)
                # An upper bound stands in several tables, but is one result.
                lines[key] = (*key[:8], *numbers, column.unit, source.protocol, source.digest)
    writer.writerows(lines.values())
    return out.getvalue()


# ------------------------------------------------------------------------------------------------- terminal


def filled_blocks(widths: list[int], room: int) -> list[list[int]]:
    """Columns in as few blocks as fit into `room`, and those about equally wide."""

    def filled(room: int) -> list[list[int]]:
        blocks: list[list[int]] = [[]]
        for place, needed in enumerate(widths):
            if blocks[-1] and sum(widths[other] for other in blocks[-1]) + needed > room:
                blocks.append([])
            blocks[-1].append(place)
        return blocks

    fewest = len(filled(room))
    tightest = next((less for less in range(1, room) if len(filled(less)) == fewest), room)
    return filled(tightest)


def _block(table: Table, places: list[int], label_width: int) -> Grid:
    grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, padding=0, header_style="bold")
    grid.add_column("", width=label_width, overflow="fold")
    for place in places:
        header = "\n".join(_header_lines(table.columns[place]))
        grid.add_column(header, justify="right", no_wrap=True, width=_column_width(table, place))
    for group in table.groups:
        grid.add_section()
        grid.add_row(Text(group.title, style="italic"))
        for row in group.rows:
            cells = [_terminal_cell(row.cells[place], table.columns[place]) for place in places]
            grid.add_row(Text(row.full_label), *cells)
    return grid


def _column_width(table: Table, place: int) -> int:
    column = table.columns[place]
    texts = [_terminal_cell(row.cells[place], column).plain for row in table.rows]
    return max(map(len, [*_header_lines(column), *texts]))


def _header_lines(column: Column) -> tuple[str, str]:
    if column.class_name == AVERAGE:
        return column.header, column.sense
    return column.header, column.span


def _terminal_cell(cell: Cell, column: Column) -> Text:
    style = "bold" if cell.best else "underline" if cell.second else ""
    text = Text("±".join(filter(None, cell_text(cell, column))), style=style)
    return Text.assemble(text, PARTIAL if cell.marked else "")


# ------------------------------------------------------------------------------------------------- markdown


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _full_header(column: Column, table: Table) -> str:
    if column.class_name == AVERAGE:
        return f"{column.header} {column.sense}".strip()
    several = len({other.span for other in table.columns} - {""}) > 1
    return f"{column.header} ({column.span})" if several else column.header


def _span_notes(table: Table) -> list[str]:
    spans = dict.fromkeys((column.span, column.sense) for column in table.columns if column.span)
    return [f"Columns by class: {' '.join(part).strip()}." for part in spans]


def _markdown_cell(cell: Cell, column: Column) -> str:
    text = "±".join(filter(None, cell_text(cell, column)))
    text = f"**{text}**" if cell.best else f"<ins>{text}</ins>" if cell.second else text  # GitHub drops <u>
    return text + (PARTIAL if cell.marked else "")


def escape_markdown(text: str) -> str:
    """Any text as Markdown that shows it."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", text.replace("&", "&amp;"))


# ------------------------------------------------------------------------------------------------------ csv


def exact(number: float) -> str:
    """A number that is read back as the same; empty for NaN."""
    return "" if math.isnan(number) else repr(float(number))
