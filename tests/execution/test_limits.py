"""Limits of a launch: its time, the first job that fails, a worker that hangs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sslbench.execution import local
from sslbench.runs.directory import Run
from tests.helpers.jobs import tiny_job


@dataclass
class FakeWorker:
    """Ends as its seed is told to: `finishes`, `fails`, `hangs`, or `works` on until it is asked to stop."""

    run: Run
    does: str
    pid: int = 0
    asked: list[str] = field(default_factory=list)
    steps: int = 0

    def waits(self) -> bool:
        return False

    def poll(self) -> int | None:
        if "kill" in self.asked:
            return -9
        if self.does in ("finishes", "fails"):
            self.run.set_status("finished" if self.does == "finishes" else "failed")
            return 0 if self.does == "finishes" else 1
        if self.does == "works":
            self.steps += 1
            (self.run.directory / "lease.json").write_text(f'{{"heartbeat": {self.steps}}}')
            if "stop" in self.asked:
                self.run.set_status("interrupted", error="state is saved")
                return local.INTERRUPTED_EXIT
        return None

    def stop(self) -> None:
        self.asked.append("stop")

    def kill(self) -> None:
        self.asked.append("kill")

    def last_words(self) -> str:
        return ""

    def close(self) -> None: ...


@dataclass
class FakeExecutor:
    """Workers by the seed of their job."""

    does: dict[int, str]
    started: list[int] = field(default_factory=list)

    def start(self, run: Run, device: str) -> FakeWorker:
        seed = run.load_job().seed
        self.started.append(seed)
        return FakeWorker(run, self.does[seed])


class Told:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def update(self, *_: object) -> None: ...

    def event(self, text: str) -> None:
        self.lines.append(text)


Launch = Callable[..., tuple[int, list[local.PlannedJob], FakeExecutor, str]]


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    """Launches one job per word, of seeds 0, 1, ..., two at a time: code, plan, executor, what was told."""
    monkeypatch.setattr(local, "POLL_S", 0.0)
    monkeypatch.setattr(Run, "look", lambda self: self.status().get("state", "pending"))
    monkeypatch.setattr(Run, "error", property(lambda self: self.status().get("error", "")))

    def launched(*does: str, **limits: Any) -> tuple[int, list[local.PlannedJob], FakeExecutor, str]:
        jobs = [tiny_job(seed=seed).canonical() for seed in range(len(does))]
        plan, executor, told = local.make_plan(jobs, tmp_path, {}), FakeExecutor(dict(enumerate(does))), Told()
        code = local.Launcher(plan, executor, ["cpu", "cpu"], told, local.Limits(**limits)).run()
        return code, plan, executor, "\n".join(told.lines)

    return launched


def test_when_its_time_is_over_a_launch_saves_what_runs_and_starts_nothing(launch: Launch) -> None:
    code, plan, executor, told = launch("works", "works", "finishes", hours=0.1 / 3600)
    assert code == local.TIME_OVER_EXIT == 124
    assert executor.started == [0, 1]
    assert [planned.outcome for planned in plan] == ["interrupted", "interrupted", None]
    assert "--max-hours are over: each job finishes its step and saves" in told and "goes on from here" in told


def test_time_that_is_enough_is_not_missed(launch: Launch) -> None:
    code, _, executor, told = launch("finishes", "finishes", "finishes", hours=1)
    assert (code, executor.started) == (0, [0, 1, 2]) and "over" not in told


def test_the_first_failure_ends_a_launch_in_order_where_that_is_asked_for(launch: Launch) -> None:
    code, plan, executor, told = launch("fails", "works", "finishes", fail_fast=True)
    assert (code, executor.started) == (1, [0, 1])
    assert [planned.outcome for planned in plan] == ["failed", "interrupted", None]
    assert "--fail-fast: " in told


def test_a_failure_ends_nothing_else_otherwise(launch: Launch) -> None:
    code, plan, _, _ = launch("fails", "finishes", "finishes")
    assert code == 1 and [planned.outcome for planned in plan] == ["failed", "finished", "finished"]


def test_a_worker_that_does_nothing_is_killed_and_its_job_failed_for_that(launch: Launch, tmp_path: Path) -> None:
    code, plan, _, _ = launch("hangs", "finishes", hung_after_s=0.05)
    assert code == 1 and [planned.outcome for planned in plan] == ["failed", "finished"]
    assert plan[0].reason.startswith("hung: nothing done for ") and plan[0].run.status()["error"] == plan[0].reason
    again = local.make_plan([plan[0].job], tmp_path, {}, retry_failed=True)
    assert again[0].runs and not local.make_plan([plan[0].job], tmp_path, {})[0].runs


def test_one_that_goes_on_slowly_is_not(launch: Launch) -> None:
    began = time.monotonic()
    code, plan, _, _ = launch("works", hours=0.3 / 3600, hung_after_s=0.2)
    assert code == local.TIME_OVER_EXIT and plan[0].outcome == "interrupted"
    assert time.monotonic() - began < 5


def test_a_table_fills_evenly(tmp_path: Path) -> None:
    jobs = [tiny_job(method, seed=seed).canonical() for method in ("supervised", "cps") for seed in (3, 1)]
    plan = local.make_plan(jobs, tmp_path, {})

    def order() -> list[tuple[str, int]]:
        return [(planned.job.method, planned.job.seed) for planned in local.by_seeds(plan)]

    assert order() == [("supervised", 3), ("cps", 3), ("supervised", 1), ("cps", 1)]
    plan[0].runs = False  # finished: the first seed of the other row still comes before a second one
    assert order() == [("cps", 3), ("supervised", 1), ("cps", 1)]


def test_cards_that_jobs_share() -> None:
    cards = ["cuda:0", "cuda:2"]
    assert local.card_slots(cards, 2) == ["cuda:0", "cuda:2", "cuda:0", "cuda:2"]
    assert local.card_slots(cards, 2, at_once=3) == ["cuda:0", "cuda:2", "cuda:0"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_what_slurm_sends_before_the_end_of_an_allocation_is_an_end_that_one_can_ask_for() -> None:
    import signal

    assert signal.SIGUSR1 in local.STOPS
