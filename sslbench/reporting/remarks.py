"""What is said under a comparison: what a difference is, why some rows have none, and what is odd in print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sslbench.config.layers import load_recipe
from sslbench.config.published import PublishedRow, PublishedTable, published_tables
from sslbench.config.text import counted, first_few
from sslbench.reporting import naming
from sslbench.reporting.comparison import (
    LEAVES_OUT_0,
    OTHER_UNIT,
    ComparedRow,
    Difference,
    Setting,
    column_name,
)
from sslbench.reporting.labels import metric_style
from sslbench.reporting.model import Column
from sslbench.reporting.pairing import RowPair
from sslbench.reporting.printed import STARRED, SUSPECT, row_name

_SETTINGS_SHOWN = 6

OtherClasses = Mapping[str, tuple[list[str], list[str]]]  # by metric: classes that print has alone, and ours


def footnotes_of(pair: RowPair, columns: Sequence[Column]) -> Iterator[str]:
    """What concerns a published row as a whole, or one of its cells that is no misprint."""
    row, own = pair.published, pair.own
    if row.reason:
        yield f"No job stands behind this row: {row.reason}."
    if own:
        told = [*own.footnotes, *naming.unlike_print([row])]
        yield from (text for text in told if not text.startswith(naming.COPIED))  # which the table itself shows
    if own and "reconstructed" in row.flags:
        yield "The method here is a reconstruction: its own paper is not among the sources."
    yield from _printed_notes(row, columns)


def _printed_notes(row: PublishedRow, columns: Sequence[Column]) -> Iterator[str]:
    notes = {
        (metric, name): cell.note
        for (metric, name), cell in row.cells.items()
        if cell.note and not (cell.suspect or cell.filled or f"starred:{metric}" in row.flags)
    }
    for note in dict.fromkeys(notes.values()):
        places = [place for place, other in notes.items() if other == note]
        named = [column_name(column) for column in columns if (column.metric, column.class_name) in places]
        if len(places) == len(row.cells) and "base-inferred" not in row.flags:
            yield _sentence(note)
        elif named and "base-inferred" not in row.flags:
            yield f"{first_few(named)}: {note}."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def notes(
    published: PublishedTable,
    pairs: Sequence[RowPair],
    rows: Mapping[int, ComparedRow],
    columns: Sequence[Column],
    other: OtherClasses,
    hidden: int,
) -> Iterator[str]:
    """What a reader must know beside the numbers, in the order in which questions come up.

    Args:
        pairs, rows: of those that are shown, rows by their order in print.
        hidden: how many are not.
    """
    cells = [cell for row in rows.values() for cell in row.cells]
    if differences := [cell.difference for cell in cells if cell.difference]:
        yield _about_differences(pairs, differences)
    yield from _about_settings(published, pairs)
    for metric, (theirs, ours) in other.items():
        told = [f"{', '.join(names)} {where} alone" for names, where in ((theirs, "in print"), (ours, "here")) if names]
        title = metric_style(metric).title
        yield f"No difference in averages of {title}: they are over other classes, {'; '.join(told)}."
    if copied := dict.fromkeys(pair.published.origin for pair in pairs if pair.published.origin):
        grids = ", ".join(published_tables()[key].grid for key in copied)
        yield f"Grey, with a table's name: copied in print from there, under another protocol; compared by {grids}."
    recipes = dict.fromkeys(pair.published.recipe for pair in pairs if pair.comparable)
    for recipe in map(load_recipe, recipes):
        if recipe.deviations:
            listed = "; ".join(f"{what}: {text}" for what, text in recipe.deviations.items())
            yield f"Recipe {recipe.name} is known to differ from the paper. {listed[:1].upper()}{listed[1:]}."
    yield from _about_units(list(rows.values()), columns)
    yield from _about_misprints(published, list(rows.values()), columns)
    if filled := [cell.published.note for cell in cells if cell.published and cell.published.filled]:
        yield f"In square brackets: {'; '.join(dict.fromkeys(filled))}."
    if any(cell.starred for cell in cells):
        yield f"{STARRED} Starred in print, by that paper's own test over cases."
    if absent := sum(not pair.own and not pair.published.reason for pair in pairs):
        yield f"Without a measured number: {counted(absent, 'row')} that the grid does not have."
    if hidden:
        yield f"Not shown: {counted(hidden, 'row')} of label budgets and datasets that the grid does not have."


def _about_differences(pairs: Sequence[RowPair], differences: Sequence[Difference]) -> str:
    text = "Δ: measured minus published"
    if any(difference.interval for difference in differences):
        text += " ± half of its 95 % interval (Welch's t, both spreads over seeds)"
        if any(difference.marked for difference in differences):
            text += f", {LEAVES_OUT_0} where that leaves out 0"
    whys = {
        "cases": "± in print is over test cases",
        "unsaid": "print does not say what ± is over",
        "none": "print has no ±",
    }
    spreads = {pair.published.spread for pair in pairs if pair.comparable}
    without = [why for spread, why in whys.items() if spread in spreads]
    return text + (f"; the difference alone where {' or '.join(without)}." if without else ".")


def _about_settings(published: PublishedTable, pairs: Sequence[RowPair]) -> Iterator[str]:
    """The settings in which rows differ from print: what all such rows share, then each one's own."""
    apart = [pair for pair in pairs if pair.settings]
    if not apart:
        return
    shared = [setting for setting in apart[0].settings if all(setting in pair.settings for pair in apart)]
    whole = len(apart) == sum(pair.own is not None for pair in pairs)
    if shared:
        where = "No difference is computed" if whole else f"No difference in {counted(len(apart), 'row')}"
        yield f"{where}, as settings differ: {_some(shared)}."
    others: dict[tuple[Setting, ...], list[str]] = {}
    for pair in apart:
        if own := tuple(setting for setting in pair.settings if setting not in shared):
            others.setdefault(own, []).append(row_name(published, pair.published))
    for settings, labels in others.items():
        start = "Also" if shared else "No difference"
        yield f"{start} in {first_few(list(dict.fromkeys(labels)))}: {_some(settings)}."


