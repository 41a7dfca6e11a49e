"""What a table is made of: the rows that were asked for, the runs that were found, and their numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from sslbench.config.job import ResolvedJob
from sslbench.config.places import TablePlace
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError
from sslbench.reporting.labels import REFERENCE, budget_title, is_full_budget, method_group
from sslbench.reporting.scores import RunScores, class_sizes
from sslbench.runs.collect import Collection
from sslbench.runs.directory import Run


@dataclass(frozen=True, eq=False)
class PlannedRow:
    """A row before its numbers.

    Attributes:
        recipe, labeled, method, loss, plugin, digest: of its jobs; `plugin` may be empty.
        settings: dotted paths and values that the jobs set.
        dataset, splits, protocol, checkpoint: of their configuration; splits and checkpoint may not be known
            (empty).
        runs: what was found, in any state.
        expected: how many runs were asked for: seeds, of each draw where labels are drawn.
        draws: how many draws of its labels were asked for; 0: they are not drawn.
        place: what its grid says about it.
        job: the resolved job of one of them; None where runs were reported without a grid.
    """

    recipe: str
    labeled: str
    method: str
    loss: str
    plugin: str
    digest: str
    settings: Mapping[str, str]
    dataset: str
    splits: str
    protocol: str
    checkpoint: str
    runs: tuple[Run, ...]
    expected: int
    place: TablePlace
    job: ResolvedJob | None = None
    draws: int = 0

    @property
    def budget(self) -> str:
        """The label budget for people."""
        return budget_title(self.dataset, self.splits, self.labeled)

    @property
    def imported(self) -> bool:
        """Whether it was trained elsewhere, by other software."""
        return any(run.imported for run in self.runs if run.state == "finished")

    @property
    def upper_bound(self) -> bool:
        """Whether it is a reference trained on all labels."""
        full = is_full_budget(self.dataset, self.splits, self.labeled)
        return full and method_group(self.method) == REFERENCE


@dataclass(frozen=True, eq=False)
class TableBlock:
    """The rows over one block of columns.

    Attributes:
        title: its label budget or dataset; empty where nothing stands side by side.
        planned: the rows of its own budget.
        bounds: upper bounds that stand beside them and do not compete.
    """

    title: str
    planned: tuple[PlannedRow, ...]
    bounds: tuple[PlannedRow, ...]

    @property
    def first(self) -> PlannedRow:
        """A row that stands for what all share."""
        return self.planned[0]

    @property
    def rows(self) -> tuple[PlannedRow, ...]:
        """All rows, upper bounds last."""
        return self.planned + self.bounds


@dataclass(frozen=True, eq=False)
class Material:
    """One table's rows and numbers.

    Attributes:
        blocks: what stands side by side; one where nothing does.
        found: records of the whole report.
        scores: of their runs.
    """

    blocks: tuple[TableBlock, ...]
    found: Collection
    scores: RunScores

    @property
    def first(self) -> PlannedRow:
        """A row that stands for what all share."""
        return self.blocks[0].first

    @cached_property
    def planned(self) -> tuple[PlannedRow, ...]:
        """The rows of the blocks' own budgets."""
        return tuple(row for block in self.blocks for row in block.planned)

    @cached_property
    def bounds(self) -> tuple[PlannedRow, ...]:
        """Upper bounds, each once."""
        return tuple({row.digest: row for block in self.blocks for row in block.bounds}.values())

    @property
    def rows(self) -> tuple[PlannedRow, ...]:
        """All rows, upper bounds last."""
        return self.planned + self.bounds

    @cached_property
    def protocols(self) -> dict[str, Any]:
        """The rows' protocols by name, in their order."""
        return {row.protocol: registry.component("protocol", row.protocol) for row in self.rows}

    @cached_property
    def metrics(self) -> frozenset[str]:
        """What any of them measures."""
        return frozenset(metric for protocol in self.protocols.values() for metric in protocol.metrics)

    @cached_property
    def runs(self) -> list[Run]:
        """The runs with records."""
        return [run for row in self.rows for run in self.reported(row)]

    def columns_of(self, row: PlannedRow, names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Columns of the records of a row."""
        return self.found.by_run.columns((run.name for run in self.reported(row)), names)

    @cached_property
    def cases(self) -> dict[str, frozenset[str]]:
        """The cases that each run was measured on."""
        return {
            run.name: frozenset(self.found.by_run.columns([run.name], ["case"])["case"].tolist()) for run in self.runs
        }

    @cached_property
    def compared_cases(self) -> dict[TableBlock, frozenset[str]]:
        """The cases that each block's rows are compared on: those of most of its own rows, of equally many the most."""

        def usual(block: TableBlock) -> frozenset[str]:
            counts = Counter(self.cases[runs[0].name] for row in block.planned if (runs := self.reported(row)))
            return max(counts, key=lambda cases: (counts[cases], len(cases), sorted(cases)), default=frozenset())

        return {block: usual(block) for block in self.blocks}

    def differ_in_cases(self, block: TableBlock) -> bool:
        """Whether not all runs of a block were measured on the same cases."""
        return len({self.cases[run.name] for row in block.rows for run in self.reported(row)}) > 1

    def competes(self, row: PlannedRow, block: TableBlock) -> bool:
        """Whether a row can be best: it is no upper bound beside others, was trained here, has all its seeds, and the
        others' cases."""
        runs = self.reported(row)
        compared = self.compared_cases[block]
        whole = len(runs) == row.expected and all(self.cases[run.name] == compared for run in runs)
        return row not in block.bounds and not row.imported and whole

    @cached_property
    def common(self) -> dict[str, str]:
        """What all of several rows set to the same value: said once, not in each name."""
        if len(self.rows) < 2:
            return {}
        others = [row.settings for row in self.rows[1:]]
        return {
            path: value
            for path, value in self.first.settings.items()
            if all(settings.get(path) == value for settings in others)
        }

    def reported(self, row: PlannedRow) -> list[Run]:
        """The runs of a row that have records."""
        return [run for run in row.runs if run.name in self.found.reported]

    def scores_of(self, row: PlannedRow) -> dict[str, list[Any]]:
        """The scores of a row's runs, by column.

        Raises:
            SSLBenchError: they were measured on different cases.
        """
        runs = self.reported(row)
        for run in runs[1:]:
            if self.cases[run.name] != self.cases[runs[0].name]:
                raise SSLBenchError(
                    f"{run.name} was measured on other cases than {runs[0].name}",
                    "a mean of both would mean nothing: run both on the same data, or move one away",
                )
        return self.scores.of(run.name for run in runs)

    @cached_property
    def _records(self) -> dict[TableBlock, pd.DataFrame]:
        runs = {block: [run.name for row in block.rows for run in self.reported(row)] for block in self.blocks}
        return {block: self.found.by_run.of(names) for block, names in runs.items()}

    def records(self, block: TableBlock) -> pd.DataFrame:
        """The records of a block's rows."""
        return self._records[block]

    @cached_property
    def _units(self) -> dict[TableBlock, dict[tuple[str, str], str]]:
        """The units of each block's records, by protocol and metric."""
        kinds = {block: records.drop_duplicates(["protocol", "metric"]) for block, records in self._records.items()}
        return {
            block: dict(zip(zip(rows["protocol"], rows["metric"], strict=True), rows["unit"], strict=True))
            for block, rows in kinds.items()
        }

    def units(self, metric: str, block: TableBlock) -> dict[str, str]:
        """The units of a metric's records by protocol; before there are any, that of the protocol's distances."""
        found = self._units[block]
        wanted = dict.fromkeys(row.protocol for row in block.rows if metric in self.protocols[row.protocol].metrics)
        return {name: str(found.get((name, metric), self.protocols[name].unit)) for name in wanted}

    def classes(self, block: TableBlock) -> list[str]:
        """The classes as records name them, in the order of their labels."""
        records = self._records[block]
        if records.empty:
            return [info.short for info in registry.component("dataset", block.first.dataset).classes]
        classes = records.drop_duplicates("class_id").sort_values("class_id")
        return [str(short) for short in classes["class"]]

    def sizes(self, block: TableBlock) -> dict[str, float]:
        """`class_sizes` of a block's records."""
        return class_sizes(self._records[block])
