"""LA: late gadolinium-enhanced MRI of 100 left atria, the training set of the 2018 Atrial Segmentation Challenge
(Xiong et al., Medical Image Analysis 2021)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sslbench.data.base import ClassInfo, Dataset, Form, LabelCrop, Preprocessing, RawCase
from sslbench.data.splits import load_splits
from sslbench.registry import register

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ID = r"[0-9A-Z]{20}"
_IMAGE, _LABEL = "lgemri.nrrd", "laendo.nrrd"
_LAYOUTS = ("training", "Training Set", "2018LA_Seg_Training Set", "")
_FOREGROUND = 255  # in the official files


@register("dataset", "la")
class LA(Dataset):
    """A case is a scan, named as its folder is (20 letters and digits), and a group of its own."""

    name = "la"
    title = "LA (2018 Atrial Segmentation Challenge)"
    modality = "mri"
    classes = (ClassInfo("left atrium", "la"),)
    preprocessings: ClassVar[Mapping[str, Preprocessing]] = {
        "uamt-labelcrop": Preprocessing(
            axes="xyz",
            scale="zscore",
            crop=LabelCrop(size=(112, 112, 80), margin=(10, 19), axes=("x", "y")),
            description="As UA-MT and its descendants: the whole scan's z-score, then a crop in x and y around the "
            "reference label, of test scans too: the published protocol shows the network where the atrium is. Its "
            "margins of 10 to 19 voxels were drawn unseeded; here they are a function of the case's id.",
        ),
        "native": Preprocessing(
            axes="xyz",
            scale="zscore",
            description="The whole scan's z-score, no crop and so no use of the reference; not the published protocol.",
        ),
    }
    forms = (Form("official", "LA's scans (<20 letters and digits>/lgemri.nrrd, ...)"),)
    default_grid = "la-short"
    official_cases = 100
    source_hint = (
        "download the training set of the 2018 Atrial Segmentation Challenge from cardiacatlas.org, "
        "then --source FOLDER"
    )

    def cases_of(self, form: Form, source: Path) -> list[RawCase]:
        """The scans that the published split lists: `<id>/{lgemri,laendo}.nrrd`.

        `source` is the folder of the scans, or one that holds them in `training/`, `Training Set/` or
        `2018LA_Seg_Training Set/`. Other files beside the two (`lawall.nrrd`) are passed over.
        """
        folders: list[Path] = []
        for layout in _LAYOUTS:
            root = source / layout
            folders = sorted(path for path in root.iterdir() if _is_scan(path)) if root.is_dir() else []
            if folders:
                break
        lists = load_splits(self.name, "uamt")
        known = {*lists.train, *lists.val, *lists.test}
        self.strangers += [folder.name for folder in folders if folder.name not in known]
        return [
            RawCase(folder.name, folder.name, folder / _IMAGE, folder / _LABEL, form)
            for folder in folders
            if folder.name in known
        ]

    @classmethod
    def class_ids(cls, values: NDArray[Any]) -> NDArray[Any]:
        """The official 255 is the atrium; so is 1, in a file that has no 255."""
        atrium = values == _FOREGROUND
        if not atrium.any() or (values == 1).any():
            return values
        values = values.copy()
        values[atrium] = 1
        return values


def _is_scan(path: Path) -> bool:
    return bool(re.fullmatch(_ID, path.name)) and any((path / name).is_file() for name in (_IMAGE, _LABEL))
