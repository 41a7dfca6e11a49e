"""The verified cache of a prepared dataset, memory-mapped: what training, inference and evaluation read.

<data_dir>/<dataset>/<preprocessing>/
    dataset.json                what is here; written last: without it the preparation is unfinished
    README.md                   the same for people, see `data.card`
    cases/<id>.image.npy        float32 or float16, stored axes; channels before them, where there are several
    cases/<id>.label.npy        uint8, the same shape without channels; neither this nor a reference of a case without
                                a label
    cases/<id>.json             the case's record: files, hashes, and the source files it was made from
    references/<id>.nii.gz      the label in the scan's own geometry; the source may go once this is here.
                                Of arrays that somebody else preprocessed there is no scan: their grid counts as it
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from sslbench.config.draws import HELD
from sslbench.config.splits import Splits, expand, groups_of
from sslbench.core import registry
from sslbench.core.errors import DataError, UsageError
from sslbench.core.files import is_plain_name, read_json
from sslbench.data.base import Dataset, Form
from sslbench.data.files.volumes import read_nifti
from sslbench.data.preprocess import restore, stored_nifti

if TYPE_CHECKING:
    import nibabel as nib

Item = TypeVar("Item")

FORMAT = 2  # raised when the files change their meaning, so that older caches are made anew


class OnDemand(Sequence[Item]):
    """A sequence whose items are opened each time that they are asked for: nothing is held of one in between, no file
    and no memory map, so that thousands of cases fit under any limit of open files.

    Args:
        count: how many there are.
        open: opens one by its place.
    """

    def __init__(self, count: int, open: Callable[[int], Item]) -> None:
        self._count, self._open = count, open

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> Item: ...

    @overload
    def __getitem__(self, place: slice) -> list[Item]: ...

    def __getitem__(self, place: int | slice) -> Item | list[Item]:
        places = range(self._count)[place]
        return self._open(places) if isinstance(places, int) else [self._open(each) for each in places]


@dataclass(frozen=True)
class Case:
    """What is known of a prepared case without opening its arrays.

    Attributes:
        shape, spacing_mm: of the stored arrays, per stored axis; without channels.
        class_voxels: voxels of each class in the reference as the scan has it, background first; empty without one.
        geometry: what `preprocess.restore` needs.
        files: `image`, `label`, `reference` -> `bytes` and `sha256`; `image` alone of a case without a label.
        statistics: `min`, `max`, `mean` and `std` of the image as the source has it.
        info: what else the source says about the case, such as the phase of the heart.
    """

    id: str
    group: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    class_voxels: tuple[int, ...]
    geometry: dict[str, Any]
    files: dict[str, dict[str, Any]]
    statistics: dict[str, float]
    info: dict[str, str]

    @property
    def labeled(self) -> bool:
        """Whether it has a label. One without is trained on as an unlabelled case, and is nothing else."""
        return "label" in self.files

    @classmethod
    def from_json(cls, id: str, fields: Mapping[str, Any]) -> Case:
        """The case of a JSON record.

        Raises:
            KeyError, TypeError, ValueError: it is not such a record.
        """
        kinds = tuple(kind for kind in ("image", "label", "reference") if kind in fields["files"])
        if kinds not in (("image",), ("image", "label", "reference")) or (len(kinds) > 1) != bool(
            fields["class_voxels"]
        ):
            raise ValueError(f"files {', '.join(kinds)}")
        return cls(
            id=id,
            group=str(fields["group"]),
            shape=tuple(int(size) for size in fields["shape"]),
            spacing_mm=tuple(float(size) for size in fields["spacing_mm"]),
            class_voxels=tuple(int(count) for count in fields["class_voxels"]),
            geometry=dict(fields["geometry"]),
            files={
                kind: {
                    "bytes": int(fields["files"][kind]["bytes"]),
                    "sha256": str(fields["files"][kind]["sha256"]),
                }
                for kind in kinds
            },
            statistics={name: float(fields["statistics"][name]) for name in ("min", "max", "mean", "std")},
            info={str(name): str(value) for name, value in fields["info"].items()},
        )

    def to_json(self) -> dict[str, Any]:
        """The record without its id, which is its key or file name."""
        fields = {key: value for key, value in vars(self).items() if key != "id"}
        # As JSON gives them back, so that a record that was read equals one that was made.
        return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}


@dataclass(frozen=True)
class Store:
    """A prepared dataset, opened.

    Attributes:
        cases: by id, sorted.
        fingerprint: hash of the ids, stored images and stored labels. References are left out, as their
            compressed bytes depend on the zlib at hand.
        options: of the dataset, as it was prepared.
        official: number of cases of the official release.
        form: what it was prepared from.
        spacing: where voxel sizes come from: `header`, `published` or `unknown`. Distances in mm are nominal but for
            the first.
        refused: id -> patient of the source's cases that could not be prepared.
    """

    folder: Path
    dataset: type[Dataset]
    preprocessing: str
    cases: dict[str, Case]
    fingerprint: str
    options: dict[str, Any]
    official: int
    form: Form
    spacing: str
    refused: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, data_dir: Path, dataset: str, preprocessing: str) -> Store:
        """Open what `prepare` left, checking that every file is there in its full size.

        Raises:
            UsageError: no such dataset or preprocessing, or not prepared (completely).
            DataError: the cache is damaged, or was made by another definition of dataset or preprocessing.
        """
        kind: type[Dataset] = registry.component("dataset", dataset)
        expected = kind.preprocessing_hash(preprocessing)
        folder = Path(data_dir) / kind.name / preprocessing
        index, what = (
            folder / "dataset.json",
            f"{kind.name} has not been prepared as '{preprocessing}' in {data_dir}",
        )
        remake = command(kind, preprocessing, force=True)
        if not index.exists():
            unfinished = folder.exists()
            raise UsageError(
                f"the preparation of {kind.name} in {folder} is not finished" if unfinished else what,
                f"run {command(kind, preprocessing)}",
            )
        fields = read_json(index)
        try:
            made_by = (fields["format"], fields["version"], fields["preprocessing_hash"])
            cases = {id: Case.from_json(id, case) for id, case in sorted(fields["cases"].items())}
            options, official = dict(fields["options"]), int(fields["official"])
            form = next((form for form in kind.forms if form.name == fields["form"]), None)
            spacing = str(fields["spacing"])
            refused = {str(id): str(patient) for id, patient in fields.get("refused", {}).items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{index} is damaged", f"run {remake}") from error
        if form is None or made_by != (FORMAT, kind.version, expected):
            raise DataError(f"{folder} was made by another definition of '{preprocessing}'", f"run {remake}")
        store = cls(folder, kind, preprocessing, cases, fingerprint(cases), options, official, form, spacing, refused)
        if fields.get("fingerprint") != store.fingerprint:
            raise DataError(f"{index} is damaged: its fingerprint is not that of its cases", f"run {remake}")
        for case in cases.values():
            if not is_plain_name(case.id):
                raise DataError(f"{index} is damaged: {case.id!r} is no name of a case", f"run {remake}")
            wrong = unlike_record(folder, case)
            if wrong is not None:
                raise DataError(f"{wrong} is missing or has not the recorded size", f"run {remake}")
        return store

    @property
    def is_subset(self) -> bool:
        """Whether cases of the official release are missing."""
        return len(self.cases) < self.official

    def groups(self) -> dict[str, list[str]]:
        """Group -> its case ids, sorted; every case id stands for itself too."""
        return groups_of({id: case.group for id, case in self.cases.items()})

    def images(self, ids: Sequence[str]) -> OnDemand[NDArray[np.floating]]:
        """The images of some cases, one open at a time."""
        return OnDemand(len(ids), lambda place: self.image(ids[place]))

    def labels(self, ids: Sequence[str]) -> OnDemand[NDArray[np.uint8]]:
        """The label maps of some cases, one open at a time."""
        return OnDemand(len(ids), lambda place: self.label(ids[place]))

    def verify(self, id: str) -> None:
        """Read what is stored of a case and hold it against its hashes.

        Raises:
            DataError: a file is damaged.
        """
        self.image(id, verify=True)
        if self.cases[id].labeled:
            self.label(id, verify=True)

    def image(self, id: str, verify: bool = False) -> NDArray[np.floating]:
        """The image of a case (C, *S), read-only and memory-mapped.

        Args:
            id: of the case.
            verify: read the whole file and hold it against its hash first.

        Raises:
            DataError: the file is damaged.
        """
        channels = len(self.dataset.channels)
        shape = self.cases[id].shape
        array = self._array(id, "image", shape if channels == 1 else (channels, *shape), verify)
        return array[None] if channels == 1 else array

    def label(self, id: str, verify: bool = False) -> NDArray[np.uint8]:
        """The label map of a case (*S) in the stored grid, uint8; otherwise as `image`.

        Raises:
            DataError: it has none, or the file is damaged.
        """
        if not self.cases[id].labeled:
            raise DataError(f"{id} of {self.dataset.name} has no label")
        return self._array(id, "label", self.cases[id].shape, verify)

    def reference(self, id: str) -> tuple[NDArray[np.uint8], tuple[float, ...]]:
        """The label map as the scan has it, in the file's axis order, and the spacing of its axes in mm.

        Raises:
            DataError: the file is damaged.
        """
        try:
            voxels, affine, _ = read_nifti(case_files(self.folder, id)["reference"], np.uint8)
        except DataError as error:
            raise DataError(error.message, self._remake()) from error
        return voxels, tuple(float(size) for size in np.linalg.norm(affine[:3, :3], axis=0))

    def restore(self, id: str, labels: NDArray[Any]) -> nib.Nifti1Image:
        """Labels of a case's stored grid, in the geometry of its scan."""
        return restore(labels, self.cases[id].geometry)

    def on_stored_grid(self, id: str, values: NDArray[Any]) -> nib.Nifti1Image:
        """Values on a case's stored grid (*S) as an image on that grid, placed where the scan lies."""
        return stored_nifti(values, self.cases[id].geometry)

    def resamples(self, id: str) -> bool:
        """Whether the stored grid differs from the scan's by more than the order and direction of axes."""
        geometry = self.cases[id].geometry
        return bool(geometry["from"] != geometry["to"])

    def _array(self, id: str, kind: str, shape: tuple[int, ...], verify: bool) -> NDArray[Any]:
        case, path = self.cases[id], case_files(self.folder, id)[kind]
        hint = self._remake()
        try:
            if verify and sha256(path) != case.files[kind]["sha256"]:
                raise DataError(f"{path} is damaged: its content is not what was prepared", hint)
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except OSError as error:  # too many open files, no permission: the file is as it was
            remedy = hint if isinstance(error, FileNotFoundError) else ""
            raise DataError(f"{path}: {error.strerror or error}", remedy) from error
        except (ValueError, EOFError) as error:
            raise DataError(f"{path} is damaged: {error}", hint) from error
        if array.shape != shape:
            raise DataError(f"{path} is damaged: shape {array.shape}, not {shape}", hint)
        return array

    def _remake(self) -> str:
        return f"run {command(self.dataset, self.preprocessing, force=True)}"


