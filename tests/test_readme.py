"""The README's commands, paths and examples are true."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from sslbench import cli
from sslbench.cli.templates import write_template
from sslbench.config import text
from sslbench.config.recipe import recipe_names

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.split("#")[0].strip()
    for line in README.splitlines()
    if line.strip().startswith("sslbench ") and "`" not in line
]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_are_accepted(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    arguments = shlex.split(command)[1:]
    if "ict:" in command:  # the file that the command before it writes
        sys.modules.pop("ict", None)
        write_template("method", "ict", tmp_path)
    if arguments[0] == "run":
        arguments = [*arguments, "--dry-run"]
    if arguments[0] in (
        "prepare",
        "audit",
        "report",
        "verify",
        "bundle",
        "evaluate",
        "predict",
        "merge",
    ):  # need data or results
        arguments = [*arguments, "--help"]
    if arguments[0] == "check":  # seconds a law
        arguments = [*arguments, "--law", "predicts_probabilities"]
    monkeypatch.setattr(sys, "argv", ["sslbench", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code, capsys.readouterr().err


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) >= 8


def test_the_grid_shown_is_the_grid_shipped() -> None:
    shown = yaml.safe_load(re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1])
    shipped = text.load_yaml(ROOT / "benchmarks" / "acdc-short.yaml")
    assert shown["jobs"] == shipped["jobs"] and shown["table"]["columns"] == shipped["table"]["columns"]
    assert {key: shipped[key] for key in ("recipe", "labeled", "seeds")} == {
        key: shown[key] for key in ("recipe", "labeled", "seeds")
    }


def test_every_make_target_and_path_named_exists() -> None:
    targets = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make (\w+)", README)):
        assert re.search(rf"^{target}:", targets, re.MULTILINE), target
    for path in set(re.findall(r"`((?:sslbench|benchmarks)/[\w/.-]+)`", README)):
        assert (ROOT / path).exists(), path


def test_recipes_and_datasets_in_the_table_exist() -> None:
    for name in re.findall(r"`((?:ssl4mis|phantom|metassl)[\w-]*)`", README):
        assert name in recipe_names() or name == "phantom"


def test_the_demo_table_is_filled_in() -> None:
    assert "@DEMO_TABLE@" not in README and "GA-CPS" in README
