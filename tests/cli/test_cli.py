"""The command line: help, listings, exit codes, one line per error and never a traceback."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from sslbench import cli
from sslbench.cli.terminal.runs import runs
from sslbench.core.errors import SSLBenchError
from sslbench.execution import local
from sslbench.execution.left import Left
from tests.helpers.command_line import call
from tests.helpers.jobs import TINY


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """`call` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSLBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SSLBENCH_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("COLUMNS", "200")
    return call


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['sslbench', {!r}]\n"
        "try:\n    import sslbench.cli; sslbench.cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {{'torch', 'monai', 'pandas', 'numpy', 'scipy', 'nibabel', 'SimpleITK'}} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    for flag in ("--help", "--version"):
        subprocess.run([sys.executable, "-c", code.format(flag)], check=True, capture_output=True)


@pytest.mark.parametrize(
    "verb", ["prepare", "run", "evaluate", "report", "status", "validate", "list", "show", "doctor", "published"]
)
def test_every_verb_has_help(verb: str, run: Any) -> None:
    code, out, _ = run(verb, "--help")
    assert code == 0 and "Usage" in out


@pytest.mark.parametrize(
    "what", ["methods", "losses", "plugins", "weightings", "datasets", "recipes", "networks", "protocols", "grids"]
)
def test_every_listing_is_a_list_of_objects_with_names_and_aliases(what: str, run: Any) -> None:
    code, out, _ = run("list", what, "--json")
    rows = json.loads(out)
    assert code == 0 and isinstance(rows, list)
    for row in rows:
        assert row["name"] and isinstance(row["aliases"], list) and row["about"], row
    assert run("list", what)[0] == 0


def test_presets_are_listed_behind_what_they_configure(run: Any) -> None:
    rows = json.loads(run("list", "losses", "--json")[1])
    preset = next(row for row in rows if row["name"] == "ga_labeled_only")
    assert preset["preset_of"] == "ga" and preset["set"] == {"applies_to": "label"}


