"""From runs on disk to tables: which rows and columns, what every cell holds, and which are best."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sslbench.config.grid import Grid, TableSpec, column_names
from sslbench.config.job import Job, settings_of
from sslbench.config.text import compact, counted, split_outside_brackets
from sslbench.metrics.aggregate import AVERAGE
from sslbench.reporting import captions
from sslbench.reporting.labels import class_title, group_of, metric_style, row_label
from sslbench.reporting.material import Material, PlannedRow
from sslbench.reporting.model import Cell, Column, Row, RowGroup, Source, Table, manifest
from sslbench.reporting.statistics import over_seeds, per_run
from sslbench.runs.collect import Collection, collect, records_of
from sslbench.runs.directory import Run

__all__ = ["Cell", "Column", "Row", "RowGroup", "Source", "Table", "grid_table", "manifest", "tables_of_runs"]

_NO_SCORE: Mapping[str, Any] = {"mean": math.nan, "std": math.nan, "n": 0, "unit": "percent"}


def grid_table(grid: Grid, jobs: Sequence[Job], results_dir: Path | str, protocol: str | None = None) -> list[Table]:
    """The tables that a grid fills, one per recipe × label budget, with what its runs have given so far.

    Supervised rows with all labels stand in the tables of the other budgets, as the papers print them.

    Args:
        grid: says which columns and groups.
        jobs: of the grid (`grid.expand()`).
        results_dir: the folder that holds `runs`.
        protocol: whose records to show, as `evaluate` left them; None: the recipes' own.

    Raises:
        UsageError: the grid asks for a column that none of its protocols has.
        SSLBenchError: a run directory that is not what its name says, or seeds measured on different cases.
    """
    rows: dict[tuple[str, ...], PlannedRow] = {}
    others = 0
    for job in jobs:
        run = Run.of(job, Path(results_dir))
        if not run.begun:
            others += sum(other.cases.exists() for other in run.others())
        key = (*run.directory.parts[-4:-1], job.digest())
        row = rows.get(key) or _planned(job, protocol)
        rows[key] = replace(row, runs=(*row.runs, run) if run.begun else row.runs, expected=row.expected + 1)
    grid.table.check({job.resolved.recipe.protocol for job in jobs})
    found = records_of([run for row in rows.values() for run in row.runs], protocol)
    left_out = f"Left out: {counted(others, 'result')} of these jobs under other settings or versions."
    return _tables(list(rows.values()), found, grid.table, [left_out] if others else [], grid.name)


def tables_of_runs(results_dir: Path | str, protocol: str | None = None) -> list[Table]:
    """One table per recipe × label budget of all finished runs, grids aside.

    The seeds asked for are those that ever began. Rows of which no run is finished are left out.

    Args:
        results_dir: anything that `load_results` takes.
        protocol: as for `grid_table`.

    Raises:
        UsageError: nothing is there.
        SSLBenchError: as for `grid_table`.
    """
    found = collect(results_dir, protocol)
    cells: dict[tuple[str, ...], list[Run]] = {}
    readable = [run for run in found.runs if run.state != "damaged"]
    for run in readable:
        cells.setdefault(run.cell, []).append(run)
    measured = found.records.drop_duplicates("digest").set_index("digest")[["dataset", "protocol"]].to_dict("index")
    rows = [_measured_row(runs, measured[runs[0].digest]) for runs in cells.values() if runs[0].digest in measured]
    left_out = len(readable) - sum(len(row.runs) for row in rows)
    notes = [f"Left out: {counted(left_out, 'run')} of rows without any result."] if left_out else []
    return _tables(rows, found, TableSpec(), notes)


def _planned(job: Job, protocol: str | None) -> PlannedRow:
    canonical, recipe = job.resolved.job, job.resolved.recipe
    return PlannedRow(
        recipe=Path(canonical.recipe).stem,
        labeled=canonical.labeled,
        method=canonical.method,
        loss=canonical.loss,
        plugin=canonical.plugin or "",
        digest=job.digest(),
        settings={path: compact(value) for path, value in settings_of(canonical.model_dump()).items()},
        dataset=recipe.dataset,
        splits=recipe.splits,
        protocol=protocol or recipe.protocol,
        checkpoint=recipe.checkpoint,
        runs=(),
        expected=0,
        job=job.resolved,
    )


def _measured_row(runs: list[Run], measured: Mapping[Any, Any]) -> PlannedRow:
    """The row of runs that differ in the seed alone."""
    first = runs[0]
    variant = split_outside_brackets(first.variant)
    return PlannedRow(
        recipe=first.recipe,
        labeled=str(first.job["labeled"]),
        method=str(first.job["method"]),
        loss=str(first.job["loss"]),
        plugin=str(first.job["plugin"] or ""),
        digest=first.digest,
        settings={path: value for path, _, value in (item.partition("=") for item in variant)},
        dataset=str(measured["dataset"]),
        splits=str(first.values.get("splits", "")),
        protocol=str(measured["protocol"]),
        checkpoint=str(first.values.get("checkpoint", "")),
        runs=tuple(runs),
        expected=len(runs),
    )


def _tables(
    rows: list[PlannedRow], found: Collection, spec: TableSpec, notes: list[str], grid: str = ""
) -> list[Table]:
    if "columns" not in spec.model_fields_set:
        known = column_names({row.protocol for row in rows})
        spec = spec.model_copy(update={"columns": [column for column in spec.columns if column in known]})
    scores = per_run(found.records)
    families: dict[tuple[str, ...], dict[str, list[PlannedRow]]] = {}
    for row in rows:
        families.setdefault(row.family, {}).setdefault(row.labeled, []).append(row)
    tables = []
    for budgets in families.values():
        bounds = [labeled for labeled, members in budgets.items() if all(row.upper_bound for row in members)]
        own = [labeled for labeled in budgets if labeled not in bounds]
        beside = tuple(row for labeled in bounds if own for row in budgets[labeled])
        for labeled in own or bounds:
            material = Material(tuple(budgets[labeled]), beside, found, scores)
            tables.append(replace(_table(material, spec, notes), grid=grid))
    return _with_unique_names(tables)


def _table(material: Material, spec: TableSpec, notes: list[str]) -> Table:
    columns = _columns(material, spec)
    rows = _ranked([_row(planned, material, columns) for planned in material.rows], columns)
    rows, apart = _with_unique_labels(rows)
    first = material.first
    said = [*captions.notes(material, spec, rows), *apart, *notes, spec.note]
    return Table(
        name=f"{first.recipe}-{first.labeled}",
        columns=columns,
        groups=_grouped(rows, spec.groups),
        title=captions.title(material, spec, columns, rows),
        measured=captions.measured(material),
        notes=tuple(note for note in said if note),
        warnings=material.found.warnings,
        damaged=material.found.damaged,
    )


def _columns(material: Material, spec: TableSpec) -> tuple[Column, ...]:
    columns = []
    for name in spec.columns:
        metric, per_class, _ = name.partition("/")
        if metric not in material.protocol.metrics:
            continue  # another table of the grid has it; a note says so
        style = metric_style(metric)
        unit = "percent" if style.percent else material.unit(metric)
        if not per_class:
            header = f"Avg. {style.title}"
            columns.append(Column(metric, AVERAGE, header, "", unit, style.direction, 2, 1))
            continue
        for short in _ordered(material, spec):
            header = class_title(short)
            columns.append(Column(metric, short, header, style.title, unit, style.direction, 1, None))
    return tuple(columns)


def _ordered(material: Material, spec: TableSpec) -> list[str]:
    """The classes in the table's order; those without a size come last."""
    sizes = material.sizes() if spec.classes == "size" else {}
    return sorted(material.classes(), key=lambda short: -sizes.get(short, 0))


