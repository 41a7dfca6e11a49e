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

import gzip
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sslbench.data.base import Dataset, LabelCrop, Modality, Preprocessing, RawCase
from sslbench.data.forms import read_array
from sslbench.data.resampling import floor_positions
from sslbench.errors import DataError

if TYPE_CHECKING:
    import nibabel as nib

MAX_SPACING_MM = 50.0
_AFFINE_TOLERANCE = 1e-3  # of the spacing
_SAME_SPACING = 1e-4  # relative; below this an axis is not resampled
PLAIN_IMAGES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")

# What a NIfTI header says about geometry; kept as it is, so that a restored label map has the very same.
_GEOMETRY_FIELDS = (
    *("qform_code", "sform_code", "xyzt_units", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)


@dataclass(frozen=True)
class LoadedCase:
    """A scan and its reference as stored in their files, checked.

    Attributes:
        image: float32 (X, Y, Z), or (C, X, Y, Z) of several channels.
        label: uint8 (X, Y, Z).
        affine: float64 (4, 4), of the image: voxel indices to RAS+ mm.
        spacing_mm: per axis.
        header: the geometry fields of the image's header (of NRRD: of the NIfTI header that places voxels
            there), as JSON takes them.
        class_voxels: voxels of each class in the reference, background first.
        modality: of this case.
    """

    id: str
    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]
    spacing_mm: tuple[float, ...]
    header: dict[str, Any]
    class_voxels: tuple[int, ...]
    modality: Modality = "ct"


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

    Raises:
        DataError: a file that is missing, unreadable, truncated or damaged; voxels that are not finite; an
            image that is constant or not 3-D; a label map of other shape or place than its image, with values
            that are no class, or without foreground; an implausible spacing; an image and a label that are each
            other. The message names the file.
    """
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
    values, label_affine, _ = _read(raw, second, None, dataset.pixel_mm)
    values = _with_channels(label_file, values, 1)
    if values.shape != image.shape[-3:]:
        raise DataError(f"{label_file}: shape {values.shape} differs from the image's {image.shape[-3:]}")
    same_place(label_file, label_affine, affine)
    label, class_voxels = _classes(label_file, dataset.class_ids(values), dataset.num_classes())
    if dataset.least_classes and not any(class_voxels[1:]):
        raise DataError(f"{label_file}: the reference is empty, no class but the background is in it")
    modality = dataset.modality_of(raw.id)
    return LoadedCase(raw.id, image, label, affine, spacing, header, class_voxels, modality)


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
    return image, affine, _spacing(path, affine), header


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
    raw = RawCase(id, id, files[0], files[0], channels=tuple(files) if len(files) > 1 else ())
    image, affine, spacing, header = _checked_image(raw, "image", channels, pixel_mm)
    label = np.zeros(image.shape[-3:], np.uint8)
    return LoadedCase(id, image, label, affine, spacing, header, (label.size,), modality)


def _read(
    raw: RawCase, kind: Literal["image", "label"], dtype: type | None, pixel_mm: float
) -> tuple[NDArray[Any], NDArray[np.float64], dict[str, Any]]:
    """`read_volume` of a case's file; arrays without headers lie along the axes of the world, from its origin."""
    if raw.form.axes is None:
        if kind == "image" and raw.channels:
            return _read_channels(raw.channels, dtype, pixel_mm)
        return read_volume(getattr(raw, kind), dtype, pixel_mm)
    voxels = read_array(raw, kind)
    affine = np.diag([*(raw.form.spacing_mm or (1.0, 1.0, 1.0)), 1.0])
    return voxels.astype(dtype or voxels.dtype, copy=False), affine, _header(voxels.shape, affine)


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


def same_place(path: Path, affine: NDArray[np.float64], other: NDArray[np.float64], whose: str = "image") -> None:
    """Whether a file's voxels lie where those of the image do.

    Raises:
        DataError: they do not.
    """
    # Written so that a NaN in the file's header counts as a difference.
    if not np.abs(affine - other).max() <= _AFFINE_TOLERANCE * np.linalg.norm(other[:3, :3], axis=0).min():
        row, column = np.unravel_index(np.abs(affine - other).argmax(), (4, 4))
        what = "origin" if column == 3 else "axes"
        raise DataError(
            f"{path}: its {what} differ from the {whose}'s"
            f" (affine [{row},{column}]: {affine[row, column]:g}, not {other[row, column]:g})"
        )


