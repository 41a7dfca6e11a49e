"""Tables for the terminal, for Markdown (GitHub's), and as tidy CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Group as Stack
from rich.console import RenderableType
from rich.table import Table as Grid
from rich.text import Text

from sslbench.config.text import counted
from sslbench.reporting.model import Cell, Column, Table, cell_text, manifest

CSV_COLUMNS = (
    "recipe", "labeled", "method", "loss", "plugin", "variant", "class", "metric", "mean", "std", "n",
    "expected", "unit", "protocol", "digest", "dataset", "block", "heading", "label", "low", "high",
)  # fmt: skip

_LABEL = 15  # columns that a row's name keeps when the table is wider than the terminal


def terminal(table: Table, width: int = 100) -> Stack:
    """The table for a rich console. Columns that do not fit go into further parts: no digit is ever cut off.

    Args:
        width: columns of the terminal.
    """
    widths = _widths(table)
    longest = max(map(len, [*(row.full_label for row in table.rows), *(group.title for group in table.groups)]))
    label_width = min(longest, max(_LABEL, width - sum(widths)))  # names fold before columns move
    if label_width + sum(widths) > width:
        label_width = min(longest, max(_LABEL, width // 3))
    parts: list[RenderableType] = [Text(table.heading, style="bold"), Text()]
    for places in _parts(table, widths, width - label_width):
        parts += [_part(table, places, label_width, widths), Text()]
    parts += [Text(note, style="dim") for note in (table.measured, *table.notes) if note]
    return Stack(*parts)


def markdown(table: Table) -> str:
    """The table as GitHub shows it, with caption, notes and the runs behind it."""
    header = ["Method", *(escape_markdown(_full_header(column, table)) for column in table.columns)]
    groups = []
    for group in table.groups:
        rows = [[escape_markdown(row.full_label), *map(_markdown_cell, row.cells, table.columns)] for row in group.rows]
        apart = [[""] * (len(table.columns) + 1)] if not group.title and group is not table.groups[0] else []
        groups.append((group.title, [*apart, *rows]))
    notes = [note for note in (table.measured, *_span_notes(table), *table.notes) if note]
    return markdown_table(table.heading, header, groups, notes, manifest([table]))


def markdown_table(
    heading: str,
    header: Sequence[str],
    groups: Iterable[tuple[str, Iterable[Sequence[str]]]],
    notes: Iterable[str],
    runs: Sequence[Mapping[str, Any]] = (),
) -> str:
    """A table as GitHub shows it.

    Args:
        heading: over the table, as text.
        header: the columns' names in Markdown, that of the rows' names first.
        groups: headings, which may be empty, as text, and rows of cells in Markdown.
        notes: under the table, as text.
        runs: those behind the numbers, as in `manifest`.
    """
    lines = [f"**{escape_markdown(heading)}**", "", _line(header), _line([":--", *["--:"] * (len(header) - 1)])]
    for title, rows in groups:
        if title:
            lines.append(_line([f"*{escape_markdown(title)}*", *[""] * (len(header) - 1)]))
        lines += map(_line, rows)
    lines += ["", *(f"- {escape_markdown(note)}" for note in notes)]
    if runs:
        listed = [f"- `{item['run']}`" for item in runs]
        lines += ["", f"<details><summary>{counted(len(listed), 'run')}</summary>", "", *listed, "", "</details>"]
    return "\n".join(lines) + "\n"


def tidy_csv(tables: Iterable[Table]) -> str:
    """One line per number, unrounded, columns `CSV_COLUMNS`; mean and std are empty where there is none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    lines: dict[tuple[object, ...], tuple[object, ...]] = {}
    for table in tables:
        for heading, row in ((group.title, row) for group in table.groups for row in group.rows):
            for cell, column in zip(row.cells, table.columns, strict=True):
                source = row.source(column)
                if source is None:
                    continue
                job = (source.recipe, source.labeled, source.method, source.loss, source.plugin, source.variant)
                numbers = (exact(cell.mean), exact(cell.std), cell.n, cell.expected, column.unit)
                shown = (source.dataset, column.block, heading, row.label, exact(cell.low), exact(cell.high))
                line = (*job, column.class_name, column.metric, *numbers, source.protocol, source.digest, *shown)
                # An upper bound stands in several tables and blocks, but is one result.
                lines.setdefault((*line[:8], source.protocol, source.digest), line)
    writer.writerows(lines.values())
    return out.getvalue()


# ------------------------------------------------------------------------------------------------- terminal


def _parts(table: Table, widths: list[int], room: int) -> list[list[int]]:
    """Columns in as few parts as fit into `room`: whole blocks where one fits, and those about equally wide."""
    places = list(range(len(widths)))
    if sum(widths) <= room or len(table.blocks) == 1:
        return filled_parts(places, widths, room)
    blocks = [[place for place in places if table.columns[place].block == block] for block in table.blocks]
    parts: list[list[int]] = []
    for block in blocks:
        if parts and sum(widths[place] for place in (*parts[-1], *block)) <= room:
            parts[-1] += block
        else:
            parts += filled_parts(block, widths, room)
    return parts


