"""The laws hold for every method that is registered, and each of them fails where it should."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sslbench.conformance import LAWS, check_method
from sslbench.conformance.bench import DIMS, Dims, Subject
from sslbench.conformance.check import find_method
from sslbench.core import registry
from sslbench.core.errors import UnknownNameError, UsageError
from tests.helpers import broken

METHODS = [entry.name for entry in registry.entries("method") if not entry.preset_of]
OTHER_LOSSES = ("ga", "metassl")

# What a law has nothing to say about, and what a method breaks by definition: so that none of them holds by accident.
NO_SOFT = {"masked_where_it_learns"}  # or none of the very logits that it hands over
NO_TEACHER = {"teacher_untouched", "ema_closed_form"}
NO_TARGETS = {"taught_as_declared"} | NO_SOFT
NO_UNLABELED = {"learns_from_unlabeled", "blind_at_zero", "supervised_at_zero", "unlabeled_labels_unreachable"}
IRRELEVANT: dict[str, set[str]] = {
    "supervised": NO_TEACHER | NO_UNLABELED | NO_TARGETS,
    "cps": NO_TEACHER | NO_SOFT,
    "rdrop": NO_TEACHER | NO_SOFT,
    "cct": NO_TEACHER,
    "ccvc": NO_TEACHER | NO_SOFT,
    "ceud": NO_TEACHER | NO_TARGETS,
    "dcnet": NO_TEACHER | NO_SOFT,
    "mcnet": NO_TEACHER,
    "urpc": NO_TEACHER | NO_SOFT,
    "fixmatch": NO_TEACHER | NO_SOFT,
    "mt": set(),
    "uamt": set(),
    "bcp": NO_SOFT,
    "abd": NO_SOFT,
    "beta_fft": NO_SOFT,
    "ssnet": NO_TEACHER | NO_TARGETS,
    "sdcl": NO_SOFT,
    "cobionet": NO_TEACHER,
    "desco": NO_TEACHER | NO_SOFT,
    "magicnet": NO_SOFT,
    "genericssl": NO_TEACHER | NO_SOFT,
    "skcdf": NO_TEACHER | NO_SOFT,
    "depl": NO_TEACHER | NO_SOFT,
    "dst": NO_TEACHER | NO_SOFT,
    "basak": NO_SOFT,
}
EXEMPT = {
    **{method: {"supervised_at_zero"} for method in ("cct", "ccvc", "ceud", "dcnet", "mcnet", "urpc")},
    **{method: {"blind_at_zero", "supervised_at_zero"} for method in ("bcp", "abd", "beta_fft")},
    "ssnet": {"supervised_at_zero", "every_parameter_moves"},
    "sdcl": {"blind_at_zero", "supervised_at_zero"},
    "cobionet": {"blind_at_zero", "supervised_at_zero"},
    "magicnet": {"blind_at_zero", "supervised_at_zero"},
    "genericssl": {"supervised_at_zero"},
    "skcdf": {"blind_at_zero", "supervised_at_zero"},
    "dst": {"every_parameter_moves"},
}
# Methods of one kind of image alone; the other is refused.
ONE_KIND = {"genericssl": "3d"}


def _kinds(method: str) -> tuple[Dims, ...]:
    """The images that a method is for."""
    return tuple(dims for dims in DIMS if ONE_KIND.get(method, dims) == dims)


def _cells(later: Callable[[int, str], tuple[Any, ...]], *axes: Sequence[Any]) -> list[Any]:
    """The product of the methods and some axes as parameters: for each method one cell is quick, the one that `later`
    names by the method's number and name; the others are slow, and tried by `make laws`."""
    quick = {(method, *later(number, method)) for number, method in enumerate(METHODS)}
    return [
        pytest.param(*cell, marks=[] if cell in quick else [pytest.mark.slow])
        for cell in itertools.product(METHODS, *axes)
    ]


def _all_laws(number: int, method: str) -> tuple[Any, ...]:
    """Methods in turn in 2-D and in 3-D."""
    kinds = _kinds(method)
    return (kinds[number % len(kinds)],)


