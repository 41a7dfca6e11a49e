"""Cross pseudo supervision: two networks, each learning from the other's hard labels."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, Field
from torch import Tensor

from sslbench.methods.base import Batch, Step
from sslbench.methods.co_training import CoTraining, CoTrainingOptions
from sslbench.registry import register


class CPSOptions(CoTrainingOptions):
    """Options of `cps`."""

    on: Literal["unlabeled", "all"] = Field(
        default="unlabeled", description="patches of the cross term: unlabelled (SSL4MIS), all (GA, DHC)"
    )


@register("method", "cps")
class CrossPseudoSupervision(CoTraining):
    """Σ_n supervised(n) + λ [CE(a, argmax b) + CE(b, argmax a)] (Chen et al., CVPR 2021).

    Both networks see the same patches; pseudo-labels come from the train-mode forward of the same step. Cost: two
    forward and backward passes over all patches.
    """

    title = "CPS"
    Options: ClassVar[type[BaseModel]] = CPSOptions
    terms = ("label", "pseudo")
    options: CPSOptions

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        labels, L = batch.label["weak"], batch.num_labeled
        pair = a, b = self.pair(batch.image["weak"])
        self.observe(step, pair, labels)
        supervised = self.supervised(pair, labels, L).sum()
        first = L if self.options.on == "unlabeled" else 0
        cross = self.cross(a, b, first) + self.cross(b, a, first)
        return {"loss": supervised + step.ramp * cross, "supervised": supervised, "cross": cross}
