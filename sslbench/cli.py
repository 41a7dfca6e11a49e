"""The command line: parses, calls, prints. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from sslbench import __version__
from sslbench.errors import SSLBenchError, UsageError

if TYPE_CHECKING:
    from sslbench.config import Grid
    from sslbench.execution.local import Planned

app = typer.Typer(
    name="sslbench",
    help="Benchmark semi-supervised medical image segmentation: prepare data, run a grid of jobs, report the table.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DataDir = Annotated[Path | None, typer.Option(help="Prepared datasets [env SSLBENCH_DATA; default data/].")]
ResultsDir = Annotated[Path | None, typer.Option(help="Runs and reports [env SSLBENCH_RESULTS; default results/].")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change a field, e.g. optimizer.lr=0.005.")
]
Json = Annotated[bool, typer.Option("--json/--no-json", help="Machine-readable output on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet/--no-quiet", "-q", help="Print less.")]
GridArgument = Annotated[str | None, typer.Argument(metavar="[NAME|FILE]", help="A grid by name, or its YAML file.")]


def main() -> None:
    """Entry point: errors of ours become one line and an exit code."""
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    try:
        app()
    except SSLBenchError as error:
        if debug:
            raise
        _fail(error.message, error.hint, error.exit_code)
    except BrokenPipeError:
        # A reader like `head` had enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if debug:
            raise
        _fail(f"{error.filename or 'I/O'}: {error.strerror or error}", "", 1)


def _fail(message: str, hint: str, code: int) -> NoReturn:
    console = _err()
    console.print(f"[bold red]error:[/] {_escape(message)}", soft_wrap=True, highlight=False)
    if hint:
        console.print(f"       {_escape(hint)}", soft_wrap=True, highlight=False)
    sys.exit(code)


def _version(asked: bool) -> None:
    if asked:
        print(f"sslbench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback where an error ends a command.")] = False,
) -> None:
    pass


# ------------------------------------------------------------------------------------------------------- prepare


@app.command()
def prepare(
    dataset: Annotated[str, typer.Argument(help="synapse, acdc, phantom, ...: see `sslbench list datasets`.")],
    source: Annotated[Path | None, typer.Option(help="Folder with the official files.")] = None,
    preprocessing: Annotated[
        str | None, typer.Option(help="A named preprocessing; default: the dataset's first.")
    ] = None,
    set: Sets = None,
    workers: Annotated[
        int | None, typer.Option("--workers", "-j", help="Cases at a time; default: one per core.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force/--no-force", "-f", help="Prepare cases again that are there.")
    ] = False,
    quiet: Quiet = False,
    data_dir: DataDir = None,
) -> None:
    """Read official files, check them, and write the verified cache that training reads."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from sslbench import settings
    from sslbench.data.prepare import prepare as prepare_dataset
    from sslbench.spelling import parse_set

    console = _err()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as progress:
        tasks: dict[str, Any] = {}

        def on_case(case: str, state: str) -> None:
            stage = "generate" if state == "generated" else "prepare"
            if stage not in tasks:
                tasks[stage] = progress.add_task(f"{stage} {dataset}", total=0 if state == "waiting" else None)
            if state == "waiting":
                progress.update(tasks[stage], total=(progress.tasks[tasks[stage]].total or 0) + 1)
            else:
                progress.advance(tasks[stage])

        report = prepare_dataset(
            dataset,
            source,
            data_dir=settings.data_dir(data_dir),
            preprocessing=preprocessing,
            options=parse_set(set or []),
            workers=workers or os.cpu_count() or 1,
            force=force,
            progress=on_case,
        )
    for note in report.notes:
        console.print(_escape(note), soft_wrap=True, highlight=False)
    for case, reason in report.failed.items():
        console.print(f"[red]{_escape(case)}[/]: {_escape(reason)}", soft_wrap=True, highlight=False)
    subset = (
        "" if report.found >= report.official else f" — a subset: {report.found} of {report.official} official cases"
    )
    if not quiet:
        print(
            f"{report.dataset} ({report.preprocessing}): {report.written} written, {report.unchanged} unchanged, "
            f"{len(report.failed)} failed in {report.seconds:.1f} s -> {report.folder}{subset}"
        )
    if report.failed:
        raise typer.Exit(1)


# ----------------------------------------------------------------------------------------------------------- run


