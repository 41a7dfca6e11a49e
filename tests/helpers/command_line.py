"""The command line in this process, and what it offers to a shell."""

from __future__ import annotations

import contextlib
import io
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from sslbench import cli


def call(*arguments: str) -> tuple[int, str, str]:
    """Run a command line in this process: exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["sslbench", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        sys.argv = before
    assert "Traceback" not in out.getvalue() + err.getvalue()
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()


def offered(completer: Any, incomplete: str = "", args: tuple[str, ...] = (), **params: Any) -> list[str]:
    return list(completer(SimpleNamespace(params=params, args=list(args)), incomplete))
