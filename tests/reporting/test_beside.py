"""How a comparison is drawn: on the terminal, in Markdown, LaTeX and CSV; and what its LaTeX cites."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import replace

import pytest
from rich.console import Console

from sslbench.config.published import PublishedCell, PublishedRow, PublishedTable
from sslbench.core.errors import UsageError
from sslbench.reporting.beside import COMPARED_COLUMNS, compared_csv, markdown_beside, terminal_beside
from sslbench.reporting.beside_latex import latex_beside
from sslbench.reporting.citations import Citations, bibliography, keys_in_print
from sslbench.reporting.comparison import (
    ComparedCell,
    ComparedGroup,
    ComparedRow,
    Comparison,
    Difference,
    Summary,
)
from sslbench.reporting.model import Cell, Column
from tests.helpers.tables import TABLE

COLUMNS = (
    Column("dsc", "avg", "Avg. DSC", "", "percent", "up", 2, 1),
    Column("asd", "avg", "Avg. ASD", "", "mm", "down", 2, 1),
    *(
        Column("dsc", name, name.upper(), "DSC", "percent", "up", 1, None)
        for name in ("rv", "lv", "a_1", "b", "c", "d")
    ),
)


def printed(text: str, std: str = "", unit: str = "percent", doubtful: bool = False) -> PublishedCell:
    return PublishedCell(float(text), float(std or math.nan), text, std, unit, "", doubtful, False, False)


def row(label: str, method: str, number: int, origin: str = "", starred: bool = False) -> PublishedRow:
    cells = {("dsc", "avg"): printed("66.39", "0.9"), ("asd", "avg"): printed("5.25", "0.8", "voxel")}
    cells |= {("dsc", column.class_name): printed("84.1") for column in COLUMNS[2:]}
    flags = ("starred:dsc",) if starred else ()
    return PublishedRow(
        "ga", "T1", number, "General", label, "hearts", "20%", "20% labeled", "short", method, "default", "", {},
        "vnet", "vnet", "seeds", 3, origin, flags, "", cells,
    )  # fmt: skip


def compared(published: PublishedRow, mean: float, asd: Difference | None, *, half: float) -> ComparedRow:
    source = TABLE.rows[1].first
    cells = [
        ComparedCell(Cell(mean, 1.0, 2, 2, rank=1), published.cells["dsc", "avg"], Difference(mean - 66.39, half)),
        ComparedCell(Cell(4.0, 0.5, 2, 2), published.cells["asd", "avg"], asd, other_unit=True),
        *(
            ComparedCell(Cell(80.0, 1.0, 2, 2), published.cells["dsc", column.class_name], Difference(-4.1))
            for column in COLUMNS[2:]
        ),
    ]
    return ComparedRow(published.label, published, source, (), tuple(cells), footnotes=(1,))


@pytest.fixture
def comparison() -> Comparison:
    """A marked difference, a copied row, and a row of ours whose name every format must escape."""
    first, copy = row("CPS", "cps", 1), row("MT_x & co", "mt", 2, origin="dhc:S-T1")
    plain = compared(copy, 60.0, None, half=math.nan)
    copied = replace(plain, cells=tuple(replace(cell, difference=None) for cell in plain.cells), footnotes=())
    title = "GA (ECCV 2024), Table 1: methods. Hearts, 20%"
    ours = tuple(ComparedCell(cell.measured, None) for cell in plain.cells)
    return Comparison(
        published=PublishedTable("ga:T1", "ga", "T1", "methods", "Hearts, 20%", title, (), (first, copy), "ga-t1"),
        tables=(TABLE,),
        columns=COLUMNS,
        groups=(
            ComparedGroup("General", (compared(first, 70.0, Difference(-1.25, shaded=True), half=2.0), copied)),
            ComparedGroup("Not in the paper", (ComparedRow("[own]", None, TABLE.rows[1].first, (), ours),)),
        ),
        summary=Summary(1, 2, "Avg. DSC", 3.61, (), 1, 1),
        notes=("Δ: measured minus published.",),
        footnotes=("Network unet3d; the paper says vnet.",),
    )


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_three_numbers_and_breaks_no_line(comparison: Comparison, width: int) -> None:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(terminal_beside(comparison, width))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert re.search(r"CPS¹ +70\.00±1\.0 +66\.39±0\.9 +\+3\.61±2\.0• +4\.00±0\.5 +5\.25±0\.8 +-1\.25‡", text)
    assert re.search(r"MT_x & co +60\.00±1\.0 +66\.39±0\.9 +dhc:S-T1 +4\.00±0\.5 +5\.25±0\.8", text)
    assert re.search(r"CPS¹ +80\.0 +84\.1 +-4\.1", text) and "Avg. ASD‡ ↓ (mm)" in text
    assert "Compared: 1 of 2 rows, median |Δ| 3.61 (Avg. DSC)." in text and "¹ Network unet3d" in text


def test_the_span_of_a_column_stands_over_its_three_numbers(comparison: Comparison) -> None:
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(terminal_beside(comparison, 120))
    lines = console.export_text().splitlines()
    spans = next(line for line in lines if "Avg. DSC" in line)
    kinds = lines[lines.index(spans) + 1]
    assert kinds.index("here") < spans.index("Avg. DSC") < kinds.index("Δ") < spans.index("Avg. ASD")


def test_markdown_has_a_cell_per_number_and_escapes(comparison: Comparison) -> None:
    text = markdown_beside(comparison)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count(" | ") for line in lines} == {2 * 3 + 6 * 3}
    assert "| CPS¹ | **70.00±1.0** | 66.39±0.9 | +3.61±2.0• | 4.00±0.5 | 5.25±0.8 | <sub>-1.25‡</sub> |" in text
    assert "MT\\_x &amp; co | **60.00±1.0** | <sub>66.39±0.9</sub> | <sub>dhc:S-T1</sub>" in text


@pytest.mark.parametrize("layout", ["column", "line"])
def test_latex_is_balanced_and_its_lines_are_complete(comparison: Comparison, layout: str) -> None:
    text = latex_beside(comparison, layout)  # type: ignore[arg-type]
    for table in text.split(r"\begin{table*}")[1:]:
        columns = re.search(r"\\begin\{tabular\}\{l(c+)\}", table)
        assert columns is not None
        body = table.split(r"\toprule")[1].split(r"\bottomrule")[0]
        for line in body.splitlines():
            if not line.endswith(r" \\"):
                continue
            spans = [int(number) - 1 for number in re.findall(r"\\multicolumn\{(\d+)\}", line)]
            assert len(re.findall(r"(?<!\\)&", line)) + sum(spans) == len(columns[1]), line
    assert text.count("{") == text.count("}") and text.count(r"\begin{") == text.count(r"\end{")
    assert not set("±•Δ‡¹↑↓") & set(text) and "{}[own]" in text and r"MT\_x \& co" in text
    assert r"\usepackage{xcolor}" in text and text.count("% run ") == 5


def test_latex_keeps_averages_and_at_most_five_classes_to_a_table(comparison: Comparison) -> None:
    text = latex_beside(comparison)
    tables = text.split(r"\begin{table*}")[1:]
    assert [re.search(r"\{l(c+)\}", table)[1].count("c") for table in tables] == [6, 15, 3]  # type: ignore[index]
    assert [len(table.split(r"\scriptsize")) for table in tables] == [2, 1, 1]
    assert len(set(re.findall(r"\\label\{(.+?)\}", text))) == 3
    assert r"+3.61$\pm$2.0$\bullet$" in text and r"\textcolor{gray}{dhc:S-T1}" in text


def test_the_second_line_of_a_cell_is_print_with_the_difference(comparison: Comparison) -> None:
    text = latex_beside(comparison, "line")
    assert r"\shortstack{80.0\\{\tiny 84.1 ($-$4.1)}}" in text
    assert r"\shortstack{4.00$\pm$0.5\\{\tiny 5.25$\pm$0.8 (\textcolor{gray}{$-$1.25$^{\ddagger}$})}}" in text


def test_csv_has_both_numbers_and_where_a_row_stands(comparison: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(compared_csv(comparison))))
    assert tuple(rows[0]) == COMPARED_COLUMNS and len(rows) == 3 * len(COLUMNS)
    first, copied, own = rows[0], rows[len(COLUMNS)], rows[-1]
    assert (float(first["mean"]), first["published"], float(first["half_width"])) == (70.0, "66.39", 2.0)
    assert float(first["difference"]) == pytest.approx(3.61) and first["status"] == "compared"
    assert (copied["status"], copied["difference"]) == ("copied from dhc:S-T1", "")
    assert (own["status"], own["published"]) == ("not in the paper", "")
    assert rows[1]["flag"] == "other unit" and rows[1]["published_unit"] == "voxel"


# ----------------------------------------------------------------------------------------------------- citations


def test_rows_and_the_paper_are_cited_and_every_key_has_an_entry(comparison: Comparison) -> None:
    citations = Citations()
    text = latex_beside(comparison, "column", citations)
    assert r"\caption{GA (ECCV 2024)~\cite{sslbench:ga}, Table 1" in text and r"CPS$^{1}$~\cite{sslbench:cps}" in text
    cited = {key for keys in re.findall(r"\\cite\{(.+?)\}", text) for key in keys.split(",")}
    entries = re.findall(r"^@\w+\{(.+?),", bibliography(citations.keys), re.MULTILINE)
    assert cited == set(citations.keys) == set(entries)


@pytest.mark.parametrize(
    ("facts", "keys"),
    [
        ({"method": "mt", "loss": "ga"}, ("ga", "mt")),
        ({"method": "cps", "loss": "ga_labeled_only", "plugin": "scdl"}, ("scdl", "ga", "cps")),
        ({"method": "supervised"}, ("vnet",)),
        ({"method": "supervised", "network_published": "segresnet"}, ()),
        ({"method": "aandd"}, ("genericssl",)),
        (
            {"method": "cps", "set": {"method.weighting.a": "distdw", "method.weighting.b": "simis"}},
            ("cps", "dhc", "simis"),
        ),
        ({"method": "mine"}, ()),
    ],
)
def test_what_a_row_consists_of_is_cited(facts: dict[str, object], keys: tuple[str, ...]) -> None:
    assert keys_in_print(replace(row("x", "cps", 1), **facts)) == tuple(f"sslbench:{key}" for key in keys)  # type: ignore[arg-type]


def test_entries_have_the_fields_of_their_kind() -> None:
    text = bibliography(["sslbench:cobionet", "sslbench:simis", "sslbench:vnet", "sslbench:ga"])
    entries = dict(re.findall(r"(?ms)^@\w+\{sslbench:(\w+),\n(.*?)^\}", text))
    assert "  journal = {Nature Machine Intelligence}," in entries["cobionet"]
    assert "  volume = {5},\n  number = {7},\n  pages = {724--738}," in entries["cobionet"]
    assert "  eprint = {2211.11086}," in entries["simis"] and "archivePrefix = {arXiv}" in entries["simis"]
    assert (
        "  author = {F. Milletari and N. Navab and S.-A. Ahmadi}," in entries["vnet"] and "U-Net" not in entries["vnet"]
    )
    assert "  doi = {10.1007/978-3-031-73001-6_27}," in entries["ga"] and "Wenbo Qi and Jiafei Wu" in entries["ga"]


def test_a_bibliography_keeps_what_other_tables_cite_and_spares_one_of_somebody_else() -> None:
    before = bibliography(["sslbench:mt"])
    after = bibliography(["sslbench:cps"], before)
    assert re.findall(r"\{(sslbench:\w+),", after) == ["sslbench:cps", "sslbench:mt"]
    assert bibliography(["sslbench:mt"], after) == after
    with pytest.raises(UsageError, match="not overwritten"):
        bibliography(["sslbench:cps"], "@article{mine,\n}\n")
