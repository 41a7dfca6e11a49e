"""Results folders of several machines joined into one; what contradicts itself is named, and nothing of it is taken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sslbench.core.errors import UsageError
from sslbench.runs.directory import IMPORTED, RUNS, Run, runs_below

MergeStep = Literal["copy", "replace", "same", "stays", "leave", "contradiction"]


@dataclass(frozen=True)
class Joining:
    """What a merge does with one run.

    Attributes:
        source: the run elsewhere.
        target: where it belongs.
        step: `copy`; `replace` what is less far, which is moved aside; `same` records are there; what is there `stays`,
            as it is as far or further; `leave` it where it is; `contradiction`.
        reason: why, where that does not say it.
    """

    source: Run
    target: Run
    step: MergeStep
    reason: str = ""


def plan_merge(folders: Sequence[Path], results: Path) -> list[Joining]:
    """Plan what a merge does, and do nothing.

    Args:
        folders: results folders.
        results: that they are joined into.

    Raises:
        UsageError: a folder holds no runs, or is the results folder itself.
    """
    found: list[Joining] = []
    best: dict[Path, Run] = {}
    for folder in folders:
        if folder.resolve() == results.resolve():
            raise UsageError(f"{folder} is the results folder itself", "name the folders that are to join it")
        runs = [(part, run) for part in (RUNS, IMPORTED) for run in runs_below(folder / part)]
        if not runs:
            raise UsageError(f"{folder} holds no runs", "name a results folder: the one that holds runs/")
        for part, run in runs:
            place = run.directory.relative_to(folder / part)
            target = Run(results / part / place)
            there = best.get(target.directory, target)  # what an earlier folder brings counts as there
            joining = _joining(run, there, target)
            if joining.step in ("copy", "replace"):
                best[target.directory] = run
            found.append(joining)
    # What two folders contradict each other about is taken from neither.
    against = {joining.target.directory for joining in found if joining.step == "contradiction"}
    return [_refused(joining) if joining.target.directory in against else joining for joining in found]


def _refused(joining: Joining) -> Joining:
    if joining.step not in ("copy", "replace"):
        return joining
    return Joining(joining.source, joining.target, "leave", "another folder contradicts it")


def _joining(source: Run, there: Run, target: Run) -> Joining:
    if source.look() == "damaged":
        return Joining(source, target, "leave", f"damaged: {source.error}")
    if source.state == "running":
        return Joining(source, target, "leave", "it runs")
    if not there.begun:
        return Joining(source, target, "copy")
    if there.look() == "running":
        return Joining(source, target, "leave", f"it runs in {there.directory}")
    if there.state == "damaged":
        return Joining(source, target, "leave", f"{there.directory} is damaged: {there.error}")
    if source.digest != there.digest:
        return Joining(source, target, "contradiction", f"{there.directory} holds another job")
    if source.state == there.state == "finished":
        differing = _differing(source, there)
        if differing:
            return Joining(source, target, "contradiction", f"other {', '.join(differing)} than {there.directory}")
        return Joining(source, target, "same")
    return Joining(source, target, "replace" if _far(source) > _far(there) else "stays")


def _differing(one: Run, other: Run) -> list[str]:
    """The records in which two finished runs of a job differ: those of each rule's test, and the data behind them."""
    differing = [] if one.data.get("fingerprint") == other.data.get("fingerprint") else ["data"]
    for rule in sorted({None, *one.tested_rules(), *other.tested_rules()}, key=str):
        mine, others = one.tested(rule).cases, other.tested(rule).cases
        if not (mine.exists() and others.exists() and mine.read_bytes() == others.read_bytes()):
            differing.append("records" if rule is None else f"records of {rule}")
    return differing


def _far(run: Run) -> tuple[bool, str]:
    return run.state == "finished", max((path.name for path in run.saved()), default="")


def merge(joinings: Iterable[Joining]) -> None:
    """Do what was planned. A run appears in its place whole or not at all; what was there is moved aside."""
    for joining in joinings:
        if joining.step in ("copy", "replace"):
            joining.source.copy_to(joining.target)
