"""Files as users have them: images without labels, units and scales in headers, palettes, 3D Slicer's segmentations,
byte-order marks, odd names, links in a circle, and more cases than a process may open files."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from sslbench.config.job import Job
from sslbench.config.splits import draw_splits, load_splits, read_split_file
from sslbench.config.text import load_yaml
from sslbench.core.errors import DataError, UsageError
from sslbench.core.files import atomic_path, read_json
from sslbench.core.settings import data_dir
from sslbench.data.files.damage import PNG
from sslbench.data.files.volumes import read_volume
from sslbench.data.own.dataset import load_all
from sslbench.data.own.define import define
from sslbench.data.own.layouts import read_described, read_pairs
from sslbench.data.own.planning import read_header
from sslbench.data.prepare import prepare
from sslbench.data.preprocess import restore, stored_nifti, to_stored
from sslbench.data.store import Store, partition
from sslbench.evaluation.pairs import read_labels
from tests.helpers import own_folders as folders
from tests.helpers.command_line import call

VOLUMES = {"shape": (24, 20, 18), "spacing": (1.5, 1.25, 2.0)}
CLASSES = ["liver", "tumour"]


@pytest.fixture(autouse=True)
def _closed(tmp_path):
    yield
    load_all(tmp_path / "nothing")


@pytest.fixture
def volume():
    return np.random.default_rng(0).integers(0, 9, (5, 6, 7)).astype(np.int16)


def part(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(path: Path, rows: np.ndarray, colour: int, depth: int = 8, *parts: tuple[bytes, bytes]) -> None:
    """A PNG of bytes (H, bytes of a row), not filtered, written without any library."""
    head = struct.pack(">IIBBBBB", rows.shape[1] // (2 if colour == 4 else 1), len(rows), depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    written = [(b"IHDR", head), *parts, (b"IDAT", data), (b"IEND", b"")]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PNG + b"".join(part(*each) for each in written))


# ----------------------------------------------------------------------------------------------- images without labels


@pytest.fixture
def five_of_twenty(tmp_path):
    """nnU-Net's folder with twenty images of which five have labels."""
    names = tuple(f"c{number:02d}" for number in range(20))
    source = folders.nnunet(tmp_path / "source", names, channels=("MR",), **VOLUMES)
    for name in names[5:]:
        (source / "labelsTr" / f"{name}.nii.gz").unlink()
    return source


def test_five_labels_of_twenty_train_a_mean_teacher_with_fifteen_unlabeled_scans(five_of_twenty, tmp_path):
    places = ("--data-dir", str(tmp_path / "data"))
    code, _, err = call("prepare", "mine", "--from-nnunet", str(five_of_twenty), "-j", "1", *places)
    assert code == 0 and "20 cases, 15 of them without a label" in err and "labelled 10% (1), 20% (3)" in err, err
    lists, store = load_splits("mine", "drawn-0"), Store.open(tmp_path / "data", "mine", "3d")
    labeled = {id for id, case in store.cases.items() if case.labeled}
    assert labeled == {f"c{number:02d}" for number in range(5)}
    assert {*lists.val, *lists.test} < labeled and len(lists.val) == len(lists.test) == 1
    assert not list((tmp_path / "data/mine/3d").rglob("c05.label*")), "no reference, no label"
    parts = partition(store, lists, "all")
    assert (len(parts.labeled), len(parts.unlabeled)) == (3, 15) and not {*parts.unlabeled} & labeled
    results = ("--results-dir", str(tmp_path / "results"))
    sets = [
        "schedule.iterations=2",
        "schedule.validate_every=1",
        "network.base_filters=2",
        "inference.stride=[16,16,16]",
    ]
    code, out, err = call(
        "run", "-r", "mine", "-m", "mt", "--labeled", "20%", "--threads", "1", "-j", "1", *places, *results,
        *(word for each in sets for word in ("--set", each)),
    )  # fmt: skip
    assert code == 0, err
    code, out, err = call("report", *results, *places)
    assert code == 0 and "Trained on 3 labelled + 15 unlabelled scans." in " ".join(out.split()), out + err


