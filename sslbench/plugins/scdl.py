"""SCDL: class proxies that tokens of the encoder are drawn to, and a prior from them for every stage of the decoder."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor, nn

from sslbench.core import registry
from sslbench.core.options import Options
from sslbench.core.step import Batch, Statistics, Step
from sslbench.networks import Features, Network
from sslbench.networks.base import Conv3d, evaluating
from sslbench.plugins.base import Plugin

_STAGE = -2  # the encoder's map that tokens are made of: stage four of five, an eighth of the patch's sides
_TOKEN, _HIDDEN, _EMBEDDING = 16, 512, 256  # channels of a token, of the hidden layers, of its embedding


class SCDLOptions(Options):
    """Options of `scdl`."""

    cdba_weight: float = Field(default=0.1, ge=0, description="of P2E + e2p_weight·E2P (the paper gives none)")
    e2p_weight: float = Field(default=0.1, ge=0, description="of E2P beside P2E (released code)")
    sac_weight: float = Field(default=0.1, ge=0, description="of the semantic anchors (released code: an attribute)")
    temperature: float = Field(default=1.0, gt=0, description="of the assignment softmax (paper: none; code: 0.2)")
    samples: int = Field(default=50, ge=1, description="S, draws of a proxy's distribution (released code)")
    token_samples: int = Field(default=2, ge=1, description="E, draws of a token with noise (released code)")
    token_noise: float = Field(default=0.05, ge=0, description="its deviation at the start; learned (released code)")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="in the embedding of tokens (released code)")
    weight_decay: float = Field(default=1e-4, ge=0, description="of the module's parameters (paper)")
    released_assignment: bool = Field(
        default=False, description="tokens without labels are assigned by P²/ΣP² instead of P"
    )
    released_p2e: bool = Field(default=False, description="mean over tokens of exp(-·), not exp of minus the mean")
    released_samples: bool = Field(
        default=False, description="tokens are held against S draws of every proxy instead of its centre"
    )


@registry.register("plugin", "scdl")
class SCDL(Plugin):
    """Class distributions that features are aligned with, and anchors of single classes for their centres (Semantic
    Class Distribution Learning; Su et al., arXiv 2603.05202, 2026).

    Tokens z are the embedded positions of the encoder's stage-four map. Every class, the background too, has a proxy
    N(μ, diag σ²); P(c|z) = softmax over classes of cos(z, μ_c). Terms of a step, on all patches:
    CDBA = P2E + 0.1·E2P with E2P the mean over tokens of Σ_c w_c (1 - cos(z, μ_c)) and P2E the mean over classes of
    exp(-mean over tokens of (2w_c - 1) cos(z, μ_c)); w is the share that a class has of a token's cell where the patch
    is labelled, else P without gradient. SAC is the mean over the classes present of 1 - cos(μ_c, anchor_c): the anchor
    is the embedding of labelled patches in which everything but the class is set to 0. The prior is Σ_c P·(a draw of
    the proxy), Σ_c P·μ_c and the token at unit length with noise, side by side, projected without bias and resized to
    every decoder stage, where it is added behind the skip. In evaluation the draws are the centres and there is no
    noise.

    Cost: for each network one more encoder pass over all patches, forward and backward; with anchors one without
    gradient over each class of every labelled patch.

    Deviations:
    - no training script was released: the weights are those of the module's code, without a ramp
    - E2P is a mean over tokens, where the paper has a sum, which would grow with the patch
    - tokens enter the prior at unit length, as in the released module; the paper does not say. All terms are cosines,
      so that nothing holds a token's length: left as it is, it grew 250-fold in 360 steps of AdamW on the phantom, the
      prior to 200 times the features that it is added to, and CPS lost 35 points of DSC
    - anchors are encoded in evaluation mode, so that masked patches leave the batch statistics alone, and averaged over
      the classes that the batch has, where the paper divides by all
    - terms come from an encoder pass over all patches as they are: a method may show its network mixed ones only, or
      the halves apart, as GenericSSL does, where the batch statistics of this pass are others than those of its own
    - the prior of the released Synapse model (Σ_c P·μ_c/|μ_c| alone, once more before the head), that of AMOS (at the
      bottleneck) and their two passes at inference are left out: in the paper it is in every stage of one pass
    """

    version = 2  # tokens enter the prior at unit length
    title = "SCDL"
    Options: ClassVar[type[BaseModel]] = SCDLOptions
    options: SCDLOptions

    def __init__(self, options: SCDLOptions, network: Network, statistics: Statistics) -> None:
        super().__init__(options, network, statistics)
        self.weight_decay = options.weight_decay
        conv = Conv3d if network.dims == 3 else nn.Conv2d
        self.reduce = conv(network.channels[_STAGE], _TOKEN, 1, bias=False)
        self.embedding = nn.Sequential(
            *(nn.Linear(_TOKEN, _HIDDEN), nn.ReLU(), nn.Dropout(options.dropout)),
            *(nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU(), nn.Dropout(options.dropout)),
            nn.Linear(_HIDDEN, _EMBEDDING),
        )
        self.proxies = nn.Parameter(nn.init.xavier_uniform_(torch.empty(statistics.num_classes, 2 * _EMBEDDING)))
        self.token_noise = nn.Parameter(torch.full((_EMBEDDING,), options.token_noise))
        self.project = nn.ModuleList(
            conv(3 * _EMBEDDING, channels, 1, bias=False) for channels in network.decoder.prior_channels
        )

    @property
    def centres(self) -> Tensor:
        """μ, (C, 256)."""
        return self.proxies[:, :_EMBEDDING]

    @property
    def spread(self) -> Tensor:
        """σ, (C, 256)."""
        return F.softplus(self.proxies[:, _EMBEDDING:])

    def tokens(self, content: Tensor) -> Tensor:
        """Embeddings (B, N, 256), fp32, of the N positions of a stage-four map (B, c, *s)."""
        embedded: Tensor = self.embedding(self.reduce(content).flatten(2).transpose(1, 2))
        return embedded.float()

    def prior(self, features: Features) -> tuple[Tensor, ...]:
        content = features.maps[_STAGE]
        tokens = self.tokens(content)
        with torch.autocast(tokens.device.type, enabled=False):
            parts = torch.cat(self._prior(tokens), -1).transpose(1, 2).unflatten(2, content.shape[2:])
        mode = "trilinear" if parts.ndim == 5 else "bilinear"
        return tuple(
            F.interpolate(project(parts), skip.shape[2:], mode=mode, align_corners=False)
            for project, skip in zip(self.project, reversed(features.maps[:-1]), strict=True)
        )

    def _prior(self, tokens: Tensor) -> list[Tensor]:
        """Σ_c P·(draws of the proxies), Σ_c P·μ and the directions of the tokens with noise, (B, N, 256) each."""
        drawn, noisy = self.centres, F.normalize(tokens, dim=-1)
        if self.training:
            # The mean of n independent draws of N(m, s²) is one of N(m, s²/n).
            drawn = drawn + self.spread * torch.randn_like(drawn) / self.options.samples**0.5
            noisy = noisy + self.token_noise * torch.randn_like(noisy) / self.options.token_samples**0.5
        P = assignments(cosines(tokens, self.centres), self.options.temperature)
        return [P @ drawn, P @ self.centres, noisy]

    def terms(self, network: Network, batch: Batch, step: Step) -> dict[str, Tensor]:
        view, L = next(iter(batch.image)), batch.num_labeled
        image, labels = batch.image[view], batch.label[view]
        content = network.base.encode(image).maps[_STAGE]
        tokens = self.tokens(content)
        classes = one_hot(labels[:L], self.statistics.num_classes)
        shares = cell_shares(classes, content.shape[2:])
        with torch.autocast(tokens.device.type, enabled=False):
            P = assignments(cosines(tokens, self.centres), self.options.temperature)[L:].detach()
            if self.options.released_assignment:
                P = P.square() / P.square().sum(-1, keepdim=True)
            weight = torch.cat([shares, P]).flatten(0, 1)
            cos = self._cosines(tokens.flatten(0, 1))
            e2p, p2e = embedding_to_proxy(cos, weight), proxy_to_embedding(cos, weight, self.options.released_p2e)
        found = {"cdba": self.options.cdba_weight * (p2e + self.options.e2p_weight * e2p)}
        if self.options.sac_weight and L:
            found["sac"] = self.options.sac_weight * anchor_loss(
                self.centres, *self._anchors(network, image[:L], classes, shares)
            )
        return found

    def encoded(self, labeled: int, unlabeled: int) -> tuple[int, int]:
        return labeled + unlabeled, labeled * self.statistics.num_classes if self.options.sac_weight else 0

    def _cosines(self, tokens: Tensor) -> Tensor:
        """Cosines (N, C) of tokens (N, 256) and proxies."""
        if not self.options.released_samples:
            return cosines(tokens, self.centres)
        noise = torch.randn((self.options.samples, *self.centres.shape), device=tokens.device)
        draws = F.normalize(self.centres + self.spread * noise, dim=-1)
        return F.normalize(tokens, dim=-1) @ draws.mean(0).T  # the mean of the draws' cosines

    @torch.no_grad()
    def _anchors(self, network: Network, image: Tensor, classes: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Anchors (C, 256) of the classes, and which of them the batch has (C,)."""
        masked = (image.unsqueeze(1) * classes.unsqueeze(2)).flatten(0, 1)  # (L·C, channels, *S)
        inside = (shares > 0).transpose(1, 2).flatten(0, 1).float()  # (L·C, N)
        with evaluating(network, self):
            content = self.reduce(network.base.encode(masked).maps[_STAGE]).float().flatten(2)
            mean = (content * inside.unsqueeze(1)).sum(-1) / inside.sum(-1, keepdim=True).clamp_min(1)
            embedded = self.embedding(mean).float()
        held = inside.amax(-1).view(len(image), -1)  # (L, C)
        instances = embedded.unflatten(0, held.shape) * held.unsqueeze(-1)
        return instances.sum(0) / held.sum(0).clamp_min(1).unsqueeze(-1), held.amax(0)


