"""Bidirectional copy-paste: labelled images in unlabelled ones, and the other way round."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from sslbench.core.registry import register
from sslbench.core.step import Batch, Step
from sslbench.methods.shared.copy_paste import CopyPaste, CopyPasteOptions


class BCPOptions(CopyPasteOptions):
    """Options of `bcp`."""


@register("method", "bcp")
class BidirectionalCopyPaste(CopyPaste):
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
    predictors = ("student",)
    Options: ClassVar[type[BaseModel]] = BCPOptions
    student: nn.Module

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        image, labels, mixes = batch.image["weak"], batch.label["weak"], self.mixes(batch, step)
        if step.phase == "pretrain":
            return {"loss": self.pretrain_loss("student", batch, mixes.mask, step)}
        teacher_output = self.teacher_output(image, labels, mixes)
        self.loss.observe(step, "teacher", teacher_output.logits, labels[-len(teacher_output.logits) :])
        logits = [self.student(mixed) for mixed in mixes(image)]
        self.loss.observe(step, "student", torch.cat(logits), torch.cat(mixes(labels)))
        labeled, unlabeled = self.mixed_losses("student", logits, teacher_output, mixes)
        loss = labeled + self.options.unlabeled_weight * unlabeled
        return {"loss": loss, "labeled": labeled, "unlabeled": unlabeled}
