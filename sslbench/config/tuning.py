"""Tuning as a part of a grid: every row gets the same number of random trials, scored on validation patients.

    tune:
      trials: 8
      seed: 101                        # of the values that are tried; and of the trials' trainings, without `seeds`
      score: val-dsc
      space:
        optimizer.lr: {log: [1e-3, 1e-1]}
        loss.gamma: {uniform: [0.5, 1]}
        method.consistency: [0.1, 1.0]

Trial n takes for each path the SHA-256 of `tune <seed>/<n>/<path>` as its place in the range, so that all rows try the
same values of what they share, and no platform or generator of random numbers decides. A trial is a job like any other,
with a seed that no reported job has.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from sslbench.config.draws import family_of
from sslbench.config.job import Job, settings_of
from sslbench.config.recipe import Seed
from sslbench.config.splits import load_splits
from sslbench.config.text import compact, counted, first_few
from sslbench.core.errors import UnknownNameError, UsageError
from sslbench.core.options import Frozen

# What may be tuned: the data, the seeds, the length of the training and what is tested are the protocol.
TUNABLE = ("method.", "loss.", "plugin.", "optimizer.", "ramp.")


class TuneRange(Frozen):
    """A range of numbers, ends included: even in the number (`uniform`), or in its logarithm (`log`)."""

    uniform: tuple[float, float] | None = None
    log: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _one(self) -> TuneRange:
        ends = self.uniform or self.log
        if ends is None or (self.uniform and self.log):
            raise ValueError("a range is {uniform: [0.5, 1]} or {log: [1e-3, 1e-1]}")
        if not (math.isfinite(ends[1]) and ends[0] < ends[1]) or (self.log and ends[0] <= 0):
            raise ValueError(f"the range {list(ends)} does not run upwards, or its logarithm from above 0")
        return self

    def at(self, place: float) -> float:
        """The number at a place in [0, 1), to three digits, as a person would write it."""
        low, high = self.uniform or self.log or (0.0, 0.0)
        value = low + place * (high - low) if self.uniform else low * (high / low) ** place
        return min(max(float(f"{value:.3g}"), low), high)


Among = Annotated[
    Annotated[list[Any], Tag("list")] | Annotated[TuneRange, Tag("span")],
    Discriminator(lambda values: "list" if isinstance(values, list) else "span"),
]


class Tune(Frozen):
    """How the rows of a grid are tuned."""

    trials: int = Field(gt=0, le=1000, description="random trials of each row")
    seed: Seed = Field(default=101, description="decides the values that are tried")
    score: Literal["val-dsc"] = Field(
        default="val-dsc",
        description="mean validation DSC of the weights that would be tested; the row's best trial is taken, of "
        "several the first",
    )
    space: dict[str, Among] = Field(
        min_length=1,
        description="dotted paths, and what is tried: a list, `{uniform: [a, b]}` or `{log: [a, b]}`",
    )
    seeds: list[Seed] = Field(default=[], description="of the trials' trainings, averaged; default: `seed`")

    @model_validator(mode="after")
    def _meaning(self) -> Tune:
        for path, values in self.space.items():
            if not path.startswith(TUNABLE):
                raise ValueError(
                    f"`space` names {path}: tuned are {', '.join(f'{part}*' for part in TUNABLE)}; seeds, data, the "
                    "length of the training and what is tested are the same for all rows"
                )
            if isinstance(values, list) and len({compact(value) for value in values}) < 2:
                raise ValueError(f"`space` gives {path} fewer than two values")
        return self

    @property
    def trained_with(self) -> tuple[int, ...]:
        """The seeds of the trials' trainings."""
        return tuple(self.seeds) or (self.seed,)

    def values(self, trial: int, paths: Iterable[str]) -> dict[str, Any]:
        """What a trial (from 1) sets some paths of the space to."""
        found = {}
        for path in paths:
            digest = hashlib.sha256(f"tune {self.seed}/{trial}/{path}".encode()).digest()
            place = int.from_bytes(digest[:6]) / 2**48
            among = self.space[path]
            found[path] = among.at(place) if isinstance(among, TuneRange) else among[int(place * len(among))]
        return found


@dataclass(frozen=True)
class Trial:
    """A trial of a row: its number from 1, what it sets, and its jobs, one per seed."""

    row: str
    number: int
    values: Mapping[str, Any]
    jobs: tuple[Job, ...]


