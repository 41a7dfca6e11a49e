"""Largest components and intersections, against a flood fill written out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sslbench.metrics import intersection, largest_component


def flooded(mask):
    """Components of a mask over faces, edges and corners: lists of indices, in the order of their first voxels."""
    left, parts = {tuple(map(int, index)) for index in np.argwhere(mask)}, []
    for start in sorted(left):
        if start not in left:
            continue
        part, todo = [], [start]
        left.discard(start)
        while todo:
            here = todo.pop()
            part.append(here)
            for step in itertools.product((-1, 0, 1), repeat=mask.ndim):
                other = tuple(a + b for a, b in zip(here, step, strict=True))
                if other in left:
                    left.discard(other)
                    todo.append(other)
        parts.append(part)
    return parts


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.15, 0.4]))
@settings(max_examples=30, deadline=None)
def test_the_largest_component_of_every_class_stays(seed, density):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 10, size=rng.integers(2, 4)))
    labels = (rng.integers(1, 4, shape) * (rng.random(shape) < density)).astype(np.uint8)
    expected = np.zeros_like(labels)
    for k in (1, 2, 3):
        parts = flooded(labels == k)
        if parts:
            largest = max(map(len, parts))
            for index in next(part for part in parts if len(part) == largest):
                expected[index] = k
    np.testing.assert_array_equal(largest_component(labels, 4), expected)
    np.testing.assert_array_equal(largest_component(np.asfortranarray(labels), 4), expected)


def test_corners_connect_and_nothing_is_no_fault():
    labels = np.zeros((4, 4, 4), dtype=np.int16)
    labels[0, 0, 0] = labels[1, 1, 1] = labels[3, 3, 3] = 1
    kept = largest_component(labels, 2)
    assert kept.sum() == 2 and kept[3, 3, 3] == 0 and kept.dtype == labels.dtype
    assert not largest_component(labels * 0, 2).any()
    assert labels.sum() == 3  # not written to
    with pytest.raises(ValueError, match="labels"):
        largest_component(labels + 1, 2)


def test_intersection_is_where_all_agree():
    maps = [np.array([0, 1, 2, 2, 1]), np.array([0, 1, 1, 2, 0]), np.array([1, 1, 2, 2, 1])]
    np.testing.assert_array_equal(intersection(maps), [0, 1, 0, 2, 0])
    np.testing.assert_array_equal(intersection(maps[:1]), maps[0])
    for wrong in ([], [maps[0], maps[1][1:]]):
        with pytest.raises(ValueError, match="shape"):
            intersection(wrong)
