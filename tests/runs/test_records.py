"""Records that cannot be true together are damaged; those that a protocol can give are not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sslbench.metrics.protocol import EmptyPolicy, Protocol
from sslbench.runs.records import CASE_COLUMNS, check_whole

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
