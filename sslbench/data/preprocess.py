"""From an official scan to the array that networks see, and from a prediction back to the scan's geometry.

Arrays are in the axis order of the NIfTI file (x, y, z), behind a channel axis where an image has several
channels, until the last step stores them. A plain image (JPEG, PNG, TIFF) is a volume of one slice.

Turning to an orientation swaps and flips axes only, so it is lossless. Resampling keeps the volume's centre in
place and gives voxels exactly the target spacing (voxels are cells, as in ITK and in torch with
`align_corners=False`): `n' = round(n s/s')`, and output cell `i` lies at input index
`(i + 1/2 - n'/2) s'/s + n/2 - 1/2`, held at the outermost cell where that is outside (by half an output cell at
most). Resizing to a number of voxels is the same with `s' = s n/n'` for images; its labels follow torch's
`nearest`, which takes input voxel `floor(i n/n')`: up to half an output cell before the image's. Nothing is
smoothed beforehand. A crop comes last; on the way back everything outside of it is background.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sslbench.config.text import first_few
from sslbench.core.errors import DataError
from sslbench.data.base import Dataset, Modality, Preprocessing, RawCase
from sslbench.data.files.arrays import has_label, read_array
from sslbench.data.files.headers import check_sizes, in_mm, nifti_mm, value_step
from sslbench.data.files.volumes import (
    AFFINE_TOLERANCE,
    PLAIN_IMAGES,
    SLICER,
    PaletteUse,
    header_of,
    read_volume,
    same_place,
    spacing_of,
    to_nifti,
)
from sslbench.data.geometry import (
    label_box,
    label_positions,
    new_grid,
    resample_linear,
    source_indices,
    turn_to,
    turned,
    turned_back,
    way_back,
)

if TYPE_CHECKING:
    import nibabel as nib


_LARGEST_STEP = 0.1  # of a scale factor that label values may be rounded by


@dataclass(frozen=True)
class LoadedCase:
    """A scan and its reference as stored in their files, checked.

    Attributes:
        image: float32 (X, Y, Z), or (C, X, Y, Z) of several channels.
        label: uint8 (X, Y, Z); all background where there is none.
        affine: float64 (4, 4), of the image: voxel indices to RAS+ mm.
        spacing_mm: per axis.
        header: the geometry fields of the image's header (of NRRD: of the NIfTI header that places voxels
            there), as JSON takes them.
        class_voxels: voxels of each class in the reference, background first; empty where there is none.
        modality: of this case.
        rounded: the most that a label value was off its class, by the rounding of its file's scale factor.
    """

    id: str
    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]
    spacing_mm: tuple[float, ...]
    header: dict[str, Any]
    class_voxels: tuple[int, ...]
    modality: Modality = "ct"
    rounded: float = 0.0

    @property
    def labeled(self) -> bool:
        """Whether it has a reference."""
        return bool(self.class_voxels)


@dataclass(frozen=True)
class Preprocessed:
    """A case as it is stored.

    Attributes:
        image: float32 or float16, in the stored axes, behind a channel axis where there are several; contiguous.
        label: uint8, of the same shape but for channels.
        spacing_mm: per stored axis.
        geometry: what `restore` needs, as JSON takes it: `header` and `shape` of the file; `turn`, the stored
            orientation's axis and sign for each axis of the file; `from` and `to`, the turned grid before and
            after resampling (the same where nothing was resampled); `nearest`, `floor` where labels were
            resized as torch does; `crop`, only where it was cropped, the `start` and `shape` of the stored part
            of the grid `to`; `axes` of the stored array.
    """

    image: NDArray[np.floating]
    label: NDArray[np.uint8]
    spacing_mm: tuple[float, ...]
    geometry: dict[str, Any]


def load_case(raw: RawCase, dataset: Dataset | type[Dataset]) -> LoadedCase:
    """Read a case and check everything about it that can be checked without knowing the anatomy.

    A case without a label, or an HDF5 file without that array, is an image that nobody annotated.

    Raises:
        DataError: a file that is missing, unreadable, truncated or damaged; voxels that are not finite; an
            image that is constant or not 3-D; a label map of other shape or place than its image, with values
            that are no class, or without foreground; an implausible spacing; an image and a label that are each
            other. The message names the file.
    """
    if not has_label(raw):
        raw = replace(raw, label=None)
        image, affine, spacing, header = _checked_image(raw, "image", len(dataset.channels), dataset.pixel_mm)
        nothing = np.zeros(image.shape[-3:], np.uint8)
        return LoadedCase(raw.id, image, nothing, affine, spacing, header, (), dataset.modality_of(raw.id))
    assert raw.label is not None
    try:
        return _checked(raw, dataset, "image", "label")
    except DataError:
        try:
            turned = _checked(raw, dataset, "label", "image")
        except DataError:
            turned = None
        # A mask is made of any grey image, but one that is all of one class is none.
        if turned is None or not turned.class_voxels[0]:
            raise
        other = "" if raw.image == raw.label else f": {raw.label.name} holds the image"
        raise DataError(f"{raw.image}: image and label look swapped{other}") from None


def _checked(
    raw: RawCase, dataset: Dataset | type[Dataset], first: Literal["image", "label"], second: Literal["image", "label"]
) -> LoadedCase:
    """The case with what is held as `first` for its image and what is held as `second` for its label."""
    label_file = getattr(raw, second)
    image, affine, spacing, header = _checked_image(raw, first, len(dataset.channels), dataset.pixel_mm)
    values, label_affine, _ = _read(raw, second, None, dataset.pixel_mm, dataset.palette_indices)
    values, rounded = whole_values(label_file, _with_channels(label_file, values, 1))
    if label_file.name.lower().endswith(SLICER) and values.shape != image.shape[-3:]:
        values, label_affine = _uncropped(values, label_affine, image.shape[-3:], affine)
    if values.shape != image.shape[-3:]:
        raise DataError(f"{label_file}: shape {values.shape} differs from the image's {image.shape[-3:]}")
    same_place(label_file, label_affine, affine)
    label, class_voxels = _classes(label_file, dataset.class_ids(values), dataset.num_classes())
    if dataset.least_classes and not any(class_voxels[1:]):
        raise DataError(f"{label_file}: the reference is empty, no class but the background is in it")
    modality = dataset.modality_of(raw.id)
    return LoadedCase(raw.id, image, label, affine, spacing, header, class_voxels, modality, rounded)


def whole_values(path: Path, values: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """Label values of a file, rounded where its header's scale factor alone keeps them from being whole numbers, and
    the most that one was off. Whoever saves a label map with the scan's header gets such a file.

    Args:
        path: of the file.
        values: as it was read.

    Returns:
        The values as they are, and 0, where they are whole or too far from it.
    """
    if values.dtype.kind != "f" or not np.isfinite(values).all():
        return values, 0.0
    whole = np.rint(values)
    off = float(np.abs(values - whole).max(initial=0))
    if off == 0:
        return values, 0.0
    step = value_step(path)
    near = step / 2 + 1e-6 * float(np.abs(values).max())
    return (whole, off) if step <= _LARGEST_STEP and off <= near and step else (values, 0.0)


def _uncropped(
    values: NDArray[Any], affine: NDArray[np.float64], shape: tuple[int, ...], target: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """A segmentation that was saved without the background around it (3D Slicer can), on the scan's grid; as it is
    where it lies on another one."""
    inside = np.linalg.inv(target) @ affine
    start = np.rint(inside[:3, 3]).astype(int)
    stop = start + values.shape
    same_axes = np.abs(inside[:3, :3] - np.eye(3)).max() < AFFINE_TOLERANCE
    if not same_axes or np.abs(inside[:3, 3] - start).max() > 0.01 or start.min() < 0 or (stop > shape).any():
        return values, affine
    whole = np.zeros(shape, values.dtype)
    whole[tuple(slice(*ends) for ends in zip(start, stop, strict=True))] = values
    return whole, target


def _checked_image(
    raw: RawCase, kind: Literal["image", "label"], channels: int, pixel_mm: float
) -> tuple[NDArray[np.float32], NDArray[np.float64], tuple[float, ...], dict[str, Any]]:
    """Image, affine, spacing and header of a case."""
    path = getattr(raw, kind)
    image, affine, header = _read(raw, kind, np.float32, pixel_mm)
    image = _with_channels(path, image, channels)
    if not np.isfinite(image).all():
        raise DataError(f"{path}: {int((~np.isfinite(image)).sum())} voxels are NaN or infinite")
    if image.min() == image.max():
        raise DataError(f"{path}: every voxel is {image.flat[0]:g}")
    spacing = spacing_of(path, affine)
    if path.name.endswith((".nii", ".nii.gz")):
        check_sizes(path, affine, np.array(header["pixdim"][1:]) * nifti_mm(header, path))
    return image, affine, spacing, header


def load_scan(
    id: str, files: Sequence[Path], channels: int = 1, pixel_mm: float = 1.0, modality: Modality = "ct"
) -> LoadedCase:
    """Read a scan that nobody annotated, checked as in `load_case`; its label is all background.

    Args:
        id: what to call it.
        files: its file, or one per channel in order.
        channels: how many it must have.
        pixel_mm: side of a pixel of a plain image.
        modality: of the scan.

    Raises:
        DataError: as for `load_case`.
    """
    raw = RawCase(id, id, files[0], None, channels=tuple(files) if len(files) > 1 else ())
    image, affine, spacing, header = _checked_image(raw, "image", channels, pixel_mm)
    label = np.zeros(image.shape[-3:], np.uint8)
    return LoadedCase(id, image, label, affine, spacing, header, (), modality)


def _read(
    raw: RawCase, kind: Literal["image", "label"], dtype: type | None, pixel_mm: float, indices: PaletteUse = "never"
) -> tuple[NDArray[Any], NDArray[np.float64], dict[str, Any]]:
    """`read_volume` of a case's file; arrays without headers lie along the axes of the world, from its origin."""
    if raw.form.axes is None:
        if kind == "image" and raw.channels:
            return _read_channels(raw.channels, dtype, pixel_mm)
        return read_volume(getattr(raw, kind), dtype, pixel_mm, indices)
    voxels = read_array(raw, kind)
    affine = np.diag([*(raw.form.spacing_mm or (1.0, 1.0, 1.0)), 1.0])
    return voxels.astype(dtype or voxels.dtype, copy=False), affine, header_of(voxels.shape, affine)


