"""The 2-D U-Net of the ACDC and DigestPath experiments (SSL4MIS, GA, MetaSSL, BCP)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sslbench.core.options import Options
from sslbench.core.registry import register
from sslbench.networks.base import Decoder, Features, Network, Refine, add_prior, as_they_are
from sslbench.networks.resize import Upsample

WIDTHS = (16, 32, 64, 128, 256)  # channels of the stages, finest first


class UNetOptions(Options):
    """Options of `unet`."""

    dropout: tuple[float, float, float, float, float] = Field(
        default=(0.05, 0.1, 0.2, 0.3, 0.5), description="element-wise dropout of the encoder stages, finest first"
    )
    decoder_dropout: tuple[float, float, float, float] = Field(
        default=(0.0, 0.0, 0.0, 0.0), description="element-wise dropout of the decoder stages, finest first"
    )
    upsampling: Literal["bilinear", "nearest", "bicubic", "transposed"] = Field(
        default="bilinear", description="bilinear and bicubic with aligned corners, after a 1×1 convolution"
    )
    init: Literal["default", "kaiming", "xavier"] = "default"


def _block(channels_in: int, channels: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.LeakyReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.LeakyReLU(inplace=True),
    )


class UNetEncoder(nn.Module):
    """Five double-convolution stages with 16 to 256 channels, halved by max pooling."""

    def __init__(self, in_channels: int, options: UNetOptions) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            _block(before, width, dropout)
            for before, width, dropout in zip((in_channels, *WIDTHS), WIDTHS, options.dropout, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.channels = WIDTHS

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of the five stages, finest first."""
        maps = [self.blocks[0](x)]
        for block in list(self.blocks)[1:]:
            maps.append(block(self.pool(maps[-1])))
        return maps


def _upsample(kind: str, channels_in: int, channels: int) -> nn.Module:
    if kind == "transposed":
        return nn.ConvTranspose2d(channels_in, channels, 2, stride=2)
    corners = None if kind == "nearest" else True
    return nn.Sequential(nn.Conv2d(channels_in, channels, 1), Upsample(kind, corners))


class UNetDecoder(Decoder):
    """Four times: upsample, concatenate [skip, up], add the prior, double convolution."""

    upsamplings = ("bilinear", "transposed", "nearest", "bicubic")

    def __init__(self, num_classes: int, options: UNetOptions) -> None:
        super().__init__()
        steps = [(WIDTHS[stage + 1], WIDTHS[stage]) for stage in reversed(range(4))]
        self.up = nn.ModuleList(_upsample(options.upsampling, coarse, fine) for coarse, fine in steps)
        self.blocks = nn.ModuleList(
            _block(2 * fine, fine, dropout)
            for (_, fine), dropout in zip(steps, reversed(options.decoder_dropout), strict=True)
        )
        self.head = nn.Conv2d(WIDTHS[0], num_classes, 3, padding=1)
        self.channels = tuple(fine for _, fine in steps)
        self.prior_channels = tuple(2 * fine for fine in self.channels)

    def forward(self, features: Features, refine: Refine = as_they_are) -> list[Tensor]:
        """Maps of the four decoder stages, coarse to fine."""
        *skips, content = features.maps
        maps: list[Tensor] = []
        for stage, (up, block, skip) in enumerate(zip(self.up, self.blocks, reversed(skips), strict=True)):
            content = refine(stage, block(add_prior(torch.cat([skip, up(content)], dim=1), features, stage)))
            maps.append(content)
        return maps


@register("network", "unet")
class UNet(Network):
    """U-Net (Ronneberger et al., MICCAI 2015) in the SSL4MIS form.

    Input (B, in_channels, H, W), sides divisible by 16; logits (B, C, H, W). 1 813 764 parameters for one input
    channel and 4 classes.
    """

    Options = UNetOptions
    encoder_class, decoder_class = UNetEncoder, UNetDecoder
    dims = 2