def _some(settings: Sequence[Setting]) -> str:
    left = len(settings) - _SETTINGS_SHOWN
    told = "; ".join(map(str, settings[:_SETTINGS_SHOWN]))
    return f"{told}; and {counted(left, 'setting')} more, all in the JSON" if left > 0 else told


def _about_units(rows: Sequence[ComparedRow], columns: Sequence[Column]) -> Iterator[str]:
    told = dict.fromkeys(
        f"{metric_style(column.metric).title} here {column.unit or 'in several'}, in print {cell.published.unit}"
        for row in rows
        for cell, column in zip(row.cells, columns, strict=True)
        if cell.other_unit and cell.published
    )
    if told:
        yield f"{OTHER_UNIT} Units differ or are not stated: no interval, not in the summary. {'; '.join(told)}."


def _about_misprints(
    published: PublishedTable, rows: Sequence[ComparedRow], columns: Sequence[Column]
) -> Iterator[str]:
    doubtful: dict[tuple[str, str], list[str]] = {}
    impossible = []
    for row in rows:
        name = row_name(published, row.published) if row.published else row.label
        for cell, column in zip(row.cells, columns, strict=True):
            if cell.published and cell.published.doubtful:
                doubtful.setdefault((name, cell.published.note), []).append(column_name(column))
            elif cell.published and cell.published.impossible:
                impossible.append(f"{column_name(column)} of {name}")
    if doubtful:
        told = (f"{' and '.join(names)} of {row}: {note}" for (row, note), names in doubtful.items())
        yield f"{SUSPECT} As printed; a misprint by what stands beside it, not in the summary. {'; '.join(told)}."
    if impossible:
        yield (
            f"{SUSPECT} As printed; not possible beside the mean Dice in print, not in the summary: "
            f"{counted(len(impossible), 'number')} ({first_few(impossible, 3)})."
        )
