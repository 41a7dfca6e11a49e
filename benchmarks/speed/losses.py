"""What a loss costs: forward and backward of its terms on the same logits, as a multiple of `default`'s.

Beside them MONAI's DiceCELoss in the setting that `default` computes (batch Dice, squared denominators, background
included). Each figure is the least of several repetitions, so that other work on the machine counts little.

    python benchmarks/speed/losses.py                        # the batch of ssl4mis-acdc, slices of 256²
    python benchmarks/speed/losses.py --shape 2,14,96,96,96  # patches of ga-synapse
    python benchmarks/speed/losses.py --device cuda --shape 2,14,96,96,96
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from sslbench.config.recipe import CriteriaSpec
from sslbench.core import registry
from sslbench.core.step import Batch, Statistics, Step
from sslbench.losses.base import Loss
from sslbench.losses.compose import build_loss


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--shape", default="12,4,256,256", help="B,C,*S of the logits that a term gets")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions, of which the least counts")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--losses", nargs="*", help="names (default: all that are no presets)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    shape = tuple(int(side) for side in arguments.shape.split(","))
    names = arguments.losses or [entry.name for entry in registry.entries("loss") if entry.preset_of is None]
    batch = _Logits(shape, torch.device(arguments.device))
    rows = [(name, _times(batch, _loss(name, shape), arguments.repeat)) for name in ["default", *names]]
    base = rows[0][1]
    rows = [rows[0], *(row for row in rows[1:] if row[0] != "default")]
    print(f"logits {arguments.shape} on {arguments.device}, {arguments.threads} CPU threads: milliseconds of `default`")
    print("and multiples of them; observe, cross-entropy and Dice with labels, cross-entropy with pseudo-labels")
    print()
    print("| loss | supervised step | observe | ce | dice | pseudo ce |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, times in rows:
        shown = [f"{times['step'] * 1e3:.0f} ms" if name == "default" else f"{times['step'] / base['step']:.2f}"]
        for part in ("observe", "ce", "dice", "pseudo"):
            unit = base["ce" if part == "observe" else part]
            shown.append(f"{times[part] * 1e3:.0f} ms" if name == "default" else f"{times[part] / unit:.2f}")
        print(f"| {name} | {' | '.join(shown)} |")
    monai = _least(batch.monai(), arguments.repeat, batch.device)
    print(f"| MONAI DiceCELoss | {monai / base['step']:.2f} | | | | |")
    print()
    print("The column `observe` is in multiples of the cross-entropy of `default`.")


class _Logits:
    """Logits with labels and a reference on a device."""

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        self.device = device
        self.logits = torch.randn(shape, generator=generator).to(device).requires_grad_()
        self.reference = torch.randn(shape, generator=generator).to(device).softmax(1)
        # Nine voxels of ten are background, as in a scan.
        share = torch.rand(shape[0], *shape[2:], generator=generator)
        self.labels = (share - 0.9).clamp_min(0).mul(10 * (shape[1] - 1)).ceil().long().to(device)

    def monai(self) -> Callable[[], Tensor]:
        """Forward of MONAI's loss."""
        from monai.losses import DiceCELoss

        criterion = DiceCELoss(to_onehot_y=True, softmax=True, squared_pred=True, batch=True)
        return lambda: criterion(self.logits, self.labels.unsqueeze(1))


def _loss(name: str, shape: tuple[int, ...]) -> Loss:
    counts = torch.logspace(6, 3, shape[1]).long().unsqueeze(0)
    statistics = Statistics(counts, 1, 1, (shape[2:],) * 2, shape[1], shape[2:], (1, 1))
    entry = registry.get("loss", name)
    return build_loss({"name": entry.preset_of or name, **entry.set}, CriteriaSpec(), statistics)


def _times(batch: _Logits, loss: Loss, repeat: int) -> dict[str, float]:
    """Seconds of the parts of a step with this loss."""
    loss.to(batch.device)
    step, logits, labels = _step(batch.device), batch.logits, batch.labels
    reference = ("peer", batch.reference) if loss.needs_reference else None
    given: dict[str, Any] = {"key": "net", "reference": reference}

    def observe() -> None:
        loss.observe(step, "net", logits.detach(), labels)

    def supervised() -> Tensor:
        observe()
        return loss.supervised(logits, labels, **given)

    loss.observe(step, "peer", batch.reference.log(), labels)
    observe()
    terms: dict[str, Callable[[], Tensor | None]] = {
        "step": supervised,
        "observe": observe,
        "ce": lambda: loss.ce(logits, labels, source="label", **given),
        "dice": lambda: loss.dice(logits, labels, source="label", **given),
        "pseudo": lambda: loss.ce(logits, labels, source="pseudo", **given),
    }
    return {part: _least(term, repeat, batch.device) for part, term in terms.items()}


def _least(term: Callable[[], Tensor | None], repeat: int, device: torch.device) -> float:
    """The least seconds that a term and its gradient take, after one unmeasured go."""
    # Under one thread the CPU time of this process says more than the clock on a machine that others use too.
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    least = float("inf")
    for attempt in range(repeat + 1):
        begun = clock()
        value = term()
        if value is not None:
            value.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if attempt:
            least = min(least, clock() - begun)
    return least


def _step(device: torch.device) -> Step:
    def no_sweep() -> Iterator[Batch]:
        raise NotImplementedError

    return Step(
        iteration=0,
        iterations=1,
        epoch=0,
        epochs=1,
        last_of_epoch=False,
        phase="train",
        consistency_weight=torch.tensor(0.1, device=device),
        generators=lambda stream, device: torch.Generator(),
        logger=lambda name, value: None,
        sweeper=no_sweep,
    )


if __name__ == "__main__":
    main()
