"""`overlay`: contours of the reference and of predictions on a slice, the case and the slice chosen by rule.

Nobody picks the picture: the case is the one whose mean over the rows is the median, and a second one is the lowest
decile, so that failures are seen; the slice has the most classes, then the most voxels of small structures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sslbench.core.errors import DataError, UsageError
from sslbench.data.files.volumes import read_nifti
from sslbench.data.preprocess import to_stored
from sslbench.data.store import Store
from sslbench.reporting.figures import style
from sslbench.reporting.figures.plate import LeftOut, Plate, Record
from sslbench.reporting.figures.subject import FigureRow, FigureSubject, repeated_by
from sslbench.reporting.labels import class_title
from sslbench.runs.directory import Run, TestFiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ROWS = 7
_RULES = ("median", "lowest decile")
_MARGIN = 0.12  # of the side of what is shown, around the structures
_LEAST_MM = 60.0


@dataclass(frozen=True, eq=False)
class Picture:
    """One slice of one case.

    Attributes:
        case, rule: which, and why.
        score: mean of the rows on it.
        slice: index along the third axis of the stored grid.
        image: (H, W) or (H, W, 3), 0 to 255, first row on top.
        reference: (H, W) labels.
        predictions: label of the row, labels (H, W), and its score on the whole case.
        aspect: height of a pixel over its width.
    """

    case: str
    rule: str
    score: float
    slice: int
    image: NDArray[np.uint8]
    reference: NDArray[np.uint8]
    predictions: tuple[tuple[str, NDArray[np.uint8], float], ...]
    aspect: float


@dataclass(frozen=True, eq=False)
class OverlayPlate(Plate):
    """Contours on slices.

    Attributes:
        pictures: the median case, and that of the lowest decile if it is another.
        classes: title by label, the largest first.
        measured: metric and unit of the scores.
        seed: whose predictions; where labels are drawn, the draw.
        repeats: which of the two.
    """

    name: ClassVar[str] = "overlay"
    title: ClassVar[str] = "Predictions on two cases"

    pictures: tuple[Picture, ...]
    classes: Mapping[int, str]
    measured: str
    seed: int
    repeats: str = "seed"

    @classmethod
    def of(cls, subject: FigureSubject, data_dir: Path) -> OverlayPlate | LeftOut:
        """From the predictions of a table's runs and the prepared dataset."""
        if not subject.direction:
            return LeftOut(cls.name, f"which way of {subject.metric} is better is not known")
        if not subject.preprocessing:
            return LeftOut(cls.name, "records without runs: where the images lie is not known")
        rows, seeds = subject.alike
        if not rows or not seeds:
            return LeftOut(cls.name, "the rows have no case and seed in common")
        seed = seeds[0]
        runs = [(row, run) for row in rows if (run := _run_of(row, seed)) is not None]
        runs = [(row, run) for row, run in runs if run.tested(subject.checkpoint).predictions.is_dir()]
        if not runs:
            return LeftOut(cls.name, "no predictions are kept")
        try:
            store = Store.open(data_dir, subject.dataset, subject.preprocessing)
        except (UsageError, DataError) as error:
            return LeftOut(cls.name, error.message)
        chosen = _shown_rows(runs, subject)
        pictures = []
        for case, rule, score in _chosen_cases(rows, seed):
            try:
                pictures.append(_picture(store, chosen, subject, (case, rule, subject.shown(score)), seed))
            except DataError as error:
                return LeftOut(cls.name, error.message)
        labels = {info.short: label for label, info in enumerate(store.dataset.classes, 1)}
        classes = {labels[name]: class_title(name) for name in subject.by_size if name in labels}
        return cls(tuple(pictures), classes, subject.measured, seed, rows[0].values.repeats)

    @property
    def alt(self) -> str:
        told = []
        for picture in self.pictures:
            ends = sorted(((score, label) for label, _, score in picture.predictions), reverse=True)
            told.append(
                f"case {picture.case} ({picture.rule}), slice {picture.slice}: {ends[0][1]} {ends[0][0]:.1f} to "
                f"{ends[-1][1]} {ends[-1][0]:.1f}"
            )
        rows = len(self.pictures[0].predictions)
        return f"Contours of the reference and of {rows} rows, {self.measured}; {'; '.join(told)}."

    @property
    def caption(self) -> str:
        told = [
            f"{one.rule} of the cases by the rows' mean: case {one.case} ({one.score:.1f}), slice {one.slice}"
            for one in self.pictures
        ]
        return (
            f"Reference and predictions of {self.repeats} {self.seed} with the {self.measured} of the whole case. "
            f"Chosen by rule: {'; '.join(told)}; the slice with the most classes, then the most voxels of small "
            f"structures. Rows: the best, each with its baseline, up to {MOST_ROWS}."
        )

    def records(self) -> Sequence[Record]:
        return [
            {
                "case": picture.case,
                "rule": picture.rule,
                "slice": picture.slice,
                "row": label,
                "seed": self.seed,
                "value": score,
            }
            for picture in self.pictures
            for label, _, score in picture.predictions
        ]

    def _draw(self) -> Figure:
        count = 1 + max(len(picture.predictions) for picture in self.pictures)
        across = min(count, 4)
        down = -(-count // across)
        gap, title, side_text = 1.5, 4.0, 4.5
        side = (style.WIDE - side_text - 1 - gap * (across - 1)) / across
        heights = [min(side * p.image.shape[0] * p.aspect / p.image.shape[1], 1.25 * side) for p in self.pictures]
        names = list(self.classes.values())
        key = style.key_rows(names, style.WIDE - side_text)
        top = 0.5
        whole = top + sum(down * (title + high + gap) for high in heights) + 1.5 + style.LINE * len(key) + 1
        figure = style.sheet(style.WIDE, whole)
        for picture, high in zip(self.pictures, heights, strict=True):
            shown = [("Reference", picture.reference, None), *picture.predictions]
            for number, (label, labels, score) in enumerate(shown):
                row, column = divmod(number, across)
                x, y = side_text + column * (side + gap), top + title + row * (title + high + gap)
                axes = style.place(figure, x, y, side, high)
                self._contours(axes, picture, labels)
                value = "" if score is None else f" {score:.1f}"
                room = side - style.text_width(value)
                axes.set_title(f"{style.fitted(label, room, lines=1)}{value}", loc="left", pad=2)
            block = down * (title + high + gap)
            words = f"{picture.rule}: {picture.case}"
            words = style.fitted(words, block - 2, style.SMALL, lines=1)
            style.write_at(figure, 0.8, top + block / 2, words, rotation=90, va="center", fontsize=style.SMALL)
            top += block
        for number, labels_of_row in enumerate(key):
            _key_line(figure, labels_of_row, names, side_text, top + 2.2 + style.LINE * number)
        return figure

    def _contours(self, axes: Axes, picture: Picture, labels: NDArray[np.uint8]) -> None:
        axes.imshow(picture.image, cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="auto")
        for number, label in enumerate(self.classes):
            mask = labels == label
            if mask.any():
                colour, dashes = _class_look(number)
                padded = np.pad(mask, 1).astype(np.float32)  # 0.85: inside its own voxels, beside its neighbour's line
                places = [np.arange(-1, size + 1) for size in mask.shape]
                axes.contour(
                    places[1], places[0], padded, levels=[0.85], colors=[colour], linewidths=0.8, linestyles=[dashes]
                )
        axes.set_xlim(-0.5, labels.shape[1] - 0.5)
        axes.set_ylim(labels.shape[0] - 0.5, -0.5)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)