def _read_channels(
    paths: Sequence[Path], dtype: type | None, pixel_mm: float
) -> tuple[NDArray[Any], NDArray[np.float64], dict[str, Any]]:
    """`read_volume` of files that hold a channel each, (C, X, Y, Z) with the place of the first."""
    first, affine, header = read_volume(paths[0], dtype, pixel_mm)
    channels = [first]
    for path in paths[1:]:
        voxels, place, _ = read_volume(path, dtype, pixel_mm)
        if voxels.shape != first.shape:
            raise DataError(f"{path}: shape {voxels.shape} differs from the first channel's {first.shape}")
        same_place(path, place, affine, "first channel")
        channels.append(voxels)
    single = [_with_channels(path, voxels, 1) for path, voxels in zip(paths, channels, strict=True)]
    return np.stack(single), affine, header


def preprocess(loaded: LoadedCase, prep: Preprocessing) -> Preprocessed:
    """Turn, resample, clip, scale, crop and reorder a case as `prep` says; of arrays that have been through some
    of it, `prep` is what is left (`Preprocessing.without`).

    Raises:
        DataError: nothing to crop around is left after resampling.
    """
    turn = turn_to(loaded.affine, prep.orientation)
    image, label = turned(loaded.image, turn), turned(loaded.label, turn)
    spacing = tuple(loaded.spacing_mm[axis] for axis in np.argsort([axis for axis, _ in turn]))
    grid = {"shape": list(label.shape), "spacing_mm": list(spacing)}
    new, nearest = new_grid(grid, prep)
    if new != grid:
        image, label = resample_linear(image, grid, new), label[np.ix_(*label_positions(grid, new, nearest))]
    image = _scaled(image, prep, loaded.modality)
    more: dict[str, Any] = {} if nearest == "centre" else {"nearest": nearest}
    if prep.crop is not None:
        if not loaded.labeled:
            raise DataError(
                f"{loaded.id}: it has no label, and this preprocessing cuts around one",
                "take a preprocessing without a crop",
            )
        box = label_box(label, loaded.id, prep.crop)
        image, label = image[..., *box], label[box]
        more["crop"] = {"start": [part.start for part in box], "shape": list(label.shape)}
    image = image.astype(prep.dtype, copy=False)
    order = (2, 1, 0) if prep.axes == "zyx" else (0, 1, 2)
    channels = image.ndim - 3
    return Preprocessed(
        image=np.ascontiguousarray(image.transpose(*range(channels), *(axis + channels for axis in order))),
        label=np.ascontiguousarray(label.transpose(order)),
        spacing_mm=tuple(new["spacing_mm"][axis] for axis in order),
        geometry={
            "header": loaded.header,
            "shape": list(loaded.label.shape),
            "turn": turn,
            "from": grid,
            "to": new,
            "axes": prep.axes,
            **more,
        },
    )


