"""Synapse (BTCV): 30 abdominal CT scans with 13 organs (Landman et al., 2015), and its phantom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from sslbench.data.base import ClassInfo, Dataset, Form, Preprocessing, RawCase, index_files
from sslbench.data.phantom import CASE_IDS, PhantomOptions, write_official_layout
from sslbench.registry import register

_IDS = tuple(f"{number:04d}" for number in (*range(1, 11), *range(21, 41)))
_LAYOUTS = (
    ("RawData/Training/img", "RawData/Training/label"),
    ("Abdomen/RawData/Training/img", "Abdomen/RawData/Training/label"),
    ("Training/img", "Training/label"),
    ("img", "label"),
    ("imagesTr", "labelsTr"),
)

GA = Preprocessing(
    axes="xyz",
    orientation="RAS",
    spacing_mm=(1.5, 1.5, 2.0),
    clip=(-125.0, 275.0),
    scale="clip",
    description="After MagicNet and GA, re-implemented from the papers as their own is unpublished, so not "
    "bit-identical: RAS, 1.5 x 1.5 x 2.0 mm, HU -125 to 275 to [0, 1].",
)
NATIVE = Preprocessing(
    axes="xyz",
    orientation="RAS",
    clip=(-125.0, 275.0),
    scale="clip",
    description="As `ga`, at the scan's own resolution.",
)
DHC_2023 = Preprocessing(
    axes="zyx",
    resize_to=(160, 160, 80),
    clip=(-75.0, 275.0),
    scale="minmax",
    description="As DHC's lists and code of October 2023, GenericSSL and SKCDF: raw HU resized to 80 x 160 x 160 "
    "(z, y, x), as the file lies, then HU -75 to 275, scaled by the extremes of what is left.",
)
_DHC_2024 = replace(
    DHC_2023,
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
        "ga": GA,
        "dhc-2023": DHC_2023,
        "dhc-2024": _DHC_2024,
        "native": NATIVE,
    }
    forms = (Form("official", "BTCV's scans (img/img0001.nii.gz with label/label0001.nii.gz, ...)"),)
    default_grid = "ga-t1"
    official_cases = len(_IDS)
    source_hint = "download RawData.zip (Abdomen) from synapse.org, project syn3193805, unzip it, then --source FOLDER"

    def cases_of(self, form: Form, source: Path) -> list[RawCase]:
        """The scans of BTCV's training set: `RawData/Training/{img,label}` or `{imagesTr,labelsTr}`."""
        for images, labels in _LAYOUTS:
            image_folder, label_folder = source / images, source / labels
            if image_folder.is_dir() and label_folder.is_dir():
                break
        else:
            return []
        image_files = index_files(image_folder, r"img(\d{4})\.nii(?:\.gz)?")
        label_files = index_files(label_folder, r"label(\d{4})\.nii(?:\.gz)?")
        found = sorted({key[0] for key in (*image_files, *label_files)})
        self.strangers += [case for case in found if case not in _IDS]
        return [
            RawCase(
                case,
                case,
                image_files.get((case,), image_folder / f"img{case}.nii.gz"),
                label_files.get((case,), label_folder / f"label{case}.nii.gz"),
                form,
            )
            for case in found
            if case in _IDS
        ]


@register("dataset", "phantom")
class Phantom(Synapse):
    """A computed stand-in for Synapse with its ids, labels and splits. Not medical data."""

    name = "phantom"
    title = "Phantom (synthetic abdominal CT in the Synapse layout)"
    preprocessings: ClassVar[Mapping[str, Preprocessing]] = {"native": NATIVE, "ga": GA}
    splits_from = "synapse"
    default_grid = "quick"
    source_hint = "it is computed; no source is needed"
    generated_ids = CASE_IDS
    Options = PhantomOptions

    def generate(self, folder: Path, case_id: str) -> None:
        assert isinstance(self.options, PhantomOptions)
        write_official_layout(folder, self.options, [case_id])
