"""Figures: their numbers are those of tables and gains, their drawings hold all text, the same bytes come twice."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the extra [figures] is not installed")

from sslbench.core.errors import UsageError
from sslbench.data.audit import AuditReport, ClassRow
from sslbench.reporting.figures import logs, style
from sslbench.reporting.figures.album import album, write_album
from sslbench.reporting.figures.budgets import BudgetPlate, CostPlate, OptionsPlate
from sslbench.reporting.figures.confusion import ConfusionPlate
from sslbench.reporting.figures.differences import GainsPlate, LensPlate, line_at
from sslbench.reporting.figures.plate import LeftOut, Plate, interval_text, listed, signed
from sslbench.reporting.figures.ranking import PairsPlate, RanksPlate
from sslbench.reporting.figures.scores import CasesPlate, ClassesPlate
from sslbench.reporting.figures.sizes import SizesPlate, draw_audit
from sslbench.reporting.figures.subject import FigureSubject, subjects_of
from sslbench.reporting.figures.training import (
    AgreementPlate,
    CurvesPlate,
    MinedPlate,
    RegionAccuracyPlate,
    RegionsPlate,
    WeightsPlate,
)
from sslbench.reporting.statistics import average_of, two_way
from sslbench.reporting.tables import records_report
from sslbench.runs.collect import collect
from sslbench.runs.confusion import write_confusion
from sslbench.runs.directory import Run
from tests.helpers.subjects import entry, example, recorded, subject

Write = Callable[..., Path]


def looks(one: FigureSubject) -> dict[str, style.Look]:
    return dict(style.looks_of([row.label for row in one.rows]))


def drawn(plate: Plate | LeftOut) -> Plate:
    assert isinstance(plate, Plate), plate
    return plate


# -------------------------------------------------------------------------------------------------------- differences


def test_gains_are_those_of_the_table() -> None:
    one = example()
    plate = GainsPlate.of(one, looks(one))
    assert isinstance(plate, GainsPlate)
    assert [(line.label, line.baseline) for line in plate.lines] == [("GA-M0", "M0"), ("GA-M1", "M1")]
    found, line = one.gains["GA-M0"], plate.lines[0]
    assert found.average and found.head and found.tail
    for span, interval in zip(line.spans, (found.average, found.head, found.tail), strict=True):
        assert span and (span.mean, span.low, span.high) == (interval.mean, interval.low, interval.high)
    assert (plate.head, plate.tail) == (("Li", "St"), ("Ga", "RAG"))
    assert line.tested and line.star and "*: p < 0.05" in plate.caption
    assert f"GA-M0 {signed(found.average.mean)}" in plate.alt and "2 of 2 tested" in plate.alt


def test_gains_without_test_are_hollow_and_without_baseline_left_out() -> None:
    one = example(seeds=2)
    plate = GainsPlate.of(one, looks(one))
    assert isinstance(plate, GainsPlate) and not plate.lines[0].tested
    assert "Hollow: not tested (two seeds can gain alike by chance; 2 of 2)." in plate.caption
    assert "None is tested." in plate.alt
    few = example(cases=4)
    short = GainsPlate.of(few, looks(few))
    assert isinstance(short, GainsPlate) and short.lines[0].spans[0] is not None
    assert math.isnan(short.lines[0].spans[0].low) and short.lines[0].spans[1] is None
    assert LensPlate.of(few) == LeftOut("lens", "fewer than 5 patients")
    alone = subject(one.rows)
    assert GainsPlate.of(alone, looks(alone)) == LeftOut("gains", "no row has its baseline in the table")
    other = entry("X", np.zeros((3, 9, 6)))
    odd = subject([*one.rows, other], {"X": "M0"})
    assert GainsPlate.of(odd, looks(odd)) == LeftOut("gains", "X: measured on other cases than its baseline")


def test_the_line_of_the_lens_is_least_squares_with_the_band_of_its_weights() -> None:
    one = example()
    plate = LensPlate.of(one)
    assert isinstance(plate, LensPlate)
    panel = plate.panels[0]
    assert [each.name for each in panel.classes] == ["Li", "St", "Sp", "Ao", "Ga", "RAG"]
    assert [each.part for each in panel.classes] == ["head", "head", "medium", "medium", "tail", "tail"]
    sizes = [each.size for each in panel.classes]
    fit = np.polyfit(np.log10(sizes), [each.span.mean for each in panel.classes], 1)
    assert panel.slope.mean == pytest.approx(fit[0])
    for size, mean, low, high in panel.line:
        assert mean == pytest.approx(np.polyval(fit, math.log10(size)))
        assert low < mean < high
    assert panel.slope.mean < 0 and "small structures gain more in 2" in plate.alt


def test_the_height_of_a_line_at_the_mean_is_the_average() -> None:
    x = np.log10([100.0, 1000.0, 50.0])
    defined = np.array([[True, True, True], [True, False, True]])
    whole = line_at(x, float(x.mean()))(defined[:1])
    np.testing.assert_allclose(whole, average_of()(defined[:1]))
    part = line_at(x, 2.0)(defined)[1]
    assert part[1] == 0 and part.sum() == pytest.approx(1)


# ------------------------------------------------------------------------------------------------------------ ranking


def test_pairs_and_ranks_hold_the_best_row_first() -> None:
    one = example()
    pairs, ranks = PairsPlate.of(one), RanksPlate.of(one)
    assert isinstance(pairs, PairsPlate) and isinstance(ranks, RanksPlate)
    assert pairs.labels == tuple(line.label for line in ranks.lines)
    assert pairs.labels[0] == "GA-M1" and [line.rank for line in ranks.lines] == [1, 2, 3, 4]
    scores = {row.label: row.scores for row in one.rows}
    for above, below, span in pairs.differences:
        expected = two_way(scores[pairs.labels[above]] - scores[pairs.labels[below]])
        assert (span.mean, span.low, span.high) == (expected.mean, expected.low, expected.high)
        assert span.mean >= 0
    apart = {below for above, below, span in pairs.differences if above == 0 and span.low > 0}
    assert {number for number, line in enumerate(ranks.lines) if line.apart} == apart
    assert sum(line.first for line in ranks.lines) == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"rows": 1}, "fewer than two rows were measured on the same cases"),
        ({"cases": 4}, "fewer than 5 patients"),
        ({"direction": ""}, "which way of DSC is better is not known"),
    ],
)
def test_rows_that_cannot_be_ranked(change: dict[str, int], why: str) -> None:
    assert RanksPlate.of(example(**change)) == LeftOut("ranks", why)
    assert PairsPlate.of(example(**change)) == LeftOut("pairs", why)


def test_upper_bounds_and_rows_on_other_cases_are_not_ranked() -> None:
    one = example()
    bound = entry("Full", one.rows[0].values.values + 30, bound=True)
    other = entry("X", np.full((3, 9, 6), 99.0))
    ranks = RanksPlate.of(subject([*one.rows, bound, other]))
    assert isinstance(ranks, RanksPlate) and {"Full", "X"}.isdisjoint(line.label for line in ranks.lines)


# ------------------------------------------------------------------------------------------------------------- scores


def test_means_are_those_that_tables_print(write_run: Write, tmp_path: Path) -> None:
    write_run({"rv": [0.8, None, 0.3], "myo": [0.0, 0.5, 0.1], "lv": [0.2, 0.4, None]}, seed=4)
    write_run({"rv": [0.4, None, 0.2], "myo": [0.5, 0.5, 0.9], "lv": [0.6, 0.6, None]}, seed=1)
    write_run({"rv": [0.5] * 3, "myo": [0.5] * 3, "lv": [0.5] * 3}, seed=1, method="mt")
    results = tmp_path / "results"
    made = records_report(results).tables
    (one,) = subjects_of(made, collect(results))
    assert (one.name, one.metric, one.unit, one.falls) == (made[0].name, "DSC", "%", False)
    assert [row.label for row in one.rows] == [row.label for row in made[0].rows]
    plate = ClassesPlate.of(one)
    assert isinstance(plate, ClassesPlate)
    columns = {column.class_name: place for place, column in enumerate(made[0].columns) if column.metric == "dsc"}
    for row, (label, average, means) in zip(made[0].rows, plate.rows, strict=True):
        assert label == row.label and average == pytest.approx(row.cells[columns["avg"]].mean, abs=1e-12)
        for name, mean in zip(one.by_size, means, strict=True):
            assert mean == pytest.approx(row.cells[columns[name]].mean, abs=1e-12)
    cases = CasesPlate.of(one, looks(one))
    assert isinstance(cases, CasesPlate) and cases.lines[0].seeds == (1, 4)
    assert cases.lines[0].mean == pytest.approx(made[0].rows[0].cells[columns["avg"]].mean)
    assert cases.lines[0].values[0] == pytest.approx((50, 55, 55))  # seed 1: what a case lacks is left out
    assert [run.job["seed"] for run in one.rows[0].runs] == [1, 4]


def test_distances_are_shown_as_they_are() -> None:
    one = example()
    rows = [entry(row.label, -row.values.values) for row in one.rows]
    falling = subject(rows, one.baselines, metric="ASD", unit="mm", direction="down")
    plate = ClassesPlate.of(falling)
    assert isinstance(plate, ClassesPlate) and plate.falls and min(plate.rows[0][2]) > 0
    assert falling.points == "mm of ASD" and "lower is better" in plate.caption


def test_violins_from_thirty_cases_on() -> None:
    few, many = example(rows=1), example(rows=1, cases=30)
    assert [CasesPlate.of(one, looks(one)).violins for one in (few, many)] == [False, True]  # type: ignore[union-attr]


def test_sizes_of_a_table_and_of_an_audit(tmp_path: Path) -> None:
    plate = SizesPlate.of(example())
    assert isinstance(plate, SizesPlate) and plate.classes == ("Li", "St", "Sp", "Ao", "Ga", "RAG")
    assert "from 170 000 (Li) to 450 (RAG)" in plate.alt
    rows = tuple(
        ClassRow(label, name, name, 1, share, patch, None, 1)
        for label, name, share, patch in ((0, "background", 0.9, 0.8), (1, "small", 0.02, 0.0), (2, "large", 0.08, 0.2))
    )
    report = AuditReport("hearts", "plain", tmp_path, 3, 4, (), rows, (), "short", (8, 8), 6)
    found = SizesPlate.of_audit(report)
    assert isinstance(found, SizesPlate) and found.classes == ("background", "large", "small")
    assert [values for _, values in found.series] == [(0.9, 0.08, 0.02), (0.8, 0.2, 0.0)]
    assert "3 of 4 cases; random patches of 8 × 8" in found.about
    draw_audit(report, tmp_path / "shares.svg")
    assert "none" in (tmp_path / "shares.svg").read_text()
    with pytest.raises(UsageError, match="no label could be read"):
        draw_audit(replace(report, classes=()), tmp_path / "x.svg")
    with pytest.raises(UsageError, match=r"shares.docx has not the ending of a figure \(known: .*png"):
        style.check_ending(Path("shares.docx"))


# ---------------------------------------------------------------------------------------------------------- confusion


def confused(folder: Path, seed: int, lost: int) -> Run:
    run = recorded(folder, seed, [])
    pairs = np.zeros((7, 7), dtype=np.int64)
    pairs[0, 0] = 1000
    for k in range(1, 7):
        pairs[k, k] = 100
    pairs[6, 6], pairs[0, 6], pairs[5, 6] = 100 - lost, lost - 5, 5
    write_confusion(run.own.confusion, [("a", pairs), ("b", pairs)], ("li", "sp", "st", "ao", "ga", "rag"))
    return run


def test_the_confusion_is_of_the_best_row_and_its_baseline(tmp_path: Path) -> None:
    one = example()
    assert ConfusionPlate.of(one) == LeftOut("confusion", "no row's tests recorded what classes were taken for")
    lost = {"M0": 90, "GA-M0": 40, "M1": 60, "GA-M1": 20}
    rows = [
        replace(row, runs=tuple(confused(tmp_path / row.label / str(s), s, lost[row.label] + 10 * s) for s in (0, 1)))
        for row in one.rows
    ]
    one = replace(one, rows=tuple(rows))
    plate = ConfusionPlate.of(one)
    assert isinstance(plate, ConfusionPlate)
    assert [panel.label for panel in plate.panels] == ["GA-M1", "M1"]
    best, base = plate.panels
    assert best.share("rag", "rag") == pytest.approx(0.75) and base.share("rag", "background") == pytest.approx(0.60)
    assert best.share("rag", "ga") == pytest.approx(0.05) and best.share("li", "li") == 1
    assert plate.alt == "GA-M1: most often RAG is taken for background, 20% of its voxels."
    assert plate.classes[-1] == "rag" and "2 seeds" in plate.caption
    voxels = {(r["row"], r["reference"], r["predicted"]): r["voxels"] for r in plate.records()}
    assert voxels["GA-M1", "rag", "rag"] == 2 * (80 + 70)
    svg = style.svg_text(plate.draw(), "confusion", plate.title, plate.alt)
    assert ">GA-M1<" in svg and ">75<" in svg
    (rows[3].runs[0].own.confusion).write_text("nonsense")
    assert ConfusionPlate.of(one) == LeftOut("confusion", "a confusion.csv has another header than a confusion")


# ------------------------------------------------------------------------------------------------------ cost and labels


def test_budgets_join_rows_of_one_name() -> None:
    small, large = (example(rows=2) for _ in range(2))
    rows = [replace(row, cases=2, budget="10%") for row in small.rows]
    more = [replace(row, cases=4, budget="20%") for row in large.rows]
    bound = entry("Full (100%)", small.rows[0].values.values, bound=True)
    plate = BudgetPlate.of([subject([*rows, bound]), subject([*more, bound])], looks(subject([*rows, bound])))
    assert isinstance(plate, BudgetPlate) and [label for label, _ in plate.bounds] == ["Full (100%)"]
    (label, _, points), _ = plate.lines
    assert (label, [point.cases for point in points]) == ("M0", [2, 4])
    assert points[0].values == pytest.approx(small.rows[0].scores.mean(axis=1))
    assert BudgetPlate.of([subject(rows)], looks(small)) == LeftOut("budget", "no row has results at two label budgets")


def test_hours_are_compared_on_one_device_alone(tmp_path: Path) -> None:
    one = example(rows=2, seeds=1)
    hours = [{"training_seconds": 3600.0 * number, "test_seconds": 1800.0} for number in (1, 2)]
    runs = [recorded(tmp_path / str(number), 0, [], **took) for number, took in enumerate(hours)]
    rows = [replace(row, runs=(run,)) for row, run in zip(one.rows, runs, strict=True)]
    for run in runs:
        run.provenance.write_text(json.dumps({"device": "H100"}))
    plate = CostPlate.of(subject(rows), looks(one))
    assert isinstance(plate, CostPlate) and [point.hours for point in plate.points] == [(1.5,), (2.5,)]
    assert plate.points[0].values == pytest.approx((one.rows[0].mean,)) and "on H100" in plate.alt
    runs[1].provenance.write_text(json.dumps({"device": "A100"}))
    left = CostPlate.of(subject(rows), looks(one))
    assert isinstance(left, LeftOut) and left.why.endswith("cannot be compared: A100 and H100")
    assert CostPlate.of(one, looks(one)) == LeftOut("cost", "no run recorded its seconds")


def test_two_options_that_vary_together() -> None:
    draw = np.random.default_rng(1).normal(50, 1, (4, 3, 6, 6))
    pairs = [("0.2", "0.3"), ("0.2", "0.6"), ("0.4", "0.3"), ("0.4", "0.6")]
    settings = [{"loss.a": one, "loss.b": other, "x": "y"} for one, other in pairs]
    made = [
        entry(f"R{number}", values, family=("r", "b", "cps", "ga", ""), settings=own)
        for number, (values, own) in enumerate(zip(draw, settings, strict=True))
    ]
    plate = OptionsPlate.of(subject(made))
    assert isinstance(plate, OptionsPlate) and (plate.down, plate.across) == ("loss.a", "loss.b")
    assert plate.cells[1] == (0.2, 0.6, pytest.approx(draw[1].mean()))
    assert plate.best[2] == max(cell[2] for cell in plate.cells)
    assert isinstance(OptionsPlate.of(subject(made[:3])), LeftOut)


# ----------------------------------------------------------------------------------------------------------- training


def test_validation_of_the_predictor_that_was_tested(tmp_path: Path) -> None:
    lines = [
        {"iteration": 10, "loss": 1.0},
        {"iteration": 10, "validation": {"dsc/a": 0.1, "dsc/a/class": {"lv": 0.2}, "dsc/b": 0.5}},
        {"iteration": 20, "validation": {"dsc/a": 0.3, "dsc/b": 0.6, "dsc/b/class": {"lv": None}}},
        {"iteration": 20, "validation": {"dsc/a": 0.4, "dsc/b": 0.7}},  # the run went on after a stop
    ]
    run = recorded(tmp_path / "a", 0, lines, predictor="b")
    with run.metrics.open("a") as stream:
        stream.write('{"iteration": 30, "validation": {"dsc/b": 0.')  # cut short by a kill
    assert logs.validation(run)["avg"] == pytest.approx({10: 50, 20: 70})
    first = recorded(tmp_path / "b", 0, lines)
    assert logs.validation(first) == {"avg": pytest.approx({10: 10, 20: 40}), "lv": pytest.approx({10: 20})}
    assert logs.validation(recorded(tmp_path / "c", 0, [])) == {}


def test_traces_are_over_what_all_seeds_have() -> None:
    trace = logs.Trace.over([{1: 2.0, 2: 4.0}, {2: 8.0, 3: 1.0}, {}])
    assert trace == logs.Trace((2,), (6.0,), (4.0,), (8.0,), 2)
    assert logs.Trace.over([{1: 1.0}, {2: 1.0}]) is None
    long = logs.Trace(*(tuple(range(101)),) * 4, seeds=1).thinned(5)  # type: ignore[arg-type]
    assert long.iterations == long.mean == (0, 25, 50, 75, 100)


def observed(at: int, case: str, share: float) -> dict[str, object]:
    regions = {"share": {"UC": share, "DS": 1 - share}, "accuracy": {"UC": 0.9, "DS": None}, "reference": "b"}
    agreement = {"a/b": {"voxels": 0.9, "dsc": share, "dsc/class": {"li": share}}}
    return {"iteration": at, "observed": {"case": case, "regions": {"a": regions}, "agreement": agreement}}


def test_what_the_papers_draw_is_read_from_records(tmp_path: Path) -> None:
    counts = {"background": 70.0, "li": 30.0, "rag": 0.0}
    lines = [
        {
            "iteration": 100,
            "mined/a/label": counts,
            "mined/b/label": counts,
            "weight/a": {"background": 0.1, "li": 2.0},
        },
        *(observed(100, case, share) for case, share in (("x", 0.6), ("y", 0.8))),
        {"iteration": 100, "region/a/pseudo/UC": 0.25},
    ]
    one = example(rows=2)
    row = replace(one.rows[0], runs=(recorded(tmp_path / "a", 0, lines), recorded(tmp_path / "b", 1, lines)))
    found = replace(one, rows=(row, one.rows[1]))
    mined, weights = MinedPlate.of(found, looks(found)), WeightsPlate.of(found, looks(found))
    assert isinstance(mined, MinedPlate) and isinstance(weights, WeightsPlate)
    assert [panel.title for panel in mined.panels] == ["M0, labels (a)"]
    assert [(line.label, line.trace.mean) for line in mined.panels[0].lines] == [("background", (70,)), ("Li", (30,))]
    assert [line.trace.mean for line in weights.panels[0].lines] == [(0.1,), (2.0,)]
    regions, accuracy = RegionsPlate.of(found, looks(found)), RegionAccuracyPlate.of(found, looks(found))
    assert isinstance(regions, RegionsPlate) and isinstance(accuracy, RegionAccuracyPlate)
    assert {line.label: line.trace.mean[0] for line in regions.panels[0].lines} == pytest.approx({"UC": 70, "DS": 30})
    assert [line.label for line in accuracy.panels[0].lines] == ["UC"]
    agreement = AgreementPlate.of(found, looks(found))
    assert isinstance(agreement, AgreementPlate) and [panel.title for panel in agreement.panels] == ["Average", "Li"]
    assert agreement.panels[0].lines[0].trace == logs.Trace((100,), *((pytest.approx(70.0),),) * 3, seeds=2)  # type: ignore[arg-type]
    trained = [recorded(tmp_path / "c", 0, lines[-1:])]
    other = RegionsPlate.of(replace(one, rows=(replace(row, runs=tuple(trained)),)), looks(one))
    assert isinstance(other, RegionsPlate) and other.panels[0].lines[0].trace.mean == (25,)
    for kind in (CurvesPlate, MinedPlate, WeightsPlate, RegionsPlate, RegionAccuracyPlate, AgreementPlate):
        assert isinstance(kind.of(one, looks(one)), LeftOut)


# -------------------------------------------------------------------------------------------------------------- style


def test_words() -> None:
    assert [signed(value) for value in (7.84, -0.44, 0.04, -0.04)] == ["+7.8", "−0.4", "0.0", "0.0"]
    assert interval_text(-11.83, 43.9) == "−11.8 to 43.9"
    assert listed(["a"]) == "a" and listed(list("abcd")) == "a, b, c and d" and listed(list("abcde")).endswith("2 more")


def test_texts_are_fitted_into_their_room() -> None:
    name = "GA-MagicNet − MagicNet"
    assert style.fitted(name, 100) == name
    assert style.fitted(name, 26) == "GA-MagicNet −\nMagicNet"
    assert style.fitted(name, 12, lines=1).endswith("…") and style.text_width(style.fitted(name, 12, lines=1)) <= 12
    same = style.shortened(["method (iterations=2)", "method (iterations=4)", "b"], 20)
    assert len(set(same)) == 3 and all(style.text_width(text) <= 20 for text in same)


def test_labels_are_spread_without_passing_each_other() -> None:
    assert style.spread([0.2, 0.9, 0.5], 0.1, 0, 1) == pytest.approx([0.2, 0.9, 0.5])
    assert style.spread([0.5, 0.52, 0.5], 0.1, 0, 1) == pytest.approx([0.4067, 0.6067, 0.5067], abs=1e-3)
    assert style.spread([0.0, 0.0], 0.1, 0, 1) == pytest.approx([0.0, 0.1])
    assert style.spread([1.0, 1.0, 1.0], 0.9, 0, 1) == pytest.approx([0, 0.5, 1])


def test_a_row_has_one_look_and_many_rows_are_grey() -> None:
    few = style.looks_of(list("abcdefgh"))
    assert len({look.colour for look in few.values()}) == len({look.marker for look in few.values()}) == 8
    assert set(style.looks_of(list("abcdefghi")).values()) == {style.Look(style.GREY, "o")}


def test_a_missing_matplotlib_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"figures need matplotlib.*pip install 'sslbench\[figures\]'"):
        style.check_ending(Path("shares.png"))


# ------------------------------------------------------------------------------------------------------------ drawing


def plates(one: FigureSubject) -> list[Plate]:
    leaves = album([one], Path("nowhere"))
    return [leaf.plate for leaf in leaves if isinstance(leaf.plate, Plate)]


def test_every_text_lies_on_its_sheet() -> None:
    """The names of nine rows are long, so that all are grey and some are cut."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    one = example(rows=10)
    names = {
        row.label: f"{row.label} (schedule.iterations=200, loss.k_pseudo={place})" for place, row in enumerate(one.rows)
    }
    rows = [replace(row, label=names[row.label]) for row in one.rows]
    long = subject(rows, {names[row]: names[base] for row, base in one.baselines.items()})
    checked = 0
    for plate in plates(long):
        with style.styled():
            figure = plate.draw()
            figure.set_dpi(100)
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            renderer = canvas.get_renderer()
        width, height = figure.get_size_inches() * 100
        for text in figure.findobj(lambda artist: hasattr(artist, "get_text")):
            if text.get_visible() and text.get_text().strip() and text.get_window_extent(renderer).width:  # type: ignore[attr-defined]
                box = text.get_window_extent(renderer)
                inside = box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1
                hidden = text.axes is not None and not text.axes.get_visible()  # type: ignore[attr-defined]
                assert inside or hidden, (plate.name, text.get_text(), box)  # type: ignore[attr-defined]
                checked += 1
    assert checked > 150


