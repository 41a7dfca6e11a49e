"""Markdown, CSV and terminal: a table checked by hand, and that no digit is lost at any width."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from sslbench.reporting.model import Column, RowGroup, Table
from sslbench.reporting.render import CSV_COLUMNS, markdown, terminal, tidy_csv
from tests.helpers.tables import COLUMNS, TABLE, row

GOLDEN_MARKDOWN = r"""**Hearts &amp; more, 20% labelled. Mean ± population SD over 2 seeds.**

| Method | Avg. DSC ↑ (%) | Avg. ASD ↓ (mm) | RV | LV |
| :-- | --: | --: | --: | --: |
| *Reference* |  |  |  |  |
| Supervised (100%) | 90.00±0.0 | 1.00±0.5 | 91.0 | 89.0 |
| *A\_B &amp; co \#1* |  |  |  |  |
| CPS | <ins>66.39±0.9</ins> | **5.25±0.0** | **50.0** | 0.0 |
| A&amp;D\_x (k=10%, \~\{^\}) (1/2 seeds) | **70.00**† | **5.25**† | **50.0** | -- |
| \[new\]\* (0/2 seeds) | -- | -- | -- | -- |

- DSC is 2\|P∩G\|/(\|P\|+\|G\|).
- Columns by class: DSC ↑ (%).
- † Mean over fewer seeds than asked for.
- All rows: loss.k\_pseudo=100.

<details><summary>5 runs</summary>

- `short/20pct/supervised+default/seed-0-00000000`
- `short/20pct/supervised+default/seed-1-00000001`
- `short/20pct/cps+default/seed-0-00000000`
- `short/20pct/cps+default/seed-1-00000001`
- `short/20pct/a_d+default/seed-0-00000000`

</details>
"""

GOLDEN_TERMINAL = """\
Hearts & more, 20% labelled. Mean ± population SD
over 2 seeds.

                       Avg. DSC Avg. ASD   RV   LV
                          ↑ (%)   ↓ (mm)  DSC  DSC
──────────────────────────────────────────────────
Reference
Supervised (100%)     90.00±0.0 1.00±0.5 91.0 89.0

A_B & co #1
CPS                   66.39±0.9 5.25±0.0 50.0  0.0
A&D_x (k=10%, ~{^})      70.00†    5.25† 50.0   --
(1/2 seeds)
[new]* (0/2 seeds)           --       --   --   --

DSC is 2|P∩G|/(|P|+|G|).
† Mean over fewer seeds than asked for.
All rows: loss.k_pseudo=100.
"""


def shown(table: Table, width: int, styles: bool = False) -> str:
    console = Console(
        width=width, file=io.StringIO(), force_terminal=styles, color_system="standard" if styles else None
    )
    with console.capture() as capture:
        console.print(terminal(table, width))
    text = capture.get()
    return text if styles else "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def test_golden_markdown() -> None:
    assert markdown(TABLE) == GOLDEN_MARKDOWN


def test_markdown_tells_several_headings_apart() -> None:
    distance = Column("asd", "rv", "RV", "ASD", "mm", "down", 1, None)
    columns = (*COLUMNS[2:], distance)
    text = markdown(replace(TABLE, columns=columns, groups=()))
    assert "| Method | RV (DSC) | LV (DSC) | RV (ASD) |" in text
    assert "- Columns by class: DSC ↑ (%).\n- Columns by class: ASD ↓ (mm)." in text


def test_golden_terminal() -> None:
    assert shown(TABLE, 50) == GOLDEN_TERMINAL


def test_best_is_bold_and_second_underlined() -> None:
    text = shown(TABLE, 100, styles=True)
    assert "\x1b[4m66.39±0.9\x1b[0m" in text
    assert "\x1b[1m70.00\x1b[0m†" in text
    assert "\x1b[1m90.00" not in text


@pytest.mark.parametrize("width", [40, 60, 80, 100, 130, 200])
def test_no_digit_is_lost(width: int) -> None:
    organs = tuple(replace(COLUMNS[2], class_name=f"c{k}", header=f"C{k}") for k in range(13))
    cells = [replace(TABLE.rows[1].cells[2], mean=10.0 + k + k / 10) for k in range(13)]
    member = row("GA-MagicNet with a long name", 2, [*TABLE.rows[1].cells[:2], *cells])
    text = shown(replace(TABLE, columns=COLUMNS[:2] + organs, groups=(RowGroup("Wide", (member,)),)), width)
    assert all(len(line) <= width for line in text.splitlines())
    for k in range(13):
        assert f"{10.0 + k + k / 10:.1f}" in text
    assert "66.39±0.9" in text
    assert "…" not in text


def test_csv_holds_every_number_unrounded() -> None:
    rows = list(csv.DictReader(io.StringIO(tidy_csv([TABLE]))))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert len(rows) == 4 * 4
    cps = next(item for item in rows if item["method"] == "cps" and item["class"] == "avg")
    assert float(cps["mean"]) == 66.394999
    assert {key: cps[key] for key in ("recipe", "labeled", "loss", "metric", "n", "expected", "unit", "protocol")} == {
        "recipe": "short",
        "labeled": "20pct",
        "loss": "default",
        "metric": "dsc",
        "n": "2",
        "expected": "2",
        "unit": "percent",
        "protocol": "papers",
    }
    gone = next(item for item in rows if item["method"] == "new")
    assert (gone["mean"], gone["std"], gone["n"]) == ("", "", "0")
    assert tidy_csv([TABLE, replace(TABLE, name="other")]) == tidy_csv([TABLE])  # one result, one line
    assert math.isclose(float(cps["std"]), 0.949)
