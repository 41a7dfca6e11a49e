"""Decoders that differ in their blocks, and the fusion of their maps in another (DCA, CVPR 2026, reconstructed)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from sslbench.networks.base import Conv3d, Decoder, Features, Network, initialize


class SqueezeExcitation(nn.Module):
    """x·σ(W₂ ReLU(W₁ x̄)), x̄ the mean of each channel over the positions (Hu et al., CVPR 2018).

    Args:
        channels: c, of the map (B, c, *S).
        reduction: c / reduction values between W₁ and W₂, at least one.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        between = max(1, channels // reduction)
        self.layers = nn.Sequential(nn.Linear(channels, between), nn.ReLU(), nn.Linear(between, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        scale: Tensor = self.layers(x.flatten(2).mean(-1))
        return x * scale.view(*scale.shape, *[1] * (x.ndim - 2))


class DilatedPair(nn.Module):
    """Two 3-wide convolutions side by side, dilated by 1 and by `dilation`; norm and ReLU of their sum.

    Args:
        network: whose dimensions and initialisation it has.
        decoder: whose norm it has, of its own.
        channels: of the map (B, c, *S).
        dilation: of the wider one.
    """

    def __init__(self, network: Network, decoder: Decoder, channels: int, dilation: int) -> None:
        super().__init__()
        self.near, self.far = (_convolution(network, channels, channels, 3, apart) for apart in (1, dilation))
        norm = next((type(part) for part in decoder.modules() if isinstance(part, _NormBase)), None)
        self.norm = nn.Identity() if norm is None else norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.near(x) + self.far(x)))


class Expert(nn.Module):
    """A decoder with blocks of its own behind some of its stages.

    Args:
        decoder: any.
        blocks: by the number of the stage, coarse to fine; other stages stay plain.
    """

    def __init__(self, decoder: Decoder, blocks: Mapping[int, nn.Module]) -> None:
        super().__init__()
        self.decoder = decoder
        self.blocks = nn.ModuleList(blocks.get(stage, nn.Identity()) for stage in range(len(decoder.channels)))

    def forward(self, features: Features) -> tuple[list[Tensor], Tensor]:
        """The maps of the stages, coarse to fine, and the logits (B, outputs, *S)."""
        maps = self.decoder(features, lambda stage, content: self.blocks[stage](content))
        return maps, self.decoder.head(maps[-1])


class FeatureAggregation(nn.Module):
    """G + P(Σ_e α_e·F_e): the maps F of other decoders, fused voxel by voxel and added to a decoder's own map G.

    α = softmax over e of a 1-wide convolution of [F_1; ...; F_E; G]; P is a 1-wide convolution, zero at the start, so
    that the decoder begins as a plain one.

    Args:
        network: whose dimensions and initialisation it has.
        channels: c, of every map (B, c, *S).
        others: E.
    """

    def __init__(self, network: Network, channels: int, others: int) -> None:
        super().__init__()
        self.gate = _convolution(network, (others + 1) * channels, others, 1)
        self.project = _convolution(network, channels, channels, 1)
        for parameter in self.project.parameters():
            nn.init.zeros_(parameter)

    def gates(self, maps: Sequence[Tensor], own: Tensor) -> Tensor:
        """α (B, E, *S) of E maps and G."""
        found: Tensor = self.gate(torch.cat([*maps, own], dim=1)).softmax(1)
        return found

    def forward(self, maps: Sequence[Tensor], own: Tensor) -> Tensor:
        """G with the fusion of E maps added."""
        gates = self.gates(maps, own).to(own.dtype).split(1, dim=1)
        fused = torch.stack([gate * content for gate, content in zip(gates, maps, strict=True)]).sum(0)
        return own + self.project(fused)


def _convolution(network: Network, channels_in: int, channels: int, width: int, dilation: int = 1) -> nn.Module:
    """A convolution of the network's dimensions that keeps the size, initialised as the network's own."""
    kind = nn.Conv2d if network.base.dims == 2 else Conv3d
    made = kind(channels_in, channels, width, padding=width // 2 * dilation, dilation=dilation)
    initialize(made, network.base.options.init)  # type: ignore[attr-defined]
    return made
