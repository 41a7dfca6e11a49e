"""What a sliding window costs: ours, the plain loop of the field's scripts, MONAI's inferer; one volume, one network.

The plain loop is what the papers' code does: a window per forward pass, its softmax copied to the host and added there
to scores of the whole volume, a count of windows, division, argmax. `network alone` is the forward passes with nothing
around them: what any of the others can at best reach. With `--network voxelwise` the network costs next to nothing, so
that the way around it is measured. Each figure is the least of several repetitions, taken in turn; on a CPU it is
processor time, so that other work on the machine counts little.

    python benchmarks/speed/sliding_window.py                       # V-Net, 14 classes
    python benchmarks/speed/sliding_window.py --network voxelwise
    python benchmarks/speed/sliding_window.py --device cuda --shape 299,299,150 --patch 96,96,96 --stride 32,32,16 \
        --filters 16 --batch 16                                     # a Synapse scan as recipe ga-synapse tests it
"""

from __future__ import annotations

import argparse
import itertools
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from sslbench.inference.sliding_window import Predict, label_windows, window_starts
from sslbench.networks import build_network


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--shape", type=_sizes, default="160,160,96", help="of the volume")
    parser.add_argument("--patch", type=_sizes, default="64,64,64")
    parser.add_argument("--stride", type=_sizes, default="32,32,32", help="MONAI takes it as 1 - overlap")
    parser.add_argument("--classes", type=int, default=14)
    parser.add_argument("--network", choices=("vnet", "voxelwise"), default="vnet")
    parser.add_argument("--filters", type=int, default=8, help="of the V-Net")
    parser.add_argument("--batch", type=int, default=2, help="windows in a forward pass of ours and MONAI's")
    parser.add_argument("--bf16", action="store_true", help="forward passes under autocast")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions, of which the least counts")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    device = torch.device(given.device)
    volume = torch.randn(given.shape, device=device)
    if given.network == "vnet":
        network: nn.Module = build_network("vnet", 1, given.classes, base_filters=given.filters, norm="batch")
    else:
        network = nn.Conv3d(1, given.classes, 1)
    network = network.to(device).eval()

    @torch.no_grad()
    def predict(x: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=given.bf16):
            logits = network(x)
        return logits.float().softmax(1)

    where = (given.patch, given.stride)
    ways: dict[str, Callable[[], Tensor | None]] = {
        "network alone": lambda: _network_alone(predict, volume, *where, given.batch),
        "ours": lambda: label_windows(predict, volume, *where, given.classes, given.batch),
        "plain loop": lambda: _plain_loop(predict, volume, *where, given.classes),
        "MONAI": lambda: _monai(predict, volume, *where, given.batch),
    }
    windows = len(_corners(given.shape, *where))
    print(f"{_text(given.shape)} voxels, {windows} windows of {_text(given.patch)} every {_text(given.stride)},")
    named = f"V-Net of {given.filters} filters" if given.network == "vnet" else "a voxelwise network"
    arithmetic = "bf16" if given.bf16 else "fp32"
    print(f"{given.classes} classes, {named}, {arithmetic}, {given.batch} windows a pass, {given.device}, "
          f"{given.threads} CPU threads")  # fmt: skip
    print()
    seconds = dict.fromkeys(ways, float("inf"))
    labels: dict[str, Tensor] = {}
    for _, (name, way) in itertools.product(range(given.repeat), ways.items()):
        start = _clock(device)
        found = way()
        seconds[name] = min(seconds[name], _clock(device) - start)
        if found is not None:
            labels[name] = found.cpu()
    print("| way | seconds | of ours | labels other than ours |")
    print("| --- | --- | --- | --- |")
    for name, taken in seconds.items():
        other = f"{int((labels[name] != labels['ours']).sum())}" if name in labels else ""
        print(f"| {name} | {taken:.2f} | {taken / seconds['ours']:.2f} | {other} |")


def _corners(shape: tuple[int, ...], patch: tuple[int, ...], stride: tuple[int, ...]) -> list[tuple[slice, ...]]:
    starts = itertools.product(*(window_starts(*axis) for axis in zip(shape, patch, stride, strict=True)))
    return [tuple(slice(at, at + side) for at, side in zip(corner, patch, strict=True)) for corner in starts]


def _network_alone(
    predict: Predict, volume: Tensor, patch: tuple[int, ...], stride: tuple[int, ...], batch: int
) -> None:
    windows = _corners(tuple(volume.shape), patch, stride)
    for first in range(0, len(windows), batch):
        predict(torch.stack([volume[where] for where in windows[first : first + batch]]).unsqueeze(1))


def _plain_loop(
    predict: Predict, volume: Tensor, patch: tuple[int, ...], stride: tuple[int, ...], num_classes: int
) -> Tensor:
    scores = np.zeros((num_classes, *volume.shape), np.float32)
    count = np.zeros(volume.shape, np.float32)
    for where in _corners(tuple(volume.shape), patch, stride):
        scores[(slice(None), *where)] += predict(volume[where][None, None])[0].cpu().numpy()
        count[where] += 1
    return torch.from_numpy((scores / count).argmax(0)).to(torch.uint8)


def _monai(predict: Predict, volume: Tensor, patch: tuple[int, ...], stride: tuple[int, ...], batch: int) -> Tensor:
    from monai.inferers import SlidingWindowInferer

    overlap = [1 - step / side for step, side in zip(stride, patch, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inferer = SlidingWindowInferer(patch, batch, overlap, mode="constant")
        scores = inferer(volume[None, None], predict)
    assert isinstance(scores, Tensor)
    return scores[0].argmax(0).to(torch.uint8)


def _clock(device: torch.device) -> float:
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(side) for side in text.split(","))


def _text(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


if __name__ == "__main__":
    main()
