"""Random kills over a grid of tiny jobs: what is left is what a calm run leaves.

    python benchmarks/stress/kills.py [--kills 100] [--jobs 12] [--seed 0] [--iterations 60] [--folder FOLDER]

A grid is run once in peace. Then it is run again, as a user would, and struck until so many signals were sent: `KILL`,
`TERM` or `HUP`, to a worker, to its launcher or to both, at any moment (before the worker has begun, too), in the midst
of training, or while a checkpoint is being written (a temporary file is there). A launcher that ended is started again;
Ctrl-C says that it was enough. In the end the same command runs to its end, and both folders are compared: records,
confusion and label maps by their bytes, training records but for their times. Each job has to be there, and none may
have come to its end twice.

A signal "in a write" met the temporary file of a checkpoint; `left` says that the file was still there, half-written,
when the process was gone. The exit code is 0 where all is alike and nothing half-written is left over.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import parts

import os  # isort: skip
from sslbench.runs.directory import Run, runs_below

SIGNALS = ("KILL", "TERM", "HUP")
TARGETS = ("worker", "worker", "worker", "launcher", "both")
MOMENTS = ("any", "training", "training", "write", "write")
PATIENCE_S = 600.0  # that a moment is waited for; then whatever is there is struck


@dataclass
class Strike:
    """A signal that was sent.

    Attributes:
        launch: the number of the launch.
        number: the signal's name.
        target, moment: see `TARGETS`, `MOMENTS`.
        job: the run that was struck, or that of the launcher that was; empty: none had begun.
        stage: of the run, with its iteration.
        writing: whether a checkpoint was being written.
        left: whether it was left half-written.
    """

    launch: int
    number: str
    target: str
    moment: str
    job: str = ""
    stage: str = ""
    writing: bool = False
    left: bool = False


def being_written(run: Run) -> list[str]:
    """The temporary files of a run's checkpoints."""
    try:
        with os.scandir(run.checkpoints) as entries:
            return [entry.name for entry in entries if entry.name.startswith(".writing-")]
    except OSError:
        return []


def stage_of(run: Run) -> str:
    said = run.progress()
    return f"{said.get('stage', 'starting')} {said.get('iteration') or ''}".strip()


def working(results: Path) -> list[tuple[Run, int]]:
    """The runs that a process works on, with the process."""
    found = []
    for run in runs_below(results):
        owner = run.owner()
        if owner and owner.get("pid"):
            found.append((run, int(owner["pid"])))
    return found


def moment_came(moment: str, results: Path, since: float, pause: float) -> tuple[Run, int] | None:
    """Wait a little for a moment; the run to strike and its process once it is there."""
    if moment == "any":
        time.sleep(min(pause, 0.05))
        ready = time.monotonic() - since > pause
        return next(iter(working(results)), (None, 0)) if ready else None  # type: ignore[return-value]
    for run, process in working(results):
        if moment == "training" and run.progress().get("stage") == "training":
            time.sleep(pause / 4)
            return run, process
        end = time.monotonic() + 0.5
        while moment == "write" and time.monotonic() < end:
            if being_written(run):
                return run, process
            time.sleep(0.0005)
    time.sleep(0.02)
    return None


def send(process: int, number: str) -> bool:
    with suppress(ProcessLookupError):
        os.kill(process, signal.Signals[f"SIG{number}"])
        return True
    return False


