"""Protocols: empty masks, units, grids, the order of averaging, and what captions admit."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslbench.core.registry import component
from sslbench.metrics import EmptyPolicy, Protocol, asd, assd, avd, dice, evaluate_case, hd95, jaccard, rvd
from sslbench.metrics.protocol import resize_nearest
from sslbench.metrics.published import GA, NATIVE, SSL4MIS

SPACING = (3.0, 0.8, 0.5)
ORGANS = ("sp", "lk", "ga", "es")


def labels(shape=(10, 12, 14), **boxes):
    """A label map from `c1=(slice, ...)`-like boxes."""
    volume = np.zeros(shape, dtype=np.uint8)
    for name, bounds in boxes.items():
        volume[tuple(slice(*bound) for bound in bounds)] = int(name[1:])
    return volume


# 1: in both maps, 2: missed, 3: spurious, 4: absent
REF = labels(c1=((1, 5), (1, 6), (1, 7)), c2=((6, 9), (7, 11), (8, 12)))
PRED = labels(c1=((2, 6), (1, 6), (2, 7)), c3=((0, 2), (9, 12), (10, 14)))


def protocol(**changes):
    fields = {
        "name": "test",
        "version": 1,
        "description": "",
        "grid": "original",
        "unit": "mm",
        "metrics": ("dsc", "asd"),
        "policy": EmptyPolicy(),
        "ddof": 0,
    }
    return Protocol(**{**fields, **changes})


def table(rows):
    return {(row["class_id"], row["metric"]): row for row in rows}


# ---- score


def test_rows_are_complete_and_in_order():
    rows = NATIVE.score(PRED, REF, ORGANS, SPACING)
    assert [(row["class_id"], row["class"], row["metric"]) for row in rows] == [
        (k, name, metric) for k, name in enumerate(ORGANS, 1) for metric in ("dsc", "jaccard", "asd", "hd95")
    ]
    assert [row["state"] for row in rows[::4]] == ["both", "missed", "spurious", "absent"]
    assert [row["unit"] for row in rows[:4]] == ["fraction", "fraction", "mm", "mm"]
    for row in rows:
        assert row["ref_voxels"] == np.sum(row["class_id"] == REF)
        assert row["pred_voxels"] == np.sum(row["class_id"] == PRED)
        assert list(row) == [*("class_id", "class", "metric", "value", "unit", "state", "ref_voxels", "pred_voxels")]
        assert type(row["value"]) is float and type(row["ref_voxels"]) is int


def test_values_are_those_of_the_functions():
    found = table(NATIVE.score(PRED, REF, ORGANS, SPACING))
    p, r = PRED == 1, REF == 1
    assert found[1, "dsc"]["value"] == pytest.approx(dice(p, r))
    assert found[1, "jaccard"]["value"] == pytest.approx(jaccard(p, r))
    assert found[1, "asd"]["value"] == pytest.approx(asd(p, r, SPACING))
    assert found[1, "hd95"]["value"] == pytest.approx(hd95(p, r, SPACING))
    assert asd(p, r, SPACING) != pytest.approx(asd(r, p, SPACING))  # so the direction is tested too


@pytest.mark.parametrize(("named", "sizes"), [(NATIVE, SPACING), (SSL4MIS, (1, 1, 1))])
def test_empty_masks_cost_the_diagonal(named, sizes):
    found = table(named.score(PRED, REF, ORGANS, SPACING))
    diagonal = math.sqrt(sum((n * s) ** 2 for n, s in zip(REF.shape, sizes, strict=True)))
    for k in (2, 3):
        assert found[k, "dsc"]["value"] == found[k, "jaccard"]["value"] == 0.0
        assert found[k, "asd"]["value"] == found[k, "hd95"]["value"] == pytest.approx(diagonal)
    assert all(math.isnan(found[4, metric]["value"]) for metric in named.metrics)


def test_ssl4mis_counts_voxels():
    found = table(SSL4MIS.score(PRED, REF, ORGANS, SPACING))
    assert found[1, "asd"]["value"] == pytest.approx(asd(PRED == 1, REF == 1))
    assert found[1, "hd95"]["unit"] == "voxel"


@pytest.mark.parametrize("pred", [np.zeros_like(REF), REF])
def test_blank_and_perfect_predictions(pred):
    found = table(NATIVE.score(pred, REF, ORGANS, SPACING))
    states = {k: found[k, "dsc"]["state"] for k in range(1, 5)}
    if pred.any():
        assert states == {1: "both", 2: "both", 3: "absent", 4: "absent"}
        assert found[1, "dsc"]["value"] == 1.0 and found[1, "asd"]["value"] == 0.0
    else:
        assert states == {1: "missed", 2: "missed", 3: "absent", 4: "absent"}


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_missing_an_organ_never_improves_a_score(seed):
    """Whatever was predicted of an organ: dropping all of it makes no metric of `native` better."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 9, size=rng.integers(2, 4)))
    spacing = rng.uniform(0.3, 5, len(shape))
    pred, ref = rng.integers(0, 3, shape), rng.integers(0, 3, shape)
    ref.flat[rng.integers(ref.size)] = 1
    before = table(NATIVE.score(pred, ref, ("a", "b"), spacing))
    after = table(NATIVE.score(np.where(pred == 1, 0, pred), ref, ("a", "b"), spacing))
    assert after[1, "dsc"]["state"] == "missed"
    for metric in ("dsc", "jaccard"):
        assert after[1, metric]["value"] <= before[1, metric]["value"]
    for metric in ("asd", "hd95"):
        assert after[1, metric]["value"] >= before[1, metric]["value"]


