"""Heads on the coarser maps of a decoder, and the U-Nets that have them (URPC; Luo et al., MICCAI 2021)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sslbench.core.registry import register
from sslbench.networks.base import Network, initialize, unused
from sslbench.networks.perturbation import feature_drop, feature_dropout, feature_noise
from sslbench.networks.resize import resize_linear
from sslbench.networks.unet import UNet
from sslbench.networks.unet3d import UNet3D, UNet3DOptions

# In 2-D, what the maps go through in training before their heads, finest first.
_PERTURBATIONS: tuple[Callable[[int, Tensor], Tensor], ...] = (
    feature_noise,
    feature_drop,
    partial(feature_dropout, rate=0.5),
)


class PyramidHeads(nn.Module):
    """Logits at full size from the three decoder maps below the finest, each by a convolution like the network's head.

    In 2-D the maps are perturbed in training (noise, dropped positions, dropout of one half) and logits grow by their
    nearest neighbour; in 3-D they are taken as they are and logits grow trilinearly: URPC's code of either.

    Args:
        network: whose main decoder it reads.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        decoder = network.decoder
        self.flat = network.base.dims == 2
        self.heads = nn.ModuleList(_like(decoder.head, channels) for channels in decoder.channels[-2::-1][:3])
        initialize(self, network.base.options.init)  # type: ignore[attr-defined]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Logits (B, C, *S) of the maps of a decoder, coarse to fine; the finest one's first."""
        size = maps[-1].shape[2:]
        logits = []
        for stage, (head, content, perturb) in enumerate(
            zip(self.heads, reversed(maps[:-1]), _PERTURBATIONS, strict=False)
        ):
            seen = perturb(stage, content) if self.flat and self.training else content
            found = head(seen)
            logits.append(F.interpolate(found, size) if self.flat else resize_linear(found, size))
        return logits


def _like(head: nn.Module, channels: int) -> nn.Module:
    """A fresh convolution for maps of so many channels, of the kind that the head is or begins with."""
    kind: Any = next(part for part in head.modules() if isinstance(part, _ConvNd))  # its sides are equal
    made: nn.Module = type(kind)(channels, kind.out_channels, kind.kernel_size, padding=kind.padding)
    return made


class _Pyramid(Network):
    """A network whose `forward` gives the logits of four heads, that of the finest map first."""

    several = True

    def __init__(self, in_channels: int, num_classes: int, options: BaseModel) -> None:
        super().__init__(in_channels, num_classes, options)
        self.pyramid = PyramidHeads(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.decode(self.encode(x))
        return [self.head(maps[-1]), *self.pyramid(maps)]


@register("network", "unet_urpc")
class UNetURPC(_Pyramid, UNet):
    """U-Net with heads on the 32-, 64- and 128-channel maps of its decoder too (URPC; Luo et al., MICCAI 2021).

    `forward` gives four logits at full size, the finest head's first; the method `urpc` puts the same heads on any
    network. 1 831 060 parameters for one input channel and 4 classes: as in the public code there is also a head for
    the bottleneck that nothing uses.
    """

    def __init__(self, in_channels: int, num_classes: int, options: BaseModel) -> None:
        super().__init__(in_channels, num_classes, options)
        self.unused = unused(lambda: _like(self.decoder.head, self.channels[-1]))


class UNet3DURPCOptions(UNet3DOptions):
    """Options of `unet3d_urpc`: those of `unet3d`."""

    dropout: float = Field(default=0.0, ge=0, lt=1, description="as in `unet3d` (URPC: none)")
    decoder_dropout: tuple[float, float, float, float] = Field(
        default=(0.1, 0.2, 0.3, 0.5), description="Dropout3d of the decoder stages, finest first (URPC)"
    )


@register("network", "unet3d_urpc")
class UNet3DURPC(_Pyramid, UNet3D):
    """3-D U-Net with a head on every map of its decoder (URPC; Luo et al., MICCAI 2021).

    `forward` gives four logits at full size, the finest head's first; the method `urpc` puts the same heads on any
    network. 5 887 432 parameters for one input channel and 14 classes.
    """

    Options = UNet3DURPCOptions
