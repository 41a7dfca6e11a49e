"""The diffusion V-Net of GenericSSL (A&D): one encoder for images and for noisy label maps, three decoders."""

from __future__ import annotations

import itertools
import math

import torch
from pydantic import Field
from torch import Tensor, nn

from sslbench.core.registry import register
from sslbench.networks.base import (
    Conv3d,
    Decoder,
    Features,
    Network,
    Refine,
    add_prior,
    as_they_are,
    initialize,
    unrecorded,
    unused,
)
from sslbench.networks.vnet import VNetOptions, norm_layers

# Convolutions of the blocks, finest first; the finest is the embedding.
_DEPTHS = (1, 2, 3, 3, 3)
_TIME = 512  # length of a time embedding


class DiffusionVNetOptions(VNetOptions):
    """Options of `diffusion_vnet`."""

    base_filters: int = Field(default=32, gt=0, description="channels of the finest stage (GenericSSL: 32)")
    dropout: float = Field(default=0.5, ge=0, lt=1, description="Dropout3d on the bottleneck and the finest map")
    stage_dropout: float = Field(
        default=0.1, ge=0, lt=1, description="Dropout3d behind every 3³ convolution of a decoder"
    )


def _stage(conv: nn.Module, channels: int, norm: str, dropout: float = 0) -> nn.Sequential:
    return nn.Sequential(conv, nn.ReLU(inplace=True), *norm_layers(norm, channels), nn.Dropout3d(dropout))


class TimeEmbedding(nn.Module):
    """Diffusion times (B,) -> (B, 512): sine, then cosine, of 64 frequencies from 1 to 10⁻⁴, Linear, x·σ(x), Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(128, _TIME), nn.SiLU(), nn.Linear(_TIME, _TIME))

    def forward(self, time: Tensor) -> Tensor:
        frequencies = torch.exp(torch.arange(64, device=time.device) * (-math.log(10_000) / 63))
        angles = time.float().unsqueeze(1) * frequencies
        embedded: Tensor = self.layers(torch.cat([angles.sin(), angles.cos()], dim=1))
        return embedded


class TimeShift(nn.Module):
    """x + Linear(t·σ(t)), one value per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(_TIME, channels)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        shift: Tensor = self.linear(nn.functional.silu(time))
        return x + shift.view(*shift.shape, 1, 1, 1)


class Block(nn.Module):
    """Stages of convolution, ReLU, norm and dropout; where it takes times, a shift behind every stage but the last.

    The last stage's shift, which nothing uses, is there for the published size: 512·channels + channels parameters.
    """

    def __init__(
        self, channels_in: int, channels: int, depth: int, norm: str, timed: bool = True, dropout: float = 0
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            _stage(Conv3d(channels if number else channels_in, channels, 3, padding=1), channels, norm, dropout)
            for number in range(depth)
        )
        self.shifts = nn.ModuleList(TimeShift(channels) for _ in range(depth - 1) if timed)
        if timed:
            self.unused = unused(lambda: TimeShift(channels))

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if time is not None and number < len(self.shifts):
                x = self.shifts[number](x, time)
        return x


class ImageEmbedding(nn.Module):
    """Images (B, in_channels, *S) to the finest map (B, f, *S).

    The embedding of times, which nothing uses, is there for the published size.
    """

    def __init__(self, in_channels: int, options: DiffusionVNetOptions) -> None:
        super().__init__()
        self.block = Block(in_channels, options.base_filters, _DEPTHS[0], options.norm)
        self.unused = unused(TimeEmbedding)

    def forward(self, x: Tensor) -> Tensor:
        embedded: Tensor = self.block(x)
        return embedded


class DiffusionEncoder(nn.Module):
    """The V-Net's encoder behind its first block, with a time shift behind every convolution but a block's last."""

    def __init__(self, options: DiffusionVNetOptions) -> None:
        super().__init__()
        self.channels = tuple(options.base_filters * 2**stage for stage in range(5))
        steps = list(itertools.pairwise(self.channels))
        self.down = nn.ModuleList(_stage(Conv3d(a, b, 2, stride=2), b, options.norm) for a, b in steps)
        self.shifts = nn.ModuleList(TimeShift(width) for width in self.channels[1:])
        self.blocks = nn.ModuleList(
            Block(width, width, depth, options.norm)
            for width, depth in zip(self.channels[1:], _DEPTHS[1:], strict=True)
        )
        self.dropout = nn.Dropout3d(options.dropout)

    def forward(self, embedded: Tensor, time: Tensor | None = None) -> list[Tensor]:
        """Maps of the five stages, finest first.

        Args:
            embedded: (B, f, *S), the finest map.
            time: (B, 512); None: no shifts.
        """
        maps = [embedded]
        for down, shift, block in zip(self.down, self.shifts, self.blocks, strict=True):
            content = down(maps[-1])
            maps.append(block(content if time is None else shift(content, time), time))
        maps[-1] = self.dropout(maps[-1])
        return maps


