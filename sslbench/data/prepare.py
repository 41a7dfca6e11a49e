"""`sslbench prepare`: an official download becomes a verified cache, case by case, in parallel, resumable.

A case is checked, preprocessed and written whole, its record last; the index of all cases comes once everything is
on the disk. A later run passes over the cases whose source files and cached files are as recorded: by size, or, where
an earlier run was cut off before its index, by content. A case that fails is named and left out; the others go on.
Two processes that prepare the same take turns.
"""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from sslbench.config.splits import expand, groups_of, load_splits, split_files
from sslbench.config.text import counted, first_few
from sslbench.core import registry
from sslbench.core.errors import DataError, SSLBenchError, UsageError
from sslbench.core.files import atomic_path, is_plain_name, locked, read_json, sync_files, write_json
from sslbench.core.parallel import each
from sslbench.core.settings import data_dir as data_folder
from sslbench.core.settings import user_path
from sslbench.data.base import OWN_DATA, Dataset, RawCase
from sslbench.data.card import CARD, write_card
from sslbench.data.files.archives import ARCHIVE_ENDINGS, archives_in, is_archive, unpack, unpacked_folder
from sslbench.data.files.volumes import PLAIN_IMAGES, to_nifti
from sslbench.data.own.dataset import load_all
from sslbench.data.own.define import plan_class
from sslbench.data.preprocess import LoadedCase, load_case, preprocess
from sslbench.data.store import FORMAT, Case, Store, absent_classes, case_files, fingerprint, sha256, unlike_record

_ROUNDED = "rounded"  # in a case's `info`: how far a label value was off its class
PrepareProgress = Callable[[str, str], None]


@dataclass(frozen=True)
class PrepareReport:
    """What a preparation did.

    Attributes:
        folder: the cache.
        found: cases of the source.
        recognised: what the source was taken for, in words.
        official: cases of the official release.
        written, unchanged: cases prepared now, and found as an earlier run left them.
        failed: case id -> why it was left out, in one line.
        seconds: how long it took.
        notes: lines about the source, such as files that were passed over.
    """

    dataset: str
    preprocessing: str
    folder: Path
    found: int
    recognised: str
    official: int
    written: int
    unchanged: int
    failed: dict[str, str]
    seconds: float
    notes: tuple[str, ...] = ()


