"""`sslbench run`, `validate` and the hidden `worker`: jobs, from a plan to their end."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from sslbench.cli import completion
from sslbench.cli.console import err, note, out, print_json, spinner, warn
from sslbench.cli.options import (
    OUTPUT,
    Choice,
    DataDir,
    GridArgument,
    Json,
    Only,
    Quiet,
    ResultsDir,
    Scale,
    Seeds,
    Sets,
    argument,
    checked_device,
    device_option,
    flag,
    only_option,
    opened,
    option,
    references_flag,
    scale_option,
    seed_option,
    setting,
    several,
)
from sslbench.core.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sslbench.cli.terminal.live import PlainDisplay
    from sslbench.config.grid import Grid
    from sslbench.config.job import Job
    from sslbench.execution.local import Limits, PlannedJob
    from sslbench.execution.ray import RayOptions
    from sslbench.execution.slurm import SlurmOptions, TaskSettings

_WHAT, _HOW = "What to run", "How to run it"


def run(
    name: GridArgument = None,
    grid: Annotated[
        bool, flag("Run a grid; without a name, that of the prepared dataset.", "--grid/--no-grid", panel=_WHAT)
    ] = False,
    recipe: Annotated[
        str | None,
        option("NAME", "Recipe of a run without a grid.", "--recipe", "-r", panel=_WHAT, complete=completion.recipes),
    ] = None,
    method: Annotated[
        list[str] | None,
        option(
            "NAMES", "Methods: a,b or name\\[option=value].", "--method", "-m", panel=_WHAT, complete=completion.methods
        ),
    ] = None,
    weighting: Annotated[
        list[str] | None,
        option(
            "NAMES",
            "Weightings of all learners, or none; default: the method's.",
            "--weighting",
            "-w",
            panel=_WHAT,
            complete=completion.weightings,
        ),
    ] = None,
    loss: Annotated[
        list[str] | None,
        option("NAMES", "Losses; default: default.", "--loss", "-l", panel=_WHAT, complete=completion.losses),
    ] = None,
    plugin: Annotated[
        list[str] | None,
        option("NAMES", "Plugins; default: none.", "--plugin", "-p", panel=_WHAT, complete=completion.plugins),
    ] = None,
    labeled: Annotated[
        list[str] | None,
        option("BUDGETS", "Label budgets, e.g. 20%.", "--labeled", panel=_WHAT, complete=completion.labeled),
    ] = None,
    seed: Annotated[
        list[str] | None, seed_option("Seeds: 0,1 or 0-2; default: the grid's, else the recipe's.", _WHAT)
    ] = None,
    only: Annotated[list[str] | None, only_option(_WHAT)] = None,
    scale: Annotated[float | None, scale_option(_WHAT)] = None,
    with_references: Annotated[bool, references_flag(_WHAT)] = False,
    set: Annotated[
        list[str] | None, setting("Change a field of all jobs, e.g. optimizer.lr=0.005.", completion.settings, _WHAT)
    ] = None,
    jobs: Annotated[
        int | None,
        option(
            "N", "Jobs (of Slurm: tasks) at a time; default: one per GPU or core.", "--jobs", "-j", panel=_HOW, min=1
        ),
    ] = None,
    executor: Annotated[
        str,
        option(
            "NAME", "Who starts the jobs: local (default), slurm or ray.", panel=_HOW, complete=completion.executors
        ),
    ] = "local",
    slurm: Annotated[
        list[str] | None,
        option(
            "KEY=VALUE",
            "Options of sbatch with commas between: time=8:00:00; also jobs_per_task, side_by_side, grace.",
            panel=_HOW,
        ),
    ] = None,
    ray: Annotated[
        list[str] | None,
        option("KEY=VALUE", "What a job takes of Ray: gpus=0.5,cpus=4; also retries, address.", panel=_HOW),
    ] = None,
    wait: Annotated[
        bool, flag("Wait for what was submitted to Slurm (on); Ctrl-C leaves it there.", "--wait/--no-wait", panel=_HOW)
    ] = True,
    device: Annotated[str | None, device_option("the GPUs there are", _HOW)] = None,
    gpus: Annotated[
        list[str] | None, option("NUMBERS", "Cards to use, e.g. 0,2 or 0-3; default: all.", panel=_HOW)
    ] = None,
    per_gpu: Annotated[
        str | None,
        option("N", "Jobs that share a card, auto: as many as its memory holds; default: 1.", "--per-gpu", panel=_HOW),
    ] = None,
    threads: Annotated[
        int | None, option("N", "CPU threads per job; default: cores / jobs.", panel=_HOW, min=1)
    ] = None,
    sink: Annotated[
        str | None,
        option(
            "NAME",
            "Copy training records to tensorboard; default: SSLBENCH_SINK, else none.",
            panel=_HOW,
            complete=completion.sinks,
        ),
    ] = None,
    dry_run: Annotated[
        bool, flag("Print the plan and what it costs; write nothing.", "--dry-run/--no-dry-run", "-n", panel=_HOW)
    ] = False,
    force: Annotated[
        bool, flag("Start over; old results are kept aside.", "--force/--no-force", "-f", panel=_HOW)
    ] = False,
    retry_failed: Annotated[
        bool, flag("Run failed jobs again.", "--retry-failed/--no-retry-failed", panel=_HOW)
    ] = False,
    max_hours: Annotated[
        float | None,
        option("H", "When so many hours are over start nothing more, and save what runs.", panel=_HOW, min=0),
    ] = None,
    fail_fast: Annotated[
        bool, flag("End in order when the first job fails.", "--fail-fast/--no-fail-fast", panel=_HOW)
    ] = False,
    hung_after: Annotated[
        float | None,
        option("MINUTES", "A job without a step for so long has failed; default: 120.", panel=_HOW, min=0),
    ] = None,
    resume_anyway: Annotated[
        bool,
        flag(
            "Let a run go on that began on another kind of device or in other arithmetic; it is recorded.",
            "--resume-anyway/--no-resume-anyway",
            panel=_HOW,
        ),
    ] = False,
    progress: Annotated[bool, flag("Live bars on a terminal (on).", "--progress/--no-progress", panel=OUTPUT)] = True,
    quiet: Quiet = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    results_dir: ResultsDir = None,
) -> None:
    """Run a grid, or the product of the methods, losses, budgets and seeds given. Finished jobs are skipped,
    interrupted ones continue."""
    from sslbench.cli.terminal.live import LiveDisplay, PlainDisplay
    from sslbench.config.text import counted
    from sslbench.config.tuning import row_of
    from sslbench.core import settings
    from sslbench.execution import local
    from sslbench.execution.executors import LocalWorkers
    from sslbench.execution.fit import jobs_per_card, words_on_memory
    from sslbench.execution.left import Forecast
    from sslbench.execution.ray import RayWorkers
    from sslbench.execution.sinks import checked_sink
    from sslbench.runs.tuning import write_record

    copies = checked_sink(settings.sink(sink))
    settings.save_every()  # as the workers will read it
    hung_after_s = local.HUNG_AFTER_S if hung_after is None else 60 * hung_after
    limits = local.Limits(max_hours, fail_fast, hung_after_s)
    cluster = _cluster(executor, slurm, limits, gpus, per_gpu)
    shares = _shares(executor, ray, device, gpus, per_gpu)
    data, results = opened(data_dir), settings.results_dir(results_dir)
    axes = {"-r": recipe, "-m": method, "-w": weighting, "-l": loss, "-p": plugin, "--labeled": labeled}
    chosen = _grid_or_default(name, data, axes) if grid else _grid_of(name, axes)
    choice = Choice(set, seed, only, scale, with_references)
    table = _report_command(chosen, name, choice, data_dir, results_dir)
    rows = choice.rows(chosen)
    trials = chosen.trials(rows)
    trial_jobs = list({job.directory: job for trial in trials for job in trial.jobs}.values())
    chosen = choice.settled(chosen, results)
    missing = ""
    try:
        stores = local.check_data([*trial_jobs, *rows], data)
    except UsageError as error:
        if not dry_run:
            raise
        stores, missing = {}, str(error)
    if trials and cluster and not wait:
        raise UsageError("a tuned grid needs to see how its trials end", "leave --no-wait away")
    remote = None
    if shares and not dry_run:
        started = LocalWorkers(data.absolute(), threads or max(1, int(shares.cpus)), copies, resume_anyway)
        remote = RayWorkers(started, shares, device)

    def planned(asked: Sequence[Job]) -> tuple[list[PlannedJob], list[str]]:
        plan = local.make_plan(asked, results, stores, retry_failed, force)
        if shares:
            slots = min(jobs or (remote.slots if remote else 1), len(plan))
            return plan, [remote.device if remote else shares.device(device)] * slots
        if cluster:
            slots = min(cluster.slots * (jobs or 1), len(plan))
            return plan, [checked_device(device, dry_run=True) or ("cuda" if cluster.gpus else "cpu")] * slots
        if cards := _cards(gpus, per_gpu, device):
            if per_gpu == "auto":
                with spinner("counts the memory of a step"):
                    each = jobs_per_card([planned.job for planned in plan if planned.runs], stores, cards)
            else:
                each = int(per_gpu or 1)
            return plan, local.card_slots(cards, each, min(jobs or len(plan), len(plan)))
        slots = min(jobs or local.default_slots(), len(plan))
        return plan, local.slot_devices(slots, checked_device(device, dry_run))

    def launched(plan: list[PlannedJob], devices: list[str]) -> int:
        console = err()
        live = progress and console.is_terminal and not quiet
        kind = LiveDisplay if live else PlainDisplay
        display = kind(Console(quiet=True) if quiet else console, Forecast(results, len(devices), devices[0]))
        if cluster:
            from sslbench.execution.slurm import TaskSettings

            tasks = TaskSettings(
                str(data.absolute()),
                str(results.absolute()),
                device,
                threads or cluster.threads,
                cluster.slots,
                copies,
                resume_anyway,
                hung_after_s,
            )
            return _submit(plan, cluster, tasks, jobs, force, display if wait else None)
        if not remote:
            with spinner("counts the memory of a step"):
                words = words_on_memory([planned.job for planned in plan if planned.runs], stores, devices)
            for line in words:
                warn(line)
        with display:
            each = threads or max(1, (os.cpu_count() or 1) // len(devices))
            workers = remote or LocalWorkers(data, each, copies, resume_anyway)
            return local.Launcher(plan, workers, devices, display, limits).run(force)

    if dry_run:
        known = all(row_of(job) in chosen.chosen for job in rows)
        plan, devices = planned([*trial_jobs, *(chosen.tuned(rows) if known or not trials else ())])
        later = 0 if known or not trials else len(rows)
        if cluster and not as_json:
            _print_submission(plan, cluster, jobs, results)
        _print_plan(plan, results, devices, missing, as_json, chosen, len(trial_jobs), later)
        return
    if trials:
        chosen = chosen.model_copy(update={"chosen": {}})
        plan, devices = planned(trial_jobs)
        if not quiet:
            note(f"tuning: {counted(len(trials), 'trial')} of {counted(len(plan), 'job')}, then the jobs they choose")
        code = launched(plan, devices)
        record = write_record(chosen, trials, results)
        chosen = choice.settled(chosen, results)
        if code and any(row_of(job) not in chosen.chosen for job in rows):  # stopped, or all of a row's failed
            if not quiet:
                _print_outcome(plan, "")
            raise typer.Exit(code)
        if not quiet:
            note(f"what the trials chose: {record}")
    plan, devices = planned(chosen.tuned(rows))
    code = launched(plan, devices)
    if cluster and not wait:
        if as_json:
            print_json(_plan_facts(plan, results, devices, missing))
        if code:
            raise typer.Exit(code)
        return
    if not quiet:
        _print_outcome(plan, table)
    if as_json:
        print_json(_plan_facts(plan, results, devices, missing))
    if code:
        raise typer.Exit(code)


def _cards(gpus: list[str] | None, per_gpu: str | None, device: str | None) -> list[str]:
    """The cards to use where some were named, or are shared; none: neither."""
    import torch

    from sslbench.config.grid import seed_range

    if not gpus and per_gpu is None:
        return []
    if per_gpu not in (None, "auto") and not (per_gpu.isdecimal() and int(per_gpu)):
        raise UsageError(f"--per-gpu {per_gpu} is no number of jobs", "write 2, or auto")
    if device:
        word = "--gpus" if gpus else "--per-gpu"
        raise UsageError(f"{word} and --device do not go together", "--gpus 1 --per-gpu 2 has two jobs share card 1")
    try:
        named = [int(number) for part in several(gpus) for number in seed_range(part)]
    except ValueError:
        raise UsageError(f"--gpus {','.join(gpus or [])} names no cards", "write 0,2 or 0-3") from None
    there = torch.cuda.device_count()
    if missing := [number for number in named if number >= there]:
        raise UsageError(f"there is no GPU {missing[0]}", "sslbench doctor shows those that torch sees")
    if not there:
        raise UsageError("torch sees no GPU that jobs could share", "sslbench doctor says more")
    return [f"cuda:{number}" for number in dict.fromkeys(named) or range(there)]


def _cluster(
    executor: str, slurm: list[str] | None, limits: Limits, gpus: list[str] | None, per_gpu: str | None
) -> SlurmOptions | None:
    """What is asked of Slurm; None: it does not start the jobs."""
    from sslbench.execution.slurm import SlurmOptions

    if executor not in completion.EXECUTORS:
        raise UnknownNameError("executor", executor, completion.EXECUTORS)
    if executor != "slurm":
        if slurm:
            raise UsageError("--slurm says nothing of jobs that run elsewhere", "add --executor slurm")
        return None
    if gpus or per_gpu:
        raise UsageError(
            "--gpus and --per-gpu say nothing of Slurm's nodes",
            "--slurm gpus_per_node=2,jobs_per_task=4,side_by_side=4",
        )
    if limits.hours is not None or limits.fail_fast:
        word = "--fail-fast" if limits.fail_fast else "--max-hours"
        raise UsageError(f"{word} and --executor slurm do not go together", "--slurm time=8:00:00 ends an allocation")
    return SlurmOptions.read(slurm or [])


def _shares(
    executor: str, ray: list[str] | None, device: str | None, gpus: list[str] | None, per_gpu: str | None
) -> RayOptions | None:
    """What is asked of Ray; None: it does not start the jobs."""
    from sslbench.execution.ray import RayOptions

    if executor != "ray":
        if ray:
            raise UsageError("--ray says nothing of jobs that run elsewhere", "add --executor ray")
        return None
    if gpus or per_gpu:
        raise UsageError("--gpus and --per-gpu say nothing of Ray's nodes", "--ray gpus=0.5 has two jobs share a card")
    if device not in (None, "cpu", "cuda"):
        raise UsageError(f"--device {device} and --executor ray do not go together", "Ray chooses the card")
    return RayOptions.read(ray or [])


def _print_submission(plan: list[PlannedJob], cluster: SlurmOptions, jobs: int | None, results: Path) -> None:
    from sslbench.execution.slurm import SUBMISSIONS, shares

    if tasks := shares(plan, cluster.jobs_per_task):
        print(shlex.join(cluster.words(len(tasks), jobs, results / SUBMISSIONS / "TIME")) + "\n")


def _submit(
    plan: list[PlannedJob],
    cluster: SlurmOptions,
    settings: TaskSettings,
    jobs: int | None,
    force: bool,
    display: PlainDisplay | None,
) -> int:
    """Submit what Slurm does not have already and, where there is a display, wait for all of it; the exit code."""
    from sslbench.config.text import counted
    from sslbench.execution.slurm import SlurmQueue, Waiter, leave_queued, submit, submitted

    queue = SlurmQueue()
    if left := leave_queued(plan, queue):
        note(f"Slurm has {counted(len(left), 'job')} of these already")
    arrays = submit(plan, cluster, settings, jobs, force)
    note(submitted(plan, arrays) if arrays else "nothing to submit")
    if display is None:
        return 0
    with display:
        return Waiter(plan, display, queue).run()


def task(folder: Path, number: int | None = None) -> None:
    """Run a task of a submission in its allocation (what Slurm starts)."""
    from sslbench.cli.terminal.live import PlainDisplay
    from sslbench.execution.slurm import run_task

    place = int(os.environ.get("SLURM_ARRAY_TASK_ID", 0)) if number is None else number
    with PlainDisplay(err()) as display:
        raise typer.Exit(run_task(folder, place, display))


def worker(
    directory: Path,
    data_dir: DataDir = None,
    device: str | None = None,
    threads: int | None = None,
    launcher: int | None = None,
    sink: str | None = None,
    resume_anyway: bool = False,
) -> None:
    """Run the job of a run directory in this process (what `run` starts)."""
    from sslbench.core import settings
    from sslbench.execution.worker import main as work

    raise typer.Exit(
        work(directory, settings.data_dir(data_dir), device, threads, launcher, settings.sink(sink), resume_anyway)
    )


def validate(
    name: Annotated[str, argument("GRID", "A grid by name, or its YAML file.", completion.grids)],
    set: Sets = None,
    seed: Seeds = None,
    only: Only = None,
    scale: Scale = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Check a grid and show every resolved value with the layer it came from."""
    from sslbench.cli.terminal.layers import layers
    from sslbench.config.grid import draw_of, load_grid

    opened(data_dir)
    grid, choice = load_grid(name), Choice(set, seed, only, scale)
    jobs = choice.rows(grid)
    trials = grid.trials(jobs)
    seeds: dict[str, list[int]] = {}
    for job in jobs:
        seeds.setdefault(job.digest(), []).append(job.seed)
    first_of = {job.digest(): job for job in reversed(jobs)}
    resolved = [first_of[digest].resolved for digest in seeds]
    if as_json:
        print_json(
            [
                {"job": r.job.model_dump(), "digest": r.digest, "values": r.values, "layers": r.layers}
                | ({"drawn": list(drawn)} if (drawn := draw_of(r)) else {})
                for r in resolved
            ]
        )
        return
    titles = [
        f"{Path(*r.job.directory.parts[:3])}  seeds {', '.join(map(str, seeds[r.digest]))}  digest {r.digest[:8]}"
        for r in resolved
    ]
    rows = [{"title": title, "values": r.values, "layers": r.layers} for title, r in zip(titles, resolved, strict=True)]
    layers(out(), rows)
    for place, drawn in {f"{r.recipe.name} {r.job.labeled}": draw_of(r) for r in resolved}.items():
        if drawn:
            print(f"{place}: {', '.join(drawn)}")
    if grid.tune:
        print(f"tuned by {grid.tune.trials} trials of each row: {', '.join(grid.tune.space)}")
        print(f"{len(trials)} trials of {len({job.directory for trial in trials for job in trial.jobs})} jobs, then:")
    print(f"{len(jobs)} jobs, {len(resolved)} configurations: valid")


