"""The memory of a step counted without allocating it, beside what torch's allocator on a CPU really had."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sslbench.config.job import Job
from sslbench.conformance.bench import MemoryCheckpoints, MemoryRecorder, random_experiment
from sslbench.execution import memory
from sslbench.execution.memory import needed, tally_step
from sslbench.execution.tally import Tally
from sslbench.training.trainer import Trainer

SMALL_2D = {"patch_size": [64, 64], "batch.labeled": 2, "batch.unlabeled": 2}
SMALL_3D = {
    "patch_size": [32, 32, 32],
    "network.base_filters": 4,
    "inference.stride": [32, 32, 32],
    "inference.validation_stride": [32, 32, 32],
}


def job(method: str, loss: str = "ga", dims: int = 2, plugin: str | None = None) -> Job:
    recipe, labeled, small = ("ssl4mis-acdc", "7 patients", SMALL_2D) if dims == 2 else ("ga-synapse", "20%", SMALL_3D)
    settings = {**small, "schedule.validate_every": 0, "checkpoint": "last", "precision": "fp32"}
    return Job(recipe=recipe, method=method, loss=loss, plugin=plugin, labeled=labeled, seed=0, set=settings)


def allocated(job: Job, classes: int) -> int:
    """Bytes that torch's allocator had at most in a step of a training, by its own record of what it gives and takes
    back, above what it had before the training was put together."""
    experiment = random_experiment(job, classes=classes)
    trainer = Trainer(experiment, MemoryCheckpoints(), MemoryRecorder())
    trainer._enter_phase(0)
    for iteration in range(2):
        trainer._step(trainer.phases[0], iteration, 100, 0, False)
    for optimizer in trainer.optimizers.values():
        optimizer.zero_grad(set_to_none=True)  # the profiler does not see that what was there before it goes
    states = [state for optimizer in trainer.optimizers.values() for state in optimizer.state.values()]
    moments = [value for state in states for value in state.values() if isinstance(value, torch.Tensor)]
    tensors = {tensor.data_ptr(): tensor for tensor in (*trainer.method.state_dict().values(), *moments)}
    held = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    with torch.profiler.profile(profile_memory=True) as profile:
        for iteration in (2, 3):  # the gradients of one are there in the next
            trainer._step(trainer.phases[0], iteration, 100, 0, False)
    peak = live = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]  # type: ignore[union-attr]
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return held + peak


@pytest.mark.parametrize(
    ("method", "loss", "dims", "classes"),
    [("supervised", "default", 2, 4), ("cps", "ga", 2, 4), ("mt", "ga", 3, 14), ("cps", "ga", 3, 14)],
)
def test_the_count_is_near_the_allocators_own(method: str, loss: str, dims: int, classes: int) -> None:
    made = job(method, loss, dims)
    real, counted = allocated(made, classes), tally_step(made.resolved, "fp32").peak
    print(f"{method}+{loss} {dims}-D: counted {counted / 2**20:.1f} MiB, allocated {real / 2**20:.1f} MiB")
    assert counted == pytest.approx(real, rel=0.15)


def test_bf16_halves_activations_and_no_state() -> None:
    whole, half = (tally_step(job("cps").resolved, arithmetic) for arithmetic in ("fp32", "bf16"))
    assert whole.state == half.state > 0
    assert whole.flop == half.flop > 0
    assert 0.4 < (half.peak - half.state) / (whole.peak - whole.state) < 0.75
    assert half.moved < whole.moved and half.launches > whole.launches  # weights are cast


@pytest.mark.parametrize(
    ("method", "plugin"), [("bcp", None), ("dst", None), ("desco", None), ("cps", "scdl")], ids=str
)
def test_what_reads_values_draws_or_has_groups_is_counted(method: str, plugin: str | None) -> None:
    found = tally_step(job(method, "default", 3, plugin).resolved, "bf16")
    assert found.peak > found.state > 0 and found.launches > 100


def test_a_tally_counts_storages_once_and_lets_go_of_them() -> None:
    with Tally() as tally:
        image = torch.empty(2, 4, 8, 8, device="meta")
        view = image[:1].transpose(1, 2)
        assert tally.live == image.numel() * 4 and tally.launches == 0
        other = view + 1
        assert tally.launches == 1 and tally.moved == 2 * other.numel() * 4
        layer = nn.Conv2d(4, 6, 3, padding=1, device="meta")
        tally.start()
        layer(image)
        assert tally.flop == 2 * 2 * 6 * 64 * 4 * 9
        before = tally.live
        del other
        assert before - tally.live == image.numel() * 2


def test_a_tally_is_kept_for_all_budgets_of_a_cell(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("SSLBENCH_CACHE", str(tmp_path))
    asked = []
    made = memory.StepTally("train", 1, 2, 3, 4, 5)
    monkeypatch.setattr(memory, "tally_step", lambda resolved, arithmetic: asked.append(arithmetic) or made)
    settings = {"recipe": "ssl4mis-acdc", "method": "cps", "seed": 0, "set": {}}
    jobs = [Job(labeled=labeled, **settings) for labeled in ("7 patients", "3 patients")]
    assert [memory.tallied(one.resolved, "fp32") for one in jobs] == [made, made]
    assert memory.tallied(jobs[0].resolved, "bf16") == made
    assert asked == ["fp32", "bf16"]
    assert len({memory.cell_of(one.resolved) for one in jobs}) == 1


def test_more_is_set_aside_on_a_gpu() -> None:
    assert needed(10, "cpu") == 12 and needed(0, "cuda") == memory.GPU_CONTEXT
