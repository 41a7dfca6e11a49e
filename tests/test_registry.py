"""The registry: what answers to a name, what may not be registered, and what a stranger's package can break."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from sslbench.config.job import Job
from sslbench.core import registry
from sslbench.core.errors import SSLBenchError, UnknownNameError


class Component:
    """A component to register."""


class Other:
    """Another one."""


def broken_point(kind, name="broken"):
    return EntryPoint(name, "no_such_package_of_a_stranger:Thing", f"sslbench.{kind}")


@pytest.fixture
def announce(monkeypatch):
    """Announces entry points: `announce("method", point, ...)`."""

    def add(kind, *points):
        monkeypatch.setattr(registry, "_entry_points", lambda asked: points if asked == kind else ())

    return add


# ------------------------------------------------------------------------------------------------ the built-in index


def test_everything_that_is_registered_stands_in_the_index():
    """In an interpreter of its own: other tests register throw-away components."""
    code = (
        "from sslbench.core import registry as r\n"
        "for kind in r.KINDS:\n"
        "    index = sorted(n for names in r.BUILTIN[kind].values() for n in names)\n"
        "    found = [e.name for e in r.entries(kind) if not any(p.name == e.name for p in r._entry_points(kind))]\n"
        "    assert index == found, (kind, index, found)\n"
        "    for module, names in r.BUILTIN[kind].items():\n"
        "        for n in names:\n"
        "            target = r.component(kind, n)\n"
        "            place = getattr(target, '__module__', module)\n"
        "            assert not isinstance(target, type) or place == module, (kind, n, place)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_listing_names_imports_no_component():
    code = (
        "import sys\n"
        "from sslbench.core import registry as r\n"
        "for kind in r.KINDS:\n"
        "    assert {n for names in r.BUILTIN[kind].values() for n in names} <= {*r.names(kind)}, kind\n"
        "assert not {'torch', 'numpy', 'pydantic', 'monai'} & set(sys.modules), 'something heavy was imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("kind", registry.KINDS)
def test_names_are_sorted_and_all_can_be_had(kind):
    names = registry.names(kind)
    assert names == sorted(set(names))
    assert [registry.get(kind, name).name for name in names] == names


# ------------------------------------------------------------------------------------------------------- registering


def test_a_component_is_had_by_its_name_and_its_aliases(throw_away):
    assert throw_away("loss", "toy", aliases=("plaything", "bauble"))(Component) is Component
    for name in ("toy", "plaything", "bauble"):
        assert registry.get("loss", name).name == "toy"
        assert registry.component("loss", name) is Component
    assert "toy" in registry.names("loss") and "plaything" not in registry.names("loss")
    assert registry.get("loss", "toy") in registry.entries("loss")


def test_kinds_are_apart(throw_away):
    throw_away("loss", "toy")(Component)
    throw_away("network", "toy")(Other)
    assert registry.component("loss", "toy") is Component
    assert registry.component("network", "toy") is Other


def test_a_component_can_be_any_value(throw_away):
    value = {"a": 1}
    throw_away("protocol", "toy")(value)
    assert registry.component("protocol", "toy") is value


def test_a_preset_is_a_name_for_options(throw_away):
    throw_away("loss", "toy")(Component)
    throw_away("loss", "toy_one", preset_of="toy", set={"a": 1})
    throw_away("loss", "toy_two", preset_of="toy", set={"a": 1, "b": 2}, aliases=("both",))
    assert registry.component("loss", "both") is Component
    assert dict(registry.get("loss", "both").set) == {"a": 1, "b": 2}
    assert [entry.name for entry in registry.presets("loss", "toy")] == ["toy_two", "toy_one"]


def test_what_is_forgotten_is_unknown(throw_away):
    throw_away("loss", "toy")(Component)
    registry.unregister("loss", "toy")
    registry.unregister("loss", "toy")
    with pytest.raises(UnknownNameError):
        registry.get("loss", "toy")


def test_registering_the_same_thing_again_is_no_clash(throw_away):
    for _ in range(2):
        throw_away("loss", "toy", aliases=("plaything",))(Component)
    assert registry.component("loss", "plaything") is Component


@pytest.mark.parametrize(
    ("name", "aliases"),
    [
        ("toy", ()),
        ("plaything", ()),
        ("other", ("toy",)),
        ("other", ("plaything",)),
        ("ga", ()),
        ("other", ("default",)),
    ],
    ids=str,
)
def test_a_name_or_alias_that_is_taken_is_refused(throw_away, name, aliases):
    registry.entries("loss")
    throw_away("loss", "toy", aliases=("plaything",))(Component)
    before = registry.entries("loss")
    with pytest.raises(SSLBenchError, match="is taken by") as error:
        registry.register("loss", name, aliases=aliases)(Other)
    assert "\n" not in str(error.value)
    assert registry.entries("loss") == before


def test_a_preset_does_not_replace_another_of_its_name(throw_away):
    throw_away("loss", "toy")(Component)
    throw_away("loss", "toy_one", preset_of="toy", set={"a": 1})
    with pytest.raises(SSLBenchError, match="is taken"):
        throw_away("loss", "toy_one", preset_of="toy", set={"a": 2})


def test_a_value_does_not_replace_another_of_its_name(throw_away):
    throw_away("protocol", "toy")({"a": 1})
    with pytest.raises(SSLBenchError, match="is taken"):
        throw_away("protocol", "toy")({"a": 2})


@pytest.mark.parametrize("how", ["'cps'", "'mine', aliases=('cps',)"])
def test_a_builtin_name_is_taken_before_its_module_is_imported(how):
    code = (
        "from sslbench.core import registry as r\n"
        "from sslbench.core.errors import SSLBenchError\n"
        "try:\n"
        f"    r.register('method', {how})(int)\n"
        "except SSLBenchError:\n"
        "    raise SystemExit(0)\n"
        "raise SystemExit(3)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("kind", "name", "near"),
    [
        ("method", "supervisd", "supervised"),
        ("method", "fully_supervise", "fully_supervised"),
        ("loss", "ga_labelled_only", "ga_labeled_only"),
        ("network", "vnett", "vnet"),
        ("dataset", "acdd", "acdc"),
    ],
)
def test_an_unknown_name_is_refused_with_near_names(kind, name, near):
    with pytest.raises(UnknownNameError, match=f"unknown {kind} '{name}' .*did you mean .*{near}") as error:
        registry.get(kind, name)
    assert error.value.exit_code == 2


def test_where_nothing_is_near_all_names_are_told():
    with pytest.raises(UnknownNameError, match=f"known: {', '.join(registry.names('network'))}"):
        registry.get("network", "zzzzzz")


def test_an_unknown_kind_is_refused():
    with pytest.raises(UnknownNameError, match=r"unknown kind of component 'los'.*loss"):
        registry.register("los", "toy")


# ------------------------------------------------------------------------------------------------------- entry points


def test_a_package_of_a_stranger_is_loaded_when_its_component_is_asked_for(announce, throw_away, monkeypatch, tmp_path):
    (tmp_path / "strangers_loss.py").write_text(
        "from sslbench.core import registry\n@registry.register('loss', 'strange')\nclass Strange: ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    announce("loss", EntryPoint("strange", "strangers_loss", "sslbench.loss"))
    assert "strange" in registry.names("loss") and "strangers_loss" not in sys.modules
    try:
        assert registry.component("loss", "strange").__name__ == "Strange"
        assert "strange" in [entry.name for entry in registry.entries("loss")]
    finally:
        registry.unregister("loss", "strange")
        sys.modules.pop("strangers_loss", None)


@pytest.mark.parametrize("ask", [lambda: registry.get("loss", "broken")])
def test_a_broken_package_of_a_stranger_gives_one_line_that_names_it(announce, ask):
    announce("loss", broken_point("loss"))
    assert "broken" in registry.names("loss")
    with pytest.raises(
        SSLBenchError, match="the loss 'broken' of no_such_package_of_a_stranger:Thing cannot be"
    ) as error:
        ask()
    assert "\n" not in str(error.value)


def test_a_broken_package_of_a_stranger_leaves_names_of_ours_alone(announce):
    announce("loss", broken_point("loss"))
    assert registry.component("loss", "ga").__name__ == "GALoss"


@pytest.mark.parametrize(
    "ask",
    [
        lambda: Job(recipe="phantom", method="supervised", labeled="20%").digest(),
        lambda: registry.presets("method", "cps"),
    ],
    ids=["a job of ours", "presets"],
)
def test_a_broken_package_of_a_stranger_stops_no_job_of_ours(announce, ask):
    announce("method", broken_point("method"))
    ask()
