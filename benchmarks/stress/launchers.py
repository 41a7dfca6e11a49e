"""Several launchers on one folder of results: each job is done once, and as one launcher alone does it.

    python benchmarks/stress/launchers.py [--jobs 6] [--iterations 20] [--folder FOLDER] [--only NAME]

- `shared`: two launchers at once, and a third on another path of the folder, a bind mount (as root) or else a link;
- `clock`: the third one's clock is 10 minutes late, and it passes for another host;
- `far`: three hosts whose locks do not reach each other, one 10 minutes late, one 10 minutes early: heartbeats tell;
- `unlocked`: two hosts without any locks, one 10 minutes late.

Another host is imitated: `sitecustomize.py` changes name, clock and locks of a launcher and of the workers that it
starts. The exit code is 0 where each job came to its end once, with the records of a calm run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import parts

HERE = Path(__file__).parent
LATE, EARLY = {"STRESS_CLOCK": "-600"}, {"STRESS_CLOCK": "600"}


def other_path(folder: Path, place: Path) -> tuple[Path, str]:
    """Another path of a folder, and what it is."""
    place.mkdir()
    with suppress(OSError):
        if not subprocess.run(
            ["mount", "--bind", str(folder), str(place)], capture_output=True, check=False
        ).returncode:
            return place, "a bind mount"
    place.rmdir()
    place.symlink_to(folder)
    return place, "a link"


def hosts(name: str, folder: Path) -> list[Mapping[str, str]]:
    """What makes each launcher of a scene another one."""
    if name == "shared":
        return [{}, {}, {}]
    if name == "clock":
        return [{}, {}, {"STRESS_HOST": "c", **LATE}]
    named = [{"STRESS_HOST": host} for host in "abc"]
    if name == "unlocked":
        return [{**named[0], "STRESS_LOCKS": "none"}, {**named[1], **LATE, "STRESS_LOCKS": "none"}]
    for host in named:
        place = folder / f"locks-{host['STRESS_HOST']}"
        place.mkdir()
        host["STRESS_LOCKS"] = str(place)
    return [named[0], {**named[1], **LATE}, {**named[2], **EARLY}]


SCENES = ("shared", "clock", "far", "unlocked")


def play(name: str, grid: Path, data: Path, folder: Path, calm: Path) -> bool:
    """Run a grid with the launchers of a scene, tell what each did, and return whether all is as it should be."""
    folder.mkdir()
    results = folder / "results"
    results.mkdir()
    path = f"{HERE}{os.pathsep}{parts.ROOT}"
    places, mounted, started = [results, results], "", []
    if name in ("shared", "clock"):
        third, mounted = other_path(results, folder / "other")
        places.append(third)
    try:
        for number, own in enumerate(hosts(name, folder)):
            place = places[number] if number < len(places) else results
            line = parts.command(grid, data, place, "-j", "1", "--no-progress")
            own = {**parts.environment(1.0), **own, "PYTHONPATH": path}
            log = (folder / f"launcher-{number}.txt").open("w+")
            started.append((subprocess.Popen(line, env=own, stdout=log, stderr=log), log))
        begun = time.monotonic()
        codes = [launcher.wait() for launcher, _ in started]
    finally:
        for launcher, _ in started:
            launcher.kill()
        if mounted == "a bind mount":
            subprocess.run(["umount", str(folder / "other")], check=False)
    done = []
    for _, log in started:
        log.seek(0)
        done.append(sum(": finished in " in told for told in log.read().splitlines()))
        log.close()
    ends = parts.ends_of(results)
    different, twice = parts.differences(calm, results), [run for run, count in ends.items() if count != 1]
    print(
        f"\n{name}{f' (the third by {mounted})' if mounted else ''}: {len(ends)} jobs, {time.monotonic() - begun:.0f} s"
    )
    print(
        parts.table(
            [("launcher", "exit code", "told of"), *((n, *row) for n, row in enumerate(zip(codes, done, strict=True)))]
        )
    )
    print(f"not once to the end: {twice or 'none'}; otherwise than one launcher: {different or 'nothing'}", flush=True)
    return not different and not twice and not any(codes)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--jobs", type=int, default=6)
    asked.add_argument("--iterations", type=int, default=20)
    asked.add_argument("--only", choices=SCENES, action="append", help="a scene; repeat it for several")
    asked.add_argument("--folder", type=Path, help="for data and results; default: a temporary one")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        data = parts.prepare_data(folder / "data")
        grid = parts.write_grid(folder / "launchers.yaml", given.jobs, given.iterations)
        parts.run_to_the_end(parts.command(grid, data, folder / "calm", "-j", "1"), parts.environment(60))
        good = [play(name, grid, data, folder / name, folder / "calm") for name in given.only or SCENES]
        print(f"\nprocessor seconds: {parts.processor_seconds():.0f}")
    raise SystemExit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
