"""Options that several commands share, and how the values of options are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from sslbench.cli import completion
from sslbench.core.errors import UnknownNameError, UsageError

OUTPUT = "Output and places"


def option(metavar: str, help: str, *flags: str, panel: str | None = None, complete: Any = None, **more: Any) -> Any:
    """An option that takes a value; its default is said in the help, where there is one."""
    shown: dict[str, Any] = {"metavar": metavar, "help": help, "show_default": False}
    return typer.Option(..., *flags, rich_help_panel=panel, autocompletion=complete, **shown, **more)


def flag(help: str, *flags: str, panel: str | None = None, **more: Any) -> Any:
    """An option that is on or off: always a pair. A type and a default would tell nobody anything."""
    return typer.Option(..., *flags, help=help, metavar="", show_default=False, rich_help_panel=panel, **more)


def argument(metavar: str, help: str, complete: Any) -> Any:
    """Make an argument that the shell completes."""
    return typer.Argument(metavar=metavar, help=help, show_default=False, autocompletion=complete)


def setting(help: str, complete: Any, panel: str | None = None) -> Any:
    """Make the option `--set`."""
    return option("PATH=VALUE", help, "--set", panel=panel, complete=complete)


DataDir = Annotated[Path | None, option("DIR", "Prepared datasets: SSLBENCH_DATA, else data/.", panel=OUTPUT)]
ResultsDir = Annotated[Path | None, option("DIR", "Runs and reports: SSLBENCH_RESULTS, else results/.", panel=OUTPUT)]
Sets = Annotated[list[str] | None, setting("Change a field, e.g. optimizer.lr=0.005.", completion.settings)]
Json = Annotated[bool, flag("Machine-readable, alone on stdout.", "--json/--no-json", panel=OUTPUT)]
Quiet = Annotated[bool, flag("Print less.", "--quiet/--no-quiet", "-q", panel=OUTPUT)]
PreprocessingName = Annotated[
    str | None,
    option("NAME", "A named preprocessing; default: the dataset's first.", complete=completion.preprocessings),
]
CheckpointName = Annotated[
    str | None,
    option(
        "RULE",
        "The test of the weights of best-val or last, where `checkpoints` of a recipe asked for both.",
        complete=completion.checkpoints,
    ),
]
Workers = Annotated[int | None, option("N", "Cases at a time; default: one per core.", "--workers", "-j", min=1)]
GridArgument = Annotated[str | None, argument("GRID", "A grid by name, or its YAML file.", completion.grids)]


def opened(data_dir: Path | None) -> Path:
    """The data folder; the datasets, recipes and lists that are declared in it are known from here on."""
    from sslbench.core import settings
    from sslbench.data.own.dataset import load_all

    folder = settings.data_dir(data_dir)
    load_all(folder)
    return folder


def several(values: list[str] | None) -> list[str]:
    """Repeated and comma-separated values as one list."""
    from sslbench.config.text import split_outside_brackets

    return [part for value in values or [] for part in split_outside_brackets(value)]


def checked_rule(rule: str | None) -> str | None:
    """A rule by which weights are chosen to be tested; None stays, and stands for that of the recipe."""
    from sslbench.config.recipe import CheckpointRule

    if rule is not None and rule not in get_args(CheckpointRule):
        raise UnknownNameError("checkpoint rule", rule, get_args(CheckpointRule))
    return rule


def checked_device(device: str | None, dry_run: bool) -> str | None:
    """A device as torch spells it and, unless nothing runs, one that is there: before worker processes fail on it."""
    import torch

    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device or "cpu")
    if not match:
        raise UsageError(f"unknown device '{device}'", "write cpu, cuda or cuda:1")
    if device and device != "cpu" and not dry_run and int(match[1] or 0) >= torch.cuda.device_count():
        raise UsageError(f"there is no device '{device}'", "sslbench doctor shows those that torch sees")
    return device
