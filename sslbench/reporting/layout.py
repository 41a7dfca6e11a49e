"""Which rows stand in one table: one recipe, budget and protocol, or several side by side, or several together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sslbench.config import weightings
from sslbench.config.table import Baseline, TableSpec
from sslbench.reporting.labels import REFERENCE, method_group, short_title, weighted_method
from sslbench.reporting.material import PlannedRow, TableBlock


@dataclass(frozen=True)
class Line:
    """One row over all blocks.

    Attributes:
        cells: its planned row in each block; None where the grid has no such job.
        bound: whether it is an upper bound beside others.
    """

    cells: tuple[PlannedRow | None, ...]
    bound: bool

    @property
    def first(self) -> PlannedRow:
        """A row that stands for what all share."""
        return next(row for row in self.cells if row is not None)


def sheets(rows: Sequence[PlannedRow], spec: TableSpec) -> list[tuple[TableBlock, ...]]:
    """The tables to make, each with its blocks: one, without a title, where nothing stands side by side."""
    families: dict[tuple[str, ...], list[PlannedRow]] = {}
    for row in rows:
        families.setdefault(_family(row, spec), []).append(row)
    made: list[tuple[TableBlock, ...]] = []
    for members in families.values():
        if spec.blocks == "dataset":
            made.append(
                tuple(_of_dataset(members, dataset) for dataset in dict.fromkeys(row.dataset for row in members))
            )
        elif spec.blocks == "labeled":
            made.append(tuple(replace(block, title=_as_printed(block, spec)) for block in _by_budget(members)))
        else:
            made += [(TableBlock("", block.planned, block.bounds),) for block in _by_budget(members)]
    return made


def _family(row: PlannedRow, spec: TableSpec) -> tuple[str, ...]:
    """What rows must share to stand in one table: other splits or protocols give other kinds of numbers, unless the
    table says that they do."""
    if spec.blocks == "dataset":
        return ()
    return (row.dataset,) if spec.together else (row.recipe, row.dataset, row.splits, row.protocol)


def _by_budget(rows: Iterable[PlannedRow]) -> list[TableBlock]:
    budgets: dict[str, list[PlannedRow]] = {}
    for row in rows:
        budgets.setdefault(row.labeled, []).append(row)
    bounds = [labeled for labeled, members in budgets.items() if all(row.upper_bound for row in members)]
    own = [labeled for labeled in budgets if labeled not in bounds]
    beside = tuple(row for labeled in bounds if own for row in budgets[labeled])
    return [TableBlock(budgets[labeled][0].budget, tuple(budgets[labeled]), beside) for labeled in own or bounds]


def _as_printed(block: TableBlock, spec: TableSpec) -> str:
    """The budget of a block as print has it, where it does."""
    places = [row.place.printed for row in block.planned if row.place.printed is not None]
    return spec.published.rows[places[0]].labeled if spec.published and places else block.title


def _of_dataset(rows: Iterable[PlannedRow], dataset: str) -> TableBlock:
    """The block of a dataset, which has one label budget."""
    blocks = _by_budget(row for row in rows if row.dataset == dataset)
    planned = tuple(row for block in blocks for row in block.planned)
    return TableBlock(f"{short_title(dataset)} {blocks[0].title}", planned, blocks[0].bounds)


def lines(blocks: Sequence[TableBlock], order: Sequence[PlannedRow]) -> list[Line]:
    """The rows of a table, those of one job in several blocks joined.

    Args:
        order: all rows as the grid has them, which stays.
    """
    found: dict[tuple[object, ...], list[PlannedRow | None]] = {}
    for place, block in enumerate(blocks):
        seen: Counter[tuple[object, ...]] = Counter()
        for row in (*block.planned, *block.bounds):
            what = (row in block.bounds, row.protocol, row.method, row.loss, row.plugin, *row.settings.items())
            seen[what] += 1
            found.setdefault((*what, seen[what]), [None] * len(blocks))[place] = row
    places = {row: place for place, row in enumerate(order)}
    made = [Line(tuple(cells), bound=bool(key[0])) for key, cells in found.items()]
    return sorted(made, key=lambda line: places[line.first])


def baselines(block: TableBlock, named: Baseline | None = None) -> dict[PlannedRow, PlannedRow]:
    """What each row is held against, where the block has it: the same job with its last addition taken off, the plugin,
    else the loss, else the weighting; of a bare method the reference, trained on the same labels. Imported rows have
    none: how they were trained is not known.

    Args:
        named: all rows of a recipe are held against this one instead, of several the one with fewest options.
    """
    trained = [row for row in block.planned if not row.imported]
    if named is not None:
        found: dict[str, PlannedRow] = {}
        for row in sorted(trained, key=lambda row: len(row.settings)):
            if (row.method, row.loss, row.plugin) == (named.method, named.loss, named.plugin):
                found.setdefault(row.recipe, row)
        held = {row: found[row.recipe] for row in trained if row.recipe in found}
        return {row: base for row, base in held.items() if row is not base}
    known = {_identity(row): row for row in reversed(trained)}
    reference = next((row.method for row in block.planned if method_group(row.method) == REFERENCE), "")
    wanted = {row: _below(row, reference) for row in trained}
    return {row: known[below] for row, below in wanted.items() if below in known}


def ends_of_gap(block: TableBlock) -> tuple[PlannedRow, PlannedRow] | None:
    """Supervised training on the labels of the block and on all of them, of one recipe; None where it lacks one."""
    lower, upper = (
        [row for row in rows if not row.imported and _bare_reference(row)] for rows in (block.planned, block.bounds)
    )
    pairs = [(low, high) for low in lower for high in upper if _identity(low) == _identity(high)]
    return pairs[0] if pairs else None


def _bare_reference(row: PlannedRow) -> bool:
    return row.loss == "default" and not row.plugin and method_group(row.method) == REFERENCE


_Identity = tuple[str, str, str, str, frozenset[tuple[str, str]]]


def _identity(row: PlannedRow) -> _Identity:
    return row.recipe, row.method, row.loss, row.plugin, frozenset(row.settings.items())


def _below(row: PlannedRow, reference: str) -> _Identity | None:
    """The identity of what a row is held against; None where it is of the method that is the reference, or where there
    is none."""
    method, loss, plugin, taken = row.method, row.loss, row.plugin, ""
    weighted = any(weightings.concerns(path.removeprefix("method.")) for path in row.settings)
    if plugin:
        plugin, taken = "", "plugin."
    elif loss != "default":
        loss, taken = "default", "loss."
    elif weighted or weighted_method(method) != method:
        method, taken = weighted_method(method), "method.weighting"
    else:
        if reference in ("", method):
            return None
        method, taken = reference, "method."
    kept = frozenset(item for item in row.settings.items() if not item[0].startswith(taken))
    return row.recipe, method, loss, plugin, kept
