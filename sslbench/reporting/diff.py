"""Two sets of results held against each other: which cells moved, by how much, and whether beyond noise.

Rows are one where they are the same job under the same protocol, whatever their digests: so two versions of the bench
are compared too. On the seeds that both have, each cell's difference has the two-way interval of gains.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sslbench.config.text import counted, first_few
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError
from sslbench.metrics.aggregate import AVERAGE
from sslbench.reporting.gains import FEWEST_UNITS, PENALTIES, CaseValues, refusal
from sslbench.reporting.labels import metric_style
from sslbench.reporting.statistics import TwoWay, average_of, two_way
from sslbench.runs.collect import CELL_COLUMNS

_JOB = (*CELL_COLUMNS[:-1], "protocol")  # all that names a cell but the version


@dataclass(frozen=True)
class MovedCell:
    """A mean that is another one in the second results.

    Attributes:
        metric, class_name: as in records; `avg`: over classes.
        unit: `percent` where the metric is a share.
        before, after: over the shared seeds, as tables print them.
        interval: of after less before; None with too few patients, a seed without any value, or where penalties would
            be tested.
        better: which way is, `up`, `down` or not known (empty).
    """

    metric: str
    class_name: str
    unit: str
    before: float
    after: float
    interval: TwoWay | None
    better: str

    @property
    def change(self) -> float:
        """After less before."""
        return self.after - self.before

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval of the change leaves 0 out."""
        return self.interval is not None and (self.interval.low > 0 or self.interval.high < 0)


@dataclass(frozen=True)
class RowChange:
    """A job that both results have.

    Attributes:
        job: by column: recipe, labeled, method, loss, plugin, variant, protocol.
        digests: in the first and in the second results.
        seeds: that both have.
        others: seeds that only one of them has.
        refused: why it is not compared, in one line; empty where it is.
        moved: cells with another mean, averages first.
        compared: how many cells were.
        records: how many values of single cases differ.
    """

    job: Mapping[str, str]
    digests: tuple[str, str]
    seeds: tuple[int, ...] = ()
    others: tuple[int, ...] = ()
    refused: str = ""
    moved: tuple[MovedCell, ...] = ()
    compared: int = 0
    records: int = 0

    @property
    def name(self) -> str:
        """In one line: `phantom 10pct cps+ga`."""
        return _name(self.job)

    @property
    def equal(self) -> bool:
        """Whether all that was recorded is the same."""
        return not (self.refused or self.records or self.others)


@dataclass(frozen=True)
class ResultsChange:
    """What differs between two results.

    Attributes:
        rows: jobs that both have.
        gone, new: names of jobs that only the first, only the second has.
    """

    rows: tuple[RowChange, ...]
    gone: tuple[str, ...]
    new: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not (self.gone or self.new) and all(row.equal for row in self.rows)

    @property
    def moved(self) -> list[MovedCell]:
        """All cells with another mean."""
        return [cell for row in self.rows for cell in row.moved]


def diff_records(before: pd.DataFrame, after: pd.DataFrame) -> ResultsChange:
    """Hold two results against each other.

    Args:
        before, after: columns `collect.COLUMNS`.
    """
    first, second = _by_job(before), _by_job(after)
    rows = tuple(change for job in first if job in second for change in _versions(job, first[job], second[job]))
    apart = [
        [_name(dict(zip(_JOB, job, strict=True))) for job in one if job not in other]
        for one, other in ((first, second), (second, first))
    ]
    return ResultsChange(rows, tuple(apart[0]), tuple(apart[1]))


_Versions = dict[str, pd.DataFrame]  # records by digest


def _by_job(records: pd.DataFrame) -> dict[tuple[str, ...], _Versions]:
    found: dict[tuple[str, ...], _Versions] = {}
    for (*job, digest), rows in records.groupby([*_JOB, "digest"], sort=False):
        found.setdefault(tuple(map(str, job)), {})[str(digest)] = rows
    return found


def _versions(job: tuple[str, ...], first: _Versions, second: _Versions) -> Iterator[RowChange]:
    """One job's digests: those of both sides by themselves, what is left of one each as two versions."""
    named = dict(zip(_JOB, job, strict=True))
    for digest in [digest for digest in first if digest in second]:
        yield _row(named, (digest, digest), first[digest], second[digest])
    left = [[digest for digest in one if digest not in other] for one, other in ((first, second), (second, first))]
    if len(left[0]) == 1 == len(left[1]):
        yield _row(named, (left[0][0], left[1][0]), first[left[0][0]], second[left[1][0]])
    elif any(left):
        told = f"{len(left[0])} and {len(left[1])} versions that the other side lacks"
        yield RowChange(named, ("", ""), refused=told)


