"""The contract of a dataset: its classes, how its official layout is read, how its cases are preprocessed."""

from __future__ import annotations

import hashlib
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel

from sslbench.config.text import counted, first_few
from sslbench.core.errors import UsageError
from sslbench.core.files import same_file, walk_files
from sslbench.core.options import NoOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ClassInfo:
    """A foreground class: its name, and the abbreviation that tables and `cases.csv` use."""

    name: str
    short: str


PreprocessingStep = Literal["turn", "resample", "resize", "clip", "scale", "crop"]  # of a preprocessing, in order


@dataclass(frozen=True)
class Form:
    """A way in which users hold a dataset: its official release, or arrays that somebody preprocessed and shared.

    Attributes:
        name: `official`, or whose files these are and what they are (`uamt-h5`).
        title: the same for people.
        preprocessings: those that it can serve; None: all. Arrays that have been through some steps of a
            preprocessing serve that one alone.
        done: the steps that its arrays have been through; they are not done again.
        axes: order of its arrays' axes; None: its files have headers that say where each voxel lies.
        spacing_mm: voxel sizes along x, y, z that were published, of files whose headers have none; None: the headers
            have them, or nobody knows and 1 mm is assumed.
        shape: voxels along x, y, z that every array has, or None.
    """

    name: str
    title: str
    preprocessings: tuple[str, ...] | None = None
    done: tuple[PreprocessingStep, ...] = ()
    axes: Literal["xyz", "zyx"] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    shape: tuple[int, int, int] | None = None

    @property
    def spacing(self) -> Literal["header", "published", "unknown"]:
        """Where its voxel sizes come from: distances in mm mean something where that is its files' headers."""
        if self.spacing_mm is not None:
            return "published"
        return "header" if self.axes is None else "unknown"

    def serves(self, preprocessing: str) -> bool:
        """Whether its arrays can become those of a preprocessing."""
        return self.preprocessings is None or preprocessing in self.preprocessings


OFFICIAL = Form("official", "the official release")


@dataclass(frozen=True)
class RawCase:
    """One image of a source, with its reference where it has one.

    Attributes:
        id: unique in the dataset, stable; file names and split lists use it or `group`.
        group: what must not be torn apart by a split (the patient).
        image, label: files with headers (NIfTI, plain or gzipped; NRRD), or arrays without (`.npy`; `.h5` with
            the arrays `image` and `label`, where both are the same file). An image that the source lacks is named
            all the same, and refused when it is read. No label: an unlabelled training case; a dataset may name a
            file that is not there, `find` takes it off.
        form: of the files.
        slices: of a case that is stored slice by slice, all its files in order; `image` and `label` are the first.
        channels: of an image whose channels are files of their own, all of them in order; `image` is the first.
        info: what else the source says about the case, such as the phase of the heart.
    """

    id: str
    group: str
    image: Path
    label: Path | None
    form: Form = OFFICIAL
    slices: tuple[Path, ...] = ()
    channels: tuple[Path, ...] = ()
    info: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelCrop:
    """A crop around the reference's bounding box: an oracle, which no scan without a reference can have.

    Along each of `axes`, with the first and last foreground index i, j of n voxels, out of `size`, and two
    margins r, r': p = max(out - (j - i), 0) // 2, and the crop is [max(i - r - p, 0), min(j + r' + p, n)).

    Attributes:
        size: voxels along x, y, z that the padding p aims at; the volume's border may leave fewer.
        margin: smallest and largest margin in voxels. Margins are drawn uniformly, from the case's id.
        axes: what is cropped; the other axes stay whole.
    """

    size: tuple[int, int, int]
    margin: tuple[int, int]
    axes: tuple[Literal["x", "y", "z"], ...] = ("x", "y", "z")

    def __post_init__(self) -> None:
        # The end of the crop is exclusive: without a margin it would cut the last foreground voxel off.
        if not 1 <= self.margin[0] <= self.margin[1]:
            raise ValueError(f"margins from {self.margin[0]} to {self.margin[1]} voxels, expected 1 or more, in order")


