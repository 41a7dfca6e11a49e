"""Tables of several blocks and recipes: which rows are one, what they are called, and what follows print."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from rich.console import Console

from sslbench.config import table as grammar
from sslbench.config.grid import Grid
from sslbench.config.job import Job
from sslbench.core import registry
from sslbench.reporting.latex import latex
from sslbench.reporting.model import Row, Table, cell_text
from sslbench.reporting.render import markdown, terminal, tidy_csv
from sslbench.reporting.tables import grid_report
from tests.helpers.results import RECIPE, protocol
from tests.helpers.run_directories import write_run_of_job

Write = Callable[..., Path]
BUDGETS = ["3 patients", "7 patients"]


@pytest.fixture
def other(tmp_path: Path) -> str:
    """Another recipe, with another protocol."""
    path = tmp_path / "long.yaml"
    path.write_text(yaml.safe_dump(RECIPE | {"protocol": "ours"}))
    return str(path)


@pytest.fixture
def made(write_run: Write, tmp_path: Path) -> Callable[..., list[Table]]:
    """Tables of a grid whose jobs score as a function says."""

    def make(grid: Grid, dsc: Callable[[Job], float | None] = lambda job: 0.5, name: str = "") -> list[Table]:
        jobs = grid.expand()
        for job in jobs:
            score = dsc(job)
            if score is not None:
                write_run_of_job(write_run, job, score, protocol=job.resolved.recipe.protocol)
        return grid_report(grid, jobs, tmp_path / "results").tables

    return make


def grid(recipe: str, *jobs: dict[str, Any], table: dict[str, Any], **more: Any) -> Grid:
    return Grid(
        **{"name": "g", "recipe": [recipe], "labeled": ["5%"], "seeds": [0], "jobs": jobs, "table": table} | more
    )


def groups(table: Table) -> list[tuple[str, list[str]]]:
    return [(group.title, [row.label for row in group.rows]) for group in table.groups]


def row(table: Table, label: str) -> Row:
    return next(row for row in table.rows if row.label == label)


def shown(table: Table, width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as capture:
        console.print(terminal(table, width))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


# ---------------------------------------------------------------------------------------------------- blocks


@pytest.fixture
def beside(recipe: str, made: Callable[..., list[Table]]) -> Table:
    """CPS and GA-CPS at two budgets, MT at the second alone, and the upper bound."""
    jobs = [
        {"method": "supervised", "labeled": "100%"},
        {"method": "cps", "loss": ["default", "ga"]},
        {"method": "mt", "labeled": "7 patients"},
    ]

    def dsc(job: Job) -> float | None:
        if job.labeled == "100pct":
            return 0.9
        if (job.loss, job.labeled) == ("ga", "7-patients"):
            return None
        return 0.5 + 0.1 * (job.loss == "ga") + 0.2 * (job.labeled == "7-patients") + 0.05 * (job.method == "mt")

    (table,) = made(
        grid(recipe, *jobs, labeled=BUDGETS, table={"blocks": "labeled", "gain": False, "columns": ["dsc", "asd"]}), dsc
    )
    return table


def test_budgets_stand_side_by_side(beside: Table) -> None:
    assert beside.blocks == ("3 patients", "7 patients")
    assert [column.block for column in beside.columns] == ["3 patients"] * 2 + ["7 patients"] * 2
    cps, mt, bound = row(beside, "CPS"), row(beside, "MT"), row(beside, "Supervised (100%)")
    assert [cell.mean for cell in cps.cells] == pytest.approx([50, 5, 70, 3])
    assert [source.labeled for source in cps.sources] == ["3-patients", "7-patients"]
    first, _, second, _ = beside.columns
    at_three, at_seven = cps.source(first), cps.source(second)
    assert at_three and at_seven and at_three.digest != at_seven.digest
    assert (at_three.job and at_three.job.digest, len(at_seven.runs)) == (at_three.digest, 1)
    # A job that the grid has not is blank, one without a result is no value, the upper bound is in both.
    assert mt.source(first) is None and [cell_text(mt.cells[place], first)[0] for place in (0, 2)] == ["", "75.00"]
    ga = row(beside, "GA-CPS")
    assert [cell_text(cell, first)[0] for cell in ga.cells] == ["60.00", "4.00", "--", "--"]
    assert ga.full_label == "GA-CPS (1/2 runs)"
    assert [cell.mean for cell in bound.cells] == pytest.approx([90, 1, 90, 1])
    assert (bound.n, bound.expected) == (1, 1) and bound.bound


def test_a_part_of_a_grid_fills_a_part_of_its_table(recipe: str, tmp_path: Path) -> None:
    """`report --only labeled=5%` of a grid whose budgets stand side by side."""
    spec = {"blocks": "labeled", "columns": ["dsc"]}
    whole = grid(recipe, {"method": ["cps", "mt"]}, labeled=BUDGETS, table=spec)
    jobs = [job for job in whole.expand() if job.labeled == "3-patients"]
    (table,) = grid_report(whole, jobs, tmp_path / "results").tables
    assert table.blocks == ("3 patients",) and [row.label for row in table.rows] == ["CPS", "MT"]


def test_each_block_has_its_own_best(beside: Table) -> None:
    ranks = {row.label: [cell.rank for cell in row.cells] for row in beside.rows}
    assert ranks == {
        "Supervised (100%)": [0, 0, 0, 0],
        "CPS": [2, 2, 2, 2],
        "GA-CPS": [1, 1, 0, 0],
        "MT": [0, 0, 1, 1],
    }


def test_blocks_in_every_format(beside: Table) -> None:
    wide = shown(beside, 100)
    assert re.search(r"^ +─+ 3 patients ─+ ─+ 7 patients ─+$", wide, flags=re.M)
    assert re.search(r"^CPS +50\.00 +5\.00 +70\.00 +3\.00$", wide, flags=re.M)
    narrow = shown(beside, 50).splitlines()
    assert sum("── 3 patients ──" in line for line in narrow) == sum("── 7 patients ──" in line for line in narrow) == 1
    assert all(len(line) <= 50 for line in narrow)
    assert "| Method | 3 patients: Avg. DSC ↑ (%) |" in markdown(beside)
    tex = latex(beside)
    assert r" & \multicolumn{2}{c}{3 patients} & \multicolumn{2}{c}{7 patients} \\" in tex
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-5}" in tex
    assert r"\label{tab:g-short}" in tex
    lines = list(csv.DictReader(io.StringIO(tidy_csv([beside]))))
    assert [(line["label"], line["block"], line["labeled"]) for line in lines if line["metric"] == "dsc"] == [
        ("Supervised (100%)", "3 patients", "100pct"),  # one result, one line
        ("CPS", "3 patients", "3-patients"),
        ("CPS", "7 patients", "7-patients"),
        ("GA-CPS", "3 patients", "3-patients"),
        ("GA-CPS", "7 patients", "7-patients"),
        ("MT", "7 patients", "7-patients"),
    ]
    assert {line["dataset"] for line in lines} == {"hearts"}


def test_datasets_stand_side_by_side(recipe: str, made: Callable[..., list[Table]], tmp_path: Path) -> None:
    lungs = type("Lungs", (registry.component("dataset", "hearts"),), {"name": "lungs", "title": "Lungs (CT, whole)"})
    registry.register("dataset", "lungs")(lungs)
    path = tmp_path / "breath.yaml"
    path.write_text(yaml.safe_dump(RECIPE | {"dataset": "lungs"}))
    jobs = [
        {"method": "cps", "loss": ["default", "ga"]},
        {"method": "cps", "loss": "ga", "recipe": str(path), "seeds": [0, 1]},
    ]
    (table,) = made(grid(recipe, *jobs, table={"blocks": "dataset", "gain": False, "columns": ["dsc"]}))
    assert table.blocks == ("Hearts & more 3 patients", "Lungs 3 patients")
    assert [[cell.n for cell in row.cells] for row in table.rows] == [[1, 0], [1, 2]]
    assert table.title.startswith("Hearts & more 3 patients labelled, Lungs 3 patients labelled. Recipes short")
    assert "Number of seeds: Hearts & more 3 patients 1, Lungs 3 patients 2." in table.notes
    assert (table.name, table.label) == ("3-patients", "g-3-patients")


# -------------------------------------------------------------------------------------------------- together


def test_recipes_together_have_a_mark_each(recipe: str, other: str, made: Callable[..., list[Table]]) -> None:
    jobs = [{"method": "cps"}, {"method": ["cps", "mt"], "recipe": other}]
    spec = {"together": ["recipe"], "columns": ["dsc", "asd"], "order": "file"}
    scores = {("short", "cps"): 0.5, ("long", "cps"): 0.6, ("long", "mt"): 0.7}
    (table,) = made(grid(recipe, *jobs, table=spec), lambda job: scores[Path(job.recipe).stem, job.method])
    assert [row.full_label for row in table.rows] == ["CPSᵃ", "CPSᵇ", "MTᵇ"]
    assert [row.first.recipe for row in table.rows] == ["short", "long", "long"]
    assert "Recipes ᵃ short (splits ssl4mis); ᵇ long (splits ssl4mis)." in table.title
    assert "ᵃ Mean ± population SD" not in table.title  # one seed each, said once
    assert table.measured.startswith("ᵃ Protocol papers") and "ᵇ Protocol ours" in table.measured
    # Voxels and millimetres share a column, but no rank.
    assert [row.cells[0].rank for row in table.rows] == [0, 2, 1]
    assert [row.cells[1].rank for row in table.rows] == [0, 0, 0]
    assert table.columns[1].sense == ""
    assert "Avg. ASD in units that differ, so none is best: ᵃ voxel, ᵇ mm." in table.notes


def test_one_recipe_needs_no_mark(recipe: str, other: str, made: Callable[..., list[Table]]) -> None:
    jobs = [{"method": "cps"}, {"method": "mt", "recipe": other}]
    tables = made(grid(recipe, *jobs, table={"columns": ["dsc"]}))
    assert [[row.full_label for row in table.rows] for table in tables] == [["CPS"], ["MT"]]


# ----------------------------------------------------------------------------------------------------- names


def test_rows_are_named_by_what_varies(recipe: str, made: Callable[..., list[Table]]) -> None:
    """Where a value is the default or makes a preset too."""
    jobs = [
        {"method": "cps", "loss": "ga", "vary": {"loss.gamma": [1, 0.5]}},
        {"method": "mt", "loss": "ga", "vary": {"loss.side": ["label", "both"], "optimizer.lr": [0.1]}},
    ]
    (table,) = made(grid(recipe, *jobs, table={"columns": ["dsc"], "order": "file"}))
    assert [row.label for row in table.rows] == [
        "GA-CPS (gamma=1)",
        "GA-CPS (gamma=0.5)",
        "GA-MT (side=label, optimizer.lr=0.1)",
        "GA-MT (side=both, optimizer.lr=0.1)",
    ]
    assert [row.first.loss for row in table.rows] == ["ga", "ga", "ga_labeled_only", "ga"]
    assert table.rows[1].first.variant == ""


def test_names_headings_and_notes_of_the_file(recipe: str, made: Callable[..., list[Table]]) -> None:
    jobs = [
        {"method": "supervised", "labeled": "100%"},
        {"method": ["mt", "cps"], "as": ["B", "A"], "heading": "First", "note": "copied in print"},
        {"method": "dhc", "heading": "Second", "note": "copied in print."},
        {"method": "supervised"},
    ]
    (table,) = made(grid(recipe, *jobs, table={"columns": ["dsc"], "order": "file"}))
    assert groups(table) == [
        ("", ["Supervised (100%)"]),
        ("First", ["B", "A"]),
        ("Second", ["DHC"]),
        ("", ["Supervised"]),
    ]
    assert [row.full_label for row in table.rows] == ["Supervised (100%)", "Bᵃ", "Aᵃ", "DHCᵃ", "Supervised"]
    assert table.notes[-1] == "ᵃ Copied in print."
    assert r"A$^{\mathrm{a}}$" in latex(table)
    (usual,) = made(grid(recipe, *jobs[1:3], table={"columns": ["dsc"]}, seeds=[1]))
    assert groups(usual) == [("First", ["B", "A"]), ("Second", ["DHC"])]


def test_a_weighting_makes_a_row_about_imbalance() -> None:
    from sslbench.reporting.labels import group_of

    assert group_of("cps", "default", (), {"method.weighting.a": "diffdw"}) == "Imbalance"
    assert group_of("cps", "default", (), {"method.ema": "0.9"}) == "General"
    assert group_of("cps", "ga", ["GA"], {"method.weighting": "diffdw"}) == "GA"


# ----------------------------------------------------------------------------------------------------- print


def printed(job: Job, label: str, heading: str = "", **more: Any) -> Any:
    about = {"labeled": "5%", "network_here": "net", "network_published": "net", "origin": "", "flags": ()}
    return SimpleNamespace(label=label, heading=heading, job=lambda: job, **about | more)


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Publishes a table of rows."""

    def publish(*rows: Any) -> None:
        for order, row in enumerate(rows):
            row.order = order
        jobs = {row.order: row.job() for row in rows}
        published = SimpleNamespace(title="A paper, Table 1: rows", rows=rows, jobs=jobs)
        monkeypatch.setattr(grammar, "published_table", lambda key: published)

    return publish