registry.register("plugin", "scdl_cdba_only", preset_of="scdl", set={"sac_weight": 0.0})


def cosines(tokens: Tensor, centres: Tensor) -> Tensor:
    """cos(z, μ_c), (..., C), of tokens (..., d) and centres (C, d)."""
    return F.normalize(tokens, dim=-1) @ F.normalize(centres, dim=-1).T


def assignments(cosine: Tensor, temperature: float = 1.0) -> Tensor:
    """P(c|z), (..., C): the softmax over classes of cos(z, μ_c) / T."""
    return (cosine / temperature).softmax(-1)


def embedding_to_proxy(cosine: Tensor, weight: Tensor) -> Tensor:
    """E2P: the mean over tokens of Σ_c w_c (1 - cos(z, μ_c)); cosines and weights (N, C)."""
    return (weight * (1 - cosine)).sum(-1).mean()


def proxy_to_embedding(cosine: Tensor, weight: Tensor, released: bool = False) -> Tensor:
    """P2E: the mean over classes of exp(-m_c), m_c the mean over tokens of (2w_c - 1) cos(z, μ_c); released: the mean
    of exp over tokens and classes."""
    pull = (2 * weight - 1) * cosine
    return (-pull).exp().mean() if released else (-pull.mean(0)).exp().mean()


def anchor_loss(centres: Tensor, anchors: Tensor, present: Tensor) -> Tensor:
    """SAC: the mean over the classes present (C,), 0 or 1, of 1 - cos(μ_c, anchor_c); 0 where there is none."""
    distance = 1 - F.cosine_similarity(centres.float(), anchors.float(), dim=-1)
    return (distance * present).sum() / present.sum().clamp_min(1)


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """(B, C, *S) float32 of labels (B, *S); a label of -1 is no class."""
    numbers = torch.arange(num_classes, device=labels.device).view(-1, *[1] * (labels.ndim - 1))
    return (labels.unsqueeze(1) == numbers).float()


def cell_shares(classes: Tensor, grid: torch.Size) -> Tensor:
    """The share (B, N, C) that each class (B, C, *S) has of the cells of a grid of N."""
    pool: Any = F.adaptive_avg_pool3d if len(grid) == 3 else F.adaptive_avg_pool2d
    shares: Tensor = pool(classes, grid).flatten(2).transpose(1, 2)
    return shares
