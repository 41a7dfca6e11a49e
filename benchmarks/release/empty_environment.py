"""Wheel and source archive, built, installed into empty environments and used there: a table, exit code 1 on a failure.

    python benchmarks/release/empty_environment.py [--python python3.11 python3.12 ...] [--pipx] [--folder DIR]

For each Python an empty venv gets the wheel by `pip install -c constraints.txt WHEEL[figures,parquet]`; then, in an
empty folder: `--version` (of the commit that was built), `doctor`, a demo of one short training, a law of a method.
`PIP_FIND_LINKS`, `PIP_INDEX_URL` and pip's other settings hold: without a GPU, name an index with torch's CPU build.
A Python that is not there is told, and is no failure: whoever releases looks at the table.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHONS = ("python3.11", "python3.12", "python3.13")
COMMANDS = {
    "version": ["--version"],
    "doctor": ["doctor"],
    # One of the eight jobs, for one iteration: it is not the training that a wheel can lack.
    "demo": [
        "demo",
        "--scale",
        "0.01",
        "--seed",
        "0",
        "--only",
        "method=supervised",
        "--only",
        "loss=default",
        "-j",
        "1",
    ],
    "law": ["check", "method", "cps", "--law", "predicts_probabilities", "--dims", "2d"],
}
IN_WHEEL = (
    "sslbench/py.typed",
    "sslbench/_commit.txt",
    "sslbench/_grids/quick.yaml",
    "sslbench/recipes/ga-synapse.yaml",
)
IN_ARCHIVE = (
    "pyproject.toml",
    "hatch_build.py",
    "constraints.txt",
    "CITATION.cff",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
)


@dataclass(frozen=True)
class Step:
    """What was tried, and how it ended; `passed` is None where nothing could be tried."""

    environment: str
    name: str
    passed: bool | None
    seconds: float
    told: str


def tried(environment: str, name: str, words: list[str], folder: Path, wanted: str = "") -> Step:
    """Run a command; it passes with exit code 0 and, where something is wanted, with that in its output."""
    started = time.perf_counter()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SSLBENCH_", "PYTHON"))}
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=clean)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    passed = done.returncode == 0 and any(wanted in line for line in lines or [""])
    told = next((line for line in lines if wanted and wanted in line), lines[-1] if lines else "")
    if not passed:
        print("\n".join([f"--- {environment}: {' '.join(words)}: exit code {done.returncode}", *lines[-30:]]))
    return Step(environment, name, passed, time.perf_counter() - started, " ".join(told.split())[:70])


def built(folder: Path) -> tuple[list[Step], Path]:
    """Build both with the interpreter that runs this, in an environment of their own; the wheel from the archive."""
    place = folder / "build"
    venv.create(place, with_pip=True)
    python = str(place / "bin" / "python")
    steps = [tried("build", "tools", [python, "-m", "pip", "install", "-q", "build"], folder)]
    dist = folder / "dist"
    steps.append(tried("build", "wheel and archive", [python, "-m", "build", "-o", str(dist), str(ROOT)], folder))
    (wheel,), (archive,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    held = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(archive) as opened:
        packed = {name.partition("/")[2] for name in opened.getnames()}
    for name, wanted, there in (("wheel", IN_WHEEL, held), ("archive", IN_ARCHIVE, packed)):
        lacking = [each for each in wanted if each not in there]
        told = f"lacks {', '.join(lacking)}" if lacking else f"{len(there)} files"
        steps.append(Step("build", f"{name} complete", not lacking, 0.0, told))
    return steps, wheel


def used(python: str, wheel: Path, folder: Path, commit: str) -> list[Step]:
    """Install a wheel into an empty environment, and use it in an empty folder."""
    place, work = folder / python, folder / f"{python}-work"
    work.mkdir()
    if shutil.which(python) is None:
        return [Step(python, "interpreter", None, 0.0, "not on this machine")]
    install = [str(place / "bin" / "pip"), "install", "-q", "-c", str(ROOT / "constraints.txt")]
    steps = [
        tried(python, "venv", [python, "-m", "venv", str(place)], folder),
        tried(python, "install", [*install, f"{wheel}[figures,parquet]"], folder),
    ]
    wanted = {"version": commit, "demo": "report.html"}
    for name, words in COMMANDS.items():
        if not all(step.passed for step in steps):
            break
        steps.append(tried(python, name, [str(place / "bin" / "sslbench"), *words], work, wanted.get(name, "")))
    return steps


def with_pipx(wheel: Path, folder: Path, commit: str) -> list[Step]:
    """`pipx install`, in a home of its own."""
    place = folder / "pipx"
    venv.create(place, with_pip=True)
    steps = [tried("pipx", "tools", [str(place / "bin" / "pip"), "install", "-q", "pipx"], folder)]
    home = ["env", f"PIPX_HOME={place}/home", f"PIPX_BIN_DIR={place}/apps", f"PIPX_MAN_DIR={place}/man"]
    arguments = f"-c {ROOT / 'constraints.txt'}"
    install = [*home, str(place / "bin" / "pipx"), "install", f"--pip-args={arguments}", str(wheel)]
    steps.append(tried("pipx", "install", install, folder))
    return [*steps, tried("pipx", "version", [f"{place}/apps/sslbench", "--version"], folder, commit)]


def main() -> int:
    """Try everything that was asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="*", default=PYTHONS, help=f"interpreters (default: {' '.join(PYTHONS)})")
    parser.add_argument("--pipx", action="store_true", help="also install with pipx")
    parser.add_argument("--folder", type=Path, help="work there, and leave what was made (default: a temporary one)")
    asked = parser.parse_args()
    folder = (asked.folder or Path(tempfile.mkdtemp(prefix="sslbench-release-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        steps, wheel = built(folder)
        commit = zipfile.ZipFile(wheel).read("sslbench/_commit.txt").decode().strip()
        for python in asked.python:
            steps += used(python, wheel, folder, commit)
        if asked.pipx:
            steps += with_pipx(wheel, folder, commit)
    finally:
        if asked.folder is None:
            shutil.rmtree(folder)
    for step in steps:
        verdict = "untried" if step.passed is None else "ok" if step.passed else "FAILED"
        print(f"{step.environment:12} {step.name:18} {verdict:7} {step.seconds:7.1f} s  {step.told}")
    return 1 if any(step.passed is False for step in steps) else 0


if __name__ == "__main__":
    sys.exit(main())
