"""`sslbench doctor`: what works is said in a line, what does not comes with its remedy and exit code 1."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from sslbench.cli import doctor
from sslbench.cli.terminal.findings import checks
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError
from tests.helpers.command_line import call


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SSLBENCH_")]:
        monkeypatch.delenv(name)


def found(data: Path | str = "data", results: Path | str = "results", **more: Any) -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.examine(Path(data), Path(results), **more)}


def test_an_untouched_machine_passes_with_a_word_about_data() -> None:
    checks = found()
    failed = [check for check in checks.values() if check.status == "fail"]
    assert not failed
    assert checks["datasets"].status == "warn" and checks["datasets"].remedy == "sslbench prepare phantom"
    assert checks["torch"].facts["version"] == torch.__version__
    assert set(checks["packages"].facts) >= {"numpy", "monai", "pydantic"} and "torch" not in checks["packages"].facts
    assert checks["components"].facts["method"] >= 3
    assert "bf16" in checks["cpu"].message and checks["cpu"].facts["memory"] > 0
    assert "not there yet" in checks["data"].message and checks["data"].facts["writable"]
    assert checks["locks"].status == "ok"
    assert not list(Path.cwd().iterdir()), "nothing is left behind"


def test_every_remedy_stands_with_something_that_is_wrong() -> None:
    for check in found().values():
        assert bool(check.remedy) == (check.status != "ok"), check


def test_the_screen_fits_80_columns_and_says_statuses_in_words(small_data: Path) -> None:
    text = io.StringIO()
    rows = [check.to_json() for check in doctor.examine(small_data, Path("results"))]
    checks(Console(file=text, width=80), rows)
    lines = text.getvalue().splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) <= 45
    assert lines[0].split()[:2] == ["ok", "python"]


def test_the_command_prints_json_alone_and_ends_with_the_verdict(small_data: Path) -> None:
    code, out, err = call("doctor", "--data-dir", str(small_data), "--json")
    report = json.loads(out)
    assert code == 0 and not err and report["status"] in ("ok", "warn")
    assert {"area", "name", "status", "message", "remedy", "facts"} == report["checks"][0].keys()
    code, out, _ = call("doctor", "--data-dir", str(small_data), "--verify")
    assert code == 0 and "every file as prepared" in out and ", 0 fail" in out


def test_colours_are_left_to_terminals_and_to_taste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[3" in call("list", "methods")[1] or "\x1b[1" in call("list", "methods")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    code, out, _ = call("doctor")
    assert code == 0 and "\x1b[3" not in out and "warn" in out


# ----------------------------------------------------------------------------------------------------- software


@pytest.mark.parametrize(
    ("number", "limits", "held"),
    [
        ("2.13.0+cpu", ">=2.8,!=2.9.*", True),
        ("2.9.1", ">=2.8,!=2.9.*", False),
        ("2.9", ">=2.8,!=2.9.*", False),
        ("2.7.1", ">=2.8", False),
        ("2.10", ">=2.9", True),
        ("1.0", "==1.0.0", True),
        ("1.0.1", "==1.0", False),
        ("1.5", "<2", True),
        ("2.0.0", "<2", False),
        ("2.0.0", "<=2", True),
        ("2.0", ">2", False),
        ("2.0.1", ">2", True),
        ("unknown", "", True),
        ("1.0", "===1.0", True),
        ("3.0", "~=2.1", False),
        ("2.9", "~=2.1", True),
        ("2.0", "~=2.1", False),
        ("2.2", "~=2.1.0", False),
        ("2.8.0rc1", ">=2.8", False),
        ("2.8.0rc1", ">=2.7", True),
        ("1.0.post1", "==1.0", False),
        ("1!1.0", ">=2", True),
        ("our-build", ">=2", True),
    ],
)
def test_versions_are_held_against_their_limits(number: str, limits: str, held: bool) -> None:
    assert doctor.satisfies(number, limits) is held


def test_the_packages_are_those_of_the_installation() -> None:
    needed, extras = doctor.requirements()
    assert (
        needed["torch"].replace(" ", "") in (">=2.8,!=2.9.*,!=2.10.*", "!=2.10.*,!=2.9.*,>=2.8")
        and "pytest" in extras["dev"]
    )
    assert "pytest" not in needed


def test_a_missing_package_fails_an_old_one_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requirements", lambda: ({"numpy": ">=99", "scipy": ""}, {"plots": ["nowhere"]}))
    checks = found()
    assert checks["packages"].status == "warn" and "'numpy>=99'" in checks["packages"].remedy
    assert checks["extras"].status == "ok" and "nowhere (optional)" in checks["extras"].message
    monkeypatch.setattr(doctor, "requirements", lambda: ({"nowhere": "", "numpy": ""}, {}))
    check = found()["packages"]
    assert (check.status, check.remedy) == ("fail", "pip install nowhere") and doctor.verdict([check]) == "fail"
    monkeypatch.setattr(doctor, "requirements", lambda: ({}, {}))
    assert found()["sslbench"].status == "warn"


def test_a_cudnn_that_is_wrong_in_3d_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    check = found()["torch"]
    assert check.status == "warn" and "cuDNN 9.10.2 gets bf16 convolutions in 3-D wrong" in check.message
    assert "2.11" in check.remedy
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    fine = found()["torch"].message
    assert "cuDNN 9.19.0" in fine and "wrong" not in fine


def test_a_component_that_cannot_be_loaded_fails_and_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = registry.entries

    def entries(kind: str) -> Any:
        if kind == "plugin":
            raise SSLBenchError("the plugin 'x' of strange cannot be loaded: no module")
        return loaded(kind)

    monkeypatch.setattr(registry, "entries", entries)
    check = found()["components"]
    assert check.status == "fail" and "strange" in check.message and "uninstall" in check.remedy


# ----------------------------------------------------------------------------------------------------- hardware


def test_the_cards_are_told_with_memory_and_what_auto_makes_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    check = found()["gpu"]
    assert check.status == "warn" and "nvidia-smi" in check.remedy
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (70 * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5) if device.index else (9, 0))
    monkeypatch.setattr(doctor, "_computes", lambda device: None)
    checks = found()
    assert checks["threads"].facts["slots"] == 2
    first, second = checks["cuda:0"], checks["cuda:1"]
    assert "A card, 80.0 GiB (70.0 GiB free), capability 9.0; auto tries bf16" in first.message
    assert "auto takes fp32" in second.message and second.facts["fast_bf16"] is False

    def no_kernel(device: torch.device) -> None:
        raise RuntimeError("CUDA error: no kernel image is available\nmore lines")

    monkeypatch.setattr(doctor, "_computes", no_kernel)
    check = found()["cuda:0"]
    assert check.status == "fail" and check.message == "cannot compute: CUDA error: no kernel image is available"


# ------------------------------------------------------------------------------------------------------- places


def test_variables_are_shown_and_misspelt_ones_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSLBENCH_DATA", str(tmp_path))
    assert found()["environment"].message == f"SSLBENCH_DATA={tmp_path}"
    monkeypatch.setenv("SSLBENCH_DATADIR", "x")
    check = found()["environment"]
    assert (
        check.status == "warn" and check.message.startswith("SSLBENCH_DATADIR:") and "SSLBENCH_RESULTS" in check.remedy
    )


def test_a_results_folder_that_cannot_be_used_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    check = found(results="file")["results"]
    assert check.status == "fail" and "is not a folder" in check.message and "SSLBENCH_RESULTS" in check.remedy
    assert found(results="file/inside")["results"].status == "fail"
    code, out, _ = call("doctor", "--results-dir", "file")
    assert code == 1 and "fail" in out and "--results-dir" in out
    monkeypatch.setattr(doctor, "_writable", lambda folder: False)
    (tmp_path / "data").mkdir()
    checks = found()
    assert checks["results"].status == "fail" and "cannot be written" in checks["results"].message
    assert checks["data"].status == "warn"  # prepared data may be read-only
    assert "locks" not in checks


def test_little_space_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 99, 1))  # type: ignore
    checks = found()
    assert checks["results"].status == "warn" and "0.00 GiB free" in checks["results"].message
    assert checks["data"].status == "ok"


def test_locks_that_do_not_work_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda handle, how: None)
    assert found()["locks"].status == "warn"

    def refused(handle: Any, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    check = found()["locks"]
    assert check.status == "warn" and "No locks available" in check.message and "local disk" in check.remedy


# --------------------------------------------------------------------------------------------------------- data


def test_a_prepared_dataset_is_counted_and_its_files_are_verified(small_data: Path, tmp_path: Path) -> None:
    shutil.copytree(small_data / "phantom/native", tmp_path / "data/phantom/native")
    check = found()["phantom/native"]
    assert check.status == "ok" and check.message.startswith("3 of 30 cases, a subset")
    seen: list[str] = []
    assert found(verify=True, progress=seen.append)["phantom/native"].facts["verified"] and len(seen) == 9
    image = next((tmp_path / "data/phantom/native/cases").glob("*.image.npy"))
    content = bytearray(image.read_bytes())
    content[-1] ^= 1
    image.write_bytes(content)  # its size is as recorded: only its hash tells
    assert found()["phantom/native"].status == "ok"
    check = found(verify=True)["phantom/native"]
    assert check.status == "fail" and image.name in check.message
    assert "--force" in check.remedy and len(check.facts["damaged"]) == 1
    image.unlink()
    check = found()["phantom/native"]
    assert check.status == "fail" and image.name in check.message and "--force" in check.remedy
    (tmp_path / "data/phantom/native/dataset.json").unlink()
    check = found()["phantom/native"]
    assert check.status == "warn" and "not finished" in check.message and "sslbench prepare phantom" in check.remedy


def test_a_preprocessing_that_nobody_knows_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "data/acdc/older/cases").mkdir(parents=True)
    check = found()["acdc/older"]
    assert check.status == "warn" and "unknown preprocessing" in check.message