def test_the_farthest_prediction_is_no_worse_than_none():
    ref, far = np.zeros((2, 6, 7, 8), dtype=np.uint8)
    ref[0, 0, 0] = far[5, 6, 7] = 1
    worst = table(NATIVE.score(far, ref, ("a",), SPACING))[1, "hd95"]["value"]
    missed = table(NATIVE.score(far * 0, ref, ("a",), SPACING))[1, "hd95"]["value"]
    assert 0 < worst <= missed


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_layout_and_type_of_the_maps_do_not_matter(dtype):
    expected = table(NATIVE.score(PRED, REF, ORGANS, SPACING))
    for arrange in (np.asfortranarray, lambda a: np.repeat(a, 2, axis=2)[..., ::2]):
        found = table(NATIVE.score(arrange(PRED.astype(dtype)), arrange(REF), ORGANS, SPACING))
        for key, row in found.items():
            np.testing.assert_allclose(row["value"], expected[key]["value"], rtol=1e-12)


@pytest.mark.parametrize("named", [NATIVE, SSL4MIS])
def test_any_order_of_axes(named):
    expected = table(named.score(PRED, REF, ORGANS, SPACING))
    found = table(named.score(PRED.transpose(2, 0, 1), REF.transpose(2, 0, 1), ORGANS, (0.5, 3.0, 0.8)))
    for key, row in found.items():
        np.testing.assert_allclose(row["value"], expected[key]["value"], rtol=1e-12)


def test_two_dimensions():
    pred, ref = np.zeros((2, 8, 9), dtype=int)
    pred[2:5, 3:6] = ref[2:5, 4:7] = 1
    found = table(NATIVE.score(pred, ref, ("lesion",), (1.0, 2.0)))
    assert found[1, "dsc"]["value"] == pytest.approx(2 / 3)
    assert found[1, "asd"]["value"] == pytest.approx(asd(pred == 1, ref == 1, (1.0, 2.0)))


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="shape"):
        NATIVE.score(PRED, REF[:-1], ORGANS, SPACING)
    with pytest.raises(ValueError, match=r"prediction has labels 0\.\.3, expected 0\.\.2"):
        NATIVE.score(PRED, REF, ORGANS[:2], SPACING)
    with pytest.raises(ValueError, match="float"):
        NATIVE.score(PRED, REF.astype(float), ORGANS, SPACING)
    with pytest.raises(ValueError, match="spacing"):
        NATIVE.score(PRED, REF, ORGANS, (1.0, 1.0))


