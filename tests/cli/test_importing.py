"""Predictions of other software become a row: scored as ours are, marked, never ranked."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from sslbench import load_results
from sslbench.config.grid import load_grid
from tests.helpers.command_line import call
from tests.helpers.foreign import write_foreign
from tests.helpers.paper_runs import write_run_of

GRID = {"recipe": "phantom", "labeled": ["20%"], "seeds": [0], "jobs": [{"method": ["supervised", "cps"]}]}
Import = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bring(small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Import:
    """Imports a folder with a label map for each test case."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setenv("SSLBENCH_DATA", str(small_data))
    monkeypatch.delenv("SSLBENCH_RESULTS", raising=False)
    write_foreign(small_data, Path("maps"), monkeypatch)

    def run(*more: str, name: str = "nnunet", seed: int = 0) -> tuple[int, str, str]:
        place = ["-r", "phantom", "--labeled", "20%", "--seed", str(seed), "-j", "1", "-q"]
        return call("import", name, "maps", *place, *more)

    return run


def test_a_row_of_its_own_in_every_table_of_the_recipe(bring: Import) -> None:
    assert bring("--title", "nnU-Net & co")[0] == 0
    Path("mine.yaml").write_text(yaml.safe_dump(GRID))
    for job in load_grid("mine.yaml").expand():
        write_run_of(job, Path("results"), lambda job, metric, name: 50.0 + len(job.method), cases=2)
    for arguments in (["mine.yaml"], []):
        code, out, _ = call("report", *arguments)
        assert code == 0 and re.search(r"Imported\s+nnU-Net & co‡ +\d+\.\d\d +-- ", out), out
        assert "‡ Trained elsewhere, training unverified" in out
    assert r"\textbf{60.00}" in call("report", "mine.yaml", "--latex")[1]  # the best that was trained here
    records = load_results("results")
    own = records[records["method"] == "nnunet"]
    assert set(own["value"][(own["metric"] == "dsc") & (own["state"] == "both")]) == {1.0}
    assert call("report", "mine.yaml", "--cases", "-o", "kept.csv.gz")[0] == 0
    assert call("bundle", "mine.yaml", "-o", "mine.zip")[0] == 0
    expected = call("report", "mine.yaml")[1]
    for what in ("kept.csv.gz", "mine.zip"):
        assert call("report", what)[1] == expected
        assert call("verify", what)[0] == 0
    cases = next(Path("results/imported").rglob("cases.csv"))
    cases.write_text(cases.read_text().replace("avd,0.0", "avd,1.0", 1).replace(",hd95,0.0", ",hd95,1.0", 1))
    shutil.copy("kept.csv.gz.manifest.json", "manifest.json")
    assert call("verify", "manifest.json")[0] == 1


def test_it_stands_once_for_a_seed(bring: Import) -> None:
    assert bring()[0] == 0 and bring(seed=1)[0] == 0
    assert "(2/2" not in call("report")[1] and re.search(r"nnunet‡ +\d+\.\d\d±0\.0", call("report")[1])
    code, _, err = bring()
    assert code == 2 and "is imported already" in err
    assert bring("--force")[0] == 0 and len(list(Path("results/imported").rglob("*.old-1"))) == 1
    assert set(load_results("results")["seed"]) == {0, 1}


def test_what_is_not_whole_is_not_imported(bring: Import) -> None:
    first = min(Path("maps").iterdir())
    Path("maps/extra.nii.gz").write_bytes(first.read_bytes())
    image = nib.load(first)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[1:], image.affine), first)
    code, _, err = bring()
    assert code == 1 and "1 prediction of maps cannot be scored" in err and first.name in err
    first.unlink()
    code, _, err = bring()
    assert code == 2 and "maps lacks 1 of" in err and first.name.removesuffix(".nii.gz") in err
    assert bring(name="a+b")[0] == 2
    assert not Path("results").exists()


def test_predictions_are_scored_again(bring: Import) -> None:
    assert bring()[0] == 0
    run = next(Path("results/imported").rglob("cases.csv")).parent
    shutil.copytree("maps", run / "predictions")
    assert call("report", "--cases", "-o", "kept/cases.csv.gz")[0] == 0
    assert call("bundle", "-o", "mine.zip", "--predictions")[0] == 0
    shutil.move("kept/cases.csv.gz.manifest.json", "manifest.json")
    for what in ("manifest.json", "mine.zip"):
        code, out, _ = call("verify", what, "--predictions", "-j", "1", "-q")
        assert code == 0 and out.endswith("; predictions of 1 of 1 runs score the same\n"), out
    path = min((run / "predictions").iterdir())
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.roll(np.asarray(image.dataobj), 1, 0), image.affine), path)
    code, out, _ = call("verify", "manifest.json", "--predictions", "-j", "1", "-q")
    assert code == 1 and "its predictions score otherwise, first in " in out
    shutil.rmtree(run / "predictions")
    code, out, _ = call("verify", "manifest.json", "--predictions", "-q")
    assert code == 1 and "its predictions are not here" in out
