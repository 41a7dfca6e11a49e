"""The command line: parses, calls, prints. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from sslbench import __version__
from sslbench.cli import completion
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

_WHAT, _HOW, _OUTPUT = "What to run", "How to run it", "Output and places"
_FOLDER = "A folder of label maps"
_OWN, _LISTS = "Data of your own", "Case lists and label budgets (own data, and lists of your own)"


def _value(metavar: str, help: str, *flags: str, panel: str | None = None, complete: Any = None, **more: Any) -> Any:
    """An option that takes a value; its default is said in the help, where there is one."""
    shown: dict[str, Any] = {"metavar": metavar, "help": help, "show_default": False}
    return typer.Option(..., *flags, rich_help_panel=panel, autocompletion=complete, **shown, **more)


def _flag(help: str, *flags: str, panel: str | None = None, **more: Any) -> Any:
    """An option that is on or off: always a pair. A type and a default would tell nobody anything."""
    return typer.Option(..., *flags, help=help, metavar="", show_default=False, rich_help_panel=panel, **more)


def _argument(metavar: str, help: str, complete: Any) -> Any:
    return typer.Argument(metavar=metavar, help=help, show_default=False, autocompletion=complete)


def _set(help: str, complete: Any, panel: str | None = None) -> Any:
    return _value("PATH=VALUE", help, "--set", panel=panel, complete=complete)


DataDir = Annotated[Path | None, _value("DIR", "Prepared datasets: SSLBENCH_DATA, else data/.", panel=_OUTPUT)]
ResultsDir = Annotated[Path | None, _value("DIR", "Runs and reports: SSLBENCH_RESULTS, else results/.", panel=_OUTPUT)]
Sets = Annotated[list[str] | None, _set("Change a field, e.g. optimizer.lr=0.005.", completion.settings)]
Json = Annotated[bool, _flag("Machine-readable, alone on stdout.", "--json/--no-json", panel=_OUTPUT)]
Quiet = Annotated[bool, _flag("Print less.", "--quiet/--no-quiet", "-q", panel=_OUTPUT)]
GridArgument = Annotated[str | None, _argument("GRID", "A grid by name, or its YAML file.", completion.grids)]


def main() -> None:
    """Entry point: errors of ours and of the command line become one line, a hint and an exit code."""
    debug = _take_debug()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show ± gets a question mark, not a traceback.
        getattr(stream, "reconfigure", lambda **how: None)(errors="replace")
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.showwarning = _warn
            code = app(prog_name="sslbench", standalone_mode=False)
    except SSLBenchError as error:
        if debug:
            raise
        _fail(error.message, error.hint, error.exit_code)
    except typer.Abort:
        sys.exit(130)
    except BrokenPipeError:
        # A reader like `head` had enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if debug:
            raise
        _fail(f"{error.filename or 'I/O'}: {error.strerror or error}", "", 1)
    except Exception as error:
        _fail_on_typers(error)
        if debug:
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        _fail(reason, "a bug in sslbench: --debug shows where", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _take_debug() -> bool:
    """Whether `--debug` stands anywhere on the line; taken off it, so that every command knows the option."""
    debug, kept = False, []
    for argument in sys.argv:
        if argument in ("--debug", "--no-debug"):
            debug = argument == "--debug"
        else:
            kept.append(argument)
    sys.argv = kept
    return debug


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as one line, without the place in the code that Python adds."""
    _err().print(f"[yellow]warning:[/] {_escape(str(message))}", soft_wrap=True, highlight=False)


def _fail(message: str, hint: str, code: int) -> NoReturn:
    console = _err()
    console.print(f"[bold red]error:[/] {_escape(message)}", soft_wrap=True, highlight=False)
    if hint:
        console.print(f"       {_escape(hint)}", soft_wrap=True, highlight=False)
    sys.exit(code)