def _row(planned: PlannedRow, material: Material, columns: tuple[Column, ...]) -> Row:
    runs = material.reported(planned)
    scores: dict[tuple[str, str], Mapping[Any, Any]] = {}
    if runs:
        rows = over_seeds(material.scores_of(planned)).to_dict("records")
        scores = {(score["metric"], score["class"]): score for score in rows}
    cells = []
    for column in columns:
        score = scores.get((column.metric, column.class_name), _NO_SCORE)
        scale = 100.0 if column.unit == "percent" and score["unit"] != "percent" else 1.0
        n = int(score["n"])
        # A dagger in every class column would say many times what the average says.
        marked = 0 < n < (planned.expected if column.class_name == AVERAGE else len(runs))
        cells.append(Cell(score["mean"] * scale, score["std"] * scale, n, planned.expected, marked=marked))
    settings = {path: value for path, value in planned.settings.items() if path not in material.common}
    bound = planned in material.bounds
    source = Source(
        recipe=planned.recipe,
        dataset=planned.dataset,
        labeled=planned.labeled,
        protocol=planned.protocol,
        method=planned.method,
        loss=planned.loss,
        plugin=planned.plugin,
        variant=",".join(f"{path}={value}" for path, value in sorted(planned.settings.items())),
        digest=planned.digest,
        runs=tuple(run.name for run in runs),
        expected=planned.expected,
        competes=material.competes(planned),
        job=planned.job,
    )
    return Row(
        label=row_label(planned.method, planned.loss, planned.plugin, settings)
        + (f" ({planned.budget})" if bound else ""),
        sources=(source,),
        cells=tuple(cells),
        bound=bound,
    )