def gone(process: int, seconds: float) -> bool:
    """Wait until a process is gone, or is left to be collected by its launcher."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.002)
    return False


def storm(
    line: list[str], own: dict[str, str], results: Path, kills: int, dice: random.Random, strikes: list[Strike]
) -> None:
    """Run a command over and over, and strike it so many times; fewer where all jobs are finished before."""
    launch = idle = 0
    while len(strikes) < kills and idle < 3:
        launch, idle = launch + 1, idle + 1
        launcher = subprocess.Popen(line, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(strikes) < kills and launcher.poll() is None:
            moment = dice.choice(MOMENTS)
            strike = Strike(launch, dice.choice(SIGNALS), dice.choice(TARGETS), moment)
            pause, since, found = dice.uniform(0.0, 6.0), time.monotonic(), None
            while found is None and launcher.poll() is None:
                late = time.monotonic() - since > PATIENCE_S
                found = moment_came("any" if late else moment, results, since, pause)
            if found is None:  # the launcher ended
                break
            run, process = found
            if run is None:
                strike.target = "launcher"
            else:
                strike.job, strike.stage, strike.writing = run.name, stage_of(run), bool(being_written(run))
            struck = False
            if strike.target != "launcher":
                struck = send(process, strike.number)
            if strike.target != "worker":
                struck = send(launcher.pid, strike.number) or struck
            if not struck:
                continue
            strikes.append(strike)
            idle = 0
            if run is not None and strike.target != "launcher" and gone(process, 30):
                strike.left = bool(being_written(run))
            print(len(strikes), *vars(strike).values(), flush=True)
            if strike.target != "worker":
                break
        ended = launcher.wait()
        if ended == 0:
            break


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--kills", type=int, default=100)
    asked.add_argument("--jobs", type=int, default=12)
    asked.add_argument("--iterations", type=int, default=60)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--save-every", type=float, default=0.05)
    asked.add_argument("--folder", type=Path, help="for data and results; default: a temporary one")
    given = asked.parse_args()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # what is ignored here (`nohup`, `&`) is in launchers and workers
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as scratch:
        raise SystemExit(stress(given, given.folder or Path(scratch)))


def stress(given: argparse.Namespace, folder: Path) -> int:
    data = parts.prepare_data(folder / "data")
    grid = parts.write_grid(folder / "kills.yaml", given.jobs, given.iterations)
    calm, struck, own = folder / "calm", folder / f"struck-{given.seed}", parts.environment(given.save_every)
    parts.run_to_the_end(parts.command(grid, data, calm, "-j", "1"), parts.environment(60))
    calm_seconds = parts.processor_seconds()
    line = parts.command(grid, data, struck, "-j", "1")
    strikes: list[Strike] = []
    with suppress(KeyboardInterrupt):  # Ctrl-C: enough of it
        storm(line, own, struck, given.kills, random.Random(given.seed), strikes)
    parts.run_to_the_end(line, own)

    head = ("launch", "signal", "to", "moment", "job", "stage", "in a write", "left")
    print(parts.table([("", *head), *((number, *vars(one).values()) for number, one in enumerate(strikes, 1))]))
    by_kind = Counter((strike.number, strike.target) for strike in strikes)
    targets = [*dict.fromkeys(TARGETS)]
    counts = [(number, *(by_kind[number, target] for target in targets)) for number in SIGNALS]
    print("\n" + parts.table([("", *targets), *counts]))
    inside = sum(strike.writing for strike in strikes)
    half = sum(strike.left for strike in strikes)
    print(
        f"\n{len(strikes)} signals in {strikes[-1].launch if strikes else 0} launches, {inside} while a checkpoint was",
        end=" ",
    )
    print(f"being written, {half} of which left it half-written")
    different, ends, rest = parts.differences(calm, struck), parts.ends_of(struck), parts.half_written(struck)
    twice = [name for name, count in ends.items() if count > 1]
    print(f"{len(ends)} jobs; to the end twice: {twice or 'none'}; otherwise than in peace: {different or 'nothing'}")
    print(f"temporary files left over: {[str(path.relative_to(struck)) for path in rest] or 'none'}")
    print(
        f"processor seconds: {calm_seconds:.0f} in peace, {parts.processor_seconds() - calm_seconds:.0f} in the storm"
    )
    return 1 if different or twice or rest or len(strikes) < given.kills else 0


if __name__ == "__main__":
    main()