def restore(labels: NDArray[Any], geometry: Mapping[str, Any]) -> nib.Nifti1Image:
    """Labels of the stored grid as a uint8 NIfTI image in the geometry of the source file.

    Exact where nothing was resampled; otherwise a voxel of the scan takes the stored label that was, or would have
    been, sampled nearest to it. Background outside a crop.

    Args:
        labels: integers 0 to 255 in the stored axes.
        geometry: of `Preprocessed`.

    Raises:
        ValueError: labels of another shape than the stored grid.
    """
    grid, new = geometry["from"], geometry["to"]
    labels = np.asarray(labels)
    if geometry["axes"] == "zyx":
        labels = labels.transpose(2, 1, 0)
    crop = geometry.get("crop") or {"start": [0, 0, 0], "shape": new["shape"]}
    if list(labels.shape) != crop["shape"]:
        raise ValueError(f"labels of shape {labels.shape} (x, y, z) for a stored grid of {tuple(crop['shape'])}")
    if crop["shape"] != new["shape"]:
        whole = np.zeros(new["shape"], labels.dtype)
        box = tuple(slice(start, start + side) for start, side in zip(crop["start"], crop["shape"], strict=True))
        whole[box] = labels
        labels = whole
    if new != grid:
        labels = labels[np.ix_(*way_back(grid, new, geometry.get("nearest", "centre")))]
    return to_nifti(turned_back(labels, geometry["turn"]).astype(np.uint8), geometry["header"])


