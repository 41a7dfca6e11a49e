"""Basak et al.: a teacher's labels, sampled by how badly each class does on three indicators fused by fuzzy ranks."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from sslbench.core.options import Options
from sslbench.core.registry import register
from sslbench.core.step import Batch, Statistics, Step
from sslbench.losses.base import Loss
from sslbench.losses.cross_entropy import classes_of, full_precision
from sslbench.losses.per_class import PerClass
from sslbench.losses.weighting.sampling import cld_sampling_rate, sampled
from sslbench.methods.base import EMA, Build
from sslbench.methods.shared.teacher_student import TeacherStudent

_PENALTY = 0.632  # rank of an indicator of 0, which is 1 - 1/e, as the code rounds it


class BasakOptions(Options):
    """Options of `basak`."""

    ema_decay: float = Field(default=0.99, ge=0, le=1, description="of the teacher, its warm-up by epochs (DHC port)")
    momentum: float = Field(default=0.99, ge=0, le=1, description="of the classes' confidences, by epochs (DHC port)")
    gamma: float = Field(default=2.5, ge=0, description="exponent of the sampling rate (Basak et al.: λ)")
    beta: float = Field(default=1.5, ge=0, description="exponent of a voxel's confidence (Basak et al.: β)")
    top: int | None = Field(
        default=None, gt=0, description="classes whose rank counts; none: all but two (the code's 12 of Synapse's 14)"
    )
    released_broadcast: bool = Field(
        default=False,
        description="indicators summed over all labelled patches at the same place, as in the code",
    )
    released_means: bool = Field(
        default=False,
        description="means over all steps of an epoch, those without the class counting 0, as in the code",
    )


class Indicators(NamedTuple):
    """Sums (C,) over the labelled voxels of each class, and how many they are.

    Attributes:
        entropy: p·Σ_k ln p_k, p of the true class.
        confidence: p.
        variance: max_k p_k - p.
        voxels: the count.
    """

    entropy: Tensor
    confidence: Tensor
    variance: Tensor
    voxels: Tensor


@register("method", "basak", aliases=("acisis",))
class Basak(TeacherStudent):
    """Supervised loss + λ·mean v·CE(student, argmax teacher), v = Bernoulli(rate of the student's class)·(max p)^β, on
    unlabelled patches (Basak, Ghosal and Sarkar, MICCAI 2022; in 3-D by DHC's authors).

    Three indicators are averaged over the labelled voxels of each class of a step, then over the steps of an epoch
    (`Indicators`), and fused to a confidence 0 to 1 (`fused_confidence`), which is averaged over epochs, 0.99 : 0.01,
    from 0 on. The rate of a class is ((1 - confidence) / max)^2.5; 1 for all at first. It changes in the last step of
    an epoch, before that step's voxels are drawn. The teacher sees what the student sees; inference: the student.

    Cost: one forward and backward pass over all patches and one forward over the unlabelled ones; with a loss that
    needs a reference, one forward over all.

    Deviations:
    - the code mixes the labelled patches of a batch in the indicators: `released_broadcast`.
    - averaged from 0 by 1 % an epoch, confidences reach a tenth of their value after 10 epochs: rates stay near 1 for
      long. So it is in the code.
    - an epoch's means are over its steps that hold a class; one that no labelled patch of the epoch holds has 0. The
      code divides by the number of all steps: `released_means`.
    - the teacher begins as the student, which it is after the first step anyway, not with weights of its own.
    - the code counts 12 ranks whatever the number of classes; here all but two, and at least one.
    """

    version = 3  # rates change in the last step of an epoch, not after it
    title = "Basak et al."
    group = "Imbalance"
    Options: ClassVar[type[BaseModel]] = BasakOptions
    term_kinds = ("label", "pseudo")
    options: BasakOptions
    seen: Tensor
    confidence: Tensor
    rate: Tensor

    def __init__(self, options: BasakOptions, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__(options, build, loss, statistics)
        self.register_buffer("seen", torch.zeros(len(Indicators._fields), statistics.num_classes))
        self.register_buffer("confidence", torch.zeros(statistics.num_classes))
        self.register_buffer("rate", torch.ones(statistics.num_classes))

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        image, labels, L = batch.image["weak"], batch.label["weak"], batch.num_labeled
        logits = self.student(image)
        with torch.no_grad():
            *sums, voxels = indicators(logits[:L], labels[:L], self.options.released_broadcast)
            counted = torch.ones_like(voxels) if self.options.released_means else (voxels > 0).to(voxels.dtype)
            self.seen += torch.stack([*(total / voxels.clamp_min(1) for total in sums), counted])
            if step.last_of_epoch:
                self._end_epoch()
        labeled, unlabeled = self.teacher_logits(image, logits, labels, L, step)
        supervised = self.loss.supervised(
            logits[:L], labels[:L], key="student", reference=self.reference("teacher", labeled)
        )
        pseudo = self.loss.ce(
            logits[L:],
            classes_of(unlabeled),
            source="pseudo",
            key="student",
            reference=self.reference("teacher", unlabeled),
            voxel_weight=self._voxels(logits[L:].detach(), step),
        )
        return {"loss": supervised + step.consistency_weight * pseudo, "supervised": supervised, "pseudo": pseudo}

    def _voxels(self, logits: Tensor, step: Step) -> Tensor:
        """The weights (B, *S) of unlabelled voxels, by the student's logits."""
        sure, label = full_precision(logits).softmax(1).max(1)
        kept = sampled(label, self.rate, step.generator("voxel-sampling", label.device))
        step.log("sampled", kept.mean)
        step.log("rate/student", self.rate)
        step.log("confidence/student", self.confidence)
        return kept * sure.pow(self.options.beta)

    def _end_epoch(self) -> None:
        """New confidences and rates from what the epoch's steps showed."""
        *means, steps = self.seen
        C, m = len(steps), self.options.momentum
        new = fused_confidence(torch.stack(means) / steps.clamp_min(1), self.options.top or max(C - 2, 1))
        self.confidence = m * self.confidence + (1 - m) * new
        self.rate = cld_sampling_rate(self.confidence, self.options.gamma)
        self.seen = torch.zeros_like(self.seen)

    def average(self) -> EMA:
        return EMA("teacher", "student", self.options.ema_decay, "epoch")


def indicators(logits: Tensor, labels: Tensor, broadcast: bool = False) -> Indicators:
    """What labelled voxels tell of each class.

    Args:
        logits: (B, C, *S).
        labels: (B, *S) int64; -1 is passed over.
        broadcast: the sums of all patches at a place in the place of each one's own.
    """
    log_p = full_precision(logits).log_softmax(1)
    p, known, truth = log_p.exp(), (labels >= 0).flatten(1).float(), labels.clamp_min(0)
    per_class = PerClass(truth.flatten(1), logits.shape[1])

    def summed(values: Tensor) -> Tensor:
        values = values.sum(0, keepdim=True).expand_as(values) if broadcast else values
        return per_class.sum(values.gather(1, truth.unsqueeze(1)).flatten(1) * known).sum(0)

    entropy, variance = p * log_p.sum(1, keepdim=True), p.amax(1, keepdim=True) - p
    return Indicators(summed(entropy), summed(p), summed(variance), per_class.sum(known).sum(0))


def fused_confidence(means: Tensor, top: int) -> Tensor:
    """The confidence (C,) of classes, at most 1, from indicators (n, C).

    Each indicator becomes R, its softmax over classes, and a rank r = 1 - exp(-exp(-2R)); beyond the `top` smallest
    ranks r is 0.632 and R 0. The confidence is Σ r · (1 - mean R) over indicators, divided by the largest class's.
    """
    shares = means.softmax(1)
    ranks = 1 - torch.exp(-torch.exp(-2 * shares))
    best = ranks.topk(min(top, means.shape[1]), dim=1, largest=False).indices
    counts = torch.zeros_like(ranks).scatter(1, best, 1.0) > 0
    fused = ranks.where(counts, _PENALTY).sum(0) * (1 - shares.where(counts, 0.0).mean(0))
    return fused / fused.max()
