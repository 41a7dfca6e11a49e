"""Published numbers beside measured ones: which rows are one job, by how much they differ, and what that is worth.

A row of a paper and a row of a grid are the same where their jobs have one digest. Where they are the same method, loss,
plugin, options, dataset and label budget under other settings, both are shown with the settings that differ, and no
difference: it would measure the settings. Rules and layout: `docs/guides/compare.md`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median
from typing import Any

from scipy.special import stdtrit

from sslbench.config.job import Job, ResolvedJob, settings_of
from sslbench.config.published import PublishedCell, PublishedRow, PublishedTable, published_tables
from sslbench.config.splits import load_splits
from sslbench.config.text import compact, counted, first_few, split_outside_brackets
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError, UsageError
from sslbench.metrics.aggregate import AVERAGE
from sslbench.reporting.labels import dataset_title, metric_style
from sslbench.reporting.model import Cell, Column, Row, Table
from sslbench.runs.directory import Run

NOT_IN_PAPER = "Not in the paper"
LEAVES_OUT_0 = "•"
OTHER_UNIT = "‡"
MISPRINT = "?"
STARRED = "*"

_LEVEL = 0.05  # of the intervals
_PARTS = ("method.", "loss.", "plugin.", "weighting")  # paths of options; all others are settings of a recipe
_SETTINGS_SHOWN = 6


@dataclass(frozen=True)
class Background:
    """What is known of the runs of a row beside their numbers.

    Attributes:
        values: every dotted path of the resolved configuration and its value.
        partial: what their data lack, in words; empty where they are complete.
    """

    values: Mapping[str, Any]
    partial: str = ""


@dataclass(frozen=True)
class Setting:
    """A setting in which the job of a published row and a measured one differ; both in words."""

    path: str
    published: str
    here: str

    def __str__(self) -> str:
        return f"{self.path} published {self.published}, here {self.here}"


@dataclass(frozen=True)
class Difference:
    """Measured minus published, in the column's unit.

    Attributes:
        value: unrounded; the published number is as exact as its digits.
        half: half the width of its 95 % interval (Welch's t over both spreads of seeds); NaN where a spread is not known
            or not over seeds.
        shaded: whether it is no number to rely on: a misprint, or units that differ or are not stated.
    """

    value: float
    half: float = math.nan
    shaded: bool = False

    @property
    def interval(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.half)

    @property
    def marked(self) -> bool:
        """Whether the interval leaves out 0."""
        return abs(self.value) > self.half


@dataclass(frozen=True)
class ComparedCell:
    """One number twice.

    Attributes:
        measured: None where the grid has no such row or its protocol no such number; with n = 0 where runs are missing.
        published: None where the paper prints none.
        difference: None where there is nothing to compare.
        other_unit: whether both stand there in different or unstated units.
        starred: whether the paper marks its number as significant.
    """

    measured: Cell | None
    published: PublishedCell | None
    difference: Difference | None = None
    other_unit: bool = False
    starred: bool = False


@dataclass(frozen=True)
class ComparedRow:
    """One row of the paper, of the grid, or of both.

    Attributes:
        label: as printed; of a row that the paper lacks, as in tables of ours.
        published, measured: None where there is none.
        settings: in which their jobs differ; then no cell has a difference.
        cells: one per column.
        footnotes: numbers of those that concern it, from 1.
    """

    label: str
    published: PublishedRow | None
    measured: Row | None
    settings: tuple[Setting, ...]
    cells: tuple[ComparedCell, ...]
    footnotes: tuple[int, ...] = ()

    @property
    def origin(self) -> str:
        """The table that the published numbers were copied from; empty: they are that paper's own."""
        return self.published.origin if self.published else ""

    @property
    def full_label(self) -> str:
        """The label, with the count of seeds where some are missing."""
        row = self.measured
        return self.label if row is None or row.n == row.expected else f"{self.label} ({row.n}/{row.expected} seeds)"


@dataclass(frozen=True)
class ComparedGroup:
    """Rows under one heading, which may be empty."""

    title: str
    rows: tuple[ComparedRow, ...]


@dataclass(frozen=True)
class RankCorrelation:
    """Kendall's τ-b of measured and published rows at one label budget; NaN where one side is all ties."""

    budget: str
    tau: float
    rows: int


@dataclass(frozen=True)
class Summary:
    """What the line under the table says.

    Attributes:
        compared, rows: published rows with a difference, and all of them.
        lead: name of the column that the next two are about.
        median: of absolute differences; NaN where there is none.
        ranks: of rows that stand side by side, compared or not.
        intervals, marked: how many there are, and how many of them leave out 0.
    """

    compared: int
    rows: int
    lead: str
    median: float
    ranks: tuple[RankCorrelation, ...]
    intervals: int
    marked: int

    @property
    def by_chance(self) -> float:
        """How many intervals leave out 0 on average where nothing differs."""
        return _LEVEL * self.intervals

    def __str__(self) -> str:
        told = [f"Compared: {self.compared} of {counted(self.rows, 'row')}"]
        if not math.isnan(self.median):
            told.append(f"; median |Δ| {self.median:.2f} ({self.lead})")
        told.append(".")
        if self.intervals:
            left = f"{self.marked} of {counted(self.intervals, 'interval')} leave{'s' * (self.marked == 1)} out 0"
            told.append(f" {left}; chance alone gives {self.by_chance:.1f}.")
        if self.ranks:
            several = len(self.ranks) > 1
            ranks = (
                f"{rank.tau:.2f} over {rank.rows} rows" + (f" ({rank.budget})" if several else "")
                for rank in self.ranks
                if not math.isnan(rank.tau)
            )
            told.append(f" Rank correlation (Kendall's τ-b, {self.lead}): {', '.join(ranks) or 'all ties'}.")
        return "".join(told)


@dataclass(frozen=True)
class Comparison:
    """A published table beside measured ones.

    Attributes:
        published: the table.
        tables: what was measured.
        columns: those of the measured tables, each once.
        groups: rows in order of print, then those that the paper lacks.
        summary: the line under it.
        notes: what a reader must know, a sentence or two each.
        footnotes: of rows, by number.
    """

    published: PublishedTable
    tables: tuple[Table, ...]
    columns: tuple[Column, ...]
    groups: tuple[ComparedGroup, ...]
    summary: Summary
    notes: tuple[str, ...]
    footnotes: tuple[str, ...]

    @property
    def rows(self) -> list[ComparedRow]:
        """All rows in order, groups aside."""
        return [row for group in self.groups for row in group.rows]

    @property
    def name(self) -> str:
        """Fit for a file, and for a label in a document."""
        return f"{self.tables[0].grid or self.tables[0].name}-against-{self.published.grid}"

    @property
    def heading(self) -> str:
        """The published table's title, and what stands beside it."""
        return f"{self.published.title}. Measured beside published."

    @property
    def measured(self) -> tuple[str, ...]:
        """How each of the tables was made and measured, and its notes, each sentence once."""
        told = [said for table in self.tables for said in (table.title, table.measured, *table.notes) if said]
        return tuple(dict.fromkeys(told))


# ---------------------------------------------------------------------------------------------------- background


def backgrounds(jobs: Iterable[Job], runs: Iterable[Run]) -> dict[str, Background]:
    """What is known of rows by the digest of their runs: from jobs before they ran, from run directories after.

    Args:
        jobs: of a grid; none where runs are reported without one.
        runs: begun or not; damaged ones tell nothing.
    """
    found = {job.digest(): Background(job.resolved.values) for job in jobs}
    for run in runs:
        if run.begun and run.state != "damaged":
            known = found.get(run.digest) or Background(run.values)
            found[run.digest] = replace(known, partial=known.partial or _lacks(run))
    return found


def _lacks(run: Run) -> str:
    cases, official = run.data.get("found"), run.data.get("official")
    if isinstance(cases, int) and isinstance(official, int) and cases < official:
        return f"{cases} of {official} cases"
    fewer = run.splits.get("lacking", {})
    return ", ".join(f"{number} {part} entries fewer" for part, number in fewer.items() if number)


@dataclass(frozen=True, eq=False)
class _Own:
    """A measured row with its table and background."""

    row: Row
    table: Table
    background: Background
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def values(self) -> Mapping[str, Any]:
        """The resolved configuration, with the protocol that the numbers are under."""
        return {**self.background.values, "protocol": self.table.protocol}

    def cell(self, column: Column) -> Cell | None:
        places = {(other.metric, other.class_name): place for place, other in enumerate(self.table.columns)}
        place = places.get((column.metric, column.class_name))
        return None if place is None else self.row.cells[place]


def _own_rows(tables: Sequence[Table], known: Mapping[str, Background]) -> list[_Own]:
    """The measured rows, each once: an upper bound stands in several tables."""
    found: dict[str, _Own] = {}
    for table in tables:
        for row in table.rows:
            settings = (item.partition("=") for item in split_outside_brackets(row.variant))
            options = {path: value for path, _, value in settings if path.startswith(_PARTS)}
            found.setdefault(row.digest, _Own(row, table, known.get(row.digest, Background({})), options))
    return list(found.values())


# ------------------------------------------------------------------------------------------------------- pairing


@dataclass(frozen=True, eq=False)
class _Pair:
    """A published row and the measured one beside it, if any."""

    published: PublishedRow
    own: _Own | None
    settings: tuple[Setting, ...] = ()

    @property
    def panel(self) -> tuple[str, str]:
        return self.published.dataset, self.published.labeled

    @property
    def comparable(self) -> bool:
        """Whether a difference says something: one job, and a number of this very paper."""
        return self.own is not None and not self.settings and not self.published.origin


def _pairs(published: PublishedTable, own: Sequence[_Own]) -> list[_Pair]:
    """Each published row with the measured one that is its job, or comes nearest.

    Where the two tables share no dataset and budget at all, rows are paired by their names alone.
    """
    resolved = {row.order: job.resolved for row in published.rows if (job := row.job())}
    digests = {one.row.digest: one for one in own}
    shared = any(_same_budget(job, one) for job in resolved.values() for one in own)
    pairs = []
    for row in published.rows:
        job = resolved.get(row.order)
        if job is None:
            pairs.append(_Pair(row, None))
            continue
        same = digests.get(job.digest)
        alike = [same] if same else [
            one for one in own if _same_name(job, one) and (not shared or _same_budget(job, one))
        ]  # fmt: skip
        differing = [(one, _settings(job, one)) for one in alike]
        nearest, settings = min(differing, key=lambda found: len(found[1]), default=(None, ()))
        pairs.append(_Pair(row, nearest, settings))
    return pairs


def _same_name(job: ResolvedJob, one: _Own) -> bool:
    asked = job.job
    names = asked.method, asked.loss, asked.plugin or ""
    options = settings_of(asked.model_dump())
    spelt = {path: compact(value) for path, value in options.items() if path.startswith(_PARTS)}
    return names == (one.row.method, one.row.loss, one.row.plugin) and spelt == one.options


def _same_budget(job: ResolvedJob, one: _Own) -> bool:
    """Whether both have one dataset and one label budget, by the names in either's lists."""
    if job.recipe.dataset != one.table.dataset:
        return False
    if job.job.labeled == one.row.labeled:
        return True
    try:
        lists = load_splits(one.table.dataset, str(one.values.get("splits")))
        return lists.budget(job.job.labeled).slug == one.row.labeled
    except SSLBenchError:
        return False


_FIRST = (
    "dataset", "labeled", "data", "preprocessing", "splits", "protocol", "network.name", "patch_size", "batch.labeled",
    "batch.unlabeled", "schedule.iterations", "optimizer.lr", "checkpoint",
)  # fmt: skip


def _settings(job: ResolvedJob, one: _Own) -> tuple[Setting, ...]:
    """In what the job of a published row and the measured one differ, what weighs most first."""
    theirs, ours = dict(job.values), dict(one.values)
    if not one.background.values:  # records without a configuration: only the digest tells
        theirs = {"dataset": job.recipe.dataset, "protocol": job.recipe.protocol}
        ours["dataset"] = one.table.dataset
    if theirs.get("network.name") != ours.get("network.name"):  # the options of two networks are two things
        theirs, ours = ({path: value for path, value in values.items() if not path.startswith("network.") or
                         path == "network.name"} for values in (theirs, ours))  # fmt: skip
    if not _same_budget(job, one):
        theirs["labeled"], ours["labeled"] = job.job.labeled, one.row.labeled
    if one.background.partial:
        theirs["data"], ours["data"] = "complete", one.background.partial
    paths = sorted(theirs.keys() | ours.keys(), key=lambda path: (_FIRST.index(path) if path in _FIRST else 99, path))
    found = [
        Setting(path, _spelt(theirs.get(path)), _spelt(ours.get(path)))
        for path in paths
        if theirs.get(path) != ours.get(path)
    ]
    if not found and job.digest != one.row.digest:
        found = [Setting("versions", "today's code and case lists", "others")]
    return tuple(found)


def _spelt(value: Any) -> str:
    """A value for people: `17 000`, `96×96×96`, `none`."""
    if value is None:
        return "none"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1000:
        return f"{value:,}".replace(",", " ")
    if isinstance(value, list) and value and all(isinstance(item, int) for item in value):
        return "×".join(map(str, value))
    return compact(value)


# ----------------------------------------------------------------------------------------------------- comparing


def compare(tables: Sequence[Table], published: PublishedTable, known: Mapping[str, Background]) -> Comparison:
    """A published table beside the tables of a grid.

    Args:
        tables: measured, with rows under way or not.
        published: the paper's.
        known: what stands behind the rows, by digest (`backgrounds`).

    Raises:
        UsageError: none of the published rows is among the measured ones.
    """
    own = _own_rows(tables, known)
    pairs = _pairs(published, own)
    if not any(pair.own for pair in pairs):
        raise _nothing_shared(published, own)
    columns = _columns(tables)
    classes = _other_classes(pairs, columns)
    notes = _Footnotes()
    rows = {pair.published.order: _row(pair, columns, classes, notes) for pair in pairs}
    groups = _groups(pairs, rows)
    used = {pair.own.row.digest for pair in pairs if pair.own}
    if left := [one for one in own if one.row.digest not in used]:
        groups.append(ComparedGroup(NOT_IN_PAPER, tuple(_own_row(one, columns, own) for one in left)))
    return Comparison(
        published=published,
        tables=tuple(tables),
        columns=columns,
        groups=tuple(groups),
        summary=_summary(pairs, rows, columns),
        notes=tuple(_notes(published, pairs, rows, columns, classes)),
        footnotes=tuple(notes.texts),
    )


def half_width(sds: tuple[float, float], counts: tuple[int, int]) -> float:
    """Half the width of the 95 % interval of a difference of two means, by Welch's t.

    Args:
        sds: sample standard deviations.
        counts: of values, at least 2 each.

    Returns:
        NaN where both spreads are 0: nothing is known of the differences that were rounded away.
    """
    parts = [sd**2 / count for sd, count in zip(sds, counts, strict=True)]
    total = sum(parts)
    if not total:
        return math.nan
    freedom = total**2 / sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True))
    return float(stdtrit(freedom, 1 - _LEVEL / 2)) * math.sqrt(total)


