"""SS-Net: a whole step on a small network against the definition, what the gradient reaches, what is remembered."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sslbench.config.job import Job
from sslbench.config.recipe import CriteriaSpec
from sslbench.core.errors import UsageError
from sslbench.core.options import NoOptions
from sslbench.core.step import Batch, Statistics, Step
from sslbench.losses import DiceLoss, vat_loss
from sslbench.losses.base import Loss
from sslbench.losses.cross_entropy import cross_entropy
from sslbench.methods.ssnet import Heads, SSNet, SSNetOptions
from sslbench.networks import Features, build_network
from tests.helpers.dispatch import Calls
from tests.helpers.prototypes import by_pairs, one_by_one

C, L = 3, 2


class Small(nn.Module):
    """Image → embedding of 4 channels → logits, with batch norm on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.LeakyReLU())
        self.decoder = nn.Module()
        self.decoder.head = nn.Conv2d(4, C, 1)

    def encode(self, x: Tensor) -> Features:
        return Features((self.embed(x),))

    def decode(self, features: Features) -> list[Tensor]:
        return [features.maps[-1]]

    def head(self, content: Tensor) -> Tensor:
        return self.decoder.head(content)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.decode(self.encode(x))[-1])


class Build:
    def __call__(self, key: str, **options: Any) -> Any:
        return Small()

    def module(self, key: str, make: Any) -> Any:
        return make()


def make_method(**options: Any) -> SSNet:
    torch.manual_seed(4)
    statistics = Statistics(torch.ones(1, C, dtype=torch.int64), 1, 1, ((8, 8),), C, (8, 8), (L, 2))
    loss = Loss(NoOptions(), CriteriaSpec(smooth=1e-10), statistics)
    method = SSNet(SSNetOptions(**options), Build(), loss, statistics)  # type: ignore[arg-type]
    head = method.net.decoder.head  # such that all classes are predicted
    head.weight.data, head.bias.data = 5 * (head.weight.data - head.weight.data.mean(1, keepdim=True)), torch.zeros(C)
    return method.train()


def make_step(consistency_weight: float = 0.3) -> Step:
    def nothing(*_: Any) -> Any:
        return None

    def generators(stream: str, device: Any) -> torch.Generator:
        return torch.Generator().manual_seed(len(stream))

    return Step(1, 10, 1, 2, False, "train", torch.tensor(consistency_weight), generators, nothing, nothing)


def make_batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(4, 1, 8, 8, generator=generator)
    label = torch.randint(0, C, (4, 8, 8), generator=generator)
    label[L:] = -1
    return Batch({"weak": image}, {"weak": label}, L, torch.arange(4), torch.zeros(4, 2))


