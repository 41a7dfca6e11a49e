"""What a GPU shows of sslbench, in nine minutes at most: versions, tests, steps beside a plain loop, repetition and
resume, memory formats, several processes on a card, a short run on ACDC.

    python benchmarks/gpu/run.py                        # make gpu
    python benchmarks/gpu/run.py --device cpu --small   # the same at small sizes, on any machine
    python benchmarks/gpu/run.py --only cells,layouts

Each part is a process with a time limit of its own; one that fails is reported, and the others go on. Writes gpu.json
and gpu.txt to the folder of --out. Ends with 0 if every part that could run did, else with 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LIMIT_S = 540.0  # of the whole

# Modules that sslbench imports, by the package that has them.
NEEDED = {
    "torch": "torch", "monai": "monai", "numpy": "numpy", "scipy": "scipy", "pandas": "pandas", "nibabel": "nibabel",
    "SimpleITK": "SimpleITK", "h5py": "h5py", "pooch": "pooch", "packaging": "packaging", "pydantic": "pydantic",
    "yaml": "pyyaml", "filelock": "filelock", "jinja2": "jinja2", "rich": "rich", "typer": "typer", "pytest": "pytest",
    "hypothesis": "hypothesis",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="small sizes: a dry run")
    parser.add_argument("--only", help="parts, comma-separated; default: all")
    parser.add_argument("--out", type=Path, default=Path("results/gpu"), help="folder for gpu.json and gpu.txt")
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds of the whole")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    _find_package()
    if asked.device == "cpu":  # threads that wait for each other on a busy machine turn seconds into minutes
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    if asked.child:
        _child(asked)
    elif asked.part:
        _part(asked)
    else:
        _install_missing()
        sys.exit(_all(asked))


def _find_package() -> None:
    """This checkout's sslbench is imported, here and in every process from here."""
    for folder in (str(HERE), str(ROOT)):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    inherited = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(ROOT), *inherited]))


def _install_missing() -> None:
    """Say which packages are missing, and install them from the folder WHEELS where that is given."""
    missing = _missing()
    if not missing:
        return
    wheels = os.environ.get("WHEELS")
    print(f"missing: {' '.join(missing)}", flush=True)
    if not wheels:
        sys.exit("give WHEELS=<folder of their wheels>, see benchmarks/gpu/README.md, or pip install them")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", wheels, *missing]
    if subprocess.run(command, check=False).returncode:
        sys.exit(f"{wheels} lacks what they need, see benchmarks/gpu/README.md")
    importlib.invalidate_caches()
    if missing := _missing():
        sys.exit(f"still missing: {' '.join(missing)}")


def _missing() -> list[str]:
    return [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]


def _plan(asked: argparse.Namespace) -> Any:
    from parts import Plan  # type: ignore[import-not-found]

    return Plan(asked.device, asked.small, asked.out.absolute())


def _child(asked: argparse.Namespace) -> None:
    from parts import child

    number, seconds, place = asked.child.split(",", 2)
    print(child(_plan(asked), int(number), float(seconds), Path(place)))


def _part(asked: argparse.Namespace) -> None:
    """One part, in this process: its answer on the last line of stdout."""
    from parts import PARTS, Skipped

    try:
        answer = {"status": "ok", "found": PARTS[asked.part][0](_plan(asked))}
    except Skipped as reason:
        answer = {"status": "skipped", "reason": str(reason)}
    print("\n" + json.dumps(answer))


def _all(asked: argparse.Namespace) -> int:
    from drawing import draw  # type: ignore[import-not-found]
    from parts import PARTS

    names = asked.only.split(",") if asked.only else list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        sys.exit(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if asked.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            sys.exit(f"torch {torch.__version__} sees no GPU here; --device cpu --small is a dry run")
    asked.out.mkdir(parents=True, exist_ok=True)
    begun, parts = time.monotonic(), {}
    for name in names:
        left = asked.limit - (time.monotonic() - begun)
        # A dry run is for what breaks; how long a part may take is a question of a GPU.
        own = left if asked.small else min(PARTS[name][1], left)
        parts[name] = _run(name, asked, own) if left > 5 else _out_of_time()
        print(f"{name}: {parts[name]['status']} in {parts[name]['seconds']:.0f} s", flush=True)
        # Written after every part: whoever ends this early has what there was.
        facts = {"device": asked.device, "small": asked.small, "seconds": time.monotonic() - begun, "parts": parts}
        (asked.out / "gpu.json").write_text(json.dumps(facts, indent=1) + "\n")
    draw(facts, asked.out / "gpu.txt")
    print(f"wrote {asked.out}/gpu.json and gpu.txt")
    return int(any(part["status"] == "failed" for part in parts.values()))


def _out_of_time() -> dict[str, Any]:
    return {"status": "failed", "reason": "no time was left", "seconds": 0.0}


def _run(name: str, asked: argparse.Namespace, limit: float) -> dict[str, Any]:
    """A part in a process of its own, whose children end with it."""
    begun = time.monotonic()
    command = [sys.executable, str(HERE / "run.py"), "--part", name, "--device", asked.device, "--out", str(asked.out)]
    with tempfile.TemporaryFile("w+") as words:
        process = subprocess.Popen(
            [*command, *(["--small"] if asked.small else [])],
            stdout=subprocess.PIPE,
            stderr=words,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return {"status": "failed", "reason": f"not done in {limit:.0f} s", "seconds": time.monotonic() - begun}
        finally:
            with suppress(ProcessLookupError):  # it, and what it started and left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        seconds = time.monotonic() - begun
        try:
            return {**json.loads(output.strip().splitlines()[-1]), "seconds": seconds}
        except (IndexError, ValueError):
            words.seek(0)
            lines = words.read().strip().splitlines()
            reason = lines[-1] if lines else f"ended with code {process.returncode}"
            return {"status": "failed", "reason": reason, "log": lines[-30:], "seconds": seconds}


if __name__ == "__main__":
    main()
