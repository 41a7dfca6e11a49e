"""Exponential moving averages of networks: the teachers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def ema_decay(decay: float, step: int | None) -> float:
    """The decay of a step: `decay`, or with the warm-up min(1 - 1/(step + 1), decay), which is 0 at step 0."""
    return decay if step is None else min(1.0 - 1.0 / (step + 1), decay)


@torch.no_grad()
def update_ema(
    teacher: nn.Module, student: nn.Module, decay: float, step: int | None = None, buffers: bool = False
) -> None:
    """teacher ← a·teacher + (1 - a)·student, in place, for all parameters at once.

    Args:
        teacher, student: modules with the same parameters in the same order.
        decay: a.
        step: an iteration or epoch, from 0, switches the warm-up on: a = min(1 - 1/(step + 1), decay), so that step 0
            copies the student (Mean Teacher; SSL4MIS).
        buffers: average the buffers too, integer ones in fp32 and cast back (BCP's variant). Otherwise a teacher in
            training mode keeps the batch statistics of its own inputs.

    Raises:
        ValueError: modules of another structure.
    """
    alpha = ema_decay(decay, step)
    pairs: list[tuple[list[Any], list[Any]]] = [(list(teacher.parameters()), list(student.parameters()))]
    if buffers:
        pairs.append((list(teacher.buffers()), list(student.buffers())))
    for ours, theirs in pairs:
        if [tensor.shape for tensor in ours] != [tensor.shape for tensor in theirs]:
            raise ValueError("teacher and student have other parameters: an average needs twins")
    parameters, sources = pairs[0]
    torch._foreach_lerp_(_data(parameters), _data(sources), 1.0 - alpha)
    for ours, theirs in pairs[1:]:
        for own, source in zip(ours, theirs, strict=True):
            own.copy_(own.float().lerp(source.float(), 1.0 - alpha))


def _data(tensors: list[nn.Parameter]) -> list[Tensor]:
    return [tensor.data for tensor in tensors]
