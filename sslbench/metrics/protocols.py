"""Protocols: how label maps become numbers.

Two tables are comparable only if they agree on the grid that was measured on, the unit, the definition of
each metric, what an empty mask scores, the order of averaging and what ± means. A `Protocol` owns all of
these, is a plain value, and says them in its caption. A paper's protocol follows the paper's rule, `native`
ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sslbench.metrics.overlap import Labels, check_labels, count_pairs, dice_of_classes, jaccard_of_classes
from sslbench.metrics.surface import (
    Box,
    SurfaceDistances,
    check_spacing,
    class_boxes,
    cropped_distances,
    union_box,
)
from sslbench.registry import register

if TYPE_CHECKING:
    import pandas as pd

State = Literal["both", "missed", "spurious", "absent"]
Rule = float | Literal["exclude", "diagonal"]

AVERAGE = "avg"
_COUNTED: tuple[State, ...] = ("missed", "spurious", "absent")

_OVERLAPS = {"dsc": dice_of_classes, "jaccard": jaccard_of_classes}
_DISTANCES: dict[str, Callable[[SurfaceDistances], float]] = {
    "asd": SurfaceDistances.asd,
    "assd": SurfaceDistances.assd,
    "hd95": SurfaceDistances.hd95,
    "hd95max": lambda distances: distances.hd95("max"),
}
_MEANINGS = {
    "dsc": "DSC is 2|P∩G|/(|P|+|G|)",
    "jaccard": "Jaccard is |P∩G|/|P∪G|",
    "asd": "ASD is one-way, from the predicted surface to the reference surface",
    "assd": "ASSD is the mean of the pooled distances of both directions",
    "hd95": "HD95 is the 95th percentile of the pooled distances of both directions",
    "hd95max": "HD95 is the larger of the two directed 95th percentiles",
}


@dataclass(frozen=True)
class EmptyPolicy:
    """What a class scores in a case where one of its masks is empty, or both are.

    A rule is a number, `exclude` (nan: the case does not enter the mean) or, for distances, `diagonal` (the
    length of the measured image's diagonal in the protocol's unit, which no distance in it exceeds).

    Attributes:
        absent_overlap: DSC, Jaccard and NSD where the class is in neither map; 0..1 or `exclude`.
        absent_distance: distances there.
        missed_distance: distances where the reference has the class and the prediction does not. Overlaps are
            0.
        spurious_distance: distances where the prediction has the class and the reference does not. Overlaps
            are 0.
        blank: the policy that applies instead, to all classes, if the whole prediction is background; None:
            this one.
    """

    absent_overlap: float | Literal["exclude"] = "exclude"
    absent_distance: Rule = "exclude"
    missed_distance: Rule = "diagonal"
    spurious_distance: Rule = "diagonal"
    blank: EmptyPolicy | None = None

    def __post_init__(self) -> None:
        for name in ("absent_overlap", "absent_distance", "missed_distance", "spurious_distance"):
            rule = getattr(self, name)
            words = ("exclude",) if name == "absent_overlap" else ("exclude", "diagonal")
            if rule not in words and not (isinstance(rule, (int, float)) and math.isfinite(rule) and rule >= 0):
                raise ValueError(f"{name} is {rule!r}, expected {' or '.join(words)} or a number ≥ 0")
        if not isinstance(self.absent_overlap, str) and self.absent_overlap > 1:
            raise ValueError(f"absent_overlap is {self.absent_overlap}: overlaps are fractions, at most 1")

    def value(self, state: State, is_distance: bool, diagonal: float) -> float:
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
        if missed == spurious:
            return f"{absent}, a missed or spurious one scores overlap 0 and distance {missed}"
        return f"{absent}, a missed one scores overlap 0 and distance {missed}, a spurious one 0 and {spurious}"


@dataclass(frozen=True)
class Protocol:
    """A named, versioned way from label maps to the numbers of a table.

    Attributes:
        name: the registered name, printed with every table.
        version: raised whenever a number could change; part of a job's identity.
        description: one sentence: who measures so, with the source.
        grid: where prediction and reference are compared: the official scan's grid (`original`; predictions
            are brought back to it first) or the one networks see (`preprocessed`). The caller hands over maps
            on that grid.
        unit: of distances: `mm` by the case's spacing, or `voxel`, where a step along any axis counts 1.
        metrics: of `dsc`, `jaccard`, `asd`, `assd`, `hd95` (pooled), `hd95max` and `nsd@τ` (τ in `unit`).
        policy: what empty masks score.
        ddof: of the ± : 0 population, 1 sample standard deviation.
        spread: what ± is taken over: the runs of several seeds, or the cases of one run (per class, then
            averaged over classes, as MetaSSL prints it).
        resize: the grid (x, y, z) that both maps are first resized to by `resize_nearest`, or None.
    """

    name: str
    version: int
    description: str
    grid: Literal["original", "preprocessed"]
    unit: Literal["mm", "voxel"]
    metrics: tuple[str, ...]
    policy: EmptyPolicy
    ddof: int
    spread: Literal["seeds", "cases"] = "seeds"
    resize: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if not self.metrics or len(set(self.metrics)) != len(self.metrics):
            raise ValueError(f"protocol {self.name}: metrics must be given, each once: {self.metrics}")
        for metric in self.metrics:
            if metric not in _OVERLAPS:
                _measure(metric)
        choices = {
            "grid": ("original", "preprocessed"),
            "unit": ("mm", "voxel"),
            "spread": ("seeds", "cases"),
        }
        for field, allowed in choices.items():
            if getattr(self, field) not in allowed:
                raise ValueError(f"protocol {self.name}: {field} is {getattr(self, field)!r}, not one of {allowed}")
        if self.ddof not in (0, 1):
            raise ValueError(f"protocol {self.name}: ddof is {self.ddof}, expected 0 or 1")

    def score(
        self,
        prediction: ArrayLike,
        reference: ArrayLike,
        classes: Sequence[str],
        spacing: Sequence[float],
        axes: str = "xyz",
    ) -> list[dict[str, Any]]:
        """Measure one case.

        Args:
            prediction, reference: integer label maps of one shape (2-D or 3-D) on the protocol's grid, 0
                background.
            classes: names of the foreground classes 1, 2, ...
            spacing: mm per array axis.
            axes: what the three array axes are, in order; only a protocol with `resize` asks.

        Returns:
            One row per class × metric, classes in order, metrics in order within a class: `class_id`,
            `class`, `metric`, `value` (overlaps 0–1; nan: excluded), `unit` (`fraction`, `mm` or `voxel`),
            `state` (`both`; `missed`: only in the reference; `spurious`: only in the prediction; `absent`: in
            neither), `ref_voxels` and `pred_voxels` (on the measured grid).

        Raises:
            ValueError: shapes differ, a map is not integer or has labels beyond the classes, or the spacing
                does not fit.
        """
        num_classes = len(classes) + 1
        pred = check_labels(prediction, num_classes, "prediction")
        ref = check_labels(reference, num_classes, "reference")
        _same_shape(pred, ref)
        sizes = check_spacing(spacing, pred.ndim)
        if self.resize is not None:
            if pred.ndim != 3 or sorted(axes) != ["x", "y", "z"]:
                raise ValueError(f"protocol {self.name} resizes 3-D maps, not axes '{axes}' of shape {pred.shape}")
            shape = [self.resize["xyz".index(axis)] for axis in axes]
            sizes = sizes * pred.shape / shape
            pred, ref = resize_nearest(pred, shape), resize_nearest(ref, shape)
        if self.unit == "voxel":
            sizes = np.ones(pred.ndim)
        case = _compare(pred, ref, num_classes, sizes, any(metric not in _OVERLAPS for metric in self.metrics))
        policy = self.policy
        if policy.blank is not None and not case.pred_voxels[1:].any():
            policy = policy.blank
        return [
            {
                "class_id": k,
                "class": str(classes[k - 1]),
                "metric": metric,
                "value": case.value(k, metric, policy),
                "unit": self.unit if _is_distance(metric) else "fraction",
                "state": case.states[k],
                "ref_voxels": int(case.ref_voxels[k]),
                "pred_voxels": int(case.pred_voxels[k]),
            }
            for k in range(1, num_classes)
            for metric in self.metrics
        ]

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

        needed = ("case", "class_id", "class", "metric", "value", "state")
        if missing := [name for name in needed if name not in records.columns]:
            raise ValueError(f"the records lack the columns {', '.join(missing)}")
        records = records[records["metric"].isin(self.metrics)]
        _check_complete(records)
        rows: list[dict[str, Any]] = []
        for metric in self.metrics:
            per_class: list[dict[str, Any]] = []
            of_metric = records[records["metric"] == metric]
            for (_, name), group in of_metric.groupby(["class_id", "class"], sort=True):
                values = group["value"].to_numpy(dtype=np.float64, na_value=np.nan)
                entered = values[~np.isnan(values)]
                per_class.append(
                    {
                        "metric": metric,
                        "class": name,
                        "value": float(entered.mean()) if entered.size else float("nan"),
                        "cases": int(entered.size),
                        **_count(group["state"]),
                        "sd": self.spread_of(entered),
                    }
                )
            if per_class:
                rows += per_class
                rows.append(
                    {
                        "metric": metric,
                        "class": AVERAGE,
                        "value": _mean_of_defined([row["value"] for row in per_class]),
                        "cases": int(of_metric.loc[of_metric["value"].notna(), "case"].nunique()),
                        **_count(of_metric["state"]),
                        "sd": _mean_of_defined([row["sd"] for row in per_class]),
                    }
                )
        columns = ["metric", "class", "value", "cases", *_COUNTED]
        return pd.DataFrame(rows, columns=[*columns, "sd"] if self.spread == "cases" else columns)

    def spread_of(self, values: ArrayLike) -> float:
        """The ± of some values (the averages of several runs, say): their standard deviation with `ddof`.

        Returns:
            nan if there are no more values than `ddof`: one seed has no sample standard deviation.
        """
        array = np.asarray(values, dtype=np.float64)
        return float(array.std(ddof=self.ddof)) if array.size > self.ddof else float("nan")

    def caption(self) -> str:
        """What a reader must know to compare the numbers: unit, definitions, empty masks, averaging and ±."""
        distances = any(_is_distance(metric) for metric in self.metrics)
        where = f"on the {self.grid} grid"
        if self.resize is not None:
            where += ", both label maps resized to " + "×".join(map(str, self.resize)) + " by nearest neighbour"
        if distances:
            where += ", distances in " + ("mm" if self.unit == "mm" else "voxels (unit spacing along every axis)")
        meanings = "; ".join(_meaning(metric, self.unit) for metric in self.metrics)
        empty = self.policy.describe(distances)
        if self.policy.blank is not None:
            empty += "; where the whole prediction is background, " + self.policy.blank.describe(distances)
        kind = "sample" if self.ddof else "population"
        over = "over seeds" if self.spread == "seeds" else "over cases, per class and then averaged over classes"
        return (
            f"Protocol {self.name} (version {self.version}): measured {where}; {meanings}; {empty}. "
            f"Means are over cases, then over classes; ± is the {kind} standard deviation (ddof {self.ddof}) "
            f"{over}."
        )


def resize_nearest(labels: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Resize to `shape`: voxel floor(i·in/out) along each axis (PyTorch's `nearest`, not `nearest-exact`).

    The scale in/out and the product are rounded to float32, as PyTorch does: where i·in/out is an integer,
    that can land one voxel below it (in 84, out 80, i 20), and papers measured that.

    Raises:
        ValueError: another number of axes, or an empty one.
    """
    if labels.ndim != len(shape) or min(*labels.shape, *shape) < 1:
        raise ValueError(f"cannot resize shape {labels.shape} to {tuple(shape)}")
    picks = []
    for size, wanted in zip(labels.shape, shape, strict=True):
        source = np.floor(np.arange(wanted, dtype=np.float32) * (np.float32(size) / np.float32(wanted)))
        picks.append(np.minimum(source.astype(np.int64), size - 1))
    return labels[np.ix_(*picks)]


