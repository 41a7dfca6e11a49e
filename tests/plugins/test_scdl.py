"""SCDL: the sheet's numbers, anchors against plain loops, what its terms reach, and methods that carry it."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslbench.conformance import check_method
from sslbench.conformance.bench import Subject
from sslbench.core.step import Batch
from sslbench.networks import Network, build_network
from sslbench.plugins.base import Attached
from sslbench.plugins.scdl import (
    SCDL,
    SCDLOptions,
    anchor_loss,
    assignments,
    cell_shares,
    cosines,
    embedding_to_proxy,
    one_hot,
    proxy_to_embedding,
)
from sslbench.training.trainer import make_optimizer, plugin_decays
from tests.helpers.command_line import call
from tests.helpers.jobs import random_experiment, tiny_job, tiny_job_2d
from tests.helpers.methods import make_step

CENTRES = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
TOKENS = torch.tensor([[1.0, 1.0], [-2.0, 0.5]])
JOBS = {"3d": tiny_job, "2d": tiny_job_2d}


def test_the_published_example() -> None:
    cosine = cosines(TOKENS, CENTRES)
    P = assignments(cosine)
    rows = [[0.458423, 0.458423, 0.083153], [0.113949, 0.383151, 0.502899]]
    assert torch.allclose(P, torch.tensor(rows), atol=1e-6)
    e2p = float(embedding_to_proxy(cosine, P))
    assert e2p == pytest.approx(0.596862, abs=1e-6) and 2 * e2p == pytest.approx(1.193724, abs=1e-6)
    assert float(proxy_to_embedding(cosine, P)) == pytest.approx(0.808570, abs=1e-6)
    centre = [[0.375270, 0.375270], [-0.388950, -0.119748]]
    assert torch.allclose(P @ CENTRES, torch.tensor(centre), atol=1e-6)
    anchors = torch.tensor([[2.0, 1.0], [1.0, 3.0], [-1.0, 0.0]])
    assert float(anchor_loss(CENTRES, anchors, torch.ones(3))) == pytest.approx(0.149928, abs=1e-6)


def test_the_released_forms() -> None:
    cosine = cosines(TOKENS, CENTRES)
    assert torch.allclose(assignments(cosine, 0.2), (cosine / 0.2).softmax(-1))
    P = assignments(cosine)
    expected = torch.exp(-(2 * P - 1) * cosine).mean()
    assert torch.allclose(proxy_to_embedding(cosine, P, released=True), expected)
    plugin = attached("3d", plugin="scdl[released_samples=true]").plugin
    torch.manual_seed(0)
    tokens = torch.randn(5, 256)
    torch.manual_seed(1)
    found = plugin._cosines(tokens)
    torch.manual_seed(1)
    draws = plugin.centres + plugin.spread * torch.randn(50, 14, 256)
    by_draw = torch.stack([cosines(tokens, draw) for draw in draws])
    assert torch.allclose(found, by_draw.mean(0), atol=1e-6)


def test_classes_that_a_batch_does_not_have_are_left_out_of_the_anchors() -> None:
    centres = CENTRES.clone().requires_grad_()
    anchors = torch.tensor([[2.0, 1.0], [9.0, 9.0], [-1.0, 0.0]])
    value = anchor_loss(centres, anchors, torch.tensor([1.0, 0.0, 1.0]))
    value.backward()
    expected = 1 - F.cosine_similarity(CENTRES, anchors, dim=-1)
    assert torch.allclose(value, expected[[0, 2]].mean())
    assert centres.grad is not None and not centres.grad[1].any() and centres.grad[0].any()
    assert anchor_loss(CENTRES, anchors, torch.zeros(3)) == 0


def test_shares_are_those_of_the_area() -> None:
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    labels[0, 0, :3] = 1
    labels[0, 3, 3] = -1  # no class
    shares = cell_shares(one_hot(labels, 3), torch.Size((2, 2)))
    assert shares.tolist() == [[[0.5, 0.5, 0], [0.75, 0.25, 0], [1, 0, 0], [0.75, 0, 0]]]


@pytest.mark.parametrize(("classes", "parameters"), [(14, 410_112), (16, 411_136)])
def test_the_module_has_the_published_size(classes: int, parameters: int) -> None:
    network = build_network("vnet", 1, classes)
    statistics: Any = random_experiment(tiny_job(), classes=classes).method.statistics
    plugin = SCDL(SCDLOptions(), network, statistics)
    own = [plugin.proxies, plugin.token_noise, *plugin.embedding.parameters()]
    assert sum(parameter.numel() for parameter in own) == parameters
    assert [tuple(conv.weight.shape[:2]) for conv in plugin.project] == [(128, 768), (64, 768), (32, 768), (16, 768)]
    assert plugin.reduce.weight.shape[:2] == (16, 128)


# ------------------------------------------------------------------------------------------------- on a network


def attached(dims: str, method: str = "supervised", plugin: str = "scdl", **rest: Any) -> Any:
    experiment = random_experiment(JOBS[dims](method, plugin=plugin), **rest)
    return next(module for module in experiment.method.modules() if isinstance(module, Attached))


def patches(dims: str, plugin: str = "scdl") -> tuple[Any, Batch]:
    experiment = random_experiment(JOBS[dims]("cps", plugin=plugin))
    return experiment.method.get_submodule("a"), experiment.sampler.batch(0)


@pytest.mark.parametrize("dims", JOBS)
def test_the_prior_is_in_every_decoder_stage_and_still_in_evaluation(dims: str) -> None:
    network, batch = patches(dims)
    image = batch.image["weak"]
    bare = cast(Network, network.base)
    features = network.encode(image)
    shapes = [(len(image), channels) for channels in bare.decoder.prior_channels]
    assert [tuple(part.shape[:2]) for part in features.prior] == shapes
    grids = [content.shape[2:] for content in features.maps[:-1]]
    assert [part.shape[2:] for part in features.prior] == grids[::-1]
    network.eval()
    assert torch.equal(network(image), network(image)) and not torch.equal(network(image), bare(image))
    for stage, project in enumerate(network.plugin.project):
        before = network(image)
        with torch.no_grad():
            project.weight += 0.1
        assert not torch.equal(before, network(image)), stage


@pytest.mark.parametrize("dims", JOBS)
def test_the_prior_is_the_three_parts_projected_and_resized(dims: str) -> None:
    network, batch = patches(dims)
    plugin = network.eval().plugin
    features = network.base.encode(batch.image["weak"])
    tokens = plugin.tokens(features.maps[-2])
    P = assignments(cosines(tokens, plugin.centres))
    for part in plugin._prior(tokens)[:2]:
        assert torch.allclose(part, P @ plugin.centres)
    joined = torch.cat([P @ plugin.centres, P @ plugin.centres, F.normalize(tokens, dim=-1)], -1)
    grid = joined.transpose(1, 2).unflatten(2, features.maps[-2].shape[2:])
    kernel = plugin.project[-1].weight
    mode = "trilinear" if grid.ndim == 5 else "bilinear"
    wide = F.interpolate(grid, features.maps[0].shape[2:], mode=mode, align_corners=False)
    expected = torch.einsum("oc,bc...->bo...", kernel.flatten(1), wide)  # resized before, projected behind
    assert torch.allclose(plugin.prior(features)[-1], expected, atol=1e-5)


def test_training_draws_proxies_and_tokens_with_their_deviations() -> None:
    plugin = attached("3d").plugin
    tokens = torch.randn(1, 400, 256)
    with torch.no_grad():
        plugin.token_noise.fill_(0.3)
    drawn, centre, noisy = plugin._prior(tokens)
    assert torch.allclose(centre, assignments(cosines(tokens, plugin.centres)) @ plugin.centres)
    noise = noisy - F.normalize(tokens, dim=-1)
    assert float(noise.detach().std()) == pytest.approx(0.3 / 2**0.5, rel=0.02)  # the mean of two
    spread = torch.stack([(plugin._prior(tokens[:, :1])[0] - centre[:, :1]).detach() for _ in range(200)]).std(0)
    # Σ_c P_c·ε_c σ_c / √50 with P of about 1/14.
    P = assignments(cosines(tokens[:, :1], plugin.centres))
    expected = ((P.unsqueeze(-1) * plugin.spread).square().sum(2) / 50).sqrt()
    assert float((spread / expected).detach().mean()) == pytest.approx(1, abs=0.05)
    assert not torch.equal(drawn, centre)


@pytest.mark.parametrize("dims", JOBS)
def test_terms_are_those_of_the_tokens_one_by_one(dims: str) -> None:
    network, batch = patches(dims)
    network.eval()
    plugin, labels, L = network.plugin, batch.label["weak"], batch.num_labeled
    terms = plugin.terms(network, batch, make_step())
    tokens = plugin.tokens(network.base.encode(batch.image["weak"]).maps[-2])
    C = plugin.statistics.num_classes
    cosine = cosines(tokens, plugin.centres)
    weight = assignments(cosine).detach()
    size = labels.shape[1] // network.base.encode(batch.image["weak"]).maps[-2].shape[2]
    for b in range(L):
        cells = labels[b]
        for axis in range(cells.ndim):
            cells = cells.unfold(axis, size, size)
        for number, cell in enumerate(cells.flatten(0, labels.ndim - 2).flatten(1)):
            weight[b, number] = torch.bincount(cell, minlength=C) / cell.numel()
    e2p = (weight * (1 - cosine)).sum(-1).mean()
    p2e = torch.exp(-((2 * weight - 1) * cosine).mean((0, 1))).mean()
    expected = 0.1 * (p2e + 0.1 * e2p)
    assert torch.allclose(terms["cdba"], expected, atol=1e-7)
    found, fixed = (
        torch.autograd.grad(value, plugin.proxies, retain_graph=True)[0] for value in (terms["cdba"], expected)
    )
    assert torch.allclose(found, fixed, atol=1e-7) and found.any()  # the weights above are numbers
    anchors, present = anchors_by_loops(network, batch)
    sac = torch.stack([1 - F.cosine_similarity(plugin.centres[c], anchors[c], dim=0) for c in present]).mean()
    assert torch.allclose(terms["sac"], 0.1 * sac, atol=1e-6)


def anchors_by_loops(network: Any, batch: Batch) -> tuple[dict[int, Tensor], list[int]]:
    """Anchors after the sheet, one masked patch at a time."""
    plugin, found = network.plugin, {}
    for c in range(plugin.statistics.num_classes):
        instances = []
        for b in range(batch.num_labeled):
            image, mask = batch.image["weak"][b : b + 1], batch.label["weak"][b] == c
            if mask.any():
                content = network.base.encode(image * mask).maps[-2]
                inside = F.adaptive_max_pool3d if mask.ndim == 3 else F.adaptive_max_pool2d
                cells = inside(mask[None, None].float(), content.shape[2:])[0, 0] > 0
                instances.append(plugin.embedding(plugin.reduce(content)[0][:, cells].mean(-1)))
        if instances:
            found[c] = torch.stack(instances).mean(0)
    return found, list(found)


def test_anchors_reach_the_proxies_alone_and_the_rest_the_encoder_too() -> None:
    network, batch = patches("3d")
    terms = network.plugin.terms(network, batch, make_step())
    parameters = dict(network.named_parameters())

    def reached(term: str) -> set[str]:
        found = torch.autograd.grad(terms[term], list(parameters.values()), retain_graph=True, allow_unused=True)
        return {name for name, gradient in zip(parameters, found, strict=True) if gradient is not None}

    assert reached("sac") == {"plugin.proxies"}
    learned = reached("cdba")
    assert {"plugin.proxies", "plugin.reduce.weight", "plugin.embedding.0.weight"} <= learned
    assert "network.encoder.blocks.3.0.weight" in learned  # stage four, which tokens are made of
    assert not any("decoders" in name or "encoder.blocks.4" in name for name in learned)


def test_masked_patches_leave_batch_statistics_and_modes_as_they_were() -> None:
    states = []
    for name in ("scdl", "scdl_cdba_only"):
        network, batch = patches("3d", name)
        torch.manual_seed(0)
        terms = network.train().plugin.terms(network, batch, make_step())
        assert set(terms) == ({"cdba", "sac"} if name == "scdl" else {"cdba"})
        assert all(module.training for module in network.modules())
        states.append(dict(network.named_buffers()))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_labels_of_unlabeled_patches_change_nothing() -> None:
    network, batch = patches("3d")
    network.eval()
    terms = network.plugin.terms(network, batch, make_step())
    batch.label["weak"][batch.num_labeled :] = 1
    assert all(
        torch.equal(value, terms[name]) for name, value in network.plugin.terms(network, batch, make_step()).items()
    )
    batch.label["weak"][: batch.num_labeled] = 0  # background alone
    alone = network.plugin.terms(network, batch, make_step())
    assert all(torch.isfinite(value) for value in alone.values()) and alone["cdba"] != terms["cdba"]


def test_in_half_precision_terms_are_those_of_full_precision() -> None:
    network, batch = patches("2d")
    network.eval()
    full = network.plugin.terms(network, batch, make_step())
    with torch.autocast("cpu", torch.bfloat16):
        half = network.plugin.terms(network, batch, make_step())
    for name, value in full.items():
        assert half[name].dtype == torch.float32 and torch.allclose(half[name], value, rtol=0.02), name


# ------------------------------------------------------------------------------------------------- with methods


def test_the_module_has_a_weight_decay_of_its_own() -> None:
    job = tiny_job("mt", plugin="scdl", set={"optimizer.weight_decay": 0.02})
    experiment = random_experiment(job)
    method, (group,) = experiment.method, experiment.method.groups(experiment.method.phases()[0]).values()
    optimizer = make_optimizer(job.resolved.recipe.optimizer, group, plugin_decays(method))
    own = {id(parameter) for parameter in method.get_submodule("student.plugin").parameters()}
    for part in optimizer.param_groups:
        inside = {id(parameter) in own for parameter in part["params"]}
        assert inside == {part["weight_decay"] == 1e-4} and part["weight_decay"] in (1e-4, 0.02)
    assert sum(len(part["params"]) for part in optimizer.param_groups) == len(group.parameters)
    plain = random_experiment(tiny_job("mt")).method
    assert plugin_decays(plain) == {}


@pytest.mark.parametrize(("method", "dims"), [("cps", "2d"), ("mt", "3d"), ("magicnet", "3d")])
def test_methods_carry_it(method: str, dims: Any) -> None:
    laws = ["every_parameter_moves", "resumes_exactly", "supervised_at_zero", "ema_closed_form", "finite_in_bf16"]
    verdicts = check_method(method, dims=(dims,), laws=laws, plugin="scdl")
    assert [verdict.reason for verdict in verdicts if verdict.status == "broken"] == []
    assert {verdict.plugin for verdict in verdicts} == {"scdl"}
    assert sum(verdict.status == "holds" for verdict in verdicts) >= 4


def test_a_training_in_half_precision_stays_finite() -> None:
    trained = Subject("cps", dims="3d", set={"precision": "bf16"}, plugin="scdl").trained
    terms = {name for entry in trained.records for name in entry}
    assert {"a/cdba", "a/sac", "b/cdba", "b/sac"} <= terms
    assert all(torch.isfinite(value).all() for value in trained.after.values() if isinstance(value, Tensor))


def test_cubes_of_magicnet_see_no_prior_and_its_teacher_has_a_module_of_its_own() -> None:
    subject = Subject("magicnet", dims="2d", plugin="scdl")
    method: Any = subject.fresh()
    calls: list[torch.Size] = []
    prior = method.student.plugin.prior

    def spy(features: Any) -> Any:
        calls.append(features.maps[0].shape)
        return prior(features)

    method.student.plugin.prior = spy
    subject.terms(method, subject.phases()[0])
    assert [shape[2:] for shape in calls] == [(32, 32)] * 2  # as they are, and mixed: no cubes of 16
    assert method.teacher.plugin is not method.student.plugin
    assert not any(parameter.requires_grad for parameter in method.teacher.parameters())


def test_the_preset_leaves_the_anchors_out() -> None:
    job = tiny_job("cps", plugin="scdl[sac_weight=0]")
    assert job.canonical().plugin == "scdl_cdba_only" and "+scdl_cdba_only" in str(job.directory)
    assert job.digest() not in {tiny_job("cps", plugin="scdl").digest(), tiny_job("cps").digest()}


def test_check_takes_a_plugin() -> None:
    laws = ("--law", "predicts_probabilities", "--dims", "2d")
    code, out, _ = call("check", "method", "supervised", "-p", "scdl", *laws, "--json")
    assert code == 0 and [verdict["plugin"] for verdict in json.loads(out)] == ["scdl"]
    code, _, err = call("check", "method", "supervised", "-p", "scld", *laws)
    assert code == 2 and "unknown plugin 'scld'" in err
