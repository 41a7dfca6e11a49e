"""Official layouts to a cache: what is found, what is refused, what a second run does."""

from __future__ import annotations

import shutil
import threading

import nibabel as nib
import numpy as np
import pytest

from sslbench.core.errors import SSLBenchError, UnknownNameError, UsageError
from sslbench.data import prepare as module
from sslbench.data.base import OWN_DATA
from sslbench.data.datasets.acdc import ACDC
from sslbench.data.datasets.phantom import Phantom, PhantomOptions
from sslbench.data.datasets.synapse import Synapse
from sslbench.data.prepare import prepare
from sslbench.data.preprocess import preprocess
from sslbench.data.store import Store
from tests.helpers.folders import snapshot

TWO = {"patient001": [1, 12], "patient090": [4, 11]}


# --------------------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("inside", ["", "training", "database/training"])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_acdc_is_found_in_all_its_layouts(acdc_source, inside, ending):
    raws = ACDC().find(acdc_source(TWO, inside=inside, ending=ending))
    assert [raw.id for raw in raws] == [
        *("patient001_frame01", "patient001_frame12", "patient090_frame04", "patient090_frame11")
    ]
    assert [raw.group for raw in raws] == ["patient001"] * 2 + ["patient090"] * 2
    assert all(raw.image.exists() and raw.label.exists() and "_gt" in raw.label.name for raw in raws)


def test_acdc_passes_over_its_test_patients_and_other_files(acdc_source):
    source = acdc_source(TWO | {"patient101": [1, 14]})
    (source / "training" / "patient001" / "Info.cfg").write_text("ED: 1\nES: 12\n")
    (source / "training" / "patient001" / "patient001_4d.nii.gz").write_bytes(b"")
    (source / "training" / "patient001" / "._patient001_frame01.nii.gz").write_bytes(b"")
    dataset = ACDC()
    assert len(dataset.find(source)) == 4
    assert dataset.notes == ["left out 1 patient after number 100: ACDC's test set is not used"]


def test_acdc_follows_linked_folders(acdc_source, tmp_path):
    source = acdc_source(TWO)
    linked = tmp_path / "linked" / "training"
    linked.mkdir(parents=True)
    for patient in TWO:
        (linked / patient).symlink_to(source / "training" / patient, target_is_directory=True)
    assert len(ACDC().find(tmp_path / "linked")) == 4


def test_the_same_frame_twice_is_refused(acdc_source):
    source = acdc_source(TWO)
    shutil.copytree(source / "training" / "patient001", source / "training" / "copy" / "patient001")
    with pytest.raises(UsageError, match="is a second"):
        ACDC().find(source)


@pytest.mark.parametrize(
    "folders",
    [
        ("RawData/Training/img", "RawData/Training/label"),
        ("Abdomen/RawData/Training/img", "Abdomen/RawData/Training/label"),
        ("img", "label"),
        ("imagesTr", "labelsTr"),
    ],
)
@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_synapse_is_found_in_all_its_layouts(synapse_source, folders, ending):
    raws = Synapse().find(synapse_source(["0021", "0003"], folders, ending))
    assert [(raw.id, raw.group) for raw in raws] == [("0003", "0003"), ("0021", "0021")]
    assert all(raw.image.exists() and raw.label.exists() for raw in raws)


def test_synapse_takes_the_thirty_ids_of_btcv_only(synapse_source):
    source = synapse_source(["0001", "0011", "0061"])
    dataset = Synapse()
    assert [raw.id for raw in dataset.find(source)] == ["0001"]
    assert dataset.notes == [f"left out 2 cases on no official list of synapse: 0011, 0061; own data: {OWN_DATA}"]


def test_foreign_ids_alone_are_refused_in_one_line(synapse_source, tmp_path):
    with pytest.raises(UsageError, match=r"holds 1 case on no official list of synapse: 0101") as raised:
        prepare("synapse", synapse_source(["0101"]), data_dir=tmp_path / "data", workers=1)
    assert "\n" not in str(raised.value) and "--from-nnunet" in raised.value.hint
    assert not (tmp_path / "data").exists()


