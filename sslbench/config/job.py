"""What a benchmark is made of, as values: `Recipe`, `Job`, `Grid`, and how a job resolves to one configuration.

Layers, later wins: the recipe (with those it extends), the method's `defaults`, the recipe's `overrides`, the grid
entry, the command line. A job is stored in canonical form, so that two spellings of it are one run; its digest
covers what changes the result, the seed apart, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from sslbench.config import weightings
from sslbench.config.layers import COMPONENTS, Layers, read_recipe, recipe_of, under
from sslbench.config.recipe import ABOUT, Cutout, Jitter, Override, Recipe, Seed
from sslbench.config.splits import Splits, load_splits
from sslbench.config.text import compact, dumped, flatten, parse_component, unflatten
from sslbench.core import registry
from sslbench.core.errors import UnknownNameError, UsageError
from sslbench.core.options import Frozen

# Bump when the meaning of a resolved job changes for all jobs at once (sampling, schedules, the trainer).
ENGINE_VERSION = 1

COMMAND_LINE = "command line"  # the last layer, and the name of a grid that was put together there


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
    seed: Seed = 1337
    set: dict[str, Any] = Field(default={}, description="dotted paths: recipe fields, method.*, loss.*, plugin.*")
    layers: dict[str, str] = Field(
        default={}, exclude=True, repr=False, description="which layer set each path; `*`: all others"
    )

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
        parts = [f"{job.method}+{job.loss}".replace(":", ".")]  # a colon is no character of a Windows path
        if job.plugin:
            parts.append(f"+{job.plugin}".replace(":", "."))
        if job.set:
            variant = ",".join(f"{path}={compact(value)}" for path, value in sorted(job.set.items()))
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
        weightings: the same by the key of each learner that has one.
        values: every dotted path and its value.
        layers: for each path of `values`, the layer that it came from.
        digest: see `Job.digest`.
    """

    job: Job
    recipe: Recipe
    method: dict[str, Any]
    loss: dict[str, Any]
    plugin: dict[str, Any] | None
    weightings: dict[str, dict[str, Any]] = {}
    values: dict[str, Any]
    layers: dict[str, str]
    digest: str

    @property
    def homes(self) -> dict[str, dict[str, str]]:
        """Where another process finds the names that only a stranger's module knows: by kind and name."""
        used = [(part, chosen["name"]) for part in COMPONENTS if (chosen := getattr(self, part))]
        used += [(part, name) for part in COMPONENTS if (name := getattr(self.job, part))]  # presets
        used += [("weighting", spec["name"]) for spec in self.weightings.values()]
        recipe = self.recipe
        used += [("network", recipe.network.name), ("dataset", recipe.dataset), ("protocol", recipe.protocol)]
        return _homes(used)


def _homes(used: Iterable[tuple[str, str]]) -> dict[str, dict[str, str]]:
    """Where names of some kinds are found that only a stranger's module knows."""
    found: dict[str, dict[str, str]] = {}
    for kind, name in used:
        if home := registry.home(kind, name):
            found.setdefault(kind, {})[name] = home
    return found


