"""Which measured row is the job of a published one, or comes nearest to it, and in what the two differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sslbench.config.job import ResolvedJob, settings_of
from sslbench.config.published import PublishedRow, PublishedTable
from sslbench.config.splits import load_splits
from sslbench.config.text import compact, split_outside_brackets
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError
from sslbench.reporting.comparison import Setting
from sslbench.reporting.labels import budget_title, is_full_budget
from sslbench.reporting.model import Cell, Row, RowSource, Table, superscript
from sslbench.runs.directory import RUNS, Run

_PARTS = ("method.", "loss.", "plugin.", "weighting")  # paths of options; all others are settings of a recipe
# Settings that weigh most, in this order; others follow by name.
_FIRST = (
    "dataset", "labeled", "data", "preprocessing", "splits", "protocol", "network.name", "patch_size", "batch.labeled",
    "batch.unlabeled", "schedule.iterations", "optimizer.lr", "checkpoint",
)  # fmt: skip


@dataclass(frozen=True)
class Background:
    """What is known of the runs of a row beside their numbers.

    Attributes:
        values: every dotted path of the resolved configuration and its value; empty where records came alone.
        partial: what their data lack, in words; empty where they are complete.
    """

    values: Mapping[str, Any]
    partial: str = ""


@dataclass(frozen=True, eq=False)
class Own:
    """The measured row of one job, with what stands behind it."""

    row: Row
    source: RowSource
    table: Table
    background: Background

    @cached_property
    def cells(self) -> dict[tuple[str, str], Cell]:
        """The numbers by metric and class."""
        cells = zip(self.table.columns, self.row.cells, strict=True)
        return {
            (column.metric, column.class_name): cell for column, cell in cells if self.row.source(column) is self.source
        }

    @cached_property
    def footnotes(self) -> list[str]:
        """What the measured table says of this row alone."""
        raised = superscript(self.row.marks)
        return [text for mark, _, text in (note.partition(" ") for note in self.table.footnotes) if mark in raised]

    @cached_property
    def recipe_mark(self) -> str:
        """The letter of its recipe, where the table has rows of several; else empty."""
        others = {note.partition(" ")[0] for note in self.table.footnotes}
        return "".join(letter for letter in self.row.marks if superscript(letter) not in others)

    @cached_property
    def values(self) -> dict[str, Any]:
        """The resolved configuration, with the protocol that the numbers are under."""
        return {**self.background.values, "dataset": self.source.dataset, "protocol": self.source.protocol}

    @cached_property
    def options(self) -> dict[str, str]:
        """What the job sets of method, loss and plugin beside their names."""
        settings = (item.partition("=") for item in split_outside_brackets(self.source.variant))
        return {path: value for path, _, value in settings if path.startswith(_PARTS)}


@dataclass(frozen=True, eq=False)
class RowPair:
    """A published row and the measured one beside it, if any."""

    published: PublishedRow
    own: Own | None
    settings: tuple[Setting, ...] = ()

    @property
    def panel(self) -> tuple[str, str]:
        """Dataset and label budget."""
        return self.published.dataset, self.published.labeled

    @property
    def comparable(self) -> bool:
        """Whether a difference says something: one job, and numbers that are this very paper's."""
        return self.own is not None and not self.settings and not self.published.origin


def backgrounds(tables: Iterable[Table], results: Path) -> dict[str, Background]:
    """What is known of the rows of tables, by digest: from their jobs and from their run directories.

    Args:
        results: the folder that holds `runs`.
    """
    found: dict[str, Background] = {}
    for source in (source for table in tables for row in table.rows for source in row.sources):
        if source.digest in found:
            continue
        runs = [Run(results / RUNS / name) for name in source.runs]
        values = source.job.values if source.job else runs[0].values if runs and runs[0].begun else {}
        lacking = (_lacking(run) for run in runs)
        found[source.digest] = Background(values, next(filter(None, lacking), ""))
    return found


def _lacking(run: Run) -> str:
    cases, official = run.case_counts
    if cases < official:
        return f"{cases} of {official} cases"
    return ", ".join(f"{number} {part} cases fewer" for part, number in run.splits.get("lacking", {}).items() if number)


def own_rows(tables: Sequence[Table], known: Mapping[str, Background]) -> list[Own]:
    """The measured jobs, each once: an upper bound stands in several tables and blocks."""
    found: dict[str, Own] = {}
    for table in tables:
        for row in table.rows:
            for source in row.sources:
                background = known.get(source.digest, Background({}))
                found.setdefault(source.digest, Own(row, source, table, background))
    return list(found.values())