def evaluate_case(
    pred: ArrayLike,
    gt: ArrayLike,
    num_classes: int,
    spacing: float | Sequence[float] | None = None,
    empty_distance: float = 128.0,
) -> dict[str, NDArray[np.float64]]:
    """All metrics of one case under the clean `ga` rules (GA, ECCV 2024, without the slips of its script).

    A class in neither map scores overlap 1 and distance 0; one in exactly one map overlap 0 and
    `empty_distance`. The same holds if the whole prediction is background.

    Args:
        pred, gt: integer label maps of one shape, values 0..C-1.
        num_classes: C, background included.
        spacing: voxel size per axis, or one number; None: 1 (voxels).
        empty_distance: 128 is GA's constant, not the diagonal of anything.

    Returns:
        `dice`, `jaccard`, `asd`, `assd`, `hd95`: float64 (C-1,) each, for the classes 1..C-1.

    Raises:
        ValueError: shapes differ, a map is not integer or has other labels, or the spacing does not fit.
    """
    p, g = check_labels(pred, num_classes, "pred"), check_labels(gt, num_classes, "gt")
    _same_shape(p, g)
    case = _compare(p, g, num_classes, check_spacing(spacing, p.ndim), True)
    policy = replace(_GA_POLICY, missed_distance=empty_distance, spurious_distance=empty_distance)
    names = {"dice": "dsc", "jaccard": "jaccard", "asd": "asd", "assd": "assd", "hd95": "hd95"}
    return {
        name: np.array([case.value(k, metric, policy) for k in range(1, num_classes)], dtype=np.float64)
        for name, metric in names.items()
    }


