"""Files that appear whole or not at all: written aside in the same folder, synced, renamed."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: Path, sync: bool = True) -> Iterator[Path]:
    """Yield a path beside `path` (same ending) to write to; it becomes `path` when the block ends without error.

    Args:
        path: the final file; its folder is made if it is missing.
        sync: wait until the bytes are on the disk; off for files that only feed a display.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The leading dot keeps half-written files out of every glob; the kept ending satisfies writers that look at it.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-", suffix=path.name[-40:])
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        aside.chmod(0o644)  # mkstemp's 0600 would keep a shared results folder from one's colleagues
        if sync:
            _sync(aside)
        aside.replace(path)
        if sync:
            _sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def sync_files(paths: Iterable[Path]) -> None:
    """Wait until files written without `sync`, and their names in their folders, are on the disk."""
    paths = list(paths)
    for path in [*paths, *dict.fromkeys(path.parent for path in paths)]:
        _sync(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, which stays: another process that asks for it waits. The system frees it with its process."""
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield


def write_text(path: Path, text: str, sync: bool = True) -> None:
    """Write UTF-8 text to `path`, whole or not at all."""
    with atomic_path(path, sync) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, sync: bool = True) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n", sync)


def write_beside(path: Path, text: str) -> None:
    """Write UTF-8 text to `path`; what was there and was not the same stays beside it, as `<name>.old-<n>`."""
    if path.exists() and path.read_text(encoding="utf-8") != text:
        move_aside(path)
    write_text(path, text)


def move_aside(path: Path) -> Path:
    """Rename a file or folder to `<name>.old-<n>`, a name that nothing has, and return it."""
    number = 1
    while (aside := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    return path.rename(aside)


def save_nifti(image: Any, path: Path) -> None:
    """Write a NIfTI image, whole or not at all."""
    import nibabel

    with atomic_path(path, sync=False) as aside:
        nibabel.save(image, aside)


def read_json(path: Path) -> Any:
    """Read the value of a JSON file, or None where the file is missing or unreadable as JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
