"""What does not fit together in the published tables, computed from their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sslbench.config.published import PublishedCell, PublishedRow, PublishedTable, published_papers, published_tables
from sslbench.reporting.labels import class_title, metric_style
from sslbench.reporting.printed import row_name

InconsistencyKind = Literal["average", "jaccard-low", "jaccard-high", "copied"]

# What rounding of the classes may do to an average: percents have one decimal, distances two.
OVERLAP_TOLERANCE = {"dsc": 0.15, "jaccard": 0.15}
DISTANCE_TOLERANCE = 0.05

_AVERAGE = "avg"


@dataclass(frozen=True)
class Inconsistency:
    """One number, or one row, that cannot be as printed.

    Attributes:
        kind: `average`: the classes of its row have another mean; `jaccard-low`, `jaccard-high`: no mask has both this
            Jaccard and the Dice beside it; `copied`: the row repeats one of an earlier paper.
        table, order, row: the row, with its budget where the table has several.
        metric, class_name: the number; empty for a whole row.
        printed: as digits; of a row, how many numbers it shares.
        expected: the mean of the classes, the least or greatest Jaccard; of a row, the table that it repeats.
        note: what is known about it; may be empty.
    """

    kind: InconsistencyKind
    table: str
    order: int
    row: str
    metric: str
    class_name: str
    printed: str
    expected: str
    note: str

    @property
    def number(self) -> str:
        """The number in words: `DSC, average, 45.74`."""
        if not self.metric:
            return self.printed
        where = "average" if self.class_name == _AVERAGE else class_title(self.class_name)
        return f"{metric_style(self.metric).title}, {where}: {self.printed}"


def averages() -> list[tuple[PublishedTable, PublishedRow, str, PublishedCell, float]]:
    """Every average whose classes are all printed: table, row, metric, the average and the mean of its classes.

    SCDL prints the classes in other tables than the averages; they are put together by dataset, budget and name.
    """
    found = []
    for table in published_tables().values():
        for metric in dict.fromkeys(metric for metric, name in table.columns if name != _AVERAGE):
            classes = [name for other, name in table.columns if other == metric and name != _AVERAGE]
            for row in table.rows:
                average = row.cells.get((metric, _AVERAGE)) or _elsewhere(row, metric)
                if average and all((metric, name) in row.cells for name in classes):
                    mean = sum(row.cells[metric, name].mean for name in classes) / len(classes)
                    found.append((table, row, metric, average, mean))
    return found


def inconsistencies() -> list[Inconsistency]:
    """All of them, by kind, in order of print."""
    return [*_averages(), *_jaccards("jaccard-low"), *_jaccards("jaccard-high"), *_copies()]


def _elsewhere(row: PublishedRow, metric: str) -> PublishedCell | None:
    """The average of a row that its paper prints in another table."""
    for table in published_tables().values():
        for other in table.rows if table.paper == row.paper and table.number != row.table else ():
            same = (other.dataset, other.labeled, other.label) == (row.dataset, row.labeled, row.label)
            if same and (metric, _AVERAGE) in other.cells:
                return other.cells[metric, _AVERAGE]
    return None


def _averages() -> Iterator[Inconsistency]:
    for table, row, metric, average, mean in averages():
        if abs(mean - average.mean) > OVERLAP_TOLERANCE.get(metric, DISTANCE_TOLERANCE):
            yield _found("average", table, row, (metric, _AVERAGE), average, f"{mean:.2f}")


def _jaccards(kind: InconsistencyKind) -> Iterator[Inconsistency]:
    """Jaccard indices that no Dice allows.

    Of one case J = D / (2 - D), which is convex: the mean over cases of J is at least that of the mean of D, and never
    above the mean of D itself.
    """
    for table in published_tables().values():
        for row in table.rows:
            for (metric, name), cell in row.cells.items():
                dice = row.cells.get(("dsc", name))
                if metric != "jaccard" or dice is None:
                    continue
                least = 100 * dice.mean / (200 - dice.mean)
                if kind == "jaccard-low" and cell.mean < least - 0.01:
                    yield _found(kind, table, row, (metric, name), cell, f"{least:.2f}")
                elif kind == "jaccard-high" and cell.mean > dice.mean:
                    yield _found(kind, table, row, (metric, name), cell, dice.printed)


def _copies() -> Iterator[Inconsistency]:
    """Rows that share every number, and more than one, with a row of an earlier paper; the earliest such table."""
    papers = published_papers()
    tables = sorted(published_tables().values(), key=lambda table: papers[table.paper].year)
    for table in published_tables().values():
        earlier = [other for other in tables if papers[other.paper].year < papers[table.paper].year]
        for row in table.rows:
            for other in earlier:
                shared = max((_shared(row, source) for source in other.rows), default=0)
                if shared:
                    name = row_name(table, row)
                    yield Inconsistency(
                        "copied", table.key, row.order, name, "", "", f"{shared} numbers", other.key, ""
                    )
                    break


def _shared(row: PublishedRow, source: PublishedRow) -> int:
    """How many numbers two rows share, where those that both print are all the same; else none."""
    keys = [key for key in row.cells if key in source.cells]
    same = row.dataset == source.dataset and all(row.cells[key].mean == source.cells[key].mean for key in keys)
    return len(keys) if same and len(keys) > 1 else 0


def _found(
    kind: InconsistencyKind,
    table: PublishedTable,
    row: PublishedRow,
    key: tuple[str, str],
    cell: PublishedCell,
    expected: str,
) -> Inconsistency:
    return Inconsistency(kind, table.key, row.order, row_name(table, row), *key, cell.printed, expected, cell.note)
