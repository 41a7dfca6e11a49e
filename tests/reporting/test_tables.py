"""Which rows, which cells, which marks: from runs on disk to the table's value."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sslbench import load_results
from sslbench.config.grid import Grid
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError, UnknownNameError, UsageError
from sslbench.core.files import write_text
from sslbench.reporting.latex import latex
from sslbench.reporting.model import Cell, Column, Row, RowSource, Table, cell_text, manifest
from sslbench.reporting.render import markdown
from sslbench.reporting.statistics import two_way
from sslbench.reporting.tables import _ranked, grid_report, records_report
from tests.helpers.results import CLASSES, component, protocol, same
from tests.helpers.run_directories import write_run_of_job

Write = Callable[..., Path]


def row(table: Table, label: str) -> Row:
    return next(row for row in table.rows if row.label == label)


def labels(table: Table) -> dict[str, list[str]]:
    return {group.title: [row.label for row in group.rows] for group in table.groups}


def tables_of(grid: Grid, tmp_path: Path) -> list[Table]:
    return grid_report(grid, grid.expand(), tmp_path / "results").tables


@pytest.fixture
def write_job(write_run: Write, tmp_path: Path) -> Callable[..., Path]:
    """Writes the run of a grid's job, in its own directory."""

    def write(job, dsc=0.5, **more) -> Path:
        run = write_run_of_job(write_run, job, dsc, **more)
        assert run == tmp_path / "results" / "runs" / job.directory
        return run

    return write


# ------------------------------------------------------------------------------------------------ a grid's table


def test_a_grid_fills_its_table(recipe: str, write_job: Write, tmp_path: Path) -> None:
    grid = Grid(
        name="g",
        recipe=[recipe],
        labeled=["5%"],
        jobs=[
            {"method": ["dhc", "cps", "mt"], "loss": ["default", "ga"]},
            {"method": "supervised"},
            {"method": "supervised", "labeled": "100%"},
        ],
        table={"columns": ["dsc", "asd", "dsc/class"], "gain": False, "groups": ["Reference", "General", "Imbalance"]},
    )
    numbers = {"cps": 0.5, "mt": 0.6, "dhc": 0.7, "supervised": 0.4}
    for job in grid.expand():
        dsc = 0.9 if job.labeled == "100%" else numbers[job.method] + 0.05 * (job.loss == "ga") + 0.02 * job.seed
        write_job(job, dsc)
    (table,) = tables_of(grid, tmp_path)
    assert labels(table) == {
        "Reference": ["Supervised", "Supervised (100%)"],
        "General": ["CPS", "GA-CPS", "MT", "GA-MT"],
        "Imbalance": ["DHC", "GA-DHC"],
    }
    assert table.name == "short-3-patients"
    source = row(table, "GA-CPS").first
    assert (source.recipe, source.labeled, source.protocol, source.n) == ("short", "3-patients", "papers", 2)
    assert source.job is not None and source.job.digest == source.digest
    assert [f"{column.header} {column.sense}" for column in table.columns] == [
        "Avg. DSC ↑ (%)",
        "Avg. ASD ↓ (voxel)",
        "RV ↑ (%)",
        "MYO ↑ (%)",
        "LV ↑ (%)",
    ]
    cell = row(table, "GA-CPS").cells[0]
    assert (cell.mean, cell.std, cell.n, cell.expected) == (pytest.approx(56.0), pytest.approx(1.0), 2, 2)
    assert cell_text(cell, table.columns[0]) == ("56.00", "±1.0")
    assert cell_text(row(table, "GA-CPS").cells[1], table.columns[1]) == ("4.40", "±0.1")
    assert cell_text(row(table, "GA-CPS").cells[2], table.columns[2]) == ("56.0", "")
    assert [item.label for item in table.rows if item.cells[0].best] == ["GA-DHC"]  # 100 % of the labels do not compete
    assert [item.label for item in table.rows if item.cells[1].second] == ["DHC"]
    assert row(table, "Supervised (100%)").first.labeled == "100pct"
    assert table.notes[0] == (
        "Best in bold, second underlined, on unrounded means; rows with 100% of the labels do not compete."
    )
    assert not any("Caution" in note or "complete" in note for note in table.notes)
    assert table.caption.startswith(
        "Hearts & more, 3 patients labelled. Recipe short, splits ssl4mis. "
        "Mean ± population SD over 2 seeds; per class the mean alone. Protocol papers (version 1): "
    )
    assert table.caption.endswith("Tested weights: best on the validation cases.")
    assert len(manifest([table])) == 16
    assert manifest([table])[0] == {
        "run": row(table, "Supervised").runs[0],
        "digest": row(table, "Supervised").first.digest,
    }
    json.dumps(manifest([table]))


