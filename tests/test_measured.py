"""What is kept under `results/measured`: records hold what their manifests say, other files are said to be older."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers.command_line import call

ROOT = Path(__file__).parents[1] / "results"
MEASURED = sorted((ROOT / "measured").iterdir())
RECORDS = [path for path in MEASURED if path.name.endswith(".csv.gz")]
OTHERS = [path for path in MEASURED if path not in RECORDS and not path.name.endswith(".manifest.json")]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.name)
def test_every_number_follows_from_the_records(path: Path, tmp_path: Path) -> None:
    code, out, err = call("verify", str(path), "--results-dir", str(tmp_path))
    assert (code, err) == (0, ""), err + out
    assert re.search(r"^[1-9]\d* numbers? agree, 0 differ; (\d+) of \1 records unchanged; ", out)
    assert f"`{path.name}`" in README


def test_what_has_no_records_is_named_as_such() -> None:
    named = set(re.findall(r"`([\w-]+\.(?:csv|txt))`", README))
    assert {path.name for path in OTHERS} <= named
    older = {path.name.removesuffix(".csv") for path in OTHERS}
    assert not older & {path.name.removesuffix(".csv.gz") for path in RECORDS}, "the older file has no use any more"
