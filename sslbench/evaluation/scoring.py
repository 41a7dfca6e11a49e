"""Predictions under protocols: every case of a subject in a process pool, and the records that come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sslbench.core.errors import DataError
from sslbench.core.parallel import each
from sslbench.data.base import Preprocessing
from sslbench.evaluation.pairs import GridPolicy, Maps, Pair, class_ids, load_pair
from sslbench.evaluation.subjects import PredictionSet
from sslbench.metrics.protocol import Protocol, Records

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Scores:
    """What a subject scores.

    Attributes:
        subject: whose predictions.
        records: per protocol, the rows of its cases in their order, as `cases.csv` has them.
        refused: the protocols that cannot apply, and why.
        failed: the cases that are in no record although they should be, and why.
    """

    subject: PredictionSet
    records: Mapping[str, Records]
    refused: Mapping[str, str]
    failed: Mapping[str, str]

    @property
    def complete(self) -> bool:
        """Whether every case that should be scored was."""
        return not self.failed

    def table(self, protocol: Protocol) -> pd.DataFrame:
        """The protocol's means over the cases that were scored."""
        import pandas as pd

        return protocol.aggregate(pd.DataFrame(self.records[protocol.name]))


@dataclass(frozen=True)
class _Task:
    pair: Pair
    protocols: tuple[Protocol, ...]
    classes: tuple[str, ...]
    values: tuple[int, ...]
    preprocessing: Preprocessing | None
    geometry: GridPolicy


def score(
    subject: PredictionSet,
    protocols: Sequence[Protocol],
    workers: int = 1,
    geometry: GridPolicy = "check",
    progress: Callable[[str], None] = lambda case: None,
) -> Scores:
    """Score every case of a subject under several protocols; a case that cannot be read costs itself only.

    Args:
        subject: the predictions.
        protocols: each once.
        workers: processes.
        geometry: what to do where a prediction does not lie on its reference's grid.
        progress: told the id of each case when it is done.
    """
    refused = {protocol.name: why for protocol in protocols if (why := objection(protocol, subject))}
    chosen = tuple(protocol for protocol in protocols if protocol.name not in refused)
    tasks = {
        pair.case: _Task(pair, chosen, subject.classes, subject.values, subject.preprocessing, geometry)
        for pair in subject.pairs
        if chosen
    }
    found: dict[str, dict[str, Records | str]] = {}
    failed = dict(subject.missing)
    for case, result in each(_score_case, tasks, workers):
        if isinstance(result, str):
            failed[case] = result
        else:
            found[case] = result
        progress(case)
    records: dict[str, Records] = {}
    for protocol in chosen:
        cases = [found[pair.case][protocol.name] for pair in subject.pairs if pair.case in found]
        if whys := [case for case in cases if isinstance(case, str)]:
            refused[protocol.name] = whys[0]
        else:
            records[protocol.name] = [row for case in cases for row in case if not isinstance(row, str)]
    return Scores(subject, records, refused, failed)


def objection(protocol: Protocol, subject: PredictionSet) -> str | None:
    """Why a protocol cannot be applied to a subject; None where it can, as far as its files were not opened."""
    if protocol.unit == "mm" and subject.spacing == "unknown":
        return "distances in mm, and nobody knows the size of these voxels"
    return protocol.objection()


def _score_case(task: _Task) -> dict[str, Records | str] | str:
    """The records of one case per protocol, or why a protocol does not apply to it; or why there are none at all."""
    pair = task.pair
    found: dict[str, Records | str] = {}
    try:
        for grid in sorted({protocol.takes(task.preprocessing) for protocol in task.protocols}):
            chosen = [protocol for protocol in task.protocols if protocol.takes(task.preprocessing) == grid]
            maps = load_pair(pair, grid, task.geometry)
            prediction = class_ids(maps.prediction, task.values, pair.prediction)
            reference = class_ids(maps.reference, task.values, pair.reference)
            # What differs in rules for empty masks alone is measured once.
            for measurement in dict.fromkeys(protocol.measurement for protocol in chosen):
                alike = [protocol for protocol in chosen if protocol.measurement == measurement]
                labels = replace(maps, prediction=prediction, reference=reference)
                found |= _rows(alike, pair, labels, task.classes)
    except DataError as error:
        return str(error)
    except MemoryError:
        return f"{pair.prediction}: not enough memory"
    return found


def _rows(protocols: Sequence[Protocol], pair: Pair, maps: Maps, classes: Sequence[str]) -> dict[str, Records | str]:
    """The records of a case under protocols of one measurement, or why they do not apply."""
    first = protocols[0]
    surfaces = any(protocol.needs_surfaces for protocol in protocols)
    try:
        if (first.resize_to or first.resize_by) and 1 in maps.reference.shape:
            raise ValueError("resizes volumes, and these are images of one slice")
        measured = first.measured(
            maps.prediction, maps.reference, len(classes) + 1, maps.spacing_mm, maps.axes, surfaces=surfaces
        )
    except ValueError as error:
        return {protocol.name: str(error) for protocol in protocols}
    return {
        protocol.name: [
            {"protocol": protocol.name, "case": pair.case, "group": pair.group, **row}
            for row in protocol.rows(measured, classes)
        ]
        for protocol in protocols
    }
