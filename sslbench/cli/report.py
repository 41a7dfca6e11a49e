"""`sslbench report`: the tables of finished runs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sslbench.cli import completion
from sslbench.cli.console import note, out, warn
from sslbench.cli.options import (
    CheckpointName,
    DataDir,
    GridArgument,
    ResultsDir,
    Sets,
    checked_rule,
    flag,
    opened,
    option,
)
from sslbench.core.errors import SSLBenchError, UsageError

if TYPE_CHECKING:
    from sslbench.runs.directory import Run


def report(
    name: GridArgument = None,
    protocol: Annotated[
        str | None,
        option("NAME", "Records that `evaluate` made under it; default: the runs' own.", complete=completion.protocols),
    ] = None,
    checkpoint: CheckpointName = None,
    latex: Annotated[bool, flag("A booktabs table.", "--latex/--no-latex")] = False,
    markdown: Annotated[bool, flag("GitHub's table.", "--markdown/--no-markdown")] = False,
    csv: Annotated[bool, flag("Tidy, unrounded numbers.", "--csv/--no-csv")] = False,
    as_json: Annotated[bool, flag("The same numbers with captions and runs.", "--json/--no-json")] = False,
    figures: Annotated[bool, flag("Draw every figure; -o names the folder.", "--figures/--no-figures")] = False,
    output: Annotated[Path | None, option("FILE", "Write to this file.", "--output", "-o")] = None,
    set: Sets = None,
    data_dir: DataDir = None,
    results_dir: ResultsDir = None,
) -> None:
    """The table of a grid, or one of every finished run per recipe and budget."""
    from sslbench.config.grid import load_grid
    from sslbench.config.text import parse_set
    from sslbench.core import registry, settings
    from sslbench.core.files import write_json, write_text
    from sslbench.reporting import tables
    from sslbench.reporting.render import terminal
    from sslbench.runs.directory import RUNS, Run, runs_below

    formats = {"--latex": latex, "--markdown": markdown, "--csv": csv, "--json": as_json, "--figures": figures}
    chosen = [label for label, asked in formats.items() if asked]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} do not go together", "ask for one format at a time")
    if output and not chosen:
        raise UsageError("-o needs a format", f"add {', '.join(formats)}")
    results = settings.results_dir(results_dir)
    data = opened(data_dir)
    protocol = protocol and registry.component("protocol", protocol).name
    checkpoint = checked_rule(checkpoint)
    if name:
        grid = load_grid(name)
        jobs = grid.expand(parse_set(set or []))
        made = tables.grid_table(grid, jobs, results, protocol, checkpoint)
        runs = [Run.of(job, results) for job in jobs]
    else:
        made = tables.tables_of_runs(results, protocol, checkpoint) if (results / RUNS).exists() else []
        runs = [] if made else runs_below(results / RUNS)
    for warning in dict.fromkeys(warning for table in made for warning in table.warnings):
        warn(warning)
    if not any(row.n for table in made for row in table.rows):
        raise _nothing(runs, name, results, protocol, checkpoint)
    if protocol and not any(table.columns for table in made):
        asked = ", ".join(column.key for column in grid.table.wanted())
        raise UsageError(f"protocol {protocol} measures no column of the table of {name}: {asked}")
    if figures:
        from sslbench.cli.figures import default_folder, draw_figures

        folder = output or default_folder(results, made[0].grid)
        draw_figures(made, results, folder, data, protocol, checkpoint)
    elif chosen:
        text = _rendered(made, chosen[0]).rstrip("\n") + "\n"
        if output:
            write_text(output, text)
            write_json(output.with_name(output.name + ".manifest.json"), tables.manifest(made))
            note(f"wrote {output} and its manifest")
        else:
            sys.stdout.write(text)
    else:
        console = out()
        for table in made:
            console.print(terminal(table, console.width))
    if any(table.damaged for table in made):
        raise typer.Exit(1)


def _nothing(
    runs: Sequence[Run], grid: str | None, results: Path, protocol: str | None, checkpoint: str | None
) -> SSLBenchError:
    """Why there is nothing to report, and what to do: an error in the records, or else one of usage."""
    if not runs:
        return UsageError(f"no finished run in {results}", "sslbench run --grid [NAME]")
    scored = "not scored under " + protocol if protocol else "not scored"
    if checkpoint and not any(run.tested(checkpoint).cases.exists() for run in runs if run.state == "finished"):
        scored = f"not tested with the weights of {checkpoint}"
    words = {"pending": "not started", "finished": scored}
    states = Counter(words.get(run.state, run.state) for run in runs)
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    whose = f"grid {grid}" if grid else "its runs"
    message = f"no result of {whose} in {results}: {len(runs)} of {len(runs)} runs have no result ({told})"
    if states["damaged"]:
        return SSLBenchError(message, "sslbench status says what is damaged; sslbench run makes records again")
    if states[scored] and "tested" in scored:
        return UsageError(message, "a recipe asks for that by `checkpoints: [best-val, last]`, before the run begins")
    if states[scored]:
        return UsageError(message, f"sslbench evaluate {grid or results} --protocol {protocol} scores them")
    return UsageError(message, f"sslbench run --grid {grid or '[NAME]'}")


def _rendered(made: list[Any], form: str) -> str:
    from sslbench.cli.listing import numbers
    from sslbench.reporting import latex, render

    if form == "--json":
        return json.dumps(numbers(made), indent=2)
    if form == "--csv":
        return render.tidy_csv(made)
    return "\n\n".join(latex.latex(table) if form == "--latex" else render.markdown(table) for table in made)