def filled_parts(places: list[int], widths: list[int], room: int) -> list[list[int]]:
    """Columns in as few parts as fit into `room`, and those about equally wide.

    Args:
        places: which of the columns, in order.
        widths: of all columns.
    """

    def filled(room: int) -> list[list[int]]:
        parts: list[list[int]] = [[]]
        for place in places:
            if parts[-1] and sum(widths[other] for other in parts[-1]) + widths[place] > room:
                parts.append([])
            parts[-1].append(place)
        return parts

    fewest = len(filled(room))
    tightest = next((less for less in range(1, room) if len(filled(less)) == fewest), room)
    return filled(tightest)


def _part(table: Table, places: list[int], label_width: int, widths: list[int]) -> RenderableType:
    grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, padding=0, header_style="bold")
    grid.add_column("", width=label_width, overflow="fold")
    for place in places:
        header = "\n".join(_header_lines(table.columns[place]))
        grid.add_column(header, justify="right", no_wrap=True, width=widths[place] - 1)
    for group in table.groups:
        grid.add_section()
        if group.title:
            grid.add_row(Text(group.title, style="italic"))
        for row in group.rows:
            cells = [_terminal_cell(row.cells[place], table.columns[place]) for place in places]
            grid.add_row(Text(row.full_label), *cells)
    over = [_over(spans, places, label_width, widths) for spans in _headings(table.columns)]
    return Stack(*(Text(line, style="bold", no_wrap=True) for line in over if line.strip()), grid)


def _headings(columns: Sequence[Column]) -> list[list[str]]:
    """What stands over several columns in lines of its own, per column: blocks, and the classes that have metrics
    below them."""
    return [
        [column.block for column in columns],
        [column.span if column.by == "class" else "" for column in columns],
    ]


def _over(spans: Sequence[str], places: list[int], label_width: int, widths: list[int]) -> str:
    """A line of headings, each in the middle of a rule over its columns."""
    line = " " * label_width
    for span, members in groupby(places, key=lambda place: spans[place]):
        room = sum(widths[place] for place in members) - 1
        line += " " + (f" {_shortened(span, room - 2)} ".center(room, "─") if span else " " * room)
    return line


def _shortened(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"


def _widths(table: Table) -> list[int]:
    """Of each column, with the blank before it. Columns under a heading share what it needs."""
    widths = [_column_width(table, place) + 1 for place in range(len(table.columns))]
    for spans in _headings(table.columns):
        keys = [(span, column.block) for span, column in zip(spans, table.columns, strict=True)]
        for (span, _), members in groupby(range(len(keys)), key=lambda place: keys[place]):
            places = list(members)
            lacking = len(span) + 3 - sum(widths[place] for place in places) if span else 0
            for number in range(max(lacking, 0)):
                widths[places[number % len(places)]] += 1
    return widths


def _column_width(table: Table, place: int) -> int:
    column = table.columns[place]
    texts = [_terminal_cell(row.cells[place], column).plain for row in table.rows]
    return max(map(len, [*_header_lines(column), *texts]))


def _header_lines(column: Column) -> tuple[str, str]:
    if column.span and column.by == "metric":
        return column.header, column.span
    return column.header, column.sense


def _terminal_cell(cell: Cell, column: Column) -> Text:
    style = ("", "bold", "underline", "italic")[cell.rank]
    text = Text("".join(cell_text(cell, column)), style=style)
    return Text.assemble(text, cell.signs) if style or cell.signs else text


# ------------------------------------------------------------------------------------------------- markdown


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _full_header(column: Column, table: Table) -> str:
    block = f"{column.block}: " if column.block else ""
    if not column.span:
        return f"{block}{column.header} {column.sense}".strip()
    if column.by == "class":
        return f"{block}{column.span} {column.header} {column.sense}".strip()
    several = len({other.span for other in table.columns} - {""}) > 1
    return block + (f"{column.header} ({column.span})" if several else column.header)


def _span_notes(table: Table) -> list[str]:
    spans = dict.fromkeys(
        (column.span, column.sense) for column in table.columns if column.span and column.by == "metric"
    )
    return [f"Columns by class: {' '.join(part).strip()}." for part in spans]


def _markdown_cell(cell: Cell, column: Column) -> str:
    text = escape_markdown("".join(cell_text(cell, column)))
    before, after = (("", ""), ("**", "**"), ("<ins>", "</ins>"), ("*", "*"))[cell.rank]  # GitHub drops <u>
    return before + text + after + cell.signs


def escape_markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", text.replace("&", "&amp;"))


# ------------------------------------------------------------------------------------------------------ csv


def exact(number: float) -> str:
    """A number that is read back as the same; empty for NaN."""
    return "" if math.isnan(number) else repr(float(number))
