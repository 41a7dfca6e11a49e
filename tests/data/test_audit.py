"""The audit of a prepared dataset: planted faults are found, shares are those of closed forms, lists are judged."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from sslbench.config.layers import load_recipe
from sslbench.core.errors import UnknownNameError, UsageError
from sslbench.core.files import read_json, write_json
from sslbench.data import audit as module
from sslbench.data.audit import AuditReport, audit, percent
from sslbench.data.datasets.acdc import ACDC
from sslbench.data.own.dataset import load_all
from sslbench.data.prepare import prepare
from sslbench.data.store import Store, case_files, fingerprint, sha256
from tests.helpers.scans import make_scan, write_pair

# Two patients of each list of the published split.
PATIENTS = {f"patient{number:03d}": [1, 12] for number in (99, 38, 28, 85, 11, 13)}


@pytest.fixture(scope="module")
def once(tmp_path_factory) -> Path:
    """A data folder with six ACDC patients, for all tests."""
    root = tmp_path_factory.mktemp("audit")
    for patient, frames in PATIENTS.items():
        for frame in frames:
            stem = root / "source" / patient / f"{patient}_frame{frame:02d}"
            scan = make_scan(int(patient[7:]) * 100 + frame, (24, 20, 2))
            write_pair(stem.with_name(f"{stem.name}.nii.gz"), stem.with_name(f"{stem.name}_gt.nii.gz"), scan)
    prepare("acdc", root / "source", data_dir=root / "data", workers=1)
    return root / "data"


@pytest.fixture
def prepared(once, tmp_path) -> Path:
    """A copy of it, to spoil."""
    return Path(shutil.copytree(once, tmp_path / "data"))


def rewrite(data: Path, id: str, **arrays: np.ndarray) -> None:
    """Put other arrays into the cache, with records and hashes that vouch for them: as a faulty preparation would."""
    folder = data / "acdc" / "ssl4mis"
    index = read_json(folder / "dataset.json")
    for kind, array in arrays.items():
        path = case_files(folder, id)[kind]
        np.save(path, array)
        index["cases"][id]["files"][kind] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    write_json(folder / "dataset.json", index)
    index["fingerprint"] = fingerprint({i: module.Case.from_json(i, case) for i, case in index["cases"].items()})
    write_json(folder / "dataset.json", index)


def arrays(data: Path, id: str) -> tuple[np.ndarray, np.ndarray]:
    folder = data / "acdc" / "ssl4mis"
    return tuple(np.load(case_files(folder, id)[kind]) for kind in ("image", "label"))  # type: ignore[return-value]


def found(report: AuditReport, check: str, severity: str) -> list[str]:
    return [f.message for f in report.findings if (f.check, f.severity) == (check, severity)]


def own_lists(data: Path, name: str, text: str) -> None:
    """Lists of the user's own for ACDC."""
    (data / "acdc" / "splits").mkdir(exist_ok=True)
    (data / "acdc" / "splits" / f"{name}.yaml").write_text(text)


@pytest.fixture(autouse=True)
def _forget_own(tmp_path):
    """No test leaves its data folder open."""
    yield
    load_all(tmp_path / "nothing")


# -------------------------------------------------------------------------------------------------------- contents


def test_a_sound_dataset_has_no_warning(prepared):
    report = audit("acdc", data_dir=prepared)
    assert {f.severity for f in report.findings} <= {"ok", "note"}
    assert (report.held, report.official) == (12, 200)
    for check in ("files", "voxels", "labels", "duplicates", "classes"):
        assert found(report, check, "ok"), check
    assert report.to_json()["status"] == "note"  # a subset
    json.dumps(report.to_json())


def test_a_changed_byte_is_found_and_the_other_cases_are_counted(prepared):
    path = case_files(prepared / "acdc" / "ssl4mis", "patient011_frame01")["label"]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    report = audit("acdc", data_dir=prepared)
    (message,) = found(report, "files", "error")
    assert "patient011_frame01" in message and "damaged" in message
    assert report.worst == "error"
    (message,) = found(report, "labels", "ok")
    assert message.endswith(" in the 11 cases that could be read")
    assert report.classes[0].cases == 11


