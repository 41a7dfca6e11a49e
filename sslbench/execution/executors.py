"""Executors: they start workers and learn how they ended, nothing else; a job is a run directory.

What is to run, in which order and what an end means is the launcher's business (`execution/local.py`). Ray starts
workers on other nodes (`execution/ray.py`); on a cluster without access to its nodes a scheduler starts whole launchers
in its allocations (`execution/slurm.py`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from sslbench.execution.environment import worker_environment
from sslbench.runs.directory import Run


class StartedWorker(Protocol):
    """A worker that was started on a run directory.

    Attributes:
        pid: its process, as it calls itself in `progress.json`.
    """

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None:
        """Its exit code (see `execution/worker.py`; minus a signal's number where one killed it), once it ended."""
        ...

    def waits(self) -> bool:
        """Whether it has not begun, as somebody else has yet to find a place for it."""
        ...

    def stop(self) -> None:
        """Ask it to finish its step, save and end."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    def last_words(self) -> str:
        """The last line that it said, for the case that it died before it could write a status."""
        ...

    def close(self) -> None:
        """Give back what was held for it, once it ended."""
        ...


class Executor(Protocol):
    """Starts workers."""

    def start(self, run: Run, device: str) -> StartedWorker:
        """Start a worker on a run directory that has its configuration.

        Args:
            run: of the job.
            device: `cpu`, `cuda` or `cuda:1`.

        Raises:
            OSError: the system does not let it; other workers may still start.
        """
        ...


@dataclass(frozen=True)
class LocalWorkers:
    """Workers as processes of this machine.

    Attributes:
        data_dir: prepared datasets.
        threads: of each worker on a CPU; fixed by the whole plan, not by how many jobs are left, because it changes
            rounding.
        sink: where copies of training records go; None: nowhere.
        resume_anyway: let runs go on that began on another kind of device.
    """

    data_dir: Path
    threads: int
    sink: str | None = None
    resume_anyway: bool = False

    def start(self, run: Run, device: str) -> StartedWorker:
        """Start one; it ends when this process does."""
        command = [sys.executable, "-m", "sslbench", "worker", str(run.directory)]
        environment, device = worker_environment(device, self.threads, os.environ)
        command += ["--data-dir", str(self.data_dir), "--device", device, "--threads", str(self.threads)]
        command += ["--launcher", str(os.getpid()), "--sink", self.sink or "none"]
        command += ["--resume-anyway"] if self.resume_anyway else []
        return _Process(command, environment)


class _Process:
    """A worker process; what it says last is kept."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        # A session of its own: Ctrl-C reaches the launcher alone, which then asks the workers to stop.
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            env=environment,
            start_new_session=True,
        )
        self.pid = self._popen.pid
        self.poll, self.stop, self.kill = self._popen.poll, self._popen.terminate, self._popen.kill

    def waits(self) -> bool:
        return False

    def last_words(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        self._stderr.close()
