"""What the figures of one table are made of: its rows with their values by seed, case and class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sslbench.core import registry
from sslbench.core.errors import SSLBenchError
from sslbench.reporting.gains import CaseValues, Gain, Lens, family, gain
from sslbench.reporting.labels import REFERENCE, class_title, method_group
from sslbench.reporting.statistics import Floats, average_of
from sslbench.runs.directory import Run

PLAIN = "default"
_WEIGHTING = ("method.weighting", "weighting")


@dataclass(frozen=True, eq=False)
class Entry:
    """A row with results.

    Attributes:
        label: as in the table.
        recipe, labeled, method, loss, plugin: of its jobs; `plugin` may be empty.
        settings: dotted paths and values that its jobs set.
        values: of the table's first metric.
        runs: finished ones, by seed.
        bound: whether it is an upper bound with all labels.
        cases: training cases with labels; 0 where that is not known.
        budget: the label budget for people.
    """

    label: str
    recipe: str
    labeled: str
    method: str
    loss: str
    plugin: str
    settings: Mapping[str, str]
    values: CaseValues
    runs: tuple[Run, ...] = ()
    bound: bool = False
    cases: int = 0
    budget: str = ""

    @property
    def plain_label(self) -> str:
        """The label without the budget that an upper bound has in it."""
        return self.label.removesuffix(f" ({self.budget})") if self.bound else self.label

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
        known = ~np.isnan(self.values.values)
        with np.errstate(invalid="ignore"):
            of_seed = np.where(known, self.values.values, 0.0).sum(axis=1) / known.sum(axis=1)  # (S, C)
            defined = ~np.isnan(of_seed)
            means = np.where(defined, of_seed, 0.0).sum(axis=0) / defined.sum(axis=0)
        return dict(zip(self.values.classes, map(float, means), strict=True))


@dataclass(frozen=True, eq=False)
class Subject:
    """One table, or one block of a table: rows that were measured alike.

    Attributes:
        name: fit for a file.
        title: dataset, label budget and recipe in words.
        metric, unit: for people, of the first column: `DSC`, `%`.
        falls: whether smaller is better; values and gains are negated then.
        rows: in the table's order, those with results.
        sizes: mean reference voxels of each class.
        protocol, dataset, preprocessing: of the runs.
    """

    name: str
    title: str
    metric: str
    unit: str
    falls: bool
    rows: tuple[Entry, ...]
    sizes: Mapping[str, float]
    protocol: str = ""
    dataset: str = ""
    preprocessing: str = ""
    left: tuple[str, ...] = field(default=())

    @property
    def points(self) -> str:
        """The unit of differences in words: `points of DSC`, `mm of ASD`."""
        return f"{'points' if self.unit == '%' else self.unit} of {self.metric}"

    @property
    def measured(self) -> str:
        """Metric and unit, as an axis has it: `DSC (%)`."""
        return f"{self.metric} ({self.unit})" if self.unit else self.metric

    def shown(self, value: float) -> float:
        """A value as tables print it: distances are negated inside, so that larger is better."""
        return -value if self.falls else value

    @cached_property
    def lens(self) -> Lens:
        """Classes by size."""
        return Lens.by_size(self.sizes)

    @property
    def by_size(self) -> list[str]:
        """Classes of all rows, the largest first; those without a size last."""
        names = dict.fromkeys(name for row in self.rows for name in row.values.classes)
        return sorted(names, key=lambda name: -self.sizes.get(name, 0.0))

    def class_title(self, name: str) -> str:
        """The papers' abbreviation."""
        return class_title(name)

    @cached_property
    def baselines(self) -> Mapping[str, Entry]:
        """By label of a row what it is held against."""
        found = {row.label: baseline_of(row, self.rows) for row in self.rows}
        return {label: base for label, base in found.items() if base is not None}

    @cached_property
    def gains(self) -> Mapping[str, Gain]:
        """Gains over the baselines, by label, adjusted as one family."""
        rows = {row.label: row for row in self.rows}
        return family({label: gain(rows[label].values, base.values, self.lens) for label, base in self.baselines.items()})

    @cached_property
    def alike(self) -> tuple[tuple[Entry, ...], tuple[int, ...]]:
        """The rows that can be held against each other, upper bounds apart, and the seeds that all of them have.

        They are those measured on the cases and classes of most rows.
        """
        groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Entry]] = {}
        for row in self.rows:
            if not row.bound and not np.isnan(row.scores).any():
                groups.setdefault((row.values.cases, row.values.classes), []).append(row)
        rows = max(groups.values(), key=len, default=[])
        shared = set.intersection(*(set(row.values.seeds) for row in rows)) if rows else set()
        return tuple(rows), tuple(sorted(shared))


def baseline_of(row: Entry, others: Iterable[Entry]) -> Entry | None:
    """The same job with its last addition taken off: plugin, else loss, else weighting; of a bare method `supervised`
    of the same budget. None where there is no such row.

    Args:
        row: whose; an upper bound has none.
        others: among which, it may be one of them.
    """
    if row.bound:
        return None
    for wanted in _without_last(row):
        for other in others:
            parts = (other.method, other.loss, other.plugin, dict(other.settings))
            if not other.bound and (other.recipe, other.labeled) == (row.recipe, row.labeled) and parts == wanted:
                return other
    return None


def _without_last(row: Entry) -> Sequence[tuple[str, str, str, dict[str, str]]]:
    """The jobs that may be a row's baseline, the first that is there counts."""

    def left(*prefixes: str) -> dict[str, str]:
        return {
            path: value
            for path, value in row.settings.items()
            if not any(path == prefix or path.startswith(f"{prefix}.") for prefix in prefixes)
        }

    if row.plugin:
        return [(row.method, row.loss, "", left("plugin"))]
    if row.loss != PLAIN:
        return [(row.method, PLAIN, "", left("loss"))]
    if left(*_WEIGHTING) != dict(row.settings):
        return [(row.method, PLAIN, "", left(*_WEIGHTING))]
    if method_group(row.method) == REFERENCE:
        return []
    bare = [("supervised", PLAIN, "", left("method"))]
    if base := _weighted_preset_of(row.method):
        return [(base, PLAIN, "", dict(row.settings)), *bare]
    return bare


def _weighted_preset_of(method: str) -> str | None:
    """The method that a preset lays a weighting over; None where it is no such preset."""
    try:
        entry = registry.get("method", method)
    except SSLBenchError:  # results outlive the package that made them
        return None
    weighted = any(path.partition(".")[0] == "weighting" for path in entry.set)
    return entry.preset_of if weighted else None
