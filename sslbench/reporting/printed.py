"""A published table as its paper lays it out: rows under headings, columns in order of print, budgets side by side."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from sslbench.config.published import PublishedCell, PublishedRow, PublishedTable
from sslbench.config.text import counted, first_few
from sslbench.core.errors import UnknownNameError
from sslbench.reporting.labels import class_title, metric_style
from sslbench.reporting.latex import PACKAGES, environment, escape, line
from sslbench.reporting.render import escape_markdown, markdown_table

SUSPECT = "?"
STARRED = "*"

CSV_PRINTED = (
    "paper", "table", "order", "heading", "label", "dataset", "labeled", "setting", "recipe", "method", "loss",
    "plugin", "set", "metric", "class", "unit", "mean", "std", "spread", "repeats", "origin", "mark", "note",
)  # fmt: skip

_FEW = 3  # notes on single cells that are told one by one; more of one kind are told together


@dataclass(frozen=True)
class PrintedColumn:
    """One column.

    Attributes:
        block: what stands over its block of columns; empty where there is one block.
        metric, class_name: as in `cases.csv`.
        header: `Avg. DSC`, or the class's abbreviation.
        sense: direction and unit under an average, the metric under a class.
    """

    block: str
    metric: str
    class_name: str
    header: str
    sense: str


@dataclass(frozen=True)
class PrintedLine:
    """One line: a row, or the rows of one method in blocks side by side.

    Attributes:
        label: its name as printed.
        places: a row and its cell per column; None where nothing is printed.
        texts: those cells as printed.
    """

    label: str
    places: tuple[tuple[PublishedRow, PublishedCell] | None, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class PrintedTable:
    """A table laid out.

    Attributes:
        table: whose rows it shows.
        columns: of the lines.
        groups: headings, which may be empty, with their lines.
        notes: what ± is, what the marks mean, where rows come from, how to run it; a sentence each.
    """

    table: PublishedTable
    columns: tuple[PrintedColumn, ...]
    groups: tuple[tuple[str, tuple[PrintedLine, ...]], ...]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """Paper, number, content and setting."""
        return self.table.title

    @property
    def blocks(self) -> list[tuple[str, list[int]]]:
        """Blocks of columns side by side: what stands over each, and the places of its columns."""
        places = range(len(self.columns))
        return [(title, list(members)) for title, members in groupby(places, lambda place: self.columns[place].block)]


def printed_table(table: PublishedTable, metric: str | None = None) -> PrintedTable:
    """Lay a published table out.

    Args:
        table: as the reader has it.
        metric: show this one alone.

    Raises:
        UnknownNameError: the table does not print that metric.
    """
    known = dict.fromkeys(name for name, _ in table.columns)
    if metric is not None and metric not in known:
        raise UnknownNameError(f"metric of {table.key}", metric, known)
    blocks = _blocks(table)
    titles = table.setting.split("; ") if len({dataset for dataset, _ in blocks}) > 1 else [name for _, name in blocks]
    keys = [key for key in table.columns if metric in (None, key[0])]
    columns = [_column(table, title if len(blocks) > 1 else "", key) for title in titles for key in keys]
    groups = []
    for heading, rows in groupby(table.rows, key=lambda row: row.heading):
        groups.append((heading, tuple(_line(side, blocks, keys) for side in _side_by_side(rows, blocks))))
    return PrintedTable(table, tuple(columns), tuple(groups), tuple(_notes(table, keys)))


def printed_text(row: PublishedRow, metric: str, cell: PublishedCell) -> str:
    """A cell as printed: a spread where there is one, `[...]` where it was filled in, `?` after a misprint."""
    text = f"{cell.printed}±{cell.printed_std}" if cell.printed_std else cell.printed
    text = f"[{text}]" if cell.filled else text
    return text + (STARRED if f"starred:{metric}" in row.flags else "") + (SUSPECT if cell.suspect else "")


def printed_markdown(printed: PrintedTable) -> str:
    """The table as GitHub shows it, with its notes."""
    headers = [
        " ".join(filter(None, (column.block and f"{column.block}:", column.header, column.sense)))
        for column in printed.columns
    ]
    groups = [
        (heading, [[*map(escape_markdown, (line.label, *line.texts))] for line in members])
        for heading, members in printed.groups
    ]
    return markdown_table(printed.title, ["Method", *map(escape_markdown, headers)], groups, printed.notes)


def printed_latex(printed: PrintedTable) -> str:
    """A `table*` environment to paste into a paper."""
    columns = printed.columns
    header = [
        *_latex_blocks(printed),
        line(["Method", *(escape(column.header) for column in columns)]),
        line(["", *(escape(column.sense) for column in columns)]),
    ]
    groups = [
        (heading, [[*map(escape, (member.label, *member.texts))] for member in members])
        for heading, members in printed.groups
    ]
    label = f"published-{printed.table.grid}"
    lines = environment(escape(printed.title), label, len(columns), header, groups, printed.notes)
    comment = f"% Written by sslbench from the numbers of the paper. Needs {' '.join(PACKAGES)}"
    return "\n".join([comment, *lines]) + "\n"


def printed_csv(printed: PrintedTable) -> str:
    """One line per printed number, columns `CSV_PRINTED`: digits as printed, `std` empty where there is none."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_PRINTED, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    shown = {(column.metric, column.class_name) for column in printed.columns}
    for row in printed.table.rows:
        about = {name: getattr(row, name) for name in CSV_PRINTED if hasattr(row, name)}
        about |= {"set": json.dumps(row.set) if row.set else "", "repeats": row.repeats or ""}
        for (metric, class_name), cell in row.cells.items():
            if (metric, class_name) in shown:
                marks = [name for name in ("doubtful", "impossible", "filled") if getattr(cell, name)]
                number = {"unit": cell.unit, "mean": cell.printed, "std": cell.printed_std, "note": cell.note}
                writer.writerow(about | number | {"metric": metric, "class": class_name, "mark": " ".join(marks)})
    return out.getvalue()


