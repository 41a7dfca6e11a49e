"""Files that appear whole or not at all: written aside in the same folder, synced, renamed."""

from __future__ import annotations

import codecs
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sslbench.core.errors import SSLBenchError, StorageError

_FULL = 1 << 16  # bytes; a disk with fewer is full, whatever a writer says of it
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def is_plain_name(name: str) -> bool:
    """Tell whether a name from somebody's file can be that of a file in a folder: it leads nowhere else."""
    return bool(name.strip(". ")) and not {*name} & {*"/\\\0\n"}


@contextmanager
def atomic_path(path: Path, sync: bool = True) -> Iterator[Path]:
    """Yield a path beside `path` (same ending) to write to; it becomes `path` when the block ends without error.

    Args:
        path: the final file; its folder is made if it is missing.
        sync: wait until the bytes are on the disk; off for files that only feed a display.

    Raises:
        StorageError: the system refuses: a full disk, no permission. Writers that have words of their own for a full
            disk (NumPy, torch) are overruled.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The leading dot keeps half-written files out of every glob; the kept ending satisfies writers that look at it.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-", suffix=path.name[-40:])
    except OSError as error:
        raise StorageError(path, error) from error
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
    except Exception as error:
        refusal = _refusal(error)
        if shutil.disk_usage(path.parent).free < _FULL:
            refusal = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if refusal is None or refusal.filename not in (None, str(aside), str(path.parent)):
            raise  # or of another file, which the block read
        raise StorageError(path, refusal) from error
    finally:
        aside.unlink(missing_ok=True)


def _refusal(error: BaseException) -> OSError | None:
    """The system's refusal that an error is, or that a library met before its own."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, SSLBenchError):
        if isinstance(seen, OSError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


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


def read_text(path: Path) -> str:
    """The text of a file that a user wrote: UTF-8, or what its byte-order mark says (Notepad and PowerShell write one).

    Raises:
        OSError, UnicodeDecodeError: it cannot be read, or is no text.
    """
    content = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    return content.decode(encoding).replace("\r\n", "\n")


def read_json(path: Path) -> Any:
    """Read the value of a JSON file, or None where the file is missing or unreadable as JSON."""
    try:
        return json.loads(read_text(path))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
        return None


def walk_files(folder: Path) -> Iterator[Path]:
    """The files under a folder, linked folders too; a link that leads back up to a folder that holds it is passed over.

    Sorted within each folder.
    """
    above: dict[Path, frozenset[tuple[int, int]]] = {}  # device and number of a folder and of all that hold it
    for parent, folders, names in os.walk(folder, followlinks=True):
        here = Path(parent)
        holding = above.pop(here, frozenset()) | {_identity(here)}
        kept = []
        for name in sorted(folders):
            try:
                passed = _identity(here / name) in holding
            except OSError:
                continue
            if not passed:
                above[here / name] = holding
                kept.append(name)
        folders[:] = kept
        yield from (here / name for name in sorted(names))


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def same_file(one: Path, other: Path) -> bool:
    """Tell whether two paths lead to one file, by links of folders."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
