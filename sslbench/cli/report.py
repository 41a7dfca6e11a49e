"""`sslbench report`: the tables of finished runs, and published tables beside them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sslbench.cli import completion
from sslbench.cli.console import note, out
from sslbench.cli.options import (
    CheckpointName,
    Choice,
    DataDir,
    Only,
    References,
    ResultsDir,
    Scale,
    Seeds,
    Sets,
    SourceArgument,
    argument,
    checked_rule,
    flag,
    opened,
    option,
)
from sslbench.cli.reports import command_line, opened_report, warn_of
from sslbench.core.errors import UsageError

if TYPE_CHECKING:
    from sslbench.cli.rendering import Rendering, TableForm
    from sslbench.config.published import PublishedTable
    from sslbench.reporting.comparison import Comparison
    from sslbench.reporting.model import Table
    from sslbench.reporting.report import Report


def report(
    name: SourceArgument = None,
    table: Annotated[
        str | None,
        argument("PAPER:TABLE", "With --against: ga:T1; default: the one that the grid follows.", completion.published),
    ] = None,
    protocol: Annotated[
        str | None,
        option("NAME", "Records that `evaluate` made under it; default: the runs' own.", complete=completion.protocols),
    ] = None,
    checkpoint: CheckpointName = None,
    against: Annotated[bool, flag("A published table beside the measured one.", "--against/--no-against")] = False,
    latex: Annotated[bool, flag("A booktabs table.", "--latex/--no-latex")] = False,
    markdown: Annotated[bool, flag("GitHub's table.", "--markdown/--no-markdown")] = False,
    csv: Annotated[bool, flag("Tidy, unrounded numbers.", "--csv/--no-csv")] = False,
    as_json: Annotated[bool, flag("The same numbers with captions and runs.", "--json/--no-json")] = False,
    cite: Annotated[
        bool, flag("Cite the methods in LaTeX; with -o, references.bib beside it.", "--cite/--no-cite")
    ] = False,
    cases: Annotated[
        bool, flag("Tidy records of every case; with -o a .csv, .csv.gz or .parquet.", "--cases/--no-cases")
    ] = False,
    figures: Annotated[bool, flag("Draw every figure; -o names the folder.", "--figures/--no-figures")] = False,
    html: Annotated[bool, flag("One page with tables, figures and records.", "--html/--no-html")] = False,
    everything: Annotated[
        bool, flag("Tables, records, figures, page and manifest; -o names the folder.", "--all/--no-all")
    ] = False,
    output: Annotated[Path | None, option("FILE", "Write to this file.", "--output", "-o")] = None,
    set: Sets = None,
    seed: Seeds = None,
    only: Only = None,
    scale: Scale = None,
    with_references: References = False,
    baseline: Annotated[
        str, option("METHOD[+LOSS]", "What all rows are held against; default: the same job with one part less.")
    ] = "",
    data_dir: DataDir = None,
    results_dir: ResultsDir = None,
) -> None:
    """The table of a grid, or one of every finished run per recipe and budget."""
    from sslbench.cli.rendering import Rendering, compared, write_all
    from sslbench.config.published import published_table
    from sslbench.core import registry, settings

    forms: dict[str, tuple[bool, TableForm | None]] = {
        "--latex": (latex, "latex"),
        "--markdown": (markdown, "markdown"),
        "--csv": (csv, "csv"),
        "--json": (as_json, "json"),
        "--cases": (cases, None),
        "--figures": (figures, None),
        "--html": (html, None),
        "--all": (everything, None),
    }
    chosen = [label for label, (asked, _) in forms.items() if asked]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} do not go together", "ask for one format at a time")
    if output and not chosen:
        raise UsageError("-o needs a format", f"add {', '.join(forms)}")
    if against and (figures or cases):
        raise UsageError(f"{chosen[0]} is of measured rows alone", "leave --against out, or ask for a table")
    if cite and not latex:
        raise UsageError("--cite is for LaTeX", "add --latex")
    results = settings.results_dir(results_dir)
    data = opened(data_dir)
    protocol = protocol and registry.component("protocol", protocol).name
    checkpoint = checked_rule(checkpoint)
    name, table = _named(name, table, against)
    published = published_table(table) if table else None
    made = opened_report(name, Choice(set, seed, only, scale, with_references, baseline), results, protocol, checkpoint)
    if against and not published:
        published = _followed(made)
    warn_of(made)
    comparison = compared(made, published, results) if published else None
    rendering = Rendering(made, comparison, command_line(), cite or everything)
    if everything:
        write_all(rendering, output or results / "reports" / made.name, data)
    elif figures:
        from sslbench.cli.figures import default_folder, draw_figures

        draw_figures(made, output or default_folder(results, made.name), data)
    elif html:
        from sslbench.cli.page import default_file, write_page

        write_page(rendering, output or default_file(results, made.name), data)
    elif cases:
        _deliver_cases(rendering, output)
    elif chosen and (form := forms[chosen[0]][1]):
        _deliver(rendering, form, output)
    else:
        _draw(made.tables, comparison)
    if any(table.damaged for table in made.tables):
        raise typer.Exit(1)


def _named(name: str | None, table: str | None, against: bool) -> tuple[str | None, str | None]:
    """The grid and the published table, in whichever order they stand on the line: only the latter has a colon."""
    if name and ":" in name and not name.endswith((".yaml", ".yml")):
        name, table = table, name
    if table and not against:
        raise UsageError(f"unexpected argument '{table}'", f"to see it beside the measured table: --against {table}")
    return name, table


def _followed(made: Report) -> PublishedTable:
    """The published table that the report's grid follows."""
    from sslbench.config.published import published_table

    if made.grid and made.grid.table.of:
        return published_table(made.grid.table.of)
    whose = f"grid {made.grid.name} follows no published table" if made.grid else "--against needs a published table"
    raise UsageError(whose, "name one: --against ga:T1; sslbench published list has them")


