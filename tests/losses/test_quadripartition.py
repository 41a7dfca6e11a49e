"""MetaSSL: the sheet's worked numbers (value and gradient), thresholds and their state, what a method may leave out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from sslbench.config.job import Job
from sslbench.config.recipe import CriteriaSpec
from sslbench.core.errors import SSLBenchError, UsageError
from sslbench.losses import DiceLoss, QuadLoss
from sslbench.losses.cross_entropy import cross_entropy
from sslbench.losses.quadripartition import (
    REGIONS,
    ClassThreshold,
    heterogeneous_ce,
    quadripartition,
    region_weights,
    weight_function,
)
from sslbench.losses.thresholds import (
    AdaptiveThreshold,
    FixedThreshold,
    FlexMatchThreshold,
    FreeMatchThreshold,
    PredictionStatistics,
    certainty,
)
from tests.helpers.losses import a_step, close, make_loss, observed


def image(rows):
    """Rows of eight logits per class as (1, 3, 1, 8)."""
    return torch.tensor(rows, dtype=torch.float64).view(1, 3, 1, 8)


Z = image(
    [
        [3.0, 0.2, 1.0, -0.5, 0.0, 2.0, 0.5, 0.1],
        [0.5, 0.9, 0.8, 2.5, 1.2, 0.0, 0.4, 0.3],
        [-1.0, 0.1, 0.0, 0.0, 0.3, -1.0, 1.5, 1.1],
    ]
)
REFERENCE = image(
    [
        [2.5, 0.3, 0.2, -1.0, 2.2, 2.8, 0.2, 0.6],
        [0.0, 0.6, 1.9, 3.0, 0.1, 0.2, 0.1, 0.5],
        [-0.5, 0.2, 0.1, 0.2, 0.0, -1.0, 2.4, 0.4],
    ]
)
P = REFERENCE.softmax(1)
TRUTH = torch.tensor([0, 1, 0, 1, 1, 2, 2, 2]).view(1, 1, 8)
GAMMA = torch.tensor([0.70, 0.60, 0.65], dtype=torch.float64)
UC, US, DC, DS = range(4)


def quad(*references, **options):
    """A `QuadLoss` whose thresholds for these references are the sheet's."""
    loss = QuadLoss(3, **options)
    loss.state = {key: GAMMA.repeat(2, 1) for key in references or ("ref",)}
    return loss


def thresholds_after(rule, probabilities=P, state=None):
    state = rule.start(3).unsqueeze(0) if state is None else state
    return rule.thresholds(rule.advance(state, PredictionStatistics(probabilities)))[0]


# --------------------------------------------------------------------------------------------- the worked numbers


def test_regions_and_value_of_the_unlabeled_term():
    logits = Z.clone().requires_grad_()
    value, regions = quad().unlabeled(logits, P, "ref", update=False)
    close(value, 0.376512793, 1e-9)
    assert regions.flatten().tolist() == [UC, US, DC, UC, DC, UC, UC, DS]
    value.backward()
    expected = image(
        [
            [-0.017669, 0.039818, 0.015732, 0.008518, -0.028333, -0.030249, 0.041887, -0.000453],
            [0.014445, -0.075847, -0.021520, -0.022562, 0.020143, 0.022114, 0.037901, 0.000140],
            [0.003223, 0.036029, 0.005788, 0.014044, 0.008190, 0.008135, -0.079789, 0.000312],
        ]
    )
    torch.testing.assert_close(logits.grad, expected, rtol=0, atol=6e-7)
    # In closed form: (w / Z)·(p - 1[k = ỹ]).
    weights = region_weights(1.0, 3.0, 0.6).double()[regions].unsqueeze(1)
    named = F.one_hot(P.argmax(1), 3).movedim(-1, 1)
    torch.testing.assert_close(logits.grad, weights / weights.sum() * (Z.softmax(1) - named), rtol=1e-6, atol=1e-9)


