"""From label maps to numbers: overlaps, surface distances, and the protocols that say what a table means."""

from sslbench.metrics.overlap import confusion, dice, dice_of_classes, jaccard, jaccard_of_classes
from sslbench.metrics.protocols import EmptyPolicy, Protocol, evaluate_case
from sslbench.metrics.surface import SurfaceDistances, asd, assd, hd95, nsd, surface_distances

__all__ = [
    "EmptyPolicy",
    "Protocol",
    "SurfaceDistances",
    "asd",
    "assd",
    "confusion",
    "dice",
    "dice_of_classes",
    "evaluate_case",
    "hd95",
    "jaccard",
    "jaccard_of_classes",
    "nsd",
    "surface_distances",
]