def test_an_album_has_pdf_svg_and_csv_with_words(tmp_path: Path) -> None:
    one = example()
    leaves = [leaf for leaf in album([one], tmp_path) if leaf.plate.name in ("gains", "ranks", "curves")]
    written = write_album(leaves, tmp_path / "out")
    names = sorted(path.name for path in written)
    assert names == ["figures.json", *(f"{name}.{end}" for name in ("gains", "ranks") for end in ("csv", "pdf", "svg"))]
    listed_ = {entry["name"]: entry for entry in json.loads((tmp_path / "out" / "figures.json").read_text())}
    assert listed_["curves"]["left_out"] == "no run recorded a validation"
    assert listed_["gains"]["files"] == ["gains.pdf", "gains.svg", "gains.csv"] and listed_["gains"]["alt"]
    text = (tmp_path / "out" / "gains.svg").read_text()
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)) and all(name.startswith("t-gains-") for name in ids)
    assert set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', text)) <= set(ids)
    assert not re.search(r"https?://(?!www\.w3\.org/)", text) and "<metadata>" not in text
    assert listed_["gains"]["alt"].split(":")[0] in text and "GA-M0" in text  # text stays text
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "gains.csv").read_text())))
    found = one.gains["GA-M0"].average
    assert found and float(rows[0]["gain"]) == found.mean and rows[0]["part"] == "all" and rows[0]["star"] == "true"
    assert (
        b"/Type0" in (tmp_path / "out" / "gains.pdf").read_bytes()
        or b"TrueType" in (tmp_path / "out" / "gains.pdf").read_bytes()
    )


