"""Pictures: case, slice and rows are chosen by rule, and everything in one lies on one grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the extra [figures] is not installed")

from sslbench.core import registry
from sslbench.data.datasets.phantom import Phantom
from sslbench.data.store import Store
from sslbench.reporting.figures import overlay
from sslbench.reporting.figures.overlay import OverlayPlate
from sslbench.reporting.figures.plate import LeftOut
from sslbench.runs.directory import Run
from tests.helpers.subjects import entry, example, subject


def test_cases_and_slices_are_chosen_by_rule() -> None:
    values = np.zeros((1, 21, 1)) + np.arange(21)[::-1, None]
    rows = [entry("A", values, ("lv",)), entry("B", values + 10, ("lv",))]
    assert overlay._chosen_cases(rows, 0) == [("c10", "median", 15.0), ("c18", "lowest decile", 7.0)]
    alone = [entry("A", values[:, :1], ("lv",))]
    assert overlay._chosen_cases(alone, 0) == [("c0", "median", 20.0)]
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[0, 0] = (1, 1, 1, 1)
    labels[1, :2] = (0, 2, 2, 2)
    labels[1, 2] = (0, 0, 2, 2)
    labels[2, 2] = (0, 0, 0, 3)
    assert overlay.chosen_slice(labels, [2]) == 3  # the most classes
    labels[2, 2] = 0
    assert overlay.chosen_slice(labels, [2]) == 2  # then the most of small structures, then the first
    assert overlay.chosen_slice(np.zeros((2, 2, 3), np.uint8), []) == 0


def test_slices_lie_as_radiologists_look_at_them() -> None:
    plane = np.array([[1, 2], [3, 4]])  # (X, Y)
    ras = np.diag([1.0, 1.0, 1.0, 1.0])  # x to the body's right, y to its front: right at the left, front on top
    assert overlay._upright(plane, ras).tolist() == [[4, 2], [3, 1]]
    assert overlay._upright(plane, np.diag([-1.0, -1.0, 1.0, 1.0])).tolist() == [[1, 3], [2, 4]]
    turned = ras[[1, 0, 2, 3]]  # the first axis runs to the front
    assert overlay._upright(plane, turned).tolist() == [[4, 3], [2, 1]]
    maps = [np.pad(np.ones((2, 40), np.uint8), ((50, 48), (10, 50)))]
    rows, columns = overlay._window(maps, (1.0, 1.0))
    assert (rows.stop - rows.start, columns.stop - columns.start) == (60, 60) and rows.start <= 50 < rows.stop


def test_contours_lie_on_their_image(small_data: Path, tmp_path: Path) -> None:
    registry.register("dataset", "phantom")(Phantom)
    store = Store.open(small_data, "phantom", "native")
    cases, names = list(store.cases), [info.short for info in Phantom.classes]
    rows = []
    for label, lost in (("Whole", 0), ("Blind", len(names))):
        run = Run.of_records(tmp_path / label, label, {"labeled": "20pct", "seed": 0}, "d" * 64, {})
        run.predictions.mkdir(parents=True)
        for case in cases:
            labels = np.array(store.label(case))
            labels[labels == lost] = 0
            nib.save(store.restore(case, labels), run.own.prediction(case))
        values = np.full((1, len(cases), len(names)), 100.0 if not lost else 80.0)
        values[0, :, 0] -= range(len(cases))
        found = entry(label, values, names, runs=(run,))
        named = tuple(cases)
        rows.append(replace(found, values=replace(found.values, cases=named, units=named)))
    sizes = {name: 1000.0 - 10 * number for number, name in enumerate(names)}
    one = subject(rows, sizes=sizes, dataset="phantom", preprocessing="native")
    plate = OverlayPlate.of(one, small_data)
    assert isinstance(plate, OverlayPlate) and plate.seed == 0
    picture = plate.pictures[0]
    assert (picture.case, picture.rule) == (cases[1], "median") and len(plate.pictures) == 2
    assert [label for label, *_ in picture.predictions] == ["Whole", "Blind"]
    (_, whole, score), (_, blind, _) = picture.predictions
    assert picture.image.shape == picture.reference.shape == whole.shape
    assert (whole == picture.reference).all() and score == pytest.approx(np.mean(rows[0].values.values[0, 1]))
    assert set(np.unique(picture.reference)) - set(np.unique(blind)) <= {len(names)}
    assert f"median of the cases by the rows' mean: case {cases[1]}" in plate.caption
    assert plate.draw().get_axes()
    assert OverlayPlate.of(one, tmp_path) == LeftOut(
        "overlay", f"phantom has not been prepared as 'native' in {tmp_path}"
    )
    gone = subject([replace(row, runs=()) for row in rows], sizes=sizes, dataset="phantom", preprocessing="native")
    assert OverlayPlate.of(gone, small_data) == LeftOut("overlay", "no predictions are kept")
    left = OverlayPlate.of(example(), small_data)
    assert isinstance(left, LeftOut) and left.why.startswith("records without runs")
