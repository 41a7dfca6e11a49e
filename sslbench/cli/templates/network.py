"""A network: an encoder of two stages in 3-D, and a decoder with one skip."""

from torch import nn

import sslbench
from sslbench.networks.base import Decoder, add_prior, as_they_are


class TwoStageEncoder(nn.ModuleList):
    def __init__(self, in_channels, options):
        super().__init__([nn.Conv3d(in_channels, 16, 3, padding=1), nn.Conv3d(16, 32, 3, stride=2, padding=1)])
        self.channels = (16, 32)  # of the maps, finest first

    def forward(self, x):
        return [fine := self[0](x).relu(), self[1](fine).relu()]


class TwoStageDecoder(Decoder):
    def __init__(self, num_classes, options):
        super().__init__()
        self.channels = self.prior_channels = (16,)  # of the maps, coarse to fine
        self.up, self.head = nn.Conv3d(32, 16, 3, padding=1), nn.Conv3d(16, num_classes, 1)

    def forward(self, features, refine=as_they_are):
        grown = self.up(nn.functional.interpolate(features.maps[1], scale_factor=2))
        return [refine(0, add_prior(features.maps[0] + grown, features, 0).relu())]


class TwoStage(sslbench.Network):
    dims, divisor, encoder_class, decoder_class = 3, 2, TwoStageEncoder, TwoStageDecoder
