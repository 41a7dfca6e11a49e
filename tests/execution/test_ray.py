"""Workers as tasks of Ray: what is asked of it, and a grid on a Ray of this machine, of which two processes die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sslbench.core.errors import UsageError
from sslbench.execution import ray
from sslbench.execution.executors import LocalWorkers
from sslbench.execution.ray import RayOptions, RayWorkers
from sslbench.runs.directory import Run
from tests.helpers.command_line import call
from tests.helpers.grids import cases_of, command, sslbench, write_grid
from tests.helpers.jobs import TINY

WORKERS = LocalWorkers(Path("data"), 1)


def test_what_a_job_takes_is_read() -> None:
    assert RayOptions.read([]) == RayOptions()
    assert RayOptions.read(["gpus=0.5,cpus=4", "address=ray://head:10001"]) == RayOptions(0.5, 4, 3, "ray://head:10001")
    assert RayOptions.read(["retries=0"]).retries == 0


@pytest.mark.parametrize("text", ["gpus=half", "gpus=-1", "retries=1.5", "address=", "memory=3", "cpus"])
def test_options_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError, match="says nothing to Ray"):
        RayOptions.read([text])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--ray", "gpus=1"), "add --executor ray"),
        (("--executor", "ray", "--per-gpu", "2"), "gpus=0.5 has two jobs share a card"),
        (("--executor", "ray", "--device", "cuda:1"), "Ray chooses the card"),
    ],
)
def test_what_does_not_go_together(words: tuple[str, ...], said: str, phantom_data: Path, tmp_path: Path) -> None:
    places = ("--data-dir", str(phantom_data), "--results-dir", str(tmp_path / "results"))
    code, _, err = call("run", "-r", "phantom", "--labeled", "20%", *words, *places)
    assert code == 2 and said in " ".join(err.split())


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'sslbench\[ray\]'"):
        RayWorkers(WORKERS, RayOptions())


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let Ray have such resources."""

    def having(**resources: float) -> None:
        fake = SimpleNamespace(cluster_resources=lambda: resources)
        monkeypatch.setattr(ray, "_connected", lambda address: fake)

    return having


def test_jobs_fill_a_cluster(cluster: Callable[..., None]) -> None:
    cluster(CPU=16.0, GPU=4.0)
    found = [RayWorkers(WORKERS, RayOptions(*shares), asked) for *shares, asked in ((None, 2, None), (0.5, 1, None))]
    assert [(workers.slots, workers.device) for workers in found] == [(4, "cuda"), (8, "cuda")]
    on_processors = RayWorkers(WORKERS, RayOptions(None, 4), "cpu")
    assert (on_processors.slots, on_processors.device) == (4, "cpu")
    cluster(CPU=2.0)
    assert RayWorkers(WORKERS, RayOptions()).slots == 2
    with pytest.raises(UsageError, match="a job takes 1 GPUs and 1 processors, all of Ray's cluster has 0 and 2"):
        RayWorkers(WORKERS, RayOptions(gpus=1))


def wait_for(found: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + 600
    while time.monotonic() < end:
        if answer := found():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"waited in vain until {what}")


def training(results: Path) -> list[Run]:
    """The runs that a worker trains, and has saved some state of."""
    runs = dict.fromkeys(Run(path.parents[1]) for path in results.glob("runs/**/checkpoints/step-*.pt"))
    begun = [run for run in runs if run.owner() and run.status()["state"] == "running"]
    return [run for run in begun if run.progress().get("stage") == "training"]


@pytest.mark.ray
def test_a_grid_on_ray_gives_what_it_gives_here(
    phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped once; then a worker is killed, and the task of another one."""
    if not find_spec("ray"):
        pytest.skip("Ray is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    grid = write_grid(tmp_path / "grid.yaml", set={**TINY, "schedule.iterations": 30, "schedule.validate_every": 15})
    words, here, there = ("run", "--grid", str(grid), "--device", "cpu"), tmp_path / "here", tmp_path / "there"
    done = sslbench(*words, "--threads", "1", data=phantom_data, results=here)
    assert done.returncode == 0, done.stderr

    monkeypatch.setenv("SSLBENCH_SAVE_EVERY", "0")
    line = command(*words, "--executor", "ray", "--ray", "address=local", "-j", "2", data=phantom_data, results=there)
    launcher = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    (run, *_) = wait_for(lambda: training(there), "a worker trains")
    launcher.terminate()
    told = launcher.communicate(timeout=300)[1]
    assert launcher.returncode == 128 + signal.SIGTERM and run.look() == "interrupted", told
    assert "state is saved" in run.error

    launcher = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    first = wait_for(lambda: training(there), "a worker trains")[0]
    begun = {first: first.status()["attempts"]}
    os.kill(first.owner()["pid"], signal.SIGKILL)
    second = wait_for(lambda: [run for run in training(there) if run != first], "the other one trains")[0]
    begun[second] = second.status()["attempts"]
    worker = second.owner()["pid"]
    task = int(Path(f"/proc/{worker}/stat").read_text().rpartition(") ")[2].split()[1])
    os.kill(task, signal.SIGKILL)
    told = launcher.communicate(timeout=600)[1]
    assert launcher.returncode == 0, told
    assert cases_of(there) == cases_of(here) and len(cases_of(here)) == 2
    assert all(run.status()["attempts"] > before for run, before in begun.items())
