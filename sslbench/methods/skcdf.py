"""SKCDF: labelled and unlabelled patches attend to each other, and two decoders learn from one each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from sslbench.core.options import Options
from sslbench.core.registry import register
from sslbench.core.step import Batch, Statistics, Step
from sslbench.losses.base import Loss
from sslbench.losses.cross_entropy import classes_of
from sslbench.losses.weighting.sampling import sampled
from sslbench.methods.base import Build, Method, Phase, StepCost
from sslbench.methods.ema import update_ema
from sslbench.networks.base import Decoder, Features
from sslbench.networks.channel_attention import TokenAttention


class SKCDFOptions(Options):
    """Options of `skcdf`."""

    momentum: float = Field(default=0.99, ge=0, le=1, description="of heads and decoder that follow others (SKCDF)")
    ratio_cases: int = Field(
        default=4, gt=0, description="labelled cases that class ratios are counted in, the first ones (SKCDF code)"
    )
    released_second_pass: bool = Field(
        default=False,
        description="the second pass, which inference takes, as in the code: in windows a head has every second "
        "channel, and what comes out does not drop out; the global block joins in turn what it split in halves",
    )


class BalancedDecoder(nn.Module):
    """A decoder whose finest map two heads read: the main one, and one that learns a balanced share of the voxels."""

    def __init__(self, decoder: Decoder, balanced: nn.Module) -> None:
        super().__init__()
        self.decoder, self.balanced = decoder, balanced

    def forward(self, features: Features) -> tuple[Tensor, Tensor]:
        """Logits (B, C, *S) of the main and of the balanced head."""
        content = self.decoder(features)[-1]
        return self.decoder.head(content), self.balanced(content)


@register("method", "skcdf")
class SKCDF(Method):
    """Semantic knowledge complementarity and decoupling: one decoder for labelled, one for unlabelled patches, each
    with a class-balanced auxiliary head (SKCDF; Zhang et al., CVPR 2025).

    In the first pass the bottlenecks of labelled and unlabelled patches attend to each other channel by channel, in
    windows and as a whole; decoder l learns the labels, its auxiliary head on voxels kept with probability n_min/n_c,
    and both label the unlabelled patches. In the second pass these attend to themselves, and decoder u learns both
    labels, its auxiliary head on voxels kept with 1 - (e/E)(1 - n_min/n_c). What is not kept becomes logits of 0 with
    background as target, as in the code. Before a step l's head follows its auxiliary head, u follows l, and u's head
    its auxiliary one. Inference: u's main head.

    With the V-Net of the DHC recipes 50 917 320 parameters for 14 classes, of which nothing uses 65 864: as upstream, a
    second convolution beside each attention's tokeniser.

    A loss that needs a reference holds each head against the other of its decoder, and u's against l's.

    Cost: a forward and backward pass over all patches and another over the unlabelled ones. An attention's largest
    matrices are 4·c²·B·B' floats per window, c channels of the bottleneck, B and B' labelled and unlabelled patches:
    with the twelve slices of the ACDC recipes gigabytes, so that these draw two and two, as the DCA supplement.

    Deviations:
    - Ratios are of the classes that the counted cases have; one that they have not is always kept (upstream: 0 or
      0/0).
    - The output of both attentions drops out in both passes; upstream's second pass leaves that out in windows.
    - Both blocks order heads and channels alike in both passes; upstream's global block permutes them in the second,
      which inference takes. `released_second_pass` brings both back.
    - Windows have 2 positions along sides that are even and 1 along others; upstream's bottleneck is 4×8×8 alone.
    - The second dimension of the tables' ACDC rows is not described anywhere: windows of 2×2, all else alike.
    """

    version = 3  # the layer norms' ε is 1e-6
    title = "SKCDF"
    group = "Imbalance"
    Options = SKCDFOptions
    defaults = {"ramp.weight": 10.0, "ramp.every": "epoch"}
    term_kinds = ("label", "pseudo")
    unlabeled_learners = ("net", "balanced")
    check_exemptions = {
        "blind_at_zero": "labelled patches attend to unlabelled ones",
        "supervised_at_zero": "the decoder that predicts learns from pseudo-labels alone",
    }
    options: SKCDFOptions
    kept: Tensor

    @classmethod
    def learners_of(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        return "labeled", "labeled_balanced", "net", "balanced"

    def __init__(self, options: SKCDFOptions, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__(options, build, loss, statistics)
        self.net = build("net")
        # The network's own decoder is the one that predicts; the other learns the labels.
        self.unlabeled = BalancedDecoder(self.net.decoder, build.decoder(self.net, "balanced/unlabeled").head)
        self.labeled = BalancedDecoder(
            build.decoder(self.net, "labeled"), build.decoder(self.net, "balanced/labeled").head
        )
        sides = [side // self.net.base.divisor for side in statistics.patch_size]
        channels, init = self.net.channels[-1], self.net.base.options.init  # type: ignore[attr-defined]
        windows = [2 - side % 2 for side in sides]
        self.local = build.module("attention/local", lambda: TokenAttention(channels, windows, init))
        self.whole = build.module("attention/global", lambda: TokenAttention(channels, sides, init))
        self.register_buffer("kept", class_ratios(statistics.class_counts[: options.ratio_cases]))

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        image, labels, L = batch.image["weak"], batch.label["weak"], batch.num_labeled
        self._follow()
        features = self.net.encode(image)
        main, balanced = self.labeled(_deepest(features, lambda x: self.whole.across(self.local.across(x, L), L)))
        pseudo, balanced_pseudo = (classes_of(logits[L:].detach()) for logits in (main, balanced))
        own, own_balanced = self.unlabeled(self._attended(image[L:]))

        self.loss.observe(step, "labeled", main, labels)
        self.loss.observe(step, "labeled_balanced", balanced, labels)
        self.loss.observe(step, "net", own, labels[L:])
        self.loss.observe(step, "balanced", own_balanced, labels[L:])
        kept = _drawn(labels[:L], self.kept, step, "kept")
        supervised = self.loss.supervised(
            main[:L], labels[:L], key="labeled", reference=self.reference("labeled_balanced", balanced[:L])
        ) + self.loss.supervised(
            balanced[:L] * kept.unsqueeze(1),
            labels[:L] * kept,
            key="labeled_balanced",
            reference=self.reference("labeled", main[:L]),
        )
        kept = _drawn(balanced_pseudo, 1 - step.epoch / max(step.epochs - 1, 1) * (1 - self.kept), step, "kept-u")
        taught = self.loss.supervised(
            own, pseudo, source="pseudo", key="net", reference=self.reference("labeled", main[L:])
        ) + self.loss.supervised(
            own_balanced * kept.unsqueeze(1),
            balanced_pseudo * kept,
            source="pseudo",
            key="balanced",
            reference=self.reference("labeled_balanced", balanced[L:]),
        )
        return {"loss": supervised + step.consistency_weight * taught, "supervised": supervised, "pseudo": taught}

    def _attended(self, x: Tensor) -> Features:
        released = self.options.released_second_pass

        def attend(deepest: Tensor) -> Tensor:
            local = self.local.within(deepest, "interleaved" if released else "contiguous", drop=not released)
            return self.whole.within(local, "crossed" if released else "contiguous")

        return _deepest(self.net.encode(x), attend)

    def _follow(self) -> None:
        """target ← m·target + (1 - m)·source, parameters alone."""
        labeled, unlabeled = self.labeled, self.unlabeled
        for target, source in (
            (labeled.decoder.head, labeled.balanced),
            (unlabeled, labeled),
            (unlabeled.decoder.head, unlabeled.balanced),
        ):
            update_ema(target, source, self.options.momentum)

    def step_cost(self, phase: Phase) -> StepCost:
        return StepCost(labeled=1, unlabeled=2)

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        main: Tensor = self.unlabeled(self._attended(x))[0]
        return main.float().softmax(1)


def _deepest(features: Features, attend: Callable[[Tensor], Tensor]) -> Features:
    """The same features with the bottleneck replaced by what `attend` makes of it."""
    last = len(features.maps) - 1
    return features.map(lambda stage, content: attend(content) if stage == last else content)


def _drawn(labels: Tensor, rate: Tensor, step: Step, stream: str) -> Tensor:
    """The voxels (B, *S) bool that are kept, at the rate (C,) of their class."""
    return sampled(labels, rate, step.generator(stream, labels.device)).bool()


def class_ratios(counts: Tensor) -> Tensor:
    """n_min / n_c (C,) of the voxels (cases, C) of labelled cases, among the classes that they have; 1 for others."""
    total = counts.sum(0).double()
    present = total > 0
    smallest = total[present].min() if present.any() else total.new_ones(())
    return torch.where(present, smallest / total.clamp_min(1), 1.0).float()
