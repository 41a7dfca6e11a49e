"""LA: its layouts and label values, NRRD geometry, the crop around the label and the way back."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from sslbench.config.job import Job
from sslbench.config.splits import load_splits
from sslbench.core import registry
from sslbench.core.errors import DataError, UnknownNameError, UsageError
from sslbench.data.base import OWN_DATA, LabelCrop, Preprocessing
from sslbench.data.datasets.acdc import ACDC
from sslbench.data.datasets.la import LA
from sslbench.data.datasets.phantom import Phantom
from sslbench.data.datasets.synapse import Synapse
from sslbench.data.files.volumes import read_volume
from sslbench.data.geometry import label_box
from sslbench.data.prepare import prepare
from sslbench.data.preprocess import load_case, preprocess, restore, stored_nifti
from sslbench.data.store import Store, partition

sitk = pytest.importorskip("SimpleITK")

FIRST, SECOND, TEST = "06SR5RBREL16DQ6M8LWS", "0RZDK210BSMWAA6467LU", "UPT6DX9IQY9JAZ7HJKA7"
STRANGER = "AAAAAAAAAAAAAAAAAAAA"
CROP = LA.preprocessings["uamt-labelcrop"].crop
SHAPE = (190, 170, 6)
BOX = (slice(60, 101), slice(90, 105), slice(1, 4))  # of the foreground
ANGLE = 0.2
OBLIQUE = {
    "direction": (np.cos(ANGLE), -np.sin(ANGLE), 0, np.sin(ANGLE), np.cos(ANGLE), 0, 0, 0, 1),
    "origin": (-101.5, 37.25, 12.125),
    "spacing": (0.625, 0.75, 1.25),
}


def make(seed=0, shape=SHAPE, box=BOX, foreground=255):
    """A uint8 image and label (X, Y, Z) whose foreground is a random blob that touches all sides of `box`."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 200, shape).astype(np.uint8)
    label = np.zeros(shape, np.uint8)
    blob = rng.random([part.stop - part.start for part in box]) < 0.6
    blob[0, 0, 0] = blob[-1, -1, -1] = True
    label[box] = blob * np.uint8(foreground)
    return image, label