def preprocess(loaded: LoadedCase, prep: Preprocessing) -> Preprocessed:
    """Turn, resample, clip, scale, crop and reorder a case as `prep` says; of arrays that have been through some
    of it, `prep` is what is left (`Preprocessing.without`).

    Raises:
        DataError: nothing to crop around is left after resampling.
    """
    turn = _turn(loaded.affine, prep.orientation)
    image, label = _turned(loaded.image, turn), _turned(loaded.label, turn)
    spacing = tuple(loaded.spacing_mm[axis] for axis in np.argsort([axis for axis, _ in turn]))
    grid = {"shape": list(label.shape), "spacing_mm": list(spacing)}
    new, nearest = _new_grid(grid, prep)
    if new != grid:
        image, label = resample_linear(image, grid, new), label[np.ix_(*_label_positions(grid, new, nearest))]
    image = _scaled(image, prep, loaded.modality)
    more: dict[str, Any] = {} if nearest == "centre" else {"nearest": nearest}
    if prep.crop is not None:
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


def label_box(label: NDArray[np.uint8], id: str, crop: LabelCrop) -> tuple[slice, slice, slice]:
    """The box (x, y, z) that `crop` cuts out of a case; all foreground is inside.

    Args:
        label: (X, Y, Z).
        id: of the case; the same id gives the same margins on every machine.
        crop: the rule.

    Raises:
        DataError: there is no foreground.
    """
    box = []
    for axis, name in enumerate("xyz"):
        size = label.shape[axis]
        if name not in crop.axes:
            box.append(slice(0, size))
            continue
        there = np.flatnonzero(label.any(axis=tuple(other for other in range(3) if other != axis)))
        if not there.size:
            raise DataError(f"{id}: no foreground to crop around")
        first, last = int(there[0]), int(there[-1])
        # Not a NumPy generator: its streams may change between releases, and caches would differ.
        digest = hashlib.sha256(f"{id}/{name}".encode()).digest()
        low, high = crop.margin
        before, behind = (low + int.from_bytes(half) % (high - low + 1) for half in (digest[:16], digest[16:]))
        pad = max(crop.size[axis] - (last - first), 0) // 2
        box.append(slice(max(first - before - pad, 0), min(last + behind + pad, size)))
    return box[0], box[1], box[2]


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
        labels = labels[np.ix_(*_way_back(grid, new, geometry.get("nearest", "centre")))]
    return to_nifti(_turned_back(labels, geometry["turn"]).astype(np.uint8), geometry["header"])


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
    labels = _turned(labels, geometry["turn"])
    if new != grid:
        labels = labels[np.ix_(*_label_positions(grid, new, geometry.get("nearest", "centre")))]
    if "crop" in geometry:
        start, shape = geometry["crop"]["start"], geometry["crop"]["shape"]
        labels = labels[tuple(slice(first, first + side) for first, side in zip(start, shape, strict=True))]
    return labels.transpose(2, 1, 0) if geometry["axes"] == "zyx" else labels


def stored_nifti(labels: NDArray[Any], geometry: Mapping[str, Any]) -> nib.Nifti1Image:
    """Labels of the stored grid as a uint8 NIfTI image on that grid, placed where the scan lies.

    Args:
        labels, geometry: as for `restore`.
    """
    import nibabel as nib

    grid, new = geometry["from"], geometry["to"]
    labels = np.asarray(labels)
    if geometry["axes"] == "zyx":
        labels = labels.transpose(2, 1, 0)
    source = to_nifti(np.zeros(geometry["shape"], np.uint8), geometry["header"])
    turned = source.affine @ nib.orientations.inv_ornt_aff(np.array(geometry["turn"]), source.shape)
    cells = np.diag([*np.divide(new["spacing_mm"], grid["spacing_mm"]), 1.0])
    start = geometry["crop"]["start"] if "crop" in geometry else [0, 0, 0]
    cells[:3, 3] = [_source_indices(grid, new, axis)[start[axis]] for axis in range(3)]
    image = nib.Nifti1Image(labels.astype(np.uint8), turned @ cells)
    image.header.set_xyzt_units("mm")
    return image