def test_missing_runs_are_counted(recipe: str, write_job: Write, tmp_path: Path) -> None:
    grid = Grid(name="g", recipe=[recipe], labeled=["5%"], jobs=[{"method": ["cps", "mt", "dhc"]}])
    jobs = {(job.method, job.seed): job for job in grid.expand()}
    write_job(jobs["cps", 0], 0.5)
    write_job(jobs["cps", 1], 0.5, state="failed")
    write_job(jobs["mt", 0], 0.5, state="running")
    (table,) = tables_of(grid, tmp_path)
    assert [item.full_label for item in table.rows] == ["CPS (1/2 seeds)", "MT (0/2 seeds)", "DHC (0/2 seeds)"]
    cps, mt = row(table, "CPS").cells, row(table, "MT").cells
    assert (cps[0].n, cps[0].expected, cps[0].marked, cps[2].marked) == (1, 2, True, False)
    assert cell_text(cps[0], table.columns[0]) == ("50.00", "")
    assert cell_text(mt[0], table.columns[0]) == ("--", "")
    assert not any(cell.best or cell.second for item in table.rows for cell in item.cells)  # one row is no contest
    assert "† Mean over fewer seeds than asked for." in table.notes
    assert "5 of 6 runs have no result (1 failed, 1 interrupted, 3 not started); --: no value." in table.notes


def test_a_method_says_once_what_its_numbers_are_not(recipe: str, write_job: Write, tmp_path: Path) -> None:
    caution = "Redrawn is a reconstruction: its rows do not reproduce the published ones."
    registry.register("method", "redrawn")(component("Redrawn (reconstructed)", "Imbalance", caution=caution))
    grid = Grid(
        name="g", recipe=[recipe], labeled=["5%"], jobs=[{"method": ["cps", "redrawn"], "loss": ["default", "ga"]}]
    )
    for job in grid.expand():
        write_job(job)
    (table,) = tables_of(grid, tmp_path)
    assert table.notes.count(caution) == 1 and labels(table)["Imbalance"][0] == "Redrawn (reconstructed)"
    registry.unregister("method", "redrawn")
    (results,) = records_report(tmp_path / "results").tables  # which outlive the package that made them
    assert "redrawn" in {item.first.method for item in results.rows} and caution not in results.notes


def test_a_table_without_any_run_has_all_its_columns(recipe: str, tmp_path: Path) -> None:
    grid = Grid(name="g", recipe=[recipe], labeled=["5%"], jobs=[{"method": "cps"}])
    (table,) = tables_of(grid, tmp_path)
    assert [(column.header, column.unit) for column in table.columns] == [
        ("Avg. DSC", "percent"),
        ("Avg. ASD", "voxel"),
        ("RV", "percent"),
        ("MYO", "percent"),
        ("LV", "percent"),
    ]
    assert all(math.isnan(cell.mean) for cell in table.rows[0].cells)
    assert manifest([table]) == []


def test_one_table_per_budget_each_with_the_upper_bound(recipe: str, write_job: Write, tmp_path: Path) -> None:
    grid = Grid(
        name="g",
        recipe=[recipe],
        seeds=[0],
        jobs=[
            {"method": ["cps", "mt"], "labeled": ["3 patients", "10%"]},
            {"method": "supervised", "labeled": "100%"},
        ],
    )
    for job in grid.expand():
        write_job(job)
    tables = tables_of(grid, tmp_path)
    assert [table.name for table in tables] == ["short-3-patients", "short-7-patients"]
    assert [labels(table)["Reference"] for table in tables] == [["Supervised (100%)"]] * 2
    assert "One seed per row, so no ±." in tables[0].title
    assert len(manifest(tables)) == 5  # the upper bound once


def test_the_best_of_a_budget_is_bold_where_the_upper_bound_is_better(
    recipe: str, write_job: Write, tmp_path: Path
) -> None:
    jobs = [{"method": ["cps", "mt"], "labeled": ["3 patients"]}, {"method": "supervised", "labeled": "100%"}]
    grid = Grid(name="g", recipe=[recipe], seeds=[0], jobs=jobs)
    for job in grid.expand():
        write_job(job, {"cps": 0.6, "mt": 0.5, "supervised": 0.9}[job.method])
    (table,) = tables_of(grid, tmp_path)
    marked = {item.label: (item.cells[0].best, item.cells[0].second) for item in table.rows}
    assert marked == {"CPS": (True, False), "MT": (False, True), "Supervised (100%)": (False, False)}


def test_upper_bounds_alone_compete_with_each_other(recipe: str, write_job: Write, tmp_path: Path) -> None:
    grid = Grid(
        name="g",
        recipe=[recipe],
        seeds=[0],
        labeled=["100%"],
        jobs=[{"method": "supervised", "loss": ["default", "ga"]}],
    )
    for job in grid.expand():
        write_job(job, 0.8 if job.loss == "ga" else 0.7)
    (table,) = tables_of(grid, tmp_path)
    assert [(item.label, item.cells[0].best) for item in table.rows] == [("Supervised", False), ("GA-Supervised", True)]


