"""Grids: jobs as a union of products, filters over jobs, and the table that they fill."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from sslbench.config import weightings
from sslbench.config.job import COMMAND_LINE, Job, ResolvedJob, splits_of
from sslbench.config.layers import COMPONENTS, load_recipe, read_recipe
from sslbench.config.parts import read_part, read_parts
from sslbench.config.recipe import Seed
from sslbench.config.text import flatten, load_yaml, validated
from sslbench.core import registry, settings
from sslbench.core.errors import UnknownNameError, UsageError
from sslbench.core.options import Frozen

_AXES = ("recipe", "method", "weighting", "loss", "plugin", "labeled", "seeds")


def _axes_as_lists(data: Any) -> Any:
    """Read axes written as one value, and seeds written as a range: `0-4`."""
    if not isinstance(data, dict):
        return data
    data = {key: [value] if key in _AXES and not isinstance(value, list) else value for key, value in data.items()}
    if "labeled" in data:
        data["labeled"] = [str(value) for value in data["labeled"]]
    if "seeds" in data:
        data["seeds"] = [seed for value in data["seeds"] for seed in seed_range(value)]
    return data


def seed_range(value: Any) -> list[Any]:
    """Expand `0-4` to its seeds; any other value stays.

    Raises:
        ValueError: a range that runs backwards, or holds more seeds than anybody means.
    """
    match = re.fullmatch(r"\s*(\d{1,9})\s*-\s*(\d{1,9})\s*", value) if isinstance(value, str) else None
    if match is None:
        return [value]
    first, last = int(match[1]), int(match[2])
    if not first <= last < first + 1000:
        raise ValueError(f"the range of seeds {value!r} is empty or too long")
    return list(range(first, last + 1))


class JobFilter(Frozen):
    """Jobs by their parts: a job matches that is among the values of every axis named."""

    recipe: list[str] = []
    method: list[str] = []
    weighting: list[str | dict[str, Any] | None] = []
    loss: list[str] = []
    plugin: list[str | None] = []
    labeled: list[str] = []
    seeds: list[Seed] = []
    set: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _as_lists(cls, data: Any) -> Any:
        return _axes_as_lists(data)

    def matches(self, job: Job) -> bool:
        """Tell whether the job is meant, however both are spelt. Only options and `set` need the job to be valid.

        Raises:
            UsageError: a name or budget that nothing answers to.
        """
        return self.matches_but_seed(job) and self.has_seed(job.seed)

    def has_seed(self, seed: int) -> bool:
        """Tell whether jobs of this seed may be meant."""
        return not self.seeds or seed in self.seeds

    def matches_but_seed(self, job: Job) -> bool:
        """Tell whether the job is meant, whatever the seed; as `matches`."""
        parts = read_parts(job)
        wanted = [flatten(self.set)]
        for axis in COMPONENTS:
            asked = [read_part(axis, spelt) for spelt in getattr(self, axis)]
            named = [part.given for part in asked if part.name == parts[axis].name]
            if asked and not named:
                return False
            if len(named) == 1:
                wanted.append(dict(named[0]))
        if self.labeled:
            lists = splits_of(read_recipe(job.recipe)[0], parts, flatten(job.set))
            if lists.budget(job.labeled).slug not in {lists.budget(name).slug for name in self.labeled}:
                return False
        if self.recipe and job.recipe not in self.recipe:
            return False
        if self.weighting and not any(_has_weighting(job.resolved, value) for value in self.weighting):
            return False
        return all(_has(job.resolved, options) for options in wanted if options)


def _has(resolved: ResolvedJob, options: Mapping[str, Any]) -> bool:
    """Tell whether a job has these values, by dotted path."""
    others, about = weightings.split({weightings.respelt(path): value for path, value in options.items()})
    if any(resolved.values.get(path) != value for path, value in others.items()):
        return False
    found = resolved.weightings
    asked = weightings.read(about, _learners(resolved))[0] if about else {}
    return all(
        key not in found if spec is None else spec.items() <= found.get(key, {}).items() for key, spec in asked.items()
    )


def _has_weighting(resolved: ResolvedJob, value: str | Mapping[str, Any] | None) -> bool:
    """Tell whether a job has a weighting, `none` or null being none at all."""
    if value in (None, weightings.NONE):
        return not resolved.weightings
    return _has(resolved, weightings.flat(value))


def _learners(resolved: ResolvedJob) -> tuple[str, ...]:
    return weightings.learners_of(registry.component("method", resolved.method["name"]), resolved.method)


class GridEntry(JobFilter):
    """A product of the axes it names, with what it sets; an axis left out takes the grid's."""


