"""Predictions as other software leaves them, on a phantom of which few cases were generated."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from sslbench.config.job import Job
from sslbench.data import export
from sslbench.data.store import Partition, Store, case_files
from sslbench.evaluation import importing


def write_foreign(data: Path, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """A label map for each test case (from here on: all but one): its reference without the last class."""
    recipe = Job(recipe="phantom", method="supervised", labeled="20%").resolved.recipe
    store = Store.open(data, "phantom", recipe.preprocessing)
    held = Partition(tuple(store.cases)[:1], (), (), tuple(store.cases)[1:])
    for module in (export, importing):
        patch.setattr(module, "partition", lambda *given: held)
    folder.mkdir()
    for case in held.test:
        image = nib.load(case_files(store.folder, case)["reference"])
        labels = np.asarray(image.dataobj).astype(np.uint8)
        labels[labels == len(store.dataset.classes)] = 0
        nib.save(nib.Nifti1Image(labels, image.affine), folder / f"{case}.nii.gz")
