"""What classes were taken for, as a file: pairs that occur alone, the same bytes, and what is no such file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sslbench.runs.confusion import read_confusion, write_confusion


def test_pairs_are_written_by_reference_and_read_together(tmp_path: Path) -> None:
    path = tmp_path / "confusion.csv"
    first = np.array([[90, 3, 0], [1, 5, 0], [0, 2, 0]])  # prediction × reference
    second = np.array([[80, 0, 0], [0, 5, 1], [0, 0, 7]])
    write_confusion(path, [("0002", first), ("0001", second)], ["li", "sp"])
    assert path.read_text() == (
        "case,reference,predicted,voxels\n"
        "0002,background,background,90\n"
        "0002,background,li,1\n"
        "0002,li,background,3\n"
        "0002,li,li,5\n"
        "0002,li,sp,2\n"
        "0001,background,background,80\n"
        "0001,li,li,5\n"
        "0001,sp,li,1\n"
        "0001,sp,sp,7\n"
    )
    found = read_confusion(path)
    assert found is not None
    assert (found["li", "li"], found["li", "sp"], found["sp", "li"]) == (10, 2, 1)
    assert found["background", "background"] == 170 and ("sp", "background") not in found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("case,voxels\n", "has another header"),
        ("case,reference,predicted,voxels\n1,li,sp\n", "cut short"),
        ("case,reference,predicted,voxels\n1,li,sp,-2\n", "cut short"),
        ("", "has another header"),
    ],
)
def test_what_is_no_confusion_is_told(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "confusion.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_confusion(path)
    assert read_confusion(tmp_path / "nothing.csv") is None
