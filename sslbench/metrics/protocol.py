"""Protocols: how label maps become numbers.

Two tables are comparable only if they agree on the grid that was measured on, the unit, the definition of
each metric, what an empty mask scores, the order of averaging and what ± means. A `Protocol` owns all of
these, is a plain value, and says them in its caption. The registered ones are in `published`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sslbench.data.resampling import floor_positions
from sslbench.metrics.aggregate import aggregate, averages
from sslbench.metrics.captions import caption
from sslbench.metrics.case import (
    DISTANCES,
    OVERLAPS,
    VOLUMES,
    CaseMeasurement,
    ClassState,
    check_pair,
    compare,
    measure,
)
from sslbench.metrics.components import intersection, largest_component
from sslbench.metrics.surface import check_spacing

if TYPE_CHECKING:
    import pandas as pd

    from sslbench.data.base import Preprocessing
    from sslbench.runs.records import CaseTable

Rule = float | Literal["exclude", "diagonal"]
EvaluationGrid = Literal["original", "preprocessed"]
Records = list[dict[str, Any]]  # rows of cases, as `Protocol.score` gives them

BACKGROUND = "background"


@dataclass(frozen=True)
class EmptyPolicy:
    """Scores of a class in a case where one of its masks is empty, or both are.

    A rule is a number, `exclude` (nan: the case does not enter the mean) or, for distances, `diagonal` (the
    length of the measured image's diagonal in the protocol's unit, which no distance in it exceeds).

    Attributes:
        absent_overlap: DSC, Jaccard and NSD where the class is in neither map; 0..1 or `exclude`.
        absent_distance: distances there.
        missed_distance: distances where the reference has the class and the prediction does not. Overlaps are
            0.
        spurious_distance: distances where the prediction has the class and the reference does not. Overlaps
            are 0.
        capped: a distance between two masks counts no more than `missed_distance`, where that is a number that it
            can exceed: else a network would gain by dropping an organ that it found too far away.
        blank: the policy that applies instead, to all classes, if the whole prediction is background; None:
            this one.
    """

    absent_overlap: float | Literal["exclude"] = "exclude"
    absent_distance: Rule = "exclude"
    missed_distance: Rule = "diagonal"
    spurious_distance: Rule = "diagonal"
    capped: bool = False
    blank: EmptyPolicy | None = None

    def __post_init__(self) -> None:
        for name in ("absent_overlap", "absent_distance", "missed_distance", "spurious_distance"):
            rule = getattr(self, name)
            words = ("exclude",) if name == "absent_overlap" else ("exclude", "diagonal")
            if rule not in words and not (isinstance(rule, (int, float)) and math.isfinite(rule) and rule >= 0):
                raise ValueError(f"{name} is {rule!r}, expected {' or '.join(words)} or a number ≥ 0")
        if not isinstance(self.absent_overlap, str) and self.absent_overlap > 1:
            raise ValueError(f"absent_overlap is {self.absent_overlap}: overlaps are fractions, at most 1")

    def value(self, state: ClassState, is_distance: bool, diagonal: float) -> float:
        """The score of a class in a state other than `both`; nan: excluded."""
        rule: Rule
        if not is_distance:
            rule = self.absent_overlap if state == "absent" else 0.0
        else:
            rules = {"absent": self.absent_distance, "missed": self.missed_distance}
            rule = rules.get(state, self.spurious_distance)
        if rule == "exclude":
            return float("nan")
        return diagonal if rule == "diagonal" else float(rule)

    @property
    def cap(self) -> float:
        """The most that a distance between two masks counts."""
        return float(self.missed_distance) if self.capped and not isinstance(self.missed_distance, str) else math.inf


@dataclass(frozen=True)
class Protocol:
    """A named, versioned way from label maps to the numbers of a table.

    A value, made by `Protocol(...)` or from another one by `dataclasses.replace`: the first eight fields must be given,
    the others may be.

    Attributes:
        name: the registered name, printed with every table.
        version: raised whenever a number could change; part of a job's identity.
        description: one sentence: who measures so, with the source.
        grid: where prediction and reference are compared: the official scan's grid (`original`; predictions
            are brought back to it first) or the one networks see (`preprocessed`). The caller hands over maps
            on the grid that `takes` says.
        unit: of distances: `mm` by the case's spacing, or `voxel`, where a step along any axis counts 1.
        metrics: of `dsc`, `jaccard`, `asd`, `assd`, `hd95` (pooled), `hd95max`, `nsd@τ` (τ in `unit`), `rvd` and
            `avd` (in `unit` to the power of the axes).
        policy: what empty masks score.
        ddof: of the ± : 0 population, 1 sample standard deviation.
        spread: what ± is taken over: the runs of several seeds, or the cases of one run (per class, then
            averaged over classes, as MetaSSL prints it).
        spacing_mm: of the `preprocessed` grid that the paper measures on, along x, y, z; None: any.
        resize_to: the grid (x, y, z) that both maps are first resized to by `resize_nearest`, or None.
        resize_by: factors (x, y, z) that their sides are multiplied by, rounded down, before that; or None.
        postprocess: what is done to predictions before all else, in order: `intersection` (of the label maps of
            several networks), `largest-component` (of every class).
        background: whether the background is scored as a class, the first.
        smooth: added above and below to overlaps, of empty masks too, so that the policy does not concern them.
        skip_cases: how many cases, the first of a run in its order, stay out of all means.
        slips: of the published evaluator, one sentence each, if the protocol repeats them.
    """

    name: str
    version: int
    description: str
    grid: EvaluationGrid
    unit: Literal["mm", "voxel"]
    metrics: tuple[str, ...]
    policy: EmptyPolicy
    ddof: int
    spread: Literal["seeds", "cases"] = "seeds"
    spacing_mm: tuple[float, float, float] | None = None
    resize_to: tuple[int, int, int] | None = None
    resize_by: tuple[float, float, float] | None = None
    postprocess: tuple[Literal["intersection", "largest-component"], ...] = ()
    background: bool = False
    smooth: float = 0.0
    skip_cases: int = 0
    slips: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        def wrong(message: str) -> ValueError:
            return ValueError(f"protocol {self.name}: {message}")

        if not self.metrics or len(set(self.metrics)) != len(self.metrics):
            raise wrong(f"metrics must be given, each once: {self.metrics}")
        for metric in self.metrics:
            if _needs_surfaces(metric):
                measure(metric)
        choices = {
            "grid": ("original", "preprocessed"),
            "unit": ("mm", "voxel"),
            "spread": ("seeds", "cases"),
            "ddof": (0, 1),
        }
        for field, allowed in choices.items():
            if getattr(self, field) not in allowed:
                raise wrong(f"{field} is {getattr(self, field)!r}, not one of {allowed}")
        if self.postprocess not in (
            (),
            ("intersection",),
            ("largest-component",),
            ("intersection", "largest-component"),
        ):
            raise wrong(f"postprocess is {self.postprocess}, expected intersection, then largest-component, or less")
        if self.grid == "original" and self.spacing_mm is not None:
            raise wrong("spacing_mm is that of a preprocessed grid")
        if self.resize_to is not None and self.resize_by is not None:
            raise wrong("maps are resized in one way, resize_to or resize_by")
        if self.background and any(_needs_surfaces(metric) for metric in self.metrics):
            raise wrong("the background has no surface to measure")
        if self.smooth < 0 or self.skip_cases < 0:
            raise wrong("smooth and skip_cases cannot be negative")

    @property
    def released(self) -> bool:
        """True where it repeats the slips of a published evaluator."""
        return bool(self.slips)

    # ------------------------------------------------------------------------------------------------------- cases

    def takes(self, preprocessing: Preprocessing | None) -> EvaluationGrid:
        """The grid to hand the maps of a case over on, by how its stored grid was made (None: not known).

        It is `grid`, unless that is `preprocessed` and the stored grid is not such as the paper has (`spacing_mm`,
        else `resize_to`). Then predictions are brought back to the scan's own grid, and what the protocol does starts
        there: the numbers are `converted`, and captions say so.
        """
        if self.grid == "original" or preprocessing is None:
            return "original"
        if self.spacing_mm is not None:
            same = preprocessing.spacing_mm == self.spacing_mm
        else:
            same = self.resize_to is None or preprocessing.resize_to == self.resize_to
        return "preprocessed" if same else "original"

    def converts(self, preprocessing: Preprocessing | None) -> bool:
        """Tell whether predictions on such a stored grid are converted before they are measured; see `takes`."""
        return self.takes(preprocessing) != self.grid

    def objection(self, axes: str = "xyz", networks: int = 1) -> str | None:
        """Why the protocol cannot score such label maps, to follow its name; None where it can.

        Args:
            axes: what the array axes are, in order.
            networks: whose label maps there are of each case.
        """
        if (self.resize_to or self.resize_by) is not None and sorted(axes) != ["x", "y", "z"]:
            return f"resizes 3-D maps, not axes '{axes}'"
        if "intersection" in self.postprocess:
            return None if networks > 1 else "intersects the label maps of several networks, and was given one"
        return None if networks == 1 else f"scores one label map, and was given {networks}"

    def score(
        self,
        prediction: NDArray[Any] | Sequence[NDArray[Any]],
        reference: ArrayLike,
        classes: Sequence[str],
        spacing: Sequence[float],
        axes: str = "xyz",
        device: str | None = None,
    ) -> list[dict[str, Any]]:
        """Measure one case.

        Args:
            prediction, reference: integer label maps of one shape (2-D or 3-D) on the grid that `takes` says, 0
                background. An axis of one voxel does not count: an image is 2-D, however it is stored. With
                `postprocess` `intersection`, `prediction` is a list of such maps, one per network.
            classes: names of the foreground classes 1, 2, ...
            spacing: mm per array axis.
            axes: what the three array axes are, in order; only a protocol that resizes asks.
            device: to measure surface distances on, as for `surface_distances`.

        Returns:
            One row per class × metric, classes in order, metrics in order within a class: `class_id`,
            `class`, `metric`, `value` (overlaps 0-1; nan: excluded), `unit` (`fraction`, `mm`, `voxel`, `mm2` or
            `mm3`), `state` (`both`; `missed`: only in the reference; `spurious`: only in the prediction; `absent`:
            in neither), `ref_voxels` and `pred_voxels` (on the measured grid).

        Raises:
            ValueError: shapes differ, a map is not integer or has labels beyond the classes, the spacing
                does not fit, or the protocol is not made for such maps (`objection`).
        """
        return self.rows(self.measured(prediction, reference, len(classes) + 1, spacing, axes, device), classes)

    @property
    def needs_surfaces(self) -> bool:
        """True where any of its metrics is read off surface distances."""
        return any(_needs_surfaces(metric) for metric in self.metrics)

    @property
    def measurement(self) -> tuple[Any, ...]:
        """The facts that `measured` depends on: protocols that agree in them and in their grid can share a case."""
        return self.unit, self.resize_to, self.resize_by, self.postprocess

    def measured(
        self,
        prediction: NDArray[Any] | Sequence[NDArray[Any]],
        reference: ArrayLike,
        num_classes: int,
        spacing: Sequence[float],
        axes: str = "xyz",
        device: str | None = None,
        surfaces: bool = False,
    ) -> CaseMeasurement:
        """Counts and distances of one case, before the rules for empty masks.

        Args:
            prediction, reference, spacing, axes, device: as for `score`.
            num_classes: C.
            surfaces: measure surfaces even if no metric of this protocol needs them.

        Raises:
            ValueError: as for `score`.
        """
        maps = list(prediction) if isinstance(prediction, (list, tuple)) else [prediction]
        if objection := self.objection(axes, len(maps)):
            raise ValueError(f"protocol {self.name} {objection}")
        pred, ref = check_pair(maps[0], reference, num_classes, ("prediction", "reference"))
        if "intersection" in self.postprocess:
            pred = intersection([check_pair(one, ref, num_classes, ("prediction", "reference"))[0] for one in maps])
        if "largest-component" in self.postprocess:
            pred = largest_component(pred, num_classes)
        sizes = check_spacing(spacing, pred.ndim)
        shape = self._measured_shape(pred.shape, axes)
        if shape != pred.shape:
            sizes = sizes * pred.shape / shape
            pred, ref = resize_nearest(pred, shape), resize_nearest(ref, shape)
        if self.unit == "voxel":
            sizes = np.ones(pred.ndim)
        thick = [axis for axis in range(pred.ndim) if pred.shape[axis] > 1] or [0]
        if len(thick) < pred.ndim:
            flat = tuple(slice(None) if axis in thick else 0 for axis in range(pred.ndim))
            pred, ref, sizes = pred[flat], ref[flat], sizes[thick]
        return compare(pred, ref, num_classes, sizes, surfaces or self.needs_surfaces, device)

    def rows(self, case: CaseMeasurement, classes: Sequence[str]) -> list[dict[str, Any]]:
        """Make the rows of `score` for a case that was `measured` by this protocol or one of the same `measurement`.

        Args:
            case: with surface distances, if the protocol needs them.
            classes: names of the foreground classes 1, 2, ...
        """
        policy = self.policy
        if policy.blank is not None and not case.pred_voxels[1:].any():
            policy = policy.blank
        names = [BACKGROUND, *map(str, classes)]
        return [
            {
                "class_id": k,
                "class": names[k],
                "metric": metric,
                "value": self._value(case, k, metric, policy),
                "unit": self._unit(metric, case.dims),
                "state": case.states[k],
                "ref_voxels": int(case.ref_voxels[k]),
                "pred_voxels": int(case.pred_voxels[k]),
            }
            for k in range(0 if self.background else 1, len(names))
            for metric in self.metrics
        ]

    def _measured_shape(self, shape: tuple[int, ...], axes: str) -> tuple[int, ...]:
        if (self.resize_to or self.resize_by) and len(shape) != 3:
            raise ValueError(f"protocol {self.name} resizes 3-D maps, not those of shape {shape}")
        if self.resize_to is not None:
            return tuple(self.resize_to["xyz".index(axis)] for axis in axes)
        if self.resize_by is not None:
            factors = [self.resize_by["xyz".index(axis)] for axis in axes]
            return tuple(max(1, int(side * by)) for side, by in zip(shape, factors, strict=True))
        return shape

    def _value(self, case: CaseMeasurement, k: int, metric: str, policy: EmptyPolicy) -> float:
        state = case.states[k]
        if metric in VOLUMES:
            gone = state == "absent" and policy.absent_overlap == "exclude"
            return float("nan") if gone else case.volume(k, metric)
        if metric in OVERLAPS and (state == "both" or self.smooth):
            return case.overlap(k, metric, self.smooth)
        if state != "both":
            return policy.value(state, metric in DISTANCES, case.diagonal)
        value = measure(metric)(case.distances[k])
        return min(value, policy.cap) if metric in DISTANCES else value

    def _unit(self, metric: str, dims: int) -> str:
        if metric in DISTANCES:
            return self.unit
        if metric == "avd":
            return f"mm{dims}" if self.unit == "mm" else "voxel"
        return "fraction"

    # ------------------------------------------------------------------------------------------------------- means

    def aggregate(self, records: pd.DataFrame) -> pd.DataFrame:
        """The numbers of one run: per class the mean over cases, and the mean over classes of these.

        Excluded values (nan) leave the mean and are counted. A class excluded in every case has value nan and
        leaves the average, whose `cases` are the cases that entered it with any class.

        Args:
            records: the rows of `score` of one run, with a column `case`; at least `case`, `class_id`,
                `class`, `metric`, `value`, `state`. Metrics that are not the protocol's are passed over.

        Returns:
            Rows in the order of metrics and class ids, a row of class `avg` closing each metric. Columns:
            `metric`, `class`, `value` (in the stored unit), `cases` (that entered the mean), `missed`,
            `spurious`, `absent` (counts; sums over classes in the row `avg`). With `spread="cases"` also
            `sd`, the ± over cases; the ± over seeds is `spread_of` the runs' values.

        Raises:
            ValueError: a column is missing; a case has a class and metric twice (rows of several runs?) or
                lacks one; a class id has two names; a class present in both maps has no finite value.
        """
        return aggregate(self, records)

    def averages(self, records: CaseTable) -> dict[str, float]:
        """The numbers of the rows `avg` of `aggregate` by metric, in the stored unit, without those that are nan.

        Args:
            records: of one run, whole.
        """
        return averages(self, records)

    def spread_of(self, values: ArrayLike) -> float:
        """The ± of some values (the averages of several runs, say): their standard deviation with `ddof`.

        Returns:
            nan if there are no more values than `ddof`: one seed has no sample standard deviation.
        """
        array = np.asarray(values, dtype=np.float64)
        return float(array.std(ddof=self.ddof)) if array.size > self.ddof else float("nan")

    # ------------------------------------------------------------------------------------------------------- words

    def caption(self, converted: bool = False) -> str:
        """Say what a reader must know to compare the numbers: unit, definitions, empty masks, averaging and ±.

        Args:
            converted: whether the predictions were on another grid than the paper's (`converts`).
        """
        return caption(self, converted)


def resize_nearest(labels: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Resize to `shape` along each axis as `floor_positions` says: PyTorch's `nearest`, not `nearest-exact`.

    Raises:
        ValueError: another number of axes, or an empty one.
    """
    if labels.ndim != len(shape) or min(*labels.shape, *shape) < 1:
        raise ValueError(f"cannot resize shape {labels.shape} to {tuple(shape)}")
    return labels[np.ix_(*(floor_positions(*sizes) for sizes in zip(labels.shape, shape, strict=True)))]


def _needs_surfaces(metric: str) -> bool:
    return metric not in OVERLAPS and metric not in VOLUMES
