"""Scores of predictions that exist."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.text import Text

from sslbench.cli.console import say, wrapped
from sslbench.cli.terminal.tables import Rows, indented, number_table, print_blocks, table_of

_NAME = 24  # columns that a name keeps on any terminal
_COUNTS = ("missed", "spurious", "absent")  # of pairs of case and class


def scores(console: Console, rows: Rows) -> None:
    """Draw scores of predictions: class by class under one protocol; one line each of several runs under one protocol;
    or the conversion table, a block per run with a line per protocol."""
    alone = len({row["protocol"] for row in rows}) == 1
    if alone:
        if len(rows) == 1 and not rows[0]["why"]:
            _class_scores(console, rows[0])
        else:
            _score_lines(console, _shortened(console, rows), "subject", "cases")
        console.print()
        console.print(Text(rows[0]["caption"], style="dim"))
        return
    told: dict[str, Mapping[str, Any]] = {}
    for subject, group in groupby(rows, key=lambda row: str(row["subject"])):
        scored = list(group)
        most = max(scored, key=lambda row: int(row.get("expected", 0)))
        say(console, (subject if most["why"] else f"{subject}: {_cases(most)}", "bold"))
        lines = _without_twins(scored)
        _score_lines(console, lines, "name", "unit", "grid")
        told |= {row["protocol"]: row for row in lines if not row["why"]}
        console.print()
    for mark, meaning in _FOOTNOTES.items():
        if any(mark in row["name"] for row in told.values()):
            console.print(Text(f" {mark} {meaning}", style="dim"))
    table = table_of("protocol", "empty masks score (overlap, distance)", style="dim")
    for name, row in told.items():
        table.add_row(Text(name), Text(row["empty"]))
    indented(console, table)


_FOOTNOTES = {
    "=": "the slips of its released evaluator change nothing here",
    "†": "converted: the predictions were made on another grid than the paper's",
}


def _without_twins(rows: Rows) -> list[dict[str, Any]]:
    """The rows with a `name` that carries marks, and without released evaluators that score what their twins do."""
    named = {row["protocol"]: row for row in rows}
    same = {
        name: name.removesuffix("-released")
        for name, row in named.items()
        if row["slips"] and _alike(row, named.get(name.removesuffix("-released"), {}))
    }
    found: list[dict[str, Any]] = []
    for name, row in named.items():
        if name in same:
            continue
        plain = name.removesuffix("-released")
        below = found and plain != name and found[-1]["protocol"] == plain  # then its name need not be said again
        marks = ("†" if row["converted"] else "") + ("=" if name in same.values() else "")
        found.append({**row, "name": ("  -released" if below else name) + marks})
    return found


def _alike(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(row.get(key) == other.get(key) for key in ("why", "averages", *_COUNTS))


def _shortened(console: Console, rows: Rows) -> Rows:
    """The rows without what the names of their subjects begin with alike, which is said above them."""
    common = posixpath.commonpath([row["subject"] for row in rows]) if len(rows) > 1 else ""
    if not common:
        return rows
    say(console, (common, "bold"))
    return [{**row, "subject": row["subject"].removeprefix(f"{common}/")} for row in rows]


def _class_scores(console: Console, row: Mapping[str, Any]) -> None:
    from sslbench.reporting.labels import class_title

    say(console, (f"{row['subject']}: {_cases(row)}, protocol {row['protocol']}", "bold"))
    table = number_table("", *(_metric_title(metric, row["unit"]) for metric in row["metrics"]), *_COUNTS)
    for line in row["classes"]:
        marks = [str(line[count]) for count in _COUNTS]
        table.add_row(Text(class_title(line["class"])), *(_number(line[m], m) for m in row["metrics"]), *marks)
    marks = [str(row[count]) for count in _COUNTS]
    table.add_row(Text("average", style="bold"), *(_number(row["averages"][m], m) for m in row["metrics"]), *marks)
    indented(console, table)


def _score_lines(console: Console, rows: Rows, name: str, *facts: str) -> None:
    """A line per row: its name, averages, facts and counts; below, why others have none."""
    scored = [row for row in rows if not row["why"]]
    fullest = sorted(scored, key=lambda row: -len(row["metrics"]))
    metrics = list(dict.fromkeys(metric for row in fullest for metric in row["metrics"]))
    unit = "" if "unit" in facts else next((row["unit"] for row in scored), "")
    titles = [_metric_title(metric, unit) for metric in metrics]
    lines = []
    for row in scored:
        numbers = [_number(row["averages"].get(metric), metric) for metric in metrics]
        told = [_of_cases(row) if fact == "cases" else row[fact] for fact in facts]
        named = wrapped(Text(row[name]), max(console.width // 2, _NAME))
        lines.append([named, *map(Text, [*numbers, *told, *(str(row[count]) for count in _COUNTS)])])
    if scored:
        headers = ["run" if name == "subject" else "protocol", *titles, *facts, *_COUNTS]
        print_blocks(console, headers, lines, {"unit", "grid"})
    for row in rows:
        if row["why"]:
            what = row["subject" if name == "subject" else "protocol"]
            say(console, f" {what} does not apply: ", (row["why"], "yellow"))


def _metric_title(metric: str, unit: str) -> str:
    from sslbench.reporting.labels import metric_style

    style = metric_style(metric)
    return style.title + (" %" if style.percent else f" {unit}" if unit else "")


def _number(value: float | None, metric: str) -> str:
    from sslbench.reporting.labels import metric_style

    return "--" if value is None else f"{value * (100 if metric_style(metric).percent else 1):.2f}"


def _cases(row: Mapping[str, Any]) -> str:
    return f"{_of_cases(row)} case{'' if row['expected'] == 1 else 's'}"


def _of_cases(row: Mapping[str, Any]) -> str:
    """Say how many cases were scored, and of how many where that is fewer."""
    if row["why"]:
        return ""
    return f"{row['cases']}" if row["cases"] == row["expected"] else f"{row['cases']} of {row['expected']}"
