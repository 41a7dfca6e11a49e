"""Notes letter by letter, bars that stay in the terminal's width, and none where nobody watches."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from rich.console import Console
from rich.text import Text

from sslbench.cli import console
from sslbench.cli.terminal.live import LiveDisplay, PlainDisplay, told_apart
from sslbench.runs.directory import Run


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
    run = Run(tmp_path)
    jobs: list[Any] = [
        SimpleNamespace(
            outcome=outcome, run=run, job=SimpleNamespace(title=f"phantom 20pct cps+ga~loss.gamma=0.75 seed-{seed}")
        )
        for seed, outcome in enumerate((None, "failed", "finished"))
    ]
    screen = Console(file=io.StringIO(), width=width)
    display = LiveDisplay(screen)
    display.update(jobs, jobs[:1])
    lines = ["".join(part.text for part in line) for line in screen.render_lines(display.live.renderable)]
    assert "2/3" in lines[0] and "1 running, 1 failed" in lines[0]
    assert "phantom 20pct cps+ga ~loss.gamma=0.75" in lines[1]
    assert all(part in lines[3] for part in ("seed-0", "12000/30000", "0.712", "81.2 %", "46:52 min"))


def test_without_a_terminal_an_event_is_a_line() -> None:
    text = io.StringIO()
    with PlainDisplay(Console(file=text, width=20)) as display:
        display.event("cps + ga[gamma=0.75]: starts on cuda:0")
    assert text.getvalue() == "cps + ga[gamma=0.75]: starts on cuda:0\n"


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_a_live_display_tells_jobs_apart_and_breaks_no_word(width: int, tmp_path: Path) -> None:
    progress = {"stage": "training", "iteration": 12000, "iterations": 30000, "it_per_s": 6.4, "loss": 0.7123}
    (tmp_path / "progress.json").write_text(json.dumps({**progress, "validation": {"a": 0.812}}))
    shared = "network.base_filters=8,schedule.iterations=6000"
    jobs: list[Any] = [
        SimpleNamespace(
            outcome=None,
            run=Run(tmp_path),
            job=SimpleNamespace(title=f"ssl4mis-acdc 7-patients {names}~{shared},loss.gamma={gamma} seed-{seed}"),
        )
        for names in ("cps+ga", "magicnet+metassl+scdl")
        for gamma in (0.5, 0.75)
        for seed in (0, 1337)
    ]
    display = LiveDisplay(Console(file=io.StringIO(), width=width))
    display.update(jobs, jobs[2:6])
    screen = display.live.console.render_lines(display.live.renderable)
    lines = ["".join(part.text for part in line).rstrip() for line in screen]
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for part in ("ssl4mis-acdc", "7-patients", "~network.base_filters=8", "~schedule.iterations=6000"):
        assert text.count(part) == 1, part  # what all share is said once
    for part in ("seed-0", "seed-1337"):
        assert text.count(part) == 2, part  # and what is a job's own of each, whole
    assert len(re.findall(r"~loss\.gamma=0\.75\b", text)) == len(re.findall(r"~loss\.gamma=0\.5\b", text)) == 2


def test_what_jobs_share_is_told_apart_from_what_is_their_own() -> None:
    titles = [f"phantom 20pct cps+ga~loss.k=5,patch_size=[16,16] seed-{seed}" for seed in (0, 1)]
    assert told_apart(titles) == ("phantom 20pct cps+ga ~loss.k=5 ~patch_size=[16,16]", ["seed-0", "seed-1"])
    assert told_apart(titles[:1]) == ("phantom 20pct ~loss.k=5 ~patch_size=[16,16]", ["cps+ga seed-0"])
    assert told_apart(["a title of another kind"]) == ("", ["a title of another kind"])


@pytest.mark.parametrize("width", [12, 20, 60])
def test_a_terminal_breaks_a_note_between_words_alone(width: int) -> None:
    words = "failed phantom/20pct/cps+ga~network.base_filters=2,schedule.iterations=6/seed-0: no memory left"
    screen = io.StringIO()
    console.say(Console(file=screen, width=width, force_terminal=True), words)
    lines = screen.getvalue().splitlines()
    assert "".join(lines).replace(" ", "") == words.replace(" ", "")
    pieces = ("failed", "base_filters=", "schedule.iterations=", "memory", "left")
    assert all(any(piece in line for line in lines) for piece in pieces)
    assert all(len(line) <= max(width, len("~network.base_filters=")) for line in lines)
    styled = console.wrapped(Text("one two", style="bold"), 4)
    assert styled.plain == "one\ntwo"
