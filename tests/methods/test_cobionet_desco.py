"""Co-BioNet and DeSCO: masks, reductions and gradients by hand, and what critics learn."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbench.config.recipe import OptimizerSpec, RampSpec
from sslbench.conformance.bench import DIMS, MemoryRecorder, Subject
from sslbench.core.errors import UsageError
from sslbench.core.randomness import reseed
from sslbench.losses.gradient_aware import GACELoss
from sslbench.methods.cobionet import CoBioNet, CoBioNetOptions, Critic
from sslbench.methods.desco import DeSCO, DeSCOOptions, patches_alike
from sslbench.training.checkpoint import Checkpoints
from sslbench.training.schedules import ramp_weight
from sslbench.training.trainer import Trainer, backward, make_optimizer
from tests.helpers.jobs import random_experiment, tiny_job, tiny_job_2d
from tests.helpers.methods import CE_A, DICE_A, A, B, Fixed, Y, close, derivative, make_batch, make_step, method_of

LN2 = math.log(2)


def soft_ce(logits: Tensor, target: Tensor) -> Tensor:
    """(B, *S), voxel by voxel."""
    return -(target * logits.log_softmax(1)).sum(1)


# ---------------------------------------------------------------------------------------------------------- Co-BioNet


class Judge(nn.Module):
    """A critic of known verdicts: the log-odds are w·(p_c - 0.4)."""

    def __init__(self, channel: int, slope: float = 30.0) -> None:
        super().__init__()
        self.channel, self.slope = channel, nn.Parameter(torch.tensor(slope, dtype=torch.float64))

    def forward(self, probabilities: Tensor) -> Tensor:
        return self.slope * (probabilities.flatten(2)[:, self.channel] - 0.4)


def cobionet(options: CoBioNetOptions | None = None, slope: float = 30.0) -> Any:
    """Labelled logits A and unlabelled B in network a, B and A in network b; the critics are judges."""
    method = method_of(CoBioNet, options or CoBioNetOptions(), {"a": Fixed(A, B), "b": Fixed(B, A)})
    method.critics["a"], method.critics["b"] = Judge(1, slope), Judge(0, slope)
    if method.options.released_cobionet:
        method.critics.requires_grad_(False)
    return method


def trusted(probabilities: Tensor, channel: int) -> Tensor:
    """Where the judge's σ is above 0.2, its log-odds above -ln 4: p_c > 0.35379."""
    return probabilities[:, channel] > 0.4 - math.log(4) / 30


def test_cobionet_in_numbers() -> None:
    method = cobionet()
    terms = method.training_step(make_batch(), make_step(consistency_weight=0.3))
    p, q = B.softmax(1), A.softmax(1)  # of the unlabelled patch, by a and by b
    by_a, by_b = trusted(p, 1), trusted(q, 0)
    assert by_a.tolist() == [[[False, False], [True, False]]] and by_b.tolist() == [[[True, False], [True, False]]]
    of_a, of_b = soft_ce(B, q), soft_ce(A, p)
    taught = of_a[by_b].mean() + of_a.mean() + of_b[by_a].mean() + of_b.mean()
    close(terms["taught"], float(taught))
    judged = torch.cat([A, B]).softmax(1)[:, 1], torch.cat([B, A]).softmax(1)[:, 0]
    adversarial = sum(float((1 + (-30 * (part - 0.4)).exp()).log().mean()) for part in judged)
    close(terms["adversarial"], adversarial)
    dice_b = method.loss.dice(B, Y, source="label", key="b")
    supervised = 0.5 * (CE_A + DICE_A + float(F.cross_entropy(B, Y)) + float(dice_b))
    close(terms["supervised"], supervised)
    assert float(terms["loss/networks"].detach()) == pytest.approx(
        supervised + 0.3 * (float(taught) + 0.01 * adversarial), rel=1e-7
    )
    # The critics: labels are real, one-hot; predictions of all patches are not.
    real = [(channel == Y).double() for channel in (1, 0)]
    expected = sum(
        0.5 * (F.softplus(-30 * (label - 0.4)).mean() + F.softplus(30 * (fake - 0.4)).mean())
        for label, fake in zip(real, judged, strict=True)
    )
    assert float(terms["loss/critics"].detach()) == pytest.approx(float(expected), rel=1e-6)


