"""How every figure looks and is written: sizes in millimetres, one palette, the same bytes for the same numbers.

matplotlib is the extra `figures`; its global state (pyplot, the user's rcParams) is neither used nor changed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslbench.core.errors import UsageError
from sslbench.core.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NARROW, WIDE = 85.0, 174.0  # mm: a column and a page of the usual journals
POINTS = 8.0  # size of text
SMALL = 6.5  # of numbers in cells and of remarks
LINE = 3.9  # mm from one line of text to the next
MM = 1 / 25.4

INK, GREY, PALE = "#222222", "#7a7a7a", "#dddddd"
# Okabe & Ito (2008): told apart with any colour vision; its yellow is darkened, as a line of it would be lost on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#b8a800")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HEAD, MEDIUM, TAIL = "#0072b2", "#7a7a7a", "#d55e00"

_FAMILY = "DejaVu Sans"  # comes with matplotlib, so that texts are as wide everywhere


@dataclass(frozen=True)
class Look:
    """Colour and marker of a row, the same in every figure of a report."""

    colour: str
    marker: str


def looks_of(labels: Sequence[str]) -> Mapping[str, Look]:
    """Looks by label; more rows than colours are all grey, and told apart by their labels."""
    if len(labels) > len(COLOURS):
        return dict.fromkeys(labels, Look(GREY, "o"))
    return {label: Look(*pair) for label, pair in zip(labels, zip(COLOURS, MARKERS, strict=True), strict=False)}


# ----------------------------------------------------------------------------------------------------------- drawing


def check_installed() -> None:
    """Check that figures can be drawn at all.

    Raises:
        UsageError: matplotlib is missing.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "figures need matplotlib, which is not installed", "pip install 'sslbench[figures]'"
        ) from error


def check_ending(path: Path) -> None:
    """Check that a figure can be written to a file.

    Raises:
        UsageError: matplotlib is missing, or does not know the ending.
    """
    check_installed()
    from matplotlib.figure import Figure

    known = Figure().canvas.get_supported_filetypes()
    if path.suffix.lstrip(".").lower() not in known:
        raise UsageError(f"{path} has not the ending of a figure", f"known: {', '.join(sorted(known))}")


@cache
def _settings() -> Any:
    import matplotlib

    own = {
        "font.family": [_FAMILY],
        "font.size": POINTS,
        "axes.titlesize": POINTS,
        "axes.labelsize": POINTS,
        "axes.linewidth": 0.6,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.titlepad": 3.0,
        "axes.labelpad": 2.5,
        "axes.axisbelow": True,
        "axes.unicode_minus": True,
        "text.parse_math": False,  # a name may have a dollar in it
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.labelsize": POINTS,
        "ytick.labelsize": POINTS,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "grid.color": "#e6e6e6",
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.2,
        "lines.markersize": 4.0,
        "legend.fontsize": POINTS,
        "legend.frameon": False,
        "pdf.fonttype": 42,
        "ps.fonttype": 42,
        "svg.fonttype": "none",
        "svg.hashsalt": "sslbench",
    }
    leave = {"backend", "backend_fallback", "interactive"}
    return {name: value for name, value in matplotlib.rcParamsDefault.items() if name not in leave} | own


@contextmanager
def styled() -> Iterator[None]:
    """matplotlib under our settings, whatever the user's are, and back."""
    import matplotlib

    with matplotlib.rc_context(_settings()):
        yield


def sheet(width: float, height: float) -> Figure:
    """An empty figure of a size in mm."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width * MM, height * MM))


def place(figure: Figure, left: float, top: float, width: float, height: float, **options: Any) -> Axes:
    """Axes at a place in mm from the upper left corner: nothing is cut off that was given its room."""
    whole_width, whole_height = (side / MM for side in figure.get_size_inches())
    box = (left / whole_width, 1 - (top + height) / whole_height, width / whole_width, height / whole_height)
    axes = figure.add_axes(box, **options)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def write_at(figure: Figure, x: float, y: float, text: str, **options: Any) -> None:
    """Text at a place in mm from the upper left corner."""
    width, height = (side / MM for side in figure.get_size_inches())
    figure.text(x / width, 1 - y / height, text, **options)


@cache
def text_width(text: str, points: float = POINTS, weight: str = "normal") -> float:
    """Width of a text in mm; of several lines the longest."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=_FAMILY, weight=weight, size=points)
    widths = [
        text_to_path.get_text_width_height_descent(line or " ", font, ismath=False)[0] for line in text.split("\n")
    ]
    return float(max(widths)) / 72 / MM


