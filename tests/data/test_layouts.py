"""Folders of one's own data: what is read out of them, and what is refused as a whole."""

from __future__ import annotations

import json
import shutil

import pytest
import SimpleITK

from sslbench.core.errors import UsageError
from sslbench.data.own.layouts import read_described, read_pairs, read_source
from tests.helpers import own_folders as folders

TWO = ("a", "b")


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".tif", ".jpg"])
def test_nnunet_is_read_in_every_file_ending(tmp_path, ending):
    held = read_described(folders.nnunet(tmp_path, TWO, ending=ending))
    assert (held.layout, held.classes, held.channels) == ("nnunet", ("organ", "tumour"), ("CT",))
    assert [(case.id, case.images[0].name, case.label.name, case.test) for case in held.cases] == [
        (id, f"{id}_0000{ending}", f"{id}{ending}", False) for id in TWO
    ]
    assert all(path.exists() for case in held.cases for path in (*case.images, case.label)) and held.notes == ()


def test_version_1_says_the_same_the_other_way_round(tmp_path):
    second = read_described(folders.nnunet(tmp_path / "2", TWO, channels=("T1", "T2")))
    first = read_described(folders.nnunet(tmp_path / "1", TWO, channels=("T1", "T2"), version=1))
    assert (first.layout, first.classes, first.channels) == (second.layout, second.classes, second.channels)
    assert [[path.name for path in case.images] for case in first.cases] == [
        ["a_0000.nii.gz", "a_0001.nii.gz"],
        ["b_0000.nii.gz", "b_0001.nii.gz"],
    ]


def test_test_images_count_where_they_have_labels(tmp_path):
    root = folders.nnunet(tmp_path, TWO, tests=("t1", "t2", "t3"))
    (root / "labelsTs" / "t2.nii.gz").unlink()
    held = read_described(root)
    assert [(case.id, case.test) for case in held.cases] == [("a", False), ("b", False), ("t1", True), ("t3", True)]
    assert held.notes == ("left out 1 images of imagesTs without a label in labelsTs",)
    shutil.rmtree(root / "labelsTs")
    assert [case.id for case in read_described(root).cases] == ["a", "b"]


def test_files_that_stay_where_they_are_are_listed_by_version_2(tmp_path):
    root = folders.nnunet(tmp_path / "elsewhere", TWO)
    listed = {
        f"case-{id}": {
            "images": [f"../elsewhere/imagesTr/{id}_0000.nii.gz"],
            "label": str(root / f"labelsTr/{id}.nii.gz"),
        }
        for id in TWO
    }
    (tmp_path / "here").mkdir()
    shutil.copy(root / "dataset.json", tmp_path / "here")
    folders.describe(tmp_path / "here", dataset=listed)
    held = read_described(tmp_path / "here")
    assert [case.id for case in held.cases] == ["case-a", "case-b"]
    assert all(case.images[0].exists() and case.label.exists() for case in held.cases)


def test_msd_is_told_from_nnunet_by_its_file_names(tmp_path):
    held = read_described(folders.msd(tmp_path, cases=2))
    assert (held.layout, held.classes, held.channels) == ("msd", ("PZ", "TZ"), ("T2", "ADC"))
    assert [(case.id, len(case.images)) for case in held.cases] == [("prostate_01", 1), ("prostate_02", 1)]
    assert held.notes == ("left out 1 test images without labels",)


def test_what_dataset_json_counts_otherwise_is_said(tmp_path):
    root = folders.nnunet(tmp_path, TWO)
    folders.describe(root, numTraining=30)
    assert read_described(root).notes == ("dataset.json speaks of 30 training cases; 2 are here",)


def test_a_case_that_lacks_a_file_is_named_all_the_same(tmp_path):
    """Preparing it fails for this case alone."""
    root = folders.nnunet(tmp_path, TWO, channels=("T1", "T2"))
    (root / "imagesTr" / "a_0001.nii.gz").unlink()
    (root / "labelsTr" / "b.nii.gz").unlink()
    held = read_described(root)
    assert [case.id for case in held.cases] == ["a", "b"]
    assert held.cases[0].images[1] == root / "imagesTr" / "a_0001.nii.gz"