def test_cobionet_learns_from_the_peer_and_does_not_teach_it() -> None:
    method = cobionet()
    terms = method.training_step(make_batch(), make_step())
    found = torch.autograd.grad(terms["taught"], [*method.a.parameters(), *method.b.parameters()], allow_unused=True)
    p, q = B.softmax(1), A.softmax(1)
    by_a, by_b = trusted(p, 1).double(), trusted(q, 0).double()
    of_a = (p - q) * (by_b / by_b.sum() + 0.25)  # softmax - target, over the trusted voxels and over all
    of_b = (q - p) * (by_a / by_a.sum() + 0.25)
    for gradient, expected in zip((found[1], found[3]), (of_a, of_b), strict=True):
        assert torch.allclose(gradient, expected, atol=1e-9)
    assert not any(gradient.any() for gradient in (found[0], found[2]))  # the labelled patch


def test_where_no_voxel_is_trusted_only_the_difference_teaches() -> None:
    method = cobionet(slope=-1e3)
    for critic in method.critics.values():
        critic.forward = lambda p: torch.full_like(p[:, 0].flatten(1), -50.0)
    terms = method.training_step(make_batch(), make_step())
    close(terms["taught"], float(soft_ce(B, A.softmax(1)).mean() + soft_ce(A, B.softmax(1)).mean()))
    assert terms["taught"].requires_grad


def test_each_group_gets_the_gradient_of_its_own_loss() -> None:
    method = cobionet()
    networks, critics = [*method.a.parameters(), *method.b.parameters()], [*method.critics.parameters()]
    terms = method.training_step(make_batch(), make_step(consistency_weight=1.0))
    expected = [
        *torch.autograd.grad(terms["loss/networks"], networks, retain_graph=True),
        *torch.autograd.grad(terms["loss/critics"], critics, retain_graph=True),
    ]
    # The critics' loss does not know the networks; the adversarial term knows both, and moves the networks alone.
    known = torch.autograd.grad(terms["loss/critics"], networks, allow_unused=True, retain_graph=True)
    assert known == (None,) * len(networks)
    judged = torch.autograd.grad(terms["adversarial"], networks, retain_graph=True)
    assert all(gradient.any() for gradient in judged)
    backward(terms, method.groups(method.phases()[0]))
    for parameter, gradient in zip([*networks, *critics], expected, strict=True):
        assert parameter.grad is not None and torch.equal(parameter.grad, gradient)


def test_the_released_slips() -> None:
    method = cobionet(CoBioNetOptions(released_cobionet=True))
    terms = method.training_step(make_batch(), make_step())
    assert {name for name in terms if name.startswith("loss")} == {"loss"}
    assert method.groups(method.phases()[0]).keys() == {"networks"}
    p, q = B.softmax(1), A.softmax(1)
    by_a, by_b = float(trusted(p, 1).double().mean()), float(trusted(q, 0).double().mean())
    of_a, of_b = float(soft_ce(B, q).mean()), float(soft_ce(A, p).mean())
    close(terms["taught"], (1 + by_b) * of_a + (1 + by_a) * of_b)
    (gradient,) = torch.autograd.grad(terms["taught"], [method.a.outputs[1]])
    assert torch.allclose(gradient, by_b * (p - q) / 4, atol=1e-9)  # the difference is a number