def key_width(label: str) -> float:
    """Width in mm of a label of a key, with its swatch and the blank behind it."""
    return 10.0 + text_width(label, SMALL)


def key_rows(labels: Sequence[str], room: float) -> list[list[str]]:
    """Labels of a key in as many lines as they need."""
    rows: list[list[str]] = [[]]
    used = 0.0
    for label in labels:
        if rows[-1] and used + key_width(label) > room:
            rows.append([])
            used = 0.0
        rows[-1].append(label)
        used += key_width(label)
    return rows


def widest(texts: Iterable[str], points: float = POINTS) -> float:
    """Width of the widest of some texts in mm; 0 where there is none."""
    return max((text_width(text, points) for text in texts), default=0.0)


def fitted(text: str, room: float, points: float = POINTS, lines: int = 2) -> str:
    """A text broken into lines where it is wider than its room in mm, and cut short with `…` where that is not enough.

    Lines break after a space, a comma, a hyphen or a slash.
    """
    if text_width(text, points) <= room:
        return text
    done: list[str] = []
    rest = text
    while rest and len(done) < lines:
        if text_width(rest, points) <= room:
            done.append(rest)
            return "\n".join(done)
        breaks = [match.end() for match in re.finditer(r"[ ,\-/]", rest)]
        fits = [at for at in breaks if text_width(rest[:at].rstrip(), points) <= room]
        if not fits or len(done) == lines - 1:
            break
        done.append(rest[: fits[-1]].rstrip())
        rest = rest[fits[-1] :].lstrip()
    while rest and text_width(rest + "…", points) > room:
        rest = rest[:-1]
    return "\n".join([*done, rest.rstrip() + "…"])


def shortened(texts: Sequence[str], room: float, points: float = POINTS) -> list[str]:
    """Names of one line each, cut short where they are wider than the room in mm; those that would then be alike lose
    their middle instead of their end."""
    cut = [fitted(text, room, points, lines=1) for text in texts]
    return [
        _without_middle(text, room, points) if cut.count(short) > 1 else short
        for text, short in zip(texts, cut, strict=True)
    ]


def _without_middle(text: str, room: float, points: float) -> str:
    kept = len(text) - 1
    while kept > 2 and text_width(f"{text[: kept - kept // 2]}…{text[-(kept // 2) :]}", points) > room:
        kept -= 1
    return f"{text[: kept - kept // 2]}…{text[-(kept // 2) :]}"


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places for labels near their positions, `gap` apart and inside [low, high], in the order given.

    With less room than that they stand as far apart as they can.
    """
    if not positions:
        return []
    gap = min(gap, (high - low) / max(1, len(positions) - 1))
    order = sorted(range(len(positions)), key=lambda number: positions[number])
    # Labels that touch move together, centred on what they stand for (pool adjacent violators).
    blocks: list[list[float]] = []  # sum of wanted places of the first label, number of labels
    for rank, number in enumerate(order):
        blocks.append([positions[number] - rank * gap, 1.0])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    starts = [total / count for total, count in blocks for _ in range(int(count))]
    top = high - (len(order) - 1) * gap
    places = [0.0] * len(order)
    for rank, number in enumerate(order):
        places[number] = min(max(starts[rank], low), top) + rank * gap
    return places


def across(panels: int) -> int:
    """How many of so many panels stand side by side on a page."""
    return min(panels, 3 if panels in (3, 5, 6, 9) else 4)


def cells(
    axes: Axes, at: Sequence[tuple[float, float]], colours: Sequence[tuple[float, ...]], size: tuple[float, float]
) -> None:
    """Fill cells of a heat table: many alike, which a collection writes once.

    Args:
        at: middles (x, y) in data.
        colours: of each.
        size: width and height of all in mm.
    """
    from matplotlib.collections import PathCollection
    from matplotlib.path import Path as Outline

    width, height = (side * MM / 2 for side in size)
    corners = [(-width, -height), (width, -height), (width, height), (-width, height), (-width, -height)]
    found = PathCollection(
        [Outline(corners, closed=True)],
        offsets=list(at),
        offset_transform=axes.transData,
        facecolors=list(colours),
        edgecolors="none",
        linewidths=0,
        zorder=1,
    )
    found.set_transform(axes.figure.dpi_scale_trans)
    axes.add_collection(found, autolim=False)


def strokes(axes: Axes, lines: Iterable[tuple[tuple[float, float], tuple[float, float]]], **options: Any) -> None:
    """Draw straight lines of one look, each from a point to another, as one."""
    gap = (float("nan"), float("nan"))
    points = [point for one, other in lines for point in (one, other, gap)]
    if points:
        x, y = zip(*points, strict=True)
        axes.plot(x, y, solid_capstyle="butt", **options)


def on_dark(colour: Sequence[float]) -> bool:
    """Whether white is easier to read on an RGB colour than black (WCAG's luminance)."""
    channels = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in colour[:3]]
    luminance = sum(share * value for share, value in zip((0.2126, 0.7152, 0.0722), channels, strict=True))
    return luminance < 0.179