def test_regions_values_and_gradients_of_the_labeled_terms():
    logits = Z.clone().requires_grad_()
    ce, dice, regions = quad(smooth=0.0).labeled(logits, P, TRUTH, "ref", update=False)
    assert regions.flatten().tolist() == [UC, US, DC, UC, DC, DC, UC, DS]
    close(ce, 0.649595257, 1e-9)
    close(dice, 0.388362997, 1e-9)
    close(ce + dice, 1.037958254, 1e-9)
    first_row = [torch.autograd.grad(term, logits, retain_graph=True)[0][0, 0, 0] for term in (ce, dice)]
    expected = [
        [-0.014654, 0.039895, -0.042044, 0.007065, 0.013664, 0.065374, 0.034741, 0.026198],
        [-0.014208, 0.018602, -0.020509, 0.005585, 0.007248, 0.003295, 0.022943, 0.016246],
    ]
    torch.testing.assert_close(torch.stack(first_row), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=6e-7)
    close(quad().labeled(Z, P, TRUTH, "ref", update=False)[1], 0.388362035, 1e-9)


def test_both_directions():
    loss = quad("a", "b")
    forth, _ = loss.unlabeled(Z, P, "b", update=False)
    back, _ = loss.unlabeled(REFERENCE, Z.softmax(1), "a", update=False)
    close(back, 0.253634542, 1e-9)
    close(forth + back, 0.376512793 + 0.253634542, 2e-9)  # the sheet's sum, 0.630147347, has a slip in the 8th digit


def test_plain_terms_of_the_sheet():
    close(cross_entropy(Z, P.argmax(1)), 0.737629210, 1e-9)
    close(cross_entropy(Z, TRUTH), 0.812629210, 1e-9)
    close(DiceLoss()(Z, TRUTH), 0.276495708, 1e-9)
    close(0.5 * (cross_entropy(Z, TRUTH) + DiceLoss()(Z, TRUTH)), 0.544562459, 1e-9)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"partition": "confidence"}, 0.717523126),
        ({"partition": "consistency"}, 0.682576820),
    ],
)
def test_the_bisections(options, expected):
    close(quad(**options).unlabeled(Z, P, "ref", update=False)[0], expected, 1e-9)


def test_a_fixed_threshold():
    value, _ = QuadLoss(3, threshold=FixedThreshold(0.85)).unlabeled(Z, P, "ref")
    close(value, 0.295729773, 1e-9)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (AdaptiveThreshold(), (0.740914, 0.692478, 0.822464)),
        (AdaptiveThreshold(alpha_on="old"), (0.502433, 0.501944, 0.503257)),
        (AdaptiveThreshold(0.5, init=0.9, absent="decay"), (0.747339, 0.710408, 0.656430)),
        (FlexMatchThreshold(0.8), (0.8, 0.16, 0.16)),
        (FreeMatchThreshold(), (0.333735300, 0.333636860, 0.333511720)),
    ],
    ids=["literal", "moving average", "released", "flexmatch", "freematch"],
)
def test_thresholds_after_one_batch(rule, expected):
    torch.testing.assert_close(thresholds_after(rule), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=6e-7)


def test_the_state_of_freematch():
    rule = FreeMatchThreshold()
    state = rule.advance(rule.start(3).unsqueeze(0), PredictionStatistics(P))[0]
    expected = torch.tensor([0.333735297, 0.333440580, 0.333342230, 0.333217190], dtype=torch.float64)
    torch.testing.assert_close(state, expected, rtol=0, atol=5e-9)


def test_class_threshold_is_the_adaptive_rule_with_its_own_state():
    threshold = ClassThreshold(3)
    first = threshold.update(REFERENCE)
    torch.testing.assert_close(first, thresholds_after(AdaptiveThreshold()))
    second = threshold.update(Z)
    O = torch.tensor([Z.softmax(1).amax(1)[Z.argmax(1) == c].mean() for c in range(3)]).double()  # noqa: E741
    torch.testing.assert_close(second, 0.99 * O + 0.01 * first)
    other = ClassThreshold(3)
    other.load_state_dict(threshold.state_dict())
    torch.testing.assert_close(other.update(REFERENCE), threshold.update(REFERENCE))


