"""Which rows are paired, which get a difference, and what is said: on stand-ins for recipes, papers and tables."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from scipy import stats

from sslbench.config.grid import Grid
from sslbench.config.published import PublishedCell, PublishedRow, PublishedTable
from sslbench.core.errors import UsageError
from sslbench.reporting import against
from sslbench.reporting.against import compare, half_width, kendall
from sslbench.reporting.beside import beside, status
from sslbench.reporting.comparison import ComparedRow, Comparison
from sslbench.reporting.tables import grid_report, records_report
from sslbench.runs.directory import Run
from tests.helpers.run_directories import write_run_of_job

NAN = math.nan


def cell(printed: str, std: str = "", unit: str = "percent", **more: Any) -> PublishedCell:
    facts = {"note": "", "doubtful": False, "impossible": False, "filled": False} | more
    return PublishedCell(float(printed), float(std or NAN), printed, std, unit, **facts)


def published_row(
    order: int, recipe: str, label: str = "CPS", dsc: PublishedCell | None = None, **more: Any
) -> PublishedRow:
    facts: dict[str, Any] = {
        "paper": "ga",
        "table": "T1",
        "heading": "",
        "dataset": "hearts",
        "labeled": "3 patients",
        "setting": "5% labeled",
        "method": "cps",
        "loss": "default",
        "plugin": "",
        "set": {},
        "network_published": "net",
        "network_here": "net",
        "spread": "seeds",
        "repeats": 3,
        "origin": "",
        "flags": (),
        "reason": "",
        "cells": {("dsc", "avg"): dsc or cell("60.00", "2.0")},
    }
    return PublishedRow(order=order, recipe=recipe, label=label, **(facts | more))


def published_table(*rows: PublishedRow) -> PublishedTable:
    keys = tuple(dict.fromkeys(key for row in rows for key in row.cells))
    return PublishedTable("ga:T1", "ga", "T1", "methods", "Hearts", "GA, Table 1: methods. Hearts", keys, rows, "ga-t1")


@pytest.fixture
def compared(write_run: Callable[..., Path], recipe: str, tmp_path: Path) -> Callable[..., Comparison]:
    """Writes the runs of a grid and holds its tables against a published one."""

    def make(
        published: PublishedTable, *, scores: dict[str, list[float]], grid: dict[str, Any] | None = None, **written: Any
    ) -> Comparison:
        content = {"recipe": recipe, "labeled": ["3 patients"], "jobs": [{"method": list(scores)}]}
        made = Grid(name="mine", **(content | {"table": {"columns": ["dsc", "asd", "dsc/class"]}} | (grid or {})))
        jobs = made.expand()
        for job in jobs:
            values = scores[job.canonical().method]
            number = [other.seed for other in jobs if other.digest() == job.digest()].index(job.seed)
            if number < len(values) and not Run.of(job, tmp_path / "results").begun:
                write_run_of_job(write_run, job, values[number], **written)
        tables = grid_report(made, jobs, tmp_path / "results").tables
        return compare(tables, published, against.backgrounds(tables, tmp_path / "results"))

    return make


def one(comparison: Comparison, label: str = "CPS") -> ComparedRow:
    return next(row for row in comparison.rows if row.label == label)


# ------------------------------------------------------------------------------------------------------- numbers


def test_the_interval_is_welchs() -> None:
    # By hand: 1.5²/3 + 2²/4 = 0.75 + 1 = 1.75; ν = 1.75²/(0.75²/2 + 1²/3) = 4.983, t = 2.573, and 2.573·√1.75 = 3.404.
    freedom = 1.75**2 / (0.75**2 / 2 + 1 / 3)
    assert half_width((1.5, 2.0), (3, 4)) == pytest.approx(stats.t.ppf(0.975, freedom) * math.sqrt(1.75), rel=1e-12)
    assert half_width((1.5, 2.0), (3, 4)) == pytest.approx(3.404, abs=5e-4)
    low, high = stats.ttest_ind([1.0, 2.0, 4.0], [3.0, 5.0, 9.0, 4.0], equal_var=False).confidence_interval(0.95)
    sds = tuple(float(stats.tstd(values)) for values in ([1.0, 2.0, 4.0], [3.0, 5.0, 9.0, 4.0]))
    assert 2 * half_width(sds, (3, 4)) == pytest.approx(high - low, rel=1e-12)


def test_two_spreads_of_zero_know_nothing_of_what_was_rounded_away() -> None:
    assert math.isnan(half_width((0.0, 0.0), (3, 3)))


def test_rank_correlation_with_ties() -> None:
    pairs = [(1.0, 2.0), (2.0, 2.0), (3.0, 1.0), (3.0, 4.0), (5.0, 9.0)]
    assert kendall(pairs) == pytest.approx(stats.kendalltau(*zip(*pairs, strict=True)).statistic, rel=1e-12)
    assert math.isnan(kendall([(1.0, 1.0), (1.0, 2.0)]))


def test_three_repeats_on_both_sides_have_an_interval_of_2_8_printed_sds(
    compared: Callable[..., Comparison], recipe: str
) -> None:
    """Printed SDs are population SDs, and so are those of a protocol with ddof 0: both are made sample SDs."""
    spread = math.sqrt(1.5) * 0.02  # three values whose population SD is 2 points
    comparison = compared(
        published_table(published_row(1, recipe)),
        scores={"cps": [0.5 - spread, 0.5, 0.5 + spread]},
        grid={"seeds": [0, 1, 2]},
    )
    found = one(comparison).cells[0]
    assert found.measured is not None and found.measured.std == pytest.approx(2.0)
    assert found.difference is not None and found.difference.value == pytest.approx(-10.0)
    assert found.difference.half == pytest.approx(2.776 * 2.0, abs=1e-3) and found.difference.marked
    assert (comparison.summary.intervals, comparison.summary.marked) == (1, 1)
    assert "1 of 1 interval leaves out 0, by chance alone 0.1 would" in str(comparison.summary)
    assert "• where that leaves out 0" in comparison.notes[0]


def test_a_sample_sd_is_taken_as_it_is(compared: Callable[..., Comparison], recipe: str, tmp_path: Path) -> None:
    ours = tmp_path / "ours.yaml"
    ours.write_text(yaml.safe_dump(yaml.safe_load(Path(recipe).read_text()) | {"protocol": "ours"}))
    spread = 0.02  # three values whose sample SD is 2 points
    comparison = compared(
        published_table(published_row(1, str(ours))),
        scores={"cps": [0.5 - spread, 0.5, 0.5 + spread]},
        grid={"recipe": str(ours), "seeds": [0, 1, 2]},
        protocol="ours",
    )
    found = one(comparison).cells[0].difference
    assert found is not None
    assert found.half == pytest.approx(half_width((2.0, 2.0 * math.sqrt(1.5)), (3, 3)))


@pytest.mark.parametrize("spread", ["cases", "unsaid", "none"])
def test_another_spread_gives_the_difference_alone(
    spread: str, compared: Callable[..., Comparison], recipe: str
) -> None:
    row = published_row(1, recipe, spread=spread, repeats=None)
    comparison = compared(published_table(row), scores={"cps": [0.5, 0.6]})
    found = one(comparison).cells[0].difference
    assert found is not None and found.value == pytest.approx(-5.0) and not found.interval
    assert comparison.summary.intervals == 0 and "difference alone" in comparison.notes[0]


def test_one_seed_has_no_interval(compared: Callable[..., Comparison], recipe: str) -> None:
    comparison = compared(published_table(published_row(1, recipe)), scores={"cps": [0.5]}, grid={"seeds": [0]})
    found = one(comparison).cells[0].difference
    assert found is not None and not found.interval and not found.marked


# ------------------------------------------------------------------------------------------------------- pairing


def test_other_settings_stand_beside_each_other_without_a_difference(
    compared: Callable[..., Comparison], recipe: str
) -> None:
    changed = {"set": {"schedule.iterations": 1000}}
    comparison = compared(published_table(published_row(1, recipe)), scores={"cps": [0.5, 0.6]}, grid=changed)
    row = one(comparison)
    assert row.source is not None and row.cells[0].measured is not None and row.cells[0].difference is None
    assert [str(setting) for setting in row.settings] == ["schedule.iterations published 10, here 1 000"]
    assert status(row) == "other settings" and comparison.summary.compared == 0
    assert any("as settings differ: schedule.iterations published 10, here 1 000" in note for note in comparison.notes)


def test_options_are_part_of_a_rows_name(compared: Callable[..., Comparison], recipe: str) -> None:
    rows = [published_row(1, recipe, loss="ga"), published_row(2, recipe, "γ", loss="ga", set={"loss.gamma": 0.75})]
    jobs = {"jobs": [{"method": "cps", "loss": "ga[gamma=0.75]", "set": {"schedule.iterations": 20}}]}
    comparison = compared(published_table(*rows), scores={"cps": [0.5, 0.6]}, grid=jobs)
    assert one(comparison, "CPS").source is None and status(one(comparison, "CPS")) == "not in the grid"
    assert [setting.path for setting in one(comparison, "γ").settings] == ["schedule.iterations"]


def test_the_nearest_of_several_stands_beside(compared: Callable[..., Comparison], recipe: str) -> None:
    jobs = [
        {"method": "cps", "set": {"schedule.iterations": 20, "optimizer.lr": 0.1}},
        {"method": "cps", "set": {"schedule.iterations": 20}},
    ]
    comparison = compared(published_table(published_row(1, recipe)), scores={"cps": [0.5, 0.6]}, grid={"jobs": jobs})
    assert [setting.path for setting in one(comparison).settings] == ["schedule.iterations"]
    assert [group.title for group in comparison.groups] == ["", "Not in the paper"]


def test_one_measured_row_serves_several_published_ones(compared: Callable[..., Comparison], recipe: str) -> None:
    rows = published_row(1, recipe), published_row(2, recipe, "Org-Org", cell("50.00"))
    comparison = compared(published_table(*rows), scores={"cps": [0.5, 0.6]})
    assert [row.source is not None for row in comparison.rows] == [True, True]
    assert comparison.summary.compared == 2


def test_another_budget_is_not_compared(compared: Callable[..., Comparison], recipe: str) -> None:
    rows = published_row(1, recipe, labeled="7 patients"), published_row(2, recipe, "at 3")
    comparison = compared(published_table(*rows), scores={"cps": [0.5, 0.6]})
    assert [row.label for row in comparison.rows] == ["at 3"]  # a budget that the grid lacks is not shown
    assert any("Not shown: 1 row" in note for note in comparison.notes) and comparison.summary.rows == 2
    alone = compared(published_table(rows[0]), scores={"cps": [0.5, 0.6]})
    assert one(alone).cells[0].difference is None
    assert [str(setting) for setting in one(alone).settings] == ["labeled published 7 patients, here 3 patients"]


def test_nothing_in_common_is_refused_in_a_line(compared: Callable[..., Comparison], recipe: str) -> None:
    with pytest.raises(UsageError, match=r"ga:T1 has no row of these jobs \(CPS\)"):
        compared(published_table(published_row(1, recipe, method="dhc")), scores={"cps": [0.5, 0.6]})


def test_records_under_another_protocol_are_not_compared(
    write_run: Callable[..., Path], recipe: str, tmp_path: Path
) -> None:
    grid = Grid(name="mine", recipe=recipe, labeled=["3 patients"], seeds=[0], jobs=[{"method": "cps"}])
    job = grid.expand()[0]
    run = write_run(0.5, seed=0, recipe=recipe, digest=job.digest())
    text = (run / "cases.csv").read_text()
    (run / "cases-ours.csv").write_text(text.replace("papers,", "ours,").replace(",voxel,", ",mm,"))
    tables = grid_report(grid, [job], tmp_path / "results", "ours").tables
    known = against.backgrounds(tables, tmp_path / "results")
    comparison = compare(tables, published_table(published_row(1, recipe)), known)
    assert [str(setting) for setting in one(comparison).settings] == ["protocol published papers, here ours"]


def test_runs_on_part_of_the_data_are_not_compared(compared: Callable[..., Comparison], recipe: str) -> None:
    comparison = compared(
        published_table(published_row(1, recipe)), scores={"cps": [0.5, 0.6]}, data={"found": 12, "official": 100}
    )
    assert [str(setting) for setting in one(comparison).settings] == ["data published complete, here 12 of 100 cases"]


def test_runs_without_a_grid_know_their_settings(write_run: Callable[..., Path], recipe: str, tmp_path: Path) -> None:
    write_run(0.5, seed=0, recipe=recipe, digest="e" * 64)
    write_run(0.7, seed=0, recipe="other", method="mt")
    tables = records_report(tmp_path / "results").tables
    known = against.backgrounds(tables, tmp_path / "results")
    comparison = compare(tables, published_table(published_row(1, recipe)), known)
    assert len(tables) == 2 and len(comparison.tables) == 1  # the other has no row of the paper
    assert one(comparison).settings and one(comparison).cells[0].difference is None


# ----------------------------------------------------------------------------------------------------- odd rows


def test_a_misprint_stays_as_printed_and_out_of_the_summary(compared: Callable[..., Comparison], recipe: str) -> None:
    wrong = cell("60.00", "2.0", doubtful=True, note="class mean of this row is 44.46")
    rows = published_row(1, recipe, dsc=wrong), published_row(2, recipe, "MT", method="mt")
    comparison = compared(published_table(*rows), scores={"cps": [0.5, 0.6], "mt": [0.5, 0.7]})
    _, paper, difference = beside(comparison)[0].cells[0]
    assert (paper.text, difference.text, difference.style) == ("60.00±2.0?", "-5.00?", "grey")
    assert comparison.summary.compared == 1 and comparison.summary.median == pytest.approx(0.0)
    assert any("Avg. DSC of CPS: class mean of this row is 44.46" in note for note in comparison.notes)


def test_a_copied_row_is_grey_and_names_where_it_is_compared(compared: Callable[..., Comparison], recipe: str) -> None:
    row = published_row(1, recipe, dsc=cell("38.93", "0.9"), origin="dhc:T2")
    comparison = compared(published_table(row), scores={"cps": [0.5, 0.6]})
    here, paper, difference = beside(comparison)[0].cells[0]
    assert (here.text, paper.text, paper.style, difference.text) == ("55.00±5.0", "38.93±0.9", "grey", "dhc:T2")
    assert one(comparison).cells[0].difference is None and comparison.summary.compared == 0
    assert any("compared by dhc-t2" in note for note in comparison.notes)


def test_a_filled_cell_stands_in_brackets(compared: Callable[..., Comparison], recipe: str) -> None:
    filled = cell("0.0", filled=True, note="taken from a copy")
    row = published_row(1, recipe)
    row = replace(row, cells={**row.cells, ("dsc", "lv"): filled})
    comparison = compared(published_table(row), scores={"cps": [0.5, 0.6]})
    column = next(column for column in beside(comparison) if column.column.class_name == "lv")
    assert column.cells[0][1].text == "[0.0]" and "In square brackets: taken from a copy." in comparison.notes


def test_what_the_paper_lacks_is_blank_and_what_was_not_measured_is_not(
    compared: Callable[..., Comparison], recipe: str
) -> None:
    rows = (
        published_row(1, recipe),
        published_row(2, recipe, "DHC", method="dhc"),
        published_row(3, recipe, "MT", method="mt"),
    )
    comparison = compared(published_table(*rows), scores={"cps": [0.5, 0.6], "mt": []})
    dsc, asd = beside(comparison)[:2]
    assert [cells[0].text for cells in dsc.cells] == ["55.00±5.0", "", "--"]  # measured, not in the grid, not begun
    assert [cells[1].text for cells in asd.cells] == ["", "", ""] and asd.kinds == ("here", "paper")
    assert [status(row) for row in comparison.rows] == ["compared", "not in the grid", "not measured"]
    assert comparison.rows[2].full_label == "MT (0/2)"


@pytest.mark.parametrize("unit", ["mm", "unstated"])
def test_units_that_differ_shade_the_difference(unit: str, compared: Callable[..., Comparison], recipe: str) -> None:
    row = published_row(1, recipe)
    row = replace(row, cells={**row.cells, ("asd", "avg"): cell("4.00", "1.0", unit)})
    comparison = compared(published_table(row), scores={"cps": [0.5, 0.6]})
    asd = beside(comparison)[1]
    assert (asd.cells[0][2].text, asd.cells[0][2].style, asd.title) == ("+0.50‡", "grey", "Avg. ASD‡ ↓ (voxel)")
    assert any(f"ASD here voxel, in print {unit}" in note for note in comparison.notes)
    assert comparison.summary.intervals == 1  # that of DSC


def test_other_classes_leave_averages_without_a_difference(compared: Callable[..., Comparison], recipe: str) -> None:
    row = published_row(1, recipe)
    row = replace(row, cells={**row.cells, ("dsc", "lv"): cell("50.0"), ("dsc", "aorta"): cell("40.0")})
    comparison = compared(published_table(row), scores={"cps": [0.5, 0.6]})
    found = {column.class_name: cell for column, cell in zip(comparison.columns, one(comparison).cells, strict=True)}
    assert found["avg"].difference is None and found["lv"].difference is not None
    assert any("aorta in print alone; myo, rv here alone" in note for note in comparison.notes)


def test_a_row_without_a_job_shows_its_numbers_and_the_reason(compared: Callable[..., Comparison], recipe: str) -> None:
    rows = published_row(1, recipe), published_row(2, recipe, "DCA", method="dca", reason="its algorithm is not known")
    comparison = compared(published_table(*rows), scores={"cps": [0.5, 0.6]})
    row = comparison.rows[1]
    assert status(row) == "no job" and row.full_label == "DCA¹" and row.cells[0].published is not None
    assert comparison.footnotes == ("No job stands behind this row: its algorithm is not known.",)


def test_another_network_is_a_footnote_and_stars_stay_in_print(
    compared: Callable[..., Comparison], recipe: str
) -> None:
    row = published_row(1, recipe, network_published="vnet", flags=("starred:dsc",))
    comparison = compared(published_table(row), scores={"cps": [0.5, 0.6]})
    here, paper, difference = beside(comparison)[0].cells[0]
    assert (here.text, paper.text) == ("55.00±5.0", "60.00±2.0*") and "*" not in difference.text
    assert comparison.footnotes == ("Network net; the paper says vnet.",)
    assert any(note.startswith("* Starred in print") for note in comparison.notes)


def test_headings_are_the_papers_where_they_do_not_come_back(compared: Callable[..., Comparison], recipe: str) -> None:
    rows = [
        published_row(1, recipe, "MT", method="mt", heading="General"),
        published_row(2, recipe, heading="General"),
        published_row(3, recipe, "GA-CPS", loss="ga"),
    ]
    made = compared(published_table(*rows), scores={"cps": [0.5, 0.6]})
    assert [(group.title, len(group.rows)) for group in made.groups] == [("General", 2), ("", 1)]
    alternating = [rows[0], replace(rows[2], order=2), replace(rows[1], order=3)]
    made = compared(published_table(*alternating), scores={"cps": [0.5, 0.6]})
    assert [group.title for group in made.groups] == [""]


def test_full_supervision_that_stands_in_two_blocks_is_one_row(
    compared: Callable[..., Comparison], recipe: str
) -> None:
    full = published_row(2, recipe, "Full", method="supervised", labeled="100%")
    rows = published_row(1, recipe), full, replace(full, order=3, setting="10% labeled")
    comparison = compared(published_table(*rows), scores={"cps": [0.5, 0.6]})
    assert [row.label for row in comparison.rows] == ["CPS", "Full"] and comparison.summary.rows == 2


def test_the_rank_correlation_needs_no_common_settings(compared: Callable[..., Comparison], recipe: str) -> None:
    methods = {"cps": [0.5, 0.5], "mt": [0.6, 0.6], "dhc": [0.7, 0.7]}
    printed = {"cps": "40.00", "mt": "60.00", "dhc": "50.00"}
    rows = [published_row(n, recipe, name, cell(printed[name]), method=name) for n, name in enumerate(methods, 1)]
    comparison = compared(published_table(*rows), scores=methods, grid={"set": {"schedule.iterations": 1000}})
    (rank,) = comparison.summary.ranks
    assert (rank.rows, comparison.summary.compared) == (3, 0) and rank.tau == pytest.approx(1 / 3)
    assert str(comparison.summary).endswith("Rank correlation of rows (Kendall's τ-b, Avg. DSC): 0.33, 3 rows.")
