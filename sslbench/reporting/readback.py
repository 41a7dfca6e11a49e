"""Numbers out of printed tables, by row and column: what `verify` compares, whoever edited the text around them.

LaTeX and Markdown are read as far as a table needs: rules, joined columns, emphasis, citations. CSV and JSON of ours
are read by their fields.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from itertools import zip_longest
from typing import Any

from sslbench.reporting.model import Table, cell_text

_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
_MEASURED = (
    "mean", "std", "n", "expected", "low", "high", "published", "published_std", "difference", "half_width",
)  # fmt: skip
_COUNTED = re.compile(r"\(\d+/\d+(seeds|runs)?\)")
_SIGNS = str.maketrans({"−": "-", "–": "-"})


@dataclass(frozen=True)
class PrintedNumbers:
    """One cell of a printed table.

    Attributes:
        where: for people: the row and the column.
        texts: its numbers in their order: mean, spread, or the ends of an interval.
    """

    where: str
    texts: tuple[str, ...]


Counterparts = tuple[PrintedNumbers, PrintedNumbers | None]  # as it lies there, and as the records give it


@dataclass(frozen=True)
class _Grid:
    """A printed table: its name, what stands over each column, and its rows, the row's name first."""

    name: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def differences(text: str, expected: str, form: str) -> tuple[int, list[str]]:
    """Hold the numbers of one text against those of another: how many agree, and a line for each that does not.

    Args:
        text: a table as it lies there; it may have fewer rows, columns, decimals and spreads.
        expected: the same table as the records give it.
        form: of both: `latex`, `markdown`, `csv`, `json`.
    """
    if form in ("latex", "markdown"):
        read = _latex_grids if form == "latex" else _markdown_grids
        pairs = _compared_grids(list(read(text)), list(read(expected)))
    else:
        data = _csv_cells if form == "csv" else _json_cells
        pairs = _compared_cells(data(text), data(expected))
    return _judged(pairs)


def page_differences(text: str, tables: Sequence[Table]) -> tuple[int, list[str]]:
    """Hold the numbers of a page's tables against those of tables made from the records, as `differences` does."""
    expected = [
        _Grid(
            f"t{number}-caption",
            ("", *(" ".join(filter(None, (column.block, column.span, column.header))) for column in table.columns)),
            tuple(
                (
                    row.full_label,
                    *("".join(cell_text(cell, one)) for cell, one in zip(row.cells, table.columns, strict=True)),
                )
                for row in table.rows
            ),
        )
        for number, table in enumerate(tables)
    ]
    known = {grid.name: grid for grid in expected}
    shown = [grid for grid in _Page.read(text).grids if grid.name in known]
    found = [replace(grid, headers=known[grid.name].headers) for grid in shown]
    return _judged(_compared_grids(found, expected))


def manifest_in_page(text: str) -> Any:
    """The manifest that a page holds; None: it was left out for its size."""
    shown = _Page.read(text).manifest
    return json.loads(shown) if shown else None


class _Page(HTMLParser):
    """The tables of a page, with the ids of their captions as names, and the text of its manifest."""

    def __init__(self) -> None:
        super().__init__()
        self.grids: list[_Grid] = []
        self.manifest = ""
        self._name, self._rows, self._cell, self._held = "", list[tuple[str, ...]](), "", list[str]()
        self._within = ""

    @classmethod
    def read(cls, text: str) -> _Page:
        page = cls()
        page.feed(text)
        page.close()
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = dict(attrs)
        if tag == "table":
            self._name, self._rows = "", []
        elif tag == "caption":
            self._name = own.get("id") or ""
        elif tag == "tr":
            self._held = []
        elif tag in ("td", "th"):
            self._cell, self._within = "", tag
        elif own.get("id") == "manifest-json":
            self._within = "manifest"

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._held.append(self._cell)
        elif tag == "tr" and len(self._held) > 1:
            self._rows.append(tuple(self._held))
        elif tag == "table":
            self.grids.append(_Grid(self._name, (), tuple(self._rows)))
        if tag in ("td", "th", "pre"):
            self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "manifest":
            self.manifest += data
        elif self._within:
            self._cell += data


