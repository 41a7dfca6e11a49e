"""A plugin: the place of each voxel in its patch, as CoordConv has it (Liu et al., NeurIPS 2018)."""

import torch
from torch import nn

import sslbench
from sslbench.networks.base import Conv3d


class Position(sslbench.Plugin):
    """Adds a learned projection of coordinates in [-1, 1] to the map of every decoder stage."""

    title = "Position"

    def __init__(self, options, network, statistics):
        super().__init__(options, network, statistics)
        conv = Conv3d if network.dims == 3 else nn.Conv2d
        widths = network.decoder.prior_channels
        self.project = nn.ModuleList(conv(network.dims, width, 1, bias=False) for width in widths)

    def prior(self, features):
        skips = reversed(features.maps[:-1])
        return tuple(project(coordinates(skip)) for project, skip in zip(self.project, skips, strict=True))


def coordinates(x):
    axes = [torch.linspace(-1, 1, side, device=x.device) for side in x.shape[2:]]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(x), -1, *x.shape[2:])
