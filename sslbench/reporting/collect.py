"""Finding runs on disk and reading their per-case records into one tidy frame."""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from sslbench import registry
from sslbench.errors import SSLBenchError, UsageError
from sslbench.files import read_json
from sslbench.records import CASE_COLUMNS, cases_file

# What names a cell of a table: seeds that agree in all of these are averaged, nothing else is.
CELL_COLUMNS = ("recipe", "labeled", "method", "loss", "plugin", "variant", "digest")
COLUMNS = (*CELL_COLUMNS[:-1], "seed", "digest", "dataset", *CASE_COLUMNS, "run")

_JOB = ("recipe", "method", "loss", "plugin", "labeled", "seed")
_INTEGERS = ("seed", "class_id", "ref_voxels", "pred_voxels")
_FOLDER = re.compile(r"seed-(\d+)-([0-9a-f]{8})")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a grid has hundreds of these files


@dataclass(frozen=True)
class Run:
    """One run directory, without its records.

    Attributes:
        directory: where it lies.
        name: the same relative to `results/runs`: `<recipe>/<labeled>/<cell>/seed-<n>-<digest8>`.
        job: the canonical job, as in `config.yaml`.
        digest: 64 hexadecimal digits; runs that share it differ in the seed alone.
        state: as in `status.json` (`finished`, `running`, ...), or `unknown` where there is none.
        error: why it failed, if it did.
        values: every dotted path of the configuration and its value; empty for runs known from a tidy CSV.
    """

    directory: Path
    name: str
    job: Mapping[str, Any]
    digest: str
    state: str
    error: str
    values: Mapping[str, Any]

    @property
    def recipe(self) -> str:
        """The recipe's name, also where it is a file of the user's."""
        return Path(str(self.job["recipe"])).stem

    @cached_property
    def variant(self) -> str:
        """How the job differs from its named parts; empty where it does not."""
        return self.job.get("variant", variant_of(self.job.get("set") or {}))

    @property
    def cell(self) -> tuple[str, ...]:
        """The values of `CELL_COLUMNS`."""
        parts = (str(self.job[part] or "") for part in ("labeled", "method", "loss", "plugin"))
        return (self.recipe, *parts, self.variant, self.digest)

    @cached_property
    def data(self) -> Mapping[str, Any]:
        """What `provenance.json` says of the dataset at hand; empty where it says nothing."""
        return self._provenance("data")

    @cached_property
    def splits(self) -> Mapping[str, Any]:
        """What `provenance.json` says of the split lists; empty where it says nothing."""
        return self._provenance("splits")

    def _provenance(self, part: str) -> Mapping[str, Any]:
        provenance = read_json(self.directory / "provenance.json")
        found = provenance.get(part) if isinstance(provenance, dict) else None
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Collection:
    """What a results folder holds.

    Attributes:
        records: columns `COLUMNS`, one row per job × case × class × metric; `value` is NaN where the protocol
            leaves it out of means.
        runs: all runs, finished or not, in the order of their names.
        warnings: one line per file that could not be used.
    """

    records: pd.DataFrame
    runs: tuple[Run, ...]
    warnings: tuple[str, ...] = ()

    @cached_property
    def reported(self) -> frozenset[str]:
        """Names of the runs that have records."""
        return frozenset(self.records["run"].unique())


def load_results(path: Path | str) -> pd.DataFrame:
    """The records of all finished runs, one row per job × case × class × metric, columns `COLUMNS`.

    Runs in another state are left out; a damaged file is left out with a Python warning that names it.

    Args:
        path: a results folder, its `runs` folder or any folder below, one run directory, or a tidy CSV
            (`records_csv`).

    Raises:
        UsageError: nothing is there, or a CSV of another kind.
        SSLBenchError: a run directory whose name and configuration disagree.
    """
    found = collect(path)
    for line in found.warnings:
        warnings.warn(line, stacklevel=2)
    return found.records


