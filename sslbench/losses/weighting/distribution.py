"""Class weights from how often each class is predicted: CReST, SimiS, and DHC's distribution-aware DistDW."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from sslbench.core.options import Options
from sslbench.core.registry import register
from sslbench.losses.cross_entropy import classes_of
from sslbench.losses.weighting.base import Weighting, voxels_of

if TYPE_CHECKING:
    from sslbench.core.step import Step

_SMOOTH = 1e-8  # added to counts before they are divided (DHC code)


class AverageOptions(Options):
    """How weights follow the counts."""

    momentum: float = Field(default=0.99, ge=0, le=1, description="of the moving average of the weights (DHC code)")


class CountWeights(Weighting):
    """A moving average of weights that `of` makes of voxel counts.

    They begin as those of the labelled cases' whole volumes. Where nothing is counted (a step without unlabelled
    patches) they stay what they were.
    """

    Options: ClassVar[type[BaseModel]] = AverageOptions
    options: AverageOptions

    @abstractmethod
    def of(self, counts: Tensor) -> Tensor:
        """The weights (C,) of counts (C,) fp32."""
        raise NotImplementedError

    def init(self, counts: Tensor) -> Tensor:
        self.weights = torch.where(counts.sum() > 0, self.of(counts.float()), self.weights)
        return self.weights

    def observe(self, step: Step, logits: Tensor, labels: Tensor) -> Tensor:
        """Voxels (C,) that the predictor gives each class where there is no truth."""
        return voxels_of(classes_of(logits), labels < 0, self.num_classes)

    def update(self, observation: Tensor) -> Tensor:
        m = self.options.momentum
        averaged = m * self.weights + (1 - m) * self.of(observation.float())
        self.weights = torch.where(observation.sum() > 0, averaged, self.weights)
        return self.weights


@register("weighting", "distdw")
class DistDW(CountWeights):
    """C·r_c / max r with r_c = ln(max n / n_c), n the voxels of each class among the predictor's own labels of
    unlabelled patches (distribution-aware debiased weighting of DHC; Wang and Li, MICCAI 2023).

    The commonest class weighs 0. A class that is never predicted weighs C and presses the weights of all others, as in
    the released code. Weights are averaged, 0.99 : 0.01, every step.

    Deviations:
    - the paper scales the largest weight to 1, the code to C, which counts in the Dice part of the supervised loss.
    - where all classes are alike common, so that r is 0 / 0 in the code, all weigh C.
    """

    def of(self, counts: Tensor) -> Tensor:
        rarity = ((counts.max() + _SMOOTH) / (counts + _SMOOTH)).log()
        widest = rarity.max()
        return self.num_classes * torch.where(widest > 0, rarity / widest, torch.ones_like(rarity))


@register("weighting", "crest")
class CReSTWeights(CountWeights):
    """The shares (n_c / max n)^(1/3) of the classes, handed out in reverse: the commonest class weighs what the rarest
    one's share is (CReST; Wei et al., CVPR 2021).

    n are the voxels of each class among the predictor's own labels of unlabelled patches; weights are averaged,
    0.99 : 0.01, every step. Classes alike common keep their order.

    Deviations: the port of DHC's authors. CReST's generations, resampling and distribution alignment are not in it: it
    is a class weight alone.
    """

    def of(self, counts: Tensor) -> Tensor:
        shares = ((counts + _SMOOTH) / (counts.max() + _SMOOTH)).pow(1 / 3)
        common_first, order = shares.sort(descending=True, stable=True)
        return torch.empty_like(shares).scatter(0, order, common_first.flip(0))


@register("weighting", "simis")
class SimiSWeights(CountWeights):
    """C·(max P - P_c), P_c the share of a class among the predictor's own labels of all patches (SimiS; Chen et al.,
    arXiv 2022).

    Weights begin at C, are averaged once with those of the labelled cases, then, 0.99 : 0.01, every step.

    Deviations: the port of DHC's authors. SimiS tops up rare classes with pseudo-labels; the port is a class weight
    alone. Where all classes are alike common all weights are 0, as in the code.
    """

    def of(self, counts: Tensor) -> Tensor:
        share = (counts + _SMOOTH) / (counts.sum() + _SMOOTH)
        return self.num_classes * (share.max() - share)

    def init(self, counts: Tensor) -> Tensor:
        self.weights = torch.full_like(self.weights, self.num_classes)
        return self.update(counts)

    def observe(self, step: Step, logits: Tensor, labels: Tensor) -> Tensor:
        """Voxels (C,) that the predictor gives each class, labelled patches included."""
        return voxels_of(classes_of(logits), torch.ones_like(labels), self.num_classes)
