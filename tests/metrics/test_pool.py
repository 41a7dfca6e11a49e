"""The pool of scorers: the rows of `Protocol.score`, in order, whatever happens to a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sslbench.core.errors import DataError
from sslbench.metrics import pool as module
from sslbench.metrics.pool import ScorePool
from sslbench.metrics.published import GA, LA_COBIONET, NATIVE

ORGANS = ("a", "b")
SPACING = (2.0, 0.8, 0.8)


def case(seed, shape=(12, 14, 16)):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 3, shape).astype(np.uint8), rng.integers(0, 3, shape).astype(np.uint8)


@pytest.fixture
def all_elsewhere(monkeypatch):
    monkeypatch.setattr(module, "_SMALL", 0)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_rows_are_those_of_the_protocol_in_the_order_of_submission(workers, all_elsewhere):
    with ScorePool(NATIVE, ORGANS, workers) as pool:
        for seed in range(5):
            pool.submit(f"c{seed}", *case(seed), SPACING)
        found = list(pool.results())
        assert list(pool.results()) == []
        pool.submit("again", *case(0), SPACING)
        assert [scored.rows for scored in pool.results()] == [found[0].rows]
        assert len(pool._scorers) == workers
    assert [scored.case for scored in found] == [f"c{seed}" for seed in range(5)]
    for seed, scored in enumerate(found):
        np.testing.assert_equal(scored.rows, NATIVE.score(*case(seed), ORGANS, SPACING))
        pred, ref = case(seed)
        counted = [[int(((pred == p) & (ref == r)).sum()) for r in range(3)] for p in range(3)]
        np.testing.assert_equal(scored.pairs, counted)


def test_axes_and_several_maps_arrive(all_elsewhere):
    pred, ref = np.zeros((2, 12, 14, 16), dtype=np.uint8)
    pred[2:5, 3:9, 2:8], ref[2:6, 4:9, 3:8], pred[8:, 8:, 8:], ref[7:, 9:, 9:] = 1, 1, 2, 2
    with ScorePool(GA, ORGANS) as pool:
        pool.submit("a", pred, ref, SPACING, "zyx")
        assert next(pool.results()).rows == GA.score(pred, ref, ORGANS, SPACING, "zyx")
    with ScorePool(LA_COBIONET, ("la",)) as pool:
        maps = [(pred > 0).astype(np.uint8), (pred > 1).astype(np.uint8)]
        pool.submit("b", maps, (ref > 1).astype(np.uint8), SPACING)
        assert next(pool.results()).rows == LA_COBIONET.score(maps, (ref > 1).astype(np.uint8), ("la",), SPACING)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fault_costs_its_own_case_and_names_it(workers, all_elsewhere):
    pred, ref = case(0)
    with ScorePool(NATIVE, ORGANS, workers) as pool:
        pool.submit("good", pred, ref, SPACING)
        pool.submit("bad", pred[1:], ref, SPACING)
        pool.submit("fine", pred, ref, SPACING)
        good, bad, fine = pool.results()
        assert len(pool._scorers) == workers
    assert good.rows and fine.rows == good.rows
    assert "shape" in bad.error
    with pytest.raises(DataError, match="case bad cannot be scored: prediction has shape"):
        _ = bad.rows


def test_a_scorer_that_dies_is_replaced(all_elsewhere):
    with ScorePool(NATIVE, ORGANS) as pool:
        pool.submit("one", *case(0), SPACING)
        (one,) = pool.results()
        pool._scorers[0]._process.kill()
        pool.submit("two", *case(0), SPACING)
        pool.submit("three", *case(0), SPACING)
        two, three = pool.results()
        assert "died" in two.error and "case two" not in two.error
        with pytest.raises(DataError, match="case two"):
            _ = two.rows
        assert three.rows == one.rows
        processes = [scorer._process for scorer in pool._scorers]
    assert all(process.poll() is not None for process in processes)


def test_only_a_few_cases_are_held(all_elsewhere, monkeypatch):
    begun, held = [], []

    def slow(scorer, work):
        begun.append(1)
        time.sleep(0.05)
        return []

    monkeypatch.setattr(module._Scorer, "__init__", lambda self: None)
    monkeypatch.setattr(module._Scorer, "score", slow)
    monkeypatch.setattr(module._Scorer, "end", lambda self: None)
    with ScorePool(NATIVE, ORGANS, 2) as pool:
        for seed in range(8):
            pool.submit(str(seed), *case(seed), SPACING)
            held.append(sum(not future.done() for _, future in pool._pending))
        assert [scored.case for scored in pool.results()] == [str(seed) for seed in range(8)]
    assert max(held) == 3 and len(begun) == 8


def test_small_cases_start_no_process():
    with ScorePool(NATIVE, ORGANS) as pool:
        pool.submit("a", *case(0), SPACING)
        assert next(pool.results()).rows
        assert not pool._scorers


def test_an_exception_leaves_at_once(all_elsewhere):
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), ScorePool(NATIVE, ORGANS) as pool:
        for seed in range(2):
            pool.submit(str(seed), *case(seed, (96, 96, 96)), SPACING)
        process = pool._scorers[0]._process if pool._scorers else None
        raise KeyboardInterrupt
    assert time.monotonic() - began < 30
    assert process is None or process.poll() is not None


def test_scorers_end_with_the_process_that_started_them():
    """Also if that is killed, and in a script without a guard; Ctrl-C and SIGTERM are left to it."""
    code = (
        "import os, signal, sys\n"
        "import numpy as np\n"
        "from sslbench.metrics import pool as module\n"
        "from sslbench.metrics.published import NATIVE\n"
        "module._SMALL = 0\n"
        "maps = np.ones((4, 5, 6), np.uint8)\n"
        "pool = module.ScorePool(NATIVE, ('a',))\n"
        "pool.submit('a', maps, maps, (1, 1, 1))\n"
        "list(pool.results())\n"
        "child = pool._scorers[0]._process\n"
        "child.send_signal(signal.SIGINT), child.send_signal(signal.SIGTERM)\n"
        "pool.submit('b', maps, maps, (1, 1, 1))\n"
        "assert next(pool.results()).rows\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL and not done.stderr
    pid, deadline = int(done.stdout), time.monotonic() + 60
    while running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def running(pid):
    try:
        os.kill(pid, 0)
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2] if Path("/proc/self").exists() else ""
    except (ProcessLookupError, FileNotFoundError):
        return False
    return not fields.startswith(" Z")  # dead, though nobody has asked how it ended
