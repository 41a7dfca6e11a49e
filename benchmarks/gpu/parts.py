"""The parts of `run.py`: each is a function of a `Plan` that returns what it found, as JSON has it, and runs in a
process of its own."""

from __future__ import annotations

import hashlib
import itertools
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Plan:
    """What is asked for.

    Attributes:
        device: `cuda` or `cpu`.
        small: sizes of a dry run.
        folder: for what a part writes.
    """

    device: str
    small: bool
    folder: Path


class Skipped(Exception):
    """A part cannot run here; the message says why."""


# Six cells: recipe, method, loss. The dry run takes two, on small patches.
CELLS = (
    *(("ga-synapse", method, loss) for method, loss in (("supervised", "default"), ("mt", "default"), ("cps", "ga"))),
    *(("ssl4mis-acdc", method, loss) for method, loss in (("supervised", "default"), ("mt", "default"), ("cps", "ga"))),
)
SMALL_CELLS = (("phantom", "cps", "ga"), ("ssl4mis-acdc", "mt", "default"))
SMALL: Mapping[str, Mapping[str, Any]] = {
    "phantom": {"patch_size": [16, 16, 32], "network.base_filters": 2},
    "ssl4mis-acdc": {"patch_size": [32, 32], "batch.labeled": 2, "batch.unlabeled": 2},
}


def versions(plan: Plan) -> dict[str, Any]:
    """What runs here."""
    import torch

    from sslbench.networks.precision import cudnn_fault, fast_bf16, prefers_channels_last
    from sslbench.runs.provenance import device_name, gpu_facts

    device = torch.device(plan.device)
    cudnn = torch.backends.cudnn.version() if device.type == "cuda" else None
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "device": device_name(device),
        "processor": device_name(torch.device("cpu")),
        "gpu": gpu_facts(device),
        "fast_bf16": fast_bf16(device),
        "channels_last": prefers_channels_last(device),
        "faults": [fault for kind in ("bf16", "tf32") for dims in (2, 3) if (fault := cudnn_fault(kind, dims, cudnn))],
        "mps": shutil.which("nvidia-cuda-mps-control") or "not installed",
    }


def tests(plan: Plan) -> dict[str, Any]:
    """`pytest -m gpu`."""
    if plan.device != "cuda":
        raise Skipped("no GPU is asked for")
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "tests/gpu"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = ended.stdout.strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"exit": ended.returncode, "summary": lines[-1] if lines else "", "failed": failed}


def cells(plan: Plan) -> list[dict[str, Any]]:
    """Steps of cells beside those of a plain loop, and beside the convolutions alone."""
    import torch

    from sslbench.conformance.speed import measure_speed

    device, steps = torch.device(plan.device), 1 if plan.small else 12
    found = []
    for cell in SMALL_CELLS if plan.small else CELLS:
        changed = SMALL[cell[0]] if plan.small else {}
        entry = measure_speed(cell, device, steps, set=changed).to_json()
        entry["reference_seconds"] = reference_seconds(cell, device, steps, changed)
        entry["faster"] = entry["reference_seconds"] / entry["seconds"]
        found.append(entry)
    return found


def reference_seconds(cell: tuple[str, str, str], device: Any, steps: int, changed: Mapping[str, Any]) -> float:
    """Seconds of a step of the plain loop, the median."""
    import torch
    from reference import ReferenceLoop  # type: ignore[import-not-found]

    from sslbench.conformance.speed import WARM_UP, now, speed_job
    from sslbench.core import registry
    from sslbench.networks import build_network

    recipe = speed_job(*cell, set=changed).resolved.recipe
    dataset = registry.component("dataset", recipe.dataset)
    channels, classes = len(dataset.channels), len(dataset.classes) + 1
    torch.manual_seed(0)
    networks = [
        build_network(recipe.network.name, channels, classes, **recipe.network.options).to(device)
        for _ in range(2 if cell[1] == "cps" else 1)
    ]
    loop = ReferenceLoop(cell[1], cell[2], networks, classes, recipe.batch.labeled)
    image = torch.rand(recipe.batch.labeled + recipe.batch.unlabeled, channels, *recipe.patch_size)
    label = (image[: recipe.batch.labeled, 0] * classes).long().clamp(max=classes - 1)
    times = [now(device)]
    for _ in range(steps + WARM_UP):
        loop.step(image.to(device), label.to(device))  # from the host, as a loader hands them over
        times.append(now(device))
    return median(after - before for before, after in itertools.pairwise(times[WARM_UP:]))


