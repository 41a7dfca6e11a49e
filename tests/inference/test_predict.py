"""A trained run on scans: the very label maps that it was tested with, without its data."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

from sslbench.core.errors import SSLBenchError, UsageError
from sslbench.data.base import LabelCrop
from sslbench.execution.predict import RECORD, check_preprocessing, find_scans, predict
from sslbench.execution.trained import load_trained, recorded_job
from sslbench.execution.worker import run_job
from sslbench.runs.directory import Run
from sslbench.training.checkpoint import Checkpoints, Selection, Snapshot
from tests.helpers.command_line import call
from tests.helpers.jobs import tiny_job

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def finished(phantom_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose two networks are candidates for the test."""
    short = {"schedule.iterations": 2, "schedule.validate_every": 1}
    job = tiny_job("cps", set={"inference.networks": "best_val", **short})
    return run_job(job, phantom_data, tmp_path_factory.mktemp("trained"), device="cpu", threads=1)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil."""
    return Path(shutil.copytree(finished, tmp_path / finished.name))


@pytest.fixture(scope="module")
def scans(phantom_data: Path) -> Path:
    return phantom_data / "phantom" / "raw" / "RawData" / "Training" / "img"


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_the_test_scans_come_out_as_they_were_tested(finished, scans, tmp_path):
    tested = sorted((finished / "predictions").glob("*.nii.gz"))
    inputs = [scans / f"img{path.name}" for path in tested]
    trained = load_trained(Run(finished), CPU)
    outcome = predict(trained, find_scans(inputs), tmp_path / "out")
    assert not outcome.failed and len(outcome.written) == 6
    for path, made in zip(tested, outcome.written, strict=True):
        assert np.array_equal(voxels(made), voxels(path)) and made.name == f"img{path.name}"
        assert np.array_equal(nib.load(made).affine, nib.load(path).affine)
    assert len({voxels(path).tobytes() for path in tested}) == 6 and voxels(tested[0]).any()
    status = json.loads((finished / "status.json").read_text())
    assert trained.predictor.key == status["predictor"] in ("a", "b")


def test_a_scan_stored_in_another_orientation_comes_back_in_it(finished, scans, tmp_path):
    trained = load_trained(Run(finished), CPU)
    source = nib.load(scans / "img0004.nii.gz")
    turn = [[1, -1], [2, 1], [0, -1]]
    (tmp_path / "in").mkdir()
    nib.save(source.as_reoriented(turn), tmp_path / "in" / "turned.nii")
    (made,) = predict(trained, find_scans([tmp_path / "in"]), tmp_path / "out").written
    expected = nib.load(finished / "predictions" / "0004.nii.gz").as_reoriented(turn)
    assert np.array_equal(voxels(made), np.asarray(expected.dataobj))
    assert np.allclose(nib.load(made).affine, expected.affine)


def test_weights_are_those_of_the_rule(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    rule = Selection("best-val", ("a", "b"))
    best = {}
    for iteration, scores in ((3, {"a": 0.4, "b": 0.2}), (6, {"a": 0.3, "b": 0.5})):
        for key in rule.observe(iteration, scores):
            best[rule.file(key)] = Snapshot({"method": {"at": torch.tensor(iteration)}})
    checkpoints.save({"method": {"at": torch.tensor(9)}, "selection": rule.state()}, 9, best, rule.files())
    assert Selection("best-val", ("a", "b")).tested(checkpoints) == ("b", {"at": torch.tensor(6)})
    assert Selection("last", ("a", "b")).tested(checkpoints) == ("b", {"at": torch.tensor(9)})
    assert Selection("last", (None,)).tested(checkpoints)[1] == {"at": torch.tensor(9)}
    with pytest.raises(SSLBenchError, match="no checkpoint"):
        Selection("last", (None,)).tested(Checkpoints(tmp_path / "none"))


def test_networks_are_built_from_what_the_run_recorded(run):
    job = recorded_job(Run(run))
    assert job.recipe.network.options["base_filters"] == 2 and job.method["name"] == "cps"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert job.digest == config["digest"] and job.values == config["values"]
    del config["values"]["inference.weighting"], config["values"]["inference.flips"]  # a version that had them not
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert recorded_job(Run(run)).recipe == job.recipe
    config["values"]["inference.unheard_of"] = 1
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SSLBenchError, match="cannot be read by this version") as raised:
        load_trained(Run(run), CPU)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("spoil", ["no record", "damaged record", "other weights", "not finished", "no run"])
def test_a_run_that_cannot_predict_says_why_in_one_line(spoil, run):
    record = json.loads((run / "trained.json").read_text())
    said = {"no record": "missing or damaged", "damaged record": "missing or damaged", "not finished": "is interrupted"}
    if spoil == "no record":
        (run / "trained.json").unlink()
    elif spoil == "damaged record":
        del record["statistics"]["batch"]
        (run / "trained.json").write_text(json.dumps(record))
    elif spoil == "other weights":
        record["classes"].append("more")
        record["statistics"]["num_classes"] += 1
        (run / "trained.json").write_text(json.dumps(record))
    elif spoil == "not finished":
        (run / "status.json").write_text('{"state": "interrupted"}')
    else:
        (run / "config.yaml").unlink()
    with pytest.raises(SSLBenchError, match=said.get(spoil, "do not fit|no run directory")) as raised:
        load_trained(Run(run), CPU)
    assert "\n" not in str(raised.value) and raised.value.hint


def test_a_crop_around_the_reference_is_refused_and_the_way_out_named(finished):
    trained = load_trained(Run(finished), CPU)
    check_preprocessing(trained)
    cropped = replace(trained.preprocessing, crop=LabelCrop((4, 4, 4), (1, 2)))
    with pytest.raises(UsageError, match="cut around their references") as raised:
        check_preprocessing(replace(trained, preprocessing=cropped))
    assert raised.value.hint == "train on whole scans: --set preprocessing=native"


def test_bad_scans_are_named_and_the_others_go_on(run, scans, tmp_path):
    source = nib.load(scans / "img0004.nii.gz")
    folder = tmp_path / "in"
    folder.mkdir()
    nib.save(source, folder / "good.nii.gz")
    (folder / "cut.nii.gz").write_bytes((folder / "good.nii.gz").read_bytes()[:500])
    nib.save(nib.Nifti1Image(np.full(source.shape, np.nan, np.float32), source.affine), folder / "nan.nii.gz")
    (folder / "notes.txt").write_text("not a scan")
    code, out, err = call("predict", str(run), str(folder), "-o", str(tmp_path / "out"), "--device", "cpu")
    assert code == 1 and "1 written, 2 failed" in out
    assert "cut: " in err and "cut.nii.gz: cannot be read as NIfTI" in err and "voxels are NaN or infinite" in err
    assert [path.name for path in sorted((tmp_path / "out").glob("*.nii.gz"))] == ["good.nii.gz"]
    code, out, _ = call("predict", str(run), str(folder), "-o", str(tmp_path / "out"), "--device", "cpu", "--json")
    told = json.loads(out)
    assert code == 1 and not told["written"] and len(told["there"]) == 1 and set(told["failed"]) == {"cut", "nan"}


def test_label_maps_of_two_runs_do_not_mix(finished, scans, tmp_path):
    trained = load_trained(Run(finished), CPU)
    one = find_scans([scans / "img0004.nii.gz"])
    out = tmp_path / "out"
    (path,) = predict(trained, one, out).written
    record = json.loads((out / RECORD).read_text())
    assert record["digest"] == trained.digest and record["classes"]["13"] == "lag"
    path.write_bytes(b"")
    assert predict(trained, one, out).there == [path] and not path.read_bytes()
    other = replace(trained, digest="0" * 64)
    with pytest.raises(UsageError, match="holds label maps of another run"):
        predict(other, one, out)
    assert predict(other, one, out, force=True).written == [path] and path.read_bytes()


def test_a_scan_is_never_overwritten(finished, scans, tmp_path):
    shutil.copy(scans / "img0004.nii.gz", tmp_path)
    with pytest.raises(UsageError, match="its label map would take its place"):
        predict(load_trained(Run(finished), CPU), find_scans([tmp_path]), tmp_path)
    assert not (tmp_path / RECORD).exists()


def test_scans_are_found_by_name_and_channels_belong_together(tmp_path):
    for name in ("a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii", "amos_0013.nrrd", ".hidden.nii", "c.txt"):
        (tmp_path / name).touch()
    assert set(find_scans([tmp_path])) == {"a_0000", "a_0001", "b_0000", "amos_0013"}
    pairs = find_scans([tmp_path], channels=2)
    assert {name: [path.name for path in paths] for name, paths in pairs.items()} == {
        "a": ["a_0000.nii.gz", "a_0001.nii.gz"],
        "b": ["b_0000.nii"],
        "amos_0013": ["amos_0013.nrrd"],
    }
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "amos_0013.nii.gz").touch()
    with pytest.raises(UsageError, match="is a second amos_0013"):
        find_scans([tmp_path, tmp_path / "more"])
    for given, what in (("nowhere.nii", "does not exist"), ("c.txt", "is no image")):
        with pytest.raises(UsageError, match=what):
            find_scans([tmp_path / given])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="there is no image in"):
        find_scans([tmp_path / "empty"])


def test_wrong_usage_is_code_2(run, scans, tmp_path):
    scan, out = str(scans / "img0004.nii.gz"), str(tmp_path / "out")
    for arguments, message in (
        ([str(tmp_path), scan, "-o", out], "is no run directory"),
        ([str(run), scan, "-o", out, "--device", "tpu"], "unknown device"),
        ([str(run), scan, "-o", out, "--modality", "xray"], "unknown modality"),
        ([str(run), "-o", out], "missing argument"),
    ):
        code, _, err = call("predict", *arguments)
        assert code == 2 and message in err, err