def ticks_of(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers inside an interval, at most so many."""
    from matplotlib.ticker import MaxNLocator

    found = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    step = min(b - a for a, b in pairwise(found))
    return [float(tick) for tick in found if low - 1e-9 * step <= tick <= high + 1e-9 * step]


def count_text(count: float) -> str:
    """A round number in short: `200`, `5k`, `1M`."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:g}{letter}"
    return f"{count:g}"


# ----------------------------------------------------------------------------------------------------------- writing

_IDS = re.compile(r'(\bid="|xlink:href="#|\bhref="#|url\(#)([^")]+)')


def svg_text(figure: Figure, name: str, title: str, description: str) -> str:
    """A figure as SVG that may stand in a page with others: its ids begin with `name`, it refers to no address, and it
    says what it shows to those who cannot see it."""
    return Drawing(figure).svg_text(name, title, description)


class Drawing:
    """A figure that was drawn, for all files and pages that show it.

    Attributes:
        figure: None after `release`.
        size: width and height in inches.
    """

    def __init__(self, figure: Figure) -> None:
        self.figure: Figure | None = figure
        width, height = figure.get_size_inches()
        self.size = (float(width), float(height))

    def release(self) -> None:
        """Keep the SVG alone: a figure is megabytes."""
        _ = self._svg
        self.figure = None

    @cached_property
    def _svg(self) -> str:
        assert self.figure is not None
        stream = io.BytesIO()
        about = {"Date": None, "Creator": None, "Format": None, "Type": None}
        with styled():
            self.figure.savefig(stream, format="svg", metadata=about)
        text = stream.getvalue().decode("utf-8")
        text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        return re.sub(r"<!DOCTYPE.*?>\s*", "", text, flags=re.DOTALL)

    def svg_text(self, name: str, title: str, description: str) -> str:
        """As of `svg_text`."""
        return _labelled(self._svg, name, title, description)


def _labelled(text: str, name: str, title: str, description: str) -> str:
    text = _IDS.sub(lambda match: f"{match[1]}{name}-{match[2]}", text)
    label = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    head = f'<svg role="img" aria-labelledby="{name}-title {name}-desc"'
    return re.sub(r"<svg([^>]*)>", lambda match: f"{head}{match[1]}>{label}", text, count=1)


def write_figure(figure: Figure, path: Path, title: str) -> None:
    """Write a figure in the format of a file's ending, whole or not at all, without the time; SVG is `svg_text`."""
    form = path.suffix.lstrip(".").lower()
    metadata: dict[str, Any] = {"Title": title}
    if form == "pdf":
        metadata |= {"CreationDate": None, "Producer": None, "Creator": None}
    elif form == "png":
        metadata |= {"Software": None}
    else:
        metadata = {}
    with styled(), atomic_path(path, sync=False) as aside:
        figure.savefig(aside, format=form, dpi=300, metadata=metadata or None)
