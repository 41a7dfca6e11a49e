"""Work in several processes."""

from __future__ import annotations

from sslbench.core.parallel import each


def test_a_worker_that_dies_costs_its_own_task_only():
    tasks = {str(number): f"{number} ** 2" for number in range(6)} | {"3": "__import__('os')._exit(9)"}
    results = dict(each(eval, tasks, workers=2))  # a function that processes find without this module
    assert "died" in results.pop("3")
    assert results == {str(number): number**2 for number in (0, 1, 2, 4, 5)}
