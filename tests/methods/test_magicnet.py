"""MagicNet: cubes against plain loops, the blend by hand, and a step against its formula, patch by patch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslbench.config.job import Job
from sslbench.conformance import LAWS
from sslbench.conformance.bench import Subject
from sslbench.core.errors import UsageError
from sslbench.core.step import Batch, Statistics, Step
from sslbench.losses import DiceLoss
from sslbench.methods import magicnet
from sslbench.methods.base import Method
from sslbench.methods.magicnet import blend_pseudo_labels, cube_restore, cube_shuffle, join_cubes, split_cubes
from sslbench.training.experiment import Builder, build_method

# The published network (instance norm, cubes of 32³), as small as that may be.
PUBLISHED = {
    "network.norm": "instance",
    "patch_size": [32, 32, 64],
    "inference.stride": [32, 32, 64],
    "inference.validation_stride": [32, 32, 64],
    "method.cube": 32,
    "method.location_width": 8,
}


def places(grid: Sequence[int]) -> list[tuple[int, ...]]:
    """All places in the order that is documented."""
    return list(itertools.product(*map(range, grid)))


def cube_of(volume: Tensor, place: Sequence[int], side: int) -> Tensor:
    return volume[(..., *(slice(side * number, side * (number + 1)) for number in place))]


# --------------------------------------------------------------------------------------------------------- the cubes


@pytest.mark.parametrize(("sides", "grid"), [((9, 9, 9), (3, 3, 3)), ((4, 8, 12), (1, 2, 3)), ((6, 4), (3, 2))])
def test_cubes_are_cut_row_by_row_and_put_together_again(sides: tuple[int, ...], grid: tuple[int, ...]) -> None:
    side = sides[0] // grid[0]
    volume = torch.arange(2 * 3 * np.prod(sides), dtype=torch.float32).view(2, 3, *sides)
    cubes = split_cubes(volume, side)
    assert cubes.shape == (2, len(places(grid)), 3, *[side] * len(grid))
    for number, place in enumerate(places(grid)):
        assert torch.equal(cubes[:, number], cube_of(volume, place, side))
    assert torch.equal(join_cubes(cubes, sides), volume)
    assert torch.equal(join_cubes(cubes[:, :, :1], volume.shape), volume[:, :1])  # of any number of channels
    with pytest.raises(ValueError, match="do not fill"):
        split_cubes(volume, 5)


@pytest.mark.parametrize("grid", [(3, 3, 3), (1, 2, 3), (3, 2)])
def test_shuffled_cubes_change_their_patch_and_keep_their_place(grid: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(0)
    volume = torch.randn((4, 2, *(4 * number for number in grid)), generator=draw)
    perm = torch.rand((4, *grid), generator=draw).argsort(0)
    mixed = cube_shuffle(volume, perm)
    for b in range(4):
        for place in places(grid):
            source = int(perm[(b, *place)])
            assert torch.equal(cube_of(mixed, place, 4)[b], cube_of(volume, place, 4)[source])
    assert torch.equal(cube_restore(mixed, perm), volume)
    # Maps of mixed patches are put back at their own resolution.
    half = tuple(slice(None, None, 2) for _ in grid)
    assert torch.equal(cube_restore(mixed[(..., *half)], perm), volume[(..., *half)])


def test_gradients_go_back_to_the_patch_that_a_cube_is_from() -> None:
    volume = torch.randn(3, 1, 4, 4, requires_grad=True)
    perm = torch.tensor([1, 2, 0]).view(3, 1, 1).expand(3, 2, 2)
    cube_shuffle(volume, perm)[0].sum().backward()
    assert volume.grad is not None
    assert volume.grad.flatten(1).sum(1).tolist() == [0, 16, 0]


# --------------------------------------------------------------------------------------------------------- the blend


def test_frequent_classes_trust_the_cubes_and_rare_ones_the_teacher() -> None:
    counts = torch.tensor([900, 90, 0])
    # Three voxels that the teacher gives to classes 0, 1 and 2.
    teacher = torch.tensor([[4.0, 0.0, 0.0], [1.0, 2.0, 0.0], [0.0, 1.0, 3.0]]).T.reshape(1, 3, 3, 1)
    cubes = torch.tensor([[0.0, 5.0, 1.0], [9.0, 0.0, 0.0], [9.0, 0.0, 0.0]]).T.reshape(1, 3, 3, 1)
    probabilities, labels = blend_pseudo_labels(teacher, cubes, counts)
    blended = torch.tensor([[0.0, 5.0, 1.0], [0.9 * 1 + 0.1 * 9, 0.9 * 2, 0.0], [0.0, 1.0, 3.0]])
    assert torch.allclose(probabilities[0, :, :, 0].T, blended.softmax(1), atol=1e-6)
    assert labels.flatten()[[0, 2]].tolist() == [1, 2] and labels.shape == (1, 3, 1)
    # T = 2 takes the root of the share.
    warm, _ = blend_pseudo_labels(teacher, cubes, counts, temperature=2.0)
    root = 0.1**0.5
    second = (1 - root) * torch.tensor([1.0, 2.0, 0.0]) + root * torch.tensor([9.0, 0.0, 0.0])
    assert torch.allclose(warm[0, :, 1, 0], second.softmax(0), atol=1e-6)
    # Nothing counted yet: the teacher alone. Counts and shares are one.
    assert torch.equal(blend_pseudo_labels(teacher, cubes, 0 * counts)[1].flatten(), torch.arange(3))
    assert torch.allclose(blend_pseudo_labels(teacher, cubes, counts / 990)[0], probabilities, atol=1e-6)


# ------------------------------------------------------------------------------------------------------------- a step


def made(subject: Subject, iteration: int) -> tuple[Method, Batch, Step]:
    phase = subject.phases()[0]
    return subject.sure(1).train(), subject.batch(phase), replace(subject.step(phase, 0.3), iteration=iteration)


def within(method: Any, patch: Tensor, order: Sequence[int] | None = None) -> Tensor:
    """Logits of one patch whose two cubes are seen one after the other."""
    pieces = [
        method.student.decode(method.student.encode(cube_of(patch, place, 32)))[-1] for place in places((1, 1, 2))
    ]
    return method.student.head(torch.cat([pieces[number] for number in order or range(2)], -1))


def by_formula(method: Any, batch: Batch, step: Step) -> dict[str, Tensor]:
    """The terms of a step after the sheet: one patch, one cube at a time, the pieces put together by hand."""
    image, labels, L = batch.image["weak"], batch.label["weak"], batch.num_labeled
    dice = DiceLoss(method.loss.criteria.smooth)
    whole = method.student(image)
    perm = torch.rand((4, 1, 1, 2), generator=step.generator("cubes")).argsort(0)
    mixed = torch.cat(
        [torch.cat([cube_of(image, place, 32)[int(perm[b, *place])] for place in places((1, 1, 2))], -1)[None]
         for b in range(4)]
    )  # fmt: skip
    maps = method.student.decode(method.student.encode(mixed))[-1]
    back = maps.clone()
    for b, place in itertools.product(range(4), places((1, 1, 2))):
        cube_of(back, place, 32)[int(perm[b, *place])] = cube_of(maps, place, 32)[b]
    cross = method.student.head(back)
    cut = torch.cat([within(method, image[b : b + 1]) for b in range(4)])
    terms = [F.cross_entropy(whole[:L], labels[:L]), *(dice(part[:L], labels[:L]) for part in (whole, cross, cut))]
    location = torch.stack(
        [
            F.cross_entropy(
                method.location(
                    torch.cat(
                        [
                            method.student.encode(cube_of(patch[None], place, 32)).maps[-1].flatten(1)
                            for place in places((1, 1, 2))
                        ]
                    )
                ),
                torch.arange(2),
            )
            for patch in image
        ]
    ).mean()
    noise = torch.empty_like(image).normal_(generator=step.generator("teacher-noise"))
    teacher_logits = method.teacher((image + (0.1 * noise).clamp(-0.2, 0.2))[L:])
    share = method.class_counts / method.class_counts.max().clamp_min(1)
    trust = share[teacher_logits.argmax(1)][:, None]
    target = ((1 - trust) * teacher_logits + trust * cut[L:] if step.iteration > 100 else teacher_logits).argmax(1)
    consistency = dice(cross[L:], target)
    supervised = torch.stack(terms).sum() / 4
    return {
        "loss": supervised + 0.1 * location + 0.3 * consistency,
        "supervised": supervised,
        "location": location,
        "consistency": consistency,
    }


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject("magicnet", dims="3d", set=PUBLISHED)


@pytest.mark.parametrize("iteration", [100, 101])
def test_a_step_is_the_published_formula(subject: Subject, iteration: int) -> None:
    method, batch, step = made(subject, iteration)
    method.class_counts.copy_(torch.tensor([50, 100, 30, 80]))
    expected = by_formula(method, batch, step)
    terms = method.training_step(batch, step)
    for name, value in expected.items():
        assert torch.allclose(terms[name], value, rtol=1e-4), name


def test_places_teach_the_encoder_alone_and_pseudo_labels_take_no_gradient(subject: Subject) -> None:
    method, batch, step = made(subject, 101)
    method.class_counts.fill_(1)  # the cubes alone
    terms = method.training_step(batch, step)
    learned = {name: parameter for name, parameter in method.named_parameters() if parameter.requires_grad}

    def reached(term: str) -> set[str]:
        found = torch.autograd.grad(terms[term], list(learned.values()), retain_graph=True, allow_unused=True)
        return {
            ".".join(name.split(".")[:2]) for name, gradient in zip(learned, found, strict=True) if gradient is not None
        }

    assert reached("location") == {"student.encoder", *(f"location.{layer}" for layer in (0, 1, 3))}
    assert reached("consistency") == {"student.encoder", "student.decoders"}
    teacher_logits = torch.randn(2, 4, 32, 32, 64)
    labels = method._pseudo_labels(teacher_logits, subject_features(method, batch), step)
    assert labels.dtype == torch.int64 and labels.shape == (2, 32, 32, 64)


def subject_features(method: Any, batch: Batch) -> Any:
    return method.student.base.encode(split_cubes(batch.image["weak"], 32).flatten(0, 1))


def test_classes_are_counted_and_handed_on_every_twenty_iterations(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, batch, step = made(subject, 0)
    features = subject_features(method, batch)
    teacher_logits = torch.randn(2, 4, 32, 32, 64, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(teacher_logits.argmax(1).flatten(), minlength=4)

    def never(*_: Any) -> Any:
        raise AssertionError("nothing is blended yet")

    with monkeypatch.context() as patched:
        patched.setattr(magicnet, "blend_pseudo_labels", never)
        for iteration in range(101):
            method._pseudo_labels(teacher_logits, features, replace(step, iteration=iteration))
            if iteration in (0, 19):
                assert torch.equal(method.class_counts, counts)  # of iteration 0
                assert torch.equal(method.pending, iteration * counts)
            if iteration in (20, 39, 100):  # of 1 to 20, not on top of the older ones
                assert torch.equal(method.class_counts, 20 * counts)
    assert not method.pending.any() and {"class_counts", "pending"} <= method.state_dict().keys()
    # What is blended is counted blended: here of cubes that all say class 3.
    threes = torch.full((2, 32, 32, 64), 3)
    monkeypatch.setattr(method, "_together", lambda *_: 99.0 * F.one_hot(threes, 4).movedim(-1, 1))
    method.class_counts.fill_(1)
    labels = method._pseudo_labels(teacher_logits, features, replace(step, iteration=101))
    assert torch.equal(labels, threes) and method.pending.tolist() == [0, 0, 0, threes.numel()]


# -------------------------------------------------------------------------------------------------- what was released


def test_the_released_code_blends_cubes_of_labeled_patches(monkeypatch: pytest.MonkeyPatch, subject: Subject) -> None:
    asked: dict[bool, slice] = {}
    for released in (False, True):
        method, batch, step = made(subject, 101)
        method.options = method.options.model_copy(update={"released_blending": released})

        def spy(features: Any, patches: slice, key: bool = released) -> Tensor:
            asked[key] = patches
            return torch.zeros(2, 4, 32, 32, 64)

        monkeypatch.setattr(method, "_together", spy)
        method._pseudo_labels(torch.zeros(2, 4, 32, 32, 64), subject_features(method, batch), step)
    assert asked == {False: slice(2, 4), True: slice(0, 2)}


def test_the_released_code_puts_the_cube_of_zyx_at_xyz() -> None:
    job = Job(recipe="phantom", method="magicnet_released", labeled="20%", set={"network.base_filters": 2})
    assert job.resolved.method["released_blending"] and job.resolved.method["released_stitching"]
    method: Any = unbuilt(job, 4)
    numbers = torch.arange(27).view(27, 1, 1, 1, 1).expand(27, 1, 16, 16, 16)
    # A network whose finest map is its image, and whose head leaves that alone.
    method.student.decode = lambda features: [features.maps[0]]
    method.student.head = lambda content: content
    features = magicnet.Features((numbers,))
    put = method._together(features, slice(0, 1))[0, 0]
    in_place = 0
    for x, y, z in places((3, 3, 3)):
        found = cube_of(put, (x, y, z), 16).unique()
        assert found.tolist() == [9 * z + 3 * y + x]  # cut in the order 9x + 3y + z
        in_place += int(found) == 9 * x + 3 * y + z
    assert in_place == 9
    method.options = method.options.model_copy(update={"released_stitching": False})
    straight = split_cubes(method._together(features, slice(0, 1)), 16)
    assert torch.equal(straight[0], numbers)


# ------------------------------------------------------------------------------------------- network, recipes, laws


def unbuilt(job: Job, classes: int) -> Method:
    """The method of a job with its networks, without any data."""
    recipe = job.resolved.recipe
    counts = torch.ones(2, classes, dtype=torch.int64)
    statistics = Statistics(counts, 2, 2, ((99, 99, 99),), classes, tuple(recipe.patch_size), (2, 2))
    return build_method(job.resolved, Builder(job.resolved, 1, statistics), statistics)


def test_the_network_has_the_published_size() -> None:
    method = unbuilt(Job(recipe="ga-synapse", method="magicnet", labeled="20%"), 14)

    def size(name: str) -> int:
        return sum(parameter.numel() for parameter in method.get_submodule(name).parameters())

    assert (size("student.encoder"), size("student.decoders"), size("location")) == (7_373_088, 2_070_382, 8_511_515)
    assert size("student") + size("location") == 17_954_985
    assert all(not parameter.requires_grad for parameter in method.get_submodule("teacher").parameters())
    moved = {id(parameter) for parameter in method.groups(method.phases()[0])["networks"].parameters}
    assert {id(parameter) for parameter in method.get_submodule("location").parameters()} <= moved


def test_recipes_give_magicnet_its_own_schedule() -> None:
    plain = Job(recipe="ga-amos", method="magicnet", labeled="5%").resolved.recipe
    ga = Job(recipe="ga-synapse", method="magicnet_released", loss="ga", labeled="20%").resolved.recipe
    assert (plain.schedule.iterations, ga.schedule.iterations) == (34_000, 17_000)
    assert {recipe.schedule.lr_length for recipe in (plain, ga)} == {70_000}
    assert ga.network.options["norm"] == "instance" and (ga.ramp.length, ga.ramp.every) == (70_000, 350)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "method.cube can be 16"),  # 112 x 112 x 80
        ({"network.norm": "instance"}, "set another patch_size"),  # a single voxel in the bottleneck of a cube of 16³
        ({"patch_size": [32, 32, 32], "inference.stride": [32, 32, 32]}, "method.cube can be 16"),  # one cube is no mix
        (
            {"network.name": "unet3d", "network.norm": None},
            "set another patch_size",
        ),  # instance norm without the option
    ],
)
def test_cubes_that_do_not_cut_a_patch_are_refused_in_one_line(settings: dict[str, Any], said: str) -> None:
    chosen = {"patch_size": [112, 112, 80], "network.name": "vnet", "network.norm": "batch", **settings}
    chosen = {path: value for path, value in chosen.items() if value is not None}
    with pytest.raises(UsageError, match=said) as refused:
        Job(recipe="metassl-la", method="magicnet", labeled="10%", set=chosen).resolved  # noqa: B018
    assert "cubes of side 32" in refused.value.message and "\n" not in refused.value.message


@pytest.mark.parametrize("law", ["finite_in_bf16", "teacher_untouched", "passes_as_documented"])
def test_the_laws_hold_for_the_published_network_too(subject: Subject, law: str) -> None:
    verdict = LAWS[law].judge(subject)
    assert verdict.status == "holds", verdict.reason
