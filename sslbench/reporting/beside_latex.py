"""Comparisons in LaTeX: published numbers in columns of their own, or as a small second line in each cell."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from sslbench.config.published import published_papers
from sslbench.config.table import AgainstIn
from sslbench.metrics.aggregate import AVERAGE
from sslbench.reporting.beside import Beside, ShownText, Style, beside
from sslbench.reporting.citations import Citations
from sslbench.reporting.comparison import ComparedRow, Comparison
from sslbench.reporting.latex import PACKAGES, environment, escape, line, slug
from sslbench.reporting.model import manifest

_PACKAGES = (*PACKAGES, r"\usepackage{xcolor}")
_CLASSES = 5  # in columns of three: more would not be legible on a page
_FORMS: dict[Style, str] = {
    "best": r"\textbf{%s}", "second": r"\underline{%s}", "third": r"\textit{%s}",
    "grey": r"\textcolor{gray}{%s}",
}  # fmt: skip


def latex_beside(comparison: Comparison, layout: AgainstIn = "column", citations: Citations | None = None) -> str:
    """A comparison as `table*` environments to paste into a paper: the first with all notes, others with more classes.

    Args:
        layout: published numbers and differences in a `column` each, or as a second `line` under the measured ones.
        citations: of rows and of the paper; None: nothing is cited.
    """
    columns = beside(comparison)
    averages = [column for column in columns if column.column.class_name == AVERAGE]
    classes = [column for column in columns if column not in averages]
    chunks = [classes[start : start + _CLASSES] for start in range(0, len(classes), _CLASSES)]
    parts = [columns] if layout == "line" else [part for part in (averages, *chunks) if part]
    tables = [_environment(comparison, part, number, layout, citations) for number, part in enumerate(parts)]
    runs = [f"% run {item['run']}" for item in manifest(comparison.tables)]
    packages = " ".join(_PACKAGES)
    return "\n\n".join([f"% Written by sslbench. Needs {packages}\n{tables[0]}", *tables[1:], "\n".join(runs)]) + "\n"


def _environment(
    comparison: Comparison, columns: Sequence[Beside], number: int, layout: AgainstIn, citations: Citations | None
) -> str:
    label = slug(comparison.name) + (f"-{number + 1}" if number else "")
    heading = comparison.heading if not number else f"{comparison.heading} {_classes(columns)}."
    name = published_papers()[comparison.published.paper].name
    cited = citations.paper(comparison.published.paper) if citations else ""
    count = len(columns) if layout == "line" else sum(len(column.kinds) for column in columns)
    header = _header_of_lines(columns) if layout == "line" else _header_of_columns(columns)
    places = itertools.count()  # of rows, groups aside

    def cells(row: ComparedRow) -> list[str]:
        place = next(places)
        shown = [column.cells[place] for column in columns]
        own = map(_stacked, shown) if layout == "line" else (_styled(one) for cell in shown for one in cell)
        return [escape(row.full_label) + (citations.compared(row) if citations else ""), *own]

    groups = [(group.title, [cells(row) for row in group.rows]) for group in comparison.groups]
    caption = escape(name) + cited + escape(heading.removeprefix(name))
    return "\n".join(environment(caption, label, count, header, groups, () if number else comparison.remarks))


def _classes(columns: Sequence[Beside]) -> str:
    spans = dict.fromkeys(f"{column.column.span} {column.column.sense}".strip() for column in columns)
    return f"By class: {', '.join(spans)}"


def _header_of_columns(columns: Sequence[Beside]) -> list[str]:
    """Two lines: names over `here`, `paper` and Δ."""
    upper, rules, place = [""], [], 2
    for column in columns:
        wide = len(column.kinds)
        name = column.title if column.column.class_name == AVERAGE else column.name
        upper.append(rf"\multicolumn{{{wide}}}{{c}}{{{escape(name)}}}")
        rules.append(rf"\cmidrule(lr){{{place}-{place + wide - 1}}}")
        place += wide
    lower = [escape(kind) for column in columns for kind in column.kinds]
    return [line(upper), " ".join(rules), line(["Row", *lower])]


def _header_of_lines(columns: Sequence[Beside]) -> list[str]:
    """Two lines: names over senses."""
    upper = [escape(column.name) for column in columns]
    return [line(["", *upper]), line(["Row", *(escape(column.column.sense) for column in columns)])]


def _stacked(cell: Sequence[ShownText]) -> str:
    """Measured over published, the difference in brackets behind it; a copy's origin likewise."""
    here, paper, *rest = cell
    behind = f" ({_styled(rest[0])})" if rest and rest[0].text else ""
    below = _styled(paper) + behind
    small = rf"{{\tiny {below}}}" if below else ""
    return rf"\shortstack{{{_styled(here)}\\{small}}}" if here.text and small else _styled(here) or small


def _styled(shown: ShownText) -> str:
    text = re.sub(r"^-(?=\d)", "$-$", escape(shown.text))
    return _FORMS.get(shown.style, "%s") % text if text else ""
