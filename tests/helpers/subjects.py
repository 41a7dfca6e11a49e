"""Subjects of figures with known numbers, without any run on disk, and runs that recorded their training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sslbench.reporting.figures.subject import FigureRow, FigureSubject
from sslbench.reporting.gains import CaseValues, Lens, family, gain
from sslbench.runs.directory import Run

CLASSES = ("li", "sp", "st", "ao", "ga", "rag")
SIZES = {"li": 170_000.0, "st": 40_000.0, "sp": 30_000.0, "ao": 9_000.0, "ga": 3_000.0, "rag": 450.0}


def entry(label: str, values: np.ndarray, classes: Sequence[str] = CLASSES, **changes: Any) -> FigureRow:
    """A row with values (S, I, C); each case is a patient."""
    seeds, count, _ = values.shape
    cases = tuple(f"c{number}" for number in range(count))
    found = CaseValues(tuple(range(seeds)), cases, cases, tuple(classes), values)
    given = {"family": ("r", "20pct", label.lower(), "default", ""), "settings": {}, **changes}
    return FigureRow(label=label, values=found, **given)


def subject(
    rows: Sequence[FigureRow],
    baselines: Mapping[str, str] | None = None,
    sizes: Mapping[str, float] = SIZES,
    **changes: Any,
) -> FigureSubject:
    """A table of these rows with the gains over their baselines."""
    known = {row.label: row for row in rows}
    below = dict(baselines or {})
    lens = Lens.by_size(sizes)
    gains = family({label: gain(known[label].values, known[base].values, lens) for label, base in below.items()})
    given: dict[str, Any] = {"name": "t", "title": "T", "metric": "DSC", "unit": "%", "direction": "up", **changes}
    return FigureSubject(rows=tuple(rows), lens=Lens.by_size(sizes), baselines=below, gains=gains, **given)


def example(rows: int = 4, seeds: int = 3, cases: int = 7, **changes: Any) -> FigureSubject:
    """Pairs of rows of which the second gains, small structures most; one class is absent from one case."""
    draw = np.random.default_rng(0)
    case = draw.normal(0, 5, (1, cases, len(CLASSES)))
    tail = np.log10(170_000) - np.log10([SIZES[name] for name in CLASSES])
    made = []
    for number in range(rows):
        values = 50 + 3 * number + (number % 2) * 3 * tail + case + draw.normal(0, 1, (seeds, cases, len(CLASSES)))
        values[:, 0, 4] = np.nan
        made.append(entry(f"{'GA-' if number % 2 else ''}M{number // 2}", values))
    return subject(made, {f"GA-M{n}": f"M{n}" for n in range(rows // 2)}, **changes)


def recorded(folder: Path, seed: int, lines: Sequence[Mapping[str, Any]], **status: Any) -> Run:
    """A finished run with a record of its training."""
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "status.json").write_text(json.dumps({"state": "finished", **status}))
    return Run.of_records(folder, folder.name, {"labeled": "20pct", "seed": seed}, "d" * 64, {})
