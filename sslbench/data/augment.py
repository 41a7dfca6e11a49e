"""Geometric augmentation as coordinate maps, so that cutting, augmenting and resizing a patch are one gather.

A map tells for each voxel of the augmented image which voxel of the item it is: row = a₀ + a₁u + a₂v and
col = b₀ + b₁u + b₂v for the first two axes, which is all that the papers' augmentations turn or flip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sslbench.config import Augmentation


@dataclass(frozen=True)
class PlaneMap:
    """From the axes (u, v) of an augmented image to those of the image that it was made from.

    Attributes:
        size: (U, V) of the augmented image.
        matrix: [[a₁, a₂], [b₁, b₂]].
        offset: [a₀, b₀].
        exact: whether every voxel maps to a voxel (turns by 90° and flips).
    """

    size: tuple[int, int]
    matrix: np.ndarray
    offset: np.ndarray
    exact: bool = True


def identity(size: tuple[int, int]) -> PlaneMap:
    """The map that changes nothing."""
    return PlaneMap(size, np.eye(2), np.zeros(2))


def rot90_flip(size: tuple[int, int], quarter_turns: int, axis: int) -> PlaneMap:
    """`np.flip(np.rot90(image, quarter_turns), axis)`."""
    U, V = size if quarter_turns % 2 == 0 else size[::-1]
    H, W = size
    # np.rot90(m)[u, v] = m[v, W - 1 - u], and so on.
    matrix, offset = {
        0: ([[1, 0], [0, 1]], [0, 0]),
        1: ([[0, 1], [-1, 0]], [0, W - 1]),
        2: ([[-1, 0], [0, -1]], [H - 1, W - 1]),
        3: ([[0, -1], [1, 0]], [H - 1, 0]),
    }[quarter_turns % 4]
    turned, start = np.array(matrix, float), np.array(offset, float)
    start += turned[:, axis] * ((U, V)[axis] - 1)
    turned[:, axis] *= -1
    return PlaneMap((U, V), turned, start)


def rotation(size: tuple[int, int], degrees: float) -> PlaneMap:
    """`scipy.ndimage.rotate(image, degrees, order=0, reshape=False)`; what comes from outside is 0."""
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = (np.array(size) - 1) / 2
    return PlaneMap(size, matrix, centre - matrix @ centre, exact=False)


def draw(names: list[Augmentation], size: tuple[int, int], random: np.random.Generator) -> PlaneMap:
    """Draw the map of a weak view.

    `rot90_flip`: a turn by 0, 90, 180 or 270 degrees, then always one flip (LA). `ssl4mis`: half of the time that;
    else half of the time a rotation by a whole angle in [-20, 19] degrees; else nothing (the RandomGenerator of the
    ACDC papers).

    Args:
        names: at most one augmentation; none: the identity.
        size: of the first two axes.
        random: the patch's generator.
    """
    if not names:
        return identity(size)
    (name,) = names
    if name == "rot90_flip" or random.random() > 0.5:
        return rot90_flip(size, int(random.integers(4)), int(random.integers(2)))
    if random.random() > 0.5:
        return rotation(size, float(random.integers(-20, 20)))
    return identity(size)
