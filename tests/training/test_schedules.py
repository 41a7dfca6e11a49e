"""Ramps of the consistency weight and laws of the learning rate, in the numbers of the published protocols."""

from __future__ import annotations

import math

import pytest

from sslbench.config.recipe import OptimizerSpec, RampSpec, ScheduleSpec
from sslbench.conformance.bench import MemoryRecorder
from sslbench.training.checkpoint import Checkpoints
from sslbench.training.schedules import (
    cosine_rampdown,
    learning_rate,
    linear_rampup,
    poly_lr,
    ramp_weight,
    sigmoid_rampup,
)
from sslbench.training.trainer import Trainer
from tests.helpers.jobs import random_experiment, tiny_job_2d

SSL4MIS = RampSpec(weight=0.1, shape="gaussian", length=30_000, every=150)
GA = RampSpec(weight=0.1, shape="gaussian", length="full", every="epoch")
MAGICNET = RampSpec(weight=0.1, shape="gaussian", length=70_000, every=350)


DHC = RampSpec(weight=10, shape="gaussian", length="full", every="lagged_epoch")


def rate(iteration, iterations, base=0.01, epoch_length=8, **schedule):
    spec = ScheduleSpec(iterations=iterations, **schedule)
    return learning_rate(OptimizerSpec(lr=base), spec, iteration, iterations, epoch_length)


@pytest.mark.parametrize(
    ("t", "value"), [(0, 0.006738), (0.1, 0.017422), (0.25, 0.060055), (0.5, 0.286505), (0.75, 0.731616), (1, 1)]
)
def test_the_gaussian_ramp(t, value):
    assert sigmoid_rampup(200 * t, 200) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("ramp", [sigmoid_rampup, linear_rampup])
def test_ramps_rise_to_one_and_stay_there(ramp):
    values = [ramp(step, 40) for step in range(-3, 60)]
    assert values == sorted(values)
    assert values[:4] == [values[3]] * 4
    assert set(values[43:]) == {1.0}
    assert ramp(0, 0) == ramp(7, 0) == 1.0


