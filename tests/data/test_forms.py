"""Every form in which users hold a dataset: recognised by looking, read, and provenance kept.

The miniatures are made here from a scan in the official layout, by the published steps written out anew.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from torch.nn.functional import interpolate

from sslbench.config.splits import load_splits
from sslbench.core import registry
from sslbench.core.errors import UsageError
from sslbench.core.files import read_json
from sslbench.data.base import OFFICIAL, OWN_DATA
from sslbench.data.datasets.acdc import ACDC
from sslbench.data.datasets.amos import AMOS
from sslbench.data.datasets.la import LA
from sslbench.data.datasets.synapse import Synapse
from sslbench.data.own.define import define
from sslbench.data.prepare import prepare
from sslbench.data.store import Store, partition
from tests.helpers.scans import make_scan, write_pair

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "data-forms.md"
LA_IDS = ("06SR5RBREL16DQ6M8LWS", "UPT6DX9IQY9JAZ7HJKA7")


def write_h5(path, **arrays):
    """An HDF5 file of compressed arrays, as the public ones are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression="gzip")


def write_npy(folder, id, image, label):
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{id}_image.npy", image)
    np.save(folder / f"{id}_label.npy", label)


def slices_first(array):
    """(x, y, z) as SimpleITK would have read it: (z, y, x)."""
    return np.ascontiguousarray(array.T)


def scaled(image):
    """A volume by its extremes, float32, slices first."""
    image = slices_first(image).astype(np.float32)
    return (image - image.min()) / (image.max() - image.min())


def resized(image, label):
    """What DHC's preprocessing makes of a scan: 80 x 160 x 160, raw HU; the label becomes float."""
    volumes = [torch.from_numpy(slices_first(array).astype(np.float32))[None, None] for array in (image, label)]
    image = interpolate(volumes[0], size=(80, 160, 160), mode="trilinear", align_corners=False)
    label = interpolate(volumes[1], size=(80, 160, 160), mode="nearest")
    return image[0, 0].numpy(), label[0, 0].numpy()


def opened(report, data):
    """The store of a preparation without failures."""
    assert report.failed == {}
    return Store.open(data, report.dataset, report.preprocessing)


# ------------------------------------------------------------------------------------------------------------ SSL4MIS


def test_a_frame_is_of_its_patient():
    assert ACDC.group_of("patient001_frame12") == "patient001"


@pytest.mark.parametrize("kind", ["volumes", "slices", "slices from 1", "both"])
@pytest.mark.parametrize("inside", ["", "ACDC/data"])
def test_ssl4mis_arrays_become_what_the_official_frames_become(acdc_source, tmp_path, kind, inside):
    official = acdc_source({"patient001": [1, 12], "patient090": [4, 11]})
    for patient, frames in {"patient001": [1, 12], "patient090": [4, 11]}.items():
        for number, frame in enumerate(frames, 1):
            image, label, _ = make_scan(int(patient[7:]) * 100 + frame)
            image, label = scaled(image), slices_first(label)
            id, root = f"{patient}_frame{number:02d}", tmp_path / "h5" / inside
            if kind == "volumes" or (kind == "both" and patient == "patient001"):
                write_h5(root / f"{id}.h5", image=image, label=label)
            if kind != "volumes":
                for z, (part, truth) in enumerate(zip(image, label, strict=True), start=kind == "slices from 1"):
                    write_h5(root / "slices" / f"{id}_slice_{z}.h5", image=part, label=truth)
    ours = opened(prepare("acdc", official, data_dir=tmp_path / "a", workers=1), tmp_path / "a")
    report = prepare("acdc", tmp_path / "h5", data_dir=tmp_path / "b", workers=1)
    theirs = opened(report, tmp_path / "b")
    assert report.recognised.startswith("SSL4MIS' arrays") and report.recognised.endswith("(4 cases)")
    names = {"patient001_frame01": "patient001_frame01", "patient001_frame02": "patient001_frame12"}
    names |= {"patient090_frame01": "patient090_frame04", "patient090_frame02": "patient090_frame11"}
    assert list(theirs.cases) == list(names)
    for id, official_id in names.items():
        assert np.array_equal(theirs.image(id), ours.image(official_id))
        assert np.array_equal(theirs.label(id), ours.label(official_id))
        assert theirs.cases[id].class_voxels == ours.cases[official_id].class_voxels
    assert theirs.groups()["patient090"] == ["patient090_frame01", "patient090_frame02"]


