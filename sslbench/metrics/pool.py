"""Scoring in processes of its own, so that the next case can be predicted meanwhile.

A scorer is this module run as a program: it reads cases from its standard input and writes what they score to its
standard output, until the input ends. It therefore needs no guard in the caller's script, shares no state with CUDA or
threads, and ends with the process that started it, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sslbench.core.errors import DataError
from sslbench.metrics.protocol import Protocol, Records

# Voxels of a case that is scored at once, where it is handed in: a process takes longer to start and to be fed.
_SMALL = 1 << 21


# Rows of a case, as `Protocol.score` returns them, and its voxels by class in prediction and reference.
_Found = tuple[Records, NDArray[np.int64]]


@dataclass(frozen=True)
class Scored:
    """A case that is done.

    Attributes:
        case: its id.
        error: why it has no rows; empty where it has.
    """

    case: str
    error: str
    _found: _Found | None

    @property
    def rows(self) -> Records:
        """Return what `Protocol.score` returned.

        Raises:
            DataError: it could not be scored; the message names the case.
        """
        return self._scored[0]

    @property
    def pairs(self) -> NDArray[np.int64]:
        """Return the voxels by class in the prediction and in the reference, as in `CaseMeasurement`.

        Raises:
            DataError: it could not be scored; the message names the case.
        """
        return self._scored[1]

    @property
    def _scored(self) -> _Found:
        if self._found is None:
            raise DataError(f"case {self.case} cannot be scored: {self.error}")
        return self._found


class ScorePool:
    """Scores cases under one protocol, a few at a time, and gives the results in the order they were handed in.

    Used as a context manager: leaving it ends the scorers, at once if an exception leaves.

    Args:
        protocol: that scores.
        classes: names of the foreground classes 1, 2, ...
        workers: scorers; 0: every case is scored where it is handed in.
    """

    def __init__(self, protocol: Protocol, classes: Sequence[str], workers: int = 1) -> None:
        self.protocol, self.classes = protocol, tuple(classes)
        self._workers = workers
        self._pending: deque[tuple[str, Future[_Found]]] = deque()
        self._room = threading.Semaphore(workers + 1)  # so many cases are held in memory
        self._threads: ThreadPoolExecutor | None = None
        self._idle: deque[_Scorer] = deque()
        self._scorers: list[_Scorer] = []

    def submit(
        self,
        case: str,
        prediction: NDArray[Any] | Sequence[NDArray[Any]],
        reference: NDArray[Any],
        spacing: Sequence[float],
        axes: str = "xyz",
    ) -> None:
        """Hand a case in; waits while `workers` + 1 are unfinished. Faults show in `results`.

        Args:
            case: its id.
            prediction, reference, spacing, axes: as for `Protocol.score`; not to be written to afterwards.
        """
        work = (self.protocol, prediction, reference, self.classes, tuple(spacing), axes)
        if not self._workers or np.size(reference) < _SMALL:
            future: Future[_Found] = Future()
            try:
                future.set_result(_score(work))
            except Exception as error:
                future.set_exception(error)
        else:
            self._room.acquire()
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="score")
            future = self._threads.submit(self._elsewhere, work)
            future.add_done_callback(lambda _: self._room.release())
        self._pending.append((case, future))

    def results(self) -> Iterator[Scored]:
        """The cases handed in and not yet given back, in their order; waits for each."""
        while self._pending:
            case, future = self._pending[0]
            try:
                scored = Scored(case, "", future.result())
            except Exception as error:
                scored = Scored(case, str(error) or type(error).__name__, None)
            self._pending.popleft()
            yield scored

    def __enter__(self) -> ScorePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if kind is not None:
            for scorer in self._scorers:
                scorer.end()  # whoever waits for it sees its output end
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        for scorer in self._scorers:
            scorer.end()

    def _elsewhere(self, work: tuple[Any, ...]) -> _Found:
        """In a thread of which there are as many as scorers: a scorer that died is replaced for the next case."""
        try:
            scorer = self._idle.popleft()
        except IndexError:
            scorer = _Scorer()
            self._scorers.append(scorer)
        try:
            found = scorer.score(work)
        except ChildProcessError:
            scorer.end()
            raise
        except ValueError:
            self._idle.append(scorer)
            raise
        self._idle.append(scorer)
        return found


class _Scorer:
    """A process that scores; see the module."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", __name__]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def score(self, work: tuple[Any, ...]) -> _Found:
        """The scores of a case.

        Raises:
            ValueError: what `Protocol.score` found wrong.
            ChildProcessError: the process died.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            _send(work, self._process.stdin)
            found, error = pickle.load(self._process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError) as broken:
            code = self._process.wait()
            raise ChildProcessError(
                f"the process that scored it died (exit code {code}), perhaps for lack of memory"
            ) from broken
        if error is not None:
            raise ValueError(error)
        scored: _Found = found
        return scored

    def end(self) -> None:
        """Stop it, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # it may hold what the process no longer took
                    stream.close()


def _score(work: tuple[Any, ...]) -> _Found:
    protocol, prediction, reference, classes, spacing, axes = work
    measured = protocol.measured(prediction, reference, len(classes) + 1, spacing, axes)
    return protocol.rows(measured, classes), measured.pairs


def _send(value: Any, stream: IO[bytes]) -> None:
    pickle.dump(value, stream, protocol=pickle.HIGHEST_PROTOCOL)
    stream.flush()


def main() -> None:
    """Score what comes in until nothing more can."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for who started this process, whose end ends the input
        signal.signal(number, signal.SIG_IGN)
    incoming, outgoing = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # nothing else may write between the results
    while True:
        try:
            work = pickle.load(incoming)
        except (EOFError, OSError):
            return
        found, fault = None, None
        try:
            found = _score(work)
        except Exception as error:
            fault = str(error) or type(error).__name__
        try:
            _send((found, fault), outgoing)
        except OSError:
            os._exit(1)  # nobody listens any more; an orderly end would try to send again


if __name__ == "__main__":
    main()
