"""Every loss against its slow form in `slow.py`: values and gradients on random batches, with all weights."""

from __future__ import annotations

import pytest
import torch

from sslbench.config.recipe import CriteriaSpec
from sslbench.losses import GACELoss, GADiceLoss
from tests.helpers import slow_losses as slow
from tests.helpers.losses import make_loss, observed

CLASSES, SHAPE = 4, (3, 4)  # two samples: 24 voxels

WEIGHTS = [(), ("m",), ("v",), ("w",), ("m", "v", "w")]
NAMES = {"m": "mask", "v": "voxel_weight", "w": "class_weight"}
each_weighting = pytest.mark.parametrize("weights", WEIGHTS, ids=lambda chosen: "".join(chosen) or "plain")


def random_batch(seed=0, absent=False):
    """Logits (2, C, *S), labels, the logits of a reference, and weights, all voxels distinct."""
    g = torch.Generator().manual_seed(seed)
    logits, other = (2 * torch.randn(2, CLASSES, *SHAPE, generator=g, dtype=torch.float64) for _ in range(2))
    labels = torch.randint(CLASSES - absent, (2, *SHAPE), generator=g)
    given = {
        "m": torch.rand(2, *SHAPE, generator=g) > 0.3,
        "v": torch.rand(2, *SHAPE, generator=g, dtype=torch.float64).mul(2).sub(0.3).clamp_min(0),
        "w": torch.tensor([0.2, 1.5, 3.0, 0.7], dtype=torch.float64),
    }
    return logits, labels, other, given


def agree(fast, plain, logits):
    """Equal values and gradients of two functions of the logits."""
    outcomes = []
    for term in (fast, plain):
        x = logits.clone().requires_grad_()
        value = term(x)
        outcomes.append((value.detach(), torch.autograd.grad(value, x)[0]))
    torch.testing.assert_close(outcomes[0], outcomes[1], rtol=1e-7, atol=1e-10)


# name of the loss -> its slow cross-entropy and Dice
plain_ce, plain_dice = slow.cross_entropy, slow.dice
COUNTS = [900, 60, 30, 10]
SLOW = {
    "default": (plain_ce, plain_dice),
    "ga": (slow.gace, slow.gadice),
    "ga[gamma=0.25,k=30,absent=p2]": (
        lambda *a: slow.gace(*a, k=30.0, gamma=0.25),
        lambda *a: slow.gadice(*a, absent="p2"),
    ),
    "ga_gd": (lambda *a: slow.gace(*a, k=100.0, gamma=1.0), slow.gadice),
    "ga_clse": (lambda *a: slow.gace(*a, gamma=1.0), lambda *a: slow.gadice(*a, absent="none")),
    "ga_dwe": (lambda *a: slow.gace(*a, k=100.0), lambda *a: slow.gadice(*a, absent="none")),
    "ga_gd_clse": (lambda *a: slow.gace(*a, gamma=1.0), slow.gadice),
    "ga_gd_dwe": (lambda *a: slow.gace(*a, k=100.0), slow.gadice),
    "ga_clse_dwe": (slow.gace, lambda *a: slow.gadice(*a, absent="none")),
    "focal": (slow.focal, plain_dice),
    "focal[gamma=0.5]": (lambda *a: slow.focal(*a, gamma=0.5), plain_dice),
    "topk_ce": (lambda *a: slow.gace(*a, gamma=1.0), plain_dice),
    "tversky": (plain_ce, slow.tversky),
    "focal_tversky": (plain_ce, lambda *a: slow.tversky(*a, gamma=4 / 3)),
    "generalized_dice": (plain_ce, slow.generalized_dice),
    "weighted_ce": (
        lambda x, y, m, v, w: plain_ce(x, y, m, v, (1.0 if w is None else w) * (900 / torch.tensor(COUNTS)) ** (1 / 3)),
        plain_dice,
    ),
}


