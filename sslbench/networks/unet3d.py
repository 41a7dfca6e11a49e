"""The 3-D U-Net of the URPC and MetaSSL code: concatenated skips, two convolutions a stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sslbench.core.options import Options
from sslbench.core.registry import register
from sslbench.networks.base import Conv3d, Decoder, Features, Network, Refine, add_prior, as_they_are
from sslbench.networks.resize import Upsample


class UNet3DOptions(Options):
    """Options of `unet3d`."""

    base_filters: int = Field(default=16, gt=0, description="channels of the finest stage (URPC, MetaSSL: 16)")
    dropout: float = Field(
        default=0.3, ge=0, lt=1, description="element-wise dropout of the bottleneck and the finest map (URPC: 0)"
    )
    decoder_dropout: tuple[float, float, float, float] = Field(
        default=(0.0, 0.0, 0.0, 0.0),
        description="Dropout3d of the decoder stages, finest first (URPC: 0.1, 0.2, 0.3, 0.5)",
    )
    upsampling: Literal["trilinear", "nearest", "transposed"] = Field(
        default="trilinear", description="of the coarser map, whose channels stay"
    )
    init: Literal["default", "kaiming", "xavier"] = Field(
        default="kaiming", description="of the 3³ and 1³ convolutions (URPC: kaiming)"
    )


def _block(channels_in: int, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (channels_in, channels):
        layers += [Conv3d(before, channels, 3, padding=1), nn.InstanceNorm3d(channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UNet3DEncoder(nn.Module):
    """Five double-convolution stages with f to 16f channels, halved by max pooling."""

    def __init__(self, in_channels: int, options: UNet3DOptions) -> None:
        super().__init__()
        self.channels = tuple(options.base_filters * 2**stage for stage in range(5))
        self.blocks = nn.ModuleList(
            _block(before, width) for before, width in zip((in_channels, *self.channels), self.channels, strict=False)
        )
        self.pool = nn.MaxPool3d(2)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of the five stages, finest first."""
        maps = [self.blocks[0](x)]
        for block in list(self.blocks)[1:]:
            maps.append(block(self.pool(maps[-1])))
        maps[-1] = self.dropout(maps[-1])
        return maps


def _upsample(kind: str, channels: int) -> nn.Module:
    if kind == "transposed":
        return nn.ConvTranspose3d(channels, channels, 2, stride=2)
    return Upsample(kind)


class UNet3DDecoder(Decoder):
    """Four times: upsample, concatenate [skip, up], add the prior, double convolution."""

    upsamplings = ("trilinear", "transposed", "nearest")

    def __init__(self, num_classes: int, options: UNet3DOptions) -> None:
        super().__init__()
        self.channels = tuple(options.base_filters * 2**stage for stage in reversed(range(4)))
        self.prior_channels = tuple(3 * width for width in self.channels)
        self.up = nn.ModuleList(_upsample(options.upsampling, 2 * width) for width in self.channels)
        self.blocks = nn.ModuleList(_block(3 * width, width) for width in self.channels)
        self.drops = nn.ModuleList(nn.Dropout3d(rate) for rate in reversed(options.decoder_dropout))
        self.dropout = nn.Dropout(options.dropout)
        self.head = Conv3d(self.channels[-1], num_classes, 1)

    def forward(self, features: Features, refine: Refine = as_they_are) -> list[Tensor]:
        """Maps of the four decoder stages, coarse to fine."""
        *skips, content = features.maps
        maps: list[Tensor] = []
        stages = zip(self.up, self.blocks, self.drops, reversed(skips), strict=True)
        for stage, (up, block, drop, skip) in enumerate(stages):
            content = refine(stage, drop(block(add_prior(torch.cat([skip, up(content)], dim=1), features, stage))))
            maps.append(content)
        maps[-1] = self.dropout(maps[-1])
        return maps


@register("network", "unet3d")
class UNet3D(Network):
    """3-D U-Net (Çiçek et al., MICCAI 2016) with instance norm, as the URPC and MetaSSL code has it.

    Input (B, in_channels, X, Y, Z), sides divisible by 16; logits (B, C, X, Y, Z). Instance norm has no parameters and
    no running statistics. 5 884 050 parameters for one input channel and 2 classes.
    """

    Options = UNet3DOptions
    encoder_class, decoder_class = UNet3DEncoder, UNet3DDecoder
    dims = 3

    @classmethod
    def least_side(cls, options: Mapping[str, Any]) -> int:
        return 2 * cls.divisor  # its norm is always by instance
