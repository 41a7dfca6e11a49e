"""A run keeps the arithmetic and the kind of device that it began with, and memory that runs short is tried alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sslbench.core.determinism import repeatable
from sslbench.execution import local, worker
from sslbench.execution.worker import NoMemory, OtherMachine, main, run_job
from sslbench.networks import precision
from sslbench.runs.directory import Run
from sslbench.training.trainer import Interrupted
from tests.helpers.jobs import tiny_job

JOB = tiny_job(set={"precision": "auto"})


def after(steps: int) -> Callable[[], bool]:
    asked = iter(range(steps))
    return lambda: next(asked, None) is None


def machines(run: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run.provenance.read_text())["machines"]
    return found


@pytest.fixture
def begun(phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that stopped after two steps in bf16."""
    with monkeypatch.context() as patched:
        patched.setattr(precision, "fast_bf16", lambda device: True)
        with pytest.raises(Interrupted):
            run_job(JOB, phantom_data, tmp_path, "cpu", 1, after(2))
    run = Run.of(JOB, tmp_path)
    (first,) = machines(run)
    assert (first["kind"], first["card"], first["precision"]) == ("cpu", None, "bf16")
    return run


def test_a_run_goes_on_in_the_arithmetic_that_it_began_with(
    begun: Run, phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "fast_bf16", lambda device: False)
    run_job(JOB, phantom_data, tmp_path, "cpu", 1)
    assert begun.look() == "finished" and len(machines(begun)) == 1
    assert json.loads(begun.provenance.read_text())["precision"]["used"] == "bf16"


def test_on_another_kind_of_device_it_stops_and_loses_nothing_unless_asked_to_go_on(
    begun: Run, phantom_data: Path, tmp_path: Path
) -> None:
    record = json.loads(begun.provenance.read_text())
    record["machines"][0] |= {"kind": "cuda", "card": "A card"}
    begun.provenance.write_text(json.dumps(record))
    states = sorted(path.name for path in begun.checkpoints.iterdir())
    with pytest.raises(OtherMachine, match="kind cuda, here cpu; card A card, here None"):
        run_job(JOB, phantom_data, tmp_path, "cpu", 1)
    assert begun.look() == "interrupted" and "began on another machine" in begun.error
    assert sorted(path.name for path in begun.checkpoints.iterdir()) == states
    assert main(begun.directory, phantom_data, "cpu", 1) == local.REFUSED_EXIT
    run_job(JOB, phantom_data, tmp_path, "cpu", 1, resume_anyway=True)
    assert begun.look() == "finished" and [one["kind"] for one in machines(begun)] == ["cuda", "cpu"]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_short_memory_is_said_in_one_line_with_an_exit_code_of_its_own(
    error: Exception, phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(self: object) -> None:
        raise error

    monkeypatch.setattr(worker.Trainer, "fit", short)
    with pytest.raises(NoMemory, match="not enough memory"):
        run_job(JOB, phantom_data, tmp_path, "cpu", 1)
    run = Run.of(JOB, tmp_path)
    assert run.look() == "failed" and run.error == "not enough memory"
    assert main(run.directory, phantom_data, "cpu", 1) == local.NO_MEMORY_EXIT


class Silent:
    def __init__(self) -> None:
        self.events: list[str] = []

    def update(self, plan: object, running: object) -> None: ...

    def event(self, text: str) -> None:
        self.events.append(text)


@pytest.mark.parametrize("cured", [True, False])
def test_a_job_short_of_memory_runs_once_more_and_alone(
    cured: bool, phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [tiny_job(seed=seed).canonical() for seed in range(3)]
    plan = local.make_plan(jobs, tmp_path, {})
    beside: dict[int, list[int]] = {0: [], 1: [], 2: []}
    alive: list[Process] = []

    class Process:
        """A worker that ends when it was looked at twice: seed 1 short of memory where it has neighbours."""

        pid = 0

        def __init__(self, run: Run, device: str) -> None:
            self.run, self.seed, self.looks = run, run.load_job().seed, 0
            beside[self.seed].append(len(alive))
            alive.append(self)

        def waits(self) -> bool:
            return False

        def poll(self) -> int | None:
            self.looks += 1
            if self.looks < 2:
                return None
            alive.remove(self)
            short = self.seed == 1 and (len(beside[1]) == 1 or not cured)
            self.run.set_status("failed" if short else "finished", **({"error": "short"} if short else {}))
            return local.NO_MEMORY_EXIT if short else 0

        def last_words(self) -> str:
            return "short"

        def close(self) -> None: ...

        def kill(self) -> None: ...

        def stop(self) -> None: ...

    monkeypatch.setattr(local, "POLL_S", 0.0)
    monkeypatch.setattr(Run, "look", lambda self: self.status().get("state", "pending"))
    monkeypatch.setattr(Run, "error", property(lambda self: self.status().get("error", "")))
    display = Silent()
    code = local.Launcher(plan, SimpleNamespace(start=Process), ["cpu", "cpu"], display).run()
    assert len(beside[1]) == 2 and beside[1][1] == 0, "the second time alone"
    assert sum("it runs again alone" in line for line in display.events) == 1
    assert (code, plan[1].outcome) == ((0, "finished") if cured else (1, "failed"))
    assert [plan[0].outcome, plan[2].outcome] == ["finished", "finished"]


def test_kernels_that_do_not_repeat_are_listed_and_all_is_as_before_afterwards() -> None:
    import warnings

    with repeatable(torch.device("meta")) as refused:  # as for a GPU: whatever is no CPU
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        name = "max_pool3d_with_indices_backward_cuda"
        warnings.warn(f"{name} does not have a deterministic implementation, but you set", stacklevel=2)
    assert list(refused) == [name]
    assert not torch.are_deterministic_algorithms_enabled()
    with repeatable(torch.device("cpu")):
        assert not torch.are_deterministic_algorithms_enabled()
