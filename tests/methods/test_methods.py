"""What single methods promise beyond the laws that all of them keep (`tests/conformance`)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sslbench.conformance.bench import MemoryRecorder
from sslbench.core.errors import UsageError
from sslbench.core.step import Batch, Step
from sslbench.losses.cross_entropy import cross_entropy
from sslbench.methods.base import mean_logits
from sslbench.training.checkpoint import Checkpoints
from sslbench.training.experiment import Experiment
from sslbench.training.trainer import Trainer
from tests.helpers.jobs import random_experiment, tiny_job, tiny_job_2d
from tests.helpers.methods import make_step

LOSSES = ("default", "ga")
DIMENSIONS = {"3d": tiny_job, "2d": tiny_job_2d}


def batch_of(experiment: Experiment) -> Batch:
    phase = experiment.method.phases()[0]
    return experiment.sampler.batch(0, phase.streams)


def test_mt_consistency_is_the_mean_square_between_student_and_noisy_teacher() -> None:
    experiment = random_experiment(tiny_job("mt", set={"method.noise_std": 0.0}))
    method, batch = experiment.method.eval(), batch_of(experiment)
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter += 0.01
    terms = method.training_step(batch, make_step(consistency_weight=0.3))
    unlabeled = batch.image["weak"][batch.num_labeled :]
    expected = (method.student(unlabeled).softmax(1) - method.teacher(unlabeled).softmax(1)).square().mean()
    assert torch.allclose(terms["consistency"], expected, atol=1e-7)
    assert torch.allclose(terms["loss"], terms["supervised"] + 0.3 * expected)


def test_mt_noise_is_clipped_and_follows_the_iteration() -> None:
    method = random_experiment(tiny_job("mt")).method
    image = torch.zeros(2, 1, 8, 8, 8)
    noise = method._noise(image, make_step())
    assert noise.abs().max() <= 0.2 and 0.05 < noise.std() < 0.11
    assert torch.equal(noise, method._noise(image, make_step()))


def test_mt_consistency_waits_for_its_start() -> None:
    experiment = random_experiment(tiny_job("mt", set={"method.start": 6}))
    terms = experiment.method.training_step(batch_of(experiment), make_step())
    assert torch.equal(terms["loss"], terms["supervised"])  # the step is iteration 5
    assert tiny_job_2d("mt").resolved.method["start"] == 1000


def test_the_teacher_is_the_closed_form_of_the_average(tmp_path: Path) -> None:
    experiment = random_experiment(tiny_job("mt"))
    method, history = experiment.method, []
    after = method.after_step

    def spy(step: Step) -> None:
        history.append({name: value.clone() for name, value in method.student.named_parameters()})
        after(step)

    method.after_step = spy
    Trainer(experiment, Checkpoints(tmp_path), MemoryRecorder()).fit()
    trained = Checkpoints(tmp_path).load()["method"]
    # With the warm-up a = min(1 - 1/(k + 1), 0.99) the average of the first steps is their plain mean.
    for name in history[0]:
        expected = torch.stack([weights[name] for weights in history]).mean(0)
        assert torch.allclose(trained[f"teacher.{name}"], expected, atol=1e-6), name
    # Batch statistics are the teacher's own: it saw the unlabelled patches alone, through its own weights.
    assert not torch.equal(
        trained["teacher.encoder.blocks.0.1.running_mean"], trained["student.encoder.blocks.0.1.running_mean"]
    )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dims", DIMENSIONS)
def test_cps_learns_from_unlabeled_patches_and_each_network_from_the_other(loss: str, dims: str) -> None:
    experiment = random_experiment(DIMENSIONS[dims]("cps", loss))
    method, batch = experiment.method, batch_of(experiment)
    terms = method.train().training_step(batch, make_step())
    cross = torch.autograd.grad(terms["cross"], list(method.parameters()), allow_unused=True)
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in cross[-2:])
    # The target is detached: network a's term has no gradient in network b.
    pair = method.pair(batch.image["weak"])
    method.observe(make_step(), pair, batch.label["weak"])
    one_sided = method.cross(*pair, batch.num_labeled)
    assert all(
        gradient is None
        for gradient in torch.autograd.grad(
            one_sided, list(method.b.parameters()), allow_unused=True, retain_graph=True
        )
    )


def test_cps_cross_term_is_the_published_one() -> None:
    experiment = random_experiment(tiny_job_2d("cps"))
    method, batch = experiment.method.eval(), batch_of(experiment)
    terms = method.training_step(batch, make_step())
    a, b = (method.get_submodule(key)(batch.image["weak"])[batch.num_labeled :] for key in ("a", "b"))
    expected = cross_entropy(a, b.argmax(1)) + cross_entropy(b, a.argmax(1))
    assert torch.allclose(terms["cross"], expected)
    assert torch.allclose(terms["loss"], terms["supervised"] + 0.1 * expected)


def test_cps_in_the_3d_recipes_crosses_all_patches() -> None:
    experiment = random_experiment(tiny_job("cps"))
    method, batch = experiment.method.eval(), batch_of(experiment)
    terms = method.training_step(batch, make_step())
    a, b = (method.get_submodule(key)(batch.image["weak"]) for key in ("a", "b"))
    assert torch.allclose(terms["cross"], cross_entropy(a, b.argmax(1)) + cross_entropy(b, a.argmax(1)))


def test_the_two_networks_begin_differently_and_the_same_key_alike() -> None:
    cps, again = random_experiment(tiny_job("cps")).method, random_experiment(tiny_job("cps", "ga")).method
    a, b = cps.a.state_dict(), cps.b.state_dict()
    assert not torch.equal(a["encoder.blocks.0.0.weight"], b["encoder.blocks.0.0.weight"])
    assert torch.equal(a["encoder.blocks.0.0.weight"], again.a.state_dict()["encoder.blocks.0.0.weight"])


def test_cps_predicts_with_the_mean_of_the_logits() -> None:
    experiment = random_experiment(tiny_job("cps"))
    method, image = experiment.method.eval(), batch_of(experiment).image["weak"]
    expected = ((method.a(image) + method.b(image)) / 2).softmax(1)
    assert torch.allclose(method.predict(image), expected)
    assert torch.allclose(method.predict(image, "b"), mean_logits([method.b], image))


def test_supervised_never_draws_an_unlabeled_patch() -> None:
    experiment = random_experiment(tiny_job())
    assert len(batch_of(experiment).image["weak"]) == experiment.resolved.recipe.batch.labeled


def test_all_methods_of_a_seed_meet_the_same_labeled_patches() -> None:
    with_unlabeled = batch_of(random_experiment(tiny_job_2d("cps")))
    without = batch_of(random_experiment(tiny_job_2d("supervised")))
    L = without.num_labeled
    assert torch.equal(with_unlabeled.image["weak"][:L], without.image["weak"])
    assert torch.equal(with_unlabeled.label["weak"][:L], without.label["weak"])


def test_a_method_that_needs_unlabeled_images_objects_where_there_are_none() -> None:
    with pytest.raises(UsageError, match="unlabelled"):
        tiny_job("cps", labeled="100%").resolved  # noqa: B018
    assert tiny_job("supervised", labeled="100%").resolved.job.labeled == "100pct"