def _grid_or_default(name: str | None, data: Path, axes: dict[str, Any]) -> Grid:
    """The grid named, or that of the one dataset that is prepared; the phantom counts only where it is alone."""
    from sslbench.config.grid import load_grid
    from sslbench.core import registry

    if clash := [flag for flag, value in axes.items() if value]:
        raise UsageError(
            f"--grid and {clash[0]} do not go together",
            "a grid names its own jobs; --only method=... takes some of them, --set changes their fields",
        )
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
    from sslbench.config.grid import Grid, GridEntry
    from sslbench.config.job import COMMAND_LINE

    if name:
        raise UsageError(f"unexpected argument '{name}'", f"to run a grid: sslbench run --grid {name}")
    needed = {"--recipe": axes["-r"], "--method": axes["-m"], "--labeled": axes["--labeled"]}
    if missing := [flag for flag, value in needed.items() if not value]:
        raise UsageError(f"missing {', '.join(missing)}", "or run a grid: sslbench run --grid [NAME]")
    entry = GridEntry(
        method=several(axes["-m"]),
        weighting=several(axes["-w"]) or [None],
        loss=several(axes["-l"]) or ["default"],
        plugin=several(axes["-p"]) or [None],
        labeled=several(axes["--labeled"]),
        seeds=[],
    )
    return Grid(name=COMMAND_LINE, recipe=[axes["-r"]], jobs=[entry])