def kendall(pairs: Sequence[tuple[float, float]]) -> float:
    """Kendall's τ-b of two rankings of the same things; NaN where one of them is all ties."""
    signs = [
        (_sign(one[0] - other[0]), _sign(one[1] - other[1]))
        for place, one in enumerate(pairs)
        for other in pairs[place + 1 :]
    ]
    untied = math.prod(sum(bool(sign[side]) for sign in signs) for side in (0, 1))
    return sum(first * second for first, second in signs) / math.sqrt(untied) if untied else math.nan


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)


def _columns(tables: Sequence[Table]) -> tuple[Column, ...]:
    """The columns of all tables, each once, averages first."""
    found: dict[tuple[str, str], Column] = {}
    for table in tables:
        for column in table.columns:
            found.setdefault((column.metric, column.class_name), column)
    return tuple(sorted(found.values(), key=lambda column: column.class_name != AVERAGE))


def _other_classes(pairs: Sequence[_Pair], columns: Sequence[Column]) -> dict[str, tuple[list[str], list[str]]]:
    """Metrics whose averages are over other classes: those that only the paper has, and those that only we have."""
    found = {}
    for metric in dict.fromkeys(column.metric for column in columns):
        printed = {name for pair in pairs for of, name in pair.published.cells if of == metric} - {AVERAGE}
        shown = {column.class_name for column in columns if column.metric == metric} - {AVERAGE}
        if printed and shown and printed != shown:
            found[metric] = sorted(printed - shown), sorted(shown - printed)
    return found