def test_a_group_named_like_a_loss_takes_its_rows(recipe: str, tmp_path: Path) -> None:
    grid = Grid(
        name="g",
        recipe=[recipe],
        labeled=["5%"],
        jobs=[
            {"method": ["cps", "dhc"], "loss": ["default", "ga", "ga_labeled_only"]},
            {"method": "mt", "plugin": "scdl"},
        ],
        table={"groups": ["General", "Imbalance", "GA"]},
    )
    (table,) = tables_of(grid, tmp_path)
    assert labels(table) == {
        "General": ["CPS", "SCDL-MT"],
        "Imbalance": ["DHC"],
        "GA": ["GA-CPS", "GA-CPS (labeled only)", "GA-DHC", "GA-DHC (labeled only)"],
    }


def test_settings_stand_in_the_name_and_shared_ones_in_a_note(recipe: str, write_job: Write, tmp_path: Path) -> None:
    grid = Grid(
        name="g",
        recipe=[recipe],
        labeled=["5%"],
        set={"schedule.iterations": 20},
        jobs=[{"method": "cps", "loss": ["ga", "ga[gamma=0.75]"]}, {"method": "cps", "set": {"optimizer.lr": 0.1}}],
    )
    for job in grid.expand():
        write_job(job)
    expected = {"General": ["CPS (optimizer.lr=0.1)", "GA-CPS", "GA-CPS (gamma=0.75)"]}
    (table,) = tables_of(grid, tmp_path)
    assert labels(table) == expected
    assert "All rows: schedule.iterations=20." in table.notes
    assert row(table, "GA-CPS (gamma=0.75)").first.variant == "loss.gamma=0.75,schedule.iterations=20"
    (of_runs,) = records_report(tmp_path / "results").tables
    assert {item.label for item in of_runs.rows} == set(expected["General"])


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([{"method": ["cps", "mt"], "set": {"schedule.scale": 0.1}}], "Schedule scaled to 0.1."),
        ([{"method": "cps", "set": {"schedule.scale": 0.1}}, {"method": "mt"}], "Schedule scaled to 0.1 in some rows."),
        ([{"method": "cps"}], ""),
    ],
)
def test_a_scaled_schedule_is_said_in_the_caption(
    entries: list[dict[str, object]], words: str, recipe: str, write_job: Write, tmp_path: Path
) -> None:
    grid = Grid(name="g", recipe=[recipe], labeled=["5%"], jobs=entries)
    for job in grid.expand():
        write_job(job)
    (table,) = tables_of(grid, tmp_path)
    assert words in table.title and ("scaled" in table.title) == bool(words)


def test_columns_are_the_protocols(recipe: str, tmp_path: Path) -> None:
    for columns in (["dice"], ["dsc/organ"], ["dsc", "hd95"]):
        grid = Grid(name="g", recipe=[recipe], labeled=["5%"], jobs=[{"method": "cps"}], table={"columns": columns})
        with pytest.raises(UnknownNameError, match="table column"):
            tables_of(grid, tmp_path)


def test_classes_stand_by_size_where_a_grid_asks_for_it(recipe: str, write_job: Write, tmp_path: Path) -> None:
    settings = {"name": "g", "recipe": [recipe], "labeled": ["5%"], "seeds": [0], "jobs": [{"method": "cps"}]}
    by_size, by_label = (
        Grid(**settings, table={"columns": ["dsc", "dsc/class"], "classes": order}) for order in ("size", "label")
    )
    (empty,) = tables_of(by_size, tmp_path)
    assert [column.header for column in empty.columns] == ["Avg. DSC", "RV", "MYO", "LV"]
    (job,) = by_size.expand()
    run = write_job(job, {"rv": [0.2, 0.4], "myo": [0.5, 0.5], "lv": [None, 0.9]})
    records = pd.read_csv(run / "cases.csv")
    for (short, case), voxels in {("rv", 1): 10, ("rv", 2): 30, ("myo", 1): 100, ("lv", 2): 50}.items():
        records.loc[(records["class"] == short) & (records["case"] == case), "ref_voxels"] = voxels
    records["case"] = records["case"].map("{:04d}".format)
    records.to_csv(run / "cases.csv", index=False)
    (table,) = tables_of(by_size, tmp_path)
    assert [column.header for column in table.columns] == ["Avg. DSC", "MYO", "LV", "RV"]
    assert [cell.mean for cell in table.rows[0].cells[1:]] == pytest.approx([50, 90, 30])
    said = "Classes by size, the mean over the test cases that have them, in voxels: MYO 75, LV 50, RV 20."
    assert said in table.notes  # MYO: 100 and the 50 of the other case
    (plain,) = tables_of(by_label, tmp_path)
    assert [column.header for column in plain.columns] == ["Avg. DSC", "RV", "MYO", "LV"]
    assert not [note for note in plain.notes if "Classes by size" in note]


def test_another_protocol_makes_another_table(recipe: str, write_job: Write, tmp_path: Path) -> None:
    grid = Grid(
        name="g",
        recipe=[recipe],
        labeled=["5%"],
        jobs=[{"method": "cps"}, {"method": "mt", "set": {"protocol": "ours"}}],
    )
    tables = tables_of(grid, tmp_path)
    assert [(table.name, table.rows[0].first.protocol) for table in tables] == [
        ("short-3-patients", "papers"),
        ("short-3-patients-2", "ours"),
    ]
    assert "sample SD" in tables[1].title
    assert tables[1].columns[1].unit == "mm"


