"""Datasets of one's own: defined, found again, prepared, resolved into jobs; what contradicts them is refused."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import yaml

from sslbench.config.job import Job
from sslbench.config.layers import load_recipe
from sslbench.config.recipe import recipe_names
from sslbench.config.splits import load_splits
from sslbench.core import registry
from sslbench.core.errors import UnknownNameError, UsageError
from sslbench.data.own.dataset import OwnDataset, load_all, read_definition
from sslbench.data.own.define import add_splits, define
from sslbench.data.prepare import prepare
from sslbench.data.store import Store, partition
from tests.helpers import own_folders as folders

VOLUMES = {"shape": (24, 20, 18), "spacing": (1.5, 1.25, 2.0)}


@pytest.fixture(autouse=True)
def _closed(tmp_path):
    """No test leaves a data folder open."""
    yield
    load_all(tmp_path / "nothing")


@pytest.fixture
def mine(tmp_path):
    """A folder in nnU-Net's format, defined as `mine` and prepared."""
    source = folders.nnunet(tmp_path / "source", **VOLUMES)
    made = define("mine", source, "nnunet", data_dir=tmp_path / "data")
    report = prepare("mine", source, data_dir=tmp_path / "data", workers=1)
    assert report.failed == {} and report.written == 9
    return tmp_path / "data", source, made


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ------------------------------------------------------------------------------------------------ defined and found


def test_what_is_defined_is_a_dataset_like_any_other(mine):
    data, _, made = mine
    kind = registry.component("dataset", "mine")
    assert issubclass(kind, OwnDataset) and "mine" in registry.names("dataset")
    assert [info.name for info in kind.classes] == ["organ", "tumour"] and kind.channels == ("CT",)
    store, lists = Store.open(data, "mine", "3d"), load_splits("mine", "drawn-0")
    parts = partition(store, lists, "20%")
    assert [len(getattr(parts, part)) for part in ("labeled", "unlabeled", "validation", "test")] == [1, 5, 1, 2]
    assert "mine" in recipe_names() and load_recipe("mine").patch_size == [16, 16, 16]
    resolved = Job(recipe="mine", method="mt", labeled="20%").resolved
    assert (resolved.recipe.dataset, resolved.recipe.protocol) == ("mine", "native")
    assert made.recipe == data / "mine" / "recipes" / "mine.yaml" and made.definition == kind.definition


def test_ct_is_clipped_to_what_the_always_labeled_cases_show(mine):
    data, source, made = mine
    (prep,) = made.definition.preprocessings.values()
    (case,) = load_splits("mine", "drawn-0").labeled_always()
    assert made.definition.clipped_by == [case]
    image = nib.load(source / f"imagesTr/{case}_0000.nii.gz").get_fdata()
    label = nib.load(source / f"labelsTr/{case}.nii.gz").get_fdata()
    low, high = np.percentile(image[label > 0], (0.5, 99.5))
    assert prep.clip == (np.floor(low), np.floor(high)) and prep.spacing_mm == (1.5, 1.25, 2.0)
    stored = Store.open(data, "mine", "3d").image(case)
    assert stored.shape[0] == 1 and stored.min() == 0 and stored.max() == 1


def test_a_data_folder_is_opened_in_place_of_another(mine, tmp_path):
    data, _, _ = mine
    load_all(tmp_path / "elsewhere")
    for look in (
        lambda: registry.component("dataset", "mine"),
        lambda: load_recipe("mine"),
        lambda: load_splits("mine", "drawn-0"),
    ):
        with pytest.raises(UnknownNameError):
            look()
    load_all(data)
    load_all(data)
    assert registry.component("dataset", "mine").official_cases == 9


def test_a_class_goes_to_other_processes_as_its_definition(mine):
    kind = registry.component("dataset", "mine")
    again = pickle.loads(pickle.dumps(kind))
    assert again is not kind and again.definition == kind.definition
    assert again.preprocessing_hash("3d") == kind.preprocessing_hash("3d")
    assert pickle.loads(pickle.dumps(OwnDataset)) is OwnDataset


