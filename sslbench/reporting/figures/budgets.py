"""What results cost and depend on: `budget` (labels), `cost` (hours), `options` (two options varied together)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from sslbench.core.files import read_json
from sslbench.reporting.figures import style
from sslbench.reporting.figures.plate import LeftOut, Plate, Record, listed
from sslbench.reporting.figures.scores import heat
from sslbench.reporting.figures.style import Look
from sslbench.reporting.figures.subject import FigureRow, FigureSubject, repeated_by
from sslbench.reporting.scores import hours_of
from sslbench.runs.directory import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class BudgetPoint:
    """A row at one label budget: `cases` training cases with labels, the metric by seed."""

    cases: int
    title: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))


@dataclass(frozen=True)
class BudgetPlate(Plate):
    """A metric against the number of labelled cases.

    Attributes:
        lines: label, look and points by rising budget.
        bounds: upper bounds with all labels: label, and the metric by seed.
        measured: metric and unit.
    """

    name: ClassVar[str] = "budget"
    title: ClassVar[str] = "Score against labels"

    lines: tuple[tuple[str, Look, tuple[BudgetPoint, ...]], ...]
    bounds: tuple[tuple[str, tuple[float, ...]], ...]
    measured: str

    @classmethod
    def of(cls, subjects: Sequence[FigureSubject], looks: Mapping[str, Look]) -> BudgetPlate | LeftOut:
        """From tables of one recipe and metric that differ in the label budget."""
        points: dict[str, dict[int, BudgetPoint]] = {}
        bounds: dict[str, tuple[float, ...]] = {}
        for subject in subjects:
            for row in subject.rows:
                values = tuple(subject.shown(float(value)) for value in row.scores.mean(axis=1))
                if row.bound:
                    bounds[row.label] = values
                elif row.cases:
                    points.setdefault(row.label, {})[row.cases] = BudgetPoint(row.cases, row.budget, values)
        lines = [
            (label, looks[label], tuple(found[cases] for cases in sorted(found))) for label, found in points.items()
        ]
        if max((len(found) for _, _, found in lines), default=0) < 2:
            return LeftOut(cls.name, "no row has results at two label budgets")
        return cls(tuple(lines), tuple(bounds.items()), subjects[0].measured)

    @property
    def alt(self) -> str:
        told = []
        for label, _, points in self.lines:
            if len(points) > 1:
                ends = [f"{point.mean:.1f} at {point.title}" for point in (points[0], points[-1])]
                told.append(f"{label} from {' to '.join(ends)}")
        return f"{self.measured} against the number of labelled cases: {listed(told)}."

    @property
    def caption(self) -> str:
        told = f"{self.measured} against training cases with labels. Lines: means; bars: range of the seeds."
        return f"{told} Dashed: with all labels." if self.bounds else told

    def records(self) -> Sequence[Record]:
        found: list[Record] = [
            {"row": label, "budget": point.title, "cases": point.cases, "number": number, "value": value}
            for label, _, points in self.lines
            for point in points
            for number, value in enumerate(point.values)
        ]
        for label, values in self.bounds:
            found += [{"row": label, "budget": "all", "number": at, "value": value} for at, value in enumerate(values)]
        return found

    def _draw(self) -> Figure:
        width = style.NARROW if len(self.lines) <= len(style.COLOURS) else style.WIDE
        labels = [label for label, _, _ in self.lines] + [label for label, _ in self.bounds]
        names = style.shortened(labels, width * 0.3, style.SMALL)
        high, left = max(45.0, 2.7 * len(names)), 13.5
        right = style.widest(names, style.SMALL) + 5
        figure = style.sheet(width, high + 15.5)
        axes = style.place(figure, left, 2.5, width - left - right, high)
        budgets = {point.cases: point.title for _, _, points in self.lines for point in points}
        for _, look, points in self.lines:
            x, y = [point.cases for point in points], [point.mean for point in points]
            below = [point.mean - min(point.values) for point in points]
            above = [max(point.values) - point.mean for point in points]
            axes.errorbar(
                x, y, yerr=[below, above], color=look.colour, marker=look.marker, linewidth=1.0, elinewidth=0.7
            )
        axes.set_xscale("log")
        axes.minorticks_off()
        ticks = _apart(sorted(budgets), width - left - right, [budgets[cases] for cases in sorted(budgets)])
        axes.set_xticks(
            ticks, [f"{cases}\n{budgets[cases]}" if budgets[cases] else str(cases) for cases in ticks], linespacing=1.1
        )
        axes.set_xlim(min(budgets) / 1.15, max(budgets) * 1.15)
        axes.grid(axis="y")
        dark = Look(style.INK, "")
        for _, values in self.bounds:
            axes.axhline(float(np.mean(values)), color=dark.colour, linewidth=0.9, linestyle="--", zorder=1)
        style.write_at(figure, 1.2, 2.5 + high / 2, self.measured, rotation=90, va="center")
        style.write_at(
            figure, left + (width - left - right) / 2, high + 14.8, "labelled cases", ha="center", va="bottom"
        )
        low, top = axes.get_ylim()
        axes.set_yticks(style.ticks_of(low, top, 5))
        axes.set_ylim(low, top)
        ends = [(float(points[-1].cases), points[-1].mean, look) for _, look, points in self.lines]
        ends += [(axes.get_xlim()[1], float(np.mean(values)), dark) for _, values in self.bounds]
        places = style.spread([value for _, value, _ in ends], 2.7 * (top - low) / high, low, top)
        for name, (cases, value, look), at in zip(names, ends, places, strict=True):
            _end_name(axes, name, look, (cases, value), at, width - left - right)
        return figure


def _apart(cases: Sequence[int], room: float, titles: Sequence[str]) -> list[int]:
    """The budgets whose tick labels do not run into each other on a logarithmic axis of a width in mm."""
    reach = math.log(max(cases) * 1.15**2 / min(cases))
    found: list[int] = []
    for count, title in zip(cases, titles, strict=True):
        need = max(style.text_width(title), style.text_width(str(count))) + 1.5
        if not found or math.log(count / found[-1]) / reach * room >= need:
            found.append(count)
    return found


def _end_name(axes: Axes, name: str, look: Look, end: tuple[float, float], at: float, width: float) -> None:
    """A name at the right edge, led to the last point of its line."""
    low, top = axes.get_xlim()
    place = math.log(end[0] / low) / math.log(top / low)
    mixed = axes.get_yaxis_transform()
    axes.plot(
        [place + 1.0 / width, 1 + 2.0 / width],
        [end[1], at],
        transform=mixed,
        color=look.colour,
        linewidth=0.5,
        clip_on=False,
    )
    ink = look.colour if look.colour != style.GREY else style.INK
    axes.text(1 + 2.6 / width, at, name, transform=mixed, va="center", fontsize=style.SMALL, color=ink)


# --------------------------------------------------------------------------------------------------------------- cost


@dataclass(frozen=True)
class CostPoint:
    """A row: hours of a run and its score, by seed."""

    label: str
    hours: tuple[float, ...]
    values: tuple[float, ...]
    look: Look

    @property
    def at(self) -> tuple[float, float]:
        """Means of both."""
        return float(np.mean(self.hours)), float(np.mean(self.values))


@dataclass(frozen=True)
class CostPlate(Plate):
    """A metric against hours of one device.

    Attributes:
        points: one per row.
        device: that all runs had.
        measured: metric and unit.
        left: rows whose hours are not known.
    """

    name: ClassVar[str] = "cost"
    title: ClassVar[str] = "Score against hours"

    points: tuple[CostPoint, ...]
    device: str
    measured: str
    left: tuple[str, ...] = ()
    falls: bool = False

    @classmethod
    def of(cls, subject: FigureSubject, looks: Mapping[str, Look]) -> CostPlate | LeftOut:
        """From the runs of a table that recorded them."""
        devices: set[str] = set()
        points, left = [], []
        for row in subject.rows:
            of_seed = dict(zip(row.values.seeds, row.scores.mean(axis=1), strict=True))
            known = [(hours, repeated_by(run)) for run in row.runs if (hours := hours_of(run)) is not None]
            if not known:
                left.append(row.label)
                continue
            devices |= {_device(run) for run in row.runs}
            values = tuple(subject.shown(float(of_seed[seed])) for _, seed in known if seed in of_seed)
            points.append(CostPoint(row.label, tuple(hours for hours, _ in known), values, looks[row.label]))
        if not points:
            return LeftOut(cls.name, "no run recorded its seconds")
        if len(devices) > 1:
            told = listed(sorted(device or "unknown" for device in devices))
            return LeftOut(cls.name, f"runs of several devices, whose hours cannot be compared: {told}")
        return cls(tuple(points), devices.pop() or "unknown device", subject.measured, tuple(left), subject.falls)

    @property
    def alt(self) -> str:
        best = (min if self.falls else max)(self.points, key=lambda point: point.at[1])
        cheap, dear = min(self.points, key=lambda p: p.at[0]), max(self.points, key=lambda p: p.at[0])
        return (
            f"{self.measured} against hours on {self.device}: {best.label} is best with {best.at[1]:.1f} in "
            f"{best.at[0]:.2g} h; {cheap.label} is cheapest with {cheap.at[0]:.2g} h, {dear.label} dearest with "
            f"{dear.at[0]:.2g} h."
        )

    @property
    def caption(self) -> str:
        told = f"{self.measured} against hours of a run, training and test, on {self.device}."
        told += " Dots: means, lines: range of the seeds."
        return f"{told} Hours not known: {listed(self.left)}." if self.left else told

    def records(self) -> Sequence[Record]:
        return [
            {"row": point.label, "hours": hours, "value": value, "device": self.device}
            for point in self.points
            for hours, value in zip(point.hours, point.values, strict=True)
        ]

    def _draw(self) -> Figure:
        few = len(self.points) <= len(style.COLOURS)
        width, high, left = (style.NARROW, 52.0, 13.5) if few else (style.WIDE, 80.0, 13.5)
        names = style.shortened([point.label for point in self.points], 34.0, style.SMALL)
        figure = style.sheet(width, high + 13)
        axes = style.place(figure, left, 2.5, width - left - 3, high)
        hours = [value for point in self.points for value in point.hours]
        for point in self.points:
            x, y = point.at
            axes.plot([min(point.hours), max(point.hours)], [y, y], color=point.look.colour, linewidth=0.7)
            axes.plot([x, x], [min(point.values), max(point.values)], color=point.look.colour, linewidth=0.7)
            axes.plot([x], [y], point.look.marker, color=point.look.colour, zorder=3)
        if max(hours) > 8 * min(hours) > 0:
            axes.set_xscale("log")
            axes.minorticks_off()
        low, top = axes.get_ylim()
        axes.set_ylim(low - 0.03 * (top - low), top + 0.05 * (top - low))
        axes.margins(x=0.09)
        for edges, ticks, put in (
            (axes.get_xlim(), axes.set_xticks, axes.set_xlim),
            (axes.get_ylim(), axes.set_yticks, axes.set_ylim),
        ):  # fixed here: names are placed by what the axes are now
            if axes.get_xscale() == "linear" or put is axes.set_ylim:
                ticks(style.ticks_of(*edges, 6))
            put(*edges)
        axes.grid()
        style.write_at(figure, 1.2, 2.5 + high / 2, self.measured, rotation=90, va="center")
        axes.set_xlabel(style.fitted(f"hours on {self.device}", width - left, lines=1))
        _names_beside(axes, names, self.points, (width - left - 3, high))
        return figure


def _device(run: Run) -> str:
    found = read_json(run.provenance)
    return str(found.get("device", "")) if isinstance(found, dict) else ""


def _names_beside(axes: Axes, names: Sequence[str], points: Sequence[CostPoint], size: tuple[float, float]) -> None:
    """Names beside points, each where it covers neither a point nor another name, as far as there is such a place."""
    inverse = axes.transAxes.inverted()

    def millimetres(x: float, y: float) -> tuple[float, float]:
        across, up = inverse.transform(axes.transData.transform((x, y)))
        return float(across) * size[0], float(up) * size[1]

    spots = [millimetres(*point.at) for point in points]
    taken = [(x - 1, y - 1, x + 1, y + 1) for x, y in spots]
    for point in points:
        low, high = millimetres(min(point.hours), min(point.values)), millimetres(max(point.hours), max(point.values))
        x, y = millimetres(*point.at)
        taken += [(low[0] - 0.3, y - 0.3, high[0] + 0.3, y + 0.3), (x - 0.3, low[1] - 0.3, x + 0.3, high[1] + 0.3)]
    tall = 2.4
    for name, (x, y) in sorted(zip(names, spots, strict=True), key=lambda item: -item[1][1]):
        wide = style.text_width(name, style.SMALL)
        ways = [
            (x + side, y + up) if side > 0 else (x + side - wide, y + up)
            for reach in (1.6, 3.2, 5.0, 7.5)
            for up in (0.0, reach, -reach)
            for side in (1.6, -1.6)
        ]
        boxes = [(left, middle - tall / 2, left + wide, middle + tall / 2) for left, middle in ways]
        best = min(boxes, key=lambda box: _cover(box, taken, size))
        taken.append(best)
        middle = (best[1] + best[3]) / 2
        axes.text(
            best[0] / size[0], middle / size[1], name, transform=axes.transAxes, va="center", fontsize=style.SMALL
        )
        near = min(max(x, best[0]), best[2]), middle
        if math.dist(near, (x, y)) > 2.4:
            axes.plot(
                [x / size[0], near[0] / size[0]],
                [y / size[1], near[1] / size[1]],
                transform=axes.transAxes,
                color=style.GREY,
                linewidth=0.4,
                zorder=1,
            )


_Box = tuple[float, float, float, float]


def _cover(box: _Box, taken: Sequence[_Box], size: tuple[float, float]) -> float:
    """Area that a box shares with others, and what of it lies outside, which counts most."""
    shared = sum(
        max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
        * max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
        for other in taken
    )
    outside = max(0.0, -box[0]) + max(0.0, -box[1]) + max(0.0, box[2] - size[0]) + max(0.0, box[3] - size[1])
    return shared + 100 * outside


# ------------------------------------------------------------------------------------------------------------ options


@dataclass(frozen=True)
class OptionsPlate(Plate):
    """Heat map of the metric over two options that rows differ in.

    Attributes:
        down, across: dotted paths of the options.
        cells: value of either option, and the mean of the metric.
        measured: metric and unit.
        falls: whether smaller is better.
    """

    name: ClassVar[str] = "options"
    title: ClassVar[str] = "Score over two options"

    down: str
    across: str
    cells: tuple[tuple[float, float, float], ...]
    measured: str
    falls: bool = False

    @classmethod
    def of(cls, subject: FigureSubject) -> OptionsPlate | LeftOut:
        """From the rows of a table that differ in two numeric options, and in nothing else."""
        for rows in _families(subject.rows):
            paths = _varied(rows)
            if len(paths) == 2 and len(rows) >= 4:
                cells = [
                    (float(row.settings[paths[0]]), float(row.settings[paths[1]]), subject.shown(row.mean))
                    for row in rows
                ]
                down, across = paths
                return cls(down, across, tuple(cells), subject.measured, subject.falls)
        return LeftOut(cls.name, "no four rows differ in two numeric options alone")

    @property
    def best(self) -> tuple[float, float, float]:
        """The cell with the best mean."""
        return (min if self.falls else max)(self.cells, key=lambda cell: cell[2])

    @property
    def alt(self) -> str:
        worst = (max if self.falls else min)(self.cells, key=lambda cell: cell[2])
        names = [_short(path) for path in (self.down, self.across)]
        ends = [f"{cell[2]:.1f} at {names[0]} {cell[0]:g} and {names[1]} {cell[1]:g}" for cell in (self.best, worst)]
        over = f"{self.measured} over {names[0]} and {names[1]}"
        return f"{over} in {len(self.cells)} cells: best {ends[0]}, worst {ends[1]}."

    @property
    def caption(self) -> str:
        return f"{self.measured}, mean over seeds, over {self.down} and {self.across}; framed: the best."

    def records(self) -> Sequence[Record]:
        return [{self.down: one, self.across: other, "value": value} for one, other, value in self.cells]

    def _draw(self) -> Figure:
        from matplotlib import colormaps
        from matplotlib.colors import Normalize
        from matplotlib.patches import Rectangle

        downs, acrosses = (sorted({cell[axis] for cell in self.cells}) for axis in (0, 1))
        table = np.full((len(downs), len(acrosses)), np.nan)
        for one, other, value in self.cells:
            table[downs.index(one), acrosses.index(other)] = value
        known = table[~np.isnan(table)]
        left = style.widest(f"{value:g}" for value in downs) + 8.0
        side, high = min(13.0, (style.NARROW - left - 3) / len(acrosses)), 6.5
        figure = style.sheet(style.NARROW, 4.5 + high * len(downs) + 10)
        axes = style.place(figure, left, 4.5, side * len(acrosses), high * len(downs))
        shades = colormaps["viridis_r" if self.falls else "viridis"]
        scale = Normalize(float(known.min()), float(known.max()))
        heat(axes, table, shades, scale, (side, high), 1)
        axes.invert_yaxis()
        place = acrosses.index(self.best[1]) - 0.5, downs.index(self.best[0]) - 0.5
        axes.add_patch(
            Rectangle(place, 1, 1, fill=False, edgecolor=style.COLOURS[1], linewidth=1.6, clip_on=False, zorder=3)
        )
        axes.set_xticks(range(len(acrosses)), [f"{value:g}" for value in acrosses])
        axes.set_yticks(range(len(downs)), [f"{value:g}" for value in downs])
        axes.tick_params(length=0)
        axes.set_xlabel(_short(self.across))
        style.write_at(figure, 1.2, 4.5 + high * len(downs) / 2, _short(self.down), rotation=90, va="center")
        axes.set_title(self.measured, loc="left", fontsize=style.SMALL)
        return figure


def _families(rows: Sequence[FigureRow]) -> list[list[FigureRow]]:
    """Rows by method, loss and plugin, the largest family first."""
    families: dict[tuple[str, ...], list[FigureRow]] = {}
    for row in rows:
        families.setdefault(row.family, []).append(row)
    return sorted(families.values(), key=len, reverse=True)


def _varied(rows: Sequence[FigureRow]) -> list[str]:
    """The dotted paths in which rows differ; empty where one of their values is no number."""
    paths = dict.fromkeys(path for row in rows for path in row.settings)
    varied = [path for path in paths if len({row.settings.get(path) for row in rows}) > 1]
    try:
        for row in rows:
            for path in varied:
                float(row.settings[path])
    except (KeyError, ValueError):
        return []
    return varied


def _short(path: str) -> str:
    return path.rpartition(".")[2]
