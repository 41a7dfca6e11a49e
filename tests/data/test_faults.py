"""Kinds of faults × formats, through the command line: one clear line, the right exit code, nothing half-written, and
the other cases prepared. `docs/reference/faults.md` is the table of these tests."""

from __future__ import annotations

import errno
import io
import json
import re
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK

from sslbench.config.splits import load_splits
from sslbench.data.own.dataset import load_all
from sslbench.data.store import Store, case_files
from tests.helpers.command_line import call
from tests.helpers.own_folders import write_volume
from tests.helpers.scans import make_scan

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "faults.md"


# --------------------------------------------------------------------------------------------- formats, in miniature


@dataclass
class Case:
    """A case before it is written: arrays (X, Y, Z), or (C, X, Y, 1) of a picture, and where they lie."""

    image: np.ndarray
    label: np.ndarray
    affine: np.ndarray
    label_affine: np.ndarray


@dataclass
class Held:
    """What a user holds in one format: cases, how each is written, and the command that prepares them.

    Attributes:
        classes: ids of the foreground, as the files have them.
        paths: image and label file of a case; the same one where a file has both.
        write: writes a case to these files.
        corrupt: damages the bytes of a file so that its format can tell.
        dtype: of the image.
        struck: which of the cases a fault strikes; of own data, one that is not labelled.
    """

    root: Path
    dataset: str
    preprocessing: str
    arguments: list[str]
    ids: tuple[str, ...]
    classes: tuple[int, ...]
    paths: Callable[[str], tuple[Path, Path]]
    write: Callable[[Path, Path, Case], None]
    corrupt: Callable[[bytes], bytes]
    dtype: Any = np.int16
    struck: int = 1
    cases: dict[str, Case] = field(default_factory=dict)

    def put(self, id: str, case: Case) -> None:
        for path in self.paths(id):
            path.parent.mkdir(parents=True, exist_ok=True)
        self.write(*self.paths(id), case)

    @property
    def bad(self) -> str:
        """The case that a fault strikes."""
        return self.ids[self.struck]

    @property
    def image(self) -> Path:
        return self.paths(self.bad)[0]

    @property
    def label(self) -> Path:
        return self.paths(self.bad)[1]


def flipped(content: bytes) -> bytes:
    """One bit changed, in the middle: a format with checksums notices."""
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 0x10
    return bytes(changed)


def headless(content: bytes) -> bytes:
    """The first bytes overwritten: of a format without checksums."""
    return b"\x00garbage" * 8 + content[64:]


def volumes(held: Held, shape: tuple[int, int, int] = (24, 20, 6)) -> Held:
    """Write a miniature scan of every case."""
    for number, id in enumerate(held.ids):
        image, label, affine = make_scan(number + 1, shape, classes=len(held.classes) + 1)
        values = np.array([0, *held.classes], np.uint8)
        held.cases[id] = Case(image.astype(held.dtype), values[label], affine, affine)
        held.put(id, held.cases[id])
    return held


def by_itk(image: Path, label: Path, case: Case) -> None:
    write_volume(image, case.image, case.affine)
    write_volume(label, case.label, case.label_affine)


def nifti(root: Path) -> Held:
    folder = root / "RawData" / "Training"
    return volumes(
        Held(
            root,
            dataset="synapse",
            preprocessing="native",
            arguments=["synapse", "--source", str(root), "--preprocessing", "native"],
            ids=("0001", "0002", "0003"),
            classes=tuple(range(1, 14)),
            paths=lambda id: (folder / "img" / f"img{id}.nii.gz", folder / "label" / f"label{id}.nii.gz"),
            write=by_itk,
            corrupt=flipped,
        )
    )


def nrrd(root: Path) -> Held:
    def write(image: Path, label: Path, case: Case) -> None:
        for path, voxels, affine in ((image, case.image, case.affine), (label, case.label, case.label_affine)):
            write_volume(path, voxels, affine)
            SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(path), useCompression=True)

    return volumes(
        Held(
            root,
            dataset="la",
            preprocessing="native",
            arguments=["la", "--source", str(root), "--preprocessing", "native"],
            ids=tuple(sorted(load_splits("la", "uamt").train[:3])),
            classes=(255,),
            paths=lambda id: (root / id / "lgemri.nrrd", root / id / "laendo.nrrd"),
            write=write,
            corrupt=flipped,
        )
    )


