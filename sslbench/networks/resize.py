"""Linear resizing whose gradient comes out the same every time, on a GPU too.

On CUDA the backward pass of bilinear and trilinear resizing adds with atomics, in an order that varies, so a training
could not be resumed to the byte. Resizing is linear and separable: its gradient is a product with one fixed matrix per
axis. Elsewhere torch's own repeats, and stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}


def resize_linear(content: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """Resize (B, c, *S) to (B, c, *size), bilinear in 2-D and trilinear in 3-D, as `torch.nn.functional.interpolate`.

    Args:
        content: (B, c, *S), S of one to three axes.
        size: of every axis afterwards.
        align_corners: whether the outermost voxels' centres stay where they are.
    """
    if repeats(content.device):
        return F.interpolate(content, tuple(size), mode=_LINEAR[content.ndim], align_corners=align_corners)
    resized: Tensor = Resize.apply(content, tuple(size), align_corners)
    return resized


def repeats(device: torch.device) -> bool:
    """Whether torch's own backward pass of linear resizing gives the same bytes every time there."""
    return device.type != "cuda"


class Upsample(nn.Module):
    """Doubles every axis of (B, c, *S): `nearest`, `bicubic`, or linear with a gradient that repeats.

    Args:
        mode: as torch names it; `bilinear` and `trilinear` are the linear ones.
        align_corners: of the linear ones and of `bicubic`; None: torch's default.
    """

    def __init__(self, mode: str, align_corners: bool | None = None) -> None:
        super().__init__()
        self.mode, self.align_corners = mode, align_corners

    def forward(self, content: Tensor) -> Tensor:
        """(B, c, *S), every axis twice as long."""
        if self.mode in _LINEAR.values():
            return resize_linear(content, [2 * side for side in content.shape[2:]], bool(self.align_corners))
        return F.interpolate(content, scale_factor=2, mode=self.mode, align_corners=self.align_corners)


class Resize(torch.autograd.Function):
    """Linear resizing with torch's forward pass and matrices A, one per axis, in the backward: Aᵀ g."""

    @staticmethod
    def forward(ctx: Any, content: Tensor, size: tuple[int, ...], align_corners: bool) -> Tensor:
        ctx.before, ctx.size, ctx.align_corners = tuple(content.shape[2:]), size, align_corners
        return F.interpolate(content, size, mode=_LINEAR[content.ndim], align_corners=align_corners)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        found = gradient if gradient.dtype == torch.float64 else gradient.float()
        for axis, (before, after) in enumerate(zip(ctx.before, ctx.size, strict=True), start=2):
            matrix = _matrix(before, after, ctx.align_corners, found)
            found = (found.movedim(axis, -1) @ matrix).movedim(-1, axis)
        return found.to(gradient.dtype), None, None


def _matrix(before: int, after: int, align_corners: bool, like: Tensor) -> Tensor:
    """(after, before): what each value of an axis gives to each after resizing."""
    unit = torch.eye(before, dtype=like.dtype, device=like.device).unsqueeze(0)
    return F.interpolate(unit, after, mode="linear", align_corners=align_corners)[0].T
