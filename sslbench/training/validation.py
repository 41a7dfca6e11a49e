"""The validation score: DSC of whole cases, counted on the device that predicts them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sslbench.inference.predictor import Predictor
from sslbench.training.experiment import Experiment

# The part of a GPU's free memory that validation cases may take for good.
_SHARE = 1 / 8


@dataclass(frozen=True)
class _Held:
    """A case on the device.

    Attributes:
        volume: (channels, *S), as networks take it.
        label: (N,) uint8.
        sizes: (C,) int64, the voxels of each class in it.
    """

    volume: Tensor
    label: Tensor
    sizes: Tensor

    @property
    def bytes(self) -> int:
        return self.volume.nbytes + self.label.nbytes


class Validation:
    """Scores a method on the validation cases of its experiment.

    Args:
        experiment: whose method and cases.
        budget: bytes of cases that stay on the device once they were used; None: of a GPU an eighth of what is free
            now, of a CPU, where files are mapped, none.
    """

    def __init__(self, experiment: Experiment, budget: int | None = None) -> None:
        self.experiment = experiment
        self.device = experiment.precision.device
        if budget is None:
            free = torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else 0
            budget = int(_SHARE * free)
        self._room = budget
        self._kept: dict[int, _Held] = {}

    @torch.no_grad()
    def scores(self, key: str | None) -> Tensor:
        """Mean over the cases of the DSC of each class (C - 1,) float64, on the host.

        A class that is absent from a case and not predicted there says nothing about the case and is left out.

        Args:
            key: the predictor; None: by the rule of the method's paper.
        """
        experiment, C = self.experiment, self.experiment.num_classes
        predictor = Predictor(experiment.method, key, experiment.resolved.recipe, C, experiment.precision)
        counts = [
            class_counts(prediction, held, C)
            for group in self._groups(predictor)
            for prediction, held in zip(_segmented(predictor, group), group, strict=True)
        ]
        both, sizes = torch.stack(counts).cpu().double().unbind(1)  # one transfer, and with it the only wait
        return torch.where(sizes > 0, 2 * both / sizes, torch.nan)[:, 1:].nanmean(0)

    def _groups(self, predictor: Predictor) -> Iterator[list[_Held]]:
        """The cases in their order, those together that share forward passes: resized slices of one size, until there
        are enough of them."""
        recipe = self.experiment.resolved.recipe
        enough = predictor.batch() if len(recipe.patch_size) == 2 and recipe.inference.stride is None else 0
        group: list[_Held] = []
        for place in range(len(self.experiment.validation)):
            held = self._held(place, predictor)
            slices = sum(one.volume.shape[1] for one in group)
            if group and (slices >= enough or held.volume.shape[2:] != group[0].volume.shape[2:]):
                yield group
                group = []
            group.append(held)
        if group:
            yield group

    def _held(self, place: int, predictor: Predictor) -> _Held:
        if place in self._kept:
            return self._kept[place]
        case = self.experiment.validation[place]
        label = torch.from_numpy(np.array(case.label, dtype=np.uint8)).flatten().to(self.device)
        held = _Held(predictor.volume(case.image), label, _sizes(label, self.experiment.num_classes))
        if held.bytes <= self._room:
            self._room -= held.bytes
            self._kept[place] = held
        return held


def _segmented(predictor: Predictor, group: list[_Held]) -> Iterator[Tensor]:
    """The labels (N,) of each case of a group."""
    if len(group) == 1:
        return iter([predictor.segment(group[0].volume, validation=True).flatten()])
    labels = predictor.segment(torch.cat([held.volume for held in group], 1), validation=True)
    return (part.flatten() for part in labels.split([held.volume.shape[1] for held in group]))


def class_counts(prediction: Tensor, held: _Held, num_classes: int) -> Tensor:
    """(2, C) int64: by class the voxels in which both have it, and those of both added. Integers: exact in any
    order."""
    agreed = prediction.where(prediction == held.label, num_classes)
    return torch.stack([_sizes(agreed, num_classes), _sizes(prediction, num_classes) + held.sizes])


def _sizes(labels: Tensor, num_classes: int) -> Tensor:
    """(C,) int64: the voxels of each class in labels (N,) uint8."""
    classes = torch.arange(num_classes, dtype=labels.dtype, device=labels.device)
    return (labels == classes.unsqueeze(1)).sum(1)
