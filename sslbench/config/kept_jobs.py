"""Checked jobs, kept between commands (`core.kept`): those of grids and of published tables.

Jobs are kept where all that they name is the package's own, since of a stranger's module nobody knows when it changes.
Files of the data folder that was opened are a part of the question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sslbench.config import weightings
from sslbench.config.job import Job, ResolvedJob
from sslbench.config.layers import COMPONENTS
from sslbench.config.places import GridJob, TablePlace
from sslbench.config.recipe import is_shipped
from sslbench.core import registry
from sslbench.core.kept import kept


def kept_jobs(about: str, key: Any, make: Callable[[], list[Job]]) -> list[Job]:
    """Return jobs that the package and a key decide, resolved; made where they are not kept.

    Args:
        about, key: see `kept`.
        make: makes and checks them; those that differ in nothing but their seed share what they resolve to.
    """
    made: list[Job] = []

    def answer() -> Any:
        made.extend(make())
        return _packed(made)

    found = kept(about, [key, _files()], answer)
    return made or _unpacked(found)


def _files() -> list[Any]:
    """Return the user's files that a job can name, as they are."""
    files = {(kind, name): path for kind in ("recipe", "splits") for name, path in registry.kept_files(kind).items()}
    stamps = {name: (str(path), path.stat()) for name, path in sorted(files.items())}
    return [[*name, path, found.st_size, found.st_mtime_ns] for name, (path, found) in stamps.items()]


def is_ours(resolved: ResolvedJob) -> bool:
    """Tell whether all that a job names is the package's own."""
    recipe, job = resolved.recipe, resolved.job
    named = [("dataset", recipe.dataset), ("network", recipe.network.name), ("protocol", recipe.protocol)]
    named += [(weightings.PART, str(spec["name"])) for spec in resolved.weightings.values()]
    for kind in COMPONENTS:
        chosen = getattr(resolved, kind)
        named += [(kind, str(name)) for name in (getattr(job, kind), chosen and chosen["name"]) if name]
    return is_shipped(job.recipe) and all(
        registry.get(kind, name).name in registry.builtin(kind) for kind, name in named
    )


def _packed(jobs: Sequence[Job]) -> Any:
    """Return jobs as JSON has them; None where one is not the package's alone."""
    cells: dict[str, int] = {}
    contents: list[Any] = []
    listed: list[list[Any]] = []
    seen: dict[tuple[int, ...], list[Any]] = {}  # what jobs of one cell and place share, their seed apart
    for job in jobs:
        resolved = job.resolved
        shared = tuple(map(id, (job.set, job.layers, resolved.values, getattr(job, "place", None))))
        if shared in seen:
            cell, _, place = seen[shared]
            listed.append([cell, job.seed, place])
            continue
        place = job.place.model_dump(mode="json") if isinstance(job, GridJob) else None
        spelt = str([job.model_dump(exclude={"seed"}), job.layers, resolved.digest, resolved.job.layers])
        if spelt not in cells:
            if not is_ours(resolved):
                return None
            cells[spelt] = len(contents)
            contents.append(
                {
                    "job": job.model_dump(mode="json") | {"layers": job.layers},
                    "canonical": resolved.job.model_dump(mode="json") | {"layers": resolved.job.layers},
                    "resolved": resolved.model_dump(mode="json", exclude={"job"}),
                }
            )
        listed.append([cells[spelt], job.seed, place])
        seen[shared] = listed[-1]
    return {"cells": contents, "jobs": listed}


def _unpacked(found: Any) -> list[Job]:
    cells = []
    for cell in found["cells"]:
        resolved = ResolvedJob(job=Job(**cell["canonical"]), **cell["resolved"])
        job = Job(**cell["job"])
        job.__dict__["resolved"] = resolved
        cells.append(job)
    placed: dict[tuple[int, str], Job] = {}
    jobs: list[Job] = []
    for number, seed, place in found["jobs"]:
        key = number, str(place)
        if key not in placed:
            first = cells[number]
            told = {**first.model_dump(), "layers": first.layers}
            placed[key] = first if place is None else GridJob(**told, place=TablePlace(**place)).resolved_as(first)
        jobs.append(placed[key].reseeded(seed))
    return jobs