def test_a_definition_that_is_broken_stops_no_other(mine):
    data, _, _ = mine
    for name, text in (
        ("a", "{"),
        ("b", "name: b\n"),
        ("c", (data / "mine" / "definition.yaml").read_text()),
        ("la", (data / "mine" / "definition.yaml").read_text().replace("name: mine", "name: la", 1)),
        (
            "d",
            (data / "mine" / "definition.yaml")
            .read_text()
            .replace("axes: xyz", "axes: yxz")
            .replace(": mine", ": d", 1),
        ),
    ):
        (data / name).mkdir()
        (data / name / "definition.yaml").write_text(text)
    with pytest.warns(UserWarning, match="own data left out") as caught:
        load_all(data)
    said = [str(warning.message) for warning in caught]
    wanted = ("not valid YAML", "is missing", "is that of 'mine'", "input should be|axes", "taken")
    for words in wanted:
        assert any(any(word in line.lower() for word in words.lower().split("|")) for line in said), (words, said)
    assert all("\n" not in line for line in said) and len(said) == 5
    assert registry.component("dataset", "la").name == "la" and issubclass(
        registry.component("dataset", "mine"), OwnDataset
    )


def test_titles_may_be_changed_and_what_decides_arrays_may_not(mine):
    data, source, _ = mine
    path = data / "mine" / "definition.yaml"
    before = registry.component("dataset", "mine").preprocessing_hash("3d")
    content = yaml.safe_load(path.read_text())
    content["title"], content["classes"][1]["short"] = "Our tumours", "tu"
    path.write_text(yaml.safe_dump(content))
    load_all(data)
    kind = registry.component("dataset", "mine")
    assert (kind.title, kind.classes[1].short) == ("Our tumours", "tu") and kind.preprocessing_hash("3d") == before
    assert len(Store.open(data, "mine", "3d").cases) == 9
    assert define("mine", source, "nnunet", data_dir=data).definition.title == "Our tumours"
    content["classes"][1]["name"] = "cyst"
    path.write_text(yaml.safe_dump(content))
    load_all(data)
    assert registry.component("dataset", "mine").preprocessing_hash("3d") != before
    with pytest.raises(UsageError, match="has the classes organ, tumour, and mine was defined with organ, cyst"):
        prepare("mine", source, data_dir=data, workers=1)


# ------------------------------------------------------------------------------------------------- again and changed


def test_the_same_again_changes_nothing(mine):
    data, source, _ = mine
    (data / "mine" / "recipes" / "mine.yaml").write_text("extends: generic/own-3d\ndescription: changed by its owner\n")
    before = files(data)
    define("mine", source, "nnunet", data_dir=data)
    assert prepare("mine", source, data_dir=data, workers=1).unchanged == 9
    assert files(data) == before


def test_a_change_of_the_data_is_refused_unless_it_is_meant(mine):
    data, source, _ = mine
    folders.nnunet(source, [f"m{number:02d}" for number in range(1, 12)], **VOLUMES)
    before = files(data)
    with pytest.raises(UsageError, match=r"says otherwise: cases 9, and now 11.*--force"):
        define("mine", source, "nnunet", data_dir=data)
    with pytest.raises(UsageError, match=r"says otherwise: preprocessings"):
        define("mine", source, "nnunet", data_dir=data, dims=2)
    assert files(data) == before
    made = define("mine", source, "nnunet", data_dir=data, force=True)
    assert made.definition.cases == 11 and len(load_splits("mine", "drawn-0").train) == 8
    kept = {path.name for path in (data / "mine").rglob("*.old-1")}
    assert kept == {"definition.yaml.old-1", "drawn-0.yaml.old-1", "mine.yaml.old-1"} - {
        "mine.yaml.old-1" if (data / "mine/recipes/mine.yaml").read_bytes() == before["mine/recipes/mine.yaml"] else ""
    }
    assert prepare("mine", source, data_dir=data, workers=1).found == 11


def test_another_seed_adds_lists(mine):
    data, source, _ = mine
    with pytest.raises(UsageError, match=r"do not label m0. under every budget, and its label shows"):
        define("mine", source, "nnunet", data_dir=data, seed=1)
    other = folders.nnunet(data.parent / "mri", channels=("T1",), **VOLUMES)
    first = define("mri", other, "nnunet", data_dir=data)
    second = define("mri", other, "nnunet", data_dir=data, seed=1)
    assert second.definition == first.definition and [lists.name for lists in second.splits] == ["drawn-1"]
    assert load_splits("mri", "drawn-0").test != load_splits("mri", "drawn-1").test
    assert load_recipe("mri").splits == "drawn-0"
    with pytest.raises(UsageError, match=r"drawn-1\.yaml holds other lists"):
        define("mri", other, "nnunet", data_dir=data, seed=1, fractions=(50, 20, 30))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("la", "there is a dataset 'la' already.*my-la"),
        ("phantom", "there is a dataset 'phantom'"),
        ("ssl4mis-acdc", "there is a recipe 'ssl4mis-acdc'"),
        ("Liver CT", "'Liver CT' cannot name.*liver-ct"),
        ("../up", "cannot name"),
        ("a/b", "cannot name"),
        ("", "cannot name"),
        ("x" * 65, "cannot name"),
        ("mine\n", "cannot name"),
    ],
)
def test_a_name_has_to_be_free_and_that_of_a_folder(tmp_path, name, message):
    source = folders.nnunet(tmp_path / "source", ("a",))
    with pytest.raises(UsageError, match=message):
        define(name, source, "nnunet", data_dir=tmp_path / "data")
    assert not (tmp_path / "data").exists()


