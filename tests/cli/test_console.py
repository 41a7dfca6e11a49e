"""Notes letter by letter, bars that stay in the terminal's width, and none where nobody watches."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from rich.console import Console

from sslbench.cli import console
from sslbench.cli.terminal.live import LiveDisplay, PlainDisplay


def test_notes_are_said_letter_by_letter(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")  # narrower than the lines: they stay one line each
    console.failures({"case [1]": "no [memory] :warning: left on this machine"})
    console.error("ga[gamma=0.75] is not understood", "write it so")
    assert capsys.readouterr().err.splitlines() == [
        "case [1]: no [memory] :warning: left on this machine",
        "error: ga[gamma=0.75] is not understood",
        "       write it so",
    ]


@pytest.mark.parametrize("unit", get_args(console.Unit))
def test_bars_are_drawn_on_terminals_alone(unit: console.Unit) -> None:
    drawn = {}
    for terminal, quiet in ((True, False), (True, True), (False, False)):
        text = io.StringIO()
        with console.progress(unit, quiet, Console(file=text, width=80, force_terminal=terminal)) as bar:
            bar.add_task("prepare", total=3, counts="")
        drawn[terminal, quiet] = "prepare" in text.getvalue()
    assert drawn == {(True, False): True, (True, True): False, (False, False): False}


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_launch_is_drawn_in_the_width_of_the_terminal(width: int, tmp_path: Path) -> None:
    progress = {"stage": "training", "iteration": 12000, "iterations": 30000, "it_per_s": 6.4, "loss": 0.7123}
    (tmp_path / "progress.json").write_text(json.dumps({**progress, "validation": {"a": 0.812}}))
    run = SimpleNamespace(progress_file=tmp_path / "progress.json")
    jobs: list[Any] = [
        SimpleNamespace(outcome=outcome, run=run, job=SimpleNamespace(title=f"cps + ga[gamma=0.75], seed {seed}"))
        for seed, outcome in enumerate((None, "failed", "finished"))
    ]
    screen = Console(file=io.StringIO(), width=width)
    display = LiveDisplay(screen)
    display.update(jobs, jobs[:1])
    lines = ["".join(part.text for part in line) for line in screen.render_lines(display.live.renderable)]
    assert "2/3" in lines[0] and "1 running, 1 failed" in lines[0]
    assert all(part in lines[2] for part in ("cps + ga[", "12000/30000", "0.712", "81.2 %", "46:52 min"))


def test_without_a_terminal_an_event_is_a_line() -> None:
    text = io.StringIO()
    with PlainDisplay(Console(file=text, width=20)) as display:
        display.event("cps + ga[gamma=0.75]: starts on cuda:0")
    assert text.getvalue() == "cps + ga[gamma=0.75]: starts on cuda:0\n"
