"""The values behind rows, case by case, as a page holds them: two or three characters each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sslbench.reporting.figures.subject import FigureSubject
from sslbench.reporting.labels import class_title

MOST_VALUES = 200_000
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_FINEST = 0.01  # of a distance; shares are told in tenths of a point


def values_of(subjects: Sequence[FigureSubject], keys: Mapping[tuple[str, str], str]) -> dict[str, Any] | None:
    """The values of all rows (JSON-able); None above `MOST_VALUES`.

    Args:
        subjects: of a report's tables.
        keys: ids of rows, by the name of their table and their label.

    Returns:
        `axes`, each the `cases` and `classes` of some rows; and by a row's id in `rows` one entry per block of its
        table: `block`, `metric`, the number of its `axes`, `seeds`, and `values`: seed by seed and case by case those
        of all classes, as numbers of `width` digits to the base 36, of which `low + step * number` is the value. A
        number of z's alone: there is none.
    """
    if sum(row.values.values.size for subject in subjects for row in subject.rows) > MOST_VALUES:
        return None
    axes: list[dict[str, Any]] = []
    rows: dict[str, list[dict[str, Any]]] = {}
    for subject in subjects:
        for row in subject.rows:
            order = [row.values.classes.index(name) for name in subject.by_size if name in row.values.classes]
            titles = [class_title(row.values.classes[place]) for place in order]
            own = {"cases": list(row.values.cases), "classes": titles}
            if own not in axes:
                axes.append(own)
            entry = {"block": subject.block, "metric": subject.measured, "axes": axes.index(own)}
            packed = packed_numbers(subject.shown_values(row)[..., order], subject.unit == "%")
            rows.setdefault(keys[subject.table, row.label], []).append(entry | {"seeds": row.values.seeds} | packed)
    return {"axes": axes, "rows": rows}


def packed_numbers(values: NDArray[np.float64], shares: bool) -> dict[str, Any]:
    """Numbers as text: `low`, `step`, `width` and `values`, see `values_of`.

    Args:
        values: of any shape, NaN where there is none.
        shares: whether they are percent.
    """
    known = values[~np.isnan(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    if shares and low >= 0 and high < 0.1 * (36**2 - 1):
        low, step, width = 0.0, 0.1, 2
    else:
        low, width = math.floor(low), 3
        step = max(_FINEST, (high - low) / (36**3 - 2))
    none = 36**width - 1
    codes = np.where(np.isnan(values), none, np.rint((np.nan_to_num(values) - low) / step)).astype(np.int64)
    words = {code: _word(code, width) for code in np.unique(codes).tolist()}
    return {"low": low, "step": step, "width": width, "values": "".join(words[code] for code in codes.ravel().tolist())}


def _word(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 36)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
