"""Losses made of losses: one for labels and one for pseudo-labels, class and voxel weights added to any."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from sslbench.config.recipe import CriteriaSpec
from sslbench.config.text import unflatten
from sslbench.core import registry
from sslbench.core.options import NoOptions
from sslbench.losses.base import Loss, Source, Term, product
from sslbench.losses.weighting.base import Weighting

if TYPE_CHECKING:
    from sslbench.core.step import Statistics, Step


def build_loss(
    spec: Mapping[str, Any],
    criteria: CriteriaSpec,
    statistics: Statistics,
    weightings: Mapping[str, Mapping[str, Any]] | None = None,
) -> Loss:
    """The loss of a job: its class with its options, on the side that `applies_to` names, under its weightings.

    Args:
        spec: `name`, never a preset's, and options.
        criteria: of the recipe.
        statistics: of the training data.
        weightings: by the key of a predictor, `name` and options of its weighting.
    """
    loss = _one_sided(spec, criteria, statistics)
    if not weightings:
        return loss
    built = {}
    for key, weighting in weightings.items():
        options = unflatten({path: value for path, value in weighting.items() if path != "name"})
        built[key] = registry.component("weighting", weighting["name"]).of_job(options, statistics)
    return Weighted(loss, built)


def _one_sided(spec: Mapping[str, Any], criteria: CriteriaSpec, statistics: Statistics) -> Loss:
    kind = registry.component("loss", spec["name"])
    options = kind.Options(**{key: value for key, value in spec.items() if key != "name"})
    loss = cast(Loss, kind(options, criteria, statistics))
    side = getattr(options, "applies_to", "both")
    if side == "both":
        return loss
    plain = Loss(NoOptions(), criteria, statistics)
    return BySource(label=loss, pseudo=plain) if side == "label" else BySource(label=plain, pseudo=loss)


class BySource(Loss):
    """One loss where the target is truth, another where it is a pseudo-label; the latter has soft consistency too.

    Args:
        label, pseudo: of the same job.
    """

    def __init__(self, label: Loss, pseudo: Loss) -> None:
        super().__init__(NoOptions(), label.criteria, label.statistics)
        self.label, self.pseudo = label, pseudo
        self.needs_reference = label.needs_reference or pseudo.needs_reference

    def observe(self, step: Step, key: str, logits: Tensor, labels: Tensor) -> None:
        self.label.observe(step, key, logits, labels)
        self.pseudo.observe(step, key, logits, labels)

    def ce_term(self, term: Term) -> Tensor:
        return self._of(term.source).ce(**vars(term))

    def dice_term(self, term: Term) -> Tensor:
        return self._of(term.source).dice(**vars(term))

    def supervised_term(self, term: Term) -> Tensor:
        return self._of(term.source).supervised(**vars(term))

    def consistency_term(self, term: Term, own: Callable[[], Tensor]) -> Tensor:
        return _consistency(self.pseudo, term, own)

    def _of(self, source: Source) -> Loss:
        return self.label if source == "label" else self.pseudo


class Weighted(Loss):
    """A loss whose terms get the class and voxel weights of the learner's weighting.

    Class weights go to terms on labels and on pseudo-labels, voxel weights to those on pseudo-labels (CLD and Basak
    sample, Adsh sets a threshold there). Weights that the method gives itself are multiplied by them. A key without a
    weighting, and soft consistency, stay as they are.

    Args:
        loss: any loss.
        weightings: by the key of the predictor that learns.
    """

    def __init__(self, loss: Loss, weightings: Mapping[str, Weighting]) -> None:
        super().__init__(NoOptions(), loss.criteria, loss.statistics)
        self.inner, self.weightings = loss, nn.ModuleDict(weightings)
        self.needs_reference = loss.needs_reference or any(w.needs_reference for w in weightings.values())
        counts = loss.statistics.class_counts.sum(0).float()
        for weighting in weightings.values():
            weighting.weights = weighting.init(counts)

    def observe(self, step: Step, key: str, logits: Tensor, labels: Tensor) -> None:
        self.inner.observe(step, key, logits, labels)
        weighting = self._of(key)
        if weighting is not None:
            # Predictors draw apart.
            own = replace(step, generators=lambda stream, device: step.generators(f"{key}/{stream}", device))
            observation = weighting.observe(own, logits.detach().float(), labels)
            weighting.weights = weighting.update(observation)
            for name, values in weighting.records().items():
                step.log(f"{name}/{key}", values)

    def ce_term(self, term: Term) -> Tensor:
        return self.inner.ce(**vars(replace(self._weighted(term), logits=self._masked(term))))

    def dice_term(self, term: Term) -> Tensor:
        return self.inner.dice(**vars(self._weighted(term)))

    def supervised_term(self, term: Term) -> Tensor:
        if self._masked(term) is not term.logits:  # its cross-entropy alone is of the masked ones
            return super().supervised_term(term)
        return self.inner.supervised(**vars(self._weighted(term)))

    def consistency_term(self, term: Term, own: Callable[[], Tensor]) -> Tensor:
        return _consistency(self.inner, term, own)

    def _weighted(self, term: Term) -> Term:
        weighting, voxels = self._of(term.key), None
        if weighting is None:
            return term
        if term.source == "pseudo":
            own = term.logits.detach().float()
            voxels = weighting.voxel_weight(own, own.softmax(1) if term.reference is None else term.reference[1])
        return replace(
            term,
            class_weight=product(term.class_weight, weighting.weights),
            voxel_weight=product(term.voxel_weight, voxels),
        )

    def _masked(self, term: Term) -> Tensor:
        """The learner's logits in a term on pseudo-labels, as the weighting of its judge masks them."""
        weighting = self._of(term.key)
        if weighting is None or term.source == "label":
            return term.logits
        if term.reference is None:
            return weighting.masked(term.logits, term.logits.detach().float().softmax(1))
        judge = self._of(term.reference[0])
        return (judge if type(judge) is type(weighting) else weighting).masked(term.logits, term.reference[1])

    def _of(self, key: str) -> Weighting | None:
        return cast(Weighting, self.weightings[key]) if key in self.weightings else None


def _consistency(loss: Loss, term: Term, own: Callable[[], Tensor]) -> Tensor:
    """The soft consistency of a loss inside another, asked as methods ask."""
    assert term.reference is not None  # it is drawn to something
    return loss.consistency(term.logits, own, key=term.key, reference=term.reference, mask=term.mask)
