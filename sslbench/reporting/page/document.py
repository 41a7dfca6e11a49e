"""`report.html`: a report as one page, complete without script, and without network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslbench.config.text import counted
from sslbench.reporting.comparison import Comparison
from sslbench.reporting.figures.album import Leaf, album
from sslbench.reporting.manifest import manifest_of
from sslbench.reporting.page.figures import MOST_GRAPHICS, MOST_SHOWN, Gallery, best_rows, gallery
from sslbench.reporting.page.runs import conditions
from sslbench.reporting.page.tables import ShownTable, lenses, ranking, shown_comparison, shown_table
from sslbench.reporting.page.values import MOST_VALUES, values_of
from sslbench.reporting.page.words import resolved
from sslbench.reporting.report import Report

if TYPE_CHECKING:
    from jinja2 import Environment

_RESERVE = 10_000  # bytes for reasons and headings that depend on what is left out
MOST_BYTES = 1_000_000  # of the page, pictures apart: what would be more is left out, and the page says so

# Parts in order: key, heading.
_HEADINGS = {
    "table": "Table",
    "gains": "Gains",
    "size": "Small and large structures",
    "ranks": "Ranks and pairs",
    "cases": "Cases",
    "curves": "Training",
    "cost": "Labels, options, cost",
    "pictures": "Pictures",
    "published": "Published beside measured",
    "measured": "How it was measured",
    "runs": "Runs",
    "manifest": "Manifest",
}


@dataclass(frozen=True)
class PagePart:
    """A part of the page: `key` is its id."""

    key: str
    title: str


def page(
    report: Report,
    data_dir: Path,
    comparison: Comparison | None = None,
    command: str = "sslbench report",
    drawn: Sequence[Leaf] | None = None,
) -> str:
    """A report as the text of one HTML file; the same report gives the same bytes.

    Args:
        report: with results.
        data_dir: where datasets are prepared, for pictures.
        comparison: a published table beside the report's.
        command: that makes the page, as typed.
        drawn: the `album` of the report, where that was made.

    Raises:
        UsageError: matplotlib is missing.
    """
    from markupsafe import Markup

    from sslbench.reporting.figures.style import check_installed

    check_installed()
    manifest = manifest_of(report, command, comparison.published.key if comparison else None)
    tables = [shown_table(table, f"t{number}") for number, table in enumerate(report.tables)]
    subjects = [best_rows(subject, MOST_SHOWN) for subject in report.subjects]
    facts = {
        "report": report,
        "title": f"{report.name}: {report.tables[0].title.split('. ')[0]}" if len(tables) == 1 else report.name,
        "headline": _headline(report),
        "description": report.grid.description if report.grid else "",
        "tables": tables,
        "lenses": [(shown, lens) for shown in tables for lens in lenses(shown.table, MOST_SHOWN)],
        "rankings": [(shown, standing) for shown in tables for standing in ranking(shown.table, MOST_SHOWN)],
        "most_rows": MOST_SHOWN if subjects != report.subjects else 0,
        "comparison": shown_comparison(comparison) if comparison else None,
        "conditions": conditions(report, manifest),
        "command": manifest["command"],
        "style": Markup(_asset("page.css")),
        "script": Markup(_asset("page.js")),
    }
    leaves = drawn if drawn is not None and subjects == report.subjects else album(subjects, data_dir)
    return _filled(facts, _values(report, tables), leaves, manifest)


def _filled(
    facts: Mapping[str, Any],
    values: dict[str, Any] | None,
    leaves: Sequence[Leaf],
    manifest: dict[str, Any],
) -> str:
    """The page with what there is room for: the values of all cases first, then figures, then the manifest."""
    template = _environment().get_template("page.html")
    bare = {
        "gallery": Gallery(),
        "values": None,
        "manifest": None,
        "left_out": [_NO_VALUES, _NO_MANIFEST],
        "parts": _parts(Gallery(), facts),
    }
    room = MOST_BYTES - _RESERVE - len(template.render({**facts, **bare}).encode())
    left_out = []
    if values is None or _size(values) > room:
        values = None
        left_out.append(_NO_VALUES)
    room -= _size(values)
    drawn = gallery(leaves, min(room, MOST_GRAPHICS))
    room -= drawn.size
    whole = manifest if _size(manifest) <= room else None
    left_out += [] if whole else [_NO_MANIFEST]
    extras = {"gallery": drawn, "values": values, "manifest": whole, "left_out": left_out}
    return template.render({**facts, **extras, "parts": _parts(drawn, facts)})


def _size(value: Any) -> int:
    """Bytes of a value as JSON."""
    return 0 if value is None else len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


_NO_VALUES = (
    "The values behind rows, case by case, are left out: there are more than "
    f"{MOST_VALUES // 1000} 000 of them, or the page would grow beyond 1 MB; --cases -o FILE writes them."
)
_NO_MANIFEST = "The manifest is left out, as the page would grow beyond 1 MB; --json -o FILE writes it beside the file."


def _values(report: Report, tables: Sequence[ShownTable]) -> dict[str, Any] | None:
    keys = {
        (shown.table.name, row.label): shown_row.key
        for shown in tables
        for row, shown_row in zip(shown.table.rows, shown.rows, strict=True)
    }
    return values_of(report.subjects, keys)


def _headline(report: Report) -> list[str]:
    """How much there is, and what it resolves."""
    rows = {source.digest: source for table in report.tables for row in table.rows for source in row.sources}
    done, asked = sum(source.n for source in rows.values()), sum(source.expected for source in rows.values())
    runs = counted(done, "run") if done == asked else f"{done} of {counted(asked, 'run')}"
    told = [runs, counted(len(rows), "configuration")]
    if len(report.tables) > 1:
        return [*told, counted(len(report.tables), "table")]
    return [*told, *filter(None, [resolved(report.tables[0])])]


def _parts(drawn: Gallery, facts: Mapping[str, Any]) -> list[PagePart]:
    """The parts that have anything to show."""
    needed = {"published": "comparison", "size": "lenses", "ranks": "rankings"}
    shown = {key for key, fact in needed.items() if facts[fact]}
    shown |= {"table", "measured", "runs", "manifest", *drawn.parts}
    return [PagePart(key, title) for key, title in _HEADINGS.items() if key in shown]


# ---------------------------------------------------------------------------------------------------------- template


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("sslbench.reporting.page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "ensure_ascii": False}
    return made


def _asset(name: str) -> str:
    return (files("sslbench.reporting.page") / "templates" / name).read_text(encoding="utf-8")