def test_patients_on_the_lists_are_found_under_either_numbering(tmp_path):
    lists = load_splits("acdc", "ssl4mis")
    for patient in (lists.train[0], lists.train[-1], lists.val[0], lists.test[0]):
        for frame in (1, 2):
            image, label, _ = make_scan(int(patient[7:]) + frame)
            write_h5(tmp_path / "h5" / f"{patient}_frame{frame:02d}.h5", image=scaled(image), label=slices_first(label))
    parts = partition(
        opened(prepare("acdc", tmp_path / "h5", data_dir=tmp_path, workers=1), tmp_path), lists, "1 patient"
    )
    assert parts.labeled == ("patient099_frame01", "patient099_frame02")
    assert [len(part) for part in (parts.unlabeled, parts.validation, parts.test)] == [2, 2, 2]


def test_a_slice_that_is_missing_or_of_another_size_is_named(tmp_path):
    image, label, _ = make_scan(1)
    image, label = scaled(image), slices_first(label)
    for patient in (1, 2):
        for z in range(len(image)):
            id = f"patient{patient:03d}_frame01_slice_{z}"
            write_h5(tmp_path / "h5" / f"{id}.h5", image=image[z], label=label[z])
    (tmp_path / "h5" / "patient001_frame01_slice_3.h5").unlink()
    write_h5(tmp_path / "h5" / "patient002_frame01_slice_4.h5", image=image[4, 1:], label=label[4, 1:])
    failed = prepare("acdc", tmp_path / "h5", data_dir=tmp_path, workers=1).failed
    assert re.search(r"patient001_frame01_slice_3\.h5: No such file", failed["patient001_frame01"])
    assert re.search(r"slice_4\.h5: image of shape \(19, 24\), but \(20, 24\) in", failed["patient002_frame01"])


# -------------------------------------------------------------------------------------------------------------- UA-MT


def test_uamt_arrays_are_taken_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    made = {}
    for id in LA_IDS:
        # As published: the whole scan's z-score, then the crop, so that the crop's own mean is not 0.
        image = rng.normal(0.4, 1.2, (20, 24, 9)).astype(np.float32)
        label = (rng.random((20, 24, 9)) < 0.2).astype(np.uint8)
        made[id] = image, label
        write_h5(tmp_path / "h5" / "2018LA_Seg_Training Set" / id / "mri_norm2.h5", image=image, label=label)
    report = prepare("la", tmp_path / "h5", data_dir=tmp_path, workers=1)
    store = opened(report, tmp_path)
    assert (report.preprocessing, report.found) == ("uamt-labelcrop", 2)
    for id, (image, label) in made.items():
        assert np.array_equal(store.image(id)[0], image)
        assert np.array_equal(store.label(id), label)
        assert np.array_equal(store.reference(id)[0], label)
        assert store.reference(id)[1] == pytest.approx((0.625, 0.625, 0.625))
        back = np.asarray(store.restore(id, store.label(id)).dataobj)
        assert np.array_equal(back, label) and not store.resamples(id)
        assert "crop" not in store.cases[id].geometry  # what lies outside is not known
    assert (store.form.name, store.spacing) == ("uamt-h5", "published")


def test_la_as_nifti_is_read_like_nrrd(tmp_path):
    image, label, affine = make_scan(3, classes=2)
    for id, foreground in zip(LA_IDS, (1, 255), strict=True):
        folder = tmp_path / "source" / id
        write_pair(folder / "lgemri.nii.gz", folder / "laendo.nii.gz", (image + len(id), label * foreground, affine))
    for name in ("native", "uamt-labelcrop"):
        report = prepare("la", tmp_path / "source", data_dir=tmp_path, preprocessing=name, workers=1)
        assert report.failed == {LA_IDS[1]: f"it is a copy of {LA_IDS[0]}, voxel for voxel"}
        store = Store.open(tmp_path, "la", name)
        assert np.array_equal(store.reference(LA_IDS[0])[0], label)
        assert (store.form.name, store.spacing) == ("nifti", "header")


# ---------------------------------------------------------------------------------------------------------- DHC's npy