def test_a_budget_that_is_not_whole_is_refused_before_anything_starts_or_asked_for_by_name(tmp_path):
    source = folders.nnunet(tmp_path / "source", tuple(f"c{n}" for n in range(9)), channels=("MR",), **VOLUMES)
    define("mine", source, "nnunet", data_dir=tmp_path, budgets=["3"])
    first, second, third = load_splits("mine", "drawn-0").budget("3 cases").labeled
    (source / "labelsTr" / f"{first}.nii.gz").write_bytes(b"x")
    (source / "labelsTr" / f"{second}.nii.gz").unlink()
    report = prepare("mine", source, data_dir=tmp_path, workers=1)
    assert list(report.failed) == [first]
    where = ("--data-dir", str(tmp_path), "--results-dir", str(tmp_path / "results"))
    code, _, err = call("run", "-r", "mine", "-m", "mt", "--labeled", "3 cases", *where)
    assert code == 2 and f"{first} was refused" in err and f"{second} has no label" in err, err
    assert "--labeled '3-cases-held'" in err and not (tmp_path / "results").exists()
    store, lists = Store.open(tmp_path, "mine", "3d"), load_splits("mine", "drawn-0")
    parts = partition(store, lists, "3-cases-held")
    assert parts.labeled == (third,) and second in parts.unlabeled and first not in parts.unlabeled
    whole, held = (Job(recipe="mine", method="mt", labeled=name) for name in ("3 cases", "3 cases-held"))
    assert held.directory.parts[1] == "3-cases-held" != whole.directory.parts[1]
    assert lists.budget("3-cases-held").title == "3 cases (as held)"


@pytest.mark.parametrize("mixed", [False, True])
def test_lists_are_drawn_over_patients_with_labels_alone(mixed):
    patients = {f"p{n}": [f"p{n}_a", f"p{n}_b"] for n in range(12)}
    bare = [case for n in range(5, 12) for case in patients[f"p{n}"]] + (["p0_b", "p1_b", "p2_b"] if mixed else [])
    lists = draw_splits("mine", "drawn", patients, unlabeled=bare, budgets=["1", "10%", "100%"])
    if not mixed:
        assert {*lists.val, *lists.test} < {f"p{n}" for n in range(5)} and len(lists.train) == 10
        assert [len(budget.labeled) for budget in lists.budgets.values()] == [1, 3]
        assert lists.budget("all").title == "3 patients"
        return
    entries = {*lists.val, *lists.test, *lists.budget("all").labeled}
    assert not entries & {*bare}, "of patients with cases of both kinds, entries are cases"
    assert {*bare} & {*lists.train} and not {case[:-2] for case in lists.train} & {case[:-2] for case in lists.test}


def test_with_every_label_lists_are_drawn_as_ever():
    """Digests of existing jobs hash these lists."""
    lists = draw_splits("mine", "drawn-0", {f"m{n:02d}": [f"m{n:02d}"] for n in range(1, 10)})
    assert lists.test == ("m05", "m08") or len(lists.test) == 2
    assert [*lists.budgets] == ["20pct", "100pct"] and lists.budgets["100pct"].aliases == ("6 cases", "all")


def test_lists_of_the_users_name_no_case_without_a_label_for_testing(five_of_twenty, tmp_path):
    file = tmp_path / "lists.yaml"
    file.write_text("train: [c00, c05]\ntest: [c06]\n")
    with pytest.raises(UsageError, match="test names c06, and c06 has no label"):
        define("mine", five_of_twenty, "nnunet", data_dir=tmp_path, splits=file)
    file = tmp_path / "splits_final.json"
    file.write_text(json.dumps([{"train": ["c00", "c01", "c02"], "val": ["c03", "c04"]}]))
    made = define("mine", five_of_twenty, "nnunet", data_dir=tmp_path, splits=file, budgets=["2", "100%"])
    assert len(made.splits[0].train) == 18 and "15 cases without a label added" in made.splits[0].source
    assert [len(budget.labeled) for budget in made.splits[0].budgets.values()] == [2, 3]


