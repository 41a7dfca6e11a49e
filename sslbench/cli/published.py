"""`sslbench published`: what the papers printed, as they printed it; nothing is trained or measured."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from sslbench.cli import completion
from sslbench.cli.console import out, print_json
from sslbench.cli.options import Json, argument, flag, option
from sslbench.core.errors import UsageError

published = typer.Typer(
    name="published",
    help="The papers' tables: list them, show one as printed, check what does not fit together in them.",
    no_args_is_help=True,
)


@published.command("list")
def list_tables(as_json: Json = False) -> None:
    """List the tables: rows, what ± is, the grid that runs it, what it compares."""
    from sslbench.cli.terminal.published import listing
    from sslbench.config.published import published_papers, published_tables

    rows = []
    for table in published_tables().values():
        rows.append(
            {
                "key": table.key,
                "paper": published_papers()[table.paper].name,
                "table": table.number,
                "rows": len(table.rows),
                "numbers": sum(len(row.cells) for row in table.rows),
                "spread": ", ".join(dict.fromkeys(row.spread for row in table.rows)),
                "grid": table.grid,
                "content": table.content,
                "setting": table.setting,
                "datasets": list(dict.fromkeys(row.dataset for row in table.rows)),
                "labeled": list(dict.fromkeys(row.labeled for row in table.rows)),
            }
        )
    if as_json:
        print_json(rows)
    else:
        listing(out(), rows)


@published.command("show")
def show_table(
    table: Annotated[str, argument("TABLE", "ga:T1, or its grid's name, ga-t1.", completion.published)],
    metric: Annotated[str | None, option("NAME", "This metric alone: dsc, jaccard, asd, hd95.")] = None,
    latex: Annotated[bool, flag("A booktabs table.", "--latex/--no-latex")] = False,
    markdown: Annotated[bool, flag("GitHub's table.", "--markdown/--no-markdown")] = False,
    csv: Annotated[bool, flag("A line per number.", "--csv/--no-csv")] = False,
) -> None:
    """Show a table in its paper's layout: `?` marks misprints, `[...]` what was filled in from a copy."""
    from sslbench.cli.terminal.published import sheet
    from sslbench.config.published import published_table
    from sslbench.reporting import printed

    forms = {"--latex": latex, "--markdown": markdown, "--csv": csv}
    chosen = [name for name, asked in forms.items() if asked]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} do not go together", "ask for one format at a time")
    laid_out = printed.printed_table(published_table(table), metric)
    if latex:
        sys.stdout.write(printed.printed_latex(laid_out))
    elif markdown:
        sys.stdout.write(printed.printed_markdown(laid_out))
    elif csv:
        sys.stdout.write(printed.printed_csv(laid_out))
    else:
        sheet(out(), laid_out)


@published.command("check")
def check_tables(as_json: Json = False) -> None:
    """List what does not fit together in them: averages, impossible Jaccards, rows of earlier papers."""
    from sslbench.cli.terminal.published import inconsistencies as drawn
    from sslbench.reporting.inconsistencies import averages, inconsistencies

    found = inconsistencies()
    if as_json:
        print_json([asdict(item) for item in found])
    else:
        drawn(out(), found, len(averages()))
