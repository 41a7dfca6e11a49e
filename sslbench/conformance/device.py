"""What a GPU asks of a method, shown without one: no value read, no devices mixed, nothing its autocast refuses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from sslbench.core.step import Batch, Step
from sslbench.methods.base import Method, Phase

META = torch.device("meta")


def step_without_values(method: Method, phase: Phase, batch: Batch, step: Step, backward: Callable[..., None]) -> None:
    """A step of a method, its optimisers' and its averages', on torch's `meta` device: tensors have shapes and types
    there, and no values. Whatever reads one, or mixes devices, stops with an error.

    Args:
        method: moved to `meta` and not fit for anything afterwards.
        phase: of the step.
        batch, step: as on a CPU.
        backward: of the terms, `training.trainer.backward`.
    """
    there = replace(
        step,
        consistency_weight=step.consistency_weight.to(META),
        generators=lambda stream, device: _generator(step, stream, device),
        sweeper=lambda: map(moved, step.sweeper()),
    )
    with valueless():
        method.to(META)
        terms = dict(method.training_step(moved(batch), there))
        groups = method.groups(phase)
        optimizers = [torch.optim.SGD(group.parameters, 0.01, momentum=0.9) for group in groups.values()]
        backward(terms, groups)
        for optimizer in optimizers:
            optimizer.step()
        method.after_step(there)


def predictions_without_values(method: Method, image: Tensor) -> None:
    """Every predictor's probabilities on `meta`, where they stay.

    Args:
        method: as above.
        image: (B, channels, *S).

    Raises:
        RuntimeError: a value is read, or the result lies elsewhere.
    """
    with valueless(), torch.no_grad():
        method.to(META).eval()
        for key in (None, *method.predictors):
            if method.predict(image.to(META), key).device != META:
                raise RuntimeError(f"predict(x, {key!r}) leaves the device")


def moved(batch: Batch) -> Batch:
    """A batch on `meta`."""

    def there(views: Mapping[Any, Tensor]) -> dict[Any, Tensor]:
        return {view: content.to(META) for view, content in views.items()}

    return replace(batch, image=there(batch.image), label=there(batch.label))


def _generator(step: Step, stream: str, device: torch.device | str | None) -> Any:
    """The generator of a stream; none for `meta`, which has none and draws nothing."""
    return None if device is not None and torch.device(device) == META else step.generators(stream, device)


@contextlib.contextmanager
def valueless() -> Iterator[None]:
    """Let autocast, which `meta` has not, be asked for there."""
    autocast = torch.autocast

    def asked(device_type: str, *given: Any, **more: Any) -> Any:
        return contextlib.nullcontext() if device_type == "meta" else autocast(device_type, *given, **more)

    with patch.object(torch, "autocast", asked):
        yield
