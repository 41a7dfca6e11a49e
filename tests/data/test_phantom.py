"""The demo phantom: reproducible, in the official layout, and anatomically plausible."""

import hashlib
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydantic import ValidationError

from sslbench.data.datasets.phantom import (
    CASE_IDS,
    NO_GALLBLADDER,
    PhantomOptions,
    generate_case,
    write_official_layout,
)

DEFAULT = PhantomOptions()
GALLBLADDER, ESOPHAGUS, LIVER, STOMACH, AORTA, PANCREAS = 4, 5, 6, 7, 8, 11
RIGHT_SIDE, LEFT_SIDE = (2, 4, 6, 9, 12), (1, 3, 7, 13)
SAMPLE = ("0001", "0002", "0007", "0023", "0034", "0036")  # keeps the tests fast


@cache
def default_case(case_id: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return generate_case(case_id, DEFAULT)


def centroid(label: np.ndarray, organ: int, affine: np.ndarray) -> np.ndarray:
    """Mean position of an organ in RAS+ mm; shape (3,)."""
    return affine[:3, :3] @ np.argwhere(label == organ).mean(axis=0) + affine[:3, 3]


def test_case_ids_are_those_of_btcv() -> None:
    assert len(CASE_IDS) == 30
    assert (CASE_IDS[0], CASE_IDS[9], CASE_IDS[10], CASE_IDS[-1]) == ("0001", "0010", "0021", "0040")


def test_a_case_does_not_depend_on_what_was_generated_before() -> None:
    small = PhantomOptions(size=(32, 28, 24), extent_mm=(176, 154, 132))
    first = generate_case("0007", small)
    generate_case("0001", small)
    for one, other in zip(first, generate_case("0007", small), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_cases_differ() -> None:
    assert len({default_case(case_id)[1].tobytes() for case_id in SAMPLE}) == len(SAMPLE)


def test_arrays_and_affine() -> None:
    for case_id in SAMPLE[:3]:
        image, label, affine = default_case(case_id)
        assert (image.dtype, label.dtype, affine.dtype) == (np.int16, np.uint8, np.float64)
        assert image.shape == label.shape == DEFAULT.size
        np.testing.assert_allclose(np.abs(np.diag(affine)), (5.5, 5.5, 5.5, 1))
        middle = affine @ (*((np.array(DEFAULT.size) - 1) / 2), 1)
        np.testing.assert_allclose(middle[:3], 0, atol=1e-9)


def test_every_organ_is_present() -> None:
    assert len(NO_GALLBLADDER) == 2
    assert not NO_GALLBLADDER & {"0002", "0023", "0034", "0039", "0028"}
    for case_id in SAMPLE:
        counts = np.bincount(default_case(case_id)[1].ravel(), minlength=14)
        assert counts.size == 14
        for organ in range(1, 14):
            absent = organ == GALLBLADDER and case_id in NO_GALLBLADDER
            assert (counts[organ] == 0) if absent else (counts[organ] >= 5), (case_id, organ)


def test_organs_are_as_imbalanced_as_the_task() -> None:
    counts = sum(np.bincount(default_case(case_id)[1].ravel(), minlength=14) for case_id in SAMPLE)
    assert counts[1:].argmax() + 1 == LIVER
    assert counts[1:].max() / counts[1:].min() > 500
    assert 0.04 < counts[1:].sum() / counts.sum() < 0.08


def test_sides_in_both_stored_orientations() -> None:
    signs = {np.sign(default_case(case_id)[2][0, 0]) for case_id in SAMPLE}
    assert signs == {-1, 1}
    for case_id in SAMPLE:
        _, label, affine = default_case(case_id)
        at = {organ: centroid(label, organ, affine) for organ in np.unique(label) if organ}
        assert all(at[organ][0] > 5 for organ in RIGHT_SIDE if organ in at), case_id
        assert all(at[organ][0] < -5 for organ in LEFT_SIDE), case_id
        assert at[ESOPHAGUS][2] > at[STOMACH][2] > -30
        above = label.copy()
        above[..., : label.shape[2] * 7 // 10] = 0  # the esophagus runs in front of the thoracic aorta
        assert centroid(above, ESOPHAGUS, affine)[1] > centroid(above, AORTA, affine)[1] + 8
        xs = affine[0, 0] * np.argwhere(label == PANCREAS)[:, 0] + affine[0, 3]
        assert xs.min() < -30 and xs.max() > 15


def test_hounsfield_units() -> None:
    ranges = {
        1: (95, 140), 2: (140, 190), 3: (140, 190), 4: (-15, 50), 5: (15, 70), 6: (85, 130), 7: (-40, 80),
        8: (120, 215), 9: (90, 150), 10: (95, 165), 11: (55, 115), 12: (-30, 90), 13: (-30, 90),
    }  # fmt: skip
    medians: dict[int, list[float]] = {organ: [] for organ in ranges}
    for case_id in SAMPLE:
        image, label, _ = default_case(case_id)
        assert image.min() >= -1024 and image.max() <= 3071
        background = image[label == 0]
        shares = [np.mean((background > low) & (background < high)) for low, high in
                  ((-1024, -900), (-900, -500), (-140, -60), (30, 90), (250, 3071))]  # fmt: skip
        assert min(shares) > 0.005, "air, lung, fat, muscle and bone"
        for organ in np.unique(label[label > 0]):
            medians[organ].append(float(np.median(image[label == organ])))
    for organ, (low, high) in ranges.items():
        assert low < np.mean(medians[organ]) < high, (organ, medians[organ])


def test_other_grids_sample_the_same_patient() -> None:
    finer = PhantomOptions(size=(128, 112, 96))
    _, fine, fine_affine = generate_case("0002", finer)
    _, coarse, affine = default_case("0002")
    for organ in range(1, 14):
        volumes = [
            np.sum(label == organ) * abs(np.linalg.det(a)) / 1000
            for label, a in ((fine, fine_affine), (coarse, affine))
        ]
        assert volumes[1] == pytest.approx(volumes[0], rel=0.1 if volumes[0] > 60 else 0.3, abs=1.0), organ
        shift = centroid(fine, organ, fine_affine) - centroid(coarse, organ, affine)
        assert np.linalg.norm(shift) < 4, organ


def test_official_layout(tmp_path: Path) -> None:
    options = PhantomOptions(size=(24, 21, 18), extent_mm=(176, 154, 132))
    done: list[str] = []
    ids = ("0003", "0002")
    for name in ("a", "b"):
        write_official_layout(tmp_path / name, options, ids, done.append)
    assert done == [*ids, *ids]
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    expected = {f"RawData/Training/{kind}/{kind}{one}.nii.gz" for kind in ("img", "label") for one in ids}
    assert {path.as_posix() for path in files} == expected
    for path in files:
        digests = {hashlib.sha256((tmp_path / name / path).read_bytes()).digest() for name in ("a", "b")}
        assert len(digests) == 1, path
    for case_id in ids:
        image, label, affine = generate_case(case_id, options)
        for kind, array in (("img", image), ("label", label)):
            stored = nib.load(tmp_path / "a" / "RawData" / "Training" / kind / f"{kind}{case_id}.nii.gz")
            assert stored.get_data_dtype() == array.dtype
            np.testing.assert_array_equal(np.asanyarray(stored.dataobj), array)
            np.testing.assert_allclose(stored.affine, affine, atol=1e-4)
            np.testing.assert_allclose(stored.get_qform(), affine, atol=1e-4)
            side = "R" if affine[0, 0] > 0 else "L"
            assert nib.aff2axcodes(stored.affine) == (side, "A", "S")


def test_unknown_case_and_bad_options() -> None:
    with pytest.raises(ValueError, match=r"unknown phantom case '0011'"):
        generate_case("0011", DEFAULT)
    with pytest.raises(ValidationError):
        PhantomOptions(size=(0, 8, 8))
    with pytest.raises(ValidationError):
        PhantomOptions(spacing=1.0)  # type: ignore[call-arg]
