"""Records that cannot be true together are damaged; those that a protocol can give are not."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sslbench.metrics.protocol import EmptyPolicy, Protocol
from sslbench.runs.records import CASE_COLUMNS, check_whole, group_reader, read_cases, write_cases

METRICS = ("dsc", "jaccard", "asd", "nsd@1", "rvd", "avd")
PROTOCOL = Protocol("all-metrics", 1, "", "original", "mm", METRICS, EmptyPolicy(), 0)


def rows_of(protocol: Protocol) -> list[dict[str, Any]]:
    """Records of maps in all states: both, missed, spurious, absent."""
    rng = np.random.default_rng(0)
    rows = []
    for case in range(4):
        reference = rng.integers(0, 4, (6, 6, 6))
        prediction = np.where(rng.random(reference.shape) < 0.6, reference, rng.integers(0, 4, reference.shape))
        if case in (1, 3):
            prediction[prediction == 2] = 0
        if case in (2, 3):
            reference[reference == 2] = 0
        scored = protocol.score(prediction, reference, ["a", "b", "c"], (1.0, 1.0, 2.0))
        id = f"{case:04d}"
        rows += [{"protocol": protocol.name, "case": id, "group": id, **row} for row in scored]
    return rows


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in CASE_COLUMNS}


@pytest.mark.parametrize("smooth", [0.0, 1e-5, 1.0])
@pytest.mark.parametrize("digits", [17, 5])
def test_what_a_protocol_gives_agrees(smooth: float, digits: int, throw_away: Any) -> None:
    protocol = replace(PROTOCOL, smooth=smooth)
    throw_away("protocol", "all-metrics")(protocol)
    rows = rows_of(protocol)
    assert {row["state"] for row in rows} == {"both", "missed", "spurious", "absent"}
    check_whole(columns([{**row, "value": round(row["value"], digits)} for row in rows]))


def test_records_from_before_the_groups_are_read_and_given_some(tmp_path: Path, throw_away: Any) -> None:
    throw_away("protocol", "all-metrics")(PROTOCOL)
    rows = [{**row, "case": f"patient{row['case']}_frame01"} for row in rows_of(PROTOCOL)]
    write_cases(tmp_path / "new.csv", [{**row, "group": row["case"].partition("_")[0]} for row in rows])
    old = [line.split(",") for line in (tmp_path / "new.csv").read_text().splitlines()]
    (tmp_path / "old.csv").write_text("".join(",".join([*line[:2], *line[3:]]) + "\n" for line in old))
    assert "group" not in (tmp_path / "old.csv").read_text()
    throw_away("dataset", "frames")(SimpleNamespace(group_of=lambda id: id.partition("_")[0]))
    old_ones, new_ones = read_cases(tmp_path / "old.csv", group_reader("frames")), read_cases(tmp_path / "new.csv")
    for name in CASE_COLUMNS:
        assert repr(old_ones[name]) == repr(new_ones[name])
    unknown = read_cases(tmp_path / "old.csv", group_reader("of somebody"))
    assert unknown["group"] == unknown["case"]


def test_what_is_as_it_was_sealed_is_taken_for_whole(tmp_path: Path, throw_away: Any) -> None:
    throw_away("protocol", "all-metrics")(PROTOCOL)
    path = tmp_path / "cases.csv"
    write_cases(path, [{**rows_of(PROTOCOL)[0], "value": 2.0}])
    seal = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_cases(path, sealed={seal})["value"] == [2.0]
    with pytest.raises(ValueError, match="impossible"):
        read_cases(path, sealed={"0" * 64})
    quoted = path.read_text().replace("all-metrics", '"all-metrics"')
    path.write_text(quoted.replace(",2.0,", ",0.5,"))
    assert read_cases(path, sealed={hashlib.sha256(path.read_bytes()).hexdigest()})["protocol"] == ["all-metrics"]


def test_a_case_is_of_one_group(throw_away: Any) -> None:
    throw_away("protocol", "all-metrics")(PROTOCOL)
    rows = rows_of(PROTOCOL)
    rows[0]["group"] = "another"
    with pytest.raises(ValueError, match="has a case in two groups"):
        check_whole(columns(rows))


@pytest.mark.parametrize(("change", "noticed"), [(1e-8, True), (-1e-8, True), (1e-13, False)])
def test_the_ninth_digit_of_an_overlap_tells(change: float, noticed: bool, tmp_path: Path, throw_away: Any) -> None:
    throw_away("protocol", "all-metrics")(PROTOCOL)
    rows = rows_of(PROTOCOL)
    place = next(place for place, row in enumerate(rows) if row["metric"] == "dsc" and row["state"] == "both")
    rows[place]["value"] += change
    write_cases(tmp_path / "cases.csv", rows)
    if not noticed:
        read_cases(tmp_path / "cases.csv")
        return
    with pytest.raises(ValueError, match=f"on line {place + 2}: {rows[place]['class']} of case 0000 has dsc"):
        read_cases(tmp_path / "cases.csv")


def test_a_dsc_above_what_its_voxels_allow_is_told_with_its_line(tmp_path: Path) -> None:
    # 2·10 / (10 + 30) = 0.5 at most; no Jaccard is there to hold it against.
    row = {"protocol": "native", "case": "1", "group": "1", "class_id": 1, "class": "a", "metric": "dsc"}
    row |= {"unit": "fraction", "state": "both", "ref_voxels": 10, "pred_voxels": 30}
    second = {**row, "case": "2", "group": "2", "value": 1 / 3}
    write_cases(tmp_path / "cases.csv", [{**row, "value": 0.5 + 5e-10}, second])
    read_cases(tmp_path / "cases.csv")
    write_cases(tmp_path / "cases.csv", [second, {**row, "value": 0.5 + 2e-9}])
    with pytest.raises(ValueError, match=r"on line 3: a of case 1 has dsc 0\.500000002, more than 10 voxels"):
        read_cases(tmp_path / "cases.csv")


@pytest.mark.parametrize(
    ("place", "change", "words"),
    [
        (("0000", "a", "dsc"), {"value": 0.5123}, "dsc 0.5123 and jaccard"),
        (("0000", "a", "jaccard"), {"value": 0.9}, "and jaccard 0.9"),
        (("0000", "a", "dsc"), {"value": 1.5}, "dsc 1.5, which is impossible"),
        (("0000", "a", "asd"), {"value": -1.0}, "asd -1, which is impossible"),
        (("0000", "a", "nsd@1"), {"value": 1.2}, "nsd@1 1.2, which is impossible"),
        (("0000", "a", "rvd"), {"value": 0.7}, "rvd 0.7, with"),
        (("0000", "a", "avd"), {"value": 0.0}, "avd 0, with"),
        (("0000", "a", "jaccard"), {"value": float("nan")}, "jaccard nan"),
        (("0001", "b", "dsc"), {"value": 0.3}, "dsc 0.3, more than"),
        (("0001", "b", "dsc"), {"state": "both"}, "differs in voxels or state by metric"),
        (("0001", "b", None), {"state": "both"}, "the state both, with"),
        (("0000", "a", None), {"pred_voxels": 0}, "the state both, with"),
        (("0000", "a", None), {"state": "here"}, "the state here, with"),
    ],
)
def test_an_edited_value_is_noticed_by_name(
    place: tuple[str, str, str | None], change: dict[str, Any], words: str, throw_away: Any
) -> None:
    throw_away("protocol", "all-metrics")(PROTOCOL)
    rows = rows_of(PROTOCOL)
    case, name, metric = place
    edited = [
        {**row, **change} if (row["case"], row["class"]) == (case, name) and metric in (None, row["metric"]) else row
        for row in rows
    ]
    check_whole(columns(rows))
    with pytest.raises(ValueError, match=f"contradicts itself: {name} of case {case}") as raised:
        check_whole(columns(edited))
    assert words in str(raised.value)
