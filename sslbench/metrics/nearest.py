"""Distances from each voxel of one set to the nearest voxel of another: three exact ways, the cheapest one taken.

Voxels are given by their indices, so that nothing here costs by the size of the image that they lie in.
"""

from __future__ import annotations

from itertools import permutations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# scipy and torch are imported inside the functions: listing protocols on the command line should not pay for them.

Indices = NDArray[np.int64]  # (n, axes)

# Measured costs (ns) on one core, to choose between a k-d tree and sweeps. A query of the tree costs 1000 where sets
# are close, as organs and their predictions are, and up to ten times that where many targets are about equally far.
_TREE_PER_QUERY = 6000.0
_TREE_PER_TARGET = 600.0
_SWEEP_PER_STEP = 2.0
_SWEEP_PER_CANDIDATE = 6.0
_SWEEP_PER_PLANE = 300_000.0
_FEW = 20_000  # queries that a tree answers before anything else is ready

_ROWS = 1 << 20  # candidates compared at a time: bounds the memory of a sweep
_PAIRS = 1 << 26  # distances held at a time on a device


def nearest(
    points: Indices, targets: Indices, spacing: NDArray[np.float64], device: str | None = None
) -> NDArray[np.float64]:
    """Euclidean distance of every point to the nearest target.

    Args:
        points, targets: voxel indices (n, axes) and (m, axes) of one grid; at least one target.
        spacing: voxel size per axis.
        device: a torch device that compares all pairs; None: this processor, by the way that is cheapest.

    Returns:
        (n,), in the order of the points. All ways agree to rounding (1e-12 of the value).
    """
    if not len(points):
        return np.empty(0)
    if device is not None:
        return by_pairs(points, targets, spacing, device)
    if len(points) > _FEW and points.shape[1] == 3:
        plan = _plan(points, targets)
        if plan.cost < len(points) * _TREE_PER_QUERY + len(targets) * _TREE_PER_TARGET:
            return by_sweeps(points, targets, spacing, plan.order)
    return by_tree(points, targets, spacing)


def by_tree(points: Indices, targets: Indices, spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """`nearest` by a k-d tree of the targets: costs by the voxel of both sets."""
    from scipy.spatial import cKDTree

    # Splitting cells in the middle suits points on a grid, and builds faster than splitting at medians.
    tree = cKDTree(targets * spacing, balanced_tree=False, compact_nodes=False)
    return np.asarray(tree.query(points * spacing)[0], dtype=np.float64)


class _Plan(NamedTuple):
    """The order of axes for `by_sweeps`, and its cost (ns)."""

    order: tuple[int, int, int]
    cost: float


def _plan(points: Indices, targets: Indices) -> _Plan:
    sides = np.ptp(points, axis=0) + 1
    reach = np.ptp(targets, axis=0) + 1
    plans = []
    for order in permutations(range(3)):
        slabs, rows, _ = (int(sides[axis]) for axis in order)
        _, across, along = (int(reach[axis]) for axis in order)
        cost = slabs * (_SWEEP_PER_PLANE + rows * across * along * _SWEEP_PER_STEP)
        cost += len(points) * along * _SWEEP_PER_CANDIDATE
        plans.append(_Plan((order[0], order[1], order[2]), cost))
    return min(plans, key=lambda plan: plan.cost)


def by_sweeps(
    points: Indices, targets: Indices, spacing: NDArray[np.float64], order: tuple[int, int, int] = (0, 1, 2)
) -> NDArray[np.float64]:
    """`nearest` in 3-D, one axis after the other, as squared distances add up over axes.

    Meant for very many points around compact targets (a noisy prediction of a small organ): it costs by the box of
    the targets and the extent of the points, hardly by their number. Along the first axis the nearest target of
    every line through the targets' box is found by scanning; then, plane by plane, the second axis is added; at the
    points themselves the third.

    Args:
        order: of the axes; any gives the same.
    """
    points, targets, spacing = points[:, order], targets[:, order], spacing[list(order)]
    low = np.minimum(points.min(axis=0), targets.min(axis=0))[0]
    corner = np.array([low, *targets.min(axis=0)[1:]])
    targets = targets - corner
    points = points - corner  # along the last two axes, relative to the targets' box
    planes = int(max(points[:, 0].max(), targets[:, 0].max())) + 1
    held = np.zeros((planes, *(targets.max(axis=0)[1:] + 1)), dtype=bool)
    held[tuple(targets.T)] = True
    steps = _along_lines(held)

    across = np.arange(held.shape[1])
    lowest = points[:, 2].min()
    columns = np.arange(lowest, points[:, 2].max() + 1)
    third = np.square((columns[:, None] - np.arange(held.shape[2])) * spacing[2])
    ranks = np.argsort(points[:, 0], kind="stable")
    found = np.empty(len(points))
    starts = np.searchsorted(points[ranks, 0], np.arange(planes + 1))
    for plane in np.flatnonzero(np.diff(starts)):
        chosen = ranks[starts[plane] : starts[plane + 1]]
        rows, which = np.unique(points[chosen, 1], return_inverse=True)
        first = np.square(steps[plane] * spacing[0])
        second = np.full((len(rows), held.shape[2]), np.inf)
        trial = np.empty_like(second)
        for line in across[np.isfinite(first).any(axis=1)]:
            np.add(first[line], np.square((rows - line) * spacing[1])[:, None], out=trial)
            np.minimum(second, trial, out=second)
        size = max(1, _ROWS // held.shape[2])
        for start in range(0, len(chosen), size):
            some = slice(start, start + size)
            last = third[points[chosen[some], 2] - lowest]
            last += second[which[some]]
            found[chosen[some]] = last.min(axis=1)
    return np.sqrt(found)


def _along_lines(held: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Steps along the first axis to the nearest voxel that is held, inf on lines without any.

    Whole numbers far below 2²⁴, so that float32 holds them exactly.
    """
    far = np.float32(np.inf)
    steps = np.where(held, np.float32(0), far)
    for plane in range(1, len(steps)):
        np.minimum(steps[plane], steps[plane - 1] + 1, out=steps[plane])
    for plane in range(len(steps) - 2, -1, -1):
        np.minimum(steps[plane], steps[plane + 1] + 1, out=steps[plane])
    return steps


def by_pairs(points: Indices, targets: Indices, spacing: NDArray[np.float64], device: str) -> NDArray[np.float64]:
    """`nearest` by comparing all pairs on a torch device, in double precision and without the shortcut by products."""
    import torch

    there = torch.from_numpy(targets * spacing).to(device)
    here = torch.from_numpy(points * spacing).to(device)
    size = max(1, _PAIRS // len(targets))
    exact = "donot_use_mm_for_euclid_dist"
    parts = [torch.cdist(some, there, compute_mode=exact).amin(1) for some in here.split(size)]
    return torch.cat(parts).cpu().numpy()