def test_tables_side_by_side_have_folders_of_their_own(tmp_path: Path) -> None:
    leaves = album([example(name="a"), example(name="b")], tmp_path)
    some = [leaf for leaf in leaves if leaf.plate.name == "sizes"]
    write_album(some, tmp_path)
    assert (tmp_path / "a" / "sizes.pdf").exists() and (tmp_path / "b" / "sizes.svg").exists()
    assert len({leaf.key for leaf in leaves}) == len(leaves)


_DRAW = """
import sys
from pathlib import Path
from sslbench.reporting.figures.album import album, write_album
from tests.helpers.subjects import example
leaves = album([example()], Path("x"))
write_album([leaf for leaf in leaves if leaf.plate.name in ("gains", "pairs")], Path(sys.argv[1]))
"""


def test_two_processes_write_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one has other hashes and another time; here figures were drawn before."""
    root = Path(__file__).parents[2]
    other = {**os.environ, "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "0", "MPLBACKEND": "svg"}
    subprocess.run([sys.executable, "-c", _DRAW, str(tmp_path / "a")], check=True, cwd=root, env=other)
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "b")])
    exec(_DRAW, {})
    sums = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((tmp_path / name).rglob("*.*"))}
        for name in "ab"
    ]
    assert sums[0] == sums[1] and len(sums[0]) == 7


# ------------------------------------------------------------------------------------------------------------ the guide

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "figures.md").read_text(encoding="utf-8")


def test_the_guide_names_every_figure() -> None:
    names = set(re.findall(r"^\| `([\w-]+)` \|", GUIDE, re.MULTILINE)) | {"overlay"}
    assert names == {leaf.plate.name for leaf in album([example()], Path("nowhere"))}
    assert "`overlay` shows" in GUIDE


def test_the_guides_commands_are_accepted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from sslbench import cli

    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^sslbench (.*)$", GUIDE, re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        monkeypatch.setattr(sys, "argv", ["sslbench", *command.split(), "--help"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code, capsys.readouterr().err


def test_the_guides_python_runs(write_run: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        for method, more in (("supervised", 0.0), ("mt", 0.1)):
            scores = {
                name: [0.5 + more + 0.01 * (seed * case % 3) for case in range(6)] for name in ("rv", "myo", "lv")
            }
            write_run(scores, method=method, seed=seed)
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    assert code
    found: dict[str, object] = {"folder": tmp_path / "figures"}
    exec(code[1].replace('data_dir="data"', "data_dir=folder"), found)
    assert found["gains"].lines[0].label == "MT"  # type: ignore[attr-defined]
    assert (tmp_path / "figures" / "gains.pdf").exists()


def test_report_draws_figures_and_says_what_is_left_out(
    write_run: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sslbench import cli

    write_run(0.5, seed=0)
    line = ["report", "--figures", "--results-dir", str(tmp_path / "results"), "--data-dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["sslbench", *line])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    assert not ended.value.code, told.err
    assert "left out ranks, pairs: fewer than two rows" in told.err + told.out
    folder = tmp_path / "results" / "reports" / "runs" / "figures"
    assert {path.name for path in folder.glob("*.pdf")} == {"classes.pdf", "cases.pdf", "sizes.pdf"}
    monkeypatch.setattr(sys, "argv", ["sslbench", *line, "--latex"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2 and "do not go together" in capsys.readouterr().err