def _row(pair: _Pair, columns: Sequence[Column], classes: Mapping[str, Any], notes: _Footnotes) -> ComparedRow:
    row = pair.published
    cells = []
    for column in columns:
        printed = row.cells.get((column.metric, column.class_name))
        measured = pair.own.cell(column) if pair.own else None
        units = bool(printed and measured and printed.unit != column.unit)
        other = column.class_name == AVERAGE and column.metric in classes
        difference = _difference(pair, measured, printed, column) if pair.comparable and not other else None
        starred = printed is not None and column.class_name == AVERAGE and f"starred:{column.metric}" in row.flags
        cells.append(ComparedCell(measured, printed, difference, units, starred))
    numbers = tuple(notes.number(text) for text in _footnotes_of(pair, columns))
    return ComparedRow(row.label, row, pair.own.row if pair.own else None, pair.settings, tuple(cells), numbers)


def _own_row(one: _Own, columns: Sequence[Column], own: Sequence[_Own]) -> ComparedRow:
    several = len({other.table.labeled for other in own}) > 1
    label = f"{one.row.label} ({one.table.dataset}, {one.row.labeled})" if several else one.row.label
    return ComparedRow(label, None, one.row, (), tuple(ComparedCell(one.cell(column), None) for column in columns))


def _difference(pair: _Pair, measured: Cell | None, printed: PublishedCell | None, column: Column) -> Difference | None:
    if pair.own is None or measured is None or printed is None or math.isnan(measured.mean):
        return None
    value = measured.mean - printed.mean
    if printed.suspect or printed.unit != column.unit:
        return Difference(value, shaded=True)
    row, protocol = pair.published, _protocol(pair.own.table.protocol)
    over_seeds = row.spread == "seeds" and protocol is not None and protocol.spread == "seeds"
    if not over_seeds or row.repeats is None or math.isnan(printed.std) or math.isnan(measured.std):
        return Difference(value)
    counts = measured.n, row.repeats
    # What these papers print is the population SD of their repeats (`ga`, `dhc-2023`).
    sds = _sample_sd(measured.std, measured.n, protocol.ddof), _sample_sd(printed.std, row.repeats, 0)
    return Difference(value, half_width(sds, counts))