def test_ga_counts_inside_the_mask() -> None:
    subject = Subject("cobionet", "ga")
    method, phase = subject.sure().train(), subject.phases()[0]
    with torch.no_grad():  # critics that tell voxels apart
        for critic in method.critics.values():
            critic.layers[-2].weight.mul_(4)
            critic.layers[-2].bias.sub_(6)
    asked: list[dict[str, Any]] = []
    plain = method.loss.ce

    def spy(logits: Tensor, target: Tensor, **rest: Any) -> Tensor:
        asked.append({"logits": logits, "target": target, **rest, "value": plain(logits, target, **rest)})
        return asked[-1]["value"]

    method.loss.ce = spy
    subject.terms(method, phase)
    pseudo = [term for term in asked if term["source"] == "pseudo"]
    assert [term["key"] for term in pseudo] == ["a", "b"]
    for term in pseudo:
        assert 0 < term["mask"].sum() < term["mask"].numel()
        assert term["target"].ndim == term["logits"].ndim and not term["target"].requires_grad
        inside = term["mask"].flatten()
        logits = term["logits"].movedim(1, -1).flatten(0, -2)[inside]
        labels = term["target"].argmax(1).flatten()[inside]
        assert torch.allclose(term["value"], GACELoss(k=100)(logits, labels), rtol=1e-4)


def test_critics_are_convolutions_of_side_one_without_bias() -> None:
    assert sum(parameter.numel() for parameter in Critic(1).parameters()) == 2866
    critic, p = Critic(3), torch.rand(2, 3, 4, 3, 5).softmax(1)
    content = p
    for number in range(0, 12, 3):
        content = torch.einsum("oi,bidhw->bodhw", critic.layers[number].weight[..., 0], content)
        mean, variance = (part(content, dim=(0, 2, 3, 4), keepdim=True) for part in (torch.mean, variance_of))
        content = F.leaky_relu((content - mean) / (variance + 1e-5).sqrt(), 0.2)
    assert torch.allclose(critic(p), content.flatten(1), atol=1e-4)


def variance_of(content: Tensor, dim: tuple[int, ...], keepdim: bool) -> Tensor:
    return content.var(dim, correction=0, keepdim=keepdim)


def test_critics_learn_to_tell_labels_from_predictions() -> None:
    experiment = random_experiment(tiny_job_2d("cobionet"))
    method = experiment.method.train()
    phase = method.phases()[0]
    group = method.groups(phase)["critics"]
    spec = OptimizerSpec(**{**experiment.resolved.recipe.optimizer.model_dump(), **group.optimizer})
    assert (spec.name, spec.lr, spec.weight_decay, group.schedule) == ("adamw", 1e-4, 0.01, {"lr": "cosine"})
    optimizer, batch = make_optimizer(spec, group), experiment.sampler.batch(0, phase.streams)
    with torch.no_grad():
        fake = {key: method.get_submodule(key)(batch.image["weak"]).softmax(1) for key in method.predictors}
    losses = []
    for _ in range(40):
        loss = method._discrimination(fake, batch.label["weak"][: batch.num_labeled])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert all(later < earlier for earlier, later in pairwise(losses))
    assert losses[-1] < losses[0] - 0.02


@pytest.mark.parametrize("released", [False, True])
def test_a_training_moves_the_critics_unless_released(released: bool, tmp_path: Path) -> None:
    experiment = random_experiment(tiny_job("cobionet", set={"method.released_cobionet": released}))
    before = {name: value.clone() for name, value in experiment.method.critics.named_parameters()}
    records = MemoryRecorder()
    Trainer(experiment, Checkpoints(tmp_path), records).fit()
    moved = [not torch.equal(before[name], value) for name, value in experiment.method.critics.named_parameters()]
    assert not any(moved) if released else all(moved)
    rates = {name: value for name, value in records.entries[-2].items() if name.startswith("lr")}
    if released:
        assert rates.keys() == {"lr"}
    else:
        assert rates["lr/critics"] == pytest.approx(1e-4 * 0.5 * (1 + math.cos(math.pi * 5 / 6)))


