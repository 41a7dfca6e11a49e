"""Published numbers beside measured ones: by how much they differ, and what that is worth.

A row of a paper and a row of a grid are one where their jobs have one digest. Where they are the same method, loss,
plugin, options, dataset and label budget under other settings, both are shown with the settings that differ and without
a difference, which would measure the settings. What is shown how: `docs/guides/compare.md`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from statistics import fmean, median
from typing import Any

from sslbench.config.published import PublishedCell, PublishedTable, published_tables
from sslbench.config.text import first_few
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError, UsageError
from sslbench.metrics.aggregate import AVERAGE
from sslbench.reporting import remarks
from sslbench.reporting.comparison import (
    ComparedCell,
    ComparedGroup,
    ComparedRow,
    Comparison,
    Difference,
    RankCorrelation,
    Summary,
)
from sslbench.reporting.labels import budget_title, class_title, metric_style, short_title
from sslbench.reporting.model import TOGETHER, Cell, Column, Table
from sslbench.reporting.naming import NOT_PRINTED
from sslbench.reporting.pairing import Background, Own, RowPair, backgrounds, own_rows, pairs_of
from sslbench.reporting.remarks import OtherClasses
from sslbench.reporting.statistics import t_edge

__all__ = ["backgrounds", "compare", "half_width", "kendall"]

_FULL = "100%"  # the budget of full supervision, as published rows have it


def compare(tables: Sequence[Table], published: PublishedTable, known: Mapping[str, Background]) -> Comparison:
    """A published table beside the tables of a grid.

    Args:
        tables: measured; rows may be under way, or not begun. Those without a row of the paper are left out.
        published: the paper's.
        known: what stands behind the rows (`backgrounds`).

    Raises:
        UsageError: none of the published rows is among the measured ones.
    """
    own = own_rows(tables, known)
    pairs = pairs_of(published, own)
    if not any(pair.own for pair in pairs):
        raise _nothing_shared(published, own)
    used = {pair.own.source.digest for pair in pairs if pair.own}
    tables = [table for table in tables if any(one.table is table for one in own if one.source.digest in used)]
    columns = _columns(tables)
    other = _other_classes(pairs, columns)
    shown = _shown(pairs)
    told = {pair.published.order: list(dict.fromkeys(remarks.footnotes_of(pair, columns))) for pair in shown}
    footnotes = tuple(dict.fromkeys(text for texts in told.values() for text in texts))
    rows = {}
    for pair in shown:
        order = pair.published.order
        numbers = tuple(footnotes.index(text) + 1 for text in told[order])
        rows[order] = replace(_row(pair, columns, other), footnotes=numbers)
    groups = _groups(shown, rows)
    if left := [one for one in own if one.source.digest not in used and one.table in tables]:
        groups.append(ComparedGroup(NOT_PRINTED, tuple(_row_of_ours(one, columns, own) for one in left)))
    return Comparison(
        published=published,
        tables=tuple(tables),
        columns=columns,
        groups=tuple(groups),
        summary=replace(_summary(shown, rows, columns), rows=len(pairs)),
        notes=(
            *remarks.notes(published, shown, rows, columns, other, len(pairs) - len(shown)),
            *_together(tables, rows),
        ),
        footnotes=footnotes,
    )


def _together(tables: Sequence[Table], rows: Mapping[int, ComparedRow]) -> list[str]:
    """What the ring behind measured numbers says, where any has one."""
    cells = [cell.measured for row in rows.values() for cell in row.cells if cell.measured]
    told = dict.fromkeys(note for table in tables for note in table.best_notes if TOGETHER in note)
    return list(told) if any(cell.together for cell in cells) else []


def _shown(pairs: Sequence[RowPair]) -> list[RowPair]:
    """The rows of budgets that were measured, with full supervision of their datasets."""
    panels = {pair.panel for pair in pairs if pair.own}
    datasets = {dataset for dataset, _ in panels}
    return [
        pair
        for pair in pairs
        if pair.panel in panels or (pair.published.labeled == _FULL and pair.published.dataset in datasets)
    ]


def half_width(sds: tuple[float, float], counts: tuple[int, int]) -> float:
    """Half the width of the 95 % interval of a difference of two means, by Welch's t.

    Args:
        sds: sample standard deviations.
        counts: of values, at least 2 each.

    Returns:
        NaN where both spreads are 0: what was rounded away is not known.
    """
    parts = [sd**2 / count for sd, count in zip(sds, counts, strict=True)]
    total = sum(parts)
    if not total:
        return math.nan
    freedom = total**2 / sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True))
    return t_edge(freedom) * math.sqrt(total)


def kendall(pairs: Sequence[tuple[float, float]]) -> float:
    """Kendall's τ-b of two numbers of each of some things; NaN where one side is all ties."""
    signs = [
        (_sign(one[0] - other[0]), _sign(one[1] - other[1]))
        for place, one in enumerate(pairs)
        for other in pairs[place + 1 :]
    ]
    untied = [sum(sign[side] != 0 for sign in signs) for side in (0, 1)]
    agreeing = sum(first * second for first, second in signs)
    return agreeing / math.sqrt(math.prod(untied)) if all(untied) else math.nan


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)


