"""Sliding windows and resized slices, against plain loops, MONAI and scipy."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import scipy.ndimage as ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sslbench.inference import slice_inference, sliding_window
from sslbench.inference.sliding_window import accumulate_windows, flipped, label_windows, resized_slices, window_starts
from sslbench.networks import build_network


def placed(window):
    """Probabilities of two classes that depend on the voxel, on its place in the window and on what surrounds it."""
    ramp = torch.linspace(-1, 1, window[0, 0].numel()).view(1, 1, *window.shape[2:])
    around = window[:, :1].mean(dim=tuple(range(2, window.ndim)), keepdim=True)
    return torch.cat([window[:, :1] * ramp, around + window[:, -1:]], dim=1).softmax(1)


def volume(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain_loop(predict, content, patch, stride):
    """The same mean, window by window in float64."""
    total, count = np.zeros((2, *content.shape)), np.zeros(content.shape)
    steps = [-(-(side - size) // step) + 1 for side, size, step in zip(content.shape, patch, stride, strict=True)]
    for index in itertools.product(*map(range, steps)):
        corner = [
            min(i * step, side - size) for i, step, side, size in zip(index, stride, content.shape, patch, strict=True)
        ]
        where = tuple(slice(start, start + size) for start, size in zip(corner, patch, strict=True))
        total[(slice(None), *where)] += predict(content[where][None, None])[0].double().numpy()
        count[where] += 1
    return total / count


# ------------------------------------------------------------------------------------------------------------ windows


@pytest.mark.parametrize(
    ("size", "patch", "stride", "starts"),
    [
        (160, 128, 32, [0, 32]),
        (80, 64, 16, [0, 16]),
        (299, 96, 32, [0, 32, 64, 96, 128, 160, 192, 203]),
        (150, 96, 16, [0, 16, 32, 48, 54]),
        (96, 96, 32, [0]),
        (97, 96, 32, [0, 1]),
        (50, 96, 32, [0]),
        (20, 5, 5, [0, 5, 10, 15]),
    ],
)
def test_published_window_starts(size, patch, stride, starts):
    assert window_starts(size, patch, stride) == starts


@pytest.mark.parametrize(
    ("shape", "patch", "stride", "windows"),
    [
        ((299, 299, 150), (96, 96, 96), (32, 32, 16), 320),
        ((299, 299, 150), (96, 96, 96), (80, 80, 64), 32),
        ((80, 160, 160), (64, 128, 128), (16, 32, 32), 8),
    ],
)
def test_published_numbers_of_windows(shape, patch, stride, windows):
    counts = [len(window_starts(*axis)) for axis in zip(shape, patch, stride, strict=True)]
    assert np.prod(counts) == windows


@pytest.mark.parametrize("size", range(5, 40))
@pytest.mark.parametrize(("patch", "stride"), [(5, 1), (5, 3), (5, 5), (4, 2)])
def test_windows_cover_every_voxel_without_leaving_the_volume(size, patch, stride):
    starts = window_starts(size, patch, stride)
    assert starts == sorted(set(starts))
    assert {place for start in starts for place in range(start, start + patch)} == set(range(size))


@pytest.mark.parametrize(
    ("shape", "patch", "stride"),
    [((9, 8, 7), (4, 4, 4), (2, 3, 4)), ((6, 6, 6), (6, 6, 6), (1, 2, 3)), ((5, 11, 6), (5, 4, 3), (3, 3, 1))],
    ids=str,
)
@pytest.mark.parametrize("batch", [1, 5])
def test_accumulation_is_a_plain_loop(shape, patch, stride, batch):
    content = volume(*shape)
    found = accumulate_windows(placed, content, patch, stride, 2, batch)
    assert (found.shape, found.dtype) == ((2, *shape), torch.float32)
    np.testing.assert_allclose(found, plain_loop(placed, content, patch, stride), atol=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 7, 1000])
def test_the_batch_of_windows_changes_nothing(batch):
    content = volume(9, 10, 8)
    expected = accumulate_windows(placed, content, (4, 4, 4), (2, 3, 2), 2, 3)
    torch.testing.assert_close(accumulate_windows(placed, content, (4, 4, 4), (2, 3, 2), 2, batch), expected)


@pytest.mark.parametrize("shape", [(3, 9, 4), (5, 5, 5), (2, 1, 3), (6, 7, 5)], ids=str)
def test_a_volume_smaller_than_the_patch_is_padded_and_cropped_back(shape):
    """With zeros, ⌊pad/2⌋ before and the rest behind."""
    content, patch = volume(*shape), (6, 6, 6)
    pads = [((size - side) // 2, size - side - (size - side) // 2) if side < size else (0, 0)
            for side, size in zip(shape, patch, strict=True)]  # fmt: skip
    padded = torch.from_numpy(np.pad(content.numpy(), pads))
    inside = tuple(slice(before, before + side) for (before, _), side in zip(pads, shape, strict=True))
    expected = plain_loop(placed, padded, patch, (2, 2, 2))[(slice(None), *inside)]
    found = accumulate_windows(placed, content, patch, (2, 2, 2), 2, 4)
    assert found.shape == (2, *shape)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_mean_of_probabilities_is_one_of_probabilities():
    found = accumulate_windows(placed, volume(9, 8, 7), (4, 4, 4), (3, 3, 3), 2, 4)
    torch.testing.assert_close(found.sum(0), torch.ones(9, 8, 7))


def test_channels_of_an_image_reach_the_network_together():
    content = volume(3, 6, 6, 6)
    seen = []

    def predict(window):
        seen.append(window.shape)
        return placed(window)

    found = accumulate_windows(predict, content, (4, 4, 4), (2, 2, 2), 2, 8)
    assert seen == [(8, 3, 4, 4, 4)] and found.shape == (2, 6, 6, 6)


def test_windows_also_slide_over_a_plane():
    content = volume(9, 7)
    found = accumulate_windows(placed, content, (4, 4), (3, 2), 2, 4)
    np.testing.assert_allclose(found, plain_loop(placed, content, (4, 4), (3, 2)), atol=1e-6)


@pytest.mark.parametrize("shape", [(9, 12, 8), (8, 8, 8), (5, 12, 7), (10, 3, 6)], ids=str)
@pytest.mark.parametrize(("stride", "overlap"), [((4, 4, 4), 0.5), ((2, 4, 6), (0.75, 0.5, 0.25)), ((8, 8, 8), 0)])
def test_monai_agrees_with_equal_weights(shape, stride, overlap):
    """Its overlap is 1 - stride / patch; it clamps the last window and pads small volumes as we do."""
    inferers = pytest.importorskip("monai.inferers")
    content = volume(*shape)
    expected = inferers.sliding_window_inference(
        content[None, None], (8, 8, 8), 3, placed, overlap=overlap, mode="constant", padding_mode="constant"
    )
    found = accumulate_windows(placed, content, (8, 8, 8), stride, 2, 3)
    torch.testing.assert_close(found, expected[0], rtol=1e-4, atol=1e-6)


def test_no_gradient_is_recorded():
    network = nn.Conv3d(1, 2, 1)
    assert not sliding_window(network, volume(5, 5, 5), (4, 4, 4), (2, 2, 2), 2).requires_grad


# -------------------------------------------------------------------------------------------------- rows and memory


def dyadic(window):
    """Three classes whose scores are multiples of 1/16: sums of them are exact in any order, and ties are many."""
    content = window.sum(1)
    place = torch.arange(content[0].numel()).view(content.shape[1:]) % 5
    steps = torch.stack([content.floor() % 7 + place, (3 * content).floor() % 7, (7 * content).floor() % 7 + 1], dim=1)
    return steps / 16


def plain_labels(predict, content, patch, stride, num_classes):
    """The plain definition in fp32: pad, all scores of the whole volume at once, divide by the count, argmax, crop."""
    pads = [max(size - side, 0) for side, size in zip(content.shape, patch, strict=True)]
    padded = torch.from_numpy(np.pad(content.numpy(), [(pad // 2, pad - pad // 2) for pad in pads]))
    total, count = torch.zeros(num_classes, *padded.shape), torch.zeros(padded.shape)
    for corner in itertools.product(*(window_starts(*axis) for axis in zip(padded.shape, patch, stride, strict=True))):
        where = tuple(slice(start, start + size) for start, size in zip(corner, patch, strict=True))
        total[(slice(None), *where)] += predict(padded[where][None, None])[0]
        count[where] += 1
    inside = tuple(slice(pad // 2, pad // 2 + side) for pad, side in zip(pads, content.shape, strict=True))
    return (total / count).argmax(0)[inside]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_labels_and_probabilities_are_those_of_the_plain_definition_whatever_the_sizes(data):
    axes = data.draw(st.sampled_from([2, 3]), label="axes")
    shape = [data.draw(st.integers(1, 14), label="side") for _ in range(axes)]
    patch = [data.draw(st.integers(1, 9), label="patch") for _ in range(axes)]
    stride = [data.draw(st.integers(1, size), label="stride") for size in patch]
    batch = data.draw(st.integers(1, 9), label="batch")
    content = volume(*shape, seed=data.draw(st.integers(0, 99), label="seed")) * 4
    expected = plain_labels(dyadic, content, patch, stride, 3)
    found = label_windows(dyadic, content, patch, stride, 3, batch)
    assert found.dtype == torch.uint8 and torch.equal(found.long(), expected)
    probabilities = accumulate_windows(placed, content, patch, stride, 2, batch)
    if all(side >= size for side, size in zip(shape, patch, strict=True)):
        np.testing.assert_allclose(probabilities, plain_loop(placed, content, patch, stride), rtol=0, atol=1e-6)
    labels = label_windows(placed, content, patch, stride, 2, batch)
    assert torch.equal(labels.long(), probabilities.argmax(0))


def test_the_labels_of_a_network_are_the_argmax_of_the_plain_loop():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 5, 3, padding=1)).eval()
    content = volume(22, 13, 17)

    def predict(window):
        return network(window).softmax(1).detach()

    for patch, stride in (((8, 8, 8), (4, 4, 4)), ((6, 8, 8), (5, 3, 8)), ((24, 8, 8), (8, 8, 8))):
        expected = plain_labels(predict, content, patch, stride, 5)
        assert torch.equal(label_windows(predict, content, patch, stride, 5, 4).long(), expected)


def test_only_the_rows_that_windows_can_still_reach_are_kept():
    """Along the axis that is longest for its patch, wherever that is."""
    asked = []

    class Watched(torch.Tensor):
        def new_zeros(self, shape, **rest):
            asked.append(tuple(shape))
            return torch.zeros(shape, **rest)

    for shape, kept in (((40, 12, 9), (5, 4, 12, 9)), ((9, 40, 12), (5, 9, 4, 12)), ((9, 12, 40), (5, 9, 12, 4))):
        content = volume(*shape)
        labels = label_windows(lambda w: five(w), content.as_subclass(Watched), (4, 4, 4), (2, 2, 2), 5, 3)
        assert asked.pop() == kept
        assert torch.equal(labels.as_subclass(torch.Tensor), label_windows(five, content, (4, 4, 4), (2, 2, 2), 5, 3))


def five(window):
    return torch.cat([window * factor for factor in (1, -1, 0.5, 2, -2)], dim=1).softmax(1).as_subclass(torch.Tensor)


def test_a_batch_that_does_not_fit_into_memory_is_halved():
    content, sizes = volume(9, 8, 7), []

    def small(window):
        sizes.append(len(window))
        if len(window) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return placed(window)

    found = accumulate_windows(small, content, (4, 4, 4), (2, 2, 2), 2, 16)
    assert sizes[:4] == [16, 8, 4, 2]
    assert torch.equal(found, accumulate_windows(placed, content, (4, 4, 4), (2, 2, 2), 2, 2))


def test_a_window_that_does_not_fit_alone_is_an_error():
    def never(window):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        label_windows(never, volume(9, 8, 7), (4, 4, 4), (2, 2, 2), 2, 16)


def test_a_stride_that_leaves_gaps_is_refused():
    with pytest.raises(ValueError, match="leaves gaps"):
        accumulate_windows(placed, volume(9, 8, 7), (4, 4, 4), (2, 5, 2), 2, 1)


def test_progress_is_told_in_windows():
    told = []
    label_windows(placed, volume(9, 8, 7), (4, 4, 4), (3, 4, 3), 2, 5, progress=lambda *counts: told.append(counts))
    assert told == [(5, 12), (10, 12), (12, 12)]
    told.clear()
    resized_slices(as_labels, torch.zeros(5, 4, 4), (8, 8), 2, progress=lambda *counts: told.append(counts))
    assert told == [(2, 5), (4, 5), (5, 5)]


# -------------------------------------------------------------------------------------------------- weights and flips


@pytest.mark.parametrize(
    ("shape", "patch", "stride"), [((9, 8, 14), (4, 4, 6), (2, 3, 4)), ((11, 20), (8, 5), (3, 2))], ids=str
)
def test_gaussian_weights_against_the_plain_formula(shape, patch, stride):
    """Σ w p / Σ w with w = exp(-d²/2σ²), d from the window's centre, σ = patch/8 along every axis."""
    content = volume(*shape)
    total, weights = np.zeros((2, *shape)), np.zeros(shape)
    for corner in itertools.product(*(window_starts(*axis) for axis in zip(shape, patch, stride, strict=True))):
        where = tuple(slice(start, start + size) for start, size in zip(corner, patch, strict=True))
        weight = np.ones(patch)
        for voxel in np.ndindex(*patch):
            for place, size in zip(voxel, patch, strict=True):
                weight[voxel] *= np.exp(-(((place - (size - 1) / 2) / (size / 8)) ** 2) / 2)
        total[(slice(None), *where)] += weight * placed(content[where][None, None])[0].double().numpy()
        weights[where] += weight
    found = accumulate_windows(placed, content, patch, stride, 2, 3, "gaussian")
    np.testing.assert_allclose(found, total / weights, rtol=0, atol=1e-6)
    assert not torch.allclose(found, accumulate_windows(placed, content, patch, stride, 2, 3), atol=1e-3)


