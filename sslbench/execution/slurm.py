"""Slurm: job arrays whose tasks are launchers, each on its share of the run directories.

`submit` hands `sbatch` a constant script and the words of a command, no line of a shell; `task` is what runs in an
allocation. Slurm says where a task stands (`squeue`; `sacct` where there is accounting), a run directory where its job
does; `standing_of` brings both together. Nothing that is read from a results folder is unpickled.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from sslbench.config.text import counted
from sslbench.core.errors import SSLBenchError, UsageError
from sslbench.core.files import read_json, write_json, write_text
from sslbench.data.own.dataset import load_all
from sslbench.execution.executors import LocalWorkers
from sslbench.execution.local import (
    HUNG_AFTER_S,
    Display,
    Launcher,
    Limits,
    PlannedJob,
    by_seeds,
    check_data,
    make_plan,
    on_stop,
    slot_devices,
)
from sslbench.runs.directory import RUNS, Run

SUBMISSIONS = "slurm"  # the folder of a results folder that holds them
ASK_EVERY_S = 15.0  # between two questions to Slurm by one process
_LOOK_EVERY_S = 1.0
_LARGEST_ARRAY = 1000  # Slurm's own limit, where a site has not raised it, is one more
_SCRIPT = '#!/bin/sh\nexec "$@"\n'  # its arguments are a command, word by word
_ENDED = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT",
)  # fmt: skip
_OURS = ("jobs_per_task", "side_by_side", "grace")
_TAKEN = {
    "array": "-j N says how many tasks run at a time",
    "output": "logs lie in the results folder",
    "error": "logs lie in the results folder",
    "open-mode": "a task that was requeued adds to its log",
    "chdir": "tasks run in the folder where they are submitted",
    "signal": "grace=SECONDS says how long before its end an allocation is told",
    "wrap": "the command is ours",
    "parsable": "the answer is read",
    "requeue": "a task whose time is over is queued again",
}


@dataclass(frozen=True)
class SlurmOptions:
    """What is asked of Slurm.

    Attributes:
        options: of `sbatch`, by their long names without dashes in front; an empty value: an option without one.
        jobs_per_task: jobs that share an allocation.
        side_by_side: how many of them run at a time; 0: as many as GPUs are asked for, one where none is.
        grace: seconds before its end at which an allocation is told that its jobs have to be saved.
    """

    options: Mapping[str, str]
    jobs_per_task: int = 1
    side_by_side: int = 0
    grace: int = 120

    @classmethod
    def read(cls, texts: Sequence[str]) -> SlurmOptions:
        """Read `partition=gpu,time=8:00:00,jobs_per_task=2`; a value may hold commas, as `name=` follows
        those that do not belong to it. An option without a value stands alone.

        Raises:
            UsageError: an option that is ours to say, or a number that is none.
        """
        given: dict[str, str] = {}
        for text in texts:
            for part in re.split(r",(?=[a-z][a-z0-9_-]*=)", text):
                name, _, value = part.strip().partition("=")
                if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
                    raise UsageError(f"--slurm {text}: '{name}' is no option", "write partition=gpu,time=8:00:00")
                given[name] = value
        own = {}
        for name in _OURS:
            if name in given:
                value = given.pop(name)
                if not value.isdecimal() or not int(value):
                    raise UsageError(f"--slurm {name}={value} is no number of {name}", f"write {name}=2")
                own[name] = int(value)
        options = {name.replace("_", "-"): value for name, value in given.items()}
        if taken := [name for name in options if name in _TAKEN]:
            raise UsageError(f"--slurm {taken[0]} is not to be chosen", _TAKEN[taken[0]])
        return cls(options, **own)

    @property
    def gpus(self) -> int:
        """How many GPUs an allocation asks for, as far as its options say it."""
        asked = [self.options.get(name, "") for name in ("gpus-per-node", "gpus", "gpus-per-task", "gres")]
        last = [text.rpartition(":")[2] for text in asked if text and (text is not asked[3] or text.startswith("gpu"))]
        return max((int(word) if word.isdecimal() else 1 for word in last), default=0)

    @property
    def slots(self) -> int:
        """Jobs that run at a time in one allocation."""
        return min(self.side_by_side or self.gpus or 1, self.jobs_per_task)

    @property
    def threads(self) -> int:
        """Threads of a job on a CPU: known before a node is, because they change rounding."""
        cores = self.options.get("cpus-per-task", "")
        return max(1, (int(cores) if cores.isdecimal() else 1) // self.slots)

    def words(self, tasks: int, at_once: int | None, folder: Path) -> list[str]:
        """The command that submits an array, up to what its tasks run.

        Args:
            tasks: how many.
            at_once: of them, at most; None: as Slurm likes.
            folder: for logs.
        """
        limit = f"%{at_once}" if at_once else ""
        asked = {"job-name": "sslbench", **self.options}
        return [
            "sbatch",
            "--parsable",
            "--requeue",
            "--open-mode=append",
            *(f"--{name}={value}" if value else f"--{name}" for name, value in asked.items()),
            f"--array=0-{tasks - 1}{limit}",
            f"--signal=B:USR1@{self.grace}",
            f"--output={folder}/%A_%a.log",
        ]


@dataclass(frozen=True)
class TaskSettings:
    """What every task of a submission runs its jobs with, as `tasks.json` has it.

    Attributes:
        data_dir, results_dir: where things live, on every node.
        device: as for `run`; None: the GPUs there are, else the CPU.
        threads: of each worker on a CPU.
        slots: jobs at a time.
        sink, resume_anyway, hung_after_s: as for `run`.
    """

    data_dir: str
    results_dir: str
    device: str | None
    threads: int
    slots: int
    sink: str | None = None
    resume_anyway: bool = False
    hung_after_s: float = HUNG_AFTER_S


class TaskState(NamedTuple):
    """Where Slurm says that a task stands.

    Attributes:
        state: in Slurm's words: `PENDING`, `RUNNING`, `TIMEOUT`; `UNKNOWN`: it no longer knows the task.
        reason: why it waits, likewise: `Priority`, `Resources`; or empty.
    """

    state: str
    reason: str = ""

    @property
    def live(self) -> bool:
        """Whether it will run, or does."""
        return self.state not in (*_ENDED, "UNKNOWN")


UNKNOWN = TaskState("UNKNOWN")


class Placed(NamedTuple):
    """The task that a run was submitted in, as its `slurm.json` has it.

    Attributes:
        task: in Slurm's words: `<array>_<number>`.
        log: its file.
    """

    task: str
    log: Path

    @property
    def array(self) -> str:
        return self.task.partition("_")[0]

    def siblings(self) -> list[str]:
        """The names of all runs of the task."""
        found = read_json(self.log.parent / "tasks.json")
        tasks = found.get("tasks") if isinstance(found, dict) else None
        number = int(self.task.partition("_")[2] or 0)
        return list(tasks[number]) if isinstance(tasks, list) and number < len(tasks) else []


def placed(run: Run) -> Placed | None:
    """The task that a run was last submitted in; None: it never was."""
    found = run.submission()
    return Placed(str(found["task"]), Path(str(found.get("log")))) if found.get("task") else None


# ------------------------------------------------------------------------------------------------ Slurm's commands


def _slurm(*words: str) -> str:
    """What a command of Slurm printed.

    Raises:
        UsageError: it is not on this machine.
        SSLBenchError: it refused.
    """
    try:
        done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, timeout=120)
    except FileNotFoundError as error:
        raise UsageError(
            f"there is no {words[0]} on this machine", "work on one that has Slurm's commands, a login node"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SSLBenchError(f"{words[0]} does not answer", "try again; sinfo says whether Slurm runs") from error
    if done.returncode:
        said = [line.removeprefix(f"{words[0]}: error: ") for line in done.stderr.strip().splitlines()]
        raise SSLBenchError(f"{words[0]}: {'; '.join(said) or f'exit code {done.returncode}'}")
    return done.stdout


class SlurmQueue:
    """Slurm's view of tasks; asked now and then, however often somebody looks.

    Args:
        clock: seconds that pass.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._asked = clock, -ASK_EVERY_S
        self._known: dict[str, TaskState] = {}
        self._arrays: frozenset[str] = frozenset()

    def look(self, tasks: Iterable[Placed], now: bool = False) -> Mapping[str, TaskState]:
        """The states of these tasks, by name; those that Slurm no longer knows are not there.

        Args:
            tasks: of any arrays.
            now: ask, even if the last answer is young.
        """
        arrays = frozenset(task.array for task in tasks)
        if not arrays:
            return {}
        if now or not arrays <= self._arrays or self._clock() - self._asked >= ASK_EVERY_S:
            self._known, self._arrays = self._ask(sorted(arrays)), arrays
            self._asked = self._clock()
        return self._known

    def _ask(self, arrays: Sequence[str]) -> dict[str, TaskState]:
        found = {}
        jobs = f"--jobs={','.join(arrays)}"
        # What ended is in the accounting where there is one, and for some minutes in the queue everywhere.
        with suppress(SSLBenchError):
            for line in _slurm(
                "sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State", jobs
            ).split("\n"):
                task, _, state = line.partition("|")
                if state and "[" not in task:
                    found[task] = TaskState(state.split()[0])
        try:
            listed = _slurm("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r", jobs)
        except UsageError:
            raise
        except SSLBenchError as error:
            if "Invalid job id" not in error.message:  # it has forgotten all of them
                raise
            listed = ""
        for line in listed.splitlines():
            task, state, reason = line.split("|", 2)
            found[task] = TaskState(state, "" if reason == "None" else reason)
        return found


