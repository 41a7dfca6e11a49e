"""`make gpu`, run dry: every part at small sizes on a CPU, failures told and survived."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu" / "run.py"


def run(out: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--small", "--out", str(out), *words]
    own = {name: value for name, value in os.environ.items() if name not in ("ACDC", "WHEELS")}
    return subprocess.run(command, capture_output=True, text=True, env=own | environment, check=False)


def test_a_dry_run_goes_through_and_is_no_figure_of_a_gpu(tmp_path: Path) -> None:
    ended = run(tmp_path, "--only", "versions,cells,repeats,packing,tests,acdc")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    facts = json.loads((tmp_path / "gpu.json").read_text())
    parts = facts["parts"]
    states = {name: part["status"] for name, part in parts.items()}
    assert states == {**dict.fromkeys(("versions", "cells", "repeats", "packing"), "ok"), "tests": "skipped"} | {
        "acdc": "skipped"
    }
    assert "ACDC=" in parts["acdc"]["reason"]
    assert all(row["repeats"] and row["resumes"] for row in parts["repeats"]["found"])
    assert {row["told"] for row in parts["repeats"]["found"]} == {True, False}
    assert all(row["reference_seconds"] > 0 and row["share"] > 0 for row in parts["cells"]["found"])
    assert [row["processes"] for row in parts["packing"]["found"]["plain"]] == [1, 2]
    assert "skipped" in parts["packing"]["found"]["mps"]
    text = (tmp_path / "gpu.txt").read_text()
    assert "no figure of a GPU" in text and max(map(len, text.splitlines())) <= 118 and "…" not in text


def test_a_part_that_fails_is_told_and_the_next_one_runs(tmp_path: Path) -> None:
    ended = run(tmp_path, "--only", "acdc,tests", ACDC=str(tmp_path / "absent"))
    assert ended.returncode == 0 and "is no folder" in ended.stdout
    (tmp_path / "raw").mkdir()
    ended = run(tmp_path, "--only", "acdc,tests", ACDC=str(tmp_path / "raw"))
    assert ended.returncode == 1
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert parts["acdc"]["status"] == "failed" and "sslbench prepare" in parts["acdc"]["reason"]
    assert parts["tests"]["status"] == "skipped"


def test_what_it_imports_is_said_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import run as script  # type: ignore[import-not-found]

    monkeypatch.setitem(script.NEEDED, "a_module_that_is_not_there", "a-package")
    monkeypatch.delenv("WHEELS", raising=False)
    with pytest.raises(SystemExit, match="WHEELS="):
        script._install_missing()
    monkeypatch.setenv("WHEELS", str(tmp_path))
    with pytest.raises(SystemExit, match="lacks"):
        script._install_missing()


def test_the_plain_loop_computes_what_ours_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its per-class forms of GA and of Dice are those of the package."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    from reference import ReferenceLoop  # type: ignore[import-not-found]

    from sslbench.losses.gradient_aware import GACELoss, GADiceLoss

    torch.manual_seed(0)
    logits, label = torch.randn(2, 5, 12, 12), torch.randint(0, 4, (2, 12, 12))  # the last class is absent
    loop = ReferenceLoop("supervised", "ga", [nn.Conv2d(1, 5, 1)], 5, 2)
    assert loop._ce(logits, label, 10).item() == pytest.approx(GACELoss(10)(logits, label).item(), rel=1e-4)
    assert loop._dice(logits, label).item() == pytest.approx(GADiceLoss()(logits, label).item(), rel=1e-4)
