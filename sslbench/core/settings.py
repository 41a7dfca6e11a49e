"""Places on this machine: the only module that reads `SSLBENCH_*` environment variables.

They say where to, where from and when, never what is computed:

| variable | meaning | default |
| --- | --- | --- |
| `SSLBENCH_DATA` | prepared datasets | `data/` in the working folder |
| `SSLBENCH_RESULTS` | runs and reports | `results/` in the working folder |
| `SSLBENCH_CACHE` | what is worked out once, see `core.kept`; `off`: nowhere | `~/.cache/sslbench` |
| `SSLBENCH_SINK` | where copies of training records go: `tensorboard` | `none` |
| `SSLBENCH_SAVE_EVERY` | seconds of training between two checkpoints | 60 |
"""

from __future__ import annotations

import os
from pathlib import Path

from sslbench.core.errors import UsageError

VARIABLES = {
    "SSLBENCH_DATA": "data",
    "SSLBENCH_RESULTS": "results",
    "SSLBENCH_CACHE": "~/.cache/sslbench",
    "SSLBENCH_SINK": "none",
    "SSLBENCH_SAVE_EVERY": "60",
}
SAVE_EVERY_S = float(VARIABLES["SSLBENCH_SAVE_EVERY"])


def data_dir(override: Path | str | None = None) -> Path:
    """Return the folder of prepared datasets; `override` (a command-line option) wins over the environment."""
    return user_path(override or os.environ.get("SSLBENCH_DATA") or VARIABLES["SSLBENCH_DATA"])


def results_dir(override: Path | str | None = None) -> Path:
    """Return the folder of runs and reports; `override` (a command-line option) wins over the environment."""
    return user_path(override or os.environ.get("SSLBENCH_RESULTS") or VARIABLES["SSLBENCH_RESULTS"])


def cache_dir() -> Path | None:
    """Return the folder of what is worked out once; None: nothing is kept, or nobody knows the home folder."""
    asked = os.environ.get("SSLBENCH_CACHE") or VARIABLES["SSLBENCH_CACHE"]
    if asked == "off":
        return None
    try:
        return user_path(asked)
    except UsageError:
        return None


def sink(override: str | None = None) -> str | None:
    """Return the name of the sink of training records, None for none; `override` wins over the environment."""
    name = override or os.environ.get("SSLBENCH_SINK") or VARIABLES["SSLBENCH_SINK"]
    return None if name == "none" else name


def save_every() -> float:
    """Return the seconds of training between two checkpoints; 0: one after every iteration.

    Raises:
        UsageError: the environment holds no such number.
    """
    given = os.environ.get("SSLBENCH_SAVE_EVERY") or VARIABLES["SSLBENCH_SAVE_EVERY"]
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise UsageError(f"SSLBENCH_SAVE_EVERY={given} is no number of seconds", "leave it out for one a minute")
    return seconds


def user_path(path: Path | str) -> Path:
    """Return a path with `~` and `~name` expanded: a shell leaves them as they are inside of quotes and in variables.

    Raises:
        UsageError: there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{path}: nobody knows the home folder of {Path(path).parts[0]}", "write it out") from error


def grid_dirs() -> list[Path]:
    """Return the folders that a grid's name is looked up in, in order: the working folder's, then the shipped."""
    package = Path(__file__).parent.parent
    return [Path("benchmarks"), package / "_grids", package.parent / "benchmarks"]
