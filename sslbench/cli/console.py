"""Where the command line writes to, and how."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from rich.console import Console


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


def out() -> Console:
    return Console(width=None if sys.stdout.isatty() else max(100, int(os.environ.get("COLUMNS", 0) or 0)))


def err() -> Console:
    return Console(stderr=True)


def escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as one line, without the place in the code that Python adds."""
    err().print(f"[yellow]warning:[/] {escaped(str(message))}", soft_wrap=True, highlight=False)