@pytest.mark.parametrize(("spacing", "converted"), [((1.5, 1.5, 2.0), True), (None, False)])
def test_predictions_on_another_grid_than_the_papers_are_called_converted(
    spacing: tuple[float, float, float] | None, converted: bool, write_run: Write, tmp_path: Path
) -> None:
    registry.register("protocol", "elsewhere")(
        replace(protocol("elsewhere", 0), grid="preprocessed", spacing_mm=spacing)
    )
    write_run(protocol="elsewhere", data={"preprocessing": "plain"})
    (table,) = records_report(tmp_path / "results").tables
    assert "Protocol elsewhere" in table.measured and ("(converted" in table.measured) is converted


def test_runs_of_another_version_are_left_out_and_counted(recipe: str, write_job: Write, tmp_path: Path) -> None:
    grid = Grid(name="g", recipe=[recipe], labeled=["5%"], seeds=[0], jobs=[{"method": "cps"}])
    (job,) = grid.expand()
    run = write_job(job)
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace(job.digest(), "0" * 64))
    run.rename(run.with_name("seed-0-00000000"))
    (table,) = tables_of(grid, tmp_path)
    assert table.rows[0].full_label == "CPS (0/1 seeds)"
    assert "Left out: 1 result of these jobs under other settings or versions." in table.notes


def test_damage_is_reported_beside_the_table(recipe: str, write_job: Write, tmp_path: Path) -> None:
    grid = Grid(name="g", recipe=[recipe], labeled=["5%"], jobs=[{"method": "cps"}])
    first, second = (write_job(job) for job in grid.expand())
    write_text(first / "cases.csv", "")
    write_text(second / "config.yaml", "a: [")
    made = grid_report(grid, grid.expand(), tmp_path / "results")
    (table,) = made.tables
    assert [line.split(" is left out")[0] for line in made.found.warnings] == [
        str(second / "config.yaml"),
        str(first / "cases.csv"),
    ]
    assert table.rows[0].full_label == "CPS (0/2 seeds)"
    assert any("2 damaged" in note for note in table.notes)


def test_notes_of_the_grid_come_last(recipe: str, tmp_path: Path) -> None:
    table = {"caption": "Our own words", "note": "A demonstration."}
    grid = Grid(name="g", recipe=[recipe], labeled=["5%"], jobs=[{"method": "cps"}], table=table)
    (built,) = tables_of(grid, tmp_path)
    assert built.title.startswith("Our own words. Recipe short")
    assert built.notes[-1] == "A demonstration."


def test_rows_that_lack_seeds_or_have_other_cases_do_not_compete(recipe: str, write_job: Write, tmp_path: Path) -> None:
    grid = Grid(
        name="g", recipe=[recipe], labeled=["5%"], jobs=[{"method": ["cps", "mt", "dhc", "supervised"]}],
    )  # fmt: skip
    jobs = {(job.method, job.seed): job for job in grid.expand()}
    for seed in (0, 1):
        write_job(jobs["cps", seed], same(0.6))
        write_job(jobs["mt", seed], same(0.5))
        write_job(jobs["dhc", seed], same(0.9, cases=1))
    write_job(jobs["supervised", 0], same(0.8))
    (table,) = tables_of(grid, tmp_path)
    marked = {item.label: (item.first.competes, item.cells[0].best, item.cells[0].second) for item in table.rows}
    assert marked == {
        "Supervised": (False, False, False),
        "CPS": (True, True, False),
        "MT": (True, False, True),
        "DHC": (False, False, False),
    }
    assert (
        "Best in bold, second underlined, on unrounded means; rows with fewer seeds than asked for, rows measured on "
        "other cases do not compete."
    ) in table.notes
    assert labels(table)["Reference"] == ["Supervised"]  # it keeps its place among the rows


def test_a_class_without_a_value_in_a_seed_is_not_best_there(write_run: Write, tmp_path: Path) -> None:
    write_run({"rv": [None, None], "myo": [0.5, 0.5], "lv": [0.5, 0.5]}, seed=0)
    write_run({"rv": [0.9, 0.9], "myo": [0.5, 0.5], "lv": [0.5, 0.5]}, seed=1)
    for seed in (0, 1):
        write_run(same(0.4), method="mt", seed=seed)
        write_run(same(0.3), method="dhc", seed=seed)
    (table,) = records_report(tmp_path / "results").tables
    place = [column.class_name for column in table.columns].index("rv")
    assert [item.label for item in table.rows if item.cells[place].best] == ["MT"]
    assert [item.label for item in table.rows if item.cells[0].best] == ["CPS"]


def test_a_table_is_checked_before_any_job_starts(recipe: str) -> None:
    settings = {"name": "g", "recipe": [recipe], "labeled": ["5%"], "jobs": [{"method": "cps"}]}
    for columns, words in (
        (["dsc/aorta"], "class in the table column 'dsc/...': 'aorta'"),
        (["dsc", "dsc"], "twice"),
        ([], "no columns"),
    ):
        with pytest.raises(UsageError, match=words):
            Grid(**settings, table={"columns": columns}).expand()
    with pytest.raises(UnknownNameError, match="did you mean class"):
        Grid(**settings, table={"columns": ["dsc/clas"]}).expand()


