"""Lets a process pass for one on another host: python imports this module where its folder is on the path.

`STRESS_HOST` is the host's name, `STRESS_CLOCK` by how many seconds its clock is wrong. `STRESS_LOCKS` is a folder for
its locks, which then reach no other host, as on some shared file systems; `none`: there are no locks at all.
"""

import errno
import hashlib
import os
import socket
import time
from pathlib import Path

if host := os.environ.get("STRESS_HOST"):
    socket.gethostname = lambda: host

if off := float(os.environ.get("STRESS_CLOCK", "0")):
    right = time.time
    time.time = lambda: right() + off

if locks := os.environ.get("STRESS_LOCKS"):
    import fcntl

    import filelock

    if locks == "none":

        def refuse(handle: int, operation: int) -> None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        fcntl.flock = refuse
    else:

        class LockOfHost(filelock.FileLock):
            """A lock file that lies with the host; there is one in its place, which nobody locks."""

            def __init__(self, path: "os.PathLike[str] | str", *words: object, **options: object) -> None:
                Path(path).touch()
                super().__init__(Path(locks) / hashlib.sha1(os.fsencode(path)).hexdigest(), *words, **options)

        filelock.FileLock = LockOfHost
