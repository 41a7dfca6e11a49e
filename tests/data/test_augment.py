"""Augmentation as coordinate maps: numpy and scipy are the reference, slice by slice and crop by crop."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import pytest
import scipy.ndimage as ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st

from sslbench.config import load_recipe
from sslbench.data import augment
from sslbench.data.sampling import Sampler, TrainingSet, nearest_positions

SIZES = [(6, 6), (4, 7), (7, 4), (5, 9), (2, 3), (1, 5)]
TURNS = [(k, axis) for k in range(4) for axis in range(2)]


def numbered(size, start=1):
    """An image whose voxels all differ, none of them 0."""
    return np.arange(start, start + np.prod(size), dtype=np.float32).reshape(size)


def mapped(image, plane):
    """What a map makes of an image, voxel by voxel; positions outside [0, side - 1] give 0, as scipy has it."""
    u, v = np.indices(plane.size)
    places = [plane.offset[n] + plane.matrix[n, 0] * u + plane.matrix[n, 1] * v for n in range(2)]
    inside = np.all(
        [(place >= 0) & (place <= side - 1) for place, side in zip(places, image.shape, strict=True)], axis=0
    )
    rows, cols = (np.where(inside, np.floor(place + 0.5), 0).astype(int) for place in places)
    return np.where(inside, image[rows, cols], 0)


def zoomed(image, size):
    """`scipy.ndimage.zoom(order=0)`, at sizes where it does what it should: see `test_nearest_positions_are_scipys`."""
    assert not any(falls_outside(side, out) for side, out in zip(image.shape, size, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ndimage.zoom(image, [out / side for out, side in zip(size, image.shape, strict=True)], order=0)


def falls_outside(size_in, size_out):
    """Whether scipy's last position, in float64, lies a rounding error outside the image: it is then filled with 0."""
    return size_out > 1 and (size_in - 1) / (size_out - 1) * (size_out - 1) > size_in - 1


# ----------------------------------------------------------------------------------------------------------- the maps


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("k", "axis"), TURNS)
def test_rot90_flip_is_numpys(size, k, axis):
    image, plane = numbered(size), augment.rot90_flip(size, k, axis)
    expected = np.flip(np.rot90(image, k), axis)
    assert plane.exact and plane.size == expected.shape
    assert np.array_equal(mapped(image, plane), expected)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(-8, 8), st.integers(0, 1))
def test_rot90_flip_is_numpys_for_any_size_and_number_of_turns(rows, cols, k, axis):
    image = numbered((rows, cols))
    assert np.array_equal(mapped(image, augment.rot90_flip((rows, cols), k, axis)), np.flip(np.rot90(image, k), axis))


@pytest.mark.parametrize("size", [(24, 24), (17, 31), (31, 16), (40, 25)], ids=str)
def test_rotation_is_scipys(size):
    image = numbered(size)
    for degrees in range(-20, 20):
        expected = ndimage.rotate(image, degrees, order=0, reshape=False)
        assert np.array_equal(mapped(image, augment.rotation(size, degrees)), expected), degrees


def test_identity_and_a_rotation_by_nothing_change_nothing():
    image = numbered((5, 8))
    for plane in (augment.identity((5, 8)), augment.rotation((5, 8), 0)):
        assert np.array_equal(mapped(image, plane), image)


# ------------------------------------------------------------------------------------------------------------ resizing


