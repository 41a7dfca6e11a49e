"""The preprocessings that recipes name: what the sheets say of them, and hashes that must not move."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from sslbench.core import registry
from sslbench.data.base import RawCase
from sslbench.data.preprocess import load_case, preprocess, restore
from tests.helpers.scans import make_scan, write_pair

# Caches that users have were made under these: a change here makes every one of them invalid.
HASHES = {
    ("synapse", "ga"): "d52d34d89fbc0618",
    ("synapse", "native"): "6fda4f43da010dad",
    ("phantom", "ga"): "d52d34d89fbc0618",
    ("phantom", "native"): "6fda4f43da010dad",
    ("acdc", "ssl4mis"): "32f6ed6d62e28eec",
    ("la", "uamt-labelcrop"): "ee1d8775a5134101",
    ("la", "native"): "d11a4f32e858d9dd",
}


@pytest.mark.parametrize(("dataset", "name"), HASHES)
def test_a_named_preprocessing_keeps_its_hash(dataset, name):
    assert registry.component("dataset", dataset).preprocessing_hash(name) == HASHES[dataset, name]


@pytest.mark.parametrize("dataset", registry.names("dataset"))
def test_every_dataset_can_be_prepared_on_its_own_grid_without_any_label(dataset):
    native = registry.component("dataset", dataset).preprocessings["native"]
    assert (native.spacing_mm, native.resize_to, native.resize_by, native.crop) == (None,) * 4


@pytest.mark.parametrize("dataset", registry.names("dataset"))
def test_a_preprocessing_that_uses_the_reference_says_so_in_its_name(dataset):
    for name, prep in registry.component("dataset", dataset).preprocessings.items():
        assert (prep.crop is not None) == name.endswith("-labelcrop")


@pytest.fixture
def synapse_case(tmp_path):
    raw = RawCase("0001", "0001", tmp_path / "img0001.nii.gz", tmp_path / "label0001.nii.gz")
    write_pair(raw.image, raw.label, make_scan(3, shape=(46, 38, 21), codes="LAS", classes=14))
    return raw


def dhc(raw, size):
    """The published steps in torch: raw HU resized, then clipped, then scaled by the extremes of what is left."""
    image, label = (np.asarray(nib.load(path).dataobj).T.astype(np.float32) for path in (raw.image, raw.label))
    image, label = (torch.from_numpy(array)[None, None] for array in (image, label))
    image = interpolate(image, size, mode="trilinear", align_corners=False)[0, 0].clip(-75, 275)
    return (image - image.min()) / (image.max() - image.min()), interpolate(label, size, mode="nearest")[0, 0]


@pytest.mark.parametrize(("name", "size"), [("dhc-2023", (80, 160, 160)), ("dhc-2024", (21, 19, 23))])
def test_dhc_is_what_torch_makes_of_it(name, size, synapse_case):
    synapse = registry.component("dataset", "synapse")
    made = preprocess(load_case(synapse_case, synapse), synapse.preprocessings[name])
    image, label = dhc(synapse_case, size)
    assert made.image.shape == made.label.shape == size
    assert np.abs(made.image - image.numpy()).max() < 1e-5
    assert np.array_equal(made.label, label.numpy())
    back = restore(made.label, made.geometry)
    assert np.array_equal(back.affine, nib.load(synapse_case.label).affine)


def test_ga_is_what_the_papers_say(synapse_case):
    synapse = registry.component("dataset", "synapse")
    made = preprocess(load_case(synapse_case, synapse), synapse.preprocessings["ga"])
    assert made.spacing_mm == (1.5, 1.5, 2.0)
    assert made.geometry["axes"] == "xyz"
    assert (made.image.min(), made.image.max()) == (0, 1)


def test_amos_clips_mri_as_ct_except_where_its_name_says_otherwise():
    amos = registry.component("dataset", "amos")
    assert {name: prep.mri for name, prep in amos.preprocessings.items()} == {
        "ga": None,
        "dhc-2023": None,
        "ga-mri": (0.5, 99.5),
        "native": (0.5, 99.5),
    }
    assert amos.preprocessing_hash("ga") == registry.component("dataset", "synapse").preprocessing_hash("ga")
    assert [amos.modality_of(id) for id in ("0001", "0500", "0507")] == ["ct", "ct", "mri"]
