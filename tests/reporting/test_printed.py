"""A published table in its paper's layout: every number stands where print has it, in every format and width."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from rich.console import Console

import sslbench
from sslbench.cli.terminal.published import sheet
from sslbench.config.published import PublishedTable, published_table, published_tables
from sslbench.core.errors import UnknownNameError
from sslbench.reporting.printed import (
    CSV_PRINTED,
    PrintedTable,
    printed_csv,
    printed_latex,
    printed_markdown,
    printed_table,
)

TABLES = list(published_tables().values())
KEYS = [table.key for table in TABLES]
CELLS = Path(sslbench.__file__).parent / "published" / "cells.csv"


def transcribed(table: PublishedTable) -> list[tuple[str, ...]]:
    """The numbers of a table as the file has them: order, metric, class, unit, mean, std."""
    with CELLS.open(encoding="utf-8", newline="") as file:
        lines = [line for line in csv.DictReader(file) if (line["paper"], line["table"]) == (table.paper, table.number)]
    return sorted(tuple(line[name] for name in ("order", "metric", "class", "unit", "mean", "std")) for line in lines)


def drawn(printed: PrintedTable, width: int) -> str:
    text = io.StringIO()
    sheet(Console(file=text, width=width), printed)
    return text.getvalue()


def rows_of(text: str) -> list[list[str]]:
    """The lines of a terminal's table that hold numbers, as words."""
    body, lines = text.split("\n\n±:")[0].split("\n\nThe paper prints no ±")[0], []
    for line in body.splitlines()[2:]:
        if re.search(r"\d\.\d", line):
            lines.append(line.split())
    return lines


def without_signs(text: str) -> str:
    return re.sub(r"[][?*]", "", text)


@pytest.mark.parametrize("table", TABLES, ids=KEYS)
def test_csv_is_what_was_transcribed(table: PublishedTable) -> None:
    lines = list(csv.DictReader(io.StringIO(printed_csv(printed_table(table)))))
    assert tuple(lines[0]) == CSV_PRINTED
    shown = [tuple(line[name] for name in ("order", "metric", "class", "unit", "mean", "std")) for line in lines]
    assert sorted(shown) == transcribed(table)


@pytest.mark.parametrize("table", TABLES, ids=KEYS)
def test_every_number_stands_in_its_line_and_column(table: PublishedTable) -> None:
    """Every row once per block that it stands in, full supervision in all that it stands for."""
    printed = printed_table(table)
    found: dict[tuple[int, str, str], set[str]] = {}
    for _, lines in printed.groups:
        for line in lines:
            for column, place, text in zip(printed.columns, line.places, line.texts, strict=True):
                if place is not None:
                    row, cell = place
                    assert row.cells[column.metric, column.class_name] is cell and row.label == line.label
                    found.setdefault((row.order, column.metric, column.class_name), set()).add(without_signs(text))
    told = {(int(order), metric, name): (mean, std) for order, metric, name, _, mean, std in transcribed(table)}
    assert found == {key: {f"{mean}±{std}" if std else mean} for key, (mean, std) in told.items()}
    assert len(printed.columns) == len(table.columns) * len(printed.blocks)


@pytest.mark.parametrize("table", TABLES, ids=KEYS)
def test_terminal_markdown_and_latex_show_the_same_cells(table: PublishedTable) -> None:
    printed = printed_table(table)
    lines = [line for _, members in printed.groups for line in members]
    wide = rows_of(drawn(printed, 400))
    assert wide == [[*line.label.split(), *filter(None, line.texts)] for line in lines]
    markdown = [line for line in printed_markdown(printed).splitlines() if line.startswith("| ")][2:]
    rows = [
        [re.sub(r"\\(.)", r"\1", cell).replace("&amp;", "&") for cell in line[2:-2].split(" | ")] for line in markdown
    ]
    assert [row for row in rows if any(row[1:])] == [[line.label, *line.texts] for line in lines]
    latex = [line for line in printed_latex(printed).splitlines() if re.search(r"&.*\d\.\d", line)]
    cells = [line.removesuffix(r" \\").removeprefix("{}").replace(r"$\pm$", "±").split(" & ")[1:] for line in latex]
    assert cells == [list(line.texts) for line in lines]


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("table", TABLES, ids=KEYS)
def test_narrow_terminals_get_every_number_in_parts(table: PublishedTable, width: int) -> None:
    printed = printed_table(table)
    text = drawn(printed, width)
    assert max(map(len, text.splitlines())) <= width
    shown = [word for line in rows_of(text) for word in line]
    for _, lines in printed.groups:
        for line in lines:
            for cell in filter(None, line.texts):
                assert cell in shown


