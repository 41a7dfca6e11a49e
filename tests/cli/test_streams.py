"""Streams that are closed, full or left, and files that are no YAML: one line and an exit code from any command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.command_line import call

LINE = f"{sys.executable} -m sslbench"


def shell(line: str, folder: Path) -> tuple[int, str]:
    """The exit code of a line of bash, the last of the pipe's that is not 0, and all that it said."""
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True, cwd=folder, timeout=120, check=False
    )
    said = done.stdout + done.stderr
    assert "Traceback" not in said and "Exception ignored" not in said and "bug in sslbench" not in said
    return done.returncode, said


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("{} list recipes >&-", 0, ""),
        ("{} list recipes 2>&- <&-", 0, "ga-synapse"),
        ("{} list recipes >&- 2>&- <&-", 0, ""),
        ("{} list nothing 2>&-", 2, ""),
        ("{} list nothing 2>/dev/full", 2, ""),
        ("{} list recipes --json > /dev/full", 1, "cannot be written to stdout: No space left on device"),
        ("{} show method cps > /dev/full", 1, "cannot be written to stdout: No space left on device"),
        ("{} show method cps | true", 141, ""),
        ("{} validate quick --json | true", 141, ""),
    ],
)
def test_no_stream_ends_a_command_in_a_traceback(line: str, code: int, words: str, tmp_path: Path) -> None:
    ended, said = shell(line.format(LINE), tmp_path)
    assert ended == code and words in said
    assert said.count("\n") <= 1 or "error" not in said


def test_what_is_opened_later_does_not_take_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    write = "import os; from sslbench.cli import streams\n"
    write += "with streams.standard_streams(): print(open('file', 'w').fileno() > 2, file=open('told', 'w'))"
    (tmp_path / "write.py").write_text(write)
    shell(f"{sys.executable} write.py >&- <&-", tmp_path)
    assert (tmp_path / "told").read_text() == "True\n"


FILES = {"empty": b"", "binary": bytes(range(256)), "nul": b"\0\0", "deep": b"a: " + b"[" * 5000, "list": b"- a\n"}


@pytest.mark.parametrize("kind", [*FILES, "folder", "absent"])
def test_a_file_that_is_no_grid_recipe_or_list_is_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"{kind}.yaml"
    if kind == "folder":
        path.mkdir()
    elif kind in FILES:
        path.write_bytes(FILES[kind])
    places = ("--data-dir", str(tmp_path / "data"))
    for words in (
        ("run", "-n", "--grid", str(path)),
        ("validate", str(path)),
        ("report", str(path)),
        ("run", "-n", "-r", str(path), "-m", "cps", "--labeled", "20%"),
        ("show", "recipe", str(path)),
        ("prepare", "mine", str(tmp_path), "--splits", str(path)),
    ):
        code, out, err = call(*words, *(places if words[0] != "show" else ()))
        assert code == 2 and not out and err.startswith("error: "), (words, err)
        assert len(err.splitlines()) <= 2 and "bug in sslbench" not in err
