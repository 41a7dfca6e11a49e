"""Overlap of two masks: DSC and Jaccard, of a pair of masks or of all classes by one confusion matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Mask = NDArray[np.bool_]
Labels = NDArray[np.integer]

# Voxels counted at a time: the pair codes of one piece (8 bytes each) stay in the processor's cache.
_PIECE = 1 << 17


def as_masks(pred: ArrayLike, gt: ArrayLike) -> tuple[Mask, Mask]:
    """Both arrays as boolean masks of one shape; 0/1 numbers are accepted, other labels are not.

    Raises:
        ValueError: the shapes differ, or an array holds anything but 0 and 1 (a label map, say).
    """
    masks = []
    for name, array in (("pred", np.asarray(pred)), ("gt", np.asarray(gt))):
        if array.dtype != np.bool_:
            mask = array == 1
            if not (mask | (array == 0)).all():
                raise ValueError(f"{name} is not a mask: it has values other than 0 and 1")
            array = mask
        masks.append(array)
    if masks[0].shape != masks[1].shape:
        raise ValueError(f"pred has shape {masks[0].shape}, gt {masks[1].shape}")
    return masks[0], masks[1]


def dice(pred: ArrayLike, gt: ArrayLike) -> float:
    """DSC 2|P∩G| / (|P|+|G|) of two masks of one shape (any number of axes), in 0..1.

    Returns:
        0.0 if exactly one mask is empty, nan if both are: what that scores is for a protocol to say.

    Raises:
        ValueError: the shapes differ, or an array is not a mask.
    """
    p, g = as_masks(pred, gt)
    total = np.count_nonzero(p) + np.count_nonzero(g)
    return float(2 * np.count_nonzero(p & g) / total) if total else float("nan")


def jaccard(pred: ArrayLike, gt: ArrayLike) -> float:
    """Jaccard index |P∩G| / |P∪G| of two masks of one shape, in 0..1; empty masks and errors as in `dice`."""
    p, g = as_masks(pred, gt)
    union = np.count_nonzero(p | g)
    return float(np.count_nonzero(p & g) / union) if union else float("nan")


def check_labels(labels: ArrayLike, num_classes: int, name: str = "labels") -> Labels:
    """The array, if it is a label map with values 0..num_classes-1.

    Raises:
        ValueError: it is not of an integer (or boolean) type, or a value is outside that range.
    """
    array = np.asarray(labels)
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} is no label map: its type is {array.dtype}, not an integer")
    if array.size and (array.min() < 0 or array.max() >= num_classes):
        raise ValueError(f"{name} has labels {array.min()}..{array.max()}, expected 0..{num_classes - 1}")
    return array


def confusion(pred_labels: ArrayLike, ref_labels: ArrayLike, num_classes: int) -> NDArray[np.int64]:
    """Count the voxels that have predicted class i (row) and reference class j (column).

    Args:
        pred_labels, ref_labels: integer label maps of one shape, values 0..C-1.
        num_classes: C, background included.

    Returns:
        (C, C) int64. Row sums are the predicted volumes, column sums the reference volumes, the diagonal what
        they share; `dice_of_classes` and `jaccard_of_classes` read every class off it.

    Raises:
        ValueError: the shapes differ, or an array is no label map of C classes.
    """
    pred = check_labels(pred_labels, num_classes, "prediction")
    ref = check_labels(ref_labels, num_classes, "reference")
    if pred.shape != ref.shape:
        raise ValueError(f"prediction has shape {pred.shape}, reference {ref.shape}")
    return count_pairs(pred, ref, num_classes)


def count_pairs(pred: Labels, ref: Labels, num_classes: int) -> NDArray[np.int64]:
    """`confusion` of label maps that were checked already."""
    flat_pred, flat_ref = pred.reshape(-1), ref.reshape(-1)
    counts = np.zeros(num_classes * num_classes, dtype=np.int64)
    for start in range(0, flat_pred.size, _PIECE):
        piece_pred, piece_ref = flat_pred[start : start + _PIECE], flat_ref[start : start + _PIECE]
        # Most of a scan is background in both maps: finding the rest takes a tenth of the time of counting all.
        found = np.flatnonzero((piece_pred != 0) | (piece_ref != 0))
        code = piece_pred[found].astype(np.int64)
        code *= num_classes
        code += piece_ref[found].astype(np.int64)
        counts += np.bincount(code, minlength=counts.size)
        counts[0] += piece_pred.size - found.size
    return counts.reshape(num_classes, num_classes)


def dice_of_classes(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """DSC of every class from a (C, C) confusion matrix: (C,), nan where a class is in neither map."""
    total = matrix.sum(axis=0) + matrix.sum(axis=1)
    return _ratio(2 * np.diagonal(matrix), total)


def jaccard_of_classes(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Jaccard index of every class from a (C, C) confusion matrix: (C,), nan where it is in neither map."""
    shared = np.diagonal(matrix)
    return _ratio(shared, matrix.sum(axis=0) + matrix.sum(axis=1) - shared)


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    result = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result
