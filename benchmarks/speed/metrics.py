"""What it takes to measure one case: all classes at once, against MedPy class by class and MONAI's metric classes.

The reference is a phantom's label map; the prediction is the same, bent smoothly by some voxels, with a share of voxels
of random classes scattered over the whole volume. All measure DSC, Jaccard, ASD and HD95 of every class that both maps
have, in mm, in one process and thread, on the same arrays: ours by `Protocol.score` as `native`; MedPy as papers call
it, on full volumes; MONAI on tensors of one class at a time, which bounds its memory (it measures inside boxes too, has
no Jaccard, its HD95 is the `max` variant, and it answers in float32). Seconds of the processor are least affected by
other work on the machine.

    python benchmarks/speed/metrics.py                       # 13 organs, 148 x 512 x 512; MedPy takes ten minutes
    python benchmarks/speed/metrics.py --shape 60,128,128 --noise 0,0.001,0.01
    python benchmarks/speed/metrics.py --without medpy monai --noise 0,0.01 --device cuda
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sslbench.data.datasets.phantom import PhantomOptions, generate_case
from sslbench.data.datasets.synapse import Synapse
from sslbench.metrics.published import NATIVE

EXTENT_MM = (380.0, 380.0, 370.0)  # x, y, z
CLASSES = [info.short for info in Synapse.classes]
OVERLAPS, DISTANCES = ("dsc", "jaccard"), ("asd", "hd95", "hd95max")
OURS = replace(NATIVE, metrics=(*OVERLAPS, *DISTANCES))
Values = dict[tuple[int, str], float]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--shape", default="148,512,512", help="voxels along z, y, x")
    parser.add_argument("--noise", default="0", help="shares of scattered voxels, one table each")
    parser.add_argument("--without", nargs="*", default=[], choices=["medpy", "monai"], help="what to leave out")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions of ours, of which the least counts")
    parser.add_argument("--device", help="measure ours on this torch device too")
    arguments = parser.parse_args()
    shape = tuple(int(side) for side in arguments.shape.split(","))
    spacing = tuple(extent / side for extent, side in zip(EXTENT_MM[::-1], shape, strict=True))
    reference = phantom(shape)
    for share in map(float, arguments.noise.split(",")):
        print(f"\n{len(CLASSES)} classes, {'x'.join(map(str, shape))} voxels, {share:.2%} of them scattered\n")
        compare((disturbed(reference, share), reference, spacing), arguments)


def compare(case: tuple[Any, ...], arguments: argparse.Namespace) -> None:
    """Print the table of one prediction."""
    print("| | wall s | CPU s | ours is faster by (wall) | (CPU) | largest difference: overlap | distance, mm |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    ours = [timed(lambda: by_ours(*case)) for _ in range(arguments.repeat)]
    found, wall, cpu = min(ours, key=lambda one: one[2])
    print(f"| sslbench | {wall:.2f} | {cpu:.2f} | | | | |", flush=True)
    others: dict[str, Callable[[], Values]] = {"MONAI": lambda: by_monai(*case), "MedPy": lambda: by_medpy(*case)}
    others = {name: measure for name, measure in others.items() if name.lower() not in arguments.without}
    if arguments.device:
        by_ours(*case, arguments.device)  # the first call prepares the device
        others = {f"sslbench on {arguments.device}": lambda: by_ours(*case, arguments.device)} | others
    for name, measure in others.items():
        theirs, their_wall, their_cpu = timed(measure)
        ratios = f"{their_wall / wall:.1f} | {their_cpu / cpu:.1f}"
        gaps = f"{gap(found, theirs, OVERLAPS):.1e} | {gap(found, theirs, DISTANCES):.1e}"
        print(f"| {name} | {their_wall:.2f} | {their_cpu:.2f} | {ratios} | {gaps} |", flush=True)


def timed(measure: Callable[[], Values]) -> tuple[Values, float, float]:
    """What was found, in seconds of the wall and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    return measure(), time.perf_counter() - wall, time.process_time() - cpu


def gap(ours: Values, theirs: Values, metrics: tuple[str, ...]) -> float:
    """The largest difference in some metrics, of the classes that both have."""
    keys = [key for key in theirs if key[1] in metrics and key in ours]
    return max(abs(ours[key] - theirs[key]) for key in keys)


def phantom(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The label map of a phantom, (z, y, x)."""
    z, y, x = shape
    _, labels, _ = generate_case("0001", PhantomOptions(size=(x, y, z), extent_mm=EXTENT_MM))
    return np.ascontiguousarray(labels.transpose(2, 1, 0))


def disturbed(labels: NDArray[np.uint8], noise: float) -> NDArray[np.uint8]:
    """A prediction: every voxel looked up a few voxels away, smoothly varying; and noise."""
    from scipy.ndimage import zoom

    rng = np.random.default_rng(0)
    places = []
    for axis, place in enumerate(np.indices(labels.shape, sparse=True)):
        coarse = rng.standard_normal((5, 9, 9))
        bend = zoom(coarse, [side / knots for side, knots in zip(labels.shape, coarse.shape, strict=True)], order=1)
        shift = np.rint(bend * (1 if axis == 0 else labels.shape[axis] / 170))
        places.append(np.clip(place + shift.astype(np.int64), 0, labels.shape[axis] - 1))
    found = labels[tuple(places)]
    scattered = rng.random(labels.shape, dtype=np.float32) < noise
    found[scattered] = rng.integers(1, len(CLASSES) + 1, np.count_nonzero(scattered))
    return found


def by_ours(pred: NDArray[np.uint8], ref: NDArray[np.uint8], spacing: Any, device: str | None = None) -> Values:
    """All classes by one call."""
    rows = OURS.score(pred, ref, CLASSES, spacing, "zyx", device)
    return {(row["class_id"], row["metric"]): row["value"] for row in rows}


def by_medpy(pred: NDArray[np.uint8], ref: NDArray[np.uint8], spacing: Any) -> Values:
    """Class by class, on full volumes."""
    from medpy.metric import binary

    found: Values = {}
    for k in range(1, len(CLASSES) + 1):
        p, r = pred == k, ref == k
        if p.any() and r.any():
            found[k, "dsc"] = binary.dc(p, r)
            found[k, "jaccard"] = binary.jc(p, r)
            found[k, "asd"] = binary.asd(p, r, spacing)
            found[k, "hd95"] = binary.hd95(p, r, spacing)
    return found


def by_monai(pred: NDArray[np.uint8], ref: NDArray[np.uint8], spacing: Any) -> Values:
    """Class by class; its HD95 is our `hd95max`."""
    import torch
    from monai.metrics import DiceMetric, HausdorffDistanceMetric, SurfaceDistanceMetric

    torch.set_num_threads(1)
    metrics: dict[str, Any] = {
        "dsc": DiceMetric(include_background=True),
        "asd": SurfaceDistanceMetric(include_background=True),
        "hd95max": HausdorffDistanceMetric(include_background=True, percentile=95),
    }
    found: Values = {}
    for k in range(1, len(CLASSES) + 1):
        if (pred == k).any() and (ref == k).any():
            p, r = (torch.from_numpy(labels == k)[None, None] for labels in (pred, ref))
            for name, metric in metrics.items():
                options = {} if name == "dsc" else {"spacing": list(spacing)}
                found[k, name] = float(metric(p, r, **options))
    return found


if __name__ == "__main__":
    main()