USAGE = [
    (["list", "metods"], "unknown listing 'metods'", "methods"),
    (["run"], "missing --recipe, --method, --labeled", "--grid"),
    (["run", "quick"], "unexpected argument 'quick'", "--grid quick"),
    (["run", "--grid"], "no dataset is prepared", "sslbench prepare"),
    (["run", "--grid", "quik"], "unknown grid 'quik'", "quick"),
    (["run", "--grid", "quick"], "phantom has not been prepared", "sslbench prepare phantom"),
    (["run", "--grid", "quick", "-m", "cps"], "--grid and -m do not go together", ""),
    (["run", "-r", "phantom", "-m", "cpss", "--labeled", "20%"], "unknown method 'cpss'", "cps"),
    (["run", "-r", "phantom", "-m", "cps", "-l", "gaa", "--labeled", "20%"], "unknown loss 'gaa'", "ga"),
    (["run", "-r", "fantom", "-m", "cps", "--labeled", "20%"], "unknown recipe 'fantom'", "phantom"),
    (["run", "-r", "phantom", "-m", "cps", "--labeled", "21%"], "unknown label budget", "20%"),
    (["run", "-r", "phantom", "-m", "cps", "--labeled", "20%", "-s", "x"], "cannot read the seed 'x'", "0-2"),
    (["run", "-r", "phantom", "-m", "cps[on=all", "--labeled", "20%"], "cannot read 'cps[on=all'", "option=value"),
    (["run", "-r", "phantom", "-m", "cps[of=all]", "--labeled", "20%"], "unknown field", "on"),
    (["run", "-r", "phantom", "-m", "cps", "--labeled", "20%", "--set", "optimizer.lrr=1"], "lrr", "optimizer.lr"),
    (["run", "-r", "phantom", "-m", "cps", "--labeled", "20%", "--set", "optimizer.lr=fast"], "optimizer.lr", ""),
    (["run", "-r", "phantom", "-m", "cps", "--labeled", "20%", "--set", "lr"], "PATH=VALUE", "optimizer.lr"),
    (["report"], "no finished run", "sslbench run"),
    (["report", "quick", "--latex", "--csv"], "do not go together", "one format"),
    (["validate", "nothing.yaml"], "no grid file nothing.yaml", ""),
    (["prepare", "acdc"], "acdc", "--source"),
    (["prepare", "acdc", "--source", "nowhere"], "nowhere", ""),
    (["prepare", "acdcc"], "unknown dataset 'acdcc'", "acdc"),
    (["prepare", "phantom", "--preprocessing", "gaa"], "unknown preprocessing", "ga"),
    (["run", "-r", "phantom", "-m", "cps", "--labeled", "20%", "-s", "3-1"], "cannot read the seed '3-1'", "0-2"),
    (["run", "--grid", "quick", "--device", "gpu", "-n"], "unknown device 'gpu'", "cuda"),
    (["report", "quick", "--json", "--csv"], "do not go together", "one format"),
    (["report", "--checkpoint", "first"], "unknown checkpoint rule 'first'", "best-val, last"),
    (["report", "quick", "-o", "table.md"], "-o needs a format", "--markdown"),
    (["show", "metod", "cps"], "unknown kind of thing to show 'metod'", "method"),
    (["show", "method", "cpss"], "unknown method 'cpss'", "cps"),
    (["run", "--no-such-option"], "no such option", "sslbench run --help"),
    (["run", "-j", "0"], "'--jobs'", "sslbench run --help"),
    (["frobnicate"], "no such command", "sslbench --help"),
    (["validate"], "missing argument", "sslbench validate --help"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message", "hint"), USAGE, ids=[" ".join(line[0])[:60] for line in USAGE])
def test_wrong_usage_is_one_line_a_hint_and_exit_code_2(
    arguments: list[str], message: str, hint: str, run: Any, tmp_path: Path
) -> None:
    code, out, err = run(*arguments)
    assert code == 2 and message in err and hint in err
    assert err.startswith("error:") and len(err.splitlines()) <= 2 and not out
    assert not (tmp_path / "results").exists()


def test_without_a_command_there_is_help_and_exit_code_2(run: Any) -> None:
    code, out, err = run()
    assert code == 2 and "Usage" in out + err and "error:" not in err


def test_what_nobody_foresaw_is_one_line_too_and_debug_shows_where(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(what: str) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr("sslbench.cli.listing.listing", broken)
    code, out, err = run("list", "methods")
    assert code == 1 and not out
    assert err.splitlines() == ["error: KeyError: 'surprise'", "       a bug in sslbench: --debug shows where"]
    monkeypatch.setattr(sys, "argv", ["sslbench", "list", "methods", "--debug"])
    with pytest.raises(KeyError):
        cli.main()
    assert run("list", "methods", "--debug", "--no-debug")[0] == 1


def test_a_warning_is_one_line(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def grumble(what: str) -> list[dict[str, Any]]:
        warnings.warn("a package [of somebody] is broken", stacklevel=1)
        return []

    monkeypatch.setattr("sslbench.cli.listing.listing", grumble)
    code, out, err = run("list", "methods", "--json")
    assert code == 0 and json.loads(out) == [] and err == "warning: a package [of somebody] is broken\n"


def test_every_flag_can_be_switched_off() -> None:
    actions = {"help", "version", "install_completion", "show_completion"}
    app = typer.main.get_command(cli.app)
    for command in [app, *app.commands.values()]:  # type: ignore[attr-defined]
        for option in command.params:
            if getattr(option, "is_flag", False) and option.name not in actions:
                assert option.secondary_opts, f"{command.name} {option.opts}"


@pytest.mark.parametrize("width", [80, 120])
def test_help_says_what_it_means_at_any_width(width: int, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = run("run", "--help")
    assert code == 0 and max(map(len, out.splitlines())) <= width
    words = " ".join(out.replace("│", " ").split())
    # Rich takes square brackets for markup, and drops what it does not understand.
    assert "name[option=value]" in words and "SSLBENCH_RESULTS, else results/." in words


def test_a_terminal_that_cannot_show_a_letter_gets_no_traceback() -> None:
    code = "import sys; sys.argv = ['sslbench', 'show', 'protocol', 'ga']; from sslbench.cli import main; main()"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0 and b"protocol ga" in done.stdout and not done.stderr


BAD_GRIDS = {
    "syntax": ("jobs: [", "bad.yaml:"),
    "no mapping": ("- 1\n- 2", "no mapping"),
    "unknown key": ("recipe: phantom\nlabeled: 20%\njobbs: []", "jobbs"),
    "missing jobs": ("recipe: phantom", "jobs"),
    "duplicate key": ("recipe: phantom\nrecipe: phantom\njobs: []", "stands twice"),
    "no method": ("recipe: phantom\nlabeled: 20%\njobs: [{loss: ga}]", "method"),
    "wrong type": ("recipe: phantom\nlabeled: 20%\nseeds: [one]\njobs: [{method: cps}]", "seeds"),
    "unknown method": ("recipe: phantom\nlabeled: 20%\njobs: [{method: cpps}]", "cpps"),
    "nothing": ("recipe: phantom\nlabeled: 20%\njobs: []", "names no job"),
    "bad path": ("recipe: phantom\nlabeled: 20%\njobs: [{method: cps, set: {loss.gama: 1}}]", "gama"),
    "not text": ("recipe: \x00", "bad.yaml"),
}


@pytest.mark.parametrize("fault", BAD_GRIDS)
def test_a_bad_grid_is_told_in_one_line(fault: str, run: Any, tmp_path: Path) -> None:
    content, message = BAD_GRIDS[fault]
    (tmp_path / "bad.yaml").write_text(content)
    for verb in (["validate", "bad.yaml"], ["run", "--grid", "bad.yaml"]):
        code, _, err = run(*verb)
        assert code == 2 and message in err
        assert len(err.splitlines()) <= 2


def test_validate_shows_every_value_with_its_layer(run: Any) -> None:
    code, out, _ = run("validate", "quick", "--set", "optimizer.lr=0.001")
    assert code == 0
    assert "command line" in out and "recipe phantom" in out and "override 1" in out and "default" in out
    assert "8 jobs, 4 configurations: valid" in out
    rows = json.loads(run("validate", "quick", "--json")[1])
    assert len(rows) == 4 and all(row["layers"].keys() == row["values"].keys() for row in rows)


def test_a_dry_run_writes_nothing_and_ends_with_0(run: Any, tmp_path: Path) -> None:
    code, out, err = run("run", "--grid", "quick", "--dry-run")
    assert code == 0 and "8 jobs, 8 to run" in out and "not ready" in err
    code, out, err = run("run", "--grid", "quick", "-n", "--json", "-j", "1", "--device", "cpu")
    plan = json.loads(out)
    assert code == 0 and "not ready" in err and "phantom has not been prepared" in plan["missing_data"]
    assert plan["to_run"] == 8 and plan["devices"] == ["cpu"]
    for job in plan["jobs"]:
        assert job["run"].startswith("phantom/20pct/") and job["run"].endswith(f"seed-{job['seed']}-{job['digest']}")
        assert (job["state"], job["action"], job["outcome"]) == ("pending", "run", None)
        assert job["job"]["seed"] == job["seed"] and job["job"]["method"] in ("supervised", "cps")
    assert not (tmp_path / "results").exists() and not (tmp_path / "data").exists()


def test_the_outcome_of_a_run_is_json_too(run: Any, phantom_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(self: local.Launcher, force: bool = False) -> int:
        for planned in self.plan:
            planned.outcome = "finished"
        self.plan[0].outcome, self.plan[0].reason = "failed", "no [memory]"
        return 1

    monkeypatch.setattr(local.Launcher, "run", launch)
    line = ("run", "--grid", "quick", "--data-dir", str(phantom_data), "--device", "cpu")
    code, out, err = run(*line, "--json")
    jobs = json.loads(out)["jobs"]
    assert code == 1 and [job["outcome"] for job in jobs] == ["failed"] + ["finished"] * 7
    assert jobs[0]["reason"] == "no [memory]" and "no [memory]" in err and "7 finished, 1 failed" in err
    code, out, err = run(*line, "--quiet")
    assert code == 1 and not out and not err


def test_a_device_that_is_not_there_is_told_before_anything_starts(
    run: Any, phantom_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    line = ("run", "--grid", "quick", "--data-dir", str(phantom_data), "--device")
    code, _, err = run(*line, "cuda:1")
    assert code == 2 and "there is no device 'cuda:1'" in err and "sslbench doctor" in err
    assert not (tmp_path / "results").exists()
    code, out, _ = run(*line, "cuda:1", "--dry-run")  # a plan for another machine
    assert code == 0 and "on cuda:1" in out


def test_without_a_name_the_prepared_dataset_decides(run: Any, small_data: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "phantom").symlink_to(small_data / "phantom")
    code, out, _ = run("run", "--grid", "--dry-run")
    assert code == 0 and "8 jobs" in out
    for dataset in ("acdc", "synapse"):
        (tmp_path / "data" / dataset / "some").mkdir(parents=True)
        (tmp_path / "data" / dataset / "some" / "dataset.json").write_text("{}")
    code, _, err = run("run", "--grid")
    assert code == 2 and "acdc-short (acdc)" in err and "phantom" not in err


def test_seeds_and_lists_are_read_as_users_write_them(run: Any) -> None:
    small = [part for path, value in TINY.items() for part in ("--set", f"{path}={json.dumps(value)}")]
    line = ["run", "-r", "phantom", "-m", "supervised,cps", "-l", "default,ga[gamma=0.75]", "--labeled", "20%,10%"]
    code, out, _ = run(*line, "--seed", "0-2,7", *small, "-n")
    assert code == 0 and f"{2 * 2 * 2 * 4} jobs" in out
    assert "loss.gamma=0.75" in out


def test_prepare_download_prints_the_way_where_registration_is_needed(run: Any) -> None:
    code, out, err = run("prepare", "la", "--download")
    assert (code, out) == (2, "")
    assert "1. Open https://www.cardiacatlas.org" in err and "sslbench prepare la --source" in err
    assert "la cannot be downloaded by sslbench" in err
    code, _, err = run("prepare", "la", "--download", "--source", "x")
    assert code == 2 and "--source and --download do not go together" in err
    _, out, _ = run("show", "dataset", "la")
    assert "1. Open https://www.cardiacatlas.org" in out and "uamt-h5" in out


def test_prepare_download_fetches_says_what_is_untried_and_prepares(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sslbench.data.datasets.amos import AMOS
    from sslbench.data.files import download

    def fetch(remote: Any, folder: Path, transfer: Any) -> Path:
        transfer(remote.file, 1, 2)
        raise SSLBenchError("the network is down", "later")

    monkeypatch.setattr(download, "fetch", fetch)
    code, _, err = run("prepare", "amos", "--download")
    assert code == 1 and "the network is down" in err
    assert f"downloads {AMOS.remote.url}, licence CC BY 4.0" in err and "untried" in err


def test_prepare_says_what_it_did_and_a_second_time_has_nothing_to_do(few_cases: None, run: Any) -> None:
    line = ["prepare", "phantom", "--set", "size=[24,20,18]", "--workers", "1"]
    code, out, _ = run(*line)
    assert code == 0 and "3 written, 0 unchanged, 0 failed" in out and "a subset: 3 of 30" in out
    code, out, _ = run(*line)
    assert code == 0 and "0 written, 3 unchanged, 0 failed" in out
    code, out, err = run(*line, "--json")
    report = json.loads(out)
    assert code == 0 and not err and report["unchanged"] == report["found"] == 3 and report["official"] == 30
    assert Path(report["folder"]).parts[-2:] == ("phantom", "native") and report["failed"] == {}


def test_a_damaged_case_is_named_kept_out_and_the_exit_code_is_1(run: Any, small_data: Path, tmp_path: Path) -> None:
    source = tmp_path / "raw"
    shutil.copytree(small_data / "phantom/raw", source)
    damaged = source / "RawData/Training/img/img0002.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    line = ("prepare", "synapse", "--source", str(source), "--preprocessing", "native", "--workers", "1")
    code, out, err = run(*line)
    assert code == 1 and "2 written" in out and "1 failed" in out
    assert "0002" in err and "img0002.nii.gz" in err
    code, out, err = run(*line, "--json")
    assert code == 1 and list(json.loads(out)["failed"]) == ["0002"] and "img0002.nii.gz" in err


# ------------------------------------------------------------------------------------------------------- status


def finished_run(results: Path, cell: str, seed: int, digest: str, dsc: float) -> Path:
    """A run directory as a finished job leaves it, with one test case of one class."""
    folder = results / "runs/phantom/20pct" / cell / f"seed-{seed}-{digest[:8]}"
    folder.mkdir(parents=True)
    method, loss = cell.split("+")
    job = {"recipe": "phantom", "method": method, "loss": loss, "plugin": None, "labeled": "20pct", "seed": seed}
    values = {"dataset": "phantom", "splits": "ga", "checkpoint": "best-val"}
    (folder / "config.yaml").write_text(yaml.safe_dump({"job": {**job, "set": {}}, "digest": digest, "values": values}))
    (folder / "status.json").write_text(json.dumps({"state": "finished", "attempts": 1}))
    metrics = (("dsc", dsc, "fraction"), ("asd", 2.5, "mm"))
    rows = [f"native,0004,1,sp,{metric},{value},{unit},both,10,10" for metric, value, unit in metrics]
    header = "protocol,case,class_id,class,metric,value,unit,state,ref_voxels,pred_voxels"
    (folder / "cases.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def test_status_tells_every_run_and_why_one_failed(run: Any, tmp_path: Path) -> None:
    code, out, err = run("status")
    assert code == 0 and not out and err == "no runs yet: sslbench run --grid [NAME]\n"
    nothing = {"jobs": 0, "seconds": 0, "lanes": 1, "measured": 0, "modelled": 0, "unknown": 0, "assumed": False}
    assert json.loads(run("status", "--json")[1]) == {"runs": [], "left": nothing}
    finished_run(tmp_path / "results", "cps+default", 0, "0123456789abcdef", 0.5)
    failed = finished_run(tmp_path / "results", "cps+ga", 1, "fedcba9876543210", 0.5)
    (failed / "status.json").write_text(json.dumps({"state": "failed", "attempts": 2, "error": "no [memory] left"}))
    code, out, _ = run("status")
    assert code == 0 and "2 runs: 1 finished, 1 failed" in out
    assert "failed: phantom/20pct/cps+ga/seed-1-fedcba98" in out and "no [memory] left" in out
    rows = json.loads(run("status", "--json")[1])["runs"]
    assert [row["state"] for row in rows] == ["finished", "failed"]
    assert rows[1] == {
        "run": "phantom/20pct/cps+ga/seed-1-fedcba98", "recipe": "phantom", "labeled": "20pct", "cell": "cps+ga",
        "seed": 1, "digest": "fedcba98", "state": "failed", "attempts": 2, "error": "no [memory] left", "progress": {},
        "share": None, "score": None, "training_seconds": None, "left": None,
    }  # fmt: skip
    assert rows[0]["score"] == {"metric": "dsc", "value": 0.5}  # of its records, as its worker did not say it


def drawn(width: int, rows: list[dict[str, Any]]) -> list[str]:
    text = io.StringIO()
    runs(Console(file=text, width=width), rows, Left(None, 1, 0, 0, 0, False, {}))
    return text.getvalue().splitlines()


def row(cell: str, seed: int = 0, state: str = "finished", digest: str = "01234567", **fields: Any) -> dict[str, Any]:
    place = {"recipe": "ga-synapse", "labeled": "20pct", "cell": cell, "seed": seed, "digest": digest}
    return {**place, "run": f"r/{seed}", "state": state, "error": "", "progress": {}, **UNTOLD, **fields}


UNTOLD = {"share": None, "score": None, "training_seconds": None, "left": None}


@pytest.mark.parametrize(
    ("width", "seen"), [(80, []), (100, ["val. DSC", "81.2 %", "40 %"]), (120, ["it/s", "val. DSC", "81.2 %", "40 %"])]
)
def test_a_status_with_every_column_fits_and_breaks_no_word(width: int, seen: list[str]) -> None:
    running = {"stage": "training", "iteration": 12000, "iterations": 30000, "it_per_s": 6.4, "loss": 0.7123}
    rows = [
        row(
            "cps+ga",
            1337,
            "running",
            progress={**running, "validation": {"a": 0.812, "b": 0.6}},
            share=0.4,
            left={"seconds": 2812.0, "ground": "measured"},
        ),
        row("magicnet+ga+scdl~loss.gamma=0.75,network.norm=instance,schedule.iterations=100", 666, "interrupted"),
        row("mt+default", 0, "running", progress={"stage": "testing", "case": 2, "cases": 10, "loss": 0.2}),
        *(row("cps+default", seed, "pending") for seed in range(5)),
    ]
    lines = drawn(width, rows)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for whole in ("12000/30000", "46:52 min left", "interrupted", "testing 3/10", "1337"):
        assert whole in text
    assert "8 runs: 2 running, 1 interrupted, 5 pending" in text
    assert [word for word in ("it/s", "val. DSC", "81.2 %", "40 %") if word in text] == seen


def test_a_finished_run_tells_its_score_and_the_time_of_its_training() -> None:
    done = {"state": "finished", "training_seconds": 7800.0}
    rows = [row("cps+ga", score={"metric": "dsc", "value": 0.6431}, **done)]
    lines = drawn(80, rows)
    assert lines[0].split() == ["run", "seed", "state", "test", "DSC", "time"]
    assert lines[2].split() == ["cps+ga", "0", "finished", "64.3", "%", "2:10", "h"]
    lines = drawn(80, [*rows, row("mt+ga", score={"metric": "hd95", "value": 12.345}, **done)])
    assert "DSC 64.3 %" in lines[2] and "HD95 12.35" in lines[3]  # under protocols of different metrics


def test_runs_that_differ_in_version_alone_are_told_apart() -> None:
    text = "\n".join(drawn(100, [row("cps+ga"), row("cps+ga", digest="76543210"), row("cps+ga", seed=1)]))
    assert "0 01234567" in text and "0 76543210" in text and "1 01234567" not in text


# ------------------------------------------------------------------------------------------------------- report


def test_a_report_as_data_has_typed_numbers_and_its_runs(run: Any, tmp_path: Path) -> None:
    finished_run(tmp_path / "results", "cps+default", 0, "0123456789abcdef", 0.5)
    finished_run(tmp_path / "results", "cps+default", 1, "0123456789abcdef", 0.6)
    code, out, _ = run("report", "--json")
    (table,) = json.loads(out)
    assert code == 0 and table["name"] == "phantom-20pct" and "ddof 1" in table["measured"]
    assert [item["run"][-15:] for item in table["runs"]] == ["seed-0-01234567", "seed-1-01234567"]
    (average,) = [row for row in table["records"] if (row["class"], row["metric"]) == ("avg", "dsc")]
    assert average["mean"] == pytest.approx(55) and average["std"] == pytest.approx(50**0.5)
    assert (average["n"], average["expected"], average["unit"], average["method"]) == (2, 2, "percent", "cps")
    code, out, err = run("report", "quick", "--json")  # other digests: the grid's own runs are missing
    assert code == 2 and not out and "no result of grid quick" in err and "8 not started" in err
    code, out, err = run("report", "--protocol", "ga")
    assert code == 2 and not out and "2 not scored under ga" in err and "sslbench evaluate" in err
    code, out, err = run("report", "--checkpoint", "last")
    assert code == 2 and not out and "2 not tested with the weights of last" in err and "checkpoints: [best-val" in err
    code, out, _ = run("report", "--json", "-o", "table.json")
    assert code == 0 and not out and json.loads((tmp_path / "table.json").read_text())[0]["name"] == table["name"]


# ----------------------------------------------------------------------------------------------------- any grid

GRID: dict[str, Any] = {
    "description": "a grid",
    "recipe": "phantom",
    "labeled": ["20%", "10pct"],
    "seeds": [0, 1],
    "set": {"optimizer.lr": 0.01, "network": {"base_filters": 4}},
    "jobs": [
        {"method": ["supervised", "cps"], "loss": ["default", "ga[gamma=0.75]"]},
        {"method": "cps[on=all]", "labeled": "40%", "seeds": 7, "set": {"ramp.weight": 0.2}},
    ],
    "exclude": [{"method": "cps", "loss": "ga", "seeds": 1}],
    "table": {"columns": ["dsc", "dsc/class"], "groups": ["General"]},
}
TEXT = yaml.safe_dump(GRID, sort_keys=False)
VALUES: list[Any] = [
    None, True, 0, -1, 2**70, 1.5, float("nan"), float("inf"), "", "20%", "cps", "ga[", "ga[k=]", "cps[on=none]", "a.b",
    "..", "é", [], [[]], {}, {"": 1}, {"a": {"b": 1}}, [None], ["cps", None], [{}], {1: 2}, "nope.yaml", "unet",
    [0, 0, 0], [1, 2], "3-1", "phantom",
]  # fmt: skip
KEYS = [
    "method", "loss", "plugin", "labeled", "seeds", "set", "recipe", "name", "jobs", "x", "network", "network.name",
    "optimizer", "patch_size", "dataset", "splits", "protocol", "loss.gamma", "plugin.x", "", "a..b",
    "inference.stride", "checkpoint", "table", "columns",
]  # fmt: skip
SIGNS = [
    *"{}[]:,-#&*!|>'\"%@`\n\t abx.~=0\x00é\\",
    "<<: ",
    "*a",
    "&a ",
    "? ",
    "---\n",
    "- ",
    "!!python/name:os.system ",
]


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every node below the root."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


@st.composite
def wrong_content(draw: st.DrawFn) -> str:
    """The grid with one to three nodes replaced, removed, renamed or added."""
    tree = deepcopy(GRID)
    for _ in range(draw(st.integers(1, 3))):
        *outer, last = draw(st.sampled_from(list(places(tree))))
        node = tree
        for key in outer:
            node = node[key]
        what = draw(st.sampled_from(["replace", "remove", "rename", "add"]))
        if what == "replace" or isinstance(node, list):
            node[last] = deepcopy(draw(st.sampled_from(VALUES)))
        elif what == "add":
            node[draw(st.sampled_from(KEYS))] = deepcopy(draw(st.sampled_from(VALUES)))
        else:
            value = node.pop(last)
            if what == "rename":
                node[draw(st.sampled_from(KEYS))] = value
    return str(yaml.safe_dump(tree, allow_unicode=True))


@st.composite
def wrong_text(draw: st.DrawFn) -> str:
    """The grid's file with one to four places overwritten."""
    text = TEXT
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.integers(0, 3))
        text = text[:start] + draw(st.sampled_from(SIGNS)) + text[end:]
    return text


@settings(max_examples=150, deadline=None)
@given(content=wrong_content() | wrong_text())
def test_no_grid_however_wrong_ends_in_a_traceback(content: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("fuzz", numbered=True) / "grid.yaml"
    path.write_bytes(content.encode())
    code, out, err = call("validate", str(path))
    assert code in (0, 2), content
    if code == 2:
        assert not out and err.startswith("error:") and len(err.splitlines()) <= 2, content
