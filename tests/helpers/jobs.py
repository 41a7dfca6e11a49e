"""Tiny jobs: of seconds, on the phantom or on random volumes."""

from __future__ import annotations

from typing import Any

from sslbench.config.job import Job
from sslbench.conformance import bench
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
    return bench.random_experiment(job, **{"classes": 4 if flat else 14} | rest)


def phantom_job(method: str = "supervised", seed: int = 0, labeled: str = "20%", **values: Any) -> Job:
    """A canonical job on the phantom with the settings of its recipe, but for `values`."""
    return Job(recipe="phantom", method=method, labeled=labeled, seed=seed, set=values).canonical()
