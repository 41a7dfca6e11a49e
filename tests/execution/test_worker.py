"""What a worker hands to training and to predictors, and the numbers it writes, from outside of the package: nibabel
and numpy on the raw scans."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from sslbench.config.splits import load_splits
from sslbench.core import registry
from sslbench.core.step import Batch, Step
from sslbench.data.store import OnDemand, Partition, Store, partition
from sslbench.execution.worker import prepare_experiment, run_job
from sslbench.methods.base import Method
from sslbench.runs.directory import Run
from sslbench.training.trainer import Interrupted
from tests.helpers.jobs import tiny_job

LIVER = 6  # of the organs of Synapse
GA_20PCT = ("0002", "0023", "0034", "0039")
GA_TEST = ("0004", "0007", "0010", "0033", "0035", "0036")


# ---------------------------------------------------------------------------------------------- what training is handed


def marked_store(parts: Partition) -> tuple[Any, dict[str, int]]:
    """A store whose images and labels hold nothing but the number of their case, and these numbers."""
    numbers = {case: n for n, case in enumerate((*parts.labeled, *parts.unlabeled, *parts.validation), 1)}

    def image(case: str) -> np.ndarray:
        return np.full((1, 18, 20, 24), numbers[case], np.float32)

    def label(case: str) -> np.ndarray:
        assert case not in parts.unlabeled
        return np.full((18, 20, 24), numbers[case], np.uint8)

    return SimpleNamespace(
        verify=lambda case: None,
        image=image,
        label=label,
        images=lambda cases: OnDemand(len(cases), lambda place: image(cases[place])),
        labels=lambda cases: OnDemand(len(cases), lambda place: label(cases[place])),
        cases={case: SimpleNamespace(class_voxels=(0,) * 13 + (n,)) for case, n in numbers.items()},
        dataset=SimpleNamespace(classes=[SimpleNamespace(short=str(number)) for number in range(1, 14)]),
    ), numbers


def test_image_and_label_of_training_and_validation_are_of_one_case() -> None:
    parts = Partition(labeled=("d", "a", "c"), unlabeled=("x", "b"), validation=("z", "e"), test=("t",))
    store, numbers = marked_store(parts)
    experiment = prepare_experiment(tiny_job("cps").resolved, store, parts, torch.device("cpu"))
    wholes = list(experiment.sampler.sweep())
    assert [float(whole.image["raw"].max()) for whole in wholes] == [1, 2, 3, 4, 5]
    assert [int(whole.label["raw"].max()) for whole in wholes] == [1, 2, 3, -1, -1]
    seen: set[int] = set()
    for iteration in range(4):
        batch = experiment.sampler.batch(iteration)
        for image, label in zip(batch.image["weak"][:2], batch.label["weak"][:2], strict=True):
            assert image.unique().tolist() == label.unique().tolist()
            seen.add(int(label.max()))
    assert seen == {1, 2, 3}
    assert [(case.id, case.image.max(), case.label.max()) for case in experiment.validation] == [
        (case, numbers[case], numbers[case]) for case in ("z", "e")
    ]
    assert experiment.method.statistics.class_counts[:, 13].tolist() == [1, 2, 3]


def test_labelled_cases_are_the_published_ones_in_the_order_of_their_list(phantom_data: Path) -> None:
    store, splits = Store.open(phantom_data, "phantom", "native"), load_splits("phantom", "ga")
    parts = partition(store, splits, "20%")
    assert (parts.labeled, parts.test) == (GA_20PCT, GA_TEST)
    assert parts.unlabeled == tuple(case for case in splits.train if case not in GA_20PCT)

    class Backwards:
        def __getattr__(self, name: str) -> Any:
            return getattr(splits, name)

        def budget(self, name: str) -> Any:
            return replace(splits.budget(name), labeled=tuple(reversed(GA_20PCT)))

    assert partition(store, Backwards(), "20%").labeled == tuple(reversed(GA_20PCT))  # type: ignore[arg-type]


# -------------------------------------------------------------------------------------------------- what is predicted


class Bright(Method):
    """Two predictors that nothing trains: a says background everywhere, b liver where an image is above its mean."""

    title = "Bright"
    predictors = ("a", "b")
    calls: list[tuple[str | None, bool, bool, tuple[int, ...]]] = []

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.net = nn.Conv3d(1, 1, 1)

    def training_step(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        return {"loss": self.net(batch.image["weak"]).square().mean()}

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        self.calls.append((key, self.training, torch.is_grad_enabled(), tuple(x.shape)))
        bright = (x[:, 0] > x.new_tensor(0.4)) & torch.tensor(key == "b")
        return nn.functional.one_hot(LIVER * bright.long(), 14).movedim(-1, 1).float()


@pytest.fixture
def bright(throw_away: Callable[..., Any]) -> Callable[[Path, Path], Path]:
    throw_away("method", "bright")(Bright)
    Bright.calls.clear()
    settings = {"inference.networks": "best_val", "inference.stride": [4, 4, 4], "inference.batch": 1}
    job = tiny_job("bright", set=settings)
    return lambda data, results: run_job(job, data, results, device="cpu", threads=1)


def test_validation_and_test_ask_the_right_predictor_in_evaluation_mode_at_their_own_strides(
    bright: Callable[[Path, Path], Path], phantom_data: Path, tmp_path: Path
) -> None:
    bright(phantom_data, tmp_path)
    # Patches of 16³ in volumes of 18 x 20 x 24: at steps of 16 two windows per axis, of 4 two, two and three. Four
    # scans are validated after 3 and 6 iterations by either predictor, six are tested by the better one.
    validation = [key for _ in range(2) for key in "ab" for _ in range(4 * 8)]
    assert [key for key, *_ in Bright.calls] == validation + ["b"] * (6 * 12)
    assert {call[1:] for call in Bright.calls} == {(False, False, (1, 1, 16, 16, 16))}


def test_the_numbers_of_a_run_are_those_of_its_label_maps_on_the_raw_scans(
    bright: Callable[[Path, Path], Path], phantom_data: Path, tmp_path: Path
) -> None:
    folder = bright(phantom_data, tmp_path)
    raw = phantom_data / "phantom/raw/RawData/Training"
    cases = pd.read_csv(folder / "cases.csv", dtype={"case": str})
    assert tuple(sorted(cases["case"].unique())) == GA_TEST
    found = cases[(cases["metric"] == "dsc") & (cases["class_id"] == LIVER)].set_index("case")["value"]
    for case in GA_TEST:
        image, label, predicted = (
            np.asanyarray(nib.load(path).dataobj)
            for path in (
                raw / "img" / f"img{case}.nii.gz",
                raw / "label" / f"label{case}.nii.gz",
                folder / "predictions" / f"{case}.nii.gz",
            )
        )
        liver = predicted == LIVER
        assert liver.any() and (liver | (predicted == 0)).all()
        assert image[liver].min() >= image[~liver].max()
        both = 2 * (liver & (label == LIVER)).sum() / (liver.sum() + (label == LIVER).sum())
        assert 0.05 < both < 1
        assert found[case] == pytest.approx(both, abs=1e-6)


def test_a_run_records_what_figures_and_reviewers_ask_for(
    throw_away: Callable[..., Any], phantom_data: Path, tmp_path: Path
) -> None:
    throw_away("method", "bright")(Bright)
    native = registry.component("protocol", "native")
    throw_away("protocol", "overlap")(replace(native, name="overlap", metrics=("dsc",)))
    settings = {"inference.networks": "best_val", "protocol": "overlap", "schedule.iterations": 2}
    settings |= {"schedule.validate_every": 1, "checkpoints": ["best-val", "last"]}
    settings |= {"observe": ["regions", "agreement"]}
    job = tiny_job("bright", set=settings)
    folder = run_job(job, phantom_data, tmp_path, device="cpu", threads=1)
    run, entries = Run(folder), [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

    # Validation per class, by the classes' short names; an organ that b never names scores 0.
    (first, _) = (entry["validation"] for entry in entries if "validation" in entry)
    assert set(first) == {"dsc/a", "dsc/a/class", "dsc/b", "dsc/b/class"}
    per_class = [value for value in first["dsc/b/class"].values() if value is not None]
    assert first["dsc/b"] == pytest.approx(np.mean(per_class), abs=2e-6)
    assert first["dsc/b/class"]["li"] > 0 and not any(first["dsc/a/class"].values())

    # Four validation cases, twice; a names nothing, b the liver where an image is bright.
    observed = [entry["observed"] for entry in entries if "observed" in entry]
    assert len(observed) == 8 and len({seen["case"] for seen in observed}) == 4
    for seen in observed:
        assert seen["regions"]["a"]["reference"] == "b" and seen["regions"]["b"]["reference"] == "a"
        apart = 1 - seen["agreement"]["a/b"]["voxels"]
        for key in "ab":
            share = seen["regions"][key]["share"]
            assert share["DC"] + share["DS"] == pytest.approx(apart, abs=3e-6)
        assert seen["agreement"]["a/b"]["dsc/class"]["li"] == 0 and seen["agreement"]["a/b"]["dsc/class"]["sp"] is None

    # Both rules were tested; Bright learns nothing, so that their numbers agree, and the better predictor was taken.
    cases = pd.read_csv(folder / "cases.csv", dtype={"case": str, "group": str})
    assert (cases["group"] == cases["case"]).all()
    assert (folder / "last" / "cases.csv").read_bytes() == (folder / "cases.csv").read_bytes()
    assert (folder / "last" / "predictions" / f"{GA_TEST[0]}.nii.gz").exists()
    assert run.status()["predictor"] == "b"

    # What classes were taken for has the voxels of the records, and the same bytes from both tests.
    pairs = pd.read_csv(folder / "confusion.csv", dtype={"case": str})
    assert (folder / "last" / "confusion.csv").read_bytes() == (folder / "confusion.csv").read_bytes()
    assert (pairs["voxels"] > 0).all() and tuple(sorted(pairs["case"].unique())) == GA_TEST
    masks = cases.set_index(["case", "class"])
    for side, of in (("reference", "ref_voxels"), ("predicted", "pred_voxels")):
        sums = pairs[pairs[side] != "background"].groupby(["case", side])["voxels"].sum()
        known = masks[of][masks[of] > 0].rename_axis(["case", side]).sort_index()
        assert sums.to_dict() == known.to_dict()

    # Seconds and memory in the status alone, hashes in the provenance.
    status = run.status()
    assert status["training_seconds"] > 0 and status["test_seconds"] > 0
    assert status["training_seconds"] + status["test_seconds"] <= status["seconds"] + 0.2
    assert 1e8 < status["peak_memory"]["process"] < 1e11
    tested = json.loads((folder / "provenance.json").read_text())["tested"]
    assert set(tested) == {"best-val", "last"} and tested["last"] == tested["best-val"] == run.own.hashes()


def test_what_a_stopped_attempt_took_is_added_up(
    throw_away: Callable[..., Any], phantom_data: Path, tmp_path: Path
) -> None:
    throw_away("method", "bright")(Bright)
    job = tiny_job("bright", set={"schedule.validate_every": 0, "checkpoint": "last"})
    asked = iter(range(100))
    with pytest.raises(Interrupted):
        run_job(job, phantom_data, tmp_path, device="cpu", threads=1, should_stop=lambda: next(asked) >= 8)
    run = Run.of(job, tmp_path)
    status = run.status()
    assert run.state == "interrupted" and {"training_seconds", "test_seconds"} <= status.keys()  # in the second case
    run.set_status("interrupted", training_seconds=1000.0, test_seconds=500.0, peak_memory={"process": 10**15})
    run_job(job, phantom_data, tmp_path, device="cpu", threads=1)
    status = run.status()
    assert 1000 < status["training_seconds"] < 1100 and 500 < status["test_seconds"] < 600
    assert status["peak_memory"] == {"process": 10**15} and status["attempts"] == 2


def test_a_finished_job_is_not_run_again(
    bright: Callable[[Path, Path], Path], phantom_data: Path, tmp_path: Path
) -> None:
    folder = bright(phantom_data, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.nii.gz")}
    Bright.calls.clear()
    assert bright(phantom_data, tmp_path) == folder
    assert not Bright.calls
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.nii.gz")} == before
    assert json.loads((folder / "status.json").read_text())["attempts"] == 1
