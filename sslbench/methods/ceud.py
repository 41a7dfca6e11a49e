"""CEUD: confidences are ranked as the history of training ranks the voxels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from sslbench.core.options import Options
from sslbench.core.registry import register
from sslbench.core.step import Batch, Statistics, Step
from sslbench.data.sampling import window_starts
from sslbench.losses.base import Loss
from sslbench.losses.cross_entropy import classes_of, full_precision
from sslbench.methods.base import Build, Method, Phase, StepCost, mean_logits
from sslbench.networks.base import evaluating

# A training item, and where in it a patch starts.
Place = tuple[int, Sequence[int]]


class CEUDOptions(Options):
    """Options of `ceud`."""

    correctness_weight: float = Field(default=0.5, ge=0, description="of the ranking of labelled voxels (CEUD)")
    consistency_weight: float = Field(
        default=0.1, ge=0, description="w, of the ranking of all voxels, before λ (public code, where none is given)"
    )
    sweep_every: int = Field(
        default=0,
        ge=0,
        description="epochs from one pass over the whole training set to the next, which alone counts (CEUD: 1); 0: "
        "a patch is counted when it is drawn",
    )


@register("method", "ceud")
class ConfidenceEstimation(Method):
    """Supervised loss + ½·R(labelled, correct) + w·λ·R(all, consistent) (CEUD; Li et al., ICLR 2023).

    R ranks confidences κ, the largest probability, of patches as cut, without augmentation: over a random permutation
    of all their voxels and its roll by one, mean relu(|c_j - c_i| - sign(c_j - c_i)·(κ_j - κ_i)). c, scaled to [0, 1]
    over the batch, is how often a voxel was predicted correctly, or as the time before. These passes take batch
    statistics and dropout as in evaluation. Inference: the network.

    How MetaSSL made a baseline of it is not said. Here a voxel is counted when a patch that holds it is drawn, this
    time included, and c is its count over its visits: with visits as many for every voxel, as the whole-set passes of
    the paper make them (`sweep_every`), that is the same. Before the first visit its prediction counts as background.
    An item that a batch holds twice is counted by the later patch where the two overlap.

    Counts are bytes: at 255 visits of a voxel, visits and counts are halved, so that what was long ago weighs less.
    They lie on the device and in every checkpoint: in 2-D two bytes for each pixel of each slice at patch size, in 3-D
    three for each voxel of each volume, one more where there are labels (ACDC at 256²: 0.18 GB with 136 labelled
    slices).

    Cost: one forward and backward pass over the labelled patches, and one over all as cut; with `sweep_every`, a
    forward pass over the training set at the end of so many epochs.

    Deviations:
    - The public code leaves the network in evaluation mode from the first ranking of an epoch to its end, supervised
      passes included; here training mode is restored.
    - The paper's optimiser (Adam, 0.0001), network and length are those of skin lesions; here they are the recipe's.
    """

    title = "CEUD"
    Options: ClassVar[type[BaseModel]] = CEUDOptions
    views = {"labeled": ("weak", "raw"), "unlabeled": ("raw",)}
    term_kinds = ("label",)
    check_exemptions = {"supervised_at_zero": "confidences on labelled patches are ranked too"}
    options: CEUDOptions

    def __init__(self, options: CEUDOptions, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__(options, build, loss, statistics)
        self.net = build("net")
        self.history = History(statistics)

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        L, labels, raw = batch.num_labeled, batch.label["weak"][: batch.num_labeled], batch.image["raw"]
        logits = self.net(batch.image["weak"][:L])
        self.loss.observe(step, "net", logits, labels)
        supervised = self.loss.supervised(logits, labels, key="net")

        with evaluating(self.net):
            confidence, predicted = full_precision(self.net(raw)).softmax(1).max(1)
        # Both are on the CPU: reading them does not wait for a device.
        places = list(zip(batch.index.tolist(), batch.origin.tolist(), strict=True))
        if not self.options.sweep_every:
            self.history.count(places, predicted, predicted[:L] == batch.label["raw"][:L])
        correct = self._ranked(confidence[:L], self.history.correctness(places[:L]), step, "rank/correctness")
        consistent = self._ranked(confidence, self.history.consistency(places), step, "rank/consistency")
        ranking = self.options.correctness_weight * correct
        unlabeled = self.options.consistency_weight * consistent
        loss = supervised + ranking + step.consistency_weight * unlabeled
        return {"loss": loss, "supervised": supervised, "correctness": correct, "consistency": consistent}

    def _ranked(self, confidence: Tensor, share: Tensor, step: Step, stream: str) -> Tensor:
        device = confidence.device
        order = torch.randperm(confidence.numel(), generator=step.generator(stream, device), device=device)
        return ranking_loss(confidence, share, order)

    def after_step(self, step: Step) -> None:
        super().after_step(step)
        if self.options.sweep_every and step.last_of_epoch and (step.epoch + 1) % self.options.sweep_every == 0:
            self._sweep(step)

    @torch.no_grad()
    def _sweep(self, step: Step) -> None:
        """Count the training set once, in windows side by side; the last one of an axis is shifted inward."""
        size = self.statistics.patch_size
        with evaluating(self.net):
            for batch in step.sweep():
                image, label, item = batch.image["raw"], batch.label["raw"], int(batch.index)
                for start in itertools.product(*map(window_starts, image.shape[2:], size, size)):
                    box = tuple(slice(begin, begin + side) for begin, side in zip(start, size, strict=True))
                    predicted = classes_of(self.net(image[:, :, *box]))
                    self.history.count([(item, start)], predicted, (predicted == label[:, *box])[: batch.num_labeled])

    def step_cost(self, phase: Phase) -> StepCost:
        return StepCost(labeled=2, unlabeled=1)

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        return mean_logits([self.net], x)


def ranking_loss(confidence: Tensor, share: Tensor, order: Tensor) -> Tensor:
    """Mean relu(|c_j - c_i| - sign(c_j - c_i)·(κ_j - κ_i)) over neighbours i, j in a ring of voxels (CEUD).

    Pairs of the same c count 0; so do all where every voxel has the same.

    Args:
        confidence: κ, (B, *S).
        share: (B, *S); c is this scaled to [0, 1] over all voxels. No gradient.
        order: (B·voxels,) int64, the ring: a permutation of the voxels.
    """
    low, high = share.min(), share.max()
    c = ((share - low) / (high - low).clamp_min(1e-8)).flatten()[order]
    kappa = confidence.flatten().gather(0, order)
    apart = c - c.roll(1)
    return (apart.abs() - apart.sign() * (kappa - kappa.roll(1))).relu().mean()


class ItemMaps(nn.Module):
    """A byte per voxel of some training items, 0 at first, read and written patch by patch.

    Args:
        shapes: of the items.
        size: of a patch.
    """

    values: Tensor

    def __init__(self, shapes: Sequence[Sequence[int]], size: Sequence[int]) -> None:
        super().__init__()
        self.shapes, self.size = shapes, size
        self.starts = list(itertools.accumulate(map(math.prod, shapes), initial=0))
        self.register_buffer("values", torch.zeros(self.starts[-1], dtype=torch.uint8))

    def read(self, places: Sequence[Place]) -> Tensor:
        """Patches (B, *S), a copy."""
        return torch.stack([self._at(place) for place in places])

    def write(self, places: Sequence[Place], patches: Tensor) -> None:
        """Replace patches (B, *S), one after the other."""
        for place, patch in zip(places, patches, strict=True):
            self._at(place).copy_(patch)

    def _at(self, place: Place) -> Tensor:
        item, origin = place
        whole = self.values[self.starts[item] : self.starts[item + 1]].view(*self.shapes[item])
        return whole[tuple(slice(begin, begin + side) for begin, side in zip(origin, self.size, strict=True))]


class History(nn.Module):
    """How often the voxels of the training items were predicted correctly, and as the time before.

    In 2-D an item is a slice at patch size, visited whole, in 3-D a volume as it is stored, visited patch by patch.

    Args:
        statistics: shapes and numbers of the items.
    """

    def __init__(self, statistics: Statistics) -> None:
        super().__init__()
        size, shapes = statistics.patch_size, statistics.shapes
        whole = len(size) == 2
        if whole:
            shapes = (size,) * len(shapes)
        self.visits = ItemMaps([(1, 1)] * len(shapes) if whole else shapes, size)
        self.same = ItemMaps(shapes, size)
        self.before = ItemMaps(shapes, size)
        self.right = ItemMaps(shapes[: statistics.labeled_items], size)

    @torch.no_grad()
    def count(self, places: Sequence[Place], predicted: Tensor, right: Tensor) -> None:
        """Add a visit.

        Args:
            places: of the patches, labelled ones first.
            predicted: (B, *S) int64 classes.
            right: (L, *S) bool, whether those of the labelled patches are the true ones.
        """
        L = len(right)
        visits = self.visits.read(places)
        # A byte is full: halve what it and its counts hold. A count is at most the visits, so none overflows.
        full = (visits == 255).to(torch.uint8)
        same = (self.same.read(places) >> full) + (predicted == self.before.read(places))
        self.visits.write(places, (visits >> full) + 1)
        self.same.write(places, same)
        self.before.write(places, predicted)
        if L:
            self.right.write(places[:L], (self.right.read(places[:L]) >> full[:L]) + right)

    def correctness(self, places: Sequence[Place]) -> Tensor:
        """Share of correct predictions in the visits, (B, *S) of labelled patches; 0 before the first."""
        return self._share(self.right, places)

    def consistency(self, places: Sequence[Place]) -> Tensor:
        """Share of predictions that were those of the visit before, (B, *S); 0 before the first visit."""
        return self._share(self.same, places)

    def _share(self, counts: ItemMaps, places: Sequence[Place]) -> Tensor:
        return counts.read(places).float() / self.visits.read(places).clamp_min(1)
