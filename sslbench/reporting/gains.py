"""What a row gains over its baseline, on average and by the size of structures, with intervals, or why not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sslbench.config.draws import split_draw
from sslbench.config.table import LENS_CLASSES, LensSpec
from sslbench.metrics.aggregate import Columns
from sslbench.reporting.model import Direction
from sslbench.reporting.statistics import (
    LEVEL,
    ClassScores,
    ClassWeights,
    Floats,
    SignFlip,
    TwoWay,
    average_of,
    detectable,
    holm,
    sign_flip,
    slope_on,
    superiority,
    two_way,
)

FEWEST_UNITS = 5  # below, no interval
FEWEST_SEEDS = 3  # below, no star: two seeds can gain alike by chance
PENALTIES = 0.05  # above this share of values that are penalties, a test would be one of the penalty
_SEEDS = 2**40  # above every seed

# What `CaseValues` reads of records.
VALUE_COLUMNS = ("metric", "labeled", "seed", "case", "group", "class_id", "class", "state", "unit", "value")

Key = TypeVar("Key")


@dataclass(frozen=True, eq=False)
class CaseValues:
    """Per-case values of one row under one metric, whole.

    Attributes:
        seeds: of the first axis, ascending; of drawn labels the draws, within which seeds are averaged.
        cases, units: of the second: names, and whose patient each case is.
        classes: of the third, in the order of their labels.
        values: (S, I, C) in points where the metric is a share, larger is better (distances are negated); NaN where
            the protocol leaves a value out.
        penalties: share of the values that are no measurement but what a missed structure costs.
        drawn: whether the first axis is of draws.
        within: (s, I, C) of each draw, seed by seed, of which `values` is the mean; empty where none has several.
    """

    seeds: tuple[int, ...]
    cases: tuple[str, ...]
    units: tuple[str, ...]
    classes: tuple[str, ...]
    values: NDArray[np.float64]
    penalties: float = 0.0
    drawn: bool = False
    within: tuple[NDArray[np.float64], ...] = ()

    @property
    def repeats(self) -> str:
        """What the first axis is of, for people."""
        return "draw" if self.drawn else "seed"

    @classmethod
    def of(cls, records: pd.DataFrame | Columns, metric: str, direction: Direction, skip: int = 0) -> CaseValues:
        """Read the records of a row's runs.

        Args:
            records: columns `VALUE_COLUMNS`, of one cell and protocol, the same cases in every run.
            metric: which values.
            direction: which way is better.
            skip: how many of the first cases the protocol leaves out.
        """
        rows = np.flatnonzero(np.asarray(records["metric"]) == metric)
        wanted = ("seed", "case", "class_id", "class", "state", "unit")
        ours = {name: np.asarray(records[name])[rows] for name in wanted}
        draw = _draws_of(records)[rows]
        of_run, keys = pd.factorize(draw * _SEEDS + ours["seed"].astype(np.int64), sort=True)
        runs = [divmod(int(key), _SEEDS) for key in keys]
        of_case, cases = pd.factorize(ours["case"])
        of_class, ids = pd.factorize(ours["class_id"], sort=True)
        found = np.asarray(records["value"], dtype=np.float64)[rows]
        values = np.full((len(runs), len(cases), len(ids)), np.nan)
        values[of_run, of_case, of_class] = found
        entered = ~np.isnan(found)
        guessed = entered & (ours["state"] != "both") & (ours["unit"] != "fraction")
        groups = np.asarray(records["group"])[rows] if "group" in records else ours["case"]
        group_of = dict(zip(reversed(of_case.tolist()), reversed(groups.tolist()), strict=True))  # of its first row
        names = dict(zip(reversed(of_class.tolist()), reversed(ours["class"].tolist()), strict=True))
        scale = (100.0 if (ours["unit"] == "fraction").any() else 1.0) * (-1.0 if direction == "down" else 1.0)
        by_seed = cls(
            tuple(seed for _, seed in runs),
            tuple(map(str, cases[skip:])),
            tuple(str(group_of[place]) for place in range(skip, len(cases))),
            tuple(str(names[place]) for place in range(len(ids))),
            values[:, skip:] * scale,
            float(guessed.sum() / max(1, entered.sum())),
        )
        return by_seed._by_draw([draw for draw, _ in runs]) if (draw > 0).any() else by_seed

    def _by_draw(self, draws: Sequence[int]) -> CaseValues:
        """The same with draws as the first axis, from the draw of each seed."""
        numbers = sorted({*draws})
        within = tuple(self.values[[place for place, draw in enumerate(draws) if draw == each]] for each in numbers)
        values = np.stack([_mean_of_known(values) for values in within])
        several = within if any(len(values) > 1 for values in within) else ()
        return replace(self, seeds=tuple(numbers), values=values, drawn=True, within=several)

    def at(self, seeds: Sequence[int]) -> CaseValues:
        """These seeds, or draws, alone."""
        if tuple(seeds) == self.seeds:
            return self  # with what was computed of it
        places = [self.seeds.index(seed) for seed in seeds]
        within = tuple(self.within[place] for place in places) if self.within else ()
        return replace(self, seeds=tuple(seeds), values=self.values[places], within=within)

    def by_unit(self, weights: ClassWeights) -> Floats:
        """`unit_scores` (S, U), of draws the means over their seeds."""
        if self.within:  # by seed first: seeds may lack other values
            return np.stack([scores.under(weights).mean(axis=0) for scores in self._by_class_within])
        return self._by_class.under(weights)

    @cached_property
    def _by_class(self) -> ClassScores:
        return ClassScores.of(self.values, self.units)

    @cached_property
    def _by_class_within(self) -> list[ClassScores]:
        return [ClassScores.of(values, self.units) for values in self.within]

    def class_means(self) -> Floats:
        """Mean of each class over the cases that have a value, by seed (S, C); NaN where none has."""
        if self.within:
            return np.stack([_mean_of_known(_mean_of_known(each, axis=1)) for each in self.within])
        return _mean_of_known(self.values, axis=1)


def _draws_of(records: pd.DataFrame | Columns) -> NDArray[np.int64]:
    """The draw of the labels behind each record; 0: they are not drawn."""
    if "labeled" not in records:
        return np.zeros(len(records["seed"]), dtype=np.int64)
    places, budgets = pd.factorize(np.asarray(records["labeled"]))
    return np.array([split_draw(str(labeled))[1] for labeled in budgets], dtype=np.int64)[places]


def _mean_of_known(values: NDArray[np.float64], axis: int = 0) -> NDArray[np.float64]:
    """Mean along an axis over what is not NaN; NaN where there is nothing."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0.0).sum(axis=axis) / known.sum(axis=axis))


