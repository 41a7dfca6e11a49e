"""DCA, reconstructed: three decoders learn the large, middle and small classes apart, a fourth learns to join them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from sslbench.core import registry
from sslbench.core.errors import UsageError
from sslbench.core.options import Options
from sslbench.core.registry import register
from sslbench.core.step import Batch, Statistics, Step
from sslbench.losses.base import Loss
from sslbench.losses.cross_entropy import classes_of, full_precision
from sslbench.methods.base import Build, Method, Phase, StepCost
from sslbench.networks.base import Features
from sslbench.networks.experts import DilatedPair, Expert, FeatureAggregation, SqueezeExcitation

if TYPE_CHECKING:
    from sslbench.config.job import ResolvedJob

EXPERTS = ("head", "medium", "tail")
FLOOR = 50.0  # how far below an expert's largest logit those of others' classes are: e^-50 of a probability

ClassSets = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


class DCAOptions(Options):
    """Options of `dca`: unless a source is named, this project's, as the paper's equations were not at hand."""

    sets: ClassSets | None = Field(
        default=None, description="labels of the head, medium and tail classes; none: as `cut` splits them"
    )
    cut: Literal["gaps", "thirds"] = Field(
        default="gaps",
        description="at the two largest gaps of the log of the classes' voxels (DCA, as read here), or three sets of "
        "equal length",
    )
    experts: Literal["asymmetric", "alike"] = Field(
        default="asymmetric", description="decoders of three architectures (DCA; which ones is ours), or of one"
    )
    reduction: int = Field(
        default=4, gt=0, description="of the medium expert's squeeze-and-excitation: finest maps have 16 channels or 8"
    )
    dilation: int = Field(
        default=2, gt=0, description="of the tail expert's wider convolution: what is around a small organ places it"
    )
    dilated_stages: int = Field(
        default=2, ge=0, description="finest stages with such a pair: coarser maps hardly resolve small organs"
    )
    aggregate: Literal["dfam", "plain"] = Field(
        default="dfam",
        description="the decoder that predicts reads the experts' maps (DCA; the gates are ours), or not",
    )
    detach_experts: bool = Field(
        default=True, description="it reads them without gradient: each expert learns its own labels alone (DCA)"
    )
    expert_weight: float = Field(
        default=1.0,
        ge=0,
        description="of each expert's supervised term: each learns as it would alone (1/3: their mean)",
    )


@register("method", "dca")
class DCA(Method):
    """Experts for large, middle and small classes teach the decoder that predicts and reads their features (DCA, CVPR
    2026; reconstructed: its equations were not at hand).

    Σ_e supervised(expert e, labels of its set) + supervised(aggregate) + λ·[CE + Dice](aggregate, pseudo-labels) on
    unlabelled patches. Foreground classes are sorted by their voxels in the labelled cases, n_c, and cut at the two
    largest gaps of ln n_c that leave no set empty: each of the three sets has an expert, a decoder on the one encoder
    that learns its classes against all else. Stitched, a class has its expert's z_k - z_0 and the background 0; their
    largest is the pseudo-label. The aggregation decoder fuses the experts' maps into its own at each stage, weighted
    voxel by voxel (`networks.experts.FeatureAggregation`). Inference: the aggregation decoder.

    A loss sees an expert's logits as those of all classes, the others' 50 below its largest. One that needs a reference
    holds the aggregation decoder against the stitched prediction (`experts`), and each expert against itself.
    Weightings serve the aggregation decoder alone.

    Cost: one encoder pass and four decoder passes, forward and backward, over all patches.

    Deviations:
    - The paper's equations and code were not at hand. Known are its parts: one encoder, the split by log gaps before
      training, three experts of different architecture on split labels, stitched pseudo-labels, a decoder with dynamic
      aggregation that predicts, and the settings of its supplement. What fills them is a reconstruction.
    - A class without a labelled voxel is a tail class. Fewer than three foreground classes are refused.
    - An expert's own background holds the organs of the others, so that its logits say something beside another's only
      against it: stitching takes the difference.
    - The experts' terms are summed. A mean would train each decoder at a third of the recipe's rate, and the Dice, a
      mean over all classes to which others' classes add nothing, is a share of one already.
    - CE and Dice of pseudo-labels have the weights of the recipe's `criteria`, λ is the recipe's.
    """

    title = "DCA (reconstructed)"
    group = "Imbalance"
    caution = (
        "DCA is a reconstruction from its abstract and supplement, as its equations and code were not at hand: its "
        "rows neither reproduce nor refute the published ones."
    )
    Options = DCAOptions
    predictors = (*EXPERTS, "aggregate")
    alone = dict.fromkeys(EXPERTS, "no other expert knows their classes")
    taught_by = {"aggregate": ("experts",)}
    term_kinds = ("label", "pseudo")
    options: DCAOptions
    own_labels: Tensor

    @classmethod
    def learners_of(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        return ("aggregate",)

    @classmethod
    def objection(cls, job: ResolvedJob) -> str | None:
        dataset = registry.component("dataset", job.recipe.dataset)
        return _fault(job.method["sets"], dataset.num_classes() - 1)

    def __init__(self, options: DCAOptions, build: Build, loss: Loss, statistics: Statistics) -> None:
        super().__init__(options, build, loss, statistics)
        if options.expert_weight != 1:
            self.check_exemptions = {"supervised_at_zero": "the experts' terms are weighted by `expert_weight`"}
        if fault := _fault(options.sets, statistics.num_classes - 1):
            raise UsageError(fault)
        counts = statistics.class_counts.sum(0)[1:].tolist()
        self.sets = options.sets or class_sets(counts, options.cut)
        self.net = build("net")
        self.experts = nn.ModuleDict(
            {key: self._expert(key, len(own), build) for key, own in zip(EXPERTS, self.sets, strict=True)}
        )
        stages = self.net.decoder.channels if options.aggregate == "dfam" else ()
        self.aggregation = build.module(
            "aggregation",
            lambda: nn.ModuleList(FeatureAggregation(self.net, channels, len(EXPERTS)) for channels in stages),
        )
        # Row e: each label as expert e learns it.
        table = [[label if label in own else 0 for label in range(statistics.num_classes)] for own in self.sets]
        self.register_buffer("own_labels", torch.tensor(table), persistent=False)

    def _expert(self, key: str, classes: int, build: Build) -> Expert:
        decoder = build.decoder(self.net, f"expert/{key}", num_classes=1 + classes)
        options, widths = self.options, decoder.channels

        def blocks() -> dict[int, nn.Module]:
            if key == "medium":
                return {stage: SqueezeExcitation(width, options.reduction) for stage, width in enumerate(widths)}
            finest = [*enumerate(widths)][max(0, len(widths) - options.dilated_stages) :] if key == "tail" else []
            return {stage: DilatedPair(self.net, decoder, width, options.dilation) for stage, width in finest}

        alike = options.experts == "alike"
        return build.module(f"expert/{key}/blocks", lambda: Expert(decoder, {} if alike else blocks()))

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        labels, L = batch.label["weak"], batch.num_labeled
        features = self.net.encode(batch.image["weak"])
        maps, experts = self._conquered(features)
        stitched = stitch([logits.detach() for logits in experts], self.sets)
        own = self._aggregated(features, maps)

        self.loss.observe(step, "experts", stitched, labels)
        self.loss.observe(step, "aggregate", own, labels)
        terms = {}
        for number, (key, logits) in enumerate(zip(EXPERTS, experts, strict=True)):
            lifted, truth = lift(logits, self.sets[number], self.statistics.num_classes), self.truth(key, labels)
            self.loss.observe(step, key, lifted, truth)
            terms[key] = self.loss.supervised(lifted[:L], truth[:L], key=key)
        supervised = self.loss.supervised(
            own[:L], labels[:L], key="aggregate", reference=self.reference("experts", stitched[:L])
        )
        taught = self.loss.supervised(
            own[L:],
            classes_of(stitched[L:]),
            source="pseudo",
            key="aggregate",
            reference=self.reference("experts", stitched[L:]),
        )
        alone = torch.stack([*terms.values()]).sum()
        loss = self.options.expert_weight * alone + supervised + step.consistency_weight * taught
        return {"loss": loss, "supervised": supervised, "pseudo": taught, **terms}

    def _conquered(self, features: Features) -> tuple[list[list[Tensor]], list[Tensor]]:
        """Per expert, its maps from coarse to fine, and its logits (B, classes of its set + 1, *S)."""
        found = [expert(features) for expert in self.experts.values()]
        return [maps for maps, _ in found], [logits for _, logits in found]

    def _aggregated(self, features: Features, maps: Sequence[Sequence[Tensor]]) -> Tensor:
        """Logits (B, C, *S) of the aggregation decoder; `maps` as in `_conquered`."""
        if self.options.aggregate == "plain":
            return self.net.logits(features)

        def fused(stage: int, content: Tensor) -> Tensor:
            others = [own[stage].detach() if self.options.detach_experts else own[stage] for own in maps]
            return cast(Tensor, self.aggregation[stage](others, content))

        return self.net.head(self.net.decoder(features, fused)[-1])

    def truth(self, key: str, labels: Tensor) -> Tensor:
        """Labels as an expert learns them: those of other sets are background."""
        if key not in EXPERTS:
            return labels
        return torch.where(labels < 0, labels, self.own_labels[EXPERTS.index(key)][labels.clamp_min(0)])

    def step_cost(self, phase: Phase) -> StepCost:
        return StepCost(decoders=1 + len(EXPERTS))

    def phases(self) -> list[Phase]:
        return [Phase("train", predictors=("aggregate",))]

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        features = self.net.encode(x)
        if key in EXPERTS:
            logits = self.experts[key](features)[1]
            return lift(logits, self.sets[EXPERTS.index(key)], self.statistics.num_classes).softmax(1)
        maps = self._conquered(features)[0] if self.options.aggregate == "dfam" else []
        return self._aggregated(features, maps).float().softmax(1)


def class_sets(counts: Sequence[int], cut: Literal["gaps", "thirds"] = "gaps") -> ClassSets:
    """Labels of the head, medium and tail classes, each set from its largest class to its smallest.

    Args:
        counts: voxels of the classes 1, 2, ..., at least three; one without any is a tail class.
        cut: at the two largest gaps of their logs that leave no set empty, the earlier of equal ones; or in thirds,
            the first sets larger where they cannot be equal.
    """
    order = sorted(range(len(counts)), key=lambda number: -counts[number])
    if cut == "thirds":
        head, medium, tail = np.array_split(order, 3)
    else:
        # Between and behind classes without voxels there is no gap: only where no other is left they are cut off.
        logs = [np.log(counts[number]) if counts[number] else np.nan for number in order]
        gaps = np.nan_to_num(-np.diff(logs), nan=-1.0).round(9)  # so that equal ratios are equal gaps
        head, medium, tail = np.split(order, sorted(1 + np.argsort(-gaps, kind="stable")[:2]))
    one, two, three = (tuple(int(number) + 1 for number in part) for part in (head, medium, tail))
    return one, two, three


def lift(logits: Tensor, own: Sequence[int], num_classes: int) -> Tensor:
    """An expert's logits (B, classes of its set + 1, *S) as those of all classes (B, C, *S), fp32.

    Others' are far below its largest: with 2·10⁻²² of its probability they are nothing to a loss, and have a logarithm.
    """
    logits = full_precision(logits)
    floor = logits.detach().amax(1, keepdim=True) - FLOOR
    found = dict(zip((0, *own), logits.split(1, dim=1), strict=True))
    return torch.cat([found.get(label, floor) for label in range(num_classes)], dim=1)


def stitch(experts: Sequence[Tensor], sets: Sequence[Sequence[int]]) -> Tensor:
    """One prediction (B, C, *S) of three, fp32: z_k - z_0 of its expert for each class k, 0 for the background."""
    found: dict[int, Tensor] = {}
    for logits, own in zip(experts, sets, strict=True):
        background, *others = full_precision(logits).split(1, dim=1)
        found |= {label: content - background for label, content in zip(own, others, strict=True)}
    return torch.cat([torch.zeros_like(found[1]), *(found[label] for label in sorted(found))], dim=1)


def _fault(sets: Sequence[Sequence[int]] | None, foreground: int) -> str | None:
    """Why classes 1 to `foreground` cannot be split so; None where they can."""
    if foreground < len(EXPERTS):
        return f"it splits the foreground classes into three sets, and the data have {foreground}"
    if sets is None or (all(sets) and sorted(label for own in sets for label in own) == [*range(1, foreground + 1)]):
        return None
    return f"method.sets: each label from 1 to {foreground} must be in one of three sets, none of them empty"
