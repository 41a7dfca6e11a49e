"""Reading label maps, checking and bridging their geometry."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from sslbench.core.errors import DataError
from sslbench.evaluation.pairs import Pair, class_ids, load_pair, read_labels, resample_to

BOX = np.zeros((8, 6, 5), int)
BOX[2:5, 1:4, 1:3] = 1
BOX[6, 4, 3] = 2


def test_label_maps_of_any_type_that_holds_whole_numbers_are_read(tmp_path, write_labels):
    for dtype in (np.uint8, np.int16, np.int32, np.float32, np.float64):
        labels, affine = read_labels(write_labels(tmp_path / "a.nii.gz", BOX, dtype=dtype))
        assert labels.dtype == np.uint8 and np.array_equal(labels, BOX)
        assert np.array_equal(affine, np.diag([1, 2, 3, 1]))
    large, _ = read_labels(write_labels(tmp_path / "b.nii.gz", BOX * 1000, dtype=np.int16))
    assert large.max() == 2000


@pytest.mark.parametrize(("values", "what"), [(BOX * 0.5, "whole numbers"), (-BOX, "label -2 is negative")])
def test_what_is_no_label_map_is_refused_by_name(values, what, tmp_path, write_labels):
    with pytest.raises(DataError, match=f"a.nii.gz.*{what}"):
        read_labels(write_labels(tmp_path / "a.nii.gz", values, dtype=np.float32))


def pair(tmp_path, write_labels, prediction, affine):
    return Pair(
        "a",
        "patient a",
        write_labels(tmp_path / "p" / "a.nii.gz", prediction, affine),
        write_labels(tmp_path / "r" / "a.nii.gz", BOX),
    )


def test_maps_on_one_grid_come_as_they_are(tmp_path, write_labels):
    maps = load_pair(pair(tmp_path, write_labels, BOX, None), "original")
    assert np.array_equal(maps.prediction, BOX) and np.array_equal(maps.reference, BOX)
    assert maps.spacing_mm == (1, 2, 3) and maps.axes == "xyz"


def test_another_shape_is_refused_in_one_line_that_names_the_file(tmp_path, write_labels):
    other = pair(tmp_path, write_labels, BOX[1:], None)
    for geometry in ("check", "voxels"):
        with pytest.raises(DataError, match=r"p/a\.nii\.gz: 7x6x5 voxels, its reference 8x6x5 \(--resample"):
            load_pair(other, "original", geometry)


@pytest.mark.parametrize(("entry", "what"), [((0, 3), "origin"), ((1, 1), "axes")])
def test_another_place_is_refused_unless_affines_are_to_be_ignored(entry, what, tmp_path, write_labels):
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[entry] += 0.5
    other = pair(tmp_path, write_labels, BOX, affine)
    with pytest.raises(DataError, match=rf"p/a\.nii\.gz: its {what} differ.*--ignore-affine") as raised:
        load_pair(other, "original")
    assert "\n" not in str(raised.value)
    maps = load_pair(other, "original", "voxels")
    assert np.array_equal(maps.prediction, BOX) and maps.spacing_mm == (1, 2, 3)


def test_rounding_of_affines_is_no_difference(tmp_path, write_labels):
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[:3, 3] += 5e-4
    assert load_pair(pair(tmp_path, write_labels, BOX, affine), "original").prediction.shape == BOX.shape


def test_a_turned_copy_resampled_is_the_original(tmp_path, write_labels):
    """Axes swapped and flipped, the affine with them: the same place in the world."""
    turned = nib.Nifti1Image(BOX.astype(np.uint8), np.diag([1.0, 2.0, 3.0, 1.0])).as_reoriented(
        [[2, -1], [0, 1], [1, -1]]
    )
    other = pair(tmp_path, write_labels, np.asarray(turned.dataobj), turned.affine)
    with pytest.raises(DataError, match="voxels, its reference"):
        load_pair(other, "original")
    assert np.array_equal(load_pair(other, "original", "resample").prediction, BOX)


def test_a_finer_copy_resampled_is_the_original_and_outside_is_background(tmp_path, write_labels):
    fine = BOX.repeat(2, 0).repeat(3, 1).repeat(2, 2)[:-6]
    affine = np.diag([0.5, 2 / 3, 1.5, 1.0])
    affine[:3, 3] = [-0.25, -2 / 3, -0.75]
    found = load_pair(pair(tmp_path, write_labels, fine, affine), "original", "resample").prediction
    assert np.array_equal(found[:5], BOX[:5]) and not found[5:].any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_resampling_agrees_with_itk_on_oblique_grids(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, rng.integers(2, 9, 3)).astype(np.uint8)
    shape = rng.integers(2, 9, 3)
    affines = []
    for _ in range(2):
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        affine = np.eye(4)
        affine[:3, :3] = turn * rng.uniform(0.5, 2, 3)
        affine[:3, 3] = rng.normal(size=3)
        affines.append(affine)

    def image(array, affine):
        made = SimpleITK.GetImageFromArray(array.T)
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        made.SetSpacing(spacing.tolist())
        made.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
        made.SetOrigin(affine[:3, 3].tolist())
        return made

    target = image(np.zeros(shape, np.uint8), affines[1])
    expected = SimpleITK.Resample(
        image(labels, affines[0]), target, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor
    )
    found = resample_to(labels, affines[0], tuple(shape), affines[1])
    # A centre that lies on the border of two cells, or of the image, may fall to either side.
    back = np.linalg.inv(affines[0]) @ affines[1]
    where = np.einsum("ij,j...->i...", back[:3, :3], np.indices(shape)) + back[:3, 3].reshape(3, 1, 1, 1)
    clear = (np.abs(where - np.floor(where) - 0.5) > 1e-6).all(0)
    assert np.array_equal(found[clear], SimpleITK.GetArrayFromImage(expected).T[clear])


def test_label_values_become_class_ids(tmp_path):
    path = tmp_path / "a.nii.gz"
    labels = np.array([[0, 255, 64], [255, 0, 0]], np.uint8)
    assert np.array_equal(class_ids(labels, (64, 255), path), [[0, 2, 1], [2, 0, 0]])
    assert class_ids(labels // 64, (1, 2, 3), path) is not None
    with pytest.raises(DataError, match=r"a\.nii\.gz: the label values 64 are none of the classes'"):
        class_ids(labels, (255,), path)
    with pytest.raises(DataError, match="the label values 64, 255"):
        class_ids(labels, (1, 2), path)
