"""Networks with several decoders or heads: published sizes, order of outputs, ways of upsampling."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from sslbench.config.job import Job
from sslbench.core.errors import UsageError
from sslbench.networks import build_decoder, build_network
from sslbench.networks.base import Network
from sslbench.networks.pyramid import PyramidHeads
from sslbench.networks.vnet import _upsample


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "classes", "options", "parameters"),
    [
        ("unet_urpc", 4, {}, 1_831_060),
        ("unet_urpc", 2, {}, 1_822_122),
        ("unet3d", 2, {}, 5_884_050),
        ("unet3d_urpc", 14, {}, 5_887_432),
        ("unet3d_urpc", 16, {}, 5_887_920),
        ("unet_mcnet", 4, {}, 2_577_624),
        ("unet_mcnet", 4, {"version": "v2"}, 3_210_924),
        ("unet_mcnet", 4, {"version": "v3"}, 3_844_224),
    ],
)
def test_published_parameter_counts(name: str, classes: int, options: dict[str, Any], parameters: int) -> None:
    assert count(build_network(name, 1, classes, **options)) == parameters


def test_further_decoders_make_the_3d_mcnet() -> None:
    network = build_network("vnet", 1, 2)
    sizes = []
    for kind in network.other_upsamplings():
        network.decoders.append(build_decoder(network, upsampling=kind))
        sizes.append(count(network))
    assert sizes == [12_347_716, 15_246_566]


@pytest.mark.parametrize("name", ["unet_cct", "unet_mcnet", "unet_urpc"])
def test_a_recipe_takes_no_network_of_several_outputs(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} gives several outputs"):
        Job(recipe="ssl4mis-acdc", method="cps", labeled="3 patients", set={"network.name": name}).resolved  # noqa: B018


# ---------------------------------------------------------------------------------------------- ways of upsampling


@pytest.mark.parametrize(
    ("name", "options", "others"),
    [
        ("vnet", {}, ("trilinear", "nearest")),
        ("unet", {}, ("transposed", "nearest", "bicubic")),
        ("unet", {"upsampling": "nearest"}, ("bilinear", "transposed", "bicubic")),
        ("unet3d", {}, ("transposed", "nearest")),
    ],
)
def test_further_decoders_take_the_upsamplings_that_the_main_one_has_not(
    name: str, options: dict[str, Any], others: tuple[str, ...]
) -> None:
    assert build_network(name, 1, 2, **options).other_upsamplings() == others


@pytest.mark.parametrize("kind", ["trilinear", "nearest", "transposed"])
@pytest.mark.parametrize("name", ["vnet", "unet3d"])
@torch.no_grad()
def test_a_decoder_of_any_upsampling_reads_the_features(name: str, kind: str) -> None:
    network = build_network(name, 1, 3, base_filters=2).eval()
    features = network.encode(torch.rand(2, 1, 16, 16, 32))
    decoder = build_decoder(network, upsampling=kind).eval()
    maps = decoder(features)
    assert tuple(content.shape[1] for content in maps) == decoder.channels
    assert [content.shape[2:] for content in maps] == [content.shape[2:] for content in features.maps[-2::-1]]
    assert decoder.head(maps[-1]).shape == (2, 3, 16, 16, 32)


def test_the_upsampling_of_a_vnet_is_no_choice_of_a_recipe() -> None:
    """It would be part of every digest: the main decoder is the published one."""
    with pytest.raises(ValidationError):
        build_network("vnet", 1, 2, upsampling="nearest")


def test_trilinear_upsampling_aligns_corners() -> None:
    up, convolution = _upsample("trilinear", 1, 1)
    ramp = torch.linspace(0, 1, 4).expand(1, 1, 4, 4, 4)
    assert torch.allclose(up(ramp)[0, 0, 0, 0], torch.linspace(0, 1, 8), atol=1e-6)
    assert convolution.kernel_size == (3, 3, 3)


@torch.no_grad()
def test_mcnet_answers_with_one_output_per_decoder_the_main_one_first() -> None:
    torch.manual_seed(0)
    network = build_network("unet_mcnet", 1, 3, version="v3").eval()
    image = torch.rand(1, 1, 32, 48)
    outputs = network(image)
    assert len(outputs) == 4 and all(output.shape == (1, 3, 32, 48) for output in outputs)
    assert torch.equal(outputs[0], network.head(network.decode(network.encode(image))[-1]))
    modes = [getattr(decoder.up[0], "1", None) for decoder in network.decoders]
    assert [getattr(mode, "mode", "transposed") for mode in modes] == ["bilinear", "transposed", "nearest", "bicubic"]
    assert [getattr(mode, "align_corners", None) for mode in modes] == [True, None, None, True]


# -------------------------------------------------------------------------------------------------- pyramid heads


def pyramid(name: str) -> tuple[Network, Tensor]:
    torch.manual_seed(0)
    if name == "unet_urpc":
        return build_network(name, 1, 3), torch.rand(2, 1, 32, 48)
    return build_network(name, 1, 3, base_filters=2), torch.rand(2, 1, 16, 32, 32)


@pytest.mark.parametrize("name", ["unet_urpc", "unet3d_urpc"])
@torch.no_grad()
def test_the_finest_head_comes_first_and_all_are_of_full_size(name: str) -> None:
    network, image = pyramid(name)
    network.eval()
    outputs, maps = network(image), network.decode(network.encode(image))
    assert torch.equal(outputs[0], network.head(maps[-1]))
    mode = "nearest" if name == "unet_urpc" else "trilinear"
    for output, head, content in zip(outputs[1:], network.pyramid.heads, maps[-2::-1], strict=True):
        assert torch.equal(output, F.interpolate(head(content), image.shape[2:], mode=mode))
    assert [head.in_channels for head in network.pyramid.heads] == list(network.decoder.channels[-2::-1])


@torch.no_grad()
def test_coarser_outputs_in_2d_are_constant_on_squares() -> None:
    network, image = pyramid("unet_urpc")
    for side, output in zip((2, 4, 8), network.eval()(image)[1:], strict=True):
        corners = output[..., ::side, ::side]
        assert torch.equal(output, corners.repeat_interleave(side, -2).repeat_interleave(side, -1))
        assert corners.std() > 0


@torch.no_grad()
def test_maps_are_perturbed_in_2d_in_training_alone() -> None:
    network, image = pyramid("unet_urpc")
    maps = network.eval().decode(network.encode(image))
    plain = network.pyramid(maps)
    assert all(torch.equal(*pair) for pair in zip(plain, network.pyramid(maps), strict=True))
    network.pyramid.train()
    seen: list[Tensor] = []
    for head in network.pyramid.heads:
        head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network.pyramid(maps)
    noise, dropped, half = seen
    fine, middle, coarse = maps[-2::-1]
    ratio = (noise / fine)[fine != 0]
    assert ratio.min() > 0.6999 and ratio.max() < 1.3001 and ratio.std() > 0.1
    gone = (dropped == 0).all(1) & (middle != 0).any(1)
    assert gone.any() and torch.equal(
        dropped[~gone.unsqueeze(1).expand_as(dropped)], middle[~gone.unsqueeze(1).expand_as(middle)]
    )
    kept = half != 0
    assert 0.4 < kept.float().mean() < 0.6 and torch.allclose(half[kept], 2 * coarse[kept])


@torch.no_grad()
def test_maps_are_taken_as_they_are_in_3d() -> None:
    network, image = pyramid("unet3d_urpc")
    maps = network.eval().decode(network.encode(image))
    plain = network.pyramid(maps)
    assert all(torch.equal(*pair) for pair in zip(plain, network.pyramid.train()(maps), strict=True))


@pytest.mark.parametrize("name", ["vnet", "unet", "unet3d", "resunet"])
def test_pyramid_heads_fit_any_network(name: str) -> None:
    network = build_network(name, 1, 3, **({} if name in ("unet", "resunet") else {"base_filters": 2}))
    heads = PyramidHeads(network)
    shape = (1, 1, 32, 32) if network.dims == 2 else (1, 1, 16, 16, 32)
    outputs = heads(network.decode(network.encode(torch.rand(shape))))
    assert [output.shape for output in outputs] == [(1, 3, *shape[2:])] * 3
    kinds = {(type(head), head.kernel_size) for head in heads.heads}
    assert kinds == {(type(network.decoder.head), network.decoder.head.kernel_size)}


@torch.no_grad()
def test_dropout_of_the_3d_unets() -> None:
    def same(network: Network, image: Tensor) -> tuple[list[bool], list[bool]]:
        features = network.encode(image)
        again = network.encode(image).maps
        return (
            [torch.equal(*pair) for pair in zip(features.maps, again, strict=True)],
            [torch.equal(*pair) for pair in zip(network.decode(features), network.decode(features), strict=True)],
        )

    image = torch.rand(2, 1, 16, 32, 32)
    plain = build_network("unet3d", 1, 2, base_filters=4)
    assert same(plain, image) == ([True] * 4 + [False], [True] * 3 + [False])
    urpc = build_network("unet3d_urpc", 1, 2)
    assert same(urpc, image)[0] == [True] * 5
    assert [layer.p for layer in urpc.decoder.drops] == [0.5, 0.3, 0.2, 0.1]
    assert all(isinstance(layer, nn.Dropout3d) for layer in urpc.decoder.drops)
    assert not list(urpc.buffers()), "instance norm keeps no running statistics"