# ------------------------------------------------------------------------------------------- patients, test cases, 2-D


def test_patients_are_found_in_names_and_stay_together(tmp_path):
    cases = [f"p{patient}_scan{scan}" for patient in range(6) for scan in range(2)]
    source = folders.nnunet(tmp_path / "source", cases, **VOLUMES)
    made = define("mine", source, "nnunet", data_dir=tmp_path, patients=r"^(p\d)_")
    (lists,) = made.splits
    assert lists.unit == "patient" and sorted((*lists.train, *lists.val, *lists.test)) == [f"p{n}" for n in range(6)]
    report = prepare("mine", source, data_dir=tmp_path, workers=1)
    assert report.written == 12
    parts = partition(Store.open(tmp_path, "mine", "3d"), load_splits("mine", "drawn-0"), "1 patient")
    assert (
        {id[:2] for id in parts.labeled} == {lists.train[0]} and len(parts.labeled) == 2 and len(parts.unlabeled) == 6
    )
    kind = registry.component("dataset", "mine")
    assert (kind.group_of("p3_scan1"), kind.group_of("of another name")) == ("p3", "of another name")
    # Said once, it is known.
    assert define("mine", source, "nnunet", data_dir=tmp_path).definition.patients == r"^(p\d)_"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(", "no regular expression"), (r"q\d", "finds no patient in 'a'"), ("^", "finds no patient")],
)
def test_a_pattern_that_finds_no_patient_is_refused(tmp_path, pattern, message):
    source = folders.nnunet(tmp_path / "source", ("a", "b", "c"))
    with pytest.raises(UsageError, match=message):
        define("mine", source, "nnunet", data_dir=tmp_path, patients=pattern)


def test_labeled_test_images_are_the_test_set(tmp_path):
    source = folders.nnunet(tmp_path / "source", ("a", "b", "c", "d"), tests=("t1", "t2"), **VOLUMES)
    made = define("mine", source, "nnunet", data_dir=tmp_path)
    (lists,) = made.splits
    assert set(lists.test) == {"t1", "t2"} and (len(lists.train), len(lists.val)) == (3, 1)
    source = folders.nnunet(tmp_path / "torn", ("p1_a", "p2_a"), tests=("p1_b",), **VOLUMES)
    with pytest.raises(UsageError, match="the patient p1 of the training case p1_a is among the test cases"):
        define("torn", source, "nnunet", data_dir=tmp_path, patients=r"p\d")


def test_without_validation_the_last_weights_are_tested(tmp_path):
    source = folders.nnunet(tmp_path / "source", ("a", "b", "c", "d"), channels=("T1",), shape=(24, 20, 6))
    define("mine", source, "nnunet", data_dir=tmp_path, fractions=(50, 0, 50))
    recipe = load_recipe("mine")
    assert (recipe.checkpoint, recipe.schedule.validate_every, recipe.inference.networks) == ("last", 0, "mean_logits")
    assert len(recipe.patch_size) == 2 and Job(recipe="mine", method="cps", labeled="1 case").resolved


