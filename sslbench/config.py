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
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from sslbench import registry, settings, weightings
from sslbench.core.options import Frozen
from sslbench.data.splits import Splits, load_splits
from sslbench.errors import UnknownNameError, UsageError
from sslbench.spelling import compact, dumped, flatten, load_yaml, parse_component, unflatten, validated

# Bump when the meaning of a resolved job changes for all jobs at once (sampling, schedules, the trainer).
ENGINE_VERSION = 1

COMMAND_LINE = "command line"  # the last layer, and the name of a grid that was put together there
COMPONENTS = ("method", "loss", "plugin")  # the parts of a job that have options under their own prefix


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


Geometry = Literal["rot90_flip", "ssl4mis", "flips", "flip_rot90"]
Share = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]  # lowest and highest of what is drawn uniformly


class Jitter(Frozen):
    """Brightness, contrast, saturation and hue in random order (FixMatch in SSL4MIS: torchvision's ColorJitter); for
    images scaled to [0, 1]. Saturation and hue change red-green-blue images only."""

    name: Literal["jitter"] = "jitter"
    brightness: float = Field(default=0.8, ge=0, description="factor in 1 ± this, not below 0")
    contrast: float = Field(default=0.8, ge=0, description="factor about the image's mean grey, as for brightness")
    saturation: float = Field(default=0.8, ge=0, description="factor about the pixel's grey, as for brightness")
    hue: float = Field(default=0.2, ge=0, le=0.5, description="shift in ± this of the colour circle")


class Cutout(Frozen):
    """A box of binary noise, its label background (ABD's strong view)."""

    name: Literal["cutout"] = "cutout"
    p: Share = Field(default=0.5, description="probability")
    area: Range = Field(default=(0.02, 0.4), description="share of the image")
    aspect: Range = Field(default=(0.3, 1 / 0.3), description="height by width")


class Noise(Frozen):
    """Gaussian noise on every voxel, its deviation drawn for each patch (defaults: SSL4MIS's teacher input)."""

    name: Literal["noise"] = "noise"
    p: Share = Field(default=1.0, description="probability")
    std: Range = Field(default=(0.1, 0.1), description="standard deviation, in units of the prepared image")
    limit: float | None = Field(default=0.2, description="noise is clipped to ± this; null: not")


class Blur(Frozen):
    """Gaussian blur (range: GenericSSL)."""

    name: Literal["blur"] = "blur"
    p: Share = Field(default=0.5, description="probability")
    sigma: Range = Field(default=(0.7, 1.3), description="in voxels")


class Brightness(Frozen):
    """A factor on all intensities (GenericSSL)."""

    name: Literal["brightness"] = "brightness"
    p: Share = Field(default=0.7, description="probability")
    factor: Range = (0.7, 1.3)


class Contrast(Frozen):
    """A factor about the patch's mean, clipped to the patch's own range; above or below 1 alike likely (GenericSSL)."""

    name: Literal["contrast"] = "contrast"
    p: Share = Field(default=0.7, description="probability")
    factor: Range = (0.7, 1.3)


class Gamma(Frozen):
    """A power of the patch's intensities scaled to [0, 1], above or below 1 alike likely; mean and deviation stay
    (GenericSSL)."""

    name: Literal["gamma"] = "gamma"
    p: Share = Field(default=0.7, description="probability")
    power: Range = (0.7, 1.3)


class ThreeOfSix(Frozen):
    """Three of rotation, scale, blur, brightness, contrast and gamma in random order, the last four with their own
    defaults (GenericSSL, on both streams). It moves labels, so it makes weak views only."""

    name: Literal["three_of_six"] = "three_of_six"
    p: Share = Field(default=0.7, description="probability of each of the three")
    degrees: float = Field(default=15.0, ge=0, description="rotation in ± this, in the plane of the last two axes")
    zoom: Range = Field(default=(0.7, 1.0), description="of the region shown, half of the time; else all of it")


_DISTORTIONS = (Jitter, Cutout, Noise, Blur, Brightness, Contrast, Gamma)
Distortion = Annotated[Jitter | Cutout | Noise | Blur | Brightness | Contrast | Gamma, Field(discriminator="name")]


