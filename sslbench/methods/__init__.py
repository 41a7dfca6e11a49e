"""SSL methods: each sees tensors and returns named loss terms."""

from sslbench.methods.base import Batch, Build, Group, Method, Phase, Statistics, Step

__all__ = ["Batch", "Build", "Group", "Method", "Phase", "Statistics", "Step"]
