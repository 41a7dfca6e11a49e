"""R-Drop: two stochastic predictions of the same patches are drawn to each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, Field
from torch import Tensor

from sslbench.core import registry
from sslbench.core.registry import register
from sslbench.core.step import Batch, Statistics, Step
from sslbench.losses.base import Loss
from sslbench.losses.consistency import rdrop_loss
from sslbench.methods.base import Build
from sslbench.methods.shared.co_training import CoTraining, CoTrainingOptions, Init, Prediction

if TYPE_CHECKING:
    from sslbench.config.job import ResolvedJob


class RDropOptions(CoTrainingOptions):
    """Options of `rdrop`; `init_a` serves the one network too."""

    networks: Literal["one", "two"] = Field(
        default="one",
        description="one network's two dropout passes (paper), or two networks, one pass each (SSL4MIS code; for "
        "networks without dropout)",
    )
    released_width_softmax: bool = Field(
        default=False, description="softmax over the last spatial axis in place of the classes, as the SSL4MIS code"
    )


@register("method", "rdrop", aliases=("r-drop",))
class RDrop(CoTraining):
    """Supervised loss of two predictions + λ·½ [KL(a‖b) + KL(b‖a)] on the unlabelled patches (R-Drop; Wu et al.,
    NeurIPS 2021).

    The predictions are two dropout passes of one network, whose supervised losses are averaged, or those of two
    networks, whose losses are summed. λ goes up to 4. The divergence is a mean over patches, classes and voxels; its
    gradient reaches both sides. A loss that defines the consistency itself takes each direction for its own.

    Cost: two forward and backward passes over all patches.

    Deviations: the public segmentation code trains two networks with a softmax over the image's width; here one
    network and the classes' softmax are the default, as the paper has it. `networks` and `released_width_softmax`
    bring the code's choices back.
    """

    title = "RDrop"
    Options: ClassVar[type[BaseModel]] = RDropOptions
    defaults = {"ramp.weight": 4.0}
    term_kinds = ("label", "consistency")
    options: RDropOptions

    @classmethod
    def objection(cls, job: ResolvedJob) -> str | None:
        network = job.recipe.network
        if job.method["networks"] == "one" and not registry.component("network", network.name).draws(network.options):
            return "two passes of a network without dropout are the same: set method.networks=two, or a dropout"
        return None

    def __init__(self, options: RDropOptions, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__(options, build, loss, statistics)
        self.predictors = tuple(self.networks())

    @classmethod
    def predictors_of(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        return ("net",) if options["networks"] == "one" else cls.predictors

    def networks(self) -> dict[str, Init]:
        return {"net": self.options.init_a} if self.options.networks == "one" else super().networks()

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        labels, L = batch.label["weak"], batch.num_labeled
        pair = a, b = self.pair(batch.image["weak"])
        self.observe(step, pair, labels)
        terms = self.supervised(pair, labels, L)
        supervised = terms.mean() if len(self.predictors) == 1 else terms.sum()
        axis: Literal["class", "width"] = "width" if self.options.released_width_softmax else "class"
        half = cache(lambda: 0.5 * rdrop_loss(a.logits[L:], b.logits[L:], axis))
        consistency = self._drawn(a, b, L, half) + self._drawn(b, a, L, half)
        return {
            "loss": supervised + step.consistency_weight * consistency,
            "supervised": supervised,
            "consistency": consistency,
        }

    def _drawn(self, learner: Prediction, peer: Prediction, first: int, half: Callable[[], Tensor]) -> Tensor:
        """One direction: half of the symmetric divergence, unless the loss has a term of its own."""
        reference = (peer.key, peer.logits[first:].detach().float().softmax(1))
        return self.loss.consistency(learner.logits[first:], half, key=learner.key, reference=reference)
