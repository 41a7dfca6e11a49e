"""Speeds and sizes of training steps."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.text import Text

from sslbench.cli.console import say
from sslbench.cli.terminal.costs import operations
from sslbench.cli.terminal.tables import Rows, indented, number_table
from sslbench.config.text import gib


def speeds(console: Console, facts: Mapping[str, Any]) -> None:
    """Draw how fast steps are on a device."""
    threads = facts["threads"]
    place = "" if threads is None else f", {threads} thread{'' if threads == 1 else 's'}"
    say(console, (f"{facts['device']}{place}", "bold"), f", torch {facts['torch']}")
    table = number_table("cell", "patches", "step", "rate", "convolutions", "share", "counted", "peak")
    for row in facts["cells"]:
        table.add_row(
            f"{row['cell']} {row['precision']}",
            " + ".join(map(str, row["patches"])),
            _seconds(row["seconds"]),
            f"{operations(row['flop_per_second'])}/s",
            f"{operations(row['convolutions'])}/s",
            f"{100 * row['share']:.0f} %",
            gib(row["counted"]),
            "" if row["peak"] is None else gib(row["peak"]),
        )
    indented(console, table)
    console.print()
    say(console, f"Estimates go by {operations(facts['flop_per_second'])}/s. Share: of the convolutions' own rate;")
    say(console, "memory in GiB: tensors of a step counted beforehand, and the peak of this process or card.")


def memories(console: Console, rows: Rows) -> None:
    """Draw how large steps are."""
    for (recipe, loss), members in groupby(rows, key=lambda row: (row["recipe"], row["loss"])):
        cells = list(members)
        data = next((row["data"] for row in cells if row["data"] is not None), None)
        held = "its training set is not prepared here" if data is None else f"its training set: {gib(data)} GiB"
        say(console, (f"{recipe}, loss {loss}", "bold"), f"; {held}")
        table = number_table("method", "fp32", "bf16", "state", "launches", "TFLOP", "GB moved")
        for row in cells:
            half = row["bf16"]
            table.add_row(
                row["method"],
                gib(row["fp32"]["peak"]),
                gib(half["peak"]),
                gib(half["state"]),
                str(half["launches"]),
                f"{half['flop'] / 1e12:.2f}",
                f"{half['moved'] / 1e9:.1f}",
            )
        indented(console, table)
        console.print()
    if rows:
        note = "GiB of tensors alive at once in a step, the state (weights, gradients, moments) among them; the last\n"
        note += "three columns are of bf16. Add about 1 GiB for CUDA and 10 to 30 % lost between blocks."
        console.print(Text(note, style="dim"))


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"
