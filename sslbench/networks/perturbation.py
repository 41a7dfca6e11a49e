"""Perturbed features for auxiliary decoders (CCT, CVPR 2020; in the SSL4MIS form), and the U-Net that has three.

They draw from the default generators, as dropout does, and perturb in evaluation mode too: auxiliary decoders predict
in training alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch.nn.functional as F
from pydantic import BaseModel
from torch import Tensor, nn

from sslbench.core.registry import register
from sslbench.networks.base import Decoder, Features
from sslbench.networks.unet import UNet


def feature_noise(stage: int, content: Tensor, extent: float = 0.3) -> Tensor:
    """x·(1 + u), u uniform in [-extent, extent] per channel and position, the same for every patch of the batch."""
    noise = content.new_empty(content.shape[1:]).uniform_(-extent, extent)
    return content * (1 + noise)


def feature_dropout(stage: int, content: Tensor, rate: float = 0.3) -> Tensor:
    """Element-wise dropout, always on."""
    return F.dropout(content, rate)


def feature_drop(stage: int, content: Tensor) -> Tensor:
    """Keep the positions whose attention, the mean over channels, is below t times the patch's largest; t is uniform
    in [0.7, 0.9], one draw per map."""
    attention = content.mean(1, keepdim=True)
    largest = attention.flatten(1).amax(1).view(-1, *[1] * (content.ndim - 1))
    return content * (attention < largest * content.new_empty(()).uniform_(0.7, 0.9))


PERTURBATIONS: tuple[Callable[[int, Tensor], Tensor], ...] = (feature_noise, feature_dropout, feature_drop)


def perturbed_logits(decoders: nn.ModuleList, features: Features) -> list[Tensor]:
    """Logits of three auxiliary decoders, each fed with all maps of the encoder under its own perturbation."""
    return [
        cast(Decoder, decoder).logits(features.map(perturb))
        for decoder, perturb in zip(decoders, PERTURBATIONS, strict=True)
    ]


@register("network", "unet_cct")
class UNetCCT(UNet):
    """U-Net with three auxiliary decoders, which read perturbed features (CCT; Ouali et al., CVPR 2020).

    `forward` gives four logits, the main decoder's first; the method `cct` puts the same decoders on any network.
    3 713 664 parameters for one input channel and 4 classes.
    """

    several = True

    def __init__(self, in_channels: int, num_classes: int, options: BaseModel) -> None:
        super().__init__(in_channels, num_classes, options)
        self.decoders.extend(self.make_decoder() for _ in PERTURBATIONS)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = self.encode(x)
        return [self.logits(features), *perturbed_logits(self.decoders[1:], features)]
