"""Quadripartition, the heart of MetaSSL (Zhao et al.; IEEE TMI 2025): voxels weighted by agreement and confidence.

A prediction p is held against a reference prediction p̃. A voxel is unanimous where both name one class, else
discrepant; it is confident where the confidence of p̃ is above the threshold of the class that p̃ names, else
suspicious. The four regions UC, US, DC, DS (0 to 3) get falling weights φ(0), φ(δ), φ(2δ), φ(3δ), and the loss is the
mean under these weights. With true labels the label takes the place of p's class, and DS comes before DC.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from sslbench.core.errors import SSLBenchError
from sslbench.losses.base import Source
from sslbench.losses.cross_entropy import classes_of, full_precision, nll_map, weighted_mean
from sslbench.losses.dice import DiceLoss
from sslbench.losses.per_class import PerClass
from sslbench.losses.thresholds import (
    STREAMS,
    AdaptiveThreshold,
    ClassThreshold,
    PredictionStatistics,
    Threshold,
    Uncertainty,
    certainty,
)

__all__ = [
    "REGIONS",
    "ClassThreshold",
    "Partitioning",
    "Phi",
    "QuadLoss",
    "heterogeneous_ce",
    "quadripartition",
    "region_means",
    "region_weights",
]

REGIONS = ("UC", "US", "DC", "DS")  # unanimous or discrepant, confident or suspicious, by number

Phi = Literal["gauss", "linear", "reciprocal", "cosine"]
Partitioning = Literal["quad", "confidence", "consistency"]


# -------------------------------------------------------------------------------------------------------- the parts


def weight_function(u: Tensor, shape: Phi = "gauss", beta: float = 3.0) -> Tensor:
    """The weight function φ(u), u ≥ 0: exp(-u^β), 1 - u/2 (not below 0), 1/(1 + u) or ½ (cos u + 1) (Table VI)."""
    shapes: dict[str, Callable[[], Tensor]] = {
        "gauss": lambda: torch.exp(-(u**beta)),
        "linear": lambda: (1 - u / 2).clamp_min(0),
        "reciprocal": lambda: 1 / (1 + u),
        "cosine": lambda: 0.5 * (u.cos() + 1),
    }
    return shapes[shape]()


def region_weights(scale: float, beta: float, delta: float) -> Tensor:
    """scale·φ(0), scale·φ(δ), scale·φ(2δ), scale·φ(3δ), (4,), in the order UC, US, DC, DS of unlabelled voxels."""
    return (scale * weight_function(delta * torch.arange(4.0, dtype=torch.float64), "gauss", beta)).float()


def quadripartition(logits: Tensor, ref_logits: Tensor, thresholds: Tensor) -> Tensor:
    """The region of each voxel, (B, *S) int64: 0 UC, 1 US, 2 DC, 3 DS.

    Args:
        logits: (B, C, *S) of the prediction.
        ref_logits: (B, C, *S) of the reference, whose confidence decides.
        thresholds: (C,); a voxel is confident strictly above that of the reference's class.
    """
    confidence, labels = full_precision(ref_logits).softmax(1).max(1)
    return _regions(classes_of(logits) != labels, confidence <= thresholds[labels], "quad")


def _regions(discrepant: Tensor, suspicious: Tensor, partition: Partitioning) -> Tensor:
    if partition == "quad":
        return 2 * discrepant.long() + suspicious.long()
    return (suspicious if partition == "confidence" else discrepant).long()


def region_means(
    values: Tensor,
    regions: Tensor,
    weights: Tensor,
    eps: float = 1.0,
    mask: Tensor | None = None,
    voxel_weight: Tensor | None = None,
) -> Tensor:
    """Σ_r weights_r·(Σ_{i∈r} x_i) / (|r| + eps): however small a region is, it counts with its full weight.

    Args:
        values: x, (B, *S).
        regions: (B, *S) int64 in 0..R-1.
        weights: (R,).
        eps: added to the number of voxels of each region.
        mask: (B, *S), the voxels that the term is about.
        voxel_weight: (B, *S), multiplies x; the divisor stays.
    """
    inside = torch.ones_like(values) if mask is None else mask.to(values.dtype)
    terms = values * inside if voxel_weight is None else values * inside * voxel_weight
    per_region = PerClass(regions.flatten(1), len(weights))
    sums, counts = (per_region.sum(part.flatten(1)).sum(0) for part in (terms, inside))
    return (weights.to(values) * sums / (counts + eps)).sum()


def heterogeneous_ce(logits: Tensor, target: Tensor, regions: Tensor, weights: Tensor, eps: float = 1.0) -> Tensor:
    """Cross-entropy by the mean of each region, as the released code has it; see `region_means`.

    Args:
        logits: (B, C, *S).
        target: (B, *S) int64.
        regions, weights, eps: as there.
    """
    return region_means(nll_map(logits, target), regions, weights, eps)


# --------------------------------------------------------------------------------------------------- the loss itself


class QuadLoss(nn.Module):
    """The heterogeneous loss of one prediction against one reference; thresholds are kept per reference and stream.

    Args:
        num_classes: C.
        beta: of the Gaussian φ.
        delta_u, delta_l: steps δ between the regions, unlabelled and labelled.
        phi: shape of the weight function.
        order: of labelled regions; `paper`: against the label, by the reference's confidence, DS before DC; `released`:
            the two predictions against each other, by the learner's own confidence and thresholds, DC before DS.
        reduction: `paper`: one mean under the weights (equations 5 and 7); `region_mean`: a mean per region, scaled,
            UC split into background (0) and foreground (4), as in the released code.
        threshold: its rule, or a `ClassThreshold` that has it; none: `AdaptiveThreshold()`.
        partition: `quad`, or two regions by `confidence` or `consistency` alone with weights φ(0), φ(δ).
        uncertainty: what the thresholds compare.
        scale_u, scale_l: factors of `region_mean`.
        uc_bg_twice: the slip of the released 2-D script: the background's share of UC counts twice, the foreground's
            not at all.
        smooth: of the Dice (equation 8 prints none).
    """

    def __init__(
        self,
        num_classes: int,
        beta: float = 3.0,
        delta_u: float = 0.6,
        delta_l: float = 0.3,
        phi: Phi = "gauss",
        order: Literal["paper", "released"] = "paper",
        reduction: Literal["paper", "region_mean"] = "paper",
        threshold: Threshold | ClassThreshold | None = None,
        partition: Partitioning = "quad",
        uncertainty: Uncertainty = "confidence",
        scale_u: float = 50.0,
        scale_l: float = 85.0,
        uc_bg_twice: bool = False,
        smooth: float = 1e-5,
    ) -> None:
        super().__init__()
        self.num_classes, self.order, self.reduction = num_classes, order, reduction
        rule = threshold.rule if isinstance(threshold, ClassThreshold) else threshold
        self.threshold: Threshold = rule or AdaptiveThreshold()
        self.partition, self.uncertainty = partition, uncertainty
        self.dice = DiceLoss(smooth, squared=False)
        self.state: dict[str, Tensor] = {}  # of each reference's thresholds: a row per stream
        for stream, delta, scale in (("label", delta_l, scale_l), ("pseudo", delta_u, scale_u)):
            steps = [0.0, 1, 3, 2] if stream == "label" and order == "paper" else [0.0, 1, 2, 3]
            weights = weight_function(delta * torch.tensor(steps, dtype=torch.float64), phi, beta)
            if reduction == "region_mean":
                shares = torch.tensor([2.0, 1, 1, 1, 0] if uc_bg_twice else [1.0, 1, 1, 1, 1])
                weights = scale * torch.cat([weights, weights[:1]]) * shares
            self.register_buffer(f"weights_{stream}", weights, persistent=False)

    # ------------------------------------------------------------------------------------------------- thresholds

    @torch.no_grad()
    def observe(self, key: str, probabilities: Tensor, stream: Tensor) -> None:
        """Move the thresholds of a reference.

        Args:
            key: of the reference.
            probabilities: (B, C, *S) of it.
            stream: (B, *S) int64, 0 where there is a label and 1 where there is none.
        """
        if key not in self.state:
            self.state[key] = self.threshold.start(self.num_classes).repeat(len(STREAMS), 1)
        # A new state, and one from a checkpoint, is on the CPU.
        state = self.state[key].to(probabilities)
        self.state[key] = self.threshold.advance(
            state, PredictionStatistics(probabilities, self.uncertainty, stream, len(STREAMS))
        )

    def thresholds(self, key: str, stream: Source) -> Tensor:
        """γ (C,) of a reference on one stream.

        Raises:
            SSLBenchError: the reference was never observed.
        """
        if key not in self.state:
            raise SSLBenchError(
                f"a term is held against '{key}', whose predictions the loss has not seen",
                "a method calls loss.observe for every key that its terms name",
            )
        return self.threshold.thresholds(self.state[key])[STREAMS.index(stream)]

    def get_extra_state(self) -> dict[str, Tensor]:
        """The thresholds of every reference, for a checkpoint."""
        return dict(self.state)

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Those of a checkpoint."""
        self.state = dict(state)

    def _see_all(self, key: str, probabilities: Tensor, stream: Source) -> None:
        self.observe(key, probabilities, torch.full_like(probabilities[:, 0], STREAMS.index(stream), dtype=torch.int64))

    # ------------------------------------------------------------------------------------------------------- terms

    def unlabeled(self, logits: Tensor, ref_probs: Tensor, key: str, update: bool = True) -> tuple[Tensor, Tensor]:
        """The term of unlabelled voxels (equation 5), and their regions (B, *S).

        Args:
            logits: (B, C, *S) of the learner.
            ref_probs: (B, C, *S) of the reference, whose classes are the target.
            key: of the reference, names its thresholds.
            update: whether the thresholds are still to see this batch.
        """
        ref_probs = full_precision(ref_probs).detach()
        if update:
            self._see_all(key, ref_probs, "pseudo")
        target = classes_of(ref_probs)
        regions = self.regions(logits, target, ref_probs, key, "pseudo")
        return self.mean(nll_map(logits, target), regions, "pseudo"), regions

    def labeled(
        self, logits: Tensor, ref_probs: Tensor, target: Tensor, key: str, update: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Cross-entropy (equation 7), Dice (equation 8) and regions (B, *S) of labelled voxels.

        Args:
            logits: (B, C, *S) of the learner.
            ref_probs: (B, C, *S) of the reference.
            target: (B, *S) int64 true labels.
            key: of the reference; with the order `released`, of the learner.
            update: as in `unlabeled`.
        """
        ref_probs = full_precision(ref_probs).detach()
        if update:
            own = full_precision(logits).detach().softmax(1)
            self._see_all(key, ref_probs if self.order == "paper" else own, "label")
        regions = self.regions(logits, target, ref_probs, key, "label")
        dice = self.dice(logits, target, self.weights(regions, "label", ref_probs.dtype))
        return self.mean(nll_map(logits, target), regions, "label"), dice, regions

    @torch.no_grad()
    def regions(self, logits: Tensor, target: Tensor, ref_probs: Tensor, key: str, stream: Source) -> Tensor:
        """The region of each voxel, (B, *S) int64; arguments as in `unlabeled` and `labeled`.

        An unlabelled voxel is unanimous where the learner's class is the target, a labelled one where the reference's
        is.
        """
        released = stream == "label" and self.order == "released"
        judge = full_precision(logits).softmax(1) if released else ref_probs
        confidence, judged = judge.max(1)
        sure = confidence if self.uncertainty == "confidence" else certainty(judge, self.uncertainty)
        suspicious = sure <= self.thresholds(key, stream).to(sure)[judged]
        if released:
            discrepant = judged != classes_of(ref_probs)
        else:
            discrepant = (judged if stream == "label" else classes_of(logits)) != target
        regions = _regions(discrepant, suspicious, self.partition)
        if self.reduction == "region_mean":
            # Both predictions name one class in UC: either tells the foreground.
            regions = torch.where((regions == 0) & (judged > 0), 4, regions)
        return regions

    def weights(self, regions: Tensor, stream: Source, dtype: torch.dtype) -> Tensor:
        """The weight of each voxel's region, (B, *S)."""
        return self.get_buffer(f"weights_{stream}").to(dtype)[regions]

    def mean(
        self,
        values: Tensor,
        regions: Tensor,
        stream: Source,
        mask: Tensor | None = None,
        voxel_weight: Tensor | None = None,
        class_weight: Tensor | None = None,
    ) -> Tensor:
        """What the regions make of a map, by the reduction.

        Args:
            values, mask, voxel_weight, class_weight: as in `losses.cross_entropy.weighted_mean`.
            regions, stream: of the voxels.
        """
        if self.reduction == "region_mean":
            return region_means(values, regions, self.get_buffer(f"weights_{stream}"), 1.0, mask, voxel_weight)
        inside = self.weights(regions, stream, values.dtype)
        return weighted_mean(values, inside if mask is None else inside * mask, voxel_weight, class_weight)