# --------------------------------------------------------------------------------------------------------- cells


def _columns(tables: Sequence[Table]) -> tuple[Column, ...]:
    """The columns of all tables and blocks, each once: averages first, then the classes of each metric."""
    found: dict[tuple[str, str], Column] = {}
    for column in (column for table in tables for column in table.columns if column.is_measured):
        title = metric_style(column.metric).title
        average = column.class_name == AVERAGE
        header = f"Avg. {title}" if average else class_title(column.class_name)
        plain = replace(column, header=header, span="" if average else title, block="", by="metric")
        known = found.setdefault((column.metric, column.class_name), plain)
        if known.unit != plain.unit:  # blocks of two protocols: no unit holds for both
            found[column.metric, column.class_name] = replace(known, unit="")
    metrics = list(dict.fromkeys(metric for metric, _ in found))
    return tuple(sorted(found.values(), key=lambda each: (each.class_name != AVERAGE, metrics.index(each.metric))))


def _other_classes(pairs: Sequence[RowPair], columns: Sequence[Column]) -> OtherClasses:
    """The metrics whose averages are over other classes in print, as far as both sides show classes."""
    found = {}
    for metric in dict.fromkeys(column.metric for column in columns):
        printed = {name for pair in pairs for of, name in pair.published.cells if of == metric} - {AVERAGE}
        shown = {column.class_name for column in columns if column.metric == metric} - {AVERAGE}
        if printed and shown and printed != shown:
            found[metric] = sorted(printed - shown), sorted(shown - printed)
    return found


def _row(pair: RowPair, columns: Sequence[Column], other: OtherClasses) -> ComparedRow:
    row, own = pair.published, pair.own
    cells = []
    for column in columns:
        place = column.metric, column.class_name
        printed, measured = row.cells.get(place), own.cells.get(place) if own else None
        comparable = pair.comparable and not (column.class_name == AVERAGE and column.metric in other)
        cells.append(
            ComparedCell(
                measured,
                printed,
                _difference(pair, measured, printed, column) if comparable else None,
                other_unit=bool(printed and measured and printed.unit != column.unit),
                starred=bool(printed) and f"starred:{column.metric}" in row.flags,
            )
        )
    mark = own.recipe_mark if own else ""
    return ComparedRow(row.label, row, own.source if own else None, pair.settings, tuple(cells), mark)


def _row_of_ours(one: Own, columns: Sequence[Column], own: Sequence[Own]) -> ComparedRow:
    """A row that the paper lacks; where several budgets were measured, with its own."""
    budgets = dict.fromkeys((other.source.dataset, other.source.labeled) for other in own)
    budget = budget_title(one.source.dataset, str(one.values.get("splits", "")), one.source.labeled)
    named = len(budgets) > 1 and not one.row.bound
    label = f"{one.row.label}, {budget}" if named else one.row.label
    cells = tuple(ComparedCell(one.cells.get((column.metric, column.class_name)), None) for column in columns)
    return ComparedRow(label, None, one.source, (), cells, one.recipe_mark)


def _difference(
    pair: RowPair, measured: Cell | None, printed: PublishedCell | None, column: Column
) -> Difference | None:
    if pair.own is None or measured is None or printed is None or math.isnan(measured.mean):
        return None
    value = measured.mean - printed.mean
    if printed.suspect or printed.unit != column.unit:
        return Difference(value, shaded=True)
    row, protocol = pair.published, _protocol(pair.own.source.protocol)
    over_seeds = row.spread == "seeds" and protocol is not None and protocol.spread == "seeds"
    if not over_seeds or row.repeats is None or math.isnan(printed.std) or math.isnan(measured.std):
        return Difference(value)
    # What these papers print is the population SD of their repeats.
    sds = _sample_sd(measured.std, measured.n, protocol.ddof), _sample_sd(printed.std, row.repeats, 0)
    return Difference(value, half_width(sds, (measured.n, row.repeats)))


