"""What may be deleted of a results folder by rule, and how much that is."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sslbench.core.files import walk_files
from sslbench.runs.directory import IMPORTED, RUNS, Run

_ASIDE = re.compile(r"seed-\d+-[0-9a-f]{8}\.old-\d+")


@dataclass(frozen=True)
class Freed:
    """Files or folders of one kind.

    Attributes:
        kind: in the words of the listing.
        paths: of them.
        bytes: that they take.
    """

    kind: str
    paths: tuple[Path, ...]
    bytes: int


def spare_checkpoints(runs: Iterable[Run], every: bool = False) -> Freed:
    """The checkpoints of finished runs that nothing reads again: all generations but the last, by which `predict` knows
    the weights.

    Args:
        runs: finished or not.
        every: the last and the best weights too.
    """
    found: list[Path] = []
    for run in runs:
        if run.look() == "finished":
            generations = sorted(run.checkpoints.glob("step-*.pt"))
            found += sorted(run.checkpoints.glob("*.pt")) if every else generations[:-1]
    return Freed("checkpoints of finished runs" if every else "older checkpoints of finished runs", *_sized(found))


def set_aside(results: Path) -> Freed:
    """The run directories that `--force` or a merge moved aside."""
    found = [
        path
        for part in (RUNS, IMPORTED)
        for path in sorted((results / part).glob("*/*/*/*.old-*"))
        if _ASIDE.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
    ]
    return Freed("run directories moved aside", *_sized(found))


def _sized(paths: Sequence[Path]) -> tuple[tuple[Path, ...], int]:
    files = [file for path in paths for file in (walk_files(path) if path.is_dir() else [path])]
    return tuple(paths), sum(file.lstat().st_size for file in files)


def free(freed: Freed) -> None:
    """Delete it."""
    for path in freed.paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
