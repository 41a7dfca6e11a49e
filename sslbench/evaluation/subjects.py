"""What can be scored: the predictions of a run, or a folder of label maps with its references."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sslbench.core.endings import VOLUME_ENDINGS, ending_of
from sslbench.core.errors import DataError, SSLBenchError, UsageError
from sslbench.core.parallel import each
from sslbench.data.base import Preprocessing
from sslbench.data.store import Store, case_files
from sslbench.evaluation.pairs import Pair, StoredGrid, read_labels
from sslbench.runs.collect import find_runs, records_of
from sslbench.runs.directory import Run, TestFiles

if TYPE_CHECKING:
    from sslbench.config.job import Job


@dataclass(frozen=True)
class PredictionSet:
    """Predictions that belong together, with their references.

    Attributes:
        title: what they are called in tables.
        pairs: the cases that can be scored, sorted.
        missing: the cases that cannot, and why.
        classes: names of the foreground classes, in order.
        values: the label values that stand for them.
        spacing: where the voxel sizes come from (`Store.spacing`); `unknown`: distances in mm mean nothing.
        preprocessing: how the stored grid of the pairs was made; None: they have none.
        run: whose predictions they are, if a run's.
        files: where these lie, and where records of them belong.
        notes: lines for the user.
    """

    title: str
    pairs: tuple[Pair, ...]
    missing: Mapping[str, str]
    classes: tuple[str, ...]
    values: tuple[int, ...]
    spacing: str = "header"
    preprocessing: Preprocessing | None = None
    run: Run | None = None
    files: TestFiles | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def expected(self) -> int:
        """How many cases should be scored."""
        return len(self.pairs) + len(self.missing)


# -------------------------------------------------------------------------------------------------------- targets


def runs_in(folder: Path) -> list[Run] | None:
    """The runs at or below a folder; None where it holds none, so that it may be a folder of label maps.

    Raises:
        SSLBenchError: a run directory whose name and configuration disagree.
    """
    alone = Run(folder)
    return [alone] if alone.config.exists() else find_runs(folder) or None


def runs_of(jobs: Iterable[Job], results: Path) -> list[Run]:
    """The runs that jobs have left so far."""
    return [run for job in jobs if (run := Run.of(job, results)).begun]


def label_files(folder: Path) -> dict[str, Path]:
    """The label maps of a folder (not of those in it), by name without the ending.

    Raises:
        UsageError: two files that differ in the ending alone.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        ending = ending_of(path, VOLUME_ENDINGS)
        if not ending or path.name.startswith(".") or not path.is_file():
            continue
        name = path.name[: -len(ending)]
        if name in found:
            raise UsageError(f"{path} is a second {name} beside {found[name].name}", "move one of them away")
        found[name] = path
    return found


_PREDICTION, _REFERENCES = "_pred", ("_gt", "_lab")  # as SSL4MIS's test scripts, and what grew from them, end names


def predicted_maps(folder: Path, known: Collection[str]) -> tuple[dict[str, Path], dict[str, Path]]:
    """The predictions of a folder by case, and the references that the same software left beside them.

    A prediction is called as its case is, as nnU-Net does; or `<case>_pred`, beside its reference `<case>_gt` (or
    `_lab`) and its image `<case>_img`, as SSL4MIS does.

    Args:
        folder: of label maps.
        known: the cases that there are.

    Raises:
        UsageError: two files that differ in the ending alone.
    """
    held = label_files(folder)
    predicted = {name.removesuffix(_PREDICTION): held[name] for name in held if name.endswith(_PREDICTION)}
    if not predicted or held.keys() & set(known):
        return held, {}
    beside = {case: held[f"{case}{end}"] for case in predicted for end in _REFERENCES if f"{case}{end}" in held}
    return predicted, beside


# ----------------------------------------------------------------------------------------------------------- runs


