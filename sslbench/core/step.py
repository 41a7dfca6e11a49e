"""The input of a training step: `Batch`, `Step`, and the `Statistics` that are known before the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    pass


View = Literal["raw", "weak", "strong"]

Stream = Literal["labeled", "unlabeled"]


@dataclass(frozen=True)
class Batch:
    """The patches of a step, labelled ones first.

    Attributes:
        image: per view, (B, channels, *S) float32.
        label: per view, (B, *S) int64; -1 where there is no truth, so everywhere on unlabelled patches.
        num_labeled: how many of the B patches are labelled.
        index: (B,) which training item each patch was cut from.
        origin: (B, dims) where in that item it starts.
    """

    image: Mapping[str, Tensor]
    label: Mapping[str, Tensor]
    num_labeled: int
    index: Tensor
    origin: Tensor


@dataclass(frozen=True)
class Step:
    """The position of the training, with what a step may draw and log.

    Attributes:
        iteration: from 0, within the phase.
        iterations: of the phase.
        epoch, epochs: the same in epochs of the recipe.
        last_of_epoch: whether the next iteration begins a new epoch.
        phase: its name.
        consistency_weight: its value now, a 0-d tensor on the device.
        generators: makes the generator of a named stream; see `generator`.
        logger: receives what is logged; None: no record is made of this step.
        sweeper: yields the training set once; see `sweep`.
    """

    iteration: int
    iterations: int
    epoch: int
    epochs: int
    last_of_epoch: bool
    phase: str
    consistency_weight: Tensor
    generators: Callable[[str, torch.device | str | None], torch.Generator]
    logger: Callable[[str, Tensor], None] | None
    sweeper: Callable[[], Iterator[Batch]]

    @property
    def progress(self) -> float:
        """Share of the phase that is done, in [0, 1)."""
        return self.iteration / self.iterations

    def generator(self, stream: str, device: torch.device | str | None = None) -> torch.Generator:
        """Make a generator seeded from (job seed, stream, iteration), on the CPU or on `device`."""
        return self.generators(stream, device)

    def log(self, name: str, value: Tensor | Callable[[], Tensor]) -> None:
        """Log a number (0-d), or one for each class (C,), background first; it is read when the step is done.

        Only every so many iterations make a record: a function is called in those alone, without gradient, so that
        what takes computing costs other steps nothing.
        """
        if self.logger is None:
            return
        if not isinstance(value, Tensor):
            with torch.no_grad():
                value = value()
        self.logger(name, value)

    def sweep(self) -> Iterator[Batch]:
        """Yield the training set once, in order, raw and without labels of unlabelled items."""
        return self.sweeper()


@dataclass(frozen=True)
class Statistics:
    """Facts of the training data that are known before the first step.

    Attributes:
        class_counts: (labelled cases, C) int64, voxels of whole volumes on the native grid.
        labeled, unlabeled: numbers of cases.
        shapes: of the training items; volumes as they are sampled, padded where a patch is larger.
        num_classes: C, background included.
        patch_size: of a patch.
        batch: labelled and unlabelled patches in a step.
        labeled_items: how many of the training items are labelled: the first of `shapes`.
    """

    class_counts: Tensor
    labeled: int
    unlabeled: int
    shapes: tuple[tuple[int, ...], ...]
    num_classes: int
    patch_size: tuple[int, ...]
    batch: tuple[int, int]
    labeled_items: int = 0