def test_official_cases_without_a_label_are_for_training_alone(acdc_source, tmp_path):
    lists = load_splits("acdc", "ssl4mis")
    few, others = (
        lists.budget("3 patients").labeled,
        [p for p in lists.train if p not in lists.budget("7 patients").labeled],
    )
    source = acdc_source({patient: [1, 2] for patient in (*few, others[0], lists.test[0], lists.test[1])})
    for patient in (others[0], lists.test[1]):
        for path in source.rglob(f"{patient}*_gt.nii.gz"):
            path.unlink()
    report = prepare("acdc", source, data_dir=tmp_path, workers=1)
    assert report.failed == {} and any(note.startswith("4 cases without a label") for note in report.notes)
    parts = partition(Store.open(tmp_path, "acdc", "ssl4mis"), lists, "3 patients")
    assert [id[:10] for id in parts.unlabeled] == [others[0]] * 2
    assert {id[:10] for id in parts.test} == {lists.test[0]}


def test_a_class_that_no_labeled_case_has_is_said_by_prepare(tmp_path):
    source = folders.nnunet(tmp_path / "source", tuple(f"c{n}" for n in range(9)), channels=("MR",), **VOLUMES)
    made = define("mine", source, "nnunet", data_dir=tmp_path, budgets=["1", "100%"])
    (first,) = made.splits[0].budget("1 case").labeled
    path = source / "labelsTr" / f"{first}.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.minimum(np.asarray(image.dataobj), 1), image.affine), path)
    notes = prepare("mine", source, data_dir=tmp_path, workers=1).notes
    assert any("in no labelled case" in note and note.endswith("1 case: tumour") for note in notes), notes


# ---------------------------------------------------------------------------------------------------------- headers


@pytest.mark.parametrize(("unit", "mm"), [("unknown", 1), ("meter", 1000), ("mm", 1), ("micron", 0.001)])
def test_both_readers_agree_on_the_unit_of_space(tmp_path, volume, unit, mm):
    affine = np.diag([0.5, -0.25, 2.0, 1])
    affine[:3, 3] = (5, 6, 7)
    image = nib.Nifti1Image(volume, affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii.gz")
    _, found, header = read_volume(tmp_path / "a.nii.gz")
    other = SimpleITK.ReadImage(str(tmp_path / "a.nii.gz"))
    np.testing.assert_allclose(np.linalg.norm(found[:3, :3], axis=0), other.GetSpacing(), rtol=1e-6)
    np.testing.assert_allclose(found[:3, 3] * (-1, -1, 1), other.GetOrigin(), rtol=1e-6)
    np.testing.assert_allclose(np.diag(found)[:3], mm * np.diag(affine)[:3], rtol=1e-6)
    np.testing.assert_allclose(read_header(tmp_path / "a.nii.gz")[1], found)
    # A prediction has the scan's own header, and its place on the grid that networks see is in mm.
    grid = {"shape": list(volume.shape), "spacing_mm": [0.5 * mm, 0.25 * mm, 2 * mm]}
    turn = [[0, 1], [1, 1], [2, 1]]
    geometry = {"header": header, "shape": list(volume.shape), "turn": turn, "from": grid, "to": grid, "axes": "xyz"}
    made = restore(volume.astype(np.uint8), geometry)
    assert made.header.get_xyzt_units()[0] == unit and np.allclose(made.affine, affine)
    np.testing.assert_allclose(stored_nifti(volume, geometry).affine, found, rtol=1e-5)
    assert np.array_equal(to_stored(volume, geometry), volume)


def test_a_unit_that_means_nothing_and_two_sizes_of_a_voxel_are_refused_by_name(tmp_path, volume, raw_case, scan):
    image = nib.Nifti1Image(volume, np.eye(4))
    image.header["xyzt_units"] = 5
    nib.save(image, tmp_path / "a.nii")
    for read in (read_volume, read_header):
        with pytest.raises(DataError, match=r"a\.nii: the unit of space .* code 5"):
            read(tmp_path / "a.nii")
    from sslbench.data.datasets.synapse import Synapse
    from sslbench.data.preprocess import load_case

    raw = raw_case(scan(1, classes=14))
    image = nib.load(raw.image)
    image.header["pixdim"][1:4] = 1
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), raw.image)
    with pytest.raises(DataError, match=r"two sizes of a voxel: 1\.5 x 1\.25 x 4 mm by its affine, 1 x 1 x 1 mm"):
        load_case(raw, Synapse)


