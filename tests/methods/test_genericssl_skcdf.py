"""GenericSSL and SKCDF: diffusion pieces in closed form, who learns from what, and the averages before a step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sslbench.config.job import Job
from sslbench.conformance.bench import Subject
from sslbench.core.errors import UsageError
from sslbench.core.step import Statistics
from sslbench.losses.weighting import DiffDW, batch_dice
from sslbench.methods import genericssl
from sslbench.methods.genericssl import alpha_bars, ddim_step, diffuse, gumbel_softmax, sampling_times, smooth
from sslbench.methods.skcdf import class_ratios
from sslbench.training.experiment import Builder, build_method


def test_the_sampling_times_are_those_of_the_sheet() -> None:
    assert sampling_times(1000, 10) == [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]


def test_the_kept_signal_goes_from_almost_all_to_almost_none() -> None:
    kept = alpha_bars(1000)
    assert kept[0] == pytest.approx(1 - 1e-4) and kept[1] == pytest.approx((1 - 1e-4) * (1 - 1e-4 - 0.0199 / 999))
    assert kept[-1] == pytest.approx(4.0358e-5, rel=1e-3)


def test_a_ddim_step_from_the_truth_has_the_same_noise() -> None:
    kept, clean, noise = alpha_bars(1000), torch.randn(2, 3, 4, 4, 4), torch.randn(2, 3, 4, 4, 4)
    noisy = diffuse(clean, noise, kept[torch.tensor([700, 700])])
    expected = kept[300].sqrt() * clean + (1 - kept[300]).sqrt() * noise
    assert torch.allclose(ddim_step(noisy, clean, kept[700], kept[300]), expected, atol=1e-4)


def test_gumbel_softmax_falls_on_classes_as_often_as_their_probability() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0]).view(1, 3, 1)
    uniform = torch.rand(1, 3, 200_000, generator=torch.Generator().manual_seed(0))
    found = gumbel_softmax(logits, uniform)
    assert torch.allclose(found.sum(1), torch.ones(1, 200_000))
    share = found.argmax(1).flatten().bincount(minlength=3) / 200_000
    assert torch.allclose(share, logits.softmax(1).flatten(), atol=5e-3)
    assert torch.isfinite(gumbel_softmax(logits, torch.tensor([0.0, 1.0, 0.5]).view(1, 3, 1))).all()


def test_smoothing_is_a_gaussian_of_three() -> None:
    impulse = torch.zeros(1, 2, 5, 5, 5)
    impulse[0, 1, 2, 2, 2] = 1
    side = torch.exp(torch.tensor([-0.5, 0.0, -0.5]))
    side /= side.sum()
    expected = torch.einsum("i,j,k->ijk", side, side, side)
    found = smooth(impulse)
    assert torch.allclose(found[0, 1, 1:4, 1:4, 1:4], expected) and not found[0, 0].any()
    assert found.sum() == pytest.approx(1)


class Generic:
    """GenericSSL on a tiny network, one step taken."""

    def __init__(self, consistency_weight: float = 1.0, spelt: str = "genericssl") -> None:
        subject = Subject(spelt, dims="3d")
        self.method: Any = subject.fresh().train()
        phase = subject.phases()[0]
        self.before = {name: value.clone() for name, value in self.method.named_parameters()}
        self.asked: list[dict[str, Any]] = []
        ask = self.method.loss.supervised

        def spy(logits: Tensor, target: Tensor, **rest: Any) -> Tensor:
            self.asked.append({"logits": logits, "target": target, **rest})
            result: Tensor = ask(logits, target, **rest)
            return result

        self.method.loss.supervised = spy
        self.batch = subject.batch(phase)
        self.terms = subject.terms(self.method, phase, self.batch, consistency_weight)

    def reached(self, term: str) -> set[str]:
        self.method.zero_grad()
        self.terms[term].backward(retain_graph=True)
        return {name for name, parameter in self.method.named_parameters() if parameter.grad is not None}


def test_each_decoder_learns_from_its_own_term() -> None:
    generic = Generic()
    supervised, pseudo = generic.reached("supervised"), generic.reached("pseudo")
    assert not [name for name in supervised if name.startswith("net.decoders.0")]
    assert [name for name in supervised if name.startswith("net.decoders.1")]
    assert [name for name in supervised if name.startswith("net.denoiser.decoder")]
    assert [name for name in pseudo if name.startswith("net.decoders.0")]
    assert not [name for name in pseudo if name.startswith(("net.decoders.1", "net.denoiser"))]


def test_the_predicting_decoder_is_pulled_towards_the_two_others() -> None:
    generic = Generic()
    for name, parameter in generic.method.net.decoders[0].named_parameters():
        others = [generic.before[f"{part}.{name}"] for part in ("net.denoiser.decoder", "net.decoders.1")]
        expected = 0.99 * generic.before[f"net.decoders.0.{name}"] + 0.005 * (others[0] + others[1])
        assert torch.allclose(parameter, expected, atol=1e-7), name


def test_labeled_patches_are_weighted_by_the_difficulty_that_denoising_had() -> None:
    generic = Generic()
    denoised, weighted, taught = generic.asked
    known = generic.batch.label["weak"][: generic.batch.num_labeled]
    difficulty = DiffDW(4).difficulty(batch_dice(denoised["logits"].detach(), known))
    assert torch.allclose(weighted["class_weight"], 4 * difficulty)
    assert "class_weight" not in denoised and torch.equal(denoised["target"], known)
    assert taught["source"] == "pseudo" and taught["target"].shape == (2, 16, 16, 32)


def test_pseudo_labels_are_what_the_sample_and_the_weighted_decoder_agree_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(genericssl, "smooth", lambda x: torch.zeros_like(x))
    generic = Generic()
    method, unlabeled = generic.method, generic.batch.image["weak"][generic.batch.num_labeled :]
    assert method.net.denoiser.time is not None
    # Without the sample's share it is the weighted decoder's own label; dropout is off, so that a pass can be repeated.
    method.eval()
    subject = Subject("genericssl", dims="3d")
    generic.asked.clear()
    subject.terms(method, subject.phases()[0], generic.batch)
    features = method.net.encode(unlabeled)
    decoder = method.net.decoders[1]
    assert torch.equal(generic.asked[2]["target"], decoder.head(decoder(features)[-1]).argmax(1))


def test_denoising_leaves_no_trace_in_the_statistics_that_inference_takes() -> None:
    """The encoder's count of batches: the weighted decoder's two passes and the predicting one's, none of eleven."""
    net = Generic().method.net
    counts = {
        part: {int(value) for name, value in module.named_buffers() if name.endswith("num_batches_tracked")}
        for part, module in (("encoder", net.encoder), ("embedding", net.embedding), ("denoiser", net.denoiser))
    }
    assert counts == {"encoder": {3}, "embedding": {3}, "denoiser": {11}}


