"""Every reader of a run directory says of the same damage the same state for the same reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

from sslbench.config.job import Job
from sslbench.core.errors import SSLBenchError
from sslbench.execution.trained import load_trained
from sslbench.runs.collect import collect
from sslbench.runs.directory import Run
from tests.helpers.command_line import call
from tests.helpers.jobs import tiny_job
from tests.helpers.owners import start_owner


def die(run: Run) -> None:
    process = start_owner(run.directory)
    process.kill()
    process.wait()


def rename(run: Run) -> None:
    """Another job's directory gets this one's name."""
    config = yaml.safe_load(run.config.read_text())
    run.config.write_text(yaml.safe_dump({**config, "job": {**config["job"], "seed": 9}}))


def lose_status(run: Run) -> None:
    run.status_file.unlink()
    run.log.write_text("2026-01-01T00:00:00+0000 INFO loading\n")


def cut_short(run: Run) -> None:
    run.cases.write_text(run.cases.read_text()[:-9])


@dataclass(frozen=True)
class Kind:
    """A kind of damage: how to do it, and what every reader has to say."""

    damage: Callable[[Run], None]
    state: str
    file: str
    why: str


KINDS = {
    "no config": Kind(lambda run: run.config.unlink(), "damaged", "config.yaml", "is missing"),
    "no status": Kind(lose_status, "interrupted", "status.json", "is missing, or cannot be read"),
    "no records": Kind(lambda run: run.cases.unlink(), "damaged", "cases.csv", "is missing"),
    "truncated records": Kind(
        cut_short,
        "damaged",
        "cases.csv",
        "has a row that is cut short",
    ),
    "renamed": Kind(rename, "damaged", "seed-0-", "is not what its config.yaml says: it holds another job (seed 9"),
    "dead process": Kind(die, "interrupted", "", "its process died"),
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A finished run of a grid, with the records of one case."""
    run = Run.of(the_job(), tmp_path / "results")
    run.write_config(the_job())
    run.set_status("finished", attempts=1)
    header = "protocol,case,class_id,class,metric,value,unit,state,ref_voxels,pred_voxels"
    rows = [f"native,0004,1,sp,{metric},0.5,{unit},both,10,10" for metric, unit in (("dsc", "fraction"), ("asd", "mm"))]
    run.cases.write_text("\n".join([header, *rows]) + "\n")
    assert run.state == "finished"
    return run


def the_job() -> Job:
    return tiny_job("supervised", seed=0).canonical()


def grid_of(folder: Path) -> str:
    job = the_job()
    content = {"recipe": "phantom", "labeled": ["20%"], "seeds": [0], "set": dict(job.set)}
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump({**content, "jobs": [{"method": job.method, "loss": job.loss}]}))
    return str(path)


@pytest.mark.parametrize("kind", KINDS)
def test_every_reader_says_the_same(kind: str, run: Run, tmp_path: Path) -> None:
    expected, grid = KINDS[kind], grid_of(tmp_path)
    places = ("--results-dir", str(tmp_path / "results"), "--data-dir", str(tmp_path / "data"))
    expected.damage(run)

    def agrees(text: str, where: str) -> None:
        words = " ".join(text.split())
        for word in (expected.state, expected.file, expected.why):
            assert word in words, f"{where}: no {word!r} in {words}"

    # status: every run there is, and those of a grid
    for names in ((), (grid,)):
        code, out, err = call("status", *names, "--json", *places)
        (row,) = json.loads(out)["runs"]
        assert code == 0 and row["state"] == expected.state, err
        agrees(f"{row['state']} {row['error']}", "status")
    code, out, _ = call("status", *places)
    agrees(out, "status on a terminal")

    # report: the run as it was collected, and what stands beside the table
    code, out, err = call("report", grid, *places)
    if kind == "renamed":
        agrees(err, "report")
        with pytest.raises(SSLBenchError, match="holds another job") as raised:
            collect(tmp_path / "results")
        assert code == 1
        agrees(str(raised.value), "report")
    else:
        found = collect(tmp_path / "results")
        assert code == (1 if expected.state == "damaged" else 2) and found.records.empty
        assert [(one.state, one.error) for one in found.runs] == [(row["state"], row["error"])]
        assert f"1 of 1 runs have no result (1 {expected.state})" in " ".join(err.split())
        assert not out
        if expected.state == "damaged":
            agrees(err, "report")

    # evaluate: the run alone
    code, _, err = call("evaluate", str(run.directory), *places)
    assert code in (1, 2)
    agrees(err, "evaluate")

    # predict
    with pytest.raises(SSLBenchError) as refused:
        load_trained(Run(run.directory), torch.device("cpu"))
    agrees(str(refused.value), "predict")

    # the plan of a launch: what can be made again is, and what may be another job's stops it
    code, out, err = call("run", "--grid", grid, "--dry-run", "--json", *places)
    if expected.file in ("config.yaml", "seed-0-"):
        assert code == 1 and not out
        agrees(err, "plan")
        code, out, err = call("run", "--grid", grid, "--dry-run", "--json", "--force", *places)
    (job,) = json.loads(out)["jobs"]
    assert code == 0 and job["state"] == expected.state and job["action"] == "continue"
    agrees(f"{job['state']} {job['reason']}", "plan")
