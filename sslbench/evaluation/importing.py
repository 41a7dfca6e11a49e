"""Predictions of other software as a row of the tables of a recipe and label budget."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from sslbench.config.job import Job, ResolvedJob
from sslbench.config.splits import load_splits
from sslbench.config.text import counted, first_few
from sslbench.core import registry
from sslbench.core.errors import DataError, UsageError
from sslbench.core.files import move_aside, write_json, write_text
from sslbench.core.version import code_state
from sslbench.data.store import Partition, Store, partition
from sslbench.evaluation.pairs import GridPolicy, load_pair
from sslbench.evaluation.scoring import score
from sslbench.evaluation.subjects import PredictionSet, pair_of_store, predicted_maps
from sslbench.runs.directory import IMPORTED, Run
from sslbench.runs.provenance import data_record, split_record
from sslbench.runs.records import write_cases

_REFERENCE = "supervised"  # a job that every recipe has, from which its lists and protocol are learned


@dataclass(frozen=True)
class ForeignPredictions:
    """What is to be imported.

    Attributes:
        name: fit for a folder: letters, digits, points, hyphens, underscores.
        folder: of the label maps, see `subjects.predicted_maps`.
        recipe, labeled: whose tables they belong to.
        seed: which of several trainings.
        title: for tables; empty: the name.
        geometry: what to do where a label map does not lie on its reference's grid.
    """

    name: str
    folder: Path
    recipe: str
    labeled: str
    seed: int
    title: str = ""
    geometry: GridPolicy = "check"


def import_predictions(
    given: ForeignPredictions,
    data_dir: Path,
    results: Path,
    workers: int = 1,
    force: bool = False,
    starting: Callable[[int], None] = lambda cases: None,
    progress: Callable[[str], None] = lambda case: None,
) -> tuple[Run, list[str]]:
    """Score predictions of other software under a recipe's protocol, and keep the records as a run's.

    Args:
        given: what.
        data_dir: where the dataset was prepared.
        results: the results folder.
        workers: processes.
        force: replace what was imported under the same name, budget and seed; it is kept aside.
        starting: told how many cases there are.
        progress: told the id of each case when it is done.

    Returns:
        The run directory, and lines for the user.

    Raises:
        UsageError: a name that is none, no folder, no such recipe or budget, no prepared data, predictions that are not
            there, or some of that name that are.
        DataError: predictions that cannot be scored: unreadable, on another grid, of other labels.
    """
    if not re.fullmatch(r"[\w.-]+", given.name):
        raise UsageError(f"'{given.name}' is no name for predictions", "use letters, digits, points, - and _")
    if not given.folder.is_dir():
        raise UsageError(f"there is no folder {given.folder}", "name the folder of the label maps")
    resolved = Job(recipe=given.recipe, method=_REFERENCE, labeled=given.labeled, seed=given.seed).resolved
    recipe, labeled = resolved.recipe, resolved.job.labeled
    store = Store.open(data_dir, recipe.dataset, recipe.preprocessing)
    held = partition(store, load_splits(recipe.dataset, recipe.splits), labeled)
    subject, notes = _subject(given, store, held.test)
    protocol = registry.component("protocol", recipe.protocol)
    digest = _digest(given, resolved, store)
    cell = results / IMPORTED / Path(given.recipe).stem / labeled / given.name
    old = sorted(cell.glob(f"seed-{given.seed}-*[0-9a-f]"))
    if old and not force:
        raise UsageError(f"{given.name} is imported already: {old[0]}", "--force replaces it and keeps it aside")
    starting(len(subject.pairs))
    scores = score(subject, [protocol], workers, given.geometry, progress)
    if failed := {**scores.failed, **scores.refused}:
        told = "; ".join(f"{case}: {why}" for case, why in list(failed.items())[:3])
        raise DataError(f"{counted(len(failed), 'prediction')} of {given.folder} cannot be scored: {told}")
    for each in old:
        move_aside(each)
    run = Run(cell / f"seed-{given.seed}-{digest[:8]}")
    _write(run, given, resolved, store, held, digest, subject)
    write_cases(run.cases, scores.records[protocol.name])
    write_json(run.status_file, {"state": "finished"})
    return run, notes


def _subject(given: ForeignPredictions, store: Store, test: tuple[str, ...]) -> tuple[PredictionSet, list[str]]:
    held, beside = predicted_maps(given.folder, test)
    notes = []
    if renamed := _by_order(held, test, store):
        held, beside = ({renamed.get(name, name): path for name, path in files.items()} for files in (held, beside))
        first, *_ = renamed
        notes.append(f"took {counted(len(renamed), 'label map')} by their order: {first} as {renamed[first]}")
        if unproven := [name for name, case in renamed.items() if case not in beside]:
            raise UsageError(
                f"{given.folder} has {unproven[0]} in place of {renamed[unproven[0]]}, and no reference beside it that "
                "shows whether they are the same",
                "call each label map as its case is",
            )
    if missing := [case for case in test if case not in held]:
        raise UsageError(
            f"{given.folder} lacks {len(missing)} of {len(test)} test cases: {first_few(missing)}",
            "each case needs a label map that is called as it is, or CASE_pred",
        )
    _check_references(given, store, {case: path for case, path in beside.items() if case in test})
    more = sorted(set(held) - set(test))
    notes += [f"left out {counted(len(more), 'label map')} of no test case: {first_few(more)}"] if more else []
    classes = tuple(info.short for info in store.dataset.classes)
    return (
        PredictionSet(
            given.title or given.name,
            tuple(pair_of_store(case, held[case], store) for case in test),
            {},
            classes,
            tuple(range(1, len(classes) + 1)),
            store.spacing,
            store.dataset.preprocessings[store.preprocessing],
        ),
        notes,
    )


def _by_order(held: Mapping[str, Path], test: Sequence[str], store: Store) -> dict[str, str]:
    """The cases that names of another numbering mean, of patients who have as many of each (SSL4MIS calls ACDC's two
    frames 01 and 02); empty where any name is that of its case."""
    group_of = store.dataset.group_of
    of = {group_of(case): sorted(each for each in test if group_of(each) == group_of(case)) for case in test}
    strange = sorted(name for name in held if name not in test and group_of(name) in of)
    renamed: dict[str, str] = {}
    for group, cases in of.items():
        names = [name for name in strange if group_of(name) == group]
        lacking = [case for case in cases if case not in held]
        if lacking and len(names) == len(lacking):
            renamed |= dict(zip(names, lacking, strict=True))
    return renamed


def _check_references(given: ForeignPredictions, store: Store, beside: Mapping[str, Path]) -> None:
    """Hold the references that lie beside predictions against ours: they show axes that are turned, and other cases.

    Raises:
        DataError: one is not ours, voxel for voxel.
    """
    for case, path in beside.items():
        maps = load_pair(pair_of_store(case, path, store), "original", given.geometry)
        if not np.array_equal(maps.prediction, maps.reference):
            raise DataError(
                f"{path} is not the prepared reference of {case}: another case, other labels, or turned axes",
                "export the predictions on the scan's grid; without this file they are taken as they are",
            )


def _digest(given: ForeignPredictions, resolved: ResolvedJob, store: Store) -> str:
    """What seeds must share to be averaged: software, case lists, data and protocol."""
    recipe = resolved.recipe
    lists = load_splits(recipe.dataset, recipe.splits).fingerprint(resolved.job.labeled)
    version = registry.component("protocol", recipe.protocol).version
    parts = [IMPORTED, given.name, recipe.dataset, recipe.preprocessing, lists, recipe.protocol, version]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _write(
    run: Run,
    given: ForeignPredictions,
    resolved: ResolvedJob,
    store: Store,
    held: Partition,
    digest: str,
    subject: PredictionSet,
) -> None:
    recipe = resolved.recipe
    job = {"recipe": given.recipe, "method": given.name, "loss": "default", "plugin": None}
    values = {
        "imported": given.title or given.name,
        "dataset": recipe.dataset,
        "preprocessing": recipe.preprocessing,
        "splits": recipe.splits,
        "protocol": recipe.protocol,
    }
    content = {
        "job": {**job, "labeled": resolved.job.labeled, "seed": given.seed, "set": {}},
        "digest": digest,
        "values": values,
        "layers": {},
    }
    write_text(run.config, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    files = {pair.case: hashlib.sha256(pair.prediction.read_bytes()).hexdigest() for pair in subject.pairs}
    provenance = {
        "code": code_state(),
        "data": data_record(store),
        "splits": split_record(load_splits(recipe.dataset, recipe.splits), resolved.job.labeled, store, held),
        "geometry": given.geometry,
        "maps": files,
    }
    write_json(run.provenance, provenance)
