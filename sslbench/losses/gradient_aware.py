"""The gradient-aware loss GA (Qi, Wu, Chan; ECCV 2024): GADice + GACE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from sslbench.core.registry import register
from sslbench.losses.base import Loss, LossOptions, Term
from sslbench.losses.cross_entropy import full_precision, hard_labels, nll_map
from sslbench.losses.dice import DiceSums, label_scores, softmax_sums
from sslbench.losses.per_class import PerClass

if TYPE_CHECKING:
    from sslbench.config.recipe import CriteriaSpec
    from sslbench.core.step import Statistics, Step

Absent = Literal["p", "p2", "inv", "none"]


class GADiceLoss(nn.Module):
    """Dice whose absent classes have a gradient that fades with the prediction (GA eq. 8).

    A class with a voxel in the target: 1 - (2Σpy + s) / (Σp² + Σy² + s). A class without one, N voxels in all, by
    `absent` (GA Table 5c): `p` Σ⟨p⟩p/N, `p2` Σ⟨p²⟩p/N, `inv` Σp/N², `none` the plain Dice term; ⟨·⟩ stops the gradient.
    The mean is over all classes, background included. Equation 8 omits the sum over voxels; the authors' code has it.

    Args:
        absent: what an absent class contributes.
        smooth: s.
    """

    def __init__(self, absent: Absent = "p", smooth: float = 1e-10) -> None:
        super().__init__()
        self.absent, self.smooth = absent, smooth

    def forward(
        self, logits: Tensor, target: Tensor, mask: Tensor | None = None, class_weight: Tensor | None = None
    ) -> Tensor:
        """The loss, a 0-d tensor in fp32.

        Args:
            logits: (B, C, *S).
            target: (B, *S) int64 labels; probabilities (B, C, *S) are hardened.
            mask: (B, *S), the voxels that count, or their weights; presence and N are taken where it is not 0.
            class_weight: (C,) factors of the classes' terms; the divisor stays C.
        """
        return self.of(softmax_sums(logits, hard_labels(logits, target), mask), logits, mask, class_weight)

    def of(
        self, sums: DiceSums, logits: Tensor, mask: Tensor | None = None, class_weight: Tensor | None = None
    ) -> Tensor:
        """The loss of sums that are known; the other arguments as in `forward`."""
        terms = 1 - (2 * sums.intersection + self.smooth) / (sums.prediction + sums.reference + self.smooth)
        if self.absent != "none":
            terms = torch.where(sums.reference > 0, terms, self._absent(logits, sums, mask))
        return (terms if class_weight is None else class_weight * terms).mean()

    def _absent(self, logits: Tensor, sums: DiceSums, mask: Tensor | None) -> Tensor:
        """What each class (C,) contributes if it is absent."""
        count = logits[:, 0].numel() if mask is None else (mask > 0).sum().clamp_min(1)
        if self.absent == "p":
            # Σ⟨p⟩p has the value of Σp² and half of its gradient.
            return 0.5 * (sums.prediction + sums.prediction.detach()) / count
        p = full_precision(logits).softmax(1)
        pull = p.detach() ** 2 if self.absent == "p2" else 1.0 / count
        terms = pull * p if mask is None else mask.unsqueeze(1) * pull * p
        return terms.flatten(2).sum((0, 2)) / count


class GACELoss(nn.Module):
    """Cross-entropy over the hardest k % of the voxels, each class damped by how often it is mined (GA eq. 11).

    K holds the N_K = max(1, ⌊N·k/100⌋) voxels of largest nll, N_c counts its labels:
    Σ_c [Σ_{i∈K, y_i=c} nll_i] / (N_K^γ · (N_c + 1e-10)^(1-γ) + 1e-10). γ = 1 is top-k cross-entropy, γ = 0 the sum of
    per-class means. N_K is at least 1 (the authors' code gives a zero without gradient there).

    Args:
        k: percent of the voxels that are mined: 10 with true labels, 100 with pseudo-labels.
        gamma: the equilibrium factor γ.
    """

    def __init__(self, k: float = 10, gamma: float = 0.5) -> None:
        super().__init__()
        self.k, self.gamma = k, gamma

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        mask: Tensor | None = None,
        voxel_weight: Tensor | None = None,
        class_weight: Tensor | None = None,
    ) -> Tensor:
        """The loss, a 0-d tensor in fp32; arguments as in `mined`."""
        return self.mined(logits, target, mask, voxel_weight, class_weight)[0]

    def mined(
        self,
        logits: Tensor,
        target: Tensor,
        mask: Tensor | None = None,
        voxel_weight: Tensor | None = None,
        class_weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The loss, and how many voxels of each class it was taken of: N_c, (C,).

        Args:
            logits: (B, C, *S).
            target: (B, *S) int64 labels; probabilities (B, C, *S) are hardened.
            mask: (B, *S), the voxels that exist for this term.
            voxel_weight: (B, *S), multiplies nll before the mining; voxels of weight 0 do not exist for it.
            class_weight: (C,), multiplies nll before the mining.
        """
        target = hard_labels(logits, target)
        return self.of(nll_map(logits, target), target, logits.shape[1], mask, voxel_weight, class_weight)

    def of(
        self,
        nll: Tensor,
        target: Tensor,
        classes: int,
        mask: Tensor | None = None,
        voxel_weight: Tensor | None = None,
        class_weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """`mined` of the negative log-likelihood (B, *S) that labels (B, *S) have; the rest as there."""
        nll, labels = nll.flatten(), target.flatten()
        exists = None if mask is None else mask.flatten() > 0
        if voxel_weight is not None:
            nll, weighs = nll * voxel_weight.flatten(), voxel_weight.flatten() > 0
            exists = weighs if exists is None else exists & weighs
        if class_weight is not None:
            nll = nll * class_weight.to(nll.dtype)[labels]

        most = max(1, int(nll.numel() * self.k / 100))
        number: float | Tensor = float(most)
        if exists is not None:
            number = (exists.sum().double() * self.k / 100).floor().clamp_min(1.0)
        mined = None if exists is None else exists.to(nll.dtype)
        if self.k < 100:
            rank = nll.detach() if exists is None else torch.where(exists, nll.detach(), -torch.inf)
            hardest = torch.topk(rank, most, sorted=exists is not None).indices
            nll, labels = nll[hardest], labels[hardest]
            if mined is not None:
                # How many voxels there are is known on the device alone: the ranks beyond k % of them count nothing.
                mined = mined[hardest] * (torch.arange(most, device=nll.device) < number)
        ones = torch.ones_like(nll) if mined is None else mined
        counts = PerClass(labels.unsqueeze(0), classes).sum(ones).squeeze(0)
        damping = 1 / (number**self.gamma * (counts + 1e-10) ** (1 - self.gamma) + 1e-10)
        return (nll * ones * damping[labels]).sum(), counts


class GAOptions(LossOptions):
    """Options of the loss `ga`."""

    gamma: float = Field(default=0.5, ge=0, le=1, description="equilibrium factor (GA Table 5a)")
    k: float = Field(default=10, gt=0, le=100, description="percent of voxels mined with true labels (GA Table 5b)")
    k_pseudo: float = Field(default=100, gt=0, le=100, description="the same with pseudo-labels (GA section 4.2)")
    absent: Absent = Field(default="p", description="gradient of absent classes (GA Table 5c)")


@register("loss", "ga")
class GALoss(Loss):
    """GADice in the place of every Dice, GACE in the place of every cross-entropy (Qi, Wu, Chan; ECCV 2024).

    The coefficients of the two in a supervised sum are the recipe's (`criteria`); GA's own recipes have 1 and 1. A
    soft consistency term stays the method's own.

    Deviations:
    - the sum over voxels that equation 8 leaves out is taken, as in the authors' code
    - at least one voxel is mined, where their code gives a zero without gradient
    - a soft target is hardened: GA is defined on labels
    - with a mask, presence, N and the hardest k % are counted inside it; a voxel of weight 0 is outside
    """

    title = "GA"
    changes = ("label", "pseudo")
    Options: ClassVar[type[BaseModel]] = GAOptions
    options: GAOptions

    @classmethod
    def changes_dice(cls, spec: Mapping[str, Any]) -> bool:
        return spec.get("absent") != "none"

    def __init__(self, options: GAOptions, criteria: CriteriaSpec, statistics: Statistics) -> None:
        super().__init__(options, criteria, statistics)
        self._step: Step | None = None
        self._mined: dict[str, Tensor] = {}  # of this step

    def observe(self, step: Step, key: str, logits: Tensor, labels: Tensor) -> None:
        if step is not self._step:
            self._step, self._mined = step, {}

    def ce_term(self, term: Term) -> Tensor:
        target = hard_labels(term.logits, term.target)
        return self._mining(term, nll_map(term.logits, target), target)

    def _mining(self, term: Term, nll: Tensor, labels: Tensor) -> Tensor:
        criterion = GACELoss(self.options.k if term.source == "label" else self.options.k_pseudo, self.options.gamma)
        classes = term.logits.shape[1]
        loss, counts = criterion.of(nll, labels, classes, term.mask, term.voxel_weight, term.class_weight)
        if self._step is not None:
            self._step.log(f"mined/{term.key}/{term.source}", partial(self._counted, term, counts.detach()))
        return loss

    def _counted(self, term: Term, counts: Tensor) -> Tensor:
        """The voxels mined in this step's terms of a learner on one kind of target, this one's (C,) added."""
        name = f"{term.key}/{term.source}"
        self._mined[name] = self._mined[name] + counts if name in self._mined else counts
        return self._mined[name]

    def dice_term(self, term: Term) -> Tensor:
        return GADiceLoss(self.options.absent)(term.logits, term.target, term.inside_sums, term.class_weight)

    def both_terms(self, term: Term) -> tuple[Tensor, Tensor]:
        term = replace(term, target=hard_labels(term.logits, term.target))
        if not (term.one_pass and self._makes_both(GALoss)):
            return super().both_terms(term)
        weight = term.inside_sums
        found = label_scores(term.logits, term.target, weight)
        dice = GADiceLoss(self.options.absent).of(found.sums, term.logits, weight, term.class_weight)
        return self._mining(term, found.nll, term.target), dice


# GA Table 6: one side only.
register("loss", "ga_labeled_only", preset_of="ga", set={"applies_to": "label"})
register("loss", "ga_unlabeled_only", preset_of="ga", set={"applies_to": "pseudo"})

# GA Table 4, rows 1 to 6. Without GADice (GD) absent classes keep the plain Dice term, without class equilibrium (ClsE)
# all voxels are mined, without dynamic weights (DWE) no class is damped.
register("loss", "ga_gd", preset_of="ga", set={"k": 100, "gamma": 1})
register("loss", "ga_clse", preset_of="ga", set={"absent": "none", "gamma": 1})
register("loss", "ga_dwe", preset_of="ga", set={"absent": "none", "k": 100})
register("loss", "ga_gd_clse", preset_of="ga", set={"gamma": 1})
register("loss", "ga_gd_dwe", preset_of="ga", set={"k": 100})
register("loss", "ga_clse_dwe", preset_of="ga", set={"absent": "none"})
