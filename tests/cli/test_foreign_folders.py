"""Folders of predictions as nnU-Net and SSL4MIS's test scripts leave them stand in one table."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from sslbench import load_results
from sslbench.data import export
from sslbench.data.prepare import prepare
from sslbench.data.store import Partition, Store, case_files
from sslbench.evaluation import importing
from tests.helpers.command_line import call
from tests.helpers.scans import make_scan, write_pair

PLACE = ["-r", "ssl4mis-acdc", "--labeled", "7 patients", "--seed", "0", "-j", "1", "-q"]
FRAMES = {"patient001": (1, 12), "patient002": (4, 15), "patient003": (1, 9)}


@pytest.fixture(scope="module")
def acdc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with three patients of ACDC."""
    root = tmp_path_factory.mktemp("acdc")
    for patient, frames in FRAMES.items():
        for frame in frames:
            stem = root / "source" / patient / f"{patient}_frame{frame:02d}"
            scan = make_scan(int(patient[7:]) * 100 + frame)
            write_pair(stem.with_name(f"{stem.name}.nii.gz"), stem.with_name(f"{stem.name}_gt.nii.gz"), scan)
    assert prepare("acdc", root / "source", data_dir=root / "data", workers=1).written == 6
    return root / "data"


@pytest.fixture
def store(acdc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Of its patients the first is labelled, the others are tested."""
    store = Store.open(acdc, "acdc", "ssl4mis")
    held = Partition(tuple(store.cases)[:2], (), (), tuple(store.cases)[2:])
    for module in (export, importing):
        monkeypatch.setattr(module, "partition", lambda *given: held)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSLBENCH_DATA", str(acdc))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("SSLBENCH_RESULTS", raising=False)
    return store


def labels_of(store: Store, case: str) -> np.ndarray:
    """The reference as (z, y, x), the order of the arrays that SSL4MIS shares."""
    return np.asarray(nib.load(case_files(store.folder, case)["reference"]).dataobj).T


def ssl4mis(store: Store, folder: Path) -> None:
    """What `test_2D_fully.py` writes: three maps a case, spacing (1, 1, 10), frames counted as 01 and 02."""
    folder.mkdir()
    for place, case in enumerate(list(store.cases)[2:]):
        name = f"{case.partition('_')[0]}_frame{place % 2 + 1:02d}"
        labels = labels_of(store, case).astype(np.float32)
        predicted = np.where(labels == 3, 0, labels)
        for end, voxels in (("pred", predicted), ("gt", labels), ("img", labels * 0.5)):
            image = SimpleITK.GetImageFromArray(voxels)
            image.SetSpacing((1, 1, 10))
            SimpleITK.WriteImage(image, str(folder / f"{name}_{end}.nii.gz"))


def nnunet(store: Store, folder: Path) -> None:
    """What `nnUNetv2_predict` writes of exported test cases: a map of each, and how it was made."""
    assert call("export", "raw", "-r", "ssl4mis-acdc", "--labeled", "7 patients", "-j", "1")[0] == 0
    shutil.copytree(next(Path("raw").iterdir()) / "labelsTs", folder)
    for name in ("dataset.json", "plans.json", "predict_from_raw_data_args.json"):
        (folder / name).write_text("{}")
    (folder / "patient002_frame04.npz").write_bytes(b"")


def test_both_stand_in_one_table(store: Store) -> None:
    ssl4mis(store, Path("UNet_predictions"))
    nnunet(store, Path("nnunet"))
    code, _, err = call("import", "cps-fork", "UNet_predictions", *PLACE, "--ignore-affine")
    assert code == 0 and "took 3 label maps by their order: patient002_frame01 as patient002_frame04" in err, err
    code, _, err = call("import", "nnunet", "nnunet", *PLACE, "--resample", "--title", "nnU-Net")
    assert code == 0, err
    code, out, err = call("report")
    assert code == 0 and re.search(r"nnU-Net‡ +100\.00", out) and re.search(r"cps-fork‡ +66\.67", out), out + err
    records = load_results("results")
    dsc = records[(records["metric"] == "dsc") & (records["class"] == "rv")]
    assert len(dsc) == 8 and set(dsc["value"]) == {1.0}


def test_where_nothing_lies_as_the_scan_the_way_is_told(store: Store) -> None:
    ssl4mis(store, Path("maps"))
    code, _, err = call("import", "fork", "maps", *PLACE)
    assert code == 1 and "--ignore-affine" in err and not Path("results").exists()


def test_another_case_under_a_name_is_found_by_the_reference_beside_it(store: Store) -> None:
    ssl4mis(store, Path("maps"))
    for end in ("pred", "gt"):
        one, other = (Path(f"maps/patient003_frame{frame:02d}_{end}.nii.gz") for frame in (1, 2))
        kept = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(kept)
    code, _, err = call("import", "fork", "maps", *PLACE, "--ignore-affine")
    assert code == 1 and "patient003_frame01_gt.nii.gz is not the prepared reference of patient003_frame01" in err


def test_names_of_another_numbering_need_a_reference(store: Store) -> None:
    ssl4mis(store, Path("maps"))
    for path in Path("maps").glob("*_gt.nii.gz"):
        path.unlink()
    code, _, err = call("import", "fork", "maps", *PLACE, "--ignore-affine")
    assert code == 2 and "call each label map as its case is" in err


def test_evaluate_reads_these_names_too(store: Store) -> None:
    ssl4mis(store, Path("maps"))
    for path in Path("maps").glob("patient003_frame01_*"):  # whose number is that of the release
        Path("some").mkdir(exist_ok=True)
        shutil.copy(path, Path("some") / path.name)
    command = ["evaluate", "some", "--dataset", "acdc", "--ignore-affine", "--partial", "-j", "1", "--json"]
    code, out, err = call(*command)
    assert code == 0 and '"dsc"' in out, out + err