def _fail_on_typers(error: Exception) -> None:
    """Typer's own errors, known by what they have: their classes moved between its versions."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
        sys.exit(2)
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        message = " ".join(error.format_message().split())
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "sslbench"
        _fail(message[:1].lower() + message[1:].rstrip("."), f"{command} --help", error.exit_code)


def _version(asked: bool) -> None:
    if asked:
        print(f"sslbench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, _flag("Print the version.", "--version", callback=_version, is_eager=True)] = False,
    debug: Annotated[bool, _flag("Show a traceback where an error ends a command.", "--debug/--no-debug")] = False,
) -> None:
    pass


# ------------------------------------------------------------------------------------------------------- prepare


@app.command()
def prepare(
    dataset: Annotated[
        str, _argument("DATASET", "synapse, acdc, phantom, ...: see `sslbench list datasets`.", completion.datasets)
    ],
    source: Annotated[Path | None, _value("PATH", "Folder or archive (zip, tar, tar.gz) of what you hold.")] = None,
    download: Annotated[
        bool, _flag("Download the official release, or say how to get it.", "--download/--no-download")
    ] = False,
    from_nnunet: Annotated[
        Path | None,
        _value("DIR", "Define DATASET by an nnU-Net raw or MSD folder.", "--from-nnunet", "--from-msd", panel=_OWN),
    ] = None,
    from_pairs: Annotated[
        Path | None, _value("DIR", "Define DATASET by images and masks: NAME.jpg, NAME_mask.jpg.", panel=_OWN)
    ] = None,
    classes: Annotated[
        list[str] | None, _value("NAMES", "What the mask values 1, 2, ... mean: a,b.", panel=_OWN)
    ] = None,
    channels: Annotated[list[str] | None, _value("NAMES", "What its channels are: CT, or T1,T2.", panel=_OWN)] = None,
    dims: Annotated[
        int | None, _value("2|3", "Train on slices or on volumes; default: as voxels are.", panel=_OWN, min=2, max=3)
    ] = None,
    patient_pattern: Annotated[
        str | None, _value("REGEX", "Finds the patient in a case's name; default: a case is one.", panel=_OWN)
    ] = None,
    splits: Annotated[
        Path | None, _value("FILE", "Lists in YAML, or nnU-Net's splits_final.json.", panel=_LISTS)
    ] = None,
    split_seed: Annotated[int, _value("N", "Of lists and budgets that are drawn (0).", panel=_LISTS)] = 0,
    fractions: Annotated[str | None, _value("A,B,C", "Train, val and test (70,10,20).", panel=_LISTS)] = None,
    budgets: Annotated[
        list[str] | None, _value("BUDGETS", "Shares or numbers of patients (5%,10%,20%,100%).", panel=_LISTS)
    ] = None,
    preprocessing: Annotated[
        str | None,
        _value("NAME", "A named preprocessing; default: the dataset's first.", complete=completion.preprocessings),
    ] = None,
    set: Annotated[
        list[str] | None,
        _set("Change an option of the dataset: see `sslbench show dataset`.", completion.dataset_settings),
    ] = None,
    workers: Annotated[
        int | None, _value("N", "Cases at a time; default: one per core.", "--workers", "-j", min=1)
    ] = None,
    force: Annotated[
        bool, _flag("Prepare again what is there; define own data anew.", "--force/--no-force", "-f")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Read official files or your own, check them, and write the verified cache that training reads."""
    from dataclasses import asdict

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from sslbench.data.prepare import prepare as prepare_dataset
    from sslbench.spelling import parse_set

    console, data = _err(), _opened(data_dir)
    folder = from_nnunet or from_pairs
    own = {
        "--classes": classes,
        "--channels": channels,
        "--dims": dims,
        "--patient-pattern": patient_pattern,
        "--fractions": fractions,
    }
    both = {"--source": source, "--download": download, "--from-nnunet": from_nnunet, "--from-pairs": from_pairs}
    if len(given := [flag for flag, value in both.items() if value]) > 1:
        raise UsageError(f"{given[0]} and {given[1]} do not go together", "name one folder")
    if not folder and (alone := [flag for flag, value in own.items() if value]):
        raise UsageError(f"{alone[0]} belongs to data of your own", "name a folder with --from-nnunet or --from-pairs")
    lists: dict[str, Any] = {"data_dir": data, "seed": split_seed, "budgets": _several(budgets) or None, "force": force}
    told: dict[str, Any] = {}
    if folder:
        from sslbench.data.define import define

        layout: Any = "pairs" if from_pairs else "nnunet"
        shares = _shares(fractions)
        defined = define(
            dataset, folder, layout, classes=_several(classes), channels=_several(channels), dims=dims,
            patients=patient_pattern, splits=splits, fractions=shares, **lists,
        )  # fmt: skip
        told = {"splits": [made.name for made in defined.splits], "recipe": str(defined.recipe)}
        for line in () if quiet else defined.lines:
            console.print(_escape(line), soft_wrap=True, highlight=False)
    elif splits and not source and any((data / dataset).glob("*/dataset.json")):
        names = _added(dataset, splits, lists, quiet)
        if as_json:
            _print_json({"dataset": dataset, "splits": names})
        return
    if download:
        source = _downloaded(dataset, data, quiet)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as progress:
        tasks: dict[str, Any] = {}

        def on_case(case: str, state: str) -> None:
            stage = {"generated": "generate", "unpacked": "unpack"}.get(state, "prepare")
            if stage not in tasks:
                tasks[stage] = progress.add_task(f"{stage} {dataset}", total=0 if state == "waiting" else None)
            if state == "waiting":
                progress.update(tasks[stage], total=(progress.tasks[tasks[stage]].total or 0) + 1)
            else:
                progress.advance(tasks[stage])

        report = prepare_dataset(
            dataset,
            source or folder,
            data_dir=data,
            preprocessing=preprocessing,
            options=parse_set(set or []),
            workers=workers or os.cpu_count() or 1,
            force=force,
            progress=on_case,
        )
    if splits and not folder:
        told = {"splits": _added(dataset, splits, lists, quiet)}
    if not quiet and not as_json:
        for line in (f"recognised: {report.recognised}", *report.notes):
            console.print(_escape(line), soft_wrap=True, highlight=False)
    for case, reason in report.failed.items():
        console.print(f"[red]{_escape(case)}[/]: {_escape(reason)}", soft_wrap=True, highlight=False)
    subset = (
        "" if report.found >= report.official else f" — a subset: {report.found} of {report.official} official cases"
    )
    if as_json:
        _print_json(asdict(report) | told)
    elif not quiet:
        print(
            f"{report.dataset} ({report.preprocessing}): {report.written} written, {report.unchanged} unchanged, "
            f"{len(report.failed)} failed in {report.seconds:.1f} s -> {report.folder}{subset}"
        )
    if report.failed:
        raise typer.Exit(1)