def cancel_tasks(tasks: Iterable[str]) -> None:
    """End tasks: those that run are told first, and save. See `_slurm` for errors."""
    if named := sorted(set(tasks)):
        _slurm("scancel", *named)


# -------------------------------------------------------------------------------------------------------- submission


def shares(plan: Sequence[PlannedJob], jobs_per_task: int) -> list[list[PlannedJob]]:
    """The jobs that run, by task, in the order in which a table fills evenly."""
    queue = by_seeds(plan)
    return [queue[start : start + jobs_per_task] for start in range(0, len(queue), jobs_per_task)]


def leave_queued(plan: Sequence[PlannedJob], queue: SlurmQueue) -> list[PlannedJob]:
    """Take out of a plan the jobs that Slurm has already, and return them."""
    tasks = {id(planned): placed(planned.run) for planned in plan if planned.runs}
    known = queue.look([task for task in tasks.values() if task])
    left = []
    for planned in plan:
        task = tasks.get(id(planned))
        if task and known.get(task.task, UNKNOWN).live:
            planned.runs = False
            left.append(planned)
    return left


def submit(
    plan: Sequence[PlannedJob], options: SlurmOptions, settings: TaskSettings, at_once: int | None, force: bool = False
) -> list[str]:
    """Submit the jobs of a plan that run.

    Args:
        plan: from `make_plan`; results folder and data are where every node finds them.
        options: of the allocations.
        settings: of the tasks.
        at_once: tasks at a time, at most.
        force: move the directories of jobs that run aside first.

    Returns:
        The arrays' numbers in Slurm's words.

    Raises:
        UsageError, SSLBenchError: Slurm is not here, or refuses; see `_slurm`.
    """
    tasks, arrays = shares(plan, options.jobs_per_task), []
    for start in range(0, len(tasks), _LARGEST_ARRAY):
        some = tasks[start : start + _LARGEST_ARRAY]
        for planned in (planned for jobs in some for planned in jobs):
            if force:
                planned.run.move_aside()
            planned.run.write_config(planned.job)
            if planned.state == "failed" and not force:
                planned.run.set_status("interrupted", error="to be run again")
        folder = _new_folder(Path(settings.results_dir) / SUBMISSIONS)
        names = [[planned.run.name for planned in jobs] for jobs in some]
        write_json(folder / "tasks.json", {"settings": asdict(settings), "tasks": names})
        script = folder / "run.sh"
        write_text(script, _SCRIPT)
        command = [sys.executable, "-m", "sslbench", "task", str(folder)]
        try:
            answer = _slurm(*options.words(len(some), at_once, folder), str(script), *command)
        except SSLBenchError:
            shutil.rmtree(folder)
            raise
        array = answer.strip().splitlines()[-1].partition(";")[0]
        for number, jobs in enumerate(some):
            for planned in jobs:
                planned.run.set_submission(task=f"{array}_{number}", log=str(folder / f"{array}_{number}.log"))
        arrays.append(array)
    return arrays


