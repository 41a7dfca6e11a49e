"""Whether jobs fit into the memory of where they are to run, told before they start."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sslbench.config.job import Job, ResolvedJob
from sslbench.config.splits import load_splits
from sslbench.config.text import counted, gib
from sslbench.core.errors import UsageError
from sslbench.data.store import Store, partition
from sslbench.execution.memory import Counted, cell_of, needed, set_bytes, tallied
from sslbench.networks.precision import cudnn_fault, fast_bf16

SECONDS = 5.0  # that counting may take before a launch; what was counted is kept for the next one
# Bytes of a step for each byte of its patches, far above what any network of the recipes takes (300 to 2000): a launch
# on a CPU that has as many is not counted.
_PLENTY = 4000


@dataclass(frozen=True)
class Memory:
    """The memory of a device.

    Attributes:
        name: of the device, for people.
        total: bytes; of a CPU those that are free now.
    """

    name: str
    total: int


def memory_of(device: str) -> Memory | None:
    """Return the memory of `cpu`, `cuda` or `cuda:1`; None where the system does not say."""
    if device != "cpu":
        _, total = torch.cuda.mem_get_info(torch.device(device))
        return Memory(torch.cuda.get_device_name(device), total)
    _, free = memory_of_machine()
    return Memory("this machine", free) if free else None


def memory_of_machine() -> tuple[int, int]:
    """Total and available memory of this machine in bytes, a container's limit heeded; 0, 0 where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
        total, free = found["MemTotal"], found["MemAvailable"]
    except (OSError, KeyError, ValueError, IndexError):
        return 0, 0
    try:
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no container, or one without a limit
        return total, free
    return min(total, limit), min(free, max(limit - used, 0))


def arithmetic_on(resolved: ResolvedJob, device: str) -> Counted:
    """The arithmetic that a job would be counted in on a device: what `precision` of its recipe comes to there."""
    asked, dims = resolved.recipe.precision, len(resolved.recipe.patch_size)
    if asked != "auto":
        return "bf16" if asked == "bf16" else "fp32"
    place = torch.device(device)
    version = torch.backends.cudnn.version() if place.type == "cuda" else None
    return "bf16" if fast_bf16(place) and not cudnn_fault("bf16", dims, version) else "fp32"


def words_on_memory(
    jobs: Sequence[Job],
    stores: dict[tuple[str, str], Store],
    devices: Sequence[str],
    seconds: float = SECONDS,
) -> list[str]:
    """Tell where the jobs of a launch come close to the memory of its devices; nothing to tell gives no line.

    Each kind of job is counted once, on `meta` tensors, and what was counted is kept.

    Args:
        jobs: that would start.
        stores: their prepared data.
        devices: one per slot.
        seconds: for counting.

    Raises:
        UsageError: a job alone is larger than a GPU.
    """
    lines: list[str] = []
    for device in dict.fromkeys(devices):
        memory = memory_of(device)
        if memory is not None:
            lines += _words(jobs, stores, device, devices.count(device), memory, seconds)
    return list(dict.fromkeys(lines))


def _words(
    jobs: Sequence[Job],
    stores: dict[tuple[str, str], Store],
    device: str,
    beside: int,
    memory: Memory,
    seconds: float,
) -> list[str]:
    kind, begun, left_out, lines = device.partition(":")[0], time.monotonic(), 0, []
    sizes: dict[str, int] = {}
    for job in jobs:
        resolved = job.resolved
        data = _data(resolved, stores)
        key = f"{cell_of(resolved)}{data}"
        if key in sizes or (kind == "cpu" and _small(resolved, data) * beside < memory.total):
            continue
        if time.monotonic() - begun > seconds:
            left_out += 1
            sizes[key] = 0
            continue
        try:
            step = tallied(resolved, arithmetic_on(resolved, device)).peak
        except Exception:  # a method of a stranger may read values; its job may run all the same
            left_out += 1
            sizes[key] = 0
            continue
        sizes[key] = step + data
        told = f"{job.title}: {gib(step)} GiB for a step and {gib(data)} GiB for its training set"
        if step + data > memory.total:
            words = f"{told} do not fit into the {gib(memory.total)} GiB of {memory.name}"
            if kind != "cpu":
                raise UsageError(words, f"{_SMALLER}, another --device, or --device cpu")
            lines.append(f"{words}; {_SMALLER}")
        elif needed(step + data, kind) > memory.total:
            lines.append(f"{told} are close to the {gib(memory.total)} GiB of {memory.name}; {_SMALLER}")
    together = sum(needed(size, kind) for size in sorted(sizes.values(), reverse=True)[:1]) * beside
    if not lines and beside > 1 and together > memory.total:
        fewer = max(memory.total * beside // together, 1)
        has = f"the {gib(memory.total)} GiB of {memory.name}"
        lines.append(f"{beside} jobs at a time take up to {gib(together)} GiB of {has}: -j {fewer}")
    if left_out:
        kinds = counted(left_out, "kind") + " of jobs"
        lines.append(f"the memory of {kinds} was not counted: sslbench bench --memory takes the time")
    return lines


def jobs_per_card(jobs: Sequence[Job], stores: dict[tuple[str, str], Store], cards: Sequence[str]) -> int:
    """How many jobs may share each of these cards: as many of the largest as the smallest card has memory for, with
    what is set aside for each; one where a kind cannot be counted.

    Args:
        jobs: that would start.
        stores: their prepared data.
        cards: `cuda:0`, `cuda:1`.
    """
    memory = min(found.total for card in cards if (found := memory_of(card)))
    largest = 0
    for job in {cell_of(job.resolved): job for job in jobs}.values():
        try:
            step = tallied(job.resolved, arithmetic_on(job.resolved, cards[0])).peak
        except Exception:  # as above
            return 1
        largest = max(largest, needed(step + _data(job.resolved, stores), "cuda"))
    return max(memory // largest, 1) if largest else 1


_SMALLER = "smaller batches take less (--set batch.unlabeled=1), and so does --set precision=bf16 where it is fast"


def _small(resolved: ResolvedJob, data: int) -> int:
    """More than a job takes, without counting."""
    recipe = resolved.recipe
    voxels = 1
    for side in recipe.patch_size:
        voxels *= side
    return 4 * voxels * (recipe.batch.labeled + recipe.batch.unlabeled) * _PLENTY + data


def _data(resolved: ResolvedJob, stores: dict[tuple[str, str], Store]) -> int:
    recipe = resolved.recipe
    store = stores.get((recipe.dataset, recipe.preprocessing))
    if store is None:
        return 0
    return set_bytes(store, partition(store, load_splits(recipe.dataset, recipe.splits), resolved.job.labeled))
