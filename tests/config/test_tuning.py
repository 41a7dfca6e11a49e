"""Tuning as a part of a grid: the same trials for every row, and what `tune` may not name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sslbench.config.grid import Grid, load_grid
from sslbench.config.tuning import Tune, TuneRange, row_of
from sslbench.core.errors import UnknownNameError, UsageError

SPACE: dict[str, Any] = {
    "optimizer.lr": {"log": [0.001, 0.1]},
    "loss.gamma": {"uniform": [0.5, 1]},
}
LR = {"optimizer.lr": SPACE["optimizer.lr"]}


def grid_of(folder: Path, tune: dict[str, Any], **fields: Any) -> Grid:
    path = folder / "tuned.yaml"
    given = {"recipe": "ga-synapse", "labeled": ["20%"], "seeds": [0, 1]}
    jobs = [{"method": ["supervised", "cps"], "loss": ["default", "ga"]}]
    path.write_text(yaml.safe_dump({**given, "jobs": jobs, "tune": {"trials": 3, "space": SPACE, **tune}, **fields}))
    return load_grid(str(path))


def test_every_row_gets_the_same_number_of_trials(tmp_path: Path) -> None:
    grid = grid_of(tmp_path, {})
    rows = grid.rows()
    trials = grid.trials(rows)
    assert len(rows) == 8
    assert [trial.row for trial in trials] == [row for row in dict.fromkeys(map(row_of, rows)) for _ in range(3)]
    assert [trial.number for trial in trials] == [1, 2, 3] * 4
    assert {job.seed for trial in trials for job in trial.jobs} == {101}
    values = {trial.row.rpartition("/")[2]: [] for trial in trials}
    for trial in trials:
        values[trial.row.rpartition("/")[2]].append(trial.values)
        assert all(trial.jobs[0].resolved.values[path] == value for path, value in trial.values.items())
    assert values["cps+ga"] == values["supervised+ga"]
    assert [{*tried} for tried in values["cps+default"]] == [{"optimizer.lr"}] * 3
    assert [tried["optimizer.lr"] for tried in values["cps+default"]] == [
        tried["optimizer.lr"] for tried in values["cps+ga"]
    ]


def test_what_is_tried_is_for_ever() -> None:
    tune = Tune(trials=4, space={"optimizer.lr": TuneRange(log=(0.001, 0.1)), "method.x": [1, 2, 3]})
    first = [tune.values(trial, tune.space) for trial in range(1, 5)]
    assert first == [tune.values(trial, tune.space) for trial in range(1, 5)]
    assert first == PINNED
    assert all(0.001 <= tried["optimizer.lr"] <= 0.1 for tried in first)
    assert Tune(trials=4, seed=7, space=tune.space).values(1, tune.space) != first[0]


PINNED = [  # jobs are known by it
    {"optimizer.lr": 0.0227, "method.x": 2},
    {"optimizer.lr": 0.0698, "method.x": 3},
    {"optimizer.lr": 0.0306, "method.x": 3},
    {"optimizer.lr": 0.0016, "method.x": 3},
]


def test_ranges_are_even() -> None:
    tune = Tune(trials=1000, space={"optimizer.lr": TuneRange(log=(0.001, 0.1)), "loss.a": TuneRange(uniform=(2, 4))})
    tried = [tune.values(trial, tune.space) for trial in range(1, 1001)]
    for path, middle in (("optimizer.lr", 0.01), ("loss.a", 3)):
        assert 450 < sum(values[path] < middle for values in tried) < 550


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ({"space": {"seeds": [0, 1]}}, "`space` names seeds"),
        ({"space": {"splits": ["ga", "dhc-2024"]}}, "`space` names splits"),
        ({"space": {"schedule.iterations": [1, 2]}}, "`space` names schedule.iterations"),
        ({"space": {"checkpoint": ["last", "best-val"]}}, "`space` names checkpoint"),
        ({"space": {}}, "space"),
        ({"space": {"optimizer.lr": [0.1]}}, "fewer than two values"),
        ({"space": {"optimizer.lr": {"log": [0, 1]}}}, "logarithm"),
        ({"space": {"optimizer.lr": {"uniform": [1, 0]}}}, "upwards"),
        ({"space": {"optimizer.lr": {"uniform": [0, 1], "log": [1, 2]}}}, "a range is"),
        ({"trials": 0}, "trials"),
        ({"score": "test-dsc"}, "val-dsc"),
    ],
)
def test_a_space_of_other_things_is_refused(tmp_path: Path, tune: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        grid_of(tmp_path, tune)


@pytest.mark.parametrize(
    ("tune", "fields", "error", "message"),
    [
        ({"seeds": [1]}, {}, UsageError, "seed 1 is reported"),
        ({"seed": 0}, {}, UsageError, "seed 0 is reported"),
        ({}, {"recipe": "metassl-la", "labeled": ["8 scans"]}, UsageError, "no validation patients"),
        ({}, {"set": {"optimizer.lr": 0.3}}, UsageError, "optimizer.lr is tuned, and .* sets it"),
        ({"space": {"loss.gamma": [0.5, 1]}}, {}, UsageError, "names nothing that .*supervised.default has"),
        ({"space": {**SPACE, "loss.gama": [0, 1]}}, {}, UnknownNameError, "did you mean loss.gamma"),
    ],
)
def test_what_has_no_meaning_for_the_rows_is_refused(
    tmp_path: Path, tune: dict[str, Any], fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    grid = grid_of(tmp_path, tune, **fields)
    with pytest.raises(error, match=message):
        grid.trials(grid.rows())


def test_what_is_varied_is_not_tuned(tmp_path: Path) -> None:
    jobs = [{"method": "cps", "loss": "ga", "vary": {"loss.gamma": [0.25, 0.5]}}]
    grid = grid_of(tmp_path, {}, jobs=jobs)
    with pytest.raises(UsageError, match=r"loss\.gamma is tuned"):
        grid.trials(grid.rows())


def test_reported_jobs_have_what_was_chosen(tmp_path: Path) -> None:
    grid = grid_of(tmp_path, {"space": LR}, jobs=[{"method": ["supervised", "cps"]}])
    with pytest.raises(UsageError, match="the trials of 2 of 2 rows have not ended"):
        grid.expand()
    chosen = {row_of(job): {"optimizer.lr": 0.02} for job in grid.rows()}
    jobs = grid.model_copy(update={"chosen": chosen}).expand()
    assert [(job.method, job.seed, job.set) for job in jobs] == [
        (method, seed, {"optimizer.lr": 0.02}) for method in ("supervised", "cps") for seed in (0, 1)
    ]
    assert not {job.directory for job in jobs} & {job.directory for job in grid.rows()}
    assert jobs[0].resolved.layers["optimizer.lr"] == "tuning of tuned"


def test_draws_are_tuned_on_the_first(tmp_path: Path) -> None:
    grid = grid_of(
        tmp_path, {"seeds": [7, 8], "space": LR}, jobs=[{"method": "cps"}], labeled=[{"share": "20%", "draws": 3}]
    )
    rows = grid.rows()
    trials = grid.trials(rows)
    assert {trial.row for trial in trials} == {"ga-synapse/20pct-draws/cps+default"}
    assert {job.labeled for trial in trials for job in trial.jobs} == {"20pct-draw-1"}
    assert [len(trial.jobs) for trial in trials] == [2, 2, 2]
    jobs = grid.model_copy(update={"chosen": {trials[0].row: dict(trials[0].values)}}).expand()
    assert {job.labeled for job in jobs} == {f"20pct-draw-{draw}" for draw in (1, 2, 3)}
    assert len({job.directory.parts[2] for job in jobs}) == 1