@pytest.mark.parametrize(("name", "id", "file"), [("synapse", "0001", "0001"), ("amos", "0005", "amos_0005")])
def test_dhc_arrays_become_what_the_official_scans_become(synapse_source, tmp_path, name, id, file):
    image, label, affine = make_scan(1, shape=(30, 28, 12), classes=16 if name == "amos" else 14)
    if name == "amos":
        folder = tmp_path / "official"
        write_pair(
            folder / "imagesTr" / f"{file}.nii.gz", folder / "labelsTr" / f"{file}.nii.gz", (image, label, affine)
        )
    else:
        folder = synapse_source(["0001"], shape=(30, 28, 12))
    write_npy(tmp_path / "npy", file, *resized(image, label))
    ours, theirs = (
        opened(
            prepare(name, source, data_dir=tmp_path / str(n), preprocessing="dhc-2023", workers=1), tmp_path / str(n)
        )
        for n, source in enumerate((folder, tmp_path / "npy"))
    )
    assert ours.form.name == "official" and theirs.form.name == "dhc-npy"
    assert theirs.cases[id].shape == ours.cases[id].shape == (80, 160, 160)
    assert np.array_equal(theirs.label(id), ours.label(id))
    assert np.allclose(theirs.image(id), ours.image(id), atol=1e-5)
    assert np.array_equal(np.asarray(theirs.restore(id, theirs.label(id)).dataobj), slices_first(theirs.label(id)))
    assert theirs.spacing == "unknown" and theirs.cases[id].spacing_mm == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("name", ["dhc-2023", "dhc-2024"])
def test_dhc_arrays_of_all_voxels_serve_both_of_its_preprocessings(synapse_source, tmp_path, name):
    image, label, _ = make_scan(1, shape=(30, 28, 12), classes=14)
    write_npy(tmp_path / "npy", "0001", slices_first(image).astype(np.float32), slices_first(label).astype(np.int8))
    ours, theirs = (
        opened(prepare("synapse", source, data_dir=tmp_path / str(n), preprocessing=name, workers=1), tmp_path / str(n))
        for n, source in enumerate((synapse_source(["0001"], shape=(30, 28, 12)), tmp_path / "npy"))
    )
    assert theirs.form.name == "dhc-native-npy"
    assert np.array_equal(theirs.image("0001"), ours.image("0001"))
    assert np.array_equal(theirs.label("0001"), ours.label("0001"))
    assert theirs.resamples("0001")


def test_a_lone_npy_and_a_damaged_one_are_named(tmp_path):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 14, (80, 160, 160)).astype(np.float32)
    for id in ("0001", "0002", "0003"):
        write_npy(tmp_path / "npy", id, rng.normal(size=label.shape).astype(np.float32), label)
    (tmp_path / "npy" / "0002_image.npy").unlink()
    damaged = tmp_path / "npy" / "0003_image.npy"
    damaged.write_bytes(damaged.read_bytes()[:5000])
    report = prepare("synapse", tmp_path / "npy", data_dir=tmp_path, preprocessing="dhc-2023", workers=1)
    assert (report.found, report.written) == (3, 1)
    assert report.failed["0002"].endswith("0002_image.npy: the image is missing, 0002_label.npy stands alone")
    assert re.search(r"0003_image\.npy: cannot be read, it is damaged or incomplete: ", report.failed["0003"])


# ------------------------------------------------------------------------------------------------- MagicNet's and GA's


@pytest.mark.parametrize("file", ["0001.h5", "case0001.npy.h5", "img0001.h5"])
def test_magicnet_arrays_are_taken_as_they_are(tmp_path, file):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(24, 20, 10)).astype(np.float32)  # of unit variance, as its paper says
    label = rng.integers(0, 14, (24, 20, 10)).astype(np.float32)
    write_h5(tmp_path / "h5" / file, image=image, label=label)
    store = opened(prepare("synapse", tmp_path / "h5", data_dir=tmp_path, workers=1), tmp_path)
    assert np.array_equal(store.image("0001")[0], image)
    assert np.array_equal(store.label("0001"), label)
    assert store.cases["0001"].spacing_mm == pytest.approx((1.5, 1.5, 2.0))
    assert (store.form.name, store.spacing) == ("magicnet-h5", "published")
    assert store.cases["0001"].statistics == pytest.approx(
        {"min": image.min(), "max": image.max(), "mean": image.mean(), "std": image.std()}, abs=1e-5
    )


