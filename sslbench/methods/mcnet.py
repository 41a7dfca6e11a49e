"""MC-Net and MC-Net+: decoders of one encoder agree with each other's sharpened predictions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import permutations
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor

from sslbench.core.registry import register
from sslbench.core.step import Batch, Step
from sslbench.losses.cross_entropy import full_precision
from sslbench.losses.mutual import sharpen
from sslbench.methods.shared.dice_supervision import DiceOptions
from sslbench.methods.shared.multi_decoder import MultiDecoder
from sslbench.networks.mutual import Version


class MCNetOptions(DiceOptions):
    """Options of `mcnet`."""

    version: Version = Field(
        default="v1", description="further decoders: one (MC-Net), two (v2: MC-Net+), three (v3, 2-D alone: code)"
    )
    temperature: float = Field(default=0.1, ge=0.02, description="T of the sharpening (MC-Net)")
    supervised_weight: float = Field(
        default=1.0, ge=0, description="l, of the supervised terms (code on ACDC; on LA: 0.5)"
    )


@register("method", "mcnet", aliases=("mc-net",))
class MutualConsistency(MultiDecoder):
    """l·Σ_k Dice(k) + λ Σ_{i≠j} mean (p_i - sharp(p_j))² over all patches (MC-Net; Wu et al., MICCAI 2021).

    One encoder; its decoders upsample by bilinear interpolation, transposed convolution, the nearest neighbour and
    bicubic interpolation in 2-D, by transposed convolution, trilinear interpolation and the nearest neighbour in 3-D:
    the network's own way first. sharp(p) = p^(1/T) / (p^(1/T) + (1 - p)^(1/T)) for each entry; the gradient reaches
    both sides. Labelled patches take part in the consistency. The preset `mcnet_plus` is MC-Net+ (Wu et al., Medical
    Image Analysis 2022). Inference: the main decoder.

    A loss that defines soft consistency takes each ordered pair for its own; the learner i is held against j.

    Cost: one encoder pass and two decoder passes (v2: three, v3: four), forward and backward, over all patches.

    Deviations:
    - on LA the code takes the Dice of the foreground alone; here it is that of `criteria`, background included
    - λ is that of the iteration; the code's is one iteration ahead
    """

    title = "MC-Net"
    Options: ClassVar[type[BaseModel]] = MCNetOptions
    term_kinds = ("label", "consistency")
    options: MCNetOptions

    @classmethod
    def further(cls, options: Mapping[str, Any]) -> int:
        return int(options["version"].removeprefix("v"))

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        labels = batch.label["weak"]
        predictions = self.decoded(batch.image["weak"]).predictions
        self.observe(step, predictions, labels)
        supervised = self.supervised(predictions, labels, batch.num_labeled)
        probabilities = [full_precision(logits).softmax(1) for _, logits in predictions]
        sharp = [sharpen(p, self.options.temperature) for p in probabilities]
        consistency = torch.stack(
            [
                self.loss.consistency(
                    predictions[learner].logits,
                    partial(F.mse_loss, probabilities[learner], sharp[peer]),
                    key="net",
                    reference=(predictions[peer].key, probabilities[peer].detach()),
                )
                for learner, peer in permutations(range(len(predictions)), 2)
            ]
        ).sum()
        loss = self.options.supervised_weight * supervised + step.consistency_weight * consistency
        return {"loss": loss, "supervised": supervised, "consistency": consistency}


register(
    "method",
    "mcnet_plus",
    aliases=("mc-net+",),
    preset_of="mcnet",
    set={"version": "v2"},
    title="MC-Net+",
    about="MC-Net with a third decoder (Wu et al., Medical Image Analysis 2022)",
)
