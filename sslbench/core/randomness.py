"""Every random draw is a function of (job seed, stream, iteration), so a resumed job draws what it would have drawn."""

from __future__ import annotations

import hashlib

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


def reseed(seed: int, stream: str, *position: int) -> None:
    """Seed torch's default generators, of all devices; they serve what draws inside a forward (dropout, noise)."""
    torch.manual_seed(derive_seed(seed, stream, *position))
