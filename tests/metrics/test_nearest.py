"""The three ways to the nearest voxel: each against all pairs written out, and the choice between them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslbench.metrics import nearest as module
from sslbench.metrics.nearest import by_pairs, by_sweeps, by_tree, nearest
from sslbench.metrics.surface import surface_distances


def all_pairs(points, targets, spacing):
    gaps = (points[:, None] - targets[None]) * spacing
    return np.sqrt((gaps**2).sum(axis=-1)).min(axis=1)


@st.composite
def sets(draw, dims=(3,)):
    """Points and targets on a grid that may overlap, touch, or lie far apart; and a spacing."""
    axes = draw(st.sampled_from(dims))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    found = []
    for _ in range(2):
        low = rng.integers(0, 40, axes)
        high = low + rng.integers(1, draw(st.sampled_from([2, 12, 40])), axes)
        found.append(rng.integers(low, high, (draw(st.integers(1, 60)), axes)))
    return (*found, rng.uniform(0.2, 5, axes))


@given(sets())
@settings(max_examples=60, deadline=None)
def test_sweeps(case):
    points, targets, spacing = case
    expected = all_pairs(*case)
    for order in itertools.permutations(range(3)):
        np.testing.assert_allclose(by_sweeps(points, targets, spacing, order), expected, rtol=1e-12, atol=1e-12)


@given(sets(dims=(1, 2, 3)))
@settings(max_examples=60, deadline=None)
def test_tree(case):
    np.testing.assert_allclose(by_tree(*case), all_pairs(*case), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(nearest(*case), all_pairs(*case), rtol=1e-12, atol=1e-12)


@given(sets(dims=(1, 2, 3)))
@settings(max_examples=30, deadline=None)
def test_pairs_on_a_device(case):
    np.testing.assert_allclose(by_pairs(*case, "cpu"), all_pairs(*case), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(nearest(*case, device="cpu"), by_pairs(*case, "cpu"))


def test_work_in_pieces(monkeypatch):
    rng = np.random.default_rng(0)
    points, targets = rng.integers(0, 30, (500, 3)), rng.integers(10, 20, (80, 3))
    spacing = np.array([1.0, 0.7, 3.0])
    expected = all_pairs(points, targets, spacing)
    monkeypatch.setattr(module, "_ROWS", 7)
    monkeypatch.setattr(module, "_PAIRS", 7)
    np.testing.assert_allclose(by_sweeps(points, targets, spacing), expected, rtol=1e-12)
    np.testing.assert_allclose(by_pairs(points, targets, spacing, "cpu"), expected, rtol=1e-12)


def test_many_far_points_around_a_compact_target_are_swept(monkeypatch):
    """And nothing else is: not organs beside their predictions, not images, not few points."""
    taken = []
    monkeypatch.setattr(module, "by_sweeps", lambda *args: taken.append("sweeps") or by_sweeps(*args))
    monkeypatch.setattr(module, "by_tree", lambda *args: taken.append("tree") or by_tree(*args))
    rng = np.random.default_rng(1)
    noise, organ = rng.integers(0, 60, (40_000, 3)), rng.integers(20, 30, (2000, 3))
    spacing = np.ones(3)
    found = nearest(noise, organ, spacing)
    np.testing.assert_allclose(found, by_tree(noise, organ, spacing), rtol=1e-12)
    nearest(organ, noise, spacing)
    nearest(noise[:, :2], organ[:, :2], spacing[:2])
    shell = np.argwhere(np.ones((30, 40, 50), dtype=bool))[:20_000]
    nearest(shell, shell + 1, spacing)
    assert taken == ["sweeps", "tree", "tree", "tree"]


def test_no_points():
    for device in (None, "cpu"):
        assert nearest(np.empty((0, 3), dtype=np.int64), np.zeros((1, 3), dtype=np.int64), np.ones(3), device).size == 0


def test_a_noisy_prediction_of_a_whole_volume():
    """The same numbers whichever way is taken: noise over a volume around a ball, both ways and on a device."""
    rng = np.random.default_rng(2)
    grid = np.indices((40, 48, 56)) - np.array([20, 24, 28])[:, None, None, None]
    ball = (grid**2).sum(axis=0) < 100
    pred = ball ^ (rng.random(ball.shape) < 0.3)
    spacing = (2.5, 0.7, 0.7)
    here, there = surface_distances(pred, ball, spacing), surface_distances(pred, ball, spacing, device="cpu")
    assert here.pred_to_ref.size > 25_000
    np.testing.assert_allclose(here.pred_to_ref, there.pred_to_ref, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(here.ref_to_pred, there.ref_to_pred, rtol=1e-12, atol=1e-12)


@pytest.mark.gpu
def test_on_the_gpu():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    rng = np.random.default_rng(3)
    points, targets = rng.integers(0, 300, (50_000, 3)), rng.integers(100, 200, (20_000, 3))
    spacing = np.array([2.5, 0.742, 0.742])
    found = nearest(points, targets, spacing, device="cuda")
    np.testing.assert_allclose(found, by_tree(points, targets, spacing), rtol=1e-12, atol=1e-12)
