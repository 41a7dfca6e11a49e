"""Cubes of patches (2-D: squares), as reshapes and one gather: cut, put together, exchanged within a batch (MagicNet).

Their places are counted as those of `networks.parts`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sslbench.networks.parts import cut_parts, join_parts


def split_cubes(volume: Tensor, cube_size: int) -> Tensor:
    """Cut patches into cubes.

    Args:
        volume: (B, c, *S).
        cube_size: side of a cube, s; it divides every side.

    Returns:
        (B, n, c, *s), the n cubes of a patch in the order of their places.

    Raises:
        ValueError: the cubes do not fill the patch.
    """
    if any(side % cube_size for side in volume.shape[2:]):
        raise ValueError(f"cubes of side {cube_size} do not fill a patch of {tuple(volume.shape[2:])}")
    return cut_parts(volume, [side // cube_size for side in volume.shape[2:]])


def join_cubes(cubes: Tensor, volume_shape: Sequence[int]) -> Tensor:
    """The inverse of `split_cubes`, for any number of channels.

    Args:
        cubes: (B, n, c, *s).
        volume_shape: of the patch; its last numbers are the sides S.

    Returns:
        (B, c, *S).
    """
    sides = cubes.shape[3:]
    return join_parts(cubes, [side // part for side, part in zip(volume_shape[-len(sides) :], sides, strict=True)])


def cube_shuffle(volume: Tensor, perm: Tensor) -> Tensor:
    """Exchange cubes between the patches of a batch; every cube stays at its place (MagicNet's cross-image mixing).

    Args:
        volume: (B, c, *S), sides divisible by the numbers of cubes.
        perm: (B, *n) int64, at every place a permutation of 0..B-1: from which patch the cube of patch b comes.
    """
    grid = perm.shape[1:]
    cubes = cut_parts(volume, grid)
    B, n = cubes.shape[:2]
    source = perm.flatten(1) * n + torch.arange(n, device=perm.device)
    moved = cubes.flatten(0, 1).index_select(0, source.flatten())
    return join_parts(moved.unflatten(0, (B, n)), grid)


def cube_restore(features: Tensor, perm: Tensor) -> Tensor:
    """The inverse of `cube_shuffle`: (B, c, *S) maps of shuffled patches, at any resolution, back in their patches."""
    return cube_shuffle(features, perm.argsort(0))
