"""Every random draw is a function of (job seed, stream, iteration), so a resumed job draws what it would have drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def derive_seed(seed: int, stream: str, *position: int) -> int:
    """Derive a 63-bit seed for one position of a named stream; adding a stream never shifts another."""
    text = f"{seed}/{stream}/{'/'.join(map(str, position))}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def numpy_generator(seed: int, stream: str, *position: int) -> np.random.Generator:
    """Make a numpy generator for one position of a named stream."""
    return np.random.default_rng(derive_seed(seed, stream, *position))


def torch_generator(
    seed: int, stream: str, *position: int, device: torch.device | str | None = None
) -> torch.Generator:
    """Make a torch generator for one position of a named stream, on the CPU unless `device` says otherwise."""
    return torch.Generator(device or "cpu").manual_seed(derive_seed(seed, stream, *position))


def unless_meta(
    generators: Callable[[str, torch.device | str | None], torch.Generator],
) -> Callable[[str, torch.device | str | None], Any]:
    """The generators of a step's streams, but for torch's `meta` device none: nothing is drawn there."""

    def of(stream: str, device: torch.device | str | None) -> torch.Generator | None:
        on_meta = device is not None and torch.device(device).type == "meta"
        return None if on_meta else generators(stream, device)

    return of


def reseed(seed: int, stream: str, *position: int) -> None:
    """Seed torch's default generators, of all devices; they serve what draws inside a forward (dropout, noise)."""
    torch.manual_seed(derive_seed(seed, stream, *position))
