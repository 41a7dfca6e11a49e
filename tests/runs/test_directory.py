"""A run directory: who holds it, and what its files say of it."""

from __future__ import annotations

import ast
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

import sslbench
from sslbench.runs.directory import Busy, Run, runs_below
from tests.helpers.owners import start_owner

Write = Callable[..., Path]


def test_a_killed_process_leaves_a_run_that_another_takes_over(write_run: Write) -> None:
    run = Run(write_run(state="interrupted"))
    process = start_owner(run.directory)
    try:
        owner = run.owner()
        assert owner is not None and owner["pid"] == process.pid
        assert (run.look(), run.error) == ("running", "")
        with pytest.raises(Busy), run.lease():
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run.owner() is None
    assert run.look() == "interrupted" and "its process died" in run.error
    with run.lease():
        owner = run.owner()
        assert owner is not None and owner["pid"] == os.getpid()


def test_a_lease_ends_with_the_work_also_where_that_fails(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with pytest.raises(RuntimeError), run.lease():
        raise RuntimeError("the job")
    assert json.loads((run.directory / "lease.json").read_text()) == {}
    with run.lease():
        pass


def test_where_nothing_can_be_locked_the_heartbeat_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path / "run")
    with run.lease():
        pass

    def refused(self: FileLock, timeout: float) -> Any:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", refused)
    assert run.owner() is None
    for age, held in ((1, True), (999, False)):
        content = {"host": "far", "pid": 1, "heartbeat": time.time() - age}
        (run.directory / "lease.json").write_text(json.dumps(content))
        assert (Run(run.directory).owner() is not None) is held
    (run.directory / "lease.json").write_text("{}")
    with run.lease():  # and a run can be worked on
        found = Run(run.directory).owner()
        assert found is not None and found["pid"] == os.getpid()
        with pytest.raises(Busy), Run(run.directory).lease():
            pass
    assert run.owner() is None


def test_a_killed_owner_is_known_by_its_process_where_nothing_can_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refused)
    run = Run(tmp_path / "run")
    process = start_owner(run.directory)
    owner = run.owner()
    process.kill()
    process.wait()
    assert owner is not None and owner["pid"] == process.pid
    assert run.owner() is None
    with run.lease():
        assert run.heartbeat()["pid"] == os.getpid()
    assert not run.heartbeat()