def repeats(plan: Plan) -> list[dict[str, Any]]:
    """Whether a training repeats and resumes to the byte, with torch told so and without."""
    import torch

    from sslbench.conformance.bench import tiny_job
    from sslbench.conformance.speed import speed_job
    from sslbench.core.determinism import repeatable

    device = torch.device(plan.device)
    jobs = {}
    if plan.small:
        jobs["cps+ga, 2-D, tiny, fp32"] = tiny_job("cps", "ga", "2d", {"schedule.iterations": 4})
    else:
        for method, loss in (("cps", "ga"), ("urpc", "default"), ("mt", "metassl")):
            jobs[f"{method}+{loss}, 3-D, tiny, fp32"] = tiny_job(method, loss, "3d", {"schedule.iterations": 6})
            jobs[f"{method}+{loss}, 2-D, tiny, fp32"] = tiny_job(method, loss, "2d", {"schedule.iterations": 6})
        for cell in (CELLS[2], CELLS[5]):
            jobs["{} {}+{}, its precision".format(*cell)] = speed_job(*cell, steps=12)
    found = []
    for name, job in jobs.items():
        for told in (True, False):
            with repeatable(device) if told else nullcontext({}) as refused:
                once, again = trained_hash(job, device), trained_hash(job, device)
                resumed = trained_hash(job, device, stop=job.resolved.recipe.schedule.iterations // 2)
            entry = {"job": name, "told": told, "repeats": once == again, "resumes": once == resumed}
            found.append({**entry, "weights": once[:16], "refused": sorted(refused)})
    return found


def trained_hash(job: Any, device: Any, stop: int | None = None) -> str:
    """The hash of a training's state, stopped and taken up by a fresh object after `stop` iterations."""
    from sslbench.conformance.bench import MemoryCheckpoints, MemoryRecorder
    from sslbench.conformance.speed import volumes
    from sslbench.training.trainer import Interrupted, Trainer

    checkpoints = MemoryCheckpoints()
    if stop is not None:
        asked = iter(range(stop))
        trainer = Trainer(volumes(job, device), checkpoints, MemoryRecorder(), lambda: next(asked, None) is None)
        with suppress(Interrupted):
            trainer.fit()
    trainer = Trainer(volumes(job, device), checkpoints, MemoryRecorder())
    trainer.fit()
    digest = hashlib.sha256()
    for key, value in sorted(trainer.method.state_dict().items()):
        digest.update(key.encode())
        if hasattr(value, "cpu"):
            digest.update(value.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()


def layouts(plan: Plan) -> list[dict[str, Any]]:
    """Channels last against contiguous: whole steps, and the convolutions alone."""
    import torch

    from sslbench.conformance.speed import measure_speed
    from sslbench.networks import precision

    device, steps = torch.device(plan.device), 1 if plan.small else 8
    found = []
    for cell in SMALL_CELLS[:1] if plan.small else (CELLS[2], CELLS[5]):
        for last in (True, False):
            with patch.object(precision, "prefers_channels_last", lambda device, last=last: last):
                speed = measure_speed(cell, device, steps, set=SMALL[cell[0]] if plan.small else {})
            found.append({"channels_last": last, **speed.to_json()})
    return found


def packing(plan: Plan) -> dict[str, Any]:
    """Steps a second of 1, 2, 4 and 8 processes on one device, without MPS and with it."""
    found: dict[str, Any] = {"plain": packed(plan)}
    if plan.device != "cuda":
        return found | {"mps": {"skipped": "no GPU is asked for"}}
    control = shutil.which("nvidia-cuda-mps-control")
    if control is None:
        return found | {"mps": {"skipped": "nvidia-cuda-mps-control is not installed here"}}
    try:
        with _mps(control):
            return found | {"mps": packed(plan)}
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        return found | {"mps": {"skipped": f"MPS does not start: {error}"}}


@contextmanager
def _mps(control: str) -> Iterator[None]:
    """A multi-process service of this user's own, ended afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        own = {"CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log"}
        with patch.dict(os.environ, own):
            subprocess.run([control, "-d"], check=True, timeout=20, capture_output=True)
            try:
                yield
            finally:
                subprocess.run([control], input="quit\n", text=True, timeout=20, check=False, capture_output=True)


def packed(plan: Plan) -> list[dict[str, Any]]:
    """The same for one setting: a row for each cell and number of processes."""
    seconds, counts = (0.3, (1, 2)) if plan.small else (4.0, (1, 2, 4, 8))
    rows = []
    for number in (0,) if plan.small else (5, 2):  # the 2-D cell gains most
        base = None
        for count in counts:
            rate = sum(_together(plan, number, count, seconds))
            base = base or rate
            cell = "{} {}+{}".format(*(SMALL_CELLS if plan.small else CELLS)[number])
            rows.append({"cell": cell, "processes": count, "steps_per_second": rate, "gain": rate / base})
    return rows


def _together(plan: Plan, number: int, count: int, seconds: float) -> list[float]:
    """Steps a second of each of some processes that begin to count at once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, str(Path(__file__).with_name("run.py")), "--device", plan.device]
        command += ["--small"] if plan.small else []
        children = [
            subprocess.Popen(
                [*command, "--child", f"{number},{seconds},{folder / str(child)}"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for child in range(count)
        ]
        try:
            _wait(lambda: len(list(folder.glob("*.ready"))) == count, children)
            (folder / "go").touch()
            outputs = [child.communicate(timeout=60) for child in children]
        finally:
            for child in children:
                child.kill()
    for child, (_, words) in zip(children, outputs, strict=True):
        if child.returncode:
            raise RuntimeError(words.strip().splitlines()[-1] if words.strip() else f"code {child.returncode}")
    return [float(text.split()[-1]) for text, _ in outputs]


def _wait(done: Callable[[], bool], children: list[subprocess.Popen[str]]) -> None:
    end = time.monotonic() + 120
    while not done():
        if any(child.poll() for child in children):
            raise RuntimeError("a process ended: " + (children[0].communicate()[1].strip().splitlines() or ["?"])[-1])
        if time.monotonic() > end:
            raise RuntimeError("the processes did not begin in two minutes")
        time.sleep(0.05)


def child(plan: Plan, number: int, seconds: float, place: Path) -> float:
    """One of several processes: builds, makes some steps, waits for the others, and returns its steps a second."""
    import torch

    from sslbench.conformance.bench import MemoryCheckpoints, MemoryRecorder
    from sslbench.conformance.speed import WARM_UP, speed_job, volumes
    from sslbench.training.trainer import Interrupted, Trainer

    torch.set_num_threads(1)
    device = torch.device(plan.device)
    cell = (SMALL_CELLS if plan.small else CELLS)[number]
    job = speed_job(*cell, steps=1_000_000, set=SMALL[cell[0]] if plan.small else {})
    made, begun = 0, 0.0

    def stop() -> bool:
        nonlocal made, begun
        if made == WARM_UP:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            place.with_suffix(".ready").touch()
            while not (place.parent / "go").exists():
                time.sleep(0.005)
            begun = time.perf_counter()
        made += 1
        return made > WARM_UP + 1 and time.perf_counter() - begun > seconds

    with suppress(Interrupted):
        Trainer(volumes(job, device), MemoryCheckpoints(), MemoryRecorder(), stop).fit()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (made - WARM_UP - 1) / (time.perf_counter() - begun)


def acdc(plan: Plan) -> dict[str, Any]:
    """A short run on real scans: the folder `ACDC` names holds the raw ACDC release, or a part of it."""
    source = os.environ.get("ACDC")
    if not source:
        raise Skipped("ACDC=<folder of the raw ACDC release, or of some patients> is not set")
    if not Path(source).is_dir():
        raise Skipped(f"ACDC={source} is no folder")
    from sslbench.config.splits import HELD

    folder = plan.folder / "acdc"
    places = ["--data-dir", str(folder / "data")]
    took = {}
    took["prepare"] = _sslbench("prepare", "acdc", "--source", source, *places)
    budget = f"7-patients{HELD}"  # of the labelled patients those that are there
    run = ["run", "-r", "ssl4mis-acdc-short", "-m", "cps", "-l", "default,ga", "--labeled", budget, "-s", "1337"]
    results = ["--results-dir", str(folder / "results")]
    scale = ["--scale", "0.02"] if plan.small else []
    took["run"] = _sslbench(*run, *scale, "--device", plan.device, "--no-progress", *places, *results)
    scores = [path.read_text() for path in sorted((folder / "results").glob("runs/**/status.json"))]
    found = [re.search(r'"dsc": ([\d.]+)', text) for text in scores]
    return {"seconds": took, "dsc": [float(match[1]) for match in found if match]}


def _sslbench(*words: str) -> float:
    """Run a command; the seconds that it took."""
    begun = time.perf_counter()
    ended = subprocess.run([sys.executable, "-m", "sslbench", *words], capture_output=True, text=True, check=False)
    if ended.returncode:
        lines = ended.stderr.strip().splitlines()
        raise RuntimeError(f"sslbench {words[0]}: " + (" ".join(lines[-2:]) or f"code {ended.returncode}"))
    return time.perf_counter() - begun


# In the order in which they run, with the seconds that each may take: nine minutes in all, starts included.
PARTS: Mapping[str, tuple[Callable[[Plan], Any], int]] = {
    "versions": (versions, 30),
    "cells": (cells, 130),
    "repeats": (repeats, 80),
    "tests": (tests, 100),
    "layouts": (layouts, 50),
    "packing": (packing, 90),
    "acdc": (acdc, 60),
}