def test_all_metrics_have_a_reading():
    every = ("dsc", "jaccard", "asd", "assd", "hd95", "hd95max", "nsd@2", "nsd@0.5")
    found = table(protocol(metrics=every).score(PRED, REF, ORGANS, SPACING))
    p, r = PRED == 1, REF == 1
    assert found[1, "assd"]["value"] == pytest.approx(assd(p, r, SPACING))
    assert found[1, "hd95max"]["value"] == pytest.approx(hd95(p, r, SPACING, "max"))
    assert found[1, "nsd@2"]["value"] >= found[1, "nsd@0.5"]["value"] > 0
    assert found[1, "nsd@2"]["unit"] == "fraction"
    assert found[2, "nsd@2"]["value"] == 0.0 and math.isnan(found[4, "nsd@2"]["value"])


def test_volume_errors_as_metrics():
    named = protocol(metrics=("rvd", "avd"))
    found = table(named.score(PRED, REF, ORGANS, SPACING))
    p, r = PRED == 1, REF == 1
    assert found[1, "rvd"]["value"] == rvd(p, r) and found[1, "avd"]["value"] == avd(p, r, SPACING)
    assert found[2, "rvd"]["value"] == -1.0 and math.isnan(found[3, "rvd"]["value"])
    assert found[2, "avd"]["value"] == avd(PRED == 2, REF == 2, SPACING) > 0
    assert found[3, "avd"]["value"] == avd(PRED == 3, REF == 3, SPACING) > 0
    assert math.isnan(found[4, "rvd"]["value"]) and math.isnan(found[4, "avd"]["value"])
    assert [found[1, metric]["unit"] for metric in named.metrics] == ["fraction", "mm3"]
    flat = named.score(PRED[0], REF[0], ORGANS, SPACING[1:])
    assert flat[1]["unit"] == "mm2"
    voxels = protocol(metrics=("avd",), unit="voxel", policy=EmptyPolicy(absent_overlap=1.0))
    found = table(voxels.score(PRED, REF, ORGANS, SPACING))
    assert found[2, "avd"] | {"value": 48.0, "unit": "voxel"} == found[2, "avd"]
    assert found[4, "avd"]["value"] == 0.0
    assert "mm³" in named.caption() and "voxels" in voxels.caption() and "signed" in named.caption()
    aggregated = named.aggregate(
        pd.DataFrame([{"case": "a", **row} for row in named.score(PRED, REF, ORGANS, SPACING)])
    )
    assert aggregated.set_index(["metric", "class"]).loc[("rvd", "ga"), "cases"] == 0


# ---- empty policies as papers have them


def test_a_cap_is_that_of_missed_organs_and_only_where_asked_for():
    far = EmptyPolicy(missed_distance=1.0, spurious_distance=9.0)
    capped = replace(far, capped=True)
    assert table(protocol(policy=far).score(PRED, REF, ORGANS, SPACING))[1, "asd"]["value"] > 1
    found = table(protocol(policy=capped).score(PRED, REF, ORGANS, SPACING))
    assert [found[k, "asd"]["value"] for k in (1, 2, 3)] == [1.0, 1.0, 9.0]
    assert 0 < found[1, "dsc"]["value"] < 1
    nsd = table(
        protocol(policy=replace(capped, missed_distance=0.1), metrics=("nsd@3",)).score(PRED, REF, ORGANS, SPACING)
    )
    assert nsd[1, "nsd@3"]["value"] > 0.1  # no distance
    assert EmptyPolicy(capped=True).cap == math.inf  # nothing exceeds the diagonal
    assert "no distance counts more than 1" in protocol(policy=capped).caption()


def released(**policy):
    return table(protocol(policy=EmptyPolicy(**policy)).score(PRED, REF, ORGANS, SPACING))


