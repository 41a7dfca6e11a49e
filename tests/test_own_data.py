"""Data of one's own by the commands that users type: the guide is executed, every listing knows the dataset."""

from __future__ import annotations

import csv
import json
import re
import shlex
import types
from pathlib import Path
from typing import Any

import pytest

from sslbench.cli import completion
from sslbench.data.own.dataset import load_all
from sslbench.execution import worker
from sslbench.execution.executors import LocalWorkers
from tests.helpers import own_folders as folders
from tests.helpers.command_line import call

GUIDE = (Path(__file__).parents[1] / "docs" / "guides" / "own-data.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL) for line in block.splitlines() if line.strip()
]
CASES = tuple(f"m{number:02d}" for number in range(1, 21))
SMALL = ("network.base_filters=2", "batch.labeled=2", "batch.unlabeled=2", "precision=fp32")


class InThisProcess:
    """A worker that runs where it is started, but knows no more than a process of its own would."""

    pid = 0

    def __init__(self, workers: Any, run: Any, device: str) -> None:
        load_all(workers.data_dir / "nothing")
        self.code = worker.main(run.directory, workers.data_dir, device, workers.threads)

    def waits(self) -> bool:
        return False

    def poll(self) -> int:
        return self.code

    def stop(self) -> None:
        pass

    def kill(self) -> None:
        pass

    def last_words(self) -> str:
        return ""

    def close(self) -> None:
        pass


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """`call` in an empty folder, with workers in this process."""
    monkeypatch.chdir(tmp_path)
    for variable in ("SSLBENCH_DATA", "SSLBENCH_RESULTS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(LocalWorkers, "start", lambda *started: InThisProcess(*started))
    yield lambda line: call(*shlex.split(line)[1:])
    load_all(tmp_path / "nothing")


def test_the_guide_leads_to_a_table(shell: Any, tmp_path: Path) -> None:
    """Every command as it stands; trainings are made small, and the long one is planned only."""
    folders.nnunet(tmp_path / "Dataset007_Mine", CASES, shape=(24, 20, 18), spacing=(1.5, 1.25, 2.0))
    folders.pairs(tmp_path / "Slides", [f"s{number:02d}" for number in range(1, 10)])
    lists = re.search(r"```yaml\n# (my-lists\.yaml).*?\n(.*?)```", GUIDE, re.DOTALL)
    (tmp_path / lists[1]).write_text(lists[2])
    said = {}
    for line in COMMANDS:
        asked = line
        if line.startswith("sslbench run") and "schedule.iterations=3" in line:
            asked += "".join(f" --set {field}" for field in SMALL)
        elif line.startswith("sslbench run"):
            asked += " --dry-run"
        elif line.startswith("sslbench prepare"):
            asked += " -j 1"
        code, out, err = shell(asked)
        assert code == 0, (line, err)
        said[line] = out + err
    assert len(COMMANDS) >= 7
    first = next(text for line, text in said.items() if "--from-nnunet" in line)
    assert "20 cases" in first and "splits drawn-0: 14 train, 2 val, 4 test" in first
    table = said["sslbench report"]
    assert "mine (own data), 20% labelled. Recipe mine, splits drawn-0." in table
    assert re.search(r"Supervised +\d", table) and re.search(r"MT +\d", table) and "organ" in table
    assert "\\toprule" in (tmp_path / "table.tex").read_text()
    for folder in (tmp_path / "results" / "runs").glob("mine/20pct/*/seed-0-*"):
        record = json.loads((folder / "provenance.json").read_text())
        assert record["data"]["dataset"] == "mine" and len(record["splits"]["hash"]) == 64
        rows = list(csv.DictReader((folder / "cases.csv").open()))
        assert [row["class"] for row in rows[:8:4]] == ["organ", "tumour"] and len({row["case"] for row in rows}) == 4


@pytest.fixture
def slides(shell: Any, tmp_path: Path) -> Any:
    """A shell in whose data folder `slides` is prepared."""
    folders.pairs(tmp_path / "Slides", ["a", "b", "c", "d"])
    code, _, err = shell("sslbench prepare slides --from-pairs Slides --classes gland -j 1")
    assert code == 0, err
    return shell


def test_every_command_knows_data_of_ones_own(slides: Any, tmp_path: Path) -> None:
    code, out, _ = slides("sslbench list datasets --json")
    (row,) = [row for row in json.loads(out) if row["name"] == "slides"]
    assert code == 0 and "images with masks" in row["about"]
    assert "slides" in {row["name"] for row in json.loads(slides("sslbench list recipes --json")[1])}
    facts = json.loads(slides("sslbench show dataset slides --json")[1])
    assert [made["name"] for made in facts["splits"]] == ["drawn-0"] and facts["classes"][1]["name"] == "gland"
    facts = json.loads(slides("sslbench show recipe slides --json")[1])
    fields = {row["path"]: (row["value"], row["from"]) for row in facts["fields"]}
    assert facts["extends"] == ["generic/own-2d"] and fields["network.name"] == ("unet", "own-2d")
    assert fields["patch_size"] == ([32, 48], "slides")
    (tmp_path / "grid.yaml").write_text("recipe: slides\nlabeled: [100%]\njobs: [{method: supervised}]\n")
    assert "1 jobs, 1 configurations: valid" in slides("sslbench validate grid.yaml")[1]
    assert "pending" in slides("sslbench status grid.yaml")[1]
    checks = json.loads(slides("sslbench doctor --json")[1])["checks"]
    assert [check["status"] for check in checks if check["name"] == "slides/2d"] == ["ok"]
    code, out, err = slides("sslbench audit slides --json")
    assert code == 0, err
    code, _, err = slides("sslbench run --grid")
    assert code == 2 and "no grid for slides" in err and "sslbench run -r slides" in err


def test_the_shell_offers_data_of_ones_own(slides: Any, tmp_path: Path) -> None:
    def offered(complete: Any, unfinished: str = "", **params: Any) -> list[str]:
        return complete(types.SimpleNamespace(params=params, args=[]), unfinished)

    load_all(tmp_path / "nothing")
    assert offered(completion.datasets, "sl") == ["slides"] and offered(completion.recipes, "sl") == ["slides"]
    assert offered(completion.labeled, recipe="slides") == ["1-case", "100%"]
    assert offered(completion.preprocessings, dataset="slides") == ["2d"]
    assert offered(completion.names, kind="dataset", data_dir=Path("elsewhere")).count("slides") == 0


def test_what_was_defined_is_told_to_programs(slides: Any, tmp_path: Path) -> None:
    code, out, err = slides("sslbench prepare slides --from-pairs Slides -j 1 --json --quiet")
    told = json.loads(out)
    assert (code, err, told["unchanged"], told["splits"]) == (0, "", 4, ["drawn-0"])
    assert told["recipe"] == "data/slides/recipes/slides.yaml"
    (tmp_path / "own.json").write_text(json.dumps({"train": ["a", "b"], "test": ["c"]}))
    code, out, _ = slides("sslbench prepare slides --splits own.json --json")
    assert code == 0 and json.loads(out) == {"dataset": "slides", "splits": ["own"]}
    assert slides("sslbench prepare slides --source Slides -j 1")[0] == 0, "what is defined is prepared like any other"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("slides --from-pairs Slides --from-nnunet Slides", "--from-nnunet and --from-pairs do not go together"),
        ("slides --source Slides --from-pairs Slides", "--source and --from-pairs do not go together"),
        ("acdc --source Slides --classes a,b", "--classes belongs to data of your own"),
        ("slides --fractions 60,20,20", "--fractions belongs to data of your own"),
        ("new --from-pairs Slides --classes a --fractions 60,x", "cannot read the fractions '60,x'"),
        ("new --from-pairs Slides --classes a --fractions 60,20", "three numbers"),
        ("new --from-pairs Slides --classes a --dims 4", "less than or equal to 3"),
        ("new --from-pairs Slides --classes a --dims 3", "single slices.*--dims 2"),
        ("new --from-pairs Nowhere --classes a", "Nowhere does not exist"),
        ("new --from-pairs Slides", "--classes"),
        ("new --from-msd Slides", "no dataset.json in Slides"),
        ("la --from-pairs Slides --classes a", "there is a dataset 'la' already"),
        ("new --from-pairs Slides --classes a --splits nowhere.yaml", "no split file nowhere.yaml"),
        ("new --from-pairs Slides --classes a --budgets some", "'some'"),
        ("slides --splits nowhere.yaml", "no split file nowhere.yaml"),
        ("acdc --splits nowhere.yaml", "acdc needs a source"),
    ],
)
def test_wrong_usage_is_one_line_and_writes_nothing(slides: Any, tmp_path: Path, line: str, message: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    code, out, err = slides(f"sslbench prepare {line}")
    assert code == 2 and out == "" and re.search(message, err.replace("\n", " ")), err
    assert err.count("\n") <= 2 and sorted(tmp_path.rglob("*")) == before
