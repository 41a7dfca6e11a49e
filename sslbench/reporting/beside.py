"""Comparisons for the terminal, for Markdown (GitHub's), and as tidy CSV: measured, published, difference."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rich import box
from rich.console import Group as Stack
from rich.console import RenderableType
from rich.table import Table as Grid
from rich.text import Text

from sslbench.metrics.aggregate import AVERAGE
from sslbench.reporting.comparison import (
    LEAVES_OUT_0,
    OTHER_UNIT,
    ComparedCell,
    ComparedRow,
    Comparison,
    column_name,
)
from sslbench.reporting.model import Column, cell_text, manifest
from sslbench.reporting.printed import SUSPECT, printed_text
from sslbench.reporting.render import escape_markdown, exact, filled_parts, markdown_table

Kind = Literal["here", "paper", "Δ"]
Style = Literal["", "best", "second", "third", "grey", "marked"]

COMPARED_COLUMNS = (
    "table", "row", "dataset", "labeled", "recipe", "method", "loss", "plugin", "variant", "class", "metric", "mean",
    "std", "n", "expected", "unit", "published", "published_std", "published_unit", "repeats", "spread", "flag",
    "difference", "half_width", "status", "digest",
)  # fmt: skip

_LABEL = 12  # columns that a row's name keeps when the table is wider than the terminal
_RANKS: dict[int, Style] = {1: "best", 2: "second", 3: "third"}
_STYLES: dict[Style, str] = {
    "": "", "best": "bold", "second": "underline", "third": "italic", "grey": "dim", "marked": ""
}  # fmt: skip


@dataclass(frozen=True)
class ShownText:
    """A text as a table shows it."""

    text: str
    style: Style = ""


@dataclass(frozen=True)
class Beside:
    """A column of a comparison, as two or three: measured, published, and the difference where any row has one.

    Attributes:
        kinds: which, in order.
        cells: those of every row.
        other_unit: whether print has another unit than ours, or states none.
    """

    column: Column
    kinds: tuple[Kind, ...]
    cells: tuple[tuple[ShownText, ...], ...]
    other_unit: bool

    @property
    def name(self) -> str:
        """The column's name, marked where units differ: `Avg. ASD‡`."""
        return column_name(self.column) + (OTHER_UNIT if self.other_unit else "")

    @property
    def title(self) -> str:
        """The name with direction and unit: `Avg. DSC ↑ (%)`."""
        return f"{self.name} {self.column.sense}".strip()


def beside(comparison: Comparison) -> list[Beside]:
    """The columns of a comparison as texts."""
    found = []
    for place, column in enumerate(comparison.columns):
        cells = [_shown(row, place, column) for row in comparison.rows]
        kinds: tuple[Kind, ...] = ("here", "paper", "Δ") if any(cell[2].text for cell in cells) else ("here", "paper")
        other_unit = any(row.cells[place].other_unit for row in comparison.rows)
        found.append(Beside(column, kinds, tuple(cell[: len(kinds)] for cell in cells), other_unit))
    return found


def _shown(row: ComparedRow, place: int, column: Column) -> tuple[ShownText, ShownText, ShownText]:
    cell = row.cells[place]
    first = next((number for number, other in enumerate(row.cells) if other.published), None)
    difference = ShownText(row.origin, "grey") if row.origin and place == first else _difference(cell, column)
    return _measured(cell, column), ShownText(_published(row, cell, column), "grey" if row.origin else ""), difference


def _measured(cell: ComparedCell, column: Column) -> ShownText:
    if cell.measured is None:
        return ShownText("")
    text = "".join(cell_text(cell.measured, column)) + cell.measured.signs
    return ShownText(text, _RANKS.get(cell.measured.rank, ""))


def _published(row: ComparedRow, cell: ComparedCell, column: Column) -> str:
    """A published number as printed, with its marks; its spread where the column shows spreads."""
    if row.published is None or cell.published is None:
        return ""
    shown = cell.published if column.std_decimals is not None else replace(cell.published, printed_std="")
    return printed_text(row.published, column.metric, shown)


def _difference(cell: ComparedCell, column: Column) -> ShownText:
    difference = cell.difference
    if difference is None:
        return ShownText("")
    text = f"{difference.value:+z.{column.decimals}f}"
    if difference.shaded:
        return ShownText(text + (OTHER_UNIT if cell.other_unit else SUSPECT), "grey")
    if difference.interval:
        text += f"±{difference.half:.{column.std_decimals or 1}f}"
    return ShownText(text + LEAVES_OUT_0, "marked") if difference.marked else ShownText(text)


# ------------------------------------------------------------------------------------------------------- terminal


