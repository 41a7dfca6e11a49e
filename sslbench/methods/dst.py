"""DST: labels alone teach the head that predicts, pseudo-labels another, and a third asks how wrong they could be."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple, cast

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from sslbench.core.options import Iterations
from sslbench.core.registry import register
from sslbench.core.step import Batch, Statistics, Step
from sslbench.losses.base import Loss
from sslbench.losses.cross_entropy import classes_of, full_precision, nll_map
from sslbench.losses.per_class import picked
from sslbench.methods.base import Build, Phase, StepCost
from sslbench.methods.shared.co_training import CoTraining, CoTrainingOptions, Prediction
from sslbench.networks.base import Decoder, Features, Network
from sslbench.networks.gradient_reversal import reverse_gradient


class DSTOptions(CoTrainingOptions):
    """Options of `dst`."""

    threshold: float = Field(default=0.95, ge=0, lt=1, description="confidence that a pseudo-label needs (DST)")
    worst_label_weight: float = Field(
        default=2.0, ge=0, description="η', weight of the worst-case head's agreement on labelled patches (DHC port)"
    )
    reversal: float = Field(default=0.1, ge=0, description="largest factor of the reversed gradient (DST)")
    reversal_steps: Iterations = Field(default=500, gt=0, description="iterations that it grows over (DHC port)")
    released_pseudo_head: bool = Field(
        default=False,
        description="main heads learn from the pseudo heads, which nothing trains, as in the DHC port",
    )


class DecoderLogits(NamedTuple):
    """Logits (B, C, *S) of a network's three decoders; the main one's has the network's key."""

    main: Prediction
    pseudo: Tensor
    worst: Tensor


@register("method", "dst")
class DST(CoTraining):
    """Debiased self-training: Σ_n supervised(main_n) + λ Σ_n [CE(pseudo_n, argmax main_m) where max p_m > 0.95 +
    worst_n] (DST; Chen et al., NeurIPS 2022; for segmentation, on a pair of networks n and m, by DHC's authors).

    A network has three decoders. The main one, which predicts, learns from labels alone; the pseudo head from the main
    one of the other network, a mean over all voxels of all patches. The worst-case head is to agree with its main one
    on labelled patches and to be wrong on unlabelled ones (`worst_case_loss`); a gradient reversed on its way into the
    features, by a factor that grows from 0 to 0.1, makes them such that it cannot. The worst-case term is the method's
    own under every loss.

    Cost: two encoder passes and six decoder passes, forward and backward, over all patches.

    Deviations: in the port of DHC's authors the main heads learn from the pseudo heads, which take no gradient and stay
    at their random beginning, so that hardly a voxel is confident: `released_pseudo_head`.
    """

    title = "DST"
    Options: ClassVar[type[BaseModel]] = DSTOptions
    term_kinds = ("label", "pseudo")
    check_exemptions = {
        "every_parameter_moves": "pseudo heads learn from confident voxels, and an untrained network has none"
    }
    options: DSTOptions

    def __init__(self, options: DSTOptions, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__(options, build, loss, statistics)
        for role in ("pseudo", "worst"):
            heads = {
                key: build.decoder(cast(Network, self.get_submodule(key)), f"{key}/{role}") for key in self.predictors
            }
            self.add_module(role, nn.ModuleDict(heads))

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        labels, L = batch.label["weak"], batch.num_labeled
        a, b = (self._heads(key, batch.image["weak"], step) for key in self.predictors)
        pair = a.main, b.main
        self.observe(step, pair, labels)
        supervised = self.supervised(pair, labels, L).sum()
        cross = self._cross(a, b, step) + self._cross(b, a, step)
        worst = torch.stack(
            [
                worst_case_loss(heads.main.logits.detach(), heads.worst, L, self.options.worst_label_weight)
                for heads in (a, b)
            ]
        ).sum()
        loss = supervised + step.consistency_weight * (cross + worst)
        return {"loss": loss, "supervised": supervised, "cross": cross, "worst": worst}

    def _heads(self, key: str, image: Tensor, step: Step) -> DecoderLogits:
        net = cast(Network, self.get_submodule(key))
        features = net.encode(image)
        factor = reversal_factor(step.iteration, self.options.reversal, self.options.reversal_steps)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.options.released_pseudo_head):
            pseudo = self._decoded("pseudo", key, features)
        worst = self._decoded("worst", key, features.map(lambda stage, content: reverse_gradient(content, factor)))
        return DecoderLogits(Prediction(key, net.logits(features)), pseudo, worst)

    def _decoded(self, role: str, key: str, features: Features) -> Tensor:
        return cast(Decoder, self.get_submodule(f"{role}.{key}")).logits(features)

    def _cross(self, learner: DecoderLogits, peer: DecoderLogits, step: Step) -> Tensor:
        """A network's cross-entropy with the confident labels of the other."""
        (key, main), (other_key, other) = learner.main, peer.main
        teacher, student = (peer.pseudo, main) if self.options.released_pseudo_head else (other, learner.pseudo)
        probabilities = full_precision(teacher.detach()).softmax(1)
        confidence, target = probabilities.max(1)
        confident = (confidence > self.options.threshold).float()
        step.log(f"confident/{other_key}", confident.mean)
        reference = (other_key, probabilities) if self.loss.needs_reference else None
        return self.loss.ce(student, target, source="pseudo", key=key, reference=reference, voxel_weight=confident)

    def step_cost(self, phase: Phase) -> StepCost:
        return StepCost(labeled=2, unlabeled=2, decoders=2 if self.options.released_pseudo_head else 3)


def reversal_factor(iteration: int, largest: float = 0.1, steps: int = 500) -> float:
    """2h / (1 + exp(-i/N)) - h: 0 at first, h in the end."""
    return 2 * largest / (1 + math.exp(-iteration / steps)) - largest


def worst_case_loss(main: Tensor, worst: Tensor, num_labeled: int, label_weight: float = 2.0) -> Tensor:
    """η'·CE(worst, argmax main) over labelled patches, and -ln min(1 - p_worst(argmax main) + 1e-6, 1) over the others.

    Args:
        main, worst: logits (B, C, *S), labelled patches first.
        num_labeled: how many of them are.
        label_weight: η'.
    """
    target, L = classes_of(main), num_labeled
    agreement = nll_map(worst[:L], target[:L]).mean()
    p = full_precision(worst[L:]).softmax(1)
    p = picked(p, target[L:])
    return label_weight * agreement - (1 - p + 1e-6).clamp_max(1).log().mean()
