"""What a GPU asks of a method, shown without one: no value read, no devices mixed, nothing its autocast refuses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sslbench.core.randomness import unless_meta
from sslbench.core.step import Batch, Step
from sslbench.execution.tally import META
from sslbench.methods.base import Method, Phase
from sslbench.networks import resize


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
        generators=unless_meta(step.generators),
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


@contextlib.contextmanager
def valueless() -> Iterator[None]:
    """Let autocast, which `meta` has not, be asked for there."""
    autocast = torch.autocast

    def asked(device_type: str, *given: Any, **more: Any) -> Any:
        return contextlib.nullcontext() if device_type == "meta" else autocast(device_type, *given, **more)

    with patch.object(torch, "autocast", asked):
        yield


# Kernels that torch's strict flag refuses on CUDA: they add in an order that varies, and have no other form.
_UNREPEATABLE = {
    *("adaptive_max_pool2d_backward", "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward"),
    *("avg_pool3d_backward", "max_pool3d_with_indices_backward", "max_unpool2d", "max_unpool3d"),
    *("fractional_max_pool2d_backward", "fractional_max_pool3d_backward", "_embedding_bag", "_ctc_loss_backward"),
    *("upsample_linear1d_backward", "upsample_bilinear2d_backward", "upsample_trilinear3d_backward"),
    *("upsample_bicubic2d_backward", "grid_sampler_2d_backward", "grid_sampler_3d_backward"),
    *("reflection_pad1d_backward", "reflection_pad3d_backward", "replication_pad1d_backward"),
    *("replication_pad2d_backward", "replication_pad3d_backward", "nll_loss2d_forward", "scatter_reduce"),
    *("put_", "histc", "bincount", "kthvalue", "median", "nanmedian", "cumsum"),
}


class Kernels(TorchDispatchMode):
    """Notes kernels of a GPU that do not repeat to the bit, while a step runs on `meta`.

    Attributes:
        refused: their names, in the order of use.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refused: dict[str, None] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name in _UNREPEATABLE and not _repeats(name, args, kwargs or {}):
            self.refused[name] = None
        return func(*args, **(kwargs or {}))


def _repeats(name: str, args: tuple[Any, ...], named: Mapping[str, Any]) -> bool:
    """Whether a kernel of the list repeats with these arguments all the same."""
    if name == "nll_loss2d_forward":
        return bool(args[3] == 0)  # no reduction: nothing is added
    if name == "cumsum":
        return not args[0].is_floating_point()
    if name == "bincount":
        return len(args) < 2 and named.get("weights") is None
    if name == "max_pool3d_with_indices_backward":
        kernel, stride = list(args[2]), list(args[3])
        return not stride or kernel == stride  # windows apart: one writer for each value, though the flag objects
    return False


@contextlib.contextmanager
def kernels() -> Iterator[Kernels]:
    """Note the kernels that a GPU would be given: resizing, which chooses by device, chooses as on CUDA."""
    with patch.object(resize, "repeats", lambda device: False), Kernels() as noted:
        yield noted
