"""Steps of some published tests on label maps before they measure: largest component, agreement of networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sslbench.metrics.overlap import check_labels
from sslbench.metrics.surface import occupied_box

# scipy is imported inside the function: listing protocols on the command line should not pay for it.


def largest_component(labels: ArrayLike, num_classes: int) -> NDArray[np.integer]:
    """The label map with only the largest connected component of every class; the rest becomes background.

    Voxels are connected over faces, edges and corners (26 neighbours in 3-D, 8 in 2-D). Of components of equal size
    the one whose first voxel comes first, in the order of the array, is kept. A class that is nowhere stays so (the
    released scripts stop there).

    Args:
        labels: integer label map, values 0..C-1.
        num_classes: C, background included.

    Raises:
        ValueError: it is no label map of C classes.
    """
    from scipy.ndimage import label

    checked = check_labels(labels, num_classes)
    kept = np.zeros_like(checked)
    everywhere = np.ones((3,) * checked.ndim, dtype=bool)
    for k in range(1, num_classes):
        mask = checked == k
        box = occupied_box(mask.view(np.uint8))
        if box is not None:
            parts, number = label(mask[box], everywhere)
            sizes = np.bincount(parts.reshape(-1), minlength=number + 1)[1:]
            kept[box][parts == sizes.argmax() + 1] = k
    return kept


def intersection(maps: Sequence[ArrayLike]) -> NDArray[np.integer]:
    """The labels on which all maps (integers, of one shape) agree; background where they do not.

    Raises:
        ValueError: no map, or maps of different shapes.
    """
    arrays = [np.asarray(array) for array in maps]
    if len({array.shape for array in arrays}) != 1:
        raise ValueError(f"label maps to intersect need one shape: {[array.shape for array in arrays]}")
    agreed = arrays[0].copy()
    for other in arrays[1:]:
        agreed[other != agreed] = 0
    return agreed
