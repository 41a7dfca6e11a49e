"""Fixtures: a tiny phantom dataset, tiny jobs, throw-away components."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sslbench import registry
from sslbench.config import Job
from sslbench.conformance import subject
from sslbench.data.prepare import prepare
from sslbench.methods.base import Batch, Method, Step
from sslbench.training.experiment import Experiment

# A 3-D job of seconds: every stage is there, nothing is learned.
TINY = {
    "network.base_filters": 2,
    "patch_size": [16, 16, 16],
    "batch.labeled": 2,
    "batch.unlabeled": 2,
    "schedule.iterations": 6,
    "schedule.validate_every": 3,
    "inference.stride": [16, 16, 16],
    "inference.validation_stride": [16, 16, 16],
    "precision": "fp32",
}


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def phantom_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the phantom on a very coarse grid."""
    folder = tmp_path_factory.mktemp("data")
    report = prepare("phantom", data_dir=folder, options={"size": [24, 20, 18]}, workers=1)
    assert not report.failed
    return folder


def tiny_job(method: str = "supervised", loss: str = "default", **fields: Any) -> Job:
    """A tiny job on the phantom; `set` adds to the tiny settings."""
    chosen = {"recipe": "phantom", "labeled": "20%", "seed": 0} | fields
    return Job(method=method, loss=loss, **chosen | {"set": {**TINY, **fields.get("set", {})}})


def tiny_job_2d(method: str = "supervised", loss: str = "default", **fields: Any) -> Job:
    """A tiny 2-D job with the ACDC recipe's settings, for in-memory data."""
    small = {
        "patch_size": [32, 32],
        "batch.labeled": 4,
        "batch.unlabeled": 4,
        "schedule.iterations": 6,
        "schedule.validate_every": 3,
        "precision": "fp32",
    }
    chosen = {"recipe": "ssl4mis-acdc", "labeled": "7 patients", "seed": 0} | fields
    return Job(method=method, loss=loss, **chosen | {"set": small | fields.get("set", {})})


def random_experiment(job: Job, **rest: Any) -> Experiment:
    """A job put together on random volumes, 4 classes in 2-D and 14 in 3-D; see the function that this calls."""
    flat = len(job.resolved.recipe.patch_size) == 2
    return subject.random_experiment(job, **{"classes": 4 if flat else 14} | rest)


class Untrained(Method):
    """A method to register and resolve, whose step no test takes."""

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        raise AssertionError("it is not to be trained")

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        raise AssertionError("it is not to predict")


@pytest.fixture
def throw_away() -> Iterator[Callable[..., Any]]:
    """`registry.register`, undone after the test."""
    added: list[tuple[str, str]] = []

    def register(kind: str, name: str, **rest: Any) -> Any:
        added.append((kind, name))
        return registry.register(kind, name, **rest)

    yield register
    for kind, name in added:
        registry.unregister(kind, name)


class Records:
    """A recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self.messages: list[str] = []

    def record(self, entry: Any) -> None:
        self.entries.append({key: value for key, value in entry.items() if key != "it_per_s"})

    def rewind(self, iteration: int) -> None:
        self.entries = [entry for entry in self.entries if entry["iteration"] <= iteration]

    def message(self, text: str) -> None:
        self.messages.append(text)