def _new_folder(parent: Path) -> Path:
    """A folder for a submission, which nobody else has."""
    stamp, number = datetime.now().strftime("%Y%m%d-%H%M%S"), 1
    while True:
        folder = parent / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


# ---------------------------------------------------------------------------------------------- in an allocation


def run_task(folder: Path, number: int, display: Display) -> int:
    """Run one task of a submission in its allocation. Told (`SIGUSR1`) that its time is nearly over, it saves the jobs
    that are not at their end, and is queued again.

    Args:
        folder: of the submission.
        number: of the task.
        display: shows what happens.

    Returns:
        As `Launcher.run`.

    Raises:
        UsageError: what was submitted cannot be run as it was.
    """
    found = read_json(folder / "tasks.json")
    if not isinstance(found, dict):
        raise UsageError(f"{folder} holds no submission", "sslbench run --executor slurm makes one")
    settings, names = TaskSettings(**found["settings"]), found["tasks"][number]
    results, data = Path(settings.results_dir), Path(settings.data_dir)
    load_all(data)
    jobs = [Run(results / RUNS / name).load_job() for name in names]
    plan = make_plan(jobs, results, check_data(jobs, data))
    for name, planned in zip(names, plan, strict=True):
        if planned.run.name != name:
            raise UsageError(f"{name} was submitted, but is now {planned.run.name}", "its recipe changed: submit again")
    before = _saved(plan)
    workers = LocalWorkers(data, settings.threads, settings.sink, settings.resume_anyway)
    devices = slot_devices(min(settings.slots, len(plan)), settings.device)
    code = Launcher(plan, workers, devices, display, Limits(hung_after_s=settings.hung_after_s)).run()
    if code == 128 + signal.SIGUSR1 and any(planned.outcome in (None, "interrupted") for planned in plan):
        if _saved(plan) == before:
            display.event("the time of the allocation was over before anything was saved: give it more, time=...")
        else:
            display.event("the time of the allocation is over: queued again")
            _slurm("scontrol", "requeue", task_here())
    return code