def _opened(data_dir: Path | None) -> Path:
    """The data folder; the datasets, recipes and lists that are declared in it are known from here on."""
    from sslbench import settings
    from sslbench.data.own import load_all

    folder = settings.data_dir(data_dir)
    load_all(folder)
    return folder


def _downloaded(dataset: str, data: Path, quiet: bool) -> Path:
    """The archive of a dataset's official release, downloaded; where that is not possible, the way to it is printed."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from sslbench import registry
    from sslbench.data.download import can_download, download

    kind, console = registry.component("dataset", dataset), _err()
    if not can_download(kind):
        for number, step in enumerate(kind.access, 1):
            console.print(f"{number}. {_escape(step)}", soft_wrap=True, highlight=False)
        way = "the steps above say how to get it" if kind.access else kind.source_hint
        raise UsageError(f"{kind.name} cannot be downloaded by sslbench", way)
    remote = kind.remote
    if remote is not None and not quiet:
        told = [f"downloads {remote.url}, licence {remote.licence}"]
        if not remote.tried:
            told.append("untried: this could not be tried when it was written down")
        if remote.hash is None:
            told.append("no checksum of it is known: only its archive's own ones are checked")
        for line in told:
            console.print(_escape(line), soft_wrap=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    live = console.is_terminal and not quiet
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not live, transient=True) as progress:
        task = progress.add_task(f"download {dataset}", total=None)
        return download(kind, data, lambda file, done, total: progress.update(task, completed=done, total=total))


def _added(dataset: str, file: Path, how: dict[str, Any], quiet: bool) -> list[str]:
    """Add a user's lists to a prepared dataset; their names."""
    from sslbench.data.define import add_splits, told_lists

    made = add_splits(dataset, file, **how)
    for line in () if quiet else told_lists(made):
        _err().print(f"{_escape(line)}; --set splits={made[0].name} uses them", soft_wrap=True, highlight=False)
    return [lists.name for lists in made]


def _shares(text: str | None) -> list[float] | None:
    """`70,10,20` as numbers."""
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"cannot read the fractions '{text}'", "three numbers for train, val and test: 70,10,20"
        ) from None


# --------------------------------------------------------------------------------------------------------- audit


