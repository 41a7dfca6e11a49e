"""Volumes and images from files with headers, in NIfTI's frame; nothing unreadable gets through."""

from __future__ import annotations

import contextlib
import gzip
import math
import re
import struct
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from sslbench.core.errors import DataError
from sslbench.data.files.damage import of_picture, quiet, read_bytes, refused, true_ending
from sslbench.data.files.headers import header_text, in_mm, itk_mm, itk_scale, nifti_mm
from sslbench.data.files.pictures import rewritten

if TYPE_CHECKING:
    import nibabel as nib


MAX_SPACING_MM = 50.0
AFFINE_TOLERANCE = 1e-3  # of the spacing

SLICER = ".seg.nrrd"  # the ending of 3D Slicer's segmentations
PaletteUse = Literal["never", "coloured", "always"]  # which palettes of a picture are read as their indices
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
    if not np.abs(affine - other).max() <= AFFINE_TOLERANCE * np.linalg.norm(other[:3, :3], axis=0).min():
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
    path: Path, dtype: type | None = None, pixel_mm: float = 1.0, indices: PaletteUse = "never"
) -> tuple[NDArray[Any], NDArray[np.float64], dict[str, Any]]:
    """`read_nifti`, or the same of NRRD, MHA and plain images for files so called.

    Raises:
        DataError: it is missing, damaged, or no volume of numbers.
    """
    suffix = path.suffix.lower()
    if suffix in PLAIN_IMAGES:
        return read_image(path, dtype, pixel_mm, indices)
    return read_nrrd(path, dtype) if suffix in (".nrrd", ".mha") else read_nifti(path, dtype)


def read_nrrd(path: Path, dtype: type | None = None) -> tuple[NDArray[Any], NDArray[np.float64], dict[str, Any]]:
    """Voxels (X, Y, Z), affine and the geometry fields of a NIfTI header that says the same, of an NRRD or MHA file.

    Whatever world axes the file's header uses, ITK gives them as LPS+; the affine is RAS+ as everywhere here.

    Raises:
        DataError: it is missing, damaged, or no volume of numbers.
    """
    import SimpleITK

    content = read_bytes(path)
    image = _read_itk(path, content, "NRRD" if path.suffix.lower() == ".nrrd" else "MHA")
    fields = header_text(content)
    mm, (slope, offset) = itk_mm(path, fields), itk_scale(path, fields)
    voxels = SimpleITK.GetArrayFromImage(image).T
    if path.name.lower().endswith(SLICER) and voxels.ndim == 4:
        raise DataError(
            f"{path}: its {voxels.shape[0]} layers hold segments that overlap, and a voxel has one class here",
            "export it from 3D Slicer as one label map",
        )
    if voxels.ndim != 3 or voxels.size == 0:
        raise DataError(f"{path}: shape {voxels.shape} is not a volume")
    affine = in_mm(itk_affine(image), mm)
    voxels = _numbers(path, voxels, dtype)
    if (slope, offset) != (1, 0):
        voxels = _numbers(path, voxels.astype(np.float64) * slope + offset, dtype)
    return voxels, affine, header_of(voxels.shape, affine)


