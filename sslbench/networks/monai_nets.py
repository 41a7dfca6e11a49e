"""Networks of MONAI, split into encoder, decoder and head: `monai:SwinUNETR`, `monai:SegResNet`, ...

MONAI builds each network and draws its weights; `split` then takes the parts out, and the passes here repeat what
MONAI's `forward` does with them, stage by stage, so that plugins, further decoders and extra heads can reach in. A
further decoder is the decoder part of a second such network. MONAI is imported when a network is built, not before.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, cast

import torch
from pydantic import AfterValidator, BaseModel, Field, model_validator
from torch import Tensor, nn

from sslbench.core.errors import UsageError
from sslbench.core.options import Options
from sslbench.core.registry import register
from sslbench.networks.base import Decoder, Features, Network, Refine, add_prior, as_they_are, initialize

# ------------------------------------------------------------------------------------------------------ the options

Rate = Annotated[float, Field(ge=0, lt=1)]
Widths = Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=2)]
Layer = str | tuple[str, Mapping[str, int | float | bool | None]]  # the name of a layer, or [name, {argument: value}]

_NORMS: dict[str, Any] = {"instance": nn.InstanceNorm3d, "batch": nn.BatchNorm3d, "group": nn.GroupNorm}
_ACTIVATIONS: dict[str, Any] = {
    "relu": nn.ReLU,
    "leakyrelu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "elu": nn.ELU,
    "celu": nn.CELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "mish": nn.Mish,
}


def _layer(known: Mapping[str, Any], needed: Mapping[str, str]) -> Callable[[Layer], Layer]:
    """Make a validator of a layer's name and arguments, which gives the name in lower case."""

    def check(layer: Layer) -> Layer:
        name, arguments = (layer, {}) if isinstance(layer, str) else layer
        name = name.lower()
        if name not in known:
            raise ValueError(f"'{name}' is not one of {', '.join(known)}")
        takes = [*inspect.signature(known[name]).parameters]
        wrong = [argument for argument in arguments if argument not in takes]
        if wrong:
            raise ValueError(f"{name} has no '{wrong[0]}', it has {', '.join(takes)}")
        if name in needed and needed[name] not in arguments:
            raise ValueError(f"{name} needs '{needed[name]}': [{name}, {{{needed[name]}: 8}}]")
        return (name, arguments) if arguments else name

    return check


NormLayer = Annotated[Layer, AfterValidator(_layer(_NORMS, {"group": "num_groups"}))]
Activation = Annotated[Layer, AfterValidator(_layer(_ACTIVATIONS, {}))]
Upsampling = Literal["deconv", "nontrainable", "pixelshuffle"]

_INIT = "of the plain convolutions; default: as MONAI draws them"


class MonaiOptions(Options):
    """The options of every network of MONAI; what a subclass adds has MONAI's names and, where it has any, defaults."""

    spatial_dims: Literal[2, 3] | None = Field(default=None, description="of the images; null: those of patch_size")
    init: Literal["default", "kaiming", "xavier"] = Field(default="default", description=_INIT)

    def divisor(self) -> int:
        """What every side of an image must be divisible by."""
        return 16

    def layers(self) -> dict[str, Any]:
        """The arguments of MONAI's class but the channels of image and logits."""
        given = self.model_dump(exclude={"init"})
        return {**given, "spatial_dims": self.spatial_dims or 3}

    def norms(self) -> tuple[Layer, tuple[int, ...]]:
        """The norm, and the channels that it is put on, the bottleneck's among them."""
        return "batch", ()

    @model_validator(mode="after")
    def _groups(self) -> MonaiOptions:
        norm, widths = self.norms()
        groups = norm[1].get("num_groups") if isinstance(norm, tuple) else None
        if groups and any(width % int(groups) for width in widths):
            raise ValueError(f"num_groups={groups} of the group norm does not divide the channels {[*widths]}")
        return self


# -------------------------------------------------------------------------------------------------------- the parts