def _judged(pairs: Iterable[Counterparts]) -> tuple[int, list[str]]:
    agree, lines = 0, []
    for found, wanted in pairs:
        if wanted is None:
            lines.append(f"{found.where}: {' '.join(found.texts)} is nowhere in the records")
        elif _agree(found.texts, wanted.texts):
            agree += 1
        else:
            apart = [pair for pair in zip_longest(found.texts, wanted.texts, fillvalue="-") if not _same(*pair)]
            here, there = (" ".join(numbers) for numbers in zip(*apart, strict=True))
            lines.append(f"{found.where}: {here}, from the records {there}")
    return agree, lines


def _agree(found: Sequence[str], wanted: Sequence[str]) -> bool:
    return len(found) <= len(wanted) and all(map(_same, found, wanted))


def _same(found: str, wanted: str) -> bool:
    """Whether two numbers are the same, as far as the first has decimals; unrounded ones to their last bits."""
    if found == wanted:
        return True
    try:
        one, other = float(found), float(wanted)
    except ValueError:
        return False
    places, known = _decimals(found), _decimals(wanted)
    if max(places, known) > 6:
        return abs(one - other) <= 1e-9 * max(1.0, abs(other))
    return abs(one - other) <= (0.5 * 10**-places if places < known else 0) + 1e-9


def _decimals(number: str) -> int:
    return 99 if "e" in number.lower() else len(number.partition(".")[2])


# ------------------------------------------------------------------------------------------------ printed tables


def _compared_grids(found: Sequence[_Grid], expected: Sequence[_Grid]) -> Iterator[Counterparts]:
    left = list(expected)
    for grid in found:
        named = [other for other in left if other.name and other.name == grid.name] or left[:1]
        if not named:
            yield PrintedNumbers(f"table {grid.name}", ()), None
            continue
        left.remove(named[0])
        yield from _compared_rows(grid, named[0])


def _compared_rows(grid: _Grid, expected: _Grid) -> Iterator[Counterparts]:
    rows = {_key(row[0]): row for row in expected.rows}
    columns = _columns(grid, expected)
    for row in grid.rows:
        wanted = rows.get(_key(row[0]))
        for place, cell in enumerate(row[1:], 1):
            texts = _numbers(cell)
            if not texts:
                continue
            column = columns.get(place)
            other = wanted[column] if wanted and column and column < len(wanted) else None
            header = grid.headers[place] if place < len(grid.headers) else ""
            where = f"{_label(row[0])}, {header or f'column {place}'}"
            yield PrintedNumbers(where, texts), None if other is None else PrintedNumbers(where, _numbers(other))


def _columns(grid: _Grid, expected: _Grid) -> dict[int, int]:
    """The column of the expected table that each column is: by what stands over it, else by its place."""
    if len({*expected.headers}) == len(expected.headers) and {*grid.headers} <= {*expected.headers}:
        return {place: expected.headers.index(header) for place, header in enumerate(grid.headers)}
    return {place: place for place in range(len(expected.headers))}


def _key(label: str) -> str:
    """A row's name without what may change: blanks, case, and how many of its seeds are there."""
    return _COUNTED.sub("", "".join(label.split()).casefold())


def _label(label: str) -> str:
    return " ".join(label.split()) or "a row without a name"


def _numbers(cell: str) -> tuple[str, ...]:
    return tuple(_NUMBER.findall(re.sub(r"(?<=\d)±", " ", cell.translate(_SIGNS))))