def test_a_protocol_without_the_usual_columns_fills_those_that_it_has(
    recipe: str, write_job: Write, tmp_path: Path
) -> None:
    registry.register("protocol", "overlaps")(replace(protocol("overlaps", 0), metrics=("dsc",)))
    grid = Grid(
        name="g", recipe=[recipe], labeled=["5%"], set={"protocol": "overlaps"}, jobs=[{"method": "cps"}]
    )  # fmt: skip
    (table,) = tables_of(grid, tmp_path)
    assert [column.header for column in table.columns] == ["Avg. DSC", "RV", "MYO", "LV"]
    assert not any("has no" in note for note in table.notes)


def test_tables_of_two_grids_have_names_of_their_own(recipe: str, tmp_path: Path) -> None:
    grids = [Grid(name=name, recipe=[recipe], labeled=["5%"], jobs=[{"method": "cps"}]) for name in ("one", "two")]
    (one,), (two,) = (tables_of(grid, tmp_path) for grid in grids)
    for table, name in ((one, "one"), (two, "two")):
        assert rf"\label{{tab:{name}-short-3-patients}}" in latex(table)
        for text in (latex(table), markdown(table)):
            assert f"over 2 seeds; per class the mean alone. Grid {name}." in text


@pytest.mark.parametrize(("seeds", "words"), [(1, "Mean over 1 seed ± "), (2, "Mean over 2 seeds ± ")])
def test_one_seed_is_no_seeds(seeds: int, words: str, write_run: Write, tmp_path: Path) -> None:
    registry.register("protocol", "spread")(replace(protocol("spread", 0), spread="cases"))
    for seed in range(seeds):
        write_run(protocol="spread", seed=seed)
    (table,) = records_report(tmp_path / "results").tables
    assert words in table.title
    assert (f"<summary>{seeds} run{'s' if seeds > 1 else ''}</summary>") in markdown(table)


# ------------------------------------------------------------------------------------------------ tables of runs


