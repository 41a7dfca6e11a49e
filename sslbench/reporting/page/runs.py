"""The runs behind a report, and how each is made again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sslbench.config.text import compact, split_outside_brackets
from sslbench.reporting.model import RowSource
from sslbench.reporting.report import Report
from sslbench.runs.directory import Run

MOST_SETTINGS = 100  # configurations of which each says what it has of its own


@dataclass(frozen=True)
class ShownRun:
    """One run: name below `results/runs`, seed, device and beginning of the hash of its records; empty: not known."""

    name: str
    seed: str
    device: str
    cases: str


@dataclass(frozen=True)
class Configuration:
    """What runs share that differ in the seed alone.

    Attributes:
        label: of its row.
        digest: 64 hexadecimal digits.
        seeds: of its runs, in words: `0, 1`, or `0 of 2`.
        command: that makes them.
        settings: values that not all configurations share.
        runs: those with results.
    """

    label: str
    recipe: str
    labeled: str
    digest: str
    seeds: str
    command: str
    settings: Sequence[tuple[str, str]]
    runs: Sequence[ShownRun]


@dataclass(frozen=True)
class Conditions:
    """How all runs of a report were made.

    Attributes:
        configurations: in the order of the tables' rows.
        shared: settings that all have.
        facts: versions, devices and data, in words.
    """

    configurations: Sequence[Configuration]
    shared: Sequence[tuple[str, str]]
    facts: Sequence[str]


def conditions(report: Report) -> Conditions:
    """The runs of a report, each configuration once."""
    runs = {run.name: run for run in report.found.runs if run.state != "damaged"}
    sources: dict[str, tuple[str, RowSource]] = {}
    for table in report.tables:
        for row in table.rows:
            for source in row.sources:
                sources.setdefault(source.digest, (row.label, source))
    values = {digest: _values(source, runs) for digest, (_, source) in sources.items()}
    known = [own for own in values.values() if own]
    shared = {path: value for path, value in known[0].items() if all(own.get(path) == value for own in known)} if known else {}
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
            runs=[_shown(runs[name]) for name in source.runs if name in runs],
        )
        for digest, (label, source) in sources.items()
    ]
    return Conditions(configurations, list(shared.items()), _facts(report.found.runs))


def command_of(source: RowSource, runs: Mapping[str, Run]) -> str:
    """The command line that makes the runs of a row."""
    seeds = ",".join(str(runs[name].job["seed"]) for name in source.runs if name in runs)
    words = ["sslbench", "run", "-r", source.recipe, "-m", source.method, "-l", source.loss]
    words += ["-p", source.plugin] if source.plugin else []
    words += ["--labeled", source.labeled, *(["--seed", seeds] if seeds else [])]
    for setting in split_outside_brackets(source.variant) if source.variant else []:
        words += ["--set", setting]
    return shlex.join(words)


def _seeds(source: RowSource, runs: Mapping[str, Run]) -> str:
    seeds = ", ".join(str(runs[name].job["seed"]) for name in source.runs if name in runs)
    return seeds if source.n == source.expected else f"{seeds or 'none'} ({source.n} of {source.expected})"


def _values(source: RowSource, runs: Mapping[str, Run]) -> dict[str, str]:
    found: Mapping[str, Any] = source.job.values if source.job else {}
    if not found:
        found = next((runs[name].values for name in source.runs if name in runs), {})
    return {path: compact(value) for path, value in found.items()}


def _shown(run: Run) -> ShownRun:
    tested = run.recorded.get("cases.csv", "") if hasattr(run, "recorded") else ""
    return ShownRun(run.name, str(run.job["seed"]), run.device, tested[:12])


def _facts(runs: Sequence[Run]) -> list[str]:
    return []
