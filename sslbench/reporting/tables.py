"""From runs on disk to tables: which rows and columns, what every cell holds, and which are best."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sslbench.config.draws import FAMILY, family_of, split_draw
from sslbench.config.grid import Grid
from sslbench.config.job import Job, settings_of
from sslbench.config.layers import COMPONENTS
from sslbench.config.places import TablePlace, place_of
from sslbench.config.table import (
    DERIVED,
    GAIN,
    HOURS,
    SIZE_PARTS,
    Baseline,
    ColumnSpec,
    TableSpec,
    metric_keys,
)
from sslbench.config.text import compact, counted, split_outside_brackets
from sslbench.config.tuning import told
from sslbench.core.errors import UnknownNameError
from sslbench.metrics.aggregate import AVERAGE
from sslbench.reporting import captions, naming
from sslbench.reporting.draws import draws_joined
from sslbench.reporting.gains import VALUE_COLUMNS, CaseValues, Gain, Lens, RowGain, family, gain
from sslbench.reporting.labels import class_title, metric_style
from sslbench.reporting.layout import Line, baselines, ends_of_gap, lines, sheets
from sslbench.reporting.material import Material, PlannedRow, TableBlock
from sslbench.reporting.model import Cell, Column, Direction, Row, RowGroup, RowSource, Table, manifest
from sslbench.reporting.report import Report
from sslbench.reporting.scores import hours_of, run_scores, seed_means
from sslbench.reporting.standing import BlockStanding, Collapse, Standings, collapse, gap_closed, standings
from sslbench.reporting.statistics import GapShare, average_of
from sslbench.runs.collect import Collection, collect, imported_runs, records_of
from sslbench.runs.directory import Run

__all__ = ["Cell", "Column", "Row", "RowGroup", "RowSource", "Table", "grid_report", "manifest", "records_report"]

ELSEWHERE = "‡"  # behind the names of imported rows
_IMPORTED = "Imported"  # what they stand under

_SHARED = (attrgetter("recipe"), attrgetter("dataset"), attrgetter("labeled"))
_NO_SCORE: Mapping[str, Any] = {"mean": math.nan, "std": math.nan, "n": 0, "unit": "percent"}


def grid_report(
    grid: Grid,
    jobs: Sequence[Job],
    results_dir: Path | str,
    protocol: str | None = None,
    checkpoint: str | None = None,
    kept: Collection | None = None,
) -> Report:
    """The tables that a grid fills, one per recipe × label budget or as its `table` says, with what its runs gave.

    Supervised rows with all labels stand in the tables of the other budgets, as the papers print them.

    Args:
        grid: says which columns and groups.
        jobs: of the grid (`grid.expand()`, which checks the table too), or some of them.
        results_dir: the folder that holds `runs`.
        protocol: whose records to show, as `evaluate` left them; None: the recipes' own.
        checkpoint: the rule whose weights to show the test of, where recipes asked for several; None: their own.
        kept: records of the grid's runs that were read from a file; then `results_dir` is that file. A run is known by
            its name, its digest aside: the code that made it may have been another.

    Raises:
        SSLBenchError: a run directory that is not what its name says, or seeds measured on different cases.
    """
    rows: dict[tuple[str, ...], PlannedRow] = {}
    drawn: dict[tuple[str, ...], set[str]] = {}
    others = 0
    shelf: dict[str, tuple[Run, ...]] = {_undigested(run.name): (run,) for run in kept.runs} if kept else {}
    for job in jobs:
        key = _row_of(job)
        row = rows.get(key) or _planned(job, protocol, checkpoint)
        if kept:
            own = shelf.get(_undigested(job.directory.as_posix()), ())
        else:
            run = Run.of(job, Path(results_dir))
            own = (run,) if run.begun else ()
            others += 0 if own else sum(other.cases.exists() for other in run.others())
        digest = own[0].digest if kept and own else row.digest
        rows[key] = replace(row, runs=row.runs + own, expected=row.expected + 1, digest=digest)
        drawn.setdefault(key, set()).add(job.labeled)
    rows = {key: replace(row, draws=len(drawn[key])) if _is_drawn(row) else row for key, row in rows.items()}
    asked = list(rows.values())
    shown = _imported(asked, kept.runs if kept else None, Path(results_dir), protocol)
    found = kept or records_of([run for row in (*asked, *shown) for run in row.runs], protocol, checkpoint)
    left_out = f"Left out: {counted(others, 'result')} of these jobs under other settings or versions."
    notes = [told(grid.tune, grid.chosen)] if grid.tune else []
    made = _tables([*asked, *shown], found, grid.table, notes + ([left_out] if others else []), grid.name)
    return Report(made, found, Path(results_dir), grid, protocol, checkpoint)


def records_report(
    source: Path | str,
    protocol: str | None = None,
    checkpoint: str | None = None,
    baseline: str = "",
    kept: Collection | None = None,
) -> Report:
    """One table per recipe × label budget of all finished runs, grids aside.

    The seeds asked for are those that ever began. Rows of which no run is finished are left out.

    Args:
        source: anything that `load_results` takes.
        protocol, checkpoint: as for `grid_report`.
        baseline: as in a grid's `table`.
        kept: what was read of the source, or some of it; None: it is read.

    Raises:
        UsageError: nothing is there, or no row that is the baseline.
        SSLBenchError: as for `grid_report`.
    """
    found = kept or collect(source, protocol, checkpoint)
    cells: dict[tuple[str, ...], list[Run]] = {}
    readable = [run for run in found.runs if run.state != "damaged"]
    for run in readable:
        cells.setdefault(run.cell, []).append(run)
    measured = found.records.drop_duplicates("digest").set_index("digest")[["dataset", "protocol"]].to_dict("index")
    rows = [
        _measured_row(runs, measured[digests[0]], checkpoint)
        for runs in draws_joined(cells.values())
        if (digests := [run.digest for run in runs if run.digest in measured])
    ]
    left_out = len(readable) - sum(len(row.runs) for row in rows)
    notes = [f"Left out: {counted(left_out, 'run')} of rows without any result."] if left_out else []
    spec = TableSpec(baseline=baseline)
    if spec.held_against:
        known = {str(Baseline(row.method, row.loss, row.plugin)) for row in rows}
        if str(spec.held_against) not in known:
            raise UnknownNameError("baseline", str(spec.held_against), known)
    return Report(_tables(rows, found, spec, notes), found, Path(source), None, protocol, checkpoint)


def _row_of(job: Job) -> tuple[str, ...]:
    """What the jobs of one row share: all but the seed, and the draw of labels where they are drawn."""
    recipe, labeled, cell, _ = job.directory.parts
    family = family_of(labeled)
    return (recipe, family, cell, job.digest() if family == labeled else "")


def _is_drawn(row: PlannedRow) -> bool:
    return row.labeled.endswith(FAMILY)


def _undigested(run: str) -> str:
    """The name of a run without its digest: what a job is called, whichever code it ran under."""
    return run.rpartition("-")[0]


def _planned(job: Job, protocol: str | None, checkpoint: str | None) -> PlannedRow:
    canonical, recipe = job.resolved.job, job.resolved.recipe
    tuned = place_of(job).tuned  # rows are named and held against others without it
    return PlannedRow(
        recipe=Path(canonical.recipe).stem,
        labeled=family_of(canonical.labeled),
        method=canonical.method,
        loss=canonical.loss,
        plugin=canonical.plugin or "",
        digest=job.digest(),
        settings={
            path: compact(value) for path, value in settings_of(canonical.model_dump()).items() if path not in tuned
        },
        dataset=recipe.dataset,
        splits=recipe.splits,
        protocol=protocol or recipe.protocol,
        checkpoint=checkpoint or recipe.checkpoint,
        runs=(),
        expected=0,
        job=job.resolved,
        place=place_of(job),
    )


def _imported(
    rows: Sequence[PlannedRow], kept: Sequence[Run] | None, results: Path, protocol: str | None
) -> list[PlannedRow]:
    """The rows of other software on the recipes and budgets of a grid's.

    Args:
        rows: of the grid.
        kept: the runs to look among; None: those that were imported to `results`.
    """
    places = dict.fromkeys(f"{row.recipe}/{row.labeled}" for row in rows)
    if kept is None:
        runs = [run for place in places for run in imported_runs(results, place)]
    else:
        runs = [run for run in kept if run.imported and "/".join(run.name.split("/")[:2]) in places]
    cells: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        if run.state == "finished":
            cells.setdefault(run.cell, []).append(run)
    facts = [members[0].values for members in cells.values()]
    asked = [{"dataset": each["dataset"], "protocol": protocol or each["protocol"]} for each in facts]
    return [_measured_row(members, own, None) for members, own in zip(cells.values(), asked, strict=True)]


def _measured_row(runs: list[Run], measured: Mapping[Any, Any], checkpoint: str | None) -> PlannedRow:
    """The row of runs that differ in the seed alone, or in the draw of their labels too."""
    first = runs[0]
    variant = split_outside_brackets(first.variant)
    return PlannedRow(
        recipe=first.recipe,
        labeled=family_of(str(first.job["labeled"])),
        method=str(first.job["method"]),
        loss=str(first.job["loss"]),
        plugin=str(first.job["plugin"] or ""),
        digest=first.digest,
        settings={path: value for path, _, value in (item.partition("=") for item in variant)},
        dataset=str(measured["dataset"]),
        splits=str(first.values.get("splits", "")),
        protocol=str(measured["protocol"]),
        checkpoint=checkpoint or str(first.values.get("checkpoint", "")),
        runs=tuple(runs),
        expected=len(runs),
        draws=len({split_draw(str(run.job["labeled"]))[1] for run in runs} - {0}),
        place=TablePlace(label=first.imported + ELSEWHERE, heading=_IMPORTED) if first.imported else TablePlace(),
    )


def _tables(
    rows: list[PlannedRow], found: Collection, spec: TableSpec, notes: list[str], grid: str = ""
) -> list[Table]:
    if "columns" not in spec.model_fields_set:
        known = {*metric_keys({row.protocol for row in rows}), *DERIVED}
        spec = spec.model_copy(update={"columns": [column.key for column in spec.wanted() if column.key in known]})
    scores = run_scores(found.records)
    made = [_table(Material(blocks, found, scores), rows, spec, notes) for blocks in sheets(rows, spec)]
    return _with_unique_names([replace(table, name=table.name or grid, grid=grid, of=spec.of) for table in made])


def _table(material: Material, order: list[PlannedRow], spec: TableSpec, notes: list[str]) -> Table:
    columns = _columns(material, spec)
    shown = lines(material.blocks, order)
    names = naming.labels(shown, material, spec)
    letters = naming.recipe_letters(shown, spec)
    footnotes = naming.footnotes(shown, spec, len({*letters.values()}))
    numbers = _Numbers(material, spec)
    rows = [
        Row(
            label=name,
            sources=tuple(_sources(line, material)),
            cells=tuple(numbers.cell(line, column) for column in columns),
            bound=line.bound,
            marks=letters.get(line.first.recipe, "") + own,
        )
        for line, name, own in zip(shown, names, footnotes.letters, strict=True)
    ]
    rows, apart = _with_unique_labels(_ranked(rows, columns, len(spec.marks)), letters)
    held = tuple(_held(numbers, shown, rows))
    standing = tuple(_standing(numbers, block, shown, rows) for block in material.blocks)
    rows = _together(rows, columns, standing)
    caption = captions.Caption(material, spec, columns, rows, letters, held, standing)
    if any(row.imported for row in material.rows):
        apart.append(f"{ELSEWHERE} Trained elsewhere, training unverified: not ranked, and held against nothing.")
    apart += [*notes, *_chosen(shown, rows, material.blocks), spec.note]
    if spec.notes == "short":
        measured, said = "", [caption.short([*footnotes.notes, *apart])]
    else:
        measured, said = caption.measured(), [*caption.notes(), *footnotes.notes, *apart]
    return Table(
        name=_name(material),
        columns=columns,
        groups=_grouped(list(zip(shown, rows, strict=True)), spec),
        title=caption.title(),
        measured=measured,
        notes=tuple(filter(None, said)),
        footnotes=footnotes.notes,
        damaged=material.found.damaged,
        gains=held,
        gain_notes=tuple(caption.of_gains()),
        best_notes=tuple(caption.of_best(refusals=False)),
        standing=standing,
    )


def _chosen(shown: Sequence[Line], rows: Sequence[Row], blocks: Sequence[TableBlock]) -> list[str]:
    """What the trials of tuned rows chose, in one sentence."""
    told = []
    for line, row in zip(shown, rows, strict=True):
        for planned, block in zip(line.cells, blocks, strict=True):
            if planned and planned.place.tuned:
                values = [f"{path}={compact(value)}" for path, value in sorted(planned.place.tuned.items())]
                told.append(f"{row.label}{f' ({block.title})' if block.title else ''} {', '.join(values)}")
    return [f"Chosen: {'; '.join(dict.fromkeys(told))}."] if told else []


def _held(numbers: _Numbers, shown: Sequence[Line], rows: Sequence[Row]) -> Iterator[RowGain]:
    """The gains of a table by the labels of its rows."""
    labels = {planned: row.label for line, row in zip(shown, rows, strict=True) for planned in line.cells}
    for title, gains in numbers.gains.items():
        for planned, found in gains.items():
            yield RowGain(labels[planned], labels[numbers.below[title][planned]], title, numbers.leading, found)


def _standing(numbers: _Numbers, block: TableBlock, shown: Sequence[Line], rows: Sequence[Row]) -> BlockStanding:
    """How the rows over a block stand, by their labels."""
    labels = {planned: row.label for line, row in zip(shown, rows, strict=True) for planned in line.cells}
    found = numbers.among(block)
    among = {labels[planned]: row for planned, row in found.rows.items()}
    ends, gap, shares = numbers.shares(block)
    return BlockStanding(
        block=block.title,
        metric=numbers.leading,
        lens=numbers.lenses[block.title],
        among=Standings(among, found.seeds, found.units, found.refused, found.repeats),
        ends=ends and (labels[ends[0]], labels[ends[1]]),
        gap=gap,
        shares={labels[planned]: share for planned, share in shares.items()},
        collapses={labels[planned]: found for planned, found in numbers.collapses(block).items()},
    )


def _together(rows: list[Row], columns: Sequence[Column], standing: Sequence[BlockStanding]) -> list[Row]:
    """The rows with a mark where they are not told apart from the best; none where that is so of all."""
    marked: dict[int, set[str]] = {}
    for of_block in standing:
        wanted = (of_block.block, of_block.metric, AVERAGE)
        places = [place for place, c in enumerate(columns) if (c.block, c.metric, c.class_name) == wanted]
        together = of_block.among.together
        if len(together) < len(of_block.among.rows) - 1:
            marked |= {place: {*together} for place in places}
    return [
        _changed(row, {place: {"together": True} for place, labels in marked.items() if row.label in labels})
        for row in rows
    ]


def _changed(row: Row, changes: Mapping[int, Mapping[str, Any]]) -> Row:
    """The row with other cells at some places."""
    if not changes:
        return row
    cells = (replace(cell, **changes[place]) if place in changes else cell for place, cell in enumerate(row.cells))
    return replace(row, cells=tuple(cells))


def _name(material: Material) -> str:
    """What all rows of a table share, fit for a file: recipe, or else dataset, and budget; empty: nothing."""
    recipes, datasets, budgets = ({what(row) for row in material.planned} for what in _SHARED)
    subject = recipes if len(recipes) == 1 else datasets
    return "-".join(name for (name, *others) in map(sorted, (subject, budgets)) if not others)


# -------------------------------------------------------------------------------------------------- columns


def _columns(material: Material, spec: TableSpec) -> tuple[Column, ...]:
    columns = []
    for block in material.blocks:
        wanted = [column for column in spec.wanted() if column.metric in (*DERIVED, *material.metrics)]
        if wanted and wanted[0].classes is None and spec.gains_unplaced and baselines(block, spec.held_against):
            wanted.insert(1, ColumnSpec(GAIN))
        own = [column for part in wanted for column in _of(part, wanted[0], block, material, spec)]
        if spec.by_class:
            order = [AVERAGE, *_ordered(material, block, spec)]
            own = [_by_class(column) for name in order for column in own if column.class_name == name]
        columns += own
    return tuple(columns)


def _of(
    part: ColumnSpec, leading: ColumnSpec, block: TableBlock, material: Material, spec: TableSpec
) -> Iterator[Column]:
    """The columns of one of the table's `columns` in one block; none where another block has its metric."""
    if part.metric == HOURS:
        digits = spec.decimals.get(HOURS, 2)
        yield Column(HOURS, AVERAGE, "Time", "", "h", "", digits, None, block.title)
        return
    metric = leading.metric if part.metric == GAIN else part.metric
    style, units = metric_style(metric), material.units(metric, block)
    if not units:
        return  # another table of the grid has it; a note says so
    alike = len({*units.values()}) == 1 or style.percent
    unit = "percent" if style.percent else next(iter(units.values())) if alike else ""
    direction = style.direction if alike else ""
    if part.metric == GAIN:
        unit = "points" if style.percent else unit
        digits = spec.decimals.get(GAIN, spec.decimals.get(metric, 2))
        better: Direction = "up" if direction else ""  # of a distance too: a gain is what is better by
        yield Column(GAIN, AVERAGE, f"Gain in {style.title}", "", unit, better, digits, None, block.title)
    elif part.classes is None:
        digits, spread = spec.decimals.get(part.key, 2), spec.decimals.get("std", 1)
        yield Column(metric, AVERAGE, f"Avg. {style.title}", "", unit, direction, digits, spread, block.title)
    else:
        digits, around = spec.decimals.get(part.key, 1), spec.decimals.get("std/class")
        for short in _ordered(material, block, spec, part.classes):
            header = class_title(short)
            yield Column(metric, short, header, style.title, unit, direction, digits, around, block.title)
        for name in _parts_wanted(material, block, part.classes):
            header, spread = f"{name.capitalize()} {style.title}", spec.decimals.get("std", 1)
            yield Column(metric, name, header, "", unit, direction, digits, spread, block.title, part=True)


