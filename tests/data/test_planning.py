"""From measurements to a preprocessing and a recipe: the stated rules, by worked numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sslbench.config.layers import load_recipe
from sslbench.config.recipe import recipe_names, recipe_path
from sslbench.config.text import load_yaml
from sslbench.core import registry
from sslbench.core.errors import UsageError
from sslbench.data.own import planning
from sslbench.data.own.layouts import CaseFiles
from sslbench.data.own.planning import Measured
from tests.helpers.own_folders import write_volume
from tests.helpers.scans import make_scan


def measured(size=(512.0, 512.0, 130.0), spacing=(0.75, 0.75, 3.0), placed=True) -> Measured:
    return Measured(10, size, spacing, placed)


@pytest.mark.parametrize(
    ("size", "spacing", "thickest", "dims"),
    [
        ((216, 256, 10), (1.56, 1.56, 10), 2, 2),  # ACDC: slices far apart, and few
        ((512, 512, 130), (0.75, 0.75, 3), 2, 2),  # 4 times as thick
        ((512, 512, 130), (0.75, 0.75, 2.2), 2, 3),
        ((200, 140, 88), (0.625, 0.625, 0.625), 2, 3),  # LA
        ((200, 140, 15), (1, 1, 1), 2, 2),  # one slice too few for a patch
        ((200, 140, 16), (1, 1, 1), 2, 3),
        ((30, 300, 300), (3.3, 0.8, 0.8), 0, 2),  # sagittal slices
        ((775, 522, 1), (1, 1, 1), 2, 2),
        ((1, 522, 300), (1, 1, 1), 0, 2),  # a single slice, whichever axis it is
    ],
)
def test_thick_voxels_or_few_slices_mean_slices(size, spacing, thickest, dims):
    found = measured(size, spacing)
    assert (found.thickest, found.dims) == (thickest, dims)


def test_measured_are_medians_along_the_axes_of_the_body(tmp_path):
    """Whatever the order of a file's axes is."""
    paths = []
    for number, (ending, codes, shape, spacing) in enumerate(
        [
            (".nii.gz", "LPS", (20, 24, 6), (1.0, 1.5, 5.0)),
            (".nrrd", "SAR", (8, 26, 22), (4.0, 1.5, 1.0)),
            (".mha", "ALI", (28, 24, 7), (2.0, 1.2, 3.0)),
        ]
    ):
        paths.append(tmp_path / f"{number}{ending}")
        image, _, affine = make_scan(number, shape, spacing, codes)
        write_volume(paths[-1], image, affine)
    found = planning.measure(paths)
    assert found.images == 3 and found.placed
    assert found.size == (22, 26, 7) and found.spacing_mm == pytest.approx((1.0, 1.5, 4.0))
    for ending in (".nii.gz", ".nrrd", ".png"):
        (tmp_path / f"3{ending}").write_bytes(b"broken")
        assert planning.measure([*paths, tmp_path / f"3{ending}"]) == found
    with pytest.raises(UsageError, match=r"none of the 1 training images can be read: .*3\.nii\.gz"):
        planning.measure([tmp_path / "3.nii.gz"])


def test_small_volumes_keep_their_voxels():
    assert planning.target_spacing(measured((200, 140, 88), (0.625, 0.625, 0.7))) == (0.625, 0.625, 0.7)
    assert planning.target_spacing(measured((300, 300, 300), (0.002, 0.002, 0.003))) == pytest.approx(
        (0.0026, 0.0026, 0.003)  # sqrt(0.324 / 2^24 / 0.003) = 0.00254
    )


@pytest.mark.parametrize(
    ("size", "spacing"),
    [((512, 512, 130), (0.75, 0.75, 3.0)), ((512, 512, 600), (0.7, 0.7, 1.0)), ((1000, 40, 1000), (0.5, 4.0, 0.6))],
)
def test_large_volumes_are_coarsened_at_their_finest_axes_just_enough(size, spacing):
    target = planning.target_spacing(measured(size, spacing))
    voxels = math.prod(n * old / new for n, old, new in zip(size, spacing, target, strict=True))
    assert 0.8 * planning.MOST_VOXELS < voxels <= planning.MOST_VOXELS
    finest = min(target)
    assert all(new == (old if old > finest else finest) for old, new in zip(spacing, target, strict=True))


@pytest.mark.parametrize(
    ("size", "patch"),
    [
        ((200, 140, 88), [112, 112, 80]),  # LA: the patch of the field
        ((360, 360, 130), [96, 96, 96]),  # abdominal CT: that of GA
        ((40, 33, 20), [32, 32, 16]),
        ((300, 16, 9), [288, 16, 16]),
    ],
)
def test_a_patch_is_the_volume_cut_to_what_is_trained_on(size, patch):
    found = planning.plan_patch(measured(size, (1, 1, 1)), (1, 1, 1))
    assert found == patch and math.prod(found) <= planning.PATCH_VOXELS and not any(side % 16 for side in found)


