"""A table as a value: what every cell holds and which are best. Building and drawing it is done elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sslbench.config.table import DERIVED, GAIN

if TYPE_CHECKING:
    from sslbench.config.job import ResolvedJob
    from sslbench.reporting.gains import RowGain
    from sslbench.reporting.standing import BlockStanding

NO_VALUE = "--"
PARTIAL = "†"
STAR = "*"
TOGETHER = "°"

Direction = Literal["up", "down", ""]
LETTERS, RAISED = "abcdefghijklmnoprstuvwxyz", "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ"
_RAISED = str.maketrans("0123456789" + LETTERS, "⁰¹²³⁴⁵⁶⁷⁸⁹" + RAISED)
_ARROWS: dict[str, str] = {"up": "↑", "down": "↓", "": ""}


@dataclass(frozen=True)
class Column:
    """One column of numbers.

    Attributes:
        metric: as in `cases.csv`; `gain`: what a row has over its baseline; `hours`: what a run took.
        class_name: `avg`, or a class as in `cases.csv`; `head`, `tail`: the average over large and small classes.
        header: `Avg. DSC`, or the class's abbreviation; under a class's `span` the metric's name.
        span: the heading over neighbouring columns: the metric's name over its classes, or the class's (`Avg.` too)
            over its metrics; empty over an average alone.
        unit: `percent`, `mm`, `voxel`, ... of the cells' numbers; empty where there is none, or rows differ in it.
        direction: which way is better; empty where that is not known.
        decimals: of the mean.
        std_decimals: of the spread; None: it is not shown.
        block: the heading over all columns of one label budget or dataset, where those stand side by side; else empty.
        by: what neighbouring columns share: a `metric`, which `span` then names, or a `class`.
        part: whether it is an average over large or small classes.
    """

    metric: str
    class_name: str
    header: str
    span: str
    unit: str
    direction: Direction
    decimals: int
    std_decimals: int | None
    block: str = ""
    by: Literal["metric", "class"] = "metric"
    part: bool = False

    @property
    def is_gain(self) -> bool:
        """Whether it holds differences, signed and never ranked."""
        return self.metric == GAIN

    @property
    def is_measured(self) -> bool:
        """Whether it is a metric's average or class, as papers print them."""
        return self.metric not in DERIVED and not self.part

    @property
    def sense(self) -> str:
        """Direction and unit, as they follow a header: `↑ (%)`."""
        unit = {"percent": "%"}.get(self.unit, self.unit)
        return " ".join(part for part in (_ARROWS[self.direction], f"({unit})" if unit else "") if part)


@dataclass(frozen=True)
class Cell:
    """One number, in the unit of its column and unrounded.

    Attributes:
        mean: over seeds; NaN where there is none.
        std: over seeds; NaN with fewer than two.
        n: seeds that have a value.
        expected: seeds that should; 0 where the grid has no such job in the column's block.
        rank: 1 best, 2 second, 3 third among the rows that compete, ties shared; 0: not marked.
        marked: whether a dagger tells that seeds are missing.
        together: whether a ring tells that the row is not told apart from the best.
        low, high: ends of a gain's confidence interval; NaN where there is none.
        star: whether a gain is told apart from chance, adjusted for all of the table.
    """

    mean: float
    std: float
    n: int
    expected: int
    rank: int = 0
    marked: bool = False
    together: bool = False
    low: float = math.nan
    high: float = math.nan
    star: bool = False

    @property
    def best(self) -> bool:
        return self.rank == 1

    @property
    def second(self) -> bool:
        return self.rank == 2

    @property
    def signs(self) -> str:
        """What stands behind the number."""
        return (TOGETHER if self.together else "") + (PARTIAL if self.marked else "")


@dataclass(frozen=True)
class RowSource:
    """What the numbers of one row come from: a job, its seed apart.

    Attributes:
        recipe, dataset, labeled, protocol: `protocol` is the one reported, which need not be the job's own.
        method, loss, plugin, variant: the job's other parts; `plugin` and `variant` may be empty.
        digest: what all its runs share.
        runs: the run directories behind the numbers, relative to `results/runs`.
        expected: seeds asked for, of each draw where labels are drawn.
        competes: whether the row can be best here; an upper bound cannot, nor a row that lacks seeds or has other
            cases.
        block: of the columns that it fills, `Column.block`.
        job: the resolved job of one of the seeds; None where runs were reported without a grid.
        draws: how many draws of its labels were asked for; 0: they are not drawn.
    """

    recipe: str
    dataset: str
    labeled: str
    protocol: str
    method: str
    loss: str
    plugin: str
    variant: str
    digest: str
    runs: tuple[str, ...]
    expected: int
    competes: bool
    block: str = ""
    job: ResolvedJob | None = field(default=None, repr=False, compare=False)
    draws: int = 0

    @property
    def n(self) -> int:
        """Seeds with results."""
        return len(self.runs)


