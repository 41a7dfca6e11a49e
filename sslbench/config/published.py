"""Published results: every number that the tables of five papers print, and the job that each of their rows describes.

The numbers are those of the papers, transcribed digit by digit, misprints with them; nothing here was measured:

- GA: W. Qi, J. Wu, S. C. Chan, ECCV 2024
- DHC: H. Wang, X. Li, MICCAI 2023
- DCA: Divide, Conquer, and Aggregate, CVPR 2026, supplementary material
- SCDL: Y. Su et al., arXiv:2603.05202, 2026
- MetaSSL: W. Zhao et al., IEEE TMI 2025

Files, in `sslbench/published/`: `papers.csv`, `tables.csv` (one line a table), `rows.csv` (one a printed row and label
budget), `cells.csv` (one a number) and `methods.csv` (where methods, losses and plugins come from).

What joins a published row with a measured one is the digest of the job that it describes. Digests are computed, never
stored: a recipe that changes takes its rows along, and grids that do not follow fail a test.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from sslbench.config.job import Job
from sslbench.config.kept_jobs import kept_jobs
from sslbench.core.errors import UnknownNameError

Spread = Literal["seeds", "cases", "unsaid", "none"]

_FOLDER = Path(__file__).parent.parent / "published"


@dataclass(frozen=True)
class PublishedCell:
    """One number as printed.

    Attributes:
        mean, std: as numbers, in the paper's unit; `std` is NaN where none is printed.
        printed, printed_std: as digits; `printed_std` is empty where none is printed.
        unit: `percent`, `mm`, `voxel`, or `unstated`.
        note: what a reader must know about it; may be empty.
        doubtful: a misprint, by what the rest of its row or paper says.
        impossible: a mean Jaccard below what the mean Dice beside it allows.
        filled: lost in transcription, and taken from a copy of its row in another table.
    """

    mean: float
    std: float
    printed: str
    printed_std: str
    unit: str
    note: str
    doubtful: bool
    impossible: bool
    filled: bool

    @property
    def suspect(self) -> bool:
        """Whether it is no number to compare with: shown with a `?`, left out of summaries."""
        return self.doubtful or self.impossible


@dataclass(frozen=True, eq=False)
class PublishedRow:
    """One printed row at one label budget: two blocks side by side are two rows.

    Attributes:
        paper, table: `ga`, `T1`.
        order: place in its table, from 1; blocks vary fastest.
        heading: the group that it stands under, as printed; may be empty.
        label: its name as printed.
        dataset, labeled: as this project names them; `labeled` is `100%` with full supervision.
        setting: the block that it stands in, in the paper's words: `20% labeled`, `1 annotated volume`.
        recipe, method, loss, plugin, set: the job that it describes, as a grid would spell it; `plugin` may be empty.
        network_published, network_here: which the paper states, and which the job trains.
        spread: what ± is: over `seeds` or test `cases`, `unsaid`, or `none` printed.
        repeats: runs behind the number; None: not said.
        origin: the table that the row repeats (`dhc:T2`), whose protocol it belongs to; empty: its own.
        flags: `doubt:<metric>/<class>`, `impossible:...`, `filled:...`, `cell-lost`, `label-read`, `starred:<metric>`,
            `base-inferred`, `text-differs`, `reconstructed`.
        reason: why no job stands behind it; empty where one does.
        cells: by metric and class, `("dsc", "avg")`, in order of print.
    """

    paper: str
    table: str
    order: int
    heading: str
    label: str
    dataset: str
    labeled: str
    setting: str
    recipe: str
    method: str
    loss: str
    plugin: str
    set: dict[str, Any]
    network_published: str
    network_here: str
    spread: Spread
    repeats: int | None
    origin: str
    flags: tuple[str, ...]
    reason: str
    cells: Mapping[tuple[str, str], PublishedCell]

    def job(self) -> Job | None:
        """The job that the row describes, of the default seed, resolved once; None where there is a `reason`."""
        return self._job

    @cached_property
    def _job(self) -> Job | None:
        if self.reason:
            return None
        return Job(
            recipe=self.recipe,
            method=self.method,
            loss=self.loss,
            plugin=self.plugin or None,
            labeled=self.labeled,
            set=self.set,
        )


@dataclass(frozen=True, eq=False)
class PublishedPaper:
    """One of the papers.

    Attributes:
        name: as tables cite it: `GA (ECCV 2024)`.
        authors, doi, code: empty where they are not known.
    """

    paper: str
    name: str
    year: str
    authors: str
    title: str
    venue: str
    doi: str
    code: str


@dataclass(frozen=True, eq=False)
class PublishedTable:
    """One table of a paper.

    Attributes:
        key: `ga:T1`, `dca:S-T3`; `S-` marks supplementary tables.
        paper, number: its two halves.
        content: what the table compares, in words.
        setting: dataset and label budget, in words.
        title: paper, number as printed, content and setting.
        columns: metrics and classes, `("dsc", "avg")`, in order of print; a row may lack some.
        rows: in order of print.
        grid: name of the grid that runs it, `ga-t1`.
    """

    key: str
    paper: str
    number: str
    content: str
    setting: str
    title: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[PublishedRow, ...]
    grid: str

    @cached_property
    def jobs(self) -> dict[int, Job]:
        """The jobs that the rows describe, resolved, by `order`; a row with a `reason` has none."""
        described = {row.order: job for row in self.rows if (job := row.job())}
        jobs = kept_jobs("published", [self.key], lambda: list(described.values()))
        return dict(zip(described, jobs, strict=True))


@dataclass(frozen=True)
class PublishedSource:
    """Where a method, loss or plugin of the tables comes from.

    Attributes:
        slug: its name here, or that of a variant of it.
        kind: `reference`, `ssl_method`, `ssl_method_imbalance`, `loss`, `loss_variant`, `plugin`, ...
        title: of the paper; `see dhc` where another source has it.
        note: may be empty.
    """

    slug: str
    kind: str
    full_name: str
    authors: str
    title: str
    venue: str
    year: str
    note: str


@lru_cache(maxsize=1)
def published_papers() -> dict[str, PublishedPaper]:
    """The papers by their short names, in order."""
    return {line["paper"]: PublishedPaper(**line) for line in _lines("papers")}


@lru_cache(maxsize=1)
def published_sources() -> dict[str, PublishedSource]:
    """Where methods, losses and plugins come from, by slug."""
    return {line["slug"]: PublishedSource(**line) for line in _lines("methods")}


@lru_cache(maxsize=1)
def published_tables() -> dict[str, PublishedTable]:
    """All tables by key, in order of papers."""
    return {key: _table(key) for key in _printed_tables()}


def published_table(key: str) -> PublishedTable:
    """One table by key, or by the name of its grid: `ga:T1`, `ga:t1` and `ga-t1` are one.

    Raises:
        UnknownNameError: no such table.
    """
    tables = _printed_tables()
    spelt = {_grid_of(known): known for known in tables}
    found = spelt.get(_grid_of(key.strip()))
    if found is None:
        raise UnknownNameError("published table", key, tables if ":" in key else [*tables, *spelt])
    return _table(found)


def _grid_of(key: str) -> str:
    return key.lower().replace(":", "-", 1)


def _lines(name: str, beginning: str = "") -> list[dict[str, str]]:
    """Read a file; of those that are long only the lines that begin so: each is a line of text."""
    with (_FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        header, *lines = file
    return list(csv.DictReader([header, *(line for line in lines if line.startswith(beginning))]))


@lru_cache(maxsize=1)
def _printed_tables() -> dict[str, dict[str, str]]:
    return {f"{line['paper']}:{line['table']}": line for line in _lines("tables")}


@lru_cache(maxsize=64)
def _table(key: str) -> PublishedTable:
    line = _printed_tables()[key]
    paper, number = line["paper"], line["table"]
    name = published_papers()[paper].name
    cells: dict[str, list[dict[str, str]]] = {}
    for cell in _lines("cells", f"{paper},{number},"):
        cells.setdefault(cell["order"], []).append(cell)
    found = [_row(row, cells[row["order"]]) for row in _lines("rows", f"{paper},{number},")]
    columns = _columns(line["columns"], max((list(row.cells) for row in found), key=len))
    ordered = (replace(row, cells={key: row.cells[key] for key in columns if key in row.cells}) for row in found)
    return PublishedTable(
        key=key,
        paper=paper,
        number=number,
        content=line["content"],
        setting=line["setting"],
        title=f"{name}, {line['printed']}: {line['content']}. {line['setting']}",
        columns=columns,
        rows=tuple(ordered),
        grid=_grid_of(key),
    )


def _columns(spelt: str, keys: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Put columns in order of print: `dsc asd dsc/class`, or all metrics of each class (`by class: dsc asd`)."""
    metrics = spelt.removeprefix("by class: ").split()
    classes = list(dict.fromkeys(name for _, name in keys))
    if metrics != spelt.split():
        return tuple((metric, name) for name in classes for metric in metrics)
    wanted = [(metric, bool(per_class)) for metric, _, per_class in (text.partition("/") for text in metrics)]
    return tuple(key for about in wanted for key in keys if (key[0], key[1] != "avg") == about)


def _row(line: dict[str, str], cells: list[dict[str, str]]) -> PublishedRow:
    flags = tuple(filter(None, line["flags"].split(";")))
    typed: dict[str, Any] = {
        "order": int(line["order"]),
        "set": json.loads(line["set"] or "{}"),
        "repeats": int(line["repeats"]) if line["repeats"] else None,
        "flags": flags,
    }
    return PublishedRow(**(line | typed), cells={(cell["metric"], cell["class"]): _cell(cell, flags) for cell in cells})


def _cell(line: Mapping[str, str], flags: tuple[str, ...]) -> PublishedCell:
    where = f"{line['metric']}/{line['class']}"
    return PublishedCell(
        mean=float(line["mean"]),
        std=float(line["std"] or math.nan),
        printed=line["mean"],
        printed_std=line["std"],
        unit=line["unit"],
        note=line["note"],
        doubtful=f"doubt:{where}" in flags,
        impossible=f"impossible:{where}" in flags,
        filled=f"filled:{where}" in flags,
    )
