"""`sslbench report --figures`: every figure of a report in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sslbench.cli.console import note
from sslbench.config.text import counted

if TYPE_CHECKING:
    from sslbench.reporting.figures.album import Leaf
    from sslbench.reporting.report import Report


def default_folder(results: Path, name: str) -> Path:
    """Where the figures of a report go, by its name."""
    return results / "reports" / name / "figures"


def draw_figures(made: Report, folder: Path, data_dir: Path) -> list[Leaf]:
    """Draw the figures of a report, and say what is left out and why; returns its album.

    Args:
        made: with results.
        folder: to write to.
        data_dir: where datasets are prepared.
    """
    from sslbench.reporting.figures.album import album, write_album
    from sslbench.reporting.figures.plate import LeftOut
    from sslbench.reporting.figures.style import check_installed

    check_installed()
    leaves = album(made.subjects, data_dir)
    write_album(leaves, folder)
    left: dict[str, list[str]] = {}
    for leaf in leaves:
        if isinstance(leaf.plate, LeftOut):
            left.setdefault(leaf.plate.why, []).append(leaf.plate.name)
    for why, plates in left.items():
        note(f"left out {', '.join(dict.fromkeys(plates))}: {why}")
    drawn = sum(not isinstance(leaf.plate, LeftOut) for leaf in leaves)
    note(f"wrote {counted(drawn, 'figure')} (PDF, SVG, CSV) and their captions to {folder}")
    return leaves