def _rows(rows: Iterable[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Rows of several cells; one without a name carries on the row above it."""
    found: list[tuple[str, ...]] = []
    for row in rows:
        if len(row) > 1:
            label = row[0] if row[0].strip() or not found else found[-1][0] + "′"
            found.append((label, *row[1:]))
    return tuple(found)


def _latex_grids(text: str) -> Iterator[_Grid]:
    text = re.sub(r"(?<!\\)%.*", "", text)
    for match in re.finditer(r"\\begin\{(tabular[x*]?)\}(.*?)\\end\{\1\}", text, re.DOTALL):
        around = text[text.rfind(r"\begin{table", 0, match.start()) : match.start()]
        name = re.search(r"\\label\{(.*?)\}", around)
        head, rule, body = re.sub(r"\\(toprule|hline)", "", match[2], count=1).partition(r"\midrule")
        if not rule:
            head, body = "", head
        headers = [_latex_cells(line) for line in re.split(r"\\\\(?:\[.*?\])?", head)]
        rows = [_latex_cells(line) for line in re.split(r"\\\\(?:\[.*?\])?", body)]
        yield _Grid(name[1] if name else "", _joined(headers), _rows(rows))


def _latex_cells(line: str) -> list[str]:
    """The cells of a line as plain text, one over several columns as often as it has columns; of a heading over the
    whole line the heading alone."""
    line = re.sub(r"\\(top|mid|bottom)rule|\\hline|\\c(mid|)rule(\(.*?\))?\{.*?\}|\\addlinespace(\[.*?\])?", "", line)
    line = re.sub(r"^\s*\{[^{}]*\}(?=.*\{l)", "", line)  # the column specification behind \begin{tabular}
    found: list[str] = []
    parts = re.split(r"(?<!\\)&", line)
    for part in parts:
        joined = re.match(r"\s*\\multicolumn\{(\d+)\}\{.*?\}(.*)", part, re.DOTALL)
        times, content = (
            (int(joined[1]), joined[2]) if joined and len(parts) > 1 else (1, joined[2] if joined else part)
        )
        found += [_plain_latex(content)] * times
    return found


_PLAIN = {r"\%": "%", r"\_": "_", r"\&": "&", r"\#": "#", r"\$": "", "~": " ", "$": "", "{": "", "}": "", "^": ""}


def _plain_latex(text: str) -> str:
    text = re.sub(r"~?\\cite\w*(\[.*?\])*\{.*?\}", "", text)
    text = re.sub(r"\\pm\b", "±", text)
    text = re.sub(r"\\text(ascii)?(tilde|circum|backslash|less|greater|bar)", r"<\2>", text)
    text = re.sub(r"\\[a-zA-Z]+\*?", "", text)
    for sign, plain in _PLAIN.items():
        text = text.replace(sign, plain)
    return " ".join(text.split())


def _markdown_grids(text: str) -> Iterator[_Grid]:
    lines: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.lstrip().startswith("|"):
            lines.append([_plain_markdown(cell) for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))])
        elif lines:
            yield _Grid("", tuple(lines[0]), _rows(lines[2:]))
            lines = []


def _plain_markdown(text: str) -> str:
    text = re.sub(r"<[^>]*>|(?<!\\)[*_`]+", "", text)
    return " ".join(html.unescape(re.sub(r"\\(.)", r"\1", text)).split())


def _joined(headers: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """What stands over each column, all lines together."""
    width = max(map(len, headers), default=0)
    filled = [[*line, *[""] * (width - len(line))] for line in headers]
    return tuple(" ".join(filter(None, (line[place] for line in filled))) for place in range(width))


# -------------------------------------------------------------------------------------------------- CSV and JSON


def _compared_cells(
    found: Iterable[tuple[tuple[str, ...], PrintedNumbers]], expected: Iterable[tuple[tuple[str, ...], PrintedNumbers]]
) -> Iterator[Counterparts]:
    known = dict(expected)
    for place, numbers in found:
        yield numbers, known.get(place)


def _csv_cells(text: str) -> Iterator[tuple[tuple[str, ...], PrintedNumbers]]:
    for row in csv.DictReader(io.StringIO(text)):
        yield _record(row)


def _record(row: Mapping[str, Any]) -> tuple[tuple[str, ...], PrintedNumbers]:
    """A row of a tidy table: where it stands, and its numbers, those that there are not as a dash."""
    said = {name: "" if value is None else str(value) for name, value in row.items()}
    place = tuple(f"{name}={value}" for name, value in said.items() if name not in _MEASURED)
    shown = (said.get("label") or said.get("row", ""), said.get("metric", ""), said.get("class", ""))
    return place, PrintedNumbers(", ".join(shown), tuple(said[name] or "-" for name in _MEASURED if name in said))


def _json_cells(text: str) -> Iterator[tuple[tuple[str, ...], PrintedNumbers]]:
    yield from _leaves(json.loads(text), ())


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], PrintedNumbers]]:
    """The rows of a tidy table and other numbers of a JSON document, each by its path."""
    if isinstance(value, dict) and "metric" in value and "mean" in value:
        place, numbers = _record(value)
        yield (*path[:-1], *place), numbers
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(item, (*path, str(key)))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, PrintedNumbers(".".join(path), (repr(value),))
