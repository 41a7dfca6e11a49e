"""`sslbench bench`: how fast and how large training steps are on this machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from sslbench.cli import completion
from sslbench.cli.console import failures, note, out, print_json, spinner
from sslbench.cli.options import DataDir, Json, checked_device, device_option, flag, opened, option, several
from sslbench.core.errors import SSLBenchError, UsageError


def bench(
    methods: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[METHOD]...",
            help="With --memory, which; none: all.",
            show_default=False,
            autocompletion=completion.methods,
        ),
    ] = None,
    memory: Annotated[
        bool, flag("Count the memory of a step of each method; nothing is allocated.", "--memory/--no-memory")
    ] = False,
    recipe: Annotated[
        list[str] | None,
        option("NAMES", "With --memory: recipes (ga-synapse).", "--recipe", "-r", complete=completion.recipes),
    ] = None,
    loss: Annotated[
        list[str] | None,
        option("NAMES", "With --memory: losses (default).", "--loss", "-l", complete=completion.losses),
    ] = None,
    cells: Annotated[
        list[str] | None,
        option("CELLS", "What to time: recipe:method+loss,... (phantom:cps+ga,ssl4mis-acdc:cps+ga)."),
    ] = None,
    device: Annotated[str | None, device_option("a GPU")] = None,
    threads: Annotated[int | None, option("N", "CPU threads (1).", min=1)] = None,
    steps: Annotated[int, option("N", "Steps that count (5).", min=1)] = 5,
    batch: Annotated[
        int | None, option("N", "Labelled, and unlabelled, patches; default: 2, on a GPU the recipe's.", min=1)
    ] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Time training steps on this machine, for estimates of `run --dry-run` and `list grids`; or count their memory."""
    folder = opened(data_dir)
    if memory:
        _memory(several(methods), several(recipe) or ["ga-synapse"], several(loss) or ["default"], folder, as_json)
        return
    if methods or recipe or loss:
        raise UsageError("methods, -r and -l go with --memory", "sslbench bench --cells phantom:cps+ga")
    _speed([_cell(text) for text in several(cells) or _CELLS], device, threads, steps, batch, as_json)


_CELLS = ("phantom:cps+ga", "ssl4mis-acdc:cps+ga")


def _cell(text: str) -> tuple[str, str, str]:
    recipe, colon, rest = text.partition(":")
    method, plus, loss = rest.rpartition("+")
    if not (colon and recipe and (method or loss)):
        raise UsageError(f"'{text}' is no cell", "write recipe:method+loss, for example phantom:cps+ga")
    return (recipe, method, loss) if plus else (recipe, loss, "default")


def _speed(
    cells: list[tuple[str, str, str]],
    device: str | None,
    threads: int | None,
    steps: int,
    batch: int | None,
    as_json: bool,
) -> None:
    import torch

    from sslbench.cli.terminal.speeds import speeds
    from sslbench.conformance.speed import measure_all, rate_of
    from sslbench.execution.local import slot_devices
    from sslbench.execution.measured import keep_measured
    from sslbench.runs.provenance import device_name

    place = torch.device(slot_devices(1, checked_device(device, False))[0])
    if place.type == "cpu":
        torch.set_num_threads(threads or 1)
        batch = batch or 2
    with spinner("measuring") as tell:
        found = measure_all(cells, place, steps, batch, lambda cell: tell(f"measuring {cell}"))
    rows = [speed.to_json() for speed in found]
    path = keep_measured(place, rate_of(found), rows)
    facts = {
        "device": device_name(place),
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads() if place.type == "cpu" else None,
        "flop_per_second": rate_of(found),
        "cells": rows,
    }
    if as_json:
        print_json(facts)
    else:
        speeds(out(), facts)
    note(f"kept for estimates in {path}" if path else "not kept: SSLBENCH_CACHE is off, or cannot be written to")


def _memory(methods: list[str], recipes: list[str], losses: list[str], data: Path, as_json: bool) -> None:
    from sslbench.cli.terminal.speeds import memories
    from sslbench.core import registry

    names = methods or [entry.name for entry in registry.entries("method") if not entry.preset_of]
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    with spinner("counting") as tell:
        for recipe in recipes:
            for loss in losses:
                for name in names:
                    tell(f"counting {recipe}: {name}+{loss}")
                    try:
                        rows.append(_counted(recipe, name, loss, data))
                    except SSLBenchError as error:
                        if methods:
                            raise
                        failed[f"{recipe} {name}+{loss}"] = error.message
                    except Exception as error:  # a method of a stranger may ask tensors for values
                        failed[f"{recipe} {name}+{loss}"] = f"cannot be counted: {str(error).splitlines()[0]}"
    if as_json:
        print_json({"cells": rows, "left_out": failed})
    else:
        memories(out(), rows)
    failures(failed)
    if not rows:
        raise typer.Exit(1)


def _counted(recipe: str, method: str, loss: str, data: Path) -> dict[str, Any]:
    """A cell for `--json`: a tally for each arithmetic, and the bytes of the training set where it is prepared."""
    from sslbench.config.splits import load_splits
    from sslbench.conformance.speed import speed_job
    from sslbench.core.errors import DataError
    from sslbench.data.store import Store, partition
    from sslbench.execution.memory import set_bytes, tallied

    resolved = speed_job(recipe, method, loss).resolved
    made = resolved.recipe
    try:
        store = Store.open(data, made.dataset, made.preprocessing)
        size = set_bytes(store, partition(store, load_splits(made.dataset, made.splits), resolved.job.labeled))
    except (UsageError, DataError):  # not prepared here, or not whole
        size = None
    steps = {name: asdict(tallied(resolved, name)) for name in ("fp32", "bf16")}
    return {"recipe": recipe, "method": method, "loss": loss, "data": size, **steps}