def test_runs_without_a_grid(write_run: Write, tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(0.5, seed=seed)
        write_run(0.6, loss="ga", seed=seed, labeled="7-patients", recipe="long")
    write_run(0.7, method="mt", seed=0)
    write_run(0.7, method="mt", seed=1, state="running")
    write_run(0.7, method="dhc", state="failed")
    tables = records_report(tmp_path / "results").tables
    jobs = [table.rows[0].first for table in tables]
    assert [(job.recipe, job.labeled) for job in jobs] == [("long", "7-patients"), ("short", "3-patients")]
    assert [item.full_label for item in tables[1].rows] == ["CPS", "MT (1/2 seeds)"]
    assert "Left out: 1 run of rows without any result." in tables[1].notes


def test_components_that_are_not_installed_keep_their_names(write_run: Write, tmp_path: Path) -> None:
    write_run(method="theirs", loss="odd", plugin="extra", labeled="15pct")
    (table,) = records_report(tmp_path / "results").tables
    assert labels(table) == {"Other": ["extra-odd-theirs"]}
    assert "15% labelled" in table.title


def test_the_test_of_other_weights_makes_a_table_that_says_so(write_run: Write, tmp_path: Path) -> None:
    run = write_run(0.5)
    (run / "last").mkdir()
    text = (run / "cases.csv").read_text().replace("0.5,fraction", "0.7,fraction")
    (run / "last" / "cases.csv").write_text(text)
    (own,), (last,) = (records_report(tmp_path / "results", checkpoint=rule).tables for rule in (None, "last"))
    assert [table.rows[0].cells[0].mean for table in (own, last)] == [pytest.approx(50), pytest.approx(70)]
    assert "the last iteration" in last.measured and "the last iteration" not in own.measured


def test_one_name_with_two_digests_is_two_rows(write_run: Write, tmp_path: Path) -> None:
    write_run(0.5, digest="a" * 64)
    write_run(0.7, digest="b" * 64, seed=1)
    (table,) = records_report(tmp_path / "results").tables
    assert [item.label for item in table.rows] == ["CPS [aaaaaaaa]", "CPS [bbbbbbbb]"]
    assert [item.cells[0].mean for item in table.rows] == [pytest.approx(50), pytest.approx(70)]
    assert any("digest" in note for note in table.notes)


def test_seeds_measured_on_other_cases_are_not_averaged(write_run: Write, tmp_path: Path) -> None:
    write_run(same(0.5, cases=2), seed=0)
    write_run(same(0.5, cases=3), seed=1)
    with pytest.raises(SSLBenchError, match="measured on other cases"):
        records_report(tmp_path / "results")


def test_partial_and_differing_data_are_told(write_run: Write, tmp_path: Path) -> None:
    write_run(same(0.5, cases=2), data={"found": 12})
    write_run(same(0.5, cases=3), method="mt", data={"fingerprint": "g"})
    (table,) = records_report(tmp_path / "results").tables
    assert "Not the complete dataset: 12 of 100 official cases." in table.notes
    assert "Caution: the rows come from 2 different states of the prepared data." in table.notes
    assert "Caution: the rows were not all measured on the same cases." in table.notes


def test_what_the_numbers_owe_to_labels_stands_in_the_caption(write_run: Write, tmp_path: Path) -> None:
    held = {"cropped_by_label": True, "preprocessing": "boxed", "preprocessed_by": "somebody's files"}
    write_run(data=held, leaks="train holds scan 7 of test")
    (table,) = records_report(tmp_path / "results").tables
    assert "Preprocessing boxed cuts every scan around its reference label, test scans too" in table.caption
    assert "The split lists leak: train holds scan 7 of test." in table.caption
    assert "Made from arrays that others had preprocessed (somebody's files), not from scans." in table.notes


@pytest.mark.parametrize(("spacing", "words"), [("published", "those published for it"), ("unknown", "1 mm")])
def test_distances_on_arrays_without_voxel_sizes_are_called_nominal(
    write_run: Write, tmp_path: Path, spacing: str, words: str
) -> None:
    for name in ("papers", "ours"):  # in voxels, in mm
        write_run(data={"spacing": spacing}, protocol=name)
        write_run(data={"spacing": "header"}, method="mt", protocol=name)
    told = {
        table.rows[0].first.protocol: [note for note in table.notes if "nominal" in note]
        for table in records_report(tmp_path / "results").tables
    }
    assert told["papers"] == [] and len(told["ours"]) == 1 and words in told["ours"][0]


def test_missed_structures_are_told(write_run: Write, tmp_path: Path) -> None:
    write_run({"rv": [0.0, 0.0], "myo": [0.5, 0.5], "lv": [None, 0.5]}, seed=0)
    write_run({"rv": [0.0, 0.5], "myo": [0.5, 0.5], "lv": [None, 0.5]}, seed=1)
    write_run({"rv": [0.5, 0.5], "myo": [0.5, 0.5], "lv": [None, 0.5]}, method="mt")
    (table,) = records_report(tmp_path / "results").tables
    assert table.notes[-1] == (
        "Missed structures (in the reference, predicted nowhere), of 5 in the test cases, per seed: "
        "CPS 1.5, other rows none."
    )
    assert "Number of seeds: MT 1, other rows 2." in table.notes


def test_a_class_without_values_is_marked_where_seeds_differ(write_run: Write, tmp_path: Path) -> None:
    write_run({"rv": [None, None], "myo": [0.5, 0.5], "lv": [None, None]}, seed=0)
    write_run({"rv": [0.5, 0.5], "myo": [0.5, 0.5], "lv": [None, None]}, seed=1)
    (table,) = records_report(tmp_path / "results").tables
    cells = dict(zip(("avg", "asd", *CLASSES), table.rows[0].cells, strict=True))
    assert [cells[name].marked for name in ("avg", *CLASSES)] == [False, True, False, False]
    assert math.isnan(cells["lv"].mean)
    assert cells["lv"].n == 0


def test_a_csv_of_records_gives_the_same_numbers(write_run: Write, tmp_path: Path) -> None:
    from sslbench.runs.collect import collect, records_csv

    write_run(0.5, loss="ga", settings={"loss.gamma": 0.75})
    write_run(0.6)
    write_text(tmp_path / "records.csv", records_csv(collect(tmp_path / "results").records))
    (direct,) = records_report(tmp_path / "results").tables
    (again,) = records_report(tmp_path / "records.csv").tables
    assert repr(again.groups) == repr(direct.groups)
    assert again.columns == direct.columns


# --------------------------------------------------------------------------------------------------------- marks


def column(direction: str = "up") -> Column:
    return Column("dsc", "avg", "Avg. DSC", "", "percent", direction, 2, 1)  # type: ignore[arg-type]


def rows_of(means: list[float], competes: list[bool] | None = None) -> list[Row]:
    def source(k: int) -> RowSource:
        return RowSource("r", "d", "b", "p", "m", "l", "", "", "d", ("run",), 1, competes is None or competes[k])

    return [Row(str(k), (source(k),), (Cell(mean, math.nan, 1, 1),)) for k, mean in enumerate(means)]


def marks(means: list[float], direction: str = "up", competes: list[bool] | None = None) -> str:
    ranked = _ranked(rows_of(means, competes), (column(direction),), 2)
    return "".join("b" if item.cells[0].best else "s" if item.cells[0].second else "." for item in ranked)


NAN = math.nan


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ([1.0, 3.0, 2.0], ".bs"),
        ([3.0, 3.0, 2.0, 1.0], "bbs."),  # ties are shared; the next value is second
        ([3.0, 2.0, 2.0], "bss"),
        ([50.001, 50.002], "sb"),  # both print as 50.00
        ([0.1 + 0.2, 0.3, 0.2], "bbs"),  # the last bit is no difference
        ([2.0, 2.0], "bb"),
        ([NAN, 1.0, 2.0], ".sb"),
        ([NAN, 1.0], ".."),
        ([1.0], "."),
        ([], ""),
    ],
)
def test_best_and_second(means: list[float], expected: str) -> None:
    assert marks(means) == expected
    assert marks([-mean for mean in means], "down") == expected
    assert marks(means, "") == "." * len(means)


