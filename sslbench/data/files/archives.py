"""The data that users have: a folder, or an archive, which is unpacked once, safely, into the data folder.

An archive is listed before anything is written: a member that would leave the folder, or more bytes than the disk has
free, and nothing is unpacked. Members keep their times, so that what is unpacked again counts as unchanged. The folder
appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import posixpath
import shutil
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from sslbench.core.errors import DataError, SSLBenchError, UsageError
from sslbench.core.files import locked

ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")

_CHUNK = 1 << 20
_SPARE = 64 << 20  # bytes that stay free on the disk
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)


@dataclass(frozen=True)
class _Member:
    """A file of an archive.

    Attributes:
        name: its path in the archive, checked: relative, without `..`.
        size: in bytes, unpacked.
        time: of its last change, in seconds since 1970.
        open: opens it for reading.
    """

    name: str
    size: int
    time: float
    open: Callable[[], IO[bytes] | None]


@dataclass(frozen=True)
class _Link:
    """A link in an archive, and the path in the archive that it leads to."""

    name: str
    target: str


def is_archive(path: Path) -> bool:
    """Tell whether a file is called like an archive that can be unpacked."""
    return path.is_file() and path.name.lower().endswith(ARCHIVE_ENDINGS)


def archives_in(folder: Path) -> list[Path]:
    """The archives right in a folder, sorted."""
    return sorted(path for path in folder.iterdir() if is_archive(path))


def unpacked_folder(archive: Path, cache: Path) -> Path:
    """Name the folder that an archive is unpacked to: its name, and a digest of its size, its first MiB and its last.

    The last MiB has the checksums of a zip's members or of a gzipped tar's content, so that reading all of it, which
    takes minutes, shows no more. A plain tar has none; its time counts instead.
    """
    size = archive.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    if archive.name.lower().endswith(".tar"):
        digest.update(str(archive.stat().st_mtime_ns).encode())
    with archive.open("rb") as file:
        digest.update(file.read(_CHUNK))
        file.seek(max(size - _CHUNK, 0))
        digest.update(file.read(_CHUNK))
    return cache / f"{archive.name}-{digest.hexdigest()[:8]}"


def unpack(archive: Path, folder: Path, say: Callable[[str], None] = lambda name: None) -> bool:
    """Unpack an archive, and archives right inside of it, to `folder`; one that is there is taken as it is.

    Another process that unpacks the same is waited for.

    Args:
        archive: zip, tar, or gzipped tar.
        folder: of `unpacked_folder`.
        say: told the name of each file that is unpacked.

    Returns:
        Whether it was unpacked now.

    Raises:
        UsageError: it is refused: a member would leave the folder, is neither file nor folder, or has a password.
        DataError: it is damaged or incomplete.
        SSLBenchError: the disk is too small.
    """
    with locked(folder.with_name(f".{folder.name}.lock")):
        if folder.is_dir():
            return False
        aside = folder.with_name(f".unpacking-{folder.name}")
        shutil.rmtree(aside, ignore_errors=True)  # what a kill left
        try:
            _unpack_all(archive, aside, say)
            for nested in [path for path in sorted(aside.rglob("*")) if is_archive(path)]:
                inside = nested.with_name(f".unpacking-{nested.name}")
                _unpack_all(nested, inside, say)
                nested.unlink()
                inside.rename(nested)  # a folder of the archive's name: it cannot meet another
            os.sync()
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return True


def check_space(what: object, place: Path, needed: int) -> None:
    """Refuse what the disk has no room for.

    Raises:
        SSLBenchError: `needed` bytes are not free at `place`.
    """
    free = shutil.disk_usage(place).free
    if needed + _SPARE > free:
        raise SSLBenchError(
            f"{what} needs {needed / 1e9:.1f} GB, but {place} has {free / 1e9:.1f} GB free",
            "make room, or choose another place with --data-dir",
        )


def _unpack_all(archive: Path, folder: Path, say: Callable[[str], None]) -> None:
    try:
        with _opened(archive) as members:
            check_space(archive, folder.parent, sum(member.size for member in members))
            folder.mkdir()
            for member in members:
                _write(archive, member, folder)
                say(member.name)
    except _DAMAGED as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{archive}: cannot be unpacked, it is damaged or incomplete: {reason}") from error
    except OSError as error:
        # gzip reports damage as an OSError without a number.
        if error.errno is None:
            raise DataError(f"{archive}: cannot be unpacked, it is damaged or incomplete: {error}") from error
        raise SSLBenchError(f"{archive}: cannot be unpacked to {folder.parent}: {error.strerror}") from error


def _write(archive: Path, member: _Member, folder: Path) -> None:
    path = folder.joinpath(*PurePosixPath(member.name).parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        raise DataError(f"{archive}: {member.name} is in it twice")
    stream = member.open()
    if stream is None:
        raise DataError(f"{archive}: {member.name} cannot be read")
    written = 0
    with stream, path.open("xb") as file:
        # What a header says about the size was held against the disk; more than that is not written.
        while chunk := stream.read(min(_CHUNK, member.size + 1 - written)):
            written += file.write(chunk)
            if written > member.size:
                break
    if written != member.size:
        raise DataError(f"{archive}: {member.name} is damaged, its size is not the {member.size} bytes that it states")
    os.utime(path, (member.time, member.time))


@contextmanager
def _opened(archive: Path) -> Iterator[list[_Member]]:
    """The files of an archive, all of them checked."""
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as zipped:
            yield _resolved(archive, [_zip_member(archive, zipped, info) for info in zipped.infolist()])
    else:
        with tarfile.open(archive, "r:*") as tarred:
            found = [_tar_member(archive, tarred, info) for info in tarred]
            while tarred.fileobj and tarred.fileobj.read(_CHUNK):
                pass  # to the very end, where gzip has its checksum
            yield _resolved(archive, found)


def _zip_member(archive: Path, zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member | _Link | None:
    name, kind = _safe(archive, info.filename), stat.S_IFMT(info.external_attr >> 16)
    if info.flag_bits & 1:
        raise UsageError(f"{archive}: {name} has a password", "unpack it yourself and name the folder")
    if info.is_dir() or kind == stat.S_IFDIR:
        return None
    if kind == stat.S_IFLNK:
        target = zipped.read(info).decode(errors="replace")
        return _Link(name, _inside(archive, name, target, posixpath.dirname(name)))
    if kind not in (0, stat.S_IFREG):
        raise UsageError(f"{archive}: {name} is neither a file nor a folder", "it is not unpacked")
    try:
        changed = time.mktime((*info.date_time, 0, 0, -1))
    except (ValueError, OverflowError):
        changed = 315532800.0  # 1980, where the count of zip files begins
    return _Member(name, info.file_size, changed, lambda: zipped.open(info))


def _tar_member(archive: Path, tarred: tarfile.TarFile, info: tarfile.TarInfo) -> _Member | _Link | None:
    name = _safe(archive, info.name)
    if info.isdir():
        return None
    if info.issym():
        return _Link(name, _inside(archive, name, info.linkname, posixpath.dirname(name)))
    if info.islnk():
        return _Link(name, _inside(archive, name, info.linkname, ""))
    if not info.isreg():
        raise UsageError(f"{archive}: {name} is neither a file nor a folder", "it is not unpacked")
    return _Member(name, info.size, float(info.mtime), lambda: tarred.extractfile(info))


def _resolved(archive: Path, found: list[_Member | _Link | None]) -> list[_Member]:
    """The files, with a copy for each link: no link is ever made, so that nothing can be written through one."""
    members = {item.name: item for item in found if isinstance(item, _Member)}
    resolved = [item for item in found if isinstance(item, _Member)]
    for item in found:
        if isinstance(item, _Link):
            target = members.get(item.target)
            if target is None:
                raise UsageError(
                    f"{archive}: {item.name} is a link to {item.target}, which is no file of the archive",
                    "unpack it yourself and name the folder",
                )
            resolved.append(_Member(item.name, target.size, target.time, target.open))
    return resolved


def _safe(archive: Path, name: str) -> str:
    """A member's path with slashes, refused where it would lead out of the folder."""
    path = name.replace("\\", "/")
    if path.startswith("/") or path[1:2] == ":" or ".." in path.split("/"):
        raise UsageError(f"{archive}: the member {name!r} would be written outside of its folder", "it is not unpacked")
    return posixpath.normpath(path)


def _inside(archive: Path, name: str, target: str, folder: str) -> str:
    """Resolve where a link leads, from the archive's root."""
    path = posixpath.normpath(posixpath.join(folder, target.replace("\\", "/")))
    if path.startswith(("/", "../")) or path == ".." or path[1:2] == ":":
        raise UsageError(f"{archive}: {name} is a link to {target!r}, outside of the archive", "it is not unpacked")
    return path
