"""Along the training: `curves` (validation), `agreement` of two predictors, `mined` and `weights` of classes, regions.

The papers have them too: GA, Figs 1 (curves by class) and 2 (voxels mined by class); DHC, Figs 2 (agreement) and 4
(weights); MetaSSL, Figs 9 and 10 (shares of its four regions, and how often they are right).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from sslbench.config.text import counted
from sslbench.metrics.protocol import BACKGROUND
from sslbench.reporting.figures import logs, style
from sslbench.reporting.figures.logs import AVERAGE_TRACE, Trace
from sslbench.reporting.figures.plate import LeftOut, Plate, Record, listed
from sslbench.reporting.figures.style import Look
from sslbench.reporting.figures.subject import FigureSubject
from sslbench.reporting.labels import class_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AVERAGE = "Average"
_TITLE, _GAP, _FEET = 5.0, 4.0, 7.5  # mm: above a panel, between two, below one with numbers


@dataclass(frozen=True)
class TraceLine:
    """One trace of a panel, with its name and look."""

    label: str
    trace: Trace
    look: Look
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """Traces that share their axes."""

    title: str
    lines: tuple[TraceLine, ...]


@dataclass(frozen=True)
class TracesPlate(Plate):
    """Panels of traces along the training; each figure of this room is one.

    Attributes:
        panels: in order.
        measured: what the height is, with its unit.
        words: what the traces are, for the sentences.
        log: whether heights are logarithmic.
        note: what else a reader must know.
    """

    panels: tuple[Panel, ...]
    measured: str
    words: str
    log: bool = False
    note: str = ""

    @classmethod
    def _along_classes(
        cls, subject: FigureSubject, looks: Mapping[str, Look], read: Reader, measured: str, words: str
    ) -> Self | None:
        """The average and each class, of the rows that recorded it; None: none did."""
        rows = _traces_of_rows(subject, read)
        if not rows:
            return None
        missing = [row.label for row in subject.rows if row.label not in rows]
        note = f"Not recorded: {listed(missing)}." if missing else ""
        return cls(tuple(_panels_by_class(rows, subject, looks)), measured, words, note=note)

    @classmethod
    def _of_rows(cls, panels: Sequence[Panel], measured: str, words: str, note: str, log: bool = False) -> Self | None:
        """A panel for each row, as many as there is room for; None: there is none."""
        if not panels:
            return None
        left = [panel.title for panel in panels[_MOST_PANELS:]]
        note += f" Without {listed(left)}: no room." if left else ""
        return cls(tuple(panels[:_MOST_PANELS]), measured, words, log=log, note=note)

    @property
    def alt(self) -> str:
        first = self.panels[0]
        ends = sorted(((line.trace.mean[-1], line.label) for line in first.lines), reverse=True)
        last = max(line.trace.iterations[-1] for line in first.lines)
        told = f"{ends[0][1]} ends highest at {ends[0][0]:.3g}"
        if len(ends) > 1:
            told += f", {ends[-1][1]} lowest at {ends[-1][0]:.3g}"
        panels = counted(len(self.panels), "panel")
        return f"{self.words} in {panels} along {last} iterations; in {first.title}, {told}."

    @property
    def caption(self) -> str:
        seeds = max(line.trace.seeds for panel in self.panels for line in panel.lines)
        band = "Line: mean of the seeds, band: their range." if seeds > 1 else "One seed."
        return f"{self.words}. {band}{' ' + self.note if self.note else ''}"

    def records(self) -> Sequence[Record]:
        return [
            {"panel": panel.title, "line": line.label, "iteration": at, "mean": mean, "low": low, "high": high}
            for panel in self.panels
            for line in panel.lines
            for at, mean, low, high in zip(
                line.trace.iterations, line.trace.mean, line.trace.low, line.trace.high, strict=True
            )
        ]

    def _draw(self) -> Figure:
        labels = list(dict.fromkeys(line.label for panel in self.panels for line in panel.lines))
        looks = {line.label: line.look for panel in self.panels for line in panel.lines}
        keyed = len(self.panels) > 1 and len({*looks.values()}) == len(labels)  # else names stand at the lines' ends
        across = style.across(len(self.panels)) if keyed else min(3, len(self.panels))  # names need room
        width = style.NARROW if len(self.panels) == 1 and len(labels) <= len(style.COLOURS) else style.WIDE
        names = dict(zip(labels, style.shortened(labels, width * 0.28, style.SMALL), strict=True))
        ends = 0.0 if keyed else style.widest(names.values(), style.SMALL) + 4.0
        limits = _height_limits(self.panels, self.log)
        ticks = _log_ticks(*limits) if self.log else _plain_ticks(*limits)
        left, top = style.widest(ticks[1]) + 7.5, 1.5
        most = max(len(panel.lines) for panel in self.panels)
        each = (width - left - 2.5 - _GAP * (across - 1)) / across - ends
        high = max(28.0 if len(self.panels) > 2 else 42.0, 0 if keyed else 2.7 * most)
        down = math.ceil(len(self.panels) / across)
        key = style.key_rows(list(names.values()), width - left) if keyed else []
        foot = 10.0 + (style.LINE * len(key) + 1.0 if key else 0)
        figure = style.sheet(width, top + down * (_TITLE + high) + (down - 1) * _FEET + foot)
        longest = max(line.trace.iterations[-1] for panel in self.panels for line in panel.lines)
        titles = style.shortened([panel.title for panel in self.panels], each + ends - 1)
        for number, panel in enumerate(self.panels):
            row, column = divmod(number, across)
            x, y = left + column * (each + ends + _GAP), top + _TITLE + row * (_TITLE + high + _FEET)
            axes = style.place(figure, x, y, each, high)
            self._panel(axes, panel, limits, (longest, max(2, int(each / 11))))
            if len(self.panels) > 1 or panel.title != _AVERAGE:
                axes.set_title(titles[number], loc="left")
            if column:
                axes.tick_params(labelleft=False)
            if number + across < len(self.panels):
                axes.tick_params(labelbottom=False)
            if not keyed:
                _name_ends(axes, panel, names, limits, high, self.log)
        whole = figure.get_size_inches()[1] / style.MM
        style.write_at(figure, 1.2, (whole - foot) / 2, self.measured, rotation=90, va="center")
        bottom = whole - foot + 9.3
        style.write_at(figure, left + (width - left) / 2, bottom, "iterations", ha="center", va="bottom")
        for number, labels_of_row in enumerate(key):
            _key_line(
                figure,
                labels_of_row,
                {names[label]: looks[label] for label in labels},
                left,
                bottom + 2.8 + style.LINE * number,
            )
        return figure

    def _panel(self, axes: Axes, panel: Panel, limits: tuple[float, float], along: tuple[int, int]) -> None:
        longest, most = along
        if self.log:
            axes.set_yscale("log")
            axes.minorticks_off()
        for line in panel.lines:
            trace, colour = line.trace.thinned(_MOST_POINTS), line.look.colour
            if trace.seeds > 1 and len(panel.lines) <= len(style.COLOURS):
                axes.fill_between(trace.iterations, trace.low, trace.high, color=colour, alpha=0.18, linewidth=0)
            every = max(1, len(trace.iterations) // 6)
            marker = line.look.marker if len(panel.lines) <= len(style.COLOURS) else ""
            if len(trace.iterations) == 1:
                marker = marker or "o"
            axes.plot(
                trace.iterations,
                trace.mean,
                color=colour,
                marker=marker,
                markevery=every,
                markersize=3.2,
                linewidth=1.0,
                linestyle="--" if line.dashed else "-",
            )
        axes.set_ylim(*limits)
        axes.set_xlim(0, 1.015 * longest)
        axes.grid(axis="y")
        ticks = style.ticks_of(0, longest, min(4, most))
        axes.set_xticks(ticks, [_thousands(tick) for tick in ticks])
        axes.set_yticks(*(_log_ticks(*limits) if self.log else _plain_ticks(*limits)))


@dataclass(frozen=True)
class CurvesPlate(TracesPlate):
    """Validation DSC along the training, and by class where that was recorded."""

    name: ClassVar[str] = "curves"
    title: ClassVar[str] = "Validation along the training"

    @classmethod
    def of(cls, subject: FigureSubject, looks: Mapping[str, Look]) -> CurvesPlate | LeftOut:
        """From the runs of a table."""
        found = cls._along_classes(subject, looks, logs.validation, "DSC (%)", "Validation DSC")
        return found or LeftOut(cls.name, "no run recorded a validation")


@dataclass(frozen=True)
class AgreementPlate(TracesPlate):
    """Agreement of two predictors on validation cases."""

    name: ClassVar[str] = "agreement"
    title: ClassVar[str] = "Agreement of two predictors"

    @classmethod
    def of(cls, subject: FigureSubject, looks: Mapping[str, Look]) -> AgreementPlate | LeftOut:
        """From the runs of a table that were observed (recipe field `observe`)."""
        words = "DSC between the predictions of a method's two learners on validation cases"
        found = cls._along_classes(subject, looks, _agreement, "DSC of the two (%)", words)
        return found or LeftOut(cls.name, "no run recorded it: --set observe=[agreement]")


@dataclass(frozen=True)
class WeightsPlate(TracesPlate):
    """Class weights along the training."""

    name: ClassVar[str] = "weights"
    title: ClassVar[str] = "Class weights along the training"

    @classmethod
    def of(cls, subject: FigureSubject, looks: Mapping[str, Look]) -> WeightsPlate | LeftOut:
        """From the runs of a table whose weightings recorded them."""
        panels = _class_panels(subject, "weight/", share=False)
        found = cls._of_rows(panels, "weight", "Weight of each class", _PARTS_NOTE)
        return found or LeftOut(cls.name, "no run recorded weights of classes")


@dataclass(frozen=True)
class MinedPlate(TracesPlate):
    """Share of each class among the voxels that GA's cross-entropy was taken of."""

    name: ClassVar[str] = "mined"
    title: ClassVar[str] = "Classes of the mined voxels"

    @classmethod
    def of(cls, subject: FigureSubject, looks: Mapping[str, Look]) -> MinedPlate | LeftOut:
        """From the runs of a table under a loss that mines voxels."""
        panels = _class_panels(subject, "mined/", share=True)
        words = "Share of each class among the voxels that the gradient-aware cross-entropy was taken of"
        found = cls._of_rows(panels, "share of the mined voxels (%)", words, _PARTS_NOTE, log=True)
        return found or LeftOut(cls.name, "no run recorded mined voxels (loss ga does)")


