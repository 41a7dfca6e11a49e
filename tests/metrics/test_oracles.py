"""Against MedPy, MONAI and SimpleITK, which share no code with ours: a few cases always, thousands with `-m slow`.

Overlaps and volumes have to agree exactly, distances to 1e-6. MONAI keeps distances and adds them up in float32: each
of them has to be ours rounded, and what it makes of them ours as far as such sums reach.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from sslbench.metrics import (
    asd,
    assd,
    avd,
    confusion,
    dice,
    dice_of_classes,
    hd95,
    jaccard,
    nsd,
    rvd,
    surface_distances,
)
from sslbench.metrics.surface import surface_labels

FEW, THOUSANDS = 30, 3000
TOLERANCE = 1e-6


def cases(
    number: int, dims: tuple[int, ...] = (2, 3)
) -> Iterator[tuple[str, np.ndarray, np.ndarray, tuple[float, ...]]]:
    """Kind, prediction, reference and spacing: all kinds in turn, sizes and voxels of every shape."""
    kinds: list[Callable[..., Any]] = [
        _noise,
        _boxes,
        _at_the_border,
        _single_voxels,
        _blobs,
        _far_apart,
        _thin,
        _empty,
    ]
    for seed in range(number):
        rng = np.random.default_rng(seed)
        kind = kinds[seed % len(kinds)]
        shape = tuple(int(side) for side in rng.integers(2, 14, dims[seed // len(kinds) % len(dims)]))
        spacing = tuple(float(size) for size in np.exp(rng.uniform(-1.5, 2.0, len(shape))))
        pred, ref = kind(rng, shape)
        yield kind.__name__, pred, ref, spacing


def _filled(rng, shape, draw):
    """A mask by `draw(rng, shape)`, never empty."""
    mask = draw(rng, shape)
    mask[tuple(rng.integers(0, side) for side in shape)] = True
    return mask


def _box(rng, shape):
    mask = np.zeros(shape, dtype=bool)
    low = [int(rng.integers(0, side)) for side in shape]
    high = [int(rng.integers(a + 1, side + 1)) for a, side in zip(low, shape, strict=True)]
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def _noise(rng, shape):
    density = rng.uniform(0.02, 0.98)
    return tuple(_filled(rng, shape, lambda rng, shape: rng.random(shape) < density) for _ in range(2))


def _boxes(rng, shape):
    return _box(rng, shape), _box(rng, shape)


def _at_the_border(rng, shape):
    pred, ref = _boxes(rng, shape)
    axis = int(rng.integers(len(shape)))
    pred[(slice(None),) * axis + (0,)] = True
    ref[(slice(None),) * axis + (-1,)] = True
    return pred, ref


def _single_voxels(rng, shape):
    empty = lambda rng, shape: np.zeros(shape, dtype=bool)  # noqa: E731
    return _filled(rng, shape, empty), _filled(rng, shape, empty)


def _blobs(rng, shape):
    from scipy.ndimage import gaussian_filter

    smooth = lambda rng, shape: gaussian_filter(rng.standard_normal(shape), 1.5) > 0  # noqa: E731
    return _filled(rng, shape, smooth), _filled(rng, shape, smooth)


def _far_apart(rng, shape):
    pred, ref = np.zeros((2, *(4 * side for side in shape)), dtype=bool)
    pred[tuple(slice(0, side) for side in shape)] = _filled(rng, shape, _box)
    ref[tuple(slice(-side, None) for side in shape)] = _filled(rng, shape, _box)
    return pred, ref


def _thin(rng, shape):
    pred, ref = np.zeros((2, *shape), dtype=bool)
    for mask in (pred, ref):
        axis = int(rng.integers(len(shape)))
        mask[(slice(None),) * axis + (int(rng.integers(shape[axis])),)] = True
    return pred, ref


def _empty(rng, shape):
    pred, ref = _boxes(rng, shape)
    which = rng.integers(3)
    return pred & (which == 0), ref & (which == 1)


def close(ours: float, theirs: float) -> bool:
    return math.isclose(ours, theirs, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


# -------------------------------------------------------------------------------------------------------------- MedPy


def against_medpy(number: int) -> None:
    binary = pytest.importorskip("medpy.metric.binary")
    for kind, pred, ref, spacing in cases(number):
        if not (pred.any() and ref.any()):
            with pytest.raises(RuntimeError):
                binary.asd(pred, ref, spacing)
            assert math.isnan(asd(pred, ref, spacing)) and math.isnan(hd95(pred, ref, spacing))
            if pred.any() or ref.any():
                assert dice(pred, ref) == binary.dc(pred, ref) == 0.0 == jaccard(pred, ref) == binary.jc(pred, ref)
            continue
        assert dice(pred, ref) == binary.dc(pred, ref), kind
        assert jaccard(pred, ref) == binary.jc(pred, ref), kind
        assert rvd(pred, ref) == pytest.approx(binary.ravd(pred, ref), rel=1e-15), kind
        for size in (None, spacing):
            forth, back = binary.asd(pred, ref, size), binary.asd(ref, pred, size)
            found = surface_distances(pred, ref, size)
            assert close(found.asd(), forth) and close(asd(ref, pred, size), back), kind
            assert close(found.assd(), binary.assd(pred, ref, size)), kind
            assert close(found.hd95(), binary.hd95(pred, ref, size)), kind
            assert close(max(found.pred_to_ref.max(), found.ref_to_pred.max()), binary.hd(pred, ref, size)), kind


def test_medpy() -> None:
    against_medpy(2 * FEW)


@pytest.mark.slow
def test_medpy_thousands() -> None:
    against_medpy(THOUSANDS)


# -------------------------------------------------------------------------------------------------------------- MONAI


def against_monai(number: int) -> None:
    torch = pytest.importorskip("torch")
    monai = pytest.importorskip("monai.metrics")
    get_edge_surface_distance = pytest.importorskip("monai.metrics.utils").get_edge_surface_distance
    for kind, pred, ref, spacing in cases(number):
        p, r = (torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (pred, ref))
        if not ref.any():
            assert math.isnan(monai.compute_dice(p, r).item())
            continue
        assert np.float32(dice(pred, ref)) == monai.compute_dice(p, r).numpy()[0, 0], kind
        if not pred.any():
            assert dice(pred, ref) == 0.0
            continue
        found = surface_distances(pred, ref, spacing)
        _, (forth, back), _ = get_edge_surface_distance(p[0, 0] > 0, r[0, 0] > 0, spacing=list(spacing), symmetric=True)
        for ours, theirs in ((found.pred_to_ref, forth), (found.ref_to_pred, back)):
            np.testing.assert_allclose(np.sort(ours), np.sort(theirs.numpy()), rtol=1.2e-7, err_msg=kind)
        options: dict[str, Any] = {"include_background": True, "spacing": list(spacing)}
        tau = float(np.median(np.concatenate([found.pred_to_ref, found.ref_to_pred]))) + 0.01
        for one, other in (
            (found.asd(), monai.compute_average_surface_distance(p, r, **options)),
            (found.assd(), monai.compute_average_surface_distance(p, r, symmetric=True, **options)),
            (found.hd95("max"), monai.compute_hausdorff_distance(p, r, percentile=95, **options)),
            (nsd(pred, ref, tau, spacing), monai.compute_surface_dice(p, r, [tau], **options)),
        ):
            assert math.isclose(one, other.item(), rel_tol=1e-5, abs_tol=1e-6), kind


@pytest.mark.filterwarnings("ignore")  # it warns of every empty mask
def test_monai() -> None:
    against_monai(FEW)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_monai_thousands() -> None:
    against_monai(THOUSANDS)


# ---------------------------------------------------------------------------------------------------------- SimpleITK


def against_simpleitk(number: int) -> None:
    sitk = pytest.importorskip("SimpleITK")

    def image(mask: np.ndarray, spacing: tuple[float, ...]) -> Any:
        made = sitk.GetImageFromArray(mask.astype(np.uint8))
        made.SetSpacing(spacing[::-1])  # its arrays run z, y, x, its spacings x, y, z
        return made

    for kind, pred, ref, spacing in cases(number, dims=(3, 2)):
        if not (pred.any() and ref.any()):
            continue
        p, r = image(pred, spacing), image(ref, spacing)
        overlap = sitk.LabelOverlapMeasuresImageFilter()
        overlap.Execute(r, p)
        assert math.isclose(dice(pred, ref), overlap.GetDiceCoefficient(), rel_tol=1e-15), kind
        assert math.isclose(jaccard(pred, ref), overlap.GetJaccardCoefficient(), rel_tol=1e-15), kind
        shapes = []
        for mask in (p, r):
            statistics = sitk.LabelShapeStatisticsImageFilter()
            statistics.Execute(mask)
            shapes.append(statistics.GetPhysicalSize(1))
        assert math.isclose(avd(pred, ref, spacing), abs(shapes[0] - shapes[1]), rel_tol=1e-9, abs_tol=1e-9), kind
        # Surfaces: what a cross takes away. Beyond the border of the image it has to find background.
        eroded = [
            sitk.GetArrayFromImage(sitk.BinaryErode(_padded(sitk, mask), [1] * pred.ndim, sitk.sitkCross))
            for mask in (p, r)
        ]
        inside = (slice(1, -1),) * pred.ndim
        surfaces = [mask & (core[inside] == 0) for mask, core in zip((pred, ref), eroded, strict=True)]
        for mask, surface in zip((pred, ref), surfaces, strict=True):
            np.testing.assert_array_equal(surface_labels(mask.view(np.uint8)) > 0, surface)
        hausdorff = sitk.HausdorffDistanceImageFilter()
        hausdorff.Execute(*(image(surface, spacing) for surface in surfaces))
        found = surface_distances(pred, ref, spacing)
        assert close(max(found.pred_to_ref.max(), found.ref_to_pred.max()), hausdorff.GetHausdorffDistance()), kind
        both_ways = (asd(pred, ref, spacing) + asd(ref, pred, spacing)) / 2
        assert close(both_ways, hausdorff.GetAverageHausdorffDistance()), kind


def _padded(sitk: Any, mask: Any) -> Any:
    return sitk.ConstantPad(mask, [1] * mask.GetDimension(), [1] * mask.GetDimension(), 0)


def test_simpleitk() -> None:
    against_simpleitk(2 * FEW)


@pytest.mark.slow
def test_simpleitk_thousands() -> None:
    against_simpleitk(THOUSANDS)


# --------------------------------------------------------------------------------------- all classes of a case at once


def against_single_classes(number: int) -> None:
    """Label maps: every class as if it were alone, and by MedPy."""
    from sslbench.metrics.published import NATIVE

    binary = pytest.importorskip("medpy.metric.binary")
    for seed in range(number):
        rng = np.random.default_rng(seed)
        shape = tuple(int(side) for side in rng.integers(3, 16, 2 + seed % 2))
        spacing = tuple(float(size) for size in np.exp(rng.uniform(-1.5, 2.0, len(shape))))
        pred, ref = (rng.integers(0, 5, shape) * (rng.random(shape) < rng.uniform(0.1, 1)) for _ in range(2))
        rows = {(row["class_id"], row["metric"]): row["value"] for row in NATIVE.score(pred, ref, "abcd", spacing)}
        for k in range(1, 5):
            p, r = pred == k, ref == k
            if p.any() and r.any():
                assert rows[k, "dsc"] == binary.dc(p, r) and rows[k, "jaccard"] == binary.jc(p, r)
                assert close(rows[k, "asd"], binary.asd(p, r, spacing))
                assert close(rows[k, "hd95"], binary.hd95(p, r, spacing))
                assert close(assd(p, r, spacing), binary.assd(p, r, spacing))
        np.testing.assert_array_equal(
            dice_of_classes(confusion(pred, ref, 5))[1:], [dice(pred == k, ref == k) for k in range(1, 5)]
        )


def test_classes_at_once() -> None:
    against_single_classes(FEW)


@pytest.mark.slow
def test_classes_at_once_thousands() -> None:
    against_single_classes(THOUSANDS // 3)
