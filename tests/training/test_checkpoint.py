"""Checkpoints: two generations, a damaged one is passed over; and the rules that choose the weights to test."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from torch import nn

from sslbench.core.errors import SSLBenchError, StorageError
from sslbench.training.checkpoint import Checkpoints, Selection, Snapshot


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints")


def files(checkpoints):
    checkpoints.wait()
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
    checkpoints.wait()
    damage(checkpoints.folder / "step-00000002.pt")
    assert checkpoints.load() == {"step": 1}
    assert [line.partition(":")[0] for line in checkpoints.unreadable] == ["step-00000002.pt"]


def test_without_a_readable_generation_there_is_none(checkpoints):
    for step in (1, 2):
        checkpoints.save({"step": step}, step)
        checkpoints.wait()
        cut_short(checkpoints.folder / f"step-{step:08d}.pt")
    assert checkpoints.load() is None
    assert len(checkpoints.unreadable) == 2


def test_a_fault_while_writing_leaves_the_generations_as_they_were(checkpoints, monkeypatch):
    for step in (1, 2):
        checkpoints.save({"step": step}, step)

    def broken(state, stream):
        stream.write(b"half a file")
        raise OSError("disk full")

    checkpoints.wait()
    monkeypatch.setattr(torch, "save", broken)
    checkpoints.save({"step": 3}, 3)
    with pytest.raises(StorageError, match="disk full"):
        checkpoints.wait()
    checkpoints.wait()  # it is told once
    checkpoints.save({"step": 4}, 4)
    with pytest.raises(StorageError, match="disk full"):
        checkpoints.save({"step": 5}, 5)
    assert files(checkpoints) == ["step-00000001.pt", "step-00000002.pt"]
    assert checkpoints.load() == {"step": 2}


def test_a_file_still_being_written_is_no_generation(checkpoints):
    checkpoints.save({"step": 1}, 1)
    checkpoints.wait()
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


def test_a_checkpoint_of_another_layout_is_refused_and_not_passed_over(checkpoints):
    checkpoints.save({"step": 1}, 1)
    checkpoints.wait()
    torch.save({"phase": 0, "method": {}}, checkpoints.folder / "step-00000002.pt")
    with pytest.raises(SSLBenchError, match=r"step-00000002\.pt was written by a version .* another layout.*--force"):
        checkpoints.load()


def test_best_weights_stay_as_long_as_a_generation_needs_them(checkpoints):
    def save(step, best, *needed):
        weights = {name: Snapshot({"kept": name}) for name in best}
        checkpoints.save({"step": step}, step, weights, needed)

    save(1, ["best-1"], "best-1")
    save(2, ["best-2"], "best-2")
    assert files(checkpoints) == ["best-1.pt", "best-2.pt", "step-00000001.pt", "step-00000002.pt"]
    save(3, [], "best-2")
    assert files(checkpoints) == ["best-2.pt", "step-00000002.pt", "step-00000003.pt"]
    assert checkpoints.load_best("best-2") == {"kept": "best-2"}
    # A process that has read one generation alone does not know what the other needs.
    save(4, ["best-4"], "best-4")
    checkpoints.wait()
    checkpoints = Checkpoints(checkpoints.folder)
    assert checkpoints.load() == {"step": 4}
    save(4, [], "best-4")
    assert files(checkpoints) == ["best-2.pt", "best-4.pt", "step-00000003.pt", "step-00000004.pt"]
    save(5, [], "best-4")
    assert files(checkpoints) == ["best-4.pt", "step-00000004.pt", "step-00000005.pt"]
    # And what a damaged one needs, nobody does.
    cut_short(checkpoints.folder / "step-00000005.pt")
    checkpoints = Checkpoints(checkpoints.folder)
    assert checkpoints.load() == {"step": 4}
    save(6, ["best-6"], "best-6")
    assert files(checkpoints) == ["best-6.pt", "step-00000005.pt", "step-00000006.pt"]


def test_what_is_written_is_the_state_at_the_time_of_saving(checkpoints, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    write = torch.save

    def slow(state, stream):
        begun.set()
        assert go_on.wait(10)
        write(state, stream)

    monkeypatch.setattr(torch, "save", slow)
    network = nn.BatchNorm1d(3)
    state = {
        "method": network.state_dict(),
        "momentum": [{"of": (torch.zeros(2), 0.9)}],
        "twice": [torch.ones(999)] * 9,
    }
    checkpoints.save(state, 1)
    assert begun.wait(10)
    checkpoints.check()  # nothing is wrong with what is still written
    with torch.no_grad():
        network.weight += 1
        state["momentum"][0]["of"][0].add_(1)
    go_on.set()
    read = checkpoints.load()
    assert read["method"]["weight"].tolist() == [1, 1, 1] and read["momentum"][0]["of"][0].tolist() == [0, 0]
    assert read["method"]._metadata == network.state_dict()._metadata
    assert (checkpoints.folder / "step-00000001.pt").stat().st_size < 2 * 999 * 4 + 4000  # what is shared is there once


def test_a_write_that_failed_is_told_by_the_next_look(checkpoints, monkeypatch):
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    checkpoints.save({"step": 1}, 1)
    with pytest.raises(StorageError, match="No space left"):
        for _ in range(500):
            checkpoints.check()
            time.sleep(0.01)


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
    assert selection.choose() == (None, "best-00000020")


def test_the_first_validation_is_kept_even_with_a_score_of_zero():
    selection, kept = observed("best-val", (None,), {None: 0.0}, {None: 0.0})
    assert kept == [[None], []]
    assert selection.choose() == (None, "best-00000010")


def test_each_candidate_keeps_its_own_best_and_the_better_one_is_tested():
    selection, kept = observed("best-val", ("a", "b"), {"a": 0.3, "b": 0.2}, {"a": 0.1, "b": 0.4}, {"a": 0.35, "b": 0})
    assert kept == [["a", "b"], ["b"], ["a"]]
    assert selection.best == {"a": (0.35, 30), "b": (0.4, 20)}
    assert selection.choose() == ("b", "best-b-00000020")
    assert selection.best_file() == "best-b-00000020"
    assert selection.files() == ["best-a-00000030", "best-b-00000020"]


def test_of_equal_candidates_the_first_is_tested():
    assert observed("best-val", ("a", "b"), {"a": 0.3, "b": 0.3})[0].choose() == ("a", "best-a-00000010")


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
