"""The per-case records of a run as text: one row per case × class × metric, and what makes a table of them whole.

Records without the column `group`, which came later, are read too: their readers say what group a case is of.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sslbench.core import registry
from sslbench.core.errors import SSLBenchError
from sslbench.core.files import atomic_path

CASE_COLUMNS = (
    "protocol", "case", "group", "class_id", "class", "metric", "value", "unit", "state", "ref_voxels", "pred_voxels",
)  # fmt: skip
INTEGERS = ("seed", "class_id", "ref_voxels", "pred_voxels")

CaseTable = Mapping[str, Sequence[Any]]
"""A table by its columns, all of one length."""


def write_cases(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records whole or not at all, as `cases_text` has them."""
    rows = list(records)
    text = cases_text({name: [row[name] for row in rows] for name in CASE_COLUMNS})
    with atomic_path(path) as aside:
        aside.write_bytes(text.encode())


def cases_text(records: CaseTable) -> str:
    """The text of `cases.csv` for the records of one run, columns `CASE_COLUMNS` and maybe others.

    Stable order, no times: the same records give the same bytes. Floats keep all their digits; an excluded value (nan)
    is empty.
    """
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(CASE_COLUMNS)
    values = ["" if math.isnan(value) else repr(value) for value in map(float, records["value"])]
    columns = [values if name == "value" else records[name] for name in CASE_COLUMNS]
    table.writerows(zip(*columns, strict=True))
    return stream.getvalue()


def group_reader(dataset: str) -> Callable[[str], str]:
    """What tells the group of a case by its id, for records that do not: the dataset; where it is not installed, a case
    is a group of its own."""
    with suppress(SSLBenchError):
        found: Callable[[str], str] = registry.component("dataset", dataset).group_of
        return found
    return str


def read_cases(path: Path, group_of: Callable[[str], str] = str, sealed: Collection[str] = ()) -> CaseTable:
    """Read the records of one run under one protocol, columns `CASE_COLUMNS`.

    Args:
        path: the file.
        group_of: the group of a case, for records that have none.
        sealed: SHA-256 of files that are known to be as a worker wrote them: whole, and not edited.

    Raises:
        ValueError: they are missing, damaged or not whole; the message says it of the file: `is missing`.
    """
    content = _content(path)
    text = _decoded(content)
    records, lines = _parse(text, CASE_COLUMNS)
    if not text.endswith("\n"):  # the last number may have lost digits
        raise ValueError("has a row that is cut short")
    if "group" not in records:
        groups = {case: group_of(case) for case in dict.fromkeys(records["case"])}
        records = {**records, "group": [groups[case] for case in records["case"]]}
    if not sealed or hashlib.sha256(content).hexdigest() not in sealed:
        check_whole(records, lines)
    return records


def read_table(text: str, columns: Sequence[str]) -> tuple[CaseTable, list[int]]:
    """Read the text of a CSV with exactly these columns, or all but `group`, typed, and the line of each row; an empty
    `value` is NaN.

    Raises:
        ValueError: another header, rows cut short, text where a number belongs; the message says it of the file.
    """
    return _parse(text, columns)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError("is missing") from error
    except OSError as error:
        raise ValueError(f"cannot be read: {one_line(error)}") from error


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"cannot be read: {one_line(error)}") from error


def _parse(text: str, columns: Sequence[str]) -> tuple[CaseTable, list[int]]:
    if '"' in text or "\r" in text or "\n\n" in text:
        try:
            reader = csv.reader(io.StringIO(text), strict=True)
            numbered = [(row, reader.line_num) for row in reader if row] or [([], 0)]
        except csv.Error as error:
            raise ValueError(f"cannot be read: {one_line(error)}") from error
        header, *rows = [row for row, _ in numbered]
        lines = [line for _, line in numbered[1:]]
    else:  # as it is written: a row on each line
        header, *rows = [line.split(",") for line in text.removesuffix("\n").split("\n")]
        lines = list(range(2, len(rows) + 2))
    if tuple(header) not in (tuple(columns), tuple(name for name in columns if name != "group")):
        raise ValueError("has another header than per-case records")
    if not rows:
        raise ValueError("holds no records")
    lengths = set(map(len, rows))
    if min(lengths) < len(header):
        raise ValueError("has a row that is cut short")
    if max(lengths) > len(header):
        raise ValueError("has a row that is too long")
    typed = {name: _typed(name, column) for name, column in zip(header, zip(*rows, strict=True), strict=True)}
    return typed, lines