def rows(embedding: Tensor) -> Tensor:
    return embedding.permute(0, 2, 3, 1).reshape(-1, embedding.shape[1])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ce": True, "distance": "pooled_dice", "eps": 10.0, "memory": 4},
        {"ssnet_memory_weights": True, "memory": 4, "distance": "linear_dice"},
    ],
)
def test_a_step_is_the_sum_of_its_terms(options: dict[str, Any]) -> None:
    method, batch, step = make_method(**options), make_batch(), make_step()
    twin, heads = copy.deepcopy(method.net), copy.deepcopy(method.heads)
    image, labels = batch.image["weak"], batch.label["weak"]
    terms = method.training_step(batch, step)

    embedding = twin.embed(image)
    logits = twin.head(embedding)
    predicted = logits.argmax(1)
    supervised = DiceLoss(1e-10)(logits[:L], labels[:L])
    if options.get("ce"):
        supervised = supervised + cross_entropy(logits[:L], labels[:L])
    # The bank: voxel by voxel, projected in evaluation mode, scored together in training mode.
    heads.eval()
    candidates: list[list[Tensor]] = [[] for _ in range(C)]
    for row, truth, guess in zip(rows(embedding[:L]), labels[:L].flatten(), predicted[:L].flatten(), strict=True):
        if truth == guess and truth > 0:
            candidates[truth].append(heads.projection(row[None].detach())[0].detach())
    memory = []
    heads.train()
    for c, (found, selector) in enumerate(zip(candidates, one_by_one(heads.selectors), strict=True)):
        scores = selector(torch.stack(found)).flatten().tolist() if found else []
        kept = [found[place] for place in sorted(range(len(found)), key=scores.__getitem__)][: method.options.memory]
        assert (len(kept) > 1) is (c > 0), "the example has candidates of every class but the background"
        memory.append(torch.stack(kept) if kept else torch.zeros(0, 8))
    own, other = one_by_one(heads.selectors), one_by_one(heads.memory_selectors)
    contrast = torch.zeros(())
    for part, classes in ((embedding[:L], labels[:L]), (embedding[L:], predicted[L:])):
        features = heads.prediction(heads.projection(rows(part)))
        weights = other if options.get("ssnet_memory_weights") else None
        contrast = contrast + by_pairs(features, classes.flatten(), memory, own, weights)
    noise = torch.rand(image.shape, generator=make_step().generator("vat-noise")) - 0.5
    vat = vat_loss(twin, image, 10, options.get("eps", 6), noise=noise, distance=options.get("distance", "dice"))

    torch.testing.assert_close(terms["supervised"], supervised)
    torch.testing.assert_close(terms["contrast"], contrast)
    torch.testing.assert_close(terms["vat"], vat)
    torch.testing.assert_close(terms["loss"], supervised + 0.3 * (vat + 0.1 * contrast))
    # Recomputed behind the forward pass, the gradient is that of the definition and no statistics move twice.
    statistics = copy.deepcopy(dict(method.named_buffers()))
    (supervised + 0.3 * (vat + 0.1 * contrast)).backward()
    terms["loss"].backward()
    for name, parameter in twin.named_parameters():
        torch.testing.assert_close(method.net.get_parameter(name).grad, parameter.grad, rtol=1e-4, atol=1e-6)
    for name, parameter in [*heads.projection.named_parameters(), *heads.prediction.named_parameters()]:
        side = "projection" if parameter is heads.projection.get_parameter(name) else "prediction"
        found_grad = method.heads.get_parameter(f"{side}.{name}").grad
        torch.testing.assert_close(found_grad, parameter.grad, rtol=1e-4, atol=1e-6)
    for name, buffer in method.named_buffers():
        assert torch.equal(buffer, statistics[name]), name
    for name, buffer in twin.named_buffers():
        torch.testing.assert_close(method.net.get_buffer(name), buffer)
    for side in (heads.projection, heads.prediction):
        name = "projection" if side is heads.projection else "prediction"
        torch.testing.assert_close(method.heads.get_submodule(name)[1].running_var, side[1].running_var)


def test_the_clean_pass_counts_in_the_batch_statistics_and_the_noisy_ones_do_not() -> None:
    method = make_method()
    method.training_step(make_batch(), make_step())["loss"].backward()
    assert int(method.net.embed[1].num_batches_tracked) == 2
    assert int(method.heads.projection[1].num_batches_tracked) == 2  # labelled and unlabelled voxels apart


@pytest.mark.parametrize("two_sided", [False, True])
def test_what_the_contrast_reaches(two_sided: bool) -> None:
    method = make_method(ssnet_memory_weights=two_sided)
    method.training_step(make_batch(), make_step())["contrast"].backward()
    reached = {name for name, parameter in method.named_parameters() if parameter.grad is not None}
    # Not the head, whose prediction only says which class a voxel is drawn to; the selectors, which weigh it.
    assert {name for name in reached if name.startswith("net")} == {
        f"net.embed.{name}" for name, _ in method.net.embed.named_parameters()
    }
    sides = {name.split(".")[1] for name in reached if name.startswith("heads")}
    assert sides == {"projection", "prediction", "selectors"} | ({"memory_selectors"} if two_sided else set())
    assert all(method.get_parameter(name).grad.isfinite().all() for name in reached)
    selectors = method.heads.selectors.weight.grad.flatten(1).abs().sum(1)
    assert selectors[0] == 0 and (selectors[1:] > 0).all(), "background has no prototypes"


