"""The registered protocols: what each scores where, against the sheets; and that a missed organ never pays."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sslbench.core import registry
from sslbench.data.base import Preprocessing
from sslbench.metrics import asd, dice, hd95, jaccard, largest_component, nsd
from sslbench.metrics.protocol import Protocol, resize_nearest
from sslbench.metrics.published import (
    DHC_2023,
    DHC_2023_RELEASED,
    DHC_2024,
    DHC_2024_RELEASED,
    DIGESTPATH,
    DIGESTPATH_RELEASED,
    GA,
    GA_RELEASED,
    LA_BCP,
    LA_BCP_RELEASED,
    LA_COBIONET,
    LA_COBIONET_RELEASED,
    LA_UAMT,
    LA_UAMT_RELEASED,
    MAGICNET,
    MAGICNET_RELEASED,
    METASSL,
    METASSL_RELEASED,
    NATIVE,
    NATIVE_VOXEL,
    SSL4MIS,
    SSL4MIS_RELEASED,
)

FIXED = [
    NATIVE, NATIVE_VOXEL, GA, DHC_2023, DHC_2024, MAGICNET, SSL4MIS, METASSL, LA_UAMT, LA_BCP, LA_COBIONET, DIGESTPATH,
]  # fmt: skip
RELEASED = [
    GA_RELEASED, DHC_2023_RELEASED, DHC_2024_RELEASED, MAGICNET_RELEASED, SSL4MIS_RELEASED, METASSL_RELEASED,
    LA_UAMT_RELEASED, LA_BCP_RELEASED, LA_COBIONET_RELEASED, DIGESTPATH_RELEASED,
]  # fmt: skip
ORGANS = ("sp", "lk", "ga", "es")
SPACING = (3.0, 0.8, 0.5)
NAN = float("nan")


def box(shape, *bounds):
    mask = np.zeros(shape, dtype=np.uint8)
    mask[tuple(slice(*bound) for bound in bounds)] = 1
    return mask


SHAPE = (10, 12, 14)
# 1: in both maps, 2: missed, 3: spurious, 4: absent
REF = box(SHAPE, (1, 5), (1, 6), (1, 7)) + 2 * box(SHAPE, (6, 9), (7, 11), (8, 12))
PRED = box(SHAPE, (2, 6), (1, 6), (2, 7)) + 3 * box(SHAPE, (0, 2), (9, 12), (10, 14))


def table(protocol, pred, ref, classes=ORGANS, spacing=SPACING, axes="xyz"):
    maps = [pred, pred] if "intersection" in protocol.postprocess else pred
    return {(row["class_id"], row["metric"]): row for row in protocol.score(maps, ref, classes, spacing, axes)}


def values(protocol, pred, ref, k, **more):
    found = table(protocol, pred, ref, **more)
    return tuple(found[k, metric]["value"] for metric in protocol.metrics)


# ------------------------------------------------------------------------------------------------------ the registry


def test_these_are_all():
    names = [entry.name for entry in registry.entries("protocol") if entry.target.__class__ is Protocol]
    assert {protocol.name for protocol in (*FIXED, *RELEASED)} <= set(names)
    shipped = [name for group in registry.BUILTIN["protocol"].values() for name in group]
    assert sorted(shipped) == sorted(protocol.name for protocol in (*FIXED, *RELEASED))


@pytest.mark.parametrize("protocol", RELEASED, ids=lambda protocol: protocol.name)
def test_a_released_protocol_is_another_and_says_so(protocol):
    plain = registry.component("protocol", protocol.name.removesuffix("-released"))
    assert registry.component("protocol", f"{plain.name}[released]") is protocol
    assert protocol.released and not plain.released
    assert (protocol.grid, protocol.unit, protocol.metrics) == (plain.grid, plain.unit, plain.metrics)
    assert (protocol.ddof, protocol.spread, protocol.postprocess) == (plain.ddof, plain.spread, plain.postprocess)
    assert protocol.caption().startswith(f"Protocol {protocol.name} (version ")
    for slip in protocol.slips:
        assert slip in protocol.caption() and slip not in plain.caption()


@pytest.mark.parametrize("alias", ["dhc", "genericssl", "skcdf"])
def test_who_else_measures_as_dhc(alias):
    assert registry.component("protocol", alias) is DHC_2023


# --------------------------------------------------------------------------------------- numbers of the sheets, on 12³

CUBE = box((12,) * 3, (3, 7), (3, 7), (3, 7))
WORKED = {
    "far voxel": (CUBE | box((12,) * 3, (10, 11), (10, 11), (10, 11)), 0.992248, 0.121547),
    "shifted": (box((12,) * 3, (4, 8), (3, 7), (3, 7)), 0.75, 0.357143),
    "inside": (box((12,) * 3, (4, 6), (4, 6), (4, 6)), 0.222222, 1.0),
}


@pytest.mark.parametrize("name", WORKED)
@pytest.mark.parametrize(
    "protocol",
    [replace(GA, resize_to=None), MAGICNET, SSL4MIS, LA_UAMT, NATIVE_VOXEL, replace(DHC_2024, resize_by=None)],
    ids=lambda protocol: protocol.name,
)
def test_worked_checks(protocol, name):
    pred, dsc, distance = WORKED[name]
    found = table(protocol, pred, CUBE, ("a",), (2.0, 3.0, 4.0))
    assert found[1, "dsc"]["value"] == pytest.approx(dsc, abs=5e-7)
    assert found[1, "asd"]["value"] == pytest.approx(distance, abs=5e-7)
    assert found[1, "asd"]["unit"] == "voxel"


def test_the_far_voxel_is_no_part_of_the_largest_component():
    pred = WORKED["far voxel"][0]
    for protocol in (LA_BCP, LA_BCP_RELEASED, LA_COBIONET):
        assert values(protocol, pred, CUBE, 1, classes=("la",)) == (1.0, 1.0, 0.0, 0.0)
    assert values(LA_UAMT, pred, CUBE, 1, classes=("la",))[0] < 1


# ---------------------------------------------------------------------------------------------------- empty masks

DIAGONAL = math.sqrt(sum(side**2 for side in SHAPE))
MM = math.sqrt(sum((side * size) ** 2 for side, size in zip(SHAPE, SPACING, strict=True)))
HALF = math.sqrt(5**2 + 6**2 + 14**2)


def like(protocol, missed, spurious, absent):
    """The values of a protocol's metrics from (overlap, distance) pairs."""
    is_distance = [metric in ("asd", "hd95") for metric in protocol.metrics]
    return [tuple(pair[distance] for distance in is_distance) for pair in (missed, spurious, absent)]