def find_runs(results: Path | str) -> list[Run]:
    """All run directories at or below a folder, finished or not, in the order of their names.

    A directory whose configuration cannot be read is left out with a Python warning that names it.

    Raises:
        UsageError: there is no such folder.
        SSLBenchError: a run directory whose name and configuration disagree.
    """
    runs, faults = _scan(Path(results))
    for line in faults:
        warnings.warn(line, stacklevel=2)
    return runs


def collect(path: Path | str, protocol: str | None = None) -> Collection:
    """As `load_results`, with the runs, and with the warnings as lines.

    Args:
        path: as for `load_results`; a tidy CSV has records of its own protocols only.
        protocol: whose records to read, as `evaluate` left them; None: each run's own.
    """
    path = Path(path)
    if path.is_file():
        return _from_csv(path)
    runs, faults = _scan(path)
    return records_of(runs, faults, protocol)


def records_of(runs: list[Run], faults: list[str] | None = None, protocol: str | None = None) -> Collection:
    """The records of those of `runs` that are finished.

    Args:
        runs: each once.
        faults: warnings from before, which come first.
        protocol: whose records to read, as `evaluate` left them; None: each run's own.

    Raises:
        SSLBenchError: a job of which two copies are among the runs.
    """
    faults, frames = list(faults or []), []
    unscored: list[str] = []
    seen: dict[tuple[object, ...], Run] = {}
    for run in runs:
        if run.state != "finished":
            continue
        twin = seen.setdefault((*run.cell, run.job["seed"]), run)
        if twin is not run:
            raise SSLBenchError(
                f"{twin.directory} and {run.directory} are the same job",
                "report one of the two results folders",
            )
        path = cases_file(run.directory, protocol)
        if protocol is not None and not path.exists():
            if run.values.get("protocol") != protocol:
                unscored.append(run.name)
                continue
            path = cases_file(run.directory)
        try:
            frames.append(_labelled(_read(path, CASE_COLUMNS), run))
        except (OSError, ValueError) as error:
            faults.append(f"{path} is left out: {_reason(error)}")
    if unscored:
        some = unscored[0] if len(unscored) == 1 else f"{len(unscored)} runs, such as {unscored[0]},"
        faults.append(f"left out: {some} not scored under {protocol} yet; `sslbench evaluate` does that")
    records = pd.concat(frames, ignore_index=True) if frames else _empty()
    return Collection(records, tuple(runs), tuple(faults))


def read_run(directory: Path) -> Run | None:
    """The run in a directory, or None where no job ever began there.

    Raises:
        SSLBenchError: the folder's name and the configuration disagree.
        ValueError: the configuration cannot be read.
    """
    path = directory / "config.yaml"
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is left out: {_reason(error)}") from error
    job = config.get("job") if isinstance(config, dict) else None
    if not isinstance(job, dict) or not set(_JOB) <= job.keys():
        raise ValueError(f"{path} is left out: it holds no job")
    registry.keep_homes(config.get("modules"))
    digest = str(config.get("digest"))
    named = _FOLDER.fullmatch(directory.name)
    if named and (int(named[1]), named[2]) != (job["seed"], digest[:8]):
        raise SSLBenchError(
            f"{directory} is not what its config.yaml says (seed {job['seed']}, digest {digest[:8]})",
            "a run directory was renamed or its configuration edited: restore it, or move it away",
        )
    status = read_json(directory / "status.json")
    status = status if isinstance(status, dict) else {}
    return Run(
        directory=directory,
        name="/".join(directory.absolute().parts[-4:]),
        job=job,
        digest=digest,
        state=str(status.get("state") or "unknown"),
        error=str(status.get("error") or ""),
        values=config.get("values") or {},
    )


def records_csv(records: pd.DataFrame) -> str:
    """The text of a tidy CSV that `load_results` reads back to the same records."""
    return records.to_csv(index=False, columns=list(COLUMNS), lineterminator="\n")


def variant_of(settings: Mapping[str, Any]) -> str:
    """Dotted paths and values that a job sets, as in its folder's name: `loss.gamma=0.75,loss.k=5`."""
    return ",".join(f"{path}={plain(value)}" for path, value in sorted(settings.items()))


