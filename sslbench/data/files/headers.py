"""What headers say beside the numbers: units of space, scale factors, codes of axes. Readers differ in which of it they
heed, so it is heeded here: converted to millimetres and values, or refused by its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sslbench.core.errors import DataError

if TYPE_CHECKING:
    import nibabel as nib

_MM = {"m": 1e3, "meter": 1e3, "metre": 1e3, "cm": 10.0, "mm": 1.0, "um": 1e-3, "µm": 1e-3, "μm": 1e-3}
_MM |= {"millimeter": 1.0, "millimetre": 1.0, "micron": 1e-3, "micrometer": 1e-3, "micrometre": 1e-3, "nm": 1e-6}
_UNSAID = ("", "???", "none", "?")
_NIFTI_MM = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}  # unknown, metre, millimetre, micron
_TWO_SIZES = 0.01  # relative; where a header says two sizes of a voxel, more than this is no rounding
HEADER_BYTES = 1 << 16  # of an NRRD or MHA file: far more than any has


def nifti_mm(header: nib.Nifti1Header | Mapping[str, Any], path: Path) -> float:
    """Millimetres in a NIfTI header's unit of space (`xyzt_units`); a unit that is not said counts as millimetres.

    Raises:
        DataError: a code that means nothing.
    """
    code = int(header["xyzt_units"]) & 7
    if code not in _NIFTI_MM:
        raise DataError(f"{path}: the unit of space in its header has the code {code} (xyzt_units), which means none")
    return _NIFTI_MM[code]


def in_mm(affine: NDArray[np.float64], mm: float) -> NDArray[np.float64]:
    """An affine whose world has another unit, in millimetres."""
    return affine if mm == 1 else np.diag([mm, mm, mm, 1.0]) @ affine


def check_sizes(path: Path, affine: NDArray[np.float64], pixdim: NDArray[np.float64]) -> None:
    """Refuse a NIfTI header whose affine and `pixdim` (both in mm) give a voxel two sizes: readers take either.

    Raises:
        DataError: they do.
    """
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.allclose(sizes, np.abs(pixdim), rtol=_TWO_SIZES, atol=0):
        said = [" x ".join(f"{side:g}" for side in found) for found in (sizes, np.abs(pixdim))]
        raise DataError(
            f"{path}: its header says two sizes of a voxel: {said[0]} mm by its affine, {said[1]} mm by pixdim",
            "write the file anew with the right one",
        )


def header_text(content: bytes) -> dict[str, str]:
    """The fields of an NRRD or MHA file's header by name, in small letters; empty where it has none."""
    head = content[:HEADER_BYTES]
    if head.startswith(b"NRRD"):
        lines = re.split(rb"\r?\n\r?\n", head, maxsplit=1)[0].decode("utf-8", "replace").splitlines()[1:]
        pairs = [re.split(r":=|: ?", line, maxsplit=1) for line in lines if not line.startswith("#")]
    else:
        lines = re.split(rb"(?<=\n)ElementDataFile", head, maxsplit=1)[0].decode("utf-8", "replace").splitlines()
        pairs = [line.split("=", 1) for line in lines]
    return {pair[0].strip().lower(): pair[1].strip() for pair in pairs if len(pair) == 2}


def itk_mm(path: Path, fields: dict[str, str]) -> float:
    """Millimetres in the unit of space of an NRRD (`space units`, `units`) or MHA header (`DistanceUnits`).

    Raises:
        DataError: a unit that is not known, or several; axes that the header names and the reader passes over.
    """
    said = fields.get("space units") or fields.get("units") or fields.get("distanceunits") or ""
    units = {unit.strip().lower() for unit in (re.findall(r'"([^"]*)"', said) or said.split())} - {*_UNSAID}
    if len(units) > 1 or not units <= {*_MM}:
        raise DataError(
            f"{path}: the unit of space in its header is {said}, which is not known here",
            "known: m, cm, mm, um, nm; the same for all axes",
        )
    code = fields.get("anatomicalorientation", "RAI").upper()
    if "transformmatrix" not in fields and code not in ("RAI", *_UNSAID):
        raise DataError(
            f"{path}: its axes are given as {code} (AnatomicalOrientation) without a TransformMatrix, which is not"
            " supported",
            "write the file anew with ITK or 3D Slicer",
        )
    return _MM[units.pop()] if units else 1.0


def itk_scale(path: Path, fields: dict[str, str]) -> tuple[float, float]:
    """Slope and intercept of an MHA header's values; (1, 0) where it has none.

    Raises:
        DataError: an NRRD header whose values were quantised, or a scale that is no number.
    """
    quantised = [fields[name] for name in ("old min", "old max", "oldmin", "oldmax") if name in fields]
    if any(value.lower() != "nan" for value in quantised):
        raise DataError(
            f"{path}: its header says that its values were quantised (old min, old max {', '.join(quantised)}),"
            " which is not undone here",
            "write the values themselves",
        )
    try:
        slope = float(fields.get("elementtointensityfunctionslope", 1))
        offset = float(fields.get("elementtointensityfunctionoffset", 0))
    except ValueError:
        slope = float("nan")
    if not np.isfinite([slope, offset]).all() or slope == 0:
        raise DataError(f"{path}: the scale of its values (ElementToIntensityFunctionSlope) is no number")
    return slope, offset


def value_step(path: Path) -> float:
    """The distance of neighbouring values that a NIfTI file can hold, by its scale factor; 0 where it has none."""
    if not path.name.endswith((".nii", ".nii.gz")):
        return 0.0
    import nibabel as nib

    image: Any = nib.load(path)
    slope = abs(float(getattr(image.dataobj, "slope", 1)))
    whole = np.dtype(image.get_data_dtype()).kind in "iu"
    return slope if whole and slope != 1 else 0.0
