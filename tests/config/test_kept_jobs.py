"""Jobs that are kept between commands: they are those that would be made anew, and only where that is sure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sslbench.config.grid import Grid, load_grid
from sslbench.config.job import Job
from sslbench.config.places import place_of
from sslbench.config.published import published_table
from sslbench.core import kept as keeping
from sslbench.core import registry
from tests.helpers.paper_runs import write_runs_of

# Blocks of two datasets, rows of two recipes, weightings, plugins; what varies, and names of its own; a 2-D network.
GRIDS = ("scdl-t1", "ga-t5a", "dhc-t3", "metassl-t6")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SSLBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def files(cache, about):
    return sorted(cache.glob(f"*/{about}-*.json"))


def known(job: Job):
    resolved = job.resolved
    layers = (job.layers, resolved.job.layers)
    return type(job), job.model_dump(), layers, place_of(job), resolved.model_dump(), job.digest(), job.directory


@pytest.mark.parametrize("name", GRIDS)
def test_kept_jobs_are_those_that_would_be_made(cache, monkeypatch, name):
    made = load_grid(name).expand({"optimizer.lr": 0.02})
    assert len(files(cache, "grid")) == 1
    monkeypatch.setattr(Grid, "_expanded", lambda *_: pytest.fail("made again"))
    found = load_grid(name).expand({"optimizer.lr": 0.02})
    assert [known(job) for job in found] == [known(job) for job in made]
    table = published_table(name)
    assert {number: job.digest() for number, job in table.jobs.items()} == {
        row.order: job.digest() for row in table.rows if (job := row.job())
    }


def test_another_question_is_answered_anew(cache):
    grid = load_grid("ga-t5a")
    first, second = grid.expand(), grid.expand({"optimizer.lr": 0.02})
    third = grid.with_seeds([7]).expand()
    assert len(files(cache, "grid")) == 3
    assert len({first[0].digest(), second[0].digest()}) == 2
    assert {job.seed for job in third} == {7}


def test_another_state_of_the_package_is_another_question(cache, monkeypatch):
    for state in "abcdef":
        monkeypatch.setattr(keeping, "_state", lambda state=state: state)
        load_grid("ga-t5a").expand()
        os.utime(cache / state, (ord(state), ord(state)))  # as if they came one day after another
    assert sorted(path.name for path in cache.iterdir()) == ["c", "d", "e", "f"]  # the youngest alone stay


def test_the_state_of_the_package_is_that_of_its_files(monkeypatch, tmp_path):
    monkeypatch.setattr(keeping, "_PACKAGE", tmp_path)
    states = []
    for text in ("a", "b", "cc"):
        keeping._state.cache_clear()
        (tmp_path / "module.py").write_text(text)
        os.utime(tmp_path / "module.py", ns=(0, ord(text[0])))
        states.append(keeping._state())
    keeping._state.cache_clear()
    assert len(set(states)) == 3


@pytest.mark.parametrize("recipe", ["mine.yaml", "phantom"])
def test_what_is_not_the_packages_alone_is_not_kept(cache, monkeypatch, tmp_path, throw_away, recipe):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("extends: phantom\n")
    method = "cps"
    if recipe == "phantom":
        throw_away("method", "toy")(registry.component("method", "cps"))
        method = "toy"
    content = {"recipe": recipe, "labeled": "20%", "seeds": [0], "jobs": [{"method": method}]}
    Path("grid.yaml").write_text(yaml.safe_dump(content))
    assert load_grid("grid.yaml").expand()
    assert not files(cache, "grid")


def test_a_damaged_file_is_made_again(cache):
    made = load_grid("ga-t5a").expand()
    [path] = files(cache, "grid")
    path.write_text(path.read_text()[:100])
    assert load_grid("ga-t5a").expand() == made
    assert json.loads(path.read_text())["jobs"]


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid"), reason="folders have other rights there")
def test_a_folder_that_is_a_file_stops_nobody(monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("SSLBENCH_CACHE", str(tmp_path / "cache"))
    assert load_grid("ga-t5a").expand()


def test_a_report_imports_no_torch(cache, tmp_path):
    """Once a command has asked for the grid, as `run` has: reports follow trainings."""
    write_runs_of(load_grid("ga-t5a").expand(), tmp_path, lambda job, metric, name: 50.0)
    code = (
        "import sys\n"
        "from sslbench.cli.app import main\n"
        f"sys.argv = ['sslbench', 'report', 'ga-t5a', '--against', '--results-dir', {str(tmp_path)!r}, *sys.argv[1:]]\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    print({'torch', 'monai', 'scipy.optimize', 'scipy.stats'} & {*sys.modules} or 'light', file=sys.stderr)\n"
    )
    outputs = [
        subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=True)
        for flags in ((), (), ("--latex", "--cite"))
    ]
    assert outputs[0].stdout == outputs[1].stdout != ""
    assert [output.stderr.splitlines()[-1] for output in outputs[1:]] == ["light", "light"]