@app.command()
def audit(
    dataset: Annotated[str, _argument("DATASET", "A prepared dataset.", completion.datasets)],
    preprocessing: Annotated[
        str | None,
        _value("NAME", "A named preprocessing; default: the dataset's first.", complete=completion.preprocessings),
    ] = None,
    splits: Annotated[str | None, _value("NAME", "Lists to look at; default: all of the dataset.")] = None,
    recipe: Annotated[
        str | None,
        _value(
            "NAME",
            "Whose patches to draw; default: one that trains on it.",
            "--recipe",
            "-r",
            complete=completion.recipes,
        ),
    ] = None,
    figure: Annotated[Path | None, _value("FILE", "Draw the class shares: .png, .pdf, .svg.")] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Read a prepared dataset whole: files, labels, duplicates, class shares, and what its lists leak."""
    from contextlib import nullcontext

    from rich.text import Text

    from sslbench.cli.terminal import findings
    from sslbench.data import audit as auditing

    if figure:
        auditing.check_figure(figure)
    console = _err()
    with console.status("reading") if console.is_terminal else nullcontext() as spinner:
        report = auditing.audit(
            dataset,
            preprocessing=preprocessing,
            splits=splits,
            recipe=recipe,
            data_dir=_opened(data_dir),
            progress=(lambda case: spinner.update(Text(f"reading {case}"))) if spinner else None,
        )
    if as_json:
        _print_json(report.to_json())
    else:
        findings.audit(_out(), report.to_json())
    if figure:
        auditing.figure(report, figure)
        console.print(f"wrote {_escape(str(figure))}", soft_wrap=True, highlight=False)
    if report.worst == "error":
        raise typer.Exit(1)


# ----------------------------------------------------------------------------------------------------------- run


@app.command()
def run(
    name: GridArgument = None,
    grid: Annotated[
        bool, _flag("Run a grid; without a name, that of the prepared dataset.", "--grid/--no-grid", panel=_WHAT)
    ] = False,
    recipe: Annotated[
        str | None,
        _value("NAME", "Recipe of a run without a grid.", "--recipe", "-r", panel=_WHAT, complete=completion.recipes),
    ] = None,
    method: Annotated[
        list[str] | None,
        _value(
            "NAMES", "Methods: a,b or name\\[option=value].", "--method", "-m", panel=_WHAT, complete=completion.methods
        ),
    ] = None,
    loss: Annotated[
        list[str] | None,
        _value("NAMES", "Losses; default: default.", "--loss", "-l", panel=_WHAT, complete=completion.losses),
    ] = None,
    plugin: Annotated[
        list[str] | None,
        _value("NAMES", "Plugins; default: none.", "--plugin", "-p", panel=_WHAT, complete=completion.plugins),
    ] = None,
    labeled: Annotated[
        list[str] | None,
        _value("BUDGETS", "Label budgets, e.g. 20%.", "--labeled", panel=_WHAT, complete=completion.labeled),
    ] = None,
    seed: Annotated[
        list[str] | None, _value("SEEDS", "Seeds: 0,1 or 0-2; default: the recipe's.", "--seed", "-s", panel=_WHAT)
    ] = None,
    set: Annotated[
        list[str] | None, _set("Change a field of all jobs, e.g. optimizer.lr=0.005.", completion.settings, _WHAT)
    ] = None,
    jobs: Annotated[
        int | None, _value("N", "Jobs at a time; default: one per GPU or core.", "--jobs", "-j", panel=_HOW, min=1)
    ] = None,
    device: Annotated[
        str | None,
        _value(
            "DEVICE",
            "cpu, cuda, cuda:1; default: the GPUs there are, else the CPU.",
            panel=_HOW,
            complete=completion.devices,
        ),
    ] = None,
    threads: Annotated[
        int | None, _value("N", "CPU threads per job; default: cores / jobs.", panel=_HOW, min=1)
    ] = None,
    dry_run: Annotated[
        bool, _flag("Print the plan; write nothing.", "--dry-run/--no-dry-run", "-n", panel=_HOW)
    ] = False,
    force: Annotated[
        bool, _flag("Start over; old results are kept aside.", "--force/--no-force", "-f", panel=_HOW)
    ] = False,
    retry_failed: Annotated[
        bool, _flag("Run failed jobs again.", "--retry-failed/--no-retry-failed", panel=_HOW)
    ] = False,
    progress: Annotated[bool, _flag("Live bars on a terminal (on).", "--progress/--no-progress", panel=_OUTPUT)] = True,
    quiet: Quiet = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    results_dir: ResultsDir = None,
) -> None:
    """Run a grid, or the product of the methods, losses, budgets and seeds given. Finished jobs are skipped,
    interrupted ones continue."""
    from sslbench import settings
    from sslbench.cli.terminal.live import LiveDisplay, PlainDisplay
    from sslbench.execution import local
    from sslbench.spelling import parse_set

    data, results = _opened(data_dir), settings.results_dir(results_dir)
    axes = {"-r": recipe, "-m": method, "-l": loss, "-p": plugin, "--labeled": labeled, "-s": seed}
    chosen = _grid_or_default(name, data, axes) if grid else _grid_of(name, axes)
    expanded = chosen.expand(parse_set(set or []))
    missing = ""
    try:
        stores = local.check_data(expanded, data)
    except UsageError as error:
        if not dry_run:
            raise
        stores, missing = {}, str(error)
    plan = local.make_plan(expanded, results, stores, retry_failed, force)
    slots = min(jobs or local.default_slots(), len(plan))
    devices = local.slot_devices(slots, _checked_device(device, dry_run))
    if dry_run:
        _print_plan(plan, results, devices, missing, as_json)
        return
    console = _err()
    live = progress and console.is_terminal and not quiet
    kind = LiveDisplay if live else PlainDisplay
    worker_threads = threads or max(1, (os.cpu_count() or 1) // slots)
    with kind(Console(quiet=True) if quiet else console) as display:
        code = local.Launcher(plan, data, devices, worker_threads, display).run(force)
    if not quiet:
        _print_outcome(chosen, plan, results_dir)
    if as_json:
        _print_json(_plan_facts(plan, results, devices, missing))
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
    name: GridArgument = None, as_json: Json = False, data_dir: DataDir = None, results_dir: ResultsDir = None
) -> None:
    """Where jobs stand: those of a grid, or every run there is."""
    from sslbench import settings
    from sslbench.cli import listing
    from sslbench.cli.terminal.runs import runs
    from sslbench.config import load_grid

    _opened(data_dir)
    rows = listing.runs(settings.results_dir(results_dir), load_grid(name).expand() if name else None)
    if as_json:
        _print_json(rows)
    elif rows:
        runs(_out(), rows)
    else:
        _err().print("no runs yet: sslbench run --grid [NAME]", markup=False)


@app.command()
def validate(
    name: Annotated[str, _argument("GRID", "A grid by name, or its YAML file.", completion.grids)],
    set: Sets = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Check a grid and show every resolved value with the layer it came from."""
    from sslbench.cli.terminal.layers import layers
    from sslbench.config import load_grid
    from sslbench.spelling import parse_set

    _opened(data_dir)
    jobs = load_grid(name).expand(parse_set(set or []))
    seeds: dict[str, list[int]] = {}
    for job in jobs:
        seeds.setdefault(job.digest(), []).append(job.seed)
    first_of = {job.digest(): job for job in reversed(jobs)}
    resolved = [first_of[digest].resolved for digest in seeds]
    if as_json:
        _print_json(
            [{"job": r.job.model_dump(), "digest": r.digest, "values": r.values, "layers": r.layers} for r in resolved]
        )
        return
    titles = [
        f"{Path(*r.job.directory.parts[:3])}  seeds {', '.join(map(str, seeds[r.digest]))}  digest {r.digest[:8]}"
        for r in resolved
    ]
    rows = [{"title": title, "values": r.values, "layers": r.layers} for title, r in zip(titles, resolved, strict=True)]
    layers(_out(), rows)
    print(f"{len(jobs)} jobs, {len(resolved)} configurations: valid")


# ------------------------------------------------------------------------------------------- list, show, doctor


@app.command("list")
def list_(
    what: Annotated[
        str,
        _argument(
            "WHAT",
            "methods, losses, plugins, weightings, datasets, recipes, networks, protocols, grids or matrix",
            completion.lists,
        ),
    ],
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List what a job can name."""
    from sslbench.cli.listing import listing
    from sslbench.cli.terminal.listings import names
    from sslbench.cli.terminal.matrix import matrix

    _opened(data_dir)
    rows = listing(what)
    if as_json:
        _print_json(rows)
    elif what == "matrix":
        matrix(_out(), rows)
    elif rows:
        names(_out(), rows)
    else:
        _err().print(f"no {what} are registered")


@app.command()
def show(
    kind: Annotated[
        str,
        _argument("KIND", "method, loss, plugin, weighting, recipe, network, dataset or protocol", completion.kinds),
    ],
    name: Annotated[str, _argument("NAME", "A name, an alias or a preset.", completion.names)],
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Show one of them: its options with their sources, what it changes, what is known to be different."""
    from sslbench.cli.show import describe
    from sslbench.cli.terminal.cards import card

    _opened(data_dir)
    facts = describe(kind, name)
    if as_json:
        _print_json(facts)
    else:
        card(_out(), facts)


@app.command()
def check(
    what: Annotated[str, _argument("WHAT", "method: the laws; matrix: train every cell.", completion.checks)],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[METHOD]...",
            help="Names, or module:Class of your own; none: all.",
            show_default=False,
            autocompletion=completion.methods,
        ),
    ] = None,
    loss: Annotated[
        list[str] | None,
        _value("NAMES", "Losses; default: default (method), all (matrix).", "--loss", "-l", complete=completion.losses),
    ] = None,
    plugin: Annotated[
        str | None, _value("NAME", "A plugin on every network.", "--plugin", "-p", complete=completion.plugins)
    ] = None,
    dims: Annotated[str, _value("2d|3d", "Images to try on; default: both.")] = "2d,3d",
    law: Annotated[list[str] | None, _value("NAMES", "Laws to try; default: all.")] = None,
    steps: Annotated[int, _value("N", "Iterations of every phase of a cell (20).", min=1)] = 20,
    as_json: Json = False,
) -> None:
    """Hold methods against the laws that every method keeps, or train every method with every loss for some steps."""
    from contextlib import nullcontext

    from sslbench import conformance
    from sslbench.cli.terminal import laws, matrix
    from sslbench.conformance.subject import DIMS

    wanted = _several([dims])
    chosen = [kind for kind in DIMS if kind in wanted]
    if what not in ("method", "matrix") or len(chosen) < max(len(wanted), 1):
        raise UsageError(f"cannot check '{what}' on '{dims}'", "sslbench check method|matrix, --dims 2d,3d")
    console = _err()
    asked = _several(names), _several(loss), chosen
    with console.status("building") if console.is_terminal else nullcontext() as spinner:
        tell = spinner.update if spinner else lambda text: None
        if what == "matrix":
            rows = []
            for cell in conformance.check_matrix(steps, *asked, tell, plugin):
                rows.append(cell.to_json())
                if not as_json:  # it takes long: every cell is told as it ends
                    matrix.cell(_out(), rows[-1])
        else:
            rows = [verdict.to_json() for verdict in conformance.check_methods(*asked, _several(law), tell, plugin)]
    broken = sum(row["status"] in ("broken", "failed") for row in rows)
    if as_json:
        _print_json(rows)
    elif what == "matrix":
        matrix.cells(_out(), rows)
    else:
        laws.verdicts(_out(), rows, {name: law.statement for name, law in conformance.LAWS.items()})
    if broken:
        raise typer.Exit(1)


