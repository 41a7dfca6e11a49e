"""Prepared data as a dataset of nnU-Net: what is labelled, what is tested, and the way back."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from sslbench import load_results
from sslbench.config.splits import load_splits
from sslbench.data import export
from sslbench.data.store import Partition, Store
from sslbench.evaluation import importing
from tests.helpers.command_line import call

PLACE = ["-r", "phantom", "--labeled", "20%"]


@pytest.fixture
def held(small_data: Path, monkeypatch: pytest.MonkeyPatch) -> Partition:
    """The three cases that there are: labelled, for validation, for testing."""
    labeled, validation, test = Store.open(small_data, "phantom", "native").cases
    held = Partition((labeled,), (), (validation,), (test,))
    for module in (export, importing):
        monkeypatch.setattr(module, "partition", lambda *given: held)
    return held


@pytest.fixture
def exported(held: Partition, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The phantom as nnU-Net's dataset 701."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSLBENCH_DATA", str(small_data))
    monkeypatch.delenv("SSLBENCH_RESULTS", raising=False)
    code, _, err = call("export", "raw", *PLACE, "--id", "701", "-j", "1")
    assert code == 0, err
    assert "sslbench import NAME FOLDER -r phantom --labeled 20% --seed N --resample" in err
    return Path("raw/Dataset701_phantom_20pct")


def test_it_holds_the_lists_of_the_split_and_what_networks_here_see(
    exported: Path, held: Partition, small_data: Path
) -> None:
    store = Store.open(small_data, "phantom", "native")
    names = {folder.name: {path.name for path in folder.iterdir()} for folder in exported.iterdir() if folder.is_dir()}
    training = (*held.labeled, *held.validation)
    assert names == {
        "imagesTr": {f"{id}_0000.nii.gz" for id in training},
        "labelsTr": {f"{id}.nii.gz" for id in training},
        "imagesTs": {f"{id}_0000.nii.gz" for id in held.test},
        "labelsTs": {f"{id}.nii.gz" for id in held.test},
    }
    assert json.loads((exported / "splits_final.json").read_text()) == [
        {"train": list(held.labeled), "val": list(held.validation)}
    ]
    described = json.loads((exported / "dataset.json").read_text())
    assert described["numTraining"] == len(training) and described["file_ending"] == ".nii.gz"
    assert list(described["labels"].values()) == list(range(14)) and list(described["channel_names"]) == ["0"]
    first = held.labeled[0]
    image, label = (nib.load(exported / f) for f in (f"imagesTr/{first}_0000.nii.gz", f"labelsTr/{first}.nii.gz"))
    assert np.array_equal(np.asarray(image.dataobj), store.image(first)[0])
    assert np.array_equal(np.asarray(label.dataobj), store.label(first))
    assert np.allclose(image.affine, label.affine) and image.get_data_dtype() == np.float32


def test_unlabelled_cases_lie_apart_without_their_labels(
    held: Partition, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = Partition(held.labeled, held.validation, (), held.test)
    monkeypatch.setattr(export, "partition", lambda *given: more)
    store, splits = Store.open(small_data, "phantom", "native"), load_splits("phantom", "ga")
    made = export.export_nnunet(store, splits, "20%", tmp_path, 1)
    assert made.cases == {"labeled": 1, "validation": 0, "test": 1, "unlabeled": 1}
    files = {path.relative_to(made.folder).as_posix() for path in made.folder.rglob("*.nii.gz")}
    assert {name for name in files if more.unlabeled[0] in name} == {f"imagesUn/{more.unlabeled[0]}_0000.nii.gz"}
    assert not (made.folder / "splits_final.json").exists()


def test_what_is_predicted_of_it_comes_back(exported: Path) -> None:
    code, _, err = call("import", "copy", str(exported / "labelsTs"), *PLACE, "--seed", "0", "--resample", "-q")
    assert code == 0, err
    records = load_results("results")
    assert set(records["value"][(records["metric"] == "dsc") & (records["state"] == "both")]) == {1.0}


def test_nothing_is_overwritten(exported: Path) -> None:
    code, _, err = call("export", "raw", *PLACE, "--id", "701", "-j", "1")
    assert code == 2 and "is there already" in err and "--id" in err