REGION_LOOKS = {
    "UC": Look("#0072b2", "o"),
    "US": Look("#56b4e9", "s"),
    "DC": Look("#d55e00", "^"),
    "DS": Look("#cc79a7", "D"),
}
_REGION_WORDS = "UC, US: both predictions name one class, confident or suspicious; DC, DS: they differ."


@dataclass(frozen=True)
class RegionsPlate(TracesPlate):
    """Share of MetaSSL's four regions along the training."""

    name: ClassVar[str] = "regions"
    title: ClassVar[str] = "Shares of the four regions"

    @classmethod
    def of(cls, subject: FigureSubject, looks: Mapping[str, Look]) -> RegionsPlate | LeftOut:
        """From the runs of a table that were observed, else from what MetaSSL's loss logs of its own patches."""
        panels = _region_panels(subject, _observed_regions("share"))
        where = "validation cases"
        if not panels:
            panels, where = _region_panels(subject, _trained_regions), "unlabelled training patches"
        words = f"Share of the four regions in {where}"
        found = cls._of_rows(panels, "share of voxels (%)", words, _REGION_WORDS, log=True)
        return found or LeftOut(cls.name, "no run recorded regions: --set observe=[regions], or loss metassl")


@dataclass(frozen=True)
class RegionAccuracyPlate(TracesPlate):
    """How often the reference's label is right in each region."""

    name: ClassVar[str] = "region-accuracy"
    title: ClassVar[str] = "Right labels in the four regions"

    @classmethod
    def of(cls, subject: FigureSubject, looks: Mapping[str, Look]) -> RegionAccuracyPlate | LeftOut:
        """From the runs of a table that were observed."""
        panels = _region_panels(subject, _observed_regions("accuracy"))
        words = "Share of right labels of the reference prediction in the four regions of validation cases"
        found = cls._of_rows(panels, "right labels (%)", words, _REGION_WORDS)
        return found or LeftOut(cls.name, "no run recorded it: --set observe=[regions]")


