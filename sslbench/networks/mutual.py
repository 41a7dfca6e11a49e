"""The U-Net whose decoders differ in their upsampling (MC-Net; Wu et al., MICCAI 2021; MedIA 2022)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sslbench.core.registry import register
from sslbench.networks.unet import UNet, UNetOptions

Version = Literal["v1", "v2", "v3"]


class UNetMCNetOptions(UNetOptions):
    """Options of `unet_mcnet`: those of `unet`, and how many decoders there are."""

    version: Version = Field(
        default="v1",
        description="further decoders: one (MC-Net), two (v2: MC-Net+), three (v3)",
    )


@register("network", "unet_mcnet")
class UNetMCNet(UNet):
    """U-Net with two to four decoders: bilinear, transposed, nearest, bicubic (MC-Net; Wu et al., MICCAI 2021).

    `forward` gives the logits of each, the main decoder's first; the methods `mcnet` and `dcnet` put such decoders on
    any network. 2 577 624 (v1), 3 210 924 (v2) or 3 844 224 (v3) parameters for one input channel and 4 classes.
    """

    Options = UNetMCNetOptions
    several = True

    def __init__(self, in_channels: int, num_classes: int, options: UNetMCNetOptions) -> None:
        super().__init__(in_channels, num_classes, options)
        kinds = self.other_upsamplings()[: int(options.version[1:])]
        self.decoders.extend(self.make_decoder(upsampling=kind) for kind in kinds)
