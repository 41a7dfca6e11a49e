"""Throughput and memory of `sslbench prepare acdc`, against a plain sequential script that makes the same arrays.

    python benchmarks/speed/prepare.py --source FOLDER [--workers 1,2] [--repeats 3]

Both run as processes of their own, in turns, on the same files, which are read once beforehand; imports count. The
plain script reads each frame with nibabel, scales it by its extremes, turns it to slices first, and saves image and
label with NumPy. It checks nothing; `prepare` also checks every file, hashes what it writes, writes the label again as
NIfTI, counts voxels, and waits until all is on the disk. At the end the arrays of both are held against each other.

Peak memory is the largest resident set of any one process. Times are medians of the repeats, ratios of those medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PLAIN = """
import sys
from pathlib import Path
import nibabel
import numpy as np

source, target = Path(sys.argv[1]), Path(sys.argv[2])
for label_path in sorted(source.rglob("patient*_frame*_gt.nii*")):
    id = label_path.name.split("_gt")[0]
    image = nibabel.load(label_path.with_name(label_path.name.replace("_gt", ""))).get_fdata(dtype=np.float32)
    label = np.asarray(nibabel.load(label_path).dataobj).astype(np.uint8)
    image = (image - image.min()) / (image.max() - image.min())
    np.save(target / f"{id}.image.npy", np.ascontiguousarray(image.transpose(2, 1, 0)))
    np.save(target / f"{id}.label.npy", np.ascontiguousarray(label.transpose(2, 1, 0)))
"""


@dataclass(frozen=True)
class Measured:
    """One run: wall seconds, seconds of all its processors, and the largest resident set of its processes in MB."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def measure(*command: str) -> Measured:
    """Run a command to its end.

    Raises:
        SystemExit: it fails.
    """
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    _, status, used = os.wait4(process.pid, 0)  # of the process and of those that it waited for
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}: {' '.join(command)}")
    return Measured(time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def same_arrays(plain: Path, cases: Path) -> int:
    """How many arrays both made, after checking that they agree.

    Raises:
        SystemExit: they differ.
    """
    names = sorted(path.name for path in plain.glob("*.npy"))
    if names != sorted(path.name for path in cases.glob("*.npy")):
        raise SystemExit("the two did not prepare the same cases")
    for name in names:
        ours, theirs = np.load(cases / name), np.load(plain / name)
        if ours.dtype != theirs.dtype or not np.array_equal(ours, theirs):
            raise SystemExit(f"{name} differs")
    return len(names)


def main() -> None:
    """Measure, compare, print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, default=Path(os.environ.get("SSLBENCH_TEST_DATA", ".")) / "acdc")
    parser.add_argument("--workers", default=f"1,{os.cpu_count()}", help="numbers of processes, a,b,...")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    workers = list(dict.fromkeys(int(count) for count in given.workers.split(",")))
    for path in given.source.rglob("*.nii*"):
        path.read_bytes()

    runs: dict[str, list[Measured]] = {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as scratch:
        for repeat in range(given.repeats):
            plain = Path(scratch) / f"plain-{repeat}"
            plain.mkdir()
            done = measure(sys.executable, "-c", PLAIN, str(given.source), str(plain))
            runs.setdefault("plain nibabel, sequential", []).append(done)
            for count in workers:
                data = Path(scratch) / f"data-{repeat}-{count}"
                prepare = [sys.executable, "-m", "sslbench", "prepare", "acdc", "--source", str(given.source)]
                prepare += ["--workers", str(count), "--data-dir", str(data), "--quiet"]
                runs.setdefault(f"sslbench prepare, {count} at a time", []).append(measure(*prepare))
                runs.setdefault("the same again, nothing to do", []).append(measure(*prepare))
                arrays = same_arrays(plain, data / "acdc" / "ssl4mis" / "cases")
    cases = arrays // 2
    baseline = statistics.median(run.wall_s for run in runs["plain nibabel, sequential"])
    print(f"{cases} cases, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, median of {given.repeats}\n")
    print("| | wall s | processor s | cases/s | speed against plain | peak MB of a process |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, measured in runs.items():
        wall = statistics.median(run.wall_s for run in measured)
        cpu = statistics.median(run.cpu_s for run in measured)
        peak = max(run.peak_mb for run in measured)
        print(f"| {name} | {wall:.1f} | {cpu:.1f} | {cases / wall:.0f} | {baseline / wall:.2f} | {peak:.0f} |")


if __name__ == "__main__":
    main()
