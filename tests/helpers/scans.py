"""Scans made up by a seed."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt

Scan = tuple[np.ndarray, np.ndarray, np.ndarray]


def make_scan(
    seed: int,
    shape: tuple[int, int, int] = (24, 20, 6),
    spacing: tuple[float, float, float] = (1.5, 1.25, 4.0),
    codes: str = "LPS",
    classes: int = 4,
) -> Scan:
    """An int16 image, a uint8 label with balls of every class, and an affine of the given orientation."""
    rng = np.random.default_rng(seed)
    image = rng.integers(-150, 400, shape).astype(np.int16)
    label = np.zeros(shape, np.uint8)
    grid = np.indices(shape)
    for value in range(1, classes):
        centre = rng.uniform(0.2, 0.8, 3) * shape
        label[((grid - centre[:, None, None, None]) ** 2).sum(axis=0) < 10] = value
        label[value, 0, 0] = value
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(axcodes2ornt(tuple(codes))):
        affine[int(world), axis] = sign * spacing[axis]
    affine[:3, 3] = rng.uniform(-50, 50, 3).astype(np.float32)
    return image, label, affine


def write_pair(image_path: Path, label_path: Path, scan: Scan) -> None:
    """Write an image and its label as NIfTI."""
    image, label, affine = scan
    for path, voxels in ((image_path, image), (label_path, label)):
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, affine), path)
