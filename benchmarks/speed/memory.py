"""How much memory a large scan takes: predicted and evaluated as `predict` and `evaluate` do it, from file to numbers.

The scan (512 x 512 x 600 voxels, 15 organs and the background) is computed. The stand-in network reads the class off
the intensity, so that what is measured is everything around a network. The organs of the reference lie three voxels
beside those of the scan. Prints the peak of the process's resident memory after each step, and ends with code 1 if it
is above the limit.

    python benchmarks/speed/memory.py
    python benchmarks/speed/memory.py --shape 512,512,200 --limit 3
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import torch
from torch import Tensor

from sslbench.config.layers import load_recipe
from sslbench.core import registry
from sslbench.evaluation.conversion import side_by_side
from sslbench.evaluation.scoring import score
from sslbench.evaluation.subjects import subject_of_folder
from sslbench.execution.predict import find_scans, predict
from sslbench.execution.trained import TrainedRun
from sslbench.inference.predictor import Predictor
from sslbench.methods.base import Method
from sslbench.networks.precision import Precision
from sslbench.runs.directory import Run

CLASSES = 16
SHIFT = 3  # voxels between the organs of the scan and of the reference


def main() -> None:
    """Print the peaks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--shape", type=_sizes, default="512,512,600")
    parser.add_argument("--patch", type=_sizes, default="96,96,96")
    parser.add_argument("--stride", type=_sizes, default="64,64,64")
    parser.add_argument("--limit", type=float, default=6.0, help="GiB of resident memory")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{'x'.join(map(str, given.shape))} voxels, {CLASSES} classes, windows of {given.patch} every {given.stride}")
    print(f"scores of the whole volume alone would take {CLASSES * np.prod(given.shape) * 4 / 2**30:.1f} GiB")
    print()
    print("| step | seconds | peak so far (GiB) |")
    print("| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with _step("the libraries and the scan written to disk"):
            for kind, shift in (("scan", 0), ("reference", SHIFT)):
                _write(folder / kind / "case.nii.gz", given.shape, shift, image=kind == "scan")
        with _step("predicted and written"):
            trained = _stand_in(given.patch, given.stride)
            outcome = predict(trained, find_scans([folder / "scan"]), folder / "predicted")
            assert not outcome.failed, outcome.failed
        with _step("evaluated under protocol native"):
            protocol = registry.component("protocol", "native")
            subject = subject_of_folder(folder / "predicted", folder / "reference")
            (row,) = side_by_side(score(subject, [protocol]), [protocol])
    averages = ", ".join(f"{metric} {value:.3f}" for metric, value in row["averages"].items())
    print(f"\naverages over {len(row['classes'])} classes: {averages} (mm), {row['missed']} missed")
    if _peak() > given.limit:
        sys.exit(f"the peak is above {given.limit:g} GiB")


@contextmanager
def _step(name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    print(f"| {name} | {time.perf_counter() - start:.0f} | {_peak():.2f} |", flush=True)


def _peak() -> float:
    """Of the process's resident memory, GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _write(path: Path, shape: tuple[int, ...], shift: int, image: bool) -> None:
    """Ellipsoids on a lattice, all classes in turn: their labels, or intensities that tell them, with noise."""
    path.parent.mkdir(parents=True)
    labels = np.zeros(shape, np.uint8)
    steps = [side // 4 for side in shape]
    grid = np.ogrid[tuple(slice(-step // 2, step - step // 2) for step in steps)]
    organ = sum((axis / (step * 0.35)) ** 2 for axis, step in zip(grid, steps, strict=True)) < 1
    for number, place in enumerate(np.ndindex(3, 3, 3)):
        corner = [step // 2 + at * step + shift for at, step in zip(place, steps, strict=True)]
        box = tuple(slice(start, start + step) for start, step in zip(corner, steps, strict=True))
        labels[box][organ] = 1 + number % (CLASSES - 1)
    affine = np.diag([0.8, 0.8, 1.0, 1.0])
    if image:
        levels = (-125 + 400 * np.arange(CLASSES) / (CLASSES - 1)).astype(np.int16)
        voxels = levels[labels]
        random = np.random.default_rng(0)
        for z in range(shape[2]):
            voxels[..., z] += random.integers(-5, 6, shape[:2], dtype=np.int16)
        nib.save(nib.Nifti1Image(voxels, affine), path)
    else:
        nib.save(nib.Nifti1Image(labels, affine), path)


class _Reader(torch.nn.Module):
    """Stands in for a method: the class whose level is nearest."""

    def predict(self, x: Tensor, key: str | None = None) -> Tensor:
        levels = torch.linspace(0, 1, CLASSES, device=x.device).view(1, -1, 1, 1, 1)
        return (x - levels).square_().mul_(-2000).softmax(1)


def _stand_in(patch: tuple[int, ...], stride: tuple[int, ...]) -> TrainedRun:
    recipe = load_recipe("phantom")
    inference = recipe.inference.model_copy(update={"stride": list(stride), "batch": 2})
    recipe = recipe.model_copy(update={"patch_size": list(patch), "inference": inference})
    precision = Precision("fp32", "", torch.device("cpu"), False)
    name = recipe.preprocessing
    fields: dict[str, Any] = {
        "predictor": Predictor(cast(Method, _Reader()), None, recipe, CLASSES, precision),
        "run": Run(Path("stand-in")),
        "digest": "",
        "seed": 0,
        "classes": tuple(f"organ {number}" for number in range(1, CLASSES)),
        "preprocessing": registry.component("dataset", recipe.dataset).preprocessings[name],
        "preprocessing_name": name,
    }
    return TrainedRun(**fields, channels=1, modality="ct", pixel_mm=1.0)


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(side) for side in text.split(","))


if __name__ == "__main__":
    main()
