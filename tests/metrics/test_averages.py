"""The means of a run without pandas are those of the table's."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.helpers.results import protocol


@pytest.mark.parametrize("skipped", [0, 2])
def test_they_are_the_rows_avg_of_aggregate(skipped: int) -> None:
    """Excluded values, a class that no case has, cases left out, and a metric of another protocol."""
    random = np.random.default_rng(0)
    rows = []
    for case in range(6):
        for class_id in (2, 1, 3):
            for metric in ("dsc", "asd", "hd95"):
                value = math.nan if class_id == 3 or random.random() < 0.3 else float(random.random())
                state = "absent" if math.isnan(value) else "both"
                rows.append((str(case), class_id, f"c{class_id}", metric, value, state))
    names = ("case", "class_id", "class", "metric", "value", "state")
    table = {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    papers = replace(protocol("papers", 1), skip_cases=skipped)
    found = papers.aggregate(pd.DataFrame(table))
    expected = {row["metric"]: row["value"] for row in found[found["class"] == "avg"].to_dict("records")}
    assert papers.averages(table) == expected and set(expected) == {"dsc", "asd"}
    nothing = {**table, "value": [math.nan] * len(rows), "state": ["absent"] * len(rows)}
    assert papers.averages(nothing) == {}
