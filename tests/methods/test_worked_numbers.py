"""The worked numbers of the method sheets, asked of whole training steps: networks are replaced by fixed logits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sslbench.methods.bcp import BCPOptions, BidirectionalCopyPaste
from sslbench.methods.cps import CPSOptions, CrossPseudoSupervision
from sslbench.methods.fixmatch import FixMatch, FixMatchOptions, thresholded_labels, unlikely_class_loss
from sslbench.methods.mt import MeanTeacher, MeanTeacherOptions
from sslbench.methods.rdrop import RDrop, RDropOptions
from sslbench.methods.shared import copy_paste
from sslbench.methods.uamt import UAMTOptions, UncertaintyAwareMeanTeacher
from tests.helpers.methods import (
    CE_A,
    CRITERIA,
    DICE_A,
    A,
    B,
    Fixed,
    Y,
    close,
    derivative,
    make_batch,
    make_step,
    method_of,
)

SMOOTH = CRITERIA.model_copy(update={"smooth": 1e-10})  # BCP's


def test_supervised_terms_and_mean_teacher() -> None:
    method = method_of(MeanTeacher, MeanTeacherOptions(), {"student": Fixed(torch.cat([A, A]))}, Fixed(B))
    terms = method.training_step(make_batch(), make_step(consistency_weight=0.1))
    close(terms["supervised"], 0.5 * (CE_A + DICE_A))
    close(terms["consistency"], 0.032590564)
    close(terms["loss"], 0.5 * (CE_A + DICE_A) + 0.1 * 0.032590564)


@pytest.mark.parametrize(("iteration", "expected"), [(1000, 0.0), (30000, 0.017099263)])
def test_uamt_lets_certain_voxels_through(iteration: int, expected: float) -> None:
    method = method_of(UncertaintyAwareMeanTeacher, UAMTOptions(), {"student": Fixed(torch.cat([A, A]))}, Fixed(B))
    terms = method.training_step(make_batch(), make_step(iteration, 30000))
    close(terms["consistency"], expected)
    assert method.teacher.calls == 1 + 4  # the target, and four passes of the doubled batch


def test_uamt_with_the_entropy_of_all_classes_as_cap_lets_all_through() -> None:
    options = UAMTOptions(entropy_cap="lnC")
    method = method_of(UncertaintyAwareMeanTeacher, options, {"student": Fixed(torch.cat([A, A]))}, Fixed(B))
    terms = method.training_step(make_batch(), make_step(30000, 30000))
    # Every entropy of B (0.97533 at most) is below ln 3: Σ (p - q)² over 4 voxels, divided by 2·4.
    close(terms["consistency"], 0.032590564 * 12 / 8)


def test_cps_crosses_the_hard_labels() -> None:
    networks = {"a": Fixed(torch.cat([A, A])), "b": Fixed(torch.cat([A, B]))}
    terms = method_of(CrossPseudoSupervision, CPSOptions(), networks).training_step(make_batch(), make_step())
    log_a, log_b = A.log_softmax(1), B.log_softmax(1)
    expected = -sum(log.gather(1, other.argmax(1, keepdim=True)).mean() for log, other in ((log_a, B), (log_b, A)))
    close(terms["cross"], float(expected))
    close(terms["supervised"], CE_A + DICE_A)


@pytest.mark.parametrize(("width", "expected"), [(False, 0.046100076), (True, 0.047709174)])
@pytest.mark.parametrize("networks", ["one", "two"])
def test_rdrop_draws_two_predictions_to_each_other(networks: str, width: bool, expected: float) -> None:
    options = RDropOptions(networks=networks, released_width_softmax=width)
    first, second = torch.cat([A, A]), torch.cat([A, B])
    fixed = {"net": Fixed(first, second)} if networks == "one" else {"a": Fixed(first), "b": Fixed(second)}
    terms = method_of(RDrop, options, fixed).training_step(make_batch(), make_step())
    close(terms["consistency"], expected)
    # One network: the mean of its two supervised losses; two networks: their sum.
    close(terms["supervised"], 0.5 * (CE_A + DICE_A) * (1 if networks == "one" else 2))


def test_fixmatch_of_ssl4mis() -> None:
    assert thresholded_labels(A.softmax(1)).tolist() == [[[0, 2], [0, 2]]]
    close(unlikely_class_loss(A, B), 0.018016055)
    method = method_of(
        FixMatch, FixMatchOptions(variant="ssl4mis"), {"net": Fixed(torch.cat([A, A]), torch.cat([B, B]))}
    )
    terms = method.training_step(make_batch(), make_step())
    pseudo = torch.tensor([[[0, 2], [0, 2]]])
    plain = method.loss.ce(B, pseudo, source="pseudo", key="net") + method.loss.dice(
        B, pseudo, source="pseudo", key="net"
    )
    close(terms["pseudo"], float(plain) + 0.018016055)


@pytest.mark.parametrize(("threshold", "voxels"), [(0.7, 1), (0.6, 4)])
def test_fixmatch_takes_the_mean_over_confident_voxels(threshold: float, voxels: int) -> None:
    networks = {"net": Fixed(torch.cat([A, A]), B)}
    terms = method_of(FixMatch, FixMatchOptions(threshold=threshold), networks).training_step(make_batch(), make_step())
    confidence, label = A.softmax(1).max(1)
    nll = -B.log_softmax(1).gather(1, label.unsqueeze(1)).squeeze(1)
    assert (confidence > threshold).sum() == voxels
    close(terms["pseudo"], float(nll[confidence > threshold].mean()))


def test_fixmatch_learns_nothing_where_nothing_is_confident() -> None:
    networks = {"net": Fixed(torch.cat([A, A]), B)}
    terms = method_of(FixMatch, FixMatchOptions(threshold=0.99), networks).training_step(make_batch(), make_step())
    assert float(terms["pseudo"].detach()) == 0 and terms["pseudo"].requires_grad


@pytest.mark.parametrize(
    ("released", "dice"), [(False, (0.572325829, 0.577581946)), (True, (0.685666854, 0.697285586))]
)
def test_bcp_supervises_region_by_region(
    released: bool, dice: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    monkeypatch.setattr(copy_paste, "draw_copy_paste_mask", lambda *_: mask)
    outside, inside = torch.tensor([[[0, 2], [1, 1]]]), torch.tensor([[[1, 2], [0, 2]]])
    taught = [8.0 * torch.nn.functional.one_hot(label, 3).movedim(-1, 1) for label in (outside, inside)]
    # Mix 1: unlabelled outside of the box, labelled patch a inside; mix 2: labelled patch b outside, unlabelled inside.
    batch = make_batch(torch.cat([inside, outside]), unlabeled=2)
    options = BCPOptions(released_bcp_bgmask=released)
    method = method_of(BidirectionalCopyPaste, options, {"student": Fixed(A)}, Fixed(*taught), SMOOTH)
    terms = method.training_step(batch, make_step(phase="self-train"))
    close(terms["loss"], 0.5 * (dice[0] + 0.560783821 + dice[1] + 0.586096384))


def test_bcp_before_is_the_sum_of_both_regions_or_the_mixed_label() -> None:
    labels = torch.cat([Y, Y.flip(-1)])
    for regions in (True, False):
        options = BCPOptions(pretrain_regions=regions)
        method = method_of(BidirectionalCopyPaste, options, {"student": Fixed(A)}, Fixed(B), SMOOTH)
        loss = method.training_step(make_batch(labels, unlabeled=0), make_step(phase="pretrain"))["loss"]
        # The box of 2×2 patches is one voxel at the origin.
        box = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
        if regions:
            expected = sum(
                method.loss.supervised(A, label[None], key="student", mask=region[None])
                for label, region in ((labels[0], box), (labels[1], 1 - box))
            )
        else:
            mixed = torch.where(box > 0, labels[0], labels[1])[None]
            expected = method.loss.supervised(A, mixed, key="student")
        close(loss, float(expected))


def one_of_each() -> dict[str, tuple[Any, str]]:
    """Methods of fixed logits, and their phase."""
    pair = torch.cat([A, A])
    other = torch.cat([B, B + 0.3 * A])
    return {
        "mt": (method_of(MeanTeacher, MeanTeacherOptions(), {"student": Fixed(pair)}, Fixed(B)), "train"),
        "uamt": (
            method_of(UncertaintyAwareMeanTeacher, UAMTOptions(entropy_cap="lnC"), {"student": Fixed(pair)}, Fixed(B)),
            "train",
        ),
        "cps": (method_of(CrossPseudoSupervision, CPSOptions(), {"a": Fixed(pair), "b": Fixed(other)}), "train"),
        "rdrop": (method_of(RDrop, RDropOptions(networks="one"), {"net": Fixed(pair, other)}), "train"),
        "fixmatch": (method_of(FixMatch, FixMatchOptions(threshold=0.7), {"net": Fixed(pair, B)}), "train"),
        "ssl4mis": (method_of(FixMatch, FixMatchOptions(variant="ssl4mis"), {"net": Fixed(pair, other)}), "train"),
    }


@pytest.mark.parametrize("name", one_of_each())
def test_the_gradient_is_the_derivative_of_the_loss(name: str) -> None:
    """Central differences, in every logit of every network that learns; targets are constants or piecewise so."""
    method, phase = one_of_each()[name]
    batch, step = make_batch(), make_step(phase=phase, iteration=9, consistency_weight=1.0)

    def loss() -> Tensor:
        for module in method.modules():
            if isinstance(module, Fixed):
                module.calls = 0
        found: Tensor = method.training_step(batch, step)["loss"]
        return found

    loss().backward()
    learners = [parameter for parameter in method.parameters() if parameter.requires_grad]
    assert learners and math.isfinite(float(loss().detach()))
    for parameter in learners:
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, derivative(loss, parameter), atol=1e-7)
