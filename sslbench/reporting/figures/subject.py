"""What the figures of one table are made of: its rows with their values by seed, case and class."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from sslbench.config.draws import first_of, replicate_of
from sslbench.config.splits import load_splits
from sslbench.config.text import split_outside_brackets
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError
from sslbench.reporting.gains import CaseValues, Gain, Lens
from sslbench.reporting.labels import budget_title, metric_style
from sslbench.reporting.model import Column, Row, Table
from sslbench.reporting.statistics import Floats, average_of
from sslbench.runs.collect import Collection
from sslbench.runs.directory import Run


@dataclass(frozen=True, eq=False)
class FigureRow:
    """A row with results.

    Attributes:
        label: as in the table.
        family: recipe, label budget, method, loss and plugin of its jobs.
        settings: dotted paths and values that its jobs set.
        values: of the table's first metric.
        runs: finished ones, by seed.
        bound: whether it is an upper bound with all labels.
        cases: training cases with labels; 0 where that is not known.
        budget: the label budget for people.
    """

    label: str
    family: tuple[str, ...]
    settings: Mapping[str, str]
    values: CaseValues
    runs: tuple[Run, ...] = ()
    bound: bool = False
    cases: int = 0
    budget: str = ""

    @cached_property
    def scores(self) -> Floats:
        """Unit scores of the average over classes (S, U), larger is better."""
        return self.values.by_unit(average_of())

    @property
    def mean(self) -> float:
        """Mean over seeds of the average over classes, larger is better."""
        return float(self.scores.mean())

    def class_means(self) -> Mapping[str, float]:
        """Mean of each class over seeds and the cases that have a value, larger is better; NaN for none."""
        of_seed = self.values.class_means()
        defined = ~np.isnan(of_seed)
        with np.errstate(invalid="ignore"):
            means = np.where(defined, of_seed, 0.0).sum(axis=0) / defined.sum(axis=0)
        return dict(zip(self.values.classes, map(float, means), strict=True))


@dataclass(frozen=True, eq=False)
class FigureSubject:
    """One table, or one block of a table: rows that were measured alike.

    Attributes:
        name: fit for a file.
        title: of the table, and of the block.
        metric, unit: for people, of the first column: `DSC`, `%`.
        direction: which way is better, `up` or `down`; values and gains are negated where that is `down`. Empty: not
            known, so nothing is compared.
        rows: in the table's order, those with results.
        lens: mean reference voxels of each class over the test cases that have it; which are large, which small.
        baselines: by label of a row that of what it is held against.
        gains: by label of a row, adjusted as one family.
        dataset, preprocessing: of the runs; empty where records came without them.
        checkpoint: the rule whose weights were tested; None: each run's own.
        table, block: names of the table, and of its block that these are; empty where nothing stands side by side.
    """

    name: str
    title: str
    metric: str
    unit: str
    direction: str
    rows: tuple[FigureRow, ...]
    lens: Lens
    baselines: Mapping[str, str]
    gains: Mapping[str, Gain]
    dataset: str = ""
    preprocessing: str = ""
    checkpoint: str | None = None
    table: str = ""
    block: str = ""

    @property
    def falls(self) -> bool:
        """Whether smaller is better."""
        return self.direction == "down"

    @property
    def points(self) -> str:
        """The unit of differences in words: `points of DSC`, `mm of ASD`."""
        unit = "points" if self.unit == "%" else self.unit
        return f"{unit} of {self.metric}" if unit else self.metric

    @property
    def measured(self) -> str:
        """Metric and unit, as an axis has it: `DSC (%)`."""
        return f"{self.metric} ({self.unit})" if self.unit else self.metric

    def shown(self, value: float) -> float:
        """A value as tables print it: distances are negated inside, so that larger is better."""
        return -value if self.falls else value

    def shown_values(self, row: FigureRow) -> Floats:
        """The values (S, I, C) of a row as tables print them."""
        return -row.values.values if self.falls else row.values.values

    @property
    def sizes(self) -> Mapping[str, float]:
        """Mean reference voxels of each class."""
        return self.lens.sizes

    @cached_property
    def entries(self) -> Mapping[str, FigureRow]:
        """The rows by label."""
        return {row.label: row for row in self.rows}

    @property
    def by_size(self) -> list[str]:
        """Classes of all rows, the largest first; those without a size last."""
        names = dict.fromkeys(name for row in self.rows for name in row.values.classes)
        return sorted(names, key=lambda name: -self.sizes.get(name, 0.0))

    @cached_property
    def alike(self) -> tuple[tuple[FigureRow, ...], tuple[int, ...]]:
        """The rows that can be held against each other, upper bounds apart, and the seeds that all of them have.

        They are those measured on the cases and classes of most rows.
        """
        groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[FigureRow]] = {}
        for row in self.rows:
            if not row.bound and not np.isnan(row.scores).any():
                groups.setdefault((row.values.cases, row.values.classes), []).append(row)
        rows = max(groups.values(), key=len, default=[])
        shared = set.intersection(*(set(row.values.seeds) for row in rows)) if rows else set()
        return tuple(rows), tuple(sorted(shared))


def subjects_of(tables: Sequence[Table], found: Collection, checkpoint: str | None = None) -> list[FigureSubject]:
    """The subjects of a report's tables, one per table and block that has results; their names are unique.

    Args:
        tables: of one report.
        found: the records that they were made of, with their runs.
        checkpoint: the rule whose weights were tested; None: each run's own.
    """
    runs = {run.name: run for run in found.runs}
    of_run = {str(name): rows for name, rows in found.records.groupby("run", sort=False)}
    found_subjects = [
        _subject("-".join(filter(None, [table.name or "table", _slug(block)])), table, block, runs, of_run, checkpoint)
        for table in tables
        for block in table.blocks
    ]
    return [subject for subject in found_subjects if subject is not None]


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _subject(
    name: str,
    table: Table,
    block: str,
    runs: Mapping[str, Run],
    records: Mapping[str, pd.DataFrame],
    checkpoint: str | None,
) -> FigureSubject | None:
    """One block of a table; None where it has no column or no results."""
    leading = next((column for column in table.columns if column.block == block and column.is_measured), None)
    if leading is None:
        return None
    sources = [(row, source) for row in table.rows if (source := row.source(leading)) is not None]
    sources = [(row, source) for row, source in sources if source.n and set(source.runs) <= records.keys()]
    if not sources:
        return None
    entries = tuple(_entry(row, leading, runs, records) for row, _ in sources)
    values = runs[sources[0][1].runs[0]].values
    held = [gain for gain in table.gains if gain.block == block]
    shown = {entry.label for entry in entries}
    style = metric_style(leading.metric)
    return FigureSubject(
        name=name,
        title=" ".join(filter(None, [table.heading, block])),
        metric=style.title,
        unit="%" if leading.unit == "percent" else leading.unit,
        direction=leading.direction,
        rows=entries,
        lens=next(standing.lens for standing in table.standing if standing.block == block),
        baselines={gain.row: gain.baseline for gain in held if {gain.row, gain.baseline} <= shown},
        gains={gain.row: gain.gain for gain in held if {gain.row, gain.baseline} <= shown},
        dataset=sources[0][1].dataset,
        preprocessing=str(values.get("preprocessing", "")),
        checkpoint=checkpoint,
        table=table.name,
        block=block,
    )


def _entry(row: Row, leading: Column, runs: Mapping[str, Run], records: Mapping[str, pd.DataFrame]) -> FigureRow:
    source = row.source(leading)
    assert source is not None
    own = pd.concat([records[name] for name in source.runs], ignore_index=True)
    skip = registry.component("protocol", source.protocol).skip_cases
    values = CaseValues.of(own, leading.metric, leading.direction, skip)
    by_seed = sorted((runs[name] for name in source.runs), key=lambda run: (repeated_by(run), int(run.job["seed"])))
    variant = split_outside_brackets(source.variant) if source.variant else []
    splits = str(by_seed[0].values.get("splits", ""))
    return FigureRow(
        label=row.label,
        family=(source.recipe, source.labeled, source.method, source.loss, source.plugin),
        settings={path: value for path, _, value in (item.partition("=") for item in variant)},
        values=values,
        runs=tuple(by_seed),
        bound=row.bound,
        cases=_labeled_cases(source.dataset, splits, source.labeled),
        budget=budget_title(source.dataset, splits, source.labeled),
    )


def repeated_by(run: Run) -> int:
    """The place of a run among `CaseValues.seeds`: its seed, or its draw where labels are drawn."""
    return replicate_of(str(run.job["labeled"]), int(run.job["seed"]))


def _labeled_cases(dataset: str, splits: str, labeled: str) -> int:
    try:
        return len(load_splits(dataset, splits).budget(first_of(labeled)).labeled)
    except SSLBenchError:  # results outlive the lists that made them
        return 0