@dataclass(frozen=True)
class Lens:
    """Classes by size: the largest third, the smallest, and what is between; empty below six classes, unless the table
    names them.

    Attributes:
        sizes: mean reference voxels over the test cases that have the class.
        head, medium, tail: names.
    """

    sizes: Mapping[str, float]
    head: tuple[str, ...] = ()
    medium: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()

    @classmethod
    def of(cls, sizes: Mapping[str, float], named: LensSpec | None) -> Lens:
        """As a table names them, else `by_size`; a class that no test case has is in none."""
        if named is None:
            return cls.by_size(sizes)
        head, tail = ({name.lower() for name in names} for names in (named.head, named.tail))
        parts: dict[str, list[str]] = {"head": [], "medium": [], "tail": []}
        for name in sizes:
            short = name.lower()
            parts["head" if short in head else "tail" if short in tail else "medium"].append(name)
        return cls(sizes, *map(tuple, parts.values()))

    @classmethod
    def by_size(cls, sizes: Mapping[str, float]) -> Lens:
        """Split classes by size; of two of one size the earlier counts as the larger."""
        ordered = sorted(sizes, key=lambda name: -sizes[name])
        third = round(len(ordered) / 3)
        if len(ordered) < LENS_CLASSES:
            return cls(sizes)
        return cls(sizes, tuple(ordered[:third]), tuple(ordered[third:-third]), tuple(ordered[-third:]))