def check_whole(records: CaseTable, lines: Sequence[int] = ()) -> None:
    """Check that every case has every class and metric once, under one protocol, with finite values that can be true
    together.

    Args:
        records: columns `CASE_COLUMNS`.
        lines: where each row stands in its file, for messages.

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
    if len({*zip(records["case"], records["group"], strict=True)}) > len(set(records["case"])):
        raise ValueError("has a case in two groups")
    if any(map(math.isinf, records["value"])):
        raise ValueError("has an infinite value")
    _check_agreement(records, lines)


_OVERLAPS = ("dsc", "jaccard")
_STATES = {(True, True): "both", (True, False): "missed", (False, True): "spurious", (False, False): "absent"}
_EXACT = 1e-9  # of numbers with all their digits
_ROUNDED = 2e-5  # of numbers that went through a table of five digits, all of them


def _check_agreement(records: CaseTable, lines: Sequence[int]) -> None:
    """Check that what is told of one structure of one case can be true together: an edited number seldom can.

    Raises:
        ValueError: it cannot; the message says it of the file, and names case, class, numbers and line.
    """
    whole = [value for value in records["value"] if not math.isnan(value)]
    slack = _ROUNDED if all(value == round(value, 5) for value in whole) else _EXACT
    places = lines or [0] * len(records["case"])
    structures: dict[tuple[str, str], tuple[tuple[int, int, str], dict[str, float], dict[str, int]]] = {}
    names = ("case", "class", "metric", "value", "state", "ref_voxels", "pred_voxels")
    columns = [records[name] for name in names]
    for case, structure, metric, value, state, reference, predicted, place in zip(*columns, places, strict=True):
        mask = (reference, predicted, state)
        known, values, stands = structures.setdefault((case, structure), (mask, {}, {}))
        values[metric], stands[metric] = value, place
        if known != mask:
            why = f"{structure} of case {case} differs in voxels or state by metric"
            raise ValueError(f"contradicts itself{_on_line(place)}: {why}")
    smooth: float | None = None
    for (case, structure), (mask, values, stands) in structures.items():
        why, metric = _contradiction(*mask, values, slack)
        if why and smooth is None:
            smooth = _smooth(records["protocol"][0])
        if why and smooth:
            why, metric = _contradiction(*mask, values, slack, smooth)
        if why:
            place = stands[metric] if metric else min(stands.values())
            raise ValueError(f"contradicts itself{_on_line(place)}: {structure} of case {case} has {why}")


def _on_line(line: int) -> str:
    return f" on line {line}" if line else ""


def _smooth(protocol: str) -> float:
    """The number that a protocol adds above and below an overlap; 0 where it is not installed."""
    with suppress(SSLBenchError):
        return float(registry.component("protocol", protocol).smooth)
    return 0.0


def _contradiction(
    reference: int, predicted: int, state: str, values: Mapping[str, float], slack: float, smooth: float = 0.0
) -> tuple[str, str]:
    """Tell which of the numbers of one structure cannot be true together, and of which metric the first is; both are
    empty where all can, the metric too where it is the voxels.

    The laws: J = D / (2 - D), so D = 2J / (1 + J); D ≤ 2·min(|P|, |G|) / (|P| + |G|), on whichever grid was scored, as
    its voxels are those that are recorded.
    """
    masks = f"{reference} voxels in the reference and {predicted} in the prediction"
    if min(reference, predicted) < 0 or state != _STATES[reference > 0, predicted > 0]:
        return f"the state {state or 'of no name'}, with {masks}", ""
    for metric, value in values.items():
        said = f"{metric} {value:g}"
        if metric == "rvd":
            if reference and not math.isclose(value, predicted / reference - 1, rel_tol=slack, abs_tol=slack):
                return f"{said}, with {masks}", metric
        elif value < 0 or (value > 1 and (metric in _OVERLAPS or metric.startswith("nsd@"))):
            return f"{said}, which is impossible", metric
        elif metric == "avd" and (value > 0) != (predicted != reference) and not math.isnan(value):
            return f"{said}, with {masks}", metric
    whole = reference + predicted + smooth
    dsc, jaccard = (values.get(metric) for metric in _OVERLAPS)
    if state != "absent":
        for metric, most in zip(_OVERLAPS, ((2 * min(reference, predicted) + smooth) / whole, 1.0), strict=True):
            value = values.get(metric, 0.0)
            if value > (most if state == "both" else smooth / whole) + slack:
                return f"{metric} {value:.9g}, more than {masks} allow", metric
    if dsc is not None and jaccard is not None:
        shared = (dsc * whole - smooth) / 2
        expected = (shared + smooth) / (whole - shared) if state == "both" else dsc
        agree = math.isclose(jaccard, expected, rel_tol=0, abs_tol=slack)
        if not agree and not (math.isnan(dsc) and math.isnan(jaccard)):
            return f"dsc {dsc:.9g} and jaccard {jaccard:.9g}, where {expected:.9g} follows from the one", "dsc"
    return "", ""


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
