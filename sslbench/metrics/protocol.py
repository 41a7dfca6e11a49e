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

Rule = float | Literal["exclude", "diagonal"]
EvaluationGrid = Literal["original", "preprocessed"]
Records = list[dict[str, Any]]  # rows of cases, as `Protocol.score` gives them

AVERAGE = "avg"
BACKGROUND = "background"
_COUNTED: tuple[ClassState, ...] = ("missed", "spurious", "absent")

_MEANINGS = {
    "dsc": "DSC is 2|P∩G|/(|P|+|G|)",
    "jaccard": "Jaccard is |P∩G|/|P∪G|",
    "asd": "ASD is one-way, from the predicted surface to the reference surface",
    "assd": "ASSD is the mean of the pooled distances of both directions",
    "hd95": "HD95 is the 95th percentile of the pooled distances of both directions",
    "hd95max": "HD95 is the larger of the two directed 95th percentiles",
    "rvd": "RVD is (|P|-|G|)/|G|, signed, and left out where the reference is empty",
}


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

    def describe(self, distances: bool) -> str:
        """The policy in words, for captions; `distances`: whether the protocol has any distance."""
        words = {"exclude": "excluded", "diagonal": "the image diagonal"}

        def say(rule: Rule) -> str:
            return words[rule] if isinstance(rule, str) else f"{rule:g}"

        if self.absent_overlap == "exclude" and (self.absent_distance == "exclude" or not distances):
            absent = "a class absent from both maps is left out and counted"
        else:
            absent = f"a class absent from both maps scores overlap {say(self.absent_overlap)}"
            absent += f" and distance {say(self.absent_distance)}" if distances else ""
        if not distances:
            return f"{absent}, a missed or spurious one scores overlap 0"
        missed, spurious = say(self.missed_distance), say(self.spurious_distance)
        limit = f", no distance counts more than {self.cap:g}" if self.cap < math.inf else ""
        if missed == spurious:
            return f"{absent}, a missed or spurious one scores overlap 0 and distance {missed}{limit}"
        return f"{absent}, a missed one scores overlap 0 and distance {missed}, a spurious one 0 and {spurious}{limit}"


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
        import pandas as pd

        block = _Block.of(records, self.metrics, self.skip_cases)
        table: dict[str, list[Any]] = {name: [] for name in ("metric", "class", "value", "cases", *_COUNTED, "sd")}

        def add(metric: str, name: str, value: float, cases: int, states: NDArray[Any], sd: float) -> None:
            counts = [int(np.count_nonzero(states == state)) for state in _COUNTED]
            for column, cell in zip(table, (metric, name, value, cases, *counts, sd), strict=True):
                table[column].append(cell)

        for metric, values, states in zip(block.metrics, block.values, block.states, strict=True):
            entered = [of_class[~np.isnan(of_class)] for of_class in values]
            means = [float(kept.mean()) if kept.size else float("nan") for kept in entered]
            sds = [self.spread_of(kept) for kept in entered]
            for name, mean, kept, of_class, sd in zip(block.classes, means, entered, states, sds, strict=True):
                add(metric, name, mean, int(kept.size), of_class, sd)
            cases = int(np.count_nonzero((~np.isnan(values)).any(axis=0)))
            add(metric, AVERAGE, _mean_of_defined(means), cases, states, _mean_of_defined(sds))
        if self.spread != "cases":
            del table["sd"]
        return pd.DataFrame(table)

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
        distances = any(metric in DISTANCES for metric in self.metrics)
        where = "on the original grid" if self.grid == "original" or converted else "on the preprocessed grid"
        if self.spacing_mm is not None and not converted:
            where += " of " + "×".join(f"{size:g}" for size in self.spacing_mm) + " mm"
        if converted:
            where += " (converted: the predictions were made on another grid than the paper's)"
        if self.resize_to is not None:
            where += ", both label maps resized to " + "×".join(map(str, self.resize_to)) + " by nearest neighbour"
        if self.resize_by is not None:
            factors = "×".join(f"{by:g}" for by in self.resize_by)
            where += f", the sides of both label maps multiplied by {factors}, nearest neighbour"
        if distances:
            where += ", distances in " + ("mm" if self.unit == "mm" else "voxels (unit spacing along every axis)")
        steps = {
            "intersection": "the intersection of the networks' label maps",
            "largest-component": "the largest component of every class, 26-connected",
        }
        if self.postprocess:
            where += ", of the prediction only " + " and of that ".join(steps[step] for step in self.postprocess)
        meanings = [self._meaning(metric) for metric in self.metrics]
        if self.background:
            meanings.append("the background is a class")
        if self.smooth:
            meanings.append(f"{self.smooth:g} is added above and below")
        empty = self.policy.describe(distances) if not self.smooth else "two empty masks score overlap 1"
        if self.policy.blank is not None:
            empty += "; where the whole prediction is background, " + self.policy.blank.describe(distances)
        kind = "sample" if self.ddof else "population"
        over = "over seeds" if self.spread == "seeds" else "over cases, per class and then averaged over classes"
        first = f" without the first {self.skip_cases} of a run" if self.skip_cases else ""
        slips = f" Kept from the released evaluator: {'; '.join(self.slips)}." if self.slips else ""
        return (
            f"Protocol {self.name} (version {self.version}): measured {where}; {'; '.join(meanings)}; {empty}. "
            f"Means are over cases{first}, then over classes; ± is the {kind} standard deviation (ddof {self.ddof}) "
            f"{over}.{slips}"
        )

    def _meaning(self, metric: str) -> str:
        if metric in _MEANINGS:
            return _MEANINGS[metric]
        if metric == "avd":
            return (
                f"AVD is the absolute difference of the volumes, in {'mm³ or mm²' if self.unit == 'mm' else 'voxels'}"
            )
        return f"NSD is the share of both surfaces within {metric.removeprefix('nsd@')} {self.unit} of the other"


