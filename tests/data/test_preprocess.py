"""Loading, its integrity checks, turning, resampling, scaling, and the way back."""

from __future__ import annotations

import gzip
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from scipy import ndimage

from sslbench.core.errors import DataError
from sslbench.data.base import LabelCrop, Preprocessing, RawCase
from sslbench.data.datasets.acdc import ACDC
from sslbench.data.datasets.synapse import Synapse
from sslbench.data.files.volumes import read_image
from sslbench.data.geometry import label_positions, resample_linear, resample_nearest, way_back
from sslbench.data.preprocess import LoadedCase, load_case, preprocess, restore, to_stored

PLAIN = Preprocessing(axes="xyz", scale="minmax")


def grid(shape, spacing_mm):
    return {"shape": list(shape), "spacing_mm": list(spacing_mm)}


def loaded_case(scan) -> LoadedCase:
    """A scan as `load_case` would return it, without files."""
    image, label, affine = scan
    header = nib.Nifti1Image(label, affine).header
    fields = ("qform_code", "sform_code", "xyzt_units", "quatern_b", "quatern_c", "quatern_d", "qoffset_x")
    fields += ("qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z")
    return LoadedCase(
        "0001",
        image.astype(np.float32),
        label,
        affine,
        tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist()),
        {name: header[name].tolist() for name in fields} | {"pixdim": header["pixdim"][:4].tolist()},
        tuple(np.bincount(label.ravel()).tolist()),
    )


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


# ------------------------------------------------------------------------------------------------------ loading


def test_a_case_is_read_in_file_order_with_its_counts(scan, raw_case):
    image, label, affine = scan(1)
    loaded = load_case(raw_case((image, label, affine)), ACDC)
    assert loaded.image.dtype == np.float32
    assert np.array_equal(loaded.image, image)
    assert np.array_equal(loaded.label, label)
    assert loaded.spacing_mm == pytest.approx((1.5, 1.25, 4.0))
    assert loaded.class_voxels == tuple(np.bincount(label.ravel(), minlength=4))
    assert np.array_equal(loaded.affine, affine)


def test_header_scaling_and_a_fourth_axis_of_one_are_understood(scan, raw_case):
    image, label, affine = scan(1)
    raw = raw_case((image, label, affine))
    scaled = nib.Nifti1Image(image[..., None], affine)
    scaled.header.set_slope_inter(0.5, -1024.0)
    nib.save(scaled, raw.image)
    assert np.array_equal(load_case(raw, ACDC).image, image / np.float32(2) - 1024)


def test_a_label_stored_as_float_is_accepted_where_it_holds_integers(scan, raw_case):
    image, label, affine = scan(1)
    loaded = load_case(raw_case((image, label.astype(np.float32), affine)), ACDC)
    assert loaded.label.dtype == np.uint8
    assert np.array_equal(loaded.label, label)


def _nan(image, label, affine):
    image = image.astype(np.float32)
    image[3, 4, 5] = np.nan
    return image, label, affine


def _infinite(image, label, affine):
    image = image.astype(np.float32)
    image[0, 0, 0] = -np.inf
    return image, label, affine


def _no_class(image, label, affine):
    label = label.copy()
    label[0, 0, :2] = 4, 9
    return image, label, affine


def _half(image, label, affine):
    label = label.astype(np.float32)
    label[2, 2, 2] = 1.5
    return image, label, affine


def _nan_label(image, label, affine):
    label = label.astype(np.float32)
    label[2, 2, 2] = np.nan
    return image, label, affine


def _huge(image, label, affine):
    return image, label, affine @ np.diag([40.0, 1, 1, 1])


