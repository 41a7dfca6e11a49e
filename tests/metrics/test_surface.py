"""Surface distances: closed forms, laws, MedPy, and a brute force written from the definition."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sslbench.metrics import asd, assd, dice, hd95, nsd, surface_distances

SPACINGS = st.floats(0.3, 6.0, allow_nan=False)


def box(shape, *bounds):
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*bound) for bound in bounds)] = True
    return mask


def ball(shape, centre, radius, spacing=(1.0, 1.0, 1.0)):
    grid = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij")
    return sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2


def brute_surface(mask):
    """Coordinates of mask voxels with a face neighbour that is background or outside the array."""
    found = []
    for index in zip(*np.nonzero(mask), strict=True):
        for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
            other = list(index)
            other[axis] += step
            if not 0 <= other[axis] < mask.shape[axis] or not mask[tuple(other)]:
                found.append(index)
                break
    return np.array(found, dtype=float)


def brute_distances(pred, gt, spacing):
    p, g = brute_surface(pred) * spacing, brute_surface(gt) * spacing
    between = np.sqrt(((p[:, None] - g[None]) ** 2).sum(-1))
    return between.min(1), between.min(0)


@st.composite
def mask_pairs(draw, max_side=6, dims=(1, 2, 3)):
    """Two non-empty masks and a spacing; blobs rather than only noise, so that there are insides."""
    shape = draw(st.lists(st.integers(1, max_side), min_size=min(dims), max_size=max(dims)).map(tuple))
    pair = []
    for _ in range(2):
        mask = draw(hnp.arrays(bool, shape))
        if draw(st.booleans()):
            low = [draw(st.integers(0, n - 1)) for n in shape]
            high = [draw(st.integers(a + 1, n)) for a, n in zip(low, shape, strict=True)]
            mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
        assume(mask.any())
        pair.append(mask)
    return (*pair, tuple(draw(SPACINGS) for _ in shape))


# ---- closed forms


@pytest.mark.parametrize(
    ("pred", "expected_dice", "forth", "back"),
    [
        (
            box((12,) * 3, (3, 7), (3, 7), (3, 7)) | box((12,) * 3, (10, 11), (10, 11), (10, 11)),
            0.992248,
            0.121547,
            0.0,
        ),
        (box((12,) * 3, (4, 8), (3, 7), (3, 7)), 0.75, 0.357143, 0.357143),
        (box((12,) * 3, (4, 6), (4, 6), (4, 6)), 0.222222, 1.0, 1.282099),
    ],
    ids=["far voxel", "shifted", "inside"],
)
def test_worked_checks_of_the_evaluation_sheet(pred, expected_dice, forth, back):
    gt = box((12,) * 3, (3, 7), (3, 7), (3, 7))
    assert dice(pred, gt) == pytest.approx(expected_dice, abs=5e-7)
    assert asd(pred, gt) == pytest.approx(forth, abs=5e-7)
    assert asd(gt, pred) == pytest.approx(back, abs=5e-7)
    assert surface_distances(gt, gt).pred_to_ref.size == 56


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.76, 1.5), (0.5, 10.0, 2.0)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_planes_apart(spacing, axis):
    """Two parallel planes through the array, k steps apart: every distance is k steps in that axis' spacing."""
    pred, gt = np.zeros((2, 9, 9, 9), dtype=bool)
    pred[(slice(None),) * axis + (2,)] = True
    gt[(slice(None),) * axis + (6,)] = True
    expected = 4 * spacing[axis]
    for metric in (asd, assd, hd95):
        assert metric(pred, gt, spacing) == pytest.approx(expected)
    assert hd95(pred, gt, spacing, variant="max") == pytest.approx(expected)
    assert nsd(pred, gt, expected * 1.001, spacing) == 1.0
    assert nsd(pred, gt, expected * 0.999, spacing) == 0.0


def test_tolerance_is_inclusive():
    a, b = box((9,), (2, 3)), box((9,), (5, 6))
    assert nsd(a, b, 3) == 1.0
    assert nsd(a, b, 2.999) == 0.0
    assert nsd(a, a, 0) == 1.0
    for tau in (-1, float("nan")):
        with pytest.raises(ValueError, match="negative"):
            nsd(a, b, tau)


