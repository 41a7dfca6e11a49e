"""Label maps of whole cases by a trained method, as its recipe says."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from sslbench.config.recipe import Recipe
from sslbench.data.sampling import stretched
from sslbench.inference.sliding_window import (
    InferenceProgress,
    accumulate_windows,
    flipped,
    label_windows,
    resized_scores,
    resized_slices,
)
from sslbench.methods.base import Method, mean_logits
from sslbench.networks.precision import Precision

# Voxels in a forward pass on a CPU: what does not fit its caches is up to twice as slow (measured: U-Net, V-Net), and a
# single patch takes slower kernels than two.
_CPU_VOXELS, _CPU_PATCHES = 1 << 18, 2


class Predictor:
    """Segments preprocessed volumes with one of a method's predictors.

    Args:
        method: in the state to predict with; it is put into evaluation mode for each case.
        key: the predictor; None: by the rule of the method's paper.
        recipe: patch size and inference.
        num_classes: C.
        precision: arithmetic and device.
        network: predicts in the place of the method's predictor: a teacher, say.
    """

    def __init__(
        self,
        method: Method,
        key: str | None,
        recipe: Recipe,
        num_classes: int,
        precision: Precision,
        network: nn.Module | None = None,
    ) -> None:
        self.method, self.key, self.recipe = method, key, recipe
        self.num_classes, self.precision, self.network = num_classes, precision, network

    def volume(self, image: np.ndarray) -> Tensor:
        """An image (channels, *S) in the stored grid, any float, as networks take it: fp32, on the device."""
        tiles = self.recipe.tiles
        image = stretched(image) if tiles is not None and tiles.rescale else image
        return torch.from_numpy(np.array(image, dtype=np.float32)).to(self.precision.device)

    @torch.no_grad()
    def segment(
        self, image: np.ndarray | Tensor, validation: bool = False, progress: InferenceProgress | None = None
    ) -> Tensor:
        """Labels (*S) uint8, on the device, of an image (channels, *S) in the stored grid.

        Args:
            image: float, any dtype; or what `volume` made of it.
            validation: use the coarser validation stride, where the recipe has one.
            progress: told after every forward pass.
        """
        return self._of_whole(image, validation, progress, resized_slices, label_windows).to(torch.uint8)

    @torch.no_grad()
    def scores(
        self, image: np.ndarray | Tensor, validation: bool = False, progress: InferenceProgress | None = None
    ) -> Tensor:
        """Class probabilities (C, *S) fp32; arguments are those of `segment`. They are all in memory at once."""
        found = self._of_whole(image, validation, progress, resized_scores, accumulate_windows)
        windows_of_slices = self.recipe.inference.stride is not None and len(self.recipe.patch_size) == 2
        return found.transpose(0, 1) if windows_of_slices else found

    def _of_whole(
        self,
        image: np.ndarray | Tensor,
        validation: bool,
        progress: InferenceProgress | None,
        by_slices: Callable[..., Tensor],
        by_windows: Callable[..., Tensor],
    ) -> Tensor:
        size, inference = self.recipe.patch_size, self.recipe.inference
        volume = image if isinstance(image, Tensor) else self.volume(image)
        predict, batch = flipped(self._predict, inference.flips), self.batch()
        was_training = self.method.training
        self.method.eval()
        try:
            if inference.stride is None:
                return by_slices(predict, volume, size, batch, progress)
            stride = (inference.validation_stride if validation else None) or inference.stride
            how = (size, stride, self.num_classes, batch, inference.weighting, progress)
            if len(size) == 3:
                return by_windows(predict, volume, *how)
            return torch.stack([by_windows(predict, part, *how) for part in volume.unbind(1)])
        finally:
            self.method.train(was_training)

    def _predict(self, x: Tensor) -> Tensor:
        with self.precision.autocast():
            x = self.precision.layout(x)
            return self.method.predict(x, self.key) if self.network is None else mean_logits([self.network], x)

    def batch(self) -> int:
        """Patches in a forward pass: the recipe's number, on a CPU no more than serve it."""
        batch = self.recipe.inference.batch
        if self.precision.device.type == "cpu":
            batch = min(batch, max(_CPU_PATCHES, _CPU_VOXELS // math.prod(self.recipe.patch_size)))
        return batch
