"""A table as a value: what every cell holds and which are best. Building and drawing it is done elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

NO_VALUE = "--"
PARTIAL = "†"

Direction = Literal["up", "down", ""]
_ARROWS: dict[str, str] = {"up": "↑", "down": "↓", "": ""}


@dataclass(frozen=True)
class Column:
    """One column of numbers.

    Attributes:
        metric: as in `cases.csv`.
        class_name: `avg`, or a class as in `cases.csv`.
        header: `Avg. DSC`, or the class's abbreviation.
        span: the metric's name over neighbouring class columns, `DSC`; empty over an average.
        unit: `percent`, `mm`, `voxel`, ... of the cells' numbers; empty where there is none.
        direction: which way is better; empty where that is not known.
        decimals: of the mean.
        std_decimals: of the spread; None: it is not shown.
    """

    metric: str
    class_name: str
    header: str
    span: str
    unit: str
    direction: Direction
    decimals: int
    std_decimals: int | None

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
        expected: seeds that should.
        best, second: rank among the rows that compete, ties shared.
        marked: whether a dagger tells that seeds are missing.
    """

    mean: float
    std: float
    n: int
    expected: int
    best: bool = False
    second: bool = False
    marked: bool = False


@dataclass(frozen=True)
class Row:
    """One method × loss × plugin × variant.

    Attributes:
        label: its name in the papers' way.
        method, loss, plugin, variant, labeled: the job's parts; `plugin` and `variant` may be empty.
        digest: what all its runs share.
        n, expected: seeds with results, and seeds asked for.
        competes: whether it can be best; an upper bound cannot, nor a row that lacks seeds or has other cases.
        cells: one per column of the table.
        runs: the run directories behind the numbers, relative to `results/runs`.
        bound: whether it is an upper bound beside the rows of the table's own budget.
    """

    label: str
    method: str
    loss: str
    plugin: str
    variant: str
    labeled: str
    digest: str
    n: int
    expected: int
    competes: bool
    cells: tuple[Cell, ...]
    runs: tuple[str, ...]
    bound: bool = False

    @property
    def full_label(self) -> str:
        """The label, with the count of seeds where some are missing: `GA-CPS (1/2 seeds)`."""
        return self.label if self.n == self.expected else f"{self.label} ({self.n}/{self.expected} seeds)"


@dataclass(frozen=True)
class RowGroup:
    """Rows under one heading."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Table:
    """One table: a recipe, a label budget, a protocol.

    Attributes:
        name: fit for a file; grids may share it.
        recipe, labeled, dataset, protocol: what all rows share (an upper bound has a budget of its own).
        columns, groups: what is shown; a row has a cell per column.
        title: dataset, label budget, recipe, and what ± is.
        measured: the protocol in words, and which weights were tested.
        notes: what else a reader must know, a sentence or two each: marks, missing runs, partial data.
        warnings: files that could not be used, with their paths: for the terminal, not for print.
        grid: whose table it is; empty where runs were reported without one.
        damaged: whether one of those files is not as it was written.
    """

    name: str
    recipe: str
    labeled: str
    dataset: str
    protocol: str
    columns: tuple[Column, ...]
    groups: tuple[RowGroup, ...]
    title: str
    measured: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    grid: str = ""
    damaged: bool = False

    @property
    def label(self) -> str:
        """The name with the grid's: a document may hold tables of several."""
        return f"{self.grid}-{self.name}" if self.grid else self.name

    @property
    def heading(self) -> str:
        """The title with the grid's name."""
        return f"{self.title} Grid {self.grid}." if self.grid else self.title

    @property
    def caption(self) -> str:
        """Title and measurement: what the numbers cannot be read without."""
        return f"{self.title} {self.measured}"

    @property
    def rows(self) -> list[Row]:
        """All rows in order, groups aside."""
        return [row for group in self.groups for row in group.rows]


def cell_text(cell: Cell, column: Column) -> tuple[str, str]:
    """Mean and spread as printed: the mean `--` where there is none, the spread empty where none is shown."""
    if math.isnan(cell.mean):
        return NO_VALUE, ""
    if column.std_decimals is None or math.isnan(cell.std):
        return f"{cell.mean:.{column.decimals}f}", ""
    return f"{cell.mean:.{column.decimals}f}", f"{cell.std:.{column.std_decimals}f}"


def manifest(tables: Iterable[Table]) -> list[dict[str, Any]]:
    """The runs behind the numbers, each once: `run` (relative to `results/runs`) and `digest`; JSON-able."""
    runs = {run: row.digest for table in tables for row in table.rows for run in row.runs}
    return [{"run": run, "digest": digest} for run, digest in runs.items()]