def test_the_released_statistics_count_the_denoising_passes_and_change_nothing_else() -> None:
    plain, released = Generic(), Generic(spelt="genericssl[released_statistics=true]")
    net = released.method.net
    counts = {int(value) for name, value in net.encoder.named_buffers() if name.endswith("num_batches_tracked")}
    assert counts == {3 + 11}
    assert torch.equal(plain.terms["loss"], released.terms["loss"])
    means = [dict(generic.method.net.encoder.named_buffers()) for generic in (plain, released)]
    assert not any(torch.equal(means[0][name], means[1][name]) for name in means[0] if name.endswith("running_mean"))


def test_a_two_dimensional_recipe_is_refused_in_a_line() -> None:
    with pytest.raises(UsageError, match="diffusion_vnet takes 3 sides"):
        _ = Job(recipe="ssl4mis-acdc", method="genericssl", labeled="7 patients", seed=0).resolved


LEARNERS = {"genericssl": ["denoiser", "weighted", "net"], "skcdf": ["labeled", "labeled_balanced", "net", "balanced"]}


@pytest.mark.parametrize("method", LEARNERS)
def test_a_weighting_serves_all_that_learns(method: str) -> None:
    asked: list[tuple[str, Tensor | None]] = []
    built = Subject(f"{method}[weighting=distdw]", dims="3d")
    fresh: Any = built.fresh().train()
    assert sorted(fresh.loss.weightings) == sorted(LEARNERS[method])
    ask = fresh.loss.inner.supervised

    def spy(logits: Tensor, target: Tensor, **rest: Any) -> Tensor:
        asked.append((rest["key"], rest.get("class_weight")))
        result: Tensor = ask(logits, target, **rest)
        return result

    fresh.loss.inner.supervised = spy
    built.terms(fresh, built.phases()[0])
    assert [key for key, _ in asked] == LEARNERS[method]
    for key, weight in asked:
        own = fresh.loss.weightings[key].weights
        if key == "weighted":  # which has weights of its own
            own = own * 4 * (fresh.difficulty.unlearned + 1e-8).div(fresh.difficulty.learned + 1e-8).pow(0.2)
            own = own * fresh.difficulty.unsolved
        torch.testing.assert_close(weight, own)


