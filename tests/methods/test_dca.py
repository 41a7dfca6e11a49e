"""DCA: the worked numbers of its sheet (sets, stitching), fusion, terms of a step by hand, who learns from what."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbench.config.job import Job
from sslbench.conformance.bench import Subject
from sslbench.core.errors import UsageError
from sslbench.core.step import Statistics
from sslbench.methods.dca import DCA, EXPERTS, class_sets, lift, stitch
from sslbench.networks import build_network
from sslbench.networks.experts import DilatedPair, FeatureAggregation, SqueezeExcitation
from sslbench.training.experiment import Builder, build_method

# ------------------------------------------------------------------------------------------------------------- sets


def test_the_sets_of_the_sheet() -> None:
    counts = (90_000, 80_000, 9_000, 8_000, 7_500, 300, 250)
    gaps = [math.log(large / small) for large, small in pairwise(counts)]
    assert gaps == pytest.approx([0.118, 2.185, 0.118, 0.065, 3.219, 0.182], abs=5e-4)
    assert class_sets(counts) == ((1, 2), (3, 4, 5), (6, 7))
    shuffled = [7_500, 250, 90_000, 300, 8_000, 80_000, 9_000]
    assert class_sets(shuffled) == ((3, 6), (7, 5, 1), (4, 2))


@pytest.mark.parametrize(
    ("counts", "sets"),
    [
        ((5, 9, 7), ((2,), (3,), (1,))),  # three classes: one each, by size
        ((8, 4, 2, 1), ((1,), (2,), (3, 4))),  # equal gaps: the earlier ones
        ((1000, 990, 10, 9, 8), ((1, 2), (3, 4), (5,))),  # the second largest gap may lie inside a small set
        ((900, 0, 800, 20, 19), ((1,), (3,), (4, 5, 2))),  # a class without a voxel is a tail class ...
        ((100, 0, 0, 50), ((1,), (4,), (2, 3))),  # ... and makes a set of its own only where it has to
        ((0, 100, 0), ((2,), (1,), (3,))),
    ],
)
def test_sets_by_gaps(counts: tuple[int, ...], sets: Any) -> None:
    assert class_sets(counts) == sets


def test_sets_in_thirds() -> None:
    assert class_sets((90_000, 80_000, 9_000, 8_000, 7_500, 300, 250), "thirds") == ((1, 2, 3), (4, 5), (6, 7))
    assert class_sets((1, 2, 3, 4, 5, 0), "thirds") == ((5, 4), (3, 2), (1, 6))


def test_a_job_may_name_its_sets() -> None:
    method = Subject("dca[sets=[[3],[1],[2]]]").fresh()
    assert method.sets == ((3,), (1,), (2,))
    assert [method.experts[key].decoder.head.out_channels for key in EXPERTS] == [2, 2, 2]


@pytest.mark.parametrize("sets", ["[[1],[2],[2]]", "[[1,2],[3],[]]", "[[0],[1,2],[3]]", "[[1],[2],[3,4]]"])
def test_sets_that_are_no_partition_are_refused_in_a_line(sets: str) -> None:
    with pytest.raises(UsageError, match="each label from 1 to 3 must be in one of three sets"):
        _ = Job(recipe="ssl4mis-acdc", method=f"dca[sets={sets}]", labeled="7 patients", seed=0).resolved


def test_fewer_than_three_classes_are_refused_in_a_line() -> None:
    with pytest.raises(UsageError, match="splits the foreground classes into three sets, and the data have 1"):
        _ = Job(recipe="metassl-la", method="dca", labeled="8 scans", seed=0).resolved


def test_the_experts_follow_the_labeled_voxels() -> None:
    """Sets, and with them the shapes of the heads, are a function of the statistics that a finished run keeps."""
    job = Job(recipe="phantom", method="dca", labeled="20%", seed=0, set={"network.base_filters": 2})
    counts = torch.tensor([[9_000_000, 250, 90_000, 300, 8_000, 80_000, 9_000, *[7_500] * 7]])
    data = Statistics(counts, 1, 1, ((48, 48, 48),), 14, (48, 48, 48), (1, 1))
    method: Any = build_method(job.resolved, Builder(job.resolved, 1, data), data)
    assert method.sets == ((2, 5), (6, 4, 7, 8, 9, 10, 11, 12, 13), (3, 1))
    assert [method.experts[key].decoder.head.out_channels for key in EXPERTS] == [3, 10, 3]
    labels = torch.tensor([[-1, *range(14)]])
    assert method.truth("head", labels).tolist() == [[-1, 0, 0, 2, 0, 0, 5, *[0] * 8]]
    assert method.truth("tail", labels).tolist() == [[-1, 0, 1, 0, 3, *[0] * 10]]
    assert torch.equal(method.truth("aggregate", labels), labels)


# ---------------------------------------------------------------------------------------------- stitching and lifting


def voxel(*logits: float) -> Tensor:
    return torch.tensor(logits).view(1, -1, 1, 1)


def test_the_stitching_of_the_sheet() -> None:
    experts = [voxel(1.0, 3.0), voxel(2.0, 2.5), voxel(0.5, 0.2)]
    found = stitch(experts, ((1,), (2,), (3,)))
    torch.testing.assert_close(found, voxel(0, 2.0, 0.5, -0.3))
    assert found.argmax(1).item() == 1
    # Each logit goes to the place of its label, whatever the order of a set.
    found = stitch([voxel(1.0, 3.0, 0.0), voxel(2.0, 2.5), voxel(0.5, 0.2)], ((4, 2), (1,), (3,)))
    torch.testing.assert_close(found, voxel(0, 0.5, -1.0, -0.3, 2.0))


def test_where_no_expert_claims_a_voxel_it_is_background() -> None:
    assert stitch([voxel(3.0, 1.0), voxel(2.0, 1.5), voxel(0.5, 0.2)], ((1,), (2,), (3,))).argmax(1).item() == 0


def test_lifted_logits_are_the_experts_own_among_all_classes() -> None:
    logits = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    lifted = lift(logits, (4, 2), 6)
    probabilities = lifted.softmax(1)
    torch.testing.assert_close(probabilities[:, [0, 4, 2]], logits.softmax(1))
    assert probabilities[:, [1, 3, 5]].max() < 1e-21 and torch.isfinite(probabilities.float().log()).all()
    target = torch.randint(0, 3, (2, 4, 4))
    own = torch.autograd.grad(F.cross_entropy(logits, target), logits)[0]
    among = torch.autograd.grad(F.cross_entropy(lifted, torch.tensor([0, 4, 2])[target]), logits)[0]
    torch.testing.assert_close(own, among)


# ------------------------------------------------------------------------------------------------------------ fusion


def test_gates_and_fusion_by_hand() -> None:
    """α of logits (0, ln 2, 0) is (1/4, 1/2, 1/4): of maps 4, 2, 8 it makes 4; P = 0.5 adds 2 to G = 10."""
    fusion = FeatureAggregation(build_network("unet", 1, 4), 1, 3)
    maps, own = [torch.full((1, 1, 2, 2), value) for value in (4.0, 2.0, 8.0)], torch.full((1, 1, 2, 2), 10.0)
    assert torch.equal(fusion(maps, own), own)  # P is zero at the start
    with torch.no_grad():
        fusion.gate.weight.zero_()
        fusion.gate.weight[1, 3] = 0.1  # from G
        fusion.gate.bias.copy_(torch.tensor([0.0, math.log(2) - 1, 0.0]))
        fusion.project.weight.fill_(0.5)
    torch.testing.assert_close(fusion.gates(maps, own)[0, :, 0, 0], torch.tensor([0.25, 0.5, 0.25]))
    torch.testing.assert_close(fusion(maps, own), torch.full((1, 1, 2, 2), 12.0))
    # Voxel by voxel: where G is 10 - 10·ln 4 the middle gate is 0.5·e^-ln4 against 1/4 each.
    own = own.clone()
    own[0, 0, 1, 1] = 10 - 10 * math.log(4)
    torch.testing.assert_close(fusion.gates(maps, own)[0, :, 1, 1], torch.tensor([0.4, 0.2, 0.4]))
    torch.testing.assert_close(fusion.gates(maps, own)[0, :, 0, 1], torch.tensor([0.25, 0.5, 0.25]))


def test_squeeze_and_excitation_by_hand() -> None:
    block = SqueezeExcitation(2, 2)
    squeeze, excite = block.layers[0], block.layers[2]
    with torch.no_grad():
        squeeze.weight.copy_(torch.tensor([[1.0, -1.0]]))
        squeeze.bias.fill_(0.5)
        excite.weight.copy_(torch.tensor([[1.0], [-2.0]]))
        excite.bias.zero_()
    x = torch.tensor([[1.0, 3.0], [0.0, 1.0]]).view(1, 2, 2)  # means 2 and 0.5: ReLU(2 - 0.5 + 0.5) = 2
    scale = torch.tensor([2.0, -4.0]).sigmoid().view(1, 2, 1)
    torch.testing.assert_close(block(x), x * scale)


@pytest.mark.parametrize(
    ("network", "options", "norm"),
    [("unet", {}, nn.BatchNorm2d), ("vnet", {"base_filters": 2, "norm": "instance"}, nn.InstanceNorm3d)],
)
def test_the_dilated_pair_reaches_two_voxels_far(network: str, options: dict[str, Any], norm: type[nn.Module]) -> None:
    net = build_network(network, 1, 4, **options)
    pair = DilatedPair(net, net.decoder, 3, 2)
    assert isinstance(pair.norm, norm)
    pair.norm = nn.Identity()
    impulse = torch.zeros(1, 3, *[9] * net.dims)
    impulse[(slice(None), slice(None), *[4] * net.dims)] = 1
    with torch.no_grad():
        for conv, weight in ((pair.near, 1.0), (pair.far, 10.0)):
            conv.weight.fill_(weight / 3)
            conv.bias.zero_()
    line = pair(impulse)[(0, 0, *[4] * (net.dims - 1))]
    assert line.tolist() == pytest.approx([0, 0, 10, 1, 11, 1, 10, 0, 0])


def test_experts_differ_in_their_blocks_unless_alike() -> None:
    kinds = {key: [type(block) for block in expert.blocks] for key, expert in Subject("dca").fresh().experts.items()}
    assert kinds == {
        "head": [nn.Identity] * 4,
        "medium": [SqueezeExcitation] * 4,
        "tail": [nn.Identity] * 2 + [DilatedPair] * 2,
    }
    alike = Subject("dca[experts=alike]").fresh().experts
    assert {type(block) for expert in alike.values() for block in expert.blocks} == {nn.Identity}
    stages = Subject("dca[dilated_stages=9]").fresh().experts["tail"].blocks
    assert [type(block) for block in stages] == [DilatedPair] * 4


# ----------------------------------------------------------------------------------------------------- a whole step


class Taken:
    """One step on a tiny network whose fusion is at work, and what it asked of its loss."""

    def __init__(self, spelling: str = "dca", loss: str = "default", dims: Any = "2d") -> None:
        subject = Subject(spelling, loss, dims)
        self.method: Any = subject.sure(3).train()
        random = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.method.aggregation.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=random))
        self.phase = subject.phases()[0]
        self.batch = subject.batch(self.phase)
        self.L = self.batch.num_labeled
        self.asked: list[dict[str, Any]] = []
        self.seen: dict[str, tuple[Tensor, Tensor]] = {}
        ask, observe = self.method.loss.supervised, self.method.loss.observe

        def spy(logits: Tensor, target: Tensor, **rest: Any) -> Tensor:
            self.asked.append({"logits": logits, "target": target, **rest})
            result: Tensor = ask(logits, target, **rest)
            return result

        def watch(step: Any, key: str, logits: Tensor, labels: Tensor) -> None:
            self.seen[key] = logits, labels
            observe(step, key, logits, labels)

        self.method.loss.supervised, self.method.loss.observe = spy, watch
        self.subject = subject
        self.terms = subject.terms(self.method, self.phase, self.batch, consistency_weight=0.25)

    def value(self, term: str) -> float:
        return float(self.terms[term].detach())

    def reached(self, term: str) -> set[str]:
        """Parts that a term has a gradient in, by the first words of their names."""
        self.method.zero_grad()
        self.terms[term].backward(retain_graph=True)
        names = [
            name for name, p in self.method.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)
        ]
        return {".".join(name.split(".")[: 1 if name.startswith("aggregation") else 2]) for name in names}


def by_hand(logits: Tensor, target: Tensor, classes: int) -> Tensor:
    """½ CE + ½ Dice with squares over `classes`, of logits (B, c, H, W) and labels in 0..c-1; absent classes are 0."""
    p = logits.detach().double().softmax(1)
    one_hot = F.one_hot(target, p.shape[1]).movedim(-1, 1).double()
    ce = -(one_hot * p.log()).sum(1).mean()
    sums = [(a * b).sum((0, 2, 3)) for a, b in ((p, one_hot), (p, p), (one_hot, one_hot))]
    dice = (1 - (2 * sums[0] + 1e-5) / (sums[1] + sums[2] + 1e-5)).sum() / classes
    return 0.5 * ce + 0.5 * dice


def test_the_terms_of_a_step_by_hand() -> None:
    taken = Taken()
    method, labels, L = taken.method, taken.batch.label["weak"][: taken.L], taken.L
    assert [ask["key"] for ask in taken.asked] == [*EXPERTS, "aggregate", "aggregate"]
    own_logits, total = {}, 0.0
    for key, own, ask in zip(EXPERTS, method.sets, taken.asked, strict=False):
        (label,) = own  # three classes: one each
        own_logits[key] = ask["logits"][:, [0, label]]
        expected = by_hand(own_logits[key], (labels == label).long(), classes=4)
        assert taken.value(key) == pytest.approx(float(expected), rel=1e-5)
        total += float(expected)
    known, taught = taken.asked[3:]
    supervised = by_hand(known["logits"], labels, 4)
    assert torch.equal(known["target"], labels)
    # Pseudo-labels: the class of the largest z_k - z_0, where one is above 0.
    odds = {
        label: taken.seen[key][0][L:, label] - taken.seen[key][0][L:, 0]
        for key, (label,) in zip(EXPERTS, method.sets, strict=True)
    }
    largest, places = torch.stack([odds[label] for label in (1, 2, 3)]).max(0)
    assert torch.equal(taught["target"], torch.where(largest > 0, places + 1, 0))
    assert taught["source"] == "pseudo" and len(taught["target"].unique()) > 1
    pseudo = by_hand(taught["logits"], taught["target"], 4)
    assert taken.value("supervised") == pytest.approx(float(supervised), rel=1e-5)
    assert taken.value("pseudo") == pytest.approx(float(pseudo), rel=1e-5)
    expected = total + float(supervised) + 0.25 * float(pseudo)
    assert taken.value("loss") == pytest.approx(expected, rel=1e-5)
    third = Taken("dca[expert_weight=0.25]")
    weighted = 0.25 * total + float(supervised) + 0.25 * float(pseudo)
    assert third.value("loss") == pytest.approx(weighted, rel=1e-5)


def test_each_part_learns_from_its_own_term() -> None:
    taken = Taken()
    for key in EXPERTS:
        assert taken.reached(key) == {"net.encoder", f"experts.{key}"}
    for term in ("supervised", "pseudo"):
        assert taken.reached(term) == {"net.encoder", "net.decoders", "aggregation"}
    through = Taken("dca[detach_experts=false]")
    assert through.reached("pseudo") == {"net.encoder", "net.decoders", "aggregation"} | {
        f"experts.{k}" for k in EXPERTS
    }


def test_the_aggregation_decoder_reads_the_experts_unless_plain() -> None:
    taken = Taken()
    method, image = taken.method.eval(), taken.batch.image["weak"]
    with torch.no_grad():
        before = {key: method.predict(image, key) for key in (None, "aggregate")}
        assert torch.equal(before[None], before["aggregate"])
        method.experts["tail"].decoder.blocks[0][0].weight.mul_(-1)
        assert not torch.allclose(method.predict(image), before[None], atol=1e-4)
        plain: Any = Subject("dca[aggregate=plain]").fresh().eval()
        assert not len(plain.aggregation)
        expected = plain.net(image).softmax(1)
        plain.experts = None  # not asked
        assert torch.equal(plain.predict(image), expected)


def test_what_a_loss_sees_and_what_it_holds_against_what() -> None:
    taken = Taken(loss="metassl")
    labels, L = taken.batch.label["weak"], taken.L
    assert set(taken.seen) == {*EXPERTS, "experts", "aggregate"}
    for key, (label,) in zip(EXPERTS, taken.method.sets, strict=True):
        logits, seen = taken.seen[key]
        assert logits.shape == (len(labels), 4, 32, 32) and (seen[L:] == -1).all()
        assert torch.equal(seen[:L], torch.where(labels[:L] == label, label, 0))
    stitched = taken.seen["experts"][0].softmax(1)
    assert not stitched.requires_grad
    *experts, known, taught = taken.asked
    assert all("reference" not in ask for ask in experts)
    for ask, part in ((known, stitched[:L]), (taught, stitched[L:])):
        key, probabilities = ask["reference"]
        assert key == "experts" and torch.equal(probabilities, part)


def test_weightings_serve_the_aggregation_decoder_alone() -> None:
    taken: list[tuple[str, bool]] = []
    subject = Subject("dca[weighting=distdw]", dims="3d")
    method: Any = subject.fresh().train()
    assert list(method.loss.weightings) == ["aggregate"]
    ask = method.loss.inner.supervised

    def spy(logits: Tensor, target: Tensor, **rest: Any) -> Tensor:
        taken.append((rest["key"], rest.get("class_weight") is not None))
        result: Tensor = ask(logits, target, **rest)
        return result

    method.loss.inner.supervised = spy
    subject.terms(method, subject.phases()[0])
    assert taken == [*((key, False) for key in EXPERTS), ("aggregate", True), ("aggregate", True)]


@pytest.mark.parametrize("network", ["unet3d", "resvnet", "diffusion_vnet"])
def test_any_network_of_the_contract_serves(network: str) -> None:
    subject = Subject("dca", dims="3d", set={"network.name": network})
    found = subject.gradients(subject.sure().train(), subject.phases()[0])
    assert torch.isfinite(found["loss"]) and any(name.startswith("experts.tail.blocks") for name in found)


def test_its_title_and_its_caution_say_that_it_is_a_reconstruction() -> None:
    assert DCA.title == "DCA (reconstructed)" and "reconstruction" in DCA.caution