def write(path, voxels, direction=(1, 0, 0, 0, 1, 0, 0, 0, 1), origin=(0, 0, 0), spacing=(0.625, 0.625, 0.625)):
    """Write (X, Y, Z) as gzipped NRRD, as the challenge does."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
    image.SetDirection([float(value) for value in direction])
    image.SetOrigin([float(value) for value in origin])
    image.SetSpacing([float(value) for value in spacing])
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), useCompression=True)


@pytest.fixture
def source(tmp_path):
    """Writes the official layout: `source([FIRST, TEST], inside="training")`."""

    def build(ids, inside="training", geometry=None, **scan):
        root = tmp_path / "la-source"
        for number, id in enumerate(ids):
            image, label = make(number, **scan)
            write(root / inside / id / "lgemri.nrrd", image, **(geometry or {}))
            write(root / inside / id / "laendo.nrrd", label, **(geometry or {}))
        return root

    return build


def load(root, id=FIRST):
    """The case as `prepare` would read it."""
    (raw,) = [raw for raw in LA().find(root) if raw.id == id]
    return load_case(raw, LA)


# --------------------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("inside", ["", "training", "Training Set", "2018LA_Seg_Training Set"])
def test_la_is_found_in_all_its_layouts(source, inside):
    root = source([TEST, FIRST], inside)
    (root / inside / FIRST / "lawall.nrrd").write_bytes(b"")
    (root / inside / "notes").mkdir()
    dataset = LA()
    raws = dataset.find(root)
    assert [(raw.id, raw.group) for raw in raws] == [(FIRST, FIRST), (TEST, TEST)]
    assert all(raw.image.name == "lgemri.nrrd" and raw.label.name == "laendo.nrrd" for raw in raws)
    assert all(raw.image.is_file() and raw.label.is_file() for raw in raws)
    assert dataset.notes == []


def test_ids_on_no_list_are_left_out_and_named(source):
    dataset = LA()
    assert [raw.id for raw in dataset.find(source([FIRST, STRANGER]))] == [FIRST]
    assert dataset.notes == [f"left out 1 case on no official list of la: {STRANGER}; own data: {OWN_DATA}"]


def test_what_is_no_la_is_refused_in_one_line(source, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other" / FIRST).mkdir(parents=True)
    (tmp_path / "other" / FIRST / "scan.nrrd").write_bytes(b"")
    foreign = source([STRANGER])
    nothing = r"nothing of la is in .*: no file of LA's scans \(<20 letters and digits>/lgemri\.nrrd"
    stray = f"holds 1 case on no official list of la: {STRANGER}"
    for root, message in ((foreign, stray), (tmp_path / "empty", nothing), (tmp_path / "other", nothing)):
        with pytest.raises(UsageError, match=message) as raised:
            prepare("la", root, data_dir=tmp_path / "data", workers=1)
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "data").exists()


def test_a_part_of_the_release_is_accepted_and_said_and_a_missing_label_is_named(source, tmp_path):
    root = source([FIRST, SECOND, TEST])
    (root / "training" / SECOND / "laendo.nrrd").unlink()
    report = prepare("la", root, data_dir=tmp_path, workers=1)
    assert (report.found, report.official, report.written, report.preprocessing) == (3, 100, 2, "uamt-labelcrop")
    assert list(report.failed) == [SECOND]
    assert "has no label, and this preprocessing cuts around one" in report.failed[SECOND]
    store = Store.open(tmp_path, "la", "uamt-labelcrop")
    assert store.is_subset and list(store.cases) == [FIRST, TEST]
    assert prepare("la", root, data_dir=tmp_path, workers=1).unchanged == 2


def test_budgets_are_prefixes_of_the_published_list():
    splits = load_splits("la", "uamt")
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [80, 0, 20]
    assert all(len(id) == 20 for id in (*splits.train, *splits.test))
    assert (splits.train[0], splits.train[-1]) == (FIRST, "UZUZZT2W9IUSHL6ASOX3")
    assert (splits.test[0], splits.test[-1]) == (TEST, "ZQPMJ4XEC5A4BISD45P1")
    names = {2: ["2 scans", "2 volumes"], 4: ["4 scans", "4 volumes", "5%"], 8: ["8 scans", "8 volumes", "10%"]}
    names |= {16: ["16 scans", "16 volumes", "20%"], 80: ["100%", "all"]}
    for count, spellings in names.items():
        for text in spellings:
            assert splits.budget(text).labeled == splits.train[:count]
    with pytest.raises(UnknownNameError):
        splits.budget("3 scans")


# ----------------------------------------------------------------------------------------------------- label values


@pytest.mark.parametrize("foreground", [255, 1])
def test_the_atrium_is_255_or_1(source, foreground):
    loaded = load(source([FIRST], foreground=foreground))
    expected = make(0)[1] > 0
    assert loaded.label.dtype == np.uint8
    assert np.array_equal(loaded.label, expected)
    assert loaded.class_voxels == ((~expected).sum(), expected.sum())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({255: 100}, "label values 100 are not among the classes 0 to 1"),
        ({0: 7}, "label values 7 are not"),
        ({0: 1}, "label values 255 are not"),  # 1 and 255 in one file: which of them is the atrium?
        ({255: 0}, "the reference is empty"),
    ],
)
def test_other_label_values_are_an_error_that_names_them(source, values, message):
    root = source([FIRST])
    label = make(0)[1]
    for old, new in values.items():
        label[tuple(axis[:2] for axis in np.nonzero(label == old))] = new
        if old:
            label[label == old] = new
    write(root / "training" / FIRST / "laendo.nrrd", label)
    with pytest.raises(DataError, match=message) as raised:
        load(root)
    assert "laendo.nrrd" in str(raised.value) and "\n" not in str(raised.value)


# ------------------------------------------------------------------------------------------------------------- NRRD


def test_the_header_of_the_reference_says_what_the_nrrd_says(source, tmp_path):
    root = source([FIRST], geometry=OBLIQUE)
    prepare("la", root, data_dir=tmp_path / "data", workers=1)
    store = Store.open(tmp_path / "data", "la", "uamt-labelcrop")
    nib.save(store.restore(FIRST, store.label(FIRST)), tmp_path / "restored.nii.gz")
    scan = sitk.ReadImage(str(root / "training" / FIRST / "laendo.nrrd"))
    for path in (store.folder / "references" / f"{FIRST}.nii.gz", tmp_path / "restored.nii.gz"):
        written = sitk.ReadImage(str(path))
        assert written.GetSize() == scan.GetSize()
        assert written.GetOrigin() == pytest.approx(scan.GetOrigin(), abs=1e-4)
        assert written.GetSpacing() == pytest.approx(scan.GetSpacing(), rel=1e-6)
        assert written.GetDirection() == pytest.approx(scan.GetDirection(), abs=1e-6)
        assert np.array_equal(sitk.GetArrayFromImage(written) * 255, sitk.GetArrayFromImage(scan))
    assert store.reference(FIRST)[1] == pytest.approx(OBLIQUE["spacing"])


def test_an_nrrd_in_ras_coordinates_lies_where_its_header_says(tmp_path):
    voxels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    path = tmp_path / "ras.nrrd"
    header = "NRRD0004\ntype: unsigned char\ndimension: 3\nspace: right-anterior-superior\nsizes: 2 3 4\n"
    header += "space directions: (0,2,0) (-1.5,0,0) (0,0,3)\nkinds: domain domain domain\nencoding: raw\n"
    header += "space origin: (10,-20,30)\n\n"
    path.write_bytes(header.encode() + voxels.tobytes(order="F"))
    found, affine, _ = read_volume(path)
    assert np.array_equal(found, voxels)
    assert np.allclose(affine, [[0, -1.5, 0, 10], [2, 0, 0, -20], [0, 0, 3, 30], [0, 0, 0, 1]])


def test_the_same_scan_as_nifti_reads_the_same(source, tmp_path):
    root = source([FIRST], geometry=OBLIQUE)
    nrrd = root / "training" / FIRST / "lgemri.nrrd"
    sitk.WriteImage(sitk.ReadImage(str(nrrd)), str(tmp_path / "same.nii.gz"))
    voxels, affine, header = read_volume(nrrd)
    again, nifti_affine, nifti_header = read_volume(tmp_path / "same.nii.gz")
    assert np.array_equal(voxels, again)
    assert np.allclose(affine, nifti_affine, atol=1e-4)
    for name in set(header) - {"xyzt_units"}:  # ITK names seconds for a fourth axis too
        assert header[name] == pytest.approx(nifti_header[name], abs=1e-4), name
    json.dumps(header)


def test_a_label_that_lies_elsewhere_is_refused(source):
    root = source([FIRST])
    write(root / "training" / FIRST / "laendo.nrrd", make(0)[1], origin=(0, 0.1, 0))
    with pytest.raises(DataError, match=r"laendo\.nrrd.*its origin differ"):
        load(root)


def test_damaged_nrrd_is_told_in_one_line(source, tmp_path):
    root = source([FIRST])
    path = root / "training" / FIRST / "lgemri.nrrd"
    good = path.read_bytes()
    header, _, packed = good.partition(b"\n\n")
    plain = bytearray(gzip.decompress(packed))
    plain[600] ^= 1
    spoilt = {
        "half": good[: len(good) // 2],
        "without its checksum": good[:-8],
        "one bit under a good checksum": header + b"\n\n" + gzip.compress(bytes(plain))[:-8] + packed[-8:],
        "only a header": header,
        "no NRRD": b"hello" * 500,
        "empty": b"",
    }
    for name, content in spoilt.items():
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"cannot be read as NRRD, it is damaged or incomplete: .+") as raised:
            load(root)
        assert str(path) in str(raised.value), name
        assert "\n" not in str(raised.value), name
    path.unlink()
    with pytest.raises(DataError, match=r"lgemri\.nrrd: No such file"):
        load(root)
    path.mkdir()
    with pytest.raises(DataError, match=r"lgemri\.nrrd: Is a directory"):
        load(root)


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 2, 3)])
def test_an_nrrd_that_is_no_volume_is_refused(shape, tmp_path):
    path = tmp_path / "flat.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros(shape[::-1], np.uint8), isVector=False), str(path))
    with pytest.raises(DataError, match=r"flat\.nrrd: shape \(5, 6.*is not a volume"):
        read_volume(path)


# ---------------------------------------------------------------------------------------------------- the crop's rule


def margins(box, label, axis, size):
    """r and r' behind a crop that no border cut short."""
    first, last = np.flatnonzero(label.any(axis=tuple(other for other in range(3) if other != axis)))[[0, -1]]
    pad = max(size - (last - first), 0) // 2
    return first - pad - box[axis].start, box[axis].stop - last - pad


