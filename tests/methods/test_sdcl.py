"""SDCL: the terms where two students disagree, a whole step, the two students, their optimisers and phases."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sslbench.conformance.bench import MemoryRecorder
from sslbench.core.errors import UsageError
from sslbench.core.step import Batch
from sslbench.losses import bcp_mix_loss
from sslbench.methods.base import Method
from sslbench.methods.mixing import draw_copy_paste_mask, largest_components, paste
from sslbench.methods.sdcl import discrepancy, discrepancy_kl, discrepancy_mse
from sslbench.training.checkpoint import Checkpoints
from sslbench.training.trainer import Trainer, backward
from tests.helpers.jobs import random_experiment, tiny_job, tiny_job_2d
from tests.helpers.losses import close, tiny_logits
from tests.helpers.methods import make_step

A, B = tiny_logits("a"), tiny_logits("b")
# The labels of the sheet's mix, outside of the box and inside it.
MASK = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
TARGET = paste(torch.tensor([[[0, 2], [1, 1]]]), torch.tensor([[[1, 2], [0, 2]]]), MASK)


# ------------------------------------------------------------------------------------------ the terms of disagreement


def test_the_students_of_the_sheet_disagree_in_one_voxel() -> None:
    assert discrepancy(A, B).tolist() == [[[False, False], [True, False]]]


@pytest.mark.parametrize(
    ("logits", "inside", "mse", "kl"),
    [
        (A, 1.0, 0.035511214, 0.0),  # the voxel is inside the box, and weighs what the region there does
        (A, 0.5, 0.017755607, 0.0),
        (B, 1.0, 0.253493994, 1.270797372),
        (B, 0.5, 0.126746997, 0.635398686),
    ],
)
def test_the_worked_numbers(logits: Tensor, inside: float, mse: float, kl: float) -> None:
    """The sheet's were run in single precision."""
    where, weight = discrepancy(A, B), paste(torch.full((1, 1, 1), 1.5 - inside), torch.full((1, 1, 1), inside), MASK)
    close(discrepancy_mse(logits, TARGET, where, weight), mse, 2e-7)
    close(discrepancy_kl(logits, TARGET, where, weight), kl, 2e-7)


def example() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits of two students (2, 4, 3, 5), targets and weights (2, 3, 5)."""
    torch.manual_seed(0)
    a, b = torch.randn(2, 2, 4, 3, 5, dtype=torch.float64)
    return a, b, torch.randint(0, 4, (2, 3, 5)), torch.rand(2, 3, 5, dtype=torch.float64)


def test_the_terms_are_those_of_the_equations_voxel_by_voxel() -> None:
    a, b, target, weight = example()
    squares, logs = [], []
    for place in torch.nonzero(torch.ones_like(target)).tolist():
        n, i, j = place
        p, w, y = a[n, :, i, j].softmax(0).tolist(), float(weight[n, i, j]), int(target[n, i, j])
        guess = p.index(max(p))
        if guess == int(b[n, :, i, j].argmax()):
            continue
        squares.append(w * sum((value - (c == y)) ** 2 for c, value in enumerate(p)) / 4)
        if guess != y:
            logs.append(w * -sum(torch.tensor(p, dtype=torch.float64).log().tolist()) / 4)
    where = discrepancy(a, b)
    assert len(squares) == where.sum() > len(logs) > 0
    close(discrepancy_mse(a, target, where, weight), sum(squares) / len(squares), 1e-12)
    close(discrepancy_kl(a, target, where, weight), sum(logs) / len(logs), 1e-12)


def test_gradients_stay_where_the_students_disagree_and_kl_draws_towards_the_uniform() -> None:
    a, b, target, weight = example()
    where, own = discrepancy(a, b), a.requires_grad_()
    wrong = where & (a.argmax(1) != target)
    (mse,) = torch.autograd.grad(discrepancy_mse(own, target, where, weight), own)
    (kl,) = torch.autograd.grad(discrepancy_kl(own, target, where, weight), own)
    assert torch.equal(mse.abs().sum(1) > 0, where)
    pull = (a.detach().softmax(1) - 1 / 4) * (wrong * weight / wrong.sum()).unsqueeze(1)
    torch.testing.assert_close(kl, pull)


def test_where_nothing_is_wrong_or_nothing_disagrees_there_is_a_zero_with_a_graph() -> None:
    logits = A.clone().requires_grad_()
    nowhere = torch.zeros_like(TARGET, dtype=torch.bool)
    for value in (
        discrepancy_mse(logits, TARGET, nowhere, MASK[None]),
        discrepancy_kl(logits, TARGET, nowhere, MASK[None]),
        discrepancy_kl(logits, A.argmax(1), ~nowhere, MASK[None]),
    ):
        assert value.item() == 0
        (gradient,) = torch.autograd.grad(value, logits)
        assert not gradient.any()


def test_the_terms_are_computed_in_full_precision() -> None:
    a, b, target, weight = example()
    half = a.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        for term in (discrepancy_mse, discrepancy_kl):
            value = term(half, target, discrepancy(a, b), weight)
            assert value.dtype == torch.float32
            close(value, float(term(half.double(), target, discrepancy(a, b), weight)), 1e-5)


# --------------------------------------------------------------------------------------------------------------- steps

SMALL = {"batch.labeled": 4, "batch.unlabeled": 4}
# Two voxels in the deepest stage: batch norm needs two values where a step sends single patches.
LONG = {"patch_size": [16, 16, 32], "inference.stride": [16, 16, 32], "inference.validation_stride": [16, 16, 32]}


def varied(method: Method, batch: Batch) -> Method:
    """In evaluation mode, so that an image has one prediction; networks that differ, and name several classes each."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name in ("a", "b", "teacher"):
            network = method.get_submodule(name)
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
            for _ in range(10):  # batch norm gets to know the images
                network.train()(batch.image["weak"])
            logits = network.eval()(batch.image["weak"])
            network.decoder.head.bias.sub_(logits.mean((0, 2, 3)))
    return method.eval()


