"""The cache as others read it: opening, damage, references, the way back, and the cases of a split."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from sslbench.config.splits import parse_splits
from sslbench.core.errors import DataError, UnknownNameError, UsageError
from sslbench.core.files import read_json, write_json
from sslbench.data.datasets.synapse import Synapse
from sslbench.data.prepare import prepare
from sslbench.data.store import Store, partition

PATIENTS = {"patient001": [1, 12], "patient002": [1, 9], "patient003": [1, 15], "patient004": [1, 8]}


@pytest.fixture
def acdc(acdc_source, tmp_path):
    """A prepared four-patient ACDC: (data folder, source)."""
    source = acdc_source(PATIENTS)
    prepare("acdc", source, data_dir=tmp_path / "data", workers=1)
    return tmp_path / "data", source


def toy_splits(**lists):
    raw = {"unit": "patient", "train": ["patient001", "patient002"], "val": ["patient003"], "test": ["patient004"]}
    raw |= {"budgets": {"50pct": {"title": "50%", "prefix": 1}, "100pct": {"title": "100%", "prefix": 2}}}
    return parse_splits(raw | lists, "acdc", "toy")


def test_cases_carry_what_training_needs_to_know(acdc):
    store = Store.open(acdc[0], "acdc", "ssl4mis")
    assert list(store.cases) == sorted(f"{p}_frame{f:02d}" for p, frames in PATIENTS.items() for f in frames)
    case = store.cases["patient001_frame12"]
    assert (case.group, case.shape) == ("patient001", (6, 20, 24))
    assert case.spacing_mm == pytest.approx((4.0, 1.25, 1.5))
    assert sum(case.class_voxels) == 6 * 20 * 24
    assert store.is_subset
    assert store.dataset.num_classes() == 4


def test_arrays_are_memory_mapped_and_read_only(acdc):
    store = Store.open(acdc[0], "acdc", "ssl4mis")
    image, label = store.image("patient002_frame01", verify=True), store.label("patient002_frame01", verify=True)
    assert isinstance(image, np.memmap) and isinstance(label, np.memmap)
    assert (image.dtype, label.dtype) == (np.float32, np.uint8)
    assert label.shape == store.cases["patient002_frame01"].shape and image.shape == (1, *label.shape)
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0, 0, 0] = 1


def test_the_reference_outlives_the_source(acdc):
    data, source = acdc
    path = source / "training" / "patient003" / "patient003_frame15_gt.nii.gz"
    original = nib.load(path)
    voxels = np.asarray(original.dataobj)
    path.unlink()
    store = Store.open(data, "acdc", "ssl4mis")
    reference, spacing = store.reference("patient003_frame15")
    assert np.array_equal(reference, voxels)
    assert spacing == pytest.approx((1.5, 1.25, 4.0))
    back = store.restore("patient003_frame15", store.label("patient003_frame15"))
    assert np.array_equal(np.asarray(back.dataobj), voxels)
    assert np.array_equal(back.affine, original.affine)
    assert not store.resamples("patient003_frame15")


def test_a_resampled_store_says_so(synapse_source, tmp_path):
    source = synapse_source(["0001"], shape=(30, 28, 12))
    for name in ("ga", "native"):
        prepare("synapse", source, data_dir=tmp_path, preprocessing=name, workers=1)
    ga, native = (Store.open(tmp_path, "synapse", name) for name in ("ga", "native"))
    assert ga.resamples("0001") and not native.resamples("0001")
    assert ga.cases["0001"].spacing_mm == pytest.approx((1.5, 1.5, 2.0))
    assert ga.restore("0001", ga.label("0001")).shape == (30, 28, 12)
    assert ga.cases["0001"].class_voxels == native.cases["0001"].class_voxels
    assert ga.fingerprint != native.fingerprint


def test_groups_hold_patients_and_their_frames(acdc):
    groups = Store.open(acdc[0], "acdc", "ssl4mis").groups()
    assert groups["patient001"] == ["patient001_frame01", "patient001_frame12"]
    assert groups["patient001_frame12"] == ["patient001_frame12"]


def test_the_fingerprint_is_that_of_the_content(acdc, acdc_source, tmp_path):
    first = Store.open(acdc[0], "acdc", "ssl4mis").fingerprint
    prepare("acdc", acdc[1], data_dir=tmp_path / "again", workers=1)
    assert Store.open(tmp_path / "again", "acdc", "ssl4mis").fingerprint == first
    prepare("acdc", acdc_source({"patient005": [1, 2]}), data_dir=tmp_path / "more", workers=1)
    assert Store.open(tmp_path / "more", "acdc", "ssl4mis").fingerprint != first


# ------------------------------------------------------------------------------------------------ what is not right


def test_what_was_never_prepared_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="acdc has not been prepared as 'ssl4mis'") as raised:
        Store.open(tmp_path, "acdc", "ssl4mis")
    assert raised.value.hint == "run sslbench prepare acdc --source FOLDER"
    with pytest.raises(UsageError, match="not been prepared") as raised:
        Store.open(tmp_path, "phantom", "ga")
    assert raised.value.hint == "run sslbench prepare phantom --preprocessing ga"
    with pytest.raises(UnknownNameError, match="preprocessing of acdc"):
        Store.open(tmp_path, "acdc", "ga")
    with pytest.raises(UnknownNameError, match="acdd"):
        Store.open(tmp_path, "acdd", "ga")


def test_an_interrupted_preparation_does_not_pass_for_a_dataset(acdc):
    (acdc[0] / "acdc" / "ssl4mis" / "dataset.json").unlink()
    with pytest.raises(UsageError, match="not finished"):
        Store.open(acdc[0], "acdc", "ssl4mis")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"cases": 3}', "null"])
def test_a_broken_index_is_named(acdc, content):
    index = acdc[0] / "acdc" / "ssl4mis" / "dataset.json"
    index.write_text(content)
    with pytest.raises(DataError, match=r"dataset\.json is damaged.*--force"):
        Store.open(acdc[0], "acdc", "ssl4mis")


def test_an_edited_index_is_noticed(acdc):
    index = acdc[0] / "acdc" / "ssl4mis" / "dataset.json"
    fields = read_json(index)
    del fields["cases"]["patient001_frame01"]
    write_json(index, fields)
    with pytest.raises(DataError, match="fingerprint"):
        Store.open(acdc[0], "acdc", "ssl4mis")


@pytest.mark.parametrize("name", ["cases/{}.image.npy", "cases/{}.label.npy", "references/{}.nii.gz"])
def test_missing_and_shortened_files_are_found_on_opening(acdc, name):
    path = acdc[0] / "acdc" / "ssl4mis" / name.format("patient002_frame09")
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"patient002_frame09.*recorded size"):
        Store.open(acdc[0], "acdc", "ssl4mis")
    path.unlink()
    with pytest.raises(DataError, match=r"patient002_frame09.*missing"):
        Store.open(acdc[0], "acdc", "ssl4mis")


def test_a_changed_byte_is_found_on_verifying(acdc):
    path = acdc[0] / "acdc" / "ssl4mis" / "cases" / "patient002_frame09.image.npy"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    store = Store.open(acdc[0], "acdc", "ssl4mis")
    store.image("patient002_frame09")
    with pytest.raises(DataError, match=r"patient002_frame09\.image\.npy is damaged.*sslbench prepare acdc .*--force"):
        store.image("patient002_frame09", verify=True)
    content[:20] = b"x" * 20
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"patient002_frame09\.image\.npy is damaged"):
        store.image("patient002_frame09")


def test_a_damaged_reference_is_named(acdc):
    path = acdc[0] / "acdc" / "ssl4mis" / "references" / "patient002_frame09.nii.gz"
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"patient002_frame09\.nii\.gz.*--force"):
        Store.open(acdc[0], "acdc", "ssl4mis").reference("patient002_frame09")


def test_another_definition_of_the_preprocessing_is_refused(synapse_source, tmp_path, monkeypatch):
    prepare("synapse", synapse_source(["0001"]), data_dir=tmp_path, preprocessing="native", workers=1)
    changed = replace(Synapse.preprocessings["native"], clip=(-75.0, 275.0))
    monkeypatch.setattr(Synapse, "preprocessings", {**Synapse.preprocessings, "native": changed})
    with pytest.raises(DataError, match=r"another definition of 'native'.*--preprocessing native --force"):
        Store.open(tmp_path, "synapse", "native")


# -------------------------------------------------------------------------------------------------------- partition


def test_a_budget_parts_the_training_list(acdc):
    parts = partition(Store.open(acdc[0], "acdc", "ssl4mis"), toy_splits(), "50%")
    assert parts.labeled == ("patient001_frame01", "patient001_frame12")
    assert parts.unlabeled == ("patient002_frame01", "patient002_frame09")
    assert parts.validation == ("patient003_frame01", "patient003_frame15")
    assert parts.test == ("patient004_frame01", "patient004_frame08")


def test_nothing_is_unlabeled_under_the_full_budget(acdc):
    parts = partition(Store.open(acdc[0], "acdc", "ssl4mis"), toy_splits(), "100%")
    assert len(parts.labeled) == 4
    assert parts.unlabeled == ()


def test_cases_on_no_list_and_lists_without_validation_are_fine(acdc):
    parts = partition(Store.open(acdc[0], "acdc", "ssl4mis"), toy_splits(val=[]), "50%")
    assert parts.validation == ()


@pytest.mark.parametrize(
    ("lists", "part"),
    [
        ({"test": ["patient090", "patient091"]}, "none of the 2 test patients"),
        ({"train": ["patient090", "patient002"]}, "none of the 1 labeled patients"),
        ({"train": ["patient001", "patient090"]}, "none of the 1 unlabeled patients"),
    ],
)
def test_a_part_of_which_nothing_is_held_is_named(acdc, lists, part):
    with pytest.raises(UsageError, match=f"{part} of acdc .splits toy, 50%. is among the 8 prepared cases"):
        partition(Store.open(acdc[0], "acdc", "ssl4mis"), toy_splits(**lists), "50%")


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"test": ["patient001_frame01", "patient004"]}, "patient001_frame01 is labeled and again test"),
        ({"val": ["patient003_frame01"], "test": ["patient003_frame15"]}, "are the same patient"),
    ],
)
def test_a_patient_on_two_sides_is_found_behind_mixed_entries(acdc, lists, message):
    with pytest.raises(UsageError, match=message):
        partition(Store.open(acdc[0], "acdc", "ssl4mis"), toy_splits(**lists), "50%")


def test_a_scan_on_two_sides_is_found_under_two_patients(acdc_source, tmp_path):
    source = acdc_source(PATIENTS) / "training"
    first = source / "patient001" / "patient001_frame01.nii.gz"
    (source / "patient004" / "patient004_frame08.nii.gz").write_bytes(first.read_bytes())
    for patient in ("patient001", "patient004"):  # the same place too
        frame = {"patient001": "01", "patient004": "08"}[patient]
        label = source / patient / f"{patient}_frame{frame}_gt.nii.gz"
        nib.save(nib.Nifti1Image(np.asarray(nib.load(label).dataobj), nib.load(first).affine), label)
    report = prepare("acdc", source, data_dir=tmp_path, workers=1)
    assert report.notes == ("patient004_frame08 is the scan of patient001_frame01, annotated again",)
    assert report.failed == {}
    with pytest.raises(UsageError, match=r"patient001_frame01 \(training\) and patient004_frame08 \(test\) .* scan"):
        partition(Store.open(tmp_path, "acdc", "ssl4mis"), toy_splits(), "50%")


def test_the_index_is_plain_json(acdc):
    text = (acdc[0] / "acdc" / "ssl4mis" / "dataset.json").read_text()
    fields = json.loads(text)
    assert (fields["dataset"], fields["preprocessing"]) == ("acdc", "ssl4mis")
    assert (fields["found"], fields["official"], fields["failed"]) == (8, 200, {})
