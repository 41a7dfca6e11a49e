"""`sslbench power`: the table, what a difference takes, and its refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from sslbench.config.grid import load_grid
from sslbench.reporting.power import fewest_seeds, resolved, spreads_of
from sslbench.reporting.statistics import Components
from sslbench.reporting.tables import grid_report
from tests.helpers.command_line import call
from tests.helpers.results import CLASSES, RECIPE
from tests.helpers.run_directories import stand_ins, write_run, write_run_of_job

__all__ = ["stand_ins", "write_run"]


@pytest.fixture
def recipe(stand_ins: None, tmp_path: Path) -> str:
    path = tmp_path / "short.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return str(path)


def test_the_table_says_what_a_difference_takes() -> None:
    code, out, _ = call("power", "-d", "3", "--seeds", "3,5", "--patients", "6,20")
    assert code == 0
    assert "3 needs" in out and "too few patients for 3 points" in out


def test_json_has_the_numbers_unrounded() -> None:
    code, out, _ = call("power", "-d", "3", "--patients", "6", "--patients", "40", "--json")
    assert code == 0
    told = json.loads(out)
    assert told["patients"] == [6, 40]
    assert told["seeds_needed"] == [None, fewest_seeds([Components(2, 4, 3)], 3, 40)]
    assert sorted(told["detectable"]) == ["10", "2", "3", "5"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seeds", "1"], "--seeds 1: not a number of 2 or more"),
        (["--patients", "many"], "--patients many: not a number"),
        (["--seeds", "²"], "--seeds ²: not a number"),
        (["-d", "0"], "--difference is 0"),
        (["-d", "nan"], "--difference is nan"),
        (["-d", "inf"], "--difference is inf"),
        (["--sd-seeds", "inf"], "a standard deviation is not finite"),
        (["--sd-seeds", "0", "--sd-patients", "0", "--sd-rest", "0"], "without any spread"),
    ],
)
def test_nonsense_is_refused_in_a_line(arguments: list[str], said: str) -> None:
    code, _, err = call("power", *arguments)
    assert code == 2 and said in err


# ------------------------------------------------------------------------------------------------ from what there is


def test_spreads_of_a_grids_pairs(recipe: str, write_run: Callable[..., Path], tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    jobs = [{"method": ["cps", "mt"], "loss": ["default", "ga"]}]
    grid = tmp_path / "mine.yaml"
    content = {"recipe": recipe, "labeled": ["5%"], "seeds": [0, 1, 2], "jobs": jobs}
    grid.write_text(yaml.safe_dump(content))
    for job in load_grid(str(grid)).expand():
        values = np.clip(0.5 + 0.1 * (job.loss == "ga") + draw.normal(0, 0.03, (7, 3)), 0.01, 0.99)
        write_run_of_job(write_run, job, dict(zip(CLASSES, values.T.tolist(), strict=True)))
    places = ["--results-dir", str(tmp_path / "results")]
    code, out, _ = call("power", str(grid), "--json", "-d", "3", *places)
    assert code == 0
    told = json.loads(out)
    made = grid_report(load_grid(str(grid)), load_grid(str(grid)).expand(), tmp_path / "results")
    spreads = spreads_of([held.gain for held in made.tables[0].gains])
    assert told["pairs"] == len(spreads) == 2
    assert 7 in told["patients"]
    assert told["detectable"]["3"][told["patients"].index(7)] == pytest.approx(resolved(spreads, 3, 7))
    code, out, _ = call("power", str(grid), *places)
    assert code == 0 and out.startswith("2 pairs of ") and "medians: SD" in " ".join(out.split())
    code, _, err = call("power", str(grid), "--sd-rest", "2", *places)
    assert code == 2 and "--sd-rest and" in err
    code, out, _ = call("power", str(tmp_path / "results"), "--patients", "7", "--seeds", "3", "--json")
    assert code == 0 and json.loads(out)["detectable"]["3"] == [pytest.approx(resolved(spreads, 3, 7))]


def test_a_grid_without_pairs_is_refused(recipe: str, write_run: Callable[..., Path], tmp_path: Path) -> None:
    write_run(0.5, method="cps", seed=0)
    code, _, err = call("power", str(tmp_path / "results"))
    assert code == 2 and "has no pair of rows over two seeds" in err
