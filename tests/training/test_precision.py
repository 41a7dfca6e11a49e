"""Reduced precision only where its gradients were checked: the probe passes what is right and notices what is wrong."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sslbench.networks import build_network
from sslbench.networks import precision as module
from sslbench.networks.precision import Precision, choose_precision, worst_error

CPU = torch.device("cpu")
BF16 = Precision("bf16", "", CPU, channels_last=False)
FP32 = Precision("fp32", "", CPU, channels_last=False)


class WrongGradient(torch.autograd.Function):
    """The identity, whose gradient is `factor` times what it should be."""

    @staticmethod
    def forward(ctx, weight, factor):
        ctx.factor = factor
        return weight.clone()

    @staticmethod
    def backward(ctx, gradient):
        return ctx.factor * gradient, None


class WrongInBf16(nn.Conv2d):
    """A convolution whose weight gradient is wrong under autocast alone, as a broken kernel's is."""

    factor = 1.2

    def forward(self, input):
        broken = torch.is_autocast_enabled("cpu")
        return self._conv_forward(input, WrongGradient.apply(self.weight, self.factor if broken else 1.0), self.bias)


class NotFiniteInBf16(WrongInBf16):
    factor = torch.inf


def tiny(middle=nn.Conv2d):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), middle(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 1))


@pytest.fixture
def fast(monkeypatch):
    """As if bf16 were fast here."""
    monkeypatch.setattr(module, "fast_bf16", lambda device: True)


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_vnet_agrees_layer_by_layer_on_a_patch_that_ends_two_voxels_deep(norm, channels_last):
    torch.manual_seed(0)
    network = build_network("vnet", 1, 3, base_filters=8, norm=norm, dropout=0.5)
    error, _ = worst_error(Precision("bf16", "", CPU, channels_last), network, torch.randn(2, 1, 32, 32, 32))
    assert error < 0.05


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_unet_agrees_layer_by_layer(channels_last):
    torch.manual_seed(0)
    network = build_network("unet", 1, 4)
    error, _ = worst_error(Precision("bf16", "", CPU, channels_last), network, torch.randn(2, 1, 64, 64))
    assert error < 0.05


def test_fp32_agrees_with_itself():
    assert worst_error(FP32, tiny(), torch.randn(2, 1, 16, 16))[0] < 1e-5
    assert worst_error(FP32, tiny(WrongInBf16), torch.randn(2, 1, 16, 16))[0] < 1e-5


def test_a_layer_with_a_wrong_gradient_is_noticed_and_named():
    error, layer = worst_error(BF16, tiny(WrongInBf16), torch.randn(2, 1, 16, 16))
    assert error == pytest.approx(0.2, abs=0.01)
    assert layer == "2"


def test_a_gradient_that_is_not_finite_is_the_worst():
    error, layer = worst_error(BF16, tiny(NotFiniteInBf16), torch.randn(2, 1, 16, 16))
    assert (error, layer) == (float("inf"), "2")


def test_auto_takes_bf16_where_it_is_fast_and_right(fast):
    chosen = choose_precision("auto", CPU, tiny, torch.randn(2, 1, 16, 16))
    assert chosen.name == "bf16" and "agrees" in chosen.reason


@pytest.mark.parametrize("middle", [WrongInBf16, NotFiniteInBf16])
def test_auto_stays_in_fp32_where_a_layer_is_wrong_and_says_which(fast, middle):
    chosen = choose_precision("auto", CPU, lambda: tiny(middle), torch.randn(2, 1, 16, 16))
    assert chosen.name == "fp32" and "layer 2" in chosen.reason


def test_auto_stays_in_fp32_where_bf16_is_slow(monkeypatch):
    monkeypatch.setattr(module, "fast_bf16", lambda device: False)
    chosen = choose_precision("auto", CPU, lambda: pytest.fail("nothing is to be probed"), torch.zeros(1, 1, 16, 16))
    assert chosen.name == "fp32" and "not fast" in chosen.reason


@pytest.mark.parametrize("asked", ["fp32", "bf16"])
def test_a_precision_asked_for_is_taken_without_a_probe(asked, fast):
    chosen = choose_precision(asked, CPU, lambda: pytest.fail("nothing is to be probed"), torch.zeros(1, 1, 16, 16))
    assert (chosen.name, chosen.reason) == (asked, "asked for")


@pytest.mark.parametrize(("precision", "dtype"), [(FP32, torch.float32), (BF16, torch.bfloat16)])
def test_autocast_is_on_in_bf16_alone(precision, dtype):
    network = tiny()
    with precision.autocast():
        assert network(torch.randn(1, 1, 16, 16)).dtype == dtype
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "memory_format"),
    [("unet", (2, 1, 32, 32), torch.channels_last), ("vnet", (2, 1, 16, 16, 16), torch.channels_last_3d)],
)
@torch.no_grad()
def test_the_memory_layout_changes_no_value(name, shape, memory_format):
    torch.manual_seed(0)
    network, image = build_network(name, 1, 3).eval(), torch.randn(shape)
    expected = network(image)
    precision = Precision("fp32", "", CPU, channels_last=True)
    placed = precision.place(network)
    weight = placed.encoder.blocks[1][0].weight
    assert placed is network and weight.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(placed(precision.layout(image)), expected, rtol=1e-3, atol=1e-4)
    vector = torch.randn(3)
    assert precision.layout(vector) is vector
