"""The diffusion V-Net: its size, and what its two kinds of passes look at."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sslbench.networks import build_network, diffusion_vnet
from sslbench.networks.diffusion_vnet import TimeEmbedding


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_published_sizes() -> None:
    with torch.device("meta"):
        network = build_network("diffusion_vnet", 1, 14)
        wider = build_network("diffusion_vnet", 1, 16)
    assert count(network) == 57_903_466 and count(wider) == 57_905_392
    assert [count(decoder) for decoder in network.decoders] == [8_282_830] * 2
    denoiser, encoder = network.denoiser, network.encoder
    assert count(network.embedding) == 346_080 and count(denoiser.time) + count(denoiser.embedding) == 358_176
    assert count(encoder) == 31_431_424 and count(denoiser.decoder) == 9_202_126
    assert count(denoiser) + count(encoder) == 40_991_726


def test_the_published_names_and_shapes_of_a_decoder_are_in_the_two_others() -> None:
    with torch.device("meta"):
        network = build_network("diffusion_vnet", 1, 14)
    shapes = [
        {name: parameter.shape for name, parameter in decoder.named_parameters()}
        for decoder in (*network.decoders, network.denoiser.decoder)
    ]
    assert len(shapes[0]) == 54 and shapes[0] == shapes[1] and shapes[0].items() <= shapes[2].items()


def test_nothing_uses_what_is_called_unused_and_the_rest_begins_as_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny()
    names = {name for name, _ in network.named_parameters() if "unused" in name.split(".")}
    assert len(names) == 4 + 2 * (1 + 1 + 4 + 4)  # an embedding of times; shifts of embeddings, encoder and denoiser
    image, noisy = torch.randn(1, 1, 16, 16, 32), torch.randn(1, 3, 16, 16, 32)
    logits = network.denoise(image, noisy, torch.tensor([10])) + network(image)
    (logits + network.decoders[1].logits(network.encode(image))).sum().backward()
    assert {name for name, parameter in network.named_parameters() if parameter.grad is None} == names
    monkeypatch.setattr(diffusion_vnet, "unused", lambda make: nn.Identity())
    bare = tiny()
    assert not [name for name, _ in bare.named_parameters() if "unused" in name]
    ours = dict(network.named_parameters())
    assert all(torch.equal(parameter, ours[name]) for name, parameter in bare.named_parameters())


def test_dropout_is_in_decoders_behind_every_convolution_and_on_bottleneck_and_finest_maps() -> None:
    with torch.device("meta"):
        network = build_network("diffusion_vnet", 1, 14)
    rates = {name: part.p for name, part in network.named_modules() if isinstance(part, nn.Dropout3d) and part.p > 0}
    decoders = ("decoders.0", "decoders.1", "denoiser.decoder")
    halves = {"encoder.dropout", *(f"{decoder}.dropout" for decoder in decoders)}
    stages = {
        f"{decoder}.blocks.{b}.stages.{s}.3" for decoder in decoders for b in range(4) for s in range((3, 3, 2, 1)[b])
    }
    assert rates == {**dict.fromkeys(halves, 0.5), **dict.fromkeys(stages, 0.1)}
    for name in stages:
        order = [type(layer) for layer in network.get_submodule(name.removesuffix(".3"))]
        assert [kind.__name__ for kind in order] == ["Conv3d", "ReLU", "BatchNorm3d", "Dropout3d"]


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return build_network("diffusion_vnet", 1, 3, base_filters=2).eval()


def test_denoising_looks_at_image_noise_and_time_and_shares_the_encoder() -> None:
    network, image, noisy = tiny(), torch.randn(1, 1, 16, 16, 32), torch.randn(1, 3, 16, 16, 32)

    def logits(image: Tensor = image, noisy: Tensor = noisy, time: int = 10) -> Tensor:
        return network.denoise(image, noisy, torch.tensor([time]))

    assert logits().shape == (1, 3, 16, 16, 32)
    for other in (logits(image=image + 1), logits(noisy=noisy + 1), logits(time=900)):
        assert not torch.allclose(logits(), other)
    logits().sum().backward()
    reached = {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert reached == {"encoder", "denoiser"}
    network.zero_grad()
    network(image).sum().backward()
    names = [name for name, parameter in network.named_parameters() if parameter.grad is not None]
    assert {name.split(".")[0] for name in names} == {"embedding", "encoder", "decoders"}
    assert not [name for name in names if "shifts" in name or name.startswith("decoders.1")]


def test_the_time_embedding_is_sines_then_cosines() -> None:
    embedding = TimeEmbedding()
    seen: list[Tensor] = []
    embedding.layers[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    embedding(torch.tensor([0, 7]))
    frequencies = 10_000 ** (-torch.arange(64) / 63)
    assert torch.allclose(seen[0][0], torch.cat([torch.zeros(64), torch.ones(64)]))
    assert torch.allclose(seen[0][1], torch.cat([(7 * frequencies).sin(), (7 * frequencies).cos()]), atol=1e-5)