def hdf5(root: Path) -> Held:
    import h5py

    def write(image: Path, label: Path, case: Case) -> None:
        with h5py.File(image, "w") as file:
            file["image"], file["label"] = case.image.T, case.label.T

    return volumes(
        Held(
            root,
            dataset="acdc",
            preprocessing="ssl4mis",
            arguments=["acdc", "--source", str(root)],
            ids=tuple(f"patient00{number}_frame01" for number in (1, 2, 3)),
            classes=(1, 2, 3),
            paths=lambda id: (root / "data" / f"{id}.h5",) * 2,
            write=write,
            corrupt=headless,
            dtype=np.float32,
        )
    )


def numpy(root: Path) -> Held:
    def write(image: Path, label: Path, case: Case) -> None:
        np.save(image, case.image)
        np.save(label, case.label)

    return volumes(
        Held(
            root,
            dataset="amos",
            preprocessing="ga",
            arguments=["amos", "--source", str(root)],
            ids=("0001", "0004", "0005"),
            classes=tuple(range(1, 16)),
            paths=lambda id: (root / f"amos_{id}_image.npy", root / f"amos_{id}_label.npy"),
            write=write,
            corrupt=headless,
            dtype=np.float32,
        )
    )


def as_picture(path: Path, voxels: np.ndarray) -> None:
    """A picture of (X, Y, 1), or (C, X, Y, 1) of several channels."""
    pixels = voxels[..., 0].T.astype(np.uint8)  # (Y, X), or (Y, X, C)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels, isVector=pixels.ndim == 3), str(path))


def pictures(held: Held, masks: np.ndarray, size: tuple[int, int] = (48, 40)) -> Held:
    """Write a coloured image and a mask of every case."""
    rng = np.random.default_rng(0)
    for id in held.ids:
        ids = np.zeros((*size, 1), np.uint8)
        for value in range(1, len(masks)):
            left, top = rng.integers(2, size[0] - 20), rng.integers(2, size[1] - 20)
            ids[left : left + 16, top : top + 16] = value
        image = rng.integers(60, 200, (3, *size, 1)).astype(np.uint8)
        held.cases[id] = Case(image, masks[ids], np.eye(4), np.eye(4))
        held.put(id, held.cases[id])
    return held


def jpeg(root: Path) -> Held:
    folder = root / "tissue-train-pos-v1"

    def write(image: Path, label: Path, case: Case) -> None:
        as_picture(image, case.image)
        as_picture(label, case.label)

    held = Held(
        root,
        dataset="digestpath",
        preprocessing="metassl",
        arguments=["digestpath", "--source", str(root)],
        ids=tuple(sorted(load_splits("digestpath", "cdma-leaking").train[:3])),
        classes=(255,),
        paths=lambda id: (folder / f"{id}.jpg", folder / f"{id}_mask.jpg"),
        write=write,
        corrupt=headless,
    )
    return pictures(held, np.array([0, 255], np.uint8))


OWN = tuple(f"p{number}" for number in range(1, 7))


def png(root: Path) -> Held:
    def write(image: Path, label: Path, case: Case) -> None:
        as_picture(image, case.image)
        as_picture(label, case.label)

    held = Held(
        root,
        dataset="own-png",
        preprocessing="2d",
        arguments=["own-png", "--from-pairs", str(root), "--classes", "gland,lesion"],
        ids=OWN,
        classes=(1, 2),
        paths=lambda id: (root / f"{id}.png", root / f"{id}_mask.png"),
        write=write,
        corrupt=flipped,
        struck=3,
    )
    return pictures(held, np.array([0, 1, 2], np.uint8))


def nnunet(root: Path) -> Held:
    held = volumes(
        Held(
            root,
            dataset="own-nnunet",
            preprocessing="2d",
            arguments=["own-nnunet", "--from-nnunet", str(root)],
            ids=OWN,
            classes=(1, 2),
            paths=lambda id: (root / "imagesTr" / f"{id}_0000.nii.gz", root / "labelsTr" / f"{id}.nii.gz"),
            write=by_itk,
            corrupt=flipped,
            struck=3,
        ),
        shape=(24, 20, 12),
    )
    labels = {"background": 0, "organ": 1, "tumour": 2}
    about = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": len(OWN), "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(about))
    return held


def archive(root: Path, ending: str) -> Held:
    """The scans of `nifti`, packed: the faults are those of the archive."""
    held = nifti(root / "folder")
    packed = root / f"RawData{ending}"
    files = {path.relative_to(held.root).as_posix(): path.read_bytes() for path in held.root.rglob("*.gz")}
    pack(packed, files)
    held.paths = lambda id: (packed, packed)
    held.root, held.arguments[2] = packed, str(packed)
    return held