def small(protocol):
    """The same protocol on a grid that is quick to measure."""
    return protocol if protocol.resize_to is None else replace(protocol, resize_to=(12, 11, 10))


EMPTY = {
    NATIVE: ((0, MM), (0, MM), (NAN, NAN)),
    NATIVE_VOXEL: ((0, DIAGONAL), (0, DIAGONAL), (NAN, NAN)),
    GA: ((0, 128), (0, 128), (1, 0)),
    GA_RELEASED: ((0, 128), (0, 128), (1, 0)),
    DHC_2023: ((0, 128), (0, 128), (1, 0)),
    DHC_2023_RELEASED: ((0, 128), (0, 128), (0.01, 0)),
    DHC_2024: ((0, 128), (0, 128), (1, 0)),
    DHC_2024_RELEASED: ((0, 128), (0, 128), (0.01, 0)),
    MAGICNET: ((0, DIAGONAL), (0, DIAGONAL), (NAN, NAN)),
    MAGICNET_RELEASED: ((0, 0), (0, 0), (0, 0)),
    SSL4MIS: ((0, DIAGONAL), (0, DIAGONAL), (NAN, NAN)),
    SSL4MIS_RELEASED: ((0, 0), (0, DIAGONAL), (0, 0)),
    METASSL: ((0, DIAGONAL), (0, DIAGONAL), (NAN, NAN)),
    METASSL_RELEASED: ((0, 50), (0, 50), (1, 50)),
    LA_UAMT: ((0, DIAGONAL), (0, DIAGONAL), (NAN, NAN)),
    LA_UAMT_RELEASED: ((0, 0), (0, DIAGONAL), (0, 0)),
    LA_BCP: ((0, DIAGONAL), (0, DIAGONAL), (NAN, NAN)),
    LA_BCP_RELEASED: ((0, 0), (0, DIAGONAL), (0, 0)),
    LA_COBIONET: ((0, DIAGONAL), (0, DIAGONAL), (NAN, NAN)),
    LA_COBIONET_RELEASED: ((0, 0), (0, DIAGONAL), (0, 0)),
    DIGESTPATH: ((0, None), (0, None), (NAN, None)),
    DIGESTPATH_RELEASED: ((0, None), (0, None), (1, None)),
}


