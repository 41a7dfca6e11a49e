"""Finding runs on disk and reading their per-case records into one tidy frame."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sslbench.core.errors import SSLBenchError, UsageError
from sslbench.core.files import is_plain_name
from sslbench.runs.archive import read_archive
from sslbench.runs.directory import IMPORTED, RUNS, Damage, Renamed, Run, runs_below
from sslbench.runs.records import CASE_COLUMNS, INTEGERS, CaseTable, check_whole, group_reader, read_table

# What names a cell of a table: seeds that agree in all of these are averaged, nothing else is.
CELL_COLUMNS = ("recipe", "labeled", "method", "loss", "plugin", "variant", "digest")
COLUMNS = (*CELL_COLUMNS[:-1], "seed", "digest", "dataset", *CASE_COLUMNS, "run")


@dataclass(frozen=True, eq=False)
class ByRun:
    """A frame with a column `run`, whose rows are looked up by run."""

    frame: pd.DataFrame

    @cached_property
    def _places(self) -> Mapping[Any, Any]:
        return self.frame.groupby("run", sort=False).indices

    @cached_property
    def _columns(self) -> dict[str, NDArray[Any]]:
        return {}

    def of(self, runs: Iterable[str]) -> pd.DataFrame:
        """The rows of some runs, in their order in the frame."""
        return self.frame.take(self._rows(runs))

    def columns(self, runs: Iterable[str], names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Some columns of these rows: a tenth of the time where a report has thousands of rows."""
        rows = self._rows(runs)
        return {name: self._column(name)[rows] for name in names}

    def _rows(self, runs: Iterable[str]) -> NDArray[np.int64]:
        found = [self._places[name] for name in dict.fromkeys(runs) if name in self._places]
        return np.sort(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)

    def _column(self, name: str) -> NDArray[Any]:
        if name not in self._columns:
            self._columns[name] = self.frame[name].to_numpy()
        return self._columns[name]


@dataclass(frozen=True)
class Collection:
    """The runs and records of a results folder.

    Attributes:
        records: columns `COLUMNS`, one row per job × case × class × metric; `value` is NaN where the protocol
            leaves it out of means.
        runs: all runs, in any state, in the order of their names.
        warnings: one line per file that could not be used, and one where runs were not scored under a protocol.
        damaged: whether one of those files is not as it was written.
        manifest: of the file that they were read from; None: there is none, or they were read from run directories.
    """

    records: pd.DataFrame
    runs: tuple[Run, ...]
    warnings: tuple[str, ...] = ()
    damaged: bool = False
    manifest: Mapping[str, Any] | None = None

    @cached_property
    def by_run(self) -> ByRun:
        """The records, to look up by run."""
        return ByRun(self.records)

    @cached_property
    def reported(self) -> frozenset[str]:
        """Names of the runs that have records."""
        return frozenset(self.records["run"].unique())


def load_results(path: Path | str) -> pd.DataFrame:
    """Read the records of all finished runs, one row per job × case × class × metric, columns `COLUMNS`.

    Runs in another state are left out; a damaged one is left out with a Python warning that names the file.

    Args:
        path: a results folder, its `runs` folder or any folder below, one run directory, or a file of records: a tidy
            CSV (`report --cases`), the same compressed (`.csv.gz`), as Parquet (`.parquet`), or a bundle (`.zip`).

    Raises:
        UsageError: nothing is there, or a file of another kind.
        SSLBenchError: a run directory whose name and configuration disagree.
    """
    found = collect(path)
    for line in found.warnings:
        warnings.warn(line, stacklevel=2)
    return found.records


def find_runs(results: Path | str) -> list[Run]:
    """Find all run directories at or below a folder, in any state, in the order of their names.

    Raises:
        UsageError: there is no such folder.
        Renamed: a run directory whose name and configuration disagree.
    """
    path = Path(results)
    if not path.is_dir():
        raise UsageError(f"no results in {path}", "name a results folder, a run directory or a file of records")
    runs = runs_below(path / RUNS if (path / RUNS).is_dir() else path)
    _unreadable(runs)
    return runs


def collect(path: Path | str, protocol: str | None = None, checkpoint: str | None = None) -> Collection:
    """Read what `load_results` reads, with the runs, and with the warnings as lines.

    Args:
        path: as for `load_results`; a file has records of its own protocols and checkpoints only.
        protocol: whose records to read, as `evaluate` left them; None: each run's own.
        checkpoint: the rule whose weights were tested (`best-val`, `last`); None: each run's own.
    """
    path = Path(path)
    if path.is_file():
        return _from_file(path)
    return records_of(list(dict.fromkeys([*find_runs(path), *imported_runs(path)])), protocol, checkpoint)


def imported_runs(results: Path | str, below: str = "") -> list[Run]:
    """Find the predictions of other software that were imported to a results folder, in the order of their names.

    Args:
        results: the folder; one of another kind holds none.
        below: `<recipe>/<labeled>` alone; empty: all.
    """
    return runs_below(Path(results) / IMPORTED / below)


