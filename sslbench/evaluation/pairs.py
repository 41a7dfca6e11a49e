"""A prediction and its reference, read from their files and brought onto the grid that a protocol measures on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sslbench.config.text import first_few
from sslbench.core.errors import DataError
from sslbench.data.files.volumes import read_volume, same_place
from sslbench.data.preprocess import to_stored, whole_values

# What is done where prediction and reference do not lie on one grid: refuse; take the prediction voxel by voxel if only
# their places in the world differ; resample it.
GridPolicy = Literal["check", "voxels", "resample"]


@dataclass(frozen=True)
class StoredGrid:
    """What it takes to measure a case on the grid that networks see.

    Attributes:
        label: the reference there, a `.npy` file (*S) in the stored axes.
        prediction: the prediction there, a file (x, y, z); None: it is brought there from the scan's grid.
        geometry: from the scan to the stored array, as `preprocess` describes it.
        spacing_mm: per stored axis.
    """

    label: Path
    prediction: Path | None
    geometry: Mapping[str, Any]
    spacing_mm: tuple[float, ...]


@dataclass(frozen=True)
class Pair:
    """A case to score.

    Attributes:
        case: its id.
        group: the patient or slide that it is of; a case may be one by itself.
        prediction, reference: label maps in the geometry of the scan (NIfTI, NRRD, MHA).
        stored: the grid that networks see, where it is known.
    """

    case: str
    group: str
    prediction: Path
    reference: Path
    stored: StoredGrid | None = None


@dataclass(frozen=True)
class Maps:
    """Two label maps on one grid.

    Attributes:
        prediction, reference: integers of one shape.
        spacing_mm: per array axis.
        axes: what the array axes are.
    """

    prediction: NDArray[np.integer]
    reference: NDArray[np.integer]
    spacing_mm: tuple[float, ...]
    axes: str


def load_pair(pair: Pair, grid: Literal["original", "preprocessed"], geometry: GridPolicy = "check") -> Maps:
    """The two label maps of a case on a protocol's grid.

    Args:
        pair: whose files.
        grid: `preprocessed` needs `pair.stored`.
        geometry: what to do where the prediction does not lie on the reference's grid.

    Raises:
        DataError: a file that cannot be read or is no label map; label maps on different grids.
    """
    if grid == "preprocessed":
        return _on_stored_grid(pair, geometry)
    prediction, affine = read_labels(pair.prediction)
    reference, reference_affine = read_labels(pair.reference)
    prediction = _onto(pair, prediction, affine, reference.shape, reference_affine, geometry)
    return Maps(prediction, reference, _spacing(reference_affine), "xyz")


def _on_stored_grid(pair: Pair, geometry: GridPolicy) -> Maps:
    stored = pair.stored
    if stored is None:
        raise DataError(f"{pair.case}: the grid that networks see is not known")
    how = stored.geometry
    try:
        reference = np.load(stored.label, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{stored.label} is damaged: {error}") from error
    if stored.prediction is None:
        prediction, affine = read_labels(pair.prediction)
        _, scan_affine = read_labels(pair.reference)
        prediction = to_stored(_onto(pair, prediction, affine, tuple(how["shape"]), scan_affine, geometry), how)
    else:
        prediction, _ = read_labels(stored.prediction)
        prediction = prediction.transpose(2, 1, 0) if how["axes"] == "zyx" else prediction
    if prediction.shape != reference.shape:
        where = stored.prediction or pair.prediction
        raise DataError(f"{where}: {_sizes(prediction.shape)} voxels, the stored reference {_sizes(reference.shape)}")
    return Maps(prediction, reference, stored.spacing_mm, how["axes"])


def read_labels(path: Path) -> tuple[NDArray[np.integer], NDArray[np.float64]]:
    """A label map (X, Y, Z) of an integer type, and its affine (voxel indices to RAS+ mm).

    Raises:
        DataError: it cannot be read, or holds other values than whole numbers from 0.
    """
    values, affine, _ = read_volume(path, indices="always")
    if values.ndim != 3:
        raise DataError(f"{path}: {len(values)} channels, a label map has one")
    if values.dtype.kind == "f":
        values, _ = whole_values(path, values)
        if not np.array_equal(values, np.rint(values)):
            raise DataError(f"{path}: no label map, it holds values that are no whole numbers")
        values = values.astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0:
        raise DataError(f"{path}: the label {low} is negative")
    if high < 256 and values.dtype != np.uint8:
        values = values.astype(np.uint8)
    return values, affine


def _onto(
    pair: Pair,
    prediction: NDArray[np.integer],
    affine: NDArray[np.float64],
    shape: tuple[int, ...],
    target: NDArray[np.float64],
    geometry: GridPolicy,
) -> NDArray[np.integer]:
    """The prediction on a grid of `shape` that the affine `target` places.

    Raises:
        DataError: it does not lie there, and is not to be brought there.
    """
    hint = "--resample brings predictions onto their references' grid, by nearest neighbour"
    try:
        if prediction.shape != shape:
            raise DataError(f"{pair.prediction}: {_sizes(prediction.shape)} voxels, its reference {_sizes(shape)}")
        if geometry != "voxels":
            hint += "; --ignore-affine compares the arrays as they are"
            same_place(pair.prediction, affine, target, "reference")
    except DataError as error:
        if geometry == "resample":
            return resample_to(prediction, affine, shape, target)
        raise DataError(error.message, hint) from None
    return prediction


def resample_to(
    labels: NDArray[np.integer], affine: NDArray[np.float64], shape: Sequence[int], target: NDArray[np.float64]
) -> NDArray[np.integer]:
    """Labels on another grid: every voxel of it takes the label whose cell its centre lies in, outside background.

    Args:
        labels: (X, Y, Z).
        affine: voxel indices of `labels` to mm.
        shape, target: of the other grid.
    """
    from scipy.ndimage import affine_transform

    back = np.linalg.inv(affine) @ target
    return affine_transform(
        labels, back[:3, :3], back[:3, 3], tuple(shape), order=0, mode="grid-constant", cval=0, prefilter=False
    )


def class_ids(labels: NDArray[np.integer], values: Sequence[int], where: Path) -> NDArray[np.integer]:
    """Class ids 1, 2, ... in place of the label values that stand for them; 0 stays.

    Args:
        labels: a label map.
        values: of the classes in order.
        where: for the error.

    Raises:
        DataError: a value that stands for no class.
    """
    highest = int(labels.max(initial=0))
    if list(values) == list(range(1, len(values) + 1)) and highest <= len(values):
        return labels
    table = np.full(max(highest, *values) + 1, -1)
    table[0] = 0
    table[list(values)] = np.arange(1, len(values) + 1)
    wrong = np.flatnonzero((table < 0) & (np.bincount(labels.ravel(), minlength=len(table)) > 0))
    if wrong.size:
        named = first_few([str(value) for value in wrong])
        raise DataError(f"{where}: the label values {named} are none of the classes'")
    return table.astype(np.uint8 if len(values) < 256 else np.uint16)[labels]


def _spacing(affine: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(size) for size in np.linalg.norm(affine[:3, :3], axis=0))


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
