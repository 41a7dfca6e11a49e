"""Maps cut into equal parts and put together again: MagicNet's cubes, ABD's patches, the windows of SKCDF's attention.

Places are counted row by row, the last axis fastest: the part (i, j, k) of 3 x 3 x 3 is number 9i + 3j + k.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def cut_parts(x: Tensor, grid: Sequence[int]) -> Tensor:
    """Cut maps into equal parts.

    Args:
        x: (B, c, *S).
        grid: parts along every axis; they divide its side.

    Returns:
        (B, n, c, *s), the n parts of a map in the order of their places.
    """
    dims = len(grid)
    B, c = x.shape[:2]
    paired = [size for number, side in zip(grid, x.shape[2:], strict=True) for size in (number, side // number)]
    places, inside = range(2, 2 + 2 * dims, 2), range(3, 3 + 2 * dims, 2)
    return x.reshape(B, c, *paired).permute(0, *places, 1, *inside).flatten(1, dims)


def join_parts(parts: Tensor, grid: Sequence[int]) -> Tensor:
    """The inverse of `cut_parts`: parts (B, n, c, *s), `grid` of them along the axes, as maps (B, c, *S)."""
    dims = len(grid)
    B, _, c, *sides = parts.shape
    order = [axis for number in range(dims) for axis in (1 + number, dims + 2 + number)]
    spread = parts.reshape(B, *grid, c, *sides).permute(0, dims + 1, *order)
    return spread.reshape(B, c, *(number * side for number, side in zip(grid, sides, strict=True)))