def prepare(
    name: str,
    source: Path | str | None = None,
    *,
    data_dir: Path | str | None = None,
    preprocessing: str | None = None,
    options: Mapping[str, Any] | None = None,
    workers: int = 2,
    force: bool = False,
    progress: PrepareProgress | None = None,
) -> PrepareReport:
    """Prepare a dataset under `<data_dir>/<name>/<preprocessing>`.

    Args:
        name: of the dataset.
        source: folder or archive of what the user holds, in one of the dataset's `forms`; only a computed dataset
            (`phantom`) goes without. An archive is unpacked to `<data_dir>/<name>/source` first.
        data_dir: folder of prepared datasets; that of `settings.data_dir` by default.
        preprocessing: name of a preprocessing; the dataset's first by default.
        options: of the dataset.
        workers: processes, each of which holds a few volumes; 1 stays in this process. As they are spawned, a
            script that calls this with more needs the usual `if __name__ == "__main__":`.
        force: prepare every case anew.
        progress: told case ids and states: all `waiting` at first, later each `written`, `unchanged` or
            `failed`; before that `generated` for each case of a computed dataset, or `unpacked` for each file of an
            archive.

    Raises:
        UsageError: an unknown name or option, or a source that is missing or not this dataset.
        SSLBenchError: the cache cannot be written.
    """
    started = time.perf_counter()
    root = data_folder(data_dir)
    load_all(root)
    kind: type[Dataset] = registry.component("dataset", name)
    preprocessing = preprocessing or next(iter(kind.preprocessings))
    kind.preprocessing_hash(preprocessing)  # refuses an unknown name
    dataset = kind(_options(kind, options or {}))
    folder = root / kind.name / preprocessing
    say = progress or (lambda id, state: None)
    try:
        raws = _find(dataset, source, preprocessing, root, workers, say)
        if strays := [raw.id for raw in raws if not is_plain_name(raw.id)]:
            raise UsageError(f"{strays[0]!r} of {source} is no name of a case: its files would lie elsewhere")
        with locked(folder.with_name(f".{folder.name}.lock")):
            for path in folder.glob("*/.writing-*"):  # what a kill left half-written
                path.unlink()
            cases, failed, written = _prepare_cases(dataset, preprocessing, raws, folder, workers, force, say)
            _refuse_copies(dataset, cases, failed, say)
            _tell_unlabeled(dataset, cases)
            _tell_rounded(dataset, cases)
            _tell_absent(dataset, cases)
            _write_index(dataset, preprocessing, folder, cases, failed, raws)
        dataset.notes += plan_class(kind, preprocessing, cases, _spacing(raws[0]) != "unknown", root)
        if cases:
            write_card(Store.open(root, name, preprocessing))
        else:
            (folder / CARD).unlink(missing_ok=True)
    except OSError as error:
        raise SSLBenchError(f"cannot read or write {error.filename or folder}: {error.strerror or error}") from error
    return PrepareReport(
        dataset=kind.name,
        preprocessing=preprocessing,
        folder=folder,
        found=len(raws),
        recognised=dataset.recognised,
        official=kind.official_cases,
        written=len(written & set(cases)),
        unchanged=len(set(cases) - written),
        failed=dict(sorted(failed.items())),
        seconds=time.perf_counter() - started,
        notes=tuple(dataset.notes),
    )


def _options(kind: type[Dataset], given: Mapping[str, Any]) -> Any:
    """The dataset's options, checked; `options` of the caller stay as they are."""
    from sslbench.config.text import validated

    return validated(kind.Options, dict(given), f"options of {kind.name}")


def _find(
    dataset: Dataset, given: Path | str | None, preprocessing: str, data_dir: Path, workers: int, say: PrepareProgress
) -> list[RawCase]:
    """The cases of a folder, of an archive, which is unpacked first, or of a computed dataset."""
    if given is None:
        return dataset.find(_generated(dataset, data_dir, workers, say), preprocessing)
    source = user_path(given)
    if source.is_dir():
        try:
            return dataset.find(source, preprocessing)
        except UsageError as error:
            held = archives_in(source)
            if not held or dataset.recognised or dataset.strangers:
                raise
            raise UsageError(error.message, f"it holds an archive, so perhaps --source {held[0]}") from error
    if not is_archive(source):
        problem = (
            f"is neither a folder nor an archive ({', '.join(ARCHIVE_ENDINGS)})"
            if source.exists()
            else "does not exist"
        )
        raise UsageError(f"the source {source} {problem}", dataset.source_hint)
    folder = unpacked_folder(source, data_dir / dataset.name / "source")
    fresh = unpack(source, folder, lambda name: say(name, "unpacked"))
    try:
        raws = dataset.find(folder, preprocessing)
    except UsageError:
        if fresh:
            shutil.rmtree(folder)
        raise
    dataset.notes.append(f"unpacked to {folder}, which may be deleted once all cases are prepared")
    return raws


def _generated(dataset: Dataset, data_dir: Path, workers: int, say: PrepareProgress) -> Path:
    """The folder of a computed dataset, made first where it is missing."""
    if not dataset.generated_ids:
        raise UsageError(f"{dataset.name} needs a source, a folder or an archive", dataset.source_hint)
    root = data_dir / dataset.name / "raw"
    record = {"version": dataset.version, "options": dataset.options.model_dump(mode="json")}
    if read_json(root / "generated.json") == record and _all_there(dataset, root):
        return root
    (root / "generated.json").unlink(missing_ok=True)
    tasks = {id: (dataset, root, id) for id in dataset.generated_ids}
    for id, trouble in each(_generate_case, tasks, workers):
        if trouble is not None:
            raise SSLBenchError(f"{dataset.name} {id} was not computed: {trouble}")
        say(id, "generated")
    write_json(root / "generated.json", record)
    return root