def _sample_sd(sd: float, count: int, ddof: int) -> float:
    """The sample SD of values whose sum of squares was divided by `count - ddof`."""
    return sd * math.sqrt((count - ddof) / (count - 1))


def _protocol(name: str) -> Any:
    try:
        return registry.component("protocol", name)
    except SSLBenchError:  # results outlive the package that made them
        return None


# -------------------------------------------------------------------------------------------------------- groups


def _groups(pairs: Sequence[RowPair], rows: Mapping[int, ComparedRow]) -> list[ComparedGroup]:
    """Rows in order of print, budget by budget, under the paper's headings where these do not come back."""
    panels: dict[tuple[str, str], list[RowPair]] = {}
    for pair in pairs:
        panels.setdefault(pair.panel, []).append(pair)
    several = sum(labeled != _FULL for _, labeled in panels) > 1
    groups = []
    for panel, members in panels.items():
        runs = [(heading, list(run)) for heading, run in groupby(members, key=lambda pair: pair.published.heading)]
        if max(Counter(heading for heading, _ in runs if heading).values(), default=0) > 1:
            runs = [("", members)]
        title = _panel_title(panel, panels) if several else ""
        for heading, run in runs:
            told = " · ".join(filter(None, (title, heading)))
            groups.append(ComparedGroup(told, tuple(rows[pair.published.order] for pair in run)))
    return groups


def _panel_title(panel: tuple[str, str], panels: Iterable[tuple[str, str]]) -> str:
    dataset, labeled = panel
    several = len({other for other, _ in panels}) > 1
    name = short_title(dataset)
    return f"{name}, {labeled}" if several else f"{labeled} labelled"


# ------------------------------------------------------------------------------------------------------- summary


def _summary(pairs: Sequence[RowPair], rows: Mapping[int, ComparedRow], columns: Sequence[Column]) -> Summary:
    lead = _lead(list(rows.values()), columns)
    reliable = [
        [cell.difference if cell.difference and not cell.difference.shaded else None for cell in row.cells]
        for row in rows.values()
    ]
    sizes = [abs(difference.value) for row in reliable for place in lead if (difference := row[place])]
    intervals = [difference for row in reliable for difference in row if difference and difference.interval]
    return Summary(
        compared=sum(row.compared for row in rows.values()),
        rows=len(pairs),
        lead=_lead_name([columns[place] for place in lead]),
        median=median(sizes) if sizes else math.nan,
        ranks=tuple(_ranks(pairs, rows, lead)),
        intervals=len(intervals),
        marked=sum(difference.marked for difference in intervals),
    )


def _lead(rows: Sequence[ComparedRow], columns: Sequence[Column]) -> list[int]:
    """The column that summaries are about: the first average that both sides have, else the classes of one metric."""
    both = [
        place
        for place in range(len(columns))
        if any(row.cells[place].published and row.cells[place].measured for row in rows)
    ]
    averages = [place for place in both if columns[place].class_name == AVERAGE]
    return averages[:1] or [place for place in both if columns[place].metric == columns[both[0]].metric]


def _lead_name(lead: Sequence[Column]) -> str:
    if not lead:
        return ""
    return lead[0].header if lead[0].class_name == AVERAGE else f"{lead[0].span} of classes"


def _ranks(pairs: Sequence[RowPair], rows: Mapping[int, ComparedRow], lead: Sequence[int]) -> Iterator[RankCorrelation]:
    """The rank correlation of each budget with at least three rows; copied and misprinted ones are left out."""
    panels = dict.fromkeys(pair.panel for pair in pairs)
    for panel in panels:
        scores = []
        for pair in pairs:
            cells = [rows[pair.published.order].cells[place] for place in lead]
            both = [
                (cell.measured.mean, cell.published.mean)
                for cell in cells
                if cell.measured and cell.measured.n and cell.published and not cell.published.suspect
            ]
            if pair.panel == panel and not pair.published.origin and both and len(both) == len(lead):
                scores.append((fmean(one for one, _ in both), fmean(other for _, other in both)))
        if len(scores) > 2:
            yield RankCorrelation(_panel_title(panel, panels), kendall(scores), len(scores))


def _nothing_shared(published: PublishedTable, own: Sequence[Own]) -> UsageError:
    """Why nothing stands side by side, and which tables have rows of the datasets that were measured."""
    rows = first_few([one.row.label for one in own])
    datasets = {one.source.dataset for one in own}
    near = [key for key, table in published_tables().items() if any(row.dataset in datasets for row in table.rows)]
    hint = f"tables of {', '.join(sorted(datasets))}: {', '.join(near)}" if near else "its rows are other methods"
    return UsageError(f"{published.key} has no row of these jobs ({rows})", hint)
