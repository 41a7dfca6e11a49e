"""Work on many cases in several processes, as they finish; a process that dies costs its own case only."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import TypeVar

from sslbench.core.errors import SSLBenchError

Task = TypeVar("Task")
Result = TypeVar("Result")

DIED = "the process that worked on it died, perhaps for lack of memory; with fewer workers it may pass"


def each(
    function: Callable[[Task], Result], tasks: Mapping[str, Task], workers: int
) -> Iterator[tuple[str, Result | str]]:
    """Run `function` on every task and yield results as they come; one whose process dies has `DIED` for its result."""
    if workers <= 1 or len(tasks) <= 1:
        for id, task in tasks.items():
            yield id, function(task)
        return
    todo = list(tasks)
    pool = _pool(min(workers, len(tasks)))
    try:
        futures = {pool.submit(function, task): id for id, task in tasks.items()}
        for future in as_completed(futures):
            result = future.result()
            todo.remove(futures[future])
            yield futures[future], result
    except BrokenProcessPool:
        pass  # a dead process takes the pool with it, and all that was queued
    finally:
        pool.shutdown(cancel_futures=True)
    # Alone, each of the tasks that are left shows whether it was the one.
    while todo:
        pool = _pool(1)
        try:
            pool.submit(os.getpid).result()
        except BrokenProcessPool as error:
            hint = "use one worker, or call this under `if __name__ == '__main__':`"
            raise SSLBenchError("worker processes cannot start", hint) from error
        try:
            while todo:
                id = todo.pop(0)
                yield id, pool.submit(function, tasks[id]).result()
        except BrokenProcessPool:
            yield id, DIED
        finally:
            pool.shutdown(cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()
