"""Batches as a function of (seed, iteration): order of the streams, epochs, padding, and what cannot be reached."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from sslbench.config.layers import load_recipe
from sslbench.config.recipe import AugmentSpec, TilesSpec
from sslbench.core.errors import UsageError
from sslbench.core.step import Batch
from sslbench.data.sampling import Sampler, TrainingSet, place_of, stretched, tile_boxes
from sslbench.data.store import OnDemand

CPU = torch.device("cpu")


def training_set(labeled, unlabeled, shape):
    """Cases whose image tells case and place, and whose label is a function of the image."""
    volumes = [np.arange(np.prod(shape)).reshape(shape) + 100_000.0 * n for n in range(labeled + unlabeled)]
    images = [volume[None].astype(np.float32) for volume in volumes]
    return TrainingSet(images, [(volume % 5).astype(np.uint8) for volume in volumes[:labeled]])


def sampler(data, patch, batch=(2, 2), epoch="unlabeled", weak=(), seed=0, order="passes", place=None):
    base = load_recipe("ssl4mis-acdc" if len(patch) == 2 else "phantom")
    changes = {
        "patch_size": list(patch),
        "batch": base.batch.model_copy(update={"labeled": batch[0], "unlabeled": batch[1], "order": order}),
        "schedule": base.schedule.model_copy(update={"epoch": epoch}),
        "augment": AugmentSpec(weak=list(weak)),
    }
    return Sampler(data, base.model_copy(update=changes), seed, CPU, place)


def volumes(labeled=3, unlabeled=4, **rest):
    return sampler(training_set(labeled, unlabeled, (12, 11, 9)), (8, 8, 4), weak=["rot90_flip"], **rest)


def slices(labeled=5, unlabeled=7, **rest):
    """One slice a case, so that items and cases have one number."""
    return sampler(training_set(labeled, unlabeled, (1, 6, 5)), (8, 8), weak=["ssl4mis"], **rest)


either = pytest.mark.parametrize("make", [volumes, slices], ids=["3-D", "2-D"])


def same(first, second):
    return (
        first.num_labeled == second.num_labeled
        and torch.equal(first.index, second.index)
        and torch.equal(first.origin, second.origin)
        and all(torch.equal(first.image[view], second.image[view]) for view in first.image)
        and all(torch.equal(first.label[view], second.label[view]) for view in first.label)
    )


def part(batch, rows):
    images = {view: image[rows] for view, image in batch.image.items()}
    labels = {view: label[rows] for view, label in batch.label.items()}
    return Batch(images, labels, 0, batch.index[rows], batch.origin[rows])


def picks(made, stream, iterations):
    return [made.batch(iteration, (stream,)).index.tolist() for iteration in iterations]


# ------------------------------------------------------------------------------------------------------- determinism


@either
def test_a_batch_follows_from_seed_and_iteration_alone(make):
    """Whatever was drawn before: a resumed job meets what it would have met."""
    first, second = make(seed=3), make(seed=3)
    for iteration in range(9):
        first.batch(iteration)
    for iteration in (7, 0, 40, 7):
        assert same(first.batch(iteration), second.batch(iteration))


@either
def test_other_seeds_and_iterations_give_other_batches(make):
    assert not same(make(seed=3).batch(5), make(seed=4).batch(5))
    assert not same(make(seed=3).batch(5), make(seed=3).batch(6))


@either
def test_default_generators_are_neither_asked_nor_moved(make):
    made = make()
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = made.batch(2)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    torch.manual_seed(1)
    assert same(made.batch(2), first)


@either
def test_a_stream_does_not_depend_on_whether_the_other_is_drawn(make):
    made = make()
    for iteration in (0, 3, 11):
        both = made.batch(iteration)
        assert both.num_labeled == 2
        assert same(part(both, slice(0, 2)), part(made.batch(iteration, ("labeled",)), slice(0, 2)))
        assert same(part(both, slice(2, 4)), part(made.batch(iteration, ("unlabeled",)), slice(0, 2)))
        assert same(made.batch(iteration, ("unlabeled", "labeled")), both), "labelled patches come first in any case"


@either
def test_the_streams_are_drawn_apart(make):
    made = make(labeled=6, unlabeled=6)
    batches = [made.batch(iteration) for iteration in range(9)]
    assert any(batch.index[:2].tolist() != (batch.index[2:] - 6).tolist() for batch in batches)
    if make is volumes:
        assert any(not torch.equal(batch.origin[:2], batch.origin[2:]) for batch in batches)


@either
def test_labeled_patches_do_not_depend_on_the_number_of_unlabeled_ones(make):
    few, many = make(unlabeled=4, epoch=5), make(unlabeled=9, epoch=5)
    for iteration in range(4):
        assert same(few.batch(iteration, ("labeled",)), many.batch(iteration, ("labeled",)))


# -------------------------------------------------------------------------------------------------------- what is seen


@either
def test_a_batch_has_the_shapes_of_the_contract(make):
    batch = make().batch(0, views=("raw", "weak"))
    size = (8, 8) if make is slices else (8, 8, 4)
    for view in ("raw", "weak"):
        assert (batch.image[view].shape, batch.image[view].dtype) == ((4, 1, *size), torch.float32)
        assert (batch.label[view].shape, batch.label[view].dtype) == ((4, *size), torch.int64)
    assert batch.index.shape == (4,) and batch.origin.shape == (4, len(size))


@either
def test_unlabeled_patches_have_no_label_anywhere(make):
    made = make()
    for iteration in range(12):
        batch = made.batch(iteration, views=("raw", "weak"))
        for label in batch.label.values():
            assert bool((label[:2] >= 0).all()) and bool((label[2:] == -1).all())
        assert set(batch.index[:2].tolist()) <= set(range(made.count["labeled"]))
        assert set(batch.index[2:].tolist()).isdisjoint(range(made.count["labeled"]))
    assert bool((made.batch(0, ("unlabeled",)).label["weak"] == -1).all())


def test_a_training_set_has_no_place_for_labels_of_unlabeled_cases():
    data = training_set(2, 5, (3, 4, 5))
    assert (data.num_labeled, len(data.labels), len(data.images)) == (2, 2, 7)
    for made in (sampler(data, (4, 4)), sampler(data, (2, 2, 2))):
        held = made._items.label.numel() if len(made.size) == 2 else sum(label.numel() for label in made._items.labels)
        padding = 0 if len(made.size) == 2 else held - 2 * 60
        assert held - padding == 2 * 60, "voxels of the two labelled cases and no more"


@either
def test_image_and_label_of_every_view_are_aligned(make):
    made = make()
    for iteration in range(12):
        batch = made.batch(iteration, ("labeled",), ("raw", "weak"))
        for view, image in batch.image.items():
            inside = image[:, 0] > 0  # what a rotation brings in from outside is 0 in both
            assert torch.equal(batch.label[view][inside], image[:, 0][inside].long() % 5)
            assert bool((batch.label[view][~inside] == 0).all())


@either
def test_views_show_the_same_patches_and_raw_ones_are_not_augmented(make):
    made = make()
    both = made.batch(4, views=("raw", "weak"))
    for view in ("raw", "weak"):
        alone = made.batch(4, views=(view,))
        assert list(alone.image) == [view]
        assert torch.equal(alone.image[view], both.image[view])
        assert torch.equal(alone.index, both.index) and torch.equal(alone.origin, both.origin)
    assert not torch.equal(both.image["raw"], both.image["weak"])
    if make is volumes:  # turned and flipped, no voxel is lost
        for raw, weak in zip(both.image["raw"], both.image["weak"], strict=True):
            assert torch.equal(raw.flatten().sort().values, weak.flatten().sort().values)


def test_a_raw_patch_is_the_volume_at_its_origin():
    data = training_set(2, 2, (12, 11, 9))
    batch = sampler(data, (8, 8, 4)).batch(3, views=("raw",))
    for row, (item, (x, y, z)) in enumerate(zip(batch.index.tolist(), batch.origin.tolist(), strict=True)):
        assert np.array_equal(batch.image["raw"][row, 0], data.images[item][0, x : x + 8, y : y + 8, z : z + 4])


def test_images_stored_in_half_precision_are_trained_on_in_fp32():
    data = training_set(1, 1, (12, 12, 12))
    halves = TrainingSet([(image / 1e6).astype(np.float16) for image in data.images], data.labels)
    for patch in ((8, 8), (4, 4, 4)):
        assert sampler(halves, patch).batch(0).image["weak"].dtype == torch.float32


# ------------------------------------------------------------------------------------------------- channels and views


@pytest.mark.parametrize(
    ("patch", "weak"), [((8, 8), "ssl4mis"), ((8, 8, 4), "rot90_flip"), ((8, 6, 4), "flips")], ids=str
)
def test_every_channel_is_cut_and_turned_alike(patch, weak):
    single = training_set(3, 4, (12, 11, 9))
    several = TrainingSet([np.concatenate([image, -image, 2 * image]) for image in single.images], single.labels)
    one, three = (sampler(data, patch, weak=[weak]) for data in (single, several))
    assert one.shapes == three.shapes
    for iteration in range(6):
        alone, batch = (made.batch(iteration, views=("raw", "weak")) for made in (one, three))
        for view in ("raw", "weak"):
            image = alone.image[view]
            assert torch.equal(batch.image[view], torch.cat([image, -image, 2 * image], 1))
            assert torch.equal(batch.label[view], alone.label[view])
    for alone, batch in zip(one.sweep(), three.sweep(), strict=True):
        assert torch.equal(batch.image["raw"][:, :1], alone.image["raw"])
        assert batch.image["raw"].shape[1] == 3 and torch.equal(batch.label["raw"], alone.label["raw"])


def test_flips_of_volumes_take_the_axes_of_a_slice():
    data = training_set(2, 2, (12, 11, 9))
    made = sampler(data, (5, 6, 4), weak=["flips"])
    seen = set()
    for iteration in range(30):
        batch = made.batch(iteration, views=("raw", "weak"))
        for raw, weak, label in zip(batch.image["raw"], batch.image["weak"], batch.label["weak"], strict=True):
            axes = next(axes for axes in ((), (2,), (3,), (2, 3)) if torch.equal(raw.flip(axes), weak))
            seen.add(axes)
            assert bool((label == -1).all()) or torch.equal(label, weak[0].long() % 5)
    assert len(seen) == 4


def with_views(weak, strong, patch=(8, 8), seed=0, unlabeled=4):
    """A sampler over images in [0, 1]."""
    data = training_set(3, unlabeled, (4, 9, 10))
    scaled = TrainingSet([(image % 1000 / 1000).astype(np.float32) for image in data.images], data.labels)
    made = sampler(scaled, patch, seed=seed, epoch=5)
    augmentation = AugmentSpec(weak=weak, strong=strong)
    return Sampler(scaled, made.recipe.model_copy(update={"augment": augmentation}), seed, CPU)


STRONG = pytest.mark.parametrize(
    ("patch", "strong"),
    [((8, 8), ["cutout", "jitter", "noise"]), ((8, 8, 3), ["contrast", "gamma", "blur", "noise"])],
    ids=str,
)


@STRONG
def test_the_strong_view_is_made_of_the_weak_one_and_moves_neither_of_the_others(patch, strong):
    made, plain = with_views(["rot90_flip"], strong, patch), with_views(["rot90_flip"], [], patch)
    for iteration in range(4):
        batch = made.batch(iteration, views=("raw", "weak", "strong"))
        before = plain.batch(iteration, views=("raw", "weak"))
        for view in ("raw", "weak"):
            assert torch.equal(batch.image[view], before.image[view])
            assert torch.equal(batch.label[view], before.label[view])
        assert not torch.equal(batch.image["strong"], batch.image["weak"])
        alone = made.batch(iteration, views=("strong",))
        assert list(alone.image) == ["strong"] and torch.equal(alone.image["strong"], batch.image["strong"])
        same_label = batch.label["strong"] == batch.label["weak"]
        assert bool((same_label | (batch.label["strong"] == 0)).all())
        assert bool((batch.label["strong"][2:] == -1).all())
        if "cutout" not in strong:
            assert bool(same_label.all())


@STRONG
def test_strong_views_follow_from_seed_stream_and_iteration(patch, strong):
    made, other = with_views([], strong, patch, unlabeled=9), with_views([], strong, patch)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    for iteration in (5, 2, 5):
        both = made.batch(iteration, views=("strong",))
        assert torch.equal(made.batch(iteration, views=("strong",)).image["strong"], both.image["strong"])
        for stream, rows in (("labeled", slice(0, 2)), ("unlabeled", slice(2, 4))):
            alone = made.batch(iteration, (stream,), ("strong",)).image["strong"]
            assert torch.equal(alone, both.image["strong"][rows])
        assert torch.equal(other.batch(iteration, ("labeled",), ("strong",)).image["strong"], both.image["strong"][:2])
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(made.batch(3, views=("strong",)).image["strong"], both.image["strong"])


def test_distortions_of_the_weak_view_come_after_its_geometry():
    noisy, plain = (with_views(["rot90_flip", *more], []) for more in ([{"name": "noise", "limit": None}], []))
    difference = noisy.batch(1).image["weak"] - plain.batch(1).image["weak"]
    assert float(difference.std()) == pytest.approx(0.1, rel=0.15)
    assert torch.equal(noisy.batch(1, views=("raw",)).image["raw"], plain.batch(1, views=("raw",)).image["raw"])


def test_the_precision_of_the_store_is_kept_on_the_device_and_batches_are_single():
    data = training_set(2, 2, (4, 9, 10))
    halves = TrainingSet([(image / 1e6).astype(np.float16) for image in data.images], data.labels)
    flat, solid = sampler(halves, (4, 4)), sampler(halves, (3, 4, 4))
    assert flat._items.image.dtype == torch.float16
    assert {image.dtype for image in solid._items.images} == {torch.float16}
    for made in (flat, solid):
        assert made.batch(0).image["weak"].dtype == torch.float32
        assert next(iter(made.sweep())).image["raw"].dtype == torch.float32


# ---------------------------------------------------------------------------------------------------------------- tiles


def tiles(stride=(4, 4), **fields):
    return TilesSpec(stride=list(stride), **fields)


def test_tiles_cover_an_image_and_the_last_row_and_column_are_shifted_inward():
    image = np.zeros((3, 1, 10, 13), np.float32)
    corners = [(box[1].start, box[2].start) for box in tile_boxes(image, (4, 4), tiles())]
    assert corners == [(top, left) for top in (0, 4, 6) for left in (0, 4, 8, 9)]
    assert [tuple(image[:, *box].shape) for box in tile_boxes(image, (4, 4), tiles())] == [(3, 1, 4, 4)] * 12


def test_an_image_smaller_than_a_tile_is_one():
    image = np.zeros((3, 2, 3, 9), np.float32)
    boxes = tile_boxes(image, (4, 4), tiles())
    assert [image[:, *box].shape for box in boxes] == [(3, 1, 3, 4)] * 6
    assert [box[0].start for box in boxes] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(("level", "kept"), [(199, True), (200, False), (230, False), (255, False)])
def test_a_tile_is_blank_by_the_mean_over_its_pixels_and_colours(level, kept):
    image = np.zeros((3, 1, 4, 8), np.float32)
    image[:, :, :, 4:] = (np.array([level - 20, level, level + 20]) / 255)[:, None, None, None]
    left = [box[2].start for box in tile_boxes(image.astype(np.float32), (4, 4), tiles(blank=(200, 255)))]
    assert left == ([0, 4] if kept else [0])


def tiled_sampler(data, spec, labeled=2):
    recipe = sampler(data, (4, 4), (labeled, 2)).recipe
    return Sampler(data, recipe.model_copy(update={"tiles": spec}), 0, CPU)


def test_tiles_are_the_items_and_none_is_resized():
    data = training_set(2, 3, (1, 10, 13))
    made = tiled_sampler(data, tiles())
    assert made.count == {"labeled": 24, "unlabeled": 36}
    corners = [(top, left) for top in (0, 4, 6) for left in (0, 4, 8, 9)]
    for iteration in range(10):
        batch = made.batch(iteration, views=("raw",))
        for row, item in enumerate(batch.index.tolist()):
            case, (top, left) = item // 12, corners[item % 12]
            where = (slice(top, top + 4), slice(left, left + 4))
            assert np.array_equal(batch.image["raw"][row, 0], data.images[case][(0, 0, *where)])
            truth = data.labels[case][(0, *where)] if row < 2 else -1
            assert bool((batch.label["raw"][row].numpy() == truth).all())


def test_tiles_are_stretched_to_their_own_extremes_where_asked():
    data = training_set(1, 1, (1, 8, 8))
    colour = TrainingSet([np.concatenate([image, 3 * image + 7]) / 1e6 for image in data.images], data.labels)
    made = tiled_sampler(colour, tiles(rescale=True), labeled=1)
    image = made.batch(0, views=("raw",)).image["raw"]
    flat = image.flatten(1)
    assert torch.equal(flat.amin(1), torch.zeros(3)) and torch.equal(flat.amax(1), torch.ones(3))
    assert bool((image[:, 0].flatten(1).amax(1) < 1).all()), "over all channels, not each by itself"
    assert stretched(np.full((3, 1, 2, 2), 0.7, np.float16)).any() == False  # noqa: E712
    assert stretched(np.array([[0.25, 0.5]], np.float16)).dtype == np.float16


def test_labeled_images_that_are_all_blank_are_told():
    data = training_set(1, 1, (1, 8, 8))
    white = TrainingSet([np.ones_like(image) for image in data.images], data.labels)
    with pytest.raises(UsageError, match="every tile of the labelled images is blank"):
        tiled_sampler(white, tiles(blank=(200, 255)))


# --------------------------------------------------------------------------------------------------- order and epochs


@either
@pytest.mark.parametrize("stream", ["labeled", "unlabeled"])
@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_every_item_appears_once_in_each_pass(make, stream, size):
    """An endless chain of permutations, whatever the batch; with 9 a batch spans several."""
    made = make(batch=(size, size))
    count = made.count[stream]
    chain = [item for batch in picks(made, stream, range(4 * count)) for item in batch]
    first = 0 if stream == "labeled" else made.count["labeled"]
    passes = [chain[start : start + count] for start in range(0, len(chain) - count + 1, count)]
    assert all(sorted(block) == list(range(first, first + count)) for block in passes)
    assert len({tuple(block) for block in passes}) > 1, "passes differ in order"


@pytest.mark.parametrize(
    ("labeled", "unlabeled", "batch", "epoch", "length"),
    [
        (4, 16, 2, "unlabeled", 16),  # GA: as many iterations as unlabelled cases
        (4, 16, 2, "unlabeled_pass", 8),  # DHC
        (4, 15, 2, "unlabeled_pass", 8),
        (32, 100, 12, "labeled_pass", 2),  # SSL4MIS
        (68, 100, 12, "labeled_pass", 5),
        (136, 100, 12, "labeled_pass", 11),
        (5, 20, 12, "labeled_pass", 1),
        (4, 16, 2, 7, 7),
        (4, 0, 2, "unlabeled", 1),
    ],
)
def test_how_long_an_epoch_is(labeled, unlabeled, batch, epoch, length):
    made = sampler(training_set(labeled, unlabeled, (1, 2, 2)), (4, 4), (batch, batch), epoch)
    assert made.epoch_length == length
    assert made.count == {"labeled": labeled, "unlabeled": unlabeled}


def test_slices_are_the_items_in_2d_and_cases_in_3d():
    data = training_set(2, 3, (5, 6, 6))
    assert sampler(data, (4, 4)).count == {"labeled": 10, "unlabeled": 15}
    assert sampler(data, (4, 4, 4)).count == {"labeled": 2, "unlabeled": 3}


def test_with_labeled_pass_both_streams_start_anew_at_every_epoch():
    """⌊14/4⌋ = 3 batches an epoch; the two slices left over are dropped, 12 of 40 unlabelled ones are drawn."""
    made = sampler(training_set(14, 40, (1, 2, 2)), (4, 4), (4, 4), "labeled_pass")
    assert made.epoch_length == 3
    for stream in ("labeled", "unlabeled"):
        drawn = [picks(made, stream, range(3 * epoch, 3 * epoch + 3)) for epoch in range(20)]
        flat = [[item for batch in epoch for item in batch] for epoch in drawn]
        assert all(len(set(epoch)) == 12 for epoch in flat), "without replacement inside an epoch"
        assert len({tuple(epoch) for epoch in flat}) == 20, "another permutation in every epoch"
        assert len({item for epoch in flat for item in epoch}) == (14 if stream == "labeled" else 40)


@pytest.mark.parametrize(
    ("kind", "length", "labelled", "unlabelled"),
    [
        ("unlabeled", 6, [4, 4, 4], [2] * 6),
        ("unlabeled_pass", 3, [2, 2, 2], [1] * 6),
        (4, 4, [3, 3, 2], [2, 2, 1, 1, 1, 1]),
    ],
    ids=["GA", "DHC", "a number"],
)
def test_a_repeated_list_fills_the_places_of_an_epoch_in_turn(kind, length, labelled, unlabelled):
    """GA's loader has 2·|U| places for either stream, DHC's |U|: item p mod n at place p, shuffled anew each epoch."""
    made = volumes(labeled=3, unlabeled=6, epoch=kind, order="repeated")
    assert made.epoch_length == length
    orders = []
    for stream, first, expected in (("labeled", 0, labelled), ("unlabeled", 3, unlabelled)):
        for number in range(3):
            epoch = picks(made, stream, range(number * length, (number + 1) * length))
            seen = [item for batch in epoch for item in batch]
            assert Counter(seen) == {first + item: times for item, times in enumerate(expected)}
            orders.append(seen)
    assert orders[0] != orders[1] != orders[2] and orders[3] != orders[4]


@pytest.mark.parametrize(("labeled", "unlabeled", "share"), [(4, 16, 7 / 31), (2, 18, 17 / 35)])
def test_how_often_a_batch_of_the_released_loader_holds_one_scan_twice(labeled, unlabeled, share):
    """GA on Synapse, at 20 % and 10 %: 23 % and 49 % of the batches; with passes none."""
    counts = {}
    for order in ("passes", "repeated"):
        made = volumes(labeled=labeled, unlabeled=unlabeled, order=order)
        batches = [made._order("labeled", iteration, 2) for iteration in range(200 * unlabeled)]
        counts[order] = sum(first == second for first, second in batches) / len(batches)
    assert counts["passes"] == 0
    assert counts["repeated"] == pytest.approx(share, abs=0.025)  # three standard deviations


def test_without_labeled_pass_no_unlabeled_item_comes_again_before_all_have_come():
    made = sampler(training_set(14, 40, (1, 2, 2)), (4, 4), (4, 4), "unlabeled")
    chain = [item for batch in picks(made, "unlabeled", range(20)) for item in batch]
    assert len(set(chain[:40])) == len(set(chain[40:])) == 40


# ------------------------------------------------------------------------------------------------------------ cutting


@pytest.mark.parametrize(
    ("shape", "patch"),
    [((10, 20, 20), (16, 16, 16)), ((16, 16, 16), (16, 16, 16)), ((17, 15, 30), (16, 16, 16)), ((5, 6, 7), (4, 8, 8))],
    ids=str,
)
def test_a_volume_that_does_not_exceed_the_patch_is_padded_by_the_papers_rule(shape, patch):
    """(P - S)//2 + 3 zeros on both sides, not less than none: a side somewhat larger than the patch is padded too."""
    data = training_set(1, 1, shape)
    pads = [max((size - side) // 2 + 3, 0) for side, size in zip(shape, patch, strict=True)]
    padded = [np.pad(image[0], [(pad, pad) for pad in pads]) for image in data.images]
    made = sampler(data, patch, (1, 1))
    for iteration in range(10):
        batch = made.batch(iteration, views=("raw",))
        for row, (item, origin) in enumerate(zip(batch.index.tolist(), batch.origin.tolist(), strict=True)):
            where = tuple(slice(start, start + size) for start, size in zip(origin, patch, strict=True))
            assert np.array_equal(batch.image["raw"][row, 0], padded[item][where])
        label = np.pad(data.labels[0], [(pad, pad) for pad in pads])
        where = tuple(slice(start, start + size) for start, size in zip(batch.origin[0].tolist(), patch, strict=True))
        assert np.array_equal(batch.label["raw"][0], label[where])


def test_a_volume_larger_than_the_patch_on_every_side_is_not_padded():
    made = sampler(training_set(1, 1, (17, 18, 40)), (16, 16, 16))
    assert made.shapes == ((17, 18, 40), (17, 18, 40))


def test_the_last_position_is_never_cut_and_all_others_are():
    made = sampler(training_set(1, 1, (9, 12, 13)), (8, 8, 8), (2, 0))
    origins = torch.cat([made.batch(iteration, ("labeled",)).origin for iteration in range(150)])
    assert [sorted(set(axis.tolist())) for axis in origins.T] == [[0], [0, 1, 2, 3], [0, 1, 2, 3, 4]]
    counts = Counter(origins[:, 1].tolist())
    assert min(counts.values()) > 45, "alike likely"


# -------------------------------------------------------------------------------------------------------------- sweep


@either
def test_a_sweep_shows_every_item_once_in_order_raw_and_without_labels_of_unlabeled_ones(make):
    made = make()
    seen = list(made.sweep())
    assert [batch.index.tolist() for batch in seen] == [[item] for item in range(sum(made.count.values()))]
    for batch in seen:
        (item,) = batch.index.tolist()
        labeled = item < made.count["labeled"]
        assert list(batch.image) == list(batch.label) == ["raw"] and batch.num_labeled == int(labeled)
        image, label = batch.image["raw"], batch.label["raw"]
        assert image.shape == (1, 1, *label.shape[1:]) and label.dtype == torch.int64
        if labeled:
            assert torch.equal(label, image[:, 0].long() % 5)
        else:
            assert bool((label == -1).all())


def test_a_sweep_shows_whole_volumes_and_resized_slices():
    data = training_set(2, 2, (12, 11, 9))
    for batch in sampler(data, (8, 8, 4)).sweep():
        assert np.array_equal(batch.image["raw"][0, 0], data.images[int(batch.index)][0])
    assert [tuple(batch.image["raw"].shape) for batch in sampler(data, (8, 6)).sweep()] == [(1, 1, 8, 6)] * 48


@pytest.mark.parametrize("shape", [(12, 11, 9), (5, 30, 4), (8, 8, 4)])
@pytest.mark.parametrize("dims", ["3-D", "2-D"])
def test_a_set_on_the_host_gives_the_same_batches(shape, dims):
    data = training_set(3, 4, shape)
    halves = [np.concatenate([image, -image]).astype(np.float64) % 1000 / 1000 for image in data.images]
    several = TrainingSet([image.astype(np.float16) for image in halves], data.labels)
    patch, weak = ((8, 8, 4), ["rot90_flip"]) if dims == "3-D" else ((7, 6), ["ssl4mis"])
    for cases in (data, several):
        there, here = (sampler(cases, patch, weak=weak, place=place) for place in ("device", "host"))
        assert (there.place, here.place) == ("device", "host") and there.bytes == here.bytes
        assert there.shapes == here.shapes
        for iteration in range(6):
            assert same(*(one.batch(iteration, views=("raw", "weak")) for one in (there, here)))
        assert all(same(one, other) for one, other in zip(there.sweep(), here.sweep(), strict=True))


def test_a_set_on_the_host_opens_the_cases_of_a_batch_alone():
    data, opened = training_set(2, 9, (12, 11, 9)), []
    images = OnDemand(11, lambda place: opened.append(place) or data.images[place])
    lazy = sampler(TrainingSet(images, data.labels), (8, 8, 4), place="host")
    opened.clear()
    batch = lazy.batch(0)
    assert opened == batch.index.tolist()


@pytest.mark.parametrize(("free", "place"), [(800, "device"), (799, "host")])
def test_a_set_stays_in_its_files_where_it_would_take_more_than_an_eighth_of_a_gpu(monkeypatch, free, place):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10_000))
    assert place_of(100, torch.device("cuda:0")) == place
    assert place_of(10**12, CPU) == "device"