FAULTS = {
    "nan": (_nan, "img", "1 voxels are NaN or infinite"),
    "infinite": (_infinite, "img", "1 voxels are NaN or infinite"),
    "constant": (lambda i, m, a: (np.full_like(i, 7), m, a), "img", "every voxel is 7"),
    "4-D": (lambda i, m, a: (np.stack([i, i], -1), m, a), "img", "2 channels where 1 should be"),
    "5-D": (lambda i, m, a: (i[:, None, None] + np.zeros((24, 2, 2, 20, 6)), m, a), "img", "is not a volume"),
    "2-D": (lambda i, m, a: (i[..., 0], m, a), "img", r"shape \(24, 20\) is not a volume"),
    "spacing": (_huge, "img", "60 x 1.25 x 4 mm is not plausible"),
    "shape": (lambda i, m, a: (i, m[1:], a), "label", r"shape \(23, 20, 6\) differs .* \(24, 20, 6\)"),
    "class": (_no_class, "label", "label values 4, 9 are not among the classes 0 to 3"),
    "half": (_half, "label", "label values 1.5 are not"),
    "nan label": (_nan_label, "label", "label values nan are not"),
    "negative": (lambda i, m, a: (i, -m.astype(np.int16), a), "label", "label values -3, -2, -1 are not"),
    "empty": (lambda i, m, a: (i, np.zeros_like(m), a), "label", "the reference is empty"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_in_one_line_that_names_the_file(fault, scan, raw_case):
    spoil, which, message = FAULTS[fault]
    raw = raw_case(spoil(*scan(1)))
    with pytest.raises(DataError, match=message) as raised:
        load_case(raw, ACDC)
    assert str(raised.value).startswith(str(raw.image if which == "img" else raw.label))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("entry", "what"), [((0, 3), "origin"), ((2, 2), "axes"), ((0, 1), "axes")])
def test_image_and_label_have_to_lie_in_the_same_place(entry, what, scan, raw_case):
    image, label, affine = scan(1)
    raw = raw_case((image, label, affine))
    moved = affine.copy()
    moved[entry] += 0.0005
    nib.save(nib.Nifti1Image(label, moved), raw.label)
    load_case(raw, ACDC)  # below the tolerance
    moved[entry] += 0.1
    nib.save(nib.Nifti1Image(label, moved), raw.label)
    with pytest.raises(DataError, match=f"label0001.*its {what} differ"):
        load_case(raw, ACDC)


@pytest.mark.parametrize("axis", [None, 0])
def test_a_header_without_a_usable_geometry_is_refused(axis, scan, raw_case):
    image, label, affine = scan(1)
    if axis is None:
        affine[:3, 1] = affine[:3, 0]  # two axes in the same direction
    else:
        affine[:3, axis] = 0
    raw = raw_case((image, label, np.eye(4)))
    for path, voxels in ((raw.image, image), (raw.label, label)):
        nifti = nib.Nifti1Image(voxels, np.eye(4))
        nifti.header.set_sform(affine, 1)
        content = nifti.header.copy()
        content.set_data_offset(352)
        path.write_bytes(gzip.compress(content.binaryblock + b"\0\0\0\0" + voxels.tobytes(order="F")))
    with pytest.raises(DataError, match=r"not plausible|almost in a plane"):
        load_case(raw, ACDC)


def test_missing_foreign_truncated_and_flipped_bytes_are_found(scan, raw_case):
    raw = raw_case(scan(1))
    good = raw.image.read_bytes()
    plain = gzip.decompress(good)
    flipped = bytearray(plain)
    flipped[600] ^= 1
    checksum_of_the_good = good[-8:]
    spoilt = {
        "truncated gzip": good[: len(good) // 2],
        "truncated by its checksum": good[:-8],
        "one bit under a good checksum": gzip.compress(bytes(flipped))[:-8] + checksum_of_the_good,
        "truncated inside": gzip.compress(plain[:-100]),
        "no NIfTI": gzip.compress(b"hello" * 500),
        "no gzip": b"hello" * 500,
        "empty": b"",
    }
    for name, content in spoilt.items():
        raw.image.write_bytes(content)
        with pytest.raises(DataError, match="damaged or incomplete") as raised:
            load_case(raw, ACDC)
        assert str(raw.image) in str(raised.value), name
        assert "\n" not in str(raised.value), name
    raw.image.unlink()
    with pytest.raises(DataError, match=r"img0001\.nii\.gz: No such file"):
        load_case(raw, ACDC)
    raw.image.mkdir()
    with pytest.raises(DataError, match=r"img0001\.nii\.gz: Is a directory"):
        load_case(raw, ACDC)


# ------------------------------------------------------------------------------------------ turning and the way back


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS", "SPR", "PIL", "ASR"])
def test_turning_to_ras_agrees_with_nibabel(codes, scan):
    image, label, affine = scan(2, codes=codes)
    made = preprocess(loaded_case((image, label, affine)), replace(PLAIN, orientation="RAS"))
    turn = ornt_transform(io_orientation(affine), axcodes2ornt("RAS"))
    assert np.array_equal(made.label, apply_orientation(label, turn))
    turned = nib.Nifti1Image(label, affine).as_reoriented(turn)
    assert made.spacing_mm == pytest.approx(turned.header.get_zooms())
    assert made.image.flags.c_contiguous and made.label.flags.c_contiguous


@pytest.mark.parametrize("codes", ["RAS", "LAS", "SPR", "PIL"])
@pytest.mark.parametrize("axes", ["xyz", "zyx"])
@pytest.mark.parametrize("orientation", [None, "RAS"])
def test_the_way_back_is_exact_where_nothing_is_resampled(codes, axes, orientation, scan, raw_case):
    raw = raw_case(scan(3, codes=codes))
    loaded = load_case(raw, ACDC)
    made = preprocess(loaded, Preprocessing(axes=axes, orientation=orientation))
    back = restore(made.label, made.geometry)
    source = nib.load(raw.label)
    assert np.array_equal(np.asarray(back.dataobj), np.asarray(source.dataobj))
    assert back.get_data_dtype() == np.uint8
    assert np.array_equal(back.affine, source.affine)
    for code in ("qform_code", "sform_code"):
        assert back.header[code] == source.header[code]


def test_the_axes_of_zyx_are_those_of_simpleitk(scan, raw_case):
    raw = raw_case(scan(4, codes="LPS"))
    made = preprocess(load_case(raw, ACDC), Preprocessing(axes="zyx"))
    image = SimpleITK.ReadImage(str(raw.label))
    assert np.array_equal(made.label, SimpleITK.GetArrayFromImage(image))
    assert made.spacing_mm == pytest.approx(image.GetSpacing()[::-1])


def test_an_oblique_qform_comes_back_bit_for_bit(scan, raw_case, tmp_path):
    image, label, affine = scan(5)
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine[:3, :3] = turn @ affine[:3, :3]
    raw = raw_case((image, label, affine))
    for path, voxels in ((raw.image, image), (raw.label, label)):
        nifti = nib.Nifti1Image(voxels, affine)
        nifti.set_sform(None, 0)
        nifti.set_qform(affine, 1)
        nib.save(nifti, path)
    made = preprocess(load_case(raw, ACDC), replace(PLAIN, orientation="RAS"))
    nib.save(restore(made.label, made.geometry), tmp_path / "back.nii.gz")
    back, source = nib.load(tmp_path / "back.nii.gz"), nib.load(raw.label)
    assert np.array_equal(back.affine, source.affine)
    assert (int(back.header["qform_code"]), int(back.header["sform_code"])) == (1, 0)
    assert np.array_equal(np.asarray(back.dataobj), label)


def test_labels_of_another_shape_are_not_restored(scan):
    made = preprocess(loaded_case(scan(1)), PLAIN)
    with pytest.raises(ValueError, match="stored grid"):
        restore(made.label[1:], made.geometry)


@pytest.mark.parametrize(
    "changes",
    [
        {"orientation": "RAS", "axes": "zyx"},
        {"spacing_mm": (1.5, 1.5, 2.0), "orientation": "RAS"},
        {"resize_to": (16, 16, 24), "axes": "zyx"},
        {"crop": LabelCrop(size=(4, 4, 4), margin=(1, 2), axes=("x", "z")), "orientation": "RAS"},
    ],
    ids=str,
)
def test_labels_of_a_scan_are_stored_as_its_reference_was(changes, scan):
    loaded = loaded_case(scan(13, codes="SPR"))
    made = preprocess(loaded, replace(PLAIN, **changes))
    assert np.array_equal(to_stored(loaded.label, made.geometry), made.label)
    with pytest.raises(ValueError, match="for a scan of"):
        to_stored(loaded.label[1:], made.geometry)


# -------------------------------------------------------------------------------------------------------- resampling


def test_a_ramp_is_reproduced_at_the_new_cell_centres():
    shape, spacing, target = (40, 30, 25), (0.8, 1.7, 3.0), (1.5, 1.5, 2.0)
    centres = [(np.arange(n) + 0.5 - n / 2) * s for n, s in zip(shape, spacing, strict=True)]
    ramp = sum(np.meshgrid(*centres, indexing="ij")).astype(np.float32)
    prep = replace(PLAIN, spacing_mm=target, clip=(-1000.0, 1000.0), scale="clip")
    affine = np.diag([*spacing, 1.0])
    made = preprocess(loaded_case((ramp, np.ones(shape, np.uint8), affine)), prep)
    assert made.image.shape == (21, 34, 38)  # 21.33, 34 and 37.5 cells
    assert made.spacing_mm == target
    new = [(np.arange(n) + 0.5 - n / 2) * s for n, s in zip(made.image.shape, target, strict=True)]
    expected = sum(np.meshgrid(*new, indexing="ij"))
    inner = (slice(1, -1),) * 3  # the outermost cells are held, not extrapolated
    assert np.abs(made.image * 2000 - 1000 - expected)[inner].max() < 1e-3


def test_resampling_agrees_with_torch_where_extents_match():
    image = np.random.default_rng(0).normal(size=(12, 10, 8)).astype(np.float32)
    old, new = grid((12, 10, 8), (1.0, 1.0, 1.0)), grid((18, 5, 16), (12 / 18, 2.0, 0.5))
    tensor = torch.from_numpy(image)[None, None]
    linear = torch.nn.functional.interpolate(tensor, new["shape"], mode="trilinear", align_corners=False)[0, 0]
    assert np.abs(resample_linear(image, old, new) - linear.numpy()).max() < 1e-5


def test_linear_and_nearest_agree_with_scipy_at_the_documented_positions():
    image = np.random.default_rng(1).normal(size=(11, 9, 7)).astype(np.float32)
    label = np.random.default_rng(2).integers(0, 5, (11, 9, 7)).astype(np.uint8)
    old, new = grid((11, 9, 7), (0.7, 1.1, 3.0)), grid((5, 7, 11), (1.5, 1.5, 2.0))
    axes = [
        np.clip((np.arange(m) + 0.5 - m / 2) * t / s + n / 2 - 0.5, 0, n - 1)
        for n, s, m, t in zip(old["shape"], old["spacing_mm"], new["shape"], new["spacing_mm"], strict=True)
    ]
    where = np.stack(np.meshgrid(*axes, indexing="ij"))
    expected = ndimage.map_coordinates(image, where, order=1, mode="nearest")
    assert np.abs(resample_linear(image, old, new) - expected).max() < 1e-5
    nearest = label[tuple(np.floor(where + 0.5).astype(int))]
    assert np.array_equal(resample_nearest(label, old, new), nearest)


def test_the_right_spacing_is_left_alone(scan):
    image, label, affine = scan(6, spacing=(1.5, 1.5, 2.0), codes="RAS")
    affine[:3, :3] *= 1 + 1e-6
    made = preprocess(loaded_case((image, label, affine)), Synapse.preprocessings["ga"])
    assert made.geometry["from"] == made.geometry["to"]
    assert np.array_equal(made.label, label)


def test_large_structures_survive_resampling_and_the_way_back():
    shape, spacing = (80, 64, 30), (0.8, 0.95, 2.5)
    grid_mm = [(np.arange(n) + 0.5 - n / 2) * s for n, s in zip(shape, spacing, strict=True)]
    x, y, z = np.meshgrid(*grid_mm, indexing="ij")
    label = (x**2 / 26**2 + y**2 / 22**2 + z**2 / 28**2 < 1).astype(np.uint8)
    affine = np.diag([-spacing[0], spacing[1], spacing[2], 1.0])
    image = np.where(label, 80, -60).astype(np.float32)
    made = preprocess(loaded_case((image, label, affine)), Synapse.preprocessings["ga"])
    assert made.geometry["from"] != made.geometry["to"]
    back = restore(made.label, made.geometry)
    assert back.shape == shape
    assert np.array_equal(back.affine, affine.astype(np.float32))
    assert dice(np.asarray(back.dataobj) == 1, label == 1) > 0.97
    # The resampled image shows the structure where the resampled label has it: no shift between the two.
    assert dice(made.image > 0.35, made.label == 1) > 0.97


# ---------------------------------------------------------------------------------------------------------- resizing


def torch_resized(array, shape, mode, **options):
    """`torch.nn.functional.interpolate` of a volume (X, Y, Z)."""
    tensor = torch.from_numpy(np.ascontiguousarray(array, np.float32))[None, None]
    return torch.nn.functional.interpolate(tensor, shape, mode=mode, **options)[0, 0].numpy()


@pytest.mark.parametrize("shape", [(37, 64, 21), (9, 16, 40)])
def test_resizing_is_that_of_torch_on_raw_intensities_then_clipped_and_scaled(shape, scan):
    image, label, affine = scan(8, shape=shape, classes=6)
    prep = Preprocessing(axes="zyx", resize_to=(16, 16, 24), clip=(-75.0, 275.0))
    made = preprocess(loaded_case((image, label, affine)), prep)
    # As DHC has it: SimpleITK's axes (z, y, x), raw HU resized, clip and extremes of the clipped volume.
    linear = torch_resized(image.transpose(2, 1, 0), (24, 16, 16), "trilinear", align_corners=False).clip(-75, 275)
    assert np.abs(made.image - (linear - linear.min()) / (linear.max() - linear.min())).max() < 1e-5
    assert np.array_equal(made.label, torch_resized(label.transpose(2, 1, 0), (24, 16, 16), "nearest"))
    assert made.spacing_mm == pytest.approx([4.0 * shape[2] / 24, 1.25 * shape[1] / 16, 1.5 * shape[0] / 16])


def test_every_size_of_a_scan_takes_the_labels_that_torch_takes():
    for size in [*range(20, 300), 512, 576, 640]:
        for target in (80, 160):
            line = np.arange(size)[:, None, None]
            resized = grid((target, 1, 1), (size / target, 1, 1))
            taken = label_positions(grid((size, 1, 1), (1, 1, 1)), resized, "floor")[0]
            assert np.array_equal(taken, torch_resized(line, (target, 1, 1), "nearest").ravel()), (size, target)


def test_what_is_said_on_a_coarser_grid_is_said_there_again_after_the_way_back():
    """Protocol dhc-2023 resizes a prediction on the scan by torch's rule: it must find what the network predicted."""
    for size in [*range(80, 400), 512, 576]:
        for target in (80, 160):
            if target <= size:
                old, new = grid((size, 1, 1), (1, 1, 1)), grid((target, 1, 1), (size / target, 1, 1))
                there, back = label_positions(old, new, "floor")[0], way_back(old, new, "floor")[0]
                assert np.array_equal(back[there], np.arange(target)), (size, target)
                assert np.abs(there[back] - np.arange(size)).max() <= np.ceil(size / target)


def test_a_factor_rounds_sides_down(scan):
    image, label, affine = scan(9, shape=(25, 20, 7))
    made = preprocess(loaded_case((image, label, affine)), replace(PLAIN, resize_by=(0.5, 0.5, 1.0)))
    assert made.label.shape == (12, 10, 7)
    assert made.spacing_mm == pytest.approx((1.5 * 25 / 12, 2.5, 4.0))
    assert np.array_equal(made.label, torch_resized(label, (12, 10, 7), "nearest"))
    assert np.allclose(
        made.image, minmax(torch_resized(image, (12, 10, 7), "trilinear", align_corners=False)), atol=1e-5
    )


def minmax(image):
    return (image - image.min()) / (image.max() - image.min())


@pytest.mark.parametrize("to", [(48, 48, 40), (30, 19, 13), (96, 60, 39), (120, 70, 41)])
def test_a_resized_label_comes_back_without_a_second_shift(to):
    x, y, z = np.indices((96, 60, 40))
    label = ((x - 40) ** 2 / 20**2 + (y - 30) ** 2 / 15**2 + (z - 20) ** 2 / 12**2 < 1).astype(np.uint8)
    made = preprocess(
        loaded_case((label * 100 + x, label, np.diag([1.0, 1.0, 3.0, 1.0]))), replace(PLAIN, resize_to=to)
    )
    back = np.asarray(restore(made.label, made.geometry).dataobj)
    again = torch_resized(made.label, label.shape, "nearest")  # moves it as far as the way there did
    assert dice(back == 1, label == 1) > max(0.92, dice(again == 1, label == 1) + 0.01)
    # Every second voxel of a halved axis lies between two labels: half a voxel is the least that a rule can move it.
    assert np.abs(np.argwhere(back).mean(0) - np.argwhere(label).mean(0)).max() <= 0.5 + 1e-6


# ---------------------------------------------------------------------------------------------------------- channels


@pytest.mark.parametrize("channels", ["apart", "together"])
def test_channels_stand_first_and_are_scaled_apart_or_together(channels, scan):
    image, label, affine = scan(10, codes="LPS")
    several = np.stack([image, 2 * image + 50, -image])
    prep = Preprocessing(axes="zyx", orientation="RAS", spacing_mm=(1.5, 1.5, 4.0), channels=channels)
    made = preprocess(loaded_case((several, label, affine)), prep)
    assert made.image.shape == (3, *made.label.shape)
    assert made.image.flags.c_contiguous
    alone = [preprocess(loaded_case((channel, label, affine)), prep) for channel in several]
    assert np.array_equal(made.label, alone[0].label)
    if channels == "apart":
        assert np.array_equal(made.image, np.stack([one.image for one in alone]))
    else:
        raw = [preprocess(loaded_case((one, label, affine)), replace(prep, scale=None)).image for one in several]
        assert np.allclose(made.image, minmax(np.stack(raw)), atol=1e-6)
    assert np.asarray(restore(made.label, made.geometry).dataobj).shape == label.shape


def test_a_crop_leaves_all_channels(scan):
    image, label, affine = scan(11)
    prep = replace(PLAIN, crop=LabelCrop(size=(4, 4, 4), margin=(1, 2)))
    made = preprocess(loaded_case((np.stack([image, image]), label, affine)), prep)
    assert made.image.shape == (2, *made.label.shape)
    assert made.label.size < label.size


def test_mri_takes_percentiles_where_ct_is_clipped(scan):
    image, label, affine = scan(12)
    prep = replace(PLAIN, clip=(-125.0, 275.0), scale="clip", mri=(5.0, 95.0))
    ct = loaded_case((image, label, affine))
    assert np.array_equal(preprocess(ct, prep).image, preprocess(ct, replace(prep, mri=None)).image)
    made = preprocess(replace(ct, modality="mri"), prep).image
    low, high = np.percentile(image, (5, 95))
    assert np.allclose(made, (np.clip(image, low, high) - low) / (high - low), atol=1e-6)
    unruled = preprocess(replace(ct, modality="mri"), replace(prep, mri=None)).image
    assert np.array_equal(unruled, preprocess(ct, prep).image)


# ------------------------------------------------------------------------------------------------------ plain images


class Slide(ACDC):
    channels = ("red", "green", "blue")
    pixel_mm = 0.0005
    classes = ACDC.classes[:1]


def write_picture(path, array):
    """An (H, W) or (H, W, C) array as a picture."""
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array, isVector=array.ndim == 3), str(path))
    return path