def test_ga_arrays_of_amos_are_clipped_and_scaled(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.uniform(-1000, 1000, (24, 20, 10)).astype(np.float32)
    label = rng.integers(0, 16, (24, 20, 10)).astype(np.uint8)
    write_npy(tmp_path / "npy", "amos_0507", image, label)
    store = opened(prepare("amos", tmp_path / "npy", data_dir=tmp_path, workers=1), tmp_path)
    assert np.allclose(store.image("0507")[0], (np.clip(image, -125, 275) + 125) / 400, atol=1e-6)
    assert np.array_equal(store.label("0507"), label)
    assert (store.form.name, store.spacing) == ("ga-npy", "unknown")


# ------------------------------------------------------------------------------------------------------ official AMOS


def test_amos_is_found_in_its_official_layout(tmp_path):
    places = {"0001": "Tr", "0507": "Tr", "0008": "Va", "0598": "Va"}
    for id, part in places.items():
        folder = tmp_path / "amos" / "amos22"
        paths = (folder / f"{kind}{part}" / f"amos_{id}.nii.gz" for kind in ("images", "labels"))
        write_pair(*paths, make_scan(int(id), classes=16))
    for id in ("0003", "0002"):
        (tmp_path / "amos" / "amos22" / "imagesTs").mkdir(exist_ok=True)
        (tmp_path / "amos" / "amos22" / "imagesTs" / f"amos_{id}.nii.gz").write_bytes(b"")
    write_pair(
        *(tmp_path / "amos" / "amos22" / f"{kind}Tr" / "amos_0700.nii.gz" for kind in ("images", "labels")),
        make_scan(700, classes=16),
    )
    report = prepare("amos", tmp_path / "amos", data_dir=tmp_path / "data", preprocessing="native", workers=1)
    store = opened(report, tmp_path / "data")
    assert list(store.cases) == sorted(places)
    assert report.notes == (
        "left out 2 test scans of AMOS22 (imagesTs), which have no labels",
        f"left out 1 case on no official list of amos: 0700; own data: {OWN_DATA}",
    )
    assert [AMOS.modality_of(id) for id in sorted(places)] == ["ct", "ct", "mri", "mri"]
    assert store.is_subset and store.official == 360
    assert np.array_equal(store.reference("0598")[0], make_scan(598, classes=16)[1])


def test_a_label_without_its_image_is_answered_with_what_is_missing(tmp_path):
    folder = tmp_path / "source"
    write_pair(folder / "x.nii.gz", folder / "labelsVa" / "amos_0013.nii.gz", make_scan(13, classes=16))
    report = prepare("amos", folder, data_dir=tmp_path, workers=1)
    missing = folder / "imagesVa" / "amos_0013.nii.gz"
    assert report.failed == {"0013": f"{missing}: the image is missing, amos_0013.nii.gz stands alone"}
    assert not (tmp_path / "amos" / "ga" / "dataset.json").exists()


# --------------------------------------------------------------------------------------------------- official details


def test_the_phase_of_a_frame_is_that_of_its_info(acdc_source, tmp_path):
    source = acdc_source({"patient001": [1, 12], "patient090": [4, 11], "patient003": [1]})
    for patient, ed, es in (("patient001", 1, 12), ("patient090", 11, 4), ("patient003", 2, 15)):
        text = f"ED: {ed}\nES: {es}\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n"
        (source / "training" / patient / "Info.cfg").write_text(text)
    report = prepare("acdc", source, data_dir=tmp_path, workers=1)
    phases = {id: case.info.get("phase") for id, case in opened(report, tmp_path).cases.items()}
    assert phases == {
        "patient001_frame01": "ED",
        "patient001_frame12": "ES",
        "patient003_frame01": None,
        "patient090_frame04": "ES",
        "patient090_frame11": "ED",
    }
    assert report.notes == ("frame 01 of patient003 is neither ED nor ES in its Info.cfg",)
    (source / "training" / "patient090" / "Info.cfg").write_text("ED: 4\nES: 11\n")  # corrected: made anew
    assert prepare("acdc", source, data_dir=tmp_path, workers=1).written == 2


def test_one_organ_alone_is_refused_and_absent_ones_are_told(synapse_source, tmp_path):
    source = synapse_source(["0001", "0002"], folders=("img", "label"))
    for id, keep in (("0001", {6}), ("0002", set(range(1, 14)) - {5, 11})):
        path = source / "label" / f"label{id}.nii.gz"
        nifti = nib.load(path)
        voxels = np.asarray(nifti.dataobj)
        nib.save(nib.Nifti1Image(np.where(np.isin(voxels, list(keep)), voxels, 0).astype(np.uint8), nifti.affine), path)
    report = prepare("synapse", source, data_dir=tmp_path, workers=1)
    assert list(report.failed) == ["0001"]
    assert "only liver is annotated, 12 of 13 classes are missing" in report.failed["0001"]
    assert "--from-nnunet" in report.failed["0001"] and "\n" not in report.failed["0001"]
    assert report.notes == ("no case has esophagus, pancreas",)


def test_scans_of_other_sets_are_left_out_aloud(synapse_source, tmp_path):
    source = synapse_source(["0001"])
    testing = source / "RawData" / "Testing" / "img"
    testing.mkdir(parents=True)
    for id in ("0061", "0080"):
        (testing / f"img{id}.nii.gz").write_bytes(b"")
    dataset = Synapse()
    assert [raw.id for raw in dataset.find(source)] == ["0001"]
    assert dataset.notes == ["left out 2 test scans of BTCV, which have no labels"]
    for part, id in (("Training Set", LA_IDS[0]), ("Testing Set", "A" * 20)):
        write_pair(
            *(tmp_path / "la" / part / id / f"{name}.nii.gz" for name in ("lgemri", "laendo")), make_scan(1, classes=2)
        )
    dataset = LA()
    assert [raw.id for raw in dataset.find(tmp_path / "la")] == [LA_IDS[0]]
    assert dataset.notes == ["left out the challenge's test set (1 case): it is not used"]


# -------------------------------------------------------------------------------------------- several forms, wrong ones


def two_forms(acdc_source):
    """ACDC's frames, with SSL4MIS' arrays of one of them beside."""
    source = acdc_source({"patient001": [1, 12]})
    image, label, _ = make_scan(101)
    write_h5(source / "data" / "patient001_frame01.h5", image=scaled(image), label=slices_first(label))
    return source


def test_the_official_form_goes_first_and_the_other_is_mentioned(acdc_source):
    dataset = ACDC()
    raws = dataset.find(two_forms(acdc_source), "ssl4mis")
    assert [raw.form.name for raw in raws] == ["official", "official"]
    assert dataset.recognised == "ACDC's frames (patient001_frame01.nii.gz, ...) (2 cases)"
    (note,) = dataset.notes
    assert re.fullmatch(r"also there, not used: SSL4MIS' arrays .* \(1 case\)", note)


def test_what_serves_the_preprocessing_goes_before_what_does_not(tmp_path):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 14, (80, 160, 160)).astype(np.float32)
    write_npy(tmp_path / "both", "0001", rng.normal(size=label.shape).astype(np.float32), label)
    write_h5(tmp_path / "both" / "0002.h5", image=rng.normal(size=(9, 8, 7)), label=label[:9, :8, :7])
    for name, form in (("ga", "magicnet-h5"), ("dhc-2023", "dhc-npy")):
        dataset = Synapse()
        assert {raw.form.name for raw in dataset.find(tmp_path / "both", name)} == {form}
        assert len(dataset.notes) == 1


