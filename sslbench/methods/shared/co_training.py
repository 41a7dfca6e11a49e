"""The shared step of methods with two predictions of the same patches that teach each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from sslbench.core.options import Options
from sslbench.core.step import Statistics, Step
from sslbench.losses.base import Loss
from sslbench.losses.cross_entropy import classes_of
from sslbench.methods.base import Build, Method, Phase, StepCost, mean_logits

Init = Literal["recipe", "default", "kaiming", "xavier"]


class CoTrainingOptions(Options):
    """How the two networks begin."""

    init_a: Init = Field(default="recipe", description="initialisation of network a (GA, DHC: kaiming)")
    init_b: Init = Field(default="recipe", description="initialisation of network b (GA, DHC: xavier)")


class Prediction(NamedTuple):
    """Logits (B, C, *S) of the predictor `key`."""

    key: str
    logits: Tensor


class CoTraining(Method):
    """Two networks that see the same patches, or one that sees them twice; inference averages the networks' logits."""

    Options: ClassVar[type[BaseModel]] = CoTrainingOptions
    predictors: tuple[str, ...] = ("a", "b")
    options: CoTrainingOptions

    def __init__(self, options: CoTrainingOptions, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__(options, build, loss, statistics)
        for key, init in self.networks().items():
            self.add_module(key, build(key, **({} if init == "recipe" else {"init": init})))

    def networks(self) -> dict[str, Init]:
        """The networks by key, with their initialisation."""
        return {"a": self.options.init_a, "b": self.options.init_b}

    def pair(self, image: Tensor) -> tuple[Prediction, Prediction]:
        """The two predictions."""
        a, b = (Prediction(key, self.get_submodule(key)(image)) for key in (self.predictors * 2)[:2])
        return a, b

    def observe(self, step: Step, pair: Sequence[Prediction], labels: Tensor) -> None:
        """Show the loss both predictions: two predictions of one predictor at once."""
        for key in dict.fromkeys(prediction.key for prediction in pair):
            own = [prediction.logits for prediction in pair if prediction.key == key]
            self.loss.observe(step, key, torch.cat(own) if len(own) > 1 else own[0], torch.cat([labels] * len(own)))

    def supervised(self, pair: tuple[Prediction, Prediction], labels: Tensor, num_labeled: int) -> Tensor:
        """The supervised terms (2,), each held against the other prediction where the loss wants a reference."""
        L = num_labeled
        return torch.stack(
            [
                self.loss.supervised(
                    own.logits[:L], labels[:L], key=own.key, reference=self.reference(peer.key, peer.logits[:L])
                )
                for own, peer in (pair, pair[::-1])
            ]
        )

    def cross(
        self,
        learner: Prediction,
        peer: Prediction,
        first: int,
        voxel_weight: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The learner's cross-entropy with the peer's labels, from patch `first` on."""
        # All patches are no slice of them: the gradient of one is a tensor of zeros, filled in.
        own, other = (logits[first:] if first else logits for logits in (learner.logits, peer.logits.detach()))
        return self.loss.ce(
            own,
            classes_of(other),
            source="pseudo",
            key=learner.key,
            reference=self.reference(peer.key, other),
            mask=mask,
            voxel_weight=voxel_weight,
        )

    def step_cost(self, phase: Phase) -> StepCost | None:
        return StepCost(labeled=2, unlabeled=2)

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        return mean_logits([self.get_submodule(name) for name in (self.predictors if key is None else (key,))], x)
