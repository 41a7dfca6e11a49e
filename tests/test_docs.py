"""The documentation is whole and true: links and anchors lead somewhere, commands are commands, pages made from the
code name all that there is, and what pages quote is what they quote it from. The site is built where MkDocs is."""

from __future__ import annotations

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from sslbench.cli.app import app
from sslbench.cli.templates import write_template
from sslbench.config import text
from sslbench.config.fields import fields_of
from sslbench.config.grid import grid_files
from sslbench.config.recipe import Recipe, is_shipped, recipe_names
from sslbench.core import registry
from sslbench.core.settings import VARIABLES
from tests.helpers.command_line import call
from tests.helpers.pages import (
    DOCS,
    ROOT,
    all_pages,
    anchors_of,
    commands_of,
    generator,
    links_of,
    nav_of,
    written_pages,
)

OUTSIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "results/README.md", "benchmarks/gpu/README.md")
TOLD = {path: commands_of(page) for path, page in written_pages().items()} | {
    path: commands_of((ROOT / path).read_text(encoding="utf-8")) for path in OUTSIDE
}
WITH_COMMANDS = [path for path, commands in TOLD.items() if commands]


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml without what it names in Python."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)


# ------------------------------------------------------------------------------------------------ links and contents


def test_every_link_and_anchor_of_the_site_leads_somewhere() -> None:
    pages = all_pages()
    astray = []
    for path, page in pages.items():
        for link in links_of(page):
            target, _, anchor = link.partition("#")
            found = os.path.normpath(Path(path).parent / target) if target else path
            if found in pages:
                if anchor and anchor not in anchors_of(pages[found]):
                    astray.append(f"{path}: {link}")
            elif not (DOCS / found).is_file():
                astray.append(f"{path}: {link}")
    assert not astray


@pytest.mark.parametrize("path", OUTSIDE)
def test_every_link_of_a_file_outside_leads_somewhere(path: str) -> None:
    for link in links_of((ROOT / path).read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        found = (ROOT / path).parent / target
        assert found.exists(), link
        if anchor and found.suffix == ".md":
            assert anchor in anchors_of(found.read_text(encoding="utf-8")), link


def test_no_page_has_two_headings_of_one_anchor_that_is_linked() -> None:
    for path, page in all_pages().items():
        anchors = anchors_of(page)
        linked = {link.partition("#")[2] for link in links_of(page)} - {""}
        assert [anchor for anchor in linked if anchors.count(anchor) > 1] == [], path


def test_every_page_stands_in_the_contents_once() -> None:
    contents = nav_of(yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Loader)["nav"])
    assert sorted(contents) == sorted(all_pages())


# ---------------------------------------------------------------------------------------------------------- commands


@pytest.mark.parametrize("path", WITH_COMMANDS)
def test_the_command_line_understands_every_command(path: str) -> None:
    for line in TOLD[path]:
        command: Any = typer.main.get_command(app)
        name, *words = shlex.split(line)
        if words[0].startswith("-"):
            with pytest.raises(typer.Exit):  # --version
                command.make_context(name, words)
            continue
        while hasattr(command, "commands"):
            assert words and words[0] in command.commands, f"{path}: {line}"
            command, words = command.commands[words[0]], words[1:]
        try:
            options = command.make_context(name, words).params
        except Exception as error:
            pytest.fail(f"{path}: {line}: {error}")
        _names_exist(command.name, options, f"{path}: {line}")


def _names_exist(command: str, options: dict[str, Any], where: str) -> None:
    """A grid or a recipe that a page names is one, unless the page says that it is the reader's."""
    recipes = options.get("recipe") or []
    for recipe in [recipes] if isinstance(recipes, str) else recipes:
        assert recipe in {*recipe_names(), "mine", "slides"}, where
    grid = options.get("name") if command in ("run", "validate", "status", "report", "bundle", "cancel") else None
    if isinstance(grid, str) and not re.search(r"[./A-Z]", grid):  # no file, nor a place for a name
        assert grid in {*grid_files()}, where


