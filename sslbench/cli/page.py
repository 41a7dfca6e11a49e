"""`sslbench report --html`: a whole report as one page."""

from __future__ import annotations

from pathlib import Path

from sslbench.cli.console import note
from sslbench.cli.rendering import Rendering

FILE = "report.html"


def default_file(results: Path, name: str) -> Path:
    """Where the page of a report goes, by its name."""
    return results / "reports" / name / FILE


def write_page(rendering: Rendering, file: Path, data_dir: Path) -> None:
    """Write the page of a report, and say where it is.

    Args:
        rendering: what.
        file: to write.
        data_dir: where datasets are prepared, for pictures.
    """
    from sslbench.core.files import write_text
    from sslbench.reporting.page.document import page

    write_text(file, page(rendering.report, data_dir, rendering.comparison, rendering.command))
    note(f"wrote {file}: open it in a browser, it needs nothing else")