def _parts_wanted(material: Material, block: TableBlock, wanted: Sequence[str]) -> list[str]:
    """Which of the names are `head` and `tail`: those that no class has."""
    return [name for name in wanted if name in SIZE_PARTS and name not in map(str.lower, material.classes(block))]


def _by_class(column: Column) -> Column:
    """A column under its class in place of its metric."""
    over = "Avg." if column.class_name == AVERAGE else column.header
    return replace(column, header=metric_style(column.metric).title, span=over, by="class")


def _ordered(material: Material, block: TableBlock, spec: TableSpec, wanted: Sequence[str] = ()) -> list[str]:
    """The classes in the table's order, those that are wanted in that of their names; without a size they come last."""
    classes = material.classes(block)
    if wanted:
        spelt = {short.lower(): short for short in classes}
        return [spelt[name] for name in wanted if name in spelt]
    sizes = material.sizes(block) if spec.classes == "size" else {}
    return sorted(classes, key=lambda short: -sizes.get(short, 0))


# ----------------------------------------------------------------------------------------------------- rows


def _all_settings(planned: PlannedRow) -> dict[str, str]:
    tuned = {path: compact(value) for path, value in planned.place.tuned.items()}
    kept = planned.job.job.set if planned.job else {}
    return {**planned.settings, **{path: value for path, value in tuned.items() if path in kept}}


