"""Gradient reversal: features pass unchanged forward, with a negative factor backward (Ganin and Lempitsky, 2015)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, content: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return content.view_as(content)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.factor * gradients[0], None


def reverse_gradient(content: Tensor, factor: float) -> Tensor:
    """The content, whose gradient is multiplied by -`factor`."""
    found: Tensor = _Reversed.apply(content, factor)
    return found
