"""Which code this is: the version, and the commit of a source checkout."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import sslbench


@cache
def code_state() -> str:
    """The commit of a source checkout, `+changes` where it is not clean; `installed` outside of one."""
    folder = Path(sslbench.__file__).parent
    try:
        commit = _git(folder, "rev-parse", "--short=12", "HEAD")
        return commit + ("+changes" if _git(folder, "status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return "installed"


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
