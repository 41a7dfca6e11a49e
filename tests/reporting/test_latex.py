"""LaTeX: a table checked by hand, every name escaped, and that it compiles."""

from __future__ import annotations

import re
import shutil
import string
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sslbench.reporting.latex import document, escape, latex
from sslbench.reporting.model import Column, RowGroup
from tests.helpers.tables import TABLE

GOLDEN = r"""% Written by sslbench. Needs \usepackage{booktabs} \usepackage{graphicx}
\begin{table*}[t]
\centering
\setlength{\belowcaptionskip}{4pt}
\caption{Hearts \& more, 20\% labelled. Mean $\pm$ population SD over 2 seeds.}
\label{tab:short-20pct}
\footnotesize
\setlength{\tabcolsep}{3pt}
\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%
\begin{tabular}{lcccc}
\toprule
 & Avg. DSC & Avg. ASD & \multicolumn{2}{c}{DSC $\uparrow$ (\%)} \\
\cmidrule(lr){4-5}
Method & $\uparrow$ (\%) & $\downarrow$ (mm) & RV & LV \\
\midrule
\multicolumn{5}{l}{\textit{Reference}} \\
Supervised (100\%) & 90.00$\pm$0.0 & 1.00$\pm$0.5 & 91.0 & 89.0 \\
\midrule
\multicolumn{5}{l}{\textit{A\_B \& co \#1}} \\
CPS & \underline{66.39$\pm$0.9} & \textbf{5.25$\pm$0.0} & \textbf{50.0} & 0.0 \\
A\&D\_x (k=10\%, \textasciitilde{}\{\textasciicircum{}\}) (1/2 seeds) & \textbf{70.00}$^{\dagger}$ & \textbf{5.25}$^{\dagger}$ & \textbf{50.0} & -- \\
{}[new]* (0/2 seeds) & -- & -- & -- & -- \\
\bottomrule
\end{tabular}}
\par\vspace{3pt}
\parbox{\textwidth}{\scriptsize DSC is 2\textbar{}P$\cap$G\textbar{}/(\textbar{}P\textbar{}+\textbar{}G\textbar{}). $^{\dagger}$ Mean over fewer seeds than asked for. All rows: loss.k\_pseudo=100.}
\end{table*}
% run short/20pct/supervised+default/seed-0-00000000
% run short/20pct/supervised+default/seed-1-00000001
% run short/20pct/cps+default/seed-0-00000000
% run short/20pct/cps+default/seed-1-00000001
% run short/20pct/a_d+default/seed-0-00000000
"""  # noqa: E501


def test_golden() -> None:
    assert latex(TABLE) == GOLDEN


def test_headings_follow_their_columns() -> None:
    distance = Column("asd", "rv", "RV", "ASD", "mm", "down", 1, None)
    columns = (TABLE.columns[2], TABLE.columns[3], distance, TABLE.columns[0])
    text = latex(replace(TABLE, columns=columns, groups=()))
    assert (
        " & \\multicolumn{2}{c}{DSC $\\uparrow$ (\\%)} "
        "& \\multicolumn{1}{c}{ASD $\\downarrow$ (mm)} & Avg. DSC \\\\\n"
        "\\cmidrule(lr){2-3} \\cmidrule(lr){4-4}\n"
        "Method & RV & LV & RV & $\\uparrow$ (\\%) \\\\\n"
    ) in text


@given(st.text())
def test_nothing_reserved_is_left(text: str) -> None:
    escaped = escape(text)
    bare = re.sub(r"\\(?:text[a-z]+\{\}|[{}_&%#$])|\$[^$]*\$", "", escaped)
    assert not set(bare) & set("\\{}_&%#$~^<>|\n\r")


@given(st.text(string.ascii_letters + string.digits + " .,:;()+-=/!?'@"))
def test_plain_text_stays(text: str) -> None:
    assert escape(text) == " ".join(text.split())


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_it_compiles(tmp_path: Path) -> None:
    reserved = " ".join(string.punctuation + "±†↑→×≤≥∞√∈∩∪²³°µαβγδελμστΣé–·−≈≠‡")
    nasty = replace(TABLE.rows[1], label=reserved)
    wide = TABLE.columns[:2] + tuple(replace(TABLE.columns[2], header=f"C{k}") for k in range(15))
    many = tuple(replace(cell, mean=12.34) for cell in TABLE.rows[1].cells[:2] + TABLE.rows[1].cells[2:3] * 15)
    tables = [
        TABLE,
        replace(TABLE, groups=(RowGroup(reserved, (nasty,)),), title=reserved, measured=reserved, notes=(reserved,)),
        replace(TABLE, columns=wide, groups=(RowGroup("Wide", (replace(TABLE.rows[1], cells=many),)),)),
        replace(TABLE, columns=(), groups=(RowGroup("No column", (replace(TABLE.rows[1], cells=()),)),)),
    ]
    (tmp_path / "tables.tex").write_text(document(tables), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull \\hbox" not in done.stdout
    assert "(4 pages" in done.stdout


def spans(line: str) -> int:
    """Columns that a line of a tabular fills."""
    cells = re.split(r"(?<!\\)&", line)
    return sum(int(found[1]) if (found := re.match(r"\s*\\multicolumn\{(\d+)\}", cell)) else 1 for cell in cells)


@pytest.mark.parametrize("by", ["metric", "class"])
@pytest.mark.parametrize("blocks", [("",), ("5%", "10% & more")])
def test_every_line_fills_all_columns(by: str, blocks: tuple[str, ...]) -> None:
    """Also where no TeX is installed to say so."""
    average = replace(TABLE.columns[0], span="Avg." if by == "class" else "", by=by)
    organs = [replace(column, by=by) for column in TABLE.columns[2:]]
    columns = tuple(replace(column, block=block) for block in blocks for column in (average, *organs))
    cells = TABLE.rows[1].cells[0:1] + TABLE.rows[1].cells[2:]
    rows = (replace(TABLE.rows[1], cells=cells * len(blocks)),)
    text = latex(replace(TABLE, columns=columns, groups=(RowGroup("A & B", rows), RowGroup("", rows))))
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    lines = [line.removesuffix(r" \\") for line in body.splitlines() if line.endswith(r"\\")]
    assert len(lines) >= 5
    assert {spans(line) for line in lines} == {len(columns) + 1}
    assert rf"\begin{{tabular}}{{l{'c' * len(columns)}}}" in text
    rules = [(int(first), int(last)) for first, last in re.findall(r"\\cmidrule\(lr\)\{(\d+)-(\d+)\}", body)]
    assert all(2 <= first <= last <= len(columns) + 1 for first, last in rules)
    assert text.count(r"\midrule") == 2
