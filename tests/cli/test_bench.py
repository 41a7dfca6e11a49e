"""`sslbench bench`: counted and timed steps on the command line, refusals in one line; `doctor`'s next step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sslbench.cli import doctor
from sslbench.conformance import speed
from sslbench.core.errors import UsageError
from sslbench.core.files import write_json
from sslbench.execution import memory
from tests.helpers.command_line import call
from tests.helpers.jobs import phantom_job
from tests.helpers.paper_runs import write_run_of

MIB = 2**20


@pytest.fixture
def _sized(monkeypatch: pytest.MonkeyPatch) -> None:
    def tallied(resolved: Any, arithmetic: str) -> memory.StepTally:
        size = 600 if arithmetic == "fp32" else 300
        return memory.StepTally("train", 40 * MIB, size * MIB, 932, 1_700_000_000_000, 37_500_000_000)

    monkeypatch.setattr(memory, "tallied", tallied)


@pytest.mark.usefixtures("_sized")
def test_memory_is_a_table_and_json(tmp_path: Path) -> None:
    code, out, _ = call("bench", "--memory", "cps", "mt", "-l", "ga", "--data-dir", str(tmp_path))
    assert code == 0 and "ga-synapse, loss ga" in out and "not prepared here" in out
    assert ["cps", "0.59", "0.29", "0.04", "932", "1.70", "37.5"] in [line.split() for line in out.splitlines()]
    code, out, _ = call("bench", "--memory", "cps", "-r", "phantom", "--json", "--data-dir", str(tmp_path))
    (cell,) = json.loads(out)["cells"]
    assert cell["method"] == "cps" and cell["loss"] == "default" and cell["data"] is None
    assert cell["bf16"]["peak"] == 300 * MIB and cell["fp32"]["phase"] == "train"


@pytest.mark.usefixtures("_sized")
def test_the_training_set_is_counted_where_it_is_prepared(small_data: Path) -> None:
    code, out, _ = call("bench", "--memory", "cps", "-r", "phantom", "--json", "--data-dir", str(small_data))
    assert code == 0 and json.loads(out)["cells"][0]["data"] is None  # three cases: no budget is whole


def test_speeds_are_drawn_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSLBENCH_CACHE", str(tmp_path))

    def measured(cell: Any, device: Any, steps: int, batch: int | None) -> speed.StepSpeed:
        return speed.StepSpeed("{} {}+{}".format(*cell), "fp32", (2, 2), 0.5, 5 * 10**9, 12.5e9, 300 * MIB, None)

    monkeypatch.setattr(speed, "measure_speed", measured)
    code, out, err = call("bench", "--cells", "phantom:cps+ga,phantom:mt", "--device", "cpu")
    assert code == 0 and "80 %" in out and "phantom mt+default fp32" in out and "500 ms" in out
    assert str(tmp_path) in err
    (entry,) = json.loads((tmp_path / "measured.json").read_text()).values()
    assert entry["flop_per_second"] == 1e10 and len(entry["cells"]) == 2
    code, out, _ = call("bench", "--cells", "phantom:cps+ga", "--device", "cpu", "--json")
    assert json.loads(out)["flop_per_second"] == 1e10


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["cps"], "go with --memory"),
        (["--cells", "phantom"], "is no cell"),
        (["--cells", "phantom:nothing+ga", "--device", "cpu"], "nothing"),
        (["--memory", "nothing"], "nothing"),
        (["--device", "tpu"], "unknown device"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_line(words: list[str], told: str) -> None:
    code, _, err = call("bench", *words)
    assert code == 2 and told in err and err.startswith("error:")


def test_a_real_step_is_measured() -> None:
    changed = {"patch_size": [32, 32], "batch.labeled": 2, "batch.unlabeled": 2, "network.filters": [2, 4, 4, 4, 4]}
    try:
        found = speed.measure_speed(("ssl4mis-acdc", "mt", "ga"), speed.torch.device("cpu"), 1, set=changed)
    except UsageError:
        changed.pop("network.filters")
        found = speed.measure_speed(("ssl4mis-acdc", "mt", "ga"), speed.torch.device("cpu"), 1, set=changed)
    assert found.seconds > 0 and 0 < found.share < 3 and found.counted > MIB and found.patches == (2, 2)


def test_the_next_step_follows_from_what_is_there(tmp_path: Path) -> None:
    prepared = doctor.Check("data", "phantom/ct", "ok", "", "", {"found": 3})
    broken = doctor.Check("places", "results", "fail", "", "choose another")
    assert doctor.next_step([], tmp_path).startswith("sslbench demo")
    assert doctor.next_step([prepared], tmp_path) == "sslbench run --grid quick"
    assert doctor.next_step([prepared, broken], tmp_path) == "choose another"
    one, other = (write_run_of(phantom_job(seed=seed), tmp_path, lambda *_: 50.0) for seed in (0, 1))
    assert doctor.next_step([prepared], tmp_path).startswith("sslbench report,")
    assert doctor.next_step([], tmp_path).startswith("sslbench report,")
    write_json(one.status_file, {"state": "failed", "error": "no memory"})
    write_json(other.status_file, {"state": "interrupted", "error": ""})
    told = doctor.next_step([prepared], tmp_path)
    assert told.startswith("sslbench status") and "1 failed" in told and "1 interrupted" in told
    assert "--retry-failed" in told


def test_the_state_of_mps_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = {"control": None}
    monkeypatch.setattr(doctor.shutil, "which", lambda name: found["control"])
    place = {"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path)}
    assert "not installed" in doctor._mps(place).message
    found["control"] = "/usr/bin/nvidia-cuda-mps-control"
    assert "not running" in doctor._mps(place).message and doctor._mps(place).status == "ok"
    (tmp_path / "control").touch()
    assert doctor._mps(place).message.startswith("running")
