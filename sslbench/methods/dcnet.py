"""DCNet: what two decoders are sure of becomes pseudo-labels, the rest is drawn to the surer of the two."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from sslbench.core.registry import register
from sslbench.core.step import Batch, Statistics, Step
from sslbench.losses.base import Loss
from sslbench.losses.cross_entropy import classes_of, full_precision
from sslbench.losses.mutual import attention_transfer, decoupled_mse, decoupling_threshold
from sslbench.methods.base import Build
from sslbench.methods.shared.co_training import Prediction
from sslbench.methods.shared.dice_supervision import DiceOptions
from sslbench.methods.shared.multi_decoder import MultiDecoder


class DCNetOptions(DiceOptions):
    """Options of `dcnet`."""

    temperature: float = Field(default=0.5, gt=0, description="T where the decoders are not sure (DCNet code)")
    threshold_range: tuple[float, float] = Field(
        default=(0.25, 0.95), description="lowest and highest threshold of being sure (DCNet code)"
    )
    attention_weight: float = Field(default=1000.0, ge=0, description="of the attention transfer (DCNet code)")
    distance_weight: float = Field(default=1000.0, ge=0, description="of the distance where not sure (DCNet code)")
    cross_weight: float = Field(default=0.3, ge=0, description="of the pseudo-labels where sure (DCNet code)")
    unlabeled_weight: float = Field(default=1.0, ge=0, description="of all three terms together (DCNet: 1)")


@register("method", "dcnet")
class DecoupledConsistency(MultiDecoder):
    """Σ_k Dice(k) + u·[(1 - λ)·1000·L_at + λ·1000·L_dc + 0.3·L_cer] over all patches (DCNet; Chen et al., MICCAI 2023).

    Two decoders a, b of one encoder that upsample differently (see `mcnet`). A class of a voxel is sure where both
    probabilities exceed the threshold t, which moves in each step to (1 - r)·t + r·(mean confidence of the less
    confident decoder), r the share of the training that is done, and stays in [0.25, 0.95]; it begins at 1/C.

    L_cer = CE(H·z_a, argmax H·p_b) + CE(H·z_b, argmax H·p_a), H 1 where sure: other logits count as 0, and a voxel
    without a sure class is background; once both mean confidences are 0.95, H is 1 everywhere. L_dc, where not sure,
    draws the smaller probability to the larger one, without gradient, at temperature 0.5. L_at draws the encoder's
    four finest maps to the attention of decoder b's. Inference: the main decoder.

    λ weighs L_at against L_dc and switches neither L_at nor L_cer off: `unlabeled_weight` u does.

    Cost: one encoder pass and two decoder passes, forward and backward, over all patches.

    Deviations: that once the decoders are confident H is 1 in the pseudo-labels too, not in the logits alone, is an
    interpretation.
    """

    title = "DCNet"
    Options: ClassVar[type[BaseModel]] = DCNetOptions
    term_kinds = ("label", "pseudo")
    unlabeled_weight = "unlabeled_weight"
    made_targets = {"net": "background where neither decoder is sure"}
    options: DCNetOptions
    threshold: Tensor

    def __init__(self, options: DCNetOptions, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__(options, build, loss, statistics)
        self.register_buffer("threshold", torch.tensor(1 / statistics.num_classes))

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        labels, options = batch.label["weak"], self.options
        features, maps, predictions = self.decoded(batch.image["weak"])
        a, b = predictions
        self.observe(step, predictions, labels)
        supervised = self.supervised(predictions, labels, batch.num_labeled)
        sure, everywhere = self._sure(a, b, step)
        cross = self._cross(a, b, sure | everywhere) + self._cross(b, a, sure | everywhere)
        distance = decoupled_mse(a.logits, b.logits, sure, options.temperature)
        attention = attention_transfer(features.maps[:-1], maps[1][::-1])
        unlabeled = (
            (1 - step.consistency_weight) * options.attention_weight * attention
            + step.consistency_weight * options.distance_weight * distance
            + options.cross_weight * cross
        )
        terms = {"supervised": supervised, "cross": cross, "distance": distance, "attention": attention}
        return {"loss": supervised + options.unlabeled_weight * unlabeled, **terms}

    @torch.no_grad()
    def _sure(self, a: Prediction, b: Prediction, step: Step) -> tuple[Tensor, Tensor]:
        """Move the threshold; where both probabilities exceed it (B, C, *S), and whether both decoders are confident on
        the whole (0-d)."""
        probabilities = [full_precision(logits).softmax(1) for _, logits in (a, b)]
        confidences = [p.amax(1).mean() for p in probabilities]
        lowest, highest = self.options.threshold_range
        progress = (step.iteration + 1) / step.iterations
        self.threshold.copy_(decoupling_threshold(self.threshold, confidences, progress, lowest, highest))
        step.log("threshold", self.threshold.clone)
        everywhere = torch.minimum(*confidences) >= highest
        return (probabilities[0] > self.threshold) & (probabilities[1] > self.threshold), everywhere

    def _cross(self, learner: Prediction, peer: Prediction, sure: Tensor) -> Tensor:
        """The learner's term with the peer's labels; what is not `sure` counts as a logit, or probability, of 0."""
        probabilities = full_precision(peer.logits.detach()).softmax(1)
        return self.loss.ce(
            torch.where(sure, learner.logits, 0.0),
            classes_of(torch.where(sure, probabilities, 0.0)),
            source="pseudo",
            key="net",
            reference=self.reference(peer.key, peer.logits),
        )
