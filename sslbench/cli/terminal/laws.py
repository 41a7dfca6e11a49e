"""The verdicts of the laws on methods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from rich.console import Console
from rich.text import Text

from sslbench.cli.console import say
from sslbench.cli.terminal.tables import Rows, by_method, indented, table_of

_MARKS = {
    "holds": Text("✓", "green"),
    "broken": Text("✗", "bold red"),
    "exempt": Text("e", "yellow"),
    "irrelevant": Text("–", "dim"),
}

_WORSE = ("irrelevant", "holds", "exempt", "broken")


def verdicts(console: Console, rows: Rows, statements: Mapping[str, str]) -> None:
    """Laws by method: of one method each loss and dimension for itself, of several what is worst; then the reasons.

    Args:
        console: to print on.
        rows: of `Verdict.to_json`.
        statements: of the laws, by name.
    """
    several = len({row["method"] for row in rows}) > 1
    parts = ("method",) if several else ("loss", "dims")
    found: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for row in rows:
        subject = tuple(row[part] for part in parts)
        found.setdefault(row["law"], {}).setdefault(subject, []).append(row["status"])
    subjects = list(dict.fromkeys(subject for line in found.values() for subject in line))
    marks = {
        law: {subject: _MARKS[max(statuses, key=_WORSE.index)] for subject, statuses in line.items()}
        for law, line in found.items()
    }
    if several:
        lines = {law: {method: mark for (method,), mark in line.items()} for law, line in marks.items()}
        by_method(console, "law", lines, [method for (method,) in subjects])
    else:
        table = table_of("law", *("\n".join(subject) for subject in subjects), "says")
        for law, line in marks.items():
            cells = (line.get(subject, Text("")) for subject in subjects)
            table.add_row(Text(law), *cells, Text(statements[law], "dim"))
        indented(console, table)
    console.print()
    if several:
        for law in found:
            say(console, (f" {law}: {statements[law]}", "dim"))
        console.print()
    reasons: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        if row["status"] in ("broken", "exempt"):
            line_of = (row["status"], row["method"], row["law"], row["reason"])
            reasons.setdefault(line_of, []).append(f"{row['loss']} {row['dims']}")
    for (status, method, law, reason), where in reasons.items():
        style = _MARKS[status].style
        text = f" {law}: {method} ({', '.join(where)}): {reason}"
        say(console, (f" {status}", style), text)
    counts = Counter(row["status"] for row in rows)
    say(console, f" {len(rows)} verdicts: " + ", ".join(f"{counts[name]} {name}" for name in _MARKS if counts[name]))
