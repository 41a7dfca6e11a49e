"""A weighting: classes by the inverse root of how often a predictor gives them."""

from pydantic import Field

import sslbench
from sslbench.losses.cross_entropy import classes_of
from sslbench.losses.weighting.base import voxels_of


class InverseRoot(sslbench.Weighting):
    """Weights 1/√n with mean 1, n the voxels of each class among a predictor's pseudo-labels; a moving average."""

    class Options(sslbench.Options):
        momentum: float = Field(default=0.99, ge=0, le=1, description="of the moving average")

    def init(self, counts):
        self.weights = self.of(counts)
        return self.weights

    def observe(self, step, logits, labels):
        return voxels_of(classes_of(logits), labels < 0, self.num_classes)

    def update(self, observation):
        self.weights = self.of(observation).lerp(self.weights, self.options.momentum)
        return self.weights

    def of(self, counts):
        weights = (counts.float() + 1).rsqrt()
        return weights / weights.mean()
