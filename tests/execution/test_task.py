"""A task of a submission: queued again where its time was over and something was saved; never in a circle."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from sslbench.core.errors import UsageError
from sslbench.core.files import write_json
from sslbench.execution import slurm
from sslbench.execution.local import Launcher
from sslbench.runs.directory import Run
from tests.helpers.jobs import tiny_job

JOB = tiny_job().canonical()


class Told:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def update(self, *_: object) -> None: ...

    def event(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def task(phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, list, str]]:
    """Runs a task of one job, whose launcher does as told and ends with a code: code, calls of Slurm, what was told."""
    run = Run.of(JOB, tmp_path)
    run.write_config(JOB)
    settings = slurm.TaskSettings(str(phantom_data), str(tmp_path), "cpu", 1, 1)
    write_json(tmp_path / "tasks.json", {"settings": asdict(settings), "tasks": [[run.name]]})
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(slurm, "_slurm", lambda *words: calls.append(words) or "")

    def ran(does: Callable[[Run], object], code: int) -> tuple[int, list, str]:
        def launch(launcher: Launcher) -> int:
            assert launcher.devices == ["cpu"]
            does(launcher.plan[0].run)
            return code

        monkeypatch.setattr(Launcher, "run", launch)
        told = Told()
        return slurm.run_task(tmp_path, 0, told), calls, " ".join(told.lines)

    return ran


def saves(run: Run) -> None:
    run.checkpoints.mkdir(exist_ok=True)
    (run.checkpoints / f"step-{len(run.saved()):08d}.pt").write_bytes(b"state")


OVER = 128 + signal.SIGUSR1


def test_a_task_whose_time_is_over_is_queued_again_as_long_as_it_gets_on(task) -> None:
    for times in (1, 2):
        code, calls, told = task(saves, OVER)
        assert code == OVER and calls == [("scontrol", "requeue", "7_0")] * times and "queued again" in told
    _, calls, told = task(lambda run: None, OVER)
    assert len(calls) == 2 and "before anything was saved" in told


@pytest.mark.parametrize("code", [0, 1, 128 + signal.SIGTERM])
def test_a_task_that_ends_or_is_cancelled_is_not(task, code: int) -> None:
    assert task(saves, code)[:2] == (code, [])


def test_what_is_no_submission_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no submission"):
        slurm.run_task(tmp_path, 0, Told())
