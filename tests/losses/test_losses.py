"""Losses: the worked numbers of the published formulas, gradients, and what masks, weights and precision may do."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from sslbench.config.recipe import CriteriaSpec
from sslbench.losses import (
    DiceCELoss,
    DiceLoss,
    GACELoss,
    GADiceLoss,
    cps_loss,
    voxel_weighted_cross_entropy,
    weighted_cross_entropy,
)
from sslbench.losses.cross_entropy import cross_entropy
from sslbench.losses.dice import ForegroundDiceLoss
from tests.helpers.losses import (
    SHAPE,
    WEIGHTS,
    B,
    C,
    N,
    a_step,
    close,
    example_labels,
    example_logits,
    make_loss,
    observed,
    tiny_logits,
)

# --------------------------------------------------------------------------------------------- the worked numbers

WORKED = [
    ("CE", weighted_cross_entropy, 1.411626, 1.466090),
    ("dice_sq", DiceLoss(1e-10), 0.645679, 0.727736),
    ("GADice p", GADiceLoss("p"), 0.645679, 0.447329),
    ("GADice p2", GADiceLoss("p2"), 0.645679, 0.426911),
    ("GADice inv", GADiceLoss("inv"), 0.645679, 0.397044),
    ("GADice none", GADiceLoss("none"), 0.645679, 0.727736),
    ("GACE 100 1", GACELoss(100, 1), 1.411626, 1.466090),
    ("GACE 100 .75", GACELoss(100, 0.75), 1.681131, 1.679821),
    ("GACE 100 .5", GACELoss(100, 0.5), 2.076687, 1.970020),
    ("GACE 100 .25", GACELoss(100, 0.25), 2.687596, 2.372879),
    ("GACE 100 0", GACELoss(100, 0), 3.679965, 2.942421),
    ("GACE 50 .5", GACELoss(50, 0.5), 2.980649, 2.816371),
    ("GACE 30 .5", GACELoss(30, 0.5), 3.228728, 3.370042),
    ("GACE 10 .5", GACELoss(10, 0.5), 4.199930, 4.352005),
    ("GACE 10 1", GACELoss(10, 1), 3.041764, 3.173464),
    ("GACE 10 0", GACELoss(10, 0), 6.224870, 6.400470),
    ("GACE 5 .5", GACELoss(5, 0.5), 4.631779, 3.300201),
]

# On `full` labels: nnU-Net's Dice and the DHC family's sum of it with weighted cross-entropy.
WORKED_FULL = {
    "dice_nn": (ForegroundDiceLoss(), -0.216578),
    "dcce": (DiceCELoss(), 1.195048),
    "dcce weighted": (DiceCELoss(WEIGHTS), 0.766236),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(("criterion", "full", "absent"), [row[1:] for row in WORKED], ids=[row[0] for row in WORKED])
def test_the_worked_numbers(criterion, full, absent, dtype):
    for labels, expected in (("full", full), ("absent", absent)):
        close(criterion(example_logits(dtype), example_labels(labels)), expected, 2e-6)


@pytest.mark.parametrize(("criterion", "expected"), WORKED_FULL.values(), ids=WORKED_FULL.keys())
def test_the_worked_numbers_of_the_dhc_family(criterion, expected):
    close(criterion(example_logits(), example_labels("full")), expected)


def test_the_recipe_may_ask_for_the_dice_of_the_dhc_family():
    loss = make_loss("default", CriteriaSpec(dice="foreground", smooth=1))
    args = (example_logits(), example_labels("full"))
    close(loss.dice(*args, source="label", key="net"), -0.216578)
    close(loss.supervised(*args, key="net"), 1.195048)


def test_the_tiny_tensors_of_the_consistency_sheet():
    labels = torch.tensor([[[0, 2], [1, 2]]])
    close(cross_entropy(tiny_logits("a"), labels), 0.757293403, 3e-9)
    close(DiceLoss()(tiny_logits("a"), labels), 0.382044166, 5e-8)  # computed in fp32 there


def test_soft_targets_are_weighted_class_by_class():
    logits = example_logits(torch.float64)
    target, w = logits.roll(1, dims=1).softmax(1), torch.tensor([0.5, 1.5, 3.0], dtype=torch.float64)
    spread = w.view(1, C, 1, 1, 1)
    expected = -(spread * target * logits.log_softmax(1)).sum() / (spread * target).sum()
    torch.testing.assert_close(cross_entropy(logits, target, class_weight=w), expected)


@pytest.mark.parametrize(("labels", "expected"), [("full", 4.845609), ("absent", 4.799334)])
def test_ga_is_gace_plus_gadice_in_the_weights_of_its_recipes(labels, expected):
    loss = make_loss("ga", CriteriaSpec(ce_weight=1, dice_weight=1))
    close(loss.supervised(example_logits(), example_labels(labels), key="net"), expected)


def test_the_hand_check_of_gace():
    """Four hardest voxels, three of class 0 and one of class 1: (s₀/√3 + s₁/√1) / √4."""
    nll = cross_entropy_map(example_logits(torch.float64), example_labels("full"))
    hardest = nll.flatten().topk(4)
    assert hardest.values.tolist() == pytest.approx([3.296546, 3.253778, 2.839675, 2.777055], abs=1e-6)
    labels = example_labels("full").flatten()[hardest.indices]
    s0, s1 = (hardest.values[labels == c].sum() for c in (0, 1))
    close(GACELoss(10, 0.5)(example_logits(torch.float64), example_labels("full")), float(s0 / 3**0.5 + s1) / 2)


def cross_entropy_map(logits, labels):
    return F.cross_entropy(logits, labels, reduction="none")


def test_ga_logs_how_many_voxels_of_each_class_it_mines():
    loss, logged = make_loss("ga"), {}
    logits, labels = example_logits(torch.float64), example_labels("full")
    loss.observe(a_step(logged=logged), "a", logits, labels)
    loss.ce(logits, labels, source="label", key="a")
    assert logged["mined/a/label"].tolist() == [3, 1, 0]  # as in the check by hand: 10 % of 40
    loss.supervised(logits, labels, key="a")  # another term of the learner in this step
    assert logged["mined/a/label"].tolist() == [6, 2, 0]
    loss.ce(logits, labels, source="pseudo", key="a", mask=labels > 0)
    assert logged["mined/a/pseudo"].tolist() == [0, *labels.flatten().bincount()[1:].tolist()]  # all that are there
    loss.observe(a_step(logged=logged), "a", logits, labels)
    loss.ce(logits, labels, source="label", key="a")
    assert logged["mined/a/label"].tolist() == [3, 1, 0]  # of this step alone


def test_gace_with_gamma_one_is_cross_entropy_and_with_zero_the_sum_of_class_means():
    logits, labels = example_logits(torch.float64), example_labels("full")
    nll = cross_entropy_map(logits, labels)
    close(GACELoss(100, 1)(logits, labels), float(nll.mean()))
    close(GACELoss(100, 0)(logits, labels), sum(float(nll[labels == c].mean()) for c in range(C)))


@pytest.mark.parametrize("k", [0.1, 1, 2.4])
def test_gace_mines_at_least_one_voxel(k):
    logits = example_logits(torch.float64).requires_grad_()
    value = GACELoss(k, 1)(logits, example_labels("full"))
    close(value, 3.296546)
    value.backward()
    assert (logits.grad.abs().sum(1) > 0).sum() == 1


def test_weighted_cross_entropies_and_their_divisors():
    logits, labels = example_logits(), example_labels("full")
    close(weighted_cross_entropy(logits, labels, WEIGHTS), 1.241014)
    close(voxel_weighted_cross_entropy(logits, labels, torch.ones(B, *SHAPE), WEIGHTS), 0.558457)
    first = torch.zeros(B, *SHAPE)
    first[0] = 1
    close(voxel_weighted_cross_entropy(logits, labels, first, WEIGHTS), 0.274707)


def test_classes_that_all_weigh_nothing_give_zero_where_the_released_code_gives_nan():
    logits = example_logits().requires_grad_()
    value = weighted_cross_entropy(logits, torch.zeros(B, *SHAPE, dtype=torch.long), WEIGHTS)
    value.backward()
    assert value.item() == 0 and logits.grad.abs().sum().item() == 0


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("background", [True, False])
def test_dice_in_its_closed_form(squared, batch, background):
    logits, labels = example_logits(torch.float64), example_labels("full")
    p, y = logits.softmax(1).flatten(2), F.one_hot(labels, C).movedim(-1, 1).double().flatten(2)
    scores = []
    for chosen in [slice(0, 2)] if batch else [slice(0, 1), slice(1, 2)]:
        for c in range(0 if background else 1, C):
            size = (p[chosen, c] ** 2).sum() if squared else p[chosen, c].sum()
            scores.append((2 * (p * y)[chosen, c].sum() + 3) / (size + y[chosen, c].sum() + 3))
    close(DiceLoss(3, squared, batch, background)(logits, labels), float(1 - sum(scores) / len(scores)))


def test_dice_takes_weights_inside_all_its_sums_and_class_weights_as_factors():
    logits, labels = example_logits(torch.float64), example_labels("full")
    p, y = logits.softmax(1), F.one_hot(labels, C).movedim(-1, 1).double()
    v, m = (torch.linspace(0, 2, N, dtype=torch.float64).view(B, *SHAPE), torch.arange(N).view(B, *SHAPE) % 3 > 0)
    sums = [((v * m).unsqueeze(1) * content).sum((0, 2, 3, 4)) for content in (p * y, p * p, y)]
    terms = 1 - (2 * sums[0] + 1e-5) / (sums[1] + sums[2] + 1e-5)
    value = make_loss("default").dice(
        logits, labels, source="label", key="net", mask=m, voxel_weight=v, class_weight=WEIGHTS
    )
    torch.testing.assert_close(value, (WEIGHTS * terms).mean())


def test_cps_and_cps_with_ga():
    logits_a = example_logits()
    logits_b = logits_a.roll(-1, dims=1)  # channel c is the first network's channel c + 1
    close(cps_loss(logits_a, logits_b), 3.854502)
    ga = make_loss("ga")
    terms = [
        ga.ce(own, other.argmax(1), source="pseudo", key="a")
        for own, other in ((logits_a, logits_b), (logits_b, logits_a))
    ]
    close(sum(terms), 6.709781)


def test_cps_gives_no_gradient_through_the_labels():
    logits_a, logits_b = example_logits().requires_grad_(), example_logits().roll(-1, dims=1).requires_grad_()
    cps_loss(logits_a, logits_b).backward()
    (expected,) = torch.autograd.grad(F.cross_entropy(logits_a, logits_b.argmax(1)), logits_a)
    torch.testing.assert_close(logits_a.grad, expected)
    assert logits_b.grad.abs().sum() > 0


# ------------------------------------------------------------------------------------------------------ gradients


@pytest.mark.parametrize("absent", ["p", "p2", "inv", "none"])
def test_the_gradient_of_gadice_is_the_papers(absent):
    """Through the softmax, from the closed form of its derivative with respect to the probabilities."""
    logits, labels = example_logits(torch.float64).requires_grad_(), example_labels("absent")
    GADiceLoss(absent)(logits, labels).backward()
    p, y = logits.detach().softmax(1), F.one_hot(labels, C).movedim(-1, 1).double()
    sums = [(a * b).sum((0, 2, 3, 4), keepdim=True) for a, b in ((p, y), (p, p), (y, y))]
    total = sums[1] + sums[2] + 1e-10
    g = -(2 * y * total - (2 * sums[0] + 1e-10) * 2 * p) / total**2
    if absent != "none":
        g[:, 2] = {"p": p[:, 2] / N, "p2": p[:, 2] ** 2 / N, "inv": torch.full_like(p[:, 2], 1 / N**2)}[absent]
    g = g / C
    if absent == "p":
        assert g[0, 2].flatten()[:2].tolist() == pytest.approx([0.000956081, 0.006338983], rel=1e-6)
    torch.testing.assert_close(logits.grad, p * (g - (p * g).sum(1, keepdim=True)))


@pytest.mark.parametrize(
    ("criterion", "labels"),
    [
        (DiceLoss(), "full"),
        (DiceLoss(squared=False), "full"),
        (DiceLoss(batch=False, include_background=False), "absent"),
        (GADiceLoss("p"), "full"),
        (GADiceLoss("inv"), "absent"),
        (GADiceLoss("none"), "absent"),
        (GACELoss(10, 0.5), "full"),
        (GACELoss(30, 0.25), "absent"),
        (GACELoss(100, 0), "full"),
    ],
    ids=repr,
)
def test_gradients_agree_with_differences(criterion, labels):
    logits = example_logits(torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: criterion(x, example_labels(labels)), logits)


def test_gace_has_a_gradient_at_the_mined_voxels_alone():
    logits = example_logits(torch.float64).requires_grad_()
    GACELoss(10, 0.5)(logits, example_labels("full")).backward()
    hardest = cross_entropy_map(logits, example_labels("full")).flatten().topk(4).indices
    assert set(logits.grad.abs().sum(1).flatten().nonzero().flatten().tolist()) == set(hardest.tolist())


# -------------------------------------------------------------------------------------------------- laws of all terms

# What each loss changes. Thresholds are fixed where they would follow the voxels that a mask leaves out.
ALL = ("ce", "dice", "supervised")
PLUGGED = {
    "default": (ALL, {}),
    "ga": (ALL, {}),
    "focal": (("ce",), {}),
    "topk_ce": (("ce",), {}),
    "weighted_ce": (("ce",), {}),
    "tversky": (("dice",), {}),
    "focal_tversky": (("dice",), {}),
    "generalized_dice": (("dice",), {}),
    "metassl": (ALL, {"threshold": 0.5}),
    "metassl_released": (("ce", "supervised"), {"threshold": 0.5}),
}


def stand_in(logits):
    """Probabilities of a peer that agrees with the learner on some voxels and not on others."""
    return (logits * torch.where(logits.sum(1, keepdim=True) > 0, 0.7, -0.7)).detach().double().softmax(1)


def plugged(name, term, source):
    """f(logits, target, **mask or weights) of a term of a loss."""

    def evaluate(logits, target, **rest):
        loss, reference = make_loss(name, **PLUGGED[name][1]), stand_in(logits)
        seen = torch.full((len(logits), *logits.shape[2:]), -1 if source == "pseudo" else 0)
        observed(loss, logits, seen, "net")
        observed(loss, reference.log(), seen, "peer")
        arguments = {"source": source, "key": "net", "reference": ("peer", reference), **rest}
        return getattr(loss, term)(logits, target, **arguments)

    return evaluate


_linear = make_loss("default", CriteriaSpec(dice="linear"))

# name -> f(logits, target, **mask or weights)
TERMS = {
    "ce": cross_entropy,
    "dice_sq": DiceLoss(),
    "dice_linear": DiceLoss(1, squared=False),
    "gadice_p": GADiceLoss("p"),
    "gadice_p2": GADiceLoss("p2"),
    "gadice_inv": GADiceLoss("inv"),
    "gace_10": GACELoss(10, 0.5),
    "gace_30": GACELoss(30, 0.25),
    "gace_100": GACELoss(100, 0.5),
    "default.linear": lambda *a, **k: _linear.dice(*a, source="label", key="net", **k),
    **{
        f"{name}.{term} {source}": plugged(name, term, source)
        for name, (terms, _) in PLUGGED.items()
        for term in terms
        for source in ("label", "pseudo")
        if term != "supervised" or source == "label"
    },
}
LOSS_TERMS = [name for name in TERMS if "." in name]

each_term = pytest.mark.parametrize("term", TERMS.values(), ids=TERMS.keys())
each_loss_term = pytest.mark.parametrize("term", [TERMS[name] for name in LOSS_TERMS], ids=LOSS_TERMS)


def value_and_gradient(term, logits, *args, **rest):
    logits = logits.detach().clone().requires_grad_()
    value = term(logits, *args, **rest)
    assert value.ndim == 0 and value.requires_grad
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


@each_term
@pytest.mark.parametrize("labels", ["full", "absent"])
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32], ids=["bool", "float"])
def test_a_mask_of_ones_is_no_mask(term, labels, dtype):
    logits, target = example_logits(torch.float64), example_labels(labels)
    with_mask = value_and_gradient(term, logits, target, mask=torch.ones(B, *SHAPE, dtype=dtype))
    torch.testing.assert_close(with_mask, value_and_gradient(term, logits, target), rtol=1e-6, atol=1e-9)


@each_term
@pytest.mark.parametrize("labels", ["full", "absent"])
def test_a_masked_term_is_the_term_on_the_cut_out_voxels(term, labels):
    logits = example_logits(torch.float64).transpose(0, 1).reshape(1, C, N)
    target = example_labels(labels).reshape(1, N)
    mask = torch.arange(N).remainder(4) > 0
    value, gradient = value_and_gradient(term, logits, target, mask=mask.unsqueeze(0))
    cut, cut_gradient = value_and_gradient(term, logits[..., mask], target[:, mask])
    torch.testing.assert_close(value, cut, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(gradient[..., mask], cut_gradient, rtol=1e-6, atol=1e-9)
    assert float(gradient[..., ~mask].abs().sum()) == 0


@each_term
def test_an_empty_mask_gives_zero_with_a_graph(term):
    mask = torch.zeros(B, *SHAPE, dtype=torch.bool)
    value, gradient = value_and_gradient(term, example_logits(), example_labels("full"), mask=mask)
    assert float(value) == 0 and float(gradient.abs().sum()) == 0


@each_loss_term
def test_weights_of_one_are_no_weights(term):
    logits, target = example_logits(torch.float64), example_labels("full")
    plain = term(logits, target)
    torch.testing.assert_close(term(logits, target, voxel_weight=torch.ones(B, *SHAPE)), plain)
    torch.testing.assert_close(term(logits, target, class_weight=torch.ones(C)), plain)


@pytest.mark.parametrize(
    "name", ["ga.ce label", "ga.ce pseudo", "ga.dice label", "ga.supervised label", "topk_ce.ce label"]
)
def test_for_ga_a_voxel_of_weight_zero_does_not_exist(name):
    weight = (torch.arange(N).view(B, *SHAPE) % 3 > 0).double()
    logits, target = example_logits(torch.float64), example_labels("full")
    torch.testing.assert_close(
        TERMS[name](logits, target, voxel_weight=weight), TERMS[name](logits, target, mask=weight)
    )


def test_the_divisors_of_weighted_cross_entropy():
    """A mask changes the divisor, a voxel weight does not, class weights alone are normalised by their sum."""
    logits, target = example_logits(torch.float64), example_labels("full")
    nll, w = cross_entropy_map(logits, target), WEIGHTS.double()[example_labels("full")]
    v = torch.linspace(0, 2, N, dtype=torch.float64).view(B, *SHAPE)
    m = (torch.arange(N).view(B, *SHAPE) % 3 > 0).double()
    expected = {
        (): nll.mean(),
        ("m",): (nll * m).sum() / m.sum(),
        ("v",): (v * nll).mean(),
        ("w",): (w * nll).sum() / w.sum(),
        ("m", "v"): (m * v * nll).sum() / m.sum(),
        ("m", "w"): (m * w * nll).sum() / (m * w).sum(),
        ("v", "w"): (v * w * nll).mean(),
        ("m", "v", "w"): (m * v * w * nll).sum() / m.sum(),
    }
    given = {"m": ("mask", m), "v": ("voxel_weight", v), "w": ("class_weight", WEIGHTS)}
    for parts, value in expected.items():
        torch.testing.assert_close(cross_entropy(logits, target, **dict(given[part] for part in parts)), value)


@pytest.mark.parametrize("name", [name for name in TERMS if not name.startswith("metassl_released")])
@pytest.mark.parametrize("labels", ["full", "absent"])
def test_names_of_classes_do_not_matter(name, labels):
    """Only the released form of MetaSSL knows a background."""
    term = TERMS[name]
    logits, target = example_logits(torch.float64), example_labels(labels)
    expected, gradient = value_and_gradient(term, logits, target)
    for order in itertools.permutations(range(C)):
        value, permuted = value_and_gradient(term, logits[:, order], torch.tensor(order).argsort()[target])
        torch.testing.assert_close((value, permuted), (expected, gradient[:, order]))


ONE_HOT = {name: term for name, term in TERMS.items() if not name.startswith("ga")}
ONE_HOT |= {name: TERMS[name] for name in LOSS_TERMS}


@pytest.mark.parametrize("labels", ["full", "absent"])
@pytest.mark.parametrize("term", ONE_HOT.values(), ids=ONE_HOT.keys())
def test_a_one_hot_target_is_its_labels(term, labels):
    logits, target = example_logits(torch.float64), example_labels(labels)
    hot = F.one_hot(target, C).movedim(-1, 1).double()
    torch.testing.assert_close(value_and_gradient(term, logits, hot), value_and_gradient(term, logits, target))


@pytest.mark.parametrize("criterion", [GADiceLoss(), GACELoss()], ids=repr)
def test_the_ga_functions_take_one_hot_targets_or_refuse_them(criterion):
    logits, target = example_logits(torch.float64), example_labels("absent")
    hot = F.one_hot(target, C).movedim(-1, 1).double()
    try:
        value = criterion(logits, hot)
    except (TypeError, ValueError):
        return
    torch.testing.assert_close(value, criterion(logits, target))


def test_soft_cross_entropy_is_the_expected_nll():
    logits = example_logits(torch.float64)
    target = logits.roll(1, dims=1).softmax(1)
    torch.testing.assert_close(cross_entropy(logits, target), F.cross_entropy(logits, target))


# ------------------------------------------------------------------------------------------------------- precision


@each_term
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_low_precision_logits_lose_nothing_more_in_the_loss(term, dtype):
    """Sums over 40 000 voxels: in bf16 they would stop growing at a few hundred."""
    generator = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(2, C, 20_000, generator=generator)).to(dtype)
    target = torch.randint(C, (2, 20_000), generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        value = term(logits, target)
    assert value.dtype == torch.float32
    close(value, float(term(logits.double(), target)), 1e-4)


@each_term
@pytest.mark.parametrize("largest", [6e4, 0.0])
def test_the_whole_range_of_fp16_is_finite(term, largest):
    logits = torch.tensor([largest, -largest, 0.0], dtype=torch.float16).view(1, C, 1).repeat(2, 1, 20)
    for label in range(C):
        value, gradient = value_and_gradient(term, logits, torch.full((2, 20), label))
        assert value.isfinite() and gradient.isfinite().all()


@each_term
@pytest.mark.parametrize("label", range(C))
@pytest.mark.parametrize("scale", [1, 100])
def test_a_batch_of_one_class_is_finite(term, label, scale):
    """All background, above all: every other class is absent, and with certain logits every sum is 0 or N."""
    target = torch.full((B, *SHAPE), label)
    value, gradient = value_and_gradient(term, scale * example_logits(), target)
    assert value.isfinite() and gradient.isfinite().all()
    value, gradient = value_and_gradient(term, scale * F.one_hot(target, C).movedim(-1, 1).float(), target)
    assert value.isfinite() and gradient.isfinite().all()


# ------------------------------------------------------------------------------------------------ plug-and-play losses


@pytest.mark.parametrize("name", ["default", "ga", "ga_labeled_only", "ga_unlabeled_only"])
@pytest.mark.parametrize("weights", [(0.5, 0.5), (1, 1), (1, 0), (0.3, 2)])
@pytest.mark.parametrize("source", ["label", "pseudo"])
def test_a_supervised_sum_has_the_weights_of_the_recipe(name, weights, source):
    loss = make_loss(name, CriteriaSpec(ce_weight=weights[0], dice_weight=weights[1]))
    args = {"logits": example_logits(), "target": example_labels("full"), "source": source, "key": "net"}
    expected = weights[0] * loss.ce(**args) + weights[1] * loss.dice(**args)
    torch.testing.assert_close(loss.supervised(**args), expected)


def test_a_supervised_sum_is_about_labels_unless_told_otherwise():
    for name in ("ga", "ga_labeled_only", "ga_unlabeled_only"):
        loss = make_loss(name)
        args = (example_logits(), example_labels("full"))
        torch.testing.assert_close(loss.supervised(*args, key="net"), loss.supervised(*args, source="label", key="net"))


def test_default_follows_the_criteria_of_the_recipe():
    args = (example_logits(), example_labels("full"))
    loss = make_loss("default", CriteriaSpec(dice="linear", smooth=1.0))
    close(loss.ce(*args, source="label", key="net"), 1.411626)
    torch.testing.assert_close(loss.dice(*args, source="label", key="net"), DiceLoss(1.0, squared=False)(*args))


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("ga", {"label", "pseudo"}),
        ("ga_labeled_only", {"label"}),
        ("ga_unlabeled_only", {"pseudo"}),
        ("default", set()),
    ],
)
@pytest.mark.parametrize("source", ["label", "pseudo"])
def test_which_side_ga_serves(name, sides, source):
    loss, args = make_loss(name), (example_logits(), example_labels("absent"))
    gace = 4.352005 if source == "label" else 1.970020  # k = 10 with labels, 100 with pseudo-labels
    served = source in sides
    close(loss.ce(*args, source=source, key="net"), gace if served else 1.466090)
    plain = float(DiceLoss()(*args))
    close(loss.dice(*args, source=source, key="net"), 0.447329 if served else plain)


@pytest.mark.parametrize(
    "weights", [{"mask": 1}, {"voxel_weight": 1}, {"class_weight": 1}, {"mask": 1, "class_weight": 1}]
)
def test_the_side_that_ga_leaves_alone_is_the_default_with_all_its_weights(weights):
    given = {"mask": torch.arange(N).view(B, *SHAPE) % 3 > 0, "class_weight": WEIGHTS}
    given["voxel_weight"] = torch.linspace(0, 2, N).view(B, *SHAPE)
    chosen = {name: given[name] for name in weights}
    args = (example_logits(), example_labels("full"))
    for term in ("ce", "dice"):
        values = [
            getattr(make_loss(name), term)(*args, source="pseudo", key="net", **chosen)
            for name in ("ga_labeled_only", "default")
        ]
        torch.testing.assert_close(*values)


@pytest.mark.parametrize("name", ["default", "ga"])
def test_a_soft_consistency_stays_the_methods_own(name):
    own, logits = torch.tensor(3.0), example_logits()
    term = make_loss(name).consistency(logits, lambda: own, key="net", reference=("peer", logits.softmax(1)))
    assert term is own


@pytest.mark.parametrize("name", ["default", "ga"])
def test_a_loss_without_state_saves_none(name):
    assert make_loss(name).state_dict() == {}
