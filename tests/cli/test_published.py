"""`sslbench published`: the papers' tables listed, shown and checked."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import pytest

from sslbench.cli import completion
from tests.helpers.command_line import call, offered


def test_list_names_every_table_with_its_grid() -> None:
    code, out, _ = call("published", "list")
    assert code == 0 and out.splitlines()[-1] == "30 tables, 470 rows, 4632 numbers"
    assert "GA (ECCV 2024)" in out and "metassl-t7" in out
    rows = json.loads(call("published", "list", "--json")[1])
    assert len(rows) == 30 and rows[0]["key"] == "ga:T1" and rows[0]["spread"] == "seeds"
    assert {"paper", "table", "content", "setting", "datasets", "labeled", "rows", "numbers", "grid"} <= rows[0].keys()


def test_show_prints_a_table_in_every_format() -> None:
    code, out, _ = call("published", "show", "ga:t5a")
    assert code == 0 and "γ = 0.5" in out and "68.43±0.5" in out
    assert "| γ = 0.5 | 68.43±0.5 | 3.11±0.2 |" in call("published", "show", "ga-t5a", "--markdown")[1]
    assert r"68.43$\pm$0.5 & 3.11$\pm$0.2" in call("published", "show", "ga:T5a", "--latex")[1]
    lines = list(csv.DictReader(io.StringIO(call("published", "show", "ga:T5a", "--csv", "--metric", "asd")[1])))
    assert [line["mean"] for line in lines] == ["20.00", "3.64", "3.11", "3.70", "9.80"]


def test_check_counts_what_does_not_fit_together() -> None:
    code, out, _ = call("published", "check")
    assert code == 0
    for said in ("18 of 420", "D / (2 - D): 43", "beside it: 1", "number by number: 49"):
        assert said in out
    found = json.loads(call("published", "check", "--json")[1])
    assert len(found) == 111 and {"kind", "table", "row", "printed", "expected", "note"} <= found[0].keys()


@pytest.mark.parametrize(
    ("line", "said", "remedy"),
    [
        (["show", "ga:T9"], "unknown published table 'ga:T9'", "ga:T6"),
        (["show", "ga:T1", "--metric", "dcs"], "unknown metric of ga:T1 'dcs'", "dsc"),
        (["show", "ga:T1", "--csv", "--latex"], "--latex and --csv do not go together", "one format"),
        (["shwo"], "no such command", ""),
    ],
)
def test_wrong_usage_is_one_line(line: list[str], said: str, remedy: str) -> None:
    code, _, err = call("published", *line)
    assert code == 2 and said in err.lower().replace("ga:t", "ga:T") and remedy in err


def test_the_shell_offers_tables() -> None:
    assert offered(completion.published, "dhc-s")[:2] == ["dhc-s-t1", "dhc-s-t2"]


def test_no_number_needs_torch_or_pandas() -> None:
    code = (
        "import sys; sys.argv = ['sslbench', 'published', 'show', 'ga:T1']\n"
        "try:\n    import sslbench.cli; sslbench.cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'monai', 'pandas', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
