"""The per-case records of a run as text: one row per case × class × metric, and what makes a table of them whole."""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sslbench.core.files import atomic_path

CASE_COLUMNS = (
    "protocol", "case", "class_id", "class", "metric", "value", "unit", "state", "ref_voxels", "pred_voxels",
)  # fmt: skip
INTEGERS = ("seed", "class_id", "ref_voxels", "pred_voxels")

Records = Mapping[str, Sequence[Any]]
"""A table by its columns, all of one length."""


def write_cases(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records whole or not at all.

    Stable order, no times: the same records give the same bytes. Floats keep all their digits; an excluded value (nan)
    is empty.
    """
    with atomic_path(path) as aside, aside.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, CASE_COLUMNS, lineterminator="\n")
        table.writeheader()
        for record in records:
            value = float(record["value"])
            table.writerow({**record, "value": "" if math.isnan(value) else repr(value)})


def read_cases(path: Path) -> Records:
    """Read the records of one run under one protocol, columns `CASE_COLUMNS`.

    Raises:
        ValueError: they are missing, damaged or not whole; the message says it of the file: `is missing`.
    """
    text = _text(path)
    records = _parse(text, CASE_COLUMNS)
    if not text.endswith("\n"):  # the last number may have lost digits
        raise ValueError("has a row that is cut short")
    check_whole(records)
    return records


def read_table(path: Path, columns: Sequence[str]) -> Records:
    """Read a CSV with exactly these columns, typed; an empty `value` is NaN.

    Raises:
        ValueError: no such file, another header, rows cut short, text where a number belongs; the message says it of
            the file.
    """
    return _parse(_text(path), columns)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError("is missing") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot be read: {one_line(error)}") from error


def _parse(text: str, columns: Sequence[str]) -> Records:
    try:
        header, *rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row] or [[]]
    except csv.Error as error:
        raise ValueError(f"cannot be read: {one_line(error)}") from error
    if tuple(header) != tuple(columns):
        raise ValueError("has another header than per-case records")
    if not rows:
        raise ValueError("holds no records")
    lengths = set(map(len, rows))
    if min(lengths) < len(header):
        raise ValueError("has a row that is cut short")
    if max(lengths) > len(header):
        raise ValueError("has a row that is too long")
    return {name: _typed(name, column) for name, column in zip(header, zip(*rows, strict=True), strict=True)}


def check_whole(records: Records) -> None:
    """Check that every case has every class and metric once, under one protocol, with finite values.

    Raises:
        ValueError: it is not so; the message says it of the file.
    """
    if len(set(records["protocol"])) > 1:
        raise ValueError("mixes protocols")
    parts = [records[name] for name in ("case", "class", "metric")]
    keys = set(zip(*parts, strict=True))
    if len(keys) < len(parts[0]):
        raise ValueError("holds a record twice")
    if len(keys) < math.prod(len(set(part)) for part in parts):
        raise ValueError("lacks a record of a case")
    if any(map(math.isinf, records["value"])):
        raise ValueError("has an infinite value")


def one_line(error: Exception) -> str:
    """Say what an error says, on one line."""
    text = error.strerror if isinstance(error, OSError) else str(error)
    return " ".join((text or type(error).__name__).split())[:160]


def _typed(name: str, column: Sequence[str]) -> list[Any]:
    """The texts of a column as what they stand for: a case may be called 0001, a class NA."""
    try:
        if name == "value":
            return [float(text) if text else math.nan for text in column]
        if name in INTEGERS:
            return list(map(int, column))
    except ValueError as error:
        raise ValueError(f"has no number in its column {name}: {one_line(error)}") from error
    # A column has few texts, many times: shared, the records of hundreds of runs fit in memory.
    return list(map(sys.intern, column))
