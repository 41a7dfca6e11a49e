"""Reports of phantom runs with chosen numbers, for tests of what is drawn of them: nothing is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from sslbench.config.grid import load_grid
from sslbench.config.job import Job
from sslbench.core import registry
from sslbench.core.files import write_json
from sslbench.reporting.report import Report
from sslbench.reporting.tables import grid_report
from sslbench.runs.directory import Run
from tests.helpers.results import write_cases

GRID = {
    "description": "<b>four</b> rows & three seeds",
    "recipe": "phantom",
    "labeled": ["20%"],
    "seeds": [0, 1, 2],
    "jobs": [{"method": ["supervised", "mt"], "loss": ["default", "ga"]}],
    "table": {"columns": ["dsc", "asd", "dsc/class"]},
}


def phantom_report(folder: Path, cases: int = 6, losses: dict[str, float] | None = None) -> Report:
    """A report of four rows and three seeds, the rows with GA better, one structure absent from a case.

    Args:
        folder: to write the grid and the runs to.
        cases: of the test set.
        losses: points of DSC on top, by loss; default: 6 for GA.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "four.yaml"
    path.write_text(yaml.safe_dump(GRID))
    grid = load_grid(str(path))
    draw = np.random.default_rng(0)
    jobs = grid.expand()
    for job in jobs:
        _write(job, folder / "results", cases, draw, (losses or {"ga": 6.0}).get(job.loss, 0.0))
    return grid_report(grid, jobs, folder / "results")


def _write(job: Job, results: Path, cases: int, draw: np.random.Generator, more: float) -> None:
    run = Run.of(job, results)
    run.write_config(job)
    write_json(run.status_file, {"state": "finished", "error": ""})
    classes = registry.component("dataset", "phantom").classes
    rows = []
    for case in range(cases):
        for number, info in enumerate(classes, 1):
            dsc = float(np.clip(60 + more - 3 * number + case + draw.normal(0, 1.5), 0, 99)) / 100
            absent = number == 4 and case == 1
            state, voxels = ("absent", 0) if absent else ("both", 7000 // number**2)
            for metric, value, unit in (("dsc", dsc, "fraction"), ("asd", 20 * (1 - dsc), "mm")):
                text = "" if absent else repr(value)
                name = f"{case:04d}"
                rows.append(["native", name, name, number, info.short, metric, text, unit, state, voxels, voxels])
    write_cases(run.cases, rows)
