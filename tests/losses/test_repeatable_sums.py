"""What a GPU computes in place of CPU kernels, held against them: masked sums per class, picked values."""

from __future__ import annotations

import pytest
import torch

from sslbench.losses.per_class import MaskedSums, PerClass, picked


@pytest.mark.parametrize("shape", [(1, 1), (2, 1000), (3, 257)])
def test_masked_sums_are_the_blockwise_ones_in_value_and_gradient(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 4, shape)
    weights = torch.randn(shape[0], 5, dtype=torch.float64)
    sums = [PerClass(labels, 5).sum(values), MaskedSums.apply(values, labels, 5)]
    torch.testing.assert_close(sums[1], sums[0], rtol=1e-12, atol=1e-12)
    assert (sums[1][:, 4] == 0).all()  # a class that no voxel has
    gradients = [torch.autograd.grad((found * weights).sum(), values)[0] for found in sums]
    assert torch.equal(gradients[0], gradients[1])


def test_a_million_values_add_up_in_fp32() -> None:
    values, labels = torch.full((1, 2**20), 0.95), torch.zeros(1, 2**20, dtype=torch.int64)
    assert float(MaskedSums.apply(values, labels, 2)[0, 0]) == pytest.approx(0.95 * 2**20, rel=1e-6)


@pytest.mark.parametrize("space", [(), (7,), (3, 4), (2, 3, 4)])
def test_picked_values_are_those_of_the_labels(space: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    values, labels = torch.randn(2, 5, *space, requires_grad=True), torch.randint(0, 5, (2, *space))
    expected = values.gather(1, labels.unsqueeze(1)).squeeze(1)
    found = picked(values, labels)
    assert torch.equal(found, expected)
    weights = torch.randn_like(found)
    gradients = [torch.autograd.grad((part * weights).sum(), values)[0] for part in (found, expected)]
    assert torch.equal(*gradients)
