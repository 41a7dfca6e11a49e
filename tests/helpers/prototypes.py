"""Prototypes pair by pair, and selectors as a list of modules."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sslbench.losses.prototypes import ClassSelectors


def one_by_one(selectors: ClassSelectors) -> list[nn.Sequential]:
    """The same selectors as a list of PyTorch's own modules."""
    modules = []
    for c in range(len(selectors.weight)):
        width = selectors.weight.shape[1]
        first, norm, last = nn.Linear(width, width), nn.BatchNorm1d(width), nn.Linear(width, 1)
        first.weight.data, first.bias.data = selectors.weight.data[c].T.clone(), selectors.bias.data[c].clone()
        norm.weight.data, norm.bias.data = selectors.scale.data[c].clone(), selectors.shift.data[c].clone()
        norm.running_mean, norm.running_var = selectors.running_mean[c].clone(), selectors.running_var[c].clone()
        last.weight.data, last.bias.data = (
            selectors.score_weight.data[c, None].clone(),
            selectors.score_bias.data[c, None],
        )
        module = nn.Sequential(first, norm, nn.LeakyReLU(0.2), last)
        modules.append(module.to(selectors.weight.dtype).train(selectors.training))
    return modules


def by_pairs(features, labels, memory, selectors, memory_selectors=None):
    """The sheet's definition, pair by pair; `memory` is a list of (n, D), selectors are lists of modules."""
    total = torch.zeros((), dtype=features.dtype)
    for c, stored in enumerate(memory):
        own = features[labels == c]
        if len(own) < 2 or len(stored) < 2:
            continue
        distance = 1 - F.cosine_similarity(own[:, None], stored[None], dim=-1)
        sigma = selectors[c](own.detach()).sigmoid()
        weight = len(own) * sigma / sigma.sum()
        if memory_selectors is not None:
            other = memory_selectors[c](stored).sigmoid()
            weight = weight * (len(stored) * other / other.sum()).T
        total = total + (weight * distance).mean()
    return total / len(memory)
