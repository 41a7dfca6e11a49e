"""MetaSSL (Zhao et al.; IEEE TMI 2025) as a plug-and-play loss; its mathematics is in `losses.quadripartition`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, model_validator
from torch import Tensor

from sslbench.core.registry import register
from sslbench.losses.base import Loss, LossOptions, Term, product
from sslbench.losses.cross_entropy import classes_of, full_precision, hard_labels, nll_map
from sslbench.losses.dice import label_scores
from sslbench.losses.quadripartition import REGIONS, Partitioning, Phi, QuadLoss
from sslbench.losses.thresholds import (
    STREAMS,
    AdaptiveThreshold,
    FixedThreshold,
    FlexMatchThreshold,
    FreeMatchThreshold,
    Threshold,
    Uncertainty,
)

if TYPE_CHECKING:
    from sslbench.config.recipe import CriteriaSpec
    from sslbench.core.step import Statistics, Step


class MetaSSLOptions(LossOptions):
    """Options of the loss `metassl`."""

    form: Literal["paper", "released"] = Field(
        default="paper",
        description="the printed equations, or what the public 2-D CPS script computes (metassl_released sets its "
        "thresholds and its slip too)",
    )
    partition: Partitioning = Field(
        default="quad", description="four regions, or two by confidence or consistency alone (MetaSSL Table IV)"
    )
    threshold: Literal["adaptive", "flexmatch", "freematch"] | Annotated[float, Field(ge=0, le=1)] = Field(
        default="adaptive", description="rule of the class thresholds, or one number for all (MetaSSL Table V)"
    )
    alpha: float = Field(default=0.99, ge=0, le=1, description="of the adaptive thresholds (MetaSSL eq. 10; code: 0.5)")
    alpha_on: Literal["new", "old"] = Field(
        default="new", description="what alpha multiplies: the new value (eq. 10 as printed), or the old one"
    )
    init: float = Field(
        default=0.5, ge=0, le=1, description="adaptive thresholds before the first batch (eq. 10; code: 0.9)"
    )
    uncertainty: Uncertainty = Field(
        default="confidence", description="what is compared with the thresholds (MetaSSL Table VII)"
    )
    phi: Phi = Field(default="gauss", description="shape of the weight function (MetaSSL Table VI)")
    beta: float = Field(default=3.0, gt=0, description="exponent of the Gaussian weight function (MetaSSL Table VI)")
    delta_u: float = Field(default=0.6, ge=0, description="step between regions, unlabelled (MetaSSL Fig. 7 and code)")
    delta_l: float = Field(default=0.3, ge=0, description="step between regions, labelled (MetaSSL Fig. 7 and code)")
    scale_u: float = Field(default=50.0, gt=0, description="factor of the unlabelled term, released form only (code)")
    scale_l: float = Field(default=85.0, gt=0, description="factor of the labelled term, released form only (code)")
    uc_bg_twice: bool = Field(
        default=False,
        description="released form: the 2-D script's slip, UC's background twice and no foreground (metassl_released; "
        "false: what was meant, and what the 3-D scripts compute)",
    )
    soft: Literal["ce", "mse"] = Field(
        default="ce",
        description="in the place of a soft consistency term: cross-entropy to the reference's class (MetaSSL, section "
        "III-E), or the squared distance under the same weights",
    )

    @model_validator(mode="after")
    def _agrees(self) -> MetaSSLOptions:
        if self.threshold in ("flexmatch", "freematch") and self.uncertainty != "confidence":
            raise ValueError(
                f"the {self.threshold} thresholds are of confidences: uncertainty={self.uncertainty} has none"
            )
        return self


def _rule(options: MetaSSLOptions) -> Threshold:
    if isinstance(options.threshold, float):
        return FixedThreshold(options.threshold)
    if options.threshold == "flexmatch":
        return FlexMatchThreshold()
    if options.threshold == "freematch":
        return FreeMatchThreshold()
    absent: Literal["keep", "decay"] = "decay" if options.form == "released" else "keep"
    return AdaptiveThreshold(options.alpha, options.alpha_on, options.init, absent)


@register("loss", "metassl")
class MetaSSLLoss(Loss):
    """Voxels weighted by agreement with a reference and its confidence (Zhao et al.; IEEE TMI 2025).

    The reference is the prediction that the method holds the learner against: the teacher, the peer, the other view or
    pass; where a method has none, the learner itself without gradient. Four regions (unanimous or discrepant, confident
    or suspicious) get falling weights, and a term is the mean under these weights: of cross-entropy and Dice with
    labels, of cross-entropy with pseudo-labels, which also takes the place of a soft consistency term.

    Cost: a forward pass over the labelled patches by the reference where the method does not make one anyway.

    Deviations:
    - a class that no voxel of the batch has keeps its threshold (equation 9 is 0/0); sums are over the batch
    - equation 8 gets the smoothing of the recipe's Dice
    - a Dice with pseudo-labels, which the paper does not have, is weighted as its cross-entropy
    - with a pseudo-label that is not the reference's class (cleaned, blended), agreement is with the pseudo-label
    - delta_u, delta_l are those of the code and of Fig. 7; section IV-A-4 has them exchanged
    - released: the labelled term is added to the plain supervised loss, ramped as the unlabelled one, and there is no
      weighted Dice; the 3-D scripts' other weights and cap on thresholds are left out. `metassl_released` is the 2-D
      CPS script to the letter: its mean over the foreground of UC is one over the background once more
    """

    title = "MetaSSL"
    needs_reference = True
    changes = ("label", "pseudo", "consistency")
    Options: ClassVar[type[BaseModel]] = MetaSSLOptions
    options: MetaSSLOptions

    @classmethod
    def changes_dice(cls, spec: Mapping[str, Any]) -> bool:
        return spec.get("form") != "released"

    def __init__(self, options: MetaSSLOptions, criteria: CriteriaSpec, statistics: Statistics) -> None:
        super().__init__(options, criteria, statistics)
        released = options.form == "released"
        self.quad = QuadLoss(
            statistics.num_classes,
            options.beta,
            options.delta_u,
            options.delta_l,
            options.phi,
            order=options.form,
            reduction="region_mean" if released else "paper",
            threshold=_rule(options),
            partition=options.partition,
            uncertainty=options.uncertainty,
            scale_u=options.scale_u,
            scale_l=options.scale_l,
            uc_bg_twice=options.uc_bg_twice,
            smooth=criteria.smooth,
        )

    def observe(self, step: Step, key: str, logits: Tensor, labels: Tensor) -> None:
        self._step = step
        self.quad.observe(key, full_precision(logits.detach()).softmax(1), (labels < 0).long())
        for stream in STREAMS:
            step.log(f"threshold/{key}/{stream}", partial(self.quad.thresholds, key, stream))

    def ce_term(self, term: Term) -> Tensor:
        if term.source == "label" and self.options.form == "released":
            return super().ce_term(term) + self._ramped(term)
        return self._quad_ce(term)

    def dice_term(self, term: Term) -> Tensor:
        if self.options.form == "released":
            return super().dice_term(term)
        term = replace(term, target=hard_labels(term.logits, term.target))
        regions, probabilities = self._regions(term)
        weight = product(self.quad.weights(regions, term.source, probabilities.dtype), term.inside_sums)
        return self.quad.dice(term.logits, term.target, weight, term.class_weight)

    def supervised_term(self, term: Term) -> Tensor:
        if term.source == "label" and self.options.form == "released":
            # Outside the recipe's weights of cross-entropy and Dice: S + λ·H.
            plain = self.criteria.ce_weight * super().ce_term(term)
            return plain + self.criteria.dice_weight * super().dice_term(term) + self._ramped(term)
        return super().supervised_term(term)

    def both_terms(self, term: Term) -> tuple[Tensor, Tensor]:
        term = replace(term, target=hard_labels(term.logits, term.target))
        if self.options.form == "released" or not (term.one_pass and self._makes_both(MetaSSLLoss)):
            return super().both_terms(term)
        regions, probabilities = self._regions(term)
        weight = product(self.quad.weights(regions, term.source, probabilities.dtype), term.inside_sums)
        found = label_scores(term.logits, term.target, weight, self.quad.dice.squared)
        return self._mean(term, found.nll, regions), self.quad.dice.of(found.sums, term.class_weight)

    def consistency_term(self, term: Term, own: Callable[[], Tensor]) -> Tensor:
        term = replace(term, target=classes_of(term.target))
        if self.options.soft == "ce":
            return self._quad_ce(term)
        regions, probabilities = self._regions(term)
        distance = (full_precision(term.logits).softmax(1) - probabilities).square().mean(1)
        return self.quad.mean(distance, regions, "pseudo", term.mask)

    def _quad_ce(self, term: Term) -> Tensor:
        term = replace(term, target=hard_labels(term.logits, term.target))
        regions, _ = self._regions(term)
        return self._mean(term, nll_map(term.logits, term.target), regions)

    def _mean(self, term: Term, nll: Tensor, regions: Tensor) -> Tensor:
        """The mean of nll (B, *S) under the weights of a term on labels and of its regions."""
        by_class = None
        if term.class_weight is not None:
            by_class = term.class_weight.to(nll.dtype)[term.target]
            nll = nll * by_class
        return self.quad.mean(nll, regions, term.source, term.mask, term.voxel_weight, by_class)

    def _ramped(self, term: Term) -> Tensor:
        return self._quad_ce(term) * self._step.consistency_weight

    def _regions(self, term: Term) -> tuple[Tensor, Tensor]:
        """Where each voxel stands, and the reference's probabilities."""
        reference = term.reference or (term.key, full_precision(term.logits.detach()).softmax(1))
        judge, probabilities = reference[0], full_precision(reference[1]).detach()
        if term.source == "label" and self.options.form == "released":
            judge = term.key
        regions = self.quad.regions(term.logits, term.target, probabilities, judge, term.source)
        for number, name in enumerate(REGIONS):
            self._step.log(f"region/{term.key}/{term.source}/{name}", partial(_share, regions, number))
        return regions, probabilities


def _share(regions: Tensor, number: int) -> Tensor:
    """The share of voxels in a region; UC is in two where its foreground (4) is apart."""
    inside = (regions == number) | (regions == 4) if number == 0 else regions == number
    return inside.float().mean()


register("loss", "metassl_lqh", preset_of="metassl", set={"applies_to": "label"})
register("loss", "metassl_uqh", preset_of="metassl", set={"applies_to": "pseudo"})
register("loss", "metassl_conf_bh", preset_of="metassl", set={"partition": "confidence"})
register("loss", "metassl_cons_bh", preset_of="metassl", set={"partition": "consistency"})
register(
    "loss",
    "metassl_released",
    preset_of="metassl",
    set={"form": "released", "alpha": 0.5, "init": 0.9, "uc_bg_twice": True},
)