NRRD = (
    "NRRD0004\ntype: short\ndimension: 3\nspace: {space}\nsizes: 5 6 7\n"
    "space directions: (1.5,0,0) (0,1.25,0) (0,0,4)\nspace origin: (5,6,7)\nendian: little\nencoding: raw\n{more}\n"
)
MHA = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nOffset = 5 6 7\n"
    "ElementSpacing = 1.5 1.25 4\n{more}DimSize = 5 6 7\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
)


@pytest.mark.parametrize(
    ("header", "mm"),
    [
        (NRRD.format(space="RAS", more=""), 1),
        (NRRD.format(space="RAS", more='space units: "um" "um" "um"\n'), 0.001),
        (NRRD.format(space="left-posterior-superior", more='space units: "cm" "cm" "cm"\n'), 10),
        (MHA.format(more=""), 1),
        (MHA.format(more="DistanceUnits = um\n"), 0.001),
        (MHA.format(more="DistanceUnits = cm\n"), 10),
    ],
)
def test_the_unit_of_an_nrrd_or_mha_file_is_heeded(tmp_path, volume, header, mm):
    path = tmp_path / ("a.nrrd" if header.startswith("NRRD") else "a.mha")
    path.write_bytes(header.encode() + volume.T.tobytes())
    voxels, affine, _ = read_volume(path)
    assert np.array_equal(voxels, volume)
    sign = 1 if "RAS" in header else -1
    np.testing.assert_allclose(affine[:3, :3], mm * np.diag([sign * 1.5, sign * 1.25, 4]))
    np.testing.assert_allclose(affine[:3, 3], mm * np.array([sign * 5, sign * 6, 7]))
    np.testing.assert_allclose(read_header(path)[1], affine)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (NRRD.format(space="RAS", more='space units: "inch" "inch" "inch"\n'), "unit of space .*inch"),
        (NRRD.format(space="RAS", more="old min: 0\nold max: 12.5\n"), "quantised"),
        (NRRD.format(space="inferior-posterior-left", more=""), "couldn't parse space"),
        (MHA.format(more="AnatomicalOrientation = LPI\n"), "axes are given as LPI"),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name_and_not_called_damaged(tmp_path, volume, header, reason):
    path = tmp_path / ("a.nrrd" if header.startswith("NRRD") else "a.mha")
    path.write_bytes(header.encode() + volume.T.tobytes())
    with pytest.raises(DataError, match=reason) as refused:
        read_volume(path)
    assert "damaged" not in refused.value.message and "\n" not in refused.value.message


def test_scale_factors_make_the_values(tmp_path, volume):
    image = nib.Nifti1Image(volume, np.eye(4))
    image.header.set_slope_inter(2, 10)
    nib.save(image, tmp_path / "a.nii")
    more = "ElementToIntensityFunctionSlope = 2\nElementToIntensityFunctionOffset = 10\n"
    (tmp_path / "a.mha").write_bytes(MHA.format(more=more).encode() + volume.T.tobytes())
    other = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "a.nii"))).T
    for name in ("a.nii", "a.mha"):
        assert np.array_equal(read_volume(tmp_path / name, np.float32)[0], other), name


