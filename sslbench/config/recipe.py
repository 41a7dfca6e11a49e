"""Recipes: all that one published table holds fixed, every field typed and documented."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from sslbench.core import registry
from sslbench.core.options import Frozen, Iterations

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
    order: Literal["passes", "repeated"] = Field(
        default="passes",
        description="of a stream's items. passes: one permutation of them after another, so that a batch holds an item "
        "twice only where two of them join; repeated: each epoch a permutation of its places, which the items fill in "
        "turn, so that a batch may hold an item twice (the loaders of GA and DHC)",
    )


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
        """Read a bare name as the augmentation with its defaults."""
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
    name: Literal["sgd", "adam", "adamw"] = Field(default="sgd", description="as torch has it")
    lr: float = Field(gt=0, description="base learning rate")
    momentum: float = Field(default=0.9, description="SGD only")
    nesterov: bool = Field(default=False, description="SGD only")
    weight_decay: float = Field(
        default=0.0, description="added to the gradient as L2 (sgd, adam), or taken off the weights (adamw)"
    )


class ScheduleSpec(Frozen):
    iterations: Iterations = Field(gt=0, description="optimiser steps of a phase that names no length of its own")
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
    lr_length: Iterations | None = Field(default=None, description="length of the poly law where it is not the run's")
    step_every: Iterations = Field(default=2500, description="iterations between two drops of the step law")
    step_factor: float = Field(default=0.1, description="factor of a drop of the step law")
    validate_every: Iterations = Field(default=0, ge=0, description="iterations between validations; 0: never")
    scale: float = Field(
        default=1.0,
        gt=0,
        allow_inf_nan=False,
        description="factor of all that counts iterations of the schedule: here, in the ramp, in options of methods; "
        "never in a published number",
    )


class RampSpec(Frozen):
    weight: float = Field(default=0.1, ge=0, description="consistency weight at the end of the ramp")
    shape: Literal["gaussian", "linear", "constant"] = Field(
        default="gaussian", description="gaussian: exp(-5 (1 - t)^2)"
    )
    length: Literal["full"] | Iterations = Field(default="full", description="iterations until the full weight")
    every: Literal["epoch", "lagged_epoch", "iteration"] | Iterations = Field(
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

CheckpointRule = Literal["best-val", "last"]
Observation = Literal["regions", "agreement"]

_ONLY_RECORDED = "only recorded"  # marks a field of `RECORDED`


class Override(Frozen):
    when: dict[str, Any] = Field(description="recipe, method, weighting, loss, plugin, labeled: what a job must have")
    set: dict[str, Any] = Field(description="dotted paths and the values that they take then")


Deviating = Literal["splits", "preprocessing", "iterations", "checkpoint", "protocol"]


class Recipe(Frozen):
    """All that one published table holds fixed, from the dataset to the evaluation protocol."""

    name: str = Field(description="as --recipe names it, and as directories of runs do")
    description: str = Field(default="", description="one line for `list recipes`")
    source: str = Field(default="", description="paper, section, and where deviations are documented")
    deviations: dict[Deviating, str] = Field(
        default={}, description="in what it is known to differ from its paper, for comparisons with print"
    )
    dataset: str = Field(description="registered dataset")
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
    checkpoint: CheckpointRule = Field(description="which weights are tested; never chosen on test cases")
    checkpoints: Annotated[list[CheckpointRule], _ONLY_RECORDED] = Field(
        default=[],
        description="[best-val, last]: the weights of these rules are tested too, and recorded beside the results, "
        "which are those of `checkpoint`",
    )
    observe: Annotated[list[Observation], _ONLY_RECORDED] = Field(
        default=[],
        description="of every validation case, recorded beside its score. regions: MetaSSL's four, whatever the loss, "
        "with the share of right labels in each; agreement: of the predictors, two by two. Each costs a prediction by "
        "every predictor",
    )
    protocol: str = Field(description="how predictions become numbers")
    precision: Literal["auto", "fp32", "tf32", "bf16"] = Field(
        default="auto",
        description="auto: bf16 where the device is fast at it and agrees with fp32 layer by layer; else tf32 on a GPU "
        "that has it; else fp32",
    )
    seeds: list[Seed] = Field(default=[1337], description="seeds of a grid that names none")
    overrides: list[Override] = Field(default=[], description="changes for some methods, losses or budgets alone")

    @property
    def tested(self) -> tuple[CheckpointRule, ...]:
        """The rules whose weights are tested, each once: `checkpoint`, which the results are of, and the others."""
        return tuple(dict.fromkeys((self.checkpoint, *self.checkpoints)))

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
        if "best-val" in self.tested and not self.schedule.validate_every:
            raise ValueError("the checkpoint rule best-val needs schedule.validate_every")
        if self.observe and not self.schedule.validate_every:
            raise ValueError("observe looks at validation cases: it needs schedule.validate_every")
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
ABOUT = {"name", "description", "source", "deviations", "seeds", "overrides", "extends"}

# What only says which records lie beside the results, and leaves these as they are: outside the digest and the name of
# the run.
RECORDED = {name for name, field in Recipe.model_fields.items() if _ONLY_RECORDED in field.metadata}

# Those in subfolders hold no dataset: they are there to be extended (`generic/own-2d`).
_RECIPES = Path(__file__).parent.parent / "recipes"


def recipe_names() -> tuple[str, ...]:
    """Return the names of the shipped recipes and of those in the data folder that was opened, sorted."""
    return tuple(sorted({*_shipped_recipes(), *registry.kept_files("recipe")}))


def is_shipped(name: str) -> bool:
    """Tell whether a recipe, as a job names it, is one of the package's own."""
    return name in _shipped_recipes()


@lru_cache
def _shipped_recipes() -> tuple[str, ...]:
    return tuple(path.stem for path in _RECIPES.glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """Return the file of a recipe, by name or as it is; it need not be there."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    shipped = _RECIPES / f"{name}.yaml"
    return shipped if shipped.exists() else registry.kept_files("recipe").get(name, shipped)
