"""`sslbench report`: the tables of finished runs, and published tables beside them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sslbench.cli import completion
from sslbench.cli.console import note, out, warn
from sslbench.cli.options import (
    CheckpointName,
    Choice,
    DataDir,
    Only,
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
from sslbench.cli.reports import command_line, names_records, opened_report
from sslbench.core.errors import UsageError

if TYPE_CHECKING:
    from sslbench.config.published import PublishedTable
    from sslbench.config.table import AgainstIn
    from sslbench.reporting.citations import Citations
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
    figures: Annotated[bool, flag("Draw every figure; -o names the folder.", "--figures/--no-figures")] = False,
    html: Annotated[
        bool, flag("One page with all of it; -o names the file, else results/reports/<grid>/report.html.", "--html/--no-html")
    ] = False,
    output: Annotated[Path | None, option("FILE", "Write to this file.", "--output", "-o")] = None,
    set: Sets = None,
    seed: Seeds = None,
    only: Only = None,
    scale: Scale = None,
    data_dir: DataDir = None,
    results_dir: ResultsDir = None,
) -> None:
    """The table of a grid, or one of every finished run per recipe and budget."""
    from sslbench.core import registry, settings
    from sslbench.reporting.citations import Citations

    formats = {"--latex": latex, "--markdown": markdown, "--csv": csv, "--json": as_json, "--figures": figures, "--html": html}
    chosen = [label for label, asked in formats.items() if asked]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} do not go together", "ask for one format at a time")
    if output and not chosen:
        raise UsageError("-o needs a format", f"add {', '.join(formats)}")
    if figures and against:
        raise UsageError("--figures draws measured rows alone", "leave --against out, or ask for a table")
    if cite and not latex:
        raise UsageError("--cite is for LaTeX", "add --latex")
    results = settings.results_dir(results_dir)
    data = opened(data_dir)
    protocol = protocol and registry.component("protocol", protocol).name
    checkpoint = checked_rule(checkpoint)
    name, table = _named(name, table, against)
    published = _published(table, name) if against else None
    made = opened_report(name, Choice(set, seed, only, scale), results, protocol, checkpoint)
    for warning in dict.fromkeys(warning for table in made.tables for warning in table.warnings):
        warn(warning)
    comparison = _compared(made, published, results) if published else None
    if figures:
        from sslbench.cli.figures import default_folder, draw_figures

        draw_figures(made, output or default_folder(results, made.name), data)
    elif html:
        from sslbench.cli.page import default_file, write_page

        write_page(made, comparison, output or default_file(results, made.name), data)
    elif chosen:
        spec = made.grid.table if made.grid else None
        citations = Citations() if cite or (spec and spec.cite) else None
        layout: AgainstIn = spec.against if spec else "column"
        text = _rendered(made.tables, comparison, chosen[0], layout, citations).rstrip("\n") + "\n"
        _deliver(text, output, made, citations.keys if citations else [], published.key if published else None)
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


def _published(key: str | None, name: str | None) -> PublishedTable:
    """The table asked for, or the one that the grid follows."""
    from sslbench.config.grid import load_grid
    from sslbench.config.published import published_table

    grid = None if key or name is None or names_records(name) else load_grid(name)
    key = key or (grid.table.of if grid else "")
    if not key:
        whose = f"grid {grid.name} follows no published table" if grid else "--against needs a published table here"
        raise UsageError(whose, "name one: --against ga:T1; sslbench published list has them")
    return published_table(key)


def _compared(made: Report, published: PublishedTable, results: Path) -> Comparison:
    from sslbench.reporting import against

    return against.compare(made.tables, published, against.backgrounds(made.tables, results))


def _draw(made: Sequence[Table], comparison: Comparison | None) -> None:
    from sslbench.reporting.beside import terminal_beside
    from sslbench.reporting.render import terminal

    console = out()
    if comparison:
        console.print(terminal_beside(comparison, console.width))
        return
    for table in made:
        console.print(terminal(table, console.width))


def _rendered(
    made: Sequence[Table],
    comparison: Comparison | None,
    form: str,
    layout: AgainstIn,
    citations: Citations | None,
) -> str:
    from sslbench.cli import listing
    from sslbench.reporting import beside, latex, render
    from sslbench.reporting.beside_latex import latex_beside

    if comparison:
        if form == "--json":
            return json.dumps(listing.compared(comparison), indent=2)
        if form == "--csv":
            return beside.compared_csv(comparison)
        if form == "--markdown":
            return beside.markdown_beside(comparison)
        return latex_beside(comparison, layout, citations)
    if form == "--json":
        return json.dumps(listing.numbers(made), indent=2)
    if form == "--csv":
        return render.tidy_csv(made)
    if form == "--markdown":
        return "\n\n".join(render.markdown(table) for table in made)
    return "\n\n".join(latex.latex(table, citations.row) if citations else latex.latex(table) for table in made)


def _deliver(text: str, output: Path | None, made: Report, cited: Sequence[str], against: str | None) -> None:
    """Print what was asked for, or write it with its manifest and what it cites."""
    from sslbench.core.files import read_text, write_json, write_text
    from sslbench.reporting.citations import BIBLIOGRAPHY, bibliography
    from sslbench.reporting.manifest import manifest_of

    if output is None:
        sys.stdout.write(text)
        if cited:
            note(f"-o FILE.tex also writes {BIBLIOGRAPHY}, with the {len(cited)} sources that are cited")
        return
    beside = output.with_name(BIBLIOGRAPHY)
    entries = bibliography(cited, read_text(beside) if beside.exists() else "") if cited else ""
    write_text(output, text)
    write_json(output.with_name(output.name + ".manifest.json"), manifest_of(made, command_line(), against))
    if entries:
        write_text(beside, entries)
    note(f"wrote {output}" + (f", {BIBLIOGRAPHY}" if entries else "") + " and its manifest")
