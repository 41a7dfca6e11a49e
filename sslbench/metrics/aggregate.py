"""Means of the records of one run: over its cases, then over classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sslbench.metrics.case import ClassState

if TYPE_CHECKING:
    import pandas as pd

    from sslbench.metrics.protocol import Protocol
    from sslbench.runs.records import CaseTable

AVERAGE = "avg"
_COUNTED: tuple[ClassState, ...] = ("missed", "spurious", "absent")


Columns = Mapping[str, NDArray[Any]]  # of records, each as long as the others

_NEEDED = ("case", "class_id", "class", "metric", "value", "state")


def aggregate(protocol: Protocol, records: pd.DataFrame) -> pd.DataFrame:
    """Average the records of one run; see `Protocol.aggregate`."""
    import pandas as pd

    return pd.DataFrame(means(protocol, columns_of(records)))


def columns_of(records: pd.DataFrame) -> dict[str, NDArray[Any]]:
    """Return what `means` reads of records, of one run or several, by column.

    Raises:
        ValueError: a column is missing.
    """
    if missing := [name for name in _NEEDED if name not in records.columns]:
        raise ValueError(f"the records lack the columns {', '.join(missing)}")
    found = {name: records[name].to_numpy(dtype=object) for name in ("case", "class", "metric", "state")}
    found["class_id"] = records["class_id"].to_numpy()
    found["value"] = records["value"].to_numpy(dtype=np.float64, na_value=np.nan)
    return found


def means(protocol: Protocol, columns: Columns, known: RecordOrder | None = None) -> dict[str, list[Any]]:
    """Average the records of one run, by column as `Protocol.aggregate` returns them.

    Args:
        columns: `columns_of` its records.
        known: their layout, where it is known.

    Raises:
        ValueError: as for `Protocol.aggregate`.
    """
    layout = known or RecordOrder.of(columns, protocol.metrics)
    found, told = layout.blocks(columns, protocol.skip_cases)
    over_cases = protocol.spread == "cases"
    table: dict[str, list[Any]] = {name: [] for name in ("metric", "class", "value", "cases", *_COUNTED)}
    spreads: list[float] = []
    missing = np.isnan(found)
    told_of = {state: (told == state).sum(axis=2).tolist() for state in _COUNTED}
    for place, (metric, values) in enumerate(zip(layout.metrics, found, strict=True)):
        if missing[place].any() or over_cases or not values.size:
            entered = [of_class[~np.isnan(of_class)] for of_class in values]
            of_classes = [float(kept.mean()) if kept.size else float("nan") for kept in entered]
        else:
            entered, of_classes = list(values), values.mean(axis=1).tolist()
        cases = int(np.count_nonzero((~missing[place]).any(axis=0)))
        table["metric"] += [metric] * (len(layout.classes) + 1)
        table["class"] += [*layout.classes, AVERAGE]
        table["value"] += [*of_classes, _mean_of_defined(of_classes)]
        table["cases"] += [*(int(kept.size) for kept in entered), cases]
        for state in _COUNTED:
            counts = told_of[state][place]
            table[state] += [*counts, sum(counts)]
        if over_cases:
            sds = [protocol.spread_of(kept) for kept in entered]
            spreads += [*sds, _mean_of_defined(sds)]
    return table | ({"sd": spreads} if over_cases else {})


def averages(protocol: Protocol, records: CaseTable) -> dict[str, float]:
    """Average the records of one run over cases and classes alone, without pandas; see `Protocol.averages`."""
    metrics = set(protocol.metrics)
    ours = [
        row
        for row in zip(*(records[name] for name in ("metric", "class_id", "case", "value")), strict=True)
        if row[0] in metrics
    ]
    skipped = {*list(dict.fromkeys(case for _, _, case, _ in ours))[: protocol.skip_cases]}
    entered: dict[str, dict[int, list[float]]] = {metric: {} for metric in protocol.metrics}
    for metric, class_id, case, value in ours:
        of_class = entered[metric].setdefault(class_id, [])
        if case not in skipped and not math.isnan(value):
            of_class.append(value)
    means = {
        metric: _mean_of_defined([_mean_of_defined(of_class[number]) for number in sorted(of_class)])
        for metric, of_class in entered.items()
    }
    return {metric: mean for metric, mean in means.items() if not math.isnan(mean)}


_LABELS = ("case", "class_id", "class", "metric")


@dataclass(frozen=True, eq=False)
class RecordOrder:
    """Where the rows of a run's records, complete, stand in a block of metrics × classes × cases; runs of one recipe
    share it.

    Attributes:
        metrics, classes: of the first and second axis; classes in the order of their ids.
        labels: the columns that say so.
        order: the rows of the block, (metrics, classes, cases).
    """

    metrics: tuple[str, ...]
    classes: tuple[str, ...]
    labels: Columns
    order: NDArray[np.int64]

    @classmethod
    def of(cls, columns: Columns, metrics: tuple[str, ...]) -> RecordOrder:
        """Of the rows that have one of `metrics`.

        Raises:
            ValueError: as for `Protocol.aggregate`.
        """
        import pandas as pd

        labels = {name: columns[name] for name in _LABELS}
        of_metric, found = pd.factorize(columns["metric"])
        own = np.arange(len(of_metric))
        if strange := [place for place, metric in enumerate(found) if metric not in metrics]:
            own = np.flatnonzero(~np.isin(of_metric, strange))
            of_metric, found = pd.factorize(columns["metric"][own])
        ours = {name: column[own] for name, column in labels.items()}
        of_class, ids = pd.factorize(ours["class_id"], sort=True)
        of_case, cases = pd.factorize(ours["case"])

        of_name, names = pd.factorize(ours["class"])
        name_of = np.zeros(len(ids), dtype=np.int64)
        name_of[of_class] = of_name
        if AVERAGE in names or (name_of[of_class] != of_name).any():
            raise ValueError(f"a class id has several names, or a class is called '{AVERAGE}'")
        classes = tuple(str(name) for name in np.asarray(names, dtype=object)[name_of])

        present = tuple(metric for metric in metrics if metric in set(found))
        shape = (len(present), len(ids), len(cases))
        rank = np.array([present.index(metric) for metric in found], dtype=np.int64)
        place = (rank[of_metric] * shape[1] + of_class) * shape[2] + of_case
        counts = np.bincount(place, minlength=math.prod(shape))
        if (counts > 1).any():
            row = int(own[np.flatnonzero(counts[place] > 1)[0]])
            raise ValueError(f"case {columns['case'][row]} has {_said(columns, row)} twice: rows of several runs?")
        if (counts < 1).any():
            m, k, _ = np.unravel_index(np.flatnonzero(counts < 1)[0], shape)
            raise ValueError(f"a case has no row for {present[m]} of class {classes[k]}")
        return cls(present, classes, labels, own[np.argsort(place)].reshape(shape))

    def fits(self, columns: Columns) -> bool:
        """Whether it is the layout of these records too."""
        return all(np.array_equal(columns[name], column) for name, column in self.labels.items())

    def blocks(self, columns: Columns, skip: int) -> tuple[NDArray[np.float64], NDArray[np.object_]]:
        """Values, NaN where excluded, and states, metrics × classes × cases without the first `skip` of these.

        Raises:
            ValueError: a value is not finite where it has to be.
        """
        values, states = columns["value"][self.order], columns["state"][self.order]
        if not np.isfinite(values).all():
            wrong = np.isinf(values) | (np.isnan(values) & (states == "both"))
            if wrong.any():
                row = int(self.order[wrong].min())
                raise ValueError(f"case {columns['case'][row]}: {_said(columns, row)} has no finite value")
        return values[..., skip:], states[..., skip:]


def _said(columns: Columns, row: int) -> str:
    return f"{columns['metric'][row]} of class {columns['class'][row]}"


def _mean_of_defined(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
