"""Copies of a run's training records for other programs. None can slow the run or stop it, and none is read back.

A sink works in a thread of its own, behind a queue with an end: what does not fit is dropped, what fails is told once
in the run's log and is over.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from sslbench.core.errors import UnknownNameError, UsageError

QUEUED = 1000  # records that may wait
CLOSE_S = 2.0  # seconds that the end of a training waits for those that do


class Sink(Protocol):
    """Takes the records of one run, in the order of the training. Made and called in a thread of its own."""

    def rewind(self, iteration: int) -> None:
        """Training goes on behind this iteration: what was written of later ones is void. Comes first."""
        ...

    def record(self, entry: Mapping[str, Any], moment: float) -> None:
        """A training or validation record, as `metrics.jsonl` has it, and when it was made."""
        ...

    def close(self) -> None:
        """No more will come."""
        ...


class TensorBoard:
    """TensorBoard's event files, one for each attempt of the run in one folder.

    Args:
        folder: of the events.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def rewind(self, iteration: int) -> None:
        """Begin a file; TensorBoard drops what older files have of later iterations."""
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer = SummaryWriter(str(self._folder), purge_step=iteration + 1, flush_secs=10)

    def record(self, entry: Mapping[str, Any], moment: float) -> None:
        """Write its numbers, under the names of `metrics.jsonl`."""
        for name, value in scalars(entry):
            self._writer.add_scalar(name, value, entry["iteration"], moment)

    def close(self) -> None:
        """Write out what waits."""
        if self._writer is not None:
            self._writer.close()


# By the name that a launch gives, what makes it of its folder, and the package that it needs.
SINKS: Mapping[str, tuple[Callable[[Path], Sink], str]] = {"tensorboard": (TensorBoard, "tensorboard")}


def checked_sink(name: str | None) -> str | None:
    """The name of a sink that there is, or None.

    Raises:
        UsageError: it is not known, or what it needs is not installed.
    """
    if name is None:
        return None
    if name not in SINKS:
        raise UnknownNameError("sink", name, (*SINKS, "none"))
    if find_spec(SINKS[name][1]) is None:
        raise UsageError(f"the sink {name} needs the package {SINKS[name][1]}", f"pip install 'sslbench[{name}]'")
    return name


class Queued:
    """A sink at arm's length: its methods return at once, whatever it does.

    Args:
        make: the sink, called in its thread.
        warn: takes the one line that says why it is off.
        name: of the sink, for that line.
        queued: records that may wait for it.
    """

    def __init__(self, make: Callable[[], Sink], warn: Callable[[str], None], name: str, queued: int = QUEUED) -> None:
        self._make, self._warn, self._name = make, warn, name
        self._waiting: queue.Queue[Callable[[Sink], None] | None] = queue.Queue(queued)
        self._off, self._dropped = False, 0
        self._thread = threading.Thread(target=self._work, name=f"sink {name}", daemon=True)
        self._thread.start()

    def record(self, entry: Mapping[str, Any]) -> None:
        """Hand over a record, or drop it."""
        kept, moment = dict(entry), time.time()
        self._put(lambda sink: sink.record(kept, moment))

    def rewind(self, iteration: int) -> None:
        """Hand over that training goes on behind an iteration."""
        self._put(lambda sink: sink.rewind(iteration))

    def close(self) -> None:
        """Wait a moment for what is queued."""
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(CLOSE_S)
        if self._off:
            return
        late = self._thread.is_alive()
        self._off = True  # what it says from now on is nobody's concern
        if late or self._dropped:
            why = f"was not done {CLOSE_S:g} s after the training" if late else "was too slow"
            lost = f"; {self._dropped} records were dropped" if self._dropped else ""
            self._warn(f"sink {self._name} {why}{lost}")

    def _put(self, call: Callable[[Sink], None]) -> None:
        if self._off:
            return
        try:
            self._waiting.put_nowait(call)
        except queue.Full:
            self._dropped += 1

    def _work(self) -> None:
        try:
            sink = self._make()
            while (call := self._waiting.get()) is not None:
                call(sink)
            sink.close()
        except BaseException as error:  # a sink that exits ends itself alone
            if not self._off:
                self._off = True
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                self._warn(f"sink {self._name} is off: {reason}")


def scalars(entry: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a record by their path, `validation/dsc/class/sp`; those of a case below its name."""
    place = f"{name}/{case}" if (case := entry.get("case")) is not None else name
    for key, value in entry.items():
        path = f"{place}/{key}" if place else key
        if isinstance(value, Mapping):
            yield from scalars(value, path)
        elif isinstance(value, (int, float)) and path != "iteration":
            yield path, float(value)
