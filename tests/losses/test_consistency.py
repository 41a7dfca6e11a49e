"""Consistency criteria: the sheets' worked numbers, slow forms written from the equations, where gradients go."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sslbench.losses import (
    DiceLoss,
    bcp_mix_loss,
    cct_loss,
    cps_dice_loss,
    cps_loss,
    entropy_loss,
    mse_consistency,
    predictive_entropy,
    rdrop_loss,
    softmax_mse,
    uamt_consistency,
    uamt_threshold,
    urpc_loss,
    vat_loss,
)
from tests.helpers.losses import close, example_logits, tiny_logits

A, T = example_logits(torch.float64), example_logits(torch.float64).roll(-1, dims=1)
a, b = tiny_logits("a"), tiny_logits("b")
# Box of a copy-pasted image (0 inside), labels outside and inside it.
MASK = torch.tensor([[1, 1], [0, 0]])
OUTSIDE, INSIDE = torch.tensor([[[0, 2], [1, 1]]]), torch.tensor([[[1, 2], [0, 2]]])

WORKED = {
    "mse": (lambda: mse_consistency(A, T.softmax(1)), 0.177883),
    "mse tiny": (lambda: mse_consistency(a, b.softmax(1)), 0.032590564),
    "mse map": (lambda: softmax_mse(a, b).mean(), 0.032590564),
    "cps": (lambda: cps_loss(A, T), 3.854502),
    "uamt first": (lambda: uamt_consistency(A, T, T[None], 0, 300), 0.687217),
    "uamt last": (lambda: uamt_consistency(A, T, T[None], 300, 300), 0.495808),
    "uamt tiny first": (lambda: uamt_consistency(a, b, b[None], 1000, 30000), 0.0),
    "uamt tiny last": (lambda: uamt_consistency(a, b, b[None], 30000, 30000), 0.017099263),
    "uamt threshold first": (lambda: uamt_threshold(0, 300), 0.521028),
    "uamt threshold early": (lambda: uamt_threshold(1000, 30000), 0.521481),
    "uamt threshold last": (lambda: uamt_threshold(300, 300), 0.693147),
    "urpc": (lambda: urpc_loss([A, T, A / 2, T / 2]), 0.203333),
    "urpc tiny": (lambda: urpc_loss([a, b, a / 2, 2 * b]), 0.089126036),
    "rdrop": (lambda: rdrop_loss(A, T), 0.311397),
    "rdrop tiny": (lambda: rdrop_loss(a, b), 0.046100076),
    "rdrop summed over classes": (lambda: 3 * rdrop_loss(a, b), 0.138300229),
    "rdrop width": (lambda: rdrop_loss(A, T, axis="width"), 0.167200),
    "rdrop width tiny": (lambda: rdrop_loss(a, b, axis="width"), 0.047709174),
}


@pytest.mark.parametrize(("term", "expected"), WORKED.values(), ids=WORKED.keys())
def test_the_worked_numbers(term, expected):
    close(term(), expected, 2e-6 if expected > 0.1 else 1e-8)


@pytest.mark.parametrize(
    ("weights", "quirk", "dice", "ce"),
    [
        ((0.5, 1.0), False, 0.572325829, 0.560783821),
        ((1.0, 0.5), False, 0.577581946, 0.586096384),
        ((0.5, 1.0), True, 0.685666854, 0.560783821),
        ((1.0, 0.5), True, 0.697285586, 0.586096384),
    ],
)
def test_the_worked_numbers_of_copy_paste(weights, quirk, dice, ce):
    value = bcp_mix_loss(a, OUTSIDE, INSIDE, MASK, *weights, released_bgmask=quirk)
    close(value, (dice + ce) / 2, 5e-9)
    close(bcp_mix_loss(a, OUTSIDE, INSIDE, MASK[None], *weights, released_bgmask=quirk), float(value), 1e-12)


def test_copy_paste_with_the_linear_dice_of_la():
    logits, outside, inside = torch.cat([a, b]), OUTSIDE.repeat(2, 1, 1), INSIDE.repeat(2, 1, 1)
    total = 0.0
    for weight, target, region in ((1.0, outside, MASK), (0.5, inside, 1 - MASK)):
        for n in range(2):
            p, scores = logits[n].softmax(0), []
            for c in range(3):
                y = (target[n] == c).double()
                sums = [float((part * region).sum()) for part in (p[c] * y, p[c], y)]
                scores.append((2 * sums[0] + 1e-5) / (sums[1] + sums[2] + 1e-5))
            nll = -p.log().gather(0, target[n][None])[0]
            total += weight * 0.5 * (1 - sum(scores) / 3 + float((nll * region).sum() / region.sum())) / 2
    close(bcp_mix_loss(logits, outside, inside, MASK, dice="linear"), total, 1e-12)


def test_predictive_entropy_of_the_sheet():
    expected = torch.tensor([[[0.952805, 0.975325], [0.952805, 0.665570]]], dtype=torch.float64)
    torch.testing.assert_close(predictive_entropy(b[None]), expected, rtol=0, atol=1e-6)
    mean = (a.softmax(1) + b.softmax(1)) / 2
    torch.testing.assert_close(predictive_entropy(torch.stack([a, b])), -(mean * (mean + 1e-6).log()).sum(1))


def test_the_entropy_cap_moves_the_threshold():
    assert uamt_threshold(5, 5, math.log(4)) == pytest.approx(math.log(4))
    assert uamt_threshold(9, 5) == uamt_threshold(5, 5)


def test_entropy_is_in_nats():
    close(entropy_loss(torch.zeros(2, 5, 3, 3)), math.log(5))
    close(entropy_loss(a), float(torch.distributions.Categorical(logits=a.movedim(1, -1)).entropy().mean()), 1e-12)


def test_closed_forms_of_the_pairs():
    kl = (
        F.kl_div(a.log_softmax(1), b.softmax(1), reduction="none"),
        F.kl_div(b.log_softmax(1), a.softmax(1), reduction="none"),
    )
    close(rdrop_loss(a, b), float(0.5 * (kl[0].mean() + kl[1].mean())), 1e-12)
    close(cct_loss(a, [b, a, 2 * b]), float((softmax_mse(a, b).mean() + softmax_mse(a, 2 * b).mean()) / 3), 1e-12)
    expected = DiceLoss()(a, b.argmax(1)) + DiceLoss()(b, a.argmax(1))
    close(cps_dice_loss(a, b), float(expected), 1e-12)


def test_urpc_from_its_equation():
    heads = [x.softmax(1) for x in (a, b, a / 2)]
    mean, total = sum(heads) / 3, 0.0
    for p in heads:
        v = (mean * (mean.log() - p.log())).sum(1, keepdim=True)
        total += float(((-v).exp() * (mean - p) ** 2).mean() / ((-v).exp().mean() + 1e-8) + v.mean()) / 3
    close(urpc_loss([a, b, a / 2]), total, 1e-10)


PAIRS = {
    "mse": (lambda x, y: mse_consistency(x, y.softmax(1)), False),
    "mse map": (lambda x, y: softmax_mse(x, y).mean(), True),
    "cps": (cps_loss, True),
    "cps dice": (cps_dice_loss, True),
    "rdrop": (rdrop_loss, True),
    "cct": (lambda x, y: cct_loss(x, [y, y / 2]), True),
    "urpc": (lambda x, y: urpc_loss([x, y]), True),
    "uamt": (lambda x, y: uamt_consistency(x, y, y[None], 1, 1), False),
    "bcp": (lambda x, y: bcp_mix_loss(x, y.argmax(1), x.argmax(1), torch.ones(x.shape[2:])), False),
}
each_pair = pytest.mark.parametrize(("term", "both"), PAIRS.values(), ids=PAIRS.keys())


@each_pair
def test_who_gets_a_gradient(term, both):
    x, y = A.clone().requires_grad_(), T.clone().requires_grad_()
    term(x, y).backward()
    assert x.grad.abs().sum() > 0
    assert (y.grad is not None and bool(y.grad.abs().sum() > 0)) is both


@pytest.mark.parametrize("term", [PAIRS[name][0] for name in ("mse map", "rdrop", "cct", "urpc")])
def test_gradients_agree_with_differences(term):
    assert torch.autograd.gradcheck(term, (a.clone().requires_grad_(), b.clone().requires_grad_()))


@each_pair
def test_bf16_logits_are_summed_in_fp32(term, both):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(2, 3, 50_000, generator=generator).bfloat16() for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        value = term(x, y)
    assert value.dtype == torch.float32
    close(value, float(term(x.double(), y.double())), 1e-4)


@each_pair
@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_certain_and_empty_predictions_are_finite(term, both, scale):
    x, y = (scale * A).float().requires_grad_(), (scale * T).float().requires_grad_()
    value = term(x, y)
    value.backward()
    assert value.isfinite() and x.grad.isfinite().all()


def test_no_certain_voxel_is_a_zero_with_a_graph():
    x = a.clone().requires_grad_()
    value = uamt_consistency(x, 0 * b, 0 * b[None], 1, 1)
    value.backward()
    assert value.item() == 0 and x.grad.abs().sum() == 0


# ------------------------------------------------------------------------------------------------------------- VAT


class Linear(nn.Module):
    """A network small enough to follow by hand, with batch statistics to be watched."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(3, 2, 1, 1, generator=generator, dtype=torch.float64))
        self.norm = nn.BatchNorm2d(3, affine=False).double()

    def forward(self, x):
        return self.norm(F.conv2d(x, self.weight))