def terminal_beside(comparison: Comparison, width: int = 100) -> Stack:
    """A comparison for a rich console; columns that do not fit go into further blocks, the three of one together.

    Args:
        width: columns of the terminal.
    """
    columns = beside(comparison)
    titles = [group.title for group in comparison.groups]
    longest = max(map(len, [*titles, *(row.full_label for row in comparison.rows)]))
    averages = [column for column in columns if column.column.class_name == AVERAGE]
    label_width = min(longest, max(_LABEL, width - sum(map(_width, averages)), width // 5))  # names fold first
    parts: list[RenderableType] = [Text(comparison.heading, style="bold"), Text()]
    for some in (averages, [column for column in columns if column not in averages]):
        widths = [_width(column) for column in some]
        for places in filled_parts(list(range(len(some))), widths, width - label_width) if some else ():
            parts += [*_block(comparison, [some[place] for place in places], label_width), Text()]
    summary, *others = comparison.remarks
    return Stack(*parts, Text(summary), *(Text(said, style="dim") for said in others))


def _block(comparison: Comparison, columns: Sequence[Beside], label_width: int) -> tuple[Text, Grid]:
    # Where a title is too wide for its numbers, direction and unit of all stand on a line of their own.
    apart = any(len(column.title) > _width(column) - 2 for column in columns)
    lines = [" " * label_width] * (2 if apart else 1)
    grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, padding=0, header_style="bold")
    grid.add_column("", width=label_width, overflow="fold")
    for column in columns:
        told = (column.name, column.column.sense) if apart else (column.title,)
        lines = [f"{line}  {text.center(_width(column) - 2)}" for line, text in zip(lines, told, strict=True)]
        for number, width in enumerate(_widths(column)):
            kind = column.kinds[number]
            grid.add_column(kind, justify="right", no_wrap=True, width=width + (number == 0))  # parts it from the last
    number = 0
    for group in comparison.groups:
        grid.add_section()
        if group.title:
            grid.add_row(Text(group.title, style="italic"))
        for row in group.rows:
            texts = [shown for column in columns for shown in column.cells[number]]
            grid.add_row(Text(row.full_label), *(Text(shown.text, style=_STYLES[shown.style]) for shown in texts))
            number += 1
    return Text("\n".join(line.rstrip() for line in lines), style="bold"), grid


def _widths(column: Beside) -> list[int]:
    texts = [max(len(cells[number].text) for cells in column.cells) for number in range(len(column.kinds))]
    widths = [max(pair) for pair in zip(texts, map(len, column.kinds), strict=True)]
    widths[-1] += max(0, max(len(column.name), len(column.column.sense)) - sum(widths) - len(widths) + 1)
    return widths


def _width(column: Beside) -> int:
    """What a column and its differences take, with a blank before each and two before the first."""
    return sum(_widths(column)) + len(column.kinds) + 1


# ------------------------------------------------------------------------------------------------------- markdown


def markdown_beside(comparison: Comparison) -> str:
    """A comparison as GitHub shows it, with its notes and the runs behind it."""
    columns = beside(comparison)
    header = [f"{column.title} {kind}" if kind == "here" else kind for column in columns for kind in column.kinds]
    places = itertools.count()  # of rows, groups aside

    def cells(row: ComparedRow) -> list[str]:
        place = next(places)
        return [escape_markdown(row.full_label), *(_markdown(one) for column in columns for one in column.cells[place])]

    groups = [(group.title, [cells(row) for row in group.rows]) for group in comparison.groups]
    names = ["Row", *map(escape_markdown, header)]
    return markdown_table(comparison.heading, names, groups, comparison.remarks, manifest(comparison.tables))


def _markdown(shown: ShownText) -> str:
    text = escape_markdown(shown.text)
    forms: dict[Style, str] = {
        "best": "**{}**", "second": "<ins>{}</ins>", "third": "*{}*", "grey": "<sub>{}</sub>"
    }  # fmt: skip
    return forms.get(shown.style, "{}").format(text) if text else ""


# ------------------------------------------------------------------------------------------------------------ csv


def compared_csv(comparison: Comparison) -> str:
    """One line per row and column with a number on either side, columns `COMPARED_COLUMNS`.

    Measured numbers and differences are unrounded, published ones as printed.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COMPARED_COLUMNS)
    for row in comparison.rows:
        for cell, column in zip(row.cells, comparison.columns, strict=True):
            if cell.measured or cell.published:
                facts = compared_facts(comparison, row, cell, column)
                writer.writerow([_spelt(facts[name]) for name in COMPARED_COLUMNS])
    return out.getvalue()


def compared_facts(
    comparison: Comparison, row: ComparedRow, cell: ComparedCell, column: Column
) -> dict[str, str | float | int | None]:
    """One number twice, by `COMPARED_COLUMNS`; None where there is none."""
    source, published, printed = row.source, row.published, cell.published
    measured, difference = cell.measured, cell.difference
    return {
        "table": comparison.published.key,
        "row": row.label,
        "dataset": published.dataset if published else source.dataset if source else "",
        "labeled": published.labeled if published else source.labeled if source else "",
        "recipe": source.recipe if source else None,
        "method": source.method if source else published.method if published else "",
        "loss": source.loss if source else published.loss if published else "",
        "plugin": source.plugin if source else published.plugin if published else "",
        "variant": source.variant if source else None,
        "class": column.class_name,
        "metric": column.metric,
        "mean": _number(measured.mean) if measured else None,
        "std": _number(measured.std) if measured else None,
        "n": measured.n if measured else None,
        "expected": measured.expected if measured else None,
        "unit": column.unit,
        "published": printed.printed if printed else None,
        "published_std": (printed.printed_std or None) if printed else None,
        "published_unit": printed.unit if printed else None,
        "repeats": published.repeats if published else None,
        "spread": published.spread if published else None,
        "flag": _flag(cell),
        "difference": difference.value if difference else None,
        "half_width": _number(difference.half) if difference else None,
        "status": status(row),
        "digest": source.digest if source else None,
    }


def status(row: ComparedRow) -> str:
    """Where a row stands: `compared`, or why not."""
    if row.published is None:
        return "not in the paper"
    if row.published.reason:
        return "no job"
    if row.source is None:
        return "not in the grid"
    if row.origin:
        return f"copied from {row.origin}"
    if row.settings:
        return "other settings"
    return "compared" if row.source.n else "not measured"


def _flag(cell: ComparedCell) -> str | None:
    printed = cell.published
    if printed is None:
        return None
    flags = {
        "misprint": printed.doubtful,
        "impossible": printed.impossible,
        "filled": printed.filled,
        "starred": cell.starred,
        "other unit": cell.other_unit,
    }
    return "; ".join(name for name, holds in flags.items() if holds) or None


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _spelt(value: str | float | int | None) -> str | int:
    return "" if value is None else exact(value) if isinstance(value, float) else value
