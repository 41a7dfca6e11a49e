"""Overlaps: closed forms, empty masks, and the confusion matrix against masks taken one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslbench.metrics import confusion, dice, dice_of_classes, jaccard, jaccard_of_classes
from sslbench.metrics import overlap as overlap_module


def box(shape, *slices):
    mask = np.zeros(shape, dtype=bool)
    mask[slices] = True
    return mask


def test_closed_forms():
    a = box((10, 10), slice(0, 4), slice(0, 5))  # 20 voxels
    b = box((10, 10), slice(2, 6), slice(0, 5))  # 20, of which 10 shared
    assert dice(a, b) == pytest.approx(0.5)
    assert jaccard(a, b) == pytest.approx(10 / 30)
    assert dice(a, a) == jaccard(a, a) == 1.0


@pytest.mark.parametrize("shape", [(), (7,), (3, 4), (3, 4, 5), (2, 3, 2, 3)])
def test_any_number_of_axes(shape):
    full, empty = np.ones(shape, dtype=bool), np.zeros(shape, dtype=bool)
    assert dice(full, full) == jaccard(full, full) == 1.0
    assert dice(full, empty) == dice(empty, full) == jaccard(full, empty) == jaccard(empty, full) == 0.0
    assert math.isnan(dice(empty, empty)) and math.isnan(jaccard(empty, empty))


def test_zeros_and_ones_are_a_mask_other_labels_are_not():
    mask = np.array([0, 1, 1])
    assert dice(mask, mask.astype(float)) == 1.0
    for wrong in (np.array([0, 1, 2]), np.array([0.0, 0.5, 1.0]), np.array([0.0, np.nan, 1.0])):
        with pytest.raises(ValueError, match="gt is not a mask"):
            dice(mask, wrong)
    with pytest.raises(ValueError, match="shape"):
        jaccard(mask, np.array([0, 1]))
    with pytest.raises(ValueError, match="shape"):  # nothing is broadcast
        dice(np.ones((1, 3), bool), np.ones((3, 3), bool))


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.sampled_from([np.uint8, np.int16, np.int64, np.uint64]))
@settings(max_examples=40, deadline=None)
def test_confusion_counts_what_masks_count(seed, num_classes, dtype):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 7, size=rng.integers(1, 4)))
    pred = rng.integers(0, num_classes, shape).astype(dtype)
    ref = np.asfortranarray(rng.integers(0, num_classes, shape).astype(np.int32))
    matrix = confusion(pred, ref, num_classes)
    assert matrix.shape == (num_classes, num_classes) and matrix.dtype == np.int64
    expected = [[np.sum((pred == i) & (ref == j)) for j in range(num_classes)] for i in range(num_classes)]
    np.testing.assert_array_equal(matrix, expected)
    for k in range(num_classes):
        np.testing.assert_equal(dice_of_classes(matrix)[k], dice(pred == k, ref == k))
        np.testing.assert_equal(jaccard_of_classes(matrix)[k], jaccard(pred == k, ref == k))


def test_confusion_in_pieces(monkeypatch):
    rng = np.random.default_rng(0)
    pred, ref = rng.integers(0, 5, (2, 11, 13))
    whole = confusion(pred, ref, 5)
    monkeypatch.setattr(overlap_module, "_PIECE", 7)
    np.testing.assert_array_equal(confusion(pred, ref, 5), whole)
    assert whole.sum() == 143


def test_confusion_refuses_what_is_no_label_map():
    good = np.array([0, 1, 2])
    for bad, message in [
        (np.array([0, 1, 3]), r"prediction has labels 0\.\.3, expected 0\.\.2"),
        (np.array([-1, 0, 1]), r"prediction has labels -1\.\.1"),
        (np.array([0.0, 1.0, 2.0]), "float64"),
        (np.array([0, 1]), "shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            confusion(bad, good, 3)
    np.testing.assert_array_equal(confusion(good > 0, good > 1, 2), [[1, 0], [1, 1]])
    assert confusion(good[:0], good[:0], 3).sum() == 0
