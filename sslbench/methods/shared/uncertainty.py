"""Where a network is certain: the entropy of its mean over noisy passes, under a rising threshold (UA-MT, DeSCO)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sslbench.core.options import Options
from sslbench.losses.consistency import uamt_threshold


class UncertaintyOptions(Options):
    """How certainty is measured."""

    samples: int = Field(
        default=8, ge=2, multiple_of=2, description="stochastic passes of the teacher (DeSCO: the peer), T (UA-MT)"
    )
    entropy_cap: Literal["ln2", "lnC"] = Field(
        default="ln2",
        description="entropy of the certainty threshold: ln 2 for any number of classes (released code), or ln C",
    )

    def threshold(self, done: int, total: int, num_classes: int) -> float:
        """The entropy below which a voxel counts as certain after `done` of `total` iterations or epochs."""
        return uamt_threshold(done, total, math.log(2 if self.entropy_cap == "ln2" else num_classes))


@torch.no_grad()
def noisy_mean(network: nn.Module, image: Tensor, samples: int, noise: Callable[[Tensor, str], Tensor]) -> Tensor:
    """The mean of a network's probabilities (B, C, *S), fp32, over stochastic passes of noisy images.

    The passes go two at a time, the batch doubled, which is what the batch statistics of a network in training see.

    Args:
        network: gives logits.
        image: (B, channels, *S).
        samples: T, even.
        noise: makes the noise of an image, with the name of the stream that it is drawn from.
    """
    total = torch.zeros((), device=image.device)
    doubled = torch.cat([image, image])
    for number in range(samples // 2):
        noisy = doubled + noise(doubled, f"uncertainty-noise/{number}")
        total = total + network(noisy).float().softmax(1).unflatten(0, (2, -1)).sum(0)
    return total / samples
