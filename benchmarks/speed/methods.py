"""Time and peak memory of a training step of every method relative to `supervised`, beside the passes that the method
documents.

    python benchmarks/speed/methods.py [--recipe ssl4mis-acdc-short,phantom] [--steps 6] [--rounds 3] [--batch 2]

All methods train in one process, in turns, on the same random volumes with the recipe's network, patch and
augmentation and the same number of labelled and unlabelled patches: whole steps of the trainer, from cutting the
patches to the teacher's average. A step's time is the median over all steps and rounds, the first two of a round left
out; on a CPU it is processor time, which other work on the machine disturbs less than the clock. The ratio is to
`supervised`, which draws the labelled patches alone.

`documented` is (trained + untrained / 3) / labelled, from the method's own `step_cost`, in patches: a pass forward
alone is a third of one forward and backward. It counts an encoder with one decoder; where more decoders read an
encoding (`decoders`), and where a step does other work (largest components, a second optimiser), the measured ratio is
larger.

`memory` is the peak of a training of a few steps above what the process held before it was built: networks, optimisers,
averages, batches and the step itself. On a CPU every method is trained once more in a process of its own and the peak
is its resident set's; on a GPU it is what torch had allocated.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from sslbench.config.job import Job
from sslbench.conformance.bench import MemoryCheckpoints, MemoryRecorder, random_experiment
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError
from sslbench.training.trainer import Trainer

WARM_UP = 2  # steps of a round that are not counted
MORE = ["dhc", "supervised+scdl", "cps+scdl"]  # beside every method, of which presets and plugins cost something


class Clock:
    """Asked by a trainer before every step: the differences of its times are the steps' lengths."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.times: list[float] = []

    def __call__(self) -> bool:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.times.append(time.perf_counter() if self.device.type == "cuda" else time.process_time())
        return False


def time_steps(job: Job, steps: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of the counted steps of a short training, by phase."""
    experiment = random_experiment(job, device=str(device))
    clock = Clock(device)
    Trainer(experiment, MemoryCheckpoints(), MemoryRecorder(), clock).fit()
    starts, found = clock.times, {}
    for number, phase in enumerate(experiment.method.phases()):
        # The last step of a phase has no successor in it: what ends a phase (saving) is no step.
        own = starts[number * steps : (number + 1) * steps]
        found[phase.name] = [after - before for before, after in itertools.pairwise(own)][WARM_UP:]
    return found


def peak_memory(job: Job, device: torch.device) -> float:
    """MiB that a short training holds at most, above what the process held before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        time_steps(job, 1, device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with multiprocessing.get_context("spawn").Pool(1) as process:  # a fresh one: its peak is of this training alone
        return process.apply(_resident_peak, (job, torch.get_num_threads()))


def _resident_peak(job: Job, threads: int) -> float:
    torch.set_num_threads(threads)
    job.resolved  # noqa: B018 - loads what is no part of a training
    torch.nn.Conv2d(1, 1, 3)(torch.zeros(1, 1, 8, 8)).sum().backward()
    # Not `ru_maxrss`: a new process begins with that of the one that started it.
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    time_steps(job, 1, torch.device("cpu"))
    return (_resident("VmHWM") - before) / 2**10


def _resident(field: str) -> int:
    """KiB that Linux says of this process."""
    found = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def short_job(recipe: str, spelling: str, batch: int, steps: int) -> Job:
    """A job of a few steps, every phase alike, of a method or of `method+plugin`."""
    method, _, plugin = spelling.partition("+")
    labeled = {"phantom": "20%"}.get(recipe, "7 patients")
    settings = {
        "batch.labeled": batch,
        "batch.unlabeled": batch,
        "augment.strong": ["jitter"],
        "schedule.iterations": steps,
        "schedule.validate_every": 0,
        "checkpoint": "last",
    }
    fields = registry.component("method", method).Options.model_fields
    settings |= {f"method.{name}": steps for name in fields if name.endswith("_iterations")}
    return Job(recipe=recipe, method=method, plugin=plugin or None, labeled=labeled, seed=0, set=settings)


def measure(recipe: str, steps: int, rounds: int, batch: int, device: torch.device, say: Callable[[str], None]) -> None:
    """Print the table of a recipe."""
    jobs: dict[str, Job] = {}
    for name in [entry.name for entry in registry.entries("method") if not entry.preset_of] + MORE:
        try:
            jobs[name] = short_job(recipe, name, batch, steps)
            jobs[name].resolved  # noqa: B018
        except SSLBenchError as error:
            say(f"{name}: left out, {error.message}")
            jobs.pop(name, None)
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for name, job in jobs.items():
            for phase, seconds in time_steps(job, steps, device).items():
                times.setdefault((name, phase), []).extend(seconds)
    memory = {name: peak_memory(short_job(recipe, name, batch, 3), device) for name in jobs}
    base = statistics.median(times["supervised", "train"])
    method = {name: random_experiment(job).method for name, job in jobs.items()}
    precision = random_experiment(jobs["supervised"], device=str(device)).precision
    recipe_of = jobs["supervised"].resolved.recipe
    say(
        f"\n{recipe}: {recipe_of.network.name}, patch {recipe_of.patch_size}, {batch} + {batch} patches, "
        f"{precision.name} on {device}, {torch.get_num_threads()} threads; supervised: {1000 * base:.1f} ms a step, "
        f"{memory['supervised']:.0f} MiB"
    )
    say("| method | phase | ms | ratio | documented | trained | untrained | decoders | MiB | memory |")
    say("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for (name, phase), seconds in times.items():
        cost = next(method[name].step_cost(part) for part in method[name].phases() if part.name == phase)
        middle = statistics.median(seconds)
        line = [name, phase, f"{1000 * middle:.1f}", f"{middle / base:.2f}"]
        if cost is not None:
            trained, untrained = cost.patches(batch, batch)
            line += [f"{(trained + untrained / 3) / batch:.2f}", f"{trained:g}", f"{untrained:g}", str(cost.decoders)]
        line += [""] * (8 - len(line)) + [f"{memory[name]:.0f}", f"{memory[name] / memory['supervised']:.2f}"]
        say("| " + " | ".join(line) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="ssl4mis-acdc-short,phantom", help="recipes, comma-separated")
    parser.add_argument("--steps", type=int, default=6, help="steps of a phase in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=2, help="labelled, and unlabelled, patches")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="of a CPU; default: torch's")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    for recipe in asked.recipe.split(","):
        measure(recipe, asked.steps, asked.rounds, asked.batch, torch.device(asked.device), print)


if __name__ == "__main__":
    main()