def test_a_table_follows_print(recipe: str, follow: Callable[..., None], made: Callable[..., list[Table]]) -> None:
    def job(**parts: Any) -> Job:
        return Job(**{"recipe": recipe, "labeled": "5%", "method": "cps"} | parts)

    follow(
        printed(job(method="supervised", labeled="100%"), "U-Net (fully)"),
        printed(job(loss="ga"), "Ours", "New", network_here="other"),
        printed(job(loss="ga", plugin="scdl"), "+ SCDL", "New"),
        printed(job(method="mt", plugin="scdl"), "+ SCDL", "New"),
        printed(job(), "CPS [3]", "Old", origin="dhc:T1"),
    )
    jobs = [
        {"method": "dhc"},
        {"method": "cps"},
        {"method": "mt", "plugin": "scdl"},
        {"method": "cps", "loss": "ga", "plugin": [None, "scdl"]},
        {"method": "supervised", "labeled": "100%"},
    ]
    (table,) = made(grid(recipe, *jobs, table={"of": "x:T1", "columns": ["dsc"]}))
    assert groups(table) == [
        ("", ["U-Net (fully)"]),
        ("New", ["Ours", "SCDL-GA-CPS", "SCDL-MT"]),  # `+ SCDL` alone would be two rows
        ("Old", ["CPS [3]"]),
        ("Not in the paper", ["DHC"]),
    ]
    assert table.title.startswith("A paper, Table 1: rows. Recipe short")
    assert table.of == "x:T1"
    assert table.notes[-2:] == ("ᵃ Network other; the paper says net.", "ᵇ In print copied from dhc:T1.")
    assert [row.full_label for row in table.rows][1:5:3] == ["Oursᵃ", "CPS [3]ᵇ"]


