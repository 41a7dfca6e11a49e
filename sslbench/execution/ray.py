"""Ray: workers as remote tasks, each with its share of a node's processors and GPUs.

A task starts the worker process that `LocalWorkers` would start, on the node that Ray chose, and waits for it. Where
one of the two is killed Ray runs the task again, and the worker goes on from its last checkpoint. The launcher stays,
as it does for workers of its own machine.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sslbench.core.errors import SSLBenchError, UsageError
from sslbench.execution.executors import LocalWorkers
from sslbench.execution.local import INTERRUPTED_EXIT, POLL_S
from sslbench.runs.directory import Run

_NUMBERS = ("gpus", "cpus", "retries")


@dataclass(frozen=True)
class RayOptions:
    """What is asked of Ray.

    Attributes:
        gpus: of a node that a job takes, also a part of one; None: one where the cluster has any.
        cpus: likewise.
        retries: how often a job whose worker was killed is begun again by itself.
        address: of the cluster; empty: that of `RAY_ADDRESS`, else the one that runs here, else one of this machine.
    """

    gpus: float | None = None
    cpus: float = 1.0
    retries: int = 3
    address: str = ""

    @classmethod
    def read(cls, texts: Sequence[str]) -> RayOptions:
        """Read `gpus=0.5,cpus=4,address=HOST:PORT`.

        Raises:
            UsageError: an option that there is not, or a value that is no number.
        """
        given: dict[str, Any] = {}
        for name, _, value in (part.strip().partition("=") for text in texts for part in text.split(",")):
            if name in _NUMBERS and re.fullmatch(r"\d+" if name == "retries" else r"\d+(\.\d+)?", value):
                given[name] = int(value) if name == "retries" else float(value)
            elif name == "address" and value:
                given[name] = value
            else:
                raise UsageError(f"--ray {name}={value} says nothing to Ray", "write gpus=0.5,cpus=4,address=HOST:PORT")
        return cls(**given)

    def device(self, asked: str | None) -> str:
        """The device of jobs, as far as it is known without the cluster."""
        return asked or ("cpu" if self.gpus == 0 else "cuda")


class WorkerKilled(Exception):
    """A worker did not end by itself: Ray is to begin again."""


def work(workers: LocalWorkers, directory: str, device: str) -> tuple[int, str]:
    """Run a worker on this node; what a task of Ray does.

    Args:
        workers: starts it.
        directory: of the run.
        device: `cuda`: the card that Ray shows, or `cpu`.

    Returns:
        Its exit code and its last words.

    Raises:
        WorkerKilled: a signal ended it.
    """
    worker = workers.start(Run(Path(directory)), device)
    while True:
        try:
            while (code := worker.poll()) is None:
                time.sleep(POLL_S)
            break
        except KeyboardInterrupt:  # the task was cancelled
            worker.stop()
    words = worker.last_words()
    worker.close()
    if code < 0:
        raise WorkerKilled(f"by signal {-code}")
    return code, words


@dataclass
class RayWorkers:
    """Workers as tasks of Ray.

    Attributes:
        workers: start them on the nodes, where data and results lie under the same absolute paths as here.
        options: of the tasks.
        asked: the device that jobs were asked to take; None: a GPU where the cluster has any.
    """

    workers: LocalWorkers
    options: RayOptions
    asked: str | None = None
    _ray: Any = field(init=False)
    _gpus: float = field(init=False)

    def __post_init__(self) -> None:
        """Connect.

        Raises:
            UsageError: Ray is not installed, does not answer, or has no room for a single job.
        """
        self._ray = _connected(self.options.address)
        has = self._ray.cluster_resources()
        gpus = self.options.gpus
        self._gpus = gpus if gpus is not None else float(self.asked != "cpu" and has.get("GPU", 0) > 0)
        if self.asked == "cpu":
            self._gpus = 0.0
        room = [has.get(name, 0) / each for name, each in (("CPU", self.options.cpus), ("GPU", self._gpus)) if each]
        self.slots = int(min(room, default=1))
        if not self.slots:
            needs = f"{self._gpus:g} GPUs and {self.options.cpus:g} processors"
            found = f"{has.get('GPU', 0):g} and {has.get('CPU', 0):g}"
            raise UsageError(f"a job takes {needs}, all of Ray's cluster has {found}", "ask for less: --ray gpus=0.5")

    @property
    def device(self) -> str:
        """Where the jobs run."""
        return "cuda" if self._gpus else "cpu"

    def start(self, run: Run, device: str) -> _Task:
        """Hand a run to Ray, which starts its worker once there is room."""
        task = self._ray.remote(work).options(
            name=run.name,
            num_cpus=self.options.cpus,
            num_gpus=self._gpus,
            max_retries=self.options.retries,
            retry_exceptions=[WorkerKilled],
        )
        return _Task(self._ray, run, lambda: task.remote(self.workers, str(run.directory.absolute()), device))


class _Task:
    """A task of Ray on a run directory."""

    pid = 0  # known on its node alone: its GPU is not given on before it ends

    def __init__(self, ray: Any, run: Run, submit: Any) -> None:
        self._ray, self._run, self._before = ray, run, run.heartbeat()
        self._asked, self._words = False, ""
        self._code: int | None = None
        self._reference = submit()

    def poll(self) -> int | None:
        if self._code is None and self._ray.wait([self._reference], timeout=0)[0]:
            self._code, self._words = self._result()
        # A cancelled task counts as ended at once, while its worker still saves.
        return None if self._asked and self._run.owner() is not None else self._code

    def _result(self) -> tuple[int, str]:
        errors = self._ray.exceptions
        try:
            code, words = self._ray.get(self._reference)
            return code, words
        except errors.TaskCancelledError:
            return INTERRUPTED_EXIT, ""
        except (WorkerKilled, errors.WorkerCrashedError, errors.OutOfMemoryError, errors.NodeDiedError):
            return -signal.SIGKILL, ""
        except errors.RayError as error:
            return 1, str(error).strip().splitlines()[-1]

    def waits(self) -> bool:
        """Whether Ray has not begun it."""
        return self._code is None and self._run.heartbeat() == self._before

    def stop(self) -> None:
        self._asked = True
        self._ray.cancel(self._reference)

    def kill(self) -> None:
        self._ray.cancel(self._reference, force=True)

    def last_words(self) -> str:
        return self._words

    def close(self) -> None:
        """Nothing is held."""


def _connected(address: str) -> Any:
    """Ray, connected to a cluster."""
    try:
        import ray
    except ImportError as error:
        raise UsageError("Ray is not installed", "pip install 'sslbench[ray]'") from error
    if not ray.is_initialized():
        try:
            ray.init(address=address or None, log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # each way of connecting has errors of its own
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise SSLBenchError(f"Ray does not answer: {first}", "ray status says whether a cluster runs") from error
    return ray