@app.command()
def run(
    name: GridArgument = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="Run a grid; without a name, that of the prepared dataset.")
    ] = False,
    recipe: Annotated[str | None, typer.Option("--recipe", "-r", help="Recipe of a run without a grid.")] = None,
    method: Annotated[list[str] | None, typer.Option("--method", "-m", help="Methods; name[option=value].")] = None,
    loss: Annotated[list[str] | None, typer.Option("--loss", "-l", help="Losses; default: default.")] = None,
    plugin: Annotated[list[str] | None, typer.Option("--plugin", "-p", help="Plugins; default: none.")] = None,
    labeled: Annotated[list[str] | None, typer.Option("--labeled", help="Label budgets, e.g. 20%.")] = None,
    seed: Annotated[
        list[str] | None, typer.Option("--seed", "-s", help="Seeds: 0,1 or 0-2; default: the recipe's.")
    ] = None,
    set: Sets = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Jobs at a time; default: one per GPU or core.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1; default: the GPUs there are, else the CPU.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads per job; default: cores / jobs.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run/--no-dry-run", "-n", help="Print the plan; write nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force/--no-force", "-f", help="Start over; old results are kept aside.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed/--no-retry-failed", help="Run failed jobs again.")
    ] = False,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="Live bars on a terminal.")] = True,
    quiet: Quiet = False,
    data_dir: DataDir = None,
    results_dir: ResultsDir = None,
) -> None:
    """Run a grid, or the product of the methods, losses, budgets and seeds given. Finished jobs are skipped,
    interrupted ones continue."""
    from sslbench import settings
    from sslbench.config import COMMAND_LINE, GridEntry
    from sslbench.config import Grid as GridModel
    from sslbench.execution import local
    from sslbench.execution.display import LiveDisplay, PlainDisplay
    from sslbench.spelling import parse_set

    data, results = settings.data_dir(data_dir), settings.results_dir(results_dir)
    if grid or name:
        if not grid:
            raise UsageError(f"unexpected argument '{name}'", f"to run a grid: sslbench run --grid {name}")
        clash = [
            flag
            for flag, value in (
                ("-r", recipe),
                ("-m", method),
                ("-l", loss),
                ("-p", plugin),
                ("--labeled", labeled),
                ("-s", seed),
            )
            if value
        ]
        if clash:
            raise UsageError(
                f"--grid and {clash[0]} do not go together", "a grid names its own jobs; use --set for fields"
            )
        chosen = _grid_or_default(name, data)
    else:
        if not (recipe and method and labeled):
            missing = [
                flag
                for flag, value in (("--recipe", recipe), ("--method", method), ("--labeled", labeled))
                if not value
            ]
            raise UsageError(f"missing {', '.join(missing)}", "or run a grid: sslbench run --grid [NAME]")
        entry = GridEntry(
            method=_several(method), loss=_several(loss) or ["default"], plugin=_several(plugin) or [None],
            labeled=_several(labeled), seeds=_seeds(seed),
        )  # fmt: skip
        chosen = GridModel(name=COMMAND_LINE, recipe=[recipe], jobs=[entry])
    expanded = chosen.expand(parse_set(set or []))

    if dry_run:
        try:
            stores = local.check_data(expanded, data)
        except UsageError as error:
            _err().print(f"[yellow]not ready:[/] {_escape(str(error))}", soft_wrap=True, highlight=False)
            stores = {}
        plan = local.make_plan(expanded, results, stores, retry_failed, force)
        slots = jobs or local.default_slots()
        devices = local.slot_devices(min(slots, len(plan)), device)
        _print_plan(plan, devices)
        return
    stores = local.check_data(expanded, data)
    plan = local.make_plan(expanded, results, stores, retry_failed, force)
    slots = min(jobs or local.default_slots(), len(plan))
    devices = local.slot_devices(slots, device)
    worker_threads = threads or max(1, (os.cpu_count() or 1) // slots)
    console = _err()
    live = progress and console.is_terminal and not quiet
    kind = LiveDisplay if live else PlainDisplay
    with kind(Console(quiet=True) if quiet else console) as display:
        code = local.Launcher(plan, data, devices, worker_threads, display).run(force)
    if not quiet:
        _print_outcome(chosen, plan, results_dir)
    if code:
        raise typer.Exit(code)


@app.command(hidden=True)
def worker(directory: Path, data_dir: DataDir = None, device: str | None = None, threads: int | None = None) -> None:
    """Run the job of a run directory in this process (what `run` starts)."""
    from sslbench import settings
    from sslbench.execution.worker import main as work

    raise typer.Exit(work(directory, settings.data_dir(data_dir), device, threads))


# ---------------------------------------------------------------------------------------------- status, validate


@app.command()
def status(
    name: GridArgument = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    results_dir: ResultsDir = None,
) -> None:
    """Where jobs stand: those of a grid, or every run there is."""
    from rich.table import Table

    from sslbench import settings
    from sslbench.config import load_grid
    from sslbench.execution.display import progress_cells
    from sslbench.execution.rundir import RunDirectory
    from sslbench.files import read_json

    results = settings.results_dir(results_dir)
    if name:
        runs = [RunDirectory.of(job, results) for job in load_grid(name).expand()]
    else:
        found = sorted((results / "runs").glob("*/*/*/seed-*/config.yaml"))
        runs = [RunDirectory(path.parent) for path in found if ".old-" not in path.parent.name]
    rows = []
    for run_dir in runs:
        state, record = run_dir.state(), run_dir.status()
        rows.append(
            {
                "run": str(run_dir.path.relative_to(results / "runs")),
                "state": state,
                "attempts": record.get("attempts", 0),
                "error": record.get("error", ""),
                "progress": read_json(run_dir.progress_file) or {},
            }
        )
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        _err().print("no runs yet: sslbench run --grid [NAME]")
        return
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for header in ("run", "state", "step", "loss", "val. DSC", "it/s", "left", "reason"):
        table.add_column(header, overflow="fold")
    styles = {"finished": "green", "failed": "red", "running": "cyan", "interrupted": "yellow", "pending": "dim"}
    for row in rows:
        cells = progress_cells(row["progress"])
        if row["state"] != "running":
            cells[3:] = ["", ""]
        table.add_row(row["run"], f"[{styles[row['state']]}]{row['state']}[/]", *cells, _escape(str(row["error"])))
    _out().print(table)


@app.command()
def validate(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A grid by name, or its YAML file.")],
    set: Sets = None,
    as_json: Json = False,
) -> None:
    """Check a grid and show every resolved value with the layer it came from."""
    from rich.table import Table

    from sslbench.config import load_grid
    from sslbench.spelling import parse_set

    jobs = load_grid(name).expand(parse_set(set or []))
    first_of: dict[str, Any] = {}
    for job in jobs:
        first_of.setdefault(job.digest(), job)
    resolved = [job.resolved for job in first_of.values()]
    if as_json:
        print(
            json.dumps(
                [
                    {"job": r.job.model_dump(), "digest": r.digest, "values": r.values, "layers": r.layers}
                    for r in resolved
                ],
                indent=2,
            )
        )
        return
    shared = [
        path
        for path in resolved[0].values
        if all(
            (r.values.get(path), r.layers.get(path)) == (resolved[0].values[path], resolved[0].layers[path])
            for r in resolved
        )
    ]
    console = _out()

    def show(title: str, values: dict[str, Any], layers: dict[str, str], paths: list[str]) -> None:
        console.print(f"[bold]{_escape(title)}[/]", soft_wrap=True, highlight=False)
        if not paths:
            console.print(" nothing of its own")
            return
        table = Table(box=None, padding=(0, 1), header_style="dim")
        for header in ("field", "value", "from"):
            table.add_column(header, overflow="fold")
        for path in paths:
            table.add_row(path, _escape(json.dumps(values[path])), layers[path])
        console.print(table)

    if len(resolved) > 1:
        show("all jobs", resolved[0].values, resolved[0].layers, shared)
    for r in resolved:
        own = [path for path in r.values if len(resolved) == 1 or path not in shared]
        seeds = [str(job.seed) for job in jobs if job.digest() == r.digest]
        show(
            f"\n{Path(*r.job.directory.parts[:3])}  seeds {', '.join(seeds)}  digest {r.digest[:8]}",
            r.values,
            r.layers,
            own,
        )
    console.print(f"\n{len(jobs)} jobs, {len(resolved)} configurations: valid")


# ------------------------------------------------------------------------------------------------- list, report


@app.command("list")
def list_(
    what: Annotated[
        str,
        typer.Argument(help="methods, losses, plugins, weightings, datasets, recipes, networks, protocols or grids"),
    ],
    as_json: Json = False,
) -> None:
    """List what a job can name."""
    from rich.table import Table

    from sslbench.listing import listing

    rows = listing(what)
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    if not rows:
        _err().print(f"no {what} are registered")
        return
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for header in ("name", "aliases", "about"):
        table.add_column(header, overflow="fold")
    for row in rows:
        indent = "  " if row.get("preset_of") else ""
        table.add_row(indent + row["name"], ", ".join(row["aliases"]), _escape(row["about"]))
    _out().print(table)


@app.command()
def report(
    name: GridArgument = None,
    latex: Annotated[bool, typer.Option("--latex", help="A booktabs table.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="GitHub's table.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Tidy, unrounded numbers.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
    set: Sets = None,
    results_dir: ResultsDir = None,
) -> None:
    """The table of a grid, or one of every finished run per recipe and budget."""
    from sslbench import settings
    from sslbench.config import load_grid
    from sslbench.files import write_json, write_text
    from sslbench.reporting import latex as latex_module
    from sslbench.reporting import render, tables
    from sslbench.spelling import parse_set

    chosen = [label for label, asked in (("--latex", latex), ("--markdown", markdown), ("--csv", csv)) if asked]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} do not go together", "ask for one format at a time")
    results = settings.results_dir(results_dir)
    if name:
        grid = load_grid(name)
        made = tables.grid_table(grid, grid.expand(parse_set(set or [])), results)
    else:
        made = tables.tables_of_runs(results) if (results / "runs").exists() else []
    if not made:
        raise UsageError(f"no finished run in {results}", "sslbench run --grid [NAME]")
    for warning in dict.fromkeys(warning for table in made for warning in table.warnings):
        _err().print(f"[yellow]warning:[/] {_escape(warning)}", soft_wrap=True, highlight=False)
    if latex:
        text = "\n\n".join(latex_module.latex(table) for table in made)
    elif markdown:
        text = "\n\n".join(render.markdown(table) for table in made)
    elif csv:
        text = render.tidy_csv(made)
    elif output:
        raise UsageError("-o needs a format", "add --latex, --markdown or --csv")
    else:
        console = _out()
        for table in made:
            console.print(render.terminal(table, console.width))
        return
    if output:
        write_text(output, text.rstrip("\n") + "\n")
        write_json(output.with_name(output.name + ".manifest.json"), tables.manifest(made))
        _err().print(f"wrote {output} and its manifest", soft_wrap=True, highlight=False)
    else:
        sys.stdout.write(text.rstrip("\n") + "\n")


# ------------------------------------------------------------------------------------------------- small pieces


def _grid_or_default(name: str | None, data: Path) -> Grid:
    """The grid named, or that of the one dataset that is prepared; the phantom counts only where it is alone."""
    from sslbench import registry
    from sslbench.config import load_grid

    if name:
        return load_grid(name)
    prepared = [dataset for dataset in registry.names("dataset") if list((data / dataset).glob("*/dataset.json"))]
    others = [dataset for dataset in prepared if dataset != "phantom"]
    candidates = others or prepared
    if not candidates:
        raise UsageError(
            f"no dataset is prepared in {data}", "sslbench prepare DATASET, for example: sslbench prepare phantom"
        )
    grids = {dataset: registry.component("dataset", dataset).default_grid for dataset in candidates}
    if len(candidates) > 1:
        known = ", ".join(f"{grid} ({dataset})" for dataset, grid in grids.items())
        raise UsageError("several datasets are prepared", f"name a grid: {known}")
    return load_grid(grids[candidates[0]])


def _several(values: list[str] | None) -> list[str]:
    """Repeated and comma-separated values as one list."""
    from sslbench.spelling import split_outside_brackets

    return [part for value in values or [] for part in split_outside_brackets(value)]


def _seeds(values: list[str] | None) -> list[int]:
    """`0,1` and `0-2` as numbers."""
    found: list[int] = []
    for part in _several(values):
        first, dash, last = part.partition("-")
        try:
            found += range(int(first), int(last) + 1) if dash else [int(first)]
        except ValueError:
            raise UsageError(f"cannot read the seed '{part}'", "write 0, 0,1 or 0-2") from None
    return list(dict.fromkeys(found))


def _print_plan(plan: list[Planned], devices: list[str]) -> None:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), header_style="bold")
    for header in ("job", "state", "plan"):
        table.add_column(header, overflow="fold")
    words = {"pending": "run", "interrupted": "continue", "failed": "run again", "finished": "run again"}
    for planned in plan:
        waits = "wait for its process" if planned.state == "running" else "skip"
        table.add_row(planned.job.title, planned.state, words.get(planned.state, "run") if planned.runs else waits)
    _out().print(table)
    count = sum(planned.runs for planned in plan)
    print(f"{len(plan)} jobs, {count} to run, {len(devices)} at a time on {', '.join(dict.fromkeys(devices))}")


def _print_outcome(grid: Grid, plan: list[Planned], results_dir: Path | None) -> None:
    from sslbench.config import COMMAND_LINE

    outcomes = [planned.outcome for planned in plan]
    counts = {outcome: outcomes.count(outcome) for outcome in ("finished", "failed", "interrupted")}
    console = _err()
    console.print(
        ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count or outcome == "finished")
    )
    for planned in plan:
        if planned.outcome == "failed":
            console.print(f"[red]failed[/] {_escape(planned.job.title)}: {_escape(planned.reason)}", soft_wrap=True)
            console.print(
                f"       log: {planned.run.log}; --retry-failed runs it again", soft_wrap=True, highlight=False
            )
    if counts["finished"]:
        which = "" if grid.name == COMMAND_LINE else f" {grid.name}"
        place = f" --results-dir {results_dir}" if results_dir else ""
        console.print(f"the table: sslbench report{which}{place}", highlight=False, soft_wrap=True)


def _out() -> Console:
    return Console(width=None if sys.stdout.isatty() else max(100, int(os.environ.get("COLUMNS", 0) or 0)))


def _err() -> Console:
    return Console(stderr=True)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
