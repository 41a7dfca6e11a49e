"""Cross-consistency training: decoders of perturbed features agree with the main one."""

from __future__ import annotations

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from sslbench.core.registry import register
from sslbench.core.step import Batch, Statistics, Step
from sslbench.losses.base import Loss
from sslbench.losses.consistency import softmax_mse
from sslbench.methods.base import Build, Method, Phase, StepCost, mean_logits
from sslbench.networks.perturbation import PERTURBATIONS, perturbed_logits


@register("method", "cct")
class CrossConsistency(Method):
    """Supervised loss + λ·mean over three auxiliary decoders of mean (p_main - p_auxiliary)² (CCT; Ouali et al.,
    CVPR 2020).

    All decoders read one encoder; the auxiliary ones read its maps with noise, with dropout, and without the most
    attended positions. The supervised loss is the mean over the four. As in SSL4MIS the gradient of the consistency
    reaches the main decoder and the encoder too (the original stops it at the main decoder). Inference: the main one.

    A loss that needs a reference holds each auxiliary decoder against the main one, and the main one against the mean
    of the others.

    Cost: one encoder pass and four decoder passes, forward and backward, over all patches.
    """

    title = "CCT"
    term_kinds = ("label", "consistency")
    check_exemptions = {"supervised_at_zero": "its supervised term is the mean over four decoders"}

    def __init__(self, options: BaseModel, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__(options, build, loss, statistics)
        self.net = build("net")
        self.auxiliary = nn.ModuleList(
            build.decoder(self.net, f"auxiliary/{number}") for number in range(len(PERTURBATIONS))
        )

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        labels, L = batch.label["weak"], batch.num_labeled
        features = self.net.encode(batch.image["weak"])
        main = self.net.logits(features)
        auxiliary = perturbed_logits(self.auxiliary, features)
        self.loss.observe(step, "net", main, labels)
        references = [self._consensus(step, auxiliary, labels, L), *[self.reference("net", main[:L])] * len(auxiliary)]
        supervised = torch.stack(
            [
                self.loss.supervised(logits[:L], labels[:L], key="net", reference=reference)
                for logits, reference in zip([main, *auxiliary], references, strict=True)
            ]
        ).mean()
        target = main[L:].detach().float().softmax(1)
        consistency = torch.stack([self._drawn(logits[L:], main[L:], target) for logits in auxiliary]).mean()
        return {
            "loss": supervised + step.consistency_weight * consistency,
            "supervised": supervised,
            "consistency": consistency,
        }

    def _drawn(self, logits: Tensor, main: Tensor, target: Tensor) -> Tensor:
        """An auxiliary decoder's distance from the main one, whose probabilities are `target`."""
        return self.loss.consistency(
            logits, lambda: softmax_mse(main, logits).mean(), key="net", reference=("net", target)
        )

    def _consensus(self, step: Step, auxiliary: list[Tensor], labels: Tensor, L: int) -> tuple[str, Tensor] | None:
        """What the main decoder is held against, where a loss asks: the mean of the auxiliary ones."""
        if not self.loss.needs_reference:
            return None
        mean = torch.stack([logits.detach().float().softmax(1) for logits in auxiliary]).mean(0)
        self.loss.observe(step, "auxiliary", mean.clamp_min(1e-12).log(), labels)
        return "auxiliary", mean[:L]

    def step_cost(self, phase: Phase) -> StepCost:
        return StepCost(decoders=1 + len(PERTURBATIONS))

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        return mean_logits([self.net], x)