PHI = {
    ("gauss", 1): {
        0.2: (1, 0.818731, 0.670320, 0.548812),
        0.3: (1, 0.740818, 0.548812, 0.406570),
        0.5: (1, 0.606531, 0.367879, 0.223130),
        0.6: (1, 0.548812, 0.301194, 0.165299),
    },
    ("gauss", 2): {
        0.2: (1, 0.960789, 0.852144, 0.697676),
        0.3: (1, 0.913931, 0.697676, 0.444858),
        0.5: (1, 0.778801, 0.367879, 0.105399),
        0.6: (1, 0.697676, 0.236928, 0.039164),
    },
    ("gauss", 3): {
        0.2: (1, 0.992032, 0.938005, 0.805735),
        0.3: (1, 0.973361, 0.805735, 0.482391),
        0.5: (1, 0.882497, 0.367879, 0.034218),
        0.6: (1, 0.805735, 0.177639, 0.002932),
    },
    ("linear", 3): {0.6: (1, 0.7, 0.4, 0.1), 0.9: (1, 0.55, 0.1, 0)},
    ("reciprocal", 3): {0.6: (1, 0.625, 0.454545, 0.357143)},
    ("cosine", 3): {0.6: (1, 0.912668, 0.681179, 0.386399)},
}


@pytest.mark.parametrize(
    ("shape", "beta", "delta", "expected"),
    [(*key, delta, row) for key, rows in PHI.items() for delta, row in rows.items()],
)
def test_the_weight_functions(shape, beta, delta, expected):
    found = weight_function(delta * torch.arange(4).double(), shape, beta)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=6e-7)


def test_region_weights_are_of_unlabeled_voxels_and_labeled_ones_swap_the_last_two():
    torch.testing.assert_close(region_weights(50, 3, 0.6), 50 * torch.tensor([0, -0.216, -1.728, -5.832]).exp())
    labeled = QuadLoss(3).weights_label.tolist()
    assert labeled == pytest.approx([1, 0.973361, 0.482391, 0.805735], abs=6e-7)  # UC, US, DC, DS
    assert QuadLoss(3, order="released").weights_label.tolist() == pytest.approx(
        [1, 0.973361, 0.805735, 0.482391], abs=6e-7
    )


RELEASED = {
    # learner's logits, the other's, true labels or none -> UC foreground, UC background, US, DC, DS
    "label net 1": (REFERENCE, Z, TRUTH, (7.583384, 113.790290, 36.407804, 98.354208, 24.641780), 280.777465),
    "label net 2": (Z, REFERENCE, TRUTH, (5.264601, 92.523077, 33.006074, 0, 19.628652), 150.422404),
    "pseudo": (Z, REFERENCE, None, (10.915710, 4.425339, 13.410093, 8.045692, 0.117090), 36.913924),
}


@pytest.mark.parametrize(("logits", "other", "truth", "parts", "total"), RELEASED.values(), ids=RELEASED.keys())
def test_the_released_regions(logits, other, truth, parts, total):
    loss = quad("net", order="released", reduction="region_mean")
    if truth is None:
        value, regions = loss.unlabeled(logits, other.softmax(1), "net", update=False)
        target, weights = other.argmax(1), loss.weights_pseudo
    else:
        value, _, regions = loss.labeled(logits, other.softmax(1), truth, "net", update=False)
        target, weights = truth, loss.weights_label
    assert float(value) == pytest.approx(total, abs=1e-6)
    for region, expected in zip((4, UC, US, DC, DS), parts, strict=True):
        alone = torch.where(torch.arange(5) == region, weights, 0.0)
        assert float(heterogeneous_ce(logits, target, regions, alone)) == pytest.approx(expected, abs=1e-6)


def test_the_slip_of_the_released_2d_script():
    loss = quad(order="released", reduction="region_mean", uc_bg_twice=True)
    close(loss.unlabeled(Z, P, "ref", update=False)[0], 30.423554, 2e-8)


def test_the_released_preset_is_the_2d_script_slip_included():
    """Its page says so; `uc_bg_twice=false` is what was meant."""
    for options, expected in (({}, 30.423554), ({"uc_bg_twice": False}, 36.913924)):
        loss = make_loss("metassl_released", **options)
        observed(loss, REFERENCE, -torch.ones_like(TRUTH), "teacher")
        loss.quad.state["teacher"] = GAMMA.repeat(2, 1)
        close(loss.ce(Z, P.argmax(1), source="pseudo", key="student", reference=("teacher", P)), expected, 2e-8)


