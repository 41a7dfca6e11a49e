"""Losses as plain functions of logits; `Loss` is what methods are handed."""

from sslbench.losses.base import Loss
from sslbench.losses.consistency import cps_loss, mse_consistency, softmax_mse
from sslbench.losses.cross_entropy import voxel_weighted_cross_entropy, weighted_cross_entropy
from sslbench.losses.dice import DiceLoss
from sslbench.losses.gradient_aware import GACELoss, GADiceLoss

__all__ = [
    "DiceLoss",
    "GACELoss",
    "GADiceLoss",
    "Loss",
    "cps_loss",
    "mse_consistency",
    "softmax_mse",
    "voxel_weighted_cross_entropy",
    "weighted_cross_entropy",
]