@dataclass(frozen=True)
class Partition:
    """Case ids of a job, each in the order of the split file; what is not held is left out."""

    labeled: tuple[str, ...]
    unlabeled: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def partition(store: Store, splits: Splits, labeled: str) -> Partition:
    """The held cases of a split under a label budget; `unlabeled` is the rest of the training list.

    A case without a label is an unlabelled training case or nothing.

    Raises:
        UsageError: no such budget; one of its cases is not held or has no label, and `labeled` does not ask for what is
            held of it (`20%-held`); none of the labelled, unlabelled or test cases is held; or training, validation
            and test share a patient or a scan, and the lists are not known for it.
    """
    budget = splits.budget(labeled)
    groups = store.groups()

    def cases(entries: Iterable[str], labels: bool) -> tuple[str, ...]:
        return tuple(id for id in expand(entries, groups) if store.cases[id].labeled is labels)

    rest = [(entry, entry in budget.labeled) for entry in splits.train]
    held = {
        "labeled": cases(budget.labeled, True),
        "unlabeled": tuple(
            id for entry, known in rest for id in expand([entry], groups) if not (known and store.cases[id].labeled)
        ),
        "validation": cases(splits.val, True),
        "test": cases(splits.test, True),
    }
    lists = {"labeled": budget.labeled, "unlabeled": [entry for entry, known in rest if not known], "test": splits.test}
    for part, entries in lists.items():
        if entries and not held[part]:
            raise UsageError(
                f"none of the {len(entries)} {part} {splits.unit}s of {store.dataset.name}"
                f" (splits {splits.name}, {budget.title}) is among the {len(store.cases)} prepared cases"
                + ("" if part == "unlabeled" or not expand(entries, groups) else " that have a label"),
                f"run {command(store.dataset, store.preprocessing)} with more of them",
            )
    missing = lacking(store, budget.labeled)
    if missing and not budget.partial:
        told = "; ".join(f"{entry} {why}" for entry, why in list(missing.items())[:3])
        more = f"; and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UsageError(
            f"{store.dataset.name} lacks {len(missing)} of the {len(budget.labeled)} labelled {splits.unit}s of"
            f" {budget.title} (splits {splits.name}): {told}{more}",
            f"prepare them, or ask for what is held by its name: --labeled '{budget.slug}{HELD}'",
        )
    if not splits.leaks:  # who asked for lists that leak, by their name, gets them
        _not_torn(store, splits, held)
    return Partition(**held)


