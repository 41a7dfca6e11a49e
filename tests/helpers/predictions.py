"""Predictions of three scans, wrong in known ways."""

from __future__ import annotations

import numpy as np

IDS = ["0001", "0002", "0003"]


def worse(labels: np.ndarray, seed: int) -> np.ndarray:
    """A prediction: the reference moved by a voxel, one class missed, one where it is not."""
    moved = np.roll(np.asarray(labels), 1, axis=0)
    moved[moved == 1 + seed % 3] = 0
    moved[-2:, -2:, -2:] = 5
    return moved
