"""A report as a value: its tables with the records that they were made of, read once for all that is drawn of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslbench.config.grid import Grid
from sslbench.reporting.model import Table
from sslbench.runs.collect import Collection
from sslbench.runs.sealed import sealed_runs

if TYPE_CHECKING:
    from sslbench.reporting.figures.subject import FigureSubject


@dataclass(frozen=True, eq=False)
class Report:
    """Tables and what is behind them.

    Attributes:
        tables: of one grid, or one per recipe × label budget of all results of a folder or file.
        found: the records of their rows, with the runs, and what was left out of them and why.
        source: the results folder, or the file of records.
        grid: whose tables they are; None: of no grid.
        protocol, checkpoint: whose records were asked for; None: the runs' own.
        choice: the options that chose jobs of the grid and changed them, by name (`seed`, `only`, `set`, `scale`).
    """

    tables: Sequence[Table]
    found: Collection
    source: Path
    grid: Grid | None = None
    protocol: str | None = None
    checkpoint: str | None = None
    choice: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Fit for a folder: of the grid, or `runs` where there is none."""
        return self.grid.name if self.grid else "runs"

    @property
    def empty(self) -> bool:
        """Whether no row has a result."""
        return not any(row.n for table in self.tables for row in table.rows)

    @cached_property
    def sealed(self) -> dict[str, Any]:
        """Its runs as a manifest has them, hashes and all."""
        return sealed_runs(self.found, self.protocol, self.checkpoint)

    @cached_property
    def subjects(self) -> list[FigureSubject]:
        """The rows of each table with their values by seed, case and class: what figures and the page are made of."""
        from sslbench.reporting.figures.subject import subjects_of

        return subjects_of(self.tables, self.found, self.checkpoint)
