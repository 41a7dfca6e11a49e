"""The per-case records of a run: what stands in `cases.csv`, and where those of other protocols lie."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sslbench.files import atomic_path

# What `cases.csv` holds, in this order: one row per case × class × metric.
CASE_COLUMNS = (
    "protocol", "case", "class_id", "class", "metric", "value", "unit", "state", "ref_voxels", "pred_voxels",
)  # fmt: skip


def cases_file(run: Path, protocol: str | None = None) -> Path:
    """The records in a run directory: those of the job itself, or those that `evaluate` made under a protocol."""
    return run / (f"cases-{protocol}.csv" if protocol else "cases.csv")


def write_cases(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records whole or not at all.

    Stable order, no times: the same records give the same bytes. Floats keep all their digits; an excluded value (nan)
    is empty.
    """
    with atomic_path(path) as aside, aside.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, CASE_COLUMNS, lineterminator="\n")
        table.writeheader()
        for record in records:
            value = float(record["value"])
            table.writerow({**record, "value": "" if math.isnan(value) else repr(value)})
