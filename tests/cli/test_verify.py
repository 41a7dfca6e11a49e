"""`verify` finds what could mislead a reader; bundles and files of records open to the same tables."""

from __future__ import annotations

import gzip
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from sslbench import load_results
from sslbench.config.grid import load_grid
from sslbench.config.job import Job
from sslbench.core import registry
from sslbench.core.files import read_json, write_json
from sslbench.runs.directory import Run
from tests.helpers.command_line import call
from tests.helpers.paper_runs import write_run_of

GRID = {
    "recipe": "phantom",
    "labeled": ["20%"],
    "seeds": [0, 1, 2],
    "jobs": [{"method": ["supervised", "cps"]}, {"method": ["cps"], "loss": "ga", "as": ["GA_CPS & more"]}],
    "table": {"columns": ["dsc", "asd", "dsc/class"], "caption": "Mine."},
}


def score(job: Job, metric: str, name: str) -> float | None:
    if name == "lag" and job.seed:  # nobody has one
        return None
    return (50.0 if metric == "dsc" else 5.0) + job.seed + len(name) / 3 + 10 * (job.loss == "ga")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a grid, its runs, and what was reported of them."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "mine.yaml").write_text(yaml.safe_dump(GRID))
    for job in load_grid(str(folder / "mine.yaml")).expand():
        run = write_run_of(job, folder / "results", score, cases=6)
        held = read_json(run.provenance)
        write_json(run.provenance, {"host": "alices-machine", "cwd": "/home/alice/work", **held})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("SSLBENCH_RESULTS", raising=False)
        for arguments in (
            ["--cases", "-o", "cases.csv.gz"],
            ["--cases", "-o", "plain.csv"],
            ["--latex", "--cite", "-o", "table.tex"],
            ["--markdown", "-o", "table.md"],
            ["--csv", "-o", "table.csv"],
            ["--json", "-o", "table.json"],
            ["--html", "-o", "page.html"],
        ):
            assert call("report", "mine.yaml", *arguments)[0] == 0
        assert call("report", "--markdown", "-o", "every.md")[0] == 0
        assert call("bundle", "mine.yaml", "-o", "mine.zip")[0] == 0
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of it to change things in."""
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("SSLBENCH_RESULTS", raising=False)
    return tmp_path / "copy"


def verified(what: str, *more: str) -> tuple[int, list[str]]:
    code, out, err = call("verify", what, *more)
    return code, [*err.splitlines(), *out.splitlines()]


def edited(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


ALL = [
    "cases.csv.gz",
    "plain.csv",
    "table.tex",
    "table.md",
    "table.csv",
    "table.json",
    "every.md",
    "mine.zip",
    "page.html",
]
ALL += ["table.tex.manifest.json", "cases.csv.gz.manifest.json"]


@pytest.mark.parametrize("what", ALL)
def test_what_was_written_holds(what: str, place: Path) -> None:
    code, lines = verified(what)
    assert code == 0 and len(lines) == 1, lines
    number, _, rest = lines[0].partition(" ")
    assert int(number) > 40
    assert rest == "numbers agree, 0 differ; 9 of 9 records unchanged; predictions not checked (--predictions)"


@pytest.mark.parametrize("what", ["cases.csv.gz", "plain.csv", "mine.zip"])
def test_files_of_records_and_bundles_give_the_tables_of_their_grid(what: str, place: Path) -> None:
    expected = call("report", "mine.yaml")
    assert expected[0] == 0 and "GA_CPS & more" in expected[1]
    shutil.rmtree("results")
    assert call("report", what)[:2] == expected[:2]
    assert call("report", what, "--seed", "0,1")[1] != expected[1]
    records = load_results(what)
    pd.testing.assert_frame_equal(records, load_results("plain.csv"), check_exact=True)
    assert verified(what)[0] == 0


def test_the_same_report_gives_the_same_bytes(place: Path) -> None:
    before = {name: Path(name).read_bytes() for name in ("cases.csv.gz", "mine.zip")}
    assert call("report", "mine.yaml", "--cases", "-o", "cases.csv.gz")[0] == 0
    assert call("bundle", "mine.yaml", "-o", "mine.zip")[0] == 0
    assert before == {name: Path(name).read_bytes() for name in before}


def run_of(seed: int, loss: str = "ga") -> Run:
    jobs = [job for job in load_grid("mine.yaml").expand() if job.seed == seed and job.loss == loss]
    return Run.of(jobs[-1], Path("results"))


def test_one_digit_in_cases_csv(place: Path) -> None:
    run = run_of(1)
    edited(run.cases, ",asd,", ",asd,1")
    code, lines = verified("table.md")
    assert code == 1
    assert lines[0] == f"{run.name}: its records changed"
    assert any(line.startswith("GA_CPS & more, Avg. ASD") and "from the records" in line for line in lines)
    assert lines[-1].endswith("differ; 8 of 9 records unchanged; predictions not checked (--predictions)")


def test_one_digit_that_contradicts_another_in_cases_csv(place: Path) -> None:
    run = run_of(1)
    edited(run.cases, ",dsc,0.6", ",dsc,0.7")
    code, lines = verified("table.tex")
    assert code == 1 and f"{run.cases} is left out: it contradicts itself on line 2" in lines[0]


@pytest.mark.parametrize("what", ["cases.csv.gz", "mine.zip"])
def test_one_digit_in_a_file_of_records(what: str, place: Path) -> None:
    def changed(content: bytes) -> bytes:
        return gzip.compress(gzip.decompress(content).replace(b",asd,6", b",asd,7", 1))

    if what == "mine.zip":
        with zipfile.ZipFile(what) as old:
            files = {name: old.read(name) for name in old.namelist()}
        with zipfile.ZipFile(what, "w") as new:
            for name, content in files.items():
                new.writestr(name, changed(content) if name == "cases.csv.gz" else content)
    else:
        Path(what).write_bytes(changed(Path(what).read_bytes()))
    code, lines = verified(what)
    assert code == 1 and sum("its records changed" in line for line in lines) == 1
    assert any("avg" in line and "from the records" in line for line in lines)


@pytest.mark.parametrize(
    "what", ["table.tex", "table.md", "table.csv", "table.json", "page.html", "table.tex.manifest.json"]
)
def test_one_digit_in_a_table(what: str, place: Path) -> None:
    old = average() if what in ("table.tex", "table.md", "page.html") else unrounded()
    edited(place / what, old, old[:4] + str((int(old[4]) + 1) % 10) + old[5:])
    code, lines = verified(what)
    assert code == 1 and len(lines) == 2, lines
    assert lines[0].startswith("GA_CPS & more, ") and f", from the records {old[:4]}" in lines[0]
    assert " agree, 1 differ; 9 of 9 records unchanged" in lines[1]


def test_one_digit_of_what_a_manifest_says_was_printed(place: Path) -> None:
    edited(place / "table.tex.manifest.json", f'"{average()}', '"99.99')
    code, lines = verified("table.tex.manifest.json")
    assert code == 1 and lines[0].startswith("GA_CPS & more, dsc, avg: 99.99±1.0 (6")
    assert verified("table.tex")[0] == 0  # whose own numbers are right


def unrounded() -> str:
    """The average DSC of the row with GA."""
    cells = json.loads(Path("table.tex.manifest.json").read_text())["cells"]
    return next(repr(cell["mean"]) for cell in cells if cell["row"][:2] == "GA" and cell["class"] == "avg")


def average() -> str:
    return f"{float(unrounded()):.2f}"


def test_text_and_layout_of_a_table_are_its_authors(place: Path) -> None:
    text = Path("table.tex").read_text()
    before = verified("table.tex")[1][0].split()[0]
    text = (
        text.replace(r"\textbf", "")
        .replace("Mine.", "Some 99 words of mine.")
        .replace(f"{average()}$\\pm$1.0", f"{float(unrounded()):.1f}")
    )
    Path("table.tex").write_text(r"\section{Results in 2026}" + text.replace(r"\midrule", r"\midrule[1pt]", 1))
    code, lines = verified("table.tex")
    assert code == 0 and lines[0].split()[0] == before, lines
    Path("table.tex").write_text("\n".join(line for line in text.splitlines() if not line.startswith("Supervised")))
    assert verified("table.tex")[0] == 0
    Path("table.tex").write_text(text.replace("GA\\_CPS", "Ours"))
    code, lines = verified("table.tex")
    assert code == 1 and lines[0].startswith("Ours & more, ") and lines[0].endswith("is nowhere in the records")


def test_a_missing_run(place: Path) -> None:
    run = run_of(2)
    shutil.rmtree(run.directory)
    code, lines = verified("table.csv")
    assert code == 1 and lines[0] == f"{run.name} is missing" and "8 of 9 records unchanged" in lines[-1]


def test_a_swapped_seed(place: Path) -> None:
    one, other = run_of(0), run_of(1)
    kept = one.cases.read_bytes()
    one.cases.write_bytes(other.cases.read_bytes())
    other.cases.write_bytes(kept)
    code, lines = verified("table.tex")
    assert code == 1 and lines[:2] == [f"{run.name}: its records changed" for run in (one, other)]
    one.directory.rename("aside")
    other.directory.rename(one.directory)
    Path("aside").rename(other.directory)
    code, lines = verified("table.tex")
    assert code == 1 and lines[:2] == [f"{run.name} is missing" for run in (one, other)]


def test_a_swapped_seed_in_a_file(place: Path) -> None:
    text = Path("plain.csv").read_text()
    lines = [line.replace(",,0,", ",,7,", 1) if "/seed-0-" in line else line for line in text.splitlines()]
    Path("plain.csv").write_text("\n".join(lines) + "\n")
    code, told = verified("plain.csv")
    assert code and "has another seed or digest than its name says" in told[0]


def test_another_version_of_the_protocol(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, version = next(iter(json.loads(Path("table.tex.manifest.json").read_text())["protocols"].items()))
    edited(place / "table.tex.manifest.json", f'"{name}": {version}', f'"{name}": {version + 1}')
    code, lines = verified("table.tex")
    assert code == 1 and lines[0] == f"protocol {name} has version {version} here, and {version + 1} in the manifest"
    assert registry.component("protocol", name).version == version


def test_other_settings_in_a_configuration(place: Path) -> None:
    run = run_of(0)
    edited(run.config, "lr: ", "lr: 1")
    code, lines = verified("table.tex")
    assert code == 1 and lines[0] == f"{run.name}: its config.yaml changed"


def test_a_bundle_names_no_machine(place: Path) -> None:
    with zipfile.ZipFile("mine.zip") as bundle:
        names = bundle.namelist()
        content = {name: bundle.read(name) for name in names}
    assert names == sorted(names) and {info.date_time[0] for info in zipfile.ZipFile("mine.zip").infolist()} == {1980}
    kinds = {"README.md", "manifest.json", "environment.txt", "grid.yaml", "cases.csv.gz", "report/table.tex"}
    assert kinds <= set(names) and any(name.startswith("splits/phantom/") for name in names)
    assert f"runs/{run_of(0).name}/provenance.json" in names
    whole = b"".join(gzip.decompress(text) if name.endswith(".gz") else text for name, text in content.items())
    for secret in (b"alice", str(place).encode(), str(place.parent.parent).encode()):
        assert secret not in whole
    assert b"no images and no references" in content["README.md"]


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("nothing.tex", "there is no nothing.tex"),
        ("mine.yaml", "mine.yaml has no manifest beside it"),
        ("results", "results has no manifest.json"),
    ],
)
def test_what_cannot_be_verified(what: str, told: str, place: Path) -> None:
    code, lines = verified(what)
    assert code == 2 and told in lines[0]


def test_records_that_are_elsewhere(place: Path) -> None:
    Path("results").rename("other")
    assert verified("table.tex")[0] == 0  # against cases.csv.gz beside it
    Path("cases.csv.gz").unlink()
    code, lines = verified("table.tex")
    assert code == 2 and "none of the 9 runs behind table.tex is in results" in lines[0]
    assert verified("table.tex", "--results-dir", "other")[0] == 0
