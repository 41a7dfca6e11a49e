"""Means over cases, then classes, then seeds, against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from sslbench import load_results
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError
from sslbench.metrics.protocol import EmptyPolicy, Protocol
from sslbench.reporting.scores import missed_organs, over_seeds, per_run, summarize

Write = Callable[..., Path]


def pick(frame: pd.DataFrame, metric: str, name: str) -> pd.Series:
    return frame[(frame["metric"] == metric) & (frame["class"] == name)].iloc[0]


def test_cases_then_classes_then_seeds(write_run: Write, tmp_path: Path) -> None:
    # Class means 0.8, 0.25 and 0.3: average 0.45. All values in one pot would give 0.38.
    write_run({"rv": [0.8, None], "myo": [0.0, 0.5], "lv": [0.2, 0.4]}, seed=0)
    # Class means 0.4, 0.5 and 0.6: average 0.5.
    write_run({"rv": [0.4, None], "myo": [0.5, 0.5], "lv": [0.6, 0.6]}, seed=1)
    records = load_results(tmp_path / "results")
    runs = per_run(records)
    assert pick(runs[runs["seed"] == 0], "dsc", "avg")["value"] == pytest.approx(0.45)
    assert pick(runs[runs["seed"] == 0], "dsc", "rv")[["cases", "missed", "absent"]].tolist() == [1, 0, 1]
    cell = over_seeds(runs)
    average = pick(cell, "dsc", "avg")
    assert average["mean"] == pytest.approx(0.475)
    assert average["std"] == pytest.approx(0.025)  # population: |0.45 - 0.5| / 2
    assert (average["n"], average["unit"]) == (2, "fraction")
    assert pick(cell, "dsc", "myo")["mean"] == pytest.approx(0.375)
    assert pick(cell, "asd", "avg")["mean"] == pytest.approx(5.25)


@pytest.mark.parametrize(("protocol", "std"), [("papers", math.sqrt(2 / 3) * 0.1), ("ours", 0.1)])
def test_the_protocol_decides_the_spread(protocol: str, std: float, write_run: Write, tmp_path: Path) -> None:
    for seed, dsc in enumerate((0.4, 0.5, 0.6)):
        write_run(dsc, seed=seed, protocol=protocol)
    cell = over_seeds(per_run(load_results(tmp_path / "results")))
    assert pick(cell, "dsc", "avg")["std"] == pytest.approx(std)


@pytest.mark.parametrize("protocol", ["papers", "ours"])
def test_one_seed_has_no_spread(protocol: str, write_run: Write, tmp_path: Path) -> None:
    write_run(0.5, protocol=protocol)
    average = pick(over_seeds(per_run(load_results(tmp_path / "results"))), "dsc", "avg")
    assert average["mean"] == 0.5
    assert math.isnan(average["std"])
    assert average["n"] == 1


def test_a_spread_over_cases_is_never_one_over_seeds(write_run: Write, tmp_path: Path) -> None:
    registry.register("protocol", "cases")(
        Protocol("cases", 1, "", "original", "mm", ("dsc", "asd"), EmptyPolicy(), 0, spread="cases")
    )
    # Per class 0.1 over cases in one seed, 0.3 in the other; the two seeds' averages are equal.
    write_run({name: [0.4, 0.6] for name in ("rv", "myo", "lv")}, seed=0, protocol="cases")
    write_run({name: [0.2, 0.8] for name in ("rv", "myo", "lv")}, seed=1, protocol="cases")
    average = pick(over_seeds(per_run(load_results(tmp_path / "results"))), "dsc", "avg")
    assert average["mean"] == pytest.approx(0.5)
    assert average["std"] == pytest.approx(0.2)


def test_a_class_without_a_value_in_a_seed_counts_fewer_seeds(write_run: Write, tmp_path: Path) -> None:
    write_run({"rv": [None, None], "myo": [0.5, 0.5], "lv": [0.5, 0.5]}, seed=0)
    write_run(0.6, seed=1)
    cell = over_seeds(per_run(load_results(tmp_path / "results")))
    assert pick(cell, "dsc", "rv")["n"] == 1
    assert pick(cell, "dsc", "rv")["mean"] == pytest.approx(0.6)
    assert pick(cell, "dsc", "avg")["n"] == 2


def test_digests_protocols_units_and_repeated_seeds_do_not_mix(write_run: Write, tmp_path: Path) -> None:
    write_run(0.5, digest="a" * 64)
    write_run(0.9, digest="b" * 64, seed=1)
    scores = per_run(load_results(tmp_path / "results"))
    with pytest.raises(SSLBenchError, match="different digests"):
        over_seeds(scores)
    one = scores[scores["digest"] == "a" * 64]
    with pytest.raises(SSLBenchError, match="different protocols"):
        over_seeds(pd.concat([one, one.assign(protocol="ours", seed=2)]))
    with pytest.raises(SSLBenchError, match="twice"):
        over_seeds(pd.concat([one, one]))
    with pytest.raises(SSLBenchError, match="several units"):
        over_seeds(pd.concat([one, one.assign(unit="mm", seed=2)]))
    assert list(
        summarize(load_results(tmp_path / "results")).query("metric == 'dsc' and `class` == 'avg'")["mean"]
    ) == [
        0.5,
        0.9,
    ]


def test_records_that_the_protocol_refuses_name_the_run(write_run: Write, tmp_path: Path) -> None:
    write_run(0.5)
    records = load_results(tmp_path / "results")
    records.loc[0, "value"] = math.nan  # in both maps, yet without a value
    with pytest.raises(SSLBenchError, match=r"short/3-patients/cps\+default/seed-0.*no finite value"):
        per_run(records)


def test_missed_structures_are_counted_once_whatever_the_metrics(write_run: Write, tmp_path: Path) -> None:
    write_run({"rv": [0.0, 0.4], "myo": [0.0, 0.5], "lv": [None, 0.6]})
    counts = missed_organs(load_results(tmp_path / "results"))
    assert counts[["missed", "pairs"]].to_numpy().tolist() == [[2, 5]]


def test_nothing_gives_empty_frames(tmp_path: Path) -> None:
    records = load_results(tmp_path)
    assert per_run(records).empty
    assert summarize(records).empty
    assert missed_organs(records).empty
