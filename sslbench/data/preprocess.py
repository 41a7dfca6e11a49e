"""From an official scan to the array that networks see, and from a prediction back to the scan's geometry.

Arrays are in the axis order of the NIfTI file (x, y, z) until the last step stores them. Turning to an
orientation swaps and flips axes only, so it is lossless. Resampling keeps the volume's centre in place and
gives voxels exactly the target spacing (voxels are cells, as in ITK and in torch with `align_corners=False`):
`n' = round(n s/s')`, and output cell `i` lies at input index `(i + 1/2 - n'/2) s'/s + n/2 - 1/2`, held at the
outermost cell where that is outside (by half an output cell at most). Nothing is smoothed beforehand. A crop
comes last; on the way back everything outside of it is background.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sslbench.data.base import Dataset, LabelCrop, Preprocessing, RawCase
from sslbench.errors import DataError

if TYPE_CHECKING:
    import nibabel as nib

MAX_SPACING_MM = 50.0
_AFFINE_TOLERANCE = 1e-3  # of the spacing
_SAME_SPACING = 1e-4  # relative; below this an axis is not resampled

# What a NIfTI header says about geometry; kept as it is, so that a restored label map has the very same.
_GEOMETRY_FIELDS = (
    *("qform_code", "sform_code", "xyzt_units", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)


@dataclass(frozen=True)
class LoadedCase:
    """A scan and its reference as stored in their files, checked.

    Attributes:
        image: float32 (X, Y, Z).
        label: uint8 (X, Y, Z).
        affine: float64 (4, 4), of the image: voxel indices to RAS+ mm.
        spacing_mm: per axis.
        header: the geometry fields of the image's header (of NRRD: of the NIfTI header that places voxels
            there), as JSON takes them.
        class_voxels: voxels of each class in the reference, background first.
    """

    id: str
    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]
    spacing_mm: tuple[float, ...]
    header: dict[str, Any]
    class_voxels: tuple[int, ...]


@dataclass(frozen=True)
class Preprocessed:
    """A case as it is stored.

    Attributes:
        image: float32 or float16, in the stored axes, contiguous.
        label: uint8, the same shape.
        spacing_mm: per stored axis.
        geometry: what `restore` needs, as JSON takes it: `header` and `shape` of the file; `turn`, the stored
            orientation's axis and sign for each axis of the file; `from` and `to`, the turned grid before and
            after resampling (the same where nothing was resampled); `crop`, only where it was cropped, the
            `start` and `shape` of the stored part of the grid `to`; `axes` of the stored array.
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
            that are no class, or without foreground; an implausible spacing. The message names the file.
    """
    image, affine, header = read_volume(raw.image, np.float32)
    if not np.isfinite(image).all():
        raise DataError(f"{raw.image}: {int((~np.isfinite(image)).sum())} voxels are NaN or infinite")
    if image.min() == image.max():
        raise DataError(f"{raw.image}: every voxel is {image.flat[0]:g}")
    spacing = _spacing(raw.image, affine)

    values, label_affine, _ = read_volume(raw.label)
    if values.shape != image.shape:
        raise DataError(f"{raw.label}: shape {values.shape} differs from the image's {image.shape}")
    # Written so that a NaN in the label's header counts as a difference.
    if not np.abs(label_affine - affine).max() <= _AFFINE_TOLERANCE * min(spacing):
        row, column = np.unravel_index(np.abs(label_affine - affine).argmax(), (4, 4))
        what = "origin" if column == 3 else "axes"
        raise DataError(
            f"{raw.label}: its {what} differ from the image's"
            f" (affine [{row},{column}]: {label_affine[row, column]:g}, not {affine[row, column]:g})"
        )
    label, class_voxels = _classes(raw.label, dataset.class_ids(values), dataset.num_classes())
    return LoadedCase(raw.id, image, label, affine, spacing, header, class_voxels)


def preprocess(loaded: LoadedCase, prep: Preprocessing) -> Preprocessed:
    """Turn, resample, clip, scale, crop and reorder a case as `prep` says.

    Raises:
        DataError: nothing to crop around is left after resampling.
    """
    turn = _turn(loaded.affine, prep.orientation)
    image, label = _turned(loaded.image, turn), _turned(loaded.label, turn)
    spacing = tuple(loaded.spacing_mm[axis] for axis in np.argsort([axis for axis, _ in turn]))
    grid = {"shape": list(image.shape), "spacing_mm": list(spacing)}
    new = _resampled_grid(grid, prep.spacing_mm)
    if new != grid:
        image, label = resample_linear(image, grid, new), resample_nearest(label, grid, new)
    image = _scaled(image, prep)
    crop = {}
    if prep.crop is not None:
        box = label_box(label, loaded.id, prep.crop)
        image, label = image[box], label[box]
        crop = {"crop": {"start": [part.start for part in box], "shape": list(label.shape)}}
    image = image.astype(prep.dtype, copy=False)
    order = (2, 1, 0) if prep.axes == "zyx" else (0, 1, 2)
    return Preprocessed(
        image=np.ascontiguousarray(image.transpose(order)),
        label=np.ascontiguousarray(label.transpose(order)),
        spacing_mm=tuple(new["spacing_mm"][axis] for axis in order),
        geometry={
            "header": loaded.header,
            "shape": list(loaded.image.shape),
            "turn": turn,
            "from": grid,
            "to": new,
            "axes": prep.axes,
            **crop,
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

    Exact where nothing was resampled, nearest neighbour otherwise; background outside a crop.

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
        labels = resample_nearest(labels, new, grid)
    return to_nifti(_turned_back(labels, geometry["turn"]).astype(np.uint8), geometry["header"])


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
    """Trilinear resampling of (X, Y, Z) between two grids (`shape`, `spacing_mm`) with a common centre."""
    # One axis at a time, the strongest reduction first: two gathers and a blend need little memory.
    for axis in sorted(range(3), key=lambda axis: new["shape"][axis] / grid["shape"][axis]):
        where = np.clip(_source_indices(grid, new, axis), 0, image.shape[axis] - 1)
        low = np.floor(where).astype(np.intp)
        high = np.minimum(low + 1, image.shape[axis] - 1)
        weight = (where - low).astype(np.float32).reshape([-1 if other == axis else 1 for other in range(3)])
        near, far = image.take(low, axis), image.take(high, axis)
        far -= near
        far *= weight
        near += far
        image = near
    return image


def resample_nearest(labels: NDArray[Any], grid: Mapping[str, Any], new: Mapping[str, Any]) -> NDArray[Any]:
    """Nearest-neighbour resampling between two grids as in `resample_linear`; ties go to the higher index."""
    indices = [
        np.clip(np.floor(_source_indices(grid, new, axis) + 0.5), 0, grid["shape"][axis] - 1).astype(np.intp)
        for axis in range(3)
    ]
    return labels[np.ix_(*indices)]


def _source_indices(grid: Mapping[str, Any], new: Mapping[str, Any], axis: int) -> NDArray[np.float64]:
    """Where the cells of `new` lie along an axis, in cells of `grid` (cell centres are integers)."""
    size, target = grid["shape"][axis], new["shape"][axis]
    ratio = new["spacing_mm"][axis] / grid["spacing_mm"][axis]
    return (np.arange(target) + 0.5 - target / 2) * ratio + size / 2 - 0.5


def _resampled_grid(grid: dict[str, Any], spacing_mm: Sequence[float] | None) -> dict[str, Any]:
    """The grid of the target spacing over (about) the same extent; axes that have it already stay."""
    shape, spacing = list(grid["shape"]), list(grid["spacing_mm"])
    for axis, target in enumerate(spacing_mm or ()):
        if abs(spacing[axis] - target) > _SAME_SPACING * target:
            shape[axis] = max(1, int(np.floor(shape[axis] * spacing[axis] / target + 0.5)))
            spacing[axis] = target
    return {"shape": shape, "spacing_mm": spacing}


def _scaled(image: NDArray[np.float32], prep: Preprocessing) -> NDArray[np.float32]:
    """Clip and scale; a volume without any contrast becomes 0, never NaN."""
    if prep.clip is not None:
        image = np.clip(image, *prep.clip)
    if prep.scale == "clip":
        if prep.clip is None:
            raise ValueError("a preprocessing with scale='clip' has to have a clip range")
        shift, width = prep.clip[0], prep.clip[1] - prep.clip[0]
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
    """A view of an array of the file in the stored orientation."""
    array = np.flip(array, tuple(axis for axis, (_, sign) in enumerate(turn) if sign < 0))
    return array.transpose(np.argsort([axis for axis, _ in turn]))


def _turned_back(array: NDArray[Any], turn: Sequence[Sequence[int]]) -> NDArray[Any]:
    """The inverse of `_turned`."""
    array = array.transpose([axis for axis, _ in turn])
    return np.flip(array, tuple(axis for axis, (_, sign) in enumerate(turn) if sign < 0))


def read_volume(path: Path, dtype: type | None = None) -> tuple[NDArray[Any], NDArray[np.float64], dict[str, Any]]:
    """`read_nifti`, or for a file called `.nrrd` the same of NRRD.

    Raises:
        DataError: it is missing, damaged, or no volume of numbers.
    """
    return read_nrrd(path, dtype) if path.suffix == ".nrrd" else read_nifti(path, dtype)


def read_nrrd(path: Path, dtype: type | None = None) -> tuple[NDArray[Any], NDArray[np.float64], dict[str, Any]]:
    """Voxels (X, Y, Z), affine and the geometry fields of a NIfTI header that says the same, of an NRRD file.

    Whatever world axes the file's header uses, ITK gives them as LPS+; the affine is RAS+ as everywhere here.

    Raises:
        DataError: it is missing, damaged, or no volume of numbers.
    """
    import nibabel as nib
    import SimpleITK

    try:
        with path.open("rb"):
            pass  # the system's own words where it cannot be opened; ITK has none
        image = SimpleITK.ReadImage(str(path))
        voxels = SimpleITK.GetArrayFromImage(image).T
    except MemoryError:
        raise
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()  # ITK wraps; the innermost reason stands last
        raise DataError(f"{path}: cannot be read as NRRD, it is damaged or incomplete: {reason}") from error
    if voxels.ndim != 3 or voxels.size == 0:
        raise DataError(f"{path}: shape {voxels.shape} is not a volume")
    if voxels.dtype.kind not in "iuf":
        raise DataError(f"{path}: voxels of type {voxels.dtype} are not numbers")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1  # LPS+ to RAS+
    fields = nib.Nifti1Header()
    fields.set_data_shape(voxels.shape)
    # Both forms, as ITK writes them: readers differ in which one they prefer.
    fields.set_sform(affine, "scanner")
    fields.set_qform(affine, "scanner")
    fields.set_xyzt_units("mm")
    return voxels.astype(dtype or voxels.dtype, copy=False), affine, _geometry_fields(fields)


def _geometry_fields(fields: nib.Nifti1Header) -> dict[str, Any]:
    return {name: fields[name].tolist() for name in _GEOMETRY_FIELDS} | {"pixdim": fields["pixdim"][:4].tolist()}


def read_nifti(path: Path, dtype: type | None = None) -> tuple[NDArray[Any], NDArray[np.float64], dict[str, Any]]:
    """Voxels (X, Y, Z; scaled as the header says), affine and geometry fields of a NIfTI file.

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
    if voxels.ndim != 3 or voxels.size == 0:
        raise DataError(f"{path}: shape {voxels.shape} is not a volume")
    if voxels.dtype.kind not in "iuf":
        raise DataError(f"{path}: voxels of type {voxels.dtype} are not numbers")
    return voxels, np.asarray(nifti.affine, np.float64), _geometry_fields(nifti.header)


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
    class_voxels = tuple(int(count) for count in np.asarray(counts))
    if not any(class_voxels[1:]):
        raise DataError(f"{path}: the reference is empty, no class but the background is in it")
    return label, class_voxels