def records_of(runs: Sequence[Run], protocol: str | None = None, checkpoint: str | None = None) -> Collection:
    """Read the records of those of `runs` that are finished.

    Args:
        runs: each once.
        protocol: whose records to read, as `evaluate` left them; None: each run's own.
        checkpoint: the rule whose weights were tested; None: each run's own.

    Raises:
        SSLBenchError: a job of which two copies are among the runs, or a directory that is not what its name says.
    """
    faults = [damage.left_out for damage in _unreadable(runs)]
    table: dict[str, list[Any]] = {column: [] for column in COLUMNS}
    untested: list[str] = []
    unscored: list[str] = []
    seen: dict[tuple[object, ...], Run] = {}
    for run in runs:
        records = run.read_records()
        if records is None:
            damage = run.standing.damage
            faults += [damage.left_out] if damage and damage.file == run.cases else []
            continue
        twin = seen.setdefault((*run.cell, run.job["seed"]), run)
        if twin is not run:
            raise SSLBenchError(
                f"{twin.directory} and {run.directory} are the same job",
                "report one of the two results folders",
            )
        files = run.tested(checkpoint)
        path = files.cases
        if not path.exists():
            untested.append(run.name)
            continue
        if protocol is not None and files.cases_under(protocol).exists():
            path = files.cases_under(protocol)
        elif protocol not in (None, run.values.get("protocol")):
            unscored.append(run.name)
            continue
        if path != run.cases:
            try:
                records = run.cases_in(path)
            except ValueError as error:
                faults.append(f"{path} is left out: it {error}")
                continue
        _append(table, records, run)
    damaged = bool(faults)
    if untested:
        faults.append(
            f"left out: {_some(untested)} not tested with the weights of {checkpoint}; a recipe asks for that by"
            " `checkpoints`"
        )
    if unscored:
        faults.append(f"left out: {_some(unscored)} not scored under {protocol} yet; `sslbench evaluate` does that")
    return Collection(_frame(table), tuple(runs), tuple(faults), damaged)


def records_csv(records: pd.DataFrame) -> str:
    """Write the text of a tidy CSV that `load_results` reads back to the same records."""
    return records.to_csv(index=False, columns=list(COLUMNS), lineterminator="\n")


def _some(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} runs, such as {names[0]},"


def _unreadable(runs: Iterable[Run]) -> list[Damage]:
    """List the configurations that cannot be read; a directory with another job's name stops every reader."""
    found = []
    for run in runs:
        try:
            run.check_identity()
        except Renamed:
            raise
        except Damage as damage:
            found.append(damage)
    return found


def _append(table: Mapping[str, list[Any]], records: CaseTable, run: Run) -> None:
    """Add the records of a run to a table of `COLUMNS`."""
    number = len(records["case"])
    labels = dict(zip(CELL_COLUMNS, run.cell, strict=True)) | {
        "seed": run.job["seed"],
        "dataset": str(run.values.get("dataset") or run.data.get("dataset") or ""),
        "run": run.name,
    }
    for column in COLUMNS:
        table[column] += records[column] if column in records else [labels[column]] * number


def _frame(table: CaseTable) -> pd.DataFrame:
    types = {"value": "float64"} | dict.fromkeys(INTEGERS, "int64")
    return pd.DataFrame({name: pd.Series(column, dtype=types.get(name, "str")) for name, column in table.items()})


def _from_file(path: Path) -> Collection:
    """The records of a tidy CSV, a Parquet file or a bundle; its manifest says what records do not."""
    try:
        text, manifest = read_archive(path)
        table, lines = read_table(text, COLUMNS)
        if "group" not in table:
            told = zip(table["dataset"], table["case"], strict=True)
            groups = {pair: group_reader(pair[0])(pair[1]) for pair in dict.fromkeys(told)}
            table = {**table, "group": [groups[pair] for pair in zip(table["dataset"], table["case"], strict=True)]}
        records = _frame({name: table[name] for name in COLUMNS})
    except ValueError as error:
        raise UsageError(f"{path} is no file of results: it {error}") from error
    entries = {str(entry["run"]): entry for entry in manifest["runs"]} if manifest else {}
    facts = manifest["facts"] if manifest else []
    runs = {}
    for name in dict.fromkeys([*map(str, records["run"].unique()), *entries]):
        if not all(map(is_plain_name, name.split("/"))):
            raise UsageError(f"{path} is no file of results: the run {name!r} would lie outside of its folder")
    for key, rows in records.groupby("run", sort=False):
        name, first = str(key), rows.iloc[0]
        try:
            of_run = {column: rows[column].tolist() for column in CASE_COLUMNS}
            check_whole(of_run, [lines[place] for place in rows.index])
        except ValueError as error:
            raise UsageError(f"{path} is no file of results: {name} {error}") from error
        if (rows[[*CELL_COLUMNS, "seed", "dataset"]].nunique() > 1).any():
            raise UsageError(f"{path} is no file of results: the run {name} stands for several jobs")
        job = {part: first[part] for part in ("recipe", "labeled", "method", "loss", "plugin", "variant")}
        job["seed"] = int(first["seed"])
        if not name.endswith(f"/seed-{job['seed']}-{first['digest'][:8]}"):
            raise UsageError(f"{path} is no file of results: {name} has another seed or digest than its name says")
        known = facts[entries[name]["facts"]] if name in entries else {}
        values = {"protocol": first["protocol"], **known.get("values", {}), "dataset": first["dataset"]}
        provenance = {part: known[part] for part in ("data", "splits")} if known else None
        status = entries[name]["status"] if name in entries else None
        runs[name] = Run.of_records(path.parent / name, name, job, first["digest"], values, provenance, status=status)
    for name, entry in entries.items():
        if name not in runs and "job" in entry:
            known, place = facts[entry["facts"]], path.parent / name
            runs[name] = Run.of_records(
                place, name, entry["job"], entry["digest"], known["values"], known, entry["state"]
            )
    return Collection(records, tuple(runs.values()), manifest=manifest)
