"""Losses never wait for the device, never loop over classes, and make their constants where their inputs are."""

from __future__ import annotations

import pytest
import torch

from sslbench.core import registry
from sslbench.losses import (
    bcp_mix_loss,
    cct_loss,
    cps_dice_loss,
    cps_loss,
    entropy_loss,
    mse_consistency,
    rdrop_loss,
    uamt_consistency,
    urpc_loss,
)
from tests.helpers.dispatch import Calls
from tests.helpers.losses import a_step, make_loss

VARIANTS = [
    *(entry.name for entry in registry.entries("loss") if entry.preset_of is None),
    "ga_labeled_only",
    "metassl_released",
    "metassl[soft=mse]",
    "metassl[threshold=flexmatch]",
    "metassl[threshold=freematch]",
    "metassl[uncertainty=std]",
]


def all_terms(spelt, shape, classes, device="cpu", weights=True):
    """Every term of a loss once, forward and backward."""
    from sslbench.config.text import parse_component

    name, options = parse_component(spelt)
    loss = make_loss(name, num_classes=classes, **options).to(device)
    g = torch.Generator().manual_seed(0)
    logits, other = (torch.randn(2, classes, *shape, generator=g).to(device) for _ in range(2))
    labels = torch.randint(classes, (2, *shape), generator=g)
    known = labels.clone()
    known[1] = -1
    labels, known = labels.to(device), known.to(device)
    rest = {}
    if weights:
        rest = {
            "mask": (torch.rand(2, *shape, generator=g) > 0.3).to(device),
            "voxel_weight": torch.rand(2, *shape, generator=g).to(device),
            "class_weight": torch.ones(classes, device=device),
        }
    step, logits = a_step(device=device), logits.requires_grad_()
    for key, seen in (("a", logits), ("b", other)):
        loss.observe(step, key, seen, known)
    reference = ("b", other.softmax(1))
    total = loss.consistency(logits, lambda: mse_consistency(logits, other.softmax(1)), key="a", reference=reference)
    for source in ("label", "pseudo"):
        for term in (loss.ce, loss.dice, loss.supervised):
            total = total + term(logits, labels, source=source, key="a", reference=reference, **rest)
    total.backward()
    return logits.grad


@pytest.mark.parametrize("spelt", VARIANTS)
@pytest.mark.parametrize("weights", [False, True], ids=["plain", "weighted"])
def test_no_term_waits_for_the_device_or_loops_over_classes(spelt, weights):
    calls = []
    for shape, classes in (((3, 5), 3), ((4, 5, 6), 9)):
        with Calls() as seen:
            all_terms(spelt, shape, classes, weights=weights)
        calls.append(seen.names)
    assert calls[0] == calls[1], "the operations depend on the number of classes or voxels"


@pytest.mark.parametrize("spelt", VARIANTS)
def test_terms_of_full_size_run_without_data(spelt):
    """On the meta device: whatever asks for a value, or mixes devices, raises."""
    gradient = all_terms(spelt, (96, 96, 96), 14, device="meta")
    assert gradient.shape == (2, 14, 96, 96, 96)


def test_consistency_criteria_do_not_wait_either():
    def terms(shape, classes):
        g = torch.Generator().manual_seed(0)
        a, b = (torch.randn(2, classes, *shape, generator=g).requires_grad_() for _ in range(2))
        hard = b.detach().argmax(1)
        criteria = [
            mse_consistency(a, b.softmax(1)),
            entropy_loss(a),
            cps_loss(a, b),
            cps_dice_loss(a, b),
            rdrop_loss(a, b),
            cct_loss(a, [b, b]),
            urpc_loss([a, b]),
            uamt_consistency(a, b, torch.stack([a, b]), 1, 2),
            bcp_mix_loss(a, hard, hard, torch.ones(shape)),
        ]
        torch.stack(criteria).sum().backward()

    calls = []
    for shape, classes in (((3, 5), 3), ((4, 5, 6), 9)):
        with Calls() as seen:
            terms(shape, classes)
        calls.append(seen.names)
    assert calls[0] == calls[1]
