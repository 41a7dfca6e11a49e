"""What commands take that read many runs: `status` and `report` of a folder of finished runs, and the plan of as
many jobs.

The runs are made up: configurations as `run` writes them, records drawn at random and sealed as a worker seals them, no
checkpoints. Seconds are of the processor, user and system together; the first of two is with an empty cache.

    python benchmarks/speed/results.py --seeds 30              # 336 cells: 10 080 runs, 1 GB
    python benchmarks/speed/results.py --seeds 2 --folder /tmp/runs   # kept there, and used again
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from sslbench.config.grid import Grid
from sslbench.config.job import Job
from sslbench.config.text import yaml_text
from sslbench.core.files import write_json
from sslbench.data.datasets.synapse import Synapse
from sslbench.runs.directory import Run
from sslbench.runs.records import cases_text

METHODS = (
    "supervised mt uamt cps rdrop fixmatch cct urpc mcnet mcnet_plus dcnet ccvc ceud ssnet cobionet desco depl dst bcp "
    "sdcl abd beta_fft magicnet adsh crest simis basak cld"
)
CASES = [f"{number:04d}" for number in (1, 5, 9, 13, 17, 21)]
CLASSES = [info.short for info in Synapse.classes]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=30, help="runs of each of 336 cells")
    parser.add_argument("--folder", type=Path, help="where the runs lie; default: a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        grid = folder / "many.yaml"
        jobs = write_grid(grid, arguments.seeds).rows()
        results, fresh = folder / "results", folder / "fresh"
        if not results.exists():
            for job in jobs:
                write_run(job, results)
        print(f"{len(jobs)} runs\n\n| command | cold s | warm s |\n| --- | --- | --- |")
        for words, place in (
            (["status"], results),
            (["status", str(grid)], results),
            (["report"], results),
            (["report", str(grid)], results),
            (["run", "--grid", str(grid), "--dry-run"], fresh),
        ):
            with tempfile.TemporaryDirectory() as cache:
                cold, warm = (seconds([*words, "--results-dir", str(place)], cache) for _ in range(2))
            shown = " ".join(Path(word).name for word in words)
            print(f"| {shown} | {cold:.1f} | {warm:.1f} |", flush=True)


def write_grid(path: Path, seeds: int) -> Grid:
    """Write a product of 336 cells to a file, and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entry = {"method": METHODS.split(), "loss": ["default", "ga", "metassl"], "plugin": [None, "scdl"]}
    content = {"recipe": "ga-synapse", "labeled": ["10%", "20%"], "seeds": list(range(seeds)), "jobs": [entry]}
    path.write_text(yaml_text(content), encoding="utf-8")
    return Grid(name=path.stem, **content)


def write_run(job: Job, results: Path) -> None:
    """Write the directory of a finished run."""
    run, draw = Run.of(job, results), random.Random(str(job.directory))
    first = next(iter(run.directory.parent.glob("seed-*/config.yaml")), None)
    if first is None:
        run.write_config(job)
    else:  # YAML is slow to write: its neighbour differs in the seed alone
        run.directory.mkdir()
        told = first.read_text(encoding="utf-8").replace(f"\n  seed: {seed_of(first)}\n", f"\n  seed: {job.seed}\n", 1)
        run.config.write_text(told, encoding="utf-8")
    rows = []
    for case in CASES:
        for number, name in enumerate(CLASSES, 1):
            predicted, hit = draw.randrange(500, 1500), draw.randrange(100, 500)
            place = ("ga", case, case, number, name)
            rows.append((*place, "dsc", 2 * hit / (1000 + predicted), "fraction", "both", 1000, predicted))
            rows.append((*place, "asd", draw.uniform(0.5, 30), "voxel", "both", 1000, predicted))
    names = ("protocol", "case", "group", "class_id", "class", "metric", "value", "unit", "state", "ref_voxels",
             "pred_voxels")  # fmt: skip
    text = cases_text(dict(zip(names, zip(*rows, strict=True), strict=True)))
    run.cases.write_text(text, encoding="utf-8")
    digest = hashlib.sha256(text.encode()).hexdigest()
    data = {"dataset": "synapse", "found": 30, "official": 30, "fingerprint": "made up"}
    rule = job.resolved.recipe.checkpoint
    write_json(run.provenance, {"data": data, "tested": {rule: {run.cases.name: digest}}}, sync=False)
    scores = {name: sum(row[6] for row in rows if row[5] == name) / len(rows) for name in ("dsc", "asd")}
    status = {"state": "finished", "attempts": 1, "training_seconds": 3600.0, "test_seconds": 60.0, "scores": scores}
    write_json(run.status_file, status, sync=False)
    write_json(run.progress_file, {"stage": "finished", "iterations": 100, "iteration": 100}, sync=False)


def seed_of(config: Path) -> str:
    """The seed of a run by its folder's name."""
    return config.parent.name.split("-")[1]


def seconds(words: list[str], cache: str) -> float:
    """The processor's seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "SSLBENCH_CACHE": cache}
    subprocess.run(
        [sys.executable, "-m", "sslbench", *words], check=True, env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
