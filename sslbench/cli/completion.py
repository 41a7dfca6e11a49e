"""Words that the shell offers after Tab: names of the registries' index and files; no component, no torch is imported.

Each completer takes what Typer hands over (the context, the unfinished word) and gives whole words that begin with it.
A fault (a broken recipe file, say) means no offer: a traceback in the middle of somebody's prompt helps nobody.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

import typer

Completer = Callable[[typer.Context, str], list[str]]


def _quiet(complete: Callable[[typer.Context, str], Iterable[str]]) -> Completer:
    @functools.wraps(complete)
    def quietly(context: typer.Context, incomplete: str) -> list[str]:
        try:
            return [word for word in dict.fromkeys(complete(context, incomplete)) if word.startswith(incomplete)]
        except Exception:
            return []

    return quietly


def _after_comma(words: Iterable[str], incomplete: str) -> list[str]:
    """Words for the last item of a comma-separated list; those that are in it already are not offered again."""
    done, comma, _ = incomplete.rpartition(",")
    if "[" in incomplete.rpartition("]")[2]:
        return []  # inside the brackets of a name's options
    taken = done.split(",")
    return [f"{done}{comma}{word}" for word in words if word not in taken]


def _open(context: typer.Context) -> None:
    """Make known what the data folder declares: datasets, recipes and lists of the user's own."""
    from sslbench.core import settings
    from sslbench.data.own.dataset import load_all

    load_all(settings.data_dir(context.params.get("data_dir")))


def _dataset(context: typer.Context) -> Any:
    """The dataset that is on the line; while an option lacks its value, arguments are not assigned yet."""
    from sslbench.core import registry

    _open(context)
    return registry.component("dataset", context.params.get("dataset") or context.args[0])


def _component(kind: str) -> Completer:
    @_quiet
    def complete(context: typer.Context, incomplete: str) -> Iterable[str]:
        from sslbench.core import registry

        if kind == "dataset":
            _open(context)
        return _after_comma(registry.names(kind), incomplete)

    return complete


methods, losses, plugins = _component("method"), _component("loss"), _component("plugin")
weightings, datasets, protocols = _component("weighting"), _component("dataset"), _component("protocol")


@_quiet
def checkpoints(context: typer.Context, incomplete: str) -> Iterable[str]:
    """The rules by which weights are chosen to be tested."""
    from sslbench.config.recipe import CheckpointRule

    return get_args(CheckpointRule)


@_quiet
def recipes(context: typer.Context, incomplete: str) -> Iterable[str]:
    """The recipes by name; files are left to the shell."""
    from sslbench.config.recipe import recipe_names

    _open(context)
    return recipe_names()


@_quiet
def grids(context: typer.Context, incomplete: str) -> Iterable[str]:
    """The grids by name; after `run` only with `--grid`, as a name means nothing without."""
    from sslbench.config.grid import grid_files

    return grid_files() if context.params.get("grid", True) else []


@_quiet
def published(context: typer.Context, incomplete: str) -> Iterable[str]:
    """Return the published tables: with a colon a shell may end the word, so by the names of their grids."""
    from sslbench.config.published import published_tables

    return [table.grid for table in published_tables().values()]