def itk_affine(image: Any) -> NDArray[np.float64]:
    """Voxel indices to RAS+ mm of a 3-D image, or of a reader that has read its header."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1  # LPS+ to RAS+
    return affine


def read_image(
    path: Path, dtype: type | None = None, pixel_mm: float = 1.0, indices: PaletteUse = "never"
) -> tuple[NDArray[Any], NDArray[np.float64], dict[str, Any]]:
    """Voxels (X, Y, 1), or (C, X, Y, 1) of several channels, affine and geometry of a JPEG, PNG, TIFF or BMP file.

    A TIFF of several pages is a volume of as many slices. The affine is that of ITK for an image without a place:
    the first pixel at the origin, x to the left and y to the back; a slice is as thick as a pixel is wide.

    Args:
        path: of the file.
        dtype: of the voxels; that of the file by default.
        pixel_mm: side of a pixel. What the file says is left aside: it is the resolution of a print.
        indices: whether a picture with a palette, as annotation tools write masks, holds its indices or its colours.

    Raises:
        DataError: it is missing, damaged, or no image of numbers.
    """
    import SimpleITK

    content = read_bytes(path)
    made = None
    if not of_picture(content, path.suffix.lower()):
        # Of a file of a kind that was not foreseen the reader says what is wrong with it.
        with contextlib.suppress(KeyError, IndexError, ValueError, struct.error):
            try:
                made = rewritten(content, indices != "never", indices == "always")
            except DataError as error:
                raise DataError(f"{path}: {error.message}") from error
    ending = true_ending(content, path.suffix.lower())
    if made is None and ending != path.suffix.lower():
        made = content, lambda voxels: voxels
    if made is None:
        image, undo = _read_itk(path, content, "an image"), None
    else:
        with tempfile.NamedTemporaryFile(suffix=ending) as aside:
            aside.write(made[0])
            aside.flush()
            image, undo = _read_itk(path, content, "an image", Path(aside.name)), made[1]
    voxels = SimpleITK.GetArrayFromImage(image)
    if undo is not None:
        voxels = undo(voxels)
    components = image.GetNumberOfComponentsPerPixel()
    if components == 2 or (components > 1 and voxels.ndim == image.GetDimension() + 1):
        # Grey with opacity, where the format keeps both: the opacity is dropped.
        voxels = voxels[..., 0] if components == 2 else np.moveaxis(voxels, -1, 0)
    if image.GetDimension() == 2:
        voxels = voxels[..., None, :, :]
    voxels = voxels.swapaxes(-1, -3)  # (Z, Y, X) to (X, Y, Z)
    affine = np.diag([-pixel_mm, -pixel_mm, pixel_mm, 1.0])
    return _numbers(path, voxels, dtype), affine, header_of(voxels.shape[-3:], affine)


def _read_itk(path: Path, content: bytes, kind: str, place: Path | None = None) -> Any:
    """A file as SimpleITK reads it.

    Args:
        path: what the error names.
        content: of it.
        kind: of file, in words.
        place: where to read; the path itself by default.

    Raises:
        DataError: it cannot.
    """
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # what matters is an error, and said by us
    evidence = of_picture(content, path.suffix.lower())
    if evidence and "end" in evidence:
        raise refused(path, kind, evidence, "")  # some decoders fill up what is missing
    said: list[str] = []
    try:
        with quiet() as said:
            image = SimpleITK.ReadImage(str(place or path))
    except MemoryError:
        raise
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        reason = lines[-1].strip() if lines else ""  # ITK wraps; the innermost reason stands last
        raise refused(path, kind, evidence or _of_jpeg(path, said), reason.removeprefix("sitk::ERROR: ")) from error
    if lost := _of_jpeg(path, [line for line in said if _JPEG_DAMAGE.search(line)]):
        raise refused(path, kind, lost, "")
    return image


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

    A fourth axis holds channels, and comes first: (C, X, Y, Z). The affine is in mm, whatever unit the header has; its
    geometry fields are as the file has them.

    Raises:
        DataError: it is missing, damaged, or no volume of numbers.
    """
    nifti = open_nifti(path)
    try:
        voxels = np.asanyarray(nifti.dataobj, dtype=dtype)
    except MemoryError:
        raise
    except Exception as error:
        raise refused(path, "NIfTI", "", str(error) or type(error).__name__) from error
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim not in (3, 4) or voxels.size == 0:
        raise DataError(f"{path}: shape {voxels.shape} is not a volume")
    if voxels.ndim == 4:
        voxels = np.moveaxis(voxels, -1, 0)
    affine = in_mm(np.asarray(nifti.affine, np.float64), nifti_mm(nifti.header, path))
    return _numbers(path, voxels, dtype), affine, _geometry_fields(nifti.header)


def spacing_of(path: Path, affine: NDArray[np.float64]) -> tuple[float, ...]:
    """Voxel sizes along the file's axes, checked."""
    spacing = tuple(float(size) for size in np.linalg.norm(affine[:3, :3], axis=0))
    if not all(0 < size <= MAX_SPACING_MM for size in spacing):
        raise DataError(f"{path}: a voxel of {' x '.join(f'{size:g}' for size in spacing)} mm is not plausible")
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 0.1:
        raise DataError(f"{path}: the axes in its header lie almost in a plane")
    return spacing


_JPEG_DAMAGE = re.compile(r"premature end|bad huffman|corrupt(?!.*extraneous)", re.IGNORECASE)


def _of_jpeg(path: Path, said: Sequence[str]) -> str:
    """What the JPEG library said of a file: it goes on where data are lost."""
    return said[0].strip() if said and path.suffix.lower() in (".jpg", ".jpeg") else ""


def open_nifti_header(path: Path) -> Any:
    """A NIfTI file as nibabel has it, without its voxels where that is possible.

    Raises:
        DataError: as for `open_nifti`.
    """
    import nibabel as nib

    try:
        with nib.imageglobals.LoggingOutputSuppressor():
            return nib.load(path)
    except OSError as error:
        if error.errno and error.strerror:
            raise DataError(f"{path}: {error.strerror}") from error
        return open_nifti(path)
    except Exception:  # nibabel's own kinds differ between versions; reading all of it says which
        return open_nifti(path)


def open_nifti(path: Path) -> Any:
    """A NIfTI file (version 1 or 2, gzipped or not, whatever it is called) as nibabel has it, its content in memory.

    Raises:
        DataError: it is missing, damaged, or no NIfTI file of numbers.
    """
    import nibabel as nib

    content = read_bytes(path)
    if content.startswith(b"\x1f\x8b"):
        # All of it is unpacked first: the checksum that shows damage in between stands at the end.
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise refused(path, "NIfTI", str(error).splitlines()[0], "") from error
    sizes = {int.from_bytes(content[:4], order) for order in ("little", "big")}
    kind = nib.Nifti2Image if 540 in sizes else nib.Nifti1Image if 348 in sizes else None
    if kind is None or len(content) < 348:
        raise refused(
            path, "NIfTI", "it does not begin as NIfTI does" if len(content) >= 348 else "it is too short", ""
        )
    try:
        with nib.imageglobals.LoggingOutputSuppressor():
            nifti: Any = kind.from_bytes(content)
        needed = nifti.dataobj.offset + math.prod(nifti.shape) * nifti.get_data_dtype().itemsize
    except Exception as error:  # a header that nobody foresaw makes nibabel raise anything
        raise refused(path, "NIfTI", "", str(error) or type(error).__name__) from error
    if needed > len(content):
        raise refused(path, "NIfTI", f"it holds {len(content)} of {needed} bytes", "")
    if nifti.get_data_dtype().kind not in "iuf":
        raise DataError(f"{path}: voxels of type {nifti.get_data_dtype()} are not numbers")
    return nifti
