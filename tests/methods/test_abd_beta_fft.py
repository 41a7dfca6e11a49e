"""ABD and β-FFT: displaced patches, exchanged frequencies, what a step is made of, what the phases hand on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sslbench.config.job import Job
from sslbench.conformance.bench import MemoryRecorder
from sslbench.core.errors import UsageError
from sslbench.losses import DiceLoss, bcp_mix_loss
from sslbench.methods.mixing import (
    choose_patches,
    displace,
    draw_beta,
    draw_copy_paste_mask,
    exchange_low_bands,
    largest_components,
    low_band,
    paste,
)
from sslbench.methods.shared.co_training import Prediction
from sslbench.networks.base import Decoder
from sslbench.networks.parts import cut_parts
from sslbench.training.checkpoint import Checkpoints
from sslbench.training.trainer import Trainer
from tests.helpers.jobs import random_experiment, tiny_job_2d
from tests.helpers.methods import make_step

SHAPES = [(8, 12), (8, 4, 12)]


# ------------------------------------------------------------------------------------------------------- displacement


@pytest.mark.parametrize("shape", SHAPES)
def test_confident_patches_go_and_the_least_confident_one_is_replaced(shape: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(3)
    scale = 3 * torch.rand(6, 1, *shape, generator=draw)
    logits, other = (scale * torch.randn(6, 3, *shape, generator=draw, dtype=torch.float64) for _ in range(2))
    by_output = torch.tensor([True, False] * 3)
    goes, replaced = choose_patches(logits.requires_grad_(), other, by_output, grid=2, candidates=3)

    def softmax(values: np.ndarray) -> np.ndarray:
        return np.exp(values) / np.exp(values).sum(0)

    for row in range(6):
        cells = [cut_parts(part.detach(), [2] * len(shape))[row].numpy() for part in (logits, other)]
        confidence, confidence_other = ([softmax(patch).max(0).mean() for patch in part] for part in cells)
        wanted = softmax(cells[1][int(np.argmin(confidence_other))].mean(tuple(range(1, 1 + len(shape)))))
        best = np.argsort(confidence)[::-1][:3]
        divergence = []
        for number in best:
            offered = softmax(cells[0][number].mean(tuple(range(1, 1 + len(shape)))))
            divergence.append(float((wanted * np.log(wanted / offered)).sum()))
        expected = best[int(np.argmin(divergence))] if by_output[row] else best[0]
        assert (int(goes[row]), int(replaced[row])) == (expected, int(np.argmin(confidence)))
    # Not the same by chance: the nearest output is not always that of the most confident patch.
    assert not torch.equal(goes, choose_patches(logits, other, ~by_output, grid=2, candidates=3)[0])


def test_the_second_image_gets_its_patch_out_of_what_the_first_has_become() -> None:
    a, b = torch.arange(4.0).view(1, 1, 2, 2), 10 + torch.arange(4.0).view(1, 1, 2, 2)
    one, two, three = (torch.tensor([number]) for number in (1, 2, 3))
    left, right = displace(a, b, (one, two), (three, two), grid=2)
    assert left.flatten().tolist() == [0, 1, 13, 3] and right.flatten().tolist() == [10, 11, 1, 13]
    # The patch that goes is the one that was replaced: it comes back.
    _, right = displace(a, b, (two, two), (three, one), grid=2)
    assert right.flatten().tolist() == [10, 13, 12, 13]
    assert a.flatten().tolist() == [0, 1, 2, 3]


# -------------------------------------------------------------------------------------------------------- frequencies


def test_the_exchange_of_frequencies_has_the_worked_numbers() -> None:
    x = torch.arange(16, dtype=torch.float64).view(1, 1, 4, 4) / 16
    y = x.flip(-1) ** 2
    first = [0.349385619, 0.326259583, 0.386541158, 0.406250000]  # of fp32
    assert low_band(x, 1 / 4)[0, 0, 0].tolist() == pytest.approx(first, abs=1e-8)
    changed = [-0.066155553, 0.026941270, -0.016433701, 0.017448962]
    assert exchange_low_bands(x, y, 1 / 4)[0][0, 0, 0].tolist() == pytest.approx(changed, abs=1e-8)


@pytest.mark.parametrize("shape", [(16, 9), (8, 7, 12)])
def test_the_low_band_is_the_middle_block_of_the_shifted_spectrum(shape: tuple[int, ...]) -> None:
    x, y = (torch.rand(2, 3, *shape, dtype=torch.float64) for _ in range(2))
    axes = tuple(range(-len(shape), 0))

    def low(image: Tensor) -> np.ndarray:
        spectrum = np.fft.fftshift(np.fft.fftn(image.numpy(), axes=axes), axes=axes)
        kept = np.zeros_like(spectrum)
        block = (..., *(slice(side // 2 - side // 4, side // 2 + side // 4) for side in shape))
        kept[block] = spectrum[block]
        return np.abs(np.fft.ifftn(np.fft.ifftshift(kept, axes=axes), axes=axes))

    found = exchange_low_bands(x, y, 0.25)
    assert np.allclose(found[0], x.numpy() - low(x) + low(y)) and np.allclose(found[1], y.numpy() - low(y) + low(x))
    assert exchange_low_bands(x.bfloat16(), y.bfloat16(), 0.25)[0].dtype == torch.float32


def test_at_256_the_block_is_that_of_the_paper_and_never_empty() -> None:
    waves = torch.cos(2 * torch.pi * torch.arange(256) * torch.tensor([[29.0], [31.0]]) / 256)
    kept = low_band(waves.view(2, 1, 1, 256), 30 / 256).square().mean((1, 2, 3))
    assert kept[0] > 0.4 and kept[1] < 1e-6
    assert low_band(torch.ones(1, 1, 4, 4), 0.01).allclose(torch.ones(1))


def test_draws_of_the_beta_distribution_are_those_of_their_step() -> None:
    step, cpu = make_step(), torch.device("cpu")
    drawn = draw_beta(100_000, 0.1, step, cpu, "linear/weak")
    assert torch.equal(drawn, draw_beta(100_000, 0.1, step, cpu, "linear/weak"))
    assert not torch.equal(drawn[:8], draw_beta(8, 0.1, step, cpu, "linear/strong"))
    assert drawn.min() >= 0 and drawn.max() <= 1
    # Mean ½; variance 1 / (4 (2·0.1 + 1)).
    assert float(drawn.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(drawn.var()) == pytest.approx(1 / 4.8, abs=0.005)


# ------------------------------------------------------------------------------------------------------------- a step


def eager(name: str, options: dict[str, Any] | None = None, **fields: Any) -> Any:
    """A method in evaluation mode, where it is no matter which patches go together, with confident networks; a batch;
    a step."""
    experiment = random_experiment(tiny_job_2d(name, set=options or {}, **fields))
    method = experiment.method.eval()
    with torch.no_grad():
        for module in method.modules():
            if isinstance(module, Decoder):
                for parameter in module.head.parameters():
                    parameter.mul_(20)
        for parameter in method.teacher.parameters():
            parameter.mul_(1.05)
    batch = experiment.sampler.batch(0, ("labeled", "unlabeled"), ("weak", "strong"))
    return method, batch, make_step(phase="self-train")


def shared_terms(method: Any, batch: Any, step: Any) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """What ABD and β-FFT have in common, by the public functions: regions and cross term; mixes and their logits."""
    mask = draw_copy_paste_mask(batch.image["weak"].shape[2:], step, torch.device("cpu"), method.options.box)
    total, mixed, logits = torch.zeros(()), {}, {}
    for key, view in (("a", "weak"), ("b", "strong")):
        image, labels, net = batch.image[view], batch.label[view], method.get_submodule(key)
        pseudo = largest_components(method.teacher(image[4:]).argmax(1), 4)
        mixed[key] = torch.cat([paste(image[4:6], image[0:2], mask), paste(image[2:4], image[6:8], mask)])
        logits[key] = net(mixed[key])
        first, second = logits[key].chunk(2)
        total = total + bcp_mix_loss(first, pseudo[0:2], labels[0:2], mask, 0.5, 1.0)
        total = total + bcp_mix_loss(second, labels[2:4], pseudo[2:4], mask, 1.0, 0.5)
    return total + both_ways(logits["a"], logits["b"]), mixed, logits


def both_ways(a: Tensor, b: Tensor) -> Tensor:
    dice = DiceLoss(1e-10)
    return dice(a, b.argmax(1)) + dice(b, a.argmax(1))


def test_a_step_of_abd_is_two_bcp_losses_and_four_cross_terms() -> None:
    method, batch, step = eager("abd")
    expected, mixed, logits = shared_terms(method, batch, step)
    by_output = torch.rand(4, generator=step.generator("displacement")) < 0.5
    chosen = [choose_patches(logits[own], logits[other], by_output, 4, 4) for own, other in (("a", "b"), ("b", "a"))]
    altered = torch.cat(displace(mixed["a"], mixed["b"], *chosen, 4))
    expected = expected + both_ways(method.a(altered), method.b(altered))
    assert not torch.equal(altered, torch.cat([mixed["a"], mixed["b"]]))
    assert torch.allclose(method.training_step(batch, step)["loss"], expected, atol=1e-5)


@pytest.mark.parametrize("released", [False, True])
def test_a_step_of_beta_fft_adds_unmixed_and_linearly_mixed_patches(released: bool) -> None:
    method, batch, step = eager("beta_fft", {"method.released_bfft3": released, "criteria.smooth": 1e-10})
    assert method.options.box == 0.6
    expected, mixed, _ = shared_terms(method, batch, step)
    altered = torch.cat(exchange_low_bands(mixed["a"], mixed["b"], 30 / 256))
    expected = expected + both_ways(method.a(altered), method.b(altered))
    for view in ("weak", "strong"):
        image, labels = batch.image[view], batch.label[view]
        expected = expected + method.loss.supervised(method.a(image[:4]), labels[:4], key="a")
        m = draw_beta(2, 0.1, step, torch.device("cpu"), f"linear/{view}").view(-1, 1, 1, 1)
        teacher = method.teacher(image[4:]).softmax(1)
        target = (1 - m) * teacher[:2] + m * teacher[2:]
        linear = (1 - m) * image[4:6] + m * image[6:8]
        if released and view == "weak":
            target = teacher[:2]
        if released and view == "strong":
            linear = image[4:6]
        distance = (method.a(linear).softmax(1) - target).square().mean()
        expected = expected + 5 * 0.1 * distance  # the ramp of the step is 0.1
    terms = method.training_step(batch, step)
    assert torch.allclose(terms["loss"], expected, atol=1e-5)
    without = method.training_step(batch, replace(step, consistency_weight=torch.tensor(0.0)))
    assert float(without["linear"].detach()) == 0 and float(terms["linear"].detach()) > 0


def test_linear_mixes_and_unmixed_patches_teach_student_a_alone_and_the_cross_terms_both() -> None:
    method, batch, step = eager("beta_fft")
    terms = method.training_step(batch, step)
    learners = {key: list(method.get_submodule(key).parameters()) for key in ("a", "b")}
    reached = {
        name: {
            key
            for key, parameters in learners.items()
            if any(
                gradient is not None and gradient.abs().max() > 0
                for gradient in torch.autograd.grad(terms[name], parameters, retain_graph=True, allow_unused=True)
            )
        }
        for name in ("labeled", "unlabeled", "cross", "cross_altered", "supervised", "linear")
    }
    assert reached == {
        **{name: {"a", "b"} for name in ("labeled", "unlabeled", "cross", "cross_altered")},
        **{name: {"a"} for name in ("supervised", "linear")},
    }


def test_the_target_of_a_cross_term_has_no_gradient() -> None:
    method = eager("abd", loss="metassl")[0]
    a, b = (torch.randn(2, 4, 8, 8, requires_grad=True) for _ in range(2))
    for key, logits in (("a", a), ("b", b)):
        method.loss.observe(make_step(), key, logits, torch.full((2, 8, 8), -1))
    pair = [Prediction("a", a), Prediction("b", b)]
    (together,) = torch.autograd.grad(method.cross(pair), a)
    alone = method.loss.dice(a, b.argmax(1), source="pseudo", key="a", reference=("b", b.detach().softmax(1)))
    assert torch.allclose(together, torch.autograd.grad(alone, a)[0])


def test_with_metassl_the_teacher_is_the_reference_in_its_own_view(monkeypatch: pytest.MonkeyPatch) -> None:
    method, batch, step = eager("abd", loss="metassl")
    asked: list[tuple[str, str, Tensor]] = []
    supervised = method.loss.supervised

    def spy(logits: Tensor, target: Tensor, *, key: str, reference: tuple[str, Tensor], **rest: Any) -> Tensor:
        asked.append((key, reference[0], reference[1]))
        found: Tensor = supervised(logits, target, key=key, reference=reference, **rest)
        return found

    monkeypatch.setattr(method.loss, "supervised", spy)
    method.training_step(batch, step)
    assert [(learner, reference) for learner, reference, _ in asked] == [("a", "teacher")] * 4 + [("b", "teacher")] * 4
    for view, regions in (("weak", asked[:4]), ("strong", asked[4:])):
        whole = method.teacher(batch.image[view]).softmax(1)
        # Unlabelled a outside of the box and labelled a inside it, then labelled b and unlabelled b.
        for half, (_, _, probabilities) in zip((4, 0, 2, 6), regions, strict=True):
            assert torch.allclose(probabilities, whole[half : half + 2], atol=1e-5)


# ------------------------------------------------------------------------------------------------- phases and recipes


def test_both_students_and_optimisers_begin_with_the_network_trained_before(tmp_path: Path) -> None:
    settings = {"batch.labeled": 2, "batch.unlabeled": 2, "method.pretrain_iterations": 2, "schedule.validate_every": 1}
    experiment = random_experiment(tiny_job_2d("abd", set=settings | {"schedule.iterations": 1}))
    method, seen, records = experiment.method, {}, MemoryRecorder()
    trainer = Trainer(experiment, Checkpoints(tmp_path), records)
    start = trainer._start_phase

    def spy(number: int, optimizers: Any) -> None:
        start(number, optimizers)
        seen[number] = (
            {name: value.clone() for name, value in method.state_dict().items()},
            {name: optimizer.state_dict()["state"] for name, optimizer in trainer.optimizers.items()},
        )

    trainer._start_phase = spy  # type: ignore[method-assign]
    trainer.fit()
    state, optimizers = seen[1]
    names = [name.removeprefix("a.") for name in state if name.startswith("a.")]
    for name in names:
        assert torch.equal(state[f"a.{name}"], state[f"b.{name}"])
        assert torch.equal(state[f"a.{name}"], state[f"teacher.{name}"])
    assert not all(torch.equal(state[f"a.{name}"], seen[0][0][f"a.{name}"]) for name in names)
    assert seen[0][1].keys() == {"a"} and optimizers.keys() == {"a", "b"}
    for number, momentum in optimizers["a"].items():
        twin = optimizers["b"][number]["momentum_buffer"]
        assert twin.data_ptr() != momentum["momentum_buffer"].data_ptr()
    validated = [set(entry["validation"]) for entry in records.entries if "validation" in entry]
    alone, both = {"dsc/a", "dsc/a/class"}, {"dsc/a", "dsc/a/class", "dsc/b", "dsc/b/class"}
    assert validated == [alone, alone, both]


@pytest.mark.parametrize("method", ["abd", "beta_fft"])
def test_what_the_recipe_must_have(method: str) -> None:
    for settings, said in (
        ({"augment.strong": []}, "no strong view"),
        ({"batch.labeled": 3, "batch.unlabeled": 3}, "even and equal"),
    ):
        with pytest.raises(UsageError, match=said):
            tiny_job_2d(method, set=settings).resolved  # noqa: B018
    if method == "abd":
        with pytest.raises(UsageError, match="divide into 5 parts"):
            tiny_job_2d(method, set={"method.grid": 5}).resolved  # noqa: B018


def test_the_recipe_of_acdc_is_that_of_the_papers() -> None:
    for method, labeled, box in (
        ("abd", "7 patients", 2 / 3),
        ("beta_fft", "3 patients", 2 / 3),
        ("beta_fft", "7 patients", 0.6),
    ):
        resolved = Job(recipe="ssl4mis-acdc", method=method, labeled=labeled).resolved
        recipe = resolved.recipe
        assert (resolved.method["box"], recipe.schedule.lr) == (box, "constant")
        assert [kind.name for kind in recipe.augment.strong] == ["cutout", "jitter"]
    # Whole pixels of 256: the boxes of β-FFT's two scripts.
    sides = [
        int((draw_copy_paste_mask((256, 256), make_step(), torch.device("cpu"), box) == 0).any(0).sum())
        for box in (2 / 3, 0.6)
    ]
    assert sides == [170, 153]
