"""Tables in LaTeX, as the papers print them: `booktabs`, one row per method, groups under headings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from sslbench.reporting.model import LETTERS, NO_VALUE, RAISED, Cell, Column, Row, Table, cell_text, manifest

PACKAGES = (r"\usepackage{booktabs}", r"\usepackage{graphicx}")

_ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "&": r"\&", "%": r"\%", "#": r"\#",
    "$": r"\$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
}  # fmt: skip
# pdflatex reads accented letters by itself, but not these.
_MATH = {
    "±": r"\pm", "↑": r"\uparrow", "↓": r"\downarrow", "→": r"\rightarrow", "×": r"\times", "·": r"\cdot",
    "−": "-", "≤": r"\leq", "≥": r"\geq", "≈": r"\approx", "≠": r"\neq", "∞": r"\infty", "√": r"\surd",
    "∈": r"\in", "∩": r"\cap", "∪": r"\cup", "Σ": r"\Sigma", "†": r"^{\dagger}", "‡": r"^{\ddagger}",
    "⁰": "^{0}", "¹": "^{1}", "²": "^{2}", "³": "^{3}", "⁴": "^{4}", "⁵": "^{5}", "⁶": "^{6}", "⁷": "^{7}",
    "⁸": "^{8}", "⁹": "^{9}", "°": r"^{\circ}", "µ": r"\mu", "α": r"\alpha", "β": r"\beta", "γ": r"\gamma",
    "δ": r"\delta", "ε": r"\varepsilon", "λ": r"\lambda", "μ": r"\mu", "σ": r"\sigma", "τ": r"\tau",
    "•": r"\bullet", "Δ": r"\Delta",
}  # fmt: skip
_MATH |= {raised: rf"^{{\mathrm{{{letter}}}}}" for letter, raised in zip(LETTERS, RAISED, strict=True)}
_TRANSLATION = str.maketrans({**_ESCAPES, **{sign: f"${command}$" for sign, command in _MATH.items()}})


_RANKS = {1: "textbf", 2: "underline", 3: "textit"}


def latex(table: Table, cited: Callable[[Row], str] = lambda row: "") -> str:
    """A `table*` environment to paste into a paper; comments name the packages it needs, and its runs.

    Args:
        cited: what follows a row's name, as LaTeX.
    """
    columns = table.columns

    def cells(row: Row) -> list[str]:
        return [_cell(cell, column) for cell, column in zip(row.cells, columns, strict=True)]

    groups = [
        (group.title, [[escape(row.full_label) + cited(row), *cells(row)] for row in group.rows])
        for group in table.groups
    ]
    notes = [note for note in (table.measured, *table.notes) if note]
    lines = [
        f"% Written by sslbench. Needs {' '.join(PACKAGES)}",
        *environment(escape(table.heading), slug(table.label), len(columns), _header(columns), groups, notes),
        *(f"% run {item['run']}" for item in manifest([table])),
    ]
    return "\n".join(lines) + "\n"


def environment(
    caption: str,
    label: str,
    count: int,
    header: Iterable[str],
    groups: Iterable[tuple[str, Iterable[Sequence[str]]]],
    notes: Sequence[str],
) -> list[str]:
    """The lines of a `table*` environment.

    Args:
        caption: in LaTeX.
        label: behind `tab:`.
        count: of columns, the rows' names apart.
        header: lines.
        groups: headings, which may be empty, as text, and rows of cells in LaTeX.
        notes: under the table, as text.
    """
    lines = [
        r"\begin{table*}[t]",
        r"\centering",
        r"\setlength{\belowcaptionskip}{4pt}",  # most styles expect captions below
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{label}}}",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{3pt}",
        # Shrinks a table that is too wide, and leaves others at their size.
        r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{l{'c' * count}}}",
        r"\toprule",
        *header,
    ]
    for heading, rows in groups:
        lines.append(r"\midrule")
        if heading:
            lines.append(line([rf"\multicolumn{{{count + 1}}}{{l}}{{\textit{{{escape(heading)}}}}}"]))
        lines += map(line, rows)
    lines += [r"\bottomrule", r"\end{tabular}}"]
    if notes:
        told = " ".join(map(escape, notes))
        lines += [r"\par\vspace{3pt}", rf"\parbox{{\textwidth}}{{\scriptsize {told}}}"]
    return [*lines, r"\end{table*}"]


def document(tables: Iterable[Table]) -> str:
    """A document of its own that holds the tables, a page each."""
    preamble = [
        r"\documentclass[10pt]{article}",
        r"\usepackage[a4paper,margin=2cm]{geometry}",
        *PACKAGES,
        r"\pagestyle{empty}",
        r"\begin{document}",
    ]
    pages = [latex(table) + r"\clearpage" for table in tables]
    return "\n".join([*preamble, *pages, r"\end{document}"]) + "\n"


def escape(text: str) -> str:
    """Any text as LaTeX that prints it: reserved characters escaped, mathematical signs in math mode."""
    return " ".join(text.translate(_TRANSLATION).split())


def _header(columns: tuple[Column, ...]) -> list[str]:
    """Blocks over all; names over senses (direction, unit); a heading over the names of what stands under it."""
    above, above_rules = _spanning([(column.block, column.block) for column in columns])
    upper, rules = _spanning(_upper(columns))
    bare = [not column.span or column.by == "class" for column in columns]
    lower = [column.sense if alone else column.header for column, alone in zip(columns, bare, strict=True)]
    lines = [line(["", *above]), above_rules] if any(column.block for column in columns) else []
    if all(column.by == "class" for column in columns) and columns:
        lines += [line(["", *upper]), rules, line(["", *(escape(column.header) for column in columns)])]
        rules, upper = "", []
    if upper:
        lines += [line(["", *upper]), rules]
    return [*filter(None, lines), line(["Method", *map(escape, lower)])]


def _upper(columns: tuple[Column, ...]) -> list[tuple[str, str]]:
    """Per column what stands in the line of headings, and what it shares with its neighbours: empty, nothing."""
    found = []
    for (block, span), members in groupby(columns, key=lambda column: (column.block, column.span)):
        own = list(members)
        # Over few columns a long heading would stretch the last of them.
        named = f"{span} of each class" if own[0].by == "metric" and len(own) > 3 else span
        sense = own[0].sense if own[0].by == "metric" else ""
        for column in own:
            found.append((f"{named} {sense}".strip(), f"{block} {span}") if span else (column.header, ""))
    return found


def _spanning(headings: list[tuple[str, str]]) -> tuple[list[str], str]:
    """Cells of a line, neighbours that share something joined, and the rules below those."""
    cells, rules, place = [], [], 2
    for shared, members in groupby(headings, key=lambda heading: heading[1]):
        texts = [text for text, _ in members]
        if shared:
            cells.append(rf"\multicolumn{{{len(texts)}}}{{c}}{{{escape(texts[0])}}}")
            rules.append(rf"\cmidrule(lr){{{place}-{place + len(texts) - 1}}}")
        else:
            cells += map(escape, texts)
        place += len(texts)
    return cells, " ".join(rules)


def _cell(cell: Cell, column: Column) -> str:
    mean, around = cell_text(cell, column)
    text = mean if mean == NO_VALUE else escape(mean + around).replace("-", "$-$").replace("+", "$+$")
    if cell.rank:
        text = f"\\{_RANKS[cell.rank]}{{{text}}}"
    return text + escape(cell.signs)


def line(cells: Sequence[str]) -> str:
    """One line of a `tabular`."""
    # A bracket or star at the start would be taken for an argument of the line end before it.
    guard = "{}" if cells[0].startswith(("[", "*")) else ""
    return guard + " & ".join(cells) + r" \\"


def slug(name: str) -> str:
    """A name fit for a label."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
