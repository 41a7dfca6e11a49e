"""One step of a method, watched: what its loss is asked for and shown, and how its networks run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sslbench.losses.base import TermKind
from sslbench.methods.base import Method
from sslbench.networks.base import Decoder, Network
from sslbench.plugins.base import Attached

TOLERANCE = 1e-5  # between two probabilities that are one: a softmax of other shapes rounds otherwise
_RUN_TWICE = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)  # layers with two modes


@dataclass(frozen=True)
class WatchedTerm:
    """What a loss was asked for.

    Attributes:
        kind: of the target.
        key: the predictor that learns.
        logits: (B, C, *S) of the learner, detached.
        target: (B, *S) labels or (B, C, *S) probabilities; None: the term is soft consistency.
        reference: (key, probabilities); None: the learner itself.
        mask: (B, *S); None: everywhere.
        drawn: (B, *S), the voxels whose logits the method's own consistency has a gradient in; None: it was not made
            of these logits, or the target is hard.
    """

    kind: TermKind
    key: str
    logits: Tensor
    target: Tensor | None = None
    reference: tuple[str, Tensor] | None = None
    mask: Tensor | None = None
    drawn: Tensor | None = None


@dataclass(frozen=True)
class Shown:
    """What `observe` was shown of a predictor: logits (B, C, *S), detached, and labels (B, *S)."""

    logits: Tensor
    labels: Tensor

    def places(self, probabilities: Tensor) -> set[int]:
        """Return the patches whose prediction is these probabilities (C, *S)."""
        if self.logits.shape[1:] != probabilities.shape:
            return set()
        apart = (self.logits.float().softmax(1) - probabilities).abs().flatten(1).amax(1)
        return set(torch.where(apart < TOLERANCE)[0].tolist())


@dataclass
class Watch:
    """Watches the method from now on, until `stop`.

    Attributes:
        observed: keys that the loss was shown, in order.
        shown: what it was shown of each last.
        unobserved: keys that a term named before they were observed.
        terms: what it was asked for, in order; `supervised` is there beside the parts that it is made of.
        evaluated: layers with two modes (batch norm, dropout) that ran in evaluation mode.
        voxels: encoded with gradient, encoded without, decoded with; counted in voxels, so that the cubes of a patch
            are one patch.
    """

    method: Method
    observed: list[str] = field(default_factory=list)
    shown: dict[str, Shown] = field(default_factory=dict)
    unobserved: set[str] = field(default_factory=set)
    terms: list[WatchedTerm] = field(default_factory=list)
    evaluated: set[str] = field(default_factory=set)
    voxels: dict[str, int] = field(default_factory=lambda: {"trained": 0, "untrained": 0, "decoded": 0})
    _hooks: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        loss = self.method.loss
        for name in ("observe", "ce", "dice", "supervised", "consistency"):
            setattr(loss, name, self._spied(name, getattr(loss, name)))
        for name, module in self.method.named_modules():
            if isinstance(module, Network) and not isinstance(module, Attached):
                self._hooks.append(module.encoder.register_forward_hook(self._encoded))
            if isinstance(module, Decoder):
                self._hooks.append(module.register_forward_hook(self._decoded))
            if isinstance(module, _RUN_TWICE):
                self._hooks.append(module.register_forward_pre_hook(self._ran(name)))

    def stop(self) -> None:
        """Watch the networks no longer: a backward pass may run parts of them again."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _encoded(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self.voxels["trained" if output[0].requires_grad else "untrained"] += inputs[0][:, 0].numel()

    def _decoded(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self.voxels["decoded"] += output[-1][:, 0].numel() if output[-1].requires_grad else 0

    def _ran(self, name: str) -> Callable[[nn.Module, Any], None]:
        def note(module: nn.Module, inputs: Any) -> None:
            if not module.training:
                self.evaluated.add(name)

        return note

    def _spied(self, name: str, ask: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(ask)

        def spy(*parts: Any, **rest: Any) -> Any:
            given = signature.bind(*parts, **rest).arguments
            given = {**given, **given.get("rest", {})}
            if name == "observe":
                self.observed.append(given["key"])
                self.shown[given["key"]] = Shown(given["logits"].detach(), given["labels"].detach())
            else:
                term = _term(name, given)
                self.terms.append(term)
                named = {term.key, *([term.reference[0]] if term.reference else [])}
                self.unobserved |= named - {*self.observed}
            return ask(*parts, **rest)

        return spy


def _term(name: str, given: Mapping[str, Any]) -> WatchedTerm:
    logits, reference, mask = given["logits"], given.get("reference"), given.get("mask")
    shared = {
        "key": given["key"],
        "logits": logits.detach(),
        "reference": (reference[0], reference[1].detach()) if reference else None,
        "mask": None if mask is None else mask.detach() > 0,
    }
    if name == "consistency":
        return WatchedTerm("consistency", drawn=_drawn(given["own"], logits), **shared)
    return WatchedTerm(given.get("source", "label"), target=given["target"].detach(), **shared)


def _drawn(own: Callable[[], Tensor], logits: Tensor) -> Tensor | None:
    value = own()
    if not (logits.requires_grad and value.requires_grad):
        return None
    (gradient,) = torch.autograd.grad(value, logits, retain_graph=True, allow_unused=True)
    return None if gradient is None else (gradient != 0).any(1)
