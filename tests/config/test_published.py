"""Published results as package data: what was transcribed is all there, and every row says which job it describes."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from sslbench.config.published import (
    PublishedRow,
    PublishedTable,
    published_papers,
    published_sources,
    published_table,
    published_tables,
)
from sslbench.core import registry
from sslbench.core.errors import UnknownNameError

# Rows and numbers of every table, counted in the papers.
COUNTED = {
    "ga:T1": (24, 360), "ga:T2": (24, 408), "ga:T3": (41, 164), "ga:T4": (8, 112), "ga:T5a": (5, 10),
    "ga:T5b": (5, 10), "ga:T5c": (4, 8), "ga:T6": (8, 16), "dhc:T1": (13, 185), "dhc:T2": (13, 221),
    "dhc:T3": (8, 120), "dhc:S-T1": (15, 225), "dhc:S-T2": (15, 211), "dhc:S-T3": (13, 219), "dhc:S-T4": (13, 221),
    "dca:S-T1": (16, 256), "dca:S-T2": (16, 256), "dca:S-T3": (20, 300), "dca:S-T4": (20, 340), "scdl:T1": (24, 48),
    "scdl:T2": (12, 156), "scdl:T3": (12, 180), "scdl:T4": (3, 6), "metassl:T1": (40, 320), "metassl:T2": (39, 78),
    "metassl:T3": (19, 38), "metassl:T4": (14, 112), "metassl:T5": (12, 24), "metassl:T6": (6, 12),
    "metassl:T7": (8, 16),
}  # fmt: skip
TABLES = list(published_tables().values())
ROWS = [(table, row) for table in TABLES for row in table.rows]
KEYS = [table.key for table in TABLES]


def test_all_tables_are_there_with_all_their_numbers() -> None:
    assert {table.key: (len(table.rows), sum(len(row.cells) for row in table.rows)) for table in TABLES} == COUNTED
    assert len(ROWS) == 470 and sum(len(row.cells) for _, row in ROWS) == 4632
    assert list(dict.fromkeys(table.paper for table in TABLES)) == list(published_papers())


def test_numbers_are_the_digits_that_are_printed() -> None:
    cells = [cell for _, row in ROWS for cell in row.cells.values()]
    for cell in cells:
        assert cell.mean == float(cell.printed) and cell.unit in ("percent", "voxel", "mm", "unstated")
        assert math.isnan(cell.std) if not cell.printed_std else cell.std == float(cell.printed_std)
    assert sum(cell.filled for cell in cells) == 11
    assert sum(cell.doubtful for cell in cells) == 20 and sum(cell.impossible for cell in cells) == 41


@pytest.mark.parametrize("table", TABLES, ids=KEYS)
def test_every_row_is_of_its_table(table: PublishedTable) -> None:
    assert [row.order for row in table.rows] == list(range(1, len(table.rows) + 1))
    for row in table.rows:
        assert (row.paper, row.table) == (table.paper, table.number) and row.label and row.setting
        assert list(row.cells) == [key for key in table.columns if key in row.cells]
        names = {info.short.lower() for info in registry.component("dataset", row.dataset).classes} | {"avg"}
        assert {name for _, name in row.cells} <= names
        _check_flags(row)


def _check_flags(row: PublishedRow) -> None:
    for flag in row.flags:
        kind, _, about = flag.partition(":")
        metric, _, name = about.partition("/")
        if kind in ("doubt", "impossible", "filled"):
            assert (metric, name) in row.cells and row.cells[metric, name].note, flag
        elif kind == "starred":
            assert (metric, "avg") in row.cells, flag
        else:
            assert flag in ("cell-lost", "label-read", "base-inferred", "text-differs", "reconstructed"), flag


def test_what_plus_minus_is_goes_with_what_is_printed() -> None:
    assert Counter(row.spread for _, row in ROWS) == {"none": 187, "cases": 138, "seeds": 121, "unsaid": 24}
    for _, row in ROWS:
        printed = {bool(cell.printed_std) for (_, name), cell in row.cells.items() if name == "avg"}
        assert printed <= {row.spread != "none"}
        assert row.repeats == (3 if row.spread == "seeds" else None)


def test_copied_rows_name_a_table_that_is_there() -> None:
    copied = [row for _, row in ROWS if row.origin]
    assert len(copied) == 49 and {row.origin for row in copied} <= set(COUNTED)


@pytest.mark.parametrize("spelling", ["dca:S-T3", "dca:s-t3", "DCA:S-T3", "dca-s-t3", " dca-S-T3"])
def test_a_table_answers_to_its_key_and_its_grid(spelling: str) -> None:
    table = published_table(spelling)
    assert (table.key, table.grid, table.number) == ("dca:S-T3", "dca-s-t3", "S-T3")
    assert table.title.startswith("DCA (CVPR 2026), supplementary Table 3: ") and table.title.endswith("10% labelled")


@pytest.mark.parametrize(("spelling", "near"), [("ga:T9", "ga:T1"), ("gaT1", "ga:T1"), ("dhc-s-t5", "dhc-s-t1")])
def test_an_unknown_table_is_answered_with_near_ones(spelling: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=spelling) as refused:
        published_table(spelling)
    assert near[:3] in refused.value.hint


def test_columns_stand_in_the_order_of_print() -> None:
    assert published_table("ga:T1").columns[:4] == (("dsc", "avg"), ("asd", "avg"), ("dsc", "sp"), ("dsc", "rk"))
    assert published_table("metassl:T1").columns[3:5] == (("dsc", "avg"), ("hd95", "rv"))
    by_class = published_table("dca:S-T1").columns
    assert by_class[3:6] == (("asd", "avg"), ("dsc", "rv"), ("jaccard", "rv"))


def test_every_source_names_a_paper() -> None:
    sources = published_sources()
    assert len(sources) == 49
    for source in sources.values():
        told = sources[source.title.removeprefix("see ")] if source.title.startswith("see ") else source
        assert told.title and told.authors and told.year