def _sample_sd(sd: float, count: int, ddof: int) -> float:
    """The sample SD of values whose sum of squares was divided by `count - ddof`."""
    return sd * math.sqrt((count - ddof) / (count - 1))


def _protocol(name: str) -> Any:
    try:
        return registry.component("protocol", name)
    except SSLBenchError:  # results outlive the package that made them
        return None


# -------------------------------------------------------------------------------------------------------- groups


def _groups(pairs: Sequence[_Pair], rows: Mapping[int, ComparedRow]) -> list[ComparedGroup]:
    """Rows in order of print, budget by budget, under the paper's headings where these do not come back."""
    panels: dict[tuple[str, str], list[_Pair]] = {}
    for pair in pairs:
        panels.setdefault(pair.panel, []).append(pair)
    budgets = {panel for panel in panels if panel[1] != "100%"}
    groups = []
    for panel, members in panels.items():
        runs = list(_runs_of_headings(members))
        if max(Counter(heading for heading, _ in runs if heading).values(), default=0) > 1:
            runs = [("", members)]
        title = _panel_title(panel, panels) if len(budgets) > 1 else ""
        for heading, some in runs:
            told = " · ".join(part for part in (title, heading) if part)
            groups.append(ComparedGroup(told, tuple(rows[pair.published.order] for pair in some)))
    return groups


