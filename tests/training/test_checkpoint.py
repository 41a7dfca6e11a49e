"""Checkpoints: two generations, a damaged one is passed over; and the rules that choose the weights to test."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sslbench.core.errors import SSLBenchError
from sslbench.training.checkpoint import Checkpoints, Selection


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints")


def files(checkpoints):
    return sorted(path.name for path in checkpoints.folder.iterdir())


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# --------------------------------------------------------------------------------------------------- generations


def test_the_last_two_generations_are_kept(checkpoints):
    assert checkpoints.load() is None
    for step in (5, 10, 100, 1000):
        checkpoints.save({"step": step}, step)
    assert files(checkpoints) == ["step-00000100.pt", "step-00001000.pt"]
    assert checkpoints.load() == {"step": 1000}
    assert checkpoints.unreadable == []


@pytest.mark.parametrize("damage", [cut_short, lambda path: path.write_bytes(b""), lambda path: path.write_text("?")])
def test_a_damaged_generation_falls_back_to_the_one_before_and_is_named(checkpoints, damage):
    checkpoints.save({"step": 1}, 1)
    checkpoints.save({"step": 2}, 2)
    damage(checkpoints.folder / "step-00000002.pt")
    assert checkpoints.load() == {"step": 1}
    assert [line.partition(":")[0] for line in checkpoints.unreadable] == ["step-00000002.pt"]


def test_without_a_readable_generation_there_is_none(checkpoints):
    for step in (1, 2):
        checkpoints.save({"step": step}, step)
        cut_short(checkpoints.folder / f"step-{step:08d}.pt")
    assert checkpoints.load() is None
    assert len(checkpoints.unreadable) == 2


def test_a_fault_while_writing_leaves_the_generations_as_they_were(checkpoints, monkeypatch):
    for step in (1, 2):
        checkpoints.save({"step": step}, step)

    def broken(state, stream):
        stream.write(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        checkpoints.save({"step": 3}, 3)
    assert files(checkpoints) == ["step-00000001.pt", "step-00000002.pt"]
    assert checkpoints.load() == {"step": 2}


def test_a_file_still_being_written_is_no_generation(checkpoints):
    checkpoints.save({"step": 1}, 1)
    (checkpoints.folder / ".writing-x-step-00000009.pt").write_bytes(b"half a file")
    assert checkpoints.load() == {"step": 1}
    assert checkpoints.unreadable == []


def test_a_state_is_read_back_value_for_value(checkpoints):
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    state = {
        "method": network.state_dict(),
        "optimizers": {"networks": optimizer.state_dict()},
        "selection": {"best": {None: (0.5, 3)}},
        "bank": torch.arange(3, dtype=torch.int64),
    }
    checkpoints.save(state, 1)
    read = checkpoints.load()
    assert read["selection"] == state["selection"] and torch.equal(read["bank"], state["bank"])
    for key, value in network.state_dict().items():
        assert torch.equal(read["method"][key], value)
    torch.optim.Adam(network.parameters()).load_state_dict(read["optimizers"]["networks"])


class Stranger:
    """Code in a checkpoint."""


def test_code_in_a_checkpoint_is_not_run(checkpoints):
    checkpoints.save({"stranger": Stranger()}, 1)
    assert checkpoints.load() is None
    assert "step-00000001.pt" in checkpoints.unreadable[0]


def test_the_best_weights_live_beside_the_generations(checkpoints):
    for step in (1, 2, 3):
        checkpoints.save({"step": step}, step)
        checkpoints.save_best({"kept": step}, "best-a")
    assert files(checkpoints) == ["best-a.pt", "step-00000002.pt", "step-00000003.pt"]
    assert checkpoints.load_best("best-a") == {"kept": 3}


def test_best_weights_that_cannot_be_read_are_an_error_with_a_remedy(checkpoints):
    with pytest.raises(SSLBenchError, match=r"best\.pt cannot be read.*--force"):
        checkpoints.load_best("best")


# ------------------------------------------------------------------------------------------------------- selection


def observed(rule, candidates, *validations):
    selection = Selection(rule, candidates)
    kept = [selection.observe(10 * number, scores) for number, scores in enumerate(validations, 1)]
    return selection, kept


def test_the_best_is_strictly_greater_so_that_the_first_of_equals_wins():
    selection, kept = observed("best-val", (None,), *({None: score} for score in (0.2, 0.5, 0.5, 0.4, 0.5)))
    assert kept == [[None], [None], [], [], []]
    assert selection.best == {None: (0.5, 20)}
    assert selection.choose() == (None, "best")


def test_the_first_validation_is_kept_even_with_a_score_of_zero():
    selection, kept = observed("best-val", (None,), {None: 0.0}, {None: 0.0})
    assert kept == [[None], []]
    assert selection.choose() == (None, "best")


def test_each_candidate_keeps_its_own_best_and_the_better_one_is_tested():
    selection, kept = observed("best-val", ("a", "b"), {"a": 0.3, "b": 0.2}, {"a": 0.1, "b": 0.4}, {"a": 0.35, "b": 0})
    assert kept == [["a", "b"], ["b"], ["a"]]
    assert selection.best == {"a": (0.35, 30), "b": (0.4, 20)}
    assert selection.choose() == ("b", "best-b")
    assert selection.best_file() == "best-b"


def test_of_equal_candidates_the_first_is_tested():
    assert observed("best-val", ("a", "b"), {"a": 0.3, "b": 0.3})[0].choose() == ("a", "best-a")


def test_last_tests_the_last_weights_of_what_validated_better_then():
    selection, _ = observed("last", ("a", "b"), {"a": 0.9, "b": 0.1}, {"a": 0.3, "b": 0.4})
    assert selection.choose() == ("b", None)
    assert observed("last", (None,), {None: 0.9}, {None: 0.1})[0].choose() == (None, None)


@pytest.mark.parametrize(("candidates", "key"), [((None,), None), (("a",), "a"), (("a", "b"), None)])
def test_without_a_validation_the_last_weights_are_tested(candidates, key):
    assert Selection("last", candidates).choose() == (key, None)


@pytest.mark.parametrize("candidates", [(None,), ("a", "b")])
def test_a_selection_continues_from_a_checkpoint(checkpoints, candidates):
    validations = [{key: score + 0.1 * number for number, key in enumerate(candidates)} for score in (0.3, 0.5, 0.4)]
    whole, kept = observed("best-val", candidates, *validations)
    first, _ = observed("best-val", candidates, *validations[:2])
    checkpoints.save({"selection": first.state()}, 20)
    resumed = Selection("best-val", candidates)
    resumed.restore(checkpoints.load()["selection"])
    assert resumed.observe(30, validations[2]) == kept[2]
    assert (resumed, resumed.choose()) == (whole, whole.choose())


def test_scores_that_are_not_defined_still_leave_something_to_test():
    assert observed("best-val", (None,), {None: float("nan")})[0].choose() == (None, None)