def to_stored(labels: NDArray[Any], geometry: Mapping[str, Any]) -> NDArray[Any]:
    """A label map (X, Y, Z) of the scan as `preprocess` would have stored it: the other way round than `restore`.

    Args:
        labels: in the geometry of the source file.
        geometry: of `Preprocessed`.

    Raises:
        ValueError: labels of another shape than the scan.
    """
    grid, new = geometry["from"], geometry["to"]
    if list(labels.shape) != geometry["shape"]:
        raise ValueError(f"labels of shape {labels.shape} for a scan of {tuple(geometry['shape'])}")
    labels = turned(labels, geometry["turn"])
    if new != grid:
        labels = labels[np.ix_(*label_positions(grid, new, geometry.get("nearest", "centre")))]
    if "crop" in geometry:
        start, shape = geometry["crop"]["start"], geometry["crop"]["shape"]
        labels = labels[tuple(slice(first, first + side) for first, side in zip(start, shape, strict=True))]
    return labels.transpose(2, 1, 0) if geometry["axes"] == "zyx" else labels


def stored_nifti(values: NDArray[Any], geometry: Mapping[str, Any]) -> nib.Nifti1Image:
    """Values on the stored grid as a NIfTI image on it, placed where the scan lies: float32, or uint8 of integers.

    Args:
        values: (*S) in the stored axes; labels 0 to 255, or an image.
        geometry: as for `restore`.
    """
    import nibabel as nib

    grid, new = geometry["from"], geometry["to"]
    if geometry["axes"] == "zyx":
        values = values.transpose(2, 1, 0)
    source = to_nifti(np.zeros(geometry["shape"], np.uint8), geometry["header"])
    placed = in_mm(source.affine, nifti_mm(source.header, Path("header")))
    turned = placed @ nib.orientations.inv_ornt_aff(np.array(geometry["turn"]), source.shape)
    cells = np.diag([*np.divide(new["spacing_mm"], grid["spacing_mm"]), 1.0])
    start = geometry["crop"]["start"] if "crop" in geometry else [0, 0, 0]
    cells[:3, 3] = [source_indices(grid, new, axis)[start[axis]] for axis in range(3)]
    kind = np.float32 if np.issubdtype(values.dtype, np.floating) else np.uint8
    image = nib.Nifti1Image(values.astype(kind), turned @ cells)
    image.header.set_xyzt_units("mm")
    return image