class Chain(nn.Module):
    """An encoder whose stages feed one another.

    Args:
        stages: finest first.
        channels: of their maps.
    """

    def __init__(self, stages: Sequence[nn.Module], channels: Sequence[int]) -> None:
        super().__init__()
        self.stages, self.channels = nn.ModuleList(stages), tuple(channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of the stages, finest first."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def _skip_first(grown: Tensor, skip: Tensor) -> Tensor:
    return torch.cat([skip, grown], dim=1)


def _skip_last(grown: Tensor, skip: Tensor) -> Tensor:
    return torch.cat([grown, skip], dim=1)


class Stage(nn.Module):
    """One stage of a decoder: the coarser map grows, meets the skip, and goes through a block.

    Args:
        up: makes the coarser map grow.
        join: of the grown map and the skip.
        block: reads what `join` gives, with the prior added.
        joined: channels that the block reads.
        channels: channels that it gives.
    """

    def __init__(
        self, up: nn.Module, join: Callable[[Tensor, Tensor], Tensor], block: nn.Module, joined: int, channels: int
    ) -> None:
        super().__init__()
        self.up, self.join, self.block = up, join, block
        self.joined, self.channels = joined, channels


class MonaiDecoder(Decoder):
    """The decoder part of a network of MONAI."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.stages, self.head = nn.ModuleList(parts.stages), parts.head
        self.last = nn.Identity() if parts.last is None else parts.last
        self.channels = tuple(stage.channels for stage in parts.stages)
        self.prior_channels = tuple(stage.joined for stage in parts.stages)

    def forward(self, features: Features, refine: Refine = as_they_are) -> list[Tensor]:
        """Maps of the stages, coarse to fine."""
        *skips, content = features.maps
        maps: list[Tensor] = []
        for number, (module, skip) in enumerate(zip(self.stages, reversed(skips), strict=True)):
            stage = cast(Stage, module)
            made = stage.block(add_prior(stage.join(stage.up(content), skip), features, number))
            content = refine(number, self.last(made) if number == len(skips) - 1 else made)
            maps.append(content)
        return maps


class UpsamplingDecoder(MonaiDecoder):
    """The decoder part of a network of MONAI whose upsampling can be chosen."""

    upsamplings = ("deconv", "nontrainable", "pixelshuffle")


class Parts(NamedTuple):
    """The parts of a network of MONAI.

    Attributes:
        encoder: gives maps, finest first; it has `channels`.
        stages: of the decoder, coarse to fine.
        head: from the finest map to logits.
        last: what the finest map goes through behind its stage, where there is more.
        inner: further nodes of a nested decoder, by row and column.
    """

    encoder: nn.Module
    stages: Sequence[Stage]
    head: nn.Module
    last: nn.Module | None = None
    inner: Mapping[str, Stage] = {}


class MonaiNetwork(Network):
    """A network of MONAI behind `encode`, `decode` and `head`.

    Attributes:
        source: MONAI's class.
        requires: packages that MONAI needs for it and does not bring.
        upsampling: the option that says how its decoder upsamples, where it has one.
        sized: whether it takes images of one size alone, which its option `img_size` says.
    """

    Options: ClassVar[type[MonaiOptions]]
    decoder_class = MonaiDecoder
    source: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    upsampling: ClassVar[str | None] = None
    options: MonaiOptions

    def __init__(self, in_channels: int, num_classes: int, options: MonaiOptions) -> None:
        nn.Module.__init__(self)
        self.options, self.num_classes = options, num_classes
        self.dims, self.divisor = options.spatial_dims or 3, options.divisor()
        parts = self._parts(in_channels, options)
        self.encoder = parts.encoder
        self.decoders = nn.ModuleList([self._decoder(parts)])
        initialize(self, options.init)

    @classmethod
    def split(cls, net: Any, options: Any) -> Parts:
        """Take a network of MONAI apart."""
        raise NotImplementedError

    @classmethod
    def divisor_of(cls, options: Mapping[str, Any]) -> int:
        return cls.Options(**options).divisor()

    @classmethod
    def least_side(cls, options: Mapping[str, Any]) -> int:
        typed = cls.Options(**options)
        norm = typed.norms()[0]
        return typed.divisor() * (2 if "instance" in (norm, norm[0]) else 1)

    @classmethod
    def fit(cls, options: dict[str, Any], patch_size: Sequence[int]) -> dict[str, Any]:
        if missing := cls._missing():
            raise ValueError(missing)
        dims, asked = len(patch_size), options["spatial_dims"]
        if asked not in (None, dims):
            raise ValueError(f"has spatial_dims={asked}, and patch_size {[*patch_size]} has {dims} sides")
        divisor, least = cls.divisor_of(options), cls.least_side(options)
        if any(side % divisor for side in patch_size):
            raise ValueError(f"takes {dims} sides divisible by {divisor}, not patch_size {[*patch_size]}")
        if max(patch_size) < least:
            raise ValueError(
                f"has instance norm on its coarsest map, of which patch_size {[*patch_size]} leaves one voxel: "
                f"a side of {least} does"
            )
        return {**options, "spatial_dims": dims}

    def other_upsamplings(self) -> tuple[str, ...]:
        kinds = type(self).decoder_class.upsamplings
        return tuple(kind for kind in kinds if kind != getattr(self.options, str(self.upsampling)))

    def make_decoder(self, num_classes: int | None = None, **options: object) -> Decoder:
        if self.upsampling and "upsampling" in options:
            options[self.upsampling] = options.pop("upsampling")
        chosen = type(self.options).model_validate({**self.options.model_dump(), **options})
        decoder = self._decoder(self._parts(1, chosen, num_classes))
        initialize(decoder, chosen.init)
        return decoder

    def _parts(self, in_channels: int, options: MonaiOptions, num_classes: int | None = None) -> Parts:
        if missing := self._missing():
            raise UsageError(f"monai:{self.source} {missing}")
        from monai.networks import nets

        try:
            channels = {"in_channels": in_channels, "out_channels": num_classes or self.num_classes}
            net = getattr(nets, self.source)(**channels, **options.layers())
        except (ValueError, TypeError, AssertionError, KeyError) as error:
            raise UsageError(f"monai:{self.source}: MONAI refuses the options: {error}".splitlines()[0]) from error
        return self.split(net, options)

    def _decoder(self, parts: Parts) -> Decoder:
        return cast(Any, type(self).decoder_class)(parts)

    @classmethod
    def _missing(cls) -> str | None:
        missing = [name for name in cls.requires if find_spec(name) is None]
        return f"needs a package that is not installed: pip install {' '.join(missing)}" if missing else None


def _bare(module: nn.Module) -> nn.Module:
    """The only layer of nested sequences: a convolution without norm, activation and dropout."""
    while isinstance(module, nn.Sequential) and len(module) == 1:
        module = module[0]
    return module


def _transposed(blocks: Sequence[Any], widths: Sequence[int]) -> list[Stage]:
    """Stages of blocks that have a transposed convolution and read [grown, skip]; widths coarse to fine."""
    return [
        Stage(block.transp_conv, _skip_last, block.conv_block, 2 * width, width)
        for block, width in zip(blocks, widths, strict=True)
    ]


# ------------------------------------------------------------------------------------------- with transformer encoders


class SwinUNETROptions(MonaiOptions):
    """Options of `monai:SwinUNETR`."""

    feature_size: int = Field(default=24, gt=0, multiple_of=12, description="channels of the finest stage")
    depths: tuple[int, int, int, int] = Field(default=(2, 2, 2, 2), description="transformer blocks of each stage")
    num_heads: tuple[int, int, int, int] = Field(default=(3, 6, 12, 24), description="attention heads of each stage")
    window_size: int = Field(default=7, gt=0, description="side of the windows of attention")
    qkv_bias: bool = Field(default=True, description="of queries, keys and values")
    mlp_ratio: float = Field(default=4.0, gt=0, description="hidden by embedded channels of a transformer block")
    norm_name: NormLayer = Field(default="instance", description="of convolutions")
    drop_rate: Rate = Field(default=0.0, description="dropout of embeddings and of transformer blocks")
    attn_drop_rate: Rate = Field(default=0.0, description="dropout of attention")
    dropout_path_rate: Rate = Field(default=0.0, description="stochastic depth, growing to this rate")
    normalize: bool = Field(default=True, description="layer norm on the transformer's maps")
    use_checkpoint: bool = Field(default=False, description="compute transformer blocks again in the backward pass")
    downsample: Literal["merging", "mergingv2"] = Field(default="merging", description="patch merging; v2: Swin's own")
    use_v2: bool = Field(default=False, description="a residual convolution before each stage (SwinUNETR-V2)")

    @model_validator(mode="after")
    def _heads(self) -> SwinUNETROptions:
        wrong = [heads for stage, heads in enumerate(self.num_heads) if self.feature_size * 2**stage % heads]
        if wrong:
            raise ValueError(f"num_heads={wrong[0]} does not divide the channels of its stage")
        return self

    def divisor(self) -> int:
        return 32

    def norms(self) -> tuple[Layer, tuple[int, ...]]:
        return self.norm_name, (self.feature_size,)


class SwinEncoder(nn.Module):
    """A Swin transformer, whose maps go through convolution blocks; the image itself is the source of the finest."""

    def __init__(self, net: Any, channels: Sequence[int]) -> None:
        super().__init__()
        self.transformer, self.normalize, self.channels = net.swinViT, net.normalize, tuple(channels)
        self.blocks = nn.ModuleList(
            [net.encoder1, net.encoder2, net.encoder3, net.encoder4, nn.Identity(), net.encoder10]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of the six stages, finest first."""
        hidden = self.transformer(x, self.normalize)
        return [block(content) for block, content in zip(self.blocks, (x, *hidden), strict=True)]


@register("network", "monai:SwinUNETR")
class SwinUNETR(MonaiNetwork):
    """MONAI's Swin UNETR (Hatamizadeh et al., BrainLes 2021), 2-D or 3-D.

    Six stages, the coarsest at a 32nd of the sides, five of the decoder. It needs the package einops.
    """

    Options = SwinUNETROptions
    source, requires = "SwinUNETR", ("einops",)

    @classmethod
    def split(cls, net: Any, options: SwinUNETROptions) -> Parts:
        widths = [options.feature_size * factor for factor in (1, 1, 2, 4, 8, 16)]
        ups = net.decoder5, net.decoder4, net.decoder3, net.decoder2, net.decoder1
        return Parts(SwinEncoder(net, widths), _transposed(ups, widths[-2::-1]), _bare(net.out.conv))


class UNETROptions(MonaiOptions):
    """Options of `monai:UNETR`."""

    img_size: tuple[int, ...] | None = Field(default=None, description="of the images; null: the recipe's patch_size")
    feature_size: int = Field(default=16, gt=0, description="channels of the finest stage")
    hidden_size: int = Field(default=768, gt=0, description="channels of the transformer")
    mlp_dim: int = Field(default=3072, gt=0, description="hidden channels of a transformer block")
    num_heads: int = Field(default=12, gt=0, description="attention heads")
    proj_type: Literal["conv", "perceptron"] = Field(default="conv", description="embedding of 16-wide patches")
    norm_name: NormLayer = Field(default="instance", description="of convolutions")
    conv_block: bool = Field(default=True, description="convolutions between the upsamplings of skips")
    res_block: bool = Field(default=True, description="residual convolution blocks")
    dropout_rate: Rate = Field(default=0.0, description="dropout of the transformer")
    qkv_bias: bool = Field(default=False, description="of queries, keys and values")

    @model_validator(mode="after")
    def _heads(self) -> UNETROptions:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide hidden_size={self.hidden_size}")
        return self

    def layers(self) -> dict[str, Any]:
        return {**super().layers(), "img_size": self.img_size or (96,) * (self.spatial_dims or 3)}

    def norms(self) -> tuple[Layer, tuple[int, ...]]:
        return self.norm_name, (self.feature_size,)


class UNETREncoder(nn.Module):
    """A vision transformer, three of whose hidden states grow into skips; the image itself makes the finest."""

    def __init__(self, net: Any, channels: Sequence[int]) -> None:
        super().__init__()
        self.transformer, self.grid, self.channels = net.vit, tuple(net.feat_size), tuple(channels)
        for block in self.transformer.blocks:
            block.norm_cross_attn = nn.Identity()  # of an attention to other images, which nothing uses
        self.image, self.skips = net.encoder1, nn.ModuleList([net.encoder2, net.encoder3, net.encoder4])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps of the five stages, finest first."""
        last, hidden = self.transformer(x)
        skips = [grow(self._map(hidden[layer])) for grow, layer in zip(self.skips, (3, 6, 9), strict=True)]
        return [self.image(x), *skips, self._map(last)]

    def _map(self, tokens: Tensor) -> Tensor:
        """(B, c, *s) of tokens (B, N, c)."""
        return tokens.transpose(1, 2).unflatten(2, self.grid).contiguous()


@register("network", "monai:UNETR")
class UNETR(MonaiNetwork):
    """MONAI's UNETR (Hatamizadeh et al., WACV 2022), 2-D or 3-D.

    A vision transformer on patches 16 wide, four stages of the decoder. Its position embeddings are for one size of
    image, which is the recipe's patch_size: methods that cut patches smaller object. It needs the package einops.

    Deviations: the norms of a cross-attention that MONAI's transformer builds and does not use are left out (18 432
    parameters with the default options).
    """

    Options = UNETROptions
    source, requires, sized = "UNETR", ("einops",), True

    @classmethod
    def fit(cls, options: dict[str, Any], patch_size: Sequence[int]) -> dict[str, Any]:
        fitted, asked = super().fit(options, patch_size), options["img_size"]
        if asked not in (None, [*patch_size]):
            raise ValueError(f"has img_size={asked}, and the recipe's patch_size is {[*patch_size]}")
        return {**fitted, "img_size": [*patch_size]}

    @classmethod
    def least_side(cls, options: Mapping[str, Any]) -> int:
        return cls.divisor_of(options)  # the coarsest map has layer norm

    @classmethod
    def split(cls, net: Any, options: UNETROptions) -> Parts:
        widths = [options.feature_size * factor for factor in (1, 2, 4, 8)]
        ups = net.decoder5, net.decoder4, net.decoder3, net.decoder2
        encoder = UNETREncoder(net, (*widths, options.hidden_size))
        return Parts(encoder, _transposed(ups, widths[::-1]), _bare(net.out.conv))


# --------------------------------------------------------------------------------------------------- of convolutions


class SegResNetOptions(MonaiOptions):
    """Options of `monai:SegResNet`."""

    init_filters: int = Field(default=8, gt=0, description="channels of the finest stage")
    dropout_prob: Rate | None = Field(default=None, description="element-wise dropout behind the first convolution")
    act: Activation = Field(default=("relu", {"inplace": True}), description="activation")
    norm: NormLayer = Field(default=("group", {"num_groups": 8}), description="norm before each convolution")
    blocks_down: Widths = Field(default=(1, 2, 2, 4), description="residual blocks of the encoder stages, finest first")
    blocks_up: Annotated[tuple[int, ...], Field(min_length=1)] = Field(
        default=(1, 1, 1), description="residual blocks of the decoder stages, coarse to fine"
    )
    upsample_mode: Upsampling = Field(default="nontrainable", description="nontrainable: linear interpolation")

    @model_validator(mode="after")
    def _as_deep(self) -> SegResNetOptions:
        if len(self.blocks_up) != len(self.blocks_down) - 1:
            raise ValueError(
                f"blocks_up has {len(self.blocks_up)} stages, and blocks_down makes {len(self.blocks_down) - 1}"
            )
        return self

    def divisor(self) -> int:
        return int(2 ** len(self.blocks_up))

    def norms(self) -> tuple[Layer, tuple[int, ...]]:
        return self.norm, (self.init_filters,)


@register("network", "monai:SegResNet")
class SegResNet(MonaiNetwork):
    """MONAI's SegResNet (Myronenko, BrainLes 2018), 2-D or 3-D, without the autoencoder.

    Four stages, the coarsest at an eighth of the sides, three of the decoder; skips are added. The norm and activation
    before its last convolution belong to the decoder's finest map.
    """

    Options = SegResNetOptions
    decoder_class = UpsamplingDecoder
    source, upsampling = "SegResNet", "upsample_mode"

    @classmethod
    def split(cls, net: Any, options: SegResNetOptions) -> Parts:
        widths = [options.init_filters * 2**stage for stage in range(len(options.blocks_down))]
        first = [net.convInit] if options.dropout_prob is None else [net.convInit, net.dropout]
        down = [nn.Sequential(*first, net.down_layers[0]), *net.down_layers[1:]]
        stages = [
            Stage(up, torch.add, block, width, width)
            for up, block, width in zip(net.up_samples, net.up_layers, widths[-2::-1], strict=True)
        ]
        return Parts(Chain(down, widths), stages, _bare(net.conv_final[2]), net.conv_final[:2])


class MonaiUNetOptions(MonaiOptions):
    """Options of `monai:UNet`."""

    channels: Widths = Field(default=(16, 32, 64, 128, 256), description="of the stages, finest first")
    strides: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)] = Field(
        default=(2, 2, 2, 2), description="of all stages but the last"
    )
    kernel_size: int = Field(default=3, gt=0, description="width of convolutions, odd")
    up_kernel_size: int = Field(default=3, gt=0, description="width of transposed convolutions, odd")
    num_res_units: int = Field(default=2, ge=1, description="convolutions of a residual unit (MONAI's default: 0)")
    act: Activation = Field(default="prelu", description="activation")
    norm: NormLayer = Field(default="instance", description="norm")
    dropout: Rate = Field(default=0.0, description="dropout of each convolution")
    bias: bool = Field(default=True, description="of convolutions")
    adn_ordering: Literal["NDA", "NAD", "AND", "ADN", "DNA", "DAN"] = Field(
        default="NDA", description="order of activation, dropout and norm"
    )

    @model_validator(mode="after")
    def _stages(self) -> MonaiUNetOptions:
        _one_stride_each(self.channels, self.strides, 1)
        _odd(self, "kernel_size", "up_kernel_size")
        return self

    def divisor(self) -> int:
        return math.prod(self.strides)

    def norms(self) -> tuple[Layer, tuple[int, ...]]:
        return self.norm, self.channels


def _one_stride_each(channels: Sequence[int], strides: Sequence[int], fewer: int) -> None:
    if len(strides) != len(channels) - fewer:
        raise ValueError(f"{len(channels)} stages take {len(channels) - fewer} strides, not {len(strides)}")


def _odd(options: BaseModel, *names: str) -> None:
    for name in names:
        if getattr(options, name) % 2 == 0:
            raise ValueError(f"{name} is odd, not {getattr(options, name)}")


@register("network", "monai:UNet")
class MonaiUNet(MonaiNetwork):
    """MONAI's residual U-Net (Kerfoot et al., STACOM 2018), 2-D or 3-D.

    Its finest encoder stage is at half the sides, its coarsest two at the same size. The decoder's finest map has as
    many channels as there are classes: the head is the residual unit that MONAI ends with. Without residual units its
    last layer would enlarge and classify at once, so that there would be no map of full size to put a head on.
    """

    Options = MonaiUNetOptions
    source = "UNet"

    @classmethod
    def split(cls, net: Any, options: MonaiUNetOptions) -> Parts:
        down, up, level = [], [], net.model
        while isinstance(level, nn.Sequential):  # down, the skip around the level below, up
            down.append(level[0])
            up.append(level[2])
            level = cast(Any, level[1]).submodule
        *fine, coarsest = options.channels
        grown, head = cast(Any, up[0])
        blocks = [*up[:0:-1], grown]
        joined = [fine[-1] + coarsest, *(2 * width for width in fine[-2::-1])]
        stages = [
            Stage(nn.Identity(), _skip_first, block, width, given)
            for block, width, given in zip(blocks, joined, [*fine[-2::-1], net.out_channels], strict=True)
        ]
        return Parts(Chain([*down, level], options.channels), stages, head)


class DynUNetOptions(MonaiOptions):
    """Options of `monai:DynUNet`; MONAI has no defaults for kernels and strides."""

    kernel_size: int = Field(default=3, gt=0, description="width of all convolutions, odd")
    strides: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=3)] = Field(
        default=(1, 2, 2, 2, 2), description="of the stages, the first 1"
    )
    filters: tuple[int, ...] | None = Field(
        default=None, description="channels of the stages; null: 32, doubled up to 320 (2-D: 512), as nnU-Net"
    )
    dropout: Rate | None = Field(default=None, description="dropout of each convolution, the head's too")
    norm_name: NormLayer = Field(default=("instance", {"affine": True}), description="norm")
    act_name: Activation = Field(
        default=("leakyrelu", {"inplace": True, "negative_slope": 0.01}), description="activation"
    )
    res_block: bool = Field(default=False, description="residual blocks in the encoder")
    trans_bias: bool = Field(default=False, description="bias of transposed convolutions")

    @model_validator(mode="after")
    def _stages(self) -> DynUNetOptions:
        if self.strides[0] != 1:
            raise ValueError(f"strides begin with 1, so that logits have the size of the image, not {self.strides[0]}")
        if self.filters is not None:
            _one_stride_each(self.filters, self.strides, 0)
        _odd(self, "kernel_size")
        return self

    def divisor(self) -> int:
        return math.prod(self.strides)

    def norms(self) -> tuple[Layer, tuple[int, ...]]:
        return self.norm_name, self.filters or (32,)

    def layers(self) -> dict[str, Any]:
        kernels = (self.kernel_size,) * len(self.strides)
        return {**super().layers(), "kernel_size": kernels, "upsample_kernel_size": self.strides[1:]}


@register("network", "monai:DynUNet")
class DynUNet(MonaiNetwork):
    """MONAI's DynUNet, the U-Net of nnU-Net (Isensee et al., Nature Methods 2021), 2-D or 3-D.

    Strides are the same along all axes. Deep supervision is left out: `urpc` puts heads on coarser maps.
    """

    Options = DynUNetOptions
    source = "DynUNet"

    @classmethod
    def split(cls, net: Any, options: DynUNetOptions) -> Parts:
        encoder = Chain([net.input_block, *net.downsamples, net.bottleneck], net.filters)
        return Parts(encoder, _transposed(net.upsamples, net.filters[-2::-1]), _bare(net.output_block.conv))


class BasicUNetOptions(MonaiOptions):
    """Options of `monai:BasicUNet` and `monai:BasicUNetPlusPlus`."""

    features: tuple[int, int, int, int, int, int] = Field(
        default=(32, 32, 64, 128, 256, 32), description="channels of the five stages, finest first, and of the last map"
    )
    act: Activation = Field(default=("leakyrelu", {"negative_slope": 0.1, "inplace": True}), description="activation")
    norm: NormLayer = Field(default=("instance", {"affine": True}), description="norm")
    bias: bool = Field(default=True, description="of convolutions")
    dropout: Rate = Field(default=0.0, description="dropout of each convolution")
    upsample: Upsampling = Field(default="deconv", description="nontrainable: linear interpolation")

    def norms(self) -> tuple[Layer, tuple[int, ...]]:
        return self.norm, self.features


def _grown(block: Any, join: Callable[[Tensor, Tensor], Tensor], channels: int) -> Stage:
    """The stage of MONAI's `UpCat`; no side needs its padding, all are even."""
    return Stage(block.upsample, join, block.convs, block.convs.conv_0.conv.in_channels, channels)


