"""What rows gain over their baselines: `gains` (all, large and small structures) and `lens` (gain against size)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from sslbench.config.text import counted
from sslbench.reporting.figures import style
from sslbench.reporting.figures.plate import LeftOut, Plate, Record, interval_text, signed
from sslbench.reporting.figures.style import Look
from sslbench.reporting.figures.subject import FigureRow, FigureSubject
from sslbench.reporting.gains import Gain
from sslbench.reporting.labels import class_title
from sslbench.reporting.statistics import ClassWeights, Floats, TwoWay, average_of, slope_on, two_way

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PARTS = ("all", "head", "tail")


@dataclass(frozen=True)
class Span:
    """A difference with its 95 % interval; the ends are NaN where there is none."""

    mean: float
    low: float = math.nan
    high: float = math.nan

    @classmethod
    def of(cls, interval: TwoWay | None) -> Span | None:
        """The span of an interval."""
        return None if interval is None else cls(interval.mean, interval.low, interval.high)


@dataclass(frozen=True)
class GainLine:
    """The gain of one row.

    Attributes:
        label, baseline: of the rows.
        spans: by `_PARTS`; head and tail are None where classes are not split by size.
        tested: whether there is a test; hollow where not.
        star: whether the difference is told apart from chance in its family.
        note: why there is no test or no interval.
        look: of the row.
    """

    label: str
    baseline: str
    spans: tuple[Span | None, Span | None, Span | None]
    tested: bool
    star: bool
    note: str
    look: Look


@dataclass(frozen=True)
class GainsPlate(Plate):
    """Forest of gains.

    Attributes:
        lines: one per pair.
        points: unit of the differences.
        head, tail: names of the classes; empty where they are not split.
        refused: rows that cannot be held against their baselines, and why.
    """

    name: ClassVar[str] = "gains"
    title: ClassVar[str] = "Gain over the baseline"

    lines: tuple[GainLine, ...]
    points: str
    head: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    @classmethod
    def of(cls, subject: FigureSubject, looks: dict[str, Look]) -> GainsPlate | LeftOut:
        """From the gains of a table."""
        lines = [
            _gain_line(label, subject.baselines[label], found, looks[label])
            for label, found in subject.gains.items()
            if not math.isnan(found.difference)
        ]
        refused = tuple(
            f"{label}: {found.refused}" for label, found in subject.gains.items() if math.isnan(found.difference)
        )
        if not lines:
            return LeftOut(cls.name, "no row has its baseline in the table" if not refused else refused[0])
        titles = [tuple(map(class_title, names)) for names in (subject.lens.head, subject.lens.tail)]
        return cls(tuple(lines), subject.points, titles[0], titles[1], refused)

    @property
    def alt(self) -> str:
        best = max(self.lines, key=lambda line: line.spans[0].mean if line.spans[0] else -math.inf)
        worst = min(self.lines, key=lambda line: line.spans[0].mean if line.spans[0] else math.inf)
        stars = sum(line.star for line in self.lines)
        tested = sum(line.tested for line in self.lines)
        told = f"Gains of {counted(len(self.lines), 'row')} over the baseline in {self.points}: {_span_text(best)}"
        if worst is not best:
            told += f"; least, {_span_text(worst)}"
        apart = f"{stars} of {tested} tested differences are told apart from chance" if tested else "None is tested"
        return f"{told}. {apart}."

    @property
    def caption(self) -> str:
        told = [
            f"Gain over the baseline in {self.points}; positive is better. Lines: 95 % intervals over seeds × "
            "patients, of one seed over patients alone."
        ]
        if self.head:
            told.append(f"Large: {', '.join(self.head)}. Small: {', '.join(self.tail)}.")
        if any(line.star for line in self.lines):
            told.append("*: p < 0.05 after Holm's correction for all rows.")
        reasons = Counter(line.note for line in self.lines if line.note)
        told += [f"Hollow: not tested ({why}; {number} of {len(self.lines)})." for why, number in reasons.items()]
        told += [f"Not compared: {why}." for why in self.refused]
        return " ".join(told)

    def records(self) -> Sequence[Record]:
        return [
            {
                "row": line.label,
                "baseline": line.baseline,
                "part": part,
                "gain": span.mean,
                "low": span.low,
                "high": span.high,
                "tested": line.tested and part == "all",
                "star": line.star and part == "all",
                "note": line.note,
            }
            for line in self.lines
            for part, span in zip(_PARTS, line.spans, strict=True)
            if span is not None
        ]

    def _draw(self) -> Figure:
        bases = {line.baseline for line in self.lines}
        split = bool(self.head)
        width = style.WIDE if split else style.NARROW
        titles = [line.label if len(bases) == 1 else f"{line.label} − {line.baseline}" for line in self.lines]
        room = min(style.widest(titles) + 1, width * 0.42)
        labels = [style.fitted(title, room) for title in titles]
        steps = [4.6 + (style.LINE - 0.4) * label.count("\n") for label in labels]
        middles = [sum(steps[:number]) + step / 2 for number, step in enumerate(steps)]
        left, top, height = style.widest(labels) + 3, 6.5 if split else 2.0, sum(steps)
        figure = style.sheet(width, top + height + 10.5)
        limits = _limits([span for line in self.lines for span in line.spans if span])
        count = 3 if split else 1
        gap = 4.0
        each = (width - left - 3 - gap * (count - 1)) / count
        heads = ("all classes", f"large ({len(self.head)})", f"small ({len(self.tail)})")
        for number in range(count):
            axes = style.place(figure, left + number * (each + gap), top, each, height)
            spans = [(place, line, line.spans[number]) for place, line in zip(middles, self.lines, strict=True)]
            _forest(axes, spans, limits, stars=number == 0)
            axes.set_ylim(height, 0)
            axes.set_yticks(middles, labels if number == 0 else [], linespacing=1.0)
            if split:
                axes.set_title(heads[number])
        over = f" over {next(iter(bases))}" if len(bases) == 1 else ""
        unit = style.fitted(f"gain{over} ({self.points})", width - left)
        style.write_at(figure, left + (width - left - 3) / 2, top + height + 9.3, unit, ha="center", va="bottom")
        return figure


def _gain_line(label: str, baseline: str, found: Gain, look: Look) -> GainLine:
    spans = (Span.of(found.average) or Span(found.difference), Span.of(found.head), Span.of(found.tail))
    return GainLine(label, baseline, spans, not found.untested, found.star, found.refused or found.untested, look)


def _span_text(line: GainLine) -> str:
    span = line.spans[0]
    if span is None:
        return line.label
    interval = "" if math.isnan(span.low) else f" ({interval_text(span.low, span.high)})"
    return f"{line.label} {signed(span.mean)}{interval}"


def _limits(spans: Iterable[Span]) -> tuple[float, float]:
    """Ends of an axis that holds all means, and all intervals but those that would press the others to a dot."""
    spans = list(spans)
    means = [span.mean for span in spans]
    ends = [end for span in spans for end in (span.low, span.high) if not math.isnan(end)]
    halves = [(span.high - span.low) / 2 for span in spans if not math.isnan(span.low)]
    reach = 3 * float(np.median(halves)) if halves else 0.0
    low = max(min([0.0, *means, *ends]), min([0.0, *means]) - reach)
    high = min(max([0.0, *means, *ends]), max([0.0, *means]) + reach)
    pad = 0.06 * (high - low or 1.0)
    return low - pad, high + pad


def _forest(
    axes: Axes, lines: Sequence[tuple[float, GainLine, Span | None]], limits: tuple[float, float], stars: bool
) -> None:
    """Points and intervals at their heights."""
    low, high = limits
    axes.set_xlim(low, high)
    axes.grid(axis="x")
    axes.axvline(0, color=style.INK, linewidth=0.8, zorder=1)
    drawn: dict[tuple[Look, bool], list[tuple[float, Span]]] = {}
    for place, line, span in lines:
        if span is not None:
            drawn.setdefault((line.look, line.tested), []).append((place, span))
            if stars and line.star:
                axes.annotate("*", (span.mean, place), (0, 0.5), textcoords="offset points", ha="center", va="bottom")
    for (look, tested), spans in drawn.items():
        known = [(place, span) for place, span in spans if not math.isnan(span.low)]
        ends = [((max(span.low, low), place), (min(span.high, high), place)) for place, span in known]
        style.strokes(axes, ends, color=look.colour)
        for edge, marker, cut in (  # carets at what is cut off
            (low, 8, [place for place, span in known if span.low < low]),
            (high, 9, [place for place, span in known if span.high > high]),
        ):
            if cut:
                axes.plot([edge] * len(cut), cut, linestyle="", marker=marker, color=look.colour, clip_on=False)
        face = look.colour if tested else "white"
        means, places = [span.mean for _, span in spans], [place for place, _ in spans]
        axes.plot(means, places, look.marker, color=look.colour, markerfacecolor=face, zorder=3)
    axes.set_xticks(style.ticks_of(low, high, 5))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


# --------------------------------------------------------------------------------------------------------------- lens


@dataclass(frozen=True)
class ClassGain:
    """The gain in one class, and the mean voxels of it; `part` is head, medium, tail, or empty."""

    name: str
    size: float
    span: Span
    part: str


@dataclass(frozen=True)
class LensPanel:
    """Gain against size for one pair.

    Attributes:
        label, baseline: of the rows.
        classes: their gains.
        slope: points for each tenfold size.
        line: (size, mean, low, high) along the fitted line.
    """

    label: str
    baseline: str
    classes: tuple[ClassGain, ...]
    slope: Span
    line: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True)
class LensPlate(Plate):
    """Gain against the size of structures.

    Attributes:
        panels: one per pair.
        points: unit of the differences.
    """

    name: ClassVar[str] = "lens"
    title: ClassVar[str] = "Gain against size"

    panels: tuple[LensPanel, ...]
    points: str

    @classmethod
    def of(cls, subject: FigureSubject) -> LensPlate | LeftOut:
        """From the gains of a table that have a slope."""
        rows = subject.entries
        panels = [
            _lens_panel(rows[label], rows[subject.baselines[label]], found, subject)
            for label, found in subject.gains.items()
            if found.slope is not None
        ]
        if not panels:
            return LeftOut(cls.name, _no_lens(subject))
        return cls(tuple(panels), subject.points)

    @property
    def alt(self) -> str:
        small = [panel for panel in self.panels if panel.slope.high < 0]
        large = [panel for panel in self.panels if panel.slope.low > 0]
        steepest = min(self.panels, key=lambda panel: panel.slope.mean)
        slope = steepest.slope
        level = len(self.panels) - len(small) - len(large)
        return (
            f"Gain of each class against its size for {counted(len(self.panels), 'pair')} of rows: small structures "
            f"gain more in {len(small)}, large ones in {len(large)}, {level} are not told apart from level; "
            f"{steepest.label} changes by {signed(slope.mean)} {self.points} per tenfold size "
            f"({interval_text(slope.low, slope.high)})."
        )

    @property
    def caption(self) -> str:
        parts = {each.part for panel in self.panels for each in panel.classes} - {""}
        marks = " Squares: large, circles: medium, triangles: small structures." if parts else ""
        return (
            f"Gain in {self.points} of each class against its size (mean voxels in the test cases that have it). "
            f"Line and band: least squares on log size with its 95 % interval over seeds × patients (of one "
            f"seed over patients alone), at each size. "
            f"Below 0: small structures gain more for each tenfold size (β).{marks}"
        )

    def records(self) -> Sequence[Record]:
        points: list[Record] = [
            {
                "row": panel.label,
                "baseline": panel.baseline,
                "what": "class",
                "class": each.name,
                "part": each.part,
                "size": each.size,
                "gain": each.span.mean,
                "low": each.span.low,
                "high": each.span.high,
            }
            for panel in self.panels
            for each in panel.classes
        ]
        for panel in self.panels:
            key = {"row": panel.label, "baseline": panel.baseline}
            slope = panel.slope
            points.append({**key, "what": "slope", "gain": slope.mean, "low": slope.low, "high": slope.high})
            points += [
                {**key, "what": "line", "size": size, "gain": mean, "low": low, "high": high}
                for size, mean, low, high in panel.line
            ]
        return points

    def _draw(self) -> Figure:
        few = len(self.panels) == 1
        across = style.across(len(self.panels))
        down = math.ceil(len(self.panels) / across)
        width = style.NARROW if few else style.WIDE
        left, top, gap, under = 13.0, 8.5, 4.0, 4.5
        each = (width - left - gap * across) / across
        height = 42.0 if few else 27.0
        foot = 14.5 if any(each.part for panel in self.panels for each in panel.classes) else 9.5
        figure = style.sheet(width, top + down * height + (down - 1) * (under + 8.0) + foot)
        spans = [each.span for panel in self.panels for each in panel.classes]
        lines = [Span(mean, low, high) for panel in self.panels for _, mean, low, high in panel.line]
        limits = _limits([*spans, *lines])
        sizes = [each.size for panel in self.panels for each in panel.classes]
        reach = (min(sizes) / 1.6, max(sizes) * 1.6)
        titles = style.shortened([f"{panel.label} − {panel.baseline}" for panel in self.panels], each + gap - 1)
        for number, panel in enumerate(self.panels):
            row, column = divmod(number, across)
            axes = style.place(figure, left + column * (each + gap), top + row * (height + under + 8.0), each, height)
            _lens_axes(axes, panel, limits, names=few)
            axes.set_xscale("log")
            axes.set_xlim(*reach)
            axes.minorticks_off()
            last = number + across >= len(self.panels)
            axes.set_xticks(*_powers(*reach, shown=last))
            axes.set_yticks(style.ticks_of(*limits, 5))
            if column:
                axes.set_yticklabels([])
            slope = f"β {signed(panel.slope.mean)} ({interval_text(panel.slope.low, panel.slope.high)})"
            axes.text(0, 1 + 3.6 / height, titles[number], transform=axes.transAxes, va="bottom", ha="left")
            axes.text(
                0, 1 + 0.6 / height, slope, transform=axes.transAxes, va="bottom", ha="left", fontsize=style.SMALL
            )
        whole = figure.get_size_inches()[1] / style.MM
        middle = left + (width - left - gap) / 2
        style.write_at(figure, 1.2, top + (whole - top - foot) / 2, f"gain ({self.points})", rotation=90, va="center")
        bottom = whole - foot + 9.0
        style.write_at(figure, middle, bottom, "mean voxels of the class", ha="center", va="bottom")
        if foot > 10:
            _part_legend(figure, width)
        return figure


def _no_lens(subject: FigureSubject) -> str:
    if not subject.gains:
        return "no row has its baseline in the table"
    refused = [found.refused for found in subject.gains.values()]
    if all(refused):
        return refused[0]
    few = all(len(row.values.classes) < 3 for row in subject.rows)
    return "fewer than three classes" if few else "classes without values or sizes"


_PART_LOOKS = {
    "head": Look(style.HEAD, "s"),
    "medium": Look(style.MEDIUM, "o"),
    "tail": Look(style.TAIL, "^"),
    "": Look(style.HEAD, "o"),
}


def _lens_axes(axes: Axes, panel: LensPanel, limits: tuple[float, float], names: bool) -> None:
    axes.set_ylim(*limits)
    axes.grid(axis="y")
    axes.axhline(0, color=style.INK, linewidth=0.8, zorder=1)
    size, mean, low, high = zip(*panel.line, strict=True)
    axes.fill_between(size, np.clip(low, *limits), np.clip(high, *limits), color=style.PALE, linewidth=0, zorder=0.5)
    axes.plot(size, mean, color=style.GREY, linewidth=1.0, zorder=1.5)
    for part, look in _PART_LOOKS.items():
        own = [each for each in panel.classes if each.part == part]
        if own:
            ends = [np.clip([each.span.low, each.span.high], *limits) for each in own]
            lines = [
                ((each.size, float(one)), (each.size, float(two))) for each, (one, two) in zip(own, ends, strict=True)
            ]
            style.strokes(axes, lines, color=look.colour, linewidth=0.7, alpha=0.6, zorder=2)
            sizes, means = [each.size for each in own], [each.span.mean for each in own]
            axes.plot(sizes, means, look.marker, color=look.colour, markersize=3.5, zorder=3)
    if not names:
        return
    places = _name_places(panel.classes, limits)
    for each, place in zip(panel.classes, places, strict=True):
        axes.annotate(
            each.name, (each.size, place), (3, 0), textcoords="offset points", fontsize=style.SMALL, va="center"
        )


def _name_places(classes: Sequence[ClassGain], limits: tuple[float, float]) -> list[float]:
    """Heights of the names beside their points: those of neighbouring sizes make room for each other."""
    gap = 0.055 * (limits[1] - limits[0])
    places = [each.span.mean for each in classes]
    order = sorted(range(len(classes)), key=lambda number: classes[number].size)
    cluster: list[int] = []
    for rank, number in enumerate(order):
        cluster.append(number)
        near = rank + 1 < len(order) and classes[order[rank + 1]].size < 1.45 * classes[number].size
        if near:
            continue
        for member, moved in zip(cluster, style.spread([places[m] for m in cluster], gap, *limits), strict=True):
            places[member] = moved
        cluster = []
    return places


def _powers(low: float, high: float, shown: bool) -> tuple[list[float], list[str]]:
    """Ticks at powers of ten, with labels or without."""
    powers = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    steps = [1, 2, 5] if len(powers) < 2 else [1]
    ticks = [step * 10.0**power for power in range(powers.start - 1, powers.stop + 1) for step in steps]
    ticks = [tick for tick in ticks if low <= tick <= high]
    return ticks, [style.count_text(tick) if shown else "" for tick in ticks]


def _part_legend(figure: Figure, width: float) -> None:
    from matplotlib.lines import Line2D

    titles = {"head": "large", "medium": "medium", "tail": "small"}
    handles = [
        Line2D([], [], linestyle="", marker=_PART_LOOKS[part].marker, color=_PART_LOOKS[part].colour, label=title)
        for part, title in titles.items()
    ]
    figure.legend(handles=handles, loc="lower center", ncols=3, borderpad=0.1, handletextpad=0.1, columnspacing=1.2)


def _lens_panel(row: FigureRow, base: FigureRow, found: Gain, subject: FigureSubject) -> LensPanel:
    lens = subject.lens
    part_of = {name: part for part in ("head", "medium", "tail") for name in getattr(lens, part)}
    names = row.values.classes
    classes = tuple(
        ClassGain(class_title(name), lens.sizes[name], Span.of(interval) or Span(math.nan), part_of.get(name, ""))
        for name, interval in sorted(found.classes.items(), key=lambda item: -lens.sizes[item[0]])
    )
    x = np.log10([lens.sizes[name] for name in names])
    shared = [seed for seed in row.values.seeds if seed in base.values.seeds]
    ours, theirs = row.values.at(shared), base.values.at(shared)
    line = []
    for at in np.linspace(x.min(), x.max(), 15):
        weights = line_at(x, float(at))
        interval = two_way(ours.by_unit(weights) - theirs.by_unit(weights))
        line.append((10.0 ** float(at), interval.mean, interval.low, interval.high))
    slope = Span.of(found.slope)
    assert slope is not None
    return LensPanel(row.label, base.label, classes, slope, tuple(line))


def line_at(x: NDArray[np.float64], at: float) -> ClassWeights:
    """Weights of the height of the least-squares line of class means on `x` (C,) at a place.

    w_c = 1/C + (at - x̄) (x_c - x̄) / Σ (x - x̄)², over the classes that a seed has any value of.
    """
    mean, slope = average_of(), slope_on(x)

    def weights(defined: NDArray[np.bool_]) -> Floats:
        share = mean(defined)
        middle = (share * x).sum(axis=1, keepdims=True)
        return np.asarray(share + (at - middle) * slope(defined))

    return weights
