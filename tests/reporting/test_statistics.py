"""Intervals over seeds × patients: hand-worked numbers, another program's, and how often they cover the truth."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from sslbench.reporting.statistics import (
    Components,
    average_of,
    detectable,
    holm,
    rank_stability,
    share_of_gap,
    sign_flip,
    slope_on,
    superiority,
    two_way,
    unit_scores,
)

Floats = NDArray[np.float64]


def test_two_way_by_hand() -> None:
    # Row means 2.5, 3.5, 4.5; column means 2, 3, 11/3, 16/3; 176 - 147 = 29 = 8 + 53/3 + 10/3 squares in all.
    found = two_way([[1, 2, 3, 4], [2, 4, 3, 5], [3, 3, 5, 7]])
    squares = (4, 53 / 9, 5 / 9)
    assert found.squares == pytest.approx(squares)
    spread = 4 + 53 / 9 - 5 / 9
    df = spread**2 / (16 / 2 + (53 / 9) ** 2 / 3 + (5 / 9) ** 2 / 6)
    assert (found.mean, found.df) == (pytest.approx(3.5), pytest.approx(df))
    assert found.se == pytest.approx(math.sqrt(spread / 12))
    half = stats.t.ppf(0.975, df) * math.sqrt(spread / 12)
    assert (found.low, found.high) == (pytest.approx(3.5 - half), pytest.approx(3.5 + half))
    assert found.p == pytest.approx(0.0134788, abs=1e-6)
    spreads = found.components
    assert spreads.seed**2 == pytest.approx((4 - 5 / 9) / 4)
    assert spreads.unit**2 == pytest.approx((53 / 9 - 5 / 9) / 3)
    assert spreads.rest**2 == pytest.approx(5 / 9)


def test_the_design_of_the_components_is_the_one_they_come_from() -> None:
    found = two_way([[1, 2, 3, 4], [2, 4, 3, 5], [3, 3, 5, 7]])
    assert found.components.design(3, 4) == (pytest.approx(found.se), pytest.approx(found.df))
    se, df = found.components.design(math.inf, 4)
    assert (se, df) == (pytest.approx(found.components.unit / 2), 3)
    assert found.components.design(10**7, 4)[0] == pytest.approx(se, rel=1e-5)
    assert Components(0, 0, 0).design(3, 4) == (0, 2)


def test_two_way_where_a_mean_square_is_the_largest() -> None:
    crossed = np.array([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0], [1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]])
    found = two_way(crossed)  # rows 1/3 and -1/3, columns 0: MS_s = 3 · 4/9 / 3, MS_u = 0, MS_e = (12 - 4/3) / 6
    assert found.squares == pytest.approx((4 / 9, 0, 16 / 9))
    assert (found.se, found.df) == (pytest.approx(math.sqrt(16 / 9 / 12)), 6)
    seeds_alone = two_way([[5, 5, 5], [7, 7, 7]])  # the sum ties with MS_s: its one degree of freedom
    assert (seeds_alone.df, seeds_alone.se) == (1, pytest.approx(1))
    assert two_way([[1, 4, 1], [1, 4, 1]]).df == 2  # of units, of which there are 3
    few = two_way([[1, 2], [2, 1], [1, 2], [2, 1]])
    assert few.df >= 1  # min(S, U) - 1


def test_two_way_without_spread_is_a_point() -> None:
    for value, p in ((0.0, 1.0), (7.3, 0.0)):
        found = two_way(np.full((3, 5), value))
        assert (found.low, found.high, found.p) == (found.mean, found.mean, p)
        assert found.mean == pytest.approx(value)


def test_one_seed_is_a_t_over_units() -> None:
    d = [1.0, 2.0, 4.0, 3.0]
    found = two_way([d])
    expected = stats.ttest_1samp(d, 0)
    low, high = expected.confidence_interval()
    assert (found.p, found.df) == (pytest.approx(expected.pvalue), 3)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert math.isnan(found.components.seed)


def test_two_way_refuses_gaps_and_single_units() -> None:
    for wrong in ([[1.0], [2.0]], [1.0, 2.0], [[1.0, math.nan]], np.ones((0, 3))):
        with pytest.raises(ValueError, match=r"differences must be"):
            two_way(wrong)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(2, 7))
def test_interval_and_p_agree(seed: int, seeds: int, units: int) -> None:
    generator = np.random.default_rng(seed)
    d = generator.normal(1, 1, (seeds, units)) + generator.normal(0, 1, (seeds, 1))
    found = two_way(d)
    assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
    assert two_way(-d).p == pytest.approx(found.p)
    assert two_way(3 * d).low == pytest.approx(3 * found.low)
    assert two_way(d[::-1, ::-1]).high == pytest.approx(found.high)


def test_components_are_those_of_a_mixed_model() -> None:
    """Balanced REML and mean squares agree where all components are positive."""
    mixed = pytest.importorskip("statsmodels.regression.mixed_linear_model", reason="statsmodels is not installed")
    generator = np.random.default_rng(3)
    d = 1 + generator.normal(0, 2, (4, 1)) + generator.normal(0, 3, (1, 9)) + generator.normal(0, 1, (4, 9))
    seed, unit = np.indices(d.shape)
    frame = pd.DataFrame({"d": d.ravel(), "seed": seed.ravel(), "unit": unit.ravel(), "all": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = mixed.MixedLM.from_formula(
            "d ~ 1", groups="all", vc_formula={"seed": "0 + C(seed)", "unit": "0 + C(unit)"}, data=frame
        )
        fitted = model.fit(reml=True, method="bfgs", gtol=1e-10)
    found = two_way(d)
    spreads = found.components
    assert min(spreads.seed, spreads.unit, spreads.rest) > 0
    assert fitted.scale == pytest.approx(spreads.rest**2, rel=1e-6)
    assert sorted(fitted.vcomp) == pytest.approx(sorted([spreads.seed**2, spreads.unit**2]), rel=1e-6)
    assert float(fitted.bse["Intercept"]) == pytest.approx(found.se, rel=1e-6)


# ------------------------------------------------------------------------------------------------------- unit scores


def _values(seed: int, seeds: int, cases: int, classes: int, gaps: float) -> Floats:
    generator = np.random.default_rng(seed)
    values = generator.uniform(0, 100, (seeds, cases, classes))
    values[generator.random(values.shape) < gaps] = np.nan
    return values


def _mean_of_class_means(values: Floats, classes: list[int] | None = None) -> Floats:
    """As a table has it, written out: cases that have a value, then classes that have a mean."""
    found = []
    for of_seed in values:
        means = [column[~np.isnan(column)].mean() for column in of_seed.T if not np.isnan(column).all()]
        kept = [k for k, column in enumerate(of_seed.T) if not np.isnan(column).all()]
        found.append(np.mean([mean for k, mean in zip(kept, means, strict=True) if classes is None or k in classes]))
    return np.array(found)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(3, 12), st.integers(1, 6), st.floats(0, 0.6))
def test_unit_scores_average_to_the_printed_number(
    seed: int, seeds: int, cases: int, classes: int, gaps: float
) -> None:
    values = _values(seed, seeds, cases, classes, gaps)
    defined = ~np.isnan(values).all(axis=(1, 2))
    units = np.random.default_rng(seed + 1).integers(0, max(2, cases // 2), cases)
    scores = unit_scores(values, units, average_of())
    assert scores.shape == (seeds, len(set(units.tolist())))
    expected = _mean_of_class_means(values[defined])
    np.testing.assert_allclose(scores[defined].mean(axis=1), expected, rtol=0, atol=1e-12 * 100)
    assert np.isnan(scores[~defined]).all()


def test_a_unit_that_lacks_a_class_does_not_widen() -> None:
    # The same value wherever there is one: no unit differs from another, whichever classes it has.
    values = np.full((1, 4, 2), 50.0)
    values[0, :2, 1] = np.nan
    assert unit_scores(values, [0, 1, 2, 3], average_of()).tolist() == [[50.0] * 4]
    values[0, 2, 1] = 70.0  # class 2 has the mean 60, of cases 2 and 3
    found = unit_scores(values, [0, 1, 2, 3], average_of())
    assert found.tolist() == [[55.0, 55.0, 65.0, 45.0]]  # (50 + 60 + 4/2 · 10) / 2
    assert unit_scores(values, ["a", "a", "b", "b"], average_of([1])).tolist() == [[60.0, 60.0]]


def test_slope_is_the_least_squares_one() -> None:
    values = _values(5, 3, 6, 5, 0.2)
    sizes = np.array([1.0, 1.5, 2.2, 3.0, 4.1])
    values[1, :, 3] = np.nan
    scores = unit_scores(values, np.arange(6), slope_on(sizes))
    for of_seed, found in zip(values, scores.mean(axis=1), strict=True):
        kept = ~np.isnan(of_seed).all(axis=0)
        means = np.array([column[~np.isnan(column)].mean() for column in of_seed[:, kept].T])
        assert found == pytest.approx(np.polyfit(sizes[kept], means, 1)[0], abs=1e-10)


# ------------------------------------------------------------------------------------------- families, other answers


def test_ranks_share_the_better_place_as_counting_says() -> None:
    scores = np.random.default_rng(0).integers(0, 5, (3, 2, 4)).astype(float)
    scores[2] = scores[0]
    found = rank_stability(scores, draws=50)
    assert (found[0].low, found[0].high, found[0].first) == (found[2].low, found[2].high, found[2].first)
    assert {found[0].low, found[0].high, found[1].low, found[1].high} <= {1, 2, 3}
    assert rank_stability(np.ones((3, 2, 4)))[1].high == 1


def test_detectable_has_the_power_it_says() -> None:
    for df in (5.0, 20.0, 90.0):
        shift = detectable(1, df)
        edge = stats.t.ppf(0.975, df)
        assert stats.nct.sf(edge, df, shift) + stats.nct.cdf(-edge, df, shift) == pytest.approx(0.8, abs=1e-6)
    generator = np.random.default_rng(0)
    t = (generator.normal(size=10**6) + detectable(1, 1)) / np.abs(generator.normal(size=10**6))
    assert (np.abs(t) > stats.t.ppf(0.975, 1)).mean() == pytest.approx(0.8, abs=0.002)
    assert detectable(2, 4) == pytest.approx(2 * detectable(1, 4))
    assert detectable(0, 4) == 0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.2]) == pytest.approx([0.04, 0.09, 0.09, 0.2])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_sign_flips_say_what_they_can_reach() -> None:
    found = sign_flip([[1, 2, 3, 4, 5, 6]])
    assert (found.p, found.floor) == (2 / 64, 2 / 64)
    assert sign_flip([[1, -1]]).p == 1
    assert sign_flip([[3, 2, -1]]).p == pytest.approx(4 / 8)  # |4|, and |6| the other way about, of 8 patterns
    many = sign_flip(np.random.default_rng(1).normal(0.4, 1, (3, 40)))
    assert many.floor == 1e-4 and many.floor <= many.p < 0.05


def test_superiority_counts_ties_half() -> None:
    assert superiority([[1, 2]], [[0, 2]]) == 0.75
    assert superiority([[1.0], [3.0]], [[2.0], [0.0]]) == pytest.approx(3 / 4)


def test_share_of_the_gap() -> None:
    generator = np.random.default_rng(2)
    base = generator.normal(60, 4, (3, 40))
    noise = generator.normal(0, 1, (2, 3, 40))
    found = share_of_gap(base + 8 + noise[0], base, base + 10 + noise[1])
    assert not isinstance(found, str)
    assert found.low < found.share < found.high
    assert found.share == pytest.approx((8 + noise[0].mean()) / (10 + noise[1].mean()))
    # Fieller's ends are the ratios R at which (row - lower) - R · (upper - lower) is just told apart from 0.
    gain, gap, rest = (two_way(d) for d in (8 + noise[0], 10 + noise[1], noise[0] - noise[1] - 2))
    together = (gain.se**2 + gap.se**2 - rest.se**2) / 2
    for end in (found.low, found.high):
        se = math.sqrt(gain.se**2 - 2 * end * together + end**2 * gap.se**2)
        edge = stats.t.ppf(0.975, min(gain.df, gap.df))
        assert abs(gain.mean - end * gap.mean) / se == pytest.approx(edge, rel=1e-6)
    exact = share_of_gap(base + 8 + noise[0], base, base + 10)
    assert not isinstance(exact, str) and exact.g == 0
    assert exact.high - exact.share == pytest.approx(exact.share - exact.low)
    assert share_of_gap(base + 8, base, base + 0.5) == "the gap is below 1 point"
    assert (
        share_of_gap(base, base, base + 2 + 40 * (noise[1] - noise[1].mean()))
        == "the gap itself is not told apart from 0"
    )


def test_ranks_of_rows_that_never_meet() -> None:
    base = np.random.default_rng(0).normal(60, 3, (2, 6))
    found = rank_stability(np.stack([base, base + 1, base]))
    assert [(row.low, row.high) for row in found] == [(2, 2), (1, 1), (2, 2)]
    assert [row.first for row in found] == [0, 1, 0]
    noisy = rank_stability(np.random.default_rng(1).normal(0, 5, (3, 3, 6)))
    assert sum(row.first for row in noisy) == pytest.approx(1)
    assert max(row.high - row.low for row in noisy) >= 1


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "units"), [(3, 6), (3, 20), (3, 40), (5, 6), (5, 20), (5, 40)])
def test_coverage(seeds: int, units: int) -> None:
    """Of 2 000 draws with no difference, how many intervals hold 0: seed SD 2, case SD 4, rest 3 points."""
    generator = np.random.default_rng(seeds * 100 + units)
    held = 0
    for _ in range(2000):
        d = (
            generator.normal(0, 2, (seeds, 1))
            + generator.normal(0, 4, (1, units))
            + generator.normal(0, 3, (seeds, units))
        )
        found = two_way(d)
        held += found.low <= 0 <= found.high
    assert 0.915 <= held / 2000 <= 0.995


def test_a_report_with_ranks_does_without_the_weight_of_scipy_stats() -> None:
    code = (
        "import sys, numpy as np\n"
        "from sslbench.reporting.statistics import rank_stability, sign_flip, two_way\n"
        "rank_stability(np.ones((2, 3, 4))), sign_flip(np.ones((3, 4))), two_way(np.eye(3))\n"
        "assert 'scipy.stats' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_ranks_are_those_of_scipy() -> None:
    scores = np.round(np.random.default_rng(2).normal(0, 1, (5, 1, 1)), 1).repeat(3, axis=1).repeat(4, axis=2)
    expected = stats.rankdata(-scores[:, 0, 0], method="min")
    assert [found.low for found in rank_stability(scores)] == [found.high for found in rank_stability(scores)]
    assert [found.low for found in rank_stability(scores)] == expected.tolist()
