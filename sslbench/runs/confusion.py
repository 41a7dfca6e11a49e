"""What a test took each class for: voxels by class in the reference and in the prediction, case by case, as text.

Only pairs that occur are written, in the order of cases and labels, so that the same test gives the same bytes.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sslbench.core.files import atomic_path

CONFUSION_COLUMNS = ("case", "reference", "predicted", "voxels")
BACKGROUND_CLASS = "background"


def write_confusion(path: Path, cases: Iterable[tuple[str, NDArray[np.int64]]], classes: Sequence[str]) -> None:
    """Write the pairs of cases, whole or not at all.

    Args:
        path: the file.
        cases: ids, each with its (C, C) voxels by class in the prediction (first) and in the reference.
        classes: names of the labels 1, 2, ...
    """
    names = (BACKGROUND_CLASS, *classes)
    with atomic_path(path) as aside, aside.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(CONFUSION_COLUMNS)
        for case, pairs in cases:
            of_reference = pairs.T
            for reference, predicted in np.argwhere(of_reference):
                table.writerow((case, names[reference], names[predicted], int(of_reference[reference, predicted])))


def read_confusion(path: Path) -> dict[tuple[str, str], int] | None:
    """Read voxels by class in the reference and in the prediction, over all cases; None where there is no such file.

    Raises:
        ValueError: it is damaged; the message says it of the file.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            lines = list(csv.reader(stream))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"cannot be read: {error}") from error
    header, rows = lines[:1], lines[1:]
    if header != [list(CONFUSION_COLUMNS)]:
        raise ValueError("has another header than a confusion")
    found: dict[tuple[str, str], int] = {}
    for row in rows:
        if len(row) != len(CONFUSION_COLUMNS) or not row[3].isdecimal():
            raise ValueError("has a row that is cut short")
        pair = row[1], row[2]
        found[pair] = found.get(pair, 0) + int(row[3])
    return found
