"""The step that the copy-paste methods share (BCP, SDCL, ABD, β-FFT): halves of labelled and unlabelled patches pasted
into each other, supervised region by region, after a phase on labelled patches alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from sslbench.core import registry
from sslbench.core.options import Iterations, Options
from sslbench.core.step import Batch, Statistics, Step
from sslbench.losses.base import Loss, Source, TermArguments, TermKind
from sslbench.methods.base import EMA, Build, Method, Phase, StepCost, mean_logits
from sslbench.methods.mixing import draw_copy_paste_mask, largest_components, paste

if TYPE_CHECKING:
    from sslbench.config.job import ResolvedJob


class CopyPasteOptions(Options):
    """What every copy-paste method has."""

    pretrain_iterations: Iterations = Field(
        default=10_000, ge=1, description="of the labelled copy-paste before (BCP on ACDC; LA: 2000)"
    )
    pretrain_regions: bool = Field(
        default=True,
        description="before: the sum of both regions' losses (BCP on ACDC); off: one loss of the mixed labels (LA)",
    )
    keep_optimizer: bool = Field(
        default=True, description="go on with the optimiser state of the best weights before (BCP on ACDC; LA: off)"
    )
    box: float = Field(default=2 / 3, gt=0, lt=1, description="sides of the pasted box in those of the patch (BCP)")
    unlabeled_weight: float = Field(default=0.5, ge=0, description="u, weight of a pseudo-labelled region (BCP)")
    ema_decay: float = Field(default=0.99, ge=0, le=1, description="of the teacher, constant (BCP)")
    ema_buffers: bool = Field(default=True, description="average batch statistics too (BCP on ACDC; LA: off)")
    largest_component: bool = Field(
        default=True, description="keep the largest component of each class of a pseudo-label (BCP)"
    )
    released_bcp_bgmask: bool = Field(
        default=False,
        description="the background's Dice of either region over the whole image, as BCP's code had it until October "
        "2023 (and ABD's has)",
    )


@dataclass(frozen=True)
class Mixes:
    """The two mixes of a batch of L labelled and L unlabelled patches, each of L/2 patches: with a and b the first and
    second halves of either, U_a outside of the box and L_a inside it; L_b outside and U_b inside.

    Attributes:
        mask: (*S) float32, 0 inside the box and 1 outside.
        num_labeled: L, even.
    """

    mask: Tensor
    num_labeled: int

    @property
    def halves(self) -> tuple[slice, slice, slice, slice]:
        """L_a, L_b, U_a, U_b in the batch."""
        L = self.num_labeled
        la, lb, ua, ub = (slice(start, start + L // 2) for start in range(0, 2 * L, L // 2))
        return la, lb, ua, ub

    @property
    def pairs(self) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """What is outside of the box and what inside it, of either mix."""
        la, lb, ua, ub = self.halves
        return (ua, la), (lb, ub)

    def __call__(self, values: Tensor) -> list[Tensor]:
        """Images, labels or predictions (2L, ...) of the batch, mixed: (L/2, ...) of either mix."""
        return [paste(values[outside], values[inside], self.mask) for outside, inside in self.pairs]


@dataclass(frozen=True)
class TeacherOutput:
    """The teacher's output for a batch, and the targets that follow.

    Attributes:
        logits: the teacher's, of the unlabelled patches (L, C, *S), or with a loss that needs references of all
            (2L, C, *S).
        targets: (2L, *S) int64, labels and then pseudo-labels.
    """

    logits: Tensor
    targets: Tensor


class CopyPaste(Method):
    """Students on mixed patches, and a teacher that follows the first of them.

    Before, students learn from labelled patches pasted into each other; the self-training begins with the best of those
    weights. The teacher stays in training mode.
    """

    Options: ClassVar[type[BaseModel]] = CopyPasteOptions
    defaults = {"criteria.smooth": 1e-10}
    term_kinds: ClassVar[tuple[TermKind, ...]] = ("label", "pseudo")
    unlabeled_weight = "unlabeled_weight"
    alone = {"pretrain": "there is no teacher yet"}
    check_exemptions = {
        "blind_at_zero": "pasted unlabelled content is what labelled voxels are seen beside",
        "supervised_at_zero": "it never sees a labelled patch unmixed",
    }
    options: CopyPasteOptions

    def __init__(self, options: CopyPasteOptions, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__(options, build, loss, statistics)
        for key in self.predictors:
            self.add_module(key, self.make_student(build, key))
        self.teacher = build.ema(self.get_submodule(self.predictors[0]))

    def make_student(self, build: Build, key: str) -> nn.Module:
        """The network of a student, in the order of `predictors`: the recipe's unless the method says otherwise."""
        return build(key)

    @classmethod
    def objection(cls, job: ResolvedJob) -> str | None:
        batch = job.recipe.batch
        if batch.labeled != batch.unlabeled or batch.labeled % 2:
            return (
                f"it pastes halves of the batch into each other: batch.labeled and batch.unlabeled must be even and "
                f"equal, not {batch.labeled} and {batch.unlabeled}"
            )
        network = registry.component("network", job.recipe.network.name)
        options = job.recipe.network.options
        norm = getattr(network.Options(**options), "norm", "batch")
        deepest = math.prod(side // network.divisor_of(options) for side in job.recipe.patch_size)
        mixed = 1 if norm == "instance" else batch.labeled // 2  # patches that are normalised together
        if norm != "none" and deepest * mixed == 1:
            return (
                f"it mixes {batch.labeled // 2} patch at a time, of which {job.recipe.patch_size} leaves one voxel"
                f" in the deepest stage and nothing to normalise by: set a larger patch_size, for example"
                f" {[2 * side for side in job.recipe.patch_size]}"
            )
        return None

    def phases(self) -> list[Phase]:
        return [
            Phase("pretrain", self.options.pretrain_iterations, streams=("labeled",)),
            Phase("self-train", optimizer="keep" if self.options.keep_optimizer else "fresh"),
        ]

    def begin(self, phase: Phase) -> None:
        if phase.name == "self-train":
            self.teacher.load_state_dict(self.get_submodule(self.predictors[0]).state_dict())

    def averages(self) -> Sequence[EMA]:
        decay, buffers = self.options.ema_decay, self.options.ema_buffers
        return [EMA("teacher", self.predictors[0], decay, warm_up=None, buffers=buffers, phase="self-train")]

    # ------------------------------------------------------------------------------------------- pieces of a step

    def mixes(self, batch: Batch, step: Step) -> Mixes:
        """The mixes of this step: one box for all patches of a batch, and all its views."""
        image = batch.image["weak"]
        mask = draw_copy_paste_mask(image.shape[2:], step, image.device, self.options.box)
        return Mixes(mask, batch.num_labeled)

    def pretrain_loss(self, key: str, batch: Batch, mask: Tensor, step: Step) -> Tensor:
        """The loss of student `key` on labelled patches alone, the second half of them inside the box (*S) in the
        first."""
        image, labels, half = batch.image["weak"], batch.label["weak"], batch.num_labeled // 2
        a, b = slice(0, half), slice(half, 2 * half)
        logits = self.get_submodule(key)(paste(image[a], image[b], mask))
        mixed = paste(labels[a], labels[b], mask)
        self.loss.observe(step, key, logits, mixed)
        if not self.options.pretrain_regions:
            return self.loss.supervised(logits, mixed, key=key)
        return self.region_loss(key, logits, labels[a], mask, "label") + self.region_loss(
            key, logits, labels[b], 1 - mask, "label"
        )

    def teacher_output(self, image: Tensor, labels: Tensor, mixes: Mixes) -> TeacherOutput:
        """The teacher's output for the patches (2L, channels, *S) of a batch, half by half, and the targets that follow
        from it beside the labels (2L, *S)."""
        L, halves = mixes.num_labeled, mixes.halves
        with torch.no_grad():
            logits = torch.cat([self.teacher(image[half]) for half in halves[0 if self.loss.needs_reference else 2 :]])
        return TeacherOutput(logits, torch.cat([labels[:L], self.pseudo_labels("teacher", logits[-L:])]))

    def pseudo_labels(self, key: str, scores: Tensor) -> Tensor:
        labels = super().pseudo_labels(key, scores)
        cleaned = key == "teacher" and self.options.largest_component
        return largest_components(labels, self.statistics.num_classes) if cleaned else labels

    def mixed_losses(
        self, key: str, logits: Sequence[Tensor], teacher_output: TeacherOutput, mixes: Mixes
    ) -> tuple[Tensor, Tensor]:
        """The criteria over the labelled and over the pseudo-labelled regions of both mixes, each the sum of the two.

        Args:
            key: the student that learns.
            logits: its own (L/2, C, *S), of either mix.
            teacher_output: of the same view of the batch.
            mixes: of this step.
        """
        terms: dict[Source, list[Tensor]] = {"label": [], "pseudo": []}
        for mixed, pair in zip(logits, mixes.pairs, strict=True):
            for half, region in zip(pair, (mixes.mask, 1 - mixes.mask), strict=True):
                source: Source = "label" if half.start < mixes.num_labeled else "pseudo"
                known = len(teacher_output.logits) == len(teacher_output.targets)
                reference = self.reference("teacher", teacher_output.logits[half]) if known else None
                terms[source].append(
                    self.region_loss(key, mixed, teacher_output.targets[half], region, source, reference)
                )
        labeled, unlabeled = (torch.stack(terms[source]).sum() for source in ("label", "pseudo"))
        return labeled, unlabeled

    def region_loss(
        self,
        key: str,
        logits: Tensor,
        target: Tensor,
        region: Tensor,
        source: Source,
        reference: tuple[str, Tensor] | None = None,
    ) -> Tensor:
        """The criteria over one region (*S) of mixed images, whose labels are those of the image that it is from."""
        inside: TermArguments = {"reference": reference, "mask": region.expand(target.shape)}
        loss, criteria = self.loss, self.loss.criteria
        if not self.options.released_bcp_bgmask:
            return loss.supervised(logits, target, source=source, key=key, **inside)
        background = torch.zeros(logits.shape[1], device=logits.device)
        background[0] = 1
        foreground: TermArguments = {**inside, "class_weight": 1 - background}
        everywhere: TermArguments = {"reference": reference, "class_weight": background}
        ce = loss.ce(logits, target, source=source, key=key, **inside)
        dice = loss.dice(logits, target, source=source, key=key, **foreground)
        whole = loss.dice(logits, target, source=source, key=key, **everywhere)
        return criteria.ce_weight * ce + criteria.dice_weight * (dice + whole)

    def step_cost(self, phase: Phase) -> StepCost:
        mixed = 0.5 * len(
            phase.predictors or self.predictors
        )  # every student of the phase sees halves pasted into each other
        if phase.name == "pretrain":
            return StepCost(labeled=mixed, unlabeled=0)
        known = float(self.loss.needs_reference)
        return StepCost(labeled=mixed, unlabeled=mixed, labeled_forward=known, unlabeled_forward=1)

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        return mean_logits([self.get_submodule(self.predictors[0] if key is None else key)], x)