def _sources(line: Line, material: Material) -> Iterator[RowSource]:
    for planned, block in zip(line.cells, material.blocks, strict=True):
        if planned is not None:
            yield RowSource(
                recipe=planned.recipe,
                dataset=planned.dataset,
                labeled=planned.labeled,
                protocol=planned.protocol,
                method=planned.method,
                loss=planned.loss,
                plugin=planned.plugin,
                variant=",".join(f"{path}={value}" for path, value in sorted(_all_settings(planned).items())),
                digest=planned.digest,
                runs=tuple(run.name for run in material.reported(planned)),
                expected=planned.expected,
                competes=material.competes(planned, block),
                block=block.title,
                job=planned.job,
                draws=planned.draws,
            )


@dataclass(frozen=True)
class _Numbers:
    """What fills cells: scores of each row by metric and class, what each row is held against, and how rows stand."""

    material: Material
    spec: TableSpec

    @cached_property
    def leading(self) -> str:
        """The metric of the first column, in which gains are."""
        wanted = self.spec.wanted()
        return wanted[0].metric if wanted else ""

    @cached_property
    def scores(self) -> dict[PlannedRow, dict[tuple[str, str], Mapping[Any, Any]]]:
        found: dict[PlannedRow, dict[tuple[str, str], Mapping[Any, Any]]] = {}
        for planned in self.material.rows:
            seeds = self.material.reported(planned)
            rows = seed_means(self.material.scores_of(planned)) if seeds else []
            found[planned] = {(score["metric"], score["class"]): score for score in rows}
        return found

    @cached_property
    def lenses(self) -> dict[str, Lens]:
        """By block: its classes by size."""
        return {block.title: Lens.of(self.material.sizes(block), self.spec.lens) for block in self.material.blocks}

    @cached_property
    def below(self) -> dict[str, dict[PlannedRow, PlannedRow]]:
        named = self.spec.held_against
        return {block.title: baselines(block, named) for block in self.material.blocks}

    @cached_property
    def gains(self) -> dict[str, dict[PlannedRow, Gain]]:
        """By block: of each row that has a baseline, where both have results. One family for the whole table."""
        if not metric_style(self.leading).direction:
            return {}
        held: dict[tuple[str, PlannedRow], Gain] = {}
        for block in self.material.blocks:
            lens = self.lenses[block.title]
            pairs = [pair for pair in self.below[block.title].items() if all(map(self.material.reported, pair))]
            held |= {
                (block.title, row): gain(self._values(row, self.leading), self._values(base, self.leading), lens)
                for row, base in pairs
            }
        found: dict[str, dict[PlannedRow, Gain]] = {block.title: {} for block in self.material.blocks}
        for (title, row), tested in family(held).items():
            found[title][row] = tested
        return found

    def among(self, block: TableBlock) -> Standings[PlannedRow]:
        """How the rows that can be best stand to the best of them."""
        if not metric_style(self.leading).direction:
            return Standings(refused=f"which way of {metric_style(self.leading).title} is better is not known")
        rows = [row for row in block.planned if self._measured(row) and self.material.competes(row, block)]
        return standings({row: self._values(row, self.leading) for row in rows})

    def shares(
        self, block: TableBlock
    ) -> tuple[tuple[PlannedRow, PlannedRow] | None, float, dict[PlannedRow, GapShare | str]]:
        """The two ends of the gap to full supervision, its points, and what rows close of it; nothing where an end
        lacks results."""
        ends = ends_of_gap(block)
        if ends is None or not metric_style(self.leading).percent or not all(map(self._measured, ends)):
            return None, math.nan, {}
        lower, upper = (self._values(row, self.leading) for row in ends)
        rows = [
            row
            for row in block.planned
            if row not in ends and not row.imported and row.recipe == ends[0].recipe and self._measured(row)
        ]
        gap = float(np.nanmean(upper.by_unit(average_of())) - np.nanmean(lower.by_unit(average_of())))
        return ends, gap, {row: gap_closed(self._values(row, self.leading), lower, upper) for row in rows}

    def collapses(self, block: TableBlock) -> dict[PlannedRow, Collapse]:
        """Which classes rows lost."""
        rows = [row for row in block.rows if "dsc" in self.material.protocols[row.protocol].metrics]
        return {row: collapse(self._values(row, "dsc")) for row in rows if self.material.reported(row)}

    def _measured(self, row: PlannedRow) -> bool:
        return bool(self.material.reported(row)) and self.leading in self.material.protocols[row.protocol].metrics

    @cached_property
    def _read(self) -> dict[tuple[PlannedRow, str], CaseValues]:
        return {}

    def _values(self, row: PlannedRow, metric: str) -> CaseValues:
        if (row, metric) not in self._read:
            protocol = self.material.protocols[row.protocol]
            records = self.material.columns_of(row, VALUE_COLUMNS)
            found = CaseValues.of(records, metric, metric_style(metric).direction, protocol.skip_cases)
            self._read[row, metric] = found
        return self._read[row, metric]

    def cell(self, line: Line, column: Column) -> Cell:
        place = [block.title for block in self.material.blocks].index(column.block)
        planned = line.cells[place]
        if planned is None:
            return Cell(math.nan, math.nan, 0, 0)
        if column.metric == HOURS:
            return self._hours(planned)
        if not column.is_gain:
            return self._value(planned, column.metric, column)
        found = self.gains.get(column.block, {}).get(planned)
        if found is None:
            return Cell(math.nan, math.nan, 0, planned.expected)
        due = min(planned.expected, self.below[column.block][planned].expected)
        ends = (found.average.low, found.average.high) if found.average else (math.nan, math.nan)
        return Cell(
            found.difference,
            math.nan,
            found.seeds,
            planned.expected,
            marked=0 < found.seeds < due,
            low=ends[0],
            high=ends[1],
            star=found.star,
        )

    def _value(self, planned: PlannedRow, metric: str, column: Column) -> Cell:
        known = self._part(planned, column) if column.part else self.scores[planned]
        score = known.get((metric, column.class_name), _NO_SCORE)
        scale = 100.0 if column.unit in ("percent", "points") and score["unit"] != "percent" else 1.0
        n = int(score["n"])
        # A dagger in every class column would say many times what the average says.
        due = planned.expected if column.class_name == AVERAGE else len(self.material.reported(planned))
        return Cell(score["mean"] * scale, score["std"] * scale, n, planned.expected, marked=0 < n < due)

    def _part(self, planned: PlannedRow, column: Column) -> dict[tuple[str, str], Mapping[Any, Any]]:
        """The score of a row over large or small classes: the mean over them in each run, then over runs."""
        if not self.material.reported(planned):
            return {}
        members = getattr(self.lenses[column.block], column.class_name)
        scores = pd.DataFrame(self.material.scores_of(planned))
        own = scores[(scores["metric"] == column.metric) & scores["class"].isin(members)]
        if own.empty:
            return {}
        means = own.groupby("run", sort=False)["value"].transform("mean")  # of what has a value
        of_run = own.assign(value=means, sd=math.nan).assign(**{"class": column.class_name}).drop_duplicates("run")
        (score,) = seed_means(of_run)
        return {(column.metric, column.class_name): score}

    def _hours(self, planned: PlannedRow) -> Cell:
        known = [hours for run in self.material.reported(planned) if (hours := hours_of(run)) is not None]
        mean = float(np.mean(known)) if known else math.nan
        return Cell(mean, math.nan, len(known), planned.expected)


