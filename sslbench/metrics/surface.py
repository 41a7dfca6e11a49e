"""Distances between the surfaces of two masks: ASD, ASSD, HD95 and NSD from one computation.

The conventions are those of MedPy's `metric.binary` with connectivity 1, which the papers of this field use:
the surface of a mask is what one binary erosion with the 2n-neighbourhood (6 in 3-D, 4 in 2-D) takes away,
outside the array is background (so voxels on its border are surface), and the distance from one surface voxel
to the other surface is Euclidean, between voxel centres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sslbench.metrics.overlap import Labels, Mask, as_masks

# scipy is imported inside the functions: listing protocols on the command line should not pay for it.

HD95Variant = Literal["pooled", "max"]
Box = tuple[slice, ...]

# Measured costs (ns), to choose between two exact ways to the same distances: see `_nearest`. A query costs 400 to
# 2000 where organs are, and up to ten times that deep inside a hollow surface; the one here keeps both cases bearable.
_TREE_PER_POINT = 400.0
_TREE_PER_QUERY = 2500.0
_TRANSFORM_PER_VOXEL = 120.0


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Directed distances between the surfaces of a prediction and a reference, in the unit of the spacing.

    If either mask is empty nothing is defined: both arrays have length 0 and every metric is nan.

    Attributes:
        pred_to_ref: float64 (n,), for every surface voxel of the prediction the distance to the reference's
            surface; in no particular order.
        ref_to_pred: float64 (m,), the other way.
    """

    pred_to_ref: NDArray[np.float64]
    ref_to_pred: NDArray[np.float64]

    def asd(self) -> float:
        """Mean distance prediction → reference, one way (the convention of DHC, GA and SSL4MIS)."""
        return float(self.pred_to_ref.mean()) if self.pred_to_ref.size else float("nan")

    def assd(self) -> float:
        """Mean over the pooled distances of both directions.

        Every surface voxel weighs the same, as in MedPy 0.5; it is not the mean of the two directed means, which
        differs when the surfaces are of different size.
        """
        pooled = self._pooled()
        return float(pooled.mean()) if pooled.size else float("nan")

    def hd95(self, variant: HD95Variant = "pooled") -> float:
        """95th percentile of the distances (linear interpolation between order statistics, numpy's default).

        Args:
            variant: `pooled`: of both directions together (MedPy); `max`: the larger of the two directed
                ones.

        Raises:
            ValueError: an unknown variant.
        """
        if variant not in ("pooled", "max"):
            raise ValueError(f"unknown variant of HD95 '{variant}': pooled or max")
        if not self.pred_to_ref.size:
            return float("nan")
        if variant == "pooled":
            return float(np.percentile(self._pooled(), 95))
        return float(max(np.percentile(self.pred_to_ref, 95), np.percentile(self.ref_to_pred, 95)))

    def nsd(self, tau: float) -> float:
        """Share of both surfaces, counted in voxels, that lies within `tau` (inclusive) of the other; 0..1.

        Raises:
            ValueError: `tau` is negative.
        """
        if not tau >= 0:
            raise ValueError(f"the tolerance of NSD must not be negative: {tau}")
        pooled = self._pooled()
        return float(np.count_nonzero(pooled <= tau) / pooled.size) if pooled.size else float("nan")

    def _pooled(self) -> NDArray[np.float64]:
        return np.concatenate([self.pred_to_ref, self.ref_to_pred])


def surface_distances(
    pred: ArrayLike, gt: ArrayLike, spacing: float | Sequence[float] | None = None
) -> SurfaceDistances:
    """All directed surface distances of two masks, from which every distance metric follows.

    Args:
        pred, gt: boolean masks of one shape, 1-D or more.
        spacing: voxel size per array axis (or one number for all); None: 1, distances in voxels.

    Returns:
        Empty arrays if either mask is empty.

    Raises:
        ValueError: the shapes differ, an array is not a mask, or the spacing does not fit.
    """
    p, g = as_masks(pred, gt)
    sizes = check_spacing(spacing, p.ndim)
    boxes_p, boxes_g = class_boxes(p.view(np.uint8), 1), class_boxes(g.view(np.uint8), 1)
    if boxes_p[0] is None or boxes_g[0] is None:
        return SurfaceDistances(np.empty(0), np.empty(0))
    box = union_box(boxes_p[0], boxes_g[0])
    return cropped_distances(p[box], g[box], sizes)


def asd(pred: ArrayLike, gt: ArrayLike, spacing: float | Sequence[float] | None = None) -> float:
    """Average surface distance, one way: mean over the prediction's surface of the way to the reference's.

    Arguments and errors are those of `surface_distances`; nan if either mask is empty.
    """
    return surface_distances(pred, gt, spacing).asd()