@pytest.mark.parametrize(("method", "learner"), [("genericssl", "net"), ("skcdf", "balanced")])
def test_a_learner_without_labels_has_no_dice_to_follow(method: str, learner: str) -> None:
    for spelt in (f"{method}[weighting=diffdw]", f"{method}[weighting.{learner}=diffdw]"):
        with pytest.raises(UsageError, match=r"follows the Dice of labelled patches, and '.*' sees none"):
            _ = Job(recipe="dhc-synapse", method=spelt, labeled="20%", seed=0).resolved
    taught = f"{method}[weighting.{LEARNERS[method][0]}=diffdw]"
    found = Job(recipe="dhc-synapse", method=taught, labeled="20%", seed=0).resolved.weightings
    assert {key: spec["name"] for key, spec in found.items()} == {LEARNERS[method][0]: "diffdw"}


def test_class_ratios_leave_absent_classes_alone() -> None:
    counts = torch.tensor([[800, 60, 30, 5, 0], [100, 0, 0, 5, 0]])
    assert torch.allclose(class_ratios(counts), torch.tensor([10 / 900, 10 / 60, 10 / 30, 1.0, 1.0]))
    assert torch.equal(class_ratios(torch.zeros(2, 3)), torch.ones(3))


@pytest.mark.parametrize(
    ("recipe", "classes", "decoder", "total"),
    [("dhc2024-synapse", 14, 8_283_292, 50_917_320), ("dhc-amos", 16, 8_283_424, 50_917_584)],
)
def test_the_published_sizes_of_skcdf(recipe: str, classes: int, decoder: int, total: int) -> None:
    job = Job(recipe=recipe, method="skcdf", labeled="10%", seed=0).resolved
    patch = tuple(job.recipe.patch_size)
    statistics = Statistics(torch.ones(4, classes, dtype=torch.int64), 4, 16, (patch,) * 20, classes, patch, (2, 2))
    with torch.device("meta"):
        method: Any = build_method(job, Builder(job, 1, statistics), statistics)

    def count(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    parts = (method.net.encoder, method.labeled, method.unlabeled, method.local, method.whole)
    assert [count(part) for part in parts] == [29_495_296, decoder, decoder, 2_362_000, 2_493_440]
    assert count(method) == total


class Decoupled:
    """SKCDF on a tiny network."""

    def __init__(self, **given: Any) -> None:
        self.subject = Subject("skcdf", dims="2d", **given)
        self.method: Any = self.subject.fresh().train()
        self.phase = self.subject.phases()[0]
        self.batch = self.subject.batch(self.phase)


def test_the_convolutions_of_both_attentions_begin_as_the_network_does() -> None:
    for init, variance in (("default", 1 / (3 * 256)), ("xavier", 2 / 512), ("kaiming", 2 / 256)):
        method = Decoupled(set={"network.init": init}).method
        for attention in (method.local, method.whole):
            assert attention.mix.weight.shape == (256, 256, 1, 1)
            assert attention.mix.weight.var().item() == pytest.approx(variance, rel=0.05), init


def test_heads_and_decoder_follow_before_the_step() -> None:
    decoupled = Decoupled()
    method = decoupled.method
    labeled, unlabeled = method.labeled, method.unlabeled
    head = [value.clone() for value in labeled.decoder.head.parameters()]
    balanced = [value.clone() for value in labeled.balanced.parameters()]
    followed = [0.99 * own + 0.01 * other for own, other in zip(head, balanced, strict=True)]
    own = [value.clone() for value in unlabeled.decoder.head.parameters()]
    own_balanced = [value.clone() for value in unlabeled.balanced.parameters()]
    deepest = unlabeled.decoder.blocks[0][0].weight.clone(), labeled.decoder.blocks[0][0].weight.clone()
    method._follow()
    for found, expected in zip(labeled.decoder.head.parameters(), followed, strict=True):
        assert torch.allclose(found, expected, atol=1e-7)
    assert torch.allclose(unlabeled.decoder.blocks[0][0].weight, 0.99 * deepest[0] + 0.01 * deepest[1], atol=1e-7)
    for found, mine, theirs, balance, their_balance in zip(
        unlabeled.decoder.head.parameters(), own, followed, own_balanced, balanced, strict=True
    ):
        moved = 0.99 * mine + 0.01 * theirs
        assert torch.allclose(found, 0.99 * moved + 0.01 * (0.99 * balance + 0.01 * their_balance), atol=1e-7)


def test_the_decoders_learn_from_one_half_each() -> None:
    decoupled = Decoupled()
    method = decoupled.method
    terms = decoupled.subject.terms(method, decoupled.phase, decoupled.batch)

    def reached(term: str) -> set[str]:
        method.zero_grad()
        terms[term].backward(retain_graph=True)
        return {name for name, parameter in method.named_parameters() if parameter.grad is not None}

    supervised, pseudo = reached("supervised"), reached("pseudo")
    assert {name for name in supervised if name.startswith("labeled.balanced")}
    assert not {name for name in supervised if name.startswith(("net.decoders", "unlabeled"))}
    assert {name for name in pseudo if name.startswith("net.decoders")}
    assert {name for name in pseudo if name.startswith("unlabeled.balanced")}
    assert not {name for name in pseudo if name.startswith("labeled")}


def test_the_released_second_pass_is_that_of_inference_too() -> None:
    """The same weights, the heads' channels in the code's order, in windows no dropout of what comes out."""
    decoupled, other = Decoupled(), Decoupled(set={"method.released_second_pass": True})
    plain, released = decoupled.method, other.method
    released.load_state_dict(plain.state_dict())
    x = decoupled.batch.image["weak"]
    for method in (plain, released):
        method.eval()
    features = released.net.encode(x)
    deepest = features.maps[-1]
    attended = released.whole.within(released.local.within(deepest, "interleaved", drop=False), "crossed")
    last = len(features.maps) - 1
    expected = released.unlabeled(features.map(lambda stage, content: attended if stage == last else content))[0]
    assert torch.equal(released.predict(x), expected.softmax(1))
    assert not torch.equal(released.predict(x), plain.predict(x))
    assert not torch.allclose(attended, plain.whole.within(plain.local.within(deepest)), atol=1e-3)
    # Training: of the windows' block the softmax of the scores drops out, what comes out does not.
    released.train()
    calls: list[float] = []
    released.local.attention.dropout.register_forward_hook(lambda *_: calls.append(1))
    released.local.within(deepest, "interleaved", drop=False)
    assert len(calls) == 1


def test_what_is_not_kept_has_logits_of_0_and_background_as_target() -> None:
    decoupled = Decoupled()
    method = decoupled.method
    method.kept.copy_(torch.tensor([0.0, 1.0, 1.0, 1.0]))  # background is never kept, the rest always
    asked: list[tuple[Tensor, Tensor]] = []
    ask = method.loss.supervised

    def spy(logits: Tensor, target: Tensor, **rest: Any) -> Tensor:
        asked.append((logits, target))
        result: Tensor = ask(logits, target, **rest)
        return result

    method.loss.supervised = spy
    decoupled.subject.terms(method, decoupled.phase, decoupled.batch)
    known = decoupled.batch.label["weak"][: decoupled.batch.num_labeled]
    logits, target = asked[1]
    assert torch.equal(target, known)
    assert not logits.movedim(1, -1)[known == 0].any() and logits.movedim(1, -1)[known > 0].all()
