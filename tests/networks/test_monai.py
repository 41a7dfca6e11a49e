"""Networks of MONAI behind `encode`, `decode` and `head`: held against MONAI's own, in trainings, and where refused."""

from __future__ import annotations

import copy
import inspect
import subprocess
import sys

import pytest
import torch
from torch import nn

from sslbench.cli.show import describe
from sslbench.config.job import Job
from sslbench.conformance.bench import MemoryCheckpoints, MemoryRecorder, random_experiment
from sslbench.core import registry
from sslbench.core.errors import UsageError
from sslbench.networks import Features, build_decoder, build_network
from sslbench.training.trainer import Interrupted, Trainer

# Options that make each network tiny, and the side of an image that it takes.
TINY = {
    "monai:AttentionUnet": ({"channels": (4, 6, 8), "strides": (2, 2)}, 16),
    "monai:BasicUNet": ({"features": (4, 4, 8, 8, 16, 6)}, 32),
    "monai:BasicUNetPlusPlus": ({"features": (4, 4, 8, 8, 16, 6)}, 32),
    "monai:DynUNet": ({"filters": (4, 6, 8), "strides": (1, 2, 2), "res_block": True}, 16),
    "monai:MedNeXt": ({"init_filters": 4, "kernel_size": 3, "blocks_down": (1, 1), "blocks_up": (1, 2)}, 16),
    "monai:SegResNet": ({}, 16),
    "monai:SwinUNETR": ({"feature_size": 12, "depths": (1, 1, 1, 1)}, 64),
    "monai:UNETR": ({"hidden_size": 16, "mlp_dim": 16, "num_heads": 2, "feature_size": 4, "img_size": (32, 32)}, 32),
    "monai:UNet": ({"channels": (4, 6, 8, 10), "strides": (2, 2, 1)}, 16),
}
TRANSFORMERS = ("monai:SwinUNETR", "monai:UNETR")
CASES = [(name, dims) for name in TINY for dims in (2, 3) if (name, dims) != ("monai:SwinUNETR", 3)]
every = pytest.mark.parametrize(("name", "dims"), CASES)


def tiny(name, dims, **more):
    """The options of a small network, and an image that it takes."""
    if name in TRANSFORMERS:
        pytest.importorskip("einops")
    options, side = TINY[name]
    if "img_size" in options:
        options = {**options, "img_size": (side,) * dims}
    torch.manual_seed(3)
    return {**options, "spatial_dims": dims, **more}, torch.randn(2, 1, *[side] * dims)


def built(name, dims, **more):
    options, image = tiny(name, dims, **more)
    torch.manual_seed(0)
    return build_network(name, 1, 3, **options), image


def theirs(name, options):
    """MONAI's own network, drawn from the same seed."""
    from monai.networks import nets

    kind = registry.component("network", name)
    torch.manual_seed(0)
    return getattr(nets, kind.source)(in_channels=1, out_channels=3, **kind.Options(**options).layers())


