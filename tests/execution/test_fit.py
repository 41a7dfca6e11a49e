"""What a launch says of memory before it starts: refused, close, too many at a time, not counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sslbench.core.errors import UsageError
from sslbench.execution import fit
from sslbench.execution.fit import Memory, jobs_per_card, words_on_memory
from sslbench.execution.memory import GPU_CONTEXT, StepTally
from tests.helpers.command_line import call
from tests.helpers.jobs import phantom_job

GIB = 2**30


@pytest.fixture
def sized(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what a step takes and what a device has, in GiB."""

    def set_sizes(step: float, device: float) -> list[str]:
        counted: list[str] = []

        def tallied(resolved: Any, arithmetic: str) -> StepTally:
            counted.append(resolved.method["name"])
            return StepTally("train", 0, int(step * GIB), 1, 1, 1)

        monkeypatch.setattr(fit, "tallied", tallied)
        monkeypatch.setattr(fit, "arithmetic_on", lambda resolved, device: "bf16")
        monkeypatch.setattr(fit, "memory_of", lambda device: Memory("a card", int(device_bytes)))
        device_bytes = device * GIB
        return counted

    return set_sizes


def test_a_job_larger_than_a_card_is_refused_with_what_to_do(sized: Any) -> None:
    sized(12.5, 8)
    with pytest.raises(UsageError) as told:
        words_on_memory([phantom_job("cps")], {}, ["cuda:0"])
    assert "12.5 GiB for a step" in told.value.message and "8.00 GiB of a card" in told.value.message
    assert "--device cpu" in told.value.hint and told.value.exit_code == 2


def test_a_job_close_to_a_card_gets_a_word(sized: Any) -> None:
    sized(7.5, 8)
    (line,) = words_on_memory([phantom_job("cps")], {}, ["cuda:0"])
    assert "close to the 8.00 GiB" in line
    sized(2, 8)
    assert words_on_memory([phantom_job("cps")], {}, ["cuda:0"]) == []


def test_too_many_at_a_time_are_told_how_many_fit(sized: Any) -> None:
    sized(5, 24)
    (line,) = words_on_memory([phantom_job("cps")], {}, ["cuda:0"] * 4)
    assert 4 * (5 * 1.2 + GPU_CONTEXT / GIB) > 24 and line.endswith("-j 3")
    assert words_on_memory([phantom_job("cps")], {}, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]) == []


def test_a_cpu_is_warned_of_and_small_jobs_are_not_counted(sized: Any) -> None:
    counted = sized(12, 8)
    assert words_on_memory([phantom_job("cps")], {}, ["cpu"]) == [] and not counted
    large = phantom_job("cps", patch_size=[160, 160, 160])
    (line,) = words_on_memory([large], {}, ["cpu"])
    assert "do not fit into the 8.00 GiB" in line and counted == ["cps"]


def test_cells_are_counted_once_and_within_a_time(sized: Any) -> None:
    counted = sized(2, 8)
    seeds = [phantom_job("cps"), phantom_job("cps").reseeded(5), phantom_job("mt")]
    assert words_on_memory(seeds, {}, ["cuda:0"]) == [] and counted == ["cps", "mt"]
    (line,) = words_on_memory(seeds, {}, ["cuda:0"], seconds=-1)
    assert line.startswith("the memory of 2 kinds of jobs was not counted") and len(counted) == 2


def test_what_cannot_be_counted_starts_all_the_same(sized: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sized(2, 8)

    def broken(resolved: Any, arithmetic: str) -> StepTally:
        raise RuntimeError("Tensor.item() cannot be called on meta tensors")

    monkeypatch.setattr(fit, "tallied", broken)
    (line,) = words_on_memory([phantom_job("cps")], {}, ["cuda:0"])
    assert "1 kind of jobs was not counted" in line


def test_a_card_is_shared_by_as_many_as_its_memory_holds(sized: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [phantom_job("cps"), phantom_job("mt"), phantom_job("mt").reseeded(5)]
    counted = sized(5, 24)
    assert jobs_per_card(jobs, {}, ["cuda:0"]) == 3 and counted == ["cps", "mt"]  # 5 * 1.2 + 1 of 24
    cards = {"cuda:0": Memory("large", 80 * GIB), "cuda:1": Memory("small", 15 * GIB)}
    monkeypatch.setattr(fit, "memory_of", cards.get)
    assert [jobs_per_card(jobs, {}, some) for some in (["cuda:0"], ["cuda:0", "cuda:1"])] == [11, 2]
    monkeypatch.setattr(fit, "tallied", lambda resolved, arithmetic: 1 / 0)
    assert jobs_per_card(jobs, {}, ["cuda:0"]) == 1


def test_auto_is_asked_of_a_faked_card(sized: Any, monkeypatch: pytest.MonkeyPatch, phantom_data: Path) -> None:
    sized(5, 24)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    words = ("run", "-r", "phantom", "-m", "cps", "--labeled", "20%", "--seed", "0-5", "--dry-run", "--json")
    for asked, slots in (("auto", 3), ("2", 2)):
        code, out, err = call(*words, "--per-gpu", asked, "--data-dir", str(phantom_data))
        assert code == 0, err
        assert json.loads(out)["devices"] == ["cuda:0"] * slots
    code, _, err = call(*words, "--per-gpu", "many", "--data-dir", str(phantom_data))
    assert code == 2 and "write 2, or auto" in err
    code, _, err = call(*words, "--gpus", "0,3", "--data-dir", str(phantom_data))
    assert code == 2 and "there is no GPU 3" in err


def test_this_machine_says_what_it_has() -> None:
    total, free = fit.memory_of_machine()
    assert total > free > 0
    found = fit.memory_of("cpu")
    assert found is not None and found.total > 0