@app.command()
def doctor(
    verify: Annotated[bool, _flag("Hold every prepared file against its hash.", "--verify/--no-verify")] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    results_dir: ResultsDir = None,
) -> None:
    """Check versions, hardware, folders and prepared data; what is wrong comes with its remedy."""
    from contextlib import nullcontext

    from rich.text import Text

    from sslbench import settings
    from sslbench.cli.doctor import examine, verdict
    from sslbench.cli.terminal import findings

    console = _err()
    with console.status("looking around") if console.is_terminal else nullcontext() as spinner:
        tell = (lambda file: spinner.update(Text(f"reading {file}"))) if spinner else None
        found = examine(settings.data_dir(data_dir), settings.results_dir(results_dir), verify, tell)
    rows = [check.to_json() for check in found]
    worst = verdict(found)
    if as_json:
        _print_json({"status": worst, "checks": rows})
    else:
        findings.checks(_out(), rows)
        print(f"\n{worst}: " + ", ".join(f"{sum(c.status == s for c in found)} {s}" for s in ("ok", "warn", "fail")))
    if worst == "fail":
        raise typer.Exit(1)


# ------------------------------------------------------------------------------------------------------ evaluate


@app.command()
def evaluate(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|GRID|DIR...",
            help="Run directories, a results folder, a grid by name, or a folder of label maps (NIfTI, NRRD, MHA).",
            show_default=False,
            autocompletion=completion.targets,
        ),
    ],
    protocol: Annotated[
        list[str] | None, _value("NAMES", "Protocols: a,b; default: native.", complete=completion.protocols)
    ] = None,
    all_protocols: Annotated[
        bool, _flag("Every protocol side by side: the conversion table.", "--all-protocols/--no-all-protocols")
    ] = False,
    references: Annotated[
        Path | None, _value("DIR", "Folder of label maps to score against, matched by file name.", panel=_FOLDER)
    ] = None,
    dataset: Annotated[
        str | None,
        _value("NAME", "Score against a prepared dataset, by case id.", panel=_FOLDER, complete=completion.datasets),
    ] = None,
    preprocessing: Annotated[
        str | None, _value("NAME", "Of that dataset; default: its first.", complete=completion.preprocessings)
    ] = None,
    classes: Annotated[list[str] | None, _value("NAMES", "What the labels 1, 2, ... mean: a,b.", panel=_FOLDER)] = None,
    partial: Annotated[
        bool, _flag("References without a prediction are no failure.", "--partial/--no-partial", panel=_FOLDER)
    ] = False,
    resample: Annotated[
        bool,
        _flag("Bring predictions onto their reference's grid: nearest neighbour.", "--resample/--no-resample"),
    ] = False,
    ignore_affine: Annotated[
        bool, _flag("Compare arrays of one shape wherever they lie.", "--ignore-affine/--no-ignore-affine")
    ] = False,
    output: Annotated[
        Path | None, _value("FILE", "Write the records of a folder to this CSV.", "--output", "-o", panel=_FOLDER)
    ] = None,
    workers: Annotated[
        int | None, _value("N", "Cases at a time; default: one per core.", "--workers", "-j", min=1)
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    results_dir: ResultsDir = None,
) -> None:
    """Score predictions that exist under any protocol. A run keeps the records as cases-PROTOCOL.csv."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from sslbench import settings
    from sslbench.cli.terminal.scores import scores
    from sslbench.evaluation import conversion
    from sslbench.evaluation import evaluate as evaluation

    data = _opened(data_dir)
    if all_protocols and protocol:
        raise UsageError("--protocol and --all-protocols do not go together", "name some, or take all")
    if resample and ignore_affine:
        raise UsageError("--resample and --ignore-affine do not go together", "the one reads affines, the other not")
    protocols = evaluation.chosen_protocols(_several(protocol), all_protocols)
    request = evaluation.Request(
        targets=targets,
        protocols=protocols,
        data_dir=data,
        results_dir=settings.results_dir(results_dir),
        references=references,
        dataset=dataset,
        preprocessing=preprocessing,
        classes=_several(classes),
        geometry="resample" if resample else "voxels" if ignore_affine else "check",
        partial=partial,
        output=output,
        workers=workers or os.cpu_count() or 1,
    )
    console = _err()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as progress:
        bar = progress.add_task("score", total=0)

        def starting(title: str, cases: int) -> None:
            progress.update(bar, total=(progress.tasks[bar].total or 0) + cases)

        outcome = evaluation.evaluate(request, starting, lambda case: progress.advance(bar))
    rows = [row for scored in outcome.scores for row in conversion.side_by_side(scored, protocols)]
    for note in outcome.notes:
        console.print(_escape(note), soft_wrap=True, highlight=False)
    for what, why in outcome.failed.items():
        console.print(f"[red]{_escape(what)}[/]: {_escape(why)}", soft_wrap=True, highlight=False)
    if as_json:
        told = {"failed": outcome.failed, "notes": outcome.notes, "written": outcome.written}
        _print_json({"scores": rows, **told})
    elif not quiet:
        if rows:
            scores(_out(), rows)
        names = ", ".join(sorted({path.name for path in outcome.written}))
        places = {path.parent for path in outcome.written}
        if places:
            where = str(places.pop()) if len(places) == 1 else f"each of {len(places)} run directories"
            console.print(f"wrote {_escape(names)} in {_escape(where)}", soft_wrap=True, highlight=False)
    if outcome.failed:
        raise typer.Exit(1)


# ------------------------------------------------------------------------------------------------------- predict


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's directory.", show_default=False)],
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="Scans (NIfTI, NRRD, MHA, images), or folders of them; CASE_0000, CASE_0001 are channels.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, _value("DIR", "Folder for the label maps, one NAME.nii.gz each.", "--output", "-o")],
    modality: Annotated[
        str | None, _value("ct|mri|rgb", "Of the scans, where the run's dataset mixes them; default: its own.")
    ] = None,
    device: Annotated[
        str | None,
        _value("DEVICE", "cpu, cuda, cuda:1; default: the GPU there is, else the CPU.", complete=completion.devices),
    ] = None,
    threads: Annotated[int | None, _value("N", "CPU threads; default: torch's.", min=1)] = None,
    force: Annotated[bool, _flag("Make label maps again that are there.", "--force/--no-force", "-f")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Segment new scans with a trained run, in their own geometry. No reference and no prepared data is needed."""
    from dataclasses import asdict

    import torch
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from sslbench.execution.rundir import RunDirectory
    from sslbench.execution.trained import load_trained
    from sslbench.inference import predict as prediction

    _opened(data_dir)
    place = _checked_device(device, dry_run=False) or ("cuda" if torch.cuda.is_available() else "cpu")
    if threads:
        torch.set_num_threads(threads)
    trained = load_trained(RunDirectory(run), torch.device(place))
    scans = prediction.find_scans(inputs, trained.channels)
    console = _err()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as progress:
        bars: list[Any] = []

        def starting(name: str) -> Any:
            for bar in bars:
                progress.remove_task(bar)
            bars[:] = [progress.add_task(_escape(name), total=None)]
            return lambda done, total: progress.update(bars[0], completed=done, total=total)

        outcome = prediction.predict(trained, scans, output, modality, force, starting)
    for name, why in outcome.failed.items():
        console.print(f"[red]{_escape(name)}[/]: {_escape(why)}", soft_wrap=True, highlight=False)
    if as_json:
        _print_json(asdict(outcome))
    elif not quiet:
        there = f", {len(outcome.there)} there already" if outcome.there else ""
        print(f"{len(outcome.written)} written{there}, {len(outcome.failed)} failed -> {output}")
    if outcome.failed:
        raise typer.Exit(1)