def row_name(table: PublishedTable, row: PublishedRow) -> str:
    """A row's name as printed, with dataset or budget where the table has several of it: `MT +MetaSSL (3 volumes)`."""
    others = [other for other in table.rows if other.label == row.label]
    if len({other.dataset for other in others}) > 1:
        return f"{_label(table, row)} ({row.dataset})"
    several = len({other.labeled for other in others}) > 1
    return f"{_label(table, row)} ({row.labeled})" if several else _label(table, row)


def _label(table: PublishedTable, row: PublishedRow) -> str:
    """The name as printed; `MT +MetaSSL` where the paper prints `+MetaSSL` below MT."""
    if not row.label.startswith("+"):
        return row.label
    above = [other.label for other in table.rows if other.order < row.order and not other.label.startswith("+")]
    return f"{above[-1]} {row.label}" if above else row.label


# -------------------------------------------------------------------------------------------------------- layout


def _blocks(table: PublishedTable) -> list[tuple[str, str]]:
    """The blocks side by side, as dataset and setting; full supervision may stand once for several."""
    found = dict.fromkeys((row.dataset, row.setting) for row in table.rows)
    return [block for block in found if not _spans(block[1])]


def _spans(setting: str) -> bool:
    return " and " in setting


def _side_by_side(rows: Iterable[PublishedRow], blocks: Sequence[tuple[str, str]]) -> list[dict[int, PublishedRow]]:
    """Rows of one name that stand in one line, by the block of each."""
    lines: list[dict[int, PublishedRow]] = []
    for row in rows:
        own = range(len(blocks)) if _spans(row.setting) else [blocks.index((row.dataset, row.setting))]
        last = lines[-1] if lines else {}
        if not last or next(iter(last.values())).label != row.label or set(own) & set(last):
            lines.append({})
        lines[-1].update(dict.fromkeys(own, row))
    return lines


def _line(side: dict[int, PublishedRow], blocks: Sequence[object], keys: Sequence[tuple[str, str]]) -> PrintedLine:
    rows = [side.get(number) for number in range(len(blocks))]
    places = [(row, row.cells[key]) if row and key in row.cells else None for row in rows for key in keys]
    metrics = [metric for _ in rows for metric, _ in keys]
    texts = [
        printed_text(place[0], metric, place[1]) if place else "" for metric, place in zip(metrics, places, strict=True)
    ]
    return PrintedLine(next(iter(side.values())).label, tuple(places), tuple(texts))


def _column(table: PublishedTable, block: str, key: tuple[str, str]) -> PrintedColumn:
    metric, class_name = key
    style = metric_style(metric)
    if class_name != "avg":
        return PrintedColumn(block, metric, class_name, class_title(class_name), style.title)
    unit = next(row.cells[key].unit for row in table.rows if key in row.cells)
    arrow = {"up": "↑", "down": "↓"}.get(style.direction, "")
    shown = {"percent": "%", "unstated": ""}.get(unit, unit)
    return PrintedColumn(block, metric, class_name, f"Avg. {style.title}", f"{arrow} ({shown})" if shown else arrow)


# --------------------------------------------------------------------------------------------------------- notes


def _notes(table: PublishedTable, keys: Sequence[tuple[str, str]]) -> Iterator[str]:
    shown = [(row, key, row.cells[key]) for row in table.rows for key in keys if key in row.cells]
    yield from _about_numbers(table, shown)
    yield from _about_cells(table, shown)
    yield from _about_rows(table)
    yield f"Run it: sslbench run --grid {table.grid}."


