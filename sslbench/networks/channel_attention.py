"""Attention between the channels of a map, over spatial tokens (SKCDF, CVPR 2025)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbench.networks.base import Conv3d, initialize, unused
from sslbench.networks.parts import join_parts

HEADS = 2
DROPOUT = 0.1

# How a patch that attends to itself splits 2c channels into heads, and joins them: first one head's, then the other's;
# those of the two in turn; or split in the first way and joined in the second (SKCDF's global block).
HeadOrder = Literal["contiguous", "interleaved", "crossed"]


class ChannelAttention(nn.Module):
    """Tokens of a map take what other tokens say channel by channel: scores are qᵀk, channel × channel.

    Every score matrix is standardised (an instance norm without parameters) before its softmax. A tenth of the softmax
    and a tenth of what comes out drop out in training.

    Args:
        channels: c, of a token; queries, keys and values have 2c, for two heads.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(channels, HEADS * channels, bias=False) for _ in range(3))
        self.out = nn.Linear(HEADS * channels, channels, bias=False)
        self.dropout = nn.Dropout(DROPOUT)
        for layer in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)

    def within(self, tokens: Tensor, order: HeadOrder = "contiguous", drop: bool = True) -> Tensor:
        """Every patch attends to itself, head by head.

        Args:
            tokens: (B, P, n, c) of P windows, and so is what comes out.
            order: of the heads' channels.
            drop: whether a tenth of what comes out drops out in training.
        """
        q, k, v = (_heads(layer(tokens), order == "interleaved") for layer in (self.query, self.key, self.value))
        mixed = self._mixed(q, k, v)
        return self._out((mixed if order == "contiguous" else mixed.transpose(2, 3)).flatten(2, 3), drop)

    def across(self, queries: Tensor, others: Tensor) -> Tensor:
        """Every patch attends to all `others`, whose channels stand side by side, both heads at once.

        Args:
            queries: (B, P, n, c).
            others: (B', P, n, c), of the same windows.
        """
        q = self.query(queries).transpose(-1, -2)
        k, v = (_side_by_side(layer(others)) for layer in (self.key, self.value))
        return self._out(self._mixed(q, k, v))

    def _mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The values that the channels of the queries take: q (..., a, n), k and v (..., b, n) -> (..., a, n)."""
        scores = (q @ k.transpose(-1, -2)).float()
        matrices = scores.flatten(0, -3).unsqueeze(1)
        scores = F.instance_norm(matrices).view(scores.shape)
        return self.dropout(scores.softmax(-1)).to(v.dtype) @ v

    def _out(self, mixed: Tensor, drop: bool = True) -> Tensor:
        """(B, P, 2c, n) -> (B, P, n, c)."""
        tokens: Tensor = self.out(mixed.transpose(-1, -2))
        return self.dropout(tokens) if drop else tokens


def _heads(x: Tensor, in_turn: bool) -> Tensor:
    """(B, P, n, 2c) -> (B, P, 2, c, n); a head has one half of the channels, or every second one."""
    if in_turn:
        return x.unflatten(-1, (-1, HEADS)).permute(0, 1, 4, 3, 2)
    return x.unflatten(-1, (HEADS, -1)).permute(0, 1, 3, 4, 2)


def _side_by_side(x: Tensor) -> Tensor:
    """(B, P, n, c) -> (P, B·c, n)."""
    return x.permute(1, 0, 3, 2).flatten(1, 2)


class TokenAttention(nn.Module):
    """Tokens of the windows of a map, their attention, and the map again.

    One convolution, shared by all channels, makes of each window as many tokens as it has positions; then layer norm,
    attention plus the tokens, layer norm, back to positions, a 1-wide convolution and GELU. There is a second
    convolution like the first, which nothing uses, for the published size (512 channels: 2 362 000 parameters with
    windows of 2³, 2 493 440 with 4 × 8 × 8). The layer norms' ε is 1e-6.

    Args:
        channels: c, of the map.
        window: sides of a window; they divide those of the map.
        init: of the convolutions, as `networks.base.initialize` has it; the attention's layers are Xavier-uniform.
    """

    def __init__(self, channels: int, window: Sequence[int], init: str = "default") -> None:
        super().__init__()
        self.window = tuple(window)
        conv: Callable[..., nn.Module] = nn.Conv2d if len(self.window) == 2 else Conv3d
        size = math.prod(self.window)
        self.tokens = conv(1, size, self.window, stride=self.window)
        self.before, self.after = (nn.LayerNorm(channels, eps=1e-6) for _ in range(2))
        self.attention = ChannelAttention(channels)
        self.mix = conv(channels, channels, 1)
        self.unused = unused(lambda: conv(1, size, self.window, stride=self.window))
        initialize(self, init)

    def within(self, x: Tensor, order: HeadOrder = "contiguous", drop: bool = True) -> Tensor:
        """Each patch by itself; x (B, c, *S), the others as in `ChannelAttention.within`."""
        tokens = self._tokens(x)
        return self._map(tokens + self.attention.within(self.before(tokens), order, drop), x)

    def across(self, x: Tensor, first: int) -> Tensor:
        """Each of the first patches with all others, and each of the others with all first ones.

        No gradient passes through the keys, values and queries of the others.

        Args:
            x: (B, c, *S).
            first: how many of the patches are the first ones (labelled), from 1 to B - 1.
        """
        tokens = self._tokens(x)
        known, others = self.before(tokens[:first]), self.before(tokens[first:]).detach()
        attended = torch.cat([self.attention.across(known, others), self.attention.across(others, known)])
        return self._map(tokens + attended, x)

    def _tokens(self, x: Tensor) -> Tensor:
        """(B, c, *S) -> (B, windows, tokens, c)."""
        tokens = self.tokens(x.flatten(0, 1).unsqueeze(1)).flatten(2)
        return tokens.unflatten(0, (len(x), -1)).permute(0, 3, 2, 1)

    def _map(self, tokens: Tensor, like: Tensor) -> Tensor:
        """(B, windows, tokens, c) -> the shape of `like`, behind norm, convolution and GELU."""
        grid = [side // window for side, window in zip(like.shape[2:], self.window, strict=True)]
        windows = self.after(tokens).transpose(2, 3).unflatten(3, self.window)
        mapped: Tensor = F.gelu(self.mix(join_parts(windows, grid)))
        return mapped