def lacking(store: Store, entries: Iterable[str]) -> dict[str, str]:
    """Those of some list entries that cannot be used with labels, or not whole, and why."""
    groups, lost = store.groups(), groups_of(store.refused)
    found = {}
    for entry in entries:
        bare = [id for id in groups.get(entry, ()) if not store.cases[id].labeled]
        if entry in lost:
            found[entry] = "was refused when the dataset was prepared"
        elif entry not in groups:
            found[entry] = "is not prepared"
        elif bare:
            found[entry] = "has no label" if bare == groups[entry] else f"has no label of {bare[0]}"
    return found


def _not_torn(store: Store, splits: Splits, held: Mapping[str, tuple[str, ...]]) -> None:
    """What the lists alone do not show: entries that mean the same patient, patients with the same scan."""
    where = f"splits {splits.name} of {splits.dataset}"
    parts: dict[str, str] = {}
    sides: dict[str, tuple[str, str]] = {}
    for part, ids in held.items():
        side = "training" if part in ("labeled", "unlabeled") else part
        for id in ids:
            if id in parts:
                raise UsageError(f"{where}: {id} is {parts[id]} and again {part}")
            parts[id] = part
            case = store.cases[id]
            for same, key in (("patient", case.group), ("scan", case.files["image"]["sha256"])):
                other, there = sides.setdefault(key, (id, side))
                if there != side:
                    raise UsageError(f"{where}: {other} ({there}) and {id} ({side}) are the same {same}")