def _all_there(dataset: Dataset, root: Path) -> bool:
    try:
        raws = dataset.find(root)
    except UsageError:
        return False
    held = {raw.id for raw in raws if raw.image.exists() and raw.label is not None}
    return held >= set(dataset.generated_ids)


def _generate_case(task: tuple[Dataset, Path, str]) -> str | None:
    dataset, root, id = task
    dataset.generate(root, id)
    return None


@dataclass(frozen=True)
class _CaseTask:
    raw: RawCase
    kind: type[Dataset]
    preprocessing: str
    folder: Path
    made_from: dict[str, Any]
    left: Case | None = None  # by a run that was cut off: it may not have reached the disk


def _prepare_cases(
    dataset: Dataset,
    preprocessing: str,
    raws: list[RawCase],
    folder: Path,
    workers: int,
    force: bool,
    say: PrepareProgress,
) -> tuple[dict[str, Case], dict[str, str], set[str]]:
    """Cases by id, failures by id, and the ids that were written now."""
    kind = type(dataset)
    index = read_json(folder / "dataset.json")
    gone = set(index.get("cases", ()) if isinstance(index, dict) else ()) - {raw.id for raw in raws}
    if gone:
        dataset.notes.append(f"left out {len(gone)} cases of an earlier preparation that are not in this source")
    common = {
        "format": FORMAT,
        "version": dataset.version,
        "preprocessing": kind.preprocessing_hash(preprocessing),
        "options": dataset.options.model_dump(mode="json"),
    }
    cases: dict[str, Case] = {}
    tasks: dict[str, _CaseTask] = {}
    for raw in raws:
        say(raw.id, "waiting")
    for raw in raws:
        files = {"image": raw.image, "label": raw.label} | {path.name: path for path in (*raw.slices, *raw.channels)}
        stamps = {name: _stamp(path) for name, path in files.items()}
        made_from = common | {"form": raw.form.name, "info": dict(raw.info)} | stamps
        case = None if force else _cached(folder, raw, made_from)
        if case is None or index is None:
            tasks[raw.id] = _CaseTask(raw, kind, preprocessing, folder, made_from, case)
        else:
            cases[raw.id] = case
            say(raw.id, "unchanged")
    if tasks:
        # From here to its end a preparation has no index: what is interrupted does not pass for complete.
        (folder / "dataset.json").unlink(missing_ok=True)
    failed: dict[str, str] = {}
    written: set[str] = set()
    for id, result in each(_prepare_case, tasks, workers):
        if isinstance(result, str):
            failed[id] = result
            say(id, "failed")
            continue
        if result is not None:
            written.add(id)
        cases[id] = result or cast(Case, tasks[id].left)
        say(id, "written" if id in written else "unchanged")
    made = [(case_files(folder, id), cases[id].files) for id in tasks if id in cases]
    sync_files(paths[kind] for paths, files in made for kind in ("record", *files))
    return cases, failed, written


def _stamp(path: Path | None) -> dict[str, int] | None:
    """What shows that a source file is the one read before; its place does not matter."""
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.EIO):
            raise
        return None  # missing, or a link in a circle: reading it says so
    return {"bytes": found.st_size, "mtime_ns": found.st_mtime_ns}


def _cached(folder: Path, raw: RawCase, made_from: dict[str, Any]) -> Case | None:
    """The case as an earlier run left it, if that still holds."""
    record = read_json(case_files(folder, raw.id)["record"])
    try:
        if record["made_from"] != made_from:
            return None
        case = Case.from_json(raw.id, record)
    except (KeyError, TypeError, ValueError):
        return None
    return case if case.group == raw.group and unlike_record(folder, case) is None else None