@_quiet
def targets(context: typer.Context, incomplete: str) -> Iterable[str]:
    """Grids by name, and folders."""
    from sslbench.config.grid import grid_files

    parent = Path(incomplete if incomplete.endswith("/") else Path(incomplete).parent)
    folders = [path for path in sorted(parent.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    return [*grid_files(), *(f"{path}/" for path in folders)]


@_quiet
def labeled(context: typer.Context, incomplete: str) -> Iterable[str]:
    """The label budgets of the recipe that is on the line, or of all shipped ones."""
    from sslbench.config.layers import load_recipe
    from sslbench.config.recipe import recipe_names
    from sslbench.config.splits import load_splits

    _open(context)
    recipe = context.params.get("recipe")
    chosen = [load_recipe(name) for name in ([recipe] if recipe else recipe_names())]
    budgets = [budget for made in chosen for budget in load_splits(made.dataset, made.splits).budgets.values()]
    # A title with a space would need quotes, which the shell does not add: its slug means the same.
    words = [budget.slug if " " in budget.title else budget.title for budget in budgets]
    more = [budget.slug for budget in budgets]
    last = incomplete.rpartition(",")[2]
    return _after_comma([word for word in words if word.startswith(last)] or more, incomplete)


@_quiet
def devices(context: typer.Context, incomplete: str) -> Iterable[str]:
    """The devices that this machine seems to have."""
    cards = sorted(Path("/dev").glob("nvidia[0-9]*"))
    return ["cpu", *(["cuda"] if cards else []), *(f"cuda:{number}" for number in range(len(cards)) if len(cards) > 1)]


EXECUTORS = ("local", "slurm", "ray")


@_quiet
def executors(context: typer.Context, incomplete: str) -> Iterable[str]:
    """Who starts jobs."""
    return EXECUTORS


@_quiet
def sinks(context: typer.Context, incomplete: str) -> Iterable[str]:
    """What takes copies of training records, and the word for nothing."""
    from sslbench.execution.sinks import SINKS

    return [*SINKS, "none"]


@_quiet
def lists(context: typer.Context, incomplete: str) -> Iterable[str]:
    """Return the kinds that `list` takes."""
    from sslbench.cli.listing import LISTS

    return LISTS


@_quiet
def kinds(context: typer.Context, incomplete: str) -> Iterable[str]:
    """Return the kinds that `show` takes."""
    from sslbench.cli.show import SHOW_KINDS

    return SHOW_KINDS


@_quiet
def checks(context: typer.Context, incomplete: str) -> Iterable[str]:
    """Return the kinds that `check` takes."""
    return "method", "matrix"


@_quiet
def names(context: typer.Context, incomplete: str) -> Iterable[str]:
    """The names of the kind that is on the line."""
    from sslbench.config.recipe import recipe_names
    from sslbench.core import registry

    _open(context)
    kind = context.params.get("kind")
    return recipe_names() if kind == "recipe" else registry.names(kind) if kind in registry.KINDS else []


@_quiet
def preprocessings(context: typer.Context, incomplete: str) -> Iterable[str]:
    """The preprocessings of the dataset that is on the line."""
    return _dataset(context).preprocessings


@_quiet
def settings(context: typer.Context, incomplete: str) -> Iterable[str]:
    """`PATH=` for every field of a recipe, those that the chosen recipe writes down (its network's options), and the
    weighting; `PATH=value` where a field has named values and the shell keeps `=` inside a word."""
    from sslbench.config.fields import fields_of
    from sslbench.config.layers import load_recipe
    from sslbench.config.recipe import ABOUT, Recipe
    from sslbench.config.text import flatten
    from sslbench.core import registry

    _open(context)
    fields = {row["name"]: row["choices"] for row in fields_of(Recipe) if row["name"] not in ABOUT}
    if recipe := context.params.get("recipe"):
        written = flatten(load_recipe(recipe).model_dump(exclude=ABOUT))
        fields |= {path: [] for path in written if path not in fields}
    fields["weighting"] = registry.names("weighting")
    return _assignments(fields, incomplete)


@_quiet
def axes(context: typer.Context, incomplete: str) -> Iterable[str]:
    """`AXIS=` for what parts jobs of a grid, and names behind it."""
    from sslbench.config.selection import AXES

    axis, equals, unfinished = incomplete.partition("=")
    if not equals:
        return [f"{name}=" for name in AXES]
    completers = {"method": methods, "weighting": weightings, "loss": losses, "plugin": plugins, "labeled": labeled}
    complete = {**completers, "recipe": recipes}.get(axis)
    return [f"{axis}={word}" for word in complete(context, unfinished)] if complete else []


@_quiet
def dataset_settings(context: typer.Context, incomplete: str) -> Iterable[str]:
    """The same for the options of the dataset that is being prepared."""
    from sslbench.config.fields import fields_of

    fields = {row["name"]: row["choices"] for row in fields_of(_dataset(context).Options)}
    return _assignments(fields, incomplete)


def _assignments(fields: dict[str, list[Any]], incomplete: str) -> list[str]:
    path, equals, _ = incomplete.partition("=")
    if equals:
        words = [str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in fields.get(path, [])]
        return [f"{path}={word}" for word in words]
    return [f"{field}=" for field in fields]
