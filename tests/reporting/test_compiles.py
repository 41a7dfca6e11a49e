"""Tables in the classes of papers: pdflatex takes them without an error, bibtex finds all that they cite.

TeX is no part of the development environment: without it, or without a class, these tests are skipped.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sslbench.config.grid import load_grid
from sslbench.config.published import published_table
from sslbench.reporting import against, tables
from sslbench.reporting.beside_latex import latex_beside
from sslbench.reporting.citations import Citations, bibliography
from sslbench.reporting.latex import latex
from tests.helpers.command_line import call
from tests.helpers.paper_runs import write_runs_of

CLASSES = {
    "llncs": (r"\documentclass{llncs}", "splncs04"),
    "article": (r"\documentclass[twocolumn]{article}", "plain"),
    "elsarticle": (r"\documentclass[preprint]{elsarticle}", "elsarticle-num"),
}
PREAMBLE = r"\usepackage[T1]{fontenc}\usepackage{booktabs,graphicx,xcolor,hyperref}"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], str]:
    """Tables as LaTeX, and their bibliography."""
    results, citations = tmp_path_factory.mktemp("results"), Citations()
    grid = load_grid("ga-t6")
    jobs = grid.expand()
    write_runs_of(jobs, results, lambda job, metric, name: 60.0 + job.seed % 7)
    report = tables.grid_report(grid, jobs, results)
    compared = against.compare(report.tables, published_table("ga:T6"), against.backgrounds(report.tables, results))
    texts = [latex(table, citations.row) for table in report.tables]
    texts += [latex_beside(compared, "column", citations), latex_beside(compared, "line", citations)]
    texts += [call("published", "show", name, "--latex")[1] for name in ("ga:T1", "metassl:T1", "dca:S-T1")]
    return texts, bibliography(citations.keys)


@pytest.mark.skipif(not shutil.which("pdflatex") or not shutil.which("bibtex"), reason="needs pdflatex and bibtex")
@pytest.mark.parametrize("name", CLASSES)
def test_tables_compile_in_the_classes_of_papers(name: str, written: tuple[list[str], str], tmp_path: Path) -> None:
    head, style = CLASSES[name]
    for file in (f"{name}.cls", f"{style}.bst"):
        if not subprocess.run(["kpsewhich", file], capture_output=True, check=False).stdout:
            pytest.skip(f"needs {file}")
    texts, entries = written
    (tmp_path / "references.bib").write_text(entries, encoding="utf-8")
    end = rf"\bibliographystyle{{{style}}}\bibliography{{references}}\end{{document}}"
    body = [text + r"\clearpage" for text in texts]
    (tmp_path / "paper.tex").write_text("\n".join([head, PREAMBLE, r"\begin{document}", *body, end]), encoding="utf-8")

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
        assert done.returncode == 0, "\n".join(re.findall(r"^!.*|.*error.*", done.stdout, re.MULTILINE))
        return done.stdout

    typeset = ("pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex")
    run(*typeset)
    found = run("bibtex", "paper")
    run(*typeset)
    log = run(*typeset)
    assert "I didn't find a database entry" not in found
    assert "undefined" not in log
    assert not re.findall(r"Overfull \\hbox \(([\d.]+)pt", log), "a table is wider than the text"
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000