def monai_job(network="monai:SegResNet", method="cps", dims=3, plugin=None, **more):
    side = 64 if network == "monai:SwinUNETR" else 16
    size = [side] * 2 if dims == 2 else [side // 2, side // 2, side]
    chosen = {"patch_size": size, "network.name": network, "schedule.validate_every": 0, "checkpoint": "last"}
    chosen |= {"inference.stride": size, "inference.validation_stride": size} if dims == 3 else {}
    recipe, labeled = ("phantom", "20%") if dims == 3 else ("ssl4mis-acdc", "7 patients")
    batch = {"batch.labeled": 1, "batch.unlabeled": 1}
    return Job(recipe=recipe, method=method, plugin=plugin, labeled=labeled, seed=0, set=chosen | batch | more)


# -------------------------------------------------------------------------------------------- the same as MONAI's own


@every
def test_a_pass_is_that_of_monai_to_the_last_bit_with_its_gradients(name, dims):
    options, image = tiny(name, dims)
    ours, own = built(name, dims)[0], theirs(name, options)
    ours_given, own_given = image.clone().requires_grad_(), image.clone().requires_grad_()
    logits, expected = ours(ours_given), own(own_given)
    expected = expected[0] if isinstance(expected, list) else expected
    assert torch.equal(logits, expected) and logits.shape == (2, 3, *image.shape[2:])
    for result in (logits, expected):
        result.square().mean().backward()
    torch.testing.assert_close(ours_given.grad, own_given.grad, rtol=1e-5, atol=1e-9)
    with torch.no_grad():
        assert torch.equal(ours.eval()(image), ours.head(ours.decode(ours.encode(image))[-1]))


@pytest.mark.parametrize("name", list(TINY))
def test_options_have_the_names_and_defaults_of_monai(name):
    from monai.networks import nets

    kind = registry.component("network", name)
    signature = inspect.signature(getattr(nets, kind.source)).parameters
    known = kind.Options().layers()
    ours_alone = {
        "spatial_dims",
        "channels",
        "strides",
        "kernel_size",
        "upsample_kernel_size",
        "img_size",
    }  # MONAI has no default
    for option, value in known.items():
        default = signature[option].default
        if default is inspect.Parameter.empty:
            assert option in ours_alone
        elif (name, option) != ("monai:UNet", "num_res_units"):
            assert _plain(value) == _plain(default), option


def _plain(value):
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    return value.lower() if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("name", "classes", "dims", "parameters"),
    [
        ("monai:AttentionUnet", 14, 3, 5_909_334),
        ("monai:BasicUNet", 14, 3, 5_749_806),
        ("monai:BasicUNetPlusPlus", 14, 3, 6_980_174),
        ("monai:DynUNet", 14, 3, 16_544_046),
        ("monai:MedNeXt", 14, 3, 6_587_054),
        ("monai:SegResNet", 14, 3, 1_176_294),
        ("monai:UNet", 14, 3, 4_822_057),
        ("monai:SwinUNETR", 14, 3, 15_703_304),
        ("monai:SegResNet", 4, 2, 395_004),
        ("monai:SwinUNETR", 4, 2, 6_302_278),
    ],
)
def test_the_documented_numbers_of_parameters(name, classes, dims, parameters):
    if name in TRANSFORMERS:
        pytest.importorskip("einops")
    network = build_network(name, 1, classes, spatial_dims=dims)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


# ------------------------------------------------------------------------------------------------------- the contract


