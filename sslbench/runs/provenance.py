"""The provenance of a result: versions, hardware, code state, hashes of data and splits."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import sslbench
from sslbench.config.job import ResolvedJob
from sslbench.config.splits import Splits, load_splits
from sslbench.core.version import code_state
from sslbench.data.store import Partition, Store, absent_classes, lacking

if TYPE_CHECKING:
    from sslbench.networks.precision import Precision

_PACKAGES = ("torch", "monai", "numpy", "scipy", "pandas", "nibabel", "SimpleITK", "pydantic")


def describe(resolved: ResolvedJob, store: Store, partition: Partition, precision: Precision) -> dict[str, Any]:
    """The provenance record of a run (JSON-able)."""
    splits = load_splits(resolved.recipe.dataset, resolved.recipe.splits)
    return {
        "sslbench": sslbench.__version__,
        "code": code_state(),
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in _PACKAGES},
        "host": platform.node(),
        "platform": platform.platform(),
        "device": device_name(precision.device),
        "threads": torch.get_num_threads(),
        "precision": {"used": precision.name, "because": precision.reason, "channels_last": precision.channels_last},
        "gpu": gpu_facts(precision.device),
        "data": data_record(store),
        "splits": split_record(splits, resolved.job.labeled, store, partition),
    }


def split_record(splits: Splits, labeled: str, store: Store, partition: Partition) -> dict[str, Any]:
    """Record the case lists of a run under a label budget, and what of them is not held."""
    lists = {"labeled": splits.budget(labeled).labeled, "validation": splits.val, "test": splits.test}
    lacks = {part: lacking(store, entries) for part, entries in lists.items()}
    return {
        "name": splits.name,
        "hash": splits.fingerprint(labeled),
        "leaks": splits.leaks,
        **{part: len(getattr(partition, part)) for part in ("labeled", "unlabeled", "validation", "test")},
        "unseen": absent_classes(store.dataset, [store.cases[case] for case in partition.labeled]),
        "lacking": {part: len(missing) for part, missing in lacks.items() if missing},
    }


def machine(precision: Precision) -> dict[str, Any]:
    """What decides the rounding of a training: `kind` of device (cpu, cuda), the GPU as `card` (None on a CPU), the
    `processor`, `precision`, and the versions of `torch` and `cudnn`."""
    on_gpu = precision.device.type == "cuda"
    return {
        "kind": precision.device.type,
        "card": device_name(precision.device) if on_gpu else None,
        "processor": device_name(torch.device("cpu")),
        "precision": precision.name,
        "torch": str(torch.__version__),
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
    }


def gpu_facts(device: torch.device) -> dict[str, Any] | None:
    """What a result on a GPU depends on beside its card's name; None on a CPU."""
    if device.type != "cuda":
        return None
    properties = torch.cuda.get_device_properties(device)
    return {
        "memory": properties.total_memory,
        "capability": [properties.major, properties.minor],
        "driver": nvidia_driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32": {"cudnn": torch.backends.cudnn.allow_tf32, "matmul": torch.backends.cuda.matmul.allow_tf32},
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    }


def nvidia_driver() -> str | None:
    """The version of the NVIDIA driver as the kernel tells it; None where it does not."""
    try:
        first = Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
    except (OSError, IndexError):
        return None
    return next((word for word in first.split() if word[:1].isdigit() and "." in word), None)


def data_record(store: Store) -> dict[str, Any]:
    """Record the prepared data of a run: enough to tell that they changed, and what a table made on them has to say."""
    preprocessing = store.dataset.preprocessings[store.preprocessing]
    return {
        "dataset": store.dataset.name,
        "preprocessing": store.preprocessing,
        "cropped_by_label": preprocessing.crop is not None,
        "form": store.form.name,
        "preprocessed_by": store.form.title if store.form.done else "",
        "spacing": store.spacing,
        "fingerprint": store.fingerprint,
        "found": len(store.cases),
        "official": store.official,
    }


def device_name(device: torch.device) -> str:
    """The device for people: the card's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model} ({os.cpu_count()} cores)"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
