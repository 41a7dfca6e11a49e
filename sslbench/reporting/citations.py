"""Citations: which sources a row of a table names, the keys that LaTeX cites them by, and their BibTeX entries.

Keys are the names of methods, losses and plugins here, behind a prefix that no bibliography of one's own has:
`sslbench:uamt`. They do not change when facts about a source are put right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from sslbench.config.published import PublishedRow, PublishedSource, published_papers, published_sources
from sslbench.config.text import split_outside_brackets
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError, UsageError
from sslbench.reporting.comparison import ComparedRow
from sslbench.reporting.model import Row, RowSource

BIBLIOGRAPHY = "references.bib"

_PREFIX = "sslbench:"
_HEADER = "% Written by sslbench: what the tables beside it cite."
# With it they are links; elsarticle's style stops at an underscore without it.
_HINT = "% Load hyperref: DOIs have underscores."
_NETWORKS = ("vnet", "unet")  # `supervised` is no method of anybody's: its network is cited
_OPTIONS = ("method.", "loss.", "plugin.", "weighting")


def keys_of(source: RowSource) -> tuple[str, ...]:
    """The keys of what a measured row consists of: plugin, loss, method, and what its options name."""
    network = str(source.job.values.get("network.name", "")) if source.job else ""
    options = [item.partition("=") for item in split_outside_brackets(source.variant)]
    chosen = [value for path, _, value in options if path.startswith(_OPTIONS)]
    return _keys(source.method, source.loss, source.plugin, network, chosen)


def keys_in_print(row: PublishedRow) -> tuple[str, ...]:
    """The same of a published row that no measured one stands beside."""
    return _keys(row.method, row.loss, row.plugin, row.network_published, [str(value) for value in row.set.values()])


def _keys(method: str, loss: str, plugin: str, network: str, options: Sequence[str]) -> tuple[str, ...]:
    named = [("plugin", plugin), ("loss", loss), ("method", network if method == "supervised" else method)]
    found = [_slug(kind, name) for kind, name in named if name]
    found += [option for option in options if option in _works()]
    return tuple(dict.fromkeys(f"{_PREFIX}{_works()[slug]}" for slug in found if slug in _works()))


def _slug(kind: str, name: str) -> str:
    """The name of a source: a preset's own where it has one, else that of what it configures."""
    if name in _works():
        return name
    try:
        facts = registry.facts(kind, name)
    except SSLBenchError:  # a network, or results that outlive the package that made them
        return name
    return facts.name if facts.name in _works() else facts.base


def _works() -> dict[str, str]:
    """The source whose entry serves each slug: several names stand for one paper."""
    sources = {slug: source for slug, source in published_sources().items() if slug != "supervised"}
    by_title = {source.title: slug for slug, source in sources.items()}
    served = {slug: by_title[source.title] for slug, source in sources.items()}
    elsewhere = {slug: source.title[4:] for slug, source in sources.items() if source.title.startswith("see ")}
    return {name: name for name in _NETWORKS} | served | elsewhere


class Citations:
    """What follows names in LaTeX, and the keys that were cited so.

    Attributes:
        keys: in order of use.
    """

    def __init__(self) -> None:
        self.keys: list[str] = []

    def row(self, row: Row) -> str:
        """What follows the name of a measured row."""
        return self._cite(key for source in row.sources for key in keys_of(source))

    def compared(self, row: ComparedRow) -> str:
        """What follows the name of a row of a comparison."""
        if row.source:
            return self._cite(keys_of(row.source))
        return self._cite(keys_in_print(row.published)) if row.published else ""

    def paper(self, paper: str) -> str:
        """What follows the name of one of the five papers, `ga`."""
        return self._cite([f"{_PREFIX}{paper}"])

    def _cite(self, keys: Iterable[str]) -> str:
        cited = list(dict.fromkeys(keys))
        self.keys += [key for key in cited if key not in self.keys]
        return rf"~\cite{{{','.join(cited)}}}" if cited else ""


