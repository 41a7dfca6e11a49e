"""Parts of maps against plain loops over their places."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sslbench.networks.parts import cut_parts, join_parts


@pytest.mark.parametrize(
    ("sides", "grid"), [((8, 12), (4, 4)), ((8, 12), (2, 6)), ((8, 4, 12), (4, 4, 4)), ((8, 4, 12), (2, 1, 3))]
)
def test_parts_are_cut_row_by_row_and_put_together_again(sides: tuple[int, ...], grid: tuple[int, ...]) -> None:
    x = torch.rand(3, 2, *sides)
    parts = cut_parts(x, grid)
    assert parts.shape[:3] == (3, int(np.prod(grid)), 2)
    for number, place in enumerate(np.ndindex(*grid)):
        box = (slice(p * s // n, (p + 1) * s // n) for p, s, n in zip(place, sides, grid, strict=True))
        assert torch.equal(parts[:, number], x[(..., *box)])
    assert torch.equal(join_parts(parts, grid), x)


def test_parts_are_as_many_along_every_axis_as_there_are_axes() -> None:
    with pytest.raises(ValueError):
        cut_parts(torch.rand(1, 1, 4, 4, 4), (2, 2))
