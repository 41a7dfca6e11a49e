"""Volume errors of a prediction: signed and relative, or absolute; neither says anything about the place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from sslbench.metrics.overlap import as_masks
from sslbench.metrics.surface import check_spacing


def rvd(pred: ArrayLike, gt: ArrayLike) -> float:
    """Relative volume difference (|P|-|G|)/|G| of two masks of one shape, signed: above 0 too much was predicted.

    Returns:
        A fraction: -1.0 if only the prediction is empty, nan if the reference is, of which there is no share.

    Raises:
        ValueError: the shapes differ, or an array is not a mask.
    """
    p, g = as_masks(pred, gt)
    predicted, reference = np.count_nonzero(p), np.count_nonzero(g)
    return (predicted - reference) / reference if reference else float("nan")


def avd(pred: ArrayLike, gt: ArrayLike, spacing: float | Sequence[float] | None = None) -> float:
    """Absolute volume difference | |P|-|G| | of two masks of one shape, whichever of them is empty.

    Args:
        pred, gt: boolean masks, 1-D or more.
        spacing: voxel size per array axis (or one number for all); None: the result is in voxels.

    Returns:
        In the spacing's unit to the power of the number of axes: mm³ of a scan (1000 mm³ are 1 mL), mm² of an image.

    Raises:
        ValueError: the shapes differ, an array is not a mask, or the spacing does not fit.
    """
    p, g = as_masks(pred, gt)
    voxel = float(np.prod(check_spacing(spacing, p.ndim)))
    return abs(np.count_nonzero(p) - np.count_nonzero(g)) * voxel
