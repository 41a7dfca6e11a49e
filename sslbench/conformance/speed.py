"""The speed of training steps on a device: whole steps of the trainer on random volumes, beside the convolutions of
their networks alone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sslbench.config.job import Job
from sslbench.config.layers import load_recipe
from sslbench.config.splits import load_splits
from sslbench.config.text import parse_component
from sslbench.conformance.bench import MemoryCheckpoints, MemoryRecorder, random_experiment
from sslbench.core import registry
from sslbench.execution.memory import tally_step
from sslbench.networks import Network
from sslbench.networks.precision import Precision
from sslbench.training.experiment import Experiment
from sslbench.training.trainer import Trainer

WARM_UP = 2  # steps that are not counted


@dataclass(frozen=True)
class StepSpeed:
    """The speed of a step.

    Attributes:
        cell: recipe, method and loss.
        precision: that it was computed in.
        patches: labelled and unlabelled ones in a step.
        seconds: of a step, the median; on a CPU processor time by the number of threads, which other work on the
            machine disturbs less than the clock.
        flop: operations of a step: of its convolutions and matrix products.
        convolutions: operations a second of the network's convolutions alone, forward and backward, on this device.
        counted: bytes of tensors alive at once, counted beforehand.
        peak: the same as measured, with what the process takes beside; None where the system does not say.
    """

    cell: str
    precision: str
    patches: tuple[int, int]
    seconds: float
    flop: int
    convolutions: float
    counted: int
    peak: int | None

    @property
    def rate(self) -> float:
        """Operations a second that whole steps keep up."""
        return self.flop / self.seconds

    @property
    def share(self) -> float:
        """The rate of steps by that of their convolutions alone."""
        return self.rate / self.convolutions

    def to_json(self) -> dict[str, Any]:
        """The speed as a JSON object."""
        return {**asdict(self), "flop_per_second": self.rate, "share": self.share}


class Clock:
    """Asked by a trainer before every step: differences of its times are the steps' lengths."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.times: list[float] = []

    def __call__(self) -> bool:
        self.times.append(now(self.device))
        return False


def now(device: torch.device) -> float:
    """Seconds: of the clock when a GPU is done, else of the processor, by the number of threads."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


def speed_job(
    recipe: str,
    method: str,
    loss: str,
    steps: int | None = None,
    batch: int | None = None,
    set: Mapping[str, Any] | None = None,
) -> Job:
    """A job of some steps, every phase alike.

    Args:
        recipe, method, loss: as a job names them.
        steps: of every phase; None: the recipe's.
        batch: labelled, and unlabelled, patches; None: the recipe's.
        set: further settings.
    """
    made = load_recipe(recipe)
    (labeled, *_) = load_splits(made.dataset, made.splits).budgets
    fields = registry.component("method", parse_component(method)[0]).Options.model_fields
    settings: dict[str, Any] = {"schedule.validate_every": 0, "checkpoint": "last"}
    if steps is not None:
        lengths = ["schedule.iterations", *(f"method.{name}" for name in fields if name.endswith("_iterations"))]
        settings |= dict.fromkeys(lengths, steps)
    if batch is not None:
        settings |= {"batch.labeled": batch, "batch.unlabeled": batch}
    return Job(recipe=recipe, method=method, loss=loss, labeled=labeled, seed=0, set={**settings, **(set or {})})


def volumes(job: Job, device: torch.device) -> Experiment:
    """A job put together on random volumes of its dataset's channels and classes."""
    dataset = registry.component("dataset", job.resolved.recipe.dataset)
    return random_experiment(job, device=str(device), channels=len(dataset.channels), classes=len(dataset.classes) + 1)


def step_seconds(experiment: Experiment, device: torch.device) -> list[float]:
    """Seconds of the steps of a short training, of its last phase, the first ones left out."""
    clock = Clock(device)
    trainer = Trainer(experiment, MemoryCheckpoints(), MemoryRecorder(), clock)
    trainer.fit()
    own = clock.times[-trainer.lengths[-1] :]
    # The last step has no successor: what ends a phase, saving, is no step.
    return [after - before for before, after in itertools.pairwise(own)][WARM_UP:]


