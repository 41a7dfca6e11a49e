"""A figure before it is drawn: its numbers, its words, and the records behind it."""

from __future__ import annotations

import csv
import io
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from sslbench.core.files import write_text
from sslbench.reporting.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, str | int | float | bool]


@dataclass(frozen=True)
class LeftOut:
    """A figure that cannot be drawn.

    Attributes:
        name: of the figure.
        why: in one line: what is missing, or why it would mislead.
    """

    name: str
    why: str


class Plate(ABC):
    """Numbers of one figure, and how they are drawn; subclasses are frozen dataclasses.

    Attributes:
        name: of its files.
        title: in a few words.
    """

    name: ClassVar[str]
    title: ClassVar[str]

    @property
    @abstractmethod
    def alt(self) -> str:
        """What it shows, in a sentence made from its numbers, for those who cannot see it."""

    @property
    @abstractmethod
    def caption(self) -> str:
        """How to read it."""

    @abstractmethod
    def records(self) -> Sequence[Record]:
        """The numbers that are drawn, one record each."""

    @abstractmethod
    def _draw(self) -> Figure:
        """Draw under our style."""

    def draw(self) -> Figure:
        """The figure; the same numbers give the same one."""
        with style.styled():
            return self._draw()

    def write(self, path: Path) -> None:
        """Draw it into a file; the ending says the format."""
        figure = self.draw()
        if path.suffix.lower() == ".svg":
            write_text(path, style.svg_text(figure, self.name, self.title, self.alt))
        else:
            style.write_figure(figure, path, self.title)

    def csv(self) -> str:
        """The records as a tidy CSV, unrounded; a number that there is not is empty."""
        records = self.records()
        out = io.StringIO()
        names = list(dict.fromkeys(name for record in records for name in record))
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_exact(record.get(name, "")) for name in names] for record in records)
        return out.getvalue()


def _exact(value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return str(value)


def signed(value: float, decimals: int = 1) -> str:
    """A difference with its sign, a true minus; no sign where it rounds to nothing: `+7.8`, `−0.4`, `0.0`."""
    text = f"{abs(value):.{decimals}f}"
    if not float(text):
        return text
    return f"{'−' if value < 0 else '+'}{text}"


def interval_text(low: float, high: float) -> str:
    """The ends of an interval in words: `−11.8 to 43.9`."""
    return f"{low:.1f} to {high:.1f}".replace("-", "−")


def listed(names: Sequence[str], most: int = 3) -> str:
    """Names in a sentence: `a, b and c`, `a, b, c and 4 more`."""
    if len(names) > most + 1:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))
