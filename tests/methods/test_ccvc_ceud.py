"""CCVC and CEUD: worked numbers, what takes a gradient and what does not, and counts held against plain bookkeeping."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbench.config.recipe import CriteriaSpec
from sslbench.conformance.bench import Subject
from sslbench.core.options import NoOptions
from sslbench.core.step import Batch, Statistics, Step
from sslbench.data.sampling import window_starts
from sslbench.losses.base import Loss
from sslbench.losses.cross_entropy import cross_entropy
from sslbench.methods.ccvc import CCVCOptions, ConflictCrossView, MappedEncoder, conflict_weight, feature_discrepancy
from sslbench.methods.ceud import ConfidenceEstimation, History, ranking_loss
from sslbench.networks import Network, build_network
from sslbench.plugins.base import Attached, Plugin
from tests.helpers.methods import A, B, close, make_batch, make_step


def statistics_of(shapes: Sequence[tuple[int, ...]], size: tuple[int, ...], labeled: int) -> Statistics:
    counts = torch.ones(1, 3, dtype=torch.int64)
    return Statistics(counts, 1, 1, tuple(shapes), 3, size, (2, 2), labeled_items=labeled)


# ---------------------------------------------------------------------------------------------------------------- CCVC


class Features(nn.Module):
    """An encoder with one map, two channels of the same value."""

    channels = (2,)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [torch.ones(len(x), 2, 1, 1, dtype=torch.float64)]


class Fixed(Network):
    """Gives the same logits (1, C, 2, 2) for every patch."""

    dims = 2

    def __init__(self, logits: Tensor) -> None:
        nn.Module.__init__(self)
        self.encoder, self.fixed = Features(), nn.Parameter(logits.clone())
        self.options = cast(Any, SimpleNamespace(init="default"))

    def decode(self, features: Any) -> list[Tensor]:
        return [self.fixed.repeat(len(features.maps[-1]), 1, 1, 1)]

    def head(self, content: Tensor) -> Tensor:
        return content


def fixed_ccvc(a: Tensor, b: Tensor, **options: Any) -> ConflictCrossView:
    networks = {"a": Fixed(a), "b": Fixed(b)}

    class Build:
        def __call__(self, key: str) -> Network:
            return networks[key]

        def module(self, key: str, make: Callable[[], nn.Module]) -> nn.Module:
            return make().double()

    statistics = statistics_of([(2, 2)], (2, 2), labeled=1)
    loss = Loss(NoOptions(), CriteriaSpec(ce_weight=0.5, dice_weight=0.5, smooth=1e-5), statistics)
    return ConflictCrossView(CCVCOptions(**options), cast(Any, Build()), loss, statistics)


def test_ccvc_cross_is_the_worked_number_and_each_network_learns_from_the_other_alone() -> None:
    method = fixed_ccvc(A, B)
    terms = method.training_step(make_batch(), make_step(consistency_weight=0.25))
    close(terms["cross"], 1.054863930)
    mapped = cast(Any, method.b).encoder(A)[0][0, :, 0, 0].detach()
    close(terms["discrepancy"], float(1 + F.cosine_similarity(torch.ones(2), mapped, 0)))
    plain = 0.5 * (cross_entropy(A, B.argmax(1)) + cross_entropy(B, A.argmax(1)))
    assert float(plain) < 0.7  # without the weight it is another number
    unsupervised = terms["cross"].detach() + terms["discrepancy"].detach()
    close(terms["loss"], float(terms["supervised"].detach() + 0.25 * unsupervised))
    a, b = cast(Fixed, method.a).fixed, cast(Fixed, method.b).fixed
    found = torch.autograd.grad(terms["cross"], [a, b])
    weights = (conflict_weight(A, B), conflict_weight(B, A))
    for logits, target, weight, gradient in zip((a, b), (B, A), weights, found, strict=True):
        own = 0.5 * cross_entropy(logits, target.argmax(1), voxel_weight=weight)
        assert torch.allclose(torch.autograd.grad(own, logits)[0], gradient)


def test_ccvc_supervised_term_is_the_mean_of_both_networks() -> None:
    terms = fixed_ccvc(A, B).training_step(make_batch(), make_step())
    alone = [fixed_ccvc(logits, logits).training_step(make_batch(), make_step())["supervised"] for logits in (A, B)]
    close(terms["supervised"], float(torch.stack(alone).detach().mean()))


def test_a_conflict_weighs_more_only_where_the_teaching_network_is_sure() -> None:
    logits = torch.tensor([[[1.0, 1.0, 1.0, 1.0]], [[0.0, 0.0, 0.0, 0.0]]]).movedim(0, 1)
    peer = torch.tensor([[[0.0, -2.0, 3.0, -0.5]], [[0.1, -1.0, 2.0, 0.0]]]).movedim(0, 1)
    # They differ on voxels 0, 1 and 3; the largest logits of the peer are 0.1, -1, 3 and 0.
    assert conflict_weight(logits, peer).flatten().tolist() == [2, 1, 1, 1]
    assert conflict_weight(logits, peer, 5, -1.5).flatten().tolist() == [5, 5, 1, 5]


def test_discrepancy_is_two_for_the_same_features_and_each_side_has_half_its_gradient() -> None:
    a = torch.tensor([[3.0, 0.0], [0.0, 4.0]], dtype=torch.float64).view(2, 2, 1, 1).requires_grad_()
    same, opposite = feature_discrepancy(a, 7 * a), feature_discrepancy(a, -a)
    close(same, 2.0)
    close(opposite, 0.0)
    b = torch.tensor([[0.0, 1.0], [3.0, 4.0]], dtype=torch.float64).view(2, 2, 1, 1).requires_grad_()
    value = feature_discrepancy(a, b)
    close(value, 1 + (0 + 0.8) / 2)
    found = torch.autograd.grad(value, [a, b])
    plain = torch.autograd.grad(F.cosine_similarity(a, b).mean(), [a, b])
    for gradient, whole in zip(found, plain, strict=True):
        assert whole.abs().sum() > 0 and torch.allclose(gradient, 0.5 * whole)


def test_ccvc_maps_the_bottleneck_of_the_second_network_alone() -> None:
    network = build_network("unet", 1, 4)
    before = sum(parameter.numel() for parameter in network.parameters())
    network.encoder = MappedEncoder(network)
    after = sum(parameter.numel() for parameter in network.parameters())
    assert (before, after - before) == (1_813_764, 65_536)
    assert network.channels == (16, 32, 64, 128, 256)


@pytest.mark.parametrize("dims", ["2d", "3d"])
def test_ccvc_decodes_and_compares_the_mapped_bottleneck(dims: Any) -> None:
    subject = Subject("ccvc", dims=dims)
    method, batch = cast(Any, subject.sure().eval()), subject.batch(subject.phases()[0])
    assert not any(isinstance(module, MappedEncoder) for module in method.a.modules())
    image = batch.image["weak"]
    with torch.no_grad():
        a, b = method.predict(image, "a"), method.predict(image, "b")
        method.b.encoder.mapping.weight.zero_()
        assert torch.equal(method.predict(image, "a"), a)
        assert not torch.equal(method.predict(image, "b"), b)
        terms = method.training_step(batch, subject.step(subject.phases()[0]))
    close(terms["discrepancy"], 1.0)  # a vector of zeros has the cosine 0 with everything


class Seeing(Plugin):
    """Remembers which bottleneck it saw."""

    def prior(self, features: Any) -> None:
        self.seen = features.maps[-1]


def test_a_plugin_of_ccvc_sees_the_mapped_bottleneck() -> None:
    network = build_network("unet", 1, 4).eval()
    plugin = Seeing(NoOptions(), network, statistics_of([(16, 16)], (16, 16), labeled=1))
    attached = Attached(network, plugin)
    x = torch.rand(2, 1, 16, 16)
    plain = attached.encode(x).maps[-1]
    encoder = attached.base.encoder = MappedEncoder(attached.base)
    assert torch.equal(attached.encode(x).maps[-1], plugin.seen)
    assert torch.allclose(plugin.seen, encoder.mapping(plain)) and not torch.allclose(plugin.seen, plain)


# ---------------------------------------------------------------------------------------------------------------- CEUD


def test_ranking_loss_by_hand() -> None:
    share = torch.tensor([[0.0, 1.0], [1.0, 3.0]])
    kappa = torch.tensor([[0.9, 0.5], [0.6, 0.8]], requires_grad=True)
    # In the ring 2, 0, 3, 1: c is 1/3, 0, 1, 1/3 and κ .6, .9, .8, .5; the pairs with the one before give
    # 0 (the same c), 1/3 + .3 (wrongly ranked), 1 + .1 (wrongly), 2/3 - .3 (rightly, by too little).
    value = ranking_loss(kappa, share, torch.tensor([2, 0, 3, 1]))
    assert float(value) == pytest.approx((0 + 1 / 3 + 0.3 + 1.1 + 2 / 3 - 0.3) / 4)
    value.backward()
    assert kappa.grad is not None
    assert kappa.grad.flatten().tolist() == pytest.approx([0.5, 0.25, -0.25, -0.5])


def test_ranking_loss_is_the_sum_over_pairs_and_does_not_see_the_scale_of_counts() -> None:
    random = np.random.default_rng(0)
    share, kappa, order = random.integers(0, 5, 40) / 4, random.random(40), random.permutation(40)
    c = share / share.max()
    pairs = [(order[n], order[n - 1]) for n in range(40)]
    expected = np.mean([max(0, -np.sign(c[j] - c[i]) * (kappa[j] - kappa[i]) + abs(c[j] - c[i])) for j, i in pairs])
    tensors = [torch.from_numpy(part).view(2, 4, 5) for part in (kappa, share)]
    for scale, shift in ((1, 0), (7, 2)):
        found = ranking_loss(tensors[0], scale * tensors[1] + shift, torch.from_numpy(order))
        assert float(found) == pytest.approx(expected)


def test_ranking_loss_is_nothing_where_all_counts_are_the_same_or_confidences_lie_far_enough() -> None:
    kappa = torch.rand(2, 3, 3, requires_grad=True)
    order = torch.randperm(18)
    flat = ranking_loss(kappa, torch.full((2, 3, 3), 0.7), order)
    flat.backward()
    assert float(flat) == 0 and kappa.grad is not None and not kappa.grad.any()
    share = torch.arange(18.0).view(2, 3, 3)
    assert float(ranking_loss(share / 17 * 2, share, order)) == pytest.approx(0, abs=1e-6)


class Books:
    """What `History` counts, kept voxel by voxel in lists."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, ...], list[int]] = {}

    def visit(self, item: int, origin: Sequence[int], predicted: np.ndarray) -> None:
        for place in np.ndindex(predicted.shape):
            voxel = (item, *(begin + step for begin, step in zip(origin, place, strict=True)))
            self.seen.setdefault(voxel, [0]).append(int(predicted[place]))

    def consistency(self, item: int, origin: Sequence[int], size: Sequence[int]) -> np.ndarray:
        shares = np.zeros(size)
        for place in np.ndindex(*size):
            voxel = (item, *(begin + step for begin, step in zip(origin, place, strict=True)))
            history = self.seen.get(voxel, [0])
            shares[place] = sum(a == b for a, b in itertools.pairwise(history)) / max(len(history) - 1, 1)
        return shares

    def correctness(self, item: int, origin: Sequence[int], truth: np.ndarray) -> np.ndarray:
        shares = np.zeros(truth.shape)
        for place in np.ndindex(truth.shape):
            voxel = (item, *(begin + step for begin, step in zip(origin, place, strict=True)))
            history = self.seen.get(voxel, [0])[1:]
            shares[place] = sum(one == truth[place] for one in history) / max(len(history), 1)
        return shares


