"""A published table beside measured ones as a value: what every cell holds, and what its differences are worth."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sslbench.config.published import PublishedCell, PublishedRow, PublishedTable
from sslbench.config.text import counted
from sslbench.metrics.aggregate import AVERAGE
from sslbench.reporting.model import Cell, Column, RowSource, Table, superscript
from sslbench.reporting.statistics import LEVEL

LEAVES_OUT_0 = "•"
OTHER_UNIT = "‡"


@dataclass(frozen=True)
class Setting:
    """A setting in which the job of a published row and a measured one differ; both in words."""

    path: str
    published: str
    here: str

    def __str__(self) -> str:
        return f"{self.path} published {self.published}, here {self.here}"


@dataclass(frozen=True)
class Difference:
    """Measured minus published, in the column's unit.

    Attributes:
        value: unrounded; the published number is as exact as its digits.
        half: half the width of its 95 % interval (Welch's t over both spreads of seeds); NaN where there is none.
        shaded: whether it is no number to rely on: a misprint, or units that differ or are not stated.
    """

    value: float
    half: float = math.nan
    shaded: bool = False

    @property
    def interval(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.half)

    @property
    def marked(self) -> bool:
        """Whether there is one and it leaves out 0."""
        return abs(self.value) > self.half


@dataclass(frozen=True)
class ComparedCell:
    """One number twice.

    Attributes:
        measured: None where the grid has no such row or its protocol no such number; with n = 0 where runs are missing.
        published: None where the paper prints none.
        difference: None where there is nothing to compare.
        other_unit: whether both stand there, in units that differ or are not stated.
        starred: whether the paper marks its number as significant.
    """

    measured: Cell | None
    published: PublishedCell | None
    difference: Difference | None = None
    other_unit: bool = False
    starred: bool = False


@dataclass(frozen=True)
class ComparedRow:
    """One row of the paper, of the grid, or of both.

    Attributes:
        label: as printed; of a row that the paper lacks, as in tables of ours.
        published, source: None where there is none.
        settings: in which their jobs differ; then no cell has a difference.
        cells: one per column.
        mark: a letter for its recipe, where the measured table has rows of several; else empty.
        footnotes: numbers of those that are about it, from 1.
    """

    label: str
    published: PublishedRow | None
    source: RowSource | None
    settings: tuple[Setting, ...]
    cells: tuple[ComparedCell, ...]
    mark: str = ""
    footnotes: tuple[int, ...] = ()

    @property
    def origin(self) -> str:
        """The table that the published numbers were copied from; empty: they are that paper's own."""
        return self.published.origin if self.published else ""

    @property
    def compared(self) -> bool:
        """Whether a difference can be relied on in any column."""
        return any(cell.difference and not cell.difference.shaded for cell in self.cells)

    @property
    def full_label(self) -> str:
        """The label with its marks, and the count of seeds where some are missing."""
        label = self.label + superscript(self.mark) + " ".join(superscript(str(number)) for number in self.footnotes)
        source = self.source
        return label if source is None or source.n == source.expected else f"{label} ({source.n}/{source.expected})"


@dataclass(frozen=True)
class ComparedGroup:
    """Rows under one heading, which may be empty: a rule then parts them from those above."""

    title: str
    rows: tuple[ComparedRow, ...]


@dataclass(frozen=True)
class RankCorrelation:
    """Kendall's τ-b of the measured and published numbers of a label budget's rows; NaN where one side is all ties."""

    budget: str
    tau: float
    rows: int


@dataclass(frozen=True)
class Summary:
    """What the line under the table says.

    Attributes:
        compared, rows: published rows with a difference, and all of them.
        lead: name of the column that `median` and `ranks` are about.
        median: of absolute differences; NaN where there is none.
        ranks: of rows that stand side by side, compared or not.
        intervals, marked: how many there are, and how many of them leave out 0.
    """

    compared: int
    rows: int
    lead: str
    median: float
    ranks: tuple[RankCorrelation, ...]
    intervals: int
    marked: int

    @property
    def by_chance(self) -> float:
        """How many intervals leave out 0 on average where nothing differs."""
        return LEVEL * self.intervals

    def __str__(self) -> str:
        told = f"Compared: {self.compared} of {counted(self.rows, 'row')}"
        if not math.isnan(self.median):
            told += f", median |Δ| {self.median:.2f} ({self.lead})"
        if self.intervals:
            verb = "leaves" if self.marked == 1 else "leave"
            told += f". {self.marked} of {counted(self.intervals, 'interval')} {verb} out 0"
            told += f", by chance alone {self.by_chance:.1f} would"
        if self.ranks:
            told += f". Rank correlation of rows (Kendall's τ-b, {self.lead}): {', '.join(map(self._rank, self.ranks))}"
        return told + "."

    def _rank(self, rank: RankCorrelation) -> str:
        budget = f" ({rank.budget})" if len(self.ranks) > 1 else ""
        tau = "none, as all rows tie" if math.isnan(rank.tau) else f"{rank.tau:.2f}"
        return f"{tau}, {rank.rows} rows{budget}"


@dataclass(frozen=True)
class Comparison:
    """A published table beside measured ones.

    Attributes:
        published: the table.
        tables: what was measured.
        columns: what both are about, of all blocks, each once: averages first.
        groups: rows in order of print, then those that the paper lacks.
        summary: the line under it.
        notes: what a reader must know, a sentence or two each.
        footnotes: of rows, by number.
    """

    published: PublishedTable
    tables: tuple[Table, ...]
    columns: tuple[Column, ...]
    groups: tuple[ComparedGroup, ...]
    summary: Summary
    notes: tuple[str, ...]
    footnotes: tuple[str, ...]

    @property
    def rows(self) -> list[ComparedRow]:
        """All rows in order, groups aside."""
        return [row for group in self.groups for row in group.rows]

    @property
    def name(self) -> str:
        """Fit for a file, and for a label in a document."""
        return f"{self.tables[0].grid or self.tables[0].name}-against-{self.published.grid}"

    @property
    def heading(self) -> str:
        """The published table's title, and what stands beside it."""
        return f"{self.published.title}. Measured beside published."

    @property
    def remarks(self) -> tuple[str, ...]:
        """All that stands under the table, what it comes from last, each sentence once."""
        numbered = (f"{superscript(str(number))} {text}" for number, text in enumerate(self.footnotes, 1))
        measured = (
            said
            for table in self.tables
            for said in (
                table.title,
                table.measured,
                *(note for note in table.notes if note not in {*table.footnotes, *table.gain_notes}),
            )
        )
        return tuple(dict.fromkeys(filter(None, [str(self.summary), *self.notes, *numbered, *measured])))


def column_name(column: Column) -> str:
    """A column of a comparison in running text: `Avg. DSC`, `LAG (DSC)`."""
    return column.header if column.class_name == AVERAGE else f"{column.header} ({column.span})"