def test_the_functions_of_the_public_interface_agree_with_the_loss():
    regions = quadripartition(Z, REFERENCE, GAMMA)
    assert regions.dtype == torch.int64 and regions.flatten().tolist() == [UC, US, DC, UC, DC, UC, UC, DS]
    nll, weights, total = F.cross_entropy(Z, P.argmax(1), reduction="none"), region_weights(50, 3, 0.6), 0.0
    for region in range(4):
        inside = (regions == region).double()
        total += weights[region] * (nll * inside).sum() / (inside.sum() + 1)
    close(heterogeneous_ce(Z, P.argmax(1), regions, weights), float(total), 1e-9)
    close(
        heterogeneous_ce(Z, P.argmax(1), regions, weights, eps=0.0), float(total), 1
    )  # another divisor, not another sum


# ------------------------------------------------------------------------------------------------ laws of the loss


def test_one_region_is_plain_cross_entropy_and_dice():
    """Whatever its weight: scaling all weights changes nothing."""
    unanimous = quad(threshold=FixedThreshold(1.0))
    unanimous.state = {"ref": torch.ones(2, 3, dtype=torch.float64)}  # all suspicious
    value, regions = unanimous.unlabeled(Z, Z.softmax(1), "ref", update=False)
    assert set(regions.flatten().tolist()) == {US}
    close(value, float(F.cross_entropy(Z, Z.argmax(1))), 1e-12)
    dice = quad(delta_l=0.0).labeled(Z, P, TRUTH, "ref", update=False)[1]
    close(dice, float(DiceLoss(squared=False)(Z, TRUTH)), 1e-12)
    close(quad(delta_l=0.0).labeled(Z, P, TRUTH, "ref", update=False)[0], float(F.cross_entropy(Z, TRUTH)), 1e-12)


def test_a_reference_that_is_the_learner_agrees_everywhere():
    _, regions = quad().unlabeled(Z, Z.softmax(1), "ref", update=False)
    assert set(regions.flatten().tolist()) <= {UC, US}


def test_confident_means_strictly_above_the_threshold():
    level = P.amax(1)[0, 0, 0]
    loss = quad()
    loss.state = {"ref": level.repeat(2, 3)}
    assert loss.unlabeled(Z, P, "ref", update=False)[1][0, 0, 0] == US


def test_no_weight_at_all_is_a_zero_with_a_graph():
    """Linear φ may weigh every voxel 0."""
    loss = quad(phi="linear", delta_u=1.0, partition="consistency")
    logits = torch.where(P.argmax(1, keepdim=True) == torch.tensor([1, 2, 0]).view(1, 3, 1, 1), 1.0, 0.0)
    loss.register_buffer("weights_pseudo", torch.tensor([1.0, 0.0, 0.0, 0.0]))
    logits = logits.double().requires_grad_()
    value, regions = loss.unlabeled(logits, P, "ref", update=False)
    assert set(regions.flatten().tolist()) == {1}
    value.backward()
    assert value.item() == 0 and logits.grad.abs().sum() == 0


@pytest.mark.parametrize("absent", ["keep", "decay"])
def test_a_class_that_nobody_names(absent):
    rule = AdaptiveThreshold(absent=absent)
    without = P[..., [0, 1, 2, 3, 4, 5, 7]]  # the one voxel of class 2 left out
    moved = thresholds_after(rule, without)
    assert float(moved[2]) == pytest.approx(0.5 if absent == "keep" else 0.01 * 0.5)


@pytest.mark.parametrize(
    "rule", [AdaptiveThreshold(), AdaptiveThreshold(0.5, absent="decay"), FlexMatchThreshold(), FreeMatchThreshold()]
)
def test_each_stream_learns_from_its_own_voxels(rule):
    stream = (torch.arange(8) >= 5).long().view(1, 1, 8)
    state = torch.rand(2, *rule.start(3).shape, generator=torch.Generator().manual_seed(0)).double()
    both = rule.advance(state, PredictionStatistics(P, stream=stream, streams=2))
    for row, part in ((0, slice(0, 5)), (1, slice(5, 8))):
        alone = rule.advance(state[row : row + 1], PredictionStatistics(P[..., part]))
        torch.testing.assert_close(both[row : row + 1], alone)
    # A batch without a stream leaves its thresholds alone.
    once = rule.advance(state, PredictionStatistics(P, stream=torch.zeros_like(stream), streams=2))
    torch.testing.assert_close(once[1], state[1])