@pytest.mark.parametrize(
    ("shapes", "size"), [(((9, 9), (5, 7), (4, 4)), (3, 4)), (((3, 4, 3), (5, 3, 3), (3, 3, 4)), (2, 3, 3))]
)
def test_counts_over_many_steps_are_those_of_plain_books(shapes: Any, size: tuple[int, ...]) -> None:
    random, books = np.random.default_rng(1), Books()
    history = History(statistics_of(shapes, size, labeled=1))
    sides = [size if len(size) == 2 else shape for shape in shapes]  # slices are resized to the patch
    truth = random.integers(0, 3, sides[0])
    for _ in range(12):
        items = [0, int(random.integers(1, 3))]
        places = [
            (item, [int(random.integers(side - patch + 1)) for side, patch in zip(sides[item], size, strict=True)])
            for item in items
        ]
        predicted = random.integers(0, 3, (2, *size))
        boxes = [tuple(slice(b, b + s) for b, s in zip(origin, size, strict=True)) for _, origin in places]
        true = truth[boxes[0]]
        right = torch.from_numpy(predicted[:1] == true)
        history.count(places, torch.from_numpy(predicted), right)
        for place, one in zip(places, predicted, strict=True):
            books.visit(*place, one)
        expected = np.stack([books.consistency(*place, size) for place in places])
        assert np.allclose(history.consistency(places).numpy(), expected)
        assert np.allclose(history.correctness(places[:1])[0].numpy(), books.correctness(*places[0], true))


