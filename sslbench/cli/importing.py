"""`sslbench import`: predictions of other software as a row of our tables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sslbench.cli import completion
from sslbench.cli.console import note, progress
from sslbench.cli.options import DataDir, Quiet, ResultsDir, Workers, flag, grid_policy, opened, option


def import_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What they are called here: nnunet.", show_default=False)],
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="Label maps, one for each test case: CASE or CASE_pred.", show_default=False
        ),
    ],
    recipe: Annotated[
        str, option("NAME", "Whose dataset, splits and protocol.", "--recipe", "-r", complete=completion.recipes)
    ],
    labeled: Annotated[str, option("BUDGET", "What they were trained with, e.g. 20%.", complete=completion.labeled)],
    seed: Annotated[int, option("N", "Which training.", "--seed", "-s", min=0)],
    title: Annotated[str, option("TEXT", "In tables, e.g. nnU-Net; default: the name.")] = "",
    resample: Annotated[
        bool, flag("Bring them onto their reference's grid: nearest neighbour.", "--resample/--no-resample")
    ] = False,
    ignore_affine: Annotated[
        bool, flag("Take arrays of one shape wherever they lie.", "--ignore-affine/--no-ignore-affine")
    ] = False,
    force: Annotated[bool, flag("Replace what has this name, budget and seed.", "--force/--no-force", "-f")] = False,
    workers: Workers = None,
    quiet: Quiet = False,
    data_dir: DataDir = None,
    results_dir: ResultsDir = None,
) -> None:
    """Score predictions of other software on the recipe's test cases: a row marked as trained elsewhere."""
    from sslbench.core import settings
    from sslbench.evaluation.importing import ForeignPredictions, import_predictions

    data, results = opened(data_dir), settings.results_dir(results_dir)
    given = ForeignPredictions(name, folder, recipe, labeled, seed, title, grid_policy(resample, ignore_affine))
    with progress("cases", quiet) as bar:
        task = bar.add_task("score", total=None)
        run, notes = import_predictions(
            given,
            data,
            results,
            workers or os.cpu_count() or 1,
            force,
            lambda cases: bar.update(task, total=cases),
            lambda case: bar.advance(task),
        )
    for line in notes:
        note(line)
    note(f"wrote {run.cases}; it stands in the tables of {recipe}, {labeled}")
