"""What the trials of a tuned grid scored on validation patients, and what they chose.

Nothing here reads a record of a test: the score is that of `metrics.jsonl`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslbench.config.grid import Grid
from sslbench.config.tuning import Trial, folder_of
from sslbench.core.files import write_json
from sslbench.runs.directory import Run


@dataclass(frozen=True)
class ScoredTrial:
    """A trial with what became of it.

    Attributes:
        trial: which.
        score: mean validation DSC over its seeds, in [0, 1]; NaN where one failed or has none.
        ended: whether none of its runs is to come.
    """

    trial: Trial
    score: float
    ended: bool


def scored(trials: Sequence[Trial], results: Path) -> dict[str, list[ScoredTrial]]:
    """The trials of each row with their scores, in their order."""
    found: dict[str, list[ScoredTrial]] = {}
    for trial in trials:
        runs = [Run.of(job, results) for job in trial.jobs]
        states = [run.look() for run in runs]
        scores = [
            validation_score(run, job.resolved.recipe.checkpoint) if state == "finished" else math.nan
            for run, job, state in zip(runs, trial.jobs, states, strict=True)
        ]
        ended = all(state in ("finished", "failed") for state in states)
        found.setdefault(trial.row, []).append(ScoredTrial(trial, sum(scores) / len(scores), ended))
    return found


def winners(rows: Mapping[str, Sequence[ScoredTrial]]) -> dict[str, dict[str, Any]]:
    """The values of the best trial of each row whose trials have all ended, of several the first."""
    found = {}
    for row, trials in rows.items():
        known = [one for one in trials if not math.isnan(one.score)]
        if known and all(one.ended for one in trials):
            found[row] = dict(max(known, key=lambda one: one.score).trial.values)
    return found


def settled(grid: Grid, trials: Sequence[Trial], results: Path) -> Grid:
    """The grid with what its trials chose, row by row as far as they have ended."""
    if grid.tune is None or grid.chosen:
        return grid
    return grid.model_copy(update={"chosen": winners(scored(trials, results))})


def write_record(grid: Grid, trials: Sequence[Trial], results: Path) -> Path:
    """Write all trials with their values, scores and runs, and what they chose, as `tuning/<grid>.json`."""
    rows = scored(trials, results)
    chosen = winners(rows)
    content = {
        "grid": grid.name,
        "tune": grid.tune.model_dump(mode="json", exclude_none=True) if grid.tune else None,
        "rows": [
            {
                "row": row,
                "chosen": chosen.get(row),
                "trials": [
                    {
                        "trial": one.trial.number,
                        "values": dict(one.trial.values),
                        "score": None if math.isnan(one.score) else one.score,
                        "runs": [job.directory.as_posix() for job in one.trial.jobs],
                    }
                    for one in members
                ],
            }
            for row, members in rows.items()
        ],
    }
    path = results / folder_of(grid.name)
    write_json(path, content)
    return path


def validation_score(run: Run, checkpoint: str) -> float:
    """Mean validation DSC of the weights that a run tested, in [0, 1]: the best, or the last; NaN for none."""
    chosen = run.status().get("predictor")
    found: dict[int, float] = {}
    try:
        lines = run.metrics.read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.nan
    for line in lines:
        if '"validation"' not in line:
            continue
        try:
            entry = json.loads(line)
            scores, at = entry["validation"], int(entry["iteration"])
        except (ValueError, KeyError, TypeError):  # a line that a kill cut short
            continue
        names = [f"dsc/{chosen}", "dsc", *(name for name in scores if name.startswith("dsc/") and "class" not in name)]
        value = next((scores[name] for name in names if isinstance(scores.get(name), int | float)), math.nan)
        found[at] = float(value)
    known = {at: value for at, value in found.items() if not math.isnan(value)}
    if not known:
        return math.nan
    return known[max(known)] if checkpoint == "last" else max(known.values())
