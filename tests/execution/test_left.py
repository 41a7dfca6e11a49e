"""What is left of jobs: by steps of their configuration, by prices where there are none, by whoever is free next."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sslbench.config.job import Job
from sslbench.execution import left
from sslbench.execution.cost import Bill, Pricer
from sslbench.execution.left import Course, Forecast
from sslbench.runs.directory import Run, State
from tests.helpers.jobs import phantom_job


def course(state: State, seed: int = 0, cell: str = "cps+ga", **facts: Any) -> Course:
    run = Run(Path(f"results/runs/phantom/20pct/{cell}/seed-{seed}-01234567"))
    status = {name: facts.pop(name) for name in ("training_seconds", "test_seconds") if name in facts}
    return Course(run, state, status, facts)


DONE = {"training_seconds": 1000.0, "test_seconds": 60.0, "iteration": 500, "iterations": 500}


def test_seeds_take_as_long_as_the_finished_one() -> None:
    half = course("interrupted", 1, iteration=250, iterations=500, it_per_s=100.0)
    courses = [course("finished", 0, **DONE), half, course("pending", 2)]
    forecast = Forecast(Path("results"))
    assert forecast.price(courses, 0)
    found = forecast.left(courses)
    assert [each.seconds for each in found.each.values()] == [pytest.approx(62.5), pytest.approx(1060)]
    assert (found.jobs, found.measured, found.lanes) == (2, 2, 1) and found.seconds == pytest.approx(1122.5)
    assert found.facts()["seconds"] == found.seconds
    assert Forecast(Path("results"), lanes=2).left(courses).seconds == pytest.approx(1060)


def test_a_running_job_goes_on_as_it_went() -> None:
    """Its own pace, validation included, before what its last ten iterations say."""
    running = course("running", iteration=100, iterations=500, it_per_s=10.0, s_per_it=0.5)
    assert running.share == pytest.approx(0.2)
    assert Forecast(Path("results")).left([running]).seconds == pytest.approx(200)
    testing = course("running", 1, **{**DONE, "stage": "testing", "case": 3, "cases": 4, "it_per_s": 1.0})
    courses = [course("finished", **DONE), testing]
    assert Forecast(Path("results")).left(courses).seconds == pytest.approx(60 / 4)


@pytest.mark.parametrize(
    ("running", "waiting", "lanes", "seconds"),
    [([], [], 2, 0), ([5], [], 1, 5), ([5, 1], [3, 3], 2, 7), ([], [1, 1, 10], 2, 11), ([4, 4, 4], [2], 1, 6)],
)
def test_whoever_is_free_takes_the_next(running: list[float], waiting: list[float], lanes: int, seconds: float) -> None:
    assert left._until_the_last(running, waiting, lanes) == seconds


def test_what_is_over_is_not_left_and_what_is_not_known_is_said() -> None:
    forecast = Forecast(Path("results"))
    assert forecast.left([course("finished", **DONE), course("failed", 1)]).seconds == 0
    forecast._prices[course("pending").configuration] = left._UNKNOWN
    found = forecast.left([course("pending")])
    assert (found.seconds, found.unknown, found.jobs) == (None, 1, 1)


def test_a_job_without_steps_is_priced_at_the_rate_of_those_that_have_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flops = {"supervised": 1e14, "cps": 2e14}

    def add(self: Pricer, bill: Bill, job: Job) -> None:
        bill.flop, bill.modelled = flops[job.method], 1

    monkeypatch.setattr(Pricer, "add", add)
    cps, plain = phantom_job("cps"), phantom_job("supervised")
    courses = [
        Course(Run.of(plain, tmp_path), "running", {}, {"iteration": 180, "iterations": 360, "s_per_it": 2.0}, plain),
        Course(Run.of(cps, tmp_path), "pending", {}, {}, cps),
    ]
    forecast = Forecast(tmp_path, lanes=2, device="cpu")
    assert not forecast.price(courses, at_most=1)  # the job itself; then the one that is held against it
    assert forecast.price(courses, at_most=1)
    assert forecast.price(courses, at_most=0)
    found = forecast.left(courses)
    assert (found.measured, found.modelled, found.assumed) == (1, 1, False)
    assert found.each[courses[1].run].seconds == pytest.approx(2 * 720)
    assert found.seconds == pytest.approx(found.each[courses[1].run].seconds)

    alone = Forecast(tmp_path, lanes=2, device="cpu")
    assert alone.price(courses[1:])
    found = alone.left(courses[1:])
    rate = Pricer(tmp_path, torch.device("cpu")).rate[0]
    assert found.assumed and found.seconds == pytest.approx(
        flops["cps"] / rate * 2
    )  # the two lanes share the processor


def test_what_finished_runs_of_its_kind_measured_goes_before_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(self: Pricer, bill: Bill, job: Job) -> None:
        bill.flop, bill.seconds, bill.measured = 1e14, 548.0, 1

    monkeypatch.setattr(Pricer, "add", add)
    job = phantom_job()
    courses = [Course(Run.of(job, tmp_path), "pending", {}, {}, job)]
    forecast = Forecast(tmp_path, device="cpu")
    assert forecast.price(courses)
    assert forecast.left(courses).each[courses[0].run] == left.JobLeft(548.0, "measured")


def test_nothing_heavy_is_imported_to_tell_what_is_left() -> None:
    code = "import sys, sslbench.execution.left, sslbench.cli.status; assert not {'torch', 'pandas'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
