"""URPC, MC-Net and DCNet: the worked numbers of their sheet in whole training steps, what takes a gradient, holes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbench.config.job import Job
from sslbench.core.errors import UsageError
from sslbench.core.options import NoOptions
from sslbench.core.step import Batch, Step
from sslbench.losses import GADiceLoss
from sslbench.losses.base import Loss, Term
from sslbench.losses.dice import DiceLoss
from sslbench.losses.gradient_aware import GALoss, GAOptions
from sslbench.losses.metassl import MetaSSLLoss, MetaSSLOptions
from sslbench.losses.mutual import attention_transfer, decoupled_mse, decoupling_threshold, sharpen
from sslbench.methods.base import Method
from sslbench.methods.dcnet import DCNetOptions, DecoupledConsistency
from sslbench.methods.mcnet import MCNetOptions, MutualConsistency
from sslbench.methods.urpc import PyramidConsistency
from sslbench.networks import Features
from sslbench.networks.base import Decoder
from sslbench.networks.resize import Upsample
from sslbench.networks.unet import UNetDecoder
from tests.helpers.jobs import random_experiment, tiny_job, tiny_job_2d
from tests.helpers.methods import CE_A, CRITERIA, DICE_A, STATISTICS, A, B, Y, close, derivative, make_batch, make_step


class FixedDecoder(Decoder):
    """Gives three coarser maps of nothing and its logits (b, C, 2, 2), repeated to the batch."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.fixed, self.head = nn.Parameter(logits.clone()), nn.Identity()

    def forward(self, features: Features) -> list[Tensor]:
        logits = self.fixed.repeat(len(features.maps[0]) // len(self.fixed), 1, 1, 1)
        return [*features.maps[2::-1], logits]


class FixedNetwork(nn.Module):
    """An encoder that hands on the image, and a decoder with fixed logits; further ones are handed out in order."""

    def __init__(self, *outputs: Tensor) -> None:
        super().__init__()
        self.main, self.further = FixedDecoder(outputs[0]), [FixedDecoder(output) for output in outputs[1:]]

    @property
    def base(self) -> FixedNetwork:
        return self

    def other_upsamplings(self) -> tuple[str, ...]:
        return UNetDecoder.upsamplings[1:]

    def encode(self, x: Tensor) -> Features:
        return Features((x + 1,) * 5)

    def decode(self, features: Features) -> list[Tensor]:
        maps: list[Tensor] = self.main(features)
        return maps

    def head(self, content: Tensor) -> Tensor:
        return content


class FixedHeads(nn.Module):
    def __init__(self, outputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.outputs = nn.ParameterList(outputs)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [output.repeat(len(maps[-1]) // len(output), 1, 1, 1) for output in self.outputs]


class Build:
    """Hands out fixed decoders, or fixed heads."""

    def __init__(self, outputs: Sequence[Tensor]) -> None:
        self.outputs, self.network = outputs, FixedNetwork(*outputs)

    def __call__(self, key: str, name: str | None = None, **options: Any) -> Any:
        return self.network

    def decoder(self, like: Any, key: str, **options: Any) -> Any:
        return self.network.further[int(key.split("/")[1]) - 1]

    def module(self, key: str, make: Callable[[], Any]) -> Any:
        return FixedHeads([output.clone() for output in self.outputs[1:]])

    def ema(self, network: nn.Module) -> Any:
        raise AssertionError("not asked for")


def method_of(kind: Callable[..., Any], options: Any, outputs: Sequence[Tensor], loss: Loss | None = None) -> Any:
    return kind(options, Build(outputs), loss or Loss(NoOptions(), CRITERIA, STATISTICS), STATISTICS)


def terms_of(method: Method, step: Step | None = None, batch: Batch | None = None) -> dict[str, Tensor]:
    return method.training_step(batch or make_batch(), step or make_step())


def dice(logits: Tensor) -> float:
    return float(DiceLoss(1e-5)(logits, Y))


def ce(logits: Tensor, target: Tensor = Y) -> float:
    return float(F.cross_entropy(logits, target))


# ----------------------------------------------------------------------------------------------------------- URPC


def test_urpc() -> None:
    heads = [A, B, A / 2, 2 * B]
    terms = terms_of(method_of(PyramidConsistency, NoOptions(), heads))
    supervised = sum(0.5 * (ce(head) + dice(head)) for head in heads) / 4
    close(terms["consistency"], 0.089126036)
    close(terms["supervised"], supervised)
    close(terms["loss"], supervised + 0.1 * 0.089126036)


def test_urpc_predicts_with_the_finest_head() -> None:
    method = method_of(PyramidConsistency, NoOptions(), [A, B, B, B])
    method.net.forward = lambda x: method.net.head(method.net.decode(method.net.encode(x))[-1])
    assert torch.allclose(method.predict(torch.zeros(1, 1, 2, 2)), A.softmax(1).float())


def test_urpc_of_a_whole_network() -> None:
    """The labelled patches take no part in the consistency."""
    experiment = random_experiment(tiny_job_2d("urpc"))
    method, batch = experiment.method.eval(), experiment.sampler.batch(0)
    terms = terms_of(method, batch=batch)
    L, image = batch.num_labeled, batch.image["weak"]
    maps = method.net.decode(method.net.encode(image[L:]))
    heads = [method.net.head(maps[-1]), *method.pyramid(maps)]
    probabilities = torch.stack([head.softmax(1) for head in heads])
    mean, total = probabilities.mean(0), torch.zeros(())
    for p in probabilities:
        divergence = (mean * (mean.log() - p.log())).sum(1)
        trust = (-divergence).exp()
        total = total + (trust[:, None] * (mean - p) ** 2).mean() / trust.mean() + divergence.mean()
    assert torch.allclose(terms["consistency"], total / 4, rtol=1e-4)


# --------------------------------------------------------------------------------------------------------- MC-Net


def test_mcnet() -> None:
    terms = terms_of(method_of(MutualConsistency, MCNetOptions(), [A, B]))
    close(terms["consistency"], 0.242461622)
    close(terms["supervised"], DICE_A + dice(B))
    close(terms["loss"], DICE_A + dice(B) + 0.1 * 0.242461622)


def test_mcnet_of_more_decoders_sums_over_ordered_pairs() -> None:
    decoders = [A, B, A / 2, 2 * B]
    terms = terms_of(method_of(MutualConsistency, MCNetOptions(version="v3", supervised_weight=0.5), decoders))
    expected = 0.0
    for learner, peer in permutations([head.softmax(1).numpy() for head in decoders], 2):
        sharp = peer**10 / (peer**10 + (1 - peer) ** 10)
        expected += float(((learner - sharp) ** 2).mean())
    close(terms["consistency"], expected)
    supervised = sum(dice(logits) for logits in decoders)
    close(terms["loss"], 0.5 * supervised + 0.1 * expected)
    assert len(method_of(MutualConsistency, MCNetOptions(version="v2"), decoders).decoders) == 2


def test_mcnet_draws_all_patches() -> None:
    """With three of four patches alike in both decoders, the term is a quarter."""
    first, second = torch.cat([A, A, A, A]), torch.cat([A, A, B, A])
    terms = terms_of(method_of(MutualConsistency, MCNetOptions(), [first, second]), batch=make_batch(unlabeled=3))
    own = float(terms_of(method_of(MutualConsistency, MCNetOptions(), [A, A]))["consistency"].detach())
    close(terms["consistency"], 0.75 * own + 0.25 * 0.242461622)


@pytest.mark.parametrize(
    ("kind", "options"),
    [(PyramidConsistency, NoOptions()), (MutualConsistency, MCNetOptions(version="v2", temperature=0.5))],
)
def test_the_gradient_is_that_of_the_loss_all_of_it(kind: Callable[..., Any], options: Any) -> None:
    """Nothing is detached: every head and decoder moves with the others as with its own targets."""
    method = method_of(kind, options, [A, B, A / 2])
    step = make_step(consistency_weight=1.0)
    terms_of(method, step)["loss"].backward()
    learners = [parameter for parameter in method.parameters() if parameter.grad is not None]
    assert len(learners) == 3
    for parameter in learners:
        numeric = derivative(lambda: terms_of(method, step)["loss"], parameter)
        assert parameter.grad is not None and torch.allclose(parameter.grad, numeric, atol=1e-7)


def test_sharpening() -> None:
    p = torch.tensor([0.0, 0.3, 0.5, 1.0], requires_grad=True)
    sharp = sharpen(p)
    assert torch.allclose(sharp, torch.tensor([0, 0.3**10 / (0.3**10 + 0.7**10), 0.5, 1]))
    sharp.sum().backward()
    assert p.grad is not None and torch.isfinite(p.grad).all()
    assert float(p.grad[2]) == pytest.approx(10)  # 1/T at one half


# ---------------------------------------------------------------------------------------------------------- DCNet


@pytest.mark.parametrize(("iteration", "threshold"), [(0, 0.333342701), (14999, 0.473691881)])
def test_dcnet(iteration: int, threshold: float) -> None:
    method = method_of(DecoupledConsistency, DCNetOptions(), [A, B])
    terms = terms_of(method, make_step(iteration, 30000))
    close(method.threshold, threshold)
    close(terms["distance"], 0.077594511)
    close(terms["cross"], 1.281256199)
    close(terms["supervised"], DICE_A + dice(B))
    parts = 0.9 * 1000 * float(terms["attention"].detach()) + 0.1 * 1000 * 0.077594511 + 0.3 * 1.281256199
    close(terms["loss"], DICE_A + dice(B) + parts)


def test_dcnets_weights_are_options_and_one_switches_all_off() -> None:
    options = DCNetOptions(attention_weight=1, distance_weight=2, cross_weight=3, unlabeled_weight=0.5)
    terms = terms_of(method_of(DecoupledConsistency, options, [A, B]), make_step(0, 30000))
    expected = 0.9 * terms["attention"] + 0.1 * 2 * terms["distance"] + 3 * terms["cross"]
    assert torch.allclose(terms["loss"], terms["supervised"] + 0.5 * expected)
    silent = terms_of(method_of(DecoupledConsistency, DCNetOptions(unlabeled_weight=0), [A, B]))
    assert torch.equal(silent["loss"], silent["supervised"])


def test_the_threshold_follows_the_less_confident_decoder_and_is_state() -> None:
    t, surer = torch.tensor(0.4), torch.tensor(0.9)
    assert float(decoupling_threshold(t, [surer, torch.tensor(0.6)], 0.5)) == pytest.approx(0.5)
    assert float(decoupling_threshold(t, [torch.tensor(0.1), surer], 1.0)) == 0.25
    assert float(decoupling_threshold(t, [torch.tensor(0.99), torch.tensor(0.98)], 1.0)) == pytest.approx(0.95)
    method = method_of(DecoupledConsistency, DCNetOptions(), [A, B])
    assert float(method.state_dict()["threshold"]) == pytest.approx(1 / 3)


def test_where_nothing_is_sure_all_is_background_at_even_odds() -> None:
    method = method_of(DecoupledConsistency, DCNetOptions(threshold_range=(0.5, 0.95)), [0.01 * A, 0.01 * B])
    cross = terms_of(method)["cross"]
    close(cross, 2 * math.log(3))
    cross.backward()
    assert not method.net.main.fixed.grad.any()


def test_confident_decoders_teach_each_other_everywhere() -> None:
    """A voxel that neither is sure of has its own logits and label then, not zeros and background."""
    first = (40 * A).repeat(1, 1, 4, 4).float()
    first[..., 1, 1] = torch.tensor([0.0, 0.5, 1.0])
    second = first.flip(-1)
    second[..., 1, 1] = torch.tensor([0.0, 1.0, 0.5])
    assert all(0.95 < logits.softmax(1).amax(1).mean() < 1 for logits in (first, second))
    labels = torch.stack([torch.zeros(8, 8, dtype=torch.int64), torch.full((8, 8), -1)])
    batch = Batch({"weak": torch.zeros(2, 1, 8, 8)}, {"weak": labels}, 1, torch.arange(2), torch.zeros(2, 2))
    terms = terms_of(method_of(DecoupledConsistency, DCNetOptions(), [first, second]), make_step(9, 10), batch)
    close(terms["cross"], ce(first, second.argmax(1)) + ce(second, first.argmax(1)))


def test_the_smaller_probability_learns_from_the_larger_one() -> None:
    a, b = A.clone().requires_grad_(), B.clone().requires_grad_()
    sure = torch.zeros_like(A, dtype=torch.bool)
    sure[:, 1] = True
    decoupled_mse(a, b, sure).backward()
    p_a, p_b = A.softmax(1), B.softmax(1)
    for learner, own, peer in ((a, p_a, p_b), (b, p_b, p_a)):
        logits = learner.detach().clone().requires_grad_()
        q, target = (2 * logits).softmax(1), (2 * (B if learner is a else A)).softmax(1)
        entries = (own < peer) & ~sure
        (expected,) = torch.autograd.grad(((q - target)[entries] ** 2).sum() / A.numel(), logits)
        assert torch.allclose(learner.grad, expected) and learner.grad.abs().sum() > 0


def test_attention_transfer_from_its_definition() -> None:
    generator = np.random.default_rng(0)
    shapes = [((2, 3, 4, 4), (2, 5, 4, 4)), ((2, 6, 2, 2), (2, 7, 2, 2))]
    maps = [tuple(torch.tensor(generator.normal(size=shape)) for shape in pair) for pair in shapes]
    expected = 0.0
    for pair in maps:
        attention = [(content.numpy() ** 2).mean(1).reshape(2, -1) for content in pair]
        attention = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in attention]
        expected += ((attention[0] - attention[1]) ** 2).mean()
    learners, teachers = [pair[0].requires_grad_() for pair in maps], [pair[1].requires_grad_() for pair in maps]
    found = attention_transfer(learners, teachers)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-10)
    found.backward()
    assert all(content.grad is not None and content.grad.any() for content in learners)
    assert all(content.grad is None for content in teachers)
    assert float(attention_transfer(learners, [3 * content for content in learners]).detach()) < 1e-20


def test_attention_of_the_second_decoder_reaches_the_encoder_alone() -> None:
    experiment = random_experiment(tiny_job("dcnet"))
    method, batch = experiment.method.train(), experiment.sampler.batch(0)
    terms = terms_of(method, batch=batch)
    terms["attention"].backward()
    reached = {name.rsplit(".", 1)[0] for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached and all(name.startswith("net.encoder") for name in reached)
    features, maps, _ = method.eval().decoded(batch.image["weak"])
    expected = attention_transfer(features.maps[:4], maps[1][::-1])
    assert torch.allclose(terms_of(method, batch=batch)["attention"], expected)


# ---------------------------------------------------------------------------------------- losses, decoders, holes


@pytest.mark.parametrize(
    ("kind", "options"), [(MutualConsistency, MCNetOptions()), (DecoupledConsistency, DCNetOptions())]
)
def test_ga_takes_the_place_of_the_dice(kind: Callable[..., Any], options: Any) -> None:
    terms = terms_of(method_of(kind, options, [A, B], GALoss(GAOptions(), CRITERIA, STATISTICS)))
    close(terms["supervised"], float(GADiceLoss()(A, Y) + GADiceLoss()(B, Y)))


@pytest.mark.parametrize(
    ("kind", "options"), [(MutualConsistency, MCNetOptions(ce=True)), (DecoupledConsistency, DCNetOptions(ce=True))]
)
def test_cross_entropy_can_be_added(kind: Callable[..., Any], options: Any) -> None:
    terms = terms_of(method_of(kind, options, [A, B]))
    close(terms["supervised"], DICE_A + dice(B) + CE_A + ce(B))


def test_metassl_takes_each_ordered_pair() -> None:
    loss = MetaSSLLoss(MetaSSLOptions(), CRITERIA, STATISTICS)
    terms = terms_of(method_of(MutualConsistency, MCNetOptions(), [A, B], loss))
    expected = 0.0
    for learner, peer, key in ((A, B, "decoder/1"), (B, A, "net")):
        both = torch.cat([peer, peer]).softmax(1)
        term = Term(torch.cat([learner, learner]), both, "pseudo", "net", (key, both))
        expected += float(loss._quad_ce(term))
    close(terms["consistency"], expected)


@pytest.mark.parametrize(
    ("dims", "method", "kinds"),
    [
        ("2d", "mcnet", ["transposed"]),
        ("2d", "mcnet[version=v3]", ["transposed", "nearest", "bicubic"]),
        ("2d", "dcnet", ["transposed"]),
        ("3d", "dcnet", ["trilinear"]),
        ("3d", "mcnet_plus", ["trilinear", "nearest"]),
    ],
)
def test_further_decoders_upsample_in_other_ways(dims: str, method: str, kinds: list[str]) -> None:
    made = random_experiment((tiny_job if dims == "3d" else tiny_job_2d)(method)).method
    up = [decoder.up[0] for decoder in made.decoders]
    modes = [next((layer.mode for layer in one.modules() if isinstance(layer, Upsample)), "transposed") for one in up]
    assert modes == kinds
    assert made.net.other_upsamplings()[: len(kinds)] == tuple(kinds)


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (lambda: tiny_job("mcnet[version=v3]"), "4 decoders that upsample differently, and vnet knows 3"),
        (lambda: tiny_job_2d("mcnet", "focal"), "set method.ce=true"),
        (lambda: tiny_job_2d("dcnet", "focal[applies_to=label]"), "set method.ce=true"),
        (lambda: tiny_job_2d("mcnet", "ga_unlabeled_only"), "together they are the loss 'default'"),
        (
            lambda: tiny_job("urpc", set={"network.name": "diffusion_vnet"}),
            "diffusion_vnet does not say their widths: set network.name",
        ),
    ],
)
def test_combinations_without_meaning_are_refused(job: Callable[[], Job], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        job().resolved  # noqa: B018


@pytest.mark.parametrize(
    ("method", "loss"),
    [("mcnet[ce=true]", "focal"), ("dcnet", "focal"), ("mcnet", "metassl_released"), ("mcnet", "tversky")],
)
def test_combinations_that_change_something_are_not(method: str, loss: str) -> None:
    assert tiny_job_2d(method, loss).resolved


def test_recipes_know_their_schedules() -> None:
    acdc = Job(recipe="ssl4mis-acdc", method="mcnet", labeled="3 patients").resolved.recipe
    assert acdc.schedule.lr == "constant" and acdc.criteria.smooth == 1e-10 and acdc.ramp.weight == 0.1
    la = Job(recipe="metassl-la", method="mcnet", labeled="4 scans").resolved
    assert la.method["supervised_weight"] == 0.5 and la.recipe.ramp.weight == 1
    assert (la.recipe.ramp.length, la.recipe.schedule.iterations, la.recipe.schedule.lr) == (6000, 15000, "constant")
    urpc = Job(recipe="dhc-synapse", method="urpc", labeled="20%").resolved.recipe
    assert urpc.network.name == "unet3d" and "norm" not in urpc.network.options
    plus = Job(recipe="ssl4mis-acdc", method="mcnet[version=v2]", labeled="3 patients")
    assert plus.canonical().method == "mcnet_plus"