# ------------------------------------------------------------------------------------------------------------ numbers

Reader = Callable[..., Mapping[str, Mapping[int, float]]]
_PARTS_NOTE = "Blue: large, grey: medium, orange: small structures, dashes: background."
_SOURCES = {"label": "labels", "pseudo": "pseudo-labels"}
_MOST_PANELS = 9
_MOST_POINTS = 40  # of a drawn line; more than that nobody sees on paper


def _traces_of_rows(subject: FigureSubject, read: Reader) -> dict[str, dict[str, Trace]]:
    """By row and name what its runs recorded, over seeds."""
    found = {row.label: logs.joined(read(run) for run in row.runs) for row in subject.rows if row.runs}
    return {label: traces for label, traces in found.items() if AVERAGE_TRACE in traces}


def _panels_by_class(
    rows: Mapping[str, Mapping[str, Trace]], subject: FigureSubject, looks: Mapping[str, Look]
) -> list[Panel]:
    """The average, and each class, the largest first; classes only where their lines can be told apart."""
    names = [AVERAGE_TRACE]
    if len(subject.rows) <= len(style.COLOURS):
        names += [name for name in subject.by_size if any(name in traces for traces in rows.values())]
    panels = []
    for name in names:
        lines = tuple(TraceLine(label, traces[name], looks[label]) for label, traces in rows.items() if name in traces)
        panels.append(Panel(_AVERAGE if name == AVERAGE_TRACE else class_title(name), lines))
    return panels


