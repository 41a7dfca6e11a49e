"""Augmentation as coordinate maps: numpy and scipy are the reference, slice by slice and crop by crop."""

from __future__ import annotations

import colorsys
import warnings
from collections import Counter

import numpy as np
import pytest
import scipy.ndimage as ndimage
import torch
from hypothesis import given
from hypothesis import strategies as st

from sslbench.config.layers import load_recipe
from sslbench.config.recipe import AugmentSpec, Blur, Brightness, Contrast, Cutout, Gamma, Jitter, Noise, ThreeOfSix
from sslbench.data import augment
from sslbench.data.resampling import nearest_positions
from sslbench.data.sampling import Sampler, TrainingSet

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


def test_flips_take_each_axis_half_of_the_time():
    image = numbered((3, 4))
    results = Counter(mapped(image, plane).tobytes() for plane in drawn("flips", 2000, (3, 4)))
    expected = [image, image[::-1], image[:, ::-1], image[::-1, ::-1]]
    assert set(results) == {np.ascontiguousarray(one).tobytes() for one in expected}
    assert min(results.values()) > 430


def test_flip_rot90_is_monais_flip_then_turn():
    """Flip or not, by axis 0 or 1: 1/2, 1/4, 1/4; turn by 1, 2, 3 quarters or not: 1/6 each, 1/2."""
    image, count = numbered((3, 4)), 6000
    results = Counter(mapped(image, plane).tobytes() for plane in drawn("flip_rot90", count, (3, 4)))
    expected = Counter()
    for axis, flip in ((None, 1 / 2), (0, 1 / 4), (1, 1 / 4)):
        for k, turn in ((0, 1 / 2), (1, 1 / 6), (2, 1 / 6), (3, 1 / 6)):
            flipped = image if axis is None else np.flip(image, axis)
            expected[np.ascontiguousarray(np.rot90(flipped, k)).tobytes()] += flip * turn
    assert set(results) == set(expected)
    for result, share in expected.items():
        assert results[result] / count == pytest.approx(share, abs=4 * (share * (1 - share) / count) ** 0.5)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_maps_after_one_another_are_their_composition(size):
    image = numbered(size)
    for k, axis in TURNS:
        first = augment.rot90_flip(size, k, axis)
        second = augment.flips(first.size, True, False)
        composed = augment.then(first, second)
        assert np.array_equal(mapped(image, composed), np.flip(np.flip(np.rot90(image, k), axis), 0))
        assert np.array_equal(mapped(image, augment.turn(size, k)), np.rot90(image, k))


# --------------------------------------------------------------------------------------------------------- distortions