@pytest.mark.parametrize("protocol", EMPTY, ids=lambda protocol: protocol.name)
def test_what_empty_masks_score(protocol):
    found = [values(small(protocol), PRED, REF, k) for k in (2, 3, 4)]
    # The smoothing of digestpath-released leaves 1e-5 / (n + 1e-5) of n voxels.
    for got, expected in zip(found, like(protocol, *EMPTY[protocol]), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=2e-6 if protocol.smooth else 0)
    states = table(small(protocol), PRED, REF)
    assert [states[k, "dsc"]["state"] for k in range(1, 5)] == ["both", "missed", "spurious", "absent"]


def test_every_protocol_is_held_against_its_sheet():
    assert set(EMPTY) == {*FIXED, *RELEASED}


BLANK = np.zeros_like(REF)


def test_a_blank_prediction():
    """Only the released script of GA has a rule of its own for it, by which it has no distance to anything."""
    assert [values(GA, BLANK, REF, k) for k in (1, 2, 3, 4)] == [(0, 128), (0, 128), (1, 0), (1, 0)]
    assert [values(GA_RELEASED, BLANK, REF, k) for k in (1, 2, 3, 4)] == [(0, 0)] * 4
    assert values(DHC_2023_RELEASED, BLANK, REF, 1) == (0, 128)


# ---------------------------------------------------------------------------------------- a missed organ never pays


def direction(metric):
    return 1 if metric in ("dsc", "jaccard") or metric.startswith("nsd") else -1


