"""`sslbench merge` and `clean`: results folders joined, and what nobody reads again deleted; both say first what they
would do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sslbench.cli.console import confirmed, note, out, say
from sslbench.cli.options import Choice, DataDir, GridArgument, Only, ResultsDir, Scale, Seeds, Sets, flag, opened

Yes = Annotated[bool, flag("Do it without asking; else, without a terminal, nothing is done.", "--yes/--no-yes", "-y")]

_WORDS = {
    "copy": "copied",
    "replace": "put in the place of ones that were less far, which stay beside",
    "same": "there already, with the same records",
    "stays": "there already, as far or further",
    "leave": "left where they are",
    "contradiction": "contradict what is there: refused",
}


def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Results folders.", show_default=False)],
    yes: Yes = False,
    data_dir: DataDir = None,
    results_dir: ResultsDir = None,
) -> None:
    """Join results folders of other machines into the results folder. The same job with other records is refused."""
    from sslbench.config.text import counted
    from sslbench.core import settings
    from sslbench.runs import merging

    opened(data_dir)
    plan = merging.plan_merge([settings.user_path(folder) for folder in folders], settings.results_dir(results_dir))
    for joining in plan:
        if joining.step in ("leave", "contradiction"):
            style = "red" if joining.step == "contradiction" else "yellow"
            note((joining.step, style), f" {joining.source.directory}: {joining.reason}")
    for step, words in _WORDS.items():
        if number := sum(joining.step == step for joining in plan):
            say(out(), f"{counted(number, 'run')}: {words}")
    todo = [joining for joining in plan if joining.step in ("copy", "replace")]
    if todo and confirmed(f"Join {counted(len(todo), 'run')} into {settings.results_dir(results_dir)}?", yes):
        merging.merge(todo)
        note(f"joined {counted(len(todo), 'run')}")
    if any(joining.step == "contradiction" for joining in plan):
        raise typer.Exit(1)


def clean(
    name: GridArgument = None,
    all: Annotated[
        bool, flag("All checkpoints of finished runs, best weights too: predict needs them.", "--all/--no-all")
    ] = False,
    aside: Annotated[bool, flag("Directories that --force or merge moved aside, too.", "--aside/--no-aside")] = False,
    set: Sets = None,
    seed: Seeds = None,
    only: Only = None,
    scale: Scale = None,
    yes: Yes = False,
    data_dir: DataDir = None,
    results_dir: ResultsDir = None,
) -> None:
    """Delete checkpoints that nothing reads again, of a grid or every finished run; records and label maps stay."""
    from sslbench.cli.terminal.costs import size
    from sslbench.config.text import counted
    from sslbench.core import settings
    from sslbench.runs import cleaning

    opened(data_dir)
    results = settings.results_dir(results_dir)
    runs = Choice(set, seed, only, scale).runs(name, results)
    old = cleaning.set_aside(results)
    freed = [cleaning.spare_checkpoints(runs, all), *([old] if aside else [])]
    for part in freed:
        say(out(), f"{part.kind}: {len(part.paths)}, {size(part.bytes)}")
    if old.paths and not aside:
        note(f"{old.kind}: {counted(len(old.paths), 'more')}, {size(old.bytes)} (--aside)")
    total = sum(part.bytes for part in freed)
    if any(part.paths for part in freed) and confirmed(f"Delete {size(total)}?", yes):
        for part in freed:
            cleaning.free(part)
        note(f"freed {size(total)}")
