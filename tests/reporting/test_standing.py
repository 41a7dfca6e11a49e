"""How rows stand: the best and who is not told apart from it, stable ranks, shares of the gap, lost classes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from sslbench.reporting.gains import CaseValues, Lens
from sslbench.reporting.standing import BlockStanding, collapse, gap_closed, standing_data, standings
from sslbench.reporting.statistics import average_of, rank_stability, two_way


def scored(values: Any, seeds: tuple[int, ...] = (0, 1, 2), **changes: Any) -> CaseValues:
    values = np.asarray(values, dtype=float)
    _, cases, classes = values.shape
    names = tuple(f"c{number}" for number in range(cases))
    given = {"cases": names, "units": names, "classes": tuple(f"k{number}" for number in range(classes)), **changes}
    return CaseValues(seeds=seeds, values=values, **given)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape)


def test_rows_are_held_against_the_best_of_them() -> None:
    base = 50 + 3 * noise(0, 3, 9, 4)
    rows = {
        "poor": scored(base - 20 + noise(1, 3, 9, 4)),
        "best": scored(base),
        "near": scored(base - 0.1 + noise(2, 3, 9, 4)),
    }
    found = standings(rows)
    scores = {key: values.by_unit(average_of()) for key, values in rows.items()}
    order = sorted(rows, key=lambda key: -scores[key].mean())
    assert (list(found.rows), found.best, found.seeds, found.units) == (order, order[0], 3, 9)
    assert set(order[:2]) == {"best", "near"} and found.together == [order[1]]
    for key in order[1:]:
        expected = two_way(scores[order[0]] - scores[key])
        behind = found.rows[key].behind
        assert behind is not None and (behind.low, behind.high) == (expected.low, expected.high)
        assert found.rows[key].apart == (expected.low > 0)
    stability = rank_stability(np.stack([scores[key] for key in order]))
    assert [(row.low, row.high, row.first) for row in found.rows.values()] == [
        (each.low, each.high, each.first) for each in stability
    ]
    assert found.rows["poor"].rank == 3 and sum(row.first for row in found.rows.values()) == pytest.approx(1)
    told = standing_data(BlockStanding("", "dsc", Lens({}), found))
    assert [row["row"] for row in told["rows"]] == order
    assert told["rows"][2]["told_apart_from_best"] is True and told["rows"][0]["behind_best"] is None


def test_ties_share_their_rank_and_the_best_is_never_apart() -> None:
    values = noise(0, 2, 6, 2)
    found = standings({"one": scored(values, (0, 1)), "two": scored(values, (0, 1))})
    assert [row.rank for row in found.rows.values()] == [1, 1]
    assert found.together == ["two"] and found.rows["one"].behind is None


def test_only_shared_seeds_enter() -> None:
    values = noise(0, 3, 6, 2)
    late = np.concatenate([values[1:], 1000 + values[:1]])
    found = standings({"all": scored(values), "late": scored(late, (1, 2, 3))})
    assert found.seeds == 2
    assert [row.rank for row in found.rows.values()] == [1, 1]
    assert not found.these_networks
    assert standings({"a": scored(values[:1], (0,)), "b": scored(values)}).these_networks


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": ("x", "y")}, "other classes than the others"),
        ({"cases": tuple("abcdef")}, "measured on other cases than the others"),
        ({"units": tuple("aabbcc")}, "cases grouped into other patients than the others"),
        ({"seeds": (7, 8, 9)}, "no seed in common with the others"),
    ],
)
def test_rows_that_cannot_be_compared(changes: dict[str, Any], said: str) -> None:
    rows = {"one": scored(noise(0, 3, 6, 2)), "other": scored(noise(1, 3, 6, 2), **changes)}
    assert standings(rows).refused == said
    assert standings(rows).best is None


def test_few_rows_patients_values_and_seeds_that_only_pairs_share() -> None:
    values = noise(0, 3, 6, 2)
    assert standings({"one": scored(values)}).refused == "fewer than two rows compete"
    few = {name: scored(noise(number, 3, 4, 2)) for number, name in enumerate("ab")}
    assert standings(few).refused == "fewer than 5 patients"
    empty = values.copy()
    empty[1] = np.nan
    assert standings({"a": scored(values), "b": scored(empty)}).refused == "a seed without any value"
    chain = {
        "a": scored(values[:2], (0, 1)),
        "b": scored(values[:1], (0,)),
        "c": scored(values[:1], (1,)),
    }
    assert standings(chain).refused == "the rows have no seed in common"


# ---------------------------------------------------------------------------------------------------- share of the gap


def test_share_of_the_gap_by_hand() -> None:
    # Constant differences: no spread, so the interval is the point.
    lower = 40 + noise(0, 3, 6, 2)
    found = gap_closed(scored(lower + 15), scored(lower), scored(lower + 20))
    assert not isinstance(found, str)
    assert (found.share, found.low, found.high, found.g) == (
        pytest.approx(0.75),
        pytest.approx(0.75),
        pytest.approx(0.75),
        pytest.approx(0),
    )


def test_why_there_is_no_share() -> None:
    lower = 40 + noise(0, 3, 6, 2)
    row, base, full = scored(lower + 5), scored(lower), scored(lower + 20 + noise(1, 3, 6, 2))
    assert gap_closed(row, base, scored(lower + 0.5)) == "the gap is below 1 point"
    assert gap_closed(row, base, scored(lower + 20, cases=tuple("abcdef"))) == (
        "measured on other cases than supervised training"
    )
    assert gap_closed(row, scored(lower[:1], (0,)), scored(lower[:1], (1,))) == (
        "no seed in common with both ends of the gap"
    )
    assert gap_closed(scored(lower, penalties=0.1), base, full) == "more than 5 % of the values are penalties"
    few = noise(0, 3, 4, 2)
    assert gap_closed(scored(few), scored(few), scored(few + 9)) == "fewer than 5 patients"
    wild = lower + 2 + 30 * noise(3, 3, 6, 1)
    assert gap_closed(row, base, scored(wild)) in (
        "the gap itself is not told apart from 0",
        "the gap is below 1 point",
    )


# ------------------------------------------------------------------------------------------------------- lost classes


def test_lost_classes_by_hand() -> None:
    values = np.full((2, 3, 3), 60.0)
    values[0, :, 1] = 0.0  # lost in seed 0
    values[1, :, 1] = (0.0, 2.9, np.nan)  # mean 1.45: not lost
    values[:, :, 2] = np.nan
    values[0, 0, 2] = 0.4  # one value in one seed: lost
    found = collapse(scored(values, (0, 1)))
    assert (dict(found.lost), found.count, found.pairs) == ({"k1": 1, "k2": 1}, 2, 5)
    assert (found.worst, found.mean) == ("k2", pytest.approx(0.4))
    nothing = collapse(scored(np.full((2, 3, 2), np.nan), (0, 1)))
    assert (nothing.count, nothing.pairs, nothing.worst) == (0, 0, "") and math.isnan(nothing.mean)
