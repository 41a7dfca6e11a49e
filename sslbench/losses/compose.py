"""Losses made of losses: one for labels and one for pseudo-labels, class and voxel weights added to any."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack, cast

from torch import Tensor, nn

from sslbench.config.recipe import CriteriaSpec
from sslbench.config.text import unflatten
from sslbench.core import registry
from sslbench.core.options import NoOptions
from sslbench.losses.base import Loss, Source, TermArguments
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

    def ce(self, logits: Tensor, target: Tensor, *, source: Source, key: str, **rest: Unpack[TermArguments]) -> Tensor:
        return self._of(source).ce(logits, target, source=source, key=key, **rest)

    def dice(
        self, logits: Tensor, target: Tensor, *, source: Source, key: str, **rest: Unpack[TermArguments]
    ) -> Tensor:
        return self._of(source).dice(logits, target, source=source, key=key, **rest)

    def supervised(
        self, logits: Tensor, target: Tensor, *, source: Source = "label", key: str, **rest: Unpack[TermArguments]
    ) -> Tensor:
        return self._of(source).supervised(logits, target, source=source, key=key, **rest)

    def consistency(
        self,
        logits: Tensor,
        own: Callable[[], Tensor],
        *,
        key: str,
        reference: tuple[str, Tensor],
        mask: Tensor | None = None,
    ) -> Tensor:
        return self.pseudo.consistency(logits, own, key=key, reference=reference, mask=mask)

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

    def ce(self, logits: Tensor, target: Tensor, *, source: Source, key: str, **rest: Unpack[TermArguments]) -> Tensor:
        more = self._weighted(logits, source, key, rest)
        return self.inner.ce(self._masked(logits, source, key, rest), target, source=source, key=key, **more)

    def dice(
        self, logits: Tensor, target: Tensor, *, source: Source, key: str, **rest: Unpack[TermArguments]
    ) -> Tensor:
        return self.inner.dice(logits, target, source=source, key=key, **self._weighted(logits, source, key, rest))

    def supervised(
        self, logits: Tensor, target: Tensor, *, source: Source = "label", key: str, **rest: Unpack[TermArguments]
    ) -> Tensor:
        if self._masked(logits, source, key, rest) is not logits:  # its cross-entropy alone is of the masked ones
            return super().supervised(logits, target, source=source, key=key, **rest)
        more = self._weighted(logits, source, key, rest)
        return self.inner.supervised(logits, target, source=source, key=key, **more)

    def consistency(
        self,
        logits: Tensor,
        own: Callable[[], Tensor],
        *,
        key: str,
        reference: tuple[str, Tensor],
        mask: Tensor | None = None,
    ) -> Tensor:
        return self.inner.consistency(logits, own, key=key, reference=reference, mask=mask)

    def _weighted(self, logits: Tensor, source: Source, key: str, rest: TermArguments) -> TermArguments:
        weighting = self._of(key)
        if weighting is None:
            return rest
        own, reference = logits.detach().float(), rest.get("reference")
        voxels = None
        if source == "pseudo":
            voxels = weighting.voxel_weight(own, own.softmax(1) if reference is None else reference[1])
        more = rest.copy()
        more["class_weight"] = _product(rest.get("class_weight"), weighting.weights)
        more["voxel_weight"] = _product(rest.get("voxel_weight"), voxels)
        return more

    def _masked(self, logits: Tensor, source: Source, key: str, rest: TermArguments) -> Tensor:
        """The learner's logits in a term on pseudo-labels, as the weighting of its judge masks them."""
        weighting, reference = self._of(key), rest.get("reference")
        if weighting is None or source == "label":
            return logits
        if reference is None:
            return weighting.masked(logits, logits.detach().float().softmax(1))
        judge = self._of(reference[0])
        return (judge if type(judge) is type(weighting) else weighting).masked(logits, reference[1])

    def _of(self, key: str) -> Weighting | None:
        return cast(Weighting, self.weightings[key]) if key in self.weightings else None


def _product(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    if left is None or right is None:
        return left if right is None else right
    return left * right