def test_arrays_that_cannot_serve_a_preprocessing_say_which_they_can(tmp_path):
    write_h5(tmp_path / "h5" / LA_IDS[0] / "mri_norm2.h5", image=np.zeros((2, 3, 4)), label=np.zeros((2, 3, 4)))
    with pytest.raises(UsageError) as raised:
        prepare("la", tmp_path / "h5", data_dir=tmp_path / "data", preprocessing="native", workers=1)
    assert "\n" not in str(raised.value)
    assert re.search(r"'native' cannot be made of .* UA-MT's arrays .* only serve uamt-labelcrop", str(raised.value))
    assert not (tmp_path / "data").exists()


def test_another_form_of_the_same_cases_is_prepared_anew(acdc_source, tmp_path):
    source = two_forms(acdc_source)
    prepare("acdc", source / "training", data_dir=tmp_path / "data", workers=1)
    report = prepare("acdc", source / "data", data_dir=tmp_path / "data", workers=1)
    assert (report.found, report.written, report.unchanged) == (1, 1, 0)
    assert Store.open(tmp_path / "data", "acdc", "ssl4mis").form.name == "ssl4mis-h5"


def test_form_and_statistics_are_written_down(acdc_source, tmp_path):
    report = prepare("acdc", two_forms(acdc_source) / "data", data_dir=tmp_path / "data", workers=1)
    index = read_json(report.folder / "dataset.json")
    record = read_json(report.folder / "cases" / "patient001_frame01.json")
    assert (index["form"], index["spacing"], index["found"], index["official"]) == ("ssl4mis-h5", "unknown", 1, 200)
    assert record["made_from"]["form"] == "ssl4mis-h5"
    assert record["statistics"] == index["cases"]["patient001_frame01"]["statistics"]
    assert (record["statistics"]["min"], record["statistics"]["max"]) == (0, 1)
    json.dumps(index)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"label": np.zeros((2, 3, 4))}, r"no array 'image' in it, only label"),
        ({"image": np.zeros((3, 4)), "label": np.zeros((3, 4))}, r"image of shape \(3, 4\) is not a volume"),
        ({"image": np.zeros((2, 3, 4), "S3"), "label": np.zeros((2, 3, 4))}, r"image of type \|S3 is not numbers"),
        (None, r"cannot be read, it is damaged or incomplete: "),
    ],
)
def test_hdf5_that_is_not_what_its_name_says_is_told_in_one_line(tmp_path, arrays, message):
    path = tmp_path / "h5" / "0001.h5"
    if arrays is None:
        write_h5(path, image=np.random.default_rng(0).normal(size=(9, 9, 9)), label=np.zeros((9, 9, 9)))
        path.write_bytes(path.read_bytes()[:3000])
    else:
        write_h5(path, **arrays)
    (reason,) = prepare("synapse", tmp_path / "h5", data_dir=tmp_path, workers=1).failed.values()
    assert re.search(r"0001\.h5: " + message, reason) and "\n" not in reason