def test_a_patch_is_measured_on_the_grid_that_it_is_cut_from():
    assert planning.plan_patch(measured((400, 400, 100), (0.5, 0.5, 2.0)), (2.0, 2.0, 2.0)) == [96, 96, 96]


@pytest.mark.parametrize(
    ("size", "spacing", "sides"),
    [
        ((775, 522, 1), (1, 1, 1), [176, 256]),  # 522 · 256/775 = 172.4
        ((216, 256, 10), (1.56, 1.56, 10), [256, 224]),  # 216 = 13.5 · 16
        ((30, 300, 200), (4, 0.8, 0.8), [176, 256]),  # sagittal: rows are feet-head
        ((20, 10, 1), (1, 1, 1), [16, 16]),
    ],
)
def test_slices_are_resized_to_the_median_slice(size, spacing, sides):
    assert planning.plan_slice(measured(size, spacing)) == sides


def test_ct_alone_is_ct_and_pictures_of_8_bits_are_pictures(tmp_path):
    write_volume(tmp_path / "a.png", np.zeros((4, 5, 1), np.uint8), np.eye(4))
    assert planning.modality_of(["CT"], []) == "ct" and planning.modality_of(["ct", "CT"], []) == "ct"
    assert planning.modality_of(["CT", "PET"], []) == "mri" and planning.modality_of(["T1"], []) == "mri"
    assert planning.modality_of(["red", "green", "blue"], [tmp_path / "a.png"]) == "rgb"


def test_ct_is_clipped_to_the_percentiles_of_what_is_labeled(tmp_path):
    values = np.arange(1000, dtype=np.int16).reshape(10, 10, 10)
    label = (values >= 500).astype(np.uint8)
    for name, voxels in (("image", values), ("label", label)):
        write_volume(tmp_path / f"{name}.nii.gz", voxels, np.eye(4))
    case = CaseFiles("a", (tmp_path / "image.nii.gz",), tmp_path / "label.nii.gz")
    low, high = np.percentile(values[label > 0], (0.5, 99.5))
    assert planning.ct_range([case]) == (math.floor(low), math.floor(high))
    write_volume(tmp_path / "label.nii.gz", np.zeros_like(label), np.eye(4))
    with pytest.raises(UsageError, match="nothing that is labelled in a shows"):
        planning.ct_range([case])


def test_intensities_follow_the_modality():
    volumes = measured((100, 100, 60), (1.0, 1.0, 2.0))
    ct = planning.plan_preprocessing(volumes, 3, "ct", (-100.0, 300.0))
    assert (ct.axes, ct.orientation, ct.spacing_mm) == ("xyz", "RAS", (1.0, 1.0, 2.0))
    assert (ct.clip, ct.scale) == ((-100.0, 300.0), "clip") and "-100 to 300 HU" in ct.description
    assert planning.plan_preprocessing(volumes, 3, "ct", None).scale == "zscore"
    mri = planning.plan_preprocessing(volumes, 2, "mri", None)
    assert (mri.axes, mri.orientation, mri.spacing_mm, mri.clip, mri.scale) == ("zyx", "RAS", None, None, "zscore")
    sagittal = planning.plan_preprocessing(measured((30, 300, 300), (4, 1, 1)), 2, "mri", None)
    assert sagittal.orientation == "ASR", "the thick axis comes last"
    pictures = planning.plan_preprocessing(measured((775, 522, 1), (1, 1, 1), placed=False), 2, "rgb", None)
    assert (pictures.orientation, pictures.clip, pictures.scale) == (None, (0.0, 255.0), "clip")


@pytest.mark.parametrize(
    ("classes", "sided"),
    [(["left kidney"], True), (["LA", "Left_Ventricle"], True), (["liver", "cleft"], False), (["kidney-right"], True)],
)
def test_classes_that_a_flip_would_swap_are_known_by_their_names(classes, sided):
    assert planning.sided(classes) is sided


def test_the_generic_recipes_lack_nothing_but_what_is_planned():
    assert not {"own-2d", "own-3d", "generic/own-2d"} & set(recipe_names())
    for dims in (2, 3):
        raw = load_yaml(recipe_path(f"generic/own-{dims}d"))
        assert not {"dataset", "preprocessing", "splits", "patch_size"} & set(raw)
        network = registry.component("network", raw["network"]["name"])
        assert network.dims == dims and planning.DIVISOR % network.divisor == 0
        with pytest.raises(UsageError, match="is missing"):
            load_recipe(f"generic/own-{dims}d")