def to_nifti(labels: NDArray[np.uint8], header: Mapping[str, Any]) -> nib.Nifti1Image:
    """A label map (X, Y, Z) with the geometry fields of a source file's header."""
    import nibabel as nib

    fields = nib.Nifti1Header()
    fields.set_data_dtype(np.uint8)
    fields.set_data_shape(labels.shape)
    for name in _GEOMETRY_FIELDS:
        fields[name] = header[name]
    fields["pixdim"][:4] = header["pixdim"]
    return nib.Nifti1Image(labels, fields.get_best_affine(), fields)


def resample_linear(image: NDArray[np.float32], grid: Mapping[str, Any], new: Mapping[str, Any]) -> NDArray[np.float32]:
    """Trilinear resampling of (..., X, Y, Z) between two grids (`shape`, `spacing_mm`) with a common centre."""
    # One axis at a time, the strongest reduction first: two gathers and a blend need little memory.
    for axis in sorted(range(3), key=lambda axis: new["shape"][axis] / grid["shape"][axis]):
        size = grid["shape"][axis]
        where = np.clip(_source_indices(grid, new, axis), 0, size - 1)
        low = np.floor(where).astype(np.intp)
        high = np.minimum(low + 1, size - 1)
        weight = (where - low).astype(np.float32).reshape([-1 if other == axis else 1 for other in range(3)])
        near, far = image.take(low, axis - 3), image.take(high, axis - 3)
        far -= near
        far *= weight
        near += far
        image = near
    return image


def resample_nearest(labels: NDArray[Any], grid: Mapping[str, Any], new: Mapping[str, Any]) -> NDArray[Any]:
    """Nearest-neighbour resampling between two grids as in `resample_linear`; ties go to the higher index."""
    return labels[np.ix_(*_label_positions(grid, new, "centre"))]


def _label_positions(grid: Mapping[str, Any], new: Mapping[str, Any], nearest: str) -> list[NDArray[np.intp]]:
    """Per axis, which label of `grid` each cell of `new` takes: the one under its centre, or (`floor`) torch's."""
    if nearest == "floor":
        return [floor_positions(*sizes) for sizes in zip(grid["shape"], new["shape"], strict=True)]
    return [
        np.clip(np.floor(_source_indices(grid, new, axis) + 0.5), 0, grid["shape"][axis] - 1).astype(np.intp)
        for axis in range(3)
    ]


def _way_back(grid: Mapping[str, Any], new: Mapping[str, Any], nearest: str) -> list[NDArray[np.intp]]:
    """Per axis, which stored label each cell of the scan's `grid` takes."""
    if nearest == "centre":
        return _label_positions(new, grid, "centre")
    back = []
    for positions, size in zip(_label_positions(grid, new, nearest), grid["shape"], strict=True):
        # Not torch's `nearest` again, which would move every label twice in the same direction.
        back.append(np.searchsorted((positions[1:] + positions[:-1]) / 2, np.arange(size)))
    return back


def _source_indices(grid: Mapping[str, Any], new: Mapping[str, Any], axis: int) -> NDArray[np.float64]:
    """Where the cells of `new` lie along an axis, in cells of `grid` (cell centres are integers)."""
    size, target = grid["shape"][axis], new["shape"][axis]
    ratio = new["spacing_mm"][axis] / grid["spacing_mm"][axis]
    return (np.arange(target) + 0.5 - target / 2) * ratio + size / 2 - 0.5


def _new_grid(grid: dict[str, Any], prep: Preprocessing) -> tuple[dict[str, Any], str]:
    """The grid to resample to, and which of the two rules labels follow.

    A target spacing covers (about) the same extent, and axes that have it already stay; a number of voxels covers
    exactly the same.
    """
    shape, spacing = list(grid["shape"]), list(grid["spacing_mm"])
    if prep.resize_to is None and prep.resize_by is None:
        for axis, target in enumerate(prep.spacing_mm or ()):
            if abs(spacing[axis] - target) > _SAME_SPACING * target:
                shape[axis] = max(1, int(np.floor(shape[axis] * spacing[axis] / target + 0.5)))
                spacing[axis] = target
        return {"shape": shape, "spacing_mm": spacing}, "centre"
    sizes = prep.resize_to or [max(1, int(side * by)) for side, by in zip(shape, prep.resize_by or (), strict=True)]
    for axis, side in enumerate(sizes):
        spacing[axis] *= shape[axis] / side
        shape[axis] = side
    return {"shape": shape, "spacing_mm": spacing}, "floor"


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