@register("network", "monai:BasicUNet")
class BasicUNet(MonaiNetwork):
    """MONAI's plain U-Net (Falk et al., Nature Methods 2019), 2-D or 3-D: five stages, four of the decoder."""

    Options = BasicUNetOptions
    decoder_class = UpsamplingDecoder
    source, upsampling = "BasicUNet", "upsample"

    @classmethod
    def split(cls, net: Any, options: BasicUNetOptions) -> Parts:
        *widths, last = options.features
        encoder = Chain([net.conv_0, net.down_1, net.down_2, net.down_3, net.down_4], widths)
        blocks = net.upcat_4, net.upcat_3, net.upcat_2, net.upcat_1
        given = (*widths[3:0:-1], last)
        stages = [_grown(block, _skip_first, width) for block, width in zip(blocks, given, strict=True)]
        return Parts(encoder, stages, net.final_conv)


class NestedDecoder(UpsamplingDecoder):
    """The decoder of a U-Net++: skips meet the maps of the stages below them first.

    Node (i, j) reads the grown map of (i + 1, j - 1) behind the maps of (i, 0) to (i, j - 1), column 0 the encoder's.
    The nodes of the last diagonal are the stages of the decoder, where a prior is added.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self.inner = nn.ModuleDict(parts.inner)

    def forward(self, features: Features, refine: Refine = as_they_are) -> list[Tensor]:
        rows = [[content] for content in features.maps]
        maps: list[Tensor] = []
        for column in range(1, len(rows)):
            for row in range(len(rows) - column):
                diagonal = row + column == len(rows) - 1
                stage = cast(Stage, self.stages[column - 1] if diagonal else self.inner[f"{row}_{column}"])
                joined = stage.join(stage.up(rows[row + 1][column - 1]), torch.cat(rows[row], dim=1))
                made = stage.block(add_prior(joined, features, column - 1) if diagonal else joined)
                rows[row].append(refine(column - 1, made) if diagonal else made)
            maps.append(rows[len(rows) - 1 - column][column])
        return maps


@register("network", "monai:BasicUNetPlusPlus")
class BasicUNetPlusPlus(MonaiNetwork):
    """MONAI's U-Net++ (Zhou et al., DLMIA 2018), 2-D or 3-D: five stages, and every skip through nodes of its own.

    Deviations: the heads of deep supervision, which MONAI computes and drops, are left out: `urpc` puts such on.
    """

    Options = BasicUNetOptions
    decoder_class = NestedDecoder
    source, upsampling = "BasicUNetPlusPlus", "upsample"

    @classmethod
    def split(cls, net: Any, options: BasicUNetOptions) -> Parts:
        *widths, last = options.features
        encoder = Chain([net.conv_0_0, net.conv_1_0, net.conv_2_0, net.conv_3_0, net.conv_4_0], widths)

        def node(row: int, column: int) -> Stage:
            channels = last if (row, column) == (0, 4) else widths[row]
            return _grown(getattr(net, f"upcat_{row}_{column}"), _skip_first, channels)

        stages = [node(4 - column, column) for column in range(1, 5)]
        inner = {f"{row}_{column}": node(row, column) for column in range(1, 4) for row in range(4 - column)}
        return Parts(encoder, stages, net.final_conv_0_4, inner=inner)


class AttentionUnetOptions(MonaiOptions):
    """Options of `monai:AttentionUnet`; MONAI has no defaults for channels and strides."""

    channels: Widths = Field(default=(16, 32, 64, 128, 256), description="of the stages, finest first")
    strides: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)] = Field(
        default=(2, 2, 2, 2), description="of all stages but the first"
    )
    kernel_size: int = Field(default=3, gt=0, description="width of convolutions, odd")
    up_kernel_size: int = Field(default=3, gt=0, description="width of transposed convolutions, odd")
    dropout: Rate = Field(default=0.0, description="dropout of convolutions")

    @model_validator(mode="after")
    def _stages(self) -> AttentionUnetOptions:
        _one_stride_each(self.channels, self.strides, 1)
        _odd(self, "kernel_size", "up_kernel_size")
        return self

    def divisor(self) -> int:
        return math.prod(self.strides)


class Gate(nn.Module):
    """Joins a grown map with a skip that an attention, which the grown map steers, has damped."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, grown: Tensor, skip: Tensor) -> Tensor:
        """[damped skip, grown]."""
        return torch.cat([self.attention(g=grown, x=skip), grown], dim=1)


