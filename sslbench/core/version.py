"""Which code this is: the version, and the commit of a source checkout."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import sslbench

BUILT_OF = "_commit.txt"  # in wheels and source archives, never in a checkout


@cache
def code_state() -> str:
    """The commit of a source checkout, `+changes` where it is not clean; elsewhere that which a wheel was built of, or
    `installed` where it is not known."""
    folder = Path(sslbench.__file__).parent
    if (built := folder / BUILT_OF).is_file():
        return built.read_text(encoding="utf-8").strip()
    try:
        commit = _git(folder, "rev-parse", "--short=12", "HEAD")
        return commit + ("+changes" if _git(folder, "status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return "installed"


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
