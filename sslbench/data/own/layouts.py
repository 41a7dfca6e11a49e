"""Folders of the user's own data, read: nnU-Net's raw format (both versions), MSD (Decathlon), images with masks.

A folder says what its classes and channels are and which files make a case; nothing is opened but its
`dataset.json` (of images with masks, which say nothing: the first pair). What cannot be used as a whole is refused
here, in one line with the remedy; what is wrong with single cases comes out when they are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sslbench.core.endings import ENDINGS, without_ending
from sslbench.core.errors import DataError, UsageError
from sslbench.core.files import read_text, same_file, walk_files
from sslbench.data.base import is_labeled

Layout = Literal["nnunet", "msd", "pairs"]

TITLES: dict[Layout, str] = {
    "nnunet": "nnU-Net raw format",
    "msd": "MSD (Decathlon) folder",
    "pairs": "images with masks",
}
MASK_WORDS = ("mask", "label", "labels", "gt", "seg", "segmentation", "annotation")
MASK_FOLDERS = ("mask", "masks", "label", "labels", "gt", "annotations", "segmentations")

_MARK = rf"(?:{'|'.join(MASK_WORDS)})"
_RAW_FOLDER = "the folder that holds dataset.json, imagesTr and labelsTr"


@dataclass(frozen=True)
class CaseFiles:
    """A case of a folder: its image, one file or one per channel, and its label.

    Attributes:
        id: the file's name without channel and ending.
        images: in the order of the channels; those that should be there and are not are named all the same.
        label: its file; None: an unlabelled training case.
        test: whether the folder sets it aside for testing.
    """

    id: str
    images: tuple[Path, ...]
    label: Path | None
    test: bool = False


@dataclass(frozen=True)
class SourceContent:
    """The contents of a folder.

    Attributes:
        layout: how it is laid out.
        classes: of the labels 1, 2, ...
        channels: of an image, in order.
        cases: sorted by id.
        notes: lines for the user about what was passed over.
    """

    layout: Layout
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    cases: tuple[CaseFiles, ...]
    notes: tuple[str, ...] = ()


def read_source(
    layout: Layout, source: Path, classes: Sequence[str] = (), channels: Sequence[str] = ()
) -> SourceContent:
    """Read what a folder holds, by its layout; a folder with a `dataset.json` may be either `nnunet` or `msd`.

    Args:
        layout: how it is meant to be laid out.
        source: the folder.
        classes: names of the mask values 1, 2, ...; only `pairs` cannot do without.
        channels: names of an image's channels, for `pairs`; by default they are called as they come.

    Raises:
        UsageError: it is not laid out so, or says what cannot be used.
    """
    if not source.is_dir():
        raise UsageError(f"the source {source} {'is not a folder' if source.exists() else 'does not exist'}")
    return read_pairs(source, classes, channels) if layout == "pairs" else read_described(source)


# --------------------------------------------------------------------------------------- folders with dataset.json


def read_described(source: Path) -> SourceContent:
    """A folder in nnU-Net's raw format, of version 1 or 2, or one of the Medical Segmentation Decathlon.

    Version 2 writes `labels: {"background": 0, "liver": 1}`, `channel_names` and `file_ending`; version 1 and MSD
    write `labels: {"0": "background", "1": "liver"}`, `modality` and a list `training`. Both versions keep a file per
    channel (`CASE_0000.nii.gz`), MSD one file whose last axis are the channels. Training images without a label are
    unlabelled cases; of MSD these are those that `training` names without one, and those beside the named ones.
    Images in `imagesTs` count as test cases where `labelsTs` has their labels.

    Raises:
        UsageError: there is no such description, it is no JSON, contradicts itself, has classes that overlap
            (regions), an ignored label, gaps between labels, or a file ending that nothing here reads.
    """
    path = source / "dataset.json"
    try:
        content = json.loads(read_text(path))
    except FileNotFoundError:
        raise UsageError(
            f"there is no dataset.json in {source}",
            f"name {_RAW_FOLDER}; images with masks are read by --from-pairs",
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no fields", "nnU-Net's has labels, channel_names, file_ending and numTraining")
    classes = _classes(content.get("labels"), path)
    channels = _channels(content, path)
    notes: list[str] = []
    if isinstance(content.get("dataset"), dict):
        layout: Layout = "nnunet"
        cases = list(_listed_by_case(content["dataset"], len(channels), source, path))
    elif _is_msd(content, source):
        layout = "msd"
        cases = list(_listed_in_msd(content, source, path))
    else:
        layout = "nnunet"
        cases = list(_in_folders(source, _ending(content, source, path), len(channels), notes))
    if not cases:
        raise UsageError(f"there is no case in {source}", f"name {_RAW_FOLDER}")
    _ids(cases, source)
    said = content.get("numTraining")
    found = [case for case in cases if not case.test]
    if isinstance(said, int) and said not in (len(found), sum(case.label is not None for case in found)):
        notes.append(f"dataset.json speaks of {said} training cases; {len(found)} are here")
    if layout == "msd" and isinstance(content.get("test"), list) and content["test"]:
        notes.append(f"left out {len(content['test'])} test images without labels")
    return SourceContent(layout, classes, channels, tuple(sorted(cases, key=lambda case: case.id)), tuple(notes))


def _classes(labels: Any, path: Path) -> tuple[str, ...]:
    """The names of the labels 1, 2, ..., from either way to write them down."""
    if not isinstance(labels, dict) or not labels:
        raise UsageError(f"{path} names no labels", 'write "labels": {"background": 0, "liver": 1}')
    if all(re.fullmatch(r"\d+", str(key)) for key in labels) and all(isinstance(v, str) for v in labels.values()):
        pairs = [(int(key), str(name)) for key, name in labels.items()]
    else:
        for name, value in labels.items():
            if isinstance(value, list):
                raise UsageError(
                    f"{path}: the label '{name}' is a region {value}: classes that overlap are not supported",
                    'give every label a number of its own: {"background": 0, "edema": 1, ...}',
                )
            if str(name).lower() == "ignore":
                raise UsageError(
                    f"{path}: the label 'ignore' ({value}) marks voxels without annotation, which is not supported",
                    "leave out the cases that have it, or annotate them whole",
                )
            if not isinstance(value, int) or isinstance(value, bool):
                raise UsageError(f"{path}: the label '{name}' has the value {value!r}, not a whole number")
            if value == 0 and str(name).lower() != "background":
                raise UsageError(f"{path}: the label 0 is the background, not '{name}'", "count classes from 1")
        pairs = [(value, str(name)) for name, value in labels.items()]
    ids = sorted(number for number, _ in pairs)
    missing = sorted(set(range(ids[-1] + 1)) - set(ids)) if ids[0] >= 0 else [0]
    if missing or len(set(ids)) < len(ids) or ids[-1] > 255:
        what = f"{missing[0]} is missing" if missing else "one stands twice" if ids[-1] <= 255 else "there are too many"
        raise UsageError(
            f"{path}: labels count from 0 (background) to {len(ids) - 1} without gaps, but {what}",
            "renumber the classes, in dataset.json and in the label files",
        )
    return check_classes([name for _, name in sorted(pairs)[1:]], str(path))


def check_classes(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Class names that tables and records can tell apart.

    Raises:
        UsageError: none, an empty one, the same twice, or one that means something else.
    """
    cleaned = tuple(" ".join(name.split()) for name in names)
    for name in cleaned:
        if not name or name.lower() in ("avg", "background") or cleaned.count(name) > 1:
            problem = "is empty" if not name else "stands twice" if cleaned.count(name) > 1 else "means something else"
            raise UsageError(f"{where}: the class name '{name}' {problem}", "give every class a name of its own")
    if not cleaned:
        raise UsageError(f"{where} names no class beside the background")
    return cleaned