def test_the_classes_and_preprocessings_are_those_of_the_sheets():
    assert [info.short for info in ACDC.classes] == ["rv", "myo", "lv"]
    shorts = "sp rk lk ga es li st ao ivc psv pa rag lag"
    assert [info.short for info in Synapse.classes] == shorts.split()
    assert Phantom.classes == Synapse.classes
    assert list(Synapse.preprocessings) == ["ga", "dhc-2023", "dhc-2024", "native"]
    assert list(Phantom.preprocessings) == ["native", "ga"]
    assert Phantom.splits_from == "synapse"
    assert Phantom.preprocessing_hash("ga") == Synapse.preprocessing_hash("ga")
    assert (ACDC.official_cases, Synapse.official_cases, Phantom.official_cases) == (200, 30, 30)


# ----------------------------------------------------------------------------------------------------- preparation


def test_two_processes_prepare_what_one_does(acdc_source, tmp_path):
    source = acdc_source(TWO | {"patient002": [1, 2]})
    reports = [prepare("acdc", source, data_dir=tmp_path / str(n), workers=n) for n in (1, 2)]
    assert [(r.found, r.written, r.unchanged, r.failed) for r in reports] == [(6, 6, 0, {})] * 2
    folders = [tmp_path / str(n) / "acdc" / "ssl4mis" for n in (1, 2)]
    names = [set(snapshot(folder)) for folder in folders]
    assert names[0] == names[1]
    for name in names[0]:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name


def test_progress_tells_every_case_and_its_state(acdc_source, tmp_path):
    source, said = acdc_source(TWO), []
    for _ in range(2):
        prepare("acdc", source, data_dir=tmp_path, workers=1, progress=lambda id, state: said.append((id, state)))
    ids = [raw.id for raw in ACDC().find(source)]
    assert said[:4] == [(id, "waiting") for id in ids]
    assert said[4:8] == [(id, "written") for id in ids]
    assert said[12:] == [(id, "unchanged") for id in ids]


def test_a_second_run_writes_nothing(acdc_source, tmp_path):
    source = acdc_source(TWO)
    prepare("acdc", source, data_dir=tmp_path / "data", workers=1)
    before = snapshot(tmp_path / "data")
    report = prepare("acdc", source, data_dir=tmp_path / "data", workers=1)
    assert (report.written, report.unchanged) == (0, 4)
    assert snapshot(tmp_path / "data") == before
    moved = tmp_path / "elsewhere"
    source.rename(moved)
    assert prepare("acdc", moved, data_dir=tmp_path / "data", workers=1).unchanged == 4
    assert snapshot(tmp_path / "data") == before


def test_what_changed_is_made_anew_and_nothing_else(acdc_source, tmp_path):
    source, data = acdc_source(TWO), tmp_path / "data"
    prepare("acdc", source, data_dir=data, workers=1)
    first = Store.open(data, "acdc", "ssl4mis").fingerprint
    path = source / "training" / "patient001" / "patient001_frame01.nii.gz"
    nifti = nib.load(path)
    voxels = np.asarray(nifti.dataobj)[::-1].copy()
    nib.save(nib.Nifti1Image(voxels, nifti.affine), path)
    before = snapshot(data)
    report = prepare("acdc", source, data_dir=data, workers=1)
    assert (report.written, report.unchanged) == (1, 3)
    changed = {name for name, state in snapshot(data).items() if before.get(name) != state}
    assert changed == {
        "acdc/ssl4mis/dataset.json",
        "acdc/ssl4mis/README.md",  # the card counts voxels of its classes
        *(f"acdc/ssl4mis/cases/patient001_frame01.{end}" for end in ("image.npy", "label.npy", "json")),
        "acdc/ssl4mis/references/patient001_frame01.nii.gz",
    }
    assert Store.open(data, "acdc", "ssl4mis").fingerprint != first


def test_a_lost_or_shortened_cache_file_is_made_anew(acdc_source, tmp_path):
    source = acdc_source(TWO)
    folder = prepare("acdc", source, data_dir=tmp_path, workers=1).folder
    (folder / "cases" / "patient001_frame01.label.npy").unlink()
    (folder / "references" / "patient001_frame12.nii.gz").write_bytes(b"")
    (folder / "cases" / "patient090_frame04.json").write_text("{")
    report = prepare("acdc", source, data_dir=tmp_path, workers=1)
    assert (report.written, report.unchanged) == (3, 1)
    Store.open(tmp_path, "acdc", "ssl4mis")


