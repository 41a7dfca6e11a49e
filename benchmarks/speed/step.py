"""A training step beside a plain loop and beside its own convolutions, in processor seconds and memory.

    python benchmarks/speed/step.py [--cells ga,vnet,unet] [--rounds 3] [--steps 2] [--threads 1] [--small]

CPS with the loss `ga`, forward and backward and both optimisers, of the V-Net with 16 filters (64³, 2 + 2 patches, 14
classes) and of the U-Net (128², 12 + 12 patches, 4 classes). Three forms of it, each in a process of its own:

- reference: fp32, contiguous, losses class by class on one-hot volumes, the head as `nn.Conv3d`, the loss read every
  step, the allocator as it comes;
- ours: networks, method and losses of the package, in the environment of a worker and in the precision and memory
  format that a job takes here;
- convolutions: those of the two networks alone, forward and backward on the inputs that they meet, in the environment
  of a worker.

A third cell, `ga`, is GADice + GACE of labels alone, forward and backward, on logits of 4 x 14 x 96³: the same loops
over classes and the package's loss.

The forms take turns, round by round; a figure is the median over all steps but the first of a round. Processor time,
which other work on the machine disturbs less than the clock. Memory is the process's peak above what it held before.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbench.config.job import Job
from sslbench.config.recipe import CriteriaSpec
from sslbench.conformance.bench import MemoryCheckpoints, MemoryRecorder, random_experiment
from sslbench.core.step import Statistics
from sslbench.execution.environment import worker_environment
from sslbench.losses.compose import build_loss
from sslbench.networks.base import Network, build_network
from sslbench.networks.precision import Precision, prefers_channels_last
from sslbench.training.trainer import Trainer

FORMS = ("reference", "ours", "convolutions")
# network, recipe, labelled budget, classes, patch, patches of either kind
CELLS = {
    "vnet": ("vnet", "phantom", "20%", 14, (64, 64, 64), 2),
    "unet": ("unet", "ssl4mis-acdc", "7 patients", 4, (128, 128), 12),
    "ga": ("", "", "", 14, (96, 96, 96), 4),
}
SMALL = {"vnet": ((32, 32, 32), 1), "unet": ((32, 32), 2), "ga": ((32, 32, 32), 4)}


def main() -> None:
    """Print the table, or, in a process of one form, the figures of that."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cells", default="ga,vnet,unet")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="counted steps of a round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="small patches: whether it runs")
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.form:
        torch.set_num_threads(given.threads)
        print(json.dumps(_figures(given.form, given.cells, given.steps, given.small)))
        return
    print(f"{processor()}, {given.threads} threads, torch {torch.__version__}\n")
    print("| cell | form | s a step | of the reference's speed | of the convolutions' | peak MiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for cell in given.cells.split(","):
        forms = FORMS[:2] if cell == "ga" else FORMS
        seconds: dict[str, list[float]] = {form: [] for form in forms}
        peaks: dict[str, list[float]] = {form: [] for form in forms}
        for _ in range(given.rounds):
            for form in forms:
                found = _apart(form, cell, given)
                seconds[form] += found["seconds"]
                peaks[form].append(found["peak"])
        middle = {form: statistics.median(values) for form, values in seconds.items()}
        for form in forms:
            share = f"{middle['convolutions'] / middle[form]:.0%}" if "convolutions" in middle else ""
            ratios = f"{middle['reference'] / middle[form]:.2f} × | {share}"
            print(f"| {cell} | {form} | {middle[form]:.3f} | {ratios} | {statistics.median(peaks[form]):.0f} |")


def processor() -> str:
    """The processor as it names itself."""
    try:
        found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor()


def _apart(form: str, cell: str, given: argparse.Namespace) -> dict[str, object]:
    """The figures of one round of a form, from a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads), "MKL_NUM_THREADS": str(given.threads)}
    if form != "reference":
        environment, _ = worker_environment("cpu", given.threads, os.environ)
    command = [sys.executable, __file__, "--form", form, "--cells", cell]
    command += ["--steps", str(given.steps), "--threads", str(given.threads), *(["--small"] if given.small else [])]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _figures(form: str, cell: str, steps: int, small: bool) -> dict[str, object]:
    network, recipe, labeled, classes, patch, number = CELLS[cell]
    patch, number = SMALL[cell] if small else (patch, number)
    torch.manual_seed(0)
    if cell == "ga":
        make = _ga(form, classes, (number, classes, *patch))
    elif form == "ours":
        make = _ours(network, recipe, labeled, classes, patch, number, steps + 1)
    else:
        nets = [_plain(network, classes) for _ in range(2)]
        image = torch.rand(2 * number, 1, *patch)
        make = (
            _reference(nets, image, _labels(classes, (number, *patch))) if form == "reference" else _alone(nets, image)
        )
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    seconds = make(steps + 1)
    return {"seconds": seconds[1:], "peak": (_resident("VmHWM") - before) / 2**10}


def _labels(classes: int, shape: tuple[int, ...]) -> Tensor:
    """Nine voxels of ten are background, as in a scan."""
    return (torch.rand(shape) - 0.9).clamp_min(0).mul(10 * (classes - 1)).ceil().long()


def _timed(step: Callable[[], object]) -> Callable[[int], list[float]]:
    def make(steps: int) -> list[float]:
        seconds = []
        for _ in range(steps):
            begun = time.process_time()
            step()
            seconds.append(time.process_time() - begun)
        return seconds

    return make


def _resident(field: str) -> int:
    """KiB that Linux says of this process."""
    found = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


# ----------------------------------------------------------------------------------------------------------- ours


def _ours(
    network: str, recipe: str, labeled: str, classes: int, patch: tuple[int, ...], number: int, steps: int
) -> Callable[[int], list[float]]:
    """Whole steps of the trainer, from cutting the patches on, on random volumes."""
    settings = {
        "network": {"name": network},
        "method.on": "all",
        "patch_size": [*patch],
        "batch.labeled": number,
        "batch.unlabeled": number,
        "schedule.iterations": steps + 1,  # what ends a training is no step
        "schedule.validate_every": 0,
        "checkpoint": "last",
    }
    if network == "vnet":
        settings["network"] = {"name": network, "base_filters": 16, "norm": "batch", "dropout": 0.0}
    job = Job(recipe=recipe, method="cps", loss="ga", labeled=labeled, seed=0, set=settings)
    experiment = random_experiment(job, classes=classes)

    def make(steps: int) -> list[float]:
        times: list[float] = []

        def note() -> bool:
            times.append(time.process_time())
            return False

        Trainer(experiment, MemoryCheckpoints(), MemoryRecorder(), note).fit()
        return [after - before for before, after in itertools.pairwise(times)]

    return make


# ------------------------------------------------------------------------------------------------------ reference


def _plain(network: str, classes: int) -> Network:
    """The network with torch's own convolutions."""
    net = build_network(network, 1, classes).train()
    for layer in net.modules():
        if isinstance(layer, nn.Conv3d):
            layer.__class__ = nn.Conv3d
    return net


def _reference(nets: Sequence[nn.Module], image: Tensor, labels: Tensor) -> Callable[[int], list[float]]:
    """CPS with GA as a training script has it."""
    optimizers = [torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, weight_decay=1e-4) for net in nets]
    L = len(labels)

    def step() -> float:
        a, b = (net(image) for net in nets)
        loss = sum(class_by_class_dice(x[:L], labels) + class_by_class_ce(x[:L], labels, 10) for x in (a, b))
        for own, other in ((a, b), (b, a)):
            loss = loss + 0.1 * class_by_class_ce(own, other.detach().argmax(1), 100)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        return loss.item()

    return _timed(step)