def pack(path: Path, files: dict[str, bytes], twice: str = "") -> None:
    names = [*files, *([twice] if twice else [])]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as zipped, _no_warning():
            for name in names:
                zipped.writestr(name, files[name])
        return
    with tarfile.open(path, "w:gz") as tarred:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(files[name])
            tarred.addfile(info, io.BytesIO(files[name]))


@contextmanager
def _no_warning() -> Iterator[None]:
    """Zip files warn of what these tests do on purpose."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


FORMATS: dict[str, Callable[[Path], Held]] = {
    "nifti": nifti,
    "nrrd": nrrd,
    "hdf5": hdf5,
    "numpy": numpy,
    "jpeg": jpeg,
    "png": png,
    "nnunet": nnunet,
    "zip": lambda root: archive(root, ".zip"),
    "tar": lambda root: archive(root, ".tar.gz"),
}
VOLUMES = ("nifti", "nrrd", "hdf5", "numpy", "nnunet")
FILES = (*VOLUMES, "jpeg", "png")
ARCHIVES = ("zip", "tar")


# ------------------------------------------------------------------------------------------------- what is asked for


@dataclass
class Expected:
    """What a fault must lead to.

    Attributes:
        line: pattern of the one line of stderr that tells it.
        code: exit code.
        lost: cases that are left out; None: nothing is prepared at all.
        kept: whether the files of these stay, outside of the dataset, so that a second run knows them.
    """

    line: str
    code: int = 1
    lost: tuple[str, ...] | None = ()
    kept: bool = False


def told(held: Held, path: Path, reason: str) -> Expected:
    """The case is named with the file and the reason, and left out."""
    return Expected(f"^{re.escape(held.bad)}: .*{re.escape(path.name)}.*{reason}", lost=(held.bad,))


def tried(held: Held, data: Path) -> tuple[int, list[str]]:
    """Prepare: exit code, and the lines of stderr."""
    code, _, err = call("prepare", *held.arguments, "--data-dir", str(data), "-j", "1")
    return code, err.splitlines()


def check(held: Held, expected: Expected, data: Path) -> None:
    """Prepare what was spoilt, and hold the outcome against what is expected."""
    code, lines = tried(held, data)
    assert code == expected.code, lines
    matching = [line for line in lines if re.search(expected.line, line)]
    assert len(matching) == 1, f"{expected.line!r} stands in {len(matching)} of {lines}"
    assert not [path for path in data.rglob(".*") if re.match(r"\.(writing|unpacking)-", path.name)]
    if expected.lost is None:
        assert not list(data.rglob("dataset.json"))
        return
    store = Store.open(data, held.dataset, held.preprocessing)
    assert list(store.cases) == [id for id in held.ids if id not in expected.lost]
    for id in store.cases:
        store.verify(id)
    for id in expected.lost:
        assert expected.kept or not [path for path in case_files(store.folder, id).values() if path.exists()]


# ------------------------------------------------------------------------------------------------------- the faults


def truncated(held: Held) -> Expected:
    held.image.write_bytes(held.image.read_bytes()[: int(0.6 * held.image.stat().st_size)])
    return unreadable_content(held)


def corrupt(held: Held) -> Expected:
    held.image.write_bytes(held.corrupt(held.image.read_bytes()))
    return unreadable_content(held)


def unreadable_content(held: Held) -> Expected:
    if held.root.is_file():
        return Expected(rf"error: .*{held.root.name}: .*damaged", lost=None)
    return told(held, held.image, "(damaged or incomplete|its end is missing)")


def not_finite(held: Held) -> Expected:
    case = held.cases[held.bad]
    image = case.image.astype(np.float32)
    image[3, 3, 3] = np.nan
    held.put(held.bad, Case(image, case.label, case.affine, case.affine))
    return told(held, held.image, "1 voxels are NaN or infinite")


def wrong_ids(held: Held) -> Expected:
    case = held.cases[held.bad]
    label = case.label.copy()
    label[5, 5] = 77
    held.put(held.bad, Case(case.image, label, case.affine, case.affine))
    return told(held, held.label, r"label values 77.* are not among the classes")


def swapped(held: Held) -> Expected:
    case = held.cases[held.bad]
    held.put(held.bad, Case(case.label, case.image, case.affine, case.affine))
    return told(held, held.image, "image and label look swapped")


def shape(held: Held) -> Expected:
    case = held.cases[held.bad]
    held.put(held.bad, Case(case.image, case.label[1:], case.affine, case.affine))
    return told(held, held.label, "shape .* differs from the image's")


def affine(held: Held) -> Expected:
    case = held.cases[held.bad]
    moved = case.affine.copy()
    moved[2, 3] += 5
    held.put(held.bad, Case(case.image, case.label, case.affine, moved))
    return told(held, held.label, "its origin differ from the image's")


def no_image(held: Held) -> Expected:
    return _without(held, "image")


def no_label(held: Held) -> Expected:
    return _without(held, "label")


def _without(held: Held, kind: str) -> Expected:
    # Images of which some are annotated are the rule here: what has no label is no fault, but it is said.
    bare = Expected(rf"^1 case without a label, for training without one: {re.escape(held.bad)}$", 0)
    if held.image == held.label:
        import h5py

        with h5py.File(held.image, "a") as file:
            del file[kind]
        if kind == "label":
            return bare
        return told(held, held.image, f"no array '{kind}' in it")
    path = getattr(held, kind)
    path.unlink()
    if kind == "label":
        return bare
    return told(held, path.with_suffix(""), f"the {kind} is missing")  # a picture may have had any ending


def duplicate(held: Held) -> Expected:
    if held.root.is_file():
        files = {"RawData/Training/img/img0001.nii.gz": b"one"}
        pack(held.root, files, twice=next(iter(files)))
        return Expected(rf"error: .*{held.root.name}: .*img0001.nii.gz is in it twice", lost=None)
    held.put(held.bad, held.cases[held.ids[0]])
    return Expected(rf"^{re.escape(held.bad)}: it is a copy of {re.escape(held.ids[0])}", lost=(held.bad,), kept=True)


def empty(held: Held) -> Expected:
    if held.root.is_file():
        pack(held.root, {})
        return Expected(rf"error: .*nothing of {held.dataset} is in .*{held.root.name}", 2, None)
    for path in sorted(held.root.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    return Expected(r"^error: .*(nothing of|no dataset.json in|no file in).*" + held.root.name, 2, None)


_blocked: set[str] = set()


def _deny(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse to open files: root, who may run the tests, can open whatever its mode says."""
    if _blocked and event == "open" and str(arguments[0]) in _blocked:
        raise PermissionError(errno.EACCES, "Permission denied", str(arguments[0]))