Modality = Literal["ct", "mri", "rgb"]  # decides which rule of a preprocessing an image's intensities follow


@dataclass(frozen=True)
class Preprocessing:
    """A named way from an official scan to the array that networks see; a prediction can go the way back.

    Attributes:
        axes: order of the stored array's axes; `xyz` is NIfTI's, `zyx` SimpleITK's (slices first). Channels, where
            there are several, stand before them.
        orientation: closest anatomical orientation to turn to first (`RAS`), or None: as stored in the file.
        spacing_mm: grid to resample to, in the order x, y, z (image trilinear, label nearest), or None.
        resize_to: voxels along x, y, z that the whole scan is stretched or shrunk to, whatever its spacing, or None.
        resize_by: factors along x, y, z that its sides are multiplied by, and rounded down, or None. Both ways
            follow `torch.nn.functional.interpolate`: image `trilinear` with `align_corners=False`, label `nearest`.
        clip: intensities are clipped to these two values, after resampling and before scaling, or None.
        scale: `clip` maps the clip range to [0, 1]; `minmax` the volume's own extremes, after clipping; `zscore`
            subtracts its mean and divides by its standard deviation; None: intensities stay.
        channels: whether each channel has extremes, mean and deviation of its own, or all together.
        mri: percentiles of the volume that take the place of `clip` in an MRI scan, or None: MRI is clipped as CT.
        crop: cut around the reference, after scaling by the whole volume, or None.
        dtype: of the stored image.
        description: one sentence with the source.
    """

    axes: Literal["xyz", "zyx"]
    orientation: str | None = None
    spacing_mm: tuple[float, float, float] | None = None
    clip: tuple[float, float] | None = None
    scale: Literal["clip", "minmax", "zscore"] | None = "minmax"
    dtype: Literal["float32", "float16"] = "float32"
    crop: LabelCrop | None = None
    resize_to: tuple[int, int, int] | None = None
    resize_by: tuple[float, float, float] | None = None
    channels: Literal["apart", "together"] = "apart"
    mri: tuple[float, float] | None = None
    description: str = ""

    def __post_init__(self) -> None:
        if sum(way is not None for way in (self.spacing_mm, self.resize_to, self.resize_by)) > 1:
            raise ValueError("a preprocessing resamples in one way: spacing_mm, resize_to or resize_by")
        if self.scale == "clip" and self.clip is None:
            raise ValueError("a preprocessing with scale='clip' has to have a clip range")

    def without(self, done: Sequence[PreprocessingStep]) -> Preprocessing:
        """What is left to do with arrays that have been through some of the steps."""
        off: dict[PreprocessingStep, dict[str, None]] = {
            "turn": {"orientation": None},
            "resample": {"spacing_mm": None},
            "resize": {"resize_to": None, "resize_by": None},
            "clip": {"clip": None, "mri": None},
            "scale": {"scale": None},
            "crop": {"crop": None},
        }
        changes: dict[str, Any] = {name: value for step in done for name, value in off[step].items()}
        return replace(self, **changes)

    @property
    def hash(self) -> str:
        """16 hexadecimal digits over everything but the description."""
        fields = {key: value for key, value in asdict(self).items() if key != "description"}
        # A field that came later counts only where it is used: what was hashed before it keeps its hash.
        later = {"crop": None, "resize_to": None, "resize_by": None, "channels": "apart", "mri": None}
        fields = {key: value for key, value in fields.items() if key not in later or value != later[key]}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Remote:
    """An archive of the official release that anybody may download.

    Attributes:
        url, file: where it is, and what it is called here.
        licence: of its content.
        hash: `md5:...` or `sha256:...`; None: nobody published one, or it differs from download to download.
        bytes: its size, about, or None.
        tried: whether this address and checksum were tried when they were written down.
    """

    url: str
    file: str
    licence: str
    hash: str | None = None
    bytes: int | None = None
    tried: bool = False


