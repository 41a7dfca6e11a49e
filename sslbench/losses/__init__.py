"""Losses as plain functions of logits; `Loss` is what methods are handed."""

from sslbench.losses.base import Loss
from sslbench.losses.consistency import cps_loss
from sslbench.losses.cross_entropy import voxel_weighted_cross_entropy, weighted_cross_entropy
from sslbench.losses.dice import DiceLoss
from sslbench.losses.gradient_aware import GACELoss, GADiceLoss

__all__ = [
    "DiceLoss",
    "GACELoss",
    "GADiceLoss",
    "Loss",
    "cps_loss",
    "voxel_weighted_cross_entropy",
    "weighted_cross_entropy",
]
