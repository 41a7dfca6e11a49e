"""`sslbench show`: every name can be shown, docstrings are read as agreed, values say where they come from."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from pydantic import BaseModel, Field
from rich.console import Console

from sslbench.cli.listing import listing
from sslbench.cli.show import describe, read_doc, split_names
from sslbench.cli.terminal.cards import card
from sslbench.cli.terminal.listings import names
from sslbench.config.fields import fields_of
from sslbench.config.job import Job
from sslbench.config.recipe import recipe_names
from sslbench.core import registry
from sslbench.core.errors import UnknownNameError
from sslbench.core.options import Options
from sslbench.methods import Phase
from tests.helpers.command_line import call
from tests.helpers.methods import Untrained

EVERY = [
    (kind, name)
    for kind in ("method", "loss", "plugin", "weighting", "network", "dataset", "protocol")
    for name in registry.names(kind)
] + [("recipe", name) for name in recipe_names()]


def drawn(facts: dict[str, Any], width: int = 80) -> str:
    text = io.StringIO()
    card(Console(file=text, width=width), facts)
    return text.getvalue()


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=["-".join(pair) for pair in EVERY])
def test_every_name_can_be_shown(kind: str, name: str) -> None:
    facts = describe(kind, name)
    assert facts["kind"] == kind and name in (facts["name"], facts.get("preset"))
    assert facts["about"] and all(facts["about"]), "a component says what it is in its docstring"
    again = json.loads(json.dumps(facts))
    assert again.keys() == facts.keys()
    text = drawn(facts)
    assert max(map(len, text.splitlines())) <= 80
    for option in facts.get("options", []):
        assert option["name"] in text and option["description"] is not None


@pytest.mark.parametrize("name", registry.names("method"))
def test_every_method_says_what_a_step_costs_and_what_it_is_made_of(name: str) -> None:
    facts = describe("method", name)
    assert facts["cost"] and facts["predictors"] and facts["views"]["labeled"] and facts["phases"]
    kind = registry.component("method", name)
    assert facts["defaults"] == dict(kind.defaults)
    assert facts["group"] == (registry.get("method", name).group or kind.group)


def test_an_alias_and_a_plural_mean_the_same() -> None:
    assert describe("methods", "sl") == describe("method", "supervised")


def test_a_preset_is_shown_as_what_it_makes_of_the_options() -> None:
    facts = describe("loss", "ga_labeled_only")
    assert (facts["name"], facts["preset"], facts["paper"]) == ("ga", "ga_labeled_only", "Qi, Wu, Chan; ECCV 2024")
    (option,) = [option for option in facts["options"] if option["name"] == "applies_to"]
    assert (option["default"], option["value"]) == ("both", "label")
    assert option["choices"] == ["both", "label", "pseudo"]
    assert "as the preset ga_labeled_only = ga[applies_to=label]" in drawn(facts)
    assert {preset["name"] for preset in facts["presets"]} >= {"ga_labeled_only", "ga_unlabeled_only"}
    assert facts["needs_reference"] is False and describe("loss", "ga")["preset"] is None


def test_a_recipe_tells_which_file_each_value_is_from() -> None:
    facts = describe("recipe", "ssl4mis-acdc-short")
    origin = {row["path"]: (row["value"], row["from"]) for row in facts["fields"]}
    assert facts["extends"] == ["ssl4mis-acdc"]
    assert origin["patch_size"] == ([128, 128], "ssl4mis-acdc-short")
    assert origin["network.name"] == ("unet", "ssl4mis-acdc")
    assert origin["network.upsampling"] == ("bilinear", "default")
    assert origin["precision"] == ("auto", "default")
    # What a job of this recipe resolves to, options of its parts aside, is what is shown.
    values = Job(recipe="ssl4mis-acdc-short", method="supervised", labeled="7 patients").resolved.values
    shown = {path: value for path, (value, _) in origin.items()}
    assert shown.pop("schedule.scale") == 1  # no scale is no part of a job
    assert json.loads(json.dumps(values)) == json.loads(json.dumps(shown))
    assert {"slug": "7-patients", "title": "7 patients", "aliases": ["7 volumes", "10%"], "labeled": 7} in facts[
        "budgets"
    ]
    assert facts["seeds"] == [1337, 0] and any("slices" in note for note in facts["notes"])


def test_overrides_of_a_recipe_are_shown_with_their_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "# first line\n# second line\n# - an item\n"
        "extends: phantom\nloss: {gamma: 0.25}\n"
        "overrides: [{when: {loss: [ga, default]}, set: {optimizer.lr: 0.1}}]\n"
    )
    facts = describe("recipe", str(path))
    origins = [override["from"] for override in facts["overrides"]]
    assert origins[0] == "phantom, override 1" and origins[-1] == "mine, override 1"
    assert facts["notes"] == ["first line second line", "an item"]
    assert {"path": "loss.gamma", "value": 0.25, "from": "mine"} in facts["fields"]
    assert "Where loss is ga or default" in drawn(facts)


def test_the_parameters_of_a_network_are_counted() -> None:
    counts = {row["classes"]: row["count"] for row in describe("network", "vnet")["parameters"]}
    assert counts[14] == 9_449_070  # as its docstring says
    assert describe("network", "unet")["parameters"][1]["count"] == 1_813_764
    assert "9 449 070 for 14 classes" in drawn(describe("network", "vnet"))


def test_a_dataset_shows_hashes_splits_and_the_aliases_of_budgets() -> None:
    kind = registry.component("dataset", "acdc")
    facts = describe("dataset", "acdc")
    assert facts["official_cases"] == 200 and [row["short"] for row in facts["classes"]] == ["", "rv", "myo", "lv"]
    assert facts["preprocessings"][0]["hash"] == kind.preprocessing_hash("ssl4mis")
    (split,) = facts["splits"]
    assert (split["train"], split["validation"], split["test"], split["unit"]) == (70, 10, 20, "patient")
    assert "3 volumes, 5%" in drawn(facts)
    assert split_names("phantom") == split_names("synapse")  # the phantom has Synapse's lists
    assert split_names("synapse") == ["dhc-2024", "ga", "genericssl"]
    assert any(option["name"] == "size" for option in describe("dataset", "phantom")["options"])


def test_a_protocol_shows_its_caption_and_fields() -> None:
    facts = describe("protocol", "ga")
    assert facts["caption"] == registry.component("protocol", "ga").caption()
    assert facts["fields"]["resize_to"] == (160, 160, 80) and facts["fields"]["policy"]["missed_distance"] == 128


def test_unknown_names_give_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="mt"):
        describe("method", "mtt")
    with pytest.raises(UnknownNameError, match="phantom"):
        describe("recipe", "fantom")
    with pytest.raises(UnknownNameError, match="protocol"):
        describe("protocoll", "ga")


def test_show_prints_json_alone() -> None:
    code, out, err = call("show", "method", "cps", "--json")
    assert code == 0 and not err and json.loads(out) == json.loads(json.dumps(describe("method", "cps")))
    code, out, err = call("show", "method", "cps")
    assert code == 0 and not err and "a, b" in out and "cps[NAME=VALUE]" in out and "GA, DHC: kaiming" in out


# --------------------------------------------------------------------------------------------------- docstrings


class Inner(Options):
    rate: float = Field(default=0.1, gt=0, lt=1, description="how fast (eq. 3)")


class StrangerOptions(Options):
    inner: Inner = Inner(rate=0.5)
    steps: int = Field(description="of the first phase")
    sizes: tuple[int, int] = (1, 2)
    shape: Literal["round", "flat"] | None = None


class Stranger(Untrained):
    """A method (Nobody and Nothing, 2031) of two phases.

    It sees more than it says. Cost: two forwards
    and a half.

    Known deviations from the code:
    - it stops early,
      on purpose
    - it counts from 1

    Attributes:
        nothing: that a user wants to read.
    """

    title = "Stranger"
    Options: ClassVar[type[BaseModel]] = StrangerOptions
    defaults: ClassVar[dict[str, Any]] = {"ramp.weight": 0.5}

    def phases(self) -> list[Phase]:
        return [Phase("first", iterations=self.options.steps, streams=("labeled",)), Phase("second")]  # type: ignore


def test_a_docstring_is_read_in_plain_paragraphs(throw_away: Callable[..., Any]) -> None:
    throw_away("method", "stranger")(Stranger)
    throw_away("method", "stranger_fast", preset_of="stranger", set={"steps": 5})
    facts = describe("method", "stranger")
    assert facts["about"] == [
        "A method (Nobody and Nothing, 2031) of two phases.",
        "It sees more than it says.",
    ]
    assert facts["paper"] == "Nobody and Nothing, 2031"
    assert facts["cost"] == "two forwards and a half."
    assert facts["deviations"] == ["it stops early, on purpose", "it counts from 1"]
    assert facts["defaults"] == {"ramp.weight": 0.5}
    assert facts["phases"] is None  # its length has no default
    assert "they depend on the data" in drawn(facts)
    (first, second) = describe("method", "stranger_fast")["phases"]
    assert (first["name"], first["iterations"], first["streams"]) == ("first", 5, ["labeled"])
    assert second["iterations"] is None
    text = drawn(facts)
    assert "Known deviations" in text and "it counts from 1" in text and "ramp.weight = 0.5" in text


@pytest.mark.parametrize("text", [None, "", "   ", "One line.", "A.\n\nArgs:\n    x: y."])
def test_a_docstring_may_say_little(text: str | None) -> None:
    doc = read_doc(text)
    assert len(doc.about) <= 1 and not doc.cost and not doc.deviations and not doc.paper


def test_a_word_that_merely_begins_like_a_deviation_is_none() -> None:
    assert read_doc("A.\n\nDeviations are drawn at random, as in: the paper.").deviations == ()
    assert read_doc("A.\n\nDeviation: none.").deviations == ("none.",)


def test_fields_are_opened_into_dotted_paths() -> None:
    rows = {row["name"]: row for row in fields_of(StrangerOptions)}
    assert rows["inner.rate"]["default"] == 0.5 and rows["inner.rate"]["type"] == "float > 0, < 1"
    assert rows["steps"]["required"] and rows["steps"]["default"] is None
    assert rows["sizes"]["type"] == "2 × int"
    assert rows["shape"]["type"] == "round | flat | none" and rows["shape"]["choices"] == ["round", "flat"]


def test_methods_are_listed_under_the_headings_of_tables() -> None:
    rows = listing("methods")
    groups = list(dict.fromkeys(row["group"] for row in rows))
    assert groups == ["Reference", "General", "Imbalance"]
    assert [group for group, _ in itertools.groupby(row["group"] for row in rows)] == groups  # each in one piece
    of = {row["name"]: row["group"] for row in rows}
    assert (of["supervised"], of["cps"], of["dhc"], of["dca"]) == ("Reference", "General", "Imbalance", "Imbalance")
    text = io.StringIO()
    names(Console(file=text, width=100), rows)
    lines = text.getvalue().splitlines()
    assert "   mcnet_plus" in text.getvalue() and not any(line.startswith("   dhc") for line in lines)
    assert lines[0].strip() == "Reference" and any(line.strip() == "Imbalance" for line in lines)