def test_policies_are_configuration():
    dhc = released(absent_overlap=0.01, absent_distance=0.0, missed_distance=128, spurious_distance=128)
    assert [dhc[k, "asd"]["value"] for k in (2, 3, 4)] == [128.0, 128.0, 0.0]
    assert dhc[4, "dsc"]["value"] == 0.01
    flattering = released(absent_overlap=0.0, absent_distance=0.0, missed_distance=0.0, spurious_distance=50)
    assert [flattering[k, "asd"]["value"] for k in (2, 3, 4)] == [0.0, 50.0, 0.0]
    left_out = released(missed_distance="exclude")
    assert math.isnan(left_out[2, "asd"]["value"]) and left_out[2, "dsc"]["value"] == 0.0
    everything_far = released(absent_distance="diagonal")
    assert everything_far[4, "asd"]["value"] == everything_far[2, "asd"]["value"]


def test_a_blank_prediction_may_have_its_own_policy():
    nothing = EmptyPolicy(absent_overlap=0.0, absent_distance=0.0, missed_distance=0.0)
    named = protocol(policy=EmptyPolicy(absent_overlap=1.0, missed_distance=128, blank=nothing))
    blank = named.score(np.zeros_like(REF), REF, ORGANS, SPACING)
    assert [row["value"] for row in blank] == [0.0] * 8
    # One organ anywhere, the first or the last, is not blank.
    for pred in (PRED, np.where(PRED == 1, 1, 0), np.where(PRED == 1, 4, 0)):
        assert table(named.score(pred, REF, ORGANS, SPACING))[2, "asd"]["value"] == 128
    assert "whole prediction is background" in named.caption()


@pytest.mark.parametrize(
    "policy",
    [
        {"absent_overlap": "diagonal"},
        {"absent_overlap": 100},
        {"missed_distance": -1},
        {"spurious_distance": float("nan")},
        {"absent_distance": "ignore"},
    ],
)
def test_senseless_policies_are_refused(policy):
    with pytest.raises(ValueError, match=next(iter(policy))):
        EmptyPolicy(**policy)


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": ()},
        {"metrics": ("dsc", "dsc")},
        {"metrics": ("dice",)},
        {"metrics": ("nsd@",)},
        {"metrics": ("nsd@-1",)},
        {"metrics": ("nsd@nan",)},
        {"unit": "cm"},
        {"grid": "native"},
        {"spread": "folds"},
        {"ddof": 2},
        {"spacing_mm": (1.5, 1.5, 2.0)},
        {"resize_to": (4, 4, 4), "resize_by": (0.5, 0.5, 0.5)},
        {"postprocess": ("largest-component", "intersection")},
        {"postprocess": ("smoothing",)},
        {"background": True},
        {"smooth": -1e-5},
        {"skip_cases": -1},
    ],
)
def test_senseless_protocols_are_refused(changes):
    with pytest.raises(ValueError):
        protocol(**changes)


# ---- ga: resized grid


@pytest.mark.parametrize("wanted", [80, 160, 37])
def test_nearest_is_that_of_pytorch(wanted):
    torch = pytest.importorskip("torch")
    assert resize_nearest(np.arange(5), [8]).tolist() == [0, 0, 1, 1, 2, 3, 3, 4]
    for size in [*range(1, 60), 84, 150, 168, 208, 299, 416]:
        ramp = torch.arange(size, dtype=torch.float32)[None, None]
        expected = torch.nn.functional.interpolate(ramp, size=wanted, mode="nearest")[0, 0]
        np.testing.assert_array_equal(resize_nearest(np.arange(size), [wanted]), expected.numpy())


def test_resize_of_a_volume_goes_axis_by_axis():
    volume = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    found = resize_nearest(volume, (4, 3, 2))
    np.testing.assert_array_equal(found, volume[[0, 0, 1, 1]][:, :, [0, 2]])
    for shape in [(4, 3), (4, 3, 0)]:
        with pytest.raises(ValueError, match="resize"):
            resize_nearest(volume, shape)


def test_ga_measures_voxels_of_its_own_grid():
    found = table(GA.score(PRED, REF, ORGANS, SPACING))
    pred, ref = (resize_nearest(volume, (160, 160, 80)) == 1 for volume in (PRED, REF))
    assert found[1, "dsc"]["value"] == pytest.approx(dice(pred, ref))
    assert found[1, "asd"]["value"] == pytest.approx(asd(pred, ref))
    assert found[1, "asd"]["ref_voxels"] == ref.sum() and found[1, "asd"]["unit"] == "voxel"
    assert [found[k, "asd"]["value"] for k in (2, 3, 4)] == [128.0, 128.0, 0.0]
    assert [found[k, "dsc"]["value"] for k in (2, 3, 4)] == [0.0, 0.0, 1.0]


