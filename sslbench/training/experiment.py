"""A job put together: training set on the device, networks, loss, plugin, method, sampler, precision."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from sslbench.config.job import ResolvedJob
from sslbench.config.recipe import TilesSpec
from sslbench.core import registry
from sslbench.core.randomness import derive_seed
from sslbench.core.step import Statistics
from sslbench.data.sampling import Sampler, TrainingSet, cut_tile, tile_boxes
from sslbench.data.store import OnDemand
from sslbench.losses.compose import build_loss
from sslbench.methods.base import M, Method
from sslbench.networks import Network, build_decoder, build_network
from sslbench.networks.base import Decoder
from sslbench.networks.precision import Arithmetic, Precision, choose_precision
from sslbench.plugins.base import Attached, Plugin


@dataclass(frozen=True)
class ValidationCase:
    """A preprocessed validation case, or a tile of one: image (channels, *S) and label (*S) in the stored grid.

    Attributes:
        id: of the case.
        tile: its number among the tiles of the case; None: the whole.
    """

    id: str
    image: np.ndarray
    label: np.ndarray
    tile: int | None = None


@dataclass(frozen=True)
class Experiment:
    """What a trainer needs of a job. No path leads from here to test cases or to labels of unlabelled ones.

    Attributes:
        classes: names of the foreground classes 1, 2, ..., for records.
    """

    resolved: ResolvedJob
    method: Method
    sampler: Sampler
    validation: Sequence[ValidationCase]
    classes: tuple[str, ...]
    precision: Precision

    @property
    def num_classes(self) -> int:
        """C, background included."""
        return len(self.classes) + 1


class Builder:
    """Makes networks for a method (`methods.base.Build`), each key from its own initialisation stream."""

    def __init__(self, resolved: ResolvedJob, in_channels: int, statistics: Statistics) -> None:
        self.resolved, self.in_channels, self.statistics = resolved, in_channels, statistics

    def __call__(self, key: str, name: str | None = None, **options: Any) -> Network:
        """The recipe's network, or the named one, with the job's plugin attached."""
        spec = self.resolved.recipe.network
        base = spec.options if name in (None, spec.name) else {}
        with self._stream(f"init/{key}"):
            network = build_network(
                name or spec.name, self.in_channels, self.statistics.num_classes, **{**base, **options}
            )
            plugin = self.resolved.plugin
            if plugin is None:
                return network
            component = registry.component("plugin", plugin["name"])
            chosen = component.Options(**{key: value for key, value in plugin.items() if key != "name"})
            return Attached(network, cast(Plugin, component(chosen, network, self.statistics)))

    def decoder(self, like: Network, key: str, num_classes: int | None = None, **options: Any) -> Decoder:
        """A further decoder and head for the encoder of `like`, with as many outputs unless `num_classes` differs."""
        with self._stream(f"init/{key}"):
            return build_decoder(like, num_classes, **options)

    def module(self, key: str, make: Callable[[], M]) -> M:
        """Any other module, from the initialisation stream `key`."""
        with self._stream(f"init/{key}"):
            return make()

    def ema(self, network: nn.Module) -> Any:
        """A copy without gradient."""
        return copy.deepcopy(network).requires_grad_(False)

    def _stream(self, name: str) -> Any:
        return _seeded(derive_seed(self.resolved.job.seed, name))


class _seeded:  # noqa: N801  a context manager, used like a function
    """The default CPU generator seeded inside the block and as before behind it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        self.state = torch.get_rng_state()
        torch.default_generator.manual_seed(self.seed)

    def __exit__(self, *error: object) -> None:
        torch.set_rng_state(self.state)


def build_experiment(
    resolved: ResolvedJob,
    data: TrainingSet,
    class_counts: np.ndarray,
    validation: Sequence[ValidationCase],
    classes: Sequence[str],
    device: torch.device,
    precision: Arithmetic | None = None,
) -> Experiment:
    """Put a job together.

    Args:
        resolved: the job.
        data: the training set.
        class_counts: (labelled cases, C), native voxels.
        validation: validation cases, possibly none.
        classes: names of the foreground classes 1, 2, ...
        device: where to train.
        precision: to train in; None: the recipe's.
    """
    recipe = resolved.recipe
    if recipe.tiles is not None:
        validation = _tiles(validation, recipe.patch_size, recipe.tiles)
    sampler = Sampler(data, recipe, resolved.job.seed, device)
    statistics = Statistics(
        class_counts=torch.as_tensor(class_counts, dtype=torch.int64),
        labeled=data.num_labeled,
        unlabeled=len(data.images) - data.num_labeled,
        shapes=sampler.shapes,
        num_classes=len(classes) + 1,
        patch_size=tuple(recipe.patch_size),
        batch=(recipe.batch.labeled, recipe.batch.unlabeled),
        labeled_items=sampler.count["labeled"],
    )
    build = Builder(resolved, len(data.images[0]), statistics)
    probe = sampler.batch(0, streams=("labeled",)).image["weak"]
    chosen = choose_precision(precision or recipe.precision, device, lambda: build("probe"), probe)
    method = build_method(resolved, build, statistics)
    chosen.place(method)
    return Experiment(resolved, method, sampler, validation, tuple(classes), chosen)


def _tiles(cases: Sequence[ValidationCase], size: Sequence[int], spec: TilesSpec) -> Sequence[ValidationCase]:
    """The tiles of validation cases: what is trained on tiles is validated on tiles."""
    places = [
        (place, number, box)
        for place, case in enumerate(cases)
        for number, box in enumerate(tile_boxes(case.image, size, spec))
    ]

    def tile(index: int) -> ValidationCase:
        place, number, box = places[index]
        case = cases[place]
        return ValidationCase(case.id, cut_tile(case.image, box, spec), case.label[box], number)

    return OnDemand(len(places), tile)


def build_method(resolved: ResolvedJob, build: Builder, statistics: Statistics) -> Method:
    """The method of a job with its loss, on the CPU, freshly initialised."""
    loss = build_loss(resolved.loss, resolved.recipe.criteria, statistics, resolved.weightings)
    method_class = registry.component("method", resolved.method["name"])
    return cast(Method, method_class(method_class.Options(**_options(resolved.method)), build, loss, statistics))


def _options(part: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key != "name"}