# The commands that take what is on no official list.
OWN_DATA = "sslbench prepare NAME --from-nnunet DIR, or --from-pairs DIR --classes A,B"


class Dataset(ABC):
    """A dataset: registered as a class, used through its class attributes and one instance per preparation.

    Five attributes must be set (`name`, `title`, `classes`, `preprocessings`, `official_cases`) and one
    method must be written, `cases_of`. All other attributes have a default; `class_ids`, `generate`, `group_of` and
    `modality_of` may be written.

    Attributes:
        version: raised when the same source would give other arrays or other case ids.
        title: full name for people.
        classes: foreground classes in label order; label 0 is the background.
        channels: what its images hold, channel by channel.
        modality: of its images.
        pixel_mm: side of a pixel of a plain image file (JPEG, PNG, TIFF), which carries none that can be trusted.
        preprocessings: the named ways to preprocess it; the first is the default.
        splits_from: the dataset whose split lists it uses, where not its own.
        default_grid: the grid that `sslbench run --grid` means when this is the prepared dataset; empty: none.
        forms: the ways in which users hold it, the official one first.
        official_cases: number of cases of the official release.
        palette_indices: which masks with a palette hold classes as its indices, and not as its colours.
        least_classes: foreground classes that every official reference has at least; one with fewer was annotated
            in part, and there the label 0 does not mean that an organ is absent.
        source_hint: what `prepare` says when no source is given: where to get it, in one line.
        own_data: the command that takes files in this dataset's layout which are on no official list.
        access: the way to the official files, step by step: where to register, what to download, what to run.
        remote: what `prepare --download` fetches, where that needs no registration.
        cite: what to cite for the data, in one line.
        synapse_id: of the official archive on synapse.org, for those who have its client and a token.
        generated_ids: of a dataset that is computed, the cases that `generate` can write; else empty.
        Options: typed options of `prepare NAME --set key=value`.
        recognised: what `find` took, in words.
        notes: lines for the user that `find` leaves, about files that it passed over.
        strangers: ids in the source that are on no official list.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    title: ClassVar[str]
    classes: ClassVar[tuple[ClassInfo, ...]]
    channels: ClassVar[tuple[str, ...]] = ("image",)
    modality: ClassVar[Modality] = "ct"
    pixel_mm: ClassVar[float] = 1.0
    preprocessings: ClassVar[Mapping[str, Preprocessing]]
    splits_from: ClassVar[str | None] = None
    default_grid: ClassVar[str] = ""
    forms: ClassVar[tuple[Form, ...]] = (OFFICIAL,)
    official_cases: ClassVar[int]
    palette_indices: ClassVar[Literal["never", "coloured", "always"]] = "always"
    least_classes: ClassVar[int] = 1
    source_hint: ClassVar[str] = "name the folder that holds it with --source"
    own_data: ClassVar[str] = OWN_DATA
    access: ClassVar[tuple[str, ...]] = ()
    remote: ClassVar[Remote | None] = None
    cite: ClassVar[str] = ""
    synapse_id: ClassVar[str | None] = None
    generated_ids: ClassVar[tuple[str, ...]] = ()
    Options: ClassVar[type[BaseModel]] = NoOptions

    def __init__(self, options: BaseModel | None = None) -> None:
        self.options = options or self.Options()
        self.recognised = ""
        self.notes: list[str] = []
        self.strangers: list[str] = []

    @abstractmethod
    def cases_of(self, form: Form, source: Path) -> list[RawCase]:
        """The cases under `source` that are held in one of `forms`, sorted by id; empty where none is.

        What is passed over is told in `notes`; ids on no official list go to `strangers`.

        Raises:
            UsageError: two files mean the same.
        """

    def find(self, source: Path, preprocessing: str | None = None) -> list[RawCase]:
        """The cases under `source`, all of the first of `forms` that is there and serves the preprocessing.

        Raises:
            UsageError: nothing of this dataset is there, or nothing that serves the preprocessing.
        """
        found: dict[Form, tuple[list[RawCase], list[str]]] = {}
        for form in self.forms:
            self.notes = []
            cases = self.cases_of(form, source)
            if cases:
                found[form] = cases, self.notes
        self.strangers = sorted(set(self.strangers))
        stray = (
            f"{counted(len(self.strangers), 'case')} on no official list of {self.name}: {first_few(self.strangers)}"
        )
        if not found:
            if self.strangers:
                raise UsageError(f"{source} holds {stray}", f"own data: {self.own_data}")
            looked = " or ".join(form.title for form in self.forms)
            raise UsageError(f"nothing of {self.name} is in {source}: no file of {looked}", self.source_hint)
        serving = [form for form in found if preprocessing is None or form.serves(preprocessing)]
        if not serving:
            held = [f"{form.title}, which can only serve {' or '.join(form.preprocessings or ())}" for form in found]
            hint = "name one of these with --preprocessing, or give the official release"
            raise UsageError(f"'{preprocessing}' cannot be made of what {source} holds: {'; '.join(held)}", hint)
        chosen = serving[0]
        cases, self.notes = found[chosen]
        self.recognised = f"{chosen.title} ({counted(len(cases), 'case')})"
        self.notes += [
            f"also there, not used: {form.title} ({counted(len(others), 'case')})"
            for form, (others, _) in found.items()
            if form is not chosen
        ]
        if self.strangers:
            self.notes.append(f"left out {stray}; own data: {self.own_data}")
        return [case if is_labeled(case.label) else replace(case, label=None) for case in cases]

    def generate(self, folder: Path, case_id: str) -> None:
        """Write one of `generated_ids` under `folder` in the official layout."""
        raise NotImplementedError

    @classmethod
    def class_ids(cls, values: NDArray[Any]) -> NDArray[Any]:
        """Class ids of the values in a label file; a value that means no class stays, to be refused by its name."""
        return values

    @classmethod
    def group_of(cls, id: str) -> str:
        """The group of a case (its patient, its slide) as far as its id says it; else the case itself."""
        return id

    @classmethod
    def modality_of(cls, id: str) -> Modality:
        """The modality of a case, for a dataset that mixes them."""
        return cls.modality

    @classmethod
    def num_classes(cls) -> int:
        """Number of classes, background included."""
        return len(cls.classes) + 1

    @classmethod
    def preprocessing_hash(cls, name: str) -> str:
        """The hash of a named preprocessing.

        Raises:
            UnknownNameError: the dataset has none of that name.
        """
        from sslbench.core.errors import UnknownNameError

        if name not in cls.preprocessings:
            raise UnknownNameError(f"preprocessing of {cls.name}", name, cls.preprocessings)
        return cls.preprocessings[name].hash


def is_labeled(label: Path | None) -> bool:
    """Whether a case's label is there. A link that leads nowhere counts: its file was meant to be, and is missed."""
    return label is not None and os.path.lexists(label)


def paired(
    image: Path | None, label: Path | None, label_of: Callable[[Path], Path], image_of: Callable[[Path], Path]
) -> tuple[Path, Path]:
    """An image and its label; the path that one of them would have where only the other is there."""
    if image is None:
        assert label is not None
        return image_of(label), label
    return image, label or label_of(image)


def index_files(folder: Path, pattern: str) -> dict[tuple[str, ...], Path]:
    """The files under a folder whose whole name matches, by the groups of the match (none counts as empty).

    Args:
        folder: with all below it, linked folders too.
        pattern: of the name; with a slash in it, of the name behind that of the file's own folder.

    Raises:
        UsageError: two files mean the same.
    """
    found: dict[tuple[str, ...], Path] = {}
    for path in sorted(walk_files(folder)):
        match = re.fullmatch(pattern, f"{path.parent.name}/{path.name}" if "/" in pattern else path.name)
        if match is None or not path.is_file():
            continue
        key = match.groups(default="")
        if key in found:
            if same_file(path, found[key]):
                continue
            raise UsageError(f"{path} is a second {found[key]}", "keep one of them, or name the folder to read")
        found[key] = path
    return found
