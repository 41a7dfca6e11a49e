"""The operations that reach the dispatcher, and those that make the host wait for the device."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Operations whose result the host must have before it can go on.
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "bincount", "equal", "is_nonzero", "_unique2", "unique_dim"}


class Calls(TorchDispatchMode):
    """What reaches the dispatcher."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        self.names.append(name)
        assert name not in WAITS, name
        if name in ("index", "index_put", "index_put_"):
            assert all(index is None or index.dtype != torch.bool for index in args[1]), "an index by a mask"
        return func(*args, **(kwargs or {}))
