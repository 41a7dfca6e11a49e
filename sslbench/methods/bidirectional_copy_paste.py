"""Bidirectional copy-paste: labelled images in unlabelled ones, and the other way round."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from sslbench.losses.base import Source, TermArguments
from sslbench.methods.base import Average, Batch, Passes, Phase, Step
from sslbench.methods.mixing import draw_copy_paste_mask, largest_components, paste
from sslbench.methods.teacher_student import TeacherStudent
from sslbench.registry import register

if TYPE_CHECKING:
    from sslbench.config import ResolvedJob


class BCPOptions(BaseModel):
    """Options of `bcp`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    pretrain_iterations: int = Field(
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


@register("method", "bcp")
class BidirectionalCopyPaste(TeacherStudent):
    """Images of half labelled, half unlabelled content, supervised region by region (BCP; Bai et al., CVPR 2023).

    Before: labelled patches a and b, x = a·M + b·(1 - M), M 0 in a random box. Then, from the best such weights, the
    teacher labels the unlabelled patches a and b, and the student learns from a_U·M + a_L·(1 - M) and b_L·M +
    b_U·(1 - M): a labelled region weighs 1, a pseudo-labelled one u. Both mixes go apart through the student, so that
    each has its own batch statistics. Criteria are those of the recipe, each a mean over its region. Inference: the
    student.

    A loss that needs a reference gets the teacher's predictions of the images before they were mixed, pasted alike;
    in the phase before there is no teacher yet, and the learner is its own reference.

    Cost: forward and backward over as many mixed images as there are labelled patches, and one forward over the
    unlabelled ones; half of that, without the teacher, before. With a loss that needs a reference, one more forward
    over the labelled patches.

    Deviations:
    - LA's code pastes the other way round; as both halves of a batch are drawn alike, that is the same.
    - The unused SS-Net heads of the authors' network are left out; they take no gradient.
    - LA's linear Dice is a mean over patches there; here every Dice pools the batch, as `criteria` has it.
    """

    title = "BCP"
    Options: ClassVar[type[BaseModel]] = BCPOptions
    defaults = {"criteria.smooth": 1e-10}
    terms = ("label", "pseudo")
    unlabeled_weight = "unlabeled_weight"
    exempt = {
        "blind_at_zero": "pasted unlabelled content is what labelled voxels are seen beside",
        "supervised_at_zero": "it never sees a labelled patch unmixed",
    }
    options: BCPOptions

    @classmethod
    def objection(cls, job: ResolvedJob) -> str | None:
        batch = job.recipe.batch
        if batch.labeled != batch.unlabeled or batch.labeled % 2:
            return (
                f"it pastes halves of the batch into each other: batch.labeled and batch.unlabeled must be even and "
                f"equal, not {batch.labeled} and {batch.unlabeled}"
            )
        return None

    def phases(self) -> list[Phase]:
        return [
            Phase("pretrain", self.options.pretrain_iterations, streams=("labeled",)),
            Phase("self-train", optimizer="keep" if self.options.keep_optimizer else "fresh"),
        ]

    def begin(self, phase: Phase) -> None:
        if phase.name == "self-train":
            self.teacher.load_state_dict(self.student.state_dict())

    def average(self) -> Average:
        return Average(
            "teacher",
            "student",
            self.options.ema_decay,
            warm_up=None,
            buffers=self.options.ema_buffers,
            phase="self-train",
        )

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        image, labels, L = batch.image["weak"], batch.label["weak"], batch.num_labeled
        mask = draw_copy_paste_mask(image.shape[2:], step, image.device, self.options.box)
        la, lb, ua, ub = (slice(start, start + L // 2) for start in range(0, 2 * L, L // 2))
        if step.phase == "pretrain":
            return {"loss": self._pretrain(image, labels, la, lb, mask, step)}
        halves = (la, lb, ua, ub) if self.loss.needs_reference else (ua, ub)
        with torch.no_grad():
            taught = torch.cat([self.teacher(image[half]) for half in halves])
        self.loss.observe(step, "teacher", taught, labels[-len(taught) :])
        pseudo = taught[-L:].argmax(1)
        if self.options.largest_component:
            pseudo = largest_components(pseudo, self.statistics.num_classes)
        targets = torch.cat([labels[:L], pseudo])

        mixes = ((ua, la), (lb, ub))  # outside the box, inside it
        logits = [self.student(paste(image[outside], image[inside], mask)) for outside, inside in mixes]
        known = [paste(labels[outside], labels[inside], mask) for outside, inside in mixes]
        self.loss.observe(step, "student", torch.cat(logits), torch.cat(known))
        terms: dict[Source, list[Tensor]] = {"label": [], "pseudo": []}
        for mixed, mix in zip(logits, mixes, strict=True):
            for half, region in zip(mix, (mask, 1 - mask), strict=True):
                source: Source = "label" if half.start < L else "pseudo"
                reference = self.reference("teacher", taught[half]) if len(taught) == len(image) else None
                terms[source].append(self._region(mixed, targets[half], region, source, reference))
        labeled, unlabeled = (torch.stack(terms[source]).sum() for source in ("label", "pseudo"))
        loss = labeled + self.options.unlabeled_weight * unlabeled
        return {"loss": loss, "labeled": labeled, "unlabeled": unlabeled}

    def _pretrain(self, image: Tensor, labels: Tensor, a: slice, b: slice, mask: Tensor, step: Step) -> Tensor:
        logits, mixed = self.student(paste(image[a], image[b], mask)), paste(labels[a], labels[b], mask)
        self.loss.observe(step, "student", logits, mixed)
        if not self.options.pretrain_regions:
            return self.loss.supervised(logits, mixed, key="student")
        return self._region(logits, labels[a], mask, "label") + self._region(logits, labels[b], 1 - mask, "label")

    def _region(
        self,
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
            return loss.supervised(logits, target, source=source, key="student", **inside)
        background = torch.zeros(logits.shape[1], device=logits.device)
        background[0] = 1
        foreground: TermArguments = {**inside, "class_weight": 1 - background}
        everywhere: TermArguments = {"reference": reference, "class_weight": background}
        ce = loss.ce(logits, target, source=source, key="student", **inside)
        dice = loss.dice(logits, target, source=source, key="student", **foreground)
        whole = loss.dice(logits, target, source=source, key="student", **everywhere)
        return criteria.ce_weight * ce + criteria.dice_weight * (dice + whole)

    def passes(self, phase: Phase) -> Passes:
        if phase.name == "pretrain":
            return Passes(labeled=0.5, unlabeled=0)
        return Passes(labeled=0.5, unlabeled=0.5, labeled_forward=float(self.loss.needs_reference), unlabeled_forward=1)