def test_labels_that_nibabel_scaled_are_the_classes_and_it_is_said(tmp_path):
    source = folders.nnunet(tmp_path / "source", tuple(f"c{n}" for n in range(6)), channels=("MR",), **VOLUMES)
    define("mine", source, "nnunet", data_dir=tmp_path)
    wanted = {}
    for number, path in enumerate(sorted((source / "labelsTr").iterdir())):
        label = nib.load(path)
        wanted[path.name] = np.asarray(label.dataobj)
        scaled = nib.Nifti1Image(wanted[path.name] + (0.3 if number == 5 else 0.0), label.affine)
        scaled.header.set_data_dtype(np.int16)
        nib.save(scaled, path)
    assert read_volume(source / "labelsTr" / "c0.nii.gz")[0].dtype.kind == "f"
    report = prepare("mine", source, data_dir=tmp_path, workers=1)
    assert list(report.failed) == ["c5"] and "0.29999" in report.failed["c5"] and "uint8" in report.failed["c5"]
    assert any(note.startswith("labels of 5 cases are stored with a scale factor") for note in report.notes)
    store = Store.open(tmp_path, "mine", "3d")
    for id in store.cases:
        assert np.array_equal(store.reference(id)[0], wanted[f"{id}.nii.gz"])
        assert np.array_equal(read_labels(source / "labelsTr" / f"{id}.nii.gz")[0], wanted[f"{id}.nii.gz"])


# --------------------------------------------------------------------------------------------------- pictures, masks


def test_the_indices_of_a_palette_are_the_classes(tmp_path):
    rng = np.random.default_rng(0)
    colours = (b"PLTE", bytes([0, 0, 0, 128, 0, 0, 0, 128, 0]))
    indices = {}
    for name in ("a", "b", "c", "d"):
        indices[name] = rng.integers(0, 3, (40, 48)).astype(np.uint8)
        write_png(tmp_path / "source" / f"{name}.png", rng.integers(0, 255, (40, 48)).astype(np.uint8), 0)
        write_png(tmp_path / "source" / f"{name}_mask.png", indices[name], 3, 8, colours, (b"tRNS", b"\0"))
    define("mine", tmp_path / "source", "pairs", data_dir=tmp_path, classes=CLASSES)
    assert prepare("mine", tmp_path / "source", data_dir=tmp_path, workers=1).failed == {}
    store = Store.open(tmp_path, "mine", "2d")
    for name, mask in indices.items():
        assert np.array_equal(store.label(name)[0], mask)
    packed = np.packbits(np.unpackbits(indices["a"][..., None], axis=2)[..., 6:].reshape(40, -1), axis=1)
    head = struct.pack(">IIBBBBB", 48, 40, 2, 3, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in packed))
    small = PNG + part(b"IHDR", head) + part(*colours) + part(b"IDAT", rows) + part(b"IEND", b"")
    (tmp_path / "two-bit.png").write_bytes(small)
    assert np.array_equal(read_volume(tmp_path / "two-bit.png", indices="always")[0][..., 0].T, indices["a"])
    assert read_volume(tmp_path / "two-bit.png")[0].shape[0] == 3, "an image with a palette has its colours"