def test_force_makes_everything_anew(acdc_source, tmp_path):
    source = acdc_source(TWO)
    folder = prepare("acdc", source, data_dir=tmp_path, workers=1).folder
    damaged = folder / "cases" / "patient001_frame01.image.npy"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    assert prepare("acdc", source, data_dir=tmp_path, workers=1).written == 0  # sizes cannot tell
    assert prepare("acdc", source, data_dir=tmp_path, workers=1, force=True).written == 4
    Store.open(tmp_path, "acdc", "ssl4mis").image("patient001_frame01", verify=True)


def test_an_interrupted_run_is_taken_up_again(acdc_source, tmp_path, monkeypatch):
    source = acdc_source(TWO)
    prepare("acdc", source, data_dir=tmp_path, workers=1)

    def stop(id, state):
        if state == "written" and id == "patient001_frame12":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("acdc", source, data_dir=tmp_path, workers=1, force=True, progress=stop)
    with pytest.raises(UsageError, match="not finished"):  # although the first run left an index
        Store.open(tmp_path, "acdc", "ssl4mis")
    shutil.rmtree(tmp_path / "acdc")
    with pytest.raises(KeyboardInterrupt):
        prepare("acdc", source, data_dir=tmp_path, workers=1, progress=stop)
    report = prepare("acdc", source, data_dir=tmp_path, workers=1)
    assert (report.written, report.unchanged) == (2, 2)


def test_what_a_run_that_was_cut_off_left_is_taken_by_content(acdc_source, tmp_path):
    """After a power failure a file may have its size and not its bytes."""
    source = acdc_source(TWO)
    folder = prepare("acdc", source, data_dir=tmp_path, workers=1).folder
    (folder / "dataset.json").unlink()
    damaged = folder / "cases" / "patient001_frame01.image.npy"
    good = damaged.read_bytes()
    damaged.write_bytes(good[:200] + bytes(len(good) - 200))
    report = prepare("acdc", source, data_dir=tmp_path, workers=1)
    assert (report.written, report.unchanged) == (1, 3)
    assert damaged.read_bytes() == good
    Store.open(tmp_path, "acdc", "ssl4mis")


def test_what_a_kill_left_half_written_goes(acdc_source, tmp_path):
    source = acdc_source(TWO)
    folder = prepare("acdc", source, data_dir=tmp_path, workers=1).folder
    left = folder / "cases" / ".writing-x.image.npy"
    left.write_bytes(b"half")
    assert prepare("acdc", source, data_dir=tmp_path, workers=1).unchanged == 4
    assert not left.exists()