def built(spelt, **more):
    from sslbench.config.text import parse_component

    name, options = parse_component(spelt)
    return make_loss(name, num_classes=CLASSES, counts=COUNTS, **options, **more)


@pytest.mark.parametrize("spelt", SLOW)
@pytest.mark.parametrize("absent", [False, True], ids=["all classes", "one absent"])
@each_weighting
def test_a_loss_is_its_equation(spelt, absent, weights):
    loss, (slow_ce, slow_dice) = built(spelt), SLOW[spelt]
    logits, labels, _, given = random_batch(1, absent)
    rest = {NAMES[part]: given[part] for part in weights}
    inputs = [given[part] if part in weights else None for part in "mv"]
    w = given["w"] if "w" in weights else None

    for term, plain in (("ce", slow_ce), ("dice", slow_dice)):

        def slowly(x, plain=plain):
            rows, y, m, v = slow.voxels(x, labels, *inputs)
            return plain(rows, y, m, v, w)

        def fast(x, term=term):
            return getattr(loss, term)(x, labels, source="label", key="net", **rest)

        # The class weights of `weighted_ce` are kept in fp32.
        if spelt == "weighted_ce" and term == "ce":
            torch.testing.assert_close(fast(logits), slowly(logits), rtol=1e-6, atol=1e-9)
        else:
            agree(fast, slowly, logits)


@each_weighting
def test_the_foreground_dice_of_the_dhc_family(weights):
    loss = make_loss("default", CriteriaSpec(dice="foreground", smooth=1), num_classes=CLASSES)
    logits, labels, _, given = random_batch(2)
    rest = {NAMES[part]: given[part] for part in weights}

    def slowly(x):
        rows, y, m, v = slow.voxels(x, labels, *(given[part] if part in weights else None for part in "mv"))
        return slow.foreground_dice(rows, y, m, v, given["w"] if "w" in weights else None)

    agree(lambda x: loss.dice(x, labels, source="label", key="net", **rest), slowly, logits)


@pytest.mark.parametrize("absent", ["p", "p2", "inv", "none"])
@pytest.mark.parametrize("seed", range(3))
def test_gadice_in_all_its_designs(absent, seed):
    logits, labels, _, _ = random_batch(seed, absent=True)
    agree(
        lambda x: GADiceLoss(absent)(x, labels), lambda x: slow.gadice(*slow.voxels(x, labels), absent=absent), logits
    )


@pytest.mark.parametrize("k", [1, 5, 10, 30, 50, 100])
@pytest.mark.parametrize("gamma", [0, 0.25, 0.5, 0.75, 1])
def test_gace_at_every_setting_of_the_papers_tables(k, gamma):
    logits, labels, _, _ = random_batch(3)
    agree(
        lambda x: GACELoss(k, gamma)(x, labels),
        lambda x: slow.gace(*slow.voxels(x, labels), k=float(k), gamma=float(gamma)),
        logits,
    )


# ---------------------------------------------------------------------------------------------------------- MetaSSL

VARIANTS = {
    "metassl": {},
    "metassl_conf_bh": {"partition": "confidence"},
    "metassl_cons_bh": {"partition": "consistency"},
    "metassl[phi=linear,delta_l=0.6]": {"shape": "linear", "delta_l": 0.6},
    "metassl[phi=reciprocal,delta_l=0.6]": {"shape": "reciprocal", "delta_l": 0.6},
    "metassl[phi=cosine,delta_l=0.6]": {"shape": "cosine", "delta_l": 0.6},
    "metassl[beta=1,delta_u=0.2]": {"beta": 1.0, "delta_u": 0.2},
    "metassl[uncertainty=mad]": {"measure": "mad"},
    "metassl[uncertainty=variance]": {"measure": "variance"},
    "metassl[uncertainty=std]": {"measure": "std"},
    "metassl[alpha_on=old]": {"on": "old"},
    "metassl[alpha=0.7,init=0.9]": {"alpha": 0.7, "init": 0.9},
}