class DiffusionDecoder(Decoder):
    """The V-Net's decoder with its layers in the order convolution, ReLU, norm, dropout.

    Args:
        num_classes: C.
        options: of the network.
        timed: whether shifts by the diffusion time stand behind its up-sampling and its convolutions.
    """

    def __init__(self, num_classes: int, options: DiffusionVNetOptions, timed: bool = False) -> None:
        super().__init__()
        widths = [options.base_filters * 2**stage for stage in range(5)]
        fine = widths[3::-1]
        self.up = nn.ModuleList(
            _stage(nn.ConvTranspose3d(coarse, width, 2, stride=2), width, options.norm)
            for coarse, width in zip(widths[:0:-1], fine, strict=True)
        )
        self.shifts = nn.ModuleList(TimeShift(width) for width in fine if timed)
        self.blocks = nn.ModuleList(
            Block(width, width, depth, options.norm, timed, options.stage_dropout)
            for width, depth in zip(fine, _DEPTHS[3::-1], strict=True)
        )
        self.dropout = nn.Dropout3d(options.dropout)
        self.head = Conv3d(widths[0], num_classes, 1)
        self.channels = self.prior_channels = tuple(fine)

    def forward(self, features: Features, refine: Refine = as_they_are, time: Tensor | None = None) -> list[Tensor]:
        """Maps of the four stages, coarse to fine; `time` (B, 512) for a decoder that takes one."""
        *skips, content = features.maps
        maps: list[Tensor] = []
        for stage, (up, block, skip) in enumerate(zip(self.up, self.blocks, reversed(skips), strict=True)):
            content = up(content)
            if time is not None:
                content = self.shifts[stage](content, time)
            content = refine(stage, block(add_prior(content + skip, features, stage), time))
            maps.append(content)
        maps[-1] = self.dropout(maps[-1])
        return maps


class Denoiser(nn.Module):
    """What denoising has beyond the shared encoder: an embedding of image and noisy label map, and a decoder."""

    def __init__(self, in_channels: int, num_classes: int, options: DiffusionVNetOptions) -> None:
        super().__init__()
        self.time = TimeEmbedding()
        self.embedding = Block(in_channels + num_classes, options.base_filters, _DEPTHS[0], options.norm)
        self.decoder = DiffusionDecoder(num_classes, options, timed=True)


@register("network", "diffusion_vnet")
class DiffusionVNet(Network):
    """Diffusion V-Net (GenericSSL; Wang and Li, NeurIPS 2023): a V-Net whose encoder also denoises label maps.

    A plain pass embeds the image and goes through the encoder and one of two plain decoders, of which `forward` takes
    the first. A denoising pass embeds image and noisy label map, shifts the encoder's maps by the diffusion time, and
    has a decoder of its own. Input (B, in_channels, X, Y, Z), sides divisible by 16; logits (B, C, X, Y, Z).
    57 903 466 parameters for one input channel and 14 classes, of which nothing uses 1 100 256, as in the public code:
    the embedding of times beside the image's, and a time shift behind each block's last convolution.
    """

    version = 2  # dropout in decoders alone, running statistics of plain passes
    Options = DiffusionVNetOptions
    dims = 3

    def __init__(self, in_channels: int, num_classes: int, options: DiffusionVNetOptions) -> None:
        nn.Module.__init__(self)
        self.options, self.num_classes = options, num_classes
        self.embedding = ImageEmbedding(in_channels, options)
        self.encoder = DiffusionEncoder(options)
        self.decoders = nn.ModuleList([DiffusionDecoder(num_classes, options) for _ in range(2)])
        self.denoiser = Denoiser(in_channels, num_classes, options)
        initialize(self, options.init)

    def encode(self, x: Tensor) -> Features:
        return Features(tuple(self.encoder(self.embedding(x))))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.encode(x))

    def denoise(self, image: Tensor, noisy: Tensor, time: Tensor, recorded: bool = False) -> Tensor:
        """Logits (B, C, *S) of the label map that `noisy` was made of.

        The encoder's running statistics stay those of plain passes, unless `recorded`.

        Args:
            image: (B, in_channels, *S).
            noisy: (B, C, *S), a label map as ±1 per class with noise of the step `time`.
            time: (B,), diffusion steps.
            recorded: whether the pass counts in the encoder's running statistics.
        """
        denoiser = self.denoiser
        embedded = denoiser.time(time)
        content = denoiser.embedding(torch.cat([image, noisy.to(image.dtype)], dim=1))
        with unrecorded(*([] if recorded else [self.encoder])):
            maps = self.encoder(content, embedded)
        logits: Tensor = denoiser.decoder.head(denoiser.decoder(Features(tuple(maps)), time=embedded)[-1])
        return logits

    def make_decoder(self, num_classes: int | None = None, **options: object) -> Decoder:
        """A fresh plain decoder with head; what is not given is as the network has it."""
        chosen = DiffusionVNetOptions.model_validate({**self.options.model_dump(), **options})
        decoder = DiffusionDecoder(num_classes or self.num_classes, chosen)
        initialize(decoder, chosen.init)
        return decoder
