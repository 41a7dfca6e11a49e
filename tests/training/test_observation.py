"""What is seen of validation cases: MetaSSL's regions and the agreement of predictors, of any method under any loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sslbench.conformance.bench import MemoryCheckpoints, MemoryRecorder
from sslbench.core.errors import UsageError
from sslbench.inference.predictor import Predictor
from sslbench.training.experiment import Experiment, ValidationCase
from sslbench.training.observation import Observer, Seen, references_of, region_counts, region_numbers
from sslbench.training.trainer import Interrupted, Trainer
from tests.helpers.jobs import random_experiment, tiny_job_2d

# The worked example of MetaSSL's sheet: eight voxels of three classes, what the learner and the reference name there,
# and how sure the reference is.
LEARNER = Seen(np.array([0, 1, 0, 1, 1, 0, 2, 2]), np.zeros(8))
REFERENCE = Seen(
    np.array([0, 1, 1, 1, 0, 0, 2, 0]),
    np.array([0.883492, 0.414742, 0.741849, 0.926676, 0.810859, 0.911873, 0.825722, 0.367165]),
)
TRUTH = np.array([0, 1, 0, 1, 1, 2, 2, 2])

SHORT = {"schedule.iterations": 2, "schedule.validate_every": 1, "batch.labeled": 2, "batch.unlabeled": 2}
BOTH = {**SHORT, "observe": ["regions", "agreement"]}


def test_the_regions_of_the_worked_example() -> None:
    # Mean confidence per class: 0.743347, 0.694422, 0.825722. So: UC US DC UC DC UC US DS; the only voxel of class 2 is
    # not surer than its mean.
    counts = region_counts(LEARNER, REFERENCE, TRUTH, 3)
    assert counts.sum((2, 3)).tolist() == [[3, 3], [2, 2], [2, 2], [1, 1]]
    assert region_numbers(counts) == {
        "share": {"UC": 0.375, "US": 0.25, "DC": 0.25, "DS": 0.125},
        "accuracy": {"UC": pytest.approx(2 / 3, abs=1e-6), "US": 1.0, "DC": 0.0, "DS": 0.0},
        "accuracy/learner": {"UC": pytest.approx(2 / 3, abs=1e-6), "US": 1.0, "DC": 1.0, "DS": 1.0},
        # UC: class 1 whole, class 2 missed. DC: class 1 named in one place and true in another.
        "dsc": {"UC": 0.5, "US": 1.0, "DC": 0.0, "DS": 0.0},
    }


def test_an_empty_region_says_nothing() -> None:
    numbers = region_numbers(region_counts(REFERENCE, REFERENCE, TRUTH, 3))
    assert numbers["share"]["DC"] == numbers["share"]["DS"] == 0
    assert numbers["accuracy"]["DC"] is numbers["accuracy/learner"]["DS"] is numbers["dsc"]["DS"] is None


@pytest.mark.parametrize(
    ("method", "phase", "expected"),
    [
        ("cps", 0, {"a": "b", "b": "a"}),
        ("mt", 0, {"student": "teacher"}),
        ("supervised", 0, {"net": "net"}),
        ("bcp", 0, {"student": "student"}),  # its teacher begins in the second phase
        ("bcp", 1, {"student": "teacher"}),
        ("urpc", 0, {"net": "net"}),  # held against a mean of heads, which is no predictor
    ],
)
def test_what_a_predictor_is_held_against(method: str, phase: int, expected: dict[str, str]) -> None:
    built = random_experiment(tiny_job_2d(method)).method
    assert references_of(built, built.phases()[phase]) == expected


def observed(settings: dict[str, Any], method: str = "cps", loss: str = "default") -> tuple[Trainer, MemoryRecorder]:
    experiment = random_experiment(tiny_job_2d(method, loss, set=settings))
    trainer = Trainer(experiment, MemoryCheckpoints(), records := MemoryRecorder())
    trainer.fit()
    return trainer, records


def test_a_plain_cps_is_observed_and_trained_as_if_it_were_not() -> None:
    plain, told = observed(SHORT)
    looked_at, records = observed(BOTH)
    left, right = plain.method.state_dict(), looked_at.method.state_dict()
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert [entry for entry in records.entries if "observed" not in entry] == told.entries
    seen = [(entry["iteration"], entry["observed"]["case"]) for entry in records.entries if "observed" in entry]
    assert seen == [(1, "0"), (1, "1"), (2, "0"), (2, "1")]
    found = records.entries[-1]["observed"]
    assert {key: numbers["reference"] for key, numbers in found["regions"].items()} == {"a": "b", "b": "a"}
    for numbers in found["regions"].values():
        assert sum(numbers["share"].values()) == pytest.approx(1, abs=3e-6)
    # What both name alike is unanimous.
    unanimous = [found["regions"][key]["share"]["UC"] + found["regions"][key]["share"]["US"] for key in "ab"]
    assert unanimous == pytest.approx([found["agreement"]["a/b"]["voxels"]] * 2, abs=3e-6)
    assert list(found["agreement"]["a/b"]["dsc/class"]) == ["1", "2", "3"]


def test_the_numbers_are_those_of_the_predictions() -> None:
    trainer, records = observed({**BOTH, "schedule.validate_every": 2, "checkpoint": "last"})
    experiment, image = trainer.experiment, trainer.experiment.validation[1].image
    recipe = experiment.resolved.recipe
    a, b = (
        Predictor(trainer.method, key, recipe, 4, experiment.precision).segment(image, validation=True) for key in "ab"
    )
    found = records.entries[-1]["observed"]["agreement"]["a/b"]
    assert found["voxels"] == pytest.approx(float((a == b).float().mean()), abs=1e-6)
    for number in (1, 2, 3):
        size = int((a == number).sum() + (b == number).sum())
        both = 2 * int(((a == number) & (b == number)).sum())
        assert found["dsc/class"][str(number)] == (pytest.approx(both / size, abs=1e-6) if size else None)


def test_a_stopped_and_resumed_training_observes_the_same() -> None:
    def experiment() -> Experiment:
        return random_experiment(tiny_job_2d("cps", set=BOTH))

    _, through = observed(BOTH)
    checkpoints, records = MemoryCheckpoints(), MemoryRecorder()
    asked = iter(range(100))
    with pytest.raises(Interrupted):
        Trainer(experiment(), checkpoints, records, lambda: next(asked) >= 1).fit()
    Trainer(experiment(), checkpoints, records).fit()
    assert records.entries == through.entries


def test_tiles_of_one_image_are_one_case(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = random_experiment(tiny_job_2d("supervised", set={"observe": ["regions"]}))
    tiles = [
        ValidationCase("slide", np.zeros((1, 1, 2, 2), np.float32), np.full((1, 2, 2), number), number)
        for number in (0, 1)
    ]
    object.__setattr__(experiment, "validation", [*tiles, replace(tiles[0], id="other")])
    monkeypatch.setattr(
        "sslbench.training.observation.Observer._seen_by",
        lambda self, name, case: Seen(np.zeros(4, np.int64), np.arange(4.0)),
    )
    found = list(Observer(experiment).entries(experiment.method.phases()[0]))
    assert [entry["case"] for entry in found] == ["slide", "other"]
    # Of either tile two voxels are surer than the mean; the labels of the second tile are all wrong.
    regions = found[0]["regions"]["net"]
    assert regions["share"] == {"UC": 0.5, "US": 0.5, "DC": 0.0, "DS": 0.0}
    assert regions["accuracy"] == {"UC": 0.5, "US": 0.5, "DC": None, "DS": None}
    assert "agreement" not in found[0]


def test_to_observe_needs_validation(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"observe looks at validation cases: it needs schedule\.validate_every"):
        tiny_job_2d(set={**BOTH, "schedule.validate_every": 0, "checkpoint": "last"}).canonical()
    experiment = random_experiment(tiny_job_2d(set={**BOTH, "checkpoint": "last"}))
    object.__setattr__(experiment, "validation", [])
    with pytest.raises(UsageError, match="the recipe observes validation cases, but none is held"):
        Trainer(experiment, MemoryCheckpoints(), MemoryRecorder())


def test_what_is_logged_for_each_class_stands_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sslbench.training.trainer.LOG_EVERY", 1)
    trainer, records = observed({**SHORT, "schedule.validate_every": 0, "checkpoint": "last"}, "dhc", "ga")
    first, last = records.entries
    assert first["iteration"] == 1 and not any(isinstance(value, dict) for value in first.values())
    names = ["background", "1", "2", "3"]
    for key in ("a", "b"):
        weights: Tensor = trainer.method.loss.weightings[key].weights
        assert last[f"weight/{key}"] == pytest.approx(dict(zip(names, weights.tolist(), strict=True)), abs=1e-6)
        # Of two labelled patches the hardest tenth; all voxels of the cross term, which DHC takes over all patches.
        assert sum(last[f"mined/{key}/label"].values()) == 2 * 32 * 32 // 10
        assert sum(last[f"mined/{key}/pseudo"].values()) == 4 * 32 * 32