def _runs_of_headings(members: Sequence[_Pair]) -> Iterator[tuple[str, list[_Pair]]]:
    run: list[_Pair] = []
    for pair in members:
        if run and run[-1].published.heading != pair.published.heading:
            yield run[-1].published.heading, run
            run = []
        run.append(pair)
    yield run[-1].published.heading, run


def _panel_title(panel: tuple[str, str], panels: Iterable[tuple[str, str]]) -> str:
    dataset, labeled = panel
    several = len({other for other, _ in panels}) > 1
    return f"{dataset_title(dataset)}, {labeled}" if several else f"{labeled} labelled"


# ------------------------------------------------------------------------------------------------------- summary


def _summary(pairs: Sequence[_Pair], rows: Mapping[int, ComparedRow], columns: Sequence[Column]) -> Summary:
    lead = _lead(rows.values(), columns)
    differences = [
        [cell.difference for cell in row.cells if cell.difference and not cell.difference.shaded]
        for row in rows.values()
    ]
    leading = [rows[pair.published.order].cells[place] for pair in pairs for place in lead]
    sizes = [abs(cell.difference.value) for cell in leading if cell.difference and not cell.difference.shaded]
    intervals = [difference for found in differences for difference in found if difference.interval]
    column = columns[lead[0]] if lead else None
    name = "" if column is None else column.header if column.class_name == AVERAGE else f"{column.span} of classes"
    return Summary(
        compared=sum(bool(found) for found in differences),
        rows=len(pairs),
        lead=name,
        median=median(sizes) if sizes else math.nan,
        ranks=_ranks(pairs, rows, lead),
        intervals=len(intervals),
        marked=sum(difference.marked for difference in intervals),
    )


