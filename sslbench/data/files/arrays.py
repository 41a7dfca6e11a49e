"""Arrays without headers, as they circulate in the field: HDF5 files with `image` and `label`, and NumPy files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sslbench.core.errors import DataError
from sslbench.data.base import Form, RawCase, index_files, paired

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
        return tuple(np.load(path, mmap_mode="r", allow_pickle=False).shape)
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


def _read(path: Path, kind: str) -> NDArray[Any]:
    """One array of a file; that of a `.npy` file has no name."""
    try:
        array = np.load(path, allow_pickle=False) if path.suffix == ".npy" else _read_h5(path, kind)
    except MemoryError:
        raise
    except OSError as error:
        if error.strerror:
            raise DataError(f"{path}: {error.strerror}") from error
        raise DataError(f"{path}: cannot be read, it is damaged or incomplete: {_first_line(error)}") from error
    except (ValueError, EOFError, RuntimeError) as error:
        raise DataError(f"{path}: cannot be read, it is damaged or incomplete: {_first_line(error)}") from error
    if array.dtype.kind not in "biuf":
        raise DataError(f"{path}: {kind} of type {array.dtype} is not numbers")
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def _read_h5(path: Path, kind: str) -> NDArray[Any]:
    import h5py

    with path.open("rb"):
        pass  # the system's own words where it cannot be opened; HDF5 has none
    with h5py.File(path, "r") as file:
        if not isinstance(file.get(kind), h5py.Dataset):
            raise DataError(f"{path}: no array '{kind}' in it, only {', '.join(sorted(file)) or 'nothing'}")
        return np.asarray(file[kind][()])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
