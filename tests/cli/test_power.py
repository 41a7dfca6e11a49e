"""`sslbench power`: the table, what a difference takes, and its refusals."""

from __future__ import annotations

import json

import pytest

from sslbench.reporting.power import fewest_seeds
from sslbench.reporting.statistics import Components
from tests.helpers.command_line import call


def test_the_table_says_what_a_difference_takes() -> None:
    code, out, _ = call("power", "-d", "3", "--seeds", "3,5", "--patients", "6,20")
    assert code == 0
    assert "3 needs" in out and "too few patients for 3 points" in out


def test_json_has_the_numbers_unrounded() -> None:
    code, out, _ = call("power", "-d", "3", "--patients", "6", "--patients", "40", "--json")
    assert code == 0
    told = json.loads(out)
    assert told["patients"] == [6, 40]
    assert told["seeds_needed"] == [None, fewest_seeds(Components(2, 4, 3), 3, 40)]
    assert sorted(told["detectable"]) == ["10", "2", "3", "5"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seeds", "1"], "--seeds 1: not a number of 2 or more"),
        (["--patients", "many"], "--patients many: not a number"),
        (["--seeds", "²"], "--seeds ²: not a number"),
        (["-d", "0"], "--difference is 0"),
        (["-d", "nan"], "--difference is nan"),
        (["-d", "inf"], "--difference is inf"),
        (["--sd-seeds", "inf"], "a standard deviation is not finite"),
        (["--sd-seeds", "0", "--sd-patients", "0", "--sd-rest", "0"], "without any spread"),
    ],
)
def test_nonsense_is_refused_in_a_line(arguments: list[str], said: str) -> None:
    code, _, err = call("power", *arguments)
    assert code == 2 and said in err