def _lead(rows: Iterable[ComparedRow], columns: Sequence[Column]) -> list[int]:
    """The column that summaries are about: the first average that both sides have, else the classes of one metric."""
    both = [
        place
        for place in range(len(columns))
        if any(row.cells[place].published and row.cells[place].measured for row in rows)
    ]
    averages = [place for place in both if columns[place].class_name == AVERAGE]
    return averages[:1] or [place for place in both if columns[place].metric == columns[both[0]].metric]


def _ranks(pairs: Sequence[_Pair], rows: Mapping[int, ComparedRow], lead: Sequence[int]) -> tuple[RankCorrelation, ...]:
    """The rank correlation of each budget that has at least three rows; copies and misprints are left out."""
    scores: dict[str, list[tuple[float, float]]] = {}
    panels = [pair.panel for pair in pairs]
    for pair in pairs:
        cells = [rows[pair.published.order].cells[place] for place in lead]
        both = [
            (cell.measured.mean, cell.published.mean)
            for cell in cells
            if cell.measured and cell.measured.n and cell.published and not cell.published.suspect
        ]
        if both and len(both) == len(lead) and not pair.published.origin:
            means = fmean(one for one, _ in both), fmean(other for _, other in both)
            scores.setdefault(_panel_title(pair.panel, panels), []).append(means)
    return tuple(
        RankCorrelation(title, kendall(found), len(found)) for title, found in scores.items() if len(found) > 2
    )


# --------------------------------------------------------------------------------------------------------- notes


