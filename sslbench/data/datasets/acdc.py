"""ACDC: short-axis cine MRI of 100 patients, two annotated frames each (Bernard et al., IEEE TMI 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from sslbench.core.registry import register
from sslbench.data.base import ClassInfo, Dataset, Form, Preprocessing, RawCase, Remote, index_files, paired

_PATIENTS = 100  # 101 to 150 were released later, as a test set; no table of this field uses them
_H5 = Form(
    "ssl4mis-h5",
    "SSL4MIS' arrays (patient001_frame01.h5, patient001_frame01_slice_0.h5, ...)",
    preprocessings=("ssl4mis",),
    done=("scale",),
    axes="zyx",
)


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
    forms = (Form("official", "ACDC's frames (patient001_frame01.nii.gz, ...)"), _H5)
    least_classes = 2
    default_grid = "acdc-short"
    official_cases = 200
    source_hint = "sslbench prepare acdc --download, or --source with the folder or archive that you have"
    access = (
        "ACDC is open, for non-commercial use: `sslbench prepare acdc --download` fetches it.",
        "Or open https://humanheart-project.creatis.insa-lyon.fr/database/#collection/637218c173e9f0047faa00fb and "
        "download the folder ACDC/database; its file MANDATORY_CITATION.md says what to cite.",
        "Run: sslbench prepare acdc --source FILE.zip",
    )
    cite = (
        "Bernard et al., Deep Learning Techniques for Automatic MRI Cardiac Multi-structures Segmentation and "
        "Diagnosis: Is the Problem Solved?, IEEE Transactions on Medical Imaging 37(11), 2018."
    )
    # The server packs the folder anew for everybody, so that there is no checksum.
    remote = Remote(
        url="https://humanheart-project.creatis.insa-lyon.fr/database/api/v1/folder/637218e573e9f0047faa00fc/download",
        file="acdc.zip",
        licence="CC BY-NC-SA 4.0",
        bytes=2_500_000_000,
    )

    def cases_of(self, form: Form, source: Path) -> list[RawCase]:
        """The annotated frames of patients 1 to 100, at any depth.

        Official: `patient001_frame01.nii.gz` with `patient001_frame01_gt.nii.gz`, gzipped or not. A case's `info` has
        the `phase` (`ED` or `ES`) and the patient's `group` where an `Info.cfg` lies beside it.

        SSL4MIS: `patient001_frame01.h5`, a volume, or where there is none its slices `patient001_frame01_slice_0.h5`
        and so on. Its frames 01 and 02 are the official ones in ascending order; split lists name patients, so that
        either numbering serves.
        """
        cases = self._volumes(form, source) if form is _H5 else self._frames(form, source)
        others = {case.group for case in cases if not 1 <= int(case.group[-3:]) <= _PATIENTS}
        if others:
            self.notes.append(
                f"left out {len(others)} patient{'s' if len(others) > 1 else ''} after number {_PATIENTS}: "
                "ACDC's test set is not used"
            )
        return [case for case in cases if case.group not in others]

    @classmethod
    def group_of(cls, id: str) -> str:
        """The patient of a frame."""
        return id.partition("_")[0]

    def _frames(self, form: Form, source: Path) -> list[RawCase]:
        files = index_files(source, r"patient(\d{3})_frame(\d+)(_gt)?\.nii(?:\.gz)?")
        cases = []
        for patient, frame in sorted({(patient, frame) for patient, frame, _ in files}):
            image, label = paired(
                files.get((patient, frame, "")),
                files.get((patient, frame, "_gt")),
                lambda image: image.with_name(image.name.replace(".nii", "_gt.nii", 1)),
                lambda label: label.with_name(label.name.replace("_gt.nii", ".nii", 1)),
            )
            info = _info(image.with_name("Info.cfg"), int(frame))
            if info and "phase" not in info:
                self.notes.append(f"frame {frame} of patient{patient} is neither ED nor ES in its Info.cfg")
            id = f"patient{patient}_frame{frame}"
            cases.append(RawCase(id, self.group_of(id), image, label, form, info=info))
        return cases

    def _volumes(self, form: Form, source: Path) -> list[RawCase]:
        files = index_files(source, r"patient(\d{3})_frame(\d+)(?:_slice_(\d+))?\.h5")
        cases = []
        for patient, frame in sorted({(patient, frame) for patient, frame, _ in files}):
            id = f"patient{patient}_frame{frame}"
            group = self.group_of(id)
            volume = files.get((patient, frame, ""))
            if volume is not None:
                cases.append(RawCase(id, group, volume, volume, form))
                continue
            slices = {int(k): path for (p, f, k), path in files.items() if (p, f) == (patient, frame)}
            # From 0, or from 1 in some copies; a number that is missing in between fails by its name.
            paths = tuple(
                slices.get(k) or next(iter(slices.values())).with_name(f"{id}_slice_{k}.h5")
                for k in range(min(min(slices), 1), max(slices) + 1)
            )
            cases.append(RawCase(id, group, paths[0], paths[0], form, paths))
        return cases


def _info(path: Path, frame: int) -> dict[str, str]:
    """What a patient's `Info.cfg` says about a frame: its phase, which no order shows, and the patient's group."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    said = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    info = {"group": said["Group"]} if "Group" in said else {}
    phase = next((phase for phase in ("ED", "ES") if said.get(phase) == str(frame)), None)
    return info | {"phase": phase} if phase else info