# -------------------------------------------------------------------------------------------------------- report


@app.command()
def report(
    name: GridArgument = None,
    protocol: Annotated[
        str | None,
        _value("NAME", "Records that `evaluate` made under it; default: the runs' own.", complete=completion.protocols),
    ] = None,
    latex: Annotated[bool, _flag("A booktabs table.", "--latex/--no-latex")] = False,
    markdown: Annotated[bool, _flag("GitHub's table.", "--markdown/--no-markdown")] = False,
    csv: Annotated[bool, _flag("Tidy, unrounded numbers.", "--csv/--no-csv")] = False,
    as_json: Annotated[bool, _flag("The same numbers with captions and runs.", "--json/--no-json")] = False,
    output: Annotated[Path | None, _value("FILE", "Write to this file.", "--output", "-o")] = None,
    set: Sets = None,
    data_dir: DataDir = None,
    results_dir: ResultsDir = None,
) -> None:
    """The table of a grid, or one of every finished run per recipe and budget."""
    from sslbench import registry, settings
    from sslbench.config import load_grid
    from sslbench.files import write_json, write_text
    from sslbench.reporting import tables
    from sslbench.reporting.render import terminal
    from sslbench.spelling import parse_set

    formats = {"--latex": latex, "--markdown": markdown, "--csv": csv, "--json": as_json}
    chosen = [label for label, asked in formats.items() if asked]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} do not go together", "ask for one format at a time")
    if output and not chosen:
        raise UsageError("-o needs a format", f"add {', '.join(formats)}")
    results = settings.results_dir(results_dir)
    _opened(data_dir)
    protocol = protocol and registry.component("protocol", protocol).name
    if name:
        grid = load_grid(name)
        made = tables.grid_table(grid, grid.expand(parse_set(set or [])), results, protocol)
    else:
        made = tables.tables_of_runs(results, protocol) if (results / "runs").exists() else []
    if not made:
        raise UsageError(f"no finished run in {results}", "sslbench run --grid [NAME]")
    for warning in dict.fromkeys(warning for table in made for warning in table.warnings):
        _warn(warning)
    if not chosen:
        console = _out()
        for table in made:
            console.print(terminal(table, console.width))
        return
    text = _rendered(made, chosen[0]).rstrip("\n") + "\n"
    if output:
        write_text(output, text)
        write_json(output.with_name(output.name + ".manifest.json"), tables.manifest(made))
        _err().print(f"wrote {output} and its manifest", soft_wrap=True, highlight=False)
    else:
        sys.stdout.write(text)


