"""Grids and published tables cover each other: what joins them is the digest of the job that a row describes."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from sslbench.config.grid import Grid, grid_files, load_grid
from sslbench.config.job import Job
from sslbench.config.published import PublishedTable, published_sources, published_tables
from sslbench.core import registry
from sslbench.reporting.printed import printed_table
from sslbench.reporting.tables import grid_report

TABLES = list(published_tables().values())
KEYS = [table.key for table in TABLES]
GRIDS = Path(__file__).parents[1] / "benchmarks"

# Rows that are one job: MetaSSL prints full supervision once in each of two blocks.
TWICE = {"metassl:T1": [[39, 40]]}


@cache
def grid_of(table: PublishedTable) -> Grid:
    return load_grid(str(GRIDS / f"{table.grid}.yaml"))


@cache
def jobs_of(table: PublishedTable) -> list[Job]:
    return grid_of(table).expand()


@pytest.mark.parametrize("table", TABLES, ids=KEYS)
def test_every_row_describes_a_job_or_says_why_not(table: PublishedTable) -> None:
    for row in table.rows:
        job = row.job()
        assert (job is None) == bool(row.reason)
        if job is not None:
            recipe = job.resolved.recipe
            assert recipe.dataset == row.dataset and recipe.network.name == row.network_here, row.label
            assert job is row.job() and published_sources()[row.method].title


@pytest.mark.parametrize("table", TABLES, ids=KEYS)
def test_every_row_has_one_cell_of_its_grid_and_every_cell_a_row(table: PublishedTable) -> None:
    rows: dict[str, list[int]] = {}
    for row in table.rows:
        if job := row.job():
            rows.setdefault(job.digest(), []).append(row.order)
    assert rows.keys() == {job.digest() for job in jobs_of(table)}
    assert [orders for orders in rows.values() if len(orders) > 1] == TWICE.get(table.key, [])


@pytest.mark.parametrize("table", TABLES, ids=KEYS)
def test_a_grid_has_the_seeds_that_its_paper_averages(table: PublishedTable) -> None:
    """Three where ± is over three repeats, one where none is printed or it is over cases; SCDL does not say."""
    seeds = Counter(job.digest() for job in jobs_of(table))
    for row in table.rows:
        if job := row.job():
            wanted = 3 if row.paper == "scdl" or row.spread == "seeds" else 1
            assert seeds[job.digest()] == wanted, row.label


@pytest.mark.parametrize("table", TABLES, ids=KEYS)
def test_a_grid_makes_one_table_with_the_lines_and_columns_of_print(table: PublishedTable, tmp_path: Path) -> None:
    grid, printed = grid_of(table), printed_table(table)
    assert grid.table.of == table.key
    (made,) = grid_report(grid, jobs_of(table), tmp_path).tables
    shown = [(column.metric, column.class_name) for column in made.columns if not column.is_gain]
    assert shown == [(column.metric, column.class_name) for column in printed.columns]
    lines = [(group.title, row.label) for group in made.groups for row in group.rows]
    wanted = [(heading, line.label) for heading, members in printed.groups for line in members]
    assert len(lines) == len(wanted)
    for (title, label), (heading, name) in zip(lines, wanted, strict=True):
        assert title == heading
        assert label == name or (name == "+MetaSSL" and label.startswith("MetaSSL-"))  # six rows of one name in print


def test_the_counts_of_all_tables_together() -> None:
    jobs = [job for table in TABLES for job in jobs_of(table)]
    assert len(TABLES) == 30 and len(jobs) == 813
    assert len({job.directory for job in jobs}) == 609
    assert len({job.digest() for job in jobs}) == 379
    rows = [row for table in TABLES for row in table.rows]
    assert len(rows) == 470 and not [row for row in rows if row.reason]


def test_every_other_grid_of_a_paper_is_there() -> None:
    more = {"ga-released", "ga-fig1", "dhc-fig4", "metassl-fig7", "metassl-fig8-10", "cross", "small"}
    assert more | {table.grid for table in TABLES} <= grid_files().keys()


def test_the_runs_of_figures_and_of_small_are_those_of_tables() -> None:
    known = {job.directory for table in TABLES for job in jobs_of(table)}
    for name in ("small", "metassl-fig8-10"):
        assert {job.directory for job in load_grid(str(GRIDS / f"{name}.yaml")).expand()} <= known, name
    assert len(load_grid(str(GRIDS / "metassl-fig7.yaml")).expand()) == 36


def test_cross_has_every_method_with_every_loss_and_plugin() -> None:
    entries = load_grid(str(GRIDS / "cross.yaml")).jobs
    methods = [method for entry in entries for method in entry.method]
    assert sorted(methods) == sorted(set(registry.names("method")) - {"magicnet_released"} - _aliases())
    assert all(entry.loss == ["default", "ga", "metassl"] and entry.plugin == [None, "scdl"] for entry in entries)


def _aliases() -> set[str]:
    return {alias for entry in registry.entries("method") for alias in entry.aliases}