def pairs_of(published: PublishedTable, own: Sequence[Own]) -> list[RowPair]:
    """Each published row with the measured one that is its job, else the nearest of its method, loss, plugin, options,
    dataset and budget; a variant of its method stands in where the method itself was not run.

    Where both sides share no dataset and budget at all, rows are paired by their other names alone.
    """
    jobs = {order: job.resolved for order, job in published.jobs.items()}
    by_digest = {one.source.digest: one for one in own}
    shared = any(_same_budget(job, one) for job in jobs.values() for one in own)
    pairs = []
    for row in _distinct(published.rows):
        alike: list[tuple[Own, tuple[Setting, ...]]] = []
        if resolved := jobs.get(row.order):
            same = by_digest.get(resolved.digest)
            fits = _same_budget if shared else _as_much
            near = [one for one in own if _same_name(resolved, one) and fits(resolved, one)]
            near = near or [one for one in own if _is_variant(resolved, one) and fits(resolved, one)]
            alike = [(one, settings_apart(resolved, one)) for one in ([same] if same else near)]
        nearest, settings = min(alike, key=lambda found: len(found[1])) if alike else (None, ())
        pairs.append(RowPair(row, nearest, settings))
    return pairs


def _distinct(rows: Iterable[PublishedRow]) -> list[PublishedRow]:
    """The rows without those that stand twice: full supervision, in each of two blocks."""
    found: dict[object, PublishedRow] = {}
    for row in rows:
        numbers = tuple((*place, cell.printed, cell.printed_std) for place, cell in row.cells.items())
        found.setdefault((row.label, row.dataset, row.labeled, numbers), row)
    return list(found.values())


def settings_apart(job: ResolvedJob, one: Own) -> tuple[Setting, ...]:
    """In what the job of a published row and a measured one differ, what weighs most first."""
    theirs = {**job.values, "dataset": job.recipe.dataset, "protocol": job.recipe.protocol}
    ours = dict(one.values)
    if not one.background.values:  # records that came without a configuration: only the digest tells
        theirs = {path: theirs[path] for path in ours}
    if theirs.get("network.name") != ours.get("network.name"):  # options of two networks are two things
        theirs, ours = _without_network_options(theirs), _without_network_options(ours)
    if not _same_budget(job, one):
        theirs["labeled"] = budget_title(job.recipe.dataset, job.recipe.splits, job.job.labeled)
        ours["labeled"] = budget_title(one.source.dataset, str(one.values.get("splits")), one.source.labeled)
    if one.background.partial:
        theirs["data"], ours["data"] = "complete", one.background.partial
    paths = sorted(theirs.keys() | ours.keys(), key=lambda path: (_weight(path), path))
    differing = [path for path in paths if theirs.get(path) != ours.get(path)]
    if not differing and job.digest != one.source.digest:
        return (Setting("versions of code or case lists", "today's", "others"),)
    return tuple(Setting(path, _spelt(theirs.get(path)), _spelt(ours.get(path))) for path in differing)


def _without_network_options(values: Mapping[str, Any]) -> dict[str, Any]:
    return {path: value for path, value in values.items() if not path.startswith("network.") or path == "network.name"}


def _weight(path: str) -> int:
    return _FIRST.index(path) if path in _FIRST else len(_FIRST)


def _same_name(job: ResolvedJob, one: Own) -> bool:
    """Whether method, loss, plugin and their options are the same."""
    asked, source = job.job, one.source
    settings = settings_of(asked.model_dump())
    options = {path: compact(value) for path, value in settings.items() if path.startswith(_PARTS)}
    names = source.method, source.loss, source.plugin
    return names == (asked.method, asked.loss, asked.plugin or "") and options == one.options


def _is_variant(job: ResolvedJob, one: Own) -> bool:
    """Whether the method of a measured row is a variant of the other's that has no name of its own in tables:
    `magicnet_released` of `magicnet`."""
    asked, source = job.job, one.source
    if (source.loss, source.plugin) != (asked.loss, asked.plugin or ""):
        return False
    try:
        facts = registry.facts("method", source.method)
    except SSLBenchError:  # results outlive the package that made them
        return False
    return facts.base == asked.method != facts.name and not facts.title


def _same_budget(job: ResolvedJob, one: Own) -> bool:
    """Whether both have one dataset and one label budget, by the names in the lists of either."""
    if job.recipe.dataset != one.source.dataset:
        return False
    if job.job.labeled == one.source.labeled:
        return True
    try:
        lists = load_splits(one.source.dataset, str(one.values.get("splits")))
        return lists.budget(job.job.labeled).slug == one.source.labeled
    except SSLBenchError:
        return False


def _as_much(job: ResolvedJob, one: Own) -> bool:
    """Whether both have all labels, or both have not, of whatever dataset."""
    full = is_full_budget(job.recipe.dataset, job.recipe.splits, job.job.labeled)
    return full == is_full_budget(one.source.dataset, str(one.values.get("splits")), one.source.labeled)


def _spelt(value: Any) -> str:
    """A value for people: `17 000`, `96×96×96`, `none`."""
    if value is None:
        return "none"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1000:
        return f"{value:,}".replace(",", " ")
    if isinstance(value, list) and value and all(isinstance(item, int) for item in value):
        return "×".join(map(str, value))
    return compact(value)
