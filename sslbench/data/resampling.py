"""Nearest-neighbour resampling along an axis, in the two ways of the papers' code."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def floor_positions(size_in: int, size_out: int) -> NDArray[np.intp]:
    """Return which of `size_in` positions each of `size_out` takes in PyTorch's `nearest`: floor(i·in/out).

    The scale in/out and the product are rounded to single precision, as PyTorch does: where i·in/out is an integer,
    that can land one position below it (in 84, out 80, i 20), and papers measured that.
    """
    source = np.arange(size_out, dtype=np.float32) * np.float32(size_in / size_out)
    return np.minimum(source.astype(np.intp), size_in - 1)


def nearest_positions(size_in: int, size_out: int) -> NDArray[np.int64]:
    """Return which of `size_in` positions each of `size_out` takes in `scipy.ndimage.zoom(..., order=0)`: corners
    aligned, floor(i·(in - 1)/(out - 1) + ½).

    Where rounding puts scipy's last position outside, which it does for some pairs of sizes (256 to 216), scipy writes
    a row of zeros; here it is the last row.
    """
    if size_out == 1:
        return np.zeros(1, dtype=np.int64)
    return np.floor(np.arange(size_out) * ((size_in - 1) / (size_out - 1)) + 0.5).astype(np.int64)
