"""The tensors of the spec sheets' worked numbers, and losses made by name."""

from __future__ import annotations

import pytest
import torch

from sslbench.config.recipe import CriteriaSpec
from sslbench.core import registry
from sslbench.core.step import Statistics, Step
from sslbench.losses.compose import build_loss

B, C, SHAPE = 2, 3, (2, 2, 5)
N = 40
WEIGHTS = torch.tensor([0.0, 1.5, 3.0])


def example_logits(dtype=torch.float32):
    """logit[n, c] = ((37n + 59c + 17nc) mod 113) / 28 - 2, voxels sample-major: no ties."""
    n, c = torch.arange(N).unsqueeze(1), torch.arange(C)
    values = ((37 * n + 59 * c + 17 * n * c) % 113).to(dtype) / 28 - 2
    return values.view(B, 20, C).transpose(1, 2).reshape(B, C, *SHAPE)


def example_labels(name):
    place = torch.arange(N) % 20
    labels = (place >= 15).long()
    if name == "full":
        labels[place == 19] = 2
    elif name == "absent":
        labels[place == 19] = 0
    return labels.view(B, *SHAPE)


def tiny_logits(which, dtype=torch.float64):
    """Logits `a` or `b` (1, 3, 2, 2) of the consistency sheet's checks."""
    values = {
        "a": [[[1, 0], [2, -1]], [[0, 1], [0.5, 0]], [[-1, 2], [0, 1]]],
        "b": [[[0.5, 0], [1, 0]], [[0, 0], [1.5, 0]], [[-1, 1], [0, 2]]],
    }
    return torch.tensor([values[which]], dtype=dtype)


def statistics(num_classes=C, counts=None):
    """Statistics of a training set of which nothing but classes and their voxels matters."""
    counts = torch.ones(num_classes) if counts is None else torch.as_tensor(counts)
    return Statistics(counts.long().view(1, -1), 1, 1, (SHAPE, SHAPE), num_classes, SHAPE, (1, 1))


def make_loss(name, criteria=None, num_classes=C, counts=None, **options):
    """A plug-and-play loss by name, presets included."""
    entry = registry.get("loss", name)
    spec = {"name": entry.preset_of or entry.name, **entry.set, **options}
    return build_loss(spec, criteria or CriteriaSpec(), statistics(num_classes, counts))


def close(value, expected, tolerance=1e-6):
    assert float(torch.as_tensor(value).detach()) == pytest.approx(expected, rel=tolerance, abs=tolerance)


def a_step(consistency_weight=1.0, logged=None, device="cpu"):
    """A step of which a loss sees the ramp and what it logs."""

    def no_sweep():
        raise AssertionError("a loss does not sweep")

    return Step(
        iteration=0,
        iterations=10,
        epoch=0,
        epochs=1,
        last_of_epoch=False,
        phase="train",
        consistency_weight=torch.tensor(consistency_weight, device=device),
        generators=lambda stream, device: torch.Generator().manual_seed(0),
        logger=({} if logged is None else logged).__setitem__,
        sweeper=no_sweep,
    )


def observed(loss, logits, labels, *keys, step=None):
    """The loss after it saw a predictor's logits under each key."""
    for key in keys or ("net",):
        loss.observe(step or a_step(), key, logits, labels)
    return loss
