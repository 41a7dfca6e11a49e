"""The contract of a network: an encoder's `Features`, decoders that read them, a head that gives logits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar, cast

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from sslbench.core import registry
from sslbench.core.options import Options

M = TypeVar("M", bound=nn.Module)
Refine = Callable[[int, Tensor], Tensor]


class Features(NamedTuple):
    """What an encoder hands to decoders.

    Attributes:
        maps: one (B, c, *S) map per stage, finest first; the last is the bottleneck.
        prior: from a plugin, one map per decoder stage, coarse to fine, which every decoder adds after its skip.
    """

    maps: tuple[Tensor, ...]
    prior: tuple[Tensor, ...] | None = None

    def map(self, f: Callable[[int, Tensor], Tensor]) -> Features:
        """The same features with each map replaced by `f(stage, map)`: noise, dropout, gradient reversal, attention."""
        return Features(tuple(f(stage, content) for stage, content in enumerate(self.maps)), self.prior)


class NetworkOptions(Options):
    """The option that every network has."""

    init: Literal["default", "kaiming", "xavier"] = Field(
        default="default", description="of plain convolutions; default: PyTorch's own"
    )


def as_they_are(stage: int, content: Tensor) -> Tensor:
    """The map itself: the `Refine` of a plain decoder."""
    return content


class Decoder(nn.Module):
    """Reads `Features` (forward: a list of maps, coarse to fine) and, through `head`, gives logits.

    `forward` must be written, and the constructor, which takes (num_classes, options), sets `head`, `channels` and
    `prior_channels`.

    Every map is `refine(stage, map)` of what its stage made, stages counted coarse to fine; the next stage goes on from
    that. So a method puts blocks of its own between the stages of any decoder (attention, features of other decoders).

    Attributes:
        Options: typed options where it has more of them than its network; each has a default.
        upsamplings: what its option `upsampling` can be, where it has one: decoders that differ in it make MC-Net.
        channels: of its maps, coarse to fine.
        prior_channels: channels of the maps that a prior is added to, one per decoder stage, coarse to fine.
    """

    Options: ClassVar[type[BaseModel] | None] = None
    upsamplings: ClassVar[tuple[str, ...]] = ()
    head: nn.Module
    channels: tuple[int, ...]
    prior_channels: tuple[int, ...]

    @abstractmethod
    def forward(self, features: Features, refine: Refine = as_they_are) -> list[Tensor]:
        raise NotImplementedError

    def logits(self, features: Features) -> Tensor:
        """Logits (B, C, *S) of its finest map."""
        logits: Tensor = self.head(self(features)[-1])
        return logits


class Network(nn.Module):
    """An encoder with one or more decoders.

    `forward` chains `encode`, `decode` and `head`; with several decoders it returns a list of logits, main first.

    Three attributes must be set: `dims`, `encoder_class` and `decoder_class`; a network with a constructor of its own,
    which sets `encoder` and `decoders`, may leave the two classes. `Options` and `divisor` may be set.

    Attributes:
        version: raised when the same options would give another function.
        Options: typed options, each with its source: they derive from `NetworkOptions` or have a field `init` too.
        dims: of the images that it takes, 2 or 3; every side divisible by `divisor`. Where options decide, `fit`,
            `divisor_of` and `least_side` know before it is built, and a built network has both as attributes.
        sized: whether it takes images of the recipe's patch size alone.
        several: whether `forward` gives a list; methods, which put their own decoders on networks, take none such.
        encoder_class, decoder_class: what it is built of; both take `options`, which has a field `init`. An encoder's
            `channels` are those of its maps, finest first. One that makes its decoders itself leaves `Decoder`, of
            which nothing is known before: methods that need to know it object.
        decoders: the first is the main one.
    """

    version: ClassVar[int] = 1
    Options: ClassVar[type[BaseModel]] = NetworkOptions
    encoder_class: ClassVar[Callable[..., nn.Module]] = nn.Module
    decoder_class: ClassVar[type[Decoder]] = Decoder  # type: ignore[type-abstract]
    dims: int
    divisor: int = 16
    sized: ClassVar[bool] = False
    several: ClassVar[bool] = False

    def __init__(self, in_channels: int, num_classes: int, options: BaseModel) -> None:
        super().__init__()
        self.options, self.num_classes = options, num_classes
        self.encoder = type(self).encoder_class(in_channels, options)
        self.decoders = nn.ModuleList([type(self).decoder_class(num_classes, self._decoder_options())])
        initialize(self, options.init)  # type: ignore[attr-defined]

    @classmethod
    def draws(cls, options: Mapping[str, object]) -> bool:
        """Whether two training passes of one image differ: whether a dropout rate among the options is above 0."""
        rates = [value for name, value in cls.Options(**options).model_dump().items() if "drop" in name]
        return any(max(rate) if isinstance(rate, (list, tuple)) else rate for rate in rates)

    @classmethod
    def divisor_of(cls, options: Mapping[str, Any]) -> int:
        """What every side of an image must be divisible by, with these options."""
        return cls.divisor

    @classmethod
    def least_side(cls, options: Mapping[str, Any]) -> int:
        """The shortest side of a cube that it can be trained on: instance norm needs two voxels in the bottleneck."""
        return cls.divisor * (2 if options.get("norm") == "instance" else 1)

    @classmethod
    def fit(cls, options: dict[str, Any], patch_size: Sequence[int]) -> dict[str, Any]:
        """The complete options `options`, with those filled in that follow from the patch size.

        Raises:
            ValueError: it takes no such patches; the text goes on where the network's name ends.
        """
        if len(patch_size) != cls.dims or any(side % cls.divisor for side in patch_size):
            raise ValueError(f"takes {cls.dims} sides divisible by {cls.divisor}, not patch_size {[*patch_size]}")
        return options

    @property
    def base(self) -> Network:
        """The bare network; a plugin's wrapper returns what it wraps."""
        return self

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the encoder's maps, finest first."""
        return cast("tuple[int, ...]", self.base.encoder.channels)

    @property
    def decoder(self) -> Decoder:
        """The main decoder."""
        return cast(Decoder, self.decoders[0])

    def encode(self, x: Tensor) -> Features:
        """Maps of every encoder stage for an image (B, channels, *S), each side divisible by `divisor`."""
        return Features(tuple(self.encoder(x)))

    def decode(self, features: Features) -> list[Tensor]:
        """Maps of the main decoder, coarse to fine."""
        return self.decoder(features)

    def head(self, content: Tensor) -> Tensor:
        """Logits (B, C, *S) of the main decoder's finest map."""
        return self.decoder.head(content)

    def logits(self, features: Features) -> Tensor:
        """`decode` and `head`: logits (B, C, *S) of the main decoder."""
        return self.head(self.decode(features)[-1])

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        features = self.encode(x)
        if len(self.decoders) == 1:
            return self.logits(features)
        return [cast(Decoder, decoder).logits(features) for decoder in self.decoders]

    def make_decoder(self, num_classes: int | None = None, **options: object) -> Decoder:
        """A fresh decoder with head for this network's encoder; what is not given is as the network has it."""
        chosen = self._decoder_options(**options)
        decoder = type(self).decoder_class(num_classes or self.num_classes, chosen)
        initialize(decoder, chosen.init)  # type: ignore[attr-defined]
        return decoder

    def other_upsamplings(self) -> tuple[str, ...]:
        """Those that a further decoder can have and the main one has not."""
        kinds = type(self).decoder_class.upsamplings
        own = getattr(self._decoder_options(), "upsampling", None)
        return tuple(kind for kind in kinds if kind != own)

    def _decoder_options(self, **options: object) -> BaseModel:
        kind = type(self).decoder_class.Options or type(self.options)
        return kind.model_validate({**self.options.model_dump(include={*kind.model_fields}), **options})


