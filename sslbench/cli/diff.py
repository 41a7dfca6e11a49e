"""`sslbench diff`: which numbers differ between two results."""

from __future__ import annotations

from typing import Annotated

import typer

from sslbench.cli import completion
from sslbench.cli.console import out, print_json
from sslbench.cli.options import Choice, DataDir, Json, ResultsDir, argument, opened, option

_WHAT = "a grid by name or its YAML file, a results folder, a run directory, or a CSV of records."


def diff(
    first: Annotated[str, argument("FIRST", f"Results: {_WHAT}", completion.grids)],
    second: Annotated[str, argument("SECOND", "Results to hold against them.", completion.grids)],
    protocol: Annotated[
        str | None,
        option("NAME", "Records that `evaluate` made under it; default: the runs' own.", complete=completion.protocols),
    ] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    results_dir: ResultsDir = None,
) -> None:
    """Which cells moved between two results, by how much, and whether beyond noise: seeds × patients that both have.

    Rows are the same job, also of two versions of sslbench. Exit code 0: nothing differs; 1: something does.
    """
    from sslbench.cli.reports import opened_report, warn_of
    from sslbench.cli.terminal.changes import changes
    from sslbench.core import registry, settings
    from sslbench.reporting.diff import as_data, diff_records, summary

    opened(data_dir)
    results = settings.results_dir(results_dir)
    protocol = protocol and registry.component("protocol", protocol).name
    made = [opened_report(what, Choice(), results, protocol) for what in (first, second)]
    warn_of(*made)
    change = diff_records(*(each.found.records for each in made))
    if as_json:
        print_json(as_data(change))
    else:
        changes(out(), change, summary(change))
    if not change.equal:
        raise typer.Exit(1)