def test_counts_are_bytes_that_never_overflow() -> None:
    history = History(statistics_of([(2, 2)], (2, 2), labeled=1))
    assert {buffer.dtype for buffer in history.state_dict().values()} == {torch.uint8}
    place = [(0, (0, 0))]
    always, changing = 0, 1
    for number in range(2000):
        predicted = torch.tensor([[[1, number % 2], [1, 1]]])
        right = torch.tensor([[[True, number % 2 == 0], [number >= 1500, False]]])
        history.count(place, predicted, right)
        if number == 254:
            assert int(history.visits.values) == 255
        if number == 255:
            assert int(history.visits.values) == 128
    shares, same = history.correctness(place).flatten(), history.consistency(place).flatten()
    assert float(shares[always]) == 1 and abs(float(shares[changing]) - 0.5) < 0.01 and float(shares[3]) == 0
    assert float(shares[2]) > 0.9  # right for the last 500 of 2000 visits: what is long ago weighs less
    assert float(same[always]) > 0.99 and float(same[changing]) < 0.01


def test_an_item_twice_in_a_batch_is_counted_once_by_the_later_patch() -> None:
    history = History(statistics_of([(3, 2, 2)], (2, 2, 2), labeled=1))
    places = [(0, (0, 0, 0)), (0, (1, 0, 0))]
    predicted = torch.stack([torch.full((2, 2, 2), 1), torch.full((2, 2, 2), 2)])
    history.count(places, predicted, torch.ones(2, 2, 2, 2, dtype=torch.bool))
    assert history.visits.values.tolist() == [1] * 12
    assert history.before.values.view(3, 4)[:, 0].tolist() == [1, 2, 2]