def test_the_crop_follows_the_published_equations():
    label = np.zeros((400, 500, 90), np.uint8)
    label[150:191, 160:321, 20:50] = 1  # 41 voxels: padded; 161 voxels: not
    ids = load_splits("la", "uamt").train
    drawn = {0: [], 1: []}
    for id in ids:
        box = label_box(label, id, CROP)
        assert box[2] == slice(0, 90)
        for axis in (0, 1):
            pair = margins(box, label, axis, 112)
            assert all(10 <= margin <= 19 for margin in pair)
            drawn[axis].append(pair)
    # last - first is 40 and 160, so p is 36 and 0.
    assert label_box(label, FIRST, CROP)[0].start == 150 - 36 - drawn[0][0][0]
    assert label_box(label, FIRST, CROP)[1].stop == 320 + drawn[1][0][1]
    everything = np.array([*drawn[0], *drawn[1]])
    assert set(everything.ravel()) == set(range(10, 20))
    assert abs(everything.mean() - 14.5) < 0.75  # four standard errors of 320 draws
    for one, other in ((everything[:, 0], everything[:, 1]), (np.array(drawn[0])[:, 0], np.array(drawn[1])[:, 0])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.4


def test_margins_are_a_function_of_the_id_alone():
    label = np.zeros((400, 500, 9), np.uint8)
    label[150:191, 160:321, 2:5] = 1
    # As computed once: another value here makes other caches of the same scans.
    assert [margins(label_box(label, FIRST, CROP), label, axis, 112) for axis in (0, 1)] == [(13, 18), (18, 14)]
    moved = np.roll(label, (31, -17, 2), (0, 1, 2))
    for axis in (0, 1):
        there, here = (margins(label_box(array, FIRST, CROP), array, axis, 112) for array in (moved, label))
        assert there == here
    assert label_box(label, SECOND, CROP) != label_box(label, FIRST, CROP)


def test_the_border_of_the_volume_ends_the_crop():
    label = np.zeros((60, 200, 5), np.uint8)
    label[0, 199, 0] = label[59, 190, 4] = 1
    x, y, z = label_box(label, FIRST, CROP)
    assert (x, z) == (slice(0, 60), slice(0, 5))
    assert y.stop == 200
    assert 190 - 51 - 19 <= y.start <= 190 - 51 - 10  # last - first is 9, p is 51


def test_all_axes_may_be_cropped_and_no_foreground_is_an_error():
    label = np.zeros((40, 40, 40), np.uint8)
    label[20, 20, 20] = 1
    tight = LabelCrop(size=(1, 1, 1), margin=(1, 1))
    assert label_box(label, FIRST, tight) == (slice(19, 21),) * 3
    with pytest.raises(DataError, match="0001: no foreground"):
        label_box(np.zeros_like(label), "0001", tight)
    for margin in ((0, 3), (4, 3)):
        with pytest.raises(ValueError, match="margins from"):
            LabelCrop(size=(1, 1, 1), margin=margin)


# ----------------------------------------------------------------------------------------- the crop in a preparation


def test_intensities_are_scored_by_the_whole_volume_and_the_label_comes_back(source):
    loaded = load(source([FIRST], geometry=OBLIQUE))
    made = preprocess(loaded, LA.preprocessings["uamt-labelcrop"])
    image, label = make(0)
    box = label_box(label, FIRST, CROP)
    whole = (image - image.mean(dtype=np.float64)) / image.std(dtype=np.float64)
    assert made.image.shape == label[box].shape != SHAPE
    assert made.image.dtype == np.float32
    assert np.allclose(made.image, whole[box], atol=1e-5)
    assert np.array_equal(made.label * 255, label[box])
    assert made.spacing_mm == pytest.approx(OBLIQUE["spacing"])

    back = restore(made.label, made.geometry)
    assert np.array_equal(np.asarray(back.dataobj) * 255, label)
    everywhere = np.asarray(restore(np.ones_like(made.label), made.geometry).dataobj)
    assert everywhere[box].all() and everywhere.sum() == made.label.size
    with pytest.raises(ValueError, match=r"stored grid of \(\d+, \d+, 6\)"):
        restore(label, made.geometry)
    json.dumps(made.geometry)


def test_the_stored_grid_lies_in_the_world_where_it_was_cut(source, tmp_path):
    root = source([FIRST], geometry=OBLIQUE)
    prepare("la", root, data_dir=tmp_path / "data", workers=1)
    store = Store.open(tmp_path / "data", "la", "uamt-labelcrop")
    nib.save(store.on_stored_grid(FIRST, store.label(FIRST)), tmp_path / "stored.nii.gz")
    scan = sitk.ReadImage(str(root / "training" / FIRST / "laendo.nrrd"))
    stored = sitk.ReadImage(str(tmp_path / "stored.nii.gz"))
    start = [part.start for part in label_box(make(0)[1], FIRST, CROP)]
    assert min(start[:2]) > 0
    for index in ((0, 0, 0), (7, 3, 2)):
        point = stored.TransformIndexToPhysicalPoint(index)
        shifted = [int(a + b) for a, b in zip(index, start, strict=True)]
        assert point == pytest.approx(scan.TransformIndexToPhysicalPoint(shifted), abs=1e-3)
    # The scan's label, resampled to where the stored grid lies, is the stored label.
    placed = sitk.Resample(scan, stored, sitk.Transform(), sitk.sitkNearestNeighbor)
    assert np.array_equal(sitk.GetArrayFromImage(placed), sitk.GetArrayFromImage(stored) * 255)


@pytest.mark.parametrize("axes", ["xyz", "zyx"])
def test_a_crop_goes_with_turning_and_resampling(source, axes):
    loaded = load(source([FIRST], geometry=OBLIQUE | {"direction": (-1, 0, 0, 0, 1, 0, 0, 0, 1)}))
    crop = LabelCrop(size=(8, 8, 4), margin=(2, 3))
    prep = Preprocessing(axes=axes, orientation="RAS", spacing_mm=(1.25, 1.25, 1.25), scale="zscore", crop=crop)
    made = preprocess(loaded, prep)
    uncut = preprocess(loaded, replace(prep, crop=None))
    assert made.image.size < uncut.image.size and made.label.sum() == uncut.label.sum()
    back, expected = (np.asarray(restore(one.label, one.geometry).dataobj) for one in (made, uncut))
    assert np.array_equal(back, expected)

    def world(one):
        image = stored_nifti(one.label, one.geometry)
        labels = one.label.transpose(2, 1, 0) if axes == "zyx" else one.label
        indices = np.argwhere(labels)
        return nib.affines.apply_affine(image.affine, indices)

    assert np.allclose(world(made), world(uncut), atol=1e-3)


def test_native_keeps_the_whole_volume_and_never_looks_at_the_label(source):
    loaded = load(source([FIRST]))
    other = replace(loaded, label=np.roll(loaded.label, 40, 0))
    native = LA.preprocessings["native"]
    made, again = preprocess(loaded, native), preprocess(other, native)
    assert made.image.shape == SHAPE and "crop" not in made.geometry
    assert np.array_equal(made.image, again.image)
    assert made.image.mean() == pytest.approx(0, abs=1e-4) and made.image.std() == pytest.approx(1, abs=1e-4)
    # The other one does look, and says so.
    cropped = LA.preprocessings["uamt-labelcrop"]
    assert preprocess(loaded, cropped).geometry["crop"] != preprocess(other, cropped).geometry["crop"]
    assert "label" in cropped.description and "test scans" in cropped.description


def test_hashes_that_caches_and_digests_rest_on_have_not_changed():
    assert ACDC.preprocessing_hash("ssl4mis") == "32f6ed6d62e28eec"
    assert Synapse.preprocessing_hash("ga") == Phantom.preprocessing_hash("ga") == "d52d34d89fbc0618"
    assert Synapse.preprocessing_hash("native") == Phantom.preprocessing_hash("native") == "6fda4f43da010dad"


def test_the_crop_is_part_of_the_hash():
    cropped = LA.preprocessings["uamt-labelcrop"]
    others = [replace(cropped, crop=replace(cropped.crop, margin=(10, 20))), replace(cropped, crop=None)]
    assert len({cropped.hash, *(other.hash for other in others)}) == 3
    assert replace(cropped, crop=None).hash == LA.preprocessing_hash("native")
    assert replace(cropped, description="").hash == cropped.hash


# ---------------------------------------------------------------------------------------------- recipes and protocol


def test_the_recipes_are_those_of_the_sheet():
    recipe, cps = (
        Job(recipe="metassl-la", method=name, labeled="4 scans").resolved.recipe for name in ("supervised", "cps")
    )
    assert (recipe.batch.labeled, recipe.batch.unlabeled) == (2, 2)
    assert (recipe.schedule.iterations, recipe.checkpoint, recipe.seeds) == (50000, "last", [1337])
    assert (recipe.network.name, recipe.network.options["base_filters"], recipe.network.options["dropout"]) == (
        *("unet3d", 16, 0.3),
    )
    assert recipe.protocol == "metassl"
    assert (cps.batch.labeled, cps.batch.unlabeled) == (1, 1)
    assert Job(recipe="metassl-la-short", method="supervised", labeled="5%").directory.parts[:2] == (
        *("metassl-la-short", "4-scans"),
    )


def test_the_crop_changes_no_score(source):
    """Everything outside a crop is background in the reference; no prediction is made there."""
    loaded = load(source([FIRST]))
    made = preprocess(loaded, LA.preprocessings["uamt-labelcrop"])
    specks = np.random.default_rng(0).random(made.label.shape) < 0.01  # up to the border of the crop
    prediction = np.maximum(np.roll(made.label, 3, 0), specks).astype(np.uint8)
    protocol = registry.component("protocol", "la-uamt")
    assert (protocol.grid, protocol.unit, protocol.ddof) == ("original", "voxel", 0)
    assert protocol.metrics == ("dsc", "jaccard", "hd95", "asd")
    cut = protocol.score(prediction, made.label, ["la"], made.spacing_mm)
    whole = protocol.score(np.asarray(restore(prediction, made.geometry).dataobj), loaded.label, ["la"], (5, 5, 5))
    assert [row["value"] for row in whole] == pytest.approx([row["value"] for row in cut])
    missed = protocol.score(np.zeros_like(loaded.label), loaded.label, ["la"], (1, 1, 1))
    assert [row["value"] for row in missed] == pytest.approx([0, 0, *[np.linalg.norm(SHAPE)] * 2])


# -------------------------------------------------------------------------------------------------------- real scans


def test_real_la_is_prepared_and_restored(real_data, tmp_path):
    """The 20 scans, their geometry against the NIfTI twins that two of them have; about five seconds."""
    root: Path = real_data("la")
    report = prepare("la", root, data_dir=tmp_path, workers=1)
    assert report.failed == {} and all(note.startswith("also there, not used") for note in report.notes)
    store = Store.open(tmp_path, "la", "uamt-labelcrop")
    assert len(store.cases) == report.found
    for id, case in store.cases.items():
        reference, spacing = store.reference(id)
        assert spacing == pytest.approx((0.625, 0.625, 0.625))
        assert np.array_equal(np.asarray(store.restore(id, store.label(id)).dataobj), reference)
        assert case.class_voxels[1] == reference.sum() == store.label(id).sum()
        assert case.shape[2] == reference.shape[2]
        assert min(case.shape[:2]) >= min(112, *reference.shape[:2])
    parts = partition(store, load_splits("la", "uamt"), "4 scans")
    assert (len(parts.labeled), parts.validation) == (4, ())
    for twin in sorted((root / "nifti").glob("*/laendo.nii.gz")):
        reference = nib.load(store.folder / "references" / f"{twin.parent.name}.nii.gz")
        assert np.array_equal(np.asarray(nib.load(twin).dataobj), np.asarray(reference.dataobj))
        assert np.allclose(nib.load(twin).affine, reference.affine)
