"""`sslbench report --html`: a whole report as one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sslbench.cli.console import note
from sslbench.cli.reports import command_line

if TYPE_CHECKING:
    from sslbench.reporting.comparison import Comparison
    from sslbench.reporting.report import Report


def default_file(results: Path, name: str) -> Path:
    """Where the page of a report goes, by its name."""
    return results / "reports" / name / "report.html"


def write_page(made: Report, comparison: Comparison | None, file: Path, data_dir: Path) -> None:
    """Write the page of a report, and say where it is.

    Args:
        made: with results.
        comparison: a published table beside it.
        file: to write.
        data_dir: where datasets are prepared.
    """
    from sslbench.core.files import write_text
    from sslbench.reporting.page.document import page

    write_text(file, page(made, data_dir, comparison, command_line()))
    note(f"wrote {file}: one file that opens in any browser, without network")
