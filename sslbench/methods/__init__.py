"""SSL methods: each sees tensors and returns named loss terms."""

from sslbench.core.step import Batch, Statistics, Step
from sslbench.methods.base import Build, Group, Method, Phase

__all__ = ["Batch", "Build", "Group", "Method", "Phase", "Statistics", "Step"]
