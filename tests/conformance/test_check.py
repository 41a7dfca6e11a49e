"""`sslbench check` and `sslbench list matrix`: exit codes, JSON, and the cells that have no meaning."""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from torch import Tensor

from sslbench.cli.terminal.laws import verdicts as draw_verdicts
from sslbench.cli.terminal.matrix import cells as draw_cells
from sslbench.conformance import LAWS, check, check_matrix, matrix
from sslbench.conformance.bench import DIMS
from sslbench.core import registry
from sslbench.core.step import Step
from sslbench.losses.base import Loss, Term
from tests.helpers import broken
from tests.helpers.command_line import call

LAW = ("--dims", "3d", "--law", "predicts_probabilities,ema_closed_form,supervised_at_zero")


def test_a_method_that_keeps_the_laws_passes() -> None:
    code, out, _ = call("check", "method", "cps", *LAW, "--json")
    assert code == 0
    verdicts = json.loads(out)
    assert {verdict["law"]: verdict["status"] for verdict in verdicts} == {
        "supervised_at_zero": "holds",
        "ema_closed_form": "irrelevant",
        "predicts_probabilities": "holds",
    }
    assert {key: verdicts[0][key] for key in ("method", "loss", "dims")} == {
        "method": "cps",
        "loss": "default",
        "dims": "3d",
    }


def test_a_broken_law_is_told_and_fails(throw_away: Callable[..., Any]) -> None:
    throw_away("method", "half_supervised")(broken.HalfSupervised)
    code, out, _ = call("check", "method", "half_supervised", "cct", *LAW)
    assert code == 1
    line = next(line for line in out.splitlines() if line.split()[:1] == ["supervised_at_zero"])
    assert line.split()[1:] == ["✗", "e"]
    assert "broken supervised_at_zero: half_supervised (default 3d): phase train: not the supervised gradient in" in out
    assert "exempt supervised_at_zero: cct (default 3d): its supervised term is the mean over four decoders" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("check", "metod"), "cannot check 'metod'"),
        (("check", "method", "cps", "--dims", "4d"), "on '4d'"),
        (("check", "method", "cps", "--law", "predicts"), "unknown law 'predicts'"),
        (("check", "method", "no.such:Thing"), "cannot be imported"),
        (("check", "method", "supervised", "-l", "ga_unlabeled_only"), "together they are the loss 'default'"),
        (("check", "matrix", "cps", "-l", "gaa"), "unknown loss 'gaa'"),
    ],
)
def test_what_cannot_be_checked_is_refused(arguments: tuple[str, ...], said: str) -> None:
    code, out, err = call(*arguments)
    assert code == 2 and said in err and not out


def test_the_matrix_lists_every_cell_and_counts_the_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "matrix", cache(check.matrix))  # found once, shown twice
    code, out, _ = call("list", "matrix", "--json")
    rows = json.loads(out)
    pairs = {(row["method"], row["loss"]) for row in rows}
    assert code == 0 and pairs == {
        (method.name, loss.name) for method in registry.entries("method") for loss in registry.entries("loss")
    }
    holes, part = (
        {(row["method"], row["loss"]) for row in rows if len(row["holes"]) == count} for count in (len(DIMS), 1)
    )
    assert ("genericssl", "default") in part
    # A loss that changes pseudo-label terms alone changes nothing in a method that has none.
    for method in ("supervised", "mt", "uamt", "rdrop", "cct"):
        assert (method, "ga_unlabeled_only") in holes
    for method in ("supervised", "mt", "uamt", "cps", "rdrop", "cct", "fixmatch", "bcp"):
        assert not {(method, "default"), (method, "ga"), (method, "metassl")} & holes
    code, out, _ = call("list", "matrix")
    counts = f"{len(rows)} cells: {len(rows) - len(holes)} with a meaning, {len(holes)} holes"
    assert code == 0 and f"{counts}, {len(part)} with a meaning in 2-D or 3-D alone" in out


def test_cells_are_trained_and_holes_are_told() -> None:
    code, out, _ = call(
        "check", "matrix", "supervised", "-l", "ga,ga_unlabeled_only", "--dims", "3d", "--steps", "2", "--json"
    )
    ran, hole = json.loads(out)
    assert code == 0
    assert (ran["status"], ran["steps"], ran["loss"]) == ("ran", 2, "ga") and ran["last"] > 0
    assert hole["status"] == "hole" and "together they are" in hole["reason"]


@pytest.mark.parametrize("width", [40, 80, 100, 400])
def test_every_method_stands_in_the_tables_whatever_the_width(width: int) -> None:
    methods, losses = registry.names("method"), ("default", "ga")
    cells = [{"loss": loss, "method": method, "status": "ran"} for loss in losses for method in methods]
    verdicts = [{**row, "law": row["loss"], "status": "holds"} for row in cells]
    for show, *given in ((draw_cells, cells), (draw_verdicts, verdicts, dict.fromkeys(losses, ""))):
        console = Console(width=width, file=io.StringIO(), color_system=None)
        show(console, *given)
        lines = [line.split() for line in console.file.getvalue().splitlines()]
        assert sum(line.count("✓") for line in lines if line and line[0] in losses) == 2 * len(methods)