@dataclass(frozen=True, eq=False)
class _Case:
    """What all metrics of a case are read off; everything is indexed by class id, 0 (background) unused.

    Attributes:
        overlaps: per metric (C,), nan where a class is absent.
        ref_voxels, pred_voxels: (C,) int64.
        states: per class.
        distances: of the classes in state `both`, if asked for.
        diagonal: of the image, in the unit of the distances.
    """

    overlaps: dict[str, NDArray[np.float64]]
    ref_voxels: NDArray[np.int64]
    pred_voxels: NDArray[np.int64]
    states: tuple[State, ...]
    distances: dict[int, SurfaceDistances]
    diagonal: float

    def value(self, k: int, metric: str, policy: EmptyPolicy) -> float:
        if self.states[k] != "both":
            return policy.value(self.states[k], _is_distance(metric), self.diagonal)
        if metric in _OVERLAPS:
            return float(self.overlaps[metric][k])
        return _measure(metric)(self.distances[k])


def _compare(pred: Labels, ref: Labels, num_classes: int, spacing: NDArray[np.float64], distances: bool) -> _Case:
    """One pass for boxes, one for voxel counts, then distances class by class inside small crops."""
    # Of the whole image with its outermost voxels: longer than any distance between voxel centres.
    diagonal = float(np.linalg.norm(spacing * pred.shape))
    if pred.flags.f_contiguous and ref.flags.f_contiguous:
        # NIfTI readers hand out arrays in column order; turned over they are read in the order of memory.
        pred, ref, spacing = pred.T, ref.T, spacing[::-1]
    pred_boxes = class_boxes(pred, num_classes - 1)
    ref_boxes = class_boxes(ref, num_classes - 1)

    # Counted where any class is: background voxels outside are missing, and nothing asks for them.
    matrix = np.zeros((num_classes, num_classes), dtype=np.int64)
    occupied = _union([*pred_boxes, *ref_boxes])
    if occupied is not None:
        matrix += count_pairs(pred[occupied], ref[occupied], num_classes)

    states: list[State] = ["both"]
    found: dict[int, SurfaceDistances] = {}
    for k, (in_pred, in_ref) in enumerate(zip(pred_boxes, ref_boxes, strict=True), start=1):
        if in_pred is None or in_ref is None:
            states.append("missed" if in_ref is not None else "spurious" if in_pred is not None else "absent")
            continue
        states.append("both")
        if distances:
            box = union_box(in_pred, in_ref)
            found[k] = cropped_distances(pred[box] == k, ref[box] == k, spacing)
    return _Case(
        overlaps={name: of_classes(matrix) for name, of_classes in _OVERLAPS.items()},
        ref_voxels=matrix.sum(axis=0),
        pred_voxels=matrix.sum(axis=1),
        states=tuple(states),
        distances=found,
        diagonal=diagonal,
    )