def test_slices_are_cut_across_the_thickest_axis(tmp_path):
    source = folders.nnunet(
        tmp_path / "source", ("a", "b", "c"), ("T1",), shape=(5, 24, 30), spacing=(6, 1, 1), codes="RAS"
    )
    made = define("mine", source, "nnunet", data_dir=tmp_path)
    assert list(made.definition.preprocessings) == ["2d"] and load_recipe("mine").patch_size == [32, 32]
    prepare("mine", source, data_dir=tmp_path, workers=1)
    store = Store.open(tmp_path, "mine", "2d")
    assert store.cases["a"].shape == (5, 30, 24) and store.cases["a"].spacing_mm == (6, 1, 1)
    label = nib.load(source / "labelsTr" / "a.nii.gz")
    restored = store.restore("a", store.label("a"))
    assert np.array_equal(np.asanyarray(restored.dataobj), np.asanyarray(label.dataobj))
    with pytest.raises(UsageError, match="says otherwise"):
        define("mine", source, "nnunet", data_dir=tmp_path, dims=3)
    assert list(define("mine", source, "nnunet", data_dir=tmp_path, dims=3, force=True).definition.preprocessings) == [
        "3d"
    ]


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha"])
def test_channels_in_files_of_their_own_are_stacked(tmp_path, ending):
    source = folders.nnunet(tmp_path / "source", ("a", "b", "c"), ("T1", "T2"), ending=ending, **VOLUMES)
    define("mine", source, "nnunet", data_dir=tmp_path)
    assert prepare("mine", source, data_dir=tmp_path, workers=1).failed == {}
    image = Store.open(tmp_path, "mine", "3d").image("a")
    assert image.shape == (2, 24, 20, 18)
    assert image.mean(axis=(1, 2, 3)) == pytest.approx([0, 0], abs=1e-4)
    assert image.std(axis=(1, 2, 3)) == pytest.approx([1, 1], abs=1e-4)
    assert not np.allclose(image[0], image[1])
    # A file of one channel that changed is noticed.
    path = source / "imagesTr" / f"a_0001{ending}"
    image, _, affine = folders.make_scan(0, classes=3, **VOLUMES)
    folders.write_volume(path, image + 7, affine)
    assert prepare("mine", source, data_dir=tmp_path, workers=1).written == 1


def test_msd_is_prepared_with_its_channels(tmp_path):
    source = folders.msd(tmp_path / "source", **VOLUMES)
    made = define("mine", source, "msd", data_dir=tmp_path)
    assert made.definition.layout == "msd" and made.definition.channels == ["T2", "ADC"]
    assert prepare("mine", source, data_dir=tmp_path, workers=1).written == 6
    assert Store.open(tmp_path, "mine", "3d").image("prostate_01").shape == (2, 24, 20, 18)


@pytest.mark.parametrize("lossy", [True, False])
def test_images_with_masks_in_black_and_white(tmp_path, lossy):
    source = folders.pairs(tmp_path / "source", ["a", "b", "c", "d"], lossy=lossy)
    made = define("mine", source, "pairs", data_dir=tmp_path, classes=["gland"])
    assert (made.definition.foreground_from, made.definition.modality) == (128, "rgb")
    assert prepare("mine", source, data_dir=tmp_path, workers=1).failed == {}
    store = Store.open(tmp_path, "mine", "2d")
    assert store.image("a").shape == (3, 1, 24, 40) and 0 <= store.image("a").min() < store.image("a").max() <= 1
    assert store.cases["a"].class_voxels[1] == 8 * 12 and load_recipe("mine").protocol == "native-voxel"
    assert load_recipe("mine").patch_size == [32, 48]
    # The classes need not be said again.
    assert define("mine", source, "pairs", data_dir=tmp_path).definition == made.definition


def test_channels_of_images_with_masks_may_be_named(tmp_path):
    source = folders.nnunet(tmp_path / "source", ("1", "2", "3", "4"), **VOLUMES)
    for path in (source / "imagesTr").iterdir():
        path.rename(source / f"img{path.name.replace('_0000', '')}")
    for path in (source / "labelsTr").iterdir():
        path.rename(source / f"label{path.name}")
    made = define("mine", source, "pairs", data_dir=tmp_path, classes=["organ", "tumour"], channels=["CT"])
    assert made.definition.modality == "ct" and made.definition.clipped_by
    assert define("mine", source, "pairs", data_dir=tmp_path).definition == made.definition
    with pytest.raises(UsageError, match=r"has 1 channels, and 2 are named: T1, T2"):
        define("new", source, "pairs", data_dir=tmp_path, classes=["organ", "tumour"], channels=["T1", "T2"])


def test_masks_of_several_classes_hold_their_numbers(tmp_path):
    source = folders.nnunet(tmp_path / "made", ("a", "b", "c"), ending=".png")
    for path in (source / "labelsTr").iterdir():
        path.rename(source / "imagesTr" / f"{path.stem}_0000_mask.png")
    define("mine", source / "imagesTr", "pairs", data_dir=tmp_path, classes=["one", "two"])
    report = prepare("mine", source / "imagesTr", data_dir=tmp_path, workers=1)
    assert report.failed == {} and registry.component("dataset", "mine").definition.foreground_from is None
    define("one", source / "imagesTr", "pairs", data_dir=tmp_path, classes=["all"])