def _prepare_case(task: _CaseTask) -> Case | str | None:
    """Check, preprocess and write one case; the reason where that cannot be done; None where what is left is whole."""
    raw, paths = task.raw, case_files(task.folder, task.raw.id)
    if task.left is not None and all(sha256(paths[kind]) == file["sha256"] for kind, file in task.left.files.items()):
        return None
    try:
        _refuse_half(raw)
        loaded = load_case(raw, task.kind)
        if loaded.labeled:
            _refuse_part(raw, loaded, task.kind)
        made = preprocess(loaded, task.kind.preprocessings[task.preprocessing].without(raw.form.done))
    except DataError as error:
        return str(error)
    except MemoryError:
        return f"{raw.image}: not enough memory"
    except Exception as error:  # a header nobody foresaw must not keep the other cases out
        return f"{raw.image}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    paths["record"].unlink(missing_ok=True)  # it must not vouch for a mixture of old and new files
    files = {}
    for kind in ("image", "label", "reference"):
        if kind != "image" and not loaded.labeled:
            paths[kind].unlink(missing_ok=True)  # of a time when it had a label
            continue
        with atomic_path(paths[kind], sync=False) as aside:
            if kind == "reference":
                to_nifti(loaded.label, loaded.header).to_filename(aside)
            else:
                np.save(aside, made.image if kind == "image" else made.label, allow_pickle=False)
            files[kind] = {"bytes": aside.stat().st_size, "sha256": sha256(aside)}
    case = Case(
        id=raw.id,
        group=raw.group,
        shape=made.label.shape,
        spacing_mm=made.spacing_mm,
        class_voxels=loaded.class_voxels,
        geometry=made.geometry,
        files=files,
        statistics=_statistics(loaded.image),
        info=dict(raw.info) | ({_ROUNDED: f"{loaded.rounded:.2g}"} if loaded.rounded else {}),
    )
    write_json(paths["record"], {**case.to_json(), "made_from": task.made_from}, sync=False)
    return case


def _refuse_half(raw: RawCase) -> None:
    """A case of which a file is missing: the one that is there says which."""
    for path, other, what in ((raw.image, raw.label, "image"), (raw.label, raw.image, "label")):
        if path is None or other is None or path.exists():
            continue
        if path.is_symlink():
            raise DataError(f"{path}: the {what} is a link to a file that is not there", "fetch it, or mend the link")
        if other.exists():
            raise DataError(f"{path}: the {what} is missing, {other.name} stands alone")


def _refuse_part(raw: RawCase, loaded: LoadedCase, kind: type[Dataset]) -> None:
    """A reference in which too few classes are drawn: its background is not what the background of others is."""
    there = [info.name for info, count in zip(kind.classes, loaded.class_voxels[1:], strict=True) if count]
    if len(there) < kind.least_classes:
        raise DataError(
            f"{raw.label}: only {', '.join(there)} is annotated, {len(kind.classes) - len(there)} of "
            f"{len(kind.classes)} classes are missing, so that 0 does not mean background",
            f"take it as own data: {OWN_DATA}",
        )


def _statistics(image: NDArray[np.float32]) -> dict[str, float]:
    """Extremes, mean and deviation, in float64 plane by plane: a whole volume of that would take twice its memory."""
    total = squares = 0.0
    for plane in np.moveaxis(image, -1, 0):
        values = plane.ravel(order="K").astype(np.float64)
        total += float(values.sum())
        squares += float(values @ values)
    mean = total / image.size
    std = max(squares / image.size - mean**2, 0.0) ** 0.5
    return {"min": float(image.min()), "max": float(image.max()), "mean": mean, "std": std}


