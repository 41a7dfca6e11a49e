"""Evidence that a file is damaged or incomplete: its end is missing, a checksum is wrong, its beginning is of no known
kind. What a library refuses for another reason is not damage."""

from __future__ import annotations

import gzip
import os
import re
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sslbench.core.errors import DataError
from sslbench.data.files.headers import header_text

PNG = b"\x89PNG\r\n\x1a\n"
_TYPES = {"char": 1, "int8": 1, "short": 2, "int16": 2, "int": 4, "int32": 4, "long long": 8, "int64": 8}
_TYPES |= {"float": 4, "double": 8}
_BEGINNINGS = {
    ".jpg": (b"\xff\xd8",),
    ".jpeg": (b"\xff\xd8",),
    ".bmp": (b"BM",),
    ".tif": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    ".tiff": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    ".png": (PNG,),
    ".nrrd": (b"NRRD",),
}


def refused(path: Path, kind: str, evidence: str, reason: str) -> DataError:
    """The error of a file that cannot be read: damaged where there is evidence of it, else for the reason given."""
    reason = " ".join(reason.split()) or "no reason is given"
    what = f"cannot be read as {kind}" if kind else "cannot be read"
    if evidence:
        return DataError(f"{path}: {what}, it is damaged or incomplete: {evidence}")
    return DataError(f"{path}: {what}: {reason}")


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        DataError: the system cannot read it, for the reason that the system gives; a pipe or device.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise DataError(f"{path}: is no file but a pipe or device")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


@contextmanager
def quiet() -> Iterator[list[str]]:
    """Keep what C libraries print off the screen, and give its lines once the block has ended."""
    said: list[str] = []
    screens: dict[int, int] = {}
    try:
        with tempfile.TemporaryFile() as file:
            for number, stream in ((1, sys.stdout), (2, sys.stderr)):  # ITK prints to either
                with suppress(OSError, ValueError, AttributeError):  # one may be closed: nothing gets there
                    stream.flush()
                    screens[number] = os.dup(number)
                    os.dup2(file.fileno(), number)
            try:
                yield said
            finally:
                for number, screen in screens.items():
                    os.dup2(screen, number)
                file.seek(0)
                said += file.read().decode("utf-8", "replace").splitlines()
    finally:
        for screen in screens.values():
            os.close(screen)


def of_picture(content: bytes, suffix: str) -> str:
    """What shows that an image file without a place (PNG, JPEG, BMP, TIFF), an NRRD or MHA file is damaged; empty
    where nothing does."""
    if not content:
        return "it is empty"
    beginnings = _BEGINNINGS.get(suffix, ())
    if beginnings and not content.startswith(beginnings):
        # A picture of another kind under this ending is read by what it is; this is of none.
        if not any(content.startswith(start) for starts in _BEGINNINGS.values() for start in starts):
            return "it begins like no image"
        return ""
    if suffix == ".png":
        return _png(content)
    if suffix == ".bmp" and len(content) < struct.unpack_from("<I", content.ljust(6, b"\0"), 2)[0]:
        return "its end is missing"
    # The decoder fills up a JPEG that was cut off in grey. Its end marker cannot occur in between.
    if suffix in (".jpg", ".jpeg") and content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
        return "its end is missing"
    if suffix in (".tif", ".tiff"):
        return _tiff(content)
    if suffix in (".nrrd", ".mha"):
        return _voxels(content)
    return ""


def true_ending(content: bytes, suffix: str) -> str:
    """The ending that an image's content has by right: readers go by endings, and users rename files."""
    if not _BEGINNINGS.get(suffix) or content.startswith(_BEGINNINGS[suffix]):
        return suffix
    return next((right for right, starts in _BEGINNINGS.items() if content.startswith(starts)), suffix)


def _png(content: bytes) -> str:
    place = len(PNG)
    while place < len(content):
        if place + 12 > len(content):
            return "its end is missing"
        length, kind = struct.unpack_from(">I4s", content, place)
        end = place + 12 + length
        if end > len(content):
            return "its end is missing"
        if zlib.crc32(content[place + 4 : end - 4]) != struct.unpack_from(">I", content, end - 4)[0]:
            return f"the checksum of its part {kind.decode('latin-1')} is wrong"
        if kind == b"IEND":
            return ""
        place = end
    return "its end is missing"


def _tiff(content: bytes) -> str:
    """Whether the first directory of a TIFF, or the strips or tiles that it points to, lie behind the file's end."""
    order = "<" if content[:2] == b"II" else ">"
    if content[2:4] in (b"+\0", b"\0+"):  # BigTIFF
        return ""
    place = struct.unpack_from(order + "I", content.ljust(8, b"\0"), 4)[0]
    if place + 2 > len(content):
        return "its end is missing"
    (count,) = struct.unpack_from(order + "H", content, place)
    fields: dict[int, list[int]] = {}
    for number in range(count):
        entry = place + 2 + 12 * number
        if entry + 12 > len(content):
            return "its end is missing"
        tag, kind, values = struct.unpack_from(order + "HHI", content, entry)
        if tag not in (273, 279, 324, 325) or kind not in (3, 4):
            continue
        letter, width = ("H", 2) if kind == 3 else ("I", 4)
        start = entry + 8 if values * width <= 4 else struct.unpack_from(order + "I", content, entry + 8)[0]
        if start + values * width > len(content):
            return "its end is missing"
        fields[tag] = list(struct.unpack_from(f"{order}{values}{letter}", content, start))
    for offsets, sizes in ((273, 279), (324, 325)):
        found = zip(fields.get(offsets, ()), fields.get(sizes, ()), strict=False)
        if any(start + size > len(content) for start, size in found):
            return "its end is missing"
    return ""


def _voxels(content: bytes) -> str:
    """Whether the voxels behind the header of an NRRD or MHA file are as many as it says, and can be unpacked."""
    fields = header_text(content)
    if content.startswith(b"NRRD"):
        split = re.search(rb"\r?\n\r?\n", content)
        encoding, sizes, kind = fields.get("encoding", ""), fields.get("sizes", ""), fields.get("type", "")
        if split is None:
            return "its header does not end"
        if "data file" in fields or "datafile" in fields:
            return ""
        packed, known = encoding in ("gzip", "gz"), encoding in ("gzip", "gz", "raw")
    else:
        if not re.match(rb"\s*\w+\s*=", content):
            return "it begins like no image"
        split = re.search(rb"(?<=\n)ElementDataFile\s*=\s*LOCAL\s*?\r?\n", content)
        if split is None:
            return "" if b"ElementDataFile" in content else "its header does not end"
        packed, known = fields.get("compresseddata", "").lower() == "true", True
        sizes, kind = fields.get("dimsize", ""), fields.get("elementtype", "").lower().removeprefix("met_")
    data = content[split.end() :]
    if packed:
        try:
            data = gzip.decompress(data) if content.startswith(b"NRRD") else zlib.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            return (str(error).splitlines() or [type(error).__name__])[0]
    size = _TYPES.get(re.sub(r"^(unsigned |u)(?=char|short|int|long)|^signed |_t$", "", kind))
    wanted = size if size else 0
    for side in sizes.split():
        wanted *= int(side) if side.isdigit() else 0
    return f"it holds {len(data)} of {wanted} bytes" if known and len(data) < wanted else ""
