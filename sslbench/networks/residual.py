"""Networks with the encoder of a ResNet, the second students of methods that want two of different build (SDCL)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial

from pydantic import Field
from torch import Tensor, nn

from sslbench.core.registry import register
from sslbench.networks import unet
from sslbench.networks.base import Conv3d, Network
from sslbench.networks.unet import UNetDecoder, UNetOptions
from sslbench.networks.vnet import VNetDecoder, VNetOptions, norm_layers

# Residual blocks of the stages behind the stem: ResNet-34.
_BLOCKS = (3, 4, 6, 3)

Conv = Callable[..., nn.Module]
Norm = Callable[[int], list[nn.Module]]


class _Block(nn.Module):
    """Two 3-wide convolutions, plus the input: as it is, or through a 1-wide one where its shape is another."""

    def __init__(self, conv: Conv, norm: Norm, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        bias = not norm(channels)
        self.convs = nn.Sequential(
            conv(channels_in, channels, 3, stride=stride, padding=1, bias=bias),
            *norm(channels),
            nn.ReLU(inplace=True),
            conv(channels, channels, 3, padding=1, bias=bias),
            *norm(channels),
        )
        fits = stride == 1 and channels_in == channels
        self.shortcut = nn.Sequential(
            *([] if fits else [conv(channels_in, channels, 1, stride=stride, bias=bias), *norm(channels)])
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.relu(self.convs(x) + self.shortcut(x))
        return output


class ResidualEncoder(nn.Module):
    """A 7-wide convolution at full size, then the 3, 4, 6, 3 residual blocks of ResNet-34, each four halving the size.

    Args:
        in_channels: of the image.
        widths: channels of the five stages, finest first.
        conv, norm: make the layers; convolutions have a bias where no norm follows.
        dropout: one layer per stage, for its map.
    """

    def __init__(
        self, in_channels: int, widths: Sequence[int], conv: Conv, norm: Norm, dropout: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        stem = conv(in_channels, widths[0], 7, padding=3, bias=not norm(widths[0]))
        self.stages = nn.ModuleList([nn.Sequential(stem, *norm(widths[0]), nn.ReLU(inplace=True))])
        for (before, width), count in zip(itertools.pairwise(widths), _BLOCKS, strict=True):
            later = [_Block(conv, norm, width, width, stride=1) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(_Block(conv, norm, before, width, stride=2), *later))
        self.dropout = nn.ModuleList(dropout)
        self.channels = tuple(widths)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of the five stages, finest first."""
        maps: list[Tensor] = []
        for stage, drop in zip(self.stages, self.dropout, strict=True):
            x = drop(stage(x))
            maps.append(x)
        return maps


class ResUNetOptions(UNetOptions):
    """Options of `resunet`: those of `unet`."""

    dropout: tuple[float, float, float, float, float] = Field(
        default=(0.0, 0.0, 0.0, 0.0, 0.0), description="element-wise dropout of the encoder stages, finest first"
    )


class ResUNetEncoder(ResidualEncoder):
    """With 16 to 256 channels and batch norm."""

    def __init__(self, in_channels: int, options: ResUNetOptions) -> None:
        dropout = [nn.Dropout(rate) for rate in options.dropout]
        super().__init__(in_channels, unet.WIDTHS, nn.Conv2d, lambda channels: [nn.BatchNorm2d(channels)], dropout)


@register("network", "resunet")
class ResUNet(Network):
    """The U-Net decoder on the encoder of a ResNet-34 of half its width (SDCL; Song and Wang, MICCAI 2024).

    Input (B, in_channels, H, W), sides divisible by 16; logits (B, C, H, W). 5 953 092 parameters for one input channel
    and 4 classes.

    Deviations:
    - Of the published network the size alone is known here, 5 966 156. This layout has it, to the last parameter, with
      the 13 064 of the unused SS-Net heads that the networks of that family carry, and that are left out. Where its
      strides are (here in the first convolution of four stages, none in the stem) and its initialisation (here
      PyTorch's) cannot be told from that.
    """

    Options = ResUNetOptions
    encoder_class, decoder_class = ResUNetEncoder, UNetDecoder
    dims = 2


class ResVNetEncoder(ResidualEncoder):
    """With f to 16f channels; dropout on the bottleneck."""

    def __init__(self, in_channels: int, options: VNetOptions) -> None:
        widths = [options.base_filters * 2**stage for stage in range(5)]
        dropout = [*(nn.Identity() for _ in range(4)), nn.Dropout3d(options.dropout)]
        super().__init__(in_channels, widths, Conv3d, partial(norm_layers, options.norm), dropout)


@register("network", "resvnet")
class ResVNet(Network):
    """The V-Net decoder on the encoder of a ResNet-34 of f to 16f channels (SDCL; Song and Wang, MICCAI 2024).

    Input (B, in_channels, D, H, W), sides divisible by 16; logits (B, C, D, H, W). Options are those of `vnet`.

    Deviations:
    - The published layout is not known here, nor its size; this is that of the 2-D network in 3-D.
    """

    Options = VNetOptions
    encoder_class, decoder_class = ResVNetEncoder, VNetDecoder
    dims = 3
