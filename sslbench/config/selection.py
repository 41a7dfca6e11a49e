"""Some of a grid's jobs: `--only AXIS=VALUES`, values spelt as anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sslbench.config import weightings
from sslbench.config.grid import JobFilter, seed_range
from sslbench.config.job import Job
from sslbench.config.text import compact, first_few, split_outside_brackets
from sslbench.core.errors import UnknownNameError, UsageError

# How a job has each axis, for people; a filter spells all but `seed` as it is.
AXES: dict[str, Callable[[Job], str]] = {
    "recipe": lambda job: Path(job.recipe).stem,
    "method": lambda job: job.method,
    "weighting": lambda job: compact(job.weighting) if job.weighting else weightings.NONE,
    "loss": lambda job: job.loss,
    "plugin": lambda job: job.plugin or weightings.NONE,
    "labeled": lambda job: job.labeled,
    "seed": lambda job: str(job.seed),
}

_HINT = "for example --only method=cps,magicnet"


def only(jobs: Sequence[Job], items: Iterable[str]) -> list[Job]:
    """Return the jobs that have one of the values on every axis named, in their order.

    Args:
        jobs: canonical.
        items: `method=cps,magicnet`; an axis that stands twice has the values of both.

    Raises:
        UsageError: an item that cannot be read, an axis or value that is not known, a value that no job has, or values
            that no job has together.
    """
    kept = list(jobs)
    for axis, values in _read(items).items():
        having = {id(job) for value in values for job in _having(jobs, axis, value)}
        kept = [job for job in kept if id(job) in having]
    if not kept:
        raise UsageError(f"no job has {' and '.join(f'--only {item}' for item in items)} together")
    return kept


def _read(items: Iterable[str]) -> dict[str, list[str]]:
    wanted: dict[str, list[str]] = {}
    for item in items:
        axis, _, text = item.partition("=")
        values = split_outside_brackets(text)
        if not values:
            raise UsageError(f"--only takes AXIS=VALUES, not '{item}'", _HINT)
        if axis.strip() not in AXES:
            raise UnknownNameError("axis of --only", axis.strip(), AXES)
        wanted.setdefault(axis.strip(), []).extend(values)
    return wanted


def _having(jobs: Sequence[Job], axis: str, value: str) -> list[Job]:
    """Return the jobs with a value; there is one at least."""
    if axis == "seed":
        found = [job for job in jobs if str(job.seed) in {str(seed) for seed in seeds_in(value)}]
    else:
        spelt = None if value == weightings.NONE and axis in ("plugin", "weighting") else value
        found = _matching(jobs, JobFilter.model_validate({axis: [spelt]}))
    if not found:
        there = list(dict.fromkeys(AXES[axis](job) for job in jobs))
        raise UsageError(f"--only {axis}={value}: no job has it", f"there are {first_few(there, 12)}")
    return found


def _matching(jobs: Sequence[Job], wanted: JobFilter) -> list[Job]:
    """Return the jobs that a filter means. A budget is one of each dataset's own: unknown it is where none knows it."""
    verdicts: dict[str, bool] = {}
    faults: list[UsageError] = []
    for job in jobs:
        if job.digest() not in verdicts:
            try:
                verdicts[job.digest()] = wanted.matches(job)
            except UsageError as fault:
                verdicts[job.digest()] = False
                faults.append(fault)
    if faults and len(faults) == len(verdicts):
        raise faults[0]
    return [job for job in jobs if verdicts[job.digest()]]


def seeds_in(value: str) -> list[int]:
    """Return the seeds that a word means: `3`, `0-2`.

    Raises:
        UsageError: none.
    """
    try:
        return [int(seed) for seed in seed_range(value)]
    except ValueError:
        raise UsageError(f"cannot read the seed '{value}'", "write 0, 0,1 or 0-2") from None
