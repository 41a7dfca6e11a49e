"""Twenty kills at random moments: whatever dies, running again ends with the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from sslbench.runs.directory import Run
from tests.helpers.grids import cases_of, command, sslbench, write_grid
from tests.helpers.jobs import TINY

KILLS = 20


@pytest.mark.slow
def test_twenty_random_kills_change_no_byte(
    phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Launcher or worker, SIGKILL or SIGTERM, at a seeded random moment or in the middle of a checkpoint write."""
    jobs = [{"method": ["supervised", "mt", "cps"], "loss": ["default", "ga"]}]
    longer = {"schedule.iterations": 40, "schedule.validate_every": 4}
    grid = write_grid(tmp_path / "kills.yaml", jobs=jobs, set={**TINY, **longer})
    calm, storm = tmp_path / "calm", tmp_path / "storm"
    done = sslbench("run", "--grid", str(grid), data=phantom_data, results=calm)
    assert done.returncode == 0, done.stderr

    monkeypatch.setenv("SSLBENCH_SAVE_EVERY", "0.2")  # some validations of a job are between two checkpoints
    dice, struck = random.Random(0), {"launcher": 0, "worker": 0, "while writing": 0}
    line = command("run", "--grid", str(grid), data=phantom_data, results=storm)
    while sum(struck.values()) < KILLS:
        launcher = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        kind = dice.choice(list(struck))
        number = dice.choice([signal.SIGKILL, signal.SIGTERM])
        if strike(kind, number, launcher, storm, dice):
            struck[kind] += 1
        elif launcher.poll() == 0:
            break  # nothing was left to kill
        launcher.kill()
        launcher.wait()
        for path in storm.glob(
            "runs/**/lease.json"
        ):  # orphans of a killed launcher work on: end them too, now and then
            owner = Run(path.parent).owner()
            if owner and dice.random() < 0.7:
                os.kill(owner["pid"], signal.SIGKILL)
    done = sslbench("run", "--grid", str(grid), data=phantom_data, results=storm)
    assert done.returncode == 0, done.stderr
    assert sum(struck.values()) >= KILLS, struck
    assert cases_of(storm) == cases_of(calm)
    assert len(cases_of(calm)) == 6
    assert not list(storm.glob("runs/**/.writing-*.csv"))


def strike(kind: str, number: int, launcher: subprocess.Popen, results: Path, dice: random.Random) -> bool:
    """Send a signal to what `kind` says once there is something to hit; whether it was sent."""
    pause, end = dice.uniform(0.0, 2.0), time.monotonic() + 60
    while time.monotonic() < end and launcher.poll() is None:
        for run in (Run(path.parent) for path in results.glob("runs/**/lease.json")):
            writing = list(run.checkpoints.glob(".writing-*")) if run.checkpoints.exists() else []
            owner = run.owner()
            if not owner or not owner.get("pid") or (kind == "while writing" and not writing):
                continue
            if kind != "while writing":
                time.sleep(pause)
            try:
                os.kill(launcher.pid if kind == "launcher" else owner["pid"], number)
            except ProcessLookupError:
                continue
            time.sleep(0.1)
            return True
        time.sleep(0.002 if kind == "while writing" else 0.05)
    return False
