"""From a trained network to label maps: sliding windows in 3-D, slices in 2-D."""

from sslbench.inference.sliding_window import slice_inference, sliding_window
from sslbench.metrics.components import largest_component

__all__ = ["largest_component", "slice_inference", "sliding_window"]
