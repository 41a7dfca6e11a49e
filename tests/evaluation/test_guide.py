"""The guide's commands lead where it says: every one is executed, on a tiny phantom."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from sslbench.execution.worker import run_job
from tests.helpers.command_line import call
from tests.helpers.jobs import TINY, tiny_job

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "evaluate.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL) for line in block.splitlines()]


@pytest.fixture(scope="module")
def place(phantom_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of a grid called quick, scans, and predictions in the layout of the guide."""
    folder = tmp_path_factory.mktemp("guide")
    short = {"schedule.iterations": 1, "schedule.validate_every": 1}
    run = run_job(tiny_job(set=short), phantom_data, folder / "results", device="cpu", threads=1)
    (folder / "data").symlink_to(phantom_data)
    (folder / "benchmarks").mkdir()
    jobs = {"recipe": "phantom", "labeled": ["20%"], "seeds": [0], "jobs": [{"method": "supervised"}]}
    (folder / "benchmarks" / "quick.yaml").write_text(yaml.safe_dump({**jobs, "set": {**TINY, **short}}))
    (folder / "scans").mkdir()
    shutil.copy(phantom_data / "phantom" / "raw" / "RawData" / "Training" / "img" / "img0004.nii.gz", folder / "scans")
    shutil.copytree(run / "predictions", folder / "predicted")
    (folder / "labelsTs").mkdir()
    for path in (folder / "predicted").iterdir():
        shutil.copy(phantom_data / "phantom" / "native" / "references" / path.name, folder / "labelsTs")
    return folder


def arguments(command: str) -> list[str]:
    """A line as a shell would read it."""
    parts = shlex.split(command)[1:]
    return [word for part in parts for word in (map(str, Path().glob(part)) if "*" in part else [part])]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_does_what_the_guide_says(command: str, place: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(place)
    for variable in ("SSLBENCH_DATA", "SSLBENCH_RESULTS"):
        monkeypatch.delenv(variable, raising=False)
    if "report" in command:
        assert call(*arguments(COMMANDS[0]))[0] == 0
    line = arguments(command)
    if "--classes" in line:  # the phantom has 13 organs, and the guide two
        line[line.index("--classes") + 1] = ",".join(f"organ{number}" for number in range(1, 14))
    if "predict" in line:  # not into what other lines score: they may come later in the process that runs this one
        line[line.index("-o") + 1] = "made"
    code, out, err = call(*line, *([] if "report" in command or "predict" in line else ["-j", "1"]))
    assert code == 0, err
    if "-o" in line:
        assert Path(line[line.index("-o") + 1]).exists()
    if "--all-protocols" in line:
        assert "-released" in out and "la-cobionet does not apply" in out
    if "report" in command:
        assert "Protocol ga" in out


def test_what_the_guide_names_exists() -> None:
    assert len(COMMANDS) == 6
    for path in [*re.findall(r"`(benchmarks/[\w/.]+)`", GUIDE), "docs/reference/protocols.md"]:
        assert (ROOT / path).exists(), path