class TableSpec(Frozen):
    """The content of a grid's table.

    `columns`: metrics of the protocol, averaged over classes (`dsc`) or one column per class (`dsc/class`). Where it is
    not given, those of its default that the protocol has.
    `classes`: the order of those, as labelled or the largest structure first.
    `groups`: headings in the papers' order; `GA`-like names are losses, the others the methods' own groups.
    """

    columns: list[str] = ["dsc", "asd", "dsc/class"]
    classes: Literal["label", "size"] = "label"
    groups: list[str] = ["Reference", "General", "Imbalance"]
    caption: str = ""
    note: str = ""

    def check(self, protocols: Collection[str]) -> None:
        """Check that every column that the grid asks for can be filled.

        Args:
            protocols: those of the grid's jobs.

        Raises:
            UsageError: no column, one that stands twice, or one that none of the protocols measures.
        """
        if "columns" not in self.model_fields_set:
            return
        known = column_names(protocols)
        for place, column in enumerate(self.columns):
            if column not in known:
                raise UnknownNameError("table column", column, known)
            if column in self.columns[:place]:
                raise UsageError(f"the table column '{column}' stands twice", "name each column once")
        if not self.columns:
            raise UsageError("the table has no columns", "name some, or leave `columns` out for the usual ones")


def column_names(protocols: Collection[str]) -> set[str]:
    """The columns that protocols can fill: each metric as an average, and by class."""
    metrics = {metric for name in protocols for metric in registry.component("protocol", name).metrics}
    return metrics | {f"{metric}/class" for metric in metrics}


class Grid(Frozen):
    """Jobs as a union of products, and the table that they fill."""

    name: str
    description: str = ""
    recipe: list[str] = []
    labeled: list[str] = []
    seeds: list[Seed] = []
    set: dict[str, Any] = {}
    jobs: list[GridEntry]
    exclude: list[JobFilter] = []
    table: TableSpec = TableSpec()

    @model_validator(mode="before")
    @classmethod
    def _as_lists(cls, data: Any) -> Any:
        return _axes_as_lists(data)

    def expand(self, overrides: Mapping[str, Any] | None = None) -> list[Job]:
        """Expand to the canonical jobs, checked, each once, in the order of the file; seeds vary fastest.

        The table is checked too: what nobody can print is not worth a training.

        Args:
            overrides: `--set` values, the last layer.

        Raises:
            UsageError: nothing to run, a job that does not resolve, or a table that they cannot fill.
        """
        found: dict[Path, Job] = {}
        protocols: set[str] = set()
        for entry in self.jobs:
            for job, seeds in self._product(entry, overrides or {}):
                out = [exclude for exclude in self.exclude if exclude.matches_but_seed(job)]
                for seed in seeds:
                    if not any(exclude.has_seed(seed) for exclude in out):
                        seeded = job.with_seed(seed)  # every job is checked before any starts
                        found.setdefault(seeded.directory, seeded)
                        protocols.add(seeded.resolved.recipe.protocol)
        if not found:
            raise UsageError(f"grid {self.name} names no job")
        self.table.check(protocols)
        return list(found.values())

    def _product(self, entry: GridEntry, overrides: Mapping[str, Any]) -> Iterator[tuple[Job, Sequence[int]]]:
        """Yield the jobs of an entry, whatever their seed, and the seeds of each."""
        recipes = entry.recipe or self.recipe
        budgets = entry.labeled or self.labeled
        for axis, value in (("recipe", recipes), ("method", entry.method), ("labeled", budgets)):
            if not value:
                raise UsageError(f"grid {self.name}: an entry of `jobs` names no {axis}, and the grid has none")
        chosen = {**self.set, **entry.set, **overrides}
        own = self.name if self.name == COMMAND_LINE else f"grid {self.name}"
        layers = dict.fromkeys({**self.set, **entry.set, "*": ""}, own) | dict.fromkeys(overrides, COMMAND_LINE)
        for recipe, budget, method, weighting, loss, plugin in itertools.product(
            recipes, budgets, entry.method, entry.weighting or [None], entry.loss or ["default"], entry.plugin or [None]
        ):
            job = Job(
                recipe=recipe,
                method=method,
                weighting=weighting,
                loss=loss,
                plugin=plugin,
                labeled=budget,
                set=chosen,
                layers=layers,
            )
            yield job, entry.seeds or self.seeds or load_recipe(recipe).seeds


def load_grid(name: str) -> Grid:
    """Load a grid by name (looked up in `benchmarks/`, then among the shipped ones) or by file.

    Raises:
        UsageError: no such grid, or a file that is not a valid one.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.exists():
            raise UsageError(f"no grid file {path}", "name a YAML file, or a grid of `sslbench list grids`")
    else:
        found = grid_files()
        if name not in found:
            raise UnknownNameError("grid", name, found)
        path = found[name]
    return validated(Grid, {"name": path.stem, **load_yaml(path)}, str(path))


def grid_files() -> dict[str, Path]:
    """Return the grids that can be named, with their files."""
    found: dict[str, Path] = {}
    for folder in settings.grid_dirs():
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))
