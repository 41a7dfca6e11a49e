"""From label maps to numbers: overlaps, volumes, surface distances, and the protocols that say what a table means."""

from sslbench.metrics.case import evaluate_case
from sslbench.metrics.components import intersection, largest_component
from sslbench.metrics.overlap import confusion, dice, dice_of_classes, jaccard, jaccard_of_classes
from sslbench.metrics.protocol import EmptyPolicy, Protocol
from sslbench.metrics.surface import SurfaceDistances, asd, assd, hd95, nsd, surface_distances
from sslbench.metrics.volume import avd, rvd

__all__ = [
    "EmptyPolicy",
    "Protocol",
    "SurfaceDistances",
    "asd",
    "assd",
    "avd",
    "confusion",
    "dice",
    "dice_of_classes",
    "evaluate_case",
    "hd95",
    "intersection",
    "jaccard",
    "jaccard_of_classes",
    "largest_component",
    "nsd",
    "rvd",
    "surface_distances",
]
