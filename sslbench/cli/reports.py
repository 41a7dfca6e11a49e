"""What a report is of: a grid, a folder of results, or a file of records. Commands that read results share it."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslbench.cli.console import warn
from sslbench.cli.options import Choice
from sslbench.core.errors import SSLBenchError, UsageError

if TYPE_CHECKING:
    from sslbench.reporting.report import Report
    from sslbench.runs.collect import Collection
    from sslbench.runs.directory import Run


def opened_report(
    what: str | None, choice: Choice, results: Path, protocol: str | None = None, checkpoint: str | None = None
) -> Report:
    """The report of what was named; it has results.

    Args:
        what: a grid by name or its file, a results folder, or a file of records; None: all of `results`.
        choice: which jobs of the grid.
        results: the folder that holds `runs`.
        protocol, checkpoint: whose records; None: the runs' own.

    Raises:
        UsageError: there is nothing, or no result yet.
        SSLBenchError: only damaged records, or directories that are not what their names say.
    """
    from sslbench.config.grid import load_grid
    from sslbench.reporting.tables import grid_report, records_report
    from sslbench.runs.directory import IMPORTED, RUNS, Run, runs_below

    if what is not None and not names_records(what):
        grid = choice.settled(choice.presented(load_grid(what)), results)
        jobs = choice.jobs(grid)
        made = grid_report(grid, jobs, results, protocol, checkpoint)
        if made.empty:
            warn_of(made)
            raise _nothing([Run.of(job, results) for job in jobs], grid.name, results, protocol, checkpoint)
        if protocol and not any(table.columns for table in made.tables):
            asked = ", ".join(column.key for column in grid.table.wanted())
            raise UsageError(f"protocol {protocol} measures no column of the table of {grid.name}: {asked}")
        return replace(made, choice=choice.given)
    if what is None and not any((results / folder).exists() for folder in (RUNS, IMPORTED)):
        choice.no_grid()
        raise _nothing([], None, results, protocol, checkpoint)
    source = results if what is None else Path(what)
    of_grid = _of_file(source, choice, protocol, checkpoint) if source.is_file() else None
    if of_grid is None:
        choice.no_grid()
    made = of_grid or replace(records_report(source, protocol, checkpoint, choice.baseline), choice=choice.given)
    if made.empty:
        warn_of(made)
        raise _nothing(runs_below(source / RUNS if what is None else source), None, source, protocol, checkpoint)
    return made


def _of_file(path: Path, choice: Choice, protocol: str | None, checkpoint: str | None) -> Report | None:
    """The report of the grid whose records a file holds, as its manifest says; None where that names no grid, or one
    that this installation cannot expand."""
    from sslbench.runs.collect import collect

    found = collect(path)
    manifest = dict(found.manifest or {})
    if not manifest.get("grid"):
        return None
    asked = {"choice": choice.given, "protocol": protocol, "checkpoint": checkpoint}
    manifest |= {name: value for name, value in asked.items() if value}
    try:
        return remade(manifest, found, path)
    except UsageError as error:
        warn(f"{path} is of grid {manifest['grid']['name']}, which cannot be made here: {error}")
        return None


def remade(manifest: Mapping[str, Any], found: Collection, source: Path) -> Report:
    """The report that a manifest is of, made of records that were read.

    Args:
        manifest: of format 2.
        found: the records of its runs.
        source: where these were read from.

    Raises:
        UsageError: its grid names what is not installed here.
        SSLBenchError: the records make no table.
    """
    from sslbench.reporting.manifest import grid_in
    from sslbench.reporting.tables import grid_report, records_report

    asked = (manifest["protocol"], manifest["checkpoint"])
    grid, choice = grid_in(manifest), Choice(**manifest["choice"])
    if grid is None:
        return records_report(source, *asked, choice.baseline, kept=found)
    grid = choice.presented(grid)
    return replace(grid_report(grid, choice.jobs(grid), source, *asked, kept=found), choice=choice.given)


def command_line() -> str:
    """The command that runs, as one would type it."""
    return shlex.join(["sslbench", *sys.argv[1:]])


def names_records(what: str) -> bool:
    """Whether a name is of records rather than of a grid: a file of them, or a folder that no grid is called like."""
    from sslbench.config.grid import grid_files
    from sslbench.runs.archive import RECORD_ENDINGS

    return what.endswith(RECORD_ENDINGS) or (Path(what).is_dir() and what not in grid_files())


def warn_of(*made: Report) -> None:
    """Say which files of reports could not be used, each once."""
    for warning in dict.fromkeys(warning for report in made for warning in report.found.warnings):
        warn(warning)


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
