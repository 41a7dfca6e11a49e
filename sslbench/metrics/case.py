"""One case, all classes at once: what every metric of it is read off."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sslbench.metrics.overlap import Labels, check_labels, count_pairs
from sslbench.metrics.surface import SurfaceDistances, check_spacing, distances_of_classes, occupied_box

ClassState = Literal["both", "missed", "spurious", "absent"]

OVERLAPS = ("dsc", "jaccard")
VOLUMES = ("rvd", "avd")
DISTANCES: dict[str, Callable[[SurfaceDistances], float]] = {
    "asd": SurfaceDistances.asd,
    "assd": SurfaceDistances.assd,
    "hd95": SurfaceDistances.hd95,
    "hd95max": lambda distances: distances.hd95("max"),
}


@dataclass(frozen=True, eq=False)
class CaseMeasurement:
    """Counts and surface distances of a case; everything is indexed by class id.

    Attributes:
        pairs: (C, C) int64, voxels by class in the prediction (first) and in the reference, the background's too.
        distances: of the classes that both maps have, if they were asked for.
        diagonal: of the whole image with its outermost voxels, longer than any distance between voxel centres.
        voxel: size of one voxel, the product of the spacing.
        dims: axes of the image.
    """

    pairs: NDArray[np.int64]
    distances: dict[int, SurfaceDistances]
    diagonal: float
    voxel: float
    dims: int

    @cached_property
    def pred_voxels(self) -> NDArray[np.int64]:
        """(C,) int64, voxels of each class in the prediction."""
        return np.asarray(self.pairs.sum(axis=1))

    @cached_property
    def ref_voxels(self) -> NDArray[np.int64]:
        """(C,) int64, voxels of each class in the reference."""
        return np.asarray(self.pairs.sum(axis=0))

    @cached_property
    def shared_voxels(self) -> NDArray[np.int64]:
        """(C,) int64, voxels of each class in both."""
        return np.diagonal(self.pairs)

    @cached_property
    def states(self) -> tuple[ClassState, ...]:
        """Per class: in `both` maps, `missed` by the prediction, `spurious` in it, or `absent` from both."""
        names: dict[tuple[bool, bool], ClassState] = {
            (True, True): "both",
            (False, True): "missed",
            (True, False): "spurious",
            (False, False): "absent",
        }
        return tuple(names[bool(p), bool(r)] for p, r in zip(self.pred_voxels, self.ref_voxels, strict=True))

    def overlap(self, k: int, metric: str, smooth: float = 0.0) -> float:
        """DSC or Jaccard of a class, `smooth` added above and below; nan for 0/0."""
        predicted, reference, shared = (
            int(counts[k]) for counts in (self.pred_voxels, self.ref_voxels, self.shared_voxels)
        )
        if metric == "dsc":
            part, whole = 2 * shared, predicted + reference
        else:
            part, whole = shared, predicted + reference - shared
        return (part + smooth) / (whole + smooth) if whole + smooth else float("nan")

    def volume(self, k: int, metric: str) -> float:
        """`rvd` or `avd` of a class, as the functions of these names have them."""
        predicted, reference = int(self.pred_voxels[k]), int(self.ref_voxels[k])
        if metric == "avd":
            return abs(predicted - reference) * self.voxel
        return (predicted - reference) / reference if reference else float("nan")


def compare(
    pred: Labels,
    ref: Labels,
    num_classes: int,
    spacing: NDArray[np.float64],
    distances: bool = True,
    device: str | None = None,
) -> CaseMeasurement:
    """Measure checked label maps of one shape.

    Args:
        pred, ref: values 0..C-1.
        num_classes: C.
        spacing: voxel size per axis.
        distances: whether surfaces are wanted.
        device: as for `surface_distances`.
    """
    diagonal = float(np.linalg.norm(spacing * pred.shape))
    voxel = float(np.prod(spacing))
    if num_classes <= 256:
        pred, ref = pred.astype(np.uint8, copy=False), ref.astype(np.uint8, copy=False)
    if pred.flags.f_contiguous and ref.flags.f_contiguous:
        # NIfTI readers hand out arrays in column order; turned over they are read in the order of memory.
        pred, ref, spacing = pred.T, ref.T, spacing[::-1]

    box = occupied_box(pred, ref)
    matrix = np.zeros((num_classes, num_classes), dtype=np.int64)
    if box is not None:
        matrix += count_pairs(pred[box], ref[box], num_classes)
    matrix[0, 0] += pred.size - matrix.sum()
    pred_voxels, ref_voxels = matrix.sum(axis=1), matrix.sum(axis=0)
    found: dict[int, SurfaceDistances] = {}
    if distances:
        classes = np.flatnonzero((pred_voxels > 0) & (ref_voxels > 0))
        found = distances_of_classes(pred, ref, [int(k) for k in classes if k], spacing, device)
    return CaseMeasurement(matrix, found, diagonal, voxel, pred.ndim)


def check_pair(pred: ArrayLike, ref: ArrayLike, num_classes: int, names: tuple[str, str]) -> tuple[Labels, Labels]:
    """Both arrays as label maps of C classes and one shape.

    Raises:
        ValueError: they are not.
    """
    p, r = check_labels(pred, num_classes, names[0]), check_labels(ref, num_classes, names[1])
    if p.shape != r.shape:
        raise ValueError(f"{names[0]} has shape {p.shape}, {names[1]} {r.shape}")
    return p, r


def measure(metric: str) -> Callable[[SurfaceDistances], float]:
    """Return the function that reads a metric off surface distances.

    Raises:
        ValueError: there is no such metric.
    """
    if metric in DISTANCES:
        return DISTANCES[metric]
    if metric.startswith("nsd@"):
        try:
            tau = float(metric.removeprefix("nsd@"))
        except ValueError:
            tau = -1.0
        if math.isfinite(tau) and tau >= 0:
            return lambda distances: distances.nsd(tau)
    known = ", ".join([*OVERLAPS, *DISTANCES, "nsd@2 (any tolerance)", *VOLUMES])
    raise ValueError(f"unknown metric '{metric}'; known: {known}")


def evaluate_case(
    pred: ArrayLike,
    gt: ArrayLike,
    num_classes: int,
    spacing: float | Sequence[float] | None = None,
    empty_distance: float = 128.0,
) -> dict[str, NDArray[np.float64]]:
    """All metrics of one case under the clean rules of GA (ECCV 2024) for empty masks, on the grid as it is.

    A class in neither map scores overlap 1 and distance 0; one in exactly one map overlap 0 and
    `empty_distance`. The same holds if the whole prediction is background.

    Args:
        pred, gt: integer label maps of one shape, values 0..C-1.
        num_classes: C, background included.
        spacing: voxel size per axis, or one number; None: 1 (voxels).
        empty_distance: 128 is GA's constant, not the diagonal of anything.

    Returns:
        `dice`, `jaccard`, `asd`, `assd`, `hd95`: float64 (C-1,) each, for the classes 1..C-1.

    Raises:
        ValueError: shapes differ, a map is not integer or has other labels, or the spacing does not fit.
    """
    p, g = check_pair(pred, gt, num_classes, ("pred", "gt"))
    case = compare(p, g, num_classes, check_spacing(spacing, p.ndim))

    def value(k: int, metric: str) -> float:
        if case.states[k] == "both":
            return case.overlap(k, metric) if metric in OVERLAPS else DISTANCES[metric](case.distances[k])
        if metric in OVERLAPS:
            return float(case.states[k] == "absent")
        return 0.0 if case.states[k] == "absent" else float(empty_distance)

    names = {"dice": "dsc", "jaccard": "jaccard", "asd": "asd", "assd": "assd", "hd95": "hd95"}
    classes = range(1, num_classes)
    return {name: np.array([value(k, metric) for k in classes], dtype=np.float64) for name, metric in names.items()}