def test_a_plugin_is_on_every_network_of_a_cell() -> None:
    asked = ("check", "matrix", "supervised", "-l", "default", "--dims", "3d", "--steps", "2")
    bare, carried = (json.loads(call(*asked, "--json", *more)[1])[0] for more in ((), ("-p", "scdl")))
    assert (bare["plugin"], carried["plugin"]) == (None, "scdl")
    assert bare["last"] != carried["last"]
    assert "supervised + default + scdl 3d: loss" in call(*asked, "-p", "scdl")[1]
    code, _, error = call(*asked, "-p", "scdll")
    assert code == 2 and "did you mean scdl" in error


def test_a_cell_that_stops_is_a_failure_and_stops_no_other(throw_away: Callable[..., Any]) -> None:
    @throw_away("loss", "explodes")
    class Explodes(Loss):
        def ce_term(self, term: Term) -> Tensor:
            return super().ce_term(term) / 0

    failed, ran = check_matrix(1, ["supervised"], ["explodes", "default"], ["3d"])
    assert (failed.status, ran.status) == ("failed", "ran")
    assert failed.reason.startswith("TrainingError: the loss is not finite at iteration 1")
    code, out, _ = call("check", "matrix", "supervised", "-l", "explodes", "--dims", "3d", "--steps", "1")
    assert code == 1 and "failed supervised + explodes 3d: TrainingError" in out


def test_a_cell_that_left_steps_out_is_a_failure(throw_away: Callable[..., Any]) -> None:
    @throw_away("loss", "explodes")
    class Explodes(Loss):
        def observe(self, step: Step, key: str, logits: Tensor, labels: Tensor) -> None:
            self.bad = step.iteration == 1

        def ce_term(self, term: Term) -> Tensor:
            return super().ce_term(term) * (float("inf") if self.bad else 1)

    (failed,) = check_matrix(3, ["supervised"], ["explodes"], ["3d"])
    assert (failed.status, failed.reason) == ("failed", "TrainingError: 1 of 3 steps had no finite loss")


def test_a_hole_may_be_one_of_2d_or_3d_alone(throw_away: Callable[..., Any]) -> None:
    class FlatOnly(broken.Supervised):
        """A method for slices."""

        @classmethod
        def objection(cls, job: Any) -> str | None:
            return None if len(job.recipe.patch_size) == 2 else "it is for slices"

    throw_away("method", "flat_only")(FlatOnly)
    (cell,) = matrix(["flat_only"], ["default"])
    assert cell.holes == {"3d": "it is for slices"}


PAGE = Path(__file__).parents[2] / "docs" / "reference" / "methods.md"


def test_the_page_of_methods_names_every_law_and_its_example_is_checkable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index("| law |") : text.index("They are tried")]
    assert set(re.findall(r"`(\w+)`", table)) >= set(LAWS)
    starred = {name for name, law in LAWS.items() if law.losses}
    assert set(re.findall(r"`(\w+)` \*", table)) == starred
    example = re.search(r"```python\n# (\w+)\.py\n(.*?)```", text, flags=re.DOTALL)
    assert example is not None
    (tmp_path / f"{example[1]}.py").write_text(example[2])
    monkeypatch.chdir(tmp_path)
    try:
        assert f"sslbench check method {example[1]}:SilentTeacher" in text
        assert call("check", "method", f"{example[1]}:SilentTeacher", *LAW)[0] == 0
    finally:
        registry.unregister("method", "silent_teacher")


def test_the_page_of_methods_says_who_builds_on_each_shared_piece() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index("| piece of") : text.index("## What a step costs")]
    said = {
        row[0]: set(row[1:]) for row in (re.findall(r"`([\w./]+)`", line) for line in table.splitlines()[2:]) if row
    }
    assert said == {piece: _users(piece) for piece in said}
    assert all(len(users) > 1 for users in said.values())


@cache
def _imported(path: Path) -> list[str]:
    return [node.module or "" for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]


def _users(piece: str) -> set[str]:
    """The methods, by their names, and other files of the rooms of methods and networks that import from a piece."""
    package = PAGE.parents[2] / "sslbench"
    module = "sslbench." + piece.removesuffix(".py").replace("/", ".")
    found: set[str] = set()
    for path in [*package.glob("methods/*.py"), *package.glob("methods/shared/*.py"), *package.glob("networks/*.py")]:
        if any(f"{name}.".startswith(f"{module}.") for name in _imported(path)):
            place = path.relative_to(package).as_posix()
            own = "sslbench." + place.removesuffix(".py").replace("/", ".")
            entries = [entry for entry in registry.entries("method") if not entry.preset_of]
            names = {entry.name for entry in entries if registry.component("method", entry.name).__module__ == own}
            found |= names or {place}
    return found - {piece}
