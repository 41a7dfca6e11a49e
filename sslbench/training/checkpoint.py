"""Checkpoints that hold all state, in two generations, and the rules that choose which weights are tested."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sslbench.core.errors import SSLBenchError
from sslbench.core.files import atomic_path

if TYPE_CHECKING:
    from sslbench.config.recipe import CheckpointRule, Recipe

LAYOUT = 2  # of the files; raised when something in them, or their names, would be misread


class Checkpoints:
    """The `checkpoints/` folder of a run: `step-<n>.pt` to resume from (the last two), `best*.pt` to test.

    A generation names the best weights that it needs. They are written before it, under a name that has their
    iteration, and stay as long as it does: whichever generation a training continues from, the weights that it knows as
    the best are those on the disk, whatever came after it.

    Files are written beside the training, one `save` at a time; what goes wrong there is raised by the next call.

    Args:
        folder: made when it is first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unreadable: list[str] = []
        self._needed: dict[str, frozenset[str]] = {}  # by the name of a generation; those that were read or written
        self._writing: _Writing | None = None

    def save(
        self,
        state: Mapping[str, Any],
        step: int,
        best: Mapping[str, Snapshot] | None = None,
        needed: Sequence[str] = (),
    ) -> None:
        """Write a generation as the state is now, and forget all but the one before it; waits for the write before.

        Args:
            state: tensors and plain values.
            step: names the generation.
            best: best weights that are new, by name; written first.
            needed: the names of all that the generation needs.
        """
        self.wait()
        name, copied = f"step-{step:08d}.pt", Snapshot(state)

        def write() -> None:
            for kept, weights in (best or {}).items():
                save(weights.content(), self.folder / f"{kept}.pt")
            save({"format": LAYOUT, "needed": [*needed], "state": copied.content()}, self.folder / name)
            self._needed[name] = frozenset(needed)
            self._forget()

        self._writing = _Writing(write)

    def wait(self) -> None:
        """Wait until all is written.

        Raises:
            StorageError: the system refused it.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.join()
            if writing.error is not None:
                raise writing.error

    def check(self) -> None:
        """Raise, as `wait` does, what has gone wrong by now; waits for nothing."""
        if self._writing is not None and not self._writing.is_alive():
            self.wait()

    def load(self) -> dict[str, Any] | None:
        """The newest generation that can be read, or None; those that cannot are named in `unreadable`.

        Raises:
            SSLBenchError: another version of sslbench wrote it.
        """
        self.wait()
        for path in reversed(self._generations()):
            try:
                found = load(path)
            except Exception as error:  # whatever a damaged archive raises: the generation before it is there for that
                self.unreadable.append(f"{path.name}: {error}")
                self._needed[path.name] = frozenset()
                continue
            if found.get("format") != LAYOUT:
                raise SSLBenchError(
                    f"{path} was written by a version of sslbench with another layout of checkpoints",
                    "use that version (provenance.json names it), or run the job again with --force",
                )
            self._needed[path.name] = frozenset(found["needed"])
            state: dict[str, Any] = found["state"]
            return state
        return None

    def load_best(self, name: str) -> dict[str, Any]:
        """The best weights of a name."""
        self.wait()
        path = self.folder / f"{name}.pt"
        try:
            return load(path)
        except Exception as error:
            raise SSLBenchError(f"{path} cannot be read: {error}", "run the job again with --force") from error

    def _generations(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.pt"))

    def _forget(self) -> None:
        """Remove all generations but two, and best weights that neither needs."""
        generations = self._generations()
        for path in generations[:-2]:
            path.unlink(missing_ok=True)  # a folder of another machine may list what is gone
        kept = [self._needed.get(path.name) for path in generations[-2:]]
        if None in kept:
            return  # one that this process did not read: it is gone soon
        needed = frozenset().union(*filter(None, kept))
        for path in self.folder.glob("best*.pt"):
            if path.stem not in needed:
                path.unlink(missing_ok=True)


class _Writing(threading.Thread):
    """A write beside the training, begun; it does not keep a process alive that is told to end at once."""

    def __init__(self, write: Callable[[], None]) -> None:
        super().__init__(name="checkpoint", daemon=True)
        self._write = write
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._write()
        except Exception as error:
            self.error = error


class Snapshot:
    """A copy in this machine's memory of a state as it is now; a GPU, whose copy is on its way, is not waited for.

    Args:
        state: tensors and plain values, in dictionaries, lists and tuples.
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._copies: dict[tuple[Any, ...], Tensor] = {}
        self._state: dict[str, Any] = {key: self._copied(value) for key, value in state.items()}
        self._arrived = []
        for device in {device for device, *_ in self._copies if device.type == "cuda"}:
            self._arrived.append(torch.cuda.current_stream(device).record_event())

    def content(self) -> dict[str, Any]:
        """The state, once it is here."""
        for event in self._arrived:
            event.synchronize()
        return self._state

    def _copied(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            # What several names share is one copy, and is written once.
            key = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
            if key not in self._copies:
                self._copies[key] = _on_host(value.detach())
            return self._copies[key]
        if isinstance(value, dict):
            found = copy.copy(value)  # a state has notes of its modules' versions beside its items
            for name, part in value.items():
                found[name] = self._copied(part)
            return found
        if isinstance(value, list | tuple):
            return type(value)(self._copied(part) for part in value)
        return value


def _on_host(tensor: Tensor) -> Tensor:
    if tensor.device.type != "cuda":
        return tensor.clone()
    there = torch.empty_like(tensor, device="cpu", pin_memory=True)
    return there.copy_(tensor, non_blocking=True)


def save(state: Mapping[str, Any], path: Path) -> None:
    """Write a state of tensors and plain values, whole or not at all."""
    # By its path alone, torch would not say that the disk is full.
    with atomic_path(path) as aside, aside.open("wb") as stream:
        torch.save(dict(state), stream)


def load(path: Path) -> dict[str, Any]:
    """Read a state, to the CPU; nothing but tensors and plain values is unpickled."""
    return torch.load(path, map_location="cpu", weights_only=True)


@dataclass
class Selection:
    """Which weights are tested: a named rule over validation scores; test cases never take part.

    `last`: the last iteration's. `best-val`: of the highest validation score, the first where several tie. Where each
    network of a method is a candidate (`inference.networks: best_val`), each keeps its own best and the better one is
    chosen.

    Attributes:
        rule: `last` or `best-val`.
        candidates: predictors that are scored apart; None stands for the method's own rule.
        best: per candidate, its best score and the iteration of it.
        latest: per candidate, its last score.
    """

    rule: CheckpointRule
    candidates: tuple[str | None, ...]
    best: dict[str | None, tuple[float, int]] = field(default_factory=dict)
    latest: dict[str | None, float] = field(default_factory=dict)

    @classmethod
    def of(cls, recipe: Recipe, keys: tuple[str, ...]) -> Selection:
        """The rule of a recipe, for a method with these predictors."""
        apart = recipe.inference.networks == "best_val" and len(keys) > 1
        return cls(recipe.checkpoint, keys if apart else (None,))

    def observe(self, iteration: int, scores: Mapping[str | None, float]) -> list[str | None]:
        """Take the scores of a validation; the candidates whose weights are to be kept now."""
        self.latest = dict(scores)
        better = [key for key, score in scores.items() if score > self.best.get(key, (-1.0, 0))[0]]
        for key in better:
            self.best[key] = (scores[key], iteration)
        return better

    def choose(self, rule: CheckpointRule | None = None) -> tuple[str | None, str | None]:
        """(predictor to test, name of the file with its weights; None: the last ones), by its own rule or another."""
        if (rule or self.rule) == "last" or not self.best:
            # Without a score (no validation, or none that is a number) the method's own rule decides.
            known = {key: score for key, score in self.latest.items() if score == score}
            own = self.candidates[0] if len(self.candidates) == 1 else None
            return max(known, key=lambda key: known[key], default=own), None
        key = max(self.best, key=lambda key: self.best[key][0])
        return key, self.file(key)

    def files(self) -> list[str]:
        """The names under which the best weights of all candidates are kept."""
        return [self.file(key) for key in self.best]

    def tested(self, checkpoints: Checkpoints) -> tuple[str | None, dict[str, Any]]:
        """The predictor that a finished training tests, and the state of its method.

        Raises:
            SSLBenchError: no checkpoint can be read.
        """
        last = checkpoints.load()
        if last is None:
            raise SSLBenchError(f"{checkpoints.folder} holds no checkpoint that can be read")
        self.restore(last["selection"])
        key, name = self.choose()
        state: dict[str, Any] = (checkpoints.load_best(name) if name else last)["method"]
        return key, state

    def best_file(self) -> str:
        """The name of the best weights of this phase, whatever the rule of the last one."""
        return self.file(max(self.best, key=lambda key: self.best[key][0]))

    def file(self, key: str | None) -> str:
        """The name under which a candidate's best weights are kept: no two of a training share one."""
        return "-".join(["best", *([] if key is None else [key]), f"{self.best[key][1]:08d}"])

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"best": dict(self.best), "latest": dict(self.latest)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.best, self.latest = dict(state["best"]), dict(state["latest"])
