"""What a report says in two sentences, made from its numbers: which row is best, and what its gain is worth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from sslbench.config.text import counted
from sslbench.reporting.figures.plate import listed, signed
from sslbench.reporting.gains import Gain, RowGain, resolution
from sslbench.reporting.model import Cell, Column, Row, Table

_UNITS = {"percent": " %", "fraction": ""}


def summary(table: Table) -> list[str]:
    """Two sentences for each block of a table: the best row, and its gain, or else the largest one."""
    ties = {standing.block: standing.among.together for standing in table.standing}
    told = []
    for block in table.blocks:
        column = next((each for each in table.columns if each.block == block and not each.is_gain), None)
        if column is not None:
            sentences = " ".join(filter(None, [_best(table, column, ties.get(block, ())), _gain(table, column)]))
            told.append(f"{block}: {sentences}" if block else sentences)
    return told


def resolved(table: Table) -> str:
    """Which difference a table resolves: `resolves 6.4 points`; empty where that is not known."""
    points = resolution([held.gain for held in table.gains])
    if math.isnan(points):
        return ""
    column = next((column for column in table.columns if column.is_gain), None)
    return f"resolves {points:.1f} {column.unit if column else 'points'}".strip()


def _best(table: Table, column: Column, ties: Sequence[str]) -> str:
    measured = [(row, cell) for row, cell in _cells(table, column) if not math.isnan(cell.mean)]
    if not measured:
        return "No row has a result yet."
    best = [(row, cell) for row, cell in measured if cell.best]
    if not best:
        row, cell = measured[0]
        which = f"Only {row.label} has results" if len(measured) == 1 else f"No row is marked best; first: {row.label}"
        return f"{which}: {_number(cell, column)} {column.header}."
    names = listed([row.label for row, _ in best])
    lacking = len(table.rows) - len(measured)
    among = f"of {counted(len(measured), 'row')}" + (f" ({lacking} without results)" if lacking else "")
    verb = "is" if len(best) == 1 else "are"
    tied = f"; not told apart from it: {listed(ties)}" if ties and len(best) == 1 else ""
    return f"{names} {verb} best {among}: {_number(best[0][1], column)} {column.header}{tied}."


def _gain(table: Table, column: Column) -> str:
    held = [each for each in table.gains if each.block == column.block and not math.isnan(each.gain.difference)]
    if not held:
        return "No row has its baseline in the table, so no gain is told."
    best = {row.label for row, cell in _cells(table, column) if cell.best}
    chosen = next((each for each in held if each.row in best), None)
    if chosen is None:
        chosen = max(held, key=lambda each: each.gain.difference)
        return f"The largest gain is that of {_gained(chosen, column)}"
    return f"{chosen.row} gains {_gained(chosen, column, named=False)}"


def _gained(held: RowGain, column: Column, named: bool = True) -> str:
    found = held.gain
    unit = {"percent": "points"}.get(column.unit, column.unit)
    over = f"over {held.baseline}"
    number = f"{signed(found.difference)} {unit}".strip()
    told = f"{held.row}, {number} {over}" if named else f"{number} {over}"
    if found.average is None:
        return f"{told}; {found.refused}, so there is no interval."
    return f"{told} {interval(found.average.low, found.average.high)}, {_verdict(found)}."


def _verdict(found: Gain) -> str:
    """What a gain is worth, in words."""
    if found.star:
        return "told apart from chance"
    if not found.untested:
        return "not told apart from chance"
    assert found.average is not None
    if found.average.low <= 0 <= found.average.high:
        return f"not told apart from chance with {counted(found.seeds, 'seed')}"
    return f"an interval that leaves 0 out, but no test: {found.untested}"


def interval(low: float, high: float) -> str:
    """The ends of an interval in brackets, with true minus signs; empty where there is none."""
    return "" if math.isnan(low) else f"[{low:.1f}, {high:.1f}]".replace("-0.0", "0.0").replace("-", "−")


def _cells(table: Table, column: Column) -> Iterator[tuple[Row, Cell]]:
    place = table.columns.index(column)
    return ((row, row.cells[place]) for row in table.rows)


def _number(cell: Cell, column: Column) -> str:
    return f"{cell.mean:.1f}{_UNITS.get(column.unit, f' {column.unit}')}"
