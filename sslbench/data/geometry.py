"""Grids: turning, cropping and resampling volumes, and the way back for label maps."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sslbench.core.errors import DataError
from sslbench.data.base import LabelCrop, Preprocessing
from sslbench.data.resampling import floor_positions

if TYPE_CHECKING:
    pass


_SAME_SPACING = 1e-4  # relative; below this an axis is not resampled


def label_box(label: NDArray[np.uint8], id: str, crop: LabelCrop) -> tuple[slice, slice, slice]:
    """The box (x, y, z) that `crop` cuts out of a case; all foreground is inside.

    Args:
        label: (X, Y, Z).
        id: of the case; the same id gives the same margins on every machine.
        crop: the rule.

    Raises:
        DataError: there is no foreground.
    """
    box = []
    for axis, name in enumerate("xyz"):
        size = label.shape[axis]
        if name not in crop.axes:
            box.append(slice(0, size))
            continue
        there = np.flatnonzero(label.any(axis=tuple(other for other in range(3) if other != axis)))
        if not there.size:
            raise DataError(f"{id}: no foreground to crop around")
        first, last = int(there[0]), int(there[-1])
        # Not a NumPy generator: its streams may change between releases, and caches would differ.
        digest = hashlib.sha256(f"{id}/{name}".encode()).digest()
        low, high = crop.margin
        before, behind = (low + int.from_bytes(half) % (high - low + 1) for half in (digest[:16], digest[16:]))
        pad = max(crop.size[axis] - (last - first), 0) // 2
        box.append(slice(max(first - before - pad, 0), min(last + behind + pad, size)))
    return box[0], box[1], box[2]


def resample_linear(image: NDArray[np.float32], grid: Mapping[str, Any], new: Mapping[str, Any]) -> NDArray[np.float32]:
    """Trilinear resampling of (..., X, Y, Z) between two grids (`shape`, `spacing_mm`) with a common centre."""
    # One axis at a time, the strongest reduction first: two gathers and a blend need little memory.
    for axis in sorted(range(3), key=lambda axis: new["shape"][axis] / grid["shape"][axis]):
        size = grid["shape"][axis]
        where = np.clip(source_indices(grid, new, axis), 0, size - 1)
        low = np.floor(where).astype(np.intp)
        high = np.minimum(low + 1, size - 1)
        weight = (where - low).astype(np.float32).reshape([-1 if other == axis else 1 for other in range(3)])
        near, far = image.take(low, axis - 3), image.take(high, axis - 3)
        far -= near
        far *= weight
        near += far
        image = near
    return image


def resample_nearest(labels: NDArray[Any], grid: Mapping[str, Any], new: Mapping[str, Any]) -> NDArray[Any]:
    """Nearest-neighbour resampling between two grids as in `resample_linear`; ties go to the higher index."""
    return labels[np.ix_(*label_positions(grid, new, "centre"))]


def label_positions(grid: Mapping[str, Any], new: Mapping[str, Any], nearest: str) -> list[NDArray[np.intp]]:
    """Per axis, which label of `grid` each cell of `new` takes: the one under its centre, or (`floor`) torch's."""
    if nearest == "floor":
        return [floor_positions(*sizes) for sizes in zip(grid["shape"], new["shape"], strict=True)]
    return [
        np.clip(np.floor(source_indices(grid, new, axis) + 0.5), 0, grid["shape"][axis] - 1).astype(np.intp)
        for axis in range(3)
    ]


def way_back(grid: Mapping[str, Any], new: Mapping[str, Any], nearest: str) -> list[NDArray[np.intp]]:
    """Per axis, which stored label each cell of the scan's `grid` takes."""
    if nearest == "centre":
        return label_positions(new, grid, "centre")
    back = []
    for positions, size in zip(label_positions(grid, new, nearest), grid["shape"], strict=True):
        # Not torch's `nearest` again, which would move every label twice in the same direction.
        back.append(np.searchsorted((positions[1:] + positions[:-1]) / 2, np.arange(size)))
    return back


def source_indices(grid: Mapping[str, Any], new: Mapping[str, Any], axis: int) -> NDArray[np.float64]:
    """Return where the cells of `new` lie along an axis, in cells of `grid` (cell centres are integers)."""
    size, target = grid["shape"][axis], new["shape"][axis]
    ratio = new["spacing_mm"][axis] / grid["spacing_mm"][axis]
    return (np.arange(target) + 0.5 - target / 2) * ratio + size / 2 - 0.5


def new_grid(grid: dict[str, Any], prep: Preprocessing) -> tuple[dict[str, Any], str]:
    """The grid to resample to, and which of the two rules labels follow.

    A target spacing covers (about) the same extent, and axes that have it already stay; a number of voxels covers
    exactly the same.
    """
    shape, spacing = list(grid["shape"]), list(grid["spacing_mm"])
    if prep.resize_to is None and prep.resize_by is None:
        for axis, target in enumerate(prep.spacing_mm or ()):
            if abs(spacing[axis] - target) > _SAME_SPACING * target:
                shape[axis] = max(1, int(np.floor(shape[axis] * spacing[axis] / target + 0.5)))
                spacing[axis] = target
        return {"shape": shape, "spacing_mm": spacing}, "centre"
    sizes = prep.resize_to or [max(1, int(side * by)) for side, by in zip(shape, prep.resize_by or (), strict=True)]
    for axis, side in enumerate(sizes):
        spacing[axis] *= shape[axis] / side
        shape[axis] = side
    return {"shape": shape, "spacing_mm": spacing}, "floor"


def turn_to(affine: NDArray[np.float64], orientation: str | None) -> list[list[int]]:
    """For each axis of the file: the stored axis that it becomes, and whether it is flipped (-1)."""
    from nibabel import orientations

    if orientation is None:
        return [[0, 1], [1, 1], [2, 1]]
    now, wanted = orientations.io_orientation(affine), orientations.axcodes2ornt(tuple(orientation))
    return [[int(axis), int(sign)] for axis, sign in orientations.ornt_transform(now, wanted)]


def turned(array: NDArray[Any], turn: Sequence[Sequence[int]]) -> NDArray[Any]:
    """A view of an array (..., X, Y, Z) of the file in the stored orientation."""
    channels = array.ndim - 3
    array = np.flip(array, tuple(axis + channels for axis, (_, sign) in enumerate(turn) if sign < 0))
    order = np.argsort([axis for axis, _ in turn])
    return array.transpose(*range(channels), *(int(axis) + channels for axis in order))


def turned_back(array: NDArray[Any], turn: Sequence[Sequence[int]]) -> NDArray[Any]:
    """The inverse of `_turned`."""
    array = array.transpose([axis for axis, _ in turn])
    return np.flip(array, tuple(axis for axis, (_, sign) in enumerate(turn) if sign < 0))
