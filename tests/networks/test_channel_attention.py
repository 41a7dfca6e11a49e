"""Channel attention against loops, and windows of tokens that find their way back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sslbench.networks.channel_attention import ChannelAttention, TokenAttention


def standardised(scores: Tensor) -> Tensor:
    return (scores - scores.mean()) / (scores.var(unbiased=False) + 1e-5).sqrt()


def test_across_is_the_sum_over_all_channels_of_all_others() -> None:
    torch.manual_seed(0)
    attention = ChannelAttention(3).eval()
    queries, others = torch.randn(2, 4, 5, 3), torch.randn(3, 4, 5, 3)
    found = attention.across(queries, others)
    q, k, v = attention.query(queries), attention.key(others), attention.value(others)
    for patch in range(2):
        for window in range(4):
            keys = torch.stack([k[other, window, :, channel] for other in range(3) for channel in range(6)])
            values = torch.stack([v[other, window, :, channel] for other in range(3) for channel in range(6)])
            scores = q[patch, window].T @ keys.T  # (6, 18)
            mixed = standardised(scores).softmax(-1) @ values  # (6, 5)
            assert torch.allclose(found[patch, window], attention.out(mixed.T), atol=1e-5)


def test_within_goes_head_by_head() -> None:
    torch.manual_seed(0)
    attention = ChannelAttention(3).eval()
    tokens = torch.randn(2, 4, 5, 3)
    found = attention.within(tokens)
    q, k, v = (layer(tokens)[1, 2] for layer in (attention.query, attention.key, attention.value))
    heads = [standardised(q[:, part].T @ k[:, part]).softmax(-1) @ v[:, part].T for part in (slice(3), slice(3, 6))]
    assert torch.allclose(found[1, 2], attention.out(torch.cat(heads).T), atol=1e-5)


@pytest.mark.parametrize(
    ("order", "split", "joined"),
    [
        ("interleaved", ([0, 2, 4], [1, 3, 5]), ([0, 2, 4], [1, 3, 5])),
        ("crossed", ([0, 1, 2], [3, 4, 5]), ([0, 2, 4], [1, 3, 5])),
    ],
)
def test_the_released_orders_of_the_heads_channels(order: Any, split: Any, joined: Any) -> None:
    """SKCDF's second pass: in windows a head has every second channel; the global block splits in halves and joins in
    turn."""
    torch.manual_seed(0)
    attention = ChannelAttention(3).eval()
    tokens = torch.randn(2, 4, 5, 3)
    found = attention.within(tokens, order)
    q, k, v = (layer(tokens)[1, 2] for layer in (attention.query, attention.key, attention.value))
    mixed = torch.empty(6, 5)
    for own, places in zip(split, joined, strict=True):
        mixed[places] = standardised(q[:, own].T @ k[:, own]).softmax(-1) @ v[:, own].T
    assert torch.allclose(found[1, 2], attention.out(mixed.T), atol=1e-5)
    assert not torch.allclose(found, attention.within(tokens), atol=1e-3)


def test_the_layer_norms_have_the_epsilon_of_the_code() -> None:
    attention = TokenAttention(4, (2, 2))
    small = 1e-3 * torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    for norm in (attention.before, attention.after):
        assert torch.allclose(norm(small), small / (1e-6 + 1e-6) ** 0.5)


def test_a_tenth_of_scores_and_of_what_comes_out_drops_out_in_training() -> None:
    torch.manual_seed(0)
    attention = ChannelAttention(8)
    seen: dict[str, Tensor] = {}
    attention.out.register_forward_hook(lambda layer, inputs, output: seen.update(mixed=inputs[0], out=output))
    tokens = torch.randn(4, 8, 16, 8)
    for attend in (attention.within, lambda x: attention.across(x[:2], x[2:])):
        attention.train()
        found = attend(tokens)
        kept = found != 0
        assert 0.08 < (~kept).float().mean() < 0.12
        assert torch.allclose(found[kept], seen["out"][kept] / 0.9)
        mixed = seen["mixed"]
        attention.eval()
        assert torch.equal(attend(tokens), seen["out"])  # all is kept, scores too
        assert not torch.allclose(mixed, seen["mixed"])


def test_convolutions_begin_as_asked_and_the_attention_xavier_uniform() -> None:
    torch.manual_seed(0)
    default, xavier = (TokenAttention(64, (4, 8, 8), init) for init in ("default", "xavier"))
    # PyTorch's own are uniform up to 1/√fan-in; Xavier's normal with variance 2/(fan-in + fan-out).
    for name, fan_in, fan_out in (("tokens", 256, 256 * 256), ("mix", 64, 64)):
        spread = [getattr(module, name).weight.std().item() for module in (default, xavier)]
        assert spread == pytest.approx([(3 * fan_in) ** -0.5, (2 / (fan_in + fan_out)) ** 0.5], rel=0.03), name
    for layer in (xavier.attention.query, xavier.attention.out):
        assert layer.weight.abs().max().item() == pytest.approx((6 / (64 + 128)) ** 0.5, rel=0.01)


def test_no_gradient_passes_through_the_others() -> None:
    torch.manual_seed(0)
    attention = TokenAttention(3, (2, 2))
    x = torch.randn(4, 3, 4, 4, requires_grad=True)
    attention.across(x, 1)[:1].square().sum().backward()
    assert x.grad is not None and x.grad[:1].any() and not x.grad[1:].any()


def test_tokens_go_back_to_where_they_came_from() -> None:
    for window, sides in (((2, 2), (4, 6)), ((1, 2, 2), (3, 4, 2)), ((4, 6), (4, 6))):
        attention = TokenAttention(5, window)
        attention.before, attention.after, attention.mix = nn.Identity(), nn.Identity(), nn.Identity()
        nn.init.zeros_(attention.attention.out.weight)
        size = attention.tokens.weight.shape[0]
        attention.tokens.weight.data = torch.eye(size).view(attention.tokens.weight.shape)  # token i is position i
        nn.init.zeros_(attention.tokens.bias)
        x = torch.randn(2, 5, *sides)
        assert torch.allclose(attention.within(x), nn.functional.gelu(x), atol=1e-6)
        assert torch.allclose(attention.across(x, 1), nn.functional.gelu(x), atol=1e-6)


def test_the_published_sizes() -> None:
    with torch.device("meta"):
        local, whole = TokenAttention(512, (2, 2, 2)), TokenAttention(512, (4, 8, 8))
    assert sum(p.numel() for p in local.parameters()) == 2_362_000
    assert sum(p.numel() for p in whole.parameters()) == 2_493_440
