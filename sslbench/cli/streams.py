"""The standard streams, whatever is behind them: nothing, a full disk, a terminal or a reader that has gone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, cast

from sslbench.cli import console
from sslbench.core.errors import SSLBenchError

READER_LEFT = 141  # as a shell reports the signal that ends other programs there


@contextmanager
def standard_streams() -> Iterator[None]:
    """Have three streams that can be written to, and notes that nobody can read end nothing."""
    # A closed number would go to the next file that is opened, and with it what is printed.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  as long as the process
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show ± gets a question mark, not a traceback.
        getattr(stream, "reconfigure", lambda **how: None)(errors="replace")
    sys.stdout, sys.stderr = cast(TextIO, _Results(sys.stdout)), cast(TextIO, _Tolerant(sys.stderr))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def end_of_results(code: int) -> int:
    """Write out what was printed, and return the exit code: that given, unless results were lost."""
    try:
        sys.stdout.flush()
    except ReaderLeft:
        return READER_LEFT
    except SSLBenchError as error:
        console.error(error.message)
        return code or 1
    return code


class ReaderLeft(Exception):
    """The end of a command whose reader, like `head`, had enough; an error of the system would end in Typer's hands."""


class _Stream:
    """A stream like the one given."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Results(_Stream):
    """A stream of results: losing them is an error."""

    def write(self, text: str) -> int:
        """Write.

        Raises:
            ReaderLeft: nobody reads on.
            SSLBenchError: the system refuses.
        """
        with self._watched():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush; raises what `write` does."""
        with self._watched():
            self._stream.flush()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # What could not be written goes nowhere, or the interpreter would try again at its end.
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if isinstance(error, BrokenPipeError):
                raise ReaderLeft from None
            raise SSLBenchError(f"the results cannot be written to stdout: {error.strerror}") from error


class _Tolerant(_Stream):
    """A stream whose failures are nobody's concern."""

    def write(self, text: str) -> int:
        """Write, if that is possible."""
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, if that is possible."""
        with suppress(OSError, ValueError):
            self._stream.flush()
