"""A small table written by hand: a tie, a missing row, a partial one, and names that every format must escape."""

from __future__ import annotations

import math

from sslbench.reporting.model import Cell, Column, Row, RowGroup, Source, Table

NAN = math.nan

COLUMNS = (
    Column("dsc", "avg", "Avg. DSC", "", "percent", "up", 2, 1),
    Column("asd", "avg", "Avg. ASD", "", "mm", "down", 2, 1),
    Column("dsc", "rv", "RV", "DSC", "percent", "up", 1, None),
    Column("dsc", "lv", "LV", "DSC", "percent", "up", 1, None),
)


def row(label: str, n: int, cells: list[Cell], method: str = "m", competes: bool = True) -> Row:
    runs = tuple(f"short/20pct/{method}+default/seed-{seed}-0000000{seed}" for seed in range(n))
    source = Source("short", "hearts", "20pct", "papers", method, "default", "", "", "d" * 64, runs, 2, competes)
    return Row(label, (source,), tuple(cells))


TABLE = Table(
    name="short-20pct",
    columns=COLUMNS,
    groups=(
        RowGroup(
            "Reference",
            (
                row(
                    "Supervised (100%)",
                    2,
                    [Cell(90.0, 0.0, 2, 2), Cell(1.0, 0.5, 2, 2), Cell(91.0, 0.1, 2, 2), Cell(89.0, 0.1, 2, 2)],
                    method="supervised",
                    competes=False,
                ),
            ),
        ),
        RowGroup(
            "A_B & co #1",
            (
                row(
                    "CPS",
                    2,
                    [
                        Cell(66.394999, 0.949, 2, 2, rank=2),
                        Cell(5.25, 0.04, 2, 2, rank=1),
                        Cell(50.04, 1.0, 2, 2, rank=1),
                        Cell(0.0, 0.0, 2, 2),
                    ],
                    method="cps",
                ),
                row(
                    "A&D_x (k=10%, ~{^})",
                    1,
                    [
                        Cell(70.0, NAN, 1, 2, rank=1, marked=True),
                        Cell(5.25, NAN, 1, 2, rank=1, marked=True),
                        Cell(50.04, NAN, 1, 2, rank=1),
                        Cell(NAN, NAN, 0, 2),
                    ],
                    method="a_d",
                ),
                row("[new]*", 0, [Cell(NAN, NAN, 0, 2)] * 4, method="new"),
            ),
        ),
    ),
    title="Hearts & more, 20% labelled. Mean ± population SD over 2 seeds.",
    measured="DSC is 2|P∩G|/(|P|+|G|).",
    notes=("† Mean over fewer seeds than asked for.", "All rows: loss.k_pseudo=100."),
)