def resize_nearest(labels: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Resize to `shape` along each axis as `floor_positions` says: PyTorch's `nearest`, not `nearest-exact`.

    Raises:
        ValueError: another number of axes, or an empty one.
    """
    if labels.ndim != len(shape) or min(*labels.shape, *shape) < 1:
        raise ValueError(f"cannot resize shape {labels.shape} to {tuple(shape)}")
    return labels[np.ix_(*(floor_positions(*sizes) for sizes in zip(labels.shape, shape, strict=True)))]


@dataclass(frozen=True, eq=False)
class _Block:
    """The records of a run, complete: metrics × classes × cases.

    Attributes:
        metrics, classes: of the first and second axis; classes in the order of their ids.
        values: float64, nan where excluded.
        states: strings.
    """

    metrics: tuple[str, ...]
    classes: tuple[str, ...]
    values: NDArray[np.float64]
    states: NDArray[np.object_]

    @classmethod
    def of(cls, records: pd.DataFrame, metrics: tuple[str, ...], skip: int) -> _Block:
        """The rows that have one of `metrics`, without the first `skip` cases.

        Raises:
            ValueError: as for `Protocol.aggregate`.
        """
        import pandas as pd

        needed = ("case", "class_id", "class", "metric", "value", "state")
        if missing := [name for name in needed if name not in records.columns]:
            raise ValueError(f"the records lack the columns {', '.join(missing)}")
        ours = records.loc[records["metric"].isin(metrics), list(needed)]
        values = ours["value"].to_numpy(dtype=np.float64, na_value=np.nan)
        states = ours["state"].to_numpy(dtype=object)
        of_metric, found = pd.factorize(ours["metric"])
        of_class, ids = pd.factorize(ours["class_id"], sort=True)
        of_case, cases = pd.factorize(ours["case"])

        of_name, names = pd.factorize(ours["class"])
        name_of = np.zeros(len(ids), dtype=np.int64)
        name_of[of_class] = of_name
        if AVERAGE in names or (name_of[of_class] != of_name).any():
            raise ValueError(f"a class id has several names, or a class is called '{AVERAGE}'")
        classes = tuple(str(name) for name in np.asarray(names, dtype=object)[name_of])

        present = tuple(metric for metric in metrics if metric in set(found))
        shape = (len(present), len(ids), len(cases))
        rank = np.array([present.index(metric) for metric in found], dtype=np.int64)
        place = (rank[of_metric] * shape[1] + of_class) * shape[2] + of_case
        counts = np.bincount(place, minlength=math.prod(shape))

        def words(row: int) -> str:
            one = ours.iloc[row]
            return f"{one['metric']} of class {one['class']}"

        if (counts > 1).any():
            row = int(np.flatnonzero(counts[place] > 1)[0])
            raise ValueError(f"case {ours['case'].iloc[row]} has {words(row)} twice: rows of several runs?")
        if (counts < 1).any():
            m, k, _ = np.unravel_index(np.flatnonzero(counts < 1)[0], shape)
            raise ValueError(f"a case has no row for {present[m]} of class {classes[k]}")
        wrong = np.isinf(values) | (np.isnan(values) & (states == "both"))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise ValueError(f"case {ours['case'].iloc[row]}: {words(row)} has no finite value")

        order = np.argsort(place)
        return cls(present, classes, values[order].reshape(shape)[..., skip:], states[order].reshape(shape)[..., skip:])


def _needs_surfaces(metric: str) -> bool:
    return metric not in OVERLAPS and metric not in VOLUMES


def _mean_of_defined(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
