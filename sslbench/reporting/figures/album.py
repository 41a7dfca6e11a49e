"""All figures of a report: made from its tables and runs, and written as PDF, SVG and CSV with a list of them."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sslbench.core.files import write_json, write_text
from sslbench.reporting.figures import style
from sslbench.reporting.figures.budgets import BudgetPlate, CostPlate, OptionsPlate
from sslbench.reporting.figures.confusion import ConfusionPlate
from sslbench.reporting.figures.differences import GainsPlate, LensPlate
from sslbench.reporting.figures.overlay import OverlayPlate
from sslbench.reporting.figures.plate import LeftOut, Plate
from sslbench.reporting.figures.ranking import PairsPlate, RanksPlate
from sslbench.reporting.figures.scores import CasesPlate, ClassesPlate
from sslbench.reporting.figures.sizes import SizesPlate
from sslbench.reporting.figures.subject import FigureSubject
from sslbench.reporting.figures.training import (
    AgreementPlate,
    CurvesPlate,
    MinedPlate,
    RegionAccuracyPlate,
    RegionsPlate,
    WeightsPlate,
)

LIST = "figures.json"


@dataclass(frozen=True)
class Leaf:
    """One figure of a report, or why it is left out.

    Attributes:
        subject: name of its table, or of the recipe where it is about several; empty where there is one alone.
        title: of its table.
        plate: the figure.
    """

    subject: str
    title: str
    plate: Plate | LeftOut

    @property
    def key(self) -> str:
        """A name that no other figure of the report has, fit for an id."""
        return "-".join(filter(None, [self.subject, self.plate.name]))

    @cached_property
    def drawing(self) -> style.Drawing:
        """The figure, drawn once."""
        assert not isinstance(self.plate, LeftOut)
        return style.Drawing(self.plate.draw())


def album(subjects: Sequence[FigureSubject], data_dir: Path) -> list[Leaf]:
    """The figures of a report.

    Rows have the same look in all of them.

    Args:
        subjects: `subjects_of` its tables.
        data_dir: where datasets are prepared, for `overlay`.
    """
    # Upper bounds last: the rows of a table keep their looks whether it has one or not.
    rows = sorted((row for subject in subjects for row in subject.rows), key=lambda row: row.bound)
    labels = list(dict.fromkeys(row.label for row in rows))
    looks = dict(style.looks_of(labels))
    leaves = []
    for subject in subjects:
        leaves += [Leaf(subject.name, subject.title, plate) for plate in _plates(subject, looks, data_dir)]
    together: dict[tuple[str, ...], list[FigureSubject]] = {}
    for subject in subjects:
        together.setdefault((subject.rows[0].family[0], subject.dataset, subject.measured), []).append(subject)
    for (recipe, *_), members in together.items():
        plate = BudgetPlate.of(members, looks)
        leaves.append(Leaf(recipe if len(together) > 1 else "", "", plate))
    return leaves


def _plates(subject: FigureSubject, looks: dict[str, style.Look], data_dir: Path) -> Iterator[Plate | LeftOut]:
    yield GainsPlate.of(subject, looks)
    yield LensPlate.of(subject)
    yield ClassesPlate.of(subject)
    yield CasesPlate.of(subject, looks)
    yield RanksPlate.of(subject)
    yield PairsPlate.of(subject)
    yield CurvesPlate.of(subject, looks)
    yield CostPlate.of(subject, looks)
    yield ConfusionPlate.of(subject)
    yield OverlayPlate.of(subject, data_dir)
    yield SizesPlate.of(subject)
    yield OptionsPlate.of(subject)
    for kind in (WeightsPlate, MinedPlate, AgreementPlate, RegionsPlate, RegionAccuracyPlate):
        yield kind.of(subject, looks)


def write_album(leaves: Sequence[Leaf], folder: Path) -> list[Path]:
    """Write every figure as PDF and SVG with the CSV of its numbers, in a folder of its table where there are several,
    and `figures.json`: captions, sentences for those who cannot see them, and what is left out and why.

    Returns:
        The files, in order.
    """
    style.check_installed()
    with _uncollected():
        return _write(leaves, folder)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector of cycles: a figure is thousands of objects that it goes through again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _write(leaves: Sequence[Leaf], folder: Path) -> list[Path]:
    several = len({leaf.subject for leaf in leaves if leaf.subject}) > 1
    written: list[Path] = []
    listed: list[dict[str, Any]] = []
    for leaf in leaves:
        plate = leaf.plate
        entry: dict[str, Any] = {"name": plate.name, "table": leaf.subject}
        if isinstance(plate, LeftOut):
            listed.append({**entry, "left_out": plate.why})
            continue
        stem = (folder / leaf.subject if several and leaf.subject else folder) / plate.name
        files = [stem.with_name(f"{stem.name}.{ending}") for ending in ("pdf", "svg", "csv")]
        drawing = leaf.drawing
        assert drawing.figure is not None
        style.write_figure(drawing.figure, files[0], plate.title)
        write_text(files[1], drawing.svg_text(leaf.key, plate.title, plate.alt), sync=False)
        if not isinstance(plate, OverlayPlate):  # a page makes a picture of it
            drawing.release()
        write_text(files[2], plate.csv(), sync=False)
        written += files
        names = [path.relative_to(folder).as_posix() for path in files]
        listed.append({**entry, "title": plate.title, "caption": plate.caption, "alt": plate.alt, "files": names})
    write_json(folder / LIST, listed)
    return [*written, folder / LIST]