def measure_speed(
    cell: tuple[str, str, str],
    device: torch.device,
    steps: int,
    batch: int | None = None,
    set: Mapping[str, Any] | None = None,
) -> StepSpeed:
    """Measure a cell.

    Args:
        cell: recipe, method, loss.
        device: to train on.
        steps: that count.
        batch, set: as for `speed_job`.
    """
    job = speed_job(*cell, steps=steps + WARM_UP + 1, batch=batch, set=set)
    peak = Peak(device)
    experiment = volumes(job, device)
    seconds = median(step_seconds(experiment, device))
    highest = peak.bytes()
    precision, recipe = experiment.precision, job.resolved.recipe
    tally = tally_step(job.resolved, "bf16" if precision.name == "bf16" else "fp32")
    network = next(module for module in experiment.method.modules() if isinstance(module, Network))
    image = experiment.sampler.batch(0).image["weak"]
    return StepSpeed(
        cell="{} {}+{}".format(*cell),
        precision=precision.name,
        patches=(recipe.batch.labeled, recipe.batch.unlabeled),
        seconds=seconds,
        flop=tally.flop,
        convolutions=convolution_rate(network, image, precision),
        counted=tally.peak,
        peak=highest,
    )


def convolution_rate(network: nn.Module, image: Tensor, precision: Precision, repeats: int = 3) -> float:
    """Operations a second of a network's convolutions alone, forward and backward, each on what it meets in a pass.

    Args:
        network: on the device, its weights laid out as in training.
        image: (B, channels, *S) on the device.
        precision: to compute in.
        repeats: of which the fastest counts.
    """
    kinds = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    met: list[tuple[nn.Module, Tensor]] = []
    hooks = [
        layer.register_forward_pre_hook(
            lambda layer, inputs: met.append((layer, inputs[0].detach().requires_grad_(inputs[0].requires_grad)))
        )
        for layer in network.modules()
        if isinstance(layer, kinds)
    ]
    network.train()
    with precision.autocast():
        network(precision.layout(image))
    for hook in hooks:
        hook.remove()
    with FlopCounterMode(display=False) as counter:
        gradients = [_forward(layer, content, precision) for layer, content in met]
        for output in gradients:
            output.backward(output.detach())
    best = float("inf")
    for _ in range(repeats):
        begun = now(image.device)
        for layer, content in met:
            output = _forward(layer, content, precision)
            output.backward(output.detach())
        best = min(best, now(image.device) - begun)
    return counter.get_total_flops() / best


def _forward(layer: nn.Module, content: Tensor, precision: Precision) -> Tensor:
    with precision.autocast():
        return layer(content)


class Peak:
    """The memory of this process from here on: what torch allocated on a GPU, resident memory on a CPU.

    Args:
        device: to look at.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self._before = device, None
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            # Not `ru_maxrss`: that is the peak of everything before, too.
            Path("/proc/self/clear_refs").write_text("5")
            self._before = _resident("VmRSS")
        except OSError:
            return

    def bytes(self) -> int | None:
        """Bytes at most, on a CPU above what the process held at the start; None where the system does not say."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return None if self._before is None else max(_resident("VmHWM") - self._before, 0)


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def rate_of(speeds: Sequence[StepSpeed]) -> float:
    """The rate that estimates go by: the median over cells."""
    return median(speed.rate for speed in speeds)


def measure_all(
    cells: Sequence[tuple[str, str, str]],
    device: torch.device,
    steps: int,
    batch: int | None,
    tell: Callable[[str], None],
) -> list[StepSpeed]:
    """Measure cells one after the other."""
    found = []
    for cell in cells:
        tell("{}: {}+{}".format(*cell))
        found.append(measure_speed(cell, device, steps, batch))
    return found
