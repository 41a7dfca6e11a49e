"""AMOS22: 300 CT and 60 MRI scans of the abdomen with 15 organs (Ji et al., NeurIPS 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from sslbench.config.splits import load_splits
from sslbench.core.registry import register
from sslbench.data.base import ClassInfo, Dataset, Form, Modality, Preprocessing, RawCase, Remote, index_files, paired
from sslbench.data.datasets.synapse import DHC_2023_PREPROCESSING, GA_PREPROCESSING, NATIVE_PREPROCESSING
from sslbench.data.files.arrays import DHC_NPY, npy_cases

_LAST_CT = 500  # scans with a higher number are MRI
_MRI = (0.5, 99.5)  # percentiles that MRI is scaled by, where it is not clipped as CT
_GA_NPY = Form(
    "ga-npy",
    "GA's arrays (amos_<id>_image.npy, raw HU)",
    preprocessings=("ga",),
    done=("turn", "resample"),
    axes="xyz",
)


@register("dataset", "amos")
class AMOS(Dataset):
    """A case is a scan (`0001`), and a group of its own. Published tables clip its 60 MRI scans as if they were CT.

    Deviations: the grid of GA's own arrays is unpublished; `ga` takes that of Synapse.
    """

    name = "amos"
    title = "AMOS (abdominal multi-organ segmentation, 2022)"
    classes = (
        ClassInfo("spleen", "sp"),
        ClassInfo("right kidney", "rk"),
        ClassInfo("left kidney", "lk"),
        ClassInfo("gallbladder", "ga"),
        ClassInfo("esophagus", "es"),
        ClassInfo("liver", "li"),
        ClassInfo("stomach", "st"),
        ClassInfo("aorta", "ao"),
        ClassInfo("inferior vena cava", "ivc"),
        ClassInfo("pancreas", "pa"),
        ClassInfo("right adrenal gland", "rag"),
        ClassInfo("left adrenal gland", "lag"),
        ClassInfo("duodenum", "du"),
        ClassInfo("bladder", "bl"),
        ClassInfo("prostate or uterus", "pu"),
    )
    preprocessings: ClassVar[Mapping[str, Preprocessing]] = {
        "ga": replace(
            GA_PREPROCESSING,
            description="After GA, whose grid is unpublished: that of Synapse (RAS, 1.5 x 1.5 x 2.0 mm), HU -125 to "
            "275 to [0, 1]; MRI is clipped as CT.",
        ),
        "dhc-2023": replace(
            DHC_2023_PREPROCESSING, description=f"{DHC_2023_PREPROCESSING.description} MRI is clipped as CT."
        ),
        "ga-mri": replace(
            GA_PREPROCESSING,
            mri=_MRI,
            description="As `ga`, but MRI is clipped to its own percentiles 0.5 and 99.5; no published number did.",
        ),
        "native": replace(
            NATIVE_PREPROCESSING,
            mri=_MRI,
            description="The scan's own resolution: CT from HU -125 to 275 to [0, 1], MRI from its percentiles 0.5 and "
            "99.5.",
        ),
    }
    forms = (Form("official", "AMOS22's scans (imagesTr/amos_0001.nii.gz, ...)"), DHC_NPY, _GA_NPY)
    default_grid = "ga-t2"
    official_cases = 360
    least_classes = 2
    source_hint = "sslbench prepare amos --download (24 GB), or --source with the folder or archive that you have"
    access = (
        "AMOS22 is open: `sslbench prepare amos --download` fetches it (24 GB).",
        "Or open https://zenodo.org/records/7155725 (again in record 7262581) and download amos22.zip.",
        "Run: sslbench prepare amos --source amos22.zip",
    )
    cite = (
        "Ji et al., AMOS: A Large-Scale Abdominal Multi-Organ Benchmark for Versatile Medical Image "
        "Segmentation, NeurIPS 2022."
    )
    remote = Remote(
        url="https://zenodo.org/records/7155725/files/amos22.zip",
        file="amos22.zip",
        licence="CC BY 4.0",
        hash="sha256:d2fbf2c31abba9824d183f05741ce187b17905b8cca64d1078eabf1ba96775c2",
        bytes=24_200_000_000,
    )

    def cases_of(self, form: Form, source: Path) -> list[RawCase]:
        """The scans of the official training and validation sets, at any depth.

        Official: `amos_0001.nii.gz` in `imagesTr` or `imagesVa`, and again in `labelsTr` or `labelsVa`. Preprocessed:
        `amos_0001_image.npy` with `amos_0001_label.npy`.
        """
        if form.axes is not None:
            cases = npy_cases(form, source, r"(?:amos_)?(\d{4})_(image|label)\.npy")
        else:
            cases = self._scans(form, source)
        lists = load_splits(self.name, "dhc")
        known = {*lists.train, *lists.val, *lists.test}
        self.strangers += [case.id for case in cases if case.id not in known]
        return [case for case in cases if case.id in known]

    def _scans(self, form: Form, source: Path) -> list[RawCase]:
        files = index_files(source, r"(images|labels)(Tr|Va|Ts)/amos_(\d{4})\.nii(?:\.gz)?")
        test = {id for _, part, id in files if part == "Ts"}
        if test:
            self.notes.append(f"left out {len(test)} test scans of AMOS22 (imagesTs), which have no labels")
        cases = []
        for part, id in sorted({(part, id) for _, part, id in files if part != "Ts"}, key=lambda found: found[::-1]):
            image, label = paired(
                files.get(("images", part, id)),
                files.get(("labels", part, id)),
                lambda image: image.parent.with_name(image.parent.name.replace("images", "labels")) / image.name,
                lambda label: label.parent.with_name(label.parent.name.replace("labels", "images")) / label.name,
            )
            cases.append(RawCase(id, id, image, label, form))
        return cases

    @classmethod
    def modality_of(cls, id: str) -> Modality:
        """CT up to number 500, MRI after it."""
        return "mri" if int(id) > _LAST_CT else "ct"
