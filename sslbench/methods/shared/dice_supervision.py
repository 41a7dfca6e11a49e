"""Methods whose supervised term is the Dice, not the recipe's `criteria` (MC-Net, DCNet, SS-Net)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import Field
from torch import Tensor

from sslbench.core import registry
from sslbench.core.options import Options
from sslbench.losses.base import Loss, TermKind

if TYPE_CHECKING:
    from sslbench.config.job import ResolvedJob


class DiceOptions(Options):
    """What the supervised term is made of."""

    ce: bool = Field(
        default=False, description="add the cross-entropy of labelled patches, which the codes compute and drop"
    )


def dice_terms(
    loss: Loss, logits: Tensor, labels: Tensor, num_labeled: int, ce: bool, reference: tuple[str, Tensor] | None = None
) -> list[Tensor]:
    """The Dice of predictor `net` with true labels, beside it the cross-entropy where the option `ce` adds it.

    Args:
        loss: of the method.
        logits: (B, C, *S), labelled patches first.
        labels: (B, *S).
        num_labeled: how many of them are.
        ce: the option.
        reference: what the terms are held against, on the labelled patches.
    """
    L, criteria = num_labeled, (loss.dice, loss.ce) if ce else (loss.dice,)
    return [criterion(logits[:L], labels[:L], source="label", key="net", reference=reference) for criterion in criteria]


def nothing_but_ce(job: ResolvedJob, term_kinds: Iterable[TermKind]) -> str | None:
    """The objection of a method, its option `ce` off, to a loss that changes cross-entropy of labels alone."""
    loss = registry.component("loss", job.loss["name"])
    beside = {*loss.changes} & {*term_kinds} - {"label"} if job.loss.get("applies_to") != "label" else set()
    if not loss.changes or beside or job.method["ce"] or loss.changes_dice(job.loss):
        return None
    return "it asks for no cross-entropy of labels, and the loss changes nothing else: set method.ce=true"