@pytest.mark.parametrize("dims", DIMS)
def test_at_weight_zero_the_networks_train_as_supervised_ones(dims: Any) -> None:
    """What the laws that the critics break say of the networks."""
    subject = Subject("cobionet", dims=dims)
    phase = subject.phases()[0]
    found = subject.gradients(subject.sure().train(), phase, consistency_weight=0.0)
    method, batch = subject.sure().train(), subject.batch(phase)
    L, labels = batch.num_labeled, batch.label["weak"]
    # In training mode too: labelled patches go through the networks alone, and first.
    reseed(0, "forward")
    pair = method.pair(batch.image["weak"][:L])
    method.supervised(pair, labels, L).sum().backward()
    for key in method.predictors:
        for name, parameter in method.get_submodule(key).named_parameters(key):
            assert torch.allclose(found[name], parameter.grad, rtol=1e-4, atol=1e-6 + 1e-4 * parameter.grad.abs().max())


def test_weights_of_cobionet() -> None:
    ramp = tiny_job_2d("cobionet").resolved.recipe.ramp
    assert ramp == RampSpec(weight=1, shape="gaussian", length=6000, every=150)
    assert ramp_weight(ramp, 3100, 30_000, 5) == pytest.approx(math.exp(-5 * (1 - 20 / 40) ** 2))


# -------------------------------------------------------------------------------------------------------------- DeSCO


def entropy(logits: Tensor) -> Tensor:
    p = logits.softmax(1)
    return -(p * p.log()).sum(1)


def cross_entropies(logits: Tensor, peer: Tensor) -> Tensor:
    """(B, *S): with the peer's labels."""
    return -logits.log_softmax(1).gather(1, peer.argmax(1, keepdim=True)).squeeze(1)


def desco(a: Tensor, b: Tensor, **options: Any) -> Any:
    """Both networks: the labelled logits A, then these of the unlabelled patches; noisy passes see the latter."""
    networks = {"a": Fixed(torch.cat([A, a]), a), "b": Fixed(torch.cat([A, b]), b)}
    return method_of(DeSCO, DeSCOOptions(**options), networks)


def test_desco_in_numbers() -> None:
    method = desco(1.5 * A, B)
    terms = method.training_step(make_batch(), make_step(30000, 30000, consistency_weight=0.3))
    # The sheet's check of UA-MT: at the end the last voxel of B (entropy 0.665570) is below ln 2; of 1.5·A all are.
    assert (entropy(B) < LN2).tolist() == [[[False, False], [False, True]]] and (entropy(1.5 * A) < LN2).all()
    taught = cross_entropies(1.5 * A, B)[0, 1, 1] / (1 + 5e-6) + cross_entropies(B, A).sum() / (4 + 5e-6)
    close(terms["taught"], float(taught))
    close(terms["supervised"], CE_A + DICE_A)
    assert float(terms["loss"].detach()) == pytest.approx(0.7 * (CE_A + DICE_A) + 0.3 * float(taught), rel=1e-7)
    assert method.a.calls == method.b.calls == 1 + 4  # one clean pass, and four of the doubled batch


def test_desco_learns_nothing_where_the_peer_is_uncertain() -> None:
    method = desco(A, B)
    terms = method.training_step(make_batch(), make_step(30000, 30000))
    assert (entropy(A) > LN2).all()
    terms["taught"].backward()
    labeled, unlabeled = method.a.outputs[0].grad.split(1)
    assert not labeled.any()
    assert unlabeled.ne(0).any(1).tolist() == [[[False, False], [False, True]]]
    assert not method.b.outputs[0].grad.any()
    assert method.a.outputs[1].grad is None  # the noisy passes take none


def test_the_threshold_of_desco_rises() -> None:
    early = make_step(1000, 30000)  # 0.521481
    assert (entropy(1.5 * A) < 0.521481).tolist() == [[[False, False], [True, False]]]
    taught = desco(1.5 * A, B).training_step(make_batch(), early)["taught"]
    close(taught, float(cross_entropies(B, A)[0, 1, 0]) / (1 + 5e-6))