@dataclass(frozen=True, eq=False)
class _Difference:
    """Two rows on the seeds that both have, and what a table does not print of their difference."""

    row: CaseValues
    base: CaseValues
    lens: Lens

    def under(self, weights: ClassWeights) -> Floats:
        """By seed and unit, under weights of the classes."""
        return self.row.by_unit(weights) - self.base.by_unit(weights)

    def over(self, names: Sequence[str]) -> Floats:
        """The same, of the mean over some classes."""
        return self.under(average_of([self.row.classes.index(name) for name in names]))

    @cached_property
    def classes(self) -> Mapping[str, TwoWay]:
        found = {name: _defined(self.over([name])) for name in self.row.classes}
        return {name: interval for name, interval in found.items() if interval is not None}

    @cached_property
    def parts(self) -> tuple[TwoWay | None, TwoWay | None, TwoWay | None]:
        """Head, tail, and the tail less the head."""
        head, tail = (self.over(names) if names else None for names in (self.lens.head, self.lens.tail))
        apart = None if head is None or tail is None else tail - head
        return _defined(head), _defined(tail), _defined(apart)

    @cached_property
    def slope(self) -> TwoWay | None:
        names = self.row.classes
        if len(names) < 3 or not all(self.lens.sizes.get(name, 0) > 0 for name in names):
            return None
        return _defined(self.under(slope_on(np.log10([self.lens.sizes[name] for name in names]))))

    @cached_property
    def superiority(self) -> float:
        return superiority(self.row.by_unit(average_of()), self.base.by_unit(average_of()))

    @cached_property
    def flips(self) -> SignFlip:
        return sign_flip(self.under(average_of()))


def _defined(d: Floats | None) -> TwoWay | None:
    return two_way(d) if d is not None and np.isfinite(d).all() else None


@dataclass(frozen=True, eq=False)
class Gain:
    """A row held against its baseline, seed by seed and patient by patient; positive is better.

    Attributes:
        average: of the metric over classes; None where `refused`.
        difference: its points, also where there is no interval.
        seeds, units: how many both have; `seeds` of what `repeats` names, seeds or draws.
        refused: why there is no interval; empty where there is one.
        tested: whether a test means something; `untested` says why not.
        p: two-sided, adjusted for the table's family (Holm); NaN where there is no test.
    """

    average: TwoWay | None = None
    difference: float = math.nan
    seeds: int = 0
    units: int = 0
    refused: str = ""
    untested: str = ""
    p: float = math.nan
    repeats: str = "seed"
    _behind: _Difference | None = field(default=None, repr=False)

    @property
    def classes(self) -> Mapping[str, TwoWay]:
        """By class."""
        return self._behind.classes if self._behind else {}

    @property
    def head(self) -> TwoWay | None:
        """Over the largest third of the classes."""
        return self._behind.parts[0] if self._behind else None

    @property
    def tail(self) -> TwoWay | None:
        """Over the smallest third of the classes."""
        return self._behind.parts[1] if self._behind else None

    @property
    def tail_over_head(self) -> TwoWay | None:
        """The tail's gain less the head's."""
        return self._behind.parts[2] if self._behind else None

    @property
    def slope(self) -> TwoWay | None:
        """Points for each tenfold size; below 0: small structures gain more."""
        return self._behind.slope if self._behind else None

    @property
    def superiority(self) -> float:
        """Probability that the row is better on a patient."""
        return self._behind.superiority if self._behind else math.nan

    @property
    def flip_p(self) -> float:
        """Sign-flip test given these trainings."""
        return self._behind.flips.p if self._behind else math.nan

    @property
    def flip_floor(self) -> float:
        """What it can reach at best."""
        return self._behind.flips.floor if self._behind else math.nan

    @property
    def star(self) -> bool:
        """Whether the difference is told apart from chance within its family."""
        return not self.untested and self.p < LEVEL

    @property
    def these_networks(self) -> bool:
        """Whether the interval is over patients alone: one seed."""
        return self.seeds == 1


def refusal(row: CaseValues, other: CaseValues, whose: str = "its baseline") -> str:
    """Why two rows cannot be held against each other, in one line; empty where they can.

    Args:
        row, other: under the same metric and protocol.
        whose: what the other is to the row.
    """
    if row.classes != other.classes:
        return f"other classes than {whose}"
    if row.cases != other.cases:
        return f"measured on other cases than {whose}"
    if row.units != other.units:
        return f"cases grouped into other patients than {whose}"
    if row.drawn != other.drawn:
        return f"draws of labels against a single list, or the other way round, as {whose} has it"
    if not set(row.seeds) & set(other.seeds):
        return f"no {row.repeats} in common with {whose}"
    return ""


