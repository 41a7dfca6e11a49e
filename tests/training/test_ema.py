"""Moving averages: closed form, warm-up, buffers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sslbench.methods.ema import ema_decay, update_ema


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))


def test_the_average_has_its_closed_form() -> None:
    teacher, students = network(0), [network(seed) for seed in range(1, 6)]
    start = teacher[0].weight.detach().clone()
    for student in students:
        update_ema(teacher, student, 0.9)
    expected = 0.9**5 * start + sum(0.1 * 0.9 ** (4 - k) * students[k][0].weight for k in range(5))
    assert torch.allclose(teacher[0].weight, expected, atol=1e-6)


def test_the_first_step_of_the_warm_up_copies_the_student() -> None:
    teacher, student = network(0), network(1)
    update_ema(teacher, student, 0.99, step=0)
    assert torch.equal(teacher[0].weight, student[0].weight)
    assert [ema_decay(0.99, step) for step in (0, 1, 3, 99, 10_000)] == [0.0, 0.5, 0.75, 0.99, 0.99]


def test_buffers_stay_unless_asked_for() -> None:
    teacher, student = network(0), network(1)
    student[1].running_mean.fill_(2.0)
    student[1].num_batches_tracked.fill_(10)
    update_ema(teacher, student, 0.5)
    assert teacher[1].running_mean.abs().sum() == 0
    update_ema(teacher, student, 0.5, buffers=True)
    assert torch.equal(teacher[1].running_mean, torch.ones(3))
    assert teacher[1].num_batches_tracked == 5 and teacher[1].num_batches_tracked.dtype == torch.int64


def test_modules_that_are_no_twins_are_refused() -> None:
    with pytest.raises(ValueError, match="twins"):
        update_ema(network(0), nn.Conv2d(1, 2, 3), 0.9)
