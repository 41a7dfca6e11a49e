"""The guides to checking, sharing and importing do what they say: their commands are executed in their order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from sslbench.config.grid import load_grid
from sslbench.config.job import Job
from tests.helpers.command_line import call
from tests.helpers.foreign import write_foreign
from tests.helpers.paper_runs import write_run_of

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "check-and-share.md").read_text(encoding="utf-8")
IMPORT = (ROOT / "docs" / "guides" / "import.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for page in (GUIDE, IMPORT)
    for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    for line in block.splitlines()
]


def score(job: Job, metric: str, name: str) -> float:
    return (50.0 if metric == "dsc" else 5.0) + job.seed + 9 * (job.loss == "ga")


def test_the_commands_do_what_the_guide_says(small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSLBENCH_DATA", str(small_data))
    monkeypatch.delenv("SSLBENCH_RESULTS", raising=False)
    for job in load_grid("quick").expand():
        write_run_of(job, Path("results"), score, cases=2)
    write_foreign(small_data, Path("predictions"), monkeypatch)
    told = {}
    for command in COMMANDS:
        code, out, err = call(*shlex.split(command, comments=True)[1:])
        assert code == 0, f"{command}: {err}{out}"
        told[command] = out
    quoted = re.search(r"```\n(\d+ numbers agree.*)\n```", GUIDE)
    assert quoted and told["sslbench verify shared/table.tex"].strip() == quoted[1]
    assert "‡" in told["sslbench report quick"]
    for name in re.findall(r"`([\w/.]+)`", GUIDE.split("writes ", 1)[1].split("\n## ")[0]):
        assert Path("shared/all", name).exists(), name