def gain(row: CaseValues, base: CaseValues, lens: Lens) -> Gain:
    """Hold a row against its baseline on the seeds that both have.

    Args:
        row, base: under the same metric and protocol.
        lens: of the table.
    """
    units = len(set(row.units))
    if why := refusal(row, base):
        return Gain(refused=why, untested=why, repeats=row.repeats)
    shared = [seed for seed in row.seeds if seed in base.seeds]
    behind = _Difference(row.at(shared), base.at(shared), lens)
    d = behind.under(average_of())
    if np.isnan(d).any():
        why = f"a {row.repeats} without any value"
        return Gain(seeds=len(shared), units=units, refused=why, untested=why, repeats=row.repeats)
    difference = float(d.mean())
    if units < FEWEST_UNITS:
        why = f"fewer than {FEWEST_UNITS} patients"
        return Gain(None, difference, len(shared), units, refused=why, untested=why, repeats=row.repeats)
    found = two_way(d)
    untested = ""
    if max(row.penalties, base.penalties) > PENALTIES:
        untested = "more than 5 % of the values are penalties: a test would be one of the penalty"
    elif len(shared) < FEWEST_SEEDS:
        untested = (
            f"one {row.repeats}: these networks, new patients"
            if len(shared) == 1
            else f"two {row.repeats}s can gain alike by chance"
        )
    return Gain(
        found, difference, len(shared), units, untested=untested, p=found.p, repeats=row.repeats, _behind=behind
    )


def family(gains: Mapping[Key, Gain]) -> dict[Key, Gain]:
    """One table's gains with p-values adjusted for all of them that are tested (Holm)."""
    tested = [name for name, found in gains.items() if not found.untested]
    adjusted = dict(zip(tested, holm([gains[name].p for name in tested]), strict=True))
    return {name: replace(found, p=adjusted.get(name, math.nan)) for name, found in gains.items()}


@dataclass(frozen=True, eq=False)
class RowGain:
    """What a row of a table gains over another of its rows.

    Attributes:
        row, baseline: their labels.
        block: of the table; empty where nothing stands side by side.
        metric: in which: that of the table's first column.
    """

    row: str
    baseline: str
    block: str
    metric: str
    gain: Gain


def planned(gains: Sequence[Gain], seeds: float) -> float:
    """What more seeds would resolve with the same patients: the median, over pairs; NaN for none.

    Args:
        gains: of a grid.
        seeds: at least 2; `math.inf`: what no number of seeds goes below.
    """
    found = [detectable(*each.components.design(seeds, each.units)) for each in spread_out(gains)]
    return float(np.median(found)) if found else math.nan


def as_data(held: RowGain) -> dict[str, Any]:
    """A gain as JSON has it: every interval with its p-value and degrees of freedom; None for what there is not."""
    found = held.gain
    intervals = {
        "average": found.average,
        "head": found.head,
        "tail": found.tail,
        "tail_over_head": found.tail_over_head,
        "slope_per_tenfold_size": found.slope,
    }
    numbers = {
        "difference": found.difference,
        "p_holm": found.p,
        "superiority": found.superiority,
        "sign_flip_p": found.flip_p,
        "sign_flip_floor": found.flip_floor,
    }
    return {
        "row": held.row,
        "baseline": held.baseline,
        "block": held.block or None,
        "metric": held.metric,
        "seeds": found.seeds,
        **({"repeats": "draws"} if found.repeats == "draw" else {}),
        "patients": found.units,
        **{name: None if math.isnan(value) else value for name, value in numbers.items()},
        "star": found.star,
        **{name: _interval(interval) for name, interval in intervals.items()},
        "classes": {name: _interval(interval) for name, interval in found.classes.items()},
        "refused": found.refused or None,
        "untested": found.untested or None,
    }


def _interval(found: TwoWay | None) -> dict[str, float] | None:
    names = ("mean", "low", "high", "p", "df", "se")
    return None if found is None else {name: getattr(found, name) for name in names}


def spread_out(gains: Sequence[Gain]) -> list[TwoWay]:
    """The differences over several seeds that have a spread: rows that tie exactly say nothing of it."""
    found = [each.average for each in gains if each.average is not None and each.seeds > 1]
    return [average for average in found if average.se > 0]


def resolution(gains: Sequence[Gain]) -> float:
    """Difference that the grid resolves: the median, over its pairs, of what is found with 80 % power; NaN for none."""
    found = [each.detectable for each in spread_out(gains)]
    return float(np.median(found)) if found else math.nan