def _with_channels(path: Path, array: NDArray[Any], channels: int) -> NDArray[Any]:
    """An array of a file with the number of channels that is expected; an opacity channel is dropped.

    Raises:
        DataError: it has another number. A grey picture saved in three equal channels has one.
    """
    held = array.shape[0] if array.ndim == 4 else 1
    if held == 4 and channels == 3 and path.suffix.lower() in PLAIN_IMAGES:
        return array[:3]
    if held in (3, 4) and channels == 1 and (array[1:3] == array[0]).all():
        return array[0]
    if held != channels:
        raise DataError(f"{path}: {held} {'channel' if held == 1 else 'channels'} where {channels} should be")
    return array[0] if channels == 1 and array.ndim == 4 else array


def _scaled(image: NDArray[np.float32], prep: Preprocessing, modality: Modality) -> NDArray[np.float32]:
    """Clip and scale; a volume or channel without any contrast becomes 0, never NaN."""
    if image.ndim == 4 and prep.channels == "apart":
        return np.stack([_scaled(channel, prep, modality) for channel in image])
    clip = prep.clip
    if prep.mri is not None and modality == "mri":
        low, high = np.percentile(image, prep.mri)
        clip = float(low), float(high)
    if clip is not None:
        image = np.clip(image, *clip)
    if prep.scale is None:
        return image
    if prep.scale == "clip" and clip is not None:
        shift, width = clip[0], clip[1] - clip[0]
    elif prep.scale == "minmax":
        shift, width = float(image.min()), float(image.max()) - float(image.min())
    else:
        shift, width = float(image.mean(dtype=np.float64)), float(image.std(dtype=np.float64))
    scaled = image - np.float32(shift)
    return scaled / np.float32(width) if width > 0 else np.zeros_like(scaled)


def _classes(path: Path, values: NDArray[Any], num_classes: int) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
    """Label values as uint8, and the voxels of each class."""
    # Comparisons with NaN are false, so it is among the wrong values.
    right = (values >= 0) & (values < num_classes)
    if values.dtype.kind == "f":
        right &= values == np.rint(values)
    if not right.all():
        wrong = np.unique(values[~right])
        named = first_few([f"{value:.9g}" for value in wrong])
        fraction = values.dtype.kind == "f" and not (wrong == np.rint(wrong)).all()
        raise DataError(
            f"{path}: label values {named} are not among the classes 0 to {num_classes - 1}",
            "save labels as whole numbers (uint8), without a scale factor" if fraction else "",
        )
    label = values.astype(np.uint8)
    # Slice by slice: bincount makes 8-byte copies.
    counts = sum(np.bincount(label[..., z].ravel(), minlength=num_classes) for z in range(label.shape[2]))
    return label, tuple(int(count) for count in np.asarray(counts))