@pytest.mark.parametrize("protocol", FIXED, ids=lambda protocol: protocol.name)
@given(seed=st.integers(0, 2**32 - 1), density=st.sampled_from([0.01, 0.1, 0.5]))
@settings(max_examples=25, deadline=None)
def test_dropping_an_organ_improves_no_score(protocol, seed, density):
    """Per case, and so in means over cases and classes: dropping changes no other class's score for the better."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(2, 9, size=3))
    spacing = rng.uniform(0.3, 40, 3)
    pred, ref = (rng.integers(1, 3, shape) * (rng.random(shape) < density) for _ in range(2))
    ref.flat[rng.integers(ref.size)] = 1
    measured = small(protocol)
    before = table(measured, pred, ref, ("a", "b"), spacing)
    after = table(measured, np.where(pred == 1, 0, pred), ref, ("a", "b"), spacing)
    assume(before[1, "dsc"]["ref_voxels"])  # a coarser grid can lose an organ altogether
    for (k, metric), row in after.items():
        was = before[k, metric]["value"]
        if math.isnan(was):
            assert math.isnan(row["value"])
        else:
            assert direction(metric) * (row["value"] - was) <= 0, (k, metric)


def corners():
    """An organ of one voxel, found in the farthest corner: 196 voxels away on the grid of GA."""
    ref, pred = np.zeros((2, 8, 8, 8), dtype=np.uint8)
    ref[0, 0, 0] = pred[7, 7, 7] = 1
    return pred, ref


@pytest.mark.parametrize("protocol", [GA, DHC_2023])
def test_no_distance_counts_more_than_that_of_a_missed_organ(protocol):
    pred, ref = corners()
    assert values(protocol, pred, ref, 1, classes=("a",)) == (0, 128)
    assert values(protocol, pred * 0, ref, 1, classes=("a",)) == (0, 128)
    assert "no distance counts more than 128" in protocol.caption()


@pytest.mark.parametrize("protocol", [GA_RELEASED, DHC_2023_RELEASED])
def test_slip_an_organ_found_too_far_away_costs_more_than_a_missed_one(protocol):
    pred, ref = corners()
    assert values(protocol, pred, ref, 1, classes=("a",))[1] > 190
    also = pred + 2 * box(pred.shape, (0, 1), (0, 1), (7, 8))  # so that not all is background without it
    assert values(protocol, np.where(also == 1, 0, also), ref, 1, classes=("a", "b"))[1] == 128


def test_slip_of_ga_a_collapsed_network_is_near_everything():
    dropped = table(GA_RELEASED, BLANK, REF)
    assert all(row["value"] == 0 for row in dropped.values())
    assert values(GA_RELEASED, np.where(PRED == 3, 3, 0), REF, 1) == (0, 128)


@pytest.mark.parametrize("protocol", [DHC_2023_RELEASED, DHC_2024_RELEASED])
def test_slip_of_dhc_an_absent_organ_is_worth_one_percent(protocol):
    assert values(protocol, PRED, REF, 4) == (0.01, 0)


@pytest.mark.parametrize(
    "protocol",
    [SSL4MIS_RELEASED, LA_UAMT_RELEASED, LA_BCP_RELEASED, LA_COBIONET_RELEASED, MAGICNET_RELEASED],
    ids=lambda protocol: protocol.name,
)
def test_slip_of_most_a_missed_organ_is_at_distance_0(protocol):
    found, missed = (table(protocol, pred, REF) for pred in (PRED, np.where(PRED == 1, 0, PRED)))
    for metric in protocol.metrics:
        if metric in ("asd", "hd95"):
            assert found[1, metric]["value"] > missed[1, metric]["value"] == 0


def test_slip_of_metassl_a_missed_organ_is_50_away():
    shape = (3, 90, 90)
    ref, pred = box(shape, (0, 3), (0, 9), (0, 9)), box(shape, (0, 3), (80, 90), (80, 90))
    assert values(METASSL_RELEASED, pred, ref, 1, classes=("a",))[1] > 100
    assert values(METASSL_RELEASED, pred * 0, ref, 1, classes=("a",))[1] == 50
    assert values(METASSL, pred * 0, ref, 1, classes=("a",))[1] > 100


def test_slips_of_digestpath():
    """Background is a class, overlaps are smoothed, and the first image is lost."""
    rows = []
    for name, bounds in (("first", (0, 10)), ("second", (5, 10)), ("third", (0, 5))):
        ref = box((1, 10, 20), (0, 1), (0, 10), (0, 10))
        pred = box((1, 10, 20), (0, 1), bounds, (0, 10))
        rows += [{"case": name, **row} for row in DIGESTPATH_RELEASED.score(pred, ref, ("lesion",), (1, 1, 1), "zyx")]
    assert [row["class"] for row in rows[:4]] == ["background"] * 2 + ["lesion"] * 2
    # 100 of 200 pixels are lesion; half of it is found: lesion 2·50/150, background 2·100/250.
    second = {(row["class"], row["metric"]): row["value"] for row in rows if row["case"] == "second"}
    assert second["lesion", "dsc"] == pytest.approx((100 + 1e-5) / (150 + 1e-5), rel=1e-14)
    assert second["background", "dsc"] == pytest.approx((200 + 1e-5) / (250 + 1e-5), rel=1e-14)
    assert second["lesion", "jaccard"] == pytest.approx((50 + 1e-5) / (100 + 1e-5), rel=1e-14)
    found = DIGESTPATH_RELEASED.aggregate(pd.DataFrame(rows)).set_index(["metric", "class"])
    assert found.loc[("dsc", "avg"), "value"] == pytest.approx((100 / 150 + 200 / 250) / 2, abs=1e-6)
    assert found.loc[("dsc", "avg"), "cases"] == 2 and found.loc[("dsc", "avg"), "sd"] == pytest.approx(0)
    lesion = DIGESTPATH.aggregate(pd.DataFrame([row for row in rows if row["class"] == "lesion"]))
    assert lesion["value"].iloc[0] == pytest.approx((1 + 100 / 150 + 100 / 150) / 3, abs=1e-6)


def test_a_lesion_that_is_all_background_or_nothing_is_smoothed_to_nearly_nothing():
    ref = box((4, 5), (0, 2), (0, 2))
    found = table(DIGESTPATH_RELEASED, ref * 0, ref, ("lesion",), (1, 1))
    assert found[1, "dsc"]["value"] == pytest.approx(1e-5 / (4 + 1e-5))
    assert table(DIGESTPATH_RELEASED, ref * 0, ref * 0, ("lesion",), (1, 1))[1, "dsc"]["value"] == 1.0
    assert math.isnan(table(DIGESTPATH, ref * 0, ref * 0, ("lesion",), (1, 1))[1, "dsc"]["value"])


# ----------------------------------------------------------------------------------------------------------- grids

MADE = {
    "ga": Preprocessing(axes="xyz", spacing_mm=(1.5, 1.5, 2.0)),
    "dhc-2023": Preprocessing(axes="zyx", resize_to=(160, 160, 80)),
    "dhc-2024": Preprocessing(axes="zyx", resize_by=(0.5, 0.5, 1.0)),
    "native": Preprocessing(axes="xyz"),
}


def test_which_stored_grids_are_the_papers():
    own = {name: {p.name for p in FIXED if not p.converts(made)} for name, made in MADE.items()}
    everywhere = {protocol.name for protocol in FIXED if protocol.grid == "original"}
    assert own == {
        "ga": everywhere | {"ga", "magicnet"},
        "dhc-2023": everywhere | {"dhc-2023"},
        "dhc-2024": everywhere,
        "native": everywhere,
    }
    assert GA.takes(MADE["ga"]) == "preprocessed" and GA.takes(MADE["native"]) == GA.takes(None) == "original"
    assert GA.converts(None) and not NATIVE.converts(None)


def test_shipped_preprocessings_are_those_that_protocols_look_for():
    """A recipe's protocol measures what its paper measured: nothing is converted."""
    for dataset, preprocessing, protocol in [
        ("synapse", "ga", GA),
        ("synapse", "ga", MAGICNET),
        ("amos", "ga", GA),
        ("synapse", "dhc-2023", DHC_2023),
        ("amos", "dhc-2023", DHC_2023),
        ("synapse", "dhc-2024", DHC_2024),
    ]:
        made = registry.component("dataset", dataset).preprocessings[preprocessing]
        assert not protocol.converts(made), (dataset, preprocessing)


