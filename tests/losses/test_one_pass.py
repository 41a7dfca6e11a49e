"""Losses on labels in one pass over the logits, held against torch's own operations."""

from __future__ import annotations

import pytest
import torch

from sslbench.losses import one_pass
from sslbench.losses.dice import DiceLoss, dice_sums, softmax_sums
from sslbench.losses.one_pass import nll_of, scores


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_pass, "_BLOCK", 50)  # several blocks a sample


def _case(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 3, 4, 2, dtype=dtype, requires_grad=True)
    return logits, torch.randint(0, 5, (2, 3, 4, 2)), torch.rand(2, 3, 4, 2, dtype=dtype)


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_gradients_are_those_of_finite_differences(squared: bool, weighted: bool) -> None:
    logits, labels, weight = _case()
    assert torch.autograd.gradcheck(lambda x: tuple(scores(x, labels, weight if weighted else None, squared)), logits)
    assert torch.autograd.gradcheck(lambda x: nll_of(x, labels), logits)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("block", [50, 2**18])
def test_values_and_gradients_are_those_of_torch(
    layout: torch.memory_format, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_pass, "_BLOCK", block)
    logits, labels, weight = _case(torch.float32)
    own = logits.detach().contiguous(memory_format=layout).requires_grad_()
    found, plain = scores(own, labels, weight), logits.log_softmax(1)
    nll = torch.nn.functional.nll_loss(plain, labels, reduction="none")
    sums = dice_sums(logits.softmax(1), labels, weight, batch=False)
    pairs = list(zip(found, (nll, sums.intersection, sums.prediction), strict=True))
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    mine, theirs = (sum((part.sin()).sum() for part in parts) for parts in zip(*pairs, strict=True))
    gradients = [*torch.autograd.grad(mine, own), *torch.autograd.grad(theirs, logits)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)
    assert gradients[0].stride() == own.stride()


def test_large_logits_stay_finite() -> None:
    logits = torch.tensor([[[1e4, -1e4], [-1e4, 1e4]]], requires_grad=True)
    found = nll_of(logits, torch.tensor([[0, 0]]))
    found.sum().backward()
    assert found.tolist() == [[0, 2e4]]
    assert logits.grad is not None and logits.grad.tolist() == [[[0, -1], [0, 1]]]


def test_a_weight_with_a_gradient_keeps_it() -> None:
    logits, labels, weight = _case()
    weight.requires_grad_()
    sum(part.sum() for part in softmax_sums(logits, labels, weight)).backward()
    assert weight.grad is not None and bool(weight.grad.ne(0).all())


def test_logits_without_axes_are_one_voxel_each() -> None:
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 2, 1, 1])
    torch.testing.assert_close(
        nll_of(logits, labels), torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    )
    assert torch.autograd.gradcheck(lambda x: nll_of(x, labels), logits)


def test_autocast_rounds_no_sum() -> None:
    logits, labels, _ = _case(torch.float32)
    plain = float(DiceLoss()(logits.detach(), labels))
    with torch.autocast("cpu", torch.bfloat16):
        assert float(DiceLoss()(logits.detach(), labels)) == plain