def test_far_corners_of_a_large_patch_keep_their_probabilities():
    """There a window weighs 10⁻¹¹, and no other one reaches."""
    found = accumulate_windows(five, volume(40, 40, 40), (32, 32, 32), (8, 8, 8), 5, 4, "gaussian")
    torch.testing.assert_close(found.sum(0), torch.ones(40, 40, 40))


def test_flips_average_the_probabilities_of_all_views():
    content = volume(1, 1, 4, 5, 6)
    views = [dims for count in range(3) for dims in itertools.combinations((2, 4), count)]
    expected = sum(placed(content.flip(dims)).flip(dims) for dims in views) / 4
    torch.testing.assert_close(flipped(placed, (0, 2))(content), expected)
    assert flipped(placed, ()) is placed


# ----------------------------------------------------------------------------------------------------------- networks


def test_one_network_gives_its_probabilities():
    network, content = nn.Conv3d(1, 3, 1), volume(4, 5, 6)
    found = sliding_window(network, content, (4, 4, 4), (1, 1, 1), 3)
    torch.testing.assert_close(found, network(content[None, None])[0].softmax(0).detach())
    torch.testing.assert_close(sliding_window([network], content, (4, 4, 4), (1, 1, 1), 3), found)


def test_several_networks_average_their_logits_not_their_probabilities():
    torch.manual_seed(0)
    networks, content = [nn.Conv3d(1, 3, 1) for _ in range(2)], 5 * volume(4, 4, 4)
    logits = [network(content[None, None])[0].detach() for network in networks]
    found = sliding_window(networks, content, (4, 4, 4), (4, 4, 4), 3)
    torch.testing.assert_close(found, (sum(logits) / 2).softmax(0))
    assert (found - (logits[0].softmax(0) + logits[1].softmax(0)) / 2).abs().max() > 0.01


