"""Pictures of tissue in DigestPath's layout."""

from __future__ import annotations

import numpy as np
import SimpleITK


def picture(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array, isVector=array.ndim == 3), str(path))


def tissue(seed, size=(40, 52)):
    """A coloured image (H, W, 3) and the mask (H, W) of a lesion in it."""
    rng = np.random.default_rng(seed)
    rows, cols = np.indices(size)
    mask = (rows - size[0] * rng.uniform(0.3, 0.7)) ** 2 + (cols - size[1] * rng.uniform(0.3, 0.7)) ** 2 < 100
    colour = np.where(mask[..., None], (120, 60, 140), (230, 190, 220)) + rng.integers(-15, 16, (*size, 3))
    return colour.astype(np.uint8), mask.astype(np.uint8)


def write_pictures(root, names, endings=("jpg", "jpg"), values=255, folder="tissue-train-pos-v1"):
    for number, name in enumerate(names):
        image, mask = tissue(number)
        picture(root / folder / f"{name}.{endings[0]}", image)
        picture(root / folder / f"{name}_mask.{endings[1]}", mask * np.uint8(values))
    return root
