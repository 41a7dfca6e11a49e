"""Tables as a page shows them: what every cell of HTML holds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice

from sslbench.reporting.beside import Beside, beside
from sslbench.reporting.comparison import LEAVES_OUT_0, Comparison
from sslbench.reporting.figures.plate import signed
from sslbench.reporting.gains import RowGain
from sslbench.reporting.labels import class_title, metric_style
from sslbench.reporting.model import NO_VALUE, STAR, Cell, Column, Row, Table, cell_text
from sslbench.reporting.page.words import interval, summary
from sslbench.reporting.standing import BlockStanding, Collapse
from sslbench.reporting.statistics import GapShare, TwoWay

_NONE = "–"
_BLANK = "\u2007"  # as wide as a digit
_RANKS = ("", "best", "second", "third")


@dataclass(frozen=True)
class HeaderCell:
    """A heading over columns.

    Attributes:
        text, sense: its words; direction and unit.
        across, down: columns and lines that it takes.
        column: the place of its one column, by which rows are sorted; None over several.
        size: mean voxels of the class, where columns of classes may be put in order of size; 0: not.
        group: number of the columns among which they are.
        falls: whether smaller is better.
    """

    text: str
    sense: str = ""
    across: int = 1
    down: int = 1
    column: int | None = None
    size: float = 0.0
    group: int = 0
    falls: bool = False


@dataclass(frozen=True)
class ShownCell:
    """A number: mean with what stands behind it.

    Attributes:
        mean, behind: as printed, with true minus signs.
        mark: `best`, `second`, `third`, or nothing.
        signs: behind the mean: that seeds are missing, that it is not told apart from the best.
        gain: of the row in this class; empty where there is none.
        wide: whether `behind` is an interval.
        pad: blanks that make `behind` as long as in other rows.
    """

    mean: str
    behind: str
    mark: str = ""
    signs: str = ""
    gain: str = ""
    wide: bool = False
    pad: str = ""


@dataclass(frozen=True)
class ShownRow:
    """A row: `key` is fit for an id."""

    key: str
    label: str
    cells: Sequence[ShownCell]


@dataclass(frozen=True)
class ShownTable:
    """A table.

    Attributes:
        key: fit for an id.
        header: lines of headings over the columns, the row names' apart.
        groups: headings, which may be empty, and rows.
        sized: whether columns of classes stand in another order than that of their sizes, which are known.
        gained: whether classes have gains.
    """

    key: str
    table: Table
    header: Sequence[Sequence[HeaderCell]]
    groups: Sequence[tuple[str, Sequence[ShownRow]]]
    sized: bool
    gained: bool

    @property
    def rows(self) -> list[ShownRow]:
        """All rows in order, groups aside."""
        return [row for _, rows in self.groups for row in rows]

    @property
    def summary(self) -> Sequence[str]:
        """What it says, in two sentences a block."""
        return summary(self.table)

    @property
    def notes(self) -> list[str]:
        """What is said under it, with the dash for no value that the page has."""
        return [note.replace(f"{NO_VALUE}: ", f"{_NONE}: ") for note in self.table.notes]

    @property
    def long(self) -> bool:
        """Whether it scrolls in a box of its own, under its headings."""
        return len(self.table.rows) > 40

    @property
    def wide(self) -> bool:
        """Whether it is printed across."""
        return len(self.table.columns) > 8


def shown_table(table: Table, key: str) -> ShownTable:
    """A table for a page.

    Args:
        key: fit for an id.
    """
    sizes = {standing.block: standing.lens.sizes for standing in table.standing}
    gains = {(held.row, held.block): held for held in table.gains}
    leading = {block: _leading(table, block) for block in table.blocks}
    rows = {
        row.label: ShownRow(f"{key}r{number}", row.full_label, [*_shown_cells(row, table, gains, leading)])
        for number, row in enumerate(table.rows)
    }
    rows = _aligned(rows, table.columns)
    return ShownTable(
        key,
        table,
        _header(table.columns, sizes),
        [(group.title, [rows[row.label] for row in group.rows]) for group in table.groups],
        _is_sized(table.columns, sizes),
        any(cell.gain for row in rows.values() for cell in row.cells),
    )


def _leading(table: Table, block: str) -> str:
    return next((column.metric for column in table.columns if column.block == block and not column.is_gain), "")


def _shown_cells(
    row: Row, table: Table, gains: Mapping[tuple[str, str], RowGain], leading: Mapping[str, str]
) -> Iterator[ShownCell]:
    for cell, column in zip(row.cells, table.columns, strict=True):
        held = gains.get((row.label, column.block))
        in_class = held.gain.classes.get(column.class_name) if held and column.metric == leading[column.block] else None
        yield _shown_cell(cell, column, _difference(in_class))


def _shown_cell(cell: Cell, column: Column, gain: str) -> ShownCell:
    mean, behind = (_with_minus(text) for text in cell_text(cell, column))
    return ShownCell(mean, behind.strip(), _RANKS[cell.rank], cell.signs, gain, column.is_gain)


def _with_minus(text: str) -> str:
    """A number with a true minus sign; a dash for none."""
    return _NONE if text == NO_VALUE else text.replace("-", "−")


def _aligned(rows: Mapping[str, ShownRow], columns: Sequence[Column]) -> dict[str, ShownRow]:
    """The rows with cells as long behind means as the longest of their column, so that points are below points."""
    longest = [max(len(row.cells[place].behind) for row in rows.values()) for place in range(len(columns))]
    return {
        label: replace(
            row,
            cells=[
                replace(cell, pad=_BLANK * (length - len(cell.behind)))
                for cell, length in zip(row.cells, longest, strict=True)
            ],
        )
        for label, row in rows.items()
    }


def _difference(found: TwoWay | None) -> str:
    """A gain in one class, marked where its interval leaves 0 out."""
    if found is None:
        return ""
    return signed(found.mean) + (LEAVES_OUT_0 if found.low > 0 or found.high < 0 else "")


# ----------------------------------------------------------------------------------------------------------- headings


def _header(columns: Sequence[Column], sizes: Mapping[str, Mapping[str, float]]) -> list[list[HeaderCell]]:
    """Headings in up to three lines: blocks, what columns share, columns."""
    spans = any(column.span for column in columns)
    lines: list[list[HeaderCell]] = [[], [], []]
    if any(column.block for column in columns):
        lines[0] = [HeaderCell(block, across=len([*own])) for block, own in groupby(c.block for c in columns)]
    parts = groupby(enumerate(columns), key=lambda item: (item[1].block, item[1].span))
    for group, ((_, span), own) in enumerate(parts):
        members = list(own)
        if spans and span:
            first = members[0][1]
            lines[1].append(HeaderCell(span, first.sense if first.by == "metric" else "", across=len(members)))
        for place, column in members:
            cell = HeaderCell(
                column.header,
                "" if span and column.by == "metric" else column.sense,
                down=2 if spans and not span else 1,
                column=place,
                size=sizes.get(column.block, {}).get(column.class_name, 0.0) if span and column.by == "metric" else 0.0,
                group=group,
                falls=column.direction == "down",
            )
            lines[1 if spans and not span else 2].append(cell)
    return [line for line in lines if line]


def _is_sized(columns: Sequence[Column], sizes: Mapping[str, Mapping[str, float]]) -> bool:
    for (block, span), own in groupby(columns, key=lambda column: (column.block, column.span)):
        found = [sizes.get(block, {}).get(column.class_name, 0.0) for column in own if column.by == "metric"]
        if span and found != sorted(found, reverse=True):
            return True
    return False


# ----------------------------------------------------------------------------------------------------- small and large


_DIFFERENCES = ("gain", "large", "small", "apart", "slope")


@dataclass(frozen=True)
class LensLine:
    """What happens to small and to large structures in a row, as texts; gains are over `baseline`."""

    label: str
    baseline: str
    gain: str
    large: str
    small: str
    apart: str
    slope: str
    better: str
    lost: str
    worst: str


@dataclass(frozen=True)
class ShownLens:
    """Rows over one block of a table by the size of structures; `large` and `small` name the classes."""

    block: str
    large: str
    small: str
    lines: Sequence[LensLine]

    @property
    def gained(self) -> bool:
        """Whether any row has a gain."""
        return any(line.gain.strip(_BLANK + " ") != _NONE for line in self.lines)


def lenses(table: Table, most: int) -> list[ShownLens]:
    """Gains in large and small structures and lost classes, block by block; a block that has neither is left out.

    Args:
        most: how many rows; of more the best.
    """
    found = []
    for standing in table.standing:
        held = {each.row: each for each in table.gains if each.block == standing.block and each.gain.average}
        labels = [row.label for row in table.rows if row.label in held or row.label in standing.collapses]
        if len(labels) > most:
            best = [*standing.among.rows][:most]
            labels = [label for label in labels if label in best]
        if labels:
            lines = [_lens_line(label, held.get(label), standing.collapses.get(label)) for label in labels]
            even = {name: evened([getattr(line, name) for line in lines]) for name in _DIFFERENCES}
            lines = [replace(line, **{name: texts[n] for name, texts in even.items()}) for n, line in enumerate(lines)]
            large, small = (", ".join(map(class_title, names)) for names in (standing.lens.head, standing.lens.tail))
            found.append(ShownLens(standing.block, large, small, lines))
    return found


def _lens_line(label: str, held: RowGain | None, lost: Collapse | None) -> LensLine:
    found = held.gain if held else None
    worst = f"{class_title(lost.worst)} {lost.mean:.1f}" if lost and lost.worst else _NONE
    return LensLine(
        label,
        held.baseline if held else _NONE,
        difference(found.average, STAR if found.star else "") if found else _NONE,
        difference(found.head) if found else _NONE,
        difference(found.tail) if found else _NONE,
        difference(found.tail_over_head) if found else _NONE,
        difference(found.slope) if found else _NONE,
        _percent(found.superiority) if found else _NONE,
        f"{lost.count} of {lost.pairs}" if lost else _NONE,
        worst,
    )


def _percent(share: float) -> str:
    return _NONE if math.isnan(share) else f"{100 * share:.0f} %"


def difference(found: TwoWay | None, mark: str = "") -> str:
    """A difference with its mark and interval: `+7.8* [−80.2, 95.8]`; a dash where there is none."""
    return _NONE if found is None else f"{signed(found.mean)}{mark} {interval(found.low, found.high)}"


def evened(texts: Sequence[str]) -> list[str]:
    """Differences of one column with intervals of one length, so that points are below points."""
    parts = [text.partition(" ") for text in texts]
    longest = max((len(behind) for _, _, behind in parts), default=0)
    return [f"{mean} {behind.ljust(longest, _BLANK)}" if longest else mean for mean, _, behind in parts]


# ---------------------------------------------------------------------------------------------------------- standings


@dataclass(frozen=True)
class StandingLine:
    """Where a row stands, as texts; `told` says whether it is told apart from the best: `yes`, `no`, or that it is."""

    label: str
    mean: str
    rank: str
    first: str
    behind: str
    told: str
    share: str


@dataclass(frozen=True)
class ShownStanding:
    """The rows over one block of a table, best first.

    Attributes:
        gap: the two ends of the gap to full supervision in words; empty where the table lacks one.
    """

    block: str
    gap: str
    lines: Sequence[StandingLine]


def ranking(table: Table, most: int) -> list[ShownStanding]:
    """How rows stand, block by block; blocks whose rows cannot be compared are left out.

    Args:
        most: how many rows, the best.
    """
    return [_shown_standing(each, most) for each in table.standing if each.among.rows]


def _shown_standing(standing: BlockStanding, most: int) -> ShownStanding:
    falls = metric_style(standing.metric).direction == "down"
    lines = [
        StandingLine(
            label,
            f"{-row.mean if falls else row.mean:.1f}",
            f"{row.rank} ({row.low if row.low == row.high else f'{row.low} to {row.high}'})",
            _percent(row.first),
            difference(row.behind),
            "the best" if row.behind is None else "yes" if row.apart else "no",
            _share(standing.shares.get(label)),
        )
        for label, row in islice(standing.among.rows.items(), most)
    ]
    behind, shares = (evened([getattr(line, name) for line in lines]) for name in ("behind", "share"))
    lines = [replace(line, behind=b, share=s) for line, b, s in zip(lines, behind, shares, strict=True)]
    ends = standing.ends
    gap = f"from {ends[0]} to {ends[1]}, {signed(standing.gap)} points" if ends else ""
    return ShownStanding(standing.block, gap, lines)


def _share(found: GapShare | str | None) -> str:
    if found is None or isinstance(found, str):
        return _NONE
    ends = f"[{100 * found.low:.0f}, {100 * found.high:.0f}]".replace("-", "−")
    return f"{100 * found.share:.0f}".replace("-", "−") + f" {ends}"


# -------------------------------------------------------------------------------------------------------- comparison


@dataclass(frozen=True)
class ShownComparison:
    """A published table beside a measured one: columns of two or three, and rows under headings with their cells."""

    comparison: Comparison
    columns: Sequence[Beside]
    groups: Sequence[tuple[str, Sequence[tuple[str, Sequence[tuple[str, str, bool]]]]]]

    @property
    def width(self) -> int:
        """How many cells a row has, its name too."""
        return 1 + sum(len(column.kinds) for column in self.columns)


def shown_comparison(comparison: Comparison) -> ShownComparison:
    """A comparison for a page: of each cell text, style, and whether it is the first of its column."""
    columns = beside(comparison)
    groups, number = [], 0
    for group in comparison.groups:
        rows = []
        for row in group.rows:
            cells = [
                (_with_minus(one.text), one.style, place == 0)
                for column in columns
                for place, one in enumerate(column.cells[number])
            ]
            rows.append((row.full_label, cells))
            number += 1
        groups.append((group.title, rows))
    return ShownComparison(comparison, columns, groups)
