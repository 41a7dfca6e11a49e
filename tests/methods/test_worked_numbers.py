"""The worked numbers of the method sheets, asked of whole training steps: networks are replaced by fixed logits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sslbench.config.recipe import CriteriaSpec
from sslbench.conformance.bench import Subject
from sslbench.core.options import NoOptions
from sslbench.core.step import Batch, Statistics
from sslbench.losses.base import Loss
from sslbench.methods import genericssl
from sslbench.methods.basak import Basak, BasakOptions
from sslbench.methods.bcp import BCPOptions, BidirectionalCopyPaste
from sslbench.methods.cps import CPSOptions, CrossPseudoSupervision
from sslbench.methods.dst import DST, DSTOptions
from sslbench.methods.fixmatch import FixMatch, FixMatchOptions, thresholded_labels, unlikely_class_loss
from sslbench.methods.genericssl import GenericSSL, GenericSSLOptions
from sslbench.methods.mt import MeanTeacher, MeanTeacherOptions
from sslbench.methods.rdrop import RDrop, RDropOptions
from sslbench.methods.shared import copy_paste
from sslbench.methods.uamt import UAMTOptions, UncertaintyAwareMeanTeacher
from sslbench.networks import Features
from tests.helpers.losses import SHAPE, C, example_labels, example_logits
from tests.helpers.methods import (
    CE_A,
    CRITERIA,
    DICE_A,
    A,
    B,
    Build,
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


# --------------------------------------------------------------------- the numbers of the loss sheet, in 3-D steps

# Two patches each; the second predictor has the classes of the first rotated (sheet of losses, section 4).
LOGITS = example_logits(torch.float64)
ROTATED = LOGITS.roll(-1, dims=1)
TRUTH = example_labels("full")
DCCE, CROSS, WORST = 1.195048, 3.854502, 4.147572
FOREGROUND = CriteriaSpec(dice="foreground", smooth=1.0)
CASES = Statistics(torch.ones(1, C, dtype=torch.int64), 1, 1, (SHAPE,), C, SHAPE, (2, 2))


class Heads(nn.Module):
    """A network of fixed logits for two patches, repeated to the batch; each of its decoders gives its own."""

    def __init__(self, **outputs: Tensor) -> None:
        super().__init__()
        self.outputs = nn.ParameterDict({name: logits.clone() for name, logits in outputs.items()})

    def encode(self, x: Tensor) -> Features:
        return Features((x,))

    def logits(self, features: Features, name: str = "main") -> Tensor:
        patches: Tensor = self.outputs[name].repeat(len(features.maps[0]) // 2, 1, 1, 1, 1)
        return patches

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.encode(x))


class Role(nn.Module):
    """A decoder that gives one of the outputs of `Heads`."""

    def __init__(self, net: Heads, name: str) -> None:
        super().__init__()
        self.heads, self.name = [net], name  # no submodule: its parameters are the network's

    def logits(self, features: Features) -> Tensor:
        return self.heads[0].logits(features, self.name)


class HeadsBuild(Build):
    def __init__(self, networks: dict[str, Any], teacher: Any = None) -> None:
        super().__init__(networks, teacher)

    def decoder(self, like: Any, key: str, **options: Any) -> Any:
        return Role(like, key.split("/")[-1])


def in_three_dimensions(kind: Any, options: Any, networks: dict[str, Any], teacher: Any = None) -> Any:
    return kind(options, HeadsBuild(networks, teacher), Loss(NoOptions(), FOREGROUND, CASES), CASES)


def four_patches() -> Batch:
    """The labels of the sheet, and two patches without."""
    labels = torch.cat([TRUTH, torch.full_like(TRUTH, -1)])
    image = torch.zeros(4, 1, *SHAPE)
    return Batch({"weak": image}, {"weak": labels}, 2, torch.arange(4), torch.zeros(4, 3))


def dcce_of(logits: Tensor, labels: Tensor) -> float:
    """Cross-entropy and Dice of the foreground, for what the sheet has no number of."""
    p, found = logits.softmax(1), []
    for c in range(1, C):
        one = (labels == c).double()
        found.append((2 * (p[:, c] * one).sum() + 1) / (p[:, c].sum() + one.sum() + 1 + 1e-8))
    return float(torch.nn.functional.cross_entropy(logits, labels) - sum(found) / len(found))


def near(value: Tensor, expected: float) -> None:
    assert float(value.detach()) == pytest.approx(expected, rel=2e-6)


def test_what_the_sheet_has_no_number_of_is_summed_as_what_it_has() -> None:
    assert dcce_of(LOGITS, TRUTH) == pytest.approx(DCCE, abs=1e-6)


@pytest.mark.parametrize("released", [False, True])
def test_dst_is_cross_supervision_and_the_worst_case_of_either_network(released: bool) -> None:
    """All voxels confident: cross-entropy with the other's classes, whichever head has which part."""
    if released:  # main heads learn what sure pseudo heads say
        networks = {
            "a": Heads(main=LOGITS, pseudo=1000 * LOGITS, worst=ROTATED),
            "b": Heads(main=ROTATED, pseudo=1000 * ROTATED, worst=ROTATED.roll(-1, dims=1)),
        }
    else:
        networks = {
            "a": Heads(main=LOGITS, pseudo=LOGITS, worst=ROTATED),
            "b": Heads(main=ROTATED, pseudo=ROTATED, worst=ROTATED.roll(-1, dims=1)),
        }
    options = DSTOptions(released_pseudo_head=released, threshold=0.95 if released else 0)
    terms = in_three_dimensions(DST, options, networks).training_step(four_patches(), make_step(consistency_weight=0.3))
    near(terms["supervised"], DCCE + dcce_of(ROTATED, TRUTH))
    near(terms["cross"], CROSS)
    near(terms["worst"], 2 * WORST)  # that of b has all classes rotated
    near(terms["loss"], DCCE + dcce_of(ROTATED, TRUTH) + 0.3 * (CROSS + 2 * WORST))


