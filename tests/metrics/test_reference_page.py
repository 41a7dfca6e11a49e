"""docs/reference/protocols.md: its tables are what the registry holds."""

from __future__ import annotations

from pathlib import Path

from sslbench.core import registry
from sslbench.metrics.case import DISTANCES
from sslbench.metrics.protocol import Protocol

PAGE = Path(__file__).parents[2] / "docs/reference/protocols.md"


def shipped() -> list[Protocol]:
    """In the order of the index."""
    return [registry.component("protocol", name) for names in registry.BUILTIN["protocol"].values() for name in names]


def grid(protocol: Protocol) -> str:
    steps = ["scan's" if protocol.grid == "original" else ""]
    if protocol.spacing_mm:
        steps.append("×".join(f"{size:g}" for size in protocol.spacing_mm) + " mm")
    if protocol.resize_to:
        steps.append("×".join(map(str, protocol.resize_to)))
    if protocol.resize_by:
        steps.append("by " + "×".join(f"{by:g}" for by in protocol.resize_by))
    return " → ".join(step for step in steps if step)


def rule(value: object) -> str:
    return {"exclude": "left out", "diagonal": "diagonal"}.get(value, "") if isinstance(value, str) else f"{value:g}"


def fixed_row(protocol: Protocol) -> str:
    policy, distances = protocol.policy, any(metric in DISTANCES for metric in protocol.metrics)
    absent = [rule(policy.absent_overlap)] + [rule(policy.absent_distance)] * distances
    assert policy.missed_distance == policy.spurious_distance and policy.blank is None
    far = "0" + f", {rule(policy.missed_distance)}" * distances + " (cap)" * policy.capped
    cells = [
        f"`{protocol.name}`",
        grid(protocol),
        protocol.unit if distances else "-",
        ", ".join(f"`{metric}`" for metric in protocol.metrics),
        absent[0] if len(set(absent)) == 1 else ", ".join(absent),
        far,
        f"{protocol.spread}, ddof {protocol.ddof}",
        ", ".join(protocol.postprocess) or "-",
    ]
    return f"| {' | '.join(cells)} |"


def released_row(protocol: Protocol) -> str:
    return f"| `{protocol.name}` | {'; '.join(protocol.slips)} |"


def rows(heading: str) -> list[str]:
    section = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| `")]


def test_every_fixed_protocol_stands_in_the_table_as_it_is() -> None:
    assert rows("Protocols") == [fixed_row(protocol) for protocol in shipped() if not protocol.released]


def test_every_slip_stands_in_the_table() -> None:
    assert rows("As released") == [released_row(protocol) for protocol in shipped() if protocol.released]


def test_every_metric_is_defined() -> None:
    page = PAGE.read_text(encoding="utf-8")
    used = {metric.partition("@")[0] for protocol in shipped() for metric in protocol.metrics}
    for metric in used | {"assd", "hd95max", "nsd", "rvd", "avd"}:
        assert f"| `{metric}" in page, metric
