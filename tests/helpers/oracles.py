"""Whole training steps in float64 against steps written down from the sheets in plain torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sslbench.config.job import Job
from sslbench.conformance.bench import Subject
from sslbench.core.randomness import reseed
from sslbench.core.step import Batch, Step

Oracle = Callable[[Any, Batch, Step], Tensor]


def subject_of(recipe: str, method: str, labeled: str, dims: Any, loss: str = "default", **settings: Any) -> Subject:
    """A method with the criteria and the options of a recipe, on tiny networks without dropout."""
    resolved = Job(recipe=recipe, method=method, loss=loss, labeled=labeled, seed=0).resolved
    chosen = {f"criteria.{name}": value for name, value in resolved.recipe.criteria.model_dump().items()}
    chosen |= {f"method.{name}": value for name, value in resolved.method.items() if name != "name"}
    dropout = {"network.dropout": 0} if dims == "3d" else {"network.dropout": [0, 0, 0, 0, 0]}
    return Subject(method, loss, dims, {**chosen, **dropout, **settings})


def in_double(batch: Batch) -> Batch:
    """The same batch with images in float64."""
    return replace(batch, image={view: image.double() for view, image in batch.image.items()})


def agree(method: Any, batch: Batch, step: Step, oracle: Oracle, tolerance: float = 1e-10, tracked: bool = True) -> Any:
    """Take a step both ways; losses, the gradient of every parameter and batch statistics are the same.

    Args:
        method: in float64 and in training mode.
        batch: in float64.
        step: of both.
        oracle: gives the loss of a copy of the method, whose networks alone it calls.
        tolerance: of the largest difference, relative to the largest value.
        tracked: whether batch statistics are compared.

    Returns:
        The copy, after the oracle's step.
    """
    twin = copy.deepcopy(method)
    reseed(0, "forward")
    loss = method.training_step(batch, step)["loss"]
    reseed(0, "forward")
    expected = oracle(twin, batch, step)
    assert loss.dtype == torch.float64
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=tolerance, abs=tolerance)
    loss.backward()
    expected.backward()
    own, others = (dict(module.named_parameters()) for module in (method, twin))
    compared = 0
    for name, parameter in own.items():
        found, wanted = parameter.grad, others[name].grad
        if wanted is None or found is None:
            assert found is None or not found.any(), name
            assert wanted is None or not wanted.any(), name
            continue
        assert (found - wanted).abs().max() <= tolerance * (1 + wanted.abs().max()), name
        compared += bool(wanted.any())
    assert compared, "nothing learns"
    if tracked:
        for name, buffer in method.named_buffers():
            if "running_" in name:
                torch.testing.assert_close(buffer, twin.get_buffer(name), rtol=tolerance, atol=tolerance)
    return twin


# ------------------------------------------------------------------------------------------------- the sheets' terms


def ce_map(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p of the label, (B, *S)."""
    return -logits.log_softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)


def soft_dice(p: Tensor, y: Tensor, smooth: float, c: int) -> Tensor:
    """`dice_nn` of one class: (2TP + s) / (2TP + FP + FN + s + 1e-8); y are labels or probabilities."""
    own, other = p[:, c], y[:, c] if y.ndim == p.ndim else (y == c).to(p.dtype)
    tp, fp, fn = (own * other).sum(), (own * (1 - other)).sum(), ((1 - own) * other).sum()
    return (2 * tp + smooth) / (2 * tp + fp + fn + smooth + 1e-8)


def dice_nn(p: Tensor, y: Tensor, smooth: float, first: int = 1) -> Tensor:
    """Minus the mean over the classes from `first` on."""
    return -torch.stack([soft_dice(p, y, smooth, c) for c in range(first, p.shape[1])]).mean()


def dcce(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy and Dice of the DHC family, without weights."""
    return ce_map(logits, labels).mean() + dice_nn(logits.softmax(1), labels, 1.0)
