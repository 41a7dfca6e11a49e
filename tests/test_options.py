"""Options are typed, immutable and refuse unknown names; a class that lacks what its contract asks for is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

import sslbench
from sslbench.core import registry
from sslbench.core.contracts import check_component, missing_members
from sslbench.core.errors import UsageError
from sslbench.losses.base import LossOptions
from sslbench.methods.mt import MeanTeacher
from sslbench.methods.shared.teacher_student import TeacherStudent
from tests.helpers.jobs import tiny_job
from tests.helpers.methods import Untrained

PUBLIC = ("Dataset", "Loss", "Method", "Network", "Options", "Plugin", "Protocol", "Weighting")


class Mix(sslbench.Options):
    mix: float = 0.3


class Plain(BaseModel):
    mix: float = 0.3


class Nested(sslbench.Options):
    ramp: Plain | None = None
    ramps: dict[str, list[Plain]] = {}


def refused(kind: str, component: type) -> str:
    with pytest.raises(UsageError) as error:
        check_component(kind, component)
    assert error.value.exit_code == 2 and "\n" not in str(error.value)
    return str(error.value)


# -------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize("name", PUBLIC)
def test_the_contracts_are_public_names(name: str) -> None:
    assert name in sslbench.__all__ and getattr(sslbench, name).__name__ == name


def test_importing_the_package_or_listing_names_costs_nothing() -> None:
    code = "import sys, sslbench.core.registry as r; r.names('method')"
    code += "; assert not {'torch', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_options_cannot_be_changed_and_know_their_names() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Mix().mix = 1.0
    with pytest.raises(ValidationError, match="mixx"):
        Mix(mixx=1.0)  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", [kind for kind in registry.KINDS if kind != "protocol"])
def test_the_options_of_every_component_derive_from_the_one_base(kind: str) -> None:
    for entry in registry.entries(kind):
        if entry.target is not None and entry.target.__module__.startswith("sslbench."):
            assert issubclass(entry.target.Options, sslbench.Options), entry.name


def test_the_configuration_of_options_stands_in_one_place() -> None:
    package = Path(sslbench.__file__).parent
    found = [path.name for path in package.rglob("*.py") if 'extra="forbid"' in path.read_text(encoding="utf-8")]
    assert found == ["options.py"]


def test_a_mistyped_option_is_refused_with_the_near_name(throw_away: Any) -> None:
    class Mixing(Untrained):
        Options = Mix

    throw_away("method", "mixing")(Mixing)
    assert tiny_job("mixing[mix=0.5]").resolved.values["method.mix"] == 0.5
    with pytest.raises(UsageError, match=r"'mixx'.*did you mean mix\?") as error:
        tiny_job("mixing[mixx=0.3]").resolved  # noqa: B018
    assert error.value.exit_code == 2


@pytest.mark.parametrize("kind", registry.KINDS)
@pytest.mark.parametrize("model", [Plain, Nested, type("Open", (Mix,), {"model_config": ConfigDict(extra="allow")})])
def test_options_that_would_let_a_mistyped_name_pass_are_refused(
    throw_away: Any, kind: str, model: type[BaseModel]
) -> None:
    component = type("Loose", (), {"Options": model})
    said = refused(kind, component)
    culprit = "Plain" if model is Nested else model.__name__
    assert f"'{culprit}'" in said and f"`class {culprit}(sslbench.Options)`" in said
    with pytest.raises(UsageError, match="mistyped"):
        throw_away(kind, "loose")(component)
    assert "loose" not in registry.names(kind)


def test_a_model_that_refuses_unknown_names_by_itself_may_stay() -> None:
    class Careful(BaseModel):
        model_config = ConfigDict(extra="forbid")

    check_component("method", type("Stranger", (Untrained,), {"Options": Careful}))


# -------------------------------------------------------------------------------------------------------- members


@pytest.mark.parametrize(
    ("kind", "contract", "lacking"),
    [
        ("method", "Method", "lacks training_step and predict"),
        ("weighting", "Weighting", "lacks observe and update"),
        ("network", "Network", "lacks dims, encoder_class and decoder_class"),
        ("dataset", "Dataset", "lacks name, title, classes, preprocessings, official_cases and cases_of"),
        ("loss", "Loss", "changes nothing: it writes none of ce_term, dice_term, supervised_term and consistency_term"),
        ("plugin", "Plugin", "changes nothing: it writes none of prior and terms"),
    ],
)
def test_an_empty_class_is_told_all_that_it_lacks_at_once(
    throw_away: Any, kind: str, contract: str, lacking: str
) -> None:
    empty = type("Empty", (getattr(sslbench, contract),), {"__module__": "mine"})
    said = refused(kind, empty)
    assert f"{kind} mine.Empty {lacking} (sslbench.{contract} describes them" in said
    assert f"`sslbench new {kind} NAME`" in said
    with pytest.raises(UsageError, match=r"mine\.Empty"):
        throw_away(kind, "empty")(empty)


@pytest.mark.parametrize("contract", ["Method", "Weighting", "Network", "Dataset", "Loss", "Plugin"])
def test_what_must_be_written_stands_in_the_docstring(contract: str) -> None:
    base = getattr(sslbench, contract)
    about = " ".join((base.__doc__ or "").split("Attributes:")[0].split())
    assert "must be written" in about or "must be set" in about
    for name in missing_members(base):
        assert f"`{name}`" in about, name


def test_one_member_that_is_missing_is_named_alone() -> None:
    class Half(sslbench.Method):
        def predict(self, x: Any, key: str | None = None) -> Any: ...

    assert missing_members(Half) == ["training_step"]


def test_a_member_that_a_class_between_asks_for_is_missed_too() -> None:
    class Follows(TeacherStudent):
        def training_step(self, batch: Any, step: Any) -> Any: ...

    assert missing_members(Follows) == ["average"]
    assert missing_members(MeanTeacher) == []


def test_a_network_with_a_constructor_of_its_own_needs_no_classes() -> None:
    class Whole(sslbench.Network):
        dims = 3

        def __init__(self, in_channels: int, num_classes: int, options: BaseModel) -> None: ...

    check_component("network", Whole)


def test_a_loss_that_writes_one_term_is_complete() -> None:
    class Steep(sslbench.Loss):
        Options = LossOptions

        def ce_term(self, term: Any) -> Any: ...

    check_component("loss", Steep)


def test_a_loss_that_takes_the_arguments_apart_is_complete() -> None:
    class Steep(sslbench.Loss):
        Options = LossOptions

        def ce(self, logits: Any, target: Any, **rest: Any) -> Any: ...

    check_component("loss", Steep)


def test_the_contracts_themselves_pass() -> None:
    check_component("loss", sslbench.Loss)
    check_component("method", sslbench.Method)


def test_a_class_without_a_title_goes_by_its_name_in_tables(throw_away: Any) -> None:
    from sslbench.reporting.labels import row_label

    throw_away("method", "nameless")(Untrained)
    assert row_label("nameless", "default", "", {}) == "nameless"
