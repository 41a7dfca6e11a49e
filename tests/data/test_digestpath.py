"""DigestPath: the official layout, its lossy masks, slides, and what training is shown."""

from __future__ import annotations

import numpy as np
import pytest

from sslbench.config.splits import load_splits
from sslbench.core.errors import UsageError
from sslbench.data.datasets.digestpath import DigestPath, slide
from sslbench.data.prepare import prepare
from sslbench.data.store import Store, partition
from tests.helpers.digestpath import picture, tissue, write_pictures

LISTS = load_splits("digestpath", "cdma-leaking")


def test_the_slide_stands_before_the_time_of_the_scan():
    assert slide("18-03912A_2019-05-07 22_55_07-lv1-13993-9429-2461-4154") == "18-03912A"
    assert slide("2018_74969_1-1_2019-02-21 00_48_39-lv1-38647-14050-3934-3066") == "2018_74969_1-1"
    assert slide("train_12") == DigestPath.group_of("train_12") == "train_12"
    assert DigestPath.group_of("18-03912A_2019-05-07 22_55_07-lv1-13993-9429-2461-4154") == "18-03912A"
    slides = [slide(name) for name in (*LISTS.train, *LISTS.val, *LISTS.test)]
    assert len(slides) == 130 and not any("lv1" in name for name in slides)
    # What the list's own header says of it.
    train = {slide(name) for name in LISTS.train}
    assert [sum(slide(name) in train for name in part) for part in (LISTS.val, LISTS.test)] == [5, 11]


@pytest.mark.parametrize(
    ("endings", "values"),
    [(("jpg", "jpg"), 255), (("jpg", "png"), 1), (("png", "png"), 255), (("tif", "tif"), 1)],
    ids=str,
)
def test_images_and_masks_of_every_kind_are_read(endings, values, tmp_path):
    names = [LISTS.train[0], LISTS.test[0]]
    source = write_pictures(tmp_path / "source", names, endings, values)
    report = prepare("digestpath", source, data_dir=tmp_path / "data", workers=1)
    assert (report.failed, report.written) == ({}, 2)
    store = Store.open(tmp_path / "data", "digestpath", "metassl")
    assert store.spacing == "published"
    for number, name in enumerate(names):
        image, mask = tissue(number)
        assert store.image(name).shape == (3, 1, 40, 52)
        assert np.array_equal(store.label(name)[0], mask)
        difference = store.image(name)[:, 0].astype(float) * 255 - image.transpose(2, 0, 1)
        assert np.abs(difference).mean() < (8 if endings[0] == "jpg" else 0.1)
        assert store.cases[name].group == slide(name)
        assert store.cases[name].spacing_mm == pytest.approx((0.000475,) * 3)
        reference, spacing = store.reference(name)
        assert np.array_equal(reference[..., 0], mask.T) and spacing == pytest.approx((0.000475,) * 3)
        assert np.array_equal(np.asarray(store.restore(name, store.label(name)).dataobj), reference)


def test_a_lossy_mask_is_cut_at_128_and_a_picture_is_no_mask():
    noisy = np.array([[0, 3, 90], [128, 129, 255]], np.uint8).repeat(40, 0).repeat(40, 1)
    noisy[:, :110] = 0
    assert DigestPath.class_ids(noisy).tolist() == (noisy > 128).astype(int).tolist()
    assert DigestPath.class_ids(np.array([0, 1, 1])).tolist() == [0, 1, 1]
    grey = np.arange(256, dtype=np.uint8)
    assert np.array_equal(DigestPath.class_ids(grey), grey)


def test_a_picture_in_the_place_of_a_mask_is_told(tmp_path):
    name = LISTS.train[0]
    source = write_pictures(tmp_path / "source", [name, LISTS.train[1]])
    picture(source / "tissue-train-pos-v1" / f"{name}_mask.jpg", tissue(7)[0][..., 0])
    report = prepare("digestpath", source, data_dir=tmp_path / "data", workers=1)
    assert list(report.failed) == [name] and report.written == 1
    assert "_mask.jpg: label values" in report.failed[name]


def test_a_missing_mask_and_one_of_another_size_are_told(tmp_path):
    first, second, third = LISTS.train[:3]
    source = write_pictures(tmp_path / "source", [first, second, third])
    folder = source / "tissue-train-pos-v1"
    (folder / f"{first}_mask.jpg").unlink()
    picture(folder / f"{second}_mask.jpg", tissue(1, (40, 50))[1] * np.uint8(255))
    report = prepare("digestpath", source, data_dir=tmp_path / "data", workers=1)
    assert report.written == 2 and list(report.failed) == [second]
    assert f"1 case without a label, for training without one: {first}" in report.notes
    assert "shape (50, 40, 1) differs from the image's (52, 40, 1)" in report.failed[second]


def test_negative_tissue_and_names_on_no_list_are_passed_over_aloud(tmp_path):
    source = write_pictures(tmp_path / "source", [LISTS.train[0], "GlaS_1"])
    picture(source / "tissue-train-neg" / "a.jpg", tissue(3)[0])
    dataset = DigestPath()
    assert [case.id for case in dataset.find(source)] == [LISTS.train[0]]
    assert "left out 1 case without a lesion (tissue-train-neg)" in dataset.notes[0]
    assert any("1 case on no official list of digestpath: GlaS_1" in note for note in dataset.notes)


def test_names_on_no_list_alone_are_refused_with_the_command_for_own_data(tmp_path):
    source = write_pictures(tmp_path / "source", ["train_1", "testA_2"])
    with pytest.raises(UsageError, match="2 cases on no official list of digestpath: testA_2, train_1") as raised:
        prepare("digestpath", source, data_dir=tmp_path / "data")
    assert "--from-pairs" in str(raised.value.hint)


def test_the_public_lists_are_served_by_their_name_and_others_must_not_share_a_slide(tmp_path):
    pair = next((a, b) for a in LISTS.train for b in LISTS.test if slide(a) == slide(b))
    names = [LISTS.budget("5%").labeled[0], *pair, LISTS.val[0]]
    prepare("digestpath", write_pictures(tmp_path / "source", names), data_dir=tmp_path / "data", workers=1)
    store = Store.open(tmp_path / "data", "digestpath", "metassl")
    parts = partition(store, LISTS, "5%-held")
    assert parts.test == (pair[1],) and pair[0] in parts.unlabeled
    disjoint = load_splits("digestpath", "slide-disjoint")
    assert pair[1] not in disjoint.test


def test_glands_in_this_layout_are_on_no_list(real_data):
    with pytest.raises(UsageError, match="36 cases on no official list"):
        DigestPath().find(real_data("gland"))