def build_network(name: str, in_channels: int, num_classes: int, **options: object) -> Network:
    """Build a registered network.

    Args:
        name: `vnet`, `unet`, ...
        in_channels: channels of the image.
        num_classes: channels of the logits, background included.
        options: the network's `Options` fields.
    """
    component = registry.component("network", name)
    return cast(Network, component(in_channels, num_classes, component.Options(**options)))


def build_decoder(like: Network, num_classes: int | None = None, **options: object) -> Decoder:
    """A fresh decoder and head for the encoder of `like`.

    Args:
        like: the network.
        num_classes: channels of its logits; None: as many as the network's.
        options: `dropout`, and what else the network's decoder takes.
    """
    return like.base.make_decoder(num_classes, **options)


def add_prior(content: Tensor, features: Features, stage: int) -> Tensor:
    """The map of a decoder stage after its skip, with the prior of that stage where there is one."""
    return content if features.prior is None else content + features.prior[stage]


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Modules in evaluation mode inside the block, and each part as before behind it."""
    before = [(part, part.training) for module in modules for part in module.modules()]
    for part, _ in before:
        part.training = False
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


@contextmanager
def unrecorded(*modules: nn.Module) -> Iterator[None]:
    """Batch norm as in training inside the block, but its running statistics, which evaluation takes, left alone."""
    layers = [part for module in modules for part in module.modules() if getattr(part, "track_running_stats", False)]
    for layer in layers:
        layer.track_running_stats = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True  # type: ignore[assignment]


def unused(make: Callable[[], M]) -> M:
    """A layer that a published network holds and nothing uses: kept, so that the size is the published one.

    The attribute that holds it is named `unused`; the law `every_parameter_moves` knows it by that. It takes no
    gradient, so that optimisers pass it over, and its initialisation is drawn aside: the other layers begin as they
    would without it.
    """
    with torch.random.fork_rng(devices=[]):
        return make()


def initialize(module: nn.Module, scheme: str) -> None:
    """Re-initialise the plain convolutions of a module in place.

    `kaiming`: normal with fan-in, a = 0; `xavier`: normal with gain 1; `default`: PyTorch's own, nothing is drawn.
    Biases, transposed convolutions and linear layers keep PyTorch's defaults and norms stay at weight 1, bias 0, as
    in the DHC and GA code (spec of their networks).
    """
    if scheme == "default":
        return
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
            if scheme == "kaiming":
                nn.init.kaiming_normal_(layer.weight)
            elif scheme == "xavier":
                nn.init.xavier_normal_(layer.weight)
            else:
                raise ValueError(f"unknown initialisation {scheme!r}; known: default, kaiming, xavier")


def is_pointwise(layer: nn.Conv3d) -> bool:
    """Whether each voxel of a convolution's output is of one voxel of its input."""
    plain = layer.stride == (1, 1, 1) and layer.padding == (0, 0, 0) and layer.groups == 1
    return plain and layer.kernel_size == (1, 1, 1)


def pointwise(content: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution of single voxels, as one product of matrices a sample.

    Args:
        content: (B, c, *S), in any memory format.
        weight: (C, c, 1, ...).
        bias: (C,), or none.

    Returns:
        (B, C, *S), contiguous.
    """
    voxels, matrix = content.flatten(2), weight.flatten(1).expand(len(content), -1, -1)
    product = matrix @ voxels if bias is None else torch.baddbmm(bias.view(1, -1, 1), matrix, voxels)
    return product.unflatten(2, content.shape[2:])


class Conv3d(nn.Conv3d):
    """A 3-D convolution that is right in bf16 on a CPU.

    With torch 2.13.0 on a CPU the bf16 weight gradient of a 3³ convolution on an input that is 2 voxels deep is wrong
    and differs from run to run, often infinite; other depths are right. Such inputs are computed in fp32.

    One of single voxels is a product of matrices there: ATen's own way for it unfolds the image first.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type == "cpu" and is_pointwise(self):
            return pointwise(input, self.weight, self.bias)
        if input.device.type == "cpu" and input.shape[2] == 2 and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(input.float())
        return super().forward(input)