def ceud(dims: Any, spelling: str = "ceud") -> tuple[Subject, ConfidenceEstimation, Batch, Step]:
    subject = Subject(spelling, dims=dims)
    phase = subject.phases()[0]
    return (
        subject,
        cast(ConfidenceEstimation, subject.sure()),
        subject.batch(phase),
        subject.step(phase, consistency_weight=0.5),
    )


@pytest.mark.parametrize("dims", ["2d", "3d"])
def test_ceud_ranks_patches_as_cut_in_evaluation_mode_and_supervises_the_augmented_ones(dims: Any) -> None:
    _, method, batch, step = ceud(dims)
    L, raw = batch.num_labeled, batch.image["raw"]
    norm = cast(Any, method.net).encoder.blocks[0][1]
    before = norm.running_mean.clone()
    terms = {name: term.detach() for name, term in method.train().training_step(batch, step).items()}
    assert all(module.training for module in method.net.modules())

    # The first pass has moved the batch statistics, the second one took them.
    with torch.no_grad():
        confidence, predicted = method.net.eval()(raw).softmax(1).max(1)
    right = predicted[:L] == batch.label["raw"][:L]
    same = predicted == 0  # before its first visit a voxel counts as background
    assert right.any() and not right.all() and same.any() and not same.all()
    for name, kappa, counted in (("correctness", confidence[:L], right), ("consistency", confidence, same)):
        order = torch.randperm(counted.numel(), generator=step.generator(f"rank/{name}"))
        close(terms[name], float(ranking_loss(kappa, counted.float(), order)))
    close(terms["loss"], float(terms["supervised"] + 0.5 * terms["correctness"] + 0.1 * 0.5 * terms["consistency"]))

    with torch.no_grad():
        mean = cast(Any, method.net).encoder.blocks[0][0](batch.image["weak"][:L]).mean((0, *range(2, raw.ndim)))
    assert torch.allclose(norm.running_mean, 0.9 * before + 0.1 * mean, atol=1e-6)


