"""What a table says of how its rows stand: rings, shares of the gap, head and tail, time, a baseline by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslbench import load_results
from sslbench.cli.listing import numbers
from sslbench.config.grid import Grid
from sslbench.core.errors import UnknownNameError
from sslbench.reporting.latex import latex
from sslbench.reporting.model import Row, Table
from sslbench.reporting.render import markdown, tidy_csv
from sslbench.reporting.scores import per_run
from sslbench.reporting.tables import grid_report, records_report
from tests.helpers.results import CLASSES
from tests.helpers.run_directories import write_run_of_job

Write = Callable[..., Path]

LEVELS = {"supervised+default": 0.30, "cps+default": 0.40, "cps+ga": 0.60, "mt+default": 0.41, "mt+ga": 0.602}


def row(table: Table, label: str) -> Row:
    return next(row for row in table.rows if row.label == label)


def grid(recipe: str, table: dict[str, Any], seeds: tuple[int, ...] = (0, 1, 2)) -> Grid:
    return Grid(
        name="g",
        recipe=[recipe],
        labeled=["5%"],
        seeds=list(seeds),
        jobs=[
            {"method": "supervised"},
            {"method": ["cps", "mt"], "loss": ["default", "ga"]},
            {"method": "supervised", "labeled": "100%"},
        ],
        table=table,
    )


@pytest.fixture
def made(recipe: str, write_run: Write, tmp_path: Path) -> Callable[..., Table]:
    """The table of results with known levels; of a larger class more is found."""

    def make(
        table: dict[str, Any], levels: dict[str, float] = LEVELS, seeds: tuple[int, ...] = (0, 1, 2), cases: int = 6
    ) -> Table:
        wanted = grid(recipe, table, seeds)
        draw = np.random.default_rng(0)
        base = draw.normal(0, 0.05, (cases, 3))
        for job in wanted.expand():
            level = 0.9 if job.labeled != "3-patients" else levels[f"{job.method}+{job.loss}"]
            values = level + base + np.array([0.05, 0, -0.05]) + draw.normal(0, 0.004, (cases, 3))
            values = np.where(level, np.clip(values, 0.001, 0.99), 0.0)
            run = write_run_of_job(write_run, job, dict(zip(CLASSES, values.T.tolist(), strict=True)))
            status = {"state": "finished", "training_seconds": 3600.0 * (1 + job.seed), "test_seconds": 1800.0}
            (run / "status.json").write_text(json.dumps(status))
            told = json.loads((run / "provenance.json").read_text())
            (run / "provenance.json").write_text(json.dumps({**told, "device": "a card"}))
        (found,) = grid_report(wanted, wanted.expand(), tmp_path / "results").tables
        return found

    return make


def rings(table: Table) -> set[str]:
    return {each.label for each in table.rows if each.cells[0].together}


def test_a_ring_marks_rows_that_are_not_told_apart_from_the_best(made: Callable[..., Table]) -> None:
    table = made({"columns": ["dsc", "dsc/class"]})
    best, near = ("GA-MT", "GA-CPS") if row(table, "GA-MT").cells[0].best else ("GA-CPS", "GA-MT")
    assert rings(table) == {near} and not any(cell.together for each in table.rows for cell in each.cells[1:])
    note = f"° Not told apart from the best, {best} (95 % intervals of the differences over seeds × patients)."
    assert note in table.notes
    assert f"{row(table, near).cells[0].mean:.2f}" in markdown(table)
    assert "°" in markdown(table) and r"$^{\circ}$" in latex(table)
    (standing,) = table.standing
    assert standing.among.best == best and standing.among.together == [near]
    assert "Supervised (100%)" not in standing.among.rows


def test_where_nothing_is_told_apart_a_line_says_so(made: Callable[..., Table]) -> None:
    table = made({"columns": ["dsc"]}, dict.fromkeys(LEVELS, 0.5))
    assert not rings(table)
    (note,) = [note for note in table.notes if "told apart" in note]
    assert note.startswith("No other row is told apart from the best, ")


def test_a_best_that_stands_alone_is_said_to(made: Callable[..., Table]) -> None:
    table = made({"columns": ["dsc"]}, {**LEVELS, "mt+ga": 0.8})
    assert not rings(table)
    assert any(note.startswith("The best, GA-MT, is told apart from every other row") for note in table.notes)


def test_one_seed_and_few_patients(made: Callable[..., Table]) -> None:
    one = made({"columns": ["dsc"]}, seeds=(0,))
    assert any("over patients: these networks, new patients)" in note and "best" in note for note in one.notes)
    few = made({"columns": ["dsc"], "gain": False}, seeds=(5,), cases=3)
    assert few.standing[0].among.refused == "fewer than 5 patients" and not rings(few)
    assert "Not told how sure the best is: fewer than 5 patients." in few.notes


def test_short_notes_explain_every_mark(made: Callable[..., Table]) -> None:
    table = made({"columns": ["dsc"], "notes": "short"})
    (note,) = table.notes
    for part in ("° Not told apart", "Best in bold", "Gain: over", "* p < 0.05", "This grid resolves"):
        assert part in note
    assert "rows close" not in note


# --------------------------------------------------------------------------------------------------- share of the gap


def test_shares_of_the_gap_stand_in_one_line(made: Callable[..., Table]) -> None:
    table = made({"columns": ["dsc"]})
    (standing,) = table.standing
    assert standing.ends == ("Supervised", "Supervised (100%)")
    low, high = (row(table, label).cells[0].mean for label in standing.ends)
    assert standing.gap == pytest.approx(high - low, abs=1e-9)
    shares = {label: share for label, share in standing.shares.items() if not isinstance(share, str)}
    assert sorted(shares) == ["CPS", "GA-CPS", "GA-MT", "MT"]
    for label, share in shares.items():
        assert share.share == pytest.approx((row(table, label).cells[0].mean - low) / (high - low), abs=1e-9)
        assert share.low < share.share < share.high
    (note,) = [note for note in table.notes if "rows close" in note]
    assert note.startswith(f"Of the {high - low:.1f} points from Supervised to Supervised (100%) rows close: GA-")
    assert note.endswith("; 1 other row in the JSON.")


def test_a_gap_that_is_none_is_refused_in_a_line(made: Callable[..., Table]) -> None:
    table = made({"columns": ["dsc"]}, {**LEVELS, "supervised+default": 0.9})
    (note,) = [note for note in table.notes if note.startswith("Of the ")]
    assert "no share is told: the gap" in note


# ---------------------------------------------------------------------------------------------- columns of its own kind


def test_columns_of_head_tail_and_time(made: Callable[..., Table], tmp_path: Path) -> None:
    lens = {"head": ["rv"], "tail": ["MYO", "lv"]}
    table = made({"columns": ["dsc", "dsc/head,tail", "asd", "hours"], "gain": False, "lens": lens})
    assert [column.header for column in table.columns] == ["Avg. DSC", "Head DSC", "Tail DSC", "Avg. ASD", "Time"]
    scores = per_run(load_results(tmp_path / "results"))
    own = scores[(scores["method"] == "cps") & (scores["loss"] == "ga") & (scores["metric"] == "dsc")]
    by_seed = 100 * own.pivot(index="seed", columns="class", values="value")
    cells = row(table, "GA-CPS").cells
    head, tail = by_seed["rv"], by_seed[["myo", "lv"]].mean(axis=1)
    assert (cells[1].mean, cells[1].std) == (pytest.approx(head.mean()), pytest.approx(head.std(ddof=0)))
    assert (cells[2].mean, cells[2].std) == (pytest.approx(tail.mean()), pytest.approx(tail.std(ddof=0)))
    assert cells[4].mean == pytest.approx(2.5) and not any(each.cells[4].rank for each in table.rows)
    assert "Head: RV; tail: MYO, LV (as the grid says)." in table.notes
    assert "Time: hours of a run, training and test, on a card." in table.notes
    assert table.standing[0].lens.head == ("rv",) and table.standing[0].lens.tail == ("myo", "lv")
    assert any(",tail,dsc," in line for line in tidy_csv([table]).splitlines())


def test_lost_classes_and_the_worst_one(made: Callable[..., Table]) -> None:
    table = made({"columns": ["dsc"], "gain": False}, {**LEVELS, "cps+default": 0.0})
    assert "Collapsed (DSC below 1 %), of 9 classes × seeds: CPS 9 (RV, MYO, LV)." in table.notes
    assert table.standing[0].collapses["CPS"].count == 9


def test_the_worst_class_where_no_column_shows_classes(made: Callable[..., Table]) -> None:
    table = made({"columns": ["dsc"], "gain": False})
    (note,) = [note for note in table.notes if note.startswith("Worst class")]
    lowest = row(table, "Supervised")
    assert note.startswith("Worst class by DSC: ") and note.endswith(f" % ({lowest.label}).")


# ------------------------------------------------------------------------------------------------- a baseline by name


def test_rows_are_held_against_a_baseline_by_name(made: Callable[..., Table], tmp_path: Path) -> None:
    table = made({"columns": ["dsc"], "baseline": "cps+ga"})
    assert {(held.row, held.baseline) for held in table.gains} == {
        (label, "GA-CPS") for label in ("Supervised", "CPS", "MT", "GA-MT")
    }
    assert any(note.startswith("Gain: over GA-CPS.") for note in table.notes)
    (of_folder, *_) = records_report(tmp_path / "results", baseline="cps").tables
    assert {held.baseline for held in of_folder.gains} == {"CPS"}
    with pytest.raises(UnknownNameError, match=r"unknown baseline 'dhc\+default'"):
        records_report(tmp_path / "results", baseline="dhc")


def test_json_has_how_rows_stand(made: Callable[..., Table]) -> None:
    (told,) = numbers([made({"columns": ["dsc"]})])
    (standing,) = told["standing"]
    rows = {each["row"]: each for each in standing["rows"]}
    assert standing["gap"]["from"] == "Supervised" and rows["CPS"]["told_apart_from_best"]
    assert 0 < rows["CPS"]["share_of_gap"]["share"] < 1 and rows["CPS"]["worst"]["class"] == "lv"
    json.dumps(told, allow_nan=False)