def _turn(affine: NDArray[np.float64], orientation: str | None) -> list[list[int]]:
    """For each axis of the file: the stored axis that it becomes, and whether it is flipped (-1)."""
    from nibabel import orientations

    if orientation is None:
        return [[0, 1], [1, 1], [2, 1]]
    now, wanted = orientations.io_orientation(affine), orientations.axcodes2ornt(tuple(orientation))
    return [[int(axis), int(sign)] for axis, sign in orientations.ornt_transform(now, wanted)]


def _turned(array: NDArray[Any], turn: Sequence[Sequence[int]]) -> NDArray[Any]:
    """A view of an array (..., X, Y, Z) of the file in the stored orientation."""
    channels = array.ndim - 3
    array = np.flip(array, tuple(axis + channels for axis, (_, sign) in enumerate(turn) if sign < 0))
    order = np.argsort([axis for axis, _ in turn])
    return array.transpose(*range(channels), *(int(axis) + channels for axis in order))


def _turned_back(array: NDArray[Any], turn: Sequence[Sequence[int]]) -> NDArray[Any]:
    """The inverse of `_turned`."""
    array = array.transpose([axis for axis, _ in turn])
    return np.flip(array, tuple(axis for axis, (_, sign) in enumerate(turn) if sign < 0))


def read_volume(
    path: Path, dtype: type | None = None, pixel_mm: float = 1.0
) -> tuple[NDArray[Any], NDArray[np.float64], dict[str, Any]]:
    """`read_nifti`, or the same of NRRD, MHA and plain images for files so called.

    Raises:
        DataError: it is missing, damaged, or no volume of numbers.
    """
    suffix = path.suffix.lower()
    if suffix in PLAIN_IMAGES:
        return read_image(path, dtype, pixel_mm)
    return read_nrrd(path, dtype) if suffix in (".nrrd", ".mha") else read_nifti(path, dtype)


def read_nrrd(path: Path, dtype: type | None = None) -> tuple[NDArray[Any], NDArray[np.float64], dict[str, Any]]:
    """Voxels (X, Y, Z), affine and the geometry fields of a NIfTI header that says the same, of an NRRD or MHA file.

    Whatever world axes the file's header uses, ITK gives them as LPS+; the affine is RAS+ as everywhere here.

    Raises:
        DataError: it is missing, damaged, or no volume of numbers.
    """
    import SimpleITK

    image = _read_itk(path, "NRRD" if path.suffix.lower() == ".nrrd" else "MHA")
    voxels = SimpleITK.GetArrayFromImage(image).T
    if voxels.ndim != 3 or voxels.size == 0:
        raise DataError(f"{path}: shape {voxels.shape} is not a volume")
    affine = itk_affine(image)
    return _numbers(path, voxels, dtype), affine, _header(voxels.shape, affine)


