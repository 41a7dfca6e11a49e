"""Jobs, and how one resolves to a configuration.

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
from typing import Any, Self

from pydantic import Field

from sslbench.config import scaling, weightings
from sslbench.config.draws import undrawn
from sslbench.config.layers import COMPONENTS, JOB_PARTS, Layers, read_recipe, recipe_of, under
from sslbench.config.parts import Part, read_parts
from sslbench.config.recipe import ABOUT, RECORDED, Cutout, Jitter, Recipe, Seed
from sslbench.config.splits import Splits, load_splits
from sslbench.config.text import compact, dumped, flatten, unflatten
from sslbench.core import registry
from sslbench.core.errors import UnknownNameError, UsageError
from sslbench.core.options import Frozen

# Bump when the meaning of a resolved job changes for all jobs at once (sampling, schedules, the trainer).
# 2: the weighting is a part of the job beside method, loss and plugin.
# 3: losses on labels in one pass, sums per class in double precision, a head as one product: last digits differ.
ENGINE_VERSION = 3

COMMAND_LINE = "command line"  # the last layer, and the name of a grid that was put together there


class Job(Frozen):
    """One training and its evaluation: recipe × method × weighting × loss × plugin × label budget × seed (+ options).

    Any part may be spelt as a user would: `cps[weighting=diffdw]`, a preset, an alias, `20%`. `canonical()` gives
    the one form that all spellings share.
    """

    recipe: str
    method: str
    weighting: str | dict[str, Any] | None = Field(
        default=None,
        description="one for all learners, or one each by key; `none`: none; null: that of the method's preset",
    )
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
        """Return the form that all spellings of this job share: options that make a preset take its name, values that
        the lower layers give anyway drop out, the budget is a slug."""
        return self.resolved.job

    @cached_property
    def resolved(self) -> ResolvedJob:
        """The full configuration, with the layer that each value came from.

        Raises:
            UsageError: a name, path or value that is not valid, or a combination without meaning.
        """
        return resolve(self)

    def reseeded(self, seed: int) -> Job:
        """Return the same job of another seed. What it resolves to is the same, and not worked out again."""
        return self.model_copy(update={"seed": seed}).resolved_as(self)

    def resolved_as(self, other: Job) -> Self:
        """Return this job, which resolves to what another one does, the seed apart, without working it out."""
        resolved = other.resolved
        _ = resolved.cell  # worked out once, for all copies
        job = resolved.job.model_copy(update={"seed": self.seed})
        self.__dict__["resolved"] = resolved.model_copy(update={"job": job})  # where the cached property looks
        return self

    def digest(self) -> str:
        """Hash all that changes the result but the seed: 64 hexadecimal digits. Jobs that share it are averaged."""
        return self.resolved.digest

    @property
    def directory(self) -> Path:
        """The run directory, relative to `results/runs`."""
        return self.resolved.cell / f"seed-{self.seed}-{self.digest()[:8]}"

    @property
    def title(self) -> str:
        """The job in one short line."""
        recipe, labeled, cell, seed = self.directory.parts
        return f"{recipe} {labeled} {cell} {seed.rsplit('-', 1)[0]}"


def settings_of(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a canonical job, as `config.yaml` has it, differs from its named parts: by dotted path, sorted. These
    make the variant in its directory's name, where a weighting is spelt as an option of the method; what is only
    recorded beside the results is no difference."""
    given = {path: value for path, value in (job.get("set") or {}).items() if path not in RECORDED}
    return dict(sorted({**given, **weightings.settings(job.get("weighting"))}.items()))


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

    @cached_property
    def cell(self) -> Path:
        """The folder of the run directories that differ in nothing but their seed, relative to `results/runs`."""
        job = self.job
        parts = [f"{job.method}+{job.loss}".replace(":", ".")]  # a colon is no character of a Windows path
        if job.plugin:
            parts.append(f"+{job.plugin}".replace(":", "."))
        if settings := settings_of(job.model_dump()):
            variant = ",".join(f"{path}={compact(value)}" for path, value in settings.items())
            parts.append("~" + re.sub(r"[^\w.=,+\-\[\]]", "_", variant)[:120])
        return Path(Path(job.recipe).stem, job.labeled, "".join(parts))

    @property
    def homes(self) -> dict[str, dict[str, str]]:
        """References, by kind and name, by which another process finds what only a stranger's module knows."""
        used = [(part, chosen["name"]) for part in COMPONENTS if (chosen := getattr(self, part))]
        used += [(part, name) for part in COMPONENTS if (name := getattr(self.job, part))]  # presets
        used += [(weightings.PART, spec["name"]) for spec in self.weightings.values()]
        recipe = self.recipe
        used += [("network", recipe.network.name), ("dataset", recipe.dataset), ("protocol", recipe.protocol)]
        return _homes(used)