def _tell_absent(dataset: Dataset, cases: Mapping[str, Case]) -> None:
    """Classes that no case has (a subset may lack a rare one, or nobody annotated it), and those that no labelled case
    of a budget has, so that nothing can teach them."""
    absent = absent_classes(dataset, cases.values())
    if absent:
        dataset.notes.append(f"no case has {', '.join(absent)}")
    groups = groups_of({id: case.group for id, case in cases.items()})
    for name in split_files(dataset.name):
        lists, told = load_splits(dataset.name, name), {}
        for budget in lists.budgets.values():
            if not all(entry in groups for entry in budget.labeled):
                continue  # of what is not held nobody knows
            missing = absent_classes(dataset, [cases[id] for id in expand(budget.labeled, groups)])
            if more := [title for title in missing if title not in absent]:
                told[budget.title] = ", ".join(more)
        if told:
            listed = "; ".join(f"{title}: {classes}" for title, classes in told.items())
            dataset.notes.append(f"splits {name}: in no labelled case, so that nothing can teach it: {listed}")


def _tell_unlabeled(dataset: Dataset, cases: Mapping[str, Case]) -> None:
    """Cases without a label: training uses them as such, and nothing else does."""
    bare = sorted(id for id, case in cases.items() if not case.labeled)
    if bare:
        dataset.notes.append(
            f"{counted(len(bare), 'case')} without a label, for training without one: {first_few(bare)}"
        )


def _tell_rounded(dataset: Dataset, cases: Mapping[str, Case]) -> None:
    """Labels that a scale factor in their header kept from being whole numbers."""
    rounded = sorted(id for id, case in cases.items() if _ROUNDED in case.info)
    if rounded:
        most = max((cases[id].info[_ROUNDED] for id in rounded), key=float)
        dataset.notes.append(
            f"labels of {counted(len(rounded), 'case')} are stored with a scale factor; taken as the nearest class (off"
            f" by {most} at most): {first_few(rounded)}"
        )


def _refuse_copies(dataset: Dataset, cases: dict[str, Case], failed: dict[str, str], say: PrepareProgress) -> None:
    """Leave out the later of two patients with the same image and label: a file was copied.

    The same image with other labels is a scan that was annotated twice, as ACDC's patients 074 and 076 were.
    The published lists hold both, so it is only said; `store.partition` refuses it on two sides of a split.
    """
    first: dict[str, Case] = {}
    for id in sorted(cases, key=lambda id: (not cases[id].labeled, id)):
        case = cases[id]
        original = first.setdefault(case.files["image"]["sha256"], case)
        if original.group == case.group:
            continue
        if not case.labeled or original.files.get("label") == case.files["label"]:
            failed[id] = f"it is a copy of {original.id}, voxel for voxel"
            del cases[id]
            say(id, "failed")
        else:
            dataset.notes.append(f"{id} is the scan of {original.id}, annotated again")


def _spacing(raw: RawCase) -> str:
    """Where the voxel sizes of a source come from, by one of its cases; a picture's header has none to trust."""
    plain = raw.form.spacing == "header" and raw.image.suffix.lower() in PLAIN_IMAGES
    return "unknown" if plain else raw.form.spacing


def _write_index(
    dataset: Dataset,
    preprocessing: str,
    folder: Path,
    cases: dict[str, Case],
    failed: dict[str, str],
    raws: list[RawCase],
) -> None:
    """`dataset.json`, where it changes; none where no case is left."""
    index = {
        "format": FORMAT,
        "dataset": dataset.name,
        "version": dataset.version,
        "preprocessing": preprocessing,
        "preprocessing_hash": dataset.preprocessing_hash(preprocessing),
        "options": dataset.options.model_dump(mode="json"),
        "form": raws[0].form.name,
        "spacing": _spacing(raws[0]),
        "found": len(raws),
        "official": dataset.official_cases,
        "failed": dict(sorted(failed.items())),
        **({"refused": {raw.id: raw.group for raw in raws if raw.id in failed}} if failed else {}),
        "fingerprint": fingerprint(cases),
        "cases": {id: cases[id].to_json() for id in sorted(cases)},
    }
    path = folder / "dataset.json"
    if not cases:
        path.unlink(missing_ok=True)
    elif read_json(path) != index:
        write_json(path, index)
