"""Published results: the list of tables, a table in its paper's layout, and what does not fit together in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from sslbench.cli.console import wrapped
from sslbench.cli.terminal.tables import Rows, indented, table_of
from sslbench.config.text import counted
from sslbench.reporting.inconsistencies import Inconsistency
from sslbench.reporting.printed import STARRED, SUSPECT, PrintedLine, PrintedTable

_GAP = 2  # between blocks side by side


def listing(console: Console, rows: Rows) -> None:
    """The published tables, by paper: each with its grid, rows, spread and content."""
    numbers = sum(row["numbers"] for row in rows)
    for paper, members in groupby(rows, key=lambda row: row["paper"]):
        console.print(Text(paper, style="bold"))
        table = table_of("table", "rows", "±", "grid", "what", style="dim")
        for row in members:
            cells = [row["table"], str(row["rows"]), row["spread"], row["grid"], f"{row['content']}; {row['setting']}"]
            table.add_row(*map(Text, cells))
        indented(console, table, 2)
        console.print()
    console.print(f"{counted(len(rows), 'table')}, {sum(row['rows'] for row in rows)} rows, {numbers} numbers")


def sheet(console: Console, printed: PrintedTable) -> None:
    """One table in its paper's layout. Columns that do not fit go into further parts, a block side by side as a whole
    where it can."""
    console.print(Text(printed.title, style="bold"))
    label = max(cell_len(line.label) for _, lines in printed.groups for line in lines)
    for part in _parts(printed, console.width - label - 2):
        console.print()
        for text in _lines(printed, part, label):
            console.print(text, no_wrap=True, overflow="ignore", crop=False)
    console.print()
    for note in printed.notes:
        console.print(wrapped(Text(note, style="dim"), console.width))


_KINDS: dict[str, tuple[str, str]] = {
    "average": ("Averages that the classes of their row do not give", "mean of classes"),
    "jaccard-low": ("Jaccard below the least that the Dice beside it allows, D / (2 - D)", "least"),
    "jaccard-high": ("Jaccard above the Dice beside it", "Dice"),
    "copied": ("Rows that repeat one of an earlier paper, number by number", "from"),
}


_TOLD = re.compile(r"^class mean (of this row )?is [\d.]+( \(printed [\d.]+\))?[,;]? ?")  # the table's columns say so


def inconsistencies(console: Console, found: Sequence[Inconsistency], tested: int) -> None:
    """What does not fit together in the published tables, by kind, with its count.

    Args:
        console: to print on.
        found: by kind.
        tested: averages that were held against their classes.
    """
    for kind, members in groupby(found, key=lambda item: item.kind):
        items = list(members)
        title, expected = _KINDS[kind]
        count = f"{len(items)} of {tested}" if kind == "average" else f"{len(items)}"
        console.print(Text(f"{title}: {count}", style="bold"))
        if kind == "copied":
            table = table_of("table", expected, "rows", style="dim")
            for place, rows in groupby(sorted(items, key=_copied), key=_copied):
                names = [item.row for item in rows]
                table.add_row(*map(Text, (*place, f"{len(names)}: {', '.join(names)}")))
        else:
            table = table_of("table", "row", "printed", expected, *(["note"] if kind == "average" else []), style="dim")
            for item in items:
                number = item.number.replace(", average", "") if kind == "average" else item.number
                cells = (item.table, item.row, number, item.expected, _TOLD.sub("", item.note))
                table.add_row(*map(Text, cells[: len(table.columns)]))
        indented(console, table, 2)
        console.print()


def _copied(item: Inconsistency) -> tuple[str, str]:
    return item.table, item.expected


def _parts(printed: PrintedTable, room: int) -> list[list[int]]:
    """Columns in parts that fit into `room`: whole blocks while they do, else a block's columns evenly."""
    widths = _widths(printed)
    parts: list[list[int]] = []
    for _, places in printed.blocks:
        if parts and _total(printed, [*parts[-1], *places], widths) <= room:
            parts[-1] += places
        else:
            parts += _evenly(printed, places, widths, room)
    return parts


