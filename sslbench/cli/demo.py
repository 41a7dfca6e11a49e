"""`sslbench demo`: the phantom, the grid `quick`, its table and its page, in one folder and with one command."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sslbench.cli.console import note
from sslbench.cli.options import Choice, Only, Quiet, Scale, Seeds, checked_device, device_option, option
from sslbench.cli.prepare import prepare
from sslbench.cli.report import report
from sslbench.cli.run import run

GRID = "quick"
NEXT = {
    "sslbench list methods": "what can be trained; also losses, recipes, grids",
    "sslbench run -r phantom -m mt -l default,ga --labeled 20% --dry-run": "what other rows would cost",
    "sslbench new method mine": "a method of your own to begin with",
    "sslbench prepare NAME --from-nnunet DIR": "data of your own",
}


def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Where data and results go.", show_default=True)
    ] = Path("sslbench-demo"),
    jobs: Annotated[
        int | None, option("N", "Jobs at a time; default: one per GPU or core.", "--jobs", "-j", min=1)
    ] = None,
    device: Annotated[str | None, device_option("the GPUs that torch can use")] = None,
    scale: Scale = None,
    seed: Seeds = None,
    only: Only = None,
    quiet: Quiet = False,
) -> None:
    """Generate volumes, run eight short trainings, show their table, write their page; again, it goes on from there."""
    from sslbench.core.settings import user_path
    from sslbench.execution.local import unused_gpu
    from sslbench.reporting.figures.style import check_installed

    check_installed()  # what the page needs, before the trainings and not after them
    place = user_path(folder)
    data, results = place / "data", place / "results"
    # `run` stops where torch is built for a GPU and has none, as a training may take days. This one takes minutes.
    if checked_device(device, dry_run=False) is None and (why := unused_gpu()):
        device = "cpu"
        note(f"trains on the CPU: {why}")
    chosen = Choice(seed=seed, only=only, scale=scale)
    prepare("phantom", workers=jobs, quiet=quiet, data_dir=data)
    run(GRID, grid=True, jobs=jobs, device=device, quiet=quiet, data_dir=data, results_dir=results, **chosen.given)
    report(GRID, data_dir=data, results_dir=results, **chosen.given)
    report(GRID, html=True, data_dir=data, results_dir=results, **chosen.given)
    note("next:" if place == Path() else f"next, after cd {shlex.quote(str(place))}:")
    for command, what in NEXT.items():
        note(f"  {command}  # {what}")
