"""Synapse (BTCV): 30 abdominal CT scans with 13 organs (Landman et al., 2015), and its phantom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from sslbench.core.registry import register
from sslbench.data.base import ClassInfo, Dataset, Form, Preprocessing, RawCase, index_files, paired
from sslbench.data.files.arrays import DHC_NPY, npy_cases

_IDS = tuple(f"{number:04d}" for number in (*range(1, 11), *range(21, 41)))

_TEST = range(61, 81)  # BTCV's test scans, published without labels

_NATIVE_NPY = Form(
    "dhc-native-npy",
    "DHC's arrays of January 2024 (<id>_image.npy, raw HU, all voxels)",
    preprocessings=("dhc-2024", "dhc-2023"),
    axes="zyx",
)

_MAGICNET_H5 = Form(
    "magicnet-h5",
    "MagicNet's and GA's arrays (<id>.h5)",
    preprocessings=("ga",),
    done=("turn", "resample", "clip", "scale"),
    axes="xyz",
    spacing_mm=(1.5, 1.5, 2.0),
)

GA_PREPROCESSING = Preprocessing(
    axes="xyz",
    orientation="RAS",
    spacing_mm=(1.5, 1.5, 2.0),
    clip=(-125.0, 275.0),
    scale="clip",
    description="After MagicNet and GA, re-implemented from the papers as their own is unpublished, so not "
    "bit-identical: RAS, 1.5 x 1.5 x 2.0 mm, HU -125 to 275 to [0, 1].",
)

NATIVE_PREPROCESSING = Preprocessing(
    axes="xyz",
    orientation="RAS",
    clip=(-125.0, 275.0),
    scale="clip",
    description="As `ga`, at the scan's own resolution.",
)

DHC_2023_PREPROCESSING = Preprocessing(
    axes="zyx",
    resize_to=(160, 160, 80),
    clip=(-75.0, 275.0),
    scale="minmax",
    description="As DHC's lists and code of October 2023, GenericSSL and SKCDF: raw HU resized to 80 x 160 x 160 "
    "(z, y, x), as the file lies, then HU -75 to 275, scaled by the extremes of what is left.",
)

_DHC_2024 = replace(
    DHC_2023_PREPROCESSING,
    resize_to=None,
    resize_by=(0.5, 0.5, 1.0),
    description="As DHC's code of January 2024: all slices, each half as wide and high; otherwise as `dhc-2023`.",
)


@register("dataset", "synapse")
class Synapse(Dataset):
    """A case is a scan (`0001`), and a group of its own."""

    name = "synapse"
    title = "Synapse (BTCV, multi-atlas labeling beyond the cranial vault)"
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
        ClassInfo("portal and splenic veins", "psv"),
        ClassInfo("pancreas", "pa"),
        ClassInfo("right adrenal gland", "rag"),
        ClassInfo("left adrenal gland", "lag"),
    )
    preprocessings: ClassVar[Mapping[str, Preprocessing]] = {
        "ga": GA_PREPROCESSING,
        "dhc-2023": DHC_2023_PREPROCESSING,
        "dhc-2024": _DHC_2024,
        "native": NATIVE_PREPROCESSING,
    }
    forms: ClassVar[tuple[Form, ...]] = (
        Form("official", "BTCV's scans (img0001.nii.gz with label0001.nii.gz, ...)"),
        DHC_NPY,
        _NATIVE_NPY,
        _MAGICNET_H5,
    )
    least_classes = 2
    default_grid = "ga-t1"
    official_cases = len(_IDS)
    source_hint = "RawData.zip (Abdomen) of synapse.org, project syn3193805: sslbench show dataset synapse says how"
    access: ClassVar[tuple[str, ...]] = (
        "Make an account at https://www.synapse.org and have it certified or validated where it asks for that.",
        "Open https://www.synapse.org/#!Synapse:syn3193805 (Multi-Atlas Labeling Beyond the Cranial Vault), join the "
        "challenge and accept its conditions.",
        "Under Files, Abdomen, download RawData.zip (syn3379050).",
        "Run: sslbench prepare synapse --source RawData.zip",
        "Instead of the last two: `pip install synapseclient`, set SYNAPSE_AUTH_TOKEN to a personal access token (view "
        "and download), and run: sslbench prepare synapse --download",
    )
    cite = (
        "Landman et al., MICCAI Multi-Atlas Labeling Beyond the Cranial Vault: Workshop and Challenge, 2015, "
        "https://www.synapse.org/#!Synapse:syn3193805"
    )
    synapse_id: ClassVar[str | None] = "syn3379050"

    def cases_of(self, form: Form, source: Path) -> list[RawCase]:
        """The scans of BTCV's training set, at any depth.

        Official: `img0001.nii.gz` in `RawData/Training/img`, `img` or `imagesTr`, and `label0001.nii.gz` beside it in
        `label` or `labelsTr`. Preprocessed: `0001_image.npy` with `0001_label.npy`, and `0001.h5` or
        `case0001.npy.h5`.
        """
        if form is _MAGICNET_H5:
            files = index_files(source, r"(?:case|img)?(\d{4})(?:\.npy)?\.h5")
            cases = [RawCase(id, id, path, path, form) for (id,), path in sorted(files.items())]
        elif form.axes is not None:
            cases = npy_cases(form, source, r"(\d{4})_(image|label)\.npy")
        else:
            cases = self._scans(form, source)
        self.strangers += [case.id for case in cases if case.id not in _IDS]
        return [case for case in cases if case.id in _IDS]

    def _scans(self, form: Form, source: Path) -> list[RawCase]:
        images = index_files(source, r"img(\d{4})\.nii(?:\.gz)?")
        labels = index_files(source, r"label(\d{4})\.nii(?:\.gz)?")
        test = [key for key in images if int(key[0]) in _TEST and key not in labels]
        if test:
            self.notes.append(f"left out {len(test)} test scans of BTCV, which have no labels")
        cases = []
        for key in sorted({*images, *labels} - {*test}):
            image, label = paired(images.get(key), labels.get(key), _label_of, _image_of)
            cases.append(RawCase(key[0], key[0], image, label, form))
        return cases


def _label_of(image: Path) -> Path:
    folder = "labelsTr" if image.parent.name == "imagesTr" else "label"
    return image.parent.with_name(folder) / image.name.replace("img", "label")


def _image_of(label: Path) -> Path:
    folder = "imagesTr" if label.parent.name == "labelsTr" else "img"
    return label.parent.with_name(folder) / label.name.replace("label", "img")
