"""DeSCO: two networks, each learning from the other's hard labels where the other is certain."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel
from torch import Tensor

from sslbench.core.registry import register
from sslbench.core.step import Batch, Step
from sslbench.losses.consistency import entropy_map
from sslbench.methods.base import Phase, StepCost
from sslbench.methods.shared.co_training import CoTraining, CoTrainingOptions, Prediction
from sslbench.methods.shared.teacher_student import NoiseOptions, clipped_noise
from sslbench.methods.shared.uncertainty import UncertaintyOptions, noisy_mean

if TYPE_CHECKING:
    from sslbench.config.job import ResolvedJob


class DeSCOOptions(UncertaintyOptions, NoiseOptions, CoTrainingOptions):
    """Options of `desco`; its noisy passes are those of UA-MT, of the peer in the place of a teacher."""


@register("method", "desco")
class DeSCO(CoTraining):
    """(1 - λ)·Σ_n supervised(n) + λ [CE(a, argmax b) + CE(b, argmax a)] where the other is certain (DeSCO; Cai et al.,
    CVPR 2023), on fully annotated scans.

    T stochastic passes of the peer over noisy unlabelled patches give a mean probability and its entropy over the C
    classes; voxels with less than (0.75 + 0.25·exp(-5(1 - t)²))·ln 2, t the share of the training, count. Each patch is
    a mean over its own certain voxels, and all patches weigh alike: Σ m·CE / Σ m, averaged over patches. Labels are
    those of the peer's clean pass in the same step. As in the code the noisy passes are in training mode: they move the
    running batch statistics that inference uses. Inference: the mean of the logits.

    Cost: two forward and backward passes over all patches and 2T forward passes over the unlabelled ones.

    Deviations:
    - Its paper is about scans with one annotated slice per plane: registration spreads these labels, weighted by
      0.95^distance, and each network has its own plane and crops. GA's tables use whole annotations, how is not
      published. Here all labelled voxels weigh 1 and both networks see the same patches; the rest is not here.
    - Both networks step on the joint loss; the code updates the first before it labels for the second.
    - The weight of patches is kept for every loss: certain voxels are the mask, the weights of patches voxel weights.
    - Both optimisers follow the recipe's schedule; the code lowers the rate of the first alone. The code keeps the
      first network alone at the end.
    """

    title = "DeSCO"
    Options: ClassVar[type[BaseModel]] = DeSCOOptions
    term_kinds = ("label", "pseudo")
    options: DeSCOOptions

    @classmethod
    def objection(cls, job: ResolvedJob) -> str | None:
        if job.recipe.ramp.weight > 1:
            return f"labelled patches weigh 1 - λ: ramp.weight must not be above 1, and is {job.recipe.ramp.weight:g}"
        return None

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        image, labels, L = batch.image["weak"], batch.label["weak"], batch.num_labeled
        pair = a, b = self.pair(image)
        self.observe(step, pair, labels)
        supervised = self.supervised(pair, labels, L).sum()
        taught = self._peer_term(a, b, image[L:], step) + self._peer_term(b, a, image[L:], step)
        loss = (1 - step.consistency_weight) * supervised + step.consistency_weight * taught
        return {"loss": loss, "supervised": supervised, "taught": taught}

    def _peer_term(self, learner: Prediction, peer: Prediction, unlabeled: Tensor, step: Step) -> Tensor:
        """What a network learns from the peer's labels of the unlabelled patches (U, channels, *S)."""
        certain = self._certain(peer, unlabeled, step)
        first = len(learner.logits) - len(unlabeled)
        return self.cross(learner, peer, first, mask=certain, voxel_weight=patches_alike(certain))

    def _certain(self, peer: Prediction, image: Tensor, step: Step) -> Tensor:
        """The voxels (U, *S) of which the peer is certain."""

        def noise(doubled: Tensor, stream: str) -> Tensor:
            return clipped_noise(doubled, step, options.noise_std, options.noise_clip, f"{stream}/{peer.key}")

        options = self.options
        entropy = entropy_map(noisy_mean(self.get_submodule(peer.key), image, options.samples, noise))
        certain = entropy < options.threshold(step.iteration, step.iterations, peer.logits.shape[1])
        step.log(f"certain/{peer.key}", lambda: certain.float().mean())
        return certain

    def step_cost(self, phase: Phase) -> StepCost:
        return StepCost(labeled=2, unlabeled=2, unlabeled_forward=2 * self.options.samples)


def patches_alike(mask: Tensor) -> Tensor:
    """Voxel weights (B, *S) that turn the mean over a mask (B, *S) into the mean over patches b of
    Σ_b m·x / (Σ_b m + 5e-6), as DeSCO has it."""
    counts = mask.flatten(1).float().sum(1)
    weights = counts.sum() / (len(mask) * (counts + 5e-6))
    return weights.view(-1, *[1] * (mask.ndim - 1)).expand(mask.shape)