def class_by_class_dice(logits: Tensor, labels: Tensor, smooth: float = 1e-10) -> Tensor:
    """GADice (absent: p), a one-hot volume and a loop over classes."""
    p, C = logits.softmax(1), logits.shape[1]
    y = torch.cat([(labels == c).unsqueeze(1).float() for c in range(C)], 1)
    loss = logits.new_zeros(())
    for c in range(C):
        if y[:, c].sum() > 0:
            top = (p[:, c] * y[:, c]).sum()
            loss = loss + 1 - (2 * top + smooth) / ((p[:, c] ** 2).sum() + (y[:, c] ** 2).sum() + smooth)
        else:
            loss = loss + (p[:, c].detach() * p[:, c]).sum() / p[:, c].numel()
    return loss / C


def class_by_class_ce(logits: Tensor, labels: Tensor, k: float, gamma: float = 0.5) -> Tensor:
    """GACE, a loop over classes."""
    nll, flat = F.cross_entropy(logits, labels, reduction="none").flatten(), labels.flatten()
    number = max(1, int(nll.numel() * k / 100))
    hardest, at = torch.topk(nll, number)
    mined = flat[at]
    loss = logits.new_zeros(())
    for c in range(logits.shape[1]):
        inside = mined == c
        count = inside.sum()
        loss = loss + (hardest * inside).sum() / (number**gamma * (count + 1e-10) ** (1 - gamma) + 1e-10)
    return loss


def _ga(form: str, classes: int, shape: tuple[int, ...]) -> Callable[[int], list[float]]:
    """GADice + GACE on labels, with their gradient in the logits."""
    logits, labels = torch.randn(shape).requires_grad_(), _labels(classes, (shape[0], *shape[2:]))
    statistics_of = Statistics(torch.ones(1, classes), 1, 1, (shape[2:],) * 2, classes, shape[2:], (1, 1))
    loss = build_loss({"name": "ga"}, CriteriaSpec(), statistics_of)
    criteria = loss.criteria

    def step() -> None:
        logits.grad = None
        if form == "ours":
            value = loss.supervised(logits, labels, key="net")
        else:
            value = criteria.ce_weight * class_by_class_ce(logits, labels, 10)
            value = value + criteria.dice_weight * class_by_class_dice(logits, labels)
        value.backward()

    return _timed(step)


# --------------------------------------------------------------------------------------------------- convolutions


def _alone(nets: Sequence[nn.Module], image: Tensor) -> Callable[[int], list[float]]:
    """The convolutions of the networks, each on what it met in a pass, in the memory format of a job here."""
    device = torch.device("cpu")
    precision = Precision("fp32", "", device, prefers_channels_last(device))
    kinds = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    net, met = precision.place(nets[0]), []
    hooks = [
        layer.register_forward_hook(lambda layer, given, made: met.append((layer, given[0].detach(), made.shape)))
        for layer in net.modules()
        if isinstance(layer, kinds)
    ]
    with torch.no_grad():
        net(precision.layout(image))
    for hook in hooks:
        hook.remove()

    def step() -> None:
        for _ in nets:  # they are alike
            for number, (layer, given, shape) in enumerate(met):
                made = layer(given.requires_grad_(number > 0))
                made.backward(precision.layout(torch.ones(shape)))
                given.grad = None

    return _timed(step)


if __name__ == "__main__":
    main()
