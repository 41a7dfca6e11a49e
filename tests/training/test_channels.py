"""Images of several channels, and tiles of pictures, from the training set to a label map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sslbench.config.job import Job
from sslbench.config.splits import load_splits
from sslbench.conformance.bench import MemoryRecorder
from sslbench.data.datasets.digestpath import DigestPath
from sslbench.data.prepare import prepare
from sslbench.data.store import Store
from sslbench.execution.worker import run_job
from sslbench.inference import slice_inference, sliding_window
from sslbench.inference.predictor import Predictor
from sslbench.training.checkpoint import Checkpoints
from sslbench.training.trainer import Trainer
from tests.helpers.digestpath import write_pictures
from tests.helpers.jobs import random_experiment, tiny_job, tiny_job_2d

SHORT = {"schedule.iterations": 2, "schedule.validate_every": 2}


@pytest.mark.parametrize(
    ("job", "channels"),
    [(tiny_job("mt", set=SHORT), 2), (tiny_job_2d("cps", "ga", set=SHORT), 3), (tiny_job_2d("fixmatch", set=SHORT), 3)],
    ids=["3-D", "2-D", "strong view"],
)
def test_a_job_on_several_channels_trains_validates_and_predicts(job: Job, channels: int, tmp_path: Path) -> None:
    experiment = random_experiment(job, channels=channels)
    assert experiment.sampler.batch(0).image["weak"].shape[1] == channels
    first = next(parameter for parameter in experiment.method.parameters() if parameter.ndim > 1)
    assert first.shape[1] == channels
    records = MemoryRecorder()
    Trainer(experiment, Checkpoints(tmp_path), records).fit()
    assert any("validation" in entry for entry in records.entries)
    case = experiment.validation[0]
    recipe = job.resolved.recipe
    labels = Predictor(experiment.method, None, recipe, experiment.num_classes, experiment.precision).segment(
        case.image
    )
    assert labels.shape == case.label.shape and labels.dtype == torch.uint8


def test_whole_pictures_are_predicted_by_windows_and_not_resized() -> None:
    job = tiny_job_2d(set={"inference.stride": [16, 16], "patch_size": [32, 32]})
    experiment = random_experiment(job, channels=3)
    recipe, net = job.resolved.recipe, experiment.method.net
    predictor = Predictor(experiment.method, None, recipe, experiment.num_classes, experiment.precision)
    image = np.random.default_rng(0).random((3, 2, 50, 41)).astype(np.float32)
    labels = predictor.segment(image)
    net.eval()
    for z in range(2):
        scores = sliding_window(net, torch.from_numpy(image[:, z]), (32, 32), (16, 16), experiment.num_classes)
        assert torch.equal(labels[z], scores.argmax(0).to(torch.uint8))
    resized = slice_inference(net, torch.from_numpy(image), (32, 32))
    assert resized.shape == (2, 50, 41)


def test_tiles_are_what_is_trained_on_and_validated(tmp_path: Path) -> None:
    tiles = {"tiles.stride": [16, 16], "inference.stride": [12, 12], "patch_size": [16, 16]}
    experiment = random_experiment(tiny_job_2d(set=tiles | SHORT), channels=3)
    # Slices of 30 x 36: 2 x 3 tiles in each of the 4 slices of a case.
    assert experiment.sampler.count == {"labeled": 3 * 24, "unlabeled": 4 * 24}
    assert len(experiment.validation) == 2 * 24
    assert {case.image.shape for case in experiment.validation} == {(3, 1, 16, 16)}
    assert {case.label.shape for case in experiment.validation} == {(1, 16, 16)}
    Trainer(experiment, Checkpoints(tmp_path), MemoryRecorder()).fit()


def test_pictures_go_all_the_way_from_files_to_scores(tmp_path: Path) -> None:
    lists = load_splits("digestpath", "slide-disjoint")
    labeled = lists.budget("5%").labeled
    names = [*labeled, *[name for name in lists.train if name not in labeled][:2], lists.val[0], lists.test[0]]
    prepare("digestpath", write_pictures(tmp_path / "source", names), data_dir=tmp_path / "data", workers=1)
    job = Job(
        recipe="metassl-digestpath",
        method="mt",
        labeled="5%",
        seed=0,
        set={
            "splits": "slide-disjoint",
            "patch_size": [16, 16],
            "tiles.stride": [16, 16],
            "inference.stride": [12, 12],
            "batch.labeled": 4,
            "batch.unlabeled": 4,
            "schedule.iterations": 4,
            "schedule.validate_every": 2,
            "precision": "fp32",
        },
    )
    run = run_job(job, tmp_path / "data", tmp_path / "results", device="cpu", threads=1)
    rows = (run / "cases.csv").read_text().splitlines()
    assert rows[0].startswith("protocol,case,") and all(f",{lists.test[0]}," in row for row in rows[1:])
    assert {row.split(",")[4] for row in rows[1:]} == {DigestPath.classes[0].short}
    store = Store.open(tmp_path / "data", "digestpath", "metassl")
    import nibabel as nib

    prediction = nib.load(run / "predictions" / f"{lists.test[0]}.nii.gz")
    reference, spacing = store.reference(lists.test[0])
    assert prediction.shape == reference.shape == (52, 40, 1)
    assert prediction.header.get_zooms() == pytest.approx(spacing)
