"""Slots of the launcher: a job that has only scores left to count gives its GPU to the next one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sslbench.execution import local
from sslbench.runs.directory import Run

TRAINS, SCORES = 2, 6  # looks of the launcher


class FakeRun(Run):
    """A run that stands where its worker says."""

    stands: Any = "pending"
    error = ""  # type: ignore[assignment]

    def look(self) -> Any:
        return self.stands

    def write_config(self, job: object) -> None: ...


class FakeWorker:
    """Trains for some looks of the launcher, then scores for some."""

    log: list[str] = []
    pids = count(1000)

    def __init__(self, run: FakeRun, device: str) -> None:
        self.run, self.pid, self.looks = run, next(self.pids), 0
        self.say(f"begins on {device}")

    def say(self, text: str) -> None:
        self.log.append(f"{self.run.directory.name} {text}")

    def waits(self) -> bool:
        return False

    def poll(self) -> int | None:
        self.looks += 1
        if self.looks == TRAINS:
            self.say("scores")
            self.run.set_progress(stage=local.SCORING, process=self.pid)
        if self.looks < TRAINS + SCORES:
            return None
        self.say("ends")
        self.run.stands = "finished"  # type: ignore[attr-defined]
        return 0

    def last_words(self) -> str:
        return ""

    def close(self) -> None: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...


Launch = Callable[..., list[str]]


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    """Launches jobs `a`, `b`, `c` and gives what happened."""
    monkeypatch.setattr(local, "POLL_S", 0)
    monkeypatch.setattr(local, "LOOK_S", 0)

    def launched(*devices: str, alone: str = "") -> list[str]:
        FakeWorker.log.clear()
        plan = []
        for name in "abc":
            (tmp_path / name).mkdir()
            run, job = FakeRun(tmp_path / name), SimpleNamespace(title=name)
            run.set_progress(stage=local.SCORING, process=1)  # of an earlier worker
            plan.append(local.PlannedJob(job, run, "pending", True, alone=name == alone))  # type: ignore[arg-type]
        display = SimpleNamespace(update=lambda *_: None, event=lambda _: None)
        assert local.Launcher(plan, SimpleNamespace(start=FakeWorker), list(devices), display).run() == 0
        return list(FakeWorker.log)

    return launched


def test_the_next_job_begins_on_a_gpu_whose_last_prediction_is_out(launch: Launch) -> None:
    log = launch("cuda:0")
    assert log[:4] == ["a begins on cuda:0", "a scores", "b begins on cuda:0", "b scores"]
    # One at a time scores beside the job that has the slot: the third waits for the first to end.
    assert log[4:6] == ["a ends", "c begins on cuda:0"]
    assert sorted(log[6:]) == ["b ends", "c ends", "c scores"]


def test_a_processor_is_not_shared_with_the_scores_of_the_job_before(launch: Launch) -> None:
    log = launch("cpu")
    assert log == [f"{name} {what}" for name in "abc" for what in ("begins on cpu", "scores", "ends")]


def test_a_job_that_has_to_be_alone_waits_for_scores_too(launch: Launch) -> None:
    log = launch("cuda:0", "cuda:1", alone="c")
    assert log.index("c begins on cuda:0") > max(log.index("a ends"), log.index("b ends"))