def _evenly(printed: PrintedTable, places: Sequence[int], widths: Sequence[int], room: int) -> list[list[int]]:
    """A block's columns in as few parts as fit into `room`, about equally wide; those of one class stay together."""
    units = [list(members) for _, members in groupby(places, key=lambda place: printed.columns[place].class_name)]

    def filled(room: int) -> list[list[int]]:
        parts: list[list[int]] = [[]]
        for unit in units:
            if parts[-1] and _total(printed, [*parts[-1], *unit], widths) > room:
                parts.append([])
            parts[-1] += unit
        return parts

    fewest = len(filled(room))
    return filled(next((less for less in range(1, room) if len(filled(less)) == fewest), room))


def _total(printed: PrintedTable, places: Sequence[int], widths: Sequence[int]) -> int:
    blocks = len({printed.columns[place].block for place in places})
    return sum(widths[place] + 1 for place in places) + _GAP * (blocks - 1)


def _widths(printed: PrintedTable) -> list[int]:
    widths = [
        max(map(cell_len, [column.header, column.sense, *texts]))
        for column, texts in zip(printed.columns, _texts_by_column(printed), strict=True)
    ]
    for title, places in printed.blocks:  # a long title makes room for itself
        widths[places[0]] += max(cell_len(title) + 5 - sum(widths[place] + 1 for place in places), 0) if title else 0
    return widths


def _texts_by_column(printed: PrintedTable) -> list[list[str]]:
    """The cells of each column, with room for a mark in all where one has it: digits stand below digits."""
    lines = [line for _, members in printed.groups for line in members]
    columns = []
    for texts in zip(*(line.texts for line in lines), strict=True):
        marked = any(text.endswith((SUSPECT, STARRED)) for text in texts)
        columns.append([text + " " * (marked and not text.endswith((SUSPECT, STARRED))) for text in texts])
    return columns


def _lines(printed: PrintedTable, part: Sequence[int], label: int) -> Iterator[Text]:
    """The lines of a part, headers first."""
    widths = _widths(printed)
    texts = zip(*_texts_by_column(printed), strict=True)
    blocks = [list(members) for _, members in groupby(part, key=lambda place: printed.columns[place].block)]

    def line(name: Text, cells: Sequence[Text]) -> Text:
        text = _padded(name, label, left=True)
        for number, block in enumerate(blocks):
            text.append(" " * (_GAP if number else 0))
            for place in block:
                text.append(" ").append(_padded(cells[place], widths[place]))
        return text

    width = label + _total(printed, part, widths)
    if len(printed.blocks) > 1:
        yield _over(printed, blocks, widths, label)
    yield line(Text(), [Text(column.header, style="bold") for column in printed.columns])
    yield line(Text(), [Text(column.sense, style="dim") for column in printed.columns])
    for heading, members in printed.groups:
        yield Text("─" * width, style="dim")
        if heading:
            yield Text(heading, style="italic")
        for member in members:
            yield line(Text(member.label), _cells(member, next(texts)))


def _over(printed: PrintedTable, blocks: Sequence[Sequence[int]], widths: Sequence[int], label: int) -> Text:
    """The line of headings over blocks."""
    text = Text(" " * label)
    for number, block in enumerate(blocks):
        width = sum(widths[place] + 1 for place in block) - 1
        title = printed.columns[block[0]].block
        text.append(" " * (1 + (_GAP if number else 0))).append(f" {title} ".center(width, "─"), style="bold")
    return text


def _cells(line: PrintedLine, texts: Sequence[str]) -> list[Text]:
    """The cells of a line; misprints stand out, copies and filled cells stand back."""
    cells = []
    for text, place in zip(texts, line.places, strict=True):
        style = ""
        if place is not None:
            row, cell = place
            style = "yellow" if cell.suspect else "dim" if row.origin or cell.filled else ""
        cells.append(Text(text, style=style))
    return cells


def _padded(text: Text, width: int, left: bool = False) -> Text:
    space = " " * max(width - text.cell_len, 0)
    return Text.assemble(text, space) if left else Text.assemble(space, text)
