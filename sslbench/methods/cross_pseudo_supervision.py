"""Cross pseudo supervision: two networks, each learning from the other's hard labels."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from sslbench.losses.base import Loss
from sslbench.methods.base import Batch, Build, Method, Statistics, Step, mean_logits
from sslbench.registry import register


class CPSOptions(BaseModel):
    """Options of `cps`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    on: Literal["unlabeled", "all"] = Field(
        default="unlabeled", description="patches of the cross term: unlabelled (SSL4MIS), all (GA, DHC)"
    )
    init_a: Literal["recipe", "default", "kaiming", "xavier"] = Field(
        default="recipe", description="initialisation of network a (GA, DHC: kaiming)"
    )
    init_b: Literal["recipe", "default", "kaiming", "xavier"] = Field(
        default="recipe", description="initialisation of network b (GA, DHC: xavier)"
    )


@register("method", "cps")
class CrossPseudoSupervision(Method):
    """Σ_n supervised(n) + λ [CE(a, argmax b) + CE(b, argmax a)] (Chen et al., CVPR 2021).

    Both networks see the same patches; pseudo-labels come from the train-mode forward of the same step. Cost: two
    forward and backward passes over all patches.
    """

    title = "CPS"
    Options: ClassVar[type[BaseModel]] = CPSOptions
    keys = ("a", "b")
    options: CPSOptions

    def __init__(self, options: CPSOptions, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__(options, build, loss, statistics)
        inits = {"a": options.init_a, "b": options.init_b}
        for key, init in inits.items():
            self.add_module(key, build(key, **({} if init == "recipe" else {"init": init})))

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        labels, L = batch.label["weak"], batch.num_labeled
        logits = {key: self.get_submodule(key)(batch.image["weak"]) for key in self.keys}
        for key in self.keys:
            self.loss.observe(step, key, logits[key], labels)
        supervised = torch.stack(
            [self.loss.supervised(logits[key][:L], labels[:L], key=key) for key in self.keys]
        ).sum()
        cross = self._cross(logits, "a", "b", L) + self._cross(logits, "b", "a", L)
        return {"loss": supervised + step.ramp * cross, "supervised": supervised, "cross": cross}

    def _cross(self, logits: dict[str, Tensor], learner: str, peer: str, num_labeled: int) -> Tensor:
        first = num_labeled if self.options.on == "unlabeled" else 0
        own, other = logits[learner][first:], logits[peer][first:].detach()
        reference = (peer, other.softmax(1)) if self.loss.needs_reference else None
        return self.loss.ce(own, other.argmax(1), source="pseudo", key=learner, reference=reference)

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        return mean_logits([self.get_submodule(name) for name in (self.keys if key is None else (key,))], x)
