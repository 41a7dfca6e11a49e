"""The errors that users meet: one line of cause, one of remedy, and the exit code that goes with them."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class SSLBenchError(Exception):
    """Something asked for could not be done (exit code 1).

    Args:
        message: what is wrong and where, in one line.
        hint: what to do about it, in one line.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        message, hint = _one_line(message), _one_line(hint)
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


def _one_line(text: str) -> str:
    """A text with what breaks lines or cannot be encoded written out: file names may hold anything."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


class UsageError(SSLBenchError):
    """Wrong usage, invalid configuration, or data that was never prepared; nothing was started (exit code 2)."""

    exit_code = 2


class DataError(SSLBenchError):
    """A file or case of a dataset is unusable (exit code 1: the other cases go on)."""


_REMEDIES = {
    errno.ENOSPC: "free space there, or use another folder",
    errno.EDQUOT: "free space there, or use another folder",
    errno.EACCES: "make the folder writable, or use another one",
    errno.EPERM: "make the folder writable, or use another one",
    errno.EROFS: "make the folder writable, or use another one",
    errno.EMFILE: "let more files be open: ulimit -n",
    errno.ENFILE: "let more files be open: ulimit -n",
    errno.EIO: "the disk, or the way to it, fails: look at the system's log",
}


class StorageError(SSLBenchError, OSError):
    """A file that the system does not let be written; what was there before still is (exit code 1).

    Args:
        path: of the file.
        error: the system's refusal.
    """

    def __init__(self, path: Path, error: OSError) -> None:
        reason = error.strerror or str(error)
        super().__init__(f"{path.parent}: cannot write {path.name}: {reason}", _REMEDIES.get(error.errno or 0, ""))
        self.errno, self.strerror, self.filename = error.errno, reason, str(path.parent)
        self._made_of = path, error

    def __reduce__(self) -> Any:
        """Make it again from what it was made of, in another process."""
        return type(self), self._made_of


class TrainingError(SSLBenchError):
    """A job cannot go on, for the reason given: a non-finite loss, for example (exit code 1)."""


class UnknownNameError(UsageError):
    """A name that nothing answers to, with the nearest ones that exist."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        known = sorted(set(known) - {name})
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        if near:
            hint = f"did you mean {' or '.join(near)}?"
        elif known and len(known) <= 20:
            hint = f"known: {', '.join(known)}"
        else:
            hint = ""
        super().__init__(f"unknown {what} '{name}'", hint)