def _agreement(run: object) -> dict[str, dict[int, float]]:
    """The first pair of predictors, in percent."""
    pairs = logs.observed(run, "agreement")  # type: ignore[arg-type]
    if not pairs:
        return {}
    numbers = pairs[min(pairs)]
    names = {"dsc": AVERAGE_TRACE} | {
        name: name.removeprefix("dsc/class/") for name in numbers if name.startswith("dsc/class/")
    }
    return {
        short: {at: 100 * value for at, value in numbers[name].items()}
        for name, short in names.items()
        if name in numbers
    }


def _class_panels(subject: FigureSubject, prefix: str, share: bool) -> list[Panel]:
    """A panel for each row and what it logged, with a line for each class, coloured by size; where it is logged by
    source too (`a/label`), of the first learner."""
    panels = []
    for row in subject.rows:
        found = [logs.by_class(run, prefix) for run in row.runs]
        keys = list(dict.fromkeys(key for run in found for key in run))
        learners = list(dict.fromkeys(key.partition("/")[0] for key in keys))
        for key in keys:
            learner, _, source = key.partition("/")
            if source and learner != learners[0]:
                continue
            seeds = [run[key] for run in found if key in run]
            lines = _class_lines(logs.joined(map(_shares, seeds) if share else seeds), subject)
            words = [row.label, _SOURCES.get(source, source)]
            title = ", ".join(word for word in words if word) + (f" ({learner})" if len(learners) > 1 else "")
            if lines:
                panels.append(Panel(title, tuple(lines)))
    return panels


def _class_lines(traces: Mapping[str, Trace], subject: FigureSubject) -> list[TraceLine]:
    lens = subject.lens
    lines = (
        [TraceLine(BACKGROUND, traces[BACKGROUND], Look(style.INK, ""), dashed=True)] if BACKGROUND in traces else []
    )
    for name in subject.by_size:
        if name in traces:
            colour = style.HEAD if name in lens.head else style.TAIL if name in lens.tail else style.MEDIUM
            lines.append(TraceLine(class_title(name), traces[name], Look(colour, "")))
    return lines


def _shares(classes: Mapping[str, Mapping[int, float]]) -> dict[str, dict[int, float]]:
    """Counts of classes as percentages of their sum; nothing is left out of a logarithmic axis but exact zeros."""
    totals: dict[int, float] = {}
    for counts in classes.values():
        for at, count in counts.items():
            totals[at] = totals.get(at, 0.0) + count
    return {
        name: {at: 100 * count / totals[at] if count else math.nan for at, count in counts.items() if totals[at]}
        for name, counts in classes.items()
    }


def _observed_regions(what: str) -> Callable[..., dict[str, dict[str, dict[int, float]]]]:
    def read(run: object) -> dict[str, dict[str, dict[int, float]]]:
        seen = logs.observed(run, "regions")  # type: ignore[arg-type]
        return {
            key: {
                region: {at: 100 * value for at, value in numbers[f"{what}/{region}"].items()}
                for region in REGION_LOOKS
                if f"{what}/{region}" in numbers
            }
            for key, numbers in seen.items()
        }

    return read


