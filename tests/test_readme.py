"""The README's commands, paths and examples are true. Its links, and the pages of the site: tests/test_docs.py."""

from __future__ import annotations

import re
from pathlib import Path

from sslbench.config.recipe import recipe_names
from tests.helpers.pages import commands_of

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_newcomer_is_told_a_few_commands_and_not_all_of_them() -> None:
    assert [command.split()[1] for command in commands_of(README)] == ["prepare", "run", "report"]
    assert len(README.splitlines()) < 90


def test_every_make_target_and_path_named_exists() -> None:
    targets = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"make (\w+)", README)):
        assert re.search(rf"^{target}:", targets, re.MULTILINE), target
    for path in set(re.findall(r"`((?:sslbench|benchmarks)/[\w/.-]+)`", README)):
        assert (ROOT / path).exists(), path


def test_the_example_in_python_names_what_there_is() -> None:
    assert set(re.findall(r'recipe="([\w-]+)"', README)) <= {*recipe_names()}


def test_the_demo_table_is_filled_in() -> None:
    assert "@DEMO_TABLE@" not in README and "GA-CPS" in README
