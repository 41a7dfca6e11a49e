"""DePL, DST and Basak et al.: worked numbers; what is debiased, reversed and sampled; what takes no gradient."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sslbench.conformance.bench import Subject
from sslbench.methods import basak
from sslbench.methods.basak import fused_confidence, indicators
from sslbench.methods.dst import reversal_factor, worst_case_loss
from sslbench.networks.gradient_reversal import reverse_gradient
from tests.helpers.losses import C, close, example_labels, example_logits

L, T = example_logits(torch.float64), example_logits(torch.float64).roll(-1, dims=1)


def changed(left, right):
    """Parts of the method whose gradient differs, by the first two words of their names."""
    names = left.keys() | right.keys()
    return {
        ".".join(name.split(".")[:2])
        for name in names
        if name not in left or name not in right or not torch.equal(left[name], right[name])
    }


# ------------------------------------------------------------------------------------------------------------- DST


def test_dst_worst_case_loss():
    both, other = torch.cat([L, L]), torch.cat([T, T]).requires_grad_()
    found = worst_case_loss(both, other, 2)
    close(found, 4.147572)
    target = L.argmax(1)
    wrong = 1 - T.softmax(1).gather(1, target.unsqueeze(1))
    close(found, float(2 * F.cross_entropy(T, target) - (wrong + 1e-6).clamp_max(1).log().mean()))
    (gradient,) = torch.autograd.grad(found, other)
    at = target.unsqueeze(1)
    # Towards the main head's class on labelled patches, away from it on the others.
    assert (gradient[:2].gather(1, at) < 0).all() and (gradient[2:].gather(1, at) > 0).all()


def test_dst_reversal_grows_from_0_to_its_largest():
    assert reversal_factor(0) == 0
    assert reversal_factor(500) == pytest.approx(0.2 / (1 + math.exp(-1)) - 0.1)
    assert reversal_factor(100_000) == pytest.approx(0.1)
    x = torch.randn(3, requires_grad=True)
    y = reverse_gradient(x, 0.25)
    (y * torch.arange(3.0)).sum().backward()
    assert torch.equal(y, x) and torch.equal(x.grad, -0.25 * torch.arange(3.0))


def test_dst_main_heads_learn_from_labels_alone():
    subject = Subject("dst", dims="3d")
    phase = subject.phases()[0]
    with_terms, without = (
        subject.gradients(subject.sure().train(), phase, consistency_weight=weight) for weight in (1.0, 0.0)
    )
    assert changed(with_terms, without) >= {"a.encoder", "b.encoder", "pseudo.a", "pseudo.b", "worst.a", "worst.b"}
    assert not {"a.decoders", "b.decoders"} & changed(with_terms, without)


def test_dst_released_pseudo_heads_take_no_gradient():
    subject = Subject("dst[released_pseudo_head=true]", dims="3d")
    phase = subject.phases()[0]
    found, without = (
        subject.gradients(subject.sure().train(), phase, consistency_weight=weight) for weight in (1.0, 0.0)
    )
    assert not [name for name in found if name.startswith("pseudo.")]
    assert "a.decoders" in changed(found, without)


def test_dst_reverses_what_the_worst_case_head_does_to_the_encoder():
    """Labels and pseudo-labels aside, a step against the encoder's gradient makes the worst case worse."""

    def encoder_gradient(largest):
        subject = Subject(f"dst[threshold=0.9999999,reversal={largest}]", dims="3d")
        found = subject.gradients(subject.fresh().eval(), subject.phases()[0])
        return torch.cat([value.flatten() for name, value in found.items() if name.startswith("a.encoder")])

    none, once, twice = (encoder_gradient(largest) for largest in (0, 0.1, 0.2))
    assert not torch.equal(none, once)
    torch.testing.assert_close(twice - none, 2 * (once - none), rtol=1e-3, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------ DePL


def one_step(method_spelling, change=lambda method: None):
    subject = Subject(method_spelling, dims="2d")
    method = subject.sure().train()
    change(method)
    subject.terms(method, subject.phases()[0])
    return method


def test_depl_preferences_follow_the_unlabeled_predictions():
    subject = Subject("depl")
    method = subject.fresh().train()
    seen = {}
    observe = method.loss.observe
    method.loss.observe = lambda step, key, logits, labels: (
        seen.__setitem__(key, logits),
        observe(step, key, logits, labels),
    )
    subject.terms(method, subject.phases()[0])
    for key in "ab":
        expected = 0.99 / 4 + 0.01 * seen[key][2:].detach().softmax(1).mean(0, keepdim=True)
        torch.testing.assert_close(method.get_buffer(f"preference_{key}"), expected)
        assert method.get_buffer(f"preference_{key}").shape == (1, 4, 32, 32)


def test_depl_pseudo_labels_are_made_before_the_preference_moves_and_without_it():
    """A preference for class 1 at every place turns pseudo-labels to the others."""
    asked = []

    def spy(method):
        ce = method.loss.ce
        method.loss.ce = lambda logits, target, **rest: (asked.append((target, rest)), ce(logits, target, **rest))[1]

    def prefer(method):
        method.preference_a.copy_(
            torch.tensor([0.5 - 1e-9, 0.5 - 1e-9, 1e-9, 1e-9]).view(1, 4, 1, 1).expand(1, 4, 32, 32)
        )
        method.options = method.options.model_copy(update={"tau": 1000.0})
        spy(method)

    one_step("depl", spy)
    plain = [(target, rest) for target, rest in asked if rest["source"] == "pseudo"]
    asked.clear()
    one_step("depl", prefer)
    debiased = [(target, rest) for target, rest in asked if rest["source"] == "pseudo"]
    taught = {rest["key"]: target for target, rest in debiased}
    assert taught["b"].unique().tolist() in ([2], [3], [2, 3])  # a teaches b
    assert torch.equal(taught["a"], {rest["key"]: target for target, rest in plain}["a"])  # b prefers nothing
    assert all(not rest["voxel_weight"].requires_grad and rest.get("mask") is None for _, rest in debiased)


def test_depl_paper_form_shifts_the_learner_on_unlabeled_patches():
    asked = []

    def spy(method):
        method.preference_a.copy_(torch.tensor([0.7, 0.1, 0.1, 0.1]).view(1, 4, 1, 1))
        ce = method.loss.ce
        method.loss.ce = lambda logits, target, **rest: (asked.append((logits, rest)), ce(logits, target, **rest))[1]

    for form in ("released", "paper"):
        method = one_step(f"depl[form={form}]", spy)
    pseudo = [logits for logits, rest in asked if rest["source"] == "pseudo" and rest["key"] == "a"]
    torch.testing.assert_close(pseudo[1][:2], pseudo[0][:2])
    shift = (pseudo[1] - pseudo[0])[2:]
    expected = torch.tensor([0.7, 0.1, 0.1, 0.1]).log().view(1, 4, 1, 1).expand_as(shift)
    torch.testing.assert_close(shift, expected, rtol=1e-3, atol=1e-3)
    assert method.preference_a.shape == (1, 4, 1, 1)
    torch.testing.assert_close(method.preference_a.sum(), torch.tensor(1.0))


@pytest.mark.parametrize("preference", [1e-3, 1e-9, 1e-30, 0.0])
def test_depl_debiases_by_what_a_network_hardly_ever_predicts(preference):
    method = Subject("depl").fresh()
    method.preference_a.fill_(1.0).narrow(1, 3, 1).fill_(preference)
    shift = method._shift("a")[0, :, 0, 0]
    assert shift[:3].tolist() == [0, 0, 0] and shift.isfinite().all()
    assert shift[3].item() == pytest.approx(math.log(max(preference, torch.finfo(torch.float32).tiny)), rel=1e-6)


# ----------------------------------------------------------------------------------------------------------- Basak


@pytest.mark.parametrize(
    ("broadcast", "expected"), [(False, [0.3253, 0.2631, 0.5333]), (True, [0.6506, 0.5263, 1.0666])]
)
def test_basak_confidence_of_the_true_class(broadcast, expected):
    found = indicators(L, example_labels("full"), broadcast)
    assert found.voxels.tolist() == [30, 8, 2]
    assert (found.confidence / found.voxels).tolist() == pytest.approx(expected, abs=6e-5)


def test_basak_indicators_by_class():
    p, labels = L.softmax(1), example_labels("full")
    labels[0, 0, 0, 0] = -1
    found = indicators(L, labels)
    for c in range(C):
        inside = labels == c
        assert found.voxels[c] == inside.sum()
        close(found.entropy[c], float((p[:, c] * p.log().sum(1))[inside].sum()))
        close(found.variance[c], float((p.amax(1) - p[:, c])[inside].sum()))


def test_basak_fused_confidence_by_hand():
    means = torch.tensor([[0.0, math.log(2), math.log(5)]] * 3, dtype=torch.float64)  # R = 1/8, 2/8, 5/8
    rank = [1 - math.exp(-math.exp(-2 * share)) for share in (1 / 8, 2 / 8, 5 / 8)]
    raw = [3 * 0.632, 3 * rank[1] * (1 - 2 / 8), 3 * rank[2] * (1 - 5 / 8)]
    assert fused_confidence(means, 2).tolist() == pytest.approx([value / raw[0] for value in raw])
    raw[0] = 3 * rank[0] * (1 - 1 / 8)
    assert fused_confidence(means, 5).tolist() == pytest.approx([value / raw[0] for value in raw])


def test_basak_rates_change_in_the_last_step_of_an_epoch():
    """DHC's code has them before that step's mask is drawn."""
    subject = Subject("basak")
    method, phase = subject.fresh().train(), subject.phases()[0]
    step = subject.step(phase)
    subject.terms(method, phase)
    method.after_step(step)
    assert method.seen.any() and torch.equal(method.rate, torch.ones(4))
    assert method.seen[3].max() == 1  # the steps that held a class
    object.__setattr__(step, "last_of_epoch", True)
    seen, drawn = [], method._voxels

    def voxels(logits, step):
        seen.append(method.rate.clone())
        return drawn(logits, step)

    method._voxels = voxels
    fuse = basak.fused_confidence
    with pytest.MonkeyPatch.context() as patch:
        means = []
        patch.setattr(basak, "fused_confidence", lambda found, top: means.append((found, top)) or fuse(found, top))
        method.training_step(subject.batch(phase), step)
    ((found, top),) = means
    fused = fused_confidence(found, 2)
    assert top == 2 and not method.seen.any()
    torch.testing.assert_close(method.confidence, 0.01 * fused)
    doubt = 1 - 0.01 * fused
    torch.testing.assert_close(method.rate, (doubt / doubt.max()) ** 2.5)
    assert torch.equal(seen[0], method.rate)


def test_basak_voxels_weigh_what_the_student_is_sure_of_where_its_class_is_kept():
    subject = Subject("basak")
    method = subject.fresh()
    method.rate = torch.tensor([0.0, 1.0, 1.0, 0.0])
    logits = torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    found = method._voxels(logits, subject.step(subject.phases()[0]))
    sure, label = logits.softmax(1).max(1)
    torch.testing.assert_close(found, torch.where((label == 1) | (label == 2), sure**1.5, 0.0))
