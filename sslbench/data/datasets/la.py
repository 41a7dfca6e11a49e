"""LA: late gadolinium-enhanced MRI of 100 left atria, the training set of the 2018 Atrial Segmentation Challenge
(Xiong et al., Medical Image Analysis 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sslbench.config.splits import load_splits
from sslbench.config.text import counted
from sslbench.core.registry import register
from sslbench.data.base import ClassInfo, Dataset, Form, LabelCrop, Preprocessing, RawCase, index_files, paired

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NIFTI = Form("nifti", "LA's scans as NIfTI (<20 letters and digits>/lgemri.nii.gz, ...)")
_H5 = Form(
    "uamt-h5",
    "UA-MT's arrays (<20 letters and digits>/mri_norm2.h5)",
    preprocessings=("uamt-labelcrop",),
    done=("scale", "crop"),
    axes="xyz",
    spacing_mm=(0.625, 0.625, 0.625),
)
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
    forms = (Form("official", "LA's scans (<20 letters and digits>/lgemri.nrrd, ...)"), _NIFTI, _H5)
    default_grid = "la-short"
    official_cases = 100
    source_hint = "the training set of the 2018 Atrial Segmentation Challenge: sslbench show dataset la says where"
    cite = (
        "Xiong et al., A global benchmark of algorithms for segmenting the left atrium from late "
        "gadolinium-enhanced cardiac magnetic resonance imaging, Medical Image Analysis 67, 2021."
    )
    access = (
        "Open https://www.cardiacatlas.org/atriaseg2018-challenge/atria-seg-data/ and accept the conditions.",
        "Download the training data: 100 scans, each a folder with lgemri.nrrd and laendo.nrrd.",
        "Run: sslbench prepare la --source FILE.zip (or the unpacked folder)",
        "With UA-MT's arrays (mri_norm2.h5) instead: sslbench prepare la --source FOLDER",
    )

    def cases_of(self, form: Form, source: Path) -> list[RawCase]:
        """The scans that the published split lists, at any depth.

        Official: `<id>/{lgemri,laendo}.nrrd`, or the same as NIfTI; other files beside the two (`lawall.nrrd`) are
        passed over, and so is the challenge's test set in a folder `Testing Set`. UA-MT: `<id>/mri_norm2.h5`.
        """
        endings = {"uamt-h5": r"mri_norm2()\.h5", "nifti": r"(lgemri|laendo)\.nii(?:\.gz)?"}
        files = index_files(source, r"([0-9A-Z]{20})/" + endings.get(form.name, r"(lgemri|laendo)\.nrrd"))
        test = {id for (id, _), path in files.items() if path.parent.parent.name.startswith("Test")}
        lists = load_splits(self.name, "uamt")
        known = {*lists.train, *lists.val, *lists.test}
        self.strangers += {id for id, _ in files} - known - test
        if test - known:
            self.notes.append(
                f"left out the challenge's test set ({counted(len(test - known), 'case')}): it is not used"
            )
        cases = []
        for id in sorted({id for id, _ in files} & known):
            both = files.get((id, ""))
            image, label = paired(
                both or files.get((id, "lgemri")),
                both or files.get((id, "laendo")),
                lambda image: image.with_name(image.name.replace("lgemri", "laendo")),
                lambda label: label.with_name(label.name.replace("laendo", "lgemri")),
            )
            cases.append(RawCase(id, id, image, label, form))
        return cases

    @classmethod
    def class_ids(cls, values: NDArray[Any]) -> NDArray[Any]:
        """The official 255 is the atrium; so is 1, in a file that has no 255."""
        atrium = values == _FOREGROUND
        if not atrium.any() or (values == 1).any():
            return values
        values = values.copy()
        values[atrium] = 1
        return values
