"""How rows stand: whether the best is told apart, how stable ranks are, how much of the gap to full supervision is
closed, and what happens to small structures. Tables, figures and pages take the same numbers from here."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from sslbench.reporting.gains import FEWEST_UNITS, PENALTIES, CaseValues, Lens, refusal
from sslbench.reporting.statistics import (
    GapShare,
    TwoWay,
    average_of,
    rank_stability,
    share_of_gap,
    two_way,
)

COLLAPSED = 1.0  # a mean below so many points: the class is lost

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, eq=False)
class RowStanding:
    """Where a row stands among those that compete, on the seeds that all of them have.

    Attributes:
        mean: over seeds and patients, larger is better (distances are negated).
        rank: by that mean, 1 is best, ties share.
        low, high: 95 % range of its rank when seeds and patients are drawn again: stability, no confidence interval.
        first: share of those draws in which it is first; ties share.
        behind: the best less this row, with its two-way interval; None for the best itself.
    """

    mean: float
    rank: int
    low: int
    high: int
    first: float
    behind: TwoWay | None

    @property
    def apart(self) -> bool:
        """Whether it is told apart from the best: the interval of the difference leaves 0 out. The best is not."""
        return self.behind is not None and (self.behind.low > 0 or self.behind.high < 0)


@dataclass(frozen=True, eq=False)
class Standings(Generic[Key]):
    """Rows that were measured alike, held against the best of them.

    Attributes:
        rows: best first; empty where `refused`.
        seeds, units: shared by all rows.
        refused: why nothing is compared, in one line; empty where it is.
    """

    rows: Mapping[Key, RowStanding] = field(default_factory=dict)
    seeds: int = 0
    units: int = 0
    refused: str = ""
    repeats: str = "seed"

    @property
    def best(self) -> Key | None:
        """The row with the best mean, of several the first; None where nothing is compared."""
        return next(iter(self.rows), None)

    @property
    def together(self) -> list[Key]:
        """The rows behind the best that are not told apart from it, best first."""
        return [key for key, row in self.rows.items() if key != self.best and not row.apart]

    @property
    def these_networks(self) -> bool:
        """Whether intervals are over patients alone: one seed."""
        return self.seeds == 1


def standings(rows: Mapping[Key, CaseValues]) -> Standings[Key]:
    """Hold rows against the best of them, on the seeds that all have; ranks from 2 000 draws, the same for all rows.

    Args:
        rows: those that compete, of one metric and protocol: without upper bounds.
    """
    if len(rows) < 2:
        return Standings(refused="fewer than two rows compete")
    first, *others = rows.values()
    if why := next((why for other in others if (why := refusal(first, other, "the others"))), ""):
        return Standings(refused=why)
    shared = sorted(set.intersection(*(set(values.seeds) for values in rows.values())))
    if not shared:
        return Standings(refused=f"the rows have no {first.repeats} in common")
    if (units := len(set(first.units))) < FEWEST_UNITS:
        return Standings(refused=f"fewer than {FEWEST_UNITS} patients")
    scores = {key: values.at(shared).by_unit(average_of()) for key, values in rows.items()}
    if any(np.isnan(found).any() for found in scores.values()):
        return Standings(refused=f"a {first.repeats} without any value")
    order = sorted(rows, key=lambda key: -scores[key].mean())
    means = [float(scores[key].mean()) for key in order]
    ranked: dict[float, int] = {}
    for place, mean in enumerate(means, 1):
        ranked.setdefault(mean, place)
    stability = rank_stability(np.stack([scores[key] for key in order]))
    found = {
        key: RowStanding(
            mean=mean,
            rank=ranked[mean],
            low=ranks.low,
            high=ranks.high,
            first=ranks.first,
            behind=None if key == order[0] else two_way(scores[order[0]] - scores[key]),
        )
        for key, mean, ranks in zip(order, means, stability, strict=True)
    }
    return Standings(found, len(shared), units, repeats=first.repeats)


def gap_closed(row: CaseValues, lower: CaseValues, upper: CaseValues) -> GapShare | str:
    """Share of the gap between supervised training at a budget and with all labels that a row closes, on the seeds
    that all three have; or why there is none, in one line.

    Args:
        row: held against both.
        lower, upper: supervised at its budget, and with all labels.
    """
    for end in (lower, upper):
        if why := refusal(row, end, "supervised training"):
            return why
    shared = sorted({*row.seeds} & {*lower.seeds} & {*upper.seeds})
    if not shared:
        return f"no {row.repeats} in common with both ends of the gap"
    if len(set(row.units)) < FEWEST_UNITS:
        return f"fewer than {FEWEST_UNITS} patients"
    if max(row.penalties, lower.penalties, upper.penalties) > PENALTIES:
        return "more than 5 % of the values are penalties"
    ours, base, full = (values.at(shared).by_unit(average_of()) for values in (row, lower, upper))
    if any(np.isnan(scores).any() for scores in (ours, base, full)):
        return f"a {row.repeats} without any value"
    return share_of_gap(ours, base, full)


@dataclass(frozen=True)
class Collapse:
    """Classes that a row lost, and its worst.

    Attributes:
        lost: by class how many seeds have a mean below 1 %; classes that none lost are left out.
        pairs: classes × seeds with a mean.
        worst: the class with the smallest mean over seeds; empty where none has a value.
        mean: of that class, in points.
    """

    lost: Mapping[str, int]
    pairs: int
    worst: str
    mean: float

    @property
    def count(self) -> int:
        """Classes × seeds that are lost."""
        return sum(self.lost.values())


def collapse(values: CaseValues) -> Collapse:
    """Which classes a row lost, by the means that the table prints.

    Args:
        values: of DSC, in points.
    """
    means = values.class_means()
    known = ~np.isnan(means)
    lost = ((means < COLLAPSED) & known).sum(axis=0)
    with np.errstate(invalid="ignore"):
        over_seeds = np.where(known, means, 0.0).sum(axis=0) / known.sum(axis=0)
    any_value = bool(known.any())
    place = int(np.nanargmin(over_seeds)) if any_value else 0
    return Collapse(
        {name: int(count) for name, count in zip(values.classes, lost, strict=True) if count},
        int(known.sum()),
        values.classes[place] if any_value else "",
        float(over_seeds[place]) if any_value else float("nan"),
    )


@dataclass(frozen=True, eq=False)
class BlockStanding:
    """How the rows over one block of columns stand, by their labels.

    Attributes:
        block: `Column.block`.
        metric: in which: that of the table's first column.
        lens: classes by size, or as the table names them.
        among: those that compete, held against the best.
        ends: supervised training at the budget and with all labels; None where the table lacks one.
        gap: points between the two; NaN where there are no ends.
        shares: of it that rows close, or why that is not said.
        collapses: which classes rows lost, upper bounds too; empty where DSC was not measured.
    """

    block: str
    metric: str
    lens: Lens
    among: Standings[str]
    ends: tuple[str, str] | None = None
    gap: float = math.nan
    shares: Mapping[str, GapShare | str] = field(default_factory=dict)
    collapses: Mapping[str, Collapse] = field(default_factory=dict)


def standing_data(standing: BlockStanding) -> dict[str, Any]:
    """How rows stand as JSON has it."""
    lens, among = standing.lens, standing.among
    labels = dict.fromkeys([*among.rows, *standing.shares, *standing.collapses])
    return {
        "block": standing.block or None,
        "metric": standing.metric,
        "classes": {"head": list(lens.head), "medium": list(lens.medium), "tail": list(lens.tail)},
        "best": among.best,
        "seeds": among.seeds,
        **({"repeats": "draws"} if among.repeats == "draw" else {}),
        "patients": among.units,
        "refused": among.refused or None,
        "gap": None
        if standing.ends is None
        else {"from": standing.ends[0], "to": standing.ends[1], "points": standing.gap},
        "rows": [{"row": label, **_row_data(standing, label)} for label in labels],
    }


def _row_data(standing: BlockStanding, label: str) -> dict[str, Any]:
    row, share = standing.among.rows.get(label), standing.shares.get(label)
    lost = standing.collapses.get(label)
    found: dict[str, Any] = {}
    if row is not None:
        behind = row.behind
        found |= {
            "rank": row.rank,
            "rank_low": row.low,
            "rank_high": row.high,
            "first": row.first,
            "told_apart_from_best": row.apart,
            "behind_best": None if behind is None else {"mean": behind.mean, "low": behind.low, "high": behind.high},
        }
    if isinstance(share, str):
        found["share_of_gap"] = {"refused": share}
    elif share is not None:
        found["share_of_gap"] = {"share": share.share, "low": share.low, "high": share.high, "g": share.g}
    if lost is not None:
        worst = None if math.isnan(lost.mean) else {"class": lost.worst, "mean": lost.mean}
        found |= {"collapsed": dict(lost.lost), "class_seed_pairs": lost.pairs, "worst": worst}
    return found
