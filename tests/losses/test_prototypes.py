"""Prototypes against pairs, one selector per class and a bank of lists, all in loops."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from sslbench.losses import prototype_loss
from sslbench.losses.prototypes import ClassSelectors, PrototypeMemory
from tests.helpers.dispatch import Calls
from tests.helpers.prototypes import by_pairs, one_by_one

D, C = 6, 5


def make_selectors(seed: int) -> ClassSelectors:
    torch.manual_seed(seed)
    selectors = ClassSelectors(C, D).double()
    for tensor in (selectors.scale.data, selectors.running_var):
        tensor.uniform_(0.5, 2)
    for tensor in (selectors.shift.data, selectors.running_mean):
        tensor.normal_()
    return selectors


def make_rows(rows: int = 700, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features, and classes of which 3 has one row and 4 none."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, 3, (rows,), generator=generator)
    labels[rows // 2] = 3
    return torch.randn(rows, D, generator=generator, dtype=torch.float64) + 1, labels


def make_memory(seed: int = 1) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A bank with 0, 4, 2, 3 and 1 vectors, and the same as a list."""
    generator = torch.Generator().manual_seed(seed)
    memory = torch.randn(C, 4, D, generator=generator, dtype=torch.float64)
    filled = (0, 4, 2, 3, 1)
    for c, number in enumerate(filled):
        memory[c, number:] = 0
    return memory, [memory[c, :number] for c, number in enumerate(filled)]


def sigma(*values):
    return lambda rows, classes: torch.tensor(values, dtype=torch.float64).logit()


def test_the_worked_numbers():
    features = torch.tensor([[1, 0], [1, 1]], dtype=torch.float64)
    memory = torch.tensor([[[0, 0], [0, 0]], [[1, 0], [0, 2]]], dtype=torch.float64)
    labels = torch.tensor([1, 1])
    one_sided = prototype_loss(features, labels, memory, sigma(0.2, 0.6))
    two_sided = prototype_loss(features, labels, memory, sigma(0.2, 0.6), sigma(0.5, 0.5, 0.3, 0.9))
    # The sheet's digits are those of fp32.
    assert float(2 * one_sided) == pytest.approx(0.344669938, abs=5e-8)
    assert float(2 * two_sided) == pytest.approx(0.407169878, abs=5e-8)
    assert float(2 * one_sided) == pytest.approx(1 - (0.1 + 0.6 / math.sqrt(2)) / 0.8, abs=1e-14)
    assert float(2 * two_sided) == pytest.approx(1 - (0.05 + 0.6 / math.sqrt(2)) / 0.8, abs=1e-14)


@pytest.mark.parametrize("two_sided", [False, True])
def test_a_module_and_a_stack_of_vectors_for_each_class_serve_too(two_sided):
    (features, labels), (_, stored) = make_rows(), make_memory()
    own, other = (one_by_one(make_selectors(seed).eval()) for seed in (2, 3))
    expected = by_pairs(features, labels, stored, own, other if two_sided else None)
    found = prototype_loss(features, labels, stored, own, nn.ModuleList(other) if two_sided else None)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_no_pair_is_needed_for_the_mean_over_pairs(two_sided, training):
    (features, labels), (memory, stored) = make_rows(), make_memory()
    own, other = make_selectors(2).train(training), make_selectors(3).train(training)
    theirs = [one_by_one(own), one_by_one(other)]
    mine = features.clone().requires_grad_()
    features.requires_grad_()
    expected = by_pairs(features, labels, stored, theirs[0], theirs[1] if two_sided else None)
    found = prototype_loss(mine, labels, memory.requires_grad_(), own, other if two_sided else None)
    torch.testing.assert_close(found, expected)

    expected.backward()
    found.backward()
    torch.testing.assert_close(mine.grad, features.grad)
    for selectors, modules in ((own, theirs[0]), (other, theirs[1])):
        for c, module in enumerate(modules):
            if module[0].weight.grad is not None:
                torch.testing.assert_close(selectors.weight.grad[c], module[0].weight.grad.T)
                torch.testing.assert_close(selectors.shift.grad[c], module[1].bias.grad)
                torch.testing.assert_close(selectors.scale.grad[c], module[1].weight.grad)
                torch.testing.assert_close(selectors.score_weight.grad[c], module[3].weight.grad[0])
                torch.testing.assert_close(selectors.score_bias.grad[c], module[3].bias.grad[0])
            elif selectors.weight.grad is not None:
                assert not selectors.weight.grad[c].any()
            torch.testing.assert_close(selectors.running_mean[c], module[1].running_mean)
            torch.testing.assert_close(selectors.running_var[c], module[1].running_var)
    assert (other.weight.grad is not None) is two_sided
    # Rows of the background, of no class, and of classes with too few rows or vectors are not moved.
    moved = mine.grad.abs().sum(1) > 0
    assert torch.equal(moved, (labels == 1) | (labels == 2))