def test_an_image_in_which_nothing_is_labeled_is_a_case_too(tmp_path):
    source = folders.pairs(tmp_path / "source", ["a", "b", "c", "d"])
    mask = SimpleITK.ReadImage(str(source / "a_mask.jpg"))
    SimpleITK.WriteImage(mask * 0, str(source / "a_mask.jpg"))
    define("mine", source, "pairs", data_dir=tmp_path, classes=["gland"])
    assert prepare("mine", source, data_dir=tmp_path, workers=1).failed == {}
    assert Store.open(tmp_path, "mine", "2d").cases["a"].class_voxels == (40 * 24, 0)


# ------------------------------------------------------------------------------------------------- faults of a case


@pytest.mark.parametrize(
    ("break_", "message"),
    [
        (lambda root: (root / "imagesTr/m02_0001.nii.gz").unlink(), r"m02_0001\.nii\.gz.*No such file"),
        (lambda root: (root / "imagesTr/m02_0000.nii.gz").write_bytes(b"x"), r"m02_0000\.nii\.gz: cannot be read"),
        (lambda root: save(root / "imagesTr/m02_0001.nii.gz", lambda v: v[1:]), "differs from the first channel's"),
        (lambda root: save(root / "imagesTr/m02_0001.nii.gz", shift=3.0), "its origin differ from the first channel's"),
        (lambda root: save(root / "labelsTr/m02.nii.gz", lambda v: v[1:]), "differs from the image's"),
        (
            lambda root: save(root / "labelsTr/m02.nii.gz", lambda v: v + 2),
            "label values 3, 4 are not among the classes",
        ),
        (lambda root: save(root / "imagesTr/m02_0001.nii.gz", lambda v: v * np.nan), "are NaN"),
        (
            lambda root: save(root / "imagesTr/m02_0001.nii.gz", lambda v: np.stack([v, v], -1)),
            "differs from the first channel's",
        ),
    ],
)
def test_a_case_that_cannot_be_used_is_named_and_the_others_are_prepared(tmp_path, break_, message):
    source = folders.nnunet(tmp_path / "source", ("m01", "m02", "m03", "m04"), ("T1", "T2"), **VOLUMES)
    break_(source)
    define("mine", source, "nnunet", data_dir=tmp_path)
    report = prepare("mine", source, data_dir=tmp_path, workers=1)
    assert list(report.failed) == ["m02"] and report.written == 3
    assert re.search(message, report.failed["m02"]), report.failed
    store = Store.open(tmp_path, "mine", "3d")
    assert store.is_subset and "m02" not in store.cases


def save(path: Path, change=lambda voxels: voxels, shift: float = 0.0) -> None:
    image = nib.load(path)
    affine = image.affine.copy()
    affine[0, 3] += shift
    nib.save(nib.Nifti1Image(change(np.asanyarray(image.dataobj)), affine), path)


# -------------------------------------------------------------------------------------------------- lists of one's own


def test_lists_of_a_file_are_used_and_checked(tmp_path):
    source = folders.nnunet(tmp_path / "source", ("a", "b", "c", "d"), ("T1",), **VOLUMES)
    file = tmp_path / "my-lists.yaml"
    file.write_text("train: [a, b]\nval: [c]\ntest: [d]\n")
    made = define("mine", source, "nnunet", data_dir=tmp_path, splits=file, budgets=["50%", "100%"])
    assert load_recipe("mine").splits == "my-lists" and len(made.splits[0].budget("50%").labeled) == 1
    file.write_text("train: [a, b]\nval: [c]\ntest: [e]\n")
    with pytest.raises(UsageError, match="unknown case in test of splits my-lists of mine: 'e'"):
        define("mine", source, "nnunet", data_dir=tmp_path, splits=file)


def test_folds_of_nnunet_become_lists(tmp_path):
    source = folders.nnunet(tmp_path / "source", ("a", "b", "c", "d"), ("T1",), **VOLUMES)
    file = tmp_path / "splits_final.json"
    file.write_text(json.dumps([{"train": ["a", "b"], "val": ["c", "d"]}, {"train": ["c", "d"], "val": ["a", "b"]}]))
    made = define("mine", source, "nnunet", data_dir=tmp_path, splits=file, budgets=["1", "100%"])
    assert [(lists.name, lists.test, lists.val) for lists in made.splits] == [
        ("fold-0", ("c", "d"), ()),
        ("fold-1", ("a", "b"), ()),
    ]
    assert load_recipe("mine").checkpoint == "last" and load_recipe("mine").splits == "fold-0"


