"""`sslbench report --figures`: every figure of a report in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sslbench.cli.console import note
from sslbench.config.text import counted

if TYPE_CHECKING:
    from sslbench.reporting.model import Table


def default_folder(results: Path, grid: str) -> Path:
    """Where the figures of a grid go; an empty name: of all runs."""
    return results / "reports" / (grid or "runs") / "figures"


def draw_figures(
    made: Sequence[Table],
    results: Path,
    folder: Path,
    data_dir: Path,
    protocol: str | None = None,
    checkpoint: str | None = None,
) -> None:
    """Draw the figures of a report's tables, and say what is left out and why.

    Args:
        made: with results.
        results: the folder that holds `runs`.
        folder: to write to.
        data_dir: where datasets are prepared.
        protocol, checkpoint: whose records the tables are of; None: the runs' own.
    """
    from sslbench.reporting.figures.album import album, write_album
    from sslbench.reporting.figures.plate import LeftOut
    from sslbench.reporting.figures.style import check_installed
    from sslbench.reporting.figures.subject import subjects_of
    from sslbench.runs.collect import records_of
    from sslbench.runs.directory import RUNS, Run

    check_installed()
    names = dict.fromkeys(name for table in made for row in table.rows for name in row.runs)
    found = records_of([Run(results / RUNS / name) for name in names], protocol, checkpoint)
    leaves = album(subjects_of(made, found, checkpoint), data_dir)
    write_album(leaves, folder)
    left: dict[str, list[str]] = {}
    for leaf in leaves:
        if isinstance(leaf.plate, LeftOut):
            left.setdefault(leaf.plate.why, []).append(leaf.plate.name)
    for why, plates in left.items():
        note(f"left out {', '.join(dict.fromkeys(plates))}: {why}")
    drawn = sum(not isinstance(leaf.plate, LeftOut) for leaf in leaves)
    note(f"wrote {counted(drawn, 'figure')} (PDF, SVG, CSV) and their captions to {folder}")
