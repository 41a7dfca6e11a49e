"""Fixtures: a tiny phantom dataset, tiny jobs, throw-away components."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sslbench import registry
from sslbench.config import Job
from sslbench.data.prepare import prepare
from sslbench.data.sampling import TrainingSet
from sslbench.training.experiment import Experiment, ValidationCase, build_experiment

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


def random_experiment(
    job: Job, labeled: int = 3, unlabeled: int = 4, seed: int = 0, device: str = "cpu", channels: int = 1
) -> Experiment:
    """A job put together on random volumes whose labels are bright blobs: no file is read."""
    random = np.random.default_rng(seed)
    resolved = job.resolved
    flat = len(resolved.recipe.patch_size) == 2
    C = 4 if flat else 14

    def case() -> tuple[np.ndarray, np.ndarray]:
        shape = (4, 30, 36) if flat else (20, 18, 22)
        label = random.integers(0, C, size=tuple(-(-side // 4) for side in shape))
        label = np.kron(label, np.ones((4, 4, 4), int))[tuple(slice(side) for side in shape)]
        image = label / C + random.normal(0, 0.1, (channels, *shape))
        return image.astype(np.float32), label.astype(np.uint8)

    cases = [case() for _ in range(labeled + unlabeled + 2)]
    data = TrainingSet([image for image, _ in cases[: labeled + unlabeled]], [label for _, label in cases[:labeled]])
    counts = np.array([np.bincount(label.ravel(), minlength=C) for label in data.labels])
    validation = [ValidationCase(str(number), *pair) for number, pair in enumerate(cases[labeled + unlabeled :])]
    return build_experiment(resolved, data, counts, validation, C, torch.device(device))


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
