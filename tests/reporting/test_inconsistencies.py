"""What does not fit together in the published tables is computed, and is what readers of the papers found."""

from __future__ import annotations

from collections import Counter

import pytest

from sslbench.config.published import published_tables
from sslbench.reporting.inconsistencies import Inconsistency, averages, inconsistencies

FOUND = inconsistencies()
ROWS = {(table.key, row.order): row for table in published_tables().values() for row in table.rows}


def of(kind: str) -> list[Inconsistency]:
    return [item for item in FOUND if item.kind == kind]


def test_averages_are_held_against_their_classes() -> None:
    assert Counter(metric for _, _, metric, _, _ in averages()) == {"dsc": 270, "jaccard": 32, "hd95": 86, "asd": 32}
    assert len(of("average")) == 18


def test_jaccard_indices_are_held_against_dice() -> None:
    assert Counter(item.table for item in of("jaccard-low")) == {"dca:S-T1": 13, "dca:S-T2": 30}
    assert [(item.table, item.row, item.printed) for item in of("jaccard-high")] == [("ga:T3", "SimiS (10%)", "77.02")]


def test_copied_rows_are_found() -> None:
    assert len(of("copied")) == 49
    found = {(item.table, item.order): item.expected for item in of("copied")}
    assert found == {place: row.origin for place, row in ROWS.items() if row.origin}


def test_what_is_marked_in_the_tables_is_what_is_found() -> None:
    def marked(name: str) -> set[tuple[str, int, str, str]]:
        return {
            (table, order, *key)
            for (table, order), row in ROWS.items()
            for key, cell in row.cells.items()
            if getattr(cell, name)
        }

    def places(*kinds: str) -> set[tuple[str, int, str, str]]:
        return {(item.table, item.order, item.metric, item.class_name) for kind in kinds for item in of(kind)}

    both = places("jaccard-high") | {(table, order, "dsc", name) for table, order, _, name in places("jaccard-high")}
    assert marked("doubtful") == places("average") | both
    assert marked("impossible") == places("jaccard-low") - marked("doubtful")


@pytest.mark.parametrize(
    ("table", "row", "number", "expected"),
    [
        ("ga:T1", "DeSCO", "DSC, average: 45.74", "44.46"),
        ("dca:S-T3", "DCA (Ours)", "DSC, average: 62.18", "67.45"),
        ("metassl:T1", "BCP +MetaSSL (3 volumes)", "HD95, average: 3.87", "2.39"),
        ("dca:S-T1", "BCP", "Jaccard, RV: 78.27", "81.46"),
        ("ga:T6", "CPS (amos)", "2 numbers", "dhc:T2"),
    ],
)
def test_each_says_what_is_printed_and_what_would_fit(table: str, row: str, number: str, expected: str) -> None:
    assert (table, row, number, expected) in {(item.table, item.row, item.number, item.expected) for item in FOUND}
    assert all(item.note for item in FOUND if item.kind != "copied")