def unreadable(held: Held) -> Expected:
    if not _denying:
        sys.addaudithook(_deny)
        _denying.append(True)
    _blocked.add(str(held.image))
    if held.root.is_file():
        return Expected(rf"error: .*{held.root.name}: Permission denied", lost=None)
    return told(held, held.image, "Permission denied")


_denying: list[bool] = []  # a hook stays for as long as the process does


def traversal(held: Held) -> Expected:
    pack(held.root, {"../../outside.nii.gz": b"content", "RawData/Training/img/img0001.nii.gz": b"content"})
    return Expected(r"error: .*the member '\.\./\.\./outside\.nii\.gz' would be written outside", 2, None)


FAULTS: dict[str, tuple[Callable[[Held], Expected], tuple[str, ...]]] = {
    "truncated": (truncated, (*FILES, *ARCHIVES)),
    "corrupt": (corrupt, (*FILES, *ARCHIVES)),
    "not-finite": (not_finite, VOLUMES),
    "wrong-ids": (wrong_ids, (*VOLUMES, "png")),
    "swapped": (swapped, FILES),
    "shape": (shape, FILES),
    "affine": (affine, ("nifti", "nrrd", "nnunet")),
    "no-image": (no_image, FILES),
    "no-label": (no_label, FILES),
    "duplicate": (duplicate, (*FILES, *ARCHIVES)),
    "empty": (empty, (*FILES, *ARCHIVES)),
    "unreadable": (unreadable, (*FILES, *ARCHIVES)),
    "traversal": (traversal, ARCHIVES),
}
CELLS = [(fault, form) for fault, (_, forms) in FAULTS.items() for form in FORMATS if form in forms]


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path) -> Iterator[None]:
    yield
    _blocked.clear()
    load_all(tmp_path / "nothing")


def ids(cells: list[tuple[str, str]]) -> list[str]:
    return [f"{form}-{fault}" for fault, form in cells]


@pytest.mark.parametrize(("fault", "form"), CELLS, ids=ids(CELLS))
def test_fault(fault: str, form: str, tmp_path: Path) -> None:
    held = FORMATS[form](tmp_path / "source")
    check(held, FAULTS[fault][0](held), tmp_path / "data")


