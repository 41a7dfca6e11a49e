"""The launcher on this machine: a plan of jobs by state, one worker process per slot, orderly ends."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol

from sslbench.config.job import Job
from sslbench.config.splits import load_splits
from sslbench.core.errors import UsageError
from sslbench.data.store import Store, partition
from sslbench.execution.executors import Executor, StartedWorker
from sslbench.runs.directory import Run, State

POLL_S = 0.2  # between two looks at the workers' processes
LOOK_S = 2.0  # and at what they write, which changes every few seconds
# The ends that one can ask for, where the system knows them; a closed terminal is one, and what Slurm sends before the
# time of an allocation is over.
STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
# Exit codes of a worker process: the system, or a machine that it did not begin on, does not let it go on; another one
# works on the run; not enough memory; it was asked to stop and saved its state.
REFUSED_EXIT, IN_USE_EXIT, NO_MEMORY_EXIT, INTERRUPTED_EXIT = 74, 75, 76, 143
TIME_OVER_EXIT = 124  # of a launch whose time was over before all was done, as `timeout` has it
HUNG_AFTER_S = 7200.0  # without a step, a test case or a validation done

# The stage of a worker that needs its GPU no longer, as `progress.json` has it, with `process`, the worker's.
SCORING = "scoring"

Outcome = Literal["finished", "failed", "interrupted"]


@dataclass
class PlannedJob:
    """A job of a launch.

    Attributes:
        job: canonical.
        run: its directory.
        state: on disk, when the plan was made.
        runs: whether this launch starts it; a finished or failed one, or one that runs elsewhere, it does not.
        outcome: once it ended (or had ended before), how.
        reason: why it failed, was interrupted or is damaged.
        alone: whether no other job is to run beside it: memory was short when others did.
    """

    job: Job
    run: Run
    state: State
    runs: bool
    outcome: Outcome | None = None
    reason: str = ""
    alone: bool = False


def on_stop(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Have a handler called by the signals of `STOPS`, save those that are ignored: `nohup` and `&` mean it so.

    Returns:
        What handled each before.
    """
    heard = [number for number in STOPS if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heard}


class Display(Protocol):
    """Shows a launch; it only looks."""

    def update(self, plan: Sequence[PlannedJob], running: Sequence[PlannedJob]) -> None:
        """Something may have changed; called a few times a second."""
        ...

    def event(self, text: str) -> None:
        """A line worth keeping."""
        ...


def check_data(jobs: Sequence[Job], data_dir: Path) -> dict[tuple[str, str], Store]:
    """The prepared data of all jobs, opened.

    Raises:
        UsageError: a job's dataset is not prepared, or its label budget not whole; nothing was started.
    """
    stores: dict[tuple[str, str], Store] = {}
    asked = [(job.resolved.recipe, job.resolved.job.labeled) for job in jobs]
    for dataset, preprocessing, splits, labeled in dict.fromkeys(
        (recipe.dataset, recipe.preprocessing, recipe.splits, labeled) for recipe, labeled in asked
    ):
        key = (dataset, preprocessing)
        if key not in stores:
            stores[key] = Store.open(data_dir, *key)
        partition(stores[key], load_splits(dataset, splits), labeled)
    return stores


def make_plan(
    jobs: Sequence[Job],
    results: Path,
    stores: dict[tuple[str, str], Store],
    retry_failed: bool = False,
    force: bool = False,
) -> list[PlannedJob]:
    """Plan what a launch does with each job.

    Args:
        jobs: canonical, each once.
        results: the results folder.
        stores: prepared data by (dataset, preprocessing); results made on other data are refused.
        retry_failed: run failed jobs again.
        force: run finished jobs again; the old directory is moved aside when the launch starts.

    Raises:
        SSLBenchError: a directory is damaged, or holds another job or results of other data (where `force` is off).
    """
    plan = []
    for job in jobs:
        run = Run.of(job, results)
        if not force:
            run.check_job(job)
        state = run.look()
        recipe = job.resolved.recipe
        store = stores.get((recipe.dataset, recipe.preprocessing))
        used = run.data.get("fingerprint") if store and state != "pending" else None
        if store and used and used != store.fingerprint and not force:
            raise UsageError(
                f"{run.directory} was run on other data than {recipe.dataset}/{recipe.preprocessing} holds now",
                "--force runs it again and keeps the old results aside, or use another --results-dir",
            )
        wanted = force or state in ("pending", "interrupted", "damaged") or (state == "failed" and retry_failed)
        runs = wanted and state != "running"  # what another process works on is waited for, forced or not
        planned = PlannedJob(job, run, state, runs, reason=run.error)
        if not runs and state in ("finished", "failed"):
            planned.outcome = "finished" if state == "finished" else "failed"
        plan.append(planned)
    return plan


