"""Adaptive bidirectional displacement: copy-paste with two students, and patches displaced between their views."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from sslbench.core.registry import register
from sslbench.core.step import Step
from sslbench.methods.mixing import choose_patches, displace
from sslbench.methods.shared.cross_copy_paste import CrossCopyPaste, CrossCopyPasteOptions

if TYPE_CHECKING:
    from sslbench.config.job import ResolvedJob


class ABDOptions(CrossCopyPasteOptions):
    """Options of `abd`."""

    grid: int = Field(default=4, ge=2, description="patches along every axis (ABD: 64² of 256²)")
    candidates: int = Field(
        default=4, ge=1, description="most confident patches of which the nearest output is taken (ABD)"
    )
    by_output: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="probability that it is; else the most confident patch goes (ABD's code)",
    )


@register("method", "abd")
class AdaptiveBidirectionalDisplacement(CrossCopyPaste):
    """BCP with two students on weak and strong views, cross-supervised on mixes whose patches are displaced between the
    views (ABD; Chi et al., CVPR 2024; the version on BCP).

    One network is trained before as in `bcp`; students a and b, the teacher and both optimisers begin with it. Student
    a has BCP's loss on the mixes of the weak views, b on those of the strong ones, box and weights alike, each with the
    teacher's labels of its own view. Either learns by Dice from the other's labels: of the mixes, and of displaced
    mixes, which both see in both views. Displaced: the least confident patch of a weak mix gives place to a reliable
    one of the strong mix, and then the other way round; reliable is the most confident patch, or half of the time that
    of the four most confident ones whose mean output is nearest to that of the other mix's least confident patch.
    Inference: student a, or the better one in validation where the recipe says so.

    A loss that needs a reference gets the teacher's predictions as in `bcp`, and in cross terms those of the other
    student.

    Cost: forward and backward over six times as many images as there are labelled patches, and two forwards over the
    unlabelled ones; before as `bcp`. With a loss that needs a reference, two more forwards over the labelled patches.

    Deviations:
    - One smoothing term for every Dice, where the code has 1e-5 in the cross terms and 1e-10 in the regions.
    - The background's Dice is taken inside its region; `released_bcp_bgmask` has the code's, as its numbers.
    - In 3-D, which the paper does not have, the grid has as many patches along the third axis, and recipes make the
      strong view without cutout, which is of slices.
    - The version that trains a U-Net beside a Swin-UNet, with displaced labels of labelled images, is not here.
    """

    title = "ABD"
    Options: ClassVar[type[BaseModel]] = ABDOptions
    options: ABDOptions

    @classmethod
    def objection(cls, job: ResolvedJob) -> str | None:
        size, grid = job.recipe.patch_size, int(job.method["grid"])
        if any(side % grid for side in size):
            return f"every side of the patch must divide into {grid} parts (method.grid), which {size} does not"
        return super().objection(job)

    def altered(self, weak: Tensor, strong: Tensor, weak_logits: Tensor, strong_logits: Tensor, step: Step) -> Tensor:
        grid, candidates = self.options.grid, self.options.candidates
        generator = step.generator("displacement", weak.device)
        by_output = torch.rand(len(weak), generator=generator, device=weak.device) < self.options.by_output
        from_weak = choose_patches(weak_logits, strong_logits, by_output, grid, candidates)
        from_strong = choose_patches(strong_logits, weak_logits, by_output, grid, candidates)
        return torch.cat(displace(weak, strong, from_weak, from_strong, grid))
