"""Answers that the installed package and a question decide alone, kept on this machine between commands.

What a grid expands to and what components say of themselves takes the import of every one of them, and of torch: most
of what a report would cost. An answer is asked for by what it is about and a key; it is good for the files of the
package as they are, to the size and the nanosecond. Deleting the folder (`settings.cache_dir`) costs time alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from sslbench.core import settings
from sslbench.core.errors import StorageError
from sslbench.core.files import read_json, write_text

T = TypeVar("T")

_STATES = 4  # of the package, the youngest, whose answers stay
_PACKAGE = Path(__file__).parent.parent


def kept(about: str, key: Any, make: Callable[[], T | None]) -> T | None:
    """Return an answer, made once for the package as it is.

    Args:
        about: what kind of answer, a part of its file's name.
        key: all else that decides it, as JSON has it.
        make: makes it, of what JSON has; None is an answer that is not to be kept.
    """
    folder = _folder()
    if folder is None:
        return make()
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()
    path = folder / f"{about}-{digest[:24]}.json"
    found: T | None = _read(path)
    if found is None and (found := make()) is not None:
        _write(path, found)
    return found


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except OSError:
        return None


def _write(path: Path, answer: Any) -> None:
    fresh = not path.parent.exists()
    try:
        write_text(path, json.dumps(answer, separators=(",", ":")), sync=False)
    except (StorageError, OSError):  # a home that cannot be written to, or is full
        return
    if fresh:
        states = sorted(path.parent.parent.iterdir(), key=lambda state: state.stat().st_mtime, reverse=True)
        for state in states[_STATES:]:
            shutil.rmtree(state, ignore_errors=True)


def _folder() -> Path | None:
    """Return the folder for the package as it is; None: nothing is to be kept."""
    root = settings.cache_dir()
    return root / _state() if root and _PACKAGE.is_dir() else None


@cache
def _state() -> str:
    """Hash what files of the package are there, and what reads them."""
    from importlib.metadata import version

    found: list[Any] = [sys.version, version("pydantic")]
    for folder, folders, names in os.walk(_PACKAGE):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            about = Path(folder, name).stat()
            found.append([str(Path(folder, name)), about.st_size, about.st_mtime_ns])
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]
