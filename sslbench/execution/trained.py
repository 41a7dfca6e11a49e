"""A finished run, ready to segment: its tested weights, and what rebuilds its networks without the training data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter

from sslbench.config import weightings
from sslbench.config.job import Job, ResolvedJob
from sslbench.config.layers import COMPONENTS, JOB_PARTS, under
from sslbench.config.recipe import Recipe
from sslbench.config.text import unflatten
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError, UsageError
from sslbench.core.files import read_json
from sslbench.core.step import Statistics
from sslbench.data.base import Modality, Preprocessing
from sslbench.data.store import Store
from sslbench.inference.predictor import Predictor
from sslbench.networks.precision import as_tested
from sslbench.runs.directory import Run
from sslbench.training.checkpoint import Checkpoints, Selection
from sslbench.training.experiment import Builder, Experiment, build_method


@dataclass(frozen=True)
class TrainedRun:
    """A finished run in memory.

    Attributes:
        predictor: with the weights that were tested.
        run: the directory.
        digest, seed: of the job.
        classes: names of the labels 1, 2, ...
        preprocessing: from a scan to what the networks see, and its name.
        channels, modality, pixel_mm: of the images, as their dataset has them.
    """

    predictor: Predictor
    run: Run
    digest: str
    seed: int
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    preprocessing_name: str
    channels: int
    modality: Modality
    pixel_mm: float


def trained_record(experiment: Experiment, store: Store) -> dict[str, Any]:
    """The content of `trained.json`: all that `load_trained` needs beside the configuration and the weights."""
    statistics, dataset = experiment.method.statistics, store.dataset
    return {
        "dataset": dataset.name,
        "classes": [info.short for info in dataset.classes],
        "channels": len(dataset.channels),
        "modality": dataset.modality,
        "pixel_mm": dataset.pixel_mm,
        "preprocessing": {"name": store.preprocessing, "steps": asdict(dataset.preprocessings[store.preprocessing])},
        "precision": experiment.precision.name,
        "statistics": {
            name: value.tolist() if isinstance(value, torch.Tensor) else value
            for name, value in vars(statistics).items()
        },
    }


def load_trained(run: Run, device: torch.device) -> TrainedRun:
    """The method of a finished run with the weights that were tested; neither data nor references are opened.

    The networks are built from the values in the run's configuration, not from the recipe as it is today.

    Args:
        run: its directory.
        device: to predict on.

    Raises:
        UsageError: no run is there, or it is not finished.
        SSLBenchError: its files are damaged or were made by a version that this one does not understand.
    """
    if not run.begun:
        raise UsageError(f"{run.directory} is no run directory", "sslbench status lists the runs")
    run.check_finished()
    resolved = recorded_job(run)
    record = read_json(run.trained)
    try:
        statistics = _statistics(record["statistics"])
        prep = TypeAdapter(Preprocessing).validate_python(record["preprocessing"]["steps"])
        prep_name = str(record["preprocessing"]["name"])
        channels, pixel_mm = int(record["channels"]), float(record["pixel_mm"])
        classes, modality, precision = tuple(record["classes"]), record["modality"], record["precision"]
    except (KeyError, TypeError, ValueError) as error:
        raise SSLBenchError(
            f"{run.trained} is missing or damaged: without it the run's networks cannot be rebuilt",
            "run the job again with this version: sslbench run --force",
        ) from error
    method = build_method(resolved, Builder(resolved, channels, statistics), statistics)
    key, weights = Selection.of(resolved.recipe, method.predictors).tested(Checkpoints(run.checkpoints))
    try:
        method.load_state_dict(weights)
    except RuntimeError as error:
        raise SSLBenchError(
            f"{run.checkpoints}: the weights do not fit the networks of this version: {str(error).splitlines()[-1]}",
            "predict with the version that trained them (provenance.json), or run the job again",
        ) from error
    how = as_tested(precision, device, len(resolved.recipe.patch_size))
    how.place(method)
    return TrainedRun(
        predictor=Predictor(method, key, resolved.recipe, statistics.num_classes, how),
        run=run,
        digest=resolved.digest,
        seed=resolved.job.seed,
        classes=classes,
        preprocessing=prep,
        preprocessing_name=prep_name,
        channels=channels,
        modality=modality,
        pixel_mm=pixel_mm,
    )


def recorded_job(run: Run) -> ResolvedJob:
    """The job of a run with the values that it ran with, whatever its recipe says today.

    Raises:
        SSLBenchError: the configuration is damaged, or has fields that this version does not know.
    """
    try:
        job, values = Job(**run.job), dict(run.values)
        parts: dict[str, dict[str, Any] | None] = {}
        for part in COMPONENTS:
            named = getattr(job, part)
            entry = registry.get(part, named) if named else None
            parts[part] = {"name": entry.preset_of or entry.name} | unflatten(under(values, part)) if entry else None
        fields = {path: value for path, value in values.items() if path.split(".")[0] not in JOB_PARTS}
        return ResolvedJob(
            job=job,
            recipe=Recipe(name=job.recipe, **unflatten(fields)),
            method=parts["method"] or {},
            loss=parts["loss"] or {},
            plugin=parts["plugin"],
            weightings=weightings.by_learner(values),
            values=values,
            layers=dict(run.layers),
            digest=run.digest,
        )
    except SSLBenchError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise SSLBenchError(
            f"{run.config} cannot be read by this version of sslbench: {' '.join(str(error).split())[:160]}",
            "predict with the version that made it (provenance.json), or run the job again",
        ) from error


def _statistics(fields: Mapping[str, Any]) -> Statistics:
    """Statistics from JSON, which has lists where they have tuples and tensors."""
    kinds = get_type_hints(Statistics)
    typed: dict[str, Any] = {
        name: torch.tensor(value) if kinds[name] is torch.Tensor else TypeAdapter(kinds[name]).validate_python(value)
        for name, value in fields.items()
    }
    return Statistics(**typed)