@dataclass(frozen=True)
class Row:
    """One method × loss × plugin × variant.

    Attributes:
        label: its name in the papers' way.
        sources: what its numbers come from: one, or one per block of the table, in their order; a block that has no
            such job has none. An upper bound that stands in several blocks has its one job in each.
        cells: one per column of the table.
        bound: whether it is an upper bound beside the rows of the table's own budget.
        marks: letters of what is said of it: of its recipes, where the table has rows of several, and of footnotes.
    """

    label: str
    sources: tuple[RowSource, ...]
    cells: tuple[Cell, ...]
    bound: bool = False
    marks: str = ""

    @property
    def first(self) -> RowSource:
        """A source that stands for what all share: method and loss, as a rule."""
        return self.sources[0]

    @property
    def runs(self) -> tuple[str, ...]:
        """Run directories of all blocks, each once."""
        return tuple(dict.fromkeys(run for source in self.sources for run in source.runs))

    @property
    def n(self) -> int:
        """Runs with results, those of an upper bound once."""
        return len(self.runs)

    @property
    def expected(self) -> int:
        """Runs asked for, likewise."""
        return sum({source.digest: source.expected for source in self.sources}.values())

    def source(self, column: Column) -> RowSource | None:
        """What fills the row's cell in a column; None where the grid has no such job."""
        return next((source for source in self.sources if source.block == column.block), None)

    @property
    def full_label(self) -> str:
        """The label with its marks, and the count of seeds where some are missing: `GA-CPSᵃ (1/2 seeds)`."""
        label = self.label + superscript(self.marks)
        counted = "seeds" if len(self.sources) == 1 and not self.first.draws else "runs"
        return label if self.n == self.expected else f"{label} ({self.n}/{self.expected} {counted})"


@dataclass(frozen=True)
class RowGroup:
    """Rows under one heading, which may be empty: a rule then parts them from those above."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Table:
    """One table: of one recipe, label budget and protocol, or of several side by side or one below the other.

    Attributes:
        name: fit for a file; grids may share it.
        columns, groups: what is shown; a row has a cell per column.
        title: dataset, label budget, recipe, and what ± is; or the grid's own or the published caption.
        measured: the protocol in words, and which weights were tested.
        notes: what else a reader must know, a sentence or two each: marks, missing runs, partial data.
        footnotes: those of the notes that are about single rows, each behind its letter.
        grid: whose table it is; empty where runs were reported without one.
        damaged: whether a file that it needs is not as it was written.
        of: key of the published table that it follows, `ga:T1`; empty where none.
        gains: of rows over their baselines, where both have results, whether a column shows them or not.
        gain_notes: those of `notes` that are about the columns of gains.
        best_notes: those about which rows are told apart from the best.
        standing: how its rows stand to each other in the first column, block by block.
    """

    name: str
    columns: tuple[Column, ...]
    groups: tuple[RowGroup, ...]
    title: str
    measured: str
    notes: tuple[str, ...]
    footnotes: tuple[str, ...] = ()
    grid: str = ""
    damaged: bool = False
    of: str = ""
    gains: tuple[RowGain, ...] = ()
    gain_notes: tuple[str, ...] = ()
    best_notes: tuple[str, ...] = ()
    standing: tuple[BlockStanding, ...] = ()

    @property
    def label(self) -> str:
        """The name with the grid's: a document may hold tables of several."""
        return f"{self.grid}-{self.name}" if self.grid not in ("", self.name) else self.name

    @property
    def heading(self) -> str:
        """The title with the grid's name."""
        return f"{self.title} Grid {self.grid}." if self.grid else self.title

    @property
    def caption(self) -> str:
        """Title and measurement: what the numbers cannot be read without."""
        return f"{self.title} {self.measured}"

    @property
    def blocks(self) -> tuple[str, ...]:
        """The headings of what stands side by side; one, empty, where nothing does."""
        return tuple(dict.fromkeys(column.block for column in self.columns))

    @property
    def rows(self) -> list[Row]:
        """All rows in order, groups aside."""
        return [row for group in self.groups for row in group.rows]


def superscript(text: str) -> str:
    """Digits and small letters, raised; there is no raised q."""
    return text.translate(_RAISED)


def cell_text(cell: Cell, column: Column) -> tuple[str, str]:
    """Mean and what stands behind it, as printed: `±1.9`, of a gain ` [-11.8, 43.9]`, or nothing.

    The mean is `--` where there is none, and both are empty where the grid has no such job."""
    if math.isnan(cell.mean):
        return (NO_VALUE if cell.expected else ""), ""
    if column.is_gain:
        interval = "" if math.isnan(cell.low) else f" [{cell.low:z.1f}, {cell.high:z.1f}]"
        return f"{cell.mean:+.{column.decimals}f}{STAR if cell.star else ''}", interval
    spread = "" if column.std_decimals is None or math.isnan(cell.std) else f"±{cell.std:.{column.std_decimals}f}"
    return f"{cell.mean:.{column.decimals}f}", spread


def manifest(tables: Iterable[Table]) -> list[dict[str, Any]]:
    """The runs behind the numbers, each once: `run` (relative to `results/runs`) and `digest`; JSON-able."""
    sources = [source for table in tables for row in table.rows for source in row.sources]
    runs = {run: source.digest for source in sources for run in source.runs}
    return [{"run": run, "digest": digest} for run, digest in runs.items()]