@pytest.mark.parametrize("distance", ["dice", "pooled_dice"])
def test_vat_by_hand(distance):
    model, generator = Linear(), torch.Generator().manual_seed(1)
    x = torch.randn(2, 2, 4, 4, generator=generator, dtype=torch.float64)
    noise = torch.rand(x.shape, generator=generator, dtype=torch.float64) - 0.5

    def measure(logits, p):
        q = logits.softmax(1)
        if distance == "pooled_dice":
            return 1 - (2 * (q * p).sum() + 1e-8) / (q.sum() + p.sum() + 1e-8)
        return 1 - sum(
            (2 * (q[:, c] * p[:, c]).sum() + 1e-10) / ((q[:, c] ** 2).sum() + (p[:, c] ** 2).sum() + 1e-10) / 3
            for c in range(3)
        )

    def unit(d):
        return torch.stack([part / (part.norm() + 1e-8) for part in d])

    reference = Linear()
    with torch.no_grad():
        clean = reference(x).softmax(1)
    d = unit(noise).requires_grad_()
    (g,) = torch.autograd.grad(measure(reference(x + 10 * d), clean), d)
    expected = measure(reference(x + 6 * unit(g)), clean)
    value = vat_loss(model, x, noise=noise, distance=distance)
    torch.testing.assert_close(value, expected)
    assert model.weight.grad is None, "the power iteration left a gradient"
    value.backward()
    assert model.weight.grad.abs().sum() > 0
    once = Linear()
    once(x)
    torch.testing.assert_close(model.norm.running_mean, once.norm.running_mean)
    assert int(model.norm.num_batches_tracked) == 1 and model.norm.track_running_stats


def test_vat_draws_from_the_default_generator():
    x = torch.ones(2, 2, 4, 4, dtype=torch.float64)
    values = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        values.append(vat_loss(Linear().eval(), x).item())
    assert values[0] == values[1] != values[2]
