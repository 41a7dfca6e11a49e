"""docs/reference/grids.md: every key of the grammar stands on it, and its example is a grid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sslbench.config.grid import Grid, GridEntry, load_grid
from sslbench.config.places import place_of
from sslbench.config.table import TableSpec
from sslbench.config.tuning import Tune

PAGE = (Path(__file__).parents[2] / "docs/reference/grids.md").read_text(encoding="utf-8")


def keys_of(model: type) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


@pytest.mark.parametrize(
    ("head", "keys"),
    [
        ("A grid", keys_of(Grid) - {"name"}),
        ("An entry of `jobs`", keys_of(GridEntry)),
        ("## Tuning", keys_of(Tune)),
        ("## The table", keys_of(TableSpec)),
    ],
)
def test_every_key_has_its_line(head: str, keys: set[str]) -> None:
    start = PAGE.index("| key |", PAGE.index("## Jobs") if head == "A grid" else PAGE.index(head))
    lines = PAGE[start : PAGE.index("\n\n", start)].splitlines()[2:]
    named = [key for line in lines for key in re.findall(r"`([\w]+)`", line.split("|")[1])]
    assert sorted(named) == sorted(keys)


def test_the_example_is_a_grid(tmp_path: Path) -> None:
    text, drawn, tune = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.S)
    (tmp_path / "example.yaml").write_text(text, encoding="utf-8")
    jobs = load_grid(str(tmp_path / "example.yaml")).expand()
    # 1 bound; per budget 2 bare, 2 × 3 varied but one left out, and one with weights: three seeds each
    assert len(jobs) == 3 * (1 + 2 * (2 + 5 + 1))
    assert {place_of(job).varied.get("loss.gamma") for job in jobs} == {None, 0.25, 0.5, 0.75}
    # The other two are parts of one.
    rest = "recipe: ga-synapse\njobs: [{method: [mt, supervised], loss: [default, ga]}]\n"
    (tmp_path / "drawn.yaml").write_text(rest + drawn + tune, encoding="utf-8")
    grid = load_grid(str(tmp_path / "drawn.yaml"))
    rows = grid.rows()
    assert len({job.labeled for job in rows}) == 10
    assert len(grid.trials(rows)) == 8 * 4 * 2
