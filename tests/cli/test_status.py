"""`status` of many runs, and watched: what is read, what is drawn over, what is a line, when it ends."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from sslbench.cli import status
from sslbench.cli.terminal.durations import about
from sslbench.cli.terminal.live import LiveDisplay, PlainDisplay
from sslbench.cli.terminal.watching import ByLine, InPlace, fitting
from sslbench.execution.left import JobLeft, Left
from sslbench.runs import directory
from sslbench.runs.directory import Run
from tests.helpers.jobs import tiny_job

HEADER = "protocol,case,class_id,class,metric,value,unit,state,ref_voxels,pred_voxels\n"
ROWS = "native,0004,1,sp,dsc,0.5,fraction,both,10,10\nnative,0004,1,sp,asd,2.5,mm,both,10,10\n"


def begun(results: Path, seed: int = 0) -> Run:
    job = tiny_job(seed=seed).canonical()
    run = Run.of(job, results)
    run.write_config(job)
    return run


def finish(run: Run, **fields: Any) -> None:
    run.cases.write_text(HEADER + ROWS)
    run.seal(["best-val"])
    run.set_status("finished", **fields)


def test_a_sealed_run_is_told_without_its_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun(tmp_path)
    finish(run, scores={"dsc": 0.64}, training_seconds=7800.0)
    parsed: list[Path] = []
    read = directory.read_cases
    monkeypatch.setattr(directory, "read_cases", lambda path, *rest: (parsed.append(path), read(path, *rest))[1])
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_config", property(lambda run: pytest.fail("the configuration was read whole")))
        (row,) = status.Lookout(tmp_path).look().rows
    assert (row["state"], row["score"], row["training_seconds"]) == ("finished", {"metric": "dsc", "value": 0.64}, 7800)
    assert not parsed and run.read_records() is not None and parsed
    run.cases.write_text(HEADER + ROWS[:-9])  # no longer what was sealed
    (row,) = status.Lookout(tmp_path).look().rows
    assert row["state"] == "damaged" and row["score"] is None


def test_an_older_run_tells_the_score_of_its_records(tmp_path: Path) -> None:
    finish(begun(tmp_path))
    (row,) = status.Lookout(tmp_path, metric="asd").look().rows
    assert row["score"] == {"metric": "asd", "value": 2.5}
    (row,) = status.Lookout(tmp_path, metric="hd95").look().rows
    assert row["score"] == {"metric": "dsc", "value": 0.5}  # the protocol has no other first


def test_a_finished_run_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(begun(tmp_path), scores={"dsc": 0.64})
    begun(tmp_path, 1).set_progress(iteration=1, iterations=6, it_per_s=1.0)
    standing, looked = status.Lookout(tmp_path), []
    look = Run.look
    monkeypatch.setattr(Run, "look", lambda run, *said: (looked.append(run.name[-15:-9]), look(run, *said))[1])
    for _ in range(2):
        assert [row["state"] for row in standing.look().rows] == ["finished", "pending"]
    assert looked == ["seed-0", "seed-1", "seed-1"]


# ------------------------------------------------------------------------------------------------------- watching


def script(tmp_path: Path) -> tuple[status.Lookout, Callable[[float], bool], list[float]]:
    """A folder with two runs; what happens while nobody looks; and the waits."""
    runs, waits = [begun(tmp_path, seed) for seed in range(2)], []
    happens = iter(
        [
            lambda: None,
            lambda: finish(runs[0], scores={"dsc": 0.64}, training_seconds=125.0),
            lambda: runs[1].set_status("failed", error="no memory"),
        ]
    )

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        next(happens)()
        return False

    for run in runs:
        run.set_progress(stage="training", iteration=3, iterations=6, it_per_s=0.1)
    return status.Lookout(tmp_path), wait, waits


def test_in_a_pipe_every_change_is_a_line(tmp_path: Path) -> None:
    standing, wait, waits = script(tmp_path)
    text = io.StringIO()
    status.follow(standing.look, ByLine(Console(file=text, width=100)), wait)
    lines = [line.replace(standing.look().rows[0]["run"][:-15], "") for line in text.getvalue().splitlines()]
    assert lines[0] == "0 of 2 finished, 2 pending; about 60 s left"
    assert lines[1].startswith("seed-0") and lines[1].endswith(": finished, test DSC 64.0 %, trained in 2:05 min")
    assert lines[2].startswith("1 of 2 finished, 1 pending; about ")
    assert lines[3].startswith("seed-1") and lines[3].endswith(": failed: no memory")
    assert lines[4] == "1 of 2 finished, 1 failed" and len(lines) == 5
    assert len(waits) == 3 and min(waits) >= status.EVERY_S


def test_on_a_terminal_it_is_drawn_over_and_the_cursor_comes_back(tmp_path: Path) -> None:
    standing, wait, _ = script(tmp_path)
    text = io.StringIO()
    screen = Console(file=text, width=80, height=24, force_terminal=True)
    status.follow(standing.look, InPlace(screen), wait)
    drawn = text.getvalue()
    assert "\x1b[?25l" in drawn and drawn.rindex("\x1b[?25h") > drawn.rindex("2 runs: 1 finished, 1 failed")
    assert "\x1b[1A" in drawn and "no memory" in drawn


def row(seed: int, state: str) -> dict[str, Any]:
    place = {"recipe": "phantom", "labeled": "20pct", "cell": f"cps+ga~loss.k={seed}", "seed": seed, "digest": "0"}
    untold = {"share": None, "score": None, "training_seconds": None, "left": None, "progress": {}, "error": ""}
    return {**place, **untold, "run": f"r/{seed}", "state": state}


NOTHING_LEFT = Left(0.0, 1, 0, 0, 0, False, {})
SOME_LEFT = Left(11_400.0, 2, 1, 0, 0, False, {Run(Path("x")): JobLeft(11_400.0, "measured")})


@pytest.mark.parametrize("height", [8, 12, 20])
def test_a_low_screen_keeps_what_runs_and_what_is_left(height: int) -> None:
    rows = [row(n, "finished") for n in range(20)] + [row(n, "running") for n in range(20, 23)]
    lines = [line.plain for line in fitting(rows, SOME_LEFT, 80, height)]
    assert len(lines) <= height and "About 3 h 10 min left, 2 at a time" in lines
    assert "23 runs: 20 finished, 3 running" in lines and any("running" in line for line in lines[:4])
    assert ("not shown: 20 finished" in lines) == (height >= 12)
    many = [line.plain for line in fitting([row(n, "running") for n in range(40)], SOME_LEFT, 80, height)]
    assert len(many) == height and "…" in many and "About 3 h 10 min left, 2 at a time" in many
    assert any("not shown" in line.plain for line in fitting(rows[:20], NOTHING_LEFT, 80, height))


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo terminals")
@pytest.mark.parametrize("terminal", [True, False])
def test_a_signal_ends_the_watch_and_nothing_else(terminal: bool, tmp_path: Path) -> None:
    begun(tmp_path).set_progress(stage="training", iteration=3, iterations=6, it_per_s=0.1)
    reader, writer = pty.openpty() if terminal else os.pipe()
    line = [sys.executable, "-m", "sslbench", "status", "--watch", "--results-dir", str(tmp_path)]
    watch = subprocess.Popen(line, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    seen = b""
    while b"left" not in seen:
        seen += os.read(reader, 4096)
    time.sleep(0.2)
    watch.send_signal(signal.SIGINT)
    assert watch.wait(60) == 0
    assert watch.stderr is not None and watch.stderr.read() == ""
    if terminal:
        while b"\x1b[?25h" not in seen:
            seen += os.read(reader, 4096)
    os.close(reader)


# ----------------------------------------------------------------------------------------------- what a launch tells


def launch(tmp_path: Path) -> list[Any]:
    """Four jobs of a launch: finished, failed, running, to come."""
    plan = []
    for seed, outcome in enumerate(("finished", "failed", None, None)):
        run = begun(tmp_path, seed)
        job = SimpleNamespace(title=f"phantom 20pct supervised seed-{seed}")
        plan.append(SimpleNamespace(run=run, job=job, state="pending", runs=True, outcome=outcome))
    plan[2].run.set_progress(stage="training", iteration=2, iterations=6, s_per_it=2900.0)
    return plan


def test_without_a_terminal_a_line_in_ten_minutes_tells_what_is_left(tmp_path: Path) -> None:
    plan, now, text = launch(tmp_path), [0.0], io.StringIO()
    from sslbench.execution.left import Forecast

    display = PlainDisplay(Console(file=text, width=40), Forecast(tmp_path, lanes=2), lambda: now[0])
    for moment in (0, 1, 599, 600, 601, 1199, 1201):
        now[0] = float(moment)
        display.update(plan, plan[2:3])
    told = "1 of 4 jobs finished, 1 failed, 1 running (iteration 2 of 6), about 4 h 50 min left"
    assert text.getvalue().splitlines() == [told, told]
    silent = PlainDisplay(Console(quiet=True), Forecast(tmp_path), lambda: now[0])
    now[0] = 5000.0
    assert silent._left(plan, plan[2:3]) is None


@pytest.mark.parametrize("width", [60, 80, 120])
def test_on_a_terminal_the_bar_tells_what_is_left(width: int, tmp_path: Path) -> None:
    from sslbench.execution.left import Forecast

    plan, now = launch(tmp_path), [0.0]
    screen = Console(file=io.StringIO(), width=width)
    display = LiveDisplay(screen, Forecast(tmp_path, lanes=2), lambda: now[0])
    for moment in (1.0, 11.0):
        now[0] = moment
        display.update(plan, plan[2:3])
        lines = ["".join(part.text for part in line) for line in screen.render_lines(display.live.renderable)]
        assert "2/4" in lines[0] and "1 running, 1 failed" in lines[0] and max(map(len, lines)) <= width
        assert ("about 4 h 50 min left" in lines[0]) == (moment > 10)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(42, "40 s"), (130, "2 min"), (5900, "98 min"), (11_400, "3 h 10 min"), (43_200, "12 h"), (180_000, "50 h")],
)
def test_estimates_are_told_as_finely_as_they_are_meant(seconds: float, text: str) -> None:
    assert about(seconds) == text
    assert about(1e6) == "12 days"