EXECUTED = sorted(
    {
        line
        for path in (
            "README.md",
            "guides/official-data.md",
            "guides/cite.md",
            *(path for path in TOLD if "tutorial" in path),
        )
        for line in TOLD[path]
        if line.split()[1] in ("run", "list", "validate", "published", "new", "check") and " mine " not in line
    }
)


@pytest.mark.parametrize("line", EXECUTED)
def test_what_costs_nothing_is_done(line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    arguments = shlex.split(line)[1:]
    sys.modules.pop("ict", None)
    if "ict:" in line:  # the file that the command before it writes
        write_template("method", "ict", tmp_path)
    if arguments[0] == "run" and "--dry-run" not in arguments:
        arguments.append("--dry-run")
    if arguments[0] == "check" and "--law" not in arguments:  # seconds a law
        arguments += ["--law", "predicts_probabilities"]
    code, _, err = call(*arguments)
    assert code == 0, err


def test_the_tutorial_on_own_data_leads_where_it_says(
    phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "phantom").symlink_to(phantom_data / "phantom")
    monkeypatch.chdir(tmp_path)
    for variable in ("SSLBENCH_DATA", "SSLBENCH_RESULTS"):
        monkeypatch.delenv(variable, raising=False)
    export, prepare, *looks = TOLD["tutorial/own-data.md"]
    assert call(*shlex.split(export)[1:])[0] == 0
    folder = tmp_path / shlex.split(prepare)[-1]
    for path in (folder / "imagesUn").iterdir():  # as the line between them does
        path.rename(folder / "imagesTr" / path.name)
    for line in (prepare, *(look for look in looks if "--dry-run" in look)):
        code, out, err = call(*shlex.split(line)[1:])
        assert code == 0, f"{line}: {err}"
    assert "supervised+default" in out and "mt+default" in out and "cps+default" in out
    assert (tmp_path / "data" / "mine" / "recipes" / "mine.yaml").exists()


# ------------------------------------------------------------------------------------------- what pages take from where


def test_the_pages_made_from_the_code_name_all_that_there_is() -> None:
    pages = all_pages()
    for kind in registry.KINDS:
        page = pages[f"reference/every-{kind}.md"]
        for entry in registry.entries(kind):
            if entry.name in registry.builtin(kind):
                assert (f"`{entry.name}`" if entry.preset_of else f"\n## {entry.name}\n") in page, entry.name
    shipped = [name for name in recipe_names() if is_shipped(name)]  # other tests may have opened folders with more
    assert [name for name in shipped if f"\n## {name}\n" not in pages["reference/every-recipe.md"]] == []
    fields = {row["name"] for row in fields_of(Recipe)}
    assert [name for name in fields if f"| `{name}` |" not in pages["reference/recipe-fields.md"]] == []
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert (f"\n## sslbench {name}" in pages["reference/command-line.md"]) != command.hidden


def test_every_field_of_a_recipe_says_what_it_is() -> None:
    assert [field["name"] for field in fields_of(Recipe) if not field["description"]] == []


def test_text_of_the_code_is_shown_as_it_is() -> None:
    assert generator().plain("a_b *c* <d> [e] `f_g|h` |") == r"a\_b \*c\* &lt;d&gt; \[e\] `f_g|h` \|"
    assert generator().plain("see https://a.org/b_c#d.") == "see <https://a.org/b_c#d>."


def test_the_page_of_commands_has_every_command_and_variable() -> None:
    page = written_pages()["reference/commands.md"]
    told = {line.split()[1] for line in TOLD["reference/commands.md"]}
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    elsewhere = {"prepare", "bench", "export"}  # the guides to data and to one GPU, and that to imports
    assert {name for name, command in commands.items() if not command.hidden} - elsewhere <= told
    assert re.findall(r"^\| `(SSLBENCH_\w+)` \|", page, re.MULTILINE) == [*VARIABLES]


def test_the_grid_shown_is_the_grid_shipped() -> None:
    block = re.search(r"```yaml\n(.*?)```", written_pages()["tutorial/acdc.md"], re.DOTALL)
    assert block
    shown, shipped = yaml.safe_load(block[1]), text.load_yaml(ROOT / "benchmarks" / "acdc-short.yaml")
    assert shown["jobs"] == shipped["jobs"] and shown["table"]["columns"] == shipped["table"]["columns"]
    assert {key: shipped[key] for key in ("recipe", "labeled", "seeds")} == {
        key: shown[key] for key in ("recipe", "labeled", "seeds")
    }


def test_the_tutorial_quotes_the_measured_table() -> None:
    with (ROOT / "results" / "measured" / "acdc-short.csv").open(encoding="utf-8") as lines:
        means = {
            (row["method"], row["loss"], row["class"], row["metric"]): float(row["mean"])
            for row in csv.DictReader(lines)
        }
    columns = [("avg", metric) for metric in ("dsc", "jaccard", "hd95", "asd")]
    columns += [(name, "dsc") for name in ("rv", "myo", "lv")]
    cells = {"Supervised": ("supervised", "default"), "GA-Supervised": ("supervised", "ga")}
    cells |= {"CPS": ("cps", "default"), "GA-CPS": ("cps", "ga")}
    for label, cell in cells.items():
        row = " | ".join(f"{means[(*cell, *column)]:.2f}" for column in columns)
        assert f"| {label} | {row} |" in written_pages()["tutorial/acdc.md"]


def test_the_table_of_datasets_names_recipes_that_there_are() -> None:
    page = written_pages()["guides/official-data.md"]
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", page, re.MULTILINE)
    assert {dataset for dataset, _ in rows} == registry.builtin("dataset")
    shipped = {name for name in recipe_names() if is_shipped(name)}
    assert {name for _, cell in rows for name in re.findall(r"`([\w-]+)`", cell)} == shipped - {"own-2d", "own-3d"}


def test_the_explanation_of_protocols_quotes_the_table_of_the_guide() -> None:
    whole, last = {}, ""
    for line in written_pages()["guides/evaluate.md"].splitlines():
        if match := re.match(r" +([\w-]+)[†=]* +([\d.]+) +\S+ +(\S+) +(\S+) +\S+  (?:voxel|mm)", line):
            last = last + match[1] if match[1].startswith("-") else match[1]
            whole[last] = match.groups()[1:]
            last = last.removesuffix("-released")
    quoted = re.findall(
        r"^\| `([\w-]+)` \| .* \| ([\d.]+) \| (\S+) \| ([\d.]+) \|$",
        written_pages()["explanation/protocols.md"],
        re.MULTILINE,
    )
    assert len(quoted) == 6
    for name, *numbers in quoted:
        assert [number.replace("-", "--") for number in numbers] == list(whole[name]), name


def test_the_explanation_of_seeds_quotes_what_its_commands_print(monkeypatch: pytest.MonkeyPatch) -> None:
    page = written_pages()["explanation/seeds.md"]
    monkeypatch.chdir(ROOT)
    power, report = (call(*shlex.split(line)[1:])[1] for line in commands_of(page))
    blocks = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    assert [line.rstrip() for line in power.splitlines() if line.strip()] == blocks[0].rstrip().splitlines()
    for row in re.findall(r"^(?:CPS|GA-CPS|DHC) .*$", blocks[1], re.MULTILINE):
        assert " ".join(row.split()) in " ".join(report.split())


# ------------------------------------------------------------------------------------------------------------ the site


def test_the_site_builds_strictly_and_asks_nothing_of_a_network(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is not installed: `make docs` installs it")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = [path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.html")]
    assert len(pages) > len(all_pages())  # and the page for what is not found
    for page in pages:
        assert re.findall(r'(?:src|<link[^>]*href)="?https?://', page) == []