def _trained_regions(run: object) -> dict[str, dict[str, dict[int, float]]]:
    """What the loss logged of pseudo-labels: by learner and region."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for entry in logs.lines_of(run, "region/"):  # type: ignore[arg-type]
        for name, value in entry.items():
            parts = name.split("/")
            if len(parts) == 4 and parts[0] == "region" and parts[2] == "pseudo" and isinstance(value, int | float):
                found.setdefault(parts[1], {}).setdefault(parts[3], {})[entry["iteration"]] = 100 * float(value)
    return found


def _region_panels(
    subject: FigureSubject, read: Callable[..., Mapping[str, Mapping[str, Mapping[int, float]]]]
) -> list[Panel]:
    """A panel for each row, of its first learner."""
    panels = []
    for row in subject.rows:
        found = [read(run) for run in row.runs]
        keys = sorted({key for run in found for key in run})
        if not keys:
            continue
        traces = logs.joined(run[keys[0]] for run in found if keys[0] in run)
        lines = tuple(TraceLine(name, traces[name], look) for name, look in REGION_LOOKS.items() if name in traces)
        if lines:
            panels.append(Panel(row.label if len(keys) == 1 else f"{row.label}, {keys[0]}", lines))
    return panels


# ------------------------------------------------------------------------------------------------------------ drawing


def _height_limits(panels: Sequence[Panel], log: bool) -> tuple[float, float]:
    few = sum(len(panel.lines) for panel in panels) <= len(style.COLOURS) * len(panels)
    lines = [line.trace for panel in panels for line in panel.lines]
    ends = [value for trace in lines for value in ((*trace.low, *trace.high) if few else trace.mean)]
    if log:
        positive = [value for value in ends if value > 0]
        low, high = min(positive, default=0.1), max(positive, default=1.0)
        return max(low, high * 1e-5) / 1.3, high * 1.3
    low, high = min(ends), max(ends)
    if low == high == 0:
        return 0.0, 1.0
    pad = 0.04 * (high - low or 1.0)
    return (0.0 if 0 <= low < 0.25 * high else low - pad), high + pad


def _log_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [10.0**power for power in powers if low <= 10.0**power <= high]
    if len(ticks) < 2:
        ticks = [step * 10.0**power for power in powers for step in (1, 2, 5) if low <= step * 10.0**power <= high]
    return ticks, [f"{tick:g}" for tick in ticks]


def _plain_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    ticks = style.ticks_of(low, high, 5)
    return ticks, [f"{tick:g}".replace("-", "−") for tick in ticks]


def _thousands(tick: float) -> str:
    return f"{tick / 1000:g}k" if tick >= 1000 else f"{tick:g}"


def _name_ends(
    axes: Axes, panel: Panel, names: Mapping[str, str], limits: tuple[float, float], high: float, log: bool
) -> None:
    """Names at the right, near the ends of their lines and never on each other."""

    def height(value: float) -> float:
        low, top = map(math.log10, limits) if log else limits
        at = math.log10(max(value, limits[0])) if log else value
        return (at - low) / (top - low)

    ends = [height(line.trace.mean[-1]) for line in panel.lines]
    places = style.spread(ends, 2.6 / high, 0.0, 0.97)
    width = axes.get_position().width * axes.figure.get_size_inches()[0] / style.MM  # type: ignore[union-attr]
    leaders: dict[str, list[tuple[tuple[float, float], tuple[float, float]]]] = {}
    for line, end, at in zip(panel.lines, ends, places, strict=True):
        leaders.setdefault(line.look.colour, []).append(((1 + 0.3 / width, end), (1 + 2.2 / width, at)))
    for colour, lines in leaders.items():
        style.strokes(axes, lines, transform=axes.transAxes, color=colour, linewidth=0.5, clip_on=False)
    for line, at in zip(panel.lines, places, strict=True):
        axes.text(
            1 + 2.6 / width,
            at,
            names[line.label],
            transform=axes.transAxes,
            va="center",
            fontsize=style.SMALL,
            color=line.look.colour if line.look.colour != style.GREY else style.INK,
        )


def _key_line(figure: Figure, labels: Sequence[str], looks: Mapping[str, Look], left: float, down: float) -> None:
    from matplotlib.lines import Line2D

    width, height = (side / style.MM for side in figure.get_size_inches())
    x = left
    for label in labels:
        look = looks[label]
        y = 1 - down / height
        ends = [x / width, (x + 2.2) / width, (x + 4.4) / width]
        figure.add_artist(
            Line2D(ends, [y] * 3, color=look.colour, marker=look.marker, markevery=[1], markersize=3.2, linewidth=1.0)
        )
        figure.text((x + 5.4) / width, y, label, va="center", fontsize=style.SMALL)
        x += style.key_width(label)
