"""The shared step of methods with one encoder and decoders that differ in their upsampling (MC-Net, DCNet)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from sslbench.core import registry
from sslbench.core.step import Statistics, Step
from sslbench.losses.base import Loss
from sslbench.methods.base import Build, Method, Phase, StepCost, mean_logits
from sslbench.methods.shared.co_training import Prediction
from sslbench.methods.shared.dice_supervision import DiceOptions, dice_terms, nothing_but_ce
from sslbench.networks import Features
from sslbench.networks.base import Decoder

if TYPE_CHECKING:
    from sslbench.config.job import ResolvedJob


class Decoded(NamedTuple):
    """What a batch became.

    Attributes:
        features: of the encoder.
        maps: per decoder, the main one first, its maps from coarse to fine.
        predictions: per decoder, its logits (B, C, *S); the main one's key is `net`.
    """

    features: Features
    maps: list[list[Tensor]]
    predictions: list[Prediction]


class MultiDecoder(Method):
    """The recipe's network with further decoders, each upsampling in another way; the main one predicts.

    The supervised term is the sum of the decoders' Dice, without the weights of the recipe's `criteria`. A loss that
    needs a reference holds each decoder against the next, the last against the first.
    """

    Options: ClassVar[type[BaseModel]] = DiceOptions
    check_exemptions = {"supervised_at_zero": "its supervised term is the Dice, summed over decoders"}
    options: DiceOptions

    @classmethod
    def further(cls, options: Mapping[str, Any]) -> int:
        """How many decoders there are beside the main one."""
        return 1

    @classmethod
    def objection(cls, job: ResolvedJob) -> str | None:
        name = job.recipe.network.name
        kinds = registry.component("network", name).decoder_class.upsamplings
        wanted = cls.further(job.method)
        if wanted >= len(kinds):
            known = f"{len(kinds)} upsamplings" if kinds else "one upsampling"
            return f"it has {1 + wanted} decoders that upsample differently, and {name} knows {known}"
        return nothing_but_ce(job, cls.term_kinds)

    def __init__(self, options: DiceOptions, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__(options, build, loss, statistics)
        self.net = build("net")
        kinds = self.net.base.other_upsamplings()[: self.further(options.model_dump())]
        self.decoders = nn.ModuleList(
            build.decoder(self.net, f"decoder/{number}", upsampling=kind) for number, kind in enumerate(kinds, 1)
        )

    def decoded(self, image: Tensor) -> Decoded:
        """One pass of the encoder and one of every decoder."""
        features = self.net.encode(image)
        maps = [self.net.decode(features)]
        predictions = [Prediction("net", self.net.head(maps[0][-1]))]
        for number, module in enumerate(self.decoders, 1):
            decoder = cast(Decoder, module)
            maps.append(decoder(features))
            predictions.append(Prediction(f"decoder/{number}", decoder.head(maps[-1][-1])))
        return Decoded(features, maps, predictions)

    def observe(self, step: Step, predictions: Sequence[Prediction], labels: Tensor) -> None:
        """Show the loss every decoder."""
        for key, logits in predictions:
            self.loss.observe(step, key, logits, labels)

    def supervised(self, predictions: Sequence[Prediction], labels: Tensor, num_labeled: int) -> Tensor:
        """The sum of the decoders' terms with true labels."""
        L = num_labeled
        terms: list[Tensor] = []
        for own, peer in zip(predictions, [*predictions[1:], predictions[0]], strict=True):
            reference = self.reference(peer.key, peer.logits[:L])
            terms += dice_terms(self.loss, own.logits, labels, L, self.options.ce, reference)
        return torch.stack(terms).sum()

    def step_cost(self, phase: Phase) -> StepCost:
        return StepCost(decoders=1 + self.further(self.options.model_dump()))

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        return mean_logits([self.net], x)