@pytest.mark.parametrize("depth", [8, 16])
def test_grey_with_opacity_is_read_as_grey(tmp_path, depth):
    grey = np.random.default_rng(0).integers(0, 2**depth, (11, 13)).astype(f">u{depth // 8}")
    both = np.stack([grey, np.full_like(grey, 7)], axis=-1).astype(grey.dtype).reshape(11, -1).view(np.uint8)
    head = struct.pack(">IIBBBBB", 13, 11, depth, 4, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in both))
    content = PNG + part(b"IHDR", head) + part(b"IDAT", data) + part(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(content)
    assert np.array_equal(read_volume(tmp_path / "a.png")[0][..., 0].T, grey)
    (tmp_path / "cut.png").write_bytes(content[:-20])
    with pytest.raises(DataError, match="damaged or incomplete: its end is missing"):
        read_volume(tmp_path / "cut.png")


def test_nothing_that_a_library_prints_reaches_the_screen(tmp_path, capfd):
    rows = np.random.default_rng(0).integers(0, 255, (11, 13)).astype(np.uint8)
    write_png(tmp_path / "a.png", rows, 0, 8, (b"iCCP", b"x\0\0" + zlib.compress(b"short")))
    assert np.array_equal(read_volume(tmp_path / "a.png")[0][..., 0].T, rows)
    image = nib.Nifti1Image(rows[..., None].astype(np.int16), np.eye(4))
    image.header["pixdim"][0] = 7
    image.to_filename(tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[76:80] = struct.pack("<f", 7)
    (tmp_path / "a.nii").write_bytes(bytes(content))
    read_volume(tmp_path / "a.nii")
    read_header(tmp_path / "a.nii")
    assert capfd.readouterr() == ("", "")


def test_whole_files_are_not_called_damaged(tmp_path, volume):
    nib.save(nib.Nifti2Image(volume, np.eye(4)), tmp_path / "two.nii.gz")
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "plain.nii")
    (tmp_path / "plain.nii").rename(tmp_path / "plain.nii.gz")
    for name in ("two", "plain"):
        assert np.array_equal(read_volume(tmp_path / f"{name}.nii.gz")[0], volume), name
    nib.save(nib.Nifti1Image(volume.astype(np.complex64), np.eye(4)), tmp_path / "complex.nii")
    with pytest.raises(DataError, match="voxels of type complex64 are not numbers"):
        read_volume(tmp_path / "complex.nii")
    content = (tmp_path / "plain.nii.gz").read_bytes()
    (tmp_path / "cut.nii").write_bytes(content[:-9])
    with pytest.raises(DataError, match=r"damaged or incomplete: it holds \d+ of \d+ bytes"):
        read_volume(tmp_path / "cut.nii")
    picture = SimpleITK.GetImageFromArray(np.arange(99, dtype=np.uint8).reshape(9, 11))
    SimpleITK.WriteImage(picture, str(tmp_path / "a.jpg"))
    (tmp_path / "renamed.png").write_bytes((tmp_path / "a.jpg").read_bytes())
    assert np.array_equal(read_volume(tmp_path / "renamed.png")[0], read_volume(tmp_path / "a.jpg")[0])


@pytest.mark.parametrize("name", ["a.nii.gz", "a.png", "a.nrrd"])
def test_errors_of_the_system_are_named_as_what_they_are(tmp_path, name, monkeypatch):
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=f"{name}: Is a directory"):
        read_volume(tmp_path / name)

    def many(path):
        raise OSError(24, "Too many open files", str(path))

    monkeypatch.setattr(Path, "read_bytes", many)
    with pytest.raises(DataError, match=f"{name}: Too many open files$"):
        read_volume(tmp_path / name)


def test_slicers_segmentation_belongs_to_its_scan(tmp_path, volume):
    label = np.zeros((24, 20, 12), np.uint8)
    label[4:9, 5:8, 3:6], label[10:14, 5:8, 3:6] = 1, 2
    affine = np.diag([-1.0, -1, 2, 1])
    rng = np.random.default_rng(0)
    for number in range(5):
        image = rng.integers(0, 99, label.shape).astype(np.int16)
        folders.write_volume(tmp_path / "source" / f"case{number}.nrrd", image, affine)
        folders.write_volume(tmp_path / "source" / f"case{number}.seg.nrrd", label, affine)
    cropped = affine.copy()
    cropped[:3, 3] = affine[:3, :3] @ (4, 5, 3)
    folders.write_volume(tmp_path / "source" / "case1.seg.nrrd", label[4:14, 5:8, 3:6], cropped)
    held = read_pairs(tmp_path / "source", CLASSES)
    assert [(case.id, case.label.name) for case in held.cases][:1] == [("case0", "case0.seg.nrrd")]
    define("mine", tmp_path / "source", "pairs", data_dir=tmp_path, classes=CLASSES, dims=3)
    assert prepare("mine", tmp_path / "source", data_dir=tmp_path, workers=1).failed == {}
    store = Store.open(tmp_path, "mine", "3d")
    for id in store.cases:  # the second one was saved without the background around it
        assert np.array_equal(store.reference(id)[0], label)


