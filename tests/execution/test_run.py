"""Grids that really run, in processes of their own: skip, resume, fail, share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from sslbench import load_results
from sslbench.config.job import Job
from sslbench.core.errors import UsageError
from sslbench.execution import local
from sslbench.execution.executors import LocalWorkers
from sslbench.execution.worker import run_job
from sslbench.runs.directory import Busy, Run
from tests.helpers.command_line import call
from tests.helpers.grids import cases_of, command, sslbench, write_grid
from tests.helpers.jobs import tiny_job


@pytest.fixture(scope="module")
def undisturbed(phantom_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a tiny grid that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    grid = write_grid(folder / "tiny.yaml")
    done = sslbench("run", "--grid", str(grid), "--threads", "1", data=phantom_data, results=folder / "results")
    assert done.returncode == 0, done.stderr
    return folder / "results"


def test_a_grid_leaves_complete_run_directories(undisturbed: Path) -> None:
    runs = sorted(undisturbed.glob("runs/phantom/20pct/*/seed-0-*"))
    assert len(runs) == 2
    for run in runs:
        status = json.loads((run / "status.json").read_text())
        assert status["state"] == "finished" and status["attempts"] == 1
        provenance = json.loads((run / "provenance.json").read_text())
        assert provenance["precision"]["used"] == "fp32"
        assert provenance["data"]["found"] == 30 and provenance["splits"]["test"] == 6
        config = yaml.safe_load((run / "config.yaml").read_text())
        assert config["layers"]["network.base_filters"].startswith("grid")
        assert Job(**config["job"]).digest() == config["digest"]
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [record["iteration"] for record in records if "validation" in record] == [3, 6]
        assert len(list((run / "predictions").glob("*.nii.gz"))) == 6
    frame = load_results(undisturbed)
    assert set(frame["method"]) == {"supervised", "cps"}
    # 6 test cases, 13 organs, 4 metrics, 2 runs.
    assert len(frame) == 6 * 13 * 4 * 2


def test_predictions_lie_on_the_grid_of_the_scan(undisturbed: Path, phantom_data: Path) -> None:
    run = next(undisturbed.glob("runs/phantom/20pct/supervised*/seed-0-*"))
    for path in (run / "predictions").glob("*.nii.gz"):
        case = path.name.removesuffix(".nii.gz")
        scan = nib.load(phantom_data / "phantom/raw/RawData/Training/img" / f"img{case}.nii.gz")
        prediction = nib.load(path)
        assert prediction.shape == scan.shape
        assert np.allclose(prediction.affine, scan.affine)


def test_a_finished_grid_is_skipped_and_reported(undisturbed: Path, phantom_data: Path) -> None:
    grid = str(write_grid(undisturbed.parent / "tiny.yaml"))
    before = cases_of(undisturbed)
    code, _, told = call(*command("run", "--grid", grid, data=phantom_data, results=undisturbed)[3:])
    assert code == 0 and "starts" not in told
    assert cases_of(undisturbed) == before
    for form in ([], ["--latex"], ["--markdown"], ["--csv"]):
        code, shown, _ = call("report", grid, "--results-dir", str(undisturbed), *form)
        assert code == 0 and ("CPS" in shown or "cps" in shown)


@pytest.mark.parametrize("target", ["launcher-term", "worker-kill", "launcher-kill"])
def test_a_killed_grid_continues_to_the_same_bytes(
    target: str, undisturbed: Path, phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLBENCH_SAVE_EVERY", "0")  # as nobody else does: when a checkpoint is written changes nothing
    # Two jobs for the launcher that is asked to stop, whose second has not begun; else one.
    changes = {} if target == "launcher-term" else {"jobs": [{"method": "cps"}]}
    grid, results = str(write_grid(tmp_path / "tiny.yaml", **changes)), tmp_path / "results"
    arguments = ("run", "--grid", grid, "--threads", "1")  # as many as where nothing disturbed: they change rounding
    line = command(*arguments, data=phantom_data, results=results)
    launcher = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    lease = _wait_for_training(results)
    if target == "launcher-term":
        launcher.terminate()
        assert launcher.wait(60) == 143
        assert any(Run(path.parent).state == "interrupted" for path in results.glob("runs/**/config.yaml"))
    elif target == "worker-kill":
        os.kill(lease["pid"], signal.SIGKILL)
        launcher.wait(120)
    else:
        launcher.kill()
        launcher.wait(60)
    done = sslbench(*arguments, data=phantom_data, results=results)
    assert done.returncode == 0, done.stderr
    expected = {path: cases for path, cases in cases_of(undisturbed).items() if not changes or "/cps+" in path}
    assert expected and cases_of(results) == expected


def _wait_for_training(results: Path) -> dict[str, int]:
    """The lease of a worker that has trained for some iterations."""
    for _ in range(2400):
        for path in results.glob("runs/**/checkpoints/step-*.pt"):
            owner = Run(path.parents[1]).owner()
            if owner and owner.get("pid"):
                return owner
        time.sleep(0.05)
    raise AssertionError("no worker began to train")


def test_two_launchers_share_the_work(undisturbed: Path, phantom_data: Path, tmp_path: Path) -> None:
    grid, results = str(write_grid(tmp_path / "tiny.yaml")), tmp_path / "results"
    line = command("run", "--grid", grid, data=phantom_data, results=results)
    launchers = [subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [launcher.communicate(timeout=300)[1] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0], errors
    assert cases_of(results) == cases_of(undisturbed)
    for path in results.glob("runs/**/status.json"):
        assert json.loads(path.read_text())["attempts"] == 1


def test_a_job_that_fails_keeps_its_reason_and_the_grid_goes_on(phantom_data: Path, tmp_path: Path) -> None:
    jobs = [
        {"method": "supervised", "set": {"optimizer.lr": 1e30}},
        {"method": "supervised"},
    ]
    grid, results = str(write_grid(tmp_path / "some-fail.yaml", jobs=jobs)), tmp_path / "results"
    done = sslbench("run", "--grid", grid, data=phantom_data, results=results)
    assert done.returncode == 1
    assert "1 finished, 1 failed" in done.stderr and "not finite" in done.stderr
    assert "Traceback" not in done.stderr
    code, _, told = call(*command("run", "--grid", grid, data=phantom_data, results=results)[3:])
    assert code == 1 and "starts" not in told  # failed ones stay failed until asked for
    code, status, _ = call("status", "--json", "--results-dir", str(results))
    assert code == 0 and {row["state"] for row in json.loads(status)["runs"]} == {"finished", "failed"}


def test_run_job_from_python_and_force_keeps_the_old_results(phantom_data: Path, tmp_path: Path) -> None:
    job = tiny_job("supervised", "ga", seed=3)
    folder = run_job(job, phantom_data, tmp_path, device="cpu", threads=1)
    assert folder == tmp_path / "runs" / job.directory
    first = (folder / "cases.csv").read_bytes()
    assert run_job(job, phantom_data, tmp_path) == folder  # finished: nothing happens
    plan = local.make_plan([job.canonical()], tmp_path, local.check_data([job], phantom_data), force=True)

    class Silent:
        def update(self, *_: object) -> None: ...

        def event(self, text: str) -> None: ...

    assert local.Launcher(plan, LocalWorkers(phantom_data, 1), ["cpu"], Silent()).run(force=True) == 0
    assert (folder / "cases.csv").read_bytes() == first
    assert folder.with_name(folder.name + ".old-1").joinpath("cases.csv").read_bytes() == first
    assert len(load_results(tmp_path)["run"].unique()) == 1  # what was set aside does not count


def test_results_of_other_data_are_not_passed_off_as_these(phantom_data: Path, tmp_path: Path) -> None:
    job = tiny_job()
    run_job(job, phantom_data, tmp_path, device="cpu", threads=1)
    provenance = tmp_path / "runs" / job.directory / "provenance.json"
    provenance.write_text(provenance.read_text().replace('"fingerprint": "', '"fingerprint": "0'))
    with pytest.raises(UsageError, match="other data"):
        local.make_plan([job.canonical()], tmp_path, local.check_data([job], phantom_data))


def test_a_lease_is_held_by_one_and_freed_by_death(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with run.lease():
        assert run.owner()["pid"] == os.getpid()
        with pytest.raises(Busy), Run(tmp_path / "run").lease():
            pass
    assert run.owner() is None
    # A holder on another host shows by its heartbeat, until that grows old.
    (tmp_path / "run" / "lease.json").write_text(json.dumps({"host": "far", "pid": 1, "heartbeat": time.time()}))
    assert run.owner() == {"host": "far", "pid": 1, "heartbeat": pytest.approx(time.time(), abs=5)}
    (tmp_path / "run" / "lease.json").write_text(json.dumps({"host": "far", "pid": 1, "heartbeat": time.time() - 999}))
    assert Run(run.directory).owner() is None


def test_a_directory_that_holds_another_job_is_refused(phantom_data: Path, tmp_path: Path) -> None:
    job = tiny_job()
    run = Run.of(job, tmp_path)
    run.write_config(job)
    run.config.write_text(run.config.read_text().replace("digest: ", "digest: 0"))
    with pytest.raises(Exception, match=r"disagree|another job"):
        local.make_plan([job.canonical()], tmp_path, {})