def _grouped(rows: list[Row], titles: list[str]) -> tuple[RowGroup, ...]:
    """Rows under their headings: methods as they appear, each plain first, then with losses and plugins."""
    methods = list(dict.fromkeys(row.first.method for row in rows))
    losses = list(dict.fromkeys(["default", *(row.first.loss for row in rows)]))
    groups: dict[str, list[Row]] = {title: [] for title in titles}

    def order(row: Row) -> tuple[bool, int, int, bool]:
        job = row.first
        return row.bound, methods.index(job.method), losses.index(job.loss), bool(job.plugin)

    for row in sorted(rows, key=order):
        title = group_of(row.first.method, row.first.loss, () if row.bound else titles)
        groups.setdefault(title, []).append(row)
    return tuple(RowGroup(title, tuple(members)) for title, members in groups.items() if members)


def _ranked(rows: list[Row], columns: tuple[Column, ...]) -> list[Row]:
    """The rows with `best` and `second` set, column by column, on unrounded means."""
    ranks: dict[tuple[int, int], int] = {}
    for place, column in enumerate(columns):
        values = {number: row.cells[place].mean for number, row in enumerate(rows) if _may_rank(row, column, place)}
        if not column.direction or len(values) < 2:
            continue
        top = max if column.direction == "up" else min
        for rank in (1, 2):
            left = {number: value for number, value in values.items() if (number, place) not in ranks}
            for number, value in left.items():
                # Only the last bits of a sum differ between runs that scored the same.
                if math.isclose(value, top(left.values()), rel_tol=1e-12, abs_tol=1e-12):
                    ranks[number, place] = rank
    return [
        replace(row, cells=tuple(replace(cell, rank=ranks.get((n, place), 0)) for place, cell in enumerate(row.cells)))
        for n, row in enumerate(rows)
    ]


def _may_rank(row: Row, column: Column, place: int) -> bool:
    """Whether a cell of a row can be best in its column."""
    source, cell = row.source(column), row.cells[place]
    return bool(source and source.competes) and cell.n == cell.expected and not math.isnan(cell.mean)


def _with_unique_labels(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """The rows with labels that are unique, and the note that explains how."""
    counts = Counter(row.label for row in rows)
    if counts.total() == len(counts):
        return rows, []
    labels = [f"{row.label} [{row.first.digest[:8]}]" if counts[row.label] > 1 else row.label for row in rows]
    rows = [replace(row, label=label) for row, label in zip(rows, labels, strict=True)]
    return rows, ["In square brackets: the digest, where rows of one name differ in version or case lists."]


def _with_unique_names(tables: list[Table]) -> list[Table]:
    """The tables with names that are unique: one recipe has several where splits or protocols differ."""
    seen: Counter[str] = Counter()
    named = []
    for table in tables:
        seen[table.name] += 1
        number = seen[table.name]
        named.append(table if number == 1 else replace(table, name=f"{table.name}-{number}"))
    return named
