"""Arrays without headers, as they circulate in the field: HDF5 files with `image` and `label`, and NumPy files."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sslbench.core.errors import DataError
from sslbench.data.base import Form, RawCase, index_files, paired
from sslbench.data.files.damage import refused

_RESIZED = (80, 160, 160)  # z, y, x: what DHC and its descendants resize every scan to
DHC_NPY = Form(
    "dhc-npy",
    "DHC's resized arrays (<id>_image.npy of 80 x 160 x 160)",
    preprocessings=("dhc-2023",),
    done=("resize",),
    axes="zyx",
    shape=(160, 160, 80),
)


def read_array(raw: RawCase, kind: Literal["image", "label"]) -> NDArray[Any]:
    """The image or the label of a case whose files have no headers: (X, Y, Z), any dtype of numbers.

    Raises:
        DataError: a file that is missing, damaged, or holds no such array; slices of different sizes; a volume of
            another shape than its form has.
    """
    if raw.slices:
        voxels = _stacked(raw.slices, kind)
    else:
        path = getattr(raw, kind)
        voxels = _read(path, kind)
        if voxels.ndim != 3 or voxels.size == 0:
            raise DataError(f"{path}: {kind} of shape {voxels.shape} is not a volume")
    voxels = voxels.T if raw.form.axes == "zyx" else voxels
    if raw.form.shape is not None and voxels.shape != raw.form.shape:
        found, expected = ("x".join(map(str, shape)) for shape in (voxels.shape, raw.form.shape))
        raise DataError(f"{getattr(raw, kind)}: {found} voxels (x, y, z), not {expected} as in {raw.form.title}")
    return voxels


def npy_cases(form: Form, source: Path, pattern: str) -> list[RawCase]:
    """The cases of NumPy files under a folder, sorted by id; of a form with a shape those that have it, else the rest.

    A pair whose shape cannot be read counts among those of the form with a shape, where it will fail by its name.

    Args:
        form: with or without `shape`.
        source: the folder.
        pattern: of the file names, with two groups: the id, and `image` or `label`.
    """
    files = index_files(source, pattern)
    cases = []
    for id in sorted({id for id, _ in files}):
        image, label = paired(
            files.get((id, "image")),
            files.get((id, "label")),
            lambda image: image.with_name(image.name.replace("_image", "_label")),
            lambda label: label.with_name(label.name.replace("_label", "_image")),
        )
        shape = array_shape(image) or array_shape(label)
        if (shape is None or shape == _RESIZED) == (form.shape is not None):
            cases.append(RawCase(id, id, image, label, form))
    return cases


def array_shape(path: Path) -> tuple[int, ...] | None:
    """The shape that a NumPy file's header states; None where it cannot be read."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        return tuple(found.shape) if isinstance(found, np.ndarray) else None  # several arrays, whatever the name says
    except (OSError, ValueError, EOFError):
        return None


def _stacked(paths: tuple[Path, ...], kind: str) -> NDArray[Any]:
    """Slices (H, W), one per file, as (Z, H, W)."""
    slices = [_read(path, kind) for path in paths]
    for path, content in zip(paths, slices, strict=True):
        if content.ndim != 2 or content.size == 0:
            raise DataError(f"{path}: {kind} of shape {content.shape} is not a slice")
        if content.shape != slices[0].shape:
            raise DataError(f"{path}: {kind} of shape {content.shape}, but {slices[0].shape} in {paths[0].name}")
    return np.stack(slices)


def has_label(raw: RawCase) -> bool:
    """Tell whether a case has a label: a file of its own, or beside the image an array of that name.

    What cannot be opened counts: reading it says why.
    """
    if raw.label is None:
        return False
    if raw.label != raw.image or raw.image.suffix != ".h5":
        return True
    return any(_holds_label(path) for path in raw.slices or (raw.image,))


def _holds_label(path: Path) -> bool:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return "label" in file or "image" not in file
    except OSError:
        return True


def _read(path: Path, kind: str) -> NDArray[Any]:
    """One array of a file; that of a `.npy` file has no name."""
    array = _read_npy(path) if path.suffix == ".npy" else _read_h5(path, kind)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{path}: {kind} of type {array.dtype} is not numbers")
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def _read_npy(path: Path) -> NDArray[Any]:
    try:
        with path.open("rb") as file:
            start, size = file.read(6), os.fstat(file.fileno()).st_size
            if start != b"\x93NUMPY":
                zipped = start.startswith(b"PK")
                evidence = "" if zipped else "it does not begin as NumPy's files do" if start else "it is empty"
                raise refused(path, "", evidence, "it holds several arrays (npz), not one")
            file.seek(0)
            shape, _, dtype = _NPY_HEADERS[np.lib.format.read_magic(file)](file)
            needed = file.tell() + math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise refused(path, "", "", "it holds Python objects, not numbers")
        if size < needed:
            raise refused(path, "", f"it holds {size} of {needed} bytes", "")
        return np.asarray(np.load(path, allow_pickle=False))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except (ValueError, SyntaxError, TypeError, EOFError, KeyError) as error:
        raise refused(path, "", f"its header is wrong: {_first_line(error)}", "") from error


_NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


# What HDF5 says of files that are damaged; whatever else it refuses is whole.
_HDF5_DAMAGE = re.compile(
    r"truncated|signature not found|checksum|corrupt|bad |unable to (read|load|decode)|inflate|wrong .*version", re.I
)


def _read_h5(path: Path, kind: str) -> NDArray[Any]:
    import h5py

    try:
        with path.open("rb"):
            pass  # the system's own words where it cannot be opened; HDF5 has none
        with h5py.File(path, "r") as file:
            if not isinstance(file.get(kind), h5py.Dataset):
                raise DataError(f"{path}: no array '{kind}' in it, only {', '.join(sorted(file)) or 'nothing'}")
            return np.asarray(file[kind][()])
    except MemoryError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        if isinstance(error, OSError) and error.errno and error.strerror and error.filename is not None:
            raise DataError(f"{path}: {error.strerror}") from error
        said = str(error)
        if number := re.search(r"errno = (\d+)", said):
            raise DataError(f"{path}: {os.strerror(int(number[1]))}") from error
        plugin = re.search(r"required filter '?([\w ]+)'?", said)
        if plugin:
            raise refused(path, "", "", f"it is packed with {plugin[1]}, which is not installed") from error
        evidence = _first_line(error) if _HDF5_DAMAGE.search(said) else ""
        raise refused(path, "", evidence, _first_line(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
