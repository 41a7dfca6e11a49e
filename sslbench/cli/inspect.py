"""`sslbench list`, `show`, `check`, `doctor` and `audit`: looking at parts, machine and data; nothing is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sslbench.cli import completion
from sslbench.cli.console import note, out, print_json, spinner
from sslbench.cli.options import (
    DataDir,
    Json,
    PreprocessingName,
    ResultsDir,
    argument,
    checked_device,
    flag,
    opened,
    option,
    several,
)
from sslbench.core.errors import UsageError


def list_(
    what: Annotated[
        str,
        argument(
            "WHAT",
            "methods, losses, plugins, weightings, datasets, recipes, networks, protocols, grids or matrix",
            completion.lists,
        ),
    ],
    cost: Annotated[bool, flag("Of grids, count jobs and what they cost.", "--cost/--no-cost")] = False,
    device: Annotated[
        str | None,
        option("DEVICE", "Of that cost: cpu or cuda; default: a GPU, else the CPU.", complete=completion.devices),
    ] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    results_dir: ResultsDir = None,
) -> None:
    """List what a job can name."""
    from sslbench.cli.listing import grid_costs, listing
    from sslbench.cli.terminal.costs import grids
    from sslbench.cli.terminal.listings import names
    from sslbench.cli.terminal.matrix import matrix

    opened(data_dir)
    if cost and what != "grids":
        raise UsageError(f"--cost is of grids, not of {what}", "sslbench list grids --cost")
    if cost:
        from sslbench.core import settings
        from sslbench.execution.local import slot_devices

        with spinner("counts what grids cost"):
            rows = grid_costs(settings.results_dir(results_dir), slot_devices(1, checked_device(device, True))[0])
    else:
        rows = listing(what)
    if as_json:
        print_json(rows)
    elif cost:
        grids(out(), rows)
    elif what == "matrix":
        matrix(out(), rows)
    elif rows:
        names(out(), rows)
    else:
        note(f"no {what} are registered")


def show(
    kind: Annotated[
        str,
        argument("KIND", "method, loss, plugin, weighting, recipe, network, dataset or protocol", completion.kinds),
    ],
    name: Annotated[str, argument("NAME", "A name, an alias or a preset.", completion.names)],
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Show one of them: its options with their sources, what it changes, what is known to be different."""
    from sslbench.cli.show import describe
    from sslbench.cli.terminal.cards import card

    opened(data_dir)
    facts = describe(kind, name)
    if as_json:
        print_json(facts)
    else:
        card(out(), facts)


def check(
    what: Annotated[str, argument("WHAT", "method: the laws; matrix: train every cell.", completion.checks)],
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
        option("NAMES", "Losses; default: default (method), all (matrix).", "--loss", "-l", complete=completion.losses),
    ] = None,
    plugin: Annotated[
        str | None, option("NAME", "A plugin on every network.", "--plugin", "-p", complete=completion.plugins)
    ] = None,
    dims: Annotated[str, option("2d|3d", "Images to try on; default: both.")] = "2d,3d",
    law: Annotated[list[str] | None, option("NAMES", "Laws to try; default: all.")] = None,
    steps: Annotated[int, option("N", "Iterations of every phase of a cell (20).", min=1)] = 20,
    as_json: Json = False,
) -> None:
    """Hold methods against the laws that every method keeps, or train every method with every loss for some steps."""
    from sslbench import conformance
    from sslbench.cli.terminal import laws, matrix
    from sslbench.conformance.bench import DIMS

    wanted = several([dims])
    chosen = [kind for kind in DIMS if kind in wanted]
    if what not in ("method", "matrix") or len(chosen) < max(len(wanted), 1):
        raise UsageError(f"cannot check '{what}' on '{dims}'", "sslbench check method|matrix, --dims 2d,3d")
    asked = several(names), several(loss), chosen
    with spinner("building") as tell:
        if what == "matrix":
            rows = []
            for cell in conformance.check_matrix(steps, *asked, tell, plugin):
                rows.append(cell.to_json())
                if not as_json:  # it takes long: every cell is told as it ends
                    matrix.cell(out(), rows[-1])
        else:
            rows = [verdict.to_json() for verdict in conformance.check_methods(*asked, several(law), tell, plugin)]
    broken = sum(row["status"] in ("broken", "failed") for row in rows)
    if as_json:
        print_json(rows)
    elif what == "matrix":
        matrix.cells(out(), rows)
    else:
        laws.verdicts(out(), rows, {name: law.statement for name, law in conformance.LAWS.items()})
    if broken:
        raise typer.Exit(1)


def doctor(
    verify: Annotated[bool, flag("Hold every prepared file against its hash.", "--verify/--no-verify")] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    results_dir: ResultsDir = None,
) -> None:
    """Check versions, hardware, folders and prepared data; what is wrong comes with its remedy."""
    from sslbench.cli.doctor import examine, next_step, verdict
    from sslbench.cli.terminal import findings
    from sslbench.core import settings

    with spinner("looking around") as tell:
        found = examine(
            settings.data_dir(data_dir), settings.results_dir(results_dir), verify, lambda file: tell(f"reading {file}")
        )
    rows = [check.to_json() for check in found]
    worst, following = verdict(found), next_step(found, settings.results_dir(results_dir))
    if as_json:
        print_json({"status": worst, "next": following, "checks": rows})
    else:
        findings.checks(out(), rows)
        print(f"\n{worst}: " + ", ".join(f"{sum(c.status == s for c in found)} {s}" for s in ("ok", "warn", "fail")))
        print(f"next: {following}")
    if worst == "fail":
        raise typer.Exit(1)


def audit(
    dataset: Annotated[str, argument("DATASET", "A prepared dataset.", completion.datasets)],
    preprocessing: PreprocessingName = None,
    splits: Annotated[str | None, option("NAME", "Lists to look at; default: all of the dataset.")] = None,
    recipe: Annotated[
        str | None,
        option(
            "NAME",
            "Whose patches to draw; default: one that trains on it.",
            "--recipe",
            "-r",
            complete=completion.recipes,
        ),
    ] = None,
    figure: Annotated[Path | None, option("FILE", "Draw the class shares: .png, .pdf, .svg.")] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Read a prepared dataset whole: files, labels, duplicates, class shares, and what its lists leak."""
    from sslbench.cli.terminal import findings
    from sslbench.data import audit as auditing

    if figure:
        from sslbench.reporting.figures import style

        style.check_ending(figure)
    with spinner("reading") as tell:
        report = auditing.audit(
            dataset,
            preprocessing=preprocessing,
            splits=splits,
            recipe=recipe,
            data_dir=opened(data_dir),
            progress=lambda case: tell(f"reading {case}"),
        )
    if as_json:
        print_json(report.to_json())
    else:
        findings.audit(out(), report.to_json())
    if figure:
        from sslbench.reporting.figures.sizes import draw_audit

        draw_audit(report, figure)
        note(f"wrote {figure}")
    if report.worst == "error":
        raise typer.Exit(1)