# ------------------------------------------------------------------------------------------------- text, names, links


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_are_read_over(tmp_path, encoding):
    source = folders.nnunet(tmp_path / "source", ("a", "b"), **VOLUMES)
    for path in (source / "dataset.json",):
        path.write_bytes(path.read_text().replace("\n", "\r\n").encode(encoding))
    assert read_described(source).classes == ("organ", "tumour")
    (tmp_path / "x.yaml").write_bytes("train: [a]\r\ntest: [b]\r\n".encode(encoding))
    assert load_yaml(tmp_path / "x.yaml") == {"train": ["a"], "test": ["b"]}
    (tmp_path / "x.json").write_bytes(b'[{"train": ["a"], "val": ["b"]}]'.decode().encode(encoding))
    assert read_split_file(tmp_path / "x.json")["fold-0"]["train"] == ["a"]
    (tmp_path / "train.list").write_bytes("a\r\nb.h5\r\n\r\n".encode(encoding))
    (tmp_path / "test.list").write_bytes("data/c.nii.gz\n".encode(encoding))
    assert read_split_file(tmp_path / "train.list")["lists"] | {"source": ""} == {
        "train": ["a", "b"], "test": ["c"], "source": "",
    }  # fmt: skip


def test_lists_of_ssl4mis_beside_the_data_are_taken(tmp_path):
    source = folders.nnunet(tmp_path / "source", ("a", "b", "c", "d"), channels=("MR",), **VOLUMES)
    (source / "train.list").write_text("a\nc\nd\n")
    (source / "test.list").write_text("b\n")
    made = define("mine", source, "nnunet", data_dir=tmp_path, budgets=["1"])
    assert [(lists.name, lists.train, lists.val, lists.test) for lists in made.splits] == [
        ("lists", ("a", "c", "d"), (), ("b",)),
    ]  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"\0\1\2\xff", b"\xff\xfe\0", b"[" * 3000])
def test_an_empty_or_binary_description_is_one_line(tmp_path, content):
    source = folders.nnunet(tmp_path / "source", ("a", "b"), **VOLUMES)
    (tmp_path / "x.yaml").write_bytes(content)
    (source / "dataset.json").write_bytes(content)
    for arguments in (
        ("prepare", "mine", "--from-nnunet", str(source)),
        ("run", "-r", str(tmp_path / "x.yaml"), "-m", "mt"),
        ("run", "--grid", str(tmp_path / "x.yaml")),
    ):
        code, _, err = call(*arguments, "--data-dir", str(tmp_path / "data"))
        assert code == 2 and "bug" not in err and err.startswith("error: "), (arguments, err)


@pytest.mark.parametrize("name", ["a\nb", "\udcff", "a\x1b[31m"])
def test_a_name_that_no_line_can_hold_is_refused_in_one(tmp_path, name):
    source = folders.nnunet(tmp_path / "source", ("a",), **VOLUMES)
    image = source / "imagesTr" / "a_0000.nii.gz"
    os.link(image, os.fsencode(source / "imagesTr") + b"/" + os.fsencode(name) + b"_0000.nii.gz")
    code, _, err = call("prepare", "mine", "--from-nnunet", str(source), "--data-dir", str(tmp_path))
    assert code == 2 and "cannot be a case" in err and len(err.splitlines()) == 2, err


@pytest.mark.parametrize("name", ["-x", "a b", "100%", "a'b", "ü", "$(x)"])
def test_odd_names_are_cases_like_others(tmp_path, name):
    source = folders.nnunet(tmp_path / "source", (name, "b", "c", "d"), channels=("MR",), **VOLUMES)
    code, _, err = call("prepare", "mine", "--from-nnunet", str(source), "-j", "1", "--data-dir", str(tmp_path))
    assert code == 0, err
    assert name in Store.open(tmp_path, "mine", "3d").cases


def test_a_link_that_leads_back_up_is_passed_over(tmp_path, synapse_source):
    source = synapse_source(["0001", "0002"])
    (source / "RawData" / "again").symlink_to(source)
    (source / "RawData" / "other").symlink_to(source / "RawData" / "Training" / "img")
    assert prepare("synapse", source, data_dir=tmp_path / "data", workers=1).written == 2
    pairs = folders.pairs(tmp_path / "pairs", ("a", "b"))
    (pairs / "up").symlink_to(pairs)
    assert [case.id for case in read_pairs(pairs, ["gland"]).cases] == ["a", "b"]