def test_official_datasets_take_lists_too(synapse_source, tmp_path):
    source = synapse_source(["0001", "0002", "0003", "0005"], shape=(24, 20, 12))
    file = tmp_path / "mine.yaml"
    file.write_text("train: ['0001', '0002', '0008']\ntest: ['0003']\n")
    with pytest.raises(UsageError, match=r"synapse is not prepared in .*--splits"):
        add_splits("synapse", file, data_dir=tmp_path / "data")
    prepare("synapse", source, data_dir=tmp_path / "data", preprocessing="native", workers=1)
    (lists,) = add_splits("synapse", file, data_dir=tmp_path / "data", budgets=["2"])
    assert load_splits("synapse", "mine") == lists and len(lists.budget("2 cases").labeled) == 2
    store = Store.open(tmp_path / "data", "synapse", "native")
    with pytest.raises(UsageError, match=r"lacks 1 of the 2 labelled cases.*0008 is not prepared"):
        partition(store, lists, "2 cases")
    held = partition(store, lists, "2 cases-held")
    assert held.test == ("0003",) and len(held.labeled) == 1, "a published case that is not held is no fault"
    for name, text, message in (
        ("mine.yaml", "train: ['0001']\ntest: ['0002']\n", "holds other lists.*--force"),
        ("ga.yaml", "train: ['0001']\ntest: ['0002']\n", "has published splits 'ga'"),
        ("x.yaml", "train: ['0001']\ntest: ['0099']\n", "'0099'"),
        ("x.yaml", "train: ['0001']\ntest: ['0001']\n", "stands in train and again in test"),
        ("x.yaml", "train: ['0001']\ntest: ['0002']\nbudgets: {20%: {labeled: []}}\n", "budget 20pct is empty"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(UsageError, match=message):
            add_splits("synapse", tmp_path / name, data_dir=tmp_path / "data")
    (tmp_path / "mine.yaml").write_text("train: ['0001']\ntest: ['0002']\n")
    add_splits("synapse", tmp_path / "mine.yaml", data_dir=tmp_path / "data", budgets=["100%"], force=True)
    assert load_splits("synapse", "mine").test == ("0002",)
    assert (tmp_path / "data/synapse/splits/mine.yaml.old-1").exists()


def test_lists_that_hide_a_label_which_ct_was_clipped_by_are_refused(mine, tmp_path):
    data, _, made = mine
    shown = made.definition.clipped_by[0]
    others = [f"m{number:02d}" for number in range(1, 10) if f"m{number:02d}" != shown]
    file = tmp_path / "hidden.yaml"
    file.write_text(yaml.safe_dump({"train": others[:6], "test": [shown]}))
    with pytest.raises(UsageError, match=f"do not label {shown} under every budget"):
        add_splits("mine", file, data_dir=data)
    file.write_text(
        yaml.safe_dump({"train": [shown, *others[:5]], "test": others[5:], "budgets": {"1": {"prefix": 1}}})
    )
    assert add_splits("mine", file, data_dir=data)[0].budget("1").labeled == (shown,)


# ---------------------------------------------------------------------------------------------------------- real data


def test_real_gland_images_are_own_data(real_data, tmp_path):
    source = real_data("gland")
    made = define("gland", source, "pairs", data_dir=tmp_path, classes=["gland"])
    assert made.definition.cases == 36 and load_recipe("gland").patch_size == [176, 256]
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(source.rglob("testA_*.jpg"))[:6]:
        shutil.copy(path, few)
    report = prepare("gland", few, data_dir=tmp_path, workers=1)
    assert report.failed == {} and report.found == 3
    store = Store.open(tmp_path, "gland", "2d")
    for id in store.cases:
        share = store.label(id).mean()
        assert 0.106 <= share <= 0.894, "the range that the data's README states"


def test_the_definition_says_what_it_is_in_a_file(mine):
    data, _, made = mine
    path = data / "mine" / "definition.yaml"
    assert read_definition(path) == made.definition
    assert path.read_text().startswith("# How sslbench reads mine")
    text = (data / "mine/recipes/mine.yaml").read_text()
    assert "# 6 training images, median 24 x 20 x 18 voxels of 1.5 x 1.25 x 2 mm." in text
