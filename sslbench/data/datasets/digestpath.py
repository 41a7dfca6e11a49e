"""DigestPath: colonoscopy tissue with pixel-level lesions, H&E, x20 (Da et al., Medical Image Analysis 2022)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sslbench.config.splits import load_splits
from sslbench.config.text import counted
from sslbench.core.registry import register
from sslbench.data.base import ClassInfo, Dataset, Form, Preprocessing, RawCase, index_files, paired

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ENDINGS = r"\.(?:jpg|jpeg|png|tif|tiff)"
# Slide, time of the scan, level, and x, y, width and height of the crop: what the name of an image says.
_SLIDE = re.compile(r"(.+)_\d{4}-\d\d-\d\d \d\d?_\d\d_\d\d-lv\d+-\d+-\d+-\d+-\d+")
_LESION = 128  # a mask is lossy: what is above belongs to the lesion
_GREY = 0.05  # the largest share of pixels between 64 and 192 in what may pass for a mask
_PIXEL_MM = 0.000475  # as published for x20
_AS_STORED = Preprocessing(
    axes="zyx",
    clip=(0.0, 255.0),
    scale="clip",
    channels="together",
    dtype="float16",
    description="As stored, red-green-blue over 255. Half precision keeps each of the 256 levels apart.",
)


@register("dataset", "digestpath")
class DigestPath(Dataset):
    """A case is an image, named as its file is without the ending; a group is the slide that it was cut from.

    MetaSSL speaks of whole slides: these are the challenge's images, crops of slides with both sides below 8000
    pixels. The public lists take 130 of the positive ones.
    """

    name = "digestpath"
    title = "DigestPath (colonoscopy tissue segmentation)"
    modality = "rgb"
    palette_indices = "coloured"
    pixel_mm = _PIXEL_MM
    channels = ("red", "green", "blue")
    classes = (ClassInfo("lesion", "lesion"),)
    preprocessings: ClassVar[Mapping[str, Preprocessing]] = {"metassl": _AS_STORED, "native": _AS_STORED}
    forms = (
        Form(
            "official",
            "DigestPath's positive tissue (tissue-train-pos-v1/<name>.jpg, <name>_mask.jpg)",
            spacing_mm=(_PIXEL_MM, _PIXEL_MM, _PIXEL_MM),
        ),
    )
    default_grid = "metassl-t2"
    official_cases = 130
    source_hint = "the tissue images of the DigestPath 2019 challenge: sslbench show dataset digestpath says where"
    own_data = "sslbench prepare NAME --from-pairs DIR --classes CLASS"
    cite = (
        "Da et al., DigestPath: A benchmark dataset with challenge review for the pathological detection and "
        "segmentation of digestive-system, Medical Image Analysis 80, 2022."
    )
    access = (
        "Open https://digestpath2019.grand-challenge.org, register, and ask for the data of the tissue task.",
        "Download the positive training images: a folder tissue-train-pos-v1 with <name>.jpg and <name>_mask.jpg.",
        "Run: sslbench prepare digestpath --source FOLDER (the one that holds tissue-train-pos-v1)",
    )

    def cases_of(self, form: Form, source: Path) -> list[RawCase]:
        """The images in `tissue-train-pos-v1` with their masks, at any depth, as JPEG, PNG or TIFF.

        `tissue-train-neg` has no lesion and is on no list: it is passed over.
        """
        files = index_files(source, rf"(?i:tissue-train-pos[^/]*/(.+?)(_mask)?{_ENDINGS})")
        negative = index_files(source, rf"(?i:tissue-train-neg[^/]*/(.+){_ENDINGS})")
        if negative:
            self.notes.append(
                f"left out {counted(len(negative), 'case')} without a lesion (tissue-train-neg): no list has them"
            )
        lists = load_splits(self.name, "cdma-leaking")
        known = {*lists.train, *lists.val, *lists.test}
        self.strangers += sorted({name for name, _ in files} - known)
        cases = []
        for name in sorted({name for name, _ in files} & known):
            image, label = paired(
                files.get((name, "")),
                files.get((name, "_mask")),
                lambda image: image.with_name(f"{image.stem}_mask{image.suffix}"),
                lambda label: label.with_name(f"{label.stem.removesuffix('_mask')}{label.suffix}"),
            )
            cases.append(RawCase(name, self.group_of(name), image, label, form))
        return cases

    @classmethod
    def group_of(cls, id: str) -> str:
        """The slide of an image."""
        return slide(id)

    @classmethod
    def class_ids(cls, values: NDArray[Any]) -> NDArray[Any]:
        """0 and 1 as they are; of any other mask, what is above 128 is the lesion. A picture is not a mask: its values
        stay, to be refused."""
        if values.max() <= 1 or ((values > 64) & (values < 192)).mean() > _GREY:
            return values
        return (values > _LESION).astype("uint8")


def slide(name: str) -> str:
    """The slide that an image was cut from, by the image's name; an image whose name does not say is its own."""
    match = _SLIDE.fullmatch(name)
    return match[1] if match else name