def _channels(content: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    channels = content.get("channel_names", content.get("modality"))
    if not isinstance(channels, dict) or not channels:
        raise UsageError(f"{path} names no channels", 'write "channel_names": {"0": "CT"}')
    try:
        named = {int(number): str(name) for number, name in channels.items()}
    except ValueError:
        named = {}
    if sorted(named) != list(range(len(channels))):
        raise UsageError(f"{path}: channels count from 0 to {len(channels) - 1}, not {', '.join(map(str, channels))}")
    return tuple(named[number] for number in range(len(named)))


def _ending(content: Mapping[str, Any], source: Path, path: Path) -> str:
    ending = content.get("file_ending")
    if ending is None:  # version 1 has NIfTI only, and MSD too
        ending = ".nii.gz"
    if ending not in ENDINGS:
        raise UsageError(f"{path}: files ending in {ending!r} cannot be read", f"those that can: {', '.join(ENDINGS)}")
    return str(ending)


def _in_folders(source: Path, ending: str, channels: int, notes: list[str]) -> Iterator[CaseFiles]:
    """The cases of `imagesTr`/`labelsTr` and of `imagesTs`/`labelsTs`: what the folder sets aside for testing is of no
    use without a label."""
    for part, test in (("Tr", False), ("Ts", True)):
        image_folder, label_folder = source / f"images{part}", source / f"labels{part}"
        if not test and not (image_folder.is_dir() and label_folder.is_dir()):
            missing = image_folder if not image_folder.is_dir() else label_folder
            raise UsageError(f"there is no folder {missing}", f"name {_RAW_FOLDER}")
        images: dict[str, set[int]] = {}
        for name in _names(image_folder, ending):
            match = re.fullmatch(r"(.+)_(\d{4})", name, re.DOTALL)  # names with a line's end are refused below
            if match is None:
                raise UsageError(
                    f"{image_folder / (name + ending)} does not say which channel it holds",
                    f"nnU-Net's names end in the channel: {name}_0000{ending}",
                )
            images.setdefault(match[1], set()).add(int(match[2]))
        labels = set(_names(label_folder, ending))
        for id, held in sorted(images.items()):
            if max(held) >= channels:
                raise UsageError(
                    f"{image_folder / f'{id}_{max(held):04d}{ending}'} is one channel too many: dataset.json names"
                    f" {channels}",
                    "name it in channel_names, or take the file away",
                )
        unlabeled = sorted(set(images) - labels) if test else []
        if unlabeled:
            notes.append(f"left out {len(unlabeled)} images of {image_folder.name} without a label in labelsTs")
        for id in sorted((set(images) | labels) - set(unlabeled)):
            files = tuple(image_folder / f"{id}_{channel:04d}{ending}" for channel in range(channels))
            yield CaseFiles(id, files, label_folder / f"{id}{ending}" if id in labels else None, test)


def _names(folder: Path, ending: str) -> list[str]:
    """The files of a folder that end so, without the ending; hidden ones are copies that macOS leaves."""
    if not folder.is_dir():
        return []
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return [name.removesuffix(ending) for name in names if name.endswith(ending)]


def _listed_by_case(listed: dict[str, Any], channels: int, source: Path, path: Path) -> Iterator[CaseFiles]:
    """Version 2's own list of files, for data that stay where they are."""
    for id, files in listed.items():
        images = files.get("images") if isinstance(files, dict) else None
        if not isinstance(images, list) or not isinstance(files.get("label"), str | None):
            raise UsageError(f"{path}: dataset.{id} is no case with images and a label")
        if len(images) != channels:
            raise UsageError(f"{path}: {id} has {len(images)} images where dataset.json names {channels} channels")
        yield CaseFiles(id, tuple(source / str(image) for image in images), _there(source, files.get("label")))


def _is_msd(content: Mapping[str, Any], source: Path) -> bool:
    """Tell whether the listed training images are there by their listed names; nnU-Net's have a channel behind."""
    listed = content.get("training")
    if not isinstance(listed, list) or "channel_names" in content:
        return False
    images = [
        source / item["image"] for item in listed if isinstance(item, dict) and isinstance(item.get("image"), str)
    ]
    return any(image.exists() for image in images)


def _listed_in_msd(content: Mapping[str, Any], source: Path, path: Path) -> Iterator[CaseFiles]:
    """The listed pairs, listed images alone, and what lies beside them without being listed or labelled."""
    images: list[Path] = []
    labels: list[Path] = []
    for item in content["training"]:
        if (
            not isinstance(item, dict)
            or not isinstance(item.get("image"), str)
            or not isinstance(item.get("label"), str | None)
        ):
            raise UsageError(f"{path}: training holds {str(item)[:60]!r}, which is no image with its label")
        image, label = source / item["image"], _there(source, item.get("label"))
        if without_ending(image.name) == image.name:
            raise UsageError(f"{path}: {item['image']} cannot be read", f"files that can: {', '.join(ENDINGS)}")
        images.append(image)
        labels += [label] if label is not None else []
        yield CaseFiles(without_ending(image.name), (image,), label)
    tests = content.get("test")
    tests = [item.get("image") if isinstance(item, dict) else item for item in tests] if isinstance(tests, list) else []
    listed = {image.resolve() for image in (*images, *(source / test for test in tests if isinstance(test, str)))}
    labeled = {without_ending(file) for folder in {label.parent for label in labels} for file in _files(folder)}
    for folder in sorted({image.parent for image in images} - {label.parent for label in labels}):
        for name in _files(folder):
            id = without_ending(name)
            if id != name and id not in labeled and (folder / name).resolve() not in listed:
                yield CaseFiles(id, (folder / name,), None)


def _files(folder: Path) -> list[str]:
    """The names of a folder's files but hidden ones, sorted."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _there(source: Path, label: str | None) -> Path | None:
    """The label file that a list names, where it is there."""
    return source / label if label and is_labeled(source / label) else None


def _ids(cases: Sequence[CaseFiles], source: Path) -> None:
    """Ids become file names, so they must be such, and differ."""
    seen: dict[str, CaseFiles] = {}
    for case in cases:
        if not re.fullmatch(r"[^\s./\\][^/\\]*", case.id) or not case.id.isprintable():
            raise UsageError(f"{source}: {case.id!a} cannot be a case: it names files", "rename it")
        other = seen.setdefault(case.id, case)
        if other is not case:
            raise UsageError(f"{source}: {case.images[0]} is a second {case.id} beside {other.images[0]}", "rename one")


# ------------------------------------------------------------------------------------------------ images with masks


def read_pairs(source: Path, classes: Sequence[str], channels: Sequence[str] = ()) -> SourceContent:
    """Images with masks: `NAME.jpg` beside `NAME_mask.jpg`, `images/NAME.png` and `masks/NAME.png`, or `img0001.nii.gz`
    and `label0001.nii.gz`.

    A mask is a file whose name ends in one of `MASK_WORDS`, or has one before a number, or that lies in one of
    `MASK_FOLDERS`; its image has the same name without that, at any depth, and may have another ending (`case.nrrd`
    with 3D Slicer's `case.seg.nrrd`). `img` or `image` before a number counts for nothing. There are as many channels
    as in the first image with a mask. Images without a mask are unlabelled cases.

    Raises:
        UsageError: no classes are named, there is no pair, two files mean the same, or other channels are named.
    """
    if not classes:
        raise UsageError(
            "images with masks do not say what the masks show", "name what the values 1, 2, ... mean: --classes gland"
        )
    names = check_classes(classes, "--classes")
    images, masks = _sorted_out(source)
    pairs = sorted(set(images) & set(masks))
    if not pairs:
        what = "a mask" if images and not masks else "an image" if masks else "an image and a mask"
        raise UsageError(
            f"no file in {source} is {what} of a pair", "NAME.jpg beside NAME_mask.jpg, or images/ and masks/ are read"
        )
    # A mask without its image is a fault of the case; it is told when the case is read.
    cases = [
        CaseFiles(id, (images[id] if id in images else masks[id].with_name(f"{id}.*"),), masks.get(id))
        for id in sorted({*images, *masks})
    ]
    _ids(cases, source)
    found = _channels_of(images[pairs[0]])
    if channels and len(channels) != len(found):
        there = f"{images[pairs[0]]} has {len(found)} channels"
        raise UsageError(f"{there}, and {len(channels)} are named: {', '.join(channels)}")
    return SourceContent("pairs", names, tuple(channels) or found, tuple(cases))


def _sorted_out(source: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and masks by the name that a pair has in common."""
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    for path in walk_files(source):
        stem = without_ending(path.name)
        if path.name.startswith(".") or stem == path.name or not path.name.lower().endswith(ENDINGS):
            continue
        in_folder = path.parent != source and path.parent.name.lower() in MASK_FOLDERS
        marked = re.sub(rf"^{_MARK}[_-]?(?=\d)|(?<=.)(?:[._-]{_MARK})+$", "", stem, flags=re.IGNORECASE)
        found = masks if marked != stem or in_folder else images
        key = re.sub(r"^(img|image)[_-]?(?=\d)", "", marked, flags=re.IGNORECASE)
        if key in found:
            if same_file(path, found[key]):
                continue
            raise UsageError(f"{path} is a second {found[key]}", "keep one of them, or name the folder to read")
        found[key] = path
    return images, masks


def _channels_of(image: Path) -> tuple[str, ...]:
    from sslbench.data.files.volumes import PLAIN_IMAGES, read_volume

    try:
        voxels, _, _ = read_volume(image)
    except DataError as error:
        raise UsageError(error.message, "the first image of a folder shows how many channels there are") from error
    count = voxels.shape[0] if voxels.ndim == 4 else 1
    if count in (3, 4) and image.suffix.lower() in PLAIN_IMAGES:
        grey = bool((voxels[1:3] == voxels[0]).all())
        return ("grey",) if grey else ("red", "green", "blue")
    return ("image",) if count == 1 else tuple(f"channel {number}" for number in range(count))
