"""Shell completion: names from the registries' index and from files, in the shell's own protocol, without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sslbench.cli import completion
from sslbench.cli.listing import LISTS
from sslbench.cli.show import SHOW_KINDS
from sslbench.config.recipe import recipe_names
from sslbench.config.splits import load_splits
from sslbench.core import registry
from tests.helpers.command_line import offered


def test_names_are_those_of_the_registries() -> None:
    for kind, completer in (
        ("method", completion.methods),
        ("loss", completion.losses),
        ("plugin", completion.plugins),
    ):
        assert offered(completer) == registry.names(kind)
    assert offered(completion.datasets, "s") == ["synapse"]
    assert offered(completion.recipes) == list(recipe_names())
    assert offered(completion.lists) == list(LISTS) and offered(completion.kinds) == list(SHOW_KINDS)
    assert offered(completion.names, kind="network") == registry.names("network")
    assert offered(completion.names, "p", kind="recipe") == ["phantom"]
    assert offered(completion.names, kind="nonsense") == []


def test_a_list_is_continued_behind_its_comma() -> None:
    assert offered(completion.losses, "ga[k=5,gamma=1],de") == ["ga[k=5,gamma=1],default"]
    assert "cps,cps" not in offered(completion.methods, "cps,")
    assert offered(completion.methods, "cps[o") == []  # options would need the component itself


def test_budgets_are_those_of_the_recipe_on_the_line() -> None:
    titles = offered(completion.labeled, recipe="phantom")
    assert titles == ["10%", "20%", "40%", "100%"]
    patients = offered(completion.labeled, recipe="ssl4mis-acdc-short")
    assert "7-patients" in patients and not any(" " in word for word in patients)
    lists = load_splits("acdc", "ssl4mis")
    assert all(lists.budget(word) for word in patients)
    every = offered(completion.labeled)
    assert {*titles, *patients} <= {*every} and len(every) == len(set(every))
    assert offered(completion.labeled, "20p", recipe="phantom") == ["20pct"]
    assert offered(completion.labeled, "10%,4", recipe="phantom") == ["10%,40%"]


def test_grids_are_offered_where_one_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "quick" in offered(completion.grids) and "quick" in offered(completion.grids, grid=True)
    assert offered(completion.grids, grid=False) == []
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/mine.yaml").write_text("")
    assert offered(completion.grids, "mi") == ["mine"]


def test_preprocessings_are_those_of_the_dataset_on_the_line() -> None:
    expected = list(registry.component("dataset", "synapse").preprocessings)
    assert offered(completion.preprocessings, dataset="synapse") == expected
    assert offered(completion.preprocessings, args=("synapse",), dataset=None) == expected
    assert offered(completion.dataset_settings, "si", dataset="phantom") == ["size="]


def test_settings_are_every_field_of_a_recipe() -> None:
    paths = offered(completion.settings)
    assert {"optimizer.lr=", "patch_size=", "schedule.iterations=", "network.name="} <= {*paths}
    assert not {"name=", "description=", "source=", "seeds=", "overrides="} & {*paths}
    assert "network.base_filters=" in offered(completion.settings, recipe="phantom")
    assert offered(completion.settings, "optimizer.name=a") == ["optimizer.name=adam", "optimizer.name=adamw"]
    assert offered(completion.settings, "optimizer.nesterov=") == [
        "optimizer.nesterov=true",
        "optimizer.nesterov=false",
    ]
    assert offered(completion.settings, "optimizer.lr=") == []


def test_devices_are_those_that_the_system_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [Path("/dev/nvidia0"), Path("/dev/nvidia1")])
    assert offered(completion.devices) == ["cpu", "cuda", "cuda:0", "cuda:1"]
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [])
    assert offered(completion.devices) == ["cpu"]


def test_a_broken_file_offers_nothing_and_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("jobs: [")
    assert offered(completion.labeled, recipe=str(broken)) == []
    assert offered(completion.labeled, recipe="nowhere") == []
    assert offered(completion.preprocessings, dataset="nowhere") == []
    assert offered(completion.preprocessings, dataset=None) == []
    assert capsys.readouterr() == ("", "")


# ------------------------------------------------------------------------------------------------- the real thing

HEAVY = "{'torch', 'monai', 'pandas', 'scipy', 'nibabel', 'SimpleITK'}"


def shell(*words: str) -> list[str]:
    """What bash is told for these words, the last of which is unfinished; fails where something heavy was imported."""
    code = (
        "import sys\nfrom sslbench.cli import main\nsys.argv = ['sslbench']\n"
        f"try:\n    main()\nfinally:\n    heavy = {HEAVY} & set(sys.modules)\n    assert not heavy, heavy"
    )
    line = ["sslbench", *words]
    environment = {
        **os.environ,
        "_SSLBENCH_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(line),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return done.stdout.split("\n")[:-1] if done.stdout.endswith("\n") else done.stdout.split("\n")


def test_bash_is_answered_without_importing_torch() -> None:
    assert shell("run", "-r", "ssl4mis-acdc-short", "--labeled", "7")[0] == "7-patients"
    assert shell("prepare", "synapse", "--preprocessing", "")[:2] == ["ga", "dhc-2023"]
    assert shell("run", "--grid", "qu")[0] == "quick"
    assert shell("show", "loss", "ga_l")[0] == "ga_labeled_only"
    assert "doctor" in shell("d")