def _about_numbers(
    table: PublishedTable, shown: Sequence[tuple[PublishedRow, tuple[str, str], PublishedCell]]
) -> Iterator[str]:
    spread = [row for row, _, cell in shown if cell.printed_std]
    means = {
        "seeds": f"±: over {counted(next((row.repeats or 0 for row in spread), 0), 'repeat')}, as the paper says.",
        "cases": "±: over test cases, by its size; the paper does not say.",
        "unsaid": "±: the paper does not say over what.",
    }
    yield from dict.fromkeys(means[row.spread] for row in spread)
    if not spread:
        yield "The paper prints no ± here."
    if any(cell.unit == "unstated" for *_, cell in shown):
        yield "The paper does not say in which unit its distances are."
    if any(flag.startswith("starred:") for row in table.rows for flag in row.flags):
        yield f"{STARRED}: p < 0.05 against the same method without the loss, by the paper's own test."


def _about_cells(
    table: PublishedTable, shown: Sequence[tuple[PublishedRow, tuple[str, str], PublishedCell]]
) -> Iterator[str]:
    """Notes on single cells; many of one kind in one sentence."""
    kinds: dict[tuple[bool, bool, str], list[tuple[PublishedRow, tuple[str, str], PublishedCell]]] = {}
    for place in shown:
        cell = place[2]
        if cell.note and not cell.note.startswith("starred"):
            kinds.setdefault((cell.suspect, cell.filled, re.sub(r"\d+\.\d+", "N", cell.note)), []).append(place)
    for (suspect, filled, kind), places in sorted(kinds.items(), key=lambda item: not item[0][0]):
        names = first_few(list(dict.fromkeys(_label(table, row) for row, *_ in places)), 20)
        if suspect and len(places) > _FEW:
            said = re.sub(r" N\b", "", kind)
            yield f"{SUSPECT} {counted(len(places), 'cell')} of {names}: {said} (sslbench published check lists them)."
        elif suspect:
            told: dict[tuple[str, str], list[str]] = {}
            for row, (metric, class_name), cell in places:
                where = class_title(class_name) if class_name != "avg" else "average"
                told.setdefault((row_name(table, row), cell.note), []).append(f"{metric_style(metric).title} ({where})")
            for (name, note), cells in told.items():
                yield f"{SUSPECT} {name}, {' and '.join(cells)}: {note}."
        else:
            yield f"{'[…] ' if filled else ''}{names}: {places[0][2].note}."


def _about_rows(table: PublishedTable) -> Iterator[str]:
    def of(rows: Iterable[PublishedRow]) -> str:
        return first_few(list(dict.fromkeys(_label(table, row) for row in rows)), 20)

    lost = [row for row in table.rows if "cell-lost" in row.flags]
    if lost:
        keys = [key for key in table.columns if any(key not in row.cells for row in lost)]
        cells = ", ".join(class_title(name) for _, name in keys)
        yield f"{cells}: lost where the papers were transcribed, in {counted(len(lost), 'row')}."
    for origin in dict.fromkeys(row.origin for row in table.rows if row.origin):
        names = [row_name(table, row) for row in table.rows if row.origin == origin]
        yield f"Copied from {origin}, so of that table's protocol: {first_few(names, 20)}."
    unlike = [row for row in table.rows if row.network_here not in ("", row.network_published)]
    for here in dict.fromkeys(row.network_here for row in unlike):
        rows = [row for row in unlike if row.network_here == here]
        yield f"Run here on {here} where the paper states {rows[0].network_published}: {of(rows)}."
    inferred = [row for row in table.rows if "base-inferred" in row.flags]
    if inferred:
        yield f"Run here on {inferred[0].method}, inferred from its numbers: {of(inferred)}."
    made = [row for row in table.rows if "reconstructed" in row.flags]
    if made:
        yield f"Run here by a reconstruction, as the paper's equations were not at hand: {of(made)}."
    for row in table.rows:
        if row.reason:
            yield f"No job stands behind {row_name(table, row)}: {row.reason}."


# ------------------------------------------------------------------------------------------------------- drawing


def _latex_blocks(printed: PrintedTable) -> list[str]:
    """A line of headings over the blocks, where there are several."""
    if len(printed.blocks) < 2:
        return []
    spans = [rf"\multicolumn{{{len(places)}}}{{c}}{{{escape(title)}}}" for title, places in printed.blocks]
    rules = [rf"\cmidrule(lr){{{places[0] + 2}-{places[-1] + 2}}}" for _, places in printed.blocks]
    return [line(["", *spans]), " ".join(rules)]
