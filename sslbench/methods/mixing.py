"""Copy-paste mixing: a box of one image is replaced by the same box of another (BCP, SDCL, ABD, β-FFT)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sslbench.methods.base import Step
from sslbench.metrics.components import largest_component


def copy_paste_mask(
    shape: Sequence[int], start: Sequence[int], ratio: float = 2 / 3, device: torch.device | str | None = None
) -> Tensor:
    """(*S) float32 on `device`: 0 inside a box of sides ⌊ratio·side⌋ that begins at `start`, 1 outside."""
    mask = torch.ones(tuple(shape), device=device)
    mask[tuple(slice(begin, begin + int(ratio * side)) for begin, side in zip(start, shape, strict=True))] = 0
    return mask


def draw_copy_paste_mask(
    shape: Sequence[int], step: Step, device: torch.device, ratio: float = 2 / 3, stream: str = "copy-paste"
) -> Tensor:
    """A `copy_paste_mask` on `device` whose box begins uniformly in [0, side - ⌊ratio·side⌋) along every axis, the
    last position left out as in BCP's code."""
    generator = step.generator(stream)
    free = [max(side - int(ratio * side), 1) for side in shape]
    start = [int(torch.randint(room, (), generator=generator)) for room in free]
    return copy_paste_mask(shape, start, ratio, device)


def paste(outside: Tensor, inside: Tensor, mask: Tensor) -> Tensor:
    """`outside` where `mask` (*S) is 1, `inside` where it is 0."""
    return torch.where(mask > 0, outside, inside)


def largest_components(labels: Tensor, num_classes: int) -> Tensor:
    """Of every patch and foreground class the largest connected component; what falls away becomes background.

    The one place of a training step that leaves the device (BCP, SDCL).

    Args:
        labels: (B, *S) int64.
        num_classes: C.
    """
    kept = [largest_component(patch, num_classes) for patch in labels.cpu().numpy()]
    return torch.from_numpy(np.stack(kept)).to(labels.device)