def test_the_inner_step_of_the_noise_leaves_no_gradient() -> None:
    method = make_method()
    method.training_step(make_batch(), make_step())
    assert all(parameter.grad is None for parameter in method.parameters())


def test_the_step_keeps_its_mode_and_forgets_no_class() -> None:
    method, batch = make_method(), make_batch()
    method.training_step(batch, make_step())
    assert method.heads.training and method.heads.projection[1].training
    kept = method.memory.vectors.clone()
    assert not kept[0].any() and kept[1].any() and kept[2].any()
    batch.label["weak"][:L][batch.label["weak"][:L] == 2] = 0
    method.training_step(batch, make_step())
    assert torch.equal(method.memory.vectors[2], kept[2]) and not torch.equal(method.memory.vectors[1], kept[1])
    batch.label["weak"][:L] = 0
    terms = method.eval().training_step(batch, make_step())
    assert not method.heads.training and terms["loss"].isfinite()


def test_the_heads_keep_nothing_for_the_backward_pass_but_the_embedding() -> None:
    method = make_method()
    embedding, kept = torch.randn(2, 4, 16, 16, requires_grad=True), []
    labels = torch.randint(0, C, (2, 16, 16))
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        method._contrast(embedding, labels)
    assert sum(kept) <= embedding.numel() + labels.numel()


def test_a_step_never_waits_for_the_device() -> None:
    method = make_method(ssnet_memory_weights=True)
    with Calls():
        method.training_step(make_batch(), make_step())["loss"].backward()


def test_the_networks_are_as_large_as_published() -> None:
    with torch.device("meta"):
        unet, vnet = build_network("unet", 1, 4), build_network("vnet", 1, 14, base_filters=32)
        flat, deep = [unet, Heads(16, 4)], [vnet, Heads(32, 14)]
    assert [sum(p.numel() for part in net for p in part.parameters()) for net in (flat, deep)] == [
        1_826_828,
        37_914_858,
    ]


def test_a_loss_that_changes_cross_entropy_alone_needs_it() -> None:
    def job(loss: str, recipe: str = "ssl4mis-acdc-short", **options: Any) -> Job:
        return Job(recipe=recipe, method="ssnet", loss=loss, labeled="3 patients", seed=0, set=options)

    for loss in ("focal", "topk_ce", "weighted_ce", "ga_clse", "metassl_released"):
        with pytest.raises(UsageError, match=r"method\.ce=true"):
            job(loss).resolved  # noqa: B018
        assert job(loss, **{"method.ce": True}).resolved
    for loss in ("default", "ga", "ga_gd", "tversky", "metassl"):
        assert job(loss).resolved
    for loss in ("ga", "ga_clse"):  # the published recipe gives GA one to change
        assert job(loss, "ssl4mis-acdc").resolved.method["ce"]


def test_recipes_give_it_its_own_schedule() -> None:
    def resolved(recipe: str, labeled: str) -> Any:
        return Job(recipe=recipe, method="ssnet", labeled=labeled, seed=0).resolved

    acdc, la = resolved("ssl4mis-acdc", "3 patients"), resolved("metassl-la", "4 scans")
    assert (acdc.recipe.schedule.lr, acdc.recipe.criteria.smooth, acdc.method["eps"]) == ("constant", 1e-10, 6)
    assert (la.recipe.schedule.iterations, la.recipe.schedule.lr, la.recipe.ramp.weight) == (15000, "step", 1)
    assert (la.recipe.ramp.length, la.method["eps"], la.method["distance"]) == (6000, 10, "pooled_dice")
    short = resolved("metassl-la-short", "4 scans").recipe
    assert (short.schedule.iterations, short.schedule.lr, short.ramp.length) == (500, "poly", "full")
    assert resolved("dhc-synapse", "20%").method["eps"] == resolved("ga-amos", "5%").method["eps"] == 10