def _grouped(rows: list[tuple[Line, Row]], spec: TableSpec) -> tuple[RowGroup, ...]:
    """Rows under their headings, in the order that the table asks for."""
    if spec.ordered != "groups":
        if spec.ordered == "print":
            rows = sorted(rows, key=lambda pair: naming.printed_place(pair[0]))
        headed = ((naming.heading(line, spec), row) for line, row in rows)
        return tuple(
            RowGroup(title, tuple(row for _, row in members)) for title, members in groupby(headed, key=itemgetter(0))
        )
    methods = list(dict.fromkeys(row.first.method for _, row in rows))
    losses = list(dict.fromkeys(["default", *(_entry_loss(line) for line, _ in rows)]))
    groups: dict[str, list[Row]] = {title: [] for title in spec.groups}

    def order(pair: tuple[Line, Row]) -> tuple[bool, int, int, bool]:
        job = pair[1].first
        return pair[1].bound, methods.index(job.method), losses.index(_entry_loss(pair[0])), bool(job.plugin)

    # Methods as they appear, each plain first, then with losses and plugins.
    for line, row in sorted(rows, key=order):
        groups.setdefault(naming.heading(line, spec), []).append(row)
    return tuple(RowGroup(title, tuple(members)) for title, members in groups.items() if members)