def test_dhc_2023_leaves_its_stored_grid_as_it_is():
    pred, ref = np.zeros((2, 80, 160, 160), dtype=np.uint8)
    pred[10:20, 30:60, 40:50] = ref[11:22, 30:61, 42:50] = 1
    found = table(DHC_2023, pred, ref, ("a",), (1, 1, 1), "zyx")
    assert found[1, "dsc"]["value"] == dice(pred, ref) and found[1, "asd"]["value"] == asd(pred, ref)
    assert found[1, "dsc"]["ref_voxels"] == ref.sum()


def test_dhc_2023_from_the_scans_own_grid():
    pred, ref = np.zeros((2, 40, 50, 20), dtype=np.uint8)
    pred[10:30, 20:33, 4:9] = ref[11:30, 20:35, 4:10] = 1
    near = [resize_nearest(labels, (160, 160, 80)) for labels in (pred, ref)]
    assert values(DHC_2023, pred, ref, 1, classes=("a",)) == (dice(*near), asd(*near))


@pytest.mark.parametrize("axes", ["xyz", "zyx"])
def test_dhc_2024_halves_what_was_doubled(axes):
    rng = np.random.default_rng(0)
    stored = [(rng.random((9, 8, 7)) < 0.4).astype(np.uint8) for _ in range(2)]
    pred, ref = (labels.repeat(2, axis=0).repeat(2, axis=1) for labels in stored)
    if axes == "zyx":
        pred, ref = pred.transpose(2, 1, 0), ref.transpose(2, 1, 0)
    found = values(DHC_2024, pred, ref, 1, classes=("a",), axes=axes)
    assert found == pytest.approx((dice(*stored), asd(*stored)), rel=1e-12)
    odd = values(DHC_2024, pred[1:, 1:, 1:], ref[1:, 1:, 1:], 1, classes=("a",), axes=axes)
    assert 0 < odd[0] < 1


