"""How many seeds and patients a difference takes: before anything runs, from its spread."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sslbench.reporting.statistics import Components, detectable

MOST_SEEDS = 200  # nobody trains more


def resolved(spread: Components, seeds: float, patients: int) -> float:
    """Difference that a design finds with 80 % power, in the unit of the spread.

    Args:
        spread: of the difference.
        seeds: at least 2; `math.inf`: what no number of seeds goes below.
        patients: at least 2.
    """
    return detectable(*spread.design(seeds, patients))


def fewest_seeds(spread: Components, difference: float, patients: int) -> int | None:
    """Fewest seeds that find a difference with 80 % power; None: no number does, or more than anybody trains."""
    if resolved(spread, math.inf, patients) > difference:
        return None
    low, high = 1, 2
    while resolved(spread, high, patients) > difference:
        low, high = high, 2 * high
        if low > MOST_SEEDS:
            return None
    while high - low > 1:  # more seeds never resolve less
        middle = (low + high) // 2
        low, high = (low, middle) if resolved(spread, middle, patients) <= difference else (middle, high)
    return high if high <= MOST_SEEDS else None


def table(spread: Components, seeds: Sequence[int], patients: Sequence[int]) -> list[list[float]]:
    """`resolved` for every number of seeds (rows) and patients (columns)."""
    return [[resolved(spread, number, units) for units in patients] for number in seeds]
