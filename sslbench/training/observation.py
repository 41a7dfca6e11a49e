"""What is seen of validation cases beside the score: MetaSSL's regions, and the agreement of predictors.

Nothing of it reaches the training. It works for any method under any loss, so that one figure may hold a plain CPS and
one under MetaSSL: the regions are those of `losses.quadripartition` with the thresholds of equation 9 on the case
itself, whatever thresholds a loss may learn.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sslbench.inference.predictor import Predictor
from sslbench.losses.quadripartition import REGIONS
from sslbench.methods.base import Method, Phase
from sslbench.metrics.overlap import dice_of_classes
from sslbench.training.experiment import Experiment, ValidationCase

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Seen:
    """What a predictor says of a case, flat.

    Attributes:
        labels: (N,) int64.
        confidence: (N,) float64, the probability of each label.
    """

    labels: Counts
    confidence: NDArray[np.float64]


class Observer:
    """Looks at validation cases as a recipe's `observe` asks.

    Args:
        experiment: whose method, cases and recipe.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.method = experiment, experiment.method
        self.recipe = experiment.resolved.recipe

    def entries(self, phase: Phase) -> Iterator[dict[str, Any]]:
        """Yield a record per case, the tiles of an image taken together; none where nothing is to observe.

        Args:
            phase: whose predictors, and the teachers that follow them in it.
        """
        references = references_of(self.method, phase)
        pairs = list(itertools.combinations(dict.fromkeys((*references, *references.values())), 2))
        wanted = self.recipe.observe
        for case, tiles in itertools.groupby(self.experiment.validation, lambda tile: tile.id):
            regions: dict[str, Counts] = {}
            agreement: dict[str, Counts] = {}
            for tile in tiles:
                seen = self._seen(tile, {*references, *references.values()})
                truth, C = tile.label.astype(np.int64).ravel(), self.experiment.num_classes
                for key, name in references.items() if "regions" in wanted else ():
                    _add(regions, key, region_counts(seen[key], seen[name], truth, C))
                for one, other in pairs if "agreement" in wanted else ():
                    _add(agreement, f"{one}/{other}", _pair_counts(seen[one].labels, seen[other].labels, C))
            entry: dict[str, Any] = {}
            if regions:
                entry["regions"] = {
                    key: {"reference": references[key], **region_numbers(counts)} for key, counts in regions.items()
                }
            if agreement:
                entry["agreement"] = {pair: self._agreement(counts) for pair, counts in agreement.items()}
            if entry:
                yield {"case": case, **entry}

    def _seen(self, case: ValidationCase, names: set[str]) -> dict[str, Seen]:
        return {name: self._seen_by(name, case) for name in sorted(names)}

    def _seen_by(self, name: str, case: ValidationCase) -> Seen:
        own = name in self.method.predictors
        predictor = Predictor(
            self.method,
            name if own else None,
            self.recipe,
            self.experiment.num_classes,
            self.experiment.precision,
            None if own else self.method.get_submodule(name),
        )
        confidence, labels = predictor.scores(case.image, validation=True).max(0)
        return Seen(labels.flatten().cpu().numpy(), confidence.flatten().double().cpu().numpy())

    def _agreement(self, counts: Counts) -> dict[str, Any]:
        per_class = dice_of_classes(counts)[1:]
        return {
            "voxels": _share(np.diagonal(counts).sum(), counts.sum()),
            "dsc": _mean(per_class),
            "dsc/class": {
                short: _number(value) for short, value in zip(self.experiment.classes, per_class, strict=True)
            },
        }


def references_of(method: Method, phase: Phase) -> Mapping[str, str]:
    """What each predictor of a phase is held against: the first of its teachers that is another predictor of the phase,
    or a moving average that follows one in it; else itself."""
    keys = phase.predictors or method.predictors
    averages = {average.teacher for average in method.averages() if average.phase in (None, phase.name)}
    known, teachers = {*keys, *averages}, method.teachers()
    return {key: next((name for name in teachers.get(key, ()) if name != key and name in known), key) for key in keys}


def region_counts(learner: Seen, reference: Seen, truth: Counts, num_classes: int) -> Counts:
    """Voxels by region, by what the learner and what the reference says, and by the truth: (4, 2, C, C).

    A voxel is confident where the reference is surer than on the mean voxel of the class that it names there.

    Args:
        learner, reference: of one case.
        truth: (N,) labels.
        num_classes: C.
    """
    C = num_classes
    voxels = np.bincount(reference.labels, minlength=C)
    thresholds = np.bincount(reference.labels, reference.confidence, C) / np.maximum(voxels, 1)
    suspicious = reference.confidence <= thresholds[reference.labels]
    regions = 2 * (learner.labels != reference.labels) + suspicious
    told = [
        np.bincount((regions * C + labels) * C + truth, minlength=len(REGIONS) * C * C).reshape(len(REGIONS), C, C)
        for labels in (learner.labels, reference.labels)
    ]
    return np.stack(told, axis=1)


def region_numbers(counts: Counts) -> dict[str, dict[str, float | None]]:
    """By region: its `share` of the voxels; the `accuracy` of the reference's labels in it, and of the learner's own;
    the reference's `dsc` in it, the mean over classes that are there. None where no voxel says anything.

    Args:
        counts: (4, 2, C, C) of `region_counts`.
    """
    everywhere = counts[:, 1].sum()
    found: dict[str, dict[str, float | None]] = {"share": {}, "accuracy": {}, "accuracy/learner": {}, "dsc": {}}
    for name, (learner, reference) in zip(REGIONS, counts, strict=True):
        found["share"][name] = _share(reference.sum(), everywhere)
        found["accuracy"][name] = _share(np.diagonal(reference).sum(), reference.sum())
        found["accuracy/learner"][name] = _share(np.diagonal(learner).sum(), learner.sum())
        found["dsc"][name] = _mean(dice_of_classes(reference)[1:])
    return found


def _add(table: dict[str, Counts], name: str, counts: Counts) -> None:
    table[name] = table[name] + counts if name in table else counts


def _pair_counts(one: Counts, other: Counts, C: int) -> Counts:
    return np.bincount(one * C + other, minlength=C * C).reshape(C, C)


def _share(part: np.int64, whole: np.int64) -> float | None:
    return round(float(part / whole), 6) if whole else None


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return _number(known.mean()) if known.size else None


def _number(value: np.float64) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
