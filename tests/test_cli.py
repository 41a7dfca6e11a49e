"""The command line: help, listings, exit codes, one line per error and never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sslbench import cli
from tests.conftest import TINY


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Run a command line in this process, in an empty folder; gives (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSLBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SSLBENCH_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sslbench", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return int(ended.value.code or 0), out, err

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


@pytest.mark.parametrize("verb", ["prepare", "run", "report", "status", "validate", "list"])
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
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message", "hint"), USAGE, ids=[" ".join(line[0])[:60] for line in USAGE])
def test_wrong_usage_is_one_line_a_hint_and_exit_code_2(
    arguments: list[str], message: str, hint: str, run: Any, tmp_path: Path
) -> None:
    code, out, err = run(*arguments)
    assert code == 2 and message in err and hint in err
    assert err.startswith("error:") and len(err.splitlines()) <= 2 and not out
    assert not (tmp_path / "results").exists()


def test_click_usage_errors_end_with_2_too(run: Any) -> None:
    assert run("run", "--no-such-option")[0] == 2
    assert run("frobnicate")[0] == 2


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
    assert not (tmp_path / "results").exists() and not (tmp_path / "data").exists()


def test_without_a_name_the_prepared_dataset_decides(run: Any, phantom_data: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "phantom").symlink_to(phantom_data / "phantom")
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


def test_prepare_says_what_it_did_and_a_second_time_has_nothing_to_do(run: Any) -> None:
    line = ["prepare", "phantom", "--set", "size=[24,20,18]", "--workers", "1"]
    code, out, _ = run(*line)
    assert code == 0 and "30 written, 0 unchanged, 0 failed" in out
    code, out, _ = run(*line)
    assert code == 0 and "0 written, 30 unchanged, 0 failed" in out


def test_a_damaged_case_is_named_kept_out_and_the_exit_code_is_1(run: Any, tmp_path: Path) -> None:
    run("prepare", "phantom", "--set", "size=[24,20,18]", "--workers", "1", "-q")
    damaged = tmp_path / "data/phantom/raw/RawData/Training/img/img0005.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    source = str(tmp_path / "data/phantom/raw")
    code, out, err = run("prepare", "synapse", "--source", source, "--preprocessing", "native", "--workers", "1")
    assert code == 1 and "29 written" in out and "1 failed" in out
    assert "0005" in err and "img0005.nii.gz" in err
