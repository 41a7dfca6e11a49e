"""Runs of several draws of their labels, joined to the rows that they are repeats of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from sslbench.config.draws import family_of, split_draw
from sslbench.config.recipe import RECORDED
from sslbench.runs.directory import Run


def draws_joined(cells: Iterable[Sequence[Run]]) -> list[list[Run]]:
    """Join the runs that differ in the draw of their labels alone.

    Args:
        cells: runs that differ in their seed alone, cell by cell.

    Returns:
        The same, those of one budget's draws as one where they have all settings in common. Where a draw was run under
        two digests nobody can tell which belongs to which: these stay apart.
    """
    joined: dict[tuple[str, ...], list[list[Run]]] = {}
    for runs in cells:
        first = runs[0]
        labeled = str(first.job["labeled"])
        recipe, _, *parts, digest = first.cell
        drawn = bool(split_draw(labeled)[1])
        settings = {path: value for path, value in first.values.items() if path not in RECORDED}
        own = json.dumps(settings, sort_keys=True, default=str) if drawn else digest
        joined.setdefault((recipe, family_of(labeled), *parts, own), []).append(list(runs))
    rows: list[list[Run]] = []
    for members in joined.values():
        draws = [str(runs[0].job["labeled"]) for runs in members]
        alone = len({*draws}) < len(draws)
        rows += members if alone else [[run for runs in members for run in runs]]
    return rows
