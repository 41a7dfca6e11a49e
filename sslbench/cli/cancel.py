"""`sslbench cancel`: jobs that were submitted to Slurm are taken back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

from sslbench.cli.console import note
from sslbench.cli.options import Choice, DataDir, GridArgument, Only, ResultsDir, Scale, Seeds, Sets, flag, opened

if TYPE_CHECKING:
    from sslbench.execution.slurm import Placed
    from sslbench.runs.directory import Run


def cancel(
    name: GridArgument = None,
    set: Sets = None,
    seed: Seeds = None,
    only: Only = None,
    scale: Scale = None,
    dry_run: Annotated[bool, flag("Say what would be cancelled.", "--dry-run/--no-dry-run", "-n")] = False,
    data_dir: DataDir = None,
    results_dir: ResultsDir = None,
) -> None:
    """Take back what was submitted to Slurm, of a grid or all of it. What runs saves its state first, and `run` goes on
    from there."""
    from sslbench.config.text import counted
    from sslbench.core import settings
    from sslbench.execution.slurm import UNKNOWN, SlurmQueue, cancel_tasks

    opened(data_dir)
    chosen = Choice(set, seed, only, scale).runs(name, settings.results_dir(results_dir))
    tasks = _tasks(chosen)
    known = SlurmQueue().look(tasks.values())
    live = {name: task for name, task in tasks.items() if known.get(name, UNKNOWN).live}
    names = {run.name for run in chosen}
    shared = {name: [run for run in task.siblings() if run not in names] for name, task in live.items()}
    for task, others in shared.items():
        if others:
            note(f"task {task} stays: it runs jobs that were not named too, {', '.join(others)}")
    ours = [task for task in live if not shared[task]]
    running = sum(known[task].state == "RUNNING" for task in ours)
    if not dry_run:
        cancel_tasks(ours)
    word = "would cancel" if dry_run else "cancelled"
    note(f"{word} {counted(len(ours), 'task')}" + (f", {running} of them running" if running else ""))


def _tasks(runs: Iterable[Run]) -> dict[str, Placed]:
    """The tasks that runs were submitted in and are not at the end of."""
    from sslbench.execution.slurm import placed

    found = ((run, placed(run)) for run in runs)
    return {task.task: task for run, task in found if task and run.state not in ("finished", "failed")}