@pytest.fixture(scope="module")
def self_training() -> Iterator[tuple[Method, Batch]]:
    experiment = random_experiment(tiny_job_2d("sdcl", set=SMALL))
    batch = experiment.sampler.batch(0)
    yield varied(experiment.method, batch), batch


def test_a_step_is_bcp_for_each_student_and_what_they_disagree_on(self_training: tuple[Method, Batch]) -> None:
    method, batch = self_training
    step, image, labels = make_step(phase="self-train"), batch.image["weak"], batch.label["weak"]
    mask = draw_copy_paste_mask(image.shape[2:], step, image.device)
    with torch.no_grad():
        pseudo = largest_components(method.teacher(image[4:]).argmax(1), 4)
        terms = method.training_step(batch, step)
        # Unlabelled outside of the box, then inside it.
        mixed = [paste(image[4:6], image[0:2], mask), paste(image[2:4], image[6:8], mask)]
        targets = [paste(pseudo[0:2], labels[0:2], mask), paste(labels[2:4], pseudo[2:4], mask)]
        weights = [1 - 0.5 * mask, 0.5 + 0.5 * mask]
        logits = {key: [getattr(method, key)(part) for part in mixed] for key in ("a", "b")}
        where = [discrepancy(*pair) for pair in zip(*logits.values(), strict=True)]
        assert 0 < torch.cat(where).float().mean() < 1
        close(terms["disagreement"], float(torch.cat(where).float().mean()))
        for key, (first, second) in logits.items():
            expected = bcp_mix_loss(first, pseudo[0:2], labels[0:2], mask, 0.5, 1.0)
            expected = expected + bcp_mix_loss(second, labels[2:4], pseudo[2:4], mask, 1.0, 0.5)
            for part in zip(logits[key], targets, where, weights, strict=True):
                scores, target, here, weight = part
                weight = weight.expand(2, -1, -1)
                expected = expected + 0.5 * discrepancy_mse(scores, target, here, weight)
                expected = expected + 0.05 * discrepancy_kl(scores, target, here, weight)
            close(terms[f"loss/{key}"], float(expected), 1e-5)


def test_no_gradient_goes_from_one_student_to_the_other_or_to_the_teacher(self_training: tuple[Method, Batch]) -> None:
    method, batch = self_training
    for phase, content in (("pretrain", labeled_only(batch)), ("self-train", batch)):
        for key in ("a", "b"):
            method.zero_grad(set_to_none=True)
            method.training_step(content, make_step(phase=phase))[f"loss/{key}"].backward()
            reached = {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None}
            assert reached == {key}
            assert all(p.grad is not None for p in getattr(method, key).parameters())


def labeled_only(batch: Batch) -> Batch:
    """The batch of a phase on labelled patches alone."""
    L = batch.num_labeled
    images, labels = ({view: part[:L] for view, part in parts.items()} for parts in (batch.image, batch.label))
    return Batch(images, labels, L, batch.index[:L], batch.origin[:L])


def test_both_students_learn_from_the_same_labeled_mix_before(self_training: tuple[Method, Batch]) -> None:
    method, batch = self_training
    step, image, labels = make_step(phase="pretrain"), batch.image["weak"], batch.label["weak"]
    mask = draw_copy_paste_mask(image.shape[2:], step, image.device)
    with torch.no_grad():
        terms = method.training_step(labeled_only(batch), step)
        for key in ("a", "b"):
            logits = getattr(method, key)(paste(image[0:2], image[2:4], mask))
            close(terms[f"loss/{key}"], float(bcp_mix_loss(logits, labels[0:2], labels[2:4], mask, 1.0, 1.0)), 1e-5)