class AugmentSpec(Frozen):
    weak: list[Geometry | Distortion | ThreeOfSix] = Field(
        default=[], description="what makes the weak view of a patch: a geometric augmentation, then others"
    )
    strong: list[Distortion] = Field(
        default=[], description="what makes the strong view of the weak one, for methods that ask for it"
    )

    @field_validator("weak", "strong", mode="before")
    @classmethod
    def _by_name(cls, value: Any, info: ValidationInfo) -> Any:
        """A bare name means the augmentation with its defaults."""
        if not isinstance(value, list):
            return value
        weak = info.field_name == "weak"
        plain = get_args(Geometry) if weak else ()
        kinds = (*_DISTORTIONS, ThreeOfSix) if weak else _DISTORTIONS
        names = [*plain, *(kind.model_fields["name"].default for kind in kinds)]
        for item in value:
            if isinstance(item, str) and item not in names:
                raise ValueError(f"'{item}' is not one of {', '.join(names)}")
        return [{"name": item} if isinstance(item, str) and item not in plain else item for item in value]

    @property
    def geometry(self) -> Geometry | None:
        """The geometric augmentation of the weak view."""
        return next((item for item in self.weak if isinstance(item, str)), None)

    @property
    def distortions(self) -> list[Distortion | ThreeOfSix]:
        """The others of the weak view."""
        return [item for item in self.weak if not isinstance(item, str)]

    @model_validator(mode="after")
    def _geometry_first(self) -> AugmentSpec:
        if any(isinstance(item, str) for item in self.weak[1:]):
            raise ValueError("augment.weak takes one geometric augmentation, as its first")
        return self


class TilesSpec(Frozen):
    stride: list[int] = Field(min_length=2, max_length=2, description="between tiles; the last one is shifted inward")
    blank: Range | None = Field(
        default=None, description="a tile whose mean, in 255ths of the scaled image, lies in here is left out"
    )
    rescale: bool = Field(
        default=False, description="stretch every tile, and every whole image to predict, to its own extremes"
    )