def assd(pred: ArrayLike, gt: ArrayLike, spacing: float | Sequence[float] | None = None) -> float:
    """Average symmetric surface distance: mean over both directions pooled (`SurfaceDistances.assd`).

    Arguments and errors are those of `surface_distances`; nan if either mask is empty.
    """
    return surface_distances(pred, gt, spacing).assd()


def hd95(
    pred: ArrayLike,
    gt: ArrayLike,
    spacing: float | Sequence[float] | None = None,
    variant: HD95Variant = "pooled",
) -> float:
    """95th percentile of the surface distances, pooled or the larger directed one (`SurfaceDistances.hd95`).

    Other arguments and errors are those of `surface_distances`; nan if either mask is empty.
    """
    return surface_distances(pred, gt, spacing).hd95(variant)


def nsd(pred: ArrayLike, gt: ArrayLike, tau: float, spacing: float | Sequence[float] | None = None) -> float:
    """Normalised surface Dice: share of both surfaces within `tau` (in the spacing's unit), 0..1.

    Other arguments and errors are those of `surface_distances`; nan if either mask is empty.
    """
    return surface_distances(pred, gt, spacing).nsd(tau)


def check_spacing(spacing: float | Sequence[float] | None, ndim: int) -> NDArray[np.float64]:
    """Voxel size per axis, float64 (ndim,); None means ones.

    Raises:
        ValueError: a wrong number of values, or one that is not positive and finite; an array without axes.
    """
    if ndim < 1:
        raise ValueError("a mask or label map needs at least one axis")
    sizes = np.ones(ndim) if spacing is None else np.asarray(spacing, dtype=np.float64)
    if sizes.ndim == 0:
        sizes = np.full(ndim, float(sizes))
    if sizes.shape != (ndim,) or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise ValueError(f"spacing {spacing} does not fit an array of {ndim} axes: one positive number per axis")
    return sizes


def class_boxes(labels: Labels, highest: int) -> list[Box | None]:
    """Bounding boxes of the labels 1..highest in one pass; None where a label does not occur."""
    from scipy.ndimage import find_objects

    return list(find_objects(labels, max_label=highest))


def union_box(first: Box, second: Box) -> Box:
    """The smallest box around both."""
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second, strict=True))


def cropped_distances(pred: Mask, ref: Mask, spacing: NDArray[np.float64]) -> SurfaceDistances:
    """Surface distances of two non-empty masks, cropped to their union bounding box.

    No margin is needed. Outside the union box both masks are background, just as outside the array, so that a
    mask voxel on the border of the crop touches background there in the full array too: it is surface in
    both.
    """
    pred_surface, ref_surface = _surface(pred), _surface(ref)
    shared = pred_surface & ref_surface
    zeros = np.zeros(np.count_nonzero(shared))
    return SurfaceDistances(
        np.concatenate([zeros, _nearest(pred_surface & ~shared, ref_surface, spacing)]),
        np.concatenate([zeros, _nearest(ref_surface & ~shared, pred_surface, spacing)]),
    )


def _surface(mask: Mask) -> Mask:
    """Mask minus its erosion with the 2n-neighbourhood, outside being background."""
    inside = (slice(1, -1),) * mask.ndim
    core = mask[inside].copy()
    for axis in range(mask.ndim):
        for neighbours in (slice(None, -2), slice(2, None)):
            core &= mask[(*inside[:axis], neighbours, *inside[axis + 1 :])]
    surface = mask.copy()
    surface[inside] ^= core
    return surface


def _nearest(points: Mask, surface: Mask, spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of every voxel of `points` to the nearest voxel of `surface`, both exact ways giving the same.

    A k-d tree costs by the voxel of the surfaces, a distance transform by the voxel of the box. Organs are
    thin shells in large boxes, where the tree wins by far; the transform is for predictions that are noise.
    """
    queries, targets = np.count_nonzero(points), np.count_nonzero(surface)
    if not queries:
        return np.empty(0)
    if queries * _TREE_PER_QUERY + targets * _TREE_PER_POINT <= points.size * _TRANSFORM_PER_VOXEL:
        return _nearest_by_tree(points, surface, spacing)
    return _nearest_by_transform(points, surface, spacing)


def _nearest_by_tree(points: Mask, surface: Mask, spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.spatial import cKDTree

    # Splitting cells in the middle suits points on a grid, and builds faster than splitting at medians.
    tree = cKDTree(np.argwhere(surface) * spacing, balanced_tree=False, compact_nodes=False)
    return np.asarray(tree.query(np.argwhere(points) * spacing)[0], dtype=np.float64)


def _nearest_by_transform(points: Mask, surface: Mask, spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~surface, sampling=spacing)[points], dtype=np.float64)