def patches(count=4, channels=1, size=(12, 14), seed=0):
    """Random patches in [0, 1] and their labels, the second half without truth."""
    image = torch.rand((count, channels, *size), generator=torch.Generator().manual_seed(seed))
    label = (image[:, 0] * 4).long()
    label[count // 2 :] = -1
    return image, label


def distorted(kind, image, label, seed=0):
    draws = [np.random.default_rng([seed, row]) for row in range(len(image))]
    generator = torch.Generator().manual_seed(seed)
    return augment.distort([kind], image, label, draws, lambda like: torch.randn(like.shape, generator=generator))


@pytest.mark.parametrize("shape", [(1, 9, 10), (2, 6, 7, 8)], ids=["2-D", "3-D"])
@pytest.mark.parametrize(
    "kind", [Noise(), Blur(), Brightness(), Contrast(), Gamma(), Jitter()], ids=lambda kind: kind.name
)
def test_a_distortion_keeps_shapes_labels_and_what_it_was_given(kind, shape):
    image, label = patches(6, shape[0], shape[1:])
    before = image.clone(), label.clone()
    made, truth = distorted(kind, image, label)
    assert torch.equal(image, before[0]) and torch.equal(truth, before[1])
    assert (made.shape, made.dtype) == (image.shape, torch.float32)
    assert bool(torch.isfinite(made).all())
    assert any(not torch.equal(one, other) for one, other in zip(made, image, strict=True))
    again, _ = distorted(kind, image, label)
    assert torch.equal(made, again)
    if getattr(kind, "p", 1) < 1:
        never, always = (distorted(kind.model_copy(update={"p": p}), image, label)[0] for p in (0, 1))
        assert torch.equal(never, image)
        assert all(not torch.equal(one, other) for one, other in zip(always, image, strict=True))


def test_noise_has_the_deviation_that_was_drawn_and_stays_in_its_limit():
    image, label = torch.zeros(50, 1, 40, 40), torch.zeros(50, 40, 40).long()
    limited, _ = distorted(Noise(), image, label)
    assert limited.abs().max() <= 0.2
    free, _ = distorted(Noise(std=(0.1, 0.3), limit=None), image, label)
    stds = free.std((1, 2, 3))
    assert stds.min() > 0.09 and stds.max() < 0.32 and stds.std() > 0.04
    assert free.abs().max() > 0.6


@pytest.mark.parametrize("sigma", [0.75, 1.0, 1.25])
@pytest.mark.parametrize("size", [(12, 15), (7, 9, 8)], ids=["2-D", "3-D"])
def test_blur_is_scipys(sigma, size):
    image, label = patches(3, 2, size)
    made, _ = distorted(Blur(p=1, sigma=(sigma, sigma)), image, label)
    for one, expected in zip(made.flatten(0, 1), image.flatten(0, 1), strict=True):
        soft = ndimage.gaussian_filter(expected.double().numpy(), sigma, mode="nearest", radius=int(np.ceil(4 * sigma)))
        assert np.abs(one.numpy() - soft).max() < 1e-5


def test_brightness_contrast_and_gamma_follow_their_formulas():
    image, label = patches(40, 1, (10, 10))
    bright, _ = distorted(Brightness(p=1), image, label)
    factor = (bright / image).mean((1, 2, 3))
    assert torch.allclose(bright, image * factor.view(-1, 1, 1, 1), atol=1e-5)
    assert 0.7 <= factor.min() < 0.8 and 1.2 < factor.max() <= 1.3

    mean = image.mean((1, 2, 3), keepdim=True)
    contrast, _ = distorted(Contrast(p=1), image, label)
    assert bool((contrast.amin((1, 2, 3)) >= image.amin((1, 2, 3))).all())
    ratio = ((contrast - mean) / (image - mean)).flatten(1).median(1).values
    unclipped = ((image - mean) * ratio.view(-1, 1, 1, 1) + mean - contrast).abs() < 1e-4
    assert unclipped.float().mean() > 0.7
    assert 0.3 < (ratio < 1).float().mean() < 0.7, "above or below 1 alike likely"

    gamma, _ = distorted(Gamma(p=1), image, label)
    for made, before in zip(gamma, image, strict=True):
        assert float(made.mean()) == pytest.approx(float(before.mean()), abs=1e-5)
        assert float(made.std()) == pytest.approx(float(before.std()), abs=1e-5)
        assert torch.equal(made.flatten().argsort(), before.flatten().argsort()), "a power keeps the order"


def test_jitter_of_a_grey_image_is_brightness_and_contrast_in_either_order():
    image, label = patches(60, 1, (6, 6))
    made, _ = distorted(Jitter(), image, label)
    assert made.min() >= 0 and made.max() <= 1
    orders = Counter()
    for row, (one, before) in enumerate(zip(made, image, strict=True)):
        random = np.random.default_rng([0, row])
        order = random.permutation(4).tolist()
        # The factors are drawn kind by kind, for all patches.
        brightness, contrast = random.uniform(0.2, 1.8), random.uniform(0.2, 1.8)
        expected = before.clone()
        for step in order:
            if step == 0:
                expected = (expected * brightness).clamp(0, 1)
            if step == 1:
                expected = (contrast * expected + (1 - contrast) * expected.mean()).clamp(0, 1)
        assert torch.allclose(one, expected, atol=1e-6)
        orders[order.index(0) < order.index(1)] += 1
    assert min(orders.values()) > 15


def test_saturation_and_hue_are_those_of_colour_theory():
    image, _ = patches(1, 3, (5, 7))
    image[0, :, 0, 0] = 0.4  # grey: no hue to turn
    factor = torch.full((1, 1, 1, 1), 0.3)
    grey = (image * torch.tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    assert torch.allclose(augment._saturation(image, factor), 0.3 * image + 0.7 * grey, atol=1e-6)
    for shift in (-0.2, 0.13, 0.5):
        made = augment._hue(image, torch.full((1, 1, 1, 1), shift))
        for place in np.ndindex(5, 7):
            h, s, v = colorsys.rgb_to_hsv(*image[(0, slice(None), *place)].tolist())
            assert made[(0, slice(None), *place)].tolist() == pytest.approx(
                colorsys.hsv_to_rgb((h + shift) % 1, s, v), abs=1e-5
            )


def test_cutout_puts_binary_noise_in_a_box_and_background_under_it():
    image, label = patches(200, 3, (40, 50))
    label[:100] = 3
    made, truth = distorted(Cutout(), image, label)
    changed = (made != image).any(1)
    share = changed.flatten(1).float().mean(1)
    assert 0.35 < (share > 0).float().mean() < 0.65
    assert share.max() <= 0.41
    for row in torch.nonzero(share > 0).flatten().tolist():
        rows, cols = torch.nonzero(changed[row], as_tuple=True)
        box = (slice(rows.min(), rows.max() + 1), slice(cols.min(), cols.max() + 1))
        inside = made[(row, slice(None), *box)]
        assert bool(((inside == 0) | (inside == 1)).all()) and torch.equal(inside[0], inside[1])
        if row < 100:
            assert bool((truth[(row, *box)] == 0).all())
            assert int((truth[row] == 0).sum()) == inside[0].numel()
    assert bool((truth[100:] == -1).all()), "where there is no truth, none is made"


@pytest.mark.parametrize("size", [(9, 9), (4, 7, 7)], ids=["2-D", "3-D"])
def test_patches_are_turned_about_their_centre_and_zoomed_along_every_axis(size):
    image, label = patches(3, 2, size)
    label = (image[:, 0] * 9).long()
    for k in range(4):
        turned, known = augment._moved(image, label, [k * np.pi / 2] * 3, [1.0] * 3)
        assert torch.allclose(turned, torch.rot90(image, k, (-2, -1)), atol=1e-4)
        assert torch.equal(known, torch.rot90(label, k, (-2, -1)))
    zoomed, _ = augment._moved(image, label, [0.0] * 3, [0.5] * 3)
    for one, expected in zip(zoomed.flatten(0, 1), image.flatten(0, 1), strict=True):
        half = [(side - 1) / 2 for side in size]
        where = np.stack(
            np.meshgrid(*[0.5 * (np.arange(side) - h) + h for side, h in zip(size, half, strict=True)], indexing="ij")
        )
        assert np.abs(one.numpy() - ndimage.map_coordinates(expected.numpy(), where, order=1)).max() < 1e-5
    tilted, known = augment._moved(torch.ones(1, 1, *size), torch.full((1, *size), 5), [np.deg2rad(30)], [1.0])
    assert tilted[..., 0, 0].max() < 0.5 and set(known.unique().tolist()) == {0, 5}, "zeros come from outside"


def test_three_of_six_are_drawn_without_replacement_and_labels_move_along():
    side = 15
    image = torch.zeros(400, 1, side, side)
    image[:, :, 3:8, 4:11] = 1.0
    label = image[:, 0].long()
    label[200:] = -1
    made, truth = distorted(ThreeOfSix(), image, label)
    assert bool((truth[200:] == -1).all())
    moved = (truth[:200] != label[:200]).flatten(1).any(1).float().mean()
    # A rotation or a zoom that is not 1 (half of them): at least one among the three, 0.7 each.
    turn, zoom = 0.5 * 0.7, 0.5 * 0.7 * 0.5
    assert 0.55 * (turn + zoom) < moved < 1.1 * (turn + zoom)
    overlap = [
        (2 * ((one > 0.5 * one.max()) & (t > 0)).sum() / ((one > 0.5 * one.max()).sum() + (t > 0).sum()))
        for one, t in zip(made[:200, 0], truth[:200], strict=True)
    ]
    assert min(overlap) > 0.75, "the label is where the square went"
    still, _ = distorted(ThreeOfSix(p=0), image, label)
    assert torch.equal(still, image)
    with pytest.raises(ValueError, match="three_of_six"):
        AugmentSpec(strong=["three_of_six"])
    assert AugmentSpec(weak=["flips", "three_of_six"]).distortions == [ThreeOfSix()]


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