def test_measures_of_certainty():
    p = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64).view(1, 3, 1)
    expected = {"confidence": 0.7, "mad": 2 * (0.7 - 1 / 3) / 3, "variance": 0.54 / 3 - 1 / 9}
    expected["std"] = math.sqrt(expected["variance"])
    for measure, value in expected.items():
        close(certainty(p, measure).sum(), value, 1e-12)


# --------------------------------------------------------------------------------------------- as a plug-and-play loss


def metassl(name="metassl", **options):
    """The loss by name after it saw the teacher's labelled (first half) and unlabelled voxels."""
    labels = torch.where(torch.arange(8).view(1, 1, 8) < 4, TRUTH, -1)
    return observed(make_loss(name, **options), REFERENCE, labels, "teacher")


def test_it_asks_for_references_and_defines_the_consistency():
    loss = metassl()
    assert loss.needs_reference
    args = {"key": "student", "reference": ("teacher", P)}
    value = loss.consistency(Z, lambda: pytest.fail("the method's own term"), **args)
    expected = loss.ce(Z, P.argmax(1), source="pseudo", key="student", reference=("teacher", P))
    torch.testing.assert_close(value, expected)


def test_the_soft_form_is_the_squared_distance_under_the_same_weights():
    loss = metassl(soft="mse")
    value = loss.consistency(Z, lambda: pytest.fail("own"), key="student", reference=("teacher", P))
    weights = region_weights(1, 3, 0.6).double()[
        quadripartition(Z, REFERENCE, loss.quad.thresholds("teacher", "pseudo"))
    ]
    squares = (Z.softmax(1) - P).square().mean(1)
    close(value, float((weights * squares).sum() / weights.sum()), 1e-7)


def test_without_a_reference_the_learner_is_its_own():
    loss = observed(make_loss("metassl"), Z, TRUTH, "net")
    own = {"reference": ("net", Z.softmax(1))}
    for term in (loss.ce, loss.dice, loss.supervised):
        torch.testing.assert_close(
            term(Z, TRUTH, source="label", key="net"), term(Z, TRUTH, source="label", key="net", **own)
        )


def test_no_gradient_reaches_the_reference():
    reference = P.clone().requires_grad_()
    logits = Z.clone().requires_grad_()
    loss = metassl()
    value = loss.supervised(logits, TRUTH, key="student", reference=("teacher", reference))
    (value + loss.consistency(logits, lambda: value, key="student", reference=("teacher", reference))).backward()
    assert reference.grad is None and logits.grad.abs().sum() > 0


def test_labels_and_pseudo_labels_have_thresholds_of_their_own():
    quad_loss = metassl().quad
    sides = [quad_loss.thresholds("teacher", stream) for stream in ("label", "pseudo")]
    for found, part in zip(sides, (P[..., :4], P[..., 4:]), strict=True):
        torch.testing.assert_close(found, thresholds_after(AdaptiveThreshold(), part))


def test_thresholds_are_saved_and_continue_in_a_fresh_loss():
    loss, fresh = metassl(), make_loss("metassl")
    fresh.load_state_dict(loss.state_dict())
    for one in (loss, fresh):
        observed(one, Z, TRUTH, "teacher", "student")
    assert loss.state_dict()["quad._extra_state"].keys() == {"teacher", "student"}
    for key in ("teacher", "student"):
        torch.testing.assert_close(loss.quad.state[key], fresh.quad.state[key], rtol=0, atol=0)


@pytest.mark.parametrize("threshold", ["flexmatch", "freematch", 0.9])
def test_the_state_of_every_rule_is_saved(tmp_path, threshold):
    loss, fresh = metassl(threshold=threshold), make_loss("metassl", threshold=threshold)
    torch.save(loss.state_dict(), tmp_path / "state.pt")
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    torch.testing.assert_close(fresh.quad.state["teacher"], loss.quad.state["teacher"], rtol=0, atol=0)


