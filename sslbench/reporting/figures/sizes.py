"""`sizes`: how large classes are, in a table's test cases or as an audit counted them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from sslbench.core.errors import UsageError
from sslbench.data.audit import AuditReport, percent
from sslbench.reporting.figures import style
from sslbench.reporting.figures.plate import LeftOut, Plate, Record
from sslbench.reporting.figures.style import Look
from sslbench.reporting.figures.subject import FigureSubject
from sslbench.reporting.labels import class_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SERIES = (Look(style.COLOURS[0], "o"), Look(style.COLOURS[1], "D"))


@dataclass(frozen=True)
class SizesPlate(Plate):
    """Sizes of classes on a logarithmic axis: dots, as the length of a bar would depend on where the axis begins.

    Attributes:
        classes: names, the largest first.
        series: title and values by class; 0 where there is nothing.
        measured: of the axis.
        shares: whether the values are shares of 1.
        about: what was counted, for the sentences.
    """

    name: ClassVar[str] = "sizes"
    title: ClassVar[str] = "Sizes of classes"

    classes: tuple[str, ...]
    series: tuple[tuple[str, tuple[float, ...]], ...]
    measured: str
    shares: bool
    about: str

    @classmethod
    def of(cls, subject: FigureSubject) -> SizesPlate | LeftOut:
        """From the reference voxels of a table's test cases."""
        names = [name for name in subject.by_size if subject.sizes.get(name, 0) > 0]
        if not names:
            return LeftOut(cls.name, "no test case has any class")
        values = tuple(subject.sizes[name] for name in names)
        titles = tuple(class_title(name) for name in names)
        about = "Mean voxels of each class over the test cases that have it"
        return cls(titles, (("mean voxels", values),), "mean voxels, logarithmic", False, about)

    @classmethod
    def of_audit(cls, report: AuditReport) -> SizesPlate | LeftOut:
        """From the class shares of an audit."""
        rows = sorted(report.classes, key=lambda row: -row.share)
        if not rows:
            return LeftOut(cls.name, "no label could be read: there are no class shares to draw")
        series = [("all voxels", tuple(row.share for row in rows))]
        if report.patches:
            series.append(("random patch", tuple(row.patch_share or 0.0 for row in rows)))
        held = f"{report.held} of {report.official}" if report.held < report.official else str(report.held)
        about = f"Class shares of {report.dataset} ({report.preprocessing}), {held} cases"
        if report.patches:
            size = " × ".join(map(str, report.patch_size))
            about += f"; random patches of {size} as {report.recipe} draws them ({report.patches})"
        names = tuple(row.name for row in rows)
        return cls(names, tuple(series), "share of voxels, logarithmic", True, about)

    @property
    def alt(self) -> str:
        values = self.series[0][1]
        present = [(value, name) for name, value in zip(self.classes, values, strict=True) if value > 0]
        if not present:
            return f"{self.about}: nothing there."
        high, low = max(present), min(present)
        factor = high[0] / low[0]
        return (
            f"{self.about}: from {self._text(high[0])} ({high[1]}) to {self._text(low[0])} ({low[1]}), "
            f"a factor of {_two_digits(factor)}."
        )

    @property
    def caption(self) -> str:
        return f"{self.about}. Largest first."

    def records(self) -> Sequence[Record]:
        return [
            {"class": name, "of": title, "value": value}
            for title, values in self.series
            for name, value in zip(self.classes, values, strict=True)
        ]

    def _text(self, value: float) -> str:
        if not value:
            return "none"
        return percent(value) if self.shares else f"{value:,.0f}".replace(",", " ")

    def _draw(self) -> Figure:
        step, top = 4.4, 5.0
        names = style.shortened(self.classes, style.NARROW * 0.36)
        columns = [[self._text(value) for value in values] for _, values in self.series]
        widths = [
            style.widest([*texts, title], style.SMALL) + 2.5
            for (title, _), texts in zip(self.series, columns, strict=True)
        ]
        left, right, high = style.widest(names) + 3, sum(widths) + 1, step * len(names)
        width = style.NARROW if len(self.series) == 1 else style.WIDE * 0.7
        foot = 10.0
        figure = style.sheet(width, top + high + foot)
        across = width - left - right
        axes = style.place(figure, left, top, across, high)
        present = [value for _, values in self.series for value in values if value > 0]
        low, most = min(present, default=0.1) / 1.8, max(present, default=1.0) * 1.6
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xlim(low, most)
        axes.set_ylim(len(names) - 0.4, -0.6)
        at = left + across
        for number, ((title, values), texts) in enumerate(zip(self.series, columns, strict=True)):
            look = _SERIES[number]
            places = [place for place, value in enumerate(values) if value > 0]
            axes.plot(
                [values[place] for place in places], places, look.marker, color=look.colour, zorder=3 - 0.1 * number
            )
            at += widths[number]
            style.write_at(
                figure, at, top - 0.8, title, ha="right", va="bottom", fontsize=style.SMALL, color=look.colour
            )
            for place, text in enumerate(texts):
                style.write_at(
                    figure,
                    at,
                    top + step * (place + 0.6) * len(names) / (len(names) + 0.2),
                    text,
                    ha="right",
                    va="center",
                    fontsize=style.SMALL,
                )
        if len(self.series) > 1:
            for place, pair in enumerate(zip(*(values for _, values in self.series), strict=True)):
                if min(pair) > 0:
                    axes.plot(pair, [place, place], color=style.PALE, linewidth=1.0, zorder=2)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(most)) + 1)
        ticks = [10.0**power for power in powers if low <= 10.0**power <= most]
        texts = [f"{100 * tick:g} %" if self.shares else style.count_text(tick) for tick in ticks]
        every = max(1, math.ceil(len(ticks) * (style.widest(texts) + 2) / across))
        axes.set_xticks(ticks, [text if number % every == 0 else "" for number, text in enumerate(texts)])
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="both")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(self.measured)
        return figure


def _two_digits(number: float) -> str:
    """A number from 1 on with two digits that mean something: `1.3`, `380`, `9 500`."""
    rounded = float(f"{number:.2g}")
    return f"{rounded:,.0f}".replace(",", " ") if rounded >= 10 else f"{rounded:g}"


def draw_audit(report: AuditReport, path: Path) -> None:
    """Draw the class shares of an audit into a file; its ending says the format.

    Raises:
        UsageError: the audit has no class counts.
    """
    plate = SizesPlate.of_audit(report)
    if isinstance(plate, LeftOut):
        raise UsageError(plate.why)
    plate.write(path)
