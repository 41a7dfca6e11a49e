"""Protocols in words, as captions say them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sslbench.metrics.case import DISTANCES

if TYPE_CHECKING:
    from sslbench.metrics.protocol import EmptyPolicy, Protocol, Rule

_MEANINGS = {
    "dsc": "DSC is 2|P∩G|/(|P|+|G|)",
    "jaccard": "Jaccard is |P∩G|/|P∪G|",
    "asd": "ASD is one-way, from the predicted surface to the reference surface",
    "assd": "ASSD is the mean of the pooled distances of both directions",
    "hd95": "HD95 is the 95th percentile of the pooled distances of both directions",
    "hd95max": "HD95 is the larger of the two directed 95th percentiles",
    "rvd": "RVD is (|P|-|G|)/|G|, signed, and left out where the reference is empty",
}


def caption(protocol: Protocol, converted: bool = False) -> str:
    """Say what a reader must know to compare the numbers; see `Protocol.caption`."""
    distances = any(metric in DISTANCES for metric in protocol.metrics)
    where = "on the original grid" if protocol.grid == "original" or converted else "on the preprocessed grid"
    if protocol.spacing_mm is not None and not converted:
        where += " of " + "×".join(f"{size:g}" for size in protocol.spacing_mm) + " mm"
    if converted:
        where += " (converted: the predictions were made on another grid than the paper's)"
    if protocol.resize_to is not None:
        where += ", both label maps resized to " + "×".join(map(str, protocol.resize_to)) + " by nearest neighbour"
    if protocol.resize_by is not None:
        factors = "×".join(f"{by:g}" for by in protocol.resize_by)
        where += f", the sides of both label maps multiplied by {factors}, nearest neighbour"
    if distances:
        where += ", distances in " + ("mm" if protocol.unit == "mm" else "voxels (unit spacing along every axis)")
    steps = {
        "intersection": "the intersection of the networks' label maps",
        "largest-component": "the largest component of every class, 26-connected",
    }
    if protocol.postprocess:
        where += ", of the prediction only " + " and of that ".join(steps[step] for step in protocol.postprocess)
    meanings = [_meaning(protocol, metric) for metric in protocol.metrics]
    if protocol.background:
        meanings.append("the background is a class")
    if protocol.smooth:
        meanings.append(f"{protocol.smooth:g} is added above and below")
    empty = empty_masks(protocol.policy, distances) if not protocol.smooth else "two empty masks score overlap 1"
    if protocol.policy.blank is not None:
        empty += "; where the whole prediction is background, " + empty_masks(protocol.policy.blank, distances)
    kind = "sample" if protocol.ddof else "population"
    over = "over seeds" if protocol.spread == "seeds" else "over cases, per class and then averaged over classes"
    first = f" without the first {protocol.skip_cases} of a run" if protocol.skip_cases else ""
    slips = f" Kept from the released evaluator: {'; '.join(protocol.slips)}." if protocol.slips else ""
    return (
        f"Protocol {protocol.name} (version {protocol.version}): measured {where}; {'; '.join(meanings)}; {empty}. "
        f"Means are over cases{first}, then over classes; ± is the {kind} standard deviation (ddof {protocol.ddof}) "
        f"{over}.{slips}"
    )


def empty_masks(policy: EmptyPolicy, distances: bool) -> str:
    """Say what empty masks score; `distances`: whether the protocol has any distance."""
    words = {"exclude": "excluded", "diagonal": "the image diagonal"}

    def say(rule: Rule) -> str:
        return words[rule] if isinstance(rule, str) else f"{rule:g}"

    if policy.absent_overlap == "exclude" and (policy.absent_distance == "exclude" or not distances):
        absent = "a class absent from both maps is left out and counted"
    else:
        absent = f"a class absent from both maps scores overlap {say(policy.absent_overlap)}"
        absent += f" and distance {say(policy.absent_distance)}" if distances else ""
    if not distances:
        return f"{absent}, a missed or spurious one scores overlap 0"
    missed, spurious = say(policy.missed_distance), say(policy.spurious_distance)
    limit = f", no distance counts more than {policy.cap:g}" if policy.cap < math.inf else ""
    if missed == spurious:
        return f"{absent}, a missed or spurious one scores overlap 0 and distance {missed}{limit}"
    return f"{absent}, a missed one scores overlap 0 and distance {missed}, a spurious one 0 and {spurious}{limit}"


def _meaning(protocol: Protocol, metric: str) -> str:
    if metric in _MEANINGS:
        return _MEANINGS[metric]
    if metric == "avd":
        return (
            f"AVD is the absolute difference of the volumes, in {'mm³ or mm²' if protocol.unit == 'mm' else 'voxels'}"
        )
    return f"NSD is the share of both surfaces within {metric.removeprefix('nsd@')} {protocol.unit} of the other"