class _Footnotes:
    """Footnotes as they come up, each once."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> int:
        """The number of a footnote, from 1."""
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def _footnotes_of(pair: _Pair, columns: Sequence[Column]) -> Iterator[str]:
    """What concerns a published row as a whole, or one of its cells that is no misprint."""
    row = pair.published
    if row.reason:
        yield f"No job stands behind this row: {row.reason}."
    if pair.own and row.network_here and row.network_here != row.network_published:
        yield f"Published with network {row.network_published}, here {row.network_here}."
    if "base-inferred" in row.flags:
        yield "The method under the loss is not stated; it was inferred from the numbers."
    if "reconstructed" in row.flags and pair.own:
        yield "The method here is a reconstruction: its paper is not among the sources."
    shown = {(column.metric, column.class_name): column for column in columns}
    plain = {place: cell.note for place, cell in row.cells.items() if cell.note and not (cell.suspect or cell.filled)}
    starred = {place for place in plain if f"starred:{place[0]}" in row.flags}
    for note in dict.fromkeys(note for place, note in plain.items() if place not in starred):
        if "base-inferred" in row.flags and note.startswith("the method under"):
            continue
        places = [place for place, other in plain.items() if other == note]
        if len(places) > len(row.cells) / 2:
            yield _sentence(note)
        elif named := [_cell_name(shown[place]) for place in places if place in shown]:
            yield _sentence(f"{first_few(named)}: {note}")


def _notes(
    published: PublishedTable,
    pairs: Sequence[_Pair],
    rows: Mapping[int, ComparedRow],
    columns: Sequence[Column],
    classes: Mapping[str, tuple[list[str], list[str]]],
) -> Iterator[str]:
    """What a reader must know beside the numbers, in the order in which questions come up."""
    cells = [cell for row in rows.values() for cell in row.cells]
    told = [cell.difference for cell in cells if cell.difference]
    if told:
        yield _about_differences(published, pairs, told)
    yield from _about_settings(pairs)
    for metric, (theirs, ours) in classes.items():
        lacking = [
            f"{', '.join(names)} in {where} alone" for names, where in ((theirs, "print"), (ours, "ours")) if names
        ]
        yield f"Averages of {metric_style(metric).title} are over other classes, so they have no difference: {'; '.join(lacking)}."
    if copied := dict.fromkeys(pair.published.origin for pair in pairs if pair.published.origin):
        grids = ", ".join(f"{published_tables()[key].grid} (--against {key})" for key in copied)
        yield f"Grey with a table's name: copied in print from there, under another protocol; compared by {grids}."
    if any(cell.other_unit for cell in cells):
        yield f"{OTHER_UNIT} Units differ or are not stated in print: no interval, not in the summary."
    yield from _about_misprints(rows.values(), columns)
    if filled := [cell.published.note for cell in cells if cell.published and cell.published.filled]:
        yield f"In square brackets: {'; '.join(dict.fromkeys(filled))}."
    if any(cell.starred for cell in cells):
        yield f"{STARRED} Starred in print, by that paper's own test over cases."
    if absent := sum(pair.own is None and not pair.published.reason for pair in pairs):
        yield f"Without a measured number: {counted(absent, 'row')} that {'is' if absent == 1 else 'are'} not in the grid."


def _about_differences(published: PublishedTable, pairs: Sequence[_Pair], told: Sequence[Difference]) -> str:
    text = "Δ: measured minus published"
    if any(difference.interval for difference in told):
        repeats = max(pair.published.repeats or 0 for pair in pairs)
        text += f", ± half of its 95 % interval (Welch, spreads over seeds; {repeats} repeats in print)"
        if any(difference.marked for difference in told):
            text += f"; {LEAVES_OUT_0} it leaves out 0"
    whys = {
        "cases": "± in print is over test cases",
        "unsaid": "print does not say what ± is over",
        "none": "print has no ±",
    }
    spreads = {pair.published.spread for pair in pairs if pair.comparable}
    without = [why for spread, why in whys.items() if spread in spreads]
    return text + (f"; no interval, as {' and '.join(without)}." if without else ".")


def _about_settings(pairs: Sequence[_Pair]) -> Iterator[str]:
    """The settings in which rows differ from print: what all such rows share, then what is each one's own."""
    apart = [pair for pair in pairs if pair.settings]
    if not apart:
        return
    shared = [setting for setting in apart[0].settings if all(setting in pair.settings for pair in apart)]
    beside = [pair for pair in pairs if pair.own]
    rows = "all rows" if len(apart) == len(beside) else counted(len(apart), "row")
    if shared:
        yield f"No difference in {rows}: {_some(shared)}."
    others: dict[tuple[Setting, ...], list[str]] = {}
    for pair in apart:
        if own := tuple(setting for setting in pair.settings if setting not in shared):
            others.setdefault(own, []).append(pair.published.label)
    for settings, labels in others.items():
        yield f"{'Also' if shared else 'No difference'} in {first_few(list(dict.fromkeys(labels)))}: {_some(settings)}."


def _some(settings: Sequence[Setting]) -> str:
    left = len(settings) - _SETTINGS_SHOWN
    told = "; ".join(map(str, settings[:_SETTINGS_SHOWN]))
    return f"{told}; and {counted(left, 'setting')} more (--json has all)" if left > 0 else told


def _about_misprints(rows: Iterable[ComparedRow], columns: Sequence[Column]) -> Iterator[str]:
    doubtful, impossible = [], []
    for row in rows:
        for cell, column in zip(row.cells, columns, strict=True):
            printed = cell.published
            if printed and printed.doubtful:
                doubtful.append(f"{row.label}, {_cell_name(column)}: {printed.note}")
            elif printed and printed.impossible:
                impossible.append(f"{row.label}, {_cell_name(column)}")
    if doubtful:
        yield f"{MISPRINT} As printed, a misprint by what stands beside it, not in the summary. {'; '.join(doubtful)}."
    if impossible:
        yield (
            f"{MISPRINT} Not possible beside the mean Dice that is printed, not in the summary: "
            f"{counted(len(impossible), 'number')} ({first_few(impossible, 3)})."
        )


def _cell_name(column: Column) -> str:
    return column.header if column.class_name == AVERAGE else f"{column.header} ({column.span})"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _nothing_shared(published: PublishedTable, own: Sequence[_Own]) -> UsageError:
    """Why nothing stands side by side, and which tables have rows of the datasets that were measured."""
    rows = first_few([one.row.label for one in own])
    datasets = {one.table.dataset for one in own}
    near = [key for key, table in published_tables().items() if any(row.dataset in datasets for row in table.rows)]
    hint = f"tables of {', '.join(sorted(datasets))}: {', '.join(near)}" if near else "its rows are other methods"
    return UsageError(f"{published.key} has no row of these jobs ({rows})", hint)