def row_of(job: Job) -> str:
    """What the jobs of a tuned row share: all but seed and draw, `<recipe>/<labeled>/<cell>` of the untuned job."""
    recipe, labeled, cell = job.directory.parent.parts
    settings = settings_of(job.resolved.job.model_dump())
    if not cell.endswith(",".join(f"{path}={compact(value)}" for path, value in settings.items())):  # a long one is cut
        cell += f"-{hashlib.sha256(repr(settings).encode()).hexdigest()[:8]}"
    return f"{recipe}/{family_of(labeled)}/{cell}"


def trials_of(tune: Tune, rows: Sequence[Job], grid: str) -> list[Trial]:
    """The trials of every row, row by row; of drawn labels on the row's first draw.

    Args:
        tune: of the grid.
        rows: the grid's jobs before they are tuned.
        grid: its name, for errors.

    Raises:
        UsageError: a reported seed among the trials', a dataset without validation patients, a path that no row has or
            that the grid sets, or a row of which nothing is tuned.
    """
    _check(tune, rows, grid)
    made = []
    for row, job in {row_of(job): job for job in reversed(rows)}.items():
        paths = [path for path in tune.space if path in job.resolved.values]
        for number in range(1, tune.trials + 1):
            values = tune.values(number, paths)
            first = tuned(job, values, f"trial {number} of {grid}")
            made.append(Trial(row, number, values, tuple(first.reseeded(seed) for seed in tune.trained_with)))
    order = {row: place for place, row in enumerate(dict.fromkeys(map(row_of, rows)))}
    return sorted(made, key=lambda trial: (order[trial.row], trial.number))


def tuned(job: Job, values: Mapping[str, Any], layer: str) -> Job:
    """A job with tuned values, canonical and checked."""
    layers = {**job.layers, **dict.fromkeys(values, layer)}
    return Job(**{**job.model_dump(), "set": {**job.set, **values}}, layers=layers).canonical()


def _check(tune: Tune, rows: Sequence[Job], grid: str) -> None:
    if shared := sorted({*tune.trained_with} & {job.seed for job in rows}):
        raise UsageError(
            f"grid {grid}: seed {shared[0]} is reported, and `tune` trains with it",
            "trials have seeds of their own: `tune: {seeds: [...]}`",
        )
    heads: dict[str, Job] = {row_of(job): job for job in rows}
    for job in heads.values():
        recipe = job.resolved.recipe
        if not load_splits(recipe.dataset, recipe.splits).val:
            raise UsageError(
                f"grid {grid}: splits {recipe.splits} of {recipe.dataset} have no validation patients to tune on",
                "nothing is tuned on test patients: choose lists with validation",
            )
        if fixed := next((path for path in tune.space if path in (*job.set, *_varied(job))), None):
            raise UsageError(f"grid {grid}: {fixed} is tuned, and {row_of(job)} sets it", "leave one of them out")
        if not any(path in job.resolved.values for path in tune.space):
            raise UsageError(
                f"grid {grid}: `tune` names nothing that {row_of(job)} has, and every row gets the same trials",
                "add optimizer.lr to its space",
            )
    known = {path for job in heads.values() for path in job.resolved.values if path.startswith(TUNABLE)}
    if unknown := [path for path in tune.space if path not in known]:
        raise UnknownNameError(f"field in `tune` of grid {grid}", unknown[0], known)


def _varied(job: Job) -> Collection[str]:
    place = getattr(job, "place", None)
    return place.varied if place else ()


def told(tune: Tune, chosen: Mapping[str, Mapping[str, Any]]) -> str:
    """What a caption says of the tuning."""
    seeds = first_few([str(seed) for seed in tune.trained_with])
    seeds = f"seed{'s' if len(tune.trained_with) > 1 else ''} {seeds}"
    paths = [path for path in tune.space if any(path in values for values in chosen.values())]
    return (
        f"Tuned for each row: {', '.join(paths)}, by {counted(tune.trials, 'random trial')} on the validation patients "
        f"(mean DSC; {seeds}, not reported)."
    )


def folder_of(grid: str) -> Path:
    """Where the record of a grid's trials lies, relative to the results folder."""
    return Path("tuning") / f"{grid}.json"
