"""Losses that a reader of a table expects beside the new ones: focal, top-k and weighted cross-entropy, Tversky, focal
Tversky, generalised Dice.

The definitions are those of MONAI, against which the tests hold them; they are written over this package's own sums so
that masks, voxel weights and class weights mean the same in every loss, and no one-hot volume is made. Each replaces
cross-entropy or Dice; the other stays that of `default`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from sslbench.core import registry
from sslbench.core.registry import register
from sslbench.losses.base import Loss, LossOptions, Term, product
from sslbench.losses.cross_entropy import hard_labels, nll_map, weighted_mean
from sslbench.losses.dice import DiceSums, softmax_sums
from sslbench.losses.gradient_aware import GACELoss

if TYPE_CHECKING:
    from sslbench.config.job import ResolvedJob
    from sslbench.config.recipe import CriteriaSpec
    from sslbench.core.step import Statistics


# ------------------------------------------------------------------------------------------- instead of cross-entropy


class FocalOptions(LossOptions):
    """Options of `focal`."""

    gamma: float = Field(default=2.0, ge=0, description="focusing parameter (Lin et al.: 2)")


@register("loss", "focal")
class FocalLoss(Loss):
    """Focal cross-entropy -(1 - p_y)^γ·log p_y (Lin et al.; ICCV 2017); the Dice stays.

    Deviations:
    - the mean is over voxels, so γ = 0 is cross-entropy; MONAI's is over voxels and classes, C times less
    - a soft target is hardened
    """

    title = "Focal"
    changes = ("label", "pseudo")
    Options: ClassVar[type[BaseModel]] = FocalOptions
    options: FocalOptions

    def ce_term(self, term: Term) -> Tensor:
        target = hard_labels(term.logits, term.target)
        nll = nll_map(term.logits, target)
        # -expm1 keeps the digits of 1 - p near 1; at exactly 1 a γ below 1 would have no derivative.
        values = (-torch.expm1(-nll)).clamp_min(1e-12) ** self.options.gamma * nll
        by_class = None
        if term.class_weight is not None:
            by_class = term.class_weight.to(nll.dtype)[target]
            values = values * by_class
        return weighted_mean(values, term.mask, term.voxel_weight, by_class)


class TopKOptions(LossOptions):
    """Options of `topk_ce`."""

    k: float = Field(default=10, gt=0, le=100, description="percent of voxels kept with true labels (nnU-Net: 10)")
    k_pseudo: float = Field(
        default=100, gt=0, le=100, description="the same with pseudo-labels, whose hardest voxels are wrong ones"
    )


@register("loss", "topk_ce")
class TopKLoss(Loss):
    """The mean cross-entropy of the hardest k % of the voxels (Wu et al.; arXiv:1605.06885, 2016); the Dice stays.

    It is GACE with γ = 1: what GA adds to hard voxels is the damping of classes.
    """

    title = "TopK"
    changes = ("label", "pseudo")
    Options: ClassVar[type[BaseModel]] = TopKOptions
    options: TopKOptions

    def ce_term(self, term: Term) -> Tensor:
        criterion = GACELoss(self.options.k if term.source == "label" else self.options.k_pseudo, gamma=1)
        return criterion(term.logits, term.target, term.mask, term.voxel_weight, term.class_weight)


class WeightedCEOptions(LossOptions):
    """Options of `weighted_ce`."""

    power: float = Field(
        default=1 / 3, ge=0, description="w_c = (max n / n_c)^power from the labelled voxels (CLD: 1/3; 1: inverse)"
    )
    weights: list[float] | None = Field(default=None, description="one weight per class instead, background first")


@register("loss", "weighted_ce")
class WeightedCELoss(Loss):
    """Cross-entropy with fixed class weights from the labelled cases, Σ w·nll / Σ w (CLD, MICCAI 2022); the Dice stays.

    The counts are of whole volumes; a class that no labelled case has counts as one voxel.
    """

    title = "WCE"
    changes = ("label", "pseudo")
    Options: ClassVar[type[BaseModel]] = WeightedCEOptions
    options: WeightedCEOptions
    class_weights: Tensor

    def __init__(self, options: WeightedCEOptions, criteria: CriteriaSpec, statistics: Statistics) -> None:
        super().__init__(options, criteria, statistics)
        counts = statistics.class_counts.sum(0).double().clamp_min(1)
        weights = (counts.max() / counts) ** options.power if options.weights is None else torch.tensor(options.weights)
        self.register_buffer("class_weights", weights.float(), persistent=False)

    @classmethod
    def objection(cls, job: ResolvedJob) -> str | None:
        given, classes = job.loss.get("weights"), 1 + len(registry.component("dataset", job.recipe.dataset).classes)
        if given is not None and len(given) != classes:
            return f"loss.weights has {len(given)} numbers, {job.recipe.dataset} has {classes} classes with background"
        return super().objection(job)

    def ce_term(self, term: Term) -> Tensor:
        return super().ce_term(replace(term, class_weight=product(self.class_weights, term.class_weight)))


# --------------------------------------------------------------------------------------------------- instead of Dice


def _linear_sums(term: Term) -> DiceSums:
    return softmax_sums(term.logits, term.target, term.inside_sums, squared=False)


class TverskyOptions(LossOptions):
    """Options of `tversky`."""

    alpha: float = Field(default=0.3, ge=0, description="weight of false positives (Salehi et al.: 0.3)")
    beta: float = Field(default=0.7, ge=0, description="weight of false negatives (Salehi et al.: 0.7)")


@register("loss", "tversky")
class TverskyLoss(Loss):
    """1 - (TP + s) / (TP + α·FP + β·FN + s), the mean over classes (Salehi et al.; MLMI 2017); cross-entropy stays.

    α = β = ½ is Dice with plain denominators. Soft counts over the whole batch, background included; s is the recipe's
    `criteria.smooth`.
    """

    title = "Tversky"
    changes = ("label", "pseudo")
    Options: ClassVar[type[BaseModel]] = TverskyOptions
    options: TverskyOptions

    def dice_term(self, term: Term) -> Tensor:
        terms = self._terms(_linear_sums(term))
        return (terms if term.class_weight is None else term.class_weight * terms).mean()

    def _terms(self, sums: DiceSums) -> Tensor:
        options, s = self.options, self.criteria.smooth
        false_positive, false_negative = sums.prediction - sums.intersection, sums.reference - sums.intersection
        union = sums.intersection + options.alpha * false_positive + options.beta * false_negative
        return 1 - (sums.intersection + s) / (union + s)


class FocalTverskyOptions(TverskyOptions):
    """Options of `focal_tversky`."""

    gamma: float = Field(default=4 / 3, ge=1, le=3, description="the term is raised to 1/gamma (Abraham and Khan: 4/3)")


@register("loss", "focal_tversky")
class FocalTverskyLoss(TverskyLoss):
    """The Tversky terms of `tversky` raised to 1/γ (Abraham and Khan; ISBI 2019); cross-entropy stays.

    Deviations: the mean over classes, where the paper has their sum.
    """

    title = "FTversky"
    Options: ClassVar[type[BaseModel]] = FocalTverskyOptions
    options: FocalTverskyOptions

    def _terms(self, sums: DiceSums) -> Tensor:
        # A root has no derivative at 0, which a perfect or empty class reaches: below 1e-6 it goes on as a line.
        terms, power, least = super()._terms(sums), 1 / self.options.gamma, 1e-6
        return torch.where(terms > least, terms.clamp_min(least) ** power, terms * least ** (power - 1))


@register("loss", "generalized_dice", aliases=("generalised_dice",))
class GeneralizedDiceLoss(Loss):
    """1 - (2 Σ_c w_c·I_c + s) / (Σ_c w_c·(P_c + R_c) + s), w_c = 1/R_c² (Sudre et al.; DLMIA 2017).

    Cross-entropy stays. I, P, R are Σpy, Σp, Σy over the whole batch, background included; s is the recipe's
    `criteria.smooth`. A class without a voxel weighs as much as the rarest one present, as in MONAI.

    Deviations:
    - the weights are scaled to a largest one of 1: else s, for structures of many voxels, would outweigh the sums
    - class weights of a weighting multiply w
    """

    title = "GDice"
    changes = ("label", "pseudo")
    Options: ClassVar[type[BaseModel]] = LossOptions

    def dice_term(self, term: Term) -> Tensor:
        sums = _linear_sums(term)
        present = sums.reference > 0
        rarest = torch.where(present, sums.reference, torch.inf).amin()
        weights = torch.where(present, (rarest / sums.reference.clamp_min(1e-8)) ** 2, 1.0)
        weights = weights if term.class_weight is None else weights * term.class_weight
        s = self.criteria.smooth
        top, bottom = (weights * sums.intersection).sum(), (weights * (sums.prediction + sums.reference)).sum()
        return 1 - (2 * top + s) / (bottom + s)