def resolve(job: Job) -> ResolvedJob:
    """Apply all layers to a job and check every value; see `Job.resolved`."""
    parts = read_parts(job)
    below, overrides, about = read_recipe(job.recipe)
    given, origins = _given(job, parts)

    def layered(extra: Mapping[str, Any]) -> Layers:
        layers = below.copy()
        method = parts["method"].base
        layers.put(registry.component("method", str(method)).defaults, f"method {method}")
        for part, spelt in parts.items():
            if spelt.name != spelt.base:
                chosen = registry.get(part, str(spelt.name)).set
                layers.put({f"{part}.{key}": value for key, value in chosen.items()}, f"preset {spelt.name}")
        for layer, override in overrides:
            if _matches(override.when, about["name"], parts, labeled, written_for):
                layers.put(override.set, layer)
        for path, value in extra.items():
            layers.put({path: value}, origins[path])
        return layers

    lists = splits_of(below, parts, given)
    labeled = lists.budget(job.labeled).slug
    # A recipe's overrides speak of the budgets of its own lists, whichever the job takes.
    written_for = splits_of(below, parts, {}) if {"dataset", "splits"} <= below.values.keys() else lists
    values, layers = _complete(layered(given), parts, about, overrides)
    # A value that the lower layers give anyway is no difference: it must not make another run.
    lower, _ = _complete(layered({}), parts, about, overrides)
    differs = {path: values[path] for path in given if values.get(path, _MISSING) != lower.get(path, _MISSING)}
    weighted, otherwise = (_weightings(found) for found in (values, lower))
    differs = {path: value for path, value in differs.items() if not f"{path}.".startswith(f"{_WEIGHTING}.")}
    if weighted != otherwise:
        keys = weightings.learners_of(str(parts["method"].base), under(values, "method"))
        spelt = weightings.difference(weighted, otherwise, keys)
        differs |= {f"method.{path}": text for path, text in spelt.items()}

    recipe = recipe_of(values, about, overrides)
    if (recipe.dataset, recipe.splits) != (lists.dataset, lists.name):
        raise UsageError(f"recipe {about['name']}: an override must not change dataset or splits")
    canonical = Job(
        recipe=job.recipe if job.recipe.endswith((".yaml", ".yml")) else about["name"],
        method=str(parts["method"].name),
        loss=str(parts["loss"].name),
        plugin=parts["plugin"].name,
        labeled=labeled,
        seed=job.seed,
        set=dict(sorted(differs.items())),
    )
    chosen = {
        part: {"name": spelt.base} | unflatten(weightings.split(under(values, part))[0]) if spelt.base else None
        for part, spelt in parts.items()
    }
    resolved = ResolvedJob(
        job=canonical,
        recipe=recipe,
        method=chosen["method"] or {},
        loss=chosen["loss"] or {},
        plugin=chosen["plugin"],
        weightings=weighted,
        values=values,
        layers=layers,
        digest=_digest(values, parts, lists.fingerprint(labeled), recipe),
    )
    objection = _objection(resolved, lists)
    if objection:
        raise UsageError(f"{canonical.method} + {canonical.loss} on {canonical.recipe}: {objection}")
    return resolved


class _Spelt(Frozen):
    """One component of a job, as it was written.

    Attributes:
        name: canonical: the preset that its options make, else what they configure.
        base: what the preset configures, or the name.
        options: those beyond the preset's.
        bracketed: names of those that stood in brackets.
    """

    name: str | None = None
    base: str | None = None
    options: dict[str, Any] = {}
    bracketed: tuple[str, ...] = ()


_MISSING = object()


def read_parts(job: Job) -> dict[str, _Spelt]:
    """The components of a job, their aliases, brackets and presets understood."""
    for path in job.set:
        top = path.split(".")[0]
        if path in COMPONENTS and not isinstance(job.set[path], Mapping):
            raise UsageError(f"'{path}' is a part of the job, not a field to set", f"name the {path} instead")
        if top in ABOUT:
            raise UsageError(f"'{path}' is what the recipe says about itself: it cannot be set")
    given = flatten(job.set)
    return {part: read_component(part, getattr(job, part), given) for part in COMPONENTS}


def read_component(part: str, spelt: str | None, given: Mapping[str, Any]) -> _Spelt:
    direct = under(given, part)
    if spelt is None:
        if direct:
            raise UsageError(f"'{part}.{next(iter(direct))}' is set, but the job has no {part}")
        return _Spelt()
    name, bracketed = parse_component(spelt)
    entry = registry.get(part, name)
    base = entry.preset_of or entry.name
    layers = Layers()
    for layer in (entry.set, bracketed, direct):
        layers.put({f"{part}.{key}": value for key, value in layer.items()}, "")
    options = under(layers.values, part)
    made = next((preset for preset in registry.presets(part, base) if _makes(preset, options)), None)
    return _Spelt(
        name=made.name if made else base,
        base=base,
        options=options if made is None else _beyond(made, options),
        bracketed=tuple(flatten(bracketed)),
    )


def _makes(preset: registry.Entry, options: Mapping[str, Any]) -> bool:
    """Whether flat options, with more or without, are those of a preset."""
    kind = registry.component(preset.kind, preset.name)
    own, about = weightings.split(options) if preset.kind == "method" else (options, {})
    asked, asked_about = weightings.split(preset.set)
    typed = _typed(kind.Options, own)
    if any(typed.get(key, _MISSING) != value for key, value in asked.items()):
        return False
    if not asked_about:
        return True
    keys = weightings.learners_of(preset.name, typed)
    found = weightings.completed(about, keys)
    return all(found.get(key) == spec for key, spec in weightings.completed(asked_about, keys).items())


