"""Sinks of training records: what they do is their own concern; TensorBoard goes on where a run goes on."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sslbench.core import settings
from sslbench.core.errors import UsageError
from sslbench.execution import sinks
from sslbench.execution.sinks import SINKS, Queued, checked_sink, scalars
from sslbench.execution.worker import run_job
from sslbench.runs.directory import Run
from sslbench.training import trainer
from sslbench.training.trainer import Interrupted
from tests.helpers.command_line import call
from tests.helpers.jobs import tiny_job


class Keeping:
    """A sink that keeps what it is handed."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    def rewind(self, iteration: int) -> None:
        self.got.append(iteration)

    def record(self, entry: Mapping[str, Any], moment: float) -> None:
        self.got.append(dict(entry))

    def close(self) -> None:
        self.got.append("closed")


class Raising(Keeping):
    def record(self, entry: Mapping[str, Any], moment: float) -> None:
        raise SystemExit("no [space]\nleft")


class Hanging(Keeping):
    def record(self, entry: Mapping[str, Any], moment: float) -> None:
        threading.Event().wait()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "CLOSE_S", 0.2)


def test_a_sink_takes_all_in_order() -> None:
    sink, warned = Keeping(), list[str]()
    copies = Queued(lambda: sink, warned.append, "mine")
    entry = {"iteration": 10, "loss": 0.5}
    copies.rewind(0)
    copies.record(entry)
    entry["iteration"] = 20  # the trainer's own from here on
    copies.close()
    assert sink.got == [0, {"iteration": 10, "loss": 0.5}, "closed"] and not warned


@pytest.mark.parametrize("make", [Raising, lambda: 1 / 0], ids=["in a record", "when made"])
def test_a_sink_that_raises_is_off_with_a_line(make: Any) -> None:
    warned = list[str]()
    copies = Queued(make, warned.append, "mine")
    for iteration in range(5000):
        copies.record({"iteration": iteration})
    copies.close()
    assert len(warned) == 1 and warned[0].startswith("sink mine is off: ") and "\n" not in warned[0]
    assert "SystemExit: no [space] left" in warned[0] or "ZeroDivisionError" in warned[0]


def test_a_sink_that_hangs_drops_and_holds_nobody_up() -> None:
    warned = list[str]()
    copies, begun = Queued(Hanging, warned.append, "mine", queued=10), time.monotonic()
    for iteration in range(100):
        copies.record({"iteration": iteration})
    copies.close()
    assert time.monotonic() - begun < 5
    (line,) = warned
    assert line.startswith("sink mine was not done 0.2 s after the training; ") and "records were dropped" in line
    copies.record({"iteration": 100})


def test_numbers_are_named_by_their_path() -> None:
    validation = {"iteration": 3, "validation": {"dsc": 0.5, "dsc/class": {"sp": 0.25, "li": None}}}
    assert list(scalars(validation)) == [("validation/dsc", 0.5), ("validation/dsc/class/sp", 0.25)]
    observed = {"iteration": 3, "observed": {"case": "0004", "agreement": {"a/b": {"dsc": 0.5}}}}
    assert list(scalars(observed)) == [("observed/0004/agreement/a/b/dsc", 0.5)]


# --------------------------------------------------------------------------------------------------------- real runs


def left_by(run: Run) -> Iterator[tuple[str, Any]]:
    """All files of a run but for the sink's own, without the times in them."""
    for path in sorted(run.directory.rglob("*")):
        name, content = str(path.relative_to(run.directory)), path.read_bytes() if path.is_file() else b""
        if run.events in (path, *path.parents) or path in (run.log, run.status_file, run.progress_file):
            continue
        if path == run.metrics:
            timed = ("time", "it_per_s")
            records = [json.loads(line) for line in content.splitlines()]
            yield name, [{key: value for key, value in entry.items() if key not in timed} for entry in records]
        elif "checkpoints" not in path.parts and name != "lease.json":
            yield name, content
        else:
            yield name, None


@pytest.fixture(scope="module")
def without(phantom_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Any]]:
    """What a tiny run leaves that has no sink."""
    return [*left_by(Run(run_job(tiny_job(), phantom_data, tmp_path_factory.mktemp("none"), "cpu", 1)))]


@pytest.mark.parametrize("sink", [Keeping, Raising, Hanging])
def test_a_run_leaves_the_same_bytes_with_any_sink(
    sink: type[Keeping], without: Any, phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Keeping] = []
    monkeypatch.setitem(SINKS, "mine", (lambda folder: made.append(sink()) or made[0], "json"))  # type: ignore[arg-type,index]
    run = Run(run_job(tiny_job(), phantom_data, tmp_path, "cpu", 1, sink="mine"))
    assert run.state == "finished" and dict(left_by(run)) == dict(without)
    log = run.log.read_text()
    assert log.count("WARNING") == (sink is not Keeping)
    if sink is Keeping:
        iterations = [entry["iteration"] for entry in made[0].got[1:-1]]
        records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
        assert made[0].got[0] == 0 and iterations == [entry["iteration"] for entry in records]


def test_tensorboard_goes_on_in_its_folder_where_a_run_goes_on(
    without: Any, phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(sinks, "CLOSE_S", 60.0)
    monkeypatch.setattr(trainer, "LOG_EVERY", 1)
    asked = iter([False] * 4 + [True])
    with pytest.raises(Interrupted):
        run_job(tiny_job(), phantom_data, tmp_path, "cpu", 1, lambda: next(asked), sink="tensorboard")
    run = Run(run_job(tiny_job(), phantom_data, tmp_path, "cpu", 1, sink="tensorboard"))
    assert len([*run.events.iterdir()]) == 2 and "WARNING" not in run.log.read_text()
    events = EventAccumulator(str(run.events)).Reload()
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    losses = {entry["iteration"]: entry["loss"] for entry in records if "loss" in entry}
    assert sorted(losses) == [1, 2, 3, 4, 5, 6]
    assert {event.step: event.value for event in events.Scalars("loss")} == pytest.approx(losses)
    assert [event.step for event in events.Scalars("validation/dsc")] == [3, 6]
    assert dict(left_by(run))["cases.csv"] == dict(without)["cases.csv"]


# ------------------------------------------------------------------------------------------------ how one is chosen


def test_an_option_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.sink() is None
    monkeypatch.setenv("SSLBENCH_SINK", "tensorboard")
    assert settings.sink() == "tensorboard" and settings.sink("none") is None


def test_a_sink_that_is_not_there_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = call("run", "-r", "phantom", "-m", "cps", "--labeled", "20%", "--sink", "tensorbord")
    assert code == 2 and "did you mean tensorboard" in err.replace("'", "")
    monkeypatch.setitem(SINKS, "tensorboard", (SINKS["tensorboard"][0], "no_such_package"))  # type: ignore[index]
    with pytest.raises(UsageError, match="needs the package no_such_package") as refused:
        checked_sink("tensorboard")
    assert refused.value.hint == "pip install 'sslbench[tensorboard]'"