@pytest.mark.parametrize("dims", ["2d", "3d"])
def test_ceud_counts_the_items_of_the_batch_where_they_were_cut(dims: Any) -> None:
    subject, method, batch, step = ceud(dims)
    method.training_step(batch, step)
    visited = torch.zeros_like(method.history.visits.values)
    for item, origin in zip(batch.index.tolist(), batch.origin.tolist(), strict=True):
        start = method.history.visits.starts[item]
        shape = method.history.visits.shapes[item]
        whole = visited[start : start + int(np.prod(shape))].view(*shape)
        whole[tuple(slice(b, b + s) for b, s in zip(origin, method.statistics.patch_size, strict=True))] = 1
    assert torch.equal(method.history.visits.values, visited)
    assert len(method.history.right.shapes) == subject.built.sampler.count["labeled"]
    again = method.history.consistency(list(zip(batch.index.tolist(), batch.origin.tolist(), strict=True)))
    method.training_step(batch, step)
    twice = method.history.consistency(list(zip(batch.index.tolist(), batch.origin.tolist(), strict=True)))
    assert float(twice.mean()) > float(again.mean())  # the network has not moved: it repeats itself


@pytest.mark.parametrize("dims", ["2d", "3d"])
def test_a_sweep_counts_every_voxel_and_steps_then_count_none(dims: Any) -> None:
    subject, method, batch, step = ceud(dims, "ceud[sweep_every=2]")
    method.train().training_step(batch, step)
    assert not method.history.visits.values.any()
    method.after_step(replace(step, last_of_epoch=True, epoch=0))
    method.after_step(replace(step, last_of_epoch=False, epoch=1))
    assert not method.history.visits.values.any()
    method.after_step(replace(step, last_of_epoch=True, epoch=1))
    assert all(module.training for module in method.modules())
    size = method.statistics.patch_size
    for item, whole in enumerate(subject.built.sampler.sweep()):
        image, label = whole.image["raw"], whole.label["raw"]
        starts = list(itertools.product(*map(window_starts, image.shape[2:], size, size)))
        assert len(starts) == (1 if dims == "2d" else 8)
        assert (method.history.visits.read([(item, start) for start in starts]) >= 1).all()
        if item < method.statistics.labeled_items:
            with torch.no_grad():
                corner = image[(..., *(slice(side) for side in size))]
                predicted = method.eval().net(corner).argmax(1)
            found = method.history.right.read([(item, (0,) * len(size))])
            inner = (..., *(slice(side - 16) for side in size)) if dims == "3d" else ...
            once = method.history.visits.read([(item, (0,) * len(size))]) == 1
            expected = (predicted == label[(..., *(slice(side) for side in size))]).to(torch.uint8)
            assert torch.equal((found * once)[inner], (expected * once)[inner])


def test_ceud_takes_up_its_counts_where_it_was_stopped() -> None:
    subject = Subject("ceud[sweep_every=1]", dims="3d", set={"schedule.epoch": 2}, iterations=3)
    straight, stopped = subject.trained, subject.train([2])
    names = [name for name in straight.after if name.startswith("history.")]
    assert len(names) == 4
    for name in names:
        assert straight.after[name].any() and torch.equal(straight.after[name], stopped.after[name])


@pytest.mark.parametrize("sweep_every", [0, 1])
def test_ceud_counts_volumes_that_are_smaller_than_a_patch(sweep_every: int) -> None:
    # The random volumes measure 20 x 18 x 36: every side is padded, and places count from the padding's corner.
    large = {"patch_size": [32, 32, 48], "method.sweep_every": sweep_every}
    subject = Subject("ceud", dims="3d", set={**large, "inference.stride": [16, 16, 32]}, iterations=5)
    method = cast(ConfidenceEstimation, subject.trained.method)
    assert subject.trained.records[-1]["iteration"] == 5
    assert all(
        side >= patch for shape in method.statistics.shapes for side, patch in zip(shape, (32, 32, 48), strict=True)
    )
    assert int(method.history.visits.values.max()) >= 1
