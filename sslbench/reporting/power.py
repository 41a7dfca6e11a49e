"""How many seeds and patients a difference takes: from an assumed spread, or from those of a grid's pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from sslbench.reporting.gains import Gain, spread_out
from sslbench.reporting.statistics import Components, detectable

MOST_SEEDS = 200  # nobody trains more


def spreads_of(gains: Sequence[Gain]) -> list[Components]:
    """Spreads of the pairs that were measured: those over several seeds that do not tie exactly."""
    return [average.components for average in spread_out(gains)]


def resolved(spreads: Sequence[Components], seeds: float, patients: int) -> float:
    """Difference that a design finds with 80 % power, in the unit of the spreads: the median over them.

    Args:
        spreads: of differences; at least one.
        seeds: at least 2; `math.inf`: what no number of seeds goes below.
        patients: at least 2.
    """
    return median(detectable(*spread.design(seeds, patients)) for spread in spreads)


def fewest_seeds(spreads: Sequence[Components], difference: float, patients: int) -> int | None:
    """Fewest seeds that find a difference with 80 % power; None: no number does, or more than anybody trains."""
    if resolved(spreads, math.inf, patients) > difference:
        return None
    low, high = 1, 2
    while resolved(spreads, high, patients) > difference:
        low, high = high, 2 * high
        if low > MOST_SEEDS:
            return None
    while high - low > 1:  # more seeds never resolve less
        middle = (low + high) // 2
        low, high = (low, middle) if resolved(spreads, middle, patients) <= difference else (middle, high)
    return high if high <= MOST_SEEDS else None


def table(spreads: Sequence[Components], seeds: Sequence[int], patients: Sequence[int]) -> list[list[float]]:
    """`resolved` for every number of seeds (rows) and patients (columns)."""
    return [[resolved(spreads, number, units) for units in patients] for number in seeds]
