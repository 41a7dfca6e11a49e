"""Two results held against each other: identical, moved, beyond noise, and what cannot be compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sslbench import load_results
from sslbench.reporting.diff import ResultsChange, as_data, diff_records, summary
from sslbench.reporting.statistics import two_way
from tests.helpers.command_line import call
from tests.helpers.results import CLASSES

Write = Callable[..., Path]


@pytest.fixture
def write(write_run: Write, tmp_path: Path) -> Callable[..., None]:
    """Writes one run with noise of its own around a level, into one of two results folders."""

    def write(side: str, level: float, method: str = "cps", seed: int = 0, cases: int = 8, **more: Any) -> None:
        draw = np.random.default_rng(seed)
        values = np.clip(level + draw.normal(0, 0.02, (cases, 3)), 0.01, 0.99)
        scores = dict(zip(CLASSES, values.T.tolist(), strict=True))
        write_run(scores, method=method, seed=seed, results=tmp_path / side, **more)

    return write


def difference(tmp_path: Path) -> ResultsChange:
    return diff_records(load_results(tmp_path / "a"), load_results(tmp_path / "b"))


def test_the_same_results_differ_in_nothing(write: Callable[..., None], tmp_path: Path) -> None:
    for side in "ab":
        for seed in (0, 1):
            write(side, 0.5, seed=seed)
    found = difference(tmp_path)
    assert found.equal and not found.moved
    assert (found.rows[0].seeds, found.rows[0].compared) == ((0, 1), 8)
    assert summary(found) == ["1 row in both; identical records in 1"]
    code, out, _ = call("diff", str(tmp_path / "a"), str(tmp_path / "b"))
    assert (code, out) == (0, "1 row in both; identical records in 1\n")


def test_a_shift_of_all_cases_is_beyond_noise(write: Callable[..., None], tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write("a", 0.5, seed=seed)
        write("b", 0.6, seed=seed)
        write("a", 0.4, "mt", seed)
        write("b", 0.4, "mt", seed)
    found = difference(tmp_path)
    rows = {row.job["method"]: row for row in found.rows}
    assert rows["mt"].equal and not rows["cps"].equal and not found.equal
    dsc = rows["cps"].moved[0]
    assert (dsc.metric, dsc.class_name, dsc.unit) == ("dsc", "avg", "percent")
    assert dsc.change == pytest.approx(10) and dsc.beyond_noise
    asd = next(cell for cell in rows["cps"].moved if cell.metric == "asd")
    assert asd.change == pytest.approx(-1) and asd.unit == "voxel" and asd.beyond_noise
    code, out, _ = call("diff", str(tmp_path / "a"), str(tmp_path / "b"))
    assert code == 1 and "+10.00" in out and "2 rows in both; identical records in 1" in out
    assert "8 of 16 cells moved; 8 of 8 intervals leave 0 out" in out


def test_one_changed_case_is_within_noise(write: Callable[..., None], write_run: Write, tmp_path: Path) -> None:
    base = np.clip(0.5 + np.random.default_rng(0).normal(0, 0.05, (2, 8, 3)), 0, 1)
    for side, shift in (("a", 0.0), ("b", 0.01)):
        for seed in (0, 1):
            values = base[seed].copy()
            values[0, 0] += shift * (seed + 1)
            write_run(dict(zip(CLASSES, values.T.tolist(), strict=True)), seed=seed, results=tmp_path / side)
    found = difference(tmp_path)
    assert found.rows[0].records == 4  # of two metrics in two seeds
    assert {cell.class_name for cell in found.moved} == {"avg", "rv"}
    average = found.moved[0]
    assert not average.beyond_noise and average.interval is not None
    change = np.zeros((2, 8))
    change[:, 0] = [100 * 0.01 / 3, 100 * 0.02 / 3]
    expected = two_way(change)
    assert (average.interval.low, average.interval.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    told = as_data(found)
    assert told["rows"][0]["moved"][0]["beyond_noise"] is False
    json.dumps(told, allow_nan=False)


def test_versions_of_one_job_are_one_row(write: Callable[..., None], tmp_path: Path) -> None:
    for seed in (0, 1):
        write("a", 0.5, seed=seed, digest="a" * 64)
        write("b", 0.5, seed=seed, digest="b" * 64)
    found = difference(tmp_path)
    assert found.equal and found.rows[0].digests == ("a" * 64, "b" * 64)
    assert "under other digests, so of another version or other case lists: 1" in summary(found)
    runs = [next((tmp_path / side).glob("runs/*/*/*/seed-0-*")) for side in "ab"]
    code, out, _ = call("diff", *map(str, runs))
    assert code == 0 and "identical records in 1" in out


def test_what_cannot_be_compared_differs(write: Callable[..., None], tmp_path: Path) -> None:
    write("a", 0.5, cases=8)
    write("b", 0.5, cases=7)
    write("a", 0.5, "mt", seed=0)
    write("b", 0.5, "mt", seed=1)
    write("a", 0.5, "dhc", seed=0)
    write("a", 0.5, "dhc", seed=1)
    write("b", 0.5, "dhc", seed=0)
    write("b", 0.5, "supervised")
    found = difference(tmp_path)
    rows = {row.job["method"]: row for row in found.rows}
    assert rows["cps"].refused == "measured on other cases than the first results"
    assert rows["mt"].refused == "no seed in common"
    assert rows["dhc"].others == (1,) and not rows["dhc"].equal and not rows["dhc"].records
    assert (found.gone, found.new) == ((), ("short 3-patients supervised+default",))
    assert not found.equal
    told = "\n".join(summary(found))
    assert "only in the second: 1 row (short 3-patients supervised+default)" in told
    assert "not compared, no seed in common: 1 row (short 3-patients mt+default)" in told


def test_errors_are_no_differences(write: Callable[..., None], tmp_path: Path) -> None:
    write("a", 0.5)
    code, _, err = call("diff", str(tmp_path / "a"), "no-such-grid")
    assert code == 2 and "no-such-grid" in err
    code, out, _ = call("diff", str(tmp_path / "a"), str(tmp_path / "a"), "--json")
    assert code == 0 and json.loads(out)["equal"]
