"""Two results held against each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from sslbench.cli.console import say
from sslbench.cli.terminal.tables import print_blocks
from sslbench.config.text import counted
from sslbench.metrics.aggregate import AVERAGE
from sslbench.reporting.labels import class_title, metric_style

if TYPE_CHECKING:
    from sslbench.reporting.diff import MovedCell, ResultsChange, RowChange

_SHOWN = 40


def changes(console: Console, change: ResultsChange, told: Sequence[str]) -> None:
    """Draw the averages that moved, and the classes that did beyond noise; then what is said of all."""
    found = [(row, cell) for row in change.rows for cell in row.moved]
    shown = [(row, cell) for row, cell in found if cell.class_name == AVERAGE or cell.beyond_noise]
    if shown:
        headers = ("row", "cell", "first", "second", "change", "95 % interval")
        print_blocks(console, headers, [_line(*each) for each in shown[:_SHOWN]], ("cell",))
        console.print()
    for line in told:
        say(console, line)
    if hidden := len(found) - len(shown[:_SHOWN]):
        say(console, f"not shown: {counted(hidden, 'cell')} that moved; --json has all")


def _line(row: RowChange, cell: MovedCell) -> list[Text]:
    style = metric_style(cell.metric)
    name = f"{style.title} {'avg' if cell.class_name == AVERAGE else class_title(cell.class_name)}"
    worse = cell.better and (cell.change < 0) == (cell.better == "up")
    colour = "" if not cell.beyond_noise or not cell.better else "red" if worse else "green"
    interval = "--"
    if cell.interval is not None:
        mark = "*" if cell.beyond_noise else ""
        interval = f"[{cell.interval.low:+.2f}, {cell.interval.high:+.2f}]{mark}"
    numbers = (f"{cell.before:.2f}", f"{cell.after:.2f}")
    return [Text(row.name), Text(name), *map(Text, numbers), Text(f"{cell.change:+.2f}", colour), Text(interval)]
