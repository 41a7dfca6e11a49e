"""The guide to components of one's own: every file of it is what `sslbench new` writes, and works as it stands."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch

from sslbench.cli.templates import TEMPLATES, next_commands, template_text, write_template
from sslbench.config.job import Job
from sslbench.conformance import check_matrix, check_method
from sslbench.core import registry
from sslbench.data.own.dataset import load_all
from sslbench.data.prepare import prepare
from sslbench.execution.worker import run_job
from sslbench.losses.base import Loss
from sslbench.runs.collect import load_results
from tests.helpers.command_line import call
from tests.helpers.jobs import TINY, tiny_job

GUIDE = (Path(__file__).parents[1] / "docs" / "guides" / "extend.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of the user's with a file of each kind, `their_<kind>.py`; nothing of it stays known."""
    place = tmp_path_factory.mktemp("theirs")
    for kind in TEMPLATES:
        write_template(kind, f"their_{kind}", place)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.syspath_prepend(str(place))
        yield place
    for kind in TEMPLATES:
        sys.modules.pop(f"their_{kind}", None)
        registry.unregister(kind, f"their_{kind}")
    load_all(place / "nothing")


def reference(kind: str) -> str:
    return f"their_{kind}:{TEMPLATES[kind].component}"


# ------------------------------------------------------------------------------------------------- files and commands


def test_there_is_a_file_of_every_kind() -> None:
    assert {*TEMPLATES} == {*registry.KINDS}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_the_guide_shows_the_file_and_its_commands(kind: str) -> None:
    blocks = re.findall(r"```(?:python|bash)\n(.*?)```", GUIDE, flags=re.DOTALL)
    assert template_text(kind, "mine") in blocks
    assert "\n".join(next_commands(kind, "mine")) + "\n" in blocks
    assert len(template_text(kind, "mine").splitlines()) <= 30