def test_the_fixed_grid_follows_the_axes():
    expected = GA.score(PRED, REF, ORGANS, SPACING)
    turned = GA.score(PRED.T, REF.T, ORGANS, SPACING[::-1], axes="zyx")
    assert [row["value"] for row in turned] == pytest.approx([row["value"] for row in expected])
    for axes in ("xy", "xyt", "zyxx"):
        with pytest.raises(ValueError, match="resizes 3-D maps"):
            GA.score(PRED, REF, ORGANS, SPACING, axes=axes)
    with pytest.raises(ValueError, match="resizes 3-D maps"):
        GA.score(PRED[0], REF[0], ORGANS, SPACING[1:])


def test_a_resized_grid_keeps_millimetres():
    """Doubling every axis halves the spacing: the diagonal in mm stays."""
    doubled = protocol(resize_to=(20, 24, 28))
    found = table(doubled.score(PRED, REF, ORGANS, SPACING))
    plain = table(protocol().score(PRED, REF, ORGANS, SPACING))
    assert found[2, "asd"]["value"] == pytest.approx(plain[2, "asd"]["value"])
    assert found[1, "dsc"]["value"] == pytest.approx(plain[1, "dsc"]["value"])


# ---- evaluate_case


def test_evaluate_case_follows_the_clean_ga_rules():
    found = evaluate_case(PRED, REF, 5, SPACING)
    assert set(found) == {"dice", "jaccard", "asd", "assd", "hd95"}
    p, r = PRED == 1, REF == 1
    first = {"dice": dice(p, r), "jaccard": jaccard(p, r)}
    first |= {"asd": asd(p, r, SPACING), "assd": assd(p, r, SPACING), "hd95": hd95(p, r, SPACING)}
    for name, values in found.items():
        overlap = name in ("dice", "jaccard")
        assert values.shape == (4,) and values.dtype == np.float64
        np.testing.assert_allclose(values, [first[name], *([0, 0, 1] if overlap else [128, 128, 0])])
    np.testing.assert_allclose(evaluate_case(PRED, REF, 5, empty_distance=50)["asd"][1:], [50, 50, 0])


def test_evaluate_case_of_a_blank_prediction():
    found = evaluate_case(np.zeros_like(REF), REF, 5)
    np.testing.assert_array_equal(found["dice"], [0, 0, 1, 1])
    np.testing.assert_array_equal(found["asd"], [128, 128, 0, 0])
    everything = evaluate_case(np.zeros_like(REF), np.zeros_like(REF), 5)
    np.testing.assert_array_equal(everything["jaccard"], np.ones(4))
    with pytest.raises(ValueError, match="shape"):
        evaluate_case(PRED, REF[:-1], 5)
    with pytest.raises(ValueError, match="gt has labels"):
        evaluate_case(np.zeros_like(REF), REF, 2)


# ---- aggregate


def records(values, metric="dsc", names=("sp", "lk")):
    """From (cases × classes) of values, or (value, state) pairs."""
    rows = []
    for case, of_case in enumerate(values):
        for k, entry in enumerate(of_case, 1):
            value, state = entry if isinstance(entry, tuple) else (entry, "both")
            rows.append(
                {
                    "case": f"c{case}",
                    "class_id": k,
                    "class": names[k - 1],
                    "metric": metric,
                    "value": value,
                    "state": state,
                }
            )
    return pd.DataFrame(rows)


GONE = (float("nan"), "absent")


