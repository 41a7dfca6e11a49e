"""`sslbench bundle`: a report with all that is behind it in one file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

from sslbench.cli import completion
from sslbench.cli.console import note
from sslbench.cli.options import Choice, DataDir, Only, ResultsDir, Scale, Seeds, Sets, argument, flag, opened, option
from sslbench.cli.rendering import Rendering, report_files
from sslbench.cli.reports import command_line, opened_report
from sslbench.core.errors import UsageError


def bundle(
    name: Annotated[
        str | None, argument("GRID", "A grid by name or its YAML file, or a results folder.", completion.grids)
    ] = None,
    output: Annotated[Path | None, option("FILE.zip", "Where to write it.", "--output", "-o")] = None,
    predictions: Annotated[bool, flag("With the label maps.", "--predictions/--no-predictions")] = False,
    set: Sets = None,
    seed: Seeds = None,
    only: Only = None,
    scale: Scale = None,
    data_dir: DataDir = None,
    results_dir: ResultsDir = None,
) -> None:
    """Tables, records, configurations and provenance in one file. Never images, references, or paths of yours."""
    from sslbench.config.text import counted
    from sslbench.core import settings
    from sslbench.reporting.bundle import bundle_members
    from sslbench.reporting.page.document import page
    from sslbench.runs.archive import BUNDLE, CASES, write_bundle

    if output is None or output.suffix != BUNDLE:
        raise UsageError("a bundle needs a name", "add -o FILE.zip")
    opened(data_dir)
    made = opened_report(name, Choice(set, seed, only, scale), settings.results_dir(results_dir))
    rendering = Rendering(made, command=command_line(), cite=True)
    files = {file: text.encode() for file, text in report_files(rendering).items() if file != CASES}
    try:
        with tempfile.TemporaryDirectory() as nowhere:  # a page without data has no pictures of patients
            files["report.html"] = page(made, Path(nowhere), command=rendering.command).encode()
    except UsageError as error:
        note(f"left out report.html: {error.message}")
    write_bundle(output, bundle_members(made, rendering.manifest, files, output.name, predictions))
    without = "" if predictions else ", no predictions (--predictions)"
    size = f"{output.stat().st_size / 1e3:,.0f} kB".replace(",", " ")
    runs = counted(len(made.found.reported), "run")
    note(f"wrote {output} ({size}): {runs}; no images, no references{without}")
