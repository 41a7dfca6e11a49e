"""Losses as plain functions of logits; `Loss` is what methods are handed."""

from sslbench.losses.base import Loss
from sslbench.losses.compose import BySource, Weighted
from sslbench.losses.consistency import (
    bcp_mix_loss,
    cct_loss,
    cps_dice_loss,
    cps_loss,
    entropy_loss,
    mse_consistency,
    predictive_entropy,
    rdrop_loss,
    softmax_mse,
    uamt_consistency,
    uamt_threshold,
    urpc_loss,
    vat_loss,
)
from sslbench.losses.cross_entropy import voxel_weighted_cross_entropy, weighted_cross_entropy
from sslbench.losses.dice import DiceCELoss, DiceLoss
from sslbench.losses.gradient_aware import GACELoss, GADiceLoss
from sslbench.losses.prototypes import prototype_loss
from sslbench.losses.quadripartition import QuadLoss
from sslbench.losses.weighting import CReSTWeights, DiffDW, DistDW, SimiSWeights, Weighting

__all__ = [
    "BySource",
    "CReSTWeights",
    "DiceCELoss",
    "DiceLoss",
    "DiffDW",
    "DistDW",
    "GACELoss",
    "GADiceLoss",
    "Loss",
    "QuadLoss",
    "SimiSWeights",
    "Weighted",
    "Weighting",
    "bcp_mix_loss",
    "cct_loss",
    "cps_dice_loss",
    "cps_loss",
    "entropy_loss",
    "mse_consistency",
    "predictive_entropy",
    "prototype_loss",
    "rdrop_loss",
    "softmax_mse",
    "uamt_consistency",
    "uamt_threshold",
    "urpc_loss",
    "vat_loss",
    "voxel_weighted_cross_entropy",
    "weighted_cross_entropy",
]