def test_means_are_over_cases_then_over_classes():
    found = NATIVE.aggregate(records([[0.9, 0.2], [0.6, GONE], [0.3, GONE]]))
    assert found.columns.tolist() == ["metric", "class", "value", "cases", "missed", "spurious", "absent"]
    assert found["class"].tolist() == ["sp", "lk", "avg"]
    # The mean over all values would be 0.5, that over cases of class means 0.483.
    np.testing.assert_allclose(found["value"], [0.6, 0.2, 0.4])
    assert found["cases"].tolist() == [3, 1, 3]
    assert found["absent"].tolist() == [0, 2, 2]


def test_states_are_counted():
    values = [[(0.0, "missed"), 0.5], [0.8, (0.0, "spurious")], [(0.0, "missed"), GONE]]
    found = NATIVE.aggregate(records(values)).set_index("class")
    assert found.loc["sp", ["missed", "spurious", "absent"]].tolist() == [2, 0, 0]
    assert found.loc["lk", ["missed", "spurious", "absent"]].tolist() == [0, 1, 1]
    assert found.loc["avg", ["missed", "spurious", "absent"]].tolist() == [2, 1, 1]
    assert found.loc["avg", "value"] == pytest.approx((0.8 / 3 + 0.25) / 2)


def test_a_class_that_never_occurs_leaves_the_average():
    found = NATIVE.aggregate(records([[0.5, GONE], [0.7, GONE]])).set_index("class")
    assert math.isnan(found.loc["lk", "value"]) and found.loc["lk", "cases"] == 0
    assert found.loc["avg", "value"] == pytest.approx(0.6)
    nothing = NATIVE.aggregate(records([[GONE, GONE]]))
    assert nothing["value"].isna().all() and nothing["cases"].tolist() == [0, 0, 0]


