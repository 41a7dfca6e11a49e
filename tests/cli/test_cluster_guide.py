"""The guide to clusters does what it says, as far as scripts in the place of Slurm can tell."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from sslbench.core.errors import UsageError
from sslbench.execution import slurm
from sslbench.execution.slurm import SlurmOptions, SlurmQueue
from sslbench.runs.directory import Run, runs_below
from tests.helpers.command_line import call
from tests.helpers.grids import write_grid

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "cluster.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL) for line in block.splitlines()]


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of `sbatch`, `squeue`, `sacct`, `scancel`, which print what lies in `<name>.txt` and note how they were
    called in `<name>.calls`; `sbatch` counts arrays, and there is no accounting."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sbatch", "squeue", "sacct", "scancel", "scontrol"):
        script = folder / name
        script.write_text(
            f'#!/bin/sh\nfor word in "$@"; do echo "$word" >> {folder}/{name}.calls; done\n'
            f"[ -f {folder}/{name}.error ] && cat {folder}/{name}.error >&2 && exit 1\n"
            f"cat {folder}/{name}.txt 2>/dev/null\nexit 0\n"
        )
        script.chmod(0o755)
    (folder / "sacct.error").write_text("Slurm accounting storage is disabled\n")
    (folder / "sbatch.txt").write_text("7;trial\n")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def calls(scripts: Path, name: str) -> list[str]:
    path = scripts / f"{name}.calls"
    return path.read_text().splitlines() if path.exists() else []


def test_the_commands_of_the_guide(
    scripts: Path, phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("SSLBENCH_DATA", str(phantom_data))
    monkeypatch.delenv("SSLBENCH_RESULTS", raising=False)
    for place in ("laptop", "cluster"):
        run = tmp_path / place / "results" / "runs" / "r" / "20pct" / "cps+default" / f"seed-{len(place)}-0123abcd"
        run.mkdir(parents=True)
        digest, job = "0123abcd" * 8, {"recipe": "r", "method": "cps", "loss": "default", "plugin": None}
        run.joinpath("config.yaml").write_text(
            json.dumps({"job": {**job, "labeled": "20pct", "seed": len(place)}, "digest": digest})
        )
        run.joinpath("status.json").write_text('{"state": "interrupted"}')
    told = {}
    for command in COMMANDS:
        code, out, err = call(*shlex.split(command, comments=True)[1:])
        assert code == 0, f"{command}: {err}{out}"
        told[command] = out + err
    assert sum("sbatch --parsable" in text for text in told.values()) == 2
    assert any("--array=0-1%10" in text and "--account=lab" in text for text in told.values())
    assert calls(scripts, "sbatch") == []
    assert len(runs_below(here / "results" / "runs")) == 2  # merged
    for path in re.findall(r"\]\((\.\./[\w./-]+)", GUIDE):
        assert (ROOT / "docs" / "guides" / path).exists(), path


def test_what_is_submitted_queued_cancelled_and_gone(
    scripts: Path, phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = str(write_grid(tmp_path / "g.yaml", seeds=[0, 1]))
    places = ("--data-dir", str(phantom_data), "--results-dir", str(tmp_path / "results"))
    asked = ("run", "--grid", grid, "--executor", "slurm", "--slurm", "partition=short,jobs_per_task=2", "--no-wait")
    code, _, err = call(*asked, *places)
    assert code == 0 and "submitted 4 jobs in 2 tasks: Slurm array 7" in err
    words = calls(scripts, "sbatch")
    assert "--partition=short" in words and "--array=0-1" in words and "--signal=B:USR1@120" in words
    folder = Path(words[-1])
    assert words[-4:-1] == ["-m", "sslbench", "task"]
    assert (folder / "run.sh").read_text() == '#!/bin/sh\nexec "$@"\n'
    tasks = json.loads((folder / "tasks.json").read_text())["tasks"]
    assert [[name.split("/")[2].split("+")[0] for name in task] for task in tasks] == [["supervised", "cps"]] * 2
    assert all("seed-0" in name for name in tasks[0]) and all("seed-1" in name for name in tasks[1])
    first = Run(tmp_path / "results" / "runs" / tasks[0][0])
    assert first.submission()["task"] == "7_0" and first.directory.joinpath("slurm.log").is_symlink()

    (scripts / "squeue.txt").write_text("7_0|PENDING|Priority\n7_1|RUNNING|None\n")
    status = json.loads(call("status", "--json", *places)[1])["runs"]
    assert [row["state"] for row in status] == ["queued"] * 4
    shown = call("status", *places)[1]
    assert "4 queued; Slurm: " in shown and "2 PENDING (Priority)" in shown and "2 RUNNING" in shown
    assert "Slurm has 4 jobs of these already" in call(*asked, *places)[2]

    code, _, err = call("cancel", grid, "--only", "method=cps", *places)
    assert code == 0 and "cancelled 0 tasks" in err and "task 7_0 stays" in err and calls(scripts, "scancel") == []
    assert "cancelled 1 task, 1 of them running" in call("cancel", grid, "--seed", "1", *places)[2]
    assert calls(scripts, "scancel") == ["7_1"]

    (scripts / "squeue.txt").unlink()
    (scripts / "squeue.error").write_text("slurm_load_jobs error: Invalid job id specified\n")
    row = json.loads(call("status", "--json", *places)[1])["runs"][0]
    assert row["state"] == "pending" and "is no longer known to Slurm" in row["error"]
    (scripts / "sacct.error").unlink()
    (scripts / "sacct.txt").write_text("7_0|TIMEOUT\n7_1|CANCELLED by 0\n")
    errors = {row["error"].split(";")[0] for row in json.loads(call("status", "--json", *places)[1])["runs"]}
    assert errors == {"Slurm's task 7_0 ended: TIMEOUT", "Slurm's task 7_1 ended: CANCELLED"}


def test_what_slurm_refuses_is_one_line_and_leaves_no_submission(
    scripts: Path, phantom_data: Path, tmp_path: Path
) -> None:
    (scripts / "sbatch.error").write_text("sbatch: error: invalid partition specified: none\n")
    grid = str(write_grid(tmp_path / "g.yaml"))
    places = ("--data-dir", str(phantom_data), "--results-dir", str(tmp_path / "results"))
    code, _, err = call("run", "--grid", grid, "--executor", "slurm", "--slurm", "partition=none", *places)
    assert code == 1 and "sbatch: invalid partition specified: none" in err
    assert not list((tmp_path / "results" / slurm.SUBMISSIONS).iterdir())


def test_without_slurm_the_directories_speak(
    scripts: Path, phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = str(write_grid(tmp_path / "g.yaml"))
    places = ("--data-dir", str(phantom_data), "--results-dir", str(tmp_path / "results"))
    assert call("run", "--grid", grid, "--executor", "slurm", "--no-wait", *places)[0] == 0
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    code, out, err = call("status", *places)
    assert code == 0 and "2 pending" in out and "warning: Slurm's view is missing: there is no squeue" in err
    code, _, err = call("cancel", *places)
    assert code == 2 and "there is no squeue on this machine" in err
    more = ("--only", "method=cps", "--force")
    code, _, err = call("run", "--grid", grid, "--executor", "slurm", "--no-wait", *more, *places)
    assert code == 2 and "there is no " in err


def test_options_are_read_as_one_would_write_them() -> None:
    read = SlurmOptions.read(["partition=a,b,time=1-0:00,gpus_per_node=a100:2", "exclusive", "jobs_per_task=4"])
    assert read.options == {"partition": "a,b", "time": "1-0:00", "gpus-per-node": "a100:2", "exclusive": ""}
    assert (read.gpus, read.slots, read.threads) == (2, 2, 1)
    words = read.words(3, 2, Path("logs"))
    assert {"--partition=a,b", "--exclusive", "--array=0-2%2", "--output=logs/%A_%a.log"} <= {*words}
    assert SlurmOptions.read(["gres=gpu:a100:4"]).gpus == 4 and SlurmOptions.read(["gres=tmp:5"]).gpus == 0
    side = SlurmOptions.read(["cpus-per-task=8,jobs_per_task=4,side_by_side=2"])
    assert (side.slots, side.threads) == (2, 4)


@pytest.mark.parametrize("text", ["array=3", "output=x", "jobs_per_task=0", "grace=soon", "=3", "Partition=a"])
def test_options_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError):
        SlurmOptions.read([text])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--slurm", "time=3"), "add --executor slurm"),
        (("--executor", "slrum"), "did you mean slurm"),
        (("--executor", "slurm", "--per-gpu", "2"), "say nothing of Slurm's nodes"),
        (("--gpus", "first"), "write 0,2 or 0-3"),
        (("--gpus", "0", "--device", "cpu"), "do not go together"),
        (("--executor", "slurm", "--max-hours", "3"), "do not go together"),
        (("--executor", "slurm", "--fail-fast"), "do not go together"),
    ],
)
def test_what_does_not_go_together(words: tuple[str, ...], said: str, phantom_data: Path, tmp_path: Path) -> None:
    grid = str(write_grid(tmp_path / "g.yaml"))
    code, _, err = call("run", "--grid", grid, *words, "--data-dir", str(phantom_data))
    assert code == 2 and said in err


def test_slurm_is_not_asked_at_every_look(scripts: Path) -> None:
    now = [0.0]
    queue = SlurmQueue(lambda: now[0])
    for moment, asked in ((0.0, 1), (5.0, 1), (slurm.ASK_EVERY_S, 2)):
        now[0] = moment
        queue.look([slurm.Placed("7_0", Path("log"))])
        assert calls(scripts, "squeue").count("--array") == asked
