"""Tiny datasets in their official layouts, and the real ones where `SSLBENCH_TEST_DATA` names a folder of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sslbench.data.base import RawCase
from tests.helpers.scans import Scan, make_scan, write_pair


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