def _rendered(made: list[Any], form: str) -> str:
    from sslbench.cli.listing import numbers
    from sslbench.reporting import latex, render

    if form == "--json":
        return json.dumps(numbers(made), indent=2)
    if form == "--csv":
        return render.tidy_csv(made)
    return "\n\n".join(latex.latex(table) if form == "--latex" else render.markdown(table) for table in made)


# ------------------------------------------------------------------------------------------------- small pieces


def _grid_or_default(name: str | None, data: Path, axes: dict[str, Any]) -> Grid:
    """The grid named, or that of the one dataset that is prepared; the phantom counts only where it is alone."""
    from sslbench import registry
    from sslbench.config import load_grid

    if clash := [flag for flag, value in axes.items() if value]:
        raise UsageError(f"--grid and {clash[0]} do not go together", "a grid names its own jobs; use --set for fields")
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
    if not all(grids.values()):
        own = next(dataset for dataset, grid in grids.items() if not grid)
        raise UsageError(
            f"there is no grid for {own}, data of your own", f"sslbench run -r {own} -m METHODS --labeled BUDGET"
        )
    if len(candidates) > 1:
        known = ", ".join(f"{grid} ({dataset})" for dataset, grid in grids.items())
        raise UsageError("several datasets are prepared", f"name a grid: {known}")
    return load_grid(grids[candidates[0]])