class CriteriaSpec(Frozen):
    dice: Literal["squared", "linear", "foreground"] = Field(
        default="squared",
        description="denominators of the Dice loss: sums of squares, or plain sums; foreground: plain, minus the mean "
        "over foreground classes (DHC)",
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
    lr: Literal["poly", "poly_lagged_epoch", "constant", "step", "cosine"] = Field(
        default="poly",
        description="law of the learning rate; poly_lagged_epoch: poly over epochs, one epoch late (DHC)",
    )
    power: float = Field(default=0.9, description="exponent of the poly law")
    lr_length: int | None = Field(default=None, description="length of the poly law where it is not the run's")
    step_every: int = Field(default=2500, description="iterations between two drops of the step law")
    step_factor: float = Field(default=0.1, description="factor of a drop of the step law")
    validate_every: int = Field(default=0, ge=0, description="iterations between validations; 0: never")


class RampSpec(Frozen):
    weight: float = Field(default=0.1, ge=0, description="consistency weight at the end of the ramp")
    shape: Literal["gaussian", "linear", "constant"] = Field(
        default="gaussian", description="gaussian: exp(-5 (1 - t)^2)"
    )
    length: Literal["full"] | int = Field(default="full", description="iterations until the full weight")
    every: Literal["epoch", "lagged_epoch", "iteration"] | int = Field(
        default="iteration",
        description="when the weight changes: each epoch, the same one epoch late (DHC), or each so many iterations",
    )


class InferenceSpec(Frozen):
    stride: list[int] | None = Field(
        default=None, description="sliding-window stride; in 2-D without one, slices are resized"
    )
    validation_stride: list[int] | None = Field(default=None, description="the same in validation; default: stride")
    batch: int = Field(default=16, gt=0, description="windows (2-D: slices) in a forward pass")
    networks: Literal["mean_logits", "best_val"] = Field(
        default="mean_logits",
        description="what predicts when a method trains several networks: the mean of their logits (the field's "
        "3-D habit), or the one better on validation (2-D)",
    )
    weighting: Literal["uniform", "gaussian"] = Field(
        default="uniform", description="of a window's voxels: all the same, or less towards its border (nnU-Net)"
    )
    flips: list[int] = Field(
        default=[], description="axes of a patch, from 0: the mean of the probabilities over all their flips"
    )


Seed = Annotated[int, Field(ge=0)]


class Override(Frozen):
    when: dict[str, Any] = Field(description="recipe, method, weighting, loss, plugin, labeled: what a job must have")
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
    patch_size: list[int] = Field(description="voxels; two numbers mean 2-D: slices resized to that size, or tiles")
    tiles: TilesSpec | None = Field(
        default=None,
        description="cut training and validation images into tiles of patch_size instead of resizing (2-D)",
    )
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
    seeds: list[Seed] = Field(default=[1337], description="seeds of a grid that names none")
    overrides: list[Override] = []

    @field_validator("patch_size")
    @classmethod
    def _two_or_three(cls, value: list[int]) -> list[int]:
        if len(value) not in (2, 3) or min(value) < 1:
            raise ValueError("patch_size is two numbers (2-D) or three (3-D)")
        return value

    @model_validator(mode="after")
    def _agrees(self) -> Recipe:
        if len(self.patch_size) == 3:
            self._agrees_in_3d()
        elif self.tiles is not None and not self.inference.stride:
            raise ValueError("a network trained on tiles predicts by windows: it needs inference.stride")
        for name in ("stride", "validation_stride"):
            stride = getattr(self.inference, name) or self.patch_size
            if len(stride) != len(self.patch_size) or not all(
                0 < step <= side for step, side in zip(stride, self.patch_size, strict=False)
            ):
                raise ValueError(f"inference.{name} {stride} leaves gaps between patches of {self.patch_size}")
        flips = self.inference.flips
        if sorted({*flips} & {*range(len(self.patch_size))}) != sorted(flips):
            raise ValueError(f"inference.flips {flips} are not axes of a patch of {self.patch_size}, each once")
        if self.checkpoint == "best-val" and not self.schedule.validate_every:
            raise ValueError("the checkpoint rule best-val needs schedule.validate_every")
        return self

    def _agrees_in_3d(self) -> None:
        geometry = self.augment.geometry
        if geometry == "ssl4mis":
            raise ValueError("the augmentation ssl4mis rotates slices: it needs a patch_size of two numbers")
        if geometry in ("rot90_flip", "flip_rot90") and self.patch_size[0] != self.patch_size[1]:
            raise ValueError(f"{geometry} turns the first two axes: they differ in patch_size {self.patch_size}")
        if any(isinstance(item, Cutout) for item in (*self.augment.distortions, *self.augment.strong)):
            raise ValueError("cutout takes a box out of a slice: it needs a patch_size of two numbers")
        if self.tiles is not None:
            raise ValueError("tiles are cut from slices: they need a patch_size of two numbers")
        if not self.inference.stride:
            raise ValueError("a patch_size of three numbers needs inference.stride")


# What a recipe says about itself, not about the computation: outside the digest and the resolved values.
ABOUT = {"name", "description", "source", "seeds", "overrides", "extends"}

# Those in subfolders hold no dataset: they are there to be extended (`generic/own-2d`).
_RECIPES = Path(__file__).parent / "recipes"


def recipe_names() -> tuple[str, ...]:
    """The names of the shipped recipes and of those in the data folder that was opened, sorted."""
    return tuple(sorted({*_shipped_recipes(), *registry.kept_files("recipe")}))


@lru_cache
def _shipped_recipes() -> tuple[str, ...]:
    return tuple(path.stem for path in _RECIPES.glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """The file of a recipe, by name or as it is; it need not be there."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    shipped = _RECIPES / f"{name}.yaml"
    return shipped if shipped.exists() else registry.kept_files("recipe").get(name, shipped)


class Layers:
    """Values by dotted path, and the layer that each came from."""

    def __init__(self, values: Mapping[str, Any] | None = None, origins: Mapping[str, str] | None = None) -> None:
        self.values, self.origins = dict(values or {}), dict(origins or {})

    def copy(self) -> Layers:
        """The same values, to lay more over."""
        return Layers(self.values, self.origins)

    def put(self, new: Mapping[str, Any], layer: str) -> None:
        """Lay values over what is there; groups are merged field by field. Another network or weighting takes none of
        the options that the one before had."""
        leaves = flatten(new)
        replaced = weightings.replaced(_under(self.values, "method"), _under(leaves, "method"))
        gone = [f"method.{path}" for path in replaced]
        if leaves.get("network.name", self.values.get("network.name")) != self.values.get("network.name"):
            gone += [path for path in self.values if path.startswith("network.")]
        for path in gone:
            del self.values[path], self.origins[path]
        self.values.update(leaves)
        self.origins.update(dict.fromkeys(leaves, layer))


def read_recipe(
    name: str, chain: tuple[str, ...] = ()
) -> tuple[Layers, tuple[tuple[str, Override], ...], dict[str, Any]]:
    """A recipe file with those it extends: values, overrides with their layer (the base recipe's first), and what the
    recipe says about itself."""
    path = recipe_path(name)
    if not path.exists():
        raise UnknownNameError("recipe", name, recipe_names())
    found = path.stat()
    raw = _recipe_file(path, (found.st_mtime_ns, found.st_size))
    layers, about = Layers(), {}
    overrides: tuple[tuple[str, Override], ...] = ()
    if "extends" in raw:
        base = raw["extends"]
        if not isinstance(base, str) or base in (*chain, name):
            raise UsageError(f"{path}: extends takes the name of another recipe, not {base!r}")
        below, overrides, above = read_recipe(base, (*chain, name))
        layers, about = below.copy(), dict(above)
    about.update({key: raw[key] for key in ABOUT - {"overrides", "extends"} if key in raw} | {"name": path.stem})
    layers.put({key: value for key, value in raw.items() if key not in ABOUT}, f"recipe {path.stem}")
    listed = raw.get("overrides", [])
    if not isinstance(listed, list):
        raise UsageError(f"{path}: overrides is a list of `when` and `set`")
    for number, item in enumerate(listed, 1):
        override = validated(Override, item, f"{path}: override {number}")
        overrides += ((f"recipe {path.stem}, override {number}", override),)
    return layers, overrides, about


@lru_cache(maxsize=64)
def _recipe_file(path: Path, stamp: tuple[int, int]) -> dict[str, Any]:
    return load_yaml(path)


def load_recipe(name: str) -> Recipe:
    """The recipe as written, before any method's defaults or overrides.

    Raises:
        UsageError: no such recipe, or a field that is unknown, missing or of the wrong type.
    """
    layers, overrides, about = read_recipe(name)
    return _recipe(layers.values, about, overrides)


def _recipe(values: Mapping[str, Any], about: Mapping[str, Any], overrides: tuple[tuple[str, Override], ...]) -> Recipe:
    fields = {path: value for path, value in values.items() if path.split(".")[0] not in COMPONENTS}
    more = {"overrides": [override.model_dump() for _, override in overrides]}
    found: Recipe = validated(Recipe, unflatten(fields) | dict(about) | more, f"recipe {about['name']}", fields)
    return found


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
    parts = _parts(job)
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

    lists = _splits(below, parts, given)
    labeled = lists.budget(job.labeled).slug
    # A recipe's overrides speak of the budgets of its own lists, whichever the job takes.
    written_for = _splits(below, parts, {}) if {"dataset", "splits"} <= below.values.keys() else lists
    values, layers = _complete(layered(given), parts, about, overrides)
    # A value that the lower layers give anyway is no difference: it must not make another run.
    lower, _ = _complete(layered({}), parts, about, overrides)
    differs = {path: values[path] for path in given if values.get(path, _MISSING) != lower.get(path, _MISSING)}
    weighted, otherwise = (_weightings(found) for found in (values, lower))
    differs = {path: value for path, value in differs.items() if not f"{path}.".startswith(f"{_WEIGHTING}.")}
    if weighted != otherwise:
        keys = weightings.learners(str(parts["method"].base), _under(values, "method"))
        spelt = weightings.difference(weighted, otherwise, keys)
        differs |= {f"method.{path}": text for path, text in spelt.items()}

    recipe = _recipe(values, about, overrides)
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
        part: {"name": spelt.base} | unflatten(weightings.split(_under(values, part))[0]) if spelt.base else None
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


def _parts(job: Job) -> dict[str, _Spelt]:
    """The components of a job, their aliases, brackets and presets understood."""
    for path in job.set:
        top = path.split(".")[0]
        if path in COMPONENTS and not isinstance(job.set[path], Mapping):
            raise UsageError(f"'{path}' is a part of the job, not a field to set", f"name the {path} instead")
        if top in ABOUT:
            raise UsageError(f"'{path}' is what the recipe says about itself: it cannot be set")
    given = flatten(job.set)
    return {part: _component(part, getattr(job, part), given) for part in COMPONENTS}


def _component(part: str, spelt: str | None, given: Mapping[str, Any]) -> _Spelt:
    direct = _under(given, part)
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
    options = _under(layers.values, part)
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
    keys = weightings.learners(preset.name, typed)
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


def _splits(below: Layers, parts: Mapping[str, _Spelt], given: Mapping[str, Any]) -> Splits:
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
    recipe = _recipe(layers.values, about, overrides)
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
        asked = _under(layers.values, part)
        if spelt.base:
            kind = registry.component(part, spelt.base)
            if part == "method":
                asked, about = weightings.split(asked)
            tree[part] = dumped(kind.Options, unflatten(asked), f"{part} {spelt.base}")
            if part == "method" and about:
                keys = weightings.learners(spelt.base, tree[part])
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
    for path, value in _under(values, _WEIGHTING).items():
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
    found, _ = weightings.read(asked, weightings.learners(str(method.base), own))
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


def _under(values: Mapping[str, Any], part: str) -> dict[str, Any]:
    prefix = part + "."
    return {path.removeprefix(prefix): value for path, value in values.items() if path.startswith(prefix)}


def _stable_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


# ------------------------------------------------------------------------------------------------------ the grid


_AXES = ("recipe", "method", "loss", "plugin", "labeled", "seeds")


def _axes_as_lists(data: Any) -> Any:
    """An axis of a grid may be written as one value, seeds as a range: `0-4`."""
    if not isinstance(data, dict):
        return data
    data = {key: [value] if key in _AXES and not isinstance(value, list) else value for key, value in data.items()}
    if "labeled" in data:
        data["labeled"] = [str(value) for value in data["labeled"]]
    if "seeds" in data:
        data["seeds"] = [seed for value in data["seeds"] for seed in seed_range(value)]
    return data


def seed_range(value: Any) -> list[Any]:
    """The seeds that `0-4` means; any other value alone.

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
        """Whether the job is meant, however both are spelt. Only options and `set` need the job to be valid.

        Raises:
            UsageError: a name or budget that nothing answers to.
        """
        parts = _parts(job)
        wanted = [flatten(self.set)]
        for axis in COMPONENTS:
            asked = [_component(axis, spelt, {}) for spelt in getattr(self, axis)]
            named = [spelt.options for spelt in asked if spelt.name == parts[axis].name]
            if asked and not named:
                return False
            if len(named) == 1:
                wanted.append({f"{axis}.{key}": value for key, value in named[0].items()})
        if self.labeled:
            lists = _splits(read_recipe(job.recipe)[0], parts, flatten(job.set))
            if lists.budget(job.labeled).slug not in {lists.budget(name).slug for name in self.labeled}:
                return False
        if (self.recipe and job.recipe not in self.recipe) or (self.seeds and job.seed not in self.seeds):
            return False
        return all(_has(job.resolved, options) for options in wanted if options)


def _has(resolved: ResolvedJob, options: Mapping[str, Any]) -> bool:
    """Whether a job has these values, by dotted path."""
    about = weightings.split(_under(options, "method"))[1]
    if any(
        resolved.values.get(path) != value
        for path, value in options.items()
        if path.removeprefix("method.") not in about
    ):
        return False
    asked = weightings.read(about, weightings.learners(resolved.method["name"], resolved.method))[0] if about else {}
    found = resolved.weightings
    return all(
        key not in found if spec is None else spec.items() <= found.get(key, {}).items() for key, spec in asked.items()
    )


def _layer(layers: Mapping[str, str], path: str) -> str:
    """The layer of a path, or of the first below it."""
    return next((layer for below, layer in layers.items() if f"{below}.".startswith(f"{path}.")), COMMAND_LINE)


class GridEntry(JobFilter):
    """A product of the axes it names, with what it sets; an axis left out takes the grid's."""


class TableSpec(Frozen):
    """What a grid's table shows.

    `columns`: metrics of the protocol, averaged over classes (`dsc`) or one column per class (`dsc/class`).
    `classes`: the order of those, as labelled or the largest structure first.
    `groups`: headings in the papers' order; `GA`-like names are losses, the others the methods' own groups.
    """

    columns: list[str] = ["dsc", "asd", "dsc/class"]
    classes: Literal["label", "size"] = "label"
    groups: list[str] = ["Reference", "General", "Imbalance"]
    caption: str = ""
    note: str = ""


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
        """The canonical jobs, checked, each once, in the order of the file; seeds vary fastest.

        Args:
            overrides: `--set` values, the last layer.

        Raises:
            UsageError: nothing to run, or a job that does not resolve.
        """
        found: dict[Path, Job] = {}
        for entry in self.jobs:
            for job in self._product(entry, overrides or {}):
                if not any(exclude.matches(job) for exclude in self.exclude):
                    canonical = job.canonical()  # every job is checked before any starts
                    layers = {path: _layer(job.resolved.layers, path) for path in canonical.set}
                    found.setdefault(job.directory, Job(**canonical.model_dump(), layers=layers))
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
        own = self.name if self.name == COMMAND_LINE else f"grid {self.name}"
        layers = dict.fromkeys({**self.set, **entry.set, "*": ""}, own) | dict.fromkeys(overrides, COMMAND_LINE)
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