def by_seeds(plan: Sequence[PlannedJob]) -> list[PlannedJob]:
    """The jobs of a plan that run, in the order in which a table fills evenly: the first seed of every row, then the
    second, and so on, whatever ran before."""
    seen: Counter[Path] = Counter()
    rounds = []
    for planned in plan:
        row = planned.run.directory.parent
        rounds.append(seen[row])
        seen[row] += 1
    order = sorted(range(len(plan)), key=lambda place: rounds[place])
    return [plan[place] for place in order if plan[place].runs]


def default_slots() -> int:
    """Jobs at a time where the user does not say: one per GPU, else one per core (two workers of one thread outrun
    one of two)."""
    import torch

    return torch.cuda.device_count() or os.cpu_count() or 1


def slot_devices(slots: int, device: str | None) -> list[str]:
    """The device of each slot: the one asked for, else the GPUs in turn, else the CPU.

    Raises:
        UsageError: none was asked for, and there is a GPU that torch cannot use: a training of days would run on the
            CPU.
    """
    import torch

    if device:
        return [device] * slots
    if why := unused_gpu():
        raise UsageError(why, "sslbench doctor says more; --device cpu trains on the CPU all the same")
    gpus = torch.cuda.device_count()
    return [f"cuda:{slot % gpus}" if gpus else "cpu" for slot in range(slots)]


def card_slots(cards: Sequence[str], per_card: int, at_once: int | None = None) -> list[str]:
    """The device of each slot, of `at_once` at most, where so many jobs share each of these cards: every card gets its
    first job before any gets its second."""
    return [card for _ in range(per_card) for card in cards][:at_once]


def has_nvidia_card() -> bool:
    """Whether the system shows an NVIDIA card, whatever torch makes of it."""
    return Path("/proc/driver/nvidia/gpus").exists() or Path("/dev/nvidia0").exists()


def unused_gpu() -> str:
    """Why torch, which sees no GPU, should: in one line; empty where it sees one, or all is well without."""
    import torch

    if torch.cuda.device_count():
        return ""
    if built_for := torch.version.cuda:
        major = int(built_for.split(".")[0])
        driver = " (a driver of series 580 or later)" if major >= 13 else ""
        return f"torch is built for CUDA {built_for}{driver}, but sees no usable GPU"
    return "this machine has an NVIDIA card, but torch is built for the CPU" if has_nvidia_card() else ""


@dataclass(frozen=True)
class Limits:
    """What ends a launch, or a job of it, before all is done.

    Attributes:
        hours: after which nothing more starts and what runs is asked to save; None: however long it takes.
        fail_fast: whether the first job that fails ends the launch in the same order.
        hung_after_s: a worker without a step, a test case or a validation done for so many seconds is killed, and its
            job has failed.
    """

    hours: float | None = None
    fail_fast: bool = False
    hung_after_s: float = HUNG_AFTER_S


@dataclass
class _Held:
    """A worker of a launch, and when its heartbeat was last another one by the launcher's clock."""

    planned: PlannedJob
    worker: StartedWorker
    heartbeat: Any = None
    heard: float = field(default_factory=time.monotonic)
    hung: str = ""  # why it was killed for that

    def scores(self) -> bool:
        """Whether it said that it has only scores left to count; what an earlier process said does not count."""
        said = self.planned.run.progress()
        return said.get("stage") == SCORING and said.get("process") == self.worker.pid

    def silence(self) -> float:
        """Seconds since it last did something."""
        heartbeat, moment = self.planned.run.heartbeat(), time.monotonic()
        if heartbeat != self.heartbeat or self.worker.waits():
            self.heartbeat, self.heard = heartbeat, moment
        return moment - self.heard


