"""What tests of whole steps share: the tensors of the worked numbers, networks of fixed logits, batches and steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sslbench.config.recipe import CriteriaSpec
from sslbench.core.options import NoOptions
from sslbench.core.randomness import torch_generator
from sslbench.core.step import Batch, Statistics, Step
from sslbench.losses.base import Loss
from sslbench.methods.base import Method
from tests.helpers.losses import tiny_logits

# §20 of the sheet of consistency methods: one image, three classes, 2×2.
A, B = tiny_logits("a"), tiny_logits("b")
Y = torch.tensor([[[0, 2], [1, 2]]])
CE_A, DICE_A = 0.757293403, 0.382044166

STATISTICS = Statistics(torch.ones(1, 3, dtype=torch.int64), 1, 1, ((2, 2),), 3, (2, 2), (1, 1))
CRITERIA = CriteriaSpec(ce_weight=0.5, dice_weight=0.5, smooth=1e-5)


class Fixed(nn.Module):
    """Gives the next of its logits (b, C, 2, 2) at every call, repeated to the batch; then the last again."""

    def __init__(self, *outputs: Tensor) -> None:
        super().__init__()
        self.outputs = nn.ParameterList([output.clone() for output in outputs])
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        output = self.outputs[min(self.calls, len(self.outputs) - 1)]
        self.calls += 1
        return output.repeat(len(x) // len(output), 1, 1, 1)


class Untrained(Method):
    """A method to register and resolve, whose step no test takes."""

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        raise AssertionError("it is not to be trained")

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        raise AssertionError("it is not to predict")


class Build:
    """Hands out the networks of a test by key."""

    def __init__(self, networks: dict[str, Fixed], teacher: Fixed | None) -> None:
        self.networks, self.teacher = networks, teacher

    def __call__(self, key: str, name: str | None = None, **options: Any) -> Any:
        return self.networks[key]

    def decoder(self, like: Any, key: str, **options: Any) -> Any:
        raise AssertionError("not asked for")

    def module(self, key: str, make: Callable[[], Any]) -> Any:
        return make()

    def ema(self, network: nn.Module) -> Any:
        assert self.teacher is not None
        return self.teacher.requires_grad_(False)


def method_of(
    kind: Callable[..., Any],
    options: Any,
    networks: dict[str, Fixed],
    teacher: Fixed | None = None,
    criteria: CriteriaSpec = CRITERIA,
) -> Any:
    return kind(options, Build(networks, teacher), Loss(NoOptions(), criteria, STATISTICS), STATISTICS)


def make_step(
    iteration: int = 5, iterations: int = 10, phase: str = "train", consistency_weight: float = 0.1, seed: int = 0
) -> Step:
    def nothing(*_: Any) -> Any:
        return None

    def generators(stream: str, device: Any) -> torch.Generator:
        return torch_generator(seed, stream)

    return Step(
        iteration, iterations, 1, 2, False, phase, torch.tensor(consistency_weight), generators, nothing, nothing
    )


def make_batch(label: Tensor = Y, unlabeled: int = 1) -> Batch:
    """The labelled patches of `label`, and unlabelled ones; what the images hold is no matter to fixed networks."""
    labels = torch.cat([label, torch.full((unlabeled, 2, 2), -1)])
    image = torch.zeros(len(labels), 1, 2, 2)
    index = torch.arange(len(labels))
    views = {"weak": image, "strong": image}
    return Batch(views, dict.fromkeys(views, labels), len(label), index, torch.zeros(len(labels), 2))


def close(value: Tensor, expected: float) -> None:
    assert float(value.detach()) == pytest.approx(expected, abs=2e-8, rel=1e-7)


def derivative(loss: Callable[[], Tensor], parameter: nn.Parameter) -> Tensor:
    """Of a loss in every element of a float64 parameter, by central differences."""
    flat, found = parameter.data.view(-1), torch.zeros(parameter.numel(), dtype=torch.float64)
    for number in range(len(flat)):
        for shift, sign in ((1e-5, 1), (-2e-5, -1)):
            flat[number] += shift
            found[number] += sign * float(loss().detach()) / 2e-5
        flat[number] += 1e-5
    return found.view_as(parameter)