def test_only_those_who_compete_are_ranked() -> None:
    assert marks([9.0, 1.0, 2.0], competes=[False, True, True]) == ".sb"
    assert marks([9.0, 1.0], competes=[False, True]) == ".."


@given(st.lists(st.floats(0, 100) | st.just(NAN), max_size=8))
def test_marks_agree_with_the_values(means: list[float]) -> None:
    given_marks = marks(means)
    values = [mean for mean in means if not math.isnan(mean)]
    assert ("b" in given_marks) == (len(values) > 1)
    if len(values) > 1:
        best = [mean for mean, mark in zip(means, given_marks, strict=True) if mark == "b"]
        rest = [mean for mean, mark in zip(means, given_marks, strict=True) if mark != "b" and not math.isnan(mean)]
        assert max(values) in best
        assert all(other < min(best) for other in rest)
        assert ("s" in given_marks) == bool(rest)


def test_gains_have_the_interval_of_seeds_and_patients(recipe: str, write_job: Write, tmp_path: Path) -> None:
    grid = Grid(
        name="g",
        recipe=[recipe],
        labeled=["5%"],
        seeds=[0, 1, 2],
        jobs=[{"method": "supervised"}, {"method": ["cps", "mt"], "loss": ["default", "ga"]}],
        table={"columns": ["dsc", "gain"]},
    )
    generator = np.random.default_rng(0)
    base = generator.uniform(0.5, 0.6, (3, 6, 3))
    level = {"supervised+default": 0.0, "cps+default": 0.1, "cps+ga": 0.3, "mt+default": 0.001}
    for job in grid.expand():
        if (name := f"{job.method}+{job.loss}") in level:
            noise = generator.normal(0, 0.004, (6, 3))
            values = base[job.seed] + level[name] + noise
            write_job(job, dict(zip(CLASSES, values.T.tolist(), strict=True)))
    (table,) = tables_of(grid, tmp_path)
    cps, ga = row(table, "CPS"), row(table, "GA-CPS")
    for found, below in ((cps, row(table, "Supervised")), (ga, cps)):
        cell = found.cells[1]
        assert cell.mean == pytest.approx(found.cells[0].mean - below.cells[0].mean, abs=1e-10)
        assert cell.low < cell.mean < cell.high and cell.star
    assert not row(table, "MT").cells[1].star
    assert math.isnan(row(table, "GA-MT").cells[1].mean) and math.isnan(row(table, "Supervised").cells[1].mean)
    held = {(each.row, each.baseline): each.gain for each in table.gains}
    assert held.keys() == {("CPS", "Supervised"), ("MT", "Supervised"), ("GA-CPS", "CPS")}
    found = held["GA-CPS", "CPS"]
    assert (found.seeds, found.units) == (3, 6)
    records = load_results(tmp_path / "results")
    means = records[records["metric"] == "dsc"].groupby(["method", "loss", "seed", "case"])["value"].mean() * 100
    expected = two_way((means["cps", "ga"] - means["cps", "default"]).unstack())
    assert found.average is not None
    assert (found.average.low, found.average.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    notes = " ".join(table.notes)
    assert "adjusted for 3 comparisons (Holm)" in notes and "This grid resolves" in notes
    assert f"[{expected.low:.1f}, {expected.high:.1f}]" in markdown(table).replace("\\", "")
    assert f"[{expected.low:.1f}, {expected.high:.1f}]" in latex(table)


def test_gains_stand_behind_the_first_average_in_every_table(recipe: str, write_job: Write, tmp_path: Path) -> None:
    def headers(table: dict[str, object], loss: list[str]) -> list[str]:
        jobs = [{"method": ["cps"], "loss": loss}]
        grid = Grid(name="g", recipe=[recipe], labeled=["5%"], seeds=[0], jobs=jobs, table=table)
        (made,) = tables_of(grid, tmp_path)
        return [column.header for column in made.columns]

    grid = Grid(
        name="g", recipe=[recipe], labeled=["5%"], seeds=[0], jobs=[{"method": "cps", "loss": ["default", "ga"]}]
    )
    for job in grid.expand():
        write_job(job)
    both = ["default", "ga"]
    assert headers({"columns": ["dsc", "asd"]}, both) == ["Avg. DSC", "Gain in DSC", "Avg. ASD"]
    assert headers({"columns": ["asd", "dsc", "gain"]}, both) == ["Avg. ASD", "Avg. DSC", "Gain in ASD"]
    assert headers({"columns": ["dsc", "asd"], "gain": False}, both) == ["Avg. DSC", "Avg. ASD"]
    assert headers({"columns": ["dsc", "asd"]}, ["default"]) == ["Avg. DSC", "Avg. ASD"]  # nothing to hold it against


def test_gains_of_distances_point_up(recipe: str, write_job: Write, tmp_path: Path) -> None:
    grid = Grid(
        name="g",
        recipe=[recipe],
        labeled=["5%"],
        seeds=[0, 1, 2],
        jobs=[{"method": ["cps"], "loss": ["default", "ga"]}],
        table={"columns": ["asd", "gain"]},
    )
    for job in grid.expand():
        write_job(job, {name: [0.5 + 0.1 * (job.loss == "ga") + 0.01 * case for case in range(6)] for name in CLASSES})
    (table,) = tables_of(grid, tmp_path)
    column, cell = table.columns[1], row(table, "GA-CPS").cells[1]
    assert (column.sense, cell.mean) == ("↑ (voxel)", pytest.approx(1.0))  # ASD is 10 (1 - DSC): one less
    assert not any(note.startswith("This grid resolves") for note in table.notes)  # no spread, nothing to say
    assert set(table.gain_notes) <= {*table.notes}


def test_gains_of_two_seeds_and_of_few_patients(recipe: str, write_job: Write, tmp_path: Path) -> None:
    def table_of(cases: int, seeds: list[int]) -> Table:
        grid = Grid(
            name="g",
            recipe=[recipe],
            labeled=["5%"],
            seeds=seeds,
            jobs=[{"method": ["cps"], "loss": ["default", "ga"]}],
            table={"columns": ["dsc", "gain"]},
        )
        for job in grid.expand():
            level = 0.5 + (0.1 + 0.01 * (job.seed % 2)) * (job.loss == "ga")
            write_job(job, {name: [level + 0.01 * case for case in range(cases)] for name in CLASSES})
        return tables_of(grid, tmp_path)[0]

    two = table_of(6, [0, 1])
    cell = row(two, "GA-CPS").cells[1]
    assert (cell.mean, cell.star) == (pytest.approx(10.5), False) and cell.low < 10 < cell.high
    assert "Not tested: two seeds can gain alike by chance." in two.notes
    few = table_of(3, [2, 3])
    cell = row(few, "GA-CPS").cells[1]
    assert cell.mean == pytest.approx(10.5) and math.isnan(cell.low)
    assert "No interval: fewer than 5 patients." in few.notes


@given(st.floats(-1e6, 1e6), st.floats(0, 1e3) | st.just(NAN), st.integers(0, 4), st.integers(0, 3) | st.none())
def test_what_is_printed_is_the_number_rounded(
    mean: float, std: float, decimals: int, std_decimals: int | None
) -> None:
    shown = Column("m", "avg", "M", "", "mm", "", decimals, std_decimals)
    first, second = cell_text(Cell(mean, std, 2, 2), shown)
    assert abs(float(first) - mean) <= 0.5 * 10**-decimals * (1 + 1e-9)
    assert len(first.partition(".")[2]) == decimals
    assert bool(second) == (std_decimals is not None and not math.isnan(std))
    if second and std_decimals is not None:
        assert abs(float(second.removeprefix("±")) - std) <= 0.5 * 10**-std_decimals * (1 + 1e-9)


# -------------------------------------------------------------------------------------------------------- labels


def test_names_of_rows_and_metrics() -> None:
    from sslbench.reporting.labels import class_title, method_group, metric_style, row_label

    registry.register("plugin", "scdl_cdba_only", preset_of="scdl", set={"x": 1})
    assert row_label("cps", "ga", "scdl", {}) == "SCDL-GA-CPS"
    assert row_label("cps", "ga_labeled_only", "scdl_cdba_only", {}) == "SCDL-GA-CPS (cdba only, labeled only)"
    registry.register("method", "acdc", preset_of="cps", set={"x": 1})
    registry.register("method", "crest", preset_of="cps", set={"x": 2}, title="CReST", group="Imbalance")
    assert row_label("acdc", "default", "", {}) == "ACDC"
    assert row_label("crest", "default", "", {}) == "CReST"
    assert (method_group("crest"), method_group("cps")) == ("Imbalance", "General")
    assert (
        row_label("cps", "ga", "", {"loss.gamma": "1", "optimizer.lr": "0.1"}) == "GA-CPS (gamma=1, optimizer.lr=0.1)"
    )
    both = {"loss.gamma": "1", "method.gamma": "2"}
    assert row_label("cps", "ga", "", both) == "GA-CPS (loss.gamma=1, method.gamma=2)"
    assert [class_title(short) for short in ("rk", "ga", "myo", "pu", "Tumour")] == ["RK", "Ga", "MYO", "P/U", "Tumour"]
    assert (metric_style("nsd@2").title, metric_style("nsd@2").percent) == ("NSD@2", True)
    assert (metric_style("volume").title, metric_style("volume").direction) == ("VOLUME", "")


def test_a_metric_of_unknown_sense_is_shown_without_marks(write_run: Write, tmp_path: Path) -> None:
    assert protocol("x", 0).metrics == ("dsc", "asd")
    assert component("T").title == "T"
    write_run(0.5)
    write_run(0.6, method="mt")
    (table,) = records_report(tmp_path / "results").tables
    assert [cell.best for cell in row(table, "MT").cells] == [True] * 5
