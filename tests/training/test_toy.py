"""The trainer on methods whose every number is known by hand: teachers, rates, the validation score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sslbench.core.step import Batch, Step
from sslbench.methods.base import EMA, Group, Method, Phase
from sslbench.training.checkpoint import Checkpoints
from sslbench.training.experiment import ValidationCase
from sslbench.training.trainer import Trainer
from tests.helpers.jobs import random_experiment, tiny_job

PLAIN = {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0}


class Number(nn.Module):
    """A parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros((), dtype=torch.float64))


class Toy(Method):
    """Two numbers that rise by their rates in every step, and a teacher of the first."""

    title = "Toy"
    predictors = ("net",)
    seen: list[tuple[float, float, float]] = []

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.one, self.two, self.teacher = Number(), Number(), Number().requires_grad_(False)

    def groups(self, phase: Phase) -> dict[str, Group]:
        return {
            "one": Group([self.one.value], {**PLAIN, "lr": 0.5}, {"lr": "poly", "power": 2.0}),
            "two": Group([self.two.value], {**PLAIN, "lr": 8.0}, {"lr": "step", "step_every": 2, "step_factor": 0.25}),
        }

    def averages(self) -> Sequence[EMA]:
        return [EMA("teacher", "one", 0.75, warm_up=None)]

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        self.note()
        return {"loss/one": -self.one.value, "loss/two": -self.two.value}

    def note(self) -> None:
        self.seen.append(tuple(float(part.value.detach()) for part in (self.one, self.two, self.teacher)))

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        """The class that stands in the image."""
        return nn.functional.one_hot(x[:, 0].round().long(), 14).movedim(-1, 1).float()


@pytest.fixture
def toy(throw_away: Callable[..., Any], tmp_path: Path) -> Callable[..., Trainer]:
    throw_away("method", "toy")(Toy)
    Toy.seen.clear()

    def make(validation: Sequence[ValidationCase] = (), **settings: Any) -> Trainer:
        experiment = random_experiment(tiny_job("toy", set={"checkpoint": "last", **settings}))
        object.__setattr__(experiment, "validation", validation)
        return Trainer(experiment, Checkpoints(tmp_path), _Silent())

    return make


class _Silent:
    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []

    def record(self, entry: Any) -> None:
        self.entries.append(dict(entry))

    def rewind(self, iteration: int) -> None: ...

    def message(self, text: str) -> None: ...


def test_every_group_has_its_own_rate_in_every_iteration_and_the_teacher_follows_after_the_step(
    toy: Callable[..., Trainer],
) -> None:
    trainer = toy()
    trainer.fit()
    trainer.method.note()
    one, two, teacher = np.array(Toy.seen).T
    # 0.5·(1 - n/6)², and 8 by a quarter every two iterations.
    assert np.diff(one) == pytest.approx([0.5 * part for part in (1, 25 / 36, 16 / 36, 9 / 36, 4 / 36, 1 / 36)])
    assert np.diff(two) == pytest.approx([8, 8, 2, 2, 0.5, 0.5])
    followed = 0.0
    for number in range(6):
        followed = 0.75 * followed + 0.25 * one[number + 1]  # of the student that has already moved
        assert teacher[number + 1] == pytest.approx(followed, rel=1e-5)


def test_the_validation_score_of_a_known_prediction_leaves_the_background_out(toy: Callable[..., Trainer]) -> None:
    def case(name: str, *boxes: tuple[int, slice, slice]) -> ValidationCase:
        """Of every (class, rows predicted, rows true); a row has 16 · 16 voxels."""
        image, label = np.zeros((1, 16, 16, 16), np.float32), np.zeros((16, 16, 16), np.uint8)
        for number, predicted, true in boxes:
            image[0, predicted], label[true] = number, number
        return ValidationCase(name, image, label)

    nowhere = slice(0, 0)
    first = case("first", (1, slice(0, 4), slice(2, 4)), (2, slice(6, 7), nowhere), (3, slice(8, 10), slice(8, 10)))
    second = case("second", (1, slice(0, 2), slice(0, 2)), (4, nowhere, slice(5, 6)))
    trainer = toy([first, second], **{"schedule.validate_every": 6})
    trainer.fit()
    # Class 1: 2·2/(4 + 2) and 1; 2: found where there is none, 0; 3: 1; 4: missed, 0; no other occurs.
    expected = ((2 / 3 + 1) / 2 + 0 + 1 + 0) / 4
    (found,) = [entry["validation"] for entry in trainer.recorder.entries if "validation" in entry]
    per_class = dict.fromkeys([str(number) for number in range(1, 14)]) | {"1": pytest.approx(5 / 6, abs=1e-6)}
    assert found == {
        "dsc": pytest.approx(expected, abs=1e-6),
        "dsc/class": per_class | {"2": 0.0, "3": 1.0, "4": 0.0},  # nothing is said of the others
    }
