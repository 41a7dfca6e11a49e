"""From per-case records to the numbers of a table: the protocol's means of each run, then means over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from sslbench.config.draws import family_of, split_draw
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError
from sslbench.metrics.aggregate import RecordOrder, columns_of, means
from sslbench.runs.collect import CELL_COLUMNS
from sslbench.runs.directory import Run

_OF_RUN = (*CELL_COLUMNS, "seed", "run", "dataset", "protocol")
_OF_SCORE = ("metric", "class", "value", "sd", "unit", "cases", "missed", "spurious", "absent")


@dataclass(frozen=True, eq=False)
class RunScores:
    """What each run scores, as `per_run` has it.

    Attributes:
        columns: by name, one row per run × metric × class, run after run.
        places: which rows a run has.
    """

    columns: Mapping[str, list[Any]]
    places: Mapping[str, list[slice]]

    def of(self, runs: Iterable[str]) -> dict[str, list[Any]]:
        """The columns of some runs."""
        places = [place for run in runs for place in self.places.get(run, ())]
        return {name: [value for place in places for value in column[place]] for name, column in self.columns.items()}


def per_run(records: pd.DataFrame) -> pd.DataFrame:
    """What each run scores: the mean over cases, and over classes for `avg`, by the run's own protocol.

    Args:
        records: columns `collect.COLUMNS`.

    Returns:
        One row per run × metric × class: `CELL_COLUMNS`, seed, run, dataset, protocol, metric, class, value,
        sd (over cases; NaN where the protocol's ± is not that), unit, and the protocol's counts of cases,
        missed, spurious and absent.

    Raises:
        UnknownNameError: a protocol that is not installed.
        SSLBenchError: records that the protocol does not accept.
    """
    return pd.DataFrame(run_scores(records).columns)


def run_scores(records: pd.DataFrame) -> RunScores:
    """The same, to look up by run."""
    table: dict[str, list[Any]] = {column: [] for column in (*_OF_RUN, *_OF_SCORE)}
    places: dict[str, list[slice]] = {}
    if records.empty:
        return RunScores(table, places)
    measured = columns_of(records)
    labels = {name: records[name].to_numpy(dtype=object) for name in (*_OF_RUN, "unit")}
    layouts: dict[str, RecordOrder] = {}
    for place, rows in records.groupby(["run", "protocol"], sort=False).indices.items():
        run, protocol = cast(tuple[str, str], place)
        own = {name: column[rows] for name, column in measured.items()}
        accepts = registry.component("protocol", str(protocol))
        try:
            layout = layouts.get(protocol)
            if layout is None or not layout.fits(own):
                layout = layouts[protocol] = RecordOrder.of(own, accepts.metrics)
            of_score = means(accepts, own, layout)
        except ValueError as error:
            raise SSLBenchError(f"{run}: {error}") from error
        units = {metric: str(labels["unit"][rows[layout.order[k, 0, 0]]]) for k, metric in enumerate(layout.metrics)}
        of_score["unit"] = [units[metric] for metric in of_score["metric"]]
        of_run = {name: labels[name][rows[0]] for name in _OF_RUN} | {"sd": math.nan}
        count = len(of_score["metric"])
        places.setdefault(str(run), []).append(slice(len(table["run"]), len(table["run"]) + count))
        for column, held in table.items():
            held += of_score[column] if column in of_score else [of_run[column]] * count
    return RunScores(table, places)


def over_seeds(scores: pd.DataFrame) -> pd.DataFrame:
    """`seed_means` as a frame: one row per metric × class: mean, std, n (seeds with a value), unit."""
    return pd.DataFrame(seed_means(scores), columns=["metric", "class", "mean", "std", "n", "unit"])


def seed_means(scores: Mapping[str, Sequence[Any]] | pd.DataFrame) -> list[dict[str, Any]]:
    """Mean and spread of one cell of a table over its seeds.

    Args:
        scores: rows of `per_run` that share a protocol, and a digest, unless they are draws of one budget; by column.

    Returns:
        One per metric × class: metric, class, mean, std, n (runs with a value), unit. std is over seeds with the
        protocol's ddof, NaN for a single one; where the protocol's ± is over cases, the mean of the seeds' own. Of
        drawn labels, seeds are averaged within a draw, and mean and std are over draws.

    Raises:
        SSLBenchError: several digests, protocols or units, or a seed that stands twice.
    """
    lists: dict[str, set[str]] = {}
    for labeled, digest in zip(scores["labeled"], scores["digest"], strict=True):
        lists.setdefault(str(labeled), set()).add(str(digest))
    drawn = {labeled: split_draw(labeled)[1] for labeled in lists}
    if len({*map(family_of, drawn)}) > 1:
        raise SSLBenchError(f"runs of different label budgets cannot be averaged: {', '.join(sorted(drawn))}")
    protocols = {*map(str, scores["protocol"])}
    for column, found in (*(("digest", digests) for digests in lists.values()), ("protocol", protocols)):
        if len(found) > 1:
            raise SSLBenchError(f"runs of different {column}s cannot be averaged: {', '.join(sorted(found))}")
    protocol = registry.component("protocol", *protocols)
    cells: dict[tuple[str, str], list[tuple[Any, float, float, str]]] = {}
    listed = (list(scores[name]) for name in ("metric", "class", "labeled", "seed", "value", "sd", "unit"))
    for metric, name, labeled, seed, *score in zip(*listed, strict=True):
        cells.setdefault((metric, name), []).append(((drawn[str(labeled)], seed), score[0], score[1], score[2]))
    rows: list[dict[str, Any]] = []
    for (metric, name), group in cells.items():
        seeds, of_seeds, sds, units = zip(*group, strict=True)
        if len({*seeds}) < len(seeds):
            raise SSLBenchError(f"{next(iter(scores['run']))}: a seed would enter the mean twice")
        if len({*units}) > 1:
            raise SSLBenchError(f"{next(iter(scores['run']))}: {metric} has several units")
        known = [(run[0], value) for run, value in zip(seeds, of_seeds, strict=True) if not math.isnan(value)]
        values = _of_draws(known) if any(drawn.values()) else [value for _, value in known]
        own = [sd for sd in sds if not math.isnan(sd)]
        std = float(np.mean(own)) if protocol.spread == "cases" and own else math.nan
        row = {"metric": metric, "class": name, "mean": math.nan, "std": std, "n": len(known), "unit": units[0]}
        rows.append(row | {"of": values})
    for number in {len(row["of"]) for row in rows} - {0}:
        alike = [row for row in rows if len(row["of"]) == number]
        ordered = np.sort([row["of"] for row in alike], axis=1)  # the order of the seeds must not reach the last bit
        spreads = ordered.std(axis=1, ddof=protocol.ddof).tolist() if number > 1 else [math.nan] * len(alike)
        for row, mean, std in zip(alike, ordered.mean(axis=1).tolist(), spreads, strict=True):
            row |= {"mean": mean} if protocol.spread == "cases" else {"mean": mean, "std": std}
    for row in rows:
        del row["of"]
    return rows


def _of_draws(values: Iterable[tuple[int, float]]) -> list[float]:
    """The mean over the seeds of each draw, from draws and values."""
    found: dict[int, list[float]] = {}
    for draw, value in values:
        found.setdefault(draw, []).append(value)
    return [float(np.sort(own).mean()) for own in found.values()]


def summarize(records: pd.DataFrame) -> pd.DataFrame:
    """`over_seeds` of every cell: one row per `CELL_COLUMNS` × protocol × metric × class.

    Seeds are averaged only where they share all of `CELL_COLUMNS`, the digest among them.
    """
    scores = per_run(records)
    frames = []
    for _, group in scores.groupby([*CELL_COLUMNS, "protocol"], sort=False):
        cells = over_seeds(group)
        for name in (*CELL_COLUMNS, "protocol"):
            cells[name] = group[name].iloc[0]
        frames.append(cells)
    columns = [*CELL_COLUMNS, "protocol", "metric", "class", "mean", "std", "n", "unit"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else _nothing(columns)


def missed_organs(records: pd.DataFrame) -> pd.DataFrame:
    """How many structures that a case has were predicted nowhere in it.

    Args:
        records: columns `collect.COLUMNS`.

    Returns:
        One row per run: run, missed, and pairs (cases × classes with a reference), index 0, 1, ...
    """
    pairs = records.drop_duplicates(["run", "case", "class_id"])
    pairs = pairs[pairs["state"].isin(["both", "missed"])]
    counts = pairs.assign(missed=pairs["state"] == "missed").groupby("run", sort=False)["missed"]
    return counts.agg(missed="sum", pairs="size").reset_index()


def hours_of(run: Run) -> float | None:
    """Hours of training and test, those of all attempts; None where they were not recorded."""
    status = run.status()
    parts = [status.get(name) for name in ("training_seconds", "test_seconds")]
    known = [float(part) for part in parts if isinstance(part, int | float)]
    return sum(known) / 3600 if len(known) == len(parts) else None


def class_sizes(records: pd.DataFrame) -> dict[str, float]:
    """Mean number of reference voxels of each class, over the test cases that have it, largest first.

    A class that none has is left out.

    Args:
        records: columns `collect.COLUMNS`.
    """
    structures = records.drop_duplicates(["case", "class_id"])
    means = structures[structures["ref_voxels"] > 0].groupby("class", sort=False)["ref_voxels"].mean()
    return {str(short): float(mean) for short, mean in means.sort_values(ascending=False, kind="stable").items()}


def _nothing(columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame({column: [] for column in columns})
