"""Autocast as a GPU has it, without one: on a CPU, whose own list is shorter, and on torch's `meta` device, which has
none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_map

# What CUDA's autocast computes in bf16 and in fp32, and what it refuses, as torch documents them.
IN_BF16 = {
    *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "conv_tbc", "linear"),
    *("matmul", "__matmul__", "__rmatmul__", "mm", "mv", "bmm", "addmm", "addmv", "addbmm", "addr", "baddbmm"),
    *("einsum", "chain_matmul", "multi_dot", "prelu", "scaled_dot_product_attention"),
}
_IN_FP32 = {
    *("pow", "prod", "cumprod", "cumsum", "sum", "norm", "cdist", "renorm", "layer_norm", "group_norm", "normalize"),
    *("exp", "expm1", "log", "log10", "log2", "log1p", "softmax", "log_softmax", "softplus", "reciprocal", "rsqrt"),
    *("acos", "asin", "cosh", "erfinv", "sinh", "tan", "cosine_similarity", "cross_entropy", "nll_loss", "l1_loss"),
    *("mse_loss", "smooth_l1_loss", "kl_div", "binary_cross_entropy_with_logits"),
}
_REFUSED = {"binary_cross_entropy"}


def name_of(func: Any) -> str:
    """The last name of a function that a `TorchFunctionMode` met: `conv2d`, `__matmul__`."""
    return (resolve_name(func) or getattr(func, "__name__", "")).rpartition(".")[2]


class CudaAutocast(TorchFunctionMode):
    """CUDA's autocast rules on a CPU, whose own list is shorter: functions that it computes in fp32 get fp32, and
    those that it refuses stop. To be entered inside `torch.autocast("cpu", torch.bfloat16)`."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = name_of(func)
        if torch.is_autocast_enabled("cpu"):
            if name in _REFUSED:
                raise RuntimeError(f"{name} is refused under autocast on a GPU: use the form on logits")
            if name in _IN_FP32:
                args, kwargs = tree_map(_widened, (args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16) else value


class MetaAutocast(TorchFunctionMode):
    """CUDA's autocast to bf16 for tensors on `meta`, off at first: `torch.autocast("meta", ...)` inside turns it on and
    off. As there, a parameter is cast once, and its copy kept until the outermost block ends.
    What a checkpoint computes again in the backward pass it does not reach."""

    def __init__(self) -> None:
        super().__init__()
        self.enabled = False
        self._depth = 0
        self._casts: dict[int, Tensor] = {}

    def __enter__(self) -> MetaAutocast:
        autocast = torch.autocast

        def asked(device_type: str, *given: Any, **more: Any) -> Any:
            return (
                self._turned(more.get("enabled", True))
                if device_type == "meta"
                else autocast(device_type, *given, **more)
            )

        self._patch = patch.object(torch, "autocast", asked)
        self._patch.start()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patch.stop()

    @contextmanager
    def _turned(self, enabled: bool) -> Iterator[None]:
        before, self.enabled = self.enabled, enabled
        self._depth += 1
        try:
            yield
        finally:
            self.enabled = before
            self._depth -= 1
            if not self._depth:
                self._casts.clear()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self.enabled:
            name = name_of(func)
            if name in _REFUSED:
                raise RuntimeError(f"{name} is refused under autocast on a GPU: use the form on logits")
            if name in IN_BF16:
                args, kwargs = tree_map(self._narrowed, (args, kwargs or {}))
            elif name in _IN_FP32:
                args, kwargs = tree_map(_widened, (args, kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _narrowed(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        if not (value.is_leaf and value.requires_grad and torch.is_grad_enabled()):
            return value.bfloat16()
        if id(value) not in self._casts:
            self._casts[id(value)] = value.bfloat16()
        return self._casts[id(value)]