def test_two_that_prepare_the_same_take_turns(acdc_source, tmp_path):
    source, said = acdc_source(TWO), []

    def run(name):
        prepare("acdc", source, data_dir=tmp_path, workers=1, progress=lambda id, state: said.append((name, state)))

    threads = [threading.Thread(target=run, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first = said[0][0]
    assert said[:8] == [(first, "waiting")] * 4 + [(first, "written")] * 4
    assert [state for _, state in said[8:]] == ["waiting"] * 4 + ["unchanged"] * 4
    Store.open(tmp_path, "acdc", "ssl4mis")


def test_an_error_that_nobody_foresaw_keeps_its_case_out_only(acdc_source, tmp_path, monkeypatch):
    def fail(loaded, prep):
        if loaded.id == "patient001_frame12":
            raise ZeroDivisionError("integer division\nby zero")
        return preprocess(loaded, prep)

    monkeypatch.setattr(module, "preprocess", fail)
    report = prepare("acdc", acdc_source(TWO), data_dir=tmp_path, workers=1)
    assert report.written == 3 and list(report.failed) == ["patient001_frame12"]
    assert report.failed["patient001_frame12"].endswith("frame12.nii.gz: ZeroDivisionError: integer division")


def test_a_case_is_written_whole_or_not_at_all(acdc_source, tmp_path, monkeypatch):
    source = acdc_source(TWO)
    folder = prepare("acdc", source, data_dir=tmp_path, workers=1).folder

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "to_nifti", fail)
        with pytest.raises(SSLBenchError, match="No space left on device") as raised:
            prepare("acdc", source, data_dir=tmp_path, workers=1, force=True)
        assert "\n" not in str(raised.value)
    assert not (folder / "cases" / "patient001_frame01.json").exists()
    assert not [name for name in snapshot(folder) if ".writing-" in name]
    report = prepare("acdc", source, data_dir=tmp_path, workers=1)
    assert (report.written, report.unchanged) == (1, 3)


def test_a_part_of_the_release_is_accepted_and_said(synapse_source, tmp_path):
    report = prepare("synapse", synapse_source(["0001", "0002"]), data_dir=tmp_path, workers=1)
    assert (report.found, report.official, report.preprocessing) == (2, 30, "ga")
    assert Store.open(tmp_path, "synapse", "ga").is_subset


def test_a_smaller_source_leaves_earlier_cases_out_and_says_so(synapse_source, tmp_path):
    source = synapse_source(["0001", "0002"])
    prepare("synapse", source, data_dir=tmp_path / "data", workers=1)
    (source / "RawData" / "Training" / "img" / "img0002.nii.gz").unlink()
    (source / "RawData" / "Training" / "label" / "label0002.nii.gz").unlink()
    report = prepare("synapse", source, data_dir=tmp_path / "data", workers=1)
    assert report.notes == ("left out 1 cases of an earlier preparation that are not in this source",)
    assert list(Store.open(tmp_path / "data", "synapse", "ga").cases) == ["0001"]


# ----------------------------------------------------------------------------------------------------------- faults


def test_faulty_cases_are_named_and_the_others_prepared(synapse_source, tmp_path):
    source = synapse_source(["0001", "0002", "0003", "0004", "0005"])
    images, labels = source / "RawData" / "Training" / "img", source / "RawData" / "Training" / "label"
    truncated = images / "img0002.nii.gz"
    truncated.write_bytes(truncated.read_bytes()[:-400])
    nifti = nib.load(labels / "label0003.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(nifti.dataobj) + np.uint8(1), nifti.affine), labels / "label0003.nii.gz")
    (labels / "label0004.nii.gz").unlink()
    report = prepare("synapse", source, data_dir=tmp_path, workers=1)
    assert (report.found, report.written) == (5, 3)
    assert list(report.failed) == ["0002", "0003"]
    for id, name in (("0002", "img0002"), ("0003", "label0003")):
        assert name in report.failed[id] and "\n" not in report.failed[id]
    assert "label values 14 are not" in report.failed["0003"]
    assert "1 case without a label, for training without one: 0004" in report.notes
    held = Store.open(tmp_path, "synapse", "ga").cases
    assert {id: case.labeled for id, case in held.items()} == {"0001": True, "0004": False, "0005": True}


def test_a_case_that_has_become_faulty_leaves_the_dataset(synapse_source, tmp_path):
    source = synapse_source(["0001", "0002"])
    prepare("synapse", source, data_dir=tmp_path / "data", workers=1)
    (source / "RawData" / "Training" / "img" / "img0002.nii.gz").write_bytes(b"broken")
    report = prepare("synapse", source, data_dir=tmp_path / "data", workers=1)
    assert (list(report.failed), report.unchanged) == (["0002"], 1)
    assert list(Store.open(tmp_path / "data", "synapse", "ga").cases) == ["0001"]


def test_a_copied_case_is_refused_under_its_second_name(synapse_source, tmp_path):
    source = synapse_source(["0001", "0002"])
    for folder, name in (("img", "img"), ("label", "label")):
        part = source / "RawData" / "Training" / folder
        shutil.copy(part / f"{name}0001.nii.gz", part / f"{name}0003.nii.gz")
    for _ in range(2):
        report = prepare("synapse", source, data_dir=tmp_path, workers=1)
        assert report.failed == {"0003": "it is a copy of 0001, voxel for voxel"}
    assert list(Store.open(tmp_path, "synapse", "ga").cases) == ["0001", "0002"]


def test_where_every_case_fails_there_is_no_dataset(synapse_source, tmp_path):
    source = synapse_source(["0001"])
    (source / "RawData" / "Training" / "img" / "img0001.nii.gz").write_bytes(b"broken")
    assert list(prepare("synapse", source, data_dir=tmp_path, workers=1).failed) == ["0001"]
    with pytest.raises(UsageError):
        Store.open(tmp_path, "synapse", "ga")


def test_wrong_usage_is_told_before_anything_is_written(acdc_source, tmp_path):
    data = tmp_path / "data"
    empty = tmp_path / "empty"
    empty.mkdir()
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UsageError, match=r"acdc needs a source, a folder or an archive \(.*--download"):
        prepare("acdc", data_dir=data)
    with pytest.raises(UsageError, match="does not exist"):
        prepare("acdc", tmp_path / "nowhere", data_dir=data)
    with pytest.raises(UsageError, match="is neither a folder nor an archive"):
        prepare("acdc", file, data_dir=data)
    with pytest.raises(UsageError, match=r"nothing of acdc is in .*: no file of ACDC's frames .* or SSL4MIS' arrays"):
        prepare("acdc", empty, data_dir=data)
    with pytest.raises(UsageError, match=r"nothing of synapse is in .*\(img0001\.nii\.gz"):
        prepare("synapse", empty, data_dir=data)
    with pytest.raises(UnknownNameError, match="did you mean synapse"):
        prepare("synapsee", empty, data_dir=data)
    with pytest.raises(UnknownNameError, match="preprocessing of acdc 'ga'"):
        prepare("acdc", acdc_source(TWO), data_dir=data, preprocessing="ga")
    with pytest.raises(UsageError, match="size"):
        prepare("acdc", acdc_source(TWO), data_dir=data, options={"size": 3})
    assert not data.exists()


def test_a_folder_that_cannot_be_written_is_one_line(acdc_source, tmp_path):
    (tmp_path / "data").write_text("a file in the way")
    with pytest.raises(SSLBenchError, match=r"cannot read or write .*data") as raised:
        prepare("acdc", acdc_source(TWO), data_dir=tmp_path / "data", workers=1)
    assert "\n" not in str(raised.value)


# ---------------------------------------------------------------------------------------------------------- phantom


@pytest.fixture
def small_phantom(monkeypatch):
    """The phantom with one case, on a coarse grid."""
    monkeypatch.setattr(Phantom, "generated_ids", ("0001",))
    return {"size": (20, 18, 16)}


def test_the_phantom_is_computed_once_and_again_for_other_options(small_phantom, tmp_path):
    said = []
    report = prepare(
        *("phantom", None),
        data_dir=tmp_path,
        options=small_phantom,
        workers=1,
        progress=lambda id, state: said.append((id, state)),
    )
    assert (report.preprocessing, report.found, report.official, report.written) == ("native", 1, 30, 1)
    assert said == [("0001", "generated"), ("0001", "waiting"), ("0001", "written")]
    raw = tmp_path / "phantom" / "raw"
    assert (raw / "RawData" / "Training" / "img" / "img0001.nii.gz").exists()
    before = snapshot(tmp_path)
    assert prepare("phantom", data_dir=tmp_path, options=small_phantom, workers=1).unchanged == 1
    assert snapshot(tmp_path) == before

    report = prepare("phantom", data_dir=tmp_path, options=small_phantom, preprocessing="ga", workers=1)
    assert report.written == 1
    assert all(before[name] == state for name, state in snapshot(tmp_path).items() if name in before)

    (raw / "RawData" / "Training" / "label" / "label0001.nii.gz").unlink()
    assert prepare("phantom", data_dir=tmp_path, options=small_phantom, workers=1).failed == {}
    other = prepare("phantom", data_dir=tmp_path, options={"size": [18, 16, 14]}, workers=1)
    assert other.written == 1
    store = Store.open(tmp_path, "phantom", "native")
    assert store.cases["0001"].shape == (18, 16, 14)
    assert store.options == PhantomOptions(size=(18, 16, 14)).model_dump(mode="json")


def test_the_options_of_the_phantom_are_checked(tmp_path):
    with pytest.raises(UsageError, match=r"options of phantom"):
        prepare("phantom", data_dir=tmp_path, options={"sise": [1, 2, 3]})
    with pytest.raises(UsageError, match=r"options of phantom: size"):
        prepare("phantom", data_dir=tmp_path, options={"size": [0, 2, 3]})


def test_real_ct_is_prepared_and_restored(real_data, tmp_path):
    """Two real scans, LAS and RAS, with and without resampling."""
    report = prepare("synapse", real_data("ct"), data_dir=tmp_path, preprocessing="native", workers=1)
    assert report.failed == {}
    store = Store.open(tmp_path, "synapse", "native")
    for id in store.cases:
        reference, _ = store.reference(id)
        assert np.array_equal(np.asarray(store.restore(id, store.label(id)).dataobj), reference)
    prepare("synapse", real_data("ct"), data_dir=tmp_path, preprocessing="ga", workers=1)
    store = Store.open(tmp_path, "synapse", "ga")
    for id in store.cases:
        liver = np.asarray(store.restore(id, store.label(id)).dataobj) == 6
        reference = store.reference(id)[0] == 6
        assert 2 * (liver & reference).sum() / (liver.sum() + reference.sum()) > 0.95