@every
def test_maps_and_their_channels_are_what_the_network_says(name, dims):
    network, image = built(name, dims)
    features = network.encode(image)
    maps = network.decode(features)
    assert [content.shape[1] for content in features.maps] == list(network.channels)
    assert [content.shape[1] for content in maps] == list(network.decoder.channels)
    assert len(maps) == len(features.maps) - 1 == len(network.decoder.prior_channels)
    assert maps[-1].shape[2:] == image.shape[2:]
    assert [side // network.divisor for side in image.shape[2:]] == list(features.maps[-1].shape[2:])
    assert network.dims == dims


@every
def test_a_further_decoder_is_fresh_and_no_parameter_is_shared_or_idle(name, dims):
    network, image = built(name, dims)
    network.decoders.append(build_decoder(network))
    assert {id(parameter) for parameter in network.decoder.parameters()}.isdisjoint(
        id(parameter) for parameter in network.decoders[1].parameters()
    )
    first, second = network(image)
    assert not torch.equal(first, second)
    (first.square().mean() + second.square().mean()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@every
@torch.no_grad()
def test_a_prior_is_added_in_every_stage_of_the_decoder(name, dims):
    network, image = built(name, dims)
    network.eval()
    features = network.encode(image)
    sides = [content.shape[2:] for content in reversed(features.maps[:-1])]
    zeros = [
        torch.zeros(2, channels, *side) for channels, side in zip(network.decoder.prior_channels, sides, strict=True)
    ]
    plain = network.decode(features)
    for stage in range(len(zeros)):
        prior = [torch.randn_like(zero) if number == stage else zero for number, zero in enumerate(zeros)]
        maps = network.decode(Features(features.maps, tuple(prior)))
        same = [torch.equal(a, b) for a, b in zip(maps, plain, strict=True)]
        assert same == [number < stage for number in range(len(zeros))]


@pytest.mark.parametrize("name", ["monai:SegResNet", "monai:BasicUNet", "monai:BasicUNetPlusPlus"])
def test_decoders_that_upsample_differently(name):
    network, image = built(name, 2)
    own = getattr(network.options, network.upsampling)
    others = network.other_upsamplings()
    assert sorted((own, *others)) == ["deconv", "nontrainable", "pixelshuffle"]
    sizes = set()
    for kind in others:
        decoder = build_decoder(network, upsampling=kind)
        assert decoder.logits(network.encode(image)).shape == (2, 3, *image.shape[2:])
        sizes.add(sum(parameter.numel() for parameter in decoder.parameters()))
    assert len(sizes) == 2


def test_initialisation_draws_plain_convolutions_as_asked():
    network, _ = built("monai:SegResNet", 3, init="kaiming", init_filters=32)
    layer = max(
        (part for part in network.modules() if isinstance(part, nn.Conv3d)), key=lambda part: part.weight.numel()
    )
    assert layer.weight.std().item() == pytest.approx((2 / layer.weight[0].numel()) ** 0.5, rel=0.05)


@pytest.mark.parametrize(
    ("name", "options", "draws"),
    [
        ("monai:SegResNet", {}, False),
        ("monai:SegResNet", {"dropout_prob": 0.2}, True),
        ("monai:SwinUNETR", {"dropout_path_rate": 0.1}, True),
        ("monai:DynUNet", {"dropout": 0.1}, True),
    ],
)
def test_whether_two_passes_differ(name, options, draws):
    assert registry.component("network", name).draws(options) == draws


# --------------------------------------------------------------------------------------------------------- trainings


def trained(job, stop=None):
    """A method after a training, interrupted and taken up by a fresh object before iteration `stop`."""
    checkpoints = MemoryCheckpoints()
    for wanted in ([stop] if stop else []) + [None]:
        experiment = random_experiment(job)
        before = copy.deepcopy(experiment.method.state_dict())
        trainer = Trainer(experiment, checkpoints, MemoryRecorder())
        if wanted:
            left = iter([False] * wanted + [True])
            trainer.should_stop = lambda left=left: next(left)
        try:
            trainer.fit()
        except Interrupted:
            continue
    return before, trainer.method.state_dict()


@pytest.mark.parametrize(
    ("network", "method", "plugin", "dims"),
    [
        ("monai:SegResNet", "cps", None, 3),
        ("monai:SegResNet", "cct", None, 3),
        ("monai:SegResNet", "dcnet", None, 2),
        ("monai:SegResNet", "cps", "scdl", 2),
        ("monai:SwinUNETR", "cps", None, 2),
        ("monai:SwinUNETR", "cct", None, 2),
        ("monai:SwinUNETR", "urpc", None, 2),
    ],
)
def test_a_training_moves_everything_and_resumes_to_the_same_bits(network, method, plugin, dims):
    more = {}
    if network in TRANSFORMERS:
        pytest.importorskip("einops")
        more = {"network.feature_size": 12}
    job = monai_job(network, method, dims, plugin, **{"schedule.iterations": 6}, **more)
    before, after = trained(job)
    _, resumed = trained(job, stop=3)
    assert after.keys() == resumed.keys()
    assert all(torch.equal(after[key], resumed[key]) for key in after if isinstance(after[key], torch.Tensor))
    assert all(value.isfinite().all() for value in after.values() if isinstance(value, torch.Tensor))
    moved = [
        key for key, value in before.items() if isinstance(value, torch.Tensor) and not torch.equal(value, after[key])
    ]
    assert len(moved) > len(before) / 2


# ---------------------------------------------------------------------------------------- the configuration, refusals


def test_a_job_is_completed_for_the_recipe_and_can_be_kept():
    volumes, slices = monai_job(dims=3), monai_job(dims=2)
    assert volumes.resolved.values["network.spatial_dims"] == 3 and slices.resolved.values["network.spatial_dims"] == 2
    assert volumes.canonical().canonical() == volumes.canonical()
    assert volumes.canonical().digest() == volumes.digest()
    assert ":" not in str(volumes.directory)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_network_whose_package_is_missing_is_refused_by_name(name, monkeypatch):
    monkeypatch.setattr("sslbench.networks.monai_nets.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=f"{name} needs a package .* pip install einops"):
        monai_job(name).resolved  # noqa: B018
    with pytest.raises(UsageError, match="pip install einops"):
        build_network(name, 1, 2)
    assert describe("network", name)["parameters"] == [] and "einops" in describe("network", name)["missing"]


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        ("monai:SegResNet", {"network.base_filters": 8}, "base_filters"),
        ("monai:SegResNet", {"network.init_filters": 12}, "num_groups=8 .* does not divide"),
        ("monai:SegResNet", {"network.norm": "group"}, "group needs 'num_groups'"),
        ("monai:SegResNet", {"network.norm": "spectral"}, "not one of instance, batch, group"),
        ("monai:SegResNet", {"network.blocks_up": [1, 1]}, "blocks_up has 2 stages"),
        ("monai:SegResNet", {"network.spatial_dims": 2}, "spatial_dims=2, and patch_size .* has 3 sides"),
        ("monai:SegResNet", {"patch_size": [8, 8, 20]}, "takes 3 sides divisible by 8"),
        ("monai:UNet", {"network.num_res_units": 0}, "num_res_units"),
        ("monai:UNet", {"network.strides": [2, 2]}, "5 stages take 4 strides, not 2"),
        ("monai:UNet", {"patch_size": [16, 16, 16]}, "leaves one voxel: a side of 32 does"),
        ("monai:DynUNet", {"network.strides": [2, 2, 2]}, "strides begin with 1"),
        ("monai:BasicUNet", {"network.act": ["relu", {"slope": 1}]}, "relu has no 'slope', it has inplace"),
        ("monai:MedNeXt", {"network.kernel_size": 4}, "kernel_size is odd, not 4"),
    ],
)
def test_options_without_meaning_are_refused_in_one_line_before_anything_starts(network, options, message):
    with pytest.raises(UsageError, match=message) as error:
        monai_job(network, **options).resolved  # noqa: B018
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("network", "method", "message"),
    [
        ("monai:UNet", "mcnet", "decoders that upsample differently, and monai:UNet knows one upsampling"),
        ("monai:DynUNet", "dcnet", "knows one upsampling"),
        ("monai:SegResNet", "rdrop", "without dropout"),
        ("monai:UNETR", "magicnet", "monai:UNETR takes images of patch_size alone"),
    ],
)
def test_methods_object_to_networks_that_do_not_serve_them(network, method, message, monkeypatch):
    monkeypatch.setattr("sslbench.networks.monai_nets.find_spec", lambda name: True)
    more = {"patch_size": [32, 32, 32]} | ({"method.networks": "one"} if method == "rdrop" else {})
    with pytest.raises(UsageError, match=message):
        monai_job(network, method, **more).resolved  # noqa: B018


def test_listing_networks_does_not_import_monai():
    code = (
        "import sys; from sslbench.cli.listing import listing; names = [row['name'] for row in listing('networks')]; "
        "assert 'monai:SwinUNETR' in names and 'monai' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