# ---------------------------------------------------------------------------------------------- students and inference


def test_the_second_student_is_the_residual_network_with_the_options_that_the_recipe_changes() -> None:
    flat = random_experiment(tiny_job_2d("sdcl", set=SMALL)).method
    assert [type(getattr(flat, key)).__name__ for key in ("a", "b", "teacher")] == ["UNet", "ResUNet", "UNet"]
    assert max(flat.a.options.dropout) == 0.5 and max(flat.b.options.dropout) == 0  # not the recipe's
    deep = random_experiment(tiny_job("sdcl", set={"network.dropout": 0.5, **LONG})).method
    assert [type(getattr(deep, key)).__name__ for key in ("a", "b", "teacher")] == ["VNet", "ResVNet", "VNet"]
    assert deep.b.options == deep.a.options and (deep.b.options.base_filters, deep.b.options.dropout) == (2, 0.5)


def test_inference_is_the_mean_of_the_probabilities_not_of_the_logits(self_training: tuple[Method, Batch]) -> None:
    method, batch = self_training
    image = batch.image["weak"][:2]
    with torch.no_grad():
        logits = [20 * method.a(image), method.b(image)]
        method.a.decoder.head.weight.mul_(20), method.a.decoder.head.bias.mul_(20)
        found = method.predict(image)
        alone = [method.predict(image, key) for key in ("a", "b")]
        method.a.decoder.head.weight.div_(20), method.a.decoder.head.bias.div_(20)
    for each, expected in zip(alone, logits, strict=True):
        torch.testing.assert_close(each, expected.softmax(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, (alone[0] + alone[1]) / 2)
    assert not torch.allclose(found, torch.stack(logits).mean(0).softmax(1), atol=1e-2)


def test_the_pair_is_one_candidate_though_the_recipe_chooses_between_networks() -> None:
    assert tiny_job_2d("cps").resolved.recipe.inference.networks == "best_val"
    assert tiny_job_2d("sdcl", set=SMALL).resolved.recipe.inference.networks == "mean_logits"


# --------------------------------------------------------------------------------------------------------------- phases


def test_students_go_on_with_their_own_adam_and_the_teacher_begins_as_the_first(tmp_path: Path) -> None:
    settings = {
        "batch.labeled": 2,
        "batch.unlabeled": 2,
        "method.pretrain_iterations": 2,
        "schedule.iterations": 1,
        "schedule.validate_every": 0,
        "checkpoint": "last",
    }
    experiment = random_experiment(tiny_job_2d("sdcl", set=settings))
    method, seen = experiment.method, {}
    trainer = Trainer(experiment, Checkpoints(tmp_path), MemoryRecorder())
    start = trainer._start_phase

    def spy(number: int, optimizers: Any) -> None:
        start(number, optimizers)
        found = {key: optimizer.state_dict()["state"] for key, optimizer in trainer.optimizers.items()}
        seen[number] = copy.deepcopy(found)
        if number:
            seen["teacher"] = {name: value.clone() for name, value in method.teacher.state_dict().items()}
            seen["a"] = {name: value.clone() for name, value in method.a.state_dict().items()}

    trainer._start_phase = spy  # type: ignore[method-assign]
    trainer.fit()
    assert {key: type(optimizer) for key, optimizer in trainer.optimizers.items()} == dict.fromkeys(
        "ab", torch.optim.Adam
    )
    assert trainer.specs["b"][0].lr == 1e-3 and trainer.specs["b"][1].lr == "constant"
    assert seen[0] == {"a": {}, "b": {}}
    for key in ("a", "b"):
        states = seen[1][key].values()
        assert len(states) == len(list(getattr(method, key).parameters()))
        assert all(state["step"] == 2 and state["exp_avg_sq"].any() for state in states)
    assert all(torch.equal(value, seen["a"][name]) for name, value in seen["teacher"].items())
    assert any(not torch.equal(value, seen["teacher"][name]) for name, value in method.teacher.state_dict().items())


def test_each_loss_steps_its_own_student(self_training: tuple[Method, Batch]) -> None:
    method, batch = self_training
    phase = method.phases()[1]
    groups = method.groups(phase)
    assert {key: len(group.parameters) for key, group in groups.items()} == {
        key: len(list(getattr(method, key).parameters())) for key in ("a", "b")
    }
    method.zero_grad(set_to_none=True)
    backward(method.training_step(batch, make_step(phase=phase.name)), groups)
    assert all(p.grad is not None for key in ("a", "b") for p in getattr(method, key).parameters())
    assert all(p.grad is None for p in method.teacher.parameters())


def test_halves_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="even and equal, not 3 and 3"):
        tiny_job_2d("sdcl", set={"batch.labeled": 3, "batch.unlabeled": 3}).resolved  # noqa: B018
