"""CCVC: two networks of different features teach each other, above all where they disagree."""

from __future__ import annotations

from typing import ClassVar, cast

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from sslbench.core.registry import register
from sslbench.core.step import Batch, Statistics, Step
from sslbench.losses.base import Loss
from sslbench.losses.cross_entropy import classes_of, full_precision
from sslbench.methods.base import Build
from sslbench.methods.shared.co_training import CoTraining, CoTrainingOptions, Prediction
from sslbench.networks import Network
from sslbench.networks.base import Conv3d, initialize


class CCVCOptions(CoTrainingOptions):
    """Options of `ccvc`."""

    conflict_weight: float = Field(
        default=2.0, ge=0, description="of voxels on which the networks disagree and the teaching one is sure (CCVC)"
    )
    conflict_threshold: float = Field(
        default=0.0, description="sure: its largest logit, not probability, is above this (CCVC, public run script)"
    )
    cross_weight: float = Field(default=1.0, ge=0, description="of the cross term, before λ (CCVC)")
    discrepancy_weight: float = Field(default=1.0, ge=0, description="of the discrepancy, before λ (CCVC)")


@register("method", "ccvc")
class ConflictCrossView(CoTraining):
    """Mean supervised loss of two networks + λ·(cross + discrepancy) (CCVC; Wang et al., CVPR 2023).

    Network b passes its bottleneck through a 1-wide convolution without bias (65 536 parameters in the U-Net), and
    decodes what comes out. Cross, on the unlabelled patches: ½ [mean w·CE(a, argmax b) + mean w·CE(b, argmax a)], w = 2
    where the classes differ and the largest logit of the teaching network is above 0, else 1; the divisor stays the
    number of voxels. Discrepancy, on all patches: 1 + the mean cosine between the bottlenecks f of a and b over
    channels, half of it with the gradient to f_a alone, half to f_b alone, which draws the features apart. Inference:
    the mean of the logits, or the network better on validation, as the recipe says.

    Cost: two forward and backward passes over all patches.

    Deviations:
    - The public code, for natural images, maps b's features with batch norm, ReLU and dropout behind the convolution;
      the bare convolution is that of the U-Net in the MetaSSL code base.
    - There cross and discrepancy weigh 1 from the first step on; here λ scales both. Setting ramp.shape=constant and
      ramp.weight=1 brings that back.
    - Its ensemble is the mean of the probabilities.
    - Its variant with a CutMix view is not here.
    """

    title = "CCVC"
    Options: ClassVar[type[CoTrainingOptions]] = CCVCOptions
    term_kinds = ("label", "pseudo")
    check_exemptions = {"supervised_at_zero": "its supervised term is the mean over two networks"}
    options: CCVCOptions

    def __init__(self, options: CCVCOptions, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__(options, build, loss, statistics)
        base = cast(Network, self.get_submodule("b")).base
        base.encoder = build.module("b/mapping", lambda: MappedEncoder(base))

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        labels, L = batch.label["weak"], batch.num_labeled
        (bottleneck_a, a), (bottleneck_b, b) = (self._branch(key, batch.image["weak"]) for key in self.predictors)
        pair = a, b
        self.observe(step, pair, labels)
        supervised = self.supervised(pair, labels, L).mean()
        cross = 0.5 * (self._conflicting(a, b, L) + self._conflicting(b, a, L))
        discrepancy = feature_discrepancy(bottleneck_a, bottleneck_b)
        apart = self.options.cross_weight * cross + self.options.discrepancy_weight * discrepancy
        loss = supervised + step.consistency_weight * apart
        return {"loss": loss, "supervised": supervised, "cross": cross, "discrepancy": discrepancy}

    def _branch(self, key: str, image: Tensor) -> tuple[Tensor, Prediction]:
        """The bottleneck of a network, and what it predicts."""
        network = cast(Network, self.get_submodule(key))
        features = network.encode(image)
        return features.maps[-1], Prediction(key, network.logits(features))

    def _conflicting(self, learner: Prediction, peer: Prediction, first: int) -> Tensor:
        own, other = learner.logits[first:], peer.logits[first:]
        weight = conflict_weight(own, other, self.options.conflict_weight, self.options.conflict_threshold)
        return self.cross(learner, peer, first, weight)


class MappedEncoder(nn.Module):
    """The encoder of a network, its bottleneck through a 1-wide convolution without bias that keeps the channels.

    Args:
        network: whose encoder it takes and whose initialisation the convolution gets.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.encoder, self.channels = network.encoder, network.channels
        width = self.channels[-1]
        self.mapping = (nn.Conv2d if network.dims == 2 else Conv3d)(width, width, 1, bias=False)
        initialize(self.mapping, network.options.init)  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of every stage, finest first."""
        *maps, bottleneck = self.encoder(x)
        return [*maps, self.mapping(bottleneck)]


def conflict_weight(logits: Tensor, peer_logits: Tensor, weight: float = 2.0, threshold: float = 0.0) -> Tensor:
    """(B, *S): `weight` where the classes of both differ and the peer's largest logit is above `threshold`, else 1."""
    sure, target = peer_logits.detach().max(1)
    conflict = (classes_of(logits.detach()) != target) & (sure > threshold)
    return 1 + (weight - 1) * conflict.float()


def feature_discrepancy(a: Tensor, b: Tensor) -> Tensor:
    """½ [1 + cos(a, ⟨b⟩) + 1 + cos(⟨a⟩, b)], in [0, 2]: cosines over the channels of maps (B, c, *S), their mean over
    patches and positions; ⟨·⟩ stops the gradient."""
    a, b = full_precision(a), full_precision(b)
    cosines = F.cosine_similarity(a, b.detach()) + F.cosine_similarity(a.detach(), b)
    return 1 + 0.5 * cosines.mean()
