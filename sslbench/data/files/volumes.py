"""Volumes and images from files with headers, in NIfTI's frame; nothing unreadable gets through."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sslbench.core.errors import DataError

if TYPE_CHECKING:
    import nibabel as nib


MAX_SPACING_MM = 50.0

_AFFINE_TOLERANCE = 1e-3  # of the spacing

PLAIN_IMAGES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")

# What a NIfTI header says about geometry; kept as it is, so that a restored label map has the very same.
_GEOMETRY_FIELDS = (
    *("qform_code", "sform_code", "xyzt_units", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)


def same_place(path: Path, affine: NDArray[np.float64], other: NDArray[np.float64], whose: str = "image") -> None:
    """Tell whether a file's voxels lie where those of the image do.

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
    return _numbers(path, voxels, dtype), affine, header_of(voxels.shape, affine)


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
    return _numbers(path, voxels, dtype), affine, header_of(voxels.shape[-3:], affine)


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


def header_of(shape: tuple[int, ...], affine: NDArray[np.float64]) -> dict[str, Any]:
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


def spacing_of(path: Path, affine: NDArray[np.float64]) -> tuple[float, ...]:
    """Voxel sizes along the file's axes, checked."""
    spacing = tuple(float(size) for size in np.linalg.norm(affine[:3, :3], axis=0))
    if not all(0 < size <= MAX_SPACING_MM for size in spacing):
        raise DataError(f"{path}: a voxel of {' x '.join(f'{size:g}' for size in spacing)} mm is not plausible")
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 0.1:
        raise DataError(f"{path}: the axes in its header lie almost in a plane")
    return spacing
