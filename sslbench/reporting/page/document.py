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
from sslbench.reporting.figures.subject import FigureSubject
from sslbench.reporting.manifest import manifest_of
from sslbench.reporting.page.figures import MOST_ROWS, Gallery, best_rows, gallery
from sslbench.reporting.page.runs import conditions
from sslbench.reporting.page.tables import (
    ShownTable,
    StandingLine,
    lens_lines,
    shown_comparison,
    shown_table,
    standing_lines,
)
from sslbench.reporting.page.values import MOST_VALUES, values_of
from sslbench.reporting.page.words import resolved
from sslbench.reporting.report import Report

if TYPE_CHECKING:
    from jinja2 import Environment

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
class Part:
    """A part of the page: `key` is its id."""

    key: str
    title: str


def page(report: Report, data_dir: Path, comparison: Comparison | None = None, command: str = "sslbench report") -> str:
    """A report as the text of one HTML file; the same report gives the same bytes.

    Args:
        report: with results.
        data_dir: where datasets are prepared, for pictures.
        comparison: a published table beside the report's.
        command: that makes the page, as typed.

    Raises:
        UsageError: matplotlib is missing.
    """
    from markupsafe import Markup

    from sslbench.reporting.figures.style import check_installed

    check_installed()
    shown_subjects = [best_rows(subject, MOST_ROWS) for subject in report.subjects]
    drawn = gallery(shown_subjects, data_dir)
    manifest = manifest_of(report, command, comparison.published.key if comparison else None)
    ranks = [(subject, lines) for subject in shown_subjects if (lines := standing_lines(subject))]
    tables = [
        shown_table(table, f"t{number}", _sizes(report, table.name), _ties(ranks, table.name))
        for number, table in enumerate(report.tables)
    ]
    facts = {
        "report": report,
        "title": f"{report.name}: {report.tables[0].title.split('. ')[0]}" if len(tables) == 1 else report.name,
        "headline": _headline(report),
        "description": report.grid.description if report.grid else "",
        "tables": tables,
        "lenses": [(shown, found) for shown in tables if (found := lens_lines(shown.table))],
        "standings": ranks,
        "gallery": drawn,
        "most_rows": MOST_ROWS if shown_subjects != report.subjects else 0,
        "comparison": shown_comparison(comparison) if comparison else None,
        "conditions": conditions(report, manifest),
        "command": manifest["command"],
        "css": Markup(_asset("page.css") + drawn.css),
        "script": Markup(_asset("page.js")),
        "parts": [Part(key, title) for key, title in _HEADINGS.items() if _stands(key, drawn, comparison, tables)],
        "values": None,
        "manifest": None,
        "left_out": [],
    }
    return _fitted(facts, {"values": _values(report, tables), "manifest": manifest})


def _fitted(facts: dict[str, Any], extras: Mapping[str, Any]) -> str:
    """The page with as much of the extras as there is room for."""
    template = _environment().get_template("page.html")
    pictures = sum(len(figure.markup) for figure in facts["gallery"].parts.get("pictures", []))
    room = MOST_BYTES + pictures - len(template.render(facts).encode())
    why = {"values": _NO_VALUES, "manifest": _NO_MANIFEST}
    left_out = []
    for name, extra in extras.items():
        size = len(json.dumps(extra, separators=(",", ":"), ensure_ascii=False).encode())
        if extra is None or size > room:
            left_out.append(why[name])
        else:
            facts[name] = extra
            room -= size
    return template.render({**facts, "left_out": left_out})


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


def _sizes(report: Report, table: str) -> dict[str, Mapping[str, float]]:
    return {subject.block: subject.sizes for subject in report.subjects if subject.table == table}


def _ties(ranks: Sequence[tuple[FigureSubject, Sequence[StandingLine]]], table: str) -> dict[str, list[str]]:
    """By block, the rows of a table that are not told apart from the best."""
    return {
        subject.block: [line.label for line in lines if line.told == "no"]
        for subject, lines in ranks
        if subject.table == table
    }


def _headline(report: Report) -> list[str]:
    """How much there is, and what it resolves."""
    rows = {source.digest: source for table in report.tables for row in table.rows for source in row.sources}
    done, asked = sum(source.n for source in rows.values()), sum(source.expected for source in rows.values())
    runs = counted(done, "run") if done == asked else f"{done} of {counted(asked, 'run')}"
    told = [runs, counted(len(rows), "configuration")]
    if len(report.tables) > 1:
        return [*told, counted(len(report.tables), "table")]
    return [*told, *filter(None, [resolved(report.tables[0])])]


def _stands(key: str, drawn: Gallery, comparison: Comparison | None, tables: Sequence[ShownTable]) -> bool:
    """Whether a part has anything to show."""
    if key == "published":
        return comparison is not None
    if key == "size":
        return key in drawn.parts or any(lens_lines(shown.table) for shown in tables)
    return key in drawn.parts or key in ("table", "measured", "runs", "manifest")


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