def _union(boxes: Sequence[Box | None]) -> Box | None:
    union: Box | None = None
    for box in boxes:
        if box is not None:
            union = box if union is None else union_box(union, box)
    return union


def _same_shape(pred: Labels, ref: Labels) -> None:
    if pred.shape != ref.shape:
        raise ValueError(f"prediction has shape {pred.shape}, reference {ref.shape}")


def _measure(metric: str) -> Callable[[SurfaceDistances], float]:
    """How a metric that needs the surfaces is read off their distances; an error if there is none such."""
    if metric in _DISTANCES:
        return _DISTANCES[metric]
    if metric.startswith("nsd@"):
        try:
            tau = float(metric.removeprefix("nsd@"))
        except ValueError:
            tau = -1.0
        if math.isfinite(tau) and tau >= 0:
            return lambda distances: distances.nsd(tau)
    known = ", ".join([*_MEANINGS, "nsd@2"])
    raise ValueError(f"unknown metric '{metric}'; known: {known} (any tolerance)")


def _is_distance(metric: str) -> bool:
    return metric in _DISTANCES


def _meaning(metric: str, unit: str) -> str:
    if metric in _MEANINGS:
        return _MEANINGS[metric]
    tau = f"{metric.removeprefix('nsd@')} {unit}"
    return f"NSD is the share of both surfaces within {tau} of the other"