def itk_affine(image: Any) -> NDArray[np.float64]:
    """Voxel indices to RAS+ mm of a 3-D image, or of a reader that has read its header."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1  # LPS+ to RAS+
    return affine


def read_image(
    path: Path, dtype: type | None = None, pixel_mm: float = 1.0
) -> tuple[NDArray[Any], NDArray[np.float64], dict[str, Any]]:
    """Voxels (X, Y, 1), or (C, X, Y, 1) of several channels, affine and geometry of a JPEG, PNG, TIFF or BMP file.

    A TIFF of several pages is a volume of as many slices. The affine is that of ITK for an image without a place:
    the first pixel at the origin, x to the left and y to the back; a slice is as thick as a pixel is wide.

    Args:
        path: of the file.
        dtype: of the voxels; that of the file by default.
        pixel_mm: side of a pixel. What the file says is left aside: it is the resolution of a print.

    Raises:
        DataError: it is missing, damaged, or no image of numbers.
    """
    import SimpleITK

    image = _read_itk(path, "an image")
    voxels = SimpleITK.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        voxels = np.moveaxis(voxels, -1, 0)
    if image.GetDimension() == 2:
        voxels = voxels[..., None, :, :]
    voxels = voxels.swapaxes(-1, -3)  # (Z, Y, X) to (X, Y, Z)
    affine = np.diag([-pixel_mm, -pixel_mm, pixel_mm, 1.0])
    return _numbers(path, voxels, dtype), affine, _header(voxels.shape[-3:], affine)


def _read_itk(path: Path, kind: str) -> Any:
    """A file as SimpleITK reads it.

    Raises:
        DataError: it cannot.
    """
    import SimpleITK

    try:
        content = path.read_bytes()  # the system's own words where it cannot be opened; ITK has none
        # The decoder fills up a JPEG that was cut off in grey. Its end marker cannot occur in between.
        if path.suffix.lower() in (".jpg", ".jpeg") and content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
            raise DataError(f"{path}: cannot be read as {kind}, its end is missing")
        return SimpleITK.ReadImage(str(path))
    except MemoryError:
        raise
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()  # ITK wraps; the innermost reason stands last
        raise DataError(f"{path}: cannot be read as {kind}, it is damaged or incomplete: {reason}") from error


def _numbers(path: Path, voxels: NDArray[Any], dtype: type | None) -> NDArray[Any]:
    if voxels.dtype.kind not in "iuf":
        raise DataError(f"{path}: voxels of type {voxels.dtype} are not numbers")
    return voxels.astype(dtype or voxels.dtype, copy=False)


def _header(shape: tuple[int, ...], affine: NDArray[np.float64]) -> dict[str, Any]:
    """The geometry fields of a NIfTI header that places voxels so."""
    import nibabel as nib

    fields = nib.Nifti1Header()
    fields.set_data_shape(shape)
    # Both forms, as ITK writes them: readers differ in which one they prefer.
    fields.set_sform(affine, "scanner")
    fields.set_qform(affine, "scanner")
    fields.set_xyzt_units("mm")
    return _geometry_fields(fields)


def _geometry_fields(fields: nib.Nifti1Header) -> dict[str, Any]:
    return {name: fields[name].tolist() for name in _GEOMETRY_FIELDS} | {"pixdim": fields["pixdim"][:4].tolist()}


def read_nifti(path: Path, dtype: type | None = None) -> tuple[NDArray[Any], NDArray[np.float64], dict[str, Any]]:
    """Voxels (X, Y, Z; scaled as the header says), affine and geometry fields of a NIfTI file.

    A fourth axis holds channels, and comes first: (C, X, Y, Z).

    Raises:
        DataError: it is missing, damaged, or no volume of numbers.
    """
    import nibabel as nib

    # The whole file is unpacked first: the checksum that shows damage in between stands at the end.
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.name.endswith(".gz") else content
        nifti = nib.Nifti1Image.from_bytes(content)
        voxels = np.asanyarray(nifti.dataobj, dtype=dtype)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes readers raise anything
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"{path}: {error.strerror}") from error
        lines = str(error).splitlines() or [type(error).__name__]
        raise DataError(f"{path}: cannot be read as NIfTI, it is damaged or incomplete: {lines[0]}") from error
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim not in (3, 4) or voxels.size == 0:
        raise DataError(f"{path}: shape {voxels.shape} is not a volume")
    if voxels.ndim == 4:
        voxels = np.moveaxis(voxels, -1, 0)
    return _numbers(path, voxels, dtype), np.asarray(nifti.affine, np.float64), _geometry_fields(nifti.header)


def _spacing(path: Path, affine: NDArray[np.float64]) -> tuple[float, ...]:
    """Voxel sizes along the file's axes, checked."""
    spacing = tuple(float(size) for size in np.linalg.norm(affine[:3, :3], axis=0))
    if not all(0 < size <= MAX_SPACING_MM for size in spacing):
        raise DataError(f"{path}: a voxel of {' x '.join(f'{size:g}' for size in spacing)} mm is not plausible")
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 0.1:
        raise DataError(f"{path}: the axes in its header lie almost in a plane")
    return spacing


def _classes(path: Path, values: NDArray[Any], num_classes: int) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
    """Label values as uint8, and the voxels of each class."""
    # Comparisons with NaN are false, so it is among the wrong values.
    right = (values >= 0) & (values < num_classes)
    if values.dtype.kind == "f":
        right &= values == np.rint(values)
    if not right.all():
        wrong = np.unique(values[~right])
        named = ", ".join(f"{value:g}" for value in wrong[:5]) + (", ..." if len(wrong) > 5 else "")
        raise DataError(f"{path}: label values {named} are not among the classes 0 to {num_classes - 1}")
    label = values.astype(np.uint8)
    # Slice by slice: bincount makes 8-byte copies.
    counts = sum(np.bincount(label[..., z].ravel(), minlength=num_classes) for z in range(label.shape[2]))
    return label, tuple(int(count) for count in np.asarray(counts))
