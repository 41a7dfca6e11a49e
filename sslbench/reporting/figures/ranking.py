"""Rows against each other: `ranks` (how stable their order is) and `pairs` (all differences)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sslbench.config.text import counted
from sslbench.reporting.figures import style
from sslbench.reporting.figures.differences import Span
from sslbench.reporting.figures.plate import LeftOut, Plate, Record, listed, signed
from sslbench.reporting.figures.subject import FigureRow, FigureSubject
from sslbench.reporting.gains import FEWEST_UNITS
from sslbench.reporting.standing import standings
from sslbench.reporting.statistics import Floats, two_way

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class RankLine:
    """How a row stands.

    Attributes:
        label: of the row.
        rank: by its mean over the shared seeds, 1 is best.
        low, high: 95 % range of its rank when seeds and patients are drawn again.
        first: share of the draws in which it is first.
        apart: whether it is told apart from the best; the best itself is not.
    """

    label: str
    rank: int
    low: int
    high: int
    first: float
    apart: bool


@dataclass(frozen=True)
class RanksPlate(Plate):
    """Stability of ranks.

    Attributes:
        lines: best first.
        seeds, units: how many are redrawn.
    """

    name: ClassVar[str] = "ranks"
    title: ClassVar[str] = "Stability of ranks"

    lines: tuple[RankLine, ...]
    seeds: int
    units: int

    @classmethod
    def of(cls, subject: FigureSubject) -> RanksPlate | LeftOut:
        """From the rows that were measured on the same cases."""
        rows = _comparable(subject)
        if isinstance(rows, str):
            return LeftOut(cls.name, rows)
        found = standings({row.label: row.values for row, _ in rows})
        if found.refused:
            return LeftOut(cls.name, found.refused)
        lines = [
            RankLine(label, row.rank, row.low, row.high, row.first, row.apart) for label, row in found.rows.items()
        ]
        return cls(tuple(lines), found.seeds, found.units)

    @property
    def alt(self) -> str:
        best = self.lines[0]
        together = [line.label for line in self.lines[1:] if not line.apart]
        told = (
            f"{listed(together)} {'is' if len(together) == 1 else 'are'} not told apart from it"
            if together
            else "all others are told apart from it"
        )
        return f"Ranks of {len(self.lines)} rows: {best.label} is first in {best.first:.0%} of the draws; {told}."

    @property
    def caption(self) -> str:
        return (
            f"Dots: rank by the mean over {counted(self.seeds, 'seed')}. Lines: 95 % range of the rank over 2000 draws "
            f"of seeds and of {self.units} patients, the same for all rows: stability, no confidence interval. Right: "
            f"share of the draws in which the row is first. Grey bar: not told apart from the best (the 95 % interval "
            f"of the difference holds 0)."
        )

    def records(self) -> Sequence[Record]:
        return [
            {
                "row": line.label,
                "rank": line.rank,
                "low": line.low,
                "high": line.high,
                "first": line.first,
                "told_apart_from_best": line.apart,
            }
            for line in self.lines
        ]

    def _draw(self) -> Figure:
        count, step, foot = len(self.lines), 4.2, 9.5
        labels = style.shortened([line.label for line in self.lines], style.NARROW * 0.42)
        left, right, top = style.widest(labels) + 3, 10.5, 4.5
        figure = style.sheet(style.NARROW, top + step * count + foot)
        axes = style.place(figure, left, top, style.NARROW - left - right, step * count)
        axes.set_xlim(0.4, count + 0.6)
        axes.set_ylim(count - 0.4, -0.6)
        axes.grid(axis="x")
        together = [place for place, line in enumerate(self.lines) if not line.apart]
        for place in together:
            axes.axhspan(place - 0.5, place + 0.5, color=style.PALE, linewidth=0, zorder=0)
        ranges = [((line.low, place), (line.high, place)) for place, line in enumerate(self.lines)]
        style.strokes(axes, ranges, color=style.INK, linewidth=1.2)
        axes.plot([line.rank for line in self.lines], range(count), "o", color=style.INK, zorder=3)
        for place, line in enumerate(self.lines):
            share = f"{line.first:.0%}" if line.first >= 0.005 or not line.first else "<1%"
            axes.annotate(
                share,
                (1, place),
                (right * 72 * style.MM - 3, 0),
                xycoords=axes.get_yaxis_transform(),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=style.SMALL,
            )
        axes.text(
            1 + (right - 1) / (style.NARROW - left - right),
            1 + 0.9 / (step * count),
            "first in",
            ha="right",
            va="bottom",
            transform=axes.transAxes,
            fontsize=style.SMALL,
        )
        axes.set_yticks(range(count), labels)
        axes.set_xticks([tick for tick in [1, *style.ticks_of(1, count, 6)] if tick == int(tick) and tick >= 1])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("rank, 1 is best")
        return figure


@dataclass(frozen=True)
class PairsPlate(Plate):
    """Matrix of differences, best row first; only the half above the diagonal, the other is its mirror.

    Attributes:
        labels: of the rows.
        differences: by place of the row and of the column behind it: row less column.
        points: unit of the differences.
    """

    name: ClassVar[str] = "pairs"
    title: ClassVar[str] = "Differences of all pairs"

    labels: tuple[str, ...]
    differences: tuple[tuple[int, int, Span], ...]
    points: str

    @classmethod
    def of(cls, subject: FigureSubject) -> PairsPlate | LeftOut:
        """From the rows that were measured on the same cases."""
        rows = _comparable(subject)
        if isinstance(rows, str):
            return LeftOut(cls.name, rows)
        order = sorted(rows, key=lambda item: -item[1].mean())
        found = []
        for one in range(len(order)):
            for other in range(one + 1, len(order)):
                span = Span.of(two_way(order[one][1] - order[other][1]))
                assert span is not None
                found.append((one, other, span))
        return cls(tuple(row.label for row, _ in order), tuple(found), subject.points)

    @property
    def apart(self) -> int:
        """How many differences have an interval that excludes 0."""
        return sum(span.low > 0 or span.high < 0 for _, _, span in self.differences)

    @property
    def alt(self) -> str:
        one, other, span = max(self.differences, key=lambda item: item[2].mean)
        return (
            f"Differences between {len(self.labels)} rows: {self.apart} of "
            f"{counted(len(self.differences), 'interval')} exclude 0; the largest is {self.labels[one]} over "
            f"{self.labels[other]}, {signed(span.mean)} {self.points}."
        )

    @property
    def caption(self) -> str:
        chance = 0.05 * len(self.differences)
        return (
            f"Row less column in {self.points}, best row first; positive: the row is better. Dot: the 95 % interval "
            f"over seeds × patients (of one seed over patients alone) excludes 0 ({self.apart} of "
            f"{len(self.differences)}; without any difference about "
            f"{chance:.1f} would, as nothing is corrected for the number of pairs)."
        )

    def records(self) -> Sequence[Record]:
        return [
            {
                "row": self.labels[one],
                "column": self.labels[other],
                "difference": span.mean,
                "low": span.low,
                "high": span.high,
                "excludes_0": span.low > 0 or span.high < 0,
            }
            for one, other, span in self.differences
        ]

    def _draw(self) -> Figure:
        from matplotlib import colormaps
        from matplotlib.colors import Normalize

        count = len(self.labels)
        wide = count > 7
        width = style.WIDE if wide else style.NARROW
        labels = style.shortened(self.labels, width * 0.3)
        left = style.widest(labels[:-1]) + 2.5
        head = style.widest(labels[1:]) * math.sin(math.radians(50)) + 3.5
        lean = style.text_width(labels[-1]) * math.cos(math.radians(50)) + 2
        side = min(11.0, (width - left - lean) / (count - 1))
        high = min(side, 5.6)
        area = (side * (count - 1), high * (count - 1))
        figure = style.sheet(width, head + area[1] + 2.5)
        axes = style.place(figure, left, head, *area)
        axes.set_xlim(0.5, count - 0.5)
        axes.set_ylim(count - 1.5, -0.5)
        axes.spines[:].set_visible(False)
        axes.set_yticks(range(count - 1), labels[:-1])
        axes.set_xticks(range(1, count), labels[1:], rotation=50, ha="left", rotation_mode="anchor")
        axes.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False, pad=2)
        most = max(1e-9, *(span.mean for _, _, span in self.differences))
        shades, scale = colormaps["YlGnBu"], Normalize(0, most * 1.1)
        decimals = 1 if side >= style.text_width("00.0", style.SMALL) + 3.2 else None
        if decimals is None and side >= style.text_width("00", style.SMALL) + 2.4:
            decimals = 0
        colours = [shades(scale(span.mean)) for _, _, span in self.differences]
        middles = [(float(other), float(one)) for one, other, _ in self.differences]
        style.cells(axes, middles, colours, (side - 0.3, high - 0.3))
        dots: dict[str, list[tuple[float, float]]] = {}
        for (one, other, span), colour in zip(self.differences, colours, strict=True):
            ink = "white" if style.on_dark(colour) else "black"
            told = span.low > 0 or span.high < 0
            if decimals is not None:
                x, text = other - (0.1 if told else 0), f"{span.mean:.{decimals}f}"
                axes.text(x, one, text, ha="center", va="center_baseline", color=ink, fontsize=style.SMALL)
            if told:
                dots.setdefault(ink, []).append((other + (0.5 - 1.1 / side if decimals is not None else 0), one))
        for ink, places in dots.items():
            axes.plot(*zip(*places, strict=True), "o", color=ink, markersize=2.2, markeredgewidth=0)
        if count > 4:
            self._key(figure, left, head, area, shades, scale)
        return figure

    def _key(
        self, figure: Figure, left: float, head: float, area: tuple[float, float], shades: object, scale: object
    ) -> None:
        """A colour bar in the empty corner below the diagonal."""
        from matplotlib.cm import ScalarMappable

        width, height = min(32.0, area[0] * 0.3), 2.4
        down = head + area[1] - height - 8.0
        axes = style.place(figure, left + 1, down, width, height)
        bar = figure.colorbar(ScalarMappable(scale, shades), cax=axes, orientation="horizontal")  # type: ignore[arg-type]
        bar.outline.set_visible(False)
        axes.set_xticks(style.ticks_of(0, scale.vmax, 3))  # type: ignore[attr-defined]
        axes.tick_params(labelsize=style.SMALL)
        style.write_at(figure, left + 1, down - 1.2, self.points, fontsize=style.SMALL, va="bottom")


def _comparable(subject: FigureSubject) -> list[tuple[FigureRow, Floats]] | str:
    """The rows that were measured alike with their scores on the seeds that all share; or why there is no comparing."""
    rows, seeds = subject.alike
    if not subject.direction:
        return f"which way of {subject.metric} is better is not known"
    if len(rows) < 2:
        return "fewer than two rows were measured on the same cases"
    if not seeds:
        return "the rows have no seed in common"
    if len(set(rows[0].values.units)) < FEWEST_UNITS:
        return f"fewer than {FEWEST_UNITS} patients"
    return [(row, row.scores[[row.values.seeds.index(seed) for seed in seeds]]) for row in rows]