def test_the_selectors_see_detached_features():
    (features, labels), (memory, _) = make_rows(50), make_memory()
    selectors, seen = make_selectors(2), []

    def watched(rows, classes):
        seen.append(rows.requires_grad)
        return selectors(rows, classes)

    prototype_loss(features.requires_grad_(), labels, memory, watched).backward()
    assert seen == [False]


def test_an_empty_bank_gives_a_zero_that_keeps_the_graph():
    features, labels = make_rows(40)
    selectors = make_selectors(2)
    statistics = selectors.running_mean.clone()
    value = prototype_loss(features.requires_grad_(), labels, torch.zeros(C, 4, D), selectors)
    value.backward()
    assert value == 0 and not features.grad.any() and not selectors.weight.grad.any()
    assert torch.equal(selectors.running_mean, statistics), "a class without prototypes was looked at"


def test_under_autocast_it_computes_in_fp32():
    torch.manual_seed(0)
    features, labels = make_rows(300)
    features, memory, selectors = features.float(), make_memory()[0].float(), make_selectors(2).float()
    plain = prototype_loss(features, labels, memory, selectors)
    with torch.autocast("cpu", torch.bfloat16):
        cast = prototype_loss(features, labels, memory, selectors)
        low = prototype_loss(features.bfloat16(), labels, memory, selectors)
    assert cast.dtype == low.dtype == torch.float32
    torch.testing.assert_close(cast, plain)
    torch.testing.assert_close(low, plain, rtol=1e-2, atol=0)


def test_nothing_waits_for_the_device_or_loops_over_classes():
    names = []
    for rows, classes in ((300, 3), (700, 14)):
        generator = torch.Generator().manual_seed(0)
        selectors, bank = ClassSelectors(classes, D), PrototypeMemory(classes, D, 4)
        features = torch.randn(rows, D, generator=generator).requires_grad_()
        labels = torch.randint(-1, classes, (rows,), generator=generator)
        with Calls() as seen:
            bank.update(features.detach(), labels, selectors(features.detach(), labels))
            prototype_loss(features, labels, bank.vectors, selectors, selectors).backward()
        names.append(seen.names)
    assert names[0] == names[1]


def test_the_selectors_are_as_many_parameters_as_published():
    assert sum(parameter.numel() for parameter in ClassSelectors(4, 32).parameters()) == 4 * 1153


# --------------------------------------------------------------------------------------------------------- the bank


def stored(bank: PrototypeMemory) -> list[list[float]]:
    """Per class the first entries of its vectors, sorted."""
    return [sorted(vector[0].item() for vector in own if vector.any()) for own in bank.vectors]


def test_the_bank_overwrites_the_classes_that_have_candidates():
    bank = PrototypeMemory(3, 2, 3)
    features = torch.tensor([[number, 1.0] for number in range(1, 9)])
    labels = torch.tensor([1, 2, 1, -1, 2, 2, 2, -1])
    scores = torch.tensor([0.5, 0.9, 0.1, -9.0, 0.2, -0.3, 0.8, 9.0])
    bank.update(features, labels, scores)
    # No more candidates than places: all, whatever they score. More: those of the lowest scores.
    assert stored(bank) == [[], [1, 3], [5, 6, 7]]
    bank.update(10 * features, torch.where(labels == 2, 2, -1), scores, "highest")
    assert stored(bank) == [[], [1, 3], [20, 50, 70]], "class 1 had no candidate and keeps its vectors"
    bank.update(features, torch.where(torch.arange(8) == 3, 2, -1), scores)
    assert stored(bank) == [[], [1, 3], [4]], "overwritten, not added to"
    before = bank.vectors.clone()
    bank.update(features, torch.full((8,), -1), scores)
    assert torch.equal(bank.vectors, before)


def test_the_bank_is_state():
    bank = PrototypeMemory(3, 2, 3)
    bank.update(torch.ones(4, 2), torch.tensor([1, 1, 2, -1]), torch.zeros(4))
    fresh = PrototypeMemory(3, 2, 3)
    fresh.load_state_dict(copy.deepcopy(bank.state_dict()))
    assert torch.equal(fresh.vectors, bank.vectors) and not [*bank.parameters()]