def test_order_of_rows_does_not_matter_and_ids_order_classes():
    names = tuple(f"z{k:02d}" if k % 2 else f"a{k:02d}" for k in range(1, 13))
    rng = np.random.default_rng(0)
    data = pd.concat([records(rng.random((3, 12)), metric, names) for metric in ("hd95", "dsc")])
    found = NATIVE.aggregate(data)
    assert found["metric"].tolist() == ["dsc"] * 13 + ["hd95"] * 13
    assert found["class"].tolist() == [*names, "avg"] * 2
    shuffled = NATIVE.aggregate(data.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(found, shuffled, check_exact=False, rtol=1e-12)


def test_from_volumes_and_back_from_csv(tmp_path):
    rows = [{"case": "a", **row} for row in NATIVE.score(PRED, REF, ORGANS, SPACING)]
    rows += [{"case": "b", **row} for row in NATIVE.score(REF, REF, ORGANS, SPACING)]
    data = pd.DataFrame(rows)
    data.to_csv(tmp_path / "cases.csv", index=False)
    found = NATIVE.aggregate(pd.read_csv(tmp_path / "cases.csv"))
    pd.testing.assert_frame_equal(found, NATIVE.aggregate(data), check_dtype=False)
    by = found.set_index(["metric", "class"])["value"]
    assert by["dsc", "lk"] == 0.5 and by["dsc", "ga"] == 0.0 and math.isnan(by["dsc", "es"])
    assert by["dsc", "avg"] == pytest.approx(np.mean([by["dsc", name] for name in ("sp", "lk", "ga")]))


def test_other_metrics_are_passed_over():
    data = pd.concat([records([[0.5, 0.7]]), records([[3.0, 4.0]], "time")])
    assert set(GA.aggregate(data)["metric"]) == {"dsc"}
    assert GA.aggregate(data.iloc[:0]).empty


def test_leading_cases_can_be_left_out():
    named = protocol(skip_cases=1)
    found = named.aggregate(records([[0.9, 0.9], [0.5, 0.7], [0.1, GONE]])).set_index("class")
    assert found.loc["sp", "value"] == pytest.approx(0.3) and found.loc["lk", "value"] == 0.7
    assert found["cases"].tolist() == [2, 1, 2] and found["absent"].tolist() == [0, 1, 1]
    assert "without the first 1 of a run" in named.caption()


def test_the_background_as_a_class():
    named = protocol(metrics=("dsc",), background=True)
    rows = named.score(PRED, REF, ORGANS, SPACING)
    assert [(row["class_id"], row["class"]) for row in rows] == list(enumerate(("background", *ORGANS)))
    assert rows[0]["value"] == dice(PRED == 0, REF == 0) and rows[0]["ref_voxels"] == (REF == 0).sum()
    found = named.aggregate(pd.DataFrame([{"case": "a", **row} for row in rows]))
    assert found["class"].tolist() == ["background", *ORGANS, "avg"]
    assert "background is a class" in named.caption()


def test_damaged_records_are_refused():
    good = records([[0.5, 0.7], [0.1, 0.2]])
    with pytest.raises(ValueError, match="twice"):
        NATIVE.aggregate(pd.concat([good, good]))
    with pytest.raises(ValueError, match="no row for dsc of class lk"):
        NATIVE.aggregate(good.iloc[:-1])
    with pytest.raises(ValueError, match="no finite value"):
        NATIVE.aggregate(records([[0.5, float("nan")]]))
    with pytest.raises(ValueError, match="no finite value"):
        NATIVE.aggregate(records([[0.5, (float("inf"), "missed")]]))
    with pytest.raises(ValueError, match="lack the columns state"):
        NATIVE.aggregate(good.drop(columns="state"))
    with pytest.raises(ValueError, match="several names"):
        NATIVE.aggregate(good.assign(**{"class": ["sp", "lk", "sp", "rk"]}))
    with pytest.raises(ValueError, match="avg"):
        NATIVE.aggregate(records([[0.5, 0.7]], names=("sp", "avg")))


# ---- what ± is, captions, registry


def test_spread_reproduces_a_published_plus_minus():
    """SKCDF's three runs, published as 64.27±1.36 and 1.45±0.09: population standard deviations."""
    runs, distances = (64.7900, 65.6223, 62.4041), (1.3614, 1.5662, 1.4228)
    assert GA.spread_of(runs) == pytest.approx(1.36, abs=0.005)
    assert GA.spread_of(distances) == pytest.approx(0.09, abs=0.005)
    assert NATIVE.spread_of(runs) == pytest.approx(1.67, abs=0.005)
    assert GA.spread_of([0.5]) == 0.0 and math.isnan(NATIVE.spread_of([0.5])) and math.isnan(GA.spread_of([]))


def test_spread_over_cases_is_per_class_then_averaged():
    named = protocol(spread="cases")
    found = named.aggregate(records([[0.2, 0.5], [0.6, 0.5]])).set_index("class")
    np.testing.assert_allclose(found["sd"], [0.2, 0.0, 0.1], atol=1e-12)
    assert "over cases" in named.caption().split("±")[1]


def test_captions_admit_everything():
    native = NATIVE.caption()
    for words in ("native", "in mm", "one-way", "pooled", "left out and counted", "image diagonal", "ddof 1"):
        assert words in native
    assert "over cases, then over classes" in native and "over seeds" in native
    ga = GA.caption()
    for words in ("160×160×80", "voxels", "distance 128", "overlap 1 and distance 0", "ddof 0"):
        assert words in ga
    assert "voxels" in SSL4MIS.caption() and "mm" not in SSL4MIS.caption()
    tolerant = protocol(metrics=("nsd@2",)).caption()
    assert "within 2 mm" in tolerant and "distance" not in tolerant
    elsewhere = GA.caption(converted=True)
    assert "preprocessed grid of 1.5×1.5×2 mm" in ga and "1.5" not in elsewhere
    assert "original grid (converted" in elsewhere and "160×160×80" in elsewhere and "(converted" not in ga
    uneven = protocol(policy=EmptyPolicy(missed_distance=0.0, spurious_distance="exclude")).caption()
    assert "missed one scores overlap 0 and distance 0, a spurious one 0 and excluded" in uneven


@pytest.mark.parametrize("named", [NATIVE, SSL4MIS, GA])
def test_registered_under_its_name(named):
    assert component("protocol", named.name) is named
    assert hash(named) == hash(component("protocol", named.name))


def test_listing_protocols_imports_nothing_heavy():
    code = (
        "import sys, sslbench.metrics.published;"
        "print([name for name in ('torch', 'pandas', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
