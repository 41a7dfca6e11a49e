"""Is the arithmetic that a job trains in inside the noise of its seeds? The same jobs in fp32, TF32 and bf16.

    python benchmarks/speed/arithmetic.py [--cells acdc,phantom] [--seeds 0,1,2] [--scale 1]
                                          [--data-dir DIR] [--results-dir DIR]

Trains a supervised network with the loss `ga` on ACDC (prepared with `sslbench prepare acdc --source ...`) and on the
phantom, once for every seed and arithmetic, from the same first weights and patches, and scores the test cases.

A machine without TF32 or fast bf16 can run it: the operands of convolutions and matrix products, their outputs (bf16
alone) and the gradients of both are rounded to the 11 or 8 significant bits that these formats have, and multiplied and
summed in fp32, as the hardware does. It says what rounding does to a result, and nothing about speed or about kernels
that are wrong.

The table: DSC of each seed, mean and sample SD over seeds, and the mean difference from fp32 on the same seed with its
95 % interval (t, over seeds). Training is chaotic: even the last bit parts two trainings, so differences are not near
0; what is asked is whether they are larger than what another seed does, and of one sign.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from scipy.stats import t as student
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from sslbench import Job, load_results, run_job
from sslbench.networks.autocast import IN_BF16, name_of
from sslbench.networks.precision import Precision

CELLS: dict[str, dict[str, Any]] = {
    "acdc": {
        "recipe": "ssl4mis-acdc-short",
        "labeled": "7 patients",
        "set": {
            "patch_size": [96, 96],
            "batch.labeled": 3,
            "batch.unlabeled": 3,
            "network.dropout": [0, 0, 0, 0, 0],
            "schedule.iterations": 400,
            "schedule.validate_every": 200,
        },
    },
    "phantom": {"recipe": "phantom", "labeled": "20%", "set": {"patch_size": [48, 32, 32]}},
}
BITS = {"tf32": 11, "bf16": 8}  # significant bits, the implied one too; both have the exponents of fp32


def rounded(value: Tensor, bits: int) -> Tensor:
    """fp32 rounded to so many significant bits, ties away from zero as a GPU's conversion to TF32 has them."""
    drop = 24 - bits
    whole = value.contiguous().view(torch.int32)
    return ((whole + (1 << (drop - 1))) & -(1 << drop)).view(torch.float32).view_as(value)


class _Round(torch.autograd.Function):
    """Rounds a value going forward and its gradient coming back."""

    @staticmethod
    def forward(context: Any, value: Tensor, forward: int, backward: int) -> Tensor:
        context.backward = backward
        return rounded(value, forward) if forward < 24 else value.view_as(value)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        return (rounded(gradient, context.backward) if context.backward < 24 else gradient), None, None


class Rounding(TorchFunctionMode):
    """Convolutions and products on operands of fewer bits, forward and backward."""

    def __init__(self, arithmetic: str) -> None:
        super().__init__()
        self.bits = BITS[arithmetic]
        self.stored = (
            self.bits if arithmetic == "bf16" else 24
        )  # what is written: in bf16 outputs, and gradients of inputs
        self.met = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if name_of(func) not in IN_BF16:
            return func(*args, **(kwargs or {}))
        self.met += 1
        args, kwargs = tree_map(lambda value: self._round(value, self.bits, self.stored), (args, kwargs or {}))
        # The gradient of the output is an operand of both products of the backward pass.
        return self._round(func(*args, **kwargs), self.stored, self.bits)

    @staticmethod
    def _round(value: Any, forward: int, backward: int) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        return _Round.apply(value, forward, backward)


@contextmanager
def computing_in(arithmetic: str) -> Iterator[None]:
    """Every forward pass and loss of a training in this process, rounded so."""
    if arithmetic == "fp32":
        yield
        return
    mode = Rounding(arithmetic)
    with patch.object(Precision, "autocast", lambda precision: mode):
        yield
    if not mode.met:
        raise RuntimeError(f"nothing was computed in {arithmetic}")


def dsc(cell: str, seed: int, arithmetic: str, args: argparse.Namespace) -> float:
    """Train, test, and give the mean DSC over test cases and classes in %."""
    given = CELLS[cell]
    changes = {**given["set"], **({"schedule.scale": args.scale} if args.scale != 1 else {}), "precision": "fp32"}
    job = Job(recipe=given["recipe"], method="supervised", loss="ga", labeled=given["labeled"], seed=seed, set=changes)
    results = args.results_dir / arithmetic
    with computing_in(arithmetic):
        folder = run_job(job, args.data_dir, results, device="cpu", threads=1)
    frame = load_results(folder)
    return 100 * float(frame.loc[frame.metric == "dsc", "value"].mean())


def show(cell: str, found: dict[str, list[float]]) -> None:
    """Print the rows of a cell."""
    for arithmetic, values in found.items():
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        each = " ".join(f"{value:6.2f}" for value in values)
        line = f"{cell:8} {arithmetic:5} {each}   {statistics.mean(values):6.2f}{spread}"
        if arithmetic != "fp32":
            pairs = [one - other for one, other in zip(values, found["fp32"], strict=True)]
            line += f"   {statistics.mean(pairs):+.2f}"
            if len(pairs) > 1:
                half = student.ppf(0.975, len(pairs) - 1) * statistics.stdev(pairs) / math.sqrt(len(pairs))
                line += f" [{statistics.mean(pairs) - half:.1f}, {statistics.mean(pairs) + half:.1f}]"
        print(line, flush=True)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", default="acdc,phantom")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--results-dir", type=Path, default=Path("results/arithmetic"))
    parser.add_argument("--scale", type=float, default=1.0, help="of the schedules")
    args = parser.parse_args()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    print(f"{'cell':8} {'':5} DSC (%) of seeds {args.seeds}   mean ± SD   difference from fp32 [95 %]")
    for cell in args.cells.split(","):
        found: dict[str, list[float]] = {arithmetic: [] for arithmetic in ("fp32", "tf32", "bf16")}
        for seed in seeds:  # seed by seed: a table of whole pairs stands early
            for arithmetic, values in found.items():
                values.append(dsc(cell, seed, arithmetic, args))
        show(cell, found)


if __name__ == "__main__":
    main()
