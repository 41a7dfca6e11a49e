"""What a table is made of: the rows that were asked for, the runs that were found, and their numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from sslbench.config.job import ResolvedJob
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError
from sslbench.reporting.labels import REFERENCE, budget_title, is_full_budget, method_group
from sslbench.runs.collect import Collection
from sslbench.runs.directory import Run


@dataclass(frozen=True)
class PlannedRow:
    """A row before its numbers.

    Attributes:
        recipe, labeled, method, loss, plugin, digest: of its jobs; `plugin` may be empty.
        settings: dotted paths and values that the jobs set.
        dataset, splits, protocol, checkpoint: of their configuration; splits and checkpoint may not be known
            (empty).
        runs: what was found, in any state.
        expected: how many seeds were asked for.
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
    job: ResolvedJob | None = None

    @property
    def family(self) -> tuple[str, ...]:
        """What rows must share to stand in one table: other splits or protocols give other kinds of numbers."""
        return (self.recipe, self.dataset, self.splits, self.protocol)

    @property
    def budget(self) -> str:
        """The label budget for people."""
        return budget_title(self.dataset, self.splits, self.labeled)

    @property
    def upper_bound(self) -> bool:
        """Whether it is a reference trained on all labels."""
        full = is_full_budget(self.dataset, self.splits, self.labeled)
        return full and method_group(self.method) == REFERENCE


@dataclass(frozen=True, eq=False)
class Material:
    """One table's rows and numbers.

    Attributes:
        planned: the rows of the table's own budget.
        bounds: upper bounds that stand beside them and do not compete.
        found: records of the whole report.
        scores: `statistics.per_run` of them.
    """

    planned: tuple[PlannedRow, ...]
    bounds: tuple[PlannedRow, ...]
    found: Collection
    scores: pd.DataFrame

    @property
    def first(self) -> PlannedRow:
        """A row that stands for what all share."""
        return self.planned[0]

    @property
    def rows(self) -> tuple[PlannedRow, ...]:
        """All rows, upper bounds last."""
        return self.planned + self.bounds

    @cached_property
    def protocol(self) -> Any:
        """The rows' protocol."""
        return registry.component("protocol", self.first.protocol)

    @cached_property
    def runs(self) -> list[Run]:
        """The runs with records."""
        return [run for row in self.rows for run in self.reported(row)]

    @cached_property
    def records(self) -> pd.DataFrame:
        """Their records."""
        return self.found.records[self.found.records["run"].isin([run.name for run in self.runs])]

    @cached_property
    def cases(self) -> dict[str, frozenset[str]]:
        """The cases that each run was measured on."""
        return {str(run): frozenset(cases) for run, cases in self.records.groupby("run")["case"]}

    @cached_property
    def compared_cases(self) -> frozenset[str]:
        """The cases that rows are compared on: those of most of the table's own rows, of equally many the most."""
        counts = Counter(self.cases[runs[0].name] for row in self.planned if (runs := self.reported(row)))
        return max(counts, key=lambda cases: (counts[cases], len(cases), sorted(cases)), default=frozenset())

    def competes(self, row: PlannedRow) -> bool:
        """Whether a row can be best: it is no upper bound beside others, has all its seeds, and the others' cases."""
        runs = self.reported(row)
        whole = len(runs) == row.expected and all(self.cases[run.name] == self.compared_cases for run in runs)
        return row not in self.bounds and whole

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

    def scores_of(self, row: PlannedRow) -> pd.DataFrame:
        """The scores of a row's runs.

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
        return self.scores[self.scores["run"].isin([run.name for run in runs])]

    def unit(self, metric: str) -> str:
        """The unit of a metric's records; before there are any, that of the protocol's distances."""
        units = self.records.loc[self.records["metric"] == metric, "unit"].unique()
        return str(units[0] if len(units) else self.protocol.unit)

    def classes(self) -> list[str]:
        """The classes as records name them, in the order of their labels."""
        if self.records.empty:
            return [info.short for info in registry.component("dataset", self.first.dataset).classes]
        classes = self.records.drop_duplicates("class_id").sort_values("class_id")
        return [str(short) for short in classes["class"]]

    def sizes(self) -> dict[str, float]:
        """The mean number of reference voxels of each class, over the test cases that have it, largest first.

        A class that none has is left out.
        """
        structures = self.records.drop_duplicates(["case", "class_id"])
        means = structures[structures["ref_voxels"] > 0].groupby("class", sort=False)["ref_voxels"].mean()
        return {str(short): float(mean) for short, mean in means.sort_values(ascending=False, kind="stable").items()}
