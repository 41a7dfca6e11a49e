"""Every draw follows from the job's seed and a named stream; a weak and a strong distortion come one upon the other."""

from __future__ import annotations

import pytest
import torch

from sslbench.config.job import Job
from sslbench.conformance.bench import Subject
from sslbench.core import randomness
from sslbench.training import experiment as experiment_module
from tests.helpers.jobs import random_experiment, tiny_job_2d

# What a method draws by a name of its own, beside the patches and the networks that all draw.
STREAMS = {
    "mt": {"teacher-noise"},
    "uamt": {"teacher-noise"},
    "bcp": set(),
    "magicnet": {"cubes", "teacher-noise"},
    "ssnet": {"vat-noise"},
    "basak": {"voxel-sampling"},
    "skcdf": {"kept", "kept-u"},
    "ceud": {"rank/correctness", "rank/consistency"},
}
COMMON = {"order/labeled", "order/unlabeled", "patch/labeled", "patch/unlabeled", "forward"}


@pytest.mark.parametrize("method", STREAMS)
def test_every_named_stream_draws_otherwise_under_another_seed(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    derive, drawn = randomness.derive_seed, []

    def noted(seed: int, stream: str, *position: int) -> int:
        drawn.append((seed, stream, position))
        return derive(seed, stream, *position)

    subject = Subject(method, dims="3d")
    subject.job = Job(**(subject.job.model_dump() | {"seed": 7}))
    monkeypatch.setattr(randomness, "derive_seed", noted)
    monkeypatch.setattr(experiment_module, "derive_seed", noted)
    subject.iterations = 1
    subject.train()
    assert {seed for seed, *_ in drawn} == {7}
    streams = {stream for _, stream, _ in drawn}
    assert streams >= COMMON | STREAMS[method]
    assert any(stream.startswith("init/") for stream in streams)
    for _, stream, position in drawn:
        assert derive(7, stream, *position) != derive(8, stream, *position)


def test_a_strong_distortion_comes_on_top_of_a_weak_one() -> None:
    half = {"name": "brightness", "factor": [0.5, 0.5], "p": 1.0}
    third = {"name": "brightness", "factor": [3.0, 3.0], "p": 1.0}
    job = tiny_job_2d("fixmatch", set={"augment.weak": [half], "augment.strong": [third]})
    batch = random_experiment(job).sampler.batch(0, views=("weak", "strong"))
    plain = random_experiment(tiny_job_2d("fixmatch", set={"augment.weak": [], "augment.strong": [third]}))
    still = plain.sampler.batch(0, views=("weak", "strong")).image["weak"]
    torch.testing.assert_close(batch.image["weak"], 0.5 * still)
    torch.testing.assert_close(batch.image["strong"], 1.5 * still)