def subject_of_run(
    run: Run, data_dir: Path, references: Path | None = None, checkpoint: str | None = None
) -> PredictionSet:
    """The test predictions of a finished run.

    The cases, and the names of the classes, are those of the run's `cases.csv`.

    Args:
        run: whose.
        data_dir: where the dataset was prepared.
        references: a folder of label maps to score against instead.
        checkpoint: the rule whose weights were tested; None: the run's own.

    Raises:
        SSLBenchError: the run is not finished, its records cannot be read, or these weights were not tested.
        UsageError: the dataset has not been prepared, and no references are given.
        DataError: the prepared data are damaged.
    """
    found = records_of([run])
    if damage := run.standing.damage:
        raise SSLBenchError(damage.left_out, damage.hint)
    run.check_finished()
    files = run.tested(checkpoint)
    if not files.cases.exists():
        raise UsageError(
            f"{run.directory} was not tested with the weights of {checkpoint}", "`checkpoints` of a recipe asks for it"
        )
    cases = dict(zip(found.records["case"], found.records["group"], strict=True))
    names = found.records.drop_duplicates("class_id").sort_values("class_id")["class"]
    classes = tuple(str(name) for name in names)
    notes: list[str] = []
    if references is not None:
        store, given = None, label_files(references)
    else:
        store, given = Store.open(data_dir, str(run.values["dataset"]), str(run.values["preprocessing"])), {}
        recorded = run.data.get("fingerprint")
        if recorded is not None and recorded != store.fingerprint:
            notes.append(f"{run.name}: the prepared data in {store.folder} are not those that it was tested on")
    pairs, missing = [], {}
    for case, group in cases.items():
        path = files.prediction(case)
        if not path.is_file():
            missing[case] = f"{path} is missing"
        elif store is None:
            if case in given:
                pairs.append(Pair(case, group, path, given[case]))
            else:
                missing[case] = f"there is no reference {case} in {references}"
        elif case not in store.cases:
            missing[case] = f"the prepared data in {store.folder} have no such case"
        else:
            seen = files.preprocessed_prediction(case) if store.resamples(case) else None
            if seen is not None and not seen.is_file():
                missing[case] = f"{seen} is missing"
            else:
                pairs.append(pair_of_store(case, path, store, seen))
    values = tuple(range(1, len(classes) + 1))
    return PredictionSet(
        run.name if files is run.own else f"{run.name}, {checkpoint}",
        tuple(pairs),
        missing,
        classes,
        values,
        *_grid_of(store),
        run=run,
        files=files,
        notes=tuple(notes),
    )


def _grid_of(store: Store | None) -> tuple[str, Preprocessing | None]:
    """Where voxel sizes come from, and how the stored grid was made."""
    if store is None:
        return "header", None
    return store.spacing, store.dataset.preprocessings[store.preprocessing]


def pair_of_store(case: str, prediction: Path, store: Store, seen: Path | None = None) -> Pair:
    """A prediction of a prepared case with its reference, `seen`: the same on the grid that networks see."""
    files, held = case_files(store.folder, case), store.cases[case]
    stored = StoredGrid(files["label"], seen, held.geometry, held.spacing_mm)
    return Pair(case, held.group, prediction, files["reference"], stored)


# -------------------------------------------------------------------------------------------------------- folders


def subject_of_folder(
    folder: Path,
    references: Path | Store,
    classes: Sequence[str] = (),
    partial: bool = False,
    workers: int = 1,
) -> PredictionSet:
    """A folder of predicted label maps, matched with its references by file name (a prepared dataset: by case id).

    Args:
        folder: of the predictions.
        references: a folder of label maps, or a prepared dataset.
        classes: names of the labels 1, 2, ...; else the dataset's, or the label values that occur.
        partial: leave out references without a prediction; else they count as missing.
        workers: processes that look for the label values.

    Raises:
        UsageError: there is no label map in one of the folders, or no file of both has the same name.
    """
    if not label_files(folder):
        raise UsageError(
            f"{folder} holds neither runs nor label maps", f"files that can be read: {', '.join(VOLUME_ENDINGS)}"
        )
    if isinstance(references, Store):
        known = [id for id, case in references.cases.items() if case.labeled]
        where = str(references.folder)
        classes = classes or [info.short for info in references.dataset.classes]
    else:
        held = label_files(references)
        known, where = list(held), str(references)
    predicted, _ = predicted_maps(folder, known)
    both = [case for case in known if case in predicted]
    if not both:
        example = f", such as {min(predicted)}" if known else ""
        raise UsageError(
            f"no prediction in {folder} has the name of a reference in {where}",
            f"predictions are called as their references are{example}; references: {', '.join(known[:3]) or 'none'}",
        )
    missing = {case: f"there is no reference {case} in {where}" for case in sorted(set(predicted) - set(known))}
    if not partial:
        missing |= {case: f"there is no prediction {case} in {folder}" for case in known if case not in predicted}
    store = references if isinstance(references, Store) else None
    pairs = [
        Pair(case, case, predicted[case], held[case]) if store is None else pair_of_store(case, predicted[case], store)
        for case in both
    ]
    values = list(range(1, len(classes) + 1)) if classes else _label_values(pairs, workers)
    names = tuple(classes) or tuple(map(str, values))
    return PredictionSet(str(folder), tuple(pairs), missing, names, tuple(values), *_grid_of(store))


def _label_values(pairs: Sequence[Pair], workers: int) -> list[int]:
    """The foreground labels that occur anywhere; a file that cannot be read is told of when it is scored."""
    tasks = {str(path): path for pair in pairs for path in (pair.prediction, pair.reference)}
    values: set[int] = set()
    for _, found in each(_values_of, tasks, workers):
        values |= found if isinstance(found, set) else set()
    if not values - {0}:
        raise UsageError("no label map holds any label but 0: there is nothing to score")
    return sorted(values - {0})


def _values_of(path: Path) -> set[int]:
    import numpy as np

    try:
        labels, _ = read_labels(path)
    except DataError:
        return set()
    return {int(value) for value in np.flatnonzero(np.bincount(labels.ravel()))}
