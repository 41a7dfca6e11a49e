"""What runs recorded along their training, read from `metrics.jsonl`: each figure takes the lines that it needs."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sslbench.runs.directory import Run

AVERAGE_TRACE = "avg"


@dataclass(frozen=True)
class Trace:
    """A number along the training, over seeds: mean and range.

    Attributes:
        iterations: ascending; those that every seed has.
        mean, low, high: of the seeds, one per iteration.
        seeds: how many.
    """

    iterations: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    seeds: int

    @classmethod
    def over(cls, seeds: Sequence[Mapping[int, float]]) -> Trace | None:
        """Join the numbers of several seeds by iteration; None where they share none."""
        known = [{at: value for at, value in one.items() if not math.isnan(value)} for one in seeds]
        known = [one for one in known if one]
        shared = sorted(set.intersection(*map(set, known))) if known else []
        if not shared:
            return None
        table = np.array([[one[at] for at in shared] for one in known])
        columns = (table.mean(axis=0), table.min(axis=0), table.max(axis=0))
        mean, low, high = (tuple(map(float, column)) for column in columns)
        return cls(tuple(shared), mean, low, high, len(known))

    def thinned(self, most: int) -> Trace:
        """At most so many of its iterations, evenly, the last among them."""
        count = len(self.iterations)
        if count <= most:
            return self
        places = sorted({round(place) for place in np.linspace(0, count - 1, most)})
        columns = (self.iterations, self.mean, self.low, self.high)
        iterations, mean, low, high = (tuple(column[place] for place in places) for column in columns)
        return Trace(iterations, mean, low, high, self.seeds)


_WORDS = ('"validation"', '"observed"', '"weight/', '"mined/', '"region/')


def lines_of(run: Run, word: str) -> Iterator[dict[str, Any]]:
    """Yield the records that have a name which begins so, in order; a line that a kill cut short is passed over.

    A run that goes on after a stop records an iteration again: readers take the last.
    """
    for entry in _lines(run.metrics):
        if any(name.startswith(word) for name in entry):
            yield entry


@lru_cache(maxsize=1024)  # several figures read them
def _lines(path: Path) -> tuple[dict[str, Any], ...]:
    """Records that any figure takes something of; the others, which are most, are not even parsed."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return ()
    found = []
    for line in text.splitlines():
        if not any(word in line for word in _WORDS):
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("iteration"), int):
            found.append(entry)
    return tuple(found)


def validation(run: Run) -> dict[str, dict[int, float]]:
    """Validation DSC by class (`avg` for the mean) and iteration, in percent, of the predictor that was tested; where
    several were tried and none chosen, of the first."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    chosen = run.status().get("predictor")
    for entry in lines_of(run, "validation"):
        scores = entry.get("validation")
        if not isinstance(scores, dict):
            continue
        whole = [name for name in scores if name.partition("/")[0] == "dsc" and not name.endswith("/class")]
        wanted = f"dsc/{chosen}" if f"dsc/{chosen}" in scores else "dsc" if "dsc" in scores else (whole or [""])[0]
        at = entry["iteration"]
        found[AVERAGE_TRACE][at] = 100 * _number(scores.get(wanted))
        for short, value in _table(scores.get(f"{wanted}/class")):
            found[short][at] = 100 * value
    return dict(found)


def by_class(run: Run, prefix: str) -> dict[str, dict[str, dict[int, float]]]:
    """What was logged for each class under names that begin so, by the rest of the name, class and iteration."""
    found: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for entry in lines_of(run, prefix):
        for name, values in entry.items():
            if name.startswith(prefix):
                for short, value in _table(values):
                    found[name.removeprefix(prefix)][short][entry["iteration"]] = value
    return {name: dict(classes) for name, classes in found.items()}


def observed(run: Run, what: str) -> dict[str, dict[str, dict[int, float]]]:
    """What was seen of validation cases (`regions`, `agreement`), mean over cases.

    Returns:
        By who (a learner, a pair), number (`share/UC`, `dsc`, `dsc/class/lv`) and iteration.
    """
    sums: dict[tuple[str, str, int], dict[str, float]] = defaultdict(dict)
    for entry in lines_of(run, "observed"):
        seen = entry["observed"] if isinstance(entry.get("observed"), dict) else {}
        for who, numbers in (seen.get(what) or {}).items():
            for name, value in _leaves(numbers):
                sums[who, name, entry["iteration"]][str(seen.get("case"))] = value
    found: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for (who, name, at), cases in sums.items():
        values = [value for value in cases.values() if not math.isnan(value)]
        found[who][name][at] = sum(values) / len(values) if values else math.nan
    return {who: dict(numbers) for who, numbers in found.items()}


def joined(runs: Iterable[Mapping[str, Mapping[int, float]]]) -> dict[str, Trace]:
    """Traces over seeds by name."""
    runs = list(runs)
    names = dict.fromkeys(name for run in runs for name in run)
    traces = {name: Trace.over([run[name] for run in runs if name in run]) for name in names}
    return {name: trace for name, trace in traces.items() if trace is not None}


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in tree.items() if isinstance(tree, dict) else ():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}/")
        elif not isinstance(value, str):
            yield f"{prefix}{name}", _number(value)


def _table(values: Any) -> list[tuple[str, float]]:
    return [(str(name), _number(value)) for name, value in values.items()] if isinstance(values, dict) else []


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
