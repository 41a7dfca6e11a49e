"""Volume errors: closed forms, units, empty masks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sslbench.metrics import avd, rvd


def test_closed_forms():
    pred, gt = np.zeros((2, 4, 5, 6), dtype=bool)
    pred[:3], gt[:2] = True, True  # 90 voxels, 60 voxels
    assert rvd(pred, gt) == 0.5 and rvd(gt, pred) == pytest.approx(-1 / 3)
    assert avd(pred, gt) == avd(gt, pred) == 30
    assert avd(pred, gt, (2.0, 0.5, 3.0)) == 90.0  # mm³
    assert avd(pred, gt, 2) == 240.0
    assert avd(pred[0], gt[3], (0.5, 2.0)) == 30.0  # mm²
    elsewhere = np.roll(gt, 2, axis=0)
    assert rvd(elsewhere, gt) == avd(elsewhere, gt) == 0  # nothing is said about the place


def test_empty_masks():
    full, empty = np.ones((3, 4), dtype=bool), np.zeros((3, 4), dtype=bool)
    assert rvd(empty, full) == -1.0
    assert math.isnan(rvd(full, empty)) and math.isnan(rvd(empty, empty))
    assert avd(empty, full) == avd(full, empty) == 12 and avd(empty, empty) == 0


def test_wrong_input_is_refused():
    mask = np.ones((3, 4), dtype=bool)
    for metric in (rvd, avd):
        with pytest.raises(ValueError, match="shape"):
            metric(mask, mask[:2])
        with pytest.raises(ValueError, match="mask"):
            metric(mask * 2, mask)
    with pytest.raises(ValueError, match="spacing"):
        avd(mask, mask, (1.0, 1.0, 1.0))
