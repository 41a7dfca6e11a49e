"""Figures as a page holds them: vector graphics with few bytes, and pictures as images in the text."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Mapping
from html import escape
from xml.etree import ElementTree

from markupsafe import Markup

from sslbench.reporting.figures import style

PICTURE_DPI = 200
_SCALE = 4 / 3 * 1.15  # CSS pixels of a point: text of 8 points is read at arm's length
_LONG = re.compile(r"-?\d*\.\d{3,}(?:e-?\d+)?")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_COMMAND = re.compile(r" *([A-Za-z]) *")  # of a path
_NO_TURN = re.compile(r"rotate\(-?0 ")


class Sheets:
    """The styles of all graphics of a page, each once: a class stands for it."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def name(self, declarations: str) -> str:
        """The class of some declarations."""
        return self._names.setdefault(declarations, f"v{len(self._names)}")

    @property
    def css(self) -> str:
        """The rules of all classes that were asked for."""
        return "".join(f".{name}{{{declarations}}}\n" for declarations, name in self._names.items())


def graphic(drawing: style.Drawing, key: str, title: str, description: str, sheets: Sheets) -> Markup:
    """A figure as an `<svg>` element for a page: ids begin with `key`, numbers have two decimals, and what elements
    look like is in `sheets`.

    Args:
        key: letters and digits, which no other graphic of the page has.
        title, description: for those who cannot see it.
    """
    root = ElementTree.fromstring(drawing.svg_text(key, title, description))
    width, height = pixels(drawing)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"width": str(width), "height": str(height), "class": "plot"}
    used = {target for element in root.iter() for target in _targets(element.attrib)}
    return Markup("".join(_written(root, used, sheets)))


def pixels(drawing: style.Drawing) -> tuple[int, int]:
    """Width and height in CSS pixels at which a figure is shown."""
    width, height = drawing.size
    return round(width * 72 * _SCALE), round(height * 72 * _SCALE)


def picture(drawing: style.Drawing, description: str) -> Markup:
    """A figure as an `<img>` element that holds its pixels (WebP)."""
    from PIL import Image

    stream = io.BytesIO()
    assert drawing.figure is not None
    with style.styled():
        drawing.figure.savefig(stream, format="png", dpi=PICTURE_DPI, metadata={"Software": None})
    packed = io.BytesIO()
    with Image.open(stream) as image:
        image.convert("RGB").save(packed, "WEBP", quality=84, method=4)
    address = f"data:image/webp;base64,{base64.b64encode(packed.getvalue()).decode('ascii')}"
    width, height = pixels(drawing)
    return Markup('<img src="{}" width="{}" height="{}" alt="{}">').format(address, width, height, description)


def _targets(attributes: Mapping[str, str]) -> Iterator[str]:
    """The ids that an element refers to."""
    for name, value in attributes.items():
        if name.rpartition("}")[2] == "href":
            yield value.removeprefix("#")
        elif name == "aria-labelledby":
            yield from value.split()
        else:
            yield from _REFERENCE.findall(value)


def _written(element: ElementTree.Element, used: set[str], sheets: Sheets) -> Iterator[str]:
    tag = element.tag.rpartition("}")[2]
    if tag in ("style", "metadata"):  # matplotlib's rule for all elements would be one for all of the page
        return
    attributes = dict(_kept(element.attrib, used, sheets))
    content = "".join(part for child in element for part in _written(child, used, sheets))
    text = escape((element.text or "").strip(), quote=False) if tag in ("text", "tspan", "title", "desc") else ""
    if (tag in ("g", "defs") and not content) or (tag == "g" and not attributes):
        yield content
        return
    told = "".join(f' {name}="{escape(value)}"' for name, value in attributes.items())
    yield f"<{tag}{told}>{text}{content}</{tag}>" if content or text else f"<{tag}{told}/>"


def _kept(attributes: Mapping[str, str], used: set[str], sheets: Sheets) -> Iterator[tuple[str, str]]:
    for full, value in attributes.items():
        name = full.rpartition("}")[2]
        if name == "id":
            if value in used:
                yield name, value
        elif name == "style":
            yield "class", sheets.name(_shorter(_declarations(value)))
        elif name == "d":
            yield name, _COMMAND.sub(r"\1", _shorter(" ".join(value.split())))
        elif not _NO_TURN.match(value):
            yield name, _shorter(" ".join(value.split()))


def _declarations(style_text: str) -> str:
    """What an element looks like; the font is that of all graphics of a page."""
    parts = [part.strip() for part in style_text.split(";")]
    return ";".join(part.replace(": ", ":") for part in parts if part and not part.startswith("font-family"))


def _shorter(text: str) -> str:
    return _LONG.sub(lambda match: _two_decimals(match[0]), text)


def _two_decimals(number: str) -> str:
    short = f"{float(number):.2f}".rstrip("0").rstrip(".")
    return "0" if short in ("-0", "") else short