def _plan_facts(plan: list[PlannedJob], results: Path, devices: list[str], missing: str) -> dict[str, Any]:
    from sslbench.cli.listing import planned

    return {
        "jobs": planned(plan, results),
        "to_run": sum(job.runs for job in plan),
        "devices": devices,
        "missing_data": missing or None,
    }


def _print_plan(
    plan: list[PlannedJob],
    results: Path,
    devices: list[str],
    missing: str,
    as_json: bool,
    grid: Grid,
    trials: int = 0,
    later: int = 0,
) -> None:
    """Print what a launch would do.

    Args:
        trials: how many of its jobs are trials of a tuned grid, the first.
        later: how many jobs follow with what the trials choose, and are not in the plan yet.
    """
    from sslbench.cli.listing import plan_cost, plan_resolution
    from sslbench.cli.terminal.costs import launch, resolution
    from sslbench.cli.terminal.runs import plan as draw

    facts = _plan_facts(plan, results, devices, missing)
    if trials:
        facts["tuning"] = {"trials": trials, "later": later}
    with spinner("counts what it costs"):
        facts["cost"] = plan_cost(plan, results, devices[0], grid.name)
        facts["resolution"] = plan_resolution(plan[trials:], results, grid) if plan[trials:] else None
    if missing:
        note(("not ready:", "yellow"), f" {missing}")
    if as_json:
        print_json(facts)
        return
    draw(out(), facts["jobs"])
    places = ", ".join(dict.fromkeys(devices))
    if trials:
        after = f"; {later} jobs follow with what they choose" if later else ""
        print(f"\ntuning: {trials} of these are trials{after}", end="")
    print(f"\n{len(plan)} jobs, {facts['to_run']} to run, {len(devices)} at a time on {places}\n")
    launch(out(), facts["cost"])
    if facts["resolution"]:
        resolution(out(), facts["resolution"])


def _report_command(
    grid: Grid, name: str | None, choice: Choice, data_dir: Path | None, results_dir: Path | None
) -> str:
    """The command that shows the table of what runs: of the grid as it was named, with what changes its jobs."""
    from sslbench.config.job import COMMAND_LINE

    words = ["sslbench", "report"]
    if grid.name != COMMAND_LINE:
        words += [name or grid.name, *choice.words]
    for word, place in (("--data-dir", data_dir), ("--results-dir", results_dir)):
        words += [word, str(place)] if place else []
    return shlex.join(words)


def _print_outcome(plan: list[PlannedJob], table: str) -> None:
    outcomes = [planned.outcome for planned in plan]
    counts = {outcome: outcomes.count(outcome) for outcome in ("finished", "failed", "interrupted")}
    note(", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count or outcome == "finished"))
    for planned in plan:
        if planned.outcome == "failed":
            note(("failed", "red"), f" {planned.job.title}: {planned.reason}")
            note(f"       log: {planned.run.log}; --retry-failed runs it again")
    if counts["finished"] and table:
        note(f"the table: {table}")
