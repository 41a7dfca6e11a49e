"""Counting on torch's `meta` device, where tensors have shapes and types, and no values: nothing is allocated."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

META = torch.device("meta")


class _Counting(TorchDispatchMode):
    """Counts the floating-point operations of convolutions and products, in `flop`."""

    flop: int

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch has it for this: to keep a mode out of its compiler would load that, for two seconds

    def _count(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        if func._overloadpacket in flop_registry:
            self.flop += flop_registry[func._overloadpacket](*args, **kwargs, out_val=out)


class Tally(_Counting):
    """Tallies what operations on `meta` would take.

    Attributes:
        live, peak: bytes of storages now, and at most since `start`.
        launches, flop, moved: as in `StepTally`, since `start`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self.start()

    def start(self) -> None:
        """Begin a tally; what is alive stays so."""
        self.peak, self.launches, self.flop, self.moved = self.live, 0, 0, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        made = [self._hold(tensor) for tensor in _on_meta(out)]
        if any(made) or (made and func._schema.is_mutable):
            self._charge(func, args, kwargs, out)
        return out

    def _hold(self, tensor: Tensor) -> bool:
        """Count the storage of a tensor as alive until it goes; tell whether it is new."""
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._storages:
            return False

        def gone(_: Any) -> None:
            del self._storages[key]
            self.live -= size

        self._storages[key] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)
        return True

    def _charge(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        if func._overloadpacket in _NO_KERNEL:
            return
        self.launches += 1
        self.moved += sum(size_of(tensor) for tensor in (*_on_meta((args, kwargs)), *_on_meta(out)))
        self._count(func, args, kwargs, out)


_NO_KERNEL = {torch.ops.aten.empty, torch.ops.aten.empty_like, torch.ops.aten.new_empty, torch.ops.aten.empty_strided}


def _on_meta(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor) and leaf.device.type == "meta")


def size_of(tensor: Tensor) -> int:
    """The bytes of a tensor's values."""
    return tensor.numel() * tensor.element_size()


class Products(_Counting):
    """Counts the operations of convolutions and matrix products on `meta`, and of nothing else: what norms and
    activations make is the size of what they take, for which torch would load its compiler, for seconds.

    Attributes:
        flop: a multiplication and an addition are two.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flop = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is _ATEN.native_batch_norm.default:
            return torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0)
        if func is _ATEN.native_batch_norm_backward.default:
            return tuple(None if part is None else torch.empty_like(part) for part in (args[1], args[2], args[2]))
        if func in _ALIKE and len({part.shape for part in args if isinstance(part, Tensor)}) == 1:
            return torch.empty_like(args[0])
        out = func(*args, **kwargs)
        self._count(func, args, kwargs, out)
        return out


_ATEN = torch.ops.aten
_ALIKE = {
    _ATEN.add.Tensor,
    _ATEN.relu.default,
    _ATEN.threshold_backward.default,
    _ATEN.leaky_relu.default,
    _ATEN.leaky_relu_backward.default,
}


@contextmanager
def unfilled() -> Iterator[None]:
    """Make all tensors on `meta`, and leave them as they were made: torch takes most of a method's build to find out
    what filling them would do."""
    with META, _Unfilled():
        yield


class _Unfilled(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


_FILLS = {
    *(getattr(Tensor, name) for name in ("fill_", "normal_", "uniform_", "zero_")),
    *(getattr(torch.nn.init, name) for name in ("kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_")),
}
