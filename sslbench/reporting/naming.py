"""What the rows of a table are called, what they stand under, and which marks and footnotes they carry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sslbench.config.grid import overlap
from sslbench.config.published import PublishedRow
from sslbench.config.table import TableSpec
from sslbench.config.text import compact
from sslbench.core.errors import UsageError
from sslbench.reporting.labels import group_of, row_label
from sslbench.reporting.layout import Line
from sslbench.reporting.material import Material
from sslbench.reporting.model import MARKS, superscript

NOT_PRINTED = "Not in the paper"


def labels(lines: Sequence[Line], material: Material, spec: TableSpec) -> list[str]:
    """The names of rows: as the grid's file says, else as printed, else in the papers' way."""
    printed = [_printed(line, spec) for line in lines]
    counts = Counter(row.label for row in printed if row)
    names = []
    for line, row in zip(lines, printed, strict=True):
        as_printed = row.label if row and counts[row.label] == 1 else ""  # six rows may be `+MetaSSL`
        given = next((planned.place.label for planned in line.cells if planned and planned.place.label), "")
        names.append(given or as_printed or _own_label(line, material))
    return names


def _own_label(line: Line, material: Material) -> str:
    planned = line.first
    settings = {path: value for path, value in planned.settings.items() if path not in material.common}
    if planned.place.names is None:
        name = row_label(planned.method, planned.loss, planned.plugin, settings)
    else:
        # Named by what varies, also where that makes a preset or is the default.
        varied = planned.place.varied
        kept = {path: value for path, value in settings.items() if not overlap([path], varied)}
        name = row_label(*planned.place.names, kept | {path: compact(value) for path, value in varied.items()})
    return f"{name} ({planned.budget})" if line.bound else name


def heading(line: Line, spec: TableSpec) -> str:
    """What a row stands under; empty: nothing."""
    given = next((row.place.heading for row in line.cells if row and row.place.heading is not None), None)
    if given is not None:
        return given
    if spec.ordered != "groups":
        printed = _printed(line, spec)
        return printed.heading if printed else NOT_PRINTED if spec.ordered == "print" else ""
    row = line.first
    return group_of(row.method, row.loss, () if line.bound else spec.groups, row.settings)


def printed_place(line: Line) -> tuple[bool, int]:
    """The place of a row in print; those that print lacks come last."""
    places = [row.place.printed for row in line.cells if row and row.place.printed is not None]
    return not places, min(places, default=0)


def _printed(line: Line, spec: TableSpec) -> PublishedRow | None:
    absent, place = printed_place(line)
    return None if absent or spec.published is None else spec.published.rows[place]


def recipe_letters(lines: Sequence[Line], spec: TableSpec) -> dict[str, str]:
    """The letter of each recipe, in the order of print; none where rows of several recipes do not stand together.

    Recipes that give one row its numbers in several blocks share theirs.
    """
    if not spec.together:
        return {}
    found: dict[str, int] = {}
    for line in sorted(lines, key=printed_place):
        recipes = [row.recipe for row in line.cells if row]
        number = next((found[name] for name in recipes if name in found), len({*found.values()}))
        for name in recipes:
            found.setdefault(name, number)
    several = len({*found.values()}) > 1
    return {name: MARKS[number] for name, number in found.items()} if several else {}


@dataclass(frozen=True)
class Footnotes:
    """What is said of single rows.

    Attributes:
        letters: of each row's footnotes.
        notes: one for each letter, which it begins with.
    """

    letters: tuple[str, ...]
    notes: tuple[str, ...]


def footnotes(lines: Sequence[Line], spec: TableSpec, taken: int) -> Footnotes:
    """The footnotes of rows, equal ones under one letter, in the order of print.

    Args:
        taken: how many letters are in use already.

    Raises:
        UsageError: there are more than letters.
    """
    texts = [list(_about(line, spec)) for line in lines]
    order = sorted(range(len(lines)), key=lambda place: printed_place(lines[place]))
    known = list(dict.fromkeys(text for place in order for text in texts[place]))
    if len(known) > len(MARKS) - taken:
        raise UsageError(f"the table has {len(known)} footnotes, more than letters", "make some rows' `note` the same")
    letter = dict(zip(known, MARKS[taken:], strict=False))
    own = tuple("".join(sorted(letter[text] for text in told)) for told in texts)
    return Footnotes(own, tuple(f"{superscript(mark)} {text}" for text, mark in letter.items()))


def _about(line: Line, spec: TableSpec) -> Iterator[str]:
    """What is said of a row: its entry's notes, and in what its job is another than the paper says."""
    yield from dict.fromkeys(_sentence(row.place.note) for row in line.cells if row and row.place.note)
    published = spec.published
    places = [row.place.printed for row in line.cells if row and row.place.printed is not None]
    if published is None or not places:
        return
    printed = [published.rows[place] for place in places]
    networks = {row.network_here: row.network_published for row in printed if row.network_here != row.network_published}
    for here, there in networks.items():
        yield f"Network {here}; the paper says {there}."
    if origins := dict.fromkeys(row.origin for row in printed if row.origin):
        yield f"In print copied from {' and '.join(origins)}."
    if any("base-inferred" in row.flags for row in printed):
        yield "The paper does not say which method is under the loss: this one by its numbers."


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(". ") + "."
