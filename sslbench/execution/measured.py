"""What `sslbench bench` measured on this machine, kept beside what is worked out once (`settings.cache_dir`).

Estimates of time read it; no job does, and nothing that is computed depends on it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch

from sslbench.core import settings
from sslbench.core.errors import StorageError
from sslbench.core.files import read_json, write_text
from sslbench.runs.provenance import device_name

MEASURED = "measured.json"


@dataclass(frozen=True)
class MeasuredRate:
    """The operations that steps kept up on a device.

    Attributes:
        flop_per_second: of a whole card, or of a processor's `threads`.
        threads: of the measurement on a CPU; 0 on a card.
        date: of the measurement, ISO.
        cells: what was measured, as `sslbench bench --json` prints it.
    """

    flop_per_second: float
    threads: int
    date: str
    cells: Sequence[Mapping[str, Any]] = ()


def keep_measured(device: torch.device, flop_per_second: float, cells: Sequence[Mapping[str, Any]]) -> Path | None:
    """Keep a measurement of this process: for its device, torch and number of threads.

    Returns:
        The file; None where nothing is kept.
    """
    root = settings.cache_dir()
    if root is None:
        return None
    threads = torch.get_num_threads() if device.type == "cpu" else 0
    found = MeasuredRate(flop_per_second, threads, date.today().isoformat(), cells)
    path = root / MEASURED
    try:
        write_text(path, json.dumps({**_kept(), _key(device, threads): asdict(found)}, indent=1), sync=False)
    except (StorageError, OSError):
        return None
    return path


def measured_rate(device: torch.device) -> MeasuredRate | None:
    """Return the measurement of a device with this torch, on a CPU that of the fewest threads, which is nearest to how
    grids run; None where there is none."""
    if device.type == "cuda" and not torch.cuda.is_available():
        return None
    kept = _kept()
    for threads in range((os.cpu_count() or 1) + 1):
        try:
            entry = kept[_key(device, threads)]
            return MeasuredRate(
                float(entry["flop_per_second"]), threads, str(entry["date"]), tuple(entry.get("cells", ()))
            )
        except (KeyError, TypeError, ValueError):
            continue
    return None


def _key(device: torch.device, threads: int) -> str:
    return " | ".join((device_name(device), f"torch {torch.__version__}", f"threads {threads}"))


def _kept() -> dict[str, Any]:
    root = settings.cache_dir()
    try:
        found = read_json(root / MEASURED) if root else None
    except OSError:
        return {}
    return found if isinstance(found, dict) else {}