@pytest.mark.parametrize("size_out", [2, 3, 64, 112, 127, 128, 154, 216, 224, 255, 256, 288, 300])
def test_nearest_positions_are_scipys(size_out):
    """They differ at the last position alone, and only where float64 puts (out - 1)·((in - 1)/(out - 1)) a rounding
    error above in - 1: scipy takes that for outside and fills in 0, we take the last voxel."""
    for size_in in [2, 3, 5, 17, 32, 50, 128, 154, 174, 180, 216, 224, 232, 255, 256, 288, 320]:
        image = np.arange(1, size_in + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = ndimage.zoom(image, size_out / size_in, order=0)
        found = image[nearest_positions(size_in, size_out)]
        assert np.array_equal(found[:-1], expected[:-1])
        assert (expected[-1] == 0) == falls_outside(size_in, size_out)
        assert found[-1] == size_in


@pytest.mark.parametrize(("size_in", "size_out"), [(28, 216), (32, 224), (50, 96), (62, 112)])
def test_sizes_at_which_scipy_loses_the_last_row(size_in, size_out):
    assert falls_outside(size_in, size_out)
    assert nearest_positions(size_in, size_out)[-1] == size_in - 1


@given(st.integers(1, 400), st.integers(1, 400))
def test_nearest_positions_are_ordered_and_reach_both_ends(size_in, size_out):
    positions = nearest_positions(size_in, size_out)
    assert len(positions) == size_out and positions[0] == 0
    assert np.all(np.diff(positions) >= 0)
    assert size_out == 1 or positions[-1] == size_in - 1
    assert size_in != size_out or np.array_equal(positions, np.arange(size_in))


# ------------------------------------------------------------------------------------------------ drawing augmentations


def drawn(name, count, size=(6, 8)):
    return [augment.draw(name, size, np.random.default_rng(seed)) for seed in range(count)]


def kind(plane):
    if not plane.exact:
        return "rotation"
    return "turn and flip" if np.linalg.det(plane.matrix) < 0 else "identity"


def test_ssl4mis_turns_and_flips_half_of_the_time_rotates_a_quarter_and_else_does_nothing():
    count = 4000
    kinds = Counter(kind(plane) for plane in drawn("ssl4mis", count))
    for name, share in (("turn and flip", 0.5), ("rotation", 0.25), ("identity", 0.25)):
        assert kinds[name] / count == pytest.approx(share, abs=3 * (share * (1 - share) / count) ** 0.5)


def test_rotations_of_ssl4mis_are_by_each_whole_angle_from_minus_20_to_19():
    planes = [plane for plane in drawn("ssl4mis", 8000) if kind(plane) == "rotation"]
    angles = Counter(
        round(float(np.rad2deg(np.arctan2(plane.matrix[0, 1], plane.matrix[0, 0]))), 6) for plane in planes
    )
    assert sorted(angles) == list(range(-20, 20))
    assert max(angles.values()) < 2.5 * min(angles.values())


def test_rot90_flip_always_flips_and_takes_each_turn_alike():
    planes = drawn("rot90_flip", 2000)
    assert {kind(plane) for plane in planes} == {"turn and flip"}
    results = Counter(mapped(numbered((3, 3)), plane).tobytes() for plane in drawn("rot90_flip", 2000, (3, 3)))
    assert len(results) == 4 and min(results.values()) > 400


def test_without_an_augmentation_nothing_is_drawn():
    random = np.random.default_rng(0)
    before = random.bit_generator.state
    assert kind(augment.draw(None, (4, 5), random)) == "identity"
    assert random.bit_generator.state == before


# -------------------------------------------------------------------------------------- end to end, through the sampler


def sampler(volumes, labels, patch, **batch):
    base = load_recipe("ssl4mis-acdc" if len(patch) == 2 else "phantom")
    changes = {"patch_size": list(patch), "batch": base.batch.model_copy(update=batch)}
    return Sampler(
        TrainingSet([volume[None] for volume in volumes], labels),
        base.model_copy(update=changes),
        0,
        torch.device("cpu"),
    )


def weak(volumes, labels, patch, plane, monkeypatch, count=4):
    """A batch whose every patch is augmented by the map that `plane` makes for a size."""
    monkeypatch.setattr(augment, "draw", lambda name, size, random: plane(size))
    made = sampler(volumes, labels, patch, labeled=count, unlabeled=count)
    return made.batch(0, views=("raw", "weak"))


def codes(volumes):
    """Labels that are a function of the image, so that they show whether both moved together."""
    return [(volume % 4).astype(np.uint8) for volume in volumes]


def check_slices(augmentation, plane, patch, monkeypatch):
    """Every weak slice is zoom(augmentation(slice)), the label alike; every raw one is zoom(slice)."""
    shapes = [(3, 21, 30), (2, 40, 33), (3, 19, 19)]
    volumes = [numbered(shape, 1 + 10_000 * n) for n, shape in enumerate(shapes)]
    slices = [content for volume in volumes for content in volume]
    batch = weak(volumes, codes(volumes[:2]), patch, plane, monkeypatch)
    for row, item in enumerate(batch.index.tolist()):
        for view, change in (("raw", lambda content: content), ("weak", augmentation)):
            expected = zoomed(change(slices[item]), patch)
            assert np.array_equal(batch.image[view][row, 0].numpy(), expected)
            label = zoomed(change(slices[item] % 4), patch) if row < batch.num_labeled else np.full(patch, -1)
            assert np.array_equal(batch.label[view][row].numpy(), label)


PATCHES = [(16, 16), (32, 32), (21, 30), (24, 17)]


@pytest.mark.parametrize("patch", PATCHES, ids=str)
@pytest.mark.parametrize(("k", "axis"), TURNS)
def test_a_turned_slice_is_resized_as_by_numpy_and_scipy(k, axis, patch, monkeypatch):
    check_slices(
        lambda content: np.flip(np.rot90(content, k), axis),
        lambda size: augment.rot90_flip(size, k, axis),
        patch,
        monkeypatch,
    )


@pytest.mark.parametrize("patch", PATCHES, ids=str)
@pytest.mark.parametrize("degrees", [-20, -7, 1, 19])
def test_a_rotated_slice_is_resized_as_by_scipy(degrees, patch, monkeypatch):
    check_slices(
        lambda content: ndimage.rotate(content, degrees, order=0, reshape=False),
        lambda size: augment.rotation(size, degrees),
        patch,
        monkeypatch,
    )


@pytest.mark.parametrize("degrees", [-20, -7, 1, 19])
def test_a_rotated_slice_is_scipys_away_from_its_border(degrees, monkeypatch):
    size = (33, 40)
    volumes = [numbered((4, *size)), numbered((4, *size), 10_000)]
    slices = [content for volume in volumes for content in volume]
    batch = weak(volumes, codes(volumes[:1]), size, lambda size: augment.rotation(size, degrees), monkeypatch)
    for row, item in enumerate(batch.index.tolist()):
        expected = ndimage.rotate(slices[item], degrees, order=0, reshape=False)
        surely = ndimage.rotate(np.pad(np.ones((29, 36)), 2), degrees, order=0, reshape=False) > 0
        assert surely.mean() > 0.6
        assert np.array_equal(batch.image["weak"][row, 0].numpy()[surely], expected[surely])


@pytest.mark.parametrize(("k", "axis"), TURNS)
def test_a_turned_crop_is_numpys(k, axis, monkeypatch):
    volumes = [numbered((20, 19, 12), 1 + 10_000 * n) for n in range(2)]
    batch = weak(volumes, codes(volumes[:1]), (10, 10, 6), lambda size: augment.rot90_flip(size, k, axis), monkeypatch)
    for row, (item, origin) in enumerate(zip(batch.index.tolist(), batch.origin.tolist(), strict=True)):
        crop = volumes[item][tuple(slice(start, start + side) for start, side in zip(origin, (10, 10, 6), strict=True))]
        for view, expected in (("raw", crop), ("weak", np.flip(np.rot90(crop, k, (0, 1)), axis))):
            assert np.array_equal(batch.image[view][row, 0].numpy(), expected)
            label = expected % 4 if row < batch.num_labeled else np.full(crop.shape, -1)
            assert np.array_equal(batch.label[view][row].numpy(), label)