def slow_metassl(logits, labels, other, stream, given, weights, options, term):
    """A term of `metassl` for the reference `other`, whose thresholds saw this batch once."""
    chosen = {key: options[key] for key in ("alpha", "on", "measure") if key in options}
    split = {key: options[key] for key in ("partition", "measure") if key in options}
    shape = {key: options[key] for key in ("shape", "beta", "delta_u", "delta_l") if key in options}
    target = labels if stream == "label" else other.argmax(1)
    x, y, m, v = slow.voxels(logits, target, *(given[part] if part in weights else None for part in "mv"))
    P = slow.voxels(other.softmax(1))[0]
    gamma = slow.adaptive([options.get("init", 0.5)] * CLASSES, P, **chosen)
    found = slow.regions(x, y, P, gamma, stream, **split)
    plain = slow.quad_ce if term == "ce" else slow.quad_dice
    return plain(x, y, found, stream, m, v, given["w"] if "w" in weights else None, **shape)


@pytest.mark.parametrize("spelt", VARIANTS)
@pytest.mark.parametrize("stream", ["label", "pseudo"])
@pytest.mark.parametrize("term", ["ce", "dice"])
def test_metassl_is_its_equations(spelt, stream, term):
    check_metassl(spelt, stream, term, ())


@pytest.mark.parametrize("stream", ["label", "pseudo"])
@pytest.mark.parametrize("term", ["ce", "dice"])
@each_weighting
def test_metassl_with_weights(stream, term, weights):
    check_metassl("metassl", stream, term, weights)


def check_metassl(spelt, stream, term, weights):
    logits, labels, other, given = random_batch(4)
    loss = built(spelt)
    observed(loss, other, labels if stream == "label" else -torch.ones_like(labels), "peer")
    rest = {NAMES[part]: given[part] for part in weights} | {"reference": ("peer", other.softmax(1))}
    target = labels if stream == "label" else other.argmax(1)
    agree(
        lambda x: getattr(loss, term)(x, target, source=stream, key="net", **rest),
        lambda x: slow_metassl(x, labels, other, stream, given, weights, VARIANTS[spelt], term),
        logits,
    )


@each_weighting
@pytest.mark.parametrize("stream", ["label", "pseudo"])
@pytest.mark.parametrize("bug", [False, True], ids=["intended", "uc_bg_twice"])
def test_the_released_form_is_its_sheet(stream, weights, bug):
    """L = S + λ·H with labels, U with pseudo-labels, thresholds ½ old and ½ new."""
    logits, labels, other, given = random_batch(5)
    loss = built("metassl_released", uc_bg_twice=bug)
    seen = labels if stream == "label" else -torch.ones_like(labels)
    observed(loss, other, seen, "peer")
    observed(loss, logits, seen, "net")
    rest = {NAMES[part]: given[part] for part in weights} | {"reference": ("peer", other.softmax(1))}
    target = labels if stream == "label" else other.argmax(1)
    w = given["w"] if "w" in weights else None

    def slowly(logits):
        x, y, m, v = slow.voxels(logits, target, *(given[part] if part in weights else None for part in "mv"))
        own, P = slow.voxels(logits.detach().softmax(1))[0], slow.voxels(other.softmax(1))[0]
        judge = own if stream == "label" else P
        gamma = slow.adaptive([0.9] * CLASSES, judge, 0.5, absent="decay")
        peer = [int(p.argmax()) for p in P]
        found = slow.regions(x, peer, judge, gamma, stream)
        foreground = [int(p.argmax()) > 0 for p in own]
        scale, delta = (85.0, 0.3) if stream == "label" else (50.0, 0.6)
        term = slow.region_means(x, y, found, foreground, stream, scale, m, v, w, delta, bug)
        return plain_ce(x, y, m, v, w) + term if stream == "label" else term

    agree(lambda x: loss.ce(x, target, source=stream, key="net", **rest), slowly, logits)