def _draw(made: Sequence[Table], comparison: Comparison | None) -> None:
    from sslbench.reporting.beside import terminal_beside
    from sslbench.reporting.render import terminal

    console = out()
    if comparison:
        console.print(terminal_beside(comparison, console.width))
        return
    for table in made:
        console.print(terminal(table, console.width))


def _deliver(rendering: Rendering, form: TableForm, output: Path | None) -> None:
    """Print a table, or write it with its manifest and what it cites."""
    from sslbench.core.files import read_text, write_json, write_text
    from sslbench.reporting.citations import BIBLIOGRAPHY, bibliography
    from sslbench.runs.archive import own_manifest

    citations = rendering.citations()
    text = rendering.table(form, citations)
    cited = citations.keys if citations else []
    if output is None:
        sys.stdout.write(text)
        if cited:
            note(f"-o FILE.tex also writes {BIBLIOGRAPHY}, with the {len(cited)} sources that are cited")
        return
    beside = output.with_name(BIBLIOGRAPHY)
    entries = bibliography(cited, read_text(beside) if beside.exists() else "") if cited else ""
    write_text(output, text)
    write_json(own_manifest(output), rendering.manifest)
    if entries:
        write_text(beside, entries)
    note(f"wrote {output}" + (f", {BIBLIOGRAPHY}" if entries else "") + " and its manifest")


def _deliver_cases(rendering: Rendering, output: Path | None) -> None:
    """Print the records, or write them with their manifest: a file that every command reads as it reads the runs."""
    from sslbench.core.files import write_json
    from sslbench.runs.archive import PARQUET, RECORD_ENDINGS, own_manifest, write_compressible, write_parquet
    from sslbench.runs.collect import records_csv

    records, endings = rendering.report.found.records, RECORD_ENDINGS[:-1]
    if output is None:
        sys.stdout.write(records_csv(records))
        return
    if not output.name.endswith(endings):
        raise UsageError(f"{output} is no name for records", f"end it in {', '.join(endings)}")
    if output.name.endswith(PARQUET):
        write_parquet(output, records, rendering.manifest)
        note(f"wrote {output}, its manifest in its metadata")
        return
    write_compressible(output, records_csv(records))
    write_json(own_manifest(output), rendering.manifest)
    note(f"wrote {output} and its manifest")
