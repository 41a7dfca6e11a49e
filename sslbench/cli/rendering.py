"""A report as files: its tables in every form, its records, its manifest, and all of it in one folder or bundle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sslbench.cli.console import note

if TYPE_CHECKING:
    from sslbench.config.published import PublishedTable
    from sslbench.reporting.citations import Citations
    from sslbench.reporting.comparison import Comparison
    from sslbench.reporting.report import Report

TableForm = Literal["latex", "markdown", "csv", "json"]
FORMS: dict[str, TableForm] = {".tex": "latex", ".md": "markdown", ".csv": "csv", ".json": "json"}


@dataclass(frozen=True)
class Rendering:
    """A report to be written.

    Attributes:
        report: with results.
        comparison: with the published table that stands beside it; None: none does.
        command: that asked for it.
        cite: whether LaTeX cites methods, whatever the grid says.
    """

    report: Report
    comparison: Comparison | None = None
    command: str = ""
    cite: bool = False

    @property
    def manifest(self) -> dict[str, Any]:
        """See `manifest_of`."""
        from sslbench.reporting.manifest import manifest_of

        against = self.comparison.published.key if self.comparison else None
        return manifest_of(self.report, self.command, against)

    def citations(self) -> Citations | None:
        """What to collect citations in; None where nothing is cited."""
        from sslbench.reporting.citations import Citations

        spec = self.report.grid.table if self.report.grid else None
        return Citations() if self.cite or (spec and spec.cite) else None

    def table(self, form: TableForm, citations: Citations | None = None) -> str:
        """The tables, or the comparison in their place, ending in one line feed.

        Args:
            form: which.
            citations: where LaTeX counts what it cites; None: it cites nothing.
        """
        return _text(self.report, self.comparison, form, citations).rstrip("\n") + "\n"


def compared(made: Report, published: PublishedTable, results: Path) -> Comparison:
    """A report beside a published table."""
    from sslbench.reporting import against

    return against.compare(made.tables, published, against.backgrounds(made.tables, results))


def _text(made: Report, comparison: Comparison | None, form: TableForm, citations: Citations | None) -> str:
    from sslbench.cli import listing
    from sslbench.reporting import beside, latex, render
    from sslbench.reporting.beside_latex import latex_beside

    if comparison:
        if form == "json":
            return json.dumps(listing.compared(comparison), indent=2)
        if form == "csv":
            return beside.compared_csv(comparison)
        if form == "markdown":
            return beside.markdown_beside(comparison)
        return latex_beside(comparison, made.grid.table.against if made.grid else "column", citations)
    if form == "json":
        return json.dumps(listing.numbers(made.tables), indent=2)
    if form == "csv":
        return render.tidy_csv(made.tables)
    if form == "markdown":
        return "\n\n".join(render.markdown(table) for table in made.tables)
    return "\n\n".join(latex.latex(table, citations.row) if citations else latex.latex(table) for table in made.tables)


def write_all(rendering: Rendering, folder: Path, data_dir: Path) -> None:
    """Write everything that can be said of a report to a folder: tables, records, figures, page, manifest.

    Args:
        rendering: what.
        folder: to write to.
        data_dir: where datasets are prepared, for pictures.
    """
    from sslbench.cli.figures import draw_figures
    from sslbench.core.files import write_json, write_text
    from sslbench.reporting.citations import BIBLIOGRAPHY
    from sslbench.reporting.page.document import page
    from sslbench.runs.archive import MANIFEST, write_compressible

    for name, text in report_files(rendering).items():
        if name == BIBLIOGRAPHY or not name.endswith(".gz"):
            write_text(folder / name, text)
        else:
            write_compressible(folder / name, text)
    drawn = draw_figures(rendering.report, folder / "figures", data_dir)
    shown = page(rendering.report, data_dir, rendering.comparison, rendering.command, drawn)
    write_text(folder / "report.html", shown)
    write_json(folder / MANIFEST, rendering.manifest)
    note(f"wrote tables, records, figures, a page and their manifest to {folder}")


def report_files(rendering: Rendering) -> dict[str, str]:
    """Texts by the names of their files: tables in every form, what they cite, and the records."""
    from sslbench.reporting.citations import BIBLIOGRAPHY, bibliography
    from sslbench.runs.archive import CASES
    from sslbench.runs.collect import records_csv

    citations = rendering.citations()
    files = {f"table{ending}": rendering.table(form, citations) for ending, form in FORMS.items()}
    if citations and citations.keys:
        files[BIBLIOGRAPHY] = bibliography(citations.keys, "")
    return files | {CASES: records_csv(rendering.report.found.records)}