def test_blocks_are_called_as_in_print(
    recipe: str, follow: Callable[..., None], made: Callable[..., list[Table]]
) -> None:
    jobs = [Job(recipe=recipe, labeled=budget, method="cps") for budget in BUDGETS]
    follow(printed(jobs[0], "CPS"), printed(jobs[1], "CPS", labeled="10%"))
    spec = {"of": "x:T1", "blocks": "labeled", "columns": ["dsc"]}
    (table,) = made(grid(recipe, {"method": "cps"}, labeled=BUDGETS, table=spec))
    assert table.blocks == ("5%", "10%")
    assert groups(table) == [("", ["CPS"])]


# --------------------------------------------------------------------------------------------------- columns


def test_columns_by_class(recipe: str, made: Callable[..., list[Table]]) -> None:
    spec = {"columns": {"by": "class", "metrics": ["dsc", "asd"]}, "decimals": {"dsc/class": 2, "std/class": 1}}
    (table,) = made(grid(recipe, {"method": "cps"}, seeds=[0, 1], table=spec))
    assert [(column.span, column.header) for column in table.columns] == [
        (over, metric) for over in ("Avg.", "RV", "MYO", "LV") for metric in ("DSC", "ASD")
    ]
    assert [column.decimals for column in table.columns] == [2, 2] + [2, 1] * 3
    text = shown(table, 120)
    assert "── RV ──" in text and "↓ (voxel)" in text
    assert "50.00±0.0" in text
    assert "| RV DSC ↑ (%) | RV ASD ↓ (voxel) |" in markdown(table)
    tex = latex(table)
    assert r" & \multicolumn{2}{c}{Avg.} & \multicolumn{2}{c}{RV}" in tex
    assert r"Method & $\uparrow$ (\%) & $\downarrow$ (voxel)" in tex
    assert "Columns by class" not in markdown(table)