@register("network", "monai:AttentionUnet")
class AttentionUnet(MonaiNetwork):
    """MONAI's attention U-Net (Oktay et al., MIDL 2018), 2-D or 3-D: skips through attention gates of the decoder."""

    Options = AttentionUnetOptions
    source = "AttentionUnet"

    @classmethod
    def split(cls, net: Any, options: AttentionUnetOptions) -> Parts:
        first, level, classify = net.model
        down, stages = [first], []
        for width in options.channels[:-1]:
            stages.append(Stage(level.upconv, Gate(level.attention), level.merge, 2 * width, width))
            below = level.submodule  # a block and the level below it; at the bottom a block alone
            if isinstance(below, nn.Sequential):
                down.append(below[0])
                level = below[1]
            else:
                down.append(below)
        return Parts(Chain(down, options.channels), stages[::-1], _bare(classify))


class MedNeXtOptions(MonaiOptions):
    """Options of `monai:MedNeXt`."""

    init_filters: int = Field(default=32, gt=0, description="channels of the finest stage")
    encoder_expansion_ratio: int | tuple[int, ...] = Field(
        default=2, description="hidden by outer channels of a block, or one number per stage"
    )
    decoder_expansion_ratio: int | tuple[int, ...] = Field(default=2, description="the same, coarse to fine")
    bottleneck_expansion_ratio: int = Field(default=2, gt=0, description="the same of the coarsest stage")
    kernel_size: int = Field(default=7, gt=1, description="width of depth-wise convolutions, odd")
    use_residual_connection: bool = Field(default=False, description="around every block (MedNeXt paper: yes)")
    blocks_down: Widths = Field(default=(2, 2, 2, 2), description="blocks of the encoder stages, finest first")
    blocks_bottleneck: int = Field(default=2, gt=0, description="blocks of the coarsest stage")
    blocks_up: Widths = Field(default=(2, 2, 2, 2), description="blocks of the decoder stages, coarse to fine")
    global_resp_norm: bool = Field(default=False, description="global response norm in every block")

    @model_validator(mode="after")
    def _as_deep(self) -> MedNeXtOptions:
        depth = len(self.blocks_down)
        for name in ("blocks_up", "encoder_expansion_ratio", "decoder_expansion_ratio"):
            given = getattr(self, name)
            if isinstance(given, tuple) and len(given) != depth:
                raise ValueError(f"{name} has {len(given)} numbers, and blocks_down has {depth} stages")
        _odd(self, "kernel_size")
        return self

    def divisor(self) -> int:
        return int(2 ** len(self.blocks_down))

    def norms(self) -> tuple[Layer, tuple[int, ...]]:
        return "instance", ()  # a group norm of one channel each


@register("network", "monai:MedNeXt")
class MedNeXt(MonaiNetwork):
    """MONAI's MedNeXt (Roy et al., MICCAI 2023), 2-D or 3-D: blocks with wide depth-wise convolutions; skips are added.

    The paper's S is `kernel_size: 3`, `use_residual_connection: true`, all else as it is here.
    """

    Options = MedNeXtOptions
    source = "MedNeXt"

    @classmethod
    def split(cls, net: Any, options: MedNeXtOptions) -> Parts:
        widths = [options.init_filters * 2**stage for stage in range(len(options.blocks_down) + 1)]
        enter, stay = [net.stem, *net.down_blocks], [*net.enc_stages, net.bottleneck]
        down = [nn.Sequential(first, rest) for first, rest in zip(enter, stay, strict=True)]
        stages = [
            Stage(up, torch.add, block, width, width)
            for up, block, width in zip(net.up_blocks, net.dec_stages, widths[-2::-1], strict=True)
        ]
        return Parts(Chain(down, widths), stages, net.out_0.conv_out)
