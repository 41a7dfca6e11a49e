"""A grid on a real Slurm of one node, which the tests start: submitted, cancelled, requeued, and as it is here.

`pytest -m slurm -s` shows what a user sees.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sslbench.runs.directory import Run, runs_below
from tests.helpers.command_line import call
from tests.helpers.grids import cases_of, write_grid
from tests.helpers.jobs import TINY
from tests.helpers.slurm import Cluster, cluster, why_not

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(why_not()), reason=f"no Slurm: {why_not()}")]

# Long enough to be met while they train.
LONG = {**TINY, "schedule.iterations": 400, "schedule.validate_every": 200}


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    with cluster() as started, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", started.environment["SLURM_CONF"])
        yield started


def wait_for(found: Callable[[], object], what: str, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.2)


class Shell:
    """Commands in this process, shown as a user sees them."""

    def __init__(self, data: Path, results: Path) -> None:
        self.places = ("--data-dir", str(data), "--results-dir", str(results))

    def __call__(self, *words: str, code: int = 0) -> str:
        ended, out, err = call(*words, *self.places)
        print(f"\n$ sslbench {' '.join(words)}\n{out}{err}", end="")
        assert ended == code, err
        return out + err


def trains(run: Run) -> bool:
    return run.progress().get("stage") == "training" and int(run.progress().get("iteration") or 0) > 0


def test_a_grid_on_slurm_gives_what_it_gives_here(slurm: Cluster, phantom_data: Path, tmp_path: Path) -> None:
    grid, results = (
        str(write_grid(tmp_path / "g.yaml", set=LONG, seeds=[0, 1], jobs=[{"method": ["supervised", "cps"]}])),
        tmp_path / "there",
    )
    shell = Shell(phantom_data, results)
    asked = ("run", "--grid", grid, "--executor", "slurm", "--slurm", "partition=short,time=30")
    assert "sbatch --parsable" in shell(*asked, "--dry-run")
    assert "submitted 4 jobs in 4 tasks: Slurm array 1" in shell(*asked, "--no-wait")
    runs = {run.submission()["task"]: run for run in runs_below(results / "runs")}
    assert sorted(runs) == ["1_0", "1_1", "1_2", "1_3"]
    assert "Slurm has 4 jobs of these already" in shell(*asked, "--no-wait")  # nothing is submitted twice

    wait_for(lambda: trains(runs["1_0"]) and trains(runs["1_1"]), "two tasks train")
    told = json.loads(shell("status", grid, "--json"))["runs"]
    assert sorted(row["state"] for row in told) == ["queued", "queued", "running", "running"]
    assert {row["slurm"]["state"] for row in told} == {"PENDING", "RUNNING"}
    shell("status", grid)

    # What Slurm sends before the end of an allocation. Told to by hand, it sends again after 5 s, though it arrived.
    with slurm.begin("scancel", "--batch", "--signal=USR1", "1_0") as signalling:
        wait_for(lambda: "stopping: " in log_of(runs["1_0"]), "the task has heard", 30)
        signalling.kill()
    seed = runs["1_1"].load_job()
    told = shell("cancel", grid, "--only", f"method={seed.method}", "--seed", str(seed.seed))
    assert "cancelled 1 task, 1 of them running" in told
    wait_for(lambda: runs["1_1"].look() == "interrupted", "the cancelled task has saved")
    assert "state is saved" in runs["1_1"].error
    wait_for(lambda: "queued again" in log_of(runs["1_0"]), "the task told of its end is queued again")
    wait_for(lambda: slurm.states()["1_1"] == "CANCELLED", "Slurm has ended it")
    shown = shell("status", grid)
    assert "Slurm's task 1_1 ended: CANCELLED" in " ".join(shown.split()) and "queued" in shown

    slurm.restart_node()
    said = shell(*asked)  # takes up the cancelled one, and waits for all
    assert "submitted 1 job in 1 task" in said and "4 finished" in said
    assert runs["1_0"].status()["attempts"] == runs["1_1"].status()["attempts"] == 2
    assert (runs["1_0"].directory / "slurm.log").read_text() == log_of(runs["1_0"])
    assert log_of(runs["1_0"]).count("continues on cpu") == 1

    here = Shell(phantom_data, tmp_path / "here")
    here("run", "--grid", grid, "-j", "1", "--threads", "1", "--device", "cpu")
    assert cases_of(results) == cases_of(tmp_path / "here") and len(cases_of(results)) == 4
    tables = [shell("report", grid, "--markdown"), here("report", grid, "--markdown")]
    assert [line for line in tables[0].splitlines() if "|" in line] == [
        line for line in tables[1].splitlines() if "|" in line
    ]


def log_of(run: Run) -> str:
    log = Path(run.submission()["log"])
    return log.read_text() if log.exists() else ""


def test_the_end_of_an_allocation_is_a_pause(slurm: Cluster, phantom_data: Path, tmp_path: Path) -> None:
    """Two jobs one after another in an allocation of three minutes, of which the first alone takes more."""
    endless = {**LONG, "schedule.iterations": 100_000, "schedule.validate_every": 100_000}
    grid = str(write_grid(tmp_path / "endless.yaml", set=endless, seeds=[0, 1], jobs=[{"method": "supervised"}]))
    shell = Shell(phantom_data, tmp_path / "there")
    asked = "partition=short,time=3,jobs_per_task=2,grace=60"
    shell("run", "--grid", grid, "--executor", "slurm", "--slurm", asked, "--no-wait")
    first, second = runs_below(tmp_path / "there" / "runs")
    task = first.submission()["task"]
    wait_for(lambda: "queued again" in log_of(first), "its time is over", 300)
    wait_for(lambda: slurm.states()[task] in ("PENDING", "RUNNING"), "it is queued again")
    assert first.saved() and not second.saved()
    assert "2 queued" in shell("status", grid) or slurm.states()[task] == "RUNNING"
    print(log_of(first))
    assert "cancelled 1 task" in shell("cancel")
    wait_for(lambda: slurm.states()[task] == "CANCELLED", "it is cancelled")
    assert first.look() == "interrupted"