def test_the_linear_ramp_and_the_cosine_rampdown():
    assert [linear_rampup(step, 4) for step in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    assert [cosine_rampdown(step, 4) for step in (-1, 0, 2, 4, 9)] == pytest.approx([1, 1, 0.5, 0, 0])


# ---------------------------------------------------------------------------------------------- consistency weight


@pytest.mark.parametrize(
    ("iteration", "weight"),
    [(0, 0.000673795), (149, 0.000673795), (15_000, 0.0286505), (29_999, 0.1 * math.exp(-5 / 200**2)), (30_000, 0.1)],
)
def test_the_weight_of_ssl4mis(iteration, weight):
    assert ramp_weight(SSL4MIS, iteration, 30_000, 11) == pytest.approx(weight, rel=1e-5)


def test_the_weight_of_ssl4mis_changes_every_150_iterations():
    weights = [ramp_weight(SSL4MIS, iteration, 30_000, 11) for iteration in range(900)]
    assert [n for n in range(1, 900) if weights[n] != weights[n - 1]] == [150, 300, 450, 600, 750]


@pytest.mark.parametrize(("unlabeled", "epochs"), [(16, 1063), (18, 945), (206, 83), (212, 81)])
def test_the_weight_of_ga_over_its_epochs(unlabeled, epochs):
    """An epoch has |U| iterations; the ramp lasts ⌊17000/|U|⌋ + 1 epochs and never quite reaches its end."""
    for epoch in (0, 1, epochs // 2, epochs - 1):
        expected = 0.1 * math.exp(-5 * (1 - epoch / epochs) ** 2)
        for iteration in (epoch * unlabeled, min((epoch + 1) * unlabeled - 1, 16_999)):
            assert ramp_weight(GA, iteration, 17_000, unlabeled) == pytest.approx(expected)
    assert 0.099 < ramp_weight(GA, 16_999, 17_000, unlabeled) < 0.1


@pytest.mark.parametrize(
    ("epoch", "weight"), [(0, 0.067379), (1, 0.067379), (2, 0.069659), (151, 2.865048), (300, 9.99944)]
)
@pytest.mark.parametrize("within", [0, 7])
def test_the_weight_of_dhc_is_one_epoch_late(epoch, within, weight):
    """301 epochs of 8 iterations: the weight of an epoch is that of the index of the one before, over 300."""
    assert ramp_weight(DHC, 8 * epoch + within, 301 * 8, 8) == pytest.approx(weight, abs=5e-6)


def test_the_weight_of_magicnet_is_small_when_a_short_run_ends():
    weight = ramp_weight(MAGICNET, 17_000, 17_000, 16)
    assert weight == pytest.approx(0.1 * sigmoid_rampup(48, 200)) == pytest.approx(0.0056, abs=5e-5)


def test_a_full_ramp_follows_the_length_of_its_phase():
    spec = RampSpec(weight=2, length="full", every="iteration")
    assert ramp_weight(spec, 50, 100, 7) == ramp_weight(spec, 500, 1000, 7) == pytest.approx(2 * 0.286505, abs=1e-5)


@pytest.mark.parametrize(("shape", "weights"), [("linear", [0, 0.2, 0.4]), ("constant", [0.4, 0.4, 0.4])])
def test_other_shapes(shape, weights):
    spec = RampSpec(weight=0.4, shape=shape, length=10, every="iteration")
    assert [ramp_weight(spec, iteration, 10, 1) for iteration in (0, 5, 20)] == pytest.approx(weights)


@pytest.mark.parametrize("every", ["epoch", "lagged_epoch", "iteration", 1, 7, 150])
@pytest.mark.parametrize("length", ["full", 5, 40])
def test_no_ramp_ever_falls_or_exceeds_its_weight(every, length):
    spec = RampSpec(weight=0.1, length=length, every=every)
    weights = [ramp_weight(spec, iteration, 60, 8) for iteration in range(200)]
    assert weights == sorted(weights)
    assert weights[0] > 0 and weights[-1] <= 0.1


# ---------------------------------------------------------------------------------------------------- learning rate


def test_the_poly_law():
    assert poly_lr(0, 17_000, 0.01) == 0.01
    assert poly_lr(8_500, 17_000, 0.01) == pytest.approx(0.01 * 0.5**0.9)
    last = poly_lr(16_999, 17_000, 0.01)
    assert 0 < last == poly_lr(17_000, 17_000, 0.01) == poly_lr(20_000, 17_000, 0.01)
    assert poly_lr(5, 10, 1, power=2) == 0.25


def test_a_poly_law_longer_than_the_run():
    """MagicNet decays over 70 000 iterations, of which 17 000 are run."""
    assert rate(17_000, 17_000, lr_length=70_000) == pytest.approx(0.00778, abs=1e-5)
    assert rate(0, 17_000, lr_length=70_000) == 0.01


@pytest.mark.parametrize(("epoch", "share"), [(0, 1), (1, 1), (2, 299 / 300), (151, 0.5), (300, 1 / 300)])
@pytest.mark.parametrize("within", [0, 7])
def test_the_rate_of_dhc_is_one_epoch_late(epoch, within, share):
    """301 epochs of 8 iterations: 300 for the law and one more, whose rate is not yet 0."""
    got = rate(8 * epoch + within, 301 * 8, base=0.03, lr="poly_lagged_epoch")
    assert got == pytest.approx(0.03 * share**0.9, rel=1e-12)


@pytest.mark.parametrize("iterations", [1, 7, 8, 9, 16, 20])
def test_laws_with_a_lag_hold_for_runs_of_any_length(iterations):
    """Shorter than an epoch, or ending within one: the first two epochs are alike, no rate is 0, no weight complete."""
    rates = [rate(n, iterations, base=1, lr="poly_lagged_epoch") for n in range(iterations)]
    weights = [ramp_weight(DHC, n, iterations, 8) for n in range(iterations)]
    assert set(rates[:16]) == {1.0} and len(set(weights[:16])) == 1
    assert all(found == pytest.approx(0.5**0.9) for found in rates[16:])
    assert all(found == pytest.approx(10 * sigmoid_rampup(1, 2)) for found in weights[16:])


def test_a_law_with_a_lag_and_a_length_of_its_own():
    assert rate(3 * 8, 40, base=1, lr="poly_lagged_epoch", lr_length=400) == pytest.approx((1 - 16 / 400) ** 0.9)
    longer = DHC.model_copy(update={"length": 400})
    assert ramp_weight(longer, 3 * 8, 40, 8) == pytest.approx(10 * sigmoid_rampup(16, 400))


@pytest.mark.parametrize(
    ("iteration", "expected"), [(0, 0.01), (2_499, 0.01), (2_500, 0.001), (4_999, 0.001), (5_000, 0.0001)]
)
def test_the_step_law_of_la(iteration, expected):
    assert rate(iteration, 6_000, lr="step") == pytest.approx(expected)


def test_steps_of_another_length_and_factor():
    rates = [rate(n, 100, base=1, lr="step", step_every=10, step_factor=0.5) for n in (9, 10, 29, 30)]
    assert rates == [1, 0.5, 0.25, 0.125]


def test_the_constant_law():
    assert {rate(iteration, 100, base=0.3, lr="constant") for iteration in (0, 50, 99)} == {0.3}


def test_the_cosine_law_falls_to_zero_over_the_run():
    assert [rate(n, 100, base=2, lr="cosine") for n in (0, 25, 50)] == pytest.approx([2, 1 + math.sqrt(0.5), 1])
    assert 0 < rate(99, 100, base=2, lr="cosine") < 1e-3


def test_the_law_follows_the_length_of_its_phase():
    specs = OptimizerSpec(lr=0.01), ScheduleSpec(iterations=30_000)
    assert learning_rate(*specs, 5_000, 10_000, 8) == pytest.approx(0.01 * 0.5**0.9)


def test_a_training_counts_epochs_of_its_recipe(tmp_path):
    """Five epochs of four iterations: iteration 9 is in epoch 2, the last one in epoch 4."""
    lagged = {"schedule.lr": "poly_lagged_epoch", "ramp.every": "lagged_epoch", "schedule.epoch": 4}
    small = {"schedule.iterations": 20, "schedule.validate_every": 20, "batch.labeled": 1}
    records = MemoryRecorder()
    experiment = random_experiment(tiny_job_2d("supervised", set={**lagged, **small, "ramp.length": "full"}))
    Trainer(experiment, Checkpoints(tmp_path), records, lambda: False).fit()
    base = experiment.resolved.recipe.optimizer.lr
    steps = [entry for entry in records.entries if "lr" in entry]
    assert [entry["iteration"] for entry in steps] == [10, 20]
    assert [entry["lr"] for entry in steps] == pytest.approx([base * 0.75**0.9, base * 0.25**0.9])
    assert [entry["ramp"] for entry in steps] == pytest.approx([0.1 * sigmoid_rampup(n, 4) for n in (1, 3)])
