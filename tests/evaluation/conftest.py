"""A tiny prepared dataset that resamples, predictions made from its references, and a run that left them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

from sslbench.core import registry
from sslbench.core.files import save_nifti
from sslbench.data.prepare import prepare
from sslbench.data.store import Store
from sslbench.runs.records import write_cases
from tests.helpers.predictions import IDS, worse
from tests.helpers.scans import make_scan, write_pair


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with three scans in Synapse's layout, resampled to 1.5 x 1.5 x 2 mm."""
    folder = tmp_path_factory.mktemp("evaluation")
    for id in IDS:
        images, labels = folder / "source" / "img", folder / "source" / "label"
        write_pair(images / f"img{id}.nii.gz", labels / f"label{id}.nii.gz", make_scan(int(id), classes=14))
    report = prepare("synapse", folder / "source", data_dir=folder / "data", preprocessing="ga", workers=1)
    assert not report.failed
    return folder / "data"


@pytest.fixture(scope="session")
def store(data_dir: Path) -> Store:
    return Store.open(data_dir, "synapse", "ga")


@pytest.fixture
def predicted(store: Store, tmp_path: Path) -> Path:
    """A folder of predictions in the scans' geometry."""
    folder = tmp_path / "predicted"
    for seed, case in enumerate(IDS):
        save_nifti(store.restore(case, worse(store.label(case), seed)), folder / f"{case}.nii.gz")
    return folder


@pytest.fixture
def make_run(store: Store, tmp_path: Path) -> Callable[..., Path]:
    """Writes what a finished job leaves: `make_run(protocol="native")`."""

    def write(protocol: str = "native", seed: int = 0, method: str = "cps", state: str = "finished") -> Path:
        digest = hashlib.sha256(method.encode()).hexdigest()
        path = tmp_path / "results" / "runs" / "mine" / "20pct" / f"{method}+default" / f"seed-{seed}-{digest[:8]}"
        measure = registry.component("protocol", protocol)
        records: list[dict[str, Any]] = []
        for number, case in enumerate(IDS):
            labels = worse(store.label(case), number + seed)
            restored = store.restore(case, labels)
            save_nifti(restored, path / "predictions" / f"{case}.nii.gz")
            save_nifti(store.on_stored_grid(case, labels), path / "predictions" / "preprocessed" / f"{case}.nii.gz")
            if measure.grid == "original":
                reference, spacing = store.reference(case)
                prediction = np.asanyarray(restored.dataobj)
            else:
                reference, spacing, prediction = store.label(case), store.cases[case].spacing_mm, labels
            names = [info.short for info in store.dataset.classes]
            rows = measure.score(prediction, reference, names, spacing, "xyz")
            records += [{"protocol": protocol, "case": case, "group": case, **row} for row in rows]
        job = {"recipe": "mine", "method": method, "loss": "default", "plugin": None, "labeled": "20pct", "seed": seed}
        values = {"dataset": "synapse", "preprocessing": "ga", "protocol": protocol, "splits": "ga"}
        (path / "config.yaml").write_text(
            yaml.safe_dump({"job": job | {"set": {}}, "digest": digest, "values": values})
        )
        (path / "status.json").write_text(json.dumps({"state": state}))
        (path / "provenance.json").write_text(json.dumps({"data": {"fingerprint": store.fingerprint}}))
        if state == "finished":
            write_cases(path / "cases.csv", records)
        return path

    return write


@pytest.fixture
def write_labels() -> Callable[..., Path]:
    """`write_labels(path, labels, affine)`; the voxels are 1 x 2 x 3 mm where no affine is given."""

    def write(path: Path, labels: np.ndarray, affine: np.ndarray | None = None, dtype: Any = np.uint8) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = nib.Nifti1Image(
            np.asarray(labels).astype(dtype), np.diag([1.0, 2.0, 3.0, 1.0]) if affine is None else affine
        )
        nib.save(image, path)
        return path

    return write