# ----------------------------------------------------------------------------------------------------- the definitions


def forms():
    return [(kind, form) for kind in (ACDC, AMOS, LA, Synapse) for form in kind.forms]


@pytest.mark.parametrize(("kind", "form"), forms(), ids=lambda value: value.name)
def test_a_form_serves_preprocessings_whose_steps_it_has_been_through(kind, form):
    assert kind.forms[0].name == OFFICIAL.name and kind.forms[0].preprocessings is None
    assert len({other.name for other in kind.forms}) == len(kind.forms)
    if form.axes is None:
        assert form.done == () and form.spacing == "header"
        return
    assert form.preprocessings
    for name in form.preprocessings:
        prep = kind.preprocessings[name]
        left = prep.without(form.done)
        # Nothing that needs a header is left, as there is none.
        assert left.orientation is None and left.spacing_mm is None
        for step, field in (("resize", "resize_to"), ("clip", "clip"), ("scale", "scale"), ("crop", "crop")):
            assert (getattr(left, field) is None) == (step in form.done or getattr(prep, field) is None)


def test_pictures_of_own_data_have_pixels_of_unknown_size(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(10):
        mask = np.zeros((40, 52), np.uint8)
        mask[10:30, 5 + number : 30] = 255
        for name, picture in (
            (f"{number}.png", rng.integers(0, 255, (40, 52)).astype(np.uint8)),
            (f"{number}_mask.png", mask),
        ):
            path = tmp_path / "source" / name
            path.parent.mkdir(exist_ok=True)
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(picture), str(path))
    define("spots", tmp_path / "source", "pairs", data_dir=tmp_path / "data", classes=["spot"])
    store = opened(prepare("spots", tmp_path / "source", data_dir=tmp_path / "data", workers=1), tmp_path / "data")
    assert store.form.spacing == "header" and store.spacing == "unknown"


# -------------------------------------------------------------------------------------------------------- the document


def rows():
    """The rows of the document's table: its first cell is a dataset, or `own data`."""
    lines = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_document_lists_every_form_with_what_it_serves():
    stated = {(row[0].strip("`"), row[1].strip("`")): (row[3], row[4]) for row in rows() if row[0].startswith("`")}
    kinds = [registry.component("dataset", name) for names in registry.BUILTIN["dataset"].values() for name in names]
    expected = {
        (kind.name, form.name): (", ".join(f"`{name}`" for name in form.preprocessings or ()) or "all", form.spacing)
        for kind in kinds
        for form in kind.forms
    }
    assert stated == expected


def test_the_tests_that_the_document_names_exist():
    text = "\n".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    there = set(re.findall(r"^def (test_\w+)\(", text, re.MULTILINE))
    named = re.findall(r"`(test_\w+)`", DOCUMENT.read_text(encoding="utf-8"))
    assert set(named) <= there
    assert all(row[5].strip("`") in named for row in rows()) and len(named) > len(rows())