def test_blocks_stand_side_by_side_and_full_supervision_in_both() -> None:
    printed = printed_table(published_table("ga:T3"))
    assert [title for title, _ in printed.blocks] == ["5% labeled", "10% labeled"]
    first = printed.groups[0][1][0]
    assert first.label == "U-Net (fully)" and first.texts[:4] == first.texts[4:]
    assert [heading for heading, _ in printed.groups] == ["", "General", "Imbalance", ""]
    assert [len(lines) for _, lines in printed.groups] == [1, 7, 6, 7]


def test_datasets_side_by_side_are_named() -> None:
    printed = printed_table(published_table("scdl:T1"))
    assert [title for title, _ in printed.blocks] == ["Synapse, 20% labelled", "AMOS, 5% labelled"]


def test_marks_tell_misprints_filled_cells_and_the_stars_of_print() -> None:
    def texts(key: str) -> dict[str, tuple[str, ...]]:
        return {line.label: line.texts for _, lines in printed_table(published_table(key)).groups for line in lines}

    assert texts("ga:T1")["DeSCO"][0] == "45.74±0.7?"
    assert texts("dhc:T1")["CPS"][-1] == "[0.0]" and texts("dhc:T1")["UA-MT"][-1] == ""
    assert texts("metassl:T2")["+MetaSSL"] and "*" in drawn(printed_table(published_table("metassl:T2")), 120)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("ga:T1", "? DeSCO, DSC (average): class mean of this row is 44.46."),
        ("ga:T1", "±: over 3 repeats, as the paper says."),
        ("ga:T1", "Run here on diffusion_vnet where the paper states vnet: A&D."),
        ("ga:T2", "Copied from dhc:T2, so of that table's protocol: VNet (fully), UA-MT, CPS, DePL"),
        ("ga:T3", "? SimiS (10%), DSC (average) and Jaccard (average): printed Jaccard exceeds printed DSC"),
        ("dhc:T1", "LAG: lost where the papers were transcribed, in 10 rows."),
        ("dhc:T2", "The paper does not say in which unit its distances are."),
        ("dca:S-T1", "Run here by a reconstruction, as the paper's equations were not at hand: DCA (Ours)."),
        ("dca:S-T1", "Run here on bcp, inferred from its numbers: GA."),
        ("dca:S-T2", "lower than the minimum implied by the printed Dice (sslbench published check lists them)."),
        ("metassl:T1", "? BCP +MetaSSL (3 volumes), HD95 (average): class mean is 2.39;"),
        ("metassl:T2", "*: p < 0.05 against the same method without the loss"),
        ("scdl:T1", "±: the paper does not say over what."),
    ],
)
def test_notes_say_what_a_reader_must_know(key: str, said: str) -> None:
    notes = printed_table(published_table(key)).notes
    assert any(said in note for note in notes), notes
    assert notes[-1] == f"Run it: sslbench run --grid {published_table(key).grid}."


def test_one_metric_alone() -> None:
    printed = printed_table(published_table("ga:T3"), "hd95")
    assert [column.metric for column in printed.columns] == ["hd95", "hd95"]
    assert {line["metric"] for line in csv.DictReader(io.StringIO(printed_csv(printed)))} == {"hd95"}
    with pytest.raises(UnknownNameError, match="metric of ga:T3 'hd59'"):
        printed_table(published_table("ga:T3"), "hd59")
