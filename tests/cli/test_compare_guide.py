"""The guide's commands do what it says: every one is executed, on runs with made-up numbers."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from sslbench.config.grid import Grid, load_grid
from sslbench.config.job import Job
from tests.helpers.command_line import call
from tests.helpers.paper_runs import write_run_of

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "compare.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL) for line in block.splitlines()]


def score(job: Job, metric: str, name: str) -> float:
    return (50.0 if metric == "dsc" else 5.0) + job.seed % 7


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of two rows of a paper, of the demo, and with a grid of one's own."""
    folder = tmp_path_factory.mktemp("compare")
    mine = {"recipe": "ga-synapse", "labeled": ["20%"], "jobs": [{"method": "mt"}], "set": {"schedule.iterations": 100}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(mine))
    jobs = [job for job in load_grid("ga-t1").expand() if job.method in ("mt", "desco") and job.loss == "default"]
    for job in [*jobs, *Grid(name="mine", **mine).expand(), *load_grid("quick").expand()]:
        write_run_of(job, folder / "results", score, cases=1)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_does_what_the_guide_says(command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for variable in ("SSLBENCH_DATA", "SSLBENCH_RESULTS"):
        monkeypatch.delenv(variable, raising=False)
    arguments = shlex.split(command)[1:]
    code, out, err = call(*arguments, *(["--dry-run"] if arguments[0] == "run" else []))
    assert code == 0, err
    told = " ".join(out.split())
    if "mine.yaml" in arguments:
        assert "Compared: 0 of 24 rows" in told and "schedule.iterations published 17 000, here 100" in told
    elif "quick" in arguments:
        quoted = " ".join(re.search(r"\*(No difference is computed.*?); \.\.\.\*", GUIDE, re.DOTALL)[1].split())  # type: ignore[index]
        assert quoted in told
    elif "-o" not in arguments and "report" in arguments:
        assert "Compared: 2 of 24 rows" in told
    if "-o" in arguments:
        assert Path(arguments[arguments.index("-o") + 1]).exists()
    assert ("--cite" in arguments) == Path("tables/references.bib").exists() or "--cite" not in arguments


def test_what_the_guide_names_exists() -> None:
    assert len(COMMANDS) == 9
    for path in re.findall(r"\]\((\.\./reference/[\w.]+)\)", GUIDE):
        assert (ROOT / "docs" / "guides" / path).exists(), path