def _count(states: pd.Series[str]) -> dict[str, int]:
    return {state: int((states == state).sum()) for state in _COUNTED}


def _mean_of_defined(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def _check_complete(records: pd.DataFrame) -> None:
    """Every case has every class and metric once, and a class that is in both maps has a value."""
    twice = records.duplicated(["case", "class_id", "metric"])
    if twice.any():
        row = records[twice].iloc[0]
        raise ValueError(f"case {row['case']} has {row['metric']} of class {row['class']} twice: rows of several runs?")
    names = records.groupby("class_id")["class"].nunique()
    if (names > 1).any() or AVERAGE in set(records["class"]):
        raise ValueError(f"a class id has several names, or a class is called '{AVERAGE}'")
    counts = records.groupby(["metric", "class"])["case"].nunique().reset_index()
    short = counts[counts["case"] < records["case"].nunique()]
    if len(short):
        row = short.iloc[0]
        raise ValueError(f"a case has no row for {row['metric']} of class {row['class']}")
    values = records["value"].to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = np.isinf(values) | (np.isnan(values) & (records["state"] == "both").to_numpy())
    if wrong.any():
        row = records[wrong].iloc[0]
        raise ValueError(f"case {row['case']}: {row['metric']} of class {row['class']} has no finite value")


_GA_POLICY = EmptyPolicy(absent_overlap=1.0, absent_distance=0.0, missed_distance=128.0, spurious_distance=128.0)

NATIVE = register("protocol", "native")(
    Protocol(
        name="native",
        version=1,
        description="sslbench's own: the scan's grid, in mm; a missed organ never improves a score.",
        grid="original",
        unit="mm",
        metrics=("dsc", "jaccard", "asd", "hd95"),
        policy=EmptyPolicy(),
        ddof=1,
    )
)

NATIVE_VOXEL = register("protocol", "native-voxel")(
    replace(
        NATIVE,
        name="native-voxel",
        description="As native, with distances in pixels: for images whose files do not say how large one is.",
        unit="voxel",
    )
)

SSL4MIS = register("protocol", "ssl4mis")(
    Protocol(
        name="ssl4mis",
        version=1,
        description=(
            "SSL4MIS's public ACDC test: the stored volume, a step between slices counting 1 like any other. That "
            "code stops at an empty mask; here it scores the image diagonal."
        ),
        grid="original",
        unit="voxel",
        metrics=("dsc", "jaccard", "asd", "hd95"),
        policy=EmptyPolicy(),
        ddof=0,
    )
)

LA_UAMT = register("protocol", "la-uamt")(
    Protocol(
        name="la-uamt",
        version=1,
        description=(
            "UA-MT's public LA test: distances in voxels (0.625 mm; MetaSSL calls such numbers mm), no largest "
            "component. That code scores an empty prediction 0 everywhere, distances too; here it scores the image "
            "diagonal."
        ),
        grid="original",
        unit="voxel",
        metrics=("dsc", "jaccard", "hd95", "asd"),
        policy=EmptyPolicy(),
        ddof=0,
    )
)

GA = register("protocol", "ga")(
    Protocol(
        name="ga",
        version=1,
        description=(
            "GA (ECCV 2024) and SCDL: both label maps resized to 160×160×80, voxels of that grid; without "
            "the two slips of the released script."
        ),
        grid="preprocessed",
        unit="voxel",
        metrics=("dsc", "asd"),
        policy=_GA_POLICY,
        ddof=0,
        resize=(160, 160, 80),
    )
)
