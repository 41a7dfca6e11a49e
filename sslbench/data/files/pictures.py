"""Pictures that ITK's readers take for something else, rewritten so that they read what is there: the indices of a
palette, which are a mask's classes, and grey with opacity."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sslbench.core.errors import DataError
from sslbench.data.files.damage import PNG

Undo = Callable[[NDArray[Any]], NDArray[Any]]  # from what was read of the rewritten file to its values
_GREY, _PALETTE, _GREY_ALPHA, _COLOUR_ALPHA = 0, 3, 4, 6  # colour types of PNG
_NOISY = {b"iCCP", b"tEXt", b"zTXt", b"iTXt", b"eXIf"}  # parts that no pixel depends on, and libpng prints warnings of


def rewritten(content: bytes, indices: bool, grey_palette: bool) -> tuple[bytes, Undo] | None:
    """A PNG, TIFF or BMP file of which a reader gets the values, and what makes them of what it gets.

    Args:
        content: of the file, sound.
        indices: whether the indices of a palette are wanted, and not its colours.
        grey_palette: whether those of a palette of greys are, too.

    Returns:
        None where the file is read right as it is.
    """
    if content.startswith(PNG):
        return _png(content, indices, grey_palette)
    if content[:4] in (b"II*\0", b"MM\0*"):
        return _tiff(content, indices, grey_palette)
    return _bmp(content, indices, grey_palette) if content[:2] == b"BM" else None


def _png(content: bytes, indices: bool, grey_palette: bool) -> tuple[bytes, Undo] | None:
    parts = list(_parts(content))
    held = dict(reversed(parts))
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", held[b"IHDR"])
    if colour == _PALETTE:
        palette = np.frombuffer(held.get(b"PLTE", b""), np.uint8).reshape(-1, 3)
        if not indices or (_all_grey(palette) and not grey_palette):
            kept = [(kind, data) for kind, data in parts if kind not in _NOISY]
            same = len(kept) == len(parts)
            return None if same else (PNG + b"".join(_part(*part) for part in kept), lambda read: read)
        # The same rows as a grey picture has, which a reader spreads over 0 to 255.
        made, undo = (depth, _GREY), lambda read: read // (255 // (2**depth - 1))
    elif colour == _GREY_ALPHA and depth == 8:
        # Two bytes a pixel, as 16-bit grey has: grey above, opacity below.
        made, undo = (16, _GREY), lambda read: (read >> 8).astype(np.uint8)
    elif colour == _GREY_ALPHA:
        # Four bytes a pixel, as 8-bit red, green, blue and opacity have: the upper and the lower byte of grey first.
        made, undo = (8, _COLOUR_ALPHA), lambda read: read[..., 0].astype(np.uint16) << 8 | read[..., 1]
    elif (colour == _GREY and b"tRNS" in held) or _NOISY & {*held}:
        made, undo = (depth, colour), lambda read: read
    else:
        return None
    head = struct.pack(">IIBBBBB", width, height, *made, *rest)
    dropped = _NOISY if made == (depth, colour) and colour != _GREY else {*_NOISY, b"tRNS", b"PLTE", b"sBIT", b"bKGD"}
    kept = [(kind, data) for kind, data in parts if kind not in dropped]
    written = b"".join(_part(kind, head if kind == b"IHDR" else data) for kind, data in kept)
    return PNG + written, undo


def _parts(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(PNG)
    while place + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        yield kind, content[place + 8 : place + 8 + length]
        place += 12 + length


def _part(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _tiff(content: bytes, indices: bool, grey_palette: bool) -> tuple[bytes, Undo] | None:
    """A TIFF with a palette is told from a grey one by one field of each directory."""
    order = "<" if content[:2] == b"II" else ">"
    changed, found = bytearray(content), False
    (place,) = struct.unpack_from(order + "I", content, 4)
    seen: set[int] = set()
    while place and place not in seen and place + 2 <= len(content):
        seen.add(place)
        (count,) = struct.unpack_from(order + "H", content, place)
        fields = {}
        for entry in range(place + 2, min(place + 2 + 12 * count, len(content) - 11), 12):
            fields[struct.unpack_from(order + "H", content, entry)[0]] = entry
        if 262 in fields and struct.unpack_from(order + "H", content, fields[262] + 8)[0] == _PALETTE:
            colours = fields.get(320)
            if colours is not None and not grey_palette:
                values, start = struct.unpack_from(order + "II", content, colours + 4)
                table = np.frombuffer(content, order + "u2", values, start).reshape(3, -1).T
                if _all_grey(table):
                    return None
            struct.pack_into(order + "H", changed, fields[262] + 8, 1)
            found = True
        elif 277 in fields and struct.unpack_from(order + "H", content, fields[277] + 8)[0] == 2:
            return _grey_alpha_tiff(content, order, fields)
        place = struct.unpack_from(order + "I", content.ljust(place + 6 + 12 * count, b"\0"), place + 2 + 12 * count)[0]
    return (bytes(changed), lambda read: read) if found and indices else None


def _grey_alpha_tiff(content: bytes, order: str, fields: dict[int, int]) -> tuple[bytes, Undo]:
    """Grey and opacity of 8 bits beside each other are the two bytes of 16-bit grey. (A reader would multiply them.)

    Raises:
        DataError: they are not beside each other, or the file has several pages.
    """

    def value(tag: int, default: int) -> int:
        return struct.unpack_from(order + "H", content, fields[tag] + 8)[0] if tag in fields else default

    (pages,) = struct.unpack_from(order + "I", content, max(fields.values()) + 12)
    if 258 not in fields or value(258, 1) != 8 or value(284, 1) != 1 or value(317, 1) != 1 or pages:
        raise DataError(
            "grey with opacity is packed in a way that is not supported: save it as PNG, or without opacity"
        )
    changed = bytearray(content)
    for tag, count, made in ((277, 1, 1), (258, 1, 16)):
        struct.pack_into(order + "HIHH", changed, fields[tag] + 2, 3, count, made, 0)
    if 338 in fields:
        struct.pack_into(order + "H", changed, fields[338], 65000)  # a private tag in the place of ExtraSamples
    shift = 0 if order == "<" else 8
    return bytes(changed), lambda read: (read >> shift & 255).astype(np.uint8)


def _bmp(content: bytes, indices: bool, grey_palette: bool) -> tuple[bytes, Undo] | None:
    """A BMP of 8 bits has its palette before the pixels: with that of greys its indices are what is read."""
    pixels, head = struct.unpack_from("<II", content, 10)
    if not indices or len(content) < pixels or head < 40 or struct.unpack_from("<H", content, 28)[0] != 8:
        return None
    count = struct.unpack_from("<I", content, 46)[0] or 256
    start = 14 + head
    palette = np.frombuffer(content, np.uint8, 4 * count, start).reshape(-1, 4)[:, :3]
    if _all_grey(palette) and not grey_palette:
        return None
    greys = b"".join(bytes((value, value, value, 0)) for value in range(count))
    return content[:start] + greys + content[start + 4 * count :], lambda read: read


def _all_grey(palette: NDArray[Any]) -> bool:
    return bool((palette == palette[:, :1]).all())
