"""`report --html`, and the guide to the page: every command in it is executed."""

from __future__ import annotations

import html
import re
import shlex
from pathlib import Path

import pytest

from sslbench.config.grid import load_grid
from sslbench.config.job import Job
from sslbench.reporting.page import document
from sslbench.reporting.page.figures import Gallery
from tests.helpers.command_line import call
from tests.helpers.paper_runs import write_run_of

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guides" / "read-a-report.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^sslbench .*$", GUIDE, re.MULTILINE)


def score(job: Job, metric: str, name: str) -> float:
    return (50.0 + 4 * (job.loss == "ga") if metric == "dsc" else 5.0) + job.seed % 7


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    for job in load_grid("quick").expand():
        write_run_of(job, folder / "results", score, cases=5)
    return folder


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "gallery", lambda *_: Gallery())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_does_what_the_guide_says(command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    words = shlex.split(command)[1:]
    code, _, err = call(*words)
    assert code == 0, err
    file = Path(words[words.index("-o") + 1] if "-o" in words else "results/reports/quick/report.html")
    assert f"wrote {file}" in err.replace(f"{place}/", "")
    text = file.read_text()
    assert text.startswith("<!doctype html>") and "GA-CPS" in text
    assert ("Published beside measured" in text) == ("--against" in words)
    assert shlex.join(["sslbench", *words]) in text or "Made by" in text


def test_the_python_of_the_guide_works(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    found: dict[str, object] = {}
    exec(re.search(r"```python\n(.*?)```", GUIDE, re.DOTALL)[1], found)
    assert str(found["text"]).startswith("<!doctype html>")


def test_one_format_at_a_time(place: Path) -> None:
    code, _, err = call("report", "quick", "--html", "--latex", "--results-dir", str(place / "results"))
    assert code == 2 and "do not go together" in err


def test_the_command_of_a_row_makes_its_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    call("report", "quick", "--html", "-o", "again.html")
    text = Path("again.html").read_text()
    (command,) = re.findall(r"sslbench run -r phantom -m cps -l ga [^<]*", text)
    code, out, err = call(*shlex.split(html.unescape(command))[1:], "--dry-run", "--json")
    assert code == 0, err
    for job in load_grid("quick").expand():
        if (job.method, job.loss) == ("cps", "ga"):
            assert job.directory.name in out


def test_the_picture_of_the_guide_is_small() -> None:
    picture = ROOT / "docs" / "images" / "report.png"
    assert picture.stat().st_size <= 200_000 and "../images/report.png" in GUIDE
