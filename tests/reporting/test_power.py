"""Planning: what a design resolves, and how many seeds a difference takes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sslbench.reporting.gains import CaseValues, Lens, gain
from sslbench.reporting.power import fewest_seeds, resolved, spreads_of, table
from sslbench.reporting.statistics import Components, detectable

SPREAD = Components(2, 4, 3)


def test_a_design_resolves_what_its_standard_error_does() -> None:
    # 4/3 + 16/20 + 9/60 = 2.28333; mean squares 20·4 + 9 = 89, 3·16 + 9 = 57, 9.
    df = (3 * 20 * 2.2833333333) ** 2 / (89**2 / 2 + 57**2 / 19 + 81 / 38)
    assert resolved([SPREAD], 3, 20) == pytest.approx(detectable(math.sqrt(2.2833333333), df))
    assert table([SPREAD], [3, 5], [20])[0][0] == resolved([SPREAD], 3, 20)


def test_the_fewest_seeds_are_the_fewest() -> None:
    for difference, patients in ((3, 20), (5, 40), (4.5, 12), (20, 6)):
        needed = fewest_seeds([SPREAD], difference, patients)
        assert needed is not None and resolved([SPREAD], needed, patients) <= difference
        assert needed == 2 or resolved([SPREAD], needed - 1, patients) > difference


def test_of_several_pairs_the_median_counts() -> None:
    spreads = [Components(1, 1, 1), SPREAD, Components(9, 9, 9)]
    assert resolved(spreads, 3, 20) == resolved([SPREAD], 3, 20)
    assert resolved(spreads[:2], 3, 20) == pytest.approx((resolved(spreads[:1], 3, 20) + resolved([SPREAD], 3, 20)) / 2)
    assert fewest_seeds(spreads, 3, 20) == fewest_seeds([SPREAD], 3, 20)


def test_spreads_are_those_of_pairs_with_several_seeds() -> None:
    base = CaseValues(
        (0, 1), tuple("abcdef"), tuple("abcdef"), ("k",), np.random.default_rng(0).normal(0, 1, (2, 6, 1))
    )
    row = replace(base, values=base.values + np.random.default_rng(1).normal(0, 1, (2, 6, 1)))
    found = gain(row, base, Lens({}))
    assert found.average is not None
    gains = [found, gain(base, base, Lens({})), gain(row.at([0]), base.at([0]), Lens({}))]
    assert spreads_of(gains) == [found.average.components]


def test_too_few_patients_are_too_few_with_any_seeds() -> None:
    assert fewest_seeds([SPREAD], 3, 6) is None
    assert resolved([SPREAD], math.inf, 6) > 3
    assert fewest_seeds([Components(300, 4, 3)], 5, 40) is None  # thousands


def test_the_page_of_statistics_says_what_it_takes() -> None:
    page = " ".join((Path(__file__).parents[2] / "docs/reference/statistics.md").read_text(encoding="utf-8").split())
    assert "--difference 3 --sd-seeds 2 --sd-patients 4 --sd-rest 3" in page
    assert "with 20 it takes 17 seeds, with 40 seven" in page
    assert [fewest_seeds([SPREAD], 3, patients) for patients in (6, 20, 40)] == [None, 17, 7]
