"""What the stress scripts share: a grid of tiny jobs, the phantom that they are run on, and what two folders of results
must have alike."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from sslbench.runs.directory import Run, runs_below  # noqa: E402
from tests.helpers import grids  # noqa: E402
from tests.helpers.coarse import prepare_coarse  # noqa: E402
from tests.helpers.jobs import TINY  # noqa: E402

AXES = {"method": ["supervised", "mt", "cps"], "loss": ["default", "ga"]}
_TIMES = ("time", "it_per_s")  # of a training record: they tell of the machine


def write_grid(file: Path, jobs: int, iterations: int) -> Path:
    """Write a grid of at most so many jobs: six cells, as many seeds as it takes; training is long enough to be killed
    in several times.

    Args:
        file: of the grid.
        jobs: 1 to 6, or a multiple of 6.
        iterations: of each job.
    """
    cells = [{"method": [method], "loss": [loss]} for method in AXES["method"] for loss in AXES["loss"]]
    schedule = {"schedule.iterations": iterations, "schedule.validate_every": max(iterations // 8, 1)}
    file.parent.mkdir(parents=True, exist_ok=True)
    settings = {**TINY, "network.base_filters": 4, **schedule}
    return grids.write_grid(file, seeds=[*range(-(-jobs // 6))], set=settings, jobs=cells[:jobs])


def prepare_data(folder: Path) -> Path:
    """Prepare a coarse phantom in a folder, unless it is there."""
    prepare_coarse(folder)
    return folder


def command(grid: Path, data: Path, results: Path, *words: str) -> list[str]:
    """The line that a user would type."""
    how = ("--device", "cpu", "--threads", "1", *words)
    return grids.command("run", "--grid", str(grid), *how, data=data, results=results)


def environment(save_every: float, **more: str) -> dict[str, str]:
    """The environment of a launcher: this checkout's package, and a checkpoint every so many seconds."""
    found = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": found, "SSLBENCH_SAVE_EVERY": str(save_every), **more}


def run_to_the_end(line: Sequence[str], own: dict[str, str]) -> None:
    """Run a command, which has to succeed."""
    ended = subprocess.run(line, env=own, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{' '.join(line)} ended with {ended.returncode}:\n{ended.stderr}")


def left_by(run: Run) -> dict[str, Any]:
    """What a run left that no kill may change: the hashes that it sealed (records, label maps), the bytes of its
    records as they are, and its training records without times."""
    lines = run.metrics.read_text().splitlines() if run.metrics.exists() else []
    records = [{key: value for key, value in json.loads(line).items() if key not in _TIMES} for line in lines]
    files = [run.own.cases, run.own.confusion]
    return {
        "sealed": {rule: dict(run.recorded_hashes(rule)) for rule in run.tested_rules()},
        "files": [file.read_bytes() if file.exists() else None for file in files],
        "along the training": records,
    }


def differences(calm: Path, other: Path) -> list[str]:
    """What another folder of results has otherwise than a calm one, a line each; none: they are alike."""
    lines = []
    here, there = ({run.name: run for run in runs_below(folder)} for folder in (calm, other))
    for name in sorted(here.keys() | there.keys()):
        if name not in here or name not in there:
            lines.append(f"{name}: in one of the folders only")
            continue
        state = there[name].look()
        if state != "finished":
            lines.append(f"{name}: lost, it is {there[name].standing}")
            continue
        found, wanted = left_by(there[name]), left_by(here[name])
        lines += [f"{name}: other {part}" for part in wanted if found[part] != wanted[part]]
    return lines


def ends_of(results: Path) -> dict[str, int]:
    """By run, how often a worker came to its end."""
    return {
        run.name: sum(" finished: " in line for line in run.log.read_text().splitlines()) if run.log.exists() else 0
        for run in runs_below(results)
    }


def half_written(folder: Path) -> list[Path]:
    """Files that a kill left half-written."""
    return sorted(folder.glob("**/.writing-*"))


def processor_seconds() -> float:
    """Seconds of the processor that ended children of this process took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(rows: Iterable[Sequence[object]]) -> str:
    """Rows as aligned columns."""
    texts = [[str(part) for part in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in texts)
