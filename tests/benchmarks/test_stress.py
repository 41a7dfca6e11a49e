"""The stress scripts, in small: some kills, and some launchers at once, change nothing of what is left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

STRESS = Path(__file__).parents[2] / "benchmarks" / "stress"


def run(script: str, folder: Path, *words: str) -> str:
    line = [sys.executable, str(STRESS / script), "--folder", str(folder), *words]
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_kills_change_no_byte(tmp_path: Path) -> None:
    told = run("kills.py", tmp_path, "--kills", "20", "--jobs", "6", "--iterations", "60")
    assert "20 signals in " in told
    assert "6 jobs; to the end twice: none; otherwise than in peace: nothing" in told
    assert "temporary files left over: none" in told


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["shared", "far", "unlocked"])
def test_launchers_at_once_do_each_job_once(tmp_path: Path, scene: str) -> None:
    told = run("launchers.py", tmp_path, "--jobs", "3", "--iterations", "6", "--only", scene)
    assert f"\n{scene}" in told and "not once to the end: none; otherwise than one launcher: nothing" in told
