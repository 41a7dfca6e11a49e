"""What a benchmark is made of, as values: `Recipe`, `Job`, `Grid`, and how a job resolves to one configuration.

Layers, later wins: the recipe (with those it extends), the method's `defaults`, the recipe's `overrides`, the grid
entry, the command line. A job is stored in canonical form, so that two spellings of it are one run; its digest
covers what changes the result, the seed apart, and nothing else.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sslbench import registry, settings
from sslbench.errors import UnknownNameError, UsageError

# Bump when the meaning of a resolved job changes for all jobs at once (sampling, schedules, the trainer).
ENGINE_VERSION = 1

COMPONENTS = ("method", "loss", "plugin")  # the parts of a job that have options under their own prefix


class Frozen(BaseModel):
    """A value: immutable, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# ---------------------------------------------------------------------------------------------------- the recipe


class NetworkSpec(BaseModel):
    """A network by name; its further options are typed by the network itself."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str = Field(description="registered network")

    @property
    def options(self) -> dict[str, Any]:
        """The options beside the name, as given."""
        return dict(self.__pydantic_extra__ or {})


class BatchSpec(Frozen):
    labeled: int = Field(gt=0, description="labelled patches (2-D: slices) in a step")
    unlabeled: int = Field(ge=0, description="unlabelled patches in a step")


Augmentation = Literal["rot90_flip", "ssl4mis"]


class AugmentSpec(Frozen):
    weak: list[Augmentation] = Field(default=[], max_length=1, description="geometric augmentation of the weak view")


class CriteriaSpec(Frozen):
    dice: Literal["squared", "linear"] = Field(
        default="squared", description="denominators of the Dice loss: sums of squares, or plain sums"
    )
    smooth: float = Field(default=1e-5, description="added to numerator and denominator of the Dice loss")
    ce_weight: float = Field(default=1.0, description="weight of cross-entropy in a supervised sum, any loss")
    dice_weight: float = Field(default=1.0, description="weight of Dice in a supervised sum, any loss")


class OptimizerSpec(Frozen):
    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(gt=0, description="base learning rate")
    momentum: float = Field(default=0.9, description="SGD only")
    nesterov: bool = Field(default=False, description="SGD only")
    weight_decay: float = 0.0


class ScheduleSpec(Frozen):
    iterations: int = Field(gt=0, description="optimiser steps of a phase that names no length of its own")
    epoch: Literal["unlabeled", "unlabeled_pass", "labeled_pass"] | int = Field(
        default="unlabeled",
        description="iterations of an epoch: the number of unlabelled cases (GA), one pass over the unlabelled "
        "or labelled items in batches (DHC; SSL4MIS, which restarts both streams then), or a number",
    )
    lr: Literal["poly", "constant", "step"] = Field(default="poly", description="law of the learning rate")
    power: float = Field(default=0.9, description="exponent of the poly law")
    lr_length: int | None = Field(default=None, description="length of the poly law where it is not the run's")
    step_every: int = Field(default=2500, description="iterations between two drops of the step law")
    step_factor: float = Field(default=0.1, description="factor of a drop of the step law")
    validate_every: int = Field(default=0, ge=0, description="iterations between validations; 0: never")
    checkpoint_every: int = Field(default=0, ge=0, description="iterations between checkpoints; 0: as validation")


class RampSpec(Frozen):
    weight: float = Field(default=0.1, ge=0, description="consistency weight at the end of the ramp")
    shape: Literal["gaussian", "linear", "constant"] = Field(
        default="gaussian", description="gaussian: exp(-5 (1 - t)^2)"
    )
    length: Literal["full"] | int = Field(default="full", description="iterations until the full weight")
    every: Literal["epoch", "iteration"] | int = Field(
        default="iteration", description="how often the weight changes: each epoch, or each so many iterations"
    )


class InferenceSpec(Frozen):
    stride: list[int] | None = Field(default=None, description="sliding-window stride (3-D)")
    validation_stride: list[int] | None = Field(default=None, description="the same in validation; default: stride")
    batch: int = Field(default=16, gt=0, description="windows (2-D: slices) in a forward pass")
    networks: Literal["mean_logits", "best_val"] = Field(
        default="mean_logits",
        description="what predicts when a method trains several networks: the mean of their logits (the field's "
        "3-D habit), or the one better on validation (2-D)",
    )


class Override(Frozen):
    when: dict[str, Any] = Field(description="parts of a job (recipe, method, loss, plugin, labeled) to match")
    set: dict[str, Any] = Field(description="dotted paths and the values that they take then")


class Recipe(Frozen):
    """All that one published table holds fixed, from the dataset to the evaluation protocol."""

    name: str
    description: str = ""
    source: str = Field(default="", description="paper, section, and where deviations are documented")
    dataset: str
    preprocessing: str = Field(description="named preprocessing of the dataset")
    splits: str = Field(description="named case lists and label budgets of the dataset")
    network: NetworkSpec
    patch_size: list[int] = Field(description="voxels; two numbers mean 2-D slices resized to that size")
    batch: BatchSpec
    augment: AugmentSpec = AugmentSpec()
    criteria: CriteriaSpec = CriteriaSpec()
    optimizer: OptimizerSpec
    schedule: ScheduleSpec
    ramp: RampSpec = RampSpec()
    inference: InferenceSpec = InferenceSpec()
    checkpoint: Literal["best-val", "last"] = Field(description="which weights are tested; never chosen on test cases")
    protocol: str = Field(description="how predictions become numbers")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 where the device is fast at it and its gradients agree with fp32"
    )
    seeds: list[int] = Field(default=[1337], description="seeds of a grid that names none")
    overrides: list[Override] = []

    @field_validator("patch_size")
    @classmethod
    def _two_or_three(cls, value: list[int]) -> list[int]:
        if len(value) not in (2, 3) or min(value) < 1:
            raise ValueError("patch_size is two numbers (2-D) or three (3-D)")
        return value

    @model_validator(mode="after")
    def _agrees(self) -> Recipe:
        if len(self.patch_size) == 3 and "ssl4mis" in self.augment.weak:
            raise ValueError("the augmentation ssl4mis rotates slices: it needs a patch_size of two numbers")
        if len(self.patch_size) == 3 and not self.inference.stride:
            raise ValueError("a patch_size of three numbers needs inference.stride")
        if self.checkpoint == "best-val" and not self.schedule.validate_every:
            raise ValueError("the checkpoint rule best-val needs schedule.validate_every")
        return self


# What a recipe says about itself, not about the computation: outside the digest and the resolved values.
_ABOUT = {"name", "description", "source", "seeds", "overrides", "extends"}


@lru_cache
def recipe_names() -> tuple[str, ...]:
    """The names of the shipped recipes, sorted."""
    return tuple(sorted(path.stem for path in (Path(__file__).parent / "recipes").glob("*.yaml")))


@lru_cache(maxsize=64)
def _recipe_layers(name: str) -> tuple[dict[str, Any], dict[str, str], tuple[Override, ...], dict[str, Any]]:
    """Flattened values, the recipe that each came from, overrides (base recipe's first), and what is said about it."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else Path(__file__).parent / "recipes" / f"{name}.yaml"
    if not path.exists():
        raise UnknownNameError("recipe", name, recipe_names())
    raw = load_yaml(path)
    if "extends" in raw:
        base_values, base_layers, overrides, base_about = _recipe_layers(raw["extends"])
        values, layers, about = dict(base_values), dict(base_layers), dict(base_about)
    else:
        values, layers, overrides, about = {}, {}, (), {}
    about.update({key: raw[key] for key in _ABOUT - {"overrides", "extends"} if key in raw} | {"name": path.stem})
    own = flatten({key: value for key, value in raw.items() if key not in _ABOUT})
    values.update(own)
    layers.update(dict.fromkeys(own, f"recipe {path.stem}"))
    overrides += tuple(validated(Override, item, f"{path}: overrides") for item in raw.get("overrides", []))
    return values, layers, overrides, about


def load_recipe(name: str) -> Recipe:
    """The recipe as written, before any method's defaults or overrides.

    Raises:
        UsageError: no such recipe, or a field that is unknown, missing or of the wrong type.
    """
    values, _, overrides, about = _recipe_layers(name)
    nested = unflatten(values) | about | {"overrides": [override.model_dump() for override in overrides]}
    return validated(Recipe, nested, f"recipe {name}")


# ------------------------------------------------------------------------------------------------------- the job


class Job(Frozen):
    """One training and its evaluation: recipe × method × loss × plugin × label budget × seed (+ options).

    Any part may be spelt as a user would: `cps[weighting=diffdw]`, a preset, an alias, `20%`. `canonical()` gives
    the one form that all spellings share.
    """

    recipe: str
    method: str
    loss: str = "default"
    plugin: str | None = None
    labeled: str
    seed: int = Field(default=1337, ge=0)
    set: dict[str, Any] = Field(default={}, description="dotted paths: recipe fields, method.*, loss.*, plugin.*")
    layers: dict[str, str] = Field(default={}, exclude=True, repr=False, description="which layer set each path")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        return hash(_stable_json(self.model_dump()))

    def canonical(self) -> Job:
        """The form that all spellings of this job share: options that make a preset take its name, values that the
        lower layers give anyway drop out, the budget is a slug."""
        return self.resolved.job

    @cached_property
    def resolved(self) -> ResolvedJob:
        """The full configuration, with the layer that each value came from.

        Raises:
            UsageError: a name, path or value that is not valid, or a combination without meaning.
        """
        return resolve(self)

    def digest(self) -> str:
        """64 hexadecimal digits over all that changes the result, the seed apart. Jobs that share it are averaged."""
        return self.resolved.digest

    @property
    def directory(self) -> Path:
        """The run directory, relative to `results/runs`."""
        job = self.canonical()
        parts = [f"{job.method}+{job.loss}"]
        if job.plugin:
            parts.append(f"+{job.plugin}")
        if job.set:
            variant = ",".join(f"{path}={_compact(value)}" for path, value in sorted(job.set.items()))
            parts.append("~" + re.sub(r"[^\w.=,+\-\[\]]", "_", variant)[:120])
        return Path(Path(job.recipe).stem, job.labeled, "".join(parts), f"seed-{job.seed}-{self.digest()[:8]}")

    @property
    def title(self) -> str:
        """The job in one short line."""
        recipe, labeled, cell, seed = self.directory.parts
        return f"{recipe} {labeled} {cell} {seed.rsplit('-', 1)[0]}"


class ResolvedJob(Frozen):
    """A job with every value decided.

    Attributes:
        job: its canonical form.
        recipe: the recipe with all layers applied.
        method, loss, plugin: the component's name (never a preset's) with its options complete.
        values: every dotted path and its value.
        layers: for each path of `values`, the layer that it came from.
    """

    job: Job
    recipe: Recipe
    method: dict[str, Any]
    loss: dict[str, Any]
    plugin: dict[str, Any] | None
    values: dict[str, Any]
    layers: dict[str, str]
    digest: str


def resolve(job: Job) -> ResolvedJob:
    """Apply all layers to a job and check every value; see `Job.resolved`."""
    names: dict[str, str | None] = {}
    base: dict[str, str | None] = {}
    options: dict[str, dict[str, Any]] = {}  # what was asked of each component, a preset's options included
    for part in COMPONENTS:
        names[part], base[part], options[part] = _component(part, getattr(job, part), job.set)
    given = {path: value for path, value in job.set.items() if path.split(".")[0] not in COMPONENTS}
    for part in COMPONENTS:
        preset = registry.get(part, names[part]).set if names[part] else {}  # type: ignore[arg-type]
        given |= {f"{part}.{key}": value for key, value in options[part].items() if key not in preset}

    recipe_values, recipe_layers, overrides, about = _recipe_layers(job.recipe)
    from sslbench.data.splits import load_splits

    lists = load_splits(str(recipe_values.get("dataset")), str(recipe_values.get("splits")))
    labeled = lists.budget(job.labeled).slug
    facts = {"recipe": about["name"], "labeled": labeled} | names

    def layered(extra: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        values, layers = dict(recipe_values), dict(recipe_layers)

        def put(new: Mapping[str, Any], layer: str) -> None:
            for path, value in new.items():
                for stale in [known for known in values if known.startswith(path + ".")]:
                    del values[stale], layers[stale]
                for leaf, content in flatten({path: value}).items():
                    values[leaf], layers[leaf] = content, layer

        method = registry.component("method", str(base["method"]))
        put(method.defaults, f"method {base['method']}")
        for part in COMPONENTS:
            if names[part] != base[part]:
                chosen = registry.get(part, str(names[part])).set
                put({f"{part}.{key}": value for key, value in chosen.items()}, f"preset {names[part]}")
        for number, override in enumerate(overrides, 1):
            if _matches(override.when, facts, base, lists):
                put(override.set, f"recipe {about['name']}, override {number}")
        for path, value in extra.items():
            put({path: value}, job.layers.get(path, "job"))
        return values, layers

    values, layers = _complete(*layered(given), base, about["name"])
    # A value that the lower layers give anyway is no difference: it must not make another run.
    lower, _ = _complete(*layered({}), base, about["name"])
    differs = {
        path: value
        for path, value in given.items()
        if any(values.get(leaf) != lower.get(leaf) for leaf in flatten({path: value}))
    }

    recipe = validated(
        Recipe,
        unflatten({path: value for path, value in values.items() if path.split(".")[0] not in COMPONENTS})
        | about
        | {"overrides": [override.model_dump() for override in overrides]},
        f"recipe {about['name']}",
    )
    canonical = Job(
        recipe=job.recipe if job.recipe.endswith((".yaml", ".yml")) else about["name"],
        method=str(names["method"]),
        loss=str(names["loss"]),
        plugin=names["plugin"],
        labeled=labeled,
        seed=job.seed,
        set=dict(sorted(differs.items())),
    )
    chosen = {
        part: {"name": base[part]} | unflatten(_under(values, part)) if base[part] else None for part in COMPONENTS
    }
    resolved = ResolvedJob(
        job=canonical,
        recipe=recipe,
        method=chosen["method"] or {},
        loss=chosen["loss"] or {},
        plugin=chosen["plugin"],
        values=values,
        layers=layers,
        digest=_digest(values, base, lists.fingerprint(labeled), recipe),
    )
    kind = registry.component("method", str(base["method"]))
    objection = kind.objection(resolved)
    if "unlabeled" in kind.views and len(lists.budget(labeled).labeled) == len(lists.train):
        objection = f"the method needs unlabelled images, and at {lists.budget(labeled).title} there are none"
    if objection:
        raise UsageError(f"{canonical.method} + {canonical.loss} on {canonical.recipe}: {objection}")
    return resolved


def _component(part: str, spelt: str | None, given: Mapping[str, Any]) -> tuple[str | None, str | None, dict[str, Any]]:
    """(canonical name, name of what it configures, all options asked for) of one part of a job."""
    if spelt is None:
        stray = [path for path in given if path.startswith(part + ".")]
        if stray:
            raise UsageError(f"'{stray[0]}' is set, but the job has no {part}")
        return None, None, {}
    name, bracketed = parse_component(spelt)
    entry = registry.get(part, name)
    base = entry.preset_of or entry.name
    prefix = part + "."
    direct = {path.removeprefix(prefix): value for path, value in given.items() if path.startswith(prefix)}
    options = {**entry.set, **bracketed, **direct}
    fitting = [
        preset
        for preset in registry.presets(part, base)
        if all(options.get(key, _MISSING) == value for key, value in preset.set.items())
    ]
    return (fitting[0].name if fitting else base), base, options


_MISSING = object()


def _complete(
    values: dict[str, Any], layers: dict[str, str], base: Mapping[str, str | None], recipe: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Validate and fill in every default, so that a default spelt out and one left out are the same."""
    unknown = [path for path in values if path.split(".")[0] not in (*Recipe.model_fields, *COMPONENTS)]
    if unknown:
        known = {*Recipe.model_fields, *COMPONENTS} - _ABOUT
        raise UnknownNameError("field", unknown[0], known | {path for path in values if path not in unknown})
    full: dict[str, Any] = {}
    plain = {path: value for path, value in values.items() if path.split(".")[0] not in COMPONENTS}
    checked = validated(Recipe, unflatten(plain) | {"name": recipe}, f"recipe {recipe}", values)
    network = registry.component("network", checked.network.name)
    dumped = checked.model_dump(exclude=_ABOUT | {"network"})
    dumped["network"] = {"name": registry.get("network", checked.network.name).name} | validated(
        network.Options, checked.network.options, f"network {checked.network.name}"
    ).model_dump()
    full.update(flatten(dumped))
    for part in COMPONENTS:
        if base[part]:
            options = unflatten(_under(values, part))
            model = registry.component(part, str(base[part])).Options
            full.update(
                {
                    f"{part}.{key}": value
                    for key, value in flatten(validated(model, options, f"{part} {base[part]}").model_dump()).items()
                }
            )
        elif _under(values, part):
            raise UsageError(f"the recipe sets options of a {part}, but the job has none")
    return full, {path: layers.get(path, "default") for path in full}


def _matches(when: Mapping[str, Any], facts: Mapping[str, Any], base: Mapping[str, str | None], lists: Any) -> bool:
    for key, wanted in when.items():
        if key not in facts:
            raise UnknownNameError("part of a job", key, facts)
        accepted = [str(value) for value in (wanted if isinstance(wanted, list) else [wanted])]
        if key == "labeled":
            accepted = [lists.budget(value).slug for value in accepted]
        if str(facts[key]) not in accepted and str(base.get(key)) not in accepted:
            return False
    return True


def _digest(values: Mapping[str, Any], base: Mapping[str, str | None], lists: str, recipe: Recipe) -> str:
    dataset = registry.component("dataset", recipe.dataset)
    versions = {
        "engine": ENGINE_VERSION,
        "dataset": dataset.version,
        "preprocessing": dataset.preprocessing_hash(recipe.preprocessing),
    }
    for kind, name in {"network": recipe.network.name, "protocol": recipe.protocol, **base}.items():
        if name:
            versions[kind] = [name, registry.component(kind, name).version]
    return hashlib.sha256(_stable_json({"values": values, "versions": versions, "splits": lists}).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------------ the grid


def _axes_as_lists(data: Any) -> Any:
    """An axis of a grid may be written as one value."""
    if not isinstance(data, dict):
        return data
    axes = ("recipe", "method", "loss", "plugin", "labeled", "seeds")
    data = {key: [value] if key in axes and not isinstance(value, list) else value for key, value in data.items()}
    if "labeled" in data:
        data["labeled"] = [str(value) for value in data["labeled"]]
    return data


class GridEntry(Frozen):
    """A product of the axes it names; an axis left out takes the grid's."""

    recipe: list[str] = []
    method: list[str] = []
    loss: list[str] = []
    plugin: list[str | None] = []
    labeled: list[str] = []
    seeds: list[int] = []
    set: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _as_lists(cls, data: Any) -> Any:
        return _axes_as_lists(data)


class TableSpec(Frozen):
    """What a grid's table shows.

    `columns`: metrics of the protocol, averaged over classes (`dsc`) or one column per class (`dsc/class`).
    `groups`: headings in the papers' order; `GA`-like names are losses, the others the methods' own groups.
    """

    columns: list[str] = ["dsc", "asd", "dsc/class"]
    groups: list[str] = ["Reference", "General", "Imbalance"]
    caption: str = ""
    note: str = ""


class Grid(Frozen):
    """Jobs as a union of products, and the table that they fill."""

    name: str
    description: str = ""
    recipe: list[str] = []
    labeled: list[str] = []
    seeds: list[int] = []
    set: dict[str, Any] = {}
    jobs: list[GridEntry]
    exclude: list[GridEntry] = []
    table: TableSpec = TableSpec()

    @model_validator(mode="before")
    @classmethod
    def _as_lists(cls, data: Any) -> Any:
        return _axes_as_lists(data)

    def expand(self, overrides: Mapping[str, Any] | None = None) -> list[Job]:
        """The jobs, checked, each once however often it is spelt, in the order of the file; seeds vary fastest.

        Args:
            overrides: `--set` values, the last layer.

        Raises:
            UsageError: nothing to run, or a job that does not resolve.
        """
        found: dict[Path, Job] = {}
        for entry in self.jobs:
            for job in self._product(entry, overrides or {}):
                if not any(_excluded(job, exclude) for exclude in self.exclude):
                    job.resolved  # noqa: B018  every job is checked before any starts
                    found.setdefault(job.directory, job)
        if not found:
            raise UsageError(f"grid {self.name} names no job")
        return list(found.values())

    def _product(self, entry: GridEntry, overrides: Mapping[str, Any]) -> Iterator[Job]:
        recipes = entry.recipe or self.recipe
        budgets = entry.labeled or self.labeled
        for axis, value in (("recipe", recipes), ("method", entry.method), ("labeled", budgets)):
            if not value:
                raise UsageError(f"grid {self.name}: an entry of `jobs` names no {axis}, and the grid has none")
        chosen = {**self.set, **entry.set, **overrides}
        layers = dict.fromkeys({**self.set, **entry.set}, f"grid {self.name}") | dict.fromkeys(
            overrides, "command line"
        )
        for recipe, budget, method, loss, plugin in itertools.product(
            recipes, budgets, entry.method, entry.loss or ["default"], entry.plugin or [None]
        ):
            for seed in entry.seeds or self.seeds or load_recipe(recipe).seeds:
                yield Job(
                    recipe=recipe,
                    method=method,
                    loss=loss,
                    plugin=plugin,
                    labeled=budget,
                    seed=seed,
                    set=chosen,
                    layers=layers,
                )


def _excluded(job: Job, exclude: GridEntry) -> bool:
    parts = job.canonical()
    asked: list[tuple[Sequence[Any], Any]] = [
        (exclude.recipe, parts.recipe),
        (exclude.method, parts.method),
        (exclude.loss, parts.loss),
        (exclude.plugin, parts.plugin),
        (exclude.labeled, parts.labeled),
        (exclude.seeds, parts.seed),
    ]
    return all(not axis or value in axis for axis, value in asked)


def load_grid(name: str) -> Grid:
    """A grid by name (looked up in `benchmarks/`, then among the shipped ones) or by file.

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
    """The grids that can be named, with their files."""
    found: dict[str, Path] = {}
    for folder in settings.grid_dirs():
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


# ------------------------------------------------------------------------------------------------- small pieces


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, read by the safe loader.

    Raises:
        UsageError: the file cannot be read as YAML, repeats a key, or holds no mapping.
    """
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UsageError(f"{where} is not valid YAML: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path} holds no mapping of fields")
    return value


class _Loader(yaml.SafeLoader):
    """The safe loader, with two of YAML's traps closed."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 1e-5 as a string: every number of this field would need a decimal point.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_value(text: str) -> Any:
    """The value of an option as typed on a command line: `0.75`, `true`, `[1, 2]`, `name`."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UsageError(f"cannot read the value {text!r}") from error


def parse_set(items: Iterable[str]) -> dict[str, Any]:
    """`a.b=c` strings as dotted paths and values."""
    found = {}
    for item in items:
        path, equals, value = item.partition("=")
        if not equals or not path.strip():
            raise UsageError(f"--set takes PATH=VALUE, not '{item}'", "for example --set optimizer.lr=0.005")
        found[path.strip()] = parse_value(value)
    return found


def parse_component(text: str) -> tuple[str, dict[str, Any]]:
    """`ga[gamma=0.75,k=5]` as its name and options.

    Raises:
        UsageError: brackets that do not close, or an item that is no `key=value`.
    """
    match = re.fullmatch(r"\s*([\w.&+-]+)\s*(?:\[(.*)\])?\s*", text, flags=re.DOTALL)
    if not match:
        raise UsageError(f"cannot read '{text}'", "write a name, or name[option=value,option=value]")
    return match[1], parse_set(split_outside_brackets(match[2] or ""))


def split_outside_brackets(text: str) -> list[str]:
    """Split at commas that stand outside brackets: `cps,ga[k=5,gamma=1]` are two items."""
    parts, depth, start = [], 0, 0
    for position, sign in enumerate(text):
        depth += (sign in "[{(") - (sign in "]})")
        if sign == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted paths; lists and empty mappings are leaves."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, path + "."))
        else:
            flat[path] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted paths as nested mappings.

    Raises:
        UsageError: a path that goes through a plain value.
    """
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *outer, last = path.split(".")
        node = tree
        for key in outer:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise UsageError(f"'{path}' is set, but '{key}' is a value, not a group of fields")
        node[last] = value
    return tree


def _under(values: Mapping[str, Any], part: str) -> dict[str, Any]:
    prefix = part + "."
    return {path.removeprefix(prefix): value for path, value in values.items() if path.startswith(prefix)}


def _compact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _stable_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def validated(model: type[Any], data: Any, where: str, known: Iterable[str] = ()) -> Any:
    """`model(**data)`, its first fault told in one line, with near names for an unknown key."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        # A misspelt field is also a missing one: say what was written, not what was meant.
        fault = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        path = ".".join(str(part) for part in fault["loc"] if not str(part).startswith("function-"))
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        if fault["type"] == "extra_forbidden":
            raise UnknownNameError(f"field in {where}:", path, [*_paths(model), *known]) from None
        if fault["type"] == "missing":
            raise UsageError(f"{where}: the field '{path}' is missing{more}") from None
        message = fault["msg"].removeprefix("Value error, ")
        given = "" if isinstance(fault["input"], Mapping) else f", not {fault['input']!r}"
        raise UsageError(f"{where}: {path}: {message[:1].lower()}{message[1:]}{given}{more}") from None


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted path of a model, for suggestions."""
    for name, info in model.model_fields.items():
        yield prefix + name
        for part in (info.annotation, *get_args(info.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _paths(part, f"{prefix}{name}.")
