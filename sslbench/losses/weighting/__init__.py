"""Weightings: class and voxel weights from what a predictor does, for any loss of any method."""

from sslbench.losses.weighting.base import Weighting
from sslbench.losses.weighting.difficulty import DiffDW, batch_dice
from sslbench.losses.weighting.distribution import CReSTWeights, DistDW, SimiSWeights
from sslbench.losses.weighting.sampling import CLD, ConfidenceBank, cld_class_weights, cld_sampling_rate
from sslbench.losses.weighting.thresholds import Adsh, adsh_thresholds

__all__ = [
    "CLD",
    "Adsh",
    "CReSTWeights",
    "ConfidenceBank",
    "DiffDW",
    "DistDW",
    "SimiSWeights",
    "Weighting",
    "adsh_thresholds",
    "batch_dice",
    "cld_class_weights",
    "cld_sampling_rate",
]
