"""MagicNet: cubes exchanged between images, and cubes that have to find their place, around a mean teacher."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from sslbench.core import registry
from sslbench.core.options import Iterations, Options
from sslbench.core.step import Batch, Statistics, Step
from sslbench.losses.base import Loss, TermArguments
from sslbench.losses.cross_entropy import classes_of, cross_entropy, full_precision
from sslbench.losses.per_class import PerClass
from sslbench.methods.base import EMA, Build, Phase, StepCost
from sslbench.methods.shared.cubes import cube_restore, cube_shuffle, join_cubes, split_cubes
from sslbench.methods.shared.teacher_student import TeacherStudent, clipped_noise
from sslbench.networks import Features

if TYPE_CHECKING:
    from sslbench.config.job import ResolvedJob

__all__ = ["MagicNet", "blend_pseudo_labels", "cube_restore", "cube_shuffle", "join_cubes", "split_cubes"]


class MagicNetOptions(Options):
    """Options of `magicnet`."""

    cube: int = Field(default=32, ge=1, description="side of a cube in voxels (MagicNet: 32, of patches of 96)")
    location_weight: float = Field(default=0.1, ge=0, description="of the loss of a cube's place (MagicNet)")
    location_width: int = Field(default=4096, ge=1, description="hidden units of the head that tells it (MagicNet)")
    ema_decay: float = Field(default=0.99, ge=0, le=1, description="of the teacher, with warm-up (MagicNet)")
    noise_std: float = Field(default=0.1, ge=0, description="of the noise on the teacher's input (MagicNet)")
    noise_clip: float = Field(default=0.2, ge=0, description="the noise is clipped to ± this (MagicNet)")
    blend_after: Iterations = Field(
        default=100, ge=0, description="last iteration whose pseudo-labels are the teacher's alone"
    )
    refresh_every: int = Field(default=20, ge=1, description="iterations between two counts of classes (MagicNet)")
    temperature: float = Field(default=1.0, gt=0, description="T of a class's weight (its share)^(1/T) (MagicNet: 1)")
    released_blending: bool = Field(
        default=False, description="blend with the cubes of labelled patches, as the code had it until December 2023"
    )
    released_stitching: bool = Field(
        default=False, description="put the cube of place (z, y, x) at (x, y, z), as the code does"
    )


@registry.register("method", "magicnet")
class MagicNet(TeacherStudent):
    """Cubes exchanged between images and put back, cubes seen alone, and pseudo-labels blended of both kinds of sight
    (MagicNet; Chen et al., CVPR 2023).

    The student sees the patches as they are (x); with the cubes of every place dealt out anew among the patches of the
    batch, its finest map being put back before the head (x_cross); and cube by cube, the finest maps put together
    before the head (x_within). A head on the bottleneck tells every cube's place. With labels: [CE(x) + Dice(x) +
    Dice(x_cross) + Dice(x_within)] / 4. Without: λ·Dice(x_cross, pseudo-label). The pseudo-label is the class of
    (1 - ω)·teacher + ω·x_within, logits, where ω is the share, over the largest one, that the teacher's class had of
    the last pseudo-labels: frequent classes trust the cubes, rare ones the teacher. In 2-D cubes are squares.
    Inference: the student.

    Cost: three forward and backward passes over all patches (as they are, mixed, cut), the third without a decoder's
    backward on unlabelled ones, and one forward over the unlabelled ones; over all with a loss that needs a reference.

    Deviations:
    - cubes of all patches go through the encoder at once, which is what one patch after the other gives under instance
      norm; the head's batch statistics are those of one patch, as in the code
    - the cubes are not shuffled before the head, and their places are counted row by row: neither changes the loss
    - cubes go through the bare network, without a plugin's prior
    - the head is the student's alone: the unused copy in the teacher is left out
    - under batch norm (2-D, the demo) running statistics see whole patches, mixed ones and cubes in turns
    """

    title = "MagicNet"
    Options: ClassVar[type[BaseModel]] = MagicNetOptions
    made_targets = {"student": "the teacher's, blended with the student's own of cubes put together"}
    term_kinds = ("label", "pseudo")
    check_exemptions = {
        "blind_at_zero": "cubes of unlabelled patches are mixed into labelled ones, and their places are learned",
        "supervised_at_zero": "it supervises labelled patches whole, mixed and cut, and learns where cubes lie",
    }
    check_settings = {"method.cube": 16}
    options: MagicNetOptions
    class_counts: Tensor
    pending: Tensor

    @classmethod
    def objection(cls, job: ResolvedJob) -> str | None:
        sides, (name, options) = job.recipe.patch_size, (job.recipe.network.name, job.recipe.network.options)
        network = registry.component("network", name)
        if network.sized:
            return f"{name} takes images of patch_size alone, and cubes are smaller: set network.name"
        divisor, least = network.divisor_of(options), network.least_side(options)
        fits = [cube for cube in range(least, max(sides), divisor) if not any(side % cube for side in sides)]
        if job.method["cube"] in fits:
            return None
        remedy = f"method.cube can be {', '.join(map(str, fits))}" if fits else "set another patch_size"
        return f"cubes of side {job.method['cube']} do not cut a patch of {sides} into several: {remedy}"

    def __init__(self, options: MagicNetOptions, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__(options, build, loss, statistics)
        base = self.student.base
        self.grid = tuple(side // options.cube for side in statistics.patch_size)
        self.cubes = math.prod(self.grid)
        width = base.channels[-1] * (options.cube // base.divisor) ** len(self.grid)
        self.location = build.module("location", lambda: _location_head(width, options.location_width, self.cubes))
        for name in ("class_counts", "pending"):
            self.register_buffer(name, torch.zeros(statistics.num_classes, dtype=torch.int64))

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        image, labels, L = batch.image["weak"], batch.label["weak"], batch.num_labeled
        logits, cross = self.student(image), self._cross(image, step)
        noise = clipped_noise(image, step, self.options.noise_std, self.options.noise_clip)
        labeled, unlabeled = self.teacher_logits(image + noise, logits, labels, L, step)
        features = self.student.base.encode(split_cubes(image, self.options.cube).flatten(0, 1))
        within = self._together(features, slice(0, L))

        known: TermArguments = {"reference": self.reference("teacher", labeled)}
        dices = [
            self.loss.dice(part[:L], labels[:L], source="label", key="student", **known) for part in (cross, within)
        ]
        whole = self.loss.supervised(logits[:L], labels[:L], key="student", **known)
        supervised = (whole + self.loss.criteria.dice_weight * torch.stack(dices).sum()) / 4
        location = self._location(features.maps[-1])
        consistency = self.loss.dice(
            cross[L:],
            self._pseudo_labels(unlabeled, features, step),
            source="pseudo",
            key="student",
            reference=self.reference("teacher", unlabeled),
        )
        loss = supervised + self.options.location_weight * location + step.consistency_weight * consistency
        return {"loss": loss, "supervised": supervised, "location": location, "consistency": consistency}

    def _cross(self, image: Tensor, step: Step) -> Tensor:
        """Logits of patches that were seen with their cubes dealt out among the batch."""
        generator = step.generator("cubes", image.device)
        perm = torch.rand((len(image), *self.grid), generator=generator, device=image.device).argsort(0)
        content = self.student.decode(self.student.encode(cube_shuffle(image, perm)))[-1]
        return self.student.head(cube_restore(content, perm))

    def _together(self, features: Features, patches: slice) -> Tensor:
        """Logits of some patches from the encoder's maps of all their cubes, which the decoder reads one by one."""
        base = self.student.base
        cubes = slice(patches.start * self.cubes, patches.stop * self.cubes)
        pieces = base.decode(features.map(lambda stage, content: content[cubes]))[-1].unflatten(0, (-1, self.cubes))
        if self.options.released_stitching:
            places = torch.arange(self.cubes, device=pieces.device).view(self.grid)
            pieces = pieces[:, places.permute(*reversed(range(places.ndim))).flatten()]
        return base.head(join_cubes(pieces, self.statistics.patch_size))

    def _location(self, bottleneck: Tensor) -> Tensor:
        """Cross-entropy of the cubes' places; each patch by itself, for the head's batch statistics."""
        patches = bottleneck.flatten(1).unflatten(0, (-1, self.cubes))
        told = torch.cat([self.location(patch) for patch in patches])
        return cross_entropy(told, torch.arange(self.cubes, device=told.device).repeat(len(patches)))

    @torch.no_grad()
    def _pseudo_labels(self, teacher_logits: Tensor, features: Features, step: Step) -> Tensor:
        """Labels (U, *S) of the unlabelled patches; they are counted for those to come."""
        U = len(teacher_logits)
        if step.iteration > self.options.blend_after:
            first = 0 if self.options.released_blending else len(features.maps[-1]) // self.cubes - U
            within = self._together(features, slice(first, first + U))
            _, labels = blend_pseudo_labels(teacher_logits, within, self.class_counts, self.options.temperature)
        else:
            labels = classes_of(teacher_logits)
        flat = labels.flatten(1)
        counted = PerClass(flat, len(self.pending)).sum(torch.ones_like(flat, dtype=torch.float32))
        self.pending += counted.sum(0).long()
        if step.iteration % self.options.refresh_every == 0:
            self.class_counts.copy_(self.pending)
            self.pending.zero_()
        return labels

    def average(self) -> EMA:
        return EMA("teacher", "student", self.options.ema_decay)

    def step_cost(self, phase: Phase) -> StepCost:
        reference = float(self.loss.needs_reference)
        return StepCost(labeled=3, unlabeled=3, undecoded=1, labeled_forward=reference, unlabeled_forward=1)


registry.register(
    "method", "magicnet_released", preset_of="magicnet", set={"released_blending": True, "released_stitching": True}
)


def blend_pseudo_labels(
    teacher_logits: Tensor, cube_logits: Tensor, class_counts: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """(1 - ω)·teacher + ω·cubes on logits, ω = (R_c / max R)^(1/T) of the class c that the teacher names (MagicNet).

    Args:
        teacher_logits: (B, C, *S), of whole patches.
        cube_logits: (B, C, *S), of cubes put together.
        class_counts: R, (C,), how often each class was a pseudo-label lately; all 0: the teacher alone.
        temperature: T.

    Returns:
        Probabilities (B, C, *S) of the blend, fp32, and its labels (B, *S).
    """
    counts = class_counts.float()
    share = (counts / counts.max().clamp_min(torch.finfo(torch.float32).tiny)) ** (1 / temperature)
    trust = share[classes_of(teacher_logits)].unsqueeze(1)
    blended = full_precision(teacher_logits).lerp(full_precision(cube_logits), trust)
    return blended.softmax(1), classes_of(blended)


def _location_head(width: int, hidden: int, places: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, places))
