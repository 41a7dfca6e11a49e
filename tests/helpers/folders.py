"""Folders packed into archives, and their files watched."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and modification time of every file: a rewritten file changes both."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def pack(archive, folder, inside="."):
    """An archive of all that is in a folder, with the paths and times that it has there."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(folder.rglob("*")):
                file.write(path, Path(inside) / path.relative_to(folder))
    else:
        with tarfile.open(archive, "w" if archive.suffix == ".tar" else "w:gz") as file:
            file.add(folder, inside)
    return archive
