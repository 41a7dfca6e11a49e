"""Miniature folders of one's own data: nnU-Net raw (both versions), MSD, images with masks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK

from tests.helpers.scans import make_scan

PLAIN = (".png", ".tif", ".jpg")


def write_volume(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """A volume (X, Y, Z) in the format of the file's ending; a plain image holds its first slice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(voxels, affine), path)
        return
    if path.suffix in PLAIN:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels[..., 0].T.astype(np.uint8)), str(path))
        return
    image = SimpleITK.GetImageFromArray(voxels.T)
    itk = affine.copy()
    itk[:2] *= -1  # RAS+ to LPS+
    spacing = np.linalg.norm(itk[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(itk[:3, 3].tolist())
    image.SetDirection((itk[:3, :3] / spacing).ravel().tolist())
    SimpleITK.WriteImage(image, str(path))


def nnunet(
    root: Path,
    cases: Sequence[str] = tuple(f"m{number:02d}" for number in range(1, 10)),
    channels: Sequence[str] = ("CT",),
    ending: str = ".nii.gz",
    classes: Sequence[str] = ("organ", "tumour"),
    tests: Sequence[str] = (),
    version: int = 2,
    **scan: Any,
) -> Path:
    """nnU-Net's raw format; version 1 has `modality`, labels by number and a list of files."""
    for part, ids in (("Tr", cases), ("Ts", tests)):
        for number, id in enumerate(ids):
            for channel in range(len(channels)):
                image, label, affine = make_scan(number * 10 + (part == "Ts") * 1000, classes=len(classes) + 1, **scan)
                image = np.roll(image, channel) + 100 * channel
                write_volume(root / f"images{part}" / f"{id}_{channel:04d}{ending}", image, affine)
            write_volume(root / f"labels{part}" / f"{id}{ending}", label, affine)
    if version == 2:
        about: dict[str, Any] = {
            "channel_names": {str(number): name for number, name in enumerate(channels)},
            "labels": {"background": 0} | {name: number for number, name in enumerate(classes, 1)},
            "numTraining": len(cases),
            "file_ending": ending,
        }
    else:
        about = {
            "modality": {str(number): name for number, name in enumerate(channels)},
            "labels": {str(number): name for number, name in enumerate(("background", *classes))},
            "numTraining": len(cases),
            "training": [{"image": f"./imagesTr/{id}.nii.gz", "label": f"./labelsTr/{id}.nii.gz"} for id in cases],
            "test": [],
        }
    describe(root, **about)
    return root


def describe(root: Path, **about: Any) -> None:
    """Write `dataset.json`, or change fields of it; None takes one away."""
    path = root / "dataset.json"
    content = json.loads(path.read_text()) if path.exists() else {}
    content |= about
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def msd(root: Path, cases: int = 6, channels: Sequence[str] = ("T2", "ADC"), **scan: Any) -> Path:
    """An MSD folder: channels along the last axis of a file, a list of pairs, test images without labels."""
    listed = []
    for number in range(1, cases + 1):
        image, label, affine = make_scan(number, classes=3, **scan)
        stacked = np.stack([image + 50 * channel for channel in range(len(channels))], axis=-1)
        id = f"prostate_{number:02d}"
        write_volume(root / "imagesTr" / f"{id}.nii.gz", stacked if len(channels) > 1 else image, affine)
        write_volume(root / "labelsTr" / f"{id}.nii.gz", label, affine)
        (root / "imagesTr" / f"._{id}.nii.gz").write_bytes(b"Mac OS X")
        listed.append({"image": f"./imagesTr/{id}.nii.gz", "label": f"./labelsTr/{id}.nii.gz"})
    describe(
        root,
        name="Prostate",
        modality={str(number): name for number, name in enumerate(channels)},
        labels={"0": "background", "1": "PZ", "2": "TZ"},
        numTraining=cases,
        training=listed,
        test=["./imagesTs/prostate_90.nii.gz"],
    )
    return root


def pairs(root: Path, names: Sequence[str], size: tuple[int, int] = (40, 24), lossy: bool = True) -> Path:
    """Colour images `NAME.jpg` or `NAME.png` with masks `NAME_mask.*` in black and white, wider than high."""
    rng = np.random.default_rng(0)
    ending = ".jpg" if lossy else ".png"
    root.mkdir(parents=True, exist_ok=True)
    for name in names:
        mask = np.zeros(size[::-1], np.uint8)
        top, left = rng.integers(2, size[1] // 2), rng.integers(2, size[0] // 2)
        mask[top : top + 8, left : left + 12] = 255
        colours = rng.integers(0, 200, (*mask.shape, 3)).astype(np.uint8) + mask[..., None] // 5
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(colours, isVector=True), str(root / f"{name}{ending}"))
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(mask), str(root / f"{name}_mask{ending}"))
    return root
