"""Training on the labelled patches alone: the lower bound, and with the budget `100%` the upper bound."""

from __future__ import annotations

from pydantic import BaseModel
from torch import Tensor

from sslbench.core.registry import register
from sslbench.core.step import Batch, Statistics, Step
from sslbench.losses.base import Loss
from sslbench.methods.base import Build, Method, Phase, StepCost, mean_logits


@register("method", "supervised", aliases=("sl", "fully_supervised"))
class Supervised(Method):
    """One network, labelled patches only; unlabelled images are never drawn.

    Cost: one forward and backward pass over the labelled patches.
    """

    title = "Supervised"
    group = "Reference"
    views = {"labeled": ("weak",)}
    term_kinds = ("label",)
    unlabeled_weight = None

    def __init__(self, options: BaseModel, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__(options, build, loss, statistics)
        self.net = build("net")

    def phases(self) -> list[Phase]:
        return [Phase("train", streams=("labeled",))]

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        labels = batch.label["weak"]
        logits = self.net(batch.image["weak"])
        self.loss.observe(step, "net", logits, labels)
        return {"loss": self.loss.supervised(logits, labels, key="net")}

    def step_cost(self, phase: Phase) -> StepCost:
        return StepCost(labeled=1, unlabeled=0)

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        return mean_logits([self.net], x)