def test_basak_weighs_the_teachers_classes_by_the_students_confidence() -> None:
    method = in_three_dimensions(Basak, BasakOptions(), {"student": Heads(main=LOGITS)}, Heads(main=ROTATED))
    terms = method.training_step(four_patches(), make_step(consistency_weight=0.3))
    near(terms["supervised"], DCCE)
    sure = LOGITS.softmax(1).amax(1) ** 1.5  # every rate is 1 in the first epoch
    nll = torch.nn.functional.cross_entropy(LOGITS, ROTATED.argmax(1), reduction="none")
    near(terms["pseudo"], float((sure * nll).mean()))
    near(terms["loss"], DCCE + 0.3 * float((sure * nll).mean()))
    assert method.seen[1].tolist() == pytest.approx([0.3253, 0.2631, 0.5333], abs=6e-5)


class Diffusion(Heads):
    """What GenericSSL asks of its network: a denoiser and two plain decoders."""

    @property
    def decoders(self) -> tuple[Role, Role]:
        return Role(self, "theta"), Role(self, "psi")


def test_genericssl_is_denoising_difficulty_and_what_both_agree_on(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Diffusion(xi=LOGITS, theta=LOGITS, psi=LOGITS)
    method = in_three_dimensions(GenericSSL, GenericSSLOptions(), {"net": net})
    monkeypatch.setattr(method, "_decoders", lambda: net.decoders)
    monkeypatch.setattr(method, "_pull", lambda *_: None)
    monkeypatch.setattr(method, "_denoised", lambda *_: net.outputs["xi"])
    # The sample says the rotated classes so surely that no smoothing makes another one larger than ψ's doubt of it.
    target = ROTATED.argmax(1)
    monkeypatch.setattr(method, "_sample", lambda *_: torch.zeros_like(LOGITS))
    monkeypatch.setattr(genericssl, "smooth", lambda x: 2.0 * torch.nn.functional.one_hot(target, C).movedim(-1, 1))
    # The sheet's weights (0, 1.5, 3) are C times this difficulty.
    monkeypatch.setattr(method.difficulty, "difficulty", lambda dice: torch.tensor([0.0, 0.5, 1.0]))
    terms = method.training_step(four_patches(), make_step(consistency_weight=0.3))
    near(terms["supervised"], DCCE + 0.766236)
    near(terms["pseudo"], dcce_of(LOGITS, target))
    near(terms["loss"], DCCE + 0.766236 + 0.3 * dcce_of(LOGITS, target))


class Pair(nn.Module):
    """A main and a balanced head of fixed logits."""

    def __init__(self, main: Tensor, balanced: Tensor) -> None:
        super().__init__()
        self.main, self.balanced = nn.Parameter(main.clone()), nn.Parameter(balanced.clone())

    def forward(self, features: Features) -> tuple[Tensor, Tensor]:
        times = len(features.maps[-1]) // 2
        return self.main.repeat(times, 1, 1, 1, 1), self.balanced.repeat(times, 1, 1, 1, 1)


@pytest.mark.parametrize("kept", [[1.0, 1.0, 1.0], [0.0, 1.0, 1.0]], ids=["all kept", "no background"])
def test_skcdf_teaches_one_decoder_labels_and_the_other_what_that_says(kept: list[float]) -> None:
    subject = Subject("skcdf", dims="3d")
    method: Any = subject.fresh().train()
    method.loss = Loss(NoOptions(), FOREGROUND, CASES)
    method.kept = torch.tensor(kept)
    method.labeled, method.unlabeled = Pair(LOGITS, ROTATED), Pair(LOGITS, ROTATED)
    method._follow = lambda: None
    method.net.encode = lambda x: Features((torch.zeros(len(x), 32, 2, 2, 2),))
    method.local.across = method.whole.across = lambda x, first: x
    method.local.within = method.whole.within = lambda x, *_, **__: x
    step = make_step(consistency_weight=0.3)  # the last epoch: unlabelled voxels are kept at the same rate
    terms = method.training_step(four_patches(), step)

    def balanced(labels: Tensor) -> float:
        inside = torch.tensor(kept, dtype=torch.float64)[labels]
        return dcce_of(ROTATED * inside.unsqueeze(1), labels * inside.long())

    near(terms["supervised"], DCCE + balanced(TRUTH))
    taught = dcce_of(LOGITS, LOGITS.argmax(1)) + balanced(ROTATED.argmax(1))
    near(terms["pseudo"], taught)
    near(terms["loss"], DCCE + balanced(TRUTH) + 0.3 * taught)
