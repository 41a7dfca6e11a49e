"""The endings by which images are known, and file names without them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
ENDINGS = (*VOLUME_ENDINGS, ".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")


def without_ending(name: str) -> str:
    """A file's name without the ending of an image; any other name as it is."""
    return name[: len(name) - len(ending_of(Path(name), (*ENDINGS, ".h5", ".npy")))]


def ending_of(path: Path, endings: Sequence[str] = ENDINGS) -> str:
    """Return which of some endings a file's name has, in small letters; empty where it has none of them."""
    return next((ending for ending in endings if path.name.lower().endswith(ending)), "")
