"""Options that several commands share, and how the values of options are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from sslbench.cli import completion
from sslbench.core.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from sslbench.config.grid import Grid
    from sslbench.config.job import Job
    from sslbench.evaluation.pairs import GridPolicy
    from sslbench.runs.directory import Run

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


def only_option(panel: str | None = None) -> Any:
    """Make the option `--only`."""
    text = "Only jobs with these, e.g. method=cps,mt; also recipe, weighting, loss, plugin, labeled, seed."
    return option("AXIS=VALUES", text, "--only", panel=panel, complete=completion.axes)


def scale_option(panel: str | None = None) -> Any:
    """Make the option `--scale`."""
    text = "Shorten every schedule, e.g. to 0.1 of its iterations; the results say so."
    return option("FACTOR", text, "--scale", panel=panel)


def device_option(default: str, panel: str | None = None) -> Any:
    """Make the option `--device`; what it is without it, where there is a GPU."""
    text = f"cpu, cuda, cuda:1; default: {default}, else the CPU."
    return option("DEVICE", text, panel=panel, complete=completion.devices)


def references_flag(panel: str | None = None) -> Any:
    """Make the option `--with-references`."""
    text = "With supervised training on the grid's label budgets and on all labels."
    return flag(text, "--with-references/--no-references", panel=panel)


def seed_option(text: str, panel: str | None = None) -> Any:
    """Make the option `--seed`."""
    return option("SEEDS", text, "--seed", "-s", panel=panel)


DataDir = Annotated[Path | None, option("DIR", "Prepared datasets: SSLBENCH_DATA, else data/.", panel=OUTPUT)]
ResultsDir = Annotated[Path | None, option("DIR", "Runs and reports: SSLBENCH_RESULTS, else results/.", panel=OUTPUT)]
Sets = Annotated[list[str] | None, setting("Change a field, e.g. optimizer.lr=0.005.", completion.settings)]
Json = Annotated[bool, flag("Machine-readable, alone on stdout.", "--json/--no-json", panel=OUTPUT)]
Quiet = Annotated[bool, flag("Print less.", "--quiet/--no-quiet", "-q", panel=OUTPUT)]
Seeds = Annotated[list[str] | None, seed_option("Seeds, e.g. 0,1 or 0-2; default: the grid's.")]
Only = Annotated[list[str] | None, only_option()]
Scale = Annotated[float | None, scale_option()]
References = Annotated[bool, references_flag()]
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
SourceArgument = Annotated[
    str | None,
    argument(
        "GRID",
        "A grid by name or its YAML file, a results folder, a file of records (CSV, Parquet), or a bundle.",
        completion.grids,
    ),
]
GridArgument = Annotated[str | None, argument("GRID", "A grid by name, or its YAML file.", completion.grids)]


@dataclass(frozen=True)
class Choice:
    """Which jobs of a grid are meant, and how they are changed.

    Attributes:
        set, seed, only: the values of these options.
        scale: the same; it goes before a `schedule.scale` that is set.
        references: whether supervised training on the grid's budgets and on all labels joins its jobs.
        baseline: of its table, `cps+ga`; empty: the grid's own.
    """

    set: Sequence[str] | None = None
    seed: Sequence[str] | None = None
    only: Sequence[str] | None = None
    scale: float | None = None
    references: bool = False
    baseline: str = ""

    def presented(self, grid: Grid) -> Grid:
        """Return a grid whose table says what is asked for."""
        if not self.baseline:
            return grid
        return grid.model_copy(update={"table": grid.table.model_copy(update={"baseline": self.baseline})})

    def jobs(self, grid: Grid) -> list[Job]:
        """Return the jobs of a grid that are meant, canonical and checked; of a tuned one those that are reported."""
        return grid.tuned(self.rows(grid))

    def runs(self, name: str | None, results: Path) -> list[Run]:
        """Return the run directories of a grid's jobs that are meant, or with no grid named all there are.

        Raises:
            UsageError: no grid is named, and something is asked of its jobs.
        """
        from sslbench.config.grid import load_grid
        from sslbench.runs.directory import RUNS, Run, runs_below

        if name:
            return [Run.of(job, results) for job in self.jobs(load_grid(name))]
        self.no_grid()
        return runs_below(results / RUNS)

    def settled(self, grid: Grid, results: Path) -> Grid:
        """Return a tuned grid with what its trials in a results folder chose; any other as it is."""
        if grid.tune is None or grid.chosen:
            return grid
        from sslbench.runs.tuning import settled

        return settled(grid, grid.trials(self.rows(grid)), results)

    def rows(self, grid: Grid) -> list[Job]:
        """Return the jobs of a grid that are meant before they are tuned."""
        from sslbench.config import scaling, selection
        from sslbench.config.text import parse_set

        overrides = parse_set(self.set or []) | ({} if self.scale is None else {scaling.PATH: self.scale})
        if seeds := seeds_of(self.seed):
            grid = grid.with_seeds(seeds)
        if self.references:
            grid = grid.with_references()
        return selection.only(grid.rows(overrides), self.only or [])

    def no_grid(self) -> None:
        """Refuse options that say something of a grid where none is named."""
        if self.words:
            raise UsageError(f"{self.words[0]} needs the name of a grid", "sslbench list grids")

    @property
    def given(self) -> dict[str, Any]:
        """The options that were given, by name; `Choice(**given)` is the same choice."""
        return {name: value for name, value in asdict(self).items() if value}

    @property
    def words(self) -> list[str]:
        """The options as one types them."""
        given = (("--set", self.set), ("--seed", self.seed), ("--only", self.only))
        words = [word for flag, values in given for value in values or [] for word in (flag, value)]
        words += [] if self.scale is None else ["--scale", f"{self.scale:g}"]
        return words + ["--with-references"] * self.references


def seeds_of(values: Sequence[str] | None) -> list[int]:
    """`0,1` and `0-2` as numbers, each once."""
    from sslbench.config.selection import seeds_in

    return list(dict.fromkeys(seed for part in several(values) for seed in seeds_in(part)))


def opened(data_dir: Path | None) -> Path:
    """The data folder; the datasets, recipes and lists that are declared in it are known from here on."""
    from sslbench.core import settings
    from sslbench.data.own.dataset import load_all

    folder = settings.data_dir(data_dir)
    load_all(folder)
    return folder


def several(values: Sequence[str] | None) -> list[str]:
    """Repeated and comma-separated values as one list."""
    from sslbench.config.text import split_outside_brackets

    return [part for value in values or [] for part in split_outside_brackets(value)]


def grid_policy(resample: bool, ignore_affine: bool) -> GridPolicy:
    """What is done where predictions do not lie on their references' grids, by the options that say it."""
    if resample and ignore_affine:
        raise UsageError("--resample and --ignore-affine do not go together", "the one reads affines, the other not")
    return "resample" if resample else "voxels" if ignore_affine else "check"


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