def test_new_writes_the_file_and_tells_what_to_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = call("new", "protocol", "my_rules")
    assert code == 0 and (tmp_path / "my_rules.py").read_text() == template_text("protocol", "my_rules")
    assert 'name="my_rules"' in (tmp_path / "my_rules.py").read_text()
    assert out.splitlines()[1:] == [f"  {command}" for command in next_commands("protocol", "my_rules")]
    assert "my_rules:SURFACES" in out and "{" not in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("method", "there"), "there.py is there and stays as it is"),
        (("methd", "mine"), "did you mean method?"),
        (("method", "my-method"), "cannot be the name of a Python module"),
        (("method", "../mine"), "cannot be the name of a Python module"),
        (("method", "class"), "cannot be the name of a Python module"),
        (("method", "torch"), "a module that Python knows already"),
    ],
)
def test_what_new_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.py").write_text("mine = 1\n")
    code, out, err = call("new", *arguments)
    assert (code, out) == (2, "") and says in " ".join(err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["there.py"]
    assert (tmp_path / "there.py").read_text() == "mine = 1\n"


# --------------------------------------------------------------------------------------------------------- they work

JOBS: dict[str, dict[str, Any]] = {
    "method": {"method": f"{reference('method')}[mix=0.5]"},
    "loss": {"loss": f"{reference('loss')}[scale=2]"},
    "weighting": {"method": f"cps[weighting={reference('weighting')}]"},
    "network": {"method": "mt", "set": {"network.name": reference("network")}},
    "plugin": {"plugin": reference("plugin")},
    "dataset": {"method": "mt", "recipe": "their_dataset"},
    "protocol": {"set": {"protocol": reference("protocol")}},
}
NAMES = {
    "method": "ICT",
    "loss": "LCDice-Supervised",
    "weighting": "CPS",
    "network": "MT",
    "plugin": "Position-Supervised",
    "dataset": "MT",
    "protocol": "Supervised",
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_twenty_iterations_and_the_table(
    kind: str, folder: Path, phantom_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    data = phantom_data
    if kind == "dataset":
        data = folder / "data"
        assert prepare(reference("dataset"), data_dir=data, workers=1).written == 20
    job = job_of(kind)
    run = run_job(job, data, tmp_path, device="cpu", threads=1)
    rows = load_results(tmp_path)
    assert rows["value"].notna().any() and len(rows["case"].unique()) >= 4
    code, out, err = call("report", "--results-dir", str(tmp_path), "--data-dir", str(data), "--markdown")
    assert code == 0, err
    table = [line.split("|")[1].partition("(")[0].strip(" *") for line in out.splitlines() if line.startswith("|")]
    assert NAMES[kind] in table  # the settings of the tiny job follow in brackets
    said = (run / "config.yaml").read_text()
    assert reference(kind) in said or kind == "dataset"
    if kind == "dataset":
        assert set(rows["class"]) >= {"ball"} and "Balls" in out
    if kind == "protocol":
        assert "nsd@2" in set(rows["metric"])


def job_of(kind: str) -> Job:
    fields = JOBS[kind]
    settings = {**TINY, "schedule.iterations": 20, "schedule.validate_every": 10, **fields.get("set", {})}
    if "network.name" in settings:
        del settings["network.base_filters"]  # an option of the recipe's network
    usual = {"recipe": "phantom", "method": "supervised", "loss": "default", "labeled": "20%", "seed": 0}
    return Job(**{**usual, **fields, "set": settings})


def test_the_method_keeps_the_laws(folder: Path) -> None:
    broken = [verdict for verdict in check_method(reference("method"), dims=("2d",)) if verdict.status != "holds"]
    assert broken == []


@pytest.mark.parametrize("method", ["mt", f"cps[weighting={reference('weighting')}]"])
def test_the_loss_and_the_weighting_keep_the_laws_about_losses(folder: Path, method: str) -> None:
    laws = ("finite_in_bf16", "finite_on_background", "finite_with_missing_classes")
    verdicts = check_method(method, losses=[reference("loss")], dims=("2d",), laws=laws)
    assert len(verdicts) == len(laws) and {verdict.status for verdict in verdicts} == {"holds"}


def test_the_plugin_trains_with_another_method(folder: Path) -> None:
    (cell,) = check_matrix(3, ["mt"], ["default"], ("2d",), plugin=reference("plugin"))
    assert cell.status == "ran", cell.reason


def test_the_loss_is_the_formula_of_its_docstring(folder: Path) -> None:
    from sslbench.config.recipe import CriteriaSpec
    from tests.helpers.losses import statistics

    kind = registry.component("loss", reference("loss"))
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
    made, plain = kind(kind.Options(scale=2.0), CriteriaSpec(), statistics()), Loss(None, CriteriaSpec(), statistics())
    dice = plain.dice(logits, target, source="label", key="net")
    expected = torch.log(torch.cosh(2 * dice)) / 4
    assert torch.allclose(made.dice(logits, target, source="label", key="net"), expected)


# -------------------------------------------------------------------------------------------------------- the package


def test_the_package_of_the_guide_announces_its_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads(re.search(r"```toml\n(.*?)```", GUIDE, flags=re.DOTALL)[1])  # type: ignore[index]
    head = re.search(r"```python\n(@sslbench\.register.*?)```", GUIDE, flags=re.DOTALL)[1]  # type: ignore[index]
    text = template_text("method", "mine").replace(head.splitlines()[1] + "\n", head)
    assert text.count("@sslbench.register") == 1
    (tmp_path / "mine.py").write_text(text)
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"] == ["mine.py"]
    ((group, points),) = project["project"]["entry-points"].items()
    ((name, value),) = points.items()
    point = EntryPoint(name, value, group)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "_entry_points", lambda kind: (point,) if f"sslbench.{kind}" == group else ())
    try:
        assert name in registry.names("method")
        resolved = tiny_job(f"{name}[mix=0.5]").resolved
        assert resolved.method == {"name": "ict", "mix": 0.5}
    finally:
        registry.unregister("method", name)
        sys.modules.pop("mine", None)
