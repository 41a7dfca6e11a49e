"""The pages of the documentation as tests read them: commands, links and anchors."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@cache
def generator() -> ModuleType:
    """The module that makes pages from the code."""
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written_pages() -> dict[str, str]:
    """The pages that lie in docs/, by path below it."""
    return {str(path.relative_to(DOCS)): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}


@cache
def all_pages() -> dict[str, str]:
    """The pages of the site: those that lie in docs/, and those that are made from the code."""
    made: dict[str, str] = generator().pages()
    return written_pages() | made


def commands_of(page: str) -> list[str]:
    """The command lines of a page, those of its blocks for a shell and of its indented blocks, without remarks."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()] + re.findall(r"^    (\S.*)", prose, re.MULTILINE)
    return [re.split(r"\s+#\s", line.strip())[0] for line in lines if line.strip().startswith("sslbench ")]


def links_of(page: str) -> list[str]:
    """The relative links of a page, pictures too."""
    prose = re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE))
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in target]


def anchors_of(page: str) -> list[str]:
    """The anchors of the headings of a page."""
    prose = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    return [generator().anchor(heading) for heading in re.findall(r"^#{1,6} (.+?)\s*$", prose, re.MULTILINE)]


def nav_of(entries: Any) -> list[str]:
    """The pages of a table of contents of MkDocs, in its order."""
    if isinstance(entries, str):
        return [entries]
    inner = entries.values() if isinstance(entries, dict) else entries
    return [page for entry in inner for page in nav_of(entry)]
