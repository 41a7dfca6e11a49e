"""Tiny datasets in their official layouts, and the real ones where `SSLBENCH_TEST_DATA` names a folder of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt

from sslbench.data.base import RawCase

Scan = tuple[np.ndarray, np.ndarray, np.ndarray]


def make_scan(
    seed: int,
    shape: tuple[int, int, int] = (24, 20, 6),
    spacing: tuple[float, float, float] = (1.5, 1.25, 4.0),
    codes: str = "LPS",
    classes: int = 4,
) -> Scan:
    """An int16 image, a uint8 label with balls of every class, and an affine of the given orientation."""
    rng = np.random.default_rng(seed)
    image = rng.integers(-150, 400, shape).astype(np.int16)
    label = np.zeros(shape, np.uint8)
    grid = np.indices(shape)
    for value in range(1, classes):
        centre = rng.uniform(0.2, 0.8, 3) * shape
        label[((grid - centre[:, None, None, None]) ** 2).sum(axis=0) < 10] = value
        label[value, 0, 0] = value
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(axcodes2ornt(tuple(codes))):
        affine[int(world), axis] = sign * spacing[axis]
    affine[:3, 3] = rng.uniform(-50, 50, 3).astype(np.float32)
    return image, label, affine


def write_pair(image_path: Path, label_path: Path, scan: Scan) -> None:
    """Write an image and its label as NIfTI."""
    image, label, affine = scan
    for path, voxels in ((image_path, image), (label_path, label)):
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, affine), path)


@pytest.fixture
def scan() -> Callable[..., Scan]:
    """`make_scan`."""
    return make_scan


@pytest.fixture
def raw_case(tmp_path: Path) -> Callable[..., RawCase]:
    """Writes a scan and returns it as a case: `raw_case(scan)`."""

    def write(scan: Scan, id: str = "0001") -> RawCase:
        raw = RawCase(id, id, tmp_path / f"img{id}.nii.gz", tmp_path / f"label{id}.nii.gz")
        write_pair(raw.image, raw.label, scan)
        return raw

    return write


@pytest.fixture
def acdc_source(tmp_path: Path) -> Callable[..., Path]:
    """Writes ACDC's layout: `acdc_source({"patient001": [1, 12]}, inside="training")`."""

    def write(patients: dict[str, list[int]], inside: str = "training", ending: str = ".nii.gz", **scan: Any) -> Path:
        root = tmp_path / "acdc-source"
        for patient, frames in patients.items():
            for frame in frames:
                stem = root / inside / patient / f"{patient}_frame{frame:02d}"
                paths = (stem.with_name(stem.name + ending), stem.with_name(stem.name + "_gt" + ending))
                write_pair(*paths, make_scan(int(patient[7:]) * 100 + frame, **scan))
        return root

    return write


@pytest.fixture
def synapse_source(tmp_path: Path) -> Callable[..., Path]:
    """Writes BTCV's layout: `synapse_source(["0001"], folders=("img", "label"))`."""

    def write(
        ids: list[str],
        folders: tuple[str, str] = ("RawData/Training/img", "RawData/Training/label"),
        ending: str = ".nii.gz",
        **scan: Any,
    ) -> Path:
        root = tmp_path / "synapse-source"
        for id in ids:
            paths = (root / folders[0] / f"img{id}{ending}", root / folders[1] / f"label{id}{ending}")
            write_pair(*paths, make_scan(int(id), classes=14, **scan))
        return root

    return write


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """Folder of a real dataset, `real_data("acdc")`; skips the test where there is none."""

    def folder(name: str) -> Path:
        root = os.environ.get("SSLBENCH_TEST_DATA")
        if not root:
            pytest.skip("SSLBENCH_TEST_DATA names no folder of real datasets")
        path = Path(root) / name
        if not path.is_dir():
            pytest.skip(f"SSLBENCH_TEST_DATA holds no folder '{name}'")
        return path

    return folder
