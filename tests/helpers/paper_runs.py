"""Finished runs of real recipes with numbers that a test chose, as a worker leaves them: nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from sslbench.config.job import Job
from sslbench.core import registry
from sslbench.core.files import write_json
from sslbench.runs.directory import Run
from tests.helpers.results import write_cases

Scores = Callable[[Job, str, str], float | None]  # of a job, a metric and a class; overlaps in percent


def write_run_of(
    job: Job, results: Path, scores: Scores, cases: int = 2, lacking: Mapping[str, int] | None = None
) -> Run:
    """The run directory of one job.

    Args:
        scores: the value of every case; None: the class is not measured.
        lacking: entries of the split lists that could not be used, by part.
    """
    run = Run.of(job, results)
    run.write_config(job)
    write_json(run.status_file, {"state": "finished", "error": ""})
    recipe = job.resolved.recipe
    dataset = registry.component("dataset", recipe.dataset)
    held = {"dataset": recipe.dataset, "found": dataset.official_cases, "official": dataset.official_cases}
    splits = {"labeled": 1, "unlabeled": 2, "lacking": dict(lacking or {})}
    write_json(run.provenance, {"data": held, "splits": splits})
    write_cases(run.cases, list(_case_rows(job, scores, cases)))
    return run


def _case_rows(job: Job, scores: Scores, cases: int) -> Iterable[Sequence[object]]:
    recipe = job.resolved.recipe
    protocol = registry.component("protocol", recipe.protocol)
    for case in range(cases):
        for number, info in enumerate(registry.component("dataset", recipe.dataset).classes, 1):
            for metric in protocol.metrics:
                value = _value(job, metric, info.short, scores)
                overlap = metric in ("dsc", "jaccard")
                text = "" if value is None else repr(value / 100 if overlap else value)
                unit = "fraction" if overlap else protocol.unit
                state, voxels = ("absent", 0) if value is None else ("both", 50)
                name = f"{case:04d}"
                yield [recipe.protocol, name, name, number, info.short, metric, text, unit, state, voxels, voxels]


def _value(job: Job, metric: str, name: str, scores: Scores) -> float | None:
    """A chosen value; Jaccard follows from DSC, as it does of a mask."""
    if metric != "jaccard":
        return scores(job, metric, name)
    dsc = scores(job, "dsc", name)
    return None if dsc is None else 100 * dsc / (200 - dsc)


def write_runs_of(jobs: Iterable[Job], results: Path, scores: Scores) -> None:
    """The run directories of many jobs."""
    for job in jobs:
        write_run_of(job, results, scores)