class Clock:
    """Time that passes where somebody sleeps; `then` is done after so many seconds."""

    def __init__(self) -> None:
        self.passed, self.then = 1000.0, {}

    def monotonic(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.passed += seconds
        for moment in [moment for moment in self.then if moment <= self.passed]:
            self.then.pop(moment)()

    def time(self) -> float:
        return self.passed + 1e9


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of this host."""
    found = Clock()
    for name in ("monotonic", "sleep", "time"):
        monkeypatch.setattr(f"sslbench.runs.directory.time.{name}", getattr(found, name))
    return found


def beat(run: Run, heartbeat: float) -> None:
    """Have the heart of a worker beat on another host, whose lock does not reach here."""
    run.directory.mkdir(exist_ok=True)
    (run.directory / "lease.json").write_text(json.dumps({"host": "far", "pid": 1, "heartbeat": heartbeat}))


@pytest.mark.parametrize("off", [-600.0, 600.0])
def test_a_heart_that_beats_by_a_wrong_clock_is_heard(tmp_path: Path, clock: Clock, off: float) -> None:
    run = Run(tmp_path / "run")
    beat(run, clock.time() + off)
    assert run.owner() is None
    clock.sleep(5)
    beat(run, clock.time() + off)
    assert run.owner() is not None  # it changed since
    clock.sleep(61)
    assert run.owner() is None  # and no longer does
    clock.then[clock.monotonic() + 50] = lambda: beat(run, clock.time() + off)
    with pytest.raises(Busy, match="process 1 on far"), run.lease():
        pass
    assert run.owner() == run.heartbeat()  # nobody gave back what is not his
    clock.sleep(61)
    with run.lease():  # it is silent now
        assert run.heartbeat()["pid"] == os.getpid()


def test_whoever_lost_a_run_learns_it_and_writes_nothing_there(tmp_path: Path, clock: Clock) -> None:
    run = Run(tmp_path / "run")
    with pytest.raises(Busy, match="taken over by process 1 on far"), run.lease() as lease:
        clock.sleep(1)
        lease.beat()
        beat(run, clock.time())
        lease.beat()  # too early to look again
        clock.sleep(5)
        lease.beat()
    assert not lease.held and run.heartbeat()["host"] == "far"
    beat(run, 0.0)
    clock.sleep(61)
    with pytest.raises(Busy, match="by another process"), run.lease() as lease:
        (run.directory / "lease.json").write_text("{}")  # it was taken, and given back
        lease.check()


def test_looking_writes_nothing(write_run: Write, tmp_path: Path) -> None:
    run = Run(write_run(state="running"))
    before = sorted(path.name for path in run.directory.iterdir())
    assert run.state == "interrupted" and runs_below(tmp_path) == [run]
    assert sorted(path.name for path in run.directory.iterdir()) == before


def test_a_state_is_as_last_looked_at(write_run: Write) -> None:
    run = Run(write_run())
    assert run.state == "finished"
    run.cases.unlink()
    assert run.state == "finished"
    assert (run.look(), run.error) == ("damaged", "cases.csv is missing")
    run.set_status("failed", error="loss is nan")
    assert (run.state, run.error) == ("failed", "loss is nan")
    run.move_aside()
    assert run.state == "pending" and not run.begun


def test_a_table_that_lost_digits_of_its_last_number_is_cut_short(write_run: Write) -> None:
    run = Run(write_run())
    run.cases.write_bytes(run.cases.read_bytes()[:-2])
    assert (run.state, run.error) == ("damaged", "cases.csv has a row that is cut short")


def test_the_provenance_is_sealed_with_hashes_of_what_was_tested(write_run: Write) -> None:
    run = Run(write_run())
    for name in ("b.nii.gz", "a.nii.gz", "preprocessed/a.nii.gz"):
        (run.predictions / name).parent.mkdir(parents=True, exist_ok=True)
        (run.predictions / name).write_bytes(name.encode())
    before = json.loads(run.provenance.read_text())
    run.seal(["best-val"])
    found = json.loads(run.provenance.read_text())
    assert found.pop("tested") == {
        "best-val": {
            "cases.csv": hashlib.sha256(run.cases.read_bytes()).hexdigest(),
            "predictions": hashlib.sha256(
                "".join(
                    f"{name} {hashlib.sha256(name.encode()).hexdigest()}\n"
                    for name in ("a.nii.gz", "b.nii.gz", "preprocessed/a.nii.gz")
                ).encode()
            ).hexdigest(),
        }
    }
    assert found == before


def test_the_names_of_its_files_are_spelt_once() -> None:
    run, spelt = Run(Path("run")), []
    paths = {
        name for name, value in vars(Run).items() if "_below" in getattr(getattr(value, "func", 0), "__qualname__", "")
    }
    names = {getattr(run, name).name for name in (*paths, "cases", "predictions")}
    assert len(names) == 15
    for module in Path(sslbench.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in names:
                spelt.append((node.value, module.name))
    assert sorted(spelt) == [(name, "directory.py") for name in sorted(names)]


def test_the_package_imports_where_there_is_no_fcntl() -> None:
    modules = (
        "sslbench.cli, sslbench.cli.doctor, sslbench.core.files, sslbench.runs.directory, sslbench.execution.local"
    )
    code = f"import sys; sys.modules['fcntl'] = None; import {modules}"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("more", ["", "# a comment\n", "layers: {a: x}\n", "modules: {}\n"])
def test_a_configuration_read_part_by_part_is_what_yaml_says(more: str, tmp_path: Path) -> None:
    job = {"recipe": "r", "method": "mt", "loss": "ga", "plugin": None, "labeled": "5%", "seed": 3, "set": {"a.b": [1]}}
    values = {"patch_size": [4, 4], "nested": {"a": {"b": "x: y"}}, "long": "word " * 40, "none": None, "list": []}
    content = {"job": job, "digest": "1" * 64, "values": values}
    run = Run(tmp_path / "seed-3-11111111")
    run.directory.mkdir()
    run.config.write_text(yaml.safe_dump(content, sort_keys=False, width=60) + more)
    assert dict(run.job) == job and dict(run.values) == values and run.digest == "1" * 64
    assert list(run.values) == list(values)