def _entry_loss(line: Line) -> str:
    """The loss as the grid's entry names it: one whose options make a preset stays where it stands among them."""
    names = line.first.place.names
    return (names and names[COMPONENTS.index("loss")]) or line.first.loss


def _ranked(rows: list[Row], columns: tuple[Column, ...], most: int) -> list[Row]:
    """The rows with ranks up to `most` set, column by column, on unrounded means."""
    ranks: dict[tuple[int, int], int] = {}
    for place, column in enumerate(columns):
        values = {number: row.cells[place].mean for number, row in enumerate(rows) if _may_rank(row, column, place)}
        if not column.direction or column.is_gain or len(values) < 2:
            continue
        top = max if column.direction == "up" else min
        for rank in range(1, most + 1):
            left = {number: value for number, value in values.items() if (number, place) not in ranks}
            best = top(left.values(), default=math.nan)
            for number, value in left.items():
                # Only the last bits of a sum differ between runs that scored the same.
                if math.isclose(value, best, rel_tol=1e-12, abs_tol=1e-12):
                    ranks[number, place] = rank
    changes: dict[int, dict[int, dict[str, int]]] = {}
    for (number, place), rank in ranks.items():
        changes.setdefault(number, {})[place] = {"rank": rank}
    return [_changed(row, changes.get(number, {})) for number, row in enumerate(rows)]


def _may_rank(row: Row, column: Column, place: int) -> bool:
    """Whether a cell of a row can be best in its column."""
    source, cell = row.source(column), row.cells[place]
    return bool(source and source.competes) and cell.n == cell.expected and not math.isnan(cell.mean)


def _with_unique_labels(rows: list[Row], letters: Mapping[str, str]) -> tuple[list[Row], list[str]]:
    """The rows with labels that are unique, marks of recipes taken in, and the note that explains how."""
    names = [(row.label, letters.get(row.first.recipe)) for row in rows]
    counts = Counter(names)
    if counts.total() == len(counts):
        return rows, []
    rows = [
        replace(row, label=f"{row.label} [{row.first.digest[:8]}]") if counts[name] > 1 else row
        for row, name in zip(rows, names, strict=True)
    ]
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
