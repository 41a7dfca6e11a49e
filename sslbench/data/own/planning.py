"""From what the training images of own data measure to a preprocessing and a recipe.

Measured are sizes, voxel sizes and, of CT, the intensities of organs; no image of validation or test, and no label
but those that every label budget gives. What follows from it:

- **2-D or 3-D.** Slices, where the median image has fewer than 16 along its thickest axis, or voxels at least 3 times
  as thick there as across; volumes otherwise.
- **2-D.** Slices across the thickest axis, at the resolution that they have; a network sees them resized to the
  median slice, shrunk to at most 256 pixels on its longer side, in multiples of 16.
- **3-D.** Everything is resampled to the median voxel size, per axis; where the median volume would have more than
  2^24 voxels then, the finest axes are coarsened alike until it has not. The patch is the median volume, cut to
  multiples of 16 and, its longest side first, to the 112 x 112 x 80 voxels that the field trains on; the stride is half
  of it.
- **Intensities.** CT is clipped to the 0.5 and 99.5 percentiles of what is labelled in the cases that every label
  budget labels (where there is none, it is scaled as all else), and that range becomes [0, 1]; 8-bit pictures go from
  0 to 255 to [0, 1]; all else has zero mean and unit deviation, image by image and channel by channel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sslbench.core.errors import DataError, UsageError
from sslbench.data.base import Modality, Preprocessing
from sslbench.data.files.damage import quiet
from sslbench.data.files.headers import HEADER_BYTES, header_text, in_mm, itk_mm, nifti_mm
from sslbench.data.files.volumes import PLAIN_IMAGES, itk_affine, open_nifti_header, read_volume

if TYPE_CHECKING:
    from sslbench.config.splits import Splits
    from sslbench.data.own.layouts import CaseFiles

DIVISOR = 16  # of the sides that the generic recipes' networks take
THICK = 3.0  # ratio of voxel sides from which volumes are cut into slices
LONGEST_SIDE = 256
MOST_VOXELS = 2**24
PATCH_VOXELS = 112 * 112 * 80
PERCENTILES = (0.5, 99.5)
_SAMPLES = 100_000  # labelled voxels of a case that percentiles are taken from

# Turned to one of these, a volume has its slices along the file's last axis.
_ORIENTATIONS = ("ASR", "RSA", "RAS")


@dataclass(frozen=True)
class Measured:
    """Measurements that the training images have in common.

    Attributes:
        images: how many were measured.
        size, spacing_mm: medians along the axes left-right, back-front, feet-head (of a plain image: its columns,
            rows and pages).
        placed: whether their files say where the voxels lie.
    """

    images: int
    size: tuple[float, float, float]
    spacing_mm: tuple[float, float, float]
    placed: bool

    @property
    def thickest(self) -> int:
        """The axis that slices are stacked along: one of a single voxel, else that of the largest voxel side."""
        order = sorted(range(3), key=lambda axis: (self.size[axis] > 1, -self.spacing_mm[axis], -axis))
        return order[0]

    @property
    def dims(self) -> int:
        """2 or 3, by the rule of this module."""
        thick = self.thickest
        across = max(side for axis, side in enumerate(self.spacing_mm) if axis != thick)
        return 2 if self.size[thick] < DIVISOR or self.spacing_mm[thick] >= THICK * across else 3

    def __str__(self) -> str:
        size, spacing = (" x ".join(f"{side:g}" for side in sides) for sides in (self.size, self.spacing_mm))
        unit = " mm" if self.placed else " (the files do not say how large a pixel is)"
        return f"{self.images} training images, median {size} voxels of {spacing}{unit}"


def measure(images: Sequence[Path]) -> Measured:
    """Read the headers of images. One that cannot be read is passed over: preparing it will say what is wrong.

    Raises:
        UsageError: none can be read.
    """
    sizes, spacings, trouble = [], [], ""
    for path in images:
        try:
            size, affine = read_header(path)
        except DataError as error:
            trouble = trouble or error.message
            continue
        axes = world_axes(affine)
        sizes.append([size[axes.index(world)] for world in range(3)])
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        spacings.append([spacing[axes.index(world)] for world in range(3)])
    if not sizes:
        raise UsageError(f"none of the {len(images)} training images can be read: {trouble}")
    placed = not all(path.suffix.lower() in PLAIN_IMAGES for path in images)
    return Measured(len(sizes), _median(sizes), _median(spacings), placed)


def _median(rows: list[list[Any]]) -> tuple[float, float, float]:
    x, y, z = (round(float(value), 4) for value in np.median(rows, axis=0))
    return x, y, z


def read_header(path: Path) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """Size (x, y, z) and affine of an image, without its voxels where the format allows.

    Raises:
        DataError: it cannot be read.
    """
    if path.name.endswith((".nii", ".nii.gz")):
        nifti = open_nifti_header(path)
        shape = nifti.shape
        affine = in_mm(np.asarray(nifti.affine, np.float64), nifti_mm(nifti.header, path))
        if len(shape) < 3 or not np.isfinite(affine).all():
            raise DataError(f"{path}: shape {shape} is not a volume with a place")
        x, y, z = (int(side) for side in shape[:3])
        return (x, y, z), affine
    if path.suffix.lower() in PLAIN_IMAGES:
        voxels, affine, _ = read_volume(path)
        x, y, z = voxels.shape[-3:]
        return (x, y, z), affine
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with path.open("rb") as file:
            fields = header_text(file.read(HEADER_BYTES))
        with quiet():
            reader.ReadImageInformation()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except RuntimeError as error:
        raise DataError(f"{path}: its header cannot be read") from error
    if reader.GetDimension() != 3:
        raise DataError(f"{path}: {reader.GetDimension()} dimensions are not a volume")
    x, y, z = reader.GetSize()
    return (x, y, z), in_mm(itk_affine(reader), itk_mm(path, fields))


def world_axes(affine: NDArray[np.float64]) -> list[int]:
    """For each axis of a file, the axis of the body that it is closest to: 0 left-right, 1 back-front, 2 feet-head."""
    from nibabel import orientations

    return [int(axis) for axis, _ in orientations.io_orientation(affine)]


# ------------------------------------------------------------------------------------------------- preprocessing


def modality_of(channels: Sequence[str], images: Sequence[Path]) -> Modality:
    """`ct` where every channel is called so, `rgb` of 8-bit pictures, else `mri` (whatever it is: its scale means
    nothing)."""
    if all(name.strip().upper() == "CT" for name in channels):
        return "ct"
    plain = bool(images) and all(path.suffix.lower() in PLAIN_IMAGES for path in images)
    return "rgb" if plain and _is_8_bit(images) else "mri"


def _is_8_bit(images: Sequence[Path]) -> bool:
    for path in images:
        try:
            return bool(read_volume(path)[0].dtype == np.uint8)
        except DataError:
            continue
    return False


def plan_preprocessing(
    measured: Measured, dims: int, modality: Modality, clip: tuple[float, float] | None
) -> Preprocessing:
    """The preprocessing of own data, by the rules of this module.

    Args:
        measured: of the training images.
        dims: 2 or 3.
        modality: of the images.
        clip: of CT; None: no label shows it, so it is scaled as all else.
    """
    ranges = {"ct": clip, "rgb": (0.0, 255.0)}
    known = ranges.get(modality)
    fields: dict[str, Any] = {"scale": "zscore"} if known is None else {"clip": known, "scale": "clip"}
    scaled = "zero mean and unit deviation per image and channel"
    if known is not None:
        scaled = f"{known[0]:g} to {known[1]:g}" + (" HU" if modality == "ct" else "") + " to [0, 1]"
    if dims == 2:
        turned = _ORIENTATIONS[measured.thickest] if measured.placed else None
        said = f"Slices at the resolution of the files; {scaled}."
        return Preprocessing(axes="zyx", orientation=turned, description=said, **fields)
    spacing = target_spacing(measured)
    said = f"RAS, {' x '.join(f'{side:g}' for side in spacing)} mm; {scaled}."
    return Preprocessing(axes="xyz", orientation="RAS", spacing_mm=spacing, description=said, **fields)


def target_spacing(measured: Measured) -> tuple[float, float, float]:
    """The voxel sides to resample to: the medians, the finest of them coarsened alike where volumes grow too large."""
    order = sorted(measured.spacing_mm)
    extent = math.prod(side * size for side, size in zip(measured.spacing_mm, measured.size, strict=True))
    floor = 0.0
    for coarsened in (1, 2, 3):
        # With the `coarsened` finest sides at `floor`, the volume has extent / (floor^coarsened · the others) voxels.
        floor = (extent / MOST_VOXELS / math.prod(order[coarsened:])) ** (1 / coarsened)
        if coarsened == 3 or floor <= order[coarsened]:
            break
    if floor > order[0]:
        step = 10.0 ** (math.floor(math.log10(floor)) - 1)
        floor = round(math.ceil(floor / step) * step, 9)  # no digits that nobody can remember
    x, y, z = (max(side, floor) for side in measured.spacing_mm)
    return x, y, z


def ct_range(cases: Sequence[CaseFiles]) -> tuple[float, float]:
    """The intensities that CT is clipped to: percentiles of all labelled voxels of some cases.

    Args:
        cases: those whose labels may be known whatever the label budget.

    Raises:
        UsageError: none of them can be read, or nothing is labelled in them.
    """
    found: list[NDArray[np.float32]] = []
    trouble = ""
    for case in cases:
        try:
            assert case.label is not None  # who asks has seen to that
            image, label = read_volume(case.images[0], np.float32)[0], read_volume(case.label)[0]
        except DataError as error:
            trouble = trouble or error.message
            continue
        if image.shape[-3:] == label.shape:
            values = np.sort((image if image.ndim == 3 else image[0])[label > 0])
            # Every case counts alike, and a few of its values show its percentiles as well as all.
            found += [values[:: max(1, values.size // _SAMPLES)]] if np.isfinite(values).all() else []
    values = np.concatenate(found) if found else np.zeros(0, np.float32)
    if not values.size or values.min() == values.max():
        raise UsageError(
            f"nothing that is labelled in {', '.join(case.id for case in cases)} shows which intensities matter"
            f"{f' ({trouble})' if trouble else ''}",
            "draw other lists with --split-seed",
        )
    low, high = (math.floor(value) for value in np.percentile(values, PERCENTILES))
    return float(low), float(max(high, low + 1))


# -------------------------------------------------------------------------------------------------------- recipe


def measured_as_prepared(
    shapes: Sequence[Sequence[int]], spacings_mm: Sequence[Sequence[float]], prep: Preprocessing, placed: bool
) -> Measured:
    """Measure what prepared images have in common, for data that a class reads: only it knows what its files say.

    Args:
        shapes, spacings_mm: of the stored arrays, axis by axis.
        prep: how they were prepared.
        placed: whether their voxel sizes are known.
    """
    turn = -1 if prep.axes == "zyx" else 1
    sizes, spacings = ([list(row)[::turn] for row in rows] for rows in (shapes, spacings_mm))
    return Measured(len(sizes), _median(sizes), _median(spacings), placed)


def plan_slice(measured: Measured, across: int | None = None) -> list[int]:
    """Rows and columns that slices are resized to.

    Args:
        measured: of the training images.
        across: the axis that slices are stacked along; None: the thickest.
    """
    thick = measured.thickest if across is None else across
    columns, rows = (side for axis, side in enumerate(measured.size) if axis != thick)
    shrink = min(1.0, LONGEST_SIDE / max(rows, columns))
    return [max(DIVISOR, DIVISOR * int(side * shrink / DIVISOR + 0.5)) for side in (rows, columns)]


def plan_patch(measured: Measured, spacing_mm: Sequence[float]) -> list[int]:
    """Sides of a patch along x, y, z of volumes with these voxel sides."""
    sizes = [
        size * side / target for size, side, target in zip(measured.size, measured.spacing_mm, spacing_mm, strict=True)
    ]
    patch = [max(DIVISOR, DIVISOR * int(size / DIVISOR + 1e-6)) for size in sizes]
    while math.prod(patch) > PATCH_VOXELS:
        longest = max(range(3), key=lambda axis: (patch[axis], -axis))
        patch[longest] -= DIVISOR
    return patch


def sided(classes: Sequence[str]) -> bool:
    """Tell whether classes are told apart by the side of the body they are on: no flip may be learned then."""
    words = {word for name in classes for word in name.lower().replace("_", " ").replace("-", " ").split()}
    return bool(words & {"left", "right"})


def recipe_text(
    name: str,
    measured: Measured,
    preprocessing: str,
    prep: Preprocessing,
    splits: Splits,
    classes: Sequence[str],
    dataset: str | None = None,
) -> str:
    """The recipe of own data, a YAML file that says where each value is from.

    Args:
        name: of the dataset.
        measured: of its training images.
        preprocessing, prep: its name, and what it does.
        splits: the lists to use.
        classes: names of the foreground classes.
        dataset: the reference of a class that reads it, measured as it prepared them; None: a definition file does.
    """
    dims = 2 if prep.axes == "zyx" else 3
    lines = [
        f"# Written by `sslbench prepare {name}`; yours to change. Measured on the lists {splits.name}:",
        f"# {measured}.",
        f"extends: generic/own-{dims}d",
        f"description: {name} (own data), {dims}-D",
        "source: own data, on which no table is published",
        f"dataset: {dataset or name}",
        f"preprocessing: {preprocessing}  # {' '.join(prep.description.split())}".rstrip(" #"),
        f"splits: {splits.name}  # {name}/splits/{splits.name}.yaml in the data folder",
    ]
    schedule, inference = [], []
    if dims == 2:
        sides = plan_slice(measured, across=2 if dataset else None)
        lines.append(f"patch_size: {sides}  # rows, columns: the median slice, {LONGEST_SIDE} at most")
        if sided(classes):
            lines.append("augment: {weak: []}  # turns and flips would make left of right")
    else:
        patch = plan_patch(measured, prep.spacing_mm or measured.spacing_mm)
        lines.append(f"patch_size: {patch}  # x, y, z: the median volume, {PATCH_VOXELS} voxels at most")
        inference.append(f"stride: {[side // 2 for side in patch]}")
    if not measured.placed:
        lines.append("protocol: native-voxel  # the files do not say how large a pixel is")
    if not splits.val:
        lines.append("checkpoint: last  # the lists hold no validation cases")
        schedule.append("validate_every: 0")
        inference.append("networks: mean_logits")
    for group, fields in (("schedule", schedule), ("inference", inference)):
        if fields:
            lines.append(f"{group}: {{{', '.join(fields)}}}")
    return "\n".join(lines) + "\n"
