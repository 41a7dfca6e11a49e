"""What scores say, as rows for tables and JSON: the same predictions under several protocols, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sslbench.evaluation.scoring import Scores
from sslbench.metrics.case import DISTANCES
from sslbench.metrics.protocol import EmptyPolicy, Protocol

COUNTS = ("missed", "spurious", "absent")


def side_by_side(scores: Scores, protocols: Sequence[Protocol]) -> list[dict[str, Any]]:
    """The conversion table: one row per protocol, what the same predictions score under it.

    Each has `subject`, `protocol`, `version`, `slips` (of a released evaluator that it repeats), `grid`, `converted`
    (whether predictions were made on another grid than the paper's), `unit` (of distances), `empty` (what an empty
    mask scores), `caption`, `metrics` (names) and either `why` the protocol cannot apply or

    - `cases` and `expected`: numbers of cases that were scored, and that should have been;
    - `averages`: per metric, the mean over classes of the means over cases (None: not defined);
    - `missed`, `spurious`, `absent`: pairs of case and class;
    - `classes`: the same for each class (`class`, its metrics, counts of cases).
    """
    rows = []
    for protocol in protocols:
        converted = protocol.converts(scores.subject.preprocessing)
        row: dict[str, Any] = {
            "subject": scores.subject.title,
            "protocol": protocol.name,
            "version": protocol.version,
            "slips": list(protocol.slips),
            "grid": grid_text(protocol, converted),
            "converted": converted,
            "unit": protocol.unit,
            "empty": empty_text(protocol),
            "caption": protocol.caption(converted),
            "metrics": list(protocol.metrics),
            "why": scores.refused.get(protocol.name),
        }
        records = scores.records.get(protocol.name)
        if records:
            *classes, average = _by_class(scores, protocol)
            row["cases"] = len({record["case"] for record in records}) - protocol.skip_cases
            row["expected"] = scores.subject.expected - protocol.skip_cases
            row["averages"] = {metric: average[metric] for metric in protocol.metrics}
            row |= {**{count: average[count] for count in COUNTS}, "classes": classes}
        elif not row["why"]:
            row["why"] = "no case could be scored"
        rows.append(row)
    return rows


def _by_class(scores: Scores, protocol: Protocol) -> list[dict[str, Any]]:
    """The protocol's means: one row per class, that of the average last."""
    rows: dict[str, dict[str, Any]] = {}
    for record in scores.table(protocol).to_dict("records"):
        name = str(record["class"])
        row = rows.setdefault(name, {"class": name, **{count: int(record[count]) for count in COUNTS}})
        row[str(record["metric"])] = None if math.isnan(record["value"]) else float(record["value"])
    return list(rows.values())


def grid_text(protocol: Protocol, converted: bool) -> str:
    """Where a protocol measures, in a few words."""
    if protocol.resize_to is not None:
        return "×".join(map(str, protocol.resize_to))
    if protocol.resize_by is not None:
        return "×" + "×".join(f"{by:g}" for by in protocol.resize_by)
    return "original" if converted else protocol.grid


def empty_text(protocol: Protocol) -> str:
    """What an empty mask scores under a protocol, in a few words: overlap and distance."""
    if protocol.smooth:
        return f"as {protocol.smooth:g} added above and below has it: both 1, one 0"
    distances = any(metric in DISTANCES for metric in protocol.metrics)

    def words(policy: EmptyPolicy) -> str:
        missed = _rules([0, policy.missed_distance], distances)
        spurious = _rules([0, policy.spurious_distance], distances)
        parts = [f"absent {_rules([policy.absent_overlap, policy.absent_distance], distances)}", f"missed {missed}"]
        parts += [f"spurious {spurious}"] if spurious != missed else []
        parts += [f"no distance beyond {policy.cap:g}"] if distances and policy.cap < math.inf else []
        return "; ".join(parts)

    blank = protocol.policy.blank
    return words(protocol.policy) + (f" | nothing predicted: {words(blank)}" if blank is not None else "")


def _rules(rules: Sequence[Any], distances: bool) -> str:
    """An overlap and a distance in words; the overlap alone where there are no distances."""
    words = ["left out" if rule == "exclude" else rule if isinstance(rule, str) else f"{rule:g}" for rule in rules]
    chosen = words if distances else words[:1]
    return chosen[0] if set(chosen) == {"left out"} else ", ".join(chosen)
