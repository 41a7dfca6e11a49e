"""Gains over a baseline: the printed numbers' differences, head and tail, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sslbench import load_results
from sslbench.reporting.gains import CaseValues, Gain, Lens, family, gain, resolution
from sslbench.reporting.scores import per_run
from sslbench.reporting.statistics import average_of, two_way

Write = Callable[..., Path]


def scored(values: np.ndarray, seeds: tuple[int, ...] = (0, 1, 2), **changes: object) -> CaseValues:
    _, cases, classes = values.shape
    names = tuple(f"c{number}" for number in range(cases))
    given = {"cases": names, "units": names, "classes": tuple(f"k{number}" for number in range(classes)), **changes}
    return CaseValues(seeds=seeds, values=values, **given)  # type: ignore[arg-type]


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape)


def test_unit_scores_of_records_average_to_the_table(write_run: Write, tmp_path: Path) -> None:
    write_run({"rv": [0.8, None, 0.3], "myo": [0.0, 0.5, 0.1], "lv": [0.2, 0.4, None]}, seed=4)
    write_run({"rv": [0.4, None, 0.2], "myo": [0.5, 0.5, 0.9], "lv": [0.6, 0.6, None]}, seed=1)
    records = load_results(tmp_path / "results")
    runs = per_run(records)
    for metric, direction, scale in (("dsc", "up", 100), ("asd", "down", -1)):
        found = CaseValues.of(records, metric, direction)  # type: ignore[arg-type]
        assert (found.seeds, found.classes) == ((1, 4), ("rv", "myo", "lv"))
        printed = runs[(runs["metric"] == metric) & (runs["class"] == "avg")].sort_values("seed")["value"]
        means = found.by_unit(average_of()).mean(axis=1)
        np.testing.assert_allclose(means, scale * printed.to_numpy(float), rtol=0, atol=1e-12)
    assert CaseValues.of(records, "dsc", "up").penalties == 0
    assert CaseValues.of(records, "asd", "down").penalties == pytest.approx(
        1 / 14
    )  # the missed one, of 14 with a value


def test_patients_of_several_cases_are_one_unit(write_run: Write, tmp_path: Path) -> None:
    write_run({"rv": [0.8, 0.4, 0.3], "myo": [0.1, 0.5, 0.1], "lv": [0.2, 0.4, 0.6]}, seed=0)
    records = load_results(tmp_path / "results")
    records["group"] = records["case"].map({"0001": "a", "0002": "a", "0003": "b"})
    found = CaseValues.of(records, "dsc", "up")
    assert found.units == ("a", "a", "b")
    assert found.by_unit(average_of()).shape == (1, 2)
    assert CaseValues.of(records, "dsc", "up", skip=1).units == ("a", "b")


def test_gain_is_the_difference_of_what_is_printed() -> None:
    base = scored(50 + noise(0, 3, 8, 6))
    row = scored(base.values + 4 + 0.5 * noise(1, 3, 8, 6))
    found = gain(row, base, Lens.by_size({f"k{number}": 10.0 ** (6 - number) for number in range(6)}))
    assert found.average is not None and found.head is not None and found.tail is not None
    assert found.difference == pytest.approx(float((row.values - base.values).mean()))
    expected = two_way((row.values - base.values).mean(axis=2))
    assert (found.average.low, found.average.p) == (pytest.approx(expected.low), pytest.approx(expected.p))
    assert found.head.mean == pytest.approx(float((row.values - base.values)[..., :2].mean()))
    assert found.tail.mean == pytest.approx(float((row.values - base.values)[..., 4:].mean()))
    assert found.tail_over_head is not None
    assert found.tail_over_head.mean == pytest.approx(found.tail.mean - found.head.mean)
    assert found.slope is not None
    by_class = [found.classes[f"k{number}"].mean for number in range(6)]
    assert found.slope.mean == pytest.approx(np.polyfit(np.arange(6, 0, -1), by_class, 1)[0])
    assert (found.seeds, found.units, found.untested, found.refused) == (3, 8, "", "")
    assert found.superiority > 0.99


def test_lens_of_thirteen_organs() -> None:
    names = [f"o{number}" for number in range(13)]
    lens = Lens.by_size({name: 1000.0 - number for number, name in enumerate(names)})
    assert (lens.head, lens.tail) == (tuple(names[:4]), tuple(names[-4:]))
    assert len(lens.medium) == 5
    assert Lens.by_size({"a": 3.0, "b": 2.0}).head == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": ("x", "y")}, "other classes than its baseline"),
        ({"cases": tuple("abcdef")}, "measured on other cases than its baseline"),
        ({"units": tuple("aabbcc")}, "cases grouped into other patients than its baseline"),
        ({"seeds": (7, 8, 9)}, "no seed in common with its baseline"),
    ],
)
def test_rows_that_cannot_be_held_together(changes: dict[str, object], said: str) -> None:
    base = scored(noise(0, 3, 6, 2))
    other = scored(noise(1, 3, 6, 2), **changes)  # type: ignore[arg-type]
    found = gain(other, base, Lens({}))
    assert (found.refused, found.average) == (said, None)
    assert math.isnan(found.difference) and not found.star


def test_few_patients_seeds_and_penalties() -> None:
    base = scored(noise(0, 3, 4, 2))
    few = gain(scored(base.values + 9), base, Lens({}))
    assert (few.refused, few.average, few.difference) == ("fewer than 5 patients", None, pytest.approx(9))

    base = scored(noise(0, 2, 9, 2), seeds=(0, 1))
    two = gain(scored(base.values + 9, seeds=(0, 1)), base, Lens({}))
    assert two.average is not None and two.untested == "two seeds can gain alike by chance"
    one = gain(scored(base.values[:1] + 9 + noise(3, 1, 9, 2), seeds=(0,)), base, Lens({}))
    assert one.these_networks and one.average is not None and one.average.df == 8

    base = scored(noise(0, 3, 9, 2), penalties=0.2)
    assert "penalty" in gain(scored(base.values + 9), base, Lens({})).untested


def test_shared_seeds_alone() -> None:
    values = noise(0, 3, 6, 2)
    found = gain(scored(values[1:] + 1, seeds=(1, 2)), scored(values), Lens({}))
    assert (found.seeds, found.difference) == (2, pytest.approx(1))


def test_a_family_is_adjusted_for_those_that_are_tested() -> None:
    base = scored(50 + noise(0, 3, 12, 3))
    rows = {
        "large": scored(base.values + 5 + noise(1, 3, 12, 3)),
        "none": scored(base.values + noise(2, 3, 12, 3)),
        "two": scored((base.values + 5)[:2], seeds=(0, 1)),
    }
    gains = {name: gain(row, base, Lens({})) for name, row in rows.items()}
    found = family(gains)
    assert found["large"].p == pytest.approx(2 * gains["large"].p)
    assert found["large"].star and not found["none"].star and not found["two"].star
    assert math.isnan(found["two"].p)
    detectable = [each.average.detectable for each in gains.values() if each.average and each.average.se]
    assert resolution(list(gains.values())) == pytest.approx(float(np.median(detectable)))
    assert math.isnan(resolution([]))


def test_a_class_without_values_has_no_interval() -> None:
    values = noise(0, 3, 6, 3)
    values[:, :, 1] = np.nan
    found = gain(scored(values + 2), scored(values), Lens({}))
    assert isinstance(found, Gain) and sorted(found.classes) == ["k0", "k2"]
    assert found.difference == pytest.approx(2)


def test_records_keep_a_group_only_where_they_have_one() -> None:
    frame = pd.DataFrame(
        {
            "seed": [0, 0],
            "case": ["a", "b"],
            "class_id": [1, 1],
            "class": ["x", "x"],
            "metric": ["dsc", "dsc"],
            "value": [0.5, 0.6],
            "unit": ["fraction", "fraction"],
            "state": ["both", "both"],
        }
    )
    assert CaseValues.of(frame, "dsc", "up").units == ("a", "b")
