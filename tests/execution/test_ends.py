"""Ends that nobody planned: a closed terminal, a launcher that is killed, a disk that takes no more."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sslbench.runs.directory import Run
from tests.helpers.command_line import call
from tests.helpers.grids import command, write_grid
from tests.helpers.jobs import TINY

ENDLESS = {**TINY, "schedule.iterations": 100_000, "schedule.validate_every": 100_000}


def wait_for(found: Callable[[], object], what: str) -> None:
    for _ in range(1200):
        if found():
            return
        time.sleep(0.05)
    raise AssertionError(f"waited in vain until {what}")


def ignore_hangup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))


@pytest.fixture(scope="module")
def place(phantom_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The command that runs one job, which does not end by itself, and its results folder: the tests follow on."""
    folder = tmp_path_factory.mktemp("ends")
    grid = write_grid(folder / "endless.yaml", jobs=[{"method": "supervised"}], set=ENDLESS)
    return command("run", "--grid", str(grid), data=phantom_data, results=folder / "results"), folder / "results"


def the_run(results: Path) -> Run | None:
    return next((Run(path.parent) for path in results.glob("runs/**/config.yaml")), None)


def wait_for_training(results: Path, times: int) -> Run:
    """The run, once it has begun to train so many times."""

    def trains() -> bool:
        run = the_run(results)
        return bool(run and run.owner() and run.log.exists() and run.log.read_text().count(" threads") == times)

    wait_for(trains, "it trains")
    run = the_run(results)
    assert run is not None
    return run


def test_a_hangup_that_is_ignored_ends_nothing_and_a_worker_outlives_no_launcher(place, phantom_data: Path) -> None:
    line, results = place
    launcher = subprocess.Popen(line, stderr=subprocess.DEVNULL, preexec_fn=ignore_hangup)
    try:
        run = wait_for_training(results, 1)
        worker = run.owner()["pid"]
        for process in (launcher.pid, worker):
            os.kill(process, signal.SIGHUP)
        places = ("--results-dir", str(results), "--data-dir", str(phantom_data))
        (row,) = json.loads(call("status", "--json", *places)[1])["runs"]
        assert row["state"] == "running" and row["process"] == {"host": socket.gethostname(), "pid": worker}
        assert f"process {worker} on {socket.gethostname()}" in call("status", *places)[1]
        assert launcher.poll() is None and run.owner()["pid"] == worker
    finally:
        launcher.kill()
        launcher.wait()
    wait_for(lambda: run.owner() is None, "the worker has noticed")
    assert run.look() == "interrupted"
    assert "state is saved" in run.error and f"its launcher, process {launcher.pid}, had died" in run.error
    assert list(run.checkpoints.glob("step-*.pt"))


def test_a_closed_terminal_interrupts_in_order(place) -> None:
    line, results = place
    master, slave = pty.openpty()
    launcher = subprocess.Popen(line, stdout=slave, stderr=slave, stdin=slave)
    os.close(slave)
    try:
        run = wait_for_training(results, 2)
        os.close(master)  # what is written from now on is an error of the system
        launcher.send_signal(signal.SIGHUP)
        assert launcher.wait(60) == 128 + signal.SIGHUP
    finally:
        launcher.kill()
    assert run.owner() is None and run.look() == "interrupted" and "state is saved" in run.error


def test_a_full_disk_interrupts_with_its_folder_and_loses_nothing(place) -> None:
    line, results = place
    run = the_run(results)
    kept = {path.name: path.read_bytes() for path in run.checkpoints.glob("step-*.pt")}
    assert kept
    launcher = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, preexec_fn=limit_files)
    try:
        wait_for_training(results, 3)
        os.kill(run.owner()["pid"], signal.SIGTERM)  # it saves
        told = launcher.communicate(timeout=60)[1]
    finally:
        launcher.kill()
    assert launcher.returncode == 1
    assert f"interrupted: {run.checkpoints}: cannot write step-" in " ".join(told.split()) and "File too large" in told
    assert "Traceback" not in told and "bug" not in told
    assert run.look() == "interrupted" and str(run.checkpoints) in run.error
    assert {path.name: path.read_bytes() for path in run.checkpoints.glob("step-*.pt")} == kept
    assert not list(run.checkpoints.glob(".writing-*"))
