"""What classes were taken for: `confusion`, of the best row and of what it is held against."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from sslbench.config.text import counted
from sslbench.reporting.figures import style
from sslbench.reporting.figures.plate import LeftOut, Plate, Record
from sslbench.reporting.figures.subject import FigureRow, FigureSubject
from sslbench.reporting.labels import class_title
from sslbench.runs.confusion import BACKGROUND_CLASS, read_confusion

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize
    from matplotlib.figure import Figure

_LEAST = 0.005  # a share below is not drawn


@dataclass(frozen=True)
class ConfusionPanel:
    """One row's classes.

    Attributes:
        label: of the row.
        seeds: how many are pooled.
        voxels: by class in the reference (first) and in the prediction, pooled over cases and seeds.
    """

    label: str
    seeds: int
    voxels: Mapping[tuple[str, str], int]

    def share(self, reference: str, predicted: str) -> float:
        """Share of a class's voxels that were taken for another, or for itself; NaN where no case has the class."""
        of = sum(count for (name, _), count in self.voxels.items() if name == reference)
        return self.voxels.get((reference, predicted), 0) / of if of else math.nan


@dataclass(frozen=True)
class ConfusionPlate(Plate):
    """Heat tables of classes and what they were taken for.

    Attributes:
        panels: of the best row and of its baseline.
        classes: the largest first.
    """

    name: ClassVar[str] = "confusion"
    title: ClassVar[str] = "What classes were taken for"

    panels: tuple[ConfusionPanel, ...]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, subject: FigureSubject) -> ConfusionPlate | LeftOut:
        """From the best row whose tests recorded it, and what that is held against."""
        competing = sorted((row for row in subject.rows if not row.bound), key=lambda row: -row.mean)
        rows = competing or list(subject.rows)
        try:
            best = next((row for row in rows if _panel(row, subject.checkpoint)), None)
            if best is None:
                return LeftOut(cls.name, "no row's tests recorded what classes were taken for")
            base = subject.entries.get(subject.baselines.get(best.label, ""))
            panels = [_panel(row, subject.checkpoint) for row in (best, base) if row is not None]
        except ValueError as error:
            return LeftOut(cls.name, f"a confusion.csv {error}")
        return cls(tuple(panel for panel in panels if panel), tuple(subject.by_size))

    @property
    def alt(self) -> str:
        best = self.panels[0]
        pairs = [
            (best.share(one, other), one, other)
            for one in self.classes
            for other in (*self.classes, BACKGROUND_CLASS)
            if one != other and best.share(one, other) > 0
        ]
        if not pairs:
            return f"{best.label}: every voxel of every class was found."
        share, one, other = max(pairs)
        for_what = "background" if other == BACKGROUND_CLASS else class_title(other)
        return f"{best.label}: most often {class_title(one)} is taken for {for_what}, {share:.0%} of its voxels."

    @property
    def caption(self) -> str:
        seeds = max(panel.seeds for panel in self.panels)
        return (
            f"Rows: classes of the reference, the largest first; columns: what their voxels were taken for, in % of "
            f"them, pooled over the test cases and {counted(seeds, 'seed')}, on the grid that was scored. Last column: "
            f"the background. Shares below {100 * _LEAST:.1f} % are left blank."
        )

    def records(self) -> Sequence[Record]:
        return [
            {
                "row": panel.label,
                "reference": one,
                "predicted": other,
                "voxels": panel.voxels.get((one, other), 0),
                "share": panel.share(one, other),
            }
            for panel in self.panels
            for one in (*self.classes, BACKGROUND_CLASS)
            for other in (*self.classes, BACKGROUND_CLASS)
        ]

    def _draw(self) -> Figure:
        from matplotlib import colormaps
        from matplotlib.colors import Normalize

        names = style.shortened(list(map(class_title, self.classes)), 22.0)
        count, panels = len(names), len(self.panels)
        left, gap, title = style.widest(names, style.SMALL) + 2.5, 4.0, 5.0
        foot = style.widest([*names, "none"], style.SMALL) + 3
        least = style.text_width("100", style.SMALL) + 1.0
        width = style.NARROW if left + panels * (least * (count + 1) + gap) <= style.NARROW else style.WIDE
        side = min(9.0, (width - left - gap * panels) / (panels * (count + 1)))
        high = min(side, 5.0)
        figure = style.sheet(width, title + high * count + foot)
        shades, scale = colormaps["Blues"], Normalize(0, 1)
        for number, panel in enumerate(self.panels):
            x = left + number * (side * (count + 1) + gap)
            axes = style.place(figure, x, title, side * (count + 1), high * count)
            axes.set_xlim(-0.5, count + 0.5)
            axes.set_ylim(count - 0.5, -0.5)
            axes.spines[:].set_visible(False)
            axes.tick_params(length=0, pad=2, labelsize=style.SMALL)
            axes.set_xticks(range(count + 1), [*names, "none"], rotation=90)
            axes.set_yticks(range(count), names if not number else [])
            _fill(axes, panel, self.classes, shades, scale, (side, high), side >= least)
            label = style.shortened([panel.label], side * (count + 1))[0]
            style.write_at(figure, x, title - 1.5, label, va="baseline")
        return figure


def _panel(row: FigureRow, checkpoint: str | None) -> ConfusionPanel | None:
    """The voxels of a row's runs together; None where one of them did not record them."""
    pooled: dict[tuple[str, str], int] = {}
    for run in row.runs:
        found = read_confusion(run.tested(checkpoint).confusion)
        if found is None:
            return None
        for pair, count in found.items():
            pooled[pair] = pooled.get(pair, 0) + count
    return ConfusionPanel(row.label, len(row.runs), pooled) if pooled else None


def _fill(
    axes: Axes,
    panel: ConfusionPanel,
    classes: Sequence[str],
    shades: Colormap,
    scale: Normalize,
    size: tuple[float, float],
    numbers: bool,
) -> None:
    columns = (*classes, BACKGROUND_CLASS)
    shares = np.array([[panel.share(one, other) for other in columns] for one in classes])
    shown = [(int(row), int(column)) for row, column in np.argwhere(shares >= _LEAST)]
    colours = [shades(scale(shares[place])) for place in shown]
    style.cells(axes, [(column, row) for row, column in shown], colours, (size[0] - 0.25, size[1] - 0.25))
    for (row, column), colour in zip(shown, colours, strict=True):
        if numbers:
            ink = "white" if style.on_dark(colour) else "black"
            text = f"{100 * shares[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center_baseline", color=ink, fontsize=style.SMALL)