# ------------------------------------------------------------------------------------------------------------- slices


def as_labels(slices):
    """A network that reads the label off the image."""
    return nn.functional.one_hot(slices[:, 0].long(), 5).movedim(-1, 1).float()


def zoomed(content, size):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ndimage.zoom(content, [out / side for out, side in zip(size, content.shape, strict=True)], order=0)


def kept(size_in, size_out):
    """The positions that scipy fills: not the last where rounding puts it outside (`tests/data/test_augment.py`)."""
    outside = (size_in - 1) / (size_out - 1) * (size_out - 1) > size_in - 1
    return slice(0, size_out - 1 if outside else size_out)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((216, 256), (256, 256)), ((154, 224), (128, 128)), ((232, 288), (256, 256)), ((30, 17), (32, 24))],
    ids=str,
)
def test_slices_are_resized_there_and_back_as_by_scipy(shape, size):
    labels = np.random.default_rng(0).integers(0, 5, (3, *shape))
    found = resized_slices(as_labels, torch.from_numpy(labels).float(), size, 2)
    assert (found.shape, found.dtype) == (labels.shape, torch.int64)
    assert all(kept(*axis) == slice(0, axis[1]) for axis in zip(shape, size, strict=True))
    where = tuple(kept(*axis) for axis in zip(size, shape, strict=True))
    for content, result in zip(labels, found.numpy(), strict=True):
        assert np.array_equal(result[where], zoomed(zoomed(content, size), shape)[where])