def test_chosen_classes_and_decimals(recipe: str, made: Callable[..., list[Table]]) -> None:
    spec = {"columns": ["dsc", "dsc/lv,RV"], "decimals": {"dsc": 1, "std": 3, "dsc/class": 0}}
    (table,) = made(grid(recipe, {"method": "cps"}, seeds=[0, 1], table=spec), lambda job: 0.5 + 0.01 * job.seed)
    assert [column.class_name for column in table.columns] == ["avg", "lv", "rv"]
    texts = [cell_text(cell, column) for cell, column in zip(table.rows[0].cells, table.columns, strict=True)]
    assert texts == [("50.5", "±0.500"), ("50", ""), ("50", "")]


def test_gain_over_what_a_row_adds_to(recipe: str, made: Callable[..., list[Table]]) -> None:
    jobs = [
        {"method": "supervised"},
        {"method": "supervised", "labeled": "100%"},
        {"method": "cps"},
        {"method": "cps", "loss": "ga", "vary": {"loss.gamma": [1, 0.5]}},
        {"method": "cps", "loss": "ga", "plugin": "scdl"},
        {"method": "mt", "loss": "ga"},
    ]
    numbers = {
        ("supervised", "default", None): 0.4,
        ("cps", "default", None): 0.5,
        ("cps", "ga", None): 0.45,
        ("cps", "ga", "scdl"): 0.6,
        ("mt", "ga", None): 0.7,
    }

    def dsc(job: Job) -> float:
        return 0.9 if job.labeled == "100pct" else numbers[job.method, job.loss, job.plugin]

    (table,) = made(grid(recipe, *jobs, table={"columns": ["dsc", "gain"], "order": "file"}), dsc)
    gains = {row.label: cell_text(row.cells[1], table.columns[1])[0] for row in table.rows}
    assert gains == {
        "Supervised": "--",
        "Supervised (100%)": "--",
        "CPS": "+10.00",
        "GA-CPS (gamma=1)": "-5.00",
        "GA-CPS (gamma=0.5)": "-5.00",
        "SCDL-GA-CPS": "+15.00",  # over GA-CPS as it is by default
        "GA-MT": "--",  # the grid has no MT
    }
    assert not any(row.cells[1].rank for row in table.rows)
    assert (table.columns[1].header, table.columns[1].sense) == ("Gain in DSC", "↑ (points)")
    assert any(note.startswith("Gain: over the same job without its plugin") for note in table.notes)
    assert "$+$15.00" in latex(table) and "$-$5.00" in latex(table)