LABELS = {"background": 0, "organ": 1, "tumour": 2}


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"labels": LABELS | {"whole": [1, 2]}}, r"'whole' is a region \[1, 2\].*a number of its own"),
        ({"labels": LABELS | {"ignore": 3}}, r"'ignore' \(3\) marks voxels without annotation"),
        ({"labels": {"background": 0, "organ": 1, "tumour": 3}}, "2 is missing.*renumber"),
        ({"labels": {"organ": 1, "tumour": 2}}, "0 is missing"),
        ({"labels": {"background": 0, "organ": 1, "tumour": 1}}, "one stands twice"),
        ({"labels": {"background": 0, "organ": -1}}, "count from 0 .background. .* without gaps"),
        ({"labels": {"background": 0, "organ": "1"}}, "has the value '1'"),
        ({"labels": {"background": 0, "organ": True}}, "has the value True"),
        ({"labels": {"0": "background", "1": "organ", "3": "tumour"}}, "2 is missing"),
        ({"labels": {"0": "background", "1": "organ", "2": "organ"}}, "'organ' stands twice"),
        ({"labels": {"background": 0, "avg": 1}}, "'avg' means something else"),
        ({"labels": {"background": 0}}, "names no class beside the background"),
        ({"labels": {"organ": 0, "tumour": 1}}, "the label 0 is the background, not 'organ'"),
        ({"labels": None}, "names no labels"),
        ({"channel_names": None}, "names no channels"),
        ({"channel_names": {"0": "T1", "2": "T2"}}, "channels count from 0 to 1"),
        ({"channel_names": {"red": "T1"}}, "channels count from 0"),
        ({"file_ending": ".dcm"}, r"'.dcm' cannot be read.*\.nii\.gz"),
        ({"file_ending": ".mha"}, "no case"),
        ({"dataset": {"a": {"label": "z"}}}, "no case with images and a label"),
        ({"dataset": {"a": {"images": ["x", "y"], "label": "z"}}}, "a has 2 images"),
        ({"dataset": {"../a": {"images": ["x"], "label": "z"}}}, "cannot be a case"),
    ],
)
def test_descriptions_that_cannot_be_used_are_refused_in_one_line(tmp_path, about, message):
    root = folders.nnunet(tmp_path, ("a",))
    folders.describe(root, **about)
    with pytest.raises(UsageError, match=message) as caught:
        read_described(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[1, 2]", "holds no fields"),
        (None, "no dataset"),
    ],
)
def test_no_description_is_refused(tmp_path, content, message):
    root = folders.nnunet(tmp_path, ("a",))
    (root / "dataset.json").unlink()
    if content is not None:
        (root / "dataset.json").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_described(root)


