"""What only a GPU can show: `pytest -m gpu`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sslbench.config.job import Job
from sslbench.data.sampling import Sampler, TrainingSet
from sslbench.execution.worker import run_job
from sslbench.networks import build_network
from sslbench.networks.precision import Precision, fast_bf16, worst_error
from sslbench.training.trainer import Interrupted
from tests.helpers.jobs import tiny_job, tiny_job_2d

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("job", [tiny_job("cps", "ga"), tiny_job_2d("cps", "ga")], ids=["3d", "2d"])
def test_patches_cut_on_the_gpu_are_those_of_the_cpu(job: Job) -> None:
    import numpy as np

    random = np.random.default_rng(0)
    images = [random.random((1, 20, 34, 28)).astype("float32") for _ in range(5)]
    data = TrainingSet(images, [(image[0] > 0.5).astype("uint8") for image in images[:2]])
    here, there = (Sampler(data, job.resolved.recipe, 0, torch.device(name)) for name in ("cpu", "cuda"))
    for iteration in range(5):
        cpu, gpu = here.batch(iteration), there.batch(iteration)
        assert torch.equal(cpu.image["weak"], gpu.image["weak"].cpu())
        assert torch.equal(cpu.label["weak"], gpu.label["weak"].cpu())


@pytest.mark.parametrize("method", ["supervised", "mt", "cps"])
def test_a_job_runs_on_the_gpu(method: str, phantom_data: Path, tmp_path: Path) -> None:
    folder = run_job(tiny_job(method, "ga", set={"precision": "auto"}), phantom_data, tmp_path, device="cuda")
    assert (folder / "cases.csv").stat().st_size > 0


@pytest.mark.parametrize("precision", ["auto", "fp32"])
@pytest.mark.parametrize("method", ["cps", "urpc", "ssnet", "magicnet"])
def test_a_training_repeats_and_resumes_to_the_byte(
    method: str, precision: str, phantom_data: Path, tmp_path: Path
) -> None:
    job = tiny_job(method, "ga", set={"precision": precision})
    asked = iter(range(3))
    with pytest.raises(Interrupted):
        run_job(job, phantom_data, tmp_path / "stopped", "cuda", should_stop=lambda: next(asked, None) is None)
    folders = [run_job(job, phantom_data, tmp_path / name, "cuda") for name in ("once", "again", "stopped")]
    once, again, stopped = ((folder / "cases.csv").read_bytes() for folder in folders)
    assert once == again, "a second training differs"
    assert once == stopped, "a resumed training differs"
    for folder in folders:
        assert "refused" not in json.loads((folder / "provenance.json").read_text())


@pytest.mark.parametrize(
    ("name", "shape"), [("vnet", (2, 1, 96, 96, 96)), ("vnet", (2, 1, 32, 64, 64)), ("unet", (4, 1, 256, 256))]
)
def test_bf16_gradients_agree_with_fp32(name: str, shape: tuple[int, ...]) -> None:
    device = torch.device("cuda")
    if not fast_bf16(device):
        pytest.skip("this GPU is older than Ampere")
    error, layer = worst_error(
        Precision("bf16", "", device, False), build_network(name, 1, 14), torch.rand(shape, device=device)
    )
    assert error < 0.05, layer


def test_a_step_waits_for_the_gpu_only_to_log(phantom_data: Path, tmp_path: Path) -> None:
    """Ten steps between two records hold up the device no more often than their record does."""
    from sslbench.conformance.bench import MemoryRecorder
    from sslbench.training.checkpoint import Checkpoints
    from sslbench.training.trainer import Trainer
    from tests.helpers.jobs import random_experiment

    experiment = random_experiment(tiny_job("cps", "ga"), device="cuda")
    trainer = Trainer(experiment, Checkpoints(tmp_path), MemoryRecorder())
    trainer._enter_phase(0)
    trainer._step(trainer.phases[0], 0, 100, 0, False)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for iteration in range(1, 5):
            trainer._step(trainer.phases[0], iteration, 100, 0, False)
    finally:
        torch.cuda.set_sync_debug_mode("default")
