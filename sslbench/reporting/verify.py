"""A manifest against records: are the runs those that it names, unchanged, and do its numbers follow from them?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sslbench.config.text import counted
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError
from sslbench.reporting.manifest import cells_of
from sslbench.reporting.model import Table
from sslbench.runs.collect import Collection
from sslbench.runs.sealed import config_hashes, records_hash

_PLACE = ("table", "row", "block", "metric", "class")


@dataclass
class Verification:
    """What was found.

    Attributes:
        agree: how many numbers follow from the records.
        numbers: lines, one per number that does not.
        runs: how many have records in the manifest.
        unchanged: how many of them are as they were.
        others: lines about runs, protocols and predictions.
        predictions: what became of those, in words.
    """

    agree: int = 0
    numbers: list[str] = field(default_factory=list)
    runs: int = 0
    unchanged: int = 0
    others: list[str] = field(default_factory=list)
    predictions: str = "predictions not checked (--predictions)"

    @property
    def holds(self) -> bool:
        """Whether nothing differs."""
        return not self.numbers and not self.others

    def __str__(self) -> str:
        return (
            f"{counted(self.agree, 'number')} agree, {len(self.numbers)} differ; "
            f"{self.unchanged} of {self.runs} records unchanged; {self.predictions}"
        )

    def add(self, found: tuple[int, Sequence[str]], whose: str = "") -> None:
        """Take in how many numbers agree, and the lines of those that do not."""
        self.agree += found[0]
        self.numbers += [f"{whose}: {line}" if whose else line for line in found[1]]


def check_runs(
    manifest: Mapping[str, Any], found: Collection, verdict: Verification, files: Mapping[str, bytes] | None = None
) -> None:
    """Hold the runs that were found against those of a manifest.

    Args:
        manifest: of format 2.
        found: runs and records.
        verdict: what it is told to.
        files: the configurations and provenances, by name below the runs (a bundle's); None: in the runs' directories.
    """
    runs = {run.name: run for run in found.runs}
    for entry in manifest["runs"]:
        name, hashes = str(entry["run"]), entry.get("sha256") or {}
        if not hashes.get("records"):
            continue
        verdict.runs += 1
        run = runs.get(name)
        if run is not None and run.standing.damage:
            verdict.others.append(run.standing.damage.left_out)
        elif run is None or name not in found.reported:
            verdict.others.append(f"{name} is missing")
        elif not name.endswith(f"/seed-{entry['seed']}-{entry['digest'][:8]}"):
            verdict.others.append(f"{name} has another seed or digest than its manifest says")
        elif records_hash(found, name) != hashes["records"]:
            verdict.others.append(f"{name}: its records changed")
        else:
            now = config_hashes(run, files)
            changed = [file for file, own in now.items() if own and hashes.get(file) and own != hashes[file]]
            verdict.others += [f"{name}: its {file} changed" for file in changed]
            verdict.unchanged += not changed


def check_protocols(manifest: Mapping[str, Any], verdict: Verification) -> None:
    """Hold the versions of the protocols against those that are installed."""
    for name, version in manifest["protocols"].items():
        try:
            here = registry.component("protocol", name).version
        except SSLBenchError as error:
            verdict.others.append(f"protocol {name}: {error.message}")
            continue
        if here != version:
            verdict.others.append(f"protocol {name} has version {here} here, and {version} in the manifest")


def check_cells(manifest: Mapping[str, Any], tables: Sequence[Table]) -> tuple[int, list[str]]:
    """Hold a manifest's numbers against tables made of the records: how many agree, and a line for each that does not.

    Printed ones agree to the letter, unrounded ones to their last bits.
    """
    known = {_place(cell): cell for table in tables for cell in cells_of(table)}
    agree, lines = 0, []
    for cell in manifest["cells"]:
        own, where = known.get(_place(cell)), ", ".join(filter(None, (cell["row"], cell["metric"], cell["class"])))
        if own is None:
            lines.append(f"{where}: {cell['printed']} is nowhere in the records")
        elif not _same(cell, own):
            lines.append(f"{where}: {cell['printed']} ({cell['mean']}), from the records {own['printed']}")
        else:
            agree += 1
    return agree, lines


def _place(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(cell[name] for name in _PLACE)


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    numbers = ((one[name], other[name]) for name in ("mean", "std", "low", "high"))
    return (one["printed"], one["n"]) == (other["printed"], other["n"]) and all(
        first is second is None
        or (None not in (first, second) and math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-12))
        for first, second in numbers
    )