def test_a_key_that_was_never_observed_is_named():
    with pytest.raises(SSLBenchError, match="'stranger'"):
        metassl().ce(Z, TRUTH, source="label", key="student", reference=("stranger", P))


def test_the_ablations_keep_the_default_on_the_other_side():
    plain = make_loss("default")
    args = {"key": "student", "reference": ("teacher", P)}
    own = torch.tensor(7.0)
    lqh, uqh = metassl("metassl_lqh"), metassl("metassl_uqh")
    assert lqh.needs_reference and uqh.needs_reference
    full = metassl()
    for source, like_full, like_plain in (("label", lqh, uqh), ("pseudo", uqh, lqh)):
        for term in ("ce", "dice"):
            values = [
                getattr(loss, term)(Z, TRUTH, source=source, **args) for loss in (like_full, full, like_plain, plain)
            ]
            torch.testing.assert_close(values[0], values[1])
            torch.testing.assert_close(values[2], values[3])
            assert not torch.isclose(values[1], values[3])
    assert lqh.consistency(Z, lambda: own, **args) is own
    assert uqh.consistency(Z, lambda: own, **args) is not own


@pytest.mark.parametrize(
    ("slip", "total"),
    # Net 2 of the sheet: foreground of UC 5.264601, background 92.523077.
    [(False, 150.422404), (True, 150.422404 - 5.264601 + 92.523077)],
)
def test_the_released_labeled_term_is_ramped_and_outside_the_recipes_weights(slip, total):
    criteria = CriteriaSpec(ce_weight=0.5, dice_weight=0.5)
    values = {}
    for weight in (0.0, 0.1):
        loss = make_loss("metassl_released", criteria, uc_bg_twice=slip)
        observed(loss, Z, TRUTH, "student", step=a_step(weight))
        values[weight] = loss.supervised(Z, TRUTH, key="student", reference=("teacher", P))
    close(values[0.0], 0.544562459, 1e-8)
    loss.quad.state["student"] = GAMMA.repeat(2, 1)
    value = loss.supervised(Z, TRUTH, key="student", reference=("teacher", P))
    close(value - values[0.0], 0.1 * total, 1e-6)


def test_what_it_logs():
    logged = {}
    loss = make_loss("metassl")
    observed(loss, REFERENCE, -torch.ones_like(TRUTH), "teacher", step=a_step(logged=logged))
    loss.quad.state["teacher"] = GAMMA.repeat(2, 1)
    loss.ce(Z, P.argmax(1), source="pseudo", key="student", reference=("teacher", P))
    expected = dict(zip(("UC", "US", "DC", "DS"), (4 / 8, 1 / 8, 2 / 8, 1 / 8), strict=True))
    shares = {name: float(logged[f"region/student/pseudo/{name}"]) for name in expected}
    assert shares == expected
    assert logged["threshold/teacher/label"].tolist() == [0.5, 0.5, 0.5]
    assert logged["threshold/teacher/pseudo"].tolist() == pytest.approx([0.740914, 0.692478, 0.822464], abs=1e-6)


def test_all_of_the_voxels_are_in_a_region_where_the_foreground_of_one_is_apart():
    logged = {}
    loss = make_loss("metassl_released")
    observed(loss, REFERENCE, -torch.ones_like(TRUTH), "teacher", step=a_step(logged=logged))
    loss.quad.state["teacher"] = GAMMA.repeat(2, 1)
    loss.ce(Z, P.argmax(1), source="pseudo", key="student", reference=("teacher", P))
    assert [float(logged[f"region/student/pseudo/{name}"]) for name in REGIONS] == [4 / 8, 1 / 8, 2 / 8, 1 / 8]


def test_steps_without_a_record_compute_nothing_for_it():
    loss, step = make_loss("metassl"), replace(a_step(), logger=None)
    observed(loss, REFERENCE, -torch.ones_like(TRUTH), "teacher", step=step)
    asked = []
    step.log("threshold", lambda: asked.append(1))
    assert asked == []


def test_thresholds_of_confidences_go_with_no_other_measure():
    with pytest.raises(UsageError, match="flexmatch"):
        Job(
            recipe="phantom", method="cps", loss="metassl[threshold=flexmatch,uncertainty=mad]", labeled="20%"
        ).canonical()