def test_who_resizes_takes_volumes_only():
    for protocol in (GA, DHC_2023, DHC_2024):
        assert "resizes 3-D maps" in protocol.objection("yx")
        with pytest.raises(ValueError, match="resizes 3-D maps"):
            protocol.score(PRED[0], REF[0], ORGANS, (1, 1), "yx")
    assert all(protocol.objection() is None for protocol in (*FIXED, *RELEASED) if "cobionet" not in protocol.name)


def test_numbers_that_tables_of_metassl_print():
    """DSC and HD95 in voxels, ± over cases per class, averaged over classes."""
    rows = []
    maps = [(PRED, REF), (REF, REF)]
    for case, (pred, ref) in enumerate(maps):
        two = [np.where(labels > 2, 0, labels) for labels in (np.where(pred == 3, 2, pred), ref)]
        rows += [{"case": case, **row} for row in METASSL.score(*two, ("a", "b"), SPACING)]
        maps[case] = two
    found = METASSL.aggregate(pd.DataFrame(rows)).set_index(["metric", "class"])
    of = {
        "dsc": [[dice(p == k, r == k) for p, r in maps] for k in (1, 2)],
        "hd95": [[hd95(p == k, r == k) for p, r in maps] for k in (1, 2)],
    }
    for metric, per_class in of.items():
        sds = [np.std(of_class) for of_class in per_class]
        assert found.loc[(metric, "avg"), "value"] == pytest.approx(np.mean(per_class))
        assert found.loc[(metric, "avg"), "sd"] == pytest.approx(np.mean(sds))


def test_magicnet_has_nsd_within_a_voxel():
    found = values(MAGICNET, PRED, REF, 1)
    p, r = PRED == 1, REF == 1
    assert found == pytest.approx((dice(p, r), hd95(p, r), nsd(p, r, 1), asd(p, r)))


# ------------------------------------------------------------------------------------------------- postprocessing


def test_co_bionet_needs_two_networks_and_others_one():
    first, second = box(SHAPE, (2, 6), (1, 6), (2, 7)), box(SHAPE, (3, 7), (1, 6), (2, 7))
    second[9, 11, 13] = first[9, 11, 13] = 1
    ref = (REF == 1).astype(np.uint8)
    both = largest_component(first & second, 2)
    assert both.sum() == 3 * 5 * 5
    found = LA_COBIONET.score([first, second], ref, ("la",), SPACING)
    expected = (dice(both, ref), jaccard(both, ref), hd95(both, ref), asd(both, ref))
    assert [row["value"] for row in found] == pytest.approx(expected)
    with pytest.raises(ValueError, match="la-cobionet intersects the label maps of several networks"):
        LA_COBIONET.score(first, ref, ("la",), SPACING)
    with pytest.raises(ValueError, match="la-bcp scores one label map, and was given 2"):
        LA_BCP.score([first, second], ref, ("la",), SPACING)
    with pytest.raises(ValueError, match="shape"):
        LA_COBIONET.score([first, second[1:]], ref, ("la",), SPACING)
    assert "largest component" in LA_COBIONET.caption() and "intersection" in LA_COBIONET.caption()


def test_an_image_is_flat_however_it_is_stored():
    rng = np.random.default_rng(5)
    pred, ref = rng.integers(0, 3, (2, 9, 11))
    expected = NATIVE.score(pred, ref, ("a", "b"), (2.0, 0.7))
    for axis, spacing in ((0, (5.0, 2.0, 0.7)), (1, (2.0, 5.0, 0.7)), (2, (2.0, 0.7, 5.0))):
        found = NATIVE.score(np.expand_dims(pred, axis), np.expand_dims(ref, axis), ("a", "b"), spacing)
        assert found == expected
    dot = np.ones((1, 1, 1), dtype=int)
    assert NATIVE.score(dot, dot, ("a",), (1, 1, 1))[0]["value"] == 1.0