def task_here() -> str:
    """The task that this process runs in, in Slurm's words; empty outside of any."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else ""


def _saved(plan: Sequence[PlannedJob]) -> list[list[str]]:
    """What a task has to show so far: by job its generations of state, or its records."""
    return [sorted(path.name for path in planned.run.saved()) for planned in plan]


# ------------------------------------------------------------------------------------------------------- its standing


def standing_of(run: Run, tasks: Mapping[str, TaskState]) -> dict[str, Any] | None:
    """What Slurm has to do with a run that is not over: `task`, `state`, `reason`, `log`, `live`, and `ended`, a line
    where it is not; None: nothing.

    Args:
        run: that was looked at.
        tasks: from `SlurmQueue.look`.
    """
    task = placed(run)
    if task is None or run.state in ("finished", "failed", "damaged"):
        return None
    state = tasks.get(task.task, UNKNOWN)
    told = "" if state.live else ended(state, task)
    return {**state._asdict(), "task": task.task, "log": str(task.log), "live": state.live, "ended": told}


@dataclass
class Waiter:
    """Waits for what was submitted as a launcher waits for its workers; it only looks.

    Args:
        plan: with the jobs that Slurm has.
        display: shows what happens.
        queue: Slurm's view.
    """

    plan: list[PlannedJob]
    display: Display
    queue: SlurmQueue = field(default_factory=SlurmQueue)
    _signals: list[int] = field(default_factory=list)
    _gone: set[str] = field(default_factory=set)  # tasks that one look found ended while their job was not

    def run(self) -> int:
        """Wait until all jobs are over, or Slurm has none of those that are not.

        Returns:
            0 where every job of the plan is finished, 1 where one is not, 128 + its number after a signal.
        """
        handlers = on_stop(self._on_signal)
        asked = time.monotonic()
        try:
            while not self._signals:
                waiting = self._settle_over()
                if time.monotonic() - asked >= ASK_EVERY_S:
                    asked = time.monotonic()
                    self._settle_gone(waiting)
                waiting = [planned for planned in waiting if planned.outcome is None]
                if not waiting:
                    break
                self.display.update(self.plan, [planned for planned in waiting if planned.run.state == "running"])
                time.sleep(_LOOK_EVERY_S)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if self._signals:
            self.display.event("what was submitted stays with Slurm: sslbench status shows it, sslbench cancel ends it")
            return 128 + self._signals[0]
        return 0 if all(planned.outcome == "finished" for planned in self.plan) else 1

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def _settle_over(self) -> list[PlannedJob]:
        """Note which jobs are over, and return the others."""
        waiting = []
        for planned in self.plan:
            if planned.outcome is not None:
                continue
            before = planned.state
            planned.state = planned.run.look()
            if planned.state in ("finished", "failed"):
                planned.outcome = "finished" if planned.state == "finished" else "failed"
                planned.reason = planned.run.error
                self._tell(planned, planned.outcome)
                continue
            if planned.state == "running" != before:
                self._tell(planned, "runs")
            waiting.append(planned)
        return waiting

    def _settle_gone(self, waiting: Sequence[PlannedJob]) -> None:
        """Give up jobs whose task has ended, twice in a row: a folder of another machine may show its end late."""
        tasks = {id(planned): task for planned in waiting if (task := placed(planned.run))}
        try:
            known = self.queue.look(tasks.values(), now=True)
        except SSLBenchError as error:  # Slurm's controller restarts, for example
            self.display.event(error.message)
            return
        gone = set()
        for planned in waiting:
            task = tasks.get(id(planned))
            state = known.get(task.task, UNKNOWN) if task else UNKNOWN
            if state.live or planned.run.state == "running":
                continue
            gone.add(planned.run.name)
            if planned.run.name in self._gone:
                planned.outcome = "interrupted"
                planned.reason = ended(state, task) if task else "it was not submitted"
                self._tell(planned, planned.outcome)
        self._gone = gone

    def _tell(self, planned: PlannedJob, what: str) -> None:
        reason = f": {planned.reason}" if planned.outcome and planned.reason else ""
        self.display.event(f"{planned.job.title}: {what}{reason}")


def ended(state: TaskState, task: Placed) -> str:
    """That a task has ended before its job."""
    how = "is no longer known to Slurm" if state == UNKNOWN else f"ended: {state.state}"
    return f"Slurm's task {task.task} {how}; log: {task.log}"


def submitted(plan: Sequence[PlannedJob], arrays: Sequence[str]) -> str:
    """The line about a submission."""
    jobs = [planned for planned in plan if planned.runs]
    tasks = {task.task for planned in jobs if (task := placed(planned.run))}
    return f"submitted {counted(len(jobs), 'job')} in {counted(len(tasks), 'task')}: Slurm array {', '.join(arrays)}"