def _with_loss(number: int, method: str) -> tuple[Any, ...]:
    """The other kind of image than for all laws, so that every method is tried on both; the loss changes every two
    methods, so that each is tried on both too."""
    kinds = _kinds(method)
    return (OTHER_LOSSES[number // 2 % 2], kinds[(number + 1) % len(kinds)])


@pytest.mark.parametrize(("method", "dims"), _cells(_all_laws, DIMS))
def test_every_method_keeps_every_law(method: str, dims: Dims) -> None:
    if dims not in _kinds(method):
        with pytest.raises(UsageError):
            check_method(method, dims=(dims,))
        return
    verdicts = check_method(method, dims=(dims,))
    assert [verdict.law for verdict in verdicts] == list(LAWS)
    assert [verdict for verdict in verdicts if verdict.status == "broken"] == []
    if method in IRRELEVANT:
        assert {v.law for v in verdicts if v.status == "irrelevant"} == IRRELEVANT[method]
        assert {v.law for v in verdicts if v.status == "exempt"} == EXEMPT.get(method, set())


@pytest.mark.parametrize(("method", "loss", "dims"), _cells(_with_loss, OTHER_LOSSES, DIMS))
def test_the_laws_about_losses_hold_with_other_losses(method: str, loss: str, dims: Dims) -> None:
    laws = [name for name, law in LAWS.items() if law.losses]
    if dims not in _kinds(method):
        with pytest.raises(UsageError):
            check_method(method, (loss,), (dims,), laws)
        return
    verdicts = check_method(method, (loss,), (dims,), laws)
    assert [verdict for verdict in verdicts if verdict.status == "broken"] == []
    assert {verdict.law for verdict in verdicts if verdict.status == "holds"} >= {
        "deterministic",
        "finite_in_bf16",
        "finite_on_background",
        "finite_with_missing_classes",
        "observes_before_terms",
    }


@pytest.mark.parametrize("method", ONE_KIND)
@pytest.mark.parametrize("loss", ("default", *OTHER_LOSSES))
def test_a_method_of_one_kind_of_image_refuses_the_other(method: str, loss: str) -> None:
    (other,) = {*DIMS} - {*_kinds(method)}
    with pytest.raises(UsageError):
        check_method(method, (loss,), (other,))


def test_the_quick_cells_have_every_method_and_every_loss_on_both_kinds_of_image() -> None:
    tried = {(method, *_all_laws(number, method)) for number, method in enumerate(METHODS)}
    lossy = [(method, *_with_loss(number, method)) for number, method in enumerate(METHODS)]
    tried |= {(method, dims) for method, _, dims in lossy}
    assert tried == {(method, dims) for method in METHODS for dims in _kinds(method)}
    assert {(loss, dims) for _, loss, dims in lossy} == {*itertools.product(OTHER_LOSSES, DIMS)}


# -------------------------------------------------------------------------------------------- each law can fail


@pytest.fixture
def known(throw_away: Callable[..., Any]) -> Callable[[type], str]:
    def register(kind: type) -> str:
        throw_away("method", "toy")(kind)
        return "toy"

    return register


@pytest.mark.parametrize(
    ("law", "kind", "said"),
    [(law, kind, said) for law, faults in broken.FAULTS.items() for kind, said in faults],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_law_finds_the_fault(law: str, kind: type, said: str, known: Callable[[type], str]) -> None:
    verdict = LAWS[law].judge(Subject(known(kind), dims="3d"))
    assert verdict.status == "broken" and said in verdict.reason


def test_every_law_has_a_fault_that_it_finds() -> None:
    assert broken.FAULTS.keys() == LAWS.keys()


def test_what_a_method_raises_is_told_in_one_line(known: Callable[[type], str]) -> None:
    verdicts = check_method(known(broken.Stops), dims=("3d",))
    told = {verdict.reason for verdict in verdicts if verdict.status == "broken"}
    assert told == {"RuntimeError: no such luck at all"}
    assert {verdict.law: verdict.status for verdict in verdicts}["predicts_probabilities"] == "holds"


# ------------------------------------------------------------------------------------------- methods of one's own


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "their_methods.py").write_text(
        "from sslbench.methods.mt import MeanTeacher\n"
        "class NoTeacherEver(MeanTeacher):\n"
        "    def after_step(self, step):\n"
        "        pass\n"
        "class NoMethod:\n"
        "    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    yield "their_methods"
    sys.modules.pop("their_methods", None)


def test_a_class_of_the_working_folder_is_checked_without_being_registered(module: str) -> None:
    verdicts = check_method(f"{module}:NoTeacherEver[noise_std=0.2]", dims=("3d",), laws=["ema_closed_form"])
    assert [(verdict.method, verdict.status) for verdict in verdicts] == [(f"{module}:NoTeacherEver", "broken")]


def test_names_that_are_no_method_are_refused(module: str) -> None:
    for spelling, said in {
        f"{module}:Missing": "has no Missing",
        f"{module}:NoMethod": "is no method",
        "no_such_module:Thing": "cannot be imported: ModuleNotFoundError",
        "cpss": "unknown method 'cpss'",
    }.items():
        with pytest.raises(UsageError, match=said):
            find_method(spelling)
    with pytest.raises(UnknownNameError, match="deterministic"):
        check_method("mt", laws=["determinstic"])