def test_a_label_that_is_a_link_to_nowhere_is_a_fault(five_of_twenty, tmp_path):
    (five_of_twenty / "labelsTr" / "c19.nii.gz").symlink_to(tmp_path / "annex" / "gone")
    define("mine", five_of_twenty, "nnunet", data_dir=tmp_path)
    failed = prepare("mine", five_of_twenty, data_dir=tmp_path, workers=1).failed
    assert list(failed) == ["c19"] and "link to a file that is not there" in failed["c19"]


def test_the_home_folder_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SSLBENCH_DATA", "~/x")
    assert data_dir() == tmp_path / "x" and data_dir("~/y") == tmp_path / "y"
    with pytest.raises(UsageError, match="home folder of ~nobody-there"):
        data_dir("~nobody-there/x")


def test_a_full_disk_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 0}))
    with pytest.raises(OSError, match="No space left") as full, atomic_path(tmp_path / "a.npy"):
        raise OSError("24 requested and 0 written")  # NumPy's words
    assert full.value.filename == str(tmp_path) and not list(tmp_path.iterdir())


def test_json_that_is_a_folder_or_nested_without_end_is_no_value(tmp_path):
    (tmp_path / "a.json").mkdir()
    (tmp_path / "b.json").write_text("[" * 100_000)
    assert read_json(tmp_path / "a.json") is None and read_json(tmp_path / "b.json") is None


# ---------------------------------------------------------------------------------------------------- many, and small


_MANY = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
import torch
from pathlib import Path
from sslbench.config.job import Job
from sslbench.data.own.dataset import load_all
from sslbench.config.splits import load_splits
from sslbench.data.store import Store, partition
from sslbench.execution.worker import prepare_experiment
data = Path(sys.argv[1])
load_all(data)
small = {"batch.labeled": 2, "batch.unlabeled": 2}
resolved = Job(recipe="mine", method="mt", labeled="100 cases", set=small).resolved
store = Store.open(data, "mine", "2d")
parts = partition(store, load_splits("mine", "drawn-0"), "100 cases")
experiment = prepare_experiment(resolved, store, parts, torch.device("cpu"))
batch = experiment.sampler.batch(0)
assert [case.label.max() for case in experiment.validation] and batch.image["weak"].shape[0] == 4
print(len(parts.labeled), len(parts.unlabeled), len(experiment.validation), len(parts.test))
"""


def test_400_pictures_train_under_a_limit_of_256_files(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(400):
        rows = rng.integers(0, 255, (16, 16)).astype(np.uint8)
        write_png(tmp_path / "source" / f"p{number:04d}.png", rows, 0)
        if number < 200:
            write_png(tmp_path / "source" / f"p{number:04d}_mask.png", (rows > 128).astype(np.uint8), 0)
    define("mine", tmp_path / "source", "pairs", data_dir=tmp_path, classes=["cell"], budgets=["100"])
    assert prepare("mine", tmp_path / "source", data_dir=tmp_path, workers=1).written == 400
    done = subprocess.run([sys.executable, "-c", _MANY, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["100", "240", "20", "40"]


@pytest.mark.parametrize("method", ["bcp", "abd", "beta_fft", "sdcl"])
def test_a_patch_that_leaves_nothing_to_normalise_by_is_refused_beforehand(tmp_path, method):
    source = folders.nnunet(tmp_path / "source", tuple(f"c{n}" for n in range(6)), channels=("MR",), **VOLUMES)
    define("mine", source, "nnunet", data_dir=tmp_path)
    job = {"recipe": "mine", "method": method, "labeled": "1 case"}
    with pytest.raises(UsageError, match=r"one voxel in the deepest stage .*larger patch_size, .*\[32, 32, 32\]"):
        Job(**job).canonical()
    assert Job(**job, set={"patch_size": [32, 32, 32], "inference.stride": [16, 16, 16]}).resolved
