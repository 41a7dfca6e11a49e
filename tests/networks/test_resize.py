"""The gradient of linear resizing as matrices is the one of torch, and the networks use it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sslbench.networks import build_network, resize
from sslbench.networks.resize import Resize, Upsample, resize_linear

MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("before", "after"),
    [((5,), (10,)), ((5, 7), (10, 14)), ((4, 5, 6), (8, 10, 12)), ((3, 4, 5), (7, 4, 11)), ((1, 2), (2, 4))],
)
def test_it_is_torchs_in_value_and_gradient(
    before: tuple[int, ...], after: tuple[int, ...], align_corners: bool
) -> None:
    torch.manual_seed(0)
    content = torch.randn(2, 3, *before, dtype=torch.float64, requires_grad=True)
    expected = F.interpolate(content, after, mode=MODES[len(before)], align_corners=align_corners)
    found = Resize.apply(content, after, align_corners)
    assert torch.equal(found, expected)
    weights = torch.randn_like(found)
    gradients = [torch.autograd.grad((part * weights).sum(), content)[0] for part in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_a_bf16_gradient_is_summed_in_fp32() -> None:
    content = torch.randn(1, 2, 4, 4, dtype=torch.bfloat16, requires_grad=True)
    Resize.apply(content, (8, 8), False).float().sum().backward()
    assert content.grad is not None and content.grad.dtype == torch.bfloat16
    torch.testing.assert_close(content.grad.float(), torch.full((1, 2, 4, 4), 4.0), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("align_corners", [None, True])
def test_an_upsampling_doubles_as_torchs_does(mode: str, align_corners: bool | None) -> None:
    if mode == "nearest" and align_corners:
        return
    content = torch.randn(2, 3, 5, 6)
    expected = torch.nn.Upsample(scale_factor=2, mode=mode, align_corners=align_corners)(content)
    assert torch.equal(Upsample(mode, align_corners)(content), expected)


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not resize.repeats(torch.device("cuda"))
    monkeypatch.setattr(resize, "repeats", lambda device: False)


def test_on_a_gpu_the_matrices_are_used(as_on_a_gpu: None) -> None:
    content = torch.randn(1, 2, 4, 4, requires_grad=True)
    found = resize_linear(content, (8, 8))
    assert found.shape == (1, 2, 8, 8) and "Resize" in type(found.grad_fn).__name__


@pytest.mark.parametrize(("name", "dims"), [("unet", 2), ("unet3d", 3)])
def test_no_network_resizes_linearly_by_another_way(name: str, dims: int, as_on_a_gpu: None) -> None:
    network = build_network(name, 1, 3).to("meta")
    logits = network(torch.empty(2, 1, *[32] * dims, device="meta"))
    seen, todo = set(), [logits.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [parent for parent, _ in node.next_functions]
    names = {type(node).__name__ for node in seen}
    assert "ResizeBackward" in names and not {part for part in names if "linear2D" in part or "linear3D" in part}
