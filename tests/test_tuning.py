"""What trials scored, which was chosen, and a table of tuned rows."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml

from sslbench.cli.options import Choice
from sslbench.config.grid import Grid, load_grid
from sslbench.config.tuning import Trial, row_of
from sslbench.core.errors import UsageError
from sslbench.core.files import write_json
from sslbench.reporting.manifest import grid_in, manifest_of
from sslbench.reporting.tables import grid_report
from sslbench.runs.directory import Run
from sslbench.runs.tuning import scored, settled, validation_score, winners, write_record
from tests.helpers.jobs import phantom_job, tiny_job
from tests.helpers.results import write_cases

CHOICE = Choice()


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    path = tmp_path / "tuned.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "recipe": "phantom",
                "labeled": "20%",
                "seeds": [0, 1],
                "jobs": [{"method": ["supervised", "mt"]}],
                "tune": {"trials": 3, "seeds": [7, 8], "space": {"optimizer.lr": {"log": [0.001, 0.1]}}},
                "table": {"columns": ["dsc", "gain"]},
            }
        )
    )
    return load_grid(str(path))


def ended(job: object, results: Path, score: float | None, state: str = "finished", dsc: float = 0.5) -> None:
    """Write the run of a job as a worker leaves it."""
    run = Run.of(job, results)  # type: ignore[arg-type]
    run.write_config(job)  # type: ignore[arg-type]
    write_json(run.status_file, {"state": state, "error": ""})
    lines = (
        [{"iteration": 5, "validation": {"dsc": score}}, {"iteration": 10, "validation": {"dsc": score / 2}}]
        if score
        else []
    )
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if state == "finished":
        rows = [
            ["native", f"{n}", f"{n}", 1, "sp", "dsc", repr(dsc + n / 100), "fraction", "both", 9, 9] for n in range(6)
        ]
        write_cases(run.cases, rows)


def finish(trials: list[Trial], results: Path) -> None:
    """Trial 2 is the best on validation, and the worst on test."""
    for trial in trials:
        for job in trial.jobs:
            ended(job, results, {1: 0.4, 2: 0.8, 3: 0.6}[trial.number], dsc={1: 0.5, 2: 0.1, 3: 0.6}[trial.number])


def test_the_best_on_validation_is_chosen(grid: Grid, tmp_path: Path) -> None:
    results = tmp_path / "results"
    trials = grid.trials(grid.rows())
    assert len(trials) == 6
    assert settled(grid, trials, results).chosen == {}
    finish(trials, results)
    chosen = settled(grid, trials, results).chosen
    assert chosen == {trial.row: dict(trial.values) for trial in trials if trial.number == 2}
    path = write_record(grid, trials, results)
    record = json.loads(path.read_text())
    assert path == results / "tuning/tuned.json"
    assert [row["chosen"] for row in record["rows"]] == [chosen[row["row"]] for row in record["rows"]]
    assert [trial["score"] for trial in record["rows"][0]["trials"]] == pytest.approx([0.4, 0.8, 0.6])
    assert all((results / "runs" / run).is_dir() for trial in record["rows"][0]["trials"] for run in trial["runs"])


def test_rows_whose_long_names_begin_alike_are_tuned_apart(grid: Grid) -> None:
    long = {
        "batch.labeled": 2,
        "batch.unlabeled": 2,
        "inference.stride": [16] * 3,
        "inference.validation_stride": [16] * 3,
    }
    jobs = [
        tiny_job("mt", set={**long, "schedule.validate_every": every}, labeled=labeled).canonical()
        for every in (2, 3)
        for labeled in ("20%", "40%")
    ]
    assert len({job.directory.parent for job in jobs}) == 2 and len(set(map(row_of, jobs))) == 4
    assert row_of(jobs[0]) == row_of(jobs[0].reseeded(5))
    short = tiny_job("mt").canonical()
    plain = phantom_job("mt", **{"batch.labeled": 2})
    assert row_of(plain) == plain.directory.parent.as_posix() and short.directory.parent.as_posix() != row_of(short)


def test_a_failed_trial_is_not_chosen_and_an_open_one_is_waited_for(grid: Grid, tmp_path: Path) -> None:
    results = tmp_path / "results"
    trials = grid.trials(grid.rows())
    first = [trial for trial in trials if trial.row == trials[0].row]
    for trial in first:
        for job in trial.jobs:
            ended(job, results, 0.9 if trial.number == 2 else 0.5, "failed" if trial.number == 2 else "finished")
    rows = scored(trials, results)
    assert [math.isnan(one.score) for one in rows[trials[0].row]] == [False, True, False]
    assert winners(rows) == {trials[0].row: dict(first[0].values)}  # a tie: the first; the other row's are to come
    with pytest.raises(UsageError, match=r"the trials of 1 of 2 rows have not ended.*mt\+default"):
        settled(grid, trials, results).expand()


def test_the_score_is_of_the_weights_that_are_tested(grid: Grid, tmp_path: Path) -> None:
    job = grid.rows()[0]
    ended(job, tmp_path, 0.8)
    run = Run.of(job, tmp_path)
    assert validation_score(run, "best-val") == 0.8
    assert validation_score(run, "last") == 0.4
    with run.metrics.open("a") as file:
        file.write('{"iteration": 15, "validation": {"ds')
    assert validation_score(run, "last") == 0.4
    run.metrics.unlink()
    assert math.isnan(validation_score(run, "last"))


def test_a_table_of_tuned_rows_says_so(grid: Grid, tmp_path: Path) -> None:
    results = tmp_path / "results"
    finish(grid.trials(grid.rows()), results)
    ready = CHOICE.settled(grid, results)
    for job in CHOICE.jobs(ready):
        ended(job, results, 0.7, dsc=0.6 if job.method == "mt" else 0.5)
    report = grid_report(ready, CHOICE.jobs(ready), results)
    (table,) = report.tables
    assert [row.label for row in table.rows] == ["Supervised", "MT"]
    assert table.gains[0].gain.difference == pytest.approx(
        10
    )  # held against the reference, whatever both were tuned to
    (lr,) = {values["optimizer.lr"] for values in ready.chosen.values()}
    assert any("3 random trials on the validation patients" in note for note in table.notes)
    assert f"Chosen: Supervised optimizer.lr={lr}; MT optimizer.lr={lr}." in table.notes
    assert table.rows[1].first.variant == f"optimizer.lr={lr}"
    assert {run.rpartition("/seed-")[2][0] for row in table.rows for run in row.runs} == {"0", "1"}
    # A manifest has what was chosen, so that a bundle needs no trials.
    kept = grid_in(manifest_of(report, "sslbench report"))
    assert kept is not None
    assert [job.directory for job in kept.expand()] == [job.directory for job in CHOICE.jobs(ready)]