def test_a_missing_folder_is_named(tmp_path):
    root = folders.nnunet(tmp_path / "data", ("a",))
    shutil.rmtree(root / "labelsTr")
    with pytest.raises(UsageError, match=r"no folder .*labelsTr"):
        read_described(root)
    with pytest.raises(UsageError, match="does not exist"):
        read_source("nnunet", tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is not a folder"):
        read_source("nnunet", root / "dataset.json")


def test_channels_are_in_the_names_of_files(tmp_path):
    root = folders.nnunet(tmp_path, ("a",))
    shutil.copy(root / "imagesTr" / "a_0000.nii.gz", root / "imagesTr" / "a_0001.nii.gz")
    with pytest.raises(UsageError, match=r"a_0001\.nii\.gz is one channel too many: dataset.json names 1"):
        read_described(root)
    (root / "imagesTr" / "a_0001.nii.gz").rename(root / "imagesTr" / "a.nii.gz")
    with pytest.raises(UsageError, match=r"a.nii.gz does not say which channel.*a_0000"):
        read_described(root)


def test_a_case_in_both_folders_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is a second a"):
        read_described(folders.nnunet(tmp_path, TWO, tests=("a",)))


def test_an_msd_list_that_is_none_is_refused(tmp_path):
    root = folders.msd(tmp_path, cases=1)
    listed = json.loads((root / "dataset.json").read_text())["training"]
    folders.describe(root, training=[*listed, "./imagesTr/prostate_02.nii.gz"])
    with pytest.raises(UsageError, match="is no image with its label"):
        read_described(root)


def test_msd_images_beside_the_listed_ones_are_unlabelled(tmp_path):
    root = folders.msd(tmp_path, cases=4)
    listed = json.loads((root / "dataset.json").read_text())["training"]
    (root / "labelsTr" / "prostate_04.nii.gz").unlink()
    del listed[1]["label"]
    folders.describe(root, training=listed[:3])
    held = read_described(root)
    assert [(case.id, case.label is None) for case in held.cases] == [
        ("prostate_01", False), ("prostate_02", True), ("prostate_03", False), ("prostate_04", True),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------ images with masks


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("a.jpg", "a_mask.jpg"),
        ("a.jpg", "a_mask.png"),
        ("deep/down/a.png", "deep/a_Label.png"),
        ("images/a.png", "masks/a.png"),
        ("images/a.png", "annotations/a_gt.tif"),
        ("a.tif", "a-seg.tif"),
        ("a.png", "a_mask.png"),
    ],
)
def test_an_image_and_its_mask_are_found_by_their_names(tmp_path, image, mask):
    source = folders.pairs(tmp_path / "made", ("x",), lossy=False)
    for name, made in ((image, "x.png"), (mask, "x_mask.png")):
        (tmp_path / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / made, tmp_path / "own" / name)
    (tmp_path / "own" / "notes.txt").write_text("not an image")
    if not image.endswith(".png"):
        # The first image is opened, so it has to be what its ending says.
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(source / "x.png")), str(tmp_path / "own" / image))
    held = read_pairs(tmp_path / "own", ["gland"])
    assert [case.id for case in held.cases] == ["a"] and held.channels == ("red", "green", "blue")
    assert (held.cases[0].images[0], held.cases[0].label) == (tmp_path / "own" / image, tmp_path / "own" / mask)


@pytest.mark.parametrize(
    ("image", "mask", "id"),
    [
        ("img/img0001.nii.gz", "label/label0001.nii.gz", "0001"),
        ("image_7.nii", "mask_7.nii", "7"),
        ("image7.nii", "image7_mask.nii", "7"),
        ("labrador.nii", "labrador_seg.nii", "labrador"),
        ("images/gt-car.nii", "masks/gt-car.nii", "gt-car"),
    ],
)
def test_volumes_are_paired_by_their_numbers_too(tmp_path, image, mask, id):
    scan, label, affine = folders.make_scan(0)
    folders.write_volume(tmp_path / image, scan, affine)
    folders.write_volume(tmp_path / mask, label, affine)
    held = read_pairs(tmp_path, ["organ"])
    assert [(case.id, case.images, case.label) for case in held.cases] == [(id, (tmp_path / image,), tmp_path / mask)]
    assert held.channels == ("image",) and held.notes == ()


def test_images_without_masks_are_unlabelled(tmp_path):
    root = folders.pairs(tmp_path, ("a", "b", "c"))
    (root / "b_mask.jpg").unlink()
    (root / "c.jpg").unlink()
    held = read_pairs(root, ["gland"])
    assert [(case.id, case.images[0].name, case.label is None) for case in held.cases] == [
        ("a", "a.jpg", False), ("b", "b.jpg", True), ("c", "c.*", False),
    ]  # fmt: skip


def test_pairs_that_cannot_be_told_apart_or_named_are_refused(tmp_path):
    root = folders.pairs(tmp_path / "own", ("a",))
    with pytest.raises(UsageError, match="--classes"):
        read_pairs(root, [])
    with pytest.raises(UsageError, match="stands twice"):
        read_pairs(root, ["gland", "gland"])
    shutil.copytree(root, root / "again")
    with pytest.raises(UsageError, match="is a second"):
        read_pairs(root, ["gland"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="an image and a mask"):
        read_pairs(tmp_path / "empty", ["gland"])
