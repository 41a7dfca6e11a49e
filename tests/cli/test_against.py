"""`report --against` on real recipes: their digests join printed rows with measured ones. Nothing is trained."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sslbench.config.grid import Grid, load_grid
from sslbench.config.job import Job
from sslbench.config.published import published_table
from sslbench.reporting import against
from sslbench.reporting.tables import grid_report
from tests.helpers.command_line import call
from tests.helpers.paper_runs import write_run_of

Report = Callable[..., tuple[int, str, str]]


def score(job: Job, metric: str, name: str) -> float:
    """Alike for all classes; seeds lie apart by 1."""
    return (50.0 if metric == "dsc" else 5.0) + [1337, 0, 666, 1, 2].index(job.seed)


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    """Writes a grid and the runs of its jobs, and reports them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: str, grid: dict[str, Any] | None = None, seeds: int = 3) -> tuple[int, str, str]:
        if grid:
            Path("mine.yaml").write_text(yaml.safe_dump({"table": {"columns": ["dsc", "asd"]}} | grid))
            jobs = Grid(name="mine", **yaml.safe_load(Path("mine.yaml").read_text())).expand()
            for job in jobs:
                if job.seed in [1337, 0, 666, 1, 2][:seeds]:
                    write_run_of(job, Path("results"), score)
        return call("report", *arguments, "--results-dir", "results")

    return run


GA = {"recipe": "ga-synapse", "labeled": ["20%"], "jobs": [{"method": ["mt", "desco"]}]}


def rows_of(out: str) -> dict[str, dict[str, Any]]:
    return {row["row"]: row for row in json.loads(out)["rows"]}


def test_rows_of_one_digest_have_differences_and_a_misprint_has_none_to_rely_on(report: Report) -> None:
    code, out, err = report("mine.yaml", "--against", "ga:T1", "--json", grid=GA)
    assert (code, err) == (0, "")
    rows = rows_of(out)
    assert len(rows) == 24 and rows["MT"]["status"] == "compared" and rows["CPS"]["status"] == "not in the grid"
    dsc, asd = rows["MT"]["records"]
    assert (dsc["published"], dsc["published_std"], dsc["unit"]) == ("45.58", "1.9", "percent")
    # Population SDs √(2/3) and 1.9 of three: 1 and 1.9·√1.5 as sample SDs.
    assert dsc["difference"] == pytest.approx(5.42) and dsc["half_width"] == pytest.approx(
        against.half_width((1.0, 1.9 * 1.5**0.5), (3, 3))
    )
    assert asd["difference"] == pytest.approx(6 - 26.44) and asd["flag"] is None  # voxels on both sides
    assert rows["DeSCO"]["records"][0]["flag"] == "misprint" and rows["DeSCO"]["records"][0]["half_width"] is None
    summary = json.loads(out)["summary"]
    assert (summary["compared"], summary["rows"], summary["intervals"]) == (2, 24, 3)
    assert len(json.loads(out)["runs"]) == 6


def test_the_grid_says_what_it_is_held_against_and_words_may_stand_in_any_order(report: Report) -> None:
    grid = GA | {"table": {"of": "ga:T1", "columns": ["dsc"]}}
    shown = report("mine.yaml", "--against", grid=grid)[1]
    assert "Table 1: comparison of methods" in shown and re.search(
        r"MT +51\.00±0\.8 +45\.58±1\.9 +\+5\.42±4\.\d", shown
    )
    assert shown == report("--against", "ga:T1", "mine.yaml")[1] == report("mine.yaml", "--against", "ga-t1")[1]
    assert "51.00±0.8" in report("--against", "ga:T1")[1]  # of all runs there are
    assert "Recipe ga-synapse is known to differ from the paper. Preprocessing: re-imp" in " ".join(shown.split())


def test_a_short_grid_of_ones_own_gets_no_differences(report: Report) -> None:
    grid = GA | {"set": {"schedule.iterations": 1000}, "jobs": [{"method": ["mt", "cps", "uamt"], "loss": "ga"}]}
    code, out, _ = report("mine.yaml", "--against", "ga:T1", grid=grid, seeds=1)
    assert code == 0 and "schedule.iterations published 17 000, here 1 000" in " ".join(out.split())
    assert "Compared: 0 of 24 rows. Rank correlation of rows (Kendall's τ-b, Avg. DSC): none" in out
    assert "Δ:" not in out and re.search(r"GA-MT \(1/3\) +50\.00† +57\.67±3\.4", out)


