"""Grids that the command line runs in processes of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from tests.helpers.jobs import TINY


def command(*arguments: str, data: Path, results: Path) -> list[str]:
    places = ["--data-dir", str(data), "--results-dir", str(results)]
    return [sys.executable, "-m", "sslbench", *arguments, *places]


def sslbench(*arguments: str, data: Path, results: Path) -> subprocess.CompletedProcess[str]:
    line = command(*arguments, data=data, results=results)
    return subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)


def write_grid(path: Path, **changes: object) -> Path:
    content = {
        "recipe": "phantom",
        "labeled": ["20%"],
        "seeds": [0],
        "set": TINY,
        "jobs": [{"method": ["supervised", "cps"], "loss": ["default"]}],
    }
    path.write_text(yaml.safe_dump(content | changes))
    return path


def cases_of(results: Path) -> dict[str, bytes]:
    return {str(path.relative_to(results)): path.read_bytes() for path in sorted(results.glob("runs/**/cases.csv"))}
