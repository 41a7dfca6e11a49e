"""The runs behind a report, and how each is made again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sslbench.config.draws import split_draw
from sslbench.config.text import compact, counted, split_outside_brackets
from sslbench.reporting.model import RowSource
from sslbench.reporting.report import Report
from sslbench.runs.directory import Run

_SHORT = 12  # digits of a hash that people compare
MOST_SETTINGS = 100  # configurations of which each says what it has of its own


@dataclass(frozen=True)
class ShownRun:
    """One run: the name of its folder, and beginnings of the SHA-256 of its `cases.csv` and `predictions`; empty:
    not known."""

    name: str
    cases: str
    predictions: str


@dataclass(frozen=True)
class Configuration:
    """What runs share that differ in the seed alone.

    Attributes:
        label: of its row.
        digest: 64 hexadecimal digits.
        seeds: of its runs, in words: `0, 1`, or `0 of 2`.
        command: that makes them.
        settings: values that not all configurations share.
        folder: of its runs, below `results/runs`.
        runs: those with results.
    """

    label: str
    recipe: str
    labeled: str
    digest: str
    seeds: str
    command: str
    settings: Sequence[tuple[str, str]]
    folder: str
    runs: Sequence[ShownRun]


@dataclass(frozen=True)
class Conditions:
    """How all runs of a report were made.

    Attributes:
        configurations: in the order of the tables' rows.
        shared: settings that all have.
        facts: versions, devices and data, each with its name.
    """

    configurations: Sequence[Configuration]
    shared: Sequence[tuple[str, str]]
    facts: Sequence[tuple[str, str]]


def conditions(report: Report, manifest: Mapping[str, Any]) -> Conditions:
    """The runs of a report, each configuration once, with the hashes that its manifest has."""
    runs = {run.name: run for run in report.found.runs if run.state != "damaged"}
    sources: dict[str, tuple[str, RowSource]] = {}
    for table in report.tables:
        for row in table.rows:
            for source in row.sources:
                sources.setdefault(source.digest, (row.label, source))
    hashes = {entry["run"]: entry.get("sha256") or {} for entry in manifest["runs"]}
    values = {digest: _values(source, runs) for digest, (_, source) in sources.items()}
    known = [own for own in values.values() if own]
    shared = (
        {path: value for path, value in known[0].items() if all(own.get(path) == value for own in known)}
        if known
        else {}
    )
    reported = [runs[name] for _, source in sources.values() for name in source.runs if name in runs]
    told = len(sources) <= MOST_SETTINGS
    configurations = [
        Configuration(
            label=label,
            recipe=source.recipe,
            labeled=source.labeled,
            digest=digest,
            seeds=_seeds(source, runs),
            command=command_of(source, runs),
            settings=[item for item in values[digest].items() if item[0] not in shared] if told else (),
            folder=source.runs[0].rpartition("/")[0] if source.runs else "",
            runs=[_shown(name, hashes.get(name, {})) for name in source.runs],
        )
        for digest, (label, source) in sources.items()
    ]
    return Conditions(configurations, list(shared.items()), [*_facts(reported, manifest)])


def command_of(source: RowSource, runs: Mapping[str, Run]) -> str:
    """The command line that makes the runs of a row."""
    seeds = ",".join(dict.fromkeys(str(runs[name].job["seed"]) for name in source.runs if name in runs))
    words = ["sslbench", "run", "-r", source.recipe, "-m", source.method, "-l", source.loss]
    words += ["-p", source.plugin] if source.plugin else []
    labeled = dict.fromkeys(str(runs[name].job["labeled"]) for name in source.runs if name in runs)
    words += ["--labeled", ",".join(labeled) or source.labeled, *(["--seed", seeds] if seeds else [])]
    for setting in split_outside_brackets(source.variant) if source.variant else []:
        words += ["--set", setting]
    return shlex.join(words)


def _seeds(source: RowSource, runs: Mapping[str, Run]) -> str:
    seeds = ", ".join(dict.fromkeys(str(runs[name].job["seed"]) for name in source.runs if name in runs))
    if source.draws and seeds:
        seeds += f", of {counted(source.draws, 'draw')}"
    return seeds if source.n == source.expected else f"{seeds or 'none'} ({source.n} of {source.expected})"


def _values(source: RowSource, runs: Mapping[str, Run]) -> dict[str, str]:
    found: Mapping[str, Any] = source.job.values if source.job else {}
    if not found:
        found = next((runs[name].values for name in source.runs if name in runs), {})
    return {path: compact(value) for path, value in found.items()}


def _shown(name: str, hashes: Mapping[str, str | None]) -> ShownRun:
    short = {kind: (found or "")[:_SHORT] for kind, found in hashes.items()}
    _, labeled, *_, folder = ["", "", *name.split("/")][-4:]
    draw = split_draw(labeled)[1]
    return ShownRun(
        f"draw {draw}, {folder}" if draw else folder,
        short.get("cases") or short.get("records", ""),
        short.get("maps", ""),
    )


def _facts(runs: Iterable[Run], manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What was used, each with its name; several of a kind are all told."""
    yield "sslbench", " ".join(filter(None, [str(manifest.get("sslbench", "")), str(manifest.get("code") or "")]))
    told = {
        "device": lambda run: run.device,
        "prepared data": lambda run: " ".join(
            str(run.data.get(name, ""))[:_SHORT] for name in ("dataset", "preprocessing", "fingerprint")
        ),
        "split lists": lambda run: " ".join(str(run.splits.get(name, ""))[:_SHORT] for name in ("name", "hash")),
    }
    for name, of in told.items():
        if found := list(dict.fromkeys(text for run in runs if (text := of(run).strip()))):
            yield name, "; ".join(found)
    yield "protocols", ", ".join(f"{name} (version {version})" for name, version in manifest["protocols"].items())
