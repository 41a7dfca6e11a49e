"""Consistency and pseudo-label terms of the methods, as plain functions of logits (B, C, *S).

Each computes in fp32 also under autocast and returns a 0-d tensor, or the map that its name says. A target (a teacher's
output, a pseudo-label) takes no gradient; where a method lets the gradient through both sides, its function says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from sslbench.losses.cross_entropy import classes_of, cross_entropy, full_precision
from sslbench.losses.dice import DiceLoss, softmax_sums
from sslbench.networks.base import unrecorded


def softmax_mse(logits: Tensor, target_logits: Tensor) -> Tensor:
    """The map (B, C, *S) of (softmax(logits) - softmax(target))²; the gradient reaches both sides."""
    return (full_precision(logits).softmax(1) - full_precision(target_logits).softmax(1)).square()


def mse_consistency(logits: Tensor, target_probs: Tensor) -> Tensor:
    """Mean over B·C·voxels of (softmax(logits) - target)² (Mean Teacher); no gradient reaches the target."""
    return (full_precision(logits).softmax(1) - target_probs.detach()).square().mean()


def kl_map(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p‖q) of each voxel, Σ_c p·(log p - log q), (B, *S), of log-probabilities (B, C, *S), gradient to both."""
    return (log_p.exp() * (log_p - log_q)).sum(1)


def entropy_map(probabilities: Tensor) -> Tensor:
    """-Σ_c p·log(p + 1e-6) of each voxel, (B, *S), in nats (UA-MT)."""
    return -(probabilities * (probabilities + 1e-6).log()).sum(1)


def entropy_loss(logits: Tensor) -> Tensor:
    """Mean over voxels of the entropy -Σ_c p·log p in nats, not divided by log C (entropy minimisation)."""
    log_p = full_precision(logits).log_softmax(1)
    return -(log_p.exp() * log_p).sum(1).mean()


# ------------------------------------------------------------------------------------------------- hard pseudo-labels


