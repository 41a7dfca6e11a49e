"""The classic losses against MONAI's, and what their options and statistics mean."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sslbench.config.job import Job
from sslbench.config.recipe import CriteriaSpec
from sslbench.core.errors import UsageError
from sslbench.losses.cross_entropy import cross_entropy
from tests.helpers.losses import C, close, example_labels, example_logits, make_loss

CRITERIA = CriteriaSpec(smooth=1e-5)
LOGITS = example_logits(torch.float64)
ARGS = {"source": "label", "key": "net"}


def value_and_gradient(term):
    logits = LOGITS.clone().requires_grad_()
    value = term(logits)
    return value.detach().reshape(()), torch.autograd.grad(value.sum(), logits)[0]


@pytest.mark.parametrize("labels", ["full", "absent"])
@pytest.mark.parametrize("name", ["tversky", "tversky half", "focal", "focal 0.5", "generalized_dice"])
def test_values_and_gradients_are_monais(name, labels):
    from monai.losses import FocalLoss, GeneralizedDiceLoss, TverskyLoss

    target = example_labels(labels)
    common = {"to_onehot_y": True, "softmax": True, "batch": True}
    smooth = {"smooth_nr": 1e-5, "smooth_dr": 1e-5}
    focal = {"to_onehot_y": True, "use_softmax": True}
    # MONAI's weights 1/R² are not scaled to a largest of 1: its smoothing is ours times the largest, 1/R²_min.
    least = float(target.unique(return_counts=True)[1].min())
    ours, theirs, factor = {
        "tversky": (make_loss("tversky", CRITERIA).dice, TverskyLoss(**common, **smooth, alpha=0.3, beta=0.7), 1),
        "tversky half": (
            make_loss("tversky", CRITERIA, alpha=0.5, beta=0.5).dice,
            TverskyLoss(**common, **smooth),
            1,
        ),
        # MONAI's mean divides by the classes too.
        "focal": (make_loss("focal").ce, FocalLoss(**focal), C),
        "focal 0.5": (make_loss("focal", gamma=0.5).ce, FocalLoss(**focal, gamma=0.5), C),
        "generalized_dice": (
            make_loss("generalized_dice", CRITERIA).dice,
            GeneralizedDiceLoss(**common, smooth_nr=1e-5 / least**2, smooth_dr=1e-5 / least**2),
            1,
        ),
    }[name]
    value, gradient = value_and_gradient(lambda logits: ours(logits, target, **ARGS))
    expected, expected_gradient = value_and_gradient(lambda logits: factor * theirs(logits, target.unsqueeze(1)))
    # MONAI's focal loss computes in fp32.
    torch.testing.assert_close(value, expected.double(), rtol=2e-6, atol=1e-7)
    torch.testing.assert_close(gradient, expected_gradient, rtol=2e-5, atol=1e-8)


def test_each_replaces_one_part_and_leaves_the_other():
    target, plain = example_labels("full"), make_loss("default", CRITERIA)
    for name, replaced in {
        "focal": "ce",
        "topk_ce": "ce",
        "weighted_ce": "ce",
        "tversky": "dice",
        "focal_tversky": "dice",
        "generalized_dice": "dice",
    }.items():
        loss = make_loss(name, CRITERIA, counts=[900, 60, 40])
        for term in ("ce", "dice"):
            same = torch.equal(
                getattr(loss, term)(LOGITS, target, **ARGS), getattr(plain, term)(LOGITS, target, **ARGS)
            )
            assert same is (term != replaced)


def test_focal_without_focus_is_cross_entropy_and_tversky_with_halves_is_linear_dice():
    target = example_labels("absent")
    close(make_loss("focal", gamma=0).ce(LOGITS, target, **ARGS), float(F.cross_entropy(LOGITS, target)), 1e-12)
    half = make_loss("tversky", CriteriaSpec(smooth=5e-6), alpha=0.5, beta=0.5).dice(LOGITS, target, **ARGS)
    linear = make_loss("default", CriteriaSpec(dice="linear", smooth=1e-5)).dice(LOGITS, target, **ARGS)
    close(half, float(linear), 1e-12)


def test_topk_is_the_mean_of_the_hardest():
    target = example_labels("full")
    hardest = F.cross_entropy(LOGITS, target, reduction="none").flatten().topk(4).values
    loss = make_loss("topk_ce")
    close(loss.ce(LOGITS, target, **ARGS), float(hardest.mean()), 1e-9)
    close(loss.ce(LOGITS, target, source="pseudo", key="net"), float(F.cross_entropy(LOGITS, target)), 1e-9)


def test_class_weights_from_the_labeled_voxels():
    """CLD's example of the sheet; a class without a voxel counts as one."""
    loss = make_loss("weighted_ce", num_classes=4, counts=[900, 60, 30, 10])
    assert loss.class_weights.tolist() == pytest.approx([1, 2.466212, 3.107233, 4.481405], abs=1e-6)
    inverse = make_loss("weighted_ce", num_classes=3, counts=[900, 0, 30], power=1)
    assert inverse.class_weights.tolist() == [1, 900, 30]
    assert make_loss("weighted_ce", weights=[0.0, 1.5, 3.0]).class_weights.tolist() == [0, 1.5, 3]
    assert loss.state_dict() == {}


def test_given_class_weights_multiply_those_of_the_loss():
    target, given = example_labels("full"), torch.tensor([2.0, 1.0, 0.5])
    loss = make_loss("weighted_ce", weights=[1.0, 1.5, 3.0])
    expected = cross_entropy(LOGITS, target, class_weight=torch.tensor([2.0, 1.5, 1.5]))
    torch.testing.assert_close(loss.ce(LOGITS, target, class_weight=given, **ARGS), expected)


def test_weights_of_another_number_of_classes_are_refused_before_training():
    job = Job(recipe="phantom", method="cps", loss="weighted_ce[weights=[1, 2]]", labeled="20%")
    with pytest.raises(UsageError, match=r"loss\.weights has 2 numbers, phantom has 14 classes with background"):
        job.canonical()


def test_a_perfect_class_has_a_finite_gradient_under_the_root_of_focal_tversky():
    target = example_labels("full")
    logits = (1e4 * F.one_hot(target, C).movedim(-1, 1)).double().requires_grad_()
    value = make_loss("focal_tversky", CRITERIA).dice(logits, target, **ARGS)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-9) and logits.grad.isfinite().all()