# Bright, as they lie on a grey image.
_BRIGHT = ("#0095ff", "#e69f00", "#00b37d", "#f0e442", "#ff5a00", "#ff79c6", "#56e0ff", "#ffffff")


def _class_look(number: int) -> tuple[str, Any]:
    return _BRIGHT[number % len(_BRIGHT)], ("solid", (0, (2.5, 1.2)))[number // len(_BRIGHT) % 2]


def _key_line(figure: Figure, labels: Sequence[str], names: Sequence[str], left: float, down: float) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    width, height = (side / style.MM for side in figure.get_size_inches())
    x, y = left, 1 - down / height
    for label in labels:
        colour, dashes = _class_look(names.index(label))
        box = (x / width, y - 1.1 / height)
        figure.add_artist(Rectangle(box, 5.6 / width, 2.2 / height, facecolor="#555555", transform=figure.transFigure))
        ends = [(x + 0.6) / width, (x + 5.0) / width]
        figure.add_artist(Line2D(ends, [y, y], color=colour, linestyle=dashes, linewidth=1.2))
        figure.text((x + 6.6) / width, y, label, va="center", fontsize=style.SMALL)
        x += style.key_width(label)


# ------------------------------------------------------------------------------------------------------------- choice


def _run_of(row: FigureRow, seed: int) -> Run | None:
    return next((run for run in row.runs if repeated_by(run) == seed), None)


def _shown_rows(runs: Sequence[tuple[FigureRow, Run]], subject: FigureSubject) -> list[tuple[FigureRow, Run]]:
    """The best rows, each with its baseline, in the table's order."""
    labels: list[str] = []
    have = {row.label for row, _ in runs}
    for row, _ in sorted(runs, key=lambda item: -item[0].mean):
        for label in (row.label, subject.baselines.get(row.label, row.label)):
            if label in have and label not in labels and len(labels) < MOST_ROWS:
                labels.append(label)
    return [(row, run) for row, run in runs if row.label in labels]


def case_scores(row: FigureRow, seed: int) -> NDArray[np.float64]:
    """Mean over the classes of each case under one seed, larger is better; NaN for a case without any value."""
    values = row.values.values[row.values.seeds.index(seed)]
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0.0).sum(axis=1) / known.sum(axis=1))