def _grid_of(name: str | None, axes: dict[str, Any]) -> Grid:
    """The product of what the command line names, as a grid."""
    from sslbench.config import COMMAND_LINE, Grid, GridEntry

    if name:
        raise UsageError(f"unexpected argument '{name}'", f"to run a grid: sslbench run --grid {name}")
    needed = {"--recipe": axes["-r"], "--method": axes["-m"], "--labeled": axes["--labeled"]}
    if missing := [flag for flag, value in needed.items() if not value]:
        raise UsageError(f"missing {', '.join(missing)}", "or run a grid: sslbench run --grid [NAME]")
    entry = GridEntry(
        method=_several(axes["-m"]),
        loss=_several(axes["-l"]) or ["default"],
        plugin=_several(axes["-p"]) or [None],
        labeled=_several(axes["--labeled"]),
        seeds=_seeds(axes["-s"]),
    )
    return Grid(name=COMMAND_LINE, recipe=[axes["-r"]], jobs=[entry])


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
            seeds = range(int(first), int(last) + 1) if dash else [int(first)]
        except ValueError:
            seeds = []
        if not seeds:
            raise UsageError(f"cannot read the seed '{part}'", "write 0, 0,1 or 0-2")
        found += seeds
    return list(dict.fromkeys(found))


def _checked_device(device: str | None, dry_run: bool) -> str | None:
    """A device as torch spells it and, unless nothing runs, one that is there: before worker processes fail on it."""
    import re

    import torch

    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device or "cpu")
    if not match:
        raise UsageError(f"unknown device '{device}'", "write cpu, cuda or cuda:1")
    if device and device != "cpu" and not dry_run and int(match[1] or 0) >= torch.cuda.device_count():
        raise UsageError(f"there is no device '{device}'", "sslbench doctor shows those that torch sees")
    return device


def _plan_facts(plan: list[Planned], results: Path, devices: list[str], missing: str) -> dict[str, Any]:
    from sslbench.cli.listing import planned

    return {
        "jobs": planned(plan, results),
        "to_run": sum(job.runs for job in plan),
        "devices": devices,
        "missing_data": missing or None,
    }


def _print_plan(plan: list[Planned], results: Path, devices: list[str], missing: str, as_json: bool) -> None:
    from sslbench.cli.terminal.runs import plan as draw

    facts = _plan_facts(plan, results, devices, missing)
    if missing:
        _err().print(f"[yellow]not ready:[/] {_escape(missing)}", soft_wrap=True, highlight=False)
    if as_json:
        _print_json(facts)
        return
    draw(_out(), facts["jobs"])
    places = ", ".join(dict.fromkeys(devices))
    print(f"\n{len(plan)} jobs, {facts['to_run']} to run, {len(devices)} at a time on {places}")


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


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


def _out() -> Console:
    return Console(width=None if sys.stdout.isatty() else max(100, int(os.environ.get("COLUMNS", 0) or 0)))


def _err() -> Console:
    return Console(stderr=True)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
