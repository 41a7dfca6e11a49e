"""A dataset: a bright ball in noise, computed; without `generate` it reads such files from a folder."""

import nibabel
import numpy as np

import sslbench
from sslbench.data.base import ClassInfo, Preprocessing, RawCase


class Balls(sslbench.Dataset):
    name, title = "mine", "Balls (computed)"
    classes = (ClassInfo("ball", "ball"),)
    preprocessings = {"zscore": Preprocessing(axes="xyz", scale="zscore")}
    generated_ids = tuple(f"ball{number:02}" for number in range(20))
    official_cases = 20

    def cases_of(self, form, source):
        folders = sorted(path.parent for path in source.glob("*/image.nii.gz"))
        return [RawCase(f.name, f.name, f / "image.nii.gz", f / "label.nii.gz", form) for f in folders]

    def generate(self, folder, case_id):
        random = np.random.default_rng(int(case_id[4:]))
        centre, radius = random.uniform(12, 20, (3, 1, 1, 1)), random.uniform(4, 9)
        label = ((np.indices((32, 32, 32)) - centre) ** 2).sum(0) < radius**2
        image = label + random.normal(size=label.shape)
        (folder / case_id).mkdir(parents=True, exist_ok=True)
        for name, array in {"image": image.astype("float32"), "label": label.astype("uint8")}.items():
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / case_id / f"{name}.nii.gz")
