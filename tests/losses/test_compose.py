"""Losses made of losses: sides, weightings, and combinations that mean nothing."""

from __future__ import annotations

import pytest
import torch

from sslbench.config.job import Job
from sslbench.config.recipe import CriteriaSpec
from sslbench.core import registry
from sslbench.core.errors import UsageError
from sslbench.core.options import NoOptions
from sslbench.losses import BySource, Loss, Weighted, Weighting
from sslbench.losses.weighting import Adsh
from tests.helpers.losses import SHAPE, B, C, N, a_step, example_labels, example_logits, make_loss, observed, statistics

LOGITS, LABELS = example_logits(torch.float64), example_labels("full")
REFERENCE = ("b", LOGITS.roll(1, dims=1).softmax(1))
SPLIT = torch.where(torch.arange(N).view(B, *SHAPE) < N // 2, LABELS, -1)


def both_terms(loss, source, **rest):
    return [getattr(loss, term)(LOGITS, LABELS, source=source, key="a", **rest) for term in ("ce", "dice")]


# ------------------------------------------------------------------------------------------------------- by source


def test_labels_and_pseudo_labels_each_have_their_loss():
    loss = observed(BySource(label=make_loss("ga"), pseudo=make_loss("focal")), LOGITS, SPLIT, "a")
    for source, alone in (("label", make_loss("ga")), ("pseudo", make_loss("focal"))):
        torch.testing.assert_close(both_terms(loss, source), both_terms(alone, source))
        torch.testing.assert_close(
            loss.supervised(LOGITS, LABELS, source=source, key="a"),
            alone.supervised(LOGITS, LABELS, source=source, key="a"),
        )


def test_both_sides_see_the_predictions_and_save_their_state():
    def build():
        return BySource(label=make_loss("metassl"), pseudo=make_loss("metassl", beta=1.0))

    loss = observed(build(), LOGITS, SPLIT, "a", "b")
    assert loss.needs_reference
    fresh = build()
    fresh.load_state_dict(loss.state_dict())
    for side in (fresh.label, fresh.pseudo):
        assert side.quad.state.keys() == {"a", "b"}
    own = torch.tensor(1.0)
    expected = loss.pseudo.consistency(LOGITS, lambda: own, key="a", reference=REFERENCE)
    torch.testing.assert_close(loss.consistency(LOGITS, lambda: own, key="a", reference=REFERENCE), expected)


def test_a_reference_is_needed_where_a_side_needs_it():
    plain, quad = make_loss("default"), make_loss("metassl")
    sides = [(plain, plain), (plain, quad), (quad, plain)]
    assert [BySource(label, pseudo).needs_reference for label, pseudo in sides] == [False, True, True]


# -------------------------------------------------------------------------------------------------------- weighting


class ByPrediction(Weighting):
    """A toy: rare predictions weigh more, remembered half and half; voxels weigh what the reference is sure of."""

    needs_reference = True

    def __init__(self, voxels=True):
        super().__init__(C)
        self.voxels = voxels

    def init(self, counts):
        return counts / counts.sum()

    def observe(self, step, logits, labels):
        return torch.bincount(logits.argmax(1)[labels < 0], minlength=C).float()

    def update(self, observation):
        return 0.5 * self.weights + 0.5 * observation.max() / observation.clamp_min(1)

    def voxel_weight(self, logits, reference):
        return reference.amax(1) if self.voxels else None


def weighted(name="default", voxels=True, **options):
    loss = make_loss(name, counts=[50, 30, 20], **options)
    return Weighted(loss, {"a": ByPrediction(voxels)})


def expected_weights():
    counts = torch.bincount(LOGITS.argmax(1)[SPLIT < 0], minlength=C).float()
    return 0.5 * torch.tensor([0.5, 0.3, 0.2]) + 0.5 * counts.max() / counts


def test_weights_start_from_the_labeled_voxels_and_follow_the_predictions():
    loss = weighted()
    assert loss.needs_reference
    assert loss.weightings["a"].weights.tolist() == pytest.approx([0.5, 0.3, 0.2])
    observed(loss, LOGITS, SPLIT, "a")
    torch.testing.assert_close(loss.weightings["a"].weights, expected_weights())


@pytest.mark.parametrize("name", ["default", "ga", "focal", "tversky", "generalized_dice", "topk_ce"])
@pytest.mark.parametrize("source", ["label", "pseudo"])
def test_the_weights_are_those_that_one_could_pass_oneself(name, source):
    loss, alone = observed(weighted(name), LOGITS, SPLIT, "a"), make_loss(name)
    given = {"class_weight": expected_weights()}
    if source == "pseudo":
        given["voxel_weight"] = REFERENCE[1].amax(1)
    found = both_terms(loss, source, reference=REFERENCE)
    torch.testing.assert_close(found, both_terms(alone, source, **given))
    assert not torch.allclose(torch.stack(found), torch.stack(both_terms(alone, source)))
    criteria = CriteriaSpec(ce_weight=0.3, dice_weight=2)
    loss.inner.criteria = criteria
    total = loss.supervised(LOGITS, LABELS, source=source, key="a", reference=REFERENCE)
    torch.testing.assert_close(total, 0.3 * found[0] + 2 * found[1])


def test_the_weights_of_every_weighting_are_logged_after_they_moved():
    logged = {}
    loss = Weighted(make_loss("ga"), {"a": registry.component("weighting", "distdw")(C), "b": Adsh(C, capacity=1)})
    for _ in range(3):
        for key in ("a", "b"):
            loss.observe(a_step(logged=logged), key, LOGITS, torch.full_like(LABELS, -1))
    assert logged["weight/a"].tolist() == loss.weightings["a"].weights.tolist() != [1, 1, 1]
    assert logged["threshold/b"].tolist() == loss.weightings["b"].thresholds.tolist() != [0, 0, 0]
    assert "weight/b" not in logged  # they stay 1


def test_what_a_weighting_of_ones_own_keeps_is_logged_by_its_name():
    class Rising(Weighting):
        def observe(self, step, logits, labels):
            return torch.arange(C)

        def update(self, observation):
            return observation.float()

        def records(self):
            return {**super().records(), "rank": -self.weights}

    logged = {}
    Weighted(make_loss("default"), {"a": Rising(C)}).observe(a_step(logged=logged), "a", LOGITS, LABELS)
    assert {name: values.tolist() for name, values in logged.items()} == {"weight/a": [0, 1, 2], "rank/a": [0, -1, -2]}


def test_weights_multiply_those_of_the_method():
    loss, alone = observed(weighted(), LOGITS, SPLIT, "a"), make_loss("default")
    own = {
        "mask": torch.arange(N).view(B, *SHAPE) % 3 > 0,
        "voxel_weight": torch.linspace(0, 2, N, dtype=torch.float64).view(B, *SHAPE),
        "class_weight": torch.tensor([1.0, 0.0, 3.0]),
    }
    product = {**own, "class_weight": own["class_weight"] * expected_weights()}
    product["voxel_weight"] = own["voxel_weight"] * REFERENCE[1].amax(1)
    torch.testing.assert_close(
        both_terms(loss, "pseudo", reference=REFERENCE, **own), both_terms(alone, "pseudo", **product)
    )


def test_a_predictor_without_a_weighting_and_soft_consistency_stay_as_they_are():
    loss, alone, own = observed(weighted(), LOGITS, SPLIT, "a", "b"), make_loss("default"), torch.tensor(2.0)
    for term in ("ce", "dice", "supervised"):
        torch.testing.assert_close(
            getattr(loss, term)(LOGITS, LABELS, source="pseudo", key="b"),
            getattr(alone, term)(LOGITS, LABELS, source="pseudo", key="b"),
        )
    assert loss.consistency(LOGITS, lambda: own, key="a", reference=REFERENCE) is own


def test_weights_are_saved_and_continue_in_a_fresh_loss():
    loss, fresh = observed(weighted(), LOGITS, SPLIT, "a"), weighted()
    fresh.load_state_dict(loss.state_dict())
    for one in (loss, fresh):
        observed(one, LOGITS.flip(0), SPLIT, "a")
    assert torch.equal(loss.weightings["a"].weights, fresh.weightings["a"].weights)


def test_a_weighting_goes_round_any_loss_even_one_with_a_state():
    loss = observed(weighted("metassl"), LOGITS, SPLIT, "a", "b")
    alone = observed(make_loss("metassl"), LOGITS, SPLIT, "a", "b")
    given = {"class_weight": expected_weights(), "voxel_weight": REFERENCE[1].amax(1), "reference": REFERENCE}
    torch.testing.assert_close(both_terms(loss, "pseudo", reference=REFERENCE), both_terms(alone, "pseudo", **given))
    assert loss.state_dict()["inner.quad._extra_state"].keys() == {"a", "b"}


def test_voxel_weights_are_a_weightings_choice():
    loss, alone = observed(weighted(voxels=False), LOGITS, SPLIT, "a"), make_loss("default")
    torch.testing.assert_close(both_terms(loss, "pseudo"), both_terms(alone, "pseudo", class_weight=expected_weights()))


# ------------------------------------------------------------------------------------------- what has no meaning


@pytest.mark.parametrize(
    ("method", "loss"),
    [("supervised", "ga_unlabeled_only"), ("mt", "ga_unlabeled_only"), ("supervised", "metassl_uqh")],
)
def test_a_loss_that_would_change_nothing_is_refused(method, loss):
    job = Job(recipe="phantom", method=method, loss=loss, labeled="20%")
    with pytest.raises(UsageError, match=r"together they are the loss 'default'"):
        job.canonical()


@pytest.mark.parametrize(
    ("method", "loss"),
    [("supervised", "ga_labeled_only"), ("mt", "metassl_uqh"), ("cps", "ga_unlabeled_only"), ("mt", "ga")],
)
def test_a_loss_that_changes_something_is_not(method, loss):
    Job(recipe="phantom", method=method, loss=loss, labeled="20%").canonical()


def test_a_loss_may_take_the_arguments_apart_and_serves_inside_others_alike():
    class OneTerm(Loss):
        def ce_term(self, term):
            return 3 * super().ce_term(term)

    class Apart(Loss):
        def ce(self, logits, target, *, source, key, reference=None, mask=None, voxel_weight=None, class_weight=None):
            return 3 * super().ce(
                logits, target, source=source, key=key, reference=reference, mask=mask, voxel_weight=voxel_weight,
                class_weight=class_weight,
            )  # fmt: skip

    found = []
    for kind in (OneTerm, Apart):
        plain = kind(NoOptions(), CriteriaSpec(), statistics())
        inside = observed(Weighted(BySource(plain, plain), {"a": ByPrediction()}), LOGITS, SPLIT, "a")
        asked = {"source": "pseudo", "key": "a", "reference": REFERENCE}
        found.append([loss.supervised(LOGITS, LABELS, **asked) for loss in (plain, inside)])
    torch.testing.assert_close(found[0], found[1])
    assert found[0][0] != found[0][1]


def test_a_third_partys_loss_overrides_what_it_replaces():
    class Half(Loss):
        """Half of the plain loss."""

        def ce_term(self, term):
            return 0.5 * super().ce_term(term)

    plain, half = make_loss("default"), Half(NoOptions(), CriteriaSpec(), statistics())
    half.observe(a_step(), "net", LOGITS, LABELS)
    args = {"source": "label", "key": "net"}
    expected = 0.5 * plain.ce(LOGITS, LABELS, **args) + plain.dice(LOGITS, LABELS, **args)
    torch.testing.assert_close(half.supervised(LOGITS, LABELS, key="net"), expected)


@pytest.mark.parametrize("name", ["default", "ga", "focal", "tversky", "metassl"])
@pytest.mark.parametrize("term", ["ce", "dice", "supervised"])
def test_a_misspelt_argument_is_an_error_under_every_loss(name, term):
    with pytest.raises(TypeError, match="voxel_weights"):
        getattr(make_loss(name), term)(LOGITS, LABELS, source="pseudo", key="net", voxel_weights=LABELS)