@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
def test_a_picture_is_a_volume_of_one_slice_with_its_channels_first(ending, tmp_path):
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (20, 30, 3)).astype(np.uint8), rng.integers(0, 2, (20, 30)).astype(np.uint8)
    files = (write_picture(tmp_path / f"a.{ending}", image), write_picture(tmp_path / f"a_mask.{ending}", mask))
    loaded = load_case(RawCase("a", "a", *files), Slide)
    assert np.array_equal(loaded.image[..., 0], image.transpose(2, 1, 0))
    assert np.array_equal(loaded.label[..., 0], mask.T)
    assert loaded.spacing_mm == pytest.approx((0.0005,) * 3)
    made = preprocess(loaded, Preprocessing(axes="zyx", clip=(0.0, 255.0), scale="clip", dtype="float16"))
    assert made.image.shape == (3, 1, 20, 30)
    assert np.array_equal(np.rint(made.image.astype(np.float32)[:, 0] * 255), image.transpose(2, 0, 1))
    back = restore(made.label, made.geometry)
    assert np.array_equal(np.asarray(back.dataobj)[..., 0], mask.T)
    assert back.header.get_zooms() == pytest.approx((0.0005,) * 3)


def test_the_channels_of_a_picture_are_counted(tmp_path):
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (8, 9, 3)).astype(np.uint8)
    grey = colour[..., 0] % 2
    mask = write_picture(tmp_path / "mask.png", np.stack([grey] * 3, -1))  # grey, but saved in colour
    clear = write_picture(tmp_path / "clear.png", np.dstack([colour, np.full((8, 9), 255, np.uint8)]))
    loaded = load_case(RawCase("a", "a", clear, mask), Slide)
    assert np.array_equal(loaded.image[..., 0], colour.transpose(2, 1, 0))  # without its opacity
    assert np.array_equal(loaded.label[..., 0], grey.T)
    with pytest.raises(DataError, match=r"mask\.png: 1 channel.*3"):
        load_case(RawCase("a", "a", write_picture(tmp_path / "mask.png", grey), mask), Slide)
    coloured = write_picture(tmp_path / "colour.png", colour)
    with pytest.raises(DataError, match=r"colour\.png: 3 channels where 1 should be"):
        load_case(RawCase("a", "a", clear, coloured), Slide)