def test_box_in_box_under_anisotropic_spacing():
    """Inner slab face to outer slab face: only the third axis separates the surfaces that matter."""
    spacing = (2.0, 3.0, 0.5)
    pred, gt = box((1, 1, 30), (0, 1), (0, 1), (10, 14)), box((1, 1, 30), (0, 1), (0, 1), (8, 20))
    # All voxels are surface (the array is one voxel thick). pred ⊂ gt, so one way nothing is far.
    assert asd(pred, gt, spacing) == 0.0
    back = 0.5 * np.array([2, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6])
    assert asd(gt, pred, spacing) == pytest.approx(back.mean())
    assert assd(pred, gt, spacing) == pytest.approx(back.sum() / 16)
    assert hd95(pred, gt, spacing) == pytest.approx(np.percentile(np.r_[back, np.zeros(4)], 95))
    assert hd95(pred, gt, spacing, "max") == pytest.approx(np.percentile(back, 95))
    assert nsd(pred, gt, 1.0, spacing) == pytest.approx((4 + 8) / 16)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 0.8, 1.3)])
def test_concentric_balls(spacing):
    """Balls of radius 8 and 12 mm: distances are 4 mm but for the voxels' size."""
    shape = tuple(math.ceil(30 / s) for s in spacing)
    small, large = ball(shape, (15, 15, 15), 8, spacing), ball(shape, (15, 15, 15), 12, spacing)
    voxel = float(np.linalg.norm(spacing))
    found = surface_distances(small, large, spacing)
    for value in (found.asd(), found.assd(), found.hd95(), found.hd95("max")):
        assert value == pytest.approx(4.0, abs=voxel)
    assert np.all(np.abs(found.pred_to_ref - 4.0) <= voxel)


def test_single_voxels():
    pred, gt = np.zeros((2, 5, 6, 7), dtype=bool)
    pred[0, 0, 0] = gt[4, 5, 6] = True
    assert asd(pred, gt) == hd95(pred, gt) == pytest.approx(math.sqrt(16 + 25 + 36))
    assert asd(pred, gt, (3, 2, 1)) == pytest.approx(math.sqrt(144 + 100 + 36))
    assert asd(pred, gt, 2) == pytest.approx(2 * math.sqrt(16 + 25 + 36))
    assert asd(pred, pred) == 0.0


def test_assd_weighs_voxels_not_directions():
    gt = np.ones((1, 20), dtype=bool)  # one voxel thick: 20 surface voxels against 1
    pred = np.zeros((1, 20), dtype=bool)
    pred[0, 0] = True
    assert assd(pred, gt) == pytest.approx(np.arange(20).sum() / 21)


def test_a_mask_on_the_border_of_the_array_has_its_surface_there():
    full = np.ones((4, 5, 6), dtype=bool)
    assert surface_distances(full, full).pred_to_ref.size == 4 * 5 * 6 - 2 * 3 * 4
    # Within a larger array the same box has the same surface.
    padded = np.pad(full, 3)
    assert surface_distances(padded, padded).pred_to_ref.size == 4 * 5 * 6 - 2 * 3 * 4


# ---- empty masks and wrong input


