"""The contract of a plug-and-play loss, and `default`, the loss that the recipe's `criteria` describe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict, Unpack

from pydantic import BaseModel, Field
from torch import Tensor, nn

from sslbench.config.recipe import CriteriaSpec
from sslbench.core import registry
from sslbench.core.options import NoOptions, Options
from sslbench.losses.cross_entropy import cross_entropy, mean_nll
from sslbench.losses.dice import DiceLoss, ForegroundDiceLoss, label_scores

if TYPE_CHECKING:
    from sslbench.config.job import ResolvedJob
    from sslbench.core.step import Statistics, Step

Source = Literal["label", "pseudo"]
TermKind = Literal["label", "pseudo", "consistency"]


class LossOptions(Options):
    """Options that every loss but `default` has: which targets it serves. `losses.compose.build_loss` sees to it."""

    applies_to: Literal["both", "label", "pseudo"] = Field(
        default="both",
        description="true labels, or pseudo-labels and soft consistency: the rest keeps `default` (GA Table 6)",
    )


class TermArguments(TypedDict, total=False):
    """The optional arguments of `Loss.ce`, `dice` and `supervised`: fields of `Term`."""

    reference: tuple[str, Tensor] | None
    mask: Tensor | None
    voxel_weight: Tensor | None
    class_weight: Tensor | None


@dataclass(frozen=True, eq=False)
class Term:
    """A term that a method asks of a loss.

    Attributes:
        logits: (B, C, *S) of the learner.
        target: (B, *S) int64 labels, or (B, C, *S) probabilities, which a loss may harden.
        source: `label` or `pseudo`.
        key: the predictor that learns.
        reference: (key, probabilities) that the learner is held against.
        mask: (B, *S), the voxels that the term is about.
        voxel_weight: (B, *S), multiplies; the divisor stays.
        class_weight: (C,).
    """

    logits: Tensor
    target: Tensor
    source: Source
    key: str
    reference: tuple[str, Tensor] | None = None
    mask: Tensor | None = None
    voxel_weight: Tensor | None = None
    class_weight: Tensor | None = None

    @property
    def one_pass(self) -> bool:
        """Whether `losses.dice.label_scores` serves it: its target is labels, and no gradient reaches its weights."""
        weight = self.inside_sums
        return self.target.ndim < self.logits.ndim and (weight is None or not weight.requires_grad)

    @property
    def inside_sums(self) -> Tensor | None:
        """The weight (B, *S) that a Dice-like loss puts into all its sums."""
        return product(self.mask, self.voxel_weight)


@registry.register("loss", "default")
class Loss(nn.Module):
    """Cross-entropy and the Dice that the recipe's `criteria` describe; soft consistency is the method's own.

    Every other loss is one of these that overrides the terms it replaces, so that any loss goes with any method: at
    least one of `ce_term`, `dice_term`, `supervised_term` and `consistency_term` must be written. `changes` should say
    which targets these serve; `title`, `Options` (a class that derives from `LossOptions`), `observe` and `objection`
    may be written. Methods ask by `ce`, `dice`, `supervised` and `consistency`, which make the `Term`; a loss that
    would rather have the arguments apart overrides these instead.

    A method calls `observe` once a step for each of its predictors, then any number of terms. Each term knows its
    `source` (is the target truth or a pseudo-label?), the `key` of the predictor that learns, and optionally the
    `reference` that it is held against, as (key, probabilities); without one that is the learner itself, detached.

    Attributes:
        version: raised when the same options would give other values.
        title: what a table's row name begins with (`GA` for GA-CPS); empty for `default`.
        needs_reference: whether a method should compute a reference that it would not need itself.
        changes: the terms that differ from those of `default`.
    """

    version: ClassVar[int] = 2  # sums per class are no longer rounded
    title: ClassVar[str] = ""
    needs_reference: bool = False
    changes: ClassVar[tuple[TermKind, ...]] = ()
    Options: ClassVar[type[BaseModel]] = NoOptions

    def __init__(self, options: BaseModel, criteria: CriteriaSpec, statistics: Statistics) -> None:
        super().__init__()
        self.options, self.criteria, self.statistics = options, criteria, statistics
        self.num_classes = statistics.num_classes
        self._plain_dice = (
            ForegroundDiceLoss(criteria.smooth)
            if criteria.dice == "foreground"
            else DiceLoss(criteria.smooth, squared=criteria.dice == "squared")
        )

    @classmethod
    def objection(cls, job: ResolvedJob) -> str | None:
        """Say in one line why this job has no meaning, before anything is built; None where it has one."""
        side = job.loss.get("applies_to", "both")
        served = {term for term in cls.changes if side == "both" or (term == "label") == (side == "label")}
        asked = registry.component("method", job.method["name"]).term_kinds
        if cls.changes and not served & {*asked}:
            return (
                f"the method asks for terms on {_listed(asked)}, the loss changes those on {_listed(sorted(served))}:"
                " together they are the loss 'default'"
            )
        return None

    @classmethod
    def changes_dice(cls, spec: Mapping[str, Any]) -> bool:
        """Tell whether its Dice, with the options of `spec`, differs from `default`'s: some methods ask for no more."""
        return cls.dice_term is not Loss.dice_term or cls.dice is not Loss.dice

    def observe(self, step: Step, key: str, logits: Tensor, labels: Tensor) -> None:
        """See a predictor's outputs of this step before its terms are asked for: all statistics are taken here.

        Args:
            step: counters and logging.
            key: the predictor.
            logits: (B, C, *S), with or without gradient; none flows back.
            labels: (B, *S) int64, -1 where there is no truth.
        """

    def ce(self, logits: Tensor, target: Tensor, *, source: Source, key: str, **rest: Unpack[TermArguments]) -> Tensor:
        """Compute the loss's cross-entropy, for methods; `Term` says what the arguments mean."""
        return self.ce_term(Term(logits, target, source, key, **rest))

    def dice(
        self, logits: Tensor, target: Tensor, *, source: Source, key: str, **rest: Unpack[TermArguments]
    ) -> Tensor:
        """Compute the loss's Dice, for methods; arguments as in `ce`."""
        return self.dice_term(Term(logits, target, source, key, **rest))

    def supervised(
        self, logits: Tensor, target: Tensor, *, source: Source = "label", key: str, **rest: Unpack[TermArguments]
    ) -> Tensor:
        """Compute the loss's weighted sum of both, for methods; arguments as in `ce`."""
        return self.supervised_term(Term(logits, target, source, key, **rest))

    def consistency(
        self,
        logits: Tensor,
        own: Callable[[], Tensor],
        *,
        key: str,
        reference: tuple[str, Tensor],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss's soft consistency, for methods; `own` makes the criterion of the method's paper."""
        return self.consistency_term(Term(logits, reference[1], "pseudo", key, reference, mask), own)

    def ce_term(self, term: Term) -> Tensor:
        """Compute the term in the place of a cross-entropy; `losses.cross_entropy` says what the weights mean."""
        return cross_entropy(term.logits, term.target, term.mask, term.voxel_weight, term.class_weight)

    def dice_term(self, term: Term) -> Tensor:
        """Compute the term in the place of a Dice loss, `mask` and `voxel_weight` inside all its sums."""
        return self._plain_dice(term.logits, term.target, term.inside_sums, term.class_weight)

    def supervised_term(self, term: Term) -> Tensor:
        """Compute `ce_term` and `dice_term` in the weights of the recipe's `criteria`, whichever loss is plugged in."""
        ce, dice = self.both_terms(term)
        return self.criteria.ce_weight * ce + self.criteria.dice_weight * dice

    def both_terms(self, term: Term) -> tuple[Tensor, Tensor]:
        """Compute `ce_term` and `dice_term` of one term: a loss that makes both of the same sums writes this too."""
        if not (term.one_pass and self._makes_both(Loss)):
            return self.ce(**vars(term)), self.dice(**vars(term))
        found = label_scores(term.logits, term.target, term.inside_sums, self._plain_dice.squared)
        ce = mean_nll(found.nll, term.target, term.mask, term.voxel_weight, term.class_weight)
        return ce, self._plain_dice.of(found.sums, term.class_weight)

    def _makes_both(self, owner: type[Loss]) -> bool:
        """Whether cross-entropy and Dice are those of `owner`, whose `both_terms` asks."""
        names = ("ce", "dice", "ce_term", "dice_term")
        return all(getattr(type(self), name) is getattr(owner, name) for name in names)

    def consistency_term(self, term: Term, own: Callable[[], Tensor]) -> Tensor:
        """Compute a soft consistency term: `own()`, the criterion of the method's paper, unless a loss replaces it.

        Args:
            term: its `target` is the reference's probabilities, to which the learner is drawn.
            own: makes the method's own term.
        """
        return own()


_TERMS = {"label": "labels", "pseudo": "pseudo-labels", "consistency": "soft consistency"}


def _listed(terms: Iterable[str]) -> str:
    return " and ".join(_TERMS[term] for term in terms)


def product(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    """The product of weights that may be absent."""
    if left is None or right is None:
        return left if right is None else right
    return left * right
