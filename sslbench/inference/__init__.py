"""From a trained network to label maps: sliding windows in 3-D, slices in 2-D."""

from sslbench.inference.sliding_window import slice_inference, sliding_window

__all__ = ["slice_inference", "sliding_window"]