@pytest.mark.parametrize("shape", [(5,), (4, 5), (3, 4, 5)])
def test_nothing_is_defined_on_an_empty_mask(shape):
    full, empty = np.ones(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for pred, gt in ((full, empty), (empty, full), (empty, empty)):
        found = surface_distances(pred, gt)
        assert found.pred_to_ref.size == found.ref_to_pred.size == 0
        values = (found.asd(), found.assd(), found.hd95(), found.hd95("max"), found.nsd(1))
        assert all(math.isnan(value) for value in values)


def test_wrong_input_is_refused():
    a = np.ones((3, 4), dtype=bool)
    for spacing in ((1.0,), (1.0, 2.0, 3.0), (1.0, 0.0), (1.0, -1.0), (1.0, float("nan")), 0.0):
        with pytest.raises(ValueError, match="spacing"):
            asd(a, a, spacing)
    with pytest.raises(ValueError, match="shape"):
        asd(a, a[:2])
    with pytest.raises(ValueError, match="mask"):
        asd(a, a * 2)
    with pytest.raises(ValueError, match="variant"):
        hd95(a, a, variant="mean")
    with pytest.raises(ValueError, match="axis"):
        asd(np.bool_(True), np.bool_(True))


# ---- laws


@given(mask_pairs())
@settings(max_examples=80, deadline=None)
def test_brute_force(case):
    pred, gt, spacing = case
    found = surface_distances(pred, gt, spacing)
    forth, back = brute_distances(pred, gt, spacing)
    np.testing.assert_allclose(np.sort(found.pred_to_ref), np.sort(forth), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.sort(found.ref_to_pred), np.sort(back), rtol=1e-9, atol=1e-12)
    pooled = np.concatenate([forth, back])
    assert found.asd() == pytest.approx(forth.mean(), rel=1e-9)
    assert found.assd() == pytest.approx(pooled.mean(), rel=1e-9)
    assert found.hd95() == pytest.approx(np.percentile(pooled, 95), rel=1e-9)
    assert found.hd95("max") == pytest.approx(max(np.percentile(forth, 95), np.percentile(back, 95)), rel=1e-9)
    tau = float(np.median(pooled)) * 1.0001
    assert found.nsd(tau) == pytest.approx(np.mean(pooled <= tau))


@given(mask_pairs(max_side=7, dims=(2, 3)), st.booleans())
@settings(max_examples=40, deadline=None)
def test_medpy(case, in_voxels):
    binary = pytest.importorskip("medpy.metric.binary")
    pred, gt, spacing = case
    spacing = None if in_voxels else spacing
    assert asd(pred, gt, spacing) == pytest.approx(binary.asd(pred, gt, spacing), rel=1e-9)
    assert asd(gt, pred, spacing) == pytest.approx(binary.asd(gt, pred, spacing), rel=1e-9)
    assert hd95(pred, gt, spacing) == pytest.approx(binary.hd95(pred, gt, spacing), rel=1e-9)
    assert dice(pred, gt) == pytest.approx(binary.dc(pred, gt), rel=1e-12)
    assert assd(pred, gt, spacing) == pytest.approx(binary.assd(pred, gt, spacing), rel=1e-9)


def test_medpy_on_organs():
    binary = pytest.importorskip("medpy.metric.binary")
    rng = np.random.default_rng(3)
    gt = ball((40, 48, 44), (18, 20, 22), 14)
    pred = ball((40, 48, 44), (20, 22, 21), 13) & (rng.random(gt.shape) > 0.02)
    pred[38, 46, 1] = True
    for spacing in (None, (3.0, 0.8, 0.8)):
        assert asd(pred, gt, spacing) == pytest.approx(binary.asd(pred, gt, spacing), rel=1e-9)
        assert hd95(pred, gt, spacing) == pytest.approx(binary.hd95(pred, gt, spacing), rel=1e-9)


@given(mask_pairs())
@settings(max_examples=40, deadline=None)
def test_symmetry_and_self(case):
    pred, gt, spacing = case
    forth, back = surface_distances(pred, gt, spacing), surface_distances(gt, pred, spacing)
    assert forth.assd() == pytest.approx(back.assd(), rel=1e-12)
    assert forth.hd95() == pytest.approx(back.hd95(), rel=1e-12)
    assert forth.hd95("max") == pytest.approx(back.hd95("max"), rel=1e-12)
    assert forth.nsd(1.0) == back.nsd(1.0)
    np.testing.assert_allclose(np.sort(forth.pred_to_ref), np.sort(back.ref_to_pred))
    itself = surface_distances(pred, pred, spacing)
    assert itself.asd() == itself.assd() == itself.hd95() == 0.0 and itself.nsd(0) == 1.0


@given(mask_pairs(max_side=5), st.data())
@settings(max_examples=40, deadline=None)
def test_translation_and_background_around_change_nothing(case, data):
    pred, gt, spacing = case
    width = [(data.draw(st.integers(0, 4)), data.draw(st.integers(0, 4))) for _ in spacing]
    found = surface_distances(pred, gt, spacing)
    moved = surface_distances(np.pad(pred, width), np.pad(gt, width), spacing)
    # Bit by bit: distances are taken inside the union box, wherever it lies.
    np.testing.assert_array_equal(found.pred_to_ref, moved.pred_to_ref)
    np.testing.assert_array_equal(found.ref_to_pred, moved.ref_to_pred)


@given(mask_pairs(dims=(2, 3)), st.data())
@settings(max_examples=40, deadline=None)
def test_order_of_axes_and_scale(case, data):
    pred, gt, spacing = case
    order = data.draw(st.permutations(range(pred.ndim)))
    turned = [np.transpose(mask, order)[::-1] for mask in (pred, gt)]
    sizes = tuple(spacing[axis] for axis in order)
    assert asd(*turned, sizes) == pytest.approx(asd(pred, gt, spacing), rel=1e-12)
    assert hd95(*turned, sizes) == pytest.approx(hd95(pred, gt, spacing), rel=1e-12)
    doubled = tuple(2 * s for s in spacing)
    assert asd(pred, gt, doubled) == pytest.approx(2 * asd(pred, gt, spacing), rel=1e-12)


def test_memory_order_does_not_matter():
    rng = np.random.default_rng(1)
    pred, gt = rng.random((2, 8, 9, 10)) < 0.3
    for other in (np.asfortranarray(gt), np.repeat(gt, 2, axis=1)[:, ::2], gt.astype(np.uint8)):
        assert asd(pred, other, (1, 2, 3)) == asd(pred, gt, (1, 2, 3))
