"""URPC: heads on several scales of one decoder agree with their mean where they are certain."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from pydantic import BaseModel
from torch import Tensor

from sslbench.core import registry
from sslbench.core.registry import register
from sslbench.core.step import Batch, Statistics, Step
from sslbench.losses.base import Loss
from sslbench.losses.consistency import log_mean_probabilities, rectified_distance
from sslbench.methods.base import Build, Method, Phase, StepCost, mean_logits
from sslbench.networks.base import Decoder
from sslbench.networks.pyramid import PyramidHeads

if TYPE_CHECKING:
    from sslbench.config.job import ResolvedJob


@register("method", "urpc")
class PyramidConsistency(Method):
    """Supervised loss + λ·mean over heads of [mean(e·(M - p)²) / mean e + mean v], M the mean of the heads' p, v =
    KL(M‖p), e = exp(-v) (URPC; Luo et al., MICCAI 2021).

    Four heads read the decoder's maps at full size, a half, a quarter and an eighth, and their logits grow to full
    size. The supervised loss is the mean over heads; the consistency is on the unlabelled patches and its gradient
    reaches every head, through M too. In 2-D the maps of the three coarser heads are perturbed in training (noise,
    dropped positions, dropout) and logits grow by the nearest neighbour; in 3-D neither, as in the code of each.
    Inference: the finest head.

    A loss that needs a reference holds each head against M, as key `mean`, labelled patches too; one that defines soft
    consistency takes each head for its own.

    Cost: one forward and backward pass over all patches; three small heads.

    Deviations: the 3-D code trains a U-Net whose decoder has dropout (`unet3d_urpc`); so do DHC's recipes here, where
    the published tables have it, and the others keep their own network.
    """

    title = "URPC"
    term_kinds = ("label", "consistency")
    check_exemptions = {"supervised_at_zero": "its supervised term is the mean over four heads"}

    @classmethod
    def objection(cls, job: ResolvedJob) -> str | None:
        name = job.recipe.network.name
        if registry.component("network", name).decoder_class is Decoder:
            return f"it puts heads on the maps of a decoder, and {name} does not say their widths: set network.name"
        return None

    def __init__(self, options: BaseModel, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__(options, build, loss, statistics)
        self.net = build("net")
        self.pyramid = build.module("pyramid", lambda: PyramidHeads(self.net))

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        labels, L = batch.label["weak"], batch.num_labeled
        maps = self.net.decode(self.net.encode(batch.image["weak"]))
        heads = [self.net.head(maps[-1]), *self.pyramid(maps)]
        mean = log_mean_probabilities(heads)
        self.loss.observe(step, "net", heads[0], labels)
        self.loss.observe(step, "mean", mean, labels)
        reference = self.reference("mean", mean[:L])
        supervised = torch.stack(
            [self.loss.supervised(head[:L], labels[:L], key="net", reference=reference) for head in heads]
        ).mean()
        target = ("mean", mean[L:].detach().exp())
        consistency = torch.stack(
            [
                self.loss.consistency(
                    head[L:], partial(rectified_distance, head[L:], mean[L:]), key="net", reference=target
                )
                for head in heads
            ]
        ).mean()
        return {
            "loss": supervised + step.consistency_weight * consistency,
            "supervised": supervised,
            "consistency": consistency,
        }

    def step_cost(self, phase: Phase) -> StepCost:
        return StepCost()

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        return mean_logits([self.net], x)