def cps_loss(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """CE(A, argmax B) + CE(B, argmax A) (CPS, CVPR 2021); each network learns from the other's hard labels."""
    return cross_entropy(logits_a, classes_of(logits_b.detach())) + cross_entropy(
        logits_b, classes_of(logits_a.detach())
    )


def cps_dice_loss(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """Dice(A, argmax B) + Dice(B, argmax A): squared denominators, smooth 1e-5, background included (ABD, β-FFT)."""
    dice = DiceLoss()
    hard_a, hard_b = classes_of(logits_a.detach()), classes_of(logits_b.detach())
    return dice(logits_a, hard_b) + dice(logits_b, hard_a)


def bcp_mix_loss(
    logits: Tensor,
    image_target: Tensor,
    patch_target: Tensor,
    mask: Tensor,
    image_weight: float = 1.0,
    patch_weight: float = 0.5,
    dice: Literal["squared", "linear"] = "squared",
    released_bgmask: bool = False,
) -> Tensor:
    """½ (CE + Dice) of copy-pasted images, each the weighted sum of its two regions' means (BCP, CVPR 2023).

    Args:
        logits: (B, C, *S) of mixed images.
        image_target: (B, *S) int64, labels of the image that was pasted into.
        patch_target: (B, *S) int64, labels of the image that the box was cut from.
        mask: (*S) or (B, *S), 1 outside the box, 0 inside.
        image_weight: of the region outside the box; 1 where it is the labelled one, else 0.5.
        patch_weight: of the box.
        dice: `squared` (ACDC): batch Dice, squared denominators, smooth 1e-10; `linear` (LA): mean over samples of
            Dice with plain denominators, smooth 1e-5.
        released_bgmask: the authors' code before October 2023, whose background Dice of either region is taken over
            the whole image.
    """
    criterion = DiceLoss(1e-10) if dice == "squared" else DiceLoss(1e-5, squared=False, batch=False)
    outside = mask.to(torch.float32).expand_as(image_target)
    total = logits.new_zeros((), dtype=torch.float32)
    for weight, target, region in (
        (image_weight, image_target, outside),
        (patch_weight, patch_target, 1 - outside),
    ):
        terms = criterion.terms(logits, target, region)
        if released_bgmask:
            terms = torch.cat([criterion.terms(logits, target)[..., :1], terms[..., 1:]], dim=-1)
        total = total + weight * 0.5 * (cross_entropy(logits, target, region) + terms.mean())
    return total


# ---------------------------------------------------------------------------------------------- soft consistency terms


def rdrop_loss(logits_a: Tensor, logits_b: Tensor, axis: Literal["class", "width"] = "class") -> Tensor:
    """½ [KL(a‖b) + KL(b‖a)], each the mean over B·C·voxels, gradient to both (R-Drop, NeurIPS 2021, as in SSL4MIS).

    The mean also divides by C, as the elementwise mean of the field's code does; the paper's own form, which sums over
    classes, is C times this.

    Args:
        logits_a, logits_b: (B, C, *S), of two passes or two networks.
        axis: of the softmax; `width`, the last spatial axis, is a slip of the released code.
    """
    dim = 1 if axis == "class" else -1
    log_a, log_b = full_precision(logits_a).log_softmax(dim), full_precision(logits_b).log_softmax(dim)
    return 0.5 * ((log_a.exp() - log_b.exp()) * (log_a - log_b)).mean()


def cct_loss(main_logits: Tensor, aux_logits: Sequence[Tensor]) -> Tensor:
    """Mean over auxiliary decoders of mean (p_main - p_aux)², gradient to all (CCT, CVPR 2020, as in SSL4MIS)."""
    return torch.stack([softmax_mse(main_logits, aux).mean() for aux in aux_logits]).mean()


def urpc_loss(logits: Sequence[Tensor]) -> Tensor:
    """Uncertainty-rectified pyramid consistency (URPC, MICCAI 2021).

    With M the mean of the heads' probabilities, v = KL(M‖p_h) per voxel and e = exp(-v): the mean over heads of
    mean(e·(M - p_h)²) / (mean e + 1e-8) + mean v. The gradient reaches every head, through M too.

    Args:
        logits: (B, C, *S) of each head, at full size.
    """
    log_mean = log_mean_probabilities(logits)
    return torch.stack([rectified_distance(head, log_mean) for head in logits]).mean()


def log_mean_probabilities(logits: Sequence[Tensor]) -> Tensor:
    """The logarithm of the mean of the predictions' probabilities, (B, C, *S), gradient to all."""
    return torch.stack([full_precision(one).log_softmax(1) for one in logits]).logsumexp(0) - math.log(len(logits))


def rectified_distance(logits: Tensor, log_mean: Tensor) -> Tensor:
    """One head's term of URPC: mean(e·(M - p)²) / (mean e + 1e-8) + mean v, with v = KL(M‖p) per voxel and e = exp(-v).

    Args:
        logits: (B, C, *S) of the head.
        log_mean: log M, (B, C, *S); the gradient reaches it too.
    """
    log_p = full_precision(logits).log_softmax(1)
    variance = kl_map(log_mean, log_p)
    trust = (-variance).exp()
    rectified = (trust.unsqueeze(1) * (log_mean.exp() - log_p.exp()).square()).mean() / (trust.mean() + 1e-8)
    return rectified + variance.mean()


# --------------------------------------------------------------------------------------------------------- UA-MT


def predictive_entropy(mc_logits: Tensor) -> Tensor:
    """Entropy of the mean of T stochastic passes: (T, B, C, *S) logits -> (B, *S) (UA-MT)."""
    return entropy_map(full_precision(mc_logits).softmax(2).mean(0))


def uamt_threshold(step: float, max_steps: float, entropy_cap: float = math.log(2)) -> float:
    """(0.75 + 0.25·exp(-5(1 - step/max_steps)²))·ln 2, the entropy below which a voxel counts as certain.

    `entropy_cap` is ln 2 for any number of classes in the released code; ln C is the largest entropy of C classes.
    """
    t = min(max(step / max_steps, 0.0), 1.0)
    return (0.75 + 0.25 * math.exp(-5.0 * (1.0 - t) ** 2)) * entropy_cap


def certain_mse(logits: Tensor, target_probs: Tensor, entropy: Tensor, threshold: float) -> Tensor:
    """Σ m·(softmax(logits) - target)² / (2Σm + 1e-16) over the voxels m whose `entropy` (B, *S) is below `threshold`.

    The numerator sums over all C classes too; the 2 is a class count left over in the released UA-MT code, and stays 2
    for any C. Where no voxel is certain the term is 0 with a graph.
    """
    certain = (entropy < threshold).to(torch.float32)
    squares = (full_precision(logits).softmax(1) - target_probs.detach()).square()
    return (certain.unsqueeze(1) * squares).sum() / (2 * certain.sum() + 1e-16)


def uamt_consistency(
    logits: Tensor,
    teacher_logits: Tensor,
    mc_teacher_logits: Tensor,
    step: float,
    max_steps: float,
    entropy_cap: float = math.log(2),
) -> Tensor:
    """The student's squared distance from the teacher where the teacher is certain (UA-MT, MICCAI 2019).

    Args:
        logits: (B, C, *S) of the student.
        teacher_logits: (B, C, *S), the target.
        mc_teacher_logits: (T, B, C, *S), stochastic passes that decide where the teacher is certain.
        step, max_steps, entropy_cap: see `uamt_threshold`.
    """
    with torch.no_grad():
        target, entropy = full_precision(teacher_logits).softmax(1), predictive_entropy(mc_teacher_logits)
    return certain_mse(logits, target, entropy, uamt_threshold(step, max_steps, entropy_cap))


# ------------------------------------------------------------------------------------- virtual adversarial training


def vat_loss(
    model: nn.Module,
    x: Tensor,
    xi: float = 10.0,
    eps: float = 6.0,
    iterations: int = 1,
    noise: Tensor | None = None,
    distance: Literal["dice", "pooled_dice", "linear_dice"] = "dice",
) -> Tensor:
    """How far the prediction moves in the direction that moves it most (VAT, TPAMI 2019; SS-Net, MICCAI 2022).

    p = softmax(model(x)) without gradient; d starts as `noise`, and each power iteration replaces it by the gradient
    of D(softmax(model(x + ξd)), p); the loss is D(softmax(model(x + εd)), p). d has L2 norm 1 per sample throughout.
    Batch-norm statistics are not updated by the perturbed passes, and the power iterations leave no gradient in the
    parameters.

    Args:
        model: gives logits (B, C, *S).
        x: (B, channels, *S).
        xi: ξ, length of the probing step.
        eps: ε, length of the adversarial step: 6 in 2-D, 10 in 3-D.
        iterations: of the power method.
        noise: the shape of x; none: uniform in [-0.5, 0.5) from the default generator.
        distance: D against the soft p: `dice`, squared denominators, smooth 1e-10, mean over classes; `pooled_dice`,
            one Dice with plain denominators over all classes and voxels, smooth 1e-8 (SS-Net on LA); `linear_dice`,
            the mean over classes of Dice with plain denominators, smooth 1e-8 (DHC's port).
    """
    measures: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "dice": DiceLoss(1e-10),
        "pooled_dice": _pooled_dice,
        "linear_dice": DiceLoss(1e-8, squared=False),
    }
    measure = measures[distance]
    with torch.no_grad():
        clean = full_precision(model(x)).softmax(1)
    direction = _unit(torch.rand_like(x) - 0.5 if noise is None else noise)
    with unrecorded(model):
        for _ in range(iterations):
            with torch.enable_grad():
                direction.requires_grad_()
                (gradient,) = torch.autograd.grad(measure(model(x + xi * direction), clean), direction)
            direction = _unit(gradient)
        return measure(model(x + eps * direction), clean)


def _pooled_dice(logits: Tensor, target: Tensor) -> Tensor:
    parts = [part.sum() for part in softmax_sums(logits, target, squared=False)]
    return 1 - (2 * parts[0] + 1e-8) / (parts[1] + parts[2] + 1e-8)


def _unit(direction: Tensor) -> Tensor:
    """Scaled to L2 norm 1 per sample, as a fresh leaf."""
    norm = direction.detach().flatten(1).norm(dim=1).view(-1, *[1] * (direction.ndim - 1))
    return direction.detach() / (norm + 1e-8)
