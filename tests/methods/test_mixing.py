"""Copy-paste mixing, perturbed decoders, and what BCP's phases hand on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from sslbench.conformance.bench import MemoryRecorder
from sslbench.core.errors import UsageError
from sslbench.losses import bcp_mix_loss, cct_loss
from sslbench.methods.mixing import copy_paste_mask, draw_copy_paste_mask, largest_components, paste
from sslbench.networks import Features, build_network
from sslbench.networks.perturbation import feature_drop, feature_dropout, feature_noise
from sslbench.training.checkpoint import Checkpoints
from sslbench.training.trainer import Trainer
from tests.helpers.jobs import random_experiment, tiny_job, tiny_job_2d
from tests.helpers.methods import make_step


def test_the_mask_is_zero_inside_a_box_of_two_thirds() -> None:
    mask = copy_paste_mask((256, 96), (3, 31))
    assert mask.shape == (256, 96) and mask.unique().tolist() == [0, 1]
    assert (mask == 0).sum() == 170 * 64  # ⌊2/3·256⌋ by ⌊2/3·96⌋
    assert mask[3, 31] == 0 and mask[172, 94] == 0 and mask[2].min() == 1 and mask[173].min() == 1
    assert (copy_paste_mask((112, 112, 80), (0, 0, 0)) == 0).sum() == 74 * 74 * 53


def test_boxes_begin_anywhere_but_at_the_last_place() -> None:
    starts = {
        tuple(torch.nonzero(draw_copy_paste_mask((9, 6), make_step(seed=seed), torch.device("cpu")) == 0)[0].tolist())
        for seed in range(300)
    }
    assert starts == {(row, column) for row in range(3) for column in range(2)}


def test_pasting_takes_the_box_from_the_other_image() -> None:
    outside, inside = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    mask = copy_paste_mask((4, 4), (1, 0), 0.5)
    mixed = paste(outside, inside, mask)
    assert torch.equal(mixed[1, 0], 1 - mask)
    assert paste(torch.full((4, 4), -1), torch.ones(4, 4, dtype=torch.int64), mask).dtype == torch.int64


@pytest.mark.parametrize("shape", [(20, 24), (9, 10, 11)])
def test_the_largest_component_of_every_class_stays(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, size=(3, *shape)) * (random.random((3, *shape)) < 0.6)
    kept = largest_components(torch.from_numpy(labels), 4).numpy()
    for patch, found in zip(labels, kept, strict=True):
        for number in range(1, 4):
            parts, count = ndimage.label(patch == number, ndimage.generate_binary_structure(patch.ndim, patch.ndim))
            sizes = [int((parts == part).sum()) for part in range(1, count + 1)]
            assert np.array_equal(found == number, parts == 1 + int(np.argmax(sizes)))


def test_a_class_that_is_not_there_and_an_empty_patch_have_no_component() -> None:
    labels = torch.zeros(2, 5, 5, dtype=torch.int64)
    labels[1, 0, 0] = labels[1, 1, 1] = labels[1, 4, 4] = 2  # joined by a corner, and one apart
    kept = largest_components(labels, 4)
    assert kept[0].sum() == 0
    assert torch.nonzero(kept[1]).tolist() == [[0, 0], [1, 1]] and kept.dtype == torch.int64


# --------------------------------------------------------------------------------------------------------------- BCP


def test_a_step_of_bcp_is_the_published_mix_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    job = tiny_job_2d("bcp", set={"batch.labeled": 4, "batch.unlabeled": 4})
    experiment = random_experiment(job)
    method, batch, step = experiment.method.eval(), experiment.sampler.batch(0), make_step(phase="self-train")
    image, labels = batch.image["weak"], batch.label["weak"]
    mask = draw_copy_paste_mask(image.shape[2:], step, image.device)
    pseudo = largest_components(method.teacher(image[4:]).argmax(1), method.statistics.num_classes)
    first = method.student(paste(image[4:6], image[0:2], mask))
    second = method.student(paste(image[2:4], image[6:8], mask))
    expected = bcp_mix_loss(first, pseudo[0:2], labels[0:2], mask, 0.5, 1.0) + bcp_mix_loss(
        second, labels[2:4], pseudo[2:4], mask, 1.0, 0.5
    )
    assert torch.allclose(method.training_step(batch, step)["loss"], expected, atol=1e-6)


def test_bcp_begins_with_the_best_weights_before_and_their_optimiser(tmp_path: Path) -> None:
    settings = {"batch.labeled": 2, "batch.unlabeled": 2, "method.pretrain_iterations": 4, "schedule.validate_every": 2}
    experiment = random_experiment(tiny_job_2d("bcp", set=settings))
    method, seen = experiment.method, {}
    begin = method.begin

    def spy(phase: Any) -> None:
        begin(phase)
        if phase.name == "self-train":
            seen.update({name: value.clone() for name, value in method.state_dict().items()})

    method.begin = spy
    trainer = Trainer(experiment, Checkpoints(tmp_path), MemoryRecorder())
    start = trainer._start_phase

    def spied_start(number: int, optimizers: Any) -> None:
        seen.setdefault(f"optimizers {number}", optimizers)
        start(number, optimizers)

    trainer._start_phase = spied_start  # type: ignore[method-assign]
    trainer.fit()
    teacher = {name.removeprefix("teacher."): value for name, value in seen.items() if name.startswith("teacher.")}
    student = {name.removeprefix("student."): value for name, value in seen.items() if name.startswith("student.")}
    assert teacher.keys() == student.keys() and all(torch.equal(teacher[name], student[name]) for name in teacher)
    momentum = seen["optimizers 1"]["networks"]["state"]
    assert seen["optimizers 0"] is None and any(state["momentum_buffer"].any() for state in momentum.values())


def test_bcp_objects_to_halves_that_do_not_fit() -> None:
    for labeled, unlabeled in ((3, 3), (2, 4)):
        settings = {"batch.labeled": labeled, "batch.unlabeled": unlabeled}
        with pytest.raises(UsageError, match=f"even and equal, not {labeled} and {unlabeled}"):
            tiny_job_2d("bcp", set=settings).resolved  # noqa: B018


# ------------------------------------------------------------------------------------------------------ other methods


def test_cct_holds_its_decoders_against_each_other() -> None:
    experiment = random_experiment(tiny_job("cct"))
    method, batch = experiment.method.eval(), experiment.sampler.batch(0)
    L = batch.num_labeled
    torch.manual_seed(0)
    terms = method.training_step(batch, make_step())
    torch.manual_seed(0)
    features = method.net.encode(batch.image["weak"])
    heads = [method.net.head(method.net.decode(features)[-1])]
    for decoder, perturb in zip(method.auxiliary, (feature_noise, feature_dropout, feature_drop), strict=True):
        heads.append(decoder.head(decoder(features.map(perturb))[-1]))
    assert torch.allclose(terms["consistency"], cct_loss(heads[0][L:], [head[L:] for head in heads[1:]]))
    labels = batch.label["weak"][:L]
    expected = sum(method.loss.supervised(head[:L], labels, key="net") for head in heads) / 4
    assert torch.allclose(terms["supervised"], expected)


def test_the_unet_of_cct_has_the_published_size_and_four_outputs() -> None:
    network = build_network("unet_cct", 1, 4)
    assert sum(parameter.numel() for parameter in network.parameters()) == 3_713_664
    outputs = network(torch.rand(2, 1, 32, 32))
    assert len(outputs) == 4 and all(output.shape == (2, 4, 32, 32) for output in outputs)
    apart = [float((output - outputs[0]).detach().abs().max()) for output in outputs[1:]]
    assert min(apart) > 0


def test_perturbations_do_what_they_say() -> None:
    content = torch.rand(3, 5, 8, 8) + 0.5
    noisy = feature_noise(0, content) / content
    assert noisy.min() > 0.6999 and noisy.max() < 1.3001 and torch.allclose(noisy[0], noisy[2])
    dropped = feature_dropout(0, content)
    kept = dropped != 0
    assert 0.6 < kept.float().mean() < 0.8 and torch.allclose(dropped[kept], content[kept] / 0.7)
    attention = content.mean(1)
    removed = (feature_drop(0, content) == 0).all(1)
    for patch in range(3):
        share = attention[patch] / attention[patch].max()
        assert removed[patch][share > 0.9].all() and not removed[patch][share < 0.7].any()
    assert removed.any()
    prior = (torch.zeros(1),)
    assert Features((content,), prior).map(feature_noise).prior is prior


def test_rdrop_needs_a_network_that_drops() -> None:
    with pytest.raises(UsageError, match="without dropout"):
        tiny_job("rdrop", set={"method.networks": "one"}).resolved  # noqa: B018
    with pytest.raises(UsageError, match="without dropout"):
        tiny_job_2d("rdrop", set={"method.networks": "one", "network.dropout": [0, 0, 0, 0, 0]}).resolved  # noqa: B018
    resolved = tiny_job("rdrop", set={"method.networks": "one", "network.dropout": 0.5}).resolved
    assert resolved.recipe.ramp.weight == 4.0
    one = random_experiment(tiny_job_2d("rdrop", set={"method.networks": "one"})).method
    assert one.predictors == ("net",) and random_experiment(tiny_job("rdrop")).method.predictors == ("a", "b")


def test_fixmatch_needs_a_strong_view() -> None:
    with pytest.raises(UsageError, match="no strong view"):
        tiny_job_2d("fixmatch", set={"augment.strong": []}).resolved  # noqa: B018


def test_uamt_can_count_epochs() -> None:
    method = random_experiment(tiny_job("uamt", set={"method.clock": "epoch"})).method
    step = make_step()
    assert method.average().decay_at(step) == 0.5 and step.epoch == 1
    assert random_experiment(tiny_job("uamt")).method.average().decay_at(step) == pytest.approx(1 - 1 / 6)