def test_desco_with_the_entropy_of_all_classes_as_cap() -> None:
    terms = desco(A, B, entropy_cap="lnC").training_step(make_batch(), make_step(30000, 30000))
    close(terms["taught"], float(cross_entropies(A, B).mean() + cross_entropies(B, A).mean()) / (1 + 5e-6 / 4))


@pytest.mark.parametrize("loss", ["default", "ga"])
def test_patches_weigh_alike_however_many_voxels_are_certain(loss: str) -> None:
    mask = torch.zeros(3, 4, 5, dtype=torch.bool)
    mask[0, :2], mask[1, 0, :3] = True, True  # 10, 3 and no voxels
    values = torch.rand(3, 4, 5)
    found = (mask * patches_alike(mask) * values).sum() / mask.sum()
    expected = (values[0][mask[0]].mean() + values[1][mask[1]].mean() + 0) / 3
    assert torch.allclose(found, expected, rtol=1e-5)
    criterion = GACELoss(k=100) if loss == "ga" else F.cross_entropy
    # One patch, and patches with as many certain voxels: nothing is weighed.
    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(3, (2, 4, 5))
    same = mask[:1].repeat(2, 1, 1)
    method = Subject("desco", loss).built.method
    weighed = method.loss.ce(logits, labels, source="pseudo", key="a", mask=same, voxel_weight=patches_alike(same))
    inside = logits.movedim(1, -1)[same], labels[same]
    assert torch.allclose(weighed, criterion(*inside), rtol=1e-4)


def test_no_certain_voxel_gives_a_zero_that_keeps_the_graph() -> None:
    for loss in ("default", "ga", "metassl"):
        subject = Subject("desco", loss)
        method = subject.fresh().train()
        terms = subject.terms(method, subject.phases()[0])  # an untrained network is nowhere certain
        assert float(terms["taught"].detach()) == 0
        gradients = torch.autograd.grad(terms["taught"], [*method.a.parameters()])
        assert all(torch.isfinite(gradient).all() and not gradient.any() for gradient in gradients)


def test_noise_is_drawn_anew_for_each_network_and_round() -> None:
    seen: dict[str, list[Tensor]] = {"a": [], "b": []}

    class Watched(Fixed):
        def __init__(self, key: str) -> None:
            super().__init__(torch.cat([A, A]), A)
            self.key = key

        def forward(self, x: Tensor) -> Tensor:
            seen[self.key].append(x)
            return super().forward(x)

    method = method_of(DeSCO, DeSCOOptions(samples=4), {"a": Watched("a"), "b": Watched("b")})
    step = make_step()
    object.__setattr__(step, "generators", lambda stream, device: torch.Generator().manual_seed(hash(stream) % 2**31))
    method.training_step(make_batch(), step)
    draws = [part for key in seen for noisy in seen[key][1:] for part in noisy.split(1)]
    assert len(draws) == 2 * 4 and all(0 < part.abs().max() <= 0.2 for part in draws)
    assert not any(torch.equal(one, other) for n, one in enumerate(draws) for other in draws[:n])


def test_the_gradient_of_desco_is_the_derivative_of_its_loss() -> None:
    method, batch, step = desco(A, B), make_batch(), make_step(30000, 30000, consistency_weight=0.4)

    def loss() -> Tensor:
        method.a.calls = method.b.calls = 0
        found: Tensor = method.training_step(batch, step)["loss"]
        return found

    loss().backward()
    for parameter in (method.a.outputs[0], method.b.outputs[0]):
        assert torch.allclose(parameter.grad, derivative(loss, parameter), atol=1e-7)


def test_desco_has_no_meaning_with_a_weight_above_one() -> None:
    with pytest.raises(UsageError, match=r"ramp\.weight must not be above 1"):
        tiny_job_2d("desco", set={"ramp.weight": 2}).resolved  # noqa: B018