def plain(value: Any) -> str:
    """A value of a configuration on one line."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


# --------------------------------------------------------------------------------------------------- the disk


def _scan(path: Path) -> tuple[list[Run], list[str]]:
    if not path.is_dir():
        raise UsageError(f"no results in {path}", "name a results folder, a run directory or a tidy CSV")
    runs, faults = [], []
    for directory in _directories(path / "runs" if (path / "runs").is_dir() else path):
        try:
            run = read_run(directory)
        except ValueError as error:
            faults.append(str(error))
        else:
            runs += [run] if run else []
    return runs, faults


def _directories(root: Path) -> Iterator[Path]:
    """Folders that are named like a run, without a look inside them: predictions are many files."""
    for folder, below, _ in os.walk(root):
        if _FOLDER.fullmatch(Path(folder).absolute().name):
            below.clear()
            yield Path(folder)
        else:
            below[:] = sorted(name for name in below if not name.startswith("."))


def _read(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """A CSV with exactly these columns, typed.

    Raises:
        ValueError: another header, rows cut short, text where a number belongs.
    """
    # Read as text: a case may be called 0001, a class NA, and Python's parser keeps every bit of a number.
    frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    if tuple(frame.columns) != columns:
        raise ValueError("its header is not that of per-case records")
    if frame.empty:
        raise ValueError("it holds no records")
    if frame.isna().to_numpy().any():
        raise ValueError("a row is cut short")
    for column in columns:
        if column == "value":
            frame[column] = [float(text) if text else float("nan") for text in frame[column]]
        elif column in _INTEGERS:
            frame[column] = [int(text) for text in frame[column]]
    return frame


def _check_run(frame: pd.DataFrame) -> None:
    """Every case has every class and metric once, under one protocol.

    Raises:
        ValueError: it is not so.
    """
    if frame["protocol"].nunique() > 1:
        raise ValueError("it mixes protocols")
    if frame.duplicated(["case", "class", "metric"]).any():
        raise ValueError("a record stands in it twice")
    if len(frame) != frame["case"].nunique() * frame["class"].nunique() * frame["metric"].nunique():
        raise ValueError("a case lacks a record")
    if frame["value"].isin([math.inf, -math.inf]).any():
        raise ValueError("a value is infinite")


def _labelled(cases: pd.DataFrame, run: Run) -> pd.DataFrame:
    _check_run(cases)
    labels: dict[str, Any] = dict(zip(CELL_COLUMNS, run.cell, strict=True)) | {
        "seed": run.job["seed"],
        "dataset": str(run.values.get("dataset") or run.data.get("dataset") or ""),
        "run": run.name,
    }
    return cases.assign(**labels)[list(COLUMNS)]


def _from_csv(path: Path) -> Collection:
    try:
        records = _read(path, COLUMNS)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is no tidy CSV of results: {_reason(error)}") from error
    runs = []
    for name, rows in records.groupby("run", sort=False):
        first = rows.iloc[0]
        try:
            _check_run(rows)
        except ValueError as error:
            raise UsageError(f"{path} is no tidy CSV of results: {name}: {error}") from error
        if (rows[[*CELL_COLUMNS, "seed", "dataset"]].nunique() > 1).any():
            raise UsageError(f"{path} is no tidy CSV of results: the run {name} stands for several jobs")
        job = {part: first[part] for part in ("recipe", "labeled", "method", "loss", "plugin", "variant")}
        facts = {"dataset": first["dataset"], "protocol": first["protocol"]}
        job["seed"] = int(first["seed"])
        runs.append(Run(path.parent / str(name), str(name), job, first["digest"], "finished", "", facts))
    return Collection(records, tuple(runs))


def _empty() -> pd.DataFrame:
    types = {"value": "float64"} | dict.fromkeys(_INTEGERS, "int64")
    return pd.DataFrame({column: pd.Series(dtype=types.get(column, "str")) for column in COLUMNS})


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else str(error)
    return " ".join((text or type(error).__name__).split())[:160]
