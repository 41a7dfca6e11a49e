"""The scores themselves: `classes` (means of every class) and `cases` (every case and seed)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from sslbench.config.text import counted
from sslbench.reporting.figures import style
from sslbench.reporting.figures.plate import LeftOut, Plate, Record
from sslbench.reporting.figures.style import Look
from sslbench.reporting.figures.subject import FigureRow, FigureSubject
from sslbench.reporting.labels import class_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

VIOLINS_FROM = 30  # cases; with few a violin invents a shape


@dataclass(frozen=True)
class ClassesPlate(Plate):
    """Heat table of class means.

    Attributes:
        rows: label, average and class means as tables print them; NaN where there is none.
        classes: titles, the largest first.
        sizes: their mean voxels.
        measured: metric and unit.
        falls: whether smaller is better.
    """

    name: ClassVar[str] = "classes"
    title: ClassVar[str] = "Class means"

    rows: tuple[tuple[str, float, tuple[float, ...]], ...]
    classes: tuple[str, ...]
    sizes: tuple[float, ...]
    measured: str
    falls: bool

    @classmethod
    def of(cls, subject: FigureSubject) -> ClassesPlate | LeftOut:
        """From all rows of a table."""
        names = subject.by_size
        rows = []
        for row in subject.rows:
            means = row.class_means()
            values = tuple(subject.shown(means.get(name, math.nan)) for name in names)
            rows.append((row.label, subject.shown(row.mean), values))
        if len(names) < 2:
            return LeftOut(cls.name, "there is one class")
        return cls(
            tuple(rows),
            tuple(class_title(name) for name in names),
            tuple(subject.sizes.get(name, math.nan) for name in names),
            subject.measured,
            subject.falls,
        )

    @property
    def alt(self) -> str:
        pairs = [
            (value, label, name)
            for label, _, values in self.rows
            for name, value in zip(self.classes, values, strict=True)
            if not math.isnan(value)
        ]
        if not pairs:
            return f"Means of {len(self.classes)} classes; no value."
        low, high = min(pairs), max(pairs)
        return (
            f"{self.measured} of {len(self.classes)} classes in {counted(len(self.rows), 'row')}: from "
            f"{low[0]:.1f} ({low[2]}, {low[1]}) to {high[0]:.1f} ({high[2]}, {high[1]})."
        )

    @property
    def caption(self) -> str:
        better = "lower is better" if self.falls else "higher is better"
        return f"{self.measured} of each class, mean over seeds; {better}. Classes by size, the largest first."

    def records(self) -> Sequence[Record]:
        return [
            {"row": label, "class": name, "size": size, "value": value}
            for label, average, values in self.rows
            for name, size, value in zip(
                ("avg", *self.classes), (math.nan, *self.sizes), (average, *values), strict=True
            )
        ]

    def _draw(self) -> Figure:
        from matplotlib import colormaps
        from matplotlib.colors import Normalize

        names = ("Avg.", *style.shortened(self.classes, 32.0))
        table = np.array([(average, *values) for _, average, values in self.rows])
        digits = 1 if np.nanmax(np.abs(table), initial=0) < 99.95 else 0
        cell = style.text_width("00.0", style.SMALL) + 2.2
        labels = style.shortened([label for label, _, _ in self.rows], 48.0)
        left, gap, step = style.widest(labels) + 2.5, 1.0, 4.4
        width = style.NARROW if left + gap + cell * len(names) + 1 <= style.NARROW else style.WIDE
        side = min(12.0, (width - left - gap - 1.5) / len(names))
        leaning = style.widest(names) > side - 0.6
        head = style.widest(names) + 2 if leaning else 5.0
        high = step * len(labels)
        figure = style.sheet(width, head + high + 9.5)
        shades = colormaps["viridis_r" if self.falls else "viridis"]
        known = table[~np.isnan(table)]
        scale = Normalize(float(known.min()), float(known.max())) if known.size else Normalize(0, 1)
        for first, last, x in ((0, 1, left), (1, len(names), left + side + gap)):
            axes = style.place(figure, x, head, side * (last - first), high)
            heat(axes, table[:, first:last], shades, scale, (side, step), digits if side >= cell else None)
            axes.tick_params(length=0, labeltop=True, labelbottom=False, pad=2)
            axes.set_xticks(range(last - first), names[first:last], rotation=90 if leaning else 0)
            axes.set_yticks(range(len(labels)), labels if not first else [])
        key = style.place(figure, left + side + gap, head + high + 2.2, min(38.0, side * len(self.classes)), 2.2)
        from matplotlib.cm import ScalarMappable

        bar = figure.colorbar(ScalarMappable(scale, shades), cax=key, orientation="horizontal")
        bar.outline.set_visible(False)
        key.set_xticks(style.ticks_of(scale.vmin or 0.0, scale.vmax or 1.0, 4))
        key.tick_params(labelsize=style.SMALL)
        style.write_at(
            figure,
            left + side + gap - 1.5,
            head + high + 3.2,
            self.measured,
            fontsize=style.SMALL,
            ha="right",
            va="center",
        )
        return figure


def heat(
    axes: Axes,
    table: NDArray[np.float64],
    shades: Colormap,
    scale: Normalize,
    size: tuple[float, float],
    digits: int | None,
) -> None:
    """A heat table with its first row on top; nothing but a dash where there is no number.

    Args:
        table: (rows, columns).
        shades, scale: from a number to its colour.
        size: of a cell in mm.
        digits: behind the point; None: no numbers.
    """
    rows, columns = table.shape
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.spines[:].set_visible(False)
    known = [(float(column), float(row)) for (row, column), value in np.ndenumerate(table) if not math.isnan(value)]
    colours = [shades(scale(table[int(row), int(column)])) for column, row in known]
    style.cells(axes, known, colours, (size[0] - 0.25, size[1] - 0.25))
    inks = dict(zip(known, colours, strict=True))
    for (row, column), value in np.ndenumerate(table):
        if math.isnan(value):
            axes.text(column, row, "–", ha="center", va="center", color=style.GREY, fontsize=style.SMALL)
        elif digits is not None:
            ink = "white" if style.on_dark(inks[float(column), float(row)]) else "black"
            text = f"{value:.{digits}f}"
            axes.text(column, row, text, ha="center", va="center_baseline", color=ink, fontsize=style.SMALL)


# -------------------------------------------------------------------------------------------------------------- cases


@dataclass(frozen=True)
class CasesLine:
    """All values of one row.

    Attributes:
        label: of the row.
        mean: as the table prints it.
        seeds: of `values`.
        values: by seed and case, mean over the case's classes; NaN where it has none.
        look: of the row.
    """

    label: str
    mean: float
    seeds: tuple[int, ...]
    values: tuple[tuple[float, ...], ...]
    look: Look


@dataclass(frozen=True)
class CasesPlate(Plate):
    """Every case and seed.

    Attributes:
        lines: one per row.
        cases: by row, their names.
        measured: metric and unit.
    """

    name: ClassVar[str] = "cases"
    title: ClassVar[str] = "Every case and seed"

    lines: tuple[CasesLine, ...]
    cases: tuple[tuple[str, ...], ...]
    measured: str

    @classmethod
    def of(cls, subject: FigureSubject, looks: dict[str, Look]) -> CasesPlate | LeftOut:
        """From all rows of a table."""
        lines = [_cases_line(row, subject, looks[row.label]) for row in subject.rows]
        if not lines:
            return LeftOut(cls.name, "no row has results")
        return cls(tuple(lines), tuple(row.values.cases for row in subject.rows), subject.measured)

    @property
    def violins(self) -> bool:
        """Whether there are enough cases for a shape."""
        return min(map(len, self.cases)) >= VIOLINS_FROM

    @property
    def alt(self) -> str:
        spreads = [
            (float(np.nanmin(line.values)), float(np.nanmax(line.values)), line.label)
            for line in self.lines
            if not np.isnan(line.values).all()
        ]
        if not spreads:
            return f"{self.measured} of every case; no value."
        low, high = min(spreads), max(spreads, key=lambda item: item[1])
        widest = max(spreads, key=lambda item: item[1] - item[0])
        return (
            f"{self.measured} of every case and seed in {counted(len(self.lines), 'row')}: cases range from "
            f"{low[0]:.1f} ({low[2]}) to {high[1]:.1f} ({high[2]}); {widest[2]} spreads most."
        )

    @property
    def caption(self) -> str:
        shape = (
            f"Shape: distribution over cases and seeds ({VIOLINS_FROM} or more cases); ticks: means of the seeds."
            if self.violins
            else "Dots: every case of every seed, a line of dots each."
        )
        return f"{self.measured}, mean over the classes of a case. {shape} Bar: the mean that the table prints."

    def records(self) -> Sequence[Record]:
        return [
            {"row": line.label, "seed": seed, "case": case, "value": value}
            for line, cases in zip(self.lines, self.cases, strict=True)
            for seed, values in zip(line.seeds, line.values, strict=True)
            for case, value in zip(cases, values, strict=True)
        ]

    def _draw(self) -> Figure:
        step = 5.2
        labels = style.shortened([line.label for line in self.lines], style.NARROW * 0.4)
        left, top, high = style.widest(labels) + 3, 1.5, step * len(labels)
        figure = style.sheet(style.NARROW, top + high + 10)
        axes = style.place(figure, left, top, style.NARROW - left - 3, high)
        for place, line in enumerate(self.lines):
            values = np.array(line.values)
            if self.violins:
                _violin(axes, place, values, line.look)
            else:
                _dots(axes, place, values, line.look)
            axes.plot([line.mean, line.mean], [place - 0.4, place + 0.4], color=style.INK, linewidth=1.6, zorder=4)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_yticks(range(len(labels)), labels)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel(self.measured)
        known = np.concatenate([np.ravel(line.values) for line in self.lines])
        low, top_value = float(np.nanmin(known)), float(np.nanmax(known))
        pad = 0.03 * (top_value - low or 1.0)
        axes.set_xlim(low - pad, top_value + pad)
        axes.set_xticks(style.ticks_of(low - pad, top_value + pad, 5))
        return figure


def _cases_line(row: FigureRow, subject: FigureSubject, look: Look) -> CasesLine:
    found = row.values.values
    known = ~np.isnan(found)
    with np.errstate(invalid="ignore"):
        means = np.where(known, found, 0.0).sum(axis=2) / known.sum(axis=2)
    shown = tuple(tuple(subject.shown(float(value)) for value in values) for values in means)
    return CasesLine(row.label, subject.shown(row.mean), row.values.seeds, shown, look)


def _dots(axes: Axes, place: int, values: np.ndarray, look: Look) -> None:
    seeds = len(values)
    for number, of_seed in enumerate(values):
        lane = place + (number - (seeds - 1) / 2) * 0.66 / max(seeds, 2)
        axes.plot(
            of_seed,
            [lane] * len(of_seed),
            look.marker,
            color=look.colour,
            markersize=2.6,
            alpha=0.75,
            markeredgewidth=0,
        )


def _violin(axes: Axes, place: int, values: np.ndarray, look: Look) -> None:
    from scipy.stats import gaussian_kde

    known = values[~np.isnan(values)]
    if known.size and np.ptp(known) > 1e-9:
        at = np.linspace(known.min(), known.max(), 60)
        density = gaussian_kde(known)(at)
        half = 0.42 * density / density.max()
        axes.fill_between(at, place - half, place + half, color=look.colour, alpha=0.3, linewidth=0)
    for of_seed in values:
        mean = float(np.nanmean(of_seed))
        axes.plot([mean, mean], [place - 0.16, place + 0.16], color=look.colour, linewidth=1.0, zorder=3)