def test_third_and_no_marks(recipe: str, made: Callable[..., list[Table]]) -> None:
    jobs = {"method": ["supervised", "cps", "mt", "dhc"]}
    numbers = {"supervised": 0.4, "cps": 0.5, "mt": 0.6, "dhc": 0.7}
    three = {"columns": ["dsc"], "marks": ["best", "second", "third"]}
    (table,) = made(grid(recipe, jobs, table=three), lambda job: numbers[job.method])
    assert {row.label: row.cells[0].rank for row in table.rows} == {"Supervised": 0, "CPS": 3, "MT": 2, "DHC": 1}
    assert table.notes[0] == "Best in bold, second underlined, third in italics, on unrounded means."
    assert r"\textit{50.00}" in latex(table) and "| *50.00* |" in markdown(table)
    (none,) = made(grid(recipe, jobs, table={"columns": ["dsc"], "marks": []}, seeds=[1]))
    assert not any(cell.rank for row in none.rows for cell in row.cells)
    assert not any("bold" in note for note in none.notes)


def test_short_notes_are_one_line(recipe: str, made: Callable[..., list[Table]]) -> None:
    registry.register("protocol", "papers2")(protocol("papers2", 0))
    spec = {"columns": ["dsc"], "notes": "short", "note": "Said by the file."}
    (table,) = made(grid(recipe, {"method": ["cps", "mt"], "note": "n"}, table=spec), lambda job: 0.5)
    assert table.measured == ""
    (line,) = table.notes
    assert line == (
        "Protocol papers (version 1). Best in bold, second underlined, on unrounded means. ᵃ N. Said by the file."
    )
    assert math.isclose(table.rows[0].cells[0].mean, 50)
    assert line in shown(table, 200) and r"\parbox{\textwidth}{\scriptsize Protocol papers" in latex(table)