@pytest.mark.parametrize("form", FORMATS)
def test_without_a_fault_all_is_prepared(form: str, tmp_path: Path) -> None:
    """What the faults above strike is sound before."""
    held = FORMATS[form](tmp_path / "source")
    code, lines = tried(held, tmp_path / "data")
    assert code == 0, lines
    assert list(Store.open(tmp_path / "data", held.dataset, held.preprocessing).cases) == list(held.ids)


FULL = [("disk-full", form) for form in FORMATS]


@pytest.mark.parametrize("form", FORMATS, ids=ids(FULL))
def test_disk_full(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends with one line; what was written stays, whole, and a second run does the rest."""
    held, data = FORMATS[form](tmp_path / "source"), tmp_path / "data"
    save, saved = np.save, []

    def fill(path: Any, array: np.ndarray, **how: Any) -> None:
        saved.append(path)
        if len(saved) == 3:  # the image of the second case
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(path, array, **how)

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", fill)
        code, lines = tried(held, data)
    assert code == 1
    assert len([line for line in lines if re.search(r"^error: .*No space left on device", line)]) == 1, lines
    assert not list(data.rglob("dataset.json")) and not list(data.rglob(".writing-*"))
    records = [path.stem for path in data.rglob("cases/*.json")]
    assert records == [held.ids[0]]
    code, lines = tried(held, data)
    assert code == 0, lines
    assert list(Store.open(data, held.dataset, held.preprocessing).cases) == list(held.ids)


@pytest.mark.parametrize("form", ARCHIVES)
def test_disk_full_while_unpacking(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, data = FORMATS[form](tmp_path / "source"), tmp_path / "data"
    real = Path.open

    def fill(path: Path, mode: str = "r", *more: Any, **how: Any) -> Any:
        if mode == "xb":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, mode, *more, **how)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fill)
        check(held, Expected(rf"^error: .*{held.root.name}: cannot be unpacked .*No space left", lost=None), data)
    assert not list(data.rglob("*.nii.gz"))
    assert tried(held, data)[0] == 0


# --------------------------------------------------------------------------------------------------- and around them


def test_a_file_that_was_mended_is_prepared_by_the_next_run(tmp_path: Path) -> None:
    held, data = nifti(tmp_path / "source"), tmp_path / "data"
    check(held, truncated(held), data)
    held.put(held.bad, held.cases[held.bad])
    code, lines = tried(held, data)
    assert code == 0, lines
    assert list(Store.open(data, "synapse", "native").cases) == list(held.ids)


def test_several_faults_are_a_line_each(tmp_path: Path) -> None:
    held, data = nifti(tmp_path / "source"), tmp_path / "data"
    expected = []
    for held.struck, fault in ((0, truncated), (2, wrong_ids)):
        expected.append(fault(held))
    code, lines = tried(held, data)
    assert code == 1
    assert [sum(bool(re.search(each.line, line)) for line in lines) for each in expected] == [1, 1]
    assert list(Store.open(data, "synapse", "native").cases) == [held.ids[1]]


def test_own_data_need_their_labeled_cases_to_plan(tmp_path: Path) -> None:
    """Of CT, the range of intensities comes from labelled cases alone: where none can be read, nothing is defined."""
    held = nnunet(tmp_path / "source")
    held.struck = 1  # the one that the drawn lists label
    corrupt(held)
    check(
        held,
        Expected(r"^error: nothing that is labelled in p2 .*p2_0000.nii.gz: .*damaged", 2, None),
        tmp_path / "data",
    )
    assert not list((tmp_path / "data").rglob("*.yaml"))


# ------------------------------------------------------------------------------------------------------ the document


def test_the_document_is_the_table_of_these_tests() -> None:
    """Each cell names a test of this file, or a note that says why there is none; and no test is left out."""
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    titles, cells = rows[0], rows[2:]
    assert len(titles) == len(FORMATS) + 1 and len(cells) == len(FAULTS) + 1
    known = {*ids(CELLS), *ids(FULL)}
    named: set[str] = set()
    for _, *line in cells:
        for form, cell in zip(FORMATS, line, strict=True):
            if match := re.fullmatch(r"`([\w-]+)`", cell):
                assert match[1] in known and match[1].startswith(form), cell
                named.add(match[1])
            else:
                assert re.fullmatch(r"\(\d\)", cell), cell
                assert f"\n{cell} " in text, f"note {cell} is not there"
    assert named == known
