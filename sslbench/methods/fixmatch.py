"""FixMatch: confident labels of the weakly augmented image teach the strongly augmented one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from sslbench.core.options import Options
from sslbench.core.registry import register
from sslbench.core.step import Batch, Statistics, Step
from sslbench.losses.base import Loss
from sslbench.losses.cross_entropy import classes_of, cross_entropy, full_precision
from sslbench.methods.base import Build, Method, Phase, StepCost, mean_logits, no_strong_view

if TYPE_CHECKING:
    from sslbench.config.job import ResolvedJob


class FixMatchOptions(Options):
    """Options of `fixmatch`."""

    threshold: float = Field(default=0.95, ge=0, lt=1, description="confidence that a pseudo-label needs (FixMatch)")
    variant: Literal["paper", "ssl4mis"] = Field(
        default="paper",
        description="ssl4mis: the public ACDC code: min-max threshold 0.8 without ignored voxels, cross-entropy and "
        "Dice, and a term for the least likely class",
    )


@register("method", "fixmatch")
class FixMatch(Method):
    """Supervised loss of the weak view + λ·CE(strong, argmax weak) where max p_weak > τ (FixMatch; Sohn et al.,
    NeurIPS 2020).

    The mean of the cross-entropy is over the confident voxels of the unlabelled patches; both views of a patch share
    its geometry. Weak and strong patches go apart through the network. Inference: the network. A loss that needs a
    reference holds the strong view against the weak one, and on labelled patches the weak one against the strong one.

    Cost: one forward and backward pass over all weak patches and one over the unlabelled strong ones; over all strong
    ones with a loss that needs a reference, and in the variant `ssl4mis`.

    Deviations:
    - SSL4MIS sums cross-entropy and Dice of labelled patches without its usual ½; here `criteria` has the weights.
    - SSL4MIS also keeps an average of the network that nothing uses; it is left out.
    - The CTAugment variant of SSL4MIS (learned augmentation policies) is not here.
    """

    title = "FixMatch"
    Options: ClassVar[type[BaseModel]] = FixMatchOptions
    views = {"labeled": ("weak",), "unlabeled": ("weak", "strong")}
    term_kinds = ("label", "pseudo")
    options: FixMatchOptions

    @classmethod
    def objection(cls, job: ResolvedJob) -> str | None:
        return no_strong_view(job)

    def __init__(self, options: FixMatchOptions, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__(options, build, loss, statistics)
        self.net = build("net")

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        labels, L = batch.label["weak"], batch.num_labeled
        first = 0 if self._all_strong else L  # from which patch on the strong view is looked at
        weak, strong = self.net(batch.image["weak"]), self.net(batch.image["strong"][first:])
        self.loss.observe(step, "net", weak, labels)
        self.loss.observe(step, "strong", strong, batch.label["strong"][first:])
        reference = self.reference("strong", strong[: L - first]) if self.loss.needs_reference else None
        supervised = self.loss.supervised(weak[:L], labels[:L], key="net", reference=reference)
        pseudo = self._pseudo(weak[L:].detach(), strong[L - first :], step)
        if self.options.variant == "ssl4mis":
            pseudo = pseudo + unlikely_class_loss(weak.detach(), strong)
        return {"loss": supervised + step.consistency_weight * pseudo, "supervised": supervised, "pseudo": pseudo}

    def _pseudo(self, weak: Tensor, strong: Tensor, step: Step) -> Tensor:
        reference = self.reference("net", weak)
        probabilities = weak.float().softmax(1)
        if self.options.variant == "ssl4mis":
            target = thresholded_labels(probabilities)
            return self.loss.ce(strong, target, source="pseudo", key="net", reference=reference) + self.loss.dice(
                strong, target, source="pseudo", key="net", reference=reference
            )
        confidence, target = probabilities.max(1)
        confident = confidence > self.options.threshold
        step.log("confident", lambda: confident.float().mean())
        return self.loss.ce(strong, target, source="pseudo", key="net", reference=reference, mask=confident)

    @property
    def _all_strong(self) -> bool:
        return self.loss.needs_reference or self.options.variant == "ssl4mis"

    def step_cost(self, phase: Phase) -> StepCost:
        return StepCost(labeled=1 + float(self._all_strong), unlabeled=2)

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        return mean_logits([self.net], x)


def thresholded_labels(probabilities: Tensor, threshold: float = 0.8) -> Tensor:
    """SSL4MIS's pseudo-labels: argmax of p where (p - min p) / max p > threshold, else background (B, *S).

    Minimum and maximum are those of a voxel's classes. The largest class itself is (max - min) / max, so that few
    voxels fail.
    """
    scaled = (probabilities - probabilities.amin(1, keepdim=True)) / probabilities.amax(1, keepdim=True)
    return classes_of(torch.where(scaled > threshold, probabilities, 0.0))


def unlikely_class_loss(weak_logits: Tensor, strong_logits: Tensor) -> Tensor:
    """SSL4MIS's complementary term: a²·CE(1 - p_strong, argmin p_weak), the probabilities fed in as if logits.

    a is the mean over patches and classes of 1 - H/log N, H the entropy over the N voxels of a class's map of strong
    probabilities scaled to sum 1; it enters twice in the code, and the gradient flows through it.
    """
    strong = full_precision(strong_logits).softmax(1)
    share = strong.flatten(2) / strong.flatten(2).sum(-1, keepdim=True)
    peaked = (1 + torch.special.xlogy(share, share).sum(-1) / math.log(share.shape[-1])).mean()
    return peaked.square() * cross_entropy(1 - strong, weak_logits.argmin(1))