def test_a_changed_reference_is_found(prepared):
    path = case_files(prepared / "acdc" / "ssl4mis", "patient011_frame01")["reference"]
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    assert "its reference" in found(audit("acdc", data_dir=prepared), "files", "error")[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_voxel_that_is_no_number_is_found(prepared, value):
    image, _ = arrays(prepared, "patient011_frame01")
    image[0, 0, 0] = value
    rewrite(prepared, "patient011_frame01", image=image)
    (message,) = found(audit("acdc", data_dir=prepared), "voxels", "error")
    assert message == "patient011_frame01: its image has voxels that are NaN or infinite"


def test_images_without_contrast_or_out_of_range_are_told(prepared):
    image, _ = arrays(prepared, "patient011_frame01")
    rewrite(prepared, "patient011_frame01", image=np.full_like(image, 0.5))
    rewrite(prepared, "patient013_frame01", image=(arrays(prepared, "patient013_frame01")[0] * 3).astype(image.dtype))
    report = audit("acdc", data_dir=prepared)
    assert found(report, "contrast", "warning") == ["patient011_frame01: every voxel of its image is 0.5"]
    assert found(report, "range", "warning") == ["patient013_frame01: its image goes from 0 to 3"]


def test_a_label_value_without_a_class_is_found(prepared):
    _, label = arrays(prepared, "patient011_frame01")
    label[0, 0, :2] = 4, 9
    rewrite(prepared, "patient011_frame01", label=label)
    (message,) = found(audit("acdc", data_dir=prepared), "labels", "error")
    assert message == "patient011_frame01: label values 4, 9 are not among the classes 0 to 3"


def test_classes_that_are_absent_or_lost_on_the_stored_grid_are_named(prepared):
    for id in Store.open(prepared, "acdc", "ssl4mis").cases:
        _, label = arrays(prepared, id)
        label[label == 2] = 0  # the record still counts it in the scan
        if id == "patient099_frame01":
            label[label == 3] = 0
        rewrite(prepared, id, label=label)
    report = audit("acdc", data_dir=prepared, splits="ssl4mis")
    assert found(report, "classes", "warning") == [
        "myocardium: in none of the 12 cases, so nothing can be learnt or scored"
    ]
    assert found(report, "classes", "note") == ["left ventricle: absent in 1 of 12 cases (patient099_frame01)"]
    assert len(found(report, "lost", "warning")) == 12
    assert "1 patient: myocardium in no labelled case" in found(report, "splits ssl4mis", "warning")
    row = report.classes[2]
    assert (row.name, row.voxels, row.share, row.cases) == ("myocardium", 0, 0.0, 0)


def test_a_label_of_nothing_but_background_is_told(prepared):
    _, label = arrays(prepared, "patient011_frame01")
    rewrite(prepared, "patient011_frame01", label=np.zeros_like(label))
    messages = found(audit("acdc", data_dir=prepared), "classes", "warning")
    assert messages == ["patient011_frame01: nothing but background, so the label may be missing"]


# ------------------------------------------------------------------------------------------- spacing, modality, rest


def respaced(data: Path, spacing: dict[str, list[float]]) -> None:
    path = data / "acdc" / "ssl4mis" / "dataset.json"
    index = read_json(path)
    for id, size in spacing.items():
        index["cases"][id]["geometry"]["from"]["spacing_mm"] = size
    write_json(path, index)


def test_spacings_that_do_not_belong_together_are_told(prepared):
    assert "a nominal size" in found(audit("acdc", data_dir=prepared), "spacing", "note")[0]
    ids = list(Store.open(prepared, "acdc", "ssl4mis").cases)
    respaced(prepared, {ids[0]: [1.5, 1.25, 40.0]})
    (message,) = found(audit("acdc", data_dir=prepared), "spacing", "warning")
    assert message == f"{ids[0]}: a voxel of 1.5 x 1.25 x 40 mm, where 1.5 x 1.25 x 4 mm is usual"
    respaced(prepared, {ids[0]: [1.5, 1.25, 5.0]})
    assert found(audit("acdc", data_dir=prepared), "spacing", "ok") == [
        "voxels of the scans from 1.5 x 1.25 x 4 mm to 1.5 x 1.25 x 5 mm"
    ]
    respaced(prepared, {ids[0]: [1.0, 1.0, 1.0]})
    assert "lost their spacing" in found(audit("acdc", data_dir=prepared), "spacing", "warning")[-1]
    respaced(prepared, {ids[0]: [1.5, 0.0, 4.0]})
    assert "not plausible" in found(audit("acdc", data_dir=prepared), "spacing", "error")[0]


@pytest.mark.parametrize(("known", "meaning"), [("unknown", "mean voxels"), ("published", "are nominal")])
def test_spacings_that_no_file_states_are_told(prepared, known, meaning):
    path = prepared / "acdc" / "ssl4mis" / "dataset.json"
    write_json(path, {**read_json(path), "spacing": known})
    (message,) = found(audit("acdc", data_dir=prepared), "spacing", "note")
    assert message.startswith("the files do not say how large a voxel is: ") and meaning in message


def test_mri_among_ct_is_counted_per_list(prepared, monkeypatch):
    mri = {"patient038_frame01", "patient011_frame01", "patient011_frame12"}
    monkeypatch.setattr(ACDC, "modality_of", classmethod(lambda kind, id: "mri" if id in mri else "ct"))
    report = audit("acdc", data_dir=prepared)
    (note,) = [f for f in report.findings if f.check == "modality"]
    assert note.message == "9 CT, 3 MRI scans" and set(note.cases) == mri
    larger = {f"{n} patients": 1 for n in (3, 7, 14, 21, 28, 35)}
    assert {row.part: row.mri for row in report.lists if row.mri} == {"train": 1, "test": 2, "100%": 1} | larger


def test_the_circulating_list_of_amos_is_judged_by_what_is_held(tmp_path):
    """A labelled and an unlabelled scan of that list are validation scans of its own; two of the five are MRI."""
    (tmp_path / "source").mkdir()
    for number, id in enumerate(("0030", "0066", "0538", "0595", "0008")):
        image, label, _ = make_scan(number, classes=16)
        for kind, array in (("image", image.astype(np.float32)), ("label", label)):
            np.save(tmp_path / "source" / f"amos_{id}_{kind}.npy", array)
    prepare("amos", tmp_path / "source", data_dir=tmp_path / "data", workers=1)
    report = audit("amos", data_dir=tmp_path / "data")
    assert found(report, "modality", "note") == ["3 CT, 2 MRI scans; MRI is clipped as CT here"]
    torn = "2 cases in train and in val: 0066, 0538"
    assert torn in found(report, "splits 20pct-leaking", "note") and not found(report, "splits dhc", "error")
    asked = audit("amos", data_dir=tmp_path / "data", splits="20pct-leaking")
    assert (asked.worst, torn in found(asked, "splits 20pct-leaking", "warning")) == ("warning", True)
    mri = {row.part: row.mri for row in report.lists if row.splits == "dhc" and row.mri}
    assert mri == {"train": 1, "val": 1, "10%": 1, "100%": 1}


def test_what_the_preparation_left_out_is_told(prepared):
    path = prepared / "acdc" / "ssl4mis" / "dataset.json"
    write_json(path, {**read_json(path), "failed": {"patient100_frame01": "its image is broken"}})
    assert found(audit("acdc", data_dir=prepared), "cases", "warning") == [
        "patient100_frame01 was left out when the dataset was prepared: its image is broken"
    ]


# ----------------------------------------------------------------------------------------------------------- lists


def test_held_and_official_counts_of_every_list(prepared):
    report = audit("acdc", data_dir=prepared)
    rows = {row.part: (row.official, row.held, row.cases) for row in report.lists}
    assert rows["train"] == (70, 2, 4)
    assert rows["val"] == (10, 2, 4)
    assert rows["test"] == (20, 2, 4)
    assert rows["1 patient"] == (1, 1, 2)
    assert rows["7 patients"] == (7, 2, 4)
    assert found(report, "splits ssl4mis", "note") == [
        "70/10/20 patients, held: 2 of 70 train, 2 of 10 val, 2 of 20 test"
    ]


def test_a_scan_on_two_sides_is_an_error_and_on_one_side_a_note(prepared):
    image, label = arrays(prepared, "patient099_frame01")
    other = label.copy()
    other[0, 0, 0] = 1
    rewrite(prepared, "patient038_frame01", image=image, label=other)  # both in train
    report = audit("acdc", data_dir=prepared)
    assert found(report, "duplicates", "note") == [
        "patient038_frame01, patient099_frame01 are the same image, annotated 2 times"
    ]
    assert not found(report, "splits ssl4mis", "error")
    other[0, 0, 0] = 2
    rewrite(prepared, "patient011_frame01", image=image, label=other)  # in test
    (message,) = found(audit("acdc", data_dir=prepared), "splits ssl4mis", "error")
    assert message.startswith("1 scan in train and in test: ")


def test_a_case_that_was_copied_is_an_error(prepared):
    image, label = arrays(prepared, "patient099_frame01")
    rewrite(prepared, "patient011_frame01", image=image, label=label)
    (message,) = found(audit("acdc", data_dir=prepared), "duplicates", "error")
    assert message == "patient011_frame01, patient099_frame01 are the same image with the same label"


TORN = """
unit: case
source: a test
{leaks}
budgets:
  1-case: {{title: 1 case, labeled: [patient099_frame01]}}
  2-cases: {{title: 2 cases, labeled: [patient038_frame01, patient028_frame01]}}
train: [patient099_frame01, patient038_frame01, patient028_frame01]
val: []
test: [patient099_frame12, patient011_frame01]
"""


def test_lists_that_leak_are_errors_unless_they_are_known_for_it(prepared):
    own_lists(prepared, "mine", TORN.format(leaks=""))
    report = audit("acdc", data_dir=prepared)
    (message,) = found(report, "splits mine", "error")
    assert message == "1 patient in train and in test: patient099_frame01, patient099_frame12"
    assert "its label budgets are not nested: 1 case and 2 cases share 0 of 1" in found(report, "splits mine", "note")
    assert any(m.startswith("7 cases are on none of its lists") for m in found(report, "splits mine", "note"))

    (prepared / "acdc" / "splits" / "mine.yaml").unlink()
    own_lists(prepared, "mine-leaking", TORN.format(leaks="leaks: frames of patient099 are on both sides"))
    report = audit("acdc", data_dir=prepared)
    assert report.worst == "note"  # it is there, but nobody asked for it
    notes = found(report, "splits mine-leaking", "note")
    assert "known to leak: frames of patient099 are on both sides" in notes and message in notes
    asked = audit("acdc", data_dir=prepared, splits="mine-leaking")
    assert asked.worst == "warning"
    assert message in found(asked, "splits mine-leaking", "warning")


def test_lists_that_overlap_are_an_error_of_their_own(prepared):
    own_lists(prepared, "bad", "unit: case\nbudgets: {a: {prefix: 1}}\ntrain: [patient099]\ntest: [patient099]\n")
    report = audit("acdc", data_dir=prepared)
    assert found(report, "splits bad", "error") == [
        "splits bad of acdc: 'patient099' stands in train and again in test"
    ]
    assert found(report, "splits ssl4mis", "ok")  # the others are looked at all the same


def test_unknown_names_are_refused(prepared):
    with pytest.raises(UnknownNameError, match="ssl4mis"):
        audit("acdc", data_dir=prepared, splits="ssl4mi")
    with pytest.raises(UsageError, match="recipe phantom trains on phantom"):
        audit("acdc", data_dir=prepared, recipe="phantom")
    with pytest.raises(UsageError, match="has not been prepared"):
        audit("synapse", data_dir=prepared)


# ---------------------------------------------------------------------------------------------------------- shares


def recipe(tmp_path: Path, base: str, patch: list[int], more: str = "") -> str:
    path = tmp_path / "drawn.yaml"
    path.write_text(f"extends: {base}\npatch_size: {patch}\naugment: {{weak: []}}\n{more}")
    return str(path)


def test_the_share_in_slices_of_the_patch_size_is_that_of_all_voxels(prepared, tmp_path):
    """Slices of 20 x 24 are neither cropped nor zoomed, and every one is drawn equally often."""
    report = audit("acdc", data_dir=prepared, recipe=recipe(tmp_path, "ssl4mis-acdc", [20, 24]))
    assert report.patches == 2 * 12 * 2
    for row in report.classes:
        assert row.patch_share == pytest.approx(row.share, rel=1e-12)
    assert sum(row.share for row in report.classes) == pytest.approx(1)
    labels = [arrays(prepared, id)[1] for id in Store.open(prepared, "acdc", "ssl4mis").cases]
    for value, row in enumerate(report.classes):
        assert row.voxels == sum(int((label == value).sum()) for label in labels)
        with_it = np.mean([(plane == value).any() for label in labels for plane in label])
        assert row.patches_with == pytest.approx(with_it)


def test_the_share_in_patches_of_a_volume_is_that_of_a_closed_form(tmp_path, monkeypatch):
    """Class 1 in every second plane is half of any even patch; the last planes are in no patch, as the papers' code
    leaves the last position out."""
    label = np.zeros((16, 16, 12), np.uint8)
    label[::2] = 1
    seen = module._Looked()
    monkeypatch.setattr(module, "PATCHES", 8)
    drawn = load_recipe(recipe(tmp_path, "metassl-la", [8, 8, 4], "inference: {stride: [4, 4, 4]}\n"))
    module._draw(label[None], label, drawn, 0, 3, seen)
    assert seen.patches == 8
    np.testing.assert_allclose(np.asarray(seen.patch_share) / 8, [0.5, 0.5, 0])
    label[:, :, -1] = 2
    seen = module._Looked()
    module._draw(label[None], label, drawn, 0, 3, seen)
    assert np.asarray(seen.patches_with).tolist() == [8, 8, 0]


def test_no_recipe_no_patches(prepared, monkeypatch):
    monkeypatch.setattr("sslbench.config.recipe.recipe_names", lambda: ())
    report = audit("acdc", data_dir=prepared)
    assert report.patches == 0 and report.classes[1].patch_share is None
    assert found(report, "patches", "note")


@pytest.mark.parametrize(
    ("share", "text"),
    [
        *((0, "0 %"), (0.0000341, "0.0034 %"), (0.01, "1.0 %"), (0.0123, "1.2 %"), (0.1, "10 %")),
        *((0.96, "96 %"), (0.9991, "99.9 %"), (0.99999, "> 99.9 %"), (1, "100 %")),
    ],
)
def test_percentages_have_two_digits(share, text):
    assert percent(share) == text


# -------------------------------------------------------------------------------------------------------- command


def test_the_command_prints_a_line_per_finding_and_ends_with_1_on_an_error(prepared, monkeypatch, capsys):
    from sslbench import cli

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["sslbench", "audit", *arguments, "--data-dir", str(prepared)])
        monkeypatch.setenv("COLUMNS", "160")
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capsys.readouterr().out

    code, out = call("acdc")
    assert code == 0
    for text in ("acdc (ssl4mis): 12 of 200 cases", "every file is as it was prepared", "of all voxels", "3 patients"):
        assert text in out
    assert out.rstrip().splitlines()[-1].startswith("note: 3 notes, ")
    code, out = call("acdc", "--json")
    facts = json.loads(out)
    assert (code, facts["status"], facts["held"]) == (0, "note", 12)
    assert len(facts["classes"]) == 4 and facts["classes"][1]["short"] == "rv"
    image, _ = arrays(prepared, "patient011_frame01")
    rewrite(prepared, "patient011_frame01", image=image * np.nan)
    code, out = call("acdc")
    assert code == 1 and out.rstrip().splitlines()[-1].startswith("error: 1 error, ")
    assert call("acdc", "--json")[0] == 1
    assert call("acdc", "--figure", "x.nothing")[0] == 2


# ------------------------------------------------------------------------------------------------------- real data


def test_real_acdc_has_the_voxels_of_its_table_and_two_scans_annotated_twice(real_data, tmp_path):
    """Eight patients, two of which are one; all 200 frames take half a minute."""
    patients = [f"patient{number:03d}" for number in (*range(1, 7), 74, 76)]
    for patient in patients:
        (tmp_path / patient).symlink_to(real_data("acdc") / "training" / patient, target_is_directory=True)
    prepare("acdc", tmp_path, data_dir=tmp_path / "data", workers=1)
    report = audit("acdc", data_dir=tmp_path / "data")
    told = [f.check for f in report.findings if f.severity != "ok"]
    assert told == ["cases", "spacing", "duplicates", "duplicates", "splits ssl4mis"]
    assert {id for f in report.findings if f.check == "duplicates" for id in f.cases} == {
        f"patient0{number}_frame{frame}" for number in (74, 76) for frame in ("01", "12")
    }
    with (real_data("acdc") / "frames.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["patient"] in patients]
    counted = [sum(int(row[f"voxels_{short}"]) for row in rows) for short in ("bg", "rv", "myo", "lv")]
    assert [row.voxels for row in report.classes] == counted