@pytest.mark.parametrize("batch", [1, 3, 4, 99])
def test_the_batch_of_slices_changes_nothing(batch):
    content = torch.randint(0, 5, (7, 12, 9)).float()
    assert torch.equal(
        resized_slices(as_labels, content, (16, 16), batch), resized_slices(as_labels, content, (16, 16), 2)
    )


def test_slices_of_the_networks_size_are_left_alone():
    content = torch.randint(0, 5, (4, 16, 16)).float()
    assert torch.equal(resized_slices(as_labels, content, (16, 16), 3), content.long())


def test_slice_inference_is_the_networks_argmax():
    torch.manual_seed(0)
    network, content = nn.Conv2d(1, 4, 3, padding=1), volume(5, 16, 16)
    expected = network(content[:, None]).argmax(1)
    assert torch.equal(slice_inference(network, content, (16, 16), batch=2), expected)
    assert slice_inference(network, volume(2, 20, 30)).shape == (2, 20, 30)


@pytest.mark.parametrize("name", ["unet_cct", "unet_urpc"])
def test_of_several_heads_the_first_predicts_and_in_evaluation_mode(name):
    torch.manual_seed(0)
    network = build_network(name, 1, 3).train()
    content = volume(2, 32, 32)
    with torch.no_grad():
        expected = network.eval()(content.unsqueeze(1))[0].softmax(1)
    network.train()
    assert torch.equal(slice_inference(network, content, (32, 32)), expected.argmax(1))
    assert torch.equal(slice_inference(network, content.numpy(), (32, 32)), expected.argmax(1))
    assert network.training
    windows = sliding_window(network, content[0], (32, 32), (16, 16), 3)
    torch.testing.assert_close(windows, expected[0])


def test_a_network_with_dropout_predicts_the_same_every_time():
    network = build_network("vnet", 1, 2, base_filters=2, dropout=0.5).train()
    content = volume(16, 16, 16)
    first, again = (sliding_window(network, content, (16, 16, 16), (8, 8, 8), 2) for _ in range(2))
    assert torch.equal(first, again) and network.training