def absent_classes(dataset: Dataset | type[Dataset], cases: Iterable[Case]) -> list[str]:
    """Names of the classes that none of the labelled ones among some cases has; none where no case is labelled."""
    counts = [case.class_voxels for case in cases if case.labeled]
    if not counts:
        return []
    voxels = np.sum(counts, axis=0)
    return [info.name for info, count in zip(dataset.classes, voxels[1:], strict=True) if not count]


def case_files(folder: Path, id: str) -> dict[str, Path]:
    """Where the files of a case are: `image`, `label`, `reference` and `record`."""
    return {
        "image": folder / "cases" / f"{id}.image.npy",
        "label": folder / "cases" / f"{id}.label.npy",
        "reference": folder / "references" / f"{id}.nii.gz",
        "record": folder / "cases" / f"{id}.json",
    }


def unlike_record(folder: Path, case: Case) -> Path | None:
    """The first file of a case that is missing or has not the recorded size."""
    paths = case_files(folder, case.id)
    for kind, recorded in case.files.items():
        try:
            if paths[kind].stat().st_size == recorded["bytes"]:
                continue
        except OSError:
            pass
        return paths[kind]
    return None


def fingerprint(cases: Mapping[str, Case]) -> str:
    """Hash over the ids and the content of stored images and labels."""
    content = [
        (id, *(cases[id].files[kind]["sha256"] for kind in ("image", "label") if kind in cases[id].files))
        for id in sorted(cases)
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def command(dataset: type[Dataset], preprocessing: str, force: bool = False) -> str:
    """The command that prepares a dataset, for hints."""
    parts = ["sslbench prepare", dataset.name]
    if not dataset.generated_ids:
        parts.append("--source FOLDER")
    if preprocessing != next(iter(dataset.preprocessings)):
        parts.append(f"--preprocessing {preprocessing}")
    return " ".join([*parts, "--force"] if force else parts)
