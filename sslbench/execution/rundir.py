"""A run directory: all that one job left, and who is working on it.

config.yaml       the job, its digest, every resolved value with its layer
provenance.json   versions, hardware, precision, data and split hashes
status.json       state, attempts, last error, checkpoint choice
progress.json     for displays only: where the job stands
trained.json      what rebuilds the networks without the training data
metrics.jsonl     training and validation records
log.txt           plain text with times
cases.csv         one row per case x class x metric under the recipe's protocol
checkpoints/      two generations, and the best weights
predictions/      NIfTI in the original geometry; preprocessed/ where that grid differs
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from sslbench import registry
from sslbench.config import Job
from sslbench.errors import SSLBenchError
from sslbench.files import read_json, write_json, write_text

State = Literal["pending", "running", "finished", "failed", "interrupted"]

HEARTBEAT_S = 5.0
# A lease on a shared file system without working locks counts as abandoned after this long without a heartbeat.
ABANDONED_S = 60.0


class Held(SSLBenchError):
    """Another process is working on the run."""


class RunDirectory:
    """The files of one job.

    Args:
        path: the directory; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config, self.provenance = path / "config.yaml", path / "provenance.json"
        self.status_file, self.progress_file = path / "status.json", path / "progress.json"
        self.trained = path / "trained.json"
        self.metrics, self.log = path / "metrics.jsonl", path / "log.txt"
        self.cases, self.checkpoints, self.predictions = path / "cases.csv", path / "checkpoints", path / "predictions"
        self._lease = path / "lease.json"

    @classmethod
    def of(cls, job: Job, results: Path) -> RunDirectory:
        """The directory of a job."""
        return cls(results / "runs" / job.directory)

    # --------------------------------------------------------------------------------------------------- config

    def write_config(self, job: Job) -> None:
        """Write the job down, or check that the directory is this job's.

        Raises:
            SSLBenchError: the directory holds another job.
        """
        resolved = job.resolved
        if self.config.exists():
            found = self.read_digest()
            if found != resolved.digest:
                raise SSLBenchError(
                    f"{self.path} holds another job (digest {str(found)[:8]}, expected {resolved.digest[:8]})",
                    "move it aside, or use another --results-dir",
                )
            return
        content = {
            "job": resolved.job.model_dump(),
            "digest": resolved.digest,
            "values": resolved.values,
            "layers": resolved.layers,
        }
        if homes := resolved.homes:
            content["modules"] = homes
        write_text(self.config, yaml.safe_dump(content, sort_keys=False, width=110, allow_unicode=True))

    def read_digest(self) -> str | None:
        """The digest in config.yaml; None where it is missing or damaged."""
        try:
            content = yaml.safe_load(self.config.read_text(encoding="utf-8"))
            return str(content["digest"])
        except (OSError, yaml.YAMLError, KeyError, TypeError):
            return None

    def job(self) -> Job:
        """The job in config.yaml.

        Raises:
            SSLBenchError: it is missing or damaged.
        """
        try:
            content = yaml.safe_load(self.config.read_text(encoding="utf-8"))
            registry.keep_homes(content.get("modules"))
            return Job(**content["job"])
        except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise SSLBenchError(f"{self.config} cannot be read as a job: {error}") from error

    # --------------------------------------------------------------------------------------------------- status

    def status(self) -> dict[str, Any]:
        """The content of status.json; empty where there is none."""
        return read_json(self.status_file) or {}

    def set_status(self, state: State, **fields: Any) -> None:
        """Write a state; fields that are not given stay as they were, `error` is dropped unless given."""
        old = self.status()
        old.pop("error", None)
        write_json(self.status_file, {**old, "state": state, "updated": now(), **fields})

    def state(self) -> State:
        """What a launcher needs to know: `running` means that a live process holds the lease."""
        recorded = self.status().get("state", "pending")
        if recorded == "finished":
            return "finished" if self.cases.exists() else "interrupted"
        if self.holder() is not None:
            return "running"
        if recorded == "failed":
            return "failed"
        return "interrupted" if recorded in ("running", "interrupted") else "pending"

    def progress(self, **fields: Any) -> None:
        """Tell displays where the job stands; not worth waiting for a disk."""
        write_json(self.progress_file, {**fields, "time": time.time()}, sync=False)

    # ---------------------------------------------------------------------------------------------------- lease

    def holder(self) -> dict[str, Any] | None:
        """Who works on the run (host, pid, heartbeat), or None where nobody does or the lease is abandoned."""
        try:
            handle = os.open(self._lease, os.O_RDWR)
        except OSError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return self._lease_content() or {"host": "?", "pid": 0}
        else:
            # The lock was free: on this host nobody holds it. A holder elsewhere shows by its heartbeat.
            content = self._lease_content()
            elsewhere = content.get("host") not in (None, socket.gethostname())
            fresh = time.time() - float(content.get("heartbeat", 0)) < ABANDONED_S
            return content if elsewhere and fresh else None
        finally:
            os.close(handle)

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """Hold the run; the system frees the lock when the process ends, however it ends.

        Raises:
            Held: another process works on it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        # Whoever asks for the holder takes the lock for a moment: that is no reason to give up.
        for _ in range(20):
            if self.holder() is None:
                handle = os.open(self._lease, os.O_RDWR | os.O_CREAT, 0o644)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    os.close(handle)
            time.sleep(0.05)
        else:
            raise Held(f"{self.path.name} is being run by another process")
        try:
            lease = Lease(handle)
            lease.beat(force=True)
            yield lease
            lease.release()
        finally:
            os.close(handle)

    def _lease_content(self) -> dict[str, Any]:
        return read_json(self._lease) or {}


class Lease:
    """A held lease; `beat` now and then tells other hosts that its holder lives."""

    def __init__(self, handle: int) -> None:
        self._handle, self._last = handle, 0.0

    def beat(self, force: bool = False) -> None:
        """Refresh the heartbeat, at most every few seconds."""
        moment = time.time()
        if force or moment - self._last > HEARTBEAT_S:
            self._last = moment
            self._write({"host": socket.gethostname(), "pid": os.getpid(), "heartbeat": moment})

    def release(self) -> None:
        """Say that the work ended."""
        self._write({})

    def _write(self, content: Mapping[str, Any]) -> None:
        text = json.dumps(content).encode()
        # In place: the lock belongs to this very file, which a rename would replace.
        os.pwrite(self._handle, text.ljust(160), 0)


def now() -> str:
    """The time in ISO format, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
