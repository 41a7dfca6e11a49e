"""The contract of a dataset: its classes, how its official layout is read, how its cases are preprocessed."""

from __future__ import annotations

import hashlib
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from sslbench.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ClassInfo:
    """A foreground class: its name, and the abbreviation that tables and `cases.csv` use."""

    name: str
    short: str


@dataclass(frozen=True)
class RawCase:
    """One image of a source with its reference.

    Attributes:
        id: unique in the dataset, stable; file names and split lists use it or `group`.
        group: what must not be torn apart by a split (the patient).
        image, label: NIfTI files, plain or gzipped, or NRRD files (`.nrrd`). One that the source lacks is
            named all the same, and refused when it is read.
    """

    id: str
    group: str
    image: Path
    label: Path


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
            subtracts its mean and divides by its standard deviation.
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
    scale: Literal["clip", "minmax", "zscore"] = "minmax"
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

    @property
    def hash(self) -> str:
        """16 hexadecimal digits over everything but the description."""
        fields = {key: value for key, value in asdict(self).items() if key != "description"}
        # A field that came later counts only where it is used: what was hashed before it keeps its hash.
        later = {"crop": None, "resize_to": None, "resize_by": None, "channels": "apart", "mri": None}
        fields = {key: value for key, value in fields.items() if key not in later or value != later[key]}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


class NoOptions(BaseModel):
    """A component without options."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Dataset(ABC):
    """A dataset: registered as a class, used through its class attributes and one instance per preparation.

    Attributes:
        version: raised when the same source would give other arrays or other case ids.
        title: full name for people.
        classes: foreground classes in label order; label 0 is the background.
        modality: of its images.
        pixel_mm: side of a pixel of a plain image file (JPEG, PNG, TIFF), which carries none that can be trusted.
        preprocessings: the named ways to preprocess it; the first is the default.
        splits_from: the dataset whose split lists it uses, where not its own.
        default_grid: the grid that `sslbench run --grid` means when this is the prepared dataset.
        official_cases: number of cases of the official release.
        source_hint: what `prepare` says when no source is given: where to get it, in one line.
        generated_ids: of a dataset that is computed, the cases that `generate` can write; else empty.
        Options: typed options of `prepare NAME --set key=value`.
        notes: lines for the user that `find` leaves, about files that it passed over.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    title: ClassVar[str]
    classes: ClassVar[tuple[ClassInfo, ...]]
    modality: ClassVar[Modality] = "ct"
    pixel_mm: ClassVar[float] = 1.0
    preprocessings: ClassVar[Mapping[str, Preprocessing]]
    splits_from: ClassVar[str | None] = None
    default_grid: ClassVar[str]
    official_cases: ClassVar[int]
    source_hint: ClassVar[str]
    generated_ids: ClassVar[tuple[str, ...]] = ()
    Options: ClassVar[type[BaseModel]] = NoOptions

    def __init__(self, options: BaseModel | None = None) -> None:
        self.options = options or self.Options()
        self.notes: list[str] = []

    @abstractmethod
    def find(self, source: Path) -> list[RawCase]:
        """The cases under `source`, in the official layout and its usual variations, sorted by id.

        Raises:
            UsageError: nothing that looks like this dataset is there.
        """

    def generate(self, folder: Path, case_id: str) -> None:
        """Write one of `generated_ids` under `folder` in the official layout."""
        raise NotImplementedError

    @classmethod
    def class_ids(cls, values: NDArray[Any]) -> NDArray[Any]:
        """Class ids of the values in a label file; a value that means no class stays, to be refused by its name."""
        return values

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
        from sslbench.errors import UnknownNameError

        if name not in cls.preprocessings:
            raise UnknownNameError(f"preprocessing of {cls.name}", name, cls.preprocessings)
        return cls.preprocessings[name].hash


def index_files(folder: Path, pattern: str) -> dict[tuple[str, ...], Path]:
    """The files under a folder whose whole name matches, by the groups of the match (none counts as empty).

    Raises:
        UsageError: two files mean the same.
    """
    found: dict[tuple[str, ...], Path] = {}
    # Unlike Path.rglob, os.walk follows linked folders.
    walk = os.walk(folder, followlinks=True)
    for path in sorted(Path(parent) / name for parent, _, names in walk for name in names):
        match = re.fullmatch(pattern, path.name)
        if match is None or not path.is_file():
            continue
        key = match.groups(default="")
        if key in found:
            raise UsageError(f"{path} is a second {found[key]}", "keep one of them, or name the folder to read")
        found[key] = path
    return found
