"""Students' discrepancy: copy-paste with two students, drawn away from their errors where they disagree."""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from sslbench.core import registry
from sslbench.core.options import Iterations
from sslbench.core.registry import register
from sslbench.core.step import Batch, Step
from sslbench.losses.cross_entropy import classes_of, full_precision, weighted_mean
from sslbench.methods.base import Build, Group, Phase
from sslbench.methods.shared.copy_paste import CopyPaste, CopyPasteOptions, Mixes
from sslbench.networks import Network

# The network of the second student, by the dimensions of the first's.
_RESIDUAL = {2: "resunet", 3: "resvnet"}


def discrepancy(logits_a: Tensor, logits_b: Tensor) -> Tensor:
    """Where two students (B, C, *S) name different classes: (B, *S) bool."""
    return classes_of(logits_a.detach()) != classes_of(logits_b.detach())


def discrepancy_mse(logits: Tensor, target: Tensor, where: Tensor, weight: Tensor) -> Tensor:
    """Mean over the voxels `where` of w·mean_c (p - onehot(target))²; 0 with a graph where there are none.

    Args:
        logits: (B, C, *S) of a student.
        target: (B, *S) int64, labels or pseudo-labels.
        where: (B, *S) bool, the discrepancy.
        weight: w, (B, *S), of each voxel's region; the divisor is the number of voxels.
    """
    p = full_precision(logits).softmax(1)
    onehot = torch.zeros_like(p).scatter_(1, target.unsqueeze(1), 1)
    return weighted_mean((p - onehot).square().mean(1), where, weight)


def discrepancy_kl(logits: Tensor, target: Tensor, where: Tensor, weight: Tensor) -> Tensor:
    """Mean over the voxels `where` that the student has wrong of -w·mean_c log p; 0 with a graph where there are none.

    -mean_c log p is KL(uniform‖p) + log C: it draws a wrong prediction towards none at all. (The released divergence is
    from ones instead of 1/C, which adds the constant.) Arguments as in `discrepancy_mse`.
    """
    wrong = where & (classes_of(logits.detach()) != target)
    return weighted_mean(-full_precision(logits).log_softmax(1).mean(1), wrong, weight)


class SDCLOptions(CopyPasteOptions):
    """Options of `sdcl`."""

    pretrain_iterations: Iterations = Field(
        default=11_300, ge=1, description="of the labelled copy-paste before (SDCL on ACDC: 100 epochs of 113)"
    )
    mse_weight: float = Field(default=0.5, ge=0, description="of the squared distance from the target (SDCL)")
    kl_weight: float = Field(default=0.05, ge=0, description="of the divergence from what is wrong (SDCL)")


@register("method", "sdcl")
class StudentsDiscrepancy(CopyPaste):
    """BCP with two students of different build, and terms where they disagree (SDCL; Song and Wang, MICCAI 2024).

    Mixes and targets are those of `bcp`; student a is the recipe's network, student b the residual one of the same
    dimensions (`resunet`, `resvnet`), with what the recipe changes of the options that both have; the teacher follows a
    alone. Each student has BCP's loss, and over the voxels of a mix to which the two give different classes 0.5·MSE,
    its squared distance from the target, and 0.05·KL, which over those that it has wrong draws it towards the uniform
    distribution; voxels of labelled patches weigh 1, others u. No gradient goes from one student to the other: each has
    its own loss and optimiser. Inference: the mean of both students' probabilities.

    A loss that needs a reference gets the teacher's predictions, as in `bcp`. The terms of disagreement stay as they
    are, whatever the loss.

    Cost: forward and backward over twice as many mixed images as there are labelled patches (half of them through the
    larger network), and one forward over the unlabelled ones; half of that, without the teacher, before. With a loss
    that needs a reference, one more forward over the labelled patches.

    Deviations:
    - Both phases are counted in iterations; the code's 100 and 400 epochs are passes over ten times the labelled list
      (on ACDC with 136 labelled slices 11 300 and 45 200 iterations).
    - Patches are drawn as in every method here; the code never shuffles, and reads its second halves backwards.
    - The self-training begins with the pair whose mean was best in validation, not with the best of each student.
    - Adam at a constant 1e-3 is set by the recipes of ACDC, DigestPath and LA; others keep their own optimiser.
    """

    title = "SDCL"
    predictors = ("a", "b")
    taught_by = {"a": ("teacher",), "b": ("teacher",)}
    Options: ClassVar[type[BaseModel]] = SDCLOptions
    defaults = {**CopyPaste.defaults, "inference.networks": "mean_logits"}  # the pair is validated and tested as one
    options: SDCLOptions

    def make_student(self, build: Build, key: str) -> nn.Module:
        if key == self.predictors[0]:
            return build(key)
        first = cast(Network, self.get_submodule(self.predictors[0])).base
        name = _RESIDUAL[first.dims]
        fields, known = type(first.options).model_fields, registry.component("network", name).Options.model_fields
        shared = {
            option: value
            for option, value in first.options.model_dump(exclude_defaults=True).items()
            if option in known and known[option].annotation == fields[option].annotation
        }
        return build(key, name, **shared)

    def groups(self, phase: Phase) -> dict[str, Group]:
        return {
            key: Group([p for p in self.get_submodule(key).parameters() if p.requires_grad]) for key in self.predictors
        }

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        image, labels, mixes = batch.image["weak"], batch.label["weak"], self.mixes(batch, step)
        if step.phase == "pretrain":
            return {f"loss/{key}": self.pretrain_loss(key, batch, mixes.mask, step) for key in self.predictors}
        teacher_output = self.teacher_output(image, labels, mixes)
        self.loss.observe(step, "teacher", teacher_output.logits, labels[-len(teacher_output.logits) :])
        mixed, known = mixes(image), torch.cat(mixes(labels))
        logits = {key: [self.get_submodule(key)(part) for part in mixed] for key in self.predictors}
        where = [discrepancy(a, b) for a, b in zip(*logits.values(), strict=True)]
        about = list(zip(mixes(teacher_output.targets), where, mixes(self._weights(labels, mixes)), strict=True))
        terms: dict[str, Tensor] = {}
        for key, own in logits.items():
            self.loss.observe(step, key, torch.cat(own), known)
            labeled, unlabeled = self.mixed_losses(key, own, teacher_output, mixes)
            mse, kl = (
                torch.stack([term(part, *rest) for part, rest in zip(own, about, strict=True)]).sum()
                for term in (discrepancy_mse, discrepancy_kl)
            )
            disagreement = self.options.mse_weight * mse + self.options.kl_weight * kl
            terms[f"loss/{key}"] = labeled + self.options.unlabeled_weight * unlabeled + disagreement
            terms |= {f"mse/{key}": mse, f"kl/{key}": kl}
        return {**terms, "disagreement": torch.cat(where).float().mean()}

    def _weights(self, labels: Tensor, mixes: Mixes) -> Tensor:
        """Of every patch of a batch, to be mixed: (2L, 1, ...)."""
        weights = torch.ones(len(labels), *[1] * (labels.ndim - 1), device=labels.device)
        weights[mixes.num_labeled :] = self.options.unlabeled_weight
        return weights

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        keys = self.predictors if key is None else (key,)
        return torch.stack([self.get_submodule(own)(x).float().softmax(1) for own in keys]).mean(0)
