"""`sslbench demo`: what ran already is not run again; the table, the page, and what to do next."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sslbench.cli.demo import NEXT
from sslbench.config.grid import load_grid
from sslbench.config.job import Job
from sslbench.data.datasets import phantom
from sslbench.reporting.page import document
from sslbench.reporting.page.figures import Gallery
from tests.helpers.command_line import call
from tests.helpers.paper_runs import write_run_of

ROOT = Path(__file__).parents[2]


def score(job: Job, metric: str, name: str) -> float:
    return (50.0 + 4 * (job.loss == "ga") if metric == "dsc" else 5.0) + job.seed % 7


@pytest.fixture
def held(phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder in which a demo has come as far as the trainings of one seed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(document, "gallery", lambda *_: Gallery())
    # The phantom of the tests is coarser than the command's own: here the command finds what it would have made.
    monkeypatch.setattr(phantom.PhantomOptions.model_fields["size"], "default", (24, 20, 18))
    phantom.PhantomOptions.model_rebuild(force=True)
    shutil.copytree(phantom_data / "phantom", "sslbench-demo/data/phantom")
    for job in load_grid("quick").expand():
        if job.seed == 0:
            write_run_of(job, Path("sslbench-demo/results"), score, cases=2)
    yield tmp_path
    monkeypatch.undo()
    phantom.PhantomOptions.model_rebuild(force=True)


def test_it_goes_on_where_it_was_and_ends_with_table_page_and_what_is_next(held: Path) -> None:
    code, out, err = call("demo", "--seed", "0", "-j", "1")
    assert code == 0, err
    assert "0 written, 30 unchanged" in out and "GA-CPS" in out
    page = Path("sslbench-demo/results/reports/quick/report.html")
    lines = err.splitlines()
    assert page.read_text().startswith("<!doctype html>") and any(f"wrote {page}" in line for line in lines)
    assert lines[-len(NEXT) - 1] == "next, after cd sslbench-demo:"
    assert [line.split("#")[0].strip() for line in lines[-len(NEXT) :]] == list(NEXT)


def test_a_torch_for_a_gpu_that_is_not_there_trains_it_on_the_cpu(held: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    code, _, err = call("demo", "--seed", "0", "-j", "1", "-q")
    assert code == 0 and "trains on the CPU: torch is built for CUDA 13.0" in err
    data, results = "sslbench-demo/data", "sslbench-demo/results"
    code, _, err = call("run", "--grid", "quick", "--data-dir", data, "--results-dir", results)
    assert code == 2 and "sees no usable GPU" in err


def test_a_device_that_there_is_not_stops_it_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call("demo", "--device", "gpu")
    assert code == 2 and not out and "unknown device 'gpu'" in err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [each for each in NEXT if "NAME" not in each])
def test_what_is_named_as_next_works(
    command: str, phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSLBENCH_DATA", str(phantom_data))
    words = shlex.split(command)[1:]
    code, _, err = call(*words)
    assert code == 0, err


def test_without_what_the_page_needs_nothing_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = call("demo", "here")
    assert code == 2 and not out and "pip install 'sslbench[figures]'" in err and not list(tmp_path.iterdir())


def test_make_demo_is_this_command() -> None:
    words = ["make", "--no-print-directory", "-n", "demo"]
    lines = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[-1].endswith("bin/sslbench demo .")