def test_another_dataset_stands_beside_with_a_note(report: Report) -> None:
    grid = {"recipe": "phantom", "labeled": ["20%"], "jobs": [{"method": ["cps", "supervised"]}]}
    code, out, _ = report("mine.yaml", "--against", "ga:T1", grid=grid)
    told = " ".join(out.split())
    assert code == 0 and "dataset published synapse, here phantom" in told and "Compared: 0 of 24" in told
    assert re.search(r"CPS .*49±1\.2", out) and "ASD here mm, in print voxel" in told
    assert re.search(r"Not in the paper\s+Supervised", out)  # 20 % is not the paper's full supervision


@pytest.mark.parametrize(
    ("key", "grid", "row", "shown"),
    [
        ("dhc:T1", {"recipe": "dhc-synapse", "labeled": "20%", "jobs": [{"method": "cps"}]}, "CPS", r"\[0\.0\]"),
        ("ga:T2", {"recipe": "ga-amos", "labeled": "5%", "jobs": [{"method": "cps"}]}, "CPS", r"\d +dhc:T2"),
        ("dca:S-T1", {"recipe": "dca-acdc", "labeled": "5%", "jobs": [{"method": "dca"}]}, "DCA (Ours)²", r"90\.11"),
        ("metassl:T2", {"recipe": "metassl-digestpath", "labeled": "5%", "jobs": [{"method": "mt", "loss": "metassl"}]},
         "+MetaSSL", r"68\.55±18\.14\*"),
    ],
)  # fmt: skip
def test_odd_rows_of_print(report: Report, key: str, grid: dict[str, Any], row: str, shown: str) -> None:
    columns = {"table": {"columns": ["dsc", "dsc/lag"]}} if key == "dhc:T1" else {"table": {"columns": ["dsc"]}}
    code, out, err = report("mine.yaml", "--against", key, grid={**grid, "seeds": [1337]} | columns)
    assert code == 0, err
    assert any(line.startswith(row) and re.search(shown, line) for line in out.splitlines()), out


def test_a_table_of_a_paper_at_full_size(tmp_path: Path) -> None:
    grid = load_grid("ga-t1").model_copy(update={"seeds": [1337]})
    jobs = grid.expand()
    for job in jobs:
        write_run_of(job, tmp_path, score, cases=1)
    tables = grid_report(grid, jobs, tmp_path).tables
    comparison = against.compare(tables, published_table("ga:T1"), against.backgrounds(tables, tmp_path))
    assert [group.title for group in comparison.groups] == ["", "General", "Imbalance", ""]
    assert comparison.summary.compared == 24 and all(not row.settings for row in comparison.rows)
    assert str(comparison.summary).startswith("Compared: 24 of 24 rows, median |Δ| 9.71 (Avg. DSC).")


def test_latex_with_citations_and_their_bibliography(report: Report) -> None:
    code, out, err = report("mine.yaml", "--against", "ga:T1", "--latex", "--cite", grid=GA)
    assert code == 0 and r"MT~\cite{sslbench:mt}" in out and "also writes references.bib" in err
    assert report("mine.yaml", "--latex", "--cite", "-o", "out/table.tex")[0] == 0
    entries = Path("out/references.bib").read_text()
    assert set(re.findall(r"@\w+\{(.+?),", entries)) == {"sslbench:mt", "sslbench:desco"}
    assert r"\cite{sslbench:desco}" in Path("out/table.tex").read_text()
    assert Path("out/table.tex.manifest.json").exists()
    Path("out/references.bib").write_text("@book{mine,\n}\n")
    code, _, err = report("mine.yaml", "--latex", "--cite", "-o", "out/other.tex")
    assert code == 2 and "not overwritten" in err and not Path("out/other.tex").exists()


def test_the_grid_may_ask_for_citations_and_for_print_in_a_second_line(report: Report) -> None:
    grid = GA | {"table": {"of": "ga:T1", "columns": ["dsc"], "cite": True, "against": "line"}}
    out = report("mine.yaml", "--against", "--latex", grid=grid)[1]
    assert (
        r"& \shortstack{\textbf{51.00$\pm$0.8}\\{\tiny 45.58$\pm$1.9 (+5.42$\pm$4.9" in out
        and r"\cite{sslbench:mt}" in out
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mine.yaml", "--against"], "grid mine follows no published table"),
        (["--against"], "needs a published table"),
        (["mine.yaml", "ga:T1"], "unexpected argument 'ga:T1'"),
        (["mine.yaml", "--against", "ga:T99"], "unknown published table 'ga:T99'"),
        (["mine.yaml", "--against", "metassl:T3"], "metassl:T3 has no row of these jobs"),
        (["mine.yaml", "--cite"], "--cite is for LaTeX"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(report: Report, arguments: list[str], said: str) -> None:
    code, out, err = report(*arguments, grid=GA | {"jobs": [{"method": "desco"}], "seeds": [1337]})
    assert (code, out) == (2, "") and said in err and err.count("\n") <= 2
