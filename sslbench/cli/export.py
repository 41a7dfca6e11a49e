"""`sslbench export`: prepared data for software that is not in the matrix."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sslbench.cli import completion
from sslbench.cli.console import note, progress
from sslbench.cli.options import DataDir, Quiet, Workers, opened, option


def export(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where its folder is made: nnUNet_raw.", show_default=False)
    ],
    recipe: Annotated[
        str, option("NAME", "Whose dataset, preprocessing and splits.", "--recipe", "-r", complete=completion.recipes)
    ],
    labeled: Annotated[str, option("BUDGET", "Which cases have labels, e.g. 20%.", complete=completion.labeled)],
    number: Annotated[int, option("N", "Number of the dataset (500).", "--id", min=1, max=999)] = 500,
    workers: Workers = None,
    quiet: Quiet = False,
    data_dir: DataDir = None,
) -> None:
    """Write what a recipe trains and tests on as a dataset of nnU-Net; `import` takes its predictions."""
    from sslbench.config.job import Job
    from sslbench.config.splits import load_splits
    from sslbench.config.text import counted
    from sslbench.data.export import export_nnunet
    from sslbench.data.store import Store

    data = opened(data_dir)
    resolved = Job(recipe=recipe, method="supervised", labeled=labeled, seed=0).resolved
    used, budget = resolved.recipe, resolved.job.labeled
    store = Store.open(data, used.dataset, used.preprocessing)
    splits = load_splits(used.dataset, used.splits)
    with progress("cases", quiet) as bar:
        task = bar.add_task("export", total=None)
        made = export_nnunet(
            store, splits, budget, folder, number, workers or os.cpu_count() or 1,
            lambda cases: bar.update(task, total=cases),
            lambda case: bar.advance(task),
        )  # fmt: skip
    told = ", ".join(f"{count} {part}" for part, count in made.cases.items())
    note(f"wrote {made.folder}: {counted(sum(made.cases.values()), 'case')} ({told})")
    if made.cases["validation"]:
        note(
            f"copy its splits_final.json to nnUNet_preprocessed/{made.folder.name} before planning: fold 0 is the split"
        )
    note(f"predictions of imagesTs: sslbench import NAME FOLDER -r {recipe} --labeled {labeled} --seed N --resample")
