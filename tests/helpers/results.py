"""Stand-ins of components that a table names, and `cases.csv` with known numbers."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel

from sslbench.core.options import NoOptions
from sslbench.metrics.protocol import EmptyPolicy, Protocol
from sslbench.runs.records import CASE_COLUMNS

CLASSES = ("rv", "myo", "lv")

# A recipe of the stand-ins.
RECIPE = {
    "dataset": "hearts",
    "preprocessing": "plain",
    "splits": "ssl4mis",
    "network": {"name": "net"},
    "patch_size": [8, 8],
    "batch": {"labeled": 1, "unlabeled": 1},
    "optimizer": {"name": "sgd", "lr": 0.01},
    "schedule": {"iterations": 10, "validate_every": 5},
    "checkpoint": "best-val",
    "protocol": "papers",
    "seeds": [0, 1],
}


def component(title: str = "", group: str = "", options: type[BaseModel] = NoOptions, caution: str = "") -> Any:
    return SimpleNamespace(
        title=title,
        group=group,
        caution=caution,
        Options=options,
        version=1,
        defaults={},
        views={},
        objection=lambda job: None,
        dims=2,
        divisor=1,
        several=False,
        fit=lambda options, patch_size: options,
    )


def protocol(name: str, ddof: int, unit: Any = "mm") -> Protocol:
    return Protocol(
        name, 1, "", "original", unit, ("dsc", "asd"), EmptyPolicy(missed_distance=9.0, spurious_distance=9.0), ddof
    )


Scores = Mapping[str, Sequence[float | None]]


def case_rows(scores: Scores, protocol: str = "papers", unit: str = "voxel") -> list[list[Any]]:
    """Rows of `cases.csv`: DSC as given (0: a missed structure; None: absent, excluded), ASD 10 (1 - DSC)."""
    rows = []
    for case in range(max(map(len, scores.values()))):
        for class_id, name in enumerate(CLASSES, 1):
            dsc = scores[name][case]
            state = "absent" if dsc is None else "both" if dsc else "missed"
            voxels = [0 if dsc is None else 50, 50 if dsc else 0]
            asd = None if dsc is None else 10 * (1 - dsc)
            for metric, value, of in (("dsc", dsc, "fraction"), ("asd", asd, unit)):
                text = "" if value is None else repr(float(value))
                rows.append(
                    [protocol, f"{case + 1:04d}", f"{case + 1:04d}", class_id, name, metric, text, of, state, *voxels]
                )
    return rows


def write_cases(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CASE_COLUMNS)
        writer.writerows(rows)


def same(dsc: float | None, cases: int = 2) -> Scores:
    return {name: [dsc] * cases for name in CLASSES}
