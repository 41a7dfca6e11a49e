"""The same bytes again on a GPU: torch told to use kernels that repeat, and a list of those it has not."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import deterministic as _fill

_REFUSED = re.compile(r"(\S+) does not have a deterministic implementation")


@contextmanager
def repeatable(device: torch.device) -> Iterator[MutableMapping[str, None]]:
    """Have torch choose kernels that give the same bytes every time; yields the names of those that do not, as they
    are met.

    A CPU's kernels repeat with the same number of threads: there nothing is changed.

    Args:
        device: that is computed on.
    """
    refused: dict[str, None] = {}
    if device.type == "cpu":
        yield refused
        return
    before = (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
    filled, timed = _fill.fill_uninitialized_memory, torch.backends.cudnn.benchmark  # type: ignore[attr-defined]
    show = warnings.showwarning

    def note(message: Any, *where: Any, **more: Any) -> None:
        found = _REFUSED.match(str(message))
        if found is None:
            show(message, *where, **more)
        else:
            refused[found[1]] = None

    # A kernel without a repeatable form ends no training: it is recorded.
    torch.use_deterministic_algorithms(True, warn_only=True)
    _fill.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False  # it chooses by time
    try:
        with warnings.catch_warnings():
            warnings.showwarning = note
            yield refused
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        _fill.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = timed
