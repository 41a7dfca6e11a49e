"""The contract of a plugin: a feature-level module that attaches to the networks of any method."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel
from torch import Tensor, nn

from sslbench.core.options import NoOptions
from sslbench.core.step import Batch, Statistics, Step
from sslbench.networks import Features, Network


class Plugin(nn.Module):
    """One instance per network of a method.

    At least one of `prior` and `terms` must be written: maps for the decoders, or loss terms. A constructor makes its
    modules after `super().__init__(options, network, statistics)`; `title`, `Options` and `weight_decay` may be set.

    Attributes:
        version: raised when the same options would compute otherwise.
        title: what a table's row name begins with (`SCDL`); empty: its registered name.
        Options: typed options, each with its source: a class that derives from `sslbench.Options`.
        weight_decay: of its parameters; None: the recipe's.
    """

    version: ClassVar[int] = 1
    title: ClassVar[str] = ""
    Options: ClassVar[type[BaseModel]] = NoOptions
    weight_decay: float | None = None

    def __init__(self, options: BaseModel, network: Network, statistics: Statistics) -> None:
        super().__init__()
        self.options, self.statistics = options, statistics

    def prior(self, features: Features) -> tuple[Tensor, ...] | None:
        """Maps that every decoder adds after its skips, coarse to fine, in `Decoder.prior_channels`; None: none."""
        return None

    def terms(self, network: Network, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Loss terms of this step, from the features of the network; they are added to the loss of its group."""
        return {}

    def encoded(self, labeled: int, unlabeled: int) -> tuple[int, int]:
        """Count the patches that `terms` sends through the encoder in a step of so many: (forward and backward,
        forward alone); by default none."""
        return 0, 0


class Attached(Network):
    """A network with a plugin: the same interface, with the plugin's prior in its features.

    `base` is the bare network, for cubes or a denoiser, where nothing is injected.
    """

    def __init__(self, network: Network, plugin: Plugin) -> None:
        nn.Module.__init__(self)
        self.network, self.plugin = network, plugin

    @property
    def base(self) -> Network:
        return self.network

    @property
    def decoders(self) -> nn.ModuleList:  # type: ignore[override]
        return self.network.decoders

    def encode(self, x: Tensor) -> Features:
        features = self.network.encode(x)
        return Features(features.maps, self.plugin.prior(features))
