"""What a report's numbers are of: the code, the grid, the runs with hashes of their files, and every number twice, as
printed and unrounded. Written beside each table, into the page and into a bundle; `sslbench verify` holds it against
the records."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import sslbench
from sslbench.config.grid import Grid
from sslbench.config.text import parse_value, validated, yaml_text
from sslbench.core import registry
from sslbench.core.version import code_state
from sslbench.reporting.model import Cell, Column, Table, cell_text
from sslbench.reporting.report import Report
from sslbench.runs.archive import MANIFEST_FORMAT
from sslbench.runs.sealed import anonymous


def manifest_of(report: Report, command: str, against: str | None = None) -> dict[str, Any]:
    """The manifest of a report (JSON-able); nothing in it names a machine, a user, or the time.

    Args:
        report: with results.
        command: that made what the manifest is written with, as typed.
        against: the published table that stands beside it.

    Returns:
        `manifest` (the format), `sslbench` (version), `code` (commit), `command`, `against`, `grid` (its `name` and
        `yaml`), `choice` (the options that chose jobs of it), `table` (what the grid says of its table, complete),
        `protocol` and `checkpoint` as asked for, `protocols` (version by name), `runs` and `facts` (`sealed_runs`),
        and `cells`, one per number of the tables.
    """
    grid = report.grid
    sources = [source for table in report.tables for row in table.rows for source in row.sources]
    protocols = dict.fromkeys(source.protocol for source in sources)
    return {
        "manifest": MANIFEST_FORMAT,
        "sslbench": sslbench.__version__,
        "code": code_state(),
        "command": anonymous(command),
        "against": against,
        "grid": {"name": grid.name, "yaml": anonymous(_written(grid))} if grid else None,
        "choice": dict(report.choice),
        "table": grid.table.model_dump(mode="json") if grid else None,
        "protocol": report.protocol,
        "checkpoint": report.checkpoint,
        "protocols": {name: registry.component("protocol", name).version for name in protocols},
        **report.sealed,
        "cells": [cell for table in report.tables for cell in cells_of(table)],
    }


def cells_of(table: Table) -> Iterator[Mapping[str, Any]]:
    """The numbers of a table: where each stands, `printed`, and unrounded; those that there are not are null."""
    for row in table.rows:
        for cell, column in zip(row.cells, table.columns, strict=True):
            if not math.isnan(cell.mean):
                yield {"table": table.label, "row": row.label, **_place(column), **_numbers(cell, column)}


def _place(column: Column) -> dict[str, str]:
    return {"block": column.block, "metric": column.metric, "class": column.class_name}


def _numbers(cell: Cell, column: Column) -> dict[str, Any]:
    unrounded = {"mean": cell.mean, "std": cell.std, "low": cell.low, "high": cell.high}
    return {
        "printed": "".join(cell_text(cell, column)),
        **{name: None if math.isnan(number) else number for name, number in unrounded.items()},
        "n": cell.n,
    }


def grid_in(manifest: Mapping[str, Any]) -> Grid | None:
    """The grid of a manifest; None: it is of no grid.

    Raises:
        UsageError: it is no valid grid for this code.
    """
    held = manifest.get("grid")
    if not held:
        return None
    content = {"name": held["name"], **parse_value(held["yaml"])}
    return validated(Grid, content, f"the grid {held['name']} of the manifest")


def _written(grid: Grid) -> str:
    """The grid as a file has it, its name apart: what it leaves out stays out, since that has a meaning."""
    content = grid.model_dump(mode="json", by_alias=True, exclude_unset=True)
    content.pop("name")
    return yaml_text(content)