def _homes(used: Iterable[tuple[str, str]]) -> dict[str, dict[str, str]]:
    """Find where names of some kinds are defined that only a stranger's module knows."""
    found: dict[str, dict[str, str]] = {}
    for kind, name in used:
        if home := registry.home(kind, name):
            found.setdefault(kind, {})[name] = home
    return found


def resolve(job: Job) -> ResolvedJob:
    """Apply all layers to a job and check every value; see `Job.resolved`."""
    parts = read_parts(job)
    method = parts["method"]
    below, overrides, about = read_recipe(job.recipe)
    given, origins = _job_settings(job, parts)

    def layered(extra: Mapping[str, Any]) -> Layers:
        layers = below.copy()
        layers.put(method.component.defaults, f"method {method.base}")
        for part in parts.values():
            layers.put(part.preset, f"preset {part.name}")
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
    values, layers = _complete(layered(given), parts, about)
    # A value that the lower layers give anyway is no difference: it must not make another run.
    lower, beneath = _complete(layered({}), parts, about) if given else (values, layers)
    differs = {path: values[path] for path in given if path in values and values[path] != lower.get(path, _MISSING)}
    weighted, otherwise = weightings.by_learner(values), weightings.by_learner(lower)
    weighting = None
    if weighted != otherwise:
        learners = weightings.learners_of(method.component, under(values, "method"))
        weighting = weightings.difference(weighted, otherwise, learners)
    # Nor does it come from the job.
    layers |= {path: layer for path, layer in beneath.items() if path in given and path not in differs}
    own = [*weightings.split(differs)[0], *([weightings.PART] if weighting else [])]
    origins = {path: _first_layer(layers, path) for path in own}
    # A job says what it sets before the scale, which stands beside it.
    models = {"": Recipe} | {f"{kind}.": part.component.Options for kind, part in parts.items() if part.base}
    values, layers = scaling.scaled(values, layers, models)
    recipe = recipe_of(values, about, overrides)
    if (recipe.dataset, recipe.splits) != (lists.dataset, lists.name):
        raise UsageError(f"recipe {about['name']}: an override must not change dataset or splits")
    canonical = Job(
        recipe=job.recipe if job.recipe.endswith((".yaml", ".yml")) else about["name"],
        method=str(method.name),
        weighting=weighting,
        loss=str(parts["loss"].name),
        plugin=parts["plugin"].name,
        labeled=labeled,
        seed=job.seed,
        set=dict(sorted(weightings.split(differs)[0].items())),
        layers=origins,
    )
    chosen = {
        kind: {"name": part.base} | unflatten(under(values, kind)) if part.base else None
        for kind, part in parts.items()
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
    objection = _objection(resolved, parts, lists)
    if objection:
        raise UsageError(f"{canonical.method} + {canonical.loss} on {canonical.recipe}: {objection}")
    return resolved


_MISSING = object()


def _job_settings(job: Job, parts: Mapping[str, Part]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the fields that the job itself sets, by path, and the layer that set each."""
    otherwise = job.layers.get("*", "job")
    given, origins = {}, {weightings.PART: job.layers.get(weightings.PART, otherwise)}
    for path, value in job.set.items():
        for spelt, content in flatten({path: value}).items():
            leaf = weightings.respelt(spelt)
            if leaf.split(".")[0] not in JOB_PARTS:
                given[leaf] = content
            origins[leaf] = job.layers.get(path, otherwise)
    for part in parts.values():
        given |= part.given
    return given, {path: _above(origins, path, otherwise) for path in given}


def _above(origins: Mapping[str, str], path: str, otherwise: str) -> str:
    """Return the layer of a path, or of the nearest path above it."""
    while path not in origins and "." in path:
        path = path.rpartition(".")[0]
    return origins.get(path, otherwise)


def _first_layer(layers: Mapping[str, str], path: str) -> str:
    """Return the layer of a path, or of the first below it."""
    return next((layer for below, layer in layers.items() if f"{below}.".startswith(f"{path}.")), COMMAND_LINE)


def splits_of(below: Layers, parts: Mapping[str, Part], given: Mapping[str, Any]) -> Splits:
    """Return the case lists of a job: overrides may depend on its budget, so they cannot change them."""
    layers = below.copy()
    layers.put(parts["method"].component.defaults, "")
    layers.put({path: value for path, value in given.items() if path in ("dataset", "splits")}, "")
    missing = [name for name in ("dataset", "splits") if not isinstance(layers.values.get(name), str)]
    if missing:
        raise UsageError(f"the recipe names no {missing[0]}")
    dataset = registry.get("dataset", layers.values["dataset"]).name
    return load_splits(dataset, layers.values["splits"])


def _complete(
    layers: Layers, parts: Mapping[str, Part], about: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Validate and fill in every default, so that a default spelt out and one left out are the same."""
    known = {*Recipe.model_fields, *JOB_PARTS} - ABOUT
    unknown = [path for path in layers.values if path.split(".")[0] not in known]
    if unknown:
        raise UnknownNameError("field", unknown[0], known | {path for path in layers.values if path not in unknown})
    recipe = recipe_of(layers.values, about, ())
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
    for kind, part in parts.items():
        asked = under(layers.values, kind)
        if part.base:
            tree[kind] = dumped(part.component.Options, unflatten(asked), f"{kind} {part.base}")
        elif asked:
            raise UsageError(f"the recipe sets options of a {kind}, but the job has none")
    about_weightings = weightings.split(layers.values)[1]
    if about_weightings:
        keys = weightings.learners_of(parts["method"].component, tree["method"])
        tree[weightings.PART] = weightings.completed(about_weightings, keys)
        sources = weightings.read(about_weightings, keys)[1]
        origins |= {f"{weightings.PART}.{path}": layers.origins[source] for path, source in sources.items()}
    full = flatten({key: value for key, value in tree.items() if value != {}})
    return full, {path: origins.get(path, "default") for path in full}


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


def _matches(when: Mapping[str, Any], recipe: str, parts: Mapping[str, Part], labeled: str, lists: Splits) -> bool:
    """Tell whether an override is meant for a job; a preset is also what it configures, a weighting any learner's."""
    for key, wanted in when.items():
        asked = wanted if isinstance(wanted, list) else [wanted]
        if key in parts:
            names = {None if name is None else registry.get(key, str(name)).name for name in asked}
            fits = bool({parts[key].name, parts[key].base} & names)
        elif key == weightings.PART:
            fits = bool(_weighted_by(parts["method"]) & {registry.get(key, str(name)).name for name in asked})
        elif key == "labeled":
            fits = undrawn(labeled) in {lists.budget(str(name)).slug for name in asked}
        elif key == "recipe":
            fits = recipe in asked
        else:
            raise UnknownNameError("part of a job", key, ("recipe", "labeled", *JOB_PARTS))
        if not fits:
            return False
    return True


def _weighted_by(method: Part) -> set[str]:
    """Return the weightings that a job asks for, of whichever learner."""
    layers = Layers()
    for values in (method.preset, method.given):
        layers.put(values, "")
    keys = weightings.learners_of(method.component, under(layers.values, "method"))
    return {str(spec["name"]) for spec in weightings.read(layers.values, keys)[0].values() if spec is not None}


def _objection(resolved: ResolvedJob, parts: Mapping[str, Part], lists: Splits) -> str | None:
    kind = parts["method"].component
    budget = lists.budget(resolved.job.labeled)
    if "unlabeled" in kind.views and len(budget.labeled) == len(lists.train):
        return f"the method needs unlabelled images, and at {budget.title} there are none"
    protocol = registry.component("protocol", resolved.recipe.protocol)
    if why := protocol.objection():
        return f"protocol {protocol.name} {why}"
    weighting = (registry.component(weightings.PART, spec["name"]) for spec in resolved.weightings.values())
    found = (part.objection(resolved) for part in (kind, parts["loss"].component, *weighting))
    return next((why for why in found if why), None)


def _digest(values: Mapping[str, Any], parts: Mapping[str, Part], lists: str, recipe: Recipe) -> str:
    values = {path: value for path, value in values.items() if path not in RECORDED}
    dataset = registry.component("dataset", recipe.dataset)
    versions: dict[str, Any] = {
        "engine": ENGINE_VERSION,
        "dataset": dataset.version,
        "preprocessing": dataset.preprocessing_hash(recipe.preprocessing),
    }
    for kind, name in {"network": recipe.network.name, "protocol": recipe.protocol}.items():
        entry = registry.get(kind, name)
        versions[kind] = [entry.name, _version(entry.target)]
    versions |= {kind: [part.base, _version(part.component)] for kind, part in parts.items() if part.base}
    if weighted := {spec["name"] for spec in weightings.by_learner(values).values()}:
        versions[weightings.PART] = {name: _version(registry.component(weightings.PART, name)) for name in weighted}
    names = [(kind, found[0]) for kind, found in versions.items() if kind in registry.KINDS and isinstance(found, list)]
    # Two modules may give one name to two things.
    if homes := _homes([*names, ("dataset", recipe.dataset), *((weightings.PART, name) for name in weighted)]):
        versions["modules"] = homes
    return hashlib.sha256(_stable_json({"values": values, "versions": versions, "splits": lists}).encode()).hexdigest()


def _version(component: Any) -> list[int]:
    """Return the versions of a component and of the classes below it: a fix there invalidates what stands on it."""
    if not isinstance(component, type):
        return [component.version]
    return [vars(kind)["version"] for kind in component.__mro__ if "version" in vars(kind)]


def _stable_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