def _row(job: Mapping[str, str], digests: tuple[str, str], first: pd.DataFrame, second: pd.DataFrame) -> RowChange:
    seeds = sorted({*first["seed"]} & {*second["seed"]})
    others = tuple(int(seed) for seed in sorted({*first["seed"]} ^ {*second["seed"]}))
    if not seeds:
        return RowChange(job, digests, others=others, refused="no seed in common")
    ours, theirs = (rows[rows["seed"].isin(seeds)] for rows in (first, second))
    shared = tuple(map(int, seeds))
    changed = _changed(ours, theirs)
    if changed == 0:
        cells = len(ours[["metric", "class"]].drop_duplicates()) + ours["metric"].nunique()
        return RowChange(job, digests, shared, others, compared=cells)
    found: list[MovedCell] = []
    compared = 0
    for metric in dict.fromkeys(ours["metric"]):
        if metric not in {*theirs["metric"]}:
            continue
        skip = _skipped(job["protocol"])
        last, base = (CaseValues.of(rows, metric, "up", skip) for rows in (theirs, ours))
        if why := refusal(last, base, "the first results"):
            return RowChange(job, digests, shared, others, refused=why, records=changed)
        compared += 1 + len(last.classes)
        found += _cells(metric, last, base, str(ours[ours["metric"] == metric]["unit"].iloc[0]))
    return RowChange(job, digests, shared, others, "", tuple(found), compared, changed)


def _changed(ours: pd.DataFrame, theirs: pd.DataFrame) -> int:
    """How many values differ, those that only one side has too."""
    key = ["seed", "case", "class", "metric"]
    both = ours.merge(theirs, on=key, how="outer", suffixes=("", "_after"), indicator=True)
    same = (both["value"] == both["value_after"]) | (both["value"].isna() & both["value_after"].isna())
    return int((~same | (both["_merge"] != "both")).sum())


def _skipped(protocol: str) -> int:
    try:
        return int(registry.component("protocol", protocol).skip_cases)
    except SSLBenchError:  # results outlive the package that made them
        return 0


def _cells(metric: str, after: CaseValues, before: CaseValues, unit: str) -> Iterator[MovedCell]:
    """The averages and classes of a metric that moved."""
    style = metric_style(metric)
    kinds = [(AVERAGE, average_of()), *((name, average_of([n])) for n, name in enumerate(after.classes))]
    for name, weights in kinds:
        one, two = before.by_unit(weights), after.by_unit(weights)
        first, last = (float(np.nanmean(found)) if np.isfinite(found).any() else math.nan for found in (one, two))
        if first == last or (math.isnan(first) and math.isnan(last)) or np.array_equal(one, two, equal_nan=True):
            continue
        change = two - one
        penalised = max(before.penalties, after.penalties) > PENALTIES
        testable = np.isfinite(change).all() and change.shape[1] >= FEWEST_UNITS and not penalised
        interval = two_way(change) if testable else None
        yield MovedCell(metric, name, "percent" if style.percent else unit, first, last, interval, style.direction)


def _name(job: Mapping[str, str]) -> str:
    parts = "+".join(filter(None, (job["method"], job["loss"], job["plugin"])))
    variant = f"~{job['variant']}" if job["variant"] else ""
    return f"{job['recipe']} {job['labeled']} {parts}{variant}"


def as_data(change: ResultsChange) -> dict[str, Any]:
    """What differs, as JSON has it."""
    return {
        "equal": change.equal,
        "only_in_first": list(change.gone),
        "only_in_second": list(change.new),
        "rows": [
            {
                **row.job,
                "digests": list(row.digests),
                "seeds": list(row.seeds),
                "other_seeds": list(row.others),
                "refused": row.refused or None,
                "equal": row.equal,
                "changed_values": row.records,
                "compared_cells": row.compared,
                "moved": [_cell_data(cell) for cell in row.moved],
            }
            for row in change.rows
        ],
    }


def _cell_data(cell: MovedCell) -> dict[str, Any]:
    found = cell.interval
    numbers = {"before": cell.before, "after": cell.after, "change": cell.change}
    return {
        "metric": cell.metric,
        "class": cell.class_name,
        "unit": cell.unit,
        **{name: None if math.isnan(value) else value for name, value in numbers.items()},
        "low": None if found is None else found.low,
        "high": None if found is None else found.high,
        "p": None if found is None else found.p,
        "beyond_noise": cell.beyond_noise,
    }


def summary(change: ResultsChange) -> Sequence[str]:
    """What differs, in a few lines."""
    rows = change.rows
    equal = sum(not row.records and not row.refused for row in rows)
    told = [f"{counted(len(rows), 'row')} in both; identical records in {equal}" if rows else "no row in both"]
    if versions := sum(row.digests[0] != row.digests[1] for row in rows):
        told.append(f"under other digests, so of another version or other case lists: {versions}")
    for why in dict.fromkeys(row.refused for row in rows if row.refused):
        names = [row.name for row in rows if row.refused == why]
        told.append(f"not compared, {why}: {counted(len(names), 'row')} ({first_few(names, 3)})")
    told += [f"{row.name}: seeds of one side alone, {', '.join(map(str, row.others))}" for row in rows if row.others]
    for what, apart in (("only in the first", change.gone), ("only in the second", change.new)):
        if apart:
            told.append(f"{what}: {counted(len(apart), 'row')} ({first_few(apart, 3)})")
    if change.moved:
        tested = [cell for cell in change.moved if cell.interval is not None]
        beyond = sum(cell.beyond_noise for cell in tested)
        told.append(
            f"{len(change.moved)} of {sum(row.compared for row in rows)} cells moved; {beyond} of {len(tested)} "
            f"intervals leave 0 out, where about {0.05 * len(tested):.0f} would without any difference"
        )
    return told
