"""Networks: published parameter counts, shapes, how encoder, decoders, head and priors compose, initialisation."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from sslbench.core.errors import UnknownNameError
from sslbench.networks import Features, Network, build_decoder, build_network
from sslbench.networks.base import Conv3d, initialize
from sslbench.networks.resize import Upsample

SMALL_VNET = {"base_filters": 4}
DIMS = {"vnet": 3, "unet": 2, "unet3d": 3}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def small(name, **options):
    """A network and an image that it takes."""
    torch.manual_seed(0)
    if DIMS[name] == 3:
        return build_network(name, 1, 3, **SMALL_VNET, **options), torch.randn(2, 1, 16, 16, 32)
    return build_network(name, 1, 3, **options), torch.randn(2, 1, 32, 48)


both = pytest.mark.parametrize("name", list(DIMS))


# --------------------------------------------------------------------------------------------------------- counts


@pytest.mark.parametrize(
    ("name", "channels", "classes", "options", "parameters"),
    [
        ("vnet", 1, 14, {}, 9_449_070),
        ("vnet", 1, 16, {}, 9_449_104),
        ("vnet", 1, 2, {}, 9_448_866),
        ("vnet", 1, 14, {"dropout": 0.5}, 9_449_070),
        ("vnet", 1, 14, {"base_filters": 32, "dropout": 0.5}, 37_778_126),
        ("vnet", 1, 16, {"base_filters": 32, "dropout": 0.5}, 37_778_192),
        ("unet", 1, 4, {}, 1_813_764),
        ("unet", 1, 2, {}, 1_813_474),
        ("unet", 3, 2, {}, 1_813_762),
    ],
)
def test_published_parameter_counts(name, channels, classes, options, parameters):
    assert count(build_network(name, channels, classes, **options)) == parameters


@pytest.mark.parametrize(
    ("name", "classes", "options", "encoder", "decoder"),
    [
        ("vnet", 14, {"norm": "instance"}, 7_373_088, 2_070_382),  # MagicNet
        ("vnet", 14, {"base_filters": 32}, 29_495_296, 8_282_830),  # SKCDF's encoder, DST's decoders
        ("unet", 4, {}, 1_180_464, 633_300),
    ],
)
def test_published_counts_of_encoder_and_decoder(name, classes, options, encoder, decoder):
    network = build_network(name, 1, classes, **options)
    assert (count(network.encoder), count(network.decoder)) == (encoder, decoder)
    assert count(build_decoder(network)) == decoder


def test_a_second_decoder_makes_mcnet():
    network = build_network("unet", 1, 4)
    network.decoders.append(build_decoder(network, upsampling="transposed"))
    assert count(network) == 2_577_624


@pytest.mark.parametrize(
    ("block", "parameters"),
    [("blocks.0", 480), ("down.0", 4_192), ("blocks.2", 332_352), ("down.3", 262_912), ("blocks.4", 5_310_720)],
)
def test_parameters_of_the_blocks_of_a_vnet(block, parameters):
    assert count(build_network("vnet", 1, 14).encoder.get_submodule(block)) == parameters


def test_without_a_norm_the_vnet_has_its_convolutions_alone():
    plain, batch = (build_network("vnet", 1, 3, norm=norm, **SMALL_VNET) for norm in ("none", "batch"))
    instance = build_network("vnet", 1, 3, norm="instance", **SMALL_VNET)
    norms = sum(count(layer) for layer in batch.modules() if isinstance(layer, nn.BatchNorm3d))
    assert norms and count(plain) == count(instance) == count(batch) - norms
    assert not list(instance.buffers()), "instance norm keeps no running statistics"


# --------------------------------------------------------------------------------------------- shapes and composition


@pytest.mark.parametrize(
    ("name", "classes", "options", "shape"),
    [
        ("vnet", 14, SMALL_VNET, (2, 1, 32, 32, 32)),
        ("vnet", 2, {"base_filters": 2}, (1, 1, 112, 112, 80)),
        ("vnet", 3, SMALL_VNET, (1, 1, 16, 48, 32)),
        ("unet", 4, {}, (2, 1, 256, 256)),
        ("unet", 2, {}, (1, 3, 64, 32)),
    ],
)
@torch.no_grad()
def test_logits_have_the_size_of_the_image(name, classes, options, shape):
    network = build_network(name, shape[1], classes, **options).eval()
    assert network(torch.zeros(shape)).shape == (shape[0], classes, *shape[2:])


@both
@torch.no_grad()
def test_forward_is_encode_decode_head(name):
    network, image = small(name)
    network.eval()
    maps = network.decode(network.encode(image))
    assert torch.equal(network(image), network.head(maps[-1]))


@both
@torch.no_grad()
def test_logits_of_a_decoder_are_those_of_its_head_and_pass_what_watches_it(name):
    network, image = small(name)
    features, decoder = network.eval().encode(image), build_decoder(network).eval()
    logits = decoder.logits(features)
    assert torch.equal(logits, decoder.head(decoder(features)[-1]))
    assert torch.equal(network.logits(features), network(image)) and not torch.equal(logits, network(image))
    decoder.register_forward_hook(lambda module, inputs, maps: [*maps[:-1], 0 * maps[-1]])
    assert not torch.equal(decoder.logits(features), logits)


@both
@torch.no_grad()
def test_features_run_from_fine_to_coarse_and_decoder_maps_back(name):
    network, image = small(name)
    features = network.encode(image)
    sides = [content.shape[2] for content in features.maps]
    assert sides == [image.shape[2] // 2**stage for stage in range(5)]
    assert features.prior is None
    assert [content.shape[2] for content in network.decode(features)] == sides[-2::-1]


@both
def test_several_decoders_answer_in_order_and_all_learn(name):
    network, image = small(name)
    main = network.decoder
    network.decoders.append(build_decoder(network))
    assert isinstance(network, Network) and network.base is network and network.decoder is main
    network.eval()
    first, second = network(image)
    torch.testing.assert_close(first, network.head(network.decode(network.encode(image))[-1]))
    assert not torch.equal(first, second), "a fresh decoder is drawn anew"
    (first.square().mean() + second.square().mean()).backward()
    for module in (network.encoder, *network.decoders):
        assert all(parameter.grad is not None for parameter in module.parameters())
        assert sum(float(parameter.grad.abs().sum()) for parameter in module.parameters()) > 0


@both
def test_a_decoder_alone_reaches_its_encoder_and_no_other_decoder(name):
    network, image = small(name)
    network.decoders.append(build_decoder(network))
    network(image)[1].square().mean().backward()
    assert all(parameter.grad is None for parameter in network.decoder.parameters())
    assert all(parameter.grad is not None for parameter in network.encoder.parameters())


@pytest.mark.parametrize("name", ["vnet", "unet", "unet3d", "resunet", "resvnet", "diffusion_vnet"])
@torch.no_grad()
def test_a_decoder_with_its_own_outputs_and_refined_maps(name):
    flat = name.endswith("unet")
    network = build_network(name, 1, 3, **({} if flat else SMALL_VNET))
    image = torch.randn(2, 1, 32, 48) if flat else torch.randn(2, 1, 16, 16, 32)
    features, decoder = network.eval().encode(image), build_decoder(network, num_classes=7).eval()
    plain = decoder(features)
    assert decoder.head(plain[-1]).shape[1] == 7
    assert [content.shape[1] for content in plain] == [*decoder.channels]
    seen = []

    def refine(stage, content):
        seen.append(content)
        return 2 * content if stage == 1 else content

    refined = decoder(features, refine)
    assert len(seen) == 4 and torch.equal(refined[0], plain[0]) and torch.equal(refined[1], 2 * plain[1])
    assert not torch.equal(seen[2], plain[2]), "the next stage goes on from the refined map"
    assert torch.equal(refined[3], seen[3])


def test_options_of_a_further_decoder():
    network, _ = small("vnet", dropout=0.5)
    assert build_decoder(network).dropout.p == 0.5
    assert build_decoder(network, dropout=0.1).dropout.p == 0.1
    unet, _ = small("unet")
    decoder = build_decoder(unet, decoder_dropout=(0.1, 0.2, 0.3, 0.4))
    assert [layer.p for layer in decoder.modules() if isinstance(layer, nn.Dropout)] == [0.4, 0.3, 0.2, 0.1]


def test_features_map_changes_the_maps_and_keeps_the_prior():
    maps, prior = tuple(torch.full((1, 1, 2), float(n)) for n in range(3)), (torch.ones(1),)
    features = Features(maps, prior)
    changed = features.map(lambda stage, content: content + 10 * stage)
    assert [float(content.mean()) for content in changed.maps] == [0, 11, 22]
    assert changed.prior is prior and features.maps is maps
    assert Features(maps).map(lambda stage, content: content).prior is None


@both
@torch.no_grad()
def test_a_prior_is_added_in_every_decoder_stage(name):
    network, image = small(name)
    network.decoders.append(build_decoder(network))
    network.eval()
    features = network.encode(image)
    sides = [content.shape[2:] for content in reversed(features.maps[:-1])]
    zeros = [
        torch.zeros(len(image), channels, *side)
        for channels, side in zip(network.decoder.prior_channels, sides, strict=True)
    ]
    for decoder in network.decoders:
        plain = decoder(features)
        for with_zeros, without in zip(decoder(Features(features.maps, tuple(zeros))), plain, strict=True):
            assert torch.equal(with_zeros, without)
        for stage in range(4):
            prior = [10 * torch.randn_like(zero) if number == stage else zero for number, zero in enumerate(zeros)]
            maps = decoder(Features(features.maps, tuple(prior)))
            same = [torch.equal(a, b) for a, b in zip(maps, plain, strict=True)]
            assert same == [number < stage for number in range(4)]


@both
@torch.no_grad()
def test_a_prior_is_as_good_as_a_changed_skip(name):
    """V-Nets add the two; U-Nets concatenate [skip, up], so that the first half of a prior meets the skip."""
    network, image = small(name)
    network.eval()
    maps = network.encode(image).maps
    change = [torch.randn_like(content) for content in maps[-2::-1]]
    skips = tuple(content + other for content, other in zip(maps, reversed(change), strict=False))
    wide = zip(change, network.decoder.prior_channels, strict=True)
    prior = tuple(
        torch.cat([content, content.new_zeros(len(content), channels - content.shape[1], *content.shape[2:])], 1)
        for content, channels in wide
    )
    expected = network.decode(Features((*skips, maps[-1])))
    for with_prior, with_skips in zip(network.decode(Features(maps, prior)), expected, strict=True):
        torch.testing.assert_close(with_prior, with_skips, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------- layers and initialisation


@both
@pytest.mark.parametrize("scheme", ["kaiming", "xavier"])
def test_initialisation_draws_plain_convolutions_and_nothing_else(name, scheme):
    network, _ = small(name) if name == "vnet" else small(name, upsampling="transposed")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    initialize(network, scheme)
    after = network.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    plain = {f"{key}.weight" for key, layer in network.named_modules() if isinstance(layer, (nn.Conv2d, nn.Conv3d))}
    assert changed == plain


@both
@pytest.mark.parametrize(("scheme", "fans"), [("kaiming", 1), ("xavier", 2)])
def test_the_scale_of_an_initialisation(name, scheme, fans):
    """√(2 / fan-in), or √(2 / (fan-in + fan-out)), measured on a convolution with many weights."""
    network = build_network(name, 1, 4, init=scheme)
    for module in (network.encoder, network.decoder, build_decoder(network)):
        layers = [layer for layer in module.modules() if isinstance(layer, (nn.Conv2d, nn.Conv3d))]
        square = [layer.weight for layer in layers if layer.weight.shape[0] == layer.weight.shape[1]]
        weight = max(square, key=torch.numel)
        assert weight.std().item() == pytest.approx((2 / (fans * weight[0].numel())) ** 0.5, rel=0.02)


@both
def test_the_default_initialisation_is_pytorchs_and_draws_nothing_more(name):
    network, _ = small(name)
    state = torch.get_rng_state()
    initialize(network, "default")
    assert torch.equal(torch.get_rng_state(), state)


def test_an_unknown_initialisation_is_refused():
    with pytest.raises(ValueError, match="orthogonal"):
        initialize(nn.Conv2d(1, 1, 1), "orthogonal")
    with pytest.raises(ValidationError, match="orthogonal"):
        build_network("unet", 1, 2, init="orthogonal")


def test_the_encoder_of_a_unet_drops_more_the_deeper_it_gets():
    network, _ = small("unet")
    encoder = [layer.p for layer in network.encoder.modules() if isinstance(layer, nn.Dropout)]
    decoder = [layer.p for layer in network.decoder.modules() if isinstance(layer, nn.Dropout)]
    assert encoder == [0.05, 0.1, 0.2, 0.3, 0.5]
    assert decoder == [0, 0, 0, 0]


@torch.no_grad()
def test_dropout_of_a_vnet_acts_in_training_alone_on_bottleneck_and_finest_map():
    network, image = small("vnet", dropout=0.5)
    features = network.encode(image)

    def same(first, second):
        return [torch.equal(a, b) for a, b in zip(first, second, strict=True)]

    assert same(features.maps, network.encode(image).maps) == [True, True, True, True, False]
    assert same(network.decode(features), network.decode(features)) == [True, True, True, False]
    network.eval()
    assert torch.equal(network(image), network(image))


def test_bilinear_upsampling_aligns_corners():
    layers = [layer for layer in build_network("unet", 1, 2).modules() if isinstance(layer, Upsample)]
    assert [(layer.mode, layer.align_corners) for layer in layers] == [("bilinear", True)] * 4


@pytest.mark.parametrize("kind", ["bilinear", "nearest", "bicubic", "transposed"])
@torch.no_grad()
def test_every_upsampling_gives_the_size_of_the_image(kind):
    network, image = small("unet", upsampling=kind)
    assert network(image).shape == (2, 3, 32, 48)


@both
def test_a_network_in_training_mode_is_the_same_from_the_same_seed(name):
    outputs = []
    for _ in range(2):
        network, image = small(name)
        torch.manual_seed(1)
        outputs.append(network(image))
    assert torch.equal(*outputs)


@pytest.mark.parametrize(
    ("name", "options"),
    [("vnet", {"base_filter": 8}), ("vnet", {"norm": "layer"}), ("unet", {"dropout": (0.1,)}), ("unet", {"norm": 1})],
)
def test_options_that_a_network_does_not_have_are_refused(name, options):
    with pytest.raises(ValidationError):  # which the configuration tells in one line
        build_network(name, 1, 2, **options)


def test_an_unknown_network_is_named_with_near_names():
    with pytest.raises(UnknownNameError, match="did you mean vnet"):
        build_network("vnett", 1, 2)


# ------------------------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize("size", [(2, 4, 4), (2, 2, 2), (1, 4, 4), (4, 2, 2), (3, 4, 4)])
def test_the_bf16_weight_gradient_of_a_convolution_is_that_of_fp32(size):
    """On inputs 2 voxels deep PyTorch's own is wrong on some processors; where bf16 is emulated it is right."""
    torch.manual_seed(0)
    layer = Conv3d(16, 16, 3, padding=1)
    image, upstream = torch.randn(2, 16, *size), torch.randn(2, 16, *size)
    exact = torch.autograd.grad(layer(image), layer.weight, upstream)[0]
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(image)
    reduced = torch.autograd.grad(output, layer.weight, upstream.to(output.dtype))[0]
    assert (reduced - exact).norm() / exact.norm() < 0.02


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_a_convolution_of_single_voxels_is_torchs(bias: bool, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    layer, x = Conv3d(6, 3, 1, bias=bias), torch.randn(2, 6, 4, 3, 5)
    x = x.contiguous(memory_format=layout).requires_grad_()
    found, expected = layer(x), torch.nn.Conv3d.forward(layer, x)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    weight, inputs = torch.randn_like(expected), [x, *layer.parameters()]
    for one, other in zip(*(torch.autograd.grad(made, inputs, weight) for made in (found, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
