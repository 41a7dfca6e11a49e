"""ACDC: short-axis cine MRI of 100 patients, two annotated frames each (Bernard et al., IEEE TMI 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from sslbench.data.base import ClassInfo, Dataset, Form, Preprocessing, RawCase, index_files
from sslbench.registry import register

_FILE = r"patient(\d{3})_frame(\d+)(_gt)?\.nii(?:\.gz)?"
_PATIENTS = 100  # 101 to 150 were released later, as a test set; no table of this field uses them


@register("dataset", "acdc")
class ACDC(Dataset):
    """A case is a frame, named as its file is (`patient001_frame01`); a group is a patient."""

    name = "acdc"
    title = "ACDC (Automated Cardiac Diagnosis Challenge)"
    modality = "mri"
    classes = (
        ClassInfo("right ventricle", "rv"),
        ClassInfo("myocardium", "myo"),
        ClassInfo("left ventricle", "lv"),
    )
    preprocessings: ClassVar[Mapping[str, Preprocessing]] = {
        "ssl4mis": Preprocessing(
            axes="zyx",
            scale="minmax",
            description="As SSL4MIS: slices as stored, each volume scaled to [0, 1] by its extremes.",
        ),
        "native": Preprocessing(
            axes="zyx",
            scale="zscore",
            description="Slices as stored, each volume's z-score; not the published protocol.",
        ),
    }
    forms = (Form("official", "ACDC's frames (patient001_frame01.nii.gz, ...)"),)
    default_grid = "acdc-short"
    official_cases = 200
    source_hint = "download the ACDC training set from humanheart-project.creatis.insa-lyon.fr, then --source FOLDER"

    def cases_of(self, form: Form, source: Path) -> list[RawCase]:
        """The annotated frames of patients 1 to 100.

        `source` is the official root (with `training/` or `database/training/`) or the folder of the
        patients; files may be gzipped or not, and lie at any depth.
        """
        training = (source / "database" / "training", source / "training", source)
        root = next(folder for folder in training if folder.is_dir())
        files = index_files(root, _FILE)
        frames = sorted({(patient, frame) for patient, frame, _ in files})
        cases, others = [], set()
        for patient, frame in frames:
            if not 1 <= int(patient) <= _PATIENTS:
                others.add(patient)
                continue
            image, label = (files.get((patient, frame, suffix)) for suffix in ("", "_gt"))
            if label is None and image is not None:
                label = image.with_name(image.name.replace(".nii", "_gt.nii", 1))
            if image is None and label is not None:
                image = label.with_name(label.name.replace("_gt.nii", ".nii", 1))
            assert image is not None and label is not None
            cases.append(RawCase(f"patient{patient}_frame{frame}", f"patient{patient}", image, label, form))
        if others:
            self.notes.append(f"left out {len(others)} patients after number {_PATIENTS}: ACDC's test set is not used")
        return cases
