"""Records as Parquet: what pandas reads is the tidy frame, what they are of is in the file's metadata."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet
import pytest

import sslbench
from sslbench import load_results
from sslbench.config.grid import load_grid
from sslbench.config.job import Job
from sslbench.core.version import code_state
from tests.helpers.command_line import call
from tests.helpers.paper_runs import write_run_of

FILE = "cases.parquet"


def score(job: Job, metric: str, name: str) -> float | None:
    if name == "lag" and job.seed:  # an excluded value
        return None
    return (50.0 if metric == "dsc" else 5.0) + job.seed + len(name) / 3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parquet")
    for job in load_grid("quick").expand():
        write_run_of(job, folder / "results", score, cases=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        code, _, err = call("report", "quick", "--cases", "-o", FILE, "--results-dir", "results")
    assert code == 0 and err == f"wrote {FILE}, its manifest in its metadata\n"
    return folder


@pytest.fixture(autouse=True)
def _there(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    monkeypatch.delenv("SSLBENCH_RESULTS", raising=False)


def test_pandas_and_sslbench_read_the_tidy_frame_back() -> None:
    frame = load_results("results")
    assert frame["value"].isna().any()
    for read in (pd.read_parquet(FILE), load_results(FILE)):  # in the grid's order of runs
        pd.testing.assert_frame_equal(
            read.sort_values("run", kind="stable", ignore_index=True), frame, check_exact=True
        )


def test_the_file_says_what_it_is_of() -> None:
    held = pyarrow.parquet.read_schema(FILE).metadata
    assert held[b"sslbench"].decode() == sslbench.__version__ and held[b"sslbench.commit"].decode() == code_state()
    manifest = json.loads(held[b"sslbench.manifest"])
    frame = load_results(FILE)
    assert {run["digest"] for run in manifest["runs"]} == set(frame["digest"])
    assert all(len(run["sha256"]["records"]) == 64 for run in manifest["runs"])


def test_every_command_reads_it_as_it_reads_the_runs() -> None:
    assert call("report", FILE) == call("report", "quick")
    code, out, err = call("verify", FILE)
    assert code == 0 and "0 differ; 8 of 8 records unchanged" in out, err


def test_an_edited_number_is_found(tmp_path: Path) -> None:
    table = pyarrow.parquet.read_table(FILE)
    frame = table.to_pandas()
    asd = frame.index[frame["metric"] == "asd"][0]
    frame.loc[asd, "value"] += 1
    edited = pyarrow.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(table.schema.metadata)
    pyarrow.parquet.write_table(edited, tmp_path / FILE)
    code, out, _ = call("verify", str(tmp_path / FILE))
    assert code == 1 and "differ" in out


def test_what_cannot_be_read_or_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / FILE
    broken.write_bytes(Path(FILE).read_bytes()[:100])
    code, _, err = call("report", str(broken))
    assert code == 2 and "is no file of results: it cannot be read" in err
    code, _, err = call("report", "quick", "--cases", "-o", "cases.feather")
    assert code == 2 and "end it in .csv, .csv.gz, .parquet" in err
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for arguments in (("report", "quick", "--cases", "-o", "other.parquet"), ("report", FILE)):
        code, _, err = call(*arguments)
        assert code == 2 and "pip install 'sslbench[parquet]'" in err
    assert not Path("other.parquet").exists()
