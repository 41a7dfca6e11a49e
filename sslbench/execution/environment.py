"""The environment of a worker process: its threads, its one card, and memory that stays with it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

# cuBLAS repeats with a workspace of fixed size alone, and reads this when it starts.
_CUBLAS_WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
VISIBLE = "CUDA_VISIBLE_DEVICES"
# How often a thread of torch's OpenMP looks for work before it sleeps: by default for milliseconds. Where another
# process has its core, the others burn theirs waiting. V-Net of the demo, 2 threads on 2 cores, wall seconds of a short
# job: alone 19 by default, 21 so, 24 with 1000; beside one busy process 358 by default, 61 so, 48 with 1000.
_SPINS = ("GOMP_SPINCOUNT", "10000")


def worker_environment(device: str, threads: int, own: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """The environment of a worker, and the device as it is called in there.

    A worker sees its own card alone: nothing of it can wait for, or open a context on, another one.

    Args:
        device: `cpu`, `cuda` or `cuda:1`, as this process counts cards.
        threads: on a CPU.
        own: this process's.
    """
    name, value = _CUBLAS_WORKSPACE
    made = {**own, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), name: own.get(name, value)}
    # A worker finds the modules that this process finds, as a spawned one would.
    made["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    if device == "cpu":
        # glibc hands buffers above 32 MiB back and the kernel clears them anew each step: a fifth of one in 3-D.
        made.setdefault("MALLOC_MMAP_MAX_", "0")
        made.setdefault("MALLOC_TRIM_THRESHOLD_", str(16 * 2**30))
        if "OMP_WAIT_POLICY" not in own:
            made.setdefault(*_SPINS)
        return made, device
    number = int(device.partition(":")[2] or 0)
    cards = [card.strip() for card in own.get(VISIBLE, "").split(",") if card.strip()]
    made[VISIBLE] = cards[number] if cards else str(number)
    return made, "cuda"
