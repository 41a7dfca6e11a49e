"""`sslbench evaluate` and `predict`: scores of predictions that exist, and predictions for new scans."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from sslbench.cli import completion
from sslbench.cli.console import failures, note, out, print_json, progress
from sslbench.cli.options import (
    CheckpointName,
    DataDir,
    Json,
    Quiet,
    ResultsDir,
    Workers,
    checked_device,
    checked_rule,
    device_option,
    flag,
    grid_policy,
    opened,
    option,
    several,
)
from sslbench.core.errors import UsageError

_FOLDER = "A folder of label maps"


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
        list[str] | None, option("NAMES", "Protocols: a,b; default: native.", complete=completion.protocols)
    ] = None,
    all_protocols: Annotated[
        bool, flag("Every protocol side by side: the conversion table.", "--all-protocols/--no-all-protocols")
    ] = False,
    checkpoint: CheckpointName = None,
    references: Annotated[
        Path | None, option("DIR", "Folder of label maps to score against, matched by file name.", panel=_FOLDER)
    ] = None,
    dataset: Annotated[
        str | None,
        option("NAME", "Score against a prepared dataset, by case id.", panel=_FOLDER, complete=completion.datasets),
    ] = None,
    preprocessing: Annotated[
        str | None, option("NAME", "Of that dataset; default: its first.", complete=completion.preprocessings)
    ] = None,
    classes: Annotated[list[str] | None, option("NAMES", "What the labels 1, 2, ... mean: a,b.", panel=_FOLDER)] = None,
    partial: Annotated[
        bool, flag("References without a prediction are no failure.", "--partial/--no-partial", panel=_FOLDER)
    ] = False,
    resample: Annotated[
        bool,
        flag("Bring predictions onto their reference's grid: nearest neighbour.", "--resample/--no-resample"),
    ] = False,
    ignore_affine: Annotated[
        bool, flag("Compare arrays of one shape wherever they lie.", "--ignore-affine/--no-ignore-affine")
    ] = False,
    output: Annotated[
        Path | None, option("FILE", "Write the records of a folder to this CSV.", "--output", "-o", panel=_FOLDER)
    ] = None,
    workers: Workers = None,
    quiet: Quiet = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    results_dir: ResultsDir = None,
) -> None:
    """Score predictions that exist under any protocol. A run keeps the records as cases-PROTOCOL.csv."""
    from sslbench.cli.terminal.scores import scores
    from sslbench.core import settings
    from sslbench.evaluation import conversion
    from sslbench.evaluation import evaluate as evaluation

    data = opened(data_dir)
    if all_protocols and protocol:
        raise UsageError("--protocol and --all-protocols do not go together", "name some, or take all")
    protocols = evaluation.protocols_of(several(protocol), all_protocols)
    request = evaluation.Request(
        targets=targets,
        protocols=protocols,
        data_dir=data,
        results_dir=settings.results_dir(results_dir),
        references=references,
        dataset=dataset,
        preprocessing=preprocessing,
        classes=several(classes),
        geometry=grid_policy(resample, ignore_affine),
        partial=partial,
        output=output,
        workers=workers or os.cpu_count() or 1,
        checkpoint=checked_rule(checkpoint),
    )
    with progress("cases", quiet) as bar:
        task = bar.add_task("score", total=0)

        def starting(title: str, cases: int) -> None:
            bar.update(task, total=(bar.tasks[task].total or 0) + cases)

        outcome = evaluation.evaluate(request, starting, lambda case: bar.advance(task))
    rows = [row for scored in outcome.scores for row in conversion.side_by_side(scored, protocols)]
    for line in outcome.notes:
        note(line)
    failures(outcome.failed)
    if as_json:
        told = {"failed": outcome.failed, "notes": outcome.notes, "written": outcome.written}
        print_json({"scores": rows, **told})
    elif not quiet:
        if rows:
            scores(out(), rows)
        names = ", ".join(sorted({path.name for path in outcome.written}))
        places = {path.parent for path in outcome.written}
        if places:
            where = str(places.pop()) if len(places) == 1 else f"each of {len(places)} run directories"
            note(f"wrote {names} in {where}")
    if outcome.failed:
        raise typer.Exit(1)


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
    output: Annotated[Path, option("DIR", "Folder for the label maps, one NAME.nii.gz each.", "--output", "-o")],
    modality: Annotated[
        str | None, option("ct|mri|rgb", "Of the scans, where the run's dataset mixes them; default: its own.")
    ] = None,
    device: Annotated[str | None, device_option("the GPU there is")] = None,
    threads: Annotated[int | None, option("N", "CPU threads; default: torch's.", min=1)] = None,
    force: Annotated[bool, flag("Make label maps again that are there.", "--force/--no-force", "-f")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Segment new scans with a trained run, in their own geometry. No reference and no prepared data is needed."""
    from dataclasses import asdict

    import torch
    from rich.markup import escape

    from sslbench.execution import predict as prediction
    from sslbench.execution.trained import load_trained
    from sslbench.runs.directory import Run

    opened(data_dir)
    place = checked_device(device, dry_run=False) or ("cuda" if torch.cuda.is_available() else "cpu")
    if threads:
        torch.set_num_threads(threads)
    trained = load_trained(Run(run), torch.device(place))
    scans = prediction.find_scans(inputs, trained.channels)
    with progress("share", quiet) as bar:

        def starting(name: str) -> Any:
            for ended in bar.task_ids:
                bar.remove_task(ended)
            task = bar.add_task(escape(name), total=None)
            return lambda done, total: bar.update(task, completed=done, total=total)

        outcome = prediction.predict(trained, scans, output, modality, force, starting)
    failures(outcome.failed)
    if as_json:
        print_json(asdict(outcome))
    elif not quiet:
        there = f", {len(outcome.there)} there already" if outcome.there else ""
        print(f"{len(outcome.written)} written{there}, {len(outcome.failed)} failed -> {output}")
    if outcome.failed:
        raise typer.Exit(1)
