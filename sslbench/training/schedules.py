"""Ramp-ups of the consistency weight and laws of the learning rate."""

from __future__ import annotations

import math

from sslbench.config.recipe import OptimizerSpec, RampSpec, ScheduleSpec


def sigmoid_rampup(step: float, length: float) -> float:
    """exp(-5 (1 - t)²) with t = step / length in [0, 1] (Laine and Aila, ICLR 2017); 1 where `length` is 0."""
    if length == 0:
        return 1.0
    return math.exp(-5.0 * (1.0 - min(max(step / length, 0.0), 1.0)) ** 2)


def linear_rampup(step: float, length: float) -> float:
    """step / length in [0, 1]; 1 where `length` is 0."""
    return 1.0 if length == 0 else min(max(step / length, 0.0), 1.0)


def cosine_rampdown(step: float, length: float) -> float:
    """½ (1 + cos(π·step / length)) with step clipped to [0, length] (Loshchilov and Hutter, ICLR 2017)."""
    return 0.5 * (1.0 + math.cos(math.pi * min(max(step / length, 0.0), 1.0)))


def poly_lr(step: int, max_steps: int, base_lr: float, power: float = 0.9) -> float:
    """base_lr · (1 - step / max_steps)^power; from `max_steps` on, the value of the last step."""
    return float(base_lr * (1.0 - min(step, max_steps - 1) / max_steps) ** power)


def lagged_epoch(iteration: int, epoch_length: int) -> int:
    """The first iteration of the epoch before that of `iteration`; 0 in the first epoch.

    DHC computes learning rate and consistency weight after each epoch from that epoch's index: epochs 0 and 1 share
    the values of 0, and epoch n has those of n - 1.
    """
    return max(iteration // epoch_length - 1, 0) * epoch_length


def _lagged_length(iterations: int, epoch_length: int) -> int:
    """The length of a law with that lag: DHC runs E + 1 epochs and divides by E."""
    return max(-(-iterations // epoch_length) - 1, 1) * epoch_length


def ramp_weight(spec: RampSpec, iteration: int, iterations: int, epoch_length: int) -> float:
    """The consistency weight of an iteration.

    `every` makes it piecewise constant: t is floor(iteration / every)·every / length. GA: every epoch, over
    ⌊iterations / epoch⌋ + 1 epochs. SSL4MIS: every 150 iterations, over 200 such. DHC: every epoch, one epoch late,
    over all epochs but one (`lagged_epoch`).

    Args:
        spec: the recipe's `ramp`.
        iteration: from 0, within the phase.
        iterations: of the phase.
        epoch_length: iterations of an epoch.
    """
    if spec.every == "epoch":
        now, full = iteration // epoch_length * epoch_length, (iterations // epoch_length + 1) * epoch_length
    elif spec.every == "lagged_epoch":
        now, full = lagged_epoch(iteration, epoch_length), _lagged_length(iterations, epoch_length)
    else:
        every = 1 if spec.every == "iteration" else int(spec.every)
        now, full = iteration // every * every, iterations
    length = full if spec.length == "full" else int(spec.length)
    shape = {"gaussian": sigmoid_rampup, "linear": linear_rampup, "constant": lambda step, length: 1.0}[spec.shape]
    return spec.weight * shape(now, length)


def learning_rate(
    optimizer: OptimizerSpec, schedule: ScheduleSpec, iteration: int, iterations: int, epoch_length: int
) -> float:
    """The learning rate of an iteration (from 0, within a phase of `iterations`); an epoch has `epoch_length`."""
    if schedule.lr == "poly":
        return poly_lr(iteration, schedule.lr_length or iterations, optimizer.lr, schedule.power)
    if schedule.lr == "poly_lagged_epoch":
        length = schedule.lr_length or _lagged_length(iterations, epoch_length)
        return poly_lr(lagged_epoch(iteration, epoch_length), length, optimizer.lr, schedule.power)
    if schedule.lr == "step":
        return optimizer.lr * schedule.step_factor ** (iteration // schedule.step_every)
    if schedule.lr == "cosine":
        return optimizer.lr * cosine_rampdown(iteration, iterations)
    return optimizer.lr