def _beyond(preset: registry.Entry, options: Mapping[str, Any]) -> dict[str, Any]:
    """The flat options that a preset which they make does not say."""
    own, about = weightings.split(options)
    said = {**own, **({} if weightings.split(preset.set)[1] else about)}
    return {key: value for key, value in said.items() if key not in preset.set}


def _typed(model: type[BaseModel], options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Options as their types read them, `1` and `1.0` alike; what is not valid stays, for the one who checks it all."""
    try:
        typed = flatten(model.model_validate(unflatten(options)).model_dump(mode="json"))
    except ValidationError:
        return options
    return {key: typed.get(key, value) for key, value in options.items()}


def _given(job: Job, parts: Mapping[str, _Spelt]) -> tuple[dict[str, Any], dict[str, str]]:
    """What the job itself sets, by path, and the layer that set it."""
    otherwise = job.layers.get("*", "job")
    given, origins = {}, {}
    for path, value in job.set.items():
        for leaf, content in flatten({path: value}).items():
            if leaf.split(".")[0] not in COMPONENTS:
                given[leaf] = content
            origins[leaf] = job.layers.get(path, otherwise)
    for part, spelt in parts.items():
        for key, value in spelt.options.items():
            given[f"{part}.{key}"] = value
            origins.setdefault(f"{part}.{key}", otherwise)
    return given, origins


def splits_of(below: Layers, parts: Mapping[str, _Spelt], given: Mapping[str, Any]) -> Splits:
    """The case lists of a job: overrides may depend on its budget, so they cannot change them."""
    layers = below.copy()
    layers.put(registry.component("method", str(parts["method"].base)).defaults, "")
    layers.put({path: value for path, value in given.items() if path in ("dataset", "splits")}, "")
    missing = [name for name in ("dataset", "splits") if not isinstance(layers.values.get(name), str)]
    if missing:
        raise UsageError(f"the recipe names no {missing[0]}")
    dataset = registry.get("dataset", layers.values["dataset"]).name
    return load_splits(dataset, layers.values["splits"])


def _complete(
    layers: Layers, parts: Mapping[str, _Spelt], about: Mapping[str, Any], overrides: tuple[tuple[str, Override], ...]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Validate and fill in every default, so that a default spelt out and one left out are the same."""
    known = {*Recipe.model_fields, *COMPONENTS} - ABOUT
    unknown = [path for path in layers.values if path.split(".")[0] not in known]
    if unknown:
        raise UnknownNameError("field", unknown[0], known | {path for path in layers.values if path not in unknown})
    recipe = recipe_of(layers.values, about, overrides)
    network = registry.component("network", recipe.network.name)
    options = dumped(network.Options, recipe.network.options, f"network {recipe.network.name}")
    try:
        options = network.fit(options, recipe.patch_size)
    except ValueError as error:
        raise UsageError(f"recipe {about['name']}: {recipe.network.name} {error}") from None
    if network.several:
        raise UsageError(
            f"recipe {about['name']}: {recipe.network.name} gives several outputs: methods put decoders and "
            "heads of their own on a network with one"
        )
    _in_range(recipe)
    tree: dict[str, Any] = dumped(Recipe, recipe.model_dump(), "")
    tree = {key: value for key, value in tree.items() if key not in ABOUT}
    tree["network"] = {"name": registry.get("network", recipe.network.name).name} | options
    tree["protocol"] = registry.get("protocol", recipe.protocol).name  # ga[released] and ga-released are one
    tree["dataset"] = registry.get("dataset", recipe.dataset).name
    origins = dict(layers.origins)
    for part, spelt in parts.items():
        asked = under(layers.values, part)
        if spelt.base:
            kind = registry.component(part, spelt.base)
            if part == "method":
                asked, about = weightings.split(asked)
            tree[part] = dumped(kind.Options, unflatten(asked), f"{part} {spelt.base}")
            if part == "method" and about:
                keys = weightings.learners_of(spelt.base, tree[part])
                if weighted := weightings.completed(about, keys):
                    tree[part] |= {weightings.OPTION: weighted}
                sources = weightings.read(about, keys)[1]
                origins |= {f"{_WEIGHTING}.{path}": origins[f"method.{source}"] for path, source in sources.items()}
        elif asked:
            raise UsageError(f"the recipe sets options of a {part}, but the job has none")
    full = flatten({key: value for key, value in tree.items() if value != {}})
    return full, {path: origins.get(path, "default") for path in full}


_WEIGHTING = f"method.{weightings.OPTION}"


def _weightings(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The weightings among resolved values, by learner."""
    found: dict[str, dict[str, Any]] = {}
    for path, value in under(values, _WEIGHTING).items():
        key, _, option = path.partition(".")
        found.setdefault(key, {})[option] = value
    return found


def _in_range(recipe: Recipe) -> None:
    """Refuse a distortion that would cut off what a z-score has below 0 and above 1."""
    made = registry.component("dataset", recipe.dataset).preprocessings.get(recipe.preprocessing)
    distortions = (*recipe.augment.distortions, *recipe.augment.strong)
    bound = [item.name for item in distortions if isinstance(item, Jitter | Cutout)]
    if made is not None and made.scale == "zscore" and bound:
        raise UsageError(
            f"recipe {recipe.name}: {bound[0]} is for images in [0, 1], and '{recipe.preprocessing}' makes z-scores",
            "noise, blur, contrast and gamma serve there",
        )


def _matches(when: Mapping[str, Any], recipe: str, parts: Mapping[str, _Spelt], labeled: str, lists: Splits) -> bool:
    """Whether an override is meant for a job; a preset is also what it configures, a weighting is any learner's."""
    for key, wanted in when.items():
        asked = wanted if isinstance(wanted, list) else [wanted]
        if key in parts:
            names = {None if name is None else registry.get(key, str(name)).name for name in asked}
            fits = bool({parts[key].name, parts[key].base} & names)
        elif key == "weighting":
            fits = bool(_weighted_by(parts["method"]) & {registry.get(key, str(name)).name for name in asked})
        elif key == "labeled":
            fits = labeled in {lists.budget(str(name)).slug for name in asked}
        elif key == "recipe":
            fits = recipe in asked
        else:
            raise UnknownNameError("part of a job", key, ("recipe", "labeled", "weighting", *parts))
        if not fits:
            return False
    return True


def _weighted_by(method: _Spelt) -> set[str]:
    """The weightings that a job asks for, of whichever learner."""
    own, asked = weightings.split({**registry.get("method", str(method.name)).set, **method.options})
    found, _ = weightings.read(asked, weightings.learners_of(str(method.base), own))
    return {str(spec["name"]) for spec in found.values() if spec is not None}


def _objection(resolved: ResolvedJob, lists: Splits) -> str | None:
    kind = registry.component("method", resolved.method["name"])
    budget = lists.budget(resolved.job.labeled)
    if "unlabeled" in kind.views and len(budget.labeled) == len(lists.train):
        return f"the method needs unlabelled images, and at {budget.title} there are none"
    protocol = registry.component("protocol", resolved.recipe.protocol)
    if why := protocol.objection():
        return f"protocol {protocol.name} {why}"
    loss = registry.component("loss", resolved.loss["name"])
    weighting = (registry.component("weighting", spec["name"]) for spec in resolved.weightings.values())
    found = (part.objection(resolved) for part in (kind, loss, *weighting))
    return next((why for why in found if why), None)


def _digest(values: Mapping[str, Any], parts: Mapping[str, _Spelt], lists: str, recipe: Recipe) -> str:
    dataset = registry.component("dataset", recipe.dataset)
    versions: dict[str, Any] = {
        "engine": ENGINE_VERSION,
        "dataset": dataset.version,
        "preprocessing": dataset.preprocessing_hash(recipe.preprocessing),
    }
    used = {part: spelt.base for part, spelt in parts.items()}
    for kind, name in {"network": recipe.network.name, "protocol": recipe.protocol, **used}.items():
        if name:
            versions[kind] = [registry.get(kind, name).name, _version(registry.component(kind, name))]
    if weighted := {spec["name"] for spec in _weightings(values).values()}:
        versions["weighting"] = {name: _version(registry.component("weighting", name)) for name in weighted}
    names = [(kind, found[0]) for kind, found in versions.items() if kind in registry.KINDS and isinstance(found, list)]
    # Two modules may give one name to two things.
    if homes := _homes([*names, ("dataset", recipe.dataset), *(("weighting", name) for name in weighted)]):
        versions["modules"] = homes
    return hashlib.sha256(_stable_json({"values": values, "versions": versions, "splits": lists}).encode()).hexdigest()


def _version(component: Any) -> list[int]:
    """The version of a component and of the classes that it is built on: a fix below invalidates what stands on it."""
    if not isinstance(component, type):
        return [component.version]
    return [vars(kind)["version"] for kind in component.__mro__ if "version" in vars(kind)]


def _stable_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