@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_a_picture_that_is_cut_off_is_found(ending, tmp_path):
    smooth = (np.indices((64, 64)).sum(0)[..., None] + np.arange(3)).astype(np.uint8)
    path = write_picture(tmp_path / f"a.{ending}", smooth)
    read_image(path)
    content = path.read_bytes()
    for part in (content[:-8] if ending != "tif" else content[:999], content[: len(content) // 2], b""):
        path.write_bytes(part)
        with pytest.raises(DataError, match=rf"a\.{ending}: cannot be read as an image") as raised:
            read_image(path)
        assert "\n" not in str(raised.value)
    path.unlink()
    with pytest.raises(DataError, match="No such file"):
        read_image(path)


# ----------------------------------------------------------------------------------------------------------- scaling


def test_intensities_are_scaled_as_named(scan):
    image, label, affine = scan(7)
    loaded = loaded_case((image, label, affine))
    extremes = preprocess(loaded, PLAIN).image
    assert (extremes.min(), extremes.max()) == (0, 1)
    assert np.array_equal(extremes, ((image - image.min()) / (int(image.max()) - image.min())).astype(np.float32))
    window = preprocess(loaded, replace(PLAIN, clip=(-125.0, 275.0), scale="clip")).image
    assert window[image <= -125].max() == 0
    assert window[image >= 275].min() == 1
    assert np.allclose(window, np.clip((image + 125.0) / 400, 0, 1), atol=1e-6)
    scores = preprocess(loaded, replace(PLAIN, scale="zscore")).image
    assert scores.mean() == pytest.approx(0, abs=1e-5)
    assert scores.std() == pytest.approx(1, abs=1e-5)
    assert preprocess(loaded, replace(PLAIN, dtype="float16")).image.dtype == np.float16


def test_a_volume_that_clipping_flattens_becomes_zero(scan):
    image, label, affine = scan(7)
    made = preprocess(loaded_case((image, label, affine)), replace(PLAIN, clip=(1000.0, 2000.0)))
    assert not made.image.any()
