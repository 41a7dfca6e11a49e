"""The plain V-Net of the 3-D papers: additive skips, 3³ convolutions, no residual blocks."""

from __future__ import annotations

import itertools
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from sslbench.core.options import Options
from sslbench.core.registry import register
from sslbench.networks.base import Conv3d, Decoder, Features, Network, Refine, add_prior, as_they_are
from sslbench.networks.resize import Upsample

# Convolutions of a stage, finest first; the decoder mirrors them without the bottleneck.
_DEPTHS = (1, 2, 3, 3, 3)


class VNetOptions(Options):
    """Options of `vnet`."""

    base_filters: int = Field(default=16, gt=0, description="channels of the finest stage (GA, LA: 16; DHC: 32)")
    norm: Literal["batch", "instance", "none"] = Field(
        default="batch", description="instance: without affine parameters or running statistics (MagicNet)"
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Dropout3d on the bottleneck and the finest map (DHC, LA: 0.5; GA: 0)"
    )
    init: Literal["default", "kaiming", "xavier"] = Field(
        default="default", description="of the 3³, 2³ and 1³ convolutions; transposed ones keep PyTorch's"
    )


def norm_layers(kind: str, channels: int) -> list[nn.Module]:
    """The norm of `VNetOptions.norm`, in a list; an empty one for `none`."""
    if kind == "batch":
        return [nn.BatchNorm3d(channels)]
    return [nn.InstanceNorm3d(channels)] if kind == "instance" else []


def _convs(channels_in: int, channels: int, depth: int, norm: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(depth):
        layers += [Conv3d(channels if number else channels_in, channels, 3, padding=1), *norm_layers(norm, channels)]
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class VNetEncoder(nn.Module):
    """Five stages of 1, 2, 3, 3, 3 convolutions with f, 2f, 4f, 8f, 16f channels, halved by strided convolutions."""

    def __init__(self, in_channels: int, options: VNetOptions) -> None:
        super().__init__()
        widths = [options.base_filters * 2**stage for stage in range(5)]
        self.blocks = nn.ModuleList(
            _convs(in_channels if stage == 0 else width, width, depth, options.norm)
            for stage, (width, depth) in enumerate(zip(widths, _DEPTHS, strict=True))
        )
        self.down = nn.ModuleList(
            nn.Sequential(Conv3d(a, b, 2, stride=2), *norm_layers(options.norm, b), nn.ReLU(inplace=True))
            for a, b in itertools.pairwise(widths)
        )
        self.dropout = nn.Dropout3d(options.dropout)
        self.channels = tuple(widths)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of the five stages, finest first."""
        maps = [self.blocks[0](x)]
        for down, block in zip(self.down, list(self.blocks)[1:], strict=True):
            maps.append(block(down(maps[-1])))
        maps[-1] = self.dropout(maps[-1])
        return maps


class VNetDecoderOptions(VNetOptions):
    """Options of a decoder of `vnet`; a network's main one has the default."""

    upsampling: Literal["transposed", "trilinear", "nearest"] = Field(
        default="transposed",
        description="transposed 2³ convolution; or trilinear with aligned corners or nearest, then a 3³ one (MC-Net)",
    )


def _upsample(kind: str, channels_in: int, channels: int) -> list[nn.Module]:
    if kind == "transposed":
        return [nn.ConvTranspose3d(channels_in, channels, 2, stride=2)]
    corners = None if kind == "nearest" else True
    return [
        Upsample(kind, corners),
        Conv3d(channels_in, channels, 3, padding=1),
    ]


class VNetDecoder(Decoder):
    """Four times: upsample, plus the skip, plus the prior; then 3, 3, 2, 1 convolutions."""

    Options = VNetDecoderOptions
    upsamplings = ("transposed", "trilinear", "nearest")

    def __init__(self, num_classes: int, options: VNetDecoderOptions) -> None:
        super().__init__()
        widths = [options.base_filters * 2**stage for stage in range(5)]
        self.up = nn.ModuleList(
            nn.Sequential(
                *_upsample(options.upsampling, widths[stage + 1], widths[stage]),
                *norm_layers(options.norm, widths[stage]),
                nn.ReLU(inplace=True),
            )
            for stage in reversed(range(4))
        )
        self.blocks = nn.ModuleList(
            _convs(widths[stage], widths[stage], _DEPTHS[stage], options.norm) for stage in reversed(range(4))
        )
        self.dropout = nn.Dropout3d(options.dropout)
        self.head = Conv3d(widths[0], num_classes, 1)
        self.channels = self.prior_channels = tuple(reversed(widths[:4]))

    def forward(self, features: Features, refine: Refine = as_they_are) -> list[Tensor]:
        """Maps of the four decoder stages, coarse to fine."""
        *skips, content = features.maps
        maps: list[Tensor] = []
        for stage, (up, block, skip) in enumerate(zip(self.up, self.blocks, reversed(skips), strict=True)):
            content = refine(stage, block(add_prior(up(content) + skip, features, stage)))
            maps.append(content)
        maps[-1] = self.dropout(maps[-1])
        return maps


@register("network", "vnet")
class VNet(Network):
    """V-Net (Milletari et al., 3DV 2016) as plain as the GA, DHC and LA code has it.

    Input (B, in_channels, X, Y, Z), sides divisible by 16; logits (B, C, X, Y, Z). With one input channel, batch norm
    and f = 16 it has 9 449 070 parameters for 14 classes; f = 32: 37 778 126.
    """

    Options = VNetOptions
    encoder_class, decoder_class = VNetEncoder, VNetDecoder
    dims = 3
