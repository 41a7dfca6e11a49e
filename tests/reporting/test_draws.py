"""Draws of labels in tables: one row, means and ± over draws, seeds averaged within each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from sslbench import load_results
from sslbench.config.grid import load_grid
from sslbench.core.errors import SSLBenchError
from sslbench.reporting.gains import CaseValues, Lens, gain
from sslbench.reporting.scores import over_seeds, per_run
from sslbench.reporting.statistics import average_of, two_way
from sslbench.reporting.tables import grid_report, records_report
from tests.helpers.run_directories import write_run_of_job

Write = Callable[..., Path]

# By draw and seed: DSC of all structures.
SCORES = {(1, 0): 0.5, (1, 1): 0.7, (2, 0): 0.4, (2, 1): 0.2, (3, 0): 0.9, (3, 1): 0.9}


def scores(level: float, cases: int = 6) -> dict[str, list[float]]:
    return {name: [level + 0.01 * case for case in range(cases)] for name in ("rv", "myo", "lv")}


def written(write_run: Write, folder: Path, recipe: str, more: float = 0.05, seeds: tuple[int, ...] = (0, 1)) -> Path:
    path = folder / "drawn.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "recipe": recipe,
                "labeled": {"patients": 3, "draws": 3},
                "seeds": list(seeds),
                "jobs": [{"method": ["supervised", "cps"]}],
                "table": {"columns": ["dsc", "gain"]},
            }
        )
    )
    for job in load_grid(str(path)).expand():
        draw = int(job.labeled[-1])
        level = SCORES[draw, job.seed] - 0.2 + (more * draw if job.method == "cps" else 0)
        write_run_of_job(write_run, job, scores(level))
    return path


def test_mean_and_spread_are_over_draws(write_run: Write, tmp_path: Path, recipe: str) -> None:
    path = written(write_run, tmp_path, recipe)
    records = load_results(tmp_path / "results")
    (row,) = (
        over_seeds(per_run(records[records["method"] == "supervised"]))
        .query("metric == 'dsc'")[lambda rows: rows["class"] == "avg"]
        .to_dict("records")
    )
    of_draws = np.array([0.6, 0.3, 0.9]) - 0.2 + 0.025
    assert row["mean"] == pytest.approx(of_draws.mean(), abs=1e-12)
    assert row["std"] == pytest.approx(of_draws.std(), abs=1e-12)  # the stand-in's ddof is 0
    assert row["n"] == 6
    grid = load_grid(str(path))
    (table,) = grid_report(grid, grid.expand(), tmp_path / "results").tables
    assert [row.label for row in table.rows] == ["Supervised", "CPS"]
    assert table.title.startswith("Hearts & more, draws of 3 patients labelled")
    assert "over 3 draws of the labelled cases (in each the mean over 2 seeds)" in table.title
    assert any("interval over draws × patients" in note for note in table.notes)
    assert table.rows[0].cells[0].mean == pytest.approx(100 * of_draws.mean())


def test_a_folder_of_results_is_reported_as_its_grid_is(write_run: Write, tmp_path: Path, recipe: str) -> None:
    path = written(write_run, tmp_path, recipe)
    grid = load_grid(str(path))
    (ours,) = grid_report(grid, grid.expand(), tmp_path / "results").tables
    (found,) = records_report(tmp_path / "results").tables
    cells = {row.label: row.cells[0] for row in found.rows}
    assert {label: (cell.mean, cell.std, cell.n) for label, cell in cells.items()} == {
        row.label: (row.cells[0].mean, row.cells[0].std, row.cells[0].n) for row in ours.rows
    }
    load_results(tmp_path / "results").to_csv(tmp_path / "cases.csv", index=False)
    (kept,) = records_report(tmp_path / "cases.csv").tables
    assert {row.label: row.cells[0].mean for row in kept.rows} == {row.label: row.cells[0].mean for row in found.rows}


def test_the_interval_is_that_of_draws(write_run: Write, tmp_path: Path, recipe: str) -> None:
    path = written(write_run, tmp_path, recipe)
    grid = load_grid(str(path))
    (table,) = grid_report(grid, grid.expand(), tmp_path / "results").tables
    (held,) = table.gains
    # Cases and seeds gain alike; draws gain 5, 10 and 15 points.
    expected = two_way(np.repeat([[5.0], [10.0], [15.0]], 6, axis=1))
    assert held.gain.average is not None
    assert (held.gain.seeds, held.gain.repeats) == (3, "draw")
    assert held.gain.average.low == pytest.approx(expected.low)
    assert held.gain.average.high == pytest.approx(expected.high)


def test_units_of_draws_average_to_the_table_where_seeds_lack_values(
    write_run: Write, tmp_path: Path, recipe: str
) -> None:
    generator = np.random.default_rng(3)
    frames = []
    for draw in (1, 2, 3):
        for seed in (0, 1):
            made = {name: [*map(float, generator.uniform(0.1, 1, 8))] for name in ("rv", "myo", "lv")}
            made["rv"][generator.integers(8)] = None  # type: ignore[call-overload]
            write_run(made, labeled=f"3-patients-draw-{draw}", seed=seed, recipe=recipe, digest=f"{draw}" * 64)
    records = load_results(tmp_path / "results")
    frames = over_seeds(per_run(records))
    for metric, direction, scale in (("dsc", "up", 100), ("asd", "down", -1)):
        found = CaseValues.of(records, metric, direction)  # type: ignore[arg-type]
        assert (found.seeds, found.values.shape) == ((1, 2, 3), (3, 8, 3))
        printed = frames[(frames["metric"] == metric) & (frames["class"] == "avg")]["mean"].item()
        assert found.by_unit(average_of()).mean() == pytest.approx(scale * printed, abs=1e-12)
        assert found.at([1, 3]).by_unit(average_of()).shape == (2, 8)


def test_one_seed_a_draw_is_no_other_statistics(write_run: Write, tmp_path: Path, recipe: str) -> None:
    path = written(write_run, tmp_path, recipe, seeds=(0,))
    grid = load_grid(str(path))
    (table,) = grid_report(grid, grid.expand(), tmp_path / "results").tables
    assert "over 3 draws of the labelled cases" in table.title
    assert "seeds" not in table.title


def test_draws_are_not_held_against_a_single_list() -> None:
    values = np.random.default_rng(0).normal(50, 1, (3, 8, 3))
    names = tuple(f"c{number}" for number in range(8))
    drawn, plain = (
        CaseValues((1, 2, 3), names, names, ("a", "b", "c"), values, drawn=drawn) for drawn in (True, False)
    )
    assert "draws of labels against a single list" in gain(drawn, plain, Lens({})).refused


def test_budgets_and_versions_are_not_mixed(write_run: Write, tmp_path: Path) -> None:
    for draw, digest in (("3-patients-draw-1", "a"), ("3-patients-draw-1", "b"), ("3-patients-draw-2", "c")):
        write_run(0.5, labeled=draw, seed=0, digest=digest * 64)
    records = load_results(tmp_path / "results")
    with pytest.raises(SSLBenchError, match="different digests"):
        over_seeds(per_run(records))
    (table,) = records_report(tmp_path / "results").tables
    assert len(table.rows) == 3  # nobody can tell which belongs to the second draw
    write_run(0.5, labeled="1-patient-draw-1", seed=0, digest="d" * 64)
    with pytest.raises(SSLBenchError, match="different label budgets"):
        over_seeds(per_run(load_results(tmp_path / "results")))
