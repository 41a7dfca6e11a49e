"""Images made of others: a box of one pasted into another (BCP, SDCL, ABD, β-FFT), patches of one displaced into
another (ABD), low frequencies exchanged, and linear mixing (β-FFT)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sslbench.core.step import Step
from sslbench.core.transfer import send
from sslbench.losses.cross_entropy import full_precision
from sslbench.metrics.components import largest_component
from sslbench.networks.parts import cut_parts, join_parts


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
    if labels.is_meta:  # no values, no components
        return labels.clone()
    kept = [largest_component(patch, num_classes) for patch in labels.cpu().numpy()]
    return torch.from_numpy(np.stack(kept)).to(labels.device)


# ------------------------------------------------------------------------------------------------------- displacement


def choose_patches(
    logits: Tensor, other: Tensor, by_output: Tensor, grid: int, candidates: int
) -> tuple[Tensor, Tensor]:
    """Which patch of an image is to go and which is to be replaced (ABD-R).

    Replaced is the one of least confidence, the mean over the patch of the largest probability. To go is the one of
    most confidence, or of the `candidates` of most confidence the one whose output is nearest to that of the least
    confident patch of the other image: KL(softmax q ‖ softmax r) is smallest, q the mean logits of that patch and r
    those of the candidate.

    Args:
        logits: (B, C, *S) of the images.
        other: (B, C, *S) of the images that they exchange patches with.
        by_output: (B,) bool, where the nearest output decides.
        grid: patches along every axis.
        candidates: how many may go then.

    Returns:
        Indices (B,) int64 of the patches to go, and of those to be replaced.
    """
    confidence, outputs = _confidence_and_output(logits, grid)
    other_confidence, other_outputs = _confidence_and_output(other, grid)
    best = confidence.topk(min(candidates, confidence.shape[1]), dim=1).indices
    wanted = _of_row(other_outputs, other_confidence.argmin(1, keepdim=True)).log_softmax(-1)
    offered = _of_row(outputs, best).log_softmax(-1)
    divergence = (wanted.exp() * (wanted - offered)).sum(-1)
    nearest = best.gather(1, divergence.argmin(1, keepdim=True)).squeeze(1)
    return torch.where(by_output, nearest, best[:, 0]), confidence.argmin(1)


def _confidence_and_output(logits: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Mean confidence (B, patches) and mean logits (B, patches, C) of patches."""
    logits = full_precision(logits.detach())
    cells = (grid,) * (logits.ndim - 2)
    confidence = cut_parts(logits.softmax(1).amax(1, keepdim=True), cells).flatten(2).mean(-1)
    return confidence, cut_parts(logits, cells).flatten(3).mean(-1)


def _of_row(values: Tensor, index: Tensor) -> Tensor:
    """values[b, index[b, k]] of values (B, patches, C) and index (B, k): (B, k, C)."""
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def displace(
    a: Tensor, b: Tensor, from_a: tuple[Tensor, Tensor], from_b: tuple[Tensor, Tensor], grid: int
) -> tuple[Tensor, Tensor]:
    """Exchange patches of images in both directions: first into `a`, then out of what that has become.

    Args:
        a, b: (B, channels, *S).
        from_a, from_b: (B,) indices of the patches to go, and of those to be replaced, of either.
        grid: patches along every axis.
    """
    cells = (grid,) * (a.ndim - 2)
    patches_a, patches_b = cut_parts(a, cells).clone(), cut_parts(b, cells).clone()
    rows = torch.arange(len(a), device=a.device)
    patches_a[rows, from_a[1]] = patches_b[rows, from_b[0]]
    patches_b[rows, from_b[1]] = patches_a[rows, from_a[0]]
    return join_parts(patches_a, cells), join_parts(patches_b, cells)


# ------------------------------------------------------------------------------------- frequencies and linear mixing


def low_band(x: Tensor, share: float) -> Tensor:
    """|inverse Fourier transform| of the lowest frequencies of images (B, channels, *S), fp32.

    Along an axis of side s these are -h to h - 1 with h = max(1, ⌊share·s⌋): the block of 2h about the middle of the
    shifted spectrum. As it is not symmetric the transform back is complex.
    """
    axes = tuple(range(2, x.ndim))
    spectrum = torch.fft.fftn(full_precision(x), dim=axes)
    for axis in axes:
        side = x.shape[axis]
        half = max(1, int(share * side))
        frequency = torch.arange(side, device=x.device)
        frequency = torch.where(frequency < (side + 1) // 2, frequency, frequency - side)
        kept = (frequency >= -half) & (frequency < half)
        spectrum = spectrum * kept.view(-1, *[1] * (x.ndim - 1 - axis))
    return torch.fft.ifftn(spectrum, dim=axes).abs()


def exchange_low_bands(x: Tensor, y: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Images (B, channels, *S) with each other's `low_band`: x - low(x) + low(y), and y - low(y) + low(x)."""
    difference = low_band(y, share) - low_band(x, share)
    return x + difference, y - difference


def draw_beta(size: int, parameter: float, step: Step, device: torch.device, stream: str) -> Tensor:
    """(size,) fp32 on `device` from Beta(parameter, parameter), drawn on the CPU: torch's own takes no generator."""
    random = np.random.default_rng(step.generator(stream).initial_seed())
    return send(torch.from_numpy(random.beta(parameter, parameter, size)).float(), device)
