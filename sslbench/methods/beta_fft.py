"""β-FFT: copy-paste with two students, low frequencies exchanged between their views, and linear mixing by β draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from sslbench.core.registry import register
from sslbench.core.step import Batch, Step
from sslbench.losses.consistency import mse_consistency
from sslbench.methods.base import Phase, StepCost
from sslbench.methods.mixing import draw_beta, exchange_low_bands
from sslbench.methods.shared.copy_paste import TeacherOutput
from sslbench.methods.shared.cross_copy_paste import CrossCopyPaste, CrossCopyPasteOptions


class BetaFFTOptions(CrossCopyPasteOptions):
    """Options of `beta_fft`."""

    half_width: float = Field(
        default=30 / 256,
        gt=0,
        le=0.5,
        description="of the exchanged block of the spectrum, in sides of the patch (β-FFT: 30 of 256)",
    )
    beta: float = Field(default=0.1, gt=0, description="both parameters of the β distribution of the mixing (β-FFT)")
    mixing_weight: float = Field(default=5.0, ge=0, description="of the mixing's squared error, times λ (β-FFT)")
    released_bfft3: bool = Field(
        default=False,
        description="two slips of the code for 3 labelled patients: weak mixing has U_a's target twice, strong mixing "
        "U_a's image twice",
    )


@register("method", "beta_fft")
class BetaFFT(CrossCopyPaste):
    """BCP with two students on weak and strong views, cross-supervised on mixes that exchange low frequencies, and
    linear mixing of unlabelled patches (β-FFT; Hu et al., CVPR 2025).

    Pre-training, students a and b, teacher, regions and the cross term on mixes are those of `abd`. In the place of its
    displacement, each weak mix and its strong twin exchange low(x) = |inverse FFT of the middle of the spectrum|, and
    either student learns by Dice from the other's labels of both. Student a alone also sees, in either view, the
    labelled patches unmixed, with their labels, and (1 - m)·U_a + m·U_b, m from β(0.1, 0.1) for every pair, drawn by
    5·λ times the mean squared error to the teacher's probabilities mixed alike. Inference: student a, or the better one
    in validation where the recipe says so.

    A loss that needs a reference gets the teacher's predictions as in `bcp`, mixed ones where patches are mixed, and in
    cross terms those of the other student.

    Cost: forward and backward over nine times as many images as there are labelled patches, and two forwards over the
    unlabelled ones; before as `bcp`. With a loss that needs a reference, two more forwards over the labelled patches.

    Deviations:
    - One smoothing term for every Dice, where the code has 1e-5 outside of the regions and 1e-10 in them.
    - The block of the spectrum grows with the patch; the code has images of 256² alone.
    - In 3-D, which the paper does not have, it is a block of all three axes, and recipes make the strong view without
      cutout, which is of slices.
    - m is drawn anew for either view.
    - The code for 3 labelled patients has two slips, which `released_bfft3` has too.
    """

    title = "β-FFT"
    term_kinds = ("label", "pseudo", "consistency")
    Options: ClassVar[type[BaseModel]] = BetaFFTOptions
    options: BetaFFTOptions

    def altered(self, weak: Tensor, strong: Tensor, weak_logits: Tensor, strong_logits: Tensor, step: Step) -> Tensor:
        return torch.cat(exchange_low_bands(weak, strong, self.options.half_width))

    def further(self, batch: Batch, outputs: Mapping[str, TeacherOutput], step: Step) -> dict[str, Tensor]:
        losses = [
            self._unmixed_and_linear(batch.image[view], batch.label[view], outputs[key].logits, view, step)
            for key, view in self.view_of.items()
        ]
        supervised, consistency = (torch.stack(parts).sum() for parts in zip(*losses, strict=True))
        return {"supervised": supervised, "linear": self.options.mixing_weight * step.consistency_weight * consistency}

    def _unmixed_and_linear(
        self, image: Tensor, labels: Tensor, teacher: Tensor, view: str, step: Step
    ) -> tuple[Tensor, Tensor]:
        """Student a's supervised term, and its squared distance from the teacher on linear mixes, in one view."""
        L = len(image) // 2
        target_a, target_b = teacher[-L:].float().softmax(1).chunk(2)
        image_a, image_b = image[L:].chunk(2)
        if self.options.released_bfft3:
            target_b, image_b = (target_a, image_b) if view == "weak" else (target_b, image_a)
        m = draw_beta(L // 2, self.options.beta, step, image.device, f"linear/{view}").view(-1, *[1] * (image.ndim - 1))
        target = target_a.lerp(target_b, m)
        logits = self.a(torch.cat([image[:L], image_a.lerp(image_b, m)]))
        known = self.reference("teacher", teacher[:L]) if len(teacher) == len(image) else None
        supervised = self.loss.supervised(logits[:L], labels[:L], key="a", reference=known)
        linear = self.loss.consistency(
            logits[L:], lambda: mse_consistency(logits[L:], target), key="a", reference=("teacher", target)
        )
        return supervised, linear

    def step_cost(self, phase: Phase) -> StepCost:
        passes = super().step_cost(phase)
        if phase.name == "pretrain":
            return passes
        return replace(passes, labeled=passes.labeled + 2, unlabeled=passes.unlabeled + 1)
