"""The two ends of the gap and a baseline by name on the command line, and what a launch will resolve."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from sslbench.cli.listing import plan_resolution
from sslbench.config.grid import Grid, load_grid
from sslbench.reporting.gains import planned
from sslbench.reporting.tables import grid_report
from tests.helpers.command_line import call
from tests.helpers.results import CLASSES, RECIPE
from tests.helpers.run_directories import stand_ins, write_run, write_run_of_job

__all__ = ["stand_ins", "write_run"]


@pytest.fixture
def grid(stand_ins: None, write_run: Callable[..., Path], tmp_path: Path) -> str:
    """A grid without supervised training, and results of it and of that."""
    recipe = tmp_path / "short.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    path = tmp_path / "mine.yaml"
    jobs = [{"method": ["cps", "mt"], "loss": ["default", "ga"]}]
    content = {"recipe": str(recipe), "labeled": ["5%"], "seeds": [0, 1, 2], "jobs": jobs}
    path.write_text(yaml.safe_dump(content | {"table": {"columns": ["dsc"]}}))
    draw = np.random.default_rng(0)
    for job in load_grid(str(path)).with_references().expand():
        level = 0.4 + 0.1 * (job.loss == "ga") - 0.1 * (job.method == "supervised") + 0.4 * (job.labeled[0] != "3")
        values = np.clip(level + draw.normal(0, 0.02, (7, 3)), 0.01, 0.99)
        write_run_of_job(write_run, job, dict(zip(CLASSES, values.T.tolist(), strict=True)))
    return str(path)


def told(*arguments: str) -> Any:
    code, out, err = call("report", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_references_join_where_they_are_asked_for(grid: str, tmp_path: Path) -> None:
    places = ["--results-dir", str(tmp_path / "results")]
    (plain,) = told(grid, *places)
    assert plain["standing"][0]["gap"] is None and len(plain["runs"]) == 12
    (whole,) = told(grid, "--with-references", *places)
    assert len(whole["runs"]) == 18
    assert whole["standing"][0]["gap"]["from"] == "Supervised"
    assert any("rows close:" in note for note in whole["notes"])
    assert {held["baseline"] for held in whole["gains"]} == {"Supervised", "CPS", "MT"}
    code, _, err = call("report", "--with-references", *places)
    assert code == 2 and "--with-references needs the name of a grid" in err


def test_a_baseline_by_name(grid: str, tmp_path: Path) -> None:
    places = ["--results-dir", str(tmp_path / "results")]
    (table,) = told(grid, "--baseline", "cps+ga", *places)
    assert {held["baseline"] for held in table["gains"]} == {"GA-CPS"}
    code, _, err = call("report", grid, "--baseline", "dhc", *places)
    assert code == 2 and "unknown baseline 'dhc+default'" in err
    (table,) = told(str(tmp_path / "results"), "--baseline", "mt")
    assert {held["baseline"] for held in table["gains"]} == {"MT"}


def test_a_launch_says_what_it_will_resolve(grid: str, tmp_path: Path) -> None:
    made: Grid = load_grid(grid)
    jobs = made.expand()
    plan: Any = [SimpleNamespace(job=job, state="finished") for job in jobs]
    found = plan_resolution(plan, tmp_path / "results", made)
    gains = [held.gain for held in grid_report(made, jobs, tmp_path / "results").tables[0].gains]
    assert found is not None and found["pairs"] == 2 and found["unit"] == "points"
    assert found["points"] == {"3": planned(gains, 3), "5": planned(gains, 5)}
    waiting: Any = [SimpleNamespace(job=job, state="pending") for job in jobs]
    assert plan_resolution(waiting, tmp_path / "results", made) is None
