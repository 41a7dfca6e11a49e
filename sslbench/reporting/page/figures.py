"""The figures of a page: which stand under which heading, drawn until the page is full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sslbench.reporting.figures.album import Leaf
from sslbench.reporting.figures.overlay import OverlayPlate
from sslbench.reporting.figures.plate import LeftOut, Plate
from sslbench.reporting.figures.subject import FigureSubject
from sslbench.reporting.page.vector import Sheets, graphic, picture, pixels

if TYPE_CHECKING:
    from markupsafe import Markup

MOST_SHOWN = 40  # of a figure: more lines than that are not read
MOST_GRAPHICS = 500_000  # bytes of all vector graphics together
_HALF = 500  # CSS pixels up to which figures stand beside each other
_AROUND = 500  # bytes of a figure's headings and of what all of them look like
MOST_PICTURES = 1_000_000  # bytes of all pictures together

# Plates by the key of their part, in order.
_PARTS = {
    "gains": ("gains",),
    "size": ("lens", "classes", "sizes"),
    "ranks": ("ranks", "pairs"),
    "cases": ("cases",),
    "curves": ("curves", "mined", "weights", "agreement", "regions", "region-accuracy"),
    "cost": ("budget", "options", "cost"),
    "pictures": ("overlay",),
}


@dataclass(frozen=True)
class ShownFigure:
    """One figure.

    Attributes:
        title, caption: in words.
        subject: title of its table, where the report has several.
        markup: an `<svg>` or `<img>` element.
        narrow: whether two have room beside each other.
    """

    title: str
    subject: str
    caption: str
    markup: Markup
    narrow: bool


@dataclass
class Gallery:
    """What was drawn.

    Attributes:
        parts: figures by the key of their part.
        left_out: figures by the reason why they were not drawn.
        css: what graphics look like.
        size: bytes of graphics with their captions.
    """

    parts: dict[str, list[ShownFigure]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    css: str = ""
    size: int = 0

    def leave(self, name: str, why: str) -> None:
        """Note a figure that is left out, each once for each reason."""
        names = self.left_out.setdefault(why, [])
        if name not in names:
            names.append(name)


def gallery(leaves: Sequence[Leaf], room: int) -> Gallery:
    """Draw the figures of a report, part by part, until there is no more room.

    Args:
        leaves: of its tables, with not too many rows each: see `best_rows`.
        room: bytes that graphics may take, with their captions; pictures have `MOST_PICTURES`.
    """
    found = Gallery()
    several = len({leaf.subject for leaf in leaves if leaf.subject}) > 1
    sheets, left = Sheets(), {"graphics": room, "pictures": MOST_PICTURES}
    for part, names in _PARTS.items():
        for number, leaf in enumerate(_of_part(leaves, names)):
            plate = leaf.plate
            if isinstance(plate, LeftOut):
                found.leave(plate.name, plate.why)
                continue
            kind = "pictures" if isinstance(plate, OverlayPlate) else "graphics"
            made = _drawn(leaf, plate, f"{part}{number}", sheets) if left[kind] > 0 else None
            if made is None or (size := _bytes(made[0], plate.caption)) > left[kind]:
                found.leave(plate.name, "the page would grow too large; --figures draws it")
                continue
            markup, width = made
            left[kind] -= size
            figure = ShownFigure(plate.title, leaf.title if several else "", plate.caption, markup, width < _HALF)
            found.parts.setdefault(part, []).append(figure)
    found.css = sheets.css
    found.size = room - left["graphics"] + len(found.css)
    return found


def _bytes(markup: Markup, caption: str) -> int:
    """What a figure takes of the page, with all that stands around it."""
    return len(markup.encode()) + len(caption.encode()) + _AROUND


def _drawn(leaf: Leaf, plate: Plate, key: str, sheets: Sheets) -> tuple[Markup, int]:
    """A figure as an element, and its width in CSS pixels."""
    width = pixels(leaf.drawing)[0]
    if isinstance(plate, OverlayPlate):
        return picture(leaf.drawing, plate.alt), width
    return graphic(leaf.drawing, key, plate.title, plate.alt, sheets), width


def _of_part(leaves: Sequence[Leaf], names: Sequence[str]) -> list[Leaf]:
    """The figures of a part: those of one table together, in the order of the names."""
    own = [leaf for leaf in leaves if leaf.plate.name in names]
    tables = list(dict.fromkeys(leaf.subject for leaf in own))
    return sorted(own, key=lambda leaf: (tables.index(leaf.subject), names.index(leaf.plate.name)))


def best_rows(subject: FigureSubject, most: int) -> FigureSubject:
    """A subject with its best rows alone, each with its baseline; itself where it has no more than `most`."""
    if len(subject.rows) <= most:
        return subject
    kept: list[str] = []
    for row in sorted(subject.rows, key=lambda row: -row.mean):
        pair = [row.label, subject.baselines.get(row.label, row.label)]
        kept += [label for label in dict.fromkeys(pair) if label not in kept][: most - len(kept)]
    return replace(
        subject,
        rows=tuple(row for row in subject.rows if row.label in kept),
        baselines={label: base for label, base in subject.baselines.items() if {label, base} <= {*kept}},
        gains={label: found for label, found in subject.gains.items() if {label, subject.baselines[label]} <= {*kept}},
    )