@dataclass
class Launcher:
    """Runs a plan.

    A job that has only scores to count leaves its GPU to the next one; one at a time for each slot, so that they do not
    pile up. On a CPU they would count on the cores that the next job computes on.

    Args:
        plan: from `make_plan`.
        executor: starts the workers.
        devices: one per slot.
        display: shows what happens.
        limits: of the launch.
    """

    plan: list[PlannedJob]
    executor: Executor
    devices: list[str]
    display: Display
    limits: Limits = Limits()
    _running: dict[int, _Held] = field(default_factory=dict)
    _scoring: dict[int, _Held] = field(default_factory=dict)  # by the slot of a GPU that they have left
    _signals: list[int] = field(default_factory=list)
    _over: str = ""  # why nothing more starts, where no signal says it
    _code: int = 1  # of the launch then

    def run(self, force: bool = False) -> int:
        """Run until all is done, a limit is met or a signal came.

        Args:
            force: move the directories of jobs that run aside first.

        Returns:
            0 where every job of the plan is finished, 1 where one is not, 124 where the time was over before, 128 + its
            number after a signal.
        """
        queue = deque(by_seeds(self.plan))
        elsewhere = [planned for planned in self.plan if planned.outcome is None and not planned.runs]
        for planned in queue:
            if force:
                planned.run.move_aside()
            planned.run.write_config(planned.job)
        handlers, begun = on_stop(self._on_signal), time.monotonic()
        look = begun
        try:
            while queue or self._held() or elsewhere:
                self._start(queue, elsewhere)
                self._reap(queue, elsewhere)
                if time.monotonic() >= look:
                    look = time.monotonic() + min(LOOK_S, self.limits.hung_after_s / 10)
                    self._free()
                    self._end_hung()
                if self.limits.hours is not None and time.monotonic() - begun > 3600 * self.limits.hours:
                    self._end(f"the {self.limits.hours:g} hours of --max-hours are over", TIME_OVER_EXIT)
                if self._stopping and not self._held():
                    break
                if not queue and not self._held():
                    self._look_elsewhere(elsewhere, queue)
                self.display.update(self.plan, self._planned_running())
                time.sleep(POLL_S)
        finally:
            for held in self._held():
                held.worker.kill()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if self._signals:
            return 128 + self._signals[0]
        if all(planned.outcome == "finished" for planned in self.plan):
            return 0
        if self._over:
            self.display.event(f"{self._over}; the same command goes on from here")
        return self._code

    @property
    def _stopping(self) -> bool:
        return bool(self._signals or self._over)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)
        if len(self._signals) == 1:
            self.display.event("stopping: each job finishes its step and saves (again to stop at once)")
        for held in self._held():
            (held.worker.stop if len(self._signals) == 1 else held.worker.kill)()

    def _end(self, why: str, code: int = 1) -> None:
        """Start nothing more, and have what runs saved."""
        if not self._stopping:
            self._over, self._code = why, code
            self.display.event(f"{why}: each job finishes its step and saves")
            for held in self._held():
                held.worker.stop()

    def _end_hung(self) -> None:
        for held in self._held():
            if not held.hung and held.silence() > self.limits.hung_after_s:
                said = held.planned.run.progress()
                step = f", iteration {said['iteration']}" if said.get("iteration") else ""
                stage = said.get("stage") or "starting"
                held.hung = f"hung: nothing done for {self.limits.hung_after_s / 60:g} min ({stage}{step})"
                held.worker.kill()

    def _start(self, queue: deque[PlannedJob], elsewhere: list[PlannedJob]) -> None:
        for slot, device in enumerate(self.devices):
            while queue and slot not in self._running and not self._stopping:
                if self._held() and any(one.alone for one in (queue[0], *self._planned_running())):
                    return
                planned = queue.popleft()
                state = planned.run.look()
                if state == "running":  # another launcher was faster
                    elsewhere.append(planned)
                elif state == "finished" or (state == "failed" != planned.state):  # or had it done already
                    self._settle(planned)
                else:
                    try:
                        worker = self.executor.start(planned.run, device)
                    except OSError as error:  # no process, no memory, no place for what it says: the others go on
                        self._settle(planned, f"its worker cannot be started: {error.strerror or error}")
                        continue
                    self._running[slot] = _Held(planned, worker)
                    word = "continues" if state in ("interrupted", "damaged") else "starts"
                    self.display.event(f"{planned.job.title}: {word} on {device}")

    def _held(self) -> list[_Held]:
        return [*self._running.values(), *self._scoring.values()]

    def _planned_running(self) -> list[PlannedJob]:
        return [held.planned for held in self._held()]

    def _free(self) -> None:
        """Free the slots of GPUs whose job has only scores left to count."""
        for slot, held in list(self._running.items()):
            if self.devices[slot] != "cpu" and slot not in self._scoring and held.scores():
                self._scoring[slot] = self._running.pop(slot)

    def _reap(self, queue: deque[PlannedJob], elsewhere: list[PlannedJob]) -> None:
        taken = [(where, slot) for where in (self._running, self._scoring) for slot in where]
        for where, slot in taken:
            held = where[slot]
            code = held.worker.poll()
            if code is None:
                continue
            del where[slot]
            planned = held.planned
            if code == IN_USE_EXIT or (code and planned.run.look() == "running"):  # or taken over before this was seen
                held.worker.close()
                elsewhere.append(planned)
                continue
            if code == NO_MEMORY_EXIT and len(self.devices) > 1 and not planned.alone:
                # It may have been its neighbours' fault: once more without them, after what they are at.
                planned.alone = True
                words = held.worker.last_words()
                held.worker.close()
                with suppress(OSError):
                    planned.run.set_status("interrupted", error=words)
                queue.append(planned)
                self.display.event(f"{planned.job.title}: {words}; it runs again alone, last")
                continue
            self._conclude(held, code)

    def _conclude(self, held: _Held, code: int) -> None:
        """Write down how a worker ended, where it could not."""
        planned = held.planned
        state, reason = planned.run.look(), ""
        if state not in ("finished", "failed"):
            words, state = held.worker.last_words(), "interrupted"
            if held.hung:
                state, reason = "failed", held.hung
            elif code == REFUSED_EXIT:
                reason = words
            elif code < 0 and not self._signals:
                reason = f"the worker was killed by {_signal_name(-code)}"
            elif code < 0 or code == INTERRUPTED_EXIT:
                status = planned.run.status()  # the worker may have said how far it came
                reason = str((status.get("state") == "interrupted" and status.get("error")) or "stopped")
            else:  # it ended before it could say why: an import error, a missing device
                state, reason = "failed", words or f"the worker ended with code {code}"
            with suppress(OSError):  # on a full disk the launch alone knows it
                planned.run.set_status(state, error=reason)
        held.worker.close()
        self._settle(planned, reason)
        if planned.outcome == "failed" and self.limits.fail_fast:
            self._end(f"--fail-fast: {planned.job.title} failed")

    def _settle(self, planned: PlannedJob, reason: str = "") -> None:
        state, status = planned.run.look(), planned.run.status()
        planned.outcome = state if state in ("finished", "failed") else "interrupted"
        planned.reason = reason or planned.run.error
        took = f" in {status['seconds']:.0f} s" if state == "finished" and "seconds" in status else ""
        self.display.event(
            f"{planned.job.title}: {planned.outcome}{took}" + (f": {planned.reason}" if planned.reason else "")
        )

    def _look_elsewhere(self, elsewhere: list[PlannedJob], queue: deque[PlannedJob]) -> None:
        """Jobs that another launcher runs: take over what it abandons, note what it ends."""
        for planned in elsewhere[:]:
            state = planned.run.look()
            if state == "running":
                continue
            elsewhere.remove(planned)
            if state in ("finished", "failed"):
                self._settle(planned)
            else:
                planned.state = state
                queue.append(planned)


def _signal_name(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name} (out of memory?)" if number == signal.SIGKILL else name
