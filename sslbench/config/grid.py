"""Grids: jobs as a union of products, filters over jobs, and the table that they fill."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from sslbench.config import weightings
from sslbench.config.draws import budget_names, split_draw
from sslbench.config.job import COMMAND_LINE, Job, ResolvedJob, splits_of
from sslbench.config.kept_jobs import kept_jobs
from sslbench.config.layers import COMPONENTS, load_recipe, read_recipe
from sslbench.config.parts import read_part, read_parts
from sslbench.config.places import GridJob, TablePlace, place_of
from sslbench.config.recipe import Seed
from sslbench.config.splits import load_splits
from sslbench.config.table import TableSpec
from sslbench.config.text import compact, counted, first_few, flatten, load_yaml, parse_component, validated
from sslbench.config.tuning import Trial, Tune, row_of, trials_of, tuned
from sslbench.core import registry, settings
from sslbench.core.errors import UnknownNameError, UsageError
from sslbench.core.files import is_plain_name
from sslbench.core.options import Frozen

_REFERENCE = "supervised"  # the method that both ends of the gap are of
_AXES = ("recipe", "method", "weighting", "loss", "plugin", "labeled", "seeds")


def _axes_as_lists(data: Any) -> Any:
    """Read axes written as one value, seeds written as a range, `0-4`, and draws of labels, `20%#1-5`."""
    if not isinstance(data, dict):
        return data
    data = {key: [value] if key in _AXES and not isinstance(value, list) else value for key, value in data.items()}
    if "labeled" in data:
        data["labeled"] = [name for value in data["labeled"] for name in budget_names(value, seed_range)]
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
        if (self.recipe and job.recipe not in self.recipe) or (self.seeds and job.seed not in self.seeds):
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
    """A product of the axes it names, with what it sets and varies; an axis left out takes the grid's.

    `vary` holds lists of values by dotted path, and makes a row of each combination. `as`, `heading` and `note` are for
    the table alone.
    """

    vary: dict[str, list[Any]] = Field(default={}, description="dotted paths and the values that each takes")
    names: list[str] = Field(default=[], alias="as", description="the rows' names in the table, in order")
    heading: str | None = Field(default=None, description="what the rows stand under in the table")
    note: str = Field(default="", description="a footnote of the rows")

    @model_validator(mode="before")
    @classmethod
    def _one_name(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        if "as" in data and not isinstance(data["as"], list):
            data["as"] = [data["as"]]
        if isinstance(data.get("as"), list):
            data["as"] = [" ".join(str(name).split()) for name in data["as"]]
        if isinstance(data.get("heading"), str):
            data["heading"] = " ".join(data["heading"].split())
        if isinstance(data.get("vary"), dict):
            data["vary"] = flatten(data["vary"])
        return data

    @model_validator(mode="after")
    def _consistent(self) -> GridEntry:
        for path, values in self.vary.items():
            if not values:
                raise ValueError(f"`vary` gives {path} no value")
            spelt = list(map(compact, values))
            if twice := [text for place, text in enumerate(spelt) if text in spelt[:place]]:
                raise ValueError(f"`vary` gives {path} the value {twice[0]} twice")
        bracketed = [
            f"{kind}.{option}"
            for kind in COMPONENTS
            for spelt in getattr(self, kind)
            if spelt is not None
            for option in flatten(parse_component(spelt)[1])
        ]
        weighted = [weightings.PART] if any(value is not None for value in self.weighting) else []
        if fixed := overlap(self.vary, [*flatten(self.set), *bracketed, *weighted]):
            raise ValueError(f"{fixed} is both set and varied")
        rows = len(self.combinations())
        if self.names and len(self.names) != rows:
            raise ValueError(
                f"`as` names {counted(len(self.names), 'row')}, but the entry has {rows}: "
                "method x weighting x loss x plugin x vary"
            )
        return self

    def combinations(self) -> list[tuple[Any, ...]]:
        """What makes its rows, in order: method, weighting, loss, plugin, and what varies, by dotted path."""
        varied = [dict(zip(self.vary, values, strict=True)) for values in itertools.product(*self.vary.values())]
        axes = (self.method, self.weighting or [None], self.loss or ["default"], self.plugin or [None], varied)
        return list(itertools.product(*axes))


def overlap(paths: Iterable[str], others: Iterable[str]) -> str | None:
    """The first of some dotted paths that one of the others sets, as a whole or in part."""
    others = [weightings.respelt(other) for other in others]
    for path in paths:
        spelt = weightings.respelt(path)
        if any(f"{spelt}.".startswith(f"{other}.") or f"{other}.".startswith(f"{spelt}.") for other in others):
            return path
    return None


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
    tune: Tune | None = None
    chosen: dict[str, dict[str, Any]] = Field(
        default={}, description="what trials chose, by row: written by sslbench, where a grid goes with its results"
    )

    @model_validator(mode="before")
    @classmethod
    def _as_lists(cls, data: Any) -> Any:
        return _axes_as_lists(data)

    @field_validator("name")
    @classmethod
    def _a_name(cls, name: str) -> str:
        if not is_plain_name(name):
            raise ValueError(f"{name!r} cannot be the name of a folder, and a grid's reports lie in one of its name")
        return name

    def with_seeds(self, seeds: Iterable[int]) -> Grid:
        """Return the grid with these seeds, whatever it and its entries name; what it excludes stays out."""
        entries = [entry.model_copy(update={"seeds": []}) for entry in self.jobs]
        return self.model_copy(update={"seeds": list(seeds), "jobs": entries})

    def with_references(self) -> Grid:
        """Return the grid with supervised training on each of its label budgets and on all labels, the two ends of the
        gap that a method can close; jobs that it has anyway stay where they are."""
        own = {path: value for path, value in flatten(self.set).items() if _of_component(path)}
        shared = {path: value for path, value in flatten(self.set).items() if path not in own}
        entries = [entry.model_copy(update={"set": {**own, **entry.set}}) for entry in self.jobs]
        budgets: dict[str, list[str]] = {}
        for entry in self.jobs:
            for recipe in entry.recipe or self.recipe:
                lists = load_splits(*_lists_of(recipe))
                whole = [each for each in lists.budgets.values() if {*each.labeled} == {*lists.train}]
                for budget in [lists.budget(text) for text in entry.labeled or self.labeled] + whole[:1]:
                    known = budgets.setdefault(recipe, [])
                    known += [] if budget.slug in known else [budget.slug]
        entries += [
            GridEntry(recipe=[recipe], method=[_REFERENCE], loss=["default"], labeled=slugs)
            for recipe, slugs in budgets.items()
        ]
        return self.model_copy(update={"set": shared, "jobs": entries})

    def expand(self, overrides: Mapping[str, Any] | None = None) -> list[Job]:
        """Expand to the canonical jobs that are reported: those of `rows`, with what was chosen where it is tuned.

        Raises:
            UsageError: as for `rows`, or a tuned row whose trials have not ended.
        """
        return self.tuned(self.rows(overrides))

    def trials(self, rows: Sequence[Job]) -> list[Trial]:
        """The trials of some of its `rows`; none where it is not tuned, or says what was chosen.

        Raises:
            UsageError: what `tune` asks for has no meaning for them.
        """
        return trials_of(self.tune, rows, self.name) if self.tune and not self.chosen else []

    def tuned(self, rows: Sequence[Job]) -> list[Job]:
        """Some of its `rows` with the values that their trials chose.

        Raises:
            UsageError: a row whose trials have not ended.
        """
        if self.tune is None:
            return list(rows)
        asked = dict.fromkeys(map(row_of, rows))
        if missing := [row for row in asked if row not in self.chosen]:
            raise UsageError(
                f"grid {self.name} is tuned, and the trials of {len(missing)} of {counted(len(asked), 'row')} have not"
                f" ended, or none gave a score: {first_few(missing)}",
                "`sslbench run --grid` of it runs them, then the jobs that are reported",
            )
        made: dict[Path, Job] = {}
        jobs = []
        for job in rows:
            if job.directory.parent not in made:
                values = self.chosen[row_of(job)]
                place = place_of(job).model_copy(update={"tuned": dict(values)})
                made[job.directory.parent] = _placed(tuned(job, values, f"tuning of {self.name}"), place)
            jobs.append(made[job.directory.parent].reseeded(job.seed))
        return jobs

    def rows(self, overrides: Mapping[str, Any] | None = None) -> list[Job]:
        """Expand to the canonical jobs, checked, each once, in the order of the file; seeds vary fastest.

        The table is checked too: what nobody can print is not worth a training.

        Args:
            overrides: `--set` values, the last layer.

        Raises:
            UsageError: nothing to run, a job that does not resolve, or a table that they cannot fill.
        """
        key = [self.model_dump(mode="json", by_alias=True), overrides or {}]
        return kept_jobs("grid", key, lambda: self._expanded(overrides or {}))

    def _expanded(self, overrides: Mapping[str, Any]) -> list[Job]:
        printed = self._printed()
        found: dict[Path, Job] = {}
        for entry in self.jobs:
            varied: dict[Path, Mapping[str, Any]] = {}
            for job, place in self._product(entry, overrides):
                seeds = self._seeds(entry, job)
                if not seeds:
                    continue
                first = job.reseeded(seeds[0])
                twin = varied.setdefault(first.directory, place.varied)
                if _spelt(twin) != _spelt(place.varied):
                    raise UsageError(
                        f"grid {self.name}: {_spelt(twin)} and {_spelt(place.varied)} in `vary` are one job"
                    )
                if printed:
                    # What the command line sets makes another job, not another row.
                    plain = {**self.set, **entry.set, **place.varied}
                    described = Job(**{**job.model_dump(), "set": plain}) if overrides else first
                    place = place.model_copy(update={"printed": printed.get(described.digest())})
                placed = _placed(first, place)
                for seed in seeds:
                    each = placed.reseeded(seed)
                    found.setdefault(each.directory, each)
        if not found:
            raise UsageError(f"grid {self.name} names no job")
        jobs = list(found.values())
        self._distinct_draws(jobs)
        self.table.check(jobs)
        if printed and all(place_of(job).printed is None for job in jobs):
            raise UsageError(
                f"grid {self.name}: none of its jobs is a row of {self.table.of}",
                f"leave `of` out; report --against {self.table.of} compares what is alike",
            )
        return jobs

    def _distinct_draws(self, jobs: Iterable[Job]) -> None:
        """Refuse two draws that label the same cases, as happens by chance where there are few: one would count twice.

        Raises:
            UsageError: there are such.
        """
        seen: dict[object, int] = {}
        lists = {(job.recipe, job.labeled): job.resolved for job in jobs if split_draw(job.labeled)[1]}
        for (recipe, labeled), resolved in lists.items():
            base, draw = split_draw(labeled)
            dataset = resolved.recipe.dataset
            twin = seen.setdefault((recipe, base, frozenset(draw_of(resolved) or [labeled])), draw)
            if twin != draw:
                raise UsageError(
                    f"grid {self.name}: draws {twin} and {draw} of {base} label the same cases of {dataset}",
                    "say which draws: `draws: [1, 2, ...]`",
                )

    def _seeds(self, entry: GridEntry, job: Job) -> list[Seed]:
        """The seeds of a job of an entry, without those of jobs that the grid leaves out."""
        seeds = entry.seeds or self.seeds or load_recipe(job.recipe).seeds
        own = [job.model_copy(update={"seed": seed}) for seed in seeds] if self.exclude else [job] * len(seeds)
        excluded = [any(exclude.matches(each) for exclude in self.exclude) for each in own]
        return [seed for seed, left_out in zip(seeds, excluded, strict=True) if not left_out]

    def _printed(self) -> dict[str, int]:
        """The rows of the published table that the table follows, by the digest of their jobs."""
        table = self.table.published
        numbers = {row.order: number for number, row in enumerate(table.rows)} if table else {}
        found: dict[str, int] = {}
        for order, job in (table.jobs if table else {}).items():
            found.setdefault(job.digest(), numbers[order])
        return found

    def _product(self, entry: GridEntry, overrides: Mapping[str, Any]) -> Iterator[tuple[Job, TablePlace]]:
        """The jobs of an entry, of the default seed, with their places."""
        recipes = entry.recipe or self.recipe
        budgets = entry.labeled or self.labeled
        for axis, value in (("recipe", recipes), ("method", entry.method), ("labeled", budgets)):
            if not value:
                raise UsageError(f"grid {self.name}: an entry of `jobs` names no {axis}, and the grid has none")
        for above, where in ((self.set, f"grid {self.name} sets it"), (overrides, "the command line sets it")):
            if fixed := overlap(entry.vary, flatten(above)):
                raise UsageError(f"grid {self.name}: {fixed} is varied, and {where}", "leave one of them out")
        own = self.name if self.name == COMMAND_LINE else f"grid {self.name}"
        combinations = entry.combinations()
        for recipe, budget in itertools.product(recipes, budgets):
            for number, (method, weighting, loss, plugin, varied) in enumerate(combinations):
                chosen = {**self.set, **entry.set, **overrides}
                layers = dict.fromkeys({**self.set, **entry.set, **varied, "*": ""}, own)
                layers |= dict.fromkeys(overrides, COMMAND_LINE)
                parts = {"method": method, "weighting": weighting, "loss": loss, "plugin": plugin}
                job = Job(recipe=recipe, labeled=budget, set={**chosen, **varied}, layers=layers, **parts)
                names = None
                if varied:
                    plain = read_parts(Job(recipe=recipe, labeled=budget, set=chosen, **parts))
                    names = tuple(str(plain[kind].name or "") for kind in COMPONENTS)
                label = entry.names[number] if entry.names else ""
                yield job, TablePlace(label=label, heading=entry.heading, note=entry.note, names=names, varied=varied)


def _placed(job: Job, place: TablePlace) -> GridJob:
    """The job in canonical form, with the layers that its values came from, and its place."""
    canonical = job.canonical()  # every job is checked before any starts
    return GridJob(**canonical.model_dump(), layers=canonical.layers, place=place).resolved_as(job)


def _spelt(options: Mapping[str, Any]) -> str:
    return ",".join(f"{path}={compact(value)}" for path, value in options.items())


def _of_component(path: str) -> bool:
    """Tell whether a dotted path is an option of a method, loss or plugin, or a weighting: not for every job."""
    return path.partition(".")[0] in COMPONENTS or weightings.concerns(path)


def _lists_of(recipe: str) -> tuple[str, str]:
    """The dataset and the splits of a recipe."""
    found = load_recipe(recipe)
    return found.dataset, found.splits


def draw_of(resolved: ResolvedJob) -> tuple[str, ...]:
    """The training cases that a job's draw labels; empty where its labels are a list of the split file."""
    budget = load_splits(resolved.recipe.dataset, resolved.recipe.splits).budget(resolved.job.labeled)
    return budget.labeled if budget.draw else ()


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
