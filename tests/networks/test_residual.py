"""Residual networks: the published size, MONAI's ResNet as an oracle of the encoder, the contract of a network."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets.resnet import ResNet
from torch import nn

from sslbench.networks import Features, build_decoder, build_network

SMALL = {"resunet": ({}, (2, 1, 32, 48)), "resvnet": ({"base_filters": 4}, (2, 1, 16, 16, 32))}
both = pytest.mark.parametrize("name", SMALL)

# Of the SS-Net heads that the published networks of the family carry along unused.
UNUSED_HEADS = 13_064


def count(module):
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def small(name, **options):
    """A network and an image that it takes."""
    torch.manual_seed(0)
    set_here, shape = SMALL[name]
    return build_network(name, 1, 3, **set_here, **options), torch.randn(shape)


def test_parameter_counts():
    unet, vnet = build_network("unet", 1, 4), build_network("vnet", 1, 2, base_filters=4)
    residual = build_network("resunet", 1, 4)
    assert count(residual) + UNUSED_HEADS == 5_966_156
    assert count(residual.decoder) == count(unet.decoder) == 633_300
    assert count(build_network("resvnet", 1, 2, base_filters=4).decoder) == count(vnet.decoder)
    three = build_network("resunet", 3, 4)
    assert count(three) - count(residual) == 2 * 16 * 49  # the stem alone sees the channels


@both
@torch.no_grad()
def test_the_stages_are_those_of_a_resnet_34(name):
    network, image = small(name)
    dims, stages = image.ndim - 2, network.encoder.stages
    widths = [content.shape[1] for content in network.encode(image).maps]  # and so statistics that are not 0 and 1
    assert widths == [widths[0] * 2**stage for stage in range(5)]
    oracle = ResNet("basic", [3, 4, 6, 3], widths[1:], spatial_dims=dims, n_input_channels=1)
    content = torch.randn(2, widths[1], *image.shape[2:])
    # The first of MONAI's four has no stride, so that it is held against blocks without their change of size.
    for ours, theirs in [(stages[1][1:], oracle.layer1[1:])] + [
        (stages[number], getattr(oracle, f"layer{number}")) for number in (2, 3, 4)
    ]:
        state = theirs.state_dict()
        own = iter(ours.state_dict().values())
        theirs.load_state_dict(
            {key: value * 0 if key.endswith("downsample.0.bias") else next(own) for key, value in state.items()}
        )
        expected = theirs.eval()(content)
        torch.testing.assert_close(ours.eval()(content), expected, rtol=1e-4, atol=1e-5)
        content = expected


@both
@torch.no_grad()
def test_features_run_from_full_size_to_a_sixteenth_and_logits_have_the_size_of_the_image(name):
    network, image = small(name)
    network.eval()
    features = network.encode(image)
    sizes = [tuple(content.shape[2:]) for content in features.maps]
    assert sizes == [tuple(side // 2**stage for side in image.shape[2:]) for stage in range(5)]
    maps = network.decode(features)
    assert torch.equal(network(image), network.head(maps[-1]))
    assert network(image).shape == (2, 3, *image.shape[2:])


@both
def test_every_parameter_of_encoder_and_decoders_learns(name):
    network, image = small(name)
    network.decoders.append(build_decoder(network))
    sum(logits.square().mean() for logits in network(image)).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


@both
@torch.no_grad()
def test_a_prior_is_added_in_every_decoder_stage(name):
    network, image = small(name)
    features = network.eval().encode(image)
    sides = [content.shape[2:] for content in reversed(features.maps[:-1])]
    prior = tuple(
        torch.ones(2, channels, *side) for channels, side in zip(network.decoder.prior_channels, sides, strict=True)
    )
    with_prior, without = network.decode(Features(features.maps, prior)), network.decode(features)
    assert not any(torch.equal(a, b) for a, b in zip(with_prior, without, strict=True))


@both
def test_a_block_without_its_convolutions_is_its_input(name):
    """The skip is there, after the second norm and before the last activation."""
    network, _ = small(name)
    block = network.encoder.stages[1][1]
    nn.init.zeros_(block.convs[-1].weight)
    content = torch.randn(2, block.convs[0].in_channels, *[4] * (network.dims))
    assert torch.equal(block(content), content.relu())


def test_dropout_is_off_in_2d_unless_asked_for_and_on_the_bottleneck_in_3d():
    assert not build_network("resunet", 1, 2).draws({})
    network, image = small("resunet", dropout=(0, 0, 0.5, 0, 0))
    first, second = network.encode(image).maps, network.encode(image).maps
    assert [torch.equal(a, b) for a, b in zip(first, second, strict=True)] == [True, True, False, False, False]
    network, image = small("resvnet", dropout=0.5)
    first, second = network.encode(image).maps, network.encode(image).maps
    assert [torch.equal(a, b) for a, b in zip(first, second, strict=True)] == [True] * 4 + [False]


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_convolutions_have_a_bias_where_no_norm_follows(norm):
    network, image = small("resvnet", norm=norm)
    convolutions = [layer for layer in network.encoder.modules() if isinstance(layer, nn.Conv3d)]
    assert {layer.bias is not None for layer in convolutions} == {norm == "none"}
    assert torch.isfinite(network.train()(image.repeat(1, 1, 1, 2, 1))).all()


@both
@pytest.mark.parametrize("scheme", ["kaiming", "xavier"])
def test_initialisation_reaches_the_residual_blocks(name, scheme):
    weight = small(name, init=scheme)[0].encoder.stages[4][1].convs[0].weight
    fans = 1 if scheme == "kaiming" else 2
    assert weight.std().item() == pytest.approx((2 / (fans * weight[0].numel())) ** 0.5, rel=0.02)
