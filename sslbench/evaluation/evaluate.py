"""What `sslbench evaluate` does: find what is meant, score it, keep the records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslbench.config.grid import load_grid
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError, UsageError
from sslbench.data.store import Store
from sslbench.evaluation.pairs import GridPolicy
from sslbench.evaluation.scoring import Scores, score
from sslbench.evaluation.subjects import PredictionSet, runs_in, runs_of, subject_of_folder, subject_of_run
from sslbench.metrics.protocol import Protocol
from sslbench.runs.directory import Run, TestFiles
from sslbench.runs.records import CaseTable, write_cases
from sslbench.runs.tuning import settled

DEFAULT_PROTOCOL = "native"


@dataclass(frozen=True)
class Request:
    """What to score, and how.

    Attributes:
        targets: run directories, results folders (or any folder above runs), folders of label maps, grids by name.
        protocols: each once.
        data_dir, results_dir: where prepared data and the runs of grids lie.
        references: a folder of label maps to score against.
        dataset, preprocessing: or the references of a prepared dataset; no preprocessing: its first.
        classes: names of the labels 1, 2, ... of a folder.
        geometry: what to do where a prediction does not lie on its reference's grid.
        partial: whether references without a prediction are no failure, in a folder.
        output: file for the records of a folder.
        workers: processes.
        checkpoint: of runs, the rule whose weights were tested; None: their own.
    """

    targets: Sequence[str]
    protocols: Sequence[Protocol]
    data_dir: Path
    results_dir: Path
    references: Path | None = None
    dataset: str | None = None
    preprocessing: str | None = None
    classes: Sequence[str] = ()
    geometry: GridPolicy = "check"
    partial: bool = False
    output: Path | None = None
    workers: int = 1
    checkpoint: str | None = None


@dataclass
class EvaluationResult:
    """The result of `evaluate`.

    Attributes:
        scores: one per run or folder, in the order of the targets.
        written: files.
        notes: lines for the user.
        failed: what could not be scored (a run, or a case of a folder or run), and why.
    """

    scores: list[Scores] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def protocols_of(names: Sequence[str], every: bool) -> list[Protocol]:
    """The protocols of these names, or all that are registered.

    Raises:
        UnknownNameError: no such protocol.
    """
    listed = [entry.name for entry in registry.entries("protocol") if not entry.preset_of] if every else names
    found = [registry.component("protocol", name) for name in listed or [DEFAULT_PROTOCOL]]
    return list({protocol.name: protocol for protocol in found}.values())


def evaluate(
    request: Request,
    starting: Callable[[str, int], None] = lambda title, cases: None,
    progress: Callable[[str], None] = lambda case: None,
) -> EvaluationResult:
    """Score everything that is asked for; what fails costs itself only.

    Args:
        request: what and how.
        starting: told of every run or folder with the number of its cases.
        progress: told every case that is done.

    Raises:
        UsageError: a target that is nothing, options that do not fit it, or nothing to score.
        SSLBenchError: a run named as such that is not finished, or two copies of a run.
    """
    outcome = EvaluationResult()
    for subject in _subjects(request, outcome):
        starting(subject.title, len(subject.pairs))
        scores = score(subject, request.protocols, request.workers, request.geometry, progress)
        outcome.notes += subject.notes
        outcome.failed |= {f"{subject.title}: {case}": why for case, why in scores.failed.items()}
        outcome.scores.append(scores)
        if subject.run is not None:
            _keep_run(scores, subject.run, subject.files or subject.run.own, outcome)
        elif request.output is not None and any(scores.records.values()):
            write_cases(request.output, [row for rows in scores.records.values() for row in rows])
            outcome.written.append(request.output)
    if not outcome.scores and not outcome.failed:
        raise UsageError("no finished run is among what was named", "sslbench status shows where runs stand")
    return outcome


def _subjects(request: Request, outcome: EvaluationResult) -> Iterator[PredictionSet]:
    runs: dict[Path, tuple[Run, bool]] = {}
    folders: list[Path] = []
    for target in request.targets:
        path = Path(target)
        if path.is_dir():
            found = runs_in(path)
            if found is None:
                folders.append(path)
            for run in found or []:
                runs.setdefault(run.directory.resolve(), (run, run.directory == path))
        elif path.exists() and not target.endswith((".yaml", ".yml")):
            raise UsageError(f"{path} is no folder", "name a run directory, a folder of label maps, or a grid")
        else:
            grid = load_grid(target)
            jobs = settled(grid, grid.trials(grid.rows()), request.results_dir).expand()
            begun = runs_of(jobs, request.results_dir)
            if len(begun) < len(jobs):
                outcome.notes.append(f"{target}: {len(jobs) - len(begun)} of {len(jobs)} jobs have not begun")
            for run in begun:
                runs.setdefault(run.directory.resolve(), (run, False))
    _check(request, bool(runs), folders)
    open_runs = [run for run, named in runs.values() if run.state not in ("finished", "damaged") and not named]
    if open_runs:
        names = ", ".join(f"{run.name} ({run.standing})" for run in open_runs[:5]) + (
            ", ..." if len(open_runs) > 5 else ""
        )
        outcome.notes.append(f"{len(open_runs)} of {len(runs)} runs are not finished, and left out: {names}")
    for run, _ in runs.values():
        if run in open_runs:
            continue
        try:
            yield subject_of_run(run, request.data_dir, request.references, request.checkpoint)
        except SSLBenchError as error:
            if len(runs) == 1:
                raise
            outcome.failed[run.name] = str(error)
    for folder in folders:
        references = request.references or _store(request)
        yield subject_of_folder(folder, references, request.classes, request.partial, request.workers)


def _check(request: Request, runs: bool, folders: Sequence[Path]) -> None:
    """Options that mean nothing for what was named are refused: they would be passed over in silence."""
    if folders and not (request.references or request.dataset):
        raise UsageError(
            f"{folders[0]} holds no runs, and label maps need references",
            "add --references DIR, or --dataset NAME for those of a prepared dataset",
        )
    if request.references and request.dataset:
        raise UsageError("--references and --dataset do not go together", "both say what to score against")
    if request.references and not request.references.is_dir():
        raise UsageError(f"{request.references} is no folder", "--references names a folder of label maps")
    given = {
        "--dataset": request.dataset,
        "--classes": request.classes,
        "--partial": request.partial,
        "-o": request.output,
    }
    if runs and (meant := [flag for flag, value in given.items() if value]):
        raise UsageError(
            f"{meant[0]} is for folders of label maps, not for runs",
            "a run knows its dataset, classes and cases, and keeps its records",
        )
    if folders and request.checkpoint:
        raise UsageError("--checkpoint is for runs, not for folders of label maps", "nobody knows who predicted these")
    if request.preprocessing and not request.dataset:
        raise UsageError("--preprocessing needs --dataset", "for example --dataset acdc --preprocessing ssl4mis")
    if request.output and len(folders) > 1:
        raise UsageError("-o takes the records of one folder", "score the folders one by one")


def _store(request: Request) -> Store:
    kind = registry.component("dataset", str(request.dataset))
    return Store.open(request.data_dir, kind.name, request.preprocessing or next(iter(kind.preprocessings)))


def _keep_run(scores: Scores, run: Run, files: TestFiles, outcome: EvaluationResult) -> None:
    """Write a run's records beside `cases.csv`, which stays as it is; an incomplete set is not kept."""
    if not scores.complete:
        return
    for name, records in scores.records.items():
        if name == run.values.get("protocol"):
            differing = first_difference(records, _recorded(run, files))
            if not differing:
                continue
            outcome.notes.append(
                f"{scores.subject.title}: its {files.cases.name} differs from what protocol {name} measures now, "
                f"first in {differing}"
            )
        path = files.cases_under(name)
        write_cases(path, records)
        outcome.written.append(path)


def _recorded(run: Run, files: TestFiles) -> CaseTable:
    try:
        return run.cases_in(files.cases)
    except ValueError as error:
        raise SSLBenchError(f"{files.cases} {error}") from error


def first_difference(records: Sequence[Mapping[str, Any]], known: CaseTable) -> str:
    """The first record that is not as it was; empty where all are, but for the last bits.

    Args:
        records: as measured now.
        known: as recorded, with the columns `case`, `class_id`, `metric`, `value` and `state`.
    """
    keys = zip(*(known[name] for name in ("case", "class_id", "metric")), strict=True)
    old = dict(zip(keys, zip(known["value"], known["state"], strict=True), strict=True))
    for record in records:
        key = (record["case"], record["class_id"], record["metric"])
        if key not in old:
            return f"{record['case']}, {record['class']}, {record['metric']}"
        (was, state), now = old[key], float(record["value"])
        same = math.isclose(was, now, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(was) and math.isnan(now))
        if not same or state != record["state"]:
            return f"{record['case']}, {record['class']}, {record['metric']}: {was:g}, now {now:g}"
    return ""