def bibliography(keys: Iterable[str], before: str = "") -> str:
    """A BibTeX file with an entry per key.

    Args:
        keys: of `keys_of` and the like.
        before: the file as it is; what it holds for other tables stays.

    Raises:
        UsageError: that file is not of this function's writing.
    """
    if before.strip() and not before.startswith(_HEADER):
        raise UsageError(
            f"{BIBLIOGRAPHY} there is not of sslbench's writing, so it is not overwritten",
            "write the table to another folder",
        )
    known = re.findall(rf"^@\w+{{({_PREFIX}[\w-]+),", before, re.MULTILINE)
    entries = [_entry(key.removeprefix(_PREFIX)) for key in sorted({*keys, *known})]
    return "\n\n".join([f"{_HEADER}\n{_HINT}", *filter(None, entries)]) + "\n"


def _entry(slug: str) -> str:
    """The BibTeX entry of a source; empty where there is no such source any more."""
    facts = _facts(slug)
    if facts is None:
        return ""
    kind, fields = _typed(facts["venue"], facts["year"])
    fields = {"author": _authors(facts["authors"]), "title": f"{{{facts['title']}}}", **fields, "doi": facts["doi"]}
    lines = [
        f"  {name} = {{{value if name == 'doi' else _escaped(value)}}}," for name, value in fields.items() if value
    ]
    return "\n".join([f"@{kind}{{{_PREFIX}{slug},", *lines, "}"])


def _facts(slug: str) -> dict[str, str] | None:
    """Authors, title, venue, year and doi: of the five papers as they give them, of others as they are cited."""
    if paper := published_papers().get(slug):
        return {name: getattr(paper, name) for name in ("authors", "title", "venue", "year", "doi")}
    if slug in _NETWORKS:
        return _network_facts(_NETWORKS.index(slug), published_sources()["supervised"])
    source = published_sources().get(slug)
    if source is None:
        return None
    return {**{name: getattr(source, name) for name in ("authors", "title", "venue", "year")}, "doi": ""}


def _network_facts(place: int, source: PublishedSource) -> dict[str, str]:
    """One of the two works behind `supervised`, whose facts stand side by side."""
    facts: dict[str, Any] = {
        name: getattr(source, name).split("; ")[place] for name in ("authors", "title", "venue", "year")
    }
    return {**facts, "authors": re.sub(r" \([^)]*\)$", "", facts["authors"]), "doi": ""}


_ARTICLE = re.compile(r"(?P<journal>[A-Z][\w ]+?) (?P<volume>\d+)\((?P<number>\d+)\)(, (?P<article>\d+)$)?")


def _typed(venue: str, year: str) -> tuple[str, dict[str, str]]:
    """The kind of a BibTeX entry, and the fields that a venue as cited gives it."""
    pages = "--".join(found.groups()) if (found := re.search(r"pp\. (\d+)-(\d+)", venue)) else ""
    eprint = found[1] if (found := re.search(r"arXiv:(\d{4}\.\d+)", venue)) else ""
    preprint = {"eprint": eprint, "archivePrefix": "arXiv" if eprint else ""}
    place = re.split(r"[,;] (?:pp\.|arXiv)", venue)[0]
    if found := _ARTICLE.match(venue):
        issue = {"journal": found["journal"], "volume": found["volume"], "number": found["number"]}
        return "article", {**issue, "pages": pages or found["article"] or "", "year": year}
    if place.startswith("arXiv"):
        return "misc", {**preprint, "year": year}
    if place.startswith("IEEE Transactions"):
        journal, _, rest = place.partition(",")
        return "article", {
            "journal": journal,
            "note": "accepted" if "accepted" in rest else "",
            "year": year,
            **preprint,
        }
    return "inproceedings", {"booktitle": place, "pages": pages, "year": year}


def _authors(listed: str) -> str:
    names = [name for name in listed.split(", ") if name]
    return " and ".join("others" if name == "et al." else name for name in names)


def _escaped(text: str) -> str:
    return re.sub(r"([&%#_])", r"\\\1", text)