def _chosen_cases(rows: Sequence[FigureRow], seed: int) -> list[tuple[str, str, float]]:
    """The cases to show with rule and score: lower median and lowest decile of the rows' mean, of equals the first."""
    means = np.mean([case_scores(row, seed) for row in rows], axis=0)
    order = [int(place) for place in np.argsort(means, kind="stable") if not np.isnan(means[place])]
    if not order:
        return []
    places = {"median": order[(len(order) - 1) // 2], "lowest decile": order[(len(order) - 1) // 10]}
    cases = rows[0].values.cases
    found = [(cases[place], rule, float(means[place])) for rule, place in places.items()]
    return found if found[0][0] != found[1][0] else found[:1]


def chosen_slice(reference: NDArray[np.integer], tail: Sequence[int]) -> int:
    """Slice along the last axis with the most classes, then the most voxels of the labels `tail`, then the first."""
    flat = reference.reshape(-1, reference.shape[-1])
    labels = [int(label) for label in np.unique(flat) if label]
    present = (
        np.stack([(flat == label).any(axis=0) for label in labels]).sum(axis=0) if labels else np.zeros(flat.shape[1])
    )
    small = np.isin(flat, list(tail) or labels).sum(axis=0)
    return int(np.lexsort((np.arange(len(small)), -small, -present))[0])


# ------------------------------------------------------------------------------------------------------------ volumes


def _picture(
    store: Store,
    chosen: Sequence[tuple[FigureRow, Run]],
    subject: FigureSubject,
    which: tuple[str, str, float],
    seed: int,
) -> Picture:
    case, rule, score = which
    if case not in store.cases:
        raise DataError(f"the prepared data in {store.folder} have no case {case}")
    labels = {info.short: label for label, info in enumerate(store.dataset.classes, 1)}
    axes = str(store.cases[case].geometry["axes"])
    reference = _xyz(np.asarray(store.label(case)), axes)
    number = chosen_slice(reference, [labels[name] for name in subject.lens.tail if name in labels])
    affine = store.on_stored_grid(case, np.asarray(store.label(case))).affine
    channels = np.asarray(store.image(case), dtype=np.float32)
    photo = len(channels) == 3
    picture = np.stack([_xyz(channel, axes)[..., number] for channel in (channels if photo else channels[:1])], axis=-1)
    maps = [reference[..., number]]
    scores = []
    for row, run in chosen:
        maps.append(_prediction(store, run.tested(subject.checkpoint), case, axes)[..., number])
        scores.append(subject.shown(float(case_scores(row, seed)[row.values.cases.index(case)])))
    if not photo:
        picture, maps = _upright(picture, affine), [_upright(one, affine) for one in maps]
    else:
        picture, maps = picture.swapaxes(0, 1), [one.swapaxes(0, 1) for one in maps]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)[:2]
    if not photo and _across(affine) == 1:
        spacing = spacing[::-1]
    box = _window(maps, (float(spacing[1]), float(spacing[0])))
    image = _grey(picture[box])
    found = tuple(
        (row.label, np.ascontiguousarray(one[box]).astype(np.uint8), value)
        for (row, _), one, value in zip(chosen, maps[1:], scores, strict=True)
    )
    aspect = float(spacing[1] / spacing[0])
    return Picture(case, rule, score, number, image, np.ascontiguousarray(maps[0][box]), found, aspect)


def _xyz(array: NDArray[Any], axes: str) -> NDArray[Any]:
    return array.transpose(2, 1, 0) if axes == "zyx" else array


def _prediction(store: Store, files: TestFiles, case: str, axes: str) -> NDArray[np.integer]:
    """Labels (X, Y, Z) on the stored grid."""
    seen, restored = files.preprocessed_prediction(case), files.prediction(case)
    if store.resamples(case) and seen.is_file():
        found, _, _ = read_nifti(seen, np.uint8)
    else:
        scan, _, _ = read_nifti(restored, np.uint8)
        try:
            found = _xyz(to_stored(scan, store.cases[case].geometry), axes)
        except ValueError as error:
            raise DataError(f"{restored}: {error}") from error
    shape = _xyz(np.empty(store.cases[case].shape, np.bool_), axes).shape
    if found.shape != shape:
        raise DataError(f"{restored} does not lie on the prepared grid of case {case}")
    return np.asarray(found)


def _upright(plane: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[Any]:
    """A slice (X, Y, ...) as radiologists look at it, first row on top: front of the body up, its right at the left.

    The affine (voxels to RAS+ mm) tells which axis is which; of an oblique slice what is nearest counts.
    """
    across = _across(affine)
    turned = plane.swapaxes(0, 1) if across == 0 else plane  # rows run along the other axis
    if affine[0, across] > 0:  # towards the body's right, which is at the left
        turned = turned[:, ::-1]
    if affine[1, 1 - across] > 0:  # towards the front, which is up
        turned = turned[::-1]
    return turned


def _across(affine: NDArray[np.float64]) -> int:
    """The axis that runs from side to side of the body."""
    return 0 if abs(affine[0, 0]) >= abs(affine[0, 1]) else 1


def _window(maps: Sequence[NDArray[Any]], spacing: tuple[float, float]) -> tuple[slice, slice]:
    """The part of a slice that holds all structures with a margin, not smaller than a few centimetres."""
    found = []
    for axis in (0, 1):
        inside = np.flatnonzero(np.any([one.any(axis=1 - axis) for one in maps], axis=0))
        size = maps[0].shape[axis]
        low, high = (int(inside[0]), int(inside[-1]) + 1) if inside.size else (0, size)
        side = max((high - low) * (1 + 2 * _MARGIN), min(_LEAST_MM / max(spacing[axis], 1e-6), size))
        middle = (low + high) / 2
        start = int(np.clip(round(middle - side / 2), 0, max(0, size - round(side))))
        found.append(slice(start, min(size, start + round(side))))
    return found[0], found[1]


def _grey(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Intensities between their 1st and 99th percentile as 0 to 255; a photograph keeps its colours."""
    low, high = np.percentile(picture, (1, 99))
    shown = np.clip((picture - low) / max(high - low, 1e-6), 0, 1) * 255
    shown = shown.round().astype(np.uint8)
    return shown if shown.shape[-1] == 3 else shown[..., 0]
